//! Writing the packets a server sends.
//!
//! In: what to say. Out: bytes at the end of a buffer. Must never write a packet whose length does not fit.

use super::{AckKind, V5};
use crate::broker::message::Message;

/// Appends a variable byte integer.
pub(crate) fn variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// How many bytes [`variable`] takes.
pub(crate) const fn variable_length(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Appends a string or binary data; what is longer than the 65,535 bytes that fit is cut at a character.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    binary(out, text.as_bytes().get(..end).unwrap_or_default());
}

/// Appends binary data; what is longer than the 65,535 bytes that fit is cut.
pub(crate) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes);
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A topic alias towards a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alias {
    pub(crate) number: u16,
    /// The client knows it already, the topic itself is left out.
    pub(crate) known: bool,
}

/// How one client gets a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery<'a> {
    pub(crate) version: u8,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// Packet identifier, with QoS 1 and 2.
    pub(crate) id: u16,
    pub(crate) subscription_ids: &'a [u32],
    /// What is left of the message's life, in seconds.
    pub(crate) expiry_s: Option<u32>,
    pub(crate) alias: Option<Alias>,
}

impl Delivery<'_> {
    fn properties_length(&self, message: &Message) -> usize {
        let ids: usize = self.subscription_ids.iter().map(|&id| 1 + variable_length(id as usize)).sum();
        message.properties().len()
            + ids
            + if self.expiry_s.is_some() { 5 } else { 0 }
            + if self.alias.is_some() { 3 } else { 0 }
    }

    fn body_length(&self, message: &Message) -> usize {
        let known = self.alias.is_some_and(|alias| alias.known);
        let mut length = 2 + message.payload().len();
        if !known {
            length += message.topic_bytes().len();
        }
        if self.qos > 0 {
            length += 2;
        }
        if self.version == V5 {
            let properties = self.properties_length(message);
            length += variable_length(properties) + properties;
        }
        length
    }

    /// The packet's size in bytes.
    pub(crate) fn length(&self, message: &Message) -> usize {
        let body = self.body_length(message);
        1 + variable_length(body) + body
    }

    /// Appends the PUBLISH.
    pub(crate) fn write(&self, out: &mut Vec<u8>, message: &Message) {
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        out.push(first);
        variable(out, self.body_length(message));
        match self.alias {
            Some(Alias { known: true, .. }) => out.extend_from_slice(&[0, 0]),
            _ => binary(out, message.topic_bytes()),
        }
        if self.qos > 0 {
            out.extend_from_slice(&self.id.to_be_bytes());
        }
        if self.version == V5 {
            variable(out, self.properties_length(message));
            if let Some(seconds) = self.expiry_s {
                out.push(0x02);
                out.extend_from_slice(&seconds.to_be_bytes());
            }
            if let Some(alias) = self.alias {
                out.push(0x23);
                out.extend_from_slice(&alias.number.to_be_bytes());
            }
            for &id in self.subscription_ids {
                out.push(0x0b);
                variable(out, id as usize);
            }
            out.extend_from_slice(message.properties());
        }
        out.extend_from_slice(message.payload());
    }
}

/// Who reads an answer, and how much of it is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) version: u8,
    /// Whether reason strings are wanted (Request Problem Information).
    pub(crate) reasons: bool,
    /// The largest packet it takes, in bytes.
    pub(crate) maximum_bytes: u32,
}

impl Reader {
    /// A reason string property, if it is wanted and fits beside `other` bytes [MQTT-3.4.2-2].
    fn reason(self, text: &str, other: usize) -> Vec<u8> {
        let mut properties = Vec::new();
        if self.reasons && !text.is_empty() && other + text.len() + 8 <= self.maximum_bytes as usize {
            properties.push(0x1f);
            string(&mut properties, text);
        }
        properties
    }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn ack(out: &mut Vec<u8>, reader: Reader, kind: AckKind, id: u16, reason: u8, text: &str) {
    let first = (kind as u8) << 4 | if kind == AckKind::Pubrel { 2 } else { 0 };
    out.push(first);
    if reader.version != V5 || reason == 0 {
        out.push(2);
        out.extend_from_slice(&id.to_be_bytes());
        return;
    }
    let properties = reader.reason(text, 8);
    if properties.is_empty() {
        out.push(3);
        out.extend_from_slice(&id.to_be_bytes());
        out.push(reason);
        return;
    }
    variable(out, 3 + variable_length(properties.len()) + properties.len());
    out.extend_from_slice(&id.to_be_bytes());
    out.push(reason);
    variable(out, properties.len());
    out.extend_from_slice(&properties);
}

/// Appends SUBACK (`first` 0x90) or UNSUBACK (0xb0); `codes` are left out where 3.1.1 has none.
pub(crate) fn codes(out: &mut Vec<u8>, version: u8, first: u8, id: u16, codes: &[u8]) {
    let codes = if version != V5 && first == 0xb0 { &[] } else { codes };
    out.push(first);
    variable(out, 2 + usize::from(version == V5) + codes.len());
    out.extend_from_slice(&id.to_be_bytes());
    if version == V5 {
        out.push(0);
    }
    out.extend_from_slice(codes);
}

/// Appends a DISCONNECT of version 5.
pub(crate) fn disconnect(out: &mut Vec<u8>, reader: Reader, reason: u8, text: &str) {
    let properties = reader.reason(text, 8);
    out.push(0xe0);
    variable(out, 1 + variable_length(properties.len()) + properties.len());
    out.push(reason);
    variable(out, properties.len());
    out.extend_from_slice(&properties);
}

/// What the broker tells a client it takes in (version 5).
#[derive(Clone, Debug, Default)]
pub(crate) struct Welcome {
    pub(crate) assigned_client_id: Option<String>,
    pub(crate) keep_alive_s: Option<u16>,
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
}

/// Appends the CONNACK of success.
pub(crate) fn welcome(out: &mut Vec<u8>, version: u8, session_present: bool, welcome: &Welcome) {
    out.push(0x20);
    if version != V5 {
        out.extend_from_slice(&[2, u8::from(session_present), 0]);
        return;
    }
    let mut properties = vec![0x21];
    properties.extend_from_slice(&welcome.receive_maximum.to_be_bytes());
    properties.push(0x27);
    properties.extend_from_slice(&welcome.maximum_packet_size.to_be_bytes());
    properties.push(0x22);
    properties.extend_from_slice(&welcome.topic_alias_maximum.to_be_bytes());
    if let Some(seconds) = welcome.keep_alive_s {
        properties.push(0x13);
        properties.extend_from_slice(&seconds.to_be_bytes());
    }
    if let Some(id) = &welcome.assigned_client_id {
        properties.push(0x12);
        string(&mut properties, id);
    }
    variable(out, 2 + variable_length(properties.len()) + properties.len());
    out.extend_from_slice(&[u8::from(session_present), 0]);
    variable(out, properties.len());
    out.extend_from_slice(&properties);
}

/// Appends the CONNACK of refusal: `reason` is an MQTT 5 reason code, said in the words of the client's version.
pub(crate) fn refusal(out: &mut Vec<u8>, reader: Reader, reason: u8, text: &str) {
    out.push(0x20);
    if reader.version != V5 {
        let code = match reason {
            0x84 => 1,
            0x85 => 2,
            0x86 | 0x8c => 4,
            0x87 | 0x8a => 5,
            _ => 3,
        };
        out.extend_from_slice(&[2, 0, code]);
        return;
    }
    let properties = reader.reason(text, 8);
    variable(out, 2 + variable_length(properties.len()) + properties.len());
    out.extend_from_slice(&[0, reason]);
    variable(out, properties.len());
    out.extend_from_slice(&properties);
}
