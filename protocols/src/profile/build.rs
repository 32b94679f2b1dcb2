//! From the profile as written to the profile as meant.
//!
//! In: a tree that fits the schema, with parameters filled in, and the same as raw types. Out: a [`Profile`], and
//! complaints about what the schema cannot see. Must never guess where a file says two things.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Number;

use super::raw::{self, RawProfile, RawProperty};
use super::*;
use crate::codec::{Decimal, Scaling};
use crate::modbus::MergeLimits;
use crate::yaml::{Complaints, Node, Place, nearest, quoted_list};

/// The name of [`Group::default`]; a profile may declare a group of this name itself.
const DEFAULT_GROUP: &str = "default";

/// Property names that would be taken for the `…/set` and `…/ack` topics.
const RESERVED: [&str; 2] = ["set", "ack"];

/// Makes sense of a profile. What is wrong is complained about; the result is of use only if nothing was.
pub(super) fn build(tree: &Node, raw: &RawProfile, hash: String, complaints: &mut Complaints) -> Option<Profile> {
    let mut builder =
        Builder { tree, raw, groups: Vec::new(), properties: Vec::new(), serial: None, ble: None, complaints };
    let external = builder.external_device();
    builder.serial = builder.serial_device();
    builder.groups();
    builder.ble = builder.ble_device();
    builder.properties();
    builder.presence();
    builder.computed();
    builder.alarms();
    let init = builder.steps(&raw.init, &["init"]);
    let commands = builder.commands();
    let probe = builder.probe();
    let modbus = builder.device();
    let Builder { groups, properties, serial, ble, .. } = builder;
    Some(Profile {
        id: raw.id.clone(),
        version: raw.version.clone(),
        hash,
        meta: meta(&raw.meta),
        groups,
        properties,
        init: init
            .into_iter()
            .filter_map(|step| if let CommandStep::Write(step) = step { Some(step) } else { None })
            .collect(),
        modbus,
        serial,
        ble,
        external,
        probe,
        commands,
    })
}

pub(super) struct Builder<'a> {
    pub(super) tree: &'a Node,
    pub(super) raw: &'a RawProfile,
    groups: Vec<Group>,
    pub(super) properties: Vec<Property>,
    pub(super) serial: Option<serial::Device>,
    pub(super) ble: Option<ble::Device>,
    pub(super) complaints: &'a mut Complaints,
}

impl<'a> Builder<'a> {
    pub(super) fn place(&self, path: &[&str]) -> &'a Place {
        self.tree.place_of(path)
    }

    pub(super) fn complain(&mut self, path: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        let place = self.place(path);
        self.complaints.add(place, message, hint);
    }

    pub(super) fn keys(&self, section: &str) -> Vec<&'a str> {
        let tree = self.tree;
        tree.get(section).map(Node::entries).unwrap_or_default().iter().map(|entry| entry.key.as_str()).collect()
    }

    fn groups(&mut self) {
        for name in self.keys("groups") {
            let Some(raw) = self.raw.groups.get(name) else { continue };
            if raw.interval.0.is_zero() {
                self.complain(
                    &["groups", name, "interval"],
                    "an interval of 0 would never end",
                    "write a duration such as 1s",
                );
            }
            if raw.phase.is_some_and(|phase| phase > raw.interval) {
                self.complain(
                    &["groups", name, "phase"],
                    "the phase is longer than the interval",
                    "write a shorter one",
                );
            }
            let report = self.report(raw.report, Report::default(), &["groups", name, "report"]);
            self.groups.push(Group {
                name: name.to_owned(),
                interval: raw.interval.0,
                phase: raw.phase.map(|phase| phase.0),
                atomic: raw.atomic,
                report,
            });
        }
        let has_default = self.groups.iter().any(|group| group.name == DEFAULT_GROUP);
        let needs_default = self.raw.properties.values().any(|property| property.group.is_none());
        if !has_default && (needs_default || self.groups.is_empty()) {
            self.groups.push(Group { name: DEFAULT_GROUP.to_owned(), ..Group::default() });
        }
    }

    pub(super) fn report(&mut self, raw: Option<raw::RawReport>, else_: Report, path: &[&str]) -> Report {
        let Some(raw) = raw else { return else_ };
        let mode = raw.mode.map_or(else_.mode, |mode| match mode {
            raw::RawReportMode::Always => ReportMode::Always,
            raw::RawReportMode::OnChange => ReportMode::OnChange,
            raw::RawReportMode::Interval => ReportMode::Interval,
            raw::RawReportMode::Never => ReportMode::Never,
        });
        let report = Report {
            mode,
            min_interval: raw.min_interval.map(|time| time.0).or(else_.min_interval),
            max_interval: raw.max_interval.map(|time| time.0).or(else_.max_interval),
        };
        if let (Some(min), Some(max)) = (report.min_interval, report.max_interval)
            && min > max
        {
            self.complain(path, "min_interval is longer than max_interval", "swap them");
        }
        if mode == ReportMode::Interval && report.max_interval.is_none() {
            let hint = "write max_interval: how often it is reported";
            self.complain(path, "mode interval needs max_interval", hint);
        }
        report
    }

    fn properties(&mut self) {
        for name in self.keys("properties") {
            let raw = self.raw;
            let Some(property) = raw.properties.get(name) else { continue };
            if property.enabled == Some(false) {
                continue;
            }
            if let Some(property) = self.property(name, property) {
                self.properties.push(property);
            }
        }
        if self.raw.properties.values().all(|property| property.enabled == Some(false)) {
            self.complain(&["properties"], "no property is enabled", "leave enabled: false off at least one");
        }
    }

    pub(super) fn name(&mut self, path: &[&str]) -> Option<PropertyName> {
        let text = path.last()?;
        if RESERVED.contains(text) {
            let message = format!("a property cannot be called \"{text}\": its topic would be the request's");
            self.complain(path, message, "take another name");
            return None;
        }
        if self.properties.iter().any(|other| other.name.as_str() == *text) {
            self.complain(path, format!("\"{text}\" is the name of another property already"), "take another name");
            return None;
        }
        text.parse().ok()
    }

    fn group(&mut self, name: &str, group: Option<&str>) -> usize {
        let wanted = group.unwrap_or(DEFAULT_GROUP);
        if let Some(index) = self.groups.iter().position(|group| group.name == wanted) {
            return index;
        }
        let known: Vec<String> = self.groups.iter().map(|group| group.name.clone()).collect();
        let known = || known.iter().map(String::as_str);
        let hint = match nearest(wanted, known()) {
            Some(meant) => format!("did you mean \"{meant}\"? groups: {}", quoted_list(known())),
            None => format!("groups: {}", quoted_list(known())),
        };
        self.complain(&["properties", name, "group"], format!("there is no group \"{wanted}\""), hint);
        0
    }

    fn property(&mut self, name: &str, raw: &RawProperty) -> Option<Property> {
        let path = ["properties", name];
        let checked = self.name(&path);
        let group = self.group(name, raw.group.as_deref());
        let Some(from) = &raw.from else {
            self.complain(&path, format!("\"{name}\" has no \"from\""), "write from: {modbus: {table: …, address: …}}");
            return None;
        };
        let source = match &from.ble {
            Some(visit) => self.ble_visit(name, visit, raw),
            None => self.source(name, from, kind(raw.kind)),
        };
        let access = match raw.access {
            raw::RawAccess::R => Access::Read,
            raw::RawAccess::Rw => Access::ReadWrite,
            raw::RawAccess::W => Access::Write,
        };
        let kind = kind(raw.kind);
        self.words(name, raw, kind);
        let scaling = self.scaling(raw.scale.as_ref(), raw.offset.as_ref(), raw.precision, &path);
        let source = source?;
        match &source {
            Source::Modbus(visitor) => {
                if access.writes() {
                    self.writable(name, visitor);
                }
                self.flags_fit(name, raw, visitor);
            }
            Source::Serial(visit) if access.writes() && visit.write.is_none() => {
                let hint = "write from: {serial: {write: the request that writes it}}";
                self.complain(&["properties", name, "access"], format!("nothing says how \"{name}\" is written"), hint);
            }
            _ => {}
        }
        let report = self.groups.get(group).map(|group| group.report).unwrap_or_default();
        let report = self.report(raw.report, report, &["properties", name, "report"]);
        Some(Property {
            name: checked?,
            title: raw.title.clone(),
            kind,
            unit: raw.unit.clone(),
            class: raw.class.clone(),
            category: raw.category.map(category),
            access,
            group,
            scaling,
            range: self.range(name, raw),
            invalid: self.invalid(name, raw),
            labels: raw.labels.iter().filter_map(|(raw, word)| Some((raw.parse().ok()?, word.clone()))).collect(),
            flags: raw.flags.iter().filter_map(|(bit, word)| Some((bit.parse().ok()?, word.clone()))).collect(),
            deadband: deadband(raw.deadband.as_ref()),
            report,
            max_age: raw.max_age.map(|age| age.0),
            stream: raw.stream,
            counter: raw.counter.as_ref().map(|counter| Counter {
                wrap: counter.wrap,
                monotonic: counter.monotonic,
                max_step: counter.max_step,
            }),
            conflict: match raw.conflict {
                raw::RawConflict::Cloud => Conflict::Cloud,
                raw::RawConflict::Local => Conflict::Local,
                raw::RawConflict::Newest => Conflict::Newest,
            },
            write: self.write(name, raw, access),
            source,
        })
    }

    /// Where a property comes from.
    fn source(&mut self, name: &str, from: &raw::RawFrom, kind: Kind) -> Option<Source> {
        if let Some(visit) = &from.external {
            return Some(Source::External(Box::new(visit.clone())));
        }
        if let Some(visit) = &from.modbus {
            return self.visitor(visit, &["properties", name, "from", "modbus"]).map(Source::Modbus);
        }
        let visit = self.serial_visit(name, from.serial.as_ref()?, kind)?;
        Some(Source::Serial(Box::new(visit)))
    }

    /// An enumeration needs its words, each once, or writing one back would have two meanings.
    fn words(&mut self, name: &str, raw: &RawProperty, kind: Kind) {
        if kind == Kind::Enum && raw.labels.is_empty() {
            self.complain(
                &["properties", name, "enum"],
                format!("\"{name}\" is an enum without words"),
                "write enum: {0: first, 1: second}",
            );
        }
        if kind == Kind::Flags && raw.flags.is_empty() {
            self.complain(
                &["properties", name, "flags"],
                format!("\"{name}\" is of type flags without words"),
                "write flags: {0: first, 1: second}",
            );
        }
        for (key, table) in [("enum", &raw.labels), ("flags", &raw.flags)] {
            let mut seen = BTreeSet::new();
            for (value, word) in table {
                if !seen.insert(word) {
                    let message = format!("the word \"{word}\" stands twice");
                    self.complain(&["properties", name, key, value], message, "give every value a word of its own");
                }
            }
        }
    }

    fn flags_fit(&mut self, name: &str, raw: &RawProperty, visitor: &modbus::Visitor) {
        let Some(bounds) = visitor.layout.bounds() else { return };
        for bit in raw.flags.keys() {
            if bit.parse::<u32>().is_ok_and(|bit| bounds.end().checked_shr(bit).is_none_or(|rest| rest == 0)) {
                let message = format!("there is no bit {bit} in {}", visitor.layout.data);
                self.complain(&["properties", name, "flags", bit], message, "bits count from 0, the least significant");
            }
        }
    }

    pub(super) fn scaling(
        &mut self,
        scale: Option<&Number>,
        offset: Option<&Number>,
        precision: Option<u8>,
        path: &[&str],
    ) -> Scaling {
        let at = |key| [path, &[key]].concat();
        let scale = self.decimal(scale, Decimal::whole(1), &at("scale"));
        if scale.mantissa == 0 {
            self.complain(&at("scale"), "a scale of 0 makes every value 0", "write 1, 0.1, 0.01 …");
        }
        Scaling { scale, offset: self.decimal(offset, Decimal::whole(0), &at("offset")), precision }
    }

    fn decimal(&mut self, number: Option<&Number>, otherwise: Decimal, path: &[&str]) -> Decimal {
        let Some(number) = number else { return otherwise };
        number.to_string().parse().unwrap_or_else(|error: crate::codec::DecimalError| {
            self.complain(path, error.to_string(), "use fewer digits");
            otherwise
        })
    }

    fn range(&mut self, name: &str, raw: &RawProperty) -> Option<Range> {
        let range = raw.range.as_ref()?;
        self.ordered(range.min, range.max, &["properties", name, "range", "min"]);
        let otherwise = match range.otherwise {
            raw::RawOtherwise::Bad => Otherwise::Bad,
            raw::RawOtherwise::Clamp => Otherwise::Clamp,
            raw::RawOtherwise::Keep => Otherwise::Keep,
        };
        Some(Range { min: range.min, max: range.max, otherwise })
    }

    fn ordered(&mut self, min: Option<f64>, max: Option<f64>, path: &[&str]) {
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            self.complain(path, format!("min {min} is above max {max}"), "swap them");
        }
    }

    fn invalid(&mut self, name: &str, raw: &RawProperty) -> Vec<Value> {
        for value in &raw.invalid {
            if !(value.is_number() || value.is_string()) {
                let message = format!("{value} is no raw value");
                self.complain(&["properties", name, "invalid"], message, "list raw numbers as they come, or nan");
            }
        }
        raw.invalid.clone()
    }

    fn write(&mut self, name: &str, raw: &RawProperty, access: Access) -> Write {
        let mut write = Write { rest: raw.default.clone(), ..Write::default() };
        if access == Access::Write {
            write.confirm = Confirm::Ack;
        }
        let Some(raw) = &raw.write else { return write };
        let at = |key| ["properties", name, "write", key];
        self.ordered(raw.min, raw.max, &at("min"));
        write.mode = match raw.mode {
            raw::RawWriteMode::Reconcile => WriteMode::Reconcile,
            raw::RawWriteMode::Once => WriteMode::Once,
            raw::RawWriteMode::Pulse => WriteMode::Pulse,
        };
        if write.mode == WriteMode::Pulse {
            write.confirm = Confirm::Ack;
        }
        match raw.confirm {
            Some(raw::RawConfirm::ReadBack) if access == Access::Write => {
                self.complain(
                    &at("confirm"),
                    "a property with access w cannot be read back",
                    "write confirm: ack, or access: rw",
                );
            }
            Some(raw::RawConfirm::ReadBack) => write.confirm = Confirm::ReadBack,
            Some(raw::RawConfirm::Ack) => write.confirm = Confirm::Ack,
            Some(raw::RawConfirm::None) => write.confirm = Confirm::None,
            None => {}
        }
        if raw.pulse.is_some() && write.mode != WriteMode::Pulse {
            self.complain(&at("pulse"), "pulse belongs to mode: pulse", "write mode: pulse, or leave it out");
        }
        if raw.tolerance.is_some_and(|tolerance| tolerance < 0.0) {
            self.complain(&at("tolerance"), "a tolerance below 0", "write 0 or more");
        }
        let names: Vec<&str> = self.raw.properties.keys().map(String::as_str).collect();
        Write {
            min: raw.min,
            max: raw.max,
            step: raw.step,
            pulse: raw.pulse.map(|time| time.0),
            drift: match raw.drift {
                raw::RawDrift::Report => Drift::Report,
                raw::RawDrift::Restore => Drift::Restore,
            },
            settle: raw.settle.map_or(Duration::ZERO, |time| time.0),
            tolerance: raw.tolerance,
            retries: raw.retries.unwrap_or(write.retries),
            min_interval: raw.min_interval.map(|time| time.0),
            requires: raw
                .requires
                .as_deref()
                .and_then(|text| self.condition(text, &names, &at("requires")))
                .map(Arc::new),
            ..write
        }
    }

    fn device(&mut self) -> ModbusDevice {
        let none = raw::RawModbus::default();
        let raw = self.raw.modbus.as_ref().unwrap_or(&none);
        let usual = ModbusDevice::default();
        let offline = usual.offline;
        let offline = raw.offline.map_or(offline, |raw| Offline {
            after_failures: raw.after_failures.unwrap_or(offline.after_failures),
            probe_min: raw.probe_min.map_or(offline.probe_min, |time| time.0),
            probe_max: raw
                .probe_max
                .map_or(offline.probe_max.max(raw.probe_min.map_or(Duration::ZERO, |time| time.0)), |time| time.0),
        });
        if offline.probe_min > offline.probe_max {
            self.complain(&["modbus", "offline", "probe_min"], "probe_min is longer than probe_max", "swap them");
        }
        if raw.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            self.complain(&["modbus", "timeout"], "no device answers in 0 time", "write a duration such as 500ms");
        }
        ModbusDevice {
            merge: self.merge(),
            timeout: raw.timeout.map(|time| time.0),
            retries: raw.retries.unwrap_or(usual.retries),
            delay: raw.delay.map_or(Duration::ZERO, |time| time.0),
            busy_retries: raw.busy_retries.unwrap_or(usual.busy_retries),
            offline,
            serial: raw.serial.as_ref().map(SerialLine::from_raw),
        }
    }

    fn merge(&mut self) -> MergeLimits {
        let mut limits = MergeLimits::default();
        let Some(raw) = self.raw.modbus.as_ref().and_then(|modbus| modbus.merge.as_ref()) else { return limits };
        limits.max_registers = raw.max_registers.unwrap_or(limits.max_registers);
        limits.max_bits = raw.max_bits.unwrap_or(limits.max_bits);
        limits.max_gap = raw.max_gap;
        limits.split_on_exception = raw.split_on_exception.unwrap_or(true);
        limits.one_by_one = raw.one_by_one;
        for forbidden in &raw.forbidden {
            let path = ["modbus", "merge", "forbidden"];
            let ends = [self.address(&forbidden.from, &path), self.address(&forbidden.to, &path)];
            let [Some(from), Some(to)] = ends else { continue };
            if from > to {
                self.complain(&path, format!("forbidden from {from} to {to} runs backwards"), "swap them");
            }
            let tables: &[raw::RawTable] = match &forbidden.table {
                Some(table) => std::slice::from_ref(table),
                None => &[raw::RawTable::Holding, raw::RawTable::Input],
            };
            limits.forbidden.extend(tables.iter().map(|table| (super::visit::table(*table), from, to)));
        }
        limits
    }
}

impl SerialLine {
    pub(crate) fn from_raw(raw: &raw::RawLine) -> Self {
        let usual = Self::default();
        Self {
            baud: raw.baud.unwrap_or(usual.baud),
            data: raw.data.unwrap_or(usual.data),
            parity: match raw.parity {
                raw::RawParity::None => Parity::None,
                raw::RawParity::Even => Parity::Even,
                raw::RawParity::Odd => Parity::Odd,
            },
            stop: raw.stop.unwrap_or(usual.stop),
            flow: match raw.flow {
                raw::RawFlow::None => Flow::None,
                raw::RawFlow::Rtscts => Flow::RtsCts,
                raw::RawFlow::Xonxoff => Flow::XonXoff,
            },
            rs485: match raw.rs485 {
                raw::RawRs485::None => Rs485::None,
                raw::RawRs485::Kernel => Rs485::Kernel,
                raw::RawRs485::Rts => Rs485::Rts,
            },
        }
    }
}

fn meta(raw: &raw::RawMeta) -> Meta {
    Meta {
        vendor: raw.vendor.clone(),
        model: raw.model.clone(),
        aliases: raw.aliases.clone(),
        category: raw.category.clone(),
        description: raw.description.clone(),
        docs: raw.docs.clone(),
    }
}

pub(super) fn deadband(raw: Option<&raw::RawDeadband>) -> Option<Deadband> {
    raw.map(|raw| Deadband { abs: raw.abs, pct: raw.pct })
}

pub(super) fn kind(raw: raw::RawKind) -> Kind {
    match raw {
        raw::RawKind::Bool => Kind::Bool,
        raw::RawKind::Int => Kind::Int,
        raw::RawKind::Number => Kind::Number,
        raw::RawKind::String => Kind::String,
        raw::RawKind::Enum => Kind::Enum,
        raw::RawKind::Flags => Kind::Flags,
        raw::RawKind::Bytes => Kind::Bytes,
        raw::RawKind::Datetime => Kind::Datetime,
        raw::RawKind::Array => Kind::Array,
        raw::RawKind::Object => Kind::Object,
    }
}

fn category(raw: raw::RawCategory) -> String {
    match raw {
        raw::RawCategory::Measurement => "measurement",
        raw::RawCategory::Setting => "setting",
        raw::RawCategory::Diagnostic => "diagnostic",
        raw::RawCategory::Identity => "identity",
    }
    .to_owned()
}
