//! ThingsBoard's gateway API.
//!
//! In: batches of twin state, streamed readings, shared attributes and remote calls. Out: client attributes, telemetry,
//! answers. Must never send a `null` (the server closes the connection on one), nor two devices in one message (a server
//! may then acknowledge it twice).
//!
//! How a twin stands in ThingsBoard:
//!
//! * Client attribute `P` is the reported value; while a reading is bad the last good one stays, and `P:quality` says so.
//!   `P:desired` is how a wish stands, as JSON. `device:state` and `device:reason` are the device's status. A `:` is in no
//!   property's name, so these never meet. Client attributes cannot be deleted over MQTT: one that is gone has the quality
//!   `gone`.
//! * Shared attribute `P` is a wish; deleting it clears the wish.
//! * A remote call whose method is the name of a property wishes its parameter; `set` wishes an object of properties, `get`
//!   gives the document. The answer comes when the wish was accepted or refused.
//! * Streamed readings are telemetry of their own time.
//!
//! Devices are connected in every session, since the server forgets them with it, and every shared attribute is asked for
//! by its name: there is no other way to hear of what changed meanwhile. One key is asked for in one request, as old servers
//! take no more.
//!
//! Source: ThingsBoard documentation, "MQTT Gateway API Reference"; server source `AbstractGatewaySessionHandler`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::{Map, json};

use super::base::{Base, NOT_NOW, class_word, shown, word};
use super::{Answer, CloudWish, Dialect, Heard, Message, Publish, Reply, Saying, Session, Settle, Site, text_of};
use crate::message::{DesiredOut, DeviceStatus, ReportedOut};
use crate::name::DeviceId;
use crate::outbox::{Batch, Gap, Item, Part, Streamed};
use crate::value::{Now, Value};

/// Requests for attributes under way; the server answers them one by one.
const REQUESTS: usize = 50;

/// Devices connected in one go, one go a second.
const CONNECTED_AT_ONCE: usize = 100;

/// After this time a request for an attribute is asked again; in milliseconds.
const PATIENCE_MS: u64 = 20_000;

/// Bytes of one telemetry message; servers take 64 KiB, older gateways' settings 8.
const TELEMETRY_BYTES: usize = 8 << 10;

/// The memory's key of a device begins with this.
const MEMORY: &str = "device/";

/// ThingsBoard as the other party.
pub struct ThingsBoard {
    device_type: Option<String>,
    /// Wishes by device; kept over restarts. Version and stamps are not used.
    bases: HashMap<DeviceId, Base>,
    /// Devices connected in this session, with the hash of their profile.
    connected: HashMap<DeviceId, String>,
    /// Attributes to be asked for.
    waiting: VecDeque<(DeviceId, String)>,
    underway: HashMap<u64, (DeviceId, String, u64)>,
    request: u64,
    remembered: BTreeMap<String, Option<String>>,
}

impl ThingsBoard {
    /// `device_type` is the device profile of all devices; the profile's id when absent. `memory` is what
    /// [`Dialect::memory`] gave in earlier runs.
    pub fn new(device_type: Option<&str>, memory: Vec<(String, String)>) -> Self {
        let bases = memory.into_iter().filter_map(|(key, text)| {
            let device: DeviceId = key.strip_prefix(MEMORY)?.parse().ok()?;
            Some((device, Base::from_text(&text)))
        });
        Self {
            device_type: device_type.map(str::to_owned),
            bases: bases.collect(),
            connected: HashMap::new(),
            waiting: VecDeque::new(),
            underway: HashMap::new(),
            request: 0,
            remembered: BTreeMap::new(),
        }
    }

    fn remember(&mut self, device: &DeviceId) {
        if let Some(base) = self.bases.get(device) {
            self.remembered.insert(format!("{MEMORY}{device}"), base.to_text());
        }
    }

    /// Connects what is new, disconnects what is gone, asks for what waits.
    fn go_on(&mut self, site: &Site, now: Now) -> Vec<Publish> {
        let mut publishes = Vec::new();
        let gone: HashSet<DeviceId> = self
            .connected
            .keys()
            .chain(self.bases.keys())
            .filter(|device| !site.devices.contains_key(*device))
            .cloned()
            .collect();
        for device in gone {
            if self.connected.remove(&device).is_some() {
                publishes.push(publish("v1/gateway/disconnect", &json!({"device": device})));
            }
            if self.bases.remove(&device).is_some() {
                self.remembered.insert(format!("{MEMORY}{device}"), None);
            }
        }
        let mut new: Vec<DeviceId> = site
            .devices
            .iter()
            .filter(|(device, profile)| self.connected.get(*device) != Some(&profile.hash))
            .map(|(device, _)| device.clone())
            .collect();
        new.sort();
        for device in new.into_iter().take(CONNECTED_AT_ONCE) {
            let Some(profile) = site.devices.get(&device) else { continue };
            let kind = self.device_type.as_ref().unwrap_or(&profile.id);
            publishes.push(publish("v1/gateway/connect", &json!({"device": device, "type": kind})));
            self.connected.insert(device.clone(), profile.hash.clone());
            let writable = profile.properties.iter().filter(|property| property.access.writes());
            self.waiting.extend(writable.map(|property| (device.clone(), property.name.to_string())));
        }
        while self.underway.len() < REQUESTS {
            let Some((device, key)) = self.waiting.pop_front() else { break };
            self.request += 1;
            let request = json!({"id": self.request, "device": device, "client": false, "key": key});
            publishes.push(publish("v1/gateway/attributes/request", &request));
            self.underway.insert(self.request, (device, key, now.tick + PATIENCE_MS));
        }
        publishes
    }

    fn wish(device: &DeviceId, name: &str, value: Value) -> Heard {
        Heard::Wish(CloudWish::one(device, name, value, None, format!("shared:{name}")))
    }

    /// Takes in a shared attribute. An update is a wish by itself; an answer only where it differs from what was heard before.
    fn on_shared(&mut self, device: &DeviceId, name: &str, value: Option<&Value>, update: bool) -> Option<Heard> {
        let base = self.bases.entry(device.clone()).or_default();
        if update && let Some(leaf) = base.leaves.get_mut(name) {
            leaf.local = None;
            leaf.done = false;
        }
        let value = value.filter(|value| !value.is_null());
        let value = base.hear(name, value, 0)?;
        self.remember(device);
        Some(Self::wish(device, name, value))
    }

    fn on_attributes(&mut self, message: &Map<String, Value>, site: &Site) -> Vec<Heard> {
        let Some(device) = known(message, site) else { return vec![stranger(message)] };
        let Some(data) = message.get("data").and_then(Value::as_object) else {
            return vec![Heard::Senseless("shared attributes without \"data\"".to_owned())];
        };
        let mut heard = Vec::new();
        for (key, value) in data {
            match value {
                Value::Array(keys) if key == "deleted" => {
                    for name in keys.iter().filter_map(Value::as_str) {
                        self.ask_anew(&device, name);
                        heard.extend(self.on_shared(&device, name, None, true));
                    }
                }
                _ => {
                    self.ask_anew(&device, key);
                    heard.extend(self.on_shared(&device, key, Some(value), true));
                }
            }
        }
        heard
    }

    /// An answer that is still to come may be older than the update that just came, and nothing in it would tell: it is not
    /// waited for any longer, and asked for once more.
    fn ask_anew(&mut self, device: &DeviceId, key: &str) {
        let of_it = |(_, (of, name, _)): &(&u64, &(DeviceId, String, u64))| of == device && name == key;
        let asked: Vec<u64> = self.underway.iter().filter(of_it).map(|(id, _)| *id).collect();
        for id in asked {
            self.underway.remove(&id);
            self.waiting.push_back((device.clone(), key.to_owned()));
        }
    }

    fn on_response(&mut self, message: &Map<String, Value>, site: &Site) -> Vec<Heard> {
        let id = message.get("id").and_then(Value::as_u64).unwrap_or(0);
        let Some((device, key, _)) = self.underway.remove(&id) else { return Vec::new() };
        if !site.devices.contains_key(&device) || known(message, site).is_some_and(|said| said != device) {
            return vec![stranger(message)];
        }
        let values = message.get("values").and_then(Value::as_object).and_then(|values| values.get(&key));
        let value = message.get("value").or(values).cloned();
        self.on_shared(&device, &key, value.as_ref(), false).into_iter().collect()
    }

    fn on_call(&mut self, message: &Map<String, Value>, site: &Site) -> Heard {
        let data = message.get("data").and_then(Value::as_object);
        let id = data.and_then(|data| data.get("id")).and_then(Value::as_i64);
        let (Some(data), Some(id)) = (data, id) else {
            return Heard::Senseless("a remote call without an id".to_owned());
        };
        let Some(device) = known(message, site) else { return stranger(message) };
        let no = |why: String| Heard::Say(answer(&device, id, &json!({"success": false, "error": why})));
        let method = data.get("method").and_then(Value::as_str).unwrap_or_default();
        let params = data.get("params").cloned().unwrap_or_default();
        let reply = Reply { note: Some(format!("call:{id}")), ..Reply::default() };
        let profile = site.devices.get(&device);
        let property = profile.and_then(|profile| profile.properties.get(profile.find(method)?));
        let patch = match (method, property, params) {
            (name, Some(property), params) if property.access.writes() => BTreeMap::from([(name.to_owned(), params)]),
            (name, Some(_), _) => return no(format!("{name} is read-only")),
            ("get", None, _) => return Heard::Ask { device, reply },
            ("set", None, Value::Object(patch)) => patch.into_iter().collect(),
            ("set", None, _) => return no("set takes an object of properties".to_owned()),
            (name, None, _) => {
                return no(format!("there is no method {}; name a property, set or get", text_of(name.as_bytes())));
            }
        };
        Heard::Wish(CloudWish { device, patch, id: None, if_version: None, ttl_s: None, at: None, by: None, reply })
    }

    /// One part of a batch as client attributes.
    fn attributes(part: &Part) -> Result<Map<String, Value>, String> {
        let content = part.content.as_deref();
        let unreadable = |error: serde_json::Error| error.to_string();
        let mut members = Map::new();
        match (&part.item, content) {
            (Item::Reported(property), Some(content)) => {
                let reported: ReportedOut = serde_json::from_slice(content).map_err(unreadable)?;
                if let Some(value) = shown(&reported) {
                    members.insert(property.to_string(), sayable(value));
                }
                members.insert(format!("{property}:quality"), json!(reported.quality));
            }
            (Item::Reported(property), None) => {
                members.insert(format!("{property}:quality"), json!("gone"));
            }
            (Item::Desired(property), Some(content)) => {
                let desired: DesiredOut = serde_json::from_slice(content).map_err(unreadable)?;
                let mut said = json!({"value": desired.value, "state": word(desired.state), "version": desired.version,
                    "at": desired.at, "by": desired.by, "reason": desired.reason});
                strip_nulls(&mut said);
                members.insert(format!("{property}:desired"), said);
            }
            (Item::Desired(property), None) => {
                members.insert(format!("{property}:desired"), json!({"state": "cleared"}));
            }
            (Item::Status, Some(content)) => {
                let status: DeviceStatus = serde_json::from_slice(content).map_err(unreadable)?;
                members.insert("device:state".to_owned(), json!(status.state));
                members.insert("device:reason".to_owned(), json!(status.reason.unwrap_or_default()));
            }
            (Item::Status, None) => {
                members.insert("device:state".to_owned(), json!("unknown"));
            }
            (Item::Conflict, content) => {
                let conflict: Value =
                    content.and_then(|content| serde_json::from_slice(content).ok()).unwrap_or_default();
                let said = if conflict.is_null() { json!({}) } else { sayable(&conflict) };
                members.insert("device:conflict".to_owned(), said);
            }
            (Item::Delta | Item::Document, _) => {}
        }
        Ok(members)
    }

    fn say_gateway(batch: &Batch) -> Vec<Publish> {
        let status = batch.gateway.as_deref().and_then(|status| serde_json::from_slice::<Value>(status).ok());
        let members = status.as_ref().and_then(Value::as_object).into_iter().flatten();
        let told: Map<String, Value> = members
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (format!("gateway:{key}"), sayable(value)))
            .collect();
        if told.is_empty() { Vec::new() } else { vec![publish("v1/devices/me/attributes", &Value::Object(told))] }
    }
}

fn publish(topic: &str, payload: &Value) -> Publish {
    Publish { topic: topic.to_owned(), payload: payload.to_string().into(), qos: 1, ..Publish::default() }
}

fn answer(device: &DeviceId, id: i64, data: &Value) -> Publish {
    publish("v1/gateway/rpc", &json!({"device": device, "id": id, "data": data}))
}

fn known(message: &Map<String, Value>, site: &Site) -> Option<DeviceId> {
    let device: DeviceId = message.get("device")?.as_str()?.parse().ok()?;
    site.devices.contains_key(&device).then_some(device)
}

fn stranger(message: &Map<String, Value>) -> Heard {
    let device = message.get("device").map(Value::to_string).unwrap_or_default();
    Heard::Senseless(format!("{} is no device here", text_of(device.as_bytes())))
}

/// A value as ThingsBoard can hold it: its integers have 64 bits with a sign, anything larger is text; `null` is taken
/// nowhere, so it is left out of objects and is text in arrays.
fn sayable(value: &Value) -> Value {
    let mut value = value.clone();
    strip_nulls(&mut value);
    match &value {
        Value::Number(number) if number.is_u64() && number.as_i64().is_none() => Value::String(number.to_string()),
        _ => value,
    }
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => {
            for item in items {
                if item.is_null() {
                    *item = Value::String("null".to_owned());
                }
                strip_nulls(item);
            }
        }
        _ => {}
    }
}

/// One streamed reading as telemetry: its time and its values.
fn point(streamed: &Streamed) -> Option<Value> {
    let reported: ReportedOut = serde_json::from_slice(&streamed.payload).ok()?;
    let mut values = Map::new();
    if !reported.value.is_null() {
        values.insert(streamed.property.to_string(), sayable(&reported.value));
    }
    if reported.quality != crate::value::Quality::Good || values.is_empty() {
        values.insert(format!("{}:quality", streamed.property), json!(reported.quality));
    }
    Some(json!({"ts": reported.at.as_ms(), "values": values}))
}

impl Dialect for ThingsBoard {
    fn session(&self, _site: &Site) -> Session {
        Session::default()
    }

    fn subscriptions(&self, _site: &Site) -> Vec<(String, u8)> {
        ["v1/gateway/attributes", "v1/gateway/attributes/response", "v1/gateway/rpc"]
            .map(|topic| (topic.to_owned(), 1))
            .into()
    }

    fn wants(&self, item: &Item) -> bool {
        matches!(item, Item::Status | Item::Reported(_) | Item::Desired(_) | Item::Conflict)
    }

    fn batch_bytes(&self) -> usize {
        TELEMETRY_BYTES
    }

    fn connected(&mut self, site: &Site, _resumed: bool, now: Now) -> Vec<Publish> {
        self.connected.clear();
        self.go_on(site, now)
    }

    fn disconnected(&mut self) {
        self.connected.clear();
        self.waiting.clear();
        self.underway.clear();
    }

    fn ready(&self, device: Option<&DeviceId>) -> bool {
        device.is_none_or(|device| self.connected.contains_key(device))
    }

    fn say(&mut self, batch: &Batch, _site: &Site, _now: Now) -> Saying {
        let Some(device) = &batch.device else {
            return Saying { publishes: Self::say_gateway(batch), settle: Settle::Puback, unsayable: Vec::new() };
        };
        let (mut attributes, mut unsayable) = (Map::new(), Vec::new());
        for part in &batch.parts {
            match Self::attributes(part) {
                Ok(said) => attributes.extend(said),
                Err(why) => unsayable.push((part.item.clone(), why)),
            }
        }
        let publishes = if attributes.is_empty() {
            Vec::new()
        } else {
            vec![publish("v1/gateway/attributes", &json!({device.as_str(): attributes}))]
        };
        Saying { publishes, settle: Settle::Puback, unsayable }
    }

    fn stream(&mut self, streamed: &[Streamed], _site: &Site, _now: Now) -> Vec<Publish> {
        let mut messages: Vec<(&DeviceId, Vec<Value>)> = Vec::new();
        let mut bytes = 0;
        for one in streamed {
            let Some(point) = point(one) else { continue };
            let length = point.to_string().len();
            match messages.last_mut() {
                Some((device, points)) if **device == one.device && bytes + length <= TELEMETRY_BYTES => {
                    points.push(point);
                    bytes += length;
                }
                _ => {
                    messages.push((&one.device, vec![point]));
                    bytes = length;
                }
            }
        }
        messages
            .into_iter()
            .map(|(device, points)| publish("v1/gateway/telemetry", &json!({device.as_str(): points})))
            .collect()
    }

    fn gap(&mut self, gap: &Gap, site: &Site, now: Now) -> Vec<Publish> {
        let told = json!({"class": class_word(gap.class), "from_seq": gap.from_seq, "to_seq": gap.to_seq,
            "reason": gap.reason, "epoch": site.epoch});
        vec![publish("v1/devices/me/telemetry", &json!({"ts": now.wall.as_ms(), "values": {"gap": told}}))]
    }

    fn hear(&mut self, message: &Message, site: &Site, now: Now) -> Vec<Heard> {
        let Ok(Value::Object(said)) = serde_json::from_slice(&message.payload) else {
            return vec![Heard::Senseless(format!("{}: no JSON object", text_of(message.topic.as_bytes())))];
        };
        let mut heard = match message.topic.as_str() {
            "v1/gateway/attributes" => self.on_attributes(&said, site),
            "v1/gateway/attributes/response" => self.on_response(&said, site),
            "v1/gateway/rpc" => vec![self.on_call(&said, site)],
            topic => vec![Heard::Senseless(format!("nothing is known of the topic {}", text_of(topic.as_bytes())))],
        };
        heard.extend(self.go_on(site, now).into_iter().map(Heard::Say));
        heard
    }

    fn answered(&mut self, answered: &Answer, _site: &Site, _now: Now) -> Vec<Publish> {
        let note = answered.reply.note.as_deref().unwrap_or_default();
        if let Some(id) = note.strip_prefix("call:").and_then(|id| id.parse().ok()) {
            let data = match &answered.result {
                Ok(version) => json!({"success": true, "version": version}),
                Err((code, errors)) => json!({"success": false, "code": code, "errors": errors}),
            };
            return vec![answer(&answered.device, id, &data)];
        }
        let Some(name) = note.strip_prefix("shared:") else { return Vec::new() };
        let Some(base) = self.bases.get_mut(&answered.device) else { return Vec::new() };
        let mut publishes = Vec::new();
        match &answered.result {
            Ok(local) => base.accepted(name, *local),
            // Asked for once more; what was not answered is news there.
            Err((NOT_NOW, _)) => self.waiting.push_back((answered.device.clone(), name.to_owned())),
            Err((code, errors)) => {
                base.refused(name, *code, errors);
                if let Some(leaf) = base.leaves.get(name) {
                    let mut said = json!({"value": leaf.value, "state": "rejected", "reason": leaf.no});
                    strip_nulls(&mut said);
                    let told = json!({answered.device.as_str(): {format!("{name}:desired"): said}});
                    publishes.push(publish("v1/gateway/attributes", &told));
                }
            }
        }
        self.remember(&answered.device);
        publishes
    }

    fn document(&mut self, device: &DeviceId, document: &[u8], reply: &Reply, _site: &Site, _now: Now) -> Vec<Publish> {
        let id = reply.note.as_deref().and_then(|note| note.strip_prefix("call:")).and_then(|id| id.parse().ok());
        let Some(id) = id else { return Vec::new() };
        let mut document: Value = serde_json::from_slice(document).unwrap_or_default();
        strip_nulls(&mut document);
        vec![answer(device, id, &document)]
    }

    fn tick(&mut self, site: &Site, now: Now) -> Vec<Publish> {
        let late: Vec<u64> =
            self.underway.iter().filter(|(_, (.., until))| *until <= now.tick).map(|(id, _)| *id).collect();
        for id in late {
            if let Some((device, key, _)) = self.underway.remove(&id) {
                self.waiting.push_back((device, key));
            }
        }
        self.go_on(site, now)
    }

    fn memory(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.remembered).into_iter().collect()
    }
}
