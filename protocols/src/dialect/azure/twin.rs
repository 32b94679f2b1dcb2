//! What the twin of a hub device can hold, and how the hub writes topics.
//!
//! In: values, names, topics. Out: the same as the hub takes them, or why it does not. Must never cut a value.
//!
//! Source: Microsoft documentation, "Understand and use device twins in IoT Hub", "Tags and properties format" and "Device twin size".

use serde_json::Map;

use super::super::base::{depth, holds_null};
use super::{Publish, Site};
use crate::name::DeviceId;
use crate::value::Value;

/// What the reported section may weigh: keys and texts by their bytes, numbers 8, booleans 4.
pub const TWIN_BYTES: usize = 32 << 10;

/// Levels the twin may have.
pub const TWIN_LEVELS: usize = 10;

/// Most bytes of a text.
pub const TEXT_BYTES: usize = 4 << 10;

/// Integers are taken from `-INTEGER` to `INTEGER - 1`.
pub const INTEGER: i64 = 1 << 52;

pub(super) fn is_writable(site: &Site, device: &DeviceId, name: &str) -> bool {
    let profile = site.devices.get(device);
    let property = profile.and_then(|profile| profile.properties.get(profile.find(name)?));
    property.is_some_and(|property| property.access.writes())
}

pub(super) fn method_answer(rid: &str, status: u16, body: &Value) -> Publish {
    let topic = format!("$iothub/methods/res/{status}/?$rid={rid}");
    Publish { topic, payload: body.to_string().into(), qos: 1, ..Publish::default() }
}

pub(super) fn object_at(members: &Map<String, Value>, key: &str) -> Map<String, Value> {
    members.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// A key of the twin: it may hold no dot, no `$`, no space; our ids and names hold only the first of these.
pub(super) fn written_key(name: &str) -> String {
    name.replace('.', "%2E")
}

pub(super) fn plain_key(key: &str) -> String {
    key.replace("%2E", ".").replace("%2e", ".")
}

/// What a value weighs in the hub's count.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| key.len() + weight(value)).sum(),
    }
}

pub(super) fn members_weight(members: &Map<String, Value>) -> usize {
    members.iter().map(|(key, value)| key.len() + weight(value)).sum()
}

/// A value as the twin can hold it; see the rules at the head of the file.
pub(super) fn sayable(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => {
            let fits = number.is_f64() || number.as_i64().is_some_and(|number| (-INTEGER..INTEGER).contains(&number));
            Ok(if fits { value.clone() } else { Value::String(number.to_string()) })
        }
        Value::String(text) if text.len() > TEXT_BYTES => {
            Err(format!("a text of {} bytes, IoT Hub takes {TEXT_BYTES}", text.len()))
        }
        Value::Array(_) if holds_null(value) => Err("IoT Hub takes no null in an array".to_owned()),
        // Device, property, `value`, and the section itself stand above it.
        Value::Array(_) if depth(value) + 4 > TWIN_LEVELS => Err(format!("IoT Hub takes {TWIN_LEVELS} levels")),
        Value::Array(items) => items.iter().map(sayable).collect::<Result<Vec<_>, _>>().map(Value::Array),
        Value::Object(_) => sayable(&Value::String(value.to_string())),
        _ => Ok(value.clone()),
    }
}

/// What stands behind `/?` in a topic of the hub.
pub(super) struct Query<'a>(pub(super) &'a str);

impl<'a> Query<'a> {
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}
