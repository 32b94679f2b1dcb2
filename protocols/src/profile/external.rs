//! Devices whose mapper is no part of this program.
//!
//! In: the section `external` of a profile, and properties that come `from: {external: …}`. Out: an [`External`], and
//! complaints about what only a mapper of ours could do. Must never look into what is the other mapper's own.

use super::build::Builder;
use super::*;
use crate::yaml::Node;

/// Sections that mappers of ours carry out.
const OURS: [&str; 5] = ["init", "probe", "commands", "computed", "alarms"];

/// Keys of a property that say what becomes of a raw value; here the mapper says the value itself.
const RAW: [&str; 4] = ["scale", "offset", "precision", "invalid"];

/// What a mapper in another process has to know of a device model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct External {
    /// What is spoken to the device, in the mapper's own word; `None` when the connection alone says it.
    pub protocol: Option<String>,
    /// A JSON object in the mapper's own words. What the connection says comes first.
    pub config: Value,
}

impl External {
    /// This and what the connection says, key by key.
    pub fn config_over(&self, connection: &Value) -> serde_json::Map<String, Value> {
        let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let mut all = fields(&self.config);
        all.extend(fields(connection));
        all
    }
}

impl Builder<'_> {
    /// The device of a mapper in another process, if it is one.
    pub(super) fn external_device(&mut self) -> Option<External> {
        let visits = |entry: &&crate::yaml::Entry| entry.value.find(&["from", "external"]).is_some();
        let all = self.tree.get("properties").map(Node::entries).unwrap_or_default();
        let raw = self.raw.external.clone();
        if raw.is_none() && !all.iter().any(|entry| visits(&entry)) {
            return None;
        }
        for entry in all {
            let name = entry.key.as_str();
            if entry.value.get("from").is_some() && !visits(&entry) {
                let hint = "write from: {external: {…}} for every property, or a profile of its own";
                let message = format!("\"{name}\" is read by this program, other properties by a mapper of their own");
                self.complain(&["properties", name, "from"], message, hint);
            }
            for key in RAW.iter().filter(|key| entry.value.get(key).is_some()) {
                let message = format!("{key} is for raw values, and the mapper of \"{name}\" says the value itself");
                self.complain(&["properties", name, key], message, format!("leave {key} out"));
            }
        }
        for key in OURS.iter().filter(|key| self.tree.get(key).is_some()) {
            let message = format!("{key} is carried out by mappers of this program, and this device has another");
            self.complain(&[key], message, format!("leave {key} out"));
        }
        let object = || Value::Object(serde_json::Map::new());
        Some(match raw {
            Some(raw) => External { protocol: raw.protocol, config: raw.config.unwrap_or_else(object) },
            None => External { protocol: None, config: object() },
        })
    }
}
