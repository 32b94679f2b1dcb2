//! How a host speaks on the bus: topics and payloads, and what happens when the bus is full.
//!
//! In: readings, states, acknowledgements. Out: messages on a [`Bus`](crate::bus::Bus)'s way out. Must never wait:
//! polling goes on while a broker is slow, and what could not be sent is owed and healed later.

use bytes::Bytes;
use protocols::message::{DesiredAck, DeviceStatus, ReportedSet};
use protocols::name::DeviceId;
use protocols::topic::TwinTopic;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::bus::{Message, Outgoing};

/// A host's voice.
pub(super) struct Voice {
    root: String,
    out: mpsc::Sender<Outgoing>,
    /// Messages that found the queue full.
    pub(super) dropped: u64,
    full: bool,
}

impl Voice {
    pub(super) fn new(root: String, out: mpsc::Sender<Outgoing>) -> Self {
        Self { root, out, dropped: 0, full: false }
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// Hands a message over without waiting; `false` when the queue is full or the bus is gone.
    fn say(&mut self, outgoing: Outgoing) -> bool {
        let said = self.out.try_send(outgoing).is_ok();
        if !said {
            self.dropped += 1;
        }
        if said == self.full {
            self.full = !said;
            if self.full {
                tracing::warn!(topic = %self.root, "the bus is full; what it misses is sent again later");
            }
        }
        said
    }

    /// Whether the queue has no room now.
    pub(super) fn is_full(&self) -> bool {
        self.out.capacity() == 0
    }

    pub(super) fn subscribe(&mut self, filter: String) -> bool {
        self.say(Outgoing::Subscribe(filter))
    }

    pub(super) fn unsubscribe(&mut self, filter: String) -> bool {
        self.say(Outgoing::Unsubscribe(filter))
    }

    pub(super) fn reported(&mut self, device: &DeviceId, set: &ReportedSet) -> bool {
        let topic = TwinTopic::ReportedSet(device.clone()).under(&self.root);
        self.say(Outgoing::Publish(message(topic, set, false)))
    }

    pub(super) fn status(&mut self, device: &DeviceId, status: &DeviceStatus) -> bool {
        let topic = TwinTopic::StatusSet(device.clone()).under(&self.root);
        self.say(Outgoing::Publish(message(topic, status, false)))
    }

    /// Sends an acknowledgement; the receiver tells whether it was stored.
    pub(super) fn ack(&mut self, device: &DeviceId, ack: &DesiredAck) -> oneshot::Receiver<bool> {
        let (told, stored) = oneshot::channel();
        let topic = TwinTopic::DesiredAck(device.clone()).under(&self.root);
        // A full queue drops `told`, which reads as "not stored": it is sent again.
        self.say(Outgoing::PublishAcknowledged(message(topic, ack, false), told));
        stored
    }

    pub(super) fn retained(&mut self, topic: String, payload: &impl Serialize) -> bool {
        self.say(Outgoing::Publish(message(topic, payload, true)))
    }

    pub(super) fn answer(&mut self, topic: String, correlation: Option<Bytes>, payload: &impl Serialize) -> bool {
        self.say(Outgoing::Publish(Message { correlation, ..message(topic, payload, false) }))
    }
}

fn message(topic: String, payload: &impl Serialize, retain: bool) -> Message {
    // The payload types hold nothing that JSON cannot say: their keys are strings and their numbers finite.
    let payload = serde_json::to_vec(payload).unwrap_or_default().into();
    Message { topic, payload, retain, ..Message::default() }
}
