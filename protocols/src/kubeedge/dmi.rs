//! KubeEdge's device mapper interface (DMI): what a mapper is told of its devices, and what its reports mean.
//!
//! In: an installation's external devices, what is desired of them, and texts that a mapper reported. Out: models and
//! devices in KubeEdge's terms, readings, and whether a wish was fulfilled. Must never tell a mapper of a device of
//! another protocol, and never take what a mapper believes to be desired for a wish.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Map;

use super::topic::KubeId;
use super::{kind_name, to_text, to_value};
use crate::config::{Config, Wire};
use crate::message::{DesiredOut, DesiredState, ReadingIn};
use crate::name::{DeviceId, PropertyName};
use crate::profile::{Access, Confirm, External, Kind, Profile, Property, WriteMode};
use crate::value::{Quality, Value, Why, same};

/// First levels of the topics where registered mappers are kept over a restart; nobody else may write there.
pub const KEPT: &str = "gateway/dmi/";

/// The longest name of a mapper's protocol, in bytes.
pub const PROTOCOL_BYTES: usize = 64;

/// Reports that show another value than the desired one, of which the mapper knows, before the wish has failed.
pub const MISSES: u32 = 3;

/// The namespace of devices on an installation whose ids have one level.
const NAMESPACE: &str = "default";

/// Name and namespace: what tells devices and models apart.
pub type Key = (String, String);

/// A device of a mapper elsewhere.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// Its id here.
    pub id: DeviceId,
    /// Its namespace and name there.
    pub key: Key,
    /// What is spoken to it, in lower case.
    pub protocol: String,
    /// The protocol as the configuration writes it.
    pub named: String,
    /// The name of its model.
    pub model: String,
    /// How it is reached, in its mapper's words.
    pub config: BTreeMap<String, Word>,
    /// What it is.
    pub profile: Arc<Profile>,
}

/// A model: what devices of a kind have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its properties.
    pub properties: Vec<ModelProperty>,
}

/// A property of a [`Model`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelProperty {
    /// Its name.
    pub name: String,
    /// A few words for people.
    pub description: String,
    /// KubeEdge's word for its type.
    pub kind: &'static str,
    /// Whether it is written.
    pub writable: bool,
    /// The lowest value, as text; empty without one.
    pub minimum: String,
    /// The highest value, as text; empty without one.
    pub maximum: String,
    /// Its unit; empty without one.
    pub unit: String,
}

/// A word of a mapper's own.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// A text. Lists and maps, and numbers beyond 64 bits with a sign, are their JSON text: the interface has no such words.
    Text(String),
    /// A whole number of 32 bits.
    Int32(i32),
    /// A whole number of 64 bits.
    Int64(i64),
    /// A number with decimals; the interface has 32 bits for it.
    Float(f32),
    /// True or false.
    Bool(bool),
}

/// A property of a device, as its mapper is told.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceProperty {
    /// Its name.
    pub name: PropertyName,
    /// What is desired, as text; empty when nothing is.
    pub desired: String,
    /// When it was desired, in milliseconds.
    pub desired_at: Option<i64>,
    /// KubeEdge's word for the type of a twin.
    pub kind: &'static str,
    /// Where it lies, in the mapper's words.
    pub visitor: BTreeMap<String, Word>,
    /// From one reading to the next, in milliseconds.
    pub cycle_ms: i64,
}

/// All devices of mappers elsewhere, and their models.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// The devices.
    pub devices: BTreeMap<DeviceId, Mapped>,
    /// The models, by namespace and name.
    pub models: BTreeMap<Key, Model>,
}

impl Served {
    /// The external devices of an installation.
    pub fn of(config: &Config) -> Self {
        let home = config.kubeedge.as_ref().map(|settings| settings.namespace.as_str()).unwrap_or_default();
        let home = if home.is_empty() { NAMESPACE } else { home };
        let mut served = Self::default();
        for device in &config.devices {
            let Some(Wire::External(wire)) = config.connections.get(&device.connection).map(|wire| &wire.wire) else {
                continue;
            };
            let KubeId { namespace, name } = KubeId::of(&device.id, Some(home));
            let namespace = namespace.unwrap_or_else(|| home.to_owned());
            let profile = Arc::clone(&device.profile);
            let words = profile.external.as_ref().map(|external: &External| external.config_over(&wire.config));
            let model = served.model(&namespace, &profile);
            let mapped = Mapped {
                id: device.id.clone(),
                key: (namespace, name),
                protocol: wire.protocol.to_ascii_lowercase(),
                named: wire.protocol.clone(),
                model,
                config: words_of(&words.unwrap_or_default()),
                profile,
            };
            served.devices.insert(device.id.clone(), mapped);
        }
        served
    }

    /// The name of a profile's model. Two devices of one profile may differ by their overrides; then the second model is
    /// called after its number.
    fn model(&mut self, namespace: &str, profile: &Profile) -> String {
        let model = Model { properties: profile.properties.iter().map(model_property).collect() };
        let mut name = profile.id.clone();
        let mut number = 1;
        loop {
            let there = self.models.entry((namespace.to_owned(), name.clone())).or_insert_with(|| model.clone());
            if *there == model {
                return name;
            }
            number += 1;
            name = format!("{}-{number}", profile.id);
        }
    }

    /// The device that a mapper means.
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Mapped> {
        let namespace = if namespace.is_empty() { NAMESPACE } else { namespace };
        self.devices.values().find(|device| device.key.0 == namespace && device.key.1 == name)
    }
}

impl Mapped {
    /// Its properties with what is desired of them.
    pub fn properties(&self, wishes: &BTreeMap<PropertyName, DesiredOut>) -> Vec<DeviceProperty> {
        let own = self.profile.properties.iter().filter(|property| property.source.external().is_some());
        own.map(|property| {
            let wish = wishes.get(&property.name).filter(|wish| is_told(property, wish));
            let interval = self.profile.groups.get(property.group).map(|group| group.interval).unwrap_or_default();
            let visitor = property.source.external().and_then(Value::as_object).cloned().unwrap_or_default();
            DeviceProperty {
                name: property.name.clone(),
                desired: wish.map(|wish| to_text(&wish.value)).unwrap_or_default(),
                desired_at: wish.map(|wish| wish.at.as_ms()),
                kind: kind_name(property.kind),
                visitor: words_of(&visitor),
                cycle_ms: i64::try_from(interval.as_millis()).unwrap_or(i64::MAX),
            }
        })
        .collect()
    }

    /// The property of that name, if its mapper reads it.
    pub fn property(&self, name: &str) -> Option<&Property> {
        let index = self.profile.find(name)?;
        self.profile.properties.get(index).filter(|property| property.source.external().is_some())
    }
}

/// A mapper writes what it is told whenever it starts a device, and an empty text where nothing is desired. So what was
/// desired stays, however it ended, until it is taken back or its time is over; a pulse goes when it was given.
fn is_told(property: &Property, wish: &DesiredOut) -> bool {
    match wish.state {
        DesiredState::Expired => false,
        DesiredState::Applied => property.write.mode != WriteMode::Pulse,
        _ => true,
    }
}

fn model_property(property: &Property) -> ModelProperty {
    let range = property.range.as_ref();
    let text =
        |own: Option<f64>, other: Option<f64>| own.or(other).map(|number| number.to_string()).unwrap_or_default();
    ModelProperty {
        name: property.name.to_string(),
        description: property.title.clone().unwrap_or_default(),
        kind: match property.kind {
            Kind::Bool => "BOOLEAN",
            Kind::Int => "INT",
            Kind::Number => "DOUBLE",
            Kind::Object => "STREAM",
            _ => "STRING",
        },
        writable: property.access != Access::Read,
        minimum: text(property.write.min, range.and_then(|range| range.min)),
        maximum: text(property.write.max, range.and_then(|range| range.max)),
        unit: property.unit.clone().unwrap_or_default(),
    }
}

fn words_of(object: &Map<String, Value>) -> BTreeMap<String, Word> {
    object.iter().filter_map(|(key, value)| Some((key.clone(), word_of(value)?))).collect()
}

/// A value in the interface's terms; none for `null`.
fn word_of(value: &Value) -> Option<Word> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Word::Bool(*value),
        Value::String(text) => Word::Text(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => i32::try_from(whole).map_or(Word::Int64(whole), Word::Int32),
            // The interface has no more digits than these.
            (None, Some(float)) if !number.is_u64() => Word::Float(float as f32),
            _ => Word::Text(number.to_string()),
        },
        Value::Array(_) | Value::Object(_) => Word::Text(value.to_string()),
    })
}

/// What a reported text means. None for an empty text where that is no value: then nothing was read.
pub fn reading(property: &Property, text: &str) -> Option<ReadingIn> {
    let is_text = matches!(property.kind, Kind::String);
    if text.is_empty() && !is_text {
        return None;
    }
    let bad = |why| ReadingIn { value: Value::Null, quality: Quality::Bad(why), at: None };
    Some(match to_value(property.kind, text) {
        Ok(Value::Null) => bad(Why::Nan),
        Ok(value) => ReadingIn { value, quality: Quality::Good, at: None },
        Err(_) => bad(Why::Decode),
    })
}

/// How a wish stands after a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The device has it.
    Applied,
    /// The mapper knows of it, and the device shows something else.
    Missed,
    /// The mapper does not know of it yet, or nothing is pending.
    Open,
}

/// Looks at a wish in the light of a report: what the device shows, and what its mapper takes for desired.
pub fn judge(property: &Property, wish: &DesiredOut, shown: &Value, observed: Option<&str>) -> Verdict {
    if wish.state != DesiredState::Pending {
        return Verdict::Open;
    }
    let near = match (property.write.tolerance, shown.as_f64(), wish.value.as_f64()) {
        (Some(tolerance), Some(shown), Some(wished)) => (shown - wished).abs() <= tolerance,
        _ => false,
    };
    if near || same(shown, &wish.value) {
        return Verdict::Applied;
    }
    let knows = observed.is_some_and(|text| to_value(property.kind, text).is_ok_and(|value| same(&value, &wish.value)));
    if knows { Verdict::Missed } else { Verdict::Open }
}

/// Whether the mapper's word that it has taken a wish is all there will ever be.
pub fn is_taken_on_trust(property: &Property) -> bool {
    property.access == Access::Write || matches!(property.write.confirm, Confirm::Ack | Confirm::None)
}

/// Whether a mapper may call its protocol so: it names a topic here.
pub fn is_protocol(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=PROTOCOL_BYTES).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests;
