//! How many bytes a thread has written: what the flash card feels.

use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what the thread that made it hands to the kernel. Where there is no `/proc` it stays at 0.
#[derive(Debug)]
pub(super) struct Meter {
    file: Option<File>,
    start: u64,
    total: Arc<AtomicU64>,
}

impl Meter {
    /// Starts to count for the calling thread; what it wrote until now does not count.
    pub(super) fn new(total: Arc<AtomicU64>) -> Self {
        let mut meter = Self { file: File::open("/proc/thread-self/io").ok(), start: 0, total };
        meter.start = meter.now();
        meter
    }

    /// Adds what was written since the last call to the total, and gives it.
    pub(super) fn step(&mut self) -> u64 {
        let now = self.now();
        let step = now.saturating_sub(self.start);
        self.start = now;
        self.total.fetch_add(step, Ordering::Relaxed);
        step
    }

    fn now(&mut self) -> u64 {
        let Some(file) = &mut self.file else { return 0 };
        let mut text = String::with_capacity(160);
        if file.rewind().is_err() || file.read_to_string(&mut text).is_err() {
            return 0;
        }
        let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}
