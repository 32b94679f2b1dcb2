//! One retained message as it rests: everything of it in one piece of memory.
//!
//! In: a message. Out: the same message. Must never hold much more memory than the message has bytes.
//!
//! ```text
//! record := stamp:u64 at_ms:i64 flags topic_length:u16 [more] topic properties payload      (little endian)
//! flags  := QoS (low 2 bits) | 4 kept on the shelf | 8 more follows | 16 it expires
//! more   := author:u64 expires_ms:i64 properties_length:u32
//! ```

use crate::broker::message::{GATEWAY, Message, OVERHEAD_BYTES};

/// Bytes of a record before its topic, without and with `more`.
const SHORT_BYTES: usize = 19;
const LONG_BYTES: usize = SHORT_BYTES + 20;

/// Bytes that a record may hold beyond what it needs, besides as much again, before it gives them back.
const SLACK_BYTES: usize = 64;

const KEPT: u8 = 4;
const MORE: u8 = 8;
const EXPIRES: u8 = 16;

/// See the module. The default one is empty and no message.
#[derive(Debug, Default)]
pub(super) struct Record(Vec<u8>);

impl Record {
    /// Takes this message in place of what was there.
    pub(super) fn put(&mut self, message: &Message) {
        let properties = message.properties();
        let more = message.author != GATEWAY || message.expires_ms.is_some() || !properties.is_empty();
        let needed = if more { LONG_BYTES } else { SHORT_BYTES } + message.length_bytes();
        self.0.clear();
        if self.0.capacity() > 2 * needed + SLACK_BYTES {
            self.0 = Vec::new();
        }
        self.0.reserve_exact(needed);
        let mut flags = message.qos & 3;
        flags |= if message.kept { KEPT } else { 0 };
        flags |= if more { MORE } else { 0 };
        flags |= if message.expires_ms.is_some() { EXPIRES } else { 0 };
        let topic = message.topic_bytes();
        self.0.extend_from_slice(&message.stamp.to_le_bytes());
        self.0.extend_from_slice(&message.at_ms.to_le_bytes());
        self.0.push(flags);
        // MQTT has no longer ones
        self.0.extend_from_slice(&(topic.len() as u16).to_le_bytes());
        if more {
            self.0.extend_from_slice(&message.author.to_le_bytes());
            self.0.extend_from_slice(&message.expires_ms.unwrap_or_default().to_le_bytes());
            self.0.extend_from_slice(&(properties.len() as u32).to_le_bytes());
        }
        for part in [topic, properties, message.payload()] {
            self.0.extend_from_slice(part);
        }
    }

    /// The message.
    pub(super) fn message(&self) -> Message {
        let (topic, rest) = self.rest().split_at(self.topic_length().min(self.rest().len()));
        let (properties, payload) = rest.split_at(self.properties_length().min(rest.len()));
        let mut message = Message::new(std::str::from_utf8(topic).unwrap_or_default(), properties, payload);
        message.qos = self.flags() & 3;
        message.retain = true;
        message.kept = self.is_kept();
        message.author = if self.has(MORE) { u64::from_le_bytes(self.bytes(SHORT_BYTES)) } else { GATEWAY };
        message.expires_ms = self.expires_ms();
        message.at_ms = i64::from_le_bytes(self.bytes(8));
        message.stamp = self.stamp();
        message
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn topic(&self) -> &[u8] {
        self.rest().get(..self.topic_length()).unwrap_or_default()
    }

    pub(super) fn stamp(&self) -> u64 {
        u64::from_le_bytes(self.bytes(0))
    }

    /// Whether it is on the shelf.
    pub(super) fn is_kept(&self) -> bool {
        self.has(KEPT)
    }

    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms().is_some_and(|at| at <= now_ms)
    }

    /// As [`Message::weight_bytes`] has it.
    pub(super) fn weight_bytes(&self) -> usize {
        self.rest().len() + OVERHEAD_BYTES
    }

    fn expires_ms(&self) -> Option<i64> {
        self.has(EXPIRES).then(|| i64::from_le_bytes(self.bytes(SHORT_BYTES + 8)))
    }

    fn properties_length(&self) -> usize {
        if self.has(MORE) { u32::from_le_bytes(self.bytes(SHORT_BYTES + 16)) as usize } else { 0 }
    }

    fn topic_length(&self) -> usize {
        u16::from_le_bytes(self.bytes(17)).into()
    }

    /// Topic, properties and payload.
    fn rest(&self) -> &[u8] {
        self.0.get(if self.has(MORE) { LONG_BYTES } else { SHORT_BYTES }..).unwrap_or_default()
    }

    fn flags(&self) -> u8 {
        self.0.get(16).copied().unwrap_or_default()
    }

    fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    /// Some bytes of the head; zeros of an empty record.
    fn bytes<const COUNT: usize>(&self, at: usize) -> [u8; COUNT] {
        self.0.get(at..at + COUNT).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; COUNT])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_out_of_its_record_as_it_went_in() {
        let mut record = Record::default();
        for (properties, payload, author, expires_ms, kept) in [
            (&[][..], &b"12"[..], GATEWAY, None, false),
            (&[0x26, 0, 1, b'a', 0, 1, b'b'], b"{}", 7, Some(-5), true),
            (&[], b"", 0x0102_0304_0506_0708, None, false),
            (&[], &[0; 70_000], GATEWAY, Some(i64::MAX), true),
            (&[], b"short again", GATEWAY, None, true),
        ] {
            let mut message = Message::new("twin/\u{e9}/reported/a", properties, payload);
            (message.qos, message.retain, message.kept, message.author) = (2, true, kept, author);
            (message.expires_ms, message.at_ms, message.stamp) = (expires_ms, 1_763_813_045_120, u64::MAX - 1);
            record.put(&message);
            assert_eq!(format!("{:?}", record.message()), format!("{message:?}"));
            assert_eq!(record.topic(), message.topic_bytes());
            assert_eq!((record.stamp(), record.is_kept()), (message.stamp, kept));
            assert_eq!(record.weight_bytes(), message.weight_bytes());
            for now_ms in [-6, -5, 0, i64::MAX] {
                assert_eq!(record.is_expired(now_ms), message.is_expired(now_ms));
            }
            assert!(record.0.capacity() <= 2 * record.0.len() + SLACK_BYTES, "{} bytes", record.0.capacity());
        }
        assert!(Record::default().is_empty() && Record::default().topic().is_empty());
    }
}
