//! One device of the radio: what was heard of it, when it is visited, and the link to it.
//!
//! In: the profile, the time, what a visit brought. Out: plans for visits, readings. Must never have two visits under way,
//! nor visit more often than the profile lets it: batteries are small.

use std::collections::HashMap;
use std::sync::Arc;

use protocols::ble::current_time;
use protocols::config::Device;
use protocols::profile::ble::{Characteristic, ConnectMode, Gatt, Listener, Op, Origin, Pairing as Wanted, Payload};
use protocols::value::{Now, Reading, Why};

use super::port::{ALIVE_MS, LINGER, let_go};
use super::radio::Held;
use super::transport::{BleError, CharRef, Link, Pairing, WriteKind};
use super::visit::{Errand, Outcome, Plan, Task};
use crate::clock::millis;
use crate::port::Sample;

/// How often a link that is kept is looked at, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// One device.
pub(super) struct Entry<L> {
    pub(super) device: Arc<Device>,
    pub(super) listener: Listener,
    /// The last sample of each property.
    pub(super) last: HashMap<usize, Sample>,
    /// When the host was told of it last.
    pub(super) told_at: u64,
    pub(super) link: Option<Held<L>>,
    /// When the link is let go; never for a link that is kept.
    link_until: Option<u64>,
    /// The link is listened to.
    is_listening: bool,
    pub(super) is_visited: bool,
    visit_at: u64,
    failures: u32,
    /// When each characteristic was done last.
    done_at: HashMap<usize, u64>,
}

impl<L: Link> Entry<L> {
    pub(super) fn new(device: Arc<Device>) -> Self {
        let identity = device.ble.clone().unwrap_or_default();
        Self {
            listener: Listener::new(Arc::clone(&device.profile), identity),
            device,
            last: HashMap::new(),
            told_at: 0,
            link: None,
            link_until: None,
            is_listening: false,
            is_visited: false,
            visit_at: 0,
            failures: 0,
            done_at: HashMap::new(),
        }
    }

    pub(super) fn gatt(&self) -> Option<&Gatt> {
        self.device.profile.ble.as_ref()?.gatt.as_ref()
    }

    /// How the device is paired with.
    pub(super) fn pairing(&self) -> Pairing {
        match (self.gatt().map(|gatt| gatt.pairing), self.listener.identity().passkey) {
            (Some(Wanted::JustWorks), _) => Pairing::JustWorks,
            (Some(Wanted::Passkey), Some(passkey)) => Pairing::Passkey(passkey),
            _ => Pairing::None,
        }
    }

    fn mode(&self) -> Option<ConnectMode> {
        self.gatt().map(|gatt| gatt.connect.mode)
    }

    /// Everything is done anew at the next visit, which is due now.
    pub(super) fn begin_anew(&mut self) {
        self.done_at.clear();
        self.visit_at = 0;
        self.failures = 0;
    }

    /// The radio is gone, and every link with it.
    pub(super) fn on_closed(&mut self) {
        self.link = None;
        self.link_until = None;
        self.is_listening = false;
        self.is_visited = false;
        self.visit_at = 0;
    }

    /// When there is something to do for this device.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        let look = (self.link.is_some() && self.link_until.is_none()).then_some(now + LOOK_MS);
        let visits = !self.is_visited
            && self.listener.is_present()
            && matches!(self.mode(), Some(ConnectMode::Interval | ConnectMode::Always));
        // A visit that is due and cannot be made now is looked at again soon.
        let visit = visits.then_some(self.visit_at.max(now + 1));
        [look, visit, self.link_until].into_iter().flatten().min()
    }

    /// Keeps a link for a while, or for as long as the profile says.
    pub(super) fn keep(&mut self, link: Held<L>, now: u64) {
        if !link.is_up() {
            return let_go(Some(link));
        }
        self.link = Some(link);
        self.link_until = (self.mode() != Some(ConnectMode::Always)).then_some(now + millis(LINGER));
    }

    /// Lets a link go that is broken, or was kept long enough.
    pub(super) fn let_go(&mut self, now: u64) {
        let is_over = self.link_until.is_some_and(|until| until <= now);
        if is_over || self.link.as_ref().is_some_and(|link| !link.is_up()) {
            let_go(self.link.take());
            self.link_until = None;
            self.is_listening = false;
        }
    }

    /// The visit that is due; from now on it is under way.
    pub(super) fn plan(&mut self, now: Now) -> Option<Plan> {
        if self.is_visited || self.visit_at > now.tick || !self.listener.is_present() {
            return None;
        }
        let stays = match self.mode()? {
            ConnectMode::OnDemand => return None,
            ConnectMode::Interval => false,
            ConnectMode::Always => true,
        };
        let (address, _) = self.listener.last_address()?;
        let pairing = self.pairing();
        let (tasks, limit, retries, every) = {
            let gatt = self.gatt()?;
            let connect = gatt.connect;
            (self.tasks(gatt, now), connect.timeout, connect.retries, millis(connect.every).max(LOOK_MS))
        };
        let has_nothing_to_do = tasks.is_empty() && (!stays || self.link.is_some());
        if has_nothing_to_do {
            self.visit_at = now.tick + every;
            return None;
        }
        self.is_visited = true;
        self.link_until = None;
        Some(Plan { address, pairing, limit, retries, tasks, stays })
    }

    fn tasks(&self, gatt: &Gatt, now: Now) -> Vec<Task> {
        let is_due = |index: usize, own: &Characteristic| match self.done_at.get(&index) {
            None => true,
            Some(_) if own.once => false,
            Some(at) => own.every.is_none_or(|every| at + millis(every) <= now.tick),
        };
        let errand = |own: &Characteristic| match (own.op, &own.payload) {
            (Op::Read, _) => Some(Errand::Read),
            (Op::Notify | Op::Indicate, _) => (!self.is_listening).then_some(Errand::Listen),
            (Op::Write | Op::WriteWithoutResponse, None) => None,
            (op, Some(payload)) => {
                let bytes = match payload {
                    Payload::CurrentTime => current_time(now.wall).to_vec(),
                    Payload::Bytes(bytes) => bytes.clone(),
                };
                let kind = if op == Op::Write { WriteKind::Request } else { WriteKind::Command };
                Some(Errand::Write(bytes, kind))
            }
        };
        let all = gatt.characteristics.iter().enumerate();
        let due = all.filter(|(index, own)| matches!(own.op, Op::Notify | Op::Indicate) || is_due(*index, own));
        due.filter_map(|(index, own)| {
            Some(Task { index, at: place(own), optional: own.optional, errand: errand(own)? })
        })
        .collect()
    }

    /// A visit has ended. Gives what it brought.
    pub(super) fn on_visited(
        &mut self,
        outcomes: Vec<Outcome>,
        broken: Option<BleError>,
        link: Option<Held<L>>,
        now: Now,
    ) -> Vec<(usize, Reading)> {
        self.is_visited = false;
        let mut readings = Vec::new();
        for (index, outcome) in outcomes {
            self.done_at.insert(index, now.tick);
            match outcome {
                Ok(Some(bytes)) => readings.extend(self.listener.characteristic(index, &bytes, now)),
                Ok(None) => {}
                Err(error) => {
                    let why = if let BleError::Att(code) = error { Why::Exception(code) } else { Why::Config };
                    readings.extend(self.bad(index, why, now));
                }
            }
        }
        let connect = self.gatt().map(|gatt| gatt.connect);
        let every = connect.map_or(LOOK_MS, |connect| millis(connect.every).max(LOOK_MS));
        match broken {
            None => {
                self.failures = 0;
                self.visit_at = now.tick + every;
            }
            Some(_) => {
                let (min, max) = connect
                    .map_or((LOOK_MS, every), |own| (millis(own.backoff_min).max(LOOK_MS), millis(own.backoff_max)));
                self.visit_at = now.tick + (min << self.failures.min(16)).min(max.max(min));
                self.failures = self.failures.saturating_add(1);
                let missing: Vec<usize> = (0..self.gatt().map_or(0, |gatt| gatt.characteristics.len()))
                    .filter(|index| self.done_at.get(index) != Some(&now.tick))
                    .collect();
                for index in missing {
                    readings.extend(self.bad(index, Why::Timeout, now));
                }
            }
        }
        if let Some(link) = link {
            self.is_listening = true;
            self.keep(link, now.tick);
        }
        readings
    }

    /// What comes out of a characteristic alone is bad.
    fn bad(&self, characteristic: usize, why: Why, now: Now) -> Vec<(usize, Reading)> {
        let is_only_there = |property: &usize| {
            let source = self.device.profile.properties.get(*property).and_then(|own| own.source.ble());
            source.is_some_and(|visit| visit.origins().all(|origin| matches!(origin, Origin::Gatt(_))))
        };
        let properties = self.listener.properties_of(characteristic).into_iter().filter(is_only_there);
        properties.map(|property| (property, Reading::bad(why, now.wall))).collect()
    }

    /// The host counts it as away: what the device's presence is now.
    pub(super) fn on_silent(&mut self, now: Now) -> Vec<Sample> {
        // The host was told of the last packet up to this much before it came.
        let then = Now { tick: now.tick + ALIVE_MS, ..now };
        let readings = self.listener.check(then).into_iter();
        readings.map(|(property, Reading { value, quality, .. })| Sample { property, value, quality }).collect()
    }
}

/// Where a characteristic of a profile is.
pub(super) fn place(own: &Characteristic) -> CharRef {
    CharRef { service: own.service, characteristic: own.characteristic, instance: own.instance }
}
