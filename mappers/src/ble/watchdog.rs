//! A watchdog for scans that silently stall: controllers and bluetoothd are known to say that they scan and to hear nothing.
//!
//! In: when something was heard. Out: when to begin the scan anew, and when to switch the adapter off and on. Must never
//! disturb a radio that hears, nor keep on disturbing one around which there is nothing to hear.

use std::time::Duration;

use tokio::time::Instant;

/// Without a single advertisement for this time the scan is begun anew.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest pause between two attempts when nothing helps: maybe there is nothing in the air.
const SILENCE_MAX: Duration = Duration::from_secs(1_800);
/// New beginnings of the scan without effect before the adapter itself is switched off and on.
const RESTARTS: u32 = 2;

/// What to do about a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// Begin the scan anew.
    Rescan,
    /// Switch the adapter off and on.
    Reset,
}

/// The watchdog.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    due: Instant,
    pause: Duration,
    tried: u32,
}

impl Watchdog {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + SILENCE, pause: SILENCE, tried: 0 }
    }

    /// Something was heard.
    pub(super) fn on_heard(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// When the silence is too long.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The silence is too long. Each time it takes twice as long until the next cure.
    pub(super) fn on_due(&mut self, now: Instant) -> Cure {
        self.tried += 1;
        if self.tried > RESTARTS {
            self.pause = (self.pause * 2).min(SILENCE_MAX);
        }
        self.due = now + self.pause;
        if self.tried.is_multiple_of(RESTARTS + 1) { Cure::Reset } else { Cure::Rescan }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_scan_is_begun_anew_then_the_adapter_is_reset_ever_more_rarely() {
        let begin = Instant::now();
        let mut dog = Watchdog::new(begin);
        let mut seen = Vec::new();
        for _ in 0..9 {
            let due = dog.due();
            seen.push(((due - begin).as_secs(), dog.on_due(due)));
        }
        use Cure::{Rescan, Reset};
        let expected = [
            (60, Rescan),
            (120, Rescan),
            (180, Reset),
            (300, Rescan),
            (540, Rescan),
            (1_020, Reset),
            (1_980, Rescan),
            (3_780, Rescan),
            (5_580, Reset),
        ];
        assert_eq!(seen, expected);
        dog.on_heard(begin + Duration::from_secs(6_000));
        assert_eq!(dog.due(), begin + Duration::from_secs(6_060));
        assert_eq!(dog.on_due(dog.due()), Rescan);
    }
}
