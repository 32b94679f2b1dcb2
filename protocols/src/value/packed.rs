//! A value at rest, in half the room: a gateway keeps a handful of values for each property of each device, nearly all
//! of them numbers.
//!
//! In: a [`Value`]. Out: the same value. Must never lose a digit, nor what kind of number it was.

use serde::{Serialize, Serializer};
use serde_json::Number;

use super::{Quality, Reading, Timestamp, Value, same};

/// A [`Value`] in 16 bytes; what is no number and no boolean lies elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packed(Form);

#[derive(Clone, Debug, Default, PartialEq)]
enum Form {
    #[default]
    Null,
    Bool(bool),
    Whole(u64),
    /// Below zero.
    Negative(i64),
    Float(f64),
    Other(Box<Value>),
}

impl From<Value> for Packed {
    fn from(value: Value) -> Self {
        Self(match value {
            Value::Null => Form::Null,
            Value::Bool(is) => Form::Bool(is),
            Value::Number(ref number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(whole), ..) => Form::Whole(whole),
                (None, Some(negative), _) => Form::Negative(negative),
                (None, None, Some(float)) => Form::Float(float),
                (None, None, None) => Form::Other(Box::new(value)),
            },
            other => Form::Other(Box::new(other)),
        })
    }
}

impl Packed {
    /// The value.
    pub fn to_value(&self) -> Value {
        match &self.0 {
            Form::Null => Value::Null,
            Form::Bool(is) => Value::Bool(*is),
            Form::Whole(whole) => Value::from(*whole),
            Form::Negative(negative) => Value::from(*negative),
            Form::Float(float) => Number::from_f64(*float).map_or(Value::Null, Value::Number),
            Form::Other(value) => (**value).clone(),
        }
    }

    /// [`same`], between two that are packed.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Whole(a), Form::Whole(b)) => a == b,
            (Form::Negative(a), Form::Negative(b)) => a == b,
            (Form::Float(a), Form::Float(b)) => a == b,
            (Form::Other(a), Form::Other(b)) => same(a, b),
            _ => same(&self.to_value(), &other.to_value()),
        }
    }
}

impl Packed {
    /// [`same`], with a value.
    pub fn is(&self, value: &Value) -> bool {
        match (&self.0, value) {
            (Form::Other(held), _) => same(held, value),
            // a number is no more than a copy
            (_, Value::Number(_)) => self.is_same(&Self::from(value.clone())),
            _ => same(&self.to_value(), value),
        }
    }

    /// The number as a float, as [`Value::as_f64`] has it.
    pub fn as_f64(&self) -> Option<f64> {
        match &self.0 {
            Form::Whole(_) | Form::Negative(_) | Form::Float(_) => self.to_value().as_f64(),
            _ => None,
        }
    }
}

/// A [`Reading`] at rest.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedReading {
    /// The value.
    pub value: Packed,
    /// When the device had it.
    pub at: Timestamp,
    /// How far it can be trusted.
    pub quality: Quality,
}

impl From<Reading> for PackedReading {
    fn from(reading: Reading) -> Self {
        let Reading { value, quality, at } = reading;
        Self { value: value.into(), at, quality }
    }
}

impl PackedReading {
    /// The reading.
    pub fn to_reading(&self) -> Reading {
        Reading { value: self.value.to_value(), quality: self.quality, at: self.at }
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Null => serializer.serialize_unit(),
            Form::Bool(is) => serializer.serialize_bool(*is),
            Form::Whole(whole) => serializer.serialize_u64(*whole),
            Form::Negative(negative) => serializer.serialize_i64(*negative),
            Form::Float(float) => serializer.serialize_f64(*float),
            Form::Other(value) => value.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_out_as_it_went_in_and_is_written_the_same() {
        let texts = [
            "null",
            "true",
            "false",
            "0",
            "-1",
            "22",
            "22.0",
            "-0.0",
            "225.7",
            "1e300",
            "5e-324",
            "18446744073709551615",
            "-9223372036854775808",
            "9007199254740993",
            "\"\"",
            "\"on\"",
            "[1,{\"a\":2.0}]",
            "{\"a\":null}",
        ];
        let values = texts.map(|text| serde_json::from_str::<Value>(text).unwrap());
        for value in &values {
            let packed = Packed::from(value.clone());
            assert_eq!(packed.to_value(), *value);
            assert_eq!(serde_json::to_string(&packed).unwrap(), serde_json::to_string(value).unwrap());
            assert_eq!(packed.as_f64(), value.as_f64());
            for other in &values {
                let expected = same(value, other);
                assert_eq!(packed.is_same(&Packed::from(other.clone())), expected, "{value} and {other}");
                assert_eq!(packed.is(other), expected, "{value} and {other}");
            }
        }
        assert_eq!((size_of::<Packed>(), size_of::<Option<PackedReading>>()), (16, 32));
    }
}
