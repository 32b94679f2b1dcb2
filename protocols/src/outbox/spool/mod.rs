//! Readings somebody wants to keep, every one of them: a log per class that is in memory while the link keeps up and on
//! disk while it does not.
//!
//! In: readings, what the store holds and loads, what the other side acknowledged, time. Out: rows to store and to load,
//! readings and gaps to send. Must never lose a reading without a gap that names it, never use a number twice, and never
//! write to the flash card while the link keeps up.
//!
//! * Numbers below a ceiling that is on disk may be sent. After a `kill -9` numbers go on from the ceiling, and what
//!   may have been in memory is a gap, `lost`.
//! * Two sendings per class may be in flight; a class is acknowledged in order, and no class waits for another.
//! * The age of a reading is counted on a clock of the spool's own that runs with the tick: a wall clock that jumps
//!   expires nothing. The time switched off counts as far as the wall clock was set before and after.

mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use queue::Queue;

use super::{Class, EXPIRED, FULL, Gap, LOST, Pace, Streamed};
use crate::config::upstream::SpoolLimits;
use crate::name::{DeviceId, PropertyName};
use crate::value::{Now, Timestamp};

/// What a row costs beside its payload, in bytes: numbers, names, the index of the store, roughly.
pub const ROW_BYTES: usize = 96;

/// Bytes of one class that wait in memory for the disk, while it is slower than a flood of readings; beyond it the oldest are
/// given up. With a disk that keeps up a few thousand bytes wait here.
pub const MEMORY_BYTES: usize = 8 << 20;

/// Bytes of one class that wait in memory for a link that is up; beyond it the class goes to disk.
const SPILL_BYTES: usize = 1 << 20;

/// Bytes of one transaction; the rest follows in the next.
const STORE_BYTES: usize = 2 << 20;

/// A reading that waits this long for the link, which is up, goes to disk.
pub const SLOW_MS: u64 = 10_000;

/// Rows of one sending, and of one load.
pub const ROWS_AT_ONCE: usize = 256;

/// While alarms wait, a sending of metrics is this many times smaller.
const SHARE: usize = 8;

/// After a failure the store is left alone for this long.
const RETRY_MS: u64 = 1_000;

/// The time switched off counts up to this: beyond it the clock is more likely to be wrong than the gateway to be off.
const LONGEST_OFF_MS: u64 = 400 * 24 * 3_600_000;

/// 2020-01-01: a wall clock that says less was never set.
const CLOCK_SET_MS: i64 = 1_577_836_800_000;

/// A reading as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The reading.
    pub reading: Streamed,
    /// When it came, by the spool's own clock, in milliseconds.
    pub born_ms: u64,
    /// When it came, by the wall clock.
    pub wall: Timestamp,
}

impl Row {
    /// What it counts against the cap.
    pub fn bytes(&self) -> usize {
        let Streamed { device, property, payload, .. } = &self.reading;
        payload.len() + device.as_str().len() + property.as_str().len() + ROW_BYTES
    }
}

/// A run of stored rows with no number missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The class.
    pub class: Class,
    /// First and …
    pub first: u64,
    /// … last number.
    pub last: u64,
    /// Sum of [`Row::bytes`].
    pub bytes: u64,
    /// `born_ms` of the first and …
    pub oldest_ms: u64,
    /// … of the last row.
    pub newest_ms: u64,
    /// Wall clock of the last row.
    pub wall: Timestamp,
}

/// The most rows of a segment, which is given up as a whole when there is no room.
const SEGMENT_ROWS: u64 = 256;

impl Segment {
    /// Puts one more row at the end, if it belongs there.
    fn takes(&mut self, row: &Segment) -> bool {
        let fits = self.class == row.class && self.last + 1 == row.first && self.last + 1 - self.first < SEGMENT_ROWS;
        if fits {
            self.last = row.last;
            self.bytes += row.bytes;
            self.newest_ms = self.newest_ms.max(row.newest_ms);
            self.wall = row.wall;
        }
        fits
    }
}

/// What is on disk of a class's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The class.
    pub class: Class,
    /// Every number below is acknowledged, on disk, or in a gap.
    pub floor: u64,
    /// No number from here on was ever sent.
    pub ceiling: u64,
}

/// What was stored. [`Saved::default`] is a new store, or a new epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// One for each class that ever had a reading.
    pub metas: Vec<Meta>,
    /// The rows, in runs; [`Saved::row`] makes them.
    pub segments: Vec<Segment>,
    /// Gaps that were not acknowledged yet.
    pub gaps: Vec<Gap>,
}

impl Saved {
    /// Takes in one stored row; to be called by class and rising number. `bytes` is [`Row::bytes`].
    pub fn row(&mut self, class: Class, seq: u64, bytes: u64, born_ms: u64, wall: Timestamp) {
        let row = Segment { class, first: seq, last: seq, bytes, oldest_ms: born_ms, newest_ms: born_ms, wall };
        if !self.segments.last_mut().is_some_and(|last| last.takes(&row)) {
            self.segments.push(row);
        }
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOp {
    /// Insert these rows.
    Append(Vec<Row>),
    /// Delete the rows `from..=upto` of a class.
    Delete {
        /// The class.
        class: Class,
        /// First and …
        from: u64,
        /// … last number; numbers between that have no row are no trouble.
        upto: u64,
    },
    /// Replace the class's row.
    Meta(Meta),
    /// Insert or replace a gap; class and `from_seq` name it.
    Gap(Gap),
    /// Delete it.
    GapGone {
        /// The class.
        class: Class,
        /// Its first number.
        from_seq: u64,
    },
}

/// Rows to read: `from..=upto` by rising number, at most `rows` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The class.
    pub class: Class,
    /// First and …
    pub from: u64,
    /// … last number.
    pub upto: u64,
    /// How many.
    pub rows: usize,
}

/// What to send next.
#[derive(Clone, Debug, PartialEq)]
pub enum Sending {
    /// These readings, oldest first.
    Readings {
        /// Names the sending until it is settled.
        id: u64,
        /// Their class.
        class: Class,
        /// The readings.
        readings: Vec<Streamed>,
    },
    /// The word that readings were given up.
    Gap {
        /// Names the sending until it is settled.
        id: u64,
        /// What was given up.
        gap: Gap,
    },
    /// Nothing before this tick, unless something happens.
    WaitUntil(Option<u64>),
}

/// How a spool stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Readings that wait, in memory and on disk.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes in memory.
    pub memory_bytes: usize,
    /// Age of the oldest that waits, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// Readings sent and acknowledged.
    pub sent: u64,
    /// Readings given up because they were too old.
    pub expired: u64,
    /// Readings given up because there was no room.
    pub full: u64,
    /// Numbers that may have been lost when the gateway was killed.
    pub lost: u64,
    /// Whether new readings go to disk.
    pub on_disk: bool,
}

/// The spool of one upstream.
#[derive(Debug)]
pub struct Spool {
    cap: u64,
    batch_bytes: usize,
    queues: [Queue; 2],
    /// The spool's clock at the tick when it was made.
    base_ms: u64,
    base_tick: u64,
    up: bool,
    last_id: u64,
    /// In the store's hands.
    handed: Vec<StoreOp>,
    not_before: u64,
}

impl Spool {
    /// A spool over what is stored of it. Sendings are of at most about `batch_bytes` bytes.
    pub fn new(limits: &SpoolLimits, batch_bytes: usize, saved: Saved, now: Now) -> Self {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let newest = saved.segments.iter().max_by_key(|segment| segment.newest_ms);
        let base_ms = newest.map_or(0, |segment| segment.newest_ms + off_time(segment.wall, now.wall));
        let queue = |class: Class, ttl_ms| Queue::new(class, ttl_ms, &saved);
        let mut spool = Self {
            cap: limits.bytes,
            batch_bytes: batch_bytes.max(1),
            queues: [queue(Class::Alarm, ms(limits.alarms)), queue(Class::Metric, ms(limits.readings))],
            base_ms,
            base_tick: now.tick,
            up: false,
            last_id: 0,
            handed: Vec::new(),
            not_before: 0,
        };
        spool.make_room();
        spool
    }

    /// Takes a reading in.
    pub fn push(&mut self, class: Class, device: DeviceId, property: PropertyName, payload: Arc<[u8]>, now: Now) {
        let (born_ms, up) = (self.clock(now), self.up);
        let queue = self.queue(class);
        let seq = queue.take_number();
        let reading = Streamed { class, seq, device, property, payload };
        queue.push(Row { reading, born_ms, wall: now.wall }, up);
        self.make_room();
    }

    /// Readings were lost before they came here, nobody knows how many: one number stands for them, and is a gap.
    pub fn missed(&mut self, class: Class) {
        let queue = self.queue(class);
        let seq = queue.take_number();
        queue.give_up(seq, seq, LOST);
    }

    /// The link is up and may be used.
    pub fn link_up(&mut self, _now: Now) {
        self.up = true;
        self.queues.iter_mut().for_each(|queue| queue.rest(true));
    }

    /// The link is gone: what was in flight is to be sent again, and what is in memory goes to disk.
    pub fn link_down(&mut self, _now: Now) {
        self.up = false;
        self.queues.iter_mut().for_each(Queue::link_down);
    }

    /// What to store now, in one transaction and in this order; then comes [`Spool::stored`] or
    /// [`Spool::store_failed`], and until then there is no more. Empty when nothing has to be stored yet.
    pub fn ops(&mut self, now: Now) -> Vec<StoreOp> {
        if !self.handed.is_empty() || now.tick < self.not_before {
            return Vec::new();
        }
        self.expire(now);
        let (clock, up) = (self.clock(now), self.up);
        let due = self.queues.iter_mut().any(|queue| {
            queue.slow(clock);
            queue.rest(up);
            queue.due_ms(clock).is_some_and(|due| due <= clock)
        });
        if due {
            self.handed = self.queues.iter_mut().flat_map(Queue::ops).collect();
        }
        self.handed.clone()
    }

    /// What [`Spool::ops`] gave is on disk.
    pub fn stored(&mut self, now: Now) {
        for op in std::mem::take(&mut self.handed) {
            let class = match &op {
                StoreOp::Append(rows) => rows.first().map_or(Class::Metric, |row| row.reading.class),
                StoreOp::Delete { class, .. } | StoreOp::GapGone { class, .. } => *class,
                StoreOp::Meta(meta) => meta.class,
                StoreOp::Gap(gap) => gap.class,
            };
            self.queue(class).stored(op);
        }
        let up = self.up;
        self.queues.iter_mut().for_each(|queue| queue.rest(up));
        self.expire(now);
        self.make_room();
    }

    /// What [`Spool::ops`] gave could not be stored; it is given again after a pause.
    pub fn store_failed(&mut self, now: Now) {
        self.not_before = now.tick.saturating_add(RETRY_MS);
        for op in std::mem::take(&mut self.handed) {
            self.queues.iter_mut().for_each(|queue| queue.not_stored(&op));
        }
        self.make_room();
    }

    /// Rows to load, if there are some to be sent; then comes [`Spool::loaded`].
    pub fn load(&mut self) -> Option<Load> {
        if !self.up {
            return None;
        }
        self.queues.iter_mut().find_map(Queue::load)
    }

    /// What [`Spool::load`] asked for. A row that should be there and is not counts as lost.
    pub fn loaded(&mut self, class: Class, rows: Vec<Row>, _now: Now) {
        let up = self.up;
        self.queue(class).loaded(rows, up);
    }

    /// What to send next. Of what comes from the disk, metrics keep to the pace.
    pub fn next(&mut self, pace: &mut Pace, now: Now) -> Sending {
        self.expire(now);
        let clock = self.clock(now);
        let mut wait = self.queues.iter().filter_map(|queue| queue.due_ms(clock)).min();
        wait = wait.map(|due| due.saturating_sub(clock).saturating_add(now.tick).max(self.not_before));
        if !self.handed.is_empty() {
            wait = None;
        }
        if !self.up {
            return Sending::WaitUntil(wait);
        }
        let alarms = self.queues.first().is_some_and(Queue::waits);
        for queue in &mut self.queues {
            let id = self.last_id + 1;
            if let Some(gap) = queue.next_gap(id) {
                self.last_id = id;
                return Sending::Gap { id, gap };
            }
            let class = queue.class;
            let share = if class == Class::Metric && alarms { SHARE } else { 1 };
            let most_bytes = self.batch_bytes / share;
            if !queue.may_send(most_bytes) {
                continue;
            }
            let paced = class == Class::Metric && queue.on_disk;
            if paced && !pace.is_open(now.tick) {
                let opens = pace.opens_at(now.tick);
                wait = Some(wait.map_or(opens, |wait| wait.min(opens)));
                continue;
            }
            let (readings, bytes) = queue.take(id, most_bytes);
            if paced {
                pace.spend(bytes);
            }
            self.last_id = id;
            return Sending::Readings { id, class, readings };
        }
        Sending::WaitUntil(wait)
    }

    /// How a sending ended. One that is not in flight any more is sent again already.
    pub fn settled(&mut self, id: u64, accepted: bool, _now: Now) {
        let up = self.up;
        for queue in &mut self.queues {
            queue.settled(id, accepted);
            queue.rest(up);
        }
    }

    /// What to store at a clean stop, after which nothing is sent any more: all that is in memory.
    pub fn last_ops(&mut self, _now: Now) -> Vec<StoreOp> {
        let mut ops = std::mem::take(&mut self.handed);
        for op in &ops {
            self.queues.iter_mut().for_each(|queue| queue.handed_for_good(op));
        }
        self.up = false;
        self.queues.iter_mut().for_each(Queue::link_down);
        self.make_room();
        ops.extend(self.queues.iter_mut().flat_map(Queue::last_ops));
        ops
    }

    /// How it stands.
    pub fn counts(&self, now: Now) -> SpoolCounts {
        let mut counts = SpoolCounts::default();
        for queue in &self.queues {
            queue.count(self.clock(now), &mut counts);
        }
        counts
    }

    fn queue(&mut self, class: Class) -> &mut Queue {
        let [alarms, metrics] = &mut self.queues;
        match class {
            Class::Alarm => alarms,
            Class::Metric => metrics,
        }
    }

    fn clock(&self, now: Now) -> u64 {
        self.base_ms + now.tick.saturating_sub(self.base_tick)
    }

    fn expire(&mut self, now: Now) {
        let clock = self.clock(now);
        self.queues.iter_mut().for_each(|queue| queue.expire(clock));
    }

    /// Keeps to the cap: the oldest metrics go first, then the oldest alarms.
    fn make_room(&mut self) {
        for at in (0..self.queues.len()).rev() {
            loop {
                let bytes: u64 = self.queues.iter().map(Queue::disk_bytes).sum();
                let Some(queue) = self.queues.get_mut(at) else { return };
                if bytes <= self.cap || !queue.give_up_oldest(FULL) {
                    break;
                }
            }
        }
    }
}

/// How long the gateway was off, as far as that is known.
fn off_time(before: Timestamp, now: Timestamp) -> u64 {
    if before.as_ms() < CLOCK_SET_MS || now.as_ms() < CLOCK_SET_MS {
        return 0;
    }
    u64::try_from(now.as_ms() - before.as_ms()).unwrap_or(0).min(LONGEST_OFF_MS)
}
