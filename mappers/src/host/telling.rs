//! What a host says on the bus.
//!
//! In: readings, how devices and the wire are, what came of wishes, what the port has to remember. Out: messages. Must never
//! take for said what the bus had no room for: it is owed, and said later in its newest form.

use std::collections::{BTreeMap, HashMap};

use protocols::message::{DesiredAck, DeviceState, DeviceStatus};
use protocols::poll::Health;
use protocols::value::{Now, Reading};
use tokio::sync::oneshot;

use super::Host;
use super::desired::Ack;
use crate::port::Port;

impl<P: Port> Host<P> {
    /// How the wire is, when it is time to say so.
    pub(super) fn tell_wire(&mut self) {
        let Some(status) = self.link.status(self.port.counters(), self.clock.now()) else { return };
        if !self.voice.retained(self.status_topic.clone(), &status) {
            self.link.unsaid();
        }
    }

    /// Has the broker keep what the port has to remember; what the bus did not take is said the next time.
    pub(super) fn tell_memory(&mut self) {
        if let Some(memory) = self.port.memory() {
            self.memory = Some(memory);
            self.owes_memory = true;
        }
        if let Some(memory) = self.memory.as_ref().filter(|_| self.owes_memory) {
            self.owes_memory = !self.voice.retained(self.memory_topic.clone(), memory);
        }
    }

    /// Sends everything again that the other side may have missed.
    pub(super) fn tell_all(&mut self, device: usize, now: Now) {
        let Some(unit) = self.unit_mut(device) else { return };
        let readings = unit.everything(now);
        self.send_status(device);
        self.report(device, readings, now);
    }

    pub(super) fn report(&mut self, device: usize, readings: Vec<(usize, Reading)>, now: Now) {
        let Some(unit) = self.units.get_mut(device).and_then(Option::as_mut) else { return };
        if !readings.is_empty() {
            let payload = unit.message(&readings, now);
            unit.owes |= !self.voice.reported(&unit.device.id, payload);
        }
        // A stale value makes the device stale; a fresh one makes it whole again.
        if self.poll.health(device) == Health::Online {
            let (state, reason) = if unit.report.is_stale() {
                (DeviceState::Stale, Some("values are older than they may be".to_owned()))
            } else {
                (DeviceState::Online, None)
            };
            self.tell_status(device, state, reason);
        }
    }

    pub(super) fn tell_status(&mut self, device: usize, state: DeviceState, reason: Option<String>) {
        let Some(unit) = self.units.get_mut(device).and_then(Option::as_mut) else { return };
        let news = (state, reason);
        if unit.status.as_ref() == Some(&news) {
            return;
        }
        let changed = unit.status.as_ref().is_none_or(|(old, _)| *old != news.0);
        if changed && news.0 == DeviceState::Offline {
            tracing::warn!(connection = %self.name, device = %unit.device.id, error = news.1, "offline");
        } else if changed {
            tracing::info!(connection = %self.name, device = %unit.device.id, state = ?news.0, "state");
        }
        unit.status = Some(news);
        self.send_status(device);
    }

    pub(super) fn send_status(&mut self, device: usize) {
        let since = self.clock.now().wall;
        let Some(unit) = self.units.get_mut(device).and_then(Option::as_mut) else { return };
        let Some((state, reason)) = unit.status.clone() else { return };
        let status = DeviceStatus { state, since: Some(since), reason };
        unit.owes |= !self.voice.status(&unit.device.id, &status);
    }

    pub(super) fn acknowledge(&mut self, device: usize, acks: Vec<Ack>) {
        let mut by_version: HashMap<u64, (Vec<usize>, DesiredAck)> = HashMap::new();
        let Some(unit) = self.unit(device) else { return };
        for (index, version, result) in acks {
            let Some(property) = unit.property(index) else { continue };
            let entry = by_version
                .entry(version)
                .or_insert_with(|| (Vec::new(), DesiredAck { version, results: BTreeMap::new() }));
            entry.0.push(index);
            entry.1.results.insert(property.name.clone(), result);
        }
        let id = unit.device.id.clone();
        for (version, (properties, ack)) in by_version {
            let stored = self.voice.ack(&id, &ack);
            self.acks.push((device, version, properties, stored));
        }
    }

    pub(super) fn settle_acks(&mut self, now: u64) {
        if self.acks.is_empty() {
            return;
        }
        let mut told = Vec::new();
        self.acks.retain_mut(|(device, version, properties, stored)| {
            let stored = match stored.try_recv() {
                Ok(stored) => stored,
                Err(oneshot::error::TryRecvError::Closed) => false,
                Err(oneshot::error::TryRecvError::Empty) => return true,
            };
            told.push((*device, *version, std::mem::take(properties), stored));
            false
        });
        for (device, version, properties, stored) in told {
            let Some(unit) = self.unit_mut(device) else { continue };
            for property in properties {
                unit.wishes.on_ack_stored(property, version, stored, now);
            }
            unit.replan();
        }
    }
}
