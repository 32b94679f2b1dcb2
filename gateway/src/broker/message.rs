//! A message on its way through the broker: one allocation, shared by everybody who gets it.
//!
//! In: a PUBLISH, a will, a kept message or the gateway's own words. Out: topic, properties and payload. Must never
//! hold on to the buffer of a socket: a waiting message costs what it weighs.

use bytes::Bytes;

use super::Word;
use super::codec::write;
use super::shelf::Kept;

/// What a waiting message costs besides its bytes; reckoned into every bound that is in bytes.
pub(super) const OVERHEAD_BYTES: usize = 128;

/// The gateway itself as an author; sessions count from 1.
pub(super) const GATEWAY: u64 = 0;

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Topic, properties, payload, one behind the other.
    bytes: Box<[u8]>,
    topic_length: u32,
    properties_length: u32,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Belongs on the shelf where it is retained or waits.
    pub(super) kept: bool,
    /// Session that published it; for No Local.
    pub(super) author: u64,
    pub(super) expires_ms: Option<i64>,
    pub(super) at_ms: i64,
    /// Rises with every retained message; 0 until it is retained.
    pub(super) stamp: u64,
}

impl Message {
    /// Puts a message together; `properties` are MQTT 5 properties as they stand on the wire.
    pub(super) fn new(topic: &str, properties: &[u8], payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(topic.len() + properties.len() + payload.len());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(payload);
        Self::of(bytes.into(), topic.len(), properties.len())
    }

    /// The gateway's own word. One without properties is taken over as it is.
    pub(super) fn of_word(word: Word) -> Self {
        if let Some(correlation) = &word.correlation {
            let properties = own_properties(None, Some(correlation), &[]);
            return Self::new(word.topic(), &properties, word.payload());
        }
        let (bytes, topic_length) = word.into_bytes();
        Self::of(bytes, topic_length, 0)
    }

    fn of(bytes: Box<[u8]>, topic_length: usize, properties_length: usize) -> Self {
        Self {
            bytes,
            // topics and packets have bounds far below
            topic_length: topic_length as u32,
            properties_length: properties_length as u32,
            qos: 0,
            retain: false,
            kept: true,
            author: GATEWAY,
            expires_ms: None,
            at_ms: 0,
            stamp: 0,
        }
    }

    fn head_length(&self) -> usize {
        (self.topic_length + self.properties_length) as usize
    }

    pub(super) fn topic_bytes(&self) -> &[u8] {
        self.bytes.get(..self.topic_length as usize).unwrap_or_default()
    }

    pub(super) fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    pub(super) fn properties(&self) -> &[u8] {
        self.bytes.get(self.topic_length as usize..self.head_length()).unwrap_or_default()
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(self.head_length()..).unwrap_or_default()
    }

    /// A copy of the payload, for those outside the broker.
    pub(super) fn payload_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.payload())
    }

    /// Topic, properties and payload together.
    pub(super) fn length_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What it costs while it waits.
    pub(super) fn weight_bytes(&self) -> usize {
        self.bytes.len() + OVERHEAD_BYTES
    }

    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }

    /// What is left of its life in whole seconds [MQTT-3.3.2-6].
    pub(super) fn expiry_s(&self, now_ms: i64) -> Option<u32> {
        let left_ms = self.expires_ms? - now_ms;
        Some(u32::try_from((left_ms + 999) / 1000).unwrap_or(if left_ms < 0 { 0 } else { u32::MAX }))
    }

    /// As it goes on the shelf.
    pub(super) fn to_kept(&self, qos: u8, retain: bool, subscription_ids: &[u32]) -> Kept {
        Kept {
            topic: self.topic().to_owned(),
            payload: self.payload_bytes(),
            qos,
            retain,
            properties: Bytes::copy_from_slice(self.properties()),
            subscription_ids: subscription_ids.to_vec(),
            expires_ms: self.expires_ms,
            at_ms: self.at_ms,
        }
    }

    /// As it comes from the shelf.
    pub(super) fn from_kept(kept: &Kept) -> Self {
        let mut message = Self::new(&kept.topic, &kept.properties, &kept.payload);
        message.qos = kept.qos;
        message.retain = kept.retain;
        message.expires_ms = kept.expires_ms;
        message.at_ms = kept.at_ms;
        message
    }
}

/// MQTT 5 properties of a message the gateway speaks itself.
pub(super) fn own_properties(
    response_topic: Option<&str>,
    correlation: Option<&[u8]>,
    user_properties: &[(String, String)],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(topic) = response_topic {
        bytes.push(0x08);
        write::string(&mut bytes, topic);
    }
    if let Some(data) = correlation {
        bytes.push(0x09);
        write::binary(&mut bytes, data);
    }
    for (name, value) in user_properties {
        bytes.push(0x26);
        write::string(&mut bytes, name);
        write::string(&mut bytes, value);
    }
    bytes
}
