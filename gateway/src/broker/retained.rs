//! Retained messages, and the cursors that hand them to new subscribers at the pace they read.
//!
//! In: messages with the retain flag. Out: for a filter, one message after the other. Must never collect a whole answer:
//! a subscriber to `#` with ten thousand retained messages costs one [`Cursor`].

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use super::filter;
use super::message::Message;

/// Entries a cursor looks at in one go; then others get their turn.
const LOOKED_AT_MAX: usize = 2_000;

/// A retained message, found by its topic.
#[derive(Debug)]
struct ByTopic(Arc<Message>);

impl Borrow<[u8]> for ByTopic {
    fn borrow(&self) -> &[u8] {
        self.0.topic_bytes()
    }
}

impl Hash for ByTopic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.topic_bytes().hash(state);
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic_bytes() == other.0.topic_bytes()
    }
}

impl Eq for ByTopic {}

/// All retained messages. A publish to a known topic is one look-up; the order is for cursors over wildcards, and is
/// touched only when a topic comes or goes.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: HashSet<ByTopic>,
    order: BTreeSet<Box<str>>,
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

impl Retained {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, topic: &[u8]) -> Option<&Arc<Message>> {
        self.messages.get(topic).map(|found| &found.0)
    }

    /// What the store would weigh with this message in it: messages and bytes.
    pub(super) fn with(&self, message: &Message) -> (usize, usize) {
        match self.get(message.topic_bytes()) {
            Some(old) => (self.len(), self.bytes - old.weight_bytes() + message.weight_bytes()),
            None => (self.len() + 1, self.bytes + message.weight_bytes()),
        }
    }

    /// The stamp of a message that is about to be retained.
    pub(super) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Keeps a message; gives the one it replaces.
    pub(super) fn insert(&mut self, message: Arc<Message>) -> Option<Arc<Message>> {
        self.bytes += message.weight_bytes();
        let old = self.messages.replace(ByTopic(Arc::clone(&message))).map(|found| found.0);
        match &old {
            Some(old) => self.bytes -= old.weight_bytes(),
            None => drop(self.order.insert(message.topic().into())),
        }
        old
    }

    /// Forgets a topic's message.
    pub(super) fn remove(&mut self, topic: &str) -> Option<Arc<Message>> {
        let old = self.messages.take(topic.as_bytes())?.0;
        self.order.remove(topic);
        self.bytes -= old.weight_bytes();
        Some(old)
    }

    /// After a panic in the middle of a change: what is derived is made anew.
    pub(super) fn repair(&mut self) {
        self.order = self.messages.iter().map(|found| found.0.topic().into()).collect();
        self.bytes = self.messages.iter().map(|found| found.0.weight_bytes()).sum();
    }

    /// Topics whose message has expired.
    pub(super) fn expired(&self, now_ms: i64) -> Vec<Box<str>> {
        self.messages.iter().filter(|found| found.0.is_expired(now_ms)).map(|found| found.0.topic().into()).collect()
    }

    /// A cursor over what a filter matches now.
    pub(super) fn cursor(&self, filter: &str, options: u8, id: u32, lost: u64) -> Cursor {
        Cursor { filter: filter.into(), after: None, stamp: self.stamp, lost, options, id }
    }

    /// The next message for a cursor; `lost` is what its session has lost by now.
    pub(super) fn step(&self, cursor: &mut Cursor, lost: u64, now_ms: i64) -> Step {
        let all = lost > cursor.lost;
        let since = cursor.stamp;
        let wanted = |topic: &str| {
            let message = self.get(topic.as_bytes())?;
            ((all || message.stamp <= since) && !message.is_expired(now_ms)).then_some(message)
        };
        if !cursor.filter.contains(['+', '#']) {
            if cursor.after.replace(String::new()).is_some() {
                return Step::End;
            }
            return match wanted(&cursor.filter) {
                Some(message) => Step::Message(Arc::clone(message)),
                None => Step::End,
            };
        }
        let prefix = filter::prefix(&cursor.filter);
        let from = match &cursor.after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(prefix),
        };
        let mut seen = 0;
        let mut found = None;
        let mut last = None;
        for topic in self.order.range::<str, _>((from, Bound::Unbounded)) {
            if !topic.starts_with(prefix) {
                return Step::End;
            }
            last = Some(topic);
            if filter::matches(&cursor.filter, topic) {
                found = wanted(topic);
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
        found.map_or(Step::Busy, |message| Step::Message(Arc::clone(message)))
    }
}
