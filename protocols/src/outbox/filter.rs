//! What may leave the site.
//!
//! In: the names that the user let through, payloads of local topics. Out: the same without everything else. Must never
//! let a property out in the company of others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::conflict::{ConflictRecord, Conflicts};
use super::{Item, Slot};
use crate::config::upstream::Filter;
use crate::message::{Delta, Document, Event};
use crate::name::{DeviceId, PropertyName};
use crate::value::Value;

/// Lets names through.
#[derive(Clone, Debug, Default)]
pub struct Sieve {
    devices: Filter,
    properties: Filter,
}

/// What of `gateway/status` leaves the site: the contract's keys but `upstream`. The other upstreams are nobody's
/// business over there, its own is what the status is said over, and the counters beside would never rest.
const GATEWAY_KEYS: [&str; 5] = ["gateway", "state", "version", "since", "devices"];

impl Sieve {
    /// A sieve of an upstream's two filters.
    pub fn new(devices: &Filter, properties: &Filter) -> Self {
        Self { devices: devices.clone(), properties: properties.clone() }
    }

    /// Whether anything of this device passes.
    pub fn device(&self, device: &DeviceId) -> bool {
        passes(&self.devices, device.as_str())
    }

    /// Whether a property of that name passes.
    pub fn property(&self, name: &str) -> bool {
        passes(&self.properties, name)
    }

    /// Whether this slot passes.
    pub fn slot(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Gateway => true,
            Slot::Device(device, Item::Reported(name) | Item::Desired(name)) => {
                self.device(device) && self.property(name.as_str())
            }
            Slot::Device(device, _) => self.device(device),
        }
    }

    /// A payload with nothing in it that does not pass; `item` is `None` for `gateway/status`. `None` when the payload
    /// cannot be read: then nobody knows what is in it.
    pub fn rewrite(&self, item: Option<&Item>, payload: &[u8]) -> Option<Vec<u8>> {
        match item {
            None => gateway(payload),
            Some(Item::Document) if !self.is_open() => self.document(payload),
            Some(Item::Delta) if !self.is_open() => self.delta(payload),
            Some(Item::Conflict) if !self.is_open() => self.conflicts(payload),
            Some(_) => Some(payload.to_vec()),
        }
    }

    /// An event with nothing in it that does not pass; `None` when nothing is left, or it cannot be read.
    pub fn event(&self, payload: &[u8]) -> Option<Vec<u8>> {
        if self.is_open() {
            return Some(payload.to_vec());
        }
        let mut told: Told = serde_json::from_slice(payload).ok()?;
        told.event.reported.retain(|name, _| self.property(name.as_str()));
        told.event.desired.retain(|name, _| self.property(name.as_str()));
        told.conflict.retain(|record| self.property(&record.property));
        let empty = told.event.reported.is_empty() && told.event.desired.is_empty() && told.conflict.is_empty();
        if empty { None } else { json(&told) }
    }

    /// Whether every property passes.
    fn is_open(&self) -> bool {
        self.properties.exclude.is_empty() && self.properties.include.iter().all(|pattern| pattern == "*")
    }

    fn document(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut document: Document = serde_json::from_slice(payload).ok()?;
        let reported = &mut document.reported;
        let before = reported.properties.len();
        reported.properties.retain(|name, _| self.property(name.as_str()));
        if reported.properties.len() < before {
            // The section's version would tell when something else changed. That of the desired section stays:
            // `if_version` compares with it.
            reported.version = reported.properties.values().map(|property| property.version).max().unwrap_or(0);
        }
        document.desired.properties.retain(|name, _| self.property(name.as_str()));
        self.pending(&mut document.delta);
        json(&document)
    }

    fn delta(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut delta: Delta = serde_json::from_slice(payload).ok()?;
        self.pending(&mut delta.desired);
        json(&delta)
    }

    fn pending(&self, delta: &mut BTreeMap<PropertyName, Value>) {
        delta.retain(|name, _| self.property(name.as_str()));
    }

    fn conflicts(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut conflicts: Conflicts = serde_json::from_slice(payload).ok()?;
        conflicts.conflicts.retain(|record| self.property(&record.property));
        conflicts.count = conflicts.conflicts.len() as u64;
        json(&conflicts)
    }
}

/// An event, or one that tells of conflicts.
#[derive(Serialize, Deserialize)]
struct Told {
    #[serde(flatten)]
    event: Event,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    conflict: Vec<ConflictRecord>,
}

fn gateway(payload: &[u8]) -> Option<Vec<u8>> {
    let mut keys: BTreeMap<String, Value> = serde_json::from_slice(payload).ok()?;
    keys.retain(|key, _| GATEWAY_KEYS.contains(&key.as_str()));
    json(&keys)
}

fn json<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}

fn passes(filter: &Filter, name: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
    (filter.include.is_empty() || any(&filter.include)) && !any(&filter.exclude)
}

/// Whether a name fits a pattern in which `*` is any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        // The first place is the best: it leaves most to what follows.
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}
