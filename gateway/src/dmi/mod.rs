//! KubeEdge's device mapper interface (DMI): gRPC with mappers built with KubeEdge's mapper-framework.
//!
//! In: mappers that register on a Unix socket and report; the installation's external devices; what the twins desire.
//! Out: models and devices for each mapper, at its own socket; readings, states and acknowledgements at the twins' topics.
//! Must never let one mapper hold up another or the twins, and never lose a change because a mapper was away.
//!
//! * [`service`] takes what mappers call and hands it to the [`clerk`], one task that knows devices, wishes and mappers.
//! * Each mapper has a task of its own ([`line`]) that compares what it was told with what it should be told, and calls
//!   it until both are the same. State is level-triggered, so there is no queue that could overflow.
//! * Who registered, and what it was told, is kept as retained messages on topics nobody else may write: a mapper of
//!   that framework registers at its start and never again.

mod authority;
mod clerk;
mod door;
mod line;
mod service;
mod socket;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mappers::clock::Clock;
use protocols::config::Config;
use protocols::kubeedge::dmi::Served;
use protocols::value::{Timestamp, Value};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use socket::SocketError;

use crate::broker::Broker;

/// The messages and services of `proto/dmi.proto`.
#[allow(unreachable_pub, reason = "made from the .proto at build time")]
mod wire {
    tonic::include_proto!("v1beta1");
}

/// Calls of mappers that may wait for the clerk; one more is refused (RESOURCE_EXHAUSTED), and the mapper's next report
/// brings newer values.
pub const QUEUE_CALLS: usize = 256;

/// Connections of mappers at one time; more wait before the door. The framework makes one for each report.
pub const CONNECTIONS: usize = 64;

/// Properties in one report; a longer one is refused (INVALID_ARGUMENT).
pub const TWINS: usize = 4096;

/// Mappers at one time, one for each protocol; one more is refused (RESOURCE_EXHAUSTED).
pub const MAPPERS: usize = 64;

/// What a call may take before its mapper is told to try again; the framework gives up after a second.
const CALL: Duration = Duration::from_millis(900);

/// What everybody of this room counts.
#[derive(Debug, Default)]
struct Board {
    counts: Mutex<Counts>,
}

/// Counters since the start, and how each mapper is.
#[derive(Clone, Debug, Default)]
struct Counts {
    registered: u64,
    reports: u64,
    readings: u64,
    bad_readings: u64,
    states: u64,
    refused: u64,
    busy: u64,
    calls: u64,
    failed_calls: u64,
    mappers: BTreeMap<String, MapperState>,
}

/// How a mapper is.
#[derive(Clone, Debug, Default)]
struct MapperState {
    name: String,
    version: String,
    address: String,
    devices: usize,
    there: bool,
    since: Option<Timestamp>,
    last_error: Option<String>,
}

impl Board {
    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What this room needs of the gateway.
pub struct Surroundings<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// The broker.
    pub broker: &'a Arc<Broker>,
    /// The folder where a relative path of the socket starts.
    pub base: &'a Path,
    /// The clock.
    pub clock: Clock,
    /// Ends everything.
    pub stop: CancellationToken,
}

/// The interface, being served.
pub struct Dmi {
    served: watch::Sender<Arc<Served>>,
    board: Arc<Board>,
    place: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Dmi {
    /// Opens the socket and serves on it. `None` when the configuration does not ask for it.
    ///
    /// # Errors
    /// When the socket cannot be had, or is somebody else's.
    pub async fn start(around: Surroundings<'_>) -> Result<Option<Self>, SocketError> {
        let Some(settings) = around.config.kubeedge.as_ref().and_then(|kubeedge| kubeedge.dmi.as_ref()) else {
            return Ok(None);
        };
        let socket = socket::open(&around.base.join(&settings.socket)).await?;
        let place = socket.path().display().to_string();
        let board = Arc::new(Board::default());
        let (served, watched) = watch::channel(Arc::new(Served::of(around.config)));
        let (calls, asked) = mpsc::channel(QUEUE_CALLS);
        // `admin`, because a mapper reports for any device of its protocol.
        let bus = around.broker.attach(clerk::CLIENT, "admin");
        let clerk = clerk::Clerk::new(clerk::Parts {
            root: around.config.twin.root.clone(),
            broker: Arc::clone(around.broker),
            served: watched,
            clock: around.clock,
            board: Arc::clone(&board),
            stop: around.stop.child_token(),
        });
        let clerk = tokio::spawn(clerk.run(bus, asked));
        let desk = service::Desk::new(calls, Arc::clone(&board));
        let door = tokio::spawn(door::serve(socket, desk, around.stop.child_token()));
        tracing::info!(socket = %place, "the device mapper interface is served");
        Ok(Some(Self { served, board, place, tasks: vec![door, clerk] }))
    }

    /// Takes the devices of a new configuration. The socket stays where it is.
    pub fn reload(&self, config: &Config) {
        self.served.send_replace(Arc::new(Served::of(config)));
    }

    /// What `gateway/status` says of it.
    pub fn status(&self) -> Value {
        let counts = self.board.read();
        let mappers: serde_json::Map<String, Value> = counts
            .mappers
            .iter()
            .map(|(protocol, mapper)| {
                let status = json!({
                    "name": mapper.name,
                    "version": mapper.version,
                    "address": mapper.address,
                    "state": if mapper.there { "online" } else { "offline" },
                    "since": mapper.since,
                    "devices": mapper.devices,
                    "last_error": mapper.last_error,
                });
                (protocol.clone(), status)
            })
            .collect();
        json!({
            "socket": self.place,
            "mappers": mappers,
            "registered": counts.registered,
            "reports": counts.reports,
            "readings": counts.readings,
            "bad_readings": counts.bad_readings,
            "states": counts.states,
            "refused": counts.refused,
            "busy": counts.busy,
            "calls": counts.calls,
            "failed_calls": counts.failed_calls,
        })
    }

    /// Waits until everything has ended; the token given at the start ends it.
    pub async fn ended(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "the device mapper interface ended badly");
            }
        }
    }
}
