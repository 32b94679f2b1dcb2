//! When a reading is worth a message: dead band, shortest and longest interval, heartbeat, counters, age.
//!
//! In: every reading of one device, and the tick. Out: the readings to send. Must never hold back a change of quality,
//! and never send a value twice because it was read twice.

use std::sync::Arc;
use std::time::Duration;

use crate::profile::{Counter, Deadband, Profile, Property, ReportMode};
use crate::value::{Now, Packed, PackedReading, Quality, Reading, Value};

/// A heartbeat may come this much early, as a share of `max_interval` (1/20): the reading that arrives a millisecond
/// before its time is the one to send, as the next one may be an interval away.
const HEARTBEAT_EARLY: u64 = 20;
/// How much a step may fall short of the dead band by binary rounding, as a share of the step.
const ROUNDING: f64 = 1e-9;

/// What one device has reported; the rules for what it will are its profile's, which all devices of a model share.
#[derive(Clone, Debug)]
pub struct Report {
    profile: Arc<Profile>,
    marks: Vec<Mark>,
    /// Properties whose mark holds something back or grows old; the others are never looked at by the clock.
    timed: Vec<usize>,
}

/// What was told of one property. There is one for each property of each device, so it holds what all need.
#[derive(Clone, Debug, Default)]
struct Mark {
    told: Option<PackedReading>,
    told_at: u64,
    more: Option<Box<More>>,
}

/// What few properties need: those that hold back, grow old or count.
#[derive(Clone, Debug, Default)]
struct More {
    held: Option<Reading>,
    seen: Option<u64>,
    count: Option<f64>,
    stale: bool,
}

impl Report {
    /// The rules of a profile; nothing is reported yet.
    pub fn new(profile: Arc<Profile>) -> Self {
        let properties = profile.properties.iter();
        let marks = properties.clone().map(|property| Mark { more: more(property), ..Mark::default() }).collect();
        let is_timed = |property: &Property| min_ms(property) > 0 || property.max_age.is_some();
        let timed = properties.enumerate().filter(|(_, property)| is_timed(property)).map(|(index, _)| index).collect();
        Self { profile, marks, timed }
    }

    /// Takes one reading; gives what is to be sent, which may differ in quality (a doubted counter).
    pub fn on_reading(&mut self, property: usize, mut reading: Reading, now: Now) -> Option<Reading> {
        let (Some(rule), Some(mark)) = (self.profile.properties.get(property), self.marks.get_mut(property)) else {
            return None;
        };
        if let Some(more) = mark.more.as_mut().filter(|_| !reading.quality.is_bad()) {
            more.seen = Some(now.tick);
            more.stale = false;
            if let Some(counter) = &rule.counter {
                doubt(counter, &mut more.count, &mut reading);
            }
        }
        let mode = rule.report.mode;
        let Some(told) = &mark.told else {
            return (mode != ReportMode::Never).then(|| mark.tell(reading, now.tick));
        };
        let since = now.tick.saturating_sub(mark.told_at);
        let heartbeat = rule.report.max_interval.map(ms).is_some_and(|max| since + max / HEARTBEAT_EARLY >= max);
        let quality = reading.quality != told.quality;
        let changed = || moved(rule.deadband.as_ref(), &told.value, &reading.value);
        let wanted = match mode {
            ReportMode::Never => return None,
            ReportMode::Always => true,
            ReportMode::Interval => heartbeat,
            ReportMode::OnChange => heartbeat || changed(),
        };
        if quality || (wanted && since >= min_ms(rule)) {
            return Some(mark.tell(reading, now.tick));
        }
        // Too soon: the newest is kept and sent when the time has come; a value that went back is forgotten.
        if let Some(more) = &mut mark.more {
            more.held = wanted.then_some(reading);
        }
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
        if self.profile.groups.get(group).is_some_and(|group| group.atomic) {
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
            let Some(rule) = self.profile.properties.get(*property) else { continue };
            let Some(mark) = self.marks.get_mut(*property) else { continue };
            if now.tick >= mark.told_at + min_ms(rule) {
                let held = mark.more.as_mut().and_then(|more| more.held.take());
                out.extend(held.map(|held| (*property, mark.tell(held, now.tick))));
            }
            if mark.ages_at(rule).is_some_and(|at| now.tick >= at) {
                if let Some(more) = &mut mark.more {
                    more.stale = true;
                }
                let told = mark.told.as_ref().filter(|_| rule.report.mode != ReportMode::Never);
                if let Some(told) = told.map(PackedReading::to_reading) {
                    let old = Reading { quality: Quality::Uncertain(None), ..told };
                    out.push((*property, mark.tell(old, now.tick)));
                }
            }
        }
    }

    /// The tick at which [`Report::on_time`] has something to do.
    pub fn next_due(&self) -> Option<u64> {
        let due = self.timed.iter().filter_map(|property| {
            let (rule, mark) = (self.profile.properties.get(*property)?, self.marks.get(*property)?);
            let held = mark.more.as_ref()?.held.as_ref().map(|_| mark.told_at + min_ms(rule));
            [held, mark.ages_at(rule)].into_iter().flatten().min()
        });
        due.min()
    }

    /// Whether a value is older than its `max_age`.
    pub fn is_stale(&self) -> bool {
        self.timed.iter().any(|property| self.is_old(*property))
    }

    /// Whether the value of a property is older than its `max_age`.
    pub fn is_old(&self, property: usize) -> bool {
        self.marks.get(property).is_some_and(Mark::is_stale)
    }

    /// Forgets what was sent, so that everything is sent again: the other side may have missed some of it. Counters
    /// keep their memory.
    pub fn forget(&mut self) {
        for mark in &mut self.marks {
            mark.told = None;
            mark.forget_held();
        }
    }

    /// The properties a device reads itself; these go bad when it is away.
    pub fn wired(&self) -> impl Iterator<Item = usize> + '_ {
        self.profile.properties.iter().enumerate().filter(|(_, rule)| is_wired(rule)).map(|(index, _)| index)
    }

    /// The group of a property.
    pub fn group(&self, property: usize) -> Option<usize> {
        self.profile.properties.get(property).map(|rule| rule.group)
    }
}

impl Mark {
    fn tell(&mut self, reading: Reading, tick: u64) -> Reading {
        self.told = Some(reading.clone().into());
        self.told_at = tick;
        self.forget_held();
        reading
    }

    fn forget_held(&mut self) {
        if let Some(more) = &mut self.more {
            more.held = None;
        }
    }

    fn is_stale(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.stale)
    }

    fn ages_at(&self, rule: &Property) -> Option<u64> {
        let bad = self.told.as_ref().is_some_and(|told| told.quality.is_bad());
        if self.is_stale() || bad { None } else { Some(self.more.as_ref()?.seen? + ms(rule.max_age?)) }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn min_ms(property: &Property) -> u64 {
    property.report.min_interval.map_or(0, ms)
}

fn is_wired(property: &Property) -> bool {
    property.access.reads() && property.source.is_wired()
}

/// Room for what only some rules need to remember.
fn more(property: &Property) -> Option<Box<More>> {
    let needed = min_ms(property) > 0 || property.max_age.is_some() || property.counter.is_some();
    needed.then(Box::default)
}

/// Whether a value has left the dead band around what was told: changes smaller than the band are inside, and with two
/// bands a change has to leave both.
fn moved(deadband: Option<&Deadband>, told: &Packed, value: &Value) -> bool {
    let (Some(deadband), Some(from), Some(to)) = (deadband, told.as_f64(), value.as_f64()) else {
        return !told.is(value);
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
