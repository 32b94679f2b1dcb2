//! Device profiles: what a device model is.
//!
//! In: YAML as people write it. Out: a [`Profile`] as it was meant, or every complaint at once with file, line, column
//! and what would be right. Must never let a profile through that a mapper would have to doubt.
//!
//! The types here are the profile *as meant*: checked, parameters filled in, defaults resolved. Their fields follow
//! the profile reference (`docs/profile.md`).

pub mod ble;
mod build;
mod convert;
mod derive;
mod device;
mod external;
mod forms;
pub mod golden;
mod library;
mod memory;
mod merge;
mod over;
mod params;
pub(crate) mod raw;
pub mod serial;
pub(crate) mod text;
mod visit;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Scaling;
use crate::expr::Expression;
use crate::modbus;
use crate::name::PropertyName;
use crate::value::Value;

pub use convert::WriteWire;
pub use device::{Flow, ModbusDevice, Offline, Parity, Rs485, SerialLine};
pub use external::External;
pub use library::{Library, Protocol, Resolved, Wish};
pub use raw::schema;
pub use text::duration;
pub use wire::{RequestError, write_request};

/// One device model with its parameters filled in. Devices that differ only in their address share one.
#[derive(Debug)]
pub struct Profile {
    /// Its id, `vendor.model`.
    pub id: String,
    /// Semantic version.
    pub version: String,
    /// First 16 hexadecimal digits of a hash over the profile's meaning, so that a fleet can see what runs where.
    pub hash: String,
    /// Who made the device, and what it is.
    pub meta: Meta,
    /// The timetable; every property points into it. Never empty.
    pub groups: Vec<Group>,
    /// The properties, in the order of the file, computed ones and alarms after the read ones.
    pub properties: Vec<Property>,
    /// Written after connect and reconnect, in order.
    pub init: Vec<InitStep>,
    /// How the wire is spoken to.
    pub modbus: ModbusDevice,
    /// How the line is spoken, where the device is a serial one that does not speak Modbus.
    pub serial: Option<serial::Device>,
    /// How it is listened to, where the device is a Bluetooth Low Energy one.
    pub ble: Option<ble::Device>,
    /// What its mapper has to know, where that is no part of this program.
    pub external: Option<External>,
    /// A cheap read that tells whether such a device is there.
    pub probe: Option<Probe>,
    /// What `device` commands can be called by name.
    pub commands: BTreeMap<String, Command>,
}

impl Profile {
    /// A model of these properties with everything else at its default: one group, no probe, no commands, no hash.
    pub fn new(id: &str, properties: Vec<Property>) -> Self {
        Self {
            id: id.to_owned(),
            version: "1.0.0".to_owned(),
            hash: String::new(),
            meta: Meta::default(),
            groups: vec![Group::default()],
            properties,
            init: Vec::new(),
            modbus: ModbusDevice::default(),
            serial: None,
            ble: None,
            external: None,
            probe: None,
            commands: BTreeMap::new(),
        }
    }

    /// The same for whoever may see only some of its properties. How it is spoken to and what is done with it (init,
    /// commands, probe) is left out, for it may name the others.
    #[must_use]
    pub fn showing(&self, keep: impl Fn(&str) -> bool) -> Self {
        let properties = self.properties.iter().filter(|one| keep(one.name.as_str())).cloned().collect();
        let (version, hash, meta) = (self.version.clone(), self.hash.clone(), self.meta.clone());
        Self { version, hash, meta, groups: self.groups.clone(), ..Self::new(&self.id, properties) }
    }

    /// The index of the property of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.properties.iter().position(|property| property.name.as_str() == name)
    }

    /// What it is spoken to with.
    pub fn protocol(&self) -> Protocol {
        match (&self.serial, &self.ble, &self.external) {
            (Some(_), ..) => Protocol::Serial,
            (_, Some(_), _) => Protocol::Ble,
            (.., Some(_)) => Protocol::External,
            _ => Protocol::Modbus,
        }
    }

    /// Without a word for this time such a device is away; `None` where silence means nothing.
    pub fn silence(&self) -> Option<Duration> {
        let serial = self.serial.as_ref().and_then(|serial| serial.silence);
        serial.or(self.ble.as_ref().map(|ble| ble.presence.timeout))
    }

    /// `id@version`, as the twin's document shows it.
    pub fn label(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }
}

/// What the device is, for people and lists.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are the profile's own words")]
pub struct Meta {
    pub vendor: String,
    pub model: String,
    pub aliases: Vec<String>,
    pub category: Option<String>,
    pub description: Option<String>,
    pub docs: Vec<String>,
}

/// Properties that are read together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name in the file; `default` where the profile names none.
    pub name: String,
    /// From one read to the next.
    pub interval: Duration,
    /// When in the interval; spread by the poller when absent.
    pub phase: Option<Duration>,
    /// Report the group's values only when all of them were read in one cycle.
    pub atomic: bool,
    /// How its properties report, unless they say otherwise.
    pub report: Report,
}

/// The group of properties that name none.
impl Default for Group {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            interval: Duration::from_secs(10),
            phase: None,
            atomic: false,
            report: Report::default(),
        }
    }
}

/// When a reading is worth a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// The rule.
    pub mode: ReportMode,
    /// At most one in this time.
    pub min_interval: Option<Duration>,
    /// At least one in this time.
    pub max_interval: Option<Duration>,
}

impl Default for Report {
    fn default() -> Self {
        Self { mode: ReportMode::OnChange, min_interval: None, max_interval: None }
    }
}

/// The rule of a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportMode {
    /// Every reading.
    Always,
    /// When the value leaves the dead band or the quality changes.
    OnChange,
    /// By `max_interval` alone.
    Interval,
    /// Never; it serves expressions only.
    Never,
}

/// The type of a property's JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the profile's own words")]
pub enum Kind {
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

/// Who may do what with a property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Reported only.
    #[default]
    Read,
    /// Reported and desired.
    ReadWrite,
    /// Desired only; never read back.
    Write,
}

impl Access {
    /// Whether a desired value is allowed.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Read)
    }

    /// Whether it is polled.
    pub fn reads(self) -> bool {
        !matches!(self, Self::Write)
    }
}

/// One property of a device.
#[derive(Clone, Debug)]
pub struct Property {
    /// Its name.
    pub name: PropertyName,
    /// A few words for people.
    pub title: Option<String>,
    /// The JSON type of its values.
    pub kind: Kind,
    /// UCUM unit code.
    pub unit: Option<String>,
    /// What it measures, in Home Assistant's device class words.
    pub class: Option<String>,
    /// `measurement`, `setting`, `diagnostic` or `identity`.
    pub category: Option<String>,
    /// Who may do what.
    pub access: Access,
    /// Index into [`Profile::groups`].
    pub group: usize,
    /// Raw to value and back.
    pub scaling: Scaling,
    /// What is believable.
    pub range: Option<Range>,
    /// Raw values that mean "no value".
    pub invalid: Vec<Value>,
    /// Raw value → word, for [`Kind::Enum`].
    pub labels: BTreeMap<i64, String>,
    /// Bit → word, for [`Kind::Flags`]; the value is an array of the words whose bits are set.
    pub flags: BTreeMap<u8, String>,
    /// Changes smaller than this are not reported.
    pub deadband: Option<Deadband>,
    /// When a reading is reported.
    pub report: Report,
    /// After this time without a reading the value is stale.
    pub max_age: Option<Duration>,
    /// Every reading matters to the cloud.
    pub stream: bool,
    /// It only counts up.
    pub counter: Option<Counter>,
    /// Who wins when the cloud and a local writer disagree.
    pub conflict: Conflict,
    /// How it is written.
    pub write: Write,
    /// Where it comes from.
    pub source: Source,
}

impl Property {
    /// A property that is read, with everything else at its default, in the first group.
    pub fn new(name: PropertyName, kind: Kind, source: Source) -> Self {
        Self {
            name,
            title: None,
            kind,
            unit: None,
            class: None,
            category: None,
            access: Access::Read,
            group: 0,
            scaling: Scaling::default(),
            range: None,
            invalid: Vec::new(),
            labels: BTreeMap::new(),
            flags: BTreeMap::new(),
            deadband: None,
            report: Report::default(),
            max_age: None,
            stream: false,
            counter: None,
            conflict: Conflict::default(),
            write: Write::default(),
            source,
        }
    }
}

/// Where a property comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Read from and written to a Modbus device.
    Modbus(modbus::Visitor),
    /// Read from the messages of a serial device.
    Serial(Box<serial::Visit>),
    /// Heard from, read from and written to a Bluetooth Low Energy device.
    Ble(Box<ble::Visit>),
    /// Read and written by a mapper that is no part of this program: what that has to know, a JSON object.
    External(Box<Value>),
    /// Worked out from other properties.
    Computed(Arc<Expression>),
    /// A condition with memory; the value is a boolean.
    Alarm(Arc<Alarm>),
}

impl Source {
    /// The Modbus visitor, if it is one.
    pub fn modbus(&self) -> Option<&modbus::Visitor> {
        match self {
            Self::Modbus(visitor) => Some(visitor),
            _ => None,
        }
    }

    /// The place in a serial message, if it is one.
    pub fn serial(&self) -> Option<&serial::Visit> {
        match self {
            Self::Serial(visit) => Some(visit),
            _ => None,
        }
    }

    /// What a mapper that is no part of this program has to know of it.
    pub fn external(&self) -> Option<&Value> {
        match self {
            Self::External(visit) => Some(visit),
            _ => None,
        }
    }

    /// Whether it comes from the device itself, and goes bad when that is away.
    pub fn is_wired(&self) -> bool {
        !matches!(self, Self::Computed(_) | Self::Alarm(_))
    }

    /// Whether the device is asked for it in the rhythm of its group.
    pub fn is_polled(&self) -> bool {
        match self {
            Self::Modbus(_) => true,
            Self::Serial(visit) => visit.request.is_some(),
            // A radio's mapper visits its devices by itself, when their profile says so.
            Self::Ble(_) => false,
            // When it is read is its mapper's business.
            Self::External(_) => false,
            Self::Computed(_) | Self::Alarm(_) => false,
        }
    }

    /// Whether the device tells it without being asked.
    pub fn is_pushed(&self) -> bool {
        self.is_wired() && !self.is_polled()
    }
}

/// What is believable, in the property's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lowest believable value.
    pub min: Option<f64>,
    /// Highest believable value.
    pub max: Option<f64>,
    /// What becomes of a value outside.
    pub otherwise: Otherwise,
}

/// What becomes of a value outside its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Otherwise {
    /// `bad:range`.
    #[default]
    Bad,
    /// The nearest end, `uncertain:range`.
    Clamp,
    /// As read, `uncertain:range`.
    Keep,
}

/// How far a value may move unreported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deadband {
    /// In the property's unit.
    pub abs: Option<f64>,
    /// In per cent of the last reported value.
    pub pct: Option<f64>,
}

/// A value that only counts up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counter {
    /// The value at which it starts again from 0.
    pub wrap: Option<f64>,
    /// A smaller value than the last is doubted.
    pub monotonic: bool,
    /// A larger step than this is doubted.
    pub max_step: Option<f64>,
}

/// Who wins when the cloud and a local writer disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the contract's own words")]
pub enum Conflict {
    #[default]
    Cloud,
    Local,
    Newest,
}

/// How a property is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Lowest desired value.
    pub min: Option<f64>,
    /// Highest desired value.
    pub max: Option<f64>,
    /// Desired values are multiples of this, counted from `min` or 0.
    pub step: Option<f64>,
    /// What happens to an applied value after a restart.
    pub mode: WriteMode,
    /// How long a pulse lasts before the property's rest value is written.
    pub pulse: Option<Duration>,
    /// What proves the write.
    pub confirm: Confirm,
    /// What happens when the device drifts from an applied value.
    pub drift: Drift,
    /// From the write to the read back.
    pub settle: Duration,
    /// How far the value read back may differ, in the property's unit; none means equal in encoded form.
    pub tolerance: Option<f64>,
    /// Tries after the first.
    pub retries: u32,
    /// At most one write in this time.
    pub min_interval: Option<Duration>,
    /// A condition over the other properties that must hold.
    pub requires: Option<Arc<Expression>>,
    /// The value at rest, written when a pulse ends; `false`, 0 or the first word when absent.
    pub rest: Option<Value>,
}

impl Default for Write {
    fn default() -> Self {
        Self {
            min: None,
            max: None,
            step: None,
            mode: WriteMode::default(),
            pulse: None,
            confirm: Confirm::default(),
            drift: Drift::default(),
            settle: Duration::ZERO,
            tolerance: None,
            retries: 2,
            min_interval: None,
            requires: None,
            rest: None,
        }
    }
}

/// What happens to an applied desired value later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Written again after a restart or reconnect.
    Reconcile,
    /// Written one time.
    #[default]
    Once,
    /// For buttons: written, never kept.
    Pulse,
}

/// What proves a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirm {
    /// The value is read again and compared in encoded form.
    #[default]
    ReadBack,
    /// The device's answer is enough.
    Ack,
    /// Nothing.
    None,
}

/// What happens when the device drifts from an applied value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drift {
    /// The document shows both.
    #[default]
    Report,
    /// It is written again.
    Restore,
}

/// A condition that is watched.
#[derive(Debug)]
pub struct Alarm {
    /// Raised while this holds …
    pub when: Expression,
    /// … until this holds; the opposite of `when` if absent.
    pub clear: Option<Expression>,
    /// How long `when` must hold.
    pub hold: Duration,
    /// How long `clear` must hold.
    pub clear_hold: Duration,
    /// `info`, `warning`, `minor`, `major` or `critical`.
    pub severity: String,
    /// What to tell people.
    pub text: Option<String>,
    /// Stays raised until the gateway restarts.
    pub latch: bool,
}

/// Something written after connect.
#[derive(Clone, Debug, PartialEq)]
pub struct InitStep {
    /// Index into [`Profile::properties`].
    pub property: usize,
    /// The value, checked against the property.
    pub value: Value,
}

/// A named sequence of writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The steps, in order.
    pub steps: Vec<CommandStep>,
}

/// One step of a [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub enum CommandStep {
    /// Write a property.
    Write(InitStep),
    /// Wait.
    Delay(Duration),
    /// Read a property, by its index.
    Read(usize),
}

/// A cheap read that tells whether such a device is there.
#[derive(Debug)]
pub struct Probe {
    /// What to read.
    pub visitor: modbus::Visitor,
    /// How to scale it.
    pub scaling: Scaling,
    /// Must hold for `value`.
    pub accept: Option<Expression>,
}

#[cfg(test)]
mod tests;
