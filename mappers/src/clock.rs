//! The only clock: a tick that moves forward, and the wall clock for people.
//!
//! In: nothing. Out: [`Now`], and instants to sleep until. Must never be used inside `protocols`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocols::value::{Now, Timestamp};
use tokio::time::Instant;

/// Gives the time. Copies share their beginning.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begin: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { begin: Instant::now() }
    }
}

impl Clock {
    /// A clock whose tick begins at 0 now.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the time is.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| millis(since).cast_signed());
        Now { tick: self.tick(), wall: Timestamp::from_ms(wall) }
    }

    /// Milliseconds since the clock began.
    pub fn tick(&self) -> u64 {
        millis(self.begin.elapsed())
    }

    /// The instant of a tick; far away ones are a day from now, so that nothing overflows.
    pub fn instant(&self, tick: u64) -> Instant {
        const DAY: Duration = Duration::from_secs(86_400);
        self.begin.checked_add(Duration::from_millis(tick)).unwrap_or_else(|| Instant::now() + DAY)
    }
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
