//! Base rows and the journal after them: reading both as one, and folding the journal into the base.
//!
//! Replaying the journal over a base that holds some of it already gives the same end: the last row that names a leaf
//! decides. So a fold may stop after any device, and a crash in the middle of it costs nothing.

use std::collections::{BTreeMap, HashMap};

use protocols::message::ReportedOut;
use protocols::twin::{Leaf, Saved};
use rusqlite::{Connection, OptionalExtension, params};

use super::StoredTwin;
use super::leaves::{self, Body, Entry};
use super::open::Fault;
use super::rows::Names;

/// Devices of one step of a fold; a commit waits for one step at most.
const STEP_DEVICES: usize = 256;

/// A device's reported section, put together.
#[derive(Debug, Default)]
struct Image {
    version: u64,
    leaves: BTreeMap<i64, ReportedOut>,
}

impl Image {
    fn take(&mut self, entry: Entry) {
        self.version = self.version.max(entry.version);
        for (property, leaf) in entry.leaves {
            match leaf {
                Some(leaf) => drop(self.leaves.insert(property, leaf)),
                None => drop(self.leaves.remove(&property)),
            }
        }
    }

    fn body(&self, device: i64) -> Body {
        let leaves: Vec<_> = self.leaves.iter().map(|(property, leaf)| (*property, Some(leaf))).collect();
        let mut body = Body::new(leaves.iter().find_map(|(_, leaf)| Some(leaf.as_ref()?.at)));
        body.add(device, self.version, &leaves);
        body
    }
}

/// Reads all twins. With a `reserve` the last end was not clean: every version is raised by it, on disk as well.
pub(super) fn load(connection: &Connection, names: &Names, reserve: u64) -> Result<Vec<StoredTwin>, Fault> {
    let mut images: BTreeMap<i64, Image> = BTreeMap::new();
    for sql in ["SELECT body FROM base", "SELECT body FROM journal ORDER BY seq"] {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for entry in leaves::decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)? {
                images.entry(entry.device).or_default().take(entry);
            }
        }
    }
    let (devices, properties) = (names.devices(), names.properties());
    let mut twins: HashMap<i64, Saved> = HashMap::new();
    for (device, image) in &mut images {
        image.version += reserve;
        let saved = twins.entry(*device).or_default();
        saved.reported_version = image.version;
        for (property, leaf) in &image.leaves {
            let name = properties.get(property).ok_or(leaves::Unreadable)?;
            saved.reported.push((name.clone(), leaf.clone()));
        }
    }
    let mut statement = connection.prepare("SELECT device, property, body FROM desired")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (device, property): (i64, i64) = (row.get(0)?, row.get(1)?);
        let body: String = row.get(2)?;
        let leaf: Leaf = serde_json::from_str(&body).map_err(|error| Fault::Damaged(error.to_string()))?;
        let name = properties.get(&property).ok_or(leaves::Unreadable)?;
        twins.entry(device).or_default().desired.push((name.clone(), leaf));
    }
    if reserve > 0 {
        for (device, image) in images {
            put_base(connection, device, image)?;
        }
        connection.execute("DELETE FROM journal", [])?;
    }
    let named = |(device, saved): (i64, Saved)| Some(StoredTwin { device: devices.get(&device)?.clone(), saved });
    let mut twins: Vec<_> = twins.into_iter().filter_map(named).collect();
    twins.sort_by(|left, right| left.device.cmp(&right.device));
    Ok(twins)
}

fn put_base(connection: &Connection, device: i64, image: Image) -> Result<(), rusqlite::Error> {
    let sql = "INSERT OR REPLACE INTO base (device, body) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![device, image.body(device).bytes()]).map(drop)
}

/// Bytes of the journal and of the base.
pub(super) fn sizes(connection: &Connection) -> Result<(u64, u64), rusqlite::Error> {
    let size = |table: &str| {
        let sql = format!("SELECT coalesce(sum(length(body)), 0) FROM {table}");
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    };
    Ok((size("journal")?, size("base")?))
}

/// A fold on its way.
#[derive(Debug)]
pub(super) struct Fold {
    todo: BTreeMap<i64, Image>,
    /// The newest journal row that is part of it.
    last: i64,
}

impl Fold {
    /// Reads the journal as it is now. `None` when it is empty.
    pub(super) fn begin(connection: &Connection) -> Result<Option<Self>, Fault> {
        let mut fold = Self { todo: BTreeMap::new(), last: 0 };
        let mut statement = connection.prepare_cached("SELECT seq, body FROM journal ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            fold.last = row.get(0)?;
            for entry in leaves::decode(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)? {
                // Only what the journal says about a leaf is needed here; removals are kept apart from "nothing said"
                // by reading the base row first.
                match fold.todo.entry(entry.device) {
                    std::collections::btree_map::Entry::Occupied(slot) => slot.into_mut().take(entry),
                    std::collections::btree_map::Entry::Vacant(slot) => {
                        let mut image = base(connection, entry.device)?;
                        image.take(entry);
                        slot.insert(image);
                    }
                }
            }
        }
        Ok((fold.last > 0).then_some(fold))
    }

    /// Writes some devices' base rows inside the current transaction; says whether the fold is finished.
    pub(super) fn step(&mut self, connection: &Connection) -> Result<bool, rusqlite::Error> {
        for _ in 0..STEP_DEVICES {
            let Some((device, image)) = self.todo.pop_first() else { break };
            put_base(connection, device, image)?;
        }
        if !self.todo.is_empty() {
            return Ok(false);
        }
        connection.prepare_cached("DELETE FROM journal WHERE seq <= ?1")?.execute([self.last])?;
        Ok(true)
    }
}

fn base(connection: &Connection, device: i64) -> Result<Image, Fault> {
    let mut statement = connection.prepare_cached("SELECT body FROM base WHERE device = ?1")?;
    let body: Option<Vec<u8>> = statement.query_row([device], |row| row.get(0)).optional()?;
    let mut image = Image::default();
    for entry in body.map(|body| leaves::decode(&body)).transpose()?.into_iter().flatten() {
        image.take(entry);
    }
    Ok(image)
}
