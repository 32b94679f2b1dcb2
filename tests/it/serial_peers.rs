//! Serial devices nobody here wrote, through the whole gateway: streams, requests, writes, noise, a cable pulled out.

use std::path::Path;

use serde_json::{Value, json};
use tests::gateway::Home;
use tests::mqtt::{Watch, publish};
use tests::peers::{Cable, SerialDevice, SerialServer};

use crate::installation::gateway;
use crate::running::Side;

/// A thermostat that answers, streams its temperature, and refuses what is too warm for it.
const THERMOSTAT: &str = r#"
schema: 1
id: test.thermostat
version: 1.0.0
meta: {vendor: Test, model: Thermostat}
groups:
  fast: {interval: 500ms}
serial:
  framing: {type: line, end: "\n", strip: "\r", max: 40, gap: 300ms}
  messages:
    set: {match: {regex: "^SP=(?P<sp>[\\d.]+)$"}}
    no: {match: {regex: "^ERR"}}
    room: {match: {regex: "^T=(?P<t>-?[\\d.]+)$"}}
  requests:
    read: {tx: "?\n", answer: set, timeout: 500ms}
    sp: {tx: "SP={value:.1}\n", answer: set, refusal: no, timeout: 500ms}
properties:
  setpoint: {type: number, unit: Cel, access: rw, group: fast, write: {min: 5, max: 35}, from: {serial: {request: read, capture: sp, write: sp}}}
  room: {type: number, unit: Cel, group: fast, from: {serial: {message: room, capture: t}}}
"#;

fn home(connections: &str, devices: &str) -> Home {
    let home = Home::with(&gateway(connections, devices));
    home.write("profiles/thermostat.yaml", THERMOSTAT);
    home
}

fn line(cable: &Cable) -> String {
    format!("  line: {{serial: {{port: \"{}\", baud: 9600}}}}", cable.gateway().display())
}

const GPS: &str = "  - {id: gps-1, profile: generic.nmea0183-gps, connection: line, override: {groups: {stream: {report: {min_interval: 0s}}}}}";

fn rmc(latitude: &str) -> Value {
    json!({"nmea": ["GP", "RMC", ["225446", "A", latitude, "N", "12311.12", "W", "000.5", "054.7", "191194", "020.3", "E"]]})
}

/// Waits for a number that another program has worked out, to the sixth decimal.
#[track_caller]
fn expect_near(watch: &mut Watch, topic: &str, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    watch.next(&format!("{topic} near {expected}"), |message| {
        let near = |value: f64| (value - expected).abs() < 1e-6;
        message.topic == topic && message.at("/value").as_f64().is_some_and(near)
    });
}

#[test]
fn sentences_of_pynmea2_reach_the_twin_between_noise_until_the_cable_is_pulled_and_again_after() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut cable = Cable::new(folder.path());
    let mut peer = SerialDevice::start(&cable.device(), 9600);
    let home = home(&line(&cable), GPS);
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#", "gateway/#"]);
    watch.next("the line to be open", |message| {
        message.topic == "gateway/connection/line/status" && message.at("/state") == json!("open")
    });

    // Half a sentence of somebody else, then ours; then noise, a broken sentence, and one more.
    peer.order(&json!({"text": "6.45,N,123"}));
    let told = peer.order(&rmc("4916.45"));
    expect_near(&mut watch, "twin/gps-1/reported/latitude", &told["latitude"]);
    expect_near(&mut watch, "twin/gps-1/reported/longitude", &told["longitude"]);
    watch.value("twin/gps-1/status", "/state", &json!("online"));
    peer.order(&json!({"hex": "00ff24475052ff4d0024"}));
    peer.order(&json!({"text": told["sentence"].as_str().unwrap().replace("4916", "5916")}));
    peer.order(&json!({"text": "\r\n"}));
    let gga = ["123519", "4807.038", "N", "01131.000", "E", "1", "08", "0.9", "545.4", "M", "46.9", "M", "", ""];
    let told = peer.order(&json!({"nmea": ["GN", "GGA", gga]}));
    expect_near(&mut watch, "twin/gps-1/reported/altitude", &told["altitude"]);
    tests::eventually("the broken sentence to be counted", || {
        let counted = |message: &tests::mqtt::Message| {
            message.topic == "gateway/connection/line/status" && message.at("/dropped").as_u64() > Some(0)
        };
        watch.all().iter().any(counted).then_some(())
    });
    let latitudes: Vec<f64> = watch
        .all()
        .iter()
        .filter(|message| message.topic == "twin/gps-1/reported/latitude")
        .filter_map(|message| message.at("/value").as_f64())
        .collect();
    assert!(latitudes.iter().all(|latitude| (latitude - 49.274_167).abs() < 1e-5), "{latitudes:?}");

    drop(peer);
    cable.unplug();
    watch.value("twin/gps-1/status", "/state", &json!("offline"));
    watch.next("a bad reading", |message| {
        message.topic == "twin/gps-1/reported/latitude" && message.at("/quality").as_str() != Some("good")
    });
    cable.plug();
    let mut peer = SerialDevice::start(&cable.device(), 9600);
    tests::eventually("the receiver to be heard again", || {
        peer.order(&rmc("4717.112"));
        let back = |message: &tests::mqtt::Message| {
            message.topic == "twin/gps-1/reported/latitude"
                && message.at("/value").as_f64().is_some_and(|value| (value - 47.285_2).abs() < 1e-5)
        };
        std::thread::sleep(std::time::Duration::from_millis(200));
        watch.all().iter().any(back).then_some(())
    });
    gateway.stop();
}

#[test]
fn a_wrong_baud_rates_garbage_gives_no_value_and_hides_none() {
    let folder = tempfile::TempDir::new().unwrap();
    let cable = Cable::new(folder.path());
    let mut peer = SerialDevice::start(&cable.device(), 9600);
    let home = home(&line(&cable), GPS);
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#", "gateway/#"]);
    watch.next("the line to be open", |message| {
        message.topic == "gateway/connection/line/status" && message.at("/state") == json!("open")
    });
    // What a sentence at 9600 looks like at 4800: pairs of bits make one; a generator stands for the rest.
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let garbage: String = (0..4_000)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            format!("{:02x}", (seed >> 32) as u8 | 0x80)
        })
        .collect();
    peer.order(&json!({"hex": garbage}));
    let told = peer.order(&rmc("4916.45"));
    let told = if told["latitude"].is_null() { json!(49.274_167) } else { told["latitude"].clone() };
    expect_near(&mut watch, "twin/gps-1/reported/latitude", &told);
    let values = watch.all();
    let first = values.iter().find(|message| message.topic == "twin/gps-1/reported/latitude").unwrap();
    assert!(first.at("/value").as_f64().is_some(), "nothing came before the first sentence: {first:?}");
    gateway.stop();
}

fn thermostat_is_read_and_written(peer: &mut SerialDevice, watch: &mut Watch, port: u16) {
    peer.order(&json!({"thermostat": 19.5}));
    watch.value("twin/heat-1/reported/setpoint", "/value", &json!(19.5));
    watch.value("twin/heat-1/reported/room", "/value", &json!(19.25));
    watch.value("twin/heat-1/status", "/state", &json!("online"));
    assert!(publish(port, "twin/heat-1/desired/setpoint/set", "22.5").status.success());
    watch.value("twin/heat-1/desired/setpoint", "/state", &json!("applied"));
    watch.value("twin/heat-1/reported/setpoint", "/value", &json!(22.5));
    assert_eq!(peer.order(&json!({"setpoint": true}))["setpoint"], 22.5);
    assert!(publish(port, "twin/heat-1/desired/setpoint/set", "31").status.success());
    let refused = watch.value("twin/heat-1/desired/setpoint", "/state", &json!("rejected"));
    assert_eq!(refused.at("/reason"), json!("the device answers ERR RANGE"));
    assert_eq!(peer.order(&json!({"setpoint": true})), json!({"ok": true, "setpoint": 22.5, "writes": 2}));
    assert!(publish(port, "twin/heat-1/desired/setpoint/set", "40").status.success());
    let refused = watch.next("a refusal by the profile", |message| {
        message.topic == "twin/heat-1/result" && message.at("/code") == json!(422)
    });
    assert!(refused.at("/errors/setpoint").as_str().is_some_and(|why| why.contains("above maximum 35")));
}

#[test]
fn a_device_of_pyserial_is_asked_and_written_on_a_terminal() {
    let folder = tempfile::TempDir::new().unwrap();
    let cable = Cable::new(folder.path());
    let mut peer = SerialDevice::start(&cable.device(), 9600);
    let home = home(&line(&cable), "  - {id: heat-1, profile: test.thermostat, connection: line}");
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#"]);
    thermostat_is_read_and_written(&mut peer, &mut watch, gateway.port());
    let shown = home.tidegate(&["device", "show", "heat-1", "--broker", &gateway.url()]);
    assert!(shown.status.success(), "{shown:?}");
    gateway.stop();
}

#[test]
fn a_device_behind_a_serial_server_is_asked_and_written_over_tcp() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = SerialServer::new(folder.path());
    let home = home(
        &format!("  line: {{serial: {{tcp: \"127.0.0.1:{}\"}}}}", server.port()),
        "  - {id: heat-1, profile: test.thermostat, connection: line}",
    );
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#"]);
    let mut peer = SerialDevice::start(&server.device(), 9600);
    thermostat_is_read_and_written(&mut peer, &mut watch, gateway.port());
    gateway.stop();
}

#[test]
fn every_shipped_serial_profile_is_played_and_read() {
    let devices = [
        ("generic.nmea0183-gps", "latitude"),
        ("dsmr.p1", "energy_t1"),
        ("generic.sml_meter", "energy"),
        ("generic.iec62056_21", "energy"),
        ("winsen.mhz19", "co2"),
        ("plantower.pms5003", "pm25"),
        ("novafitness.sds011", "pm10"),
        ("dfrobot.a02yyuw", "distance"),
        ("maxbotix.hrxl", "distance"),
        ("generic.ascii_scale", "weight"),
    ];
    let name = |profile: &str| profile.replace(['.', '-'], "_");
    let lines: Vec<String> = devices
        .iter()
        .map(|(profile, _)| format!("  {0}: {{serial: {{port: ./{0}, baud: 9600}}}}", name(profile)))
        .collect();
    let listed: Vec<String> = devices
        .iter()
        .map(|(profile, _)| format!("  - {{id: {0}, profile: {profile}, connection: {0}}}", name(profile)))
        .collect();
    let home = home(&lines.join("\n"), &listed.join("\n"));
    let mut players = Vec::new();
    for (profile, _) in devices {
        let mut player = Side::start(&home, &["simulate", profile, "--pty", &name(profile), "--every", "200ms"]);
        player.line("listening");
        assert!(Path::new(&home.path().join(name(profile))).exists());
        players.push(player);
    }
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/#"]);
    for (profile, property) in devices {
        let topic = format!("twin/{}/reported/{property}", name(profile));
        let is_good =
            |message: &tests::mqtt::Message| message.topic == topic && message.at("/quality") == json!("good");
        tests::eventually(&topic, || watch.all().iter().any(is_good).then_some(()));
    }
    drop(players);
    gateway.stop();
}
