//! What became of a packet, and how often.
//!
//! In: outcomes. Out: counts. Must never have a way for a packet to vanish.

/// What became of one advertisement of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was read to its end.
    Decoded,
    /// Its first objects were read; behind them stands one this version does not know.
    Partial,
    /// It carries nothing that the profile's decoders know.
    Unknown,
    /// Its bytes contradict their own format.
    Malformed,
    /// The same packet again, inside the window.
    Duplicate,
    /// An encrypted packet with a counter that was used before.
    Replayed,
    /// The key does not open it: another key, or a forgery.
    Undecryptable,
    /// It is encrypted, and the device has no key.
    NoKey,
    /// It came in clear text from a device that encrypts.
    Downgraded,
}

impl Outcome {
    /// All of them, in the order of [`Counters::iter`].
    pub const ALL: [Self; 9] = [
        Self::Decoded,
        Self::Partial,
        Self::Unknown,
        Self::Malformed,
        Self::Duplicate,
        Self::Replayed,
        Self::Undecryptable,
        Self::NoKey,
        Self::Downgraded,
    ];

    /// Its word in metrics and lists.
    pub fn word(self) -> &'static str {
        match self {
            Self::Decoded => "decoded",
            Self::Partial => "partial",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Replayed => "replayed",
            Self::Undecryptable => "undecryptable",
            Self::NoKey => "no_key",
            Self::Downgraded => "downgraded",
        }
    }

    /// Whether values came out of it.
    pub fn has_values(self) -> bool {
        matches!(self, Self::Decoded | Self::Partial)
    }

    /// Whether the packet may come from somebody else than the device: no sign of life then.
    pub fn is_suspect(self) -> bool {
        matches!(self, Self::Replayed | Self::Undecryptable | Self::Downgraded)
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// How often each outcome was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; Outcome::ALL.len()]);

impl Counters {
    /// Counts one.
    pub fn count(&mut self, outcome: Outcome) {
        if let Some(count) = self.0.get_mut(outcome.index()) {
            *count = count.saturating_add(1);
        }
    }

    /// How often.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome.index()).copied().unwrap_or(0)
    }

    /// Words and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Outcome::ALL.into_iter().map(|outcome| (outcome.word(), self.get(outcome)))
    }

    /// All packets together.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = own.saturating_add(other);
        }
    }
}
