//! A word of the gateway's own, in the form in which the broker keeps it.
//!
//! In: a topic and a payload. Out: both in one piece of memory, which becomes the message as it is: what the gateway says
//! thousands of times a second is written once and not copied. Must never hold more memory than it has bytes.

use bytes::Bytes;

/// Topic and payload of a message of the gateway's own; said at QoS 1, and never written to the shelf, as the gateway
/// can make it again from its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    bytes: Box<[u8]>,
    topic_length: usize,
    /// Kept for later subscribers; with an empty payload it clears the topic.
    pub retain: bool,
    /// Correlation Data of an answer (MQTT 5).
    pub correlation: Option<Bytes>,
}

impl Word {
    /// Puts a word together; the topic in parts, so that nobody has to join them first.
    pub fn new(topic: &[&str], payload: &[u8], retain: bool) -> Self {
        let topic_length = topic.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(topic_length + payload.len());
        topic.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
        bytes.extend_from_slice(payload);
        Self { bytes: bytes.into(), topic_length, retain, correlation: None }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.bytes.get(..self.topic_length).and_then(|topic| std::str::from_utf8(topic).ok()).unwrap_or_default()
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.topic_length..).unwrap_or_default()
    }

    /// Topic and payload, one behind the other, and how long the topic is.
    pub(super) fn into_bytes(self) -> (Box<[u8]>, usize) {
        (self.bytes, self.topic_length)
    }
}
