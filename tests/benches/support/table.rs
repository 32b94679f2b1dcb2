//! Figures: medians over rounds, quantiles, and Markdown tables.

use std::io::Write;
use std::time::Duration;

/// Prints a line.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Notes how far a long measurement has come, apart from the tables.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "  {line}");
}

/// The middle of some figures; 0 of none.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(upper), 0) => f64::midpoint(*upper, sorted.get(middle - 1).copied().unwrap_or(*upper)),
        (Some(middle), _) => *middle,
        (None, _) => 0.0,
    }
}

/// The value below which this part of all lies; `NaN` of none. Sorts them.
pub fn quantile(values: &mut [u32], part: f64) -> f64 {
    values.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into values")]
    let index = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
    values.get(index).map_or(f64::NAN, |value| f64::from(*value))
}

/// Figures of one side of a comparison, one set a round.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Vec<Vec<f64>>);

impl Rounds {
    /// Adds a round; every round has the same figures in the same order.
    pub fn add(&mut self, figures: &[f64]) {
        self.0.push(figures.to_vec());
    }

    /// The median of a figure over the rounds.
    pub fn median(&self, figure: usize) -> f64 {
        let column: Vec<f64> = self.0.iter().filter_map(|round| round.get(figure).copied()).collect();
        median(&column)
    }

    /// The worst (largest) of a figure over the rounds.
    pub fn most(&self, figure: usize) -> f64 {
        self.0.iter().filter_map(|round| round.get(figure).copied()).fold(f64::NAN, f64::max)
    }
}

/// A Markdown table.
#[derive(Clone, Debug)]
pub struct Table {
    lines: Vec<String>,
}

impl Table {
    /// A table with these columns.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        let rule = vec!["---"; columns.len()].join(" | ");
        let lines = vec![format!("\n**{title}**\n"), format!("| {} |", columns.join(" | ")), format!("| {rule} |")];
        Self { lines }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[String]) {
        self.lines.push(format!("| {} |", cells.join(" | ")));
    }

    /// Prints it.
    pub fn print(&self) {
        say(&self.lines.join("\n"));
    }
}

/// A figure with as many digits as it deserves: three that count, thousands apart.
pub fn figure(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        0.0 => 0,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 && digit != '-' && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or_else(|| grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

/// How many times `b` is in `a`.
pub fn ratio(a: f64, b: f64) -> String {
    if b == 0.0 || a.is_nan() || b.is_nan() { "–".to_owned() } else { format!("{:.2}", a / b) }
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Microseconds of processor time for each of `count`.
pub fn each_us(cpu: Duration, count: f64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1.0)
}
