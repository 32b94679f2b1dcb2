//! Xiaomi thermometers with the firmware of atc1441 or pvvx: service data of UUID 181A.
//!
//! In: the service data, and for encrypted packets the sender's address and its key. Out: temperature, humidity,
//! battery. Must tell the forms apart by their length alone, as there is nothing else.
//!
//! The counter of an encrypted packet has eight bits and goes round, so an old packet can be played again once the window
//! of repeated packets has passed: that is the format's own weakness; BTHome, which the same firmware speaks, has none.
//!
//! Source: the README files of atc1441/ATC_MiThermometer and pvvx/ATC_MiThermometer, "advertising format"; the layout of
//! the nonce from custom-components/ble_monitor.

use super::address::Mac;
use super::decode::{Packet, Refusal};
use super::key::Key;
use super::object::{Object, array, u16_be, u16_le};
use super::uuid::Uuid;

/// Environmental Sensing.
pub(super) const SERVICE: Uuid = Uuid::from_u16(0x181A);

/// Bytes of the form of atc1441, big-endian.
const ATC1441_BYTES: usize = 13;

/// Bytes of the "custom" form of pvvx, little-endian.
const PVVX_BYTES: usize = 15;

/// Bytes of its encrypted form: counter, ciphertext, tag.
const SEALED_BYTES: usize = 11;

/// What is authenticated besides the text.
pub(super) const AAD: [u8; 1] = [0x11];

/// `mac(6) temperature(2) humidity(1) battery(1) millivolts(2) counter(1)`.
pub(super) fn atc1441(data: &[u8]) -> Result<Packet, Refusal> {
    if data.len() != ATC1441_BYTES {
        return Err(Refusal::Unknown);
    }
    let objects = || {
        let [humidity, battery] = array(data, 8)?;
        Some(vec![
            Object::number("temperature", "Cel", i16::from_be_bytes(array(data, 6)?), 1, 1),
            Object::whole("humidity", "%", humidity),
            Object::whole("battery", "%", battery),
            Object::number("voltage", "V", u16_be(data, 10)?, 1, 3),
            Object::whole("packet_id", "", *data.get(12)?),
        ])
    };
    let objects = objects().ok_or(Refusal::Malformed)?;
    Ok(Packet::plain(objects, data))
}

/// `mac(6) temperature(2) humidity(2) millivolts(2) battery(1) counter(1) flags(1)`.
pub(super) fn pvvx(data: &[u8], sender: Option<Mac>, key: Option<&Key>) -> Result<Packet, Refusal> {
    if data.len() == SEALED_BYTES {
        return sealed(data, sender, key);
    }
    if data.len() != PVVX_BYTES {
        return Err(Refusal::Unknown);
    }
    let objects = || {
        let [battery, counter, flags] = array(data, 12)?;
        Some(vec![
            Object::number("temperature", "Cel", i16::from_le_bytes(array(data, 6)?), 1, 2),
            Object::number("humidity", "%", u16_le(data, 8)?, 1, 2),
            Object::number("voltage", "V", u16_le(data, 10)?, 1, 3),
            Object::whole("battery", "%", battery),
            Object::whole("packet_id", "", counter),
            // Bit 0 is the reed switch, bit 1 the output; the others say what switched it.
            Object::binary("opening", flags & 0x01 != 0),
            Object::binary("output", flags & 0x02 != 0),
        ])
    };
    let objects = objects().ok_or(Refusal::Malformed)?;
    Ok(Packet::plain(objects, data))
}

/// The sender, then the head of the structure as it is broadcast: length, type, service, counter.
pub(super) fn nonce(sender: Mac, counter: u8) -> [u8; 11] {
    let [a, b, c, d, e, f] = sender.to_le();
    [a, b, c, d, e, f, 0x0E, 0x16, 0x1A, 0x18, counter]
}

/// `counter(1) ciphertext(6) tag(4)`; in it `temperature(2) humidity(2) battery(1) flags(1)`.
fn sealed(data: &[u8], sender: Option<Mac>, key: Option<&Key>) -> Result<Packet, Refusal> {
    let key = key.ok_or(Refusal::NoKey)?;
    let sender = sender.ok_or(Refusal::Undecryptable)?;
    let (Some([counter]), Some(text), Some(tag)) = (array(data, 0), data.get(1..7), data.get(7..)) else {
        return Err(Refusal::Malformed);
    };
    let plain = key.open_11(nonce(sender, counter), &AAD, text, tag).ok_or(Refusal::Undecryptable)?;
    let objects = || {
        let [battery, flags] = array(&plain, 4)?;
        Some(vec![
            Object::number("temperature", "Cel", i16::from_le_bytes(array(&plain, 0)?), 1, 2),
            Object::number("humidity", "%", u16_le(&plain, 2)?, 1, 2),
            Object::whole("battery", "%", battery),
            Object::whole("packet_id", "", counter),
            Object::binary("opening", flags & 0x01 != 0),
            Object::binary("output", flags & 0x02 != 0),
        ])
    };
    let objects = objects().ok_or(Refusal::Malformed)?;
    Ok(Packet { is_encrypted: true, packet_id: Some(counter), ..Packet::plain(objects, data) })
}
