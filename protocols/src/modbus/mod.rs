//! Modbus without a wire: protocol data units, the framings around them, addresses as people write them, and the
//! planner that turns visitors into the fewest reads.
//!
//! In: bytes, and [`Visitor`]s from profiles. Out: requests, responses, plans. Must never index by a number off the
//! wire, and never read what a profile forbids.

pub mod address;
pub mod frame;
pub mod pdu;
pub mod plan;
pub mod server;

#[cfg(test)]
mod vectors;

use crate::codec::Layout;

/// The four tables of the data model, and the device identification of function 43/14.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single bits, read and write (functions 1, 5, 15).
    Coil,
    /// Single bits, read only (function 2).
    Discrete,
    /// Registers, read only (function 4).
    Input,
    /// Registers, read and write (functions 3, 6, 16, 22, 23).
    Holding,
    /// Identification objects as text (function 43/14); the address is the object id, 0..=255.
    DeviceId,
}

/// Where one property lives in a device, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Visitor {
    /// The table.
    pub table: Table,
    /// The protocol address, from 0.
    pub address: u16,
    /// How the value lies there.
    pub layout: Layout,
    /// Where a write goes, if elsewhere.
    pub write_address: Option<u16>,
    /// The function a write uses: 5, 6, 15, 16 or 22; chosen by type and width when absent.
    pub write_function: Option<u8>,
}

/// What a device lets a read do.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeLimits {
    /// Registers one read may ask for, 1..=125.
    pub max_registers: u16,
    /// Bits one read may ask for, 1..=2000.
    pub max_bits: u16,
    /// Undeclared registers a read may cross to save a request; by the line's speed when absent.
    pub max_gap: Option<u16>,
    /// Whether an exception 2 or 3 to a merged read is answered by learning where to split.
    pub split_on_exception: bool,
    /// Address ranges that no read may touch, ends included.
    pub forbidden: Vec<(Table, u16, u16)>,
    /// One read for each value.
    pub one_by_one: bool,
}

impl Default for MergeLimits {
    fn default() -> Self {
        Self {
            max_registers: 125,
            max_bits: 2000,
            max_gap: None,
            split_on_exception: true,
            forbidden: Vec::new(),
            one_by_one: false,
        }
    }
}
