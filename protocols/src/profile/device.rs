//! How a device is spoken to: the patience it needs, and the settings of its line.
//!
//! In: nothing; these are plain types. Out: what a mapper and a port have to know besides the properties. Must never
//! hold what differs between two devices of one model, which is the unit alone.

use std::time::Duration;

use crate::modbus;

/// How a Modbus device is spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct ModbusDevice {
    /// What one read may do.
    pub merge: modbus::MergeLimits,
    /// How long an answer may take; the connection's when absent.
    pub timeout: Option<Duration>,
    /// Tries after the first, for a read.
    pub retries: u32,
    /// Quiet time before each request to this device.
    pub delay: Duration,
    /// Tries after the first when the device says it is busy (exceptions 5 and 6).
    pub busy_retries: u32,
    /// When it counts as away, and how often it is looked for then.
    pub offline: Offline,
    /// The line settings the model is delivered with, to help the person who wires it.
    pub serial: Option<SerialLine>,
}

impl Default for ModbusDevice {
    fn default() -> Self {
        Self {
            merge: modbus::MergeLimits::default(),
            timeout: None,
            retries: 1,
            delay: Duration::ZERO,
            busy_retries: 5,
            offline: Offline::default(),
            serial: None,
        }
    }
}

/// When a device counts as away, and how often it is looked for then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// Failed reads in a row.
    pub after_failures: u32,
    /// The first pause between probes.
    pub probe_min: Duration,
    /// The longest pause between probes.
    pub probe_max: Duration,
}

impl Default for Offline {
    fn default() -> Self {
        Self { after_failures: 3, probe_min: Duration::from_secs(1), probe_max: Duration::from_secs(30) }
    }
}

/// Settings of a serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialLine {
    /// Bits a second.
    pub baud: u32,
    /// 5 to 8.
    pub data: u8,
    /// Parity.
    pub parity: Parity,
    /// 1 or 2.
    pub stop: u8,
    /// Flow control.
    pub flow: Flow,
    /// Who drives the RS-485 transmitter.
    pub rs485: Rs485,
}

impl Default for SerialLine {
    fn default() -> Self {
        Self { baud: 9600, data: 8, parity: Parity::None, stop: 1, flow: Flow::None, rs485: Rs485::None }
    }
}

/// Parity of a serial line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Parity {
    #[default]
    None,
    Even,
    Odd,
}

/// Flow control of a serial line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Flow {
    #[default]
    None,
    RtsCts,
    XonXoff,
}

/// Who drives the RS-485 transmitter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rs485 {
    /// The adapter does it by itself.
    #[default]
    None,
    /// The kernel's driver (`TIOCSRS485`).
    Kernel,
    /// RTS is raised by us around each frame.
    Rts,
}
