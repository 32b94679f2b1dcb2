//! The shelf: what the broker wants to find again after a restart.
//!
//! Retained messages, sessions, subscriptions and messages that wait for absent clients. The broker decides what goes
//! there; the store keeps it. [`Memory`] is a shelf for tests and for a broker that need not remember.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// A publish as it is kept. Times are wall-clock milliseconds since 1970, so they survive a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// The QoS it is to be delivered with.
    pub qos: u8,
    /// The retain flag it is to be delivered with.
    pub retain: bool,
    /// MQTT 5 properties other than topic alias and subscription identifier, as they stand on the wire (without the
    /// length before them); empty for 3.1.1.
    pub properties: Bytes,
    /// Subscription identifiers it is to be delivered with.
    pub subscription_ids: Vec<u32>,
    /// When it expires.
    pub expires_ms: Option<i64>,
    /// When it arrived.
    pub at_ms: i64,
}

/// The will of a client that is gone, while its delay lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptWill {
    /// The message; its `expires_ms` and `at_ms` mean nothing, since its life begins when it is published.
    pub message: Kept,
    /// When it is to be published.
    pub due_ms: i64,
    /// Its life from then on, in seconds.
    pub expiry_s: Option<u32>,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSubscription {
    /// The topic filter, `$share/…` included.
    pub filter: String,
    /// The options byte of SUBSCRIBE (MQTT 5, 3.8.3.1).
    pub options: u8,
    /// The subscription identifier.
    pub id: Option<u32>,
}

/// A session that outlives its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptSession {
    /// The client id.
    pub client: String,
    /// The user the session belongs to; nobody else may take it up.
    pub user: Option<String>,
    /// Session expiry interval in seconds; `u32::MAX` is for ever.
    pub expiry_s: u32,
    /// Since when the client is absent; `None` while it is connected.
    pub absent_since_ms: Option<i64>,
    /// Its subscriptions.
    pub subscriptions: Vec<KeptSubscription>,
    /// What waits for it, by rising sequence number.
    pub queue: Vec<(u64, Kept)>,
    /// Packet ids of QoS 2 publishes that were received and not yet released.
    pub received: Vec<u16>,
    /// Its will, while that is delayed.
    pub will: Option<KeptWill>,
}

/// Everything the shelf holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Retained messages.
    pub retained: Vec<Kept>,
    /// Sessions.
    pub sessions: Vec<KeptSession>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Keep this retained message; it replaces the one of its topic.
    Retain(Kept),
    /// Forget the retained message of this topic.
    Unretain(String),
    /// Keep this session's head: user, expiry, absence. Lists in it are ignored.
    Session(KeptSession),
    /// Forget the session and all that belongs to it.
    EndSession(String),
    /// Keep a subscription of a client; it replaces the one of its filter.
    Subscribe(String, KeptSubscription),
    /// Forget a client's subscription to this filter.
    Unsubscribe(String, String),
    /// Keep a message that waits for a client.
    Enqueue(String, u64, Kept),
    /// Forget a waiting message.
    Dequeue(String, u64),
    /// Keep the packet id of a received QoS 2 publish.
    Received(String, u16),
    /// Forget it.
    Released(String, u16),
    /// Keep a client's delayed will, or forget it.
    Will(String, Option<KeptWill>),
}

/// Why the shelf cannot give or take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
    /// The store behind it does not work.
    #[error("the store cannot be used: {0}")]
    Store(String),
}

/// Where the broker keeps what must survive.
pub trait Shelf: Send + Sync + 'static {
    /// Everything that was kept; called once, before the first client.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load(&self) -> Result<Inventory, ShelfError>;

    /// Keeps the changes, in order, in one transaction. It must not block. `done` is called, from any thread, when they
    /// are on disk; without `done` they may wait for the next commit.
    fn keep(&self, changes: Vec<Change>, done: Option<Done>);
}

/// Called when changes are on disk, or cannot be brought there.
pub type Done = Box<dyn FnOnce(Result<(), ShelfError>) + Send>;

/// A shelf in memory: it remembers as long as somebody holds it.
///
/// For tests, and for a broker that need not remember.
#[derive(Debug, Default)]
pub struct Memory {
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    retained: BTreeMap<String, Kept>,
    sessions: BTreeMap<String, KeptSession>,
}

impl Memory {
    /// A shelf that holds this already.
    pub fn of(inventory: Inventory) -> Self {
        let retained = inventory.retained.into_iter().map(|kept| (kept.topic.clone(), kept)).collect();
        let sessions = inventory.sessions.into_iter().map(|session| (session.client.clone(), session)).collect();
        Self { contents: Mutex::new(Contents { retained, sessions }) }
    }
}

impl Shelf for Memory {
    fn load(&self) -> Result<Inventory, ShelfError> {
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Inventory {
            retained: contents.retained.values().cloned().collect(),
            sessions: contents.sessions.values().cloned().collect(),
        })
    }

    fn keep(&self, changes: Vec<Change>, done: Option<Done>) {
        {
            let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                contents.apply(change);
            }
        }
        if let Some(done) = done {
            done(Ok(()));
        }
    }
}

impl Contents {
    fn session(&mut self, client: String) -> &mut KeptSession {
        self.sessions.entry(client.clone()).or_insert_with(|| KeptSession { client, ..KeptSession::default() })
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Retain(kept) => {
                self.retained.insert(kept.topic.clone(), kept);
            }
            Change::Unretain(topic) => {
                self.retained.remove(&topic);
            }
            Change::Session(head) => {
                let session = self.session(head.client.clone());
                session.user = head.user;
                session.expiry_s = head.expiry_s;
                session.absent_since_ms = head.absent_since_ms;
            }
            Change::EndSession(client) => {
                self.sessions.remove(&client);
            }
            Change::Subscribe(client, subscription) => {
                let session = self.session(client);
                session.subscriptions.retain(|old| old.filter != subscription.filter);
                session.subscriptions.push(subscription);
            }
            Change::Unsubscribe(client, filter) => {
                self.session(client).subscriptions.retain(|old| old.filter != filter);
            }
            Change::Enqueue(client, number, kept) => self.session(client).queue.push((number, kept)),
            Change::Dequeue(client, number) => self.session(client).queue.retain(|(old, _)| *old != number),
            Change::Received(client, id) => self.session(client).received.push(id),
            Change::Released(client, id) => self.session(client).received.retain(|old| *old != id),
            Change::Will(client, will) => self.session(client).will = will,
        }
    }
}
