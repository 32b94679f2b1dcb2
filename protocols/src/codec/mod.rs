//! Bytes and values by layout: width, byte and word order, bit field, text, BCD; exact scaling.
//!
//! In: registers or bits, and a [`Layout`]. Out: a raw value, then a scaled one — and back. Must never round a
//! 64-bit integer, and never give a number for NaN, a sentinel or bytes that do not fit.

mod scale;
mod time;
mod wire;
mod words;

#[cfg(test)]
mod tests;

pub(crate) use scale::round_f64;
pub use scale::{DecimalError, ScaleError};
pub use wire::{EncodeError, Field, decode, encode, encode_field, encode_into};
pub use words::WordError;

use std::ops::RangeInclusive;

/// The widest value, in registers: what one read of function 3 or 4 can carry.
pub const LENGTH_REGISTERS: u16 = 125;

/// What lies in the registers, before scaling.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// One bit.
    Bool(bool),
    /// An integer of any type, exact.
    Int(i128),
    /// A float, finite.
    Float(f64),
    /// Text, hexadecimal bytes, or a time in RFC 3339.
    Text(String),
    /// The values of a layout whose `count` is more than one.
    List(Vec<Raw>),
}

/// How a value lies in registers; the profile's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the profile's own words")]
pub enum DataType {
    Bit,
    Int8Lo,
    Int8Hi,
    Uint8Lo,
    Uint8Hi,
    Int16,
    Uint16,
    Int24,
    Uint24,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float16,
    Float32,
    Float64,
    /// Four decimal digits in one register.
    Bcd16,
    /// Eight decimal digits in two registers.
    Bcd32,
    /// Text; [`Layout::length`] registers, see [`Chars`].
    String,
    /// Raw bytes, shown as lower-case hexadecimal text.
    Bytes,
    /// Seconds since 1970 in two registers, shown as RFC 3339.
    Epoch32,
    /// IEC 60870-5 type F (CP56Time2a style date and time) in four registers, shown as RFC 3339.
    IecDate,
}

/// The order of significance on the wire: `order[i]` is the letter of wire byte `i`, `A` the most significant.
///
/// Holds the four-letter family names (`ABCD CDAB BADC DCBA`, which apply to any width) and explicit permutations of
/// two, four or eight letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// Letters as indexes (0 = `A`); the first `width` are used.
    pub(crate) letters: [u8; 8],
    /// 2, 4 or 8. A family name has width 4 and is generalised to the value's width.
    pub(crate) width: u8,
}

/// Which bytes of a register hold characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Chars {
    /// Two characters a register, high byte first.
    #[default]
    Both,
    /// One, in the low byte.
    Low,
    /// One, in the high byte.
    High,
}

/// A run of bits inside the raw integer, counted from the least significant, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bits {
    /// The lowest bit.
    pub first: u8,
    /// The highest bit, `>= first`.
    pub last: u8,
}

/// Where inside its registers a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The type on the wire.
    pub data: DataType,
    /// Byte and word order.
    pub order: Order,
    /// A bit field of an integer type; one bit of type `Bit`.
    pub bits: Option<Bits>,
    /// Registers of a `String` or `Bytes`; what the type needs otherwise.
    pub length: u16,
    /// Where the characters of a `String` are.
    pub chars: Chars,
    /// How many values follow one another; more than one makes an array.
    pub count: u16,
}

/// Raw number ↔ value: `value = raw × scale + offset`, then rounded to `precision` decimals.
///
/// Both factors are decimals, so 2257 × 0.1 is 225.7 and not 225.70000000000002; integers stay integers as long as
/// scale and offset are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// The factor; 1 by default.
    pub scale: Decimal,
    /// Added after scaling; 0 by default.
    pub offset: Decimal,
    /// Decimals that are kept.
    pub precision: Option<u8>,
}

/// An exact decimal number: `mantissa × 10^-places`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// The digits with their sign.
    pub mantissa: i64,
    /// Digits behind the point, 0..=18.
    pub places: u8,
}

/// How the bits of a type mean a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Bit,
    Integer { signed: bool },
    Float,
    Decimal,
    Text,
    Time,
}

impl DataType {
    pub(crate) fn class(self) -> Class {
        use DataType as T;
        match self {
            T::Bit => Class::Bit,
            T::Int8Lo | T::Int8Hi | T::Int16 | T::Int24 | T::Int32 | T::Int64 => Class::Integer { signed: true },
            T::Uint8Lo | T::Uint8Hi | T::Uint16 | T::Uint24 | T::Uint32 | T::Uint64 => Class::Integer { signed: false },
            T::Float16 | T::Float32 | T::Float64 => Class::Float,
            T::Bcd16 | T::Bcd32 => Class::Decimal,
            T::String | T::Bytes => Class::Text,
            T::Epoch32 | T::IecDate => Class::Time,
        }
    }

    /// The registers one value takes; `None` for text and bytes, whose length the profile says.
    pub fn registers(self) -> Option<u16> {
        use DataType as T;
        match self {
            T::String | T::Bytes => None,
            T::Int64 | T::Uint64 | T::Float64 | T::IecDate => Some(4),
            T::Int24 | T::Uint24 | T::Int32 | T::Uint32 | T::Float32 | T::Bcd32 | T::Epoch32 => Some(2),
            T::Bit | T::Int8Lo | T::Int8Hi | T::Uint8Lo | T::Uint8Hi => Some(1),
            T::Int16 | T::Uint16 | T::Float16 | T::Bcd16 => Some(1),
        }
    }

    /// The bits of the number inside its registers, lowest and how many, once the order is undone.
    pub(crate) fn span(self) -> (u8, u8) {
        use DataType as T;
        match self {
            T::Bit => (0, 16),
            T::Int8Lo | T::Uint8Lo => (0, 8),
            T::Int8Hi | T::Uint8Hi => (8, 8),
            T::Int24 | T::Uint24 => (0, 24),
            other => (0, 16 * other.registers().unwrap_or(0) as u8),
        }
    }
}

/// What is wrong with a [`Layout`], and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A bit field that reaches over the end, or runs backwards.
    #[error("bits {bits} do not lie inside {data}; its bits are 0..{last}", last = width.saturating_sub(1))]
    Bits {
        /// The type.
        data: DataType,
        /// The field.
        bits: Bits,
        /// Bits of the type.
        width: u8,
    },
    /// A bit field of something that has none.
    #[error("a {0} has no bit fields; they belong to bit, intN and uintN")]
    NoBits(DataType),
    /// More than one bit where one is meant.
    #[error("type bit is one bit; write bits: {first} or take an integer type", first = .0.first)]
    OneBit(Bits),
    /// Text or bytes without registers, or more than one read can carry.
    #[error("length {0} is not between 1 and 125 registers")]
    Length(u16),
    /// No value at all.
    #[error("count 0 holds no value; the smallest is 1")]
    Count,
    /// An array that one read cannot carry.
    #[error("{count} values of {each} registers are more than the 125 registers one read can carry")]
    TooLong {
        /// How many values.
        count: u16,
        /// Registers of one.
        each: u16,
    },
    /// A permutation of another width.
    #[error("order {order} does not fit {data}; write {expected}")]
    Order {
        /// The order.
        order: Order,
        /// The type.
        data: DataType,
        /// What fits.
        expected: &'static str,
    },
    /// Character places for something that has no characters.
    #[error("chars belongs to type string, not to {0}")]
    Chars(DataType),
}

impl Layout {
    /// A single value of `data`, most significant byte first; text gets one register until `length` says more.
    pub fn new(data: DataType) -> Self {
        let length = data.registers().unwrap_or(1);
        Self { data, order: Order::ABCD, bits: None, length, chars: Chars::Both, count: 1 }
    }

    /// Registers of one value.
    pub fn each(&self) -> u16 {
        self.data.registers().unwrap_or(self.length)
    }

    /// Registers of all its values; of a `bit` in a bit table, the bits.
    pub fn registers(&self) -> u16 {
        self.each().saturating_mul(self.count)
    }

    /// Whether other values share its registers, so that a write must leave some of their bits as they are.
    pub fn is_partial(&self) -> bool {
        let (_, width) = self.data.span();
        match self.data.class() {
            Class::Bit => self.bits.is_some(),
            Class::Integer { .. } => {
                width == 8
                    || self.bits.is_some_and(|bits| bits.first > 0 || u16::from(bits.last) + 1 < u16::from(width))
            }
            _ => false,
        }
    }

    /// Says whether the layout can be read at all.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), LayoutError> {
        self.check_bits()?;
        self.check_order()?;
        if self.chars != Chars::Both && self.data != DataType::String {
            return Err(LayoutError::Chars(self.data));
        }
        let each = self.each();
        if !(1..=LENGTH_REGISTERS).contains(&each) {
            return Err(LayoutError::Length(each));
        }
        match self.count {
            0 => Err(LayoutError::Count),
            count if u32::from(count) * u32::from(each) > u32::from(LENGTH_REGISTERS) => {
                Err(LayoutError::TooLong { count, each })
            }
            _ => Ok(()),
        }
    }

    fn check_bits(&self) -> Result<(), LayoutError> {
        let Some(bits) = self.bits else { return Ok(()) };
        let (_, width) = self.data.span();
        match self.data.class() {
            Class::Bit if bits.first != bits.last => Err(LayoutError::OneBit(bits)),
            Class::Bit | Class::Integer { .. } if bits.first > bits.last || bits.last >= width => {
                Err(LayoutError::Bits { data: self.data, bits, width })
            }
            Class::Bit | Class::Integer { .. } => Ok(()),
            _ => Err(LayoutError::NoBits(self.data)),
        }
    }

    fn check_order(&self) -> Result<(), LayoutError> {
        let error = |expected| Err(LayoutError::Order { order: self.order, data: self.data, expected });
        match (self.order.family(), self.data.registers(), self.order.width) {
            (Some(_), ..) | (None, Some(1) | None, 2) | (None, Some(2), 4) | (None, Some(4), 8) => Ok(()),
            (None, Some(1) | None, _) => error("ABCD or BADC, or AB or BA"),
            (None, Some(2), _) => error("ABCD, CDAB, BADC, DCBA or another order of the letters A to D"),
            (None, ..) => error("ABCD, CDAB, BADC, DCBA or an order of the letters A to H"),
        }
    }

    /// The smallest and largest raw integer it can hold; `None` where it holds no integer.
    pub fn bounds(&self) -> Option<RangeInclusive<i128>> {
        let (_, width) = self.data.span();
        let width = self.bits.map_or(u32::from(width), |bits| u32::from(bits.last.saturating_sub(bits.first)) + 1);
        match (self.data, self.data.class()) {
            (_, Class::Bit) => Some(0..=1),
            (_, Class::Integer { signed: true }) => Some(-(1_i128 << (width - 1))..=(1_i128 << (width - 1)) - 1),
            (_, Class::Integer { signed: false }) => Some(0..=(1_i128 << width) - 1),
            (DataType::Bcd16, _) => Some(0..=9_999),
            (DataType::Bcd32, _) => Some(0..=99_999_999),
            _ => None,
        }
    }
}

impl Default for Scaling {
    fn default() -> Self {
        let whole = |mantissa| Decimal { mantissa, places: 0 };
        Self { scale: whole(1), offset: whole(0), precision: None }
    }
}
