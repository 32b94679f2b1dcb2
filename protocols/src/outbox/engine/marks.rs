//! The marks: what is on disk of what the other side has.
//!
//! In: slots that become dirty, that are settled, that are gone. Out: rows to store, in groups. Must never let the disk
//! be bolder than the truth.
//!
//! A mark is `MAYBE` before a slot is said for the first time, and stays so while it is busy: nothing is written for
//! values that come and go, for the flash card's sake. A slot that rests for [`QUIET_MS`] gets an exact mark, which
//! is taken back before the slot is said again. So a gateway that was killed says again what was busy in the last
//! hour, and nothing else; and a store that lost its last second cannot make an old value look acknowledged.

use std::collections::BTreeSet;

use super::cell::{Cell, Disk, There};
use super::{Outbox, Owner, slot};
use crate::outbox::{Item, Slot, Stamp};
use crate::value::Now;

/// A slot that was acknowledged this long ago, and did not change since, gets an exact mark.
pub(in crate::outbox) const QUIET_MS: u64 = 3_600_000;

/// How often quiet slots are looked for.
const SWEEP_MS: u64 = 600_000;

/// Marks of deleted slots wait this long for company.
const FORGET_MS: u64 = 5_000;

/// After a failure the store is left alone for this long.
const RETRY_MS: u64 = 1_000;

/// Failures in a row after which slots are said without a mark: a full disk must not silence the gateway. What is given
/// up until the store recovers: after a `kill -9`, a value that went back to an older one may stay wrong over there.
const PATIENCE: u32 = 5;

/// Rows of one transaction; the rest follows in the next.
const ROWS: usize = 4096;

/// What has to be stored, and what is being stored.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Slots whose mark has to admit that something may be there.
    intents: BTreeSet<(Owner, Item)>,
    /// Slots that are gone on both sides.
    gone: BTreeSet<(Owner, Item)>,
    gone_due: Option<u64>,
    /// In the store's hands.
    handed: Vec<(Slot, Option<Stamp>)>,
    failures: u32,
    not_before: u64,
    sweep_at: u64,
}

impl Books {
    /// A slot became dirty.
    pub(super) fn need(&mut self, owner: &Owner, item: &Item, cell: &Cell) {
        if owner.is_some() && cell.is_dirty() && cell.disk != Disk::Maybe {
            self.intents.insert((owner.clone(), item.clone()));
        }
    }

    /// A slot is gone.
    pub(super) fn forget(&mut self, owner: &Owner, item: &Item) {
        if owner.is_some() {
            self.gone.insert((owner.clone(), item.clone()));
        }
    }

    /// Whether the disk knows enough for the slot to be said.
    pub(super) fn may_say(&self, owner: &Owner, cell: &Cell) -> bool {
        owner.is_none() || cell.disk == Disk::Maybe || self.failures >= PATIENCE
    }

    /// When there is something to store: a tick, if that is known.
    pub(super) fn due(&self) -> Option<u64> {
        if !self.handed.is_empty() {
            return None;
        }
        let intents = (!self.intents.is_empty()).then_some(0);
        [intents, self.gone_due].into_iter().flatten().min().map(|due| due.max(self.not_before))
    }
}

impl Outbox {
    /// Marks to store in one transaction, `None` to delete one. Then comes [`Outbox::marks_stored`] or
    /// [`Outbox::marks_failed`]; until then there are no more.
    pub fn marks(&mut self, now: Now) -> Vec<(Slot, Option<Stamp>)> {
        if !self.books.handed.is_empty() || now.tick < self.books.not_before {
            return Vec::new();
        }
        let mut rows = Vec::new();
        while rows.len() < ROWS
            && let Some((owner, item)) = self.books.intents.pop_first()
        {
            let cell = self.lanes.get(&owner).and_then(|lane| lane.cells.get(&item));
            if cell.is_some_and(|cell| cell.is_dirty() && cell.disk != Disk::Maybe) {
                rows.push((slot(&owner, &item), Some(Stamp::MAYBE)));
            }
        }
        self.take_gone(&mut rows, now);
        if now.tick >= self.books.sweep_at {
            self.sweep(QUIET_MS, ROWS, &mut rows, now);
            self.books.sweep_at = now.tick.saturating_add(if rows.len() < ROWS { SWEEP_MS } else { FORGET_MS });
        }
        self.books.handed.clone_from(&rows);
        rows
    }

    /// What [`Outbox::marks`] gave is on disk.
    pub fn marks_stored(&mut self, now: Now) {
        let patient = self.books.failures < PATIENCE;
        self.books.failures = 0;
        for (slot, stamp) in std::mem::take(&mut self.books.handed) {
            let (owner, item) = super::split(slot);
            if stamp != Some(Stamp::MAYBE) {
                continue;
            }
            match self.lanes.get_mut(&owner).and_then(|lane| lane.cells.get_mut(&item)) {
                Some(cell) => {
                    cell.disk = Disk::Maybe;
                    self.requeue_for(&owner, &item, now);
                }
                // It went away while its mark was on the way.
                None => self.books.forget(&owner, &item),
            }
        }
        if !patient {
            self.requeue_all(now);
        }
    }

    /// What [`Outbox::marks`] gave could not be stored. It is given again after a pause.
    pub fn marks_failed(&mut self, now: Now) {
        self.books.failures = self.books.failures.saturating_add(1);
        self.books.not_before = now.tick.saturating_add(RETRY_MS);
        for (slot, stamp) in std::mem::take(&mut self.books.handed) {
            let (owner, item) = super::split(slot);
            match (stamp, self.lanes.get(&owner).and_then(|lane| lane.cells.get(&item))) {
                (Some(_), Some(cell)) => self.books.need(&owner, &item, cell),
                (_, None) => self.books.forget(&owner, &item),
                (None, Some(_)) => {}
            }
        }
        if self.books.failures == PATIENCE {
            self.requeue_all(now);
        }
    }

    /// Marks to store at a clean stop, after which nothing is said any more: what rests, however shortly, is exact.
    pub fn last_marks(&mut self, now: Now) -> Vec<(Slot, Option<Stamp>)> {
        let mut rows = std::mem::take(&mut self.books.handed);
        self.books.gone_due = Some(0);
        while !self.books.gone.is_empty() {
            let mut some = Vec::new();
            self.take_gone(&mut some, now);
            rows.append(&mut some);
        }
        self.sweep(0, usize::MAX, &mut rows, now);
        rows
    }

    fn take_gone(&mut self, rows: &mut Vec<(Slot, Option<Stamp>)>, now: Now) {
        if self.books.gone.is_empty() {
            return;
        }
        let due = *self.books.gone_due.get_or_insert(now.tick.saturating_add(FORGET_MS));
        if now.tick < due && rows.is_empty() {
            return;
        }
        while rows.len() < ROWS
            && let Some((owner, item)) = self.books.gone.pop_first()
        {
            if self.lanes.get(&owner).is_none_or(|lane| !lane.cells.contains_key(&item)) {
                rows.push((slot(&owner, &item), None));
            }
        }
        self.books.gone_due = (!self.books.gone.is_empty()).then_some(now.tick);
    }

    /// Gives exact marks to slots that rest since `quiet_ms`. The slot is taken for marked at once: from now on it is
    /// said only after the mark was taken back.
    fn sweep(&mut self, quiet_ms: u64, most: usize, rows: &mut Vec<(Slot, Option<Stamp>)>, now: Now) {
        for (owner, lane) in self.lanes.iter_mut().filter(|(owner, _)| owner.is_some()) {
            for (item, cell) in &mut lane.cells {
                let There::Exactly(stamp) = cell.there else { continue };
                // At the end nothing is said any more, so that what is known of a dirty slot is exact as well.
                let rests = quiet_ms == 0
                    || !cell.is_dirty() && cell.heard && now.tick.saturating_sub(cell.settled_at) >= quiet_ms;
                if rests && cell.disk != Disk::Exactly(stamp) && rows.len() < most {
                    cell.disk = Disk::Exactly(stamp);
                    rows.push((slot(owner, item), Some(stamp)));
                }
            }
        }
    }
}
