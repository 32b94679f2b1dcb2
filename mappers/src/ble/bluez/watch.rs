//! What bluetoothd says unasked: advertisements, values, links that come and go, adapters that vanish.
//!
//! In: signals of the bus. Out: advertisements into a bounded queue, values to who subscribed, states of links. Must always
//! be ready for the next signal: a bus connection whose signals are not taken stops answering calls too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use protocols::ble::{AddressType, Advertisement, Uuid};
use tokio::sync::{mpsc, watch};
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream, OwnedObjectPath, Variant};

use super::advert;
use super::daemon::{ADAPTER, CHARACTERISTIC, DEVICE, Daemon, Interfaces, NAME, Properties, flag, text};
use crate::ble::transport::BleError;

/// Signals that may wait inside the bus library, in messages; they are taken at once, and more would hold up the bus.
const SIGNALS: usize = 1_024;
/// Advertisements that may wait for the host, in messages; one more is given up and counted.
pub(super) const ADVERTS: usize = 4_096;
/// Values of one characteristic that may wait; one more is given up and counted.
pub(super) const VALUES: usize = 64;
/// Devices whose name and kind of address are remembered; of those beyond, only what they say each time is known.
const DEVICES: usize = 8_192;

/// The state of one device's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkState {
    /// The link is up.
    pub(super) connected: bool,
    /// Its characteristics are known.
    pub(super) resolved: bool,
}

/// What the watch shares with who asks.
pub(super) struct Board {
    adverts: mpsc::Sender<Advertisement>,
    pub(super) dropped: AtomicU64,
    lost: watch::Sender<Option<String>>,
    scanning: watch::Sender<bool>,
    links: Mutex<HashMap<String, watch::Sender<LinkState>>>,
    values: Mutex<HashMap<String, mpsc::Sender<Bytes>>>,
}

/// The receiving ends of a [`Board`].
pub(super) struct Ears {
    pub(super) adverts: mpsc::Receiver<Advertisement>,
    pub(super) lost: watch::Receiver<Option<String>>,
    pub(super) scanning: watch::Receiver<bool>,
}

impl Board {
    pub(super) fn new() -> (Arc<Self>, Ears) {
        let (adverts, heard) = mpsc::channel(ADVERTS);
        let (lost, is_lost) = watch::channel(None);
        let (scanning, is_scanning) = watch::channel(false);
        let board = Self {
            adverts,
            dropped: AtomicU64::new(0),
            lost,
            scanning,
            links: Mutex::default(),
            values: Mutex::default(),
        };
        (Arc::new(board), Ears { adverts: heard, lost: is_lost, scanning: is_scanning })
    }

    /// Follows the link of a device from now on.
    pub(super) fn follow(&self, device: &str) -> watch::Receiver<LinkState> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.entry(device.to_owned()).or_insert_with(|| watch::channel(LinkState::default()).0).subscribe()
    }

    /// Adds what is known of a link from elsewhere; a signal may have said more meanwhile.
    pub(super) fn add(&self, device: &str, state: LinkState) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(device) {
            link.send_modify(|link| {
                link.connected |= state.connected;
                link.resolved |= state.resolved;
            });
        }
    }

    /// The devices whose links are up.
    pub(super) fn connected(&self) -> Vec<String> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter(|(_, link)| link.borrow().connected).map(|(device, _)| device.clone()).collect()
    }

    /// Forgets a device's link and everybody who listens to its values.
    pub(super) fn forget(&self, device: &str) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(device);
        self.silence(device);
    }

    /// Values of a characteristic go there from now on.
    pub(super) fn listen(&self, characteristic: &str) -> mpsc::Receiver<Bytes> {
        let (values, heard) = mpsc::channel(VALUES);
        self.values.lock().unwrap_or_else(PoisonError::into_inner).insert(characteristic.to_owned(), values);
        heard
    }

    fn silence(&self, device: &str) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.retain(|path, _| !path.strip_prefix(device).is_some_and(|rest| rest.starts_with('/')));
    }

    fn lose(&self, reason: &str) {
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            if first {
                *lost = Some(reason.to_owned());
            }
            first
        });
        for link in self.links.lock().unwrap_or_else(PoisonError::into_inner).values() {
            link.send_replace(LinkState::default());
        }
        self.values.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn on_link(&self, device: &str, change: impl FnOnce(&mut LinkState)) {
        let down = {
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(link) = links.get(device) else { return };
            link.send_modify(change);
            !link.borrow().connected
        };
        if down {
            self.silence(device);
        }
    }

    fn on_value(&self, characteristic: &str, value: Vec<u8>) {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listener) = values.get(characteristic) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = listener.try_send(value.into()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn on_advert(&self, heard: Advertisement) {
        if self.adverts.try_send(heard).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Takes the signals of one adapter.
pub(super) struct Watch {
    adapter: String,
    board: Arc<Board>,
    signals: MessageStream,
    owners: MessageStream,
    faces: HashMap<String, Face>,
}

/// What bluetoothd says of a device once and not again, and who it is has to be known by.
#[derive(Clone, Debug, Default)]
struct Face {
    kind: AddressType,
    name: Option<String>,
    services: Vec<Uuid>,
}

impl Watch {
    /// Begins to listen; what is signalled from now on is not missed.
    pub(super) async fn begin(daemon: &Daemon, adapter: &str, board: Arc<Board>) -> Result<Self, BleError> {
        let failed = |error: zbus::Error| BleError::NoBus(error.to_string());
        let rule = MatchRule::builder().msg_type(Type::Signal).sender(NAME).build().map_err(failed)?;
        let owner = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .add_arg(NAME)
            .build()
            .map_err(failed)?;
        let room = SIGNALS.try_into().ok();
        let mut watch = Self {
            adapter: adapter.to_owned(),
            board,
            signals: MessageStream::for_match_rule(rule, &daemon.bus, room).await.map_err(failed)?,
            owners: MessageStream::for_match_rule(owner, &daemon.bus, None).await.map_err(failed)?,
            faces: HashMap::new(),
        };
        for (path, interfaces) in daemon.objects().await? {
            if let Some(device) = interfaces.get(DEVICE) {
                watch.look_at(path.as_str(), device);
            }
        }
        Ok(watch)
    }

    /// Runs until the bus, bluetoothd or the adapter is gone.
    pub(super) async fn run(mut self) {
        let reason = loop {
            // Either stream keeps what it has when the other is first.
            let signal = tokio::select! {
                signal = self.signals.next() => signal,
                owner = self.owners.next() => match owner {
                    Some(Ok(message)) if gained(&message) => continue,
                    Some(Ok(_)) => break "bluetoothd has stopped".to_owned(),
                    _ => break "the bus is gone".to_owned(),
                },
            };
            match signal {
                Some(Ok(message)) => {
                    if let Some(reason) = self.on_signal(&message) {
                        break reason;
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, "a signal that cannot be read"),
                None => break "the bus is gone".to_owned(),
            }
        };
        self.board.lose(&reason);
    }

    /// Takes a signal in; gives the reason when the adapter is gone with it.
    fn on_signal(&mut self, message: &Message) -> Option<String> {
        let header = message.header();
        let body = message.body();
        match header.member()?.as_str() {
            "PropertiesChanged" => {
                let path = header.path()?.as_str();
                let (interface, changed, _): (&str, Properties, Vec<&str>) = body.deserialize().ok()?;
                self.on_changed(path, interface, &changed)
            }
            "InterfacesAdded" => {
                let (path, interfaces): (OwnedObjectPath, Interfaces) = body.deserialize().ok()?;
                if let Some(device) = interfaces.get(DEVICE) {
                    self.on_device(path.as_str(), device);
                }
                None
            }
            "InterfacesRemoved" => {
                let (path, interfaces): (OwnedObjectPath, Vec<&str>) = body.deserialize().ok()?;
                if interfaces.contains(&ADAPTER) && path.as_str() == self.adapter {
                    return Some("the adapter was taken away".to_owned());
                }
                if interfaces.contains(&DEVICE) {
                    self.faces.remove(path.as_str());
                    self.board.on_link(path.as_str(), |link| *link = LinkState::default());
                }
                None
            }
            _ => None,
        }
    }

    fn on_changed(&mut self, path: &str, interface: &str, changed: &Properties) -> Option<String> {
        match interface {
            DEVICE => self.on_device(path, changed),
            CHARACTERISTIC => {
                if let Some(value) = changed.get("Value").and_then(|value| advert::bytes(value)) {
                    self.board.on_value(path, value);
                }
            }
            ADAPTER if path == self.adapter => {
                if changed.contains_key("Discovering") {
                    self.board.scanning.send_replace(flag(changed, "Discovering"));
                }
                if changed.contains_key("Powered") && !flag(changed, "Powered") {
                    return Some("the adapter was switched off".to_owned());
                }
            }
            _ => {}
        }
        None
    }

    fn on_device(&mut self, path: &str, properties: &Properties) {
        let Some(address) = advert::address(path).filter(|_| path.starts_with(&self.adapter)) else { return };
        self.look_at(path, properties);
        if properties.contains_key("Connected") || properties.contains_key("ServicesResolved") {
            self.board.on_link(path, |link| {
                for (name, value) in properties {
                    match (name.as_str(), &**value) {
                        ("Connected", Variant::Bool(up)) => link.connected = *up,
                        ("ServicesResolved", Variant::Bool(known)) => link.resolved = *known,
                        _ => {}
                    }
                }
            });
        }
        if let Some(mut heard) = advert::advertisement(address, properties) {
            if let Some(face) = self.faces.get(path) {
                heard.address_type = face.kind;
                heard.name.clone_from(&face.name);
                heard.services.clone_from(&face.services);
            }
            self.board.on_advert(heard);
        }
    }

    fn look_at(&mut self, path: &str, properties: &Properties) {
        let face = ["AddressType", "Name", "UUIDs"].iter().any(|name| properties.contains_key(*name));
        if !face || self.faces.len() >= DEVICES && !self.faces.contains_key(path) {
            return;
        }
        let face = self.faces.entry(path.to_owned()).or_default();
        face.kind = advert::kind(properties).unwrap_or(face.kind);
        face.name = text(properties, "Name").or_else(|| face.name.take());
        if let Some(services) = advert::services(properties) {
            face.services = services;
        }
    }
}

/// Whether the name has an owner again, rather than none.
fn gained(message: &Message) -> bool {
    let body = message.body();
    let owners = body.deserialize::<(&str, &str, &str)>();
    // A new owner in the place of an old one is another bluetoothd: what we knew of the old one is worth nothing.
    owners.is_ok_and(|(_, old, new)| old.is_empty() && !new.is_empty())
}
