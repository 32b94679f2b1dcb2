//! Kubernetes files as a folder of profiles, and devices whose mapper is no part of the program.

use serde_json::json;
use tests::gateway::Home;
use tests::mqtt::{Watch, publish};

const CAMERA: &str = r#"apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {name: cam}
spec:
  properties:
    - {name: motion, type: {boolean: {accessMode: ReadOnly}}}
    - {name: zoom, type: {int: {accessMode: ReadWrite, minimum: 1, maximum: 9, defaultValue: 1}}}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {name: cam-1}
spec:
  deviceModelRef: {name: cam}
  protocol:
    customizedProtocol: {protocolName: onvif, configData: {url: 192.168.1.7}}
  propertyVisitors:
    - {propertyName: motion, collectCycle: 500, customizedProtocol: {protocolName: onvif, configData: {topic: Motion}}}
    - {propertyName: zoom, customizedProtocol: {protocolName: onvif, configData: {topic: Zoom}}}
"#;

fn home() -> Home {
    let home = Home::with(
        "schema: 1\n\
         gateway: {id: test-gw, data: data}\n\
         profiles: [cluster]\n\
         broker: {listeners: [{name: local, bind: \"127.0.0.1:0\"}]}\n",
    );
    home.write("cluster/cam.yaml", CAMERA);
    home
}

#[test]
fn a_folder_of_kubernetes_files_runs_as_it_stands_with_a_mapper_in_another_language() {
    let home = home();
    let gateway = home.start();
    let port = gateway.port();
    let mut watch = Watch::new(port, &["twin/#", "gateway/devices"]);
    let devices = watch.next("the devices", |message| message.topic == "gateway/devices");
    assert_eq!(
        (devices.at("/devices/0/id"), devices.at("/devices/0/external"), devices.at("/devices/0/profile")),
        (json!("cam-1"), json!("onvif"), json!("kubeedge.cam@1.0.0"))
    );
    // The mapper is mosquitto_pub: what the contract says of mappers is all it takes.
    publish(port, "twin/cam-1/status/set", r#"{"state":"online"}"#);
    publish(
        port,
        "twin/cam-1/reported/set",
        r#"{"readings":{"motion":true,"zoom":{"value":null,"quality":"bad:timeout"}}}"#,
    );
    watch.value("twin/cam-1/reported/motion", "/value", &json!(true));
    watch.value("twin/cam-1/reported/zoom", "/quality", &json!("bad:timeout"));
    watch.value("twin/cam-1/status", "/state", &json!("online"));
    publish(port, "twin/cam-1/desired/zoom/set", "4");
    let delta = watch.value("twin/cam-1/delta", "/desired", &json!({"zoom": 4}));
    let version = delta.at("/version");
    publish(
        port,
        "twin/cam-1/desired/ack",
        &json!({"version": version, "results": {"zoom": {"state": "applied", "actual": 4}}}).to_string(),
    );
    watch.value("twin/cam-1/desired/zoom", "/state", &json!("applied"));
    let refused = home.tidegate(&["twin", "set", "cam-1", "zoom=12", "--broker", &gateway.url()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("above maximum 9"), "{refused:?}");

    // Commands know that there is no wire of ours.
    let said = |words: &[&str]| {
        let output = home.tidegate(&[words, &["--broker", &gateway.url()]].concat());
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, text) = said(&["status"]);
    assert!(
        code == Some(0) && text.contains("onvif-cam-1") && text.contains("held by a mapper of its own: onvif"),
        "{text}"
    );
    let (code, text) = said(&["device", "show", "cam-1"]);
    assert!(code == Some(0) && text.contains("connection onvif-cam-1, read by a mapper of its own: onvif"), "{text}");
    let (code, text) = said(&["device", "read", "cam-1", "zoom"]);
    assert!(code == Some(65) && text.contains("cam-1: only its own mapper (onvif) reads and writes it"), "{text}");
    let (code, text) = said(&["device", "scan", "onvif-cam-1"]);
    assert!(code == Some(65) && text.contains("held by a mapper that is no part of the gateway"), "{text}");

    // A device that leaves the files leaves the gateway.
    home.write("cluster/cam.yaml", &CAMERA.replace("name: cam-1", "name: cam-2"));
    gateway.signal("HUP");
    let devices = watch.next("the new devices", |message| {
        message.topic == "gateway/devices" && message.at("/devices/0/id") == "cam-2"
    });
    assert_eq!(devices.at("/devices/1"), json!(null));
    gateway.stop();
}

#[test]
fn check_complains_of_kubernetes_files_with_their_lines() {
    let home = home();
    let check = |words: &[&str]| {
        let output = home.tidegate(words);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for words in [&["check"][..], &["check", "cluster"], &["check", "cluster/cam.yaml"]] {
        let (code, text) = check(words);
        assert_eq!(code, Some(0), "{text}");
        let note = "cluster/cam.yaml:7:80: warning: property zoom: defaultValue 1 has no counterpart";
        assert!(text.contains(note), "{text}");
    }
    home.write("cluster/cam.yaml", &CAMERA.replace("name: cam-1", "name: \"cam 1\""));
    let (code, text) = check(&["check"]);
    assert!(
        code == Some(0)
            && text.contains("cluster/cam.yaml:9:1: warning: device cam 1: \"cam 1\" cannot be a device id here"),
        "{text}"
    );
    home.write("cluster/cam.yaml", &CAMERA.replace("v1alpha2", "v1"));
    let (code, text) = check(&["check"]);
    assert!(code == Some(65) || code == Some(78), "{code:?} {text}");
    assert!(text.contains("cluster/cam.yaml:1:13: apiVersion \"devices.kubeedge.io/v1\" is not known"), "{text}");
    // Two devices of one name, one of them in gateway.yaml.
    home.write("cluster/cam.yaml", CAMERA);
    let text = std::fs::read_to_string(home.path().join("gateway.yaml")).unwrap();
    home.write(
        "gateway.yaml",
        &format!("{text}devices:\n  - {{id: cam-1, profile: kubeedge.cam, connection: onvif-cam-1}}\n"),
    );
    let (_, text) = check(&["check"]);
    assert!(text.contains("cluster/cam.yaml:9:1: a second device \"cam-1\""), "{text}");
}
