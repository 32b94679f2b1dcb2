//! Twin changes as rows: names as numbers, desired values, the journal.

use std::collections::HashMap;

use protocols::name::{DeviceId, PropertyName};
use rusqlite::{Connection, OptionalExtension, params};

use super::leaves::Body;
use super::{ReportedWrite, TwinWrite};

/// The longest journal row, in bytes, before another one is begun: it bounds what one read of the journal holds.
const JOURNAL_ROW_LEAVES: usize = 16_384;

/// Names of devices and properties and their numbers, both ways.
#[derive(Debug, Default)]
pub(super) struct Names {
    devices: HashMap<String, i64>,
    properties: HashMap<String, i64>,
    /// Made in a transaction that has not been committed yet.
    fresh_devices: Vec<String>,
    fresh_properties: Vec<String>,
}

impl Names {
    /// Reads them.
    pub(super) fn load(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let read = |table: &str| -> Result<HashMap<String, i64>, rusqlite::Error> {
            let mut statement = connection.prepare(&format!("SELECT name, id FROM {table}"))?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        Ok(Self { devices: read("device")?, properties: read("property")?, ..Self::default() })
    }

    /// The number of a device.
    pub(super) fn device(&mut self, connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
        intern(connection, "INSERT INTO device (name) VALUES (?1)", name, &mut self.devices, &mut self.fresh_devices)
    }

    /// The number of a property.
    pub(super) fn property(&mut self, connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
        let sql = "INSERT INTO property (name) VALUES (?1)";
        intern(connection, sql, name, &mut self.properties, &mut self.fresh_properties)
    }

    /// The transaction was committed: the new names stay.
    pub(super) fn settle(&mut self) {
        self.fresh_devices.clear();
        self.fresh_properties.clear();
    }

    /// The transaction was rolled back: the new names are gone.
    pub(super) fn forget(&mut self) {
        for name in self.fresh_devices.drain(..) {
            self.devices.remove(&name);
        }
        for name in self.fresh_properties.drain(..) {
            self.properties.remove(&name);
        }
    }

    /// Devices by number.
    pub(super) fn devices(&self) -> HashMap<i64, DeviceId> {
        self.devices.iter().filter_map(|(name, id)| Some((*id, name.parse().ok()?))).collect()
    }

    /// Properties by number.
    pub(super) fn properties(&self) -> HashMap<i64, PropertyName> {
        self.properties.iter().filter_map(|(name, id)| Some((*id, name.parse().ok()?))).collect()
    }
}

fn intern(
    connection: &Connection,
    sql: &str,
    name: &str,
    known: &mut HashMap<String, i64>,
    fresh: &mut Vec<String>,
) -> Result<i64, rusqlite::Error> {
    if let Some(id) = known.get(name) {
        return Ok(*id);
    }
    connection.prepare_cached(sql)?.execute([name])?;
    let id = connection.last_insert_rowid();
    known.insert(name.to_owned(), id);
    fresh.push(name.to_owned());
    Ok(id)
}

/// What a write did.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) leaves: u64,
    pub(super) journal_bytes: u64,
}

/// Writes inside the current transaction.
pub(super) fn apply(
    connection: &Connection,
    names: &mut Names,
    writes: &[TwinWrite],
) -> Result<Applied, rusqlite::Error> {
    let mut reported = Vec::new();
    let mut settled = None;
    for write in writes {
        match write {
            TwinWrite::Reported(write) => {
                reported.push((names.device(connection, write.device.as_str())?, write));
                settled.get_or_insert(false);
            }
            TwinWrite::Desired(device, property, leaf) => {
                let device = names.device(connection, device.as_str())?;
                let property = names.property(connection, property.as_str())?;
                let body = serde_json::to_string(leaf)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let sql = "INSERT OR REPLACE INTO desired (device, property, body) VALUES (?1, ?2, ?3)";
                connection.prepare_cached(sql)?.execute(params![device, property, body])?;
            }
            TwinWrite::Settled => settled = Some(true),
        }
    }
    let mut applied = Applied::default();
    reported.sort_by_key(|(device, _)| *device);
    let mut rest = reported.as_slice();
    while !rest.is_empty() {
        let mut leaves = 0;
        let fits = |(_, write): &&(i64, &ReportedWrite)| {
            leaves += write.leaves.len() + 1;
            leaves <= JOURNAL_ROW_LEAVES
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (row, later) = rest.split_at(count);
        rest = later;
        let body = body(connection, names, row)?;
        connection.prepare_cached("INSERT INTO journal (body) VALUES (?1)")?.execute([body.bytes()])?;
        applied.journal_bytes += body.bytes().len() as u64;
        applied.leaves += row.iter().map(|(_, write)| write.leaves.len() as u64).sum::<u64>();
    }
    if let Some(settled) = settled {
        set_clean(connection, settled)?;
    }
    Ok(applied)
}

fn body(connection: &Connection, names: &mut Names, row: &[(i64, &ReportedWrite)]) -> Result<Body, rusqlite::Error> {
    let first = row.iter().flat_map(|(_, write)| &write.leaves).find_map(|(_, leaf)| Some(leaf.as_ref()?.at));
    let mut body = Body::new(first);
    for (device, write) in row {
        let mut leaves = Vec::with_capacity(write.leaves.len());
        for (name, leaf) in &write.leaves {
            leaves.push((names.property(connection, name.as_str())?, leaf.as_ref()));
        }
        leaves.sort_by_key(|(property, _)| *property);
        body.add(*device, write.version, &leaves);
    }
    Ok(body)
}

/// Says whether the versions on disk are exact; touches the row only when that changes.
fn set_clean(connection: &Connection, clean: bool) -> Result<(), rusqlite::Error> {
    let value = if clean { "1" } else { "0" };
    let sql = "SELECT value FROM meta WHERE key = 'clean'";
    let now: Option<String> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    if now.as_deref() == Some(value) { Ok(()) } else { set_meta(connection, "clean", value) }
}

/// Writes one of the store's own facts.
pub(super) fn set_meta(connection: &Connection, key: &str, value: &str) -> Result<(), rusqlite::Error> {
    let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute([key, value]).map(drop)
}
