//! How fast a backlog goes out.
//!
//! In: bytes said, time. Out: whether more may be said. Must never hold up what is live.

/// A bucket of bytes that fills with time. It may be overdrawn by one batch, so that a batch larger than the bucket
/// still goes.
#[derive(Clone, Debug)]
pub struct Pace {
    bytes_per_s: u64,
    burst: i64,
    /// Thousandths of a byte.
    level: i64,
    at: u64,
}

impl Pace {
    /// Lets `bytes_per_s` bytes go in a second on average, 0 for as many as there are, and `burst_bytes` at once after
    /// a pause.
    pub fn new(bytes_per_s: u64, burst_bytes: usize) -> Self {
        let burst = i64::try_from(burst_bytes).unwrap_or(i64::MAX / 2000).clamp(1, i64::MAX / 2000) * 1000;
        Self { bytes_per_s, burst, level: burst, at: 0 }
    }

    /// Whether backlog may go now.
    pub fn is_open(&mut self, tick: u64) -> bool {
        self.fill(tick);
        self.bytes_per_s == 0 || self.level > 0
    }

    /// When it may go again: a tick.
    pub fn opens_at(&mut self, tick: u64) -> u64 {
        self.fill(tick);
        if self.bytes_per_s == 0 || self.level > 0 {
            return tick;
        }
        let missing = self.level.unsigned_abs() + 1;
        tick.saturating_add(missing.div_ceil(self.bytes_per_s))
    }

    /// So many bytes of backlog went.
    pub fn spend(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(1000);
        self.level = self.level.saturating_sub(bytes);
    }

    fn fill(&mut self, tick: u64) {
        let passed = tick.saturating_sub(self.at);
        self.at = self.at.max(tick);
        let more = i64::try_from(passed.saturating_mul(self.bytes_per_s)).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(more).min(self.burst);
    }
}
