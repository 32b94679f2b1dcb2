//! Modbus on a wire: the master that moves frames, and the port that makes it the host's way to devices.
//!
//! In: requests as `protocols::modbus::pdu` has them. Out: responses, or why there is none. Must never take a late,
//! foreign or damaged frame for an answer.

mod identity;
pub mod master;
pub mod port;
mod rtu;
mod tcp;

#[cfg(test)]
mod nasty;
#[cfg(test)]
mod port_tests;
#[cfg(test)]
mod referee;
#[cfg(test)]
mod wires_tests;
