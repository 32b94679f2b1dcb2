//! The dialect `kubeedge`: a gateway as a mapper of an edge node.
//!
//! The edge node is another gateway that serves KubeEdge's topics; that it answers as edgecore does is shown by the
//! recordings in `kubeedge.rs`. edgecore itself needs a cluster and is not run here.

use serde_json::json;
use tests::gateway::{Gateway, Home};
use tests::mqtt::{Watch, publish, publish_with};

use crate::bridge::{read, run, synced};
use crate::installation::PROFILE;

const DEVICE: &str = "$hw/events/device/default/d1";

fn home(more: &str, devices: &str) -> Home {
    let home = Home::with(&format!(
        "schema: 1\ngateway: {{id: plant-7, data: data}}\nprofiles: [profiles]\ntwin: {{flush: 100ms}}\n\
         broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}]}}\n\
         connections: {{plc: {{modbus: {{tcp: \"127.0.0.1:1\"}}}}}}\ndevices: [{devices}]\n{more}\n"
    ));
    home.write("profiles/boiler.yaml", PROFILE);
    home
}

const D1: &str = "{id: d1, profile: test.boiler, connection: plc, params: {unit: 1}}";
const COMPAT: &str = "compat: {kubeedge: {node: edge-1}}";

/// A gateway with the device `d1` whose upstream is that edge node.
fn mapper(node: &Gateway) -> Home {
    let url = format!("mqtt://127.0.0.1:{}", node.port());
    let own = "kubeedge: {namespace: default, node: edge-1}";
    home(&format!("upstream: [{{name: cloud, dialect: kubeedge, url: \"{url}\", client_id: plant-7, {own}}}]"), D1)
}

fn expect(node: &Gateway, key: &str, text: &str) {
    let update = json!({"event_id": "app-1", "timestamp": 0, "twin": {key: {"expected": {"value": text}}}}).to_string();
    let out = publish_with(node.port(), &format!("{DEVICE}/twin/update"), &update, &["-q", "1"]);
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn reported_values_are_actual_there_and_expected_ones_are_wishes_here_also_after_an_absence() {
    let node_home = home(COMPAT, D1);
    let node = run(&node_home);
    let bus = Watch::new(node.port(), &["$hw/#"]);
    let there = Watch::new(node.port(), &["twin/d1/reported/+"]);
    let home = mapper(&node);
    let gateway = run(&home);
    read(&gateway, "d1", &json!({"level": 7, "setpoint": 21.5, "mode": "eco"}));
    there.value("twin/d1/reported/setpoint", "/value", &json!(21.5));
    there.value("twin/d1/reported/level", "/value", &json!(7));
    bus.value(&format!("{DEVICE}/twin/update/result"), "/twin/mode/actual/value", &json!("eco"));
    synced(&gateway);

    let here = Watch::new(gateway.port(), &["twin/d1/desired/+"]);
    expect(&node, "setpoint", "22.5");
    assert_eq!(here.value("twin/d1/desired/setpoint", "/value", &json!(22.5)).at("/by"), "cloud");
    publish(
        gateway.port(),
        "twin/d1/desired/ack",
        r#"{"version":1,"results":{"setpoint":{"state":"applied","actual":22.5}}}"#,
    );
    here.value("twin/d1/desired/setpoint", "/state", &json!("applied"));
    read(&gateway, "d1", &json!({"setpoint": 22.5}));
    there.value("twin/d1/reported/setpoint", "/value", &json!(22.5));

    // wished while we are away, and told when we are back; what was applied before is not wished again
    gateway.stop();
    expect(&node, "mode", "heat");
    let gateway = run(&home);
    let here = Watch::new(gateway.port(), &["twin/d1/desired/+"]);
    here.value("twin/d1/desired/mode", "/value", &json!("heat"));
    assert_eq!(here.value("twin/d1/desired/setpoint", "/state", &json!("applied")).at("/version"), json!(1));
    gateway.stop();
    node.stop();
}

#[test]
fn a_device_that_the_node_does_not_have_is_told_and_served_once_it_has() {
    let node_home = home(COMPAT, "");
    let node = run(&node_home);
    let home = mapper(&node);
    let gateway = run(&home);
    read(&gateway, "d1", &json!({"level": 7}));
    let status = Watch::new(gateway.port(), &["gateway/status"]);
    let complaint = "edgecore has no device default/d1; make a Device of that name for its node";
    status.value("gateway/status", "/upstreams/cloud/last_error", &json!(complaint));
    let there = Watch::new(node.port(), &["twin/d1/reported/+"]);
    let whole = std::fs::read_to_string(node_home.path().join("gateway.yaml")).expect("our own file");
    node_home.write("gateway.yaml", &whole.replace("devices: []", &format!("devices: [{D1}]")));
    there.value("twin/d1/reported/level", "/value", &json!(7));
    synced(&gateway);
    gateway.stop();
    node.stop();
}
