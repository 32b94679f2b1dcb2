//! From a whole message to the raw values in it.
//!
//! In: a message's bytes, the rules of the message and of a value. Out: the raw value, or why there is none. Must never
//! take a value from another message, nor a part of a field for all of it.

use std::borrow::Cow;

use regex_lite::{Captures, Regex};

use super::instant::Format;
use super::layout::place;
pub use super::layout::{BCD_BYTES, ByteLayout, Bytes};
use super::template::Template;
use super::{marks, numbers, obis, sml};
use crate::codec::{DataType, Layout, Raw};
use crate::value::{Value, from_f64};

/// Fields of one message; what comes behind them is left out.
const FIELDS: usize = 256;
/// Lines or pairs of one message; what comes behind them is left out.
const PAIRS: usize = 1_024;

/// A kind of message of a device.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its name in the profile.
    pub name: String,
    /// How it is recognised.
    pub matcher: Matcher,
    /// What it is made of.
    pub shape: Shape,
}

/// How a message is recognised: everything that is said must hold.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// Its text.
    pub pattern: Option<Regex>,
    /// Bytes at their places, negative ones from the end.
    pub bytes: Vec<(i64, u8)>,
    /// Its length in bytes.
    pub length: Option<usize>,
}

/// What a message is made of.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Bytes, or the captures of its pattern.
    Plain,
    /// Fields, counted from 0.
    Fields {
        /// Between two fields.
        separator: Separator,
        /// The fields end before this text.
        until: Option<String>,
    },
    /// Names with values.
    Pairs {
        /// Between two pairs.
        separator: Separator,
        /// Between name and value.
        assign: String,
    },
    /// Lines with a key; a line without one goes on with the line before.
    Lines {
        /// Finds the key: its group `obis` or `key`, or all it matches.
        key: Regex,
        /// Finds the value: its group `value`, or all it matches; and its unit, its group `unit`.
        value: Regex,
    },
    /// The value list of a smart meter.
    Sml,
}

/// What stands between two fields.
#[derive(Clone, Debug)]
pub enum Separator {
    /// This text.
    Text(String),
    /// Whatever matches.
    Pattern(Regex),
}

/// A message taken apart.
#[derive(Debug)]
pub struct Parsed<'a> {
    bytes: &'a [u8],
    text: &'a str,
    captures: Option<Captures<'a>>,
    fields: Vec<&'a str>,
    pairs: Vec<Pair>,
    entries: Vec<sml::Entry>,
}

#[derive(Debug)]
struct Pair {
    key: String,
    line: String,
    value: Option<String>,
    unit: Option<String>,
}

/// The text of a message: UTF-8, or Latin-1 where it is no UTF-8, so that a degree sign of an old device is still one.
pub fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}

impl Message {
    /// Takes a message apart; `None` when it is another kind. `text` is its [`text_of`].
    pub fn parse<'a>(&self, bytes: &'a [u8], text: &'a str) -> Option<Parsed<'a>> {
        let Matcher { pattern, bytes: wanted, length } = &self.matcher;
        let holds = |(at, byte): &(i64, u8)| place(bytes, *at).and_then(|at| bytes.get(at)) == Some(byte);
        if length.is_some_and(|length| length != bytes.len()) || !wanted.iter().all(holds) {
            return None;
        }
        let captures = match pattern {
            Some(pattern) => Some(pattern.captures(text)?),
            None => None,
        };
        let mut parsed = Parsed { bytes, text, captures, fields: Vec::new(), pairs: Vec::new(), entries: Vec::new() };
        match &self.shape {
            Shape::Plain => {}
            Shape::Fields { separator, until } => {
                let end = until.as_ref().and_then(|until| text.rfind(until.as_str())).unwrap_or(text.len());
                parsed.fields = separator.split(text.get(..end).unwrap_or(text), FIELDS);
            }
            Shape::Pairs { separator, assign } => {
                let pairs = separator.split(text, PAIRS).into_iter();
                let pairs = pairs.filter_map(|pair| pair.split_once(assign.as_str()));
                parsed.pairs = pairs.map(|(key, value)| Pair::new(key.trim(), value)).collect();
            }
            Shape::Lines { key, value } => parsed.pairs = lines(text, key, value),
            Shape::Sml => parsed.entries = sml::values(bytes)?,
        }
        Some(parsed)
    }
}

impl Separator {
    /// The parts, at most so many.
    fn split<'a>(&self, text: &'a str, most: usize) -> Vec<&'a str> {
        match self {
            Self::Text(separator) => text.split(separator.as_str()).take(most).collect(),
            Self::Pattern(pattern) => pattern.split(text).take(most).collect(),
        }
    }
}

impl Pair {
    fn new(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), line: value.to_owned(), value: Some(value.to_owned()), unit: None }
    }

    fn find(&mut self, pattern: &Regex) {
        let Some(found) = pattern.captures(&self.line) else { return };
        let named = |name: &str| found.name(name).map(|part| part.as_str().to_owned());
        self.value = named("value").or_else(|| found.get(0).map(|part| part.as_str().to_owned()));
        self.unit = named("unit");
    }
}

fn lines(text: &str, key: &Regex, value: &Regex) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    for line in text.lines().map(|line| line.trim_matches(['\r', '\n'])).filter(|line| !line.is_empty()) {
        let found = key.captures(line);
        let name = found.as_ref().and_then(|found| found.name("obis").or(found.name("key")).or(found.get(0)));
        match name {
            Some(_) if pairs.len() >= PAIRS => break,
            Some(name) => {
                let pair = Pair { key: name.as_str().to_owned(), line: line.to_owned(), value: None, unit: None };
                pairs.push(pair);
            }
            None => {
                if let Some(last) = pairs.last_mut() {
                    last.line.push_str(line);
                }
            }
        }
    }
    for pair in &mut pairs {
        pair.find(value);
    }
    pairs
}

/// Where in a message a value stands.
#[derive(Clone, Debug)]
pub enum Pick {
    /// A field, counted from 0.
    Field(usize),
    /// A group of the message's pattern.
    Capture(String),
    /// A name, or an OBIS code.
    Key {
        /// The name.
        key: String,
        /// Finds the value in what stands behind the name, instead of the message's own pattern; its group `value`, the
        /// first group, or all it matches.
        pattern: Option<Regex>,
    },
    /// Bytes.
    Bytes(Bytes),
    /// Text at a place of the message.
    Text {
        /// So many bytes from the beginning, or from the end when negative.
        at: i64,
        /// So many bytes.
        length: usize,
    },
    /// All of it.
    Whole,
    /// Several, with a space between them.
    Combine(Vec<Pick>),
}

/// How a text means a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parse {
    /// A decimal number, with a dot or a comma.
    Decimal,
    /// A whole number.
    Int,
    /// Hexadecimal digits.
    Hex,
    /// Degrees and minutes in one.
    Degrees,
    /// `1 0 true false on off yes no`.
    Bool,
    /// As it is, without spaces around it.
    Text,
    /// A date and time.
    Date(Format),
}

/// What turns a number negative.
#[derive(Clone, Debug)]
pub struct Sign {
    /// Where the sign stands.
    pub pick: Pick,
    /// The text that means "negative".
    pub negative: String,
}

/// Where a value comes from in a serial device.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Index of the message.
    pub message: usize,
    /// Index of the request that brings it; none when it comes by itself.
    pub request: Option<usize>,
    /// Where in the message.
    pub pick: Pick,
    /// What the text means; bytes mean what their layout says.
    pub parse: Parse,
    /// What turns it negative.
    pub sign: Option<Sign>,
    /// Text → value.
    pub map: Vec<(String, Value)>,
    /// Where its unit stands, and what each unit is multiplied with, as a decimal.
    pub unit: Option<(Pick, Vec<(String, String)>)>,
    /// The text that stands for a field with nothing in it.
    pub empty: Option<String>,
    /// How it is written.
    pub write: Option<WriteRequest>,
}

/// How a value is written.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Index of the request.
    pub request: usize,
    /// What it sends.
    pub tx: Template,
}

/// What a message says of one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// It does not speak of it.
    Absent,
    /// It says that there is none.
    Nothing,
    /// It says something that makes no sense.
    Wrong,
    /// A raw value.
    Raw(Raw),
    /// A value as the profile's map has it.
    Value(Value),
}

impl Visit {
    /// How the raw value lies in its bytes; text counts as a number of 64 bits.
    pub fn layout(&self) -> Layout {
        match &self.pick {
            Pick::Bytes(bytes) => bytes.layout.layout(bytes.bits),
            _ => Layout::new(DataType::Float64),
        }
    }

    /// Takes the value out of a message; texts that `is_nothing` says so of mean that there is none.
    pub fn read(&self, parsed: &Parsed<'_>, is_nothing: &dyn Fn(&str) -> bool) -> Got {
        if let Pick::Bytes(bytes) = &self.pick {
            return bytes.read(parsed.bytes).map_or(Got::Wrong, |raw| self.mapped(raw));
        }
        if let Pick::Key { key, pattern: None } = &self.pick
            && let Some(entry) = parsed.entries.iter().find(|entry| obis::same(&entry.code, key))
        {
            return self.listed(entry);
        }
        let text = match parsed.pick(&self.pick) {
            Picked::Absent => return Got::Absent,
            Picked::Missing => return Got::Wrong,
            Picked::Text(text) => text,
        };
        let text = match (text.trim(), &self.empty) {
            ("", Some(other)) => other.as_str(),
            ("", None) if self.parse == Parse::Text && self.map.is_empty() => {
                return Got::Raw(Raw::Text(String::new()));
            }
            ("", None) => return Got::Nothing,
            (text, _) => text,
        };
        if is_nothing(text) {
            return Got::Nothing;
        }
        if !self.map.is_empty() {
            let value = self.map.iter().find(|(word, _)| word == text).map(|(_, value)| value.clone());
            return value.map_or(Got::Wrong, Got::Value);
        }
        match self.number(text, parsed) {
            Some(raw) => Got::Raw(raw),
            None => Got::Wrong,
        }
    }

    fn mapped(&self, raw: Raw) -> Got {
        let text = match &raw {
            _ if self.map.is_empty() => return Got::Raw(raw),
            Raw::Int(number) => number.to_string(),
            Raw::Text(text) => text.clone(),
            _ => return Got::Raw(raw),
        };
        let value = self.map.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
        value.map_or(Got::Wrong, Got::Value)
    }

    fn listed(&self, entry: &sml::Entry) -> Got {
        let Some((_, factors)) = &self.unit else { return Got::Raw(entry.raw.clone()) };
        let unit = entry.unit.map(|unit| unit.to_string()).unwrap_or_default();
        let factor = factors.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
        let number = match &entry.raw {
            Raw::Int(number) => number.to_string(),
            Raw::Float(number) => number.to_string(),
            _ => return Got::Wrong,
        };
        factor.and_then(|factor| numbers::product(&number, factor)).map_or(Got::Wrong, Got::Raw)
    }

    fn number(&self, text: &str, parsed: &Parsed<'_>) -> Option<Raw> {
        let raw = match &self.parse {
            Parse::Text => Raw::Text(text.to_owned()),
            Parse::Hex => numbers::hexadecimal(text)?,
            Parse::Degrees => Raw::Float(numbers::degrees(text)?),
            Parse::Date(format) => Raw::Text(format.read(text)?.to_string()),
            Parse::Bool => Raw::Bool(match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "on" | "yes" => true,
                "0" | "false" | "off" | "no" => false,
                _ => return None,
            }),
            Parse::Int => match numbers::decimal(text)? {
                whole @ Raw::Int(_) => whole,
                _ => return None,
            },
            Parse::Decimal => match &self.unit {
                None => numbers::decimal(text)?,
                Some((pick, factors)) => {
                    let Picked::Text(unit) = parsed.unit(pick) else { return None };
                    let factor = factors.iter().find(|(name, _)| *name == unit.trim())?;
                    numbers::product(text, &factor.1)?
                }
            },
        };
        match &self.sign {
            None => Some(raw),
            Some(sign) => match (parsed.pick(&sign.pick), raw) {
                (Picked::Text(text), raw) if text.trim() != sign.negative => Some(raw),
                (Picked::Text(_), Raw::Int(number)) => Some(Raw::Int(-number)),
                (Picked::Text(_), Raw::Float(number)) => Some(Raw::Float(-number)),
                _ => None,
            },
        }
    }
}

enum Picked<'a> {
    /// The message does not speak of it.
    Absent,
    /// The message should have it, and has not.
    Missing,
    Text(Cow<'a, str>),
}

impl Parsed<'_> {
    fn pick(&self, pick: &Pick) -> Picked<'_> {
        let or_missing =
            |text: Option<&str>| text.map_or(Picked::Missing, |text| Picked::Text(Cow::Owned(text.to_owned())));
        match pick {
            Pick::Field(index) => or_missing(self.fields.get(*index).copied()),
            Pick::Capture(name) => {
                // A group that took no part is an empty field.
                let captures = self.captures.as_ref();
                or_missing(captures.map(|found| found.name(name).map_or("", |part| part.as_str())))
            }
            Pick::Key { key, pattern } => {
                let Some(pair) = self.pairs.iter().find(|pair| obis::same(&pair.key, key)) else {
                    return Picked::Absent;
                };
                match pattern {
                    None => or_missing(pair.value.as_deref()),
                    Some(pattern) => {
                        let found = pattern.captures(&pair.line);
                        let part = |found: &Captures<'_>| {
                            let part = found.name("value").or(found.get(1)).or(found.get(0));
                            part.map(|part| part.as_str().to_owned())
                        };
                        or_missing(found.as_ref().and_then(part).as_deref())
                    }
                }
            }
            Pick::Bytes(_) => Picked::Missing,
            Pick::Text { at, length } => {
                let bytes = place(self.bytes, *at).and_then(|at| self.bytes.get(at..at.checked_add(*length)?));
                bytes.map_or(Picked::Missing, |bytes| Picked::Text(text_of(bytes)))
            }
            Pick::Whole => Picked::Text(Cow::Borrowed(self.text)),
            Pick::Combine(picks) => {
                let mut all = String::new();
                for pick in picks {
                    let Picked::Text(text) = self.pick(pick) else { return Picked::Missing };
                    if text.trim().is_empty() {
                        return Picked::Text(Cow::Borrowed(""));
                    }
                    if !all.is_empty() {
                        all.push(' ');
                    }
                    all.push_str(text.trim());
                }
                Picked::Text(Cow::Owned(all))
            }
        }
    }

    /// The unit that stands with a value.
    fn unit(&self, pick: &Pick) -> Picked<'_> {
        match pick {
            Pick::Key { key, pattern: None } => {
                let pair = self.pairs.iter().find(|pair| obis::same(&pair.key, key));
                match pair.and_then(|pair| pair.unit.as_deref()) {
                    Some(unit) => Picked::Text(Cow::Borrowed(unit)),
                    None => Picked::Missing,
                }
            }
            other => self.pick(other),
        }
    }

    /// What a condition over the message sees under a name: `field_2`, `capture.state`, `fields`, `length`, `text`.
    pub fn named(&self, name: &str) -> Option<Value> {
        if let Some(index) = name.strip_prefix("field_") {
            return self.fields.get(index.parse::<usize>().ok()?).map(|field| Value::from(field.trim()));
        }
        if let Some(group) = name.strip_prefix("capture.") {
            let found = self.captures.as_ref()?.name(group);
            return Some(Value::from(found.map_or("", |part| part.as_str())));
        }
        if let Some(at) = name.strip_prefix("byte_") {
            return self.bytes.get(at.parse::<usize>().ok()?).map(|byte| Value::from(*byte));
        }
        match name {
            "fields" => Some(Value::from(self.fields.len())),
            "length" => Some(Value::from(self.bytes.len())),
            "text" => Some(Value::from(self.text)),
            _ => None,
        }
    }

    /// All values of a smart meter's list, or all lines with their keys, for people.
    pub fn listing(&self) -> Vec<(String, Value)> {
        let entries = self.entries.iter().map(|entry| {
            let value = match &entry.raw {
                Raw::Int(number) => i64::try_from(*number).map_or_else(|_| from_f64(*number as f64), Value::from),
                Raw::Float(number) => from_f64(*number),
                Raw::Bool(on) => Value::Bool(*on),
                Raw::Text(text) => Value::from(text.as_str()),
                Raw::List(_) => Value::Null,
            };
            (entry.code.clone(), value)
        });
        let pairs = self.pairs.iter().map(|pair| (pair.key.clone(), Value::from(pair.value.clone())));
        entries.chain(pairs).collect()
    }
}

/// The bytes a text of a profile means: hexadecimal where every byte is listed in two digits, else the characters, those
/// up to U+00FF as one byte.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let pairs: Vec<&str> = text.split(' ').collect();
    let hex = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    if pairs.iter().all(hex) {
        return pairs.iter().filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    }
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match u8::try_from(u32::from(letter)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Bytes for people: text where all of it can be printed, else hexadecimal pairs.
pub fn show(bytes: &[u8]) -> String {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\r' | b'\n' | b'\t');
    if !bytes.is_empty() && bytes.iter().all(is_text) {
        return text_of(bytes).into_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ")
}

/// Whether a message begins with a mark; for whoever waits for one.
pub fn begins(bytes: &[u8], mark: &[u8]) -> bool {
    marks::first(bytes, mark) == Some(0)
}
