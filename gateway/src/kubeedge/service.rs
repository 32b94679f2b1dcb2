//! The task that answers KubeEdge's requests.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mappers::bus::{Bus, Incoming, Message, Outgoing};
use mappers::clock::Clock;
use protocols::config::{Device, KubeEdge};
use protocols::kubeedge::message::{
    BaseMessage, DocumentMessage, ErrorMessage, Member, MembershipResult, MembershipUpdate, StateDevice, StateMessage,
    StateResult, TwinMessage,
};
use protocols::kubeedge::topic::{self, Action, Asked, KubeId};
use protocols::kubeedge::{Backing, Refusal, Writer, device_state};
use protocols::message::{DesiredOut, DeviceState, DeviceStatus, Outcome, ReportedOut};
use protocols::name::DeviceId;

use protocols::topic::TwinTopic;
use protocols::value::Now;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::entry::{Backed, Entry, Kept, Pending, follow_status, member};
use super::{ANSWER_MS, ANSWERS, CLIENT, KEEP_MS, KEPT, MARKER};
use crate::broker::desk::{Request, Verdict};
use crate::broker::{Broker, Own};

/// How often time is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct Service {
    settings: KubeEdge,
    root: String,
    broker: Arc<Broker>,
    devices: watch::Receiver<Vec<Arc<Device>>>,
    clock: Clock,
    entries: HashMap<DeviceId, Entry>,
    /// What was kept of devices that are not configured (yet).
    strangers: HashMap<DeviceId, Kept>,
    numbers: u64,
}

impl Service {
    pub(super) fn new(
        settings: KubeEdge,
        root: String,
        broker: Arc<Broker>,
        devices: watch::Receiver<Vec<Arc<Device>>>,
        clock: Clock,
    ) -> Self {
        let (entries, strangers) = (HashMap::new(), HashMap::new());
        Self { settings, root, broker, devices, clock, entries, strangers, numbers: 0 }
    }

    pub(super) async fn run(mut self, mut bus: Bus, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        if self.begin(&mut bus).await.is_none() {
            return;
        }
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                // What the twins said comes first, so that an answer shows it.
                biased;
                () = stop.cancelled() => break,
                incoming = bus.incoming.recv() => match incoming {
                    Some(Incoming::Message(message)) => self.on_message(&message, &bus).await,
                    Some(_) => {}
                    None => break,
                },
                changed = self.devices.changed() => match changed {
                    Ok(()) => self.on_devices(true),
                    Err(_) => break,
                },
                request = requests.recv() => match request {
                    Some(request) => self.on_request(request, &bus).await,
                    None => break,
                },
                _ = look.tick() => self.on_time(&bus).await,
            }
        }
        self.keep(u64::MAX);
    }

    /// Hears everything that is retained, then knows the devices.
    async fn begin(&mut self, bus: &mut Bus) -> Option<()> {
        let filters = [
            format!("{KEPT}+"),
            format!("{}/+/reported/+", self.root),
            format!("{}/+/desired/+", self.root),
            format!("{}/+/status", self.root),
            format!("{ANSWERS}/#"),
        ];
        let broker = Arc::clone(&self.broker);
        let heard = broker.hear_all(CLIENT, bus, MARKER, &filters).await?;
        for message in heard.iter().filter(|message| message.topic.starts_with(KEPT)) {
            self.on_kept(message);
        }
        self.on_devices(false);
        for message in heard.iter().filter(|message| !message.topic.starts_with(KEPT)) {
            self.follow(message, false);
        }
        Some(())
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn home(&self) -> Option<&str> {
        Some(self.settings.namespace.as_str()).filter(|home| !home.is_empty())
    }

    fn say(&self, topic: String, payload: &impl Serialize) {
        // Maps of texts always have a JSON form.
        let payload = Bytes::from(serde_json::to_vec(payload).unwrap_or_default());
        self.broker.publish(Own { topic, payload, qos: 1, ..Own::default() });
    }

    fn on_kept(&mut self, message: &Message) {
        let Some(Ok(device)) = message.topic.strip_prefix(KEPT).map(str::parse::<DeviceId>) else { return };
        match serde_json::from_slice::<Kept>(&message.payload) {
            Ok(kept) => drop(self.strangers.insert(device, kept)),
            Err(error) => tracing::warn!(%device, %error, "what was kept of the device for KubeEdge cannot be read"),
        }
    }

    /// Takes the devices of the configuration in force; tells the node's members if they changed.
    fn on_devices(&mut self, tell: bool) {
        let devices = self.devices.borrow_and_update().clone();
        let home = self.home().map(str::to_owned);
        let mut old = std::mem::take(&mut self.entries);
        let mut added = Vec::new();
        for device in devices {
            if let Some(mut entry) = old.remove(&device.id) {
                entry.device = device.clone();
                self.entries.insert(device.id.clone(), entry);
                continue;
            }
            let kept = self.strangers.remove(&device.id).unwrap_or_default();
            let entry = Entry {
                id: KubeId::of(&device.id, home.as_deref()),
                device: device.clone(),
                book: kept.twin.clone(),
                state: kept.state.clone(),
                last_online: kept.last_online.clone(),
                pending: None,
                waiting: VecDeque::new(),
                kept,
                keep_at: None,
            };
            added.push(member(&entry));
            self.entries.insert(device.id.clone(), entry);
        }
        let removed: Vec<Member> = old.values().map(member).collect();
        for (device, entry) in old {
            self.forget(&device, entry);
        }
        if tell && !(added.is_empty() && removed.is_empty()) {
            let some = |members: Vec<Member>| (!members.is_empty()).then_some(members);
            let message = MembershipUpdate {
                event_id: uuid(),
                timestamp: self.now().wall.as_ms(),
                added_devices: some(added),
                removed_devices: some(removed),
            };
            self.say(topic::node(&self.settings.node, "membership/updated"), &message);
        }
    }

    /// A device that left the configuration: nothing of it is kept, and whoever waits is told.
    fn forget(&self, device: &DeviceId, entry: Entry) {
        let waiting = entry.pending.map(|pending| pending.request).into_iter().chain(entry.waiting);
        for request in waiting {
            request
                .answer
                .give(Verdict::Refused { reason: 0x90, text: format!("{device} is not configured any more") });
        }
        self.broker.publish(Own {
            topic: format!("{KEPT}{device}"),
            qos: 1,
            retain: true,
            kept: true,
            ..Own::default()
        });
    }

    async fn on_message(&mut self, message: &Message, bus: &Bus) {
        if message.topic == ANSWERS {
            return self.on_answer(message, bus).await;
        }
        if message.topic.starts_with(KEPT) || message.topic.starts_with(ANSWERS) {
            return;
        }
        self.follow(message, true);
    }

    /// Takes the twin's word into the book, and tells KubeEdge's side what changed by itself.
    fn follow(&mut self, message: &Message, tell: bool) {
        let now = self.now();
        let Some(twin_topic) = TwinTopic::parse(&self.root, &message.topic) else { return };
        let Some(entry) = self.entries.get_mut(twin_topic.device()) else { return };
        let profile = entry.device.profile.clone();
        let change = match &twin_topic {
            TwinTopic::Reported(_, property) => {
                let Some(kind) = Backed(&profile).kind(property.as_str()) else { return };
                let reported: Option<ReportedOut> = serde_json::from_slice(&message.payload).ok();
                // A bad reading is no value; the last good one stays, as the device's last word.
                let Some(at) = reported.as_ref().map_or(Some(now.wall), |it| (!it.quality.is_bad()).then_some(it.at))
                else {
                    return;
                };
                let value = reported.as_ref().map(|it| &it.value);
                let version = reported.as_ref().map_or(0, |it| version(it.version));
                entry.book.on_actual(property.as_str(), kind, value, at.as_ms(), version).map(|it| (property, it))
            }
            TwinTopic::Desired(_, property) => {
                let Some(kind) = Backed(&profile).kind(property.as_str()) else { return };
                let desired: Option<DesiredOut> = serde_json::from_slice(&message.payload).ok();
                let at = desired.as_ref().map_or(now.wall, |it| it.at).as_ms();
                let held = desired.as_ref().map_or(0, |it| version(it.version));
                let value = desired.as_ref().map(|it| &it.value);
                entry.book.on_expected(property.as_str(), kind, value, at, held).map(|it| (property, it))
            }
            TwinTopic::Status(_) => {
                if let Ok(status) = serde_json::from_slice::<DeviceStatus>(&message.payload) {
                    follow_status(entry, &status, now);
                }
                return;
            }
            _ => return,
        };
        let Some((property, change)) = change.filter(|_| tell) else { return };
        let id = entry.id.clone();
        let delta = entry.book.delta(uuid(), now.wall.as_ms());
        let twin = BTreeMap::from([(property.as_str().to_owned(), change)]);
        let document = DocumentMessage { event_id: uuid(), timestamp: now.wall.as_ms(), twin };
        self.say(topic::device(&id, "twin/update/document"), &document);
        if let Some(delta) = delta {
            self.say(topic::device(&id, "twin/update/delta"), &delta);
        }
    }

    async fn on_request(&mut self, request: Request, bus: &Bus) {
        // Everybody may hear what is said here, as on the broker beside edgecore.
        let Request { topic, payload, qos, .. } = &request;
        self.broker.publish(Own { topic: topic.clone(), payload: payload.clone(), qos: *qos, ..Own::default() });
        self.serve(request, bus).await;
    }

    async fn serve(&mut self, request: Request, bus: &Bus) {
        let Some(asked) = Asked::parse(&request.topic) else {
            return request.answer.give(Verdict::Refused { reason: 0x90, text: "no such topic".to_owned() });
        };
        let (id, action) = match asked {
            Asked::Membership(node) => return self.on_membership(&node, request),
            Asked::Device(id, action) => (id, action),
        };
        if request.author.role == "reader" && action != Action::TwinGet {
            return request.answer.give(Verdict::Refused { reason: 0x87, text: "a reader may not write".to_owned() });
        }
        let device = id.device(self.home()).filter(|device| self.entries.contains_key(device));
        let Some(entry) = device.and_then(|device| self.entries.get_mut(&device)) else {
            return self.unknown_device(&id, action, request);
        };
        entry.id = id.clone();
        // Nothing overtakes an update that waits for the twin.
        if entry.pending.is_some() {
            return entry.waiting.push_back(request);
        }
        match action {
            Action::TwinGet => self.on_get(&id, request),
            Action::StateUpdate => self.on_state(&id, request, bus).await,
            Action::TwinUpdate | Action::CloudUpdated => self.on_update(id, action, request, bus).await,
        }
    }

    fn unknown_device(&self, id: &KubeId, action: Action, request: Request) {
        let (end, reason) = match action {
            Action::TwinGet => ("twin/get/result", format!("Device {id} not found while getting twin")),
            Action::StateUpdate => ("state/update/result", format!("Device {id} not found while updating its state")),
            Action::TwinUpdate | Action::CloudUpdated => {
                ("twin/update/result", "update rejected due to the device is not existed".to_owned())
            }
        };
        self.refuse(&topic::device(id, end), request, &Refusal { code: 404, reason });
    }

    /// An error, on the topic where the client listens, with the id it gave.
    fn refuse(&self, topic: &str, request: Request, refusal: &Refusal) {
        let Refusal { code, reason } = refusal.clone();
        let event_id = event_id(&request.payload);
        let timestamp = self.now().wall.as_ms();
        self.say(topic.to_owned(), &ErrorMessage { event_id, timestamp, code, reason });
        // The answer says it; the message itself was taken.
        request.answer.give(Verdict::Accepted);
    }

    fn on_membership(&self, node: &str, request: Request) {
        let result = topic::node(node, "membership/get/result");
        if node != self.settings.node {
            let reason = format!("this gateway is node {}", self.settings.node);
            return self.refuse(&result, request, &Refusal { code: 404, reason });
        }
        let base: BaseMessage = match serde_json::from_slice(&request.payload) {
            Ok(base) => base,
            Err(error) => {
                let reason = format!("Unmarshal get membership info failed: {error}");
                return self.refuse(&result, request, &Refusal::bad(reason));
            }
        };
        let mut devices: Vec<Member> = self.entries.values().map(member).collect();
        devices.sort_by(|left, right| left.id.cmp(&right.id));
        let timestamp = self.now().wall.as_ms();
        self.say(result, &MembershipResult { event_id: base.event_id, timestamp, devices });
        request.answer.give(Verdict::Accepted);
    }

    fn on_get(&mut self, id: &KubeId, request: Request) {
        let result = topic::device(id, "twin/get/result");
        let base: BaseMessage = match serde_json::from_slice(&request.payload) {
            Ok(base) => base,
            Err(error) => {
                let reason = format!("Unmarshal twin info not json failed: {error}");
                return self.refuse(&result, request, &Refusal::bad(reason));
            }
        };
        let twin = id.device(self.home()).and_then(|device| self.entries.get(&device)).map(|entry| entry.book.all());
        let timestamp = self.now().wall.as_ms();
        self.say(result, &TwinMessage { event_id: base.event_id, timestamp, twin });
        request.answer.give(Verdict::Accepted);
    }

    async fn on_state(&mut self, id: &KubeId, request: Request, bus: &Bus) {
        let result = topic::device(id, "state/update/result");
        let message: StateMessage = match serde_json::from_slice(&request.payload) {
            Ok(message) => message,
            Err(error) => return self.refuse(&result, request, &Refusal::bad(format!("not a state: {error}"))),
        };
        let Some(state) = device_state(&message.state) else {
            let reason = format!(
                "\"{}\" is no state; online, ok, offline, disconnected, unhealthy and unknown are",
                message.state.chars().take(64).collect::<String>()
            );
            return self.refuse(&result, request, &Refusal::bad(reason));
        };
        let now = self.now();
        let root = self.root.clone();
        let Some(entry) = id.device(self.home()).and_then(|device| self.entries.get_mut(&device)) else { return };
        let online = state == DeviceState::Online;
        let last_online_time = online.then(|| now.wall.to_string());
        entry.state = Some(message.state.clone());
        entry.last_online.clone_from(&last_online_time);
        entry.keep_at.get_or_insert(now.tick + KEEP_MS);
        let reason = (state == DeviceState::Stale).then_some("unhealthy");
        let payload = json!({"state": state, "reason": reason}).to_string().into();
        let topic = format!("{root}/{}/status/set", entry.device.id);
        let device = StateDevice { name: id.name.clone(), state: message.state, last_online_time };
        // An end of the bus is the end of the gateway; nobody is left to be told.
        let _ = bus.out.send(Outgoing::Publish(Message { topic, payload, ..Message::default() })).await;
        self.say(result, &StateResult { event_id: uuid(), timestamp: now.wall.as_ms(), device });
        request.answer.give(Verdict::Accepted);
    }

    async fn on_update(&mut self, id: KubeId, action: Action, request: Request, bus: &Bus) {
        let result = topic::device(&id, "twin/update/result");
        let message: TwinMessage = match serde_json::from_slice(&request.payload) {
            Ok(message) => message,
            Err(_) => {
                let reason = "Unmarshal update request body failed, please check the request";
                return self.refuse(&result, request, &Refusal::bad(reason));
            }
        };
        let Some(twins) = message.twin else {
            return self.refuse(&result, request, &Refusal::bad("Update twin error, key:twin does not exist"));
        };
        let now = self.now();
        let Some(entry) = id.device(self.home()).and_then(|device| self.entries.get_mut(&device)) else { return };
        let writer = if action == Action::CloudUpdated { Writer::Cloud } else { Writer::Edge };
        let profile = entry.device.profile.clone();
        let step = match entry.book.update(&twins, writer, &Backed(&profile), now.wall.as_ms()) {
            Ok(step) => step,
            Err(refusal) => return self.refuse(&result, request, &refusal),
        };
        self.numbers += 1;
        let number = self.numbers;
        let silent = writer == Writer::Cloud;
        let by = if silent { "cloud".to_owned() } else { author(&request) };
        let deadline = now.tick + ANSWER_MS;
        let patch = step.patch.clone();
        let topic = format!("{}/{}/desired/set", self.root, entry.device.id);
        entry.pending = Some(Pending { number, deadline, request, id, event_id: message.event_id, step, silent });
        let device = entry.device.id.clone();
        if patch.is_empty() {
            return self.finish(&device, bus).await;
        }
        let payload = json!({"id": number.to_string(), "patch": patch, "by": by}).to_string().into();
        let (response_topic, correlation) = (Some(ANSWERS.to_owned()), Some(Bytes::from(device.to_string())));
        let wish = Message { topic, payload, response_topic, correlation, ..Message::default() };
        // As above.
        let _ = bus.out.send(Outgoing::Publish(wish)).await;
    }

    /// The twin's answer to a wish.
    async fn on_answer(&mut self, message: &Message, bus: &Bus) {
        let device = message.correlation.as_deref().and_then(|it| std::str::from_utf8(it).ok());
        let Some(Ok(device)) = device.map(str::parse::<DeviceId>) else { return };
        let Ok(outcome) = serde_json::from_slice::<Outcome>(&message.payload) else { return };
        let asked = outcome.id.as_deref().and_then(|id| id.parse::<u64>().ok());
        let Some(entry) = self.entries.get_mut(&device) else { return };
        if entry.pending.as_ref().map(|pending| pending.number) != asked {
            return;
        }
        if outcome.ok {
            return self.finish(&device, bus).await;
        }
        let why: Vec<String> = outcome
            .errors
            .iter()
            .map(|(key, why)| if key.is_empty() { why.clone() } else { format!("{key}: {why}") })
            .collect();
        // KubeEdge has no 422.
        let code = outcome.code.filter(|code| *code != 422).unwrap_or(400);
        self.give_up(&device, &Refusal { code, reason: why.join("; ") });
        self.go_on(&device, bus).await;
    }

    fn give_up(&mut self, device: &DeviceId, refusal: &Refusal) {
        let Some(pending) = self.entries.get_mut(device).and_then(|entry| entry.pending.take()) else { return };
        self.refuse(&topic::device(&pending.id, "twin/update/result"), pending.request, refusal);
    }

    /// The twin has taken the wishes of an update: the rest is done, and the client told.
    async fn finish(&mut self, device: &DeviceId, bus: &Bus) {
        let now = self.now();
        let root = self.root.clone();
        let Some(entry) = self.entries.get_mut(device) else { return };
        let Some(Pending { request, id, event_id, step, silent, .. }) = entry.pending.take() else { return };
        entry.book.commit(&step);
        entry.keep_at.get_or_insert(now.tick + KEEP_MS);
        let delta = entry.book.delta(uuid(), now.wall.as_ms());
        if !step.readings.is_empty() {
            let payload = json!({"at": now.wall, "readings": step.readings}).to_string().into();
            let reading = Message { topic: format!("{root}/{device}/reported/set"), payload, ..Message::default() };
            // The end of the bus is the end of the gateway.
            let _ = bus.out.send(Outgoing::Publish(reading)).await;
        }
        let timestamp = now.wall.as_ms();
        if !silent {
            let result = TwinMessage { event_id: event_id.clone(), timestamp, twin: Some(step.result) };
            self.say(topic::device(&id, "twin/update/result"), &result);
        }
        if !step.document.is_empty() {
            let document = DocumentMessage { event_id, timestamp, twin: step.document };
            self.say(topic::device(&id, "twin/update/document"), &document);
        }
        if let Some(delta) = delta {
            self.say(topic::device(&id, "twin/update/delta"), &delta);
        }
        for (key, version) in self.applied(device, step.readings.keys()) {
            let payload = json!({"version": version, "results": {key: {"state": "applied"}}}).to_string().into();
            let ack = Message { topic: format!("{root}/{device}/desired/ack"), payload, ..Message::default() };
            // As above.
            let _ = bus.out.send(Outgoing::Publish(ack)).await;
        }
        request.answer.give(Verdict::Accepted);
        Box::pin(self.go_on(device, bus)).await;
    }

    /// A KubeEdge mapper knows no acknowledgement: what it reports as it was wished has been applied.
    fn applied<'a>(&self, device: &DeviceId, keys: impl Iterator<Item = &'a String>) -> Vec<(&'a str, i64)> {
        let Some(entry) = self.entries.get(device) else {
            return Vec::new();
        };
        let applied = |key: &'a String| Some((key.as_str(), entry.book.field(key)?.expected_version.edge));
        keys.filter(|key| entry.book.reached(key)).filter_map(applied).collect()
    }

    async fn go_on(&mut self, device: &DeviceId, bus: &Bus) {
        while let Some(entry) = self.entries.get_mut(device).filter(|entry| entry.pending.is_none()) {
            let Some(request) = entry.waiting.pop_front() else { return };
            Box::pin(self.serve(request, bus)).await;
        }
    }

    async fn on_time(&mut self, bus: &Bus) {
        let now = self.now().tick;
        let late = |entry: &Entry| entry.pending.as_ref().is_some_and(|pending| pending.deadline <= now);
        let late: Vec<DeviceId> =
            self.entries.iter().filter(|(_, entry)| late(entry)).map(|(device, _)| device.clone()).collect();
        for device in late {
            self.give_up(&device, &Refusal { code: 500, reason: "the twin did not answer in time".to_owned() });
            self.go_on(&device, bus).await;
        }
        self.keep(now);
    }

    /// Writes down what nobody else keeps.
    fn keep(&mut self, now: u64) {
        for (device, entry) in &mut self.entries {
            if entry.keep_at.is_none_or(|due| due > now) {
                continue;
            }
            entry.keep_at = None;
            let kept = Kept {
                twin: entry.book.own(&Backed(&entry.device.profile)),
                state: entry.state.clone(),
                last_online: entry.last_online.clone(),
            };
            if kept == entry.kept {
                continue;
            }
            // A struct of texts always has a JSON form.
            let payload = Bytes::from(serde_json::to_vec(&kept).unwrap_or_default());
            entry.kept = kept;
            let topic = format!("{KEPT}{device}");
            self.broker.publish(Own { topic, payload, qos: 1, retain: true, kept: true, ..Own::default() });
        }
    }
}

fn author(request: &Request) -> String {
    request.author.user.clone().unwrap_or_else(|| request.author.client.clone())
}

fn version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The id that a request carries, even if the rest of it makes no sense.
fn event_id(payload: &[u8]) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    value.and_then(|value| Some(value.get("event_id")?.as_str()?.to_owned())).unwrap_or_default()
}
