//! Connections whose devices a mapper in another process reads and writes.
//!
//! In: `{external: {protocol: opcua, config: {…}}}`. Out: a [`Connection`] nobody here opens. Must never look into what
//! is that mapper's own.

use super::raw::RawExternalWire;
use super::read::{DEFAULT_TIMEOUT, Reader};
use super::*;
use crate::yaml::Place;

/// Makes a connection of what stands under `external`.
pub(super) fn connection(name: &str, raw: RawExternalWire) -> Connection {
    let config = raw.config.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    Connection {
        name: name.to_owned(),
        protocol: Protocol::External,
        wire: Wire::External(ExternalWire { protocol: raw.protocol, config }),
        timeout: DEFAULT_TIMEOUT,
        delay: Duration::ZERO,
        echo: false,
        in_flight: 1,
    }
}

impl Reader<'_> {
    /// A profile that names its protocol fits connections of that protocol alone.
    pub(super) fn same_external_protocol(&mut self, profile: &Profile, wire: &Connection, place: &Place) -> Option<()> {
        let own = profile.external.as_ref().and_then(|external| external.protocol.as_deref());
        let (Some(own), Wire::External(external)) = (own, &wire.wire) else { return Some(()) };
        if own.eq_ignore_ascii_case(&external.protocol) {
            return Some(());
        }
        let (id, name, other) = (&profile.id, &wire.name, &external.protocol);
        let message = format!("\"{id}\" is for {own}, but \"{name}\" speaks {other}");
        self.complaints.add(place, message, format!("take a connection of its own: {{external: {{protocol: {own}}}}}"));
        None
    }
}
