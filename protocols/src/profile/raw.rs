//! A profile as it is written: the one source of the schema, of the check and of the reader.
//!
//! In: a tree that fits [`schema`]. Out: these types, not yet made sense of. Must never give a key a meaning here;
//! that is done where places are known.

mod modbus;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::ble::raw::{RawBle, RawBleVisit};
use super::forms::{bit_labels, labels, map, maps, named, one, params};
use super::serial::raw::{RawPick, RawSerial};
use super::text::RawDuration;
use crate::yaml::schema::{number_or_parameter, of, positive_or_parameter};
pub(crate) use modbus::{RawChars, RawFlow, RawLine, RawModbus, RawParity, RawRs485, RawTable, RawVisit};

/// The JSON Schema of a profile, as `tidegate schema profile` prints it.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(of::<RawProfile>);
    &SCHEMA
}

/// A device profile: what a device model is, for every device of that model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tidegate device profile")]
pub(crate) struct RawProfile {
    /// The form of this file; always 1.
    #[schemars(schema_with = "one")]
    #[serde(rename = "schema")]
    _schema: Value,
    /// The profile's id, vendor.model in lower case.
    #[schemars(regex(pattern = r"^[a-z0-9]+([._-][a-z0-9]+)*$"), extend("examples" = ["eastron.sdm630"]))]
    pub(crate) id: String,
    /// The profile's own version.
    #[schemars(regex(pattern = r"^\d+\.\d+\.\d+$"), extend("examples" = ["1.0.0"]))]
    pub(crate) version: String,
    /// Profiles this one is made from, merged in order; `null` takes a key away, lists replace.
    #[serde(default, rename = "extends")]
    _extends: Vec<String>,
    /// Who makes the device and what it is.
    pub(crate) meta: RawMeta,
    /// What differs from device to device; `${name}` stands for it.
    #[serde(default, rename = "params")]
    #[schemars(schema_with = "params")]
    _params: BTreeMap<String, RawParam>,
    /// Properties that are read together. A property without a group is read every 10 s.
    #[serde(default)]
    pub(crate) groups: BTreeMap<String, RawGroup>,
    /// What the device has, by name.
    #[schemars(extend("minProperties" = 1), schema_with = "named::<RawProperty>")]
    pub(crate) properties: BTreeMap<String, RawProperty>,
    /// Values worked out from others, by name.
    #[serde(default)]
    #[schemars(schema_with = "named::<RawComputed>")]
    pub(crate) computed: BTreeMap<String, RawComputed>,
    /// Conditions that are watched, by name.
    #[serde(default)]
    #[schemars(schema_with = "named::<RawAlarm>")]
    pub(crate) alarms: BTreeMap<String, RawAlarm>,
    /// Sequences of writes that can be called by name.
    #[serde(default)]
    #[schemars(schema_with = "named::<RawCommand>")]
    pub(crate) commands: BTreeMap<String, RawCommand>,
    /// Written after connect and reconnect, in order.
    #[serde(default)]
    pub(crate) init: Vec<RawStep>,
    /// A cheap read that tells whether such a device is there.
    pub(crate) probe: Option<RawProbe>,
    /// How a Modbus device is spoken to.
    pub(crate) modbus: Option<RawModbus>,
    /// How a serial device that does not speak Modbus is spoken to.
    pub(crate) serial: Option<RawSerial>,
    /// How a Bluetooth Low Energy device is listened to.
    pub(crate) ble: Option<RawBle>,
    /// What a mapper that is no part of this program has to know of such a device.
    pub(crate) external: Option<RawExternal>,
    /// Golden tests: bytes of a real device and what they mean.
    #[serde(default, rename = "tests")]
    _tests: Vec<RawTest>,
}

/// A device whose mapper lives in another process.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawExternal {
    /// What is spoken to it; every connection of that protocol fits. Any when absent.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"), extend("examples" = ["opcua", "onvif"]))]
    pub(crate) protocol: Option<String>,
    /// For the mapper, in its own words; what the connection says comes first.
    #[serde(default)]
    #[schemars(schema_with = "map")]
    pub(crate) config: Option<Value>,
}

/// Who makes the device and what it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMeta {
    /// Who makes it.
    pub(crate) vendor: String,
    /// What it is called.
    pub(crate) model: String,
    /// Other names it is sold under.
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    /// What kind of device it is, in a word.
    pub(crate) category: Option<String>,
    /// A sentence about it.
    pub(crate) description: Option<String>,
    /// Where the profile's facts come from.
    #[serde(default)]
    pub(crate) docs: Vec<String>,
    /// Devices it was tried with.
    #[serde(default)]
    #[schemars(schema_with = "maps")]
    #[serde(rename = "tested")]
    _tested: Vec<Value>,
}

/// Something that differs from device to device.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawParam {
    /// The kind of value.
    #[serde(rename = "type")]
    pub(crate) kind: ParamKind,
    /// The value of a device that says nothing. Without it a device has to say; a text is empty then.
    pub(crate) default: Option<Value>,
    /// Lowest value of a number.
    pub(crate) min: Option<f64>,
    /// Highest value of a number.
    pub(crate) max: Option<f64>,
    /// The only values it can have.
    pub(crate) choices: Option<Vec<Value>>,
    /// The form of a text; an empty text always passes.
    pub(crate) pattern: Option<String>,
    /// What to tell the person who fills it in.
    pub(crate) help: Option<String>,
}

/// The kind of a parameter's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ParamKind {
    Int,
    Number,
    String,
    Bool,
    Secret,
    Enum,
}

/// Properties that are read together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawGroup {
    /// From one read to the next.
    pub(crate) interval: RawDuration,
    /// When in the interval; spread over it when absent.
    pub(crate) phase: Option<RawDuration>,
    /// Report only when all values were read in one cycle.
    #[serde(default)]
    pub(crate) atomic: bool,
    /// When its values are reported.
    pub(crate) report: Option<RawReport>,
}

/// When a reading is worth a message.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawReport {
    /// The rule.
    pub(crate) mode: Option<RawReportMode>,
    /// At most one message in this time.
    pub(crate) min_interval: Option<RawDuration>,
    /// At least one message in this time.
    pub(crate) max_interval: Option<RawDuration>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawReportMode {
    Always,
    OnChange,
    Interval,
    Never,
}

/// One property of the device.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawProperty {
    /// A few words for people.
    pub(crate) title: Option<String>,
    /// A sentence for people.
    #[serde(rename = "description")]
    _description: Option<String>,
    /// The type of its values.
    #[serde(rename = "type")]
    pub(crate) kind: RawKind,
    /// Unit, as a UCUM code.
    pub(crate) unit: Option<String>,
    /// What it measures, such as voltage or energy.
    pub(crate) class: Option<String>,
    /// What role it plays.
    pub(crate) category: Option<RawCategory>,
    /// Who may do what with it.
    #[serde(default)]
    pub(crate) access: RawAccess,
    /// The group it is read with.
    pub(crate) group: Option<String>,
    /// `false` leaves it out until a device's override sets it.
    pub(crate) enabled: Option<bool>,
    /// Value = raw × scale + offset.
    #[serde(default)]
    #[schemars(schema_with = "number_or_parameter")]
    pub(crate) scale: Option<Number>,
    /// Added after scaling.
    #[serde(default)]
    #[schemars(schema_with = "number_or_parameter")]
    pub(crate) offset: Option<Number>,
    /// Decimals that are kept.
    #[schemars(range(min = 0, max = 12))]
    pub(crate) precision: Option<u8>,
    /// What is believable.
    pub(crate) range: Option<RawRange>,
    /// Raw values that mean "no value", or nan.
    #[serde(default)]
    pub(crate) invalid: Vec<Value>,
    /// Raw value → word, for type enum.
    #[serde(default, rename = "enum")]
    #[schemars(schema_with = "labels")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Bit → word, for type flags.
    #[serde(default)]
    #[schemars(schema_with = "bit_labels")]
    pub(crate) flags: BTreeMap<String, String>,
    /// The value at rest, written when a pulse ends.
    pub(crate) default: Option<Value>,
    /// Smaller changes are not reported.
    pub(crate) deadband: Option<RawDeadband>,
    /// When it is reported; the group's rule when absent.
    pub(crate) report: Option<RawReport>,
    /// After this time without a reading the value is stale.
    pub(crate) max_age: Option<RawDuration>,
    /// Every reading matters to the cloud.
    #[serde(default)]
    pub(crate) stream: bool,
    /// It only counts up.
    pub(crate) counter: Option<RawCounter>,
    /// Who wins when the cloud and a local writer disagree.
    #[serde(default)]
    pub(crate) conflict: RawConflict,
    /// How it is written.
    pub(crate) write: Option<RawWrite>,
    /// Where it comes from.
    pub(crate) from: Option<RawFrom>,
}

/// The type of a property's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawKind {
    Bool,
    Int,
    Number,
    String,
    Enum,
    Flags,
    Bytes,
    Datetime,
    Array,
    Object,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawCategory {
    Measurement,
    Setting,
    Diagnostic,
    Identity,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawAccess {
    #[default]
    R,
    Rw,
    W,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawConflict {
    #[default]
    Cloud,
    Local,
    Newest,
}

/// What is believable, in the property's unit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRange {
    /// Lowest believable value.
    #[serde(default)]
    #[schemars(schema_with = "number_or_parameter")]
    pub(crate) min: Option<f64>,
    /// Highest believable value.
    #[serde(default)]
    #[schemars(schema_with = "number_or_parameter")]
    pub(crate) max: Option<f64>,
    /// What becomes of a value outside.
    #[serde(default, rename = "else")]
    pub(crate) otherwise: RawOtherwise,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawOtherwise {
    #[default]
    Bad,
    Clamp,
    Keep,
}

/// How far a value may move unreported.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct RawDeadband {
    /// In the property's unit.
    #[serde(default)]
    #[schemars(schema_with = "positive_or_parameter")]
    pub(crate) abs: Option<f64>,
    /// In per cent of the last reported value.
    #[serde(default)]
    #[schemars(schema_with = "positive_or_parameter")]
    pub(crate) pct: Option<f64>,
}

/// A value that only counts up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCounter {
    /// The value at which it starts again from 0.
    #[serde(default)]
    #[schemars(schema_with = "positive_or_parameter")]
    pub(crate) wrap: Option<f64>,
    /// A smaller value than the last is doubted.
    #[serde(default)]
    pub(crate) monotonic: bool,
    /// A larger step than this is doubted.
    #[serde(default)]
    #[schemars(schema_with = "positive_or_parameter")]
    pub(crate) max_step: Option<f64>,
}

/// How a property is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWrite {
    /// Lowest desired value.
    #[serde(default)]
    #[schemars(schema_with = "number_or_parameter")]
    pub(crate) min: Option<f64>,
    /// Highest desired value.
    #[serde(default)]
    #[schemars(schema_with = "number_or_parameter")]
    pub(crate) max: Option<f64>,
    /// Desired values are multiples of this, counted from min or 0.
    #[serde(default)]
    #[schemars(schema_with = "positive_or_parameter")]
    pub(crate) step: Option<f64>,
    /// What happens to an applied value after a restart.
    #[serde(default)]
    pub(crate) mode: RawWriteMode,
    /// How long a pulse lasts.
    pub(crate) pulse: Option<RawDuration>,
    /// What proves the write.
    pub(crate) confirm: Option<RawConfirm>,
    /// What happens when the device drifts from an applied value.
    #[serde(default)]
    pub(crate) drift: RawDrift,
    /// From the write to the read back.
    pub(crate) settle: Option<RawDuration>,
    /// How far the value read back may differ.
    #[serde(default)]
    #[schemars(schema_with = "number_or_parameter")]
    pub(crate) tolerance: Option<f64>,
    /// Tries after the first.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) retries: Option<u32>,
    /// At most one write in this time.
    pub(crate) min_interval: Option<RawDuration>,
    /// A condition over other properties that must hold.
    pub(crate) requires: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawWriteMode {
    Reconcile,
    #[default]
    Once,
    Pulse,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawConfirm {
    ReadBack,
    Ack,
    None,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawDrift {
    #[default]
    Report,
    Restore,
}

/// Where a property comes from: one of modbus, serial, ble, external.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct RawFrom {
    /// A place in a Modbus device.
    pub(crate) modbus: Option<RawVisit>,
    /// A field of a serial message.
    pub(crate) serial: Option<RawPick>,
    /// A part of an advertisement or a characteristic.
    pub(crate) ble: Option<RawBleVisit>,
    /// In the words of the mapper that reads it; {} where the name says it all.
    #[serde(default)]
    #[schemars(schema_with = "map")]
    pub(crate) external: Option<Value>,
}

/// A value worked out from others.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawComputed {
    /// The formula.
    #[schemars(extend("examples" = ["power_l1 + power_l2"]))]
    pub(crate) expr: String,
    /// The type of its values; number when absent.
    #[serde(rename = "type")]
    pub(crate) kind: Option<RawKind>,
    /// Unit, as a UCUM code.
    pub(crate) unit: Option<String>,
    /// What it measures.
    pub(crate) class: Option<String>,
    /// A few words for people.
    pub(crate) title: Option<String>,
    /// Decimals that are kept.
    #[schemars(range(min = 0, max = 12))]
    pub(crate) precision: Option<u8>,
    /// When it is reported.
    pub(crate) report: Option<RawReport>,
    /// Smaller changes are not reported.
    pub(crate) deadband: Option<RawDeadband>,
}

/// A condition that is watched.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAlarm {
    /// Raised while this holds.
    pub(crate) when: String,
    /// Ends when this holds; the opposite of `when` if absent.
    pub(crate) clear: Option<String>,
    /// How long `when` must hold.
    #[serde(rename = "for")]
    pub(crate) hold: Option<RawDuration>,
    /// How long `clear` must hold.
    pub(crate) clear_for: Option<RawDuration>,
    /// How bad it is.
    pub(crate) severity: RawSeverity,
    /// What to tell people.
    pub(crate) text: Option<String>,
    /// Stays raised until the gateway restarts.
    #[serde(default)]
    pub(crate) latch: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawSeverity {
    Info,
    Warning,
    Minor,
    Major,
    Critical,
}

/// A sequence of writes that can be called by name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCommand {
    /// What the caller gives.
    #[serde(default)]
    #[schemars(schema_with = "map")]
    pub(crate) args: Option<Value>,
    /// What is done, in order.
    #[schemars(length(min = 1))]
    pub(crate) steps: Vec<RawStep>,
}

/// One step: a write, a request, a delay or a read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct RawStep {
    /// Property → value.
    #[serde(default)]
    #[schemars(schema_with = "map")]
    pub(crate) write: Option<BTreeMap<String, Value>>,
    /// A request of a serial device, by name.
    pub(crate) request: Option<Value>,
    /// Wait.
    pub(crate) delay: Option<RawDuration>,
    /// A property that is read.
    pub(crate) read: Option<String>,
}

/// A cheap read that tells whether such a device is there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawProbe {
    /// What is read.
    pub(crate) modbus: Option<RawVisit>,
    /// A request of a serial device.
    #[serde(default, rename = "serial")]
    #[schemars(schema_with = "map")]
    _serial: Option<Value>,
    /// What is listened for.
    #[serde(default, rename = "ble")]
    #[schemars(schema_with = "map")]
    _ble: Option<Value>,
    /// Value = raw × scale.
    #[serde(default)]
    #[schemars(schema_with = "number_or_parameter")]
    pub(crate) scale: Option<Number>,
    /// A condition over `value` that must hold.
    #[schemars(extend("examples" = ["value > 80 && value < 300"]))]
    pub(crate) accept: Option<String>,
    /// Properties that tell which device it is.
    #[serde(default)]
    pub(crate) identity: Vec<String>,
}

/// A golden test: bytes of a real device and what they mean.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTest {
    /// What it shows, in a few words.
    pub(crate) name: String,
    /// Parameters of the device.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, Value>,
    /// What the device holds or sends.
    #[schemars(schema_with = "map")]
    pub(crate) input: Value,
    /// Property → value; of a write, the request.
    #[schemars(schema_with = "map")]
    pub(crate) expect: Value,
    /// Property → quality, or how it begins.
    #[serde(default)]
    pub(crate) expect_quality: BTreeMap<String, String>,
    /// How far numbers may differ.
    #[schemars(range(min = 0))]
    pub(crate) tolerance: Option<f64>,
    /// Property → desired value; then `expect` is what is sent.
    #[serde(default)]
    #[schemars(schema_with = "map")]
    pub(crate) write: BTreeMap<String, Value>,
}
