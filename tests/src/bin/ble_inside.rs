//! What runs inside the Bluetooth rig, as a program of its own: one scenario, named by the first word.
//!
//! It starts the bus, bluetoothd and the virtual devices itself, so that it can take them away again. It ends with 0 when
//! every promise was kept, and panics at the first that was not.

use std::path::{Path, PathBuf};

use mappers::ble::bluez::Bluez;
use tests::ble::{Bluetoothd, Orders, Stage, SystemBus};
use tests::ble_story::Machine;
use tests::{ble_story, ble_suite};

fn out() -> PathBuf {
    std::env::var_os("RIG_OUT").expect("the rig says where logs go").into()
}

/// The adapter is there once bluetoothd has seen it.
fn adapter_is_there() {
    tests::eventually("the adapter", || Path::new("/sys/class/bluetooth/hci0").exists().then_some(()));
}

fn main() {
    let scenario = std::env::args().nth(1).expect("name a scenario");
    let _bus = SystemBus::start(&out().join("dbus.log"));
    if scenario == "simulated" {
        let _daemon = Bluetoothd::start(&out().join("bluetoothd.log"));
        return ble_story::simulated();
    }
    let mut rig = Rig::start();
    match scenario.as_str() {
        "suite" => suite(rig.stage.as_ref().expect("devices are in the air")),
        "gateway" => ble_story::tell(&mut rig),
        other => panic!("there is no scenario \"{other}\""),
    }
}

/// The virtual devices with their controller, and bluetoothd.
struct Rig {
    stage: Option<Orders>,
    daemon: Option<Bluetoothd>,
}

impl Rig {
    fn start() -> Self {
        let mut rig = Self { stage: None, daemon: None };
        rig.plug();
        rig.start_daemon();
        rig
    }
}

impl Machine for Rig {
    fn stage(&self) -> &dyn Stage {
        self.stage.as_ref().expect("devices are in the air")
    }

    fn bus(&self) -> Option<String> {
        None
    }

    fn unplug(&mut self) {
        // The kernel takes the adapter away when nobody holds its virtual end.
        self.stage = None;
    }

    fn plug(&mut self) {
        self.stage = Some(Orders::bumble(&out().join("air.log")));
        adapter_is_there();
    }

    fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    fn start_daemon(&mut self) {
        self.daemon = Some(Bluetoothd::start(&out().join("bluetoothd.log")));
    }
}

fn block<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// Waits until bluetoothd serves the adapter.
async fn served() {
    use mappers::ble::transport::Transport;
    let end = std::time::Instant::now() + tests::PATIENCE;
    while std::time::Instant::now() < end {
        let mut transport = Bluez::new("hci0");
        if transport.open().await.is_ok() {
            return transport.close().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("bluetoothd does not serve the adapter");
}

fn suite(air: &Orders) {
    block(async {
        served().await;
        ble_suite::suite(Bluez::new("hci0"), air, true).await;
    });
}
