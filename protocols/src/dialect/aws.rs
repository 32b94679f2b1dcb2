//! AWS IoT Core device shadows.
//!
//! In: batches of twin state, streamed readings, what the shadow service says. Out: shadow updates with version and
//! client token, wishes from `desired`, readings on a topic of their own. Must never apply a wish twice, write into
//! `desired` anything but the end of a wish, nor delete a value because a reading was bad.
//!
//! How a twin stands in a shadow:
//!
//! * `reported.P` is the value. While a reading is bad the last good one stays, and `reported._quality.P` says so; good
//!   values have no entry there. An object is said as JSON text, because the service would merge it with the old one.
//! * `reported._desired.P` is how a wish stands: value, state, version, by, reason. `reported._status` is the device's
//!   status, `reported._conflict` the last lost conflict.
//! * `desired.P` is a wish of an application. When it has come to its end — applied, rejected, failed, superseded, expired —
//!   it is set to `null`: the service never does that by itself, and the delta would come back for ever.
//! * A wish is news by its own metadata timestamp and value, never by being in a delta.
//!
//! A shadow is fetched on every connect before anything is said of its device. Updates carry the version; `409` fetches
//! the shadow, takes over what was wished meanwhile, and says the rest again: reported belongs to us, desired to the cloud.
//!
//! Source: AWS IoT Core developer guide, "Device Shadow MQTT topics", "Device Shadow service documents", "Device Shadow
//! error messages"; quotas: AWS general reference, "AWS IoT Core endpoints and quotas".

mod hearing;
mod shadow;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Map, json};

use super::base::{Base, NOT_NOW, join, merge, object, readings, shown, word};
use super::{Answer, Dialect, Heard, Message, Publish, Reply, Saying, Session, Settle, Site, text_of};
use crate::message::{DesiredOut, DeviceStatus, ReportedOut};
use crate::name::DeviceId;
use crate::outbox::{Batch, Gap, Item, Part, Settled, Streamed};
use crate::value::{Now, Value};
pub use shadow::{SHADOW_BYTES, SHADOW_LEVELS};
use shadow::{Said, Shadow, bytes_of, sayable, shadow_name};

/// Batches in flight. With [`REQUESTS`] this is the service's limit of ten requests in flight on one connection.
const WINDOW: usize = 6;

/// Requests of our own (fetching a shadow, ending a wish) in flight.
const REQUESTS: usize = 4;

/// After this time an answer to a request of our own is not waited for any longer, and it is asked again; in milliseconds.
const PATIENCE_MS: u64 = 10_000;

/// After too many requests, and …
const THROTTLED_MS: u64 = 2_000;

/// … after an error of the service, it is left alone for this time; in milliseconds.
const TROUBLED_MS: u64 = 5_000;

/// The version of a shadow is remembered at most this often, for the flash card's sake; in milliseconds.
const REMEMBER_MS: u64 = 600_000;

/// The memory's key of a device begins with this.
const MEMORY: &str = "device/";

/// Client tokens of ours begin with this; the service takes 64 bytes.
const TOKEN: &str = "tidegate-";

/// Protocol name that AWS wants on port 443, where HTTPS lives too.
pub const ALPN: &str = "x-amzn-mqtt-ca";

/// A request of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Fetch,
    Clean,
}

/// A request under way.
#[derive(Debug)]
struct Underway {
    device: DeviceId,
    request: Request,
    until_ms: u64,
    /// The highest version heard of when it was asked: an answer that is older than this was not overtaken on its way.
    seen: u64,
}

/// AWS IoT Core as the other party.
pub struct Aws {
    thing: String,
    thing_per_device: bool,
    telemetry: String,
    port_443: bool,
    shadows: HashMap<DeviceId, Shadow>,
    /// Shadow or thing name → device.
    names: HashMap<String, DeviceId>,
    waiting: VecDeque<(DeviceId, Request)>,
    /// Nothing of our own is asked before this tick.
    quiet_until_ms: u64,
    underway: HashMap<String, Underway>,
    /// Tokens of batches under way, and of which device they are.
    said: HashMap<String, Option<DeviceId>>,
    run: u64,
    count: u64,
    remembered: BTreeMap<String, Option<String>>,
}

/// What a topic of the shadow service is about.
enum About<'a> {
    GetAccepted,
    GetRejected,
    UpdateAccepted,
    UpdateRejected,
    Delta,
    Other(&'a str),
}

impl Aws {
    /// `memory` is what [`Dialect::memory`] gave in earlier runs.
    pub fn new(
        thing: &str,
        thing_per_device: bool,
        telemetry: &str,
        port_443: bool,
        memory: Vec<(String, String)>,
    ) -> Self {
        let shadows = memory.into_iter().filter_map(|(key, text)| {
            let device: DeviceId = key.strip_prefix(MEMORY)?.parse().ok()?;
            Some((device, Shadow { base: Base::from_text(&text), ..Shadow::default() }))
        });
        Self {
            thing: thing.to_owned(),
            thing_per_device,
            telemetry: telemetry.to_owned(),
            port_443,
            shadows: shadows.collect(),
            names: HashMap::new(),
            waiting: VecDeque::new(),
            quiet_until_ms: 0,
            underway: HashMap::new(),
            said: HashMap::new(),
            run: 0,
            count: 0,
            remembered: BTreeMap::new(),
        }
    }

    /// First levels of the topics of a device's shadow.
    fn prefix(&self, device: &DeviceId) -> String {
        let name = shadow_name(device.as_str());
        if self.thing_per_device {
            format!("$aws/things/{name}/shadow")
        } else {
            format!("$aws/things/{}/shadow/name/{name}", self.thing)
        }
    }

    fn own_prefix(&self) -> String {
        format!("$aws/things/{}/shadow", self.thing)
    }

    fn token(&mut self) -> String {
        self.count += 1;
        format!("{TOKEN}{:x}-{}", self.run, self.count)
    }

    fn is_ours(token: Option<&str>) -> bool {
        token.is_some_and(|token| token.starts_with(TOKEN))
    }

    /// Which shadow and what of it a topic names; `None` in the place of the device is the gateway's own.
    fn read_topic<'a>(&self, topic: &'a str) -> Option<(Option<DeviceId>, About<'a>)> {
        let (thing, rest) = topic.strip_prefix("$aws/things/")?.split_once("/shadow/")?;
        let (name, what) = match rest.strip_prefix("name/") {
            Some(rest) => rest.split_once('/').map(|(name, what)| (Some(name), what))?,
            None => (None, rest),
        };
        let device = match name {
            Some(name) if !self.thing_per_device && thing == self.thing => Some(self.names.get(name)?.clone()),
            None if thing == self.thing && !self.names.contains_key(thing) => None,
            None if self.thing_per_device => Some(self.names.get(thing)?.clone()),
            _ => return None,
        };
        let about = match what {
            "get/accepted" => About::GetAccepted,
            "get/rejected" => About::GetRejected,
            "update/accepted" => About::UpdateAccepted,
            "update/rejected" => About::UpdateRejected,
            "update/delta" => About::Delta,
            other => About::Other(other),
        };
        Some((device, about))
    }

    fn ask(&mut self, device: &DeviceId, request: Request) {
        let same = |(other, kind): &(DeviceId, Request)| other == device && *kind == request;
        if !self.waiting.iter().any(same)
            && !self.underway.values().any(|at| at.device == *device && at.request == request)
        {
            self.waiting.push_back((device.clone(), request));
        }
    }

    /// Sends the requests that may go.
    fn go_on(&mut self, now: Now) -> Vec<Publish> {
        let mut publishes = Vec::new();
        while now.tick >= self.quiet_until_ms && self.underway.len() < REQUESTS {
            let Some((device, request)) = self.waiting.pop_front() else { break };
            let token = self.token();
            let (end, payload) = match request {
                Request::Fetch => ("get", json!({"clientToken": token})),
                Request::Clean => match self.cleaning(&device, &token) {
                    Some(payload) => ("update", payload),
                    None => continue,
                },
            };
            let topic = format!("{}/{end}", self.prefix(&device));
            publishes.push(Publish { topic, payload: payload.to_string().into(), qos: 1, ..Publish::default() });
            let seen = self.shadows.get(&device).map_or(0, |shadow| shadow.seen);
            self.underway.insert(token, Underway { device, request, until_ms: now.tick + PATIENCE_MS, seen });
        }
        publishes
    }

    /// The update that takes ended wishes out of `desired`; nothing if there are none.
    fn cleaning(&self, device: &DeviceId, token: &str) -> Option<Value> {
        let shadow = self.shadows.get(device)?;
        let (ended, refused) = shadow.ended();
        if ended.is_empty() {
            return None;
        }
        let mut state = object(json!({"desired": ended}));
        if !refused.is_empty() {
            state.insert("reported".to_owned(), json!({"_desired": refused}));
        }
        Some(json!({"state": state, "version": shadow.base.version, "clientToken": token}))
    }

    fn remember(&mut self, device: &DeviceId, now: Now) {
        if let Some(shadow) = self.shadows.get_mut(device) {
            shadow.remembered_ms = now.tick;
            shadow.version_is_new = false;
            self.remembered.insert(format!("{MEMORY}{device}"), shadow.base.to_text());
        }
    }

    /// One part of a batch as a patch of `reported`, and whether it ends a wish.
    fn patch(&mut self, device: &DeviceId, part: &Part) -> Result<Map<String, Value>, String> {
        let content = part.content.as_deref();
        Ok(match &part.item {
            Item::Reported(property) => {
                let Some(content) = content else {
                    return Ok(object(json!({property.as_str(): null, "_quality": {property.as_str(): null}})));
                };
                let reported: ReportedOut = serde_json::from_slice(content).map_err(|error| error.to_string())?;
                let quality = (reported.quality != crate::value::Quality::Good).then(|| reported.quality.to_string());
                let mut patch = object(json!({"_quality": {property.as_str(): quality}}));
                if let Some(value) = shown(&reported) {
                    patch.insert(property.to_string(), sayable(value)?);
                }
                patch
            }
            Item::Desired(property) => {
                let Some(content) = content else {
                    self.end(device, property.as_str());
                    return Ok(object(json!({"_desired": {property.as_str(): null}})));
                };
                let desired: DesiredOut = serde_json::from_slice(content).map_err(|error| error.to_string())?;
                if self.shadows.get(device).and_then(|shadow| shadow.base.ends(property.as_str(), &desired)).is_some() {
                    self.end(device, property.as_str());
                }
                let value = if desired.value.is_null() { Value::Null } else { sayable(&desired.value)? };
                object(json!({"_desired": {property.as_str(): {"value": value, "state": word(desired.state),
                    "version": desired.version, "at": desired.at, "by": desired.by, "reason": desired.reason}}}))
            }
            Item::Status => {
                let Some(content) = content else { return Ok(object(json!({"_status": null}))) };
                let status: DeviceStatus = serde_json::from_slice(content).map_err(|error| error.to_string())?;
                object(json!({"_status": status}))
            }
            Item::Conflict => match content.map(serde_json::from_slice::<Value>) {
                Some(Ok(conflict)) => object(json!({"_conflict": sayable(&conflict)?})),
                _ => object(json!({"_conflict": null})),
            },
            Item::Delta | Item::Document => Map::new(),
        })
    }

    /// Marks a wish as ended, so that it is taken out of `desired`.
    fn end(&mut self, device: &DeviceId, name: &str) {
        if let Some(leaf) = self.shadows.get_mut(device).and_then(|shadow| shadow.base.leaves.get_mut(name)) {
            leaf.done = true;
        }
    }

    fn say_device(&mut self, device: &DeviceId, batch: &Batch, now: Now) -> Saying {
        let mut unsayable = Vec::new();
        let mut patch = Map::new();
        let mut after = self.shadows.get(device).map(|shadow| shadow.reported.clone()).unwrap_or_default();
        for part in &batch.parts {
            let (tried, said) = match self.patch(device, part) {
                Ok(said) => {
                    let mut tried = after.clone();
                    merge(&mut tried, &said);
                    (tried, said)
                }
                Err(why) => {
                    unsayable.push((part.item.clone(), why));
                    continue;
                }
            };
            let bytes = bytes_of(&tried);
            // What makes the shadow smaller is always welcome.
            if bytes > SHADOW_BYTES && bytes > bytes_of(&after) {
                let why = format!("the shadow of {device} would have {bytes} bytes, AWS takes {SHADOW_BYTES}");
                unsayable.push((part.item.clone(), why));
                continue;
            }
            after = tried;
            join(&mut patch, said);
        }
        let shadow = self.shadows.entry(device.clone()).or_default();
        let (ended, refused) = shadow.ended();
        if !refused.is_empty() {
            join(&mut patch, object(json!({"_desired": refused})));
        }
        let version = shadow.base.version;
        if patch.is_empty() && ended.is_empty() {
            return Saying { publishes: Vec::new(), settle: Settle::Puback, unsayable };
        }
        // One batch of a device is under way at a time; an older one was given up.
        self.said.retain(|_, of| of.as_ref() != Some(device));
        let token = self.token();
        let mut state = Map::new();
        if !patch.is_empty() {
            state.insert("reported".to_owned(), Value::Object(patch));
        }
        if !ended.is_empty() {
            state.insert("desired".to_owned(), Value::Object(ended));
            self.remember(device, now);
        }
        let mut request = object(json!({"state": state, "clientToken": token}));
        if version > 0 {
            request.insert("version".to_owned(), json!(version));
        }
        let topic = format!("{}/update", self.prefix(device));
        let payload = Value::Object(request).to_string().into();
        self.said.insert(token.clone(), Some(device.clone()));
        let publish = Publish { topic, payload, qos: 1, ..Publish::default() };
        Saying { publishes: vec![publish], settle: Settle::Reply(token), unsayable }
    }

    fn say_gateway(&mut self, batch: &Batch) -> Saying {
        let status: Option<Value> = batch.gateway.as_deref().and_then(|status| serde_json::from_slice(status).ok());
        self.said.retain(|_, of| of.is_some());
        let token = self.token();
        let payload = json!({"state": {"reported": {"gateway": status}}, "clientToken": token}).to_string().into();
        self.said.insert(token.clone(), None);
        let publish = Publish { topic: format!("{}/update", self.own_prefix()), payload, qos: 1, ..Publish::default() };
        Saying { publishes: vec![publish], settle: Settle::Reply(token), unsayable: Vec::new() }
    }

    fn learn_names(&mut self, site: &Site) {
        self.names = site.devices.keys().map(|device| (shadow_name(device.as_str()), device.clone())).collect();
    }

    /// Fetches the shadows of devices that came into the site, and forgets those that left it.
    fn keep_up(&mut self, site: &Site) {
        if self.names.len() != site.devices.len()
            || site.devices.keys().any(|device| !self.shadows.contains_key(device))
        {
            self.learn_names(site);
            let gone: Vec<DeviceId> =
                self.shadows.keys().filter(|device| !site.devices.contains_key(*device)).cloned().collect();
            for device in gone {
                self.shadows.remove(&device);
                self.remembered.insert(format!("{MEMORY}{device}"), None);
            }
            let mut new: Vec<&DeviceId> = site.devices.keys().filter(|device| !self.ready(Some(device))).collect();
            new.sort();
            for device in new {
                self.shadows.entry(device.clone()).or_default();
                self.ask(device, Request::Fetch);
            }
        }
    }
}

impl Dialect for Aws {
    fn session(&self, site: &Site) -> Session {
        let will = Publish {
            topic: format!("{}/status", self.telemetry),
            payload: json!({"gateway": site.gateway, "state": "offline"}).to_string().into(),
            qos: 1,
            ..Publish::default()
        };
        let alpn = if self.port_443 { vec![ALPN.to_owned()] } else { Vec::new() };
        Session { client_id: Some(self.thing.clone()), alpn, will: Some(will), ..Session::default() }
    }

    fn subscriptions(&self, _site: &Site) -> Vec<(String, u8)> {
        let ends = ["get/accepted", "get/rejected", "update/accepted", "update/rejected", "update/delta"];
        let own = self.own_prefix();
        let (prefix, own_ends) = if self.thing_per_device {
            ("$aws/things/+/shadow".to_owned(), Vec::new())
        } else {
            (format!("{own}/name/+"), vec![format!("{own}/update/accepted"), format!("{own}/update/rejected")])
        };
        ends.map(|end| format!("{prefix}/{end}")).into_iter().chain(own_ends).map(|filter| (filter, 1)).collect()
    }

    fn wants(&self, item: &Item) -> bool {
        matches!(item, Item::Status | Item::Reported(_) | Item::Desired(_) | Item::Conflict)
    }

    fn batch_bytes(&self) -> usize {
        // The words around values take room as well.
        6 << 10
    }

    fn window(&self) -> usize {
        WINDOW
    }

    fn connected(&mut self, site: &Site, _resumed: bool, now: Now) -> Vec<Publish> {
        self.run = u64::try_from(now.wall.as_ms()).unwrap_or(0) ^ (now.tick << 1);
        self.learn_names(site);
        self.quiet_until_ms = 0;
        let mut devices: Vec<&DeviceId> = site.devices.keys().collect();
        devices.sort();
        for device in devices {
            self.shadows.entry(device.clone()).or_default();
            self.ask(device, Request::Fetch);
        }
        let payload = json!({"gateway": site.gateway, "state": "online"}).to_string().into();
        let online = Publish { topic: format!("{}/status", self.telemetry), payload, qos: 1, ..Publish::default() };
        std::iter::once(online).chain(self.go_on(now)).collect()
    }

    fn disconnected(&mut self) {
        self.waiting.clear();
        self.underway.clear();
        self.said.clear();
        let mut stale = Vec::new();
        for (device, shadow) in &mut self.shadows {
            shadow.fetched = false;
            (shadow.seen, shadow.older) = (0, 0);
            if std::mem::take(&mut shadow.version_is_new) {
                stale.push((format!("{MEMORY}{device}"), shadow.base.to_text()));
            }
        }
        self.remembered.extend(stale);
    }

    fn ready(&self, device: Option<&DeviceId>) -> bool {
        device.is_none_or(|device| self.shadows.get(device).is_some_and(|shadow| shadow.fetched))
    }

    fn say(&mut self, batch: &Batch, _site: &Site, now: Now) -> Saying {
        match &batch.device {
            Some(device) => self.say_device(&device.clone(), batch, now),
            None => self.say_gateway(batch),
        }
    }

    fn stream(&mut self, streamed: &[Streamed], site: &Site, _now: Now) -> Vec<Publish> {
        let publish = |(device, document): (DeviceId, Value)| Publish {
            topic: format!("{}/readings/{device}", self.telemetry),
            payload: document.to_string().into(),
            qos: 1,
            ..Publish::default()
        };
        readings(streamed, site).into_iter().map(publish).collect()
    }

    fn gap(&mut self, gap: &Gap, site: &Site, _now: Now) -> Vec<Publish> {
        let payload = json!({"gateway": site.gateway, "epoch": site.epoch, "class": super::base::class_word(gap.class),
            "from_seq": gap.from_seq, "to_seq": gap.to_seq, "reason": gap.reason});
        let topic = format!("{}/gap", self.telemetry);
        vec![Publish { topic, payload: payload.to_string().into(), qos: 1, ..Publish::default() }]
    }

    fn hear(&mut self, message: &Message, _site: &Site, now: Now) -> Vec<Heard> {
        let Some((device, about)) = self.read_topic(&message.topic) else {
            // With a thing per device the filters catch things of others, too.
            return Vec::new();
        };
        let said: Said = match serde_json::from_slice(&message.payload) {
            Ok(said) => said,
            Err(_) => {
                return vec![Heard::Senseless(format!("{}: no JSON document", text_of(message.topic.as_bytes())))];
            }
        };
        let token = said.token.clone().unwrap_or_default();
        let underway = self.underway.remove(&token);
        let batch = self.said.remove(&token);
        let mut heard = Vec::new();
        match (about, &device) {
            (About::GetAccepted, Some(device)) => {
                heard.extend(self.on_document(device, &said, underway.as_ref().map(|asked| asked.seen), now));
            }
            (About::UpdateAccepted, device) => {
                if let Some(device) = device {
                    heard.extend(self.on_accepted(device, &said, now));
                }
                if batch.is_some() {
                    heard.push(Heard::Settled { token, outcome: Settled::Accepted });
                }
            }
            (About::Delta, Some(device)) => heard.extend(self.on_delta(device, &said, now)),
            (About::GetRejected | About::UpdateRejected, _) => {
                if let Some(underway) = underway {
                    heard.extend(self.on_request_refused(&underway, &said, now));
                } else if batch.is_some() {
                    let outcome = self.on_refused(device.as_ref(), &said);
                    heard.push(Heard::Settled { token, outcome });
                }
            }
            (About::Other(what), _) => {
                heard.push(Heard::Senseless(format!("nothing is known of {}", text_of(what.as_bytes()))))
            }
            (About::GetAccepted | About::Delta, None) => {}
        }
        heard.extend(self.go_on(now).into_iter().map(Heard::Say));
        heard
    }

    fn answered(&mut self, answer: &Answer, _site: &Site, now: Now) -> Vec<Publish> {
        let Some(name) = &answer.reply.note else { return Vec::new() };
        match &answer.result {
            Ok(local) => {
                if let Some(shadow) = self.shadows.get_mut(&answer.device) {
                    shadow.base.accepted(name, *local);
                }
                self.remember(&answer.device, now);
                Vec::new()
            }
            Err((NOT_NOW, _)) => {
                // Fetched again after a while; what was not answered is news there.
                self.quiet_until_ms = now.tick + TROUBLED_MS;
                self.ask(&answer.device, Request::Fetch);
                Vec::new()
            }
            Err((code, errors)) => {
                if let Some(shadow) = self.shadows.get_mut(&answer.device) {
                    shadow.base.refused(name, *code, errors);
                }
                self.remember(&answer.device, now);
                self.ask(&answer.device, Request::Clean);
                self.go_on(now)
            }
        }
    }

    fn document(&mut self, _: &DeviceId, _: &[u8], _: &Reply, _: &Site, _: Now) -> Vec<Publish> {
        Vec::new()
    }

    fn tick(&mut self, site: &Site, now: Now) -> Vec<Publish> {
        self.keep_up(site);
        let late: Vec<String> =
            self.underway.iter().filter(|(_, at)| at.until_ms <= now.tick).map(|(token, _)| token.clone()).collect();
        for token in late {
            if let Some(underway) = self.underway.remove(&token) {
                self.ask(&underway.device, underway.request);
            }
        }
        let stale: Vec<DeviceId> = self
            .shadows
            .iter()
            .filter(|(_, shadow)| shadow.version_is_new && now.tick >= shadow.remembered_ms + REMEMBER_MS)
            .map(|(device, _)| device.clone())
            .collect();
        stale.iter().for_each(|device| self.remember(device, now));
        self.go_on(now)
    }

    fn memory(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.remembered).into_iter().collect()
    }
}
