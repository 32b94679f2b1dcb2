//! One device as the service holds it.

use std::collections::VecDeque;
use std::sync::Arc;

use protocols::config::Device;
use protocols::kubeedge::message::Member;
use protocols::kubeedge::topic::KubeId;
use protocols::kubeedge::{Backing, Book, Step, device_state};
use protocols::message::{DeviceState, DeviceStatus};
use protocols::profile::{Kind, Profile};
use protocols::value::Now;
use serde::{Deserialize, Serialize};

use crate::broker::desk::Request;

/// What is kept of one device over restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(default)]
    pub(super) twin: Book,
    #[serde(default)]
    pub(super) state: Option<String>,
    #[serde(default)]
    pub(super) last_online: Option<String>,
}

/// One device.
pub(super) struct Entry {
    pub(super) device: Arc<Device>,
    pub(super) book: Book,
    /// The last state a KubeEdge client said, in its words.
    pub(super) state: Option<String>,
    pub(super) last_online: Option<String>,
    /// The form in which the device was last spoken of; notices of the gateway's own use it.
    pub(super) id: KubeId,
    /// An update that waits for the twin, and what came behind it.
    pub(super) pending: Option<Pending>,
    pub(super) waiting: VecDeque<Request>,
    pub(super) kept: Kept,
    pub(super) keep_at: Option<u64>,
}

/// An update on its way to the twin.
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) deadline: u64,
    pub(super) request: Request,
    pub(super) id: KubeId,
    pub(super) event_id: String,
    pub(super) step: Step,
    pub(super) silent: bool,
}

pub(super) struct Backed<'a>(pub(super) &'a Profile);

impl Backing for Backed<'_> {
    fn kind(&self, key: &str) -> Option<Kind> {
        self.0.find(key).and_then(|index| self.0.properties.get(index)).map(|property| property.kind)
    }
}

/// A device whose state its mapper of ours tells: the word that KubeEdge's side reads.
pub(super) fn follow_status(entry: &mut Entry, status: &DeviceStatus, now: Now) {
    let said = entry.state.as_deref().and_then(device_state);
    if said == Some(status.state) {
        return;
    }
    let word = match status.state {
        DeviceState::Online => "online",
        DeviceState::Offline => "offline",
        DeviceState::Stale => "unhealthy",
        DeviceState::Unknown => "unknown",
    };
    // After a start nobody has spoken yet; what was said last stands until then.
    if status.state == DeviceState::Unknown && entry.state.is_some() {
        return;
    }
    entry.state = Some(word.to_owned());
    if status.state == DeviceState::Online {
        entry.last_online = Some(status.since.unwrap_or(now.wall).to_string());
    }
}

pub(super) fn member(entry: &Entry) -> Member {
    let meta = &entry.device.profile.meta;
    Member {
        id: entry.id.to_string(),
        name: entry.id.name.clone(),
        description: meta.description.clone().unwrap_or_else(|| entry.device.profile.label()),
        state: entry.state.clone().unwrap_or_else(|| "unknown".to_owned()),
        last_online: entry.last_online.clone(),
    }
}
