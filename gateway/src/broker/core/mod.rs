//! The engine: subscription tree, retained messages and sessions behind one lock that is held for moments only.
//!
//! In: what clients did, decoded and allowed. Out: what waits in sessions, and [`Effects`] to be carried out without the
//! lock. Everything here is synchronous; matching happens in the publisher's task, so a message reaches a subscriber's
//! queue without a hop. Must never wait for anything, and never call back to whoever called.
//!
//! rumqttd's router was measured as the engine and left out: it panics on foreign topics, keeps every topic it ever saw,
//! truncates what is retained, and costs a hop through its own thread.

mod attach;
mod route;

use std::collections::HashMap;
use std::sync::Arc;

use protocols::config::Limits;

use super::Pulse;
use super::access::Access;
use super::codec::AckKind;
use super::filter;
use super::message::Message;
use super::retained::Retained;
use super::session::{Effects, Measure, Sendable, Session, Subscription};
use super::shelf::{Change, Inventory, KeptSubscription};
use super::stats::{Counters, Stats};
use super::tree::{Subscriber, Tree};
pub(super) use attach::{Arrival, AttachError, Leave};
use route::Pick;

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) measure: Measure,
    tree: Tree,
    retained: Retained,
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<u32>,
    by_client: HashMap<Arc<str>, u32>,
    connected: usize,
    /// How many of those are parts of this program.
    inside: usize,
    next_serial: u64,
    next_generation: u64,
    round: u64,
    picks: Vec<Pick>,
}

/// A connection's hold on its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    session: u32,
    generation: u64,
}

impl Core {
    pub(super) fn new(limits: Limits, counters: Arc<Counters>) -> Self {
        Self {
            measure: Measure { limits, counters, now_ms: 0 },
            tree: Tree::new(),
            retained: Retained::default(),
            sessions: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::new(),
            connected: 0,
            inside: 0,
            next_serial: 1,
            next_generation: 1,
            round: 0,
            picks: Vec::new(),
        }
    }

    /// Takes over what the shelf remembers. `access` says what the owner of a session may do now.
    pub(super) fn load(
        &mut self,
        inventory: &Inventory,
        mut access: impl FnMut(&str, Option<&str>) -> Arc<Access>,
        fx: &mut Effects,
    ) {
        let now_ms = self.measure.now_ms;
        for kept in &inventory.retained {
            let mut message = Message::from_kept(kept);
            if message.is_expired(now_ms) {
                fx.changes.push(Change::Unretain(kept.topic.clone()));
            } else {
                message.stamp = self.retained.next_stamp();
                self.retained.insert(&message);
            }
        }
        for kept in &inventory.sessions {
            if kept.expiry_s == 0 {
                fx.changes.push(Change::EndSession(kept.client.clone()));
                continue;
            }
            let serial = self.next_serial;
            self.next_serial += 1;
            let access = access(&kept.client, kept.user.as_deref());
            let mut session = Session::from_kept(kept, serial, access, now_ms);
            for one in &kept.subscriptions {
                let Some(parsed) = filter::parse(&one.filter) else { continue };
                if session.access.may_subscribe(parsed.filter) {
                    let subscription = Subscription { options: one.options, id: one.id.unwrap_or(0) };
                    session.subscriptions.insert(one.filter.as_str().into(), subscription);
                }
            }
            if kept.absent_since_ms.is_none() {
                fx.changes.push(session.head());
            }
            let at = self.place(session);
            self.plant(at);
        }
    }

    fn place(&mut self, session: Session) -> u32 {
        let client = Arc::clone(&session.client);
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.sessions.get_mut(at as usize) {
                    *place = Some(Box::new(session));
                }
                at
            }
            None => {
                self.sessions.push(Some(Box::new(session)));
                (self.sessions.len() - 1) as u32
            }
        };
        self.by_client.insert(client, at);
        at
    }

    /// Puts all subscriptions of a session into the tree.
    fn plant(&mut self, at: u32) {
        let Some(session) = self.sessions.get(at as usize).and_then(Option::as_ref) else { return };
        for (text, subscription) in &session.subscriptions {
            if let Some(parsed) = filter::parse(text) {
                let subscriber = Subscriber { session: at, options: subscription.options, id: subscription.id };
                self.tree.insert(parsed.share, parsed.filter, subscriber);
            }
        }
    }

    /// After a panic in the middle of a change: everything that is derived is made anew from what it derives from.
    pub(super) fn repair(&mut self) {
        self.tree = Tree::new();
        self.retained.repair();
        self.picks = Vec::new();
        self.by_client.clear();
        self.free.clear();
        (self.connected, self.inside) = (0, 0);
        for at in 0..self.sessions.len() as u32 {
            match self.sessions.get(at as usize).and_then(Option::as_ref) {
                Some(session) => {
                    self.by_client.insert(Arc::clone(&session.client), at);
                    self.connected += usize::from(session.connected.is_some());
                    self.inside += usize::from(session.connected.as_ref().is_some_and(|connected| connected.local));
                    self.plant(at);
                }
                None => self.free.push(at),
            }
        }
    }

    fn session(&mut self, at: u32) -> Option<&mut Session> {
        self.sessions.get_mut(at as usize).and_then(Option::as_mut).map(|session| &mut **session)
    }

    /// The session a connection holds, unless somebody took it over.
    fn held(&mut self, hold: Hold) -> Option<&mut Session> {
        self.session(hold.session)
            .filter(|session| session.connected.as_ref().is_some_and(|one| one.generation == hold.generation))
    }

    /// Subscribes; gives the reason code for SUBACK.
    pub(super) fn subscribe(&mut self, hold: Hold, text: &str, options: u8, id: u32, fx: &mut Effects) -> u8 {
        let limit = self.measure.limits.subscriptions;
        let Some(parsed) = filter::parse(text) else { return 0x8f };
        let Some(session) = self.sessions.get_mut(hold.session as usize).and_then(Option::as_mut) else { return 0x80 };
        if session.connected.as_ref().is_none_or(|one| one.generation != hold.generation) {
            return 0x80;
        }
        if !session.access.may_subscribe(parsed.filter) {
            return 0x87;
        }
        let known = session.subscriptions.contains_key(text);
        if !known && session.subscriptions.len() >= limit {
            return 0x97;
        }
        session.subscriptions.insert(text.into(), Subscription { options, id });
        self.tree.insert(parsed.share, parsed.filter, Subscriber { session: hold.session, options, id });
        session.cursors.retain(|cursor| !cursor.is_over(parsed.filter));
        let wants_retained = match options >> 4 & 3 {
            0 => true,
            1 => !known,
            _ => false,
        };
        if parsed.share.is_none() && wants_retained {
            session.cursors.push_back(self.retained.cursor(parsed.filter, options, id, session.lost));
            session.ring(fx);
        }
        if session.is_persistent() {
            let kept = KeptSubscription { filter: text.to_owned(), options, id: (id > 0).then_some(id) };
            fx.changes.push(Change::Subscribe(session.client.to_string(), kept));
        }
        options & 3
    }

    /// Unsubscribes; gives the reason code for UNSUBACK.
    pub(super) fn unsubscribe(&mut self, hold: Hold, text: &str, fx: &mut Effects) -> u8 {
        let Some(session) = self.held(hold) else { return 0x80 };
        if session.subscriptions.remove(text).is_none() {
            return 0x11;
        }
        if session.is_persistent() {
            fx.changes.push(Change::Unsubscribe(session.client.to_string(), text.to_owned()));
        }
        if let Some(parsed) = filter::parse(text) {
            if parsed.share.is_none() {
                session.cursors.retain(|cursor| !cursor.is_over(parsed.filter));
            }
            self.tree.remove(parsed.share, parsed.filter, hold.session);
        }
        0
    }

    /// The client's word on a message it got.
    pub(super) fn on_ack(
        &mut self,
        hold: Hold,
        kind: AckKind,
        id: u16,
        reason: u8,
        out: &mut Vec<Sendable>,
        fx: &mut Effects,
    ) {
        if let Some(session) = self.held(hold) {
            session.on_ack(kind, id, reason, out, fx);
        }
    }

    /// A change that belongs to a persistent session alone: packet identifiers of QoS 2.
    pub(super) fn remember(&mut self, hold: Hold, change: impl FnOnce(String) -> Change, fx: &mut Effects) -> bool {
        let Some(session) = self.held(hold) else { return false };
        if session.is_persistent() {
            fx.changes.push(change(session.client.to_string()));
        }
        session.is_persistent()
    }

    /// Takes what may be sent to a client now. Tells whether there is more.
    pub(super) fn take(&mut self, hold: Hold, budget_bytes: usize, out: &mut Vec<Sendable>, fx: &mut Effects) -> bool {
        let Self { sessions, retained, measure, .. } = self;
        match sessions.get_mut(hold.session as usize).and_then(Option::as_mut) {
            Some(session) if session.connected.as_ref().is_some_and(|one| one.generation == hold.generation) => {
                session.take(budget_bytes, out, retained, measure, fx)
            }
            _ => false,
        }
    }

    /// Asks every connection to end.
    pub(super) fn close_all(&self, reason: u8) {
        for session in self.sessions.iter().flatten() {
            if let Some(connected) = &session.connected {
                connected.door.close(reason);
            }
        }
    }

    /// How far a client is behind.
    pub(super) fn pulse(&self, client: &str) -> Option<Pulse> {
        let at = *self.by_client.get(client)?;
        let session = self.sessions.get(at as usize)?.as_ref()?;
        Some(Pulse { lost: session.lost, is_caught_up: session.cursors.is_empty() })
    }

    /// The gauges of [`Stats`].
    pub(super) fn gauges(&self, stats: &mut Stats) {
        stats.clients = self.connected - self.inside;
        stats.sessions = self.by_client.len();
        stats.retained = self.retained.len();
        stats.retained_bytes = self.retained.bytes();
        for session in self.sessions.iter().flatten() {
            stats.subscriptions += session.subscriptions.len();
            stats.queued_bytes += session.queued_bytes();
        }
    }
}
