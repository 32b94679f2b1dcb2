//! What has to go up: the dirty set of twin state, the spool of readings somebody wants to keep, and who wins a conflict.
//!
//! In: what the gateway said on its local topics, what the other side acknowledged, link up, link down, time. Out:
//! batches to say, marks and spool rows to store. Must never queue state (it conflates), never clear a mark for
//! another stamp than the one acknowledged, and never drop a streamed reading without a gap record.
//!
//! The engine never looks into the other party's words; a dialect turns a [`Batch`] into publishes.

mod backoff;
pub mod conflict;
mod engine;
pub mod filter;
mod pace;
pub mod spool;
mod stamp;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::name::{DeviceId, PropertyName};

pub use backoff::Backoff;
pub use conflict::{ConflictRecord, Conflicts, Held, Judged, Wished, judge};
pub use engine::{Counts, Limits, Next, Outbox};
pub use filter::Sieve;
pub use pace::Pace;
pub use spool::{Load, Meta, Row, Saved, Segment, Sending, Spool, SpoolCounts, StoreOp};
pub use stamp::stamp;

/// One thing of a device that goes up as a whole and is acknowledged as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// `twin/D/status`.
    Status,
    /// `twin/D/reported/P`.
    Reported(PropertyName),
    /// `twin/D/desired/P`: the value and how it stands.
    Desired(PropertyName),
    /// `twin/D/delta`.
    Delta,
    /// `twin/D/conflict`.
    Conflict,
    /// `twin/D`, the whole document.
    Document,
}

/// Where state lives: an item of a device, or `gateway/status`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// `gateway/status`.
    Gateway,
    /// Something of a device.
    Device(DeviceId, Item),
}

/// What a slot holds at one moment, told apart from what it held before: a digest of what matters about it (the epoch
/// and the version where it has one; never the mere time of a reading, so that no change means no traffic).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(pub u64);

impl Stamp {
    /// A stored mark that says: the other side may hold something here, and nobody knows what. No content has it.
    pub const MAYBE: Self = Self(0);
    /// The stamp of a slot that holds nothing. No content has it.
    pub const GONE: Self = Self(1);
}

/// What a slot holds: the payload of its local topic, `None` when it is gone (a tombstone until acknowledged).
pub type Content = Option<Arc<[u8]>>;

/// One dirty slot of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Which.
    pub item: Item,
    /// What it holds now.
    pub content: Content,
    /// Acknowledging the batch clears the mark only if the slot still has this stamp.
    pub stamp: Stamp,
}

/// What is said at once: the dirty items of one device, or the gateway's status. One batch of a device is in flight at a
/// time, batches of many devices are.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Names the batch until it is settled; never reused in one run.
    pub id: u64,
    /// The device; `None` is the gateway's own status.
    pub device: Option<DeviceId>,
    /// What of it; empty for the gateway's status, whose payload is `gateway`.
    pub parts: Vec<Part>,
    /// The payload of `gateway/status`, if `device` is `None`.
    pub gateway: Content,
}

/// Which readings are given up first: classes drain by weight, so that none starves, and the lowest loses first when
/// the spool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Alarms.
    Alarm,
    /// Everything else that is streamed.
    Metric,
}

impl Class {
    /// Every class, the first to be kept first.
    pub const ALL: [Self; 2] = [Self::Alarm, Self::Metric];

    /// Its name in payloads and on disk: `alarm` or `metric`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Metric => "metric",
        }
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

/// One reading of a `stream:` property.
#[derive(Clone, Debug, PartialEq)]
pub struct Streamed {
    /// Its class.
    pub class: Class,
    /// Counts up in its class within an epoch; a receiver deduplicates by `(epoch, class, seq)`.
    pub seq: u64,
    /// The device.
    pub device: DeviceId,
    /// The property.
    pub property: PropertyName,
    /// The payload of `twin/D/reported/P` at that moment.
    pub payload: Arc<[u8]>,
}

/// What was given up: readings `from_seq..=to_seq` of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The class.
    pub class: Class,
    /// First and …
    pub from_seq: u64,
    /// … last number that is gone.
    pub to_seq: u64,
    /// [`EXPIRED`], [`FULL`] or [`LOST`].
    pub reason: &'static str,
}

/// They were older than their class may get.
pub const EXPIRED: &str = "expired";
/// There was no room for them.
pub const FULL: &str = "full";
/// They may have been in memory when the gateway was killed; those among them that arrived, arrived.
pub const LOST: &str = "lost";

/// The reason of that name; an unknown one is [`LOST`].
pub fn gap_reason(name: &str) -> &'static str {
    [EXPIRED, FULL].into_iter().find(|known| *known == name).unwrap_or(LOST)
}

/// How the other side took a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It has it.
    Accepted,
    /// Not now: say the device's dirty items again after this time in milliseconds.
    Later(u64),
    /// Its idea of the device is another one; what it said beside this brings ours in line. Say it again.
    Again,
    /// It will never take it: counted, told in the status, not tried again until something changes.
    Refused(String),
}
