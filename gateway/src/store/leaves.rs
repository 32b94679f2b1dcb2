//! Reported values as bytes: the body of a base row and of a journal row.
//!
//! In: devices with their leaves, sorted. Out: a body, and the same again. A flash card pays for every byte here, so
//! names are numbers, versions and times are differences, and `230.1` is three bytes.
//!
//! ```text
//! body   := 1 (format) base_ms:zigzag device*
//! device := id version count leaf{count}                        (varints)
//! leaf   := property tag [version - leaf version] [at - base_ms:zigzag] [quality text] value [last good: tag at value]
//! tag    := kind (low 4 bits) | 0x10 quality is not good | 0x20 a last good value follows
//! ```

use protocols::message::{LastGood, ReportedOut};
use protocols::value::{Quality, Timestamp, Value};

const FORMAT: u8 = 1;
const NOT_GOOD: u8 = 0x10;
const LAST_GOOD: u8 = 0x20;
const KIND: u8 = 0x0f;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const WHOLE: u8 = 3;
const NEGATIVE: u8 = 4;
const DECIMAL: u8 = 5;
const FLOAT: u8 = 6;
const SINGLE: u8 = 7;
const JSON: u8 = 8;
const GONE: u8 = 15;

/// Decimal places that are tried before a float is written in full.
const PLACES: i32 = 6;

/// One device of a body.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    /// Number of the device.
    pub device: i64,
    /// Version of its reported section.
    pub version: u64,
    /// Number of the property and what it holds; `None` where it is gone. Sorted.
    pub leaves: Vec<(i64, Option<ReportedOut>)>,
}

/// A body that cannot be read: the store is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of reported values cannot be read")]
pub(super) struct Unreadable;

/// A body on its way. Devices are added one after the other, so that nobody has to hold all of them as leaves: a flush
/// of a hundred devices would be a megabyte of them.
pub(super) struct Body {
    base: i64,
    bytes: Vec<u8>,
}

impl Body {
    /// Begins one; times are written as differences from `base`.
    pub(super) fn new(base: Option<Timestamp>) -> Self {
        let base = base.map_or(0, Timestamp::as_ms);
        let mut bytes = vec![FORMAT];
        zigzag(base, &mut bytes);
        Self { base, bytes }
    }

    /// Adds a device: its number, its version, its leaves sorted by the number of the property.
    pub(super) fn add(&mut self, device: i64, version: u64, leaves: &[(i64, Option<&ReportedOut>)]) {
        let out = &mut self.bytes;
        varint(device as u64, out);
        varint(version, out);
        varint(leaves.len() as u64, out);
        for (property, leaf) in leaves {
            varint(*property as u64, out);
            match leaf {
                Some(leaf) => put_leaf(leaf, version, self.base, out),
                None => out.push(GONE),
            }
        }
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body.
///
/// # Errors
/// When it is not one.
pub(super) fn decode(body: &[u8]) -> Result<Vec<Entry>, Unreadable> {
    let mut bytes = Bytes(body);
    if bytes.byte()? != FORMAT {
        return Err(Unreadable);
    }
    let base = bytes.zigzag()?;
    let mut entries = Vec::new();
    while !bytes.0.is_empty() {
        let device = i64::try_from(bytes.varint()?).map_err(|_| Unreadable)?;
        let version = bytes.varint()?;
        let count = bytes.varint()?;
        let mut leaves = Vec::new();
        for _ in 0..count {
            let property = i64::try_from(bytes.varint()?).map_err(|_| Unreadable)?;
            leaves.push((property, bytes.leaf(version, base)?));
        }
        entries.push(Entry { device, version, leaves });
    }
    Ok(entries)
}

fn put_leaf(leaf: &ReportedOut, version: u64, base: i64, out: &mut Vec<u8>) {
    let tag_at = out.len();
    out.push(0);
    varint(version.wrapping_sub(leaf.version), out);
    zigzag(leaf.at.as_ms().wrapping_sub(base), out);
    let mut tag = 0;
    if leaf.quality != Quality::Good {
        tag |= NOT_GOOD;
        put_text(leaf.quality.to_string().as_bytes(), out);
    }
    tag |= put_value(&leaf.value, out);
    if let Some(last) = &leaf.last_good {
        tag |= LAST_GOOD;
        let kind_at = out.len();
        out.push(0);
        zigzag(last.at.as_ms().wrapping_sub(base), out);
        let kind = put_value(&last.value, out);
        set(out, kind_at, kind);
    }
    set(out, tag_at, tag);
}

fn set(out: &mut [u8], at: usize, byte: u8) {
    if let Some(slot) = out.get_mut(at) {
        *slot = byte;
    }
}

/// Writes a value and gives its kind.
fn put_value(value: &Value, out: &mut Vec<u8>) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(false) => FALSE,
        Value::Bool(true) => TRUE,
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(whole), ..) => {
                varint(whole, out);
                WHOLE
            }
            (None, Some(negative), _) => {
                varint(!negative as u64, out);
                NEGATIVE
            }
            (None, None, float) => put_float(float.unwrap_or_default(), out),
        },
        other => {
            put_text(other.to_string().as_bytes(), out);
            JSON
        }
    }
}

fn put_float(float: f64, out: &mut Vec<u8>) -> u8 {
    for places in 0..=PLACES {
        let scaled = (float * 10f64.powi(places)).round();
        // Written as a decimal only if reading it gives the same bits again; -0.0 and large numbers do not.
        let whole = scaled as i64;
        if scaled.abs() < 9e9 && (whole as f64 / 10f64.powi(places)).to_bits() == float.to_bits() {
            out.push(places as u8);
            zigzag(whole, out);
            return DECIMAL;
        }
    }
    let single = float as f32;
    if f64::from(single).to_bits() == float.to_bits() {
        out.extend(single.to_le_bytes());
        return SINGLE;
    }
    out.extend(float.to_le_bytes());
    FLOAT
}

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn zigzag(number: i64, out: &mut Vec<u8>) {
    varint(((number << 1) ^ (number >> 63)) as u64, out);
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Unreadable)
    }

    fn zigzag(&mut self) -> Result<i64, Unreadable> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn text(&mut self) -> Result<&'a str, Unreadable> {
        let length = usize::try_from(self.varint()?).map_err(|_| Unreadable)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Unreadable)
    }

    fn at(&mut self, base: i64) -> Result<Timestamp, Unreadable> {
        Ok(Timestamp::from_ms(self.zigzag()?.wrapping_add(base)))
    }

    fn leaf(&mut self, section: u64, base: i64) -> Result<Option<ReportedOut>, Unreadable> {
        let tag = self.byte()?;
        if tag == GONE {
            return Ok(None);
        }
        let version = section.wrapping_sub(self.varint()?);
        let at = self.at(base)?;
        let quality = match tag & NOT_GOOD {
            0 => Quality::Good,
            _ => self.text()?.parse().map_err(|_| Unreadable)?,
        };
        let value = self.value(tag & KIND)?;
        let last_good = match tag & LAST_GOOD {
            0 => None,
            _ => {
                let kind = self.byte()?;
                let at = self.at(base)?;
                Some(Box::new(LastGood { at, value: self.value(kind)? }))
            }
        };
        Ok(Some(ReportedOut { value, quality, at, version, last_good }))
    }

    fn value(&mut self, kind: u8) -> Result<Value, Unreadable> {
        Ok(match kind {
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            WHOLE => self.varint()?.into(),
            NEGATIVE => (!(self.varint()? as i64)).into(),
            DECIMAL => {
                let places = i32::from(self.byte()?);
                (self.zigzag()? as f64 / 10f64.powi(places)).into()
            }
            SINGLE => {
                let bytes = self.take(4)?.try_into().map_err(|_| Unreadable)?;
                f64::from(f32::from_le_bytes(bytes)).into()
            }
            FLOAT => f64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Unreadable)?).into(),
            JSON => serde_json::from_str(self.text()?).map_err(|_| Unreadable)?,
            _ => return Err(Unreadable),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocols::value::Why;
    use serde_json::json;

    use super::*;

    /// A body of all these.
    fn encode(entries: &[Entry]) -> Vec<u8> {
        let first = entries.iter().flat_map(|entry| &entry.leaves).find_map(|(_, leaf)| Some(leaf.as_ref()?.at));
        let mut body = Body::new(first);
        for Entry { device, version, leaves } in entries {
            let leaves: Vec<_> = leaves.iter().map(|(property, leaf)| (*property, leaf.as_ref())).collect();
            body.add(*device, *version, &leaves);
        }
        body.bytes().to_vec()
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-100_000i32..100_000).prop_map(|tenths| json!(f64::from(tenths) / 10.0)),
            any::<f32>().prop_filter("finite", |float| float.is_finite()).prop_map(|float| json!(float)),
            any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(json!({"a": [1, 2.5, null, -3]})),
        ]
    }

    fn leaf() -> impl Strategy<Value = Option<ReportedOut>> {
        let quality = prop::sample::select(vec![
            Quality::Good,
            Quality::Uncertain(None),
            Quality::Uncertain(Some(Why::Range)),
            Quality::Bad(Why::Exception(2)),
        ]);
        let at = || (-10_000_000_000_000i64..10_000_000_000_000).prop_map(Timestamp::from_ms);
        let last = prop::option::of((value(), at()).prop_map(|(value, at)| Box::new(LastGood { value, at })));
        let leaf = (value(), quality, at(), any::<u64>(), last);
        let leaf = leaf.prop_map(|(value, quality, at, version, last_good)| ReportedOut {
            value,
            quality,
            at,
            version,
            last_good,
        });
        prop::option::weighted(0.9, leaf)
    }

    proptest! {
        #[test]
        fn a_body_reads_back_as_it_was(
            entries in prop::collection::vec(
                (0..i64::MAX, any::<u64>(), prop::collection::vec((0..i64::MAX, leaf()), 0..4)),
                0..4,
            )
        ) {
            let entries: Vec<_> =
                entries.into_iter().map(|(device, version, leaves)| Entry { device, version, leaves }).collect();
            let body = encode(&entries);
            let again = decode(&body).unwrap();
            prop_assert_eq!(serde_json::to_string(&values(&again)).unwrap(), serde_json::to_string(&values(&entries)).unwrap());
            prop_assert_eq!(again, entries);
        }

        #[test]
        fn a_damaged_body_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes);
        }
    }

    fn values(entries: &[Entry]) -> Vec<&Value> {
        entries.iter().flat_map(|entry| &entry.leaves).filter_map(|(_, leaf)| Some(&leaf.as_ref()?.value)).collect()
    }

    #[test]
    fn a_usual_reading_costs_few_bytes() {
        for (value, most) in [(json!(230.1), 9), (json!(61.55), 9), (json!(12345), 8), (json!(true), 5)] {
            let at = Timestamp::from_ms(1_700_000_000_000);
            let leaf = ReportedOut { value, quality: Quality::Good, at, version: 118, last_good: None };
            let entry = |leaves| Entry { device: 9_999, version: 120, leaves };
            let empty = encode(&[entry(vec![])]).len();
            let full = encode(&[entry(vec![(7, Some(leaf.clone())), (8, Some(leaf.clone()))])]).len();
            // The body's own time (6 bytes) is counted once.
            assert!(full - empty - 5 <= 2 * most, "{}: {full}", leaf.value);
        }
    }
}
