//! The small languages inside a profile: durations, addresses, decimals.
//!
//! In: text or JSON from a checked file. Out: what it means. Must never overflow, however long the digits.

use std::time::Duration;

use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A duration as files write it: `500ms`, `1s`, `5m`, `1h`, `1d`; at most ten years, so that sums cannot overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RawDuration(pub(crate) Duration);

/// The longest duration.
const DURATION_MS: u64 = 3_650 * 86_400_000;

/// Reads a duration.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (ms <= DURATION_MS).then(|| Duration::from_millis(ms))
}

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let error = || {
            serde::de::Error::custom(format!("\"{text}\" is no duration; write 500ms, 1s, 5m, 1h or 1d, up to 3650d"))
        };
        duration(&text).map(Self).ok_or_else(error)
    }
}

impl JsonSchema for RawDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(\d{1,11}ms|\d{1,8}s|\d{1,6}m|\d{1,5}h|\d{1,4}d|\$\{[A-Za-z_][A-Za-z0-9_]*\})$",
            "examples": ["500ms", "1s", "5m", "1h", "1d"]
        })
    }
}

/// Reads a protocol address: a number, or `0x` and hexadecimal digits.
pub(crate) fn address(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => {
            let digits = text.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, ms) in [
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("1s", Some(1_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("3650d", Some(315_360_000_000)),
            ("3651d", None),
            ("99999999999999999999s", None),
            ("5", None),
            ("s", None),
            ("", None),
            ("1.5s", None),
            ("-1s", None),
            ("1 s", None),
            ("5min", None),
            ("5\u{301}s", None),
        ] {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }
}
