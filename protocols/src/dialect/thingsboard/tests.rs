//! Golden pairs after ThingsBoard's "MQTT Gateway API Reference", and every rule of this dialect.

mod server;

use proptest::prelude::*;
use serde_json::json;

use super::super::for_tests::*;
use super::*;
use crate::message::DeviceState;

const AT: &str = "2026-11-22T12:00:00.000Z";

fn things() -> ThingsBoard {
    ThingsBoard::new(None, Vec::new())
}

fn reported(value: &Value) -> Value {
    json!({"value": value, "quality": "good", "at": AT, "version": 3})
}

fn answer_to(note: &str, result: Result<u64, (u16, &str)>) -> Answer {
    let name = note.split_once(':').map_or(note, |(_, name)| name).to_owned();
    let result = result.map_err(|(code, text)| (code, BTreeMap::from([(name, text.to_owned())])));
    Answer {
        device: id("boiler-1"),
        id: None,
        result,
        reply: Reply { note: Some(note.to_owned()), ..Reply::default() },
    }
}

fn ready() -> (ThingsBoard, Site) {
    let (mut things, site) = (things(), site());
    things.connected(&site, false, now(1));
    (things, site)
}

/// "Device Connect API" and "Request attribute values from the server": `id`, `device`, `client`, `key`.
#[test]
fn devices_are_connected_and_their_shared_attributes_asked_for_in_every_session() {
    let (mut things, site) = (things(), site());
    assert!(!things.ready(Some(&id("boiler-1"))));
    for session in 0..2 {
        let said: Vec<(String, Value)> = things.connected(&site, false, now(1 + session)).iter().map(pair).collect();
        assert_eq!(
            said[0],
            ("v1/gateway/connect".to_owned(), json!({"device": "boiler-1", "type": "tidegate.demo_boiler"}))
        );
        assert_eq!(said[1].1["device"], "meter.1");
        let mut asked: Vec<&str> = said
            .iter()
            .filter(|(topic, body)| topic == "v1/gateway/attributes/request" && body["device"] == "boiler-1")
            .filter_map(|(_, body)| body["key"].as_str())
            .collect();
        asked.sort_unstable();
        assert_eq!(asked, ["mode", "pump", "reset_faults", "room", "setpoint"]);
        assert!(said.iter().skip(2).all(|(_, body)| body["client"] == false && body["id"].is_u64()));
        assert!(things.ready(Some(&id("boiler-1"))));
        things.disconnected();
    }
    let said = ThingsBoard::new(Some("boiler"), Vec::new()).connected(&site, false, now(1));
    assert_eq!(json_of(&said[0])["type"], "boiler");
    let filters: Vec<String> = things.subscriptions(&site).into_iter().map(|(filter, _)| filter).collect();
    assert_eq!(filters, ["v1/gateway/attributes", "v1/gateway/attributes/response", "v1/gateway/rpc"]);
}

/// "Subscribe to attribute updates from the server", and the `deleted` list of the server's source.
#[test]
fn a_shared_attribute_is_a_wish_and_deleting_it_clears_the_wish() {
    let (mut things, site) = ready();
    for (body, expected) in [
        (
            json!({"device": "boiler-1", "data": {"setpoint": 22, "mode": "eco"}}),
            vec![r#"boiler-1: {"mode":"eco"}"#, r#"boiler-1: {"setpoint":22}"#],
        ),
        (json!({"device": "boiler-1", "data": {"setpoint": 22}}), vec![r#"boiler-1: {"setpoint":22}"#]),
        (
            json!({"device": "boiler-1", "data": {"deleted": ["setpoint", "never"]}}),
            vec![r#"boiler-1: {"setpoint":null}"#],
        ),
        (json!({"device": "stranger", "data": {"setpoint": 22}}), vec![]),
        (json!({"device": "boiler-1"}), vec![]),
    ] {
        let heard = things.hear(&message("v1/gateway/attributes", &body), &site, now(2));
        assert_eq!(wished(&heard), expected, "{body}");
        assert!(!expected.is_empty() || matches!(heard[..], [Heard::Senseless(_)]), "{body}");
    }
}

/// The documented answer has `value`; newer servers may answer with `values`, and with neither when there is none.
#[test]
fn an_answer_is_a_wish_only_where_it_is_news() {
    let site = site();
    let memory = {
        let (mut things, _) = ready();
        things.hear(
            &message("v1/gateway/attributes", &json!({"device": "boiler-1", "data": {"setpoint": 22}})),
            &site,
            now(2),
        );
        things.answered(&answer_to("shared:setpoint", Ok(4)), &site, now(2));
        things.memory().into_iter().filter_map(|(key, text)| Some((key, text?))).collect::<Vec<_>>()
    };
    for (what, answer, expected) in [
        ("the same", json!({"value": 22}), vec![]),
        ("another, documented form", json!({"value": 19}), vec![r#"boiler-1: {"setpoint":19}"#]),
        ("another, newer form", json!({"values": {"setpoint": 19}}), vec![r#"boiler-1: {"setpoint":19}"#]),
        ("deleted meanwhile", json!({}), vec![r#"boiler-1: {"setpoint":null}"#]),
        ("deleted meanwhile, newer form", json!({"values": {}}), vec![r#"boiler-1: {"setpoint":null}"#]),
    ] {
        let mut things = ThingsBoard::new(None, memory.clone());
        let said = things.connected(&site, false, now(10));
        let request = said.iter().map(json_of).find(|body| body["key"] == "setpoint").unwrap();
        let mut body = answer;
        body["id"] = request["id"].clone();
        body["device"] = json!("boiler-1");
        let heard = things.hear(&message("v1/gateway/attributes/response", &body), &site, now(11));
        assert_eq!(wished(&heard), expected, "{what}");
        let twice = things.hear(&message("v1/gateway/attributes/response", &body), &site, now(11));
        assert_eq!(wished(&twice), Vec::<String>::new(), "{what}, twice");
    }
}

/// "Publish attribute update to the server": device → keys; one device in a message, and no null anywhere.
#[test]
fn state_is_said_as_client_attributes_of_one_device() {
    let (mut things, site) = ready();
    let wish = json!({"value": 22, "version": 7, "at": AT, "by": "cloud", "state": "applied", "reason": null});
    let bad = json!({"value": null, "quality": "bad:timeout", "at": AT, "version": 4});
    let status = json!({"state": DeviceState::Online, "since": AT, "reason": null});
    let parts = [
        ("reported/temperature", reported(&json!(61.5))),
        ("reported/pressure", bad),
        ("reported/power", Value::Null),
        ("reported/big", reported(&json!(u64::MAX))),
        ("desired/setpoint", wish),
        ("desired/mode", Value::Null),
        ("status", status),
    ];
    let saying = things.say(&batch("boiler-1", &parts), &site, now(2));
    let expected = json!({"boiler-1": {"temperature": 61.5, "temperature:quality": "good", "pressure:quality": "bad:timeout",
        "power:quality": "gone", "big": "18446744073709551615", "big:quality": "good",
        "setpoint:desired": {"value": 22, "state": "applied", "version": 7, "at": AT, "by": "cloud"},
        "mode:desired": {"state": "cleared"}, "device:state": "online", "device:reason": ""}});
    assert_eq!(saying.publishes.iter().map(pair).collect::<Vec<_>>(), [("v1/gateway/attributes".to_owned(), expected)]);
    assert_eq!(saying.settle, Settle::Puback);
}

/// "Server-side RPC": device, request id, method, params; the answer's `data` in the documented place.
#[test]
fn a_remote_call_is_a_wish_that_is_answered() {
    let (mut things, site) = ready();
    let mut call = |method: &str, params: Value| {
        let body = json!({"device": "boiler-1", "data": {"id": 5, "method": method, "params": params}});
        things.hear(&message("v1/gateway/rpc", &body), &site, now(2))
    };
    for (method, params, expected) in [
        ("setpoint", json!(22), Some(r#"boiler-1: {"setpoint":22}"#)),
        ("set", json!({"setpoint": 22, "mode": "eco"}), Some(r#"boiler-1: {"mode":"eco","setpoint":22}"#)),
        ("temperature", json!(22), None),
        ("toggle_gpio", json!({"pin": 1}), None),
        ("set", json!(1), None),
    ] {
        let heard = call(method, params);
        assert_eq!(wished(&heard), expected.into_iter().collect::<Vec<_>>(), "{method}");
        if expected.is_none() {
            let (topic, body) = pair(&says(&heard)[0]);
            assert_eq!(
                (topic.as_str(), &body["id"], &body["data"]["success"]),
                ("v1/gateway/rpc", &json!(5), &json!(false))
            );
        }
    }
    let ask = call("get", Value::Null);
    let Heard::Ask { device, reply } = &ask[0] else { panic!("{ask:?}") };
    let said = things.document(device, br#"{"device":"boiler-1","x":null}"#, reply, &site, now(3));
    assert_eq!(
        pair(&said[0]),
        ("v1/gateway/rpc".to_owned(), json!({"device": "boiler-1", "id": 5, "data": {"device": "boiler-1"}}))
    );
    let yes = things.answered(&answer_to("call:5", Ok(9)), &site, now(3));
    assert_eq!(json_of(&yes[0]), json!({"device": "boiler-1", "id": 5, "data": {"success": true, "version": 9}}));
    let no = things.answered(&answer_to("call:5", Err((422, "above maximum 30"))), &site, now(3));
    assert_eq!(json_of(&no[0])["data"]["code"], 422);
}

#[test]
fn a_wish_that_could_not_be_taken_yet_is_heard_again() {
    let (mut things, site) = ready();
    things.hear(
        &message("v1/gateway/attributes", &json!({"device": "boiler-1", "data": {"setpoint": 22}})),
        &site,
        now(2),
    );
    things.answered(&answer_to("shared:setpoint", Err((503, "not now"))), &site, now(2));
    let said: Vec<Value> = things.tick(&site, now(3)).iter().map(json_of).collect();
    assert_eq!(said[0]["key"], "setpoint");
    let body = json!({"id": said[0]["id"], "device": "boiler-1", "value": 22});
    let heard = things.hear(&message("v1/gateway/attributes/response", &body), &site, now(4));
    assert_eq!(wished(&heard), [r#"boiler-1: {"setpoint":22}"#]);
}

#[test]
fn a_refused_shared_attribute_is_told_beside_it() {
    let (mut things, site) = ready();
    things.hear(
        &message("v1/gateway/attributes", &json!({"device": "boiler-1", "data": {"setpoint": 99}})),
        &site,
        now(2),
    );
    let said = things.answered(&answer_to("shared:setpoint", Err((422, "above maximum 30"))), &site, now(2));
    assert_eq!(
        pair(&said[0]),
        (
            "v1/gateway/attributes".to_owned(),
            json!({"boiler-1": {"setpoint:desired":
        {"value": 99, "state": "rejected", "reason": "above maximum 30"}}})
        )
    );
}

/// "Telemetry upload API": `ts` in milliseconds and `values`; bad readings have no value.
#[test]
fn readings_are_telemetry_of_their_own_time_one_device_in_a_message() {
    let (mut things, site) = ready();
    let bad = json!({"value": null, "quality": "bad:timeout", "at": "2017-01-01T00:00:01.000Z", "version": 4});
    let good = json!({"value": 42, "quality": "good", "at": "2017-01-01T00:00:00.000Z", "version": 3});
    let readings = [
        streamed("boiler-1", "power", 1, &good),
        streamed("boiler-1", "power", 2, &bad),
        streamed("meter.1", "power", 3, &good),
    ];
    let said: Vec<(String, Value)> = things.stream(&readings, &site, now(2)).iter().map(pair).collect();
    let topic = "v1/gateway/telemetry".to_owned();
    assert_eq!(
        said,
        [
            (
                topic.clone(),
                json!({"boiler-1": [{"ts": 1_483_228_800_000_i64, "values": {"power": 42}},
            {"ts": 1_483_228_801_000_i64, "values": {"power:quality": "bad:timeout"}}]})
            ),
            (topic, json!({"meter.1": [{"ts": 1_483_228_800_000_i64, "values": {"power": 42}}]})),
        ]
    );
    let gap = Gap { class: crate::outbox::Class::Metric, from_seq: 1, to_seq: 2, reason: "expired" };
    assert_eq!(things.gap(&gap, &site, now(2))[0].topic, "v1/devices/me/telemetry");
}

/// "Device Disconnect API".
#[test]
fn a_device_that_is_gone_is_disconnected_and_forgotten() {
    let (mut things, mut site) = ready();
    things.hear(
        &message("v1/gateway/attributes", &json!({"device": "boiler-1", "data": {"setpoint": 22}})),
        &site,
        now(2),
    );
    things.memory();
    site.devices.remove("boiler-1");
    let said: Vec<(String, Value)> = things.tick(&site, now(3)).iter().map(pair).collect();
    assert_eq!(said, [("v1/gateway/disconnect".to_owned(), json!({"device": "boiler-1"}))]);
    assert_eq!(things.memory(), [("device/boiler-1".to_owned(), None)]);
}

#[test]
fn requests_are_bounded_and_lost_ones_are_asked_again() {
    let mut many = site();
    let profile = many.devices["boiler-1"].clone();
    many.devices = (0..200).map(|number| (id(&format!("d{number}")), profile.clone())).collect();
    let mut things = things();
    let requests = |said: &[Publish]| said.iter().filter(|publish| publish.topic.ends_with("/request")).count();
    let connects = |said: &[Publish]| said.iter().filter(|publish| publish.topic.ends_with("/connect")).count();
    let first = things.connected(&many, false, now(1));
    assert_eq!((connects(&first), requests(&first)), (CONNECTED_AT_ONCE, REQUESTS));
    let second = things.tick(&many, now(2));
    assert_eq!((connects(&second), requests(&second)), (CONNECTED_AT_ONCE, 0));
    assert_eq!(requests(&things.tick(&many, now(22))), REQUESTS);
}

fn holds_null(value: &Value) -> bool {
    super::super::base::holds_null(value)
}

proptest! {
    #[test]
    fn no_message_makes_it_panic_or_invent(messages in prop::collection::vec(any_message(&[
        "v1/gateway/attributes", "v1/gateway/attributes/response", "v1/gateway/rpc"]), 1..12)) {
        survives(&mut things(), &messages);
    }

    #[test]
    fn what_is_said_was_in_the_reading_and_holds_no_null(payload in any_reported()) {
        let (mut things, site) = ready();
        let known = leaves(&payload);
        let saying = things.say(&batch("boiler-1", &[("reported/x", payload.clone())]), &site, now(3));
        for publish in &saying.publishes {
            let body = json_of(publish);
            prop_assert!(!holds_null(&body), "{body}");
            for leaf in leaves(&body["boiler-1"]["x"]).iter().filter(|leaf| *leaf != "null") {
                prop_assert!(known.contains(leaf), "{leaf} is not in {payload}");
            }
        }
    }
}
