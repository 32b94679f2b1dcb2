//! Tidegate's mappers: they touch devices, and know neither twin nor store.
//!
//! Rooms import only what stands before them: `clock, link, bus → port → modbus, serial, ble → host → fleet`; `simulate` stands
//! beside `host`.

pub mod ble;
pub mod bus;
pub mod clock;
pub mod fleet;
pub mod host;
pub mod link;
pub mod modbus;
pub mod port;
#[cfg(test)]
mod samples;
pub mod serial;
pub mod simulate;

pub use fleet::{BusFactory, Mappers};
