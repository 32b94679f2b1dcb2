//! What every measurement shares: processes and what they cost, a Modbus device of many ports, a light MQTT client,
//! and the table at the end.
//!
//! In: the command line of a bench. Out: Markdown tables on standard output, ready for `docs/measured.md`. Must never
//! judge by time: a bench fails when something is lost or wrong, never when it is slow. Load is on loopback and
//! bounded by counts and seconds.

pub mod modsim;
pub mod mqtt;
pub mod process;
pub mod table;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a bench was called.
#[derive(Clone, Debug)]
pub struct Run {
    /// A few seconds a case and one round; the figures are only good for seeing that it works.
    pub quick: bool,
    only: Vec<String>,
    command: String,
}

impl Run {
    /// Reads the command line. Words that are no switches choose the cases whose name contains one of them.
    pub fn new(bench: &str) -> Self {
        let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
        let quick = words.iter().any(|word| word == "--quick");
        let only = words.iter().filter(|word| !word.starts_with('-')).cloned().collect();
        let command = format!("cargo bench -p tests --bench {bench} -- {}", words.join(" "));
        Self { quick, only, command: command.trim_end_matches([' ', '-']).to_owned() }
    }

    /// Whether a case is wanted.
    pub fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| case.contains(word.as_str()))
    }

    /// Rounds of A B A B.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// How long a case is watched, after its warm-up.
    pub fn watched(&self, seconds: u64) -> Duration {
        Duration::from_secs(if self.quick { 2.min(seconds) } else { seconds })
    }

    /// How many of something a case does.
    pub fn count(&self, full: usize) -> usize {
        if self.quick { full / 5 } else { full }
    }

    /// Prints what ran where, before the first table.
    pub fn head(&self) {
        table::say(&format!("`{}` on {}", self.command, process::machine()));
    }
}

/// The words behind `--child`, when this process was started by [`process::Helper`].
pub fn child() -> Option<Vec<String>> {
    let mut words = std::env::args().skip(1);
    (words.next().as_deref() == Some("--child")).then(|| words.collect())
}

/// Microseconds of the wall clock: the one clock that two processes share here.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A pseudo random sequence (xorshift64*), the same in every run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % limit.max(1)
    }
}
