//! What edgecore was recorded to take and to say, and every rule of this dialect.

use proptest::prelude::*;
use serde_json::json;

use super::super::for_tests::*;
use super::*;
use crate::outbox::Settled;

/// Recorded with kubeedge at 16cd8548: what was published to edgecore (`in`) and what it published (`out`).
const RECORDED: &str = include_str!("../../../../tests/data/kubeedge.jsonl");

/// The device of the recordings.
const PROFILE: &str = "schema: 1
id: test.kube
version: 1.0.0
meta: {vendor: V, model: M, category: test}
properties:
  temperature: {type: number, from: {modbus: {table: input, address: 0, type: float32}}}
  count: {type: int, from: {modbus: {table: input, address: 4, type: uint64}}}
  switch: {type: enum, access: rw, enum: {0: 'OFF', 1: 'ON'}, from: {modbus: {table: holding, address: 0, type: uint16}}}
  level: {type: int, access: rw, from: {modbus: {table: holding, address: 1, type: int16}}}
  label: {type: string, from: {modbus: {table: input, address: 16, type: string, length: 8}}}
";

const AT: &str = "2023-11-14T22:13:20.004Z";

fn node() -> (KubeEdge, Site) {
    let devices = HashMap::from([(id("d1"), profile_of(PROFILE))]);
    (KubeEdge::new(Some("default"), Some("edge-node"), Vec::new()), Site { devices, ..site() })
}

fn recorded(set: &str, step: u64) -> Value {
    let steps = RECORDED.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    steps.into_iter().find(|line| line["set"] == set && line["n"] == step).unwrap()
}

/// What was published to edgecore in a step of set A: topic and payload.
fn taken(step: u64) -> (String, Value) {
    let step = &recorded("A", step)["in"];
    (step["topic"].as_str().unwrap().to_owned(), serde_json::from_str(step["payload"].as_str().unwrap()).unwrap())
}

/// What edgecore published to a topic with this end in a step of set A, at a time, as the answer to an event.
fn said(step: u64, end: &str, event_id: &str, at: i64) -> Message {
    let step = recorded("A", step);
    let out = step["out"].as_array().unwrap();
    let out = out.iter().find(|out| out["topic"].as_str().is_some_and(|topic| topic.ends_with(end))).unwrap();
    let text = out["payload"].to_string().replace("\"<ms>\"", &at.to_string());
    let mut payload: Value = serde_json::from_str(&text).unwrap();
    payload["event_id"] = event_id.into();
    message(out["topic"].as_str().unwrap(), &payload)
}

fn without_ids((topic, mut payload): (String, Value)) -> (String, Value) {
    payload.as_object_mut().unwrap().retain(|key, _| key != "event_id" && key != "timestamp");
    (topic, payload)
}

fn reported(value: &Value) -> Value {
    json!({"value": value, "quality": "good", "at": AT, "version": 3})
}

/// Connected, and told that `d1` is there with nothing in it.
fn ready() -> (KubeEdge, Site) {
    let (mut edge, site) = node();
    edge.connected(&site, false, now(1));
    let heard = edge.hear(&said(10, "get/result", "any", 1), &site, now(1));
    assert!(heard.is_empty(), "{heard:?}");
    (edge, site)
}

fn token(saying: &Saying) -> String {
    match &saying.settle {
        Settle::Reply(token) => token.clone(),
        Settle::Puback => panic!("nothing to answer in {saying:?}"),
    }
}

fn settled(heard: &[Heard]) -> Vec<&Settled> {
    heard
        .iter()
        .filter_map(|heard| if let Heard::Settled { outcome, .. } = heard { Some(outcome) } else { None })
        .collect()
}

#[test]
fn what_is_said_is_what_edgecore_was_recorded_to_take() {
    let (mut edge, site) = node();
    let asked = edge.connected(&site, false, now(1));
    assert_eq!(without_ids(pair(&asked[0])), without_ids(taken(10)));
    assert!(!edge.ready(Some(&id("d1"))));
    edge.hear(&said(10, "get/result", "any", 1), &site, now(1));
    assert!(edge.ready(Some(&id("d1"))));

    let saying = edge.say(&batch("d1", &[("reported/temperature", reported(&json!(25.3)))]), &site, now(2));
    assert_eq!(saying.publishes.iter().map(pair).map(without_ids).collect::<Vec<_>>(), [without_ids(taken(13))]);
    assert_eq!(json_of(&saying.publishes[0])["event_id"], token(&saying));

    let saying = edge.say(&batch("d1", &[("status", json!({"state": "online"}))]), &site, now(2));
    assert_eq!(saying.publishes.iter().map(pair).map(without_ids).collect::<Vec<_>>(), [without_ids(taken(5))]);
    assert_eq!(saying.settle, Settle::Puback);
    for (ours, theirs) in [("offline", "offline"), ("stale", "unhealthy"), ("unknown", "unknown")] {
        let saying = edge.say(&batch("d1", &[("status", json!({"state": ours}))]), &site, now(2));
        assert_eq!(json_of(&saying.publishes[0])["state"], theirs);
    }
}

#[test]
fn ids_have_two_levels_with_a_namespace_and_one_without() {
    for (namespace, node, filter, topic) in [
        (
            Some("default"),
            Some("edge-node"),
            "$hw/events/device/+/+/twin/update/delta",
            "$hw/events/device/default/d1/twin/get",
        ),
        (None, None, "$hw/events/device/+/twin/update/delta", "$hw/events/device/d1/twin/get"),
    ] {
        let (_, site) = self::node();
        let mut edge = KubeEdge::new(namespace, node, Vec::new());
        let filters = edge.subscriptions(&site);
        assert!(filters.contains(&(filter.to_owned(), 1)), "{filters:?}");
        let membership = format!("$hw/events/node/{}/membership/updated", node.unwrap_or("+"));
        assert!(filters.contains(&(membership, 1)), "{filters:?}");
        assert_eq!(edge.connected(&site, false, now(1))[0].topic, topic);
    }
}

/// Steps 13, 23, 29 and 33: a result carries the event id of the update.
#[test]
fn a_result_settles_the_batch_it_answers() {
    for (step, expected) in [(13, Settled::Accepted), (23, Settled::Refused("the value is not float".to_owned()))] {
        let (mut edge, site) = ready();
        let saying = edge.say(&batch("d1", &[("reported/temperature", reported(&json!(25.3)))]), &site, now(2));
        assert!(edge.hear(&said(step, "update/result", "of-another-client", 5), &site, now(2)).is_empty());
        let heard = edge.hear(&said(step, "update/result", &token(&saying), 5), &site, now(2));
        assert_eq!(settled(&heard), [&expected]);
        let again = edge.hear(&said(step, "update/result", &token(&saying), 5), &site, now(2));
        assert!(again.is_empty(), "an answer twice: {again:?}");
    }
    let (mut edge, site) = ready();
    let saying = edge.say(&batch("d1", &[("reported/temperature", reported(&json!(25.3)))]), &site, now(2));
    let mut gone = said(29, "update/result", &token(&saying), 5);
    gone.topic = "$hw/events/device/default/d1/twin/update/result".to_owned();
    let heard = edge.hear(&gone, &site, now(2));
    assert_eq!(settled(&heard), [&Settled::Later(5_000)]);
    assert!(!edge.ready(Some(&id("d1"))));
}

#[test]
fn an_update_that_is_refused_whole_is_said_key_by_key() {
    let (mut edge, site) = ready();
    let parts = [("reported/temperature", reported(&json!(27))), ("reported/count", reported(&json!(7)))];
    let saying = edge.say(&batch("d1", &parts), &site, now(2));
    assert_eq!(saying.publishes.len(), 1);
    let heard = edge.hear(&said(33, "update/result", &token(&saying), 5), &site, now(2));
    assert!(settled(&heard).is_empty());
    let alone: Vec<Value> = says(&heard).iter().map(json_of).collect();
    let keys: Vec<Vec<&String>> = alone.iter().map(|said| said["twin"].as_object().unwrap().keys().collect()).collect();
    assert_eq!(keys, [["count"], ["temperature"]]);
    let event_id = |index: usize| alone[index]["event_id"].as_str().unwrap().to_owned();
    assert!(settled(&edge.hear(&said(13, "update/result", &event_id(1), 5), &site, now(3))).is_empty());
    let heard = edge.hear(&said(24, "update/result", &event_id(0), 5), &site, now(3));
    assert_eq!(settled(&heard), [&Settled::Refused("count: the value is not int or integer".to_owned())]);
}

/// Steps 16 to 18: `expected` in a delta, sent again after every message while it differs.
#[test]
fn what_is_expected_is_wished_once_and_again_when_it_is_expected_anew() {
    let (mut edge, site) = ready();
    let heard = edge.hear(&said(16, "update/delta", "x", 1_000), &site, now(2));
    assert_eq!(wished(&heard), [r#"d1: {"switch":"ON"}"#]);
    let wish = wishes(&heard).remove(0);
    assert_eq!(wish.at, Some(crate::value::Timestamp::from_ms(1_000)));
    let answer = Answer { device: id("d1"), id: None, result: Ok(4), reply: wish.reply };
    assert!(edge.answered(&answer, &site, now(2)).is_empty());

    assert!(edge.hear(&said(16, "update/delta", "y", 1_000), &site, now(3)).is_empty());
    assert!(edge.hear(&said(18, "get/result", "z", 1_000), &site, now(3)).is_empty());
    let memory: Vec<_> = edge.memory().into_iter().filter_map(|(key, text)| Some((key, text?))).collect();
    let mut later = KubeEdge::new(Some("default"), None, memory);
    later.connected(&site, false, now(4));
    assert!(later.hear(&said(18, "get/result", "z", 1_000), &site, now(4)).is_empty(), "known from before the restart");
    assert_eq!(wished(&later.hear(&said(16, "update/delta", "y", 2_000), &site, now(5))), [r#"d1: {"switch":"ON"}"#]);
    // Expected no longer: step 10 has nothing at all.
    assert_eq!(wished(&later.hear(&said(10, "get/result", "z", 1), &site, now(6))), [r#"d1: {"switch":null}"#]);
}

#[test]
fn an_expected_value_that_means_nothing_here_is_told_once() {
    let (mut edge, site) = ready();
    for (name, text, expected) in [
        ("level", "high", "d1 level: the value is not int or integer"),
        ("temperature", "20", "d1 temperature: expected at edgecore, but it is read-only"),
        ("nonsense", "1", "d1 nonsense: expected at edgecore, but d1 has no such property"),
    ] {
        let delta = json!({"event_id": "x", "timestamp": 1, "twin": {name: {"expected": {"value": text, "metadata": {"timestamp": 9}}}}, "delta": {name: text}});
        let delta = message("$hw/events/device/default/d1/twin/update/delta", &delta);
        assert_eq!(edge.hear(&delta, &site, now(2)), [Heard::Senseless(expected.to_owned())]);
        assert!(edge.hear(&delta, &site, now(3)).is_empty());
    }
    let level = json!({"event_id": "x", "twin": {"level": {"expected": {"value": "12"}}}});
    let level = message("$hw/events/device/default/d1/twin/update/delta", &level);
    assert_eq!(wished(&edge.hear(&level, &site, now(2))), [r#"d1: {"level":12}"#]);
}

/// Steps 11 and 1.
#[test]
fn a_device_that_edgecore_does_not_have_is_told_and_asked_for_again() {
    let (mut edge, site) = node();
    edge.connected(&site, false, now(1));
    let mut absent = said(11, "get/result", "x", 1);
    absent.topic = "$hw/events/device/default/d1/twin/get/result".to_owned();
    let heard = edge.hear(&absent, &site, now(1));
    assert_eq!(
        heard,
        [Heard::Senseless("edgecore has no device default/d1; make a Device of that name for its node".to_owned())]
    );
    assert!(edge.tick(&site, now(60)).is_empty());
    assert_eq!(edge.tick(&site, now(62)).len(), 1);
    assert!(edge.hear(&absent, &site, now(62)).is_empty(), "told twice");
    let heard = edge.hear(&said(1, "membership/updated", "x", 1), &site, now(63));
    assert_eq!(says(&heard)[0].topic, "$hw/events/device/default/d1/twin/get");
    edge.hear(&said(10, "get/result", "x", 1), &site, now(63));
    assert!(edge.ready(Some(&id("d1"))));
    let removed =
        json!({"event_id": "", "timestamp": 1, "added_devices": null, "removed_devices": [{"id": "default/d1"}]});
    edge.hear(&message("$hw/events/node/edge-node/membership/updated", &removed), &site, now(64));
    assert!(!edge.ready(Some(&id("d1"))));
}

#[test]
fn an_edgecore_that_is_silent_is_told() {
    let (mut edge, site) = node();
    edge.connected(&site, false, now(1));
    edge.tick(&site, now(5));
    assert!(edge.noticed(now(5)).is_empty());
    assert_eq!(edge.tick(&site, now(21)).len(), 1);
    assert!(matches!(&edge.noticed(now(21))[..], [Heard::Senseless(text)] if text.contains("does not answer")));
}

/// Steps 21, 22 and 30: for these edgecore's complaint names no device and no event.
#[test]
fn what_edgecore_would_refuse_is_not_sent() {
    let (mut edge, site) = ready();
    for (name, value, why) in [
        ("label", json!("a b"), "holds ' '"),
        ("label", json!("süß"), "holds 'ü'"),
        ("label", json!("50%"), "holds '%'"),
        ("label", json!("x".repeat(513)), "513 bytes"),
        ("count", json!(18_446_744_073_709_551_615_u64), "no integer of 64 bits"),
    ] {
        let item = format!("reported/{name}");
        let parts = [(item.as_str(), reported(&value)), ("reported/temperature", reported(&json!(1.5)))];
        let saying = edge.say(&batch("d1", &parts), &site, now(2));
        assert!(saying.unsayable[0].1.contains(why), "{:?}", saying.unsayable);
        let twin = &json_of(&saying.publishes[0])["twin"];
        assert_eq!(twin.as_object().unwrap().keys().collect::<Vec<_>>(), ["temperature"]);
    }
    let saying = edge.say(&batch("d1", &[("reported/label", reported(&json!("")))]), &site, now(2));
    assert_eq!(json_of(&saying.publishes[0])["twin"]["label"]["actual"]["value"], "");
}

#[test]
fn a_bad_reading_leaves_the_last_good_one_and_a_property_that_is_gone_is_deleted_unless_it_is_expected() {
    let (mut edge, site) = ready();
    let bad = |last: Value| json!({"value": null, "quality": "bad:timeout", "at": AT, "version": 4, "last_good": last});
    let saying =
        edge.say(&batch("d1", &[("reported/temperature", bad(json!({"value": 20, "at": AT})))]), &site, now(2));
    assert_eq!(json_of(&saying.publishes[0])["twin"]["temperature"]["actual"]["value"], "20");
    let saying = edge.say(&batch("d1", &[("reported/temperature", bad(Value::Null))]), &site, now(2));
    assert!(saying.publishes.is_empty());
    assert_eq!(saying.settle, Settle::Puback);

    edge.hear(&said(16, "update/delta", "x", 1_000), &site, now(2));
    let saying = edge.say(
        &batch("d1", &[("reported/temperature", Value::Null), ("reported/switch", Value::Null)]),
        &site,
        now(3),
    );
    assert_eq!(without_ids(pair(&saying.publishes[0])), without_ids(taken(35)));
}

#[test]
fn a_device_made_anew_there_is_told_everything_again() {
    let (mut edge, site) = ready();
    let saying = edge.say(&batch("d1", &[("reported/temperature", reported(&json!(25.3)))]), &site, now(2));
    edge.hear(&said(13, "update/result", &token(&saying), 5), &site, now(2));
    edge.disconnected();
    edge.connected(&site, false, now(3));
    assert!(
        edge.hear(&said(18, "get/result", "x", 0), &site, now(3))
            .iter()
            .all(|heard| !matches!(heard, Heard::Resync(_)))
    );
    let heard = edge.hear(&said(10, "get/result", "x", 1), &site, now(4));
    assert!(heard.contains(&Heard::Resync(Some(id("d1")))), "{heard:?}");
    assert!(edge.hear(&said(10, "get/result", "x", 1), &site, now(5)).is_empty(), "once");
}

/// `$ke` data: `{event_id, timestamp, data: {key: {value, metadata: {timestamp, type}}}}`, a key once in a message.
#[test]
fn streamed_readings_are_data_for_applications_beside_edgecore() {
    let (mut edge, site) = ready();
    let readings = [
        streamed("d1", "temperature", 1, &reported(&json!(20.5))),
        streamed("d1", "count", 2, &reported(&json!(7))),
        streamed("d1", "temperature", 3, &reported(&json!(21))),
        streamed("d1", "count", 4, &json!({"value": null, "quality": "bad:timeout", "at": AT, "version": 9})),
    ];
    let said: Vec<_> = edge.stream(&readings, &site, now(2)).iter().map(pair).map(without_ids).collect();
    let topic = "$ke/events/device/default/d1/data/update".to_owned();
    let member = |value: &str, kind: &str| json!({"value": value, "metadata": {"timestamp": 1_700_000_000_004_i64, "type": kind}});
    let first = json!({"data": {"temperature": member("20.5", "float"), "count": member("7", "int")}});
    assert_eq!(said, [(topic.clone(), first), (topic, json!({"data": {"temperature": member("21", "float")}}))]);
}

proptest! {
    #[test]
    fn no_message_brings_it_down(messages in prop::collection::vec(any_message(&[
        "$hw/events/device/default/boiler-1/twin/update/result",
        "$hw/events/device/default/boiler-1/twin/update/delta",
        "$hw/events/device/default/boiler-1/twin/get/result",
        "$hw/events/device//twin/update/result",
        "$hw/events/node/edge-node/membership/updated",
    ]), 0..12)) {
        survives(&mut KubeEdge::new(Some("default"), None, Vec::new()), &messages);
    }

    #[test]
    fn whatever_edgecore_holds_in_expected_means_only_what_is_there(values in prop::collection::btree_map("(setpoint|mode|pump|room|x)", "[-a-z0-9. ]{0,8}", 0..5)) {
        let twin: serde_json::Map<String, Value> = values.iter().map(|(key, text)| (key.clone(), json!({"expected": {"value": text}}))).collect();
        let delta = message("$hw/events/device/default/boiler-1/twin/update/delta", &json!({"twin": twin}));
        let (mut edge, site) = (KubeEdge::new(Some("default"), None, Vec::new()), site());
        edge.connected(&site, false, now(1));
        for wish in wishes(&edge.hear(&delta, &site, now(2))) {
            for (name, value) in &wish.patch {
                let text = &values[name];
                let same = match value {
                    Value::String(said) => said == text,
                    Value::Number(number) => number.as_f64() == text.parse().ok(),
                    Value::Bool(flag) => text.parse() == Ok(*flag),
                    _ => false,
                };
                prop_assert!(same, "{name}: {value} of {text}");
            }
        }
    }
}
