//! What comes in: the other side's messages, and its wishes on their way through the twins' door.
//!
//! In: messages of the link. Out: requests on the bus, answers for the other side, conflicts for everybody. Must never
//! acknowledge a wish before the twins have committed or refused it, and never tell of what the filter holds back.

use std::collections::BTreeMap;

use bytes::Bytes;
use mappers::bus::{Message as BusMessage, Outgoing};
use protocols::dialect::{Answer, CloudWish, Heard, Message, Reply};
use protocols::message::{DesiredOut, DesiredSet, Outcome};
use protocols::name::DeviceId;
use protocols::outbox::conflict::{self, ConflictRecord, Conflicts, Held, Wished};
use protocols::outbox::{Item, Slot};
use protocols::profile::Conflict;
use protocols::topic::TwinTopic;
use protocols::value::{Now, Value};

use super::task::{Asked, Pending, Task, Ticket};
use crate::broker::Own;

/// How long the twins may take for an answer before they are asked again, in milliseconds.
const ANSWER_WITHIN_MS: u64 = 5_000;
/// How often they are asked; then the wish is answered with 503.
const TRIES: u32 = 4;
/// Wishes that may be at the door at one time; one more is answered with 503.
const PENDING: usize = 1024;

impl Task {
    /// A message of the other side.
    pub(super) fn on_message(&mut self, message: &Message, packet: u16) {
        let now = self.now();
        self.standing.last_contact = Some(now.wall);
        let heard = self.dialect.hear(message, &self.site, now);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        // one more than there is, so that it is not given back before all was looked at
        self.tickets.insert(ticket, Ticket { generation: self.generation, packet, left: 1 });
        self.on_heard(heard, ticket, now);
        self.give_back(ticket);
    }

    /// What the other side means, in its order.
    pub(super) fn on_heard(&mut self, heard: Vec<Heard>, ticket: u64, now: Now) {
        for one in heard {
            match one {
                Heard::Wish(wish) => self.on_wish(wish, ticket, now),
                Heard::Ask { device, reply } => self.on_ask(device, reply, ticket, now),
                Heard::Settled { token, outcome } => {
                    if let Some(batch) = self.tokens.remove(&token) {
                        self.engine.settled(batch, outcome, now);
                    }
                }
                Heard::Resync(device) => self.engine.resync(device.as_ref(), now),
                Heard::Say(publish) => self.say_free(vec![publish]),
                Heard::Senseless(text) => self.senseless(text),
            }
        }
    }

    fn hold(&mut self, ticket: u64) {
        if let Some(ticket) = self.tickets.get_mut(&ticket) {
            ticket.left += 1;
        }
    }

    /// One thing of a message is settled; with the last one it is acknowledged, if its link is still there.
    fn give_back(&mut self, number: u64) {
        let Some(ticket) = self.tickets.get_mut(&number) else { return };
        ticket.left -= 1;
        if ticket.left > 0 {
            return;
        }
        if let Some(Ticket { generation, packet, .. }) = self.tickets.remove(&number)
            && generation == self.generation
            && let Some(link) = &mut self.link
        {
            link.ack(packet);
        }
    }

    fn on_wish(&mut self, wish: CloudWish, ticket: u64, now: Now) {
        self.standing.wishes += 1;
        let CloudWish { device, patch, id, if_version, ttl_s, at, by, reply } = wish;
        let refuse = |task: &mut Self, code, errors| {
            task.standing.refused += 1;
            let answer =
                Answer { device: device.clone(), id: id.clone(), result: Err((code, errors)), reply: reply.clone() };
            task.tell_answer(&answer, now);
        };
        if !self.knows(&device) {
            return refuse(self, 404, BTreeMap::from([(String::new(), format!("there is no device {device}"))]));
        }
        // what may not leave the site is not there for the other side
        let hidden: BTreeMap<String, String> = patch
            .keys()
            .filter(|name| !self.sieve.property(name))
            .map(|name| (name.clone(), "no such property".to_owned()))
            .collect();
        if !hidden.is_empty() {
            return refuse(self, 404, hidden);
        }
        if self.pending.len() >= PENDING {
            return refuse(self, 503, BTreeMap::from([(String::new(), "too many wishes at once".to_owned())]));
        }
        let by = conflict::author(&self.name, by.as_deref());
        let wished = Wished { patch: &patch, at, by: &by };
        let judged =
            conflict::judge(&wished, &self.name, |name| self.held(&device, name), |name| self.rule(&device, name), now);
        if !judged.records.is_empty() {
            self.tell_conflict(&device, &judged.records, now);
        }
        if judged.patch.is_empty() && !judged.kept.is_empty() {
            return refuse(self, 409, judged.kept);
        }
        let set = DesiredSet { id: id.clone(), patch: judged.patch, if_version, ttl_s, by: Some(by) };
        let payload = Bytes::from(serde_json::to_vec(&set).expect("a patch of JSON values is JSON"));
        let topic = TwinTopic::DesiredSet(device.clone()).under(&self.site.root);
        self.hold(ticket);
        self.ask(Pending {
            ticket: Some(ticket),
            device,
            what: Asked::Wish { id, reply, kept: judged.kept },
            request: (topic, payload),
            due: now.tick,
            tries: 0,
        });
    }

    fn on_ask(&mut self, device: DeviceId, reply: Reply, ticket: u64, now: Now) {
        if !self.knows(&device) {
            let result = Err((404, BTreeMap::from([(String::new(), format!("there is no device {device}"))])));
            return self.tell_answer(&Answer { device, id: None, result, reply }, now);
        }
        let topic = TwinTopic::Get(device.clone()).under(&self.site.root);
        self.hold(ticket);
        self.ask(Pending {
            ticket: Some(ticket),
            device,
            what: Asked::Document(reply),
            request: (topic, Bytes::new()),
            due: now.tick,
            tries: 0,
        });
    }

    fn ask(&mut self, pending: Pending) {
        let number = self.next_pending;
        self.next_pending += 1;
        self.pending.insert(number, pending);
    }

    /// Sends requests to the twins, and again those that were not answered.
    pub(super) fn knock(&mut self, now: Now) {
        let due: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| pending.due <= now.tick).map(|(number, _)| *number).collect();
        for number in due {
            let Some(pending) = self.pending.get_mut(&number) else { continue };
            if pending.tries >= TRIES {
                let outcome = Outcome {
                    id: None,
                    ok: false,
                    version: None,
                    code: Some(503),
                    errors: BTreeMap::from([(String::new(), "the twins do not answer".to_owned())]),
                };
                let payload = serde_json::to_vec(&outcome).expect("an outcome is JSON");
                self.on_answer(number, &payload);
                continue;
            }
            let (topic, payload) = pending.request.clone();
            let message = BusMessage {
                topic,
                payload,
                retain: false,
                response_topic: Some(format!("{}/result", self.answers)),
                correlation: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
            };
            if self.bus.out.try_send(Outgoing::Publish(message)).is_err() {
                // the queue to the broker is short; the rest goes with the next turn
                pending.due = now.tick + 1;
                return;
            }
            pending.tries += 1;
            pending.due = now.tick + ANSWER_WITHIN_MS;
        }
    }

    /// The twins have answered.
    pub(super) fn on_answer(&mut self, number: u64, payload: &[u8]) {
        let Some(Pending { ticket, device, what, .. }) = self.pending.remove(&number) else { return };
        let now = self.now();
        match what {
            Asked::Wish { id, reply, kept } => {
                let result = match serde_json::from_slice::<Outcome>(payload) {
                    Ok(Outcome { ok: true, version, .. }) if kept.is_empty() => Ok(version.unwrap_or(0)),
                    Ok(Outcome { ok: true, .. }) => Err((409, kept)),
                    Ok(outcome) => Err((outcome.code.unwrap_or(500), outcome.errors)),
                    Err(error) => Err((500, BTreeMap::from([(String::new(), error.to_string())]))),
                };
                self.standing.refused += u64::from(result.is_err());
                self.tell_answer(&Answer { device, id, result, reply }, now);
            }
            Asked::Document(reply) => {
                if let Some(document) = self.sieve.rewrite(Some(&Item::Document), payload) {
                    let publishes = self.dialect.document(&device, &document, &reply, &self.site, now);
                    self.say_free(publishes);
                }
            }
        }
        if let Some(ticket) = ticket {
            self.give_back(ticket);
        }
    }

    fn tell_answer(&mut self, answer: &Answer, now: Now) {
        let publishes = self.dialect.answered(answer, &self.site, now);
        if self.is_up() {
            self.say_free(publishes);
        }
    }

    /// What is desired here and not yet known there.
    fn held(&self, device: &DeviceId, name: &str) -> Option<Held> {
        let slot = Slot::Device(device.clone(), Item::Desired(name.parse().ok()?));
        if !self.engine.is_dirty(&slot) {
            return None;
        }
        match self.engine.content(&slot) {
            Some(content) => {
                let DesiredOut { value, by, at, version, .. } = serde_json::from_slice(content).ok()?;
                Some(Held { value, by, at, version })
            }
            None => Some(Held { value: Value::Null, by: String::new(), at: self.now().wall, version: 0 }),
        }
    }

    fn rule(&self, device: &DeviceId, name: &str) -> Conflict {
        let profile = self.site.devices.get(device);
        let property = profile.and_then(|profile| profile.properties.get(profile.find(name)?));
        property.map_or(Conflict::default(), |property| property.conflict)
    }

    /// The loser is told: what is retained, an event, a counter.
    fn tell_conflict(&mut self, device: &DeviceId, records: &[ConflictRecord], now: Now) {
        self.standing.conflicts += records.len() as u64;
        for record in records {
            tracing::warn!(upstream = %self.name, %device, ?record, "two writers wanted different values");
        }
        let mut conflicts = self.conflicts.get(device).cloned().unwrap_or_default();
        conflicts.add(records);
        let payload = serde_json::to_vec(&conflicts).expect("records of JSON values are JSON");
        self.conflicts.insert(device.clone(), conflicts);
        let topic = TwinTopic::Conflict(device.clone()).under(&self.site.root);
        self.own(Own { topic, payload: payload.into(), qos: 1, retain: true, kept: true, ..Own::default() });
        let version = self.desired_versions.get(device).copied().unwrap_or(0);
        let event = conflict::event(&self.site.epoch, version, records, now.wall);
        let topic = TwinTopic::Event(device.clone()).under(&self.site.root);
        self.own(Own { topic, payload: event.into(), qos: 1, ..Own::default() });
    }

    /// Keeps the conflicts and the version that the gateway tells of, for the next one.
    pub(super) fn note(&mut self, slot: &Slot, payload: &[u8]) {
        match slot {
            Slot::Device(device, Item::Conflict) if payload.is_empty() => drop(self.conflicts.remove(device)),
            Slot::Device(device, Item::Conflict) => {
                drop(self.conflicts.insert(device.clone(), Conflicts::read(payload)))
            }
            Slot::Device(device, Item::Desired(_)) => {
                if let Ok(DesiredOut { version, .. }) = serde_json::from_slice(payload) {
                    let held = self.desired_versions.entry(device.clone()).or_default();
                    *held = version.max(*held);
                }
            }
            _ => {}
        }
    }
}
