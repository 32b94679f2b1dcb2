//! Advertisement structures: length, type, data, one after the other.
//!
//! In: the bytes of an advertisement with its scan response, or the fields a host stack has made of them. Out: an
//! [`Advertisement`]. Must never read past a length that lies, and never lose what was whole before it.
//!
//! Source: Core Specification, Vol 3, Part C, 11; Supplement to the Core Specification, Part A.

use super::address::{AddressType, Mac};
use super::uuid::Uuid;

/// The most bytes of one advertisement: the largest extended one (Core Specification, Vol 6, Part B, 2.3.4.9). What is
/// behind is not read, and the advertisement counts as damaged.
pub const PAYLOAD_BYTES: usize = 1_650;

/// The most structures that are read of one advertisement; what is behind is not read, and it counts as damaged.
pub const STRUCTURES: usize = 64;

/// The longest name, in bytes (Core Specification, Vol 3, Part C, 12.1); a longer one is cut.
const NAME_BYTES: usize = 248;

/// One sighting of a device: fields as a host stack gives them, or as [`Advertisement::parse`] finds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advertisement {
    /// Who sent it; `None` when only bytes are known.
    pub address: Option<Mac>,
    /// Of which kind that address is.
    pub address_type: AddressType,
    /// How strong it was received, in dBm.
    pub rssi: Option<i8>,
    /// How strong it was sent, in dBm.
    pub tx_power: Option<i8>,
    /// The flags, bit 0 limited, bit 1 general discoverable, bit 2 no classic Bluetooth.
    pub flags: Option<u8>,
    /// What it looks like, by the assigned numbers.
    pub appearance: Option<u16>,
    /// Its name, complete or shortened.
    pub name: Option<String>,
    /// The services it says it has.
    pub services: Vec<Uuid>,
    /// Company identifier and the bytes behind it.
    pub manufacturer: Vec<(u16, Vec<u8>)>,
    /// Service and the bytes behind it.
    pub service_data: Vec<(Uuid, Vec<u8>)>,
}

/// What is wrong with the bytes of an advertisement; what was whole before it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Damage {
    /// A structure says it is longer than what is left.
    #[error("a structure of {length} bytes where {left} are left")]
    Length {
        /// What the structure says.
        length: usize,
        /// What there is.
        left: usize,
    },
    /// Data too short for its type.
    #[error("a structure of type 0x{0:02x} that is too short")]
    Short(u8),
    /// More bytes than any advertisement has.
    #[error("more than {PAYLOAD_BYTES} bytes")]
    TooLong,
    /// More structures than are read.
    #[error("more than {STRUCTURES} structures")]
    TooMany,
}

impl Advertisement {
    /// Reads advertisement structures. A length of 0 ends them early, as the specification says.
    pub fn parse(bytes: &[u8]) -> (Self, Option<Damage>) {
        let mut found = Self::default();
        let mut damage = None;
        let mut rest = bytes.get(..PAYLOAD_BYTES).unwrap_or(bytes);
        for _ in 0..STRUCTURES {
            let Some((length, behind)) = rest.split_first() else { break };
            let length = usize::from(*length);
            let Some((structure, behind)) = behind.split_at_checked(length) else {
                damage.get_or_insert(Damage::Length { length, left: behind.len() });
                return (found, damage);
            };
            let Some((kind, data)) = structure.split_first() else { break };
            if let Err(short) = found.take(*kind, data) {
                damage.get_or_insert(short);
            }
            rest = behind;
        }
        if bytes.len() > PAYLOAD_BYTES {
            damage.get_or_insert(Damage::TooLong);
        } else if !rest.is_empty() && rest.first() != Some(&0) {
            damage.get_or_insert(Damage::TooMany);
        }
        (found, damage)
    }

    /// Takes one structure in; what has a type that says nothing here is passed over.
    fn take(&mut self, kind: u8, data: &[u8]) -> Result<(), Damage> {
        let short = Err(Damage::Short(kind));
        match kind {
            0x01 => self.flags = data.first().copied().or(self.flags),
            0x02 | 0x03 => return self.list(kind, data, 2),
            0x04 | 0x05 => return self.list(kind, data, 4),
            0x06 | 0x07 => return self.list(kind, data, 16),
            // The complete name beats the shortened one, in whichever order they come.
            0x08 if self.name.is_some() => {}
            0x08 | 0x09 => self.name = Some(name(data)),
            0x0A => match data {
                [power, ..] => self.tx_power = Some(power.cast_signed()),
                [] => return short,
            },
            0x16 => return self.data(kind, data, 2),
            0x20 => return self.data(kind, data, 4),
            0x21 => return self.data(kind, data, 16),
            0x19 => match data {
                [low, high, ..] => self.appearance = Some(u16::from_le_bytes([*low, *high])),
                _ => return short,
            },
            0xFF => match data {
                [low, high, data @ ..] => {
                    self.manufacturer.push((u16::from_le_bytes([*low, *high]), data.to_vec()));
                }
                _ => return short,
            },
            _ => {}
        }
        Ok(())
    }

    fn list(&mut self, kind: u8, data: &[u8], width: usize) -> Result<(), Damage> {
        let whole = data.chunks_exact(width);
        let rest = whole.remainder().len();
        self.services.extend(whole.map(uuid));
        if rest == 0 { Ok(()) } else { Err(Damage::Short(kind)) }
    }

    fn data(&mut self, kind: u8, data: &[u8], width: usize) -> Result<(), Damage> {
        let (service, data) = data.split_at_checked(width).ok_or(Damage::Short(kind))?;
        self.service_data.push((uuid(service), data.to_vec()));
        Ok(())
    }

    /// The data of a service; the first, if there are several.
    pub fn service(&self, uuid: Uuid) -> Option<&[u8]> {
        self.service_data.iter().find(|(service, _)| *service == uuid).map(|(_, data)| data.as_slice())
    }

    /// The data of a company; the first, if there are several.
    pub fn company(&self, id: u16) -> Option<&[u8]> {
        self.manufacturer.iter().find(|(company, _)| *company == id).map(|(_, data)| data.as_slice())
    }
}

/// The UUID of 2, 4 or 16 bytes, least significant first.
fn uuid(bytes: &[u8]) -> Uuid {
    let number = bytes.iter().rev().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    match u32::try_from(number) {
        Ok(short) if bytes.len() <= 4 => Uuid::from_u32(short),
        _ => Uuid(number),
    }
}

fn name(data: &[u8]) -> String {
    let data = data.get(..NAME_BYTES).unwrap_or(data);
    String::from_utf8_lossy(data).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ble::key::hex;

    #[test]
    fn what_is_whole_before_a_lie_is_kept_and_the_lie_has_a_name() {
        let flags = Advertisement { flags: Some(6), ..Default::default() };
        for (bytes, expected, damage) in [
            ("", Advertisement::default(), None),
            ("020106", flags.clone(), None),
            // A length of 0 ends it early, whatever comes behind.
            ("02010600ff", flags.clone(), None),
            ("020106ff16d2fc", flags.clone(), Some(Damage::Length { length: 255, left: 3 })),
            ("02010605", flags.clone(), Some(Damage::Length { length: 5, left: 0 })),
            ("0201060216d2", flags.clone(), Some(Damage::Short(0x16))),
            ("0201060216d2020a04", Advertisement { tx_power: Some(4), ..flags.clone() }, Some(Damage::Short(0x16))),
            ("02ff4c", Advertisement::default(), Some(Damage::Short(0xFF))),
            (
                "040305180f",
                Advertisement { services: vec![Uuid::from_u16(0x1805)], ..Default::default() },
                Some(Damage::Short(0x03)),
            ),
            // An empty structure of flags is allowed to say nothing.
            ("0101", Advertisement::default(), None),
        ] {
            assert_eq!(Advertisement::parse(&hex(bytes.as_bytes()).unwrap()), (expected, damage), "{bytes}");
        }
    }

    #[test]
    fn uuids_of_every_width_are_read() {
        let service: Uuid = "02935d36-fc5b-11e6-bc64-92361f002671".parse().unwrap();
        let (found, damage) = Advertisement::parse(&hex(b"12217126001f369264bce6115bfc365d930205").unwrap());
        assert_eq!((found.service(service), damage), (Some([5].as_slice()), None));
        let (found, damage) = Advertisement::parse(&hex(b"0720d2fc00000102").unwrap());
        assert_eq!((found.service(Uuid::from_u16(0xFCD2)), damage), (Some([1, 2].as_slice()), None));
    }

    #[test]
    fn the_complete_name_beats_the_shortened_one() {
        for bytes in [b"03084142050941424344".as_slice(), b"05094142434403084142"] {
            let (found, _) = Advertisement::parse(&hex(bytes).unwrap());
            assert_eq!(found.name.as_deref(), Some("ABCD"));
        }
    }

    #[test]
    fn an_advertisement_has_bounds() {
        let many: Vec<u8> = [2, 1, 6].repeat(STRUCTURES + 1);
        assert_eq!(Advertisement::parse(&many).1, Some(Damage::TooMany));
        assert_eq!(Advertisement::parse(&many[..3 * STRUCTURES]).1, None);
        assert_eq!(Advertisement::parse(&vec![0; PAYLOAD_BYTES + 1]).1, Some(Damage::TooLong));
    }
}
