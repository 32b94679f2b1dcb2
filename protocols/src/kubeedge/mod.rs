//! KubeEdge's device side: its topics, payloads and twin rules, on top of our twins.
//!
//! In: what KubeEdge's mappers and applications publish. Out: the answers they wait for, and what is to be wished and
//! reported at the device's twin. Must never be stopped by a message, however odd: an answer goes back on the device's own
//! topic, with the id that was asked.
//!
//! The rules are those of kubeedge 1.23 (edge/pkg/devicetwin), shown by recordings of it; where it is wrong, the right
//! thing is done and listed in `docs/kubeedge.md`.

mod book;
pub mod dmi;
pub mod import;
pub mod message;
#[cfg(test)]
mod tests;
pub mod topic;

pub use book::{
    Backing, Book, Field, Held, KEY_BYTES, KEYS, Refusal, Step, VALUE_BYTES, Writer, kind_name, to_text, to_value,
};

use crate::message::DeviceState;

/// What a KubeEdge state means to a twin; `None` for a word that is none.
///
/// edgecore drops `disconnected`, which its own mapper framework sends; here it is `offline`.
pub fn device_state(word: &str) -> Option<DeviceState> {
    Some(match word.to_ascii_lowercase().as_str() {
        "online" | "ok" => DeviceState::Online,
        "offline" | "disconnected" => DeviceState::Offline,
        "unhealthy" => DeviceState::Stale,
        "unknown" => DeviceState::Unknown,
        _ => return None,
    })
}
