//! Bluetooth Low Energy: a radio with the devices around it.
//!
//! In: advertisements and connections of a [`transport`]. Out: a [`Port`](crate::port::Port) like any other. `radio` keeps
//! one adapter in order, `bluez` is the transport for Linux, `fake` the one for tests and demonstrations. Must never
//! decode a byte by itself: that is `protocols::ble`'s.

#[cfg(all(feature = "ble", target_os = "linux"))]
pub mod bluez;
mod device;
pub mod fake;
mod gatt;
pub mod port;
#[cfg(test)]
mod port_tests;
pub mod radio;
mod survey;
pub mod transport;
mod visit;
mod watchdog;
