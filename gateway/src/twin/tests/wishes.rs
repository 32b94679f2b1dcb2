//! Wishes: from `set` to their end, and none without a reason.

use super::*;

#[test]
fn a_wish_goes_from_set_to_applied() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ear.take();
    let verdict = rig.ask("twin/b1/desired/set", r#"{"id":"r1","patch":{"setpoint":22,"mode":1},"by":"ha"}"#, 1);
    assert_eq!(verdict, Verdict::Accepted);
    let words: Vec<_> = rig.ear.take();
    let of = |topic: &str| words.iter().find(|word| word.0 == topic).map(|word| word.1.clone()).unwrap_or_default();
    let wish = of("twin/b1/desired/setpoint");
    assert_eq!((&wish["value"], &wish["version"], &wish["by"]), (&json!(22), &json!(1), &json!("ha")));
    assert_eq!(wish["state"], "pending");
    let epoch = rig.store.opened().epoch.clone();
    assert_eq!(of("twin/b1/delta"), json!({"epoch": epoch, "version": 1, "desired": {"setpoint": 22, "mode": 1}}));
    let event = of("twin/b1/event");
    assert_eq!((&event["from"], &event["to"], event["desired"].as_object().unwrap().len()), (&json!(0), &json!(1), 2));
    assert_eq!(of("twin/b1/result"), json!({"id": "r1", "ok": true, "version": 1}));
    assert_eq!(of("twin/b1")["delta"], json!({"setpoint": 22, "mode": 1}));

    let ack = r#"{"version":1,"results":{"setpoint":{"state":"applied","actual":22.0,"reason":null},"mode":{"state":"rejected","reason":"exception 3"}}}"#;
    assert_eq!(rig.ask("twin/b1/desired/ack", ack, 1), Verdict::Accepted);
    let words = rig.ear.take();
    let of = |topic: &str| words.iter().find(|word| word.0 == topic).map(|word| word.1.clone()).unwrap_or_default();
    assert_eq!(of("twin/b1/desired/setpoint")["state"], "applied");
    assert_eq!(of("twin/b1/desired/mode")["reason"], "exception 3");
    assert_eq!(of("twin/b1/delta")["desired"], json!({}));
    assert!(!words.iter().any(|word| word.0 == "twin/b1/result"), "a mapper that did not ask hears nothing");

    for clear in ["null", ""] {
        rig.ask("twin/b1/desired/mode/set", "3", 1);
        assert_eq!(rig.ask("twin/b1/desired/mode/set", clear, 1), Verdict::Accepted);
        let words = rig.ear.take();
        let last = words.iter().rfind(|word| word.0 == "twin/b1/desired/mode").unwrap();
        assert_eq!(last.1, Value::Null, "the retained topic is cleared");
    }
}

#[test]
fn an_event_carries_both_sections() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":20.5}}"#, 1);
    rig.set(json!({"setpoint": 20}));
    rig.set(json!({"setpoint": null}));
    let events: Vec<Value> =
        rig.ear.take().into_iter().filter(|word| word.0.ends_with("/event")).map(|w| w.1).collect();
    assert!(events.len() >= 3, "{events:?}");
    for event in events {
        assert!(event["reported"].is_object() && event["desired"].is_object(), "{event}");
    }
}

#[test]
fn a_wish_is_never_pending_without_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    for (status, value, reason) in [
        (None, 20, "no mapper has reported yet"),
        (Some("offline"), 21, "device offline"),
        (Some("online"), 22, "waiting for the device"),
    ] {
        if let Some(state) = status {
            rig.ask("twin/b1/status/set", &json!({ "state": state }).to_string(), 1);
        }
        rig.set(json!({ "setpoint": value }));
        let wish = rig.retained("twin/b1/desired/setpoint");
        assert_eq!((&wish["state"], &wish["reason"]), (&json!("pending"), &json!(reason)));
    }
    rig.ask("twin/b1/desired/ack", r#"{"version":3,"results":{"setpoint":{"state":"pending"}}}"#, 1);
    assert_eq!(rig.retained("twin/b1/desired/setpoint")["reason"], "waiting for the device");
    rig.ask("twin/b1/desired/ack", r#"{"version":3,"results":{"setpoint":{"state":"applied","actual":22}}}"#, 1);
    assert_eq!(rig.retained("twin/b1/desired/setpoint")["reason"], json!(null));
}

#[test]
fn a_wish_that_cannot_be_stored_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.set(json!({"setpoint": 20}));
    rig.store.close();
    rig.ear.take();
    let verdict = rig.set(json!({"setpoint": 21}));
    assert_eq!(reason(&verdict), 0x80, "{verdict:?}");
    let words = rig.ear.take();
    assert_eq!(words.len(), 1, "{words:?}");
    assert_eq!((&words[0].0[..], &words[0].1["code"]), ("twin/b1/result", &json!(503)));
    rig.ask("twin/b1/get", "", 1);
    let document = &rig.ear.take()[0].1;
    assert_eq!((&document["delta"], &document["desired"]["version"]), (&json!({"setpoint": 20}), &json!(1)));
    let read = |step: u64| rig.ask("twin/b1/reported/set", &json!({"readings": {"temperature": step}}).to_string(), 0);
    for step in 1..=VERSION_RESERVE {
        assert_eq!(read(step), Verdict::Accepted, "readings go on while their versions are safe");
    }
    assert_eq!(reason(&read(VERSION_RESERVE + 1)), 0x80, "a version that a restart could repeat is not published");
    assert_eq!(rig.retained("twin/b1/reported/temperature")["version"], VERSION_RESERVE);
}

#[test]
fn a_wish_expires_though_nobody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ask("twin/b1/desired/set", r#"{"patch":{"setpoint":20},"ttl_s":60}"#, 1);
    rig.pass(59_999);
    assert_eq!(rig.retained("twin/b1/desired/setpoint")["state"], "pending");
    rig.pass(1_001);
    for _ in 0..200 {
        if rig.retained("twin/b1/desired/setpoint")["state"] == "expired" {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(rig.retained("twin/b1/desired/setpoint")["state"], "expired");
    assert_eq!(rig.retained("twin/b1/delta")["desired"], json!({}));
    assert_eq!(rig.twins.counts().expired, 1);
}

#[test]
fn a_pulse_is_told_and_then_gone() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.set(json!({"button": true}));
    rig.ear.take();
    rig.ask("twin/b1/desired/ack", r#"{"version":1,"results":{"button":{"state":"applied"}}}"#, 1);
    let words = rig.ear.take();
    let of: Vec<_> = words.iter().filter(|word| word.0 == "twin/b1/desired/button").map(|word| &word.1).collect();
    assert_eq!(of.len(), 2);
    assert_eq!((&of[0]["state"], of[1]), (&json!("applied"), &Value::Null));
}
