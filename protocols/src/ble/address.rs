//! Device addresses, and the private ones that only their owner's key resolves.
//!
//! In: text, bytes, an identity resolving key. Out: a [`Mac`], or whether a random address belongs to the key. Must
//! never take an address for a person: resolvable addresses change every quarter of an hour.

use std::fmt;
use std::str::FromStr;

use super::key::Key;

/// A device address, most significant byte first, as it is written: `A4:C1:38:8D:18:B2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Whether an address was assigned to the maker or made up by the device (Core Specification, Vol 6, Part B, 1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddressType {
    /// Assigned by the IEEE.
    #[default]
    Public,
    /// Static, resolvable or not: made up by the device.
    Random,
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no Bluetooth address; write six pairs of hexadecimal digits: A4:C1:38:8D:18:B2")]
pub struct MacError(String);

/// The longest text an error repeats, in characters.
const SHOWN_CHARACTERS: usize = 40;

impl Mac {
    /// The address of bytes in the order of the air, least significant first.
    pub fn from_le(bytes: [u8; 6]) -> Self {
        let mut own = bytes;
        own.reverse();
        Self(own)
    }

    /// Its bytes, least significant first, as nonces and payloads carry them.
    pub fn to_le(self) -> [u8; 6] {
        let mut bytes = self.0;
        bytes.reverse();
        bytes
    }

    /// Whether a random address of these bits is a resolvable private one: the two highest bits are 01.
    pub fn is_resolvable(self) -> bool {
        self.0[0] >> 6 == 0b01
    }

    /// Whether the address was made with this identity resolving key: `hash = ah(irk, prand)`.
    ///
    /// Source: Core Specification, Vol 3, Part H, 2.2.2 and Vol 6, Part B, 1.3.2.3.
    pub fn is_of(self, irk: &Key) -> bool {
        let [a, b, c, d, e, f] = self.0;
        let mut block = [0; 16];
        block[13..].copy_from_slice(&[a, b, c]);
        let encrypted = irk.encrypt(block);
        self.is_resolvable() && encrypted[13..] == [d, e, f]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    /// Reads six pairs of hexadecimal digits with `:` or `-` between them, or nothing.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacError(text.chars().take(SHOWN_CHARACTERS).collect());
        let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b':' | b'-')).collect();
        let is_spaced = text.split([':', '-']).all(|pair| pair.len() == 2);
        if !(is_spaced || text.len() == 12) {
            return Err(error());
        }
        super::key::hex(&digits).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_the_forms_people_write() {
        let mac = Mac([0xA4, 0xC1, 0x38, 0x8D, 0x18, 0xB2]);
        for text in ["A4:C1:38:8D:18:B2", "a4:c1:38:8d:18:b2", "A4-C1-38-8D-18-B2", "A4C1388D18B2"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "A4:C1:38:8D:18:B2");
        assert_eq!(Mac::from_le(mac.to_le()), mac);
        for text in
            ["", "A4:C1:38:8D:18", "A4:C1:38:8D:18:B2:00", "A4:C1:38:8D:18:G2", "A:4C:13:88:D1:8B2", "ä4C1388D18B2"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    /// Sample data of the function `ah`: Core Specification 5.4, Vol 3, Part H, Appendix D.7.
    #[test]
    fn a_private_address_is_resolved_by_its_key_alone() {
        let irk = Key::from_hex("ec0234a357c8ad05341010a60a397d9b").unwrap();
        let other = Key::from_hex("ec0234a357c8ad05341010a60a397d9c").unwrap();
        let mac = Mac([0x70, 0x81, 0x94, 0x0d, 0xfb, 0xaa]);
        assert!(mac.is_of(&irk));
        assert!(!mac.is_of(&other));
        assert!(!Mac([0x70, 0x81, 0x94, 0x0d, 0xfb, 0xab]).is_of(&irk));
        // The same bits under a static address (11…) are no resolvable address.
        assert!(!Mac([0xF0, 0x81, 0x94, 0x0d, 0xfb, 0xaa]).is_of(&irk));
    }
}
