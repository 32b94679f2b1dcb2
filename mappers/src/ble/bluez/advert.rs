//! Advertisements, as bluetoothd tells them: properties that change.
//!
//! In: properties of a `Device1`, all of them or those that changed. Out: one [`Advertisement`]. Must never put in what was
//! said in an earlier advertisement: a button press that is remembered is a button press too many. Name and services are
//! remembered elsewhere; bluetoothd says them once.

use protocols::ble::{AddressType, Advertisement, Mac, Uuid};
use zbus::Variant;

use super::daemon::Properties;

/// The address in a device's path, `/org/bluez/hci0/dev_F0_F1_F2_F3_F4_F5`.
pub(super) fn address(path: &str) -> Option<Mac> {
    path.rsplit_once("/dev_")?.1.get(..17)?.replace('_', ":").parse().ok()
}

/// The path of a device below its adapter's.
pub(super) fn path(adapter: &str, address: Mac) -> String {
    format!("{adapter}/dev_{}", address.to_string().replace(':', "_"))
}

/// The kind of address, where the properties tell it.
pub(super) fn kind(properties: &Properties) -> Option<AddressType> {
    match &**properties.get("AddressType")? {
        Variant::Str(kind) if kind.as_str() == "random" => Some(AddressType::Random),
        Variant::Str(_) => Some(AddressType::Public),
        _ => None,
    }
}

/// What the properties say of an advertisement; `None` when nothing in them came off the air.
pub(super) fn advertisement(address: Mac, properties: &Properties) -> Option<Advertisement> {
    let mut heard = Advertisement { address: Some(address), ..Advertisement::default() };
    let mut any = false;
    for (name, value) in properties {
        any |= match (name.as_str(), &**value) {
            ("RSSI", Variant::I16(level)) => {
                heard.rssi = i8::try_from(*level).ok();
                true
            }
            ("TxPower", Variant::I16(level)) => {
                heard.tx_power = i8::try_from(*level).ok();
                false
            }
            ("Name", Variant::Str(_)) => true,
            ("ServiceData", Variant::Dict(data)) => {
                let all = data.iter().filter_map(|(key, value)| Some((uuid(key)?, bytes(value)?)));
                heard.service_data = all.collect();
                true
            }
            ("ManufacturerData", Variant::Dict(data)) => {
                let all = data.iter().filter_map(|(key, value)| match key {
                    Variant::U16(company) => Some((*company, bytes(value)?)),
                    _ => None,
                });
                heard.manufacturer = all.collect();
                true
            }
            _ => false,
        };
    }
    any.then_some(heard)
}

/// The services a device says it has, where the properties tell them.
pub(super) fn services(properties: &Properties) -> Option<Vec<Uuid>> {
    match &**properties.get("UUIDs")? {
        Variant::Array(uuids) => Some(uuids.iter().filter_map(uuid).collect()),
        _ => None,
    }
}

fn uuid(value: &Variant<'_>) -> Option<Uuid> {
    match value {
        Variant::Str(text) => text.parse().ok(),
        _ => None,
    }
}

/// An array of bytes, inside a variant or bare.
pub(super) fn bytes(value: &Variant<'_>) -> Option<Vec<u8>> {
    match value {
        Variant::Variant(inner) => bytes(inner),
        Variant::Array(array) => array
            .iter()
            .map(|item| match item {
                Variant::U8(byte) => Some(*byte),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use zbus::OwnedVariant;

    use super::*;

    fn owned(value: Variant<'_>) -> OwnedVariant {
        value.try_into().expect("no file descriptors")
    }

    #[test]
    fn a_path_and_an_address_are_one() {
        let mac: Mac = "F0:F1:F2:F3:F4:F5".parse().unwrap();
        assert_eq!(path("/org/bluez/hci0", mac), "/org/bluez/hci0/dev_F0_F1_F2_F3_F4_F5");
        for (text, expected) in [
            ("/org/bluez/hci0/dev_F0_F1_F2_F3_F4_F5", Some(mac)),
            ("/org/bluez/hci0/dev_F0_F1_F2_F3_F4_F5/service0001/char0002", Some(mac)),
            ("/org/bluez/hci0", None),
            ("/org/bluez/hci0/dev_F0", None),
            ("/org/bluez/hci0/dev_ä0_F1_F2_F3_F4_F5", None),
        ] {
            assert_eq!(address(text), expected, "{text}");
        }
    }

    /// The shape of `PropertiesChanged` in the BlueZ documentation (doc/device-api.txt).
    #[test]
    fn only_what_was_said_this_time_is_heard() {
        let mac: Mac = "F0:F1:F2:F3:F4:F5".parse().unwrap();
        let payload = Variant::from(vec![0x40_u8, 0x02, 0xCA, 0x09]);
        let data = HashMap::from([("0000fcd2-0000-1000-8000-00805f9b34fb".to_owned(), payload)]);
        let properties: Properties = HashMap::from([
            ("RSSI".to_owned(), owned(Variant::from(-61_i16))),
            ("ServiceData".to_owned(), owned(Variant::from(data))),
        ]);
        let heard = advertisement(mac, &properties).unwrap();
        assert_eq!(heard.rssi, Some(-61));
        assert_eq!(heard.service_data, vec![(Uuid::from_u16(0xFCD2), vec![0x40, 0x02, 0xCA, 0x09])]);
        let connected: Properties = HashMap::from([("Connected".to_owned(), owned(Variant::from(true)))]);
        assert_eq!(advertisement(mac, &connected), None);
    }
}
