//! The codec: bytes of a socket ↔ packets of MQTT 3.1.1 and 5.
//!
//! In: what came from a client, cut at packet borders by [`frame`]. Out: a [`Packet`] that borrows from it, or a
//! [`Fault`] that says how the connection ends. Must never panic, allocate by a number off the wire, or be laxer than
//! the specification.
//!
//! `mqtt-protocol-core` was looked at first. It does not panic on 100,000 mutated packets, but as the codec of a broker
//! it lets through what the specification forbids (a CONNECT with the reserved flag, with a Will QoS of 3 or with bytes
//! after its end; NUL in strings; a SUBSCRIBE with packet identifier 0; a PUBLISH of version 5 without a property
//! length), copies topic, every property and payload of each PUBLISH into allocations of their own, and cannot hand out
//! properties as they stand on the wire. So it is the referee of the tests instead: what this codec accepts it accepts
//! too, and what it writes this codec reads.

pub(super) mod connect;
pub(super) mod read;
#[cfg(test)]
mod tests;
pub(super) mod write;

use std::borrow::Cow;

use read::{Property, Reader, properties};

/// MQTT 3.1.1 calls itself protocol level 4.
pub(super) const V4: u8 = 4;
/// MQTT 5.
pub(super) const V5: u8 = 5;

/// Why a connection must end: a reason code of MQTT 5 and words for the log and the Reason String.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// MQTT 5 reason code.
    pub(super) reason: u8,
    /// What was wrong.
    pub(super) text: &'static str,
}

impl Fault {
    /// 0x81 Malformed Packet.
    pub(super) const fn malformed(text: &'static str) -> Self {
        Self { reason: 0x81, text }
    }

    /// 0x82 Protocol Error.
    pub(super) const fn protocol(text: &'static str) -> Self {
        Self { reason: 0x82, text }
    }
}

/// A PUBLISH as it came.
#[derive(Debug)]
pub(super) struct Publish<'a> {
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Empty only together with an alias.
    pub(super) topic: &'a str,
    /// 0 with QoS 0.
    pub(super) id: u16,
    pub(super) alias: Option<u16>,
    pub(super) expiry_s: Option<u32>,
    pub(super) response_topic: Option<&'a str>,
    pub(super) correlation: Option<&'a [u8]>,
    /// The properties as they stand on the wire, without topic alias and message expiry.
    pub(super) properties: Cow<'a, [u8]>,
    pub(super) payload: &'a [u8],
}

/// The four answers of the QoS flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckKind {
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
}

/// A packet a client may send after its CONNECT.
#[derive(Debug)]
pub(super) enum Packet<'a> {
    Publish(Publish<'a>),
    Ack { kind: AckKind, id: u16, reason: u8 },
    Subscribe { id: u16, subscription_id: Option<u32>, filters: Vec<(&'a str, u8)> },
    Unsubscribe { id: u16, filters: Vec<&'a str> },
    Ping,
    Disconnect { reason: u8, expiry_s: Option<u32> },
}

/// Where a packet ends: first byte, where its body begins, where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) first: u8,
    pub(super) body: usize,
    pub(super) end: usize,
}

/// Finds the first packet of `bytes`; `None` while its header is not complete. A frame whose `end` lies behind the
/// bytes is still on its way — its size is known and checked before anything of it is stored.
///
/// # Errors
/// When the length cannot be read or the packet is larger than `limit_bytes`.
pub(super) fn frame(bytes: &[u8], limit_bytes: u32) -> Result<Option<Frame>, Fault> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut length = 0usize;
    for (at, &byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let end = at + 2 + length;
            if end > limit_bytes as usize {
                return Err(Fault { reason: 0x95, text: "the packet is larger than this broker takes" });
            }
            return Ok(Some(Frame { first, body: at + 2, end }));
        }
    }
    if rest.len() >= 4 { Err(Fault::malformed("the remaining length has more than four bytes")) } else { Ok(None) }
}

/// Reads the packet that `first` and `body` make.
///
/// # Errors
/// Whatever the specification calls malformed or a protocol error.
pub(super) fn decode<'a>(first: u8, body: &'a [u8], version: u8) -> Result<Packet<'a>, Fault> {
    let flags = first & 0x0f;
    let kind = first >> 4;
    let wanted = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
    if kind != 3 && flags != wanted {
        return Err(Fault::malformed("reserved flags of the fixed header are set"));
    }
    let mut reader = Reader::new(body);
    let packet = match kind {
        1 => return Err(Fault::protocol("a second CONNECT")),
        3 => return publish(flags, reader, version),
        4 => ack(AckKind::Puback, &mut reader, version)?,
        5 => ack(AckKind::Pubrec, &mut reader, version)?,
        6 => ack(AckKind::Pubrel, &mut reader, version)?,
        7 => ack(AckKind::Pubcomp, &mut reader, version)?,
        8 => subscribe(&mut reader, version)?,
        10 => unsubscribe(&mut reader, version)?,
        12 => Packet::Ping,
        14 => disconnect(&mut reader, version)?,
        15 if version == V5 => return Err(Fault::protocol("an AUTH without enhanced authentication")),
        _ => return Err(Fault::protocol("a packet that clients do not send")),
    };
    reader.finish()?;
    Ok(packet)
}

fn publish(flags: u8, mut reader: Reader<'_>, version: u8) -> Result<Packet<'_>, Fault> {
    let qos = flags >> 1 & 3;
    if qos == 3 {
        return Err(Fault::malformed("a PUBLISH with QoS 3"));
    }
    if qos == 0 && flags & 8 != 0 {
        return Err(Fault::malformed("a PUBLISH with QoS 0 and DUP"));
    }
    let topic = reader.string()?;
    let id = if qos > 0 { reader.packet_id()? } else { 0 };
    let mut publish = Publish {
        qos,
        retain: flags & 1 != 0,
        topic,
        id,
        alias: None,
        expiry_s: None,
        response_topic: None,
        correlation: None,
        properties: Cow::Borrowed(&[]),
        payload: &[],
    };
    if version == V5 {
        publish_properties(&mut publish, reader.block()?)?;
    }
    if topic.contains(['+', '#']) {
        return Err(Fault { reason: 0x90, text: "a topic name with a wildcard" });
    }
    if topic.is_empty() && publish.alias.is_none() {
        return Err(Fault::protocol("an empty topic name"));
    }
    publish.payload = reader.rest();
    Ok(Packet::Publish(publish))
}

fn publish_properties<'a>(publish: &mut Publish<'a>, block: &'a [u8]) -> Result<(), Fault> {
    if block.is_empty() {
        return Ok(());
    }
    // what goes on to subscribers is copied only if something has to be left out
    let mut kept: Option<Vec<u8>> = None;
    properties(block, read::PUBLISH, |property, raw| {
        let mut leave_out = false;
        match property {
            Property::TopicAlias(alias) => {
                publish.alias = Some(alias);
                leave_out = true;
            }
            Property::MessageExpiry(seconds) => {
                publish.expiry_s = Some(seconds);
                leave_out = true;
            }
            Property::ResponseTopic(topic) if topic.is_empty() || topic.contains(['+', '#']) => {
                return Err(Fault::protocol("a response topic with a wildcard"));
            }
            Property::ResponseTopic(topic) => publish.response_topic = Some(topic),
            Property::Correlation(data) => publish.correlation = Some(data),
            _ => {}
        }
        if leave_out && kept.is_none() {
            kept = Some(block.get(..raw.start).unwrap_or_default().to_vec());
        } else if !leave_out && let Some(kept) = &mut kept {
            kept.extend_from_slice(block.get(raw).unwrap_or_default());
        }
        Ok(())
    })?;
    publish.properties = kept.map_or(Cow::Borrowed(block), Cow::Owned);
    Ok(())
}

fn ack<'a>(kind: AckKind, reader: &mut Reader<'a>, version: u8) -> Result<Packet<'a>, Fault> {
    let id = reader.packet_id()?;
    let mut reason = 0;
    if version == V5 && !reader.is_empty() {
        reason = reader.byte()?;
        let known: &[u8] = match kind {
            AckKind::Puback | AckKind::Pubrec => &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
            AckKind::Pubrel | AckKind::Pubcomp => &[0, 0x92],
        };
        if !known.contains(&reason) {
            return Err(Fault::malformed("a reason code that this packet does not have"));
        }
        if !reader.is_empty() {
            properties(reader.block()?, read::ACK, |_, _| Ok(()))?;
        }
    }
    Ok(Packet::Ack { kind, id, reason })
}

fn subscribe<'a>(reader: &mut Reader<'a>, version: u8) -> Result<Packet<'a>, Fault> {
    let id = reader.packet_id()?;
    let mut subscription_id = None;
    if version == V5 {
        properties(reader.block()?, read::SUBSCRIBE, |property, _| {
            if let Property::SubscriptionId(id) = property {
                subscription_id = Some(id);
            }
            Ok(())
        })?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let filter = reader.string()?;
        let options = reader.byte()?;
        let allowed = if version == V5 { 0x3f } else { 0x03 };
        if options & !allowed != 0 || options & 3 == 3 || options >> 4 == 3 {
            return Err(Fault::malformed("reserved subscription options are set"));
        }
        if options & 4 != 0 && filter.starts_with("$share/") {
            return Err(Fault::protocol("no local on a shared subscription"));
        }
        filters.push((filter, options));
    }
    if filters.is_empty() {
        return Err(Fault::protocol("a SUBSCRIBE without a filter"));
    }
    Ok(Packet::Subscribe { id, subscription_id, filters })
}

fn unsubscribe<'a>(reader: &mut Reader<'a>, version: u8) -> Result<Packet<'a>, Fault> {
    let id = reader.packet_id()?;
    if version == V5 {
        properties(reader.block()?, read::UNSUBSCRIBE, |_, _| Ok(()))?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(reader.string()?);
    }
    if filters.is_empty() {
        return Err(Fault::protocol("an UNSUBSCRIBE without a filter"));
    }
    Ok(Packet::Unsubscribe { id, filters })
}

fn disconnect<'a>(reader: &mut Reader<'a>, version: u8) -> Result<Packet<'a>, Fault> {
    let mut reason = 0;
    let mut expiry_s = None;
    if version == V5 && !reader.is_empty() {
        reason = reader.byte()?;
        let known = [0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
        if !known.contains(&reason) {
            return Err(Fault::malformed("a reason code that clients do not send in DISCONNECT"));
        }
        if !reader.is_empty() {
            properties(reader.block()?, read::DISCONNECT, |property, _| {
                if let Property::SessionExpiry(seconds) = property {
                    expiry_s = Some(seconds);
                }
                Ok(())
            })?;
        }
    }
    Ok(Packet::Disconnect { reason, expiry_s })
}
