//! Dates and times as devices write them in text.
//!
//! In: a format such as `ddMMyy hhmmss.sss`, a text. Out: an instant. Must never let a date through that no calendar has.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::value::Timestamp;

/// Two digits of a year from here on are of the last century; the oldest clock in the field is that of GPS.
const CENTURY: i16 = 80;
/// The longest format, in characters.
const FORMAT_CHARS: usize = 64;

/// A format: letters are parts, everything else stands for itself.
///
/// `yy yyyy` year, `MM` month, `dd` day, `hh HH` hour, `mm` minute, `ss` second, `sss` the fraction of a second, which may
/// be absent together with the dot before it; `X` the letter `S` or `W` of a DSMR meter for summer and winter time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
    /// Minutes the device's clock is ahead of UTC, in winter where it says so.
    ahead_minutes: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Field(char, usize),
    Literal(char),
    Fraction,
    Season,
}

impl Format {
    /// Reads a format; `ahead_minutes` is how far the device's clock is ahead of UTC.
    pub fn parse(text: &str, ahead_minutes: i32) -> Option<Self> {
        let mut parts = Vec::new();
        let mut letters = text.chars().take(FORMAT_CHARS + 1).peekable();
        while let Some(letter) = letters.next() {
            let mut run = 1;
            while letter.is_ascii_alphabetic() && letters.next_if_eq(&letter).is_some() {
                run += 1;
            }
            parts.push(match (letter, run) {
                ('y', 2 | 4) | ('M' | 'd' | 'h' | 'H' | 'm' | 's', 2) => {
                    Part::Field(if letter == 'H' { 'h' } else { letter }, run)
                }
                ('s', 3) => Part::Fraction,
                ('X', 1) => Part::Season,
                (letter, _) if letter.is_ascii_alphabetic() => return None,
                (letter, _) => Part::Literal(letter),
            });
        }
        let has = |wanted| parts.iter().any(|part| matches!(part, Part::Field(letter, _) if *letter == wanted));
        let is_whole = ['y', 'M', 'd'].into_iter().all(has);
        (is_whole && text.chars().count() <= FORMAT_CHARS).then_some(Self { parts, ahead_minutes })
    }

    /// Reads a text of this format.
    pub fn read(&self, text: &str) -> Option<Timestamp> {
        let (mut year, mut month, mut day) = (0, 1, 1);
        let (mut hour, mut minute, mut second, mut nanosecond) = (0, 0, 0, 0);
        let mut summer = false;
        let mut rest = text.trim();
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal('.') if parts.peek() == Some(&&Part::Fraction) => {
                    parts.next();
                    rest = fraction(rest, &mut nanosecond)?;
                }
                Part::Literal(letter) => rest = rest.strip_prefix(*letter)?,
                Part::Fraction => rest = fraction(rest, &mut nanosecond)?,
                Part::Season => {
                    summer = rest.starts_with('S');
                    rest = rest.strip_prefix(['S', 'W'])?;
                }
                Part::Field(letter, width) => {
                    let (digits, after) = rest.split_at_checked(*width)?;
                    let number: i16 =
                        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
                    rest = after;
                    match (letter, width) {
                        ('y', 2) => year = number + if number >= CENTURY { 1900 } else { 2000 },
                        ('y', _) => year = number,
                        ('M', _) => month = number as i8,
                        ('d', _) => day = number as i8,
                        ('h', _) => hour = number as i8,
                        ('m', _) => minute = number as i8,
                        // A leap second is told as the one before it.
                        _ => second = number.min(60) as i8 - i8::from(number >= 60),
                    }
                }
            }
        }
        if !rest.is_empty() {
            return None;
        }
        let civil = DateTime::new(year, month, day, hour, minute, second, nanosecond).ok()?;
        let at = civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
        let ahead = i64::from(self.ahead_minutes + if summer { 60 } else { 0 });
        Some(Timestamp::from_ms(at - ahead * 60_000))
    }
}

impl Format {
    /// Writes an instant in this format; a fraction only where the text it takes the place of has one. `None` for a year
    /// that has no room.
    pub(super) fn write(&self, at: Timestamp, old: &str) -> Option<String> {
        let at = jiff::Timestamp::from_millisecond(at.as_ms() + i64::from(self.ahead_minutes) * 60_000).ok()?;
        let civil = at.to_zoned(TimeZone::UTC).datetime();
        let mut text = String::new();
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal('.') if parts.peek() == Some(&&Part::Fraction) => {
                    parts.next();
                    let digits = old.rsplit_once('.').map_or(0, |(_, fraction)| fraction.len());
                    if digits > 0 {
                        let nine = format!("{:09}", civil.subsec_nanosecond());
                        text.push('.');
                        text.push_str(nine.get(..digits.min(9))?);
                    }
                }
                Part::Literal(letter) => text.push(*letter),
                Part::Fraction => return None,
                // Winter all year round: the clock of a device that is not there does not change with the season.
                Part::Season => text.push('W'),
                Part::Field(letter, width) => {
                    let number = match (letter, width) {
                        ('y', 2) => civil.year() % 100,
                        ('y', _) => civil.year(),
                        ('M', _) => i16::from(civil.month()),
                        ('d', _) => i16::from(civil.day()),
                        ('h', _) => i16::from(civil.hour()),
                        ('m', _) => i16::from(civil.minute()),
                        _ => i16::from(civil.second()),
                    };
                    text.push_str(&format!("{number:0width$}"));
                }
            }
        }
        Some(text)
    }
}

/// Reads a fraction with its dot, if there is one.
fn fraction<'a>(text: &'a str, nanosecond: &mut i32) -> Option<&'a str> {
    let digits = text.strip_prefix('.').unwrap_or(text);
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = digits.split_at_checked(count)?;
    let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
    *nanosecond = nine.parse().ok()?;
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_by_their_format() {
        for (format, ahead, text, expected) in [
            ("ddMMyy hhmmss.sss", 0, "191194 225446", Some("1994-11-19T22:54:46.000Z")),
            ("ddMMyy hhmmss.sss", 0, "280214 123205.25", Some("2014-02-28T12:32:05.250Z")),
            ("yyMMddHHmmssX", 60, "161113205757W", Some("2016-11-13T19:57:57.000Z")),
            ("yyMMddHHmmssX", 60, "200426223325S", Some("2020-04-26T20:33:25.000Z")),
            ("yyyy-MM-dd HH:mm:ss", -300, "2026-02-28 23:30:00", Some("2026-03-01T04:30:00.000Z")),
            ("ddMMyy hhmmss.sss", 0, "310214 123205", None),
            ("ddMMyy hhmmss.sss", 0, "280214 253205", None),
            ("ddMMyy hhmmss.sss", 0, "280214", None),
            ("ddMMyy", 0, "280214x", None),
            ("ddMMyy", 0, "+80214", None),
        ] {
            let format = Format::parse(format, ahead).unwrap();
            assert_eq!(format.read(text).map(|at| at.to_string()).as_deref(), expected, "{text}");
        }
        for format in ["", "hhmmss", "ddMMMyy", "ddMMyy q"] {
            assert_eq!(Format::parse(format, 0), None, "{format}");
        }
    }
}
