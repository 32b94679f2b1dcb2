//! Clients come and go.
//!
//! In: an accepted CONNECT; how a connection ended; the time. Out: a session taken up, taken over, kept or ended, and
//! wills whose time has come. Must never let two connections hold one session.

use std::sync::Arc;

use super::super::access::Access;
use super::super::filter;
use super::super::inbound::Inbound;
use super::super::session::{Connected, Effects, LastWords, Session, Will};
use super::super::shelf::Change;
use super::{Core, Hold};

/// Session expiry interval that means for ever.
const FOR_EVER: u32 = u32::MAX;

/// A client that may come in.
#[derive(Debug)]
pub(in super::super) struct Arrival {
    pub(in super::super) client: String,
    pub(in super::super) access: Arc<Access>,
    pub(in super::super) clean: bool,
    pub(in super::super) expiry_s: u32,
    pub(in super::super) will: Option<Will>,
    /// Its generation is filled in here.
    pub(in super::super) connected: Connected,
}

/// A client that is in.
#[derive(Debug)]
pub(in super::super) struct Attached {
    pub(in super::super) hold: Hold,
    pub(in super::super) serial: u64,
    pub(in super::super) session_present: bool,
    pub(in super::super) inbound: Arc<Inbound>,
}

/// Why a client cannot come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum AttachError {
    /// As many clients as there may be.
    Full,
    /// The session belongs to another user.
    NotYours,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Leave {
    /// The will is to be published.
    pub(in super::super) will: bool,
    /// Session expiry interval from DISCONNECT.
    pub(in super::super) expiry_s: Option<u32>,
}

impl Core {
    /// Lets a client in, taking its session up or making one.
    ///
    /// # Errors
    /// When there are too many clients, or the session is somebody else's.
    pub(in super::super) fn attach(&mut self, arrival: Arrival, fx: &mut Effects) -> Result<Attached, AttachError> {
        let known = self.by_client.get(arrival.client.as_str()).copied();
        let mut taken_over = false;
        if let Some(session) = known.and_then(|at| self.session(at)) {
            // a mapper inside is never taken over from outside: it has no name of its own to tell it from anybody else
            let inside = session.connected.as_ref().is_some_and(|connected| connected.local);
            if session.user != arrival.access.user || inside && !arrival.connected.local {
                return Err(AttachError::NotYours);
            }
            taken_over = session.connected.is_some();
        }
        // what the gateway is made of comes in however many are there
        let inside = arrival.connected.local;
        if !inside && !taken_over && self.connected - self.inside >= self.measure.limits.clients {
            return Err(AttachError::Full);
        }
        let known = known.and_then(|at| self.leave_old(at, arrival.clean, fx));
        let session_present = known.is_some();
        let at = match known {
            Some(at) => at,
            None => {
                let serial = self.next_serial;
                self.next_serial += 1;
                let client: Arc<str> = arrival.client.as_str().into();
                let user = arrival.access.user.clone();
                self.place(Session::new(client, serial, user, Arc::clone(&arrival.access)))
            }
        };
        self.narrow(at, &arrival.access, fx);
        let generation = self.next_generation;
        self.next_generation += 1;
        self.connected += 1;
        self.inside += usize::from(inside);
        let Some(session) = self.session(at) else { return Err(AttachError::Full) };
        session.expiry_s = arrival.expiry_s;
        session.access = arrival.access;
        session.will = arrival.will;
        session.connect(Connected { generation, ..arrival.connected }, fx);
        if session.is_persistent() || session.on_shelf {
            session.on_shelf = true;
            fx.changes.push(session.head());
        }
        Ok(Attached {
            hold: Hold { session: at, generation },
            serial: session.serial,
            session_present,
            inbound: Arc::clone(&session.inbound),
        })
    }

    /// Takes an old session from its connection. Gives it back if it goes on.
    fn leave_old(&mut self, at: u32, clean: bool, fx: &mut Effects) -> Option<u32> {
        let session = self.session(at)?;
        if let Some(old) = session.connected.take() {
            old.door.close(0x8e);
            let will = session.will.take();
            // a delayed will is not published if the session goes on in time [MQTT-3.1.3-9]
            if let Some(will) = will.filter(|will| clean || will.delay_s == 0 || session.expiry_s == 0) {
                fx.wills.push(session.last_words(will));
            }
            let ends = session.expiry_s == 0;
            self.connected -= 1;
            self.inside -= usize::from(old.local);
            if ends || clean {
                self.end(at, fx);
                return None;
            }
        } else if clean {
            self.end(at, fx);
            return None;
        } else {
            session.will = None;
        }
        Some(at)
    }

    /// Subscriptions that the client may no longer have are taken away.
    fn narrow(&mut self, at: u32, access: &Access, fx: &mut Effects) {
        let Some(session) = self.session(at) else { return };
        let lost: Vec<Box<str>> = session
            .subscriptions
            .keys()
            .filter(|text| filter::parse(text).is_none_or(|parsed| !access.may_subscribe(parsed.filter)))
            .cloned()
            .collect();
        for text in lost {
            let Some(session) = self.session(at) else { return };
            session.subscriptions.remove(&text);
            if session.on_shelf {
                fx.changes.push(Change::Unsubscribe(session.client.to_string(), text.to_string()));
            }
            if let Some(parsed) = filter::parse(&text) {
                self.tree.remove(parsed.share, parsed.filter, at);
            }
        }
    }

    /// A connection is over. Does nothing if its session was taken over.
    pub(in super::super) fn detach(&mut self, hold: Hold, leave: Leave, fx: &mut Effects) {
        let now_ms = self.measure.now_ms;
        let at = hold.session;
        if self.held(hold).is_none() {
            return;
        }
        self.connected -= 1;
        let Self { sessions, measure, inside, .. } = self;
        let Some(session) = sessions.get_mut(at as usize).and_then(Option::as_mut) else { return };
        *inside -= usize::from(session.connected.as_ref().is_some_and(|connected| connected.local));
        if let Some(expiry_s) = leave.expiry_s {
            session.expiry_s = expiry_s;
        }
        let shared = session.disconnect(now_ms, measure, fx);
        match session.will.take().filter(|_| leave.will) {
            Some(will) if will.delay_s > 0 && session.expiry_s > 0 => {
                let due_ms = now_ms + i64::from(will.delay_s.min(session.expiry_s)) * 1000;
                session.delay_will(will, due_ms, fx);
            }
            Some(will) => fx.wills.push(session.last_words(will)),
            None => {}
        }
        self.give_on(at, shared, fx);
        let Some(session) = self.session(at) else { return };
        if session.is_persistent() {
            session.on_shelf = true;
            fx.changes.push(session.head());
            self.hand_over(at, fx);
            self.bound_sessions(fx);
        } else {
            self.end(at, fx);
        }
    }

    fn hand_over(&mut self, at: u32, fx: &mut Effects) {
        let Some(mut session) = self.sessions.get_mut(at as usize).and_then(Option::take) else { return };
        let moved = session.hand_over(self.others(at), fx);
        if let Some(place) = self.sessions.get_mut(at as usize) {
            *place = Some(session);
        }
        self.give_on(at, moved, fx);
    }

    /// Ends a session for good: will, shared messages for others, subscriptions, everything.
    fn end(&mut self, at: u32, fx: &mut Effects) {
        self.hand_over(at, fx);
        let Some(mut session) = self.sessions.get_mut(at as usize).and_then(Option::take) else { return };
        self.by_client.remove(&session.client);
        self.free.push(at);
        for text in session.subscriptions.keys() {
            if let Some(parsed) = filter::parse(text) {
                self.tree.remove(parsed.share, parsed.filter, at);
            }
        }
        if let Some(will) = session.will.take() {
            fx.wills.push(session.last_words(will));
        }
        if session.is_persistent() {
            self.measure.counters.dropped_session_ended.add(session.pending() as u64);
        }
        if session.on_shelf {
            fx.changes.push(Change::EndSession(session.client.to_string()));
        }
    }

    /// As many absent sessions as there may be; the one that is away longest goes first.
    fn bound_sessions(&mut self, fx: &mut Effects) {
        while self.by_client.len() - self.connected > self.measure.limits.sessions {
            let absent = |at: &u32| self.sessions.get(*at as usize).and_then(Option::as_ref)?.absent_since_ms;
            let Some(oldest) = self.by_client.values().copied().filter(|at| absent(at).is_some()).min_by_key(absent)
            else {
                return;
            };
            let client = self.session(oldest).map(|session| Arc::clone(&session.client));
            tracing::warn!(client = client.as_deref(), "too many absent sessions, the oldest is given up");
            self.end(oldest, fx);
        }
    }

    /// Time passes: wills that are due, sessions that expire, retained messages that expire.
    pub(in super::super) fn on_time(&mut self, sweep: bool, fx: &mut Effects) {
        let now_ms = self.measure.now_ms;
        for at in 0..self.sessions.len() as u32 {
            let Some(session) = self.session(at) else { continue };
            if session.will_due_ms.is_some_and(|due| due <= now_ms) {
                session.forget_will(fx);
                if let Some(will) = session.will.take() {
                    fx.wills.push(session.last_words(will));
                }
            }
            let Some(since) = session.absent_since_ms else { continue };
            if session.expiry_s != FOR_EVER && since + i64::from(session.expiry_s) * 1000 <= now_ms {
                self.end(at, fx);
            }
        }
        if sweep {
            for topic in self.retained.expired(now_ms) {
                if self.retained.remove(&topic) == Some(true) {
                    fx.changes.push(Change::Unretain(topic.to_string()));
                }
            }
        }
    }
}

impl Session {
    fn last_words(&self, will: Will) -> LastWords {
        let mut message = will.message;
        message.author = self.serial;
        LastWords {
            message,
            expiry_s: will.expiry_s,
            client: Arc::clone(&self.client),
            access: Arc::clone(&self.access),
        }
    }
}
