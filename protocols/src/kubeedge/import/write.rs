//! From what KubeEdge's objects say to the text of profiles and of `gateway.yaml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::read::{Instance, Model, ModelProperty, Objects, Visitor, note};
use super::{Imported, Note, external, modbus};
use crate::name::{DeviceId, PropertyName};
use crate::yaml::{Data, Node, Place};

/// Collect cycle where none is written, in milliseconds: the mapper framework's.
const CYCLE_MS: u64 = 1000;

/// A profile as it grows: the text after `id`, and how it got its id.
struct Profile {
    id: String,
    body: String,
    place: Place,
}

pub(super) fn write(objects: &Objects, notes: &mut Vec<Note>) -> Imported {
    let mut profiles: Vec<Profile> = Vec::new();
    let mut connections: BTreeMap<String, String> = BTreeMap::new();
    let mut devices = String::new();
    let mut places = Vec::new();
    for device in &objects.instances {
        let about = format!("device {}", device.name);
        let id = match device.namespace.as_str() {
            "default" => device.name.clone(),
            namespace => format!("{namespace}:{}", device.name),
        };
        if id.parse::<DeviceId>().is_err() {
            note(notes, &device.place, format!("{about}: \"{id}\" cannot be a device id here; left out"));
            continue;
        }
        let Some(model) = objects.models.get(&format!("{}/{}", device.namespace, device.model)) else {
            let text =
                format!("{about}: its model {} is in none of the files; give them together; left out", device.model);
            note(notes, &device.place, text);
            continue;
        };
        let (body, wire, name, params) = if device.protocol.eq_ignore_ascii_case("modbus") {
            let Some(body) = modbus_body(device, model, notes) else { continue };
            let Some(wire) = modbus::wire(device, notes) else { continue };
            (body, format!("{{modbus: {}}}", wire.yaml), wire.name, format!(", params: {{unit: {}}}", wire.unit))
        } else {
            let Some(body) = external::body(device, model, notes) else { continue };
            let (wire, name) = external::wire(device, notes);
            (body, wire, name, String::new())
        };
        let profile = profile_id(&mut profiles, device, body);
        let connection = connection_name(&mut connections, &name, wire);
        let id = quote(&id);
        let _ = writeln!(devices, "  - {{id: {id}, profile: {profile}, connection: {connection}{params}}}");
        places.push(device.place.clone());
        for (property, value, place) in &device.desired {
            let text = format!(
                "{about}, property {property}: desired {value} is a wish, not configuration; say it once the gateway runs: tidegate twin set {id} {property}={value}"
            );
            note(notes, place, text);
        }
    }
    unused_models(objects, notes);
    let mut gateway = String::from("# Made from KubeEdge's Device objects; belongs into gateway.yaml.\nconnections:\n");
    for (name, wire) in &connections {
        let _ = writeln!(gateway, "  {name}: {wire}");
    }
    let _ = write!(gateway, "devices:\n{devices}");
    let profile_places = profiles.iter().map(|profile| profile.place.clone()).collect();
    let profiles = profiles.into_iter().map(|Profile { id, body, .. }| {
        let text =
            format!("# Made from a KubeEdge DeviceModel and the visitors of its devices.\nschema: 1\nid: {id}\n{body}");
        (id, text)
    });
    Imported {
        profiles: profiles.collect(),
        gateway,
        devices: places.len(),
        notes: Vec::new(),
        profile_places,
        device_places: places,
    }
}

fn unused_models(objects: &Objects, notes: &mut Vec<Note>) {
    for (name, model) in &objects.models {
        let used = |device: &Instance| format!("{}/{}", device.namespace, device.model) == *name;
        if !objects.instances.iter().any(used) {
            let text = format!(
                "model {name} has no device in these files, and only a device says where its properties are; left out"
            );
            note(notes, &model.place, text);
        }
    }
}

/// The profile with this body: one that is there already, or a new one, named after the model and, if that name is
/// taken by another body, after the device as well.
fn profile_id(profiles: &mut Vec<Profile>, device: &Instance, body: String) -> String {
    if let Some(same) = profiles.iter().find(|profile| profile.body == body) {
        return same.id.clone();
    }
    let model = word_of(&device.model);
    let plain = format!("kubeedge.{model}");
    let taken = |id: &str| profiles.iter().any(|profile| profile.id == id);
    let own = format!("{plain}.{}", word_of(&device.name));
    let id = if taken(&plain) { own } else { plain };
    let id = if taken(&id) { format!("{id}.{}", profiles.len()) } else { id };
    profiles.push(Profile { id: id.clone(), body, place: device.place.clone() });
    id
}

/// Lower case, digits, `-` and `_`: what a profile id may hold between its dots.
fn word_of(text: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        lower @ ('a'..='z' | '0'..='9' | '_' | '-') => lower,
        _ => '_',
    };
    let word: String = text.chars().map(letter).collect();
    if word.is_empty() { "model".to_owned() } else { word }
}

/// A name for a wire: the one it has already, or a new one.
fn connection_name(connections: &mut BTreeMap<String, String>, wanted: &str, wire: String) -> String {
    if let Some((name, _)) = connections.iter().find(|(_, there)| **there == wire) {
        return name.clone();
    }
    let clean = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    let mut name: String = wanted.chars().map(clean).collect();
    // A name of digits alone would be a number in YAML.
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        name.insert_str(0, "wire-");
    }
    name.truncate(56);
    let mut number = 1;
    let mut candidate = name.clone();
    while connections.get(&candidate).is_some_and(|there| *there != wire) {
        number += 1;
        candidate = format!("{name}-{number}");
    }
    connections.insert(candidate.clone(), wire);
    candidate
}

pub(super) fn head(device: &Instance) -> String {
    let description = device.description.as_deref().map(|text| format!(", description: {}", quote(text)));
    format!(
        "version: 1.0.0\nmeta: {{vendor: KubeEdge, model: {}{}}}\n",
        quote(&device.model),
        description.unwrap_or_default()
    )
}

/// The groups of a device: one for each collect cycle.
pub(super) fn groups(visitors: &[Visitor]) -> BTreeMap<u64, String> {
    let cycles = visitors.iter().map(cycle_of);
    cycles
        .map(|ms| (ms, if ms % 1000 == 0 { format!("every_{}s", ms / 1000) } else { format!("every_{ms}ms") }))
        .collect()
}

/// The section `groups` of a profile.
pub(super) fn timetable(groups: &BTreeMap<u64, String>) -> String {
    let mut text = String::from("groups:\n");
    for (ms, name) in groups {
        let interval = if ms % 1000 == 0 { format!("{}s", ms / 1000) } else { format!("{ms}ms") };
        let _ = writeln!(text, "  {name}: {{interval: {interval}}}");
    }
    text
}

pub(super) fn cycle_of(visitor: &Visitor) -> u64 {
    if visitor.cycle_ms == 0 { CYCLE_MS } else { visitor.cycle_ms.max(10) }
}

pub(super) fn usable<'a>(
    device: &Instance,
    model: &'a Model,
    visitor: &Visitor,
    notes: &mut Vec<Note>,
) -> Option<&'a ModelProperty> {
    let about = format!("device {}, property {}", device.name, visitor.property);
    let taken = matches!(visitor.property.as_str(), "set" | "ack");
    if taken || visitor.property.parse::<PropertyName>().is_err() {
        note(notes, &visitor.place, format!("{about}: the name cannot be a property's here; left out"));
        return None;
    }
    let found = model.properties.iter().find(|(name, _)| *name == visitor.property);
    if found.is_none() {
        note(notes, &visitor.place, format!("{about}: its model has no such property; left out"));
    }
    found.map(|(_, property)| property)
}

fn modbus_body(device: &Instance, model: &Model, notes: &mut Vec<Note>) -> Option<String> {
    let groups = groups(&device.visitors);
    let mut properties = String::new();
    for visitor in &device.visitors {
        let about = format!("device {}, property {}", device.name, visitor.property);
        let Some(property) = usable(device, model, visitor, notes) else { continue };
        if let Some(values) = &visitor.values {
            note(notes, &values.key_place, format!("{about}: customizedValues has no counterpart"));
        }
        let inherited = property.visitors.as_ref().and_then(|visitors| visitors.get("configData"));
        let visitor = Visitor { config: merged(inherited, visitor.config.as_ref()), ..visitor.clone() };
        let Some(mapped) = modbus::property(&about, &visitor, property, notes) else { continue };
        let group = groups.get(&cycle_of(&visitor)).map_or("", String::as_str);
        let access = if mapped.writable { ", access: rw" } else { "" };
        let common = common(property);
        let _ = writeln!(
            properties,
            "  {}: {{type: {}{common}{access}, group: {group}, {}}}",
            visitor.property, mapped.kind, mapped.rest
        );
    }
    if properties.is_empty() {
        note(
            notes,
            &device.place,
            format!("device {}: none of its properties can be read here; left out", device.name),
        );
        return None;
    }
    let mut body = head(device);
    body.push_str("params: {unit: {type: int, min: 0, max: 255, default: 1}}\n");
    body.push_str(&timetable(&groups));
    let _ = write!(body, "modbus: {{unit: \"${{unit}}\"}}\nproperties:\n{properties}");
    Some(body)
}

pub(super) fn common(property: &ModelProperty) -> String {
    let mut text = String::new();
    if let Some(unit) = &property.unit {
        let _ = write!(text, ", unit: {}", quote(ucum(unit)));
    }
    if let Some(description) = &property.description {
        let _ = write!(text, ", title: {}", quote(description));
    }
    text
}

/// The UCUM code of a unit as people write it there.
fn ucum(unit: &str) -> &str {
    match unit.to_ascii_lowercase().as_str() {
        "celsius" | "degree celsius" | "degrees celsius" | "°c" => "Cel",
        "fahrenheit" | "degree fahrenheit" => "[degF]",
        "percent" => "%",
        "volt" => "V",
        "ampere" => "A",
        "watt" => "W",
        _ => unit,
    }
}

/// A map over another one, key by key: an instance's configuration over its model's.
pub(super) fn merged(below: Option<&Node>, above: Option<&Node>) -> Option<Node> {
    let (Some(below), Some(above)) = (below, above) else { return above.or(below).cloned() };
    let kept = below.entries().iter().filter(|entry| above.entry(&entry.key).is_none()).cloned();
    Some(Node { place: above.place.clone(), data: Data::Map(above.entries().iter().cloned().chain(kept).collect()) })
}

/// A text as a YAML scalar: bare where that is safe, else in double quotes, whose escapes are JSON's.
pub(super) fn quote(text: &str) -> String {
    let bare = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_./-".contains(letter))
        && !matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "nan" | "inf");
    if bare { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// A number as short as it goes.
pub(super) fn number(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number:.0}") } else { number.to_string() }
}
