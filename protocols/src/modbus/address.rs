//! Addresses as people write them, and as the protocol counts them.
//!
//! In: what a manual or another product calls a register (`40001`, `4x0001`, `IR1`, `1!40001`, `0x1E`). Out: the table
//! and the protocol address from 0, with a sentence that shows both forms. Must never decide silently: a profile holds
//! table and protocol address, and this room only explains.
//!
//! Source: MODBUS Application Protocol Specification V1.1b3, section 4.4 (data model numbers from 1, addresses from 0).

use std::fmt;

use super::Table;

/// A table and a protocol address; shown both ways: `holding 0x001E (40031)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub Table, pub u16);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(table, address) = *self;
        match leading_digit(table) {
            None => write!(f, "{} 0x{address:02X}", word(table)),
            // Five digits reach to 9999; beyond that the six-digit form is the only one.
            Some(digit) if address < 9_999 => {
                write!(f, "{} 0x{address:04X} ({digit}{:04})", word(table), u32::from(address) + 1)
            }
            Some(digit) => write!(f, "{} 0x{address:04X} ({digit}{:05})", word(table), u32::from(address) + 1),
        }
    }
}

/// The profile's word for a table.
pub fn word(table: Table) -> &'static str {
    match table {
        Table::Coil => "coil",
        Table::Discrete => "discrete",
        Table::Input => "input",
        Table::Holding => "holding",
        Table::DeviceId => "device_id",
    }
}

fn leading_digit(table: Table) -> Option<u8> {
    match table {
        Table::Coil => Some(0),
        Table::Discrete => Some(1),
        Table::Input => Some(3),
        Table::Holding => Some(4),
        Table::DeviceId => None,
    }
}

fn by_digit(digit: u8) -> Option<Table> {
    match digit {
        b'0' => Some(Table::Coil),
        b'1' => Some(Table::Discrete),
        b'3' => Some(Table::Input),
        b'4' => Some(Table::Holding),
        _ => None,
    }
}

/// What a notation most likely means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The table, where the notation names one.
    pub table: Option<Table>,
    /// The protocol address, from 0.
    pub address: u16,
    /// The unit, where the notation names one.
    pub unit: Option<u8>,
    /// The bit of the register, where the notation names one.
    pub bit: Option<u8>,
    /// For people: what it is, and what to write in a profile.
    pub sentence: String,
}

/// Explains a notation: `40001`, `400001`, `4x0001`, `IR1`, `HR1`, `0x1E`, a unit before (`1!40001`), a bit behind
/// (`40001.3`). `None` when it is nothing anybody writes.
pub fn explain(text: &str) -> Option<Explained> {
    let text = text.trim();
    let (unit, rest) = match text.split_once('!') {
        Some((unit, rest)) => (Some(unit.parse::<u8>().ok()?), rest),
        None => (None, text),
    };
    let (number, bit) = match rest.split_once('.') {
        Some((number, bit)) => (number, Some(bit.parse::<u8>().ok().filter(|bit| *bit < 16)?)),
        None => (rest, None),
    };
    let (table, address) =
        hexadecimal(number).or_else(|| prefixed(number)).or_else(|| modicon(number)).or_else(|| {
            let address = digits(number)?;
            Some((None, u16::try_from(address).ok()?))
        })?;
    let sentence = sentence(text, table, address, unit, bit);
    Some(Explained { table, address, unit, bit, sentence })
}

/// Explains a bare number that looks like a data model number, as `40001` does; `None` for any other number.
pub fn explain_number(number: u32) -> Option<Explained> {
    let text = number.to_string();
    let (table, address) = modicon(&text)?;
    Some(Explained { table, address, unit: None, bit: None, sentence: sentence(&text, table, address, None, None) })
}

type Place = (Option<Table>, u16);

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 6 && text.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A number counted from 1.
fn counted(text: &str) -> Option<u16> {
    digits(text)?.checked_sub(1).and_then(|address| u16::try_from(address).ok())
}

fn hexadecimal(text: &str) -> Option<Place> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let plain = (1..=4).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    Some((None, u16::from_str_radix(plain.then_some(digits)?, 16).ok()?))
}

/// `4x0001` and letters with a number from 1: `HR1`, `IR1`, `DI1`, `CO1`, `C1`.
fn prefixed(text: &str) -> Option<Place> {
    if let Some((digit, number)) = text.split_once(['x', 'X']) {
        // A leading 0x is hexadecimal, never a coil.
        let [digit @ b'1'..=b'9'] = digit.as_bytes() else { return None };
        return Some((Some(by_digit(*digit)?), counted(number)?));
    }
    let at = text.find(|letter: char| letter.is_ascii_digit())?;
    let (letters, number) = text.split_at(at);
    let table = match letters.to_ascii_uppercase().as_str() {
        "HR" => Table::Holding,
        "IR" => Table::Input,
        "DI" => Table::Discrete,
        "CO" | "C" => Table::Coil,
        _ => return None,
    };
    Some((Some(table), counted(number)?))
}

/// Five or six digits, the first of which names the table: `40001`, `400001`, `00001`.
fn modicon(text: &str) -> Option<Place> {
    if !matches!(text.len(), 5 | 6) {
        return None;
    }
    digits(text)?;
    let (digit, number) = text.split_at(1);
    let table = by_digit(*digit.as_bytes().first()?)?;
    Some((Some(table), counted(number)?))
}

fn sentence(text: &str, table: Option<Table>, address: u16, unit: Option<u8>, bit: Option<u8>) -> String {
    let mut sentence = match table {
        None => format!(
            "{text} is protocol address {address} (0x{address:04X}); name the table beside it, for example {}",
            { At(Table::Holding, address) }
        ),
        Some(table) => format!(
            "{text} is {}, counted from 1; write table: {}, address: {address} (0x{address:04X})",
            At(table, address),
            word(table)
        ),
    };
    if let Some(bit) = bit {
        sentence.push_str(&format!(", bits: {bit}"));
    }
    if let Some(unit) = unit {
        sentence.push_str(&format!("; unit {unit} belongs to the device's params"));
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_people_write_leads_to_table_and_address() {
        for (text, table, address, unit, bit) in [
            ("40001", Some(Table::Holding), 0, None, None),
            ("400001", Some(Table::Holding), 0, None, None),
            ("465536", Some(Table::Holding), 65_535, None, None),
            ("4x0001", Some(Table::Holding), 0, None, None),
            ("3x0001", Some(Table::Input), 0, None, None),
            ("3X00031", Some(Table::Input), 30, None, None),
            ("30001", Some(Table::Input), 0, None, None),
            ("10017", Some(Table::Discrete), 16, None, None),
            ("00001", Some(Table::Coil), 0, None, None),
            ("IR1", Some(Table::Input), 0, None, None),
            ("hr100", Some(Table::Holding), 99, None, None),
            ("C8", Some(Table::Coil), 7, None, None),
            ("0x1E", None, 30, None, None),
            ("30", None, 30, None, None),
            // No register has the number 0, so that this can only be an address (SunSpec's base).
            ("40000", None, 40_000, None, None),
            ("1!40001", Some(Table::Holding), 0, Some(1), None),
            ("1!300001.3", Some(Table::Input), 0, Some(1), Some(3)),
        ] {
            let explained = explain(text).unwrap_or_else(|| panic!("{text}"));
            let got = (explained.table, explained.address, explained.unit, explained.bit);
            assert_eq!(got, (table, address, unit, bit), "{text}");
        }
        for text in ["", "0x", "0x12345", "5x1", "HR0", "HR", "!", "256!40001", "40001.16", "465537", "1x", "\u{e4}1"] {
            assert_eq!(explain(text), None, "{text}");
        }
        assert_eq!(explain_number(20_000), None);
        assert_eq!(explain_number(120), None);
        assert_eq!(explain_number(40_031).map(|explained| explained.address), Some(30));
    }

    #[test]
    fn both_forms_are_shown() {
        assert_eq!(At(Table::Holding, 0x1E).to_string(), "holding 0x001E (40031)");
        assert_eq!(At(Table::Coil, 0).to_string(), "coil 0x0000 (00001)");
        assert_eq!(At(Table::Input, 9_998).to_string(), "input 0x270E (39999)");
        assert_eq!(At(Table::Input, 9_999).to_string(), "input 0x270F (310000)");
        assert_eq!(At(Table::DeviceId, 1).to_string(), "device_id 0x01");
        let sentence = |text| explain(text).unwrap().sentence;
        assert_eq!(
            sentence("40031"),
            "40031 is holding 0x001E (40031), counted from 1; write table: holding, address: 30 (0x001E)"
        );
        assert!(sentence("1!40001.3").ends_with("bits: 3; unit 1 belongs to the device's params"));
    }
}
