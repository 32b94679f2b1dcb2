//! The parts of a profile that stand on its properties: computed values, alarms, init, commands, probe.
//!
//! In: the raw parts, and the properties made before. Out: more properties, steps and the probe. Must never let an
//! expression name what is not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::build::{Builder, deadband, kind};
use super::raw::{self, RawStep};
use super::*;
use crate::codec::Scaling;
use crate::yaml::{Node, Place, nearest, quoted_list};

impl Builder<'_> {
    /// Computed properties, those first that others need.
    pub(super) fn computed(&mut self) {
        let raw = self.raw;
        let mut waiting = self.keys("computed");
        let own: Vec<&str> = waiting.clone();
        let read: Vec<String> = self.properties.iter().map(|property| property.name.to_string()).collect();
        let mut parsed: BTreeMap<&str, Expression> = BTreeMap::new();
        for name in &own {
            let names: Vec<&str> = read.iter().map(String::as_str).chain(own.iter().copied()).collect();
            let Some(computed) = raw.computed.get(*name) else { continue };
            if let Some(expression) = self.expression(&computed.expr, &names, &["computed", name, "expr"]) {
                parsed.insert(name, expression);
            }
        }
        while !waiting.is_empty() {
            let is_ready = |name: &&str| {
                let inputs = parsed.get(*name).map(Expression::inputs).unwrap_or_default();
                !inputs.iter().any(|input| waiting.contains(&input.as_str()))
            };
            let Some(index) = (0..waiting.len()).find(|index| waiting.get(*index).is_some_and(is_ready)) else {
                let ring = waiting.join(", ");
                if let Some(first) = waiting.first() {
                    let message = format!("computed properties need one another in a circle: {ring}");
                    self.complain(
                        &["computed", first, "expr"],
                        message,
                        "work one of them out from read properties alone",
                    );
                }
                return;
            };
            let name = waiting.remove(index);
            let (Some(computed), Some(expression)) = (raw.computed.get(name), parsed.remove(name)) else { continue };
            let path = ["computed", name];
            let Some(checked) = self.name(&path) else { continue };
            let scaling = Scaling { precision: computed.precision, ..Scaling::default() };
            let report = self.report(computed.report, Report::default(), &["computed", name, "report"]);
            self.properties.push(Property {
                title: computed.title.clone(),
                unit: computed.unit.clone(),
                class: computed.class.clone(),
                scaling,
                deadband: deadband(computed.deadband.as_ref()),
                report,
                ..Property::new(
                    checked,
                    computed.kind.map_or(Kind::Number, kind),
                    Source::Computed(Arc::new(expression)),
                )
            });
        }
    }

    pub(super) fn alarms(&mut self) {
        let raw = self.raw;
        let names: Vec<String> = self.properties.iter().map(|property| property.name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for name in self.keys("alarms") {
            let Some(alarm) = raw.alarms.get(name) else { continue };
            let checked = self.name(&["alarms", name]);
            let when = self.condition(&alarm.when, &names, &["alarms", name, "when"]);
            let clear = alarm.clear.as_deref().map(|text| self.condition(text, &names, &["alarms", name, "clear"]));
            let (Some(checked), Some(when)) = (checked, when) else { continue };
            let alarm = Alarm {
                when,
                clear: clear.flatten(),
                hold: alarm.hold.map_or(Duration::ZERO, |time| time.0),
                clear_hold: alarm.clear_for.map_or(Duration::ZERO, |time| time.0),
                severity: severity(alarm.severity).to_owned(),
                text: alarm.text.clone(),
                latch: alarm.latch,
            };
            self.properties.push(Property::new(checked, Kind::Bool, Source::Alarm(Arc::new(alarm))));
        }
    }

    fn expression(&mut self, text: &str, names: &[&str], path: &[&str]) -> Option<Expression> {
        match Expression::parse(text, names) {
            Ok(expression) => Some(expression),
            Err(error) => {
                let at = text.get(..error.position()).map_or(0, |before| before.chars().count()) + 1;
                let hint =
                    error.hint().unwrap_or_else(|| format!("known here: {}", quoted_list(names.iter().copied())));
                self.complain(path, format!("{error} (character {at} of the expression)"), hint);
                None
            }
        }
    }

    pub(super) fn condition(&mut self, text: &str, names: &[&str], path: &[&str]) -> Option<Expression> {
        let expression = self.expression(text, names, path)?;
        if matches!(expression.shape(), crate::expr::Shape::Condition | crate::expr::Shape::Any) {
            return Some(expression);
        }
        self.complain(path, "this is no condition", "compare something: power > 100");
        None
    }

    pub(super) fn commands(&mut self) -> BTreeMap<String, Command> {
        let raw = self.raw;
        let mut commands = BTreeMap::new();
        for name in self.keys("commands") {
            let Some(command) = raw.commands.get(name) else { continue };
            if command.args.is_some() {
                self.complain(
                    &["commands", name, "args"],
                    "this version calls commands without arguments",
                    "leave args out, or write the property itself",
                );
            }
            let steps = self.steps(&command.steps, &["commands", name, "steps"]);
            commands.insert(name.to_owned(), Command { steps });
        }
        commands
    }

    pub(super) fn steps(&mut self, raw: &[RawStep], path: &[&str]) -> Vec<CommandStep> {
        let is_init = path == ["init"];
        let tree = self.tree;
        let nodes = tree.find(path).map(Node::items).unwrap_or_default();
        let mut steps = Vec::new();
        for (index, step) in raw.iter().enumerate() {
            let place = nodes.get(index).map_or(&tree.place, |node| &node.place);
            for (name, value) in step.write.iter().flatten() {
                let value_place = nodes.get(index).map_or(place, |node| node.place_of(&["write", name]));
                if let Some(property) = self.written(name, value, value_place) {
                    steps.push(CommandStep::Write(InitStep { property, value: value.clone() }));
                }
            }
            if step.request.is_some() {
                self.complaints.add(
                    place,
                    "requests belong to serial devices",
                    "write a property: {write: {name: value}}",
                );
            }
            if is_init && (step.read.is_some() || step.delay.is_some()) {
                self.complaints.add(place, "init writes, nothing else", "write a property: {write: {name: value}}");
                continue;
            }
            steps.extend(step.delay.map(|time| CommandStep::Delay(time.0)));
            if let Some(name) = &step.read {
                match self
                    .properties
                    .iter()
                    .position(|property| property.name.as_str() == name && property.access.reads())
                {
                    Some(index) => steps.push(CommandStep::Read(index)),
                    None => self.complaints.add(
                        place,
                        format!("there is no property \"{name}\" to read"),
                        self.known_names(),
                    ),
                }
            }
        }
        steps
    }

    fn known_names(&self) -> String {
        format!("properties: {}", quoted_list(self.properties.iter().map(|property| property.name.as_str())))
    }

    /// Checks a value that init or a command writes.
    fn written(&mut self, name: &str, value: &Value, place: &Place) -> Option<usize> {
        let Some(index) = self.properties.iter().position(|property| property.name.as_str() == name) else {
            let known = self.properties.iter().map(|property| property.name.as_str());
            let hint =
                nearest(name, known).map_or_else(|| self.known_names(), |meant| format!("did you mean \"{meant}\"?"));
            self.complaints.add(place, format!("there is no property \"{name}\""), hint);
            return None;
        };
        let property = self.properties.get(index)?;
        if !property.access.writes() {
            self.complaints.add(place, format!("\"{name}\" cannot be written"), "write access: rw at the property");
            return None;
        }
        if let Err(why) = property.accept(value) {
            self.complaints.add(
                place,
                format!("\"{name}\" cannot be {value}: {why}"),
                "write what the property can hold",
            );
            return None;
        }
        Some(index)
    }

    pub(super) fn probe(&mut self) -> Option<Probe> {
        let raw = self.raw.probe.as_ref()?;
        for name in &raw.identity {
            if !self.raw.properties.contains_key(name) {
                self.complain(&["probe", "identity"], format!("there is no property \"{name}\""), self.known_names());
            }
        }
        let accept = raw.accept.as_deref().and_then(|text| self.condition(text, &["value"], &["probe", "accept"]));
        let Some(visit) = &raw.modbus else {
            // What a Bluetooth device is recognised by is its `match`.
            if self.ble.is_some() {
                return None;
            }
            self.complain(&["probe"], "the probe reads nothing", "write modbus: {table: …, address: …}");
            return None;
        };
        let visitor = self.visitor(visit, &["probe", "modbus"])?;
        let scaling = self.scaling(raw.scale.as_ref(), None, None, &["probe"]);
        Some(Probe { visitor, scaling, accept })
    }
}

/// A property that no device is asked for.
pub(super) fn derived(name: PropertyName, kind: Kind, source: Source) -> Property {
    Property::new(name, kind, source)
}

fn severity(raw: raw::RawSeverity) -> &'static str {
    match raw {
        raw::RawSeverity::Info => "info",
        raw::RawSeverity::Warning => "warning",
        raw::RawSeverity::Minor => "minor",
        raw::RawSeverity::Major => "major",
        raw::RawSeverity::Critical => "critical",
    }
}
