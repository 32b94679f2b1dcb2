//! What a simulated serial device says, and when: recorded messages with living values in them.
//!
//! In: a serial profile, recordings, what was sent to the device, the time. Out: bytes. Must never answer what the profile
//! does not ask, and never hide that something stays as it was recorded: [`Script::stiff`] says what, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocols::codec::Raw;
use protocols::profile::serial::Mould;
use protocols::profile::{Kind, Profile};
use protocols::value::{Now, Value, from_f64};

use super::fault::{Dice, Fate, Faults};
use super::shape::Shape;

/// Values move in steps of this many milliseconds, so that the messages of one moment tell one state.
const STEP_MS: u64 = 200;
/// STX: what comes before it is said at the first request of a meter, the rest after the agreement on a speed.
const STX: u8 = 0x02;
/// ACK: how that agreement begins.
const ACK: u8 = 0x06;
/// Who a meter says it is where nothing was recorded of that.
const METER: &[u8] = b"/TDG5SIM\r\n";

/// What a device says, and when.
#[derive(Debug)]
pub(super) struct Script {
    profile: Arc<Profile>,
    moulds: Vec<Mould>,
    /// How the numbers move, by property; times are the time.
    shapes: BTreeMap<usize, Shape>,
    /// What was written, by property.
    held: BTreeMap<usize, Raw>,
    /// A meter's own name, as recorded.
    meter: Vec<u8>,
    seed: u64,
    pub(super) faults: Faults,
    dice: Dice,
}

impl Script {
    pub(super) fn new(profile: Arc<Profile>, recordings: &[Vec<u8>], seed: u64) -> Self {
        let moulds = profile.moulds(recordings);
        let mut dice = Dice::new(seed);
        let mut shapes = BTreeMap::new();
        for (index, value) in moulds.iter().flat_map(|mould| &mould.lives) {
            if let (Some(property), Some(number)) = (profile.properties.get(*index), value.as_f64()) {
                shapes.insert(*index, Shape::around(property, number, &mut dice));
            }
        }
        let stx = |recording: &Vec<u8>| recording.iter().position(|byte| *byte == STX);
        let names = recordings.iter().filter_map(|recording| recording.get(..stx(recording)?));
        let meter = names.into_iter().find(|name| name.starts_with(b"/")).unwrap_or(METER).to_vec();
        Self { profile, moulds, shapes, held: BTreeMap::new(), meter, seed, faults: Faults::default(), dice }
    }

    /// Whether there is nothing it can say.
    pub(super) fn is_mute(&self) -> bool {
        !self.moulds.iter().any(|mould| mould.is_pushed) && self.answering().next().is_none()
    }

    /// The requests that are answered.
    fn answering(&self) -> impl Iterator<Item = &str> {
        let has_mould = |message: usize| self.moulds.iter().any(|mould| mould.message == message);
        let requests = self.profile.serial.iter().flat_map(|device| &device.requests);
        requests.filter(move |request| request.answer.is_some_and(has_mould)).map(|request| request.name.as_str())
    }

    /// The properties whose values live.
    pub(super) fn lives(&self) -> Vec<String> {
        let all = self.moulds.iter().flat_map(|mould| &mould.lives);
        let moves = |index: &usize| !matches!(self.shapes.get(index), Some(Shape::Hold(_)));
        let named = |(index, _): &(usize, Value)| Some(self.profile.properties.get(*index)?.name.to_string());
        all.filter(|(index, _)| moves(index)).filter_map(named).collect()
    }

    /// What stays as it was recorded and why, and what is not said at all.
    pub(super) fn stiff(&self) -> Vec<(String, String)> {
        let mut told = Vec::new();
        for (index, why) in self.moulds.iter().flat_map(|mould| &mould.stiff) {
            let Some(property) = self.profile.properties.get(*index) else { continue };
            told.push((property.name.to_string(), why.to_string()));
        }
        for (index, value) in self.moulds.iter().flat_map(|mould| &mould.lives) {
            let (Some(property), Some(Shape::Hold(_))) = (self.profile.properties.get(*index), self.shapes.get(index))
            else {
                continue;
            };
            let why = if property.access.writes() {
                "it is a setting; write it"
            } else if value.as_f64() == Some(0.0) {
                "it was recorded as 0"
            } else {
                "it says who the device is"
            };
            told.push((property.name.to_string(), why.to_owned()));
        }
        if let Some(device) = &self.profile.serial {
            for (index, (message, _)) in device.messages.iter().enumerate() {
                let is_said = self.moulds.iter().any(|mould| mould.message == index);
                if !is_said {
                    let why = "no test of the profile holds one that could be put on a line again";
                    told.push((format!("message {}", message.name), why.to_owned()));
                }
            }
        }
        told
    }

    pub(super) fn fate(&mut self) -> Fate {
        let Self { faults, dice, .. } = self;
        faults.draw(1, dice)
    }

    /// What it says by itself now.
    pub(super) fn say(&self, now: Now) -> Option<Vec<u8>> {
        let pushed = self.moulds.iter().filter(|mould| mould.is_pushed);
        let bytes: Vec<u8> = pushed.filter_map(|mould| self.cast(mould, now)).flatten().collect();
        (!bytes.is_empty()).then_some(bytes)
    }

    /// What it answers to what was sent; `rest` is what a meter says once a speed is agreed on.
    pub(super) fn answer(&mut self, inbox: &mut Vec<u8>, rest: &mut Option<Vec<u8>>, now: Now) -> Option<Vec<u8>> {
        if rest.is_some()
            && let Some(at) = inbox.iter().position(|byte| *byte == ACK)
            && let Some(end) = inbox.iter().skip(at).position(|byte| *byte == b'\n')
        {
            inbox.drain(..=at + end);
            return rest.take();
        }
        let profile = Arc::clone(&self.profile);
        let (number, until, value) = profile.asked(inbox)?;
        inbox.drain(..until);
        if let Some(raw) = value {
            self.held.extend(profile.written_by(number).map(|index| (index, raw.clone())));
        }
        let request = profile.serial.as_ref()?.requests.get(number)?;
        let mould = self.moulds.iter().find(|mould| Some(mould.message) == request.answer)?;
        let answer = self.cast(mould, now)?;
        if request.sign_on.is_none() {
            return Some(answer);
        }
        *rest = Some(answer);
        Some(self.meter.clone())
    }

    /// A message with what its values are now.
    fn cast(&self, mould: &Mould, now: Now) -> Option<Vec<u8>> {
        let step = now.tick / STEP_MS;
        let mut values: Vec<(usize, Raw)> = Vec::new();
        for (index, _) in &mould.lives {
            let Some(property) = self.profile.properties.get(*index) else { continue };
            let Some(visit) = property.source.serial() else { continue };
            let value = match (property.kind, self.shapes.get(index)) {
                (Kind::Datetime, _) => Value::from(now.wall.to_string()),
                (kind, Some(shape)) => {
                    // The same step gives the same value, whatever was asked in between.
                    let mut dice = Dice::new(self.seed ^ (*index as u64) << 32 ^ step);
                    let number = shape.at((step * STEP_MS) as f64 / 1_000.0, &mut dice);
                    if kind == Kind::Int { Value::from(number.round() as i64) } else { from_f64(number) }
                }
                (_, None) => continue,
            };
            values.extend(property.living(visit, &value).ok().map(|raw| (*index, raw)));
        }
        values.extend(self.held.iter().map(|(index, raw)| (*index, raw.clone())));
        mould.cast(&self.profile, &values).ok()
    }
}
