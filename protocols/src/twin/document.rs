//! The documents of a twin, written straight from it: nothing is copied on the way, since this is the busiest path of
//! the gateway.
//!
//! In: a twin. Out: JSON as the contract, sections 2 and 3, has it, appended to the caller's buffer.

use serde::{Serialize, Serializer};

use super::Twin;
use crate::message::{DesiredOut, DeviceStatus, LastGood, ReportedOut};
use crate::value::{Quality, Timestamp, Value};

#[derive(Serialize)]
struct ReportedView<'a> {
    value: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    quality: Quality,
    at: Timestamp,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_good: Option<&'a LastGood>,
}

impl<'a> ReportedView<'a> {
    fn new(reading: &'a ReportedOut, unit: Option<&'a str>) -> Self {
        // Kept through an uncertain time as well, shown only while there is no value.
        let last_good = reading.last_good.as_ref().filter(|_| reading.quality.is_bad());
        let ReportedOut { value, quality, at, version, .. } = reading;
        Self { value, unit, quality: *quality, at: *at, version: *version, last_good }
    }
}

/// Reported properties as a JSON object; all of them when no indexes are given.
struct ReportedMap<'a> {
    twin: &'a Twin,
    only: Option<&'a [usize]>,
    units: bool,
}

impl Serialize for ReportedMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = |index: usize| {
            let property = self.twin.shape.profile.properties.get(index)?;
            let unit = property.unit.as_deref().filter(|_| self.units);
            Some((&property.name, ReportedView::new(self.twin.reported(index)?, unit)))
        };
        match self.only {
            Some(indexes) => serializer.collect_map(indexes.iter().filter_map(|index| entry(*index))),
            None => serializer.collect_map(self.twin.reported_indexes().filter_map(entry)),
        }
    }
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
struct SectionView<P> {
    version: u64,
    properties: P,
}

#[derive(Serialize)]
struct DocumentView<'a> {
    device: &'a str,
    profile: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    profile_hash: &'a str,
    epoch: &'a str,
    at: Timestamp,
    status: &'a DeviceStatus,
    reported: SectionView<ReportedMap<'a>>,
    desired: SectionView<WishMap<'a>>,
    delta: PendingMap<'a>,
}

#[derive(Serialize)]
struct DeltaView<'a> {
    epoch: &'a str,
    version: u64,
    desired: PendingMap<'a>,
}

/// An empty section.
#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct ReportedEventView<'a> {
    epoch: &'a str,
    from: u64,
    to: u64,
    reported: ReportedMap<'a>,
    /// Always there, and empty: one event tells of one section.
    desired: Nothing,
    at: Timestamp,
}

impl Twin {
    /// Appends `twin/D/reported/P`; nothing when the property was never reported.
    pub fn write_reported(&self, index: usize, out: &mut Vec<u8>) {
        if let Some(reading) = self.reported(index) {
            append(&ReportedView::new(reading, None), out);
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

    /// Appends `twin/D/event` for a report.
    pub fn write_reported_event(&self, report: &super::Reported, at: Timestamp, out: &mut Vec<u8>) {
        let reported = ReportedMap { twin: self, only: Some(&report.changed), units: false };
        let (from, to, desired) = (report.from, report.to, Nothing {});
        append(&ReportedEventView { epoch: &self.epoch, from, to, reported, desired, at }, out);
    }

    /// Appends the document, `twin/D`.
    pub fn write_document(&self, at: Timestamp, out: &mut Vec<u8>) {
        let profile = &self.shape.profile;
        let view = DocumentView {
            device: self.device.as_str(),
            profile: &profile.label(),
            profile_hash: &profile.hash,
            epoch: &self.epoch,
            at,
            status: &self.status,
            reported: SectionView {
                version: self.reported_version,
                properties: ReportedMap { twin: self, only: None, units: true },
            },
            desired: SectionView { version: self.desired_version, properties: WishMap(self) },
            delta: PendingMap(self),
        };
        append(&view, out);
    }
}

fn append<T: Serialize>(view: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, view).expect("a vector takes every byte, and the views hold nothing JSON cannot say");
}
