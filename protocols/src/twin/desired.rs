//! Wishes: how they come in, how they end.
//!
//! In: patches, acknowledgements, time, a new profile. Out: a [`Change`], or a [`Refusal`] that changed nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Leaf, Shape, Twin, Wish};
use crate::message::{DesiredAck, DesiredOut, DesiredSet, DesiredState, DeviceState, Event};
use crate::name::PropertyName;
use crate::profile::{Property, WriteMode};
use crate::value::{Now, Value, same};

/// The longest `by` of a request, in bytes; a longer one is refused rather than cut.
pub const BY_BYTES: usize = 128;

/// The longest reason that is kept with a wish, in bytes; the rest of a longer one is given up.
pub const REASON_BYTES: usize = 512;

/// How like a name must be to be offered for a misspelt one (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// What an input changed: to be stored first, then published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Desired properties to store; the topic of a held one is published, that of a cleared one is cleared.
    pub leaves: Vec<(PropertyName, Leaf)>,
    /// The last state of wishes that are cleared in the same step, published before their topics are cleared.
    pub last_words: Vec<(PropertyName, DesiredOut)>,
    /// Reported properties that the profile does not have any more: forgotten, their topics cleared.
    pub reported_gone: Vec<PropertyName>,
    /// Whether the delta is another one.
    pub delta: bool,
    /// Whether the status is another one.
    pub status: bool,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Acknowledged wishes that had been replaced, cleared or settled before; ignored.
    pub stale: usize,
}

impl Change {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && self.reported_gone.is_empty() && !self.delta && !self.status && self.events.is_empty()
    }
}

/// A request that was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 409 or 422, as in [`crate::message::Outcome`].
    pub code: u16,
    /// Property → why not; the request itself under an empty name.
    pub errors: BTreeMap<String, String>,
}

impl Refusal {
    /// A refusal of the request itself.
    pub fn whole(code: u16, why: impl Into<String>) -> Self {
        Self { code, errors: BTreeMap::from([(String::new(), why.into())]) }
    }
}

/// The desired half of a twin as it was, to go back to when a transaction fails.
#[derive(Clone, Debug)]
pub struct Undo {
    version: u64,
    pub(super) desired: BTreeMap<usize, Leaf>,
    stale_acks: u64,
}

/// One checked step of a patch.
enum Step {
    Hold(usize, Value),
    Clear(usize),
    /// The same wish again, still pending: only its time to live starts anew.
    Renew(usize),
}

impl Twin {
    /// Remembers the desired half.
    pub fn undo_point(&self) -> Undo {
        Undo { version: self.desired_version, desired: self.desired.clone(), stale_acks: self.stale_acks }
    }

    /// Puts the desired half back.
    pub fn undo(&mut self, undo: Undo) {
        self.desired_version = undo.version;
        self.desired = undo.desired;
        self.stale_acks = undo.stale_acks;
    }

    /// Takes a patch: all of it or nothing. `author` is who wishes it when the request does not say.
    ///
    /// # Errors
    /// 409 when `if_version` is another version than the section's; 422 when a property does not exist, cannot be
    /// written, or does not take the value.
    pub fn on_desired(&mut self, request: &DesiredSet, author: &str, now: Now) -> Result<Change, Refusal> {
        if let Some(wanted) = request.if_version.filter(|wanted| *wanted != self.desired_version) {
            let current = self.desired_version;
            return Err(Refusal::whole(409, format!("the desired section is at version {current}, not {wanted}")));
        }
        let by = request.by.as_deref().unwrap_or(author);
        if by.len() > BY_BYTES {
            return Err(Refusal::whole(422, format!("by is longer than {BY_BYTES} bytes")));
        }
        if request.ttl_s == Some(0) {
            return Err(Refusal::whole(422, "ttl_s must be at least 1"));
        }
        let steps = self.check(&request.patch)?;
        let mut change = Change::default();
        let from = self.desired_version;
        let to = from + 1;
        let mut event = self.event(from, to, now);
        let waits = self.waits_for();
        for step in steps {
            match step {
                Step::Hold(index, value) => {
                    let out = DesiredOut {
                        value,
                        version: to,
                        at: now.wall,
                        by: by.to_owned(),
                        state: DesiredState::Pending,
                        reason: Some(waits.to_owned()),
                    };
                    let mut wish = Wish { out, expires: None, ttl_s: None, actual: None, seen: 0, deadline: None };
                    wish.live(request.ttl_s, now);
                    self.supersede(index, to, now, &mut change);
                    self.put(index, Leaf::Held(wish), &mut event, &mut change);
                }
                Step::Clear(index) => {
                    self.supersede(index, to, now, &mut change);
                    let leaf = Leaf::Cleared { version: to, at: now.wall, by: by.to_owned() };
                    self.put(index, leaf, &mut event, &mut change);
                }
                Step::Renew(index) => self.renew(index, request.ttl_s, now, &mut change),
            }
        }
        if !event.desired.is_empty() {
            self.desired_version = to;
            change.delta = true;
            change.events.push(event);
        }
        Ok(change)
    }

    /// Takes the mapper's word on wishes. What was replaced or settled since is left alone and counted.
    ///
    /// # Errors
    /// 409 for a version that was never given out, 422 for a state that a mapper cannot give.
    pub fn on_ack(&mut self, ack: &DesiredAck, now: Now) -> Result<Change, Refusal> {
        if ack.version > self.desired_version {
            let current = self.desired_version;
            let why = format!("the desired section is at version {current}; {} was never given out", ack.version);
            return Err(Refusal::whole(409, why));
        }
        let foreign = |state| matches!(state, DesiredState::Superseded | DesiredState::Expired);
        let errors: BTreeMap<_, _> = ack.results.iter().filter(|(_, result)| foreign(result.state)).collect();
        if !errors.is_empty() {
            let why = |_| "write applied, rejected, failed or pending".to_owned();
            let errors = errors.into_keys().map(|name| (name.to_string(), why(()))).collect();
            return Err(Refusal { code: 422, errors });
        }
        let mut change = Change::default();
        let mut event = self.event(self.desired_version, self.desired_version, now);
        for (name, result) in &ack.results {
            let Some((index, mut wish)) = self.acknowledged(name.as_str(), ack.version) else {
                change.stale += 1;
                continue;
            };
            let known = wish.out.reason.clone().filter(|_| result.state == DesiredState::Pending);
            let reason = result.reason.as_deref().map(short).or(known);
            if wish.out.state == result.state && wish.out.reason == reason {
                continue;
            }
            wish.out.state = result.state;
            wish.out.reason = reason;
            if result.state == DesiredState::Applied {
                wish.actual.clone_from(&result.actual);
                wish.seen = self.held(index).map_or(0, |reading| reading.version);
            }
            self.settle(index, wish, &mut event, &mut change);
        }
        self.stale_acks += change.stale as u64;
        self.close(event, &mut change, now);
        Ok(change)
    }

    /// Why a new wish is pending, until its mapper says more: no wish is pending without a reason.
    fn waits_for(&self) -> &'static str {
        match self.status.state {
            DeviceState::Unknown => "no mapper has reported yet",
            DeviceState::Offline => "device offline",
            DeviceState::Online | DeviceState::Stale => "waiting for the device",
        }
    }

    /// The wish of that name if an acknowledgement of `version` speaks about it: pending, and not newer.
    fn acknowledged(&self, name: &str, version: u64) -> Option<(usize, Wish)> {
        let index = self.shape.find(name)?;
        let wish = self.desired.get(&index)?.held()?;
        (wish.out.version <= version && wish.out.state == DesiredState::Pending).then(|| (index, wish.clone()))
    }

    /// Ends wishes whose time ran out.
    pub(super) fn expire(&mut self, now: Now) -> Change {
        let mut change = Change::default();
        let mut event = self.event(self.desired_version, self.desired_version, now);
        let wishes = self.desired.iter().filter_map(|(index, leaf)| Some((*index, leaf.held()?)));
        let is_due = |wish: &Wish| wish.deadline.is_some_and(|deadline| deadline <= now.tick);
        let due = wishes.filter(|(_, wish)| wish.out.state == DesiredState::Pending && is_due(wish));
        let due: Vec<(usize, Wish)> = due.map(|(index, wish)| (index, wish.clone())).collect();
        for (index, mut wish) in due {
            wish.out.state = DesiredState::Expired;
            wish.out.reason = wish.ttl_s.map(|ttl| format!("not applied within {ttl} s"));
            self.settle(index, wish, &mut event, &mut change);
        }
        self.close(event, &mut change, now);
        change
    }

    /// Takes a new profile. Pending wishes that it does not accept end as rejected; what it does not have is gone.
    pub fn on_profile_change(&mut self, shape: Arc<Shape>, now: Now) -> Change {
        let mut change = Change::default();
        let old = std::mem::replace(&mut self.shape, shape);
        let count = self.shape.profile.properties.len();
        let reported = std::mem::replace(&mut self.reported, vec![None; count]);
        let desired = std::mem::take(&mut self.desired);
        self.heard = vec![now.tick; self.shape.watched.len()];
        let names = || old.profile.properties.iter().map(|property| property.name.clone());
        for (name, reading) in names().zip(reported).filter_map(|(name, reading)| Some((name, reading?))) {
            match self.shape.find(name.as_str()).and_then(|index| self.reported.get_mut(index)) {
                Some(slot) => *slot = Some(reading),
                None => change.reported_gone.push(name),
            }
        }
        if !change.reported_gone.is_empty() {
            self.reported_version += 1;
        }
        for (index, leaf) in desired {
            if let Some(property) = old.profile.properties.get(index) {
                self.fit(property.name.clone(), leaf, now, &mut change);
            }
        }
        change
    }

    /// Brings one desired property of the store back.
    pub(super) fn restore_leaf(&mut self, name: PropertyName, leaf: Leaf, now: Now, change: &mut Change) {
        let leaf = match leaf {
            Leaf::Held(mut wish) => {
                let ttl_ms = wish.ttl_s.unwrap_or(0).saturating_mul(1000);
                // Never longer than it was given: after a restart the wall clock may stand in 1970.
                let left = |expires: crate::value::Timestamp| {
                    u64::try_from(expires.as_ms().saturating_sub(now.wall.as_ms())).unwrap_or(0).min(ttl_ms)
                };
                wish.deadline = wish.expires.map(|expires| now.tick.saturating_add(left(expires)));
                Leaf::Held(wish)
            }
            cleared @ Leaf::Cleared { .. } => cleared,
        };
        let index = self.shape.find(name.as_str());
        let pulse = index.and_then(|index| self.shape.profile.properties.get(index)).is_some_and(is_pulse);
        match (index, leaf) {
            (Some(index), Leaf::Held(mut wish)) if pulse => {
                if wish.out.state == DesiredState::Pending {
                    wish.out.state = DesiredState::Expired;
                    wish.out.reason = Some("a pulse does not outlive a restart".to_owned());
                }
                let mut event = self.event(self.desired_version, self.desired_version, now);
                self.settle(index, wish, &mut event, change);
                self.close(event, change, now);
            }
            (_, leaf) => self.fit(name, leaf, now, change),
        }
    }

    /// Puts a kept desired property where the profile has it, and ends what the profile does not accept.
    fn fit(&mut self, name: PropertyName, leaf: Leaf, now: Now, change: &mut Change) {
        let verdict = match (self.shape.property(name.as_str()), leaf.held()) {
            (None, _) => Err("the profile has no such property any more".to_owned()),
            (Some(_), None) => Ok(()),
            (Some(property), Some(_)) if !property.access.writes() => Err("read-only by now".to_owned()),
            (Some(property), Some(wish)) if wish.out.state == DesiredState::Pending => {
                property.accept(&wish.out.value).map(|_| ())
            }
            _ => Ok(()),
        };
        let Err(why) = verdict else {
            if let Some(index) = self.shape.find(name.as_str()) {
                self.desired.insert(index, leaf);
            }
            return;
        };
        let Leaf::Held(mut wish) = leaf else { return };
        let pending = wish.out.state == DesiredState::Pending;
        if pending {
            wish.out.state = DesiredState::Rejected;
            wish.out.reason = Some(short(&why));
            let mut event = self.event(self.desired_version, self.desired_version, now);
            event.desired.insert(name.clone(), Some(wish.out.clone()));
            change.events.push(event);
            change.delta = true;
        }
        let kept = self.shape.property(name.as_str()).is_some_and(|property| property.access.writes());
        if let Some(index) = self.shape.find(name.as_str()).filter(|_| kept) {
            self.desired.insert(index, Leaf::Held(wish.clone()));
            change.leaves.push((name, Leaf::Held(wish)));
            return;
        }
        let from = self.desired_version;
        self.desired_version = from + 1;
        let mut event = self.event(from, from + 1, now);
        event.desired.insert(name.clone(), None);
        change.events.push(event);
        change.delta = true;
        let cleared = Leaf::Cleared { version: from + 1, at: now.wall, by: "profile".to_owned() };
        if let Some(index) = self.shape.find(name.as_str()) {
            self.desired.insert(index, cleared.clone());
        }
        if pending {
            change.last_words.push((name.clone(), wish.out));
        }
        change.leaves.push((name, cleared));
    }

    /// Checks a patch against the profile without touching anything.
    fn check(&self, patch: &BTreeMap<String, Value>) -> Result<Vec<Step>, Refusal> {
        let mut steps = Vec::with_capacity(patch.len());
        let mut errors = BTreeMap::new();
        for (name, value) in patch {
            match self.check_one(name, value) {
                Ok(step) => steps.extend(step),
                Err(why) => {
                    errors.insert(shown(name), why);
                }
            }
        }
        if errors.is_empty() { Ok(steps) } else { Err(Refusal { code: 422, errors }) }
    }

    fn check_one(&self, name: &str, value: &Value) -> Result<Option<Step>, String> {
        let index = self.shape.find(name);
        let Some((index, property)) = index.and_then(|index| Some((index, self.shape.profile.properties.get(index)?)))
        else {
            return Err(unknown(name, &self.shape));
        };
        let held = self.desired.get(&index).and_then(Leaf::held);
        if !property.access.writes() {
            return Err("is read-only".to_owned());
        }
        if value.is_null() {
            return Ok(held.map(|_| Step::Clear(index)));
        }
        let value = property.accept(value)?;
        match held.filter(|wish| same(&wish.out.value, &value)) {
            Some(wish) if wish.out.state == DesiredState::Pending => Ok(Some(Step::Renew(index))),
            Some(wish) if wish.out.state == DesiredState::Applied && !self.drifted(index, wish) => Ok(None),
            _ => Ok(Some(Step::Hold(index, value))),
        }
    }

    /// Whether the device reported another value after it had taken this one.
    fn drifted(&self, index: usize, wish: &Wish) -> bool {
        let held = wish.actual.as_ref().filter(|actual| !actual.is_null()).unwrap_or(&wish.out.value);
        self.held(index)
            .is_some_and(|now| now.version > wish.seen && !now.quality.is_bad() && !same(&now.value.to_value(), held))
    }

    /// Tells that a pending wish is replaced or taken back.
    fn supersede(&mut self, index: usize, by_version: u64, now: Now, change: &mut Change) {
        let Some(Leaf::Held(wish)) = self.desired.get(&index) else { return };
        if wish.out.state != DesiredState::Pending {
            return;
        }
        let mut out = wish.out.clone();
        out.state = DesiredState::Superseded;
        out.reason = Some(format!("replaced by version {by_version}"));
        let mut event = self.event(self.desired_version, self.desired_version, now);
        if let Some(name) = self.name(index) {
            event.desired.insert(name.clone(), Some(out));
            change.events.push(event);
        }
    }

    fn renew(&mut self, index: usize, ttl_s: Option<u64>, now: Now, change: &mut Change) {
        let Some(name) = self.name(index).cloned() else { return };
        let Some(Leaf::Held(wish)) = self.desired.get_mut(&index) else { return };
        if ttl_s.is_some() {
            wish.live(ttl_s, now);
            change.leaves.push((name, Leaf::Held(wish.clone())));
        }
    }

    /// Puts a leaf of the event's version into its place.
    fn put(&mut self, index: usize, leaf: Leaf, event: &mut Event, change: &mut Change) {
        let Some(name) = self.name(index).cloned() else { return };
        event.desired.insert(name.clone(), leaf.held().map(|wish| wish.out.clone()));
        self.desired.insert(index, leaf.clone());
        change.leaves.push((name, leaf));
    }

    /// Writes down how a wish stands now; a pulse that has ended is marked to be cleared by [`Twin::close`].
    fn settle(&mut self, index: usize, wish: Wish, event: &mut Event, change: &mut Change) {
        change.delta |= wish.out.state != DesiredState::Pending;
        self.put(index, Leaf::Held(wish), event, change);
    }

    /// Ends a step that moved no version: its event, then the clearing of pulses that have ended with it.
    fn close(&mut self, event: Event, change: &mut Change, now: Now) {
        if event.desired.is_empty() {
            return;
        }
        let from = self.desired_version;
        let mut clearing = self.event(from, from + 1, now);
        for (name, out) in event.desired.iter().filter_map(|(name, out)| Some((name, out.as_ref()?))) {
            let ended = out.state != DesiredState::Pending && self.shape.property(name.as_str()).is_some_and(is_pulse);
            if let Some(index) = self.shape.find(name.as_str()).filter(|_| ended) {
                change.leaves.retain(|(kept, _)| kept != name);
                change.last_words.push((name.clone(), out.clone()));
                let leaf = Leaf::Cleared { version: from + 1, at: now.wall, by: out.by.clone() };
                self.put(index, leaf, &mut clearing, change);
            }
        }
        change.events.push(event);
        if !clearing.desired.is_empty() {
            self.desired_version = from + 1;
            change.events.push(clearing);
        }
    }

    fn event(&self, from: u64, to: u64, now: Now) -> Event {
        let epoch = self.epoch.to_string();
        Event { epoch, from, to, reported: BTreeMap::new(), desired: BTreeMap::new(), at: now.wall }
    }
}

impl Wish {
    /// Starts its time to live.
    fn live(&mut self, ttl_s: Option<u64>, now: Now) {
        let ttl_ms = ttl_s.map(|ttl| ttl.saturating_mul(1000));
        self.ttl_s = ttl_s;
        self.deadline = ttl_ms.map(|ttl| now.tick.saturating_add(ttl));
        let wall = now.wall.as_ms();
        let end = |ttl: u64| wall.saturating_add(i64::try_from(ttl).unwrap_or(i64::MAX));
        self.expires = ttl_ms.map(|ttl| crate::value::Timestamp::from_ms(end(ttl)));
    }
}

fn is_pulse(property: &Property) -> bool {
    property.write.mode == WriteMode::Pulse
}

fn unknown(name: &str, shape: &Shape) -> String {
    let likeness = |known: &PropertyName| strsim::jaro_winkler(name, known.as_str());
    let names = shape.profile.properties.iter().map(|property| &property.name);
    match names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|best| likeness(best) >= ALIKE) {
        Some(best) => format!("no such property; did you mean \"{best}\"?"),
        None => "no such property".to_owned(),
    }
}

/// A name as a key of an answer: no longer than a name can be.
fn shown(name: &str) -> String {
    name.chars().take(crate::name::NAME_BYTES).collect()
}

fn short(reason: &str) -> String {
    let mut end = reason.len().min(REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default().to_owned()
}
