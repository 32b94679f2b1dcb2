//! The way back: advertisements of a device that is not there.
//!
//! In: a format, what it is to tell, who says it. Out: advertisements that say it, as few as hold it, each small enough for a
//! radio of version 4. Must never tell what it was not given as anything but "not available", nor a number that the format has
//! no room for as another than its nearest.

mod beacon;
mod bthome;
mod vendor;

use super::address::Mac;
use super::advert::Advertisement;
use super::decode::{Format, canonical};
use super::key::Key;
use super::object::{Object, ObjectClass};
use super::uuid::Uuid;
use crate::codec::Raw;

/// Bytes of one advertisement, and as many of its scan response (Core Specification, Vol 6, Part B, 2.3.1.1).
pub const LEGACY_BYTES: usize = 31;

/// The flags of a device that only speaks: general discoverable, no classic Bluetooth.
const FLAGS: u8 = 0x06;

/// Who speaks, and the how manieth time.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// Its address.
    pub address: Mac,
    /// What it encrypts with; in clear text without.
    pub key: Option<&'a Key>,
    /// Grows by one with every packet; formats take as many bits of it as they have.
    pub number: u32,
}

/// Why there is no advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsayable {
    /// The format can tell nothing of it.
    #[error("{0} can tell none of the values")]
    Nothing(Format),
    /// The format has no encryption that can be made here.
    #[error("{0} packets cannot be encrypted here")]
    Sealed(Format),
}

/// What is to be told, by name.
pub(super) struct Told<'a>(&'a [Object]);

impl Told<'_> {
    /// A number in the decoder's unit.
    fn number(&self, name: &str) -> Option<f64> {
        let is_it = |object: &&Object| object.class == ObjectClass::Sensor && canonical(&object.name) == name;
        number(self.0.iter().find(is_it)?)
    }

    /// The same counted in steps of `step`, held between two bounds.
    fn steps(&self, name: &str, step: f64, least: i64, most: i64) -> Option<i64> {
        // Bounds of at most 48 bits: the cast is exact.
        self.number(name).map(|number| ((number / step).round() as i64).clamp(least, most))
    }

    fn byte(&self, name: &str, most: u8) -> Option<u8> {
        self.steps(name, 1.0, 0, i64::from(most)).and_then(|number| u8::try_from(number).ok())
    }

    fn unsigned(&self, name: &str, step: f64, most: u16) -> Option<u16> {
        self.steps(name, step, 0, i64::from(most)).and_then(|number| u16::try_from(number).ok())
    }

    fn signed(&self, name: &str, step: f64) -> Option<i16> {
        self.steps(name, step, -32_767, 32_767).and_then(|number| i16::try_from(number).ok())
    }

    fn is_on(&self, name: &str) -> Option<bool> {
        let is_it = |object: &&Object| object.class == ObjectClass::Binary && canonical(&object.name) == name;
        number(self.0.iter().find(is_it)?).map(|number| number != 0.0)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|object| match &object.value {
            Ok(Raw::Text(text)) if object.name == name => Some(text.as_str()),
            _ => None,
        })
    }
}

fn number(object: &Object) -> Option<f64> {
    match object.value.as_ref().ok()? {
        Raw::Int(number) => Some(*number as f64),
        Raw::Float(number) if number.is_finite() => Some(*number),
        Raw::Bool(on) => Some(f64::from(u8::from(*on))),
        _ => None,
    }
}

/// Advertisements of a format that tell these objects; what the format has no word for is left out.
///
/// # Errors
/// [`Unsayable`].
pub fn encode(format: Format, told: &[Object], sender: Sender<'_>) -> Result<Vec<Advertisement>, Unsayable> {
    let all = Told(told);
    let packets = match format {
        Format::Bthome2 => bthome::encode(told, sender),
        Format::Ruuvi5 => vendor::ruuvi5(&all, sender),
        Format::Ruuvi3 => vendor::ruuvi3(&all),
        Format::Atc1441 => vendor::atc1441(&all, sender),
        Format::Pvvx => vendor::pvvx(&all, sender),
        Format::Mibeacon => vendor::mibeacon(&all, sender),
        Format::Switchbot => vendor::switchbot(&all),
        Format::Thermopro => vendor::thermopro(&all, sender),
        Format::Govee => vendor::govee(&all, sender),
        Format::Inkbird => vendor::inkbird(&all),
        Format::Ibeacon | Format::Altbeacon => beacon::numbered(format, &all),
        Format::Eddystone => beacon::eddystone(&all, sender),
    };
    if sender.key.is_some() && !matches!(format, Format::Bthome2 | Format::Pvvx | Format::Mibeacon) {
        return Err(Unsayable::Sealed(format));
    }
    let packets = packets.filter(|packets| !packets.is_empty()).ok_or(Unsayable::Nothing(format))?;
    let basic = |adv: Advertisement| Advertisement { address: Some(sender.address), flags: Some(FLAGS), ..adv };
    Ok(packets.into_iter().map(basic).collect())
}

fn service(uuid: Uuid, data: Vec<u8>) -> Advertisement {
    Advertisement { service_data: vec![(uuid, data)], ..Advertisement::default() }
}

fn company(id: u16, data: Vec<u8>) -> Advertisement {
    Advertisement { manufacturer: vec![(id, data)], ..Advertisement::default() }
}

impl Advertisement {
    /// The advertisement structures: those of the advertisement, and those of its scan response, where a name goes that has
    /// no room. `None` when it is larger than a radio of version 4 sends.
    pub fn structures(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut bytes = Vec::new();
        if let Some(flags) = self.flags {
            put(&mut bytes, 0x01, &[flags])?;
        }
        let short: Option<Vec<[u8; 2]>> = self.services.iter().map(|uuid| Some(uuid.short()?.to_le_bytes())).collect();
        if let Some(short) = short.filter(|short| !short.is_empty()) {
            put(&mut bytes, 0x03, &short.concat())?;
        }
        for (uuid, data) in &self.service_data {
            match uuid.short() {
                Some(short) => put(&mut bytes, 0x16, &[short.to_le_bytes().as_slice(), data].concat())?,
                None => put(&mut bytes, 0x21, &[uuid.0.to_le_bytes().as_slice(), data].concat())?,
            }
        }
        for (id, data) in &self.manufacturer {
            put(&mut bytes, 0xFF, &[id.to_le_bytes().as_slice(), data].concat())?;
        }
        let mut answer = Vec::new();
        if let Some(name) = &self.name {
            let room = if bytes.len() + name.len() + 2 <= LEGACY_BYTES { &mut bytes } else { &mut answer };
            put(room, 0x09, name.as_bytes())?;
        }
        (bytes.len() <= LEGACY_BYTES && answer.len() <= LEGACY_BYTES).then_some((bytes, answer))
    }
}

fn put(bytes: &mut Vec<u8>, kind: u8, data: &[u8]) -> Option<()> {
    bytes.push(u8::try_from(data.len() + 1).ok()?);
    bytes.push(kind);
    bytes.extend_from_slice(data);
    Some(())
}
