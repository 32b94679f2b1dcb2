//! KubeEdge's device topics: recordings of edgecore, replayed by an MQTT client against a running gateway.

use std::time::Duration;

use serde_json::{Value, json};
use tests::gateway::{Gateway, Home};
use tests::mqtt::{Message, Watch, publish, publish_with};
use tests::peers::Pymodbus;

use crate::installation::{PROFILE, fill};

/// Recorded with kubeedge at 16cd8548; the file's fields are `in` and `out`.
const RECORDED: &str = include_str!("../data/kubeedge.jsonl");

/// Steps that are answered differently, with the row of the table in `docs/kubeedge.md`.
const DIFFERENT: [(u64, &str); 13] = [
    (7, "disconnected is offline, not dropped"),
    (19, "errors go to the device's topic, with the id that was asked"),
    (20, "errors go to the device's topic, with the id that was asked"),
    (21, "errors go to the device's topic, with the id that was asked"),
    (22, "a value may be any text"),
    (27, "no document for a key that never was"),
    (30, "errors go to the device's topic, with the id that was asked"),
    (31, "a value without value is an error, not the end of the worker"),
    (34, "follows from step 22"),
    (36, "no document for a key that was deleted before"),
    (38, "follows from step 22"),
    (55, "a namespace may be called device"),
    (56, "a node may be called node"),
];

const DEVICE: &str = "$hw/events/device/default/d1";

fn home(node: &str) -> Home {
    let home = Home::with(&format!(
        "schema: 1\n\
         gateway: {{id: test-gw, data: data}}\n\
         profiles: [profiles]\n\
         broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}]}}\n\
         connections:\n  plc: {{modbus: {{tcp: \"127.0.0.1:9\"}}}}\n\
         devices:\n  - {{id: d1, profile: test.boiler, connection: plc, params: {{unit: 1}}}}\n\
         compat: {{kubeedge: {{node: {node}}}}}\n"
    ));
    home.write("profiles/boiler.yaml", &PROFILE.replace("model: Boiler}", "model: Boiler, description: TestSensor}"));
    home
}

/// A gateway that leaves the device to a mapper elsewhere, as KubeEdge's do.
fn start(home: &Home) -> Gateway {
    Gateway::start(home.path(), &["run", "-c", "gateway.yaml", "--no-mappers"])
}

/// Times and made-up ids as the recordings write them.
fn plain(value: &Value, asked: &str) -> Value {
    match value {
        Value::Object(fields) => {
            let said = |(key, value): (&String, &Value)| {
                let value = match key.as_str() {
                    "timestamp" if value.as_i64().is_some_and(|ms| ms > 1_600_000_000_000) => json!("<ms>"),
                    "lastOnlineTime" if value.as_str().is_some_and(|it| it.ends_with('Z')) => json!("<rfc3339>"),
                    "event_id" if value.as_str().is_some_and(|id| id.len() == 36 && id != asked) => json!("<uuid>"),
                    _ => plain(value, asked),
                };
                (key.clone(), value)
            };
            Value::Object(fields.iter().map(said).collect())
        }
        other => other.clone(),
    }
}

/// Publishes, and gathers what comes on KubeEdge's topics until a get of our own is answered: answers keep their order.
fn exchange(port: u16, watch: &mut Watch, step: u64, topic: &str, payload: &str) -> Vec<Message> {
    publish_with(port, topic, payload, &["-q", "1"]);
    let marker = format!("end-{step}");
    publish(port, &format!("{DEVICE}/twin/get"), &json!({"event_id": marker}).to_string());
    let mut answers = Vec::new();
    loop {
        let message = watch.next("the answers to end", |_| true);
        if message.at("/event_id") == json!(marker) {
            if message.topic.ends_with("/get/result") {
                return answers;
            }
            continue;
        }
        answers.push(message);
    }
}

#[test]
fn recordings_of_edgecore_are_answered_alike_over_mqtt() {
    let home = home("edge-node");
    let gateway = start(&home);
    let mut watch = Watch::new(gateway.port(), &["$hw/#"]);
    let mut compared = Vec::new();
    let mut different = Vec::new();
    for line in RECORDED.lines() {
        let step: Value = serde_json::from_str(line).unwrap();
        let n = step["n"].as_u64().unwrap();
        // What came over the cloud's own channel has no MQTT topic; from step 43 on the session is about that.
        if step["in"]["via"] != "mqtt" || n == 44 {
            continue;
        }
        let (topic, payload) = (step["in"]["topic"].as_str().unwrap(), step["in"]["payload"].as_str().unwrap());
        let asked: Value = serde_json::from_str(payload).unwrap_or_default();
        let asked = asked["event_id"].as_str().unwrap_or("").to_owned();
        let ours: Vec<(String, Value)> = exchange(gateway.port(), &mut watch, n, topic, payload)
            .into_iter()
            .filter(|message| message.topic != topic)
            .map(|message| (message.topic.clone(), without_reason(plain(&message.payload, &asked))))
            .collect();
        let recorded: Vec<(String, Value)> = step["out"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|out| out["via"] == "mqtt")
            .map(|out| (out["topic"].as_str().unwrap().to_owned(), without_reason(out["payload"].clone())))
            .collect();
        if DIFFERENT.iter().any(|(step, _)| *step == n) {
            assert_ne!(ours, recorded, "step {n} is listed as different, and is not");
            different.push(n);
        } else {
            assert_eq!(ours, recorded, "step {n}: {topic} {payload}");
            compared.push(n);
        }
    }
    assert!(compared.len() >= 30, "{compared:?}");
    assert_eq!(different, DIFFERENT.map(|(n, _)| n));
    gateway.stop();
}

/// Go's own words for a syntax error are nobody's contract.
fn without_reason(mut payload: Value) -> Value {
    if payload["reason"].as_str().is_some_and(|reason| reason.starts_with("Unmarshal")) {
        payload["reason"] = json!("Unmarshal …");
    }
    payload
}

#[test]
fn an_error_comes_on_the_devices_own_topic_with_the_id_that_was_asked() {
    let home = home("edge-1");
    let gateway = start(&home);
    let mut watch = Watch::new(gateway.port(), &["$hw/#"]);
    for (end, payload, code, reason) in [
        ("twin/update", r#"{"event_id":"x1"}"#, 400, "Update twin error, key:twin does not exist"),
        (
            "twin/update",
            r#"{"event_id":"x2","twin":{"bad~key":{"actual":{"value":"1"}}}}"#,
            400,
            "The key of twin must",
        ),
        (
            "twin/update",
            r#"{"event_id":"x3","twin":{"k":{"actual":{"metadata":{"timestamp":1}}}}}"#,
            400,
            "actual of k has no value",
        ),
        (
            "twin/update",
            r#"{"event_id":"x4","twin":{"k":{"actual":{"value":5}}}}"#,
            400,
            "Unmarshal update request body failed",
        ),
        ("state/update", r#"{"event_id":"x5","state":"ERROR"}"#, 400, "\"ERROR\" is no state"),
        ("twin/update", r#"{"event_id":"x6","twin":{"level":{"expected":{"value":"3"}}}}"#, 400, "level: "),
        ("twin/update", r#"{"event_id":"x7","twin":{"setpoint":{"expected":{"value":"99"}}}}"#, 400, "setpoint: "),
    ] {
        publish(gateway.port(), &format!("{DEVICE}/{end}"), payload);
        let answer = watch.next(payload, |message| message.topic == format!("{DEVICE}/{end}/result"));
        let asked: Value = serde_json::from_str(payload).unwrap();
        assert_eq!((answer.at("/event_id"), answer.at("/code")), (asked["event_id"].clone(), json!(code)), "{payload}");
        assert!(answer.at("/reason").as_str().unwrap().contains(reason), "{payload}: {}", answer.payload);
    }
    gateway.stop();
}

#[test]
fn an_application_written_for_kubeedge_reads_and_sets_a_modbus_device() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = home("edge-1");
    let text = std::fs::read_to_string(home.path().join("gateway.yaml")).unwrap();
    home.write("gateway.yaml", &text.replace("127.0.0.1:9\"", &format!("127.0.0.1:{}\", timeout: 400ms", peer.port())));
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["$hw/events/device/#", "twin/d1/#"]);
    watch.value("twin/d1/reported/setpoint", "/value", &json!(20.5));
    // One level, as clients before 1.17 write it: the answer comes in the same form.
    publish(gateway.port(), "$hw/events/device/d1/twin/get", r#"{"event_id":"g1"}"#);
    let got = watch.next("the twin", |message| message.topic == "$hw/events/device/d1/twin/get/result");
    assert_eq!(got.at("/twin/setpoint/actual/value"), json!("20.5"));
    assert_eq!(got.at("/twin/setpoint/metadata/type"), json!("float"));
    assert_eq!(got.at("/twin/pump/actual/value"), json!("false"));
    let update =
        r#"{"event_id":"u1","twin":{"setpoint":{"expected":{"value":"22.5"}},"pump":{"expected":{"value":"true"}}}}"#;
    publish(gateway.port(), &format!("{DEVICE}/twin/update"), update);
    let result = watch.next("the result", |message| message.topic == format!("{DEVICE}/twin/update/result"));
    assert_eq!((result.at("/event_id"), result.at("/twin/setpoint/expected/value")), (json!("u1"), json!("22.5")));
    let delta = watch.next("the delta", |message| message.topic == format!("{DEVICE}/twin/update/delta"));
    assert_eq!(delta.at("/delta"), json!({"pump": "true", "setpoint": "22.5"}));
    watch.value("twin/d1/desired/setpoint", "/state", &json!("applied"));
    assert_eq!(peer.get(1, "holding", 1, 1), [225]);
    assert_eq!(peer.get(1, "coil", 5, 1), [1]);
    let applied = |message: &Message| {
        message.topic == format!("{DEVICE}/twin/update/document")
            && message.at("/twin/setpoint/current/actual/value") == json!("22.5")
    };
    watch.next("the document of what the device then said", applied);
    gateway.stop();
}

#[test]
fn what_no_profile_has_outlives_a_kill() {
    let home = home("edge-1");
    let gateway = start(&home);
    let port = gateway.port();
    let mut watch = Watch::new(port, &["$hw/#"]);
    publish(
        port,
        &format!("{DEVICE}/twin/update"),
        r#"{"event_id":"u","twin":{"note":{"actual":{"value":"a b"},"optional":false}}}"#,
    );
    publish(port, &format!("{DEVICE}/state/update"), r#"{"state":"online"}"#);
    watch.next("the state", |message| message.topic.ends_with("/state/update/result"));
    // Keys of this kind are written down within KEEP_MS.
    std::thread::sleep(Duration::from_millis(7500));
    gateway.kill();
    let gateway = start(&home);
    let mut watch = Watch::new(gateway.port(), &["$hw/#"]);
    publish(gateway.port(), &format!("{DEVICE}/twin/get"), r#"{"event_id":"g"}"#);
    let got = watch.next("the twin", |message| message.topic.ends_with("/twin/get/result"));
    assert_eq!((got.at("/twin/note/actual/value"), got.at("/twin/note/optional")), (json!("a b"), json!(false)));
    publish(gateway.port(), "$hw/events/node/edge-1/membership/get", "{}");
    let members = watch.next("the members", |message| message.topic.ends_with("/membership/get/result"));
    assert_eq!((members.at("/devices/0/id"), members.at("/devices/0/state")), (json!("default/d1"), json!("online")));
    gateway.stop();
}

#[test]
fn devices_that_come_and_go_are_told_to_the_node() {
    let home = home("edge-1");
    let gateway = start(&home);
    let mut watch = Watch::new(gateway.port(), &["$hw/events/node/#"]);
    let text = std::fs::read_to_string(home.path().join("gateway.yaml")).unwrap();
    let two =
        text.replace("compat:", "  - {id: hall:d2, profile: test.boiler, connection: plc, params: {unit: 2}}\ncompat:");
    home.write("gateway.yaml", &two);
    gateway.signal("HUP");
    let added = watch.next("the new device", |message| message.topic == "$hw/events/node/edge-1/membership/updated");
    assert_eq!((added.at("/added_devices/0/id"), added.at("/removed_devices")), (json!("hall/d2"), Value::Null));
    home.write("gateway.yaml", &text);
    gateway.signal("HUP");
    let removed =
        watch.next("the device to go", |message| message.topic == "$hw/events/node/edge-1/membership/updated");
    assert_eq!((removed.at("/removed_devices/0/id"), removed.at("/added_devices")), (json!("hall/d2"), Value::Null));
    gateway.stop();
}

#[test]
fn kubeedges_other_topics_pass_and_its_answers_are_the_gateways_alone() {
    let home = home("edge-1");
    let gateway = start(&home);
    let watch = Watch::new(gateway.port(), &["$ke/#", "$hw/#", "SYS/#", "gateway/kubeedge/#"]);
    // What mappers say is heard by everybody, as on the broker beside edgecore.
    let passed = [
        "$ke/events/device/d1/data/update",
        "SYS/dis/upload_records",
        "$hw/events/upload/x",
        "$hw/events/device/d1/twin/update",
    ];
    let refused = ["$hw/events/device/default/d1/twin/update/result", "gateway/kubeedge/d1"];
    for topic in refused.iter().chain(&passed) {
        publish(gateway.port(), topic, r#"{"x":1}"#);
    }
    for topic in passed {
        watch.value(topic, "/x", &json!(1));
    }
    assert!(watch.all().iter().all(|message| !refused.contains(&message.topic.as_str())));
    gateway.stop();
}

#[test]
fn modbus_devices_of_a_cluster_become_profiles_that_check() {
    let home = Home::new();
    home.write(
        "boiler.yaml",
        r#"apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: boiler}
spec:
  properties:
    - {name: setpoint, type: INT, accessMode: ReadWrite, minimum: "5", maximum: "30"}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: plc-1}
spec:
  deviceModelRef: {name: boiler}
  protocol: {protocolName: modbus, configData: {ip: 172.17.0.3, port: 1502, slaveID: 4}}
  properties:
    - name: setpoint
      visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 7, limit: 1, scale: 1}}
      pushMethod: {mqtt: {address: "tcp://127.0.0.1:1883", topic: temp}}
"#,
    );
    let import = home.tidegate(&["profile", "import", "kubeedge", "boiler.yaml"]);
    let said = String::from_utf8_lossy(&import.stdout).into_owned();
    assert!(import.status.success(), "{said}{}", String::from_utf8_lossy(&import.stderr));
    assert!(
        said.contains("boiler.yaml:17:7: device plc-1, property setpoint: pushMethod has no counterpart"),
        "{said}"
    );
    let list = std::fs::read_to_string(home.path().join("devices.kubeedge.yaml")).unwrap();
    home.write("gateway.yaml", &format!("schema: 1\ngateway: {{id: g}}\nprofiles: [profiles]\n{list}"));
    let check = home.tidegate(&["check"]);
    assert!(check.status.success(), "{list}{}", String::from_utf8_lossy(&check.stdout));
    // A second import does not write over the first.
    let again = home.tidegate(&["profile", "import", "kubeedge", "boiler.yaml"]);
    assert_eq!(again.status.code(), Some(74));
    home.write("pod.yaml", "a: [");
    assert_eq!(home.tidegate(&["profile", "import", "kubeedge", "pod.yaml"]).status.code(), Some(65));
}
