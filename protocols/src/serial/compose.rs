//! The way back: a value into a message, so that whoever reads it finds it there.
//!
//! In: a message that was recorded, the rule of a value, a raw value. Out: the message with that value in it, written as
//! wide and as exactly as the one before. Must never change anything else in the message, nor write what the rule would
//! read as another value; what cannot be turned round is refused by name.

use std::ops::Range;

use super::extract::{Matcher, Message, Parse, Pick, Separator, Shape, Visit, text_of};
use super::layout::{ByteLayout, Bytes, place};
use super::{numbers, obis, sml};
use crate::codec::{self, Raw};
use crate::value::Timestamp;

/// Why a value cannot be put into a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The message holds no such place, or nothing in it that could be another.
    #[error("the recorded message says nothing there")]
    Nothing,
    /// A text means what it means to its device; nobody knows another one.
    #[error("it is a text")]
    Text,
    /// A word that the rule does not know.
    #[error("no word of its map means that")]
    Word,
    /// A number that has no room where the old one stood.
    #[error("the number has no room in the message")]
    Room,
    /// The rule cannot be turned round.
    #[error("{0} cannot be turned round")]
    Construct(&'static str),
}

/// Text of a message that is changed, and how it goes back to bytes.
struct Text {
    text: String,
    is_utf8: bool,
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        Self { text: text_of(bytes).into_owned(), is_utf8: std::str::from_utf8(bytes).is_ok() }
    }

    fn replace(mut self, span: Range<usize>, with: &str) -> Result<Vec<u8>, Unwritable> {
        if self.text.get(span.clone()).is_none() {
            return Err(Unwritable::Nothing);
        }
        self.text.replace_range(span, with);
        if self.is_utf8 {
            return Ok(self.text.into_bytes());
        }
        self.text.chars().map(|letter| u8::try_from(u32::from(letter)).map_err(|_| Unwritable::Room)).collect()
    }
}

impl Visit {
    /// The message with `raw` where this rule finds its value.
    ///
    /// # Errors
    /// [`Unwritable`]: the message is as it was then.
    pub fn put(&self, message: &Message, bytes: &[u8], raw: &Raw) -> Result<Vec<u8>, Unwritable> {
        match &self.pick {
            Pick::Bytes(own) => own.write(bytes, &self.word_as_number(raw)?),
            Pick::Key { key, pattern: None } if matches!(message.shape, Shape::Sml) => {
                sml::put(bytes, key, &self.listed_raw(bytes, key, raw)?)
            }
            Pick::Combine(picks) => self.put_parts(message, bytes, picks, raw),
            pick => {
                let text = Text::of(bytes);
                let span = span(message, pick, &text.text).ok_or(Unwritable::Nothing)?;
                let old = text.text.get(span.clone()).unwrap_or_default().to_owned();
                let new = self.written(message, &text.text, &old, raw)?;
                text.replace(span, &new)
            }
        }
    }

    /// A value that stands in several places: as many words as there are places.
    fn put_parts(&self, message: &Message, bytes: &[u8], picks: &[Pick], raw: &Raw) -> Result<Vec<u8>, Unwritable> {
        let old = self.parts(message, bytes, picks)?;
        let whole = self.written(message, &text_of(bytes), &old.join(" "), raw)?;
        let words: Vec<&str> = whole.split(' ').collect();
        if words.len() != picks.len() {
            return Err(Unwritable::Construct("a value of several places that are not several words"));
        }
        let mut bytes = bytes.to_vec();
        for (pick, word) in picks.iter().zip(words) {
            let text = Text::of(&bytes);
            let span = span(message, pick, &text.text).ok_or(Unwritable::Nothing)?;
            bytes = text.replace(span, word)?;
        }
        Ok(bytes)
    }

    fn parts(&self, message: &Message, bytes: &[u8], picks: &[Pick]) -> Result<Vec<String>, Unwritable> {
        let text = text_of(bytes);
        let part = |pick| span(message, pick, &text).and_then(|span| text.get(span)).map(str::to_owned);
        picks.iter().map(part).collect::<Option<_>>().ok_or(Unwritable::Nothing)
    }

    /// The text that means `raw`, in the form of `old`.
    fn written(&self, message: &Message, text: &str, old: &str, raw: &Raw) -> Result<String, Unwritable> {
        if !self.map.is_empty() {
            let Raw::Text(word) = raw else { return Err(Unwritable::Word) };
            return self.map.iter().any(|(own, _)| own == word).then(|| word.clone()).ok_or(Unwritable::Word);
        }
        match (&self.parse, raw) {
            (Parse::Text, _) => Err(Unwritable::Text),
            (Parse::Date(format), Raw::Text(at)) => {
                let at: Timestamp = at.parse().map_err(|_| Unwritable::Text)?;
                format.write(at, old).ok_or(Unwritable::Construct("this date format"))
            }
            (Parse::Bool, raw) => truth(old, is_on(raw)?).ok_or(Unwritable::Word),
            (Parse::Hex, raw) => {
                let digits = old.trim().len().max(1);
                let number = u64::try_from(whole(raw)?).map_err(|_| Unwritable::Room)?;
                let text = format!("{number:0digits$X}");
                (text.len() == digits).then_some(text).ok_or(Unwritable::Room)
            }
            (Parse::Degrees, raw) => degrees(old, self.unsigned(message, text, number(raw)?)?),
            (Parse::Decimal | Parse::Int, raw) => {
                let number = self.unsigned(message, text, number(raw)?)?;
                let number = if self.unit.is_some() { number / self.factor(message, text)? } else { number };
                decimal(old, number)
            }
            (Parse::Date(_), _) => Err(Unwritable::Text),
        }
    }

    /// Without the sign that stands elsewhere; that one stays as it is.
    fn unsigned(&self, message: &Message, text: &str, number: f64) -> Result<f64, Unwritable> {
        let Some(sign) = &self.sign else { return Ok(number) };
        let own = span(message, &sign.pick, text).and_then(|span| text.get(span)).ok_or(Unwritable::Nothing)?;
        let is_negative = own.trim() == sign.negative;
        let magnitude = if is_negative { -number } else { number };
        (magnitude >= 0.0).then_some(magnitude).ok_or(Unwritable::Construct("a sign that stands by itself"))
    }

    /// What the unit that stands with the value multiplies it with.
    fn factor(&self, message: &Message, text: &str) -> Result<f64, Unwritable> {
        let Some((pick, factors)) = &self.unit else { return Ok(1.0) };
        let own = match pick {
            Pick::Key { key, pattern: None } => {
                key_line(message, key, text).and_then(|line| unit_in(message, text.get(line)?))
            }
            pick => span(message, pick, text).and_then(|span| text.get(span)).map(str::to_owned),
        };
        let own = own.ok_or(Unwritable::Nothing)?;
        let factor = factors.iter().find(|(unit, _)| unit == own.trim()).and_then(|(_, factor)| factor.parse().ok());
        factor.filter(|factor: &f64| *factor != 0.0).ok_or(Unwritable::Nothing)
    }

    /// The number of a smart meter's list in the unit in which the meter tells it.
    fn listed_raw(&self, bytes: &[u8], key: &str, raw: &Raw) -> Result<Raw, Unwritable> {
        let Some((_, factors)) = &self.unit else { return Ok(raw.clone()) };
        let entries = sml::values(bytes).ok_or(Unwritable::Nothing)?;
        let entry = entries.into_iter().find(|entry| obis::same(&entry.code, key)).ok_or(Unwritable::Nothing)?;
        let unit = entry.unit.map(|unit| unit.to_string()).unwrap_or_default();
        let factor = factors.iter().find(|(name, _)| *name == unit).and_then(|(_, factor)| factor.parse::<f64>().ok());
        let factor = factor.filter(|factor| *factor != 0.0).ok_or(Unwritable::Nothing)?;
        Ok(Raw::Float(number(raw)? / factor))
    }

    /// Bytes with a map hold its words as numbers.
    fn word_as_number(&self, raw: &Raw) -> Result<Raw, Unwritable> {
        match raw {
            Raw::Text(word) if !self.map.is_empty() => word.parse().map(Raw::Int).map_err(|_| Unwritable::Word),
            raw => Ok(raw.clone()),
        }
    }
}

/// Where a value's text stands in a message's text.
fn span(message: &Message, pick: &Pick, text: &str) -> Option<Range<usize>> {
    match pick {
        Pick::Capture(name) => {
            let Matcher { pattern, .. } = &message.matcher;
            pattern.as_ref()?.captures(text)?.name(name).map(|found| found.range())
        }
        Pick::Field(index) => {
            let Shape::Fields { separator, until } = &message.shape else { return None };
            let end = until.as_ref().and_then(|until| text.rfind(until.as_str())).unwrap_or(text.len());
            parts(separator, text.get(..end)?).nth(*index)
        }
        Pick::Key { key, pattern } => match &message.shape {
            Shape::Pairs { separator, assign } => {
                let own = |span: &Range<usize>| {
                    let pair = text.get(span.clone()).and_then(|pair| pair.split_once(assign.as_str()));
                    pair.is_some_and(|(name, _)| obis::same(name.trim(), key))
                };
                let pair = parts(separator, text).find(own)?;
                let at = pair.start + text.get(pair.clone())?.find(assign.as_str())? + assign.len();
                Some(at..pair.end)
            }
            Shape::Lines { value, .. } => {
                let line = key_line(message, key, text)?;
                let found = pattern.as_ref().unwrap_or(value).captures(text.get(line.clone())?)?;
                let first = pattern.as_ref().and_then(|_| found.get(1));
                let own = found.name("value").or(first).or(found.get(0))?;
                Some(line.start + own.start()..line.start + own.end())
            }
            _ => None,
        },
        Pick::Text { at, length } => {
            let at = place(text.as_bytes(), *at)?;
            Some(at..at.checked_add(*length)?)
        }
        Pick::Whole => Some(0..text.len()),
        Pick::Bytes(_) | Pick::Combine(_) => None,
    }
}

/// The line of a key; a value that stands on the line behind is not found.
fn key_line(message: &Message, key: &str, text: &str) -> Option<Range<usize>> {
    let Shape::Lines { key: pattern, .. } = &message.shape else { return None };
    let mut at = 0;
    text.split_inclusive('\n').find_map(|line| {
        let begin = at;
        at += line.len();
        let own = line.trim_end_matches(['\r', '\n']);
        let found = pattern.captures(own)?;
        let name = found.name("obis").or(found.name("key")).or(found.get(0))?;
        obis::same(name.as_str(), key).then_some(begin..begin + own.len())
    })
}

fn unit_in(message: &Message, line: &str) -> Option<String> {
    let Shape::Lines { value, .. } = &message.shape else { return None };
    value.captures(line)?.name("unit").map(|unit| unit.as_str().to_owned())
}

/// The parts of a text between separators.
fn parts<'a>(separator: &'a Separator, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    let between: Vec<Range<usize>> = match separator {
        Separator::Text(mark) => text.match_indices(mark.as_str()).map(|(at, mark)| at..at + mark.len()).collect(),
        Separator::Pattern(pattern) => pattern.find_iter(text).map(|found| found.range()).collect(),
    };
    let begins: Vec<usize> = std::iter::once(0).chain(between.iter().map(|mark| mark.end)).collect();
    let ends = between.into_iter().map(|mark| mark.start).chain(std::iter::once(text.len()));
    begins.into_iter().zip(ends).map(|(begin, end)| begin..end)
}

/// A number as wide and with as many decimals as the old one: `001581.123` → `001581.130`, `+  12.34` → `+   9.87`.
fn decimal(old: &str, number: f64) -> Result<String, Unwritable> {
    let own = old.trim();
    let at = old.find(own).unwrap_or_default();
    let (before, after) = (old.get(..at).unwrap_or_default(), old.get(at + own.len()..).unwrap_or_default());
    let (has_sign, digits) = match own.strip_prefix(['+', '-']) {
        Some(rest) => (true, rest),
        None => (false, own),
    };
    if numbers::decimal(own).is_none() || digits.contains(['e', 'E']) {
        return Err(Unwritable::Nothing);
    }
    let places = digits.find(['.', ',']).map_or(0, |at| digits.len() - at - 1);
    let fill = if digits.starts_with(' ') { ' ' } else { '0' };
    // A single zero before the point is how everybody writes it, and no filling.
    let is_filled = matches!(digits.as_bytes(), [b' ', ..] | [b'0', b'0'..=b'9', ..]);
    let plain = format!("{:.places$}", number.abs());
    let missing = if is_filled { digits.chars().count().saturating_sub(plain.len()) } else { 0 };
    let plain = if digits.contains(',') { plain.replace('.', ",") } else { plain };
    let filled: String = std::iter::repeat_n(fill, missing).chain(plain.chars()).collect();
    if is_filled && filled.chars().count() > digits.chars().count() {
        return Err(Unwritable::Room);
    }
    let is_zero = plain.bytes().all(|byte| !matches!(byte, b'1'..=b'9'));
    let sign = match (number < 0.0 && !is_zero, has_sign && !own.starts_with('-')) {
        (true, _) => "-",
        (false, true) => "+",
        (false, false) => "",
    };
    Ok(format!("{before}{sign}{filled}{after}"))
}

/// Degrees and minutes in one, with as many digits as before.
fn degrees(old: &str, number: f64) -> Result<String, Unwritable> {
    let (whole, fraction) = old.trim().split_once('.').unwrap_or((old.trim(), ""));
    let (wide, places) = (whole.len().checked_sub(2).ok_or(Unwritable::Nothing)?, fraction.len());
    let minutes = format!("{:.places$}", number.fract() * 60.0);
    // Rounding must not make sixty minutes.
    let (degrees, minutes) = match minutes.parse::<f64>() {
        Ok(minutes) if minutes >= 60.0 => (number.trunc() + 1.0, format!("{:.places$}", 0.0)),
        _ => (number.trunc(), minutes),
    };
    let width = if places == 0 { 2 } else { places + 3 };
    let text = format!("{degrees:0wide$.0}{minutes:0>width$}");
    (text.len() == old.trim().len()).then_some(text).ok_or(Unwritable::Room)
}

/// The word for the other truth, of the kind that stands there.
fn truth(old: &str, on: bool) -> Option<String> {
    const WORDS: [(&str, &str); 4] = [("1", "0"), ("true", "false"), ("on", "off"), ("yes", "no")];
    let own = old.trim().to_ascii_lowercase();
    let (yes, no) = WORDS.into_iter().find(|(yes, no)| own == *yes || own == *no)?;
    Some(if on { yes } else { no }.to_owned())
}

fn is_on(raw: &Raw) -> Result<bool, Unwritable> {
    match raw {
        Raw::Bool(on) => Ok(*on),
        Raw::Int(number) => Ok(*number != 0),
        _ => Err(Unwritable::Word),
    }
}

pub(super) fn number(raw: &Raw) -> Result<f64, Unwritable> {
    match raw {
        Raw::Int(number) => Ok(*number as f64),
        Raw::Float(number) if number.is_finite() => Ok(*number),
        Raw::Bool(on) => Ok(f64::from(u8::from(*on))),
        _ => Err(Unwritable::Text),
    }
}

fn whole(raw: &Raw) -> Result<i128, Unwritable> {
    match raw {
        Raw::Int(number) => Ok(*number),
        raw => Ok(number(raw)?.round() as i128),
    }
}

impl Bytes {
    /// The message with a value in these bytes.
    fn write(&self, message: &[u8], raw: &Raw) -> Result<Vec<u8>, Unwritable> {
        let width = self.layout.bytes();
        let span =
            place(message, self.at).and_then(|at| Some(at..at.checked_add(width)?)).ok_or(Unwritable::Nothing)?;
        let mut own = message.get(span.clone()).ok_or(Unwritable::Nothing)?.to_vec();
        let is_little =
            matches!(self.layout, ByteLayout::Number { little: true, .. } | ByteLayout::Bcd { little: true, .. });
        if is_little {
            own.reverse();
        }
        let mut own = match self.layout {
            ByteLayout::Hex { .. } => return Err(Unwritable::Text),
            ByteLayout::Bcd { bytes, .. } => packed(whole(raw)?, bytes)?,
            ByteLayout::Number { .. } => self.encoded(&own, raw)?,
        };
        if is_little {
            own.reverse();
        }
        let mut all = message.to_vec();
        all.splice(span, own);
        Ok(all)
    }

    /// The bytes of a number, most significant first, beside the bits that belong to others.
    fn encoded(&self, own: &[u8], raw: &Raw) -> Result<Vec<u8>, Unwritable> {
        let layout = self.layout.layout(self.bits);
        let raw = match layout.bounds() {
            Some(bounds) => Raw::Int(whole(raw)?.clamp(*bounds.start(), *bounds.end())),
            None => Raw::Float(number(raw)?),
        };
        let missing = (usize::from(layout.registers()) * 2).saturating_sub(own.len());
        let padded: Vec<u8> = std::iter::repeat_n(0, missing).chain(own.iter().copied()).collect();
        let pair = |pair: &[u8]| Some(u16::from_be_bytes(pair.try_into().ok()?));
        let mut words: Vec<u16> = padded.chunks_exact(2).filter_map(pair).collect();
        codec::encode_into(&layout, &raw, &mut words).map_err(|_| Unwritable::Room)?;
        let bytes: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
        Ok(bytes.get(missing..).unwrap_or_default().to_vec())
    }
}

fn packed(number: i128, bytes: usize) -> Result<Vec<u8>, Unwritable> {
    let digits = format!("{:0width$}", u64::try_from(number).map_err(|_| Unwritable::Room)?, width = bytes * 2);
    if digits.len() > bytes * 2 {
        return Err(Unwritable::Room);
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(pair).collect::<Option<_>>().ok_or(Unwritable::Room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_the_form_of_the_one_it_takes_the_place_of() {
        for (old, number, expected) in [
            ("001581.123", 1581.13, Ok("001581.130")),
            ("0.48", 12.5, Ok("12.50")),
            ("02.027", 1.5, Ok("01.500")),
            ("02.027", 100.0, Err(Unwritable::Room)),
            ("+  12.34", 9.87, Ok("+   9.87")),
            ("+  12.34", -9.87, Ok("-   9.87")),
            (" 12,5 ", 13.25, Ok(" 13.2 ")),
            ("-7", 3.0, Ok("3")),
            ("-0.1", -0.01, Ok("0.0")),
            ("000", 1.4, Ok("001")),
            ("", 1.0, Err(Unwritable::Nothing)),
            ("n/a", 1.0, Err(Unwritable::Nothing)),
        ] {
            let expected =
                expected.map(|text| if old.contains(',') { text.replace('.', ",") } else { text.to_owned() });
            assert_eq!(decimal(old, number), expected, "{old} → {number}");
        }
        for (old, number, expected) in [
            ("4916.45", 49.5, Ok("4930.00".to_owned())),
            ("12311.12", 123.185_333, Ok("12311.12".to_owned())),
            ("4916.45", 49.999_999_9, Ok("5000.00".to_owned())),
            ("4916.45", 100.0, Err(Unwritable::Room)),
        ] {
            assert_eq!(degrees(old, number), expected, "{number}");
        }
    }
}
