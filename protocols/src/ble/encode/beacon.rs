//! Beacons, from who they say they are.

use super::super::beacon::{APPLE, EDDYSTONE};
use super::super::decode::Format;
use super::super::uuid::Uuid;
use super::{Sender, Told, company, service};
use crate::ble::{Advertisement, hex};

/// Radius Networks, whose form AltBeacon is.
const RADIUS: u16 = 0x0118;
/// Who a beacon is that was not told: the UUID of Apple's AirLocate sample.
const AIR_LOCATE: Uuid = Uuid(0xE2C5_6DB5_DFFB_48D2_B060_D0F5_A710_96E0);
/// How strong a beacon is a metre away that was not told, in dBm.
const MEASURED_POWER: i8 = -59;

pub(super) fn numbered(format: Format, told: &Told<'_>) -> Option<Vec<Advertisement>> {
    let uuid = told.text("uuid").and_then(|text| text.parse().ok()).unwrap_or(AIR_LOCATE);
    let (id, head) = if format == Format::Ibeacon { (APPLE, [0x02, 0x15]) } else { (RADIUS, [0xBE, 0xAC]) };
    let mut data = head.to_vec();
    data.extend(uuid.0.to_be_bytes());
    data.extend(told.unsigned("major", 1.0, u16::MAX).unwrap_or(1).to_be_bytes());
    data.extend(told.unsigned("minor", 1.0, u16::MAX).unwrap_or(1).to_be_bytes());
    data.push(power(told, MEASURED_POWER));
    if format == Format::Altbeacon {
        data.push(0);
    }
    Some(vec![company(id, data)])
}

fn power(told: &Told<'_>, otherwise: i8) -> u8 {
    let given = told.steps("measured_power", 1.0, -128, 127).and_then(|power| i8::try_from(power).ok());
    given.unwrap_or(otherwise).cast_unsigned()
}

/// Identity and telemetry in turn.
pub(super) fn eddystone(told: &Told<'_>, sender: Sender<'_>) -> Option<Vec<Advertisement>> {
    let own = |name, otherwise: &[u8]| {
        let given = told.text(name).and_then(|digits| hex(digits.as_bytes()));
        given.filter(|bytes| bytes.len() == otherwise.len()).unwrap_or_else(|| otherwise.to_vec())
    };
    let namespace = own("namespace", &[0x5A; 10]);
    let instance = own("instance", &sender.address.0);
    let mut uid = vec![0x00, power(told, -20)];
    uid.extend([namespace, instance].concat());
    uid.extend([0, 0]);
    let mut telemetry = vec![0x20, 0x00];
    telemetry.extend(told.unsigned("voltage", 0.001, u16::MAX).unwrap_or(0).to_be_bytes());
    telemetry.extend(told.signed("temperature", 1.0 / 256.0).unwrap_or(i16::MIN).to_be_bytes());
    let count =
        told.steps("advertisement_count", 1.0, 0, i64::from(u32::MAX)).and_then(|count| u32::try_from(count).ok());
    let uptime = told.steps("uptime", 0.1, 0, i64::from(u32::MAX)).and_then(|tenths| u32::try_from(tenths).ok());
    telemetry.extend(count.unwrap_or(sender.number).to_be_bytes());
    telemetry.extend(uptime.unwrap_or(0).to_be_bytes());
    let with_list = |data| Advertisement { services: vec![EDDYSTONE], ..service(EDDYSTONE, data) };
    Some(vec![with_list(uid), with_list(telemetry)])
}
