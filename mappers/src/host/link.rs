//! The health of one wire: whether it is open, when it is tried again, how busy it is.
//!
//! In: how opening went, how long transactions took. Out: when to try, and a [`WireStatus`]. Must never say twice that a
//! wire is down, nor call a server impolite that closes an idle connection.

use protocols::message::WireStatus;
use protocols::value::{Now, Timestamp};

use crate::port::Counters;

/// The first pause before a wire is opened again, in milliseconds; doubling.
const REOPEN_MIN_MS: u64 = 200;
/// A wire that closes so often without a single answer in between is down, not idle.
const SILENT_REOPENS: u32 = 3;
/// Slices of the last minute over which the share of busy time is taken.
const SLICES: usize = 12;
/// The length of such a slice, in milliseconds.
const SLICE_MS: u64 = 5_000;
/// The status is published at most this often, in milliseconds, unless its state changes.
const STATUS_PAUSE_MS: u64 = 5_000;

/// What changed with an attempt to open the wire, or with its loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is open; devices have to be looked for anew.
    Up,
    /// It was closed while idle and is there again, and nobody has to know.
    Silent,
    /// It is down, and it was not before.
    Down,
    /// Nothing that anybody has to know.
    None,
}

/// The health of one wire.
pub(super) struct Link {
    down: Option<String>,
    ever: bool,
    since: Option<Timestamp>,
    attempts: u32,
    closes: u32,
    pub(super) next_at: u64,
    cap_ms: u64,
    reopened: u64,
    slices: [u64; SLICES],
    slice: u64,
    began: u64,
    published: Option<(u64, WireStatus)>,
    /// Nobody heard what was published last.
    unsaid: bool,
}

impl Link {
    /// A wire that was not opened yet; between tries there are never more than `cap_ms`.
    pub(super) fn new(cap_ms: u64, now: u64) -> Self {
        Self {
            down: None,
            ever: false,
            since: None,
            attempts: 0,
            closes: 0,
            next_at: now,
            cap_ms,
            reopened: 0,
            slices: [0; SLICES],
            slice: now / SLICE_MS,
            began: now,
            published: None,
            unsaid: false,
        }
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.down.as_deref()
    }

    pub(super) fn on_open(&mut self, now: Now) -> Turn {
        self.attempts = 0;
        self.reopened += u64::from(self.ever);
        let first = !self.ever;
        self.ever = true;
        if self.down.take().is_none() && !first {
            return Turn::Silent;
        }
        self.since = Some(now.wall);
        Turn::Up
    }

    pub(super) fn on_refused(&mut self, reason: &str, now: Now) -> Turn {
        self.next_at = now.tick + (REOPEN_MIN_MS << self.attempts.min(16)).min(self.cap_ms);
        self.attempts += 1;
        self.fall(reason, now)
    }

    /// The wire closed under a request.
    pub(super) fn on_gone(&mut self, reason: &str, now: Now) -> Turn {
        self.closes += 1;
        if self.closes <= 1 {
            self.next_at = now.tick;
            return Turn::None;
        }
        self.next_at = now.tick + (REOPEN_MIN_MS << (self.closes - 2).min(16)).min(self.cap_ms);
        if self.closes <= SILENT_REOPENS { Turn::None } else { self.fall(reason, now) }
    }

    fn fall(&mut self, reason: &str, now: Now) -> Turn {
        let fell = self.down.is_none();
        if fell {
            self.since = Some(now.wall);
        }
        self.down = Some(reason.to_owned());
        if fell { Turn::Down } else { Turn::None }
    }

    /// A device answered.
    pub(super) fn on_answer(&mut self) {
        self.closes = 0;
    }

    /// The wire was in use from one tick to another.
    pub(super) fn on_busy(&mut self, from: u64, to: u64) {
        self.roll(to);
        if let Some(slice) = self.slices.get_mut((self.slice % SLICES as u64) as usize) {
            *slice += to.saturating_sub(from);
        }
    }

    fn roll(&mut self, now: u64) {
        let slice = now / SLICE_MS;
        for passed in (self.slice + 1..=slice).take(SLICES) {
            if let Some(old) = self.slices.get_mut((passed % SLICES as u64) as usize) {
                *old = 0;
            }
        }
        self.slice = self.slice.max(slice);
    }

    /// The status, when it is time to publish it.
    pub(super) fn status(&mut self, counters: Counters, now: Now) -> Option<WireStatus> {
        let state = match (&self.down, self.ever) {
            (Some(_), _) => "closed",
            (None, true) => "open",
            (None, false) => "idle",
        };
        let soon = self.published.as_ref().is_some_and(|(at, status)| {
            status.state == state && status.reason == self.down && now.tick < at + STATUS_PAUSE_MS
        });
        if soon {
            return None;
        }
        self.roll(now.tick);
        let span = (now.tick - self.began).clamp(1, SLICES as u64 * SLICE_MS);
        let busy = self.slices.iter().sum::<u64>() as f64 / span as f64;
        let status = WireStatus {
            state: state.to_owned(),
            reason: self.down.clone(),
            since: self.since,
            requests: counters.requests,
            answers: counters.answers,
            timeouts: counters.timeouts,
            exceptions: counters.exceptions,
            dropped: counters.dropped,
            retries: counters.retries,
            reopened: self.reopened.max(counters.reopened),
            busy: (busy.min(1.0) * 1000.0).round() / 1000.0,
        };
        let unsaid = std::mem::take(&mut self.unsaid);
        let same = !unsaid && self.published.as_ref().is_some_and(|(_, last)| *last == status);
        self.published = Some((now.tick, status.clone()));
        (!same).then_some(status)
    }

    /// When the status may be due next.
    pub(super) fn status_at(&self) -> u64 {
        self.published.as_ref().map_or(0, |(at, _)| at + STATUS_PAUSE_MS)
    }

    /// What was to be published last did not find room; it is said again after the usual pause, changed or not.
    pub(super) fn unsaid(&mut self) {
        self.unsaid = true;
    }

    /// Publishes anew whatever was published before.
    pub(super) fn forget(&mut self) {
        self.published = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_nobody_heard_is_said_again_though_nothing_changed() {
        let now = |tick: u64| Now { tick, wall: Timestamp::from_ms(1_700_000_000_000) };
        let mut link = Link::new(1_000, 0);
        let first = link.status(Counters::default(), now(0));
        assert!(first.is_some());
        assert_eq!(link.status(Counters::default(), now(STATUS_PAUSE_MS)), None, "nothing changed");
        link.unsaid();
        assert_eq!(link.status(Counters::default(), now(STATUS_PAUSE_MS + 1)), None, "the pause is kept");
        assert_eq!(link.status(Counters::default(), now(2 * STATUS_PAUSE_MS)), first);
        assert_eq!(link.status(Counters::default(), now(3 * STATUS_PAUSE_MS)), None, "said once");
    }
}
