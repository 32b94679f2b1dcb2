//! UUIDs of services and characteristics.
//!
//! In: 16, 32 or 128 bits, or their text. Out: one form that compares. Must never take two spellings for two services.

use std::fmt;
use std::str::FromStr;

/// The base that short UUIDs stand on: `00000000-0000-1000-8000-00805F9B34FB` (Core Specification, Vol 3, Part B, 2.5.1).
const BASE: u128 = 0x0000_0000_0000_1000_8000_0080_5F9B_34FB;

/// The longest text an error repeats, in characters.
const SHOWN_CHARACTERS: usize = 48;

/// A UUID of 128 bits; short ones are on the Bluetooth base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

/// A text that is no UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no UUID; write \"180f\", or all 32 digits as 8-4-4-4-12")]
pub struct UuidError(String);

impl Uuid {
    /// The UUID of an assigned number.
    pub const fn from_u16(short: u16) -> Self {
        Self::from_u32(short as u32)
    }

    /// The UUID of 32 bits.
    pub const fn from_u32(short: u32) -> Self {
        Self(BASE | (short as u128) << 96)
    }

    /// The assigned number, if it is one.
    pub fn short(self) -> Option<u16> {
        u32::try_from(self.0 >> 96)
            .ok()
            .filter(|short| Self::from_u32(*short) == self)
            .and_then(|short| u16::try_from(short).ok())
    }

    /// All 36 characters in lower case, as BlueZ writes it.
    pub fn long(self) -> String {
        let bits = self.0;
        let part = |shift: u32, digits: u32| bits >> shift & ((1 << (4 * digits)) - 1);
        format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.short() {
            Some(short) => write!(f, "{short:04x}"),
            None => f.write_str(&self.long()),
        }
    }
}

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || UuidError(text.chars().take(SHOWN_CHARACTERS).collect());
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let is_short = matches!(digits.len(), 4 | 8) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_short {
            return u32::from_str_radix(digits, 16).map(Self::from_u32).map_err(|_| error());
        }
        let lengths: Vec<usize> = digits.split('-').map(str::len).collect();
        let digits: String = digits.chars().filter(|letter| *letter != '-').collect();
        let is_long = matches!(lengths.as_slice(), [8, 4, 4, 4, 12] | [32]);
        if !is_long || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        u128::from_str_radix(&digits, 16).map(Self).map_err(|_| error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_uuid_is_the_same_uuid() {
        let battery = Uuid::from_u16(0x180F);
        for text in [
            "180f",
            "180F",
            "0x180F",
            "0000180f",
            "0000180f-0000-1000-8000-00805f9b34fb",
            "0000180F-0000-1000-8000-00805F9B34FB",
            "0000180f00001000800000805f9b34fb",
        ] {
            assert_eq!(text.parse(), Ok(battery), "{text}");
        }
        assert_eq!(battery.to_string(), "180f");
        assert_eq!(battery.long(), "0000180f-0000-1000-8000-00805f9b34fb");
        let own: Uuid = "cba20d00-224d-11e6-9fb8-0002a5d5c51b".parse().unwrap();
        assert_eq!(own.to_string(), "cba20d00-224d-11e6-9fb8-0002a5d5c51b");
        assert_eq!(own.short(), None);
        for text in
            ["", "18", "180g", "+80f", "0000180f-0000-1000-8000-00805f9b34f", "0000-180f-0000-1000-8000-00805f9b34fb"]
        {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }
}
