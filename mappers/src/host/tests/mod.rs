//! A host between a wire that lies on request and the far end of a bus, in tokio's stopped time.

mod fake;
mod scenarios;
mod stress;
mod wire;
