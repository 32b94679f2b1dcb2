//! Wrong input gets one clear message; nothing is lost and nothing panics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tests::gateway::{Gateway, Home, binary};
use tests::mqtt::{publish, retained};

use crate::installation::{PROFILE, gateway, home};

const ONE: &str = "  - {id: boiler-1, profile: test.boiler, connection: plc, params: {unit: 1}}";
const PLC: &str = "  plc: {modbus: {tcp: \"127.0.0.1:9\", timeout: 400ms}}";

/// Runs `tidegate check --format json` in a home and gives what it printed.
fn check(home: &Home) -> Value {
    let output = home.tidegate(&["check", "--format", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = if report["ok"] == json!(true) { 0 } else { 78 };
    assert_eq!(output.status.code(), Some(expected), "{report}");
    report
}

/// Expects one complaint in `file` at `line` that has all of these words in message and hint.
fn expect(home: &Home, file: &str, line: u64, words: &[&str]) {
    let report = check(home);
    let errors = report["errors"].as_array().unwrap();
    let found = errors.iter().any(|error| {
        let text = format!("{} {}", error["message"], error["hint"]);
        error["file"].as_str().is_some_and(|name| name.ends_with(file))
            && error["line"] == json!(line)
            && words.iter().all(|word| text.contains(word))
    });
    assert!(found, "no complaint at {file}:{line} has {words:?}: {report:#}");
    let run = home.tidegate(&["run", "-c", "gateway.yaml"]);
    assert_eq!(run.status.code(), Some(78), "a wrong configuration does not start");
}

#[test]
fn a_good_installation_checks() {
    let report = check(&home(PLC, ONE));
    assert_eq!(report["ok"], json!(true), "{report:#}");
    assert_eq!(report["tests"]["failed"], json!([]));
}

#[test]
fn wrong_configurations_are_told_with_place_and_remedy() {
    let misspelt = home(PLC, "  []");
    misspelt.write("gateway.yaml", &(gateway(PLC, "  []") + "brokr: {}\n"));
    expect(&misspelt, "gateway.yaml", 10, &["brokr", "broker"]);
    expect(&home("  plc: {modbus: {tcp: 502}}", "  []"), "gateway.yaml", 7, &["tcp"]);
    let twice = format!("{ONE}\n  - {{id: boiler-2, profile: test.boiler, connection: plc, params: {{unit: 1}}}}");
    expect(&home(PLC, &twice), "gateway.yaml", 10, &["unit", "1", "boiler-1"]);
    expect(&home(PLC, &format!("{ONE}\n{ONE}")), "gateway.yaml", 10, &["boiler-1"]);
    expect(&home(PLC, &ONE.replace("test.boiler", "test.boler")), "gateway.yaml", 9, &["test.boler", "test.boiler"]);
    expect(&home(PLC, &ONE.replace("plc", "plx")), "gateway.yaml", 9, &["plx", "plc"]);
    let home = home(PLC, ONE);
    home.write("profiles/boiler.yaml", &PROFILE.replace("version: 1.0.0", "version: 1.0.0\nextends: [test.boiler]"));
    expect(&home, "boiler.yaml", 5, &["test.boiler"]);
}

#[test]
fn every_complaint_is_shown_at_once() {
    let home =
        Home::with("schema: 1\ngateway: {id: \"bad id\", data: data}\nbroker: {anonymous: sometimes}\ndevises: []\n");
    let report = check(&home);
    assert!(report["errors"].as_array().unwrap().len() >= 3, "{report:#}");
    for error in report["errors"].as_array().unwrap() {
        for key in ["file", "line", "column", "message", "hint"] {
            assert!(!error[key].is_null(), "{key} is missing in {error}");
        }
    }
}

#[test]
fn a_profile_whose_own_test_fails_does_not_pass() {
    let home = home(PLC, ONE);
    home.write("profiles/boiler.yaml", &PROFILE.replace("expect: {level: 7}", "expect: {level: 8}"));
    let report = check(&home);
    let failed = &report["tests"]["failed"][0];
    assert_eq!((&failed["profile"], &failed["property"]), (&json!("test.boiler"), &json!("level")));
    assert_eq!((&failed["expected"], &failed["got"]), (&json!(8), &json!(7)));
}

#[test]
fn a_port_in_use_is_named_with_its_holder() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let home = home("  {}", "  []");
    home.write("gateway.yaml", &gateway("  {}", "  []").replace("127.0.0.1:0", &format!("127.0.0.1:{port}")));
    let output = home.tidegate(&["run", "-c", "gateway.yaml"]);
    assert_eq!(output.status.code(), Some(74));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&port.to_string()) && said.contains(&std::process::id().to_string()), "{said}");
}

#[test]
fn a_store_that_cannot_be_used_is_a_clear_error_and_a_second_gateway_is_refused() {
    let first_home = home("  {}", "  []");
    first_home.write("data", "this is a file, not a folder");
    let output = first_home.tidegate(&["run", "-c", "gateway.yaml"]);
    assert_eq!(output.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&output.stderr).contains("data"), "{output:?}");

    let home = home("  {}", "  []");
    let first = home.start();
    let output = home.tidegate(&["run", "-c", "gateway.yaml"]);
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("another"), "{output:?}");
    first.stop();
}

#[test]
fn a_damaged_store_is_set_aside_with_a_loud_word() {
    let home = home("  {}", "  []");
    home.start().stop();
    let database = std::fs::read_dir(home.path().join("data")).unwrap().map(|entry| entry.unwrap().path());
    let database = database.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "db")).unwrap();
    let mut bytes = std::fs::read(&database).unwrap();
    for byte in bytes.iter_mut().take(4096) {
        *byte = 0x5A;
    }
    std::fs::write(&database, bytes).unwrap();
    let log = home.start().stop();
    assert!(log.contains("set aside"), "{log}");
    let files: Vec<String> = std::fs::read_dir(home.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(files.iter().any(|name| name.contains("damaged")), "{files:?}");
}

#[test]
fn a_serial_port_that_is_not_there_leaves_the_device_offline_with_the_reason() {
    let home =
        home("  bus: {modbus: {serial: {port: /dev/serial/by-id/nothing, baud: 9600}}}", &ONE.replace("plc", "bus"));
    let running = home.start();
    let status = tests::eventually("the wire's state", || {
        let all = retained(running.port(), &["gateway/connection/bus/status"]);
        all.into_iter().find(|message| message.at("/state") == json!("closed"))
    });
    assert!(
        status.at("/reason").as_str().is_some_and(|reason| reason.contains("/dev/serial/by-id/nothing")),
        "{status:?}"
    );
    tests::eventually("the device to be offline", || {
        let all = retained(running.port(), &["twin/boiler-1/status"]);
        all.into_iter().find(|message| message.at("/state") == json!("offline"))
    });
    running.stop();
}

/// A CONNECT of MQTT 3.1.1 for client id `x`.
const CONNECT: &[u8] = &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'x'];

fn still_serves(running: &Gateway) {
    assert!(publish(running.port(), "alive", "1").status.success());
    assert!(!running.log().contains("panicked"), "{}", running.log());
}

#[test]
fn malformed_packets_end_their_connection_and_nothing_else() {
    let home = home("  {}", "  []");
    let running = home.start();
    let with_connect = |rest: &[u8]| [CONNECT, rest].concat();
    let long_topic = {
        let mut packet = vec![0x30, 0x81, 0x80, 0x04, 0xFF, 0xFF];
        packet.extend(std::iter::repeat_n(b'a', 65_535));
        packet
    };
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("not MQTT", b"GET / HTTP/1.1\r\n\r\n".to_vec(), true),
        ("a length without end", vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], true),
        ("a packet type that is reserved", with_connect(&[0xF0, 0]), true),
        ("a topic with NUL", with_connect(&[0x30, 5, 0, 3, b'a', 0, b'b']), true),
        ("a topic with a wildcard", with_connect(&[0x30, 5, 0, 3, b'a', b'/', b'#']), true),
        ("QoS 3", with_connect(&[0x36, 5, 0, 1, b'a', 0, 1]), true),
        ("a second CONNECT", with_connect(CONNECT), true),
        ("a topic of 65,535 bytes", with_connect(&long_topic), false),
    ];
    for (what, bytes, closes) in cases {
        let mut socket = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(if closes { 5000 } else { 500 }))).unwrap();
        let _ = socket.write_all(&bytes);
        let mut answer = Vec::new();
        let ended = socket.read_to_end(&mut answer);
        assert_eq!(
            ended.is_ok() || matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset),
            closes,
            "{what}: {ended:?}"
        );
        still_serves(&running);
    }
    running.stop();
}

#[test]
fn thousands_of_mutated_packets_do_not_hurt() {
    let home = home("  {}", "  []");
    let running = home.start();
    let publish_packet = [0x32, 8, 0, 3, b'a', b'/', b'b', 0, 7, b'x'];
    let subscribe = [0x82, 8, 0, 1, 0, 3, b'a', b'/', b'b', 1];
    let seed: Vec<u8> = [CONNECT, &publish_packet, &subscribe].concat();
    // A linear congruential generator: the same two thousand cases each time.
    let mut state: u32 = 1;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for _ in 0..2000 {
        let mut bytes = seed.clone();
        for _ in 0..=(next() % 4) {
            let at = next() as usize % bytes.len();
            match next() % 3 {
                0 => bytes[at] = next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, next() as u8),
            }
        }
        if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", running.port())) {
            let _ = socket.write_all(&bytes);
        }
    }
    still_serves(&running);
    let status = retained(running.port(), &["gateway/status"]);
    assert_eq!(status[0].at("/broker/faults"), json!(0), "{status:?}");
    running.stop();
}

#[test]
fn usage_errors_and_an_absent_gateway_have_their_exit_codes() {
    let home = Home::new();
    for (words, code) in [
        (vec!["no-such-command"], 2),
        (vec!["twin", "set", "boiler-1", "setpoint"], 2),
        (vec!["twin", "get", "bad/id", "--broker", "mqtt://127.0.0.1:9"], 69),
        (vec!["status", "--broker", "mqtt://127.0.0.1:9"], 69),
        (vec!["run", "-c", "missing.yaml"], 78),
        (vec!["simulate", "no.such.profile", "--tcp", "127.0.0.1:0"], 65),
    ] {
        let output = home.tidegate(&words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{words:?} says nothing");
    }
    assert!(binary().exists());
}
