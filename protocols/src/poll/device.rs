//! One device of a timetable: when each of its groups is due, and whether it answers.
//!
//! In: what became of what it was asked, and the tick. Out: changes of its health. Must never be asked before its hold is over.

use super::{Health, Timetable};

#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) table: Timetable,
    pub(super) slots: Vec<Option<Slot>>,
    pub(super) health: Health,
    pub(super) failures: u32,
    /// Nothing is sent to the device before this tick.
    pub(super) hold: u64,
    pub(super) init: bool,
    pub(super) write_at: Option<u64>,
    /// The group whose cycle is under way.
    pub(super) cycle: Option<usize>,
    /// Handed out by [`Poll::next`] and not yet told back.
    pub(super) asked: bool,
    pub(super) busy: u32,
    pub(super) probe_at: u64,
    pub(super) probe_pause: u64,
    pub(super) missed: u64,
    /// When it last gave any sign of life, or its silence began to count.
    pub(super) heard_at: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) interval: u64,
    pub(super) phase: u64,
    pub(super) due: u64,
}

impl Slot {
    /// Moves on to the next tick of the grid after `now`; gives how many were missed.
    pub(super) fn advance(&mut self, now: u64) -> u64 {
        let grid = |tick: u64| (tick.saturating_sub(self.phase)) / self.interval;
        let next = if now < self.phase { self.phase } else { (grid(now) + 1) * self.interval + self.phase };
        let missed = if self.due < self.phase { 0 } else { grid(now).saturating_sub(grid(self.due)) };
        self.due = next;
        missed
    }
}

impl Device {
    pub(super) fn answered(&mut self, now: u64) -> Option<Health> {
        self.failures = 0;
        self.heard_at = now;
        self.turn(Health::Online)
    }

    pub(super) fn failed(&mut self, now: u64) -> Option<Health> {
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.table.after_failures {
            // The others get their turn before this one costs the wire another time-out.
            let shortest = self.slots.iter().flatten().map(|slot| slot.interval).min();
            self.hold =
                now + shortest.map_or(self.table.probe_min_ms, |shortest| shortest.min(self.table.probe_min_ms));
            return None;
        }
        self.lose(now)
    }

    pub(super) fn lose(&mut self, now: u64) -> Option<Health> {
        self.cycle = None;
        self.init = self.table.init;
        self.probe_pause = self.table.probe_min_ms;
        self.probe_at = now + self.probe_pause;
        self.turn(Health::Offline)
    }

    /// When its silence becomes an absence.
    pub(super) fn silent_at(&self) -> Option<u64> {
        let silence = self.table.silence_ms.filter(|_| self.health != Health::Offline)?;
        Some(self.heard_at.saturating_add(silence))
    }

    pub(super) fn due_now(&mut self, now: u64) {
        self.asked = false;
        self.cycle = None;
        self.busy = 0;
        self.hold = now;
        self.init = self.table.init;
        for slot in self.slots.iter_mut().flatten() {
            slot.due = now;
        }
    }

    pub(super) fn turn(&mut self, health: Health) -> Option<Health> {
        let changed = self.health != health;
        self.health = health;
        changed.then_some(health)
    }
}
