//! Everything that is retained, for a part of the gateway that has to know it before it begins.
//!
//! In: a bus, filters. Out: the messages that are retained under them, and whatever was said meanwhile. Must never take the
//! hand-over for finished before it is: what is live overtakes what is retained, so a marker alone ends nothing.

use std::time::Duration;

use mappers::bus::{Bus, Incoming, Message, Outgoing};

use super::Broker;

/// From one look whether the hand-over is finished to the next.
const LOOK: Duration = Duration::from_millis(5);

impl Broker {
    /// Subscribes a client of [`Broker::attach`] to filters, and waits until all that is retained under them was handed over:
    /// those messages in their order, among them what was said meanwhile. `None` when the bus has ended.
    ///
    /// Markers are published below `place`, which has to be the caller's own.
    pub async fn hear_all(&self, client: &str, bus: &mut Bus, place: &str, filters: &[String]) -> Option<Vec<Message>> {
        let marker = format!("{place}/{}", uuid::Uuid::new_v4());
        for filter in filters.iter().chain([&marker]) {
            bus.out.send(Outgoing::Subscribe(filter.clone())).await.ok()?;
        }
        let mut heard = Vec::new();
        // The first comes when the subscriptions are made, the second behind the last that was handed over.
        mark(bus, &marker, &mut heard).await?;
        while !self.pulse(client)?.is_caught_up {
            if let Ok(incoming) = tokio::time::timeout(LOOK, bus.incoming.recv()).await {
                heard.extend(message(incoming?));
            }
        }
        mark(bus, &marker, &mut heard).await?;
        bus.out.send(Outgoing::Unsubscribe(marker)).await.ok()?;
        Some(heard)
    }
}

/// Publishes a marker, and hears all that comes before it.
async fn mark(bus: &mut Bus, marker: &str, heard: &mut Vec<Message>) -> Option<()> {
    let own = Message { topic: marker.to_owned(), ..Message::default() };
    bus.out.send(Outgoing::Publish(own)).await.ok()?;
    loop {
        match message(bus.incoming.recv().await?) {
            Some(message) if message.topic == marker => return Some(()),
            other => heard.extend(other),
        }
    }
}

fn message(incoming: Incoming) -> Option<Message> {
    match incoming {
        Incoming::Message(message) => Some(message),
        _ => None,
    }
}
