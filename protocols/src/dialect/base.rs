//! What three clouds have in common: what was last heard of each wish, and readings in bulk.
//!
//! In: desired values as a cloud holds them. Out: which of them are news, what became of the others, and all of it as
//! text that survives a restart. Must never take a wish for news that was heard before: a value that a person has
//! changed at the device since would be undone by every reconnect.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::Site;
use crate::message::{DesiredOut, DesiredState, ReportedOut};
use crate::name::DeviceId;
use crate::outbox::{Class, Streamed};
use crate::value::{Value, same};

/// Bytes of streamed readings in one message: every cloud takes 64 KiB, and a lost message costs little.
pub(super) const READINGS_BYTES: usize = 32 << 10;

/// The twin's "not now": the wish is neither taken nor refused, and has to be heard again.
pub(super) const NOT_NOW: u16 = 503;

/// One desired value as the cloud has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Leaf {
    /// The value.
    pub(super) value: Value,
    /// Its age in the cloud's own count: a version, or seconds.
    #[serde(default)]
    pub(super) stamp: u64,
    /// The local version that the wish got; `None` while it was not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) local: Option<u64>,
    /// It has come to its end here, and the cloud should know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) done: bool,
    /// Why it was refused at the door, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) no: Option<String>,
}

/// The wishes of one device as last heard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Base {
    /// The cloud's version of its document; 0 where there is none.
    #[serde(default)]
    pub(super) version: u64,
    /// Property, in the cloud's spelling → wish.
    #[serde(default)]
    pub(super) leaves: BTreeMap<String, Leaf>,
}

impl Base {
    /// What an earlier run remembered; nothing where it cannot be read, which costs a wish heard twice.
    pub(super) fn from_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// As text for the store.
    pub(super) fn to_text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// Takes in a desired value, `None` for one that is no longer there. Gives what is wished if that is news: another
    /// value, a later stamp, or a wish of which nobody knows whether it arrived.
    pub(super) fn hear(&mut self, name: &str, value: Option<&Value>, stamp: u64) -> Option<Value> {
        let Some(value) = value else {
            let gone = self.leaves.remove(name)?;
            return (!gone.done).then_some(Value::Null);
        };
        let known = self.leaves.get(name);
        let old = known
            .is_some_and(|leaf| same(&leaf.value, value) && leaf.stamp >= stamp && (leaf.local.is_some() || leaf.done));
        if old {
            return None;
        }
        let leaf = Leaf { value: value.clone(), stamp, local: None, done: false, no: None };
        self.leaves.insert(name.to_owned(), leaf);
        Some(value.clone())
    }

    /// The twin took the wish as this local version.
    pub(super) fn accepted(&mut self, name: &str, local: u64) {
        if let Some(leaf) = self.leaves.get_mut(name) {
            leaf.local = Some(local);
        }
    }

    /// The twin's door said no; the wish is at its end.
    pub(super) fn refused(&mut self, name: &str, code: u16, errors: &BTreeMap<String, String>) {
        if let Some(leaf) = self.leaves.get_mut(name) {
            let why = errors.get(name).or_else(|| errors.values().next());
            leaf.done = true;
            leaf.no = Some(why.cloned().unwrap_or_else(|| format!("refused with {code}")));
        }
    }

    /// Whether the local desired value is the end of the cloud's wish: settled, or overtaken by another one.
    pub(super) fn ends(&self, name: &str, desired: &DesiredOut) -> Option<DesiredState> {
        let leaf = self.leaves.get(name).filter(|leaf| !leaf.done)?;
        let local = leaf.local?;
        if desired.version > local && !same(&desired.value, &leaf.value) {
            return Some(DesiredState::Superseded);
        }
        (same(&desired.value, &leaf.value) && desired.state != DesiredState::Pending).then_some(desired.state)
    }
}

/// The word of a state.
pub(super) fn word(state: DesiredState) -> &'static str {
    match state {
        DesiredState::Pending => "pending",
        DesiredState::Applied => "applied",
        DesiredState::Rejected => "rejected",
        DesiredState::Failed => "failed",
        DesiredState::Superseded => "superseded",
        DesiredState::Expired => "expired",
    }
}

/// The reported value that can be shown: the value, or the last good one while there is none.
pub(super) fn shown(reported: &ReportedOut) -> Option<&Value> {
    if reported.value.is_null() { reported.last_good.as_ref().map(|good| &good.value) } else { Some(&reported.value) }
        .filter(|value| !value.is_null())
}

/// Whether `null` stands anywhere in a value.
pub(super) fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(holds_null),
        Value::Object(members) => members.values().any(holds_null),
        _ => false,
    }
}

/// How deep a value is: 0 for a number, 1 for an array of numbers.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Merges a patch into a document as the clouds do: objects member by member, `null` deletes, the rest is replaced.
pub(super) fn merge(document: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                document.remove(key);
            }
            Value::Object(members) => {
                let place = document.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Some(place) = place.as_object_mut() {
                    merge(place, members);
                }
            }
            _ => {
                document.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Puts one patch behind another; unlike a merge it keeps `null`, which deletes.
pub(super) fn join(patch: &mut Map<String, Value>, more: Map<String, Value>) {
    for (key, value) in more {
        match (patch.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(members)) => join(there, members),
            (_, value) => {
                patch.insert(key, value);
            }
        }
    }
}

/// The members of an object.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// The word of a class.
pub(super) fn class_word(class: Class) -> &'static str {
    match class {
        Class::Alarm => "alarm",
        Class::Metric => "metric",
    }
}

/// One streamed reading: what the device said, and the number by which a receiver deduplicates.
fn reading(streamed: &Streamed) -> Option<Value> {
    let said: ReportedOut = serde_json::from_slice(&streamed.payload).ok()?;
    Some(json!({"property": streamed.property, "value": said.value, "quality": said.quality, "at": said.at,
        "version": said.version, "class": class_word(streamed.class), "seq": streamed.seq}))
}

/// Streamed readings as documents, one device in each and no larger than [`READINGS_BYTES`].
pub(super) fn readings(streamed: &[Streamed], site: &Site) -> Vec<(DeviceId, Value)> {
    let mut documents: Vec<(DeviceId, Vec<Value>)> = Vec::new();
    let mut bytes = 0;
    for one in streamed {
        let Some(reading) = reading(one) else { continue };
        let length = one.payload.len() + 160;
        match documents.last_mut() {
            Some((device, readings)) if *device == one.device && bytes + length <= READINGS_BYTES => {
                readings.push(reading);
                bytes += length;
            }
            _ => {
                documents.push((one.device.clone(), vec![reading]));
                bytes = length;
            }
        }
    }
    let document = |device: &DeviceId, readings: Vec<Value>| json!({"gateway": site.gateway, "device": device, "epoch": site.epoch, "readings": readings});
    documents.into_iter().map(|(device, readings)| (device.clone(), document(&device, readings))).collect()
}
