//! Azure IoT Hub: the twin of one hub device, with an object in it for every device of the gateway.
//!
//! In: batches of twin state, streamed readings, what the hub says. Out: reported patches, answers to wishes after the Plug
//! and Play convention, readings as device-to-cloud messages. Must never apply a wish twice, answer a wish for a device that
//! has not, nor delete a value because a reading was bad.
//!
//! How a twin stands in `reported`, below the device's id:
//!
//! * A property that is only read is its value. One that can be written is `{"value","ac","av","ad"}`: `ac` 200 applied, 202
//!   pending, 203 set at the gateway (`av` 0), 400 rejected, 408 expired, 409 superseded, 500 failed; `av` is the `$version`
//!   of the desired section that brought the wish, `ad` says it in words.
//! * While a reading is bad the last good value stays, and `_quality.P` says so. `_status` is the device's status,
//!   `_conflict` the last lost conflict. `_gateway` beside the devices is the gateway's own status.
//! * A dot in an id or a name is written `%2E`. Integers beyond ±2^52 and objects are written as text. `null` in arrays, texts
//!   over 4 KiB and what would make the twin larger than 32 KiB are refused by name.
//!
//! On every connect: subscribe, get the twin, take over what changed in `desired` since, then say the rest; one patch is in
//! flight at a time, because the hub may reorder.
//!
//! Source: Microsoft documentation, "Communicate with an IoT hub using the MQTT protocol", "Understand and use device
//! twins in IoT Hub", "Understand and invoke direct methods", "IoT Plug and Play conventions", "Control access to IoT Hub
//! by using shared access signatures".

mod hearing;
mod sas;
#[cfg(test)]
mod tests;
mod twin;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, json};

pub use sas::{KeyError, sas_token};

use super::base::{Base, NOT_NOW, join, merge, object, readings, shown, word};
use super::{Answer, Dialect, Heard, Message, Publish, Reply, Saying, Session, Settle, Site, text_of};
use crate::message::{DesiredOut, DesiredState, DeviceStatus, ReportedOut};
use crate::name::DeviceId;
use crate::outbox::{Batch, Gap, Item, Part, Streamed};
use crate::value::{Now, Quality, Value};
pub use twin::{INTEGER, TEXT_BYTES, TWIN_BYTES, TWIN_LEVELS};
use twin::{Query, is_writable, members_weight, method_answer, sayable, written_key};

/// The version of the device interface that is spoken.
const API_VERSION: &str = "2021-04-12";

/// After too many requests, and …
const THROTTLED_MS: u64 = 5_000;

/// … after an error of the hub, it is left alone for this time; in milliseconds.
const TROUBLED_MS: u64 = 10_000;

/// After this time an answer to a request of our own is not waited for any longer; in milliseconds.
const PATIENCE_MS: u64 = 30_000;

/// The memory's key of a device begins with this; the versions of the whole twin are under …
const MEMORY: &str = "device/";

/// … this one.
const MEMORY_TWIN: &str = "twin";

/// Most characters of the words in `ad`.
const WORDS: usize = 200;

/// IoT Hub as the other party.
pub struct Azure {
    hub: String,
    device: String,
    /// Wishes by device; kept over restarts. The version in them is not used.
    bases: HashMap<DeviceId, Base>,
    /// `$version` of the desired section that was taken over last.
    desired_version: u64,
    /// The highest `$version` of a notification that came before the twin did.
    early: u64,
    /// `reported` as the hub has it, known once the twin was got on this connection.
    reported: Map<String, Value>,
    fetched: bool,
    get: Option<(String, u64)>,
    /// Not asked before this tick.
    quiet_until_ms: u64,
    /// When the twin is got once more, because a wish of it could not be taken yet.
    again_ms: Option<u64>,
    /// The patch in flight and what it says; a batch's, or one of our own.
    underway: Option<Underway>,
    /// Refusals that wait for their turn, as patches.
    owed: Map<String, Value>,
    run: u64,
    count: u64,
    remembered: BTreeMap<String, Option<String>>,
}

struct Underway {
    rid: String,
    patch: Map<String, Value>,
    own: bool,
    until_ms: u64,
}

impl Azure {
    /// `memory` is what [`Dialect::memory`] gave in earlier runs.
    pub fn new(hub: &str, device: &str, memory: Vec<(String, String)>) -> Self {
        let mut bases = HashMap::new();
        let mut desired_version = 0;
        for (key, text) in memory {
            if key == MEMORY_TWIN {
                desired_version = text.parse().unwrap_or(0);
            } else if let Some(device) = key.strip_prefix(MEMORY).and_then(|device| device.parse::<DeviceId>().ok()) {
                bases.insert(device, Base::from_text(&text));
            }
        }
        Self {
            hub: hub.to_owned(),
            device: device.to_owned(),
            bases,
            desired_version,
            early: 0,
            reported: Map::new(),
            fetched: false,
            get: None,
            quiet_until_ms: 0,
            again_ms: None,
            underway: None,
            owed: Map::new(),
            run: 0,
            count: 0,
            remembered: BTreeMap::new(),
        }
    }

    fn rid(&mut self) -> String {
        self.count += 1;
        format!("{:x}-{}", self.run, self.count)
    }

    fn get_twin(&mut self, now: Now) -> Publish {
        let rid = self.rid();
        self.get = Some((rid.clone(), now.tick + PATIENCE_MS));
        Publish { topic: format!("$iothub/twin/GET/?$rid={rid}"), qos: 1, ..Publish::default() }
    }

    /// Sends a patch of `reported`.
    fn patch(&mut self, patch: Map<String, Value>, own: bool, now: Now) -> (String, Publish) {
        let rid = self.rid();
        let topic = format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}");
        let payload = serde_json::to_vec(&patch).unwrap_or_default();
        self.underway = Some(Underway { rid: rid.clone(), patch, own, until_ms: now.tick + PATIENCE_MS });
        (rid, Publish { topic, payload, qos: 1, ..Publish::default() })
    }

    /// What is owed goes when nothing else is in flight.
    fn pay(&mut self, now: Now) -> Option<Publish> {
        if self.underway.is_some() || self.owed.is_empty() || !self.fetched || now.tick < self.quiet_until_ms {
            return None;
        }
        let owed = std::mem::take(&mut self.owed);
        Some(self.patch(owed, true, now).1)
    }

    fn remember(&mut self, device: &DeviceId) {
        if let Some(base) = self.bases.get(device) {
            self.remembered.insert(format!("{MEMORY}{device}"), base.to_text());
        }
    }

    /// One part of a batch as members of the device's object.
    fn members(&self, device: &DeviceId, part: &Part, site: &Site) -> Result<Map<String, Value>, String> {
        let content = part.content.as_deref();
        let unreadable = |error: serde_json::Error| error.to_string();
        Ok(match &part.item {
            Item::Reported(property) => {
                let key = written_key(property.as_str());
                let Some(content) = content else {
                    return Ok(object(json!({key.as_str(): null, "_quality": {key.as_str(): null}})));
                };
                let reported: ReportedOut = serde_json::from_slice(content).map_err(unreadable)?;
                let quality = (reported.quality != Quality::Good).then(|| reported.quality.to_string());
                let mut members = object(json!({"_quality": {key.as_str(): quality}}));
                if let Some(value) = shown(&reported) {
                    let value = sayable(value)?;
                    let writable = is_writable(site, device, property.as_str());
                    members.insert(key, if writable { json!({"value": value}) } else { value });
                }
                members
            }
            Item::Desired(property) => {
                let key = written_key(property.as_str());
                let gone = json!({"ac": null, "av": null, "ad": null});
                let Some(content) = content else { return Ok(object(json!({key.as_str(): gone}))) };
                let desired: DesiredOut = serde_json::from_slice(content).map_err(unreadable)?;
                let (ac, av, ad) = self.verdict(device, property.as_str(), &desired);
                object(json!({key.as_str(): {"ac": ac, "av": av, "ad": ad}}))
            }
            Item::Status => {
                let Some(content) = content else { return Ok(object(json!({"_status": null}))) };
                let status: DeviceStatus = serde_json::from_slice(content).map_err(unreadable)?;
                object(json!({"_status": status}))
            }
            Item::Conflict => match content.map(serde_json::from_slice::<Value>) {
                Some(Ok(conflict)) => object(json!({"_conflict": sayable(&conflict)?})),
                _ => object(json!({"_conflict": null})),
            },
            Item::Delta | Item::Document => Map::new(),
        })
    }

    /// How a wish stands in the words of the convention: code, the version it answers, and in words.
    fn verdict(&self, device: &DeviceId, name: &str, desired: &DesiredOut) -> (u16, u64, String) {
        let leaf = self.bases.get(device).and_then(|base| base.leaves.get(name));
        let ours = leaf.filter(|leaf| leaf.local.is_some());
        let state = match ours {
            Some(_) => self.bases.get(device).and_then(|base| base.ends(name, desired)).unwrap_or(desired.state),
            None => desired.state,
        };
        let words = match &desired.reason {
            Some(reason) if state == desired.state => format!("{}: {reason}", word(state)),
            _ => word(state).to_owned(),
        };
        let words: String = words.chars().take(WORDS).collect();
        let Some(leaf) = ours else { return (203, 0, format!("set by {}, {words}", desired.by)) };
        let code = match state {
            DesiredState::Pending => 202,
            DesiredState::Applied => 200,
            DesiredState::Rejected => 400,
            DesiredState::Expired => 408,
            DesiredState::Superseded => 409,
            DesiredState::Failed => 500,
        };
        (code, leaf.stamp, words)
    }
}

impl Dialect for Azure {
    fn session(&self, site: &Site) -> Session {
        let will = Publish {
            topic: format!("devices/{}/messages/events/kind=status", self.device),
            payload: json!({"gateway": site.gateway, "state": "offline"}).to_string().into(),
            qos: 1,
            ..Publish::default()
        };
        Session {
            client_id: Some(self.device.clone()),
            username: Some(format!("{}/{}/?api-version={API_VERSION}", self.hub, self.device)),
            version: Some(4),
            will: Some(will),
            ..Session::default()
        }
    }

    fn subscriptions(&self, _site: &Site) -> Vec<(String, u8)> {
        ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#"]
            .map(|filter| (filter.to_owned(), 1))
            .into()
    }

    fn wants(&self, item: &Item) -> bool {
        matches!(item, Item::Status | Item::Reported(_) | Item::Desired(_) | Item::Conflict)
    }

    fn batch_bytes(&self) -> usize {
        16 << 10
    }

    fn window(&self) -> usize {
        1
    }

    fn connected(&mut self, _site: &Site, _resumed: bool, now: Now) -> Vec<Publish> {
        self.run = u64::try_from(now.wall.as_ms()).unwrap_or(0) ^ (now.tick << 1);
        self.early = 0;
        self.quiet_until_ms = 0;
        vec![self.get_twin(now)]
    }

    fn disconnected(&mut self) {
        self.fetched = false;
        self.get = None;
        if let Some(underway) = self.underway.take().filter(|underway| underway.own) {
            let mut owed = underway.patch;
            join(&mut owed, std::mem::take(&mut self.owed));
            self.owed = owed;
        }
    }

    fn ready(&self, _device: Option<&DeviceId>) -> bool {
        self.fetched && self.underway.is_none()
    }

    fn say(&mut self, batch: &Batch, site: &Site, now: Now) -> Saying {
        let mut unsayable = Vec::new();
        let mut patch = Map::new();
        let mut after = self.reported.clone();
        let mut add = |said: Map<String, Value>| {
            let mut tried = after.clone();
            merge(&mut tried, &said);
            let bytes = members_weight(&tried);
            // What makes the twin smaller is always welcome.
            if bytes > TWIN_BYTES && bytes > members_weight(&after) {
                return Err(format!("the twin would have {bytes} bytes, IoT Hub takes {TWIN_BYTES}"));
            }
            after = tried;
            join(&mut patch, said);
            Ok(())
        };
        match &batch.device {
            None => {
                let status: Option<Value> =
                    batch.gateway.as_deref().and_then(|status| serde_json::from_slice(status).ok());
                let _ = add(object(json!({"_gateway": status})));
            }
            Some(device) => {
                let key = written_key(device.as_str());
                for part in &batch.parts {
                    let said = self.members(device, part, site).map(|members| object(json!({key.as_str(): members})));
                    if let Err(why) = said.and_then(&mut add) {
                        unsayable.push((part.item.clone(), why));
                    }
                }
            }
        }
        if patch.is_empty() {
            return Saying { publishes: Vec::new(), settle: Settle::Puback, unsayable };
        }
        let (rid, publish) = self.patch(patch, false, now);
        Saying { publishes: vec![publish], settle: Settle::Reply(rid), unsayable }
    }

    fn stream(&mut self, streamed: &[Streamed], site: &Site, _now: Now) -> Vec<Publish> {
        let publish = |(device, document): (DeviceId, Value)| {
            let bag = format!(
                "$.ct=application%2Fjson&$.ce=utf-8&kind=readings&device={}",
                device.as_str().replace(':', "%3A")
            );
            let topic = format!("devices/{}/messages/events/{bag}", self.device);
            Publish { topic, payload: document.to_string().into(), qos: 1, ..Publish::default() }
        };
        readings(streamed, site).into_iter().map(publish).collect()
    }

    fn gap(&mut self, gap: &Gap, site: &Site, _now: Now) -> Vec<Publish> {
        let payload = json!({"gateway": site.gateway, "epoch": site.epoch, "class": super::base::class_word(gap.class),
            "from_seq": gap.from_seq, "to_seq": gap.to_seq, "reason": gap.reason});
        let topic = format!("devices/{}/messages/events/$.ct=application%2Fjson&$.ce=utf-8&kind=gap", self.device);
        vec![Publish { topic, payload: payload.to_string().into(), qos: 1, ..Publish::default() }]
    }

    fn hear(&mut self, message: &Message, site: &Site, now: Now) -> Vec<Heard> {
        let topic = message.topic.as_str();
        let (path, query) = topic.split_once("/?").map_or((topic, Query("")), |(path, query)| (path, Query(query)));
        if let Some(status) = path.strip_prefix("$iothub/twin/res/").and_then(|status| status.parse().ok()) {
            return self.on_answer(status, message, &query, site, now);
        }
        if path == "$iothub/twin/PATCH/properties/desired" {
            return self.on_notification(message, &query, site, now);
        }
        if let Some(name) = path.strip_prefix("$iothub/methods/POST/") {
            return vec![self.on_method(name, message, &query, site)];
        }
        vec![Heard::Senseless(format!("nothing is known of the topic {}", text_of(topic.as_bytes())))]
    }

    fn answered(&mut self, answer: &Answer, _site: &Site, now: Now) -> Vec<Publish> {
        let note = answer.reply.note.as_deref().unwrap_or_default();
        if let Some(rid) = note.strip_prefix("method:") {
            let (status, body) = match &answer.result {
                Ok(version) => (200, json!({"version": version})),
                Err((code, errors)) => (*code, json!({"errors": errors})),
            };
            return vec![method_answer(rid, status, &body)];
        }
        let Some(name) = note.strip_prefix("twin:") else { return Vec::new() };
        let Some(base) = self.bases.get_mut(&answer.device) else { return Vec::new() };
        match &answer.result {
            Ok(local) => base.accepted(name, *local),
            Err((NOT_NOW, _)) => self.again_ms = Some(now.tick + TROUBLED_MS),
            Err((code, errors)) => {
                base.refused(name, *code, errors);
                if let Some(leaf) = base.leaves.get(name) {
                    let words: String = leaf.no.iter().flat_map(|why| why.chars()).take(WORDS).collect();
                    let said = json!({written_key(answer.device.as_str()):
                        {written_key(name): {"ac": 400, "av": leaf.stamp, "ad": words}}});
                    join(&mut self.owed, object(said));
                }
            }
        }
        self.remember(&answer.device);
        self.pay(now).into_iter().collect()
    }

    fn document(
        &mut self,
        _device: &DeviceId,
        document: &[u8],
        reply: &Reply,
        _site: &Site,
        _now: Now,
    ) -> Vec<Publish> {
        let rid = reply.note.as_deref().and_then(|note| note.strip_prefix("method:"));
        let answer = |rid| Publish { payload: document.to_vec(), ..method_answer(rid, 200, &Value::Null) };
        rid.map(answer).into_iter().collect()
    }

    fn tick(&mut self, site: &Site, now: Now) -> Vec<Publish> {
        let gone: Vec<DeviceId> =
            self.bases.keys().filter(|device| !site.devices.contains_key(*device)).cloned().collect();
        for device in gone {
            self.bases.remove(&device);
            self.remembered.insert(format!("{MEMORY}{device}"), None);
        }
        if let Some(underway) = self.underway.take_if(|underway| underway.until_ms <= now.tick)
            && underway.own
        {
            join(&mut self.owed, underway.patch);
        }
        let late = self.get.as_ref().is_none_or(|(_, until_ms)| *until_ms <= now.tick);
        if !self.fetched && late && now.tick >= self.quiet_until_ms {
            return vec![self.get_twin(now)];
        }
        if self.fetched && self.again_ms.take_if(|at| *at <= now.tick).is_some() {
            return vec![self.get_twin(now)];
        }
        self.pay(now).into_iter().collect()
    }

    fn memory(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.remembered).into_iter().collect()
    }
}
