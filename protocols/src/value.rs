//! What a property holds at an instant: a JSON value, how far it can be trusted, and when it was so.
//!
//! In: numbers from codecs, JSON from the bus. Out: the same in one form. Must never turn a bad reading into a
//! number, and never send a 64-bit integer through a float.

mod packed;

use std::fmt;
use std::str::FromStr;

pub use packed::{Packed, PackedReading};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A property's value as it travels: boolean, number, string, or an array/object where the profile says so.
///
/// Integers from `i64::MIN` to `u64::MAX` are exact. `Null` stands for "no value" and goes with a bad quality.
pub type Value = serde_json::Value;

/// Gives the JSON number of `number`, or `Null` where JSON has none (NaN, infinities).
pub fn from_f64(number: f64) -> Value {
    serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// Says whether two values mean the same: like `==`, but `22` and `22.0` are one number.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => left == right,
    }
}

fn same_number(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    match (a.is_f64(), b.is_f64()) {
        (false, false) | (true, true) => a == b,
        // An integer beyond 2^53 equals a float only if the float holds exactly that integer.
        _ => match (a.as_i128(), b.as_i128()) {
            (Some(whole), None) => b.as_f64().is_some_and(|b| b == whole as f64 && b as i128 == whole),
            (None, Some(whole)) => a.as_f64().is_some_and(|a| a == whole as f64 && a as i128 == whole),
            _ => false,
        },
    }
}

/// Why a reading is bad or uncertain; the words of the contract, section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The device did not answer in time.
    Timeout,
    /// The device answered with this Modbus exception code.
    Exception(u8),
    /// The answer's checksum was wrong.
    Crc,
    /// The bytes do not hold a value of the declared type.
    Decode,
    /// The value lies outside the profile's range.
    Range,
    /// The value is one the profile declares as "no value".
    Sentinel,
    /// NaN or an infinity.
    Nan,
    /// The device or its wire is away.
    Offline,
    /// The configuration does not let it be read.
    Config,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timeout"),
            Self::Exception(code) => write!(f, "exception:{code}"),
            Self::Crc => f.write_str("crc"),
            Self::Decode => f.write_str("decode"),
            Self::Range => f.write_str("range"),
            Self::Sentinel => f.write_str("sentinel"),
            Self::Nan => f.write_str("nan"),
            Self::Offline => f.write_str("offline"),
            Self::Config => f.write_str("config"),
        }
    }
}

impl FromStr for Why {
    type Err = QualityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "timeout" => Self::Timeout,
            "crc" => Self::Crc,
            "decode" => Self::Decode,
            "range" => Self::Range,
            "sentinel" => Self::Sentinel,
            "nan" => Self::Nan,
            "offline" => Self::Offline,
            "config" => Self::Config,
            _ => {
                let code = text.strip_prefix("exception:").and_then(|code| code.parse().ok());
                Self::Exception(code.ok_or_else(|| QualityError(text.to_owned()))?)
            }
        })
    }
}

/// How far a value can be trusted. Written `good`, `uncertain`, `uncertain:why` or `bad:why`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quality {
    /// Read, checked, inside its range.
    #[default]
    Good,
    /// A value is there, but something speaks against it.
    Uncertain(Option<Why>),
    /// There is no value; the last good one is kept apart.
    Bad(Why),
}

impl Quality {
    /// Says whether there is no usable value.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Bad(_))
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Uncertain(None) => f.write_str("uncertain"),
            Self::Uncertain(Some(why)) => write!(f, "uncertain:{why}"),
            Self::Bad(why) => write!(f, "bad:{why}"),
        }
    }
}

/// A text that is no quality.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no quality; write good, uncertain, uncertain:<why> or bad:<why>")]
pub struct QualityError(String);

impl FromStr for Quality {
    type Err = QualityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "good" => Ok(Self::Good),
            None if text == "uncertain" => Ok(Self::Uncertain(None)),
            Some(("uncertain", why)) => Ok(Self::Uncertain(Some(why.parse()?))),
            Some(("bad", why)) => Ok(Self::Bad(why.parse()?)),
            _ => Err(QualityError(text.to_owned())),
        }
    }
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, written as RFC 3339 in UTC with milliseconds and `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The last instant `jiff` can write in any time zone: 9999-12-30T22:00:00.000Z, in milliseconds.
const LATEST_MS: i64 = 253_402_207_200_000;

impl Timestamp {
    /// The instant `ms` milliseconds after the epoch, held inside the years 0000 to 9999.
    pub fn from_ms(ms: i64) -> Self {
        Self(ms.clamp(-62_167_219_200_000, LATEST_MS))
    }

    /// Milliseconds since the epoch.
    pub fn as_ms(self) -> i64 {
        self.0
    }
}

/// How long a [`Timestamp`] is as text, in bytes: `2026-11-22T12:00:00.000Z`.
pub const TIMESTAMP_BYTES: usize = 24;

impl Timestamp {
    /// The time as its 24 ASCII characters. Every value that is published carries one, so it is not formatted by the
    /// general machinery.
    pub fn to_ascii(self) -> [u8; TIMESTAMP_BYTES] {
        let instant = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        let at = jiff::tz::Offset::UTC.to_datetime(instant);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let parts = [
            (0..4, i32::from(at.year())),
            (5..7, i32::from(at.month())),
            (8..10, i32::from(at.day())),
            (11..13, i32::from(at.hour())),
            (14..16, i32::from(at.minute())),
            (17..19, i32::from(at.second())),
            (20..23, i32::from(at.millisecond())),
        ];
        for (place, mut number) in parts {
            for digit in text.get_mut(place).into_iter().flatten().rev() {
                // a remainder of ten is a digit, and the years are held inside 0000 to 9999
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        text
    }

    /// The time in the very form [`Timestamp::to_ascii`] gives; `None` for every other form, right or wrong.
    fn from_ascii(text: &[u8]) -> Option<Self> {
        const FORM: &[u8; TIMESTAMP_BYTES] = b"0000-00-00T00:00:00.000Z";
        let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
        if text.len() != FORM.len() || !text.iter().zip(FORM).all(fits) {
            return None;
        }
        let number = |place: std::ops::Range<usize>| {
            text.get(place).into_iter().flatten().fold(0, |number, byte| number * 10 + i16::from(byte - b'0'))
        };
        let short = |place: std::ops::Range<usize>| i8::try_from(number(place)).ok();
        let (hour, minute, second) = (short(11..13)?, short(14..16)?, short(17..19)?);
        let nanosecond = i32::from(number(20..23)) * 1_000_000;
        let at =
            jiff::civil::DateTime::new(number(0..4), short(5..7)?, short(8..10)?, hour, minute, second, nanosecond);
        Some(Self::from_ms(jiff::tz::Offset::UTC.to_timestamp(at.ok()?).ok()?.as_millisecond()))
    }
}

/// The text of the latest time that was asked for: what is told together mostly has the same.
#[derive(Clone, Debug, Default)]
pub struct TimestampText(Option<(Timestamp, [u8; TIMESTAMP_BYTES])>);

impl TimestampText {
    /// [`Timestamp::to_ascii`].
    pub fn of(&mut self, at: Timestamp) -> &[u8] {
        if self.0.is_none_or(|(known, _)| known != at) {
            self.0 = Some((at, at.to_ascii()));
        }
        self.0.as_ref().map_or(&[], |(_, text)| text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ASCII digits are always text
        f.write_str(std::str::from_utf8(&self.to_ascii()).unwrap_or_default())
    }
}

/// A text that is no RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no time; write RFC 3339 such as 2026-11-22T12:00:00.000Z")]
pub struct TimestampError(String);

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(at) = Self::from_ascii(text.as_bytes()) {
            return Ok(at);
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| TimestampError(text.to_owned()))?;
        Ok(Self::from_ms(instant.as_millisecond()))
    }
}

/// What the time is: a tick that only moves forward, and the wall clock for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock; order and intervals are decided by it.
    pub tick: u64,
    /// The wall clock; shown, never used for order.
    pub wall: Timestamp,
}

/// One value of one property at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The value, `Null` when the quality is bad.
    pub value: Value,
    /// How far it can be trusted.
    pub quality: Quality,
    /// When the device had it.
    pub at: Timestamp,
}

impl Reading {
    /// A good reading.
    pub fn good(value: Value, at: Timestamp) -> Self {
        Self { value, quality: Quality::Good, at }
    }

    /// A reading without a value.
    pub fn bad(why: Why, at: Timestamp) -> Self {
        Self { value: Value::Null, quality: Quality::Bad(why), at }
    }
}

macro_rules! as_text {
    ($($name:ty, $what:literal);*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    )*};
}
as_text!(Quality, "a quality"; Timestamp, "a time");

impl Serialize for Quality {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // nearly every one
            Self::Good => serializer.serialize_str("good"),
            other => serializer.collect_str(other),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // ASCII digits are always text
        serializer.serialize_str(std::str::from_utf8(&self.to_ascii()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quality_is_written_as_the_contract_has_it() {
        for (quality, text) in [
            (Quality::Good, "good"),
            (Quality::Uncertain(None), "uncertain"),
            (Quality::Uncertain(Some(Why::Range)), "uncertain:range"),
            (Quality::Bad(Why::Exception(2)), "bad:exception:2"),
            (Quality::Bad(Why::Timeout), "bad:timeout"),
        ] {
            assert_eq!(quality.to_string(), text);
            assert_eq!(text.parse(), Ok(quality));
        }
        for text in ["", "bad", "bad:", "bad:tired", "good:x", "bad:exception:256"] {
            assert!(text.parse::<Quality>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_timestamp_has_milliseconds_and_a_z() {
        let at = Timestamp::from_ms(1_700_000_000_000);
        assert_eq!(at.to_string(), "2023-11-14T22:13:20.000Z");
        assert_eq!("2023-11-14T23:13:20+01:00".parse(), Ok(at));
        assert_eq!(Timestamp::from_ms(i64::MAX).to_string(), "9999-12-30T22:00:00.000Z");
        assert_eq!(Timestamp::from_ms(i64::MIN).to_string(), "0000-01-01T00:00:00.000Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    /// The instants and their texts are `date -u -d @SECONDS` of GNU coreutils.
    #[test]
    fn a_timestamp_reads_back_from_every_form_of_rfc_3339() {
        for (ms, text) in [
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_107_542_399_007, "2100-02-28T23:59:59.007Z"),
            (1_763_813_045_120, "2025-11-22T12:04:05.120Z"),
        ] {
            let at = Timestamp::from_ms(ms);
            assert_eq!((at.to_string().as_str(), text.parse()), (text, Ok(at)));
            assert_eq!(text.replace('Z', "+00:00").parse(), Ok(at), "by the general reader");
            assert_eq!(text.replace('T', " ").parse(), Ok(at));
        }
        for text in [
            "2001-02-29T00:00:00.000Z",
            "2000-13-01T00:00:00.000Z",
            "2000-01-01T24:00:00.000Z",
            "2000-01-01T00:60:00.000Z",
            "2000-01-01T00:00:00.00xZ",
            "2000-01-01T00:00:00.000",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        // a leap second is read as the last second before it, as jiff has it
        assert_eq!("2016-12-31T23:59:60.000Z".parse::<Timestamp>(), "2016-12-31T23:59:59.000Z".parse());
    }

    #[test]
    fn numbers_are_the_same_across_integer_and_float_only_when_equal() {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for (a, b, expected) in [
            ("22", "22.0", true),
            ("18446744073709551615", "18446744073709551615", true),
            ("18446744073709551615", "1.8446744073709552e19", false),
            ("9007199254740993", "9007199254740992.0", false),
            ("-1", "18446744073709551615", false),
            ("true", "1", false),
            ("[1,{\"a\":2}]", "[1.0,{\"a\":2.0}]", true),
            ("[1]", "[1,2]", false),
        ] {
            assert_eq!(same(&json(a), &json(b)), expected, "{a} and {b}");
        }
    }
}
