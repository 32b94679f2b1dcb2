//! The decoders against vectors of other implementations and of the vendors, and against bytes that nobody meant.
//!
//! The vectors name their sources themselves. Those of formats this version has no decoder for are read as the
//! structures they are; the profiles' tests read some of them by their places.

mod encode;
mod noise;
mod places;
mod vectors;

use serde_json::{Map, Value};

use super::key::hex;
use super::*;
use crate::codec::Scaling;

const BTHOME: &str = include_str!("../../../../tests/data/ble_bthome.json");
const OBJECTS_V2: &str = include_str!("../../../../tests/data/bthome_v2_objects.json");
const OTHER: &str = include_str!("../../../../tests/data/ble_other.json");

fn list(text: &str, key: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(text).unwrap();
    all[key].as_array().unwrap().clone()
}

fn bytes(digits: &Value) -> Vec<u8> {
    hex(digits.as_str().unwrap().as_bytes()).unwrap()
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// The advertisement of a vector: as broadcast where it is there, else by its parts.
fn advertisement(input: &Value) -> Advertisement {
    let mut adv = match input.get("adv_hex") {
        Some(whole) => Advertisement::parse(&bytes(whole)).0,
        None => Advertisement { name: input["local_name"].as_str().map(str::to_owned), ..Default::default() },
    };
    adv.address = input["address"].as_str().map(|mac| mac.parse().unwrap());
    if input.get("adv_hex").is_none() {
        if let Some(service) = input["service_uuid"].as_str() {
            adv.service_data.push((service.parse().unwrap(), bytes(&input["service_data_hex"])));
        }
        for (company, data) in map(&input["manufacturer_data"]) {
            adv.manufacturer.push((u16::from_str_radix(&company, 16).unwrap(), bytes(&data)));
        }
    }
    adv
}

fn key(input: &Value) -> Option<Key> {
    input["bindkey_hex"].as_str().map(|digits| Key::from_hex(digits).unwrap())
}

fn value(object: &Object) -> Value {
    object.value.clone().map_or(Value::Null, |raw| Scaling::default().apply(raw))
}

/// As the vectors say: 0.005 or a millionth, because their sources round. Yes and no are written as 1 and 0 in some.
fn close(expected: &Value, got: &Value) -> bool {
    let number = |value: &Value| value.as_bool().map(|on| f64::from(u8::from(on))).or(value.as_f64());
    match (number(expected), number(got)) {
        (Some(expected), Some(got)) => (expected - got).abs() <= (1e-6 * expected.abs()).max(0.005),
        _ => expected == got,
    }
}

#[test]
fn every_recorded_advertisement_falls_into_the_structures_its_source_found() {
    let mut seen = 0;
    for vector in list(OTHER, "vectors").iter().chain(&list(BTHOME, "vectors")) {
        let input = &vector["input"];
        let Some(whole) = input.get("adv_hex") else { continue };
        let (adv, _) = Advertisement::parse(&bytes(whole));
        let id = &vector["id"];
        for (company, data) in map(&input["manufacturer_data"]) {
            let found = (u16::from_str_radix(&company, 16).unwrap(), bytes(&data));
            assert!(adv.manufacturer.contains(&found), "{id}: {company}");
        }
        for (service, data) in map(&input["service_data"]) {
            assert_eq!(adv.service(service.parse().unwrap()), Some(bytes(&data).as_slice()), "{id}: {service}");
        }
        for service in input["service_uuids"].as_array().into_iter().flatten() {
            assert!(adv.services.contains(&service.as_str().unwrap().parse().unwrap()), "{id}: {service}");
        }
        if let Some(flags) = input["flags"].as_u64() {
            assert_eq!(adv.flags.map(u64::from), Some(flags), "{id}");
        }
        if let Some(power) = input["tx_power"].as_i64() {
            assert_eq!(adv.tx_power.map(i64::from), Some(power), "{id}");
        }
        if let Some(name) = input["local_name"].as_str() {
            assert_eq!(adv.name.as_deref(), Some(name), "{id}");
        }
        seen += 1;
    }
    assert!(seen >= 150, "only {seen} advertisements");
}
