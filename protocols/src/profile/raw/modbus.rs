//! The Modbus parts of a profile as they are written, and the settings of a serial line.
//!
//! In: a tree that fits the schema. Out: these types, not yet made sense of. Must never give a key a meaning here.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::forms::{address, base, bits, data_bits, data_types, maps, order, stop_bits, write_function};
use super::super::text::RawDuration;
use crate::yaml::schema::{bool_or_parameter, unit_or_parameter};

/// A place in a Modbus device.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawVisit {
    /// The table.
    pub(crate) table: RawTable,
    /// The protocol address, counted from 0.
    #[schemars(schema_with = "address")]
    pub(crate) address: Value,
    /// The type on the wire.
    #[serde(default, rename = "type")]
    #[schemars(schema_with = "data_types")]
    pub(crate) data: Option<String>,
    /// Byte and word order.
    #[serde(default)]
    #[schemars(schema_with = "order")]
    pub(crate) order: Option<String>,
    /// A bit or a run of bits, from the least significant.
    #[serde(default)]
    #[schemars(schema_with = "bits")]
    pub(crate) bits: Option<Value>,
    /// Registers of a text or of bytes.
    #[schemars(range(min = 1, max = 125))]
    pub(crate) length: Option<u16>,
    /// Which bytes of a register hold characters.
    pub(crate) chars: Option<RawChars>,
    /// How many values follow one another.
    #[schemars(range(min = 1, max = 125))]
    pub(crate) count: Option<u16>,
    /// Where a write goes, if elsewhere.
    #[serde(default)]
    #[schemars(schema_with = "address")]
    pub(crate) write_address: Option<Value>,
    /// The function a write uses.
    #[serde(default)]
    #[schemars(schema_with = "write_function")]
    pub(crate) write_function: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawTable {
    Coil,
    Discrete,
    Input,
    Holding,
    DeviceId,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawChars {
    Both,
    Low,
    High,
}

/// How a Modbus device is spoken to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawModbus {
    /// The unit id on the wire.
    #[schemars(schema_with = "unit_or_parameter")]
    #[serde(default, rename = "unit")]
    _unit: Option<u8>,
    /// What the addresses of this file count from.
    #[serde(default)]
    #[schemars(schema_with = "base")]
    pub(crate) base: Option<u16>,
    /// Byte and word order, where a property says nothing.
    #[serde(default)]
    #[schemars(schema_with = "order")]
    pub(crate) order: Option<String>,
    /// What one read may do.
    pub(crate) merge: Option<RawMerge>,
    /// How long an answer may take.
    pub(crate) timeout: Option<RawDuration>,
    /// Tries after the first.
    #[schemars(range(min = 0, max = 20))]
    pub(crate) retries: Option<u32>,
    /// Quiet time before each request.
    pub(crate) delay: Option<RawDuration>,
    /// Tries after the first when the device says it is busy.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) busy_retries: Option<u32>,
    /// When it counts as away.
    pub(crate) offline: Option<RawOffline>,
    /// The line settings the model is delivered with.
    pub(crate) serial: Option<RawLine>,
    /// Whether functions 5 and 6 may be used; `false` writes single values with 15 and 16.
    #[serde(default)]
    #[schemars(schema_with = "bool_or_parameter")]
    pub(crate) write_single: Option<bool>,
}

/// What one read may do.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMerge {
    /// Registers one read may ask for.
    #[schemars(range(min = 1, max = 125))]
    pub(crate) max_registers: Option<u16>,
    /// Bits one read may ask for.
    #[schemars(range(min = 1, max = 2000))]
    pub(crate) max_bits: Option<u16>,
    /// Undeclared registers a read may cross.
    pub(crate) max_gap: Option<u16>,
    /// Learn where to split from exceptions 2 and 3.
    pub(crate) split_on_exception: Option<bool>,
    /// Addresses that no read may touch.
    #[serde(default)]
    pub(crate) forbidden: Vec<RawForbidden>,
    /// One read for each value.
    #[serde(default)]
    pub(crate) one_by_one: bool,
}

/// Addresses that no read may touch, both ends included.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawForbidden {
    /// The table; holding and input when absent.
    pub(crate) table: Option<RawTable>,
    /// The first address.
    #[schemars(schema_with = "address")]
    pub(crate) from: Value,
    /// The last address.
    #[schemars(schema_with = "address")]
    pub(crate) to: Value,
}

/// When a device counts as away, and how often it is looked for then.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawOffline {
    /// Failed reads in a row.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) after_failures: Option<u32>,
    /// The first pause between probes.
    pub(crate) probe_min: Option<RawDuration>,
    /// The longest pause between probes.
    pub(crate) probe_max: Option<RawDuration>,
}

/// Settings of a serial line.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLine {
    /// Bits a second.
    #[schemars(range(min = 50, max = 4_000_000))]
    pub(crate) baud: Option<u32>,
    /// Data bits.
    #[serde(default)]
    #[schemars(schema_with = "data_bits")]
    pub(crate) data: Option<u8>,
    /// Parity.
    #[serde(default)]
    pub(crate) parity: RawParity,
    /// Stop bits.
    #[serde(default)]
    #[schemars(schema_with = "stop_bits")]
    pub(crate) stop: Option<u8>,
    /// Flow control.
    #[serde(default)]
    pub(crate) flow: RawFlow,
    /// Who drives the RS-485 transmitter.
    #[serde(default)]
    pub(crate) rs485: RawRs485,
    /// Other settings the model can have.
    #[serde(default, rename = "choices")]
    #[schemars(schema_with = "maps")]
    _choices: Vec<Value>,
}

impl RawLine {
    /// The settings of a port, which are written the same way.
    pub(crate) fn new(
        baud: Option<u32>,
        data: Option<u8>,
        parity: RawParity,
        stop: Option<u8>,
        flow: RawFlow,
        rs485: RawRs485,
    ) -> Self {
        Self { baud, data, parity, stop, flow, rs485, _choices: Vec::new() }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawParity {
    #[default]
    None,
    Even,
    Odd,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawFlow {
    #[default]
    None,
    Rtscts,
    Xonxoff,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawRs485 {
    #[default]
    None,
    Kernel,
    Rts,
}
