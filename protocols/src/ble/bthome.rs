//! BTHome v2: service data of UUID FCD2.
//!
//! In: the service data, the sender's address and its key. Out: objects in the order of the packet. Must never go on
//! behind an object it does not know, because nobody knows how long that is.
//!
//! Source: the format's own pages, bthome.io/format and bthome.io/encryption; object list of `bthome-ble`.

use super::address::Mac;
use super::decode::{Packet, Refusal};
use super::field::text;
use super::key::Key;
use super::object::{OBJECTS, Object, ObjectClass, array};
use super::uuid::Uuid;
use crate::codec::Raw;
use crate::value::{Timestamp, Why};

/// The service.
pub(super) const SERVICE: Uuid = Uuid::from_u16(0xFCD2);

/// Bytes of counter and tag behind the ciphertext.
const TAIL_BYTES: usize = 8;

/// The version this decoder reads.
pub(super) const VERSION: u8 = 2;

/// How an object lies in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Unsigned: bytes, and the factor as mantissa and decimals.
    Unsigned(usize, i64, u8),
    /// Two's complement.
    Signed(usize, i64, u8),
    /// One byte, 0 or 1.
    Binary,
    /// A press: one byte.
    Button,
    /// A turn: direction and steps.
    Dimmer,
    /// Seconds since 1970.
    Time,
    /// A length and UTF-8.
    Text,
    /// A length and bytes.
    Bytes,
}

use Form::{Signed as S, Unsigned as U};

/// Identifier, name, unit and form of every object.
pub(super) const TABLE: [(u8, &str, &str, Form); 94] = [
    (0x00, "packet_id", "", U(1, 1, 0)),
    (0x01, "battery", "%", U(1, 1, 0)),
    (0x02, "temperature", "Cel", S(2, 1, 2)),
    (0x03, "humidity", "%", U(2, 1, 2)),
    (0x04, "pressure", "hPa", U(3, 1, 2)),
    (0x05, "light", "lx", U(3, 1, 2)),
    (0x06, "mass", "kg", U(2, 1, 2)),
    (0x07, "mass", "[lb_av]", U(2, 1, 2)),
    (0x08, "dew_point", "Cel", S(2, 1, 2)),
    (0x09, "count", "", U(1, 1, 0)),
    (0x0A, "energy", "kWh", U(3, 1, 3)),
    (0x0B, "power", "W", U(3, 1, 2)),
    (0x0C, "voltage", "V", U(2, 1, 3)),
    (0x0D, "pm25", "ug/m3", U(2, 1, 0)),
    (0x0E, "pm10", "ug/m3", U(2, 1, 0)),
    (0x0F, "generic", "", Form::Binary),
    (0x10, "power", "", Form::Binary),
    (0x11, "opening", "", Form::Binary),
    (0x12, "co2", "ppm", U(2, 1, 0)),
    (0x13, "volatile_organic_compounds", "ug/m3", U(2, 1, 0)),
    (0x14, "moisture", "%", U(2, 1, 2)),
    (0x15, "battery", "", Form::Binary),
    (0x16, "battery_charging", "", Form::Binary),
    (0x17, "co", "", Form::Binary),
    (0x18, "cold", "", Form::Binary),
    (0x19, "connectivity", "", Form::Binary),
    (0x1A, "door", "", Form::Binary),
    (0x1B, "garage_door", "", Form::Binary),
    (0x1C, "gas", "", Form::Binary),
    (0x1D, "heat", "", Form::Binary),
    (0x1E, "light", "", Form::Binary),
    (0x1F, "lock", "", Form::Binary),
    (0x20, "moisture", "", Form::Binary),
    (0x21, "motion", "", Form::Binary),
    (0x22, "moving", "", Form::Binary),
    (0x23, "occupancy", "", Form::Binary),
    (0x24, "plug", "", Form::Binary),
    (0x25, "presence", "", Form::Binary),
    (0x26, "problem", "", Form::Binary),
    (0x27, "running", "", Form::Binary),
    (0x28, "safety", "", Form::Binary),
    (0x29, "smoke", "", Form::Binary),
    (0x2A, "sound", "", Form::Binary),
    (0x2B, "tamper", "", Form::Binary),
    (0x2C, "vibration", "", Form::Binary),
    (0x2D, "window", "", Form::Binary),
    (0x2E, "humidity", "%", U(1, 1, 0)),
    (0x2F, "moisture", "%", U(1, 1, 0)),
    (0x3A, "button", "", Form::Button),
    (0x3C, "dimmer", "", Form::Dimmer),
    (0x3D, "count", "", U(2, 1, 0)),
    (0x3E, "count", "", U(4, 1, 0)),
    (0x3F, "rotation", "deg", S(2, 1, 1)),
    (0x40, "distance", "mm", U(2, 1, 0)),
    (0x41, "distance", "m", U(2, 1, 1)),
    (0x42, "duration", "s", U(3, 1, 3)),
    (0x43, "current", "A", U(2, 1, 3)),
    (0x44, "speed", "m/s", U(2, 1, 2)),
    (0x45, "temperature", "Cel", S(2, 1, 1)),
    (0x46, "uv_index", "", U(1, 1, 1)),
    (0x47, "volume", "L", U(2, 1, 1)),
    (0x48, "volume", "mL", U(2, 1, 0)),
    (0x49, "volume_flow_rate", "m3/h", U(2, 1, 3)),
    (0x4A, "voltage", "V", U(2, 1, 1)),
    (0x4B, "gas", "m3", U(3, 1, 3)),
    (0x4C, "gas", "m3", U(4, 1, 3)),
    (0x4D, "energy", "kWh", U(4, 1, 3)),
    (0x4E, "volume", "L", U(4, 1, 3)),
    (0x4F, "water", "L", U(4, 1, 3)),
    (0x50, "timestamp", "", Form::Time),
    (0x51, "acceleration", "m/s2", U(2, 1, 3)),
    (0x52, "gyroscope", "deg/s", U(2, 1, 3)),
    (0x53, "text", "", Form::Text),
    (0x54, "raw", "", Form::Bytes),
    (0x55, "volume_storage", "L", U(4, 1, 3)),
    (0x56, "conductivity", "uS/cm", U(2, 1, 0)),
    (0x57, "temperature", "Cel", S(1, 1, 0)),
    (0x58, "temperature", "Cel", S(1, 35, 2)),
    (0x59, "count", "", S(1, 1, 0)),
    (0x5A, "count", "", S(2, 1, 0)),
    (0x5B, "count", "", S(4, 1, 0)),
    (0x5C, "power", "W", S(4, 1, 2)),
    (0x5D, "current", "A", S(2, 1, 3)),
    (0x5E, "direction", "deg", U(2, 1, 2)),
    (0x5F, "precipitation", "mm", U(2, 1, 1)),
    (0x60, "channel", "", U(1, 1, 0)),
    (0x61, "rotational_speed", "{rpm}", U(2, 1, 0)),
    (0x62, "speed", "m/s", S(4, 1, 6)),
    (0x63, "acceleration", "m/s2", S(4, 1, 6)),
    (0x64, "light_level", "", U(1, 1, 0)),
    // Firmware and device type, so that what stands behind them is read.
    (0xF0, "device_type_id", "", U(2, 1, 0)),
    (0xF1, "firmware_version", "", U(4, 1, 0)),
    (0xF2, "firmware_version", "", U(3, 1, 0)),
    // A turn's steps are told beside the turn; the format has no identifier for them.
    (0xFF, "dimmer_steps", "", U(1, 1, 0)),
];

/// The last row is a name only: no packet carries it.
pub(super) const NO_OBJECT: u8 = 0xFF;

/// The names of the objects of one class.
pub(super) fn names(class: ObjectClass) -> Vec<&'static str> {
    let rows = TABLE.iter().filter(|(.., form)| class_of(*form) == class);
    let mut names: Vec<&str> = rows.map(|(_, name, ..)| *name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

pub(super) fn class_of(form: Form) -> ObjectClass {
    match form {
        Form::Binary => ObjectClass::Binary,
        Form::Button | Form::Dimmer => ObjectClass::Event,
        _ => ObjectClass::Sensor,
    }
}

/// Reads the service data.
pub(super) fn decode(data: &[u8], sender: Option<Mac>, key: Option<&Key>) -> Result<Packet, Refusal> {
    let (info, body) = data.split_first().ok_or(Refusal::Malformed)?;
    if info >> 5 != VERSION {
        return Err(Refusal::Unknown);
    }
    let (included, body) = match info & 0x02 {
        0 => (None, body),
        _ => {
            let (mac, body) = body.split_at_checked(6).ok_or(Refusal::Malformed)?;
            (array(mac, 0).map(Mac::from_le), body)
        }
    };
    if info & 0x01 == 0 {
        return Ok(Packet { payload: data.to_vec(), ..objects(body) });
    }
    let key = key.ok_or(Refusal::NoKey)?;
    let sender = included.or(sender).ok_or(Refusal::Undecryptable)?;
    let (text, counter, tag) = tail(body).ok_or(Refusal::Malformed)?;
    let plain = key.open_13(nonce(sender, *info, counter), &[], text, tag).ok_or(Refusal::Undecryptable)?;
    let counter = Some(u64::from(u32::from_le_bytes(counter)));
    Ok(Packet { payload: data.to_vec(), counter, is_encrypted: true, ..objects(&plain) })
}

fn tail(body: &[u8]) -> Option<(&[u8], [u8; 4], &[u8])> {
    let (text, tail) = body.split_at_checked(body.len().checked_sub(TAIL_BYTES)?)?;
    Some((text, array(tail, 0)?, tail.get(4..)?))
}

/// Sender, service, device information, counter.
pub(super) fn nonce(sender: Mac, info: u8, counter: [u8; 4]) -> [u8; 13] {
    let [a, b, c, d, e, f] = sender.0;
    let [i, j, k, l] = counter;
    [a, b, c, d, e, f, 0xD2, 0xFC, info, i, j, k, l]
}

fn objects(mut rest: &[u8]) -> Packet {
    let mut packet = Packet::default();
    while let Some((id, behind)) = rest.split_first() {
        let row = TABLE.iter().find(|(known, ..)| known == id && *id != NO_OBJECT);
        let taken = row.and_then(|(_, name, unit, form)| take(name, unit, *form, behind, &mut packet));
        match taken {
            Some(behind) if packet.objects.len() <= OBJECTS => rest = behind,
            _ => {
                packet.is_partial = true;
                break;
            }
        }
    }
    packet
}

/// Takes one object; gives what is behind it, or `None` when it is cut short.
fn take<'a>(
    name: &'static str,
    unit: &'static str,
    form: Form,
    bytes: &'a [u8],
    packet: &mut Packet,
) -> Option<&'a [u8]> {
    let width = match form {
        U(width, ..) | S(width, ..) => width,
        Form::Binary | Form::Button => 1,
        Form::Dimmer => 2,
        Form::Time => 4,
        Form::Text | Form::Bytes => 1 + usize::from(*bytes.first()?),
    };
    let (own, behind) = bytes.split_at_checked(width)?;
    let unsigned = own.iter().rev().fold(0_i128, |number, byte| number << 8 | i128::from(*byte));
    match form {
        U(1, ..) if name == "packet_id" => {
            packet.packet_id = own.first().copied();
            packet.objects.push(Object::whole(name, unit, unsigned));
        }
        U(_, mantissa, places) => packet.objects.push(Object::number(name, unit, unsigned, mantissa, places)),
        S(_, mantissa, places) => {
            let sign = 1_i128 << (8 * width - 1);
            packet.objects.push(Object::number(name, unit, (unsigned ^ sign) - sign, mantissa, places));
        }
        Form::Binary => packet.objects.push(Object::binary(name, unsigned != 0)),
        // 0 is a button that was not pressed; it keeps its place among the buttons.
        Form::Button => packet.objects.push(Object::event(name, unsigned).only_if(unsigned != 0)),
        Form::Dimmer => {
            let [turn, steps] = array(own, 0)?;
            packet.objects.push(Object::event(name, turn).only_if(turn != 0));
            packet.objects.push(Object::whole("dimmer_steps", "", steps).only_if(turn != 0));
        }
        Form::Time => {
            let at = Timestamp::from_ms(i64::try_from(unsigned).ok()?.checked_mul(1_000)?);
            packet.objects.push(Object::text(name, at.to_string()));
        }
        Form::Text => {
            let text = std::str::from_utf8(own.get(1..)?).map(|text| Raw::Text(text.to_owned()));
            packet.objects.push(Object::sensor(name, unit, text.map_err(|_| Why::Decode)));
        }
        Form::Bytes => packet.objects.push(Object::text(name, text(own.get(1..)?))),
    }
    Some(behind)
}
