//! The log of one class.
//!
//! In memory the head is all there is. On disk the rows go `tail` (in memory, not stored yet) → segments (stored) → head
//! (loaded again) → flying. Numbers rise all the way.

mod losses;

use std::collections::VecDeque;

use super::{
    Class, FULL, Gap, Load, MEMORY_BYTES, Meta, ROWS_AT_ONCE, Row, SLOW_MS, SPILL_BYTES, STORE_BYTES, Saved, Segment,
    SpoolCounts, StoreOp, Streamed,
};

/// Numbers that one write of the ceiling allows. After a `kill -9` a gap of up to one and a half times so many is told.
const CEILING_STEP: u64 = 1024;

/// Rows wait this long, or for this many bytes, for company on their way to the disk.
const STAGE_MS: u64 = 1_000;
const STAGE_BYTES: usize = 64 << 10;

/// Deletions wait this long for company.
const DELETE_MS: u64 = 2_000;

/// Sendings of readings in flight at once: while the last of one are acknowledged, the next one is said.
const FLYING: usize = 2;

#[derive(Debug)]
struct Flying {
    id: u64,
    rows: Vec<Row>,
    /// It was accepted, and waits for the one before it: a class is acknowledged in order.
    is_accepted: bool,
}

/// A gap that was not acknowledged yet.
#[derive(Debug)]
struct Open {
    gap: Gap,
    /// Its end on disk.
    stored: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) class: Class,
    pub(super) on_disk: bool,
    ttl_ms: u64,
    /// The next number.
    pub(super) next: u64,
    /// On disk, and on its way there.
    ceiling: u64,
    asked: u64,
    /// A number was taken in this run, or numbers were lost: the ceiling has to move.
    meta_due: bool,
    head: VecDeque<Row>,
    flying: VecDeque<Flying>,
    segments: VecDeque<Segment>,
    segment_bytes: u64,
    tail: VecDeque<Row>,
    tail_bytes: usize,
    head_bytes: usize,
    /// Rows at the front of the tail that are in the store's hands.
    handed: usize,
    loading: Option<Load>,
    /// The link broke since: what is being loaded is asked for again, from the beginning.
    stale_load: bool,
    /// Rows on disk below this number are in the head or in flight.
    read_from: u64,
    /// Every number up to this one was acknowledged or given up.
    done: u64,
    deletes: Vec<(u64, u64)>,
    deletes_since: Option<u64>,
    gaps: VecDeque<Open>,
    gap_flying: Option<(u64, u64)>,
    gone_gaps: Vec<u64>,
    /// Gaps that were told, beside numbers that are in memory alone: they stay on disk until the floor has passed them, or
    /// after a `kill -9` their numbers would be taken for lost with those.
    told_gaps: Vec<Gap>,
    clock: u64,
    sent: u64,
    expired: u64,
    full: u64,
    lost: u64,
}

impl Queue {
    pub(super) fn new(class: Class, ttl_ms: u64, saved: &Saved) -> Self {
        let segments: VecDeque<Segment> =
            saved.segments.iter().filter(|segment| segment.class == class).cloned().collect();
        let open = |gap: &Gap| Open { gap: gap.clone(), stored: Some(gap.to_seq) };
        let mut gaps: Vec<Open> = saved.gaps.iter().filter(|gap| gap.class == class).map(open).collect();
        gaps.sort_by_key(|open| open.gap.from_seq);
        let meta = saved.metas.iter().find(|meta| meta.class == class);
        let Meta { floor, ceiling, .. } = meta.copied().unwrap_or(Meta { class, floor: 1, ceiling: 1 });
        let after = segments.back().map_or(1, |segment| segment.last + 1);
        let after_gaps = gaps.last().map_or(1, |open| open.gap.to_seq + 1);
        let mut queue = Self {
            class,
            on_disk: true,
            ttl_ms,
            next: ceiling.max(after).max(after_gaps),
            ceiling,
            asked: ceiling,
            meta_due: false,
            head: VecDeque::new(),
            flying: VecDeque::new(),
            segment_bytes: segments.iter().map(|run| run.bytes).sum(),
            segments,
            tail: VecDeque::new(),
            tail_bytes: 0,
            head_bytes: 0,
            handed: 0,
            loading: None,
            stale_load: false,
            read_from: 0,
            done: 0,
            deletes: Vec::new(),
            deletes_since: None,
            gaps: gaps.into(),
            gap_flying: None,
            gone_gaps: Vec::new(),
            told_gaps: Vec::new(),
            clock: 0,
            sent: 0,
            expired: 0,
            full: 0,
            lost: 0,
        };
        queue.find_lost(floor.max(after), ceiling);
        queue
    }

    pub(super) fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.meta_due |= self.next + CEILING_STEP / 2 > self.asked;
        self.next - 1
    }

    pub(super) fn push(&mut self, row: Row, up: bool) {
        if self.on_disk || !up {
            self.on_disk = true;
            self.tail_bytes += row.bytes();
            self.tail.push_back(row);
        } else {
            self.head_bytes += row.bytes();
            self.head.push_back(row);
            if self.head_bytes > SPILL_BYTES {
                self.spill();
            }
        }
        while self.tail_bytes > MEMORY_BYTES && self.give_up_staged(FULL) {}
    }

    /// Memory to disk.
    fn spill(&mut self) {
        if self.on_disk {
            return;
        }
        self.on_disk = true;
        let flying = self.flying.iter().flat_map(|flying| flying.rows.iter().cloned());
        self.tail = flying.chain(self.head.drain(..)).collect();
        self.tail_bytes = self.tail.iter().map(Row::bytes).sum();
        self.head_bytes = 0;
        self.read_from = self.flying_end() + 1;
    }

    /// Goes to disk when the link is slower than the readings come.
    pub(super) fn slow(&mut self, clock: u64) {
        if self.oldest_in_memory().is_some_and(|row| clock.saturating_sub(row.born_ms) >= SLOW_MS) {
            self.spill();
        }
    }

    /// Disk to memory, once the disk is empty and the link is up.
    pub(super) fn rest(&mut self, up: bool) {
        let empty = self.segments.is_empty() && self.head.is_empty() && self.flying.is_empty();
        if up && self.on_disk && empty && self.handed == 0 && self.loading.is_none() {
            self.on_disk = false;
            self.head = std::mem::take(&mut self.tail);
            self.head_bytes = std::mem::take(&mut self.tail_bytes);
        }
    }

    pub(super) fn link_down(&mut self) {
        self.spill();
        self.gap_flying = None;
        self.flying.clear();
        self.head.clear();
        self.head_bytes = 0;
        self.read_from = 0;
        self.stale_load = self.loading.is_some();
    }

    /// When something has to be stored: a time of the spool's clock.
    pub(super) fn due_ms(&self, clock: u64) -> Option<u64> {
        let floor = self.floor();
        let gaps = !self.gone_gaps.is_empty()
            || self.told_gaps.iter().any(|gap| gap.to_seq < floor)
            || self.gaps.iter().any(|open| open.stored != Some(open.gap.to_seq));
        let at_once = self.meta_due || gaps || (self.on_disk && self.tail_bytes >= STAGE_BYTES);
        let staged = self.tail.front().filter(|_| self.on_disk).map(|row| row.born_ms.saturating_add(STAGE_MS));
        let deletes = self.deletes_since.map(|since| since.saturating_add(DELETE_MS));
        // Slowness is noticed when it is looked for.
        let slow = self.oldest_in_memory().filter(|_| !self.on_disk).map(|row| row.born_ms.saturating_add(SLOW_MS));
        [at_once.then_some(clock), staged, deletes, slow].into_iter().flatten().min()
    }

    pub(super) fn ops(&mut self) -> Vec<StoreOp> {
        let class = self.class;
        let mut ops = Vec::new();
        if self.on_disk && !self.tail.is_empty() {
            let mut bytes = 0;
            let fits = |row: &&Row| {
                bytes += row.bytes();
                bytes <= STORE_BYTES
            };
            let rows: Vec<Row> = self.tail.iter().take_while(fits).cloned().collect();
            self.handed = rows.len();
            ops.push(StoreOp::Append(rows));
        }
        ops.extend(self.deletes.drain(..).map(|(from, upto)| StoreOp::Delete { class, from, upto }));
        let floor = self.floor();
        let passed = self.told_gaps.extract_if(.., |gap| gap.to_seq < floor).map(|gap| gap.from_seq);
        self.gone_gaps.extend(passed);
        ops.extend(self.gone_gaps.drain(..).map(|from_seq| StoreOp::GapGone { class, from_seq }));
        let unstored = self.gaps.iter().filter(|open| open.stored != Some(open.gap.to_seq));
        ops.extend(unstored.map(|open| StoreOp::Gap(open.gap.clone())));
        // The floor moves with every transaction that is made anyway; alone it is not worth one.
        if self.meta_due || !ops.is_empty() {
            if self.meta_due {
                self.asked = self.next + CEILING_STEP;
            }
            ops.push(StoreOp::Meta(Meta { class, floor: self.floor(), ceiling: self.asked }));
        }
        self.deletes_since = None;
        self.meta_due = false;
        ops
    }

    /// The first number that is in memory alone once the handed rows are stored.
    fn floor(&self) -> u64 {
        let in_memory = match self.on_disk {
            true => self.tail.get(self.handed),
            false => self.oldest_in_memory(),
        };
        in_memory.map_or(self.next, |row| row.reading.seq)
    }

    /// The first row in flight, or else in the head.
    fn oldest_in_memory(&self) -> Option<&Row> {
        self.flying.iter().find_map(|flying| flying.rows.first()).or(self.head.front())
    }

    pub(super) fn stored(&mut self, op: StoreOp) {
        match op {
            StoreOp::Append(rows) => {
                self.handed = 0;
                for row in rows {
                    self.tail.pop_front();
                    self.tail_bytes = self.tail_bytes.saturating_sub(row.bytes());
                    self.keep(&row);
                }
            }
            StoreOp::Meta(meta) => self.ceiling = self.ceiling.max(meta.ceiling),
            StoreOp::Gap(gap) => {
                if let Some(open) = self.gaps.iter_mut().find(|open| open.gap.from_seq == gap.from_seq) {
                    open.stored = Some(gap.to_seq);
                }
            }
            StoreOp::Delete { .. } | StoreOp::GapGone { .. } => {}
        }
    }

    /// A row is on disk.
    fn keep(&mut self, row: &Row) {
        let seq = row.reading.seq;
        if seq <= self.done {
            // It was acknowledged while it was on its way to the disk.
            return self.delete(seq, seq);
        }
        let run = Segment {
            class: self.class,
            first: seq,
            last: seq,
            bytes: row.bytes() as u64,
            oldest_ms: row.born_ms,
            newest_ms: row.born_ms,
            wall: row.wall,
        };
        self.segment_bytes += run.bytes;
        if !self.segments.back_mut().is_some_and(|last| last.takes(&run)) {
            self.segments.push_back(run);
        }
    }

    pub(super) fn not_stored(&mut self, op: &StoreOp) {
        match op {
            StoreOp::Append(rows) if rows.first().is_some_and(|row| row.reading.class == self.class) => self.handed = 0,
            StoreOp::Delete { class, from, upto } if *class == self.class => self.delete(*from, *upto),
            StoreOp::GapGone { class, from_seq } if *class == self.class => self.gone_gaps.push(*from_seq),
            StoreOp::Meta(meta) if meta.class == self.class => {
                self.meta_due |= meta.ceiling > self.ceiling;
                self.asked = self.ceiling;
            }
            _ => {}
        }
    }

    /// At the end what is in the store's hands is taken for stored: it is stored again with the rest.
    pub(super) fn handed_for_good(&mut self, op: &StoreOp) {
        let ours = match op {
            StoreOp::Append(rows) => rows.first().is_some_and(|row| row.reading.class == self.class),
            StoreOp::Meta(meta) => meta.class == self.class,
            StoreOp::Gap(gap) => gap.class == self.class,
            StoreOp::Delete { .. } | StoreOp::GapGone { .. } => false,
        };
        if ours {
            self.stored(op.clone());
        }
    }

    /// All that is in memory, and numbers that are exact.
    pub(super) fn last_ops(&mut self) -> Vec<StoreOp> {
        let class = self.class;
        let mut ops = Vec::new();
        if !self.tail.is_empty() {
            let rows: Vec<Row> = std::mem::take(&mut self.tail).into();
            self.tail_bytes = 0;
            ops.push(StoreOp::Append(rows));
        }
        ops.extend(self.ops().into_iter().filter(|op| !matches!(op, StoreOp::Meta(_))));
        if self.next > 1 {
            ops.push(StoreOp::Meta(Meta { class, floor: self.next, ceiling: self.next }));
        }
        ops
    }

    pub(super) fn load(&mut self) -> Option<Load> {
        // The next rows are read while these are sent.
        if !self.on_disk || self.head.len() >= ROWS_AT_ONCE || self.loading.is_some() {
            return None;
        }
        let first = self.segments.iter().find(|segment| segment.last >= self.read_from)?.first.max(self.read_from);
        let load = Load { class: self.class, from: first, upto: self.segments.back()?.last, rows: ROWS_AT_ONCE };
        self.loading = Some(load);
        self.loading
    }

    pub(super) fn loaded(&mut self, rows: Vec<Row>, up: bool) {
        let Some(load) = self.loading.take() else { return };
        if std::mem::take(&mut self.stale_load) {
            return;
        }
        // A number that should be there and is not was taken by somebody else, or by the flash card.
        let last = rows.last().map_or(load.upto, |row| row.reading.seq);
        let end = if rows.len() < load.rows { load.upto } else { last };
        let mut expected = load.from;
        for seq in rows.iter().map(|row| row.reading.seq).chain([end + 1]) {
            if seq > expected {
                self.missing(expected, seq - 1);
            }
            expected = seq + 1;
        }
        for row in rows {
            let seq = row.reading.seq;
            // What was given up meanwhile is in no segment any more.
            if seq >= self.read_from && self.segments.iter().any(|run| run.first <= seq && seq <= run.last) {
                self.read_from = seq + 1;
                self.head_bytes += row.bytes();
                self.head.push_back(row);
            }
        }
        self.rest(up);
    }

    /// Whether readings wait.
    pub(super) fn waits(&self) -> bool {
        !self.head.is_empty() || !self.segments.is_empty() || !self.tail.is_empty()
    }

    /// Whether something may be sent now. Beside one that is in flight only a full sending is worth it, and none before a gap
    /// that waits for its turn.
    pub(super) fn may_send(&self, most_bytes: usize) -> bool {
        let is_full = self.on_disk || self.head_bytes >= most_bytes;
        let beside = self.flying.len() < FLYING && is_full && self.untold_gap().is_none();
        let free = self.gap_flying.is_none() && (self.flying.is_empty() || beside);
        free && self.head.front().is_some_and(|row| row.reading.seq < self.ceiling)
    }

    /// Whether every gap was told.
    #[cfg(test)]
    pub(super) fn is_told(&self) -> bool {
        self.gaps.is_empty()
    }

    pub(super) fn next_gap(&mut self, id: u64) -> Option<Gap> {
        if !self.flying.is_empty() || self.gap_flying.is_some() {
            return None;
        }
        let gap = self.untold_gap()?.clone();
        self.gap_flying = Some((id, gap.from_seq));
        Some(gap)
    }

    /// The next gap to tell. Told before it is on disk it could be told again with other ends after a `kill -9`.
    fn untold_gap(&self) -> Option<&Gap> {
        self.gaps.iter().find(|open| open.stored == Some(open.gap.to_seq)).map(|open| &open.gap)
    }

    pub(super) fn take(&mut self, id: u64, most_bytes: usize) -> (Vec<Streamed>, usize) {
        let mut rows = Vec::new();
        let mut bytes = 0;
        while let Some(row) = self.head.front() {
            let over = !rows.is_empty() && (bytes + row.bytes() > most_bytes || rows.len() >= ROWS_AT_ONCE);
            if over || row.reading.seq >= self.ceiling {
                break;
            }
            bytes += row.bytes();
            rows.extend(self.head.pop_front());
        }
        self.head_bytes = self.head_bytes.saturating_sub(bytes);
        let readings = rows.iter().map(|row| row.reading.clone()).collect();
        self.flying.push_back(Flying { id, rows, is_accepted: false });
        (readings, bytes)
    }

    pub(super) fn settled(&mut self, id: u64, accepted: bool) {
        if let Some((_, from)) = self.gap_flying.take_if(|(flying, _)| *flying == id) {
            if accepted {
                self.gap_told(from);
            }
            return;
        }
        let Some(flying) = self.flying.iter_mut().find(|flying| flying.id == id) else { return };
        flying.is_accepted = accepted;
        if !accepted {
            // In order again, also those that were accepted behind it: twice is better than out of order.
            for row in self.flying.drain(..).flat_map(|flying| flying.rows).rev() {
                self.head_bytes += row.bytes();
                self.head.push_front(row);
            }
        }
        while self.flying.front().is_some_and(|flying| flying.is_accepted) {
            let rows = self.flying.pop_front().map_or_else(Vec::new, |flying| flying.rows);
            self.sent += rows.len() as u64;
            for row in rows {
                self.acknowledged(&row);
            }
        }
    }

    fn gap_told(&mut self, from: u64) {
        let Some(at) = self.gaps.iter().position(|open| open.gap.from_seq == from) else { return };
        // Only what is on disk is told.
        self.told_gaps.extend(self.gaps.remove(at).map(|open| open.gap));
    }

    fn acknowledged(&mut self, row: &Row) {
        self.done = self.done.max(row.reading.seq);
        self.off_disk(row);
    }

    /// Takes a row off the disk, or off its way there.
    fn off_disk(&mut self, row: &Row) {
        let seq = row.reading.seq;
        if !self.on_disk {
            return;
        }
        if let Some(at) = self.segments.iter().position(|run| run.first <= seq && seq <= run.last) {
            self.delete(seq, seq);
            if let Some(run) = self.segments.get_mut(at) {
                run.first = seq + 1;
                let whole = run.first > run.last;
                let bytes = if whole { run.bytes } else { run.bytes.min(row.bytes() as u64) };
                run.bytes -= bytes;
                self.segment_bytes -= bytes;
                if whole {
                    self.segments.remove(at);
                }
            }
        } else if let Some(at) = self.tail.iter().skip(self.handed).position(|row| row.reading.seq == seq) {
            self.tail.remove(self.handed + at);
            self.tail_bytes = self.tail_bytes.saturating_sub(row.bytes());
        }
    }

    fn delete(&mut self, from: u64, upto: u64) {
        self.deletes_since.get_or_insert(self.clock);
        match self.deletes.last_mut() {
            Some((_, last)) if *last + 1 == from => *last = upto,
            _ => self.deletes.push((from, upto)),
        }
    }

    fn flying_end(&self) -> u64 {
        self.flying.back().and_then(|flying| flying.rows.last()).map_or(self.done, |row| row.reading.seq)
    }

    /// Bytes that count against the cap.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.segment_bytes + if self.on_disk { self.tail_bytes as u64 } else { 0 }
    }

    pub(super) fn count(&self, clock: u64, counts: &mut SpoolCounts) {
        let flying = self.flying.iter().flat_map(|flying| &flying.rows);
        let on_disk: u64 = self.segments.iter().map(|run| run.last + 1 - run.first).sum();
        let oldest = self.segments.front().map(|run| run.oldest_ms);
        if self.on_disk {
            counts.rows += on_disk + self.tail.len() as u64;
        } else {
            counts.rows += (self.head.len() + flying.clone().count()) as u64;
        }
        counts.bytes += self.segment_bytes;
        counts.memory_bytes += self.head_bytes + self.tail_bytes + flying.clone().map(Row::bytes).sum::<usize>();
        let in_memory = flying.chain(&self.head).chain(&self.tail).map(|row| row.born_ms);
        if let Some(oldest) = in_memory.chain(oldest).min() {
            let age = clock.saturating_sub(oldest);
            counts.oldest_ms = Some(counts.oldest_ms.map_or(age, |other| other.max(age)));
        }
        counts.sent += self.sent;
        counts.expired += self.expired;
        counts.full += self.full;
        counts.lost += self.lost;
        counts.on_disk |= self.on_disk && (!self.segments.is_empty() || !self.tail.is_empty());
    }
}
