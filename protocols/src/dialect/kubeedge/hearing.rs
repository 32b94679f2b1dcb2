//! What edgecore says: results, deltas, answers to `twin/get`, membership notices.
//!
//! In: a message of the edge node's broker. Out: wishes, settled batches, what has to be said again. Must never take
//! another mapper's device or another client's result for ours.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::{CloudWish, Heard, Message, text_of};
use super::{ABSENCE_MS, Keys, KubeEdge, Site, Standing, Underway};
use crate::kubeedge::message::MsgTwin;
use crate::kubeedge::to_value;
use crate::kubeedge::topic::KubeId;
use crate::name::DeviceId;
use crate::outbox::Settled;
use crate::value::{Now, Timestamp, Value};

/// How long a batch waits after an error that is edgecore's own; in milliseconds.
const LATER_MS: u64 = 5_000;

/// A result, a delta or an error: edgecore tells them apart by what is there.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    event_id: String,
    #[serde(default)]
    twin: Option<Keys>,
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
struct Membership {
    #[serde(default)]
    added_devices: Option<Vec<Member>>,
    #[serde(default)]
    removed_devices: Option<Vec<Member>>,
}

#[derive(Debug, Default, Deserialize)]
struct Member {
    #[serde(default)]
    id: String,
}

/// The id in `$hw/events/device/<id>/<end>`.
fn id_before(topic: &str, end: &str) -> Option<KubeId> {
    id_of(topic.strip_prefix("$hw/events/device/")?.strip_suffix(end)?)
}

fn id_of(text: &str) -> Option<KubeId> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, text),
    };
    let whole = !name.is_empty() && !name.contains('/') && namespace.as_ref().is_none_or(|text| !text.is_empty());
    whole.then(|| KubeId { namespace, name: name.to_owned() })
}

impl KubeEdge {
    pub(super) fn understand(&mut self, message: &Message, site: &Site, now: Now) -> Vec<Heard> {
        let topic = message.topic.as_str();
        let unreadable = || vec![Heard::Senseless(format!("{}: not as edgecore writes it", text_of(topic.as_bytes())))];
        if topic.ends_with("/membership/updated") {
            return match serde_json::from_slice::<Membership>(&message.payload) {
                Ok(membership) => self.on_membership(&membership, site, now),
                Err(_) => unreadable(),
            };
        }
        for end in ["/twin/update/result", "/twin/update/delta", "/twin/get/result"] {
            let Some(id) = id_before(topic, end) else { continue };
            // The bus carries all devices of the node; most are other mappers'.
            let Some(device) = id.device(self.namespace.as_deref()).filter(|id| site.devices.contains_key(id)) else {
                return Vec::new();
            };
            return match serde_json::from_slice::<Answer>(&message.payload) {
                Ok(answer) if end == "/twin/update/result" => self.on_result(&device, &answer, site, now),
                Ok(answer) if end == "/twin/get/result" => self.on_twin(&device, &answer, site, now),
                Ok(answer) => self.on_expected(&device, answer.twin.as_ref(), site),
                Err(_) => unreadable(),
            };
        }
        vec![Heard::Senseless(format!("nothing is known of the topic {}", text_of(topic.as_bytes())))]
    }

    fn on_membership(&mut self, membership: &Membership, site: &Site, now: Now) -> Vec<Heard> {
        let home = self.namespace.clone();
        let ours = |members: &Option<Vec<Member>>| -> Vec<DeviceId> {
            let members = members.iter().flatten().filter_map(|member| id_of(&member.id)?.device(home.as_deref()));
            members.filter(|device| site.devices.contains_key(device)).collect()
        };
        for device in ours(&membership.removed_devices) {
            self.standing.insert(device, Standing::Absent { again: now.tick + ABSENCE_MS });
        }
        for device in ours(&membership.added_devices) {
            // Asked for at once.
            self.standing.remove(&device);
            self.told.remove(&device);
        }
        Vec::new()
    }

    /// All that edgecore has of a device, or that it has no such device.
    fn on_twin(&mut self, device: &DeviceId, answer: &Answer, site: &Site, now: Now) -> Vec<Heard> {
        let Some(twin) = &answer.twin else {
            if answer.code == 404 {
                return self.absent(device, now);
            }
            return vec![Heard::Senseless(format!("{device}: {} {}", answer.code, text_of(answer.reason.as_bytes())))];
        };
        self.standing.insert(device.clone(), Standing::Known);
        self.told.remove(device);
        let base = self.bases.entry(device.clone()).or_default();
        let has_actual = twin.values().flatten().any(|twin| twin.actual.is_some());
        let mut heard = Vec::new();
        if base.version > 0 && !has_actual {
            // It was made anew there: what it took before is gone.
            base.version = 0;
            heard.push(Heard::Resync(Some(device.clone())));
        }
        let gone: Vec<String> = base
            .leaves
            .keys()
            .filter(|name| twin.get(*name).is_none_or(|twin| expected(twin.as_ref()).is_none()))
            .cloned()
            .collect();
        for name in gone {
            if let Some(value) = base.hear(&name, None, 0) {
                heard.push(wish(device, &name, value, None));
            }
        }
        self.remember(device);
        heard.extend(self.on_expected(device, Some(twin), site));
        heard
    }

    fn absent(&mut self, device: &DeviceId, now: Now) -> Vec<Heard> {
        self.standing.insert(device.clone(), Standing::Absent { again: now.tick + ABSENCE_MS });
        if !self.told.insert(device.clone()) {
            return Vec::new();
        }
        let id = self.id(device);
        vec![Heard::Senseless(format!("edgecore has no device {id}; make a Device of that name for its node"))]
    }

    /// What is expected of a device, as far as it is news.
    fn on_expected(&mut self, device: &DeviceId, twin: Option<&Keys>, site: &Site) -> Vec<Heard> {
        let mut heard = Vec::new();
        for (name, twin) in twin.into_iter().flatten() {
            let Some((text, at)) = expected(twin.as_ref()) else { continue };
            let stamp = at.and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
            let base = self.bases.entry(device.clone()).or_default();
            if base.hear(name, Some(&Value::String(text.to_owned())), stamp).is_none() {
                continue;
            }
            match value_of(device, name, text, site) {
                Ok(value) => heard.push(wish(device, name, value, at)),
                Err(why) => {
                    base.refused(name, 400, &BTreeMap::from([(name.clone(), why.clone())]));
                    heard.push(Heard::Senseless(format!("{device} {}: {why}", text_of(name.as_bytes()))));
                }
            }
            self.remember(device);
        }
        heard
    }

    fn on_result(&mut self, device: &DeviceId, answer: &Answer, site: &Site, now: Now) -> Vec<Heard> {
        let mut heard = self.settle(device, answer, now);
        // Whoever's update it was: what is expected now stands in its result.
        heard.extend(self.on_expected(device, answer.twin.as_ref(), site));
        heard
    }

    fn settle(&mut self, device: &DeviceId, answer: &Answer, now: Now) -> Vec<Heard> {
        let token = answer.event_id.split('.').next().unwrap_or_default().to_owned();
        let Some(mut underway) = self.underway.remove(&token).filter(|underway| underway.device == *device) else {
            return Vec::new();
        };
        let settled = |outcome| vec![Heard::Settled { token: token.clone(), outcome }];
        match (answer.twin.is_some(), answer.code) {
            (false, 404) => {
                let mut heard = settled(Settled::Later(LATER_MS));
                heard.extend(self.absent(device, now));
                heard
            }
            (false, code) if code >= 500 => settled(Settled::Later(LATER_MS)),
            (took, _) if underway.open.is_empty() => {
                if took {
                    self.took(device);
                    return settled(Settled::Accepted);
                }
                if underway.keys.len() < 2 {
                    return settled(Settled::Refused(text_of(answer.reason.as_bytes())));
                }
                let publishes = self.key_by_key(&token, &mut underway, now);
                self.underway.insert(token, underway);
                publishes
            }
            (took, _) => {
                let Some(key) = underway.open.remove(&answer.event_id) else {
                    self.underway.insert(token, underway);
                    return Vec::new();
                };
                if took {
                    self.took(device);
                } else {
                    underway.no.push(format!("{key}: {}", text_of(answer.reason.as_bytes())));
                }
                if !underway.open.is_empty() {
                    self.underway.insert(token, underway);
                    return Vec::new();
                }
                let refused = Settled::Refused(underway.no.join("; "));
                settled(if underway.no.is_empty() { Settled::Accepted } else { refused })
            }
        }
    }

    fn took(&mut self, device: &DeviceId) {
        let base = self.bases.entry(device.clone()).or_default();
        if base.version == 0 {
            base.version = 1;
            self.remember(device);
        }
    }

    /// One key of an update was wrong, and edgecore does not say which: each is said alone.
    fn key_by_key(&self, token: &str, underway: &mut Underway, now: Now) -> Vec<Heard> {
        let mut publishes = Vec::new();
        for (index, (key, twin)) in underway.keys.iter().enumerate() {
            let event_id = format!("{token}.{index}");
            let alone = BTreeMap::from([(key.clone(), twin.clone())]);
            publishes.push(Heard::Say(self.update(&underway.device, &event_id, alone, now)));
            underway.open.insert(event_id, key.clone());
        }
        publishes
    }
}

/// The expected text of a twin, with edgecore's time of it in milliseconds.
fn expected(twin: Option<&MsgTwin>) -> Option<(&str, Option<i64>)> {
    let expected = twin?.expected.as_ref()?;
    let text = expected.value.as_deref()?;
    Some((text, expected.metadata.map(|metadata| metadata.timestamp)))
}

fn value_of(device: &DeviceId, name: &str, text: &str, site: &Site) -> Result<Value, String> {
    let profile = site.devices.get(device);
    let property = profile.and_then(|profile| profile.properties.get(profile.find(name)?));
    match property {
        None => Err(format!("expected at edgecore, but {device} has no such property")),
        Some(property) if !property.access.writes() => Err("expected at edgecore, but it is read-only".to_owned()),
        Some(property) => to_value(property.kind, text).map_err(|refusal| refusal.reason),
    }
}

fn wish(device: &DeviceId, name: &str, value: Value, at: Option<i64>) -> Heard {
    let at = at.filter(|at| *at > 0).map(Timestamp::from_ms);
    Heard::Wish(CloudWish::one(device, name, value, at, name.to_owned()))
}
