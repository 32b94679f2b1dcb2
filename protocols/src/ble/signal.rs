//! How strong a device is heard, as a mean over a window.
//!
//! In: received strengths and the tick. Out: the mean in whole dBm. Must never grow with the rate of packets.

use std::collections::VecDeque;

/// The most strengths of one window; of a device that sends faster the newest count.
pub const RSSI_SAMPLES: usize = 64;

/// The strengths of one device.
#[derive(Clone, Debug, Default)]
pub struct Signal {
    window_ms: u64,
    samples: VecDeque<(u64, i8)>,
}

impl Signal {
    /// A mean over `window_ms`; 0 gives each strength as it comes.
    pub fn new(window_ms: u64) -> Self {
        Self { window_ms, samples: VecDeque::new() }
    }

    /// Takes one in, gives the mean in dBm.
    pub fn on_rssi(&mut self, rssi: i8, tick: u64) -> i8 {
        self.samples.retain(|(at, _)| tick.saturating_sub(*at) < self.window_ms);
        self.samples.truncate(RSSI_SAMPLES - 1);
        self.samples.push_front((tick, rssi));
        let count = i32::try_from(self.samples.len()).unwrap_or(1);
        let sum: i32 = self.samples.iter().map(|(_, rssi)| i32::from(*rssi)).sum();
        // To the nearest, halves towards the stronger; the mean of eight bits is eight bits.
        i8::try_from((2 * sum + count).div_euclid(2 * count)).unwrap_or(rssi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_the_window() {
        let mut signal = Signal::new(1_000);
        assert_eq!(signal.on_rssi(-60, 0), -60);
        assert_eq!(signal.on_rssi(-80, 100), -70);
        assert_eq!(signal.on_rssi(-81, 1_050), -80);
        let mut plain = Signal::new(0);
        assert_eq!((plain.on_rssi(-60, 0), plain.on_rssi(-80, 0)), (-60, -80));
        for tick in 0..10_000 {
            signal.on_rssi(-50, tick);
            assert!(signal.samples.len() <= RSSI_SAMPLES);
        }
    }
}
