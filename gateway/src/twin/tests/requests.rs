//! What is asked, who may ask, and where the answer goes.

use super::*;

#[test]
fn topics_are_claimed_as_the_contract_has_it() {
    for (topic, expected) in [
        ("twin/d/desired/p/set", Claim::Taken),
        ("twin/d/desired/set", Claim::Taken),
        ("twin/d/get", Claim::Taken),
        ("twin/d/reported/set", Claim::Mapper),
        ("twin/d/desired/ack", Claim::Mapper),
        ("twin/d/status/set", Claim::Mapper),
        ("twin/d/reported/p", Claim::Reserved),
        ("twin/d", Claim::Reserved),
        ("twin/d/delta", Claim::Reserved),
        ("twin/d/event", Claim::Reserved),
        ("twin/d/nonsense", Claim::Reserved),
        ("twin/d/desired/bad name/set", Claim::Reserved),
        ("twin", Claim::Reserved),
        ("twin/", Claim::Reserved),
        ("gateway/status", Claim::Reserved),
        ("gateway/connection/bus1/request", Claim::Free),
        ("gateway/connection/bus1/status", Claim::Free),
        ("twins/d/delta", Claim::Free),
        ("site/twin/d/delta", Claim::Free),
        ("", Claim::Free),
    ] {
        assert_eq!(claim("twin", topic), expected, "{topic}");
    }
    assert_eq!(claim("a/b", "a/b/d/get"), Claim::Taken);
    assert_eq!(claim("a/b", "twin/d/delta"), Claim::Free);
}

#[test]
fn a_refusal_carries_code_reason_and_words() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    let long = format!("\"{}\"", "x".repeat(REQUEST_BYTES));
    for (topic, payload, code, mqtt, errors) in [
        ("twin/b1/desired/set", "{", 400, 0x99, None),
        ("twin/b1/desired/set", r#"{"pach":{}}"#, 400, 0x99, None),
        ("twin/b1/desired/setpoint/set", "22 23", 400, 0x99, None),
        ("twin/b1/get", "[]", 400, 0x99, None),
        ("twin/b1/desired/ack", "{}", 400, 0x99, None),
        ("twin/b1/reported/set", r#"{"readings":{"temperature":{"value":1,"quality":"fine"}}}"#, 400, 0x99, None),
        ("twin/b1/status/set", r#"{"state":"asleep"}"#, 400, 0x99, None),
        ("twin/b2/desired/set", r#"{"patch":{}}"#, 404, 0x90, Some(json!({"": "there is no device b2"}))),
        ("twin/b2/reported/set", r#"{"readings":{}}"#, 404, 0x90, None),
        ("twin/b1/desired/setpoint/set", long.as_str(), 413, 0x97, None),
        ("twin/b1/desired/setpoint/set", "31", 422, 0x99, Some(json!({"setpoint": "above maximum 30"}))),
        ("twin/b1/desired/temperature/set", "31", 422, 0x99, Some(json!({"temperature": "is read-only"}))),
        (
            "twin/b1/desired/set",
            r#"{"patch":{"setpoint":20},"if_version":7}"#,
            409,
            0x83,
            Some(json!({"": "the desired section is at version 0, not 7"})),
        ),
        (
            "twin/b1/reported/set",
            r#"{"readings":{"temperature":20.5,"x":1}}"#,
            422,
            0x99,
            Some(json!({"x": "no such property; the other readings were taken"})),
        ),
    ] {
        rig.ear.take();
        let verdict = rig.ask(topic, payload, 1);
        assert_eq!(reason(&verdict), mqtt, "{topic} {payload:.60}: {verdict:?}");
        let words = rig.ear.take();
        let result = &words.iter().find(|word| word.0.ends_with("/result")).unwrap().1;
        assert_eq!((&result["ok"], &result["code"]), (&json!(false), &json!(code)), "{topic} {payload:.60}");
        assert!(errors.is_none_or(|errors| result["errors"] == errors), "{result}");
        assert!(!words.iter().any(|word| word.0.contains("/desired/") || word.0.ends_with("/delta")), "{words:?}");
    }
    let reader = rig.send(|request| {
        request.author.role = "reader".to_owned();
        request.topic = "twin/b1/desired/set".to_owned();
        request.payload = r#"{"patch":{"setpoint":20}}"#.into();
    });
    assert_eq!(reason(&reader.recv().unwrap().unwrap()), 0x87);
    assert_eq!(rig.retained("twin/b1/reported/temperature")["value"], json!(null), "ears were emptied");
}

#[test]
fn a_refusal_carries_the_id_of_its_request() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    let large = json!({"id": "r1", "patch": {"setpoint": "x".repeat(REQUEST_BYTES)}}).to_string();
    for (topic, payload, code, id) in [
        ("twin/b1/desired/set", r#"{"id":"r1","patch":{"setpoint":31}}"#, 422, json!("r1")),
        ("twin/b1/desired/set", r#"{"id":"r1","pach":{}}"#, 400, json!("r1")),
        ("twin/b1/desired/set", r#"{"id":"r1"}"#, 400, json!("r1")),
        ("twin/b1/desired/set", r#"{"patch":{},"ttl_s":-1,"id":"r1"}"#, 400, json!("r1")),
        ("twin/b1/desired/set", r#"{"id":7,"patch":{}}"#, 400, json!("7")),
        ("twin/b1/desired/set", r#"{"id":["r1"],"patch":{}}"#, 400, json!(null)),
        ("twin/b1/desired/set", r#"{"id":"r1","patch":{}"#, 400, json!(null)),
        ("twin/b1/desired/set", r#"["r1"]"#, 400, json!(null)),
        ("twin/b1/desired/set", large.as_str(), 413, json!("r1")),
        ("twin/b2/desired/set", r#"{"id":"r1","patch":{}}"#, 404, json!("r1")),
        ("twin/b2/get", r#"{"id":"r1"}"#, 404, json!("r1")),
        ("twin/b1/get", r#"{"id":"r1","what":1}"#, 400, json!("r1")),
    ] {
        rig.ear.take();
        rig.ask(topic, payload, 1);
        let words = rig.ear.take();
        let result = &words.iter().find(|word| word.0.ends_with("/result")).unwrap().1;
        assert_eq!((&result["code"], &result["id"]), (&json!(code), &id), "{topic} {payload:.60}");
    }
}

#[test]
fn the_answer_goes_where_the_request_wants_it_unless_that_topic_is_the_gateways() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    for (wanted, answered) in [
        (None, "twin/b1/result"),
        (Some("clients/c1/answers"), "clients/c1/answers"),
        (Some("twin/b1/result"), "twin/b1/result"),
        (Some("twin/b1/reported/temperature"), "twin/b1/result"),
        (Some("gateway/status"), "twin/b1/result"),
    ] {
        rig.ear.take();
        let told = rig.send(|request| {
            request.topic = "twin/b1/get".to_owned();
            request.payload = r#"{"id":"q"}"#.into();
            request.response_topic = wanted.map(str::to_owned);
            request.correlation = Some(Bytes::from_static(b"\0\x01"));
        });
        assert_eq!(told.recv().unwrap(), Some(Verdict::Accepted));
        let words = std::mem::take(&mut *rig.ear.0.lock().unwrap());
        let [word] = &words[..] else { panic!("{words:?}") };
        assert_eq!((word.topic(), word.retain), (answered, false));
        assert_eq!(word.correlation.as_deref(), Some(&b"\0\x01"[..]));
        let document: Value = parsed(word.payload());
        assert_eq!((&document["id"], &document["device"]), (&json!("q"), &json!("b1")));
        assert!(serde_json::from_value::<protocols::message::Document>(document).is_ok());
    }
}

#[test]
fn what_waits_is_bounded_in_number_and_bytes() {
    let load = Arc::new(Load::default());
    let tickets: Vec<_> = (0..QUEUE_REQUESTS).map(|_| Ticket::take(&load, 1).unwrap()).collect();
    assert!(Ticket::take(&load, 1).is_none());
    drop(tickets);
    let big = Ticket::take(&load, QUEUE_BYTES).unwrap();
    assert!(Ticket::take(&load, 1).is_none());
    drop(big);
    assert!(Ticket::take(&load, 1).is_some());
}
