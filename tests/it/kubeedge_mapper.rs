//! KubeEdge's device mapper interface: a mapper on Google's gRPC (grpcio), made from the .proto, through a whole life.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tests::eventually;
use tests::gateway::{Gateway, Home};
use tests::kube_mapper::{AUTHORITIES, KubeMapper};
use tests::mqtt::{Watch, publish, publish_with, retained_of};

const PRESS: &str = r#"apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: press}
spec:
  protocolConfigData: {timeoutMs: 2000}
  properties:
    - {name: force, type: FLOAT, accessMode: ReadOnly, maximum: "500", unit: kN}
    - {name: mode, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "9"}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: press-1}
spec:
  deviceModelRef: {name: press}
  protocol: {protocolName: opcua, configData: {url: "opc.tcp://10.0.0.5:4840", slot: 3, ratio: 0.5, secure: false}}
  properties:
    - {name: force, collectCycle: 2000, visitors: {protocolName: opcua, configData: {nodeID: "ns=2;i=3"}}}
    - {name: mode, collectCycle: 2000, visitors: {protocolName: opcua, configData: {nodeID: "ns=2;i=4"}}}
"#;

/// A gateway whose devices are those of a Kubernetes file, as it stands.
fn home() -> Home {
    let home = Home::with(
        "schema: 1\n\
         gateway: {id: test-gw, data: data}\n\
         profiles: [cluster]\n\
         broker: {listeners: [{name: local, bind: \"127.0.0.1:0\"}]}\n\
         compat: {kubeedge: {node: edge-1, dmi: {socket: run/dmi.sock}}}\n",
    );
    home.write("cluster/press.yaml", PRESS);
    home
}

fn sockets(home: &Home) -> (PathBuf, PathBuf) {
    (home.path().join("run/dmi.sock"), home.path().join("opcua.sock"))
}

fn mapper(home: &Home) -> KubeMapper {
    let (gateway, own) = sockets(home);
    KubeMapper::start(&gateway, &own)
}

fn status(gateway: &Gateway) -> Value {
    retained_of(gateway.port(), &["gateway/status"])[0].payload["dmi"].clone()
}

/// What a call says is desired of a property.
fn desired(call: &Value, property: &str) -> String {
    let properties = call["device"]["spec"]["properties"].as_array().cloned().unwrap_or_default();
    let found = properties.iter().find(|one| one["name"] == property).cloned().unwrap_or_default();
    found["desired"]["value"].as_str().unwrap_or("?").to_owned()
}

#[test]
fn a_mapper_registers_reports_and_is_told_what_is_desired() {
    let home = home();
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#"]);
    let mut mapper = mapper(&home);
    let given = mapper.register("opcua", true);
    assert_eq!(
        given["modelList"],
        json!([{"name": "kubeedge.press", "namespace": "default", "spec": {"properties": [
            {"name": "force", "description": "", "type": "DOUBLE", "accessMode": "ReadOnly", "minimum": "", "maximum": "500", "unit": "kN"},
            {"name": "mode", "description": "", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "9", "unit": ""},
        ]}}])
    );
    let device = &given["deviceList"][0];
    assert_eq!((&device["name"], &device["namespace"]), (&json!("press-1"), &json!("default")));
    assert_eq!(device["spec"]["deviceModelReference"], "kubeedge.press");
    // What the instance says, and what the model says of all its devices.
    let typed = |kind: &str, value: Value| json!({"@type": format!("type.googleapis.com/google.protobuf.{kind}"), "value": value});
    assert_eq!(
        device["spec"]["protocol"],
        json!({"protocolName": "opcua", "configData": {"data": {
            "url": typed("StringValue", json!("opc.tcp://10.0.0.5:4840")),
            "slot": typed("Int32Value", json!(3)),
            "ratio": typed("FloatValue", json!(0.5)),
            "secure": typed("BoolValue", json!(false)),
            "timeoutMs": typed("Int32Value", json!(2000)),
        }}})
    );
    let property = &device["spec"]["properties"][1];
    assert_eq!(
        (&property["name"], &property["collectCycle"], &property["reportToCloud"], &property["desired"]["value"]),
        (&json!("mode"), &json!("2000"), &json!(true), &json!(""))
    );
    assert_eq!(property["visitors"]["configData"]["data"]["nodeID"], typed("StringValue", json!("ns=2;i=4")));
    mapper.serve(true);

    assert_eq!(mapper.report("press-1", "force", "", "123.5"), json!({}));
    let force = watch.value("twin/press-1/reported/force", "/value", &json!(123.5));
    assert_eq!(force.at("/quality"), "good");
    watch.value("twin/press-1/status", "/state", &json!("online"));
    assert_eq!(mapper.report("press-1", "force", "", "NaN"), json!({}));
    watch.value("twin/press-1/reported/force", "/quality", &json!("bad:nan"));
    assert_eq!(mapper.state("press-1", "disconnected"), json!({}));
    watch.value("twin/press-1/status", "/state", &json!("offline"));
    assert_eq!(mapper.state("press-1", "ok"), json!({}));
    watch.value("twin/press-1/status", "/state", &json!("online"));

    publish(gateway.port(), "twin/press-1/desired/mode/set", "4");
    let calls = mapper.wait_for_calls(1);
    assert_eq!((calls[0].0.as_str(), desired(&calls[0].1, "mode").as_str()), ("UpdateDevice", "4"));
    assert_eq!(calls.len(), 1, "{calls:#?}");
    watch.value("twin/press-1/desired/mode", "/state", &json!("pending"));
    // The mapper has not come to it: what it read before is no outcome.
    mapper.report("press-1", "mode", "", "1");
    mapper.report("press-1", "mode", "4", "4");
    watch.value("twin/press-1/desired/mode", "/state", &json!("applied"));
    watch.value("twin/press-1/delta", "/desired", &json!({}));
    // Nothing changed for the mapper by that, and it is not called.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(mapper.calls(), []);

    let health = eventually("the status to tell of the mapper", || {
        let health = status(&gateway);
        (health["calls"] == 1).then_some(health)
    });
    assert_eq!(
        (&health["mappers"]["opcua"]["name"], &health["mappers"]["opcua"]["devices"], &health["registered"]),
        (&json!("py-mapper"), &json!(1), &json!(1))
    );
    assert_eq!((&health["reports"], &health["bad_readings"], &health["states"]), (&json!(4), &json!(1), &json!(2)));
    watch.next("the mapper's word not to be lost", |message| message.topic == "twin/press-1");
    gateway.stop();
    assert!(!sockets(&home).0.exists(), "the socket is still there");
}

#[test]
fn a_mapper_written_in_go_is_understood_whatever_it_calls_the_socket() {
    let home = home();
    let gateway = home.start();
    for authority in AUTHORITIES {
        let (socket, own) = sockets(&home);
        let mut mapper = KubeMapper::start(&socket, &own).calling(authority);
        assert_eq!(mapper.register("opcua", true)["deviceList"][0]["name"], "press-1", "{authority}");
    }
    gateway.stop();
}

#[test]
fn what_a_device_does_not_come_to_has_failed_and_what_a_mapper_refuses_as_well() {
    let home = home();
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/#"]);
    let mut mapper = mapper(&home);
    mapper.register("opcua", true);
    mapper.serve(true);
    publish(gateway.port(), "twin/press-1/desired/mode/set", "4");
    mapper.wait_for_calls(1);
    for _ in 0..3 {
        mapper.report("press-1", "mode", "4", "1");
    }
    let failed = watch.value("twin/press-1/desired/mode", "/state", &json!("failed"));
    assert_eq!(failed.at("/reason"), "its mapper knows of it, and the device shows 1");
    mapper.refuse(Some("no such node"));
    publish(gateway.port(), "twin/press-1/desired/mode/set", "5");
    let refused = watch.value("twin/press-1/desired/mode", "/reason", &json!("its mapper says: no such node"));
    assert_eq!((refused.at("/state"), refused.at("/value")), (json!("failed"), json!(5)));
    assert_eq!(mapper.calls().len(), 3, "a call that is refused is tried three times");
    // A value that the profile does not allow does not reach the mapper at all.
    mapper.refuse(None);
    publish(gateway.port(), "twin/press-1/desired/mode/set", "10");
    publish(gateway.port(), "twin/press-1/desired/mode/set", "6");
    let calls = mapper.wait_for_calls(1);
    assert_eq!((calls.len(), desired(&calls[0].1, "mode").as_str()), (1, "6"));
    gateway.stop();
}

#[test]
fn a_mapper_whose_registration_was_answered_is_looked_for_after_a_kill() {
    let home = home();
    let gateway = home.start();
    let mut mapper = mapper(&home);
    mapper.serve(true);
    mapper.register("opcua", true);
    gateway.kill();
    let gateway = home.start();
    publish(gateway.port(), "twin/press-1/desired/mode/set", "4");
    let calls = mapper.wait_for_calls(1);
    assert!(calls.iter().any(|(_, call)| desired(call, "mode") == "4"), "{calls:#?}");
    gateway.stop();
}

#[test]
fn either_side_may_be_started_again() {
    let home = home();
    let gateway = home.start();
    let mut one = mapper(&home);
    one.register("opcua", true);
    one.serve(true);
    let kept = || retained_of(gateway.port(), &["gateway/dmi/opcua"]).remove(0).payload;
    let registered = kept();
    publish(gateway.port(), "twin/press-1/desired/mode/set", "4");
    one.wait_for_calls(1);
    // What was told is kept a moment later, and a gateway that is killed before would tell it once more. What is acknowledged
    // after it is on disk after it.
    eventually("what was told to be kept", || (kept() != registered).then_some(()));
    assert!(publish_with(gateway.port(), "test/marker", "1", &["-q", "1", "-r"]).status.success());
    // The gateway ends without a word. A mapper of the framework does not register again, and is found all the same.
    gateway.kill();
    let gateway = home.start();
    let mut watch = Watch::new(gateway.port(), &["twin/#"]);
    one.report("press-1", "mode", "4", "4");
    watch.value("twin/press-1/desired/mode", "/state", &json!("applied"));
    assert_eq!(one.calls(), [], "it knows everything already");
    publish(gateway.port(), "twin/press-1/desired/mode/set", "5");
    let calls = one.wait_for_calls(1);
    assert_eq!((calls[0].0.as_str(), desired(&calls[0].1, "mode").as_str()), ("UpdateDevice", "5"));
    // The mapper ends; what is desired meanwhile waits for the next one.
    one.serve(false);
    drop(one);
    publish(gateway.port(), "twin/press-1/desired/mode/set", "6");
    let gone = watch.next("the device to be offline", |message| {
        message.topic == "twin/press-1/status" && message.at("/state") == "offline"
    });
    assert_eq!(gone.at("/reason"), "the mapper is gone");
    let mut two = mapper(&home);
    let given = two.register("opcua", true);
    assert_eq!(desired(&json!({"device": given["deviceList"][0]}), "mode"), "6");
    two.serve(true);
    two.report("press-1", "mode", "6", "6");
    watch.value("twin/press-1/desired/mode", "/state", &json!("applied"));
    watch.value("twin/press-1/status", "/state", &json!("online"));
    gateway.stop();
}

#[test]
fn devices_that_come_change_and_go_are_told_to_a_running_mapper() {
    let home = home();
    let gateway = home.start();
    let mut mapper = mapper(&home);
    mapper.serve(true);
    // Without data, everything is told by calls.
    assert_eq!(mapper.register("OPCUA", false), json!({"modelList": [], "deviceList": []}));
    let names = |calls: Vec<(String, Value)>| calls.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(mapper.wait_for_calls(2)), ["CreateDeviceModel", "RegisterDevice"]);
    let second = PRESS.split_once("---\n").unwrap().1.replace("press-1", "press-2");
    home.write(
        "cluster/second.yaml",
        &format!(
            "{}---\n{second}",
            PRESS.split_once("---\n").unwrap().0.replace("500", "600").replace("name: press}", "name: press2}")
        )
        .replace("deviceModelRef: {name: press}", "deviceModelRef: {name: press2}"),
    );
    gateway.signal("HUP");
    assert_eq!(names(mapper.wait_for_calls(2)), ["CreateDeviceModel", "RegisterDevice"]);
    home.write("cluster/press.yaml", &PRESS.replace("slot: 3", "slot: 4"));
    gateway.signal("HUP");
    let calls = mapper.wait_for_calls(1);
    assert_eq!(calls[0].1["device"]["spec"]["protocol"]["configData"]["data"]["slot"]["value"], 4);
    assert_eq!(names(calls), ["UpdateDevice"]);
    std::fs::remove_file(home.path().join("cluster/second.yaml")).unwrap();
    gateway.signal("HUP");
    let calls = mapper.wait_for_calls(2);
    assert_eq!(calls[0].1["deviceName"], "press-2");
    assert_eq!(names(calls), ["RemoveDevice", "RemoveDeviceModel"]);
    gateway.stop();
}

#[test]
fn a_mapper_may_report_as_fast_as_it_likes() {
    let home = home();
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/press-1/reported/force"]);
    let mut mapper = mapper(&home);
    mapper.register("opcua", true);
    // edgecore takes a hundred, then one a second.
    let (taken, seconds) = mapper.reports(300, "press-1", "force", "7");
    assert_eq!(taken, 300);
    assert!(seconds < 60.0, "{seconds} s");
    watch.value("twin/press-1/reported/force", "/value", &json!(7));
    gateway.stop();
}

#[test]
fn odd_calls_are_refused_with_the_reason_and_harm_nobody() {
    let home = home();
    let gateway = home.start();
    let mut mapper = mapper(&home);
    let code = |answer: Value| answer["code"].as_str().unwrap_or("OK").to_owned();
    assert_eq!(code(mapper.register("", true)), "INVALID_ARGUMENT");
    assert_eq!(code(mapper.register("a/b", true)), "INVALID_ARGUMENT");
    assert_eq!(code(mapper.report("nobody", "force", "", "1")), "NOT_FOUND");
    assert_eq!(code(mapper.report("press-1", "colour", "", "1")), "INVALID_ARGUMENT");
    assert_eq!(code(mapper.state("press-1", "fine")), "INVALID_ARGUMENT");
    // A twin without a reported value ends edgecore.
    let half = json!({"deviceName": "press-1", "deviceNamespace": "default", "reportedDevice": {"twins": [{"propertyName": "force"}]}});
    assert_eq!(code(mapper.raw_report(&half)), "OK");
    assert_eq!(code(mapper.raw_report(&json!({"deviceName": "press-1"}))), "INVALID_ARGUMENT");
    // A protocol without devices.
    assert_eq!(mapper.register("onvif", true), json!({"modelList": [], "deviceList": []}));
    assert_eq!(code(mapper.report("press-1", "force", "", "1")), "OK");
    // Who is kept is the gateway's to say.
    publish(gateway.port(), "gateway/dmi/opcua", "{}");
    assert_eq!(retained_of(gateway.port(), &["gateway/status"])[0].payload["state"], "online");
    gateway.stop();
}

#[test]
fn the_socket_is_for_owner_and_group_and_never_taken_from_another() {
    let home = home();
    let gateway = home.start();
    let (socket, _) = sockets(&home);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    // A second gateway of the same socket, with a store of its own.
    let text = std::fs::read_to_string(home.path().join("gateway.yaml")).unwrap();
    home.write("second.yaml", &text.replace("data: data", "data: data2"));
    let second = home.tidegate(&["run", "-c", "second.yaml"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(74), "{said}");
    assert!(said.contains("run/dmi.sock is in use"), "{said}");
    // What a gateway leaves behind that was killed is replaced.
    gateway.kill();
    assert!(socket.exists());
    let gateway = home.start();
    assert_eq!(mapper(&home).register("opcua", true)["deviceList"][0]["name"], "press-1");
    gateway.stop();
}
