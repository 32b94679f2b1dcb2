//! A port whose devices are values in memory, and that fails as it is told; and the far end of the bus.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use protocols::config::{Connection, Device, Wire};
use protocols::poll::Job;
use protocols::profile::Profile;
use protocols::value::{Quality, Value, Why, same};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::{Far, Incoming, Message, Outgoing, pair};
use crate::clock::Clock;
use crate::host::{Host, Setup};
use crate::port::{CallError, Counters, Gone, OpenError, Port, Push, Sample, Step, StepEnd};

/// How long a healthy transaction takes.
pub(super) const TRANSACTION: Duration = Duration::from_millis(20);
/// How long a dead device is waited for.
pub(super) const TIMEOUT: Duration = Duration::from_millis(500);

/// One device on the fake wire.
#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) values: Vec<Value>,
    pub(super) dead: bool,
    /// Busy answers still to give.
    pub(super) busy: u32,
    /// Reads that are answered with this exception, by property.
    pub(super) refuse_read: BTreeMap<usize, u8>,
    /// Writes that are answered with this exception after the given time, by property.
    pub(super) refuse_write: BTreeMap<usize, (u8, Duration)>,
    /// Writes are cut to this.
    pub(super) clamp: Option<f64>,
    /// Transactions of one read cycle; 1 when 0.
    pub(super) parts: usize,
}

/// The state of the wire, shared with the test.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) devices: HashMap<String, Fake>,
    pub(super) unplugged: bool,
    /// The link closes under the next request.
    pub(super) hang_up: bool,
    pub(super) log: Vec<(u64, String)>,
    pub(super) opens: u32,
    /// What the port has to remember; asked for once.
    pub(super) memory: Option<Value>,
    /// What devices say without being asked, by id.
    pushes: Vec<(String, Vec<Sample>)>,
}

#[derive(Debug, Clone)]
pub(super) struct Bench(Arc<Mutex<Inside>>, Instant, Arc<Notify>);

impl Bench {
    pub(super) fn new() -> Self {
        Self(Arc::default(), Instant::now(), Arc::default())
    }

    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    pub(super) fn device(&self, id: &str, change: impl FnOnce(&mut Fake)) {
        change(self.inside().devices.entry(id.to_owned()).or_default());
    }

    /// A device speaks by itself; without a value it only shows that it is there.
    pub(super) fn push(&self, id: &str, value: Option<Value>) {
        let samples = value.map(|value| Sample { property: 0, value, quality: Quality::Good });
        self.inside().pushes.push((id.to_owned(), samples.into_iter().collect()));
        self.2.notify_one();
    }

    /// The wire is pulled out while nobody asks anything.
    pub(super) fn pull_out(&self) {
        self.inside().unplugged = true;
        self.2.notify_one();
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.inside().log.iter().map(|(_, line)| line.clone()).collect()
    }

    fn note(&self, line: String) {
        let at = u64::try_from(self.1.elapsed().as_millis()).unwrap();
        self.inside().log.push((at, line));
    }
}

pub(super) struct FakePort {
    bench: Bench,
    open: bool,
    devices: HashMap<usize, Arc<Device>>,
    parts: HashMap<Job, usize>,
    pub(super) width: usize,
}

impl FakePort {
    pub(super) fn new(bench: Bench) -> Self {
        Self { bench, open: false, devices: HashMap::new(), parts: HashMap::new(), width: 1 }
    }

    fn id(&self, device: usize) -> String {
        self.devices[&device].id.to_string()
    }

    async fn transact(&mut self, id: &str) -> Result<(), CallError> {
        let (dead, gone) = {
            let mut inside = self.bench.inside();
            let gone = inside.unplugged || std::mem::take(&mut inside.hang_up);
            (inside.devices[id].dead, gone)
        };
        if gone {
            self.open = false;
            return Err(CallError::Gone("it hung up".to_owned()));
        }
        tokio::time::sleep(if dead { TIMEOUT } else { TRANSACTION }).await;
        if dead { Err(CallError::Silent(Why::Timeout)) } else { Ok(()) }
    }

    fn sample(&self, id: &str, property: usize) -> Sample {
        let inside = self.bench.inside();
        let fake = &inside.devices[id];
        match fake.refuse_read.get(&property) {
            Some(code) => Sample { property, value: Value::Null, quality: Quality::Bad(Why::Exception(*code)) },
            None => Sample { property, value: fake.values[property].clone(), quality: Quality::Good },
        }
    }

    async fn step(&mut self, job: Job) -> Step {
        let id = self.id(job.device);
        let nothing = |end| Step { samples: Vec::new(), end };
        self.bench.note(format!("read {id}"));
        match self.transact(&id).await {
            Err(CallError::Gone(reason)) => return nothing(StepEnd::Gone(reason)),
            Err(_) => {
                self.parts.remove(&job);
                return nothing(StepEnd::Failed(Why::Timeout));
            }
            Ok(()) => {}
        }
        let busy = {
            let mut inside = self.bench.inside();
            let fake = inside.devices.get_mut(&id).unwrap();
            let busy = fake.busy > 0;
            fake.busy = fake.busy.saturating_sub(1);
            busy
        };
        if busy { nothing(StepEnd::Busy(6)) } else { self.part(job, &id) }
    }

    /// The part of the cycle whose turn it is: every `parts`-th property of the group.
    fn part(&mut self, job: Job, id: &str) -> Step {
        let parts = self.bench.inside().devices[id].parts.max(1);
        let part = self.parts.get(&job).copied().unwrap_or_default();
        let device = Arc::clone(&self.devices[&job.device]);
        let wanted = device.profile.properties.iter().enumerate().filter(|(index, property)| {
            property.group == job.group && property.access.reads() && index % parts == part
        });
        let samples =
            wanted.filter(|(_, p)| p.source.modbus().is_some()).map(|(index, _)| self.sample(id, index)).collect();
        let done = part + 1 >= parts;
        self.parts.insert(job, if done { 0 } else { part + 1 });
        Step { samples, end: if done { StepEnd::Done } else { StepEnd::Part } }
    }
}

impl Port for FakePort {
    fn memory(&mut self) -> Option<Value> {
        self.bench.inside().memory.take()
    }

    async fn open(&mut self) -> Result<(), OpenError> {
        let mut inside = self.bench.inside();
        self.parts.clear();
        if inside.unplugged {
            return Err(OpenError("no such port".to_owned()));
        }
        inside.opens += 1;
        self.open = true;
        Ok(())
    }

    async fn close(&mut self) {
        self.open = false;
    }

    fn is_open(&self) -> bool {
        self.open
    }

    fn width(&self) -> usize {
        self.width
    }

    fn add(&mut self, number: usize, device: Arc<Device>) {
        self.bench.note(format!("add {}", device.id));
        self.devices.insert(number, device);
    }

    fn remove(&mut self, number: usize) {
        if let Some(device) = self.devices.remove(&number) {
            self.bench.note(format!("remove {}", device.id));
        }
    }

    async fn read(&mut self, jobs: &[Job], _tick: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        for job in jobs {
            steps.push(self.step(*job).await);
        }
        steps
    }

    fn give_up(&mut self, job: Job, why: Why) -> Step {
        let id = self.id(job.device);
        let mut step = self.part(job, &id);
        for sample in &mut step.samples {
            *sample = Sample { value: Value::Null, quality: Quality::Bad(why), ..sample.clone() };
        }
        step
    }

    async fn write(&mut self, device: usize, property: usize, value: &Value) -> Result<(), CallError> {
        let id = self.id(device);
        self.bench.note(format!("write {id} p{property}={value}"));
        let refused = self.bench.inside().devices[&id].refuse_write.get(&property).copied();
        if let Some((code, after)) = refused {
            tokio::time::sleep(after).await;
            return Err(if matches!(code, 5 | 6) { CallError::Busy(code) } else { CallError::Refused(code) });
        }
        self.transact(&id).await?;
        let mut inside = self.bench.inside();
        let fake = inside.devices.get_mut(&id).unwrap();
        let kept = match (fake.clamp, value.as_f64()) {
            (Some(most), Some(number)) if number > most => json!(most),
            _ => value.clone(),
        };
        fake.values[property] = kept;
        Ok(())
    }

    async fn read_back(&mut self, device: usize, property: usize) -> Result<Sample, CallError> {
        let id = self.id(device);
        self.bench.note(format!("read back {id} p{property}"));
        self.transact(&id).await?;
        Ok(self.sample(&id, property))
    }

    async fn probe(&mut self, device: usize) -> Result<(), CallError> {
        let id = self.id(device);
        self.bench.note(format!("probe {id}"));
        self.transact(&id).await
    }

    fn same(&self, _device: usize, _property: usize, left: &Value, right: &Value) -> bool {
        same(left, right)
    }

    async fn raw(&mut self, request: &Value) -> Result<Value, CallError> {
        Ok(request.clone())
    }

    async fn look(&mut self, address: u8, _profiles: &[Arc<Profile>]) -> Result<Option<Value>, CallError> {
        tokio::time::sleep(TRANSACTION).await;
        Ok((address % 100 == 7).then(|| json!({"address": address})))
    }

    fn plan(&self, device: usize) -> Value {
        json!({"device": self.id(device)})
    }

    fn unpark(&mut self, _device: usize) {}

    fn counters(&self) -> Counters {
        Counters::default()
    }

    async fn pushed(&mut self) -> Result<Vec<Push>, Gone> {
        loop {
            if self.open && self.bench.inside().unplugged {
                self.open = false;
                return Err(Gone("it was pulled out".to_owned()));
            }
            let pushes = self.overheard();
            if self.open && !pushes.is_empty() {
                return Ok(pushes);
            }
            self.bench.2.notified().await;
        }
    }

    fn overheard(&mut self) -> Vec<Push> {
        let pushes = std::mem::take(&mut self.bench.inside().pushes);
        let number = |id: &str| self.devices.iter().find(|(_, device)| device.id.as_str() == id).map(|(n, _)| *n);
        pushes.into_iter().filter_map(|(id, samples)| Some(Push { device: number(&id)?, samples })).collect()
    }
}

/// A running host with everything a test looks at.
pub(super) struct Rig {
    pub(super) far: Far,
    pub(super) devices: watch::Sender<Vec<Arc<Device>>>,
    pub(super) stop: CancellationToken,
    pub(super) filters: Vec<String>,
    /// What was published: tick, topic, payload.
    pub(super) said: Vec<(u64, String, Value)>,
    /// Acknowledgements are confirmed as stored.
    pub(super) stores: bool,
    begin: Instant,
}

impl Rig {
    pub(super) fn start(bench: &Bench, devices: Vec<Arc<Device>>) -> Self {
        let (bus, far) = pair();
        let stop = CancellationToken::new();
        let connection = Connection {
            name: "bus1".to_owned(),
            protocol: protocols::profile::Protocol::Modbus,
            wire: Wire::Serial { port: "/dev/null".to_owned(), line: protocols::profile::SerialLine::default() },
            timeout: TIMEOUT,
            delay: Duration::ZERO,
            echo: false,
            in_flight: 1,
        };
        let (sender, receiver) = watch::channel(devices);
        let host = Host::new(Setup {
            connection: Arc::new(connection),
            port: FakePort::new(bench.clone()),
            bus,
            root: "twin".to_owned(),
            devices: receiver,
            probes: Arc::new(Vec::new),
            clock: Clock::new(),
            stop: stop.clone(),
        });
        tokio::spawn(host.run());
        let begin = Instant::now();
        Self { far, devices: sender, stop, filters: Vec::new(), said: Vec::new(), stores: true, begin }
    }

    /// Lets `ms` pass and takes down what the host says meanwhile.
    pub(super) async fn run(&mut self, ms: u64) {
        let end = Instant::now() + Duration::from_millis(ms);
        while let Ok(outgoing) = tokio::time::timeout_at(end, self.far.out.recv()).await {
            let Some(outgoing) = outgoing else { break };
            let message = match outgoing {
                Outgoing::Publish(message) => message,
                Outgoing::PublishAcknowledged(message, told) => {
                    let _ = told.send(self.stores);
                    message
                }
                Outgoing::Subscribe(filter) => {
                    self.filters.push(filter);
                    continue;
                }
                Outgoing::Unsubscribe(filter) => {
                    self.filters.retain(|known| *known != filter);
                    continue;
                }
            };
            let at = u64::try_from(self.begin.elapsed().as_millis()).unwrap();
            let payload = serde_json::from_slice(&message.payload).unwrap();
            self.said.push((at, message.topic, payload));
        }
    }

    pub(super) async fn tell(&self, topic: &str, payload: Value, retain: bool) {
        let message = Message {
            topic: topic.to_owned(),
            payload: serde_json::to_vec(&payload).unwrap().into(),
            retain,
            ..Message::default()
        };
        self.far.incoming.send(Incoming::Message(message)).await.unwrap();
    }

    pub(super) async fn delta(&self, device: &str, version: u64, desired: Value) {
        let delta = json!({"epoch": "01J", "version": version, "desired": desired});
        self.tell(&format!("twin/{device}/delta"), delta, true).await;
    }

    /// The payloads published to a topic, and forgets everything said so far.
    pub(super) fn take(&mut self, topic: &str) -> Vec<Value> {
        let all = std::mem::take(&mut self.said);
        all.into_iter().filter(|(_, said, _)| said == topic).map(|(_, _, payload)| payload).collect()
    }

    pub(super) fn on(&self, topic: &str) -> Vec<(u64, Value)> {
        self.said.iter().filter(|(_, said, _)| said == topic).map(|(at, _, p)| (*at, p.clone())).collect()
    }

    /// The outcomes acknowledged for a device: `property state reason`.
    pub(super) fn acks(&self, device: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (_, payload) in self.on(&format!("twin/{device}/desired/ack")) {
            for (name, result) in payload["results"].as_object().unwrap() {
                let reason = result["reason"].as_str().unwrap_or("-");
                lines.push(format!(
                    "{} {name} {} {} {reason}",
                    payload["version"],
                    result["state"].as_str().unwrap(),
                    result["actual"]
                ));
            }
        }
        lines
    }

    /// The values reported for a device's property; those that are not good with their quality.
    pub(super) fn values(&self, device: &str, property: &str) -> Vec<Value> {
        let reported = self.on(&format!("twin/{device}/reported/set"));
        let readings = reported.iter().filter_map(|(_, payload)| payload["readings"].get(property).cloned());
        readings
            .map(|mut reading| match reading.as_object_mut() {
                // What is told again carries the time it was read at; whether that shows depends on the millisecond.
                Some(long) => {
                    long.remove("at");
                    if long.contains_key("quality") { reading } else { long["value"].clone() }
                }
                None => reading,
            })
            .collect()
    }

    pub(super) fn states(&self, device: &str) -> Vec<String> {
        let status = self.on(&format!("twin/{device}/status/set"));
        status.iter().map(|(_, payload)| payload["state"].as_str().unwrap().to_owned()).collect()
    }
}
