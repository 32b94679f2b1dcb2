//! Retained messages, and the cursors that hand them to new subscribers at the pace they read.
//!
//! In: messages with the retain flag. Out: for a filter, one message after the other. Must never collect a whole answer:
//! a subscriber to `#` with ten thousand retained messages costs one [`Cursor`]. Must never hold on to a message on its
//! way: most of what a gateway holds are retained topics, so each is one piece of memory ([`Record`]) that the next
//! message of its topic is written over.

mod order;
mod record;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;

use super::filter;
use super::message::Message;
use order::Order;
use record::Record;

/// Entries a cursor looks at in one go; then others get their turn.
const LOOKED_AT_MAX: usize = 2_000;

/// All retained messages. A publish to a known topic is one look-up; the order is for cursors over wildcards, and is
/// touched only when a topic comes or goes.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// A place is an index in here; free places hold an empty record.
    records: Vec<Record>,
    free: Vec<u32>,
    /// Places by topic.
    places: HashTable<u32>,
    hasher: RandomState,
    order: Order,
    bytes: usize,
    stamp: u64,
}

/// Where a subscriber is in the retained messages of one of its filters.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    filter: Box<str>,
    /// The topic it has come to.
    after: Option<String>,
    /// What was retained later reached the subscriber as it was published.
    stamp: u64,
    /// Messages its session had lost when it subscribed. If it loses more, what was retained later is sent as well.
    pub(super) lost: u64,
    /// The options byte of SUBSCRIBE.
    pub(super) options: u8,
    /// The subscription identifier; 0 for none.
    pub(super) id: u32,
}

impl Cursor {
    /// Whether it goes over this filter.
    pub(super) fn is_over(&self, filter: &str) -> bool {
        &*self.filter == filter
    }
}

/// What a cursor comes to next.
pub(super) enum Step {
    /// A message.
    Message(Arc<Message>),
    /// Nothing yet; there is more to look at.
    Busy,
    /// Nothing any more.
    End,
}

fn topic_at(records: &[Record], place: u32) -> &[u8] {
    records.get(place as usize).map_or(&[], Record::topic)
}

impl Retained {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn place(&self, topic: &[u8]) -> Option<u32> {
        let is_it = |place: &u32| topic_at(&self.records, *place) == topic;
        self.places.find(self.hasher.hash_one(topic), is_it).copied()
    }

    fn record(&self, topic: &[u8]) -> Option<&Record> {
        self.records.get(self.place(topic)? as usize)
    }

    /// What the store would weigh with this message in it: messages and bytes.
    pub(super) fn with(&self, message: &Message) -> (usize, usize) {
        match self.record(message.topic_bytes()) {
            Some(old) => (self.len(), self.bytes - old.weight_bytes() + message.weight_bytes()),
            None => (self.len() + 1, self.bytes + message.weight_bytes()),
        }
    }

    /// The stamp of a message that is about to be retained.
    pub(super) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Keeps a message. If it replaces one: whether that was on the shelf.
    pub(super) fn insert(&mut self, message: &Message) -> Option<bool> {
        self.bytes += message.weight_bytes();
        if let Some(place) = self.place(message.topic_bytes())
            && let Some(record) = self.records.get_mut(place as usize)
        {
            self.bytes -= record.weight_bytes();
            let was_kept = record.is_kept();
            record.put(message);
            return Some(was_kept);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.records.push(Record::default());
            // far fewer messages fit into memory
            (self.records.len() - 1) as u32
        });
        if let Some(record) = self.records.get_mut(place as usize) {
            record.put(message);
        }
        self.index(place);
        None
    }

    /// Makes a place known by its topic.
    fn index(&mut self, place: u32) {
        let Self { records, places, hasher, order, .. } = self;
        let hash = |place: &u32| hasher.hash_one(topic_at(records, *place));
        places.insert_unique(hash(&place), place, hash);
        order.insert(place, |place| topic_at(records, place));
    }

    /// Forgets a topic's message. If there was one: whether it was on the shelf.
    pub(super) fn remove(&mut self, topic: &str) -> Option<bool> {
        let Self { records, free, places, hasher, order, bytes, .. } = self;
        let hash = hasher.hash_one(topic.as_bytes());
        let found = places.find_entry(hash, |place| topic_at(records, *place) == topic.as_bytes()).ok()?;
        let place = found.remove().0;
        order.remove(topic.as_bytes(), |place| topic_at(records, place));
        let old = std::mem::take(records.get_mut(place as usize)?);
        *bytes -= old.weight_bytes();
        free.push(place);
        Some(old.is_kept())
    }

    /// After a panic in the middle of a change: what is derived is made anew.
    pub(super) fn repair(&mut self) {
        self.records.retain(|record| !record.is_empty());
        self.free = Vec::new();
        self.places = HashTable::new();
        self.order = Order::default();
        self.bytes = self.records.iter().map(Record::weight_bytes).sum();
        for place in 0..self.records.len() as u32 {
            self.index(place);
        }
    }

    /// Topics whose message has expired.
    pub(super) fn expired(&self, now_ms: i64) -> Vec<Box<str>> {
        let expired = self.records.iter().filter(|record| record.is_expired(now_ms));
        expired.filter_map(|record| Some(std::str::from_utf8(record.topic()).ok()?.into())).collect()
    }

    /// A cursor over what a filter matches now.
    pub(super) fn cursor(&self, filter: &str, options: u8, id: u32, lost: u64) -> Cursor {
        Cursor { filter: filter.into(), after: None, stamp: self.stamp, lost, options, id }
    }

    /// The next message for a cursor; `lost` is what its session has lost by now.
    pub(super) fn step(&self, cursor: &mut Cursor, lost: u64, now_ms: i64) -> Step {
        let all = lost > cursor.lost;
        let since = cursor.stamp;
        let wanted = |record: &&Record| (all || record.stamp() <= since) && !record.is_expired(now_ms);
        if !cursor.filter.contains(['+', '#']) {
            if cursor.after.replace(String::new()).is_some() {
                return Step::End;
            }
            let found = self.record(cursor.filter.as_bytes()).filter(wanted);
            return found.map_or(Step::End, |record| Step::Message(Arc::new(record.message())));
        }
        let prefix = filter::prefix(&cursor.filter);
        let from = match &cursor.after {
            Some(after) => Bound::Excluded(after.as_bytes()),
            None => Bound::Included(prefix.as_bytes()),
        };
        let mut seen = 0;
        let mut found = None;
        let mut last = None;
        for place in self.order.from(from, |place| topic_at(&self.records, place)) {
            let Some(record) = self.records.get(place as usize) else { continue };
            // what was let in as a topic is text
            let topic = std::str::from_utf8(record.topic()).unwrap_or_default();
            if !topic.starts_with(prefix) {
                return Step::End;
            }
            last = Some(topic);
            if filter::matches(&cursor.filter, topic) {
                found = Some(record).filter(wanted);
            }
            seen += 1;
            if found.is_some() || seen == LOOKED_AT_MAX {
                break;
            }
        }
        let Some(last) = last.filter(|_| found.is_some() || seen == LOOKED_AT_MAX) else { return Step::End };
        let after = cursor.after.get_or_insert_default();
        after.clear();
        after.push_str(last);
        found.map_or(Step::Busy, |record| Step::Message(Arc::new(record.message())))
    }
}
