//! The broker as mosquitto's clients and Paho see it: through the front door of a running gateway.

use serde_json::json;
use tests::gateway::Home;
use tests::mqtt::{Watch, paho, publish, publish_with, retained};
use tests::peers::Pymodbus;

use crate::installation::{boiler_on_tcp, fill, home};

/// A gateway without devices.
fn empty() -> Home {
    home("  {}", "  []")
}

#[test]
fn retained_messages_and_waiting_messages_survive_a_kill() {
    let home = empty();
    let running = home.start();
    let subscribe = r#"
import sys, paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="absent", protocol=mqtt.MQTTv311, clean_session=False)
client.on_connect = lambda c, *rest: c.subscribe("jobs/#", qos=1)
client.on_subscribe = lambda c, *rest: c.disconnect()
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
"#;
    paho(subscribe, &[&running.port().to_string()]);
    for number in 0..50 {
        assert!(publish(running.port(), "jobs/next", &number.to_string()).status.success());
    }
    assert!(publish_with(running.port(), "notes/one", "kept", &["-V", "5", "-q", "1", "-r"]).status.success());
    running.kill();

    let running = home.start();
    let kept = retained(running.port(), &["notes/#"]);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].payload, json!("kept"));
    let collect = r#"
import sys, paho.mqtt.client as mqtt
got = []
def on_message(client, _data, message):
    got.append(int(message.payload))
    if len(got) == 50:
        client.disconnect()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="absent", protocol=mqtt.MQTTv311, clean_session=False)
client.on_connect = lambda c, d, flags, *rest: print("present" if flags.session_present else "new")
client.on_message = on_message
client.connect("127.0.0.1", int(sys.argv[1]))
import threading
threading.Timer(20, client.disconnect).start()
client.loop_forever()
print(got == list(range(50)), len(got))
import os; os._exit(0)
"#;
    let said = paho(
        &collect.replace("import os; os._exit(0)", "import os, sys; sys.stdout.flush(); os._exit(0)"),
        &[&running.port().to_string()],
    );
    assert_eq!(said.lines().collect::<Vec<_>>(), ["present", "True 50"]);
    running.stop();
}

#[test]
fn a_slow_reader_gets_every_one_of_ten_thousand_retained_messages() {
    let home = empty();
    let running = home.start();
    let script = r##"
import sys, time, paho.mqtt.client as mqtt
port = int(sys.argv[1])
writer = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
writer.max_queued_messages_set(0)
writer.connect("127.0.0.1", port)
writer.loop_start()
for n in range(10_000):
    info = writer.publish(f"many/{n}", str(n) * 20, qos=1, retain=True)
info.wait_for_publish(60)
writer.disconnect()
writer.loop_stop()
got = set()
def on_message(client, _data, message):
    got.add(message.topic)
    if len(got) % 500 == 0:
        time.sleep(0.2)
reader = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
reader.on_message = on_message
reader.on_connect = lambda c, *rest: c.subscribe("#", qos=1)
reader.connect("127.0.0.1", port)
end = time.monotonic() + 60
while len([t for t in got if t.startswith("many/")]) < 10_000 and time.monotonic() < end:
    reader.loop(0.1)
print(len([t for t in got if t.startswith("many/")]))
"##;
    assert_eq!(paho(script, &[&running.port().to_string()]).trim(), "10000");
    running.stop();
}

#[test]
fn a_client_that_writes_what_the_gateway_alone_writes_is_refused() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    let running = home.start();
    let script = r#"
import sys, paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
port = int(sys.argv[1])
codes = []
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_publish = lambda c, d, mid, reason, properties: codes.append((reason.value, getattr(properties, "ReasonString", "")))
client.connect("127.0.0.1", port)
client.loop_start()
for topic, payload in [("twin/boiler-1/reported/level", '{"value":1}'), ("gateway/status", "{}"), ("twin/boiler-1", "{}"),
                       ("twin/boiler-1/desired/setpoint/set", "99"), ("twin/boiler-1/desired/setpoint/set", "{"),
                       ("twin/nobody/desired/setpoint/set", "1"), ("twin/boiler-1/desired/setpoint/set", "20")]:
    client.publish(topic, payload, qos=1).wait_for_publish(10)
client.loop_stop()
for code, reason in codes:
    print(f"{code:02x} {'text' if reason else 'none'}")
"#;
    let said = paho(script, &[&running.port().to_string()]);
    let expected = ["87 text", "87 text", "87 text", "99 text", "99 text", "90 text", "00 none"];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    // MQTT 3.1.1 has no words for it: acknowledged, dropped, counted.
    let old = publish_with(running.port(), "twin/boiler-1/reported/level", "1", &["-V", "311", "-q", "1"]);
    assert!(old.status.success());
    let level = retained(running.port(), &["twin/boiler-1/reported/level"]);
    assert_eq!(level[0].at("/value"), json!(17));
    running.stop();
}

#[test]
fn a_request_is_answered_on_its_response_topic_with_its_correlation_data() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    let running = home.start();
    let script = r#"
import sys, json, time, paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
port = int(sys.argv[1])
answers = []
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_message = lambda c, d, m: answers.append((m.topic, m.properties.CorrelationData, json.loads(m.payload)))
client.connect("127.0.0.1", port)
client.loop_start()
client.subscribe("answers/me", qos=1)
def ask(topic, payload, mark):
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "answers/me"
    properties.CorrelationData = mark
    client.publish(topic, payload, qos=1, properties=properties).wait_for_publish(10)
ask("twin/boiler-1/get", '{"id":"g"}', b"1")
ask("twin/boiler-1/desired/set", '{"id":"r1","patch":{"setpoint":22,"mode":"heat"}}', b"2")
ask("twin/boiler-1/desired/set", '{"id":"r2","patch":{"setpoint":22.5,"level":1}}', b"3")
ask("twin/boiler-1/desired/set", '{"id":"r3","patch":{"setpoint":23},"if_version":99}', b"4")
ask("twin/boiler-1/desired/set", '{"id":"r4","patch":{"setpoint":31}}', b"5")
end = time.monotonic() + 10
while len(answers) < 5 and time.monotonic() < end:
    time.sleep(0.05)
client.loop_stop()
for topic, mark, answer in answers:
    print(mark.decode(), topic, answer.get("device"), answer.get("id"), answer.get("ok"), answer.get("code"), json.dumps(answer.get("errors")))
"#;
    let said = paho(script, &[&running.port().to_string()]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "1 answers/me boiler-1 g None None null");
    assert_eq!(lines[1], "2 answers/me None r1 True None null");
    assert!(lines[2].starts_with("3 answers/me None r2 False 422 ") && lines[2].contains("level"), "{said}");
    assert!(lines[3].starts_with("4 answers/me None r3 False 409 "), "{said}");
    assert_eq!(lines[4], r#"5 answers/me None r4 False 422 {"setpoint": "above maximum 30"}"#);
    running.stop();
}

#[test]
fn users_tls_and_websocket_let_in_whom_they_should() {
    let home = Home::new();
    let openssl = |words: &[&str]| {
        let output = std::process::Command::new("openssl").args(words).current_dir(home.path()).output();
        assert!(output.expect("openssl can be started").status.success(), "{words:?}");
    };
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-subj",
        "/CN=test-ca",
        "-days",
        "2",
    ]);
    home.write("san.cnf", "subjectAltName=IP:127.0.0.1,DNS:localhost");
    for name in ["gw", "hmi"] {
        let (key, csr, crt) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        openssl(&[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &csr,
            "-subj",
            &format!("/CN={name}"),
        ]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            &crt,
            "-days",
            "2",
            "-extfile",
            "san.cnf",
        ]);
    }
    for (name, role) in [("anna", "admin"), ("looker", "reader")] {
        let mut add = std::process::Command::new(tests::gateway::binary())
            .args(["user", "add", name, "--role", role, "--password-stdin", "--file", "users.yaml"])
            .current_dir(home.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut add.stdin.take().unwrap(), b"a long password\n").unwrap();
        assert!(add.wait().unwrap().success());
    }
    assert!(home.tidegate(&["user", "add", "hmi", "--role", "reader", "--certificate", "CN=hmi"]).status.success());
    home.write(
        "gateway.yaml",
        "schema: 1\ngateway: {id: safe-gw, data: data}\nbroker:\n  listeners:\n    \
         - {name: plain, bind: \"127.0.0.1:0\"}\n    \
         - {name: lan, bind: \"127.0.0.1:0\", tls: {cert: gw.crt, key: gw.key, client_ca: ca.crt}}\n    \
         - {name: web, bind: \"127.0.0.1:0\", websocket: true}\n  users: users.yaml\n  anonymous: never\n",
    );
    let running = home.start();
    let script = r#"
import sys, time, ssl, paho.mqtt.client as mqtt
kind, port, user, password = sys.argv[1:5]
said = []
transport = "websockets" if kind == "web" else "tcp"
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, transport=transport)
if kind == "lan":
    client.tls_set("ca.crt", *(("hmi.crt", "hmi.key") if user == "certificate" else ()))
elif user:
    client.username_pw_set(user, password)
client.on_connect = lambda c, d, f, reason, p: said.append(reason.value)
client.on_publish = lambda c, d, m, reason, p: said.append(reason.value)
try:
    client.connect("127.0.0.1", int(port))
    client.loop_start()
    end = time.monotonic() + 10
    while len(said) < 1 and time.monotonic() < end: time.sleep(0.02)
    if said == [0]:
        client.publish("notes/x", "1", qos=1)
        while len(said) < 2 and time.monotonic() < end: time.sleep(0.02)
except (ssl.SSLError, OSError) as error:
    said.append("closed")
print(" ".join(f"{code:02x}" if isinstance(code, int) else code for code in said) or "closed")
import os; sys.stdout.flush(); os._exit(0)
"#;
    let script = format!("import os; os.chdir({:?})\n{script}", home.path().display().to_string());
    let attempt = |kind: &str, user: &str, password: &str| {
        let port = running.port_of(kind).to_string();
        paho(&script, &[kind, &port, user, password]).trim().to_owned()
    };
    assert_eq!(attempt("plain", "", ""), "87", "anonymous: never");
    assert_eq!(attempt("plain", "anna", "wrong password"), "86");
    assert_eq!(attempt("plain", "anna", "a long password"), "00 00");
    assert_eq!(attempt("plain", "looker", "a long password"), "00 87", "a reader does not write");
    assert_eq!(attempt("web", "anna", "a long password"), "00 00");
    assert_eq!(attempt("lan", "certificate", ""), "00 87", "the certificate's user is a reader");
    assert_eq!(attempt("lan", "", ""), "closed", "no certificate, no entry");
    running.stop();
}

#[test]
fn wills_and_shared_subscriptions_work_for_paho() {
    let home = empty();
    let running = home.start();
    let watch = Watch::new(running.port(), &["last/words"]);
    let script = r#"
import sys, time, os, paho.mqtt.client as mqtt
port = int(sys.argv[1])
dying = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
dying.will_set("last/words", "gone", qos=1)
dying.connect("127.0.0.1", port)
dying.loop_start()
time.sleep(0.3)
dying.socket().close()
counts = [0, 0]
clients = []
for n in range(2):
    def on_message(c, d, m, n=n): counts[n] += 1
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("$share/pair/tasks/#", qos=1)
    client.loop_start()
    clients.append(client)
time.sleep(0.5)
writer = clients[0]
for n in range(100):
    info = writer.publish("tasks/x", str(n), qos=1)
info.wait_for_publish(10)
time.sleep(1)
print(sum(counts), min(counts) > 20)
sys.stdout.flush(); os._exit(0)
"#;
    assert_eq!(paho(script, &[&running.port().to_string()]).trim(), "100 True");
    watch.value("last/words", "", &json!("gone"));
    running.stop();
}
