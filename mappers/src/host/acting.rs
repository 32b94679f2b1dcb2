//! What a host does to devices: init steps, probes, writes with their read back.
//!
//! In: what the wishes of a device ask for. Out: requests through the port, acknowledgements. Must never press a button
//! twice.

use std::sync::Arc;

use protocols::profile::{Confirm, Property, WriteMode};
use protocols::value::{Quality, Value, Why};

use super::Host;
use super::desired::{Ack, Deed};
use crate::port::{CallError, Port, Sample};

/// How an attempt ended: whether the device answered, what is to be acknowledged, and the wire's end if it broke.
struct Ended {
    answered: bool,
    why: Why,
    gone: Option<String>,
}

impl Ended {
    fn of<T>(outcome: &Result<T, CallError>) -> Self {
        let why = match outcome {
            Err(CallError::Silent(why)) => *why,
            _ => Why::Timeout,
        };
        let gone = match outcome {
            Err(CallError::Gone(reason)) => Some(reason.clone()),
            _ => None,
        };
        Self { answered: outcome.as_ref().map_or_else(CallError::answered, |_| true), why, gone }
    }
}

impl<P: Port> Host<P> {
    /// Sends the profile's init steps, each checked by reading back where it can be read.
    pub(super) async fn init(&mut self, device: usize) {
        let Some(profile) = self.unit(device).map(|unit| Arc::clone(&unit.device.profile)) else { return };
        let began = self.clock.tick();
        let mut ended = Ended { answered: true, why: Why::Timeout, gone: None };
        for step in &profile.init {
            let Some(property) = profile.properties.get(step.property) else { continue };
            let outcome = self.write_checked(device, step.property, property, &step.value).await;
            ended = Ended::of(&outcome);
            if !ended.answered {
                break;
            }
            let told = match outcome {
                Ok(None) => continue,
                Ok(Some(actual)) => format!("the device holds {actual} after {} was written", step.value),
                Err(error) => error.to_string(),
            };
            let id = self.unit(device).map(|unit| unit.device.id.to_string());
            tracing::warn!(connection = %self.name, device = id, property = %property.name, error = told, "init");
        }
        self.link.on_busy(began, self.clock.tick());
        if let Some(reason) = ended.gone {
            return self.on_gone(&reason).await;
        }
        if ended.answered {
            self.link.on_answer();
        }
        let health = self.poll.on_init(device, ended.answered, self.clock.tick());
        self.on_health(device, health, ended.why);
    }

    /// Writes and reads back; gives the actual value when it is not the one that was written.
    async fn write_checked(
        &mut self,
        device: usize,
        index: usize,
        property: &Property,
        value: &Value,
    ) -> Result<Option<Value>, CallError> {
        self.port.write(device, index, value).await?;
        if property.write.confirm != Confirm::ReadBack
            || !property.access.reads()
            || property.write.mode == WriteMode::Pulse
        {
            return Ok(None);
        }
        tokio::time::sleep(property.write.settle).await;
        let actual = self.port.read_back(device, index).await?;
        let equal = self.equal(device, index, property, value, &actual);
        Ok((!equal).then_some(actual.value))
    }

    fn equal(&self, device: usize, index: usize, property: &Property, wanted: &Value, actual: &Sample) -> bool {
        if actual.quality.is_bad() {
            return false;
        }
        match (property.write.tolerance, wanted.as_f64(), actual.value.as_f64()) {
            (Some(tolerance), Some(wanted), Some(actual)) => (wanted - actual).abs() <= tolerance,
            _ => self.port.same(device, index, wanted, &actual.value),
        }
    }

    pub(super) async fn probe(&mut self, device: usize) {
        let began = self.clock.tick();
        let outcome = self.port.probe(device).await;
        let now = self.clock.tick();
        self.link.on_busy(began, now);
        let ended = Ended::of(&outcome);
        if let Some(reason) = ended.gone {
            return self.on_gone(&reason).await;
        }
        if ended.answered {
            self.link.on_answer();
        }
        let health = self.poll.on_probe(device, ended.answered, now);
        self.on_health(device, health, ended.why);
    }

    /// Does one deed of a device's wishes: a write, or a read back.
    pub(super) async fn write(&mut self, device: usize) {
        let began = self.clock.tick();
        let due = self.unit(device).and_then(|unit| unit.wishes.due(began));
        let profile = self.unit(device).map(|unit| Arc::clone(&unit.device.profile));
        let deed = due.zip(profile).and_then(|((index, deed), profile)| {
            profile.properties.get(index)?;
            Some((index, deed, profile))
        });
        let mut ended = Ended { answered: true, why: Why::Timeout, gone: None };
        if let Some((index, deed, profile)) = deed
            && let Some(property) = profile.properties.get(index)
        {
            // Its silence is about this value only if the device was heard since it last was silent.
            let heard = self.poll.is_heard(device);
            let (end, acks) = match deed {
                Deed::Write(value) => self.write_one(device, index, property, &value, heard).await,
                Deed::ReadBack(value) => self.read_one(device, index, property, &value, heard).await,
            };
            ended = end;
            self.acknowledge(device, acks);
        }
        let now = self.clock.tick();
        self.link.on_busy(began, now);
        if let Some(reason) = ended.gone {
            self.on_gone(&reason).await;
        } else {
            if ended.answered {
                self.link.on_answer();
            }
            let health = self.poll.on_write(device, ended.answered, now);
            self.on_health(device, health, ended.why);
        }
        self.plan_writes(device);
    }

    async fn write_one(
        &mut self,
        device: usize,
        index: usize,
        property: &Property,
        value: &Value,
        heard: bool,
    ) -> (Ended, Vec<Ack>) {
        let nothing = Ended { answered: true, why: Why::Timeout, gone: None };
        let now = self.clock.tick();
        let Some(unit) = self.unit_mut(device) else { return (nothing, Vec::new()) };
        if unit.wishes.must_wait(index, property, now) {
            return (nothing, Vec::new());
        }
        if let Some(condition) = &property.write.requires {
            let reason = match unit.holds(condition, now) {
                Ok(true) => None,
                Ok(false) => Some(format!("waits for {}", condition.text())),
                Err(error) => Some(format!("waits for {}: {error}", condition.text())),
            };
            if let Some(reason) = reason {
                let acks = unit.wishes.on_not_now(index, &reason, now);
                return (nothing, acks.into_iter().collect());
            }
        }
        unit.forget_sample(index);
        let outcome = self.port.write(device, index, value).await;
        let ended = Ended::of(&outcome);
        let now = self.clock.tick();
        let Some(unit) = self.unit_mut(device) else { return (ended, Vec::new()) };
        let ack = match &outcome {
            Ok(()) => unit.wishes.on_wrote(index, property, now),
            Err(error) => unit.wishes.on_error(index, property, error, heard, now),
        };
        (ended, ack.into_iter().collect())
    }

    async fn read_one(
        &mut self,
        device: usize,
        index: usize,
        property: &Property,
        wanted: &Value,
        heard: bool,
    ) -> (Ended, Vec<Ack>) {
        let outcome = self.port.read_back(device, index).await;
        let ended = Ended::of(&outcome);
        let now = self.clock.tick();
        let acks = match outcome {
            Ok(actual) => {
                let equal = self.equal(device, index, property, wanted, &actual);
                let value = actual.value.clone();
                // The reading goes out before the acknowledgement, so that who waits for that finds the new value.
                self.take_samples(device, vec![actual]);
                self.unit_mut(device).and_then(|u| u.wishes.on_read_back(index, property, &value, equal, now))
            }
            Err(error) => self.unit_mut(device).and_then(|u| u.wishes.on_error(index, property, &error, heard, now)),
        };
        (ended, acks.into_iter().collect())
    }

    /// Corrects what has drifted from an applied value, where the profile says so.
    pub(super) fn watch_drift(&mut self, device: usize, now: u64) {
        let keeping = self.unit(device).filter(|unit| unit.wishes.keeps_any());
        let Some(profile) = keeping.map(|unit| Arc::clone(&unit.device.profile)) else { return };
        let mut drifted = false;
        for (index, property) in profile.properties.iter().enumerate() {
            let kept = self.unit(device).is_some_and(|unit| unit.wishes.keeps(index));
            let Some(actual) = self.unit(device).and_then(|u| u.sample(index)).filter(|_| kept) else { continue };
            if actual.quality != Quality::Good {
                continue;
            }
            let port = &self.port;
            let equal = |wanted: &Value| match (property.write.tolerance, wanted.as_f64(), actual.value.as_f64()) {
                (Some(tolerance), Some(wanted), Some(actual)) => (wanted - actual).abs() <= tolerance,
                _ => port.same(device, index, wanted, &actual.value),
            };
            if let Some(unit) = self.units.get_mut(device).and_then(Option::as_mut) {
                unit.wishes.on_actual(index, property, equal, now);
                drifted = true;
            }
        }
        if drifted {
            self.plan_writes(device);
        }
    }
}
