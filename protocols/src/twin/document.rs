//! The documents of a twin, written straight from it: nothing is copied on the way, since this is the busiest path of
//! the gateway.
//!
//! In: a twin. Out: JSON as the contract, sections 2 and 3, has it, appended to the caller's buffer.

use serde::{Serialize, Serializer};

use super::{Held, Twin};
use crate::message::{DesiredOut, DeviceStatus, LastGood};
use crate::name::PropertyName;
use crate::value::{Quality, Timestamp, TimestampText};

/// Kept through an uncertain time as well, shown only while there is no value.
fn shown_last_good(reading: &Held) -> Option<&LastGood> {
    reading.last_good.as_deref().filter(|_| reading.quality.is_bad())
}

struct WishMap<'a>(&'a Twin);

impl Serialize for WishMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.wishes().map(|(name, wish)| (name, &wish.out)))
    }
}

struct PendingMap<'a>(&'a Twin);

impl Serialize for PendingMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.pending())
    }
}

#[derive(Serialize)]
struct DeltaView<'a> {
    epoch: &'a str,
    version: u64,
    desired: PendingMap<'a>,
}

impl Twin {
    /// Appends `twin/D/reported/P`; nothing when the property was never reported. `times` is the caller's, for all it
    /// writes together.
    pub fn write_reported(&self, index: usize, times: &mut TimestampText, out: &mut Vec<u8>) {
        if let Some(reading) = self.held(index) {
            write_reading(reading, None, times, out);
        }
    }

    /// Appends `twin/D/desired/P`; nothing when the property holds no wish.
    pub fn write_desired(&self, name: &str, out: &mut Vec<u8>) {
        if let Some(wish) = self.leaf(name).and_then(super::Leaf::held) {
            append::<DesiredOut>(&wish.out, out);
        }
    }

    /// Appends `twin/D/delta`.
    pub fn write_delta(&self, out: &mut Vec<u8>) {
        append(&DeltaView { epoch: &self.epoch, version: self.desired_version, desired: PendingMap(self) }, out);
    }

    /// Appends `twin/D/event` for a report. `leaves` are the properties it changed, each with its JSON as
    /// [`Twin::write_reported`] has written it for the property's own topic.
    pub fn write_reported_event<'a>(
        &self,
        report: &super::Reported,
        at: Timestamp,
        leaves: impl IntoIterator<Item = (usize, &'a [u8])>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b"{\"epoch\":");
        append(&*self.epoch, out);
        out.extend_from_slice(b",\"from\":");
        append(&report.from, out);
        out.extend_from_slice(b",\"to\":");
        append(&report.to, out);
        out.extend_from_slice(b",\"reported\":{");
        let mut first = true;
        for (index, leaf) in leaves {
            let Some(name) = self.name(index) else { continue };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            write_name(name, out);
            out.extend_from_slice(leaf);
        }
        // One event tells of one section; the other one is there, and empty.
        out.extend_from_slice(b"},\"desired\":{},\"at\":\"");
        out.extend_from_slice(&at.to_ascii());
        out.extend_from_slice(b"\"}");
    }

    /// Appends the document, `twin/D`.
    pub fn write_document(&self, at: Timestamp, out: &mut Vec<u8>) {
        let profile = &self.shape.profile;
        let mut times = TimestampText::default();
        out.extend_from_slice(b"{\"device\":");
        append(self.device.as_str(), out);
        out.extend_from_slice(b",\"profile\":");
        append(&profile.label(), out);
        if !profile.hash.is_empty() {
            out.extend_from_slice(b",\"profile_hash\":");
            append(&profile.hash, out);
        }
        out.extend_from_slice(b",\"epoch\":");
        append(&*self.epoch, out);
        out.extend_from_slice(b",\"at\":\"");
        out.extend_from_slice(times.of(at));
        out.extend_from_slice(b"\",\"status\":");
        append::<DeviceStatus>(&self.status, out);
        out.extend_from_slice(b",\"reported\":{\"version\":");
        append(&self.reported_version, out);
        out.extend_from_slice(b",\"properties\":");
        self.write_properties(&mut times, out);
        out.extend_from_slice(b"},\"desired\":{\"version\":");
        append(&self.desired_version, out);
        out.extend_from_slice(b",\"properties\":");
        append(&WishMap(self), out);
        out.extend_from_slice(b"},\"delta\":");
        append(&PendingMap(self), out);
        out.push(b'}');
    }

    fn write_properties(&self, times: &mut TimestampText, out: &mut Vec<u8>) {
        let mut before = b'{';
        for (property, reading) in self.shape.profile.properties.iter().zip(&self.reported) {
            let Some(reading) = reading else { continue };
            out.push(std::mem::replace(&mut before, b','));
            write_name(&property.name, out);
            write_reading(reading, property.unit.as_deref(), times, out);
        }
        if before == b'{' {
            out.push(b'{');
        }
        out.push(b'}');
    }
}

/// A key and its colon. A name has no character that JSON would escape.
fn write_name(name: &PropertyName, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_reading(reading: &Held, unit: Option<&str>, times: &mut TimestampText, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"value\":");
    append(&reading.value, out);
    if let Some(unit) = unit {
        out.extend_from_slice(b",\"unit\":");
        append(unit, out);
    }
    match reading.quality {
        // nearly every one
        Quality::Good => out.extend_from_slice(b",\"quality\":\"good\",\"at\":\""),
        other => {
            out.extend_from_slice(b",\"quality\":");
            append(&other, out);
            out.extend_from_slice(b",\"at\":\"");
        }
    }
    out.extend_from_slice(times.of(reading.at));
    out.extend_from_slice(b"\",\"version\":");
    append(&reading.version, out);
    if let Some(last_good) = shown_last_good(reading) {
        out.extend_from_slice(b",\"last_good\":");
        append(last_good, out);
    }
    out.push(b'}');
}

fn append<T: Serialize + ?Sized>(view: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, view).expect("a vector takes every byte, and the views hold nothing JSON cannot say");
}
