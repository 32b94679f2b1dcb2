//! From Kubernetes objects to what they say of devices, in one form for both versions of the API.

use std::collections::BTreeMap;

use super::Note;
use crate::yaml::{self, Complaints, Data, Entry, Node, Place};

/// A cycle from here on is taken for nanoseconds: a hundred thousand seconds in milliseconds is no cycle anybody means.
const NANOSECONDS_FROM: f64 = 1e8;

/// The key of v1alpha2 for protocols that the API does not know.
const CUSTOM: &str = "customizedProtocol";

/// What of a model's property is the same in both versions.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelProperty {
    pub(super) kind: String,
    pub(super) description: Option<String>,
    pub(super) writable: bool,
    pub(super) minimum: Option<String>,
    pub(super) maximum: Option<String>,
    pub(super) unit: Option<String>,
    /// Visitors that instances take over (v1beta1 since 1.22).
    pub(super) visitors: Option<Node>,
}

/// A device model.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) place: Place,
    pub(super) properties: Vec<(String, ModelProperty)>,
    /// What devices take over of the protocol's own words (v1beta1 since 1.22).
    pub(super) config: Option<Node>,
}

/// How one property of a device is read.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) property: String,
    pub(super) place: Place,
    /// The protocol's own words.
    pub(super) config: Option<Node>,
    /// The protocol named beside them (v1beta1, and customizedProtocol before).
    pub(super) protocol: Option<String>,
    /// `customizedValues` of v1alpha2.
    pub(super) values: Option<Entry>,
    /// In milliseconds; 0 is unset.
    pub(super) cycle_ms: u64,
}

/// A device.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) place: Place,
    pub(super) model: String,
    pub(super) protocol: String,
    /// The protocol's own words, flat where v1alpha2 nests them.
    pub(super) config: Vec<Node>,
    /// The same as it was written, for a mapper that knows these words.
    pub(super) kept: Vec<Entry>,
    pub(super) visitors: Vec<Visitor>,
    pub(super) desired: Vec<(String, String, Place)>,
    pub(super) description: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    /// By `namespace/name`.
    pub(super) models: BTreeMap<String, Model>,
    pub(super) instances: Vec<Instance>,
}

/// Every object of every file.
pub(super) fn objects(files: &[(String, String)], notes: &mut Vec<Note>, complaints: &mut Complaints) -> Objects {
    let mut objects = Objects::default();
    for (file, text) in files {
        for document in yaml::read_all(file, text, complaints) {
            let items = document.get("items").filter(|_| word(&document, &["kind"]).as_deref() == Some("List"));
            match items {
                Some(items) => items.items().iter().for_each(|item| object(item, &mut objects, notes, complaints)),
                None => object(&document, &mut objects, notes, complaints),
            }
        }
    }
    objects
}

fn object(node: &Node, objects: &mut Objects, notes: &mut Vec<Note>, complaints: &mut Complaints) {
    let api = word(node, &["apiVersion"]).unwrap_or_default();
    let version = api.strip_prefix("devices.kubeedge.io/").unwrap_or("");
    let kind = word(node, &["kind"]).unwrap_or_default();
    let old = match (version, kind.as_str()) {
        ("v1alpha2", "Device" | "DeviceModel") => true,
        ("v1beta1", "Device" | "DeviceModel") => false,
        (_, "Device" | "DeviceModel") => {
            let message = format!("apiVersion \"{api}\" is not known");
            return complaints.add(
                node.place_of(&["apiVersion"]),
                message,
                "devices.kubeedge.io/v1alpha2 and …/v1beta1 are",
            );
        }
        _ => {
            let kind = if kind.is_empty() { "an object without kind".to_owned() } else { format!("a {kind}") };
            return note(notes, &node.place, format!("{kind} is neither Device nor DeviceModel; left out"));
        }
    };
    let Some(name) = word(node, &["metadata", "name"]) else {
        let hint = "every object has metadata: {name: …}";
        return complaints.add(node.place_of(&["metadata"]), format!("the {kind} has no name"), hint);
    };
    let namespace = word(node, &["metadata", "namespace"]).unwrap_or_else(|| "default".to_owned());
    rest(node, &["apiVersion", "kind", "metadata", "spec", "status"], &format!("{kind} {name}"), notes);
    if kind == "DeviceModel" {
        let model = model(node, old, &name, notes);
        objects.models.insert(format!("{namespace}/{name}"), model);
    } else {
        let instance = if old { alpha(node, name, namespace, notes) } else { beta(node, name, namespace, notes) };
        objects.instances.push(instance);
    }
}

fn model(node: &Node, old: bool, name: &str, notes: &mut Vec<Note>) -> Model {
    let spec = node.get("spec");
    let mut properties = Vec::new();
    for item in spec.and_then(|spec| spec.get("properties")).map(Node::items).unwrap_or_default() {
        let Some(property) = word(item, &["name"]) else {
            note(notes, &item.place, format!("a property of model {name} has no name; left out"));
            continue;
        };
        let read = if old { old_property(item, &property, notes) } else { new_property(item, &property, notes) };
        properties.push((property, read));
    }
    if let Some(spec) = spec {
        let known: &[&str] = if old { &["properties"] } else { &["properties", "protocol", "protocolConfigData"] };
        rest(spec, known, &format!("model {name}"), notes);
    }
    let config = spec.and_then(|spec| spec.get("protocolConfigData")).cloned();
    Model { place: node.place.clone(), properties, config }
}

fn new_property(item: &Node, name: &str, notes: &mut Vec<Note>) -> ModelProperty {
    let known = ["name", "description", "type", "accessMode", "minimum", "maximum", "unit", "visitors"];
    rest(item, &known, &format!("property {name}"), notes);
    ModelProperty {
        kind: word(item, &["type"]).unwrap_or_else(|| "STRING".to_owned()).to_ascii_lowercase(),
        description: word(item, &["description"]),
        writable: word(item, &["accessMode"]).as_deref() == Some("ReadWrite"),
        minimum: word(item, &["minimum"]),
        maximum: word(item, &["maximum"]),
        unit: word(item, &["unit"]),
        visitors: item.get("visitors").cloned(),
    }
}

/// v1alpha2 writes the type as a key: `type: {int: {accessMode, defaultValue, …}}`.
fn old_property(item: &Node, name: &str, notes: &mut Vec<Note>) -> ModelProperty {
    rest(item, &["name", "description", "type"], &format!("property {name}"), notes);
    let typed = item.get("type").and_then(|kind| kind.entries().first());
    let inner = typed.map(|entry| &entry.value);
    let text = |key: &str| inner.and_then(|inner| word(inner, &[key]));
    if let Some(inner) = inner {
        if let Some(default) = inner.entry("defaultValue") {
            let value = word(inner, &["defaultValue"]).unwrap_or_default();
            let text =
                format!("property {name}: defaultValue {value} has no counterpart: a device's own value is shown");
            note(notes, &default.key_place, text);
        }
        let known = ["accessMode", "defaultValue", "minimum", "maximum", "unit"];
        rest(inner, &known, &format!("property {name}"), notes);
    }
    ModelProperty {
        kind: typed.map_or_else(|| "string".to_owned(), |entry| entry.key.to_ascii_lowercase()),
        description: word(item, &["description"]),
        writable: text("accessMode").as_deref() == Some("ReadWrite"),
        minimum: text("minimum"),
        maximum: text("maximum"),
        unit: text("unit"),
        visitors: None,
    }
}

fn beta(node: &Node, name: String, namespace: String, notes: &mut Vec<Note>) -> Instance {
    let spec = node.get("spec");
    let about = format!("device {name}");
    let mut visitors = Vec::new();
    let mut desired = Vec::new();
    for item in spec.and_then(|spec| spec.get("properties")).map(Node::items).unwrap_or_default() {
        let Some(property) = word(item, &["name"]) else {
            note(notes, &item.place, format!("a property of {about} has no name; left out"));
            continue;
        };
        let about = format!("{about}, property {property}");
        rest(item, &["name", "desired", "visitors", "collectCycle", "reportCycle", "reportToCloud"], &about, notes);
        cycles(item, &about, notes);
        if let Some(value) = word(item, &["desired", "value"]) {
            desired.push((property.clone(), value, item.place_of(&["desired"]).clone()));
        }
        visitors.push(Visitor {
            place: item.place.clone(),
            config: item.find(&["visitors", "configData"]).cloned(),
            protocol: word(item, &["visitors", "protocolName"]),
            values: None,
            cycle_ms: cycle(item, &about, notes),
            property,
        });
    }
    if let Some(spec) = spec {
        let known = ["deviceModelRef", "nodeName", "protocol", "properties"];
        rest(spec, &known, &about, notes);
    }
    status(node, &about, notes);
    Instance {
        place: node.place.clone(),
        model: word(node, &["spec", "deviceModelRef", "name"]).unwrap_or_default(),
        protocol: word(node, &["spec", "protocol", "protocolName"]).unwrap_or_default(),
        config: node.find(&["spec", "protocol", "configData"]).cloned().into_iter().collect(),
        kept: node.find(&["spec", "protocol", "configData"]).map(Node::entries).unwrap_or_default().to_vec(),
        description: word(node, &["metadata", "labels", "description"]),
        name,
        namespace,
        visitors,
        desired,
    }
}

fn alpha(node: &Node, name: String, namespace: String, notes: &mut Vec<Note>) -> Instance {
    let spec = node.get("spec");
    let about = format!("device {name}");
    let protocol = spec.and_then(|spec| spec.get("protocol"));
    let named = |entry: &&yaml::Entry| entry.key != "common";
    let own = protocol.and_then(|protocol| protocol.entries().iter().find(named));
    let mut config: Vec<Node> = own.map(|entry| entry.value.clone()).into_iter().collect();
    let common = protocol.and_then(|protocol| protocol.get("common"));
    let custom = own.filter(|entry| entry.key == CUSTOM);
    let mut kept = match custom {
        Some(custom) => custom.value.get("configData").map(Node::entries).unwrap_or_default().to_vec(),
        None => own.map(|entry| entry.value.entries()).unwrap_or_default().to_vec(),
    };
    kept.extend(protocol.and_then(|protocol| protocol.entry("common")).cloned());
    for part in ["com", "tcp"] {
        config.extend(common.and_then(|common| common.get(part)).cloned());
    }
    config.extend(common.cloned());
    let mut visitors = Vec::new();
    for item in spec.and_then(|spec| spec.get("propertyVisitors")).map(Node::items).unwrap_or_default() {
        let Some(property) = word(item, &["propertyName"]) else {
            note(notes, &item.place, format!("a visitor of {about} has no propertyName; left out"));
            continue;
        };
        let about = format!("{about}, property {property}");
        let known = ["propertyName", "collectCycle", "reportCycle"];
        let own =
            item.entries().iter().find(|entry| !known.contains(&entry.key.as_str()) && entry.key != "customizedValues");
        let own_key = own.map(|entry| entry.key.as_str());
        let also: Vec<&str> = known.iter().copied().chain(own_key).chain(["customizedValues"]).collect();
        let custom = own.filter(|entry| entry.key == CUSTOM);
        rest(item, &also, &about, notes);
        cycles(item, &about, notes);
        visitors.push(Visitor {
            place: item.place.clone(),
            config: match custom {
                Some(custom) => custom.value.get("configData").cloned(),
                None => own.map(|entry| entry.value.clone()),
            },
            protocol: custom.and_then(|custom| word(&custom.value, &["protocolName"])),
            values: item.entry("customizedValues").cloned(),
            cycle_ms: cycle(item, &about, notes),
            property,
        });
    }
    if let Some(spec) = spec {
        let known = ["deviceModelRef", "protocol", "propertyVisitors", "nodeSelector", "nodeName"];
        rest(spec, &known, &about, notes);
        if let Some(selector) = spec.entry("nodeSelector") {
            let text = format!("{about}: nodeSelector has no counterpart: this list is one gateway's");
            note(notes, &selector.key_place, text);
        }
    }
    let twins = node.find(&["status", "twins"]).map(Node::items).unwrap_or_default();
    // A twin without a visitor is read by a mapper that knows it by its name.
    for item in twins {
        let Some(property) = word(item, &["propertyName"]) else { continue };
        if !visitors.iter().any(|visitor| visitor.property == property) {
            let place = item.place.clone();
            visitors.push(Visitor { property, place, config: None, protocol: None, values: None, cycle_ms: 0 });
        }
    }
    let wished = |item: &Node| {
        let value = word(item, &["desired", "value"]).filter(|value| !value.is_empty())?;
        Some((word(item, &["propertyName"])?, value, item.place_of(&["desired"]).clone()))
    };
    Instance {
        place: node.place.clone(),
        model: word(node, &["spec", "deviceModelRef", "name"]).unwrap_or_default(),
        protocol: match own.filter(|entry| entry.key == CUSTOM) {
            Some(custom) => word(&custom.value, &["protocolName"]).unwrap_or_else(|| CUSTOM.to_owned()),
            None => own.map(|entry| entry.key.clone()).unwrap_or_default(),
        },
        config,
        kept,
        description: word(node, &["metadata", "labels", "description"]),
        desired: twins.iter().filter_map(wished).collect(),
        name,
        namespace,
        visitors,
    }
}

/// What a cluster writes by itself is no wish of anybody's; what is configured there has no counterpart.
fn status(node: &Node, about: &str, notes: &mut Vec<Note>) {
    for entry in node.get("status").map(Node::entries).unwrap_or_default() {
        if matches!(entry.key.as_str(), "reportToCloud" | "reportCycle") {
            note(
                notes,
                &entry.key_place,
                format!("{about}: status.{} has no counterpart: an upstream is sent what changes", entry.key),
            );
        }
    }
}

fn cycles(item: &Node, about: &str, notes: &mut Vec<Note>) {
    for (key, instead) in [
        ("reportCycle", "values are reported when they change"),
        ("reportToCloud", "what an upstream may know is said in upstream: properties"),
    ] {
        let Some(entry) = item.entry(key).filter(|entry| !matches!(entry.value.data, Data::Bool(true))) else {
            continue;
        };
        note(notes, &entry.key_place, format!("{about}: {key} has no counterpart: {instead}"));
    }
}

/// The collect cycle in milliseconds. The mapper framework counts milliseconds; older mappers, and many samples,
/// nanoseconds.
fn cycle(item: &Node, about: &str, notes: &mut Vec<Note>) -> u64 {
    let Some(entry) = item.entry("collectCycle") else { return 0 };
    let Data::Number { number, .. } = &entry.value.data else {
        note(
            notes,
            &entry.value.place,
            format!("{about}: collectCycle is no number; the property is read every second"),
        );
        return 0;
    };
    let cycle = number.as_f64().unwrap_or(0.0);
    if cycle >= NANOSECONDS_FROM {
        note(notes, &entry.key_place, format!("{about}: collectCycle {number} is taken for nanoseconds"));
        return millis(cycle / 1e6);
    }
    millis(cycle)
}

/// A day at most: what is longer is a mistake that would look like a property that is never read.
fn millis(cycle: f64) -> u64 {
    let bounded = cycle.clamp(0.0, 86_400_000.0);
    // Bounded above, so the cast loses nothing but decimals.
    bounded as u64
}

/// Notes every key that is not known.
pub(super) fn rest(node: &Node, known: &[&str], about: &str, notes: &mut Vec<Note>) {
    for entry in node.entries().iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        note(notes, &entry.key_place, format!("{about}: {} has no counterpart", entry.key));
    }
}

pub(super) fn note(notes: &mut Vec<Note>, place: &Place, text: String) {
    notes.push(Note { place: place.clone(), text });
}

/// A scalar as text.
pub(super) fn word(node: &Node, path: &[&str]) -> Option<String> {
    Some(match &node.find(path)?.data {
        Data::Text(text) => text.clone(),
        Data::Number { number, .. } => number.to_string(),
        Data::Bool(value) => value.to_string(),
        _ => return None,
    })
}
