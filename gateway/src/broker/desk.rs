//! The desk: where the broker hands over publishes that the gateway itself answers.
//!
//! A topic the desk claims is never routed to subscribers as it came; the desk decides, and the broker acknowledges
//! only when the desk has answered. That is how a PUBACK can mean "it is on disk".

use bytes::Bytes;
use tokio::sync::Notify;

/// Who published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The client id.
    pub client: String,
    /// The user name or certificate subject; `None` for anonymous clients.
    pub user: Option<String>,
    /// Its role's name.
    pub role: String,
}

/// A publish on a topic that the desk claims.
#[derive(Debug)]
pub struct Request {
    /// Who published.
    pub author: Author,
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// 0, 1 or 2; with 0 nobody waits for the answer.
    pub qos: u8,
    /// Where the answer is wanted (MQTT 5).
    pub response_topic: Option<String>,
    /// What the answer has to carry (MQTT 5).
    pub correlation: Option<Bytes>,
    /// Tells the broker how it ended; dropping it counts as a fault of the desk (MQTT 5 reason 0x80).
    pub answer: Answer,
}

/// How a request ended, as MQTT says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted, and stored where the contract says so.
    Accepted,
    /// Refused. MQTT 5 clients get the reason code and text; for 3.1.1 clients it is acknowledged, dropped, counted
    /// and logged once per client.
    Refused {
        /// MQTT 5 reason code, `0x80` and above.
        reason: u8,
        /// Reason String.
        text: String,
    },
}

/// Carries the verdict back to the broker.
pub struct Answer(Option<Box<dyn FnOnce(Option<Verdict>) + Send>>);

impl Answer {
    /// An answer that calls `done` once: with the verdict, or with `None` when it is dropped without one.
    pub fn new(done: impl FnOnce(Option<Verdict>) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    /// Gives the verdict.
    pub fn give(mut self, verdict: Verdict) {
        if let Some(done) = self.0.take() {
            done(Some(verdict));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(None);
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

/// What the broker asks of the gateway behind it.
pub trait Desk: Send + Sync + 'static {
    /// What becomes of publishes on this topic. Called for every publish: it must be quick and must not block.
    fn claim(&self, topic: &str) -> Claim;

    /// Takes a request over. It must not block: it queues, and answers later through [`Request::answer`]. The queue is
    /// bounded; a full one is answered at once with reason 0x97.
    fn take(&self, request: Request);

    /// So much waits that a mapper inside the gateway holds its words back.
    fn is_pressed(&self) -> bool {
        false
    }

    /// Told (with [`Notify::notify_waiters`]) when that is over; a desk without is looked at again and again.
    fn relief(&self) -> Option<&Notify> {
        None
    }
}

/// What becomes of publishes on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing special: it is routed to subscribers.
    Free,
    /// The gateway alone writes it; the publish is refused with 0x87.
    Reserved,
    /// It goes to [`Desk::take`].
    Taken,
    /// It goes to [`Desk::take`] if the author may act as a mapper; else it is refused with 0x87.
    Mapper,
}

/// A desk that claims nothing: a plain broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDesk;

impl Desk for NoDesk {
    fn claim(&self, _topic: &str) -> Claim {
        Claim::Free
    }

    fn take(&self, _request: Request) {}
}
