//! Serial devices that do not speak Modbus: from a stream of bytes to whole messages, and from a message to raw values.
//!
//! In: bytes as they come off a line, in whatever pieces; the rules of a device model. Out: [`frame::Frame`]s that were
//! checked, and [`crate::codec::Raw`] values picked out of them. Must never give different frames for another split of
//! the same bytes, keep more than a frame's longest length, or take a damaged message for a whole one.

pub mod checksum;
pub mod compose;
pub mod extract;
pub mod frame;
mod iec;
mod instant;
mod layout;
mod marks;
mod numbers;
mod obis;
mod sml;
mod stuffing;
pub mod template;
mod wrap;

#[cfg(test)]
mod tests;

pub use iec::{Identification, acknowledgement, identification, sign_on};
pub use instant::Format as DateFormat;
