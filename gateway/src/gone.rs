//! Mappers in other processes that leave without a word: their devices are said to be offline.
//!
//! In: `gateway/connection/+/status` with a mapper's last will. Out: `twin/D/status/set` for each device of that wire, as
//! the mapper would have said it. Must never act on what the broker kept from before: the mapper may be back since.

use std::sync::Arc;

use mappers::bus::{Bus, Incoming, Message, Outgoing};
use protocols::config::Device;
use protocols::message::{MAPPER_GONE, WireStatus};
use protocols::topic;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Watches until `stop`, or until the broker ends. `devices` are those of the configuration in force.
pub(crate) async fn watch(
    mut bus: Bus,
    root: String,
    devices: watch::Receiver<Vec<Arc<Device>>>,
    stop: CancellationToken,
) {
    if bus.out.send(Outgoing::Subscribe(topic::connection_status("+"))).await.is_err() {
        return;
    }
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => return,
            incoming = bus.incoming.recv() => incoming,
        };
        let message = match incoming {
            Some(Incoming::Message(message)) if !message.retain => message,
            Some(_) => continue,
            None => return,
        };
        let Some(connection) = wire_left(&message) else { continue };
        tracing::warn!(connection, "the mapper is gone; its devices are offline");
        let served: Vec<Arc<Device>> =
            devices.borrow().iter().filter(|device| device.connection == connection).map(Arc::clone).collect();
        for device in served {
            let payload = json!({"state": "offline", "reason": MAPPER_GONE}).to_string().into();
            let word = Message { topic: format!("{root}/{}/status/set", device.id), payload, ..Message::default() };
            if bus.out.send(Outgoing::Publish(word)).await.is_err() {
                return;
            }
        }
    }
}

/// The connection whose mapper has left, if the message says so.
fn wire_left(message: &Message) -> Option<&str> {
    let connection = message.topic.strip_prefix("gateway/connection/")?.strip_suffix("/status")?;
    serde_json::from_slice::<WireStatus>(&message.payload).ok()?.is_gone().then_some(connection)
}
