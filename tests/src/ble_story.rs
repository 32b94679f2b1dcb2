//! The whole gateway with a radio, from an advertisement to a twin's topic and from a desired value to a device. The same
//! story is told in the rig with real bluetoothd and outside it with the stand-in.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ble::{SENSOR, Stage};
use crate::ble_home::{home, packet, simulated_home};
use crate::gateway::{Gateway, Home, Player};
use crate::mqtt::{Watch, publish};
use crate::within;

/// How long a thing may take on a busy machine that plays a machine.
const LONG: Duration = Duration::from_secs(60);

/// The machine around the gateway, which can go wrong.
pub trait Machine {
    /// Who brings devices into the air, as long as there is an adapter.
    fn stage(&self) -> &dyn Stage;
    /// The bus bluetoothd is on, where it is not the system bus.
    fn bus(&self) -> Option<String>;
    /// The adapter is pulled out.
    fn unplug(&mut self);
    /// It is put in again, with the same devices around it.
    fn plug(&mut self);
    /// bluetoothd ends.
    fn stop_daemon(&mut self);
    /// It is there again.
    fn start_daemon(&mut self);
}

/// The installation, running.
struct Story {
    home: Home,
    gateway: Gateway,
    watch: Watch,
    number: u8,
}

impl Story {
    #[track_caller]
    fn value(&self, topic: &str, pointer: &str, expected: &Value) {
        within(LONG, &format!("{topic} with {pointer} = {expected}"), || {
            let latest = self.watch.all().into_iter().rev().find(|message| message.topic == topic)?;
            protocols::value::same(&latest.at(pointer), expected).then_some(())
        });
    }

    #[track_caller]
    fn says(&mut self, machine: &dyn Machine, hundredths: i16) {
        self.number = self.number.wrapping_add(1);
        machine.stage().say(SENSOR, &packet(self.number, 88, hundredths));
        self.value("twin/sensor-1/reported/temperature", "/value", &json!(f64::from(hundredths) / 100.0));
    }
}

/// Tells the story.
///
/// # Panics
/// At the first promise that is not kept.
pub fn tell(machine: &mut dyn Machine) {
    let mut home = home();
    if let Some(bus) = machine.bus() {
        home.set("DBUS_SYSTEM_BUS_ADDRESS", &bus);
    }
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/#", "gateway/#"]);
    let mut story = Story { home, gateway, watch, number: 0 };
    sensor_to_twin(&mut story, machine);
    visits(&story);
    desired_to_device(&story, machine);
    air(&story);
    silence(&mut story, machine);
    adapter(&mut story, machine);
    daemon(&mut story, machine);
    story.gateway.stop();
}

fn sensor_to_twin(story: &mut Story, machine: &dyn Machine) {
    story.says(machine, 2_345);
    story.value("twin/sensor-1/reported/battery", "/value", &json!(88));
    story.value("twin/sensor-1/reported/presence", "/value", &json!("present"));
    story.value("twin/sensor-1/status", "/state", &json!("online"));
    story.value("gateway/connection/radio/status", "/state", &json!("open"));
    let rssi = within(LONG, "a signal strength", || {
        let topic = "twin/sensor-1/reported/rssi";
        let all = story.watch.all().into_iter().filter(|message| message.topic == topic);
        all.filter_map(|message| message.at("/value").as_i64()).next_back()
    });
    assert!((-127..0).contains(&rssi), "{rssi} dBm");
    story.says(machine, -1_250);
}

fn visits(story: &Story) {
    story.value("twin/twin-1/reported/battery", "/value", &json!(77));
    story.value("twin/twin-1/reported/secret", "/value", &json!("secret-value"));
    story.value("twin/twin-1/reported/broken", "/quality", &json!("bad:exception:128"));
    story.value("twin/lock-1/reported/state", "/value", &json!("unlocked"));
    let beats = within(LONG, "a heart that beats", || {
        let all = story.watch.all().into_iter().filter(|message| message.topic == "twin/twin-1/reported/heart_rate");
        let beats: Vec<i64> = all.filter_map(|message| message.at("/value").as_i64()).collect();
        (beats.len() >= 3).then_some(beats)
    });
    assert!(beats.iter().all(|beat| (1..=200).contains(beat)), "{beats:?}");
}

fn desired_to_device(story: &Story, machine: &dyn Machine) {
    let port = story.gateway.port();
    assert!(publish(port, "twin/twin-1/desired/label/set", "\"kitchen\"").status.success());
    story.value("twin/twin-1/desired/label", "/state", &json!("applied"));
    assert_eq!(machine.stage().written(), b"kitchen");
    story.value("twin/twin-1/reported/label", "/value", &json!("kitchen"));
    let url = story.gateway.url();
    let read = story.home.tidegate(&["device", "read", "twin-1", "battery", "--json", "--broker", &url]);
    let read: Value = serde_json::from_slice(&read.stdout).unwrap_or_default();
    assert_eq!(read, json!({"value": 77, "quality": "good"}));
}

fn air(story: &Story) {
    let url = story.gateway.url();
    let scan = story.home.tidegate(&["device", "scan", "--ble", "--seconds", "5", "--json", "--broker", &url]);
    assert!(scan.status.success(), "{}", String::from_utf8_lossy(&scan.stderr));
    let found: Value = serde_json::from_slice(&scan.stdout).unwrap_or_default();
    let line = found["found"].as_array().into_iter().flatten().find(|line| line["address"] == SENSOR.to_string());
    let line = line.unwrap_or_else(|| panic!("the sensor is not in the list: {found}"));
    assert_eq!(line["devices"], json!(["sensor-1"]));
    assert_eq!(line["says"][0]["format"], "bthome2", "{line}");
    let fits = line["profiles"].as_array().cloned().unwrap_or_default();
    assert!(fits.contains(&json!("test.sensor")), "{line}");
    let table = story.home.tidegate(&["device", "scan", "--ble", "--seconds", "5", "--broker", &url]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("bthome2: ") && table.contains("temperature -12.5 Cel"), "{table}");
}

fn silence(story: &mut Story, machine: &dyn Machine) {
    machine.stage().hush(SENSOR);
    story.value("twin/sensor-1/status", "/state", &json!("offline"));
    story.value("twin/sensor-1/reported/presence", "/value", &json!("away"));
    story.value("twin/sensor-1/reported/temperature", "/quality", &json!("bad:timeout"));
    story.value("twin/twin-1/status", "/state", &json!("online"));
    story.says(machine, 1_900);
    story.value("twin/sensor-1/status", "/state", &json!("online"));
    story.value("twin/sensor-1/reported/presence", "/value", &json!("present"));
}

fn adapter(story: &mut Story, machine: &mut dyn Machine) {
    machine.unplug();
    story.value("gateway/connection/radio/status", "/state", &json!("closed"));
    story.value("twin/sensor-1/status", "/state", &json!("offline"));
    story.value("twin/twin-1/status", "/state", &json!("offline"));
    let none = "there is no Bluetooth adapter \"hci0\" (there is none at all)";
    story.value("gateway/connection/radio/status", "/reason", &json!(none));
    assert!(publish(story.gateway.port(), "twin/twin-1/desired/label/set", "\"cellar\"").status.success());
    story.value("twin/twin-1/desired/label", "/state", &json!("pending"));
    machine.plug();
    story.says(machine, 2_000);
    story.value("gateway/connection/radio/status", "/state", &json!("open"));
    story.value("twin/twin-1/desired/label", "/state", &json!("applied"));
    assert_eq!(machine.stage().written(), b"cellar", "what was wished meanwhile is written");
}

fn daemon(story: &mut Story, machine: &mut dyn Machine) {
    machine.stop_daemon();
    story.value("gateway/connection/radio/status", "/state", &json!("closed"));
    let none = "bluetoothd does not run: install bluez and start the service \"bluetooth\"";
    story.value("gateway/connection/radio/status", "/reason", &json!(none));
    machine.start_daemon();
    story.says(machine, 2_100);
    story.value("twin/twin-1/status", "/state", &json!("online"));
}

/// A sensor that is not there, around an adapter that is a program: the simulator's, then the demo's. Only inside the rig, with
/// bluetoothd and no other adapter.
///
/// # Panics
/// At the first promise that is not kept.
pub fn simulated() {
    let home = simulated_home();
    let player = Player::start(
        &home,
        &["simulate", "bthome.environment", "--vhci", "--every", "300ms", "--param", "address=F0:F1:F2:F3:F4:F6"],
    );
    let adapter = within(LONG, "an adapter", || player.line("heard by adapter "));
    assert_eq!(adapter, "heard by adapter hci0");
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/#"]);
    lives(&watch, "twin/sensor-1/reported/temperature");
    lives(&watch, "twin/sensor-1/reported/pressure");
    gateway.stop();
    drop(player);
    within(LONG, "the adapter to be gone", || {
        (!std::path::Path::new("/sys/class/bluetooth/hci0").exists()).then_some(())
    });
    let demo = Gateway::start(home.path(), &["demo", "--data", "demo-data", "--port", "0"]);
    let watch = Watch::new(demo.port(), &["twin/#"]);
    within(LONG, "the demo to count six devices", || {
        demo.lines().iter().any(|line| line.starts_with("Six simulated devices")).then_some(())
    });
    lives(&watch, "twin/room-1/reported/temperature");
    lives(&watch, "twin/gps-1/reported/latitude");
    demo.stop();
}

/// Waits for two good values that differ.
#[track_caller]
fn lives(watch: &Watch, topic: &str) {
    within(LONG, &format!("{topic} to move"), || {
        let own = watch.all().into_iter().filter(|message| message.topic == topic);
        let mut values: Vec<String> = own
            .filter(|message| message.at("/quality") == json!("good"))
            .map(|message| message.at("/value").to_string())
            .collect();
        values.dedup();
        (values.len() >= 2).then_some(())
    });
}
