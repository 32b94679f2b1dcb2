//! Faults on request, and the dice they are drawn with.
//!
//! In: what a person asks for, `silence=0.1,exception=2@0.05,unit=3`. Out: the fate of each answer. Must never draw from
//! anything but its seed: a run can be repeated.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use protocols::modbus::pdu::Exception;

/// The longest delay that can be asked for.
const DELAY: Duration = Duration::from_secs(3600);

/// What goes wrong, and how often (0 never … 1 always).
///
/// Written as a list: `silence=0.1,delay=300ms,exception=2@0.05,crc=0.1,disconnect=0.05,unit=3,limit=5`. A name alone
/// means always; `@` gives the probability behind a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// No answer.
    pub silence: f64,
    /// The answer waits that long, that often.
    pub delay: Option<(Duration, f64)>,
    /// An exception with that code instead of the answer, that often.
    pub exception: Option<(u8, f64)>,
    /// A wrong checksum; on Modbus TCP, which has none, a wrong transaction id.
    pub crc: f64,
    /// The connection is closed instead of an answer; a pseudo terminal stays silent.
    pub disconnect: f64,
    /// Only requests to this unit.
    pub unit: Option<u8>,
    /// Only so many times more.
    pub limit: Option<u64>,
}

/// A fault nobody can play.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The name is unknown.
    #[error(
        "there is no fault \"{0}\"; there are silence, delay, exception, crc, disconnect, and unit and limit beside them"
    )]
    Name(String),
    /// The value does not fit.
    #[error("{name}={value} is not right; write for example {example}")]
    Value {
        /// The fault.
        name: &'static str,
        /// What was written.
        value: String,
        /// What would be right.
        example: &'static str,
    },
}

/// What becomes of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) silence: bool,
    pub(super) delay: Option<Duration>,
    pub(super) exception: Option<Exception>,
    pub(super) crc: bool,
    pub(super) disconnect: bool,
}

impl Faults {
    /// Draws the fate of the next answer.
    pub(super) fn draw(&mut self, unit: u8, dice: &mut Dice) -> Fate {
        if self.limit == Some(0) || self.unit.is_some_and(|only| only != unit) {
            return Fate::default();
        }
        let mut happens = |chance: f64| chance > 0.0 && dice.unit() < chance;
        let fate = Fate {
            silence: happens(self.silence),
            delay: self.delay.and_then(|(delay, chance)| happens(chance).then_some(delay)),
            exception: self.exception.and_then(|(code, chance)| happens(chance).then_some(Exception(code))),
            crc: happens(self.crc),
            disconnect: happens(self.disconnect),
        };
        if let Some(limit) = &mut self.limit {
            *limit -= u64::from(fate != Fate::default());
        }
        fate
    }
}

impl FromStr for Faults {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut faults = Self::default();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value)));
            match name {
                "silence" => faults.silence = chance("silence", value, "silence=0.1")?,
                "crc" => faults.crc = chance("crc", value, "crc=0.1")?,
                "disconnect" => faults.disconnect = chance("disconnect", value, "disconnect=0.05")?,
                "delay" => faults.delay = Some(rated("delay", value, "delay=300ms@0.5", duration)?),
                "exception" => faults.exception = Some(rated("exception", value, "exception=2@0.05", code)?),
                "unit" => faults.unit = Some(number("unit", value, "unit=3")?),
                "limit" => faults.limit = Some(number("limit", value, "limit=5")?),
                _ => return Err(FaultError::Name(name.to_owned())),
            }
        }
        Ok(faults)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items = Vec::new();
        for (name, chance) in [("silence", self.silence), ("crc", self.crc), ("disconnect", self.disconnect)] {
            if chance > 0.0 {
                items.push(format!("{name}={chance}"));
            }
        }
        items.extend(self.delay.map(|(delay, chance)| format!("delay={}ms@{chance}", delay.as_millis())));
        items.extend(self.exception.map(|(code, chance)| format!("exception={code}@{chance}")));
        items.extend(self.unit.map(|unit| format!("unit={unit}")));
        items.extend(self.limit.map(|limit| format!("limit={limit}")));
        f.write_str(&items.join(","))
    }
}

fn wrong(name: &'static str, value: Option<&str>, example: &'static str) -> FaultError {
    FaultError::Value { name, value: value.unwrap_or_default().to_owned(), example }
}

fn chance(name: &'static str, value: Option<&str>, example: &'static str) -> Result<f64, FaultError> {
    match value.map(str::parse::<f64>) {
        None => Ok(1.0),
        Some(Ok(chance)) if (0.0..=1.0).contains(&chance) => Ok(chance),
        Some(_) => Err(wrong(name, value, example)),
    }
}

/// A value, and behind `@` how often.
fn rated<T>(
    name: &'static str,
    value: Option<&str>,
    example: &'static str,
    read: fn(&str) -> Option<T>,
) -> Result<(T, f64), FaultError> {
    let error = || wrong(name, value, example);
    let text = value.ok_or_else(error)?;
    let (what, often) = text.split_once('@').map_or((text, None), |(what, often)| (what, Some(often)));
    let often = chance(name, often, example).map_err(|_| error())?;
    Ok((read(what).ok_or_else(error)?, often))
}

fn number<T: FromStr>(name: &'static str, value: Option<&str>, example: &'static str) -> Result<T, FaultError> {
    value.and_then(|value| value.parse().ok()).ok_or_else(|| wrong(name, value, example))
}

fn code(text: &str) -> Option<u8> {
    text.parse().ok().filter(|code| (1..=127).contains(code))
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, unit_ms) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    let ms = digits.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    Some(Duration::from_millis(ms)).filter(|delay| *delay <= DELAY)
}

/// Numbers that look like chance and come again with their seed (SplitMix64: Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0 up to but without 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_the_manual_says() {
        let faults: Faults =
            "silence=0.1, delay=300ms, exception=2@0.05,crc=0.1,disconnect=0.05,unit=3,limit=5".parse().unwrap();
        let expected = Faults {
            silence: 0.1,
            delay: Some((Duration::from_millis(300), 1.0)),
            exception: Some((2, 0.05)),
            crc: 0.1,
            disconnect: 0.05,
            unit: Some(3),
            limit: Some(5),
        };
        assert_eq!(faults, expected);
        assert_eq!(faults.to_string().parse(), Ok(faults));
        assert_eq!("".parse(), Ok(Faults::default()));
        assert_eq!("silence".parse(), Ok(Faults { silence: 1.0, ..Faults::default() }));
        assert_eq!("delay=2s@0.5".parse::<Faults>().unwrap().delay, Some((Duration::from_secs(2), 0.5)));
        for (text, expected) in [
            ("noise=1", "there is no fault \"noise\"; "),
            ("silence=2", "silence=2 is not right; write for example silence=0.1"),
            ("silence=nan", "silence=nan is not right"),
            ("delay", "delay= is not right; write for example delay=300ms@0.5"),
            ("delay=300", "delay=300 is not right"),
            ("delay=2h", "delay=2h is not right"),
            ("delay=99999999999999999999s", "is not right"),
            ("exception=0", "exception=0 is not right"),
            ("exception=128", "exception=128 is not right"),
            ("exception=2@x", "exception=2@x is not right; write for example exception=2@0.05"),
            ("unit=256", "unit=256 is not right"),
            ("limit=-1", "limit=-1 is not right"),
        ] {
            let error = text.parse::<Faults>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_fates() {
        let draw = |seed| {
            let mut faults: Faults = "silence=0.3,crc=0.2,exception=6@0.1".parse().unwrap();
            let mut dice = Dice::new(seed);
            (0..1000).map(|_| faults.draw(1, &mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let silent = draw(1).iter().filter(|fate| fate.silence).count();
        assert!((230..370).contains(&silent), "{silent}");
    }

    #[test]
    fn faults_end_with_their_limit_and_stay_with_their_unit() {
        let mut faults: Faults = "silence,unit=3,limit=2".parse().unwrap();
        let mut dice = Dice::new(0);
        let fates: Vec<bool> = [3, 1, 3, 3].into_iter().map(|unit| faults.draw(unit, &mut dice).silence).collect();
        assert_eq!(fates, [true, false, true, false]);
    }
}
