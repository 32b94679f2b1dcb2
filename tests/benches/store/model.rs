//! What is written in every case: devices, properties, values, and the plain SQLite table beside ours.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use tests::support::Random;

/// Devices.
pub(crate) const DEVICES: usize = 10_000;
/// Properties of each.
pub(crate) const PROPERTIES: usize = 10;
/// Updates that are gathered for one flush.
pub(crate) const GATHERED: usize = 20_000;

/// `(device, property) → value`, as the twins hold it.
pub(crate) type Model = Vec<[u32; PROPERTIES]>;

pub(crate) fn model() -> Model {
    vec![[0; PROPERTIES]; DEVICES]
}

pub(crate) fn device_name(device: usize) -> String {
    format!("device-{device:05}")
}

pub(crate) fn property_name(property: usize) -> String {
    format!("property_{property}")
}

/// Draws updates for one flush; a property drawn twice is written once.
pub(crate) fn gather(random: &mut Random, model: &mut Model, count: usize) -> BTreeMap<usize, Vec<usize>> {
    let mut changed: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for _ in 0..count {
        let key = usize::try_from(random.below((DEVICES * PROPERTIES) as u64)).unwrap_or_default();
        let (device, property) = (key / PROPERTIES, key % PROPERTIES);
        model[device][property] = u32::try_from(random.below(100_000)).unwrap_or_default();
        let properties = changed.entry(device).or_default();
        if !properties.contains(&property) {
            properties.push(property);
        }
    }
    changed
}

pub(crate) fn everything() -> BTreeMap<usize, Vec<usize>> {
    (0..DEVICES).map(|device| (device, (0..PROPERTIES).collect())).collect()
}

/// A measured value with one decimal, as most readings have.
pub(crate) fn value(number: u32) -> serde_json::Value {
    json!(f64::from(number) / 10.0)
}

pub(crate) const UPSERT: &str = "INSERT INTO twin VALUES (?1, ?2, ?3, ?4, ?5) \
                      ON CONFLICT (device, property) DO UPDATE SET value = ?3, at = ?4, version = ?5";

pub(crate) fn plain(folder: &Path, synchronous: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(folder.join("plain.db")).expect("a database can be made");
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             CREATE TABLE twin (device TEXT, property TEXT, value TEXT, at INTEGER, version INTEGER,
                                PRIMARY KEY (device, property));"
        ))
        .expect("a table can be made");
    connection
}
