//! Exact decimal scaling: raw number to value and back.
//!
//! In: a [`Raw`] and a [`Scaling`]. Out: a JSON value, rounded one time, at the end. Must never send an integer through
//! a float while scale and offset are whole.
//!
//! Rounding, everywhere here: to the nearest, halves away from zero — 230.25 at precision 1 is 230.3, as on the
//! device's own display. A `float32` without scale is shown with the digits of the double it widens to, so that
//! nothing is lost or added; `precision` is what makes it short.

use std::fmt;
use std::str::FromStr;

use crate::value::{self, Value};

use super::{Decimal, Raw, Scaling};

/// Decimal places a [`Decimal`] may have; its mantissa has no room for more.
const PLACES: u8 = 18;

/// The largest integer below which every integer is a double.
const EXACT_F64: u128 = 1 << 53;

/// A text that is no decimal number, or one with more digits than are kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no decimal number of at most 18 digits; write it as 0.1, -3 or 1e-3")]
pub struct DecimalError(String);

/// A value that cannot be turned back into a raw one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScaleError {
    /// Null or an object.
    #[error("expected a number, text, true or false, or an array of these")]
    Kind,
    /// Nothing can be divided by a scale of 0.
    #[error("scale 0 cannot be turned back")]
    Zero,
}

impl Decimal {
    /// A whole number.
    pub const fn whole(mantissa: i64) -> Self {
        Self { mantissa, places: 0 }
    }

    /// Whether it has no decimals.
    pub fn is_whole(self) -> bool {
        self.places == 0
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        decimal_to_f64(i128::from(self.mantissa), u32::from(self.places))
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    /// Reads what JSON and YAML write: `0.1`, `-3`, `.5`, `1e-3`, `2.5E+1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
            .and_then(|(mantissa, places)| normal(mantissa, places))
            .ok_or_else(|| DecimalError(text.chars().take(40).collect()))
    }
}

/// Digits and decimals of a number as text, as they stand; `None` when they do not fit.
fn parse(text: &str) -> Option<(i128, i32)> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= 400)?),
        None => (text, 0),
    };
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    let mantissa = whole.bytes().chain(decimals.bytes()).try_fold(0_i128, |mantissa, digit| {
        digit.is_ascii_digit().then_some(())?;
        mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))
    })?;
    Some((if negative { -mantissa } else { mantissa }, i32::try_from(decimals.len()).ok()? - exponent))
}

/// The same number with no needless zeros.
fn normal(mut mantissa: i128, mut places: i32) -> Option<Decimal> {
    if mantissa == 0 {
        return Some(Decimal::whole(0));
    }
    while places > 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        places -= 1;
    }
    while places < 0 {
        mantissa = mantissa.checked_mul(10)?;
        places += 1;
    }
    let places = u8::try_from(places).ok().filter(|places| *places <= PLACES)?;
    Some(Decimal { mantissa: i64::try_from(mantissa).ok()?, places })
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.places == 0 {
            return write!(f, "{}", self.mantissa);
        }
        let (digits, places) = (self.mantissa.unsigned_abs(), u32::from(self.places));
        let unit = 10_u64.saturating_pow(places);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:0width$}", digits / unit, digits % unit, width = places as usize)
    }
}

fn pow10(places: u32) -> Option<i128> {
    10_i128.checked_pow(places)
}

/// The double nearest to `mantissa × 10^-places`.
fn decimal_to_f64(mantissa: i128, places: u32) -> f64 {
    // Both are exact doubles, so that the division rounds one time: 10^22 is the last exact power of ten.
    if mantissa.unsigned_abs() <= EXACT_F64 && places <= 22 {
        return mantissa as f64 / 10_f64.powi(places as i32);
    }
    // Rare: the library's reader rounds one time, too.
    format!("{mantissa}e-{places}").parse().unwrap_or(f64::NAN)
}

fn round_to(mantissa: i128, places: u32, precision: u32) -> (i128, u32) {
    let Some(unit) = places.checked_sub(precision).filter(|drop| *drop > 0).and_then(pow10) else {
        return (mantissa, places);
    };
    let (whole, rest) = (mantissa / unit, mantissa % unit);
    let up = rest.unsigned_abs() * 2 >= unit.unsigned_abs();
    (whole + if up { mantissa.signum() } else { 0 }, precision)
}

/// Rounds a double to `precision` decimals, halves away from zero. Leaves it alone where it has no such decimals.
pub(crate) fn round_f64(number: f64, precision: u8) -> f64 {
    let unit = 10_f64.powi(i32::from(precision));
    let scaled = number * unit;
    // The sum turns -0.0 into 0.0.
    if scaled.abs() < EXACT_F64 as f64 { scaled.round() / unit + 0.0 } else { number }
}

fn integer(whole: i128) -> Value {
    match (i64::try_from(whole), u64::try_from(whole)) {
        (Ok(whole), _) => Value::from(whole),
        (_, Ok(whole)) => Value::from(whole),
        _ => value::from_f64(whole as f64),
    }
}

impl Scaling {
    fn is_plain(&self) -> bool {
        self.scale == Decimal::whole(1) && self.offset == Decimal::whole(0)
    }

    /// Gives the value of a raw one. Booleans and text go through as they are; a result that no double can hold is
    /// `Null`.
    pub fn apply(&self, raw: Raw) -> Value {
        match raw {
            Raw::Bool(on) => Value::Bool(on),
            Raw::Text(text) => Value::String(text),
            Raw::List(values) => values.into_iter().map(|raw| self.apply(raw)).collect(),
            Raw::Int(whole) if self.is_plain() => integer(whole),
            Raw::Int(whole) => self.apply_integer(whole),
            Raw::Float(float) => self.apply_float(float),
        }
    }

    fn apply_integer(&self, whole: i128) -> Value {
        let (scale, offset) = (self.scale, self.offset);
        let places = scale.places.max(offset.places);
        let aligned = |mantissa: i128, from: u8| mantissa.checked_mul(pow10(u32::from(places - from))?);
        let total = whole
            .checked_mul(i128::from(scale.mantissa))
            .and_then(|product| aligned(product, scale.places))
            .zip(aligned(i128::from(offset.mantissa), offset.places))
            .and_then(|(product, offset)| product.checked_add(offset));
        // Beyond 38 digits a double is all that is left.
        let Some(total) = total else { return self.apply_float(whole as f64) };
        if places == 0 {
            return integer(total);
        }
        let precision = self.precision.map_or(u32::from(places), u32::from);
        let (total, places) = round_to(total, u32::from(places), precision);
        value::from_f64(decimal_to_f64(total, places))
    }

    fn apply_float(&self, float: f64) -> Value {
        let scaled = if self.is_plain() {
            float
        } else {
            let unit = 10_f64.powi(i32::from(self.scale.places));
            float * self.scale.mantissa as f64 / unit + self.offset.to_f64()
        };
        value::from_f64(self.precision.map_or(scaled, |precision| round_f64(scaled, precision)))
    }

    /// Gives the raw value of `value`: an integer where the arithmetic comes out even, a float otherwise.
    ///
    /// # Errors
    /// [`ScaleError`] for null, objects and a scale of 0.
    pub fn invert(&self, value: &Value) -> Result<Raw, ScaleError> {
        match value {
            Value::Bool(on) => Ok(Raw::Bool(*on)),
            Value::String(text) => Ok(Raw::Text(text.clone())),
            Value::Array(values) => {
                values.iter().map(|value| self.invert(value)).collect::<Result<_, _>>().map(Raw::List)
            }
            Value::Number(_) if self.scale.mantissa == 0 => Err(ScaleError::Zero),
            Value::Number(number) => Ok(self.invert_number(number)),
            Value::Null | Value::Object(_) => Err(ScaleError::Kind),
        }
    }

    fn invert_number(&self, number: &serde_json::Number) -> Raw {
        let float = || number.as_f64().unwrap_or(f64::NAN);
        if self.is_plain() {
            return number.as_i128().map_or_else(|| Raw::Float(float()), Raw::Int);
        }
        self.invert_exactly(number).unwrap_or_else(|| {
            let unit = 10_f64.powi(i32::from(self.scale.places));
            Raw::Float((float() - self.offset.to_f64()) * unit / self.scale.mantissa as f64)
        })
    }

    /// `(value - offset) / scale` in integers; `None` when 38 digits are too few.
    fn invert_exactly(&self, number: &serde_json::Number) -> Option<Raw> {
        let (mantissa, decimals) = match number.as_i128() {
            Some(whole) => (whole, 0),
            None => parse(&number.to_string())?,
        };
        let (mantissa, decimals) = match u32::try_from(decimals) {
            Ok(decimals) => (mantissa, decimals),
            Err(_) => (mantissa.checked_mul(pow10(decimals.unsigned_abs())?)?, 0),
        };
        let places = decimals.max(u32::from(self.offset.places));
        let value = mantissa.checked_mul(pow10(places - decimals)?)?;
        let offset = i128::from(self.offset.mantissa).checked_mul(pow10(places - u32::from(self.offset.places))?)?;
        let above = value.checked_sub(offset)?.checked_mul(pow10(u32::from(self.scale.places))?)?;
        let below = i128::from(self.scale.mantissa).checked_mul(pow10(places)?)?;
        Some(if above % below == 0 { Raw::Int(above / below) } else { Raw::Float(above as f64 / below as f64) })
    }
}
