//! What a packet tells: objects with a name, a unit and a value.
//!
//! In: raw numbers of a decoder. Out: exact values. Must never give a number for "not available".

use std::borrow::Cow;

use serde_json::json;

use crate::codec::{Decimal, Raw, Scaling};
use crate::value::{Value, Why};

/// The most objects of one packet; what is behind is passed over, and the packet counts as partial.
pub const OBJECTS: usize = 64;

/// What an object is; two objects may have one name if one of them is binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectClass {
    /// A number, text or time.
    Sensor,
    /// Yes or no.
    Binary,
    /// Something that happened: a press of a button.
    Event,
}

impl ObjectClass {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Binary => "binary",
            Self::Event => "event",
        }
    }
}

/// One thing a packet tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its name, the decoder's own word: `temperature`.
    pub name: Cow<'static, str>,
    /// What it is.
    pub class: ObjectClass,
    /// UCUM unit, or nothing.
    pub unit: &'static str,
    /// The value in that unit, or why there is none.
    pub value: Result<Raw, Why>,
}

impl Object {
    /// A number: `raw × mantissa × 10^-places`.
    pub(super) fn number(
        name: &'static str,
        unit: &'static str,
        raw: impl Into<i128>,
        mantissa: i64,
        places: u8,
    ) -> Self {
        Self::sensor(name, unit, Ok(scaled(raw.into(), mantissa, places)))
    }

    /// A whole number without a factor.
    pub(super) fn whole(name: &'static str, unit: &'static str, raw: impl Into<i128>) -> Self {
        Self::sensor(name, unit, Ok(Raw::Int(raw.into())))
    }

    pub(super) fn text(name: &'static str, text: impl Into<String>) -> Self {
        Self::sensor(name, "", Ok(Raw::Text(text.into())))
    }

    pub(super) fn sensor(name: &'static str, unit: &'static str, value: Result<Raw, Why>) -> Self {
        Self { name: Cow::Borrowed(name), class: ObjectClass::Sensor, unit, value }
    }

    pub(super) fn binary(name: &'static str, on: bool) -> Self {
        Self { name: Cow::Borrowed(name), class: ObjectClass::Binary, unit: "", value: Ok(Raw::Bool(on)) }
    }

    pub(super) fn event(name: &'static str, number: impl Into<i128>) -> Self {
        Self { name: Cow::Borrowed(name), class: ObjectClass::Event, unit: "", value: Ok(Raw::Int(number.into())) }
    }

    /// The same, without a value where `is_there` is false.
    pub(super) fn only_if(mut self, is_there: bool) -> Self {
        if !is_there {
            self.value = Err(Why::Sentinel);
        }
        self
    }

    /// The object for people and lists: `{"name", "class", "unit", "value"}`, without what it does not have.
    pub fn json(&self) -> Value {
        let value = match &self.value {
            Ok(raw) => Scaling::default().apply(raw.clone()),
            Err(_) => Value::Null,
        };
        match self.unit {
            "" => json!({"name": self.name, "class": self.class.word(), "value": value}),
            unit => json!({"name": self.name, "class": self.class.word(), "unit": unit, "value": value}),
        }
    }
}

/// An exact decimal product, as the nearest double where it is not whole.
pub(super) fn scaled(raw: i128, mantissa: i64, places: u8) -> Raw {
    let scaling = Scaling { scale: Decimal { mantissa, places }, ..Scaling::default() };
    match scaling.apply(Raw::Int(raw)) {
        Value::Number(number) => match number.as_i128() {
            Some(whole) => Raw::Int(whole),
            None => number.as_f64().map_or(Raw::Int(raw), Raw::Float),
        },
        _ => Raw::Int(raw),
    }
}

/// The first two bytes from `at`, least significant first.
pub(super) fn u16_le(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(array(bytes, at)?))
}

/// The same, most significant first.
pub(super) fn u16_be(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(array(bytes, at)?))
}

/// `N` bytes from `at`, if they are there.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
