//! From an upstream as meant to the dialect it is spoken to in.
//!
//! In: an [`Upstream`], what the dialect remembered. Out: the dialect. Must never fail at the first message instead of here.

use super::Dialect;
use super::aws::Aws;
use super::azure::Azure;
use super::homeassistant::HomeAssistant;
use super::kubeedge::KubeEdge;
use super::plain::Plain;
use super::thingsboard::ThingsBoard;
use crate::config::upstream::{self, Upstream};

/// Makes the dialect of an upstream. `memory` is everything that [`Dialect::memory`] handed out in earlier runs and that
/// was not forgotten since.
pub fn build(upstream: &Upstream, memory: Vec<(String, String)>) -> Box<dyn Dialect> {
    match &upstream.dialect {
        upstream::Dialect::HomeAssistant { discovery_prefix, prefix } => {
            let prefix = upstream.url.is_some().then_some(prefix.as_str());
            Box::new(HomeAssistant::new(discovery_prefix, prefix, memory))
        }
        upstream::Dialect::Plain { prefix } => Box::new(Plain::new(prefix, memory)),
        upstream::Dialect::Aws { thing, thing_per_device, telemetry } => {
            let port_443 = upstream.url.as_deref().is_some_and(|url| url.trim_end_matches('/').ends_with(":443"));
            Box::new(Aws::new(thing, *thing_per_device, telemetry, port_443, memory))
        }
        upstream::Dialect::Azure { hub, device, .. } => Box::new(Azure::new(hub, device, memory)),
        upstream::Dialect::ThingsBoard { device_type } => Box::new(ThingsBoard::new(device_type.as_deref(), memory)),
        upstream::Dialect::KubeEdge { namespace, node } => {
            Box::new(KubeEdge::new(namespace.as_deref(), node.as_deref(), memory))
        }
    }
}
