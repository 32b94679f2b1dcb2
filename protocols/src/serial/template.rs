//! What is sent to a device: text or bytes with places for a value and for a check.
//!
//! In: `SP={value:.1}\r\n`, `FF 01 87 {value:u16be} 00 00 00 {check}`. Out: the bytes. Must never send half a value, or a
//! check over something else than what is sent.

use super::checksum::Check;
use super::extract::bytes_of;
use crate::codec::Raw;

/// The longest request, in bytes.
pub const REQUEST_BYTES: usize = 4_096;

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Value(Form),
    Check,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As short as it can be.
    Plain,
    /// With so many decimals, and zeros in front up to a width.
    Decimals { width: usize, places: usize },
    /// As bytes.
    Binary { bytes: usize, little: bool, signed: bool },
    /// As so many hexadecimal digits.
    Hex(usize),
}

/// What is wrong with a template, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without the other.
    #[error("a \"{{\" without its \"}}\"; a brace by itself is written twice")]
    Brace,
    /// A place of another name.
    #[error(
        "there is no place \"{0}\"; there are {{value}}, {{value:.1}}, {{value:06.2}}, {{value:u16be}}, {{value:hex4}} and {{check}}"
    )]
    Place(String),
    /// Nothing or too much.
    #[error("a request has from 1 to {REQUEST_BYTES} bytes, not {0}")]
    Length(usize),
}

impl Template {
    /// Reads a template. Where every byte is listed in two hexadecimal digits, the places among them, it is bytes.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let tokens = text.split(' ');
        let hex = |token: &str| token.len() == 2 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let place = |token: &str| token.starts_with('{') && token.ends_with('}') && !token.starts_with("{{");
        let is_bytes = tokens.clone().all(|token| hex(token) || place(token));
        let mut parts = Vec::new();
        if is_bytes {
            for token in tokens {
                parts.push(match token.strip_prefix('{').and_then(|token| token.strip_suffix('}')) {
                    Some(place) => part(place)?,
                    None => Part::Bytes(bytes_of(token)),
                });
            }
        } else {
            parse_text(text, &mut parts)?;
        }
        let length: usize = parts.iter().map(|part| if let Part::Bytes(bytes) = part { bytes.len() } else { 1 }).sum();
        if !(1..=REQUEST_BYTES).contains(&length) {
            return Err(TemplateError::Length(length));
        }
        Ok(Self { parts })
    }

    /// Whether there is a place for a value.
    pub fn takes_value(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(_)))
    }

    /// Whether there is a place for a check.
    pub fn takes_check(&self) -> bool {
        self.parts.contains(&Part::Check)
    }

    /// The bytes to send without a check: what differs between two values.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_value(&self, value: &Raw) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Bytes(own) => bytes.extend_from_slice(own),
                Part::Value(form) => form.write(value, &mut bytes)?,
                Part::Check => {}
            }
        }
        Ok(bytes)
    }

    /// The bytes to send; `end` is the end mark that the check does not see.
    ///
    /// # Errors
    /// What is wrong with the value, for the one who asked.
    pub fn render(&self, value: Option<&Raw>, check: Option<&Check>, end: &[u8]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut hole = None;
        for part in &self.parts {
            match part {
                Part::Bytes(own) => bytes.extend_from_slice(own),
                Part::Value(form) => form.write(value.ok_or("there is no value to send")?, &mut bytes)?,
                Part::Check => {
                    let check = check.ok_or("the profile names no check")?;
                    let width = check.notation.write(0).len();
                    hole = Some(bytes.len()..bytes.len() + width);
                    bytes.resize(bytes.len() + width, b'0');
                }
            }
        }
        if let (Some(hole), Some(check)) = (hole, check) {
            let seen = bytes.strip_suffix(end).unwrap_or(&bytes);
            let sum = check.of(seen).ok_or("the request is too short for its check")?;
            bytes.splice(hole, sum);
        }
        Ok(bytes)
    }
}

impl Template {
    /// Reads what was sent by this template: the bytes it takes from the beginning, and the value in them. `None` when it is
    /// something else, or not all of it has come.
    pub fn read(&self, sent: &[u8], check: Option<&Check>) -> Option<(usize, Option<Raw>)> {
        let (mut at, mut value) = (0, None);
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            let rest = sent.get(at..)?;
            at += match part {
                Part::Bytes(own) => rest.starts_with(own).then_some(own.len())?,
                Part::Check => {
                    let width = check.map_or(0, |check| check.notation.write(0).len());
                    rest.get(..width)?.len()
                }
                Part::Value(form) => {
                    let until = match parts.peek() {
                        Some(Part::Bytes(next)) => super::marks::first(rest, next)?,
                        _ => rest.len(),
                    };
                    let (width, raw) = form.read(rest, until)?;
                    value = Some(raw);
                    width
                }
            };
        }
        Some((at, value))
    }
}

fn parse_text(text: &str, parts: &mut Vec<Part>) -> Result<(), TemplateError> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        plain.push_str(before);
        if brace.starts_with("{{") || brace.starts_with("}}") {
            plain.extend(brace.chars().next());
            rest = brace.get(2..).unwrap_or_default();
            continue;
        }
        let (name, after) =
            brace.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or(TemplateError::Brace)?;
        if !plain.is_empty() {
            parts.push(Part::Bytes(characters(&plain)));
            plain.clear();
        }
        parts.push(part(name)?);
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Bytes(characters(&plain)));
    }
    Ok(())
}

/// Text between places is text, even where it looks like hexadecimal digits.
fn characters(text: &str) -> Vec<u8> {
    let framed = format!("{text}\u{1}");
    let mut bytes = bytes_of(&framed);
    bytes.pop();
    bytes
}

fn part(place: &str) -> Result<Part, TemplateError> {
    let wrong = || TemplateError::Place(place.to_owned());
    if place == "check" {
        return Ok(Part::Check);
    }
    let form = match place.strip_prefix("value").ok_or_else(wrong)? {
        "" => return Ok(Part::Value(Form::Plain)),
        form => form.strip_prefix(':').ok_or_else(wrong)?,
    };
    Ok(Part::Value(parse_form(form).ok_or_else(wrong)?))
}

fn parse_form(form: &str) -> Option<Form> {
    if form == "d" {
        return Some(Form::Decimals { width: 0, places: 0 });
    }
    if let Some(digits) = form.strip_prefix("hex") {
        return digits.parse().ok().filter(|digits| (1..=16).contains(digits)).map(Form::Hex);
    }
    if let Some((width, places)) = form.split_once('.') {
        let width = if width.is_empty() { 0 } else { width.strip_prefix('0')?.parse().ok()? };
        let places = places.parse().ok()?;
        return (width <= 32 && places <= 12).then_some(Form::Decimals { width, places });
    }
    if let Some(width) = form.strip_prefix('0') {
        return width.parse().ok().filter(|width| *width <= 32).map(|width| Form::Decimals { width, places: 0 });
    }
    let signed = form.starts_with('i');
    let rest = form.strip_prefix(['u', 'i'])?;
    let (bits, little) = match (rest.strip_suffix("le"), rest.strip_suffix("be")) {
        (Some(bits), _) => (bits, true),
        (_, Some(bits)) => (bits, false),
        _ if rest == "8" => (rest, false),
        _ => return None,
    };
    let bits: usize = bits.parse().ok().filter(|bits| bits % 8 == 0 && (8..=64).contains(bits))?;
    Some(Form::Binary { bytes: bits / 8, little, signed })
}

impl Form {
    /// The bytes a value takes, and the value; a text ends before `until`.
    fn read(self, rest: &[u8], until: usize) -> Option<(usize, Raw)> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        Some(match self {
            Self::Plain | Self::Decimals { .. } => {
                let own = text(rest.get(..until)?)?;
                (until, super::numbers::decimal(&own).unwrap_or(Raw::Text(own)))
            }
            Self::Hex(digits) => (digits, super::numbers::hexadecimal(&text(rest.get(..digits)?)?)?),
            Self::Binary { bytes, little, signed } => {
                let mut own = rest.get(..bytes)?.to_vec();
                if little {
                    own.reverse();
                }
                let number = own.iter().fold(0_i128, |number, byte| number << 8 | i128::from(*byte));
                let sign = 1_i128 << (8 * bytes - 1);
                (bytes, Raw::Int(if signed { (number ^ sign) - sign } else { number }))
            }
        })
    }

    fn write(self, value: &Raw, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Plain => out.extend_from_slice(plain(value)?.as_bytes()),
            Self::Decimals { width, places } => {
                let text = match value {
                    Raw::Int(number) if places == 0 => format!("{number:0width$}"),
                    Raw::Bool(on) => format!("{:0width$}", u8::from(*on)),
                    Raw::Int(number) => format!("{:0width$.places$}", *number as f64),
                    Raw::Float(number) => format!("{number:0width$.places$}"),
                    _ => return Err("expected a number".to_owned()),
                };
                if width > 0 && text.len() > width {
                    return Err(format!("{text} has more than {width} characters"));
                }
                out.extend_from_slice(text.as_bytes());
            }
            Self::Hex(digits) => {
                let number = whole(value)?;
                let text = u64::try_from(number).map(|number| format!("{number:0digits$X}"));
                let text = text.ok().filter(|text| text.len() <= digits);
                out.extend_from_slice(text.ok_or_else(|| format!("{number} does not fit {digits} digits"))?.as_bytes());
            }
            Self::Binary { bytes, little, signed } => {
                let number = whole(value)?;
                let bits = u32::try_from(bytes * 8).unwrap_or(64);
                let (least, most) = match signed {
                    true => (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1),
                    false => (0, (1_i128 << bits) - 1),
                };
                if !(least..=most).contains(&number) {
                    return Err(if number < least {
                        format!("below minimum {least}")
                    } else {
                        format!("above maximum {most}")
                    });
                }
                let all = number.to_be_bytes();
                let mut own = all.get(all.len() - bytes..).unwrap_or_default().to_vec();
                if little {
                    own.reverse();
                }
                out.append(&mut own);
            }
        }
        Ok(())
    }
}

fn plain(value: &Raw) -> Result<String, String> {
    Ok(match value {
        Raw::Bool(on) => u8::from(*on).to_string(),
        Raw::Int(number) => number.to_string(),
        Raw::Float(number) => number.to_string(),
        Raw::Text(text) => text.clone(),
        Raw::List(_) => return Err("a list cannot be sent".to_owned()),
    })
}

fn whole(value: &Raw) -> Result<i128, String> {
    match value {
        Raw::Bool(on) => Ok(i128::from(*on)),
        Raw::Int(number) => Ok(*number),
        Raw::Float(number) if number.is_finite() && number.abs() < 1e18 => Ok(number.round() as i128),
        _ => Err("expected a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serial::checksum::{Algorithm, Edge, Notation, Spot};

    #[test]
    fn requests_are_written_with_their_values() {
        for (template, value, expected) in [
            ("SP={value:.1}\r\n", Raw::Float(21.5), Ok("53 50 3D 32 31 2E 35 0D 0A")),
            ("T{value:05.1}", Raw::Float(7.25), Ok("54 30 30 37 2E 32")),
            ("{{{value}}}", Raw::Int(-3), Ok("7B 2D 33 7D")),
            ("FF {value:u16be} 00", Raw::Int(0x0102), Ok("FF 01 02 00")),
            ("FF {value:i16le}", Raw::Int(-2), Ok("FF FE FF")),
            ("X{value:hex4}", Raw::Int(255), Ok("58 30 30 46 46")),
            ("{value:u8}", Raw::Int(256), Err("above maximum 255")),
            ("{value:03}", Raw::Int(1234), Err("1234 has more than 3 characters")),
        ] {
            let rendered = Template::parse(template).unwrap().render(Some(&value), None, b"");
            assert_eq!(rendered, expected.map(bytes_of).map_err(str::to_owned), "{template}");
        }
        for wrong in ["{", "a}b", "{valve}", "{value:q}", ""] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// The MH-Z19 data sheet's span command, and an MTK command as its manual prints it.
    #[test]
    fn a_request_carries_its_own_check() {
        let mhz = Check {
            algorithm: Algorithm::Sum8Negated,
            from: Edge::At(1),
            until: Edge::At(-1),
            spot: Spot::At(-1),
            notation: Notation::Binary { bytes: 1, little: false },
            optional: false,
        };
        let span = Template::parse("FF 01 88 {value:u16be} 00 00 00 {check}").unwrap();
        assert_eq!(span.render(Some(&Raw::Int(2000)), Some(&mhz), b""), Ok(bytes_of("FF 01 88 07 D0 00 00 00 A0")));
        let nmea = Check {
            algorithm: Algorithm::Xor8,
            from: Edge::At(1),
            until: Edge::Mark(b"*".to_vec()),
            spot: Spot::After(b"*".to_vec()),
            notation: Notation::Hex(2),
            optional: false,
        };
        let rate = Template::parse("$PMTK220,{value}*{check}\r\n").unwrap();
        let expected = b"$PMTK220,1000*1F\r\n".to_vec();
        assert_eq!(rate.render(Some(&Raw::Int(1000)), Some(&nmea), b"\n"), Ok(expected));
    }
}
