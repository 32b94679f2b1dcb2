//! How an upstream stands, for `gateway/status`, `tidegate status` and whoever waits for a change.
//!
//! In: what the upstream's task knows. Out: one word, and the details. Must never hold a secret.

use std::sync::{Arc, Mutex, PoisonError};

use protocols::value::{Timestamp, Value};
use serde_json::json;
use tokio::sync::Notify;

/// The one word of the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Word {
    /// The first connection is being made.
    #[default]
    Connecting,
    /// The link is up, and what the other side missed is being said.
    Syncing,
    /// Both sides hold the same, or what differs is seconds old.
    Synced,
    /// There is no link; it is tried again.
    Away,
    /// The gateway stops.
    Stopped,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Syncing => "syncing",
            Self::Synced => "synced",
            Self::Away => "away",
            Self::Stopped => "stopped",
        }
    }
}

/// The details.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) word: Word,
    pub(super) since: Timestamp,
    pub(super) protocol: Option<&'static str>,
    /// When something last came from the other side.
    pub(super) last_contact: Option<Timestamp>,
    pub(super) last_error: Option<String>,
    /// Slots the other side has not acknowledged yet.
    pub(super) dirty: usize,
    pub(super) in_flight: usize,
    /// Age of the oldest thing that is not said, in seconds.
    pub(super) oldest_unsent_s: Option<u64>,
    pub(super) spool_rows: u64,
    /// Readings on disk …
    pub(super) spool_bytes: u64,
    /// … and in memory.
    pub(super) spool_memory_bytes: u64,
    /// Batches acknowledged.
    pub(super) said: u64,
    /// Readings given up; each is told to the other side as a gap.
    pub(super) gaps: u64,
    /// Batches and wishes that one side refused for good.
    pub(super) refused: u64,
    pub(super) wishes: u64,
    pub(super) conflicts: u64,
    /// Messages of the other side that meant nothing.
    pub(super) senseless: u64,
    /// Local messages lost before the bridge could read them; what they said of state was read again.
    pub(super) missed: u64,
    pub(super) connects: u64,
    /// PUBACKs nobody waited for.
    pub(super) stray_acks: u64,
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
}

impl Standing {
    fn to_json(&self) -> Value {
        json!({
            "state": self.word.as_str(),
            "since": self.since,
            "protocol": self.protocol,
            "last_contact": self.last_contact,
            "last_error": self.last_error,
            "dirty": self.dirty,
            "in_flight": self.in_flight,
            "oldest_unsent_s": self.oldest_unsent_s,
            "spool_rows": self.spool_rows,
            "spool_bytes": self.spool_bytes,
            "spool_memory_bytes": self.spool_memory_bytes,
            "said": self.said,
            "gaps": self.gaps,
            "refused": self.refused,
            "wishes": self.wishes,
            "conflicts": self.conflicts,
            "senseless": self.senseless,
            "missed": self.missed,
            "reconnects": self.connects.saturating_sub(1),
            "stray_acks": self.stray_acks,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
        })
    }
}

/// What the task writes and the gateway reads.
#[derive(Clone, Debug)]
pub(super) struct Board {
    standing: Arc<Mutex<Standing>>,
    changed: Arc<Notify>,
}

impl Board {
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self { standing: Arc::default(), changed }
    }

    /// Writes; who waits for a change of the word is told.
    pub(super) fn write(&self, standing: &Standing) {
        let mut held = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = held.word != standing.word;
        *held = standing.clone();
        drop(held);
        if turned {
            self.changed.notify_one();
        }
    }

    /// The word and the details.
    pub(super) fn read(&self) -> (&'static str, Value) {
        let held = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        (held.word.as_str(), held.to_json())
    }
}
