//! Numbers and digits at places of a binary message.
//!
//! In: a message and a place. Out: a raw value, decoded like the registers of a Modbus device. Must never index by a number
//! that came from outside.

use crate::codec::{self, Bits, DataType, Layout, Raw};

/// Bytes at a place of the message.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// So many bytes from the beginning, or from the end when negative.
    pub at: i64,
    /// How they hold a value.
    pub layout: ByteLayout,
    /// A run of bits of it.
    pub bits: Option<Bits>,
}

/// How bytes hold a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteLayout {
    /// A number of so many bytes.
    Number {
        /// What kind.
        data: DataType,
        /// 1, 2, 3, 4 or 8.
        bytes: usize,
        /// The least significant byte first.
        little: bool,
    },
    /// Decimal digits, two in a byte.
    Bcd {
        /// So many bytes, up to 9.
        bytes: usize,
        /// The least significant byte first.
        little: bool,
    },
    /// As they are, shown as hexadecimal digits.
    Hex {
        /// So many bytes.
        bytes: usize,
    },
}

/// The longest packed decimal, in bytes: eighteen digits fit 64 bits.
pub const BCD_BYTES: usize = 9;

impl ByteLayout {
    /// The layout of that name: `u8`, `i16le`, `f32be`, or in full `uint8`, `int16le`, `float32be`; the order may be left
    /// out of one byte only.
    pub fn named(name: &str) -> Option<Self> {
        let short = [("uint", "u"), ("int", "i"), ("float", "f")]
            .into_iter()
            .find_map(|(long, short)| Some(format!("{short}{}", name.strip_prefix(long)?)));
        let name = short.as_deref().unwrap_or(name);
        let (name, little) = match (name.strip_suffix("le"), name.strip_suffix("be")) {
            (Some(name), _) => (name, Some(true)),
            (_, Some(name)) => (name, Some(false)),
            _ => (name, None),
        };
        let (data, bytes) = match name {
            "u8" => (DataType::Uint8Lo, 1),
            "i8" => (DataType::Int8Lo, 1),
            "u16" => (DataType::Uint16, 2),
            "i16" => (DataType::Int16, 2),
            "u24" => (DataType::Uint24, 3),
            "i24" => (DataType::Int24, 3),
            "u32" => (DataType::Uint32, 4),
            "i32" => (DataType::Int32, 4),
            "u64" => (DataType::Uint64, 8),
            "i64" => (DataType::Int64, 8),
            "f16" => (DataType::Float16, 2),
            "f32" => (DataType::Float32, 4),
            "f64" => (DataType::Float64, 8),
            _ => return None,
        };
        (bytes == 1 || little.is_some()).then_some(Self::Number { data, bytes, little: little.unwrap_or(false) })
    }

    /// How many bytes it takes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Number { bytes, .. } | Self::Bcd { bytes, .. } | Self::Hex { bytes } => bytes,
        }
    }

    /// The same as registers hold it.
    pub(super) fn layout(self, bits: Option<Bits>) -> Layout {
        let data = match self {
            Self::Number { data, .. } => data,
            Self::Bcd { .. } => DataType::Uint64,
            Self::Hex { .. } => DataType::Bytes,
        };
        Layout { bits, ..Layout::new(data) }
    }
}

impl Bytes {
    /// The raw value; `None` when the message is too short or the bytes hold none.
    pub(super) fn read(&self, message: &[u8]) -> Option<Raw> {
        let at = place(message, self.at)?;
        let mut bytes = message.get(at..at.checked_add(self.layout.bytes())?)?.to_vec();
        let little =
            matches!(self.layout, ByteLayout::Number { little: true, .. } | ByteLayout::Bcd { little: true, .. });
        if little {
            bytes.reverse();
        }
        match self.layout {
            ByteLayout::Hex { .. } => Some(Raw::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
            ByteLayout::Bcd { .. } => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
                let is_decimal = digits.bytes().all(|digit| digit.is_ascii_digit());
                is_decimal.then(|| digits.parse().ok().map(Raw::Int))?
            }
            ByteLayout::Number { .. } => {
                let layout = self.layout.layout(self.bits);
                let room = usize::from(layout.registers()) * 2;
                let mut padded = vec![0; room.saturating_sub(bytes.len())];
                padded.append(&mut bytes);
                let words: Vec<u16> =
                    padded.chunks_exact(2).filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?))).collect();
                codec::decode(&layout, &words).ok()
            }
        }
    }
}

/// An index from the beginning, or from the end when negative; `None` outside.
pub(super) fn place(bytes: &[u8], at: i64) -> Option<usize> {
    let length = i64::try_from(bytes.len()).ok()?;
    usize::try_from(if at < 0 { length + at } else { at }).ok().filter(|at| *at <= bytes.len())
}
