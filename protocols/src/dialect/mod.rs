//! How each other party says the same.
//!
//! In: a batch of twin state, a streamed reading, a message of the other side. Out: publishes in its words, and what its
//! message means to a twin. Pure: no clock, no socket; a dialect is one file. Must never invent a value, never answer for
//! a device, and never lose a wish it cannot understand silently.

pub mod aws;
pub mod azure;
mod base;
mod build;
#[cfg(test)]
mod for_tests;
pub mod homeassistant;
pub mod kubeedge;
pub mod plain;
#[cfg(test)]
mod rehearsal;
pub mod thingsboard;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::name::DeviceId;
use crate::outbox::{Batch, Gap, Item, Settled, Streamed};
use crate::profile::Profile;
use crate::value::{Now, Timestamp, Value};

pub use build::build;

/// Text of the other side for a message to people: printable, and no longer than a line.
fn text_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(100).collect()
}

/// What a dialect may know about the gateway.
#[derive(Clone, Debug)]
pub struct Site {
    /// The gateway's id.
    pub gateway: DeviceId,
    /// The store's epoch.
    pub epoch: String,
    /// Root of the local twin topics.
    pub root: String,
    /// The devices that this upstream may know of, after its filter, with their profiles.
    pub devices: HashMap<DeviceId, Arc<Profile>>,
}

/// One MQTT message to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// 0 or 1.
    pub qos: u8,
    /// Whether the other broker keeps it.
    pub retain: bool,
    /// Correlation data (MQTT 5; left out towards 3.1.1).
    pub correlation: Option<Vec<u8>>,
    /// User properties (MQTT 5; left out towards 3.1.1).
    pub user_properties: Vec<(String, String)>,
}

/// One MQTT message that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// Whether it was kept by the other broker.
    pub retain: bool,
    /// Response topic (MQTT 5).
    pub response_topic: Option<String>,
    /// Correlation data (MQTT 5).
    pub correlation: Option<Vec<u8>>,
}

/// What makes a batch count as said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// The PUBACK of every publish of it; with no publish at all it is said already.
    Puback,
    /// A message from which [`Dialect::hear`] makes [`Heard::Settled`] with this token. If none comes in
    /// the engine's answer time, the batch is said again.
    Reply(String),
}

/// A batch in the other party's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Saying {
    /// In this order.
    pub publishes: Vec<Publish>,
    /// What settles it.
    pub settle: Settle,
    /// Items that the other party cannot take, and why: counted, told in the status, not tried again until they change.
    pub unsayable: Vec<(Item, String)>,
}

/// What a message of the other side means.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// It wishes something. Passes the conflict rules and the same door as local wishes; what became of it is given to
    /// [`Dialect::answered`].
    Wish(CloudWish),
    /// It asks for a device's document; it is given to [`Dialect::document`].
    Ask {
        /// The device.
        device: DeviceId,
        /// Goes back with the document.
        reply: Reply,
    },
    /// It took a batch, or did not.
    Settled {
        /// The token of [`Settle::Reply`].
        token: String,
        /// How.
        outcome: Settled,
    },
    /// It has lost what it knew of the device (or of all, `None`): everything is dirty again.
    Resync(Option<DeviceId>),
    /// The dialect answers by itself.
    Say(Publish),
    /// It cannot be understood: counted, warned of once per kind, told in the status.
    Senseless(String),
}

/// A wish from the other side.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudWish {
    /// The device.
    pub device: DeviceId,
    /// Property → value; `null` clears.
    pub patch: BTreeMap<String, Value>,
    /// Its own id, for the answer.
    pub id: Option<String>,
    /// Only if the desired section is at this local version.
    pub if_version: Option<u64>,
    /// How long it may be pending, in seconds.
    pub ttl_s: Option<u64>,
    /// When it was wished, where the other side says so; decides under the rule `newest`.
    pub at: Option<Timestamp>,
    /// Who wished it, where the other side says so; else the upstream's name is used.
    pub by: Option<String>,
    /// Goes back with the answer.
    pub reply: Reply,
}

impl CloudWish {
    /// A wish for one property, of which the other side says no more than when it was made. `note` goes back with the answer.
    fn one(device: &DeviceId, name: &str, value: Value, at: Option<Timestamp>, note: String) -> Self {
        Self {
            device: device.clone(),
            patch: BTreeMap::from([(name.to_owned(), value)]),
            id: None,
            if_version: None,
            ttl_s: None,
            at,
            by: None,
            reply: Reply { note: Some(note), ..Reply::default() },
        }
    }
}

/// Whatever a dialect needs to answer later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Where to, if the other side said so.
    pub topic: Option<String>,
    /// Its correlation data.
    pub correlation: Option<Vec<u8>>,
    /// The dialect's own note: a version, a request number.
    pub note: Option<String>,
}

/// What the twin said to a wish.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The device.
    pub device: DeviceId,
    /// The wish's id.
    pub id: Option<String>,
    /// The new version of the desired section, or the code and the errors by property (contract, `twin/D/result`).
    pub result: Result<u64, (u16, BTreeMap<String, String>)>,
    /// From [`CloudWish::reply`].
    pub reply: Reply,
}

/// How a connection is made in a dialect's way; what the configuration says goes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Client id, where the party fixes it.
    pub client_id: Option<String>,
    /// User name, where the party fixes it.
    pub username: Option<String>,
    /// 5 or 4 (3.1.1) where the party speaks one alone; else 5 is tried first.
    pub version: Option<u8>,
    /// Whether the other side keeps a session between connections.
    pub persistent: bool,
    /// Protocol names offered in TLS (ALPN).
    pub alpn: Vec<String>,
    /// Said by the other broker when the link breaks.
    pub will: Option<Publish>,
}

/// One other party.
///
/// Calls come from one task, in this order for a connection: `session`, `subscriptions` (all acknowledged), `connected`,
/// then `say`, `stream`, `gap`, `hear`, `answered`, `document`, `tick` in any order, then `disconnected`.
pub trait Dialect: Send {
    /// How to connect.
    fn session(&self, site: &Site) -> Session;

    /// Topic filters with their QoS, subscribed before anything is said.
    fn subscriptions(&self, site: &Site) -> Vec<(String, u8)>;

    /// Which items it has words for; others are never in a batch.
    fn wants(&self, item: &Item) -> bool;

    /// Largest sum of contents that one batch should have, in bytes.
    fn batch_bytes(&self) -> usize {
        64 << 10
    }

    /// Most batches in flight at once.
    fn window(&self) -> usize {
        32
    }

    /// The link is up and subscribed. What has to be said first. `resumed` says that the other side kept the session.
    fn connected(&mut self, site: &Site, resumed: bool, now: Now) -> Vec<Publish>;

    /// The link is gone; requests that were under way are forgotten.
    fn disconnected(&mut self) {}

    /// Whether batches of this device may be said yet (a party may have to answer a request first).
    fn ready(&self, _device: Option<&DeviceId>) -> bool {
        true
    }

    /// A batch in its words.
    fn say(&mut self, batch: &Batch, site: &Site, now: Now) -> Saying;

    /// Streamed readings in its words, oldest first; each publish is acknowledged by its PUBACK.
    fn stream(&mut self, readings: &[Streamed], site: &Site, now: Now) -> Vec<Publish>;

    /// Readings that were given up, in its words; nothing where it has none.
    fn gap(&mut self, gap: &Gap, site: &Site, now: Now) -> Vec<Publish>;

    /// A `twin/D/event` that happens while the link is up, in its words; nothing where it has none. It is news, not
    /// state: one that does not arrive is not said again.
    fn event(&mut self, _device: &DeviceId, _payload: &[u8], _site: &Site, _now: Now) -> Vec<Publish> {
        Vec::new()
    }

    /// What a message means.
    fn hear(&mut self, message: &Message, site: &Site, now: Now) -> Vec<Heard>;

    /// What became of a wish, in its words.
    fn answered(&mut self, answer: &Answer, site: &Site, now: Now) -> Vec<Publish>;

    /// The document it asked for (contract, section 3), in its words.
    fn document(&mut self, device: &DeviceId, document: &[u8], reply: &Reply, site: &Site, now: Now) -> Vec<Publish>;

    /// Lets time pass; called about once a second while the link is up.
    fn tick(&mut self, _site: &Site, _now: Now) -> Vec<Publish> {
        Vec::new()
    }

    /// What it found out from the other side's silence; asked for after each `tick`.
    fn noticed(&mut self, _now: Now) -> Vec<Heard> {
        Vec::new()
    }

    /// What it has to remember over restarts and has not handed out yet: key → value, `None` to forget. The keys are
    /// its own, at most one for a device and a few besides.
    fn memory(&mut self) -> Vec<(String, Option<String>)> {
        Vec::new()
    }
}
