//! What the hub says, taken in.
//!
//! In: the twin, desired patches, answers, direct methods. Out: wishes that are news, what became of batches, what has to be
//! asked next. Must never take a wish twice.

use std::collections::BTreeSet;

use serde_json::{Map, json};

use super::super::base::{join, merge};
use super::super::{CloudWish, Heard, Message, Reply, Site, text_of};
use super::twin::{Query, method_answer, object_at, plain_key, written_key};
use super::{Azure, MEMORY_TWIN, THROTTLED_MS, TROUBLED_MS};
use crate::name::DeviceId;
use crate::outbox::Settled;
use crate::value::{Now, Value};

impl Azure {
    pub(super) fn wish(device: &DeviceId, name: &str, value: Value) -> Heard {
        Heard::Wish(CloudWish::one(device, name, value, None, format!("twin:{name}")))
    }

    /// Takes in desired values: a whole section, or a patch of one. A patch is a wish by itself, a section only where it
    /// differs from what was heard before.
    pub(super) fn on_desired(
        &mut self,
        desired: &Map<String, Value>,
        whole: bool,
        version: u64,
        site: &Site,
    ) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut touched = BTreeSet::new();
        for (key, wishes) in desired.iter().filter(|(key, _)| !key.starts_with('$')) {
            let Some((device, _)) =
                plain_key(key).parse().ok().and_then(|id: DeviceId| site.devices.get_key_value(&id))
            else {
                heard.push(Heard::Senseless(format!(
                    "desired properties of {}, which is no device here",
                    text_of(key.as_bytes())
                )));
                continue;
            };
            let base = self.bases.entry(device.clone()).or_default();
            let empty = Map::new();
            let wishes = match wishes {
                Value::Object(wishes) => wishes,
                Value::Null => &empty,
                _ => {
                    heard.push(Heard::Senseless(format!("the desired properties of {device} are no object")));
                    continue;
                }
            };
            let gone: Vec<String> = if whole || desired.get(key).is_some_and(Value::is_null) {
                let there = |name: &String| wishes.contains_key(&written_key(name));
                base.leaves.keys().filter(|name| !there(name)).cloned().collect()
            } else {
                Vec::new()
            };
            let named = wishes.iter().filter(|(name, _)| *name != "__t").map(|(name, value)| (plain_key(name), value));
            for (name, value) in named.chain(gone.into_iter().map(|name| (name, &Value::Null))) {
                let value = (!value.is_null()).then_some(value);
                if !whole && let Some(leaf) = base.leaves.get_mut(&name) {
                    // Said again on purpose.
                    leaf.local = None;
                    leaf.done = false;
                }
                let before = base.leaves.get(&name).map(|leaf| leaf.stamp);
                // The hub has one version for all; a section that only got newer elsewhere is no news here.
                let stamp = if whole { before.unwrap_or(version) } else { version };
                if let Some(value) = base.hear(&name, value, stamp) {
                    if let Some(leaf) = base.leaves.get_mut(&name) {
                        leaf.stamp = version;
                    }
                    heard.push(Self::wish(device, &name, value));
                    touched.insert(device.clone());
                }
            }
        }
        touched.iter().for_each(|device| self.remember(device));
        heard
    }

    /// The twin came.
    pub(super) fn on_twin(&mut self, twin: &Map<String, Value>, site: &Site, now: Now) -> Vec<Heard> {
        let mut desired = object_at(twin, "desired");
        let version = desired.get("$version").and_then(Value::as_u64).unwrap_or(0);
        if self.fetched && version < self.desired_version {
            // Notifications overtook it; a twin that was made anew ends the connection, so this does not go on for ever.
            return vec![Heard::Say(self.get_twin(now))];
        }
        let mut heard = Vec::new();
        // A device without any desired value is not in there; what it had is gone.
        for device in self.bases.iter().filter(|(_, base)| !base.leaves.is_empty()).map(|(device, _)| device) {
            if site.devices.contains_key(device) {
                desired.entry(written_key(device.as_str())).or_insert(Value::Null);
            }
        }
        if version != self.desired_version || version == 0 || self.unanswered() {
            heard.extend(self.on_desired(&desired, true, version, site));
        }
        let mut reported = object_at(twin, "reported");
        reported.retain(|key, _| !key.starts_with('$'));
        let lost = self.fetched_before() && reported != self.reported;
        self.reported = reported;
        self.fetched = true;
        self.know_version(version);
        if lost {
            heard.push(Heard::Resync(None));
        }
        if self.early > version {
            heard.push(Heard::Say(self.get_twin(now)));
        }
        heard.extend(self.pay(now).map(Heard::Say));
        heard
    }

    /// Whether a wish was heard of which nobody knows whether it arrived.
    pub(super) fn unanswered(&self) -> bool {
        self.bases.values().any(|base| base.leaves.values().any(|leaf| leaf.local.is_none() && !leaf.done))
    }

    pub(super) fn fetched_before(&self) -> bool {
        !self.reported.is_empty()
    }

    pub(super) fn know_version(&mut self, version: u64) {
        if self.desired_version != version {
            self.desired_version = version;
            self.remembered.insert(MEMORY_TWIN.to_owned(), Some(version.to_string()));
        }
    }

    pub(super) fn on_notification(
        &mut self,
        message: &Message,
        query: &Query<'_>,
        site: &Site,
        now: Now,
    ) -> Vec<Heard> {
        let Ok(Value::Object(patch)) = serde_json::from_slice(&message.payload) else {
            return vec![Heard::Senseless("a desired patch that is no JSON object".to_owned())];
        };
        let in_body = patch.get("$version").and_then(Value::as_u64);
        let Some(version) = query.number("$version").or(in_body) else {
            return vec![Heard::Senseless("a desired patch without a version".to_owned())];
        };
        if !self.fetched {
            self.early = self.early.max(version);
            return Vec::new();
        }
        if version <= self.desired_version {
            return Vec::new();
        }
        if version > self.desired_version + 1 {
            // One is missing; the twin has it.
            return vec![Heard::Say(self.get_twin(now))];
        }
        let heard = self.on_desired(&patch, false, version, site);
        self.know_version(version);
        heard
    }

    pub(super) fn on_answer(
        &mut self,
        status: u16,
        message: &Message,
        query: &Query<'_>,
        site: &Site,
        now: Now,
    ) -> Vec<Heard> {
        let rid = query.text("$rid").unwrap_or_default();
        if self.get.as_ref().is_some_and(|(asked, _)| asked == rid) {
            return self.on_get(status, message, site, now);
        }
        let Some(underway) = self.underway.take_if(|underway| underway.rid == rid) else { return Vec::new() };
        let outcome = match status {
            200..300 => {
                merge(&mut self.reported, &underway.patch);
                Settled::Accepted
            }
            429 => Settled::Later(THROTTLED_MS),
            500.. => Settled::Later(TROUBLED_MS),
            _ => Settled::Refused(format!("IoT Hub says {status}: {}", text_of(&message.payload))),
        };
        let mut heard = Vec::new();
        if let Settled::Later(ms) = outcome {
            self.quiet_until_ms = now.tick + ms;
        }
        if !underway.own {
            heard.push(Heard::Settled { token: underway.rid, outcome });
        } else if matches!(outcome, Settled::Later(_)) {
            let mut owed = underway.patch;
            join(&mut owed, std::mem::take(&mut self.owed));
            self.owed = owed;
        } else if let Settled::Refused(why) = outcome {
            heard.push(Heard::Senseless(why));
        }
        heard.extend(self.pay(now).map(Heard::Say));
        heard
    }

    pub(super) fn on_get(&mut self, status: u16, message: &Message, site: &Site, now: Now) -> Vec<Heard> {
        self.get = None;
        match (status, serde_json::from_slice(&message.payload)) {
            (200, Ok(Value::Object(twin))) => {
                // Older descriptions have the sections one level deeper.
                let inner = twin.get("properties").and_then(Value::as_object).cloned();
                self.on_twin(&inner.unwrap_or(twin), site, now)
            }
            _ => {
                self.quiet_until_ms = now.tick + if status == 429 { THROTTLED_MS } else { TROUBLED_MS };
                vec![Heard::Senseless(format!("IoT Hub does not give the twin: {status}"))]
            }
        }
    }

    /// A direct method: `set` with `{"device","patch"}` is a wish, `get` with `{"device"}` asks for the document.
    pub(super) fn on_method(&mut self, name: &str, message: &Message, query: &Query<'_>, site: &Site) -> Heard {
        let rid = query.text("$rid").unwrap_or_default();
        let no = |status: u16, why: &str| Heard::Say(method_answer(rid, status, &json!({"error": why})));
        if !matches!(name, "set" | "get") {
            return no(501, "there are two methods: set {device, patch} and get {device}");
        }
        let request: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        let device = request.get("device").and_then(Value::as_str).and_then(|text| text.parse::<DeviceId>().ok());
        let Some(device) = device.filter(|device| site.devices.contains_key(device)) else {
            return no(404, "there is no such device; say it as \"device\"");
        };
        let reply = Reply { note: Some(format!("method:{rid}")), ..Reply::default() };
        if name == "get" {
            return Heard::Ask { device, reply };
        }
        let Some(patch) = request.get("patch").and_then(Value::as_object) else {
            return no(400, "say what is wished as \"patch\": {property: value}");
        };
        Heard::Wish(CloudWish {
            device,
            patch: patch.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            id: None,
            if_version: request.get("if_version").and_then(Value::as_u64),
            ttl_s: request.get("ttl_s").and_then(Value::as_u64),
            at: None,
            by: request.get("by").and_then(Value::as_str).map(str::to_owned),
            reply,
        })
    }
}
