//! Schemas of keys whose form a type alone does not tell: addresses, orders, names.
//!
//! In: a schema generator. Out: schema fragments. Must never refuse what the reader gives a meaning to.

use schemars::{JsonSchema, Schema, json_schema};

use super::raw::RawParam;
use crate::codec::DataType;

type Generator = schemars::SchemaGenerator;

pub(super) fn one(_: &mut Generator) -> Schema {
    json_schema!({"const": 1})
}

pub(super) fn map(_: &mut Generator) -> Schema {
    json_schema!({"type": "object"})
}

pub(super) fn maps(_: &mut Generator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "object"}})
}

pub(super) fn params(generator: &mut Generator) -> Schema {
    let each = generator.subschema_for::<RawParam>();
    json_schema!({
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$", "examples": ["unit"]},
        "additionalProperties": each
    })
}

pub(super) fn named<T: JsonSchema>(generator: &mut Generator) -> Schema {
    let each = generator.subschema_for::<T>();
    json_schema!({
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,63}$", "examples": ["voltage_l1"]},
        "additionalProperties": each
    })
}

pub(super) fn labels(_: &mut Generator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^-?[0-9]{1,19}$", "examples": ["0"]},
        "additionalProperties": {"type": "string"}
    })
}

pub(super) fn bit_labels(_: &mut Generator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^([0-9]|[1-5][0-9]|6[0-3])$", "examples": ["0", "63"]},
        "additionalProperties": {"type": "string"}
    })
}

/// Spellings of other notations are texts that pass here; what they mean is told where the address is read.
pub(super) fn address(_: &mut Generator) -> Schema {
    json_schema!({"anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^[0-9A-Za-z:!.]{1,16}$", "examples": ["0x0010"]}
    ]})
}

pub(super) fn data_types(_: &mut Generator) -> Schema {
    json_schema!({"enum": DataType::words().collect::<Vec<_>>()})
}

pub(super) fn order(_: &mut Generator) -> Schema {
    json_schema!({"anyOf": [
        {"enum": ["ABCD", "CDAB", "BADC", "DCBA"]},
        {"type": "string", "pattern": "^[A-H]{2}([A-H]{2}){0,3}$", "examples": ["GHEFCDAB"]}
    ]})
}

pub(super) fn bits(_: &mut Generator) -> Schema {
    json_schema!({"anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 63},
        {"type": "string", "pattern": r"^\d{1,2}(\.\.\d{1,2})?$", "examples": ["0..3"]}
    ]})
}

pub(super) fn write_function(_: &mut Generator) -> Schema {
    json_schema!({"enum": [5, 6, 15, 16, 22]})
}

pub(super) fn base(_: &mut Generator) -> Schema {
    json_schema!({"enum": [0, 1]})
}

pub(super) fn data_bits(_: &mut Generator) -> Schema {
    json_schema!({"enum": [5, 6, 7, 8]})
}

pub(super) fn stop_bits(_: &mut Generator) -> Schema {
    json_schema!({"enum": [1, 2]})
}
