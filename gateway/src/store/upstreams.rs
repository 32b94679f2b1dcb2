//! What the bridge keeps: marks, spooled readings, and the memory of dialects, for each upstream.
//!
//! In: [`UpstreamWrite`]s, in one transaction each. Out: everything again after a restart, and spooled readings in their
//! order. Must never mix what belongs to two upstreams, nor keep the marks of a place that an upstream no longer leads to.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocols::outbox::{Class, Gap, Item, Load, Meta, Row, Saved, Slot, Stamp, StoreOp, Streamed, gap_reason};
use protocols::value::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::open::Fault;
use super::rows::Names;

/// One change of what is kept for an upstream.
#[derive(Clone, Debug, PartialEq)]
pub enum UpstreamWrite {
    /// What the other side holds in a slot; `None` forgets it.
    Mark(Slot, Option<Stamp>),
    /// A step of the spool.
    Spool(StoreOp),
    /// A dialect's memory; `None` forgets it.
    Memory(String, Option<String>),
}

/// What was kept for an upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeptUpstream {
    /// What the other side holds.
    pub marks: Vec<(Slot, Stamp)>,
    /// The spool, without its readings.
    pub spool: Saved,
    /// The dialect's memory.
    pub memory: BTreeMap<String, String>,
}

/// What was given up with an upstream that is no longer configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Its name.
    pub name: String,
    /// Slots of which was known what the other side holds.
    pub marks: usize,
    /// Readings that waited for it.
    pub readings: usize,
    /// Gaps that it was not told of.
    pub gaps: usize,
}

/// A piece of reading that a caller waits for.
pub(super) type Ask = Box<dyn FnOnce(&Connection, &mut Names) + Send>;

/// About how much memory a write holds.
pub(super) fn weight(write: &UpstreamWrite) -> usize {
    match write {
        UpstreamWrite::Spool(StoreOp::Append(rows)) => rows.iter().map(|row| 128 + row.reading.payload.len()).sum(),
        UpstreamWrite::Memory(key, value) => 64 + key.len() + value.as_ref().map_or(0, String::len),
        _ => 96,
    }
}

/// The number of an upstream, made now if need be.
fn number(connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
    let known =
        connection.prepare_cached("SELECT id FROM upstream WHERE name = ?1")?.query_row([name], |row| row.get(0));
    match known.optional()? {
        Some(id) => Ok(id),
        None => {
            connection.prepare_cached("INSERT INTO upstream (name, target) VALUES (?1, '')")?.execute([name])?;
            Ok(connection.last_insert_rowid())
        }
    }
}

/// Writes inside the current transaction.
pub(super) fn apply(
    connection: &Connection,
    names: &mut Names,
    upstream: &str,
    writes: &[UpstreamWrite],
) -> Result<(), rusqlite::Error> {
    let upstream = number(connection, upstream)?;
    for write in writes {
        match write {
            UpstreamWrite::Mark(slot, stamp) => mark(connection, names, upstream, slot, *stamp)?,
            UpstreamWrite::Spool(op) => spool(connection, names, upstream, op)?,
            UpstreamWrite::Memory(key, Some(value)) => {
                let sql = "INSERT OR REPLACE INTO memory (upstream, key, value) VALUES (?1, ?2, ?3)";
                connection.prepare_cached(sql)?.execute(params![upstream, key, value])?;
            }
            UpstreamWrite::Memory(key, None) => {
                let sql = "DELETE FROM memory WHERE upstream = ?1 AND key = ?2";
                connection.prepare_cached(sql)?.execute(params![upstream, key])?;
            }
        }
    }
    Ok(())
}

fn mark(
    connection: &Connection,
    names: &mut Names,
    upstream: i64,
    slot: &Slot,
    stamp: Option<Stamp>,
) -> Result<(), rusqlite::Error> {
    let (device, kind, property) = match slot {
        Slot::Gateway => (0, 0, 0),
        Slot::Device(device, item) => {
            let device = names.device(connection, device.as_str())?;
            match item {
                Item::Status => (device, 0, 0),
                Item::Reported(name) => (device, 1, names.property(connection, name.as_str())?),
                Item::Desired(name) => (device, 2, names.property(connection, name.as_str())?),
                Item::Delta => (device, 3, 0),
                Item::Conflict => (device, 4, 0),
                Item::Document => (device, 5, 0),
            }
        }
    };
    match stamp {
        Some(Stamp(stamp)) => {
            let sql =
                "INSERT OR REPLACE INTO mark (upstream, device, kind, property, stamp) VALUES (?1, ?2, ?3, ?4, ?5)";
            let values = params![upstream, device, kind, property, stamp.cast_signed()];
            connection.prepare_cached(sql)?.execute(values)?;
        }
        None => {
            let sql = "DELETE FROM mark WHERE upstream = ?1 AND device = ?2 AND kind = ?3 AND property = ?4";
            connection.prepare_cached(sql)?.execute(params![upstream, device, kind, property])?;
        }
    }
    Ok(())
}

fn class_number(class: Class) -> i64 {
    match class {
        Class::Alarm => 0,
        Class::Metric => 1,
    }
}

fn class_of(number: i64) -> Option<Class> {
    Class::ALL.into_iter().find(|class| class_number(*class) == number)
}

fn spool(connection: &Connection, names: &mut Names, upstream: i64, op: &StoreOp) -> Result<(), rusqlite::Error> {
    match op {
        StoreOp::Append(rows) => {
            for row in rows {
                let device = names.device(connection, row.reading.device.as_str())?;
                let property = names.property(connection, row.reading.property.as_str())?;
                let sql = "INSERT OR REPLACE INTO spool \
                           (upstream, class, seq, device, property, payload, bytes, born_ms, wall_ms) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
                connection.prepare_cached(sql)?.execute(params![
                    upstream,
                    class_number(row.reading.class),
                    row.reading.seq.cast_signed(),
                    device,
                    property,
                    row.reading.payload.as_ref(),
                    i64::try_from(row.bytes()).unwrap_or(i64::MAX),
                    row.born_ms.cast_signed(),
                    row.wall.as_ms(),
                ])?;
            }
        }
        StoreOp::Delete { class, from, upto } => {
            let sql = "DELETE FROM spool WHERE upstream = ?1 AND class = ?2 AND seq BETWEEN ?3 AND ?4";
            let values = params![upstream, class_number(*class), from.cast_signed(), upto.cast_signed()];
            connection.prepare_cached(sql)?.execute(values)?;
        }
        StoreOp::Meta(Meta { class, floor, ceiling }) => {
            let sql = "INSERT OR REPLACE INTO spool_meta (upstream, class, floor, ceiling) VALUES (?1, ?2, ?3, ?4)";
            let values = params![upstream, class_number(*class), floor.cast_signed(), ceiling.cast_signed()];
            connection.prepare_cached(sql)?.execute(values)?;
        }
        StoreOp::Gap(Gap { class, from_seq, to_seq, reason }) => {
            let sql = "INSERT OR REPLACE INTO spool_gap (upstream, class, from_seq, to_seq, reason) VALUES (?1, ?2, ?3, ?4, ?5)";
            let class = class_number(*class);
            let values = params![upstream, class, from_seq.cast_signed(), to_seq.cast_signed(), reason];
            connection.prepare_cached(sql)?.execute(values)?;
        }
        StoreOp::GapGone { class, from_seq } => {
            let sql = "DELETE FROM spool_gap WHERE upstream = ?1 AND class = ?2 AND from_seq = ?3";
            connection.prepare_cached(sql)?.execute(params![upstream, class_number(*class), from_seq.cast_signed()])?;
        }
    }
    Ok(())
}

/// Everything that is kept for an upstream, but the readings themselves. Where it leads to another place than before, its
/// marks and its dialect's memory are forgotten first.
pub(super) fn load(
    connection: &Connection,
    names: &Names,
    upstream: &str,
    target: &str,
) -> Result<KeptUpstream, Fault> {
    let upstream = number(connection, upstream)?;
    let sql = "UPDATE upstream SET target = ?2 WHERE id = ?1 AND target <> ?2";
    if connection.execute(sql, params![upstream, target])? > 0 {
        connection.execute("DELETE FROM mark WHERE upstream = ?1", [upstream])?;
        connection.execute("DELETE FROM memory WHERE upstream = ?1", [upstream])?;
    }
    let mut spool =
        Saved { metas: metas(connection, upstream)?, gaps: gaps(connection, upstream)?, ..Saved::default() };
    rows(connection, upstream, &mut spool)?;
    Ok(KeptUpstream { marks: marks(connection, names, upstream)?, spool, memory: memory(connection, upstream)? })
}

/// Deletes everything of upstreams that are not among these, in one transaction.
pub(super) fn forget(connection: &Connection, configured: &[String]) -> Result<Vec<Forgotten>, rusqlite::Error> {
    let known: Vec<(i64, String)> = connection
        .prepare("SELECT id, name FROM upstream ORDER BY name")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let gone = known.into_iter().filter(|(_, name)| !configured.contains(name));
    let transaction = connection.unchecked_transaction()?;
    let mut forgotten = Vec::new();
    for (id, name) in gone {
        let delete = |sql| transaction.execute(sql, [id]);
        let marks = delete("DELETE FROM mark WHERE upstream = ?1")?;
        let readings = delete("DELETE FROM spool WHERE upstream = ?1")?;
        let gaps = delete("DELETE FROM spool_gap WHERE upstream = ?1")?;
        delete("DELETE FROM spool_meta WHERE upstream = ?1")?;
        delete("DELETE FROM memory WHERE upstream = ?1")?;
        delete("DELETE FROM upstream WHERE id = ?1")?;
        forgotten.push(Forgotten { name, marks, readings, gaps });
    }
    transaction.commit()?;
    Ok(forgotten)
}

fn marks(connection: &Connection, names: &Names, upstream: i64) -> Result<Vec<(Slot, Stamp)>, rusqlite::Error> {
    let (devices, properties) = (names.devices(), names.properties());
    let mut statement = connection.prepare("SELECT device, kind, property, stamp FROM mark WHERE upstream = ?1")?;
    let mut rows = statement.query([upstream])?;
    let mut marks = Vec::new();
    while let Some(row) = rows.next()? {
        let stamp = Stamp(row.get::<_, i64>(3)?.cast_unsigned());
        let property = || properties.get(&row.get::<_, i64>(2).ok()?).cloned();
        let item = match row.get::<_, i64>(1)? {
            0 => Some(Item::Status),
            1 => property().map(Item::Reported),
            2 => property().map(Item::Desired),
            3 => Some(Item::Delta),
            4 => Some(Item::Conflict),
            5 => Some(Item::Document),
            _ => None,
        };
        match (row.get::<_, i64>(0)?, item) {
            (0, _) => marks.push((Slot::Gateway, stamp)),
            (device, Some(item)) => {
                if let Some(device) = devices.get(&device) {
                    marks.push((Slot::Device(device.clone(), item), stamp));
                }
            }
            (_, None) => {}
        }
    }
    Ok(marks)
}

fn metas(connection: &Connection, upstream: i64) -> Result<Vec<Meta>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT class, floor, ceiling FROM spool_meta WHERE upstream = ?1")?;
    let rows = statement.query_map([upstream], |row| {
        let (floor, ceiling): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(class_of(row.get(0)?).map(|class| Meta {
            class,
            floor: floor.cast_unsigned(),
            ceiling: ceiling.cast_unsigned(),
        }))
    })?;
    rows.filter_map(Result::transpose).collect()
}

fn rows(connection: &Connection, upstream: i64, saved: &mut Saved) -> Result<(), rusqlite::Error> {
    let sql = "SELECT class, seq, bytes, born_ms, wall_ms FROM spool WHERE upstream = ?1 ORDER BY class, seq";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([upstream])?;
    while let Some(row) = rows.next()? {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        if let Some(class) = class_of(row.get(0)?) {
            saved.row(class, number(1)?, number(2)?, number(3)?, Timestamp::from_ms(row.get(4)?));
        }
    }
    Ok(())
}

fn gaps(connection: &Connection, upstream: i64) -> Result<Vec<Gap>, rusqlite::Error> {
    let sql = "SELECT class, from_seq, to_seq, reason FROM spool_gap WHERE upstream = ?1 ORDER BY class, from_seq";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([upstream], |row| {
        let (from, to): (i64, i64) = (row.get(1)?, row.get(2)?);
        let reason = gap_reason(&row.get::<_, String>(3)?);
        let gap = |class| Gap { class, from_seq: from.cast_unsigned(), to_seq: to.cast_unsigned(), reason };
        Ok(class_of(row.get(0)?).map(gap))
    })?;
    rows.filter_map(Result::transpose).collect()
}

fn memory(connection: &Connection, upstream: i64) -> Result<BTreeMap<String, String>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT key, value FROM memory WHERE upstream = ?1")?;
    let rows = statement.query_map([upstream], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Spooled readings in their order.
pub(super) fn readings(
    connection: &Connection,
    names: &Names,
    upstream: &str,
    load: &Load,
) -> Result<Vec<Row>, rusqlite::Error> {
    let (devices, properties) = (names.devices(), names.properties());
    let upstream = number(connection, upstream)?;
    let sql = "SELECT seq, device, property, payload, born_ms, wall_ms FROM spool \
               WHERE upstream = ?1 AND class = ?2 AND seq BETWEEN ?3 AND ?4 ORDER BY seq LIMIT ?5";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = i64::try_from(load.rows).unwrap_or(i64::MAX);
    let values = params![upstream, class_number(load.class), load.from.cast_signed(), load.upto.cast_signed(), limit];
    let rows = statement.query_map(values, |row| {
        let (device, property) = (devices.get(&row.get(1)?), properties.get(&row.get(2)?));
        let (Some(device), Some(property)) = (device.cloned(), property.cloned()) else { return Ok(None) };
        let payload: Vec<u8> = row.get(3)?;
        let reading = Streamed {
            class: load.class,
            seq: row.get::<_, i64>(0)?.cast_unsigned(),
            device,
            property,
            payload: Arc::from(payload),
        };
        let born_ms = row.get::<_, i64>(4)?.cast_unsigned();
        Ok(Some(Row { reading, born_ms, wall: Timestamp::from_ms(row.get(5)?) }))
    })?;
    rows.filter_map(Result::transpose).collect()
}
