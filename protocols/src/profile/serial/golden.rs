//! Golden tests of serial profiles: bytes in, values out.
//!
//! In: a profile and one of its tests. Out: every difference. Must never use another way from bytes to values, or from
//! values to requests, than a running gateway does.
//!
//! ```yaml
//! input: {serial: "$GPRMC,…*68\r\n"}                     # text, or bytes in hexadecimal pairs
//! input: {serial: {hex: "FF 86 02 60 47 00 00 00 D1"}}   # also {text: …}
//! input: {serial: ["FF 86 02", "60 47 00 00 00 D1"]}     # in pieces; null is a pause
//! ```

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::profile::golden::Failure;
use crate::profile::raw::RawTest;
use crate::profile::{Kind, Profile};
use crate::serial::extract::{bytes_of, show};
use crate::serial::frame::{Frame, Kind as Way};
use crate::value::{Quality, Timestamp};

/// The latest value of each property.
pub(in crate::profile) type Values = BTreeMap<String, (Value, Quality)>;

/// One piece of a stream: bytes, or a pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes that came.
    Bytes(Vec<u8>),
    /// The line was quiet for as long as the profile's `gap`.
    Pause,
}

/// The stream of a test's input.
///
/// # Errors
/// Why it cannot be read.
pub fn stream(input: &Value, is_binary: bool) -> Result<Vec<Piece>, String> {
    let Some(input) = input.get("serial") else { return Ok(Vec::new()) };
    match input {
        Value::Array(pieces) => pieces.iter().map(|input| piece(input, is_binary)).collect(),
        one => Ok(vec![piece(one, is_binary)?]),
    }
}

fn piece(input: &Value, is_binary: bool) -> Result<Piece, String> {
    let hex = |text: &str| {
        let digits: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let pairs: Option<Vec<u8>> = (0..digits.len())
            .step_by(2)
            .map(|at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        pairs.ok_or_else(|| format!("\"{text}\" is not bytes in hexadecimal pairs"))
    };
    let is_digits = |text: &str| text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(match input {
        Value::Null => Piece::Pause,
        Value::Number(byte) => {
            let byte = byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
            Piece::Bytes(vec![byte.ok_or_else(|| format!("{input} is no byte"))?])
        }
        Value::String(text) if is_binary && is_digits(text) => Piece::Bytes(hex(text)?),
        Value::String(text) => Piece::Bytes(bytes_of(text)),
        Value::Object(map) => match (map.get("hex"), map.get("text")) {
            (Some(Value::String(text)), None) => Piece::Bytes(hex(text)?),
            (None, Some(Value::String(text))) => {
                // Text that looks like hexadecimal pairs is text here.
                let mut bytes = bytes_of(&format!("{text}\u{1}"));
                bytes.pop();
                Piece::Bytes(bytes)
            }
            _ => return Err("write {hex: \"FF 01\"} or {text: \"…\"}".to_owned()),
        },
        _ => return Err("write a text, {hex: …}, {text: …}, or a list of them".to_owned()),
    })
}

impl Profile {
    /// Whether messages of this profile are bytes rather than text.
    pub fn is_binary(&self) -> bool {
        self.serial.as_ref().is_some_and(|device| {
            matches!(device.framing.kind, Way::Fixed(_) | Way::LengthPrefixed { .. } | Way::Slip | Way::Cobs | Way::Sml)
        })
    }
}

/// The values a stream leaves behind.
pub(in crate::profile) fn values(profile: &Profile, input: &Value) -> Result<Values, String> {
    let mut values = Values::new();
    let Some(device) = &profile.serial else { return Ok(values) };
    let mut framer = device.framer();
    let mut frames: Vec<Frame> = Vec::new();
    for piece in stream(input, profile.is_binary())? {
        match piece {
            Piece::Bytes(bytes) => framer.feed(&bytes, &mut frames),
            Piece::Pause => framer.on_quiet(&mut frames),
        }
    }
    if framer.gap().is_some() {
        framer.on_quiet(&mut frames);
    }
    for frame in frames {
        for (index, value, quality) in profile.hear(&frame.bytes).values {
            if let Some(property) = profile.properties.get(index) {
                values.insert(property.name.to_string(), (value, quality));
            }
        }
    }
    Ok(values)
}

/// What a test that expects nothing found all the same.
pub(in crate::profile) fn unwanted(test: &RawTest, values: &Values) -> Vec<(String, Value)> {
    let expects = test.expect.as_object().is_some_and(|expect| !expect.is_empty()) || !test.expect_quality.is_empty();
    if expects || test.input.get("serial").is_none() {
        return Vec::new();
    }
    values.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect()
}

/// Whether two texts are one time, for a property that holds one.
pub(in crate::profile) fn same_time(profile: &Profile, name: &str, expected: &Value, got: &Value) -> bool {
    let is_time = profile.find(name).and_then(|index| profile.properties.get(index)).map(|found| found.kind);
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    is_time == Some(Kind::Datetime) && time(expected).is_some() && time(expected) == time(got)
}

/// Runs a test that writes: `expect: {serial: "SP=21.5\r\n"}`, or a list where several properties are written.
pub(in crate::profile) fn run_write(
    profile: &Profile,
    test: &RawTest,
    failure: &dyn Fn(&str, Value, Value) -> Failure,
) -> Vec<Failure> {
    let Some(device) = &profile.serial else { return Vec::new() };
    let wanted = match stream(&test.expect, profile.is_binary()) {
        Ok(wanted) if !wanted.is_empty() => wanted,
        _ => return vec![failure("", "expect: {serial: what is sent}".into(), test.expect.clone())],
    };
    let shown = |bytes: &[u8]| Value::from(show(bytes));
    let mut sent = Vec::new();
    for (name, value) in &test.write {
        let property = profile.find(name).and_then(|index| profile.properties.get(index));
        let bytes = property.ok_or_else(|| "no such property".to_owned()).and_then(|property| {
            let value = property.accept(value)?;
            property.serial_request(&value, device)
        });
        match bytes {
            Ok(bytes) => sent.push(bytes),
            Err(why) => return vec![failure(name, test.expect.clone(), why.into())],
        }
    }
    let wanted: Vec<Vec<u8>> = wanted
        .into_iter()
        .filter_map(|piece| if let Piece::Bytes(bytes) = piece { Some(bytes) } else { None })
        .collect();
    let all = |list: &[Vec<u8>]| -> Value { list.iter().map(|bytes| shown(bytes)).collect() };
    let names = test.write.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (mut left, mut right) = (wanted.clone(), sent.clone());
    left.sort();
    right.sort();
    if left == right { Vec::new() } else { vec![failure(&names, json!(all(&wanted)), json!(all(&sent)))] }
}
