//! What a session owes its client for the publishes it received: answers in the order of the publishes, and the
//! packet identifiers of QoS 2 that are not released yet.
//!
//! In: publishes as they are taken in, verdicts as they come. Out: answers that may be written. Must never let an answer
//! overtake an earlier one [MQTT-4.6.0-2, MQTT-4.6.0-3], and never send one before its verdict.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::codec::AckKind;

/// Publishes with QoS 1 and 2 that one client may have unanswered. A version 5 client that sends more is disconnected
/// (0x93); from a 3.1.1 client nothing more is read until there is room.
pub(super) const RECEIVE_MAXIMUM: u16 = 1024;

/// How others reach a connection's task.
#[derive(Debug, Default)]
pub(super) struct Door {
    pub(super) notify: Notify,
    /// Something waits in the session.
    pub(super) mail: AtomicBool,
    /// So much waits that publishers should hold back for a moment.
    pub(super) pressed: AtomicBool,
    /// Told when that is over.
    pub(super) relief: Notify,
    /// Reason code with which the connection must end; 0 for none.
    closing: AtomicU8,
}

impl Door {
    /// Asks the connection to end.
    pub(super) fn close(&self, reason: u8) {
        self.closing.store(reason, Ordering::Release);
        self.notify.notify_one();
    }

    pub(super) fn closing(&self) -> Option<u8> {
        match self.closing.load(Ordering::Acquire) {
            0 => None,
            reason => Some(reason),
        }
    }
}

/// How a publish ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// MQTT 5 reason code.
    pub(super) reason: u8,
    pub(super) text: String,
    /// It could not be kept: a 3.1.1 client must not see an acknowledgement.
    pub(super) lost: bool,
}

#[derive(Debug)]
struct Slot {
    kind: AckKind,
    id: u16,
    outcome: Option<Outcome>,
    /// The connection it came on is gone.
    muted: bool,
}

/// An answer that may go out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: AckKind,
    pub(super) id: u16,
    pub(super) outcome: Outcome,
    /// Not to be written, its connection is gone.
    pub(super) muted: bool,
}

#[derive(Debug, Default)]
struct State {
    door: Option<Arc<Door>>,
    received: BTreeSet<u16>,
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    first: u64,
    unanswered_qos1: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbound(Mutex<State>);

/// What to do with a QoS 2 publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It is new: route it, its answer has this number.
    New(u64),
    /// It came before; its answer is on its way.
    Again,
    /// Too many are unanswered.
    TooMany,
}

impl Inbound {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the packet identifiers the shelf remembers.
    pub(super) fn with_received(received: &[u16]) -> Self {
        Self(Mutex::new(State { received: received.iter().copied().collect(), ..State::default() }))
    }

    /// A new connection took the session up.
    pub(super) fn connect(&self, door: &Arc<Door>) {
        let mut state = self.state();
        state.door = Some(Arc::clone(door));
        state.unanswered_qos1 = 0;
        for slot in &mut state.slots {
            slot.muted = true;
        }
    }

    /// Opens a slot for a publish with QoS 1; `bounded` for clients that know a receive maximum.
    pub(super) fn begin1(&self, id: u16, bounded: bool) -> Begin {
        let mut state = self.state();
        if bounded && state.unanswered_qos1 + state.received.len() >= usize::from(RECEIVE_MAXIMUM) {
            return Begin::TooMany;
        }
        state.unanswered_qos1 += 1;
        Begin::New(state.push(AckKind::Puback, id, None))
    }

    /// Opens a slot for a publish with QoS 2, unless it was received before [MQTT-4.3.3-10].
    pub(super) fn begin2(&self, id: u16, bounded: bool) -> Begin {
        let mut state = self.state();
        if !state.received.contains(&id) {
            if bounded && state.unanswered_qos1 + state.received.len() >= usize::from(RECEIVE_MAXIMUM) {
                return Begin::TooMany;
            }
            state.received.insert(id);
            return Begin::New(state.push(AckKind::Pubrec, id, None));
        }
        match state.slots.iter_mut().find(|slot| slot.kind == AckKind::Pubrec && slot.id == id) {
            // the verdict is still to come, and now somebody waits for it again
            Some(slot) => slot.muted = false,
            None => {
                state.push(AckKind::Pubrec, id, Some(Outcome::default()));
            }
        }
        Begin::Again
    }

    /// The verdict on a slot; wakes the connection.
    pub(super) fn settle(&self, number: u64, outcome: &Outcome) {
        self.settle_all(&[number], outcome);
    }

    /// A verdict on these slots, whatever was said before.
    pub(super) fn overrule(&self, numbers: &[u64], outcome: &Outcome) {
        self.each(numbers, |slot| slot.outcome = Some(outcome.clone()));
    }

    /// The same verdict on those of many slots that have none yet; wakes the connection once.
    pub(super) fn settle_all(&self, numbers: &[u64], outcome: &Outcome) {
        let door = self.each(numbers, |slot| {
            slot.outcome.get_or_insert_with(|| outcome.clone());
        });
        if let Some(door) = door {
            door.notify.notify_one();
        }
    }

    /// Success for those of these slots that have no verdict yet; for the connection's own task, which looks anyway.
    pub(super) fn settle_rest(&self, numbers: &[u64]) {
        self.each(numbers, |slot| {
            slot.outcome.get_or_insert_default();
        });
    }

    fn each(&self, numbers: &[u64], change: impl Fn(&mut Slot)) -> Option<Arc<Door>> {
        let mut state = self.state();
        let first = state.first;
        for number in numbers {
            let at = number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            if let Some(slot) = at.and_then(|at| state.slots.get_mut(at)) {
                change(slot);
            }
        }
        state.door.clone()
    }

    /// Takes the answers out whose verdict and turn have come. Refused QoS 2 publishes are over with that.
    pub(super) fn replies(&self, replies: &mut Vec<Reply>) {
        let mut state = self.state();
        while state.slots.front().is_some_and(|slot| slot.outcome.is_some()) {
            let Some(slot) = state.slots.pop_front() else { return };
            state.first += 1;
            let outcome = slot.outcome.unwrap_or_default();
            if slot.kind == AckKind::Puback && !slot.muted {
                state.unanswered_qos1 = state.unanswered_qos1.saturating_sub(1);
            }
            if slot.kind == AckKind::Pubrec && outcome.reason >= 0x80 {
                state.received.remove(&slot.id);
            }
            replies.push(Reply { kind: slot.kind, id: slot.id, outcome, muted: slot.muted });
        }
    }

    /// A PUBREL came; tells whether its identifier was known.
    pub(super) fn release(&self, id: u16) -> bool {
        self.state().received.remove(&id)
    }

    /// Whether more may be read from a client without flow control.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.slots.len() < usize::from(RECEIVE_MAXIMUM)
    }
}

impl State {
    fn push(&mut self, kind: AckKind, id: u16, outcome: Option<Outcome>) -> u64 {
        self.slots.push_back(Slot { kind, id, outcome, muted: false });
        self.first + self.slots.len() as u64 - 1
    }
}
