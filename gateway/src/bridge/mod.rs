//! The bridge: twins kept in step with other parties, through every kind of outage.
//!
//! In: the upstreams and devices of the configuration. Out: one task for each upstream; how each stands. Must never let
//! one upstream touch another: each has its own marks, its own spool, its own link.
//!
//! The other side of the bus is the broker: a task subscribes to the twins' topics and sets wishes like any client. What is
//! said when is decided by `protocols::outbox`, how by a `protocols::dialect`.

mod dial;
mod dialects;
mod hearing;
mod link;
mod linking;
mod packets;
mod reach;
mod saying;
mod secrets;
mod status;
mod task;
mod upstream;
mod wishes;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mappers::clock::Clock;
use protocols::config::upstream::Upstream;
use protocols::config::{Config, Device};
use protocols::dialect::Site;
use protocols::outbox::Sieve;
use protocols::profile::Profile;
use protocols::value::Value;
use serde_json::{Map, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use self::status::Board;
use self::task::{Around, Beginning, Order};
use crate::broker::{Broker, Own};
use crate::store::{Forgotten, Store};

/// Orders that may wait for an upstream; they are few and taken at once.
const ORDERS: usize = 8;
/// How long the start waits for upstreams to listen. One that takes longer misses the first readings of streams; what is
/// state it hears all the same.
const LISTEN_WITHIN: Duration = Duration::from_secs(5);
/// How long an upstream may take to stop; it says what is left for three seconds, and stores.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What the bridge stands among.
pub struct Surroundings {
    /// Where marks and readings are kept.
    pub store: Arc<Store>,
    /// Where the twins are heard.
    pub broker: Arc<Broker>,
    /// The time.
    pub clock: Clock,
    /// The folder where relative paths begin.
    pub base: PathBuf,
}

/// First levels of the topics on which the twins answer upstreams.
const ANSWERS: &str = "gateway/bridge";

/// Whether a topic is one on which an upstream takes the twins' answers: nobody else may publish there.
pub(crate) fn is_answer(topic: &str) -> bool {
    topic.strip_prefix(ANSWERS).is_some_and(|rest| rest.starts_with('/') && rest.ends_with("/result"))
}

struct Running {
    config: Arc<Upstream>,
    devices: Vec<(String, String)>,
    orders: mpsc::Sender<Order>,
    board: Board,
    task: JoinHandle<()>,
}

/// All upstreams.
pub struct Bridge {
    around: Around,
    changed: Arc<Notify>,
    running: BTreeMap<String, Running>,
    order: Vec<String>,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("upstreams", &self.order).finish_non_exhaustive()
    }
}

impl Bridge {
    /// Starts every upstream of the configuration, and waits until they hear what is said on the bus: a streamed reading
    /// that is said before nobody keeps.
    pub async fn start(config: &Config, around: Surroundings) -> Self {
        let Surroundings { store, broker, clock, base } = around;
        let around = Around { store, broker, clock, base };
        let mut bridge = Self { around, changed: Arc::default(), running: BTreeMap::new(), order: Vec::new() };
        bridge.forget(config);
        let listening: Vec<_> = config.upstream.iter().map(|upstream| bridge.begin(upstream, config)).collect();
        let all = async {
            for one in listening {
                // one that has ended listens to nothing
                let _ = one.await;
            }
        };
        if tokio::time::timeout(LISTEN_WITHIN, all).await.is_err() {
            warn!("an upstream does not listen yet; first readings of streams may be missing there");
        }
        bridge.order = config.upstream.iter().map(|upstream| upstream.name.clone()).collect();
        bridge
    }

    /// Starts an upstream; tells when it listens.
    fn begin(&mut self, upstream: &Upstream, config: &Config) -> oneshot::Receiver<()> {
        let (orders, taken) = mpsc::channel(ORDERS);
        let (listens, listening) = oneshot::channel();
        let board = Board::new(self.changed.clone());
        let site = self.site(upstream, config);
        let devices = seen(&site);
        let shared = Arc::new(upstream.clone());
        let beginning =
            Beginning { around: self.around.clone(), config: shared.clone(), site, board: board.clone(), listens };
        let task = tokio::spawn(upstream::run(beginning, taken));
        self.running.insert(upstream.name.clone(), Running { config: shared, devices, orders, board, task });
        listening
    }

    /// Makes a new configuration true: upstreams that changed or went are stopped, new ones start, the others learn of
    /// other devices. `old` are the devices that were there before.
    pub async fn reload(&mut self, config: &Config, old: &[Arc<Device>]) {
        let wanted: BTreeMap<&str, &Upstream> =
            config.upstream.iter().map(|upstream| (upstream.name.as_str(), upstream)).collect();
        let changed: Vec<String> = self
            .running
            .iter()
            .filter(|(name, running)| wanted.get(name.as_str()).is_none_or(|new| **new != *running.config))
            .map(|(name, _)| name.clone())
            .collect();
        let stopping: Vec<Running> = changed.iter().filter_map(|name| self.running.remove(name)).collect();
        stop_all(stopping).await;
        self.forget(config);
        for device in old.iter().filter(|old| !config.devices.iter().any(|new| new.id == old.id)) {
            // nobody else would clear what the bridge has said of it
            let topic = format!("{}/{}/conflict", config.twin.root, device.id);
            self.around.broker.publish(Own { topic, qos: 1, retain: true, kept: true, ..Own::default() });
        }
        for upstream in &config.upstream {
            let site = self.site(upstream, config);
            match self.running.get_mut(&upstream.name) {
                Some(running) => {
                    let devices = seen(&site);
                    if devices != running.devices {
                        running.devices = devices;
                        if running.orders.send(Order::Site(site)).await.is_err() {
                            warn!(upstream = upstream.name, "it has ended and learns nothing new");
                        }
                    }
                }
                None => drop(self.begin(upstream, config)),
            }
        }
        self.order = config.upstream.iter().map(|upstream| upstream.name.clone()).collect();
    }

    /// What is kept for upstreams that are no longer configured goes: nobody would ever send it, and it would fill the card.
    fn forget(&self, config: &Config) {
        let configured = config.upstream.iter().map(|upstream| upstream.name.clone()).collect();
        self.around.store.forget_upstreams(configured, |forgotten| match forgotten {
            Ok(forgotten) => {
                for Forgotten { name: upstream, marks, readings, gaps } in forgotten {
                    warn!(upstream, marks, readings, gaps, "no longer configured; what was kept for it is given up");
                }
            }
            Err(error) => warn!(error, "what was kept for removed upstreams stays for now"),
        });
    }

    /// What an upstream may know: the devices and properties that its filters let through, and nothing else.
    fn site(&self, upstream: &Upstream, config: &Config) -> Site {
        let sieve = Sieve::new(&upstream.devices, &upstream.properties);
        let is_whole = upstream.properties.include.is_empty() && upstream.properties.exclude.is_empty();
        let shown = |profile: &Arc<Profile>| {
            if is_whole {
                return profile.clone();
            }
            Arc::new(profile.showing(|name| sieve.property(name)))
        };
        let devices: HashMap<_, _> = config
            .devices
            .iter()
            .filter(|device| sieve.device(&device.id))
            .map(|device| (device.id.clone(), shown(&device.profile)))
            .collect();
        Site {
            gateway: config.id.clone(),
            epoch: self.around.store.opened().epoch.clone(),
            root: config.twin.root.clone(),
            devices,
        }
    }

    /// Waits until the word of an upstream changes.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// One word for each upstream, and the details.
    pub fn status(&self) -> (Map<String, Value>, Map<String, Value>) {
        let mut words = Map::new();
        let mut details = Map::new();
        for (name, running) in self.order.iter().filter_map(|name| self.running.get_key_value(name)) {
            let (word, standing) = running.board.read();
            let word = if running.task.is_finished() && word != "stopped" { "failed" } else { word };
            words.insert(name.clone(), json!(word));
            details.insert(name.clone(), standing);
        }
        (words, details)
    }

    /// Says what is left, stores everything, and ends all links.
    pub async fn stop(mut self) {
        stop_all(std::mem::take(&mut self.running).into_values().collect()).await;
    }
}

/// What of a site matters to whoever speaks of it.
fn seen(site: &Site) -> Vec<(String, String)> {
    let mut devices: Vec<_> = site.devices.iter().map(|(id, profile)| (id.to_string(), profile.hash.clone())).collect();
    devices.sort();
    devices
}

async fn stop_all(stopping: Vec<Running>) {
    for running in &stopping {
        // one that has ended needs no order
        let _ = running.orders.send(Order::Stop).await;
    }
    for running in stopping {
        let abort = running.task.abort_handle();
        if tokio::time::timeout(STOP_WITHIN, running.task).await.is_err() {
            warn!(upstream = running.config.name, "it did not stop in time");
            abort.abort();
        }
    }
}
