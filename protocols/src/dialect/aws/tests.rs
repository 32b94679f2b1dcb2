//! Golden pairs after AWS's documentation of the Device Shadow service, and every rule of this dialect.

mod service;

use proptest::prelude::*;
use serde_json::json;

use super::super::for_tests::*;
use super::*;
use crate::outbox::Settled;
use crate::value::Timestamp;

const THING: &str = "$aws/things/plant-7/shadow";
const BOILER: &str = "$aws/things/plant-7/shadow/name/boiler-1";
const AT: &str = "2026-11-22T12:00:00.000Z";

fn aws(memory: Vec<(String, String)>) -> Aws {
    Aws::new("plant-7", false, "tidegate/plant-7", false, memory)
}

fn reported(value: &Value) -> Value {
    json!({"value": value, "quality": "good", "at": AT, "version": 3})
}

fn desired(value: &Value, version: u64, state: &str, by: &str) -> Value {
    json!({"value": value, "version": version, "at": AT, "by": by, "state": state, "reason": null})
}

fn answer(name: &str, result: Result<u64, (u16, &str)>) -> Answer {
    let errors = |text: &str| BTreeMap::from([(name.to_owned(), text.to_owned())]);
    let result = result.map_err(|(code, text)| (code, errors(text)));
    let reply = Reply { note: Some(name.to_owned()), ..Reply::default() };
    Answer { device: id("boiler-1"), id: None, result, reply }
}

/// A full answer to `get`.
fn document(version: u64, desired: &Value, reported: &Value, seconds: u64) -> Value {
    let stamps: Map<String, Value> = desired
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| (name.clone(), json!({"timestamp": seconds})))
        .collect();
    json!({"state": {"desired": desired, "reported": reported}, "metadata": {"desired": stamps, "reported": {}},
        "timestamp": seconds, "version": version})
}

/// A connected dialect whose boiler has this shadow.
fn ready(version: u64, desired: &Value, reported: &Value) -> (Aws, Site, Vec<Heard>) {
    let (mut aws, site) = (aws(Vec::new()), site());
    let said = aws.connected(&site, false, now(1));
    let get = said.iter().find(|publish| publish.topic == format!("{BOILER}/get")).unwrap();
    let mut document = document(version, desired, reported, 100);
    document["clientToken"] = json_of(get)["clientToken"].clone();
    let heard = aws.hear(&message(&format!("{BOILER}/get/accepted"), &document), &site, now(2));
    (aws, site, heard)
}

fn kept(aws: &mut Aws) -> Vec<(String, String)> {
    aws.memory().into_iter().filter_map(|(key, text)| Some((key, text?))).collect()
}

fn settled(heard: &[Heard]) -> Vec<Settled> {
    heard
        .iter()
        .filter_map(|heard| if let Heard::Settled { outcome, .. } = heard { Some(outcome.clone()) } else { None })
        .collect()
}

/// "Device Shadow MQTT topics": the five answers of each shadow, none of them by `#`.
#[test]
fn answers_are_subscribed_to_and_nothing_more() {
    let filters = |aws: &Aws| aws.subscriptions(&site()).into_iter().map(|(filter, _)| filter).collect::<Vec<_>>();
    let named = "$aws/things/plant-7/shadow/name/+";
    let expected: Vec<String> = ["get/accepted", "get/rejected", "update/accepted", "update/rejected", "update/delta"]
        .iter()
        .map(|end| format!("{named}/{end}"))
        .chain([format!("{THING}/update/accepted"), format!("{THING}/update/rejected")])
        .collect();
    assert_eq!(filters(&aws(Vec::new())), expected);
    // One SUBSCRIBE may hold eight filters, one topic seven slashes (AWS general reference, "AWS IoT Core quotas").
    assert!(expected.len() <= 8 && expected.iter().all(|filter| filter.matches('/').count() <= 7));
    let things = Aws::new("plant-7", true, "t", false, Vec::new());
    assert_eq!(filters(&things)[4], "$aws/things/+/shadow/update/delta");
}

/// "Request state document": `state.reported`, `clientToken`, `version`; "/accepted response state document" answers it.
#[test]
fn an_update_carries_version_and_token_and_its_answer_settles_it() {
    let (mut aws, site, _) = ready(17, &json!({}), &json!({}));
    let saying = aws.say(
        &batch(
            "boiler-1",
            &[
                ("reported/temperature", reported(&json!(61.5))),
                ("status", json!({"state": "online", "since": AT, "reason": null})),
            ],
        ),
        &site,
        now(3),
    );
    let (topic, mut body) = pair(&saying.publishes[0]);
    let token = body["clientToken"].take();
    assert_eq!(topic, format!("{BOILER}/update"));
    assert_eq!(
        body,
        json!({"state": {"reported": {"temperature": 61.5, "_quality": {"temperature": null},
        "_status": {"state": "online", "since": AT, "reason": null}}}, "version": 17, "clientToken": null})
    );
    assert_eq!(saying.settle, Settle::Reply(token.as_str().unwrap().to_owned()));
    assert!(token.as_str().unwrap().len() <= 64);
    let accepted = json!({"state": {"reported": {"temperature": 61.5}}, "metadata": {"reported": {"temperature":
        {"timestamp": 1_234_567}}}, "timestamp": 1_234_567, "clientToken": token, "version": 18});
    let heard = aws.hear(&message(&format!("{BOILER}/update/accepted"), &accepted), &site, now(4));
    assert!(heard.contains(&Heard::Settled { token: token.as_str().unwrap().to_owned(), outcome: Settled::Accepted }));
    let next = aws.say(&batch("boiler-1", &[("reported/temperature", reported(&json!(62)))]), &site, now(5));
    assert_eq!(json_of(&next.publishes[0])["version"], 18);
}

/// "Error response document" with the codes of "Device Shadow error messages".
#[test]
fn each_error_code_leads_to_what_helps() {
    for (code, text, expected, fetches) in [
        (409, "Version conflict", Settled::Again, true),
        (429, "Too Many Requests", Settled::Later(THROTTLED_MS), false),
        (500, "Internal service failure", Settled::Later(TROUBLED_MS), false),
        (
            413,
            "The payload exceeds the maximum size allowed",
            Settled::Refused("AWS says 413: The payload exceeds the maximum size allowed".to_owned()),
            false,
        ),
        (400, "Invalid JSON", Settled::Refused("AWS says 400: Invalid JSON".to_owned()), false),
    ] {
        let (mut aws, site, _) = ready(17, &json!({}), &json!({}));
        // The gets of the other devices are answered, so that nothing else is under way.
        let saying = aws.say(&batch("boiler-1", &[("reported/temperature", reported(&json!(1)))]), &site, now(3));
        let token = json_of(&saying.publishes[0])["clientToken"].clone();
        let error = json!({"code": code, "message": text, "timestamp": 1_234_567, "clientToken": token});
        let heard = aws.hear(&message(&format!("{BOILER}/update/rejected"), &error), &site, now(4));
        assert_eq!(settled(&heard), [expected], "{code}");
        let fetched = says(&heard).iter().any(|publish| publish.topic == format!("{BOILER}/get"));
        assert_eq!((fetched, aws.ready(Some(&id("boiler-1")))), (fetches, !fetches), "{code}");
    }
}

#[test]
fn a_conflict_takes_over_what_was_wished_and_says_the_rest_again() {
    let (mut aws, site, _) = ready(17, &json!({}), &json!({"temperature": 60}));
    let one = batch("boiler-1", &[("reported/temperature", reported(&json!(61.5)))]);
    let token = json_of(&aws.say(&one, &site, now(3)).publishes[0])["clientToken"].clone();
    let error = json!({"code": 409, "message": "Version conflict", "clientToken": token});
    aws.hear(&message(&format!("{BOILER}/update/rejected"), &error), &site, now(4));
    let theirs = document(18, &json!({"setpoint": 25}), &json!({"temperature": 60}), 200);
    let heard = aws.hear(&message(&format!("{BOILER}/get/accepted"), &theirs), &site, now(5));
    assert_eq!(wished(&heard), [r#"boiler-1: {"setpoint":25}"#]);
    assert!(!heard.contains(&Heard::Resync(Some(id("boiler-1")))), "our reported values are all there");
    let again = json_of(&aws.say(&one, &site, now(6)).publishes[0]);
    assert_eq!((&again["version"], &again["state"]["reported"]["temperature"]), (&json!(18), &json!(61.5)));
}

/// "Delta state", first example: RED and STOP are wished, 12345 is when, 17 is the version.
#[test]
fn a_delta_is_a_wish_by_its_timestamps_and_never_twice() {
    let (mut aws, site, heard) = ready(16, &json!({}), &json!({"color": "GREEN", "engine": "ON"}));
    assert_eq!(wished(&heard), Vec::<String>::new());
    let delta = json!({"state": {"color": "RED", "state": "STOP"}, "metadata": {"color": {"timestamp": 12345},
        "state": {"timestamp": 12345}}, "version": 17, "timestamp": 123_456_789});
    let topic = format!("{BOILER}/update/delta");
    let heard = aws.hear(&message(&topic, &delta), &site, now(3));
    assert_eq!(wished(&heard), [r#"boiler-1: {"color":"RED"}"#, r#"boiler-1: {"state":"STOP"}"#]);
    assert_eq!(wishes(&heard)[0].at, Some(Timestamp::from_ms(12_345_000)));
    aws.answered(&answer("color", Ok(5)), &site, now(3));
    aws.answered(&answer("state", Ok(6)), &site, now(3));
    // The answer to the application's own update says the same once more.
    let accepted = json!({"state": {"desired": {"color": "RED", "state": "STOP"}}, "metadata": {"desired":
        {"color": {"timestamp": 12345}, "state": {"timestamp": 12345}}}, "version": 17, "clientToken": "app"});
    let heard = aws.hear(&message(&format!("{BOILER}/update/accepted"), &accepted), &site, now(4));
    assert_eq!(wished(&heard), Vec::<String>::new());
    // Every later update repeats all that differs.
    let repeated = json!({"state": {"color": "RED", "state": "GO"}, "metadata": {"color": {"timestamp": 12345},
        "state": {"timestamp": 12400}}, "version": 18});
    assert_eq!(wished(&aws.hear(&message(&topic, &repeated), &site, now(4))), [r#"boiler-1: {"state":"GO"}"#]);
    let old = json!({"state": {"color": "BLUE"}, "metadata": {"color": {"timestamp": 12300}}, "version": 15});
    assert_eq!(
        wished(&aws.hear(&message(&topic, &old), &site, now(5))),
        Vec::<String>::new(),
        "an old version is dropped"
    );
}

/// "Delta state", second example: the delta of an object holds the differing member alone, so the whole is fetched.
#[test]
fn a_delta_of_an_object_is_never_taken_for_the_whole() {
    let (mut aws, site, _) = ready(17, &json!({}), &json!({}));
    let delta = json!({"state": {"lights": {"color": {"g": 255}}}, "version": 18, "timestamp": 123_456_789});
    let heard = aws.hear(&message(&format!("{BOILER}/update/delta"), &delta), &site, now(3));
    assert_eq!(wished(&heard), Vec::<String>::new());
    assert!(says(&heard).iter().any(|publish| publish.topic == format!("{BOILER}/get")));
    let whole = document(18, &json!({"lights": {"color": {"r": 255, "g": 255, "b": 255}}}), &json!({}), 1);
    let heard = aws.hear(&message(&format!("{BOILER}/get/accepted"), &whole), &site, now(4));
    assert_eq!(wished(&heard), [r#"boiler-1: {"lights":{"color":{"b":255,"g":255,"r":255}}}"#]);
}

#[test]
fn a_wish_that_was_taken_is_not_taken_again_after_a_restart() {
    let (mut first, site, heard) = ready(17, &json!({"setpoint": 22}), &json!({}));
    assert_eq!(wished(&heard), [r#"boiler-1: {"setpoint":22}"#]);
    first.answered(&answer("setpoint", Ok(7)), &site, now(3));
    let memory = kept(&mut first);
    let get = |aws: &mut Aws, document: &Value| {
        aws.connected(&site, false, now(10));
        wished(&aws.hear(&message(&format!("{BOILER}/get/accepted"), document), &site, now(11)))
    };
    let same = document(17, &json!({"setpoint": 22}), &json!({}), 100);
    assert_eq!(get(&mut aws(memory.clone()), &same), Vec::<String>::new());
    let touched = document(19, &json!({"setpoint": 22}), &json!({}), 200);
    assert_eq!(get(&mut aws(memory.clone()), &touched), [r#"boiler-1: {"setpoint":22}"#], "wished again meanwhile");
    let other = document(19, &json!({"setpoint": 23}), &json!({}), 100);
    assert_eq!(get(&mut aws(memory.clone()), &other), [r#"boiler-1: {"setpoint":23}"#]);
    let cleared = document(19, &json!({}), &json!({}), 0);
    assert_eq!(get(&mut aws(memory), &cleared), [r#"boiler-1: {"setpoint":null}"#], "cleared meanwhile");
    // The power went before the twin answered: nobody knows whether the wish arrived.
    let (mut unsure, ..) = ready(17, &json!({"setpoint": 22}), &json!({}));
    let memory = kept(&mut unsure);
    assert_eq!(get(&mut aws(memory), &same), [r#"boiler-1: {"setpoint":22}"#]);
}

#[test]
fn a_wish_at_its_end_leaves_desired_and_its_outcome_stands_in_reported() {
    for (what, state, value, version, expected) in [
        ("applied", "applied", 22, 7, Some("applied")),
        ("rejected by the device", "rejected", 22, 7, Some("rejected")),
        ("overtaken by a local wish", "pending", 25, 8, Some("pending")),
        ("still open", "pending", 22, 7, None),
        ("an older local wish", "applied", 19, 6, None),
    ] {
        let (mut aws, site, _) = ready(17, &json!({"setpoint": 22}), &json!({}));
        aws.answered(&answer("setpoint", Ok(7)), &site, now(3));
        let said = batch("boiler-1", &[("desired/setpoint", desired(&json!(value), version, state, "cloud"))]);
        let body = json_of(&aws.say(&said, &site, now(4)).publishes[0]);
        assert_eq!(body["state"]["reported"]["_desired"]["setpoint"]["state"], expected.unwrap_or(state), "{what}");
        let clears = body["state"].get("desired") == Some(&json!({"setpoint": null}));
        assert_eq!(clears, expected.is_some(), "{what}");
    }
}

#[test]
fn a_refused_wish_is_said_to_be_refused_and_leaves_desired() {
    let (mut aws, site, _) = ready(17, &json!({"setpoint": 99}), &json!({}));
    let said = aws.answered(&answer("setpoint", Err((422, "above maximum 30"))), &site, now(3));
    let body = json_of(&said[0]);
    assert_eq!(
        body["state"],
        json!({"desired": {"setpoint": null}, "reported": {"_desired": {"setpoint":
        {"value": 99, "state": "rejected", "reason": "above maximum 30"}}}})
    );
    // Somebody was faster: it is fetched, the new wish is taken, nothing is cleared that was not refused.
    let error = json!({"code": 409, "message": "Version conflict", "clientToken": body["clientToken"]});
    let heard = aws.hear(&message(&format!("{BOILER}/update/rejected"), &error), &site, now(4));
    assert!(says(&heard).iter().any(|publish| publish.topic.ends_with("/get")));
    let newer = document(18, &json!({"setpoint": 21}), &json!({}), 300);
    let heard = aws.hear(&message(&format!("{BOILER}/get/accepted"), &newer), &site, now(5));
    assert_eq!(wished(&heard), [r#"boiler-1: {"setpoint":21}"#]);
    assert!(says(&heard).iter().all(|publish| !publish.topic.ends_with("/update")));
}

#[test]
fn a_wish_that_could_not_be_taken_yet_is_heard_again() {
    let (mut aws, site, _) = ready(17, &json!({"setpoint": 22}), &json!({}));
    assert!(aws.answered(&answer("setpoint", Err((503, "not now"))), &site, now(3)).is_empty());
    let fetches = |said: &[Publish]| said.iter().any(|publish| publish.topic == format!("{BOILER}/get"));
    assert!(!fetches(&aws.tick(&site, now(4))));
    assert!(fetches(&aws.tick(&site, now(9))));
    let same = document(17, &json!({"setpoint": 22}), &json!({}), 100);
    let heard = aws.hear(&message(&format!("{BOILER}/get/accepted"), &same), &site, now(10));
    assert_eq!(wished(&heard), [r#"boiler-1: {"setpoint":22}"#]);
}

#[test]
fn another_ones_update_is_a_wish_and_never_ours() {
    let (mut aws, site, _) = ready(17, &json!({"mode": "eco"}), &json!({}));
    aws.answered(&answer("mode", Ok(3)), &site, now(2));
    let topic = format!("{BOILER}/update/accepted");
    let theirs =
        |version: u64, state: Value| json!({"state": state, "metadata": {}, "version": version, "clientToken": "app"});
    for (what, version, state, expected, resync) in [
        ("another value", 18, json!({"desired": {"mode": "heat"}}), vec![r#"boiler-1: {"mode":"heat"}"#], false),
        ("the same on purpose", 19, json!({"desired": {"mode": "heat"}}), vec![r#"boiler-1: {"mode":"heat"}"#], false),
        ("the whole section dropped", 20, json!({"desired": null}), vec![r#"boiler-1: {"mode":null}"#], false),
        ("an old one", 18, json!({"desired": {"mode": "off"}}), vec![], false),
        ("reported by a stranger", 21, json!({"reported": {"temperature": 1000}}), vec![], true),
    ] {
        let heard = aws.hear(&message(&topic, &theirs(version, state)), &site, now(version));
        assert_eq!(wished(&heard), expected, "{what}");
        assert_eq!(heard.contains(&Heard::Resync(Some(id("boiler-1")))), resync, "{what}");
    }
}

#[test]
fn a_bad_reading_keeps_the_last_good_value_and_says_so() {
    let (mut aws, site, _) = ready(17, &json!({}), &json!({}));
    let bad = json!({"value": null, "quality": "bad:timeout", "at": AT, "version": 4, "last_good": {"value": 61.5, "at": AT}});
    let never = json!({"value": null, "quality": "bad:offline", "at": AT, "version": 4});
    let parts = [("reported/temperature", bad), ("reported/pressure", never), ("reported/power", Value::Null)];
    let body = json_of(&aws.say(&batch("boiler-1", &parts), &site, now(3)).publishes[0]);
    assert_eq!(
        body["state"]["reported"],
        json!({"temperature": 61.5, "power": null,
        "_quality": {"temperature": "bad:timeout", "pressure": "bad:offline", "power": null}})
    );
}

#[test]
fn what_a_shadow_cannot_hold_is_refused_by_name() {
    let (mut aws, site, _) = ready(17, &json!({}), &json!({"filler": "x".repeat(8000)}));
    let deep = json!([[[[[[1]]]]]]);
    let parts = [
        ("reported/list", reported(&json!([1, null]))),
        ("reported/deep", reported(&deep)),
        ("reported/long", reported(&json!("y".repeat(300)))),
        ("reported/object", reported(&json!({"a": null}))),
        ("reported/temperature", reported(&json!(20))),
    ];
    let saying = aws.say(&batch("boiler-1", &parts), &site, now(3));
    let refused: Vec<(Item, bool)> =
        saying.unsayable.iter().map(|(item, why)| (item.clone(), why.contains("AWS takes"))).collect();
    assert_eq!(refused, [(item("reported/list"), true), (item("reported/deep"), true), (item("reported/long"), true)]);
    let body = json_of(&saying.publishes[0]);
    assert_eq!(body["state"]["reported"]["object"], json!("{\"a\":null}"));
    assert_eq!(body["state"]["reported"]["temperature"], 20);
    assert!(aws.wants(&Item::Conflict) && !aws.wants(&Item::Delta) && !aws.wants(&Item::Document));
}

#[test]
fn never_more_than_ten_requests_are_in_flight_and_lost_ones_are_asked_again() {
    let mut many = site();
    let profile = many.devices["boiler-1"].clone();
    many.devices = (0..100).map(|number| (id(&format!("d{number}")), profile.clone())).collect();
    let mut aws = aws(Vec::new());
    let gets = |said: &[Publish]| said.iter().filter(|publish| publish.topic.ends_with("/get")).count();
    let first = aws.connected(&many, false, now(1));
    assert_eq!((gets(&first), gets(&first) + aws.window()), (REQUESTS, 10));
    assert_eq!(gets(&aws.tick(&many, now(5))), 0);
    assert_eq!(gets(&aws.tick(&many, now(12))), REQUESTS, "ten seconds without an answer");
    let no = json!({"code": 404, "message": "No shadow exists with name: 'd0'", "clientToken": "nobody"});
    assert_eq!(aws.hear(&message("$aws/things/plant-7/shadow/name/d0/get/rejected", &no), &many, now(13)), vec![]);
}

/// "Device Shadow error messages", 404: a device that has no shadow yet begins one, without a version.
#[test]
fn a_device_without_a_shadow_begins_one() {
    let (mut aws, site) = (aws(Vec::new()), site());
    let said = aws.connected(&site, false, now(1));
    let get = said.iter().find(|publish| publish.topic == format!("{BOILER}/get")).unwrap();
    let no = json!({"code": 404, "message": "No shadow exists with name: 'boiler-1'", "clientToken": json_of(get)["clientToken"]});
    aws.hear(&message(&format!("{BOILER}/get/rejected"), &no), &site, now(2));
    assert!(aws.ready(Some(&id("boiler-1"))));
    let body = json_of(
        &aws.say(&batch("boiler-1", &[("reported/temperature", reported(&json!(1)))]), &site, now(3)).publishes[0],
    );
    assert_eq!(body.get("version"), None);
}

#[test]
fn names_hold_only_what_aws_takes() {
    for (device, expected) in [("boiler-1", "boiler-1"), ("a:b_c", "a:b_c"), ("a.b", "a_b-108bf50c")] {
        assert_eq!(shadow_name(device), expected);
    }
    assert!(shadow_name(&format!("a.{}", "b".repeat(62))).len() <= 64);
}

#[test]
fn readings_and_gaps_have_a_topic_of_their_own() {
    let (mut aws, site, _) = ready(1, &json!({}), &json!({}));
    let one = streamed("boiler-1", "power", 41, &reported(&json!(4200)));
    let said = aws.stream(&[one], &site, now(2));
    let expected = json!({"gateway": "plant-7", "device": "boiler-1", "epoch": site.epoch, "readings": [{"property": "power",
        "value": 4200, "quality": "good", "at": AT, "version": 3, "class": "metric", "seq": 41}]});
    assert_eq!(
        said.iter().map(pair).collect::<Vec<_>>(),
        [("tidegate/plant-7/readings/boiler-1".to_owned(), expected)]
    );
    let gap = Gap { class: crate::outbox::Class::Alarm, from_seq: 3, to_seq: 9, reason: "full" };
    assert_eq!(pair(&aws.gap(&gap, &site, now(2))[0]).1["to_seq"], 9);
    let alpn = |port| Aws::new("t", false, "t", port, Vec::new()).session(&site).alpn;
    assert_eq!((alpn(true), alpn(false)), (vec![ALPN.to_owned()], vec![]));
}

proptest! {
    #[test]
    fn no_message_makes_it_panic_or_invent(messages in prop::collection::vec(any_message(&[
        "$aws/things/plant-7/shadow/name/boiler-1/get/accepted", "$aws/things/plant-7/shadow/name/boiler-1/get/rejected",
        "$aws/things/plant-7/shadow/name/boiler-1/update/accepted", "$aws/things/plant-7/shadow/name/boiler-1/update/delta",
        "$aws/things/plant-7/shadow/name/boiler-1/update/rejected", "$aws/things/plant-7/shadow/update/accepted"]), 1..12)) {
        survives(&mut aws(Vec::new()), &messages);
    }

    #[test]
    fn what_is_said_was_in_the_reading(payload in any_reported()) {
        let (mut aws, site, _) = ready(1, &json!({}), &json!({}));
        let known = leaves(&payload);
        let saying = aws.say(&batch("boiler-1", &[("reported/x", payload.clone())]), &site, now(3));
        for publish in &saying.publishes {
            let said = unpacked(&json_of(publish)["state"]["reported"]["x"]);
            for leaf in leaves(&said).iter().filter(|leaf| *leaf != "null") {
                prop_assert!(known.contains(leaf), "{leaf} is not in {payload}");
            }
        }
    }
}
