//! The agent bluetoothd asks when a device wants to pair.
//!
//! In: bluetoothd's questions. Out: the passkey, yes, or no. Must never say yes for a device that the configuration does not
//! let pair, nor show a passkey.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use zbus::{DBusError, OwnedObjectPath};

use crate::ble::transport::Pairing;

/// Where the agent is on the bus.
pub(super) const PATH: &str = "/net/tidegate/ble/agent";
/// It can show and type: bluetoothd then chooses what the device is able to.
pub(super) const CAPABILITY: &str = "KeyboardDisplay";

/// A no.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.bluez.Error")]
pub(super) enum No {
    #[zbus(error)]
    ZBus(zbus::Error),
    /// Bluetoothd's word for it.
    Rejected(String),
}

/// How each device is paired with, by its path.
#[derive(Clone, Debug, Default)]
pub(super) struct Manners(Arc<Mutex<HashMap<String, Pairing>>>);

impl Manners {
    /// From now on a device is paired with in this way.
    pub(super) fn set(&self, path: &str, pairing: Pairing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), pairing);
    }

    fn of(&self, device: &OwnedObjectPath) -> Pairing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(device.as_str()).copied().unwrap_or_default()
    }
}

/// The agent.
pub(super) struct Agent(pub(super) Manners);

impl Agent {
    fn passkey(&self, device: &OwnedObjectPath) -> Result<u32, No> {
        match self.0.of(device) {
            Pairing::Passkey(passkey) => Ok(passkey),
            _ => Err(No::Rejected("the configuration has no passkey for it".to_owned())),
        }
    }

    fn allow(&self, device: &OwnedObjectPath) -> Result<(), No> {
        match self.0.of(device) {
            Pairing::None => Err(No::Rejected("the configuration does not let it pair".to_owned())),
            Pairing::JustWorks | Pairing::Passkey(_) => Ok(()),
        }
    }
}

#[zbus::interface(name = "org.bluez.Agent1")]
impl Agent {
    fn release(&self) {}

    fn request_pin_code(&self, device: OwnedObjectPath) -> Result<String, No> {
        self.passkey(&device).map(|passkey| format!("{passkey:06}"))
    }

    fn display_pin_code(&self, device: OwnedObjectPath, _pincode: String) -> Result<(), No> {
        self.allow(&device)
    }

    fn request_passkey(&self, device: OwnedObjectPath) -> Result<u32, No> {
        self.passkey(&device)
    }

    fn display_passkey(&self, _device: OwnedObjectPath, _passkey: u32, _entered: u16) {}

    fn request_confirmation(&self, device: OwnedObjectPath, _passkey: u32) -> Result<(), No> {
        // Nobody sits here who could compare two numbers: this is Just Works by another name.
        match self.0.of(&device) {
            Pairing::JustWorks => Ok(()),
            _ => Err(No::Rejected("the numbers cannot be compared here".to_owned())),
        }
    }

    fn request_authorization(&self, device: OwnedObjectPath) -> Result<(), No> {
        match self.0.of(&device) {
            Pairing::JustWorks => Ok(()),
            // Asked for when the device would be paired with unchecked, which is not what the configuration says.
            _ => self.passkey(&device).and(Err(No::Rejected("a passkey is wanted".to_owned()))),
        }
    }

    fn authorize_service(&self, device: OwnedObjectPath, _uuid: String) -> Result<(), No> {
        self.allow(&device)
    }

    fn cancel(&self) {}
}
