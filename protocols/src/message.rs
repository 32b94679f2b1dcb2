//! What travels on the bus: the payloads of the contract, sections 2 and 3, as types.
//!
//! In and out: JSON, exactly as the contract writes it. Must never lose a digit of a 64-bit integer.

mod plain;

use std::collections::BTreeMap;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use plain::in_plain_words;

use crate::name::PropertyName;
use crate::value::{Quality, Reading, Timestamp, Value};

/// `twin/D/reported/set`: what a mapper has read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportedSet {
    /// When; each reading may say otherwise. The time of arrival when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The readings.
    pub readings: BTreeMap<PropertyName, ReadingIn>,
}

/// One reading of a [`ReportedSet`]: a bare value, or an object with quality and time.
///
/// A bare value of an object-typed property is written in the long form, as an object with a `value` key is the long
/// form.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadingIn {
    /// The value; `null` with a bad quality.
    pub value: Value,
    /// `good` when not said.
    pub quality: Quality,
    /// The set's time when not said.
    pub at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongReading {
    #[serde(deserialize_with = "present")]
    value: Value,
    #[serde(default)]
    quality: Quality,
    #[serde(default)]
    at: Option<Timestamp>,
}

fn is_good(quality: &Quality) -> bool {
    *quality == Quality::Good
}

/// Appends a [`ReportedSet`] to `out` that all readings have the time `at` of, unless they have one of their own. What
/// a poll brings is written straight from where it lies; no set is built of it.
pub fn write_reported_set<'a>(
    at: Timestamp,
    readings: impl IntoIterator<Item = (&'a PropertyName, &'a Reading)>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"at\":\"");
    out.extend_from_slice(&at.to_ascii());
    out.extend_from_slice(b"\",\"readings\":{");
    let mut first = true;
    for (name, reading) in readings {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        // a name has no character that JSON would escape
        out.push(b'"');
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b"\":");
        let own = (reading.at != at).then_some(reading.at);
        let written = if reading.quality == Quality::Good && own.is_none() && !reading.value.is_object() {
            serde_json::to_writer(&mut *out, &reading.value)
        } else {
            let long = LongReadingOut { value: &reading.value, quality: reading.quality, at: own };
            serde_json::to_writer(&mut *out, &long)
        };
        written.expect("a vector takes every byte, and a value holds nothing JSON cannot say");
    }
    out.extend_from_slice(b"}}");
}

#[derive(Serialize)]
struct LongReadingOut<'a> {
    value: &'a Value,
    #[serde(skip_serializing_if = "is_good")]
    quality: Quality,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Value::deserialize(deserializer)
}

impl Serialize for ReadingIn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.quality == Quality::Good && self.at.is_none() && !self.value.is_object() {
            self.value.serialize(serializer)
        } else {
            LongReadingOut { value: &self.value, quality: self.quality, at: self.at }.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for ReadingIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.as_object().is_some_and(|object| object.contains_key("value")) {
            let long: LongReading = serde_json::from_value(value).map_err(serde::de::Error::custom)?;
            Ok(Self { value: long.value, quality: long.quality, at: long.at })
        } else {
            Ok(Self { value, quality: Quality::Good, at: None })
        }
    }
}

/// `twin/D/reported/P`, retained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedOut {
    /// The value, `null` when bad.
    pub value: Value,
    /// How far it can be trusted.
    pub quality: Quality,
    /// When the device had it.
    pub at: Timestamp,
    /// The version of the reported section that brought it.
    pub version: u64,
    /// The last good value and its time, while the quality is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<Box<LastGood>>,
}

/// A value that was good once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastGood {
    /// The value.
    pub value: Value,
    /// When the device had it.
    pub at: Timestamp,
}

/// `twin/D/desired/set`: a patch of desired values, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredSet {
    /// Comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Property → value; `null` clears. A name that stands there twice makes the request unreadable: whichever value
    /// was taken, somebody would have meant the other.
    #[serde(deserialize_with = "each_once")]
    pub patch: BTreeMap<String, Value>,
    /// Refused with 409 unless the desired section is at this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// Pending values expire after this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Who wishes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// How a desired value stands; the contract, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Not yet acknowledged.
    Pending,
    /// The device has it.
    Applied,
    /// The device's or the profile's no.
    Rejected,
    /// Retries ran out.
    Failed,
    /// A newer desired value came first.
    Superseded,
    /// Its time ran out.
    Expired,
}

/// `twin/D/desired/P`, retained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesiredOut {
    /// What is wished.
    pub value: Value,
    /// The version of the desired section that brought it.
    pub version: u64,
    /// When it was wished.
    pub at: Timestamp,
    /// Who wished it.
    pub by: String,
    /// How it stands.
    pub state: DesiredState,
    /// Why it stands so.
    pub reason: Option<String>,
}

/// `twin/D/delta`, retained: what is pending, for the mapper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The store's epoch.
    pub epoch: String,
    /// The version of the desired section.
    pub version: u64,
    /// Pending property → value; empty when nothing is pending.
    pub desired: BTreeMap<PropertyName, Value>,
}

/// `twin/D/desired/ack`: what became of desired values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredAck {
    /// The version of the delta that was acted on.
    pub version: u64,
    /// Property → outcome.
    pub results: BTreeMap<PropertyName, AckResult>,
}

/// One outcome of a [`DesiredAck`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckResult {
    /// `applied`, `rejected`, `failed` or `pending` (with a reason).
    pub state: DesiredState,
    /// What the device holds now.
    #[serde(default)]
    pub actual: Option<Value>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `twin/D/result`, or the answer on a response topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The request's id.
    pub id: Option<String>,
    /// Whether it was accepted.
    pub ok: bool,
    /// The version of the desired section afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// 400 malformed, 403 not allowed, 404 unknown, 409 version, 413 too large, 422 not acceptable, 503 not now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Property → why not; the request itself under an empty name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
}

/// `twin/D/get`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// Comes back in the answer.
    #[serde(default)]
    pub id: Option<String>,
}

/// Whether a device answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// It answers.
    Online,
    /// It does not.
    Offline,
    /// It is silent for longer than its values may be old.
    Stale,
    /// Nobody has asked yet.
    #[default]
    Unknown,
}

/// `twin/D/status`, retained; and `twin/D/status/set`, where `since` is not needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Whether it answers.
    pub state: DeviceState,
    /// Since when.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `twin/D/event`: one committed change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The store's epoch.
    pub epoch: String,
    /// The version of the changed section before.
    pub from: u64,
    /// … and after.
    pub to: u64,
    /// Changed reported properties; empty when the change is one of the desired section.
    #[serde(default)]
    pub reported: BTreeMap<PropertyName, ReportedOut>,
    /// Changed desired properties, empty when the change is one of the reported section; `null` where one was cleared.
    #[serde(default)]
    pub desired: BTreeMap<PropertyName, Option<DesiredOut>>,
    /// When.
    pub at: Timestamp,
}

/// `twin/D`: the whole document, the contract, section 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The device.
    pub device: String,
    /// Its profile, `id@version`.
    pub profile: String,
    /// First 16 hexadecimal digits of the profile's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_hash: Option<String>,
    /// The store's epoch.
    pub epoch: String,
    /// When the document was made.
    pub at: Timestamp,
    /// Whether the device answers.
    pub status: DeviceStatus,
    /// What the device says.
    pub reported: Section<ReportedProperty>,
    /// What is wished.
    pub desired: Section<DesiredOut>,
    /// What is pending.
    pub delta: BTreeMap<PropertyName, Value>,
}

/// One half of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section<T> {
    /// +1 for every accepted change.
    pub version: u64,
    /// The properties.
    pub properties: BTreeMap<PropertyName, T>,
}

/// A reported property inside a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedProperty {
    /// The value, `null` when bad.
    pub value: Value,
    /// UCUM unit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How far it can be trusted.
    pub quality: Quality,
    /// When the device had it.
    pub at: Timestamp,
    /// The version that brought it.
    pub version: u64,
    /// The last good value and its time, while the quality is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<LastGood>,
}

/// The reason in [`WireStatus`] and [`DeviceStatus`] when a mapper's process has left without a word.
pub const MAPPER_GONE: &str = "the mapper is gone";

/// `gateway/connection/C/status`, retained: the health of one wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireStatus {
    /// `open`, `closed` (with a reason) or `idle`.
    pub state: String,
    /// Why it is not open.
    #[serde(default)]
    pub reason: Option<String>,
    /// Since when.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Requests sent.
    pub requests: u64,
    /// Answered in time and whole.
    pub answers: u64,
    /// Not answered in time.
    pub timeouts: u64,
    /// Exceptions, all codes together.
    pub exceptions: u64,
    /// Frames dropped: wrong checksum, wrong unit, wrong function, late.
    pub dropped: u64,
    /// Sent again.
    pub retries: u64,
    /// Opened again.
    pub reopened: u64,
    /// Part of the last minute the wire was in use, 0 to 1.
    pub busy: f64,
}

impl WireStatus {
    /// What a mapper leaves behind as its last will: nobody serves the wire any more.
    pub fn gone() -> Self {
        Self { state: "closed".to_owned(), reason: Some(MAPPER_GONE.to_owned()), ..Self::default() }
    }

    /// Whether it is such a last will.
    pub fn is_gone(&self) -> bool {
        self.state == "closed" && self.reason.as_deref() == Some(MAPPER_GONE)
    }
}

fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    struct Patch;

    impl<'de> Visitor<'de> for Patch {
        type Value = BTreeMap<String, Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut patch = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, Value>()? {
                if patch.contains_key(&name) {
                    let why = format!("\"{name}\" stands in the patch twice; write one value for it");
                    return Err(A::Error::custom(why));
                }
                patch.insert(name, value);
            }
            Ok(patch)
        }
    }

    deserializer.deserialize_map(Patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payloads of the contract, section 2, read and written again.
    #[test]
    fn payloads_are_written_as_the_contract_has_them() {
        fn check<T: Serialize + serde::de::DeserializeOwned>(text: &str) {
            let read: T = serde_json::from_str(text).unwrap();
            let again: Value = serde_json::to_value(read).unwrap();
            assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
        }
        let at = "2026-11-22T12:00:00.000Z";
        check::<ReportedOut>(&format!(r#"{{"value":230.1,"quality":"good","at":"{at}","version":118}}"#));
        check::<DesiredOut>(&format!(
            r#"{{"value":22,"version":7,"at":"{at}","by":"cloud","state":"applied","reason":null}}"#
        ));
        check::<Delta>(r#"{"epoch":"01J","version":7,"desired":{"setpoint":22}}"#);
        check::<Outcome>(r#"{"id":"r1","ok":true,"version":8}"#);
        check::<Outcome>(r#"{"id":"r1","ok":false,"code":422,"errors":{"setpoint":"above maximum 30"}}"#);
        check::<DesiredSet>(r#"{"id":"r1","patch":{"setpoint":22,"mode":null},"if_version":7,"ttl_s":3600,"by":"ha"}"#);
        check::<ReportedSet>(&format!(
            r#"{{"at":"{at}","readings":{{"voltage":230.1,"current":{{"value":null,"quality":"bad:timeout","at":"{at}"}}}}}}"#
        ));
        check::<DesiredAck>(r#"{"version":7,"results":{"setpoint":{"state":"applied","actual":22.0,"reason":null}}}"#);
        check::<Event>(&format!(r#"{{"epoch":"01J","from":7,"to":8,"reported":{{}},"desired":{{}},"at":"{at}"}}"#));
        check::<Event>(&format!(
            r#"{{"epoch":"01J","from":7,"to":8,"reported":{{}},"desired":{{"setpoint":null}},"at":"{at}"}}"#
        ));
    }

    #[test]
    fn a_sixty_four_bit_integer_passes_unharmed() {
        let text = r#"{"readings":{"energy":18446744073709551615}}"#;
        let set: ReportedSet = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&set).unwrap(), text);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<DesiredSet>(r#"{"pach":{}}"#).is_err());
        assert!(serde_json::from_str::<DesiredSet>(r#"{"patch":{},"ttl":3}"#).is_err());
    }

    #[test]
    fn a_set_written_from_readings_reads_back_as_the_set() {
        let at = Timestamp::from_ms(1_700_000_000_120);
        let earlier = Timestamp::from_ms(1_700_000_000_000);
        let name = |text: &str| text.parse::<PropertyName>().unwrap();
        let readings = [
            (name("a"), Reading::good(Value::from(u64::MAX), at)),
            (name("b.c"), Reading::good(Value::from(0.1), earlier)),
            (name("d"), Reading::bad(crate::value::Why::Timeout, at)),
            (name("e"), Reading::good(serde_json::json!({"value": 1, "x": "\"\u{e9}"}), at)),
            (name("f"), Reading::good(serde_json::json!([1, "two", true]), at)),
        ];
        let mut out = Vec::new();
        write_reported_set(at, readings.iter().map(|(name, reading)| (name, reading)), &mut out);
        let set: ReportedSet = serde_json::from_slice(&out).unwrap();
        assert_eq!(set.at, Some(at));
        let found: Vec<_> = set.readings.into_iter().collect();
        let expected = readings.map(|(name, Reading { value, quality, at: own })| {
            (name, ReadingIn { value, quality, at: (own != at).then_some(own) })
        });
        assert_eq!(found, expected);
        let mut empty = Vec::new();
        write_reported_set(at, [], &mut empty);
        assert_eq!(empty, br#"{"at":"2023-11-14T22:13:20.120Z","readings":{}}"#);
    }
}
