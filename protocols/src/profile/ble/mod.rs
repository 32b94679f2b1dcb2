//! The part of a profile that is about Bluetooth Low Energy: how a device is known, what its advertisements mean, what
//! is read and written over a connection.
//!
//! In: the sections `ble` and `from: {ble: …}` as written; advertisements and values of characteristics; `now`. Out: a
//! [`Device`] as it was meant, and a [`Listener`] that turns what is heard into readings. Must never hold a secret in
//! what devices share, and never give a reading from a packet that is not believed.

mod air;
mod build;
mod check;
mod golden;
mod identity;
mod input;
mod listen;
pub(crate) mod raw;
mod speak;
mod write;

use std::time::Duration;

use crate::ble::{Dedupe, Field, Format, ObjectClass, Pattern, Standard, Uuid};

pub use air::Air;
pub(super) use check::misplaced_secrets;
pub(super) use golden::{Observed, observed, same_bytes, written};
pub(super) use identity::{OWN, identity};
pub(super) use input::complaint as input_complaint;
pub use listen::{Heard, Listener, SENDERS};
pub use speak::Mute;
pub use write::GattWrite;

/// The words of the property `presence`.
pub(super) const PRESENT: &str = "present";
/// The other one.
pub(super) const AWAY: &str = "away";

/// The property every profile of this kind has, unless it declares one of that name itself.
pub(super) const PRESENCE: &str = "presence";

/// How a Bluetooth Low Energy device is listened to.
#[derive(Debug)]
pub struct Device {
    /// What its advertisements look like; a device without an address is known by it.
    pub pattern: Pattern,
    /// The formats that are tried, in order.
    pub formats: Vec<Format>,
    /// How repeated packets are told.
    pub dedupe: Dedupe,
    /// The window of the mean signal strength; zero shows each packet's own.
    pub rssi_window: Duration,
    /// When it counts as away.
    pub presence: Presence,
    /// What is read and written over a connection.
    pub gatt: Option<Gatt>,
}

/// When a device counts as away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Silence for this time.
    pub timeout: Duration,
    /// Whether the property `presence` says so; the device's status does in any case.
    pub leave_event: bool,
}

/// What is done over a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Gatt {
    /// When it is made, and for how long it is tried.
    pub connect: Connect,
    /// How it is secured.
    pub pairing: Pairing,
    /// What is read, written or listened to.
    pub characteristics: Vec<Characteristic>,
}

/// When a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The rule.
    pub mode: ConnectMode,
    /// From one connection to the next, for [`ConnectMode::Interval`].
    pub every: Duration,
    /// How long connecting may take.
    pub timeout: Duration,
    /// Tries after the first.
    pub retries: u32,
    /// The first pause after tries that failed; it doubles.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

/// The rule of a [`Connect`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectMode {
    /// Now and then, and let go again: kind to batteries.
    #[default]
    Interval,
    /// Kept as long as the device is there.
    Always,
    /// Only when something is to be written or somebody asks.
    OnDemand,
}

/// How a connection is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// Not at all.
    #[default]
    None,
    /// Encrypted, without proof of who is there.
    JustWorks,
    /// Encrypted, with the passkey of the device's own part.
    Passkey,
}

/// One characteristic of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Characteristic {
    /// Its name in the profile.
    pub name: String,
    /// The service it is in.
    pub service: Uuid,
    /// Its UUID.
    pub characteristic: Uuid,
    /// Which one, counted from 0, where a device has several of one UUID.
    pub instance: u8,
    /// What is done with it.
    pub op: Op,
    /// Read one time and never again.
    pub once: bool,
    /// A device without it is right all the same.
    pub optional: bool,
    /// At most once in this time; at every connection when absent.
    pub every: Option<Duration>,
    /// What is written by itself at a connection.
    pub payload: Option<Payload>,
}

/// What is done with a characteristic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Op {
    /// Read.
    #[default]
    Read,
    /// Listened to, unconfirmed.
    Notify,
    /// Listened to, confirmed.
    Indicate,
    /// Written with an answer.
    Write,
    /// Written without one.
    WriteWithoutResponse,
}

/// What is written by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The time, as characteristic 2A2B has it.
    CurrentTime,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// Where a property of a Bluetooth device comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Visit {
    /// The place.
    pub from: Origin,
    /// Another place that tells the same.
    pub or: Option<Origin>,
}

impl Visit {
    /// The places, the first one first.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        std::iter::once(&self.from).chain(&self.or)
    }

    /// The characteristic it is read from or written to.
    pub fn gatt(&self) -> Option<&GattPlace> {
        self.origins().find_map(|origin| match origin {
            Origin::Gatt(place) => Some(place),
            _ => None,
        })
    }
}

/// One place a value can come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// An object of a decoder.
    Object {
        /// Its name.
        name: String,
        /// Which of those with one name.
        class: ObjectClass,
        /// Counted from 1.
        index: usize,
    },
    /// Something about the packet.
    Meta(Meta),
    /// Bytes of a service's data.
    ServiceData(Uuid, Field),
    /// Bytes behind a company identifier.
    ManufacturerData(u16, Field),
    /// A characteristic.
    Gatt(GattPlace),
}

/// What a packet tells besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// How strong it was received, in dBm, as a mean.
    Rssi,
    /// How strong it was sent, in dBm.
    TxPower,
    /// Who sent it.
    Address,
    /// The sender's name.
    Name,
    /// Whether the device is there.
    Presence,
    /// When it was heard.
    LastSeen,
}

/// A value in a characteristic.
#[derive(Clone, Debug, PartialEq)]
pub struct GattPlace {
    /// Index into [`Gatt::characteristics`].
    pub characteristic: usize,
    /// How its bytes are read.
    pub reading: GattReading,
    /// A write asks for an answer.
    pub with_response: bool,
    /// Whether it is read in its group's time; else it tells by itself.
    pub is_read: bool,
}

/// How the bytes of a characteristic are read.
#[derive(Clone, Debug, PartialEq)]
pub enum GattReading {
    /// As the profile says.
    Field(Field),
    /// As everybody has agreed; the object of that name, else the first.
    Standard(Standard, Option<String>),
}

impl Gatt {
    /// The characteristic of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.characteristics.iter().position(|own| own.name == name)
    }
}

#[cfg(test)]
mod tests;
