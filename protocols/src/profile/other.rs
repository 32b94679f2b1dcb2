//! The section of Bluetooth devices, as it is written. This version checks its form, and says so where a device uses
//! it.
//!
//! In: a tree that fits the schema. Out: nothing but the schema. Must never give a key a meaning here.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::forms::map;

/// How a Bluetooth Low Energy device is listened to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBle {
    /// What its advertisements look like.
    #[serde(default, rename = "match")]
    #[schemars(schema_with = "map")]
    _pattern: Option<Value>,
    /// Its address.
    #[serde(rename = "address")]
    _address: Option<String>,
    /// How advertisements are read.
    #[schemars(schema_with = "map")]
    #[serde(default, rename = "advertisement")]
    _advertisement: Option<Value>,
    /// When it counts as away.
    #[schemars(schema_with = "map")]
    #[serde(default, rename = "presence")]
    _presence: Option<Value>,
    /// What is read over a connection.
    #[schemars(schema_with = "map")]
    #[serde(default, rename = "gatt")]
    _gatt: Option<Value>,
}
