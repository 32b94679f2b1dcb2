//! Devices that are not there: serial and Bluetooth profiles played with values that live.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use protocols::ble::{Advertisement, Identity, Mac, ObjectClass, Sender};
use protocols::codec::Raw;
use protocols::profile::ble::Listener;
use protocols::profile::{Kind, Profile};
use protocols::value::{Now, Quality, Timestamp, Value};
use serde_json::json;
use tests::ble::in_the_rig;
use tests::gateway::Home;
use tests::mqtt::{Watch, publish};
use tests::{peers_folder, root};

use crate::installation::gateway;
use crate::running::Side;

fn profile(id: &str, params: &str) -> (Arc<Profile>, Identity) {
    let resolved = gateway::config::profile(id, params).unwrap();
    (resolved.profile, resolved.ble.unwrap_or_default())
}

fn now(ms: u64) -> Now {
    Now { tick: ms, wall: Timestamp::from_ms(0) }
}

/// Values a small sensor could have, in the decoders' raw form.
fn value(profile: &Profile, index: usize, class: ObjectClass) -> Option<Raw> {
    let property = &profile.properties[index];
    Some(match (class, property.kind) {
        (ObjectClass::Event, _) => Raw::Int(1),
        (_, Kind::Bool) => Raw::Bool(true),
        (_, Kind::Int | Kind::Number) => property.raw_value(&Value::from(3)).ok()?,
        _ => return None,
    })
}

/// Every shipped profile that listens to advertisements hears what is composed for it, as it would be on the air.
#[test]
fn every_shipped_bluetooth_profile_reads_what_is_said_for_it() {
    let mut told = 0;
    for (name, _) in gateway::config::PROFILES {
        let id = name.strip_suffix(".yaml").unwrap();
        let address = "{address: \"C4:00:00:00:00:07\"}";
        let Ok(resolved) = gateway::config::profile(id, address) else { continue };
        if resolved.profile.ble.is_none() {
            continue;
        }
        let (profile, identity) = (resolved.profile, resolved.ble.unwrap_or_default());
        let own = profile.told_in_the_air();
        let values: Vec<(usize, Raw)> =
            own.iter().filter_map(|(index, class)| Some((*index, value(&profile, *index, *class)?))).collect();
        let sender = Sender { address: Mac([0xC4, 0, 0, 0, 0, 7]), key: None, number: 5 };
        let packets = match profile.speak(&values, sender) {
            Ok(packets) => packets,
            Err(why) => {
                assert_eq!(id, "generic.gatt_thermometer", "{id}: {why}");
                assert!(why.to_string().contains("cannot be connected to"), "{why}");
                continue;
            }
        };
        let mut listener = Listener::new(profile.clone(), identity);
        let mut heard = BTreeMap::new();
        for (number, packet) in packets.iter().enumerate() {
            let (data, answer) = packet.structures().unwrap_or_else(|| panic!("{id} has no room"));
            let (mut read, damage) = Advertisement::parse(&[data, answer].concat());
            assert_eq!(damage, None, "{id}");
            read.address = packet.address;
            let said = listener.hear(&read, now(number as u64 * 10_000));
            assert!(said.outcome.has_values(), "{id}: {:?} for {packet:?}", said.outcome);
            heard.extend(said.readings);
        }
        let good = |index: usize| {
            heard.get(&index).is_some_and(|reading: &protocols::value::Reading| reading.quality == Quality::Good)
        };
        let some = own.iter().filter(|(index, _)| good(*index)).count();
        assert!(some > 0, "{id} reads nothing of what was said: {heard:?}");
        told += some;
    }
    assert!(told >= 60, "only {told} values");
}

/// What bumble hears of a simulated device: its address, and the structures as they came.
fn bumble_hears(player: &mut Side, seconds: u32) -> Vec<(String, Vec<u8>)> {
    let line = player.line("listening hci");
    let port = line.rsplit(':').next().unwrap().trim().to_owned();
    let output = Command::new(peers_folder().join("venv/bin/python"))
        .arg(root().join("tests/peers/ble/listener.py"))
        .args([port, seconds.to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let hex = line["data"].as_str().unwrap().as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        assert!((-80..-40).contains(&line["rssi"].as_i64().unwrap()), "{line}");
        (line["address"].as_str().unwrap().to_owned(), hex.chunks(2).map(byte).collect())
    };
    said.lines().map(line).collect()
}

/// The controller is this program's, the host is bumble's: nothing of ours carries the packets between them.
#[test]
fn a_simulated_sensor_is_heard_by_bumble_with_values_that_live() {
    let key = "231d39c1d7cc1ab1aee224cd096db932";
    for (id, params, property) in [
        ("bthome.environment", "address=54:48:E6:8F:80:A5".to_owned(), "temperature"),
        ("ruuvi.tag", "address=C4:00:00:00:00:07".to_owned(), "pressure"),
        ("bthome.environment", format!("bindkey={key}"), "humidity"),
        ("thermopro.tp357", "address=C4:00:00:00:00:08".to_owned(), "temperature"),
    ] {
        let home = Home::new();
        let words = ["simulate", id, "--hci-tcp", "127.0.0.1:0", "--every", "200ms", "--param", &params];
        let mut player = Side::start(&home, &words);
        let heard = bumble_hears(&mut player, 4);
        assert!(heard.len() >= 10, "{id}: only {} advertisements", heard.len());
        if let Some(address) = params.strip_prefix("address=") {
            assert!(heard.iter().all(|(own, _)| own == address), "{id}: {heard:?}");
        }
        let (profile, identity) = profile(id, &format!("{{{}}}", params.replacen('=', ": ", 1)));
        let index = profile.find(property).unwrap();
        let mut listener = Listener::new(profile, identity);
        let mut values = Vec::new();
        for (tick, (address, data)) in (0..).zip(&heard) {
            let (mut adv, damage) = Advertisement::parse(data);
            assert_eq!(damage, None, "{id}");
            adv.address = Some(address.parse().unwrap());
            let readings = listener.hear(&adv, now(tick * 5_000)).readings;
            let own = readings.into_iter().filter(|(own, reading)| *own == index && !reading.quality.is_bad());
            values.extend(own.filter_map(|(_, reading)| reading.value.as_f64()));
        }
        let moves = values.iter().any(|value| Some(value) != values.first());
        assert!(values.len() >= 5 && (moves || id == "thermopro.tp357"), "{id} {params}: {values:?}");
    }
}

/// From a virtual controller of the kernel through real bluetoothd to the twin, and the demo with its sensor.
#[test]
fn a_simulated_sensor_reaches_its_twin_through_the_kernel_and_bluetoothd() {
    in_the_rig(Path::new(env!("CARGO_BIN_EXE_ble-inside")), "simulated");
}

#[test]
fn what_cannot_be_played_in_the_air_is_refused_with_the_reason() {
    let home = Home::new();
    for (words, expected) in [
        (
            &["generic.gatt_thermometer", "--hci-tcp", "127.0.0.1:0", "--param", "address=C4:00:00:00:00:07"][..],
            "cannot be connected to",
        ),
        (&["ruuvi.tag", "--pty", "./x"], "a Bluetooth device is on no wire"),
        (&["eastron.sdm630", "--hci-tcp", "127.0.0.1:0"], "a Modbus device is not in the air"),
        (&["winsen.mhz19", "--vhci"], "a serial device is not in the air"),
        (&["ruuvi.tag", "--vhci=./nothing"], "cannot make a Bluetooth controller with ./nothing"),
        (&["ruuvi.tag"], "a simulated device needs a place to be found"),
    ] {
        let said = home.tidegate(&[&["simulate"], words].concat());
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains(expected), "{words:?}: {text}");
    }
}

/// A scale, a carbon dioxide sensor and a receiver: what they say moves, and what is written to one is remembered.
#[test]
fn a_simulated_serial_device_lives_and_remembers_what_is_written() {
    let thermostat = r#"
schema: 1
id: test.thermostat
version: 1.0.0
meta: {vendor: Test, model: Thermostat}
groups: {fast: {interval: 300ms}}
serial:
  framing: {type: line, end: "\n", strip: "\r", max: 40, gap: 300ms}
  messages:
    set: {match: {regex: "^SP=(?P<sp>[\\d.]+)$"}}
    room: {match: {regex: "^T=(?P<t>-?[\\d.]+)$"}}
  requests:
    read: {tx: "?\n", answer: set, timeout: 500ms}
    sp: {tx: "SP={value:.1}\n", answer: set, timeout: 500ms}
properties:
  setpoint: {type: number, unit: Cel, access: rw, group: fast, write: {min: 5, max: 35}, from: {serial: {request: read, capture: sp, write: sp}}}
  room: {type: number, unit: Cel, class: temperature, group: fast, from: {serial: {message: room, capture: t}}}
tests:
  - {name: what it says, input: {serial: ["SP=20.0\n", "T=19.25\n"]}, expect: {setpoint: 20.0, room: 19.25}}
"#;
    let home = Home::with(&gateway(
        "  heat: {serial: {port: ./heat, baud: 9600}}\n  air: {serial: {port: ./air, baud: 9600}}\n  sky: {serial: {port: ./sky, baud: 9600}}",
        "  - {id: heat-1, profile: test.thermostat, connection: heat}\n  - {id: air-1, profile: winsen.mhz19, connection: air, override: {groups: {air: {interval: 500ms}}}}\n  - {id: gps-1, profile: generic.nmea0183-gps, connection: sky, override: {groups: {stream: {report: {min_interval: 0s}}}}}",
    ));
    home.write("profiles/thermostat.yaml", thermostat);
    let mut players = Vec::new();
    for (id, pty) in [("profiles/thermostat.yaml", "heat"), ("winsen.mhz19", "air"), ("generic.nmea0183-gps", "sky")] {
        let mut player = Side::start(&home, &["simulate", id, "--pty", pty, "--every", "300ms"]);
        player.line("listening");
        players.push(player);
    }
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/#"]);
    watch.value("twin/heat-1/reported/setpoint", "/value", &json!(20.0));
    assert!(publish(gateway.port(), "twin/heat-1/desired/setpoint/set", "22.5").status.success());
    watch.value("twin/heat-1/desired/setpoint", "/state", &json!("applied"));
    watch.value("twin/heat-1/reported/setpoint", "/value", &json!(22.5));
    for topic in ["twin/heat-1/reported/room", "twin/air-1/reported/co2", "twin/gps-1/reported/latitude"] {
        tests::eventually(&format!("{topic} to move"), || {
            let own = watch.all().into_iter().filter(|message| message.topic == topic);
            let mut values: Vec<String> = own
                .filter(|message| message.at("/quality") == json!("good"))
                .map(|message| message.at("/value").to_string())
                .collect();
            values.dedup();
            (values.len() >= 3).then_some(())
        });
    }
    drop(players);
    gateway.stop();
}
