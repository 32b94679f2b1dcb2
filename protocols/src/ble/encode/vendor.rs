//! The forms of sensor makers, from values.
//!
//! Sources are those of the decoders; the check bytes of an Inkbird are CRC-16/MODBUS over what stands before them, as its
//! recordings show.

use super::super::uuid::Uuid;
use super::super::{atc, govee, inkbird, mibeacon, ruuvi, switchbot, thermopro};
use super::{Sender, Told, company, service};
use crate::ble::Advertisement;

type Packets = Option<Vec<Advertisement>>;

/// What a product identifier of Xiaomi's stands at: LYWSD03MMC.
const LYWSD03MMC: u16 = 0x055B;

pub(super) fn ruuvi5(told: &Told<'_>, sender: Sender<'_>) -> Packets {
    let axis = |name| told.signed(name, 0.001).unwrap_or(i16::MIN).to_be_bytes();
    let millivolts = told.steps("voltage", 0.001, 1_600, 3_646).map_or(0x7FF, |level| level - 1_600);
    let sent = told.steps("tx_power", 2.0, -20, 10).map_or(0x1F, |steps| steps + 20);
    let power = u16::try_from(millivolts << 5 | sent).ok()?;
    let pressure = told.steps("pressure", 0.01, 50_000, 115_534).map_or(0xFFFF, |level| level - 50_000);
    let counted = told.unsigned("sequence", 1.0, 65_534).unwrap_or((sender.number % 65_535) as u16);
    let mut data = vec![5];
    data.extend(told.signed("temperature", 0.005).unwrap_or(i16::MIN).to_be_bytes());
    data.extend(told.unsigned("humidity", 0.0025, 0xFFFE).unwrap_or(u16::MAX).to_be_bytes());
    data.extend(u16::try_from(pressure).ok()?.to_be_bytes());
    data.extend([axis("acceleration_x"), axis("acceleration_y"), axis("acceleration_z")].concat());
    data.extend(power.to_be_bytes());
    data.push(told.byte("movement_counter", 254).unwrap_or(u8::MAX));
    data.extend(counted.to_be_bytes());
    data.extend(sender.address.0);
    Some(vec![company(ruuvi::COMPANY, data)])
}

pub(super) fn ruuvi3(told: &Told<'_>) -> Packets {
    let hundredths = told.steps("temperature", 0.01, -12_799, 12_799)?;
    let (whole, rest) = (hundredths.abs() / 100, hundredths.abs() % 100);
    let sign = if hundredths < 0 { 0x80 } else { 0 };
    let pressure = told.steps("pressure", 0.01, 50_000, 115_535).map_or(0, |level| level - 50_000);
    let mut data = vec![3, told.steps("humidity", 0.5, 0, 255).and_then(|level| u8::try_from(level).ok()).unwrap_or(0)];
    data.extend([sign | u8::try_from(whole).ok()?, u8::try_from(rest).ok()?]);
    data.extend(u16::try_from(pressure).ok()?.to_be_bytes());
    for axis in ["acceleration_x", "acceleration_y", "acceleration_z"] {
        data.extend(told.signed(axis, 0.001).unwrap_or(0).to_be_bytes());
    }
    data.extend(told.unsigned("voltage", 0.001, u16::MAX).unwrap_or(0).to_be_bytes());
    Some(vec![company(ruuvi::COMPANY, data)])
}

pub(super) fn atc1441(told: &Told<'_>, sender: Sender<'_>) -> Packets {
    let mut data = sender.address.0.to_vec();
    data.extend(told.signed("temperature", 0.1)?.to_be_bytes());
    data.push(told.byte("humidity", 100)?);
    data.push(told.byte("battery", 100).unwrap_or(0));
    data.extend(told.unsigned("voltage", 0.001, u16::MAX).unwrap_or(0).to_be_bytes());
    data.push(told.byte("packet_id", 255).unwrap_or(sender.number.to_le_bytes()[0]));
    Some(vec![service(atc::SERVICE, data)])
}

pub(super) fn pvvx(told: &Told<'_>, sender: Sender<'_>) -> Packets {
    let temperature = told.signed("temperature", 0.01)?.to_le_bytes();
    let humidity = told.unsigned("humidity", 0.01, 10_000)?.to_le_bytes();
    let battery = told.byte("battery", 100).unwrap_or(0);
    let flags = u8::from(told.is_on("opening") == Some(true)) | u8::from(told.is_on("output") == Some(true)) << 1;
    let number = told.byte("packet_id", 255).unwrap_or(sender.number.to_le_bytes()[0]);
    if let Some(key) = sender.key {
        let plain = [&temperature[..], &humidity, &[battery, flags]].concat();
        let (text, tag) = key.seal_11(atc::nonce(sender.address, number), &atc::AAD, &plain);
        return Some(vec![service(atc::SERVICE, [vec![number], text, tag].concat())]);
    }
    let mut data = sender.address.to_le().to_vec();
    data.extend(temperature);
    data.extend(humidity);
    data.extend(told.unsigned("voltage", 0.001, u16::MAX).unwrap_or(0).to_le_bytes());
    data.extend([battery, number, flags]);
    Some(vec![service(atc::SERVICE, data)])
}

/// Version 5 with the address in it; one packet for every object, as these devices do.
pub(super) fn mibeacon(told: &Told<'_>, sender: Sender<'_>) -> Packets {
    let tenths = |name| Some(told.steps(name, 0.1, -3_000, 3_000)?.to_le_bytes()[..2].to_vec());
    let bytes =
        |name, width: usize| Some(told.steps(name, 1.0, 0, (1 << (8 * width)) - 1)?.to_le_bytes()[..width].to_vec());
    let mut objects: Vec<(u16, Vec<u8>)> = Vec::new();
    match (tenths("temperature"), tenths("humidity")) {
        (Some(temperature), Some(humidity)) => objects.push((0x100D, [temperature, humidity].concat())),
        (Some(temperature), None) => objects.push((0x1004, temperature)),
        (None, Some(humidity)) => objects.push((0x1006, humidity)),
        (None, None) => {}
    }
    objects.extend(bytes("moisture", 1).map(|own| (0x1008, own)));
    objects.extend(bytes("conductivity", 2).map(|own| (0x1009, own)));
    objects.extend(bytes("light", 3).map(|own| (0x1007, own)));
    objects.extend(bytes("battery", 1).map(|own| (0x100A, own)));
    let product = told.unsigned("product_id", 1.0, u16::MAX).unwrap_or(LYWSD03MMC);
    let control = 5 << 12 | mibeacon::HAS_MAC | mibeacon::HAS_OBJECT;
    let packet = |(number, (id, own)): (u32, (u16, Vec<u8>))| {
        let [low, a, b, c] = sender.number.wrapping_add(number).to_le_bytes();
        let length = u8::try_from(own.len()).unwrap_or_default();
        let plain = [id.to_le_bytes().to_vec(), vec![length], own].concat();
        let control = if sender.key.is_some() { control | mibeacon::ENCRYPTED } else { control };
        let [product_low, product_high] = product.to_le_bytes();
        let [control_low, control_high] = control.to_le_bytes();
        let head = [control_low, control_high, product_low, product_high, low];
        let body = match sender.key {
            None => plain,
            Some(key) => {
                let nonce = mibeacon::nonce(sender.address, head, [a, b, c]);
                let (text, tag) = key.seal_12(nonce, &mibeacon::AAD, &plain);
                [text, vec![a, b, c], tag].concat()
            }
        };
        service(mibeacon::SERVICE, [head.as_slice(), &sender.address.to_le(), &body].concat())
    };
    Some((0..).zip(objects).map(packet).collect())
}

pub(super) fn switchbot(told: &Told<'_>) -> Packets {
    let tenths = told.steps("temperature", 0.1, -1_279, 1_279)?;
    let sign = if tenths < 0 { 0 } else { 0x80 };
    let whole = u8::try_from(tenths.abs() / 10).ok()?;
    let tenth = u8::try_from(tenths.abs() % 10).ok()?;
    let battery = told.byte("battery", 100).unwrap_or(100);
    let data = vec![b'T', 0, battery, tenth, sign | whole, told.byte("humidity", 100)?];
    let [.., old] = switchbot::SERVICES;
    Some(vec![service(old, data)])
}

pub(super) fn thermopro(told: &Told<'_>, sender: Sender<'_>) -> Packets {
    let [low, high] = told.signed("temperature", 0.1)?.to_le_bytes();
    let battery = match (told.is_on("battery"), told.number("battery")) {
        (Some(true), _) => 0,
        (_, Some(level)) if level < 25.0 => 0,
        (_, Some(level)) if level < 75.0 => 1,
        _ => 2,
    };
    let id = u16::from_le_bytes([thermopro::FIRST_BYTE, low]);
    let [.., a, b] = sender.address.0;
    let name = format!("TP357 ({a:02X}{b:02X})");
    let packet = company(id, vec![high, told.byte("humidity", 100)?, battery, 0x2C]);
    Some(vec![Advertisement { name: Some(name), ..packet }])
}

/// As an H5075: one number of tenths of a degree and tenths of a percent.
pub(super) fn govee(told: &Told<'_>, sender: Sender<'_>) -> Packets {
    let tenths = told.steps("temperature", 0.1, -1_000, 1_000)?;
    let humidity = told.steps("humidity", 0.1, 0, 999)?;
    let sign = if tenths < 0 { 0x80_0000 } else { 0 };
    let [_, a, b, c] = u32::try_from((tenths.abs() * 1_000 + humidity) | sign).ok()?.to_be_bytes();
    let failed = if told.is_on("problem") == Some(true) { 0x80 } else { 0 };
    let battery = told.byte("battery", 100).unwrap_or(100) | failed;
    let [.., d, e] = sender.address.0;
    let packet = company(govee::COMPANY, vec![0, a, b, c, battery, 0]);
    let services = vec![Uuid::from_u16(0xEC88)];
    Some(vec![Advertisement { name: Some(format!("GVH5075_{d:02X}{e:02X}")), services, ..packet }])
}

/// As an IBS-TH, or an IBS-TH2 where there is no humidity.
pub(super) fn inkbird(told: &Told<'_>) -> Packets {
    let (probe, temperature) = match (told.signed("temperature", 0.01), told.signed("temperature_probe_1", 0.01)) {
        (Some(own), _) => (0, own),
        (None, probe) => (1, probe?),
    };
    let humidity = told.unsigned("humidity", 0.01, 10_000);
    let checked = [temperature.to_le_bytes(), humidity.unwrap_or(0).to_le_bytes()].concat();
    let crc = inkbird::check(&[checked.as_slice(), &[probe]].concat());
    let mut data = humidity.unwrap_or(0).to_le_bytes().to_vec();
    data.push(probe);
    data.extend(crc.to_le_bytes());
    data.extend([told.byte("battery", 100).unwrap_or(100), 8]);
    let name = if humidity.is_some() { "sps" } else { "tps" };
    Some(vec![Advertisement { name: Some(name.to_owned()), ..company(temperature.cast_unsigned(), data) }])
}
