//! The port of a serial line: streams, requests with their answers, writes.
//!
//! In: jobs and properties by number. Out: samples and outcomes; what came unasked. Must never let a device that streams
//! wait for one that does not answer, and never send a value its template does not hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocols::config::{Connection, Device};
use protocols::poll::Job;
use protocols::profile::serial::{Greeting, Heard, Request};
use protocols::profile::{Profile, Property};
use protocols::serial::extract::{bytes_of, show};
use protocols::serial::frame::Frame;
use protocols::serial::{acknowledgement, identification};
use protocols::value::{Quality, Value, Why};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::line::{Line, Lost};
use crate::clock::millis;
use crate::port::{CallError, Counters, Gone, OpenError, Port, Push, Sample, Step, StepEnd};

/// A device that spoke by itself within this time is there, whatever it does not answer.
const ALIVE: Duration = Duration::from_secs(10);
/// From a meter's identification to our answer: IEC 62056-21 asks for 200 ms to 1500 ms.
const SIGN_ON_PAUSE: Duration = Duration::from_millis(300);
/// How long `device read` listens when nobody says.
const RAW_LISTEN: Duration = Duration::from_secs(2);
/// Messages shown of one `device read`; more are left out.
const RAW_FRAMES: usize = 64;
/// Pushes kept for the host, which takes them after every transaction; the oldest are given up beyond.
const HEARD: usize = 4_096;

/// The port of one serial line.
#[derive(Debug)]
pub struct SerialPort {
    connection: Arc<Connection>,
    line: Line,
    stations: BTreeMap<usize, Station>,
    heard: VecDeque<Push>,
    counters: Counters,
}

/// One device.
#[derive(Debug)]
struct Station {
    device: Arc<Device>,
    /// The requests of each group.
    groups: Vec<Vec<usize>>,
    /// What is still to be asked of the cycle under way.
    cycles: Vec<Option<VecDeque<usize>>>,
    /// How much of what is sent after opening was sent.
    greeted: usize,
    /// When it last spoke by itself.
    spoke: Option<Instant>,
}

impl Station {
    fn new(device: Arc<Device>) -> Self {
        let profile = &device.profile;
        let mut groups: Vec<Vec<usize>> = vec![Vec::new(); profile.groups.len()];
        for property in profile.properties.iter().filter(|property| property.access.reads()) {
            let request = property.source.serial().and_then(|visit| visit.request);
            if let (Some(request), Some(group)) = (request, groups.get_mut(property.group))
                && !group.contains(&request)
            {
                group.push(request);
            }
        }
        let cycles = vec![None; groups.len()];
        Self { device, groups, cycles, greeted: 0, spoke: None }
    }

    fn next_greeting(&mut self) -> Option<Greeting> {
        let greeting = self.device.profile.serial.as_ref()?.on_open.get(self.greeted)?.clone();
        self.greeted += 1;
        Some(greeting)
    }

    fn request(&self, index: usize) -> Option<&Request> {
        self.device.profile.serial.as_ref()?.requests.get(index)
    }

    fn property(&self, index: usize) -> Result<&Property, CallError> {
        let property = self.device.profile.properties.get(index);
        property.ok_or_else(|| CallError::Invalid("the device has no such property".to_owned()))
    }

    /// Whether it was heard by itself a moment ago.
    fn is_alive(&self) -> bool {
        let window = self.device.profile.silence().unwrap_or(ALIVE);
        self.spoke.is_some_and(|spoke| spoke.elapsed() < window)
    }
}

fn samples(heard: Heard) -> Vec<Sample> {
    heard.values.into_iter().map(|(property, value, quality)| Sample { property, value, quality }).collect()
}

fn gone(lost: Lost) -> CallError {
    CallError::Gone(lost.0)
}

impl SerialPort {
    /// A port for a line that is not open yet.
    pub fn new(connection: Arc<Connection>) -> Self {
        Self {
            line: Line::new(Arc::clone(&connection)),
            connection,
            stations: BTreeMap::new(),
            heard: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    fn station(&self, device: usize) -> Result<&Station, CallError> {
        self.stations.get(&device).ok_or_else(|| CallError::Invalid("no such device on this line".to_owned()))
    }

    /// What a message says, if the device knows it or its check proves that it is one of its own.
    fn understand(&self, device: usize, frame: &Frame) -> Option<Heard> {
        let heard = self.stations.get(&device)?.device.profile.hear(&frame.bytes);
        (frame.checked || !heard.messages.is_empty()).then_some(heard)
    }

    /// Takes messages in that nobody asked for.
    fn overhear(&mut self, frames: Vec<(usize, Frame)>) {
        for (device, frame) in frames {
            let Some(heard) = self.understand(device, &frame) else { continue };
            self.keep(device, heard);
        }
    }

    fn keep(&mut self, device: usize, heard: Heard) {
        if let Some(station) = self.stations.get_mut(&device) {
            station.spoke = Some(Instant::now());
        }
        let mut samples = samples(heard);
        match self.heard.back_mut() {
            Some(last) if last.device == device => last.samples.append(&mut samples),
            _ => self.heard.push_back(Push { device, samples }),
        }
        if self.heard.len() > HEARD {
            self.heard.pop_front();
        }
    }

    /// Sends what the profiles want sent after opening. A wait that is dropped goes on with the next time.
    async fn greet(&mut self) -> Result<(), Lost> {
        while let Some(greeting) = self.stations.values_mut().find_map(Station::next_greeting) {
            self.line.send(&greeting.bytes).await?;
            sleep(greeting.delay).await;
        }
        Ok(())
    }

    /// Sends a request, and gives its answer; nothing where none is expected.
    async fn ask(&mut self, device: usize, index: usize, bytes: &[u8], tries: u32) -> Result<Heard, CallError> {
        let station = self.station(device)?;
        let request = station.request(index).cloned();
        let request = request.ok_or_else(|| CallError::Invalid("the profile has no such request".to_owned()))?;
        let mut outcome = Err(CallError::Silent(Why::Timeout));
        for attempt in 0..=tries {
            self.counters.requests += 1;
            self.counters.retries += u64::from(attempt > 0);
            let damaged = self.line.bad_checks(device);
            // What came before the request is no answer to it.
            let stale = self.line.drain().map_err(gone)?;
            self.overhear(stale);
            outcome = match request.sign_on {
                Some(fastest) => self.sign_on(device, &request, bytes, fastest).await,
                None => self.exchange(device, &request, bytes).await,
            };
            if !request.settle.is_zero() {
                sleep(request.settle).await;
            }
            match &outcome {
                Err(CallError::Silent(_)) => {
                    self.counters.timeouts += 1;
                    if self.line.bad_checks(device) > damaged {
                        outcome = Err(CallError::Silent(Why::Crc));
                    }
                }
                _ => break,
            }
        }
        outcome
    }

    async fn exchange(&mut self, device: usize, request: &Request, bytes: &[u8]) -> Result<Heard, CallError> {
        self.line.send(bytes).await.map_err(gone)?;
        let Some(answer) = request.answer else { return Ok(Heard::default()) };
        self.answer(device, answer, request).await
    }

    /// Waits for the answer; everything else that comes meanwhile was not asked for.
    async fn answer(&mut self, device: usize, answer: usize, request: &Request) -> Result<Heard, CallError> {
        let deadline = Instant::now() + request.timeout.unwrap_or(self.connection.timeout);
        while Instant::now() < deadline {
            let frames = self.line.listen(Some(deadline)).await.map_err(gone)?;
            let mut outcome = None;
            for (number, frame) in frames {
                let Some(heard) = self.understand(number, &frame) else { continue };
                let is = |message: usize| number == device && heard.messages.contains(&message);
                if outcome.is_none() && is(answer) {
                    self.counters.answers += 1;
                    outcome = Some(Ok(heard));
                } else if outcome.is_none() && request.refusal.is_some_and(is) {
                    self.counters.exceptions += 1;
                    outcome = Some(Err(CallError::Invalid(format!("the device answers {}", show(&frame.bytes)))));
                } else {
                    self.keep(number, heard);
                }
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
        Err(CallError::Silent(Why::Timeout))
    }

    /// The sign-on of IEC 62056-21 mode C: identification, agreement on a speed, the list at that speed.
    async fn sign_on(
        &mut self,
        device: usize,
        request: &Request,
        bytes: &[u8],
        fastest: u32,
    ) -> Result<Heard, CallError> {
        let Some(answer) = request.answer else { return Ok(Heard::default()) };
        self.line.set_speed(None).map_err(gone)?;
        self.line.send(bytes).await.map_err(gone)?;
        let deadline = Instant::now() + request.timeout.unwrap_or(self.connection.timeout);
        let meter = loop {
            if Instant::now() >= deadline {
                return Err(CallError::Silent(Why::Timeout));
            }
            let frames = self.line.listen(Some(deadline)).await.map_err(gone)?;
            let mine = frames.iter().filter(|(number, _)| *number == device);
            // An adapter that echoes shows our own line first; it names nobody.
            if let Some(meter) = mine.filter_map(|(_, frame)| identification(&frame.bytes)).next() {
                break meter;
            }
        };
        sleep(SIGN_ON_PAUSE).await;
        let (bytes, baud) = acknowledgement(&meter, self.line.has_speed().then_some(fastest));
        self.line.send(&bytes).await.map_err(gone)?;
        // The last bit has to be on the line before its speed changes.
        sleep(self.line.on_wire(bytes.len(), None)).await;
        self.line.set_speed(Some(baud)).map_err(gone)?;
        let outcome = self.answer(device, answer, request).await;
        self.line.set_speed(None).map_err(gone)?;
        outcome
    }

    /// Asks one request of a profile.
    async fn fetch(&mut self, device: usize, index: usize, tries: Option<u32>) -> Result<Heard, CallError> {
        let station = self.station(device)?;
        let profile = Arc::clone(&station.device.profile);
        let found = profile.serial.as_ref().and_then(|serial| Some((serial, serial.requests.get(index)?)));
        let (serial, request) = found.ok_or_else(|| CallError::Invalid("there is no such request".to_owned()))?;
        let bytes = serial.bytes_of(request).map_err(CallError::Invalid)?;
        self.ask(device, index, &bytes, tries.unwrap_or(request.retries)).await
    }

    /// One request of a cycle.
    async fn step(&mut self, job: Job) -> Step {
        let Some(station) = self.stations.get_mut(&job.device) else {
            return Step { samples: Vec::new(), end: StepEnd::Done };
        };
        let own = station.groups.get(job.group).cloned().unwrap_or_default();
        let Some(cycle) = station.cycles.get_mut(job.group) else {
            return Step { samples: Vec::new(), end: StepEnd::Done };
        };
        let queue = cycle.get_or_insert_with(|| own.into());
        let Some(request) = queue.pop_front() else {
            *cycle = None;
            return Step { samples: Vec::new(), end: StepEnd::Done };
        };
        let end = if queue.is_empty() { StepEnd::Done } else { StepEnd::Part };
        if end == StepEnd::Done {
            *cycle = None;
        }
        let profile = Arc::clone(&station.device.profile);
        let belongs = |property: usize| {
            let found = profile.properties.get(property);
            found.is_some_and(|found| found.group == job.group && found.source.is_polled())
        };
        match self.fetch(job.device, request, None).await {
            Ok(heard) => {
                let (own, others): (Vec<_>, Vec<_>) = heard.values.into_iter().partition(|(index, ..)| belongs(*index));
                if !others.is_empty() {
                    self.heard.push_back(Push {
                        device: job.device,
                        samples: samples(Heard { values: others, ..Heard::default() }),
                    });
                }
                Step { samples: samples(Heard { values: own, ..Heard::default() }), end }
            }
            Err(CallError::Gone(reason)) => Step { samples: Vec::new(), end: StepEnd::Gone(reason) },
            Err(error) => self.on_failure(job, request, &error, end),
        }
    }

    /// A request that was not answered: the device is away, unless it speaks by itself.
    fn on_failure(&mut self, job: Job, request: usize, error: &CallError, end: StepEnd) -> Step {
        let why = if let CallError::Silent(why) = error { *why } else { Why::Config };
        let Some(station) = self.stations.get_mut(&job.device) else { return Step { samples: Vec::new(), end } };
        if !error.answered() && !station.is_alive() {
            if let Some(cycle) = station.cycles.get_mut(job.group) {
                *cycle = None;
            }
            return Step { samples: Vec::new(), end: StepEnd::Failed(why) };
        }
        let properties = station.device.profile.properties.iter().enumerate();
        let mine = properties.filter(|(_, property)| {
            property.group == job.group
                && property.access.reads()
                && property.source.serial().is_some_and(|visit| visit.request == Some(request))
        });
        let samples = mine.map(|(property, _)| Sample { property, value: Value::Null, quality: Quality::Bad(why) });
        Step { samples: samples.collect(), end }
    }

    /// Waits for a message that holds a property which the device sends by itself.
    async fn await_property(&mut self, device: usize, property: usize) -> Result<Sample, CallError> {
        let patience = self.station(device)?.device.profile.silence().unwrap_or(ALIVE).max(self.connection.timeout);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let frames = self.line.listen(Some(deadline)).await.map_err(gone)?;
            let mut found = None;
            for (number, frame) in frames {
                let Some(heard) = self.understand(number, &frame) else { continue };
                if number == device {
                    let own = heard.values.iter().find(|(index, ..)| *index == property);
                    found = own.map(|(_, value, quality)| (value.clone(), *quality)).or(found);
                }
                self.keep(number, heard);
            }
            if let Some((value, quality)) = found {
                return Ok(Sample { property, value, quality });
            }
        }
        Err(CallError::Silent(Why::Timeout))
    }
}

impl Port for SerialPort {
    async fn open(&mut self) -> Result<(), OpenError> {
        for station in self.stations.values_mut() {
            station.greeted = 0;
            station.cycles.iter_mut().for_each(|cycle| *cycle = None);
        }
        self.line.open().await.map_err(|error| OpenError(error.to_string()))?;
        self.greet().await.map_err(|lost| OpenError(lost.0))
    }

    async fn close(&mut self) {
        self.line.close();
    }

    fn is_open(&self) -> bool {
        self.line.is_open()
    }

    fn add(&mut self, number: usize, device: Arc<Device>) {
        if let Some(serial) = &device.profile.serial {
            self.line.add(number, serial.framer());
        }
        self.stations.insert(number, Station::new(device));
    }

    fn remove(&mut self, number: usize) {
        self.line.remove(number);
        self.stations.remove(&number);
        self.heard.retain(|push| push.device != number);
    }

    async fn read(&mut self, jobs: &[Job], _tick: u64) -> Vec<Step> {
        let mut steps = Vec::with_capacity(jobs.len());
        for job in jobs {
            let step = match self.greet().await {
                Ok(()) => self.step(*job).await,
                Err(lost) => Step { samples: Vec::new(), end: StepEnd::Gone(lost.0) },
            };
            steps.push(step);
        }
        steps
    }

    fn give_up(&mut self, _job: Job, _why: Why) -> Step {
        // No serial device says that it is busy.
        Step { samples: Vec::new(), end: StepEnd::Done }
    }

    async fn write(&mut self, device: usize, property: usize, value: &Value) -> Result<(), CallError> {
        let station = self.station(device)?;
        let profile = Arc::clone(&station.device.profile);
        let own = station.property(property)?;
        let write = own.source.serial().and_then(|visit| visit.write.as_ref());
        let (Some(write), Some(serial)) = (write, &profile.serial) else {
            return Err(CallError::Invalid("is read-only".to_owned()));
        };
        let index = write.request;
        let bytes = own.serial_request(value, serial).map_err(CallError::Invalid)?;
        self.greet().await.map_err(gone)?;
        // A write is tried once: whether to press a button again is not the line's to decide.
        let heard = self.ask(device, index, &bytes, 0).await?;
        if !heard.messages.is_empty() {
            self.keep(device, heard);
        }
        Ok(())
    }

    async fn read_back(&mut self, device: usize, property: usize) -> Result<Sample, CallError> {
        let own = self.station(device)?.property(property)?;
        let visit = own.source.serial();
        let visit = visit.ok_or_else(|| CallError::Invalid("the property is not read from the device".to_owned()))?;
        let Some(request) = visit.request else { return self.await_property(device, property).await };
        let heard = self.fetch(device, request, None).await?;
        let found = heard.values.iter().find(|(index, ..)| *index == property);
        let found = found.map(|(_, value, quality)| Sample { property, value: value.clone(), quality: *quality });
        let others = heard.values.into_iter().filter(|(index, ..)| *index != property).collect();
        self.keep(device, Heard { messages: heard.messages, values: others });
        found.ok_or(CallError::Silent(Why::Decode))
    }

    async fn probe(&mut self, device: usize) -> Result<(), CallError> {
        let station = self.station(device)?;
        let Some(request) = station.groups.iter().flatten().next().copied() else { return Ok(()) };
        match self.fetch(device, request, Some(0)).await {
            Err(error) if !error.answered() => Err(error),
            Ok(heard) => {
                self.keep(device, heard);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    fn same(&self, device: usize, property: usize, left: &Value, right: &Value) -> bool {
        let own = self.station(device).and_then(|station| station.property(property));
        own.is_ok_and(|property| property.same_encoded(left, right))
    }

    /// `{"op":"write","text":"Q\r\n"}` or `{"op":"write","hex":"FF 01"}` sends and listens; `{"op":"read"}` listens. Both
    /// take `timeout_ms`, and give the messages that came.
    async fn raw(&mut self, request: &Value) -> Result<Value, CallError> {
        let text = |key: &str| request.get(key).and_then(Value::as_str);
        let tx = match (text("text"), text("hex")) {
            (Some(text), None) => Some(text.as_bytes().to_vec()),
            (None, Some(hex)) => Some(bytes_of(hex)),
            (None, None) if text("op") == Some("read") => None,
            _ => return Err(CallError::Invalid("write needs text or hex".to_owned())),
        };
        let limit = request.get("timeout_ms").and_then(Value::as_u64).map_or(RAW_LISTEN, Duration::from_millis);
        if let Some(tx) = tx {
            self.line.send(&tx).await.map_err(gone)?;
        }
        let deadline = Instant::now() + limit.min(RAW_LISTEN * 15);
        let mut messages = Vec::new();
        while Instant::now() < deadline && messages.len() < RAW_FRAMES {
            let frames = self.line.listen(Some(deadline)).await.map_err(gone)?;
            messages.extend(frames.iter().map(|(_, frame)| show(&frame.bytes)));
            self.overhear(frames);
        }
        Ok(json!({"messages": messages}))
    }

    async fn look(&mut self, _address: u8, _profiles: &[Arc<Profile>]) -> Result<Option<Value>, CallError> {
        Err(CallError::Invalid("a serial line has no addresses to scan; listen with device read".to_owned()))
    }

    fn plan(&self, device: usize) -> Value {
        let Some(station) = self.stations.get(&device) else { return Value::Null };
        let profile = &station.device.profile;
        let properties = |wanted: &dyn Fn(Option<usize>) -> bool| {
            let found = profile.properties.iter().filter(|property| property.access.reads());
            let mine = found.filter(|property| property.source.serial().is_some_and(|visit| wanted(visit.request)));
            mine.map(|property| property.name.to_string()).collect::<Vec<_>>()
        };
        let groups = profile.groups.iter().zip(&station.groups).map(|(group, requests)| {
            let requests = requests.iter().map(|index| {
                json!({
                    "request": station.request(*index).map(|request| &request.name),
                    "properties": properties(&|own| own == Some(*index)),
                })
            });
            json!({
                "group": group.name,
                "interval_ms": millis(group.interval),
                "requests": requests.collect::<Vec<_>>(),
            })
        });
        let counts = self.line.framer(device).map(|framer| framer.counts()).unwrap_or_default();
        json!({
            "groups": groups.collect::<Vec<_>>(),
            "unasked": properties(&|own| own.is_none()),
            "frames": {
                "whole": counts.frames,
                "bad_checks": counts.bad_checks,
                "too_long": counts.too_long,
                "malformed": counts.malformed,
                "interrupted": counts.interrupted,
                "noise_bytes": counts.noise_bytes,
            },
        })
    }

    fn unpark(&mut self, _device: usize) {}

    fn counters(&self) -> Counters {
        Counters { dropped: self.line.dropped(), ..self.counters }
    }

    async fn pushed(&mut self) -> Result<Vec<Push>, Gone> {
        loop {
            if !self.line.is_open() {
                std::future::pending::<()>().await;
            }
            if !self.heard.is_empty() {
                return Ok(self.heard.drain(..).collect());
            }
            self.greet().await.map_err(|lost| Gone(lost.0))?;
            let frames = self.line.listen(None).await.map_err(|lost| Gone(lost.0))?;
            self.overhear(frames);
        }
    }

    fn overheard(&mut self) -> Vec<Push> {
        self.heard.drain(..).collect()
    }
}
