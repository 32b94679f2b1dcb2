//! A radio without a radio: a scripted air, for tests, benches and demonstrations.
//!
//! In: devices, advertisements and mishaps, as a script says. Out: a [`Transport`] that keeps to the same suite as the real
//! ones. Must never be kinder than a real radio: it breaks links, hangs and forgets when it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use protocols::ble::{Advertisement, Mac};
use tokio::sync::{Notify, mpsc, watch};

use super::transport::{BleError, CharRef, Event, Link, Pairing, Scan, ScanMode, ScanWish, Transport, WriteKind};

/// Advertisements that may wait, in messages; one more is given up and counted.
const WAITING: usize = 8_192;
/// Values of one characteristic that may wait; one more is given up.
const VALUES: usize = 64;
/// Calls that are remembered for the test that asks; older ones are forgotten.
const JOURNAL: usize = 1_024;

/// What a device does with one of its characteristics.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// What is read, and what was written last.
    pub value: Vec<u8>,
    /// Only paired devices may read it.
    pub is_secret: bool,
    /// Refuses with this ATT error.
    pub refuses: Option<u8>,
    /// Never answers.
    pub hangs: bool,
}

/// A device in the air.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its characteristics.
    pub slots: BTreeMap<(u128, u128, u8), Slot>,
    /// The passkey on its label; without one it pairs with everybody.
    pub passkey: Option<u32>,
}

impl Peer {
    /// The device with one more characteristic.
    #[must_use]
    pub fn with(mut self, at: CharRef, slot: Slot) -> Self {
        self.slots.insert(key(at), slot);
        self
    }
}

/// A [`CharRef`] that can be sorted: service, characteristic, instance.
type Key = (u128, u128, u8);

fn key(at: CharRef) -> Key {
    (at.service.0, at.characteristic.0, at.instance)
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Mishaps {
    /// Opening the adapter fails for this reason.
    pub open: Option<BleError>,
    /// The next connections fail for these reasons.
    pub connect: VecDeque<BleError>,
    /// The scan runs and hears nothing.
    pub deaf: bool,
    /// Beginning a scan fails for this reason.
    pub scan: Option<BleError>,
}

#[derive(Default)]
struct World {
    peers: BTreeMap<Mac, Peer>,
    /// Who was heard since the adapter is there.
    known: Vec<Mac>,
    paired: Vec<Mac>,
    events: VecDeque<Event>,
    links: BTreeMap<Mac, watch::Sender<bool>>,
    listeners: BTreeMap<(Mac, Key), mpsc::Sender<Bytes>>,
    scan: Option<(Scan, ScanMode)>,
    is_open: bool,
    is_gone: bool,
    mishaps: Mishaps,
    journal: VecDeque<String>,
    dropped: u64,
}

/// The air around the radio. Copies are one air.
#[derive(Clone, Default)]
pub struct Air {
    world: Arc<Mutex<World>>,
    wake: Arc<Notify>,
}

impl Air {
    /// Silence, and a working adapter.
    pub fn new() -> Self {
        Self::default()
    }

    /// The radio in this air.
    pub fn radio(&self) -> FakeRadio {
        FakeRadio { air: self.clone() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a device; it says nothing by itself.
    pub fn bring(&self, address: Mac, peer: Peer) {
        self.world().peers.insert(address, peer);
    }

    /// Changes a device's characteristic; who subscribed is told.
    pub fn turn(&self, address: Mac, at: CharRef, value: &[u8]) {
        let mut world = self.world();
        if let Some(slot) = world.peers.get_mut(&address).and_then(|peer| peer.slots.get_mut(&key(at))) {
            slot.value = value.to_vec();
        }
        if let Some(listener) = world.listeners.get(&(address, key(at)))
            && listener.try_send(Bytes::copy_from_slice(value)).is_err()
        {
            world.dropped += 1;
        }
    }

    /// What a device's characteristic holds.
    pub fn value(&self, address: Mac, at: CharRef) -> Option<Vec<u8>> {
        Some(self.world().peers.get(&address)?.slots.get(&key(at))?.value.clone())
    }

    /// Says something into the air; whether anybody hears it depends on the scan.
    pub fn say(&self, heard: Advertisement) {
        let mut world = self.world();
        if world.is_gone || world.mishaps.deaf || !world.is_open {
            return;
        }
        let passes = match &world.scan {
            None => false,
            Some((_, ScanMode::Active)) => true,
            Some((scan, ScanMode::Passive)) => scan.patterns.iter().any(|pattern| fits(pattern, &heard)),
        };
        if !passes {
            return;
        }
        if let Some(address) = heard.address.filter(|address| !world.known.contains(address)) {
            world.known.push(address);
        }
        if world.events.len() >= WAITING {
            world.dropped += 1;
            return;
        }
        world.events.push_back(Event::Heard(heard));
        drop(world);
        self.wake.notify_one();
    }

    /// Pulls the adapter out.
    pub fn unplug(&self) {
        let mut world = self.world();
        world.is_gone = true;
        world.cut_all();
        world.known.clear();
        world.events.push_back(Event::Lost("the adapter was taken away".to_owned()));
        drop(world);
        self.wake.notify_one();
    }

    /// Puts it in again.
    pub fn plug(&self) {
        self.world().is_gone = false;
    }

    /// Ends the scan from outside.
    pub fn end_scan(&self) {
        let mut world = self.world();
        if world.scan.take().is_some() {
            world.events.push_back(Event::ScanEnded("somebody else ended it".to_owned()));
        }
        drop(world);
        self.wake.notify_one();
    }

    /// Breaks the link to a device.
    pub fn cut(&self, address: Mac) {
        self.world().cut(address);
    }

    /// Forgets who was heard, as stacks do after a while.
    pub fn forget(&self) {
        self.world().known.clear();
    }

    /// Arranges mishaps.
    pub fn mishaps(&self, arrange: impl FnOnce(&mut Mishaps)) {
        arrange(&mut self.world().mishaps);
    }

    /// What the radio was told to do, oldest first; told once.
    pub fn journal(&self) -> Vec<String> {
        self.world().journal.drain(..).collect()
    }
}

/// Whether an advertisement has what a monitor's pattern asks for; service and manufacturer data only.
fn fits(pattern: &super::transport::AdPattern, heard: &Advertisement) -> bool {
    let structures: Vec<Vec<u8>> = match pattern.ad_type {
        0x16 => heard
            .service_data
            .iter()
            .map(|(uuid, data)| {
                let short = (uuid.0 >> 96) as u16;
                [&short.to_le_bytes()[..], data].concat()
            })
            .collect(),
        0xFF => heard.manufacturer.iter().map(|(id, data)| [&id.to_le_bytes()[..], data].concat()).collect(),
        _ => Vec::new(),
    };
    let start = usize::from(pattern.start);
    structures.iter().any(|data| data.get(start..).is_some_and(|rest| rest.starts_with(&pattern.content)))
}

impl World {
    fn note(&mut self, what: String) {
        if self.journal.len() >= JOURNAL {
            self.journal.pop_front();
        }
        self.journal.push_back(what);
    }

    fn cut(&mut self, address: Mac) {
        if let Some(link) = self.links.remove(&address) {
            link.send_replace(false);
        }
        self.listeners.retain(|(of, _), _| *of != address);
    }

    fn cut_all(&mut self) {
        let all: Vec<Mac> = self.links.keys().copied().collect();
        for address in all {
            self.cut(address);
        }
    }
}

/// The radio of an [`Air`].
pub struct FakeRadio {
    air: Air,
}

impl Transport for FakeRadio {
    type Link = FakeLink;

    async fn open(&mut self) -> Result<(), BleError> {
        let mut world = self.air.world();
        world.note("open".to_owned());
        if let Some(error) = &world.mishaps.open {
            return Err(error.clone());
        }
        if world.is_gone {
            return Err(BleError::NoAdapter { wanted: "fake".to_owned(), there: Vec::new() });
        }
        world.is_open = true;
        world.events.clear();
        Ok(())
    }

    async fn close(&mut self) {
        let mut world = self.air.world();
        world.note("close".to_owned());
        world.is_open = false;
        world.scan = None;
        world.cut_all();
    }

    async fn scan(&mut self, scan: &Scan) -> Result<ScanMode, BleError> {
        let mut world = self.air.world();
        if let Some(error) = world.mishaps.scan.clone() {
            return Err(error);
        }
        let is_passive = scan.wish == ScanWish::Auto && !scan.patterns.is_empty();
        let mode = if is_passive { ScanMode::Passive } else { ScanMode::Active };
        world.note(format!("scan {mode:?}"));
        world.scan = Some((scan.clone(), mode));
        Ok(mode)
    }

    async fn quiet(&mut self) {
        let mut world = self.air.world();
        world.note("quiet".to_owned());
        world.scan = None;
    }

    async fn reset(&mut self) -> Result<(), BleError> {
        let mut world = self.air.world();
        world.note("reset".to_owned());
        world.mishaps.deaf = false;
        Ok(())
    }

    async fn event(&mut self) -> Event {
        loop {
            let told = self.air.world().events.pop_front();
            match told {
                Some(event) => return event,
                None => self.air.wake.notified().await,
            }
        }
    }

    async fn connect(&mut self, address: Mac, pairing: Pairing, limit: Duration) -> Result<FakeLink, BleError> {
        let is_hanging = {
            let mut world = self.air.world();
            let is_quiet = world.scan.is_none();
            world.note(format!("connect {address}{}", if is_quiet { "" } else { " while scanning" }));
            match world.mishaps.connect.pop_front() {
                Some(BleError::Timeout(_)) => true,
                Some(error) => return Err(error),
                None => false,
            }
        };
        if is_hanging {
            tokio::time::sleep(limit).await;
            return Err(BleError::Timeout("Connect"));
        }
        let mut world = self.air.world();
        if world.is_gone {
            return Err(BleError::NoAdapter { wanted: "fake".to_owned(), there: Vec::new() });
        }
        if !world.known.contains(&address) || !world.peers.contains_key(&address) {
            return Err(BleError::NotFound(address));
        }
        let (up, is_up) = watch::channel(true);
        world.links.insert(address, up);
        Ok(FakeLink { air: self.air.clone(), address, is_up, pairing })
    }

    fn dropped(&self) -> u64 {
        self.air.world().dropped
    }
}

/// A connection in an [`Air`].
pub struct FakeLink {
    air: Air,
    address: Mac,
    is_up: watch::Receiver<bool>,
    pairing: Pairing,
}

impl FakeLink {
    /// Looks at a characteristic as a device does before it answers.
    fn slot(&self, at: CharRef) -> Result<Slot, BleError> {
        if !self.is_up() {
            return Err(BleError::Disconnected("the device is gone".to_owned()));
        }
        let world = self.air.world();
        let slot = world.peers.get(&self.address).and_then(|peer| peer.slots.get(&key(at)));
        let slot = slot.ok_or(BleError::NoCharacteristic(at.characteristic, at.service))?;
        if let Some(code) = slot.refuses {
            return Err(BleError::Att(code));
        }
        if slot.is_secret && !world.paired.contains(&self.address) {
            return Err(BleError::AuthRequired("insufficient authentication".to_owned()));
        }
        Ok(slot.clone())
    }

    async fn answer(&self, slot: &Slot) -> Result<(), BleError> {
        if slot.hangs {
            tokio::time::sleep(Duration::from_secs(10)).await;
            return Err(BleError::Timeout("the device"));
        }
        Ok(())
    }
}

impl Link for FakeLink {
    async fn read(&mut self, at: CharRef) -> Result<Bytes, BleError> {
        let slot = self.slot(at)?;
        self.answer(&slot).await?;
        Ok(slot.value.into())
    }

    async fn write(&mut self, at: CharRef, value: &[u8], kind: WriteKind) -> Result<(), BleError> {
        let slot = self.slot(at);
        if kind == WriteKind::Command && matches!(slot, Err(BleError::Att(_))) {
            return Ok(());
        }
        self.answer(&slot?).await?;
        self.air.turn(self.address, at, value);
        Ok(())
    }

    async fn subscribe(&mut self, at: CharRef) -> Result<mpsc::Receiver<Bytes>, BleError> {
        self.slot(at)?;
        let (values, heard) = mpsc::channel(VALUES);
        self.air.world().listeners.insert((self.address, key(at)), values);
        Ok(heard)
    }

    async fn pair(&mut self) -> Result<(), BleError> {
        let mut world = self.air.world();
        let label = world.peers.get(&self.address).and_then(|peer| peer.passkey);
        match (self.pairing, label) {
            (Pairing::JustWorks, None) => {}
            (Pairing::Passkey(given), Some(label)) if given == label => {}
            _ => return Err(BleError::AuthRequired("authentication failed".to_owned())),
        }
        if !world.paired.contains(&self.address) {
            world.paired.push(self.address);
        }
        Ok(())
    }

    fn is_up(&self) -> bool {
        *self.is_up.borrow()
    }

    async fn disconnect(self) {
        let mut world = self.air.world();
        world.note(format!("disconnect {}", self.address));
        world.cut(self.address);
    }
}
