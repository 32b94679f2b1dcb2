//! What the other broker is known to have kept.
//!
//! In: what was said, the retained mark, the echo, time. Out: whether all, some or nothing has to be said again. Must
//! never trust a broker that did not show the mark.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::super::{Heard, Message};
use crate::name::DeviceId;
use crate::value::Now;

/// A mark is published this long after the first thing was said that it stands for.
const MARK_MS: u64 = 30_000;

/// … and this long after it was found that all has to be said again: what is said from then on is after it, so that a
/// link that flaps gets on. Long enough for the marks of the outbox to be on disk.
const AGAIN_MS: u64 = 2_000;

/// A broker that does not send an echo in this time does not let us read; then all is said again at each connect.
const ECHO_MS: u64 = 10_000;

/// The retained mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) epoch: String,
    pub(super) count: u64,
}

/// The question under way.
#[derive(Debug)]
enum Asked {
    Nothing,
    /// An echo was sent; the mark that came before it.
    Echo {
        echo: String,
        since: u64,
        kept: Option<u64>,
    },
    Answered,
}

#[derive(Debug)]
pub(super) struct Mark {
    /// The last mark published, and the last that the broker is known to have had.
    count: u64,
    known: u64,
    /// Whether there is anything to compare with.
    fresh: bool,
    /// Devices said after the last mark, and those said between the known mark and the last.
    after: BTreeSet<DeviceId>,
    between: BTreeSet<DeviceId>,
    due: Option<u64>,
    asked: Asked,
    connections: u64,
}

impl Mark {
    pub(super) fn new(known: Option<u64>, after: Vec<DeviceId>) -> Self {
        let count = known.unwrap_or(0);
        Self {
            count,
            known: count,
            fresh: count == 0,
            after: after.into_iter().collect(),
            between: BTreeSet::new(),
            due: None,
            asked: Asked::Nothing,
            connections: 0,
        }
    }

    /// The link is up: the echo to send.
    pub(super) fn ask(&mut self, now: Now) -> String {
        self.connections += 1;
        // No earlier question, of this run or another, has the same words.
        let echo = format!("{}-{}-{}", now.wall.as_ms(), now.tick, self.connections);
        self.asked = Asked::Echo { echo: echo.clone(), since: now.tick, kept: None };
        echo
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.asked, Asked::Answered)
    }

    /// A mark came: the broker's, or our own on its way back.
    pub(super) fn heard(&mut self, message: &Message, epoch: &str) {
        let Ok(mark) = serde_json::from_slice::<Kept>(&message.payload) else { return };
        if mark.epoch != epoch {
            return;
        }
        if let Asked::Echo { kept, .. } = &mut self.asked {
            if message.retain {
                *kept = Some(mark.count);
            }
        } else if mark.count == self.count {
            self.known = self.count;
            self.between.clear();
        }
    }

    /// The echo came back: the mark has come by now, or there is none.
    pub(super) fn echoed(&mut self, payload: &[u8], now: Now) -> Vec<Heard> {
        let Asked::Echo { echo, kept, .. } = &self.asked else { return Vec::new() };
        if echo.as_bytes() != payload {
            return Vec::new();
        }
        let kept = *kept;
        self.settle(kept, now)
    }

    /// The echo does not come.
    pub(super) fn overdue(&mut self, now: Now) -> Vec<Heard> {
        match self.asked {
            Asked::Echo { since, .. } if now.tick.saturating_sub(since) >= ECHO_MS => self.settle(None, now),
            _ => Vec::new(),
        }
    }

    fn settle(&mut self, kept: Option<u64>, now: Now) -> Vec<Heard> {
        self.asked = Asked::Answered;
        let heard = match kept {
            // After a restart the broker may have a later one than was written down.
            Some(kept) if kept >= self.count => {
                self.count = kept;
                std::mem::take(&mut self.between);
                self.again()
            }
            Some(kept) if kept >= self.known && !self.fresh => {
                let between = std::mem::take(&mut self.between);
                self.after.extend(between);
                self.again()
            }
            _ => {
                self.after.clear();
                self.between.clear();
                vec![Heard::Resync(None)]
            }
        };
        let all = heard.contains(&Heard::Resync(None));
        self.fresh = false;
        self.known = kept.unwrap_or(0).min(self.count);
        self.due = match all {
            true => Some(now.tick.saturating_add(AGAIN_MS)),
            false => (!self.after.is_empty()).then_some(now.tick.saturating_add(MARK_MS)),
        };
        heard
    }

    fn again(&self) -> Vec<Heard> {
        self.after.iter().map(|device| Heard::Resync(Some(device.clone()))).collect()
    }

    /// Something of a device is said.
    pub(super) fn said(&mut self, device: &DeviceId, now: Now) {
        if !self.after.contains(device) {
            self.after.insert(device.clone());
        }
        self.due.get_or_insert(now.tick.saturating_add(MARK_MS));
    }

    /// The next mark, when its time has come.
    pub(super) fn next(&mut self, now: Now) -> Option<u64> {
        if !self.is_answered() || self.due.is_none_or(|due| now.tick < due) {
            return None;
        }
        self.due = None;
        self.count += 1;
        self.between.append(&mut self.after);
        Some(self.count)
    }

    /// The link is gone: what to remember, the mark and the devices it does not stand for.
    pub(super) fn disconnected(&mut self) -> (u64, BTreeSet<DeviceId>) {
        self.asked = Asked::Nothing;
        self.due = None;
        (self.known, &self.after | &self.between)
    }
}

/// FNV-1a; tells payloads apart.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
