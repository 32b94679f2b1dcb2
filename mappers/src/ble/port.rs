//! A radio as a [`Port`]: the devices around it, listened to and visited.
//!
//! In: devices with a Bluetooth profile, advertisements, what visits bring. Out: pushes of decoded values, writes over a
//! connection. The host asks nothing in a rhythm here: advertisements come by themselves, and the port visits a device when
//! its profile says so, in a task of its own, so that a device that takes its time holds nobody up. Must never connect to
//! a device twice at one time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocols::ble::{Advertisement, ObjectClass, Roster};
use protocols::config::{Connection, Device};
use protocols::poll::Job;
use protocols::profile::Profile;
use protocols::profile::ble::{Gatt, Origin, SENDERS, Visit};
use protocols::value::{Reading, Value, Why};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::device::Entry;
use super::radio::{Radio, Tally};
use super::survey::Survey;
use super::transport::{AdPattern, BleError, Scan, ScanWish, Transport};
use super::visit::{Visited, visit};
use crate::clock::Clock;
use crate::port::{CallError, Counters, Gone, OpenError, Port, Push, Sample, Step, StepEnd};

/// Devices whose counters are taken up after a start; more were never configured on one radio.
const REMEMBERED: usize = 4_096;
/// Advertisements that are decoded in one go; then the host has its turn.
const AT_ONCE: usize = 256;
/// Values of subscribed characteristics that may wait; the radio's own bound gives up before.
const NOTES: usize = 1_024;
/// A device that is heard and has nothing new to say is told as alive at most once in this time, in milliseconds.
pub(super) const ALIVE_MS: u64 = 1_000;

/// A passive scan tells this late that a device is there or away; who wants to know sooner is listened to actively.
const PASSIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Counters to keep over a restart: by device, and by sender where the device may be several (else the key is empty).
type Kept = BTreeMap<String, BTreeMap<String, u64>>;

/// A value that a subscribed characteristic sent: device, characteristic, bytes.
type Note = (usize, usize, Bytes);

/// A radio with the devices around it.
pub struct BlePort<T: Transport> {
    name: String,
    pub(super) clock: Clock,
    transport: Option<T>,
    pub(super) radio: Option<Radio<T::Link>>,
    is_open: bool,
    roster: Roster,
    pub(super) entries: BTreeMap<usize, Entry<T::Link>>,
    pub(super) visits: JoinSet<(usize, Visited<T::Link>)>,
    notes: mpsc::Receiver<Note>,
    noted: mpsc::Sender<Note>,
    out: Vec<Push>,
    scan: Scan,
    survey: Option<Survey>,
    strangers: u64,
    deaf_ms: u64,
    /// The counters of devices that encrypt: device, sender, counter.
    kept: Kept,
    told: Kept,
    counters: Counters,
}

impl<T: Transport> BlePort<T> {
    /// The radio of a connection, closed, on a transport.
    pub fn new(connection: &Arc<Connection>, clock: Clock, transport: T) -> Self {
        let (noted, notes) = mpsc::channel(NOTES);
        Self {
            name: connection.name.clone(),
            clock,
            transport: Some(transport),
            radio: None,
            is_open: false,
            roster: Roster::new(),
            entries: BTreeMap::new(),
            visits: JoinSet::new(),
            notes,
            noted,
            out: Vec::new(),
            scan: Scan::default(),
            survey: None,
            strangers: 0,
            deaf_ms: 0,
            kept: Kept::new(),
            told: Kept::new(),
            counters: Counters::default(),
        }
    }

    /// What the radio itself has counted.
    pub fn tally(&self) -> Tally {
        self.radio.as_ref().map(Radio::tally).unwrap_or_default()
    }

    /// What is to be listened for, with all these devices.
    fn wanted(&self) -> Scan {
        if self.survey.is_some() {
            return Scan { wish: ScanWish::Active, patterns: Vec::new() };
        }
        let mut patterns: Vec<AdPattern> = Vec::new();
        for entry in self.entries.values() {
            let Some(ble) = &entry.device.profile.ble else { continue };
            let of_device = ble.pattern.monitor();
            if of_device.is_empty() || ble.presence.timeout < PASSIVE_TIMEOUT || has_events(&entry.device.profile) {
                // One device that no pattern describes, or of which every packet counts, and everything has to be heard.
                return Scan::default();
            }
            for (ad_type, start, content) in of_device {
                let pattern = AdPattern { ad_type, start, content };
                if !patterns.contains(&pattern) {
                    patterns.push(pattern);
                }
            }
        }
        Scan { wish: ScanWish::Auto, patterns }
    }

    /// Tells the radio what to listen for, when that has changed.
    pub(super) fn retune(&mut self) {
        let wanted = self.wanted();
        if wanted == self.scan || !self.is_open {
            return;
        }
        if self.radio.as_mut().is_some_and(|radio| radio.scan(wanted.clone())) {
            self.scan = wanted;
        }
    }

    fn on_heard(&mut self, heard: &Advertisement) {
        if let Some(survey) = &mut self.survey {
            survey.hear(heard);
        }
        let owners = self.roster.owners(heard);
        self.strangers += u64::from(owners.is_empty());
        let now = self.clock.now();
        for number in owners {
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            let said = entry.listener.hear(heard, now);
            // What is not believed is no sign of life either.
            self.tell(number, said.readings, !said.outcome.is_suspect(), now.tick);
        }
    }

    pub(super) fn tell(&mut self, device: usize, readings: Vec<(usize, Reading)>, is_alive: bool, tick: u64) {
        let Some(entry) = self.entries.get_mut(&device) else { return };
        let samples: Vec<Sample> = readings
            .into_iter()
            .map(|(property, Reading { value, quality, .. })| Sample { property, value, quality })
            .collect();
        if samples.is_empty() && (!is_alive || tick < entry.told_at + ALIVE_MS) {
            return;
        }
        entry.told_at = tick;
        for sample in &samples {
            entry.last.insert(sample.property, sample.clone());
        }
        self.out.push(Push { device, samples });
    }

    /// Takes over what the devices' packets have been counted up to.
    fn gather_counters(&mut self) {
        for entry in self.entries.values() {
            let counters = entry.listener.counters_to_keep();
            let own: BTreeMap<String, u64> = counters
                .map(|(sender, counter)| (sender.map(|sender| sender.to_string()).unwrap_or_default(), counter))
                .collect();
            if !own.is_empty() {
                self.kept.insert(entry.device.id.to_string(), own);
            }
        }
    }

    /// Begins the visits that are due.
    fn set_out(&mut self) {
        let Some(radio) = self.radio.as_ref().filter(|_| self.is_open) else { return };
        let now = self.clock.now();
        for (number, entry) in &mut self.entries {
            entry.let_go(now.tick);
            if let Some(plan) = entry.plan(now) {
                let (connector, number) = (radio.connector(), *number);
                match entry.link.take() {
                    Some(link) => self.visits.spawn(async move { (number, super::visit::run(link, plan).await) }),
                    None => self.visits.spawn(async move { (number, visit(connector, plan).await) }),
                };
            }
        }
    }

    pub(super) fn on_visit(&mut self, device: usize, visited: Visited<T::Link>) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&device) else {
            return let_go(visited.link);
        };
        for (characteristic, values) in visited.streams {
            tokio::spawn(forward(device, characteristic, values, self.noted.clone()));
        }
        if let Some(error) = &visited.broken {
            tracing::debug!(connection = %self.name, device = %entry.device.id, %error, "a visit broke off");
        }
        self.counters.requests += 1;
        match &visited.broken {
            None => self.counters.answers += 1,
            Some(_) => self.counters.timeouts += 1,
        }
        let readings = entry.on_visited(visited.outcomes, visited.broken, visited.link, now);
        let is_alive = !readings.is_empty();
        self.tell(device, readings, is_alive, now.tick);
    }

    /// A visit ended without a word, which is a fault of ours; whose it was shows when no other is under way.
    fn on_bad_end(&mut self, error: &str) {
        tracing::error!(connection = %self.name, error, "a visit ended badly");
        if self.visits.is_empty() {
            self.entries.values_mut().for_each(|entry| entry.is_visited = false);
        }
    }

    fn on_note(&mut self, (device, characteristic, value): Note) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&device) else { return };
        let readings = entry.listener.characteristic(characteristic, &value, now);
        self.tell(device, readings, true, now.tick);
    }

    /// Takes in all that is there without waiting.
    fn gather(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(heard) = self.radio.as_mut().and_then(Radio::take) else { break };
            self.on_heard(&heard);
        }
        while let Some(ended) = self.visits.try_join_next() {
            match ended {
                Ok((device, visited)) => self.on_visit(device, visited),
                Err(error) => self.on_bad_end(&error.to_string()),
            }
        }
        while let Ok(note) = self.notes.try_recv() {
            self.on_note(note);
        }
        self.set_out();
    }

    fn next_due(&self) -> u64 {
        let now = self.clock.tick();
        let due = self.entries.values().filter_map(|entry| entry.due(now)).min();
        due.unwrap_or(u64::MAX)
    }

    fn is_gone(&self, error: &BleError) -> bool {
        error.is_radio() || !self.is_open
    }

    pub(super) fn call_error(&self, error: BleError) -> CallError {
        match error {
            error if self.is_gone(&error) => CallError::Gone(error.to_string()),
            error if error.answered() => CallError::Invalid(error.to_string()),
            error => {
                tracing::debug!(connection = %self.name, %error, "no answer");
                CallError::Silent(Why::Timeout)
            }
        }
    }

    /// The properties of a device, the characteristics they are in, and its counters: for people.
    fn shape(&self, entry: &Entry<T::Link>) -> Value {
        let counters: HashMap<&str, u64> = entry.listener.counters().iter().filter(|(_, count)| *count > 0).collect();
        let address = entry.listener.last_address().map(|(address, _)| address.to_string());
        let gatt = entry.device.profile.ble.as_ref().and_then(|ble| ble.gatt.as_ref()).map(gatt);
        json!({
            "radio": {"address": address, "present": entry.listener.is_present(), "packets": counters,
                      "linked": entry.link.is_some(), "gatt": gatt},
        })
    }
}

/// Whether a packet that says the same as the last one means something: a button that is pressed again.
fn has_events(profile: &Profile) -> bool {
    let visits = profile.properties.iter().filter_map(|property| property.source.ble());
    visits.flat_map(Visit::origins).any(|origin| matches!(origin, Origin::Object { class: ObjectClass::Event, .. }))
}

fn gatt(gatt: &Gatt) -> Value {
    let all = gatt.characteristics.iter().map(|own| {
        json!({"name": own.name, "service": own.service.to_string(), "characteristic": own.characteristic.to_string()})
    });
    all.collect()
}

/// Tells a device's listener what was kept of it.
fn resume<L: super::transport::Link>(entry: &mut Entry<L>, kept: &Kept) {
    for (sender, counter) in kept.get(entry.device.id.as_str()).into_iter().flatten() {
        match sender.as_str() {
            "" => entry.listener.resume(None, *counter),
            sender => {
                if let Ok(sender) = sender.parse() {
                    entry.listener.resume(Some(sender), *counter);
                }
            }
        }
    }
}

/// Ends a link that nobody wants, without waiting for it.
pub(super) fn let_go<L: super::transport::Link>(link: Option<super::radio::Held<L>>) {
    if let Some(link) = link {
        tokio::spawn(link.disconnect());
    }
}

async fn forward(device: usize, characteristic: usize, mut values: mpsc::Receiver<Bytes>, noted: mpsc::Sender<Note>) {
    while let Some(value) = values.recv().await {
        if noted.send((device, characteristic, value)).await.is_err() {
            return;
        }
    }
}

impl<T: Transport> Port for BlePort<T> {
    async fn open(&mut self) -> Result<(), OpenError> {
        if let Some(transport) = self.transport.take() {
            self.radio = Some(Radio::start(transport));
        }
        self.scan = self.wanted();
        let scan = self.scan.clone();
        let Some(radio) = &mut self.radio else { return Err(OpenError("the radio is gone".to_owned())) };
        let mode = radio.open(scan).await.map_err(|error| OpenError(error.to_string()))?;
        tracing::info!(connection = %self.name, mode = ?mode, "scanning");
        self.is_open = true;
        Ok(())
    }

    async fn close(&mut self) {
        self.is_open = false;
        self.visits.abort_all();
        while self.visits.join_next().await.is_some() {}
        for entry in self.entries.values_mut() {
            entry.on_closed();
        }
        if let Some(radio) = &mut self.radio {
            radio.close().await;
        }
        while self.notes.try_recv().is_ok() {}
    }

    fn is_open(&self) -> bool {
        self.is_open
    }

    fn add(&mut self, number: usize, device: Arc<Device>) {
        let mut entry = Entry::new(device);
        resume(&mut entry, &self.kept);
        if let Some(ble) = &entry.device.profile.ble {
            self.roster.add(number, entry.listener.identity(), &ble.pattern);
        }
        self.entries.insert(number, entry);
        self.retune();
    }

    fn remove(&mut self, number: usize) {
        self.roster.remove(number);
        self.gather_counters();
        if let Some(entry) = self.entries.remove(&number) {
            let_go(entry.link);
        }
        self.retune();
    }

    async fn read(&mut self, jobs: &[Job], _tick: u64) -> Vec<Step> {
        // Nothing is read in a rhythm; a timetable that asks all the same is told that all is well.
        jobs.iter().map(|_| Step { samples: Vec::new(), end: StepEnd::Done }).collect()
    }

    fn give_up(&mut self, _job: Job, _why: Why) -> Step {
        Step { samples: Vec::new(), end: StepEnd::Done }
    }

    async fn write(&mut self, device: usize, property: usize, value: &Value) -> Result<(), CallError> {
        self.write_property(device, property, value).await
    }

    async fn read_back(&mut self, device: usize, property: usize) -> Result<Sample, CallError> {
        self.read_property(device, property).await
    }

    async fn probe(&mut self, device: usize) -> Result<(), CallError> {
        let entry = self.entries.get(&device);
        if entry.is_some_and(|entry| entry.listener.is_present()) {
            Ok(())
        } else {
            Err(CallError::Silent(Why::Timeout))
        }
    }

    fn same(&self, device: usize, property: usize, left: &Value, right: &Value) -> bool {
        let definition = self.entries.get(&device).and_then(|entry| entry.device.profile.properties.get(property));
        definition.is_some_and(|property| property.same_encoded(left, right))
    }

    async fn raw(&mut self, request: &Value) -> Result<Value, CallError> {
        self.raw_request(request).await
    }

    async fn look(&mut self, _address: u8, _profiles: &[Arc<Profile>]) -> Result<Option<Value>, CallError> {
        Err(CallError::Invalid("a radio has no unit addresses; ask for a survey of the air".to_owned()))
    }

    fn plan(&self, device: usize) -> Value {
        self.entries.get(&device).map(|entry| self.shape(entry)).unwrap_or_default()
    }

    fn unpark(&mut self, device: usize) {
        if let Some(entry) = self.entries.get_mut(&device) {
            entry.begin_anew();
        }
    }

    fn counters(&self) -> Counters {
        let tally = self.tally();
        Counters { dropped: tally.dropped, retries: tally.rescans + tally.resets, ..self.counters }
    }

    async fn pushed(&mut self) -> Result<Vec<Push>, Gone> {
        loop {
            self.retune();
            self.gather();
            if !self.out.is_empty() {
                return Ok(std::mem::take(&mut self.out));
            }
            let until = self.clock.instant(self.next_due());
            let Some(radio) = self.radio.as_mut().filter(|_| self.is_open) else { return std::future::pending().await };
            // What a branch gives is taken in before anything else is awaited.
            tokio::select! {
                heard = radio.next() => match heard {
                    Ok(heard) => self.on_heard(&heard),
                    Err(reason) => return Err(Gone(reason)),
                },
                Some(note) = self.notes.recv() => self.on_note(note),
                Some(visited) = self.visits.join_next() => match visited {
                    Ok((device, visited)) => self.on_visit(device, visited),
                    Err(error) => self.on_bad_end(&error.to_string()),
                },
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn overheard(&mut self) -> Vec<Push> {
        self.gather();
        std::mem::take(&mut self.out)
    }

    fn keeps_memory(&self) -> bool {
        true
    }

    fn memory(&mut self) -> Option<Value> {
        self.gather_counters();
        // What nobody owns any more is forgotten here: a removed device stays for as long as the program runs.
        let own = |device: &String| self.entries.values().any(|entry| entry.device.id.as_str() == device);
        let now: Kept =
            self.kept.iter().filter(|(device, _)| own(device)).map(|(own, all)| (own.clone(), all.clone())).collect();
        if now == self.told {
            return None;
        }
        self.told.clone_from(&now);
        Some(json!({"counters": now}))
    }

    fn remember(&mut self, memory: &Value) {
        let counters = memory.get("counters").cloned().unwrap_or_default();
        let Ok(kept) = serde_json::from_value::<Kept>(counters) else { return };
        for (device, senders) in kept.into_iter().take(REMEMBERED) {
            let own = self.kept.entry(device).or_default();
            for (sender, counter) in senders.into_iter().take(SENDERS) {
                let known = own.entry(sender).or_default();
                *known = counter.max(*known);
            }
        }
        self.entries.values_mut().for_each(|entry| resume(entry, &self.kept));
    }

    fn deaf_ms(&mut self) -> u64 {
        let deaf = self.radio.as_ref().map(Radio::deaf).unwrap_or_default();
        let (deaf, now) = (crate::clock::millis(deaf), self.clock.tick());
        let more = deaf.saturating_sub(self.deaf_ms);
        if more > 0 {
            self.entries.values_mut().for_each(|entry| entry.listener.on_deaf(more, now));
            self.deaf_ms = deaf;
        }
        deaf
    }

    fn silent(&mut self, device: usize) -> Vec<Sample> {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&device) else { return Vec::new() };
        entry.on_silent(now)
    }

    fn survey(&mut self, begins: bool, profiles: &[Arc<Profile>]) -> Option<Vec<Value>> {
        let found = match (begins, self.survey.take()) {
            (true, _) => {
                self.survey = Some(Survey::default());
                Vec::new()
            }
            (false, survey) => {
                let ids = self.entries.iter().map(|(number, entry)| (*number, entry.device.id.to_string())).collect();
                survey.map(|survey| survey.found(profiles, &mut self.roster, &ids)).unwrap_or_default()
            }
        };
        self.retune();
        Some(found)
    }
}

/// How long a person's request may keep a device connected to.
pub(super) const LINGER: Duration = Duration::from_secs(5);
