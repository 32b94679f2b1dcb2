//! The seam to a radio: what a Bluetooth stack has to be able to do so that the rest need not know which one it is.
//!
//! In: what to listen for, whom to connect to. Out: advertisements as they were heard, links, and errors in words every
//! stack shares. One conformance suite (`tests/src/ble_suite.rs`) holds every transport to what is written here. A transport
//! must never decide when to scan or to connect, and never wait without an end.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use protocols::ble::{Advertisement, Mac, Uuid};
use tokio::sync::mpsc;

/// How to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScanWish {
    /// Passive where the stack allows it and the patterns say enough, else active.
    #[default]
    Auto,
    /// Active: devices are asked for their scan response.
    Active,
}

/// How it is listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanMode {
    /// Nothing is sent; only advertisements that fit a pattern are heard, and of those that repeat what was said before
    /// only now and then one, without data.
    Passive,
    /// Every advertisement is heard, and devices are asked for more.
    Active,
}

/// Bytes of an advertisement that make it worth waking up for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdPattern {
    /// AD type, such as 0x16 (service data) or 0xFF (manufacturer data).
    pub ad_type: u8,
    /// Offset into that structure's data.
    pub start: u8,
    /// What stands there.
    pub content: Vec<u8>,
}

/// What to listen for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// How.
    pub wish: ScanWish,
    /// What a passive scan lets through; empty means that no pattern says enough, and the scan is active.
    pub patterns: Vec<AdPattern>,
}

/// Something the radio says unasked.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An advertisement: the data that was said this time and never remembered data, with the name and the services as
    /// far as they are known.
    Heard(Advertisement),
    /// The scan ended without being told to.
    ScanEnded(String),
    /// The adapter or the stack is gone; the transport has to be opened again.
    Lost(String),
}

/// How a device is paired with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// Not at all; who asks for it is refused.
    #[default]
    None,
    /// Just Works: encrypted, and nobody checks who it is.
    JustWorks,
    /// With the passkey the device shows or has on its label, 0..=999999.
    Passkey(u32),
}

/// A characteristic of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CharRef {
    /// Its service.
    pub service: Uuid,
    /// Its own UUID.
    pub characteristic: Uuid,
    /// Which of several with these two, counted from 0 in the order of their handles.
    pub instance: u8,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// The device answers.
    Request,
    /// The device does not answer.
    Command,
}

/// Why a radio did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BleError {
    /// There is no system bus, or none that lets us in.
    #[error("the system bus cannot be reached ({0}): is dbus installed and running?")]
    NoBus(String),
    /// Nobody answers for BlueZ.
    #[error("bluetoothd does not run: install bluez and start the service \"bluetooth\"")]
    NoDaemon,
    /// The bus does not let this user talk to BlueZ.
    #[error("this user may not use bluetoothd: add it to the group \"bluetooth\"")]
    Denied,
    /// There is no such adapter.
    #[error("there is no Bluetooth adapter \"{wanted}\" ({})", there_are(.there))]
    NoAdapter {
        /// The one of the configuration.
        wanted: String,
        /// Those there are.
        there: Vec<String>,
    },
    /// The adapter is switched off by a switch that is not ours.
    #[error("the Bluetooth adapter \"{0}\" is blocked: rfkill unblock bluetooth")]
    Blocked(String),
    /// This program was built without a radio.
    #[error("this program was built without Bluetooth")]
    NotBuilt,
    /// The device was not heard in time.
    #[error("{0} is not in the air")]
    NotFound(Mac),
    /// The device has no such characteristic.
    #[error("the device has no characteristic {0} in service {1}")]
    NoCharacteristic(Uuid, Uuid),
    /// No answer in time.
    #[error("no answer in time to {0}")]
    Timeout(&'static str),
    /// The radio does something else; it is worth trying again.
    #[error("the radio is busy: {0}")]
    Busy(String),
    /// The link broke.
    #[error("the link broke: {0}")]
    Disconnected(String),
    /// The characteristic does not allow that.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// Pairing is needed for that, or went wrong.
    #[error("pairing is needed or failed: {0}")]
    AuthRequired(String),
    /// The device refused with an ATT error code.
    #[error("the device refuses with ATT error 0x{0:02X}")]
    Att(u8),
    /// The stack refused in words of its own.
    #[error("{doing}: {reason}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// The stack's words.
        reason: String,
    },
}

fn there_are(adapters: &[String]) -> String {
    if adapters.is_empty() { "there is none at all".to_owned() } else { format!("there are: {}", adapters.join(", ")) }
}

impl BleError {
    /// Whether the radio itself is gone, so that it has to be opened again.
    pub fn is_radio(&self) -> bool {
        matches!(self, Self::NoBus(_) | Self::NoDaemon | Self::Denied | Self::NoAdapter { .. } | Self::Blocked(_))
    }

    /// Whether the device answered, be it with a refusal.
    pub fn answered(&self) -> bool {
        matches!(self, Self::Att(_) | Self::NotPermitted(_) | Self::AuthRequired(_) | Self::NoCharacteristic(_, _))
    }
}

/// A Bluetooth stack with one adapter.
pub trait Transport: Send + 'static {
    /// What a connection is.
    type Link: Link;

    /// Finds the adapter and switches it on.
    ///
    /// # Errors
    /// In words for the person who has to mend it; it may be tried again at any time.
    fn open(&mut self) -> impl Future<Output = Result<(), BleError>> + Send;

    /// Lets the adapter go: nothing of ours scans or is connected afterwards.
    fn close(&mut self) -> impl Future<Output = ()> + Send;

    /// Listens as `scan` says, whatever was done before, and tells how it listens.
    ///
    /// # Errors
    /// When the stack refuses.
    fn scan(&mut self, scan: &Scan) -> impl Future<Output = Result<ScanMode, BleError>> + Send;

    /// Stops listening; nothing is wrong when it did not listen.
    fn quiet(&mut self) -> impl Future<Output = ()> + Send;

    /// Switches the adapter off and on again, for a controller that has stopped to hear.
    ///
    /// # Errors
    /// When the stack refuses.
    fn reset(&mut self) -> impl Future<Output = Result<(), BleError>> + Send;

    /// Waits for what comes unasked. Dropping the wait loses nothing.
    fn event(&mut self) -> impl Future<Output = Event> + Send;

    /// Connects to a device that was heard lately, and learns its characteristics; at most `limit` is spent on it. When
    /// it fails, nothing is left connected.
    ///
    /// # Errors
    /// [`BleError::NotFound`] at once when the stack does not know the device.
    fn connect(
        &mut self,
        address: Mac,
        pairing: Pairing,
        limit: Duration,
    ) -> impl Future<Output = Result<Self::Link, BleError>> + Send;

    /// Advertisements that came faster than they were taken, and are lost.
    fn dropped(&self) -> u64;
}

/// A connection to a device.
pub trait Link: Send + 'static {
    /// Reads a characteristic.
    ///
    /// # Errors
    /// [`BleError`].
    fn read(&mut self, at: CharRef) -> impl Future<Output = Result<Bytes, BleError>> + Send;

    /// Writes a characteristic, however long the value is.
    ///
    /// # Errors
    /// [`BleError`].
    fn write(
        &mut self,
        at: CharRef,
        value: &[u8],
        kind: WriteKind,
    ) -> impl Future<Output = Result<(), BleError>> + Send;

    /// Has the values of a characteristic sent as they change; the channel closes with the link.
    ///
    /// # Errors
    /// [`BleError`].
    fn subscribe(&mut self, at: CharRef) -> impl Future<Output = Result<mpsc::Receiver<Bytes>, BleError>> + Send;

    /// Pairs in the way that was given when connecting; nothing is done when the devices are paired.
    ///
    /// # Errors
    /// [`BleError::AuthRequired`] when it fails.
    fn pair(&mut self) -> impl Future<Output = Result<(), BleError>> + Send;

    /// Whether the link is up, as far as is known.
    fn is_up(&self) -> bool;

    /// Ends the link; it is down afterwards.
    fn disconnect(self) -> impl Future<Output = ()> + Send;
}
