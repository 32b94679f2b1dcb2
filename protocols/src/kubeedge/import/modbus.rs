//! KubeEdge's Modbus words as a profile's.

use std::fmt::Write as _;

use super::Note;
use super::read::{Instance, ModelProperty, Visitor, note, rest, word};
use super::write::{number, quote};
use crate::yaml::{Data, Node};

/// A property of a Modbus profile, without its group.
pub(super) struct Mapped {
    pub(super) kind: &'static str,
    pub(super) writable: bool,
    /// `scale: …, range: …, from: …`: the rest of the property as YAML.
    pub(super) rest: String,
}

/// Where a Modbus device hangs.
pub(super) struct Wire {
    /// The value of `modbus:` in a connection.
    pub(super) yaml: String,
    /// What the wire is called after: the address or the port.
    pub(super) name: String,
    pub(super) unit: i64,
}

/// The first of these keys that has a scalar, in any of the parts.
fn find(parts: &[Node], keys: &[&str]) -> Option<String> {
    parts.iter().find_map(|part| {
        let entry = part.entries().iter().find(|entry| keys.iter().any(|key| key.eq_ignore_ascii_case(&entry.key)))?;
        word(&entry.value, &[])
    })
}

/// The wire of a device, from what its protocol says.
pub(super) fn wire(device: &Instance, notes: &mut Vec<Note>) -> Option<Wire> {
    let about = format!("device {}", device.name);
    let parts = &device.config;
    let unit = find(parts, &["slaveID"]).and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        note(notes, &device.place, format!("{about}: no slaveID; unit 1 is taken"));
        1
    });
    for part in parts {
        let known = ["slaveID", "ip", "port", "serialPort", "baudRate", "dataBits", "parity", "stopBits", "com", "tcp"];
        let unknown: Vec<_> =
            part.entries().iter().filter(|entry| !known.iter().any(|it| it.eq_ignore_ascii_case(&entry.key))).collect();
        for entry in unknown {
            note(notes, &entry.key_place, format!("{about}: {} has no counterpart", entry.key));
        }
    }
    if let Some(port) = find(parts, &["serialPort"]) {
        let mut line = format!("port: {}", quote(&port));
        for (keys, ours) in
            [(["baudRate"], "baud"), (["dataBits"], "data"), (["parity"], "parity"), (["stopBits"], "stop")]
        {
            if let Some(value) = find(parts, &keys) {
                let _ = write!(line, ", {ours}: {}", value.to_ascii_lowercase());
            }
        }
        let name = port.rsplit('/').next().unwrap_or("serial").to_owned();
        return Some(Wire { yaml: format!("{{serial: {{{line}}}}}"), name, unit });
    }
    let Some(ip) = find(parts, &["ip"]) else {
        note(notes, &device.place, format!("{about}: neither ip nor serialPort is named; give its connection by hand"));
        return None;
    };
    let port = find(parts, &["port"]).unwrap_or_else(|| "502".to_owned());
    let name = format!("tcp-{}-{port}", ip.replace(':', "-"));
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip };
    Some(Wire { yaml: format!("{{tcp: {}}}", quote(&format!("{host}:{port}"))), name, unit })
}

/// One property, from its visitor and its model.
pub(super) fn property(about: &str, visitor: &Visitor, model: &ModelProperty, notes: &mut Vec<Note>) -> Option<Mapped> {
    let Some(config) = &visitor.config else {
        note(notes, &visitor.place, format!("{about}: no visitor says where it is; left out"));
        return None;
    };
    let known = ["register", "offset", "limit", "scale", "isSwap", "isRegisterSwap", "dataType"];
    rest(config, &known, about, notes);
    let text = |key: &str| word(config, &[key]);
    let table = match text("register").as_deref() {
        Some("CoilRegister") => "coil",
        Some("DiscreteInputRegister") => "discrete",
        Some("InputRegister") => "input",
        Some("HoldingRegister") => "holding",
        other => {
            let other = other.unwrap_or("nothing");
            note(notes, config.place_of(&["register"]), format!("{about}: register {other} is not known; left out"));
            return None;
        }
    };
    let Some(address) = text("offset").and_then(|text| text.parse::<u16>().ok()) else {
        note(notes, config.place_of(&["offset"]), format!("{about}: offset is no address from 0 to 65535; left out"));
        return None;
    };
    let limit = text("limit").and_then(|text| text.parse::<u16>().ok()).filter(|limit| *limit > 0).unwrap_or(1);
    let declared = text("dataType").map_or_else(|| model.kind.clone(), |it| it.to_ascii_lowercase());
    let bits = matches!(table, "coil" | "discrete");
    let writable = model.writable && matches!(table, "coil" | "holding");
    if model.writable && !writable {
        note(
            notes,
            config.place_of(&["register"]),
            format!("{about}: ReadWrite, but a {table} cannot be written; read only"),
        );
    }
    if bits {
        let (kind, count) = if limit == 1 { ("bool", String::new()) } else { ("array", format!(", count: {limit}")) };
        let rest = format!("from: {{modbus: {{table: {table}, address: {address}{count}}}}}");
        return Some(Mapped { kind, writable, rest });
    }
    let negative = model.minimum.as_deref().is_some_and(|text| text.starts_with('-'));
    let (kind, wire) = wire_type(about, &declared, limit, negative, config, notes)?;
    let flag = |key: &str| matches!(config.get(key).map(|node| &node.data), Some(Data::Bool(true)));
    let order = match (flag("isRegisterSwap"), flag("isSwap")) {
        (false, false) => "",
        (true, false) => ", order: CDAB",
        (false, true) => ", order: BADC",
        (true, true) => ", order: DCBA",
    };
    let order = if matches!(wire.as_str(), "string" | "bytes") { "" } else { order };
    let length = if matches!(wire.as_str(), "string" | "bytes") { format!(", length: {limit}") } else { String::new() };
    let mut rest = String::new();
    let scale = text("scale").and_then(|text| text.parse::<f64>().ok());
    let mut kind = kind;
    match scale {
        _ if matches!(kind, "string" | "bytes" | "bool") => {}
        Some(scale) if scale != 0.0 && scale != 1.0 => {
            let _ = write!(rest, "scale: {}, ", number(scale));
            if scale.fract() != 0.0 && kind == "int" {
                kind = "number";
            }
        }
        Some(1.0) => {}
        _ => note(
            notes,
            config.place_of(&["scale"]),
            format!("{about}: scale is missing or 0, which makes every number 0 there; 1 is taken"),
        ),
    }
    rest.push_str(&limits(about, model, writable, visitor, notes));
    let _ = write!(rest, "from: {{modbus: {{table: {table}, address: {address}, type: {wire}{order}{length}}}}}");
    Some(Mapped { kind, writable, rest })
}

/// The types of profile and wire for a declared type and a number of registers.
fn wire_type(
    about: &str,
    declared: &str,
    limit: u16,
    negative: bool,
    config: &Node,
    notes: &mut Vec<Note>,
) -> Option<(&'static str, String)> {
    let whole = |signed: bool| match limit {
        1 | 2 | 4 => Some(format!("{}int{}", if signed { "" } else { "u" }, limit * 16)),
        _ => None,
    };
    let place = config.place_of(&["limit"]);
    let (kind, wire) = match declared {
        "int" | "integer" => ("int", whole(negative)),
        "float" | "double" => match limit {
            2 => ("number", Some("float32".to_owned())),
            4 => ("number", Some("float64".to_owned())),
            _ => {
                note(
                    notes,
                    place,
                    format!(
                        "{about}: a {declared} of {limit} registers is no IEEE 754 number; it is read as a whole number"
                    ),
                );
                ("number", whole(negative))
            }
        },
        "boolean" | "bool" => return Some(("bool", "bit, bits: 0".to_owned())),
        "string" => ("string", Some("string".to_owned())),
        "bytes" => ("bytes", Some("bytes".to_owned())),
        other => {
            note(notes, place, format!("{about}: type {other} has no counterpart; left out"));
            return None;
        }
    };
    if negative && matches!(kind, "int") {
        note(
            notes,
            place,
            format!("{about}: its minimum is negative, so it is read with a sign; KubeEdge's mapper reads none"),
        );
    }
    let Some(wire) = wire else {
        note(notes, place, format!("{about}: {limit} registers hold no {declared}; left out"));
        return None;
    };
    Some((kind, wire))
}

/// Minimum and maximum: bounds of writes where it can be written, else what can be believed.
pub(super) fn limits(
    about: &str,
    model: &ModelProperty,
    writable: bool,
    visitor: &Visitor,
    notes: &mut Vec<Note>,
) -> String {
    let mut bounds = Vec::new();
    for (name, text) in [("min", &model.minimum), ("max", &model.maximum)] {
        let Some(text) = text else { continue };
        match text.parse::<f64>() {
            Ok(bound) => bounds.push(format!("{name}: {}", number(bound))),
            Err(_) => {
                note(notes, &visitor.place, format!("{about}: the model's {name}imum {text} is no number; left out"))
            }
        }
    }
    match (bounds.is_empty(), writable) {
        (true, _) => String::new(),
        (false, true) => format!("write: {{{}}}, ", bounds.join(", ")),
        (false, false) => format!("range: {{{}, else: keep}}, ", bounds.join(", ")),
    }
}
