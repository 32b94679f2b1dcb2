//! What an upstream's task holds, and how it stands.
//!
//! In: what it is made of. Out: its state, which the rooms beside it work on: `hearing` the local side, `saying` what goes out,
//! `wishes` what comes in, `linking` the way there, `upstream` the turn of all of them. Must never decide anything.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mappers::bus::Bus;
use mappers::clock::Clock;
use protocols::config::upstream::Upstream;
use protocols::dialect::{Dialect, Publish, Reply, Site};
use protocols::name::DeviceId;
use protocols::outbox::conflict::Conflicts;
use protocols::outbox::{Backoff, Limits, Outbox, Pace, Sieve, Spool};
use protocols::value::Now;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::link::Link;
use super::packets::Version;
use super::status::{Board, Standing, Word};
use crate::broker::{Broker, Own};
use crate::store::Store;

/// How long a batch whose answer is a message may wait for it, in milliseconds.
const ANSWER_MS: u64 = 30_000;
/// Bytes a backlog may send at once before its rate holds it back.
const BURST_BYTES: usize = 128 * 1024;
/// What is older than this and not said makes an upstream "syncing" again, in milliseconds.
const BEHIND_MS: u64 = 10_000;
/// Kinds of senseless messages that are logged; further ones are counted only.
const COMPLAINTS: usize = 32;
/// Answers of the store that may wait; it sends a few for each turn of the loop.
const STORE_ANSWERS: usize = 64;

/// What all upstreams stand among.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) store: Arc<Store>,
    pub(super) broker: Arc<Broker>,
    pub(super) clock: Clock,
    /// Where relative paths begin.
    pub(super) base: PathBuf,
}

/// From the gateway.
pub(super) enum Order {
    /// Other devices, or other profiles.
    Site(Site),
    /// Say what is left, store everything, end.
    Stop,
}

/// From the store.
pub(super) enum Stored {
    Marks(bool),
    Spool(bool),
    Loaded(protocols::outbox::Class, Option<Vec<protocols::outbox::Row>>),
}

pub(super) type Dialed = Result<(Link, Option<Duration>), String>;

/// Which way a connection attempt failed matters for the next one.
pub(super) struct Dialing {
    pub(super) told: oneshot::Receiver<(Dialed, Option<Version>)>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

/// How far the reading of what the gateway retains has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// The subscriptions are on their way, with a marker behind them.
    Asked,
    /// They are made; the retained messages come.
    Reading,
    /// All were taken out of the broker, a marker is behind the last of them.
    Marked,
    Done,
}

/// Whose publish it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A batch that its PUBACKs settle.
    Batch(u64),
    /// A batch that an answer settles.
    Asked(u64),
    /// Readings, or a gap among them.
    Sending(u64),
    /// Nobody's: an answer, an event, something of the dialect's own.
    Free,
}

/// Publishes of one batch on their way.
#[derive(Debug)]
pub(super) struct Under {
    pub(super) left: usize,
    pub(super) refused: Option<(String, bool)>,
}

/// A message of the other side that is acknowledged when everything in it is settled.
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) packet: u16,
    pub(super) left: usize,
}

/// Something the twins were asked for.
pub(super) struct Pending {
    pub(super) ticket: Option<u64>,
    pub(super) device: DeviceId,
    pub(super) what: Asked,
    pub(super) request: (String, Bytes),
    /// When to ask (again).
    pub(super) due: u64,
    pub(super) tries: u32,
}

pub(super) enum Asked {
    /// What is set, and what of the wish was kept back by a conflict.
    Wish {
        id: Option<String>,
        reply: Reply,
        kept: BTreeMap<String, String>,
    },
    Document(Reply),
}

/// See the module.
pub(super) struct Task {
    pub(super) around: Around,
    pub(super) config: Arc<Upstream>,
    pub(super) name: Arc<str>,
    pub(super) site: Site,
    pub(super) sieve: Sieve,
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) engine: Outbox,
    pub(super) spool: Spool,
    pub(super) pace: Pace,
    pub(super) backoff: Backoff,
    pub(super) bus: Bus,
    pub(super) client: String,
    /// Where the twins answer this upstream; nobody else knows it.
    pub(super) answers: String,
    pub(super) boot: Boot,
    pub(super) listens: Option<oneshot::Sender<()>>,
    pub(super) lost: u64,
    pub(super) link: Option<Link>,
    /// The other side is the embedded broker, and it is reached.
    pub(super) is_inside: bool,
    pub(super) dialing: Option<Dialing>,
    pub(super) dial_at: u64,
    pub(super) version: Version,
    /// The link has to be made anew then, because its token ends.
    pub(super) ends_at: Option<u64>,
    pub(super) generation: u64,
    pub(super) outbound: VecDeque<(Publish, What)>,
    pub(super) flights: HashMap<u16, What>,
    pub(super) batches: HashMap<u64, Under>,
    pub(super) sendings: HashMap<u64, Under>,
    pub(super) tokens: HashMap<String, u64>,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) next_pending: u64,
    pub(super) tickets: HashMap<u64, Ticket>,
    pub(super) next_ticket: u64,
    pub(super) conflicts: HashMap<DeviceId, Conflicts>,
    pub(super) desired_versions: HashMap<DeviceId, u64>,
    pub(super) to_store: mpsc::Sender<Stored>,
    pub(super) from_store: mpsc::Receiver<Stored>,
    pub(super) standing: Standing,
    pub(super) board: Board,
    pub(super) told_kinds: HashSet<String>,
    pub(super) ticked_at: u64,
    pub(super) stopping: Option<(u64, bool)>,
}

/// What a task is made of.
pub(super) struct Beginning {
    pub(super) around: Around,
    pub(super) config: Arc<Upstream>,
    pub(super) site: Site,
    pub(super) board: Board,
    /// Told when it hears the bus.
    pub(super) listens: oneshot::Sender<()>,
}

/// What is kept beside the dialect's memory.
pub(super) struct Kept {
    pub(super) marks: Vec<(protocols::outbox::Slot, protocols::outbox::Stamp)>,
    pub(super) spool: protocols::outbox::Saved,
}

impl Task {
    pub(super) fn new(beginning: Beginning, name: Arc<str>, dialect: Box<dyn Dialect>, kept: Kept) -> Self {
        let Beginning { around, config, site, board, listens } = beginning;
        let now = around.clock.now();
        let limits = Limits {
            window: config.window.min(dialect.window()),
            answer_ms: ANSWER_MS,
            batch_bytes: dialect.batch_bytes(),
        };
        // nobody can take over a client whose id cannot be guessed
        let client = format!("bridge-{name}-{}", ulid::Ulid::generate());
        let bus = around.broker.attach(&client, "admin");
        let (to_store, from_store) = mpsc::channel(STORE_ANSWERS);
        Self {
            sieve: Sieve::new(&config.devices, &config.properties),
            engine: Outbox::new(limits, kept.marks),
            spool: Spool::new(&config.spool, dialect.batch_bytes(), kept.spool, now),
            pace: Pace::new(config.rate, BURST_BYTES),
            backoff: Backoff::new(),
            answers: format!("{}/{}", super::ANSWERS, ulid::Ulid::generate()),
            boot: Boot::Asked,
            listens: Some(listens),
            lost: 0,
            link: None,
            is_inside: false,
            dialing: None,
            dial_at: now.tick,
            version: Version::V5,
            ends_at: None,
            generation: 0,
            outbound: VecDeque::new(),
            flights: HashMap::new(),
            batches: HashMap::new(),
            sendings: HashMap::new(),
            tokens: HashMap::new(),
            pending: BTreeMap::new(),
            next_pending: 16,
            tickets: HashMap::new(),
            next_ticket: 1,
            conflicts: HashMap::new(),
            desired_versions: HashMap::new(),
            to_store,
            from_store,
            standing: Standing { since: now.wall, ..Standing::default() },
            told_kinds: HashSet::new(),
            ticked_at: now.tick,
            stopping: None,
            client,
            bus,
            around,
            config,
            name,
            site,
            dialect,
            board,
        }
    }

    pub(super) fn now(&self) -> Now {
        self.around.clock.now()
    }

    /// Whether the other side can be spoken to.
    pub(super) fn is_up(&self) -> bool {
        self.link.is_some() || self.is_inside
    }

    /// Complains once about each kind of what makes no sense.
    pub(super) fn senseless(&mut self, text: String) {
        self.standing.senseless += 1;
        if self.told_kinds.len() < COMPLAINTS && self.told_kinds.insert(text.clone()) {
            warn!(upstream = %self.name, error = text, "a message of the other side means nothing");
        }
        self.standing.last_error = Some(text);
    }

    pub(super) fn turn_word(&mut self, now: Now) {
        if self.standing.word == Word::Syncing && self.is_in_step() {
            self.standing.word = Word::Synced;
            self.standing.since = now.wall;
            self.tell(now);
        }
    }

    pub(super) fn is_in_step(&self) -> bool {
        self.engine.is_synced() && self.outbound.is_empty()
    }

    pub(super) fn tell(&mut self, now: Now) {
        let counts = self.engine.counts();
        let spool = self.spool.counts(now);
        let dirty_ms = counts.oldest_dirty.map(|tick| now.tick.saturating_sub(tick));
        let unsent_ms = dirty_ms.max(spool.oldest_ms);
        match self.standing.word {
            Word::Synced if dirty_ms.is_some_and(|age| age > BEHIND_MS) => self.standing.word = Word::Syncing,
            Word::Syncing if self.is_in_step() => self.standing.word = Word::Synced,
            _ => {}
        }
        self.standing.dirty = counts.dirty;
        self.standing.in_flight = counts.in_flight;
        self.standing.said = counts.said;
        self.standing.refused = counts.refused;
        if let Some(error) = counts.last_error.filter(|_| self.is_up()) {
            self.standing.last_error = Some(error);
        }
        self.standing.oldest_unsent_s = unsent_ms.map(|age| age / 1000);
        self.standing.spool_rows = spool.rows;
        self.standing.spool_bytes = spool.bytes;
        self.standing.spool_memory_bytes = spool.memory_bytes as u64;
        self.standing.gaps = spool.expired + spool.full + spool.lost;
        if let Some(link) = &mut self.link {
            self.standing.stray_acks += std::mem::take(&mut link.stray_acks);
            let (out, incoming) = std::mem::take(&mut link.bytes);
            self.standing.bytes_out += out;
            self.standing.bytes_in += incoming;
        }
        self.board.write(&self.standing);
    }

    /// Where the store's answers go.
    pub(super) fn answer_door(&self) -> mpsc::Sender<Stored> {
        self.to_store.clone()
    }

    /// Publishes in the gateway's own name.
    pub(super) fn own(&self, own: Own) {
        self.around.broker.publish(own);
    }

    /// Whether the upstream may know a device.
    pub(super) fn knows(&self, device: &DeviceId) -> bool {
        self.site.devices.contains_key(device)
    }
}

impl Under {
    /// Takes the outcome of one publish; tells whether it was the last one.
    pub(super) fn is_over(&mut self, outcome: Result<(), (String, bool)>) -> bool {
        if let Err(refusal) = outcome {
            self.refused = Some(refusal);
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}
