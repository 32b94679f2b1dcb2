//! RuuviTag: manufacturer data of company 0499, data formats 3 (RAWv1) and 5 (RAWv2).
//!
//! In: the bytes behind the company identifier. Out: objects; what the tag says is "not available" has no value. Must
//! never show one of those marks as a number.
//!
//! Source: ruuvi/ruuvi-sensor-protocols, `dataformat_03.md` and `dataformat_05.md`.

use super::decode::{Packet, Refusal};
use super::field::text;
use super::object::{Object, array, u16_be};

/// Ruuvi Innovations.
pub(super) const COMPANY: u16 = 0x0499;

/// Format 3, fourteen bytes.
pub(super) fn raw_v1(data: &[u8]) -> Result<Packet, Refusal> {
    if data.first() != Some(&3) {
        return Err(Refusal::Unknown);
    }
    v1(data).map(|objects| Packet::plain(objects, data)).ok_or(Refusal::Malformed)
}

fn v1(data: &[u8]) -> Option<Vec<Object>> {
    let [_, humidity, whole, hundredths] = array(data, 0)?;
    // Sign and magnitude, not two's complement.
    let magnitude = i32::from(whole & 0x7F) * 100 + i32::from(hundredths);
    let temperature = if whole & 0x80 == 0 { magnitude } else { -magnitude };
    let pressure = u32::from(u16_be(data, 4)?) + 50_000;
    Some(vec![
        Object::number("humidity", "%", humidity, 5, 1),
        Object::number("temperature", "Cel", temperature, 1, 2),
        Object::number("pressure", "hPa", pressure, 1, 2),
        Object::number("acceleration_x", "[g]", i16::from_be_bytes(array(data, 6)?), 1, 3),
        Object::number("acceleration_y", "[g]", i16::from_be_bytes(array(data, 8)?), 1, 3),
        Object::number("acceleration_z", "[g]", i16::from_be_bytes(array(data, 10)?), 1, 3),
        Object::number("voltage", "V", u16_be(data, 12)?, 1, 3),
    ])
}

/// Format 5, twenty-four bytes.
pub(super) fn raw_v2(data: &[u8]) -> Result<Packet, Refusal> {
    if data.first() != Some(&5) {
        return Err(Refusal::Unknown);
    }
    v2(data).map(|objects| Packet::plain(objects, data)).ok_or(Refusal::Malformed)
}

fn v2(data: &[u8]) -> Option<Vec<Object>> {
    let temperature = i16::from_be_bytes(array(data, 1)?);
    let humidity = u16_be(data, 3)?;
    let pressure = u16_be(data, 5)?;
    let power = u16_be(data, 13)?;
    let (voltage, sent) = (power >> 5, power & 0x1F);
    let [movements] = array(data, 15)?;
    let sequence = u16_be(data, 16)?;
    let mac: [u8; 6] = array(data, 18)?;
    let axis = |name, at| {
        let raw = i16::from_be_bytes(array(data, at)?);
        Some(Object::number(name, "[g]", raw, 1, 3).only_if(raw != i16::MIN))
    };
    Some(vec![
        Object::number("temperature", "Cel", temperature, 5, 3).only_if(temperature != i16::MIN),
        Object::number("humidity", "%", humidity, 25, 4).only_if(humidity != u16::MAX),
        Object::number("pressure", "hPa", u32::from(pressure) + 50_000, 1, 2).only_if(pressure != u16::MAX),
        axis("acceleration_x", 7)?,
        axis("acceleration_y", 9)?,
        axis("acceleration_z", 11)?,
        Object::number("voltage", "V", voltage + 1_600, 1, 3).only_if(voltage != 0x7FF),
        Object::whole("tx_power", "dBm", i32::from(sent) * 2 - 40).only_if(sent != 0x1F),
        Object::whole("movement_counter", "", movements).only_if(movements != u8::MAX),
        Object::whole("sequence", "", sequence).only_if(sequence != u16::MAX),
        Object::text("mac", text(&mac)).only_if(mac != [0xFF; 6]),
    ])
}
