//! Devices of every protocol that is not read here: their mapper stays, and finds its own words as they were.
//!
//! In: a device and its model. Out: a profile whose properties come `from: {external: …}`, and a connection that holds
//! the protocol's configuration. Must never change a word of what the mapper is to be told.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Note;
use super::read::{Instance, Model, ModelProperty, Visitor, note};
use super::write::{common, cycle_of, groups, head, merged, number, quote, timetable, usable};
use crate::yaml::Node;

/// What stands for the protocol of a device that names none.
const NAMELESS: &str = "customized";

/// The longest name of a protocol, in bytes.
const PROTOCOL_BYTES: usize = 64;

/// The protocol's name in the form a configuration takes.
fn protocol(device: &Instance) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    let name: String = device.protocol.chars().map(|letter| if fits(letter) { letter } else { '-' }).collect();
    let name: String = name.trim_start_matches(['_', '.', '-']).chars().take(PROTOCOL_BYTES).collect();
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}

/// A connection's value, and what it is called after.
pub(super) fn wire(device: &Instance, notes: &mut Vec<Note>) -> (String, String) {
    let protocol = protocol(device);
    if protocol != device.protocol {
        let named = if device.protocol.is_empty() { "no protocol".to_owned() } else { device.protocol.clone() };
        let text = format!("device {}: it names {named}; {protocol} is written", device.name);
        note(notes, &device.place, text);
    }
    let config: Map<String, Value> =
        device.kept.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect();
    let config = if config.is_empty() { String::new() } else { format!(", config: {}", Value::Object(config)) };
    (format!("{{external: {{protocol: {}{config}}}}}", quote(&protocol)), format!("{protocol}-{}", device.name))
}

/// A profile without its id, from the device and its model.
pub(super) fn body(device: &Instance, model: &Model, notes: &mut Vec<Note>) -> Option<String> {
    let visitors = match device.visitors.is_empty() {
        true => all_of(model, device),
        false => device.visitors.clone(),
    };
    let groups = groups(&visitors);
    let mut properties = String::new();
    for visitor in &visitors {
        let Some(property) = usable(device, model, visitor, notes) else { continue };
        let about = format!("device {}, property {}", device.name, visitor.property);
        let group = groups.get(&cycle_of(visitor)).map_or("", String::as_str);
        let access = if property.writable { ", access: rw" } else { "" };
        let kind = kind(&about, property, visitor, notes);
        let _ = writeln!(
            properties,
            "  {}: {{type: {kind}{}{access}, group: {group}, {}from: {{external: {}}}}}",
            visitor.property,
            common(property),
            limits(&about, kind, property, visitor, notes),
            words(&about, device, visitor, property, notes),
        );
    }
    if properties.is_empty() {
        note(
            notes,
            &device.place,
            format!("device {}: it has no property that can be one here; left out", device.name),
        );
        return None;
    }
    let config = model.config.as_ref().filter(|config| !config.entries().is_empty());
    let config = config.map_or(String::new(), |config| format!(", config: {}", config.to_json()));
    let mut body = head(device);
    let _ = writeln!(body, "external: {{protocol: {}{config}}}", quote(&protocol(device)));
    body.push_str(&timetable(&groups));
    let _ = write!(body, "properties:\n{properties}");
    Some(body)
}

/// A device that names no property has all of its model's.
fn all_of(model: &Model, device: &Instance) -> Vec<Visitor> {
    let of = |(name, _): &(String, ModelProperty)| Visitor {
        property: name.clone(),
        place: device.place.clone(),
        config: None,
        protocol: None,
        values: None,
        cycle_ms: 0,
    };
    model.properties.iter().map(of).collect()
}

fn kind(about: &str, property: &ModelProperty, visitor: &Visitor, notes: &mut Vec<Note>) -> &'static str {
    let (kind, text) = match property.kind.as_str() {
        "int" | "integer" => return "int",
        "float" | "double" => return "number",
        "boolean" | "bool" => return "bool",
        "string" => return "string",
        "bytes" => ("string", "bytes is a string here: KubeEdge's mappers report texts".to_owned()),
        "stream" => ("object", "stream is an object here; a stream reports no values".to_owned()),
        other => ("string", format!("type {other} is not known; string is taken")),
    };
    note(notes, &visitor.place, format!("{about}: {text}"));
    kind
}

/// KubeEdge's mappers write what is desired whenever they start a device, so it is reconciled here as well.
fn limits(about: &str, kind: &str, model: &ModelProperty, visitor: &Visitor, notes: &mut Vec<Note>) -> String {
    let mut bounds = Vec::new();
    for (name, text) in [("min", &model.minimum), ("max", &model.maximum)] {
        let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { continue };
        match text.parse::<f64>().ok().filter(|_| matches!(kind, "int" | "number")) {
            Some(bound) => bounds.push(format!("{name}: {}", number(bound))),
            None => {
                let text = format!("{about}: the model's {name}imum {text} is no bound of a {kind}; left out");
                note(notes, &visitor.place, text);
            }
        }
    }
    match (bounds.is_empty(), model.writable) {
        (true, false) => String::new(),
        (true, true) => "write: {mode: reconcile}, ".to_owned(),
        (false, true) => format!("write: {{mode: reconcile, {}}}, ", bounds.join(", ")),
        (false, false) => format!("range: {{{}, else: keep}}, ", bounds.join(", ")),
    }
}

/// What the visitor says, the model's words below it.
fn words(about: &str, device: &Instance, visitor: &Visitor, model: &ModelProperty, notes: &mut Vec<Note>) -> Value {
    let inherited = model.visitors.as_ref().and_then(|visitors| visitors.get("configData"));
    let mut words = match merged(inherited, visitor.config.as_ref()).as_ref().map(Node::to_json) {
        Some(Value::Object(words)) => words,
        _ => Map::new(),
    };
    if let Some(values) = &visitor.values {
        words.insert("customizedValues".to_owned(), values.value.to_json());
    }
    if let Some(other) = visitor.protocol.as_ref().filter(|other| !other.eq_ignore_ascii_case(&device.protocol)) {
        let text = format!("{about}: its visitor names {other}, the device {}; the device's counts", device.protocol);
        note(notes, &visitor.place, text);
    }
    if Value::Object(words.clone()).to_string().contains("${") {
        let text = format!("{about}: \"${{\" begins a parameter's name here; tidegate check shows where");
        note(notes, &visitor.place, text);
    }
    Value::Object(words)
}
