//! A client that is in: its packets become changes of the engine, the engine's messages become packets.
//!
//! In: bytes, at packet borders. Out: bytes. Must never act on half a packet, answer a publish before its time, or let
//! one client's mistake touch another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::access::Access;
use super::codec::write::{self, Alias, Delivery, Reader};
use super::codec::{AckKind, Fault, Packet, Publish, V5, decode, frame};
use super::core::{Core, Hold};
use super::desk::{Answer, Request};
use super::inbound::{Begin, Door, Inbound, Outcome, Reply};
use super::message::Message;
use super::session::{Effects, Sendable, release_reason};
use super::shared::{Promise, Route, Shared, author, outcome, stamp};
use super::shelf::Change;

/// Topic aliases a version 5 client may define; each remembers one topic.
pub(super) const ALIASES_IN: u16 = 32;
/// Topic aliases the broker defines towards a client at most; each remembers one topic.
pub(super) const ALIASES_OUT: u16 = 64;

/// What most PUBLISH packets have besides topic, properties and payload, at most.
const HEAD_BYTES: usize = 16;

/// Packets carried out in one go: so much can still arrive from every publisher when a reader asks for a moment.
const TURN_PACKETS: usize = 32;

/// See the module.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) id: Arc<str>,
    pub(super) hold: Hold,
    pub(super) serial: u64,
    pub(super) door: Arc<Door>,
    pub(super) inbound: Arc<Inbound>,
    pub(super) access: Arc<Access>,
    pub(super) reader: Reader,
    pub(super) keep_alive_s: u16,
    pub(super) expiry_s: u32,
    pub(super) aliases_in: Vec<Option<Box<str>>>,
    pub(super) aliases_out: HashMap<Box<[u8]>, u16>,
    pub(super) aliases_out_max: u16,
    /// Packet identifiers of QoS 2 publishes that the desk has, to be remembered once it accepted.
    pub(super) with_desk: Vec<u16>,
    /// A refused publish of a 3.1.1 client was logged.
    pub(super) refusal_logged: bool,
}

/// How a connection ends.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// MQTT 5 reason code.
    pub(super) reason: u8,
    pub(super) text: &'static str,
    /// A DISCONNECT is sent to version 5 clients.
    pub(super) say: bool,
    pub(super) will: bool,
    pub(super) expiry_s: Option<u32>,
}

impl Ending {
    pub(super) fn lost(text: &'static str) -> Self {
        Self { reason: 0x80, text, say: false, will: true, expiry_s: None }
    }

    pub(super) fn by_server(reason: u8) -> Self {
        let text = match reason {
            0x8e => "another connection took the session over",
            0x8b => "the gateway stops",
            _ => "the gateway ends the connection",
        };
        Self { reason, say: true, ..Self::lost(text) }
    }

    fn fault(fault: Fault) -> Self {
        Self { reason: fault.reason, say: true, ..Self::lost(fault.text) }
    }
}

/// What became of some bytes.
pub(super) struct Digested {
    /// Bytes that are done with.
    pub(super) bytes: usize,
    pub(super) ending: Option<Ending>,
    /// There may be another complete packet in the bytes that are left.
    pub(super) unfinished: bool,
    /// More waits to be taken.
    pub(super) more: bool,
    /// A reader that falls behind.
    pub(super) relief: Option<Arc<Door>>,
}

enum Op {
    Publish { message: Message, slot: Option<u64>, received: Option<u16> },
    Subscribe { id: u16, subscription_id: u32, filters: Vec<(String, u8)> },
    Unsubscribe { id: u16, filters: Vec<String> },
    Ack { kind: AckKind, id: u16, reason: u8 },
    Release { id: u16 },
}

impl Client {
    /// One and a half times the keep-alive [MQTT-3.1.2-22]; `None` without one.
    pub(super) fn patience(&self) -> Option<Duration> {
        (self.keep_alive_s > 0).then(|| Duration::from_millis(u64::from(self.keep_alive_s) * 1500))
    }

    /// Whether more may be read: a client without flow control waits while too much is unanswered.
    pub(super) fn may_read(&self) -> bool {
        self.inbound.has_room()
    }

    /// Appends a DISCONNECT, which only version 5 has.
    pub(super) fn say_disconnect(&self, ending: &Ending, out: &mut Vec<u8>) {
        if self.reader.version == V5 {
            write::disconnect(out, self.reader, ending.reason, ending.text);
        }
    }

    /// Takes in complete packets, a bounded number at a time. Up to `budget_bytes` of what waits for the client is taken in the same go.
    pub(super) fn digest(&mut self, bytes: &[u8], budget_bytes: usize, out: &mut Vec<u8>) -> Digested {
        let mut ops = Vec::new();
        let mut done = 0;
        let mut ending = None;
        let now_ms = self.shared.clock.now_ms();
        while ending.is_none() && ops.len() < TURN_PACKETS {
            let rest = bytes.get(done..).unwrap_or_default();
            match frame(rest, self.shared.limits.packet_bytes) {
                Ok(Some(frame)) if frame.end <= rest.len() => {
                    done += frame.end;
                    let body = rest.get(frame.body..frame.end).unwrap_or_default();
                    let result = decode(frame.first, body, self.reader.version).map_err(Ending::fault);
                    ending = result.and_then(|packet| self.on_packet(packet, now_ms, &mut ops, out)).err();
                }
                Ok(_) => break,
                Err(fault) => ending = Some(Ending::fault(fault)),
            }
        }
        self.shared.counters.bytes_in.add(done as u64);
        let unfinished = ops.len() >= TURN_PACKETS;
        let (more, relief) = self.carry_out(ops, budget_bytes, out);
        Digested { bytes: done, ending, unfinished, more, relief }
    }

    fn on_packet(
        &mut self,
        packet: Packet<'_>,
        now_ms: i64,
        ops: &mut Vec<Op>,
        out: &mut Vec<u8>,
    ) -> Result<(), Ending> {
        match packet {
            Packet::Publish(publish) => return self.on_publish(publish, now_ms, ops),
            Packet::Ack { kind: AckKind::Pubrel, id, .. } => ops.push(Op::Release { id }),
            Packet::Ack { kind, id, reason } => ops.push(Op::Ack { kind, id, reason }),
            Packet::Subscribe { id, subscription_id, filters } => ops.push(Op::Subscribe {
                id,
                subscription_id: subscription_id.unwrap_or(0),
                filters: filters.into_iter().map(|(filter, options)| (filter.to_owned(), options)).collect(),
            }),
            Packet::Unsubscribe { id, filters } => {
                ops.push(Op::Unsubscribe { id, filters: filters.into_iter().map(str::to_owned).collect() });
            }
            Packet::Ping => out.extend_from_slice(&[0xd0, 0]),
            Packet::Disconnect { reason, expiry_s } => {
                if self.expiry_s == 0 && expiry_s.is_some_and(|seconds| seconds > 0) {
                    return Err(Ending::fault(Fault::protocol("a session without expiry cannot get one at its end")));
                }
                return Err(Ending { reason, text: "by the client", say: false, will: reason != 0, expiry_s });
            }
        }
        Ok(())
    }

    fn on_publish(&mut self, publish: Publish<'_>, now_ms: i64, ops: &mut Vec<Op>) -> Result<(), Ending> {
        let aliased = self.alias(&publish)?;
        let publish = match &aliased {
            Some(topic) => Publish { topic, ..publish },
            None => publish,
        };
        let begun = match publish.qos {
            0 => None,
            1 => Some(self.inbound.begin1(publish.id, self.reader.version == V5)),
            _ => Some(self.inbound.begin2(publish.id, self.reader.version == V5)),
        };
        let slot = match begun {
            None => None,
            Some(Begin::New(slot)) => Some(slot),
            Some(Begin::Again) => return Ok(()),
            Some(Begin::TooMany) => {
                return Err(Ending::fault(Fault { reason: 0x93, text: "more than the receive maximum is unanswered" }));
            }
        };
        match self.shared.route_of(publish.topic, &self.access) {
            Ok(Route::Engine) => {
                let mut message = Message::new(publish.topic, &publish.properties, publish.payload);
                message.qos = publish.qos;
                message.retain = publish.retain;
                message.author = self.serial;
                stamp(&mut message, now_ms, publish.expiry_s);
                ops.push(Op::Publish { message, slot, received: (publish.qos == 2).then_some(publish.id) });
            }
            Ok(Route::Desk) => self.ask_desk(&publish, slot),
            Err(text) => self.refuse(publish.topic, slot, Outcome { reason: 0x87, text: text.to_owned(), lost: false }),
        }
        Ok(())
    }

    /// Resolves and defines topic aliases.
    fn alias(&mut self, publish: &Publish<'_>) -> Result<Option<Box<str>>, Ending> {
        let Some(alias) = publish.alias else { return Ok(None) };
        if alias > ALIASES_IN {
            return Err(Ending::fault(Fault { reason: 0x94, text: "a topic alias above the maximum" }));
        }
        let at = usize::from(alias) - 1;
        if self.aliases_in.len() <= at {
            self.aliases_in.resize(at + 1, None);
        }
        let place = self.aliases_in.get_mut(at);
        if publish.topic.is_empty() {
            let known = place.and_then(|topic| topic.clone());
            return known.map(Some).ok_or(Ending::fault(Fault::protocol("a topic alias that was never defined")));
        }
        if let Some(place) = place {
            *place = Some(publish.topic.into());
        }
        Ok(None)
    }

    fn ask_desk(&mut self, publish: &Publish<'_>, slot: Option<u64>) {
        self.shared.counters.messages_in.add(1);
        if publish.qos == 2 {
            self.with_desk.push(publish.id);
        }
        let inbound = Arc::clone(&self.inbound);
        let counters = Arc::clone(&self.shared.counters);
        let answer = Answer::new(move |verdict| {
            let outcome = outcome(verdict);
            if outcome.reason >= 0x80 {
                counters.refused_publishes.add(1);
            }
            if outcome.lost {
                counters.faults.add(1);
            }
            if let Some(slot) = slot {
                inbound.settle(slot, &outcome);
            }
        });
        self.shared.desk.take(Request {
            author: author(&self.id, &self.access),
            topic: publish.topic.to_owned(),
            payload: bytes::Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            response_topic: publish.response_topic.map(str::to_owned),
            correlation: publish.correlation.map(bytes::Bytes::copy_from_slice),
            answer,
        });
    }

    fn refuse(&mut self, topic: &str, slot: Option<u64>, outcome: Outcome) {
        self.shared.counters.refused_publishes.add(1);
        self.log_refusal(topic, &outcome.text);
        if let Some(slot) = slot {
            self.inbound.overrule(&[slot], &outcome);
        }
    }

    fn log_refusal(&mut self, topic: &str, error: &str) {
        if !std::mem::replace(&mut self.refusal_logged, true) {
            tracing::warn!(client = %self.id, topic, error, "a publish is refused; further ones are only counted");
        }
    }

    /// Carries the changes out in one go under the engine's lock.
    fn carry_out(&mut self, ops: Vec<Op>, budget_bytes: usize, out: &mut Vec<u8>) -> (bool, Option<Arc<Door>>) {
        if ops.is_empty() {
            return (true, None);
        }
        let slots: Vec<u64> =
            ops.iter().filter_map(|op| if let Op::Publish { slot, .. } = op { *slot } else { None }).collect();
        let mut sendables = Vec::new();
        let mut full = Vec::new();
        let (hold, version, inbound) = (self.hold, self.reader.version, Arc::clone(&self.inbound));
        let promised = slots.clone();
        let acted = self.shared.act_then(
            |core, fx| {
                let (sendables, full) = (&mut sendables, &mut full);
                let mut turn = Turn { core, fx, hold, version, inbound: &inbound, sendables, full, out };
                ops.into_iter().for_each(|op| turn.perform(op));
                budget_bytes > 0 && turn.core.take(hold, budget_bytes, turn.sendables, turn.fx)
            },
            || Promise::new(Arc::clone(&self.inbound), promised).done(),
        );
        for slot in full {
            let text = "there is no room for one more retained message".to_owned();
            self.refuse("", slot, Outcome { reason: 0x97, text, lost: false });
        }
        if acted.value.is_none() {
            let text = "a fault inside the broker".to_owned();
            self.inbound.overrule(&slots, &Outcome { reason: 0x80, text, lost: true });
        } else if !acted.durable && !slots.is_empty() {
            self.inbound.settle_rest(&slots);
        }
        self.write(sendables, out);
        (acted.value.unwrap_or(true), acted.relief)
    }

    /// Appends the answers whose time has come.
    ///
    /// # Errors
    /// When a 3.1.1 client would have to be told that its message is lost: it has no words for that but a broken
    /// connection, after which it sends again.
    pub(super) fn answer(&mut self, out: &mut Vec<u8>) -> Result<(), Ending> {
        let mut replies = Vec::new();
        self.inbound.replies(&mut replies);
        for reply in replies {
            let Reply { kind, id, outcome, muted } = reply;
            if let Some(at) = self.with_desk.iter().position(|one| *one == id).filter(|_| kind == AckKind::Pubrec) {
                self.with_desk.swap_remove(at);
                if outcome.reason < 0x80 {
                    let hold = self.hold;
                    self.shared.act(|core, fx| core.remember(hold, |client| Change::Received(client, id), fx));
                }
            }
            if muted {
                continue;
            }
            if self.reader.version != V5 && outcome.lost {
                return Err(Ending::lost("a message could not be kept"));
            }
            if self.reader.version != V5 && outcome.reason >= 0x80 {
                self.log_refusal("", &outcome.text);
            }
            let reason = if self.reader.version == V5 { outcome.reason } else { 0 };
            write::ack(out, self.reader, kind, id, reason, &outcome.text);
        }
        Ok(())
    }

    /// Takes what waits, up to `budget_bytes`. Tells whether there is more.
    pub(super) fn collect(&mut self, budget_bytes: usize, out: &mut Vec<u8>) -> bool {
        let mut sendables = Vec::new();
        let hold = self.hold;
        let acted = self.shared.act(|core, fx| core.take(hold, budget_bytes, &mut sendables, fx));
        self.write(sendables, out);
        acted.value.unwrap_or(false)
    }

    fn write(&mut self, sendables: Vec<Sendable>, out: &mut Vec<u8>) {
        if sendables.is_empty() {
            return;
        }
        let length = |one: &Sendable| match one {
            Sendable::Publish { message, .. } => message.length_bytes() + HEAD_BYTES,
            Sendable::Release { .. } => 4,
        };
        out.reserve(sendables.iter().map(length).sum());
        let before = out.len();
        let mut messages = 0;
        for sendable in sendables {
            match sendable {
                Sendable::Publish { message, qos, retain, dup, id, ids, expiry_s } => {
                    messages += 1;
                    let mut delivery = Delivery {
                        version: self.reader.version,
                        qos,
                        retain,
                        dup,
                        id,
                        subscription_ids: ids.as_deref().unwrap_or_default(),
                        expiry_s,
                        alias: None,
                    };
                    self.choose_alias(&mut delivery, &message);
                    delivery.write(out, &message);
                }
                Sendable::Release { id, reason } => {
                    let reason = release_reason(self.reader.version, reason);
                    write::ack(out, self.reader, AckKind::Pubrel, id, reason, "");
                }
            }
        }
        self.shared.counters.messages_out.add(messages);
        self.shared.counters.bytes_out.add((out.len() - before) as u64);
    }

    /// The first topics of a connection get the aliases; others go by their names.
    fn choose_alias(&mut self, delivery: &mut Delivery<'_>, message: &Message) {
        if self.aliases_out_max == 0 {
            return;
        }
        if let Some(&number) = self.aliases_out.get(message.topic_bytes()) {
            delivery.alias = Some(Alias { number, known: true });
            return;
        }
        let number = self.aliases_out.len() as u16 + 1;
        if number > self.aliases_out_max {
            return;
        }
        delivery.alias = Some(Alias { number, known: false });
        if delivery.length(message) > self.reader.maximum_bytes as usize {
            delivery.alias = None;
            return;
        }
        self.aliases_out.insert(message.topic_bytes().into(), number);
    }
}

/// What the packets of one go are carried out with, under the lock.
struct Turn<'a> {
    core: &'a mut Core,
    fx: &'a mut Effects,
    hold: Hold,
    version: u8,
    inbound: &'a Inbound,
    sendables: &'a mut Vec<Sendable>,
    /// Slots of publishes whose retained message has no room.
    full: &'a mut Vec<Option<u64>>,
    out: &'a mut Vec<u8>,
}

impl Turn<'_> {
    fn perform(&mut self, op: Op) {
        let Self { core, fx, hold, version, .. } = self;
        let (hold, version) = (*hold, *version);
        match op {
            Op::Publish { message, slot, received } => {
                if let Some(id) = received {
                    // in one transaction with the message, so that neither is there without the other
                    fx.durable |= core.remember(hold, |client| Change::Received(client, id), fx);
                }
                if core.publish(message, fx).is_err() {
                    if let Some(id) = received {
                        core.remember(hold, |client| Change::Released(client, id), fx);
                    }
                    self.full.push(slot);
                }
            }
            Op::Subscribe { id, subscription_id, filters } => {
                let codes: Vec<u8> = filters
                    .iter()
                    .map(|(filter, options)| match core.subscribe(hold, filter, *options, subscription_id, fx) {
                        0x80.. if version != V5 => 0x80,
                        code => code,
                    })
                    .collect();
                write::codes(self.out, version, 0x90, id, &codes);
            }
            Op::Unsubscribe { id, filters } => {
                let codes: Vec<u8> = filters.iter().map(|filter| core.unsubscribe(hold, filter, fx)).collect();
                write::codes(self.out, version, 0xb0, id, &codes);
            }
            Op::Ack { kind, id, reason } => core.on_ack(hold, kind, id, reason, self.sendables, fx),
            Op::Release { id } => {
                let known = self.inbound.release(id);
                if known {
                    core.remember(hold, |client| Change::Released(client, id), fx);
                }
                let reason = if known || version != V5 { 0 } else { 0x92 };
                let reader = Reader { version, reasons: false, maximum_bytes: u32::MAX };
                write::ack(self.out, reader, AckKind::Pubcomp, id, reason, "");
            }
        }
    }
}
