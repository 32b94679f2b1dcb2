//! A gateway in daily life: its demo, its simulator with faults, a reload, a restart, mappers as a process of their own.

use std::process::{Command, Stdio};

use serde_json::json;
use tests::gateway::{Gateway, Home, binary};
use tests::mqtt::{Watch, publish, retained};
use tests::peers::Pymodbus;

use crate::installation::{PROFILE, boiler_on_tcp, fill, gateway, home};

/// A process that is killed when the test ends.
pub(crate) struct Side(std::process::Child);

impl Side {
    pub(crate) fn start(home: &Home, words: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(words).current_dir(home.path()).env("NO_COLOR", "1");
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The first line it prints that begins with `word`.
    pub(crate) fn line(&mut self, word: &str) -> String {
        use std::io::BufRead;
        let mut lines = std::io::BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        lines.find_map(|line| line.ok().filter(|line| line.starts_with(word))).expect("the process says where it is")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn port_in(line: &str) -> u16 {
    line.rsplit(':').next().unwrap().trim().parse().unwrap()
}

#[test]
fn the_demo_shows_live_values_and_says_what_to_type_next() {
    let home = Home::new();
    let demo = Gateway::start(home.path(), &["demo", "--data", "demo-data", "--port", "0"]);
    let mut watch = Watch::new(demo.port(), &["twin/#"]);
    let first = watch.next("a live value", |message| {
        message.topic.contains("/reported/")
            && message.at("/quality") == json!("good")
            && message.at("/value").is_number()
    });
    let same = first.topic.clone();
    watch.next("the value to move", |message| {
        message.topic.contains("/reported/")
            && message.at("/version").as_u64() > first.at("/version").as_u64()
            && message.topic.split('/').nth(1) == same.split('/').nth(1)
    });
    let said = tests::eventually("the advice", || {
        let said = demo.lines().join("\n");
        said.contains("Ctrl-C ends").then_some(said)
    });
    let radio = ["Six simulated devices", "No Bluetooth device is among them: "];
    assert!(radio.iter().any(|words| said.contains(words)), "a radio, or why there is none: {said}");
    for word in ["tidegate twin set", "tidegate twin watch", "mosquitto_sub"] {
        assert!(said.contains(word), "{word} is missing: {said}");
    }
    let url = demo.url();
    let set = home.tidegate(&["twin", "set", "boiler", "setpoint=24.5", "--wait", "--broker", &url]);
    assert!(set.status.success(), "{set:?}");
    demo.stop();
}

#[test]
fn a_simulated_device_is_read_written_and_misbehaves_on_request() {
    let home = Home::new();
    home.write("boiler.yaml", PROFILE);
    let mut device = Side::start(
        &home,
        &["simulate", "boiler.yaml", "--tcp", "127.0.0.1:0", "--fault", "exception=6@0.2", "--fault", "delay=5ms"],
    );
    let port = port_in(&device.line("listening"));
    let home = boiler_on_tcp(port);
    let running = home.start();
    let mut watch = Watch::new(running.port(), &["twin/#", "gateway/#"]);
    watch.next("a value in spite of busy answers", |message| {
        message.topic == "twin/boiler-1/reported/flow" && message.at("/quality") == json!("good")
    });
    assert!(publish(running.port(), "twin/boiler-1/desired/setpoint/set", "19.5").status.success());
    watch.value("twin/boiler-1/desired/setpoint", "/state", &json!("applied"));
    watch.value("twin/boiler-1/reported/setpoint", "/value", &json!(19.5));
    watch.next("busy answers to be counted", |message| {
        message.topic == "gateway/connection/plc/status" && message.at("/exceptions").as_u64() > Some(0)
    });
    drop(device);
    watch.value("twin/boiler-1/status", "/state", &json!("offline"));
    running.stop();
}

#[test]
fn a_simulated_device_on_a_pseudo_terminal_is_read() {
    let home = home(
        "  bus: {modbus: {serial: {port: ./bus, baud: 19200}, timeout: 400ms}}",
        "  - {id: boiler-1, profile: test.boiler, connection: bus, params: {unit: 7}}",
    );
    let mut device = Side::start(&home, &["simulate", "profiles/boiler.yaml", "--pty", "bus", "--unit", "7"]);
    device.line("listening");
    let running = home.start();
    let mut watch = Watch::new(running.port(), &["twin/#"]);
    watch.next("a value", |message| {
        message.topic == "twin/boiler-1/reported/flow" && message.at("/quality") == json!("good")
    });
    running.stop();
}

#[test]
fn a_saved_file_or_a_signal_reloads_without_dropping_anybody() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    fill(&mut peer, 2);
    peer.put(2, "holding", 0, &[222]);
    let connections = format!("  plc: {{modbus: {{tcp: \"127.0.0.1:{}\"}}}}", peer.port());
    let one = "  - {id: one, profile: test.boiler, connection: plc, params: {unit: 1}}";
    let two = "  - {id: two, profile: test.boiler, connection: plc, params: {unit: 2}}";
    let home = home(&connections, one);
    let running = home.start();
    let watch = Watch::new(running.port(), &["twin/#", "gateway/status"]);
    watch.value("twin/one/reported/level", "/value", &json!(17));

    home.write("gateway.yaml", &gateway(&connections, &format!("{one}\n{two}")));
    running.signal("HUP");
    watch.value("twin/two/reported/level", "/value", &json!(222));

    home.write("gateway.yaml", "schema: 1\ngateway: {");
    running.signal("HUP");
    tests::eventually("the refusal to be logged", || running.log().contains("gateway.yaml").then_some(()));
    watch.value("gateway/status", "/reload/state", &json!("refused"));
    watch.value("gateway/status", "/reload/errors/0/file", &json!("gateway.yaml"));
    peer.put(1, "holding", 0, &[18]);
    watch.value("twin/one/reported/level", "/value", &json!(18));

    // Saved, without a signal: the device goes, and its retained topics with it.
    home.write("gateway.yaml", &gateway(&connections, one));
    watch.value("gateway/status", "/reload/state", &json!("applied"));
    tests::eventually("the topics of the device that went to be cleared", || {
        retained(running.port(), &["twin/two/#", "twin/two"]).is_empty().then_some(())
    });
    assert!(
        !watch
            .all()
            .iter()
            .any(|message| message.topic == "twin/one/status" && message.at("/state") == json!("offline"))
    );
    running.stop();
}

#[test]
fn a_restart_shows_the_twins_before_any_device_answers() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    let running = home.start();
    let watch = Watch::new(running.port(), &["twin/#"]);
    watch.value("twin/boiler-1/reported/level", "/value", &json!(17));
    assert!(publish(running.port(), "twin/boiler-1/desired/setpoint/set", "23.5").status.success());
    let applied = watch.value("twin/boiler-1/desired/setpoint", "/state", &json!("applied"));
    let document = watch.value("twin/boiler-1", "/reported/properties/setpoint/value", &json!(23.5));
    running.stop();
    drop(peer);

    let running = home.start();
    let all = retained(running.port(), &["twin/#"]);
    let find = |topic: &str| all.iter().find(|message| message.topic == topic).unwrap_or_else(|| panic!("no {topic}"));
    assert_eq!(find("twin/boiler-1/desired/setpoint").payload, applied.payload);
    assert_eq!(find("twin/boiler-1/delta").at("/desired"), json!({}));
    let after = find("twin/boiler-1");
    assert_eq!(after.at("/epoch"), document.at("/epoch"));
    assert!(after.at("/reported/version").as_u64() >= document.at("/reported/version").as_u64());
    running.stop();
}

#[test]
fn mappers_run_as_a_process_of_their_own() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    // The gateway knows the device but leaves the wire to the other process.
    let running = Gateway::start(home.path(), &["run", "-c", "gateway.yaml", "--no-mappers"]);
    let watch = Watch::new(running.port(), &["twin/#"]);
    let mapper = Side::start(&home, &["mapper", "-c", "gateway.yaml", "--broker", &running.url()]);
    watch.value("twin/boiler-1/reported/level", "/value", &json!(17));
    assert!(publish(running.port(), "twin/boiler-1/desired/setpoint/set", "18.5").status.success());
    watch.value("twin/boiler-1/desired/setpoint", "/state", &json!("applied"));
    assert_eq!(peer.get(1, "holding", 1, 1), [185]);
    drop(mapper);
    running.stop();
}

#[test]
fn a_mapper_that_dies_leaves_a_device_that_says_so() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    let running = Gateway::start(home.path(), &["run", "-c", "gateway.yaml", "--no-mappers"]);
    let watch = Watch::new(running.port(), &["twin/boiler-1/status", "gateway/connection/+/status"]);
    let mapper = Side::start(&home, &["mapper", "-c", "gateway.yaml", "--broker", &running.url()]);
    watch.value("twin/boiler-1/status", "/state", &json!("online"));
    drop(mapper);
    watch.value("gateway/connection/plc/status", "/reason", &json!("the mapper is gone"));
    watch.value("twin/boiler-1/status", "/reason", &json!("the mapper is gone"));
    watch.value("twin/boiler-1/status", "/state", &json!("offline"));
    let mapper = Side::start(&home, &["mapper", "-c", "gateway.yaml", "--broker", &running.url()]);
    tests::eventually("the device to be back", || {
        let kept = retained(running.port(), &["twin/boiler-1/status"]);
        kept.first().is_some_and(|message| message.at("/state") == json!("online")).then_some(())
    });
    drop(mapper);
    running.stop();
}

#[test]
fn a_gateway_whose_output_nobody_reads_any_more_goes_on_and_stops_cleanly() {
    use std::io::BufRead;
    let home = home("  {}", "  []");
    let mut child = Command::new(binary())
        .args(["run", "-c", "gateway.yaml"])
        .current_dir(home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Reads the first line only, then closes both pipes.
    drop(child.stderr.take());
    let mut first = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let port = port_in(&first);
    assert!(publish(port, "still/there", "1").status.success());
    let stop = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(stop.success());
    let ended = tests::eventually("the gateway to stop", || child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
}
