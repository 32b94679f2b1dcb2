//! pymodbus on the wires besides TCP and RTU, through the whole gateway: ASCII on a line and over TCP, datagrams, TLS.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::gateway::Home;
use tests::mqtt::{Watch, publish};
use tests::peers::{Cable, Pymodbus};

use crate::installation::{fill, gateway, home};
use crate::modbus_peers::{expect_all, write_all};

const DEVICE: &str = "  - {id: boiler-1, profile: test.boiler, connection: plc, params: {unit: 1}}";

/// Reads of every table, a refusal, writes with their read-back, the status of the wire, and the commands.
fn read_and_write(peer: &mut Pymodbus, home: &Home) {
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#", "gateway/#"]);
    expect_all(&mut watch, "boiler-1");
    let refused = watch.value("twin/boiler-1/reported/refused", "/quality", &json!("bad:exception:2"));
    assert_eq!(refused.at("/value"), Value::Null);
    watch.value("twin/boiler-1/status", "/state", &json!("online"));
    write_all(peer, &mut watch, gateway.port(), 1);
    peer.put(1, "holding", 0, &[18]);
    watch.value("twin/boiler-1/reported/level", "/value", &json!(18));
    watch.next("the wire's status", |message| {
        message.topic == "gateway/connection/plc/status"
            && message.at("/state") == json!("open")
            && message.at("/exceptions").as_u64() > Some(0)
    });
    let shown = home.tidegate(&["device", "show", "boiler-1", "--broker", &gateway.url()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("connection plc, unit 1"), "{shown}");
    gateway.stop();
}

fn on(wire: &str) -> Home {
    home(&format!("  plc: {{modbus: {{{wire}, timeout: 400ms}}}}"), DEVICE)
}

#[test]
fn pymodbus_with_ascii_frames_over_tcp_is_read_and_written() {
    let mut peer = Pymodbus::ascii_over_tcp();
    fill(&mut peer, 1);
    let home = on(&format!("ascii_over_tcp: \"127.0.0.1:{}\"", peer.port()));
    read_and_write(&mut peer, &home);
}

#[test]
fn pymodbus_with_ascii_frames_on_a_serial_line_is_read_and_written() {
    let folder = tempfile::TempDir::new().unwrap();
    let cable = Cable::new(folder.path());
    let mut peer = Pymodbus::ascii(&cable.device(), 19200);
    fill(&mut peer, 1);
    let port = cable.gateway().display().to_string();
    read_and_write(&mut peer, &on(&format!("serial: {{port: \"{port}\", baud: 19200, framing: ascii}}")));
}

#[test]
fn pymodbus_on_udp_is_read_and_written() {
    let mut peer = Pymodbus::udp_on(0);
    fill(&mut peer, 1);
    let home = on(&format!("udp: \"127.0.0.1:{}\"", peer.port()));
    read_and_write(&mut peer, &home);
}

#[test]
fn a_device_on_udp_goes_and_comes_back_and_its_wire_is_changed_while_the_gateway_runs() {
    let mut peer = Pymodbus::udp_on(0);
    fill(&mut peer, 1);
    let port = peer.port();
    let home = on(&format!("udp: \"127.0.0.1:{port}\""));
    let running = home.start();
    let mut watch = Watch::new(running.port(), &["twin/#"]);
    expect_all(&mut watch, "boiler-1");
    drop(peer);
    watch.value("twin/boiler-1/status", "/state", &json!("offline"));
    assert!(publish(running.port(), "twin/boiler-1/desired/setpoint/set", "18").status.success());
    watch.value("twin/boiler-1/desired/setpoint", "/state", &json!("pending"));

    let mut peer = Pymodbus::udp_on(port);
    fill(&mut peer, 1);
    watch.value("twin/boiler-1/desired/setpoint", "/state", &json!("applied"));
    assert_eq!(peer.get(1, "holding", 1, 1), [180]);

    let mut other = Pymodbus::ascii_over_tcp();
    fill(&mut other, 1);
    other.put(1, "holding", 0, &[4711]);
    let wire = format!("  plc: {{modbus: {{ascii_over_tcp: \"127.0.0.1:{}\"}}}}", other.port());
    home.write("gateway.yaml", &gateway(&wire, DEVICE));
    watch.value("twin/boiler-1/reported/level", "/value", &json!(4711));
    running.stop();
}

fn openssl(folder: &Path, words: &str) {
    let done = Command::new("openssl").args(words.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An authority, and what it has signed for a server and a client.
fn certificates(folder: &Path) {
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("{new} -x509 -keyout ca.key -out ca.crt -subj /CN=ca -days 2"));
    std::fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    for name in ["server", "client"] {
        openssl(folder, &format!("{new} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let sign = "x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san";
        openssl(folder, &format!("{sign} -in {name}.csr -out {name}.crt"));
    }
}

#[test]
fn pymodbus_inside_tls_is_read_and_written_by_who_has_a_certificate() {
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path());
    let mut peer = Pymodbus::tls(folder.path());
    fill(&mut peer, 1);
    let address = format!("127.0.0.1:{}", peer.port());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    read_and_write(
        &mut peer,
        &on(&format!("tls: {{address: \"{address}\", ca: \"{ca}\", cert: \"{cert}\", key: \"{key}\"}}, in_flight: 4")),
    );

    // Files named without a leading / lie beside gateway.yaml; another authority's word counts for nothing.
    let home = on(&format!("tls: {{address: \"{address}\", ca: other.crt}}"));
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(home.path(), &format!("{new} -x509 -keyout other.key -out other.crt -subj /CN=other -days 2"));
    let running = home.start();
    let watch = Watch::new(running.port(), &["gateway/#", "twin/#"]);
    let reason = |words: &'static str| {
        tests::eventually(words, || {
            let all = watch.all();
            let mut status = all.iter().filter(|message| message.topic == "gateway/connection/plc/status");
            status.any(|message| message.at("/reason").as_str().is_some_and(|r| r.contains(words))).then_some(())
        });
    };
    reason("invalid peer certificate");
    // The right authority, but nothing to show for ourselves.
    std::fs::copy(file("ca.crt"), home.path().join("ca.crt")).unwrap();
    let wire = |tls: &str| format!("  plc: {{modbus: {{tls: {{address: \"{address}\", {tls}}}}}}}");
    home.write("gateway.yaml", &gateway(&wire("ca: ca.crt"), DEVICE));
    tests::eventually("the device to be out of reach", || {
        let all = watch.all();
        all.iter().any(|m| m.topic == "twin/boiler-1/reported/level" && m.at("/quality") != json!("good")).then_some(())
    });
    assert!(!watch.all().iter().any(|m| m.topic == "twin/boiler-1/reported/level" && m.at("/value") == json!(18)));
    // A file that holds something else.
    home.write("empty.crt", "no certificate");
    home.write("gateway.yaml", &gateway(&wire("ca: empty.crt"), DEVICE));
    reason("empty.crt cannot be used: ");
    running.stop();
}

#[test]
fn a_file_of_a_wire_that_is_not_there_is_told_with_its_place() {
    let home = Home::new();
    home.write("profiles/boiler.yaml", crate::installation::PROFILE);
    let wire = "  plc: {modbus: {tls: {address: \"127.0.0.1:802\", ca: ca.crt, cert: c.crt, key: c.key}}}";
    home.write("gateway.yaml", &gateway(wire, DEVICE));
    let checked = home.tidegate(&["check", "gateway.yaml"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    for place in
        ["gateway.yaml:7:54: there is no file ca.crt", "7:68: there is no file c.crt", "7:80: there is no file c.key"]
    {
        assert!(said.contains(place), "{place}: {said}");
    }
}
