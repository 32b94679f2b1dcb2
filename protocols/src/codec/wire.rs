//! Registers to raw values and back, by layout.
//!
//! In: registers and a [`Layout`]. Out: a [`Raw`] — or why there is none. Must never index by a number that came from
//! outside, and never write bits that belong to another value.

use crate::value::{Timestamp, Why};

use super::words::Family;
use super::{Bits, Chars, Class, DataType, Layout, Order, Raw};

/// What cannot be put into registers, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// Smaller or larger than the type can hold; all three are raw.
    #[error("{raw} does not fit {data}, which holds {min} to {max}")]
    Bounds {
        /// The type.
        data: DataType,
        /// What was to be written.
        raw: f64,
        /// The smallest raw value.
        min: i128,
        /// The largest raw value.
        max: i128,
    },
    /// A float the type cannot hold.
    #[error("{raw} is beyond the largest {data}")]
    Float {
        /// The type.
        data: DataType,
        /// What was to be written.
        raw: f64,
    },
    /// A value of another kind.
    #[error("expected {expected}")]
    Kind {
        /// What the type takes.
        expected: &'static str,
    },
    /// Text longer than its registers.
    #[error("too long: {bytes} bytes, and there is room for {room}")]
    Long {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes there is room for.
        room: usize,
    },
    /// Bytes that are not hexadecimal text of the right length.
    #[error("expected {0} hexadecimal digits")]
    Hex(usize),
    /// No time, or one the type cannot hold.
    #[error("expected a time such as 2026-11-22T12:00:00Z that {0} can hold")]
    Time(DataType),
    /// Another number of values.
    #[error("expected {expected} values, got {got}")]
    Count {
        /// The layout's count.
        expected: u16,
        /// What was to be written.
        got: usize,
    },
    /// The registers hold other values too.
    #[error("it shares its registers with other values")]
    Partial,
    /// A layout that does not have one register to write bits of.
    #[error("it is not a run of bits in one register")]
    NoField,
    /// Fewer registers than the layout has.
    #[error("{0} registers are too few")]
    Short(usize),
}

/// Some bits of one register, as functions 22 or read-modify-write set them: `(register & !mask) | value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The bits that are written.
    pub mask: u16,
    /// Their values; zero outside the mask.
    pub value: u16,
}

/// Gives the raw value of the first [`Layout::registers`] registers.
///
/// Text ends at its first NUL; spaces, NUL and 0xFF (erased memory) behind it are padding. It is UTF-8, or Latin-1
/// where it is no valid UTF-8, so that a degree sign of an old device is still one. Bit fields of signed types are
/// signed.
///
/// # Errors
/// [`Why::Nan`] for NaN and infinities, [`Why::Decode`] for too few registers, digits above 9 in BCD and dates that are
/// none.
pub fn decode(layout: &Layout, registers: &[u16]) -> Result<Raw, Why> {
    let each = usize::from(layout.each());
    let registers = registers.get(..usize::from(layout.registers())).ok_or(Why::Decode)?;
    if layout.count == 1 {
        return decode_one(layout, registers);
    }
    if each == 0 {
        return Err(Why::Decode);
    }
    registers.chunks_exact(each).map(|registers| decode_one(layout, registers)).collect::<Result<_, _>>().map(Raw::List)
}

fn decode_one(layout: &Layout, registers: &[u16]) -> Result<Raw, Why> {
    if layout.data.class() == Class::Text {
        return Ok(Raw::Text(decode_text(layout, registers)));
    }
    let number = gather(layout.order, registers);
    let (low, width) = layout.data.span();
    let bits = layout.bits.unwrap_or(Bits { first: 0, last: width.saturating_sub(1) });
    Ok(match layout.data.class() {
        Class::Bit => Raw::Bool(number >> layout.bits.map_or(0, |bits| bits.first.min(63)) & 1 != 0),
        Class::Integer { signed } => {
            let width = u32::from(bits.last.saturating_sub(bits.first)) + 1;
            let field = number.checked_shr(u32::from(low) + u32::from(bits.first)).unwrap_or(0) & ones(width);
            // The sign is the field's highest bit.
            let negative = signed && field.checked_shr(width - 1).unwrap_or(0) & 1 != 0;
            Raw::Int(i128::from(field) - if negative { 1_i128 << width } else { 0 })
        }
        Class::Float => {
            let float = match layout.data {
                DataType::Float16 => half::f16::from_bits(number as u16).to_f64(),
                DataType::Float32 => f64::from(f32::from_bits(number as u32)),
                _ => f64::from_bits(number),
            };
            if !float.is_finite() {
                return Err(Why::Nan);
            }
            Raw::Float(float)
        }
        Class::Decimal => Raw::Int(i128::from(from_bcd(number, width).ok_or(Why::Decode)?)),
        Class::Time => {
            let at = match layout.data {
                DataType::Epoch32 => Some(super::time::from_epoch(number as u32)),
                _ => super::time::from_iec(number),
            };
            Raw::Text(at.ok_or(Why::Decode)?.to_string())
        }
        Class::Text => return Err(Why::Decode),
    })
}

/// A number of `width` ones; at most 64.
fn ones(width: u32) -> u64 {
    u64::MAX.checked_shr(64_u32.saturating_sub(width)).unwrap_or(0)
}

/// The registers as one big-endian number, the order undone. At most four registers count.
fn gather(order: Order, registers: &[u16]) -> u64 {
    let family = order.family();
    match (registers, family) {
        ([one], Some(Family::Abcd | Family::Cdab)) => return u64::from(*one),
        ([high, low], Some(Family::Abcd)) => return u64::from(*high) << 16 | u64::from(*low),
        _ => {}
    }
    let width = registers.len().min(4) * 2;
    let wire = registers.iter().take(4).flat_map(|register| register.to_be_bytes()).enumerate();
    wire.fold(0, |number, (index, byte)| {
        let place = (width - 1).saturating_sub(order.significance(family, index, width));
        number | u64::from(byte) << (8 * place)
    })
}

/// The opposite of [`gather`]: `number` in `registers`, at most four, in wire order.
fn scatter(order: Order, number: u64, registers: &mut [u16]) {
    let family = order.family();
    let width = registers.len().min(4) * 2;
    for (index, register) in registers.iter_mut().take(4).enumerate() {
        let byte = |index| (number >> (8 * (width - 1).saturating_sub(order.significance(family, index, width)))) as u8;
        *register = u16::from_be_bytes([byte(2 * index), byte(2 * index + 1)]);
    }
}

fn from_bcd(number: u64, width: u8) -> Option<u64> {
    (0..u32::from(width) / 4).rev().try_fold(0, |value, digit| {
        let digit = number >> (4 * digit) & 0xF;
        (digit <= 9).then_some(value * 10 + digit)
    })
}

fn to_bcd(mut value: u64, width: u8) -> u64 {
    let mut number = 0;
    for digit in 0..u32::from(width) / 4 {
        number |= (value % 10) << (4 * digit);
        value /= 10;
    }
    number
}

fn decode_text(layout: &Layout, registers: &[u16]) -> String {
    let swap = layout.order.swaps_text();
    let ordered = registers.iter().map(|register| if swap { register.swap_bytes() } else { *register });
    let bytes: Vec<u8> = match layout.chars {
        Chars::Both => ordered.flat_map(u16::to_be_bytes).collect(),
        Chars::Low => ordered.map(|register| register as u8).collect(),
        Chars::High => ordered.map(|register| (register >> 8) as u8).collect(),
    };
    if layout.data == DataType::Bytes {
        return bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            text.extend([byte >> 4, byte & 0xF].iter().filter_map(|digit| char::from_digit(u32::from(*digit), 16)));
            text
        });
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    let kept = text.iter().rposition(|byte| !matches!(byte, b' ' | 0xFF)).map_or(0, |last| last + 1);
    let text = text.get(..kept).unwrap_or_default();
    match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        // Latin-1 is the first 256 code points.
        Err(_) => text.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Puts a raw value into registers of its own. A float goes to the nearest integer of an integer type, halves away
/// from zero.
///
/// Text is UTF-8, padded with NUL.
///
/// # Errors
/// What does not fit, and [`EncodeError::Partial`] for a layout that shares its registers: those take [`encode_field`]
/// or [`encode_into`].
pub fn encode(layout: &Layout, raw: &Raw) -> Result<Vec<u16>, EncodeError> {
    if layout.is_partial() {
        return Err(EncodeError::Partial);
    }
    let mut registers = vec![0; usize::from(layout.registers())];
    encode_into(layout, raw, &mut registers)?;
    Ok(registers)
}

/// Gives the bits of one register that a raw value sets: a `bit`, a bit field or half a register.
///
/// # Errors
/// What does not fit, and [`EncodeError::NoField`] for more than one register.
pub fn encode_field(layout: &Layout, raw: &Raw) -> Result<Field, EncodeError> {
    let (mut mask, mut value) = ([0], [0]);
    if layout.registers() != 1 || layout.data.class() == Class::Text {
        return Err(EncodeError::NoField);
    }
    let (bits, number) = number_of(layout, raw)?;
    scatter(layout.order, bits, &mut mask);
    scatter(layout.order, number, &mut value);
    let ([mask], [value]) = (mask, value);
    Ok(Field { mask, value })
}

/// Puts a raw value among others: only its own bits of `registers` change.
///
/// # Errors
/// What does not fit; `registers` is then as it was, save for the earlier values of an array.
pub fn encode_into(layout: &Layout, raw: &Raw, registers: &mut [u16]) -> Result<(), EncodeError> {
    let each = usize::from(layout.each()).max(1);
    let have = registers.len();
    let registers = registers.get_mut(..usize::from(layout.registers())).ok_or(EncodeError::Short(have))?;
    if layout.count == 1 {
        return encode_one(layout, raw, registers);
    }
    let Raw::List(values) = raw else { return Err(EncodeError::Kind { expected: "an array" }) };
    if values.len() != usize::from(layout.count) {
        return Err(EncodeError::Count { expected: layout.count, got: values.len() });
    }
    values.iter().zip(registers.chunks_exact_mut(each)).try_for_each(|(raw, place)| encode_one(layout, raw, place))
}

fn encode_one(layout: &Layout, raw: &Raw, registers: &mut [u16]) -> Result<(), EncodeError> {
    if layout.data.class() == Class::Text {
        return encode_text(layout, raw, registers);
    }
    let (bits, number) = number_of(layout, raw)?;
    let number = gather(layout.order, registers) & !bits | number;
    scatter(layout.order, number, registers);
    Ok(())
}

/// The bits a value owns in the big-endian number of its registers, and what they become.
fn number_of(layout: &Layout, raw: &Raw) -> Result<(u64, u64), EncodeError> {
    let (low, width) = layout.data.span();
    let all = ones(16 * u32::from(layout.each()));
    match layout.data.class() {
        Class::Bit => {
            let on = u64::from(integer(layout, raw)? != 0);
            let first = u32::from(layout.bits.map_or(0, |bits| bits.first.min(63)));
            Ok((if layout.bits.is_some() { 1 << first } else { all }, on << first))
        }
        Class::Integer { .. } => {
            let value = integer(layout, raw)?;
            let bits = layout.bits.unwrap_or(Bits { first: 0, last: width.saturating_sub(1) });
            let mask = ones(u32::from(bits.last.saturating_sub(bits.first)) + 1);
            let shift = u32::from(low) + u32::from(bits.first);
            let number = (value as u64 & mask).checked_shl(shift).unwrap_or(0);
            // The fourth byte of a 24-bit number belongs to nobody else: it becomes 0.
            Ok((if layout.is_partial() { mask.checked_shl(shift).unwrap_or(0) } else { all }, number))
        }
        Class::Decimal => Ok((all, to_bcd(integer(layout, raw)? as u64, width))),
        Class::Float => Ok((all, float_bits(layout.data, raw)?)),
        Class::Time => {
            let Raw::Text(text) = raw else { return Err(EncodeError::Kind { expected: "a time as text" }) };
            let at: Option<Timestamp> = text.parse().ok();
            let number = at.and_then(|at| match layout.data {
                DataType::Epoch32 => super::time::to_epoch(at).map(u64::from),
                _ => super::time::to_iec(at),
            });
            Ok((all, number.ok_or(EncodeError::Time(layout.data))?))
        }
        Class::Text => Err(EncodeError::NoField),
    }
}

fn integer(layout: &Layout, raw: &Raw) -> Result<i128, EncodeError> {
    let value = match raw {
        Raw::Bool(on) => i128::from(*on),
        Raw::Int(value) => *value,
        // The cast holds at the ends of i128, far outside every type's bounds.
        Raw::Float(value) if value.is_finite() => value.round() as i128,
        _ => return Err(EncodeError::Kind { expected: "a number" }),
    };
    let bounds = layout.bounds().ok_or(EncodeError::NoField)?;
    if bounds.contains(&value) {
        return Ok(value);
    }
    Err(EncodeError::Bounds { data: layout.data, raw: value as f64, min: *bounds.start(), max: *bounds.end() })
}

fn float_bits(data: DataType, raw: &Raw) -> Result<u64, EncodeError> {
    let float = match raw {
        Raw::Float(float) => *float,
        Raw::Int(value) => *value as f64,
        _ => return Err(EncodeError::Kind { expected: "a number" }),
    };
    let (bits, finite) = match data {
        DataType::Float16 => {
            let half = half::f16::from_f64(float);
            (u64::from(half.to_bits()), half.is_finite())
        }
        DataType::Float32 => (u64::from((float as f32).to_bits()), (float as f32).is_finite()),
        _ => (float.to_bits(), float.is_finite()),
    };
    if finite { Ok(bits) } else { Err(EncodeError::Float { data, raw: float }) }
}

fn encode_text(layout: &Layout, raw: &Raw, registers: &mut [u16]) -> Result<(), EncodeError> {
    let Raw::Text(text) = raw else { return Err(EncodeError::Kind { expected: "text" }) };
    let room = registers.len() * if layout.chars == Chars::Both { 2 } else { 1 };
    let bytes = match layout.data {
        DataType::Bytes => from_hex(text).filter(|bytes| bytes.len() == room).ok_or(EncodeError::Hex(room * 2))?,
        _ => text.as_bytes().to_vec(),
    };
    if bytes.len() > room {
        return Err(EncodeError::Long { bytes: bytes.len(), room });
    }
    let mut bytes = bytes.into_iter().chain(std::iter::repeat(0));
    let mut next = || bytes.next().unwrap_or(0);
    for register in registers {
        let pair = match layout.chars {
            Chars::Both => [next(), next()],
            Chars::Low => [0, next()],
            Chars::High => [next(), 0],
        };
        let ordered = u16::from_be_bytes(pair);
        *register = if layout.order.swaps_text() { ordered.swap_bytes() } else { ordered };
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}
