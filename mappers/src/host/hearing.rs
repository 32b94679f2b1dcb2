//! What a host hears on the bus.
//!
//! In: deltas and desired values of its devices, requests of people, news of the link. Out: wishes, plans, answers. Must
//! never take a wish of one device for another's, nor let a payload that cannot be read stop it.

use std::sync::Arc;

use protocols::message::{Delta, DesiredAck, DesiredOut, DesiredState};
use protocols::poll::Health;
use protocols::topic::TwinTopic;
use protocols::value::Value;
use tokio::sync::mpsc::error::TryRecvError;

use super::Host;
use super::desired::is_kept;
use crate::bus::{Incoming, Message};
use crate::port::Port;

/// Messages taken from the bus in one go; more wait until after the next transaction.
const INCOMING_AT_ONCE: usize = 1_024;

impl<P: Port> Host<P> {
    /// Takes in what has come.
    pub(super) fn hear(&mut self) {
        for _ in 0..INCOMING_AT_ONCE {
            match self.incoming.try_recv() {
                Ok(incoming) => self.on_incoming(incoming),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.listening = false;
                    return;
                }
            }
        }
    }

    pub(super) fn on_incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message) if message.topic == self.request_topic => self.on_request(message),
            Incoming::Message(message) if message.topic == self.memory_topic => {
                // What the broker kept; what is said there now is our own, or somebody's who wants us to forget.
                if message.retain
                    && let Ok(memory) = serde_json::from_slice(&message.payload)
                {
                    self.port.remember(&memory);
                }
            }
            Incoming::Message(message) => self.on_twin(&message),
            Incoming::Up => {
                let now = self.clock.now();
                self.link.forget();
                self.tell_wire();
                self.owes_memory = true;
                self.tell_memory();
                for device in 0..self.units.len() {
                    self.tell_all(device, now);
                }
            }
            Incoming::Down => {}
        }
    }

    fn on_twin(&mut self, message: &Message) {
        match TwinTopic::parse(self.voice.root(), &message.topic) {
            Some(TwinTopic::Delta(device)) if !message.payload.is_empty() => {
                match (self.by_id.get(device.as_str()), serde_json::from_slice(&message.payload)) {
                    (Some(number), Ok(delta)) => self.on_delta(*number, &delta),
                    (Some(_), Err(error)) => {
                        tracing::warn!(connection = %self.name, topic = %message.topic, %error, "cannot be read");
                    }
                    (None, _) => {}
                }
            }
            Some(TwinTopic::Desired(device, property)) => {
                if let Some(number) = self.by_id.get(device.as_str()) {
                    self.on_desired(*number, property.as_str(), message);
                }
            }
            _ => {}
        }
    }

    fn on_delta(&mut self, device: usize, delta: &Delta) {
        let now = self.clock.tick();
        let away = self.poll.health(device) == Health::Offline;
        let Some(unit) = self.unit_mut(device) else { return };
        let profile = Arc::clone(&unit.device.profile);
        let refused = unit.wishes.on_delta(delta, &profile, now);
        let acks = if away { unit.wishes.on_away(now) } else { Vec::new() };
        unit.replan();
        if !refused.is_empty() {
            let id = unit.device.id.clone();
            let results = refused.into_iter().filter_map(|(name, result)| Some((name.parse().ok()?, result)));
            // Nobody waits for it: a delta that still shows it is refused again.
            drop(self.voice.ack(&id, &DesiredAck { version: delta.version, results: results.collect() }));
        }
        self.acknowledge(device, acks);
        self.plan_writes(device);
    }

    fn on_desired(&mut self, device: usize, name: &str, message: &Message) {
        let now = self.clock.tick();
        let Some(unit) = self.unit_mut(device) else { return };
        let profile = Arc::clone(&unit.device.profile);
        let Some(index) = profile.find(name) else { return };
        let Some(property) = profile.properties.get(index).filter(|property| is_kept(property)) else { return };
        match serde_json::from_slice::<DesiredOut>(&message.payload) {
            Ok(desired) if desired.state == DesiredState::Applied => {
                let applied: (Value, u64) = (desired.value, desired.version);
                unit.wishes.on_applied(index, property, applied, message.retain, now);
            }
            _ => unit.wishes.on_not_applied(index),
        }
        self.plan_writes(device);
    }
}
