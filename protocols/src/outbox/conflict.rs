//! Who wins when the cloud and somebody here wished different things while the link was away.
//!
//! In: a wish of the cloud, the local wishes that it has not heard of, the properties' rules. Out: what of the wish goes
//! through the door, and a record of every loser. Must never let anybody lose silently.
//!
//! A conflict is a wish of the cloud for a property whose desired value was changed by somebody else and has not been
//! acknowledged by that cloud: it cannot have known. The same value twice is no conflict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::profile::Conflict;
use crate::value::{Now, Timestamp, Value, same};

/// Records that a retained `twin/D/conflict` holds; older ones are given up, the count goes on.
pub const RECORDS: usize = 16;

/// 2020-01-01: a clock that says less was never set, and what it dated has no time.
const CLOCK_SET_MS: i64 = 1_577_836_800_000;

/// A desired value that the upstream has not acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// What is wished; `Null` when the wish was cleared.
    pub value: Value,
    /// Who wished it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The version of the desired section that brought it.
    pub version: u64,
}

/// A wish of the cloud.
#[derive(Clone, Copy, Debug)]
pub struct Wished<'a> {
    /// Property → value, `Null` clears.
    pub patch: &'a BTreeMap<String, Value>,
    /// When it was wished, where the cloud says so.
    pub at: Option<Timestamp>,
    /// Who wished it, as [`author`] has it.
    pub by: &'a str,
}

/// One side of a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// What it wished; `null` clears.
    pub value: Value,
    /// Who it was.
    pub by: String,
    /// When it was wished, as far as that is known.
    pub at: Option<Timestamp>,
}

/// Who won.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the contract's own words")]
pub enum Winner {
    Cloud,
    Local,
}

/// What became of one property that two sides wished differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// The property.
    pub property: String,
    /// The upstream.
    pub upstream: String,
    /// Its rule: `cloud`, `local` or `newest`.
    pub rule: String,
    /// Who won …
    pub winner: Winner,
    /// … and why.
    pub reason: String,
    /// What the cloud wished.
    pub cloud: Side,
    /// What was wished here.
    pub local: Side,
    /// The version of the desired section that brought the local wish.
    pub version: u64,
    /// When it was decided.
    pub at: Timestamp,
}

/// What becomes of a wish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// What of it goes through the door.
    pub patch: BTreeMap<String, Value>,
    /// Property → why the rest does not; for the answer, code 409.
    pub kept: BTreeMap<String, String>,
    /// One record for every property in conflict, whoever won.
    pub records: Vec<ConflictRecord>,
}

/// Who a cloud's wish is by: the upstream, and whom it names. A wish of the same upstream is known by it.
pub fn author(upstream: &str, by: Option<&str>) -> String {
    by.filter(|by| !by.is_empty()).map_or_else(|| upstream.to_owned(), |by| format!("{upstream}:{by}"))
}

/// Settles a wish property by property. `local` gives the desired value where this upstream has not acknowledged it,
/// `rule` the property's rule.
pub fn judge(
    wish: &Wished<'_>,
    upstream: &str,
    local: impl Fn(&str) -> Option<Held>,
    rule: impl Fn(&str) -> Conflict,
    now: Now,
) -> Judged {
    let mut judged = Judged::default();
    for (property, value) in wish.patch {
        let held = local(property).filter(|held| !is_by(&held.by, upstream) && !same(&held.value, value));
        let Some(held) = held else {
            judged.patch.insert(property.clone(), value.clone());
            continue;
        };
        let rule = rule(property);
        let (winner, reason) = decide(rule, wish.at, held.at, now);
        match winner {
            Winner::Cloud => drop(judged.patch.insert(property.clone(), value.clone())),
            Winner::Local => {
                let why = format!("{} by {} was kept: {reason}", held.value, held.by);
                judged.kept.insert(property.clone(), why);
            }
        }
        judged.records.push(ConflictRecord {
            property: property.clone(),
            upstream: upstream.to_owned(),
            rule: name(rule).to_owned(),
            winner,
            reason,
            cloud: Side { value: value.clone(), by: wish.by.to_owned(), at: wish.at },
            local: Side { value: held.value, by: held.by, at: Some(held.at) },
            version: held.version,
            at: now.wall,
        });
    }
    judged
}

fn is_by(by: &str, upstream: &str) -> bool {
    by.strip_prefix(upstream).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn name(rule: Conflict) -> &'static str {
    match rule {
        Conflict::Cloud => "cloud",
        Conflict::Local => "local",
        Conflict::Newest => "newest",
    }
}

fn decide(rule: Conflict, cloud: Option<Timestamp>, local: Timestamp, now: Now) -> (Winner, String) {
    let is_time = |at: &Timestamp| at.as_ms() >= CLOCK_SET_MS;
    match rule {
        Conflict::Cloud => (Winner::Cloud, "the rule is cloud".to_owned()),
        Conflict::Local => (Winner::Local, "the rule is local".to_owned()),
        Conflict::Newest => match (cloud.filter(is_time), Some(local).filter(is_time)) {
            (Some(cloud), Some(local)) => {
                // A wish from the future is as new as can be, and no newer.
                let cloud = if is_time(&now.wall) { cloud.min(now.wall) } else { cloud };
                let winner = if cloud >= local { Winner::Cloud } else { Winner::Local };
                (winner, format!("newest: {cloud} in the cloud, {local} here"))
            }
            (None, _) => (Winner::Cloud, "newest, but the cloud's wish has no time".to_owned()),
            (_, None) => (Winner::Cloud, "newest, but the local wish has no time".to_owned()),
        },
    }
}

/// `twin/D/conflict`, retained: the last conflicts of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conflicts {
    /// How many there were.
    pub count: u64,
    /// The last of them, the newest at the end.
    pub conflicts: Vec<ConflictRecord>,
}

impl Conflicts {
    /// Reads what was retained. What cannot be read counts as nothing: the records are news, not state.
    pub fn read(payload: &[u8]) -> Self {
        serde_json::from_slice(payload).unwrap_or_default()
    }

    /// Takes in new records.
    pub fn add(&mut self, records: &[ConflictRecord]) {
        self.count += records.len() as u64;
        self.conflicts.extend_from_slice(records);
        let over = self.conflicts.len().saturating_sub(RECORDS);
        self.conflicts.drain(..over);
    }

    /// As it is retained.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("records hold nothing that JSON cannot say")
    }
}

/// The payload of `twin/D/event` that tells of conflicts: no version moves by them, and they stand under `conflict`.
pub fn event(epoch: &str, version: u64, records: &[ConflictRecord], at: Timestamp) -> Vec<u8> {
    #[derive(Serialize)]
    struct ConflictEvent<'a> {
        epoch: &'a str,
        from: u64,
        to: u64,
        reported: BTreeMap<(), ()>,
        desired: BTreeMap<(), ()>,
        conflict: &'a [ConflictRecord],
        at: Timestamp,
    }
    let (reported, desired) = Default::default();
    let event = ConflictEvent { epoch, from: version, to: version, reported, desired, conflict: records, at };
    serde_json::to_vec(&event).expect("records hold nothing that JSON cannot say")
}
