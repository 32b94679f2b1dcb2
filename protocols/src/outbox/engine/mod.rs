//! The dirty set: what the other side has to be told, and when.
//!
//! In: contents of local topics, acknowledgements, link up, link down, time. Out: batches to say and marks to store.
//! Must never say a slot before its mark admits that something may be there, never have two batches of a device in
//! flight, and never take silence for a yes.
//!
//! A slot is dirty while its stamp is not the one that was acknowledged. From the moment a batch is handed out until
//! its acknowledgement, what the other side holds is unknown: a value that goes away and comes back meanwhile is dirty.

mod cell;
pub(super) mod marks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cell::{BACKLOG, Cell, DOCUMENTS, LIVE, Lane, PART_BYTES, There, URGENT};

use super::{Batch, Content, Item, Pace, Part, Settled, Slot, Stamp};
use crate::name::DeviceId;
use crate::value::Now;

/// A document goes out at most once in this time for a device while it changes; the leaves go at once.
pub(super) const DOCUMENT_MS: u64 = 10_000;

/// The longest pause that the other side may ask for; after it the device is tried again.
const LONGEST_LATER_MS: u64 = 3_600_000;

/// The longest pause when the other side asks to hear the same again and again.
const LONGEST_AGAIN_MS: u64 = 60_000;

/// Batches that may be asked for again at once before pauses begin.
const PROMPT_AGAINS: u32 = 3;

/// One of so many batches goes to the next lower class first, so that a flood above starves nothing below; the classes
/// below that get one of the square and the cube of half of it.
const TURN: u64 = 8;

/// How an outbox behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Batches in flight, at least 1.
    pub window: usize,
    /// A batch that is not settled after this many milliseconds is said again.
    pub answer_ms: u64,
    /// Largest sum of contents of a batch, in bytes; a single larger content goes alone.
    pub batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window: 32, answer_ms: 30_000, batch_bytes: 64 << 10 }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Say this.
    Say(Batch),
    /// Nothing before this tick, unless something happens.
    WaitUntil(Option<u64>),
}

/// How an outbox stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots the other side has to be told of.
    pub dirty: usize,
    /// Batches in flight.
    pub in_flight: usize,
    /// Since when the longest waiting slot is dirty: a tick.
    pub oldest_dirty: Option<u64>,
    /// Slots said and acknowledged.
    pub said: u64,
    /// … and the bytes of their contents.
    pub said_bytes: u64,
    /// Batches that were not answered in time.
    pub timeouts: u64,
    /// Slots the other side would not take.
    pub refused: u64,
    /// … and still will not.
    pub refused_now: usize,
    /// Why it last did not.
    pub last_error: Option<String>,
}

/// Who has a lane: a device, or `None` for the gateway itself.
type Owner = Option<DeviceId>;

/// A batch in flight.
#[derive(Debug)]
struct Flight {
    owner: Owner,
    parts: Vec<Flying>,
    deadline: u64,
    /// Told in vain: the other side has lost what it knew since.
    void: bool,
}

#[derive(Debug)]
struct Flying {
    item: Item,
    stamp: Stamp,
    bytes: usize,
    /// What the other side held before.
    before: There,
}

/// The dirty set of one upstream. Its size is that of what may be said, however long the link is away.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    lanes: HashMap<Owner, Lane>,
    /// Lanes with something to say, in the order of saying.
    queue: BTreeSet<((u8, u64), Owner)>,
    /// Lanes that are looked at again at a tick.
    timers: BTreeSet<(u64, Owner)>,
    flights: BTreeMap<u64, Flight>,
    up: bool,
    last_id: u64,
    order: u64,
    picks: u64,
    books: marks::Books,
    counts: Counts,
}

impl Outbox {
    /// An outbox that knows what was stored of it: for every slot the last mark that [`Outbox::marks`] gave.
    pub fn new(limits: Limits, marks: Vec<(Slot, Stamp)>) -> Self {
        let mut lanes: HashMap<Owner, Lane> = HashMap::new();
        for (slot, stamp) in marks {
            let Slot::Device(device, item) = slot else { continue };
            let cell = Cell::marked(stamp, item == Item::Status);
            lanes.entry(Some(device)).or_default().cells.insert(item, cell);
        }
        Self {
            limits: Limits { window: limits.window.max(1), ..limits },
            lanes,
            queue: BTreeSet::new(),
            timers: BTreeSet::new(),
            flights: BTreeMap::new(),
            up: false,
            last_id: 0,
            order: 0,
            picks: 0,
            books: marks::Books::default(),
            counts: Counts::default(),
        }
    }

    /// Takes in what a local topic holds now, `None` when it was cleared; the stamp is [`super::stamp`]'s. An alarm is
    /// `urgent`; a status is by itself.
    pub fn local(&mut self, slot: Slot, content: Content, stamp: Stamp, urgent: bool, now: Now) {
        let (owner, item) = split(slot);
        let stamp = if content.is_some() { stamp } else { Stamp::GONE };
        let lane = self.lanes.entry(owner.clone()).or_default();
        let urgent = urgent || item == Item::Status;
        let cell = lane.cells.entry(item.clone()).or_insert_with(|| Cell::empty(urgent));
        let (was_dirty, was_heard) = (cell.is_dirty(), cell.heard);
        cell.content = content;
        cell.heard = true;
        cell.urgent = urgent;
        if was_heard && cell.stamp == stamp {
            return;
        }
        cell.stamp = stamp;
        cell.refused = false;
        self.order += 1;
        cell.order = self.order;
        cell.live = self.up;
        if !was_dirty {
            cell.first = self.order;
            cell.since = now.tick;
        }
        if cell.is_over() {
            let kept = cell.disk != cell::Disk::Absent;
            lane.cells.remove(&item);
            if kept {
                self.books.forget(&owner, &item);
            }
            return self.requeue(&owner, now);
        }
        self.books.need(&owner, &item, cell);
        // The place in the queue is the best of all slots; a better one is all that can come of this.
        self.requeue_for(&owner, &item, now);
    }

    /// Every retained local topic was heard once: what has a mark and no content is gone, and the other side is told.
    pub fn booted(&mut self, now: Now) {
        let mut changed = Vec::new();
        for (owner, lane) in &mut self.lanes {
            let mut any = false;
            for (item, cell) in lane.cells.iter_mut().filter(|(_, cell)| !cell.heard) {
                self.order += 1;
                cell.heard = true;
                cell.live = self.up;
                (cell.order, cell.first, cell.since) = (self.order, self.order, now.tick);
                self.books.need(owner, item, cell);
                any = true;
            }
            if any {
                changed.push(owner.clone());
            }
        }
        changed.iter().for_each(|owner| self.requeue(owner, now));
    }

    /// The link is up, subscribed, and may be used.
    pub fn link_up(&mut self, now: Now) {
        self.up = true;
        // Its last will may have been said for us.
        if let Some(cell) = self.lanes.get_mut(&None).and_then(|lane| lane.cells.get_mut(&Item::Status)) {
            cell.there = There::Maybe;
            cell.refused = false;
            cell.live = true;
        }
        self.requeue_all(now);
    }

    /// The link is gone, and with it every answer that was still to come.
    pub fn link_down(&mut self, now: Now) {
        self.up = false;
        self.flights.clear();
        for lane in self.lanes.values_mut() {
            (lane.flying, lane.not_before, lane.again) = (None, 0, 0);
            lane.cells.values_mut().for_each(|cell| cell.live = false);
        }
        self.requeue_all(now);
    }

    /// The other side has lost what it knew of a device, or of all: everything of it is said again.
    pub fn resync(&mut self, device: Option<&DeviceId>, now: Now) {
        let of_it = |owner: &Owner| device.is_none() || owner.as_ref() == device;
        for flight in self.flights.values_mut().filter(|flight| of_it(&flight.owner)) {
            flight.void = true;
        }
        for (owner, lane) in self.lanes.iter_mut().filter(|(owner, _)| of_it(owner)) {
            lane.document_from = 0;
            for (item, cell) in &mut lane.cells {
                if !cell.is_dirty() {
                    (cell.since, cell.first, cell.live) = (now.tick, cell.order, false);
                }
                cell.refused = false;
                cell.there = There::Maybe;
                self.books.need(owner, item, cell);
            }
        }
        self.requeue_all(now);
    }

    /// What to say next. `ready` tells whether a device's batches may be said yet; `pace` holds backlog up, and nothing
    /// else.
    pub fn next(&mut self, ready: &dyn Fn(Option<&DeviceId>) -> bool, pace: &mut Pace, now: Now) -> Next {
        self.pass(now);
        if !self.up {
            return Next::WaitUntil(self.books.due());
        }
        let mut paced = false;
        while self.flights.len() < self.limits.window {
            let open = pace.is_open(now.tick);
            let Some((class, owner)) = self.pick(ready, open, &mut paced) else { break };
            if let Some(batch) = self.batch(class, &owner, pace, now) {
                return Next::Say(batch);
            }
            self.requeue(&owner, now);
        }
        let paced = paced.then(|| pace.opens_at(now.tick));
        let timer = self.timers.first().map(|(due, _)| *due);
        let answer = self.flights.values().next().map(|flight| flight.deadline);
        Next::WaitUntil([paced, timer, answer, self.books.due()].into_iter().flatten().min())
    }

    /// The other side's answer to a batch. One that is not in flight any more was given up, and said again, before.
    pub fn settled(&mut self, batch: u64, outcome: Settled, now: Now) {
        let Some(flight) = self.flights.remove(&batch) else { return };
        self.land(flight, outcome, now);
    }

    /// The dialect has no words for some items of a batch that it was just given.
    pub fn unsayable(&mut self, batch: u64, items: &[(Item, String)], _now: Now) {
        let Some(flight) = self.flights.get_mut(&batch) else { return };
        let Some(lane) = self.lanes.get_mut(&flight.owner) else { return };
        for (item, why) in items {
            let Some(at) = flight.parts.iter().position(|part| part.item == *item) else { continue };
            let part = flight.parts.swap_remove(at);
            if let Some(cell) = lane.cells.get_mut(item) {
                cell.there = if flight.void { There::Maybe } else { part.before };
                cell.refused = cell.stamp == part.stamp;
                self.counts.refused += 1;
                self.counts.last_error = Some(why.clone());
            }
        }
    }

    /// Whether the other side has not acknowledged what this slot holds now.
    pub fn is_dirty(&self, slot: &Slot) -> bool {
        self.cell(slot).is_some_and(Cell::is_dirty)
    }

    /// What a slot holds.
    pub fn content(&self, slot: &Slot) -> Option<&Arc<[u8]>> {
        self.cell(slot)?.content.as_ref()
    }

    /// Whether the other side has everything it will take.
    pub fn is_synced(&self) -> bool {
        self.flights.is_empty() && !self.cells().any(Cell::is_dirty)
    }

    /// How it stands.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { in_flight: self.flights.len(), ..self.counts.clone() };
        for cell in self.cells() {
            counts.refused_now += usize::from(cell.refused);
            if cell.is_dirty() {
                counts.dirty += 1;
                counts.oldest_dirty = Some(counts.oldest_dirty.map_or(cell.since, |oldest| oldest.min(cell.since)));
            }
        }
        counts
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.lanes.values().flat_map(|lane| lane.cells.values())
    }

    fn cell(&self, slot: &Slot) -> Option<&Cell> {
        let (owner, item) = split(slot.clone());
        self.lanes.get(&owner)?.cells.get(&item)
    }

    /// Lets time pass: answers that did not come, pauses that are over.
    fn pass(&mut self, now: Now) {
        while let Some(entry) = self.flights.first_entry().filter(|entry| entry.get().deadline <= now.tick) {
            let flight = entry.remove();
            self.counts.timeouts += 1;
            self.counts.last_error = Some("no answer in time".to_owned());
            self.land(flight, Settled::Later(0), now);
        }
        while let Some((due, owner)) = self.timers.pop_first() {
            if due > now.tick {
                self.timers.insert((due, owner));
                break;
            }
            self.requeue(&owner, now);
        }
    }

    /// The lane whose turn it is.
    fn pick(&mut self, ready: &dyn Fn(Option<&DeviceId>) -> bool, open: bool, paced: &mut bool) -> Option<(u8, Owner)> {
        let turn = self.picks + 1;
        let first = match turn {
            turn if turn.is_multiple_of(TURN * TURN) => DOCUMENTS,
            turn if turn.is_multiple_of(TURN * 2) => BACKLOG,
            turn if turn.is_multiple_of(TURN) => LIVE,
            _ => URGENT,
        };
        let order = [first].into_iter().chain((URGENT..=DOCUMENTS).filter(|class| *class != first));
        for class in order {
            let mut of_class = self
                .queue
                .range(((class, 0), None)..)
                .take_while(|((found, _), _)| *found == class)
                .map(|(_, owner)| owner);
            let Some(owner) = of_class.find(|owner| ready(owner.as_ref())) else { continue };
            if class >= BACKLOG && !open {
                *paced = true;
                continue;
            }
            self.picks = turn;
            return Some((class, owner.clone()));
        }
        None
    }

    /// Takes a lane's dirty slots into flight, best first.
    fn batch(&mut self, class: u8, owner: &Owner, pace: &mut Pace, now: Now) -> Option<Batch> {
        let lane = self.lanes.get_mut(owner)?;
        let sayable = |(item, cell): &(&Item, &Cell)| {
            cell.is_dirty() && self.books.may_say(owner, cell) && (**item == Item::Document) == (class == DOCUMENTS)
        };
        let mut items: Vec<_> = lane
            .cells
            .iter()
            .filter(sayable)
            .map(|(item, cell)| (cell.key(item), item.clone(), cell.bytes()))
            .collect();
        items.sort_unstable_by_key(|(key, ..)| *key);
        let mut parts = Vec::with_capacity(items.len());
        let mut sum = 0;
        for ((class, _), item, bytes) in items {
            if !parts.is_empty()
                && (sum + bytes > self.limits.batch_bytes || (class >= BACKLOG && !pace.is_open(now.tick)))
            {
                break;
            }
            let Some(cell) = lane.cells.get_mut(&item) else { continue };
            sum += bytes;
            if class >= BACKLOG {
                pace.spend(bytes);
            }
            let before = std::mem::replace(&mut cell.there, There::Maybe);
            parts.push((Part { item, content: cell.content.clone(), stamp: cell.stamp }, bytes, before));
        }
        if parts.is_empty() {
            return None;
        }
        if class == DOCUMENTS {
            lane.document_from = now.tick.saturating_add(DOCUMENT_MS);
        }
        self.last_id += 1;
        lane.flying = Some(self.last_id);
        if let Some(key) = lane.key.take() {
            self.queue.remove(&(key, owner.clone()));
        }
        let flying = |(part, bytes, before): &(Part, usize, There)| Flying {
            item: part.item.clone(),
            stamp: part.stamp,
            bytes: *bytes,
            before: *before,
        };
        let flight = Flight {
            owner: owner.clone(),
            parts: parts.iter().map(flying).collect(),
            deadline: now.tick.saturating_add(self.limits.answer_ms),
            void: false,
        };
        self.flights.insert(self.last_id, flight);
        let parts = parts.into_iter().map(|(part, ..)| part);
        Some(match owner {
            Some(_) => Batch { id: self.last_id, device: owner.clone(), parts: parts.collect(), gateway: None },
            None => {
                let gateway = parts.last().and_then(|part| part.content);
                Batch { id: self.last_id, device: None, parts: Vec::new(), gateway }
            }
        })
    }

    /// Ends a flight. Compare and clear: a slot that changed while it flew stays dirty.
    fn land(&mut self, flight: Flight, outcome: Settled, now: Now) {
        let Flight { owner, parts, void, .. } = flight;
        let Some(lane) = self.lanes.get_mut(&owner) else { return };
        lane.flying = None;
        let pause = match &outcome {
            Settled::Later(ms) => (*ms).min(LONGEST_LATER_MS),
            Settled::Again => {
                lane.again = lane.again.saturating_add(1);
                let over = lane.again.saturating_sub(PROMPT_AGAINS).min(10);
                if over == 0 { 0 } else { (500_u64 << over).min(LONGEST_AGAIN_MS) }
            }
            Settled::Accepted | Settled::Refused(_) => {
                lane.again = 0;
                0
            }
        };
        lane.not_before = now.tick.saturating_add(pause);
        for part in parts {
            let Some(cell) = lane.cells.get_mut(&part.item) else { continue };
            match &outcome {
                Settled::Accepted if !void => {
                    self.counts.said += 1;
                    self.counts.said_bytes += (part.bytes - PART_BYTES) as u64;
                    cell.there = match part.stamp {
                        Stamp::GONE => There::Nothing,
                        stamp => There::Exactly(stamp),
                    };
                    cell.settled_at = now.tick;
                    // A slot that changes faster than answers come is new each time, not ever older.
                    (cell.first, cell.since) = (cell.order, now.tick);
                    if cell.is_over() {
                        lane.cells.remove(&part.item);
                        self.books.forget(&owner, &part.item);
                    }
                }
                Settled::Refused(_) => {
                    cell.there = if void { There::Maybe } else { part.before };
                    cell.refused = cell.stamp == part.stamp;
                    self.counts.refused += 1;
                }
                // What the other side holds now is anybody's guess.
                _ => {}
            }
        }
        if let Settled::Refused(why) = outcome {
            self.counts.last_error = Some(why);
        }
        self.requeue(&owner, now);
    }

    fn requeue_all(&mut self, now: Now) {
        self.queue.clear();
        self.timers.clear();
        let owners: Vec<Owner> = self.lanes.keys().cloned().collect();
        for owner in owners {
            if let Some(lane) = self.lanes.get_mut(&owner) {
                lane.key = None;
            }
            self.requeue(&owner, now);
        }
    }

    /// Puts a lane at the place of one of its slots, if that is a better one than it has.
    fn requeue_for(&mut self, owner: &Owner, item: &Item, now: Now) {
        let Some(lane) = self.lanes.get_mut(owner) else { return };
        let Some(cell) = lane.cells.get(item) else { return };
        let waits = *item == Item::Document && lane.document_from > now.tick;
        if waits || lane.not_before > now.tick {
            return self.requeue(owner, now);
        }
        let key = cell.key(item);
        let better = lane.key.is_none_or(|old| key < old);
        if self.up && lane.flying.is_none() && better && cell.is_dirty() && self.books.may_say(owner, cell) {
            if let Some(old) = lane.key.replace(key) {
                self.queue.remove(&(old, owner.clone()));
            }
            self.queue.insert((key, owner.clone()));
        }
    }

    /// Puts a lane where it belongs: into the queue, among the timers, or out of the house when it is empty.
    fn requeue(&mut self, owner: &Owner, now: Now) {
        let Some(lane) = self.lanes.get_mut(owner) else { return };
        if let Some(key) = lane.key.take() {
            self.queue.remove(&(key, owner.clone()));
        }
        if lane.cells.is_empty() && lane.flying.is_none() {
            self.lanes.remove(owner);
            return;
        }
        if !self.up || lane.flying.is_some() {
            return;
        }
        let waits = lane.not_before.max(now.tick);
        let mut best: Option<(u64, (u8, u64))> = None;
        for (item, cell) in lane.cells.iter().filter(|(_, cell)| cell.is_dirty() && self.books.may_say(owner, cell)) {
            let from = if *item == Item::Document { waits.max(lane.document_from) } else { waits };
            let key = (from, cell.key(item));
            best = Some(best.map_or(key, |best| best.min(key)));
        }
        match best {
            Some((from, key)) if from <= now.tick => {
                lane.key = Some(key);
                self.queue.insert((key, owner.clone()));
            }
            Some((from, _)) => {
                self.timers.insert((from, owner.clone()));
            }
            None => {}
        }
    }
}

fn split(slot: Slot) -> (Owner, Item) {
    match slot {
        Slot::Gateway => (None, Item::Status),
        Slot::Device(device, item) => (Some(device), item),
    }
}

fn slot(owner: &Owner, item: &Item) -> Slot {
    owner.as_ref().map_or(Slot::Gateway, |device| Slot::Device(device.clone(), item.clone()))
}
