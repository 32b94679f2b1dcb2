//! When a reading is worth a message: dead band, shortest and longest interval, heartbeat, counters, age.
//!
//! In: every reading of one device, and the tick. Out: the readings to send. Must never hold back a change of quality,
//! and never send a value twice because it was read twice.

use crate::profile::{Counter, Deadband, Profile, Property, ReportMode, Source};
use crate::value::{Now, Quality, Reading, Value, same};

/// A heartbeat may come this much early, as a share of `max_interval` (1/20): the reading that arrives a millisecond
/// before its time is the one to send, as the next one may be an interval away.
const HEARTBEAT_EARLY: u64 = 20;
/// How much a step may fall short of the dead band by binary rounding, as a share of the step.
const ROUNDING: f64 = 1e-9;

/// What one device has reported, and the rules for what it will.
#[derive(Clone, Debug, Default)]
pub struct Report {
    rules: Vec<Rule>,
    marks: Vec<Mark>,
    /// Properties whose mark holds something back or grows old; the others are never looked at by the clock.
    timed: Vec<usize>,
    /// The groups whose values are reported only when all were read, by the profile's index.
    atomic: Vec<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    group: usize,
    mode: ReportMode,
    min_ms: u64,
    max_ms: Option<u64>,
    deadband: Option<Deadband>,
    counter: Option<Counter>,
    max_age_ms: Option<u64>,
    wired: bool,
}

#[derive(Clone, Debug, Default)]
struct Mark {
    told: Option<Reading>,
    told_at: u64,
    held: Option<Reading>,
    seen: Option<u64>,
    count: Option<f64>,
    stale: bool,
}

impl Report {
    /// The rules of a profile; nothing is reported yet.
    pub fn new(profile: &Profile) -> Self {
        let rules: Vec<Rule> = profile.properties.iter().map(rule).collect();
        let timed = (0..rules.len())
            .filter(|index| rules.get(*index).is_some_and(|rule| rule.min_ms > 0 || rule.max_age_ms.is_some()))
            .collect();
        let atomic = profile.groups.iter().map(|group| group.atomic).collect();
        Self { marks: vec![Mark::default(); rules.len()], rules, timed, atomic }
    }

    /// Takes one reading; gives what is to be sent, which may differ in quality (a doubted counter).
    pub fn on_reading(&mut self, property: usize, mut reading: Reading, now: Now) -> Option<Reading> {
        let (Some(rule), Some(mark)) = (self.rules.get(property), self.marks.get_mut(property)) else { return None };
        if !reading.quality.is_bad() {
            mark.seen = Some(now.tick);
            mark.stale = false;
            if let Some(counter) = &rule.counter {
                doubt(counter, &mut mark.count, &mut reading);
            }
        }
        let Some(told) = &mark.told else {
            return (rule.mode != ReportMode::Never).then(|| mark.tell(reading, now.tick));
        };
        let since = now.tick.saturating_sub(mark.told_at);
        let heartbeat = rule.max_ms.is_some_and(|max| since + max / HEARTBEAT_EARLY >= max);
        let quality = reading.quality != told.quality;
        let changed = || moved(rule.deadband.as_ref(), &told.value, &reading.value);
        let wanted = match rule.mode {
            ReportMode::Never => return None,
            ReportMode::Always => true,
            ReportMode::Interval => heartbeat,
            ReportMode::OnChange => heartbeat || changed(),
        };
        if quality || (wanted && since >= rule.min_ms) {
            return Some(mark.tell(reading, now.tick));
        }
        // Too soon: the newest is kept and sent when the time has come; a value that went back is forgotten.
        mark.held = wanted.then_some(reading);
        None
    }

    /// Takes what one cycle read of a group: in an atomic group one bad reading holds the good ones back.
    pub fn on_cycle(
        &mut self,
        group: usize,
        readings: impl IntoIterator<Item = (usize, Reading)>,
        now: Now,
        out: &mut Vec<(usize, Reading)>,
    ) {
        let atomic = self.atomic.get(group).copied().unwrap_or_default();
        if atomic {
            let readings: Vec<_> = readings.into_iter().collect();
            let torn = readings.iter().any(|(_, reading)| reading.quality.is_bad());
            let kept = readings.into_iter().filter(|(_, reading)| !torn || reading.quality.is_bad());
            out.extend(kept.filter_map(|(index, reading)| Some((index, self.on_reading(index, reading, now)?))));
        } else {
            let told = readings.into_iter();
            out.extend(told.filter_map(|(index, reading)| Some((index, self.on_reading(index, reading, now)?))));
        }
    }

    /// What the clock alone brings: readings held back by `min_interval`, and values that have grown old, which are
    /// sent again as `uncertain`.
    pub fn on_time(&mut self, now: Now, out: &mut Vec<(usize, Reading)>) {
        for property in &self.timed {
            let (Some(rule), Some(mark)) = (self.rules.get(*property), self.marks.get_mut(*property)) else { continue };
            if mark.held.is_some() && now.tick >= mark.told_at + rule.min_ms {
                out.extend(mark.held.take().map(|held| (*property, mark.tell(held, now.tick))));
            }
            if mark.ages_at(rule).is_some_and(|at| now.tick >= at) {
                mark.stale = true;
                if let Some(told) = mark.told.clone().filter(|_| rule.mode != ReportMode::Never) {
                    let old = Reading { quality: Quality::Uncertain(None), ..told };
                    out.push((*property, mark.tell(old, now.tick)));
                }
            }
        }
    }

    /// The tick at which [`Report::on_time`] has something to do.
    pub fn next_due(&self) -> Option<u64> {
        let due = self.timed.iter().filter_map(|property| {
            let (rule, mark) = (self.rules.get(*property)?, self.marks.get(*property)?);
            let held = mark.held.as_ref().map(|_| mark.told_at + rule.min_ms);
            [held, mark.ages_at(rule)].into_iter().flatten().min()
        });
        due.min()
    }

    /// Whether a value is older than its `max_age`.
    pub fn is_stale(&self) -> bool {
        self.timed.iter().any(|property| self.marks.get(*property).is_some_and(|mark| mark.stale))
    }

    /// Whether the value of a property is older than its `max_age`.
    pub fn is_old(&self, property: usize) -> bool {
        self.marks.get(property).is_some_and(|mark| mark.stale)
    }

    /// Forgets what was sent, so that everything is sent again: the other side may have missed some of it. Counters
    /// keep their memory.
    pub fn forget(&mut self) {
        for mark in &mut self.marks {
            mark.told = None;
            mark.held = None;
        }
    }

    /// The properties a device reads itself; these go bad when it is away.
    pub fn wired(&self) -> impl Iterator<Item = usize> + '_ {
        self.rules.iter().enumerate().filter(|(_, rule)| rule.wired).map(|(index, _)| index)
    }

    /// The group of a property.
    pub fn group(&self, property: usize) -> Option<usize> {
        self.rules.get(property).map(|rule| rule.group)
    }
}

impl Mark {
    fn tell(&mut self, reading: Reading, tick: u64) -> Reading {
        self.told = Some(reading.clone());
        self.told_at = tick;
        self.held = None;
        reading
    }

    fn ages_at(&self, rule: &Rule) -> Option<u64> {
        let bad = self.told.as_ref().is_some_and(|told| told.quality.is_bad());
        if self.stale || bad { None } else { Some(self.seen? + rule.max_age_ms?) }
    }
}

fn rule(property: &Property) -> Rule {
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Rule {
        group: property.group,
        mode: property.report.mode,
        min_ms: property.report.min_interval.map_or(0, ms),
        max_ms: property.report.max_interval.map(ms),
        deadband: property.deadband,
        counter: property.counter,
        max_age_ms: property.max_age.map(ms),
        wired: property.access.reads() && !matches!(property.source, Source::Computed(_) | Source::Alarm(_)),
    }
}

/// Whether a value has left the dead band around what was told: changes smaller than the band are inside, and with two
/// bands a change has to leave both.
fn moved(deadband: Option<&Deadband>, told: &Value, value: &Value) -> bool {
    let (Some(deadband), Some(from), Some(to)) = (deadband, told.as_f64(), value.as_f64()) else {
        return !same(told, value);
    };
    // 230.2 - 230.1 is a little less than 0.1 in binary; the band is meant in decimals.
    let step = (to - from).abs() * (1.0 + ROUNDING);
    let outside = |band: Option<f64>| band.map(|band| step >= band && step > 0.0);
    let percent = deadband.pct.map(|pct| from.abs() * pct / 100.0);
    match (outside(deadband.abs), outside(percent)) {
        (None, None) => step > 0.0,
        (abs, pct) => abs.unwrap_or(true) && pct.unwrap_or(true),
    }
}

/// Doubts a counter that goes back or jumps. The new count is the base of the next comparison either way, so a
/// replaced meter is doubted once.
fn doubt(counter: &Counter, last: &mut Option<f64>, reading: &mut Reading) {
    let Some(count) = reading.value.as_f64() else { return };
    let Some(before) = last.replace(count) else { return };
    let (step, back) = match counter.wrap {
        _ if count >= before => (count - before, false),
        Some(wrap) if before <= wrap => {
            let around = wrap - before + count;
            // Without a `max_step` a wrap is believed when it is shorter than half the way round.
            (around, counter.max_step.is_none() && around > wrap / 2.0)
        }
        _ => (0.0, counter.monotonic),
    };
    if back || counter.max_step.is_some_and(|max| step > max) {
        reading.quality = match reading.quality {
            Quality::Good => Quality::Uncertain(None),
            other => other,
        };
    }
}

#[cfg(test)]
mod tests;
