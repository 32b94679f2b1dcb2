//! How a host speaks on the bus: topics and payloads, and what happens when the bus is full.
//!
//! In: readings, states, acknowledgements. Out: messages on a [`Bus`](crate::bus::Bus)'s way out. Must never wait:
//! polling goes on while a broker is slow, and what could not be sent is owed and healed later.

use std::collections::VecDeque;

use bytes::Bytes;
use protocols::message::{DesiredAck, DeviceStatus};
use protocols::name::DeviceId;
use protocols::topic::TwinTopic;
use serde::Serialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use crate::bus::{self, Message, Outgoing};

/// A host's voice.
pub(super) struct Voice {
    root: String,
    out: bus::Sender<Outgoing>,
    /// Messages that found the queue full.
    pub(super) dropped: u64,
    full: bool,
    /// Subscriptions that found the queue full, in their order: nothing heals one that was never made. Bounded by the
    /// wire's devices.
    owed: VecDeque<Outgoing>,
}

impl Voice {
    pub(super) fn new(root: String, out: bus::Sender<Outgoing>) -> Self {
        Self { root, out, dropped: 0, full: false, owed: VecDeque::new() }
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

    /// Whether at least so many messages wait in the queue.
    pub(super) fn is_behind(&self, messages: usize) -> bool {
        self.out.max_capacity() - self.out.capacity() >= messages
    }

    /// Whether the queue has no room now.
    pub(super) fn is_full(&self) -> bool {
        self.out.capacity() == 0
    }

    pub(super) fn subscribe(&mut self, filter: String) {
        self.owed.push_back(Outgoing::Subscribe(filter));
        self.catch_up();
    }

    pub(super) fn unsubscribe(&mut self, filter: String) {
        self.owed.push_back(Outgoing::Unsubscribe(filter));
        self.catch_up();
    }

    /// Makes the subscriptions there is room for; says whether some are left.
    pub(super) fn catch_up(&mut self) -> bool {
        while let Some(owed) = self.owed.pop_front() {
            match self.out.try_send(owed) {
                Ok(()) => {}
                Err(TrySendError::Full(owed)) => {
                    self.owed.push_front(owed);
                    return true;
                }
                // the host ends with its bus
                Err(TrySendError::Closed(_)) => self.owed.clear(),
            }
        }
        false
    }

    /// Says what was read: a `ReportedSet` on its topic, put together by hand since every poll comes through here.
    pub(super) fn reported(&mut self, device: &DeviceId, payload: Vec<u8>) -> bool {
        let topic = [&self.root, "/", device.as_str(), "/reported/set"].concat();
        self.say(Outgoing::Publish(Message { topic, payload: payload.into(), ..Message::default() }))
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
