//! Every vector of a format with a decoder, with its key and without.

use std::collections::BTreeMap;

use super::super::decode;
use super::*;
use crate::value::Timestamp;

/// Our own word for a key of a vector, which object of that name, and what it is.
fn meant(key: &str) -> (String, usize) {
    let (name, index) = match key.rsplit_once('_').map(|(name, digits)| (name, digits.parse())) {
        Some((name, Ok(index))) if !name.ends_with("probe") => (name, index),
        _ => (key, 1),
    };
    let name = match name {
        "switch" => "power",
        "distance_mm" => "distance",
        "volume_mL" => "volume",
        "steps" => "dimmer_steps",
        "battery_low" => "battery",
        other => other,
    };
    (decode::canonical(name).to_owned(), index)
}

#[test]
fn every_bthome_vector_gives_what_its_source_expects() {
    let mut wrong = Vec::new();
    for vector in list(BTHOME, "vectors") {
        let (id, input, expected) = (&vector["id"], &vector["input"], &vector["expected"]);
        let adv = advertisement(input);
        let packet = decode(Format::Bthome2, &adv, adv.address, key(input).as_ref());
        if let Some(error) = vector["expect_error"].as_str() {
            assert_eq!((error, packet), ("decrypt_failed", Err(Refusal::Undecryptable)), "{id}");
            continue;
        }
        let packet = packet.unwrap();
        let mut check = |class: &[ObjectClass], key: &str, expected: &Value| {
            let (name, index) = meant(key);
            let found = class.iter().find_map(|class| packet.object(&name, *class, index));
            if !found.is_some_and(|object| close(expected, &value(object))) {
                wrong.push(format!("{id}: {key} is {expected}, got {found:?}"));
            }
        };
        for (name, expected) in map(&expected["values"]) {
            let expected = expected.as_str().map_or(expected.clone(), |text| match text.parse::<Timestamp>() {
                Ok(at) => at.to_string().into(),
                Err(_) => text.into(),
            });
            check(&[ObjectClass::Sensor], &name, &expected);
        }
        for (name, expected) in map(&expected["binary"]) {
            check(&[ObjectClass::Binary], &name, &expected);
        }
        for (name, expected) in map(&expected["events"]) {
            let number = match expected["event_type"].as_str().unwrap() {
                "press" => 1,
                "rotate_left" => 1,
                other => panic!("{other}"),
            };
            check(&[ObjectClass::Event], &name, &number.into());
        }
        for (name, expected) in map(&expected["flat"]) {
            let expected = if expected == "rotate left" { 1.into() } else { expected };
            let classes: &[ObjectClass] = match name.as_str() {
                "dimmer" => &[ObjectClass::Event],
                "switch" | "battery low" | "gas detected" => &[ObjectClass::Binary],
                "light" | "illuminance" if expected.is_i64() => &[ObjectClass::Binary],
                _ => &[ObjectClass::Sensor, ObjectClass::Binary],
            };
            check(classes, &name.replace(' ', "_"), &expected);
        }
        // What the source does not have, we do not have either; button 0 keeps its place without a value.
        let told = packet.objects.iter().filter(|object| object.value.is_ok()).count();
        let flat = expected["flat"].as_object();
        let known = match flat {
            Some(_) => told,
            None => ["values", "binary", "events"].iter().map(|part| map(&expected[*part]).len()).sum(),
        };
        if told != known {
            wrong.push(format!("{id}: {known} things expected, got {:?}", packet.objects));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_bthome_object_has_the_length_and_the_factor_of_the_format() {
    for object in list(OBJECTS_V2, "objects") {
        let id = u8::from_str_radix(object["object_id"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        let name = object["name"].as_str().unwrap();
        let form = object["format"].as_str().unwrap();
        if matches!(form, "string" | "raw" | "timestamp") {
            continue;
        }
        let length = usize::try_from(object["length"].as_u64().unwrap()).unwrap();
        let signed = form == "signed_integer";
        let class = match object["kind"].as_str().unwrap() {
            "binary" => ObjectClass::Binary,
            "event" => ObjectClass::Event,
            _ => ObjectClass::Sensor,
        };
        // The largest byte on top makes a signed number negative; a packet id behind proves the length.
        let mut data = vec![0x40, id];
        data.extend((1..=length).map(|byte| if byte == length { 0xFE } else { 0x03 }));
        data.extend([0x00, 0x2A]);
        let raw = (1..=length).rev().fold(0_i128, |raw, byte| raw << 8 | if byte == length { 0xFE } else { 0x03 });
        let raw = if signed { raw - (1 << (8 * length)) } else { raw };
        let adv = Advertisement { service_data: vec![(Uuid::from_u16(0xFCD2), data)], ..Default::default() };
        let packet = decode(Format::Bthome2, &adv, None, None).unwrap();
        assert!(!packet.is_partial && packet.packet_id == Some(0x2A), "{name} {id:#04x}: {packet:?}");
        let found = packet.object(name, class, 1).unwrap_or_else(|| panic!("{name} {id:#04x}: {packet:?}"));
        let expected = match class {
            ObjectClass::Binary => true.into(),
            ObjectClass::Event if name == "dimmer" => 3.into(),
            _ => Value::from(raw as f64 * object["factor"].as_f64().unwrap()),
        };
        assert!(close(&expected, &value(found)), "{name} {id:#04x}: {expected} and {found:?}");
    }
}

/// The format whose decoder reads a vector.
pub(super) fn format(vector: &Value) -> Option<Format> {
    let id = vector["id"].as_str().unwrap();
    // Probes for meat and a sensor that encodes its values in an URL: no decoder of this version's.
    let others = ["H5055", "H5182", "H5184", "H5185", "H5191", "H5198"];
    if others.iter().any(|other| id.contains(other)) {
        return None;
    }
    Some(match vector["decoder"].as_str() {
        Some("ruuvi3") => Format::Ruuvi3,
        Some("ruuvi5") => Format::Ruuvi5,
        Some("atc1441") => Format::Atc1441,
        Some("pvvx") => Format::Pvvx,
        Some("mibeacon" | "mibeacon_encrypted") => Format::Mibeacon,
        Some("switchbot") => Format::Switchbot,
        Some("thermopro") => Format::Thermopro,
        Some("ibeacon") => Format::Ibeacon,
        Some("altbeacon") => Format::Altbeacon,
        _ if id.contains("govee_parser") => Format::Govee,
        _ if id.contains("inkbird/") => Format::Inkbird,
        _ => return None,
    })
}

/// What a vector expects, in our words: name, class, value.
fn expectations(format: Format, expected: &Map<String, Value>) -> Vec<(String, ObjectClass, Value)> {
    let mut all = Vec::new();
    for (key, expected) in expected {
        let sensor = |name: &str| (name.to_owned(), ObjectClass::Sensor, expected.clone());
        let binary = |name: &str| (name.to_owned(), ObjectClass::Binary, expected.clone());
        all.push(match key.as_str() {
            "mac" if format == Format::Ruuvi5 => (
                key.clone(),
                ObjectClass::Sensor,
                expected.as_str().map_or(Value::Null, |mac| mac.to_lowercase().into()),
            ),
            // What the receiver adds, what Home Assistant makes of it, and values of parts we do not read.
            "mac"
            | "rssi"
            | "motion timer"
            | "one btn switch"
            | "button switch"
            | "locktype"
            | "action"
            | "method"
            | "door action"
            | "result"
            | "manufacturer"
            | "tracker_id"
            | "cypress temperature"
            | "cypress humidity"
            | "fingerprint"
            | "sensor id" => continue,
            "key id" if expected.is_string() => continue,
            "battery low" => binary("battery"),
            "motion" | "moisture" | "opening" | "occupancy" | "door" | "lock" | "toothbrush" => binary(key),
            "button" => ("button".to_owned(), ObjectClass::Event, 1.into()),
            "pressure present duration" => sensor("pressure_duration"),
            "no motion time" => sensor("idle_time"),
            "pressure_pa" => {
                let pascal = expected.as_f64();
                (
                    "pressure".to_owned(),
                    ObjectClass::Sensor,
                    pascal.map_or(Value::Null, |pascal| (pascal / 100.0).into()),
                )
            }
            "tx_power_dbm" => sensor("tx_power"),
            "uuid" => {
                let uuid: Uuid = expected.as_str().unwrap().parse().unwrap();
                (key.clone(), ObjectClass::Sensor, uuid.long().into())
            }
            "acceleration_g" => {
                let axes = ["acceleration_x", "acceleration_y", "acceleration_z"];
                let parts = axes.iter().zip(expected.as_array().unwrap());
                all.extend(parts.map(|(name, part)| ((*name).to_owned(), ObjectClass::Sensor, part.clone())));
                continue;
            }
            other => sensor(&other.replace(' ', "_")),
        });
    }
    all
}

#[test]
fn every_vector_of_a_format_with_a_decoder_gives_what_its_source_expects() {
    let mut wrong = Vec::new();
    let mut read = BTreeMap::new();
    for vector in list(OTHER, "vectors") {
        let Some(format) = format(&vector) else { continue };
        let (id, input) = (&vector["id"], &vector["input"]);
        let adv = advertisement(input);
        let packet = match decode(format, &adv, adv.address, key(input).as_ref()) {
            Ok(packet) => packet,
            Err(refusal) => panic!("{id}: {refusal:?}"),
        };
        *read.entry(format.word()).or_insert(0) += 1;
        assert_eq!(packet.is_encrypted, input.get("bindkey_hex").is_some(), "{id}");
        // A toothbrush's score and a body temperature are objects this version does not know: told so, and no more.
        let is_known = !["T700", "MMC_T201"].iter().any(|other| id.as_str().unwrap().contains(other));
        assert_eq!(packet.is_partial, !is_known, "{id}");
        for (name, class, expected) in expectations(format, vector["expected"].as_object().unwrap()) {
            if !is_known && name != "packet" {
                continue;
            }
            let found = packet.object(&name, class, 1);
            if !found.is_some_and(|object| close(&expected, &value(object))) {
                wrong.push(format!("{id}: {name} is {expected}, got {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected = [
        ("altbeacon", 1),
        ("atc1441", 2),
        ("govee", 8),
        ("ibeacon", 1),
        ("inkbird", 5),
        ("mibeacon", 26),
        ("pvvx", 2),
        ("ruuvi3", 2),
        ("ruuvi5", 3),
        ("switchbot", 2),
        ("thermopro", 1),
    ];
    assert_eq!(read.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn an_encrypted_packet_without_its_key_or_with_a_changed_bit_gives_nothing() {
    let mut seen = 0;
    for vector in list(OTHER, "vectors").iter().chain(&list(BTHOME, "vectors")) {
        let input = &vector["input"];
        let Some(key) = key(input).filter(|_| vector.get("expect_error").is_none()) else { continue };
        let adv = advertisement(input);
        let format = if adv.service(Uuid::from_u16(0xFCD2)).is_some() { Format::Bthome2 } else { Format::Mibeacon };
        assert_eq!(decode(format, &adv, adv.address, None), Err(Refusal::NoKey), "{}", vector["id"]);
        let length = adv.service_data[0].1.len();
        // The bits of the last bytes are ciphertext, counter and tag in both formats.
        for at in length - 9..length {
            for bit in 0..8 {
                let mut forged = adv.clone();
                forged.service_data[0].1[at] ^= 1 << bit;
                let found = decode(format, &forged, forged.address, Some(&key));
                assert_eq!(found, Err(Refusal::Undecryptable), "{}: byte {at}", vector["id"]);
            }
        }
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} encrypted vectors");
}

#[test]
fn what_is_in_the_air_is_told_with_its_formats() {
    for vector in list(OTHER, "vectors") {
        let hints = identify(&advertisement(&vector["input"]));
        let Some(format) = format(&vector) else { continue };
        let hint = hints.iter().find(|hint| hint.format == format);
        let is_closed = vector["input"].get("bindkey_hex").is_some();
        assert_eq!(hint.map(|hint| hint.is_encrypted), Some(is_closed), "{}", vector["id"]);
    }
}
