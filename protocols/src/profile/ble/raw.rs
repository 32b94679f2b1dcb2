//! The sections of Bluetooth devices as they are written.
//!
//! In: a tree that fits the schema. Out: these types. Must never give a key a meaning here, and never put a pattern on a
//! key that may hold a secret: the complaint would show it.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

use crate::ble::{FieldKind, Format};
use crate::profile::forms::{bits, named};
use crate::profile::text::RawDuration;

/// How a Bluetooth Low Energy device is listened to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBle {
    /// What its advertisements look like.
    #[serde(default, rename = "match")]
    pub(crate) pattern: Option<RawMatch>,
    /// Its address, mostly `${address}`; empty: any device that fits `match`.
    #[serde(default, rename = "address")]
    _address: Option<String>,
    /// The key that resolves its private addresses, mostly a parameter.
    #[serde(default, rename = "irk")]
    _irk: Option<String>,
    /// How advertisements are read.
    pub(crate) advertisement: Option<RawAdvertisement>,
    /// When it counts as away.
    pub(crate) presence: Option<RawPresence>,
    /// What is read and written over a connection.
    pub(crate) gatt: Option<RawGatt>,
}

/// What advertisements look like: all that is given has to fit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct RawMatch {
    /// Service data of this service, or of one of these.
    #[serde(default)]
    #[schemars(schema_with = "uuids")]
    pub(crate) service_data: Option<OneOrMany>,
    /// This service, or one of these.
    #[serde(default)]
    #[schemars(schema_with = "uuids")]
    pub(crate) service: Option<OneOrMany>,
    /// Manufacturer data of this company, as four digits; `"004c:0215"` says how it goes on.
    #[serde(default)]
    #[schemars(schema_with = "companies")]
    pub(crate) manufacturer_data: Option<OneOrMany>,
    /// A regular expression that finds something in the name.
    #[schemars(extend("examples" = ["^TP35"]))]
    pub(crate) name: Option<String>,
}

/// One text or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// How advertisements are read.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAdvertisement {
    /// The format, or those that are tried in order; `fields` where properties say themselves where they lie.
    #[serde(default)]
    #[schemars(schema_with = "formats")]
    pub(crate) decode: Option<OneOrMany>,
    /// What opens encrypted packets, mostly a parameter of type secret; empty: none.
    #[serde(default, rename = "key")]
    _key: Option<String>,
    /// Packets in clear text are not believed; where there is a key, they are not anyway.
    #[serde(default, rename = "require_encryption")]
    #[schemars(schema_with = "truth")]
    _require_encryption: Option<Value>,
    /// How repeated packets are told.
    pub(crate) dedupe: Option<RawDedupe>,
    /// How the signal strength is shown.
    pub(crate) rssi: Option<RawRssi>,
}

/// How repeated packets are told.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDedupe {
    /// By the packet's own number where the format has one, by its bytes, or not at all.
    #[serde(default)]
    pub(crate) by: RawDedupeBy,
    /// How long a packet is remembered; 4s when absent.
    pub(crate) window: Option<RawDuration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawDedupeBy {
    #[default]
    PacketId,
    Payload,
    None,
}

/// How the signal strength is shown.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRssi {
    /// The mean of this time.
    pub(crate) window: RawDuration,
}

/// When a device counts as away.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPresence {
    /// Silence for this time; 10m when absent.
    pub(crate) timeout: Option<RawDuration>,
    /// Whether the property presence becomes away.
    pub(crate) leave_event: Option<bool>,
}

/// What is read and written over a connection.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawGatt {
    /// When it is made.
    pub(crate) connect: Option<RawConnect>,
    /// How it is secured.
    #[serde(default)]
    pub(crate) pairing: RawPairing,
    /// What the device wants to be told when it is paired, six digits, mostly a parameter.
    #[serde(default, rename = "passkey")]
    #[schemars(schema_with = "passkey")]
    _passkey: Option<Value>,
    /// The characteristics, by name.
    #[serde(default)]
    #[schemars(schema_with = "named::<RawCharacteristic>")]
    pub(crate) characteristics: BTreeMap<String, RawCharacteristic>,
}

/// When a connection is made.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConnect {
    /// The rule.
    #[serde(default)]
    pub(crate) mode: RawConnectMode,
    /// From one connection to the next; 6h when absent.
    pub(crate) every: Option<RawDuration>,
    /// How long connecting may take; 20s when absent.
    pub(crate) timeout: Option<RawDuration>,
    /// Tries after the first; 2 when absent.
    #[schemars(range(min = 0, max = 20))]
    pub(crate) retries: Option<u32>,
    /// The pauses after tries that failed.
    pub(crate) backoff: Option<RawBackoff>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawConnectMode {
    #[default]
    Interval,
    Always,
    OnDemand,
}

/// The pauses after tries that failed.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBackoff {
    /// The first; it doubles.
    pub(crate) min: Option<RawDuration>,
    /// The longest.
    pub(crate) max: Option<RawDuration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawPairing {
    #[default]
    None,
    JustWorks,
    Passkey,
}

/// One characteristic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCharacteristic {
    /// The service it is in.
    #[schemars(schema_with = "uuid")]
    pub(crate) service: String,
    /// Its UUID.
    #[schemars(schema_with = "uuid")]
    pub(crate) characteristic: String,
    /// Which one, counted from 0, where there are several of one UUID.
    #[schemars(range(min = 0, max = 255))]
    pub(crate) instance: Option<u8>,
    /// What is done with it; read when absent.
    #[serde(default)]
    pub(crate) op: RawOp,
    /// Read one time and never again.
    #[serde(default)]
    pub(crate) once: bool,
    /// A device without it is right all the same.
    #[serde(default)]
    pub(crate) optional: bool,
    /// At most once in this time.
    pub(crate) every: Option<RawDuration>,
    /// What is written by itself at a connection: hexadecimal digits, or `now` for the time.
    pub(crate) value: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawOp {
    #[default]
    Read,
    Notify,
    Indicate,
    Write,
    WriteWithoutResponse,
}

/// A part of an advertisement or a characteristic: one of object, event, meta, gatt, service_data, manufacturer_data.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBleVisit {
    /// An object of the decoder; of a characteristic with an agreed format, one of its parts.
    pub(crate) object: Option<String>,
    /// An event of the decoder.
    pub(crate) event: Option<String>,
    /// Which of several objects of one name, counted from 1.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) index: Option<usize>,
    /// Something about the packet.
    pub(crate) meta: Option<RawMeta>,
    /// A characteristic, by its name in this profile.
    pub(crate) gatt: Option<String>,
    /// Bytes of the data of this service.
    #[serde(default)]
    #[schemars(schema_with = "uuid")]
    pub(crate) service_data: Option<String>,
    /// Bytes behind this company identifier.
    #[serde(default)]
    #[schemars(schema_with = "company")]
    pub(crate) manufacturer_data: Option<String>,
    /// Bytes before the value.
    #[schemars(range(min = 0, max = 511))]
    pub(crate) at: Option<usize>,
    /// The type of the value; of a characteristic with an agreed format it may be absent.
    #[serde(default, rename = "type")]
    #[schemars(schema_with = "field_types")]
    pub(crate) data: Option<String>,
    /// A bit or a run of bits, from the least significant.
    #[serde(default)]
    #[schemars(schema_with = "bits")]
    pub(crate) bits: Option<Value>,
    /// Bytes of a text or of bytes; to the end when absent.
    #[schemars(range(min = 1, max = 512))]
    pub(crate) length: Option<usize>,
    /// Another place that tells the same.
    pub(crate) or: Option<Box<RawBleVisit>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawMeta {
    Rssi,
    TxPower,
    Address,
    Name,
    Presence,
    LastSeen,
}

const UUID_PATTERN: &str = r"^((0x)?([0-9a-fA-F]{4}|[0-9a-fA-F]{8}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})|\$\{[A-Za-z_][A-Za-z0-9_]*\})$";

const COMPANY_PATTERN: &str = r"^((0x)?[0-9a-fA-F]{4}|\$\{[A-Za-z_][A-Za-z0-9_]*\})$";

/// Any part of it may be a parameter.
const MAKER_PATTERN: &str =
    r"^((0x)?[0-9a-fA-F]{4}(:([0-9a-fA-F]{2}){1,24})?|[0-9a-fA-Fx:]*\$\{[A-Za-z_][A-Za-z0-9_]*\}[0-9a-fA-F]*)$";

fn one_or_many(one: Value) -> Schema {
    json_schema!({"anyOf": [one, {"type": "array", "minItems": 1, "items": one}]})
}

fn uuid(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": UUID_PATTERN, "examples": ["180f"]})
}

fn uuids(_: &mut SchemaGenerator) -> Schema {
    one_or_many(serde_json::json!({"type": "string", "pattern": UUID_PATTERN, "examples": ["fcd2"]}))
}

fn company(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": COMPANY_PATTERN, "examples": ["0499"]})
}

fn companies(_: &mut SchemaGenerator) -> Schema {
    one_or_many(serde_json::json!({"type": "string", "pattern": MAKER_PATTERN, "examples": ["0499", "004c:0215"]}))
}

fn formats(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = Format::ALL.iter().map(|format| format.word()).chain(["fields"]).collect();
    one_or_many(serde_json::json!({"enum": words}))
}

fn field_types(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": FieldKind::words().collect::<Vec<_>>()})
}

/// `true`, `false`, or a text that asks whether a parameter is empty; no pattern, because it may hold a secret by then.
fn truth(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "boolean"}, {"type": "string", "examples": ["${bindkey} != ''"]}]})
}

fn passkey(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "integer"}, {"type": "string", "examples": ["${passkey}"]}]})
}
