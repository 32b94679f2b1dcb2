//! A value somewhere in a run of bytes: offset, type, bits.
//!
//! In: bytes of a service, a company or a characteristic, and a [`Field`]. Out: a raw value — and back, for writes. Must
//! never read over the end, and never give a number for NaN.
//!
//! Source of the medical floats: IEEE 11073-20601, and the GATT Specification Supplement, 2.2.

use std::fmt;
use std::str::FromStr;

use super::address::Mac;
use super::object::{array, scaled};
use crate::codec::{Bits, Raw};
use crate::value::{Timestamp, Why};

/// The longest value of a characteristic, in bytes (Core Specification, Vol 3, Part F, 3.2.9); a longer write is refused.
pub const VALUE_BYTES: usize = 512;

/// How a field's bytes mean a value. Without an ending numbers are little-endian, as Bluetooth has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// Unsigned, 1 to 8 bytes.
    Uint {
        /// Bytes.
        width: u8,
        /// Most significant byte first.
        big: bool,
    },
    /// Two's complement, 1 to 8 bytes.
    Int {
        /// Bytes.
        width: u8,
        /// Most significant byte first.
        big: bool,
    },
    /// IEEE 754, 2, 4 or 8 bytes.
    Float {
        /// Bytes.
        width: u8,
        /// Most significant byte first.
        big: bool,
    },
    /// Medical float of 16 bits: mantissa of 12, exponent of 4, to the base of ten.
    Sfloat,
    /// Medical float of 32 bits: mantissa of 24, exponent of 8.
    Medfloat,
    /// UTF-8 up to the first NUL.
    Utf8,
    /// Bytes, shown as lower-case hexadecimal.
    Bytes,
    /// An address, least significant byte first.
    Mac,
    /// Year, month, day, hours, minutes, seconds in seven bytes.
    DateTime,
}

/// The words of a profile and what they mean.
const WORDS: [(&str, FieldKind); 45] = {
    use FieldKind::{Float, Int, Uint};
    const fn u(width: u8, big: bool) -> FieldKind {
        Uint { width, big }
    }
    const fn i(width: u8, big: bool) -> FieldKind {
        Int { width, big }
    }
    const fn f(width: u8, big: bool) -> FieldKind {
        Float { width, big }
    }
    [
        ("uint8", u(1, false)),
        ("int8", i(1, false)),
        ("uint16", u(2, false)),
        ("uint16le", u(2, false)),
        ("uint16be", u(2, true)),
        ("int16", i(2, false)),
        ("int16le", i(2, false)),
        ("int16be", i(2, true)),
        ("uint24", u(3, false)),
        ("uint24le", u(3, false)),
        ("uint24be", u(3, true)),
        ("int24", i(3, false)),
        ("int24le", i(3, false)),
        ("int24be", i(3, true)),
        ("uint32", u(4, false)),
        ("uint32le", u(4, false)),
        ("uint32be", u(4, true)),
        ("int32", i(4, false)),
        ("int32le", i(4, false)),
        ("int32be", i(4, true)),
        ("uint48", u(6, false)),
        ("uint48le", u(6, false)),
        ("uint48be", u(6, true)),
        ("uint64", u(8, false)),
        ("uint64le", u(8, false)),
        ("uint64be", u(8, true)),
        ("int64", i(8, false)),
        ("int64le", i(8, false)),
        ("int64be", i(8, true)),
        ("float16", f(2, false)),
        ("float16le", f(2, false)),
        ("float16be", f(2, true)),
        ("float32", f(4, false)),
        ("float32le", f(4, false)),
        ("float32be", f(4, true)),
        ("float64", f(8, false)),
        ("float64le", f(8, false)),
        ("float64be", f(8, true)),
        ("sfloat", FieldKind::Sfloat),
        ("medfloat", FieldKind::Medfloat),
        ("utf8", FieldKind::Utf8),
        ("string", FieldKind::Utf8),
        ("bytes", FieldKind::Bytes),
        ("mac", FieldKind::Mac),
        ("date_time", FieldKind::DateTime),
    ]
};

impl FieldKind {
    /// The words of a profile.
    pub fn words() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(word, _)| *word)
    }

    /// Bytes of a value; `None` for text and bytes, which go to the end or as far as `length` says.
    pub fn width(self) -> Option<usize> {
        match self {
            Self::Uint { width, .. } | Self::Int { width, .. } | Self::Float { width, .. } => Some(usize::from(width)),
            Self::Sfloat => Some(2),
            Self::Medfloat => Some(4),
            Self::Mac => Some(6),
            Self::DateTime => Some(7),
            Self::Utf8 | Self::Bytes => None,
        }
    }
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS.iter().find(|(_, kind)| kind == self).map_or("bytes", |(word, _)| word))
    }
}

impl FromStr for FieldKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        WORDS.iter().find(|(word, _)| *word == text).map(|(_, kind)| *kind).ok_or(())
    }
}

/// Where a value lies, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Bytes before it.
    pub at: usize,
    /// Its type.
    pub kind: FieldKind,
    /// Some bits of an integer, counted from the least significant.
    pub bits: Option<Bits>,
    /// Bytes of a text or of bytes; to the end when absent.
    pub length: Option<usize>,
}

/// What cannot be written, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Another kind of value.
    #[error("expected {0}")]
    Kind(&'static str),
    /// Beyond what the type holds; all raw.
    #[error("{raw} does not fit {kind}, which holds {min} to {max}")]
    Bounds {
        /// The type.
        kind: FieldKind,
        /// What was to be written.
        raw: i128,
        /// The smallest raw value.
        min: i128,
        /// The largest raw value.
        max: i128,
    },
    /// A text or bytes of another length.
    #[error("{bytes} bytes, where {room} have room")]
    Long {
        /// What was to be written.
        bytes: usize,
        /// What there is room for.
        room: usize,
    },
    /// A type or a place that is read only.
    #[error("a field of this kind is read only")]
    ReadOnly,
}

impl Field {
    /// A value of this type that begins with the first byte.
    pub fn new(kind: FieldKind) -> Self {
        Self { at: 0, kind, bits: None, length: None }
    }

    /// Gives the raw value.
    ///
    /// # Errors
    /// [`Why::Decode`] for too few bytes and dates that are none, [`Why::Nan`] for NaN and infinities,
    /// [`Why::Sentinel`] for a medical float that says it has no value.
    pub fn decode(&self, bytes: &[u8]) -> Result<Raw, Why> {
        let rest = bytes.get(self.at..).ok_or(Why::Decode)?;
        let width = self.kind.width().or(self.length).unwrap_or(rest.len());
        let own = rest.get(..width).ok_or(Why::Decode)?;
        Ok(match self.kind {
            FieldKind::Uint { big, .. } => Raw::Int(self.field(unsigned(own, big), own.len(), false)),
            FieldKind::Int { big, .. } => Raw::Int(self.field(unsigned(own, big), own.len(), true)),
            FieldKind::Float { big, .. } => finite(float(own, big).ok_or(Why::Decode)?)?,
            FieldKind::Sfloat => sfloat(u16::from_le_bytes(array(own, 0).ok_or(Why::Decode)?))?,
            FieldKind::Medfloat => medfloat(u32::from_le_bytes(array(own, 0).ok_or(Why::Decode)?))?,
            FieldKind::Utf8 => {
                let text = own.split(|byte| *byte == 0).next().unwrap_or_default();
                Raw::Text(std::str::from_utf8(text).map_err(|_| Why::Decode)?.trim_end().to_owned())
            }
            FieldKind::Bytes => Raw::Text(text(own)),
            FieldKind::Mac => Raw::Text(Mac::from_le(array(own, 0).ok_or(Why::Decode)?).to_string()),
            FieldKind::DateTime => Raw::Text(date_time(own)?.to_string()),
        })
    }

    fn field(&self, number: u64, width: usize, signed: bool) -> i128 {
        let whole = 8 * u32::try_from(width).unwrap_or(8);
        let bits = self
            .bits
            .map_or((0, whole), |bits| (u32::from(bits.first), u32::from(bits.last.saturating_sub(bits.first)) + 1));
        let own = i128::from(number.checked_shr(bits.0).unwrap_or(0)) & ((1_i128 << bits.1.min(64)) - 1);
        let sign = 1_i128 << (bits.1.clamp(1, 64) - 1);
        if signed && own & sign != 0 { own - 2 * sign } else { own }
    }

    /// The smallest and largest raw integer; `None` where it holds none.
    pub fn bounds(&self) -> Option<(i128, i128)> {
        let (width, signed) = match self.kind {
            FieldKind::Uint { width, .. } => (width, false),
            FieldKind::Int { width, .. } => (width, true),
            _ => return None,
        };
        let bits = self.bits.map_or(8 * u32::from(width), |bits| u32::from(bits.last.saturating_sub(bits.first)) + 1);
        let bits = bits.clamp(1, 64);
        Some(if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) })
    }

    /// Gives the bytes of a characteristic that holds nothing but this value.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn encode(&self, raw: &Raw) -> Result<Vec<u8>, FieldError> {
        if self.at != 0 || self.bits.is_some() {
            return Err(FieldError::ReadOnly);
        }
        match (self.kind, raw) {
            (FieldKind::Uint { width, big } | FieldKind::Int { width, big }, raw) => {
                let number = whole(raw).ok_or(FieldError::Kind("a whole number"))?;
                let (min, max) = self.bounds().unwrap_or((0, 0));
                if !(min..=max).contains(&number) {
                    return Err(FieldError::Bounds { kind: self.kind, raw: number, min, max });
                }
                Ok(placed(&number.to_le_bytes(), usize::from(width), big))
            }
            (FieldKind::Float { width, big }, raw) => {
                let number = number(raw).ok_or(FieldError::Kind("a number"))?;
                let bytes = match width {
                    2 => half::f16::from_f64(number).to_le_bytes().to_vec(),
                    4 => (number as f32).to_le_bytes().to_vec(),
                    _ => number.to_le_bytes().to_vec(),
                };
                Ok(placed(&bytes, bytes.len(), big))
            }
            (FieldKind::Utf8, Raw::Text(text)) => self.sized(text.as_bytes().to_vec()),
            (FieldKind::Bytes, Raw::Text(text)) => {
                let bytes = super::key::hex(text.as_bytes()).ok_or(FieldError::Kind("hexadecimal digits"))?;
                self.sized(bytes)
            }
            (FieldKind::Utf8 | FieldKind::Bytes, _) => Err(FieldError::Kind("a text")),
            _ => Err(FieldError::ReadOnly),
        }
    }

    fn sized(&self, bytes: Vec<u8>) -> Result<Vec<u8>, FieldError> {
        let room = self.length.unwrap_or(VALUE_BYTES).min(VALUE_BYTES);
        if bytes.len() > room { Err(FieldError::Long { bytes: bytes.len(), room }) } else { Ok(bytes) }
    }
}

fn placed(little: &[u8], width: usize, big: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> = little.iter().copied().take(width).collect();
    if big {
        bytes.reverse();
    }
    bytes
}

fn unsigned(own: &[u8], big: bool) -> u64 {
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    if big { own.iter().fold(0, add) } else { own.iter().rev().fold(0, add) }
}

fn float(own: &[u8], big: bool) -> Option<f64> {
    let bits = unsigned(own, big);
    Some(match own.len() {
        2 => half::f16::from_bits(u16::try_from(bits).ok()?).to_f64(),
        4 => f64::from(f32::from_bits(u32::try_from(bits).ok()?)),
        8 => f64::from_bits(bits),
        _ => return None,
    })
}

fn finite(number: f64) -> Result<Raw, Why> {
    if number.is_finite() { Ok(Raw::Float(number)) } else { Err(Why::Nan) }
}

/// A medical float of 16 bits.
pub(super) fn sfloat(bits: u16) -> Result<Raw, Why> {
    match bits {
        0x07FF | 0x07FE | 0x0802 => return Err(Why::Nan),
        // "Not at this resolution", and reserved.
        0x0800 | 0x0801 => return Err(Why::Sentinel),
        _ => {}
    }
    let mantissa = i32::from((bits << 4).cast_signed() >> 4);
    decimal(i128::from(mantissa), i32::from(bits.cast_signed() >> 12))
}

/// A medical float of 32 bits.
pub(super) fn medfloat(bits: u32) -> Result<Raw, Why> {
    match bits & 0x00FF_FFFF {
        0x007F_FFFF | 0x007F_FFFE | 0x0080_0002 => return Err(Why::Nan),
        0x0080_0000 | 0x0080_0001 => return Err(Why::Sentinel),
        _ => {}
    }
    decimal(i128::from((bits << 8).cast_signed() >> 8), bits.cast_signed() >> 24)
}

fn decimal(mantissa: i128, exponent: i32) -> Result<Raw, Why> {
    match u8::try_from(-exponent) {
        Ok(places @ 0..=18) => Ok(scaled(mantissa, 1, places)),
        _ => finite(mantissa as f64 * 10_f64.powi(exponent)),
    }
}

/// Year (two bytes), month, day, hours, minutes, seconds; a year, month or day of 0 is not known.
fn date_time(own: &[u8]) -> Result<Timestamp, Why> {
    let [low, high, month, day, hour, minute, second] = array(own, 0).ok_or(Why::Decode)?;
    if (low, high) == (0, 0) || month == 0 || day == 0 {
        return Err(Why::Sentinel);
    }
    let year = u16::from_le_bytes([low, high]);
    let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    text.parse().map_err(|_| Why::Decode)
}

fn whole(raw: &Raw) -> Option<i128> {
    match raw {
        Raw::Bool(on) => Some(i128::from(*on)),
        Raw::Int(number) => Some(*number),
        // Within these bounds the cast is exact, and the nearest step is what the device can hold.
        Raw::Float(number) if number.abs() < 9e15 => Some(number.round() as i128),
        _ => None,
    }
}

fn number(raw: &Raw) -> Option<f64> {
    match raw {
        Raw::Int(number) => Some(*number as f64),
        Raw::Float(number) => Some(*number),
        _ => None,
    }
}

/// Bytes as lower-case hexadecimal.
pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
