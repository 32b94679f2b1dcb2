//! Inkbird thermometers: IBS-TH and IBS-TH2 (names `sps` and `tps`), iBBQ with up to six probes (service FFF0).
//!
//! In: an advertisement. Out: temperatures, humidity, battery. Must never read a device by its bytes alone: of the
//! IBS-TH the company identifier *is* the temperature.
//!
//! Source: the decoders of custom-components/ble_monitor and Bluetooth-Devices/inkbird-ble.

use super::advert::Advertisement;
use super::decode::{Packet, Refusal};
use super::object::{Object, array, u16_le};
use super::uuid::Uuid;

/// The service of an iBBQ.
const BBQ: Uuid = Uuid::from_u16(0xFFF0);

/// Bytes of an IBS-TH behind the company identifier: humidity, probe, checksum, battery, and one that nobody knows.
const IBS_BYTES: usize = 7;

/// Bytes of an iBBQ before its probes: two zeros and the address.
const BBQ_HEAD_BYTES: usize = 8;

/// What an iBBQ says of a socket without a probe (−10 in tenths of a degree is 0xFFF6).
const NO_PROBE: u16 = 0xFFF6;

const PROBES: [&str; 6] = [
    "temperature_probe_1",
    "temperature_probe_2",
    "temperature_probe_3",
    "temperature_probe_4",
    "temperature_probe_5",
    "temperature_probe_6",
];

pub(super) fn decode(adv: &Advertisement) -> Result<Packet, Refusal> {
    let has_humidity = match adv.name.as_deref().map(str::trim_end) {
        // With humidity, and with temperature alone.
        Some("sps") => true,
        Some("tps") => false,
        _ if adv.services.contains(&BBQ) => return bbq(adv),
        _ => return Err(Refusal::Unknown),
    };
    // A host stack that merges packets gives every temperature there was; the newest stands last.
    let packets = adv.manufacturer.iter().filter(|(_, data)| data.len() == IBS_BYTES);
    let (id, data) = { packets }.next_back().ok_or(Refusal::Unknown)?;
    let humidity = u16_le(data, 0).ok_or(Refusal::Malformed)?;
    let [probe, _, _, battery]: [u8; 4] = array(data, 2).ok_or(Refusal::Malformed)?;
    let name = if probe == 1 { "temperature_probe_1" } else { "temperature" };
    let mut objects = vec![Object::number(name, "Cel", id.cast_signed(), 1, 2), Object::whole("battery", "%", battery)];
    if has_humidity {
        objects.push(Object::number("humidity", "%", humidity, 1, 2));
    }
    Ok(Packet::plain(objects, &[&id.to_le_bytes(), data.as_slice()].concat()))
}

/// The check of an IBS-TH over what stands before it: CRC-16/MODBUS.
pub(super) fn check(bytes: &[u8]) -> u16 {
    bytes.iter().fold(u16::MAX, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}

fn bbq(adv: &Advertisement) -> Result<Packet, Refusal> {
    let data = adv.company(0).ok_or(Refusal::Unknown)?;
    let probes = data.get(BBQ_HEAD_BYTES..).filter(|probes| !probes.is_empty()).ok_or(Refusal::Unknown)?;
    if probes.len() % 2 != 0 || probes.len() / 2 > PROBES.len() {
        return Err(Refusal::Unknown);
    }
    let probe = |(name, bytes): (&&'static str, &[u8])| {
        let raw = u16_le(bytes, 0)?;
        Some(Object::number(name, "Cel", raw.cast_signed(), 1, 1).only_if(raw != NO_PROBE))
    };
    let objects: Option<Vec<Object>> = PROBES.iter().zip(probes.chunks_exact(2)).map(probe).collect();
    objects.map(|objects| Packet::plain(objects, data)).ok_or(Refusal::Malformed)
}
