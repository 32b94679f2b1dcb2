//! Wishes and acknowledgements: a batch is merged, committed, published and answered, in this order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocols::message::{DesiredAck, DesiredSet, Get};
use protocols::name::{DeviceId, PropertyName};
use protocols::topic::TwinTopic;
use protocols::twin::{Change, Refusal, Undo};
use protocols::value::{Now, Value};

use super::service::{Incoming, Later, Service, malformed, object};
use super::words::{self, Reply};
use super::{Input, Word, add};
use crate::broker::desk::{Author, Verdict};
use crate::store::TwinWrite;

/// Requests of one batch; more wait for the next.
const BATCH_REQUESTS: usize = 1024;

/// One batch on its way to the disk.
#[derive(Default)]
pub(super) struct Batch {
    undo: HashMap<DeviceId, Undo>,
    writes: Vec<TwinWrite>,
    /// Topics to publish once it is committed: per device its changed desired properties, and whether the delta is new.
    topics: BTreeMap<DeviceId, (BTreeSet<PropertyName>, bool)>,
    /// Last states and events, in order.
    words: Vec<Word>,
    ends: Vec<End>,
}

/// How one request ends when the batch is committed.
struct End {
    later: Later,
    id: Option<String>,
    word: Option<Word>,
    verdict: Verdict,
}

impl Batch {
    /// Whether it changes this device.
    pub(super) fn touches(&self, device: &DeviceId) -> bool {
        self.undo.contains_key(device)
    }
}

/// What a request asks for.
enum Wanted {
    Set(DesiredSet),
    Ack(DesiredAck),
    Get(Get),
}

impl Service {
    /// Merges what waits, and sends it to the disk. Expiry is part of the batch.
    pub(super) fn begin_batch(&mut self, now: Now) {
        let mut batch = Batch::default();
        if std::mem::take(&mut self.look_due) {
            self.look(now, &mut batch);
        }
        for _ in 0..BATCH_REQUESTS {
            let Some(incoming) = self.next.pop_front() else { break };
            self.merge(incoming, now, &mut batch);
        }
        if batch.ends.is_empty() && batch.writes.is_empty() && batch.topics.is_empty() {
            return;
        }
        let writes = std::mem::take(&mut batch.writes);
        self.batch = Some(batch);
        if writes.is_empty() {
            return self.on_committed(Ok(()));
        }
        let inputs = self.around.inputs.clone();
        // The service may be gone by then; then nobody waits.
        let done = move |result: Result<(), crate::broker::shelf::ShelfError>| {
            drop(inputs.send(Input::Committed(result.map_err(|error| error.to_string()))));
        };
        self.around.store.write(writes, Some(Box::new(done)));
    }

    /// Lets time pass for every twin.
    fn look(&mut self, now: Now, batch: &mut Batch) {
        let mut stale = Vec::new();
        for (device, held) in &mut self.twins {
            let Some(undo) = held.twin.is_waiting().then(|| held.twin.undo_point()) else {
                if held.twin.on_time(now).status {
                    stale.push(device.clone());
                }
                continue;
            };
            let change = held.twin.on_time(now);
            if change.status {
                stale.push(device.clone());
            }
            if !change.leaves.is_empty() {
                add(&self.around.counters.expired, change.leaves.len());
                batch.undo.entry(device.clone()).or_insert(undo);
                note(batch, device, &held.prefix, change);
            }
        }
        for device in stale {
            self.status_word(&device);
            self.document_due(&device, now);
        }
    }

    fn merge(&mut self, incoming: Incoming, now: Now, batch: &mut Batch) {
        let wanted = match read(&incoming) {
            Ok(wanted) => wanted,
            Err(refusal) => return self.refuse(incoming, None, &refusal),
        };
        let device = incoming.topic.device().clone();
        let Some(held) = self.twins.get_mut(&device) else {
            let refusal = Refusal::whole(404, format!("there is no device {device}"));
            return self.refuse(incoming, None, &refusal);
        };
        let undo = || held.twin.undo_point();
        let (id, result) = match wanted {
            Wanted::Get(get) => {
                let mut document = Vec::with_capacity(1024);
                held.twin.write_document(now.wall, &mut document);
                let word = incoming.reply.word(&with_id(get.id.as_deref(), document));
                return batch.end(incoming, get.id, Some(word), Verdict::Accepted);
            }
            Wanted::Set(set) => {
                batch.undo.entry(device.clone()).or_insert_with(undo);
                (set.id.clone(), held.twin.on_desired(&set, name_of(&incoming.request.author), now))
            }
            Wanted::Ack(ack) => {
                batch.undo.entry(device.clone()).or_insert_with(undo);
                (None, held.twin.on_ack(&ack, now))
            }
        };
        let reply = &incoming.reply;
        match result {
            Ok(change) => {
                add(&self.around.counters.stale_acks, change.stale);
                let version = held.twin.desired_version();
                note(batch, &device, &held.prefix, change);
                let word = || reply.word(&words::json(&words::accepted(id.clone(), Some(version))));
                let word = reply.asked.then(word);
                batch.end(incoming, id, word, Verdict::Accepted);
            }
            Err(refusal) => {
                add(&self.around.counters.refused, 1);
                let version = (refusal.code == 409).then(|| held.twin.desired_version());
                let word = reply.word(&words::json(&words::refused(id.clone(), &refusal, version)));
                batch.end(incoming, id, Some(word), words::verdict(&refusal));
            }
        }
    }

    /// The batch is on disk, or cannot be brought there.
    pub(super) fn on_committed(&mut self, result: Result<(), String>) {
        let Some(batch) = self.batch.take() else { return };
        let now = (self.around.clock)();
        if let Err(error) = result {
            return self.take_back(batch, &error);
        }
        // Last states come before the topics they stood on are cleared, events and answers after the state they tell of.
        let (last, rest): (Vec<Word>, Vec<Word>) = batch.words.into_iter().partition(|word| word.retain);
        self.words.extend(last);
        for (device, (names, delta)) in batch.topics {
            let Some(held) = self.twins.get(&device) else { continue };
            self.words.extend(names.iter().map(|name| held.desired(name.as_str())));
            if delta {
                self.words.push(held.delta());
            }
            self.document_due(&device, now);
        }
        self.words.extend(rest);
        for end in batch.ends {
            self.words.extend(end.word);
            self.verdicts.push((end.later.0, end.verdict));
        }
    }

    fn take_back(&mut self, batch: Batch, error: &str) {
        for (device, undo) in batch.undo {
            if let Some(held) = self.twins.get_mut(&device) {
                held.twin.undo(undo);
            }
        }
        let refusal = Refusal::whole(503, error);
        add(&self.around.counters.refused, batch.ends.len());
        for End { later: (answer, reply), id, .. } in batch.ends {
            self.words.push(reply.word(&words::json(&words::refused(id, &refusal, None))));
            self.verdicts.push((answer, words::verdict(&refusal)));
        }
    }
}

impl Batch {
    fn end(&mut self, incoming: Incoming, id: Option<String>, word: Option<Word>, verdict: Verdict) {
        let Incoming { request, reply, .. } = incoming;
        self.ends.push(End { later: (request.answer, reply), id, word, verdict });
    }
}

/// Puts a change into the batch.
fn note(batch: &mut Batch, device: &DeviceId, prefix: &str, change: Change) {
    if change.is_empty() {
        return;
    }
    let (names, delta) = batch.topics.entry(device.clone()).or_default();
    *delta |= change.delta;
    for (name, leaf) in change.leaves {
        names.insert(name.clone());
        batch.writes.push(TwinWrite::Desired(device.clone(), name, leaf));
    }
    for (name, out) in change.last_words {
        batch.words.push(words::kept(&words::below(prefix, "desired", name.as_str()), &words::json(&out)));
    }
    let events = change.events.iter();
    batch.words.extend(events.map(|event| words::spoken(&[prefix, "/event"], &words::json(event))));
}

fn read(incoming: &Incoming) -> Result<Wanted, Refusal> {
    let payload: &[u8] = &incoming.request.payload;
    match &incoming.topic {
        TwinTopic::DesiredPropertySet(_, name) => {
            let value = if payload.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(payload).map_err(|error| malformed(&error))?
            };
            Ok(Wanted::Set(DesiredSet { patch: BTreeMap::from([(name.to_string(), value)]), ..DesiredSet::default() }))
        }
        TwinTopic::DesiredSet(_) => object(payload).map(Wanted::Set),
        TwinTopic::DesiredAck(_) => object(payload).map(Wanted::Ack),
        TwinTopic::Get(_) if payload.is_empty() => Ok(Wanted::Get(Get::default())),
        TwinTopic::Get(_) => object(payload).map(Wanted::Get),
        _ => Err(Refusal::whole(404, "nothing is asked for on this topic")),
    }
}

/// Who wishes it when the request does not say.
fn name_of(author: &Author) -> &str {
    author.user.as_deref().unwrap_or(&author.client)
}

/// The document with the request's id before everything else.
fn with_id(id: Option<&str>, document: Vec<u8>) -> Vec<u8> {
    let Some(id) = id else { return document };
    let mut out = b"{\"id\":".to_vec();
    out.extend(words::json(&id));
    out.push(b',');
    out.extend(document.iter().skip(1));
    out
}

/// Answers that wait hold their reply only.
impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (_, Reply { topic, .. }) = &self.later;
        f.debug_struct("End").field("topic", topic).finish_non_exhaustive()
    }
}
