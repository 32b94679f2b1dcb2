//! The advertisement monitor: how bluetoothd is told what a passive scan is to let through.
//!
//! In: patterns. Out: an object on the bus that bluetoothd reads, and whether it took it. Must never filter by signal
//! strength: presence is decided elsewhere.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use zbus::OwnedObjectPath;

use crate::ble::transport::AdPattern;

/// The root the monitors are under.
pub(super) const ROOT: &str = "/net/tidegate/ble/monitors";
/// The monitor.
pub(super) const PATH: &str = "/net/tidegate/ble/monitors/all";
/// The interface of the adapter that takes monitors.
pub(super) const MANAGER: &str = "org.bluez.AdvertisementMonitorManager1";

/// The weakest signal there can be, in dBm, so that every signal counts. Without thresholds bluetoothd would not tell when
/// a device is lost, and with none for the time it would wait ten seconds before it finds one.
const ANY_RSSI: i16 = -127;
/// A device is found when it was heard for this time, in seconds; the least there is.
const FOUND_S: u16 = 1;
/// A device is lost when it was not heard for this time, in seconds.
const LOST_S: u16 = 20;
/// Devices that are there at one time; of those beyond, only what changes is heard.
const DEVICES: usize = 4_096;

/// The devices that are there, by their paths. In a passive scan bluetoothd signals what changes and not that a device goes
/// on saying the same, so this is the only sign of life of many a sensor.
#[derive(Clone, Debug, Default)]
pub(super) struct There(Arc<Mutex<HashSet<String>>>);

impl There {
    /// Their paths.
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn turn(&self, device: &OwnedObjectPath, is_there: bool) {
        let mut there = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_there {
            there.remove(device.as_str());
        } else if there.len() < DEVICES {
            there.insert(device.to_string());
        }
    }
}

/// Words of bluetoothd that wait to be read; it says two in a monitor's life, and more mean nothing new.
pub(super) const WORDS: usize = 8;

/// What bluetoothd says to a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is in force.
    Active,
    /// It is not, or no longer.
    Released,
}

/// The monitor.
pub(super) struct Monitor {
    patterns: Vec<(u8, u8, Vec<u8>)>,
    said: mpsc::Sender<Said>,
    there: There,
}

impl Monitor {
    pub(super) fn new(patterns: &[AdPattern], said: mpsc::Sender<Said>, there: There) -> Self {
        let patterns = patterns.iter().map(|pattern| (pattern.start, pattern.ad_type, pattern.content.clone()));
        Self { patterns: patterns.collect(), said, there }
    }
}

#[zbus::interface(name = "org.bluez.AdvertisementMonitor1")]
impl Monitor {
    fn release(&self) {
        // The receiver is gone when the scan is: then nobody has to know.
        let _ = self.said.try_send(Said::Released);
    }

    fn activate(&self) {
        let _ = self.said.try_send(Said::Active);
    }

    fn device_found(&self, device: OwnedObjectPath) {
        self.there.turn(&device, true);
    }

    fn device_lost(&self, device: OwnedObjectPath) {
        self.there.turn(&device, false);
    }

    #[zbus(property, name = "Type")]
    fn kind(&self) -> String {
        "or_patterns".to_owned()
    }

    #[zbus(property, name = "RSSILowThreshold")]
    fn rssi_low_threshold(&self) -> i16 {
        ANY_RSSI
    }

    #[zbus(property, name = "RSSIHighThreshold")]
    fn rssi_high_threshold(&self) -> i16 {
        ANY_RSSI
    }

    #[zbus(property, name = "RSSILowTimeout")]
    fn rssi_low_timeout(&self) -> u16 {
        LOST_S
    }

    #[zbus(property, name = "RSSIHighTimeout")]
    fn rssi_high_timeout(&self) -> u16 {
        FOUND_S
    }

    #[zbus(property, name = "RSSISamplingPeriod")]
    fn rssi_sampling_period(&self) -> u16 {
        0
    }

    /// Start, AD type, content.
    #[zbus(property)]
    fn patterns(&self) -> Vec<(u8, u8, Vec<u8>)> {
        self.patterns.clone()
    }
}
