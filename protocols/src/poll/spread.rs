//! Where a wire stands among the other wires of a gateway.
//!
//! In: the wire's name, an interval. Out: an offset inside the interval. Must never tear groups of one wire apart that
//! could share a tick.

/// From one place to the next, in milliseconds: what a gateway does for some tens of devices at one tick fits in
/// between, on a small board as well.
pub const STEP_MS: u64 = 10;
/// Places there are at most, so that a slow group does not have a tick of its own in every hundredth of a minute: the
/// first second of an interval is used.
pub const PLACES: u64 = 100;

/// A wire's place among others, from its name: it stays the same over restarts, and whatever wires come and go.
///
/// Wires know nothing of one another. Without a place of their own, all groups of one interval on all wires would be due
/// at the same tick: a hundred answers arrive in the same millisecond, are worked off one after the other, and the
/// last value is as old as all the others took. With it they are due in groups of [`STEP_MS`]. The price is more
/// wake-ups: up to one in [`STEP_MS`] on a gateway with many wires, where one an interval would do; those of one wire,
/// and of wires that share a place, are still shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// The place of a wire.
    pub fn of(wire: &str) -> Self {
        // FNV-1a, 64 bits (Fowler, Noll, Vo), its upper half folded in: names that end in a counter differ in all bits.
        let hash = wire
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self((hash ^ hash >> 32) % PLACES)
    }

    /// The offset of a group of this interval, in milliseconds. Where one interval divides another, their ticks meet:
    /// the places there are for the shorter one divide those for the longer one, or are a part of them.
    pub(super) fn offset_ms(self, interval_ms: u64) -> u64 {
        self.0 % (interval_ms / STEP_MS).clamp(1, PLACES) * STEP_MS
    }
}
