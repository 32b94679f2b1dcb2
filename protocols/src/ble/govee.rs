//! Govee thermometers: manufacturer data of companies EC88, 0001 and 8801.
//!
//! In: an advertisement. Out: temperature, humidity, battery. Must never take another device that uses the company
//! identifier 0001 for one of these: the form of the bytes has to fit as well.
//!
//! Source: the decoders of custom-components/ble_monitor and Bluetooth-Devices/govee-ble.

use super::advert::Advertisement;
use super::decode::{Packet, Refusal};
use super::object::{Object, array, u16_le};
use super::uuid::Uuid;

/// H5074, H5072, H5075.
pub(super) const COMPANY: u16 = 0xEC88;

/// H5101, H5102, H5106, H5177, H5178: not Govee's own, so the service or the name has to say who it is.
pub(super) const SHARED_COMPANY: u16 = 0x0001;

/// H5179.
pub(super) const COMPANY_5179: u16 = 0x8801;

/// The service they advertise.
const SERVICE: Uuid = Uuid::from_u16(0xEC88);

pub(super) fn decode(adv: &Advertisement) -> Result<Packet, Refusal> {
    if let Some(data) = adv.company(COMPANY) {
        return match data.len() {
            6 => packed(data, 1, None),
            7 => wide(data, 1),
            _ => Err(Refusal::Unknown),
        };
    }
    if let Some(data) = adv.company(COMPANY_5179).filter(|data| data.len() == 9) {
        return wide(data, 4);
    }
    let named = |name: &str| ["GVH", "Govee", "B5178"].iter().any(|start| name.starts_with(start));
    let is_ours = adv.services.contains(&SERVICE) || adv.name.as_deref().is_some_and(named);
    let data = adv.company(SHARED_COMPANY).filter(|_| is_ours).ok_or(Refusal::Unknown)?;
    let is_air = adv.name.as_deref().is_some_and(|name| name.starts_with("GVH5106"));
    match data {
        [1, 1, ..] if data.len() == 6 && is_air => air(data),
        [1, 1, ..] if data.len() == 6 => packed(data, 2, None),
        [1, 1, probe, ..] if data.len() == 9 => packed(data, 3, Some(*probe)),
        _ => Err(Refusal::Unknown),
    }
}

/// Twenty-three bits and a sign: temperature × 10 and humidity × 10, as decimal digits of one number.
fn packed(data: &[u8], at: usize, probe: Option<u8>) -> Result<Packet, Refusal> {
    let [a, b, c, battery] = array(data, at).ok_or(Refusal::Malformed)?;
    let number = i32::from_be_bytes([0, a & 0x7F, b, c]);
    let temperature = if a & 0x80 == 0 { number / 1_000 } else { -(number / 1_000) };
    // The highest bit of the battery says that the sensor has failed.
    let works = battery & 0x80 == 0;
    let mut objects = vec![
        Object::number("temperature", "Cel", temperature, 1, 1).only_if(works),
        Object::number("humidity", "%", number % 1_000, 1, 1).only_if(works),
        Object::whole("battery", "%", battery & 0x7F),
        Object::binary("problem", !works),
    ];
    objects.extend(probe.map(|probe| Object::whole("sensor_id", "", probe)));
    Ok(Packet::plain(objects, data))
}

/// Temperature and humidity of 16 bits each, in hundredths.
fn wide(data: &[u8], at: usize) -> Result<Packet, Refusal> {
    let objects = || {
        Some(vec![
            Object::number("temperature", "Cel", i16::from_le_bytes(array(data, at)?), 1, 2),
            Object::number("humidity", "%", u16_le(data, at + 2)?, 1, 2),
            Object::whole("battery", "%", *data.get(at + 4)?),
        ])
    };
    objects().map(|objects| Packet::plain(objects, data)).ok_or(Refusal::Malformed)
}

/// H5106: nine decimal digits, three each for temperature × 10, humidity × 10 and particles.
fn air(data: &[u8]) -> Result<Packet, Refusal> {
    let [a, rest @ ..]: [u8; 4] = array(data, 2).ok_or(Refusal::Malformed)?;
    let [b, c, d] = rest;
    let number = i64::from(u32::from_be_bytes([a & 0x7F, b, c, d]));
    let temperature = if a & 0x80 == 0 { number / 1_000_000 } else { -(number / 1_000_000) };
    let objects = vec![
        Object::number("temperature", "Cel", temperature, 1, 1),
        Object::number("humidity", "%", number / 1_000 % 1_000, 1, 1),
        Object::whole("pm25", "ug/m3", number % 1_000),
    ];
    Ok(Packet::plain(objects, data))
}
