//! Beacons: iBeacon, AltBeacon and Eddystone.
//!
//! In: an advertisement. Out: who the beacon says it is, and what an Eddystone tells of itself. Must never take a
//! beacon's word for its identity: anybody can send these bytes.
//!
//! Source: Apple, "Proximity Beacon Specification" R1; AltBeacon/spec; google/eddystone, `protocol-specification.md`.

use super::decode::{Packet, Refusal};
use super::field::text;
use super::object::{Object, array, u16_be};
use super::uuid::Uuid;
use crate::value::Why;

/// Apple.
pub(super) const APPLE: u16 = 0x004C;

/// Eddystone.
pub(super) const EDDYSTONE: Uuid = Uuid::from_u16(0xFEAA);

/// The longest URL of an Eddystone once its short forms are written out, in characters; a longer one is malformed.
pub const URL_BYTES: usize = 256;

/// `02 15 uuid(16) major(2) minor(2) power(1)` behind the company identifier of Apple.
pub(super) fn ibeacon(data: &[u8]) -> Result<Packet, Refusal> {
    if data.get(..2) != Some(&[0x02, 0x15]) {
        return Err(Refusal::Unknown);
    }
    numbered(data, 2)
}

/// `BE AC id(16) id2(2) id3(2) power(1) …` behind any company identifier.
pub(super) fn altbeacon(data: &[u8]) -> Result<Packet, Refusal> {
    if data.get(..2) != Some(&[0xBE, 0xAC]) {
        return Err(Refusal::Unknown);
    }
    numbered(data, 2)
}

fn numbered(data: &[u8], at: usize) -> Result<Packet, Refusal> {
    let objects = || {
        let uuid = u128::from_be_bytes(array(data, at)?);
        let [power] = array(data, at + 20)?;
        Some(vec![
            Object::text("uuid", Uuid(uuid).long()),
            Object::whole("major", "", u16_be(data, at + 16)?),
            Object::whole("minor", "", u16_be(data, at + 18)?),
            Object::whole("measured_power", "dBm", power.cast_signed()),
        ])
    };
    objects().map(|objects| Packet::plain(objects, data)).ok_or(Refusal::Malformed)
}

/// Service data of UUID FEAA: the first byte is the frame's type.
pub(super) fn eddystone(data: &[u8]) -> Result<Packet, Refusal> {
    let objects = match data.first() {
        Some(0x00) => uid(data),
        Some(0x10) => url(data),
        Some(0x20) if data.get(1) == Some(&0) => telemetry(data),
        Some(0x30) => ephemeral(data),
        _ => return Err(Refusal::Unknown),
    };
    objects.map(|objects| Packet::plain(objects, data)).ok_or(Refusal::Malformed)
}

fn uid(data: &[u8]) -> Option<Vec<Object>> {
    Some(vec![
        Object::whole("measured_power", "dBm", data.get(1)?.cast_signed()),
        Object::text("namespace", text(data.get(2..12)?)),
        Object::text("instance", text(data.get(12..18)?)),
    ])
}

fn ephemeral(data: &[u8]) -> Option<Vec<Object>> {
    Some(vec![
        Object::whole("measured_power", "dBm", data.get(1)?.cast_signed()),
        Object::text("ephemeral_id", text(data.get(2..10)?)),
    ])
}

fn telemetry(data: &[u8]) -> Option<Vec<Object>> {
    let voltage = u16_be(data, 2)?;
    let temperature = i16::from_be_bytes(array(data, 4)?);
    let count = u32::from_be_bytes(array(data, 6)?);
    let uptime = u32::from_be_bytes(array(data, 10)?);
    Some(vec![
        // 0 is a beacon without a battery, 0x8000 one without a thermometer.
        Object::number("voltage", "V", voltage, 1, 3).only_if(voltage != 0),
        // Eight bits behind the point: 1/256 is 0.00390625.
        Object::number("temperature", "Cel", temperature, 390_625, 8).only_if(temperature != i16::MIN),
        Object::whole("advertisement_count", "", count),
        Object::number("uptime", "s", uptime, 1, 1),
    ])
}

const SCHEMES: [&str; 4] = ["http://www.", "https://www.", "http://", "https://"];

const ENDINGS: [&str; 14] = [
    ".com/", ".org/", ".edu/", ".net/", ".info/", ".biz/", ".gov/", ".com", ".org", ".edu", ".net", ".info", ".biz",
    ".gov",
];

fn url(data: &[u8]) -> Option<Vec<Object>> {
    let power = data.get(1)?.cast_signed();
    let mut url = String::from(*SCHEMES.get(usize::from(*data.get(2)?))?);
    for byte in data.get(3..)? {
        match (ENDINGS.get(usize::from(*byte)), byte) {
            (Some(ending), _) => url.push_str(ending),
            (None, 0x21..=0x7E) => url.push(char::from(*byte)),
            _ => return None,
        }
        if url.len() > URL_BYTES {
            return None;
        }
    }
    let url = if data.len() > 3 { Ok(crate::codec::Raw::Text(url)) } else { Err(Why::Decode) };
    Some(vec![Object::whole("measured_power", "dBm", power), Object::sensor("url", "", url)])
}
