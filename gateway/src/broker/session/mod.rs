//! One client's session: what waits for it, what is on its way, what it subscribed to.
//!
//! In: messages for it, its acknowledgements. Out: what to send next. Must never hold more than its bound in bytes, lose
//! a message without counting it, or give a packet identifier twice.

mod outgoing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocols::config::Limits;

use super::access::Access;
use super::inbound::{Door, Inbound};
use super::message::Message;
use super::retained::Cursor;
use super::shelf::{Change, Kept, KeptSession, KeptWill};
use super::stats::Counters;

pub(super) use outgoing::release_reason;

/// Publishers are asked to hold back for a client whose queue is fuller than one part in so many…
const PRESSED_PART: usize = 4;
/// …and that for at most so long, in milliseconds; then the client is slow, and what does not fit is given up.
const PATIENCE_MS: i64 = 100;

/// What follows from a change, to be done by whoever holds no lock any more.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Connections that have something to do.
    pub(super) wake: Vec<Arc<Door>>,
    /// For the shelf; handed over before the lock is given back, so that the order is kept.
    pub(super) changes: Vec<Change>,
    /// A publish is not safe before the changes are on disk.
    pub(super) durable: bool,
    /// Wills to be published.
    pub(super) wills: Vec<LastWords>,
    /// Somebody who reads, but not fast enough.
    pub(super) relief: Option<Arc<Door>>,
}

/// A will whose time has come, and who left it.
#[derive(Debug)]
pub(super) struct LastWords {
    pub(super) message: Message,
    /// The life of the message, from now on.
    pub(super) expiry_s: Option<u32>,
    pub(super) client: Arc<str>,
    pub(super) access: Arc<Access>,
}

/// A will.
#[derive(Clone, Debug)]
pub(super) struct Will {
    pub(super) message: Message,
    pub(super) delay_s: u32,
    /// The life of the message, from its publication.
    pub(super) expiry_s: Option<u32>,
}

/// What every session is measured by.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    pub(super) now_ms: i64,
}

/// A session's connection.
#[derive(Debug)]
pub(super) struct Connected {
    /// Tells this connection from every other.
    pub(super) generation: u64,
    pub(super) door: Arc<Door>,
    pub(super) version: u8,
    /// QoS 1 and 2 messages that may be on their way.
    pub(super) window: u16,
    /// The largest packet the client takes.
    pub(super) packet_bytes: u32,
    /// A mapper inside the gateway: nothing gets lost between, so nothing is acknowledged.
    pub(super) local: bool,
}

/// One subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) options: u8,
    /// 0 for none.
    pub(super) id: u32,
}

/// A message that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Order among all that wait.
    order: u64,
    /// Number on the shelf, and what the packet identifier is made of; 0 with QoS 0.
    number: u64,
    pub(super) message: Arc<Message>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    dup: bool,
    stored: bool,
    pub(super) ids: Option<Box<[u32]>>,
    /// The shared subscription it came through.
    pub(super) share: Option<Arc<str>>,
}

impl Waiting {
    pub(super) fn new(message: Arc<Message>, qos: u8, retain: bool) -> Self {
        Self { order: 0, number: 0, message, qos, retain, dup: false, stored: false, ids: None, share: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expecting {
    Puback,
    Pubrec,
    Pubcomp,
}

#[derive(Debug)]
struct Flight {
    id: u16,
    expecting: Expecting,
    /// It is to be sent (again) on this connection.
    unsent: bool,
    waiting: Waiting,
}

/// Something to send.
#[derive(Debug)]
pub(super) enum Sendable {
    /// A message.
    Publish {
        message: Arc<Message>,
        qos: u8,
        retain: bool,
        dup: bool,
        id: u16,
        ids: Option<Box<[u32]>>,
        expiry_s: Option<u32>,
    },
    /// PUBREL.
    Release { id: u16, reason: u8 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Arc<str>,
    /// Never used again, unlike places and client ids.
    pub(super) serial: u64,
    pub(super) user: Option<String>,
    pub(super) access: Arc<Access>,
    pub(super) expiry_s: u32,
    pub(super) absent_since_ms: Option<i64>,
    pub(super) subscriptions: HashMap<Box<str>, Subscription>,
    pub(super) cursors: VecDeque<Cursor>,
    pub(super) inbound: Arc<Inbound>,
    pub(super) connected: Option<Connected>,
    pub(super) will: Option<Will>,
    pub(super) will_due_ms: Option<i64>,
    /// The shelf knows this session.
    pub(super) on_shelf: bool,
    /// Messages given up because the queue was full.
    pub(super) lost: u64,
    /// Which message was routed here last, and where its entry is.
    pub(super) round: u64,
    pub(super) place: usize,
    qos0: VecDeque<Waiting>,
    qos12: VecDeque<Waiting>,
    flights: VecDeque<Flight>,
    unsent: usize,
    queued_bytes: usize,
    next_order: u64,
    next_number: u64,
    warned: bool,
    /// A mapper inside has missed something: what is retained under its filters is sent again once its queue is empty.
    missed: bool,
    pressed_since_ms: Option<i64>,
}

impl Session {
    pub(super) fn new(client: Arc<str>, serial: u64, user: Option<String>, access: Arc<Access>) -> Self {
        Self {
            client,
            serial,
            user,
            access,
            expiry_s: 0,
            absent_since_ms: None,
            subscriptions: HashMap::new(),
            cursors: VecDeque::new(),
            inbound: Arc::default(),
            connected: None,
            will: None,
            will_due_ms: None,
            on_shelf: false,
            lost: 0,
            round: 0,
            place: 0,
            qos0: VecDeque::new(),
            qos12: VecDeque::new(),
            flights: VecDeque::new(),
            unsent: 0,
            queued_bytes: 0,
            next_order: 0,
            next_number: 1,
            warned: false,
            missed: false,
            pressed_since_ms: None,
        }
    }

    /// As the shelf gives it back; `access` is what its user may do now.
    pub(super) fn from_kept(kept: &KeptSession, serial: u64, access: Arc<Access>, now_ms: i64) -> Self {
        let mut session = Self::new(kept.client.as_str().into(), serial, kept.user.clone(), access);
        session.expiry_s = kept.expiry_s;
        session.absent_since_ms = Some(kept.absent_since_ms.unwrap_or(now_ms));
        session.inbound = Arc::new(Inbound::with_received(&kept.received));
        session.on_shelf = true;
        if let Some(KeptWill { message, due_ms, expiry_s }) = &kept.will {
            session.will = Some(Will { message: Message::from_kept(message), delay_s: 0, expiry_s: *expiry_s });
            session.will_due_ms = Some(*due_ms);
        }
        for (number, one) in &kept.queue {
            let mut waiting = Waiting::new(Arc::new(Message::from_kept(one)), one.qos.clamp(1, 2), one.retain);
            // what arrived after the client went has certainly never been sent
            waiting.dup = kept.absent_since_ms.is_none_or(|since| one.at_ms <= since);
            waiting.stored = true;
            waiting.number = *number;
            waiting.ids = (!one.subscription_ids.is_empty()).then(|| one.subscription_ids.clone().into());
            session.next_order += 1;
            waiting.order = session.next_order;
            session.next_number = session.next_number.max(number + 1);
            session.queued_bytes += waiting.message.weight_bytes();
            session.qos12.push_back(waiting);
        }
        session
    }

    pub(super) fn is_persistent(&self) -> bool {
        self.expiry_s > 0
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The head of the session as it goes on the shelf.
    pub(super) fn head(&self) -> Change {
        Change::Session(KeptSession {
            client: self.client.to_string(),
            user: self.user.clone(),
            expiry_s: self.expiry_s,
            absent_since_ms: self.absent_since_ms,
            ..KeptSession::default()
        })
    }

    /// Its will waits until `due_ms`.
    pub(super) fn delay_will(&mut self, will: Will, due_ms: i64, fx: &mut Effects) {
        let message =
            Kept { expires_ms: None, at_ms: 0, ..will.message.to_kept(will.message.qos, will.message.retain, &[]) };
        let kept = KeptWill { message, due_ms, expiry_s: will.expiry_s };
        fx.changes.push(Change::Will(self.client.to_string(), Some(kept)));
        self.will_due_ms = Some(due_ms);
        self.will = Some(will);
    }

    /// A will that waited is said, or never will be.
    pub(super) fn forget_will(&mut self, fx: &mut Effects) {
        if self.will_due_ms.take().is_some() {
            fx.changes.push(Change::Will(self.client.to_string(), None));
        }
    }

    /// A message for this client. Tells whether it went on the shelf.
    pub(super) fn enqueue(&mut self, mut waiting: Waiting, fx: &mut Effects, measure: &Measure) -> bool {
        if self.connected.is_none() && (waiting.qos == 0 || !self.is_persistent()) {
            return false;
        }
        let weight = waiting.message.weight_bytes();
        if !self.make_room(weight, waiting.qos == 0, fx, measure) {
            return false;
        }
        self.next_order += 1;
        waiting.order = self.next_order;
        waiting.stored = false;
        if waiting.qos > 0 {
            waiting.number = self.next_number;
            self.next_number += 1;
            waiting.stored = self.is_persistent() && waiting.message.kept;
        }
        if waiting.stored {
            let ids = waiting.ids.as_deref().unwrap_or_default();
            let kept = waiting.message.to_kept(waiting.qos, waiting.retain, ids);
            fx.changes.push(Change::Enqueue(self.client.to_string(), waiting.number, kept));
        }
        let stored = waiting.stored;
        self.queued_bytes += weight;
        if waiting.qos == 0 {
            self.qos0.push_back(waiting)
        } else {
            self.qos12.push_back(waiting)
        }
        self.ring(fx);
        self.press(fx, measure);
        stored
    }

    /// Tells the connection that something waits.
    pub(super) fn ring(&self, fx: &mut Effects) {
        if let Some(connected) = &self.connected
            && !connected.door.mail.swap(true, Ordering::AcqRel)
        {
            fx.wake.push(Arc::clone(&connected.door));
        }
    }

    fn press(&mut self, fx: &mut Effects, measure: &Measure) {
        if self.queued_bytes < measure.limits.queue_bytes / PRESSED_PART {
            return;
        }
        let Some(connected) = &self.connected else { return };
        let since = *self.pressed_since_ms.get_or_insert(measure.now_ms);
        if measure.now_ms - since < PATIENCE_MS && !connected.local {
            connected.door.pressed.store(true, Ordering::Release);
            fx.relief = Some(Arc::clone(&connected.door));
        }
    }

    fn unpress(&mut self, measure: &Measure) {
        if self.pressed_since_ms.is_some() && self.queued_bytes < measure.limits.queue_bytes / PRESSED_PART / 2 {
            self.pressed_since_ms = None;
            if let Some(connected) = &self.connected {
                connected.door.pressed.store(false, Ordering::Release);
                connected.door.relief.notify_waiters();
            }
        }
        if self.queued_bytes == 0 {
            self.warned = false;
        }
    }

    /// Gives up the oldest QoS 0 message first, then the oldest, until `weight` fits. A newcomer with QoS 0 never costs
    /// a message with a higher one: then it is the victim itself.
    fn make_room(&mut self, weight: usize, newcomer_is_qos0: bool, fx: &mut Effects, measure: &Measure) -> bool {
        while self.queued_bytes + weight > measure.limits.queue_bytes {
            self.lost += 1;
            self.missed |= self.connected.as_ref().is_some_and(|connected| connected.local);
            measure.counters.dropped_queue_full.add(1);
            if !self.warned {
                self.warned = true;
                tracing::warn!(client = %self.client, bytes = self.queued_bytes, "the client's queue is full, messages are given up");
            }
            let victim = self.qos0.pop_front();
            let victim = if victim.is_none() && !newcomer_is_qos0 { self.qos12.pop_front() } else { victim };
            match victim {
                Some(victim) => self.forget(&victim, true, fx),
                None => return false,
            }
        }
        true
    }

    /// What is left to do for a message that is over.
    fn forget(&mut self, waiting: &Waiting, was_queued: bool, fx: &mut Effects) {
        if was_queued {
            self.queued_bytes -= waiting.message.weight_bytes().min(self.queued_bytes);
        }
        if waiting.stored {
            fx.changes.push(Change::Dequeue(self.client.to_string(), waiting.number));
        }
    }

    /// A new connection: everything on its way is to be sent again [MQTT-4.4.0-1].
    pub(super) fn connect(&mut self, connected: Connected, fx: &mut Effects) {
        self.inbound.connect(&connected.door);
        self.absent_since_ms = None;
        self.forget_will(fx);
        self.pressed_since_ms = None;
        for flight in &mut self.flights {
            flight.unsent = true;
            flight.waiting.dup = true;
        }
        self.unsent = self.flights.len();
        self.connected = Some(connected);
        self.ring(fx);
    }

    /// The connection is gone. What waits with QoS 0 goes with it; what came through shared subscriptions and may go to
    /// somebody else is given back.
    pub(super) fn disconnect(&mut self, now_ms: i64, measure: &Measure, fx: &mut Effects) -> Vec<Waiting> {
        self.connected = None;
        self.absent_since_ms = Some(now_ms);
        let gone = std::mem::take(&mut self.qos0);
        measure.counters.dropped_session_ended.add(gone.iter().filter(|one| one.share.is_none()).count() as u64);
        for waiting in &gone {
            self.forget(waiting, true, fx);
        }
        gone.into_iter().filter(|one| one.share.is_some()).collect()
    }

    /// Takes out what may be sent to another member of a shared subscription [4.8.2]: what was never sent, and what is
    /// on its way with QoS 1.
    pub(super) fn hand_over(&mut self, mut other: impl FnMut(&str) -> bool, fx: &mut Effects) -> Vec<Waiting> {
        let mut out = Vec::new();
        let mut moves = |waiting: &Waiting| waiting.share.as_deref().is_some_and(&mut other);
        let flights = std::mem::take(&mut self.flights);
        for flight in flights {
            if flight.expecting == Expecting::Puback && moves(&flight.waiting) {
                self.forget(&flight.waiting, false, fx);
                out.push(flight.waiting);
            } else {
                self.flights.push_back(flight);
            }
        }
        let queue = std::mem::take(&mut self.qos12);
        for waiting in queue {
            if moves(&waiting) {
                self.forget(&waiting, true, fx);
                out.push(waiting);
            } else {
                self.qos12.push_back(waiting);
            }
        }
        out
    }

    /// Messages that would be lost if the session ended now.
    pub(super) fn pending(&self) -> usize {
        self.qos0.len() + self.qos12.len() + self.flights.len()
    }
}
