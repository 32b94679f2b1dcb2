//! Which dialect an upstream speaks, and where its names come from.
//!
//! In: an upstream as configured, and what its dialect remembered. Out: the dialect.

use std::collections::BTreeMap;

use protocols::config::upstream::Upstream;
use protocols::dialect::{Dialect, build};

/// Makes the dialect of an upstream.
pub(super) fn make(upstream: &Upstream, memory: BTreeMap<String, String>) -> Box<dyn Dialect> {
    build(upstream, memory.into_iter().collect())
}

/// Where an upstream leads, as the store remembers it: with another place or other names there, its marks mean nothing.
pub(super) fn target(upstream: &Upstream) -> String {
    let Upstream { url, dialect, client_id, username, .. } = upstream;
    format!("{url:?} {dialect:?} {client_id:?} {username:?}")
}
