//! Reading the pieces that packets are made of: numbers, strings, binary data, property lists.
//!
//! In: a packet's body. Out: values that borrow from it. Must never read past the end or index by a number it read.

use std::ops::Range;

use super::Fault;

/// Walks through a packet's body.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

const SHORT: Fault = Fault::malformed("the packet ends too early");

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.bytes
    }

    /// Nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Fault::malformed("bytes after the end of the packet")) }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (head, tail) = self.bytes.split_at_checked(length).ok_or(SHORT)?;
        self.bytes = tail;
        Ok(head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Fault> {
        let (&byte, rest) = self.bytes.split_first().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        let (head, rest) = self.bytes.split_first_chunk::<2>().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(u16::from_be_bytes(*head))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        let (head, rest) = self.bytes.split_first_chunk::<4>().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(u32::from_be_bytes(*head))
    }

    /// A packet identifier, which is never 0 [MQTT-2.2.1-3].
    pub(crate) fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.u16()? {
            0 => Err(Fault::malformed("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// A variable byte integer in its shortest form [MQTT-1.5.5-1].
    pub(crate) fn variable(&mut self) -> Result<u32, Fault> {
        let mut value = 0;
        for at in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                if byte == 0 && at > 0 {
                    return Err(Fault::malformed("a variable byte integer that is too long"));
                }
                return Ok(value);
            }
        }
        Err(Fault::malformed("a variable byte integer of more than four bytes"))
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 string without NUL [MQTT-1.5.4-1, MQTT-1.5.4-2].
    pub(crate) fn string(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(Fault::malformed("a string with a NUL character"));
        }
        std::str::from_utf8(bytes).map_err(|_| Fault::malformed("a string that is not UTF-8"))
    }

    /// A property list: its length, then so many bytes.
    pub(crate) fn block(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.variable()?;
        self.take(length as usize)
    }
}

/// A property a client may send (MQTT 5, 2.2.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property<'a> {
    PayloadFormat(u8),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    Correlation(&'a [u8]),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    ProblemInformation(bool),
    WillDelay(u32),
    ResponseInformation(bool),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    User(&'a str, &'a str),
    MaximumPacketSize(u32),
}

const fn set(identifiers: &[u8]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < identifiers.len() {
        bits |= 1 << identifiers[at];
        at += 1;
    }
    bits
}

/// Properties of a PUBLISH from a client; a subscription identifier is none of them [MQTT-3.3.4-6].
pub(crate) const PUBLISH: u64 = set(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26]);
/// Properties of PUBACK, PUBREC, PUBREL and PUBCOMP.
pub(crate) const ACK: u64 = set(&[0x1f, 0x26]);
/// Properties of SUBSCRIBE.
pub(crate) const SUBSCRIBE: u64 = set(&[0x0b, 0x26]);
/// Properties of UNSUBSCRIBE.
pub(crate) const UNSUBSCRIBE: u64 = set(&[0x26]);
/// Properties of DISCONNECT from a client.
pub(crate) const DISCONNECT: u64 = set(&[0x11, 0x1f, 0x26]);
/// Properties of CONNECT.
pub(crate) const CONNECT: u64 = set(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]);
/// Properties of a will.
pub(crate) const WILL: u64 = set(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]);

/// Hands every property of a list to `each`, with the place where it stands in `block`.
///
/// # Errors
/// A property outside `allowed`, twice, cut short, or with a value it must not have; and what `each` says.
pub(crate) fn properties<'a>(
    block: &'a [u8],
    allowed: u64,
    mut each: impl FnMut(Property<'a>, Range<usize>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut reader = Reader::new(block);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let start = block.len() - reader.len();
        // identifiers are variable byte integers; all that exist fit one byte
        let identifier = reader.byte()?;
        let bit = 1u64.checked_shl(u32::from(identifier)).unwrap_or(0);
        if allowed & bit == 0 {
            return Err(Fault::protocol("a property that this packet does not have"));
        }
        if seen & bit != 0 && identifier != 0x26 {
            return Err(Fault::protocol("a property twice"));
        }
        seen |= bit;
        let property = property(identifier, &mut reader)?;
        each(property, start..block.len() - reader.len())?;
    }
    Ok(())
}

fn property<'a>(identifier: u8, reader: &mut Reader<'a>) -> Result<Property<'a>, Fault> {
    const ZERO: Fault = Fault::protocol("a property that must not be 0 is 0");
    let property = match identifier {
        0x01 => Property::PayloadFormat(u8::from(flag(reader.byte()?)?)),
        0x02 => Property::MessageExpiry(reader.u32()?),
        0x03 => Property::ContentType(reader.string()?),
        0x08 => Property::ResponseTopic(reader.string()?),
        0x09 => Property::Correlation(reader.binary()?),
        0x0b => Property::SubscriptionId(reader.variable()?),
        0x11 => Property::SessionExpiry(reader.u32()?),
        0x15 => Property::AuthenticationMethod(reader.string()?),
        0x16 => Property::AuthenticationData(reader.binary()?),
        0x17 => Property::ProblemInformation(flag(reader.byte()?)?),
        0x18 => Property::WillDelay(reader.u32()?),
        0x19 => Property::ResponseInformation(flag(reader.byte()?)?),
        0x1f => Property::ReasonString(reader.string()?),
        0x21 => Property::ReceiveMaximum(reader.u16()?),
        0x22 => Property::TopicAliasMaximum(reader.u16()?),
        0x23 => Property::TopicAlias(reader.u16()?),
        0x26 => Property::User(reader.string()?, reader.string()?),
        0x27 => Property::MaximumPacketSize(reader.u32()?),
        _ => return Err(Fault::protocol("a property that does not exist")),
    };
    match property {
        Property::SubscriptionId(0) | Property::ReceiveMaximum(0) | Property::MaximumPacketSize(0) => Err(ZERO),
        Property::TopicAlias(0) => Err(Fault { reason: 0x94, text: "topic alias 0" }),
        property => Ok(property),
    }
}

fn flag(byte: u8) -> Result<bool, Fault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Fault::protocol("a property that is 0 or 1 is neither")),
    }
}
