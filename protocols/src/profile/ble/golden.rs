//! Golden tests of Bluetooth profiles.
//!
//! In: a profile, one device's own part, and a test's input. Out: the values a gateway would have then, and the bytes it
//! would write. Must never use another way than a running gateway does: the [`Listener`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, json};

use super::input::steps;
use super::{Listener, Origin};
use crate::ble::{Identity, hex};
use crate::profile::{Profile, Property};
use crate::value::{Now, Quality, Timestamp, Value};

/// Name → value and quality.
pub(in crate::profile) type Values = BTreeMap<String, (Value, Quality)>;

/// What a device has been heard saying.
#[derive(Debug, Default)]
pub(in crate::profile) struct Observed {
    /// The newest value of each property that was told.
    pub(in crate::profile) values: Values,
    /// The names of those that came out of bytes, and not out of the act of hearing.
    pub(in crate::profile) told: Vec<String>,
}

/// Listens to a test's input.
///
/// # Errors
/// What cannot be read in it.
pub(in crate::profile) fn observed(
    profile: &Arc<Profile>,
    identity: &Identity,
    input: &Value,
) -> Result<Observed, String> {
    let mut listener = Listener::new(Arc::clone(profile), identity.clone());
    let mut observed = Observed::default();
    let mut now = Now { tick: 0, wall: Timestamp::from_ms(0) };
    for step in steps(input)? {
        now = Now { tick: now.tick.saturating_add(step.after_ms), ..now };
        let mut readings = listener.check(now);
        if let Some(adv) = &step.adv {
            readings.extend(listener.hear(adv, now).readings);
        }
        for (name, bytes) in &step.gatt {
            let gatt = profile.ble.as_ref().and_then(|device| device.gatt.as_ref());
            let index = gatt.and_then(|gatt| {
                let uuid = name.parse().ok();
                gatt.find(name).or_else(|| gatt.characteristics.iter().position(|own| Some(own.characteristic) == uuid))
            });
            let index = index.ok_or_else(|| format!("the profile has no characteristic \"{name}\""))?;
            readings.extend(listener.characteristic(index, bytes, now));
        }
        for (index, reading) in readings {
            let Some(property) = profile.properties.get(index) else { continue };
            if !is_meta(property) {
                observed.told.push(property.name.to_string());
            }
            observed.values.insert(property.name.to_string(), (reading.value, reading.quality));
        }
    }
    Ok(observed)
}

fn is_meta(property: &Property) -> bool {
    property.source.ble().is_some_and(|visit| matches!(visit.from, Origin::Meta(_)))
}

/// The bytes that are written for desired values, as `{characteristic: hex}`.
///
/// # Errors
/// The property, and why it is not written.
pub(in crate::profile) fn written(
    profile: &Profile,
    desired: &BTreeMap<String, Value>,
) -> Result<Value, (String, String)> {
    let mut all = Map::new();
    for (name, value) in desired {
        let refuse = |why: String| (name.clone(), why);
        let property = profile.find(name).and_then(|index| profile.properties.get(index));
        let property = property.ok_or_else(|| refuse("no such property".to_owned()))?;
        let value = property.accept(value).map_err(&refuse)?;
        let write = property.to_gatt(&value).map_err(&refuse)?;
        let gatt = profile.ble.as_ref().and_then(|device| device.gatt.as_ref());
        let own = gatt.and_then(|gatt| gatt.characteristics.get(write.characteristic));
        let own = own.ok_or_else(|| refuse("no such characteristic".to_owned()))?;
        let digits: String = write.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        all.insert(own.name.clone(), digits.into());
    }
    Ok(json!({"ble": {"gatt": all}}))
}

/// Whether two sets of written bytes are the same, however their digits are written.
pub(in crate::profile) fn same_bytes(expected: &Value, got: &Value) -> bool {
    let bytes = |value: &Value| -> Option<BTreeMap<String, Option<Vec<u8>>>> {
        let map = value.get("ble")?.get("gatt")?.as_object()?;
        Some(
            map.iter()
                .map(|(name, digits)| (name.clone(), digits.as_str().and_then(|digits| hex(digits.as_bytes()))))
                .collect(),
        )
    };
    bytes(expected).is_some_and(|expected| expected.values().all(Option::is_some) && Some(expected) == bytes(got))
}
