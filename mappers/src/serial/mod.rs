//! Serial devices that do not speak Modbus, behind the host's seam.
//!
//! In: jobs and properties by number; bytes of a line or of a socket. Out: samples, asked and unasked. Must never take
//! one read for one message, nor a message that came before a request for its answer.

mod line;
pub mod port;

#[cfg(test)]
mod tests;
