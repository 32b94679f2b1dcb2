//! What is said: topics and payloads of a twin, and the answers to requests.

use bytes::Bytes;
use protocols::message::Outcome;
use protocols::twin::Refusal;

use super::Word;
use crate::broker::desk::Verdict;

/// The longest Reason String, in bytes; the rest of a longer one is given up, the result has it all.
const REASON_BYTES: usize = 512;

/// A retained word; the topic in parts.
pub(super) fn kept(topic: &[&str], payload: &[u8]) -> Word {
    Word::new(topic, payload, true)
}

/// A word for those who listen now.
pub(super) fn spoken(topic: &[&str], payload: &[u8]) -> Word {
    Word::new(topic, payload, false)
}

/// Clears a retained topic.
pub(super) fn cleared(topic: &[&str]) -> Word {
    kept(topic, &[])
}

/// The parts of `prefix/section/name`.
pub(super) fn below<'a>(prefix: &'a str, section: &'a str, name: &'a str) -> [&'a str; 5] {
    [prefix, "/", section, "/", name]
}

/// JSON of something that always has one.
pub(super) fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("messages hold nothing that JSON cannot say")
}

/// Where an answer goes.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) topic: String,
    pub(super) correlation: Option<Bytes>,
    /// Whether the author asked for it; without, a mapper hears of refusals only.
    pub(super) asked: bool,
}

impl Reply {
    /// The answer as a word.
    pub(super) fn word(&self, payload: &[u8]) -> Word {
        let mut word = spoken(&[&self.topic], payload);
        word.correlation = self.correlation.clone();
        word
    }
}

/// A request's good end.
pub(super) fn accepted(id: Option<String>, version: Option<u64>) -> Outcome {
    Outcome { id, ok: true, version, code: None, errors: Default::default() }
}

/// A request's bad end, for the result topic.
pub(super) fn refused(id: Option<String>, refusal: &Refusal, version: Option<u64>) -> Outcome {
    Outcome { id, ok: false, version, code: Some(refusal.code), errors: refusal.errors.clone() }
}

/// … and for MQTT.
pub(super) fn verdict(refusal: &Refusal) -> Verdict {
    let reason = match refusal.code {
        400 | 422 => 0x99,
        403 => 0x87,
        404 => 0x90,
        409 => 0x83,
        413 => 0x97,
        _ => 0x80,
    };
    let mut text = String::new();
    for (name, why) in &refusal.errors {
        if !text.is_empty() {
            text.push_str("; ");
        }
        if !name.is_empty() {
            text.push_str(name);
            text.push_str(": ");
        }
        text.push_str(why);
    }
    let mut end = text.len().min(REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    Verdict::Refused { reason, text }
}
