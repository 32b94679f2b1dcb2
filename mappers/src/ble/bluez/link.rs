//! A connection to one device through bluetoothd.
//!
//! In: reads, writes, subscriptions by UUID. Out: bytes. Must never use what was learned in an earlier connection: handles
//! and paths move.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use zbus::Variant;

use super::daemon::{CALL, CHARACTERISTIC, DEVICE, Daemon, Method, Objects, SERVICE, flag, text};
use super::watch::{Board, LinkState};
use crate::ble::transport::{BleError, CharRef, Link, Pairing, WriteKind};

/// How long a device may take for one read or write; ATT itself gives up after 30 s, and a link that needs that long is
/// of no use.
const ATT: Duration = Duration::from_secs(10);
/// How long pairing may take; the Security Manager gives up after 30 s.
const PAIR: Duration = Duration::from_secs(30);

/// The characteristics of a device, by what people call them.
pub(super) type Characteristics = HashMap<CharRef, String>;

/// A connection.
pub struct BluezLink {
    pub(super) daemon: Daemon,
    pub(super) board: Arc<Board>,
    pub(super) device: String,
    pub(super) state: watch::Receiver<LinkState>,
    pub(super) known: Characteristics,
    pub(super) pairing: Pairing,
}

/// Finds a device's characteristics among everything bluetoothd shows.
pub(super) fn characteristics(objects: &Objects, device: &str) -> Characteristics {
    let below = |path: &str| path.strip_prefix(device).is_some_and(|rest| rest.starts_with('/'));
    let mut found: Vec<(&str, CharRef)> = Vec::new();
    for (path, interfaces) in objects.iter().filter(|(path, _)| below(path.as_str())) {
        let Some(properties) = interfaces.get(CHARACTERISTIC) else { continue };
        let uuid = text(properties, "UUID").and_then(|uuid| uuid.parse().ok());
        let service = text(properties, "Service").and_then(|service| {
            let (_, interfaces) = objects.iter().find(|(path, _)| path.as_str() == service)?;
            text(interfaces.get(SERVICE)?, "UUID")?.parse().ok()
        });
        if let (Some(characteristic), Some(service)) = (uuid, service) {
            found.push((path.as_str(), CharRef { service, characteristic, instance: 0 }));
        }
    }
    // Paths end in the handle, in hexadecimal digits of one width.
    found.sort_unstable_by_key(|(path, _)| *path);
    let mut known = Characteristics::new();
    for (path, mut at) in found {
        while known.contains_key(&at) && at.instance < u8::MAX {
            at.instance += 1;
        }
        known.insert(at, path.to_owned());
    }
    known
}

impl BluezLink {
    fn path(&self, at: CharRef) -> Result<String, BleError> {
        let path = self.known.get(&at).cloned();
        path.ok_or(BleError::NoCharacteristic(at.characteristic, at.service))
    }

    /// Does something as long as the link is up.
    async fn linked<T>(&self, work: impl Future<Output = Result<T, BleError>>) -> Result<T, BleError> {
        let mut state = self.state.clone();
        tokio::select! {
            done = work => done,
            // The work is lost with the link; bluetoothd's answer would have been the same.
            _ = state.wait_for(|link| !link.connected) => Err(BleError::Disconnected("the device is gone".to_owned())),
        }
    }
}

impl Link for BluezLink {
    async fn read(&mut self, at: CharRef) -> Result<Bytes, BleError> {
        let path = self.path(at)?;
        let options: HashMap<&str, Variant<'_>> = HashMap::new();
        let body = (options,);
        let value = self.daemon.ask::<_, Vec<u8>>(&path, Method(CHARACTERISTIC, "ReadValue"), &body, ATT);
        self.linked(value).await.map(Bytes::from)
    }

    async fn write(&mut self, at: CharRef, value: &[u8], kind: WriteKind) -> Result<(), BleError> {
        let path = self.path(at)?;
        let kind = match kind {
            WriteKind::Request => "request",
            WriteKind::Command => "command",
        };
        let options: HashMap<&str, Variant<'_>> = HashMap::from([("type", Variant::from(kind))]);
        let body = (value, options);
        self.linked(self.daemon.call(&path, Method(CHARACTERISTIC, "WriteValue"), &body, ATT)).await.map(drop)
    }

    async fn subscribe(&mut self, at: CharRef) -> Result<mpsc::Receiver<Bytes>, BleError> {
        let path = self.path(at)?;
        let values = self.board.listen(&path);
        self.linked(self.daemon.call(&path, Method(CHARACTERISTIC, "StartNotify"), &(), ATT)).await?;
        Ok(values)
    }

    async fn pair(&mut self) -> Result<(), BleError> {
        if self.pairing == Pairing::None {
            return Err(BleError::AuthRequired("the configuration does not let it pair".to_owned()));
        }
        if self.daemon.flag(&self.device, DEVICE, "Paired").await? {
            return Ok(());
        }
        let paired = self.linked(self.daemon.call(&self.device, Method(DEVICE, "Pair"), &(), PAIR)).await;
        match paired {
            Ok(_) => {}
            Err(BleError::Failed { reason, .. }) if reason.contains("AlreadyExists") => {}
            Err(error @ (BleError::Disconnected(_) | BleError::NoDaemon)) => return Err(error),
            Err(error) => return Err(BleError::AuthRequired(error.to_string())),
        }
        // Trusted devices may come back encrypted without another question.
        self.daemon.set(&self.device, DEVICE, "Trusted", Variant::from(true)).await
    }

    fn is_up(&self) -> bool {
        self.state.borrow().connected
    }

    async fn disconnect(self) {
        hang_up(&self.daemon, &self.device).await;
        self.board.forget(&self.device);
    }
}

/// Ends a device's link, whatever state it is in.
pub(super) async fn hang_up(daemon: &Daemon, device: &str) {
    if let Err(error) = daemon.call(device, Method(DEVICE, "Disconnect"), &(), CALL).await {
        tracing::debug!(device, %error, "cannot hang up");
    }
}

/// What bluetoothd knows of a device's link.
pub(super) fn state(objects: &Objects, device: &str) -> Option<LinkState> {
    let (_, interfaces) = objects.iter().find(|(path, _)| path.as_str() == device)?;
    let properties = interfaces.get(DEVICE)?;
    Some(LinkState { connected: flag(properties, "Connected"), resolved: flag(properties, "ServicesResolved") })
}
