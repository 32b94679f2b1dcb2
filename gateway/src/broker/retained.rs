//! Retained messages, and the cursors that hand them to new subscribers at the pace they read.
//!
//! In: messages with the retain flag. Out: for a filter, one message after the other. Must never collect a whole answer:
//! a subscriber to `#` with ten thousand retained messages costs one [`Cursor`].

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::filter;
use super::message::Message;

/// Entries a cursor looks at in one go; then others get their turn.
const LOOKED_AT_MAX: usize = 2_000;

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    /// Rises with every retained message.
    stamp: u64,
}

/// All retained messages.
#[derive(Debug, Default)]
pub(super) struct Retained {
    entries: BTreeMap<Arc<str>, Entry>,
    bytes: usize,
    stamp: u64,
}

/// Where a subscriber is in the retained messages of one of its filters.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    filter: Box<str>,
    after: Option<Arc<str>>,
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

impl Retained {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, topic: &str) -> Option<&Arc<Message>> {
        self.entries.get(topic).map(|entry| &entry.message)
    }

    /// What the store would weigh with this message in it: messages and bytes.
    pub(super) fn with(&self, message: &Message) -> (usize, usize) {
        match self.get(message.topic()) {
            Some(old) => (self.len(), self.bytes - old.weight_bytes() + message.weight_bytes()),
            None => (self.len() + 1, self.bytes + message.weight_bytes()),
        }
    }

    /// Keeps a message; gives the one it replaces.
    pub(super) fn insert(&mut self, message: Arc<Message>) -> Option<Arc<Message>> {
        self.stamp += 1;
        self.bytes += message.weight_bytes();
        let stamp = self.stamp;
        let old = match self.entries.get_mut(message.topic()) {
            Some(entry) => Some(std::mem::replace(entry, Entry { message, stamp }).message),
            None => self.entries.insert(message.topic().into(), Entry { message, stamp }).map(|entry| entry.message),
        };
        self.bytes -= old.as_ref().map_or(0, |old| old.weight_bytes());
        old
    }

    /// Forgets a topic's message.
    pub(super) fn remove(&mut self, topic: &str) -> Option<Arc<Message>> {
        let old = self.entries.remove(topic)?.message;
        self.bytes -= old.weight_bytes();
        Some(old)
    }

    /// Topics whose message has expired.
    pub(super) fn expired(&self, now_ms: i64) -> Vec<Arc<str>> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.message.is_expired(now_ms))
            .map(|(topic, _)| Arc::clone(topic))
            .collect()
    }

    /// A cursor over what a filter matches now.
    pub(super) fn cursor(&self, filter: &str, options: u8, id: u32, lost: u64) -> Cursor {
        Cursor { filter: filter.into(), after: None, stamp: self.stamp, lost, options, id }
    }

    /// The next message for a cursor; `lost` is what its session has lost by now.
    pub(super) fn step(&self, cursor: &mut Cursor, lost: u64, now_ms: i64) -> Step {
        let all = lost > cursor.lost;
        let wanted = |entry: &Entry| (all || entry.stamp <= cursor.stamp) && !entry.message.is_expired(now_ms);
        if !cursor.filter.contains(['+', '#']) {
            if cursor.after.is_some() {
                return Step::End;
            }
            cursor.after = Some((&*cursor.filter).into());
            return match self.entries.get(&*cursor.filter).filter(|entry| wanted(entry)) {
                Some(entry) => Step::Message(Arc::clone(&entry.message)),
                None => Step::End,
            };
        }
        let prefix = filter::prefix(&cursor.filter);
        let from = match &cursor.after {
            Some(after) => Bound::Excluded(&**after),
            None => Bound::Included(prefix),
        };
        let mut seen = 0;
        let mut last = None;
        for (topic, entry) in self.entries.range::<str, _>((from, Bound::Unbounded)) {
            if !topic.starts_with(prefix) {
                return Step::End;
            }
            if wanted(entry) && filter::matches(&cursor.filter, topic) {
                cursor.after = Some(Arc::clone(topic));
                return Step::Message(Arc::clone(&entry.message));
            }
            seen += 1;
            last = Some(topic);
            if seen == LOOKED_AT_MAX {
                break;
            }
        }
        match last.filter(|_| seen == LOOKED_AT_MAX) {
            Some(topic) => {
                cursor.after = Some(Arc::clone(topic));
                Step::Busy
            }
            None => Step::End,
        }
    }
}
