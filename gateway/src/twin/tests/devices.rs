//! Devices that come, go and change their profile while the gateway runs.

use super::*;

#[test]
fn a_device_that_is_taken_out_is_cleared_once() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &config(BOILER, &["b1", "b2"]));
    rig.ask("twin/b2/reported/set", r#"{"readings":{"temperature":1}}"#, 1);
    rig.ask("twin/b2/desired/mode/set", "1", 1);
    rig.pass(0);
    let mut before: Vec<String> = rig.ear.retained().into_keys().filter(|topic| topic.starts_with("twin/b2")).collect();
    rig.ear.take();
    rig.twins.reload(&config(BOILER, &["b1"]));
    rig.pass(0);
    let mut cleared: Vec<String> = rig
        .ear
        .take()
        .into_iter()
        .filter(|word| word.0.starts_with("twin/b2") && word.1.is_null())
        .map(|w| w.0)
        .collect();
    before.sort();
    cleared.sort();
    assert_eq!(cleared, before);
}

#[test]
fn a_device_that_is_taken_out_loses_its_topics_and_keeps_its_versions() {
    let dir = tempfile::tempdir().unwrap();
    let both = config(BOILER, &["b1", "b2"]);
    let rig = Rig::new(dir.path(), &both);
    for device in ["b1", "b2"] {
        rig.ask(&format!("twin/{device}/reported/set"), r#"{"readings":{"temperature":1}}"#, 0);
        rig.ask(&format!("twin/{device}/desired/mode/set"), "1", 1);
    }
    rig.twins.reload(&config(BOILER, &["b1"]));
    rig.pass(0);
    assert!(!rig.ear.retained().keys().any(|topic| topic.starts_with("twin/b2")), "{:?}", rig.ear.retained().keys());
    assert!(rig.ear.retained().contains_key("twin/b1/desired/mode"));
    assert_eq!(reason(&rig.ask("twin/b2/get", "", 1)), 0x90);
    rig.twins.reload(&both);
    rig.ask("twin/b2/desired/mode/set", "1", 1);
    assert_eq!(rig.retained("twin/b2/desired/mode")["version"], 3);
    assert_eq!(rig.retained("twin/b2/reported/temperature"), json!(null));
    rig.twins.reload(&config(BOILER, &["b1"]));
    rig.twins.stop();
    rig.store.close();
    drop(rig);
    let rig = Rig::new(dir.path(), &both);
    rig.ask("twin/b2/reported/set", r#"{"readings":{"temperature":1}}"#, 0);
    rig.ask("twin/b2/desired/mode/set", "1", 1);
    let version = |topic: &str| rig.retained(topic)["version"].as_u64().unwrap();
    assert_eq!((version("twin/b2/desired/mode"), version("twin/b2/reported/temperature")), (5, 3));
}

#[test]
fn a_new_profile_takes_over_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":1,"setpoint":20}}"#, 0);
    rig.set(json!({"setpoint": 22, "mode": 1}));
    rig.twins.reload(&config(SMALLER, &["b1"]));
    rig.pass(0);
    let retained = rig.ear.retained();
    let keys: Vec<&str> = retained.keys().map(String::as_str).collect();
    let expected =
        ["twin/b1", "twin/b1/delta", "twin/b1/desired/setpoint", "twin/b1/reported/setpoint", "twin/b1/status"];
    assert_eq!(keys, expected);
    assert_eq!(retained["twin/b1/delta"]["desired"], json!({"setpoint": 22}));
    assert_eq!(retained["twin/b1"]["profile"], "acme.boiler@1.3.0");
    let told = rig.ear.0.lock().unwrap().iter().any(|word| {
        word.topic() == "twin/b1/event" && parsed(word.payload())["desired"]["mode"]["state"] == "rejected"
    });
    assert!(told, "the lost wish is told");
}
