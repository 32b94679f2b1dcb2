//! The loop, written once: ask the timetable, use the port, publish what is worth it, apply what is wished.
//!
//! In: one wire's devices, a [`Port`] with what it answers and what comes unasked, a [`Bus`]; deltas and requests from the bus. Out: `reported/set`, `status/set`,
//! `desired/ack`, the wire's status, answers. One task owns one wire, so nothing here needs a lock. Must never know what
//! a twin is, wait for a broker, or let one device hold up the others for longer than a transaction.

mod acting;
mod desired;
mod hearing;
mod link;
mod requests;
mod telling;
#[cfg(test)]
mod tests;
mod unit;
mod voice;

use std::collections::HashMap;
use std::sync::Arc;

use protocols::config::{Connection, Device, Wire};
use protocols::message::DeviceState;
use protocols::poll::{Action, Health, Job, Place, Poll, ReadEnd, Timetable};
use protocols::topic::{TwinTopic, connection_memory, connection_request, connection_result, connection_status};
use protocols::value::{Value, Why};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::bus::{self, Bus, Incoming};
use crate::clock::Clock;
use crate::port::{Port, Probes, Push, Sample, Step, StepEnd, silence};
use desired::is_kept;
use link::{Link, Turn};
use requests::Desk;
use unit::Unit;
use voice::Voice;

/// While acknowledgements are on their way, they are looked at this often, in milliseconds.
const ACK_LOOK_MS: u64 = 100;
/// The longest rest, in milliseconds: the wire's status is looked at that often.
const REST_MS: u64 = 5_000;
/// What the port has to remember is kept at most this often, in milliseconds: so much of it is lost with a power cut.
const MEMORY_PAUSE_MS: u64 = 10_000;
/// The longest pause between two tries to open a serial port or a radio, in milliseconds: an adapter that is plugged in
/// again is polled within five seconds, its first answers included.
const SERIAL_REOPEN_MS: u64 = 3_000;
/// Messages that may wait for the bus, besides those of one round of reads, before polls are put off …
const BEHIND_MESSAGES: usize = 2;
/// … by so many milliseconds at a time …
const PUT_OFF_MS: u64 = 5;
/// … and for so many in all. What is read meanwhile could only wait and grow old; a wire that is asked when there is
/// room has newer values to tell, and less to do. After that the wire is polled whatever the bus does: devices are watched,
/// alarms work, and what cannot be told gives way to what is newer.
const PUT_OFF_MAX_MS: u64 = 100;
/// The longest pause between two tries to connect, in milliseconds.
const TCP_REOPEN_MS: u64 = 30_000;

/// One wire with its devices.
pub struct Host<P> {
    name: String,
    clock: Clock,
    port: P,
    poll: Poll,
    /// Since when more waits for the bus than it should.
    behind_since: Option<u64>,
    /// Subscriptions are still to be made.
    behind_with_filters: bool,
    /// What the port has said of times in which nobody could be heard.
    deaf_ms: u64,
    units: Vec<Option<Unit>>,
    by_id: HashMap<String, usize>,
    voice: Voice,
    incoming: bus::Receiver<Incoming>,
    listening: bool,
    devices: watch::Receiver<Vec<Arc<Device>>>,
    stop: CancellationToken,
    link: Link,
    desk: Desk,
    probes: Probes,
    acks: Vec<(usize, u64, Vec<usize>, oneshot::Receiver<bool>)>,
    request_topic: String,
    result_topic: String,
    status_topic: String,
    memory_topic: String,
    memory_at: u64,
    /// What the port had to remember last, for a broker that may have missed it.
    memory: Option<Value>,
    /// It is not on its way yet.
    owes_memory: bool,
}

/// What a [`Host`] is made of.
pub struct Setup<P> {
    /// The wire's definition.
    pub connection: Arc<Connection>,
    /// The wire itself, closed.
    pub port: P,
    /// The host's end of the bus.
    pub bus: Bus,
    /// The root of the twin topics, `twin` by default.
    pub root: String,
    /// The devices on the wire; a new list takes the old one's place without disturbing what is in both.
    pub devices: watch::Receiver<Vec<Arc<Device>>>,
    /// Profiles a scan tries to recognise.
    pub probes: Probes,
    /// The clock all wires share, so that polls of one rhythm share their wake-ups.
    pub clock: Clock,
    /// Ends the host.
    pub stop: CancellationToken,
}

impl<P: Port> Host<P> {
    /// Puts a host together; [`Host::run`] sets it going.
    pub fn new(setup: Setup<P>) -> Self {
        let Setup { connection, port, bus, root, devices, probes, clock, stop } = setup;
        let is_plugged = connection.wire.line().is_some() || matches!(connection.wire, Wire::Ble { .. });
        let cap = if is_plugged { SERIAL_REOPEN_MS } else { TCP_REOPEN_MS };
        Self {
            clock,
            port,
            poll: Poll::on_wire(Place::of(&connection.name)),
            behind_since: None,
            behind_with_filters: false,
            deaf_ms: 0,
            units: Vec::new(),
            by_id: HashMap::new(),
            voice: Voice::new(root, bus.out),
            incoming: bus.incoming,
            listening: true,
            devices,
            stop,
            link: Link::new(cap, clock.tick()),
            desk: Desk::default(),
            probes,
            acks: Vec::new(),
            request_topic: connection_request(&connection.name),
            result_topic: connection_result(&connection.name),
            status_topic: connection_status(&connection.name),
            memory_topic: connection_memory(&connection.name),
            memory_at: clock.tick() + MEMORY_PAUSE_MS,
            memory: None,
            owes_memory: false,
            name: connection.name.clone(),
        }
    }

    /// Runs until it is stopped, or until its bus has ended: without one it would be deaf, and whoever watches over it can
    /// start it again with another. A transaction under way is finished first.
    pub fn run(self) -> impl Future<Output = ()> {
        // A future holds what it is given twice, and there is one for each wire.
        Box::new(self).work()
    }

    /// What happens seldom is put elsewhere while it happens: the task is as large as the largest it awaits.
    async fn work(mut self: Box<Self>) {
        self.voice.subscribe(self.request_topic.clone());
        if self.port.keeps_memory() {
            self.voice.subscribe(self.memory_topic.clone());
        }
        let devices = self.devices.borrow_and_update().clone();
        self.set_devices(&devices);
        while self.listening && !self.stop.is_cancelled() {
            self.hear();
            if self.devices.has_changed().unwrap_or_default() {
                let devices = self.devices.borrow_and_update().clone();
                self.set_devices(&devices);
            }
            let overheard = self.port.overheard();
            self.on_pushed(overheard);
            self.keep_time();
            let now = self.clock.tick();
            if self.desk.next_due(now).is_some_and(|due| due <= now) {
                Box::pin(self.serve()).await;
            }
            if !self.port.is_open() && !self.reopen().await {
                let until = self.link.next_at;
                self.rest(Some(until)).await;
                continue;
            }
            let now = self.clock.tick();
            self.heed_the_bus(now);
            match self.poll.next(now) {
                Action::Read(job) => self.read(job).await,
                Action::Write { device } => Box::pin(self.write(device)).await,
                Action::Init { device } => Box::pin(self.init(device)).await,
                Action::Probe { device } => Box::pin(self.probe(device)).await,
                Action::Wait(until) => self.rest(until).await,
            }
        }
        self.port.close().await;
        self.tell_memory();
        self.link.on_refused("stopped", self.clock.now());
        self.tell_wire();
    }

    fn unit(&self, device: usize) -> Option<&Unit> {
        self.units.get(device).and_then(Option::as_ref)
    }

    fn unit_mut(&mut self, device: usize) -> Option<&mut Unit> {
        self.units.get_mut(device).and_then(Option::as_mut)
    }

    // The devices of the wire.

    fn set_devices(&mut self, wanted: &[Arc<Device>]) {
        let gone: Vec<usize> = (0..self.units.len())
            .filter(|number| {
                self.unit(*number).is_some_and(|unit| !wanted.iter().any(|device| **device == *unit.device))
            })
            .collect();
        for number in gone {
            self.remove(number);
        }
        for device in wanted {
            if !self.by_id.contains_key(device.id.as_str()) {
                self.add(Arc::clone(device));
            }
        }
    }

    fn add(&mut self, device: Arc<Device>) {
        let now = self.clock.tick();
        let number = self.poll.add(Timetable::of(&device.profile), now);
        if self.units.len() <= number {
            // mostly one
            self.units.reserve_exact(number + 1 - self.units.len());
            self.units.resize_with(number + 1, || None);
        }
        self.by_id.insert(device.id.to_string(), number);
        for filter in filters(self.voice.root(), &device) {
            self.voice.subscribe(filter);
        }
        self.port.add(number, Arc::clone(&device));
        if let Some(place) = self.units.get_mut(number) {
            *place = Some(Unit::new(device, now));
        }
        if let Some(reason) = self.link.reason().map(str::to_owned) {
            self.poll.on_closed();
            self.on_away(number, Why::Offline, &reason);
        }
    }

    fn remove(&mut self, number: usize) {
        let Some(unit) = self.units.get_mut(number).and_then(Option::take) else { return };
        self.poll.remove(number);
        self.port.remove(number);
        self.by_id.remove(unit.device.id.as_str());
        for filter in filters(self.voice.root(), &unit.device) {
            self.voice.unsubscribe(filter);
        }
    }

    // The wire.

    async fn reopen(&mut self) -> bool {
        let now = self.clock.now();
        if now.tick < self.link.next_at {
            return false;
        }
        match Box::pin(self.port.open()).await {
            Ok(()) => {
                let now = self.clock.now();
                self.units.iter_mut().flatten().for_each(Unit::drop_cycle);
                match self.link.on_open(now) {
                    Turn::Up => {
                        tracing::info!(connection = %self.name, "open");
                        self.poll.on_open(now.tick);
                    }
                    _ => self.poll.on_reopen(now.tick),
                }
            }
            Err(error) => {
                let turn = self.link.on_refused(&error.to_string(), self.clock.now());
                self.on_turn(turn, &error.to_string());
            }
        }
        self.tell_wire();
        self.port.is_open()
    }

    async fn on_gone(&mut self, reason: &str) {
        self.port.close().await;
        for unit in self.units.iter_mut().flatten() {
            unit.drop_cycle();
        }
        let turn = self.link.on_gone(reason, self.clock.now());
        self.poll.on_reopen(self.clock.tick());
        self.on_turn(turn, reason);
    }

    fn on_turn(&mut self, turn: Turn, reason: &str) {
        if turn != Turn::Down {
            return;
        }
        tracing::warn!(connection = %self.name, error = reason, "closed");
        for device in self.poll.on_closed() {
            self.on_away(device, Why::Offline, reason);
        }
    }

    // Reading.

    /// Puts polls off for a moment while the bus is behind.
    fn heed_the_bus(&mut self, now: u64) {
        if !self.voice.is_behind(BEHIND_MESSAGES + self.port.width()) {
            if self.behind_since.take().is_some() {
                self.poll.put_off(0);
            }
            return;
        }
        let since = *self.behind_since.get_or_insert(now);
        if now < since + PUT_OFF_MAX_MS {
            self.poll.put_off(now + PUT_OFF_MS);
        }
    }

    async fn read(&mut self, first: Job) {
        let began = self.clock.tick();
        let mut jobs = vec![first];
        while jobs.len() < self.port.width() {
            match self.poll.next_read(began) {
                Some(job) => jobs.push(job),
                None => break,
            }
        }
        let steps = self.port.read(&jobs, began).await;
        self.link.on_busy(began, self.clock.tick());
        let mut gone = None;
        for (job, step) in jobs.into_iter().zip(steps) {
            if let StepEnd::Gone(reason) = &step.end {
                gone.get_or_insert(reason.clone());
            }
            self.on_step(job, step);
        }
        if let Some(reason) = gone {
            self.on_gone(&reason).await;
        }
    }

    fn on_step(&mut self, job: Job, mut step: Step) {
        let now = self.clock.now();
        if let StepEnd::Busy(code) = step.end {
            self.link.on_answer();
            if self.poll.on_busy(job.device, now.tick) {
                return;
            }
            step = self.port.give_up(job, Why::Exception(code));
        }
        let Some(unit) = self.unit_mut(job.device) else { return };
        unit.gather(step.samples);
        match step.end {
            StepEnd::Part | StepEnd::Busy(_) => {
                let health = self.poll.on_read(job, ReadEnd::Part, now.tick);
                self.on_health(job.device, health, Why::Timeout);
            }
            StepEnd::Done => {
                let health = self.poll.on_read(job, ReadEnd::Done, now.tick);
                self.on_health(job.device, health, Why::Timeout);
                if let Some(unit) = self.unit_mut(job.device) {
                    let readings = unit.finish_cycle(job.group, now);
                    self.report(job.device, readings, now);
                }
                self.watch_drift(job.device, now.tick);
            }
            StepEnd::Failed(why) => {
                unit.drop_cycle();
                let health = self.poll.on_read(job, ReadEnd::Failed, now.tick);
                self.on_health(job.device, health, why);
                return;
            }
            StepEnd::Gone(_) => return,
        }
        self.link.on_answer();
    }

    /// Takes in what devices said without being asked.
    fn on_pushed(&mut self, pushes: Vec<Push>) {
        if pushes.is_empty() {
            return;
        }
        self.link.on_answer();
        for Push { device, samples } in pushes {
            let health = self.poll.on_heard(device, self.clock.tick());
            self.on_health(device, health, Why::Timeout);
            if samples.is_empty() {
                continue;
            }
            self.take_samples(device, samples);
            self.watch_drift(device, self.clock.tick());
        }
    }

    /// Takes in what came outside a cycle.
    fn take_samples(&mut self, device: usize, samples: Vec<Sample>) {
        let now = self.clock.now();
        if let Some(unit) = self.unit_mut(device) {
            let readings = unit.take(None, samples, now);
            self.report(device, readings, now);
        }
    }

    // Whether devices answer.

    fn on_health(&mut self, device: usize, health: Option<Health>, why: Why) {
        match health {
            Some(Health::Online) => self.on_found(device),
            Some(Health::Offline) => self.on_away(device, why, &silence(why)),
            _ => {}
        }
    }

    fn on_found(&mut self, device: usize) {
        let now = self.clock.tick();
        self.tell_status(device, DeviceState::Online, None);
        if let Some(unit) = self.unit_mut(device) {
            let profile = Arc::clone(&unit.device.profile);
            unit.wishes.on_found(&profile, now);
        }
        self.plan_writes(device);
    }

    fn on_away(&mut self, device: usize, why: Why, reason: &str) {
        let now = self.clock.now();
        self.tell_status(device, DeviceState::Offline, Some(reason.to_owned()));
        let Some(unit) = self.unit_mut(device) else { return };
        let readings = unit.on_away(why, now);
        let acks = unit.wishes.on_away(now.tick);
        self.report(device, readings, now);
        self.acknowledge(device, acks);
    }

    // The clock.

    fn keep_time(&mut self) {
        let now = self.clock.now();
        self.behind_with_filters = self.voice.catch_up();
        self.settle_acks(now.tick);
        let deaf_ms = self.port.deaf_ms();
        self.poll.on_deaf(deaf_ms.saturating_sub(self.deaf_ms), now.tick);
        self.deaf_ms = deaf_ms;
        for device in self.poll.on_time(now.tick) {
            let silent = self.unit(device).and_then(|unit| unit.device.profile.silence()).unwrap_or_default();
            self.on_away(device, Why::Timeout, &format!("nothing was heard for {} s", silent.as_secs_f64()));
            let samples = self.port.silent(device);
            self.take_samples(device, samples);
        }
        for device in 0..self.units.len() {
            let Some(unit) = self.units.get_mut(device).and_then(Option::as_mut) else { continue };
            if unit.owes && !self.voice.is_full() {
                self.tell_all(device, now);
                continue;
            }
            if unit.due().is_some_and(|due| due <= now.tick) {
                let acks = unit.wishes.on_look(now.tick);
                let readings = unit.on_time(now);
                self.report(device, readings, now);
                self.acknowledge(device, acks);
                self.plan_writes(device);
            }
        }
        if self.link.status_at() <= now.tick {
            self.tell_wire();
        }
        if self.memory_at <= now.tick {
            self.memory_at = now.tick + MEMORY_PAUSE_MS;
            self.tell_memory();
        }
    }

    /// Waits until there is something to do. Dropping the other branches loses nothing: each is asked again.
    async fn rest(&mut self, until: Option<u64>) {
        let now = self.clock.tick();
        let units = self.units.iter().flatten().filter_map(Unit::due).min();
        let acks = (!self.acks.is_empty()).then_some(now + ACK_LOOK_MS);
        let owing = self.units.iter().flatten().any(|unit| unit.owes).then_some(now + ACK_LOOK_MS);
        let filters = self.behind_with_filters.then_some(now + PUT_OFF_MS);
        let others = [until, units, acks, owing, filters, self.desk.next_due(now), self.poll.silent_at()];
        let until = others.into_iter().flatten().min().unwrap_or(u64::MAX).min(now + REST_MS);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep_until(self.clock.instant(until)) => {}
            incoming = self.incoming.recv() => match incoming {
                Some(incoming) => self.on_incoming(incoming),
                None => self.listening = false,
            },
            changed = self.devices.changed() => {
                // The list's owner is gone: so is the host, soon.
                if changed.is_err() {
                    self.stop.cancelled().await;
                }
                self.devices.mark_changed();
            }
            pushed = self.port.pushed() => match pushed {
                Ok(pushes) => self.on_pushed(pushes),
                Err(gone) => self.on_gone(&gone.0).await,
            }
        }
    }

    fn plan_writes(&mut self, device: usize) {
        if let Some(unit) = self.units.get_mut(device).and_then(Option::as_mut) {
            unit.replan();
            self.poll.set_write(device, unit.wishes.next_due());
        }
    }
}

/// What a host listens to for one device.
fn filters(root: &str, device: &Device) -> Vec<String> {
    let mut filters = vec![TwinTopic::Delta(device.id.clone()).under(root)];
    if device.profile.properties.iter().any(is_kept) {
        filters.push(format!("{root}/{}/desired/+", device.id));
    }
    filters
}
