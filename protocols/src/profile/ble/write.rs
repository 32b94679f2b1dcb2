//! From a desired value to the bytes of a characteristic.
//!
//! In: a property and a value in its own form. Out: what is written, and where. Must never write half a characteristic.

use super::Visit;
use crate::ble::{Field, FieldError, FieldKind};
use crate::codec::{DataType, Decimal, EncodeError, Layout, Raw, Scaling};
use crate::profile::{Property, Source};
use crate::value::Value;

/// What is written for a desired value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GattWrite {
    /// Index into the characteristics of the profile.
    pub characteristic: usize,
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// Whether the device is asked for an answer.
    pub with_response: bool,
}

impl Source {
    /// The place in what a Bluetooth device says, if it is one.
    pub fn ble(&self) -> Option<&Visit> {
        match self {
            Self::Ble(visit) => Some(visit),
            _ => None,
        }
    }
}

impl Property {
    /// Gives what to write for a value in the property's own form, as [`Property::accept`] gives it.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn to_gatt(&self, value: &Value) -> Result<GattWrite, String> {
        let place = self.source.ble().and_then(Visit::gatt).ok_or("is read-only")?;
        let (field, factor) = place.field().ok_or("is read-only")?;
        let layout = layout(&field);
        let raw = divided(self.raw_of(value, &layout)?, factor);
        let bytes = field.encode(&raw).map_err(|error| match error {
            FieldError::Bounds { raw, min, max, .. } => {
                let scaled = |raw| product(raw, factor);
                self.complaint(&EncodeError::Bounds {
                    data: layout.data,
                    raw: scaled(raw) as f64,
                    min: scaled(min),
                    max: scaled(max),
                })
            }
            other => other.to_string(),
        })?;
        Ok(GattWrite { characteristic: place.characteristic, bytes, with_response: place.with_response })
    }
}

/// The bits of a field as a layout, for sentinels and words that are given by their bits.
pub(super) fn layout(field: &Field) -> Layout {
    let data = match field.kind {
        FieldKind::Uint { width: 1, .. } => DataType::Uint8Lo,
        FieldKind::Uint { width: 2, .. } => DataType::Uint16,
        FieldKind::Uint { width: 3, .. } => DataType::Uint24,
        FieldKind::Uint { width: 4, .. } => DataType::Uint32,
        FieldKind::Uint { .. } => DataType::Uint64,
        FieldKind::Int { width: 1, .. } => DataType::Int8Lo,
        FieldKind::Int { width: 2, .. } => DataType::Int16,
        FieldKind::Int { width: 3, .. } => DataType::Int24,
        FieldKind::Int { width: 4, .. } => DataType::Int32,
        FieldKind::Int { .. } => DataType::Int64,
        FieldKind::Float { width: 4, .. } => DataType::Float32,
        FieldKind::Float { .. } | FieldKind::Sfloat | FieldKind::Medfloat => DataType::Float64,
        FieldKind::Utf8 | FieldKind::Mac | FieldKind::DateTime => DataType::String,
        FieldKind::Bytes => DataType::Bytes,
    };
    Layout { bits: field.bits, ..Layout::new(data) }
}

/// A value in an agreed format's unit as that format's raw number.
fn divided(raw: Raw, factor: Decimal) -> Raw {
    if factor == Decimal::whole(1) {
        return raw;
    }
    let scaling = Scaling { scale: factor, ..Scaling::default() };
    let value = Scaling::default().apply(raw.clone());
    scaling.invert(&value).unwrap_or(raw)
}

/// A bound in the unit of an agreed format, towards zero.
fn product(raw: i128, factor: Decimal) -> i128 {
    let unit = 10_i128.checked_pow(u32::from(factor.places)).unwrap_or(1);
    raw.saturating_mul(i128::from(factor.mantissa)) / unit
}
