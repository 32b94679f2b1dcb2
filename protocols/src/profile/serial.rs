//! How a serial device is spoken to: what its profile says, and what its messages say of its properties.
//!
//! In: the `serial:` section and the `from: {serial: …}` of properties; whole messages. Out: a [`Device`] as it was meant;
//! values with their quality; requests as bytes. Must never read a message another way in a golden test than on a line.

mod build;
mod cast;
#[cfg(test)]
mod cast_tests;
pub(super) mod golden;
mod pick;
pub(super) mod raw;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{Profile, Property, SerialLine};
use crate::expr::{Expression, Scope, Window};
use crate::serial::checksum::Check;
pub use crate::serial::compose::Unwritable;
pub use crate::serial::extract::Visit;
use crate::serial::extract::{Got, Message, Parsed, text_of};
use crate::serial::frame::{Framer, Framing};
use crate::serial::template::Template;
use crate::value::{Quality, Value, Why};

pub(super) use build::conditions;
pub use cast::Mould;
pub use golden::{Piece, stream};

/// How a serial device that does not speak Modbus is spoken to.
#[derive(Debug)]
pub struct Device {
    /// The line settings the model is delivered with.
    pub line: SerialLine,
    /// How messages are told apart.
    pub framing: Framing,
    /// How a message is proved whole.
    pub check: Option<Check>,
    /// The kinds of messages, and the condition under which one holds values.
    pub messages: Vec<(Message, Option<Expression>)>,
    /// What can be asked.
    pub requests: Vec<Request>,
    /// Sent when the line was opened, in order.
    pub on_open: Vec<Greeting>,
    /// Without a message for this time the device is away.
    pub silence: Option<Duration>,
}

/// Something that can be asked or told.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// What is sent.
    pub tx: Template,
    /// Index of the message that answers; none when the device says nothing.
    pub answer: Option<usize>,
    /// Index of the message that refuses.
    pub refusal: Option<usize>,
    /// How long the answer may take; the connection's when absent.
    pub timeout: Option<Duration>,
    /// Tries after the first.
    pub retries: u32,
    /// Quiet time after it.
    pub settle: Duration,
    /// The answer comes after the sign-on of IEC 62056-21 mode C, at no more than so many bits a second.
    pub sign_on: Option<u32>,
}

/// Something sent when the line was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// Quiet time after it.
    pub delay: Duration,
}

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// Indexes of the messages it is; none when the profile knows none like it.
    pub messages: Vec<usize>,
    /// Properties with their values.
    pub values: Vec<(usize, Value, Quality)>,
}

impl Device {
    /// Tells this device's messages apart.
    pub fn framer(&self) -> Framer {
        Framer::new(self.framing.clone(), self.check.clone())
    }

    /// The bytes of a request.
    ///
    /// # Errors
    /// What is wrong with the value, for the one who asked.
    pub fn bytes_of(&self, request: &Request) -> Result<Vec<u8>, String> {
        request.tx.render(None, self.check.as_ref(), &self.framing.end)
    }
}

impl Profile {
    /// What a message says of the properties. Nothing for a profile that is not a serial one.
    pub fn hear(&self, message: &[u8]) -> Heard {
        let mut heard = Heard::default();
        let Some(device) = &self.serial else { return heard };
        let text = text_of(message);
        for (index, (kind, accept)) in device.messages.iter().enumerate() {
            let Some(parsed) = kind.parse(message, &text) else { continue };
            heard.messages.push(index);
            // A condition that cannot be worked out does not hold: the message lacks what it names.
            let is_accepted = accept.as_ref().is_none_or(|accept| accept.holds(&Fields(&parsed)).unwrap_or(false));
            for (number, property) in self.properties.iter().enumerate() {
                let Some(visit) = property.source.serial().filter(|visit| visit.message == index) else { continue };
                if !property.access.reads() {
                    continue;
                }
                let value = if is_accepted {
                    property.said_in(visit, &parsed)
                } else {
                    Some((Value::Null, Quality::Bad(Why::Sentinel)))
                };
                heard.values.extend(value.map(|(value, quality)| (number, value, quality)));
            }
        }
        heard
    }
}

impl Property {
    /// The value a message holds; nothing when the message does not speak of it.
    fn said_in(&self, visit: &Visit, parsed: &Parsed<'_>) -> Option<(Value, Quality)> {
        let is_nothing = |text: &str| self.invalid.iter().any(|word| word.as_str() == Some(text));
        let bad = |why| Some((Value::Null, Quality::Bad(why)));
        match visit.read(parsed, &is_nothing) {
            Got::Absent => None,
            Got::Nothing => bad(Why::Sentinel),
            Got::Wrong => bad(Why::Decode),
            Got::Raw(raw) => Some(self.from_raw(raw, &visit.layout())),
            Got::Value(value) => Some((value, Quality::Good)),
        }
    }

    /// The bytes that write a value, in the form in which it is kept.
    ///
    /// # Errors
    /// What is wrong with the value, for the one who asked.
    pub fn serial_request(&self, value: &Value, device: &Device) -> Result<Vec<u8>, String> {
        let write = self.source.serial().and_then(|visit| visit.write.as_ref()).ok_or("is read-only")?;
        let raw = self.raw_for_text(value)?;
        write.tx.render(Some(&raw), device.check.as_ref(), &device.framing.end)
    }

    /// As [`Property::serial_request`], without the check: enough to know whether a value can be sent, and whether two
    /// are the same to the device.
    pub(super) fn serial_form(&self, value: &Value) -> Result<Vec<u8>, String> {
        let visit = self.source.serial().ok_or("is read-only")?;
        let write = visit.write.as_ref().ok_or("is read-only")?;
        write.tx.render_value(&self.raw_for_text(value)?)
    }

    fn raw_for_text(&self, value: &Value) -> Result<crate::codec::Raw, String> {
        let map = self.source.serial().map(|visit| visit.map.as_slice()).unwrap_or_default();
        if let Some((word, _)) = map.iter().find(|(_, mapped)| crate::value::same(mapped, value)) {
            return Ok(crate::codec::Raw::Text(word.clone()));
        }
        self.raw_value(value)
    }
}

/// What the condition of a message sees.
struct Fields<'a>(&'a Parsed<'a>);

impl Scope for Fields<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        self.0.named(name)
    }

    fn quality(&self, name: &str) -> Option<Quality> {
        self.0.named(name).map(|_| Quality::Good)
    }

    fn age_ms(&self, _: &str) -> Option<u64> {
        None
    }

    fn window(&self, _: &str, _: u64) -> Option<Window> {
        None
    }

    fn previous(&self, _: &str) -> Option<Value> {
        None
    }
}
