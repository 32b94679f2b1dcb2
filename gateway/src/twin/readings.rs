//! Readings: merged and published at once, on disk in groups.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use protocols::name::DeviceId;
use protocols::twin::Refusal;
use protocols::value::Now;

use super::service::{Incoming, Later, Mark, Service, malformed};
use super::{Input, add, words};
use crate::broker::desk::{Answer, Verdict};
use crate::store::{ReportedWrite, TwinWrite, VERSION_RESERVE};

/// Acknowledgements that may wait for a flush; one more makes it happen at once.
const WAITING_ANSWERS: usize = 10_000;

/// From a flush that failed to the next try, in milliseconds.
const RETRY_MS: u64 = 1000;

/// When readings go to the disk, and who waits for it.
pub(super) struct Flush {
    interval_ms: u64,
    dirty: HashSet<DeviceId>,
    dirty_since: Option<u64>,
    last: Option<u64>,
    urgent: bool,
    /// After a failure, nothing is tried before this tick.
    retry_at: u64,
    answers: Vec<Later>,
    under_way: Option<UnderWay>,
    /// Readings of devices that have used up their versions; they go on after the flush.
    held_back: VecDeque<Incoming>,
}

struct UnderWay {
    versions: Vec<(DeviceId, u64)>,
    answers: Vec<Later>,
}

impl Flush {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval_ms: millis(interval),
            dirty: HashSet::new(),
            dirty_since: None,
            last: None,
            urgent: false,
            retry_at: 0,
            answers: Vec::new(),
            under_way: None,
            held_back: VecDeque::new(),
        }
    }

    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval_ms = millis(interval);
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// When the next flush is due. With somebody waiting it is as early as the interval since the last one allows.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        if self.under_way.is_some() {
            return None;
        }
        let earliest = self.last.map_or(0, |last| last.saturating_add(self.interval_ms));
        let due = match self.dirty_since {
            _ if self.urgent => now,
            _ if !self.answers.is_empty() => earliest,
            since => since?.saturating_add(self.interval_ms).max(earliest),
        };
        Some(due.max(self.retry_at))
    }

    fn mark(&mut self, device: &DeviceId, now: u64) {
        self.dirty_since.get_or_insert(now);
        if !self.dirty.contains(device) {
            self.dirty.insert(device.clone());
        }
    }

    /// What all who still wait are told at the very end.
    pub(super) fn end(&mut self, stored: bool) -> Vec<(Answer, Verdict)> {
        let verdict = match stored {
            true => Verdict::Accepted,
            false => words::verdict(&Refusal::whole(503, "the store cannot be written")),
        };
        std::mem::take(&mut self.answers).into_iter().map(|(answer, _)| (answer, verdict.clone())).collect()
    }
}

fn millis(interval: Duration) -> u64 {
    u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
}

impl Service {
    pub(super) fn on_readings(&mut self, incoming: Incoming) {
        let now = (self.around.clock)();
        let device = incoming.topic.device().clone();
        let Some(held) = self.twins.get_mut(&device) else {
            let refusal = Refusal::whole(404, format!("there is no device {device}"));
            return self.refuse(incoming, None, &refusal);
        };
        if held.twin.reported_version() >= held.stored + VERSION_RESERVE {
            return self.hold_back(incoming);
        }
        let readings = match held.twin.shape().readings(&incoming.request.payload) {
            Ok(readings) => readings,
            Err(error) => return self.refuse(incoming, None, &malformed(&error)),
        };
        let waits = incoming.request.qos > 0;
        add(&self.around.counters.readings, readings.len());
        let outcome = held.twin.on_readings(readings, now);
        let mut set_mark = |index: &usize, mark: Mark| {
            if let Some(slot) = held.marks.get_mut(*index) {
                *slot = mark.max(*slot);
            }
        };
        outcome.changed.iter().for_each(|index| set_mark(index, Mark::Changed));
        let touched = if waits { Mark::Changed } else { Mark::Touched };
        outcome.touched.iter().for_each(|index| set_mark(index, touched));
        self.scratch.text.clear();
        let mut ends = Vec::with_capacity(outcome.changed.len());
        for index in &outcome.changed {
            self.words.extend(held.reported(*index, &mut self.scratch));
            ends.push(self.scratch.text.len());
        }
        if !outcome.changed.is_empty() {
            // the event says of each property what its own topic says
            let mut from = 0;
            let leaves = outcome.changed.iter().zip(&ends).filter_map(|(index, end)| {
                let leaf = self.scratch.text.get(std::mem::replace(&mut from, *end)..*end)?;
                Some((*index, leaf))
            });
            let mut event = Vec::with_capacity(128 + 32 * ends.len() + self.scratch.text.len());
            held.twin.write_reported_event(&outcome, now.wall, leaves, &mut event);
            self.words.push(words::spoken(&[&held.prefix, "/event"], &event));
        }
        for index in &outcome.touched {
            self.words.extend(held.reported(*index, &mut self.scratch));
        }
        let kept = !outcome.changed.is_empty() || (waits && !outcome.touched.is_empty());
        if kept {
            self.flush.mark(&device, now.tick);
            self.flush.urgent |= held.twin.reported_version() >= held.stored + VERSION_RESERVE / 2;
        }
        let any = kept || !outcome.touched.is_empty();
        if outcome.status {
            self.status_word(&device);
        }
        if any || outcome.status {
            self.document_due(&device, now);
        }
        if !outcome.unknown.is_empty() {
            add(&self.around.counters.unknown_readings, outcome.unknown.len());
            let why = |name: &protocols::name::PropertyName| {
                (name.to_string(), "no such property; the other readings were taken".to_owned())
            };
            let refusal = Refusal { code: 422, errors: outcome.unknown.iter().map(why).collect() };
            return self.refuse(incoming, None, &refusal);
        }
        if waits && kept {
            self.flush.answers.push((incoming.request.answer, incoming.reply));
            self.flush.urgent |= self.flush.answers.len() > WAITING_ANSWERS;
        } else {
            self.accept(incoming);
        }
    }

    /// A device that has used up its versions waits for the flush; with a store that cannot be written it is refused.
    fn hold_back(&mut self, incoming: Incoming) {
        if self.flush.retry_at > (self.around.clock)().tick {
            let refusal = Refusal::whole(503, "the store cannot be written");
            return self.refuse(incoming, None, &refusal);
        }
        self.flush.urgent = true;
        self.flush.held_back.push_back(incoming);
    }

    pub(super) fn flush_if_due(&mut self, now: Now) {
        if self.flush.due(now.tick).is_none_or(|due| due > now.tick) {
            return;
        }
        self.flush.urgent = false;
        self.flush.dirty_since = None;
        let writes = self.take_dirty(Mark::Changed);
        let versions = writes.iter().filter_map(|write| match write {
            TwinWrite::Reported(reported) => Some((reported.device.clone(), reported.version)),
            _ => None,
        });
        let under_way = UnderWay { versions: versions.collect(), answers: std::mem::take(&mut self.flush.answers) };
        self.flush.under_way = Some(under_way);
        self.flush.last = Some(now.tick);
        if writes.is_empty() {
            return self.on_flushed(Ok(()));
        }
        let inputs = self.around.inputs.clone();
        // The service may be gone by then; then nobody waits.
        let done = move |result: Result<(), crate::broker::shelf::ShelfError>| {
            drop(inputs.send(Input::Flushed(result.map_err(|error| error.to_string()))));
        };
        self.around.store.write(writes, Some(Box::new(done)));
    }

    /// Takes what is marked at least so; with [`Mark::Touched`], that of all devices.
    pub(super) fn take_dirty(&mut self, least: Mark) -> Vec<TwinWrite> {
        let dirty = std::mem::take(&mut self.flush.dirty);
        let all = least == Mark::Touched;
        let devices: Vec<DeviceId> =
            if all { self.twins.keys().cloned().collect() } else { dirty.into_iter().collect() };
        let mut writes = Vec::with_capacity(devices.len());
        for device in devices {
            let Some(held) = self.twins.get_mut(&device) else { continue };
            let count = held.marks.iter().filter(|mark| **mark >= least).count();
            let mut leaves = Vec::with_capacity(count);
            for (index, mark) in held.marks.iter_mut().enumerate().filter(|(_, mark)| **mark >= least) {
                *mark = Mark::Stored;
                if let (Some(name), Some(leaf)) = (held.twin.name(index), held.twin.reported(index)) {
                    leaves.push((name.clone(), Some(leaf)));
                }
            }
            let version = held.twin.reported_version();
            if !leaves.is_empty() || version != held.stored {
                writes.push(TwinWrite::Reported(ReportedWrite { device, version, leaves }));
            }
        }
        writes
    }

    pub(super) fn on_flushed(&mut self, result: Result<(), String>) {
        let Some(UnderWay { versions, answers }) = self.flush.under_way.take() else { return };
        match &result {
            Ok(()) => {
                self.flush.retry_at = 0;
                for (device, version) in versions {
                    if let Some(held) = self.twins.get_mut(&device) {
                        held.stored = held.stored.max(version);
                    }
                }
            }
            Err(error) => {
                let now = (self.around.clock)();
                tracing::warn!(%error, devices = versions.len(), "readings are not on disk yet");
                self.flush.retry_at = now.tick + RETRY_MS;
                self.flush.urgent = true;
                for (device, _) in versions {
                    self.flush.mark(&device, now.tick);
                    // Which leaves it were is not remembered; writing some twice is cheaper.
                    if let Some(held) = self.twins.get_mut(&device) {
                        held.marks.fill(Mark::Changed);
                    }
                }
            }
        }
        for (answer, reply) in answers {
            match &result {
                Ok(()) => {
                    if reply.asked {
                        self.words.push(reply.word(&words::json(&words::accepted(None, None))));
                    }
                    self.verdicts.push((answer, Verdict::Accepted));
                }
                Err(error) => {
                    add(&self.around.counters.refused, 1);
                    let refusal = Refusal::whole(503, error.clone());
                    self.words.push(reply.word(&words::json(&words::refused(None, &refusal, None))));
                    self.verdicts.push((answer, words::verdict(&refusal)));
                }
            }
        }
        for incoming in std::mem::take(&mut self.flush.held_back) {
            self.on_readings(incoming);
        }
    }
}
