//! The words of a profile for types, orders, bit fields and character places, both ways.
//!
//! In: a word. Out: what it means, or an error that says what would be right. Must never guess.

use std::fmt;
use std::str::FromStr;

use super::{Bits, Chars, DataType, Order};

/// A word that means nothing here, and what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no {what}; {right}")]
pub struct WordError {
    text: String,
    what: &'static str,
    right: String,
}

const TYPES: [(&str, DataType); 22] = [
    ("bit", DataType::Bit),
    ("int8_lo", DataType::Int8Lo),
    ("int8_hi", DataType::Int8Hi),
    ("uint8_lo", DataType::Uint8Lo),
    ("uint8_hi", DataType::Uint8Hi),
    ("int16", DataType::Int16),
    ("uint16", DataType::Uint16),
    ("int24", DataType::Int24),
    ("uint24", DataType::Uint24),
    ("int32", DataType::Int32),
    ("uint32", DataType::Uint32),
    ("int64", DataType::Int64),
    ("uint64", DataType::Uint64),
    ("float16", DataType::Float16),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("bcd16", DataType::Bcd16),
    ("bcd32", DataType::Bcd32),
    ("string", DataType::String),
    ("bytes", DataType::Bytes),
    ("epoch32", DataType::Epoch32),
    ("iec_date", DataType::IecDate),
];

impl DataType {
    /// The words of all types, in the order the profile reference lists them.
    pub fn words() -> impl Iterator<Item = &'static str> {
        TYPES.iter().map(|(word, _)| *word)
    }
}

/// What other products call a type, so that an error can name ours.
fn usual_name(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "u8" | "uint8" | "byte" | "uint8l" => "uint8_lo",
        "uint8h" => "uint8_hi",
        "i8" | "s8" | "int8" | "int8l" => "int8_lo",
        "int8h" => "int8_hi",
        "u16" | "word" | "ushort" => "uint16",
        "i16" | "s16" | "int" | "short" => "int16",
        "u24" => "uint24",
        "i24" | "s24" => "int24",
        "u32" | "dword" | "uint" => "uint32",
        "i32" | "s32" | "dint" | "long" => "int32",
        "u64" | "qword" => "uint64",
        "i64" | "s64" => "int64",
        "f16" | "half" => "float16",
        "f32" | "float" | "fp32" | "real" => "float32",
        "f64" | "double" | "fp64" | "lreal" => "float64",
        "bool" | "boolean" => "bit",
        "str" | "text" | "ascii" => "string",
        "hex" | "raw" => "bytes",
        "bcd" => "bcd16",
        _ => return None,
    })
}

impl FromStr for DataType {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((_, data)) = TYPES.iter().find(|(word, _)| *word == text) {
            return Ok(*data);
        }
        let near = Self::words()
            .map(|word| (strsim::jaro_winkler(word, text), word))
            .filter(|(score, _)| *score > 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, word)| word);
        let right = match usual_name(text).or(near) {
            Some(word) => format!("write {word}"),
            None => format!("write one of {}", Self::words().collect::<Vec<_>>().join(", ")),
        };
        Err(WordError { text: text.to_owned(), what: "type on the wire", right })
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = TYPES.iter().find(|(_, data)| data == self).map_or("", |(word, _)| word);
        f.pad(word)
    }
}

/// The four orders that are defined for every width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Abcd,
    Cdab,
    Badc,
    Dcba,
}

impl Order {
    /// Most significant byte first: what the specification has for 16 bits, and most devices for more.
    pub const ABCD: Self = Self { letters: [0, 1, 2, 3, 0, 0, 0, 0], width: 4 };
    /// Words swapped, bytes inside a register as usual; `GHEFCDAB` for 64 bits.
    pub const CDAB: Self = Self { letters: [2, 3, 0, 1, 0, 0, 0, 0], width: 4 };
    /// Bytes swapped inside each register; `BADCFEHG` for 64 bits.
    pub const BADC: Self = Self { letters: [1, 0, 3, 2, 0, 0, 0, 0], width: 4 };
    /// Least significant byte first; `HGFEDCBA` for 64 bits.
    pub const DCBA: Self = Self { letters: [3, 2, 1, 0, 0, 0, 0, 0], width: 4 };

    pub(crate) fn family(self) -> Option<Family> {
        [(Self::ABCD, Family::Abcd), (Self::CDAB, Family::Cdab), (Self::BADC, Family::Badc), (Self::DCBA, Family::Dcba)]
            .into_iter()
            .find_map(|(order, family)| (order == self).then_some(family))
    }

    /// The significance (0 = highest) of wire byte `index` in a value of `width` bytes.
    pub(crate) fn significance(self, family: Option<Family>, index: usize, width: usize) -> usize {
        match family {
            Some(Family::Abcd) => index,
            Some(Family::Cdab) => (width - 2 - (index & !1)) + (index & 1),
            Some(Family::Badc) => index ^ 1,
            Some(Family::Dcba) => width - 1 - index,
            None => self.letters.get(index).map_or(index, |letter| usize::from(*letter)),
        }
    }

    /// Whether the two bytes of a register of text stand the other way round; words of text keep their order.
    pub(crate) fn swaps_text(self) -> bool {
        match self.family() {
            Some(family) => matches!(family, Family::Badc | Family::Dcba),
            None => self.width == 2 && self.letters.first() == Some(&1),
        }
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::ABCD
    }
}

const ORDER_RIGHT: &str = "write ABCD (as most devices have it), CDAB (words swapped), BADC (bytes swapped), DCBA (both), \
                           or each of the letters A to B, D or H one time";

impl FromStr for Order {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |right: &str| WordError { text: text.to_owned(), what: "order", right: right.to_owned() };
        let hint = match text.to_ascii_lowercase().as_str() {
            "big" | "be" | "big_endian" | "none" => "write ABCD",
            "little" | "le" | "little_endian" => "write DCBA, or CDAB when only the words are swapped",
            "word" | "word_swap" => "write CDAB",
            "byte" | "byte_swap" => "write BADC",
            "word_byte" | "both" => "write DCBA",
            _ => ORDER_RIGHT,
        };
        let width = text.len();
        if !matches!(width, 2 | 4 | 8) {
            return Err(error(hint));
        }
        let mut letters = [0_u8; 8];
        let mut seen = 0_u16;
        for (place, letter) in letters.iter_mut().zip(text.bytes()) {
            let index = letter.wrapping_sub(b'A');
            if usize::from(index) >= width || seen & (1 << index) != 0 {
                return Err(error(hint));
            }
            seen |= 1 << index;
            *place = index;
        }
        Ok(Self { letters, width: width as u8 })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.letters.iter().take(usize::from(self.width)) {
            write!(f, "{}", char::from(b'A' + letter))?;
        }
        Ok(())
    }
}

impl FromStr for Chars {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "both" => Ok(Self::Both),
            "low" => Ok(Self::Low),
            "high" => Ok(Self::High),
            _ => Err(WordError {
                text: text.to_owned(),
                what: "place of characters",
                right: "write both, low or high".to_owned(),
            }),
        }
    }
}

impl fmt::Display for Chars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both",
            Self::Low => "low",
            Self::High => "high",
        })
    }
}

impl FromStr for Bits {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| match text.len() {
            1 | 2 => text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u8>().ok()).flatten(),
            _ => None,
        };
        let bits = match text.split_once("..") {
            None => number(text).map(|bit| Self { first: bit, last: bit }),
            Some((first, last)) => number(first).zip(number(last)).map(|(first, last)| Self { first, last }),
        };
        bits.filter(|bits| bits.first <= bits.last && bits.last < 64).ok_or_else(|| WordError {
            text: text.to_owned(),
            what: "bit field",
            right: "write a bit such as 3 or a run such as 0..3, counted from the least significant, up to 63"
                .to_owned(),
        })
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}..{}", self.first, self.last) }
    }
}
