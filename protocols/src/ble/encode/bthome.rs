//! BTHome v2 from objects: in the order of their identifiers, in as many packets as they need.

use super::super::bthome::{Form, NO_OBJECT, SERVICE, TABLE, VERSION, class_of, nonce};
use super::super::decode::canonical;
use super::super::object::{Object, ObjectClass};
use super::{LEGACY_BYTES, Sender, number, service};
use crate::ble::Advertisement;

/// Bytes before the objects: flags (3), the head of the structure (4), device information (1).
const HEAD_BYTES: usize = 8;
/// Bytes behind them when they are encrypted: counter and tag.
const SEALED_BYTES: usize = 8;
/// The bit of the device information that says encrypted.
const ENCRYPTED: u8 = 0x01;
/// The identifier of a packet's number.
const PACKET_ID: u8 = 0x00;

pub(super) fn encode(told: &[Object], sender: Sender<'_>) -> Option<Vec<Advertisement>> {
    let mut rows: Vec<(u8, Vec<u8>)> = told.iter().filter_map(row).filter(|(id, _)| *id != PACKET_ID).collect();
    rows.sort_by_key(|(id, _)| *id);
    // A number that was given is that of the packet; else it is counted here. An encrypted packet is told by its counter.
    let given = told.iter().find(|object| object.name == "packet_id").and_then(row).map(|(_, bytes)| bytes);
    let tail = if sender.key.is_some() { SEALED_BYTES } else { 0 };
    let room = LEGACY_BYTES - HEAD_BYTES - tail;
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for (_, bytes) in rows {
        let is_full = packets.last().is_none_or(|packet| packet.len() + bytes.len() > room);
        if is_full {
            let count = sender.number.wrapping_add(u32::try_from(packets.len()).unwrap_or_default());
            let number = given.clone().unwrap_or_else(|| vec![PACKET_ID, count.to_le_bytes()[0]]);
            packets.push(if sender.key.is_some() && given.is_none() { Vec::new() } else { number });
        }
        if let Some(packet) = packets.last_mut() {
            packet.extend(bytes);
        }
    }
    let sealed = |(nth, plain): (usize, Vec<u8>)| seal(plain, sender, u32::try_from(nth).unwrap_or_default());
    Some(packets.into_iter().enumerate().map(sealed).map(|data| service(SERVICE, data)).collect())
}

fn seal(plain: Vec<u8>, sender: Sender<'_>, nth: u32) -> Vec<u8> {
    let clear = VERSION << 5;
    let Some(key) = sender.key else { return [vec![clear], plain].concat() };
    let info = clear | ENCRYPTED;
    let counter = sender.number.wrapping_add(nth).to_le_bytes();
    let (text, tag) = key.seal_13(nonce(sender.address, info, counter), &[], &plain);
    [vec![info], text, counter.to_vec(), tag].concat()
}

/// Identifier and bytes of an object, in the first form that has room for it.
fn row(object: &Object) -> Option<(u8, Vec<u8>)> {
    let value = number(object)?;
    let name = canonical(&object.name);
    let fits = |(id, own, unit, form): &&(u8, &str, &str, Form)| {
        *id != NO_OBJECT
            && *own == name
            && class_of(*form) == object.class
            && (object.unit.is_empty() || object.unit == *unit)
    };
    let own = TABLE.iter().filter(fits);
    let bytes = |form: Form| match form {
        Form::Unsigned(width, mantissa, places) => {
            let raw = (value / mantissa as f64 * 10_f64.powi(i32::from(places))).round() as i128;
            (0..1_i128 << (8 * width)).contains(&raw).then(|| raw.to_le_bytes().into_iter().take(width).collect())
        }
        Form::Signed(width, mantissa, places) => {
            let raw = (value / mantissa as f64 * 10_f64.powi(i32::from(places))).round() as i128;
            let half = 1_i128 << (8 * width - 1);
            (-half..half).contains(&raw).then(|| raw.to_le_bytes().into_iter().take(width).collect())
        }
        Form::Binary | Form::Button => Some(vec![value as u8]),
        Form::Dimmer => Some(vec![value as u8, 1]),
        Form::Time | Form::Text | Form::Bytes => None,
    };
    debug_assert!(object.class != ObjectClass::Binary || value == 0.0 || value == 1.0);
    own.filter_map(|(id, _, _, form)| {
        let bytes: Vec<u8> = bytes(*form)?;
        Some((*id, [vec![*id], bytes].concat()))
    })
    .next()
}
