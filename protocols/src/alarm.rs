//! Alarms: conditions with memory.
//!
//! In: an [`Alarm`] of a profile, the tick, what the device's properties hold. Out: whether it was raised or cleared.
//! Must never change its mind because a reading is missing.

use crate::expr::Scope;
use crate::profile::Alarm;

/// Where one alarm of one device stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlarmState {
    raised: Option<bool>,
    /// Since when the condition for the other state holds without having been seen to fail.
    pending_since_ms: Option<u64>,
}

impl AlarmState {
    /// Whether it is raised; `None` until its condition could be decided for the first time.
    pub fn raised(&self) -> Option<bool> {
        self.raised
    }

    /// Looks at the condition at `now_ms` and says what changed: `Some(true)` raised, `Some(false)` cleared or, at the
    /// first decision, not raised.
    ///
    /// While an input is missing, bad or stale the condition cannot be decided: the alarm stays as it is, and a hold
    /// time that has begun goes on — it ends only when the condition is seen not to hold.
    pub fn step(&mut self, alarm: &Alarm, now_ms: u64, scope: &dyn Scope) -> Option<bool> {
        let raised = self.raised == Some(true);
        if raised && alarm.latch {
            return None;
        }
        let turns = match (&alarm.clear, raised) {
            (_, false) => alarm.when.holds(scope),
            (Some(clear), true) => clear.holds(scope),
            (None, true) => alarm.when.holds(scope).map(|holds| !holds),
        };
        let Ok(turns) = turns else { return None };
        if !turns {
            self.pending_since_ms = None;
            return self.decide();
        }
        let since_ms = *self.pending_since_ms.get_or_insert(now_ms);
        let hold = if raised { alarm.clear_hold } else { alarm.hold };
        if u128::from(now_ms.saturating_sub(since_ms)) < hold.as_millis() {
            return self.decide();
        }
        self.pending_since_ms = None;
        self.raised = Some(!raised);
        self.raised
    }

    /// The first decision that does not raise is news too.
    fn decide(&mut self) -> Option<bool> {
        if self.raised.is_some() {
            return None;
        }
        self.raised = Some(false);
        self.raised
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::expr::{Expression, Window};
    use crate::value::{Quality, Value};

    /// A voltage; `None` when it cannot be read.
    struct Voltage(Option<f64>);

    impl Scope for Voltage {
        fn value(&self, _name: &str) -> Option<Value> {
            self.0.map(|voltage| json!(voltage))
        }

        fn quality(&self, _name: &str) -> Option<Quality> {
            self.0.map(|_| Quality::Good)
        }

        fn age_ms(&self, _name: &str) -> Option<u64> {
            None
        }

        fn window(&self, _name: &str, _window_ms: u64) -> Option<Window> {
            None
        }

        fn previous(&self, _name: &str) -> Option<Value> {
            None
        }
    }

    fn alarm(when: &str, clear: Option<&str>, latch: bool) -> Alarm {
        let parse = |text| Expression::parse(text, &["voltage"]).unwrap();
        let [hold, clear_hold] = [Duration::from_secs(10), Duration::from_secs(30)];
        let severity = "major".to_owned();
        Alarm { when: parse(when), clear: clear.map(parse), hold, clear_hold, severity, text: None, latch }
    }

    /// Steps of (second, voltage, expected change).
    type Steps = [(u64, Option<f64>, Option<bool>)];

    fn check(promise: &str, alarm: &Alarm, steps: &Steps) {
        let mut state = AlarmState::default();
        for (second, voltage, expected) in steps {
            let got = state.step(alarm, second * 1000, &Voltage(*voltage));
            assert_eq!(got, *expected, "{promise}: at {second} s with {voltage:?}");
        }
    }

    #[test]
    fn an_alarm_holds_its_times_and_its_band() {
        let band = alarm("voltage > 253", Some("voltage < 250"), false);
        check(
            "raised after 10 s above, cleared after 30 s below the lower limit",
            &band,
            &[
                (0, Some(260.0), Some(false)),
                (9, Some(260.0), None),
                (10, Some(260.0), Some(true)),
                (20, Some(251.0), None),
                (60, Some(251.0), None),
                (61, Some(249.0), None),
                (90, Some(249.0), None),
                (91, Some(249.0), Some(false)),
            ],
        );
        check(
            "a dip starts the time again",
            &band,
            &[
                (0, Some(260.0), Some(false)),
                (5, Some(250.0), None),
                (6, Some(260.0), None),
                (15, Some(260.0), None),
                (16, Some(260.0), Some(true)),
            ],
        );
        check(
            "a missing reading neither raises nor clears, nor stops a time that runs",
            &band,
            &[
                (0, None, None),
                (1, Some(260.0), Some(false)),
                (5, None, None),
                (30, None, None),
                (31, Some(260.0), Some(true)),
                (100, None, None),
            ],
        );
        check(
            "without a clear condition the opposite clears",
            &alarm("voltage > 253", None, false),
            &[
                (0, Some(260.0), Some(false)),
                (10, Some(260.0), Some(true)),
                (11, Some(253.0), None),
                (41, Some(253.0), Some(false)),
            ],
        );
        check(
            "a latched alarm stays",
            &alarm("voltage > 253", None, true),
            &[
                (0, Some(260.0), Some(false)),
                (10, Some(260.0), Some(true)),
                (99, Some(1.0), None),
                (999, Some(1.0), None),
            ],
        );
    }
}
