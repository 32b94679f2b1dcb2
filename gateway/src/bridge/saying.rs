//! What goes out: batches, readings and answers become publishes, and their PUBACKs settle them.
//!
//! In: the engine's batches, the spool's readings. Out: publishes within the other side's window; marks and rows for the
//! store. Must never put more into the link than it takes, and never settle what was not acknowledged.

use protocols::dialect::{Publish, Settle};
use protocols::outbox::{Batch, Next, Sending, Settled};
use protocols::value::Now;

use super::task::{Stored, Task, Under, What};
use crate::broker::Own;
use crate::store::UpstreamWrite;

/// When the other side has no room, a batch is said again after this time, in milliseconds.
const LATER_MS: u64 = 5_000;
/// Tokens of answers that are waited for; the rest belongs to batches the engine has given up long ago.
const TOKENS: usize = 4096;

impl Task {
    /// Says what there is to say, as far as the link takes it. Gives the tick at which there may be more.
    pub(super) fn say(&mut self, now: Now) -> Option<u64> {
        let mut due = None;
        let mut sooner = |tick: Option<u64>| due = [due, tick].into_iter().flatten().min();
        loop {
            self.pump(now);
            if self.is_up() && !self.has_room() {
                return None;
            }
            let is_up = self.is_up();
            let dialect = &*self.dialect;
            match self.engine.next(&|device| is_up && dialect.ready(device), &mut self.pace, now) {
                Next::Say(batch) => self.say_batch(&batch, now),
                Next::WaitUntil(tick) => {
                    sooner(tick);
                    break;
                }
            }
        }
        loop {
            self.pump(now);
            if self.is_up() && !self.has_room() {
                return None;
            }
            match self.spool.next(&mut self.pace, now) {
                Sending::Readings { id, readings, .. } => {
                    let publishes = self.dialect.stream(&readings, &self.site, now);
                    self.send(id, publishes, now);
                }
                Sending::Gap { id, gap } => {
                    let publishes = self.dialect.gap(&gap, &self.site, now);
                    self.send(id, publishes, now);
                }
                Sending::WaitUntil(tick) => {
                    sooner(tick);
                    break;
                }
            }
        }
        self.pump(now);
        due
    }

    fn has_room(&self) -> bool {
        self.outbound.is_empty() && self.link.as_ref().is_none_or(super::link::Link::has_room)
    }

    fn say_batch(&mut self, batch: &Batch, now: Now) {
        let saying = self.dialect.say(batch, &self.site, now);
        if !saying.unsayable.is_empty() {
            self.engine.unsayable(batch.id, &saying.unsayable, now);
        }
        let what = match saying.settle {
            Settle::Puback => {
                let left = saying.publishes.iter().filter(|publish| publish.qos > 0).count();
                if left == 0 {
                    self.say_free(saying.publishes);
                    return self.engine.settled(batch.id, Settled::Accepted, now);
                }
                self.batches.insert(batch.id, Under { left, refused: None });
                What::Batch(batch.id)
            }
            Settle::Reply(token) => {
                if self.tokens.len() >= TOKENS {
                    self.tokens.clear();
                }
                self.tokens.insert(token, batch.id);
                What::Asked(batch.id)
            }
        };
        self.outbound.extend(saying.publishes.into_iter().map(|publish| (publish, what)));
    }

    fn send(&mut self, id: u64, publishes: Vec<Publish>, now: Now) {
        let left = publishes.iter().filter(|publish| publish.qos > 0).count();
        if left == 0 {
            self.say_free(publishes);
            return self.spool.settled(id, true, now);
        }
        self.sendings.insert(id, Under { left, refused: None });
        self.outbound.extend(publishes.into_iter().map(|publish| (publish, What::Sending(id))));
    }

    /// Says what nobody waits for.
    pub(super) fn say_free(&mut self, publishes: Vec<Publish>) {
        self.outbound.extend(publishes.into_iter().map(|publish| (publish, What::Free)));
    }

    /// Moves publishes into the link while it takes them.
    fn pump(&mut self, now: Now) {
        if self.is_inside {
            while let Some((publish, what)) = self.outbound.pop_front() {
                let Publish { topic, payload, qos, retain, correlation, user_properties } = publish;
                let correlation = correlation.map(bytes::Bytes::from);
                let payload = payload.into();
                self.own(Own { topic, payload, qos, retain, correlation, user_properties, ..Own::default() });
                if qos > 0 {
                    self.settle(what, Ok(()), now);
                }
            }
            return;
        }
        while self.link.as_ref().is_some_and(super::link::Link::has_room) {
            let (Some((publish, what)), Some(link)) = (self.outbound.pop_front(), self.link.as_mut()) else { return };
            match link.publish(&publish) {
                Ok(0) => {}
                Ok(id) => drop(self.flights.insert(id, what)),
                Err(error) => self.settle(what, Err((error.to_string(), false)), now),
            }
        }
    }

    /// A PUBACK came.
    pub(super) fn on_acked(&mut self, id: u16, outcome: Result<(), (String, bool)>) {
        let now = self.now();
        self.standing.last_contact = Some(now.wall);
        if let Some(what) = self.flights.remove(&id) {
            self.settle(what, outcome, now);
        }
    }

    fn settle(&mut self, what: What, outcome: Result<(), (String, bool)>, now: Now) {
        match what {
            What::Free => {
                if let Err((error, _)) = outcome {
                    self.standing.last_error = Some(error);
                }
            }
            What::Asked(batch) => {
                if let Err(refusal) = outcome {
                    self.engine.settled(batch, refused(refusal), now);
                }
            }
            What::Batch(batch) => {
                let Some(under) = self.batches.get_mut(&batch) else { return };
                if under.is_over(outcome)
                    && let Some(under) = self.batches.remove(&batch)
                {
                    self.engine.settled(batch, under.refused.map_or(Settled::Accepted, refused), now);
                }
            }
            What::Sending(id) => {
                let Some(under) = self.sendings.get_mut(&id) else { return };
                if under.is_over(outcome)
                    && let Some(under) = self.sendings.remove(&id)
                {
                    self.spool.settled(id, under.refused.is_none(), now);
                    if let Some((error, _)) = under.refused {
                        self.standing.last_error = Some(error);
                    }
                }
            }
        }
    }

    /// Hands marks to the store; the engine says nothing before they are on disk.
    pub(super) fn store_marks(&mut self, now: Now) {
        let marks = self.engine.marks(now);
        if marks.is_empty() {
            return;
        }
        let writes = marks.into_iter().map(|(slot, stamp)| UpstreamWrite::Mark(slot, stamp)).collect();
        let door = self.answer_door();
        self.around.store.write_upstream(
            &self.name,
            writes,
            Some(Box::new(move |result| drop(door.try_send(Stored::Marks(result.is_ok()))))),
        );
    }

    /// Hands the spool's steps to the store, and fetches what it wants back.
    pub(super) fn store_spool(&mut self, now: Now) {
        let ops = self.spool.ops(now);
        if !ops.is_empty() {
            let writes = ops.into_iter().map(UpstreamWrite::Spool).collect();
            let door = self.answer_door();
            self.around.store.write_upstream(
                &self.name,
                writes,
                Some(Box::new(move |result| drop(door.try_send(Stored::Spool(result.is_ok()))))),
            );
        }
        if let Some(load) = self.spool.load() {
            let door = self.answer_door();
            let class = load.class;
            self.around.store.load_readings(&self.name, load, move |rows| {
                drop(door.try_send(Stored::Loaded(class, rows.ok())));
            });
        }
    }

    pub(super) fn on_stored(&mut self, stored: Stored) {
        let now = self.now();
        match stored {
            Stored::Marks(true) => self.engine.marks_stored(now),
            Stored::Marks(false) => self.engine.marks_failed(now),
            Stored::Spool(true) => self.spool.stored(now),
            Stored::Spool(false) => self.spool.store_failed(now),
            // a store that cannot be read is told by itself; the spool asks again
            Stored::Loaded(class, rows) => self.spool.loaded(class, rows.unwrap_or_default(), now),
        }
    }

    /// What the dialect wants to remember goes to the disk with the next group.
    pub(super) fn remember(&mut self) {
        let memory = self.dialect.memory();
        if !memory.is_empty() {
            let writes = memory.into_iter().map(|(key, value)| UpstreamWrite::Memory(key, value)).collect();
            self.around.store.write_upstream(&self.name, writes, None);
        }
    }

    /// Everything for the last transaction.
    pub(super) fn last_writes(&mut self) -> Vec<UpstreamWrite> {
        let now = self.now();
        let marks = self.engine.last_marks(now).into_iter().map(|(slot, stamp)| UpstreamWrite::Mark(slot, stamp));
        let ops = self.spool.last_ops(now).into_iter().map(UpstreamWrite::Spool);
        let memory = self.dialect.memory().into_iter().map(|(key, value)| UpstreamWrite::Memory(key, value));
        marks.chain(ops).chain(memory).collect()
    }
}

fn refused((why, is_for_now): (String, bool)) -> Settled {
    if is_for_now { Settled::Later(LATER_MS) } else { Settled::Refused(why) }
}
