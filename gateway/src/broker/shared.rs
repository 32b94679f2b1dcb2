//! What all tasks of the broker share, and the one way to change the engine.
//!
//! In: a change, as a closure. Out: its value; shelf, wake-ups and wills are seen to. Must never hold the engine's lock
//! over foreign code other than the shelf (which may not block), and never let a panic in the engine spread: it is
//! caught, counted, and what is derived is made anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocols::config::users::Users;
use protocols::config::{Anonymous, Limits};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::core::Core;
use super::desk::{Answer, Author, Claim, Desk, Request, Verdict};
use super::inbound::{Door, Inbound, Outcome};
use super::message::Message;
use super::password::Passwords;
use super::session::{Effects, LastWords};
use super::shelf::{Done, Shelf};
use super::stats::{Counters, Dropped, Stats};

/// See the module.
pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    pub(super) shelf: Arc<dyn Shelf>,
    pub(super) desk: Arc<dyn Desk>,
    pub(super) counters: Arc<Counters>,
    pub(super) limits: Limits,
    pub(super) anonymous: Anonymous,
    pub(super) root: String,
    pub(super) users: RwLock<Option<Arc<Users>>>,
    pub(super) passwords: Passwords,
    pub(super) clock: Clock,
    /// Listeners and housekeeping end with it.
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// Wall-clock milliseconds that never jump while the broker runs: a board without a battery-backed clock must not expire
/// everything when it learns what day it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    start_ms: i64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_ms: i64::try_from(since.as_millis()).unwrap_or(0) }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.start_ms + i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }

    pub(super) fn uptime_s(&self) -> u64 {
        self.start.elapsed().as_secs()
    }
}

/// What came of a change.
pub(super) struct Acted<R> {
    /// `None` after a fault of the engine.
    pub(super) value: Option<R>,
    /// The shelf tells later when it is safe.
    pub(super) durable: bool,
    /// A reader that could do with a moment.
    pub(super) relief: Option<Arc<Door>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // a panic inside is caught before the guard goes, so poison means nothing here
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the engine; nobody waits for the shelf.
    pub(super) fn act<R>(&self, change: impl FnOnce(&mut Core, &mut Effects) -> R) -> Acted<R> {
        self.act_then(change, || Box::new(|_| ()))
    }

    /// Changes the engine. If something must be on disk before anybody is told, `done` makes what is told then.
    pub(super) fn act_then<R>(
        &self,
        change: impl FnOnce(&mut Core, &mut Effects) -> R,
        done: impl FnOnce() -> Done,
    ) -> Acted<R> {
        let mut fx = Effects::default();
        let value = {
            let mut core = self.lock();
            core.measure.now_ms = self.clock.now_ms();
            let value = catch_unwind(AssertUnwindSafe(|| change(&mut core, &mut fx))).ok();
            if value.is_none() {
                self.counters.faults.add(1);
                tracing::error!("a fault of the broker's engine was caught; its tables are made anew");
                core.repair();
            }
            if !fx.changes.is_empty() {
                let changes = std::mem::take(&mut fx.changes);
                let done = fx.durable.then(done);
                // the shelf keeps the order it is called in, so it is called before the lock is given back
                if catch_unwind(AssertUnwindSafe(|| self.shelf.keep(changes, done))).is_err() {
                    self.counters.faults.add(1);
                    tracing::error!("a fault of the broker's shelf was caught");
                }
            } else {
                fx.durable = false;
            }
            value
        };
        for door in &fx.wake {
            door.notify.notify_one();
        }
        for words in fx.wills {
            self.speak(words);
        }
        Acted { value, durable: fx.durable, relief: fx.relief }
    }

    /// Publishes a will, if its author may.
    fn speak(&self, words: LastWords) {
        let LastWords { mut message, expiry_s, client, access } = words;
        let now_ms = self.clock.now_ms();
        message.at_ms = now_ms;
        message.expires_ms = expiry_s.map(|seconds| now_ms + i64::from(seconds) * 1000);
        match self.route_of(message.topic(), &access) {
            Ok(Route::Engine) => {
                if self.act(|core, fx| core.publish(message, fx)).value.is_none_or(|result| result.is_err()) {
                    self.counters.refused_publishes.add(1);
                }
            }
            Ok(Route::Desk) => self.desk.take(Request {
                author: author(&client, &access),
                topic: message.topic().to_owned(),
                payload: message.payload_bytes(),
                qos: 0,
                response_topic: None,
                correlation: None,
                answer: Answer::new(|_| ()),
            }),
            Err(reason) => {
                self.counters.refused_publishes.add(1);
                tracing::warn!(%client, topic = message.topic(), error = reason, "a will is not published");
            }
        }
    }

    /// Where a client's publish goes.
    ///
    /// # Errors
    /// Why it goes nowhere; the reason code is 0x87.
    pub(super) fn route_of(&self, topic: &str, access: &Access) -> Result<Route, &'static str> {
        if !access.may_publish(topic) {
            return Err("this client may not publish to this topic");
        }
        match self.desk.claim(topic) {
            Claim::Free => Ok(Route::Engine),
            Claim::Taken => Ok(Route::Desk),
            Claim::Mapper if access.mapper => Ok(Route::Desk),
            Claim::Mapper => Err("only a mapper may publish to this topic"),
            Claim::Reserved => Err("only the gateway publishes to this topic"),
        }
    }

    pub(super) fn users(&self) -> Option<Arc<Users>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stats(&self) -> Stats {
        let counters = &self.counters;
        let mut stats = Stats {
            messages_in: counters.messages_in.get(),
            messages_out: counters.messages_out.get(),
            bytes_in: counters.bytes_in.get(),
            bytes_out: counters.bytes_out.get(),
            dropped: Dropped {
                queue_full: counters.dropped_queue_full.get(),
                expired: counters.dropped_expired.get(),
                too_large: counters.dropped_too_large.get(),
                session_ended: counters.dropped_session_ended.get(),
            },
            refused_publishes: counters.refused_publishes.get(),
            refused_clients: counters.refused_clients.get(),
            faults: counters.faults.get(),
            ..Stats::default()
        };
        self.lock().gauges(&mut stats);
        stats
    }
}

/// Who takes a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Subscribers.
    Engine,
    /// The gateway.
    Desk,
}

/// The author of a request.
pub(super) fn author(client: &str, access: &Access) -> Author {
    Author { client: client.to_owned(), user: access.user.clone(), role: access.role.clone() }
}

/// What a desk's verdict means for the publish.
pub(super) fn outcome(verdict: Option<Verdict>) -> Outcome {
    match verdict {
        Some(Verdict::Accepted) => Outcome::default(),
        Some(Verdict::Refused { reason, text }) => Outcome { reason: reason.max(0x80), text, lost: false },
        None => Outcome { reason: 0x80, text: "the gateway did not answer".to_owned(), lost: true },
    }
}

/// Answers that wait for the shelf. If the shelf loses its promise, they turn into refusals.
pub(super) struct Promise {
    inbound: Arc<Inbound>,
    numbers: Vec<u64>,
}

impl Promise {
    pub(super) fn new(inbound: Arc<Inbound>, numbers: Vec<u64>) -> Self {
        Self { inbound, numbers }
    }

    /// As what the shelf calls.
    pub(super) fn done(mut self) -> Done {
        Box::new(move |result| {
            let numbers = std::mem::take(&mut self.numbers);
            let outcome = match result {
                Ok(()) => Outcome::default(),
                Err(error) => Outcome { reason: 0x83, text: error.to_string(), lost: true },
            };
            self.inbound.settle_all(&numbers, &outcome);
        })
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.numbers.is_empty() {
            let outcome = Outcome { reason: 0x83, text: "the message could not be kept".to_owned(), lost: true };
            self.inbound.settle_all(&self.numbers, &outcome);
        }
    }
}

/// A message as a client published it.
pub(super) fn stamp(message: &mut Message, now_ms: i64, expiry_s: Option<u32>) {
    message.at_ms = now_ms;
    message.expires_ms = expiry_s.map(|seconds| now_ms + i64::from(seconds) * 1000);
}
