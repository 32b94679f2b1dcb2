//! Bluetooth devices that are not there, in the air around a controller that is a program.
//!
//! In: Bluetooth profiles, each with a device's own part; where the host is: the kernel (`/dev/vhci`), or a program that speaks
//! HCI over TCP. Out: advertisements with values that live. Must never be connected to, and never share code with the radio
//! beyond `protocols`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocols::ble::{AddressType, Advertisement, Controller, Identity, Mac, ObjectClass, Said, Sender};
use protocols::codec::Raw;
use protocols::profile::{Kind, Profile, Property};
use protocols::value::{Now, Value, from_f64};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::fault::Dice;
use super::shape::Shape;
use super::vhci::Vhci;
use super::{CLIENTS, SimulateError};
use crate::clock::Clock;

/// A listener that accepts nobody is asked again after this time.
const VACANT: Duration = Duration::from_millis(50);
/// A button is pressed once in this time, in seconds.
const PRESS_S: u64 = 15;
/// What is on or off changes in steps of this time, in seconds; it is on in every third.
const SWITCH_S: u64 = 20;
/// Packet counters begin at so many tenths of a second since 2026, so that they go on after a restart.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// How strong everything is received, in dBm; a little less every now and then, as in air.
const RSSI: i8 = -52;

/// Devices to be, and the hosts that will hear them.
#[derive(Debug)]
pub struct Ether {
    seed: u64,
    every: Duration,
    speakers: Vec<Speaker>,
    vhci: Vec<PathBuf>,
    tcp: Vec<SocketAddr>,
}

impl Ether {
    /// Nobody yet. The same seed gives the same values and addresses again.
    pub fn new(seed: u64) -> Self {
        Self { seed, every: Duration::from_secs(1), speakers: Vec::new(), vhci: Vec::new(), tcp: Vec::new() }
    }

    /// How often each device speaks.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(20));
        self
    }

    /// One device more. One without an address of its own is given one.
    ///
    /// # Errors
    /// Why it cannot be played.
    pub fn device(mut self, profile: Arc<Profile>, identity: Identity) -> Result<Self, String> {
        let number = self.speakers.len() as u64;
        let mut speaker = Speaker::new(profile, identity, self.seed ^ number << 40);
        speaker.speak(Clock::new().now())?;
        self.speakers.push(speaker);
        Ok(self)
    }

    /// Makes an adapter of the kernel's door `path`, as `/dev/vhci` is.
    #[must_use]
    pub fn vhci(mut self, path: impl Into<PathBuf>) -> Self {
        self.vhci.push(path.into());
        self
    }

    /// Serves hosts that speak HCI over TCP (H4) there; port 0 takes a free one.
    #[must_use]
    pub fn tcp(mut self, address: SocketAddr) -> Self {
        self.tcp.push(address);
        self
    }

    /// The devices' addresses, in the order they came.
    pub fn devices(&self) -> Vec<Mac> {
        self.speakers.iter().map(|speaker| speaker.address).collect()
    }

    /// Makes the adapters and takes the addresses.
    ///
    /// # Errors
    /// [`SimulateError`] names what cannot be had.
    pub async fn bind(self) -> Result<BoundEther, SimulateError> {
        let mut adapters = Vec::new();
        for path in &self.vhci {
            adapters.push(Vhci::new(path).await?);
        }
        let mut listeners = Vec::new();
        for address in self.tcp {
            let failed = |source| SimulateError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            listeners.push((listener.local_addr().map_err(failed)?, listener));
        }
        let air = Air { clock: Clock::new(), every: self.every, speakers: Arc::new(Mutex::new(self.speakers)) };
        Ok(BoundEther { adapters, listeners, air })
    }
}

/// Devices that are heard once they run.
#[derive(Debug)]
pub struct BoundEther {
    adapters: Vec<Vhci>,
    listeners: Vec<(SocketAddr, TcpListener)>,
    air: Air,
}

impl BoundEther {
    /// The adapters that were made: `hci0`.
    pub fn adapters(&self) -> Vec<&str> {
        self.adapters.iter().map(|adapter| adapter.adapter.as_str()).collect()
    }

    /// Where HCI is served, in the order asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(address, _)| *address).collect()
    }

    /// Speaks until `stop`; then the adapters are gone.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for (number, adapter) in self.adapters.into_iter().enumerate() {
            let air = self.air.clone();
            tasks.spawn(async move { air.serve(adapter, number as u64).await });
        }
        for (_, listener) in self.listeners {
            tasks.spawn(listen(listener, self.air.clone()));
        }
        stop.cancelled().await;
        tasks.shutdown().await;
    }
}

async fn listen(listener: TcpListener, air: Air) {
    let mut hosts = JoinSet::new();
    let mut number = 0x100;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(VACANT).await;
            continue;
        };
        while hosts.try_join_next().is_some() {}
        if hosts.len() < CLIENTS {
            let air = air.clone();
            number += 1;
            hosts.spawn(async move { air.serve(stream, number).await });
        }
    }
}

/// The air around all hosts.
#[derive(Clone, Debug)]
struct Air {
    clock: Clock,
    every: Duration,
    speakers: Arc<Mutex<Vec<Speaker>>>,
}

impl Air {
    /// Is the controller of one host, until that is gone.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut host: S, number: u64) {
        let [.., a, b] = number.to_be_bytes();
        let mut controller = Controller::new(Mac([0x02, 0x54, 0x47, 0x00, a, b]));
        let mut ticks = interval_at(Instant::now() + self.every.min(Duration::from_millis(100)), self.every);
        let mut room = [0; 1_024];
        let mut turn = 0_i8;
        loop {
            let packets = tokio::select! {
                // Neither branch loses anything: a tick is asked for again, and a read that is dropped took nothing.
                _ = ticks.tick(), if controller.is_scanning() => {
                    turn = (turn + 1) % 7;
                    let said = self.say(RSSI - turn);
                    said.iter().flat_map(|said| controller.hear(said)).collect()
                }
                read = host.read(&mut room) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => controller.on_host(room.get(..count).unwrap_or_default()),
                },
            };
            for packet in packets {
                if host.write_all(&packet).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What everybody says now.
    fn say(&self, rssi: i8) -> Vec<Said> {
        let now = self.clock.now();
        let mut speakers = lock(&self.speakers);
        let mut all = Vec::new();
        for speaker in speakers.iter_mut() {
            let packets = speaker.speak(now).unwrap_or_default();
            all.extend(packets.iter().filter_map(|packet| {
                let (data, answer) = packet.structures()?;
                Some(Said { address: speaker.address, address_type: speaker.address_type(), data, answer, rssi })
            }));
        }
        all
    }
}

fn lock(speakers: &Mutex<Vec<Speaker>>) -> MutexGuard<'_, Vec<Speaker>> {
    // A panic under the lock leaves speakers, and those are never half written.
    speakers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One device that speaks.
#[derive(Debug)]
struct Speaker {
    profile: Arc<Profile>,
    identity: Identity,
    address: Mac,
    /// Index of the property, what kind of thing it is, how it moves.
    told: Vec<(usize, ObjectClass, Shape)>,
    seed: u64,
    number: Option<u32>,
    pressed: Option<u64>,
}

impl Speaker {
    fn new(profile: Arc<Profile>, identity: Identity, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        // The two highest bits of an address that a device made up for good are set (Core, Vol 6, Part B, 1.3.2.1).
        let [.., a, b, c, d, e, f] = dice.next().to_be_bytes();
        let address = identity.address.unwrap_or(Mac([a | 0xC0, b, c, d, e, f]));
        let told = profile.told_in_the_air().into_iter();
        let told = told.filter_map(|(index, class)| {
            let property = profile.properties.get(index)?;
            Some((index, class, shape(property, &mut dice)))
        });
        let told = told.collect();
        Self { profile, identity, address, told, seed, number: None, pressed: None }
    }

    fn address_type(&self) -> AddressType {
        if self.address.0[0] >= 0xC0 { AddressType::Random } else { AddressType::Public }
    }

    /// What it says now.
    fn speak(&mut self, now: Now) -> Result<Vec<Advertisement>, String> {
        let begin = || u32::try_from((now.wall.as_ms() - EPOCH_MS) / 100).unwrap_or_default();
        let number = self.number.unwrap_or_else(begin);
        let values: Vec<(usize, Raw)> = self.told.iter().filter_map(|told| self.value(told, now)).collect();
        let sender = Sender { address: self.address, key: self.identity.key.as_ref(), number };
        let packets = self.profile.speak(&values, sender).map_err(|why| why.to_string())?;
        self.number = Some(number.wrapping_add(u32::try_from(packets.len()).unwrap_or(1)));
        self.pressed = Some(now.tick / 1_000 / PRESS_S);
        Ok(packets)
    }

    fn value(&self, (index, class, shape): &(usize, ObjectClass, Shape), now: Now) -> Option<(usize, Raw)> {
        let property = self.profile.properties.get(*index)?;
        let second = now.tick / 1_000;
        let raw = match (class, property.kind) {
            (ObjectClass::Event, _) => Raw::Int(i128::from(self.pressed.is_some_and(|last| last != second / PRESS_S))),
            (_, Kind::Bool) => {
                let is_trouble = property.category.as_deref() == Some("diagnostic");
                Raw::Bool(!is_trouble && (second / SWITCH_S + *index as u64).is_multiple_of(3))
            }
            (_, Kind::Int | Kind::Number) => {
                let mut dice = Dice::new(self.seed ^ (*index as u64) << 32 ^ now.tick);
                let number = shape.at(now.tick as f64 / 1_000.0, &mut dice);
                let value =
                    if property.kind == Kind::Int { Value::from(number.round() as i64) } else { from_f64(number) };
                property.raw_value(&value).ok()?
            }
            _ => return None,
        };
        Some((*index, raw))
    }
}

/// How a property of a small device moves: its supply is a battery, and it lies still.
fn shape(property: &Property, dice: &mut Dice) -> Shape {
    let wave = |middle: f64, swing: f64, dice: &mut Dice| {
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        Shape::Wave { middle, swing, period_s: 60.0 + 240.0 * dice.unit(), phase: dice.unit(), low, high }
    };
    let name = property.name.as_str();
    match property.unit.as_deref() {
        Some("V") if property.category.as_deref() == Some("diagnostic") => wave(2.95, 0.03, dice),
        Some("[g]") => wave(if name.ends_with('z') { 1.0 } else { 0.0 }, 0.02, dice),
        Some("dBm") => Shape::Hold(if name.starts_with("measured") { -59.0 } else { 4.0 }),
        _ => Shape::of(property, dice),
    }
}
