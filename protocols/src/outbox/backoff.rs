//! How long to wait before the next attempt to connect.
//!
//! In: attempts that failed, connections that were made, random bits, time. Out: a pause. Must never let a thousand
//! gateways come back in the same second, nor one of them knock every second for a week.

/// The first pause is between half of this and all of it.
const FIRST_MS: u64 = 2_000;

/// The longest pause; a party that is back is noticed this late at worst.
pub(super) const LONGEST_MS: u64 = 120_000;

/// A connection that held for this long starts the pauses anew.
pub(super) const QUIET_MS: u64 = 60_000;

/// Pauses between attempts: doubled each time, from 1 s to 2 min, half of each left to chance.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    up_since: Option<u64>,
}

impl Backoff {
    /// With no failure behind it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The link is up.
    pub fn connected(&mut self, now_tick: u64) {
        self.up_since = Some(now_tick);
    }

    /// An attempt failed or the link broke: how long to wait, in milliseconds. `random` is any number.
    pub fn failed(&mut self, random: u64, now_tick: u64) -> u64 {
        if self.up_since.take().is_some_and(|since| now_tick.saturating_sub(since) >= QUIET_MS) {
            self.failures = 0;
        }
        let whole = FIRST_MS.checked_shl(self.failures.min(20)).unwrap_or(LONGEST_MS).min(LONGEST_MS);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + random % (whole / 2 + 1)
    }
}
