//! SwitchBot meters: service data of UUID FD3D (older: 0D00), outdoor meters with manufacturer data of company 0969.
//!
//! In: an advertisement. Out: temperature, humidity, battery. Must never take another SwitchBot device for a meter.
//!
//! Source: OpenWonderLabs/SwitchBotAPI-BLE, `meter.md`.

use super::advert::Advertisement;
use super::decode::{Packet, Refusal};
use super::object::{Object, array};
use super::uuid::Uuid;

/// The services, new and old.
pub(super) const SERVICES: [Uuid; 2] = [Uuid::from_u16(0xFD3D), Uuid::from_u16(0x0D00)];

/// Woan Technology.
pub(super) const COMPANY: u16 = 0x0969;

/// The device type is an ASCII letter: `T` and `t` Meter, `i` and `I` Meter Plus, `w` outdoor meter, `4` Meter Pro.
const METERS: [u8; 5] = *b"Tti4I";

/// The outdoor meter: its values are in the manufacturer data.
const OUTDOOR: [u8; 2] = *b"wW";

/// Where the three bytes of the values begin in the manufacturer data.
const OUTDOOR_AT: usize = 8;

pub(super) fn decode(adv: &Advertisement) -> Result<Packet, Refusal> {
    let data = SERVICES.iter().find_map(|service| adv.service(*service)).ok_or(Refusal::Unknown)?;
    let kind = data.first().copied().ok_or(Refusal::Malformed)? & 0x7F;
    let battery = data.get(2).ok_or(Refusal::Malformed);
    let (values, payload) = match kind {
        kind if OUTDOOR.contains(&kind) => {
            let maker = adv.company(COMPANY).ok_or(Refusal::Unknown)?;
            (array(maker, OUTDOOR_AT), [data, maker].concat())
        }
        kind if METERS.contains(&kind) => (array(data, 3), data.to_vec()),
        _ => return Err(Refusal::Unknown),
    };
    let [tenths, whole, humidity]: [u8; 3] = values.ok_or(Refusal::Malformed)?;
    let magnitude = i32::from(whole & 0x7F) * 10 + i32::from(tenths & 0x0F);
    // The sign bit is set above zero.
    let temperature = if whole & 0x80 == 0 { -magnitude } else { magnitude };
    let objects = vec![
        Object::number("temperature", "Cel", temperature, 1, 1),
        Object::whole("humidity", "%", humidity & 0x7F),
        Object::whole("battery", "%", battery? & 0x7F),
    ];
    Ok(Packet { payload, ..Packet::plain(objects, &[]) })
}
