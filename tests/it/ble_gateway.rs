//! The whole gateway with a radio: the story, told with real bluetoothd in the rig and with its stand-in outside it.

use std::path::Path;

use serde_json::json;
use tests::ble::{FakeBluez, Stage, in_the_rig};
use tests::ble_story::{Machine, tell};

/// The stand-in as a machine.
struct Fake(FakeBluez);

impl Machine for Fake {
    fn stage(&self) -> &dyn Stage {
        self.0.stage()
    }

    fn bus(&self) -> Option<String> {
        Some(self.0.address().to_owned())
    }

    fn unplug(&mut self) {
        self.0.order(&json!({"op": "unplug"}));
    }

    fn plug(&mut self) {
        self.0.order(&json!({"op": "plug"}));
    }

    fn stop_daemon(&mut self) {
        self.0.order(&json!({"op": "die"}));
    }

    fn start_daemon(&mut self) {
        self.0.order(&json!({"op": "live"}));
    }
}

#[test]
fn a_gateway_with_a_radio_in_the_rig() {
    in_the_rig(Path::new(env!("CARGO_BIN_EXE_ble-inside")), "gateway");
}

#[test]
fn a_gateway_with_a_radio_on_a_bus_of_its_own() {
    tell(&mut Fake(FakeBluez::start()));
}
