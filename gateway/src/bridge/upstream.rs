//! One upstream: the task that stands between the gateway's topics and the other side.
//!
//! In: local messages, the link's events, what the store finished, the time. Out: publishes both ways; marks and spool rows
//! for the store. Everything that is decided is decided by `protocols::outbox` and the dialect; here it is carried out.
//! Must never say a slot whose mark is not on disk, never acknowledge a wish that is not settled, and never wait for one
//! side while the other one waits for it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mappers::bus::{Bus, Incoming};
use mappers::clock::Clock;
use protocols::config::upstream::{Dialect as Kind, Upstream};
use protocols::dialect::{Dialect, Publish, Site};
use protocols::name::DeviceId;
use protocols::outbox::conflict::Conflicts;
use protocols::outbox::{Backoff, Limits, Outbox, Pace, Sieve, Spool};
use protocols::value::Now;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::dial::Plan;
use super::dialects;
use super::hearing::{BEFORE_STOPPING, Boot};
use super::link::{self, Event, Link, LinkError};
use super::packets::Version;
use super::saying::What;
use super::status::{Board, Standing, Word};
use super::wishes::Pending;
use crate::broker::{Broker, Own};
use crate::store::{KeptUpstream, Store};

/// From one look at the clock to the next when nothing happens, in milliseconds.
const TURN_MS: u64 = 1000;
/// From one look at whether everything retained was read to the next, in milliseconds.
const BOOT_MS: u64 = 20;
/// How long a batch whose answer is a message may wait for it, in milliseconds.
const ANSWER_MS: u64 = 30_000;
/// Bytes a backlog may send at once before its rate holds it back.
const BURST_BYTES: usize = 128 * 1024;
/// What is older than this and not said makes an upstream "syncing" again, in milliseconds.
const BEHIND_MS: u64 = 10_000;
/// How long a clean stop may go on saying what is left.
const LAST_WORDS_MS: u64 = 3_000;
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

type Dialed = Result<(Link, Option<Duration>), String>;

/// Which way a connection attempt failed matters for the next one.
struct Dialing {
    told: oneshot::Receiver<(Dialed, Option<Version>)>,
    task: tokio::task::JoinHandle<()>,
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
    backoff: Backoff,
    pub(super) bus: Bus,
    pub(super) client: String,
    /// Where the twins answer this upstream; nobody else knows it.
    pub(super) answers: String,
    pub(super) boot: Boot,
    pub(super) lost: u64,
    pub(super) link: Option<Link>,
    /// The other side is the embedded broker, and it is reached.
    pub(super) is_inside: bool,
    dialing: Option<Dialing>,
    dial_at: u64,
    version: Version,
    /// The link has to be made anew then, because its token ends.
    ends_at: Option<u64>,
    pub(super) generation: u64,
    pub(super) outbound: VecDeque<(Publish, What)>,
    pub(super) flights: HashMap<u16, What>,
    pub(super) batches: HashMap<u64, super::saying::Under>,
    pub(super) sendings: HashMap<u64, super::saying::Under>,
    pub(super) tokens: HashMap<String, u64>,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) next_pending: u64,
    pub(super) tickets: HashMap<u64, super::wishes::Ticket>,
    pub(super) next_ticket: u64,
    pub(super) conflicts: HashMap<DeviceId, Conflicts>,
    pub(super) desired_versions: HashMap<DeviceId, u64>,
    to_store: mpsc::Sender<Stored>,
    from_store: mpsc::Receiver<Stored>,
    pub(super) standing: Standing,
    board: Board,
    told_kinds: HashSet<String>,
    ticked_at: u64,
    pub(super) stopping: Option<(u64, bool)>,
}

enum Happened {
    Local(Option<Incoming>),
    Link(Result<Event, LinkError>),
    Dialed(Dialed, Option<Version>),
    Stored(Stored),
    Order(Option<Order>),
    Time,
}

/// What a task is made of.
pub(super) struct Beginning {
    pub(super) around: Around,
    pub(super) config: Arc<Upstream>,
    pub(super) site: Site,
    pub(super) board: Board,
}

/// Brings back what is kept, and runs until it is told to stop.
pub(super) async fn run(beginning: Beginning, orders: mpsc::Receiver<Order>) {
    let name: Arc<str> = beginning.config.name.as_str().into();
    let (tell, told) = oneshot::channel();
    let target = dialects::target(&beginning.config);
    beginning.around.store.load_upstream(&name, target, move |kept| drop(tell.send(kept)));
    let kept = match told.await {
        Ok(Ok(kept)) => kept,
        Ok(Err(error)) => {
            tracing::error!(upstream = %name, %error, "what was kept for it cannot be read; everything is said again");
            KeptUpstream::default()
        }
        // the store is being closed
        Err(_) => return,
    };
    let dialect = dialects::make(&beginning.config, kept.memory);
    let kept = Kept { marks: kept.marks, spool: kept.spool };
    Task::new(beginning, name, dialect, kept).run(orders).await;
}

/// What is kept beside the dialect's memory.
struct Kept {
    marks: Vec<(protocols::outbox::Slot, protocols::outbox::Stamp)>,
    spool: protocols::outbox::Saved,
}

impl Task {
    fn new(beginning: Beginning, name: Arc<str>, dialect: Box<dyn Dialect>, kept: Kept) -> Self {
        let Beginning { around, config, site, board } = beginning;
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

    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        self.listen().await;
        loop {
            let wake = self.work();
            if self.is_finished() {
                return self.finish().await;
            }
            let wake = self.around.clock.instant(wake);
            // No branch loses anything when another wins: queues and sockets keep what was not taken.
            let happened = tokio::select! {
                order = orders.recv() => Happened::Order(order),
                Some(stored) = self.from_store.recv() => Happened::Stored(stored),
                (dialed, version) = dialed(&mut self.dialing) => Happened::Dialed(dialed, version),
                event = heard(&mut self.link) => Happened::Link(event),
                incoming = self.bus.incoming.recv() => Happened::Local(incoming),
                () = tokio::time::sleep_until(wake) => Happened::Time,
            };
            match happened {
                Happened::Local(None) => return self.finish().await,
                Happened::Local(Some(incoming)) => self.on_local_messages(incoming),
                Happened::Link(Ok(Event::Message(message, id))) => self.on_message(&message, id),
                Happened::Link(Ok(Event::Acked(id, outcome))) => self.on_acked(id, outcome),
                Happened::Link(Err(error)) => self.lose(Some(&error.to_string())),
                Happened::Dialed(dialed, version) => self.on_dialed(dialed, version),
                Happened::Stored(stored) => self.on_stored(stored),
                Happened::Order(Some(Order::Site(site))) => self.on_site(site).await,
                Happened::Order(Some(Order::Stop) | None) => self.on_stop(),
                Happened::Time => {}
            }
        }
    }

    async fn on_site(&mut self, site: Site) {
        self.site = site;
        self.read_again();
        if self.is_inside {
            self.dialect.disconnected();
            let publishes = self.dialect.connected(&self.site, true, self.now());
            self.say_free(publishes);
        } else if !matches!(self.config.dialect, Kind::Plain { .. }) {
            self.redial("the devices have changed").await;
        }
    }

    /// Ends the link in peace and makes it anew at once.
    async fn redial(&mut self, why: &str) {
        if let Some(link) = self.link.take() {
            info!(upstream = %self.name, why, "the link is made anew");
            link.goodbye().await;
            self.unlink();
        }
        self.dial_at = self.now().tick;
    }

    fn on_stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let sent = self.bus.out.try_send(self.marker(BEFORE_STOPPING)).is_ok();
        self.stopping = Some((self.now().tick + LAST_WORDS_MS, !sent));
    }

    fn is_finished(&self) -> bool {
        let Some((deadline, seen)) = self.stopping else { return false };
        let is_quiet = seen && self.outbound.is_empty() && self.flights.is_empty() && self.engine.is_synced();
        self.now().tick >= deadline || !self.is_up() || is_quiet
    }

    /// Goodbye, and everything to the disk.
    async fn finish(mut self) {
        if let Some(dialing) = self.dialing.take() {
            dialing.task.abort();
        }
        if let Some(link) = self.link.take() {
            // an upstream that goes while the gateway stays leaves its will, so that nobody over there waits for it
            if self.said_offline() {
                link.goodbye().await
            } else {
                link.leave().await
            }
            self.unlink();
        }
        let (tell, told) = oneshot::channel();
        let writes = self.last_writes();
        self.around.store.write_upstream(&self.name, writes, Some(Box::new(move |result| drop(tell.send(result)))));
        if !matches!(tokio::time::timeout(Duration::from_secs(5), told).await, Ok(Ok(Ok(())))) {
            warn!(upstream = %self.name, "what it had said is not on disk; some of it is said again");
        }
        self.standing.word = Word::Stopped;
        self.tell(self.now());
    }

    /// Whether the other side has the gateway's own word that it is gone.
    fn said_offline(&self) -> bool {
        let slot = protocols::outbox::Slot::Gateway;
        let content = self.engine.content(&slot).filter(|_| !self.engine.is_dirty(&slot));
        let status = content.and_then(|content| serde_json::from_slice::<protocols::value::Value>(content).ok());
        status.is_some_and(|status| status["state"] == "offline")
    }

    /// One turn: store, say, look. Gives the tick of the next turn at the latest.
    fn work(&mut self) -> u64 {
        let now = self.now();
        self.store_marks(now);
        self.store_spool(now);
        self.knock(now);
        if self.boot != Boot::Done || now.tick >= self.ticked_at + TURN_MS {
            self.look_at_the_broker();
        }
        let mut wake = now.tick + if self.boot == Boot::Done { TURN_MS } else { BOOT_MS };
        if self.boot == Boot::Done && self.dialing.is_none() && !self.is_up() && self.stopping.is_none() {
            if self.config.url.is_none() {
                self.enter();
            } else if now.tick >= self.dial_at {
                self.dial();
            }
            wake = wake.min(self.dial_at.max(now.tick + 1));
        }
        if let Some(due) = self.pending.values().map(|pending| pending.due).min() {
            wake = wake.min(due.max(now.tick + 1));
        }
        if let Some(due) = self.say(now) {
            wake = wake.min(due.max(now.tick + 1));
        }
        if self.is_up() && now.tick >= self.ticked_at + TURN_MS {
            self.tick(now);
        }
        if now.tick >= self.ticked_at + TURN_MS {
            self.ticked_at = now.tick;
            self.tell(now);
        } else {
            self.turn_word(now);
        }
        self.remember();
        wake.min(self.ticked_at + TURN_MS).max(now.tick + 1)
    }

    fn tick(&mut self, now: Now) {
        let publishes = self.dialect.tick(&self.site, now);
        self.say_free(publishes);
        let noticed = self.dialect.noticed(now);
        self.on_heard(noticed, 0, now);
        if self.ends_at.is_some_and(|end| now.tick >= end) {
            self.ends_at = None;
            info!(upstream = %self.name, "the token ends; the link is made anew");
            if let Some(link) = self.link.take() {
                tokio::spawn(link.goodbye());
            }
            self.unlink();
            self.dial_at = now.tick;
        }
    }

    /// The embedded broker is the other side.
    fn enter(&mut self) {
        self.is_inside = true;
        let now = self.now();
        self.standing.connects += 1;
        self.standing.protocol = Some("inside");
        self.generation += 1;
        self.come_up(true, now);
    }

    fn dial(&mut self) {
        let now = self.now();
        let session = self.dialect.session(&self.site);
        let fixed = self.config.mqtt.or(session.version);
        let version = match fixed {
            Some(4) => Version::V4,
            Some(_) => Version::V5,
            None => self.version,
        };
        let plan = Plan {
            upstream: Upstream::clone(&self.config),
            session,
            gateway: self.site.gateway.to_string(),
            base: self.around.base.clone(),
            version,
            wall: now.wall,
        };
        let subscriptions = self.dialect.subscriptions(&self.site);
        let (tell, told) = oneshot::channel();
        let is_fixed = fixed.is_some();
        let task = tokio::spawn(async move {
            let (dialed, next) = try_once(plan, subscriptions, is_fixed).await;
            // nobody waits any more when the upstream is stopped
            drop(tell.send((dialed, next)));
        });
        self.dialing = Some(Dialing { told, task });
    }

    fn on_dialed(&mut self, dialed: Dialed, next: Option<Version>) {
        self.dialing = None;
        let now = self.now();
        if let Some(next) = next {
            self.version = next;
        }
        let (link, lasts) = match dialed {
            Ok(linked) => linked,
            Err(error) => return self.lose(Some(&error)),
        };
        let resumed = link.welcome.session_present;
        let protocol = if link.version() == Version::V5 { "5" } else { "3.1.1" };
        info!(upstream = %self.name, protocol, resumed, "connected");
        self.backoff.connected(now.tick);
        self.ends_at = lasts.map(|lasts| now.tick + mappers::clock::millis(lasts));
        self.generation += 1;
        self.standing.connects += 1;
        self.standing.protocol = Some(protocol);
        self.standing.last_contact = Some(now.wall);
        self.standing.last_error = None;
        self.link = Some(link);
        self.come_up(resumed, now);
    }

    fn come_up(&mut self, resumed: bool, now: Now) {
        let publishes = self.dialect.connected(&self.site, resumed, now);
        self.say_free(publishes);
        self.engine.link_up(now);
        self.spool.link_up(now);
        self.standing.since = now.wall;
        self.standing.word = Word::Syncing;
        self.tell(now);
    }

    /// The link is gone, or did not come to be.
    fn lose(&mut self, error: Option<&str>) {
        let now = self.now();
        let was_up = self.link.take().is_some();
        let error = error.unwrap_or("the link is gone");
        if was_up || self.standing.last_error.as_deref() != Some(error) {
            warn!(upstream = %self.name, error, "not connected");
        }
        self.standing.last_error = Some(error.to_owned());
        self.unlink();
        let wait_ms = self.backoff.failed(RandomState::new().hash_one(now.tick), now.tick);
        self.dial_at = now.tick + wait_ms;
        if was_up || self.standing.word == Word::Connecting {
            self.standing.since = now.wall;
        }
        self.standing.word = Word::Away;
        self.tell(now);
    }

    /// What was on its way is not any more.
    fn unlink(&mut self) {
        let now = self.now();
        self.outbound.clear();
        self.flights.clear();
        self.batches.clear();
        self.sendings.clear();
        self.tokens.clear();
        self.dialect.disconnected();
        self.engine.link_down(now);
        self.spool.link_down(now);
        self.ends_at = None;
    }

    /// Complains once about each kind of what makes no sense.
    pub(super) fn senseless(&mut self, text: String) {
        self.standing.senseless += 1;
        if self.told_kinds.len() < COMPLAINTS && self.told_kinds.insert(text.clone()) {
            warn!(upstream = %self.name, error = text, "a message of the other side means nothing");
        }
        self.standing.last_error = Some(text);
    }

    fn turn_word(&mut self, now: Now) {
        if self.standing.word == Word::Syncing && self.is_in_step() {
            self.standing.word = Word::Synced;
            self.standing.since = now.wall;
            self.tell(now);
        }
    }

    fn is_in_step(&self) -> bool {
        self.engine.is_synced() && self.outbound.is_empty()
    }

    fn tell(&mut self, now: Now) {
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

async fn dialed(dialing: &mut Option<Dialing>) -> (Dialed, Option<Version>) {
    match dialing {
        Some(dialing) => match (&mut dialing.told).await {
            Ok(told) => told,
            Err(_) => (Err("the attempt to connect was given up".to_owned()), None),
        },
        None => std::future::pending().await,
    }
}

async fn heard(link: &mut Option<Link>) -> Result<Event, LinkError> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

/// One attempt; also tells which version to try next, unless it is fixed.
async fn try_once(plan: Plan, subscriptions: Vec<(String, u8)>, is_fixed: bool) -> (Dialed, Option<Version>) {
    let made = tokio::task::spawn_blocking(move || plan.dial()).await;
    let (mut dial, lasts) = match made {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => return (Err(error.to_string()), None),
        Err(error) => return (Err(error.to_string()), None),
    };
    let mut outcome = link::connect(&dial).await;
    let mut next = None;
    if matches!(outcome, Err(LinkError::Version)) && !is_fixed && dial.version == Version::V5 {
        dial.version = Version::V4;
        next = Some(Version::V4);
        outcome = link::connect(&dial).await;
    }
    let mut link = match outcome {
        Ok(link) => link,
        // brokers from before version 5 may just close; the next attempt tries the other one
        Err(error @ (LinkError::Closed | LinkError::Broken(_))) if !is_fixed => {
            let other = if dial.version == Version::V5 { Version::V4 } else { Version::V5 };
            return (Err(error.to_string()), Some(other));
        }
        Err(error) => return (Err(error.to_string()), next),
    };
    match link.subscribe(&subscriptions).await {
        Ok(()) => (Ok((link, lasts)), next),
        Err(error) => (Err(error.to_string()), next),
    }
}
