//! What a queue gives up, and the gaps that say so.
//!
//! In: age, lack of room, numbers that the store does not have. Out: gaps that name every number. Must never touch what
//! is in flight.

use std::collections::VecDeque;

use super::super::{EXPIRED, FULL, Gap, LOST, Row, Segment};
use super::{Open, Queue};

/// Gaps that wait to be told; beyond it neighbours are told as one, with the newer reason.
const GAPS: usize = 64;

impl Queue {
    /// Numbers of the last run that are neither on disk nor in a gap.
    pub(super) fn find_lost(&mut self, mut from: u64, ceiling: u64) {
        let told: Vec<(u64, u64)> = self.gaps.iter().map(|open| (open.gap.from_seq, open.gap.to_seq)).collect();
        for (first, last) in told.into_iter().chain([(ceiling, ceiling)]) {
            if from < first.min(ceiling) {
                self.give_up(from, first.min(ceiling) - 1, LOST);
                self.meta_due = true;
            }
            from = from.max(last + 1);
        }
    }

    /// Rows that the store lost.
    pub(super) fn missing(&mut self, from: u64, upto: u64) {
        let lost = |run: &Segment| (run.first.max(from), run.last.min(upto));
        let lost: Vec<_> = self.segments.iter().map(lost).filter(|(first, last)| first <= last).collect();
        for (first, last) in lost {
            self.cut(first, last);
            self.give_up(first, last, LOST);
        }
    }

    /// Takes numbers out of the segments. What is left of one is taken for as large as its part of the rows.
    fn cut(&mut self, from: u64, upto: u64) {
        let mut left = VecDeque::with_capacity(self.segments.len() + 1);
        for run in self.segments.drain(..) {
            let rows = run.last + 1 - run.first;
            let part = |first: u64, last: u64| {
                let bytes = run.bytes / rows * (last + 1).saturating_sub(first);
                (first <= last).then(|| Segment { first, last, bytes, ..run.clone() })
            };
            if run.last < from || run.first > upto {
                left.push_back(run);
                continue;
            }
            left.extend(part(run.first, run.last.min(from.saturating_sub(1))));
            left.extend(part(run.first.max(upto + 1), run.last));
        }
        self.segments = left;
        self.segment_bytes = self.segments.iter().map(|run| run.bytes).sum();
    }

    /// Gives up what is too old, but for what is in flight.
    pub(in super::super) fn expire(&mut self, clock: u64) {
        self.clock = clock;
        let old = |born: u64, ttl: u64| clock.saturating_sub(born) > ttl;
        let flying = self.flying_end();
        while self.segments.iter().find(|run| run.last > flying).is_some_and(|run| old(run.newest_ms, self.ttl_ms)) {
            if !self.give_up_oldest(EXPIRED) {
                break;
            }
        }
        while let Some(row) = self.head.front().filter(|row| old(row.born_ms, self.ttl_ms)).cloned() {
            self.head.pop_front();
            self.head_bytes = self.head_bytes.saturating_sub(row.bytes());
            if self.on_disk {
                self.cut(row.reading.seq, row.reading.seq);
                self.delete(row.reading.seq, row.reading.seq);
            }
            self.give_up(row.reading.seq, row.reading.seq, EXPIRED);
        }
        while self.segments.is_empty()
            && self.tail.get(self.handed).is_some_and(|row| old(row.born_ms, self.ttl_ms))
            && self.give_up_staged(EXPIRED)
        {}
    }

    /// Gives up the oldest run on disk, or the oldest row that waits for the disk; what is in flight stays. Says whether
    /// there was one.
    pub(in super::super) fn give_up_oldest(&mut self, reason: &'static str) -> bool {
        let flying = self.flying_end();
        let Some(at) = self.segments.iter().position(|run| run.last > flying) else {
            return self.give_up_staged(reason);
        };
        let Some(run) = self.segments.get(at) else { return false };
        let (from, upto) = (run.first.max(flying + 1), run.last);
        self.cut(from, upto);
        self.delete(from, upto);
        self.head.retain(|row| !(from..=upto).contains(&row.reading.seq));
        self.head_bytes = self.head.iter().map(Row::bytes).sum();
        self.give_up(from, upto, reason);
        true
    }

    pub(super) fn give_up_staged(&mut self, reason: &'static str) -> bool {
        let flying = self.flying_end();
        let Some(at) = self.tail.iter().skip(self.handed).position(|row| row.reading.seq > flying) else {
            return false;
        };
        let Some(row) = self.tail.remove(self.handed + at) else { return false };
        self.tail_bytes = self.tail_bytes.saturating_sub(row.bytes());
        self.give_up(row.reading.seq, row.reading.seq, reason);
        true
    }

    /// Tells of a gap.
    pub(in super::super) fn give_up(&mut self, from_seq: u64, to_seq: u64, reason: &'static str) {
        let counter = match reason {
            EXPIRED => &mut self.expired,
            FULL => &mut self.full,
            _ => &mut self.lost,
        };
        *counter += to_seq - from_seq + 1;
        let flying = self.gap_flying.map(|(_, from)| from);
        let crowded = self.gaps.len() >= GAPS;
        let joins =
            |gap: &Gap| gap.to_seq + 1 == from_seq && (gap.reason == reason || crowded) && flying != Some(gap.from_seq);
        match self.gaps.iter_mut().find(|open| joins(&open.gap)) {
            Some(Open { gap, .. }) => {
                gap.to_seq = to_seq;
                gap.reason = reason;
            }
            None => {
                let gap = Gap { class: self.class, from_seq, to_seq, reason };
                self.gaps.push_back(Open { gap, stored: None });
            }
        }
    }
}
