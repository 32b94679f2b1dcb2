//! Where a property stands in a serial message, from the profile's words.
//!
//! In: a `from: {serial: …}`. Out: a [`Visit`], or complaints. Must never let a place through that its message has not.

use serde_json::Value;

use super::Visit;
use super::build::groups;
use super::raw::{RawPick, RawSign};
use crate::profile::Kind;
use crate::profile::build::Builder;
use crate::serial::DateFormat;
use crate::serial::extract::{BCD_BYTES, ByteLayout, Bytes, Parse, Pick, Shape, Sign, WriteRequest};
use crate::yaml::{Data, Node};

impl Builder<'_> {
    /// Makes a visit of what stands at a property.
    pub(in crate::profile) fn serial_visit(&mut self, name: &str, raw: &RawPick, kind: Kind) -> Option<Visit> {
        let path = ["properties", name, "from", "serial"];
        let at = |key| ["properties", name, "from", "serial", key];
        let Some(serial) = self.raw.serial.as_ref() else {
            let hint = "write serial: {framing: {type: line, end: \"\\n\"}, messages: {data: {}}}";
            self.complain(&path, "the profile does not say how the line is spoken", hint);
            return None;
        };
        let requests = || serial.requests.keys().map(String::as_str);
        let request = match &raw.request {
            Some(request) => Some(self.named(request, requests(), "request", &at("request"))?),
            None => None,
        };
        let answer = raw.request.as_ref().and_then(|request| serial.requests.get(request)?.answer.as_deref());
        let Some(message) = raw.message.as_deref().or(answer) else {
            self.complain(&path, "which message?", "write message: its name");
            return None;
        };
        let index = self.named(message, serial.messages.keys().map(String::as_str), "message", &at("message"))?;
        if request.is_some() && answer != Some(message) {
            let told = answer.map_or("none".to_owned(), |answer| format!("\"{answer}\""));
            let message = format!("the answer to this request is {told}, not \"{message}\"");
            self.complain(&at("message"), message, "take the message the request names as its answer");
        }
        let pick = self.pick(name, raw, message)?;
        let parse = self.parse(name, raw, kind)?;
        let sign = match &raw.sign {
            Some(sign) => Some(self.sign(name, sign, message)?),
            None => None,
        };
        let unit = match &raw.unit_from {
            None => None,
            Some(unit) => {
                let pick = match (unit.field, &unit.capture) {
                    (Some(field), None) => Pick::Field(field),
                    (None, Some(capture)) => self.capture(capture, message, &at("unit_from"))?,
                    _ => pick.clone(),
                };
                Some((pick, unit.map.iter().map(|(unit, factor)| (unit.clone(), factor.to_string())).collect()))
            }
        };
        let write = match &raw.write {
            None => None,
            Some(request) => Some(self.write_request(request, &at("write"))?),
        };
        Some(Visit {
            message: index,
            request,
            pick,
            parse,
            sign,
            map: raw.map.iter().map(|(word, value)| (word.clone(), value.clone())).collect(),
            unit,
            empty: raw.empty.as_ref().filter(|empty| !empty.is_null()).map(|empty| match empty {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }),
            write,
        })
    }

    fn write_request(&mut self, request: &str, path: &[&str]) -> Option<WriteRequest> {
        let requests: Vec<String> = self.raw.serial.iter().flat_map(|serial| serial.requests.keys().cloned()).collect();
        let index = self.named(request, requests.iter().map(String::as_str), "request", path)?;
        let tx = self.serial.as_ref()?.requests.iter().find(|other| other.name == request)?.tx.clone();
        if !tx.takes_value() {
            let message = format!("the request \"{request}\" has no place for a value");
            self.complain(path, message, "write {value} in its tx");
            return None;
        }
        Some(WriteRequest { request: index, tx })
    }

    fn pick(&mut self, name: &str, raw: &RawPick, message: &str) -> Option<Pick> {
        let path = ["properties", name, "from", "serial"];
        let at = |key| ["properties", name, "from", "serial", key];
        let given =
            [raw.field.is_some(), raw.capture.is_some(), raw.key.is_some(), raw.at.is_some(), raw.combine.is_some()];
        let count = given.into_iter().filter(|given| *given).count();
        if count > 1 {
            self.complain(&path, "a value stands at one place", "write one of field, capture, key, at, combine");
            return None;
        }
        let shape = self.shape_of(message)?;
        if let Some(field) = raw.field {
            return self.has_fields(shape, &at("field")).then_some(Pick::Field(field));
        }
        if let Some(capture) = &raw.capture {
            return self.capture(capture, message, &at("capture"));
        }
        if let Some(key) = &raw.key {
            if !matches!(shape, Some(Known::Keys)) {
                let hint = "write lines, decode: sml, or split with assign at the message";
                self.complain(&at("key"), "the message has no keys", hint);
                return None;
            }
            let pattern = match &raw.pattern {
                Some(pattern) => Some(self.pattern(pattern, &at("pattern"))?),
                None => None,
            };
            return Some(Pick::Key { key: key.clone(), pattern });
        }
        if let Some(at) = raw.at {
            return self.bytes(name, raw, at);
        }
        let combined = self.tree.find(&[&path[..], &["combine"]].concat());
        match combined.filter(|node| matches!(node.data, Data::Map(_))) {
            Some(node) => {
                let picks: Option<Vec<Pick>> =
                    node.entries().iter().map(|entry| self.part(&entry.value, message, &at("combine"))).collect();
                picks.map(Pick::Combine)
            }
            None => Some(Pick::Whole),
        }
    }

    fn part(&mut self, node: &Node, message: &str, path: &[&str]) -> Option<Pick> {
        match &node.data {
            Data::Number { number, .. } => {
                number.as_u64().and_then(|field| usize::try_from(field).ok()).map(Pick::Field)
            }
            Data::Text(capture) => self.capture(capture, message, path),
            _ => {
                self.complain(path, "a part is a field or a group", "write {date: 9, time: 1}");
                None
            }
        }
    }

    fn capture(&mut self, capture: &str, message: &str, path: &[&str]) -> Option<Pick> {
        let device = self.serial.as_ref()?;
        let (message, _) = device.messages.iter().find(|(other, _)| other.name == message)?;
        let names: Vec<String> = groups(message.matcher.pattern.as_ref()).map(str::to_owned).collect();
        self.named(capture, names.iter().map(String::as_str), "group", path)?;
        Some(Pick::Capture(capture.to_owned()))
    }

    fn sign(&mut self, name: &str, raw: &RawSign, message: &str) -> Option<Sign> {
        let path = ["properties", name, "from", "serial", "sign"];
        let pick = match (raw.field, &raw.capture) {
            (Some(field), None) => Pick::Field(field),
            (None, Some(capture)) => self.capture(capture, message, &path)?,
            _ => {
                self.complain(&path, "where does the sign stand?", "write field: 4, or capture: its name");
                return None;
            }
        };
        Some(Sign { pick, negative: raw.negative.clone() })
    }

    fn shape_of(&mut self, message: &str) -> Option<Option<Known>> {
        // A message with mistakes of its own has been complained about.
        let device = self.serial.as_ref()?;
        let (message, _) = device.messages.iter().find(|(other, _)| other.name == message)?;
        Some(match message.shape {
            Shape::Fields { .. } => Some(Known::Fields),
            Shape::Pairs { .. } | Shape::Lines { .. } | Shape::Sml => Some(Known::Keys),
            Shape::Plain => None,
        })
    }

    fn has_fields(&mut self, shape: Option<Known>, path: &[&str]) -> bool {
        let has = matches!(shape, Some(Known::Fields));
        if !has {
            self.complain(path, "the message has no fields", "write split: {separator: \",\"} at the message");
        }
        has
    }

    fn bytes(&mut self, name: &str, raw: &RawPick, place: i64) -> Option<Pick> {
        let at = |key| ["properties", name, "from", "serial", key];
        let Some(data) = &raw.data else {
            self.complain(
                &at("type"),
                "how do the bytes hold the value?",
                "write type: u8, i16be, u32le, f32be, bcd, text …",
            );
            return None;
        };
        let needs_length = matches!(data.as_str(), "bcd" | "bcdle" | "text" | "hex");
        if needs_length != raw.length.is_some() {
            let (message, hint) = match needs_length {
                true => (format!("how many bytes has the {data}?"), "write length: its bytes"),
                false => (format!("every {data} has the same length"), "leave length out"),
            };
            self.complain(&at("length"), message, hint);
            return None;
        }
        let length = raw.length.unwrap_or(1);
        let layout = match data.as_str() {
            "text" => return Some(Pick::Text { at: place, length }),
            "hex" => ByteLayout::Hex { bytes: length },
            "bcd" | "bcdle" if length > BCD_BYTES => {
                self.complain(&at("length"), format!("no number has {} digits", length * 2), "write 9 or less");
                return None;
            }
            "bcd" => ByteLayout::Bcd { bytes: length, little: false },
            "bcdle" => ByteLayout::Bcd { bytes: length, little: true },
            other => ByteLayout::named(other)?,
        };
        let bits = match &raw.bits {
            None => None,
            Some(bits) => {
                let written = bits.as_str().map_or_else(|| bits.to_string(), str::to_owned);
                let parsed = written.parse::<crate::codec::Bits>();
                let fits = parsed.as_ref().is_ok_and(|bits| usize::from(bits.last) < layout.bytes() * 8);
                if !fits || !matches!(layout, ByteLayout::Number { .. }) {
                    let message = format!("there are no bits {written} in {data}");
                    self.complain(&at("bits"), message, "bits count from 0, the least significant");
                    return None;
                }
                parsed.ok()
            }
        };
        Some(Pick::Bytes(Bytes { at: place, layout, bits }))
    }

    fn parse(&mut self, name: &str, raw: &RawPick, kind: Kind) -> Option<Parse> {
        let at = |key| ["properties", name, "from", "serial", key];
        let ahead = match raw.zone.as_deref().map(minutes) {
            Some(None) => {
                self.complain(
                    &at("zone"),
                    "there is no such zone",
                    "write how far the clock is ahead of UTC: \"+01:00\"",
                );
                return None;
            }
            zone => zone.flatten().unwrap_or(0),
        };
        if let Some(format) = &raw.format {
            let parsed = DateFormat::parse(format, ahead);
            if parsed.is_none() {
                let hint = "write yy or yyyy, MM, dd, HH, mm, ss, sss and what stands between them";
                self.complain(&at("format"), format!("\"{format}\" is no date format"), hint);
            }
            return parsed.map(Parse::Date);
        }
        Some(match raw.parse.as_deref() {
            Some("decimal") => Parse::Decimal,
            Some("int") => Parse::Int,
            Some("hex") => Parse::Hex,
            Some("ddmm") => Parse::Degrees,
            Some("bool") => Parse::Bool,
            Some("text") => Parse::Text,
            Some(_) => {
                self.complain(&at("parse"), "a date needs its format", "write format: \"yyyy-MM-dd HH:mm:ss\"");
                return None;
            }
            None => match kind {
                Kind::Bool => Parse::Bool,
                Kind::Enum | Kind::Flags => Parse::Int,
                Kind::String | Kind::Bytes | Kind::Datetime => Parse::Text,
                _ => Parse::Decimal,
            },
        })
    }
}

/// What a message is made of, as far as places go.
#[derive(Clone, Copy, Debug)]
enum Known {
    Fields,
    Keys,
}

/// `+01:00` in minutes.
fn minutes(zone: &str) -> Option<i32> {
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let ahead = hours * 60 + minutes;
    (minutes < 60 && ahead <= 14 * 60).then_some(if zone.starts_with('-') { -ahead } else { ahead })
}
