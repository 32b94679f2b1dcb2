//! Home Assistant's MQTT discovery, device-based.
//!
//! In: devices with their profiles, Home Assistant's birth message, its commands. Out: one retained discovery message
//! for each device, made from its profile; towards a broker that is not the embedded one also the local topics under a
//! prefix. Must never offer a control that the twin would refuse by its profile, nor leave a device behind that is gone.
//!
//! With the embedded broker there is nothing else to do: state, availability and command topics are the local ones.
//!
//! Rules: a device is available while the gateway and the device are `online`; a bad reading is Home Assistant's
//! `unknown`; what cannot be read back shows what is wished of it; streamed readings are not said, since Home Assistant
//! has no way to take readings of the past.
//!
//! Source: Home Assistant documentation, "MQTT", sections "Discovery messages", "Device discovery payload" and
//! "Birth and last will messages" (release 2024.12).

mod component;
#[cfg(test)]
mod tests;
mod units;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde_json::{Map, json};

use super::{
    Answer, CloudWish, Dialect, Heard, Message, Publish, Reply, Saying, Session, Settle, Site, Streamed, text_of,
};
use crate::message::{DesiredSet, Get, Outcome};
use crate::name::DeviceId;
use crate::outbox::{Batch, Gap, Item};
use crate::profile::Profile;
use crate::topic::{GATEWAY_STATUS, TwinTopic};
use crate::value::{Now, Value};
use component::{Topics, component};

/// Discovery messages sent in one go, one go a second: a thousand devices are announced in twenty seconds, and no queue
/// between here and Home Assistant overflows meanwhile.
const ANNOUNCED_AT_ONCE: usize = 50;

/// The memory's key of a device begins with this.
const MEMORY: &str = "device/";

/// What was announced of a device: component → platform.
type Announced = BTreeMap<String, String>;

/// Home Assistant as the other party.
pub struct HomeAssistant {
    discovery: String,
    /// First levels at a broker that is not the embedded one.
    prefix: Option<String>,
    /// What Home Assistant has of each device; kept over restarts, so that what is gone can be taken back.
    announced: BTreeMap<String, Announced>,
    /// Devices announced on this connection, with the hash of the profile they were announced by.
    told: HashMap<DeviceId, String>,
    waiting: VecDeque<DeviceId>,
    remembered: BTreeMap<String, Option<String>>,
}

impl HomeAssistant {
    /// `prefix` is `None` with the embedded broker. `memory` is what [`Dialect::memory`] gave in earlier runs.
    pub fn new(discovery_prefix: &str, prefix: Option<&str>, memory: Vec<(String, String)>) -> Self {
        let announced = memory.into_iter().filter_map(|(key, text)| {
            let device = key.strip_prefix(MEMORY)?.to_owned();
            Some((device, serde_json::from_str(&text).unwrap_or_default()))
        });
        Self {
            discovery: discovery_prefix.to_owned(),
            prefix: prefix.map(str::to_owned),
            announced: announced.collect(),
            told: HashMap::new(),
            waiting: VecDeque::new(),
            remembered: BTreeMap::new(),
        }
    }

    /// The root of the twin topics as Home Assistant sees them.
    fn root(&self, site: &Site) -> String {
        self.prefix.as_ref().map_or_else(|| site.root.clone(), |prefix| format!("{prefix}/{}", site.root))
    }

    fn gateway_status(&self) -> String {
        self.prefix.as_ref().map_or_else(|| GATEWAY_STATUS.to_owned(), |prefix| format!("{prefix}/{GATEWAY_STATUS}"))
    }

    fn birth(&self) -> String {
        format!("{}/status", self.discovery)
    }

    fn config_topic(&self, object: &str) -> String {
        format!("{}/device/{object}/config", self.discovery)
    }

    /// A state message in a few words, for before the engine says the whole and for the will.
    fn state(&self, site: &Site, state: &str) -> Publish {
        let payload = json!({"gateway": site.gateway, "state": state});
        Publish {
            topic: self.gateway_status(),
            payload: payload.to_string().into(),
            qos: 1,
            retain: true,
            ..Publish::default()
        }
    }

    /// The gateway itself, to which devices refer.
    fn announce_gateway(&self, site: &Site) -> Publish {
        let (id, status) = (gateway_id(site), self.gateway_status());
        let entity = |name: &str, platform: &str, template: &str| {
            json!({"platform": platform, "name": name, "unique_id": format!("{id}_{}", name.to_lowercase()),
                "state_topic": status, "value_template": template, "entity_category": "diagnostic"})
        };
        let mut connection =
            entity("Connection", "binary_sensor", "{{ 'ON' if value_json.state == 'online' else 'OFF' }}");
        let mut devices = entity("Devices", "sensor", "{{ value_json.devices | default('None') }}");
        if let Some(connection) = connection.as_object_mut() {
            connection.insert("device_class".to_owned(), json!("connectivity"));
        }
        if let Some(devices) = devices.as_object_mut() {
            devices.insert("state_class".to_owned(), json!("measurement"));
        }
        let device = json!({"identifiers": [id], "name": site.gateway, "manufacturer": "Tidegate", "model": "Gateway",
            "sw_version": env!("CARGO_PKG_VERSION")});
        let payload = json!({"device": device, "origin": origin(),
            "components": {"connection": connection, "devices": devices}});
        self.kept(self.config_topic(&object_id(&id)), payload.to_string().into())
    }

    fn kept(&self, topic: String, payload: Vec<u8>) -> Publish {
        Publish { topic, payload, qos: 1, retain: true, ..Publish::default() }
    }

    /// Announces a device; what it had before and has no longer is taken back first.
    fn announce(&mut self, device: &DeviceId, profile: &Profile, site: &Site) -> Vec<Publish> {
        let root = format!("{}/{device}", self.root(site));
        let topics = Topics { device: &root, live: self.prefix.is_none() };
        let id = device_id(site, device);
        let mut components = Map::new();
        for property in &profile.properties {
            let Some(mut options) = component(profile, property, &topics) else { continue };
            options.insert("unique_id".to_owned(), json!(format!("{id}_{}", property.name)));
            components.insert(object_id(property.name.as_str()), Value::Object(options));
        }
        let topic = self.config_topic(&object_id(&id));
        if components.is_empty() {
            return self.withdraw(device.as_str(), site);
        }
        let platform = |options: &Value| options.get("platform").and_then(Value::as_str).unwrap_or_default().to_owned();
        let now: Announced = components.iter().map(|(key, options)| (key.clone(), platform(options))).collect();
        let before = self.announced.get(device.as_str());
        let gone: Map<String, Value> = before
            .into_iter()
            .flatten()
            .filter(|(key, was)| now.get(*key) != Some(*was))
            .map(|(key, was)| (key.clone(), json!({"platform": was})))
            .collect();
        let mut publishes = Vec::new();
        if !gone.is_empty() {
            let mut both = components.clone();
            both.extend(gone);
            publishes.push(self.kept(topic.clone(), self.device_payload(device, profile, both, &root, site)));
        }
        publishes.push(self.kept(topic, self.device_payload(device, profile, components, &root, site)));
        if before != Some(&now) {
            self.remembered.insert(format!("{MEMORY}{device}"), serde_json::to_string(&now).ok());
            self.announced.insert(device.to_string(), now);
        }
        self.told.insert(device.clone(), profile.hash.clone());
        publishes
    }

    fn device_payload(
        &self,
        device: &DeviceId,
        profile: &Profile,
        components: Map<String, Value>,
        root: &str,
        site: &Site,
    ) -> Vec<u8> {
        let online = "{{ 'online' if value_json.state == 'online' else 'offline' }}";
        let availability: Vec<Value> = [self.gateway_status(), format!("{root}/status")]
            .into_iter()
            .map(|topic| json!({"topic": topic, "value_template": online}))
            .collect();
        let mut about = json!({"identifiers": [device_id(site, device)], "name": device, "via_device": gateway_id(site),
            "model_id": profile.id});
        if let Some(about) = about.as_object_mut() {
            for (key, text) in [("manufacturer", &profile.meta.vendor), ("model", &profile.meta.model)] {
                if !text.is_empty() {
                    about.insert(key.to_owned(), json!(text));
                }
            }
        }
        json!({"device": about, "origin": origin(), "availability": availability, "availability_mode": "all",
            "components": components})
        .to_string()
        .into()
    }

    /// Takes a device back.
    fn withdraw(&mut self, device: &str, site: &Site) -> Vec<Publish> {
        let known = self.announced.remove(device).is_some();
        self.told.retain(|told, _| told.as_str() != device);
        if !known {
            return Vec::new();
        }
        self.remembered.insert(format!("{MEMORY}{device}"), None);
        let id = format!("{}_{device}", gateway_id(site));
        vec![self.kept(self.config_topic(&object_id(&id)), Vec::new())]
    }

    /// Announces what waits, as much as goes at once, and takes back what is gone.
    fn go_on(&mut self, site: &Site) -> Vec<Publish> {
        let gone: Vec<String> =
            self.announced.keys().filter(|device| !site.devices.contains_key(device.as_str())).cloned().collect();
        let mut publishes: Vec<Publish> = gone.iter().flat_map(|device| self.withdraw(device, site)).collect();
        let waiting: BTreeSet<DeviceId> = self.waiting.iter().cloned().collect();
        let new = |(device, profile): &(&DeviceId, &std::sync::Arc<Profile>)| {
            !waiting.contains(*device) && self.told.get(*device) != Some(&profile.hash)
        };
        let mut new: Vec<DeviceId> = site.devices.iter().filter(new).map(|(device, _)| device.clone()).collect();
        new.sort();
        self.waiting.extend(new);
        for _ in 0..ANNOUNCED_AT_ONCE {
            let Some(device) = self.waiting.pop_front() else { break };
            if let Some(profile) = site.devices.get(&device) {
                // A device without any component has nothing to announce; it is told all the same.
                self.told.insert(device.clone(), profile.hash.clone());
                let profile = profile.clone();
                publishes.extend(self.announce(&device, &profile, site));
            }
        }
        publishes
    }

    fn hear_twin(&self, topic: &TwinTopic, message: &Message, site: &Site) -> Heard {
        let device = topic.device();
        if !site.devices.contains_key(device) {
            return Heard::Senseless(format!("there is no device {device} here"));
        }
        if message.retain {
            return Heard::Senseless(format!(
                "a retained command on {}: it may be old, and is not obeyed",
                message.topic
            ));
        }
        let reply =
            Reply { topic: message.response_topic.clone(), correlation: message.correlation.clone(), note: None };
        let wish = |patch, id, if_version, ttl_s, by| {
            let device = device.clone();
            Heard::Wish(CloudWish { device, patch, id, if_version, ttl_s, at: None, by, reply: reply.clone() })
        };
        match topic {
            TwinTopic::DesiredPropertySet(_, property) => match json_or_null(&message.payload) {
                Some(value) => wish(BTreeMap::from([(property.to_string(), value)]), None, None, None, None),
                None => Heard::Senseless(format!("the payload of {} is no JSON value", message.topic)),
            },
            TwinTopic::DesiredSet(_) => match serde_json::from_slice::<DesiredSet>(&message.payload) {
                Ok(set) => wish(set.patch, set.id, set.if_version, set.ttl_s, set.by),
                Err(error) => Heard::Senseless(format!("the payload of {} is no patch: {error}", message.topic)),
            },
            TwinTopic::Get(_) => {
                let get: Get = serde_json::from_slice(&message.payload).unwrap_or_default();
                Heard::Ask { device: device.clone(), reply: Reply { note: get.id, ..reply } }
            }
            _ => Heard::Senseless(format!("{} is not for others to write", message.topic)),
        }
    }
}

/// An empty payload clears, like `null`.
fn json_or_null(payload: &[u8]) -> Option<Value> {
    if payload.is_empty() { Some(Value::Null) } else { serde_json::from_slice(payload).ok() }
}

fn origin() -> Value {
    json!({"name": "Tidegate", "sw_version": env!("CARGO_PKG_VERSION")})
}

fn gateway_id(site: &Site) -> String {
    format!("tidegate_{}", site.gateway)
}

fn device_id(site: &Site, device: &DeviceId) -> String {
    format!("{}_{device}", gateway_id(site))
}

/// An object id of the discovery topic may hold letters, digits, `_` and `-` only; a name with another character gets
/// a hash of the whole behind it, so that `a.b` and `a_b` stay two.
fn object_id(name: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if name.chars().all(fits) {
        return name.to_owned();
    }
    let plain: String = name.chars().map(|letter| if fits(letter) { letter } else { '_' }).collect();
    // FNV-1a, 32 bits.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{plain}-{hash:08x}")
}

impl Dialect for HomeAssistant {
    fn session(&self, site: &Site) -> Session {
        let will = self.prefix.is_some().then(|| self.state(site, "offline"));
        Session { will, ..Session::default() }
    }

    fn subscriptions(&self, site: &Site) -> Vec<(String, u8)> {
        let mut filters = vec![(self.birth(), 1)];
        if self.prefix.is_some() {
            let root = self.root(site);
            filters.extend(["desired/set", "desired/+/set", "get"].map(|end| (format!("{root}/+/{end}"), 1)));
        }
        filters
    }

    fn wants(&self, item: &Item) -> bool {
        self.prefix.is_some() && matches!(item, Item::Status | Item::Reported(_) | Item::Desired(_))
    }

    fn connected(&mut self, site: &Site, resumed: bool, _now: Now) -> Vec<Publish> {
        if !resumed {
            self.told.clear();
        }
        self.waiting.clear();
        let mut publishes = Vec::new();
        if self.prefix.is_some() {
            publishes.push(self.state(site, "online"));
        }
        publishes.push(self.announce_gateway(site));
        publishes.extend(self.go_on(site));
        publishes
    }

    fn say(&mut self, batch: &Batch, site: &Site, _now: Now) -> Saying {
        let root = self.root(site);
        let mut publishes = Vec::new();
        match &batch.device {
            None => {
                let payload = batch.gateway.as_deref().unwrap_or_default().to_vec();
                publishes.push(self.kept(self.gateway_status(), payload));
            }
            Some(device) => {
                for part in &batch.parts {
                    let topic = match &part.item {
                        Item::Status => TwinTopic::Status(device.clone()),
                        Item::Reported(property) => TwinTopic::Reported(device.clone(), property.clone()),
                        Item::Desired(property) => TwinTopic::Desired(device.clone(), property.clone()),
                        _ => continue,
                    };
                    let payload = part.content.as_deref().unwrap_or_default().to_vec();
                    publishes.push(self.kept(topic.under(&root), payload));
                }
            }
        }
        Saying { publishes, settle: Settle::Puback, unsayable: Vec::new() }
    }

    fn stream(&mut self, _readings: &[Streamed], _site: &Site, _now: Now) -> Vec<Publish> {
        Vec::new()
    }

    fn gap(&mut self, _gap: &Gap, _site: &Site, _now: Now) -> Vec<Publish> {
        Vec::new()
    }

    fn hear(&mut self, message: &Message, site: &Site, _now: Now) -> Vec<Heard> {
        if message.topic == self.birth() {
            // Home Assistant was away and may know nothing; `offline` says that it goes.
            if message.payload == b"online" && !message.retain {
                self.told.clear();
                let gateway = self.announce_gateway(site);
                return std::iter::once(gateway).chain(self.go_on(site)).map(Heard::Say).collect();
            }
            return Vec::new();
        }
        match TwinTopic::parse(&self.root(site), &message.topic) {
            Some(topic) if self.prefix.is_some() => vec![self.hear_twin(&topic, message, site)],
            _ => vec![Heard::Senseless(format!("nothing is known of the topic {}", text_of(message.topic.as_bytes())))],
        }
    }

    fn answered(&mut self, answer: &Answer, site: &Site, _now: Now) -> Vec<Publish> {
        if self.prefix.is_none() {
            return Vec::new();
        }
        let (version, code, errors) = match &answer.result {
            Ok(version) => (Some(*version), None, BTreeMap::new()),
            Err((code, errors)) => (None, Some(*code), errors.clone()),
        };
        let outcome = Outcome { id: answer.id.clone(), ok: answer.result.is_ok(), version, code, errors };
        let local = TwinTopic::Outcome(answer.device.clone()).under(&self.root(site));
        let topic = answer.reply.topic.clone().unwrap_or(local);
        let payload = serde_json::to_vec(&outcome).unwrap_or_default();
        vec![Publish { topic, payload, qos: 1, correlation: answer.reply.correlation.clone(), ..Publish::default() }]
    }

    fn document(&mut self, device: &DeviceId, document: &[u8], reply: &Reply, site: &Site, _now: Now) -> Vec<Publish> {
        let local = TwinTopic::Outcome(device.clone()).under(&self.root(site));
        let topic = reply.topic.clone().unwrap_or(local);
        vec![Publish {
            topic,
            payload: document.to_vec(),
            qos: 1,
            correlation: reply.correlation.clone(),
            ..Publish::default()
        }]
    }

    fn tick(&mut self, site: &Site, _now: Now) -> Vec<Publish> {
        self.go_on(site)
    }

    fn memory(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.remembered).into_iter().collect()
    }
}
