//! From what a device holds to a property's value, and from a desired value to what is written.
//!
//! In: registers, bits or text of one property; desired values. Out: a value with its quality; a checked desired
//! value; what goes on the wire. Must never give a value with a bad quality, and never let a desired value through
//! that the device or the profile forbids.
//!
//! Reading goes: decode → sentinel → word, flags, boolean or scaling → range. Choices made here:
//! * NaN and infinities are `bad:nan`, also where the profile lists `nan` as invalid: the contract knows one word for
//!   them;
//! * a sentinel is compared with the raw value; `0x8000` and `-32768` are the same 16 bits;
//! * an enum's raw value without a word is shown as its number, `uncertain:decode`: it tells more than nothing;
//! * set bits without a name are not shown among flags; writing flags writes them as 0;
//! * a property of type `int` is rounded to a whole number, halves away from zero;
//! * one bad element makes a whole array bad: a hole in it would be read as a place that moved.

use serde_json::Number;

use crate::codec::{self, Class, DataType, EncodeError, Field, Layout, Raw, round_f64};
use crate::modbus::{Table, Visitor};
use crate::value::{self, Quality, Timestamp, Value, Why};

use super::{Kind, Otherwise, Property, Source};

#[cfg(test)]
mod tests;

/// How near a value must be to a multiple of its step, in steps: what the last digit of a double may do to it.
const STEP_SLACK: f64 = 1e-6;

/// What a desired value is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteWire {
    /// Bits of the coil table, in order.
    Coils(Vec<bool>),
    /// Whole holding registers, in order.
    Registers(Vec<u16>),
    /// Some bits of one holding register: function 22, or read, modify and write.
    Field {
        /// The bits that are written.
        mask: u16,
        /// Their values; zero outside the mask.
        value: u16,
    },
}

type Read = (Value, Quality);

impl Property {
    /// Gives the value that lies in `registers`, which begin at the property's own address.
    pub fn from_registers(&self, registers: &[u16]) -> (Value, Quality) {
        let Some(visitor) = self.source.modbus() else { return bad(Why::Config) };
        if self.hides_sentinel(&visitor.layout, registers) {
            return bad(Why::Sentinel);
        }
        match codec::decode(&visitor.layout, registers) {
            Ok(raw) => self.read(raw, &visitor.layout),
            Err(why) => bad(why),
        }
    }

    /// Gives the value of bits of a bit table, which begin at the property's own address.
    pub fn from_bits(&self, bits: &[bool]) -> (Value, Quality) {
        let Some(visitor) = self.source.modbus() else { return bad(Why::Config) };
        match bits.get(..usize::from(visitor.layout.registers())) {
            None | Some([]) => bad(Why::Decode),
            Some([bit]) => self.read(Raw::Bool(*bit), &visitor.layout),
            Some(bits) => self.read(Raw::List(bits.iter().map(|bit| Raw::Bool(*bit)).collect()), &visitor.layout),
        }
    }

    /// Gives the value of an object of the device identification. Text for a property that is no text is read as a
    /// number.
    pub fn from_text(&self, text: &str) -> (Value, Quality) {
        let text = text.trim_matches(['\0', ' ']);
        if matches!(self.kind, Kind::String | Kind::Bytes | Kind::Datetime) {
            return self.read(Raw::Text(text.to_owned()), &Layout::new(DataType::String));
        }
        let raw = match (text.parse::<i128>(), text.parse::<f64>()) {
            (Ok(whole), _) => Raw::Int(whole),
            (_, Ok(float)) if float.is_finite() => Raw::Float(float),
            _ => return bad(Why::Decode),
        };
        self.read(raw, &Layout::new(DataType::Float64))
    }

    /// Gives the value of what was decoded elsewhere; `layout` tells how wide its integers are.
    pub fn from_raw(&self, raw: Raw, layout: &Layout) -> (Value, Quality) {
        self.read(raw, layout)
    }

    pub(super) fn read(&self, raw: Raw, layout: &Layout) -> Read {
        if self.is_sentinel(&raw, layout) {
            return bad(Why::Sentinel);
        }
        match self.kind {
            Kind::Bool => truth(&raw).map_or(bad(Why::Decode), |on| (Value::Bool(on), Quality::Good)),
            Kind::Enum => self.read_enum(&raw, layout),
            Kind::Flags => self.read_flags(&raw, layout),
            Kind::Int | Kind::Number => self.read_number(raw),
            Kind::String => match self.scaling.apply(raw) {
                Value::String(text) => (Value::String(text), Quality::Good),
                Value::Number(number) => (Value::String(number.to_string()), Quality::Good),
                _ => bad(Why::Decode),
            },
            Kind::Bytes => match raw {
                Raw::Text(text) => (Value::String(text), Quality::Good),
                _ => bad(Why::Config),
            },
            Kind::Datetime => self.read_time(raw),
            Kind::Array => self.read_array(raw),
            Kind::Object => bad(Why::Config),
        }
    }

    fn read_enum(&self, raw: &Raw, layout: &Layout) -> Read {
        let Some(number) = whole(raw) else { return bad(Why::Decode) };
        let word = |number: i128| i64::try_from(number).ok().and_then(|key| self.labels.get(&key));
        // The file may name a negative number by its bits.
        let by_bits = || (number < 0).then(|| word(number + i128::from(width_mask(layout)) + 1)).flatten();
        match word(number).or_else(by_bits) {
            Some(word) => (Value::String(word.clone()), Quality::Good),
            None => (number_value(number), Quality::Uncertain(Some(Why::Decode))),
        }
    }

    fn read_flags(&self, raw: &Raw, layout: &Layout) -> Read {
        let number = match raw {
            // Flags may be coils in a row, too.
            Raw::List(bits) => bits.iter().rev().try_fold(0, |number, bit| Some(number << 1 | u64::from(truth(bit)?))),
            raw => whole(raw).map(|number| number as u64 & width_mask(layout)),
        };
        let Some(number) = number else { return bad(Why::Decode) };
        let set = self.flags.iter().filter(|(bit, _)| number.checked_shr(u32::from(**bit)).unwrap_or(0) & 1 != 0);
        (set.map(|(_, word)| Value::String(word.clone())).collect(), Quality::Good)
    }

    fn read_number(&self, raw: Raw) -> Read {
        let raw = match raw {
            Raw::Bool(on) => Raw::Int(i128::from(on)),
            Raw::Int(_) | Raw::Float(_) => raw,
            Raw::Text(_) | Raw::List(_) => return bad(Why::Decode),
        };
        let Value::Number(number) = self.scaling.apply(raw) else { return bad(Why::Nan) };
        let number = match self.kind {
            Kind::Int => match to_whole(&number) {
                Some(number) => number,
                None => return bad(Why::Range),
            },
            _ => number,
        };
        self.in_range(number)
    }

    fn in_range(&self, number: Number) -> Read {
        let Some(range) = &self.range else { return (Value::Number(number), Quality::Good) };
        let end = match (range.min, range.max) {
            (Some(min), _) if compare(&number, min).is_lt() => min,
            (_, Some(max)) if compare(&number, max).is_gt() => max,
            _ => return (Value::Number(number), Quality::Good),
        };
        match range.otherwise {
            Otherwise::Bad => bad(Why::Range),
            Otherwise::Keep => (Value::Number(number), Quality::Uncertain(Some(Why::Range))),
            Otherwise::Clamp => {
                let end = Number::from_f64(end);
                let end = if self.kind == Kind::Int { end.as_ref().and_then(to_whole) } else { end };
                end.map_or(bad(Why::Range), |end| (Value::Number(end), Quality::Uncertain(Some(Why::Range))))
            }
        }
    }

    fn read_time(&self, raw: Raw) -> Read {
        match self.scaling.apply(raw) {
            Value::String(text) => (Value::String(text), Quality::Good),
            Value::Number(seconds) => match milliseconds(&seconds) {
                Some(at) => (Value::String(at.to_string()), Quality::Good),
                None => bad(Why::Range),
            },
            _ => bad(Why::Decode),
        }
    }

    fn read_array(&self, raw: Raw) -> Read {
        let values = match raw {
            Raw::List(values) => values,
            one => vec![one],
        };
        let mut quality = Quality::Good;
        let mut array = Vec::with_capacity(values.len());
        for raw in values {
            let (value, worse) = match raw {
                Raw::Int(_) | Raw::Float(_) => self.read_number(raw),
                other => (self.scaling.apply(other), Quality::Good),
            };
            if worse.is_bad() {
                return (Value::Null, worse);
            }
            if worse != Quality::Good {
                quality = worse;
            }
            array.push(value);
        }
        (Value::Array(array), quality)
    }

    fn is_sentinel(&self, raw: &Raw, layout: &Layout) -> bool {
        match raw {
            _ if self.invalid.is_empty() => false,
            Raw::List(values) => values.iter().any(|raw| self.is_sentinel(raw, layout)),
            raw => self.invalid.iter().any(|sentinel| matches_sentinel(sentinel, raw, layout)),
        }
    }

    /// Whether a type that is decoded to something else than its bits holds a sentinel that was given by its bits.
    fn hides_sentinel(&self, layout: &Layout, registers: &[u16]) -> bool {
        if self.invalid.is_empty() || !matches!(layout.data.class(), Class::Time | Class::Decimal) {
            return false;
        }
        let data = match layout.each() {
            1 => DataType::Uint16,
            2 => DataType::Uint32,
            _ => DataType::Uint64,
        };
        let bits = Layout { data, ..*layout };
        codec::decode(&bits, registers).is_ok_and(|raw| self.is_sentinel(&raw, &bits))
    }

    /// Checks a desired value, and gives it in the form in which it is kept: `22` for `22.0` where the property is an
    /// `int`, the word for an enum's raw number, flags in the order of their bits, times in UTC.
    ///
    /// # Errors
    /// What is wrong, for the one who asked: `is read-only`, `expected a number, got a string`, `below minimum 5`,
    /// `above maximum 30`, …
    pub fn accept(&self, value: &Value) -> Result<Value, String> {
        if !self.access.writes() || !self.source.is_wired() {
            return Err("is read-only".to_owned());
        }
        let value = self.normal(value)?;
        match &self.source {
            Source::Serial(_) => drop(self.serial_form(&value)?),
            Source::Ble(_) => drop(self.to_gatt(&value)?),
            // Its own mapper says what it cannot write.
            Source::External(_) => {}
            _ => drop(self.to_write(&value)?),
        }
        Ok(value)
    }

    fn normal(&self, value: &Value) -> Result<Value, String> {
        match (self.kind, value) {
            (Kind::Bool, Value::Bool(_)) | (Kind::String, Value::String(_)) => Ok(value.clone()),
            (Kind::Bool, _) => Err(expected("true or false", value)),
            (Kind::String, _) => Err(expected("a string", value)),
            (Kind::Int | Kind::Number, Value::Number(number)) => self.normal_number(number).map(Value::Number),
            (Kind::Int | Kind::Number, _) => Err(expected("a number", value)),
            (Kind::Enum, _) => self.normal_word(value),
            (Kind::Flags, _) => self.normal_flags(value),
            (Kind::Bytes, Value::String(text)) => Ok(Value::String(text.to_ascii_lowercase())),
            (Kind::Bytes, _) => Err(expected("a string of hexadecimal digits", value)),
            (Kind::Datetime, Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(at) => Ok(Value::String(at.to_string())),
                Err(error) => Err(error.to_string()),
            },
            (Kind::Datetime, _) => Err(expected("a time as a string", value)),
            (Kind::Array, Value::Array(values)) => values.iter().map(|value| self.normal_element(value)).collect(),
            (Kind::Array, _) => Err(expected("an array", value)),
            (Kind::Object, _) => Err("an object cannot be written".to_owned()),
        }
    }

    fn normal_element(&self, value: &Value) -> Result<Value, String> {
        match value {
            Value::Number(number) => self.normal_number(number).map(Value::Number),
            Value::Bool(_) | Value::String(_) => Ok(value.clone()),
            _ => Err(expected("numbers, strings or true and false in the array", value)),
        }
    }

    fn normal_number(&self, number: &Number) -> Result<Number, String> {
        let number = match self.kind {
            // A double on the way would call neighbours of 64 bits equal.
            Kind::Int if !number.is_f64() => number.clone(),
            Kind::Int => match to_whole(number) {
                Some(whole) if compare(&whole, number.as_f64().unwrap_or(f64::NAN)).is_eq() => whole,
                Some(_) => return Err(format!("expected a whole number, got {number}")),
                None => return Err(format!("{number} is beyond 64 bits")),
            },
            _ => number.clone(),
        };
        let range = self.range.as_ref();
        let min = self.write.min.or(range.and_then(|range| range.min));
        let max = self.write.max.or(range.and_then(|range| range.max));
        match (min, max) {
            (Some(min), _) if compare(&number, min).is_lt() => Err(format!("below minimum {min}")),
            (_, Some(max)) if compare(&number, max).is_gt() => Err(format!("above maximum {max}")),
            _ => self.check_step(&number).map(|()| number),
        }
    }

    fn check_step(&self, number: &Number) -> Result<(), String> {
        let Some(step) = self.write.step.filter(|step| *step > 0.0) else { return Ok(()) };
        let base = self.write.min.unwrap_or(0.0);
        let steps = (number.as_f64().unwrap_or(f64::NAN) - base) / step;
        if (steps - steps.round()).abs() <= STEP_SLACK {
            return Ok(());
        }
        Err(match base {
            0.0 => format!("{number} is no multiple of {step}"),
            base => format!("{number} is not {base} plus a multiple of {step}"),
        })
    }

    fn normal_word(&self, value: &Value) -> Result<Value, String> {
        let word = match value {
            Value::String(text) => self.labels.values().find(|word| *word == text),
            Value::Number(number) => number.as_i64().or_else(|| exact(number)).and_then(|key| self.labels.get(&key)),
            _ => return Err(expected("a string", value)),
        };
        let words = || self.labels.values().map(String::as_str).collect::<Vec<_>>().join(", ");
        word.map(|word| Value::String(word.clone())).ok_or_else(|| format!("{value} is none of {}", words()))
    }

    fn normal_flags(&self, value: &Value) -> Result<Value, String> {
        let Value::Array(given) = value else { return Err(expected("an array of strings", value)) };
        let known = |word: &Value| word.as_str().is_some_and(|word| self.flags.values().any(|flag| flag == word));
        if let Some(stranger) = given.iter().find(|word| !known(word)) {
            let words = self.flags.values().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(format!("{stranger} is none of {words}"));
        }
        let named = |flag: &&String| given.iter().any(|word| word.as_str() == Some(flag));
        Ok(self.flags.values().filter(named).map(|flag| Value::String(flag.clone())).collect())
    }

    /// Gives what to write for a value in the property's own form. Limits of the profile are the business of
    /// [`Property::accept`]; those of the wire's type are kept here, in the property's unit.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn to_write(&self, value: &Value) -> Result<WriteWire, String> {
        let visitor = self.source.modbus().ok_or("is read-only")?;
        let layout = &visitor.layout;
        let raw = self.raw_of(value, layout)?;
        match writable(visitor)? {
            Table::Coil => {
                let bits = match &raw {
                    Raw::List(values) => values.iter().map(truth).collect::<Option<Vec<_>>>(),
                    raw => truth(raw).map(|bit| vec![bit]),
                };
                let bits = bits.ok_or_else(|| expected("true or false", value))?;
                if bits.len() != usize::from(layout.count) {
                    return Err(EncodeError::Count { expected: layout.count, got: bits.len() }.to_string());
                }
                Ok(WriteWire::Coils(bits))
            }
            _ if layout.is_partial() && layout.registers() > 1 => {
                Err("bits of a value of more than one register cannot be written".to_owned())
            }
            _ if layout.is_partial() => {
                let Field { mask, value } =
                    codec::encode_field(layout, &raw).map_err(|error| self.complaint(&error))?;
                Ok(WriteWire::Field { mask, value })
            }
            _ => codec::encode(layout, &raw).map(WriteWire::Registers).map_err(|error| self.complaint(&error)),
        }
    }

    /// The raw value of one in the property's own form, where no layout bounds it.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn raw_value(&self, value: &Value) -> Result<Raw, String> {
        match (self.kind, value) {
            // A number is sent as the device has it, a text as it is.
            (Kind::Bool | Kind::String | Kind::Bytes, _) => match value {
                Value::Bool(on) => Ok(Raw::Bool(*on)),
                Value::String(text) => Ok(Raw::Text(text.clone())),
                _ => Err(expected("a value that can be written", value)),
            },
            _ => self.raw_of(value, &Layout::new(DataType::Float64)),
        }
    }

    pub(super) fn raw_of(&self, value: &Value, layout: &Layout) -> Result<Raw, String> {
        match (self.kind, value) {
            (Kind::Enum, Value::String(text)) => {
                let key = self.labels.iter().find(|(_, word)| *word == text).map(|(key, _)| i128::from(*key));
                key.map(|key| Raw::Int(as_signed(key, layout)))
                    .ok_or_else(|| format!("{value} is no word of this property"))
            }
            (Kind::Flags, Value::Array(given)) => {
                let set = self.flags.iter().filter(|(_, flag)| given.iter().any(|word| word.as_str() == Some(flag)));
                let number =
                    set.fold(0_u64, |number, (bit, _)| number | 1_u64.checked_shl(u32::from(*bit)).unwrap_or(0));
                if layout.data == DataType::Bit && layout.count > 1 {
                    let bit = |index| Raw::Bool(number.checked_shr(u32::from(index)).unwrap_or(0) & 1 != 0);
                    return Ok(Raw::List((0..layout.count).map(bit).collect()));
                }
                Ok(Raw::Int(as_signed(i128::from(number), layout)))
            }
            (Kind::Datetime, Value::String(text)) if layout.bounds().is_some() => {
                let at: Timestamp = text.parse().map_err(|_| expected("a time", value))?;
                let seconds = match at.as_ms() % 1000 {
                    0 => Value::from(at.as_ms() / 1000),
                    _ => value::from_f64(at.as_ms() as f64 / 1000.0),
                };
                self.scaling.invert(&seconds).map_err(|error| error.to_string())
            }
            (Kind::Array, Value::Array(values)) if layout.count == 1 && values.len() == 1 => {
                let one = values.first().unwrap_or(&Value::Null);
                self.scaling.invert(one).map_err(|error| error.to_string())
            }
            _ => self.scaling.invert(value).map_err(|_| expected("a value that can be written", value)),
        }
    }

    /// The encoder's complaint, its bounds turned into the property's unit.
    pub(super) fn complaint(&self, error: &EncodeError) -> String {
        let EncodeError::Bounds { raw, min, max, .. } = error else { return error.to_string() };
        if !matches!(self.kind, Kind::Int | Kind::Number | Kind::Array) {
            return error.to_string();
        }
        let below = *raw < *min as f64;
        let end = short(&self.scaling.apply(Raw::Int(if below { *min } else { *max })));
        // A negative scale turns the ends round.
        let turned = self.scaling.scale.mantissa < 0;
        if below == turned { format!("above maximum {end}") } else { format!("below minimum {end}") }
    }

    /// Whether two values are the same to the device: equal once encoded, or no further apart than `write.tolerance`. A
    /// reading is compared as the profile shows it, after rounding to `precision`.
    pub fn same_encoded(&self, a: &Value, b: &Value) -> bool {
        if value::same(a, b) {
            return true;
        }
        if let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) {
            let tolerance = self.write.tolerance.unwrap_or(0.0);
            // The last digits of a double must not decide at the very end of the tolerance.
            if tolerance > 0.0 && (a - b).abs() <= tolerance + 1e-9 * tolerance.max(a.abs()) {
                return true;
            }
        }
        if matches!(self.source, Source::Serial(_)) {
            let form = |value: &Value| self.serial_form(&self.as_shown(value)).ok();
            return form(a).is_some_and(|a| form(b) == Some(a));
        }
        if self.source.ble().is_some() {
            let encoded = |value: &Value| self.to_gatt(&self.as_shown(value)).ok();
            return encoded(a).is_some_and(|a| encoded(b) == Some(a));
        }
        if matches!(self.source, Source::External(_)) {
            return false;
        }
        let encoded = |value: &Value| self.to_write(&self.as_shown(value)).ok();
        encoded(a).is_some_and(|a| encoded(b) == Some(a))
    }

    fn as_shown(&self, value: &Value) -> Value {
        match (value, self.scaling.precision) {
            (Value::Number(number), Some(precision)) if number.is_f64() => {
                value::from_f64(round_f64(number.as_f64().unwrap_or(f64::NAN), precision))
            }
            (Value::Array(values), Some(_)) => values.iter().map(|value| self.as_shown(value)).collect(),
            _ => value.clone(),
        }
    }
}

fn bad(why: Why) -> Read {
    (Value::Null, Quality::Bad(why))
}

/// The table a write goes to. A value may be read from a read-only table and written at an address of its own.
fn writable(visitor: &Visitor) -> Result<Table, String> {
    match (visitor.table, visitor.write_address) {
        (Table::Coil, _) | (Table::Discrete, Some(_)) => Ok(Table::Coil),
        (Table::Holding, _) | (Table::Input, Some(_)) => Ok(Table::Holding),
        (Table::Discrete | Table::Input | Table::DeviceId, _) => {
            Err("lies in a table that cannot be written".to_owned())
        }
    }
}

fn truth(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Bool(on) => Some(*on),
        Raw::Int(number) => Some(*number != 0),
        Raw::Float(number) => Some(*number != 0.0),
        Raw::Text(_) | Raw::List(_) => None,
    }
}

fn whole(raw: &Raw) -> Option<i128> {
    match raw {
        Raw::Bool(on) => Some(i128::from(*on)),
        Raw::Int(number) => Some(*number),
        Raw::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i128),
        _ => None,
    }
}

fn number_value(number: i128) -> Value {
    match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => Value::from(number),
        (_, Ok(number)) => Value::from(number),
        _ => value::from_f64(number as f64),
    }
}

/// The nearest whole number, if 64 bits hold it.
fn to_whole(number: &Number) -> Option<Number> {
    if !number.is_f64() {
        return Some(number.clone());
    }
    // The cast is exact below 2^64 for whole doubles, and holds at the ends beyond.
    let whole = number.as_f64()?.round() as i128;
    i64::try_from(whole).map(Number::from).or_else(|_| u64::try_from(whole).map(Number::from)).ok()
}

/// The integer a float such as `2.0` stands for.
fn exact(number: &Number) -> Option<i64> {
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15)?;
    // The filter keeps it inside i64.
    Some(float as i64)
}

/// Compares without sending a 64-bit integer through a float where the limit is whole.
fn compare(number: &Number, limit: f64) -> std::cmp::Ordering {
    match number.as_i128() {
        Some(whole) if limit.fract() == 0.0 && limit.abs() < 1e30 => whole.cmp(&(limit as i128)),
        // The sums turn -0.0 into 0.0.
        _ => (number.as_f64().unwrap_or(f64::NAN) + 0.0).total_cmp(&(limit + 0.0)),
    }
}

fn milliseconds(seconds: &Number) -> Option<Timestamp> {
    let ms = match seconds.as_i64() {
        Some(whole) => whole.checked_mul(1000)?,
        None => (seconds.as_f64()? * 1000.0).round() as i64,
    };
    let at = Timestamp::from_ms(ms);
    (at.as_ms() == ms).then_some(at)
}

/// Ones for every bit of the layout's integer.
fn width_mask(layout: &Layout) -> u64 {
    let (_, width) = layout.data.span();
    let width = layout.bits.map_or(u32::from(width), |bits| u32::from(bits.last.saturating_sub(bits.first)) + 1);
    u64::MAX.checked_shr(64_u32.saturating_sub(width)).unwrap_or(0)
}

/// A number given by its bits (`0x8000`) as the signed type has it (`-32768`).
fn as_signed(number: i128, layout: &Layout) -> i128 {
    match (layout.data.class(), layout.bounds()) {
        (Class::Integer { signed: true }, Some(bounds)) if number > *bounds.end() => {
            let turned = number - (i128::from(width_mask(layout)) + 1);
            if bounds.contains(&turned) { turned } else { number }
        }
        _ => number,
    }
}

fn matches_sentinel(sentinel: &Value, raw: &Raw, layout: &Layout) -> bool {
    match (sentinel, raw) {
        (Value::Number(number), Raw::Int(raw)) => match number.as_i128() {
            Some(number) => number == *raw || as_signed(number, layout) == *raw,
            None => number.as_f64() == Some(*raw as f64),
        },
        (Value::Number(number), Raw::Float(raw)) => number.as_f64().is_some_and(|number| match layout.data {
            DataType::Float32 => f64::from(number as f32) == *raw,
            _ => number == *raw,
        }),
        (Value::Number(number), Raw::Bool(raw)) => number.as_i64() == Some(i64::from(*raw)),
        (Value::Bool(sentinel), Raw::Bool(raw)) => sentinel == raw,
        (Value::String(sentinel), Raw::Text(raw)) => sentinel == raw,
        _ => false,
    }
}

fn expected(what: &str, got: &Value) -> String {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    format!("expected {what}, got {got}")
}

/// A number as people write it: 30 rather than 30.0.
fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() => number.to_string(),
        _ => value.to_string(),
    }
}
