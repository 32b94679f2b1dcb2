//! What becomes of one device's desired values: the contract, section 4, from the mapper's side.
//!
//! In: deltas, the outcome of writes and read backs, the tick. Out: what to write or read back next, and what to
//! acknowledge. It decides only; the host acts. Must never write an acknowledged value again unless the profile says
//! so, and never leave a desired value without an end or a reason.

use std::collections::BTreeMap;

use protocols::message::{AckResult, Delta, DesiredState};
use protocols::modbus::pdu::Exception;
use protocols::profile::{Confirm, Drift, Kind, Profile, Property, WriteMode};
use protocols::value::{Value, same};

use crate::clock::millis;
use crate::port::CallError;

/// The first pause before a write is tried again, in milliseconds; doubling.
pub(super) const RETRY_PAUSE_MS: u64 = 200;
/// The longest pause between tries, in milliseconds.
pub(super) const RETRY_PAUSE_MAX_MS: u64 = 5_000;
/// Between two corrections of a drifting device, in milliseconds, unless the profile asks for more; more often would
/// wear out a device that will not hold the value.
pub(super) const DRIFT_PAUSE_MS: u64 = 10_000;
/// After a write of ours, how long another reading is not taken for a drift, in milliseconds, unless the profile asks for
/// more to settle: the device may still be about to show it. A drift within that time is seen by the next poll.
const DRIFT_SETTLE_MS: u64 = 500;
/// Tries after the first for a device that says it is busy, over and above the profile's retries.
const BUSY_TRIES: u32 = 20;
/// How long after an acknowledgement was stored a delta may still show what it settled, in milliseconds; after that it
/// is a new wish for the same value.
const SETTLED_GRACE_MS: u64 = 1_000;
/// Before an acknowledgement that was not taken is sent again, in milliseconds.
const ACK_AGAIN_MS: u64 = 1_000;

/// What is to be done for a wish.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Deed {
    /// Write this value.
    Write(Value),
    /// Read the property, to compare it with this value.
    ReadBack(Value),
}

/// Why something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It is pending in the delta, and wants an acknowledgement.
    Desired,
    /// It was applied once, and the profile says `reconcile` or `restore`.
    Kept,
    /// The end of a pulse.
    Rest,
}

#[derive(Clone, Debug)]
struct Wish {
    value: Value,
    version: u64,
    cause: Cause,
    attempt: u32,
    busy: u32,
    at: u64,
    written: bool,
    /// The reason told with the last `pending`.
    told: Option<String>,
}

#[derive(Clone, Debug)]
struct Settled {
    value: Value,
    version: u64,
    result: AckResult,
    stored_at: Option<u64>,
    send_at: Option<u64>,
    /// The version of a delta that showed it again.
    again: Option<u64>,
}

/// An acknowledgement to send: the property's number, the version, the result.
pub(super) type Ack = (usize, u64, AckResult);

/// One device's desired values.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    epoch: String,
    version: u64,
    wishes: BTreeMap<usize, Wish>,
    settled: BTreeMap<usize, Settled>,
    /// What was applied, with its version, of properties that are kept.
    kept: BTreeMap<usize, (Value, u64)>,
    wrote_at: BTreeMap<usize, u64>,
    drift_at: BTreeMap<usize, u64>,
    away_at: u64,
}

/// Whether the mapper has to remember what was applied.
pub(super) fn is_kept(property: &Property) -> bool {
    property.access.writes() && (property.write.mode == WriteMode::Reconcile || property.write.drift == Drift::Restore)
}

impl Wishes {
    /// Takes a delta. Gives what can be refused at once, by name.
    pub(super) fn on_delta(&mut self, delta: &Delta, profile: &Profile, now: u64) -> Vec<(String, AckResult)> {
        if delta.epoch == self.epoch && delta.version < self.version {
            return Vec::new();
        }
        if delta.epoch != self.epoch {
            *self = Self { epoch: delta.epoch.clone(), kept: std::mem::take(&mut self.kept), ..Self::default() };
        }
        self.version = delta.version;
        let mut refused = Vec::new();
        let mut pending = Vec::with_capacity(delta.desired.len());
        for (name, value) in &delta.desired {
            let Some(index) = profile.find(name.as_str()) else {
                refused.push((name.to_string(), rejected("the device has no such property")));
                continue;
            };
            if !profile.properties.get(index).is_some_and(|property| property.access.writes()) {
                refused.push((name.to_string(), rejected("the property cannot be written")));
                continue;
            }
            pending.push(index);
            self.wish(index, value, delta.version, now);
        }
        self.wishes.retain(|index, wish| wish.cause != Cause::Desired || pending.contains(index));
        self.settled.retain(|index, settled| pending.contains(index) || settled.stored_at.is_none());
        refused
    }

    fn wish(&mut self, index: usize, value: &Value, version: u64, now: u64) {
        if let Some(settled) = self.settled.get_mut(&index)
            && same(&settled.value, value)
        {
            settled.again = (version > settled.version).then_some(version);
            if settled.send_at.is_none() && settled.stored_at.is_none() {
                settled.send_at = Some(now);
            }
            return;
        }
        self.settled.remove(&index);
        self.kept.remove(&index);
        match self.wishes.get_mut(&index) {
            Some(wish) if wish.cause == Cause::Desired && same(&wish.value, value) => wish.version = version,
            _ => {
                self.wishes.insert(index, Wish::new(value.clone(), version, Cause::Desired, now));
            }
        }
    }

    /// An applied value of a kept property, from `desired/P`. `retained`: it is what the broker kept, so it may be from
    /// before a restart; then it is written again if the profile says so and the device is there.
    pub(super) fn on_applied(
        &mut self,
        index: usize,
        property: &Property,
        applied: (Value, u64),
        fresh: bool,
        now: u64,
    ) {
        let known = self.kept.get(&index).is_some_and(|(value, _)| same(value, &applied.0));
        let wanted = !known && fresh && property.write.mode == WriteMode::Reconcile;
        if wanted && !self.wishes.contains_key(&index) && !self.settled.contains_key(&index) {
            self.wishes.insert(index, Wish::new(applied.0.clone(), applied.1, Cause::Kept, now));
        }
        self.kept.insert(index, applied);
    }

    /// The desired value of a property is no longer applied: pending, cleared, rejected.
    pub(super) fn on_not_applied(&mut self, index: usize) {
        self.kept.remove(&index);
        if self.wishes.get(&index).is_some_and(|wish| wish.cause == Cause::Kept) {
            self.wishes.remove(&index);
        }
    }

    /// The device is there (again): what waits is due, what is kept with `reconcile` is written again.
    pub(super) fn on_found(&mut self, profile: &Profile, now: u64) {
        for (index, (value, version)) in &self.kept {
            let mode = profile.properties.get(*index).map(|property| property.write.mode);
            // The write that found the device is not made twice.
            let written = self.wrote_at.get(index).is_some_and(|at| *at >= self.away_at);
            if mode == Some(WriteMode::Reconcile) && !written && !self.wishes.contains_key(index) {
                self.wishes.insert(*index, Wish::new(value.clone(), *version, Cause::Kept, now));
            }
        }
        for wish in self.wishes.values_mut().filter(|wish| !wish.written) {
            wish.at = now;
            wish.told = None;
        }
    }

    /// The device is away: every pending wish gets its reason, once.
    pub(super) fn on_away(&mut self, now: u64) -> Vec<Ack> {
        let offline = "device offline";
        self.away_at = now;
        let mut acks = Vec::new();
        for (index, wish) in &mut self.wishes {
            // Whether a device keeps over its absence what was not confirmed is not known.
            wish.written = false;
            acks.extend(wish.pend(*index, offline));
        }
        acks
    }

    /// A good reading: a device that drifted from what was applied is corrected if the profile says `restore`.
    pub(super) fn on_actual(&mut self, index: usize, property: &Property, equal: impl Fn(&Value) -> bool, now: u64) {
        let Some((value, version)) = self.kept.get(&index) else { return };
        if property.write.drift != Drift::Restore || self.wishes.contains_key(&index) || equal(value) {
            return;
        }
        let pause = property.write.min_interval.map_or(DRIFT_PAUSE_MS, |pause| millis(pause).max(DRIFT_PAUSE_MS));
        let settle = millis(property.write.settle).max(DRIFT_SETTLE_MS);
        if self.wrote_at.get(&index).is_some_and(|wrote| now < wrote + settle) {
            return;
        }
        let at = self.drift_at.get(&index).map_or(now, |last| now.max(last + pause));
        self.drift_at.insert(index, at);
        self.wishes.insert(index, Wish::new(value.clone(), *version, Cause::Kept, at));
    }

    /// Whether the applied value of any property is kept.
    pub(super) fn keeps_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether the applied value of a property is kept.
    pub(super) fn keeps(&self, index: usize) -> bool {
        self.kept.contains_key(&index)
    }

    /// The tick at which there is something to write or read back.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.wishes.values().map(|wish| wish.at).min()
    }

    /// The tick at which there is something to acknowledge again or to look at again.
    pub(super) fn next_look(&self) -> Option<u64> {
        let look = |settled: &Settled| match settled.stored_at {
            Some(at) => settled.again.map(|_| at + SETTLED_GRACE_MS),
            None => settled.send_at,
        };
        self.settled.values().filter_map(look).min()
    }

    /// What is to be done now, the longest waiting first.
    pub(super) fn due(&self, now: u64) -> Option<(usize, Deed)> {
        let due = self.wishes.iter().filter(|(_, wish)| wish.at <= now);
        let (index, wish) = due.min_by_key(|(_, wish)| wish.at)?;
        let value = wish.value.clone();
        Some((*index, if wish.written { Deed::ReadBack(value) } else { Deed::Write(value) }))
    }

    /// Whether a write of the property is not yet confirmed, so that a poll may still see the old value.
    pub(super) fn is_settling(&self, index: usize) -> bool {
        self.wishes.get(&index).is_some_and(|wish| wish.written)
    }

    /// When the property may be written at the earliest, by its `min_interval`; moves the wish there. `true` when that
    /// is later than now.
    pub(super) fn must_wait(&mut self, index: usize, property: &Property, now: u64) -> bool {
        let last = self.wrote_at.get(&index).copied();
        let at = property.write.min_interval.zip(last).map_or(now, |(pause, last)| last + millis(pause));
        match self.wishes.get_mut(&index) {
            Some(wish) if at > now && wish.cause != Cause::Rest => {
                wish.at = at;
                true
            }
            _ => false,
        }
    }

    /// A condition of the profile keeps the value from being written now.
    pub(super) fn on_not_now(&mut self, index: usize, reason: &str, now: u64) -> Option<Ack> {
        let wish = self.wishes.get_mut(&index)?;
        wish.at = now + RETRY_PAUSE_MAX_MS;
        wish.pend(index, reason)
    }

    /// The device took the write.
    pub(super) fn on_wrote(&mut self, index: usize, property: &Property, now: u64) -> Option<Ack> {
        self.wrote_at.insert(index, now);
        let wish = self.wishes.get_mut(&index)?;
        let reads_back = property.write.confirm == Confirm::ReadBack
            && property.access.reads()
            && property.write.mode != WriteMode::Pulse;
        if reads_back {
            wish.written = true;
            wish.at = now + millis(property.write.settle);
            return None;
        }
        let actual = (property.write.confirm != Confirm::None).then(|| wish.value.clone());
        self.end(index, property, DesiredState::Applied, actual, None, now)
    }

    /// The value was read back.
    pub(super) fn on_read_back(
        &mut self,
        index: usize,
        property: &Property,
        actual: &Value,
        equal: bool,
        now: u64,
    ) -> Option<Ack> {
        if equal {
            return self.end(index, property, DesiredState::Applied, Some(actual.clone()), None, now);
        }
        let wanted = &self.wishes.get(&index)?.value;
        let reason = format!("the device holds {actual} after {wanted} was written");
        self.again(index, property, Some(actual.clone()), reason, now)
    }

    /// A write or a read back did not work. `counts`: the device was known to answer, so its silence is about this
    /// value and not about the device.
    pub(super) fn on_error(
        &mut self,
        index: usize,
        property: &Property,
        error: &CallError,
        counts: bool,
        now: u64,
    ) -> Option<Ack> {
        let wish = self.wishes.get_mut(&index)?;
        match error {
            CallError::Refused(code @ 1..=3) if !wish.written => {
                let reason = Exception(*code).to_string();
                self.end(index, property, DesiredState::Rejected, None, Some(reason), now)
            }
            CallError::Invalid(reason) => {
                self.end(index, property, DesiredState::Rejected, None, Some(reason.clone()), now)
            }
            CallError::Busy(_) if wish.busy < BUSY_TRIES => {
                wish.at = now + pause(wish.busy);
                wish.busy += 1;
                None
            }
            CallError::Silent(_) | CallError::Gone(_)
                if property.write.mode == WriteMode::Pulse && wish.cause == Cause::Desired =>
            {
                // Whether the button was pressed is unknown; pressing it twice may be worse than not at all.
                self.end(index, property, DesiredState::Failed, None, Some(error.to_string()), now)
            }
            CallError::Silent(_) if !counts => {
                wish.at = now + pause(wish.attempt);
                None
            }
            CallError::Gone(_) => {
                wish.at = now;
                None
            }
            _ => self.again(index, property, None, error.to_string(), now),
        }
    }

    fn again(
        &mut self,
        index: usize,
        property: &Property,
        actual: Option<Value>,
        reason: String,
        now: u64,
    ) -> Option<Ack> {
        let wish = self.wishes.get_mut(&index)?;
        if wish.attempt >= property.write.retries {
            return self.end(index, property, DesiredState::Failed, actual, Some(reason), now);
        }
        wish.at = now + pause(wish.attempt);
        wish.attempt += 1;
        wish.written = false;
        None
    }

    fn end(
        &mut self,
        index: usize,
        property: &Property,
        state: DesiredState,
        actual: Option<Value>,
        reason: Option<String>,
        now: u64,
    ) -> Option<Ack> {
        let wish = self.wishes.remove(&index)?;
        if let Some(rest) = rest_value(property).filter(|_| state == DesiredState::Applied && wish.cause != Cause::Rest)
        {
            let at = now + property.write.pulse.map_or(0, millis);
            self.wishes.insert(index, Wish { at, ..Wish::new(rest, wish.version, Cause::Rest, now) });
        }
        if wish.cause != Cause::Desired {
            if state != DesiredState::Applied {
                // It was tried as often as the profile says; the next reading or the next reconnect tries again.
                self.drift_at.insert(index, now);
            }
            return None;
        }
        if state == DesiredState::Applied && is_kept(property) {
            self.kept.insert(index, (wish.value.clone(), wish.version));
        }
        let result = AckResult { state, actual, reason };
        let settled = Settled {
            value: wish.value,
            version: wish.version,
            result: result.clone(),
            stored_at: None,
            send_at: None,
            again: None,
        };
        self.settled.insert(index, settled);
        Some((index, wish.version, result))
    }

    /// The broker's word on an acknowledgement: stored, or not.
    pub(super) fn on_ack_stored(&mut self, index: usize, version: u64, stored: bool, now: u64) {
        let Some(settled) = self.settled.get_mut(&index).filter(|settled| settled.version == version) else { return };
        if stored {
            settled.stored_at = Some(now);
            settled.send_at = None;
        } else {
            settled.send_at = Some(now + ACK_AGAIN_MS);
        }
    }

    /// Acknowledgements that have to be sent again; what is wished anew becomes a wish.
    pub(super) fn on_look(&mut self, now: u64) -> Vec<Ack> {
        let mut acks = Vec::new();
        let mut anew = Vec::new();
        for (index, settled) in &mut self.settled {
            match (settled.stored_at, settled.again) {
                (Some(at), Some(version)) if at + SETTLED_GRACE_MS <= now => {
                    anew.push((*index, settled.value.clone(), version));
                }
                (None, _) if settled.send_at.is_some_and(|at| at <= now) => {
                    settled.send_at = None;
                    acks.push((*index, settled.version, settled.result.clone()));
                }
                _ => {}
            }
        }
        for (index, value, version) in anew {
            self.settled.remove(&index);
            self.wishes.insert(index, Wish::new(value, version, Cause::Desired, now));
        }
        acks
    }
}

impl Wish {
    fn new(value: Value, version: u64, cause: Cause, at: u64) -> Self {
        Self { value, version, cause, attempt: 0, busy: 0, at, written: false, told: None }
    }

    fn pend(&mut self, index: usize, reason: &str) -> Option<Ack> {
        if self.cause != Cause::Desired || self.told.as_deref() == Some(reason) {
            return None;
        }
        self.told = Some(reason.to_owned());
        let result = AckResult { state: DesiredState::Pending, actual: None, reason: self.told.clone() };
        Some((index, self.version, result))
    }
}

fn pause(attempt: u32) -> u64 {
    (RETRY_PAUSE_MS << attempt.min(16)).min(RETRY_PAUSE_MAX_MS)
}

fn rejected(reason: &str) -> AckResult {
    AckResult { state: DesiredState::Rejected, actual: None, reason: Some(reason.to_owned()) }
}

/// What ends a pulse: off, or 0.
fn rest_value(property: &Property) -> Option<Value> {
    if property.write.mode != WriteMode::Pulse || property.write.pulse.is_none() {
        return None;
    }
    match property.kind {
        Kind::Bool => Some(Value::Bool(false)),
        Kind::Int | Kind::Number => Some(Value::from(0)),
        _ => None,
    }
}
