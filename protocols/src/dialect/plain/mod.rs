//! Any MQTT broker, 3.1.1 or 5: the local topics under a prefix.
//!
//! In: batches, readings, events, requests of whoever listens at that broker. Out: the contract's topics and payloads
//! under `{prefix}/`, whatever the local root is called. Must never clear a topic that holds something, and never take a
//! broker's forgetting for an acknowledgement.
//!
//! | topic under `{prefix}/` | retained | payload |
//! |---|---|---|
//! | `twin/D`, `twin/D/{status,delta,conflict}`, `twin/D/reported/P`, `twin/D/desired/P` | yes | as locally; empty when it is gone |
//! | `gateway/status` | yes | `gateway`, `state`, `version`, `since`, `devices`; the will says `offline` |
//! | `twin/D/event`, `twin/D/result` | no | as locally |
//! | `twin/D/stream/P` | no | a reading of a `stream:` property: `reported/P` with `epoch`, `class` and `seq`, which stand in user properties as well; a receiver drops what it has seen by these three |
//! | `gateway/gap` | no | `{"epoch","class","from_seq","to_seq","reason"}`: readings that were given up |
//! | `twin/D/desired/set`, `twin/D/desired/P/set`, `twin/D/get` | – | requests, as locally; `desired/set` may say `at`, which decides under the rule `newest`. A retained one counts one time |
//! | `gateway/mark` | yes | what the broker is known to have kept |
//! | `gateway/mark/echo` | no | the question behind it |
//!
//! **The mark.** A broker that loses its retained messages, or goes back to a copy of an hour ago, tells nobody. So a
//! retained mark with a rising number is published a while after something was said, and asked for after each
//! connect: a subscription brings it before an echo that is sent after. If it is not there, or older than was known,
//! all is said again; if it is the last one, only devices are said again that were said after it. One request and one
//! reply, and none of it while nothing changes.

mod mark;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Answer, CloudWish, Dialect, Heard, Message, Publish, Reply, Saying, Session, Settle, Site};
use crate::message::{Get, Outcome, ReportedOut};
use crate::name::DeviceId;
use crate::outbox::{Batch, Gap, Item, Streamed};
use crate::topic::{GATEWAY_STATUS, TwinTopic};
use crate::value::{Now, Timestamp, Value};

use mark::Mark;

/// The root of twin topics over there.
const ROOT: &str = "twin";

/// Topics of the mark, below the prefix.
const MARK: &str = "gateway/mark";
const ECHO: &str = "gateway/mark/echo";

/// Readings that were given up are told here, below the prefix.
const GAP: &str = "gateway/gap";

/// Requests whose last payload is remembered per device, so that a retained one counts one time: one for each property
/// and one for patches. Those of the lowest names are given up.
const REQUESTS: usize = 512;

/// The plain dialect.
#[derive(Debug)]
pub struct Plain {
    prefix: String,
    mark: Mark,
    /// Per device: request (`set` or a property) → digest of its last payload.
    requests: BTreeMap<String, BTreeMap<String, u64>>,
    memory: Vec<(String, Option<String>)>,
}

/// Keys of the memory that are no device's.
const MEMORY_MARK: &str = "/mark";
const MEMORY_AFTER: &str = "/after";

/// `twin/D/desired/set` as it may come from the other side.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    id: Option<String>,
    patch: BTreeMap<String, Value>,
    #[serde(default)]
    if_version: Option<u64>,
    #[serde(default)]
    ttl_s: Option<u64>,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    at: Option<Timestamp>,
}

/// Why a request is refused before anybody looks at the twin.
struct Refused {
    code: u16,
    why: String,
    id: Option<String>,
}

impl Plain {
    /// The dialect under a prefix, with what [`Dialect::memory`] ever handed out.
    pub fn new(prefix: &str, memory: impl IntoIterator<Item = (String, String)>) -> Self {
        let (mut known, mut after, mut requests) = (None, Vec::new(), BTreeMap::new());
        for (key, value) in memory {
            match key.as_str() {
                MEMORY_MARK => known = value.parse().ok(),
                MEMORY_AFTER => after = value.split(',').filter_map(|id| id.parse().ok()).collect(),
                // A damaged row costs a retained request that counts twice.
                _ => drop(requests.insert(key, serde_json::from_str(&value).unwrap_or_default())),
            }
        }
        let prefix = prefix.trim_matches('/').to_owned();
        Self { prefix, mark: Mark::new(known, after), requests, memory: Vec::new() }
    }

    fn topic(&self, below: &str) -> String {
        if self.prefix.is_empty() { below.to_owned() } else { format!("{}/{below}", self.prefix) }
    }

    fn twin(&self, topic: &TwinTopic) -> String {
        self.topic(&topic.under(ROOT))
    }

    /// What is below the prefix.
    fn below<'a>(&self, topic: &'a str) -> Option<&'a str> {
        if self.prefix.is_empty() {
            return Some(topic);
        }
        topic.strip_prefix(self.prefix.as_str())?.strip_prefix('/')
    }

    fn kept(topic: String, payload: Vec<u8>) -> Publish {
        Publish { topic, payload, qos: 1, retain: true, ..Publish::default() }
    }

    fn spoken(topic: String, payload: Vec<u8>) -> Publish {
        Publish { topic, payload, qos: 1, ..Publish::default() }
    }

    fn answer(&self, device: &DeviceId, reply: &Reply, payload: Vec<u8>) -> Publish {
        let topic = reply.topic.clone().unwrap_or_else(|| self.twin(&TwinTopic::Outcome(device.clone())));
        Publish { correlation: reply.correlation.clone(), ..Self::spoken(topic, payload) }
    }

    fn mark_publish(&self, count: u64, site: &Site) -> Publish {
        Self::kept(self.topic(MARK), json(&mark::Kept { epoch: site.epoch.clone(), count }))
    }

    /// A request of the other side.
    fn request(&mut self, topic: TwinTopic, message: &Message, site: &Site) -> Vec<Heard> {
        let reply = Reply {
            topic: message.response_topic.clone().filter(|topic| is_topic(topic)),
            correlation: message.correlation.clone(),
            note: None,
        };
        let device = topic.device().clone();
        if !site.devices.contains_key(&device) {
            let why = format!("there is no device {device}");
            return vec![self.refuse(&device, &reply, Refused { code: 404, why, id: id_in(&message.payload) })];
        }
        if !matches!(topic, TwinTopic::Get(_)) && self.is_old(&topic, message, site) {
            return Vec::new();
        }
        match read(topic, &message.payload, reply.clone()) {
            Ok(heard) => vec![heard],
            Err(refused) => vec![self.refuse(&device, &reply, refused)],
        }
    }

    fn refuse(&self, device: &DeviceId, reply: &Reply, refused: Refused) -> Heard {
        let Refused { code, why, id } = refused;
        let errors = BTreeMap::from([(String::new(), why)]);
        let outcome = Outcome { id, ok: false, version: None, code: Some(code), errors };
        Heard::Say(self.answer(device, reply, json(&outcome)))
    }

    /// Whether a request comes again only because the other broker keeps it.
    fn is_old(&mut self, topic: &TwinTopic, message: &Message, site: &Site) -> bool {
        let (device, request) = match topic {
            TwinTopic::DesiredPropertySet(device, property) => (device, property.as_str()),
            topic => (topic.device(), "/set"),
        };
        let profile = site.devices.get(device);
        let known =
            |name: &str| profile.is_some_and(|profile| profile.properties.iter().any(|one| one.name.as_str() == name));
        if request != "/set" && !known(request) {
            return false;
        }
        let digest = mark::digest(&message.payload);
        let of_device = self.requests.entry(device.to_string()).or_default();
        if of_device.insert(request.to_owned(), digest) == Some(digest) {
            return message.retain;
        }
        if of_device.len() > REQUESTS {
            of_device.pop_first();
        }
        let row = serde_json::to_string(of_device).ok();
        self.memory.push((device.to_string(), row));
        false
    }
}

impl Dialect for Plain {
    fn session(&self, site: &Site) -> Session {
        let offline = BTreeMap::from([("gateway", site.gateway.as_str()), ("state", "offline")]);
        let will = Self::kept(self.topic(GATEWAY_STATUS), json(&offline));
        Session { persistent: true, will: Some(will), ..Session::default() }
    }

    fn subscriptions(&self, _site: &Site) -> Vec<(String, u8)> {
        [MARK, ECHO, "twin/+/desired/set", "twin/+/desired/+/set", "twin/+/get"]
            .map(|below| (self.topic(below), 1))
            .to_vec()
    }

    fn wants(&self, _item: &Item) -> bool {
        true
    }

    fn connected(&mut self, _site: &Site, _resumed: bool, now: Now) -> Vec<Publish> {
        let echo = self.mark.ask(now);
        vec![Self::spoken(self.topic(ECHO), echo.into_bytes())]
    }

    fn disconnected(&mut self) {
        let (count, after) = self.mark.disconnected();
        self.memory.push((MEMORY_MARK.to_owned(), Some(count.to_string())));
        let after: Vec<&str> = after.iter().map(DeviceId::as_str).collect();
        self.memory.push((MEMORY_AFTER.to_owned(), (!after.is_empty()).then(|| after.join(","))));
    }

    /// What the broker holds is known before anything is said, but for the gateway's own status.
    fn ready(&self, device: Option<&DeviceId>) -> bool {
        device.is_none() || self.mark.is_answered()
    }

    fn say(&mut self, batch: &Batch, _site: &Site, now: Now) -> Saying {
        let mut publishes = Vec::with_capacity(batch.parts.len());
        match &batch.device {
            None => publishes
                .extend(batch.gateway.as_ref().map(|status| Self::kept(self.topic(GATEWAY_STATUS), status.to_vec()))),
            Some(device) => {
                self.mark.said(device, now);
                for part in &batch.parts {
                    let device = device.clone();
                    let topic = match &part.item {
                        Item::Status => TwinTopic::Status(device),
                        Item::Reported(property) => TwinTopic::Reported(device, property.clone()),
                        Item::Desired(property) => TwinTopic::Desired(device, property.clone()),
                        Item::Delta => TwinTopic::Delta(device),
                        Item::Conflict => TwinTopic::Conflict(device),
                        Item::Document => TwinTopic::Document(device),
                    };
                    let payload = part.content.as_ref().map(|content| content.to_vec()).unwrap_or_default();
                    publishes.push(Self::kept(self.twin(&topic), payload));
                }
            }
        }
        Saying { publishes, settle: Settle::Puback, unsayable: Vec::new() }
    }

    fn stream(&mut self, readings: &[Streamed], site: &Site, _now: Now) -> Vec<Publish> {
        #[derive(Serialize)]
        struct Numbered<'a> {
            #[serde(flatten)]
            reading: ReportedOut,
            epoch: &'a str,
            class: &'a str,
            seq: u64,
        }
        let say = |reading: &Streamed| {
            let Streamed { class, seq, device, property, payload } = reading;
            let (class, epoch) = (class.as_str(), site.epoch.as_str());
            // What is no reading goes as it is; its number stands in the user properties still.
            let payload = match serde_json::from_slice::<ReportedOut>(payload) {
                Ok(reading) => json(&Numbered { reading, epoch, class, seq: *seq }),
                Err(_) => payload.to_vec(),
            };
            let user_properties = [("epoch", epoch.to_owned()), ("class", class.to_owned()), ("seq", seq.to_string())];
            Publish {
                user_properties: user_properties.map(|(name, value)| (name.to_owned(), value)).to_vec(),
                ..Self::spoken(self.topic(&format!("{ROOT}/{device}/stream/{property}")), payload)
            }
        };
        readings.iter().map(say).collect()
    }

    fn gap(&mut self, gap: &Gap, site: &Site, _now: Now) -> Vec<Publish> {
        #[derive(Serialize)]
        struct GapOut<'a> {
            epoch: &'a str,
            class: &'a str,
            from_seq: u64,
            to_seq: u64,
            reason: &'a str,
        }
        let Gap { class, from_seq, to_seq, reason } = gap;
        let (epoch, class) = (site.epoch.as_str(), class.as_str());
        let out = GapOut { epoch, class, from_seq: *from_seq, to_seq: *to_seq, reason };
        vec![Self::spoken(self.topic(GAP), json(&out))]
    }

    fn event(&mut self, device: &DeviceId, payload: &[u8], _site: &Site, _now: Now) -> Vec<Publish> {
        vec![Self::spoken(self.twin(&TwinTopic::Event(device.clone())), payload.to_vec())]
    }

    fn hear(&mut self, message: &Message, site: &Site, now: Now) -> Vec<Heard> {
        match self.below(&message.topic) {
            Some(MARK) => {
                self.mark.heard(message, &site.epoch);
                Vec::new()
            }
            Some(ECHO) => self.mark.echoed(&message.payload, now),
            Some(below) => match TwinTopic::parse(ROOT, below) {
                Some(topic @ (TwinTopic::DesiredSet(_) | TwinTopic::DesiredPropertySet(..) | TwinTopic::Get(_))) => {
                    self.request(topic, message, site)
                }
                _ => vec![Heard::Senseless("nothing is asked for on this topic".to_owned())],
            },
            None => vec![Heard::Senseless("not below the prefix".to_owned())],
        }
    }

    fn answered(&mut self, answer: &Answer, _site: &Site, _now: Now) -> Vec<Publish> {
        let id = answer.id.clone();
        let outcome = match &answer.result {
            Ok(version) => Outcome { id, ok: true, version: Some(*version), code: None, errors: BTreeMap::new() },
            Err((code, errors)) => Outcome { id, ok: false, version: None, code: Some(*code), errors: errors.clone() },
        };
        vec![self.answer(&answer.device, &answer.reply, json(&outcome))]
    }

    fn document(&mut self, device: &DeviceId, document: &[u8], reply: &Reply, _: &Site, _: Now) -> Vec<Publish> {
        let payload = match reply.note.as_ref().filter(|_| document.first() == Some(&b'{')) {
            None => document.to_vec(),
            Some(id) => {
                // The id of the request goes before everything else, as it does locally.
                let mut payload = b"{\"id\":".to_vec();
                payload.extend(json(id));
                payload.push(b',');
                payload.extend(document.iter().skip(1));
                payload
            }
        };
        vec![self.answer(device, reply, payload)]
    }

    fn tick(&mut self, site: &Site, now: Now) -> Vec<Publish> {
        self.mark.next(now).map(|count| self.mark_publish(count, site)).into_iter().collect()
    }

    fn noticed(&mut self, now: Now) -> Vec<Heard> {
        self.mark.overdue(now)
    }

    fn memory(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.memory)
    }
}

/// What a request means.
fn read(topic: TwinTopic, payload: &[u8], reply: Reply) -> Result<Heard, Refused> {
    match topic {
        TwinTopic::Get(device) => {
            let Get { id } = if payload.is_empty() { Get::default() } else { object(payload)? };
            Ok(Heard::Ask { device, reply: Reply { note: id, ..reply } })
        }
        TwinTopic::DesiredPropertySet(device, property) => {
            let value = if payload.is_empty() { Value::Null } else { parsed(payload)? };
            let patch = BTreeMap::from([(property.to_string(), value)]);
            let (id, if_version, ttl_s, at, by) = Default::default();
            Ok(Heard::Wish(CloudWish { device, patch, id, if_version, ttl_s, at, by, reply }))
        }
        topic => {
            let Request { id, patch, if_version, ttl_s, by, at } = object(payload)?;
            let device = topic.device().clone();
            Ok(Heard::Wish(CloudWish { device, patch, id, if_version, ttl_s, at, by, reply }))
        }
    }
}

/// Reads a JSON object. An array is none: serde would take its items for fields.
fn object<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, Refused> {
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refused { code: 400, why: "not a JSON object".to_owned(), id: None });
    }
    parsed(payload)
}

fn parsed<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, Refused> {
    let refused = |error: serde_json::Error| Refused { code: 400, why: error.to_string(), id: id_in(payload) };
    serde_json::from_slice(payload).map_err(refused)
}

/// The id of a request that is refused before the rest of it is understood.
fn id_in(payload: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(payload).ok()?.get("id")? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// Whether an answer can be published there.
fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0'])
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is said holds nothing that JSON cannot say")
}
