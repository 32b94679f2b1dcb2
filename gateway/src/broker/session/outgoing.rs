//! From a session's queues to its client: what is sent next, what is on its way, what was acknowledged.
//!
//! In: room, and the client's word. Out: [`Sendable`]s. Must never send more than the client's receive maximum, nor a
//! message of a lower number before one that was sent already and has to be sent again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Effects, Expecting, Flight, Measure, Sendable, Session, Subscription, Waiting};
use crate::broker::codec::write::Delivery;
use crate::broker::codec::{AckKind, V5};
use crate::broker::filter::{self, Filter};
use crate::broker::retained::{Retained, Step};

/// What one go may fill.
struct Load<'a> {
    version: u8,
    window: usize,
    packet_bytes: usize,
    local: bool,
    budget_bytes: usize,
    spent_bytes: usize,
    out: &'a mut Vec<Sendable>,
}

impl Load<'_> {
    fn is_full(&self) -> bool {
        self.spent_bytes >= self.budget_bytes
    }
}

impl Session {
    /// Fills `out` with what may be sent now, up to `budget_bytes`. Tells whether there is more.
    pub(in crate::broker) fn take(
        &mut self,
        budget_bytes: usize,
        out: &mut Vec<Sendable>,
        retained: &Retained,
        measure: &Measure,
        fx: &mut Effects,
    ) -> bool {
        let Some(connected) = &self.connected else { return false };
        connected.door.mail.store(false, Ordering::Release);
        let mut load = Load {
            version: connected.version,
            window: usize::from(connected.window),
            packet_bytes: connected.packet_bytes as usize,
            local: connected.local,
            budget_bytes,
            spent_bytes: 0,
            out,
        };
        self.resend(&mut load, measure.now_ms);
        while !load.is_full() {
            let room = load.local || self.flights.len() < load.window;
            let high = self.qos12.front().filter(|_| room && self.unsent == 0).map(|one| one.order);
            let low = self.qos0.front().map(|one| one.order);
            let waiting = match (high, low) {
                (Some(high), Some(low)) if low < high => self.qos0.pop_front(),
                (Some(_), _) if self.is_free() => self.qos12.pop_front(),
                (_, Some(_)) => self.qos0.pop_front(),
                _ => None,
            };
            let Some(waiting) = waiting else { break };
            self.queued_bytes -= waiting.message.weight_bytes().min(self.queued_bytes);
            self.launch(waiting, &mut load, measure, fx);
        }
        self.unpress(measure);
        let full = load.is_full();
        // live messages never use up what is left for retained ones
        load.budget_bytes = 2 * budget_bytes;
        let more = self.take_retained(&mut load, retained, measure, fx) || full;
        self.make_up_for(retained) || more
    }

    /// A mapper that missed messages goes over what is retained under its filters once more: of a delta that was given up
    /// nobody would tell it again, and the wish in it would wait for ever.
    fn make_up_for(&mut self, retained: &Retained) -> bool {
        if !self.missed || !self.qos0.is_empty() || !self.qos12.is_empty() || !self.cursors.is_empty() {
            return false;
        }
        self.missed = false;
        for (text, subscription) in &self.subscriptions {
            if let Some(Filter { share: None, filter }) = filter::parse(text) {
                let Subscription { options, id } = *subscription;
                self.cursors.push_back(retained.cursor(filter, options, id, self.lost));
            }
        }
        true
    }

    /// Whether the packet identifier that comes next is free: it follows from the number, so that a message keeps its
    /// identifier over a restart of the broker. Only after 65,535 messages around one unanswered it is not.
    fn is_free(&self) -> bool {
        let Some(next) = self.qos12.front() else { return false };
        let id = packet_id(next.number);
        !self.flights.iter().any(|flight| flight.id == id)
    }

    fn resend(&mut self, load: &mut Load<'_>, now_ms: i64) {
        if self.unsent == 0 {
            return;
        }
        let room = load.window.saturating_sub(self.flights.len() - self.unsent);
        for flight in self.flights.iter_mut().filter(|flight| flight.unsent).take(room) {
            if load.is_full() {
                break;
            }
            flight.unsent = false;
            self.unsent -= 1;
            if flight.expecting == Expecting::Pubcomp {
                load.out.push(Sendable::Release { id: flight.id, reason: 0 });
                load.spent_bytes += 4;
            } else {
                load.spent_bytes += flight.waiting.message.weight_bytes();
                load.out.push(flight.waiting.publish(flight.id, flight.waiting.message.expiry_s(now_ms)));
            }
        }
    }

    /// Sends one message that was taken from a queue or a cursor, or gives it up.
    fn launch(&mut self, waiting: Waiting, load: &mut Load<'_>, measure: &Measure, fx: &mut Effects) {
        if waiting.message.is_expired(measure.now_ms) {
            measure.counters.dropped_expired.add(1);
            return self.forget(&waiting, false, fx);
        }
        let id = if waiting.qos > 0 && !load.local { packet_id(waiting.number) } else { 0 };
        let expiry_s = waiting.message.expiry_s(measure.now_ms);
        let length = Delivery {
            version: load.version,
            qos: waiting.qos,
            retain: waiting.retain,
            dup: false,
            id,
            subscription_ids: waiting.ids.as_deref().unwrap_or_default(),
            expiry_s,
            alias: None,
        }
        .length(&waiting.message);
        if length > load.packet_bytes {
            // as if it had been sent [MQTT-3.1.2-25]
            measure.counters.dropped_too_large.add(1);
            return self.forget(&waiting, false, fx);
        }
        load.spent_bytes += length;
        load.out.push(waiting.publish(id, expiry_s));
        if id > 0 {
            let expecting = if waiting.qos == 1 { Expecting::Puback } else { Expecting::Pubrec };
            self.flights.push_back(Flight { id, expecting, unsent: false, waiting });
        } else {
            self.forget(&waiting, false, fx);
        }
    }

    fn take_retained(&mut self, load: &mut Load<'_>, retained: &Retained, measure: &Measure, fx: &mut Effects) -> bool {
        while let Some(mut cursor) = self.cursors.pop_front() {
            let room = load.local || self.flights.len() < load.window;
            let free = !self.flights.iter().any(|flight| flight.id == packet_id(self.next_number));
            if load.is_full() || (cursor.options & 3 > 0 && !(room && free)) {
                let waits_for_client = !load.is_full();
                self.cursors.push_front(cursor);
                return !waits_for_client;
            }
            match retained.step(&mut cursor, self.lost, measure.now_ms) {
                Step::Message(message) => {
                    let mut waiting = Waiting::new(Arc::clone(&message), message.qos.min(cursor.options & 3), true);
                    waiting.ids = (cursor.id > 0).then(|| Box::from([cursor.id]));
                    if waiting.qos > 0 {
                        waiting.number = self.next_number;
                        self.next_number += 1;
                    }
                    self.cursors.push_front(cursor);
                    self.launch(waiting, load, measure, fx);
                }
                Step::Busy => {
                    self.cursors.push_back(cursor);
                    return true;
                }
                Step::End => {}
            }
        }
        false
    }

    /// The client's word on a message; may make something to send.
    pub(in crate::broker) fn on_ack(
        &mut self,
        kind: AckKind,
        id: u16,
        reason: u8,
        out: &mut Vec<Sendable>,
        fx: &mut Effects,
    ) {
        let found = self.flights.iter().position(|flight| flight.id == id);
        let expecting = found.and_then(|at| self.flights.get(at)).map(|flight| flight.expecting);
        match (kind, expecting) {
            (AckKind::Puback, Some(Expecting::Puback)) | (AckKind::Pubcomp, Some(Expecting::Pubcomp)) => {
                self.land(found, fx);
            }
            (AckKind::Pubrec, Some(Expecting::Pubrec)) if reason >= 0x80 => self.land(found, fx),
            (AckKind::Pubrec, Some(Expecting::Pubrec | Expecting::Pubcomp)) => {
                if let Some(flight) = found.and_then(|at| self.flights.get_mut(at)) {
                    flight.expecting = Expecting::Pubcomp;
                    if std::mem::take(&mut flight.unsent) {
                        self.unsent -= 1;
                    }
                }
                out.push(Sendable::Release { id, reason: 0 });
            }
            // a 3.1.1 client that asks for a PUBREL it needs to go on gets one; a version 5 client is told
            (AckKind::Pubrec, _) => out.push(Sendable::Release { id, reason: 0x92 }),
            _ => {}
        }
    }

    fn land(&mut self, at: Option<usize>, fx: &mut Effects) {
        if let Some(flight) = at.and_then(|at| self.flights.remove(at)) {
            if flight.unsent {
                self.unsent -= 1;
            }
            self.forget(&flight.waiting, false, fx);
        }
    }
}

impl Waiting {
    fn publish(&self, id: u16, expiry_s: Option<u32>) -> Sendable {
        Sendable::Publish {
            message: Arc::clone(&self.message),
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            id,
            ids: self.ids.clone(),
            expiry_s,
        }
    }
}

fn packet_id(number: u64) -> u16 {
    // 1..=65535: never 0, and the remainder always fits
    (number.wrapping_sub(1) % u64::from(u16::MAX)) as u16 + 1
}

/// The wire takes 0x92 only in version 5.
pub(in crate::broker) fn release_reason(version: u8, reason: u8) -> u8 {
    if version == V5 { reason } else { 0 }
}
