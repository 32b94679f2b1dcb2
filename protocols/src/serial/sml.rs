//! The value list of a smart meter's telegram (Smart Message Language, BSI TR-03109-1).
//!
//! In: the messages of one telegram. Out: its values by OBIS code. Must never take part of a telegram for all of it.

use sml_rs::parser::common::{ListEntry, Value};
use sml_rs::parser::complete::{MessageBody, parse};

use super::checksum::Algorithm;
use super::compose::{Unwritable, number};
use super::{numbers, obis};
use crate::codec::Raw;

/// Values of one telegram; more are left out. The largest meters have some sixty.
const VALUES: usize = 256;

/// One value of the list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// OBIS code in its short form.
    pub(super) code: String,
    /// The value, scaled.
    pub(super) raw: Raw,
    /// Its unit, by the DLMS code (30 is Wh, 27 is W).
    pub(super) unit: Option<u8>,
}

/// The values of a telegram; `None` when it cannot be read.
pub(super) fn values(telegram: &[u8]) -> Option<Vec<Entry>> {
    let file = parse(telegram).ok()?;
    let lists = file.messages.iter().filter_map(|message| match &message.message_body {
        MessageBody::GetListResponse(list) => Some(&list.val_list),
        _ => None,
    });
    Some(lists.flatten().take(VALUES).filter_map(entry).collect())
}

fn entry(entry: &ListEntry<'_>) -> Option<Entry> {
    let scaler = i32::from(entry.scaler.unwrap_or(0));
    let number = |mantissa: i128| numbers::scaled(mantissa, scaler);
    let raw = match &entry.value {
        Value::Bool(on) => Some(Raw::Bool(*on)),
        Value::Bytes(bytes) => Some(Raw::Text(text(bytes))),
        Value::I8(value) => number(i128::from(*value)),
        Value::I16(value) => number(i128::from(*value)),
        Value::I32(value) => number(i128::from(*value)),
        Value::I64(value) => number(i128::from(*value)),
        Value::U8(value) => number(i128::from(*value)),
        Value::U16(value) => number(i128::from(*value)),
        Value::U32(value) => number(i128::from(*value)),
        Value::U64(value) => number(i128::from(*value)),
        Value::List(_) => None,
    };
    Some(Entry { code: obis::of_bytes(entry.obj_name)?, raw: raw?, unit: entry.unit })
}

/// Bytes of a message's own check behind its body: the head of a number of two bytes, and the number.
const CHECK: u8 = 0x63;

/// The telegram with another value at a code: an integer takes as many bytes as the one before, and the message it stands in
/// carries a new check.
///
/// # Errors
/// [`Unwritable`].
pub(super) fn put(telegram: &[u8], key: &str, raw: &Raw) -> Result<Vec<u8>, Unwritable> {
    let mut telegram = telegram.to_vec();
    let mut begin = 0;
    while begin < telegram.len() {
        // A message is a list of six: number, group, abort, body, check, end.
        let (mut at, count) = head(&telegram, begin).ok_or(Unwritable::Nothing)?;
        if count != Head::List(6) {
            return Err(Unwritable::Construct("a telegram of this form"));
        }
        let mut change = None;
        for element in 0..4 {
            change = change.or_else(|| (element == 3).then(|| place(&telegram, at, key)).flatten());
            at = behind(&telegram, at).ok_or(Unwritable::Nothing)?;
        }
        if let Some(change) = change {
            change.write(&mut telegram, raw)?;
            let check = telegram.get(begin..at).map(|body| x25().digest(body)).ok_or(Unwritable::Nothing)?;
            let [low, high, ..] = check.to_le_bytes();
            match telegram.get_mut(at..at + 3) {
                Some([CHECK, own_low, own_high]) => (*own_low, *own_high) = (low, high),
                _ => return Err(Unwritable::Construct("a check of one byte")),
            }
            return Ok(telegram);
        }
        for _ in 4..6 {
            at = behind(&telegram, at).ok_or(Unwritable::Nothing)?;
        }
        begin = at;
    }
    Err(Unwritable::Nothing)
}

fn x25() -> Algorithm {
    Algorithm::named("crc16_x25").unwrap_or(Algorithm::Sum16)
}

/// What an element begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// A list of so many elements.
    List(usize),
    /// So many bytes of a number; whether it may be below 0.
    Number(usize, bool),
    /// So many bytes of something else.
    Other(usize),
}

/// Reads the head of the element at `at`: where its content begins, and what it is.
fn head(bytes: &[u8], at: usize) -> Option<(usize, Head)> {
    let first = *bytes.get(at)?;
    let (kind, mut length, mut next) = (first >> 4 & 0x07, usize::from(first & 0x0F), at + 1);
    let mut last = first;
    while last & 0x80 != 0 {
        last = *bytes.get(next)?;
        length = length.checked_mul(16)? + usize::from(last & 0x0F);
        next += 1;
    }
    // The length of what is no list counts its own head; 0 ends a message.
    let own = length.saturating_sub(next - at);
    Some((
        next,
        match kind {
            7 => Head::List(length),
            5 => Head::Number(own, true),
            6 => Head::Number(own, false),
            _ => Head::Other(own),
        },
    ))
}

/// Where the element behind the one at `at` begins. The lists of a telegram are six deep at most.
fn behind(bytes: &[u8], at: usize) -> Option<usize> {
    let mut waiting = 1_usize;
    let mut at = at;
    while waiting > 0 {
        let (next, own) = head(bytes, at)?;
        waiting -= 1;
        at = match own {
            Head::List(count) => {
                waiting = waiting.checked_add(count)?;
                next
            }
            Head::Number(length, _) | Head::Other(length) => next.checked_add(length)?,
        };
        if at > bytes.len() {
            return None;
        }
    }
    Some(at)
}

/// Where the integer of a code stands.
struct Spot {
    at: usize,
    bytes: usize,
    signed: bool,
    scaler: i32,
}

impl Spot {
    fn write(&self, telegram: &mut [u8], raw: &Raw) -> Result<(), Unwritable> {
        let number = (number(raw)? / 10_f64.powi(self.scaler)).round() as i128;
        let bits = u32::try_from(self.bytes * 8).unwrap_or(64);
        let (least, most) = match self.signed {
            true => (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1),
            false => (0, (1_i128 << bits) - 1),
        };
        if !(least..=most).contains(&number) {
            return Err(Unwritable::Room);
        }
        let all = number.to_be_bytes();
        let own = all.get(all.len() - self.bytes..).unwrap_or_default();
        let room = telegram.get_mut(self.at..self.at + self.bytes).ok_or(Unwritable::Room)?;
        room.copy_from_slice(own);
        Ok(())
    }
}

/// Finds the entry of a code in the body at `at`: a list of seven whose first element is the code.
fn place(bytes: &[u8], at: usize, key: &str) -> Option<Spot> {
    let end = behind(bytes, at)?;
    let mut at = at;
    while at < end {
        let (next, own) = head(bytes, at)?;
        let code = || match head(bytes, next)? {
            (name, Head::Other(6)) => obis::of_bytes(bytes.get(name..name + 6)?),
            _ => None,
        };
        if own == Head::List(7) && code().is_some_and(|code| obis::same(&code, key)) {
            // Code, status, time, unit; then the scaler and the value.
            let scaler = (0..4).try_fold(next, |at, _| behind(bytes, at))?;
            let (power, own) = head(bytes, scaler)?;
            let scaler_value = match own {
                Head::Number(1, _) => i32::from(bytes.get(power)?.cast_signed()),
                _ => 0,
            };
            let (at, own) = head(bytes, behind(bytes, scaler)?)?;
            let Head::Number(length @ 1..=8, signed) = own else { return None };
            return Some(Spot { at, bytes: length, signed, scaler: scaler_value });
        }
        at = match own {
            Head::List(_) => next,
            Head::Number(length, _) | Head::Other(length) => next.checked_add(length)?,
        };
    }
    None
}

/// Text where all of it can be printed, else hexadecimal digits: server ids are both, by the meter.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => text.to_owned(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
