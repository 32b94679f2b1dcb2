//! KubeEdge's device topics at an edge node's broker: we are a mapper to its edgecore.
//!
//! In: batches of twin state, streamed readings, edgecore's results, deltas and membership notices. Out: `twin/update` with
//! actual values, `state/update`, `twin/get`, and what is expected as wishes. Must never write an expected value: after
//! one write of the edge the cloud's own writes are refused for good.
//!
//! How a twin stands there:
//!
//! * `actual` of key `P` is the reported value as text; while a reading is bad the last good one stays, and the device's
//!   state says more. A property that is gone is deleted, unless something is expected of it.
//! * `expected` of key `P` is a wish; edgecore's time of it decides under the rule `newest`. A wish that was refused here
//!   has no place there: the bridge's status tells of it.
//! * A status is a `state/update` with `online`, `offline`, `unhealthy` (stale) or `unknown`.
//! * Streamed readings go to `$ke/events/device/…/data/update`, which applications beside edgecore read.
//!
//! edgecore takes an update whole or not at all, so one that was refused is said again key by key. Values outside its
//! alphabet are not sent: its complaint about those names no device. A device that edgecore does not have is asked
//! for once a minute, and at once when it tells of it.
//!
//! Source: kubeedge 1.23, `edge/pkg/devicetwin`, and recordings of it.

mod hearing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use serde_json::json;

use super::base::{Base, NOT_NOW, shown};
use super::{Answer, Dialect, Heard, Message, Publish, Reply, Saying, Session, Settle, Site};
use crate::kubeedge::message::{
    BaseMessage, MsgTwin, StateMessage, TwinMessage, TwinValue, TypeMetadata, ValueMetadata,
};
use crate::kubeedge::topic::{self, KubeId};
use crate::kubeedge::{KEY_BYTES, kind_name, to_text};
use crate::message::{DeviceState, DeviceStatus, ReportedOut};
use crate::name::DeviceId;
use crate::outbox::{Batch, Gap, Item, Part, Streamed};
use crate::profile::Kind;
use crate::value::{Now, Value};

/// Questions under way; edgecore has one worker for all devices.
const QUESTIONS: usize = 20;

/// After this time a question is asked again; in milliseconds.
const PATIENCE_MS: u64 = 20_000;

/// A device that edgecore does not have is asked for again after this time; in milliseconds.
const ABSENCE_MS: u64 = 60_000;

/// Batches in flight: edgecore writes each to its disk before it takes the next.
const WINDOW: usize = 8;

/// The longest value edgecore takes, in bytes.
const VALUE_BYTES: usize = 512;

/// Bytes of one message of streamed readings.
const READINGS_BYTES: usize = 32 << 10;

/// The memory's key of a device begins with this.
const MEMORY: &str = "device/";

/// Where a device stands at edgecore in this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Asked for; until then an answer is waited for.
    Asked { until: u64 },
    /// edgecore has it.
    Known,
    /// edgecore does not have it; asked for again then.
    Absent { again: u64 },
}

/// An update whose result is waited for.
#[derive(Clone, Debug)]
struct Underway {
    device: DeviceId,
    keys: Keys,
    /// Said key by key: event ids without a result, with their keys.
    open: BTreeMap<String, String>,
    /// What was refused, and why.
    no: Vec<String>,
}

/// An edge node of KubeEdge as the other party.
pub struct KubeEdge {
    namespace: Option<String>,
    node: Option<String>,
    /// Wishes by device; kept over restarts. The version is 1 once edgecore took a value of the device.
    bases: HashMap<DeviceId, Base>,
    standing: HashMap<DeviceId, Standing>,
    /// Complained of as absent; said once.
    told: BTreeSet<DeviceId>,
    underway: BTreeMap<String, Underway>,
    /// Makes event ids of this session unlike those of others.
    session: String,
    count: u64,
    silent: bool,
    remembered: BTreeMap<String, Option<String>>,
}

impl KubeEdge {
    /// `namespace` is that of devices whose id names none; without it ids have one level, as up to KubeEdge 1.16.
    /// `node` narrows the membership notices to one node. `memory` is what [`Dialect::memory`] gave in earlier runs.
    pub fn new(namespace: Option<&str>, node: Option<&str>, memory: Vec<(String, String)>) -> Self {
        let bases = memory.into_iter().filter_map(|(key, text)| {
            let device: DeviceId = key.strip_prefix(MEMORY)?.parse().ok()?;
            Some((device, Base::from_text(&text)))
        });
        Self {
            namespace: namespace.map(str::to_owned),
            node: node.map(str::to_owned),
            bases: bases.collect(),
            standing: HashMap::new(),
            told: BTreeSet::new(),
            underway: BTreeMap::new(),
            session: String::new(),
            count: 0,
            silent: false,
            remembered: BTreeMap::new(),
        }
    }

    fn id(&self, device: &DeviceId) -> KubeId {
        KubeId::of(device, self.namespace.as_deref())
    }

    fn remember(&mut self, device: &DeviceId) {
        if let Some(base) = self.bases.get(device) {
            self.remembered.insert(format!("{MEMORY}{device}"), base.to_text());
        }
    }

    fn event_id(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.session, self.count)
    }

    /// Asks for devices that nothing is known of, forgets those that are gone here.
    fn go_on(&mut self, site: &Site, now: Now) -> Vec<Publish> {
        let gone: Vec<DeviceId> = self.bases.keys().filter(|id| !site.devices.contains_key(*id)).cloned().collect();
        for device in gone {
            self.bases.remove(&device);
            self.remembered.insert(format!("{MEMORY}{device}"), None);
        }
        self.standing.retain(|device, _| site.devices.contains_key(device));
        let waiting = |standing: &Standing| matches!(standing, Standing::Asked { until } if *until > now.tick);
        let mut room = QUESTIONS.saturating_sub(self.standing.values().filter(|standing| waiting(standing)).count());
        let mut due: Vec<&DeviceId> = site
            .devices
            .keys()
            .filter(|device| match self.standing.get(*device) {
                None => true,
                Some(Standing::Known) => false,
                Some(Standing::Asked { until: time } | Standing::Absent { again: time }) => *time <= now.tick,
            })
            .collect();
        due.sort();
        let mut publishes = Vec::new();
        for device in due {
            if room == 0 {
                break;
            }
            room -= 1;
            let silent = Standing::Asked { until: now.tick + PATIENCE_MS };
            if matches!(self.standing.insert(device.clone(), silent), Some(Standing::Asked { .. })) {
                self.silent = true;
            }
            let question = BaseMessage { event_id: self.event_id(), timestamp: now.wall.as_ms() };
            publishes.push(publish(topic::device(&self.id(device), "twin/get"), &question));
        }
        publishes
    }

    /// The keys of a batch, and what cannot be said.
    fn keys(&self, batch: &Batch, device: &DeviceId, site: &Site) -> (Keys, Vec<(Item, String)>) {
        let (mut keys, mut unsayable) = (Keys::new(), Vec::new());
        for part in &batch.parts {
            let Item::Reported(property) = &part.item else { continue };
            match self.key(part, device, property.as_str(), site) {
                Ok(Some(twin)) => {
                    keys.insert(property.to_string(), twin);
                }
                Ok(None) => {}
                Err(why) => unsayable.push((part.item.clone(), why)),
            }
        }
        (keys, unsayable)
    }

    /// One reported property; nothing where it never had a value, `Some(None)` to delete it.
    fn key(&self, part: &Part, device: &DeviceId, name: &str, site: &Site) -> Result<Option<Option<MsgTwin>>, String> {
        if name.len() > KEY_BYTES || !name.bytes().all(is_sayable) {
            return Err("edgecore takes no key of that spelling".to_owned());
        }
        let Some(content) = part.content.as_deref() else {
            let expected = self.bases.get(device).is_some_and(|base| base.leaves.contains_key(name));
            return Ok((!expected).then_some(None));
        };
        let reported: ReportedOut = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        let Some(value) = shown(&reported) else { return Ok(None) };
        let text = to_text(value);
        let kind = kind_of(device, name, site);
        check(&text, kind)?;
        let metadata = Some(ValueMetadata { timestamp: reported.at.as_ms() });
        Ok(Some(Some(MsgTwin {
            actual: Some(TwinValue { value: Some(text), metadata }),
            metadata: Some(TypeMetadata { kind: kind_name(kind).to_owned() }),
            ..MsgTwin::default()
        })))
    }

    fn update(&self, device: &DeviceId, event_id: &str, keys: Keys, now: Now) -> Publish {
        let message = TwinMessage { event_id: event_id.to_owned(), timestamp: now.wall.as_ms(), twin: Some(keys) };
        publish(topic::device(&self.id(device), "twin/update"), &message)
    }
}

/// Keys of an update; `None` deletes.
type Keys = BTreeMap<String, Option<MsgTwin>>;

fn publish(topic: String, payload: &impl Serialize) -> Publish {
    // These types hold nothing that JSON cannot.
    let payload = serde_json::to_vec(payload).unwrap_or_default();
    Publish { topic, payload, qos: 1, ..Publish::default() }
}

/// What KubeEdge's alphabet for keys and values has.
fn is_sayable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.,:/@#".contains(&byte)
}

/// Whether edgecore takes this text for a value of this type.
fn check(text: &str, kind: Kind) -> Result<(), String> {
    if text.len() > VALUE_BYTES {
        return Err(format!("{} bytes; edgecore takes values of {VALUE_BYTES}", text.len()));
    }
    if let Some(bad) = text.chars().find(|letter| !u8::try_from(*letter).is_ok_and(is_sayable)) {
        return Err(format!("holds {bad:?}; edgecore takes letters, digits and -_.,:/@# alone"));
    }
    match kind {
        Kind::Int if text.parse::<i64>().is_err() => Err(format!("{text} is no integer of 64 bits with a sign")),
        _ => Ok(()),
    }
}

/// The type of a property; text where the profile has none of that name.
fn kind_of(device: &DeviceId, name: &str, site: &Site) -> Kind {
    let profile = site.devices.get(device);
    let property = profile.and_then(|profile| profile.properties.get(profile.find(name)?));
    property.map_or(Kind::String, |property| property.kind)
}

fn state(batch: &Batch) -> Option<&'static str> {
    let status = batch.parts.iter().rev().find(|part| part.item == Item::Status)?;
    let status: Option<DeviceStatus> =
        status.content.as_deref().and_then(|content| serde_json::from_slice(content).ok());
    Some(match status.map_or(DeviceState::Unknown, |status| status.state) {
        DeviceState::Online => "online",
        DeviceState::Offline => "offline",
        DeviceState::Stale => "unhealthy",
        DeviceState::Unknown => "unknown",
    })
}

/// One streamed reading as `$ke` data: key and member.
fn reading(streamed: &Streamed, site: &Site) -> Option<(String, Value)> {
    let reported: ReportedOut = serde_json::from_slice(&streamed.payload).ok()?;
    if reported.value.is_null() {
        return None;
    }
    let kind = kind_name(kind_of(&streamed.device, streamed.property.as_str(), site));
    let metadata = json!({"timestamp": reported.at.as_ms(), "type": kind});
    Some((streamed.property.to_string(), json!({"value": to_text(&reported.value), "metadata": metadata})))
}

impl Dialect for KubeEdge {
    fn session(&self, _site: &Site) -> Session {
        // What edgecore said while we were away is asked for instead.
        Session::default()
    }

    fn subscriptions(&self, _site: &Site) -> Vec<(String, u8)> {
        let id = if self.namespace.is_some() { "+/+" } else { "+" };
        let mut filters: Vec<String> = ["twin/update/result", "twin/update/delta", "twin/get/result"]
            .map(|end| format!("$hw/events/device/{id}/{end}"))
            .into();
        filters.push(topic::node(self.node.as_deref().unwrap_or("+"), "membership/updated"));
        filters.into_iter().map(|filter| (filter, 1)).collect()
    }

    fn wants(&self, item: &Item) -> bool {
        matches!(item, Item::Status | Item::Reported(_))
    }

    fn window(&self) -> usize {
        WINDOW
    }

    fn connected(&mut self, site: &Site, _resumed: bool, now: Now) -> Vec<Publish> {
        self.disconnected();
        self.session = format!("{}-{}", site.gateway, now.wall.as_ms());
        self.go_on(site, now)
    }

    fn disconnected(&mut self) {
        self.standing.clear();
        self.underway.clear();
        self.told.clear();
        self.silent = false;
    }

    fn ready(&self, device: Option<&DeviceId>) -> bool {
        device.is_none_or(|device| self.standing.get(device) == Some(&Standing::Known))
    }

    fn say(&mut self, batch: &Batch, site: &Site, now: Now) -> Saying {
        let Some(device) = &batch.device else {
            return Saying { publishes: Vec::new(), settle: Settle::Puback, unsayable: Vec::new() };
        };
        let (keys, unsayable) = self.keys(batch, device, site);
        let mut publishes = Vec::new();
        if let Some(state) = state(batch) {
            let said = StateMessage { event_id: self.event_id(), timestamp: now.wall.as_ms(), state: state.to_owned() };
            publishes.push(publish(topic::device(&self.id(device), "state/update"), &said));
        }
        if keys.is_empty() {
            return Saying { publishes, settle: Settle::Puback, unsayable };
        }
        let token = self.event_id();
        publishes.push(self.update(device, &token, keys.clone(), now));
        // One batch of a device is in flight; an older one was given up by the engine.
        self.underway.retain(|_, underway| underway.device != *device);
        self.underway
            .insert(token.clone(), Underway { device: device.clone(), keys, open: BTreeMap::new(), no: Vec::new() });
        Saying { publishes, settle: Settle::Reply(token), unsayable }
    }

    fn stream(&mut self, readings: &[Streamed], site: &Site, now: Now) -> Vec<Publish> {
        let mut messages: Vec<(&DeviceId, serde_json::Map<String, Value>, usize)> = Vec::new();
        for one in readings {
            let Some((key, member)) = reading(one, site) else { continue };
            let length = key.len() + one.payload.len();
            match messages.last_mut() {
                // A message has each key once.
                Some((device, data, bytes))
                    if **device == one.device && !data.contains_key(&key) && *bytes + length <= READINGS_BYTES =>
                {
                    data.insert(key, member);
                    *bytes += length;
                }
                _ => messages.push((&one.device, serde_json::Map::from_iter([(key, member)]), length)),
            }
        }
        let said = |(device, data, _): (&DeviceId, _, _)| {
            let message =
                json!({"event_id": self.event_id(), "timestamp": now.wall.as_ms(), "data": Value::Object(data)});
            publish(format!("$ke/events/device/{}/data/update", self.id(device)), &message)
        };
        messages.into_iter().map(said).collect()
    }

    fn gap(&mut self, _gap: &Gap, _site: &Site, _now: Now) -> Vec<Publish> {
        Vec::new()
    }

    fn hear(&mut self, message: &Message, site: &Site, now: Now) -> Vec<Heard> {
        let mut heard = self.understand(message, site, now);
        heard.extend(self.go_on(site, now).into_iter().map(Heard::Say));
        heard
    }

    fn answered(&mut self, answer: &Answer, _site: &Site, _now: Now) -> Vec<Publish> {
        let Some(name) = answer.reply.note.as_deref() else { return Vec::new() };
        let Some(base) = self.bases.get_mut(&answer.device) else { return Vec::new() };
        match &answer.result {
            Ok(local) => base.accepted(name, *local),
            Err((NOT_NOW, _)) => {
                // Asked for once more; what was not answered is news then.
                self.standing.remove(&answer.device);
                return Vec::new();
            }
            Err((code, errors)) => base.refused(name, *code, errors),
        }
        self.remember(&answer.device);
        Vec::new()
    }

    fn document(&mut self, _: &DeviceId, _: &[u8], _: &Reply, _: &Site, _: Now) -> Vec<Publish> {
        Vec::new()
    }

    fn tick(&mut self, site: &Site, now: Now) -> Vec<Publish> {
        self.go_on(site, now)
    }

    fn noticed(&mut self, _now: Now) -> Vec<Heard> {
        if !std::mem::take(&mut self.silent) {
            return Vec::new();
        }
        let text = "edgecore does not answer; does it run, and is its event bus on this broker (mqttMode 1 or 2)?";
        vec![Heard::Senseless(text.to_owned())]
    }

    fn memory(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.remembered).into_iter().collect()
    }
}
