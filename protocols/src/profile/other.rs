//! The sections of devices that do not speak Modbus, as they are written. This version checks their form, and says so
//! where a device uses them.
//!
//! In: a tree that fits the schema. Out: nothing but the schema. Must never give a key a meaning here.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::forms::{framings, map};
use super::raw::RawLine;
use super::text::RawDuration;

/// How a serial device that does not speak Modbus is spoken to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSerial {
    /// Line settings.
    #[serde(rename = "line")]
    _line: Option<RawLine>,
    /// How messages are told apart.
    #[serde(rename = "framing")]
    _framing: RawFraming,
    /// How a message is proved whole.
    #[schemars(schema_with = "map")]
    #[serde(default, rename = "check")]
    _check: Option<Value>,
    /// The messages, by name.
    #[schemars(schema_with = "map")]
    #[serde(rename = "messages")]
    _messages: Value,
    /// The requests, by name.
    #[schemars(schema_with = "map")]
    #[serde(default, rename = "requests")]
    _requests: Option<Value>,
    /// Sent when the port is opened.
    #[serde(default, rename = "on_open")]
    _on_open: Vec<Value>,
    /// Without a message for this time the device is away.
    #[serde(rename = "silence")]
    _silence: Option<RawDuration>,
}

/// How messages are told apart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFraming {
    /// The way.
    #[serde(rename = "type")]
    #[schemars(schema_with = "framings")]
    _kind: String,
    /// How a message begins.
    #[serde(rename = "start")]
    _start: Option<String>,
    /// How a message ends.
    #[serde(rename = "end")]
    _end: Option<String>,
    /// What is taken off its end.
    #[serde(rename = "strip")]
    _strip: Option<String>,
    /// Its length, or where it stands.
    #[serde(rename = "length")]
    _length: Option<Value>,
    /// The longest message, in bytes.
    #[schemars(range(min = 1, max = 65_536))]
    #[serde(rename = "max")]
    _max: Option<u32>,
    /// Quiet time that ends a message.
    #[serde(rename = "gap")]
    _gap: Option<RawDuration>,
    /// How characters are written.
    #[serde(rename = "encoding")]
    _encoding: Option<String>,
    /// What takes the meaning off the next byte.
    #[serde(rename = "escape")]
    _escape: Option<String>,
    /// Bytes after the end.
    #[schemars(range(min = 0, max = 64))]
    #[serde(rename = "trailer")]
    _trailer: Option<u32>,
    /// Whether start and end belong to the message.
    #[serde(rename = "include_ends")]
    _include_ends: Option<bool>,
}

/// How a Bluetooth Low Energy device is listened to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBle {
    /// What its advertisements look like.
    #[serde(default, rename = "match")]
    #[schemars(schema_with = "map")]
    _pattern: Option<Value>,
    /// Its address.
    #[serde(rename = "address")]
    _address: Option<String>,
    /// How advertisements are read.
    #[schemars(schema_with = "map")]
    #[serde(default, rename = "advertisement")]
    _advertisement: Option<Value>,
    /// When it counts as away.
    #[schemars(schema_with = "map")]
    #[serde(default, rename = "presence")]
    _presence: Option<Value>,
    /// What is read over a connection.
    #[schemars(schema_with = "map")]
    #[serde(default, rename = "gatt")]
    _gatt: Option<Value>,
}
