//! What a golden test says a device sends.
//!
//! In: `input: {ble: {service_data: {fcd2: "40…"}}}`, or a list of such. Out: advertisements, and values of
//! characteristics. Must never make up a byte.

use std::collections::BTreeMap;

use serde_json::Map;

use crate::ble::{AddressType, Advertisement, Uuid, hex};
use crate::value::Value;

/// From one packet of a list to the next, in milliseconds, where the test says nothing: longer than any window of
/// repeated packets that ships.
const STEP_MS: u64 = 60_000;

/// One packet, or the values of a connection.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Step {
    /// Time since the one before, in milliseconds.
    pub(super) after_ms: u64,
    /// What was sent, if anything was.
    pub(super) adv: Option<Advertisement>,
    /// Characteristic by name or UUID → bytes.
    pub(super) gatt: BTreeMap<String, Vec<u8>>,
}

const KEYS: [&str; 14] = [
    "adv",
    "address",
    "address_type",
    "rssi",
    "tx_power",
    "name",
    "local_name",
    "services",
    "service_uuids",
    "service_data",
    "manufacturer_data",
    "gatt",
    "after",
    "adv_hex",
];

/// Why an input cannot be read, or nothing.
pub(in crate::profile) fn complaint(input: &Value) -> Option<String> {
    steps(input).err()
}

/// Reads a test's input.
pub(super) fn steps(input: &Value) -> Result<Vec<Step>, String> {
    match input.get("ble") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(step).collect(),
        Some(one) => Ok(vec![step(one)?]),
    }
}

fn step(input: &Value) -> Result<Step, String> {
    let map = input.as_object().ok_or("a packet is a map: {service_data: {fcd2: \"40…\"}}")?;
    if let Some(stranger) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("there is no \"{stranger}\" in a packet; it has: {}", KEYS.join(", ")));
    }
    let after_ms = match map.get("after") {
        None => STEP_MS,
        Some(after) => after
            .as_str()
            .and_then(crate::profile::duration)
            .and_then(|after| u64::try_from(after.as_millis()).ok())
            .ok_or_else(|| format!("{after} is no duration"))?,
    };
    let mut gatt = BTreeMap::new();
    for (name, value) in entries(map, "gatt")? {
        gatt.insert(name.clone(), bytes(value)?);
    }
    let is_packet = map.keys().any(|key| !matches!(key.as_str(), "gatt" | "after"));
    Ok(Step { after_ms, adv: if is_packet { Some(packet(map)?) } else { None }, gatt })
}

fn packet(map: &Map<String, Value>) -> Result<Advertisement, String> {
    let mut adv = match map.get("adv").or_else(|| map.get("adv_hex")) {
        None => Advertisement::default(),
        Some(whole) => match Advertisement::parse(&bytes(whole)?) {
            (_, Some(damage)) => return Err(format!("the advertisement is damaged: {damage}")),
            (adv, None) => adv,
        },
    };
    let text = |keys: &[&str]| keys.iter().find_map(|key| map.get(*key));
    if let Some(address) = text(&["address"]) {
        let address = address.as_str().ok_or_else(|| format!("{address} is no address"))?;
        adv.address = Some(address.parse().map_err(|error: crate::ble::MacError| error.to_string())?);
    }
    adv.address_type = match text(&["address_type"]).map(|kind| kind.as_str().unwrap_or_default()) {
        None | Some("public") => AddressType::Public,
        Some("random") => AddressType::Random,
        Some(other) => return Err(format!("\"{other}\" is no address type; write public or random")),
    };
    adv.rssi = small(map, "rssi")?.or(adv.rssi);
    adv.tx_power = small(map, "tx_power")?.or(adv.tx_power);
    if let Some(name) = text(&["name", "local_name"]) {
        adv.name = Some(name.as_str().ok_or_else(|| format!("{name} is no name"))?.to_owned());
    }
    for service in text(&["services", "service_uuids"]).and_then(Value::as_array).into_iter().flatten() {
        adv.services.push(uuid(service.as_str().unwrap_or_default())?);
    }
    for (service, data) in entries(map, "service_data")? {
        adv.service_data.push((uuid(service)?, bytes(data)?));
    }
    for (company, data) in entries(map, "manufacturer_data")? {
        let digits = company.strip_prefix("0x").unwrap_or(company);
        let id = u16::from_str_radix(digits, 16).map_err(|_| format!("\"{company}\" is no company; write \"0499\""))?;
        adv.manufacturer.push((id, bytes(data)?));
    }
    Ok(adv)
}

fn entries<'a>(map: &'a Map<String, Value>, key: &str) -> Result<Vec<(&'a String, &'a Value)>, String> {
    match map.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Object(entries)) => Ok(entries.iter().collect()),
        Some(_) => Err(format!("\"{key}\" is no map")),
    }
}

fn small(map: &Map<String, Value>, key: &str) -> Result<Option<i8>, String> {
    match map.get(key) {
        None => Ok(None),
        Some(number) => match number.as_i64().and_then(|number| i8::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{key} {number} is not from -128 to 127")),
        },
    }
}

/// The key of an assigned number may have lost its leading zeros on the way through YAML.
fn uuid(text: &str) -> Result<Uuid, String> {
    let padded = if text.len() < 4 { format!("{text:0>4}") } else { text.to_owned() };
    padded.parse().map_err(|error: crate::ble::UuidError| error.to_string())
}

/// Pairs of hexadecimal digits; digits alone may have been read as a number.
pub(super) fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    let error = || format!("{value} is no pairs of hexadecimal digits; write them in quotes");
    let text: String = value.as_str().ok_or_else(error)?.chars().filter(|letter| !letter.is_whitespace()).collect();
    hex(text.as_bytes()).ok_or_else(error)
}
