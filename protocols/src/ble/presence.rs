//! Whether a device is there: heard within its time, or not.
//!
//! In: sightings and the tick. Out: each change, once. Must never say "away" of a device before its time has run from
//! the moment somebody began to listen.

/// The state of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    timeout_ms: u64,
    since: Option<u64>,
    present: Option<bool>,
}

impl Presence {
    /// Not heard yet; away after `timeout_ms` of silence.
    pub fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, since: None, present: None }
    }

    /// Takes a sighting in; says whether it is news.
    pub fn on_sighting(&mut self, tick: u64) -> bool {
        self.since = Some(tick);
        self.present.replace(true) != Some(true)
    }

    /// Looks at the clock; says whether the device has just gone.
    pub fn check(&mut self, tick: u64) -> bool {
        let since = *self.since.get_or_insert(tick);
        let is_late = tick.saturating_sub(since) >= self.timeout_ms;
        is_late && self.present.replace(false) != Some(false)
    }

    /// For so many milliseconds nobody could hear it: they do not count.
    pub fn on_deaf(&mut self, ms: u64, tick: u64) {
        self.since = self.since.map(|since| since.saturating_add(ms).min(tick));
    }

    /// Whether it is there; `None` until that is known.
    pub fn is_present(&self) -> Option<bool> {
        self.present
    }

    /// When to look at the clock again, as a tick; `None` while it is away.
    pub fn deadline(&self) -> Option<u64> {
        match (self.since, self.present) {
            (_, Some(false)) => None,
            (None, _) => Some(0),
            (Some(since), _) => Some(since.saturating_add(self.timeout_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_goes_and_comes_back_once_each() {
        let mut presence = Presence::new(1_000);
        assert_eq!(presence.deadline(), Some(0));
        assert!(!presence.check(500));
        assert_eq!((presence.deadline(), presence.is_present()), (Some(1_500), None));
        assert!(presence.on_sighting(1_400));
        assert!(!presence.on_sighting(1_450));
        assert!(!presence.check(2_449));
        assert!(presence.check(2_450));
        assert!(!presence.check(9_000));
        assert_eq!((presence.deadline(), presence.is_present()), (None, Some(false)));
        assert!(presence.on_sighting(9_001));
        assert_eq!(presence.deadline(), Some(10_001));
    }

    #[test]
    fn time_in_which_nobody_could_hear_it_is_no_silence() {
        let mut presence = Presence::new(1_000);
        presence.on_sighting(0);
        presence.on_deaf(900, 950);
        assert!(!presence.check(1_899));
        assert!(presence.check(1_900));
        presence.on_sighting(2_000);
        presence.on_deaf(900, 2_100);
        assert_eq!(presence.deadline(), Some(3_100), "its silence cannot begin in the future");
    }

    #[test]
    fn a_device_that_is_never_heard_is_away_after_its_time() {
        let mut presence = Presence::new(1_000);
        assert!(!presence.check(7_000));
        assert!(!presence.check(7_999));
        assert!(presence.check(8_000));
    }
}
