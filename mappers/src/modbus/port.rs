//! Modbus behind the host's seam: plans, reads, decodes, writes.
//!
//! In: jobs and properties by number. Out: samples, outcomes. It moves bytes by the plans of [`Planner`] and turns what
//! goes wrong into the words of [`crate::port`]. Must never let a bad register spoil its block, and never write half a
//! value.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocols::config::{Connection, Device, Wire};
use protocols::modbus::Table;
use protocols::modbus::pdu::{Request, Response};
use protocols::modbus::plan::{Planner, Read, Want, gap_for_line};
use protocols::poll::Job;
use protocols::profile::{Profile, Property, WriteWire};
use protocols::value::{Quality, Value, Why};
use serde_json::json;

use super::identity::{self, Raw};
use super::master::{self, Master, Target};
use crate::clock::millis;
use crate::port::{CallError, Counters, OpenError, Port, Sample, Step, StepEnd};

/// How often a parked register is asked again, in milliseconds: often enough for a module that was plugged in, rarely
/// enough to cost nothing.
pub const PARKED_AGAIN_MS: u64 = 600_000;
/// The turnaround of a device on a serial line that gaps are reckoned with.
const TURNAROUND: Duration = Duration::from_millis(20);
/// The line behind a converter is not known; gaps are reckoned with the slowest common one, in bits a second.
const UNKNOWN_BAUD: u32 = 9_600;

/// The Modbus port of one wire.
#[derive(Debug)]
pub struct ModbusPort {
    connection: Arc<Connection>,
    pub(super) master: Master,
    stations: BTreeMap<usize, Box<Station>>,
    retries: u64,
    gap: u16,
}

/// One device.
#[derive(Debug)]
struct Station {
    device: Arc<Device>,
    target: Target,
    planner: Planner,
    groups: Vec<Cycle>,
    /// The latest request was answered, so that a silence is worth a second try.
    heard: bool,
    /// The device refuses function 6, and takes 16.
    single_by_many: bool,
}

/// The read cycle of one group.
#[derive(Debug, Default)]
struct Cycle {
    wants: Vec<Want>,
    /// Values no read can give: too long for the device, or forbidden.
    unreadable: Vec<usize>,
    plan: Vec<Arc<Read>>,
    revision: Option<u64>,
    queue: VecDeque<Arc<Read>>,
    running: bool,
    parked_at: u64,
}

impl Cycle {
    /// Begins a cycle if none is under way; gives what is known to be bad without asking.
    fn begin(&mut self, planner: &Planner, tick: u64) -> Vec<Sample> {
        if self.running {
            return Vec::new();
        }
        if self.revision != Some(planner.revision()) {
            self.plan = planner.plan(&self.wants).into_iter().map(Arc::new).collect();
            self.revision = Some(planner.revision());
        }
        self.running = true;
        self.queue = self.plan.iter().cloned().collect();
        let mut samples: Vec<Sample> = self.unreadable.iter().map(|id| bad(*id, Why::Config)).collect();
        let parked = planner.plan_parked(&self.wants);
        if parked.is_empty() {
            self.parked_at = tick + PARKED_AGAIN_MS;
        } else if tick >= self.parked_at {
            self.parked_at = tick + PARKED_AGAIN_MS;
            self.queue.extend(parked.into_iter().map(Arc::new));
        } else {
            let refused = |want: &Want| Some(bad(want.id, Why::Exception(planner.is_parked(want)?)));
            samples.extend(self.wants.iter().filter_map(refused));
        }
        samples
    }

    fn stop(&mut self) {
        self.queue.clear();
        self.running = false;
    }

    /// Whether the cycle is through; ends it if so.
    fn end(&mut self) -> StepEnd {
        if self.queue.is_empty() {
            self.running = false;
            StepEnd::Done
        } else {
            StepEnd::Part
        }
    }
}

fn bad(property: usize, why: Why) -> Sample {
    Sample { property, value: Value::Null, quality: Quality::Bad(why) }
}

/// The protocol's errors in the words of the seam.
pub(super) fn failure(error: &master::CallError) -> CallError {
    use master::CallError as Error;
    match error {
        Error::Exception(code @ (5 | 6)) => CallError::Busy(*code),
        // A gateway's word that the device behind it is silent.
        Error::Exception(code @ (10 | 11)) => CallError::Silent(Why::Exception(*code)),
        Error::Exception(code) => CallError::Refused(*code),
        Error::Gone(_) | Error::NoModbus(_) => CallError::Gone(error.to_string()),
        Error::Broadcast | Error::Request(_) => CallError::Invalid(error.to_string()),
        Error::Timeout | Error::Crc | Error::Malformed(_) | Error::Echo => CallError::Silent(error.why()),
    }
}

impl Station {
    fn new(device: Arc<Device>, connection: &Connection, gap: u16) -> Self {
        let modbus = &device.profile.modbus;
        let planner = Planner::new(modbus.merge.clone(), gap);
        let mut groups: Vec<Cycle> = device.profile.groups.iter().map(|_| Cycle::default()).collect();
        for (id, property) in device.profile.properties.iter().enumerate() {
            let Some(want) = want(id, property).filter(|_| property.access.reads()) else { continue };
            let Some(cycle) = groups.get_mut(property.group) else { continue };
            if planner.readable(&want) {
                cycle.wants.push(want);
            } else {
                cycle.unreadable.push(id);
            }
        }
        let target = Target {
            unit: device.unit,
            timeout: modbus.timeout.unwrap_or(connection.timeout),
            delay: modbus.delay.max(connection.delay),
        };
        Self { target, planner, groups, heard: false, single_by_many: false, device }
    }

    fn property(&self, index: usize) -> Result<&Property, CallError> {
        let none = || CallError::Invalid("the device has no such property".to_owned());
        self.device.profile.properties.get(index).ok_or_else(none)
    }

    /// Takes one answer in: decodes it, or learns from the refusal. `Some` ends the step.
    fn on_answer(
        &mut self,
        group: usize,
        read: &Arc<Read>,
        answer: Result<Response, master::CallError>,
        samples: &mut Vec<Sample>,
    ) -> Option<StepEnd> {
        let cycle = self.groups.get_mut(group)?;
        match answer.as_ref().map_err(failure) {
            Ok(response) => {
                self.heard = true;
                self.planner.on_success(read);
                decode(&self.device.profile, read, response, samples);
            }
            Err(CallError::Busy(code)) => {
                self.heard = true;
                cycle.queue.push_front(Arc::clone(read));
                return Some(StepEnd::Busy(code));
            }
            Err(CallError::Refused(code)) => {
                self.heard = true;
                let instead = self.planner.on_exception(read, code);
                if instead.is_empty() {
                    samples.extend(read.wants.iter().map(|id| bad(*id, Why::Exception(code))));
                }
                instead.into_iter().rev().for_each(|read| cycle.queue.push_front(Arc::new(read)));
            }
            Err(CallError::Invalid(_)) => samples.extend(read.wants.iter().map(|id| bad(*id, Why::Config))),
            Err(CallError::Silent(why)) => {
                self.heard = false;
                cycle.stop();
                return Some(StepEnd::Failed(why));
            }
            Err(CallError::Gone(reason)) => {
                cycle.stop();
                return Some(StepEnd::Gone(reason));
            }
        }
        None
    }
}

fn want(id: usize, property: &Property) -> Option<Want> {
    let visitor = property.source.modbus()?;
    let width = if visitor.table == Table::DeviceId { 1 } else { visitor.layout.registers() };
    Some(Want { id, table: visitor.table, address: visitor.address, width })
}

/// The values of an answer.
fn decode(profile: &Profile, read: &Read, response: &Response, samples: &mut Vec<Sample>) {
    for (index, id) in read.wants.iter().enumerate() {
        let Some(property) = profile.properties.get(*id) else { continue };
        let part = read.part(index);
        let value = match response {
            Response::Registers(words) => {
                part.and_then(|part| words.get(part)).map(|words| property.from_registers(words))
            }
            Response::Bits(bits) => part.and_then(|part| bits.get(part)).map(|bits| property.from_bits(bits)),
            Response::DeviceId { objects, .. } => {
                let address = read.parts.get(index).map(|(address, _)| *address);
                let object = objects.iter().find(|(object, _)| Some(u16::from(*object)) == address);
                object.map(|(_, text)| property.from_text(&String::from_utf8_lossy(text)))
            }
            Response::Written | Response::Other(_) => None,
        };
        let (value, quality) = value.unwrap_or((Value::Null, Quality::Bad(Why::Decode)));
        samples.push(Sample { property: *id, value, quality });
    }
}

fn request_of(read: &Read) -> Request {
    Request::Read { table: read.table, address: read.address, count: read.count }
}

impl ModbusPort {
    /// A port for a wire that is not open yet.
    pub fn new(connection: Arc<Connection>) -> Self {
        let gap = match &connection.wire {
            Wire::Tcp(_) | Wire::Udp(_) | Wire::Tls(_) | Wire::Ble { .. } | Wire::External(_) => {
                gap_for_line(None, Duration::ZERO)
            }
            Wire::RtuOverTcp(_) => gap_for_line(Some(UNKNOWN_BAUD), TURNAROUND),
            Wire::Serial { line, .. } => gap_for_line(Some(line.baud), TURNAROUND),
            // Every byte is two characters.
            Wire::AsciiOverTcp(_) => gap_for_line(Some(UNKNOWN_BAUD / 2), TURNAROUND),
            Wire::AsciiSerial { line, .. } => gap_for_line(Some(line.baud / 2), TURNAROUND),
        };
        let master = Master::new(Arc::clone(&connection));
        Self { connection, master, stations: BTreeMap::new(), retries: 0, gap }
    }

    /// The target of a unit that is no device of ours.
    pub(super) fn target(&self, unit: u8, timeout: Option<Duration>) -> Target {
        Target { unit, timeout: timeout.unwrap_or(self.connection.timeout), delay: self.connection.delay }
    }

    fn station(&self, device: usize) -> Result<&Station, CallError> {
        self.stations
            .get(&device)
            .map(Box::as_ref)
            .ok_or_else(|| CallError::Invalid("no such device on this wire".to_owned()))
    }

    async fn ask(&mut self, target: Target, request: &Request) -> Result<Response, CallError> {
        self.master.call(target, request).await.map_err(|error| failure(&error))
    }

    /// One read; a device's identification comes in as many pieces as it takes.
    async fn fetch(&mut self, target: Target, read: &Read) -> Result<Response, master::CallError> {
        match read.table {
            Table::DeviceId => identity::objects(&mut self.master, target, read.address).await,
            _ => self.master.call(target, &request_of(read)).await,
        }
    }

    /// Sends what the jobs need next, together where the wire lets it.
    async fn send(&mut self, batch: &[(usize, Target, Arc<Read>)]) -> Vec<Result<Response, master::CallError>> {
        let plain = batch.iter().all(|(_, _, read)| read.table != Table::DeviceId);
        if plain && batch.len() > 1 {
            let calls: Vec<(Target, Request)> =
                batch.iter().map(|(_, target, read)| (*target, request_of(read))).collect();
            return self.master.call_many(&calls).await;
        }
        let mut answers = Vec::with_capacity(batch.len());
        for (_, target, read) in batch {
            answers.push(self.fetch(*target, read).await);
        }
        answers
    }

    /// Tries a read again that was not answered, as often as the profile says, if the device was there a moment ago.
    async fn insist(
        &mut self,
        device: usize,
        read: &Read,
        mut answer: Result<Response, master::CallError>,
    ) -> Result<Response, master::CallError> {
        let Some(station) = self.stations.get(&device).filter(|station| station.heard) else { return answer };
        let (target, tries) = (station.target, station.device.profile.modbus.retries);
        for _ in 0..tries {
            if !matches!(answer.as_ref().map_err(failure), Err(CallError::Silent(_))) || !self.master.is_open() {
                break;
            }
            self.retries += 1;
            answer = self.fetch(target, read).await;
        }
        answer
    }

    /// Function 22 where the profile names it, else read, change and write; this task owns the wire, so nobody else of
    /// ours comes in between.
    async fn write_field(
        &mut self,
        target: Target,
        address: u16,
        by_mask: bool,
        (mask, value): (u16, u16),
    ) -> Result<(), CallError> {
        if by_mask {
            match self.ask(target, &Request::MaskWrite { address, and: !mask, or: value }).await {
                Err(CallError::Refused(1)) => {}
                outcome => return outcome.map(drop),
            }
        }
        let read = Request::Read { table: Table::Holding, address, count: 1 };
        let held = match self.ask(target, &read).await? {
            Response::Registers(words) => words.first().copied(),
            _ => None,
        };
        let held = held.ok_or(CallError::Silent(Why::Decode))?;
        let value = (held & !mask) | (value & mask);
        self.ask(target, &Request::WriteRegister { address, value }).await.map(drop)
    }

    async fn write_registers(
        &mut self,
        device: usize,
        target: Target,
        address: u16,
        values: Vec<u16>,
        function: Option<u8>,
    ) -> Result<(), CallError> {
        let learned = self.stations.get(&device).is_some_and(|station| station.single_by_many);
        let single = match values.as_slice() {
            [value] if function != Some(16) && !learned => Some(*value),
            _ => None,
        };
        if let Some(value) = single {
            match self.ask(target, &Request::WriteRegister { address, value }).await {
                // Some devices know function 16 only.
                Err(CallError::Refused(1)) if function.is_none() => {}
                outcome => return outcome.map(drop),
            }
        }
        self.ask(target, &Request::WriteRegisters { address, values }).await?;
        if let Some(station) = self.stations.get_mut(&device).filter(|_| single.is_some()) {
            station.single_by_many = true;
        }
        Ok(())
    }
}

impl Port for ModbusPort {
    async fn open(&mut self) -> Result<(), OpenError> {
        self.stations.values_mut().flat_map(|station| &mut station.groups).for_each(Cycle::stop);
        self.master.open().await.map_err(|error| OpenError(error.to_string()))
    }

    async fn close(&mut self) {
        self.master.close();
    }

    fn is_open(&self) -> bool {
        self.master.is_open()
    }

    fn width(&self) -> usize {
        match self.connection.wire {
            Wire::Tcp(_) | Wire::Tls(_) => usize::from(self.connection.in_flight.max(1)),
            _ => 1,
        }
    }

    fn add(&mut self, number: usize, device: Arc<Device>) {
        self.stations.insert(number, Box::new(Station::new(device, &self.connection, self.gap)));
    }

    fn remove(&mut self, number: usize) {
        self.stations.remove(&number);
    }

    async fn read(&mut self, jobs: &[Job], tick: u64) -> Vec<Step> {
        let share = (self.width() / jobs.len().max(1)).max(1);
        let mut steps: Vec<Step> = Vec::with_capacity(jobs.len());
        let mut batch = Vec::with_capacity(jobs.len());
        for (number, job) in jobs.iter().enumerate() {
            let mut samples = Vec::new();
            if let Some(Station { planner, groups, target, .. }) = self.stations.get_mut(&job.device).map(Box::as_mut)
                && let Some(cycle) = groups.get_mut(job.group)
            {
                samples = cycle.begin(planner, tick);
                let next = (0..share).map_while(|_| cycle.queue.pop_front());
                batch.extend(next.map(|read| (number, *target, read)));
            }
            steps.push(Step { samples, end: StepEnd::Part });
        }
        let answers = self.send(&batch).await;
        for ((number, _, read), answer) in batch.into_iter().zip(answers) {
            let (Some(job), Some(step)) = (jobs.get(number), steps.get_mut(number)) else { continue };
            let ended = step.end != StepEnd::Part;
            if ended && !matches!(step.end, StepEnd::Busy(_)) {
                continue;
            }
            let answer = self.insist(job.device, &read, answer).await;
            let Some(station) = self.stations.get_mut(&job.device) else { continue };
            if let Some(end) = station.on_answer(job.group, &read, answer, &mut step.samples) {
                step.end = end;
            }
        }
        for (job, step) in jobs.iter().zip(&mut steps) {
            let cycle = self.stations.get_mut(&job.device).and_then(|station| station.groups.get_mut(job.group));
            match cycle {
                Some(cycle) if step.end == StepEnd::Part => step.end = cycle.end(),
                None => step.end = StepEnd::Done,
                Some(_) => {}
            }
        }
        steps
    }

    fn give_up(&mut self, job: Job, why: Why) -> Step {
        let cycle = self.stations.get_mut(&job.device).and_then(|station| station.groups.get_mut(job.group));
        let Some(cycle) = cycle else { return Step { samples: Vec::new(), end: StepEnd::Done } };
        let read = cycle.queue.pop_front();
        let samples = read.iter().flat_map(|read| &read.wants).map(|id| bad(*id, why)).collect();
        Step { samples, end: cycle.end() }
    }

    async fn write(&mut self, device: usize, property: usize, value: &Value) -> Result<(), CallError> {
        let station = self.station(device)?;
        let (target, property) = (station.target, station.property(property)?);
        let wire = property.to_write(value).map_err(CallError::Invalid)?;
        let visitor = *property.source.modbus().ok_or_else(|| CallError::Invalid("is read-only".to_owned()))?;
        let address = visitor.write_address.unwrap_or(visitor.address);
        match wire {
            WriteWire::Coils(bits) => {
                let request = match bits.as_slice() {
                    [on] if visitor.write_function != Some(15) => Request::WriteCoil { address, on: *on },
                    _ => Request::WriteCoils { address, bits },
                };
                self.ask(target, &request).await.map(drop)
            }
            WriteWire::Registers(values) => {
                self.write_registers(device, target, address, values, visitor.write_function).await
            }
            WriteWire::Field { mask, value } => {
                self.write_field(target, address, visitor.write_function == Some(22), (mask, value)).await
            }
        }
    }

    async fn read_back(&mut self, device: usize, property: usize) -> Result<Sample, CallError> {
        let station = self.station(device)?;
        let target = station.target;
        let profile = Arc::clone(&station.device.profile);
        let want = want(property, station.property(property)?);
        let want = want.ok_or_else(|| CallError::Invalid("the property is not read from the device".to_owned()))?;
        let read = Read {
            table: want.table,
            address: want.address,
            count: want.width,
            wants: vec![property],
            parts: vec![(want.address, want.width)],
        };
        let response = self.fetch(target, &read).await.map_err(|error| failure(&error))?;
        let mut samples = Vec::new();
        decode(&profile, &read, &response, &mut samples);
        samples.pop().ok_or(CallError::Silent(Why::Decode))
    }

    async fn probe(&mut self, device: usize) -> Result<(), CallError> {
        let station = self.station(device)?;
        let target = station.target;
        let own = station.device.profile.probe.as_ref().map(|probe| &probe.visitor);
        let first = station.groups.iter().flat_map(|cycle| &cycle.wants).find(|want| want.table != Table::DeviceId);
        let request = match (own.filter(|visitor| visitor.table != Table::DeviceId), first) {
            (Some(visitor), _) => {
                Request::Read { table: visitor.table, address: visitor.address, count: visitor.layout.registers() }
            }
            (None, Some(want)) => Request::Read { table: want.table, address: want.address, count: want.width },
            (None, None) => Request::DeviceId { code: 1, object: 0 },
        };
        match self.ask(target, &request).await {
            Err(error) if !error.answered() => Err(error),
            _ => Ok(()),
        }
    }

    fn same(&self, device: usize, property: usize, left: &Value, right: &Value) -> bool {
        self.station(device)
            .and_then(|station| station.property(property))
            .is_ok_and(|property| property.same_encoded(left, right))
    }

    async fn raw(&mut self, request: &Value) -> Result<Value, CallError> {
        let raw = Raw::read(request)?;
        let target = match raw.device {
            Some(device) => self.station(device)?.target,
            None => self.target(raw.unit, raw.timeout_ms.map(Duration::from_millis)),
        };
        let request = raw.request()?;
        let response = self.ask(target, &request).await?;
        raw.answer(&response)
    }

    async fn look(&mut self, address: u8, profiles: &[Arc<Profile>]) -> Result<Option<Value>, CallError> {
        identity::look(self, address, profiles).await
    }

    fn plan(&self, device: usize) -> Value {
        let Some(station) = self.stations.get(&device) else { return Value::Null };
        let profile = &station.device.profile;
        let name = |id: &usize| profile.properties.get(*id).map(|property| property.name.to_string());
        let groups = profile.groups.iter().zip(&station.groups).map(|(group, cycle)| {
            let reads = station.planner.plan(&cycle.wants).into_iter().map(|read| {
                json!({
                    "table": identity::word(read.table),
                    "address": read.address,
                    "count": read.count,
                    "properties": read.wants.iter().filter_map(name).collect::<Vec<_>>(),
                })
            });
            json!({
                "group": group.name,
                "interval_ms": millis(group.interval),
                "reads": reads.collect::<Vec<_>>(),
                "unreadable": cycle.unreadable.iter().filter_map(name).collect::<Vec<_>>(),
            })
        });
        let parked = station.groups.iter().flat_map(|cycle| &cycle.wants).filter_map(|want| {
            let code = station.planner.is_parked(want)?;
            Some(json!({"property": name(&want.id), "address": want.address, "exception": code}))
        });
        json!({
            "unit": station.target.unit,
            "timeout_ms": millis(station.target.timeout),
            "groups": groups.collect::<Vec<_>>(),
            "parked": parked.collect::<Vec<_>>(),
        })
    }

    fn unpark(&mut self, device: usize) {
        if let Some(Station { planner, groups, .. }) = self.stations.get_mut(&device).map(Box::as_mut) {
            for want in groups.iter().flat_map(|cycle| &cycle.wants) {
                planner.unpark(want);
            }
        }
    }

    fn counters(&self) -> Counters {
        let all = self.master.counters();
        let dropped = &all.dropped;
        Counters {
            requests: all.requests,
            answers: all.answers,
            timeouts: all.timeouts,
            exceptions: all.exceptions,
            dropped: dropped.crc + dropped.unit + dropped.function + dropped.late + dropped.echoes,
            retries: self.retries,
            reopened: all.reopened,
        }
    }
}
