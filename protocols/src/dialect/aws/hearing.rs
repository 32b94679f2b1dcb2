//! What the shadow service says, taken in.
//!
//! In: its documents, answers and refusals. Out: wishes that are news, what became of batches, what has to be asked next. Must
//! never take a wish twice, nor an answer for a newer state than it is of.

use super::super::base::merge;
use super::super::{CloudWish, Heard, text_of};
use super::shadow::{Said, Shadow, section, stamp};
use super::{Aws, Request, THROTTLED_MS, TROUBLED_MS, Underway};
use crate::name::DeviceId;
use crate::outbox::Settled;
use crate::value::{Now, Timestamp, Value};

/// So often a shadow may come back older than what was heard of it; then it was deleted and made anew, and counts.
const OLDER: u8 = 3;

impl Aws {
    /// A wish that is news.
    pub(super) fn wish(device: &DeviceId, name: &str, value: Value, seconds: Option<u64>) -> Heard {
        let at = seconds.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000)).map(Timestamp::from_ms);
        Heard::Wish(CloudWish::one(device, name, value, at, name.to_owned()))
    }

    /// Takes in a shadow that was fetched; `asked` is the highest version heard of when it was asked for.
    pub(super) fn on_document(&mut self, device: &DeviceId, said: &Said, asked: Option<u64>, now: Now) -> Vec<Heard> {
        let shadow = self.shadows.entry(device.clone()).or_default();
        if said.version < shadow.seen {
            // A second copy of an answer tells nothing.
            let Some(asked) = asked else { return Vec::new() };
            let strange = said.version < asked;
            if !strange || shadow.older < OLDER {
                // Something newer was heard while this was on its way.
                shadow.older += u8::from(strange);
                self.ask(device, Request::Fetch);
                return Vec::new();
            }
        }
        (shadow.older, shadow.seen) = (0, said.version);
        let reported = section(&said.state, "reported");
        let known = shadow.version_known(said.version, &reported);
        shadow.base.version = said.version;
        shadow.reported = reported;
        shadow.fetched = true;
        let before = shadow.base.leaves.clone();
        let desired = section(&said.state, "desired");
        let mut heard = Vec::new();
        let gone: Vec<String> =
            shadow.base.leaves.keys().filter(|name| !desired.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(value) = shadow.base.hear(&name, None, 0) {
                heard.push(Self::wish(device, &name, value, None));
            }
        }
        for (name, value) in &desired {
            let seconds = stamp(&said.metadata, &["desired"], name);
            if let Some(value) = shadow.base.hear(name, Some(value), seconds.unwrap_or(0)) {
                heard.push(Self::wish(device, name, value, seconds));
            }
        }
        let clean = shadow.base.leaves.values().any(|leaf| leaf.done);
        if shadow.base.leaves != before || !known {
            self.remember(device, now);
        }
        if clean {
            self.ask(device, Request::Clean);
        }
        if !known {
            heard.push(Heard::Resync(Some(device.clone())));
        }
        heard
    }

    /// There is no shadow (yet).
    pub(super) fn on_no_document(&mut self, device: &DeviceId, now: Now) -> Vec<Heard> {
        let shadow = self.shadows.entry(device.clone()).or_default();
        let had = shadow.base.version > 0;
        *shadow = Shadow { fetched: true, ..Shadow::default() };
        self.remember(device, now);
        if had { vec![Heard::Resync(Some(device.clone()))] } else { Vec::new() }
    }

    /// The shadow, if a message of this version comes in turn. One that is old is dropped; one that tells of a gap leads to
    /// the whole being fetched, which holds it too: what stands in it must not be taken before what is missing.
    fn in_turn(&mut self, device: &DeviceId, version: u64) -> Option<&mut Shadow> {
        let shadow = self.shadows.entry(device.clone()).or_default();
        shadow.seen = shadow.seen.max(version);
        if shadow.fetched && version > shadow.base.version + 1 {
            self.ask(device, Request::Fetch);
            return None;
        }
        self.shadows.get_mut(device).filter(|shadow| shadow.fetched && version >= shadow.base.version)
    }

    /// Somebody changed the shadow, perhaps we.
    pub(super) fn on_accepted(&mut self, device: &DeviceId, said: &Said, now: Now) -> Vec<Heard> {
        let ours = Self::is_ours(said.token.as_deref());
        let Some(shadow) = self.in_turn(device, said.version) else { return Vec::new() };
        let newer = said.version > shadow.base.version;
        shadow.base.version = said.version;
        shadow.version_is_new = true;
        let mut heard = Vec::new();
        let mut fetch = false;
        merge(&mut shadow.reported, &section(&said.state, "reported"));
        if ours {
            let cleared = section(&said.state, "desired");
            let known = shadow.base.leaves.len();
            shadow.base.leaves.retain(|name, leaf| !(leaf.done && cleared.get(name).is_some_and(Value::is_null)));
            if known != shadow.base.leaves.len() {
                self.remember(device, now);
            }
        } else {
            if said.state.get("reported").is_some() {
                // Reported belongs to us; whatever another one wrote there is put right.
                heard.push(Heard::Resync(Some(device.clone())));
            }
            let all = said.state.get("desired").is_some_and(Value::is_null);
            let mut desired = section(&said.state, "desired");
            if all {
                desired.extend(shadow.base.leaves.keys().map(|name| (name.clone(), Value::Null)));
            }
            let mut changed = false;
            for (name, value) in &desired {
                if value.is_object() {
                    // Only the changed members of an object are in here.
                    fetch = true;
                    continue;
                }
                let seconds = stamp(&said.metadata, &["desired"], name);
                if newer && seconds.is_none() {
                    // Written on purpose, perhaps with the old value, and nothing says when.
                    shadow.base.leaves.entry(name.clone()).and_modify(|leaf| leaf.stamp = 0);
                }
                let value = (!value.is_null()).then_some(value);
                let stamp = seconds.unwrap_or(u64::from(newer));
                if let Some(value) = shadow.base.hear(name, value, stamp) {
                    heard.push(Self::wish(device, name, value, seconds));
                    changed = true;
                }
            }
            if changed {
                self.remember(device, now);
            }
        }
        if fetch {
            self.ask(device, Request::Fetch);
        }
        heard
    }

    pub(super) fn on_delta(&mut self, device: &DeviceId, said: &Said, now: Now) -> Vec<Heard> {
        let Some(shadow) = self.in_turn(device, said.version) else { return Vec::new() };
        shadow.base.version = said.version;
        shadow.version_is_new = true;
        let (mut heard, mut fetch) = (Vec::new(), false);
        for (name, value) in said.state.as_object().into_iter().flatten() {
            if value.is_object() {
                // A delta of an object holds the differing members only.
                fetch = true;
                continue;
            }
            let seconds = stamp(&said.metadata, &[], name);
            if let Some(value) = shadow.base.hear(name, Some(value), seconds.unwrap_or(0)) {
                heard.push(Self::wish(device, name, value, seconds));
            }
        }
        if !heard.is_empty() {
            self.remember(device, now);
        }
        if fetch {
            self.ask(device, Request::Fetch);
        }
        heard
    }

    /// The service's no to a batch.
    pub(super) fn on_refused(&mut self, device: Option<&DeviceId>, said: &Said) -> Settled {
        let message = text_of(said.message.as_deref().unwrap_or("no reason given").as_bytes());
        match said.code.unwrap_or(0) {
            409 => {
                if let Some(device) = device {
                    if let Some(shadow) = self.shadows.get_mut(device) {
                        shadow.fetched = false;
                    }
                    self.ask(device, Request::Fetch);
                }
                Settled::Again
            }
            429 => Settled::Later(THROTTLED_MS),
            500.. => Settled::Later(TROUBLED_MS),
            code => Settled::Refused(format!("AWS says {code}: {message}")),
        }
    }

    /// A no to a request of our own.
    pub(super) fn on_request_refused(&mut self, underway: &Underway, said: &Said, now: Now) -> Vec<Heard> {
        let device = &underway.device;
        match (underway.request, said.code.unwrap_or(0)) {
            (Request::Fetch, 404) => return self.on_no_document(device, now),
            (Request::Clean, 409) => self.ask(device, Request::Fetch),
            (_, 429) => {
                self.quiet_until_ms = now.tick + THROTTLED_MS;
                self.ask(device, underway.request);
            }
            (_, 500..) => {
                self.quiet_until_ms = now.tick + TROUBLED_MS;
                self.ask(device, underway.request);
            }
            (request, code) => {
                let message = text_of(said.message.as_deref().unwrap_or("no reason given").as_bytes());
                let what = if request == Request::Fetch { "give the shadow" } else { "take the end of a wish" };
                return vec![Heard::Senseless(format!("AWS does not {what} of {device}: {code} {message}"))];
            }
        }
        Vec::new()
    }
}
