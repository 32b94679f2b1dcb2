//! What the broker counts.
//!
//! In: events, from any task. Out: a [`Stats`] at any time. Must never need a lock on the way of a message.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only rises, or a gauge.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) messages_in: Count,
    pub(super) messages_out: Count,
    pub(super) bytes_in: Count,
    pub(super) bytes_out: Count,
    pub(super) dropped_queue_full: Count,
    pub(super) dropped_expired: Count,
    pub(super) dropped_too_large: Count,
    pub(super) dropped_session_ended: Count,
    pub(super) refused_publishes: Count,
    pub(super) refused_clients: Count,
    pub(super) faults: Count,
}

/// The broker at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Clients that are connected from outside this program.
    pub clients: usize,
    /// Sessions, those of absent clients included.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// What they weigh, in bytes.
    pub retained_bytes: usize,
    /// What waits for clients, in bytes.
    pub queued_bytes: usize,
    /// Messages published, the gateway's own included.
    pub messages_in: u64,
    /// Messages delivered.
    pub messages_out: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Messages given up, by cause.
    pub dropped: Dropped,
    /// Publishes refused by a rule, by the desk or at a bound.
    pub refused_publishes: u64,
    /// Connections refused.
    pub refused_clients: u64,
    /// Faults of the engine itself that were caught; 0 unless the broker has a bug.
    pub faults: u64,
}

/// Messages given up, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The client's queue was full.
    pub queue_full: u64,
    /// The message expired while it waited.
    pub expired: u64,
    /// The client takes no packet of that size.
    pub too_large: u64,
    /// The client's session ended before it came back.
    pub session_ended: u64,
}
