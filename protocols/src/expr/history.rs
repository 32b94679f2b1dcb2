//! What expressions remember: the good readings of a window of time, and the reading before the last.
//!
//! In: values with the tick they were read at. Out: [`Window`]s, previous values, ages. Must never grow with time.

use std::collections::{BTreeMap, VecDeque};

use super::{Expression, Node, Window};
use crate::value::Value;

/// The most steps a history keeps of one property. When more readings than that fall into its window, neighbours share
/// a step: averages and extremes stay exact, and only the window's far edge is known less sharply, to 1/1023 of its
/// length.
pub const HISTORY_SAMPLES: usize = 1024;

/// The good numeric readings of one property over a bounded time.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    span_ms: u64,
    step_ms: u64,
    steps: VecDeque<Step>,
}

/// Neighbouring readings.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    first_ms: u64,
    last_ms: u64,
    first: f64,
    last: f64,
    min: f64,
    max: f64,
    sum: f64,
    readings: u64,
}

impl History {
    /// A history that can answer for windows of up to `span_ms` milliseconds.
    pub fn new(span_ms: u64) -> Self {
        let step_ms = span_ms.div_ceil(HISTORY_SAMPLES as u64 - 1).max(1);
        Self { span_ms, step_ms, steps: VecDeque::new() }
    }

    /// Adds a reading. One that is older than the latest, or no number, is left out.
    pub fn push(&mut self, tick_ms: u64, value: f64) {
        if !value.is_finite() || self.steps.back().is_some_and(|step| tick_ms < step.last_ms) {
            return;
        }
        match self.steps.back_mut().filter(|step| tick_ms - step.first_ms < self.step_ms) {
            Some(step) => {
                step.last_ms = tick_ms;
                step.last = value;
                step.min = step.min.min(value);
                step.max = step.max.max(value);
                step.sum += value;
                step.readings += 1;
            }
            None => self.steps.push_back(Step {
                first_ms: tick_ms,
                last_ms: tick_ms,
                first: value,
                last: value,
                min: value,
                max: value,
                sum: value,
                readings: 1,
            }),
        }
        let oldest = tick_ms.saturating_sub(self.span_ms);
        while self.steps.front().is_some_and(|step| step.last_ms < oldest) || self.steps.len() > HISTORY_SAMPLES {
            self.steps.pop_front();
        }
    }

    /// The last `window_ms` milliseconds before `now_ms`; `None` without a reading in them.
    pub fn window(&self, now_ms: u64, window_ms: u64) -> Option<Window> {
        let oldest = now_ms.saturating_sub(window_ms);
        let mut steps = self.steps.iter().filter(|step| step.last_ms >= oldest && step.first_ms <= now_ms);
        let first = steps.next()?;
        let (mut sum, mut readings, mut min, mut max, mut last) =
            (first.sum, first.readings, first.min, first.max, first);
        for step in steps {
            sum += step.sum;
            readings += step.readings;
            min = min.min(step.min);
            max = max.max(step.max);
            last = step;
        }
        let elapsed_ms = last.last_ms - first.first_ms;
        let rate = (elapsed_ms > 0).then(|| (last.last - first.first) * 1000.0 / elapsed_ms as f64);
        Some(Window { avg: sum / readings as f64, min, max, rate, readings })
    }

    /// Mean of the readings of the window.
    pub fn avg(&self, now_ms: u64, window_ms: u64) -> Option<f64> {
        self.window(now_ms, window_ms).map(|window| window.avg)
    }

    /// Change from the first reading of the window to the last, per second.
    pub fn rate(&self, now_ms: u64, window_ms: u64) -> Option<f64> {
        self.window(now_ms, window_ms)?.rate
    }
}

/// What the expressions of one device have to remember; properties that none of them looks back at cost nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowStore {
    memories: BTreeMap<String, Memory>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Memory {
    history: Option<History>,
    latest: Option<(u64, Value)>,
    previous: Option<Value>,
}

impl WindowStore {
    /// A store for what these expressions look back at.
    pub fn new<'a>(expressions: impl IntoIterator<Item = &'a Expression>) -> Self {
        let mut spans: BTreeMap<String, u64> = BTreeMap::new();
        for expression in expressions {
            let back = expression.root.looks_back();
            for name in back.into_iter().filter_map(|index| expression.inputs.get(index)) {
                spans.entry(name.clone()).or_default();
            }
            for (name, window_ms) in &expression.windows {
                let span = spans.entry(name.clone()).or_default();
                *span = (*span).max(*window_ms);
            }
        }
        let memory = |span_ms| Memory { history: (span_ms > 0).then(|| History::new(span_ms)), ..Memory::default() };
        Self { memories: spans.into_iter().map(|(name, span_ms)| (name, memory(span_ms))).collect() }
    }

    /// Whether anything is kept of that property.
    pub fn keeps(&self, name: &str) -> bool {
        self.memories.contains_key(name)
    }

    /// Takes a good reading in.
    pub fn push(&mut self, name: &str, tick_ms: u64, value: &Value) {
        let Some(memory) = self.memories.get_mut(name) else { return };
        if let (Some(history), Some(number)) = (&mut memory.history, value.as_f64()) {
            history.push(tick_ms, number);
        }
        memory.previous = memory.latest.replace((tick_ms, value.clone())).map(|(_, value)| value);
    }

    /// For [`super::Scope::window`].
    pub fn window(&self, name: &str, now_ms: u64, window_ms: u64) -> Option<Window> {
        self.memories.get(name)?.history.as_ref()?.window(now_ms, window_ms)
    }

    /// For [`super::Scope::previous`].
    pub fn previous(&self, name: &str) -> Option<Value> {
        self.memories.get(name)?.previous.clone()
    }

    /// For [`super::Scope::age_ms`].
    pub fn age_ms(&self, name: &str, now_ms: u64) -> Option<u64> {
        let (at_ms, _) = self.memories.get(name)?.latest.as_ref()?;
        Some(now_ms.saturating_sub(*at_ms))
    }
}

impl Node {
    /// The names whose previous value or age is asked for.
    fn looks_back(&self) -> Vec<usize> {
        let all = |nodes: &[Self]| nodes.iter().flat_map(Self::looks_back).collect();
        match self {
            Self::Age(name) | Self::Previous(name) => vec![*name],
            Self::Constant(_) | Self::Name(_) | Self::Quality(_) | Self::Window(..) => Vec::new(),
            Self::List(nodes) | Self::Call(_, nodes) => all(nodes),
            Self::Not(inner) | Self::Negate(inner) => inner.looks_back(),
            Self::And(sides) | Self::Or(sides) | Self::Compare(_, sides) | Self::In(sides) => all(sides.as_slice()),
            Self::Arithmetic(_, sides) => all(sides.as_slice()),
            Self::If(parts) => all(parts.as_slice()),
        }
    }
}
