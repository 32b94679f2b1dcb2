//! Xiaomi MiBeacon: service data of UUID FE95, clear (versions 2 to 5) and encrypted (versions 4 and 5).
//!
//! In: the service data, the sender's address and its bind key. Out: the frame's objects. Must never go on behind an
//! object it does not know without skipping it by its own length.
//!
//! Source: Xiaomi's "MiBeacon protocol" pages; the object tables of custom-components/ble_monitor and
//! Bluetooth-Devices/xiaomi-ble.

use super::address::Mac;
use super::decode::{Packet, Refusal};
use super::key::Key;
use super::object::{OBJECTS, Object, ObjectClass, array, u16_le};
use super::uuid::Uuid;
use crate::codec::Raw;
use crate::value::Why;

/// The service.
pub(super) const SERVICE: Uuid = Uuid::from_u16(0xFE95);

/// Bytes of frame control, product and frame counter.
const HEAD_BYTES: usize = 5;

/// Bytes of counter and tag behind the ciphertext.
const TAIL_BYTES: usize = 7;

/// What is authenticated besides the text.
pub(super) const AAD: [u8; 1] = [0x11];

/// The first version whose encryption is read.
const ENCRYPTED_VERSION: u16 = 4;

pub(super) const ENCRYPTED: u16 = 1 << 3;
pub(super) const HAS_MAC: u16 = 1 << 4;
const HAS_CAPABILITY: u16 = 1 << 5;
pub(super) const HAS_OBJECT: u16 = 1 << 6;

/// A bit of the capability byte: two more bytes say what the device can show and take.
const HAS_IO: u8 = 1 << 5;

const SENSORS: [&str; 18] = [
    "temperature",
    "humidity",
    "light",
    "moisture",
    "conductivity",
    "formaldehyde",
    "battery",
    "consumable",
    "idle_time",
    "pressure_duration",
    "lock_action",
    "lock_method",
    "key_id",
    "score",
    "counter",
    "packet_id",
    "product_id",
    "fingerprint_result",
];

const BINARIES: [&str; 12] = [
    "moisture",
    "smoke",
    "light",
    "door",
    "opening",
    "motion",
    "occupancy",
    "lock",
    "power",
    "pressed",
    "battery",
    "toothbrush",
];

const EVENTS: [&str; 1] = ["button"];

/// The names of the objects of one class.
pub(super) fn names(class: ObjectClass) -> Vec<&'static str> {
    match class {
        ObjectClass::Sensor => SENSORS.to_vec(),
        ObjectClass::Binary => BINARIES.to_vec(),
        ObjectClass::Event => EVENTS.to_vec(),
    }
}

/// Reads the service data.
pub(super) fn decode(data: &[u8], sender: Option<Mac>, key: Option<&Key>) -> Result<Packet, Refusal> {
    let control = u16_le(data, 0).ok_or(Refusal::Malformed)?;
    let head: [u8; HEAD_BYTES] = array(data, 0).ok_or(Refusal::Malformed)?;
    let version = control >> 12;
    if !(2..=5).contains(&version) || control & HAS_OBJECT == 0 {
        return Err(Refusal::Unknown);
    }
    let (included, body) = body(control, data).ok_or(Refusal::Malformed)?;
    let number = |mut packet: Packet| {
        let product = u16::from_le_bytes([head[2], head[3]]);
        packet.objects.push(Object::whole("packet_id", "", head[4]));
        packet.objects.push(Object::whole("product_id", "", product));
        packet
    };
    if control & ENCRYPTED == 0 {
        return Ok(number(Packet { payload: data.to_vec(), ..objects(body) }));
    }
    if version < ENCRYPTED_VERSION {
        return Err(Refusal::Unknown);
    }
    let key = key.ok_or(Refusal::NoKey)?;
    let sender = included.or(sender).ok_or(Refusal::Undecryptable)?;
    let (text, counter, tag) = tail(body).ok_or(Refusal::Malformed)?;
    let plain = key.open_12(nonce(sender, head, counter), &AAD, text, tag).ok_or(Refusal::Undecryptable)?;
    let [low, middle, high] = counter;
    // The frame counter are the lowest eight bits; the others count how often it went round.
    let counter = Some(u64::from(u32::from_le_bytes([head[4], low, middle, high])));
    Ok(number(Packet { payload: data.to_vec(), counter, is_encrypted: true, ..objects(&plain) }))
}

/// The address, if it is there, and what stands behind the optional parts of the head.
fn body(control: u16, data: &[u8]) -> Option<(Option<Mac>, &[u8])> {
    let mut rest = data.get(HEAD_BYTES..)?;
    let mut mac = None;
    if control & HAS_MAC != 0 {
        let (bytes, behind) = rest.split_at_checked(6)?;
        mac = array(bytes, 0).map(Mac::from_le);
        rest = behind;
    }
    if control & HAS_CAPABILITY != 0 {
        let (capability, behind) = rest.split_first()?;
        let io = if capability & HAS_IO != 0 { 2 } else { 0 };
        rest = behind.get(io..)?;
    }
    Some((mac, rest))
}

fn tail(body: &[u8]) -> Option<(&[u8], [u8; 3], &[u8])> {
    let (text, tail) = body.split_at_checked(body.len().checked_sub(TAIL_BYTES)?)?;
    Some((text, array(tail, 0)?, tail.get(3..)?))
}

/// Sender (least significant byte first), product, frame counter, counter.
pub(super) fn nonce(sender: Mac, head: [u8; HEAD_BYTES], counter: [u8; 3]) -> [u8; 12] {
    let [a, b, c, d, e, f] = sender.to_le();
    let [_, _, g, h, i] = head;
    let [j, k, l] = counter;
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

fn objects(mut rest: &[u8]) -> Packet {
    let mut packet = Packet::default();
    while !rest.is_empty() {
        let object = || {
            let id = u16_le(rest, 0)?;
            let (own, behind) = rest.get(3..)?.split_at_checked(usize::from(*rest.get(2)?))?;
            Some((id, own, behind))
        };
        let Some((id, own, behind)) = object() else {
            packet.is_partial = true;
            break;
        };
        match read(id, own) {
            Some(objects) => packet.objects.extend(objects),
            None => packet.is_partial = true,
        }
        if packet.objects.len() > OBJECTS {
            packet.is_partial = true;
            break;
        }
        rest = behind;
    }
    packet
}

/// One object; `None` where it is unknown or too short.
fn read(id: u16, own: &[u8]) -> Option<Vec<Object>> {
    let byte = |at: usize| own.get(at).copied();
    let bit = |name| Some(vec![Object::binary(name, byte(0)? != 0)]);
    let press = |press: u8| Some(vec![Object::event("button", press)]);
    Some(match id {
        0x0003 => return bit("motion"),
        0x0006 => {
            let [result] = array(own, 4)?;
            vec![Object::whole("fingerprint_result", "", result), Object::whole("key_id", "", u32_le(own)?)]
        }
        // Open, closed, left open, knocked, forced, stuck: the last two say nothing about open or closed.
        0x0007 => vec![Object::binary("door", matches!(byte(0)?, 0 | 2))],
        0x000A | 0x100A | 0x4803 | 0x4C03 | 0x5003 | 0x5403 => vec![Object::whole("battery", "%", byte(0)?)],
        0x000B => lock(own)?,
        // The sensor sends this when it sees somebody; the number is how light it is.
        0x000F => vec![Object::binary("motion", true), Object::whole("light", "lx", u24_le(own)?)],
        0x0010 => {
            let is_on = byte(0)? == 0;
            let mut objects = vec![Object::binary("toothbrush", is_on)];
            let name = if is_on { "counter" } else { "score" };
            objects.extend(byte(1).map(|number| Object::whole(name, "", number)));
            objects
        }
        0x1001 => vec![button(own)?],
        0x1004 => vec![Object::number("temperature", "Cel", i16::from_le_bytes(array(own, 0)?), 1, 1)],
        0x1005 => vec![Object::binary("power", byte(0)? != 0), Object::whole("temperature", "Cel", byte(1)?)],
        0x1006 => vec![Object::number("humidity", "%", u16_le(own, 0)?, 1, 1)],
        0x1007 => vec![Object::whole("light", "lx", u24_le(own)?)],
        0x1008 => vec![Object::whole("moisture", "%", byte(0)?)],
        0x1009 => vec![Object::whole("conductivity", "uS/cm", u16_le(own, 0)?)],
        0x1010 => vec![Object::number("formaldehyde", "mg/m3", u16_le(own, 0)?, 1, 2)],
        0x1012 => return bit("power"),
        0x1013 => vec![Object::whole("consumable", "%", byte(0)?)],
        0x1014 => return bit("moisture"),
        0x1015 => return bit("smoke"),
        0x1017 => {
            let idle = u32_le(own)?;
            vec![Object::whole("idle_time", "s", idle), Object::binary("motion", idle == 0)]
        }
        0x1018 => return bit("light"),
        0x100D => vec![
            Object::number("temperature", "Cel", i16::from_le_bytes(array(own, 0)?), 1, 1),
            Object::number("humidity", "%", u16_le(own, 2)?, 1, 1),
        ],
        0x100E => return bit("lock"),
        // 0 open, 1 closed, 2 left open.
        0x100F => vec![Object::binary("opening", byte(0)? != 1)],
        0x4801 | 0x4C01 => vec![float("temperature", "Cel", own)?],
        0x4802 | 0x4C02 => vec![Object::whole("humidity", "%", byte(0)?)],
        0x4C08 => vec![float("humidity", "%", own)?],
        // 1 open, 2 closed.
        0x4804 | 0x4A12 => vec![Object::binary("opening", byte(0)? == 1)],
        0x4805 | 0x4818 => {
            let idle = u16_le(own, 0)?;
            vec![Object::whole("idle_time", "s", idle), Object::binary("motion", idle == 0)]
        }
        0x483C => return bit("pressed"),
        0x483D => vec![Object::whole("pressure_duration", "s", u32_le(own)?)],
        0x484E => vec![Object::binary("occupancy", byte(0)? != 0)],
        0x4A08 => vec![Object::binary("motion", true), float("light", "lx", own)?],
        0x4A0C | 0x4E0C => return press(1),
        0x4A0D | 0x4E0D => return press(2),
        0x4A0E | 0x4E0E => return press(4),
        0x4A13 => return bit("battery"),
        _ => return None,
    })
}

/// Which button (two bytes), and how: 0 press, 1 double press, 2 long press, 3 triple press; told in the numbers of
/// BTHome, so that one profile's words fit both.
fn button(own: &[u8]) -> Option<Object> {
    let press: u8 = match own.get(2)? {
        0 => 1,
        1 => 2,
        2 => 4,
        3 => 3,
        _ => return None,
    };
    Some(Object::event("button", press))
}

/// Action in the low four bits, method in the high ones, then who.
fn lock(own: &[u8]) -> Option<Vec<Object>> {
    let [act, key @ ..]: [u8; 5] = array(own, 0)?;
    let (action, method) = (act & 0x0F, act >> 4);
    let mut objects = vec![
        Object::whole("lock_action", "", action),
        Object::whole("lock_method", "", method),
        Object::whole("key_id", "", u32::from_le_bytes(key) & 0xFFFF),
    ];
    // As Home Assistant has it, a lock that is on is open: unlocked from outside (0) or inside (4).
    match action {
        0 | 4 => objects.push(Object::binary("lock", true)),
        1 | 5 => objects.push(Object::binary("lock", false)),
        _ => {}
    }
    Some(objects)
}

fn u24_le(own: &[u8]) -> Option<u32> {
    let [low, middle, high] = array(own, 0)?;
    Some(u32::from_le_bytes([low, middle, high, 0]))
}

fn u32_le(own: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(array(own, 0)?))
}

fn float(name: &'static str, unit: &'static str, own: &[u8]) -> Option<Object> {
    let number = f64::from(f32::from_le_bytes(array(own, 0)?));
    Some(Object::sensor(name, unit, if number.is_finite() { Ok(Raw::Float(number)) } else { Err(Why::Nan) }))
}
