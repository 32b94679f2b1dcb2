//! The task that knows devices, wishes and mappers, and connects them.
//!
//! In: calls of mappers, what the twins desire, new configurations, how the calls at mappers went. Out: readings, states
//! and acknowledgements on the bus, and a goal for each mapper's [`Line`]. Must never wait for a mapper.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mappers::bus::{Bus, Incoming, Message, Outgoing};
use mappers::clock::Clock;
use protocols::kubeedge::device_state;
use protocols::kubeedge::dmi::{KEPT, Key, MISSES, Mapped, Served, Verdict, is_taken_on_trust, judge, reading};
use protocols::message::{AckResult, DesiredAck, DesiredOut, DesiredState, DeviceState, MAPPER_GONE, ReportedSet};
use protocols::name::{DeviceId, PropertyName};
use protocols::topic::TwinTopic;
use protocols::value::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::line::{Goal, Line, LineWord, Told};
use super::wire::MapperRegisterResponse;
use super::{Board, MAPPERS, MapperState, wire, words};
use crate::broker::{Broker, Own};

/// Words of lines that may wait; a line waits with its next call then.
const QUEUE_WORDS: usize = 64;

/// From a change of what a mapper was told to its writing down; what changes meanwhile is in it. A gateway that is killed
/// before tells it once more.
const KEEP: Duration = Duration::from_millis(200);

/// The clerk, on the broker.
pub(super) const CLIENT: &str = "dmi";

/// Where the markers come back that end what is retained.
const MARKER: &str = "gateway/reply/dmi";

/// Namespace (empty for the usual one) and name, as a mapper says them.
type Named = (String, String);

type Reply<T> = oneshot::Sender<Result<T, Status>>;

/// A mapper that registers.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) name: String,
    pub(super) version: String,
    /// In lower case.
    pub(super) protocol: String,
    pub(super) address: PathBuf,
    /// The user it runs as.
    pub(super) user: Option<u32>,
    pub(super) with_data: bool,
}

/// One property of a report.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) property: String,
    /// What the mapper takes for desired.
    pub(super) observed: Option<String>,
    pub(super) reported: String,
}

/// A call of a mapper.
#[derive(Debug)]
pub(super) enum Call {
    /// It is there.
    Register(Registration, Reply<MapperRegisterResponse>),
    /// It read something.
    Report(Named, Vec<Seen>, Reply<()>),
    /// It says how a device is.
    State(Named, String, Reply<()>),
}

/// What is kept of a mapper over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    name: String,
    version: String,
    address: PathBuf,
    user: Option<u32>,
    told: Told,
}

/// A mapper.
struct Mapper {
    kept: Kept,
    /// As it was written down the last time.
    written: Option<Kept>,
    serial: u64,
    goal: watch::Sender<Arc<Goal>>,
    stop: CancellationToken,
}

/// What a clerk is made of.
pub(super) struct Parts {
    pub(super) root: String,
    pub(super) broker: Arc<Broker>,
    pub(super) served: watch::Receiver<Arc<Served>>,
    pub(super) clock: Clock,
    pub(super) board: Arc<Board>,
    pub(super) stop: CancellationToken,
}

/// The clerk.
pub(super) struct Clerk {
    parts: Parts,
    served: Arc<Served>,
    wishes: HashMap<DeviceId, BTreeMap<PropertyName, DesiredOut>>,
    mappers: BTreeMap<String, Mapper>,
    /// Reports in a row that showed something else than this version of a wish.
    misses: HashMap<(DeviceId, PropertyName), (u64, u32)>,
    /// Devices whose mapper tells their state, or that were heard.
    said: HashMap<DeviceId, DeviceState>,
    serials: u64,
    keep_at: Option<Instant>,
    words: mpsc::Sender<(String, u64, LineWord)>,
    heard: mpsc::Receiver<(String, u64, LineWord)>,
}

impl Clerk {
    pub(super) fn new(parts: Parts) -> Self {
        let (words, heard) = mpsc::channel(QUEUE_WORDS);
        let served = Arc::clone(&parts.served.borrow());
        Self {
            parts,
            served,
            wishes: HashMap::new(),
            mappers: BTreeMap::new(),
            misses: HashMap::new(),
            said: HashMap::new(),
            serials: 0,
            keep_at: None,
            words,
            heard,
        }
    }

    /// Runs until the gateway stops.
    pub(super) async fn run(mut self, mut bus: Bus, mut calls: mpsc::Receiver<Call>) {
        if self.begin(&mut bus).await.is_none() {
            return;
        }
        let stop = self.parts.stop.clone();
        loop {
            let gone = tokio::select! {
                // What the twins said comes first, so that a registration tells it.
                biased;
                () = stop.cancelled() => None,
                incoming = bus.incoming.recv() => incoming.map(|incoming| self.on_incoming(&incoming)),
                changed = self.parts.served.changed() => changed.ok().map(|()| self.on_devices()),
                Some((protocol, serial, word)) = self.heard.recv() => {
                    self.on_word(&protocol, serial, word, &bus).await
                }
                call = calls.recv() => match call {
                    Some(call) => self.on_call(call, &bus).await,
                    None => None,
                },
                () = sleep_until(self.keep_at.unwrap_or_else(Instant::now)), if self.keep_at.is_some() => {
                    self.keep();
                    Some(())
                }
            };
            if gone.is_none() {
                break;
            }
        }
        self.keep();
    }

    /// Hears everything that is retained, then takes up the mappers that were there before.
    async fn begin(&mut self, bus: &mut Bus) -> Option<()> {
        let filters = [format!("{KEPT}+"), format!("{}/+/desired/+", self.parts.root)];
        let heard = self.parts.broker.hear_all(CLIENT, bus, MARKER, &filters).await?;
        let mut kept = Vec::new();
        for message in heard {
            match message.topic.strip_prefix(KEPT) {
                Some(protocol) => kept.push((protocol.to_owned(), message.payload)),
                None => drop(self.on_wish(&message)),
            }
        }
        bus.out.send(Outgoing::Unsubscribe(format!("{KEPT}+"))).await.ok()?;
        for (protocol, payload) in kept {
            match serde_json::from_slice::<Kept>(&payload) {
                Ok(kept) => {
                    tracing::info!(protocol, name = kept.name, "a mapper that registered before is looked for");
                    self.take_up(&protocol, kept.clone(), Some(kept));
                }
                Err(error) => tracing::warn!(protocol, %error, "what was kept of a mapper cannot be read"),
            }
        }
        Some(())
    }

    fn on_incoming(&mut self, incoming: &Incoming) {
        let Incoming::Message(message) = incoming else { return };
        if let Some(protocol) = self.on_wish(message) {
            self.aim(&protocol);
        }
    }

    /// Takes what a twin desires; gives the protocol whose mapper has to know.
    fn on_wish(&mut self, message: &Message) -> Option<String> {
        let TwinTopic::Desired(device, property) = TwinTopic::parse(&self.parts.root, &message.topic)? else {
            return None;
        };
        // Devices may be configured later; their wishes are kept for then. There are only as many as the twins hold.
        let wishes = self.wishes.entry(device.clone()).or_default();
        match serde_json::from_slice(&message.payload) {
            Ok(wish) => drop(wishes.insert(property, wish)),
            Err(_) => drop(wishes.remove(&property)),
        }
        if wishes.is_empty() {
            self.wishes.remove(&device);
        }
        self.served.devices.get(&device).map(|mapped| mapped.protocol.clone())
    }

    fn on_devices(&mut self) {
        self.served = Arc::clone(&self.parts.served.borrow_and_update());
        let served = Arc::clone(&self.served);
        self.said.retain(|device, _| served.devices.contains_key(device));
        self.misses.retain(|(device, _), _| served.devices.contains_key(device));
        let protocols: Vec<String> = self.mappers.keys().cloned().collect();
        for protocol in protocols {
            self.aim(&protocol);
        }
    }

    /// What the mapper of a protocol should know now.
    fn goal(&self, protocol: &str) -> Goal {
        let none = BTreeMap::new();
        let mut goal = Goal::default();
        for mapped in self.served.devices.values().filter(|mapped| mapped.protocol == protocol) {
            let wishes = self.wishes.get(&mapped.id).unwrap_or(&none);
            goal.devices.insert(mapped.key.clone(), Arc::new(words::device(mapped, wishes)));
            let key: Key = (mapped.key.0.clone(), mapped.model.clone());
            if let Some(model) = self.served.models.get(&key) {
                let told = words::model(&key, model);
                goal.models.insert(key, Arc::new(told));
            }
        }
        goal
    }

    fn aim(&self, protocol: &str) {
        let Some(mapper) = self.mappers.get(protocol) else { return };
        let goal = self.goal(protocol);
        let devices = goal.devices.len();
        self.parts.board.count(|counts| {
            if let Some(state) = counts.mappers.get_mut(protocol) {
                state.devices = devices;
            }
        });
        mapper.goal.send_replace(Arc::new(goal));
    }

    /// Starts a mapper's line; one of the same protocol ends.
    fn take_up(&mut self, protocol: &str, kept: Kept, written: Option<Kept>) {
        if let Some(old) = self.mappers.remove(protocol) {
            old.stop.cancel();
        }
        self.serials += 1;
        let serial = self.serials;
        let goal = self.goal(protocol);
        let state = MapperState {
            name: kept.name.clone(),
            version: kept.version.clone(),
            address: kept.address.display().to_string(),
            devices: goal.devices.len(),
            there: true,
            since: Some(self.parts.clock.now().wall),
            last_error: None,
        };
        self.parts.board.count(|counts| drop(counts.mappers.insert(protocol.to_owned(), state)));
        let (goal, aimed) = watch::channel(Arc::new(goal));
        let stop = self.parts.stop.child_token();
        let line = Line {
            protocol: protocol.to_owned(),
            serial,
            path: kept.address.clone(),
            user: kept.user,
            goal: aimed,
            told: kept.told.clone(),
            words: self.words.clone(),
            board: Arc::clone(&self.parts.board),
            stop: stop.clone(),
        };
        tokio::spawn(line.run());
        self.mappers.insert(protocol.to_owned(), Mapper { kept, written, serial, goal, stop });
    }

    /// Serves a call; `None` when the bus has ended.
    async fn on_call(&mut self, call: Call, bus: &Bus) -> Option<()> {
        // A mapper that has given up meanwhile misses its answer; what it said counts all the same.
        match call {
            Call::Register(registration, reply) => self.on_register(registration, reply),
            Call::Report(device, seen, reply) => {
                let result = self.on_report(&device, &seen, bus).await?;
                let _ = reply.send(result);
            }
            Call::State(device, state, reply) => {
                let result = self.on_state(&device, &state, bus).await?;
                let _ = reply.send(result);
            }
        }
        Some(())
    }

    /// Takes a mapper in. It is answered when that is on disk: mappers of the framework register once, and would wait for ever
    /// for a gateway that was killed and knows nothing of them.
    fn on_register(&mut self, registration: Registration, reply: Reply<MapperRegisterResponse>) {
        let protocol = registration.protocol.clone();
        let answer = match self.registered(registration) {
            Ok(answer) => answer,
            Err(status) => return drop(reply.send(Err(status))),
        };
        let Some(mapper) = self.mappers.get_mut(&protocol) else { return };
        let stored = mapper.keep(&protocol, &self.parts.broker);
        tokio::spawn(async move {
            let lost = || Status::unavailable("the registration could not be written down; register again");
            let _ = reply.send(if stored.await == Ok(true) { Ok(answer) } else { Err(lost()) });
        });
    }

    fn registered(&mut self, registration: Registration) -> Result<MapperRegisterResponse, Status> {
        let Registration { name, version, protocol, address, user, with_data } = registration;
        if !self.mappers.contains_key(&protocol) && self.mappers.len() >= MAPPERS {
            return Err(Status::resource_exhausted(format!("{MAPPERS} mappers are there already")));
        }
        if let Some(old) = self.mappers.get(&protocol).filter(|old| old.kept.name != name) {
            tracing::warn!(protocol, old = old.kept.name, new = name, "another mapper takes over the protocol");
        }
        let goal = self.goal(&protocol);
        let told = if with_data { Told::all(&goal) } else { Told::default() };
        tracing::info!(protocol, name, devices = goal.devices.len(), "a mapper registered");
        self.parts.board.count(|counts| counts.registered += 1);
        self.take_up(&protocol, Kept { name, version, address, user, told }, None);
        if !with_data {
            return Ok(MapperRegisterResponse::default());
        }
        Ok(MapperRegisterResponse {
            model_list: goal.models.values().map(|model| model.as_ref().clone()).collect(),
            device_list: goal.devices.values().map(|device| device.as_ref().clone()).collect(),
        })
    }

    fn find(&self, (namespace, name): &Named) -> Result<Mapped, Status> {
        let found = self.served.find(namespace, name).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no device {namespace}/{name} for a mapper elsewhere")))
    }

    async fn on_report(&mut self, device: &Named, seen: &[Seen], bus: &Bus) -> Option<Result<(), Status>> {
        let mapped = match self.find(device) {
            Ok(mapped) => mapped,
            Err(status) => return Some(Err(status)),
        };
        let mut set = ReportedSet { at: Some(self.parts.clock.now().wall), readings: BTreeMap::new() };
        let mut acks: BTreeMap<u64, BTreeMap<PropertyName, AckResult>> = BTreeMap::new();
        for Seen { property, observed, reported } in seen {
            let Some(own) = mapped.property(property) else {
                let text = format!("{} has no property {property}", mapped.id);
                return Some(Err(Status::invalid_argument(text)));
            };
            let Some(read) = reading(own, reported) else { continue };
            let wish = self.wishes.get(&mapped.id).and_then(|wishes| wishes.get(&own.name)).cloned();
            if let Some(wish) = wish.filter(|_| !read.quality.is_bad()) {
                let verdict = judge(own, &wish, &read.value, observed.as_deref());
                if let Some(result) = self.outcome(&mapped.id, &own.name, &wish, verdict, &read.value) {
                    acks.entry(wish.version).or_default().insert(own.name.clone(), result);
                }
            }
            set.readings.insert(own.name.clone(), read);
        }
        let bad = set.readings.values().filter(|reading| reading.quality.is_bad()).count() as u64;
        let all = set.readings.len() as u64;
        self.parts.board.count(|counts| {
            counts.reports += 1;
            counts.readings += all;
            counts.bad_readings += bad;
        });
        if all > 0 {
            self.publish(bus, TwinTopic::ReportedSet(mapped.id.clone()), &set).await?;
        }
        for (version, results) in acks {
            self.publish(bus, TwinTopic::DesiredAck(mapped.id.clone()), &DesiredAck { version, results }).await?;
        }
        // Older frameworks tell no states: a device that is heard is there.
        if all > bad && !self.said.contains_key(&mapped.id) {
            self.tell_state(&mapped.id, DeviceState::Online, None, bus).await?;
        }
        Some(Ok(()))
    }

    /// What a report does to a wish, if it ends it.
    fn outcome(
        &mut self,
        device: &DeviceId,
        property: &PropertyName,
        wish: &DesiredOut,
        verdict: Verdict,
        shown: &Value,
    ) -> Option<AckResult> {
        let key = (device.clone(), property.clone());
        let done = |state, reason| Some(AckResult { state, actual: Some(shown.clone()), reason });
        match verdict {
            Verdict::Open => None,
            Verdict::Applied => {
                self.misses.remove(&key);
                done(DesiredState::Applied, None)
            }
            Verdict::Missed => {
                let old = self.misses.get(&key).filter(|(version, _)| *version == wish.version);
                let count = old.map_or(0, |(_, count)| *count) + 1;
                self.misses.insert(key, (wish.version, count));
                let text = format!("its mapper knows of it, and the device shows {shown}");
                if count < MISSES { None } else { done(DesiredState::Failed, Some(text)) }
            }
        }
    }

    async fn on_state(&mut self, device: &Named, word: &str, bus: &Bus) -> Option<Result<(), Status>> {
        let mapped = match self.find(device) {
            Ok(mapped) => mapped,
            Err(status) => return Some(Err(status)),
        };
        let Some(state) = device_state(word) else {
            let known = "online, ok, offline, disconnected, unhealthy and unknown are";
            let word: String = word.chars().take(64).collect();
            return Some(Err(Status::invalid_argument(format!("\"{word}\" is no state; {known}"))));
        };
        self.parts.board.count(|counts| counts.states += 1);
        let reason = (state != DeviceState::Online).then(|| word.to_ascii_lowercase());
        self.tell_state(&mapped.id, state, reason.as_deref(), bus).await?;
        Some(Ok(()))
    }

    async fn tell_state(
        &mut self,
        device: &DeviceId,
        state: DeviceState,
        reason: Option<&str>,
        bus: &Bus,
    ) -> Option<()> {
        if self.said.insert(device.clone(), state) == Some(state) {
            return Some(());
        }
        self.publish(bus, TwinTopic::StatusSet(device.clone()), &json!({"state": state, "reason": reason})).await
    }

    async fn publish(&self, bus: &Bus, topic: TwinTopic, payload: &impl Serialize) -> Option<()> {
        // Maps with texts for keys always have a JSON form.
        let payload = Bytes::from(serde_json::to_vec(payload).unwrap_or_default());
        let message = Message { topic: topic.under(&self.parts.root), payload, ..Message::default() };
        bus.out.send(Outgoing::Publish(message)).await.ok()
    }

    async fn on_word(&mut self, protocol: &str, serial: u64, word: LineWord, bus: &Bus) -> Option<()> {
        // Of a line that was replaced, nothing counts any more.
        let Some(mapper) = self.mappers.get_mut(protocol).filter(|mapper| mapper.serial == serial) else {
            return Some(());
        };
        match word {
            LineWord::Told(told, device) => {
                mapper.kept.told = told;
                self.keep_at.get_or_insert_with(|| Instant::now() + KEEP);
                match device {
                    Some(device) => self.on_taken(&device, None, bus).await,
                    None => Some(()),
                }
            }
            LineWord::Refused(device, why) => {
                self.note(protocol, |state| state.last_error = Some(why.clone()));
                self.on_taken(&device, Some(&why), bus).await
            }
            LineWord::There(there, why) => {
                let now = self.parts.clock.now().wall;
                self.note(protocol, |state| {
                    (state.there, state.since) = (there, Some(now));
                    state.last_error.clone_from(&why);
                });
                if there {
                    tracing::info!(protocol, "the mapper is there again");
                    return Some(());
                }
                tracing::warn!(
                    protocol,
                    error = why.unwrap_or_default(),
                    "the mapper is gone; its devices are offline"
                );
                let devices = self.served.devices.values().filter(|mapped| mapped.protocol == protocol);
                for device in devices.map(|mapped| mapped.id.clone()).collect::<Vec<_>>() {
                    self.tell_state(&device, DeviceState::Offline, Some(MAPPER_GONE), bus).await?;
                    // Whatever is heard next counts.
                    self.said.remove(&device);
                }
                Some(())
            }
        }
    }

    fn note(&self, protocol: &str, change: impl FnOnce(&mut MapperState)) {
        self.parts.board.count(|counts| {
            if let Some(state) = counts.mappers.get_mut(protocol) {
                change(state);
            }
        });
    }

    /// The mapper has taken a device with all that is desired of it, or has refused it: what can never be read back has
    /// ended, and what was refused as well.
    async fn on_taken(&self, device: &wire::Device, refused: Option<&str>, bus: &Bus) -> Option<()> {
        let Some(mapped) = self.served.find(&device.namespace, &device.name) else { return Some(()) };
        let Some(wishes) = self.wishes.get(&mapped.id) else { return Some(()) };
        let told = words::device(mapped, wishes);
        let said = |device: &wire::Device, name: &str| {
            let properties = device.spec.as_ref().map(|spec| spec.properties.as_slice()).unwrap_or_default();
            properties.iter().find(|property| property.name == name).and_then(|property| property.desired.clone())
        };
        let mut acks: BTreeMap<u64, BTreeMap<PropertyName, AckResult>> = BTreeMap::new();
        for (name, wish) in wishes.iter().filter(|(_, wish)| wish.state == DesiredState::Pending) {
            // A newer wish than the one that was told is still to come.
            if said(device, name.as_str()) != said(&told, name.as_str()) {
                continue;
            }
            let Some(property) = mapped.property(name.as_str()) else { continue };
            let result = match refused {
                Some(why) => {
                    let reason = Some(format!("its mapper says: {why}"));
                    AckResult { state: DesiredState::Failed, actual: None, reason }
                }
                None if is_taken_on_trust(property) => {
                    AckResult { state: DesiredState::Applied, actual: None, reason: None }
                }
                None => continue,
            };
            acks.entry(wish.version).or_default().insert(name.clone(), result);
        }
        for (version, results) in acks {
            self.publish(bus, TwinTopic::DesiredAck(mapped.id.clone()), &DesiredAck { version, results }).await?;
        }
        Some(())
    }

    /// Writes down what is needed after a restart.
    fn keep(&mut self) {
        self.keep_at = None;
        for (protocol, mapper) in &mut self.mappers {
            if mapper.written.as_ref() == Some(&mapper.kept) {
                continue;
            }
            drop(mapper.keep(protocol, &self.parts.broker));
        }
    }
}

impl Mapper {
    /// Writes it down; tells whether it is on disk, once that is known.
    fn keep(&mut self, protocol: &str, broker: &Broker) -> oneshot::Receiver<bool> {
        // A struct of texts and numbers always has a JSON form.
        let payload = Bytes::from(serde_json::to_vec(&self.kept).unwrap_or_default());
        self.written = Some(self.kept.clone());
        let topic = format!("{KEPT}{protocol}");
        broker.publish_then(Own { topic, payload, qos: 1, retain: true, kept: true, ..Own::default() })
    }
}
