//! JSON Schemas from the types that are read: one source for editors, for the check and for the reader.
//!
//! In: a type that serde and schemars know. Out: its schema (draft 2020-12) as JSON. Must never differ from what the
//! reader accepts.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::Value;

/// The pattern of a text that stands for one parameter and nothing else.
pub const PARAMETER: &str = r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$";

/// The schema of a type. An absent key is how "nothing" is written, so `null` is not offered anywhere.
pub fn of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<T>());
    without_null(&mut schema);
    schema
}

fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            if let Some(Value::Array(words)) = map.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            if let Some(Value::Array(branches)) = map.get_mut("anyOf") {
                branches.retain(|branch| branch.get("type").is_none_or(|kind| kind != "null"));
                if let [Value::Object(only)] = branches.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    for (key, value) in only {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            map.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

/// A number, or a text that stands for a parameter.
pub fn number_or_parameter(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "number"}, {"type": "string", "pattern": PARAMETER, "examples": ["${name}"]}]})
}

/// A number above 0, or a text that stands for a parameter.
pub fn positive_or_parameter(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": PARAMETER, "examples": ["${name}"]}
    ]})
}

/// A Modbus unit id, or a text that stands for a parameter.
pub fn unit_or_parameter(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 255},
        {"type": "string", "pattern": PARAMETER, "examples": ["${unit}"]}
    ]})
}

/// `true` or `false`, or a text that stands for a parameter.
pub fn bool_or_parameter(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": PARAMETER, "examples": ["${name}"]}]})
}
