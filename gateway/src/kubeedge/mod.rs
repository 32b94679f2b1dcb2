//! KubeEdge's device topics, served on the embedded broker.
//!
//! In: what KubeEdge's mappers and applications publish on `$hw/events/…`, and what the twins say. Out: the answers on
//! KubeEdge's topics; wishes and readings for the twins. Must never let one message stop the next, and never let a
//! client write a reading that could not write it at the twin.
//!
//! * The broker hands the requests over ([`Window`]), so that a PUBACK means the twin has taken them.
//! * Keys that the device's profile has are the twin's. All others, and the states that were said, are kept here: as
//!   retained messages on topics that nobody else may write (`gateway/kubeedge/D`), at most once in [`KEEP_MS`].
//! * Updates of one device are taken one after the other; those of many devices go on side by side.

mod desk;
mod entry;
mod service;

use std::sync::Arc;

use mappers::clock::Clock;
use protocols::config::{Config, Device, KubeEdge};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use desk::Window;

use crate::broker::Broker;

/// Requests that may wait; one more is refused with reason 0x97.
pub const QUEUE_REQUESTS: usize = 1024;

/// From one writing down of a device's own keys to the next, in milliseconds; what changes between is in the next one.
pub const KEEP_MS: u64 = 5_000;

/// How long a twin may take to answer a wish, in milliseconds; then the client gets code 500.
pub const ANSWER_MS: u64 = 10_000;

/// First levels of the topics where the keys are kept that no profile has.
pub const KEPT: &str = "gateway/kubeedge/";

/// Where the twins' answers to this room's wishes come. It is not below [`KEPT`], and nobody's secret.
const ANSWERS: &str = "gateway/reply/kubeedge";

/// Where the markers come back that end what is retained; no answer comes there.
const MARKER: &str = "gateway/reply/kubeedge-marker";

/// The service, on the broker.
const CLIENT: &str = "kubeedge";

/// Starts the service. It ends with `stop`.
pub fn start(
    settings: KubeEdge,
    config: &Config,
    broker: &Arc<Broker>,
    devices: watch::Receiver<Vec<Arc<Device>>>,
    clock: Clock,
    stop: CancellationToken,
) -> Window {
    let (requests, queue) = mpsc::channel(QUEUE_REQUESTS);
    // `admin`, because the twins answer on a topic of this room's choice.
    let bus = broker.attach(CLIENT, "admin");
    let service = service::Service::new(settings, config.twin.root.clone(), broker.clone(), devices, clock);
    tokio::spawn(service.run(bus, queue, stop));
    Window::new(requests)
}
