//! The embedded broker: MQTT 3.1.1 and 5 over TCP, TLS and WebSocket.
//!
//! In: clients from outside, mappers inside, the gateway's own voice. Out: messages for all of them; requests for the
//! [`desk::Desk`]; what must survive for the [`shelf::Shelf`]. Must never acknowledge what may still be lost, let one
//! client's mistake touch another, or grow without a bound.
//!
//! One task per connection; the engine ([`core`]) is a synchronous structure behind a lock that is held for moments.
//! Matching is done in the publisher's task, so that a message costs no hop.

mod access;
mod client;
mod codec;
mod connection;
mod core;
pub mod desk;
mod filter;
mod handshake;
mod holder;
mod inbound;
mod keeper;
mod listener;
mod local;
mod message;
mod password;
mod retained;
mod session;
mod shared;
pub mod shelf;
mod stats;
#[cfg(test)]
mod tests;
mod tls;
mod tree;
mod websocket;
mod whole;
mod word;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use mappers::bus::{Bus, pair};
use protocols::config::users::Users;
use protocols::config::{Anonymous, Limits, Listener};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::holder::Holder;
pub use self::stats::{Dropped, Stats};
pub use self::tls::TlsError;
pub use self::word::Word;

use self::access::Access;
use self::core::Core;
use self::desk::Desk;
use self::message::{Message, own_properties};
use self::password::Passwords;
use self::shared::{Clock, Shared, stamp};
use self::shelf::{Shelf, ShelfError};
use self::stats::Counters;

/// What connections may take to say goodbye when the broker stops; then they are cut.
const GOODBYE: Duration = Duration::from_secs(5);
/// What the shelf may take to write the last changes.
const LAST_WRITE: Duration = Duration::from_secs(10);

/// Words of the gateway that are published under one hold of the engine's lock; others get their turn between.
const WORDS_AT_ONCE: usize = 256;

/// What a broker is made of.
pub struct Settings {
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// Who gets in without a name.
    pub anonymous: Anonymous,
    /// Bounds.
    pub limits: Limits,
    /// Who has a name; `None` on an installation without a users file, where whoever gets in may do everything.
    pub users: Option<Users>,
    /// The folder where relative paths of certificates start.
    pub base: PathBuf,
    /// Root of the twin topics; what `%r` stands for in rules.
    pub root: String,
    /// What is to survive.
    pub shelf: Arc<dyn Shelf>,
    /// Who answers requests to the gateway.
    pub desk: Arc<dyn Desk>,
    /// Ends the broker, as [`Broker::shutdown`] does.
    pub stop: CancellationToken,
}

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the port.
    #[error("listener {listener}: {address} is in use{}", holder_text(holder.as_ref()))]
    InUse {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// The process, where the system tells.
        holder: Option<Holder>,
    },
    /// The address cannot be had for another reason.
    #[error("listener {listener}: cannot listen on {address}: {error}")]
    Bind {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("listener {listener}: {error}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// Why.
        error: TlsError,
    },
    /// The shelf cannot be read.
    #[error("what the broker kept cannot be read: {0}")]
    Shelf(#[from] ShelfError),
}

fn holder_text(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!(" by {} (process {})", holder.name, holder.pid),
        None => "; another MQTT broker, such as mosquitto, may be running".to_owned(),
    }
}

/// A message of the gateway's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The topic.
    pub topic: String,
    /// The payload; empty and retained clears the topic.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Kept for later subscribers.
    pub retain: bool,
    /// Written to the shelf where it is retained or waits; `false` for what the gateway can make again from its store.
    pub kept: bool,
    /// Its life, in seconds.
    pub expiry_s: Option<u32>,
    /// Response Topic (MQTT 5).
    pub response_topic: Option<String>,
    /// Correlation Data (MQTT 5).
    pub correlation: Option<Bytes>,
    /// User Properties (MQTT 5).
    pub user_properties: Vec<(String, String)>,
}

/// How far a client is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Messages for it that were given up because its queue was full.
    pub lost: u64,
    /// Everything retained that its subscriptions asked for was taken.
    pub is_caught_up: bool,
}

/// A running broker. It stops with its stop signal or by [`Broker::shutdown`].
pub struct Broker {
    shared: Arc<Shared>,
    bound: Vec<(String, SocketAddr)>,
    /// Bound, and not served yet.
    waiting: Mutex<Vec<listener::Bound>>,
    tasks: Mutex<Option<TaskTracker>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl Broker {
    /// Reads the shelf and binds every listener; nobody is let in before [`Broker::serve`], so that what the gateway retains
    /// can be in place by then.
    ///
    /// # Errors
    /// When a listener cannot listen or the shelf cannot be read; nothing is left running then.
    pub async fn bind(settings: Settings) -> Result<Self, StartError> {
        let inventory = settings.shelf.load()?;
        let mut listeners = Vec::new();
        for listener in &settings.listeners {
            listeners.push(listener::bind(listener, &settings.base).await?);
        }
        let counters = Arc::new(Counters::default());
        let users = settings.users.map(Arc::new);
        let shared = Arc::new(Shared {
            core: Mutex::new(Core::new(settings.limits, Arc::clone(&counters))),
            shelf: settings.shelf,
            desk: settings.desk,
            counters,
            limits: settings.limits,
            anonymous: settings.anonymous,
            root: settings.root,
            users: RwLock::new(users.clone()),
            passwords: Passwords::new(),
            clock: Clock::start(),
            stop: settings.stop.child_token(),
            tasks: TaskTracker::new(),
        });
        let users = users.as_deref();
        let root = shared.root.clone();
        shared.act(|core, fx| core.load(&inventory, |client, user| owner(users, client, user, &root), fx));
        let bound: Vec<_> = listeners.iter().map(|one| (one.name.clone(), one.address)).collect();
        for (name, address) in &bound {
            tracing::debug!(listener = name, %address, "listening");
        }
        // listeners and housekeeping apart from connections, which are waited for when the broker stops
        let tasks = TaskTracker::new();
        tasks.spawn(keeper::run(Arc::clone(&shared)));
        tasks.spawn(close_with_stop(Arc::clone(&shared)));
        Ok(Self { shared, bound, waiting: Mutex::new(listeners), tasks: Mutex::new(Some(tasks)) })
    }

    /// Lets clients in. A second call does nothing.
    ///
    /// Must be called inside a Tokio runtime.
    pub fn serve(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = &*tasks {
            for listener in waiting {
                tasks.spawn(listener::run(Arc::clone(&self.shared), listener));
            }
            tasks.close();
        }
    }

    /// [`Broker::bind`] and [`Broker::serve`] in one.
    ///
    /// # Errors
    /// Those of [`Broker::bind`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let broker = Self::bind(settings).await?;
        broker.serve();
        Ok(broker)
    }

    /// Where it listens: names and addresses, with the ports that were really taken.
    pub fn bound(&self) -> Vec<(String, SocketAddr)> {
        self.bound.clone()
    }

    /// Publishes in the gateway's own name, past the desk. Does not wait for anything.
    pub fn publish(&self, own: Own) {
        drop(self.publish_then(own));
    }

    /// The same; tells whether it is on disk, once that is known. Of what is kept nowhere, nothing is told.
    pub fn publish_then(&self, own: Own) -> oneshot::Receiver<bool> {
        let properties =
            own_properties(own.response_topic.as_deref(), own.correlation.as_deref(), &own.user_properties);
        let mut message = Message::new(&own.topic, &properties, &own.payload);
        message.qos = own.qos.min(2);
        message.retain = own.retain;
        message.kept = own.kept;
        stamp(&mut message, self.shared.clock.now_ms(), own.expiry_s);
        let (tell, told) = oneshot::channel();
        // the bound of retained messages is not for the gateway's own words
        self.shared
            .act_then(|core, fx| core.publish(message, fx), || Box::new(move |kept| _ = tell.send(kept.is_ok())));
        told
    }

    /// Publishes many words in the gateway's own name, in their order and past the desk. Does not wait for anything.
    pub fn publish_all(&self, words: Vec<Word>) {
        let mut words = words.into_iter();
        while words.len() > 0 {
            self.shared.act(|core, fx| {
                for word in words.by_ref().take(WORDS_AT_ONCE) {
                    let retain = word.retain;
                    let mut message = Message::of_word(word);
                    (message.qos, message.retain, message.kept) = (1, retain, false);
                    stamp(&mut message, core.measure.now_ms, None);
                    // the bound of retained messages is not for the gateway's own words
                    let _ = core.publish(message, fx);
                }
            });
        }
    }

    /// A bus for a mapper inside the gateway, as a client with that id and role. It ends with the broker, or when the
    /// mapper drops its end.
    ///
    /// Must be called inside a Tokio runtime.
    pub fn attach(&self, client_id: &str, role: &str) -> Bus {
        let (bus, far) = pair();
        let access = match self.shared.users() {
            Some(users) => Access::of_role(&users, role, client_id, None, &self.shared.root),
            None => Access::of_role(&Users::default(), role, client_id, None, &self.shared.root),
        };
        self.shared.tasks.spawn(local::run(Arc::clone(&self.shared), client_id.to_owned(), access, far));
        bus
    }

    /// How far a client of the broker is behind; `None` when it is not known.
    pub fn pulse(&self, client_id: &str) -> Option<Pulse> {
        self.shared.act(|core, _| core.pulse(client_id)).value.flatten()
    }

    /// A sign of life of the engine: whether it could be reached and did not fail. Waits for its lock, so it never returns
    /// where that is never given back.
    pub fn beats(&self) -> bool {
        self.shared.act(|_, _| ()).value.is_some()
    }

    /// What the broker counts.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Takes over a new users file. Who is in stays in, with the rights of the moment it came.
    pub fn set_users(&self, users: Option<Users>) {
        *self.shared.users.write().unwrap_or_else(PoisonError::into_inner) = users.map(Arc::new);
    }

    /// Stops: nobody new comes in, every client is told, wills are published, sessions, queues and wills that are
    /// delayed are on the shelf when this returns.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tasks) = tasks {
            tasks.close();
            let _ = timeout(GOODBYE, tasks.wait()).await;
        }
        self.shared.tasks.close();
        // a connection that was being made when the others were told
        self.shared.act(|core, _| core.close_all(0x8b));
        if timeout(GOODBYE, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("clients that did not go in time are cut");
        }
        let (done, written) = oneshot::channel();
        self.shared.shelf.keep(
            Vec::new(),
            Some(Box::new(move |result| {
                let _ = done.send(result);
            })),
        );
        match timeout(LAST_WRITE, written).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "the last changes could not be kept"),
            Ok(Err(_)) | Err(_) => tracing::error!("the shelf did not tell whether the last changes are kept"),
        }
    }
}

/// When the stop signal comes from outside, clients are told at once.
async fn close_with_stop(shared: Arc<Shared>) {
    shared.stop.cancelled().await;
    shared.act(|core, _| core.close_all(0x8b));
}

/// What the owner of a kept session may do now.
fn owner(users: Option<&Users>, client: &str, user: Option<&str>, root: &str) -> Arc<Access> {
    let access = match (users, user) {
        (users, None) => Access::anonymous(users, client, root),
        (Some(users), Some(name)) => match users.find(name) {
            Some(user) => Access::of(users, user, client, root),
            None => Access::nothing(),
        },
        (None, Some(_)) => Access::anonymous(None, client, root),
    };
    Arc::new(access)
}
