//! A device that is not there, in messages like those of a real one: recorded messages as moulds, other values cast in them.
//!
//! In: a serial profile, what a device of it was recorded to say, values. Out: bytes for the line that the same profile reads
//! as those values; and for every property that stays as it was recorded, why. Must never send what its own profile reads as
//! something else, nor claim that a value lives which does not.

use super::{Device, Heard};
use crate::codec::Raw;
use crate::profile::{Kind, Profile, Property};
use crate::serial::compose::Unwritable;
use crate::serial::extract::{Parse, Visit, text_of};
use crate::value::Value;

/// A recorded message in which others of its kind are cast.
#[derive(Clone, Debug)]
pub struct Mould {
    /// Index of the message in [`Device::messages`].
    pub message: usize,
    /// Whether it holds values that no request asks for.
    pub is_pushed: bool,
    /// Numbers and times that can be others: index of the property, and what was recorded.
    pub lives: Vec<(usize, Value)>,
    /// Properties that stay as they were recorded unless somebody writes them: index, and why.
    pub stiff: Vec<(usize, Unwritable)>,
    bytes: Vec<u8>,
}

/// What was recorded of one kind of message.
struct Found {
    bytes: Vec<u8>,
    heard: Heard,
    good: usize,
}

impl Profile {
    /// The moulds of a serial device, one for each kind of message that was recorded; of several the one that says most.
    pub fn moulds(&self, recordings: &[Vec<u8>]) -> Vec<Mould> {
        let Some(device) = &self.serial else { return Vec::new() };
        let mut best: Vec<Option<Found>> = device.messages.iter().map(|_| None).collect();
        for recording in recordings {
            let (mut framer, mut frames) = (device.framer(), Vec::new());
            framer.feed(recording, &mut frames);
            framer.on_quiet(&mut frames);
            for frame in frames {
                let heard = self.hear(&frame.bytes);
                for message in &heard.messages {
                    let of_message = |index: usize| self.visit_of(index).is_some_and(|visit| visit.message == *message);
                    let good =
                        heard.values.iter().filter(|(index, _, quality)| of_message(*index) && !quality.is_bad());
                    let good = good.count();
                    let Some(slot) = best.get_mut(*message) else { continue };
                    if slot.as_ref().is_none_or(|found| found.good < good) {
                        *slot = Some(Found { bytes: frame.bytes.clone(), heard: heard.clone(), good });
                    }
                }
            }
        }
        let found = best.into_iter().enumerate().filter_map(|(message, found)| Some((message, found?)));
        found.filter_map(|(message, found)| self.mould(device, message, found)).collect()
    }

    fn visit_of(&self, index: usize) -> Option<&Visit> {
        self.properties.get(index)?.source.serial()
    }

    fn mould(&self, device: &Device, message: usize, found: Found) -> Option<Mould> {
        let of_message = |index: usize| self.visit_of(index).is_some_and(|visit| visit.message == message);
        let own = found.heard.values.into_iter().filter(|(index, ..)| of_message(*index));
        let (kind, _) = device.messages.get(message)?;
        let mut mould = Mould { message, is_pushed: false, lives: Vec::new(), stiff: Vec::new(), bytes: found.bytes };
        let whole = mould.cast(self, &[]).map(|line| self.reread(device, &line));
        let is_whole = matches!(&whole, Ok(Some(heard)) if heard.messages.contains(&message));
        for (index, value, quality) in own {
            let (Some(property), Some(visit)) = (self.properties.get(index), self.visit_of(index)) else { continue };
            mould.is_pushed |= property.source.is_pushed() && !quality.is_bad();
            let refused = match (&whole, is_whole) {
                (Err(why), _) => Some(why.clone()),
                (_, false) => Some(Unwritable::Construct("this way of framing")),
                _ if quality.is_bad() => Some(Unwritable::Nothing),
                _ => match property.living(visit, &value) {
                    Err(why) => Some(why),
                    Ok(raw) => {
                        let again = visit.put(kind, &mould.bytes, &raw).map(|bytes| said(self, &bytes, index));
                        match again {
                            Ok(Some(again)) if crate::value::same(&again, &value) => None,
                            Ok(_) => Some(Unwritable::Construct("the way the value is read")),
                            Err(why) => Some(why),
                        }
                    }
                },
            };
            match refused {
                None => mould.lives.push((index, value)),
                Some(why) => mould.stiff.push((index, why)),
            }
        }
        (is_whole || whole.is_ok()).then_some(mould)
    }

    /// What the profile makes of bytes on the line.
    fn reread(&self, device: &Device, line: &[u8]) -> Option<Heard> {
        let (mut framer, mut frames) = (device.framer(), Vec::new());
        framer.feed(line, &mut frames);
        framer.on_quiet(&mut frames);
        match frames.as_slice() {
            [one] => Some(self.hear(&one.bytes)),
            _ => None,
        }
    }

    /// The request a device was sent, if it is one: its index, the bytes up to its end, and the value it carries.
    pub fn asked(&self, sent: &[u8]) -> Option<(usize, usize, Option<Raw>)> {
        let device = self.serial.as_ref()?;
        let check = device.check.as_ref();
        (0..sent.len()).find_map(|at| {
            let rest = sent.get(at..)?;
            let read = |(index, request): (usize, &super::Request)| {
                let (length, value) = request.tx.read(rest, check)?;
                // A request with a wrong check was never understood by any device.
                let own = request.tx.render(value.as_ref(), check, &device.framing.end).ok()?;
                let is_same = !request.tx.takes_check() || rest.get(..length) == Some(own.as_slice());
                is_same.then_some((index, at + length, value))
            };
            // A request that is nothing but a value would take every other for itself.
            let (open, fixed): (Vec<_>, Vec<_>) =
                device.requests.iter().enumerate().partition(|(_, request)| request.tx.takes_value());
            fixed.into_iter().chain(open).find_map(read)
        })
    }

    /// The properties a request writes.
    pub fn written_by(&self, request: usize) -> impl Iterator<Item = usize> {
        let writes = move |visit: &Visit| visit.write.as_ref().is_some_and(|write| write.request == request);
        let all = self.properties.iter().enumerate();
        all.filter(move |(_, property)| property.source.serial().is_some_and(writes)).map(|(index, _)| index)
    }
}

fn said(profile: &Profile, bytes: &[u8], index: usize) -> Option<Value> {
    let heard = profile.hear(bytes).values.into_iter();
    { heard }.find(|(own, _, quality)| *own == index && !quality.is_bad()).map(|(_, value, _)| value)
}

impl Property {
    /// The raw form of a value that is to live in a serial message.
    ///
    /// # Errors
    /// [`Unwritable::Text`] for what is no number and no time.
    pub fn living(&self, visit: &Visit, value: &Value) -> Result<Raw, Unwritable> {
        match (self.kind, value) {
            (Kind::Int | Kind::Number, Value::Number(_)) if visit.map.is_empty() => {
                self.raw_value(value).map_err(|_| Unwritable::Room)
            }
            (Kind::Datetime, Value::String(text)) if matches!(visit.parse, Parse::Date(_)) => {
                Ok(Raw::Text(text.clone()))
            }
            _ => Err(Unwritable::Text),
        }
    }
}

impl Mould {
    /// The bytes of a message with these values: index of the property, and its raw value. What has no place in the message
    /// is left as it was recorded.
    ///
    /// # Errors
    /// [`Unwritable`] when the message cannot be put on a line at all.
    pub fn cast(&self, profile: &Profile, values: &[(usize, Raw)]) -> Result<Vec<u8>, Unwritable> {
        let device = profile.serial.as_ref().ok_or(Unwritable::Nothing)?;
        let (kind, _) = device.messages.get(self.message).ok_or(Unwritable::Nothing)?;
        let mut bytes = self.bytes.clone();
        for (index, raw) in values {
            let visit = profile.visit_of(*index).filter(|visit| visit.message == self.message);
            if let Some(changed) = visit.and_then(|visit| visit.put(kind, &bytes, raw).ok())
                && kind.parse(&changed, &text_of(&changed)).is_some()
            {
                bytes = changed;
            }
        }
        device.framing.wrap(&bytes, device.check.as_ref())
    }
}
