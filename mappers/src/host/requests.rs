//! Requests of people to the owner of a wire: raw reads and writes, plans, scans, named commands.
//!
//! In: JSON on `gateway/connection/C/request`. Out: JSON on the response topic, or on `…/result`. A scan and a command
//! take many steps; they go one step at a time between polls, so that no device waits for them.
//!
//! ```json
//! {"id":"r1","op":"read","device":"meter-1","property":"voltage"}
//! {"id":"r2","op":"read","unit":1,"table":"holding","address":0,"count":2}
//! {"id":"r3","op":"scan","from":1,"to":247}
//! {"id":"r4","op":"scan","seconds":10}                    on a radio: who is in the air
//! → {"id":"r1","ok":true,"result":{"value":230.1,"quality":"good"}}
//! → {"id":"r3","progress":{"address":20,"to":247},"found":[…]}, then {"id":"r3","ok":true,"result":{"found":[…]}}
//! ```

use std::sync::Arc;

use bytes::Bytes;
use protocols::message::in_plain_words;
use protocols::profile::{CommandStep, Profile};
use protocols::value::Value;
use serde::Deserialize;
use serde_json::json;

use super::Host;
use crate::bus::Message;
use crate::clock::millis;
use crate::port::{CallError, Port};

/// Requests that may wait; one more is answered with 503.
const WAITING: usize = 32;
/// Addresses of one scan between two progress messages.
const PROGRESS_EVERY: u8 = 16;
/// Addresses a scan may try: every unit id there is.
const SCAN_MAX: u8 = 247;

/// The longest a survey of the air may take, in seconds; devices that are asleep for longer are not found.
const SURVEY_MAX_S: u32 = 120;

/// A request as it is written.
#[derive(Clone, Debug, Deserialize)]
struct Request {
    #[serde(default)]
    id: Value,
    op: String,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    property: Option<String>,
    #[serde(default)]
    value: Option<Value>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default = "one")]
    from: u8,
    #[serde(default = "last")]
    to: u8,
    #[serde(default = "survey")]
    seconds: u32,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

fn one() -> u8 {
    1
}

fn last() -> u8 {
    SCAN_MAX
}

fn survey() -> u32 {
    10
}

/// Where an answer goes.
#[derive(Clone, Debug)]
struct Reply {
    id: Value,
    topic: String,
    correlation: Option<Bytes>,
}

/// Something that takes many steps.
#[derive(Debug)]
enum Work {
    Scan { next: u16, to: u8, found: Vec<Value>, profiles: Vec<Arc<Profile>> },
    Survey,
    Command { device: usize, name: String, next: usize, results: Vec<Value> },
}

/// What is asked of a wire.
#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: std::collections::VecDeque<(Request, Reply)>,
    work: Option<(Work, Reply, u64)>,
}

impl Desk {
    /// Whether something is to be done before `tick`, and when.
    pub(super) fn next_due(&self, now: u64) -> Option<u64> {
        let work = self.work.as_ref().map(|(_, _, at)| *at);
        if self.waiting.is_empty() { work } else { Some(now) }
    }
}

/// A refusal: the code of the contract, and why.
type No = (u16, String);

impl<P: Port> Host<P> {
    /// Takes a request in.
    pub(super) fn on_request(&mut self, message: Message) {
        let topic = message.response_topic.unwrap_or_else(|| self.result_topic.clone());
        let mut reply = Reply { id: Value::Null, topic, correlation: message.correlation };
        let request: Request = match serde_json::from_slice(&message.payload) {
            Ok(request) => request,
            Err(error) => {
                return self.refuse(&reply, (400, format!("the request cannot be read: {}", in_plain_words(&error))));
            }
        };
        reply.id = request.id.clone();
        if self.desk.waiting.len() >= WAITING {
            return self.refuse(&reply, (503, "too many requests are waiting".to_owned()));
        }
        self.desk.waiting.push_back((request, reply));
    }

    /// Does one step of what people asked for.
    pub(super) async fn serve(&mut self) {
        if let Some((request, reply)) = self.desk.waiting.pop_front() {
            match self.serve_one(&request, &reply).await {
                Ok(Some(result)) => self.accept(&reply, result),
                Ok(None) => {}
                Err(no) => self.refuse(&reply, no),
            }
        }
        let now = self.clock.now().tick;
        if let Some((work, reply, _)) = self.desk.work.take_if(|(_, _, at)| *at <= now) {
            match work {
                Work::Scan { next, to, found, profiles } => self.scan_step(next, to, found, profiles, reply).await,
                Work::Survey => {
                    let found = self.port.survey(false, &(self.probes)());
                    self.accept(&reply, json!({"found": found}));
                }
                Work::Command { device, name, next, results } => {
                    self.command_step(device, name, next, results, reply).await;
                }
            }
        }
    }

    async fn serve_one(&mut self, request: &Request, reply: &Reply) -> Result<Option<Value>, No> {
        match request.op.as_str() {
            "plan" => self.device_of(request).map(|device| Some(self.port.plan(device))),
            "unpark" => {
                let device = self.device_of(request)?;
                self.port.unpark(device);
                self.poll.read_now(device, self.clock.now().tick);
                Ok(Some(json!({})))
            }
            "read" | "write" | "scan" | "command" if !self.port.is_open() => {
                Err((503, format!("the wire is closed: {}", self.link.reason().unwrap_or("not open yet"))))
            }
            "read" | "write" if request.device.is_some() && request.property.is_some() => {
                self.property_request(request).await.map(Some)
            }
            "read" | "write" => self.raw_request(request).await.map(Some),
            "scan" if self.desk.work.is_none() && self.port.survey(true, &[]).is_some() => {
                let until = self.clock.tick() + u64::from(request.seconds.clamp(1, SURVEY_MAX_S)) * 1_000;
                self.desk.work = Some((Work::Survey, reply.clone(), until));
                Ok(None)
            }
            "scan" => self.begin(request, reply, |host| {
                let (next, to) = (u16::from(request.from), request.to.min(SCAN_MAX));
                Ok(Work::Scan { next, to, found: Vec::new(), profiles: (host.probes)() })
            }),
            "command" => self.begin(request, reply, |host| {
                let device = host.device_of(request)?;
                let name = request.name.clone().ok_or((400, "name the command".to_owned()))?;
                if !host.unit(device).is_some_and(|unit| unit.device.profile.commands.contains_key(&name)) {
                    return Err((404, format!("the profile has no command \"{name}\"")));
                }
                Ok(Work::Command { device, name, next: 0, results: Vec::new() })
            }),
            other => Err((400, format!("\"{other}\" is no request; write read, write, plan, scan, unpark or command"))),
        }
    }

    fn begin(
        &mut self,
        _request: &Request,
        reply: &Reply,
        work: impl FnOnce(&Self) -> Result<Work, No>,
    ) -> Result<Option<Value>, No> {
        if self.desk.work.is_some() {
            return Err((503, "a scan or a command is under way on this wire".to_owned()));
        }
        let work = work(self)?;
        self.desk.work = Some((work, reply.clone(), 0));
        Ok(None)
    }

    fn device_of(&self, request: &Request) -> Result<usize, No> {
        let name = request.device.as_deref().ok_or((400, "name the device".to_owned()))?;
        self.by_id.get(name).copied().ok_or_else(|| (404, format!("no device \"{name}\" on this wire")))
    }

    async fn property_request(&mut self, request: &Request) -> Result<Value, No> {
        let device = self.device_of(request)?;
        let name = request.property.as_deref().unwrap_or_default();
        let profile = self.unit(device).map(|unit| std::sync::Arc::clone(&unit.device.profile));
        let index = profile.as_ref().and_then(|profile| profile.find(name));
        let index = index.ok_or_else(|| (404, format!("the device has no property \"{name}\"")))?;
        if request.op == "write" {
            let value = request.value.clone().ok_or((400, "write needs a value".to_owned()))?;
            self.write_now(device, index, &value).await.map_err(no)?;
        }
        let reads = profile.and_then(|p| Some(p.properties.get(index)?.access.reads())).unwrap_or_default();
        if request.op == "write" && !reads {
            return Ok(json!({}));
        }
        let sample = self.port.read_back(device, index).await.map_err(no)?;
        let result = json!({"value": sample.value, "quality": sample.quality});
        self.take_samples(device, vec![sample]);
        Ok(result)
    }

    async fn raw_request(&mut self, request: &Request) -> Result<Value, No> {
        let mut raw = request.rest.clone();
        raw.insert("op".to_owned(), Value::from(request.op.as_str()));
        if let Some(value) = &request.value {
            raw.insert("value".to_owned(), value.clone());
        }
        if request.device.is_some() {
            raw.insert("device".to_owned(), Value::from(self.device_of(request)?));
        }
        self.port.raw(&Value::Object(raw)).await.map_err(no)
    }

    async fn scan_step(&mut self, next: u16, to: u8, mut found: Vec<Value>, profiles: Vec<Arc<Profile>>, reply: Reply) {
        let Some(address) = u8::try_from(next).ok().filter(|address| *address <= to) else {
            return self.accept(&reply, json!({"found": found}));
        };
        match self.port.look(address, &profiles).await {
            Ok(Some(device)) => found.push(device),
            Ok(None) => {}
            Err(error) => return self.refuse(&reply, no(error)),
        }
        if address.is_multiple_of(PROGRESS_EVERY)
            || !found.is_empty() && found.last().is_some_and(|f| f["address"] == address)
        {
            let progress = json!({"id": reply.id, "progress": {"address": address, "to": to}, "found": found});
            self.voice.answer(reply.topic.clone(), reply.correlation.clone(), &progress);
        }
        self.desk.work = Some((Work::Scan { next: next + 1, to, found, profiles }, reply, 0));
    }

    async fn command_step(&mut self, device: usize, name: String, next: usize, mut results: Vec<Value>, reply: Reply) {
        let step = self.unit(device).and_then(|unit| unit.device.profile.commands.get(&name)?.steps.get(next).cloned());
        let mut at = 0;
        match step {
            None => return self.accept(&reply, json!({"results": results})),
            Some(CommandStep::Delay(pause)) => at = self.clock.now().tick + millis(pause),
            Some(CommandStep::Write(step)) => {
                if let Err(error) = self.write_now(device, step.property, &step.value).await {
                    return self.refuse(&reply, no(error));
                }
            }
            Some(CommandStep::Read(property)) => match self.port.read_back(device, property).await {
                Ok(sample) => {
                    results.push(json!({"value": sample.value, "quality": sample.quality}));
                    self.take_samples(device, vec![sample]);
                }
                Err(error) => return self.refuse(&reply, no(error)),
            },
        }
        self.desk.work = Some((Work::Command { device, name, next: next + 1, results }, reply, at));
    }

    async fn write_now(&mut self, device: usize, property: usize, value: &Value) -> Result<(), CallError> {
        if let Some(unit) = self.unit_mut(device) {
            unit.forget_sample(property);
        }
        self.port.write(device, property, value).await
    }

    fn accept(&mut self, reply: &Reply, result: Value) {
        let answer = json!({"id": reply.id, "ok": true, "result": result});
        self.voice.answer(reply.topic.clone(), reply.correlation.clone(), &answer);
    }

    fn refuse(&mut self, reply: &Reply, (code, error): No) {
        let answer = json!({"id": reply.id, "ok": false, "code": code, "error": error});
        self.voice.answer(reply.topic.clone(), reply.correlation.clone(), &answer);
    }
}

fn no(error: CallError) -> No {
    let code = match &error {
        CallError::Refused(_) | CallError::Invalid(_) => 422,
        CallError::Busy(_) | CallError::Gone(_) => 503,
        CallError::Silent(_) => 504,
    };
    (code, error.to_string())
}
