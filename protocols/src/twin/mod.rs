//! The twin of one device: what it says, what is wished of it, and how the wish stands.
//!
//! In: readings, wishes, acknowledgements, the device's status, the time. Out: what changed — for whoever stores and
//! publishes it — and the documents of the contract, section 3. Must never let a version go back, never settle a newer
//! wish with an older acknowledgement, and never show a bad reading as a number.
//!
//! Rules that the contract leaves open and this room decides:
//!
//! * An empty section has version 0; the first change makes it 1.
//! * An acknowledgement or an expiry changes how a wish stands, not what is wished: no version moves, and its event
//!   has `from` equal to `to`.
//! * The same wish again is a new one (and gets a new version) when the old one was rejected, failed or expired, or when
//!   it was applied and the device has left the value since. Otherwise nothing changes.
//! * A bare `null` reading is a number that JSON cannot write: `bad:nan`.
//! * `by` is what the request says, else the author's user name, else its client id.

mod desired;
mod document;
mod readings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use desired::{BY_BYTES, Change, REASON_BYTES, Refusal, Undo};
pub use readings::Readings;

use crate::message::{DesiredOut, DesiredState, DeviceState, DeviceStatus, LastGood, ReportedOut, ReportedSet};
use crate::name::{DeviceId, PropertyName};
use crate::profile::{Profile, Property, ReportMode};
use crate::value::{Now, Packed, Quality, Timestamp, Value, Why};

/// What all twins of one profile share: the profile and where its properties stand.
#[derive(Debug)]
pub struct Shape {
    profile: Arc<Profile>,
    index: HashMap<PropertyName, usize>,
    /// Properties whose silence means something, in order: index and the longest silence in milliseconds.
    watched: Vec<(usize, u64)>,
}

impl Shape {
    /// Prepares a profile.
    pub fn new(profile: Arc<Profile>) -> Arc<Self> {
        let index = profile.properties.iter().enumerate().map(|(at, property)| (property.name.clone(), at)).collect();
        let watched = profile.properties.iter().enumerate().filter_map(|(at, property)| Some((at, silence(property)?)));
        let watched = watched.collect();
        Arc::new(Self { profile, index, watched })
    }

    /// The profile.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Where the property of that name stands in [`Profile::properties`].
    pub fn find(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Where a property stands among the watched ones.
    fn watch(&self, index: usize) -> Option<usize> {
        self.watched.binary_search_by_key(&index, |(index, _)| *index).ok()
    }

    fn property(&self, name: &str) -> Option<&Property> {
        self.profile.properties.get(self.find(name)?)
    }
}

/// How long a property may be silent before the device counts as stale. Only where its mapper promises a message in a
/// stated time: a value that is reported on change alone may rightly be silent for ever, and its mapper, which sees
/// the readings behind, says itself when it is stale.
fn silence(property: &Property) -> Option<u64> {
    let age = property.max_age?;
    let heartbeat = match property.report.mode {
        ReportMode::Always => std::time::Duration::ZERO,
        _ => property.report.max_interval?,
    };
    u64::try_from((age + heartbeat).as_millis()).ok()
}

/// What the store keeps of one desired property.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leaf {
    /// A wish, however it stands.
    Held(Wish),
    /// The mark of a cleared wish; it stays, so that a deleted property does not come back from anywhere.
    Cleared {
        /// The version of the desired section that cleared it.
        version: u64,
        /// When.
        at: Timestamp,
        /// Who.
        by: String,
    },
}

impl Leaf {
    /// The version of the desired section that brought it.
    pub fn version(&self) -> u64 {
        match self {
            Self::Held(wish) => wish.out.version,
            Self::Cleared { version, .. } => *version,
        }
    }

    /// The wish, if it is one.
    pub fn held(&self) -> Option<&Wish> {
        match self {
            Self::Held(wish) => Some(wish),
            Self::Cleared { .. } => None,
        }
    }
}

/// One wish with what is not published of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    /// What is published.
    pub out: DesiredOut,
    /// When it expires by the wall clock; used after a restart only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How long it may be pending, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// What the device held when it was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Value>,
    /// The reported version of the property at that moment; a later one with another value is a drift.
    #[serde(default)]
    pub seen: u64,
    /// When it expires by the tick of this run.
    #[serde(skip)]
    pub deadline: Option<u64>,
}

/// What a [`Twin`] is made of again after a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// The version of the reported section, or the highest that may have been published.
    pub reported_version: u64,
    /// Reported properties.
    pub reported: Vec<(PropertyName, ReportedOut)>,
    /// Desired properties, cleared ones too.
    pub desired: Vec<(PropertyName, Leaf)>,
}

/// What a report changed. Indexes are those of [`Profile::properties`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The version before …
    pub from: u64,
    /// … and after; the same when no value or quality changed.
    pub to: u64,
    /// Properties with a new value or quality.
    pub changed: Vec<usize>,
    /// Properties of which only the time moved.
    pub touched: Vec<usize>,
    /// Readings of properties that the profile does not have; they were left out.
    pub unknown: Vec<PropertyName>,
    /// Whether the status changed: a stale device that speaks is online.
    pub status: bool,
}

/// A reported property as it is held: there is one for each property of each device.
#[derive(Clone, Debug)]
struct Held {
    value: Packed,
    at: Timestamp,
    version: u64,
    /// While the value is doubtful or bad; most never are.
    last_good: Option<Box<LastGood>>,
    quality: Quality,
}

impl From<ReportedOut> for Held {
    fn from(out: ReportedOut) -> Self {
        let ReportedOut { value, quality, at, version, last_good } = out;
        Self { value: value.into(), at, version, last_good, quality }
    }
}

impl Held {
    fn out(&self) -> ReportedOut {
        let Self { value, quality, at, version, last_good } = self;
        let (value, last_good) = (value.to_value(), last_good.clone());
        ReportedOut { value, quality: *quality, at: *at, version: *version, last_good }
    }
}

/// The twin of one device.
#[derive(Debug)]
pub struct Twin {
    device: DeviceId,
    epoch: Arc<str>,
    shape: Arc<Shape>,
    reported_version: u64,
    reported: Vec<Option<Held>>,
    /// When each of the [`Shape::watched`] was heard of.
    heard: Vec<u64>,
    desired_version: u64,
    /// By index; few properties are wished for, so only those take room.
    desired: BTreeMap<usize, Leaf>,
    status: DeviceStatus,
    stale_acks: u64,
}

impl Twin {
    /// The twin of a device that was never seen.
    pub fn new(device: DeviceId, epoch: Arc<str>, shape: Arc<Shape>, now: Now) -> Self {
        let (count, watched) = (shape.profile.properties.len(), shape.watched.len());
        Self {
            device,
            epoch,
            shape,
            reported_version: 0,
            reported: vec![None; count],
            heard: vec![now.tick; watched],
            desired_version: 0,
            desired: BTreeMap::new(),
            status: DeviceStatus { state: DeviceState::Unknown, since: Some(now.wall), reason: None },
            stale_acks: 0,
        }
    }

    /// The twin as it was kept, and what the time between changed: a pulse that was still pending has expired, and
    /// what the profile no longer has is gone. The status is unknown until the mapper speaks.
    pub fn restore(device: DeviceId, epoch: Arc<str>, shape: Arc<Shape>, saved: Saved, now: Now) -> (Self, Change) {
        let mut twin = Self::new(device, epoch, shape, now);
        let mut change = Change::default();
        twin.reported_version = saved.reported_version;
        for (name, reading) in saved.reported {
            twin.reported_version = twin.reported_version.max(reading.version);
            match twin.shape.find(name.as_str()).and_then(|at| twin.reported.get_mut(at)) {
                Some(slot) => *slot = Some(reading.into()),
                None => change.reported_gone.push(name),
            }
        }
        twin.desired_version = saved.desired.iter().map(|(_, leaf)| leaf.version()).max().unwrap_or(0);
        for (name, leaf) in saved.desired {
            twin.restore_leaf(name, leaf, now, &mut change);
        }
        if !change.reported_gone.is_empty() {
            twin.reported_version += 1;
        }
        (twin, change)
    }

    /// After an end that was not clean: what is restored may be older than what was published, so every reported
    /// property is told anew, under one version above all that can have been. Without it a property would go back to the
    /// version of its last flush, and who has seen a newer one would take what is there now for old. Says whether there
    /// is any. The caller has to have the new version on disk before anybody hears of it.
    pub fn renew_reported(&mut self) -> bool {
        let version = self.reported_version + 1;
        let mut any = false;
        for (index, reading) in self.reported.iter_mut().enumerate() {
            let Some(reading) = reading else { continue };
            // A reading from before the wish was applied says nothing about what the device did afterwards.
            if let Some(Leaf::Held(wish)) = self.desired.get_mut(&index)
                && reading.version <= wish.seen
            {
                wish.seen = version;
            }
            reading.version = version;
            any = true;
        }
        self.reported_version += u64::from(any);
        any
    }

    /// The device.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// What it shares with the other twins of its profile.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// The version of the reported section.
    pub fn reported_version(&self) -> u64 {
        self.reported_version
    }

    /// The version of the desired section.
    pub fn desired_version(&self) -> u64 {
        self.desired_version
    }

    /// Whether the device answers.
    pub fn status(&self) -> &DeviceStatus {
        &self.status
    }

    /// Acknowledgements of wishes that had been replaced or settled before.
    pub fn stale_acks(&self) -> u64 {
        self.stale_acks
    }

    /// The reported property at this index.
    pub fn reported(&self, index: usize) -> Option<ReportedOut> {
        self.held(index).map(Held::out)
    }

    fn held(&self, index: usize) -> Option<&Held> {
        self.reported.get(index)?.as_ref()
    }

    /// The name of the property at this index.
    pub fn name(&self, index: usize) -> Option<&PropertyName> {
        self.shape.profile.properties.get(index).map(|property| &property.name)
    }

    /// Indexes of the properties that were ever reported.
    pub fn reported_indexes(&self) -> impl Iterator<Item = usize> + '_ {
        self.reported.iter().enumerate().filter_map(|(index, slot)| slot.as_ref().map(|_| index))
    }

    /// The desired property of that name, cleared or not.
    pub fn leaf(&self, name: &str) -> Option<&Leaf> {
        self.desired.get(&self.shape.find(name)?)
    }

    /// The desired properties that are held.
    pub fn wishes(&self) -> impl Iterator<Item = (&PropertyName, &Wish)> {
        self.desired.iter().filter_map(|(index, leaf)| Some((self.name(*index)?, leaf.held()?)))
    }

    /// What is pending.
    pub fn pending(&self) -> impl Iterator<Item = (&PropertyName, &Value)> {
        let pending = self.wishes().filter(|(_, wish)| wish.out.state == DesiredState::Pending);
        pending.map(|(name, wish)| (name, &wish.out.value))
    }

    /// Whether a pending wish may expire.
    pub fn is_waiting(&self) -> bool {
        self.wishes().any(|(_, wish)| wish.deadline.is_some() && wish.out.state == DesiredState::Pending)
    }

    /// [`Twin::on_readings`] for a message that was read already.
    pub fn on_report(&mut self, set: ReportedSet, now: Now) -> Reported {
        self.on_readings(self.shape.readings_of(set), now)
    }

    /// Takes readings in, as [`Shape::readings`] of this twin's shape gave them. One message is one step of the
    /// section's version, if it changes a value or a quality.
    pub fn on_readings(&mut self, readings: Readings, now: Now) -> Reported {
        let from = self.reported_version;
        let Readings { at, known, unknown } = readings;
        let mut outcome = Reported { from, to: from, unknown, ..Reported::default() };
        outcome.changed.reserve(known.len());
        let set_at = at.unwrap_or(now.wall);
        for (index, reading) in known {
            // an index of another shape points nowhere, or to a property of its own
            let Some(slot) = self.reported.get_mut(index) else { continue };
            if let Some(heard) = self.shape.watch(index).and_then(|place| self.heard.get_mut(place)) {
                *heard = now.tick;
            }
            let at = reading.at.unwrap_or(set_at);
            if merge(slot, reading.value, reading.quality, at, from + 1) {
                outcome.changed.push(index);
            } else {
                outcome.touched.push(index);
            }
        }
        if !outcome.changed.is_empty() {
            self.reported_version = from + 1;
            outcome.to = from + 1;
        }
        if self.status.state == DeviceState::Stale && self.silent(now).is_none() {
            self.status = DeviceStatus { state: DeviceState::Online, since: Some(now.wall), reason: None };
            outcome.status = true;
        }
        outcome
    }

    /// Takes the mapper's word on the device. Says whether it is news.
    pub fn on_status(&mut self, status: DeviceStatus, now: Now) -> bool {
        if status.state == self.status.state && status.reason == self.status.reason {
            return false;
        }
        let since = match status.state == self.status.state {
            true => self.status.since,
            false => status.since.or(Some(now.wall)),
        };
        if status.state == DeviceState::Online {
            // Silence is counted from the moment the device could speak again.
            self.heard.fill(now.tick);
        }
        self.status = DeviceStatus { since, ..status };
        true
    }

    /// Lets time pass: wishes expire, and an online device that is silent for too long becomes stale.
    pub fn on_time(&mut self, now: Now) -> Change {
        let mut change = self.expire(now);
        if self.status.state == DeviceState::Online
            && let Some(reason) = self.silent(now)
        {
            self.status = DeviceStatus { state: DeviceState::Stale, since: Some(now.wall), reason: Some(reason) };
            change.status = true;
        }
        change
    }

    /// Why the device counts as silent, if it does.
    fn silent(&self, now: Now) -> Option<String> {
        let watched = self.shape.watched.iter().zip(&self.heard);
        let mut silences = watched.map(|((index, longest), heard)| (index, longest, now.tick.saturating_sub(*heard)));
        let (index, _, silence) = silences.find(|(_, longest, silence)| silence > longest)?;
        Some(format!("{}: no reading for {} s", self.name(*index)?, silence / 1000))
    }
}

/// Puts one reading into its slot; says whether value or quality are new.
fn merge(slot: &mut Option<Held>, value: Value, quality: Quality, at: Timestamp, version: u64) -> bool {
    let quality = if value.is_null() && !quality.is_bad() { Quality::Bad(Why::Nan) } else { quality };
    let value = Packed::from(if quality.is_bad() { Value::Null } else { value });
    let Some(old) = slot else {
        *slot = Some(Held { value, quality, at, version, last_good: None });
        return true;
    };
    if old.quality == quality && old.value.is_same(&value) {
        old.at = at;
        return false;
    }
    let last_good = match (quality, old.quality) {
        (Quality::Good, _) => None,
        (_, Quality::Good) => Some(Box::new(LastGood { value: old.value.to_value(), at: old.at })),
        _ => old.last_good.take(),
    };
    *old = Held { value, quality, at, version, last_good };
    true
}
