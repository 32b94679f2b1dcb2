//! When two contents of a slot count as one.
//!
//! In: the payload of a local topic. Out: a [`Stamp`]. Must never change for the mere time of a reading — an idle
//! link stays idle — and must never stay for another value.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Item, Stamp};
use crate::message::{Delta, DesiredOut, DeviceStatus, Document};
use crate::value::Value;

/// The stamp of a payload; `item` is `None` for `gateway/status`.
///
/// * A reported property is its epoch and version: a version is used once.
/// * A desired property is its version, value, state and reason; a delta its version and what is pending.
/// * A status is its state, reason and beginning.
/// * A document is all that, without `at` and without the times of readings that were only touched. The version of the
///   reported section does not count by itself: whatever moves it moves the version of a property as well, and in a
///   filtered document it would tell of properties that are not in it.
/// * `gateway/status` is the contract's keys but `upstream`; counters beside them move all the time, and the state of
///   an upstream moves because its status is said.
///
/// A payload that cannot be read is all its bytes.
pub fn stamp(item: Option<&Item>, payload: &[u8], epoch: &str) -> Stamp {
    let mut digest = Digest::new(epoch);
    let read = match item {
        None => gateway(payload, &mut digest),
        Some(Item::Reported(_)) => reported(payload, &mut digest),
        Some(Item::Desired(_)) => desired(payload, &mut digest),
        Some(Item::Delta) => delta(payload, &mut digest),
        Some(Item::Status) => status(payload, &mut digest),
        Some(Item::Document) => document(payload, &mut digest),
        Some(Item::Conflict) => None,
    };
    if read.is_none() {
        digest = Digest::new(epoch);
        digest.text("bytes");
        digest.bytes(payload);
    }
    digest.stamp()
}

fn reported(payload: &[u8], digest: &mut Digest) -> Option<()> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    digest.number(serde_json::from_slice::<Versioned>(payload).ok()?.version);
    Some(())
}

fn desired(payload: &[u8], digest: &mut Digest) -> Option<()> {
    let out: DesiredOut = serde_json::from_slice(payload).ok()?;
    digest.desired(&out);
    Some(())
}

fn delta(payload: &[u8], digest: &mut Digest) -> Option<()> {
    let delta: Delta = serde_json::from_slice(payload).ok()?;
    digest.text(&delta.epoch);
    digest.number(delta.version);
    for (name, value) in &delta.desired {
        digest.text(name.as_str());
        digest.value(value);
    }
    Some(())
}

fn status(payload: &[u8], digest: &mut Digest) -> Option<()> {
    digest.status(&serde_json::from_slice(payload).ok()?);
    Some(())
}

fn document(payload: &[u8], digest: &mut Digest) -> Option<()> {
    let document: Document = serde_json::from_slice(payload).ok()?;
    digest.text(&document.device);
    digest.text(&document.profile);
    digest.optional(document.profile_hash.as_deref());
    digest.text(&document.epoch);
    digest.status(&document.status);
    for (name, property) in &document.reported.properties {
        digest.text(name.as_str());
        digest.number(property.version);
    }
    digest.number(document.desired.version);
    for (name, property) in &document.desired.properties {
        digest.text(name.as_str());
        digest.desired(property);
    }
    Some(())
}

fn gateway(payload: &[u8], digest: &mut Digest) -> Option<()> {
    let status: BTreeMap<String, Value> = serde_json::from_slice(payload).ok()?;
    for key in ["gateway", "state", "version", "since", "devices"] {
        digest.value(status.get(key).unwrap_or(&Value::Null));
    }
    Some(())
}

/// FNV-1a over texts with their lengths, so that no two sequences run into one.
struct Digest(u64);

impl Digest {
    fn new(epoch: &str) -> Self {
        let mut digest = Self(0xcbf2_9ce4_8422_2325);
        digest.text(epoch);
        digest
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.number(u64::from(text.is_some()));
        self.text(text.unwrap_or_default());
    }

    fn value(&mut self, value: &Value) {
        self.text(&value.to_string());
    }

    fn desired(&mut self, out: &DesiredOut) {
        self.number(out.version);
        self.value(&out.value);
        self.number(out.state as u64);
        self.optional(out.reason.as_deref());
    }

    fn status(&mut self, status: &DeviceStatus) {
        self.number(status.state as u64);
        self.number(status.since.map_or(u64::MAX, |since| since.as_ms().cast_unsigned()));
        self.optional(status.reason.as_deref());
    }

    /// A stamp that stands for nothing else.
    fn stamp(self) -> Stamp {
        let taken = [Stamp::MAYBE, Stamp::GONE];
        let stamp = Stamp(self.0);
        if taken.contains(&stamp) { Stamp(u64::MAX) } else { stamp }
    }
}
