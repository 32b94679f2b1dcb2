//! The outbox's promises, in virtual time.

mod model;
mod promises;
mod rules;
mod stamps;
