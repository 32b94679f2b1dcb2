//! The value list of a smart meter's telegram (Smart Message Language, BSI TR-03109-1).
//!
//! In: the messages of one telegram. Out: its values by OBIS code. Must never take part of a telegram for all of it.

use sml_rs::parser::common::{ListEntry, Value};
use sml_rs::parser::complete::{MessageBody, parse};

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

/// Text where all of it can be printed, else hexadecimal digits: server ids are both, by the meter.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => text.to_owned(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
