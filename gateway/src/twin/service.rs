//! The thread that holds the twins: what comes in, what is due, the beginning and the end.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use protocols::config::Config;
use protocols::message::{DeviceStatus, in_plain_words};
use protocols::name::DeviceId;
use protocols::topic::TwinTopic;
use protocols::twin::{Refusal, Saved, Shape, Twin};
use protocols::value::{Now, TimestampText, Value};

use super::batch::Batch;
use super::readings::Flush;
use super::words::{self, Reply};
use super::{Clock, Counters, DOCUMENT_MS, Input, READINGS_BYTES, REQUEST_BYTES, Ticket, Voice, Word, add};
use crate::broker::desk::{Answer, Claim, Request, Verdict};
use crate::store::{Store, StoredTwin, TwinWrite};

/// Inputs that are taken before what they said is published.
const DRAIN: usize = 512;

/// Words from which on they are published before more inputs are taken: the devices of one rhythm speak in one moment,
/// and all their words at once would be the most memory a gateway ever holds.
const WORDS: usize = 256;

/// Documents that are written in one go, for the same reason; the next follow when these are published.
const DOCUMENTS: usize = 8;

/// From one look at expiry and silence to the next, in milliseconds.
const LOOK_MS: u64 = 1000;

/// How long a document waits for a batch before it looks again, in milliseconds.
const BATCH_MS: u64 = 20;

/// What the service stands among.
pub(super) struct Surroundings {
    pub(super) root: Arc<str>,
    pub(super) store: Arc<Store>,
    pub(super) voice: Arc<dyn Voice>,
    pub(super) clock: Clock,
    pub(super) inputs: Sender<Input>,
    pub(super) counters: Arc<Counters>,
}

/// How far a reported property is from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    Stored,
    /// Only its time is newer.
    Touched,
    Changed,
}

/// One twin and what the service knows about it.
pub(super) struct Held {
    pub(super) twin: Twin,
    /// `twin/D`
    pub(super) prefix: String,
    pub(super) marks: Vec<Mark>,
    /// The reported version that is on disk.
    pub(super) stored: u64,
    document_at: Option<u64>,
    document_queued: bool,
}

impl Held {
    pub(super) fn new(twin: Twin, root: &str, stored: u64) -> Self {
        let prefix = format!("{root}/{}", twin.device());
        let marks = vec![Mark::Stored; twin.shape().profile().properties.len()];
        Self { twin, prefix, marks, stored, document_at: None, document_queued: false }
    }

    fn status(&self) -> Word {
        words::kept(&[&self.prefix, "/status"], &words::json::<DeviceStatus>(self.twin.status()))
    }

    pub(super) fn delta(&self) -> Word {
        let mut payload = Vec::new();
        self.twin.write_delta(&mut payload);
        words::kept(&[&self.prefix, "/delta"], &payload)
    }

    /// The topic and payload of a reported property; the payload is appended to the scratch as well.
    pub(super) fn reported(&self, index: usize, scratch: &mut Scratch) -> Option<Word> {
        let name = self.twin.name(index)?.as_str();
        let from = scratch.text.len();
        self.twin.write_reported(index, &mut scratch.times, &mut scratch.text);
        Some(words::kept(&words::below(&self.prefix, "reported", name), scratch.text.get(from..)?))
    }

    pub(super) fn desired(&self, name: &str) -> Word {
        let mut payload = Vec::new();
        self.twin.write_desired(name, &mut payload);
        words::kept(&words::below(&self.prefix, "desired", name), &payload)
    }

    fn document(&self, now: Now, scratch: &mut Scratch) -> Word {
        scratch.text.clear();
        self.twin.write_document(now.wall, &mut scratch.text);
        words::kept(&[&self.prefix], &scratch.text)
    }

    /// Everything retained.
    pub(super) fn all(&self, now: Now, out: &mut Vec<Word>) {
        let mut scratch = Scratch::default();
        out.extend(self.twin.reported_indexes().filter_map(|index| self.reported(index, &mut scratch)));
        out.extend(self.twin.wishes().map(|(name, _)| self.desired(name.as_str())));
        out.extend([self.delta(), self.status(), self.document(now, &mut scratch)]);
    }

    /// Clears what is retained of the device as a whole; its properties are cleared by [`Service::bury`].
    pub(super) fn clear(&self, out: &mut Vec<Word>) {
        out.extend(["/delta", "/status", ""].map(|end| words::cleared(&[&self.prefix, end])));
    }
}

/// Where payloads are written before they become words.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) text: Vec<u8>,
    times: TimestampText,
}

/// A request that was looked at once: the topic is known, the payload is not yet.
pub(super) struct Incoming {
    pub(super) topic: TwinTopic,
    pub(super) request: Request,
    pub(super) reply: Reply,
    pub(super) _ticket: Ticket,
}

pub(super) struct Service {
    pub(super) around: Surroundings,
    pub(super) epoch: Arc<str>,
    pub(super) shapes: HashMap<String, Arc<Shape>>,
    pub(super) twins: HashMap<DeviceId, Held>,
    pub(super) words: Vec<Word>,
    pub(super) scratch: Scratch,
    /// Given after the words are said: who is acknowledged finds the topics as they are now.
    pub(super) verdicts: Vec<(Answer, Verdict)>,
    /// Requests for the next batch.
    pub(super) next: VecDeque<Incoming>,
    pub(super) batch: Option<Batch>,
    pub(super) flush: Flush,
    documents: BTreeSet<(u64, DeviceId)>,
    /// Versions of devices that are not configured; they go on there should the device return. One for each device that
    /// was ever configured, without values.
    pub(super) graves: HashMap<DeviceId, Saved>,
    look_at: u64,
    pub(super) look_due: bool,
    reloads: VecDeque<(Box<Config>, mpsc::Sender<()>)>,
    stopping: bool,
}

impl Service {
    /// Brings the twins back and publishes what is retained.
    pub(super) fn boot(config: &Config, around: Surroundings) -> Result<Self, String> {
        let now = (around.clock)();
        let mut service = Self {
            epoch: around.store.opened().epoch.as_str().into(),
            shapes: HashMap::new(),
            twins: HashMap::new(),
            words: Vec::new(),
            scratch: Scratch::default(),
            verdicts: Vec::new(),
            next: VecDeque::new(),
            batch: None,
            flush: Flush::new(config.twin.flush),
            documents: BTreeSet::new(),
            graves: HashMap::new(),
            look_at: now.tick + LOOK_MS,
            look_due: false,
            reloads: VecDeque::new(),
            stopping: false,
            around,
        };
        let stored = service.around.store.load_twins().into_iter();
        let mut stored: HashMap<DeviceId, Saved> = stored.map(|StoredTwin { device, saved }| (device, saved)).collect();
        let mut writes = Vec::new();
        for device in &config.devices {
            let saved = stored.remove(&device.id);
            service.admit(device.id.clone(), &device.profile, saved, now, &mut writes);
        }
        for (device, saved) in stored {
            service.bury(&device, &saved, now, &mut writes);
        }
        service.commit_now(writes)?;
        let mut words = std::mem::take(&mut service.words);
        service.twins.values().for_each(|held| held.all(now, &mut words));
        service.around.voice.say(words);
        Ok(service)
    }

    pub(super) fn run(mut self, inputs: &Receiver<Input>) {
        while !self.ended() {
            let wait = self.wait((self.around.clock)());
            match inputs.recv_timeout(wait) {
                Ok(input) => {
                    self.take(input);
                    for input in inputs.try_iter().take(DRAIN) {
                        // what is ready does not wait for what is not
                        if self.words.len() >= WORDS {
                            self.tell();
                        }
                        self.take(input);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // It holds a sender itself, so this cannot be; ending is right all the same.
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
            self.work();
            self.tell();
        }
        self.last_flush();
        self.tell();
    }

    /// Publishes, then answers.
    fn tell(&mut self) {
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            self.around.voice.say(words);
        }
        for (answer, verdict) in self.verdicts.drain(..) {
            answer.give(verdict);
        }
    }

    fn ended(&self) -> bool {
        self.stopping && self.batch.is_none() && self.next.is_empty() && !self.flush.is_under_way()
    }

    /// How long nothing is due.
    fn wait(&self, now: Now) -> Duration {
        let document = self.documents.first().map_or(u64::MAX, |(due, _)| *due);
        let due = self.look_at.min(document).min(self.flush.due(now.tick).unwrap_or(u64::MAX));
        Duration::from_millis(due.saturating_sub(now.tick).min(LOOK_MS))
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Request(request, ticket) if self.stopping => {
                drop(ticket);
                let refusal = Refusal::whole(503, "the gateway is stopping");
                request.answer.give(words::verdict(&refusal));
            }
            Input::Request(request, ticket) => self.on_request(request, ticket),
            Input::Committed(result) => self.on_committed(result),
            Input::Flushed(result) => self.on_flushed(result),
            Input::Reload(config, tell) => self.reloads.push_back((config, tell)),
            // Who asked may have gone.
            Input::Beat(heard) => drop(heard.send(())),
            Input::Stop => self.stopping = true,
        }
    }

    /// Does what is due.
    fn work(&mut self) {
        let now = (self.around.clock)();
        if now.tick >= self.look_at {
            self.look_at = now.tick + LOOK_MS;
            self.look_due = true;
        }
        // A reload and a look change desired values: they wait until the batch before them is on disk.
        if self.batch.is_none() {
            while let Some((config, tell)) = self.reloads.pop_front() {
                self.on_reload(&config, now);
                // Nobody may be waiting any more.
                let _ = tell.send(());
            }
            self.begin_batch(now);
        }
        self.flush_if_due(now);
        self.publish_documents(now);
    }

    fn on_request(&mut self, request: Request, ticket: Ticket) {
        let Some(topic) = TwinTopic::parse(&self.around.root, &request.topic) else {
            return request.answer.give(Verdict::Refused { reason: 0x90, text: "no such topic".to_owned() });
        };
        let held = self.twins.get(topic.device());
        let result = || format!("{}/{}/result", self.around.root, topic.device());
        let own = |wanted: &String| super::claim(&self.around.root, wanted) == Claim::Free || *wanted == result();
        // Nobody makes the gateway write a topic of the gateway's.
        let wanted = request.response_topic.clone().filter(own);
        let asked = wanted.is_some() || !matches!(topic.writer(), protocols::topic::Writer::Mapper);
        let correlation = request.correlation.clone();
        let reply = Reply { topic: wanted.unwrap_or_else(result), correlation, asked };
        let most = if matches!(topic, TwinTopic::ReportedSet(_)) { READINGS_BYTES } else { REQUEST_BYTES };
        let refusal = if held.is_none() {
            Some(Refusal::whole(404, format!("there is no device {}", topic.device())))
        } else if request.author.role == "reader" && !matches!(topic, TwinTopic::Get(_)) {
            Some(Refusal::whole(403, "a reader may not write"))
        } else if request.payload.len() > most {
            Some(Refusal::whole(413, format!("{} bytes; at most {most} are taken", request.payload.len())))
        } else {
            None
        };
        let incoming = Incoming { topic, request, reply, _ticket: ticket };
        match (refusal, &incoming.topic) {
            (Some(refusal), _) => self.refuse(incoming, None, &refusal),
            (None, TwinTopic::ReportedSet(_)) => self.on_readings(incoming),
            (None, TwinTopic::StatusSet(_)) => self.on_status(incoming),
            (None, _) => self.next.push_back(incoming),
        }
    }

    fn on_status(&mut self, incoming: Incoming) {
        let now = (self.around.clock)();
        let status: DeviceStatus = match object(&incoming.request.payload) {
            Ok(status) => status,
            Err(refusal) => return self.refuse(incoming, None, &refusal),
        };
        let device = incoming.topic.device().clone();
        if let Some(held) = self.twins.get_mut(&device)
            && held.twin.on_status(status, now)
        {
            let word = held.status();
            self.words.push(word);
            self.document_due(&device, now);
        }
        self.accept(incoming);
    }

    /// Answers a request of a mapper that needs no transaction.
    pub(super) fn accept(&mut self, incoming: Incoming) {
        if incoming.reply.asked {
            self.words.push(incoming.reply.word(&words::json(&words::accepted(None, None))));
        }
        self.verdicts.push((incoming.request.answer, Verdict::Accepted));
    }

    pub(super) fn refuse(&mut self, incoming: Incoming, id: Option<String>, refusal: &Refusal) {
        add(&self.around.counters.refused, 1);
        let id = id.or_else(|| id_in(&incoming.request.payload));
        let version = match refusal.code {
            409 => self.twins.get(incoming.topic.device()).map(|held| held.twin.desired_version()),
            _ => None,
        };
        self.words.push(incoming.reply.word(&words::json(&words::refused(id, refusal, version))));
        self.verdicts.push((incoming.request.answer, words::verdict(refusal)));
    }

    pub(super) fn status_word(&mut self, device: &DeviceId) {
        self.words.extend(self.twins.get(device).map(Held::status));
    }

    /// Notes that a device's document is another one.
    pub(super) fn document_due(&mut self, device: &DeviceId, now: Now) {
        let Some(held) = self.twins.get_mut(device) else { return };
        if !std::mem::replace(&mut held.document_queued, true) {
            let due = held.document_at.map_or(now.tick, |last| now.tick.max(last + DOCUMENT_MS));
            self.documents.insert((due, device.clone()));
        }
    }

    fn publish_documents(&mut self, now: Now) {
        let mut later = Vec::new();
        let mut written = 0;
        while let Some((due, device)) = self.documents.pop_first() {
            if due > now.tick || written == DOCUMENTS {
                self.documents.insert((due, device));
                break;
            }
            // What is not on disk yet is in no document; the batch asks for one when it ends.
            if self.batch.as_ref().is_some_and(|batch| batch.touches(&device)) {
                later.push((now.tick + BATCH_MS, device));
                continue;
            }
            if let Some(held) = self.twins.get_mut(&device) {
                held.document_at = Some(now.tick);
                held.document_queued = false;
                let word = held.document(now, &mut self.scratch);
                self.words.push(word);
                written += 1;
            }
        }
        self.documents.extend(later);
    }

    /// Writes and waits: for boot, reload and the end, where nothing else goes on.
    pub(super) fn commit_now(&self, writes: Vec<TwinWrite>) -> Result<(), String> {
        if writes.is_empty() {
            return Ok(());
        }
        let (tell, told) = mpsc::channel();
        // Nobody is there to be told only if this thread is gone.
        let done = move |result: Result<(), _>| drop(tell.send(result));
        self.around.store.write(writes, Some(Box::new(done)));
        match told.recv() {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the store's thread has ended".to_owned()),
        }
    }

    /// Brings the rest to the disk, and says that the versions there are exact.
    fn last_flush(&mut self) {
        let mut writes = self.take_dirty(Mark::Touched);
        writes.push(TwinWrite::Settled);
        let result = self.commit_now(writes);
        if let Err(error) = &result {
            tracing::error!(%error, "the last readings are not on disk");
        }
        self.verdicts.extend(self.flush.end(result.is_ok()));
    }
}

/// Reads a payload that has to be a JSON object. The check before is for arrays: serde would take their items for fields.
pub(super) fn object<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, Refusal> {
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::whole(400, "not a JSON object"));
    }
    serde_json::from_slice(payload).map_err(|error| malformed(&error))
}

/// The id of a request that is refused before, or because, the rest of it cannot be read: whoever asked knows by it
/// which of its requests is meant. A number comes back as text.
pub(super) fn id_in(payload: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        id: Value,
    }
    match object::<Named>(payload).ok()?.id {
        Value::String(id) => Some(id),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// The refusal of a payload that is not what it should be.
pub(super) fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal::whole(400, in_plain_words(error))
}

/// An answer that is given later.
pub(super) type Later = (Answer, Reply);
