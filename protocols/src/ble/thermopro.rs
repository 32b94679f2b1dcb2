//! ThermoPro TP35x thermometers: manufacturer data whose company identifier is no company but the first two bytes of
//! the packet.
//!
//! In: an advertisement. Out: temperature, humidity, battery. Must never read a device that is not called `TP35…`,
//! because nothing in the bytes says what they are.
//!
//! Source: the decoders of custom-components/ble_monitor and Bluetooth-Devices/thermopro-ble.

use super::advert::Advertisement;
use super::decode::{Packet, Refusal};
use super::object::{Object, array};

/// How the names of these thermometers begin.
pub(super) const NAMES: [&str; 2] = ["TP35", "TP39"];

/// The first byte of every packet, the low byte of what stands where a company would.
pub(super) const FIRST_BYTE: u8 = 0xC2;

/// The packet without its first two bytes: half a temperature, humidity, battery.
const BYTES: usize = 4;

pub(super) fn decode(adv: &Advertisement) -> Result<Packet, Refusal> {
    let is_ours = adv.name.as_deref().is_some_and(|name| NAMES.iter().any(|start| name.starts_with(start)));
    // A host stack that merges packets gives every temperature there was; the newest stands last.
    let packets = adv.manufacturer.iter().filter(|(id, data)| id.to_le_bytes()[0] == FIRST_BYTE && data.len() >= BYTES);
    let (id, data) = { packets }.next_back().filter(|_| is_ours).ok_or(Refusal::Unknown)?;
    let [_, low] = id.to_le_bytes();
    let [high, humidity, battery]: [u8; 3] = array(data, 0).ok_or(Refusal::Malformed)?;
    let level = match battery & 0x03 {
        0 => 1,
        1 => 50,
        _ => 100,
    };
    let objects = vec![
        Object::number("temperature", "Cel", i16::from_le_bytes([low, high]), 1, 1),
        Object::whole("humidity", "%", humidity),
        Object::whole("battery", "%", level),
        Object::binary("battery", battery & 0x03 == 0),
    ];
    Ok(Packet::plain(objects, &[&id.to_le_bytes(), data.as_slice()].concat()))
}
