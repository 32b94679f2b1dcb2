//! A store, a gateway and a receiver around a spool, with books of what was pushed, received and told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::{Class, Gap, Load, Meta, Pace, Row, Saved, Sending, Spool, StoreOp};
use crate::config::upstream::SpoolLimits;
use crate::value::{Now, Timestamp};

pub(super) const DAY_MS: u64 = 86_400_000;
/// 2026-11-22T12:00.
pub(super) const NOON_MS: i64 = 1_795_348_800_000;

pub(super) type Key = (Class, u64);

/// A store, a gateway and a receiver.
pub(super) struct World {
    pub(super) now: Now,
    pub(super) limits: SpoolLimits,
    pub(super) batch_bytes: usize,
    pub(super) spool: Spool,
    pub(super) pace: Pace,
    pub(super) up: bool,
    pub(super) rows: BTreeMap<Key, Row>,
    pub(super) metas: BTreeMap<Class, Meta>,
    pub(super) gaps: BTreeMap<Key, Gap>,
    pub(super) storing: Vec<StoreOp>,
    pub(super) loading: Option<Load>,
    pub(super) flying: Vec<Sending>,
    /// Sendings in flight whose readings are sent again, because one before them was refused.
    pub(super) again: BTreeSet<u64>,
    pub(super) writes: usize,
    /// Every reading that was pushed, by its number, with its name.
    pub(super) pushed: BTreeMap<Key, String>,
    pub(super) received: BTreeMap<Key, String>,
    pub(super) told: BTreeMap<Key, Gap>,
    pub(super) readings: u64,
}

impl World {
    pub(super) fn new(bytes: u64, batch_bytes: usize) -> Self {
        let limits =
            SpoolLimits { bytes, alarms: Duration::from_millis(7 * DAY_MS), readings: Duration::from_millis(DAY_MS) };
        let now = Now { tick: 5, wall: Timestamp::from_ms(NOON_MS) };
        Self {
            now,
            spool: Spool::new(&limits, batch_bytes, Saved::default(), now),
            limits,
            batch_bytes,
            pace: Pace::new(0, 0),
            up: false,
            rows: BTreeMap::new(),
            metas: BTreeMap::new(),
            gaps: BTreeMap::new(),
            storing: Vec::new(),
            loading: None,
            flying: Vec::new(),
            again: BTreeSet::new(),
            writes: 0,
            pushed: BTreeMap::new(),
            received: BTreeMap::new(),
            told: BTreeMap::new(),
            readings: 0,
        }
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now.tick += ms;
        self.now.wall = Timestamp::from_ms(self.now.wall.as_ms() + i64::try_from(ms).unwrap());
    }

    pub(super) fn push(&mut self, class: Class, bytes: usize) {
        self.readings += 1;
        let name = format!("{:0bytes$}", self.readings);
        let payload: Arc<[u8]> = Arc::from(name.as_bytes());
        let next = self.next_number(class);
        self.spool.push(class, "d".parse().unwrap(), "p".parse().unwrap(), payload, self.now);
        assert!(self.pushed.insert((class, next), name).is_none(), "a number is used once");
    }

    pub(super) fn next_number(&mut self, class: Class) -> u64 {
        self.spool.queue(class).next
    }

    /// One step of the store: hands over, or ends what it has in hands.
    pub(super) fn store(&mut self, works: bool) {
        if self.storing.is_empty() {
            self.storing = self.spool.ops(self.now);
        } else if works {
            self.commit();
            self.spool.stored(self.now);
        } else {
            self.storing.clear();
            self.spool.store_failed(self.now);
        }
    }

    /// Hands over, and it is on disk.
    pub(super) fn stored(&mut self) {
        self.store(true);
        self.store(true);
    }

    pub(super) fn commit(&mut self) {
        self.writes += usize::from(!self.storing.is_empty());
        for op in std::mem::take(&mut self.storing) {
            match op {
                StoreOp::Append(rows) => self.rows.extend(rows.into_iter().map(|row| (key(&row), row))),
                StoreOp::Delete { class, from, upto } => {
                    self.rows.retain(|(of, seq), _| *of != class || !(from..=upto).contains(seq));
                }
                StoreOp::Meta(meta) => drop(self.metas.insert(meta.class, meta)),
                StoreOp::Gap(gap) => drop(self.gaps.insert((gap.class, gap.from_seq), gap)),
                StoreOp::GapGone { class, from_seq } => drop(self.gaps.remove(&(class, from_seq))),
            }
        }
    }

    pub(super) fn load(&mut self) {
        match self.loading.take() {
            None => self.loading = self.spool.load(),
            Some(Load { class, from, upto, rows }) => {
                let range = self.rows.range((class, from)..=(class, upto));
                let rows = range.take(rows).map(|(_, row)| row.clone()).collect();
                self.spool.loaded(class, rows, self.now);
            }
        }
    }

    pub(super) fn send(&mut self) -> bool {
        match self.spool.next(&mut self.pace, self.now) {
            Sending::WaitUntil(_) => false,
            sending => {
                assert!(self.up);
                if let Some((_, class, first, _)) = ends(&sending) {
                    let mut beside = self.flying.iter().filter_map(ends).filter(|(id, ..)| !self.again.contains(id));
                    let is_behind = beside.all(|(_, of, _, last)| of != class || last < first);
                    assert!(is_behind, "a class is sent in order: {sending:?} beside {:?}", self.flying);
                }
                self.flying.push(sending);
                true
            }
        }
    }

    /// A sending arrives, or does not, and is acknowledged, or not.
    pub(super) fn arrive(&mut self, which: usize, arrives: bool, acknowledged: bool) {
        if self.flying.is_empty() {
            return;
        }
        let sending = self.flying.remove(which % self.flying.len());
        if let Some((id, class, ..)) = ends(&sending).filter(|_| !(arrives && acknowledged))
            && !self.again.contains(&id)
        {
            let beside = self.flying.iter().filter_map(ends).filter(|(_, of, ..)| *of == class);
            self.again.extend(beside.map(|(id, ..)| id));
        }
        let id = match sending {
            Sending::Readings { id, readings, .. } => {
                for reading in readings.into_iter().filter(|_| arrives) {
                    let name = String::from_utf8(reading.payload.to_vec()).unwrap();
                    let known = self.received.insert((reading.class, reading.seq), name.clone());
                    assert!(known.is_none_or(|known| known == name), "a number names one reading");
                }
                id
            }
            Sending::Gap { id, gap } => {
                if arrives {
                    self.told.insert((gap.class, gap.from_seq), gap);
                }
                id
            }
            Sending::WaitUntil(_) => unreachable!("never in flight"),
        };
        self.spool.settled(id, arrives && acknowledged, self.now);
    }

    pub(super) fn link(&mut self, up: bool) {
        if up == self.up {
            return;
        }
        self.up = up;
        self.flying.clear();
        match up {
            true => self.spool.link_up(self.now),
            false => self.spool.link_down(self.now),
        }
    }

    pub(super) fn kill(&mut self, committed: bool) {
        if committed {
            self.commit();
        }
        self.storing.clear();
        // Before the first ceiling is on disk there is nothing that could remember them.
        let ceiling = |class: Class| self.metas.get(&class).map_or(1, |meta| meta.ceiling);
        let received = &self.received;
        self.pushed.retain(|key, _| {
            assert!(key.1 < ceiling(key.0) || !received.contains_key(key), "sent above the ceiling");
            key.1 < ceiling(key.0)
        });
        self.start();
    }

    pub(super) fn restart(&mut self) {
        self.commit();
        self.storing = self.spool.last_ops(self.now);
        self.commit();
        self.start();
    }

    pub(super) fn start(&mut self) {
        let mut saved = Saved {
            metas: self.metas.values().copied().collect(),
            gaps: self.gaps.values().cloned().collect(),
            ..Saved::default()
        };
        for ((class, seq), row) in &self.rows {
            saved.row(*class, *seq, row.bytes() as u64, row.born_ms, row.wall);
        }
        self.spool = Spool::new(&self.limits, self.batch_bytes, saved, self.now);
        self.up = false;
        self.loading = None;
        self.flying.clear();
        // a new spool begins with its ids anew
        self.again.clear();
    }

    pub(super) fn settle(&mut self) {
        self.link(true);
        for _ in 0..2_000 {
            self.wait(300);
            self.stored();
            self.load();
            self.load();
            while self.send() || !self.flying.is_empty() {
                self.arrive(0, true, true);
            }
            let counts = self.spool.counts(self.now);
            if counts.rows == 0 && self.storing.is_empty() && self.spool.queues.iter().all(|queue| queue.is_told()) {
                return;
            }
        }
        panic!("it never becomes quiet: {:?} {:#?}", self.spool.counts(self.now), self.spool);
    }

    pub(super) fn check(&self) {
        for key in self.pushed.keys() {
            let gaps =
                self.told.values().filter(|gap| gap.class == key.0 && (gap.from_seq..=gap.to_seq).contains(&key.1));
            match (self.received.contains_key(key), gaps.count()) {
                (true, 0 | 1) | (false, 1) => {}
                (received, gaps) => panic!("{key:?}: received {received}, in {gaps} gaps of {:?}", self.told),
            }
        }
    }
}

/// Id, class, first and last number of a sending.
pub(super) fn ends(sending: &Sending) -> Option<(u64, Class, u64, u64)> {
    match sending {
        Sending::Readings { id, class, readings } => Some((*id, *class, readings.first()?.seq, readings.last()?.seq)),
        Sending::Gap { .. } | Sending::WaitUntil(_) => None,
    }
}

pub(super) fn key(row: &Row) -> Key {
    (row.reading.class, row.reading.seq)
}
