//! One shadow: what is known of it, what it can hold, and how the service writes of it.
//!
//! In: documents of the Device Shadow service, values of twins. Out: the same in one shape. Must never take a part of a
//! document for the whole.
//!
//! Source: AWS IoT Core developer guide, "Device Shadow service documents".

use serde::Deserialize;
use serde_json::{Map, json};

use super::super::base::{Base, Leaf, depth, holds_null};
use crate::value::Value;

/// Most bytes of a shadow's desired and reported state; what does not fit is refused by name.
pub const SHADOW_BYTES: usize = 8 << 10;

/// Levels below `reported` that the service takes.
pub const SHADOW_LEVELS: usize = 6;

/// Most characters of a shadow's name.
pub(super) const SHADOW_NAME: usize = 64;

/// What is known of one shadow.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// What was last heard of wishes; kept over restarts.
    pub(super) base: Base,
    /// `reported` as the service has it, for the size; known once it was fetched on this connection.
    pub(super) reported: Map<String, Value>,
    /// It was fetched on this connection.
    pub(super) fetched: bool,
    /// The highest version heard of on this connection.
    pub(super) seen: u64,
    /// How often it came back older than that, one after the other.
    pub(super) older: u8,
    /// When the base was last remembered, and whether it changed since.
    pub(super) remembered_ms: u64,
    pub(super) version_is_new: bool,
}

impl Shadow {
    /// Wishes to be taken out of `desired`, and what to say of those that were refused at the door.
    pub(super) fn ended(&self) -> (Map<String, Value>, Map<String, Value>) {
        let done = || self.base.leaves.iter().filter(|(_, leaf)| leaf.done);
        let refusal = |(name, leaf): (&String, &Leaf)| {
            let value = sayable(&leaf.value).unwrap_or(Value::Null);
            Some((name.clone(), json!({"value": value, "state": "rejected", "reason": leaf.no.as_ref()?})))
        };
        (done().map(|(name, _)| (name.clone(), Value::Null)).collect(), done().filter_map(refusal).collect())
    }

    /// Whether a fetched shadow is the one we know: its version is, or what is reported there is what we said.
    pub(super) fn version_known(&self, version: u64, reported: &Map<String, Value>) -> bool {
        self.base.version == version || (!self.reported.is_empty() && self.reported == *reported)
    }
}

/// Everything the service says, in one shape.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    pub(super) state: Value,
    #[serde(default)]
    pub(super) metadata: Value,
    #[serde(default)]
    pub(super) version: u64,
    #[serde(default, rename = "clientToken")]
    pub(super) token: Option<String>,
    #[serde(default)]
    pub(super) code: Option<u16>,
    #[serde(default)]
    pub(super) message: Option<String>,
}

pub(super) fn section(state: &Value, name: &str) -> Map<String, Value> {
    state.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The metadata timestamp of a leaf, in seconds; the latest one where the leaf is an array.
pub(super) fn stamp(metadata: &Value, path: &[&str], name: &str) -> Option<u64> {
    fn latest(node: &Value) -> Option<u64> {
        match node {
            Value::Object(members) => {
                let own = members.get("timestamp").and_then(Value::as_u64);
                own.or_else(|| members.values().filter_map(latest).max())
            }
            Value::Array(items) => items.iter().filter_map(latest).max(),
            _ => None,
        }
    }
    let mut node = metadata;
    for step in path {
        node = node.get(step)?;
    }
    latest(node.get(name)?)
}

pub(super) fn bytes_of(members: &Map<String, Value>) -> usize {
    serde_json::to_vec(members).map_or(usize::MAX, |text| text.len())
}

/// A value as a shadow can hold it: an object is text, since it would be merged with the one before; `null` in an array is
/// not taken, nor is one too deep.
pub(super) fn sayable(value: &Value) -> Result<Value, String> {
    match value {
        Value::Object(_) => Ok(Value::String(value.to_string())),
        Value::Array(_) if holds_null(value) => Err("AWS takes no null in an array".to_owned()),
        Value::Array(_) if depth(value) >= SHADOW_LEVELS => Err(format!("AWS takes {SHADOW_LEVELS} levels")),
        _ => Ok(value.clone()),
    }
}

/// A shadow's or thing's name: letters, digits, `:`, `_`, `-`. An id with a dot gets a hash of the whole behind it.
pub(super) fn shadow_name(device: &str) -> String {
    if !device.contains('.') {
        return device.to_owned();
    }
    // FNV-1a, 32 bits.
    let hash = device.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let plain: String = device.replace('.', "_").chars().take(SHADOW_NAME - 9).collect();
    format!("{plain}-{hash:08x}")
}
