//! One wire's timetable: what is to be done next, and until when there is nothing to do.
//!
//! In: the devices of one wire with their groups, how each transaction ended, and the tick. Out: [`Action`]s. It is a
//! pure function of its inputs, so a test runs an hour in a millisecond. Must never let one dead device cost the others
//! more than one time-out a probe, and never queue a tick that was missed.
//!
//! The rules, in order of precedence:
//!
//! 1. After a device is found (again), its `init` steps go first, then pending writes, then polls.
//! 2. Writes go before polls, after the transaction that is under way and not after its cycle.
//! 3. A read cycle that has begun is finished before another begins, unless its device is busy or gone.
//! 4. Of what is due, the oldest goes first; so an overloaded wire serves everybody in turn.

mod device;
mod spread;

use device::{Device, Slot};
pub use spread::{PLACES, Place, STEP_MS};

use crate::profile::Profile;

/// A device that says "busy" is asked again after this time, in milliseconds, doubling with every try.
pub const BUSY_PAUSE_MS: u64 = 100;
/// The longest of these pauses, in milliseconds; a longer one would only make the values old.
pub const BUSY_PAUSE_MAX_MS: u64 = 2_000;
/// The shortest interval of a group, in milliseconds: the resolution of the tick.
pub const INTERVAL_MIN_MS: u64 = 1;

/// What a [`Poll`] has to know of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// The groups, by the profile's index; `None` where there is nothing to read.
    pub groups: Vec<Option<Rhythm>>,
    /// Failures in a row that make a device count as away; at least 1.
    pub after_failures: u32,
    /// The first pause between probes, in milliseconds.
    pub probe_min_ms: u64,
    /// The longest pause between probes, in milliseconds.
    pub probe_max_ms: u64,
    /// Tries after the first when the device is busy.
    pub busy_retries: u32,
    /// Whether something is written after connect and reconnect.
    pub init: bool,
    /// The device cannot be asked anything: it is found when it is heard, and never probed.
    pub passive: bool,
    /// Without a word for this time, in milliseconds, the device is away; `None` where silence means nothing.
    pub silence_ms: Option<u64>,
}

/// When a group is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// From one read to the next, in milliseconds.
    pub interval_ms: u64,
    /// Where in the interval, in milliseconds; chosen by [`Poll::add`] when absent.
    pub phase_ms: Option<u64>,
}

impl Timetable {
    /// The timetable a profile asks for.
    pub fn of(profile: &Profile) -> Self {
        let read = |group: usize| {
            profile
                .properties
                .iter()
                .any(|property| property.group == group && property.access.reads() && property.source.is_polled())
        };
        let speaks = profile.properties.iter().any(|property| property.source.is_pushed());
        let groups: Vec<Option<Rhythm>> = profile
            .groups
            .iter()
            .enumerate()
            .map(|(index, group)| {
                let interval_ms = ms(group.interval).max(INTERVAL_MIN_MS);
                read(index).then(|| Rhythm { interval_ms, phase_ms: group.phase.map(ms) })
            })
            .collect();
        let offline = profile.modbus.offline;
        Self {
            passive: speaks && groups.iter().all(Option::is_none),
            silence_ms: profile.silence().map(ms),
            groups,
            after_failures: offline.after_failures.max(1),
            probe_min_ms: ms(offline.probe_min).max(1),
            probe_max_ms: ms(offline.probe_max).max(ms(offline.probe_min)).max(1),
            busy_retries: profile.modbus.busy_retries,
            init: !profile.init.is_empty(),
        }
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One group of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// The device, as [`Poll::add`] named it.
    pub device: usize,
    /// The group, by the profile's index.
    pub group: usize,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the next part of a group; tell the end with [`Poll::on_read`].
    Read(Job),
    /// Write what the device has waiting; tell with [`Poll::on_write`] and [`Poll::set_write`].
    Write {
        /// The device.
        device: usize,
    },
    /// Send the init steps; tell with [`Poll::on_init`].
    Init {
        /// The device.
        device: usize,
    },
    /// See with one cheap read whether the device is back; tell with [`Poll::on_probe`].
    Probe {
        /// The device.
        device: usize,
    },
    /// Nothing before this tick; `None` when there is nothing at all.
    Wait(Option<u64>),
}

/// How a part of a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// Answered, and more of the cycle is to come.
    Part,
    /// Answered, and the cycle is complete.
    Done,
    /// No answer worth the name: a time-out, a broken frame.
    Failed,
}

/// Whether a device answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers.
    Online,
    /// It does not.
    Offline,
}

/// One wire's timetable.
#[derive(Clone, Debug, Default)]
pub struct Poll {
    devices: Vec<Option<Device>>,
    place: Place,
    /// No group is begun before this tick.
    put_off: u64,
    /// Groups slower than the wire's base tick so far; spreads them over its multiples.
    slow: u64,
}

/// The best candidate so far: the smaller key wins, the earlier device on a tie.
#[derive(Default)]
struct Best(Option<((u8, u64), Action)>);

impl Best {
    fn offer(&mut self, rank: u8, due: u64, action: Action) {
        if self.0.is_none_or(|(key, _)| (rank, due) < key) {
            self.0 = Some(((rank, due), action));
        }
    }
}

const INIT: u8 = 0;
const WRITE: u8 = 1;
const GOING_ON: u8 = 2;
const DUE: u8 = 3;

impl Poll {
    /// A timetable without devices, of a wire that is alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// A timetable without devices, of one wire among others.
    pub fn on_wire(place: Place) -> Self {
        Self { place, ..Self::default() }
    }

    /// Takes a device in; everything of it is due at once, then on the grid.
    ///
    /// A group that names no phase shares the ticks of the wire's shortest interval: those at the base interval all
    /// wake together, slower ones are spread over its multiples, so that no wake-up is for one group alone. The ticks of
    /// different wires lie apart by their [`Place`]s.
    pub fn add(&mut self, table: Timetable, now: u64) -> usize {
        let own = table.groups.iter().flatten().map(|rhythm| rhythm.interval_ms.max(INTERVAL_MIN_MS));
        let others = self.devices.iter().flatten().flat_map(|device| device.slots.iter().flatten().map(|s| s.interval));
        let base = own.chain(others).min().unwrap_or(INTERVAL_MIN_MS);
        let mut slots = Vec::with_capacity(table.groups.len());
        for rhythm in &table.groups {
            slots.push(rhythm.map(|rhythm| {
                let interval = rhythm.interval_ms.max(INTERVAL_MIN_MS);
                let phase = rhythm.phase_ms.unwrap_or_else(|| {
                    self.slow += u64::from(interval > base);
                    let among = if interval > base { (self.slow - 1).wrapping_mul(base) } else { 0 };
                    among.wrapping_add(self.place.offset_ms(base))
                });
                Slot { interval, phase: phase % interval, due: now }
            }));
        }
        let device = Device {
            slots,
            health: Health::Unknown,
            failures: 0,
            hold: now,
            init: table.init,
            write_at: None,
            cycle: None,
            asked: false,
            busy: 0,
            probe_at: now,
            probe_pause: table.probe_min_ms,
            missed: 0,
            heard_at: now,
            table,
        };
        match self.devices.iter().position(Option::is_none) {
            Some(free) => {
                if let Some(place) = self.devices.get_mut(free) {
                    *place = Some(device);
                }
                free
            }
            None => {
                self.devices.push(Some(device));
                self.devices.len() - 1
            }
        }
    }

    /// Lets a device go; its number may be given to another.
    pub fn remove(&mut self, device: usize) {
        if let Some(place) = self.devices.get_mut(device) {
            *place = None;
        }
    }

    /// Whether the device answers.
    pub fn health(&self, device: usize) -> Health {
        self.device(device).map_or(Health::Unknown, |device| device.health)
    }

    /// Whether the device answered to the latest request.
    pub fn is_heard(&self, device: usize) -> bool {
        self.device(device).is_some_and(|device| device.health == Health::Online && device.failures == 0)
    }

    /// Ticks of the device that were skipped because the wire was behind.
    pub fn missed(&self, device: usize) -> u64 {
        self.device(device).map_or(0, |device| device.missed)
    }

    /// What is to be done now. Calling again before the end was told gives another device's action, which is how
    /// several requests get under way at one time.
    pub fn next(&mut self, now: u64) -> Action {
        self.pick(now, true)
    }

    /// Like [`Poll::next`], but reads only: what can go along with a read that is handed out already.
    pub fn next_read(&mut self, now: u64) -> Option<Job> {
        match self.pick(now, false) {
            Action::Read(job) => Some(job),
            _ => None,
        }
    }

    fn pick(&mut self, now: u64, all: bool) -> Action {
        let mut best = Best::default();
        let mut wake: Option<u64> = None;
        let mut later = |tick: u64| wake = Some(wake.map_or(tick, |wake| wake.min(tick)));
        for (index, device) in self.devices.iter().enumerate() {
            let Some(device) = device else { continue };
            if device.asked {
                continue;
            }
            if device.health == Health::Offline {
                if device.table.passive {
                    continue;
                }
                if device.probe_at > now {
                    later(device.probe_at);
                } else if all {
                    best.offer(DUE, device.probe_at, Action::Probe { device: index });
                }
                continue;
            }
            if device.hold > now {
                later(device.hold);
                continue;
            }
            if device.init {
                if all {
                    best.offer(INIT, device.hold, Action::Init { device: index });
                }
                continue;
            }
            match device.write_at {
                Some(at) if at > now => later(at),
                Some(at) if all => {
                    best.offer(WRITE, at, Action::Write { device: index });
                    continue;
                }
                // A write is due: the device is left alone until it is asked for.
                Some(_) => continue,
                None => {}
            }
            if let Some(group) = device.cycle {
                best.offer(GOING_ON, 0, Action::Read(Job { device: index, group }));
                continue;
            }
            for (group, slot) in device.slots.iter().enumerate() {
                let Some(slot) = slot else { continue };
                if slot.due.max(self.put_off) > now {
                    later(slot.due.max(self.put_off));
                } else {
                    best.offer(DUE, slot.due, Action::Read(Job { device: index, group }));
                }
            }
        }
        let Some((_, action)) = best.0 else { return Action::Wait(wake) };
        self.hand_out(action, now);
        action
    }

    fn hand_out(&mut self, action: Action, now: u64) {
        let (Action::Read(Job { device, .. })
        | Action::Write { device }
        | Action::Init { device }
        | Action::Probe { device }) = action
        else {
            return;
        };
        let Some(device) = self.device_mut(device) else { return };
        device.asked = true;
        if let Action::Read(job) = action
            && device.cycle.is_none()
        {
            device.cycle = Some(job.group);
            let missed = device.slots.get_mut(job.group).and_then(Option::as_mut).map_or(0, |slot| slot.advance(now));
            device.missed += missed;
        }
    }

    /// A part of a read ended. Gives the device's health when that changed.
    pub fn on_read(&mut self, job: Job, end: ReadEnd, now: u64) -> Option<Health> {
        let device = self.device_mut(job.device)?;
        device.asked = false;
        device.busy = 0;
        match end {
            ReadEnd::Part => device.answered(now),
            ReadEnd::Done => {
                device.cycle = None;
                device.answered(now)
            }
            ReadEnd::Failed => {
                device.cycle = None;
                if let Some(slot) = device.slots.get_mut(job.group).and_then(Option::as_mut) {
                    slot.due = now;
                }
                device.failed(now)
            }
        }
    }

    /// The device is busy (exceptions 5 and 6). `true`: the same part is handed out again after a pause. `false`: the
    /// tries are used up; give the part up and tell how the cycle goes on with [`Poll::on_read`].
    pub fn on_busy(&mut self, device: usize, now: u64) -> bool {
        let Some(device) = self.device_mut(device) else { return false };
        if device.busy >= device.table.busy_retries {
            device.busy = 0;
            return false;
        }
        device.asked = false;
        device.hold = now + (BUSY_PAUSE_MS << device.busy.min(16)).min(BUSY_PAUSE_MAX_MS);
        device.busy += 1;
        true
    }

    /// The init steps ended; `answered` says whether the device answered to all of them, be it with an exception.
    pub fn on_init(&mut self, device: usize, answered: bool, now: u64) -> Option<Health> {
        let device = self.device_mut(device)?;
        device.asked = false;
        if answered {
            device.init = false;
            device.answered(now)
        } else {
            device.failed(now)
        }
    }

    /// A write ended; `answered` says whether the device answered, be it with an exception.
    pub fn on_write(&mut self, device: usize, answered: bool, now: u64) -> Option<Health> {
        let device = self.device_mut(device)?;
        device.asked = false;
        if answered { device.answered(now) } else { device.failed(now) }
    }

    /// A probe ended. A device that answers is found: init, writes and every group are due now.
    pub fn on_probe(&mut self, device: usize, answered: bool, now: u64) -> Option<Health> {
        let device = self.device_mut(device)?;
        device.asked = false;
        if answered {
            device.due_now(now);
            // Online only when the init steps are through; until then nothing else is sent.
            device.health = Health::Unknown;
            device.failures = 0;
            return if device.init { None } else { device.answered(now) };
        }
        device.probe_pause = device.probe_pause.saturating_mul(2).min(device.table.probe_max_ms);
        device.probe_at = now + device.probe_pause;
        None
    }

    /// The device was heard without being asked. One that was away is found: init and writes are due now, and every
    /// group.
    pub fn on_heard(&mut self, device: usize, now: u64) -> Option<Health> {
        let device = self.device_mut(device)?;
        device.heard_at = now;
        if device.health == Health::Offline {
            device.due_now(now);
            device.health = Health::Unknown;
        }
        // Until the init steps are through it is not known to work.
        if device.init { None } else { device.answered(now) }
    }

    /// What the clock alone brings: the devices that have been silent for longer than they may be, each told once.
    pub fn on_time(&mut self, now: u64) -> Vec<usize> {
        let mut silent = Vec::new();
        for (index, device) in self.devices.iter_mut().enumerate() {
            let Some(device) = device else { continue };
            if device.silent_at().is_some_and(|at| at <= now) {
                device.lose(now);
                silent.push(index);
            }
        }
        silent
    }

    /// For so many milliseconds nobody could have been heard: they do not count as silence. Time before a device was heard
    /// last is not among them twice, because its silence began after that.
    pub fn on_deaf(&mut self, ms: u64, now: u64) {
        for device in self.devices.iter_mut().flatten() {
            device.heard_at = device.heard_at.saturating_add(ms).min(now);
        }
    }

    /// The tick at which [`Poll::on_time`] has something to do.
    pub fn silent_at(&self) -> Option<u64> {
        self.devices.iter().flatten().filter_map(Device::silent_at).min()
    }

    /// When the device has something to write: not before this tick, or nothing.
    pub fn set_write(&mut self, device: usize, at: Option<u64>) {
        if let Some(device) = self.device_mut(device) {
            device.write_at = at;
        }
    }

    /// Begins no group before this tick: what it brings could not be told yet. Writes, probes and what is under way are
    /// not held up; groups that are due wait, and ticks they miss are skipped.
    pub fn put_off(&mut self, until: u64) {
        self.put_off = until;
    }

    /// Every group of the device is due now.
    pub fn read_now(&mut self, device: usize, now: u64) {
        if let Some(device) = self.device_mut(device) {
            for slot in device.slots.iter_mut().flatten() {
                slot.due = now;
            }
        }
    }

    /// The wire is there again: every device is as good as new, and asked at once.
    pub fn on_open(&mut self, now: u64) {
        for device in self.devices.iter_mut().flatten() {
            device.due_now(now);
            device.heard_at = now;
            if device.health == Health::Offline && device.failures >= device.table.after_failures {
                // It was silent while the wire was fine: one probe tells.
                device.probe_at = now;
            } else {
                device.health = Health::Unknown;
                device.failures = 0;
            }
        }
    }

    /// The wire was closed while it was idle and is there again: what was under way is asked again.
    pub fn on_reopen(&mut self, now: u64) {
        for device in self.devices.iter_mut().flatten() {
            device.asked = false;
            if let Some(slot) =
                device.cycle.take().and_then(|group| device.slots.get_mut(group)).and_then(Option::as_mut)
            {
                slot.due = now;
            }
        }
    }

    /// The wire is gone, and with it every device. Gives those that were not known to be away.
    pub fn on_closed(&mut self) -> Vec<usize> {
        let mut lost = Vec::new();
        for (index, device) in self.devices.iter_mut().enumerate() {
            let Some(device) = device else { continue };
            device.asked = false;
            device.cycle = None;
            if device.health != Health::Offline {
                device.health = Health::Offline;
                device.failures = 0;
                lost.push(index);
            }
        }
        lost
    }

    fn device(&self, device: usize) -> Option<&Device> {
        self.devices.get(device).and_then(Option::as_ref)
    }

    fn device_mut(&mut self, device: usize) -> Option<&mut Device> {
        self.devices.get_mut(device).and_then(Option::as_mut)
    }
}

#[cfg(test)]
mod tests;
