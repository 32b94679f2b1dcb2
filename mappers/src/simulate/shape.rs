//! How a plausible value moves: a wave with some noise, a counter that rises, or something that holds.
//!
//! In: a property. Out: its value at a time, as a number in the property's unit. Must never leave the range the profile
//! believes.

use protocols::profile::{Kind, Property};

use super::fault::Dice;

/// How one property's number moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// Slowly up and down around `middle`, with noise.
    Wave { middle: f64, swing: f64, period_s: f64, phase: f64, low: f64, high: f64 },
    /// Up, from `start`.
    Rise { start: f64, per_s: f64, wrap: f64 },
    /// As it is until somebody writes it.
    Hold(f64),
}

/// What is usual: a word of the class, the name or the unit; middle and swing. The first that fits counts.
const USUAL: &[(&str, f64, f64)] = &[
    ("frequency", 50.0, 0.04),
    ("power_factor", 0.95, 0.03),
    ("apparent", 1480.0, 500.0),
    ("reactive", 310.0, 120.0),
    ("kW", 1.42, 0.5),
    ("power", 1420.0, 500.0),
    ("mV", 3300.0, 20.0),
    ("voltage", 230.0, 4.0),
    ("mA", 420.0, 60.0),
    ("current", 6.2, 2.2),
    ("humidity", 45.0, 6.0),
    ("moisture", 32.0, 4.0),
    ("[degF]", 70.5, 3.0),
    ("temperature", 21.5, 2.5),
    ("Cel", 21.5, 2.5),
    ("carbon_dioxide", 650.0, 150.0),
    ("co2", 650.0, 150.0),
    ("pm", 8.0, 4.0),
    ("battery", 87.0, 1.0),
    ("illuminance", 320.0, 80.0),
    ("hPa", 1013.0, 4.0),
    ("mbar", 1013.0, 4.0),
    ("bar", 2.1, 0.2),
    ("wind", 4.0, 2.0),
    ("flow", 1.2, 0.4),
    ("signal", -67.0, 6.0),
    ("angle", 120.0, 1.0),
    ("V", 230.0, 4.0),
    ("A", 6.2, 2.2),
    ("W", 1420.0, 500.0),
    ("Hz", 50.0, 0.04),
    ("%", 45.0, 6.0),
];

/// What rises, and how much a second.
const COUNTED: &[(&str, f64)] = &[
    ("kWh", 0.001),
    ("kW.h", 0.001),
    ("MWh", 0.000_001),
    ("Wh", 0.4),
    ("W.h", 0.4),
    ("energy", 0.001),
    ("water", 0.000_2),
    ("m3", 0.000_2),
    ("uptime", 1.0),
    ("duration", 1.0),
];

impl Shape {
    /// How a property moves. Settings and words hold.
    pub(super) fn of(property: &Property, dice: &mut Dice) -> Self {
        let numeric = matches!(property.kind, Kind::Int | Kind::Number | Kind::Array);
        let (low, high) = limits(property);
        if property.access.writes() || !numeric || property.category.as_deref() == Some("identity") {
            return Self::Hold(setting(property));
        }
        let counted = COUNTED.iter().find(|(word, _)| is_about(property, word));
        if property.counter.is_some() || counted.is_some() {
            let wrap = property.counter.and_then(|counter| counter.wrap).unwrap_or(f64::INFINITY).min(high);
            let start = (100.0 + 4000.0 * dice.unit()).min(wrap / 2.0);
            return Self::Rise { start, per_s: counted.map_or(0.1, |(_, per_s)| *per_s), wrap };
        }
        let (middle, swing) = match USUAL.iter().find(|(word, ..)| is_about(property, word)) {
            Some((_, middle, swing)) if (low..=high).contains(middle) => (*middle, *swing),
            _ if low.is_finite() && high.is_finite() => (low + (high - low) * 0.4, (high - low) * 0.05),
            _ => (10.0_f64.clamp(low, high), 2.0),
        };
        // Three phases of one meter should not show the same curve.
        Self::Wave { middle, swing, period_s: 60.0 + 240.0 * dice.unit(), phase: dice.unit(), low, high }
    }

    /// How a property moves that was recorded at a value: around it, or up from it. What was recorded as 0 stays: a meter
    /// without a solar panel returns nothing.
    pub(super) fn around(property: &Property, recorded: f64, dice: &mut Dice) -> Self {
        let is_setting = property.access.writes() || property.category.as_deref() == Some("identity");
        if is_setting || recorded == 0.0 {
            return Self::Hold(recorded);
        }
        let (low, high) = limits(property);
        let counted = COUNTED.iter().find(|(word, _)| is_about(property, word));
        if property.counter.is_some() || counted.is_some() {
            return Self::Rise { start: recorded, per_s: counted.map_or(0.1, |(_, per_s)| *per_s), wrap: high };
        }
        let usual = USUAL.iter().find(|(word, ..)| is_about(property, word));
        let swing = match (usual, property.deadband.and_then(|deadband| deadband.abs)) {
            (Some((_, middle, swing)), _) => (recorded * swing / middle).abs(),
            (None, Some(deadband)) => 3.0 * deadband,
            (None, None) => recorded.abs() * 0.02,
        };
        // What the profile sets no limit to does not change its sign.
        let (low, high) = if recorded > 0.0 { (low.max(0.0), high) } else { (low, high.min(0.0)) };
        let (period_s, phase) = (60.0 + 240.0 * dice.unit(), dice.unit());
        Self::Wave { middle: recorded, swing, period_s, phase, low, high }
    }

    /// The number at `time_s`. `dice` gives the noise, so the same dice give the same number.
    pub(super) fn at(self, time_s: f64, dice: &mut Dice) -> f64 {
        match self {
            Self::Hold(value) => value,
            Self::Rise { start, per_s, wrap } => {
                let value = start + per_s * time_s;
                if wrap.is_finite() && wrap > 0.0 { value % wrap } else { value }
            }
            Self::Wave { middle, swing, period_s, phase, low, high } => {
                let wave = (std::f64::consts::TAU * (time_s / period_s + phase)).sin();
                let noise = dice.unit() - 0.5;
                (middle + swing * (0.8 * wave + 0.2 * noise)).clamp(low, high)
            }
        }
    }
}

/// Whether a word is a property's unit, or in its class or its name.
fn is_about(property: &Property, word: &str) -> bool {
    property.unit.as_deref() == Some(word)
        || property.class.as_deref().is_some_and(|class| class.contains(word))
        || (word.len() > 2 && property.name.as_str().contains(word))
}

/// What is believable, and nothing that is not.
fn limits(property: &Property) -> (f64, f64) {
    let range = property.range;
    let low = range.and_then(|range| range.min).unwrap_or(f64::NEG_INFINITY);
    let high = range.and_then(|range| range.max).unwrap_or(f64::INFINITY);
    if low <= high { (low, high) } else { (f64::NEG_INFINITY, f64::INFINITY) }
}

/// What a setting stands at when the device leaves the factory: the middle of what may be written, on a step.
fn setting(property: &Property) -> f64 {
    if !matches!(property.kind, Kind::Int | Kind::Number | Kind::Array) {
        return 0.0;
    }
    let (low, high) = limits(property);
    let low = property.write.min.unwrap_or(low);
    let high = property.write.max.unwrap_or(high);
    let middle = match (low.is_finite(), high.is_finite()) {
        (true, true) => f64::midpoint(low, high),
        (true, false) => low,
        (false, true) => high.min(0.0),
        (false, false) => 0.0,
    };
    let base = if low.is_finite() { low } else { 0.0 };
    match property.write.step {
        Some(step) if step > 0.0 => base + ((middle - base) / step).floor() * step,
        _ if property.kind == Kind::Int => middle.floor().max(low),
        _ => middle,
    }
}
