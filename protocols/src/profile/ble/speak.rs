//! The other direction: advertisements that a profile's own device would send.
//!
//! In: a Bluetooth profile, raw values of its properties, who speaks. Out: advertisements that the same profile recognises and
//! reads as those values. Must never make up a value for a property, nor claim to speak for a device that is only connected to.

use std::borrow::Cow;

use super::{Device, Origin};
use crate::ble::{Advertisement, Field, Object, ObjectClass, Sender, Uuid, encode};
use crate::codec::Raw;
use crate::profile::{Profile, Property};

/// Why a profile's device cannot be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mute {
    /// It is no Bluetooth profile.
    #[error("it is no Bluetooth profile")]
    NotBle,
    /// Its values come over a connection alone.
    #[error("its values are read over a connection, and a device that is not there cannot be connected to")]
    Connected,
    /// No format of the profile can tell the values.
    #[error("{0}")]
    Unsayable(String),
    /// What is said is not what the profile looks for.
    #[error("what can be said does not have the marks of its match")]
    Unmarked,
    /// A value between the bytes of others that are not known.
    #[error("the property {0} takes some bits of a byte, and what the others are is not said")]
    Bits(String),
}

impl Profile {
    /// The properties a device of this profile tells in its advertisements: index, and whether it is something that happens.
    pub fn told_in_the_air(&self) -> Vec<(usize, ObjectClass)> {
        let all = self.properties.iter().enumerate();
        let own = all.filter_map(|(index, property)| {
            property.source.ble()?.origins().find_map(|origin| match origin {
                Origin::Object { class, index: 1, .. } => Some((index, *class)),
                Origin::ServiceData(..) | Origin::ManufacturerData(..) => Some((index, ObjectClass::Sensor)),
                _ => None,
            })
        });
        own.collect()
    }

    /// Advertisements that tell these raw values, by index of the property.
    ///
    /// # Errors
    /// [`Mute`].
    pub fn speak(&self, values: &[(usize, Raw)], sender: Sender<'_>) -> Result<Vec<Advertisement>, Mute> {
        let device = self.ble.as_ref().ok_or(Mute::NotBle)?;
        let objects: Vec<Object> = values.iter().filter_map(|(index, raw)| self.object(*index, raw)).collect();
        let mut why = Mute::Connected;
        for format in &device.formats {
            match encode(*format, &objects, sender) {
                Ok(packets) if packets.iter().all(|packet| device.pattern.fits(packet)) => return Ok(packets),
                Ok(_) => why = Mute::Unmarked,
                Err(error) => why = Mute::Unsayable(error.to_string()),
            }
        }
        match self.placed(device, values, sender)? {
            Some(packet) if device.pattern.fits(&packet) => Ok(vec![packet]),
            Some(_) => Err(Mute::Unmarked),
            None => Err(why),
        }
    }

    fn object(&self, index: usize, raw: &Raw) -> Option<Object> {
        let visit = self.properties.get(index)?.source.ble()?;
        visit.origins().find_map(|origin| match origin {
            Origin::Object { name, class, index: 1 } => {
                let name = Cow::Owned(name.clone());
                Some(Object { name, class: *class, unit: "", value: Ok(raw.clone()) })
            }
            _ => None,
        })
    }

    /// The values that lie at places of their own; nothing where the profile has none such.
    fn placed(
        &self,
        device: &Device,
        values: &[(usize, Raw)],
        sender: Sender<'_>,
    ) -> Result<Option<Advertisement>, Mute> {
        let mut packet = Advertisement { address: Some(sender.address), flags: Some(0x06), ..Advertisement::default() };
        for maker in device.pattern.manufacturer.iter().take(1) {
            packet.manufacturer.push((maker.id, maker.prefix.clone()));
        }
        let mut has_any = false;
        for (index, raw) in values {
            let Some(property) = self.properties.get(*index) else { continue };
            for origin in property.source.ble().into_iter().flat_map(|visit| visit.origins()) {
                let (field, room) = match origin {
                    Origin::ServiceData(uuid, field) => (field, service_room(&mut packet, *uuid)),
                    Origin::ManufacturerData(id, field) => (field, maker_room(&mut packet, *id)),
                    _ => continue,
                };
                has_any = true;
                place(property, field, raw, room)?;
            }
        }
        Ok(has_any.then_some(packet))
    }
}

fn service_room(packet: &mut Advertisement, uuid: Uuid) -> &mut Vec<u8> {
    let at = packet.service_data.iter().position(|(own, _)| *own == uuid).unwrap_or_else(|| {
        packet.service_data.push((uuid, Vec::new()));
        packet.service_data.len() - 1
    });
    &mut packet.service_data.get_mut(at).expect("it was found or pushed").1
}

fn maker_room(packet: &mut Advertisement, id: u16) -> &mut Vec<u8> {
    let at = packet.manufacturer.iter().position(|(own, _)| *own == id).unwrap_or_else(|| {
        packet.manufacturer.push((id, Vec::new()));
        packet.manufacturer.len() - 1
    });
    &mut packet.manufacturer.get_mut(at).expect("it was found or pushed").1
}

fn place(property: &Property, field: &Field, raw: &Raw, room: &mut Vec<u8>) -> Result<(), Mute> {
    if field.bits.is_some() {
        return Err(Mute::Bits(property.name.to_string()));
    }
    let raw = match (field.bounds(), raw) {
        (Some((least, most)), Raw::Int(number)) => Raw::Int((*number).clamp(least, most)),
        (Some((least, most)), Raw::Float(number)) => Raw::Int((number.round() as i128).clamp(least, most)),
        (_, raw) => raw.clone(),
    };
    let own = Field { at: 0, ..*field }.encode(&raw).map_err(|error| Mute::Unsayable(error.to_string()))?;
    let end = field.at + own.len();
    if room.len() < end {
        room.resize(end, 0);
    }
    if let Some(place) = room.get_mut(field.at..end) {
        place.copy_from_slice(&own);
    }
    Ok(())
}
