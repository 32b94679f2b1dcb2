//! One device as the host sees it: what was read, what is worked out from it, what is to be reported.
//!
//! In: samples of a port, the tick. Out: readings to publish. Must never let a computed value hide that its inputs are
//! bad.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use protocols::alarm::AlarmState;
use protocols::config::Device;
use protocols::expr::{EvalError, Expression, Scope, Window, WindowStore};
use protocols::message::{DeviceState, write_reported_set};
use protocols::profile::{Kind, Profile, Property, Source};
use protocols::report::Report;
use protocols::value::{Now, PackedReading, Quality, Reading, Value, Why, from_f64};

use super::desired::Wishes;
use crate::port::Sample;

/// How often conditions with a hold time are looked at without a new reading, in milliseconds.
const WATCH_MS: u64 = 1_000;

/// One device of the wire.
pub(super) struct Unit {
    pub(super) device: Arc<Device>,
    pub(super) report: Report,
    pub(super) wishes: Wishes,
    /// What was last published as the device's state, with its reason.
    pub(super) status: Option<(DeviceState, Option<String>)>,
    /// What the cycle under way has brought so far.
    cycle: Vec<Sample>,
    last: Vec<Option<PackedReading>>,
    index: HashMap<String, usize>,
    windows: WindowStore,
    alarms: BTreeMap<usize, AlarmState>,
    derives: bool,
    watch_at: Option<u64>,
    due: Option<u64>,
    /// Something could not be published; everything is sent again.
    pub(super) owes: bool,
}

/// What the expressions of a device see.
struct View<'a> {
    unit: &'a Unit,
    now: u64,
}

impl Scope for View<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        let index = *self.unit.index.get(name)?;
        let reading = self.unit.last.get(index)?.as_ref().filter(|_| !self.unit.report.is_old(index))?;
        (!reading.quality.is_bad()).then(|| reading.value.to_value())
    }

    fn quality(&self, name: &str) -> Option<Quality> {
        self.unit.latest(name).map(|reading| reading.quality)
    }

    fn age_ms(&self, name: &str) -> Option<u64> {
        self.unit.windows.age_ms(name, self.now)
    }

    fn window(&self, name: &str, window_ms: u64) -> Option<Window> {
        self.unit.windows.window(name, self.now, window_ms)
    }

    fn previous(&self, name: &str) -> Option<Value> {
        self.unit.windows.previous(name)
    }
}

impl Unit {
    pub(super) fn new(device: Arc<Device>, now: u64) -> Self {
        let profile = Arc::clone(&device.profile);
        let profile = profile.as_ref();
        let alarms: BTreeMap<usize, AlarmState> = indexed(profile)
            .filter(|(_, property)| matches!(property.source, Source::Alarm(_)))
            .map(|(index, _)| (index, AlarmState::default()))
            .collect();
        // Only expressions ask by name; a device without any needs no index.
        let expressions = expressions(profile);
        let named = indexed(profile).filter(|_| !expressions.is_empty());
        let index = named.map(|(index, property)| (property.name.to_string(), index)).collect();
        Self {
            report: Report::new(Arc::clone(&device.profile)),
            wishes: Wishes::default(),
            status: None,
            cycle: Vec::new(),
            last: vec![None; profile.properties.len()],
            index,
            windows: WindowStore::new(expressions),
            derives: indexed(profile).any(|(_, p)| matches!(p.source, Source::Computed(_) | Source::Alarm(_))),
            watch_at: (!alarms.is_empty()).then_some(now + WATCH_MS),
            alarms,
            due: None,
            owes: false,
            device,
        }
    }

    pub(super) fn property(&self, index: usize) -> Option<&Property> {
        self.device.profile.properties.get(index)
    }

    /// The latest reading of a property, as a sample.
    pub(super) fn sample(&self, index: usize) -> Option<Sample> {
        let last = self.last.get(index)?.as_ref()?;
        Some(Sample { property: index, value: last.value.to_value(), quality: last.quality })
    }

    fn latest(&self, name: &str) -> Option<&PackedReading> {
        self.last.get(*self.index.get(name)?)?.as_ref()
    }

    /// Keeps what a part of a cycle brought.
    pub(super) fn gather(&mut self, samples: Vec<Sample>) {
        self.cycle.extend(samples);
    }

    /// Forgets the cycle under way.
    pub(super) fn drop_cycle(&mut self) {
        self.cycle.clear();
    }

    /// A write was sent: what was read of the property before it is worth nothing.
    pub(super) fn forget_sample(&mut self, property: usize) {
        self.cycle.retain(|sample| sample.property != property);
    }

    /// The cycle is complete: takes in what it brought, and gives what is to be reported.
    pub(super) fn finish_cycle(&mut self, group: usize, now: Now) -> Vec<(usize, Reading)> {
        let samples = std::mem::take(&mut self.cycle);
        self.take(Some(group), samples, now)
    }

    /// Takes samples in that do not wait for a cycle.
    pub(super) fn take(&mut self, group: Option<usize>, samples: Vec<Sample>, now: Now) -> Vec<(usize, Reading)> {
        let mut readings = Vec::with_capacity(samples.len());
        for Sample { property, value, quality } in samples {
            // Between a write and its read back a poll may still see the old value.
            if group.is_some() && self.wishes.is_settling(property) {
                continue;
            }
            let reading = Reading { value, quality, at: now.wall };
            self.remember(property, &reading, now.tick);
            readings.push((property, reading));
        }
        let mut out = Vec::new();
        match group {
            Some(group) => self.report.on_cycle(group, readings, now, &mut out),
            None => out.extend(
                readings.into_iter().filter_map(|(index, r)| Some((index, self.report.on_reading(index, r, now)?))),
            ),
        }
        self.derive(now, &mut out);
        self.plan_due();
        out
    }

    fn remember(&mut self, property: usize, reading: &Reading, tick: u64) {
        if !reading.quality.is_bad()
            && let Some(definition) = self.device.profile.properties.get(property)
        {
            self.windows.push(definition.name.as_str(), tick, &reading.value);
        }
        if let Some(place) = self.last.get_mut(property) {
            *place = Some(reading.clone().into());
        }
    }

    /// Works computed properties and alarms out, in the order of the profile, so that one may use another before it.
    fn derive(&mut self, now: Now, out: &mut Vec<(usize, Reading)>) {
        if !self.derives {
            return;
        }
        let profile = Arc::clone(&self.device.profile);
        for (index, property) in indexed(&profile) {
            let reading = match &property.source {
                Source::Computed(expression) => self.compute(property, expression, now),
                Source::Alarm(alarm) => {
                    let mut state = self.alarms.remove(&index).unwrap_or_default();
                    let changed = state.step(alarm, now.tick, &View { unit: self, now: now.tick });
                    self.alarms.insert(index, state);
                    changed.map(|raised| Reading::good(Value::Bool(raised), now.wall))
                }
                _ => continue,
            };
            let Some(reading) = reading else { continue };
            self.remember(index, &reading, now.tick);
            out.extend(self.report.on_reading(index, reading, now).map(|reading| (index, reading)));
        }
    }

    fn compute(&self, property: &Property, expression: &Expression, now: Now) -> Option<Reading> {
        match expression.eval(&View { unit: self, now: now.tick }) {
            Ok(value) => Some(Reading::good(shape(property, value), now.wall)),
            Err(error) => {
                let inputs = expression.inputs().iter().filter_map(|name| self.latest(name));
                let bad = inputs.clone().find_map(|reading| match reading.quality {
                    Quality::Bad(why) => Some(why),
                    _ => None,
                });
                let why = match (bad, error) {
                    (Some(why), _) => why,
                    // An input was never read: there is nothing to say yet.
                    (None, EvalError::Missing(_)) => return None,
                    (None, _) => Why::Nan,
                };
                Some(Reading::bad(why, now.wall))
            }
        }
    }

    /// What the clock alone brings.
    pub(super) fn on_time(&mut self, now: Now) -> Vec<(usize, Reading)> {
        let mut out = Vec::new();
        self.report.on_time(now, &mut out);
        if self.watch_at.is_some_and(|at| at <= now.tick) {
            self.watch_at = Some(now.tick + WATCH_MS);
            self.derive(now, &mut out);
        }
        self.plan_due();
        out
    }

    /// The tick at which [`Unit::on_time`] has something to do.
    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    /// Asking the report for its next tick walks over its properties, so it is done once for each change.
    fn plan_due(&mut self) {
        self.due = [self.report.next_due(), self.watch_at, self.wishes.next_look()].into_iter().flatten().min();
    }

    /// Plans anew after the wishes changed.
    pub(super) fn replan(&mut self) {
        self.plan_due();
    }

    /// The device is away: everything it reads is bad for that reason.
    pub(super) fn on_away(&mut self, why: Why, now: Now) -> Vec<(usize, Reading)> {
        self.drop_cycle();
        let gone: Vec<Sample> = self
            .report
            .wired()
            .map(|property| Sample { property, value: Value::Null, quality: Quality::Bad(why) })
            .collect();
        self.take(None, gone, now)
    }

    /// Everything that is known, to be sent again.
    pub(super) fn everything(&mut self, now: Now) -> Vec<(usize, Reading)> {
        self.report.forget();
        self.owes = false;
        let known: Vec<(usize, Reading)> = self
            .last
            .iter()
            .enumerate()
            .filter_map(|(index, last)| Some((index, last.as_ref()?.to_reading())))
            .collect();
        known.into_iter().filter_map(|(index, r)| Some((index, self.report.on_reading(index, r, now)?))).collect()
    }

    /// Whether a condition over the device's properties holds; an error says which input is missing.
    pub(super) fn holds(&self, condition: &Expression, now: u64) -> Result<bool, EvalError> {
        condition.holds(&View { unit: self, now })
    }

    /// The message that carries readings: the payload of `reported/set`.
    pub(super) fn message(&self, readings: &[(usize, Reading)], now: Now) -> Vec<u8> {
        let named = readings.iter().filter_map(|(index, reading)| Some((&self.property(*index)?.name, reading)));
        // about what a number with its name takes
        let mut payload = Vec::with_capacity(64 + 24 * readings.len());
        write_reported_set(now.wall, named, &mut payload);
        payload
    }
}

fn indexed(profile: &Profile) -> impl Iterator<Item = (usize, &Property)> {
    profile.properties.iter().enumerate()
}

fn expressions(profile: &Profile) -> Vec<&Expression> {
    let mut all = Vec::new();
    for property in &profile.properties {
        match &property.source {
            Source::Computed(expression) => all.push(expression.as_ref()),
            Source::Alarm(alarm) => all.extend(std::iter::once(&alarm.when).chain(alarm.clear.as_ref())),
            Source::Modbus(_) | Source::Serial(_) | Source::Ble(_) | Source::External(_) => {}
        }
        all.extend(property.write.requires.as_deref());
    }
    all
}

/// A computed number in the form its property promises: rounded to the precision, whole for integers.
fn shape(property: &Property, value: Value) -> Value {
    let (Some(number), true) = (value.as_f64(), value.is_f64()) else { return value };
    if property.kind == Kind::Int {
        let whole = number.round();
        // Doubles hold every whole number up to 2^53; beyond that there are no digits to keep.
        return if whole.abs() < 9_007_199_254_740_992.0 { Value::from(whole as i64) } else { from_f64(whole) };
    }
    match property.scaling.precision {
        Some(places) => {
            let factor = 10f64.powi(i32::from(places));
            let rounded = (number * factor).round() / factor;
            from_f64(if rounded.is_finite() { rounded } else { number })
        }
        None => value,
    }
}
