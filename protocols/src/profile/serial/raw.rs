//! The sections of serial devices as they are written.
//!
//! In: a tree that fits the schema. Out: these types, not yet made sense of. Must never give a key a meaning here.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use serde_json::Value;

use crate::profile::forms::{bits, map};
use crate::profile::raw::RawLine;
use crate::profile::text::RawDuration;
use crate::serial::checksum::Algorithm;
use crate::yaml::schema::number_or_parameter;

/// How a serial device that does not speak Modbus is spoken to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSerial {
    /// Line settings the model is delivered with.
    pub(crate) line: Option<RawLine>,
    /// How messages are told apart.
    pub(crate) framing: RawFraming,
    /// How a message is proved whole.
    pub(crate) check: Option<RawCheck>,
    /// The messages, by name.
    #[schemars(schema_with = "messages")]
    pub(crate) messages: BTreeMap<String, RawMessage>,
    /// The requests, by name.
    #[serde(default)]
    #[schemars(schema_with = "requests")]
    pub(crate) requests: BTreeMap<String, RawRequest>,
    /// Sent when the port is opened.
    #[serde(default)]
    pub(crate) on_open: Vec<RawGreeting>,
    /// Without a message for this time the device is away.
    pub(crate) silence: Option<RawDuration>,
}

/// How messages are told apart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFraming {
    /// The way.
    #[serde(rename = "type")]
    #[schemars(schema_with = "framings")]
    pub(crate) kind: String,
    /// How a message begins: text, or bytes in hexadecimal pairs.
    pub(crate) start: Option<String>,
    /// How a message ends.
    pub(crate) end: Option<String>,
    /// What is taken off the end of a line.
    pub(crate) strip: Option<String>,
    /// Its length in bytes, or where it stands.
    #[serde(default)]
    #[schemars(schema_with = "length")]
    pub(crate) length: Option<Value>,
    /// The longest message, in bytes.
    #[schemars(range(min = 1, max = 65_536))]
    pub(crate) max: Option<usize>,
    /// A message that pauses for so long is given up; of idle, it is complete.
    pub(crate) gap: Option<RawDuration>,
    /// How characters are written: ascii, utf8, latin1, binary, or ascii7 where the eighth bit is parity.
    #[serde(default)]
    #[schemars(schema_with = "encodings")]
    pub(crate) encoding: Option<String>,
    /// What takes the meaning off the next byte.
    pub(crate) escape: Option<String>,
    /// What the hidden byte is combined with (exclusive or).
    pub(crate) escape_xor: Option<u8>,
    /// Bytes after the end; of a text, fewer if the line ends before.
    #[schemars(range(min = 0, max = 64))]
    pub(crate) trailer: Option<usize>,
    /// Whether start and end belong to the message.
    pub(crate) include_ends: Option<bool>,
    /// Bytes that are dropped wherever they come.
    pub(crate) ignore: Option<String>,
}

/// Where a message says how long it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLength {
    /// Where it stands, in bytes from the beginning.
    #[schemars(range(min = 0, max = 1024))]
    pub(crate) at: usize,
    /// How many bytes it has.
    #[schemars(range(min = 1, max = 4))]
    #[serde(default = "one")]
    pub(crate) size: usize,
    /// Which byte comes first.
    #[serde(default)]
    pub(crate) endian: RawEndian,
    /// What it counts: all bytes, or those after it.
    #[serde(default)]
    pub(crate) counts: RawCounts,
    /// Bytes it does not count, such as a checksum.
    #[serde(default)]
    #[schemars(range(min = -1024, max = 1024))]
    pub(crate) add: i64,
}

fn one() -> usize {
    1
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawEndian {
    #[default]
    Big,
    Little,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawCounts {
    #[default]
    AfterLength,
    Total,
}

/// How a message is proved whole.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCheck {
    /// The algorithm, such as xor8, sum8 or crc16_arc; crc takes its parameters.
    #[serde(rename = "type")]
    #[schemars(schema_with = "algorithms")]
    pub(crate) kind: String,
    /// Where the checked bytes begin: a place, a text after which, or start.
    #[serde(default)]
    #[schemars(schema_with = "edge")]
    pub(crate) from: Option<Value>,
    /// Where they end: a place, a text before which, or end.
    #[serde(default)]
    #[schemars(schema_with = "edge")]
    pub(crate) until: Option<Value>,
    /// Where the check stands; the last bytes when absent.
    pub(crate) value: Option<RawStored>,
    /// Whether a message must have a check.
    pub(crate) required: Option<bool>,
    /// Bits of a crc.
    #[schemars(range(min = 8, max = 64))]
    pub(crate) width: Option<u8>,
    /// Its polynomial.
    pub(crate) poly: Option<u64>,
    /// What it begins with.
    pub(crate) init: Option<u64>,
    /// Bytes go in with their lowest bit first.
    pub(crate) refin: Option<bool>,
    /// The result comes out with its lowest bit first.
    pub(crate) refout: Option<bool>,
    /// What the result is combined with (exclusive or).
    pub(crate) xorout: Option<u64>,
}

/// Where a message carries its check.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawStored {
    /// In bytes from the beginning, or from the end when negative.
    pub(crate) at: Option<i64>,
    /// Behind this text.
    pub(crate) after: Option<String>,
    /// How it is written: u8, u16be, u16le, hex2, hex4, dec.
    #[schemars(extend("examples" = ["u16be", "hex2"]))]
    pub(crate) format: Option<String>,
    /// A message without it passes.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// A kind of message.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMessage {
    /// How it is recognised; every message is one when absent.
    #[serde(rename = "match")]
    pub(crate) matcher: Option<RawMatch>,
    /// Fields, or names with values.
    pub(crate) split: Option<RawSplit>,
    /// Lines with a key and a value.
    pub(crate) lines: Option<RawLines>,
    /// The value list of a smart meter.
    #[serde(default)]
    #[schemars(schema_with = "decoders")]
    pub(crate) decode: Option<String>,
    /// A condition over field[n], capture.name, byte[n], fields, length and text; without it the values are bad.
    #[schemars(extend("examples" = ["field[2] == 'A'"]))]
    pub(crate) accept: Option<String>,
}

/// How a message is recognised; everything that is said must hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMatch {
    /// A pattern over its text, with groups that have names.
    pub(crate) regex: Option<String>,
    /// Place → byte.
    #[serde(default)]
    #[schemars(schema_with = "bytes")]
    pub(crate) bytes: BTreeMap<String, u8>,
    /// Its length in bytes.
    pub(crate) length: Option<usize>,
}

/// How a message is taken apart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSplit {
    /// Between two fields.
    pub(crate) separator: Option<String>,
    /// The same as a pattern.
    pub(crate) pattern: Option<String>,
    /// The fields end before this text.
    pub(crate) until: Option<String>,
    /// Between a name and its value.
    pub(crate) assign: Option<String>,
}

/// Lines with a key and a value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLines {
    /// Finds the key: its group obis or key, or all it matches.
    pub(crate) key: String,
    /// Finds the value: its group value, or all it matches; and its group unit.
    pub(crate) value: String,
}

/// Something that can be asked or told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRequest {
    /// What is sent: text, or bytes in hexadecimal pairs, with {value} and {check}.
    pub(crate) tx: Option<String>,
    /// The sign-on of IEC 62056-21 mode C.
    pub(crate) iec62056: Option<RawSignOn>,
    /// The message that answers.
    pub(crate) answer: Option<String>,
    /// The message that refuses.
    pub(crate) refusal: Option<String>,
    /// How long the answer may take.
    pub(crate) timeout: Option<RawDuration>,
    /// Tries after the first.
    #[schemars(range(min = 0, max = 20))]
    pub(crate) retries: Option<u32>,
    /// Quiet time after it.
    pub(crate) settle: Option<RawDuration>,
}

/// The sign-on of IEC 62056-21 mode C.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSignOn {
    /// The meter's address; whoever is there when absent.
    pub(crate) address: Option<String>,
    /// The fastest speed to agree on, in bits a second.
    #[schemars(schema_with = "number_or_parameter")]
    #[serde(default)]
    pub(crate) max_baud: Option<u32>,
}

/// Sent when the port is opened.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawGreeting {
    /// What is sent.
    pub(crate) tx: String,
    /// A condition over params.name; always when absent.
    #[schemars(extend("examples" = ["params.baud == 9600"]))]
    pub(crate) when: Option<String>,
    /// Quiet time after it.
    pub(crate) delay: Option<RawDuration>,
}

/// A value of a serial message: exactly one of field, capture, key, at, combine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPick {
    /// The message; the answer of the request when absent.
    pub(crate) message: Option<String>,
    /// The request that brings it; the device sends it by itself when absent.
    pub(crate) request: Option<String>,
    /// A field, counted from 0.
    pub(crate) field: Option<usize>,
    /// A group of the message's pattern.
    pub(crate) capture: Option<String>,
    /// A name, or an OBIS code.
    pub(crate) key: Option<String>,
    /// A place in bytes from the beginning, or from the end when negative.
    pub(crate) at: Option<i64>,
    /// Several fields or groups, with a space between them.
    #[serde(default)]
    #[schemars(schema_with = "map")]
    pub(crate) combine: Option<Value>,
    /// How bytes hold it: u8, i16be, u32le, f32be, bcd, bcdle, text, hex.
    #[serde(default, rename = "type")]
    #[schemars(schema_with = "byte_types")]
    pub(crate) data: Option<String>,
    /// Bytes of a bcd, text or hex.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) length: Option<usize>,
    /// A bit or a run of bits, from the least significant.
    #[serde(default)]
    #[schemars(schema_with = "bits")]
    pub(crate) bits: Option<Value>,
    /// What a text means.
    #[serde(default)]
    #[schemars(schema_with = "parses")]
    pub(crate) parse: Option<String>,
    /// How a date is written: yy MM dd HH mm ss sss.
    #[schemars(extend("examples" = ["ddMMyy hhmmss.sss"]))]
    pub(crate) format: Option<String>,
    /// How far the device's clock is ahead of UTC.
    #[schemars(regex(pattern = r"^[+-]\d{2}:\d{2}$"), extend("examples" = ["+01:00"]))]
    pub(crate) zone: Option<String>,
    /// Finds the value behind a key, instead of the message's own pattern.
    pub(crate) pattern: Option<String>,
    /// What turns it negative.
    pub(crate) sign: Option<RawSign>,
    /// Text → value.
    #[serde(default)]
    #[schemars(schema_with = "map")]
    pub(crate) map: BTreeMap<String, Value>,
    /// What each unit that may stand with it is multiplied with.
    pub(crate) unit_from: Option<RawUnit>,
    /// What an empty field means; no value when null or absent.
    #[serde(default)]
    #[schemars(schema_with = "anything")]
    pub(crate) empty: Option<Value>,
    /// The request that writes it.
    pub(crate) write: Option<String>,
}

/// What turns a number negative.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSign {
    /// A field.
    pub(crate) field: Option<usize>,
    /// A group of the message's pattern.
    pub(crate) capture: Option<String>,
    /// The text that means "negative".
    pub(crate) negative: String,
}

/// Units that may stand with a value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawUnit {
    /// A field.
    pub(crate) field: Option<usize>,
    /// A group of the message's pattern.
    pub(crate) capture: Option<String>,
    /// Unit → factor. Of a smart meter's list, the units are numbers: 30 is Wh.
    #[schemars(schema_with = "factors")]
    pub(crate) map: BTreeMap<String, serde_json::Number>,
}

type Generator = schemars::SchemaGenerator;

fn framings(_: &mut Generator) -> Schema {
    json_schema!({"enum": [
        "line", "delimited", "fixed", "length_prefixed", "idle", "slip", "cobs", "sml", "dsmr", "iec62056"
    ]})
}

fn encodings(_: &mut Generator) -> Schema {
    json_schema!({"enum": ["ascii", "ascii7", "utf8", "latin1", "binary"]})
}

fn decoders(_: &mut Generator) -> Schema {
    json_schema!({"enum": ["sml"]})
}

fn algorithms(_: &mut Generator) -> Schema {
    let mut names = Algorithm::names();
    names.push("crc".to_owned());
    json_schema!({"enum": names})
}

fn parses(_: &mut Generator) -> Schema {
    json_schema!({"enum": ["decimal", "int", "hex", "ddmm", "bool", "text", "date"]})
}

fn byte_types(_: &mut Generator) -> Schema {
    let mut names: Vec<String> = ["u8", "i8", "uint8", "int8", "bcd", "bcdle", "text", "hex"].map(str::to_owned).into();
    let short = ["u16", "i16", "u24", "i24", "u32", "i32", "u64", "i64", "f16", "f32", "f64"];
    let long = ["uint16", "int16", "uint24", "int24", "uint32", "int32", "uint64", "int64"];
    for kind in short.into_iter().chain(long).chain(["float16", "float32", "float64"]) {
        names.extend(["be", "le"].map(|order| format!("{kind}{order}")));
    }
    json_schema!({"enum": names})
}

fn length(generator: &mut Generator) -> Schema {
    let said = generator.subschema_for::<RawLength>();
    json_schema!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65_536}, said]})
}

fn edge(_: &mut Generator) -> Schema {
    json_schema!({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": ".", "examples": ["*"]}]})
}

fn anything(_: &mut Generator) -> Schema {
    json_schema!({})
}

fn bytes(_: &mut Generator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^-?[0-9]{1,5}$", "examples": ["1"]},
        "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 255}
    })
}

fn factors(_: &mut Generator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "number"}})
}

fn by_name(each: Schema) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$", "examples": ["data"]},
        "additionalProperties": each
    })
}

fn messages(generator: &mut Generator) -> Schema {
    by_name(generator.subschema_for::<RawMessage>())
}

fn requests(generator: &mut Generator) -> Schema {
    by_name(generator.subschema_for::<RawRequest>())
}
