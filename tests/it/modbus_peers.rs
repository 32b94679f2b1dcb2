//! Devices nobody here wrote, read and written through the whole gateway, with mosquitto's clients on the other side.

use serde_json::{Value, json};
use tests::mqtt::{Watch, publish};
use tests::peers::{Cable, Libmodbus, Pymodbus};

use crate::installation::{boiler_on_tcp, fill, home};

/// Waits until every value of the filled peer has arrived.
#[track_caller]
pub(crate) fn expect_all(watch: &mut Watch, device: &str) {
    let seen = |watch: &Watch, name: &str, expected: &Value| {
        let topic = format!("twin/{device}/reported/{name}");
        watch.all().iter().any(|message| message.topic == topic && message.at("/value") == *expected)
    };
    let expected = [
        ("level", json!(17)),
        ("setpoint", json!(20.5)),
        ("mode", json!("eco")),
        ("target", json!(21.5)),
        ("energy", json!(18_446_744_073_709_551_614_u64)),
        ("pump", json!(false)),
        ("flame", json!(true)),
        ("flow", json!(12.5)),
    ];
    for (name, value) in &expected {
        tests::eventually(&format!("{device}: {name} = {value}"), || seen(watch, name, value).then_some(()));
    }
}

/// Sets every writable property, and expects the outcome, the register and the reported value.
pub(crate) fn write_all(peer: &mut Pymodbus, watch: &mut Watch, port: u16, unit: u8) {
    for (name, value, table, address, registers) in [
        ("setpoint", json!(21.5), "holding", 1, vec![215]),
        ("mode", json!("heat"), "holding", 2, vec![2]),
        ("target", json!(-1.5), "holding", 4, vec![0xBFC0, 0]),
        ("pump", json!(true), "coil", 5, vec![1]),
    ] {
        assert!(publish(port, &format!("twin/boiler-1/desired/{name}/set"), &value.to_string()).status.success());
        watch.value(&format!("twin/boiler-1/desired/{name}"), "/state", &json!("applied"));
        assert_eq!(peer.get(unit, table, address, registers.len().try_into().unwrap()), registers, "{name}");
        let topic = format!("twin/boiler-1/reported/{name}");
        tests::eventually(&format!("{name} to be reported"), || {
            watch
                .all()
                .iter()
                .rev()
                .find(|message| message.topic == topic)
                .filter(|m| m.at("/value") == value)
                .map(drop)
        });
    }
}

#[test]
fn pymodbus_over_tcp_is_read_and_written() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#"]);
    expect_all(&mut watch, "boiler-1");
    let refused = watch.value("twin/boiler-1/reported/refused", "/quality", &json!("bad:exception:2"));
    assert_eq!(refused.at("/value"), Value::Null);
    watch.value("twin/boiler-1/status", "/state", &json!("online"));
    write_all(&mut peer, &mut watch, gateway.port(), 1);
    peer.put(1, "holding", 0, &[18]);
    watch.value("twin/boiler-1/reported/level", "/value", &json!(18));
    gateway.stop();
}

#[test]
fn pymodbus_over_a_serial_line_is_read_written_unplugged_and_plugged_in_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut cable = Cable::new(folder.path());
    let mut peer = Pymodbus::rtu(&cable.device(), 19200);
    fill(&mut peer, 1);
    let wire = format!(
        "  bus: {{modbus: {{serial: {{port: \"{}\", baud: 19200, parity: none}}, timeout: 400ms}}}}",
        cable.gateway().display()
    );
    let home = home(&wire, "  - {id: boiler-1, profile: test.boiler, connection: bus, params: {unit: 1}}");
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#", "gateway/#"]);
    expect_all(&mut watch, "boiler-1");
    write_all(&mut peer, &mut watch, gateway.port(), 1);

    drop(peer);
    cable.unplug();
    watch.value("twin/boiler-1/status", "/state", &json!("offline"));
    let gone = watch.next("a bad reading", |message| {
        message.topic == "twin/boiler-1/reported/level" && message.at("/quality").as_str().is_some_and(|q| q != "good")
    });
    assert_eq!(gone.at("/value"), Value::Null);
    assert_eq!(gone.at("/last_good/value"), json!(17), "the last good value is kept apart");

    cable.plug();
    let mut peer = Pymodbus::rtu(&cable.device(), 19200);
    fill(&mut peer, 1);
    peer.put(1, "holding", 0, &[99]);
    watch.value("twin/boiler-1/reported/level", "/value", &json!(99));
    watch.value("twin/boiler-1/status", "/state", &json!("online"));
    gateway.stop();
}

#[test]
fn a_device_that_goes_and_comes_back_gets_what_was_wished_meanwhile() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let port = peer.port();
    let home = boiler_on_tcp(port);
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#"]);
    expect_all(&mut watch, "boiler-1");
    drop(peer);
    watch.value("twin/boiler-1/status", "/state", &json!("offline"));
    assert!(publish(gateway.port(), "twin/boiler-1/desired/setpoint/set", "18").status.success());
    watch.value("twin/boiler-1/desired/setpoint", "/state", &json!("pending"));
    watch.value("twin/boiler-1/delta", "/desired/setpoint", &json!(18));

    let mut peer = tests::eventually("the port to be free again", || {
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()?;
        Some(Pymodbus::tcp_on(port))
    });
    fill(&mut peer, 1);
    watch.value("twin/boiler-1/desired/setpoint", "/state", &json!("applied"));
    assert_eq!(peer.get(1, "holding", 1, 1), [180]);
    watch.value("twin/boiler-1/delta", "/desired", &json!({}));
    gateway.stop();
}

#[test]
fn a_device_that_cuts_a_value_never_counts_as_applied() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    peer.clamp(1, 250);
    let home = boiler_on_tcp(peer.port());
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#"]);
    expect_all(&mut watch, "boiler-1");
    assert!(publish(gateway.port(), "twin/boiler-1/desired/setpoint/set", "28").status.success());
    let ended = watch.next("the wish to end", |message| {
        message.topic == "twin/boiler-1/desired/setpoint" && message.at("/state") != json!("pending")
    });
    assert_eq!(ended.at("/state"), json!("failed"), "{ended:?}");
    assert!(ended.at("/reason").as_str().is_some_and(|reason| reason.contains("25")), "{ended:?}");
    watch.value("twin/boiler-1", "/reported/properties/setpoint/value", &json!(25));
    gateway.stop();
}

#[test]
fn two_units_on_one_connection_are_not_mixed() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    fill(&mut peer, 2);
    peer.put(1, "holding", 0, &[11]);
    peer.put(2, "holding", 0, &[22]);
    let home = home(
        &format!("  plc: {{modbus: {{tcp: \"127.0.0.1:{}\"}}}}", peer.port()),
        "  - {id: one, profile: test.boiler, connection: plc, params: {unit: 1}}\n  \
           - {id: two, profile: test.boiler, connection: plc, params: {unit: 2}}\n  \
           - {id: dead, profile: test.boiler, connection: plc, params: {unit: 9}}",
    );
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/+/reported/level", "twin/+/status"]);
    watch.value("twin/one/reported/level", "/value", &json!(11));
    watch.value("twin/dead/status", "/state", &json!("offline"));
    peer.put(2, "holding", 0, &[23]);
    watch.value("twin/two/reported/level", "/value", &json!(23));
    let wrong = watch.all().into_iter().filter(|message| {
        let value = message.at("/value");
        (message.topic == "twin/one/reported/level" && value != json!(11))
            || (message.topic == "twin/two/reported/level" && value != json!(22) && value != json!(23))
    });
    assert_eq!(wrong.count(), 0);
    gateway.stop();
}

#[test]
fn libmodbus_is_read_and_written() {
    let peer = Libmodbus::tcp();
    let home = boiler_on_tcp(peer.port());
    let profile = r#"
schema: 1
id: test.libmodbus
version: 1.0.0
meta: {vendor: Test, model: libmodbus}
groups: {fast: {interval: 100ms}}
properties:
  first: {type: int, group: fast, access: rw, from: {modbus: {table: holding, address: 10, type: uint16}}}
  field: {type: int, group: fast, access: rw, from: {modbus: {table: holding, address: 20, type: uint16, bits: "4..7"}}}
  input: {type: int, group: fast, from: {modbus: {table: input, address: 255, type: uint16}}}
  odd: {type: bool, group: fast, access: rw, from: {modbus: {table: coil, address: 7}}}
  third: {type: bool, group: fast, from: {modbus: {table: discrete, address: 8}}}
  beyond: {type: int, group: fast, from: {modbus: {table: holding, address: 300, type: uint16}}}
tests:
  - {name: first, input: {modbus: {holding: {"10": [5]}}}, expect: {first: 5}}
"#;
    home.write("profiles/libmodbus.yaml", profile);
    home.write(
        "gateway.yaml",
        &crate::installation::gateway(
            &format!("  plc: {{modbus: {{tcp: \"127.0.0.1:{}\"}}}}", peer.port()),
            "  - {id: lib, profile: test.libmodbus, connection: plc}",
        ),
    );
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/#"]);
    let expected = [
        ("first", json!(10)),
        ("field", json!(1)),
        ("input", json!(1255)),
        ("odd", json!(true)),
        ("third", json!(false)),
    ];
    for (name, value) in expected {
        let topic = format!("twin/lib/reported/{name}");
        tests::eventually(&format!("{name} = {value}"), || {
            watch.all().iter().any(|m| m.topic == topic && m.at("/value") == value).then_some(())
        });
    }
    watch.value("twin/lib/reported/beyond", "/quality", &json!("bad:exception:2"));
    for (name, value) in [("first", json!(4711)), ("field", json!(9)), ("odd", json!(false))] {
        assert!(publish(gateway.port(), &format!("twin/lib/desired/{name}/set"), &value.to_string()).status.success());
        watch.value(&format!("twin/lib/desired/{name}"), "/state", &json!("applied"));
        watch.value(&format!("twin/lib/reported/{name}"), "/value", &value);
    }
    // Bits 4..7 of register 20 became 9, the others stayed: 20 = 0b0001_0100, 148 = 0b1001_0100.
    let read = home.tidegate(&["device", "read", "lib", "holding", "20", "--json", "--broker", &gateway.url()]);
    let read: Value = serde_json::from_slice(&read.stdout).unwrap_or_default();
    assert_eq!(read["registers"], json!([148]), "{read}");
    gateway.stop();
}
