//! The twin service: messages in, merge, one transaction, publish, acknowledge.
//!
//! In: the publishes that the broker's [`Desk`] claims. Out: the retained topics, events and answers of the contract,
//! sections 2 to 4. Must never acknowledge a wish or an acknowledgement before it is on disk, and never publish a
//! desired value that is not.
//!
//! * One thread holds all twins. Readings are merged and published at once; a timer brings them to the disk in groups.
//!   A reading published at QoS 1 or 2 is acknowledged when its group is on disk, at most one flush interval later.
//! * Wishes, acknowledgements and expiries go in batches: merge, commit, publish, answer. While a batch is on its way to the
//!   disk, readings go on and the next batch gathers. If it cannot be written, the twins go back to where they were and
//!   everyone in it gets 503.
//! * A reading that only moves the time is published; it reaches the disk with the next change or at the end.
//! * `stale`: the mapper says so, for it sees every reading. The service says so only for properties of which a message
//!   is due in a stated time (`report: always` or `max_interval`) and that have a `max_age`, so that a mapper which
//!   disappears is noticed.
//! * `get` with an id gives the document with that id as its first key.

mod batch;
mod devices;
mod readings;
mod service;
#[cfg(test)]
mod tests;
mod words;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use protocols::config::Config;
use protocols::topic::{GATEWAY_STATUS, TwinTopic, Writer};
use protocols::value::Now;
use tokio::sync::{Notify, oneshot};

pub use crate::broker::Word;

use crate::broker::desk::{Claim, Desk, Request, Verdict};
use crate::store::Store;

/// Requests that may wait for the service; one more is refused with reason 0x97.
pub const QUEUE_REQUESTS: usize = 8192;

/// Requests from which on mappers inside the gateway hold theirs back; what they then miss they owe and send later.
pub const PRESSED_REQUESTS: usize = 256;

/// Requests at which they go on: half, so that they do so in turns and not one by one.
const RELIEVED_REQUESTS: usize = PRESSED_REQUESTS / 2;

/// Bytes of payload that may wait for the service; more are refused with reason 0x97.
pub const QUEUE_BYTES: usize = 16 << 20;

/// The largest payload of readings, in bytes; a larger one is refused with code 413.
pub const READINGS_BYTES: usize = 262_144;

/// The largest payload of any other request, in bytes; a larger one is refused with code 413.
pub const REQUEST_BYTES: usize = 65_536;

/// A document is published at most once in this time, in milliseconds; what changes between is in the next one.
pub const DOCUMENT_MS: u64 = 1000;

/// Where the service publishes: the broker, or a test.
pub trait Voice: Send + Sync + 'static {
    /// Publishes in this order. It must not block for long, for the twins wait.
    fn say(&self, words: Vec<Word>);
}

/// What the time is.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store takes no writes.
    #[error("the twins cannot start: {0}")]
    Store(String),
    /// There is no thread to be had.
    #[error("the twins cannot start: {0}")]
    Thread(std::io::Error),
}

/// What the service has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests taken.
    pub requests: u64,
    /// Requests refused, for whatever reason.
    pub refused: u64,
    /// Readings merged.
    pub readings: u64,
    /// Readings of properties that do not exist.
    pub unknown_readings: u64,
    /// Acknowledgements of wishes that had been replaced or settled before.
    pub stale_acks: u64,
    /// Wishes that expired.
    pub expired: u64,
    /// Requests refused because too many waited.
    pub overflows: u64,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    refused: AtomicU64,
    readings: AtomicU64,
    unknown_readings: AtomicU64,
    stale_acks: AtomicU64,
    expired: AtomicU64,
    overflows: AtomicU64,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// What waits for the service.
#[derive(Debug, Default)]
struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// Told when the press is over.
    relief: Notify,
}

/// A request's share of the load; given back when it is dropped.
#[derive(Debug)]
struct Ticket {
    load: Arc<Load>,
    bytes: usize,
}

impl Ticket {
    fn take(load: &Arc<Load>, bytes: usize) -> Option<Self> {
        let requests = load.requests.fetch_add(1, Ordering::Relaxed);
        let waiting = load.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Made before the check, so that refusing gives the share back.
        let ticket = Self { load: load.clone(), bytes };
        (requests < QUEUE_REQUESTS && waiting + bytes <= QUEUE_BYTES).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.load.requests.fetch_sub(1, Ordering::Relaxed) == RELIEVED_REQUESTS + 1 {
            self.load.relief.notify_waiters();
        }
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

enum Input {
    Request(Request, Ticket),
    /// The batch on its way has ended.
    Committed(Result<(), String>),
    /// The flush on its way has ended.
    Flushed(Result<(), String>),
    Reload(Box<Config>, mpsc::Sender<()>),
    /// A sign of life.
    Beat(oneshot::Sender<()>),
    Stop,
}

/// The running service.
pub struct Twins {
    root: Arc<str>,
    inputs: mpsc::Sender<Input>,
    load: Arc<Load>,
    counters: Arc<Counters>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Twins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Twins").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Twins {
    /// Brings the twins of the store back, publishes all their retained topics, and starts.
    ///
    /// # Errors
    /// When the store takes no writes, or there is no thread.
    pub fn start(config: &Config, store: Arc<Store>, voice: Arc<dyn Voice>, clock: Clock) -> Result<Self, StartError> {
        let (inputs, queue) = mpsc::channel();
        let load = Arc::new(Load::default());
        let counters = Arc::new(Counters::default());
        let root: Arc<str> = config.twin.root.as_str().into();
        let surroundings = service::Surroundings {
            root: root.clone(),
            store,
            voice,
            clock,
            inputs: inputs.clone(),
            counters: counters.clone(),
        };
        let service = service::Service::boot(config, surroundings).map_err(StartError::Store)?;
        let thread = std::thread::Builder::new().name("twins".to_owned()).spawn(move || service.run(&queue));
        let thread = Mutex::new(Some(thread.map_err(StartError::Thread)?));
        Ok(Self { root, inputs, load, counters, thread })
    }

    /// Takes a new configuration: twins of new devices appear, those of removed ones go with their retained topics, and
    /// those of changed profiles are fitted. Returns when that is done. The root of the topics stays as it was.
    pub fn reload(&self, config: &Config) {
        let (tell, told) = mpsc::channel();
        if self.inputs.send(Input::Reload(Box::new(config.clone()), tell)).is_ok() {
            // An error here means that the service is stopping, and then there is nothing to reload.
            let _ = told.recv();
        }
    }

    /// Asks for a sign of life. The thread gives it after all requests before; one that has ended never does, and drops
    /// `heard`.
    pub fn beat(&self, heard: oneshot::Sender<()>) {
        // Not sent is not heard.
        drop(self.inputs.send(Input::Beat(heard)));
    }

    /// Finishes what waits, brings everything to the disk and ends. The store can be closed after it.
    pub fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let asked = self.inputs.send(Input::Stop).is_ok();
            if thread.join().is_err() || !asked {
                tracing::error!("the twins' thread had ended before it was asked to");
            }
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { requests, refused, readings, unknown_readings, stale_acks, expired, overflows } =
            &*self.counters;
        Counts {
            requests: read(requests),
            refused: read(refused),
            readings: read(readings),
            unknown_readings: read(unknown_readings),
            stale_acks: read(stale_acks),
            expired: read(expired),
            overflows: read(overflows),
        }
    }
}

impl Drop for Twins {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Desk for Twins {
    fn is_pressed(&self) -> bool {
        self.load.requests.load(Ordering::Relaxed) >= PRESSED_REQUESTS
    }

    fn relief(&self) -> Option<&Notify> {
        Some(&self.load.relief)
    }

    fn claim(&self, topic: &str) -> Claim {
        claim(&self.root, topic)
    }

    fn take(&self, request: Request) {
        add(&self.counters.requests, 1);
        let Some(ticket) = Ticket::take(&self.load, request.payload.len()) else {
            add(&self.counters.overflows, 1);
            let text = "too many requests wait for the twins".to_owned();
            return request.answer.give(Verdict::Refused { reason: 0x97, text });
        };
        if let Err(mpsc::SendError(Input::Request(request, _))) = self.inputs.send(Input::Request(request, ticket)) {
            request.answer.give(Verdict::Refused { reason: 0x80, text: "the gateway is stopping".to_owned() });
        }
    }
}

/// Who may write a topic. Everything below the root belongs to the gateway; what mappers say about their wires is
/// theirs and passes like any other message.
fn claim(root: &str, topic: &str) -> Claim {
    let below = topic.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !below {
        return if topic == GATEWAY_STATUS { Claim::Reserved } else { Claim::Free };
    }
    match TwinTopic::parse(root, topic).map(|topic| topic.writer()) {
        Some(Writer::Anyone) => Claim::Taken,
        Some(Writer::Mapper) => Claim::Mapper,
        Some(Writer::Gateway) | None => Claim::Reserved,
    }
}
