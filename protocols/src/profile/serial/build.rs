//! From the `serial:` section as written to a [`Device`] as meant.
//!
//! In: the section with its places. Out: framing, check, messages, requests; complaints about what the schema cannot see.
//! Must never let a rule through that could not find its messages again after damage.

use std::collections::BTreeMap;
use std::time::Duration;

use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

use super::raw::{RawCheck, RawCounts, RawEndian, RawFraming, RawLength, RawMessage, RawRequest, RawSerial};
use super::{Device, Greeting, Request};
use crate::expr::Expression;
use crate::profile::SerialLine;
use crate::profile::build::Builder;
use crate::serial::checksum::{Algorithm, Check, Crc, Edge, Notation, Spot};
use crate::serial::extract::{Matcher, Message, Separator, Shape, bytes_of};
use crate::serial::frame::{Framing, Kind, MAX_BYTES};
use crate::serial::sign_on;
use crate::serial::template::Template;
use crate::yaml::{Data, Node, nearest, quoted_list};

/// The most a compiled pattern may take, in bytes; a larger one is an error of the profile.
const PATTERN_BYTES: usize = 64 << 10;
/// The speed a sign-on agrees on where the profile says nothing, in bits a second.
const SIGN_ON_BAUD: u32 = 9_600;
/// How long a meter may take from its sign-on to the end of its list.
const SIGN_ON_TIMEOUT: Duration = Duration::from_secs(20);
/// What a line never means and noise looks like: bytes that are in no text.
const NOISE: [u8; 2] = [0x00, 0xFF];

/// The keys of each way of framing, besides `type`, `max`, `gap`, `encoding` and `ignore`.
fn keys_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "line" => &["start", "end", "strip", "include_ends"],
        "delimited" => &["start", "end", "strip", "include_ends", "escape", "escape_xor", "trailer"],
        "fixed" | "length_prefixed" => &["start", "end", "length", "include_ends"],
        _ => &[],
    }
}

/// Puts values in for `params.name` in the conditions of `on_open`: a text that is not in quotes names a parameter.
pub(in crate::profile) fn conditions(tree: &Node, values: &BTreeMap<String, Value>) -> Node {
    let mut tree = tree.clone();
    let Some(serial) = child(&mut tree, "serial") else { return tree };
    let Some(Data::List(items)) = child(serial, "on_open").map(|node| &mut node.data) else { return tree };
    for item in items {
        if let Some(Data::Text(text)) = child(item, "when").map(|node| &mut node.data) {
            for (name, value) in values.iter().rev() {
                let literal = match value {
                    Value::String(word) => format!("'{}'", word.replace(['\'', '\\'], "")),
                    other => other.to_string(),
                };
                *text = text.replace(&format!("params.{name}"), &literal);
            }
        }
    }
    tree
}

fn child<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    match &mut node.data {
        Data::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value),
        _ => None,
    }
}

impl Builder<'_> {
    /// The section of a serial device; nothing when the profile has none.
    pub(in crate::profile) fn serial_device(&mut self) -> Option<Device> {
        let raw = self.raw.serial.as_ref()?;
        let check = self.check_rule(raw);
        let framing = self.framing(&raw.framing, check.as_ref());
        let messages = self.messages(raw);
        let requests = self.requests(raw, check.as_ref());
        let on_open = self.greetings(raw, check.as_ref());
        let (framing, own) = framing?;
        if raw.silence.is_some_and(|silence| silence.0.is_zero()) {
            self.complain(&["serial", "silence"], "every device is silent for no time", "write a duration such as 10s");
        }
        Some(Device {
            line: raw.line.as_ref().map(SerialLine::from_raw).unwrap_or_default(),
            framing,
            check: check.or(own),
            messages,
            requests,
            on_open,
            silence: raw.silence.map(|time| time.0),
        })
    }

    fn framing(&mut self, raw: &RawFraming, check: Option<&Check>) -> Option<(Framing, Option<Check>)> {
        let at = |key| ["serial", "framing", key];
        self.strange_keys(raw);
        let bytes = |text: &Option<String>| text.as_deref().map(bytes_of).unwrap_or_default();
        let (mut start, mut end) = (bytes(&raw.start), bytes(&raw.end));
        let mut own = None;
        let both = raw.include_ends.unwrap_or(true);
        let mut keep = (both, both);
        let kind = match raw.kind.as_str() {
            "line" => {
                keep = raw.include_ends.map_or((true, false), |both| (both, both));
                Kind::Line
            }
            "delimited" => {
                let is_text = |bytes: &[u8]| bytes.iter().all(|byte| (0x09..0x7F).contains(byte));
                let text = is_text(&start) && is_text(&end) && check.is_none_or(|check| check.notation.is_text());
                let escape = bytes(&raw.escape).first().map(|escape| (*escape, raw.escape_xor.unwrap_or(0)));
                Kind::Delimited { trailer: raw.trailer.unwrap_or(0), text, escape }
            }
            "dsmr" => {
                (start, end) = (b"/".to_vec(), b"!".to_vec());
                own = Some(dsmr_check());
                Kind::Delimited { trailer: 6, text: true, escape: None }
            }
            "fixed" => Kind::Fixed(self.fixed_length(raw)?),
            "length_prefixed" => self.prefix(raw)?,
            "idle" => Kind::Idle,
            "slip" => Kind::Slip,
            "cobs" => Kind::Cobs,
            "sml" => Kind::Sml,
            _ => Kind::Iec62056,
        };
        if matches!(kind, Kind::Line | Kind::Delimited { .. }) && end.is_empty() {
            self.complain(&at("end"), "nobody knows where such a message ends", "write end: \"\\n\", or what ends it");
            return None;
        }
        if kind == Kind::Idle && raw.gap.is_none() {
            self.complain(&at("gap"), "idle messages end with a pause", "write gap: 50ms, or how long the pause is");
        }
        let max = raw.max.unwrap_or(MAX_BYTES);
        let least = start.len() + end.len() + 1;
        if max < least {
            self.complain(&at("max"), format!("no message fits {max} bytes"), format!("write {least} or more"));
        }
        let mut ignore = bytes(&raw.ignore);
        let encoding = raw.encoding.as_deref();
        if kind == Kind::Line && !matches!(encoding, Some("latin1" | "binary")) {
            ignore.extend(NOISE.into_iter().filter(|noise| !start.contains(noise) && !end.contains(noise)));
        }
        let framing = Framing {
            kind,
            start,
            end,
            strip: bytes(&raw.strip),
            keep,
            ignore,
            seven_bits: encoding == Some("ascii7"),
            max: max.max(least),
            gap: raw.gap.map(|gap| gap.0),
        };
        Some((framing, own))
    }

    fn strange_keys(&mut self, raw: &RawFraming) {
        let known = keys_of(&raw.kind);
        let given = [
            ("start", raw.start.is_some()),
            ("end", raw.end.is_some()),
            ("strip", raw.strip.is_some()),
            ("length", raw.length.is_some()),
            ("escape", raw.escape.is_some()),
            ("escape_xor", raw.escape_xor.is_some()),
            ("trailer", raw.trailer.is_some()),
            ("include_ends", raw.include_ends.is_some()),
        ];
        for (key, _) in given.into_iter().filter(|(key, given)| *given && !known.contains(key)) {
            let hint = match known {
                [] => "leave it out".to_owned(),
                known => format!("it knows {}", known.join(", ")),
            };
            self.complain(&["serial", "framing", key], format!("\"{key}\" means nothing to {}", raw.kind), hint);
        }
    }

    fn fixed_length(&mut self, raw: &RawFraming) -> Option<usize> {
        let length = raw.length.as_ref().and_then(Value::as_u64).and_then(|length| usize::try_from(length).ok());
        if length.is_none() {
            self.complain(&["serial", "framing", "length"], "how long is a message?", "write length: its bytes");
        }
        length
    }

    fn prefix(&mut self, raw: &RawFraming) -> Option<Kind> {
        let said = raw.length.clone().filter(Value::is_object).and_then(|said| serde_json::from_value(said).ok());
        let Some(RawLength { at, size, endian, counts, add }) = said else {
            let hint = "write length: {at: 2, size: 2, endian: big, counts: after_length}";
            self.complain(&["serial", "framing", "length"], "where does a message say its length?", hint);
            return None;
        };
        let (little, total) = (endian == RawEndian::Little, counts == RawCounts::Total);
        Some(Kind::LengthPrefixed { at, bytes: size, little, total, add })
    }

    fn check_rule(&mut self, raw: &RawSerial) -> Option<Check> {
        let raw = raw.check.as_ref()?;
        let algorithm = self.algorithm(raw)?;
        let own = algorithm.bytes();
        let format = raw.value.as_ref().and_then(|value| value.format.as_deref());
        let notation = match format {
            None => Some(Notation::Binary { bytes: own, little: false }),
            Some(format) => Notation::named(format),
        };
        let Some(notation) = notation else {
            let message = format!("nobody writes a check as \"{}\"", format.unwrap_or_default());
            self.complain(
                &["serial", "check", "value", "format"],
                message,
                "write u8, u16be, u16le, hex2, hex4 or dec",
            );
            return None;
        };
        let spot = match raw.value.as_ref().map(|value| (value.at, &value.after)) {
            Some((Some(at), None)) => Spot::At(at),
            Some((None, Some(after))) => Spot::After(bytes_of(after)),
            Some((Some(_), Some(_))) => {
                self.complain(&["serial", "check", "value"], "the check stands at two places", "write at or after");
                return None;
            }
            _ => Spot::At(-i64::try_from(notation.write(0).len()).unwrap_or(1)),
        };
        let until = match (&raw.until, &spot) {
            (Some(edge), _) => self.edge(edge, "until")?,
            (None, Spot::At(at)) => Edge::At(*at),
            (None, Spot::After(mark)) => Edge::Mark(mark.clone()),
        };
        let from = match &raw.from {
            Some(edge) => self.edge(edge, "from")?,
            None => Edge::Whole,
        };
        let optional = raw.value.as_ref().is_some_and(|value| value.optional) || raw.required == Some(false);
        Some(Check { algorithm, from, until, spot, notation, optional })
    }

    fn algorithm(&mut self, raw: &RawCheck) -> Option<Algorithm> {
        if raw.kind != "crc" {
            let extra = [("width", raw.width.is_some()), ("poly", raw.poly.is_some()), ("init", raw.init.is_some())];
            for (key, _) in extra.into_iter().filter(|(_, given)| *given) {
                let hint = "leave it out, or write type: crc";
                self.complain(&["serial", "check", key], format!("{} has its own {key}", raw.kind), hint);
            }
            return Algorithm::named(&raw.kind);
        }
        let (Some(width), Some(poly)) = (raw.width, raw.poly) else {
            let hint = "write width and poly, and init, refin, refout, xorout where they are not 0 and false";
            self.complain(&["serial", "check", "type"], "a crc needs its parameters", hint);
            return None;
        };
        let reflect = (raw.refin.unwrap_or(false), raw.refout.unwrap_or(false));
        let crc = Crc::new(width, poly, raw.init.unwrap_or(0), reflect, raw.xorout.unwrap_or(0));
        Some(Algorithm::Crc(Box::new(crc)))
    }

    fn edge(&mut self, raw: &Value, key: &str) -> Option<Edge> {
        let own = if key == "from" { "start" } else { "end" };
        match raw {
            Value::Number(number) => number.as_i64().map(Edge::At),
            Value::String(word) if word == own => Some(Edge::Whole),
            Value::String(mark) => Some(Edge::Mark(bytes_of(mark))),
            _ => None,
        }
    }

    fn messages(&mut self, raw: &RawSerial) -> Vec<(Message, Option<Expression>)> {
        if raw.messages.is_empty() {
            self.complain(&["serial", "messages"], "there are no messages", "name one: messages: {data: {}}");
        }
        raw.messages.iter().filter_map(|(name, message)| self.message(name, message)).collect()
    }

    fn message(&mut self, name: &str, raw: &RawMessage) -> Option<(Message, Option<Expression>)> {
        let path = ["serial", "messages", name];
        let at = |key| ["serial", "messages", name, key];
        let mut matcher = Matcher::default();
        if let Some(own) = &raw.matcher {
            if let Some(regex) = &own.regex {
                matcher.pattern = Some(self.pattern(regex, &["serial", "messages", name, "match", "regex"])?);
            }
            let bytes = own.bytes.iter().filter_map(|(at, byte)| Some((at.parse().ok()?, *byte)));
            matcher.bytes = bytes.collect();
            matcher.length = own.length;
        }
        let kinds = [raw.split.is_some(), raw.lines.is_some(), raw.decode.is_some()];
        if kinds.into_iter().filter(|given| *given).count() > 1 {
            self.complain(&path, "a message is taken apart one way", "write one of split, lines, decode");
            return None;
        }
        let shape = match (&raw.split, &raw.lines, &raw.decode) {
            (Some(split), ..) => {
                let separator = match (&split.separator, &split.pattern) {
                    (Some(text), None) if !text.is_empty() => Separator::Text(text.clone()),
                    (None, Some(pattern)) => {
                        Separator::Pattern(self.pattern(pattern, &["serial", "messages", name, "split", "pattern"])?)
                    }
                    _ => {
                        self.complain(&at("split"), "what stands between two fields?", "write separator: \",\"");
                        return None;
                    }
                };
                match &split.assign {
                    Some(assign) => Shape::Pairs { separator, assign: assign.clone() },
                    None => Shape::Fields { separator, until: split.until.clone() },
                }
            }
            (_, Some(lines), _) => Shape::Lines {
                key: self.pattern(&lines.key, &["serial", "messages", name, "lines", "key"])?,
                value: self.pattern(&lines.value, &["serial", "messages", name, "lines", "value"])?,
            },
            (_, _, Some(_)) => Shape::Sml,
            _ => Shape::Plain,
        };
        let message = Message { name: name.to_owned(), matcher, shape };
        let accept = raw.accept.as_deref().and_then(|text| self.accept(text, &message, &at("accept")));
        Some((message, accept))
    }

    /// A condition over a message: `field[2]` reaches the expressions as `field_2`.
    fn accept(&mut self, text: &str, message: &Message, path: &[&str]) -> Option<Expression> {
        let index = Regex::new(r"\b(field|byte)\[(\d{1,4})\]").ok()?;
        let plain = index.replace_all(text, "${1}_$2").into_owned();
        let mut names: Vec<String> = ["fields", "length", "text"].map(str::to_owned).into();
        names.extend(index.captures_iter(text).map(|found| {
            let part = |group| found.get(group).map_or("", |part| part.as_str());
            format!("{}_{}", part(1), part(2))
        }));
        names.extend(groups(message.matcher.pattern.as_ref()).map(|group| format!("capture.{group}")));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.condition(&plain, &names, path)
    }

    pub(super) fn pattern(&mut self, text: &str, path: &[&str]) -> Option<Regex> {
        match RegexBuilder::new(text).size_limit(PATTERN_BYTES).build() {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let message = format!("the pattern cannot be read: {error}");
                self.complain(
                    path,
                    message,
                    "write a regular expression; in double quotes a backslash is written twice",
                );
                None
            }
        }
    }

    fn requests(&mut self, raw: &RawSerial, check: Option<&Check>) -> Vec<Request> {
        raw.requests.iter().filter_map(|(name, request)| self.request(name, request, raw, check)).collect()
    }

    fn request(&mut self, name: &str, raw: &RawRequest, serial: &RawSerial, check: Option<&Check>) -> Option<Request> {
        let at = |key| ["serial", "requests", name, key];
        let answer = self.message_index(raw.answer.as_deref(), serial, &at("answer")).ok()?;
        let refusal = self.message_index(raw.refusal.as_deref(), serial, &at("refusal")).ok()?;
        let tx = match (&raw.tx, &raw.iec62056) {
            (Some(tx), None) => self.template(tx, check, &at("tx"))?,
            (None, Some(sign)) => {
                let request = sign_on(sign.address.as_deref().unwrap_or_default());
                Template::parse(&String::from_utf8_lossy(&request)).ok()?
            }
            _ => {
                let hint = "write one of: tx: \"…\", iec62056: {max_baud: 9600}";
                self.complain(&["serial", "requests", name], format!("what does \"{name}\" send?"), hint);
                return None;
            }
        };
        let signs_on = raw.iec62056.as_ref().map(|sign| sign.max_baud.unwrap_or(SIGN_ON_BAUD));
        if signs_on.is_some() && (serial.framing.kind != "iec62056" || answer.is_none()) {
            let hint = "write framing: {type: iec62056}, and answer: the message with the values";
            self.complain(&at("iec62056"), "a sign-on needs its framing and an answer", hint);
        }
        if raw.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            self.complain(&at("timeout"), "no device answers in 0 time", "write a duration such as 500ms");
        }
        Some(Request {
            name: name.to_owned(),
            tx,
            answer,
            refusal,
            timeout: raw.timeout.map(|time| time.0).or(signs_on.map(|_| SIGN_ON_TIMEOUT)),
            retries: raw.retries.unwrap_or(1),
            settle: raw.settle.map_or(Duration::ZERO, |time| time.0),
            sign_on: signs_on,
        })
    }

    pub(super) fn template(&mut self, text: &str, check: Option<&Check>, path: &[&str]) -> Option<Template> {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(error) => {
                self.complain(path, error.to_string(), "write what is sent: text, or hexadecimal pairs such as FF 01");
                return None;
            }
        };
        if template.takes_check() && check.is_none() {
            let hint = "write serial: {check: {type: …}}, or the bytes of the check";
            self.complain(path, "there is no check to put in", hint);
            return None;
        }
        Some(template)
    }

    /// The index of a message, or none where none is named; an error when there is no such message, which was told.
    fn message_index(&mut self, name: Option<&str>, serial: &RawSerial, path: &[&str]) -> Result<Option<usize>, ()> {
        let Some(name) = name else { return Ok(None) };
        self.named(name, serial.messages.keys().map(String::as_str), "message", path).map(Some).ok_or(())
    }

    /// The index of a name among others, or a complaint with what was meant.
    pub(super) fn named<'n>(
        &mut self,
        name: &str,
        known: impl Iterator<Item = &'n str> + Clone,
        what: &str,
        path: &[&str],
    ) -> Option<usize> {
        let found = known.clone().position(|other| other == name);
        if found.is_none() {
            let hint = match nearest(name, known.clone()) {
                Some(meant) => format!("did you mean \"{meant}\"? {what}s: {}", quoted_list(known)),
                None => format!("{what}s: {}", quoted_list(known)),
            };
            self.complain(path, format!("there is no {what} \"{name}\""), hint);
        }
        found
    }

    fn greetings(&mut self, raw: &RawSerial, check: Option<&Check>) -> Vec<Greeting> {
        let mut greetings = Vec::new();
        for greeting in &raw.on_open {
            let path = ["serial", "on_open"];
            let Some(template) = self.template(&greeting.tx, check, &path) else { continue };
            let end = raw.framing.end.as_deref().map(bytes_of).unwrap_or_default();
            let bytes = match template.render(None, check, &end) {
                Ok(bytes) => bytes,
                Err(why) => {
                    self.complain(&path, format!("it cannot be sent: {why}"), "write what is sent");
                    continue;
                }
            };
            let holds = match greeting.when.as_deref().map(|when| self.condition(when, &[], &path)) {
                None => true,
                // Its parameters are filled in, so nothing is left to look up.
                Some(Some(when)) => when.holds(&Nothing).unwrap_or(false),
                Some(None) => false,
            };
            if holds {
                greetings.push(Greeting { bytes, delay: greeting.delay.map_or(Duration::ZERO, |time| time.0) });
            }
        }
        greetings
    }
}

/// The names of a pattern's groups.
pub(super) fn groups(pattern: Option<&Regex>) -> impl Iterator<Item = &str> + Clone {
    pattern.into_iter().flat_map(|pattern| pattern.capture_names().flatten())
}

/// The check of a Dutch smart meter: from `/` to `!`, behind which it stands; the oldest meters have none.
fn dsmr_check() -> Check {
    Check {
        algorithm: Algorithm::named("crc16_arc").unwrap_or(Algorithm::Sum16),
        from: Edge::Whole,
        until: Edge::Whole,
        spot: Spot::After(b"!".to_vec()),
        notation: Notation::Hex(4),
        optional: true,
    }
}

/// A scope in which nothing has a name.
struct Nothing;

impl crate::expr::Scope for Nothing {
    fn value(&self, _: &str) -> Option<Value> {
        None
    }

    fn quality(&self, _: &str) -> Option<crate::value::Quality> {
        None
    }

    fn age_ms(&self, _: &str) -> Option<u64> {
        None
    }

    fn window(&self, _: &str, _: u64) -> Option<crate::expr::Window> {
        None
    }

    fn previous(&self, _: &str) -> Option<Value> {
        None
    }
}
