//! Golden pairs after Microsoft's documentation of IoT Hub and of IoT Plug and Play, and every rule of this dialect.

mod hub;

use proptest::prelude::*;
use serde_json::json;

use super::super::for_tests::*;
use super::*;
use crate::outbox::Settled;

const AT: &str = "2026-11-22T12:00:00.000Z";

fn azure(memory: Vec<(String, String)>) -> Azure {
    Azure::new("contoso.azure-devices.net", "MyDevice01", memory)
}

fn reported(value: &Value) -> Value {
    json!({"value": value, "quality": "good", "at": AT, "version": 3})
}

fn rid_of(publish: &Publish) -> String {
    publish.topic.split_once("$rid=").unwrap().1.to_owned()
}

fn answer(note: &str, result: Result<u64, (u16, &str)>) -> Answer {
    let name = note.split_once(':').map_or(note, |(_, name)| name).to_owned();
    let result = result.map_err(|(code, text)| (code, BTreeMap::from([(name, text.to_owned())])));
    let reply = Reply { note: Some(note.to_owned()), ..Reply::default() };
    Answer { device: id("boiler-1"), id: None, result, reply }
}

/// Connects, and lets the hub answer with this twin.
fn connect(azure: &mut Azure, twin: &Value) -> Vec<Heard> {
    let site = site();
    let get = azure.connected(&site, false, now(1));
    let topic = format!("$iothub/twin/res/200/?$rid={}", rid_of(&get[0]));
    azure.hear(&message(&topic, twin), &site, now(2))
}

fn ready(twin: &Value) -> (Azure, Site, Vec<Heard>) {
    let mut azure = azure(Vec::new());
    let heard = connect(&mut azure, twin);
    (azure, site(), heard)
}

fn notify(azure: &mut Azure, version: u64, patch: &Value) -> Vec<Heard> {
    let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
    azure.hear(&message(&topic, patch), &site(), now(5))
}

fn settled(heard: &[Heard]) -> Vec<Settled> {
    heard
        .iter()
        .filter_map(|heard| if let Heard::Settled { outcome, .. } = heard { Some(outcome.clone()) } else { None })
        .collect()
}

/// "Use the MQTT protocol directly from a device": the example's hub and device.
#[test]
fn the_connection_is_made_as_the_hub_wants_it() {
    let (azure, site) = (azure(Vec::new()), site());
    let session = azure.session(&site);
    assert_eq!(session.username.as_deref(), Some("contoso.azure-devices.net/MyDevice01/?api-version=2021-04-12"));
    assert_eq!((session.client_id.as_deref(), session.version), (Some("MyDevice01"), Some(4)));
    assert!(session.will.unwrap().topic.starts_with("devices/MyDevice01/messages/events/"));
    let filters: Vec<String> = azure.subscriptions(&site).into_iter().map(|(filter, _)| filter).collect();
    assert_eq!(filters, ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#"]);
    assert_eq!(azure.window(), 1);
}

/// Tokens made by the `azure-iot-device` package 2.14.0 (`RenewableSasToken`, time held still) for the same input.
#[test]
fn a_token_is_the_one_that_the_vendors_own_library_makes() {
    for (hub, device, key, expires, expected) in [
        (
            "contoso.azure-devices.net",
            "MyDevice01",
            "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=",
            1_456_481_802,
            "SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2FMyDevice01&sig=hmTRtokx82WRlFR5ziL2SnhCEVgGpppAcFJaoW9fLlc%3D&se=1456481802",
        ),
        (
            "plant.azure-devices.net",
            "gateway:7 halle",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            2_000_000_000,
            "SharedAccessSignature sr=plant.azure-devices.net%2Fdevices%2Fgateway%3A7%20halle&sig=rZKZiig3M%2FpOvfqSTBT2ebu53k2p2LCA9xKiV2q3L8o%3D&se=2000000000",
        ),
    ] {
        assert_eq!(sas_token(hub, device, key, expires).as_deref(), Ok(expected));
    }
    assert_eq!(sas_token("h", "d", "no key!", 1), Err(KeyError::NotBase64));
    assert_eq!(sas_token("h", "d", " ", 1), Err(KeyError::Empty));
}

/// "Retrieve device twin properties": an empty message, then the example's body in our words.
#[test]
fn the_twin_is_got_before_anything_is_said() {
    let (mut azure, site) = (azure(Vec::new()), site());
    let get = azure.connected(&site, false, now(1));
    assert!(matches!(&get[..], [get] if get.topic.starts_with("$iothub/twin/GET/?$rid=") && get.payload.is_empty()));
    assert!(!azure.ready(Some(&id("boiler-1"))));
    let twin = json!({"desired": {"boiler-1": {"setpoint": 22}, "$version": 12}, "reported": {"$version": 123}});
    let topic = format!("$iothub/twin/res/200/?$rid={}", rid_of(&get[0]));
    assert_eq!(wished(&azure.hear(&message(&topic, &twin), &site, now(2))), [r#"boiler-1: {"setpoint":22}"#]);
    assert!(azure.ready(Some(&id("boiler-1"))));
}

#[test]
fn a_twin_that_is_not_given_is_asked_for_again_later() {
    for (status, wait) in [(429, 5), (500, 10)] {
        let (mut azure, site) = (azure(Vec::new()), site());
        let get = azure.connected(&site, false, now(1));
        let topic = format!("$iothub/twin/res/{status}/?$rid={}", rid_of(&get[0]));
        azure.hear(&message(&topic, &json!({})), &site, now(2));
        assert_eq!(azure.tick(&site, now(1 + wait)).len(), 0, "{status}");
        assert_eq!(azure.tick(&site, now(2 + wait)).len(), 1, "{status}");
    }
}

/// "Receive desired properties update notifications": values, `null` for what is deleted, `$version` in topic and body.
#[test]
fn a_notification_is_a_wish_unless_it_is_old() {
    let (mut azure, ..) =
        ready(&json!({"desired": {"boiler-1": {"mode": "eco", "pump": true}, "$version": 7}, "reported": {}}));
    for (what, version, patch, expected) in [
        ("the twin had it already", 7, json!({"boiler-1": {"mode": "heat"}, "$version": 7}), vec![]),
        (
            "a value and a deletion",
            8,
            json!({"boiler-1": {"setpoint": 22, "pump": null}, "$version": 8}),
            vec![r#"boiler-1: {"pump":null}"#, r#"boiler-1: {"setpoint":22}"#],
        ),
        (
            "the same again on purpose",
            9,
            json!({"boiler-1": {"setpoint": 22}, "$version": 9}),
            vec![r#"boiler-1: {"setpoint":22}"#],
        ),
        ("a device with a dot", 10, json!({"meter%2E1": {"x": 1}, "$version": 10}), vec![r#"meter.1: {"x":1}"#]),
        (
            "a whole device deleted",
            11,
            json!({"boiler-1": null, "$version": 11}),
            vec![r#"boiler-1: {"mode":null}"#, r#"boiler-1: {"setpoint":null}"#],
        ),
        ("late", 10, json!({"boiler-1": {"mode": "off"}, "$version": 10}), vec![]),
    ] {
        assert_eq!(wished(&notify(&mut azure, version, &patch)), expected, "{what}");
    }
    let heard = notify(&mut azure, 14, &json!({"boiler-1": {"mode": "off"}, "$version": 14}));
    assert_eq!(wished(&heard), Vec::<String>::new(), "two are missing");
    assert!(says(&heard)[0].topic.starts_with("$iothub/twin/GET/"), "the whole is asked for");
    let heard = notify(&mut azure, 12, &json!({"stranger": {"x": 1}, "$version": 12}));
    assert!(matches!(&heard[..], [Heard::Senseless(why)] if why.contains("no device")), "{heard:?}");
}

/// "Device reconnection flow": what was wished while we were away is in the twin, and what we had is not wished again.
#[test]
fn after_an_outage_only_what_changed_is_wished() {
    let (mut first, site, _) =
        ready(&json!({"desired": {"boiler-1": {"setpoint": 22, "mode": "eco"}, "$version": 7}, "reported": {}}));
    first.answered(&answer("twin:setpoint", Ok(4)), &site, now(3));
    first.answered(&answer("twin:mode", Ok(5)), &site, now(3));
    let memory: Vec<(String, String)> =
        first.memory().into_iter().filter_map(|(key, text)| Some((key, text?))).collect();
    for (what, desired, expected) in [
        ("nothing", json!({"boiler-1": {"setpoint": 22, "mode": "eco"}, "$version": 7}), vec![]),
        (
            "another property",
            json!({"boiler-1": {"setpoint": 22, "mode": "eco", "pump": true}, "$version": 8}),
            vec![r#"boiler-1: {"pump":true}"#],
        ),
        (
            "one value",
            json!({"boiler-1": {"setpoint": 19, "mode": "eco"}, "$version": 8}),
            vec![r#"boiler-1: {"setpoint":19}"#],
        ),
        ("one deleted", json!({"boiler-1": {"setpoint": 22}, "$version": 9}), vec![r#"boiler-1: {"mode":null}"#]),
        ("all deleted", json!({"$version": 9}), vec![r#"boiler-1: {"mode":null}"#, r#"boiler-1: {"setpoint":null}"#]),
    ] {
        let heard = connect(&mut azure(memory.clone()), &json!({"desired": desired, "reported": {}}));
        assert_eq!(wished(&heard), expected, "{what}");
    }
}

#[test]
fn a_wish_that_could_not_be_taken_yet_is_heard_again() {
    let twin = json!({"desired": {"boiler-1": {"setpoint": 22}, "$version": 7}, "reported": {}});
    let (mut azure, site, _) = ready(&twin);
    azure.answered(&answer("twin:setpoint", Err((503, "not now"))), &site, now(3));
    assert!(azure.tick(&site, now(4)).is_empty());
    let get = azure.tick(&site, now(14));
    let heard = azure.hear(&message(&format!("$iothub/twin/res/200/?$rid={}", rid_of(&get[0])), &twin), &site, now(15));
    assert_eq!(wished(&heard), [r#"boiler-1: {"setpoint":22}"#]);
}

#[test]
fn a_notification_that_overtakes_the_twin_is_not_lost() {
    let (mut azure, site) = (azure(Vec::new()), site());
    let get = azure.connected(&site, false, now(1));
    assert!(notify(&mut azure, 8, &json!({"boiler-1": {"setpoint": 22}, "$version": 8})).is_empty());
    let topic = format!("$iothub/twin/res/200/?$rid={}", rid_of(&get[0]));
    let heard = azure.hear(&message(&topic, &json!({"desired": {"$version": 7}, "reported": {}})), &site, now(2));
    assert!(says(&heard).iter().any(|publish| publish.topic.starts_with("$iothub/twin/GET/")), "the twin was older");

    // A gap is asked for; what was missing comes after all, and more, before the answer does.
    let (mut azure, site, _) = ready(&json!({"desired": {"$version": 5}, "reported": {}}));
    let set = |version: u64| json!({"boiler-1": {"setpoint": 10 + version}, "$version": version});
    let get = says(&notify(&mut azure, 7, &set(7)));
    for version in [6, 7, 8] {
        assert_eq!(wished(&notify(&mut azure, version, &set(version))).len(), 1);
    }
    let old = json!({"desired": {"boiler-1": {"setpoint": 17}, "$version": 7}, "reported": {}});
    let heard = azure.hear(&message(&format!("$iothub/twin/res/200/?$rid={}", rid_of(&get[0])), &old), &site, now(9));
    assert_eq!((wished(&heard), says(&heard).len()), (Vec::new(), 1), "an old twin undoes nothing");
}

/// "Update device twin's reported properties": the request id settles; 204 with the new version is the example's answer.
#[test]
fn a_patch_is_settled_by_its_request_id() {
    for (status, expected) in [
        ("204", Settled::Accepted),
        ("429", Settled::Later(THROTTLED_MS)),
        ("500", Settled::Later(TROUBLED_MS)),
        ("400", Settled::Refused("IoT Hub says 400: {}".to_owned())),
    ] {
        let (mut azure, site, _) = ready(&json!({"desired": {"$version": 1}, "reported": {}}));
        let saying = azure.say(&batch("meter.1", &[("reported/power", reported(&json!(42)))]), &site, now(3));
        let rid = rid_of(&saying.publishes[0]);
        let expected_pair = (
            format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}"),
            json!({"meter%2E1": {"power": 42, "_quality": {"power": null}}}),
        );
        assert_eq!(pair(&saying.publishes[0]), expected_pair);
        assert_eq!(saying.settle, Settle::Reply(rid.clone()));
        assert!(!azure.ready(None), "one at a time");
        let heard = azure.hear(
            &message(&format!("$iothub/twin/res/{status}/?$rid={rid}&$version=6"), &json!({})),
            &site,
            now(4),
        );
        assert_eq!(settled(&heard), [expected], "{status}");
        assert!(azure.ready(None));
    }
}

/// "IoT Plug and Play conventions", "Writable properties": value, `ac`, `av`, `ad`; 203 and version 0 for what was set here.
#[test]
fn a_wish_is_answered_with_code_version_and_words() {
    for (state, value, version, by, expected) in [
        ("pending", 22, 4, "cloud", json!({"ac": 202, "av": 7, "ad": "pending"})),
        ("applied", 22, 4, "cloud", json!({"ac": 200, "av": 7, "ad": "applied"})),
        ("rejected", 22, 4, "cloud", json!({"ac": 400, "av": 7, "ad": "rejected"})),
        ("failed", 22, 4, "cloud", json!({"ac": 500, "av": 7, "ad": "failed"})),
        ("expired", 22, 4, "cloud", json!({"ac": 408, "av": 7, "ad": "expired"})),
        ("applied", 19, 5, "anna", json!({"ac": 409, "av": 7, "ad": "superseded"})),
    ] {
        let (mut azure, site, _) =
            ready(&json!({"desired": {"boiler-1": {"setpoint": 22}, "$version": 7}, "reported": {}}));
        azure.answered(&answer("twin:setpoint", Ok(4)), &site, now(3));
        let desired = json!({"value": value, "version": version, "at": AT, "by": by, "state": state, "reason": null});
        let parts = [("desired/setpoint", desired), ("reported/setpoint", reported(&json!(21.5)))];
        let mut body = json_of(&azure.say(&batch("boiler-1", &parts), &site, now(4)).publishes[0]);
        let mut said = body["boiler-1"]["setpoint"].take();
        assert_eq!(said.as_object_mut().unwrap().remove("value"), Some(json!(21.5)), "{state}");
        assert_eq!(said, expected, "{state}");
    }
    let (mut azure, site, _) = ready(&json!({"desired": {"$version": 7}, "reported": {}}));
    let local = json!({"value": 19, "version": 5, "at": AT, "by": "anna", "state": "applied", "reason": null});
    let body = json_of(&azure.say(&batch("boiler-1", &[("desired/setpoint", local)]), &site, now(4)).publishes[0]);
    assert_eq!(body["boiler-1"]["setpoint"], json!({"ac": 203, "av": 0, "ad": "set by anna, applied"}));
}

#[test]
fn a_refused_wish_is_answered_when_the_line_is_free() {
    let (mut azure, site, _) =
        ready(&json!({"desired": {"boiler-1": {"setpoint": 99}, "$version": 7}, "reported": {}}));
    let saying = azure.say(&batch("boiler-1", &[("reported/power", reported(&json!(1)))]), &site, now(3));
    assert!(azure.answered(&answer("twin:setpoint", Err((422, "above maximum 30"))), &site, now(3)).is_empty());
    let ok = message(&format!("$iothub/twin/res/204/?$rid={}", rid_of(&saying.publishes[0])), &json!({}));
    let said = says(&azure.hear(&ok, &site, now(4)));
    assert_eq!(json_of(&said[0]), json!({"boiler-1": {"setpoint": {"ac": 400, "av": 7, "ad": "above maximum 30"}}}));
    // Throttled: it is said again, not forgotten.
    let no = message(&format!("$iothub/twin/res/429/?$rid={}", rid_of(&said[0])), &json!({}));
    assert!(says(&azure.hear(&no, &site, now(5))).is_empty());
    assert_eq!(azure.tick(&site, now(11)).len(), 1);
}

#[test]
fn what_a_twin_cannot_hold_is_written_as_text_or_refused_by_name() {
    let (mut azure, site, _) = ready(&json!({"desired": {"$version": 1}, "reported": {"filler": "x".repeat(32_000)}}));
    let parts = [
        ("reported/in_range", reported(&json!(4_503_599_627_370_495_i64))),
        ("reported/beyond", reported(&json!(4_503_599_627_370_496_i64))),
        ("reported/lowest", reported(&json!(-4_503_599_627_370_496_i64))),
        ("reported/huge", reported(&json!(u64::MAX))),
        ("reported/a.b", reported(&json!(1))),
        ("reported/text", reported(&json!("y".repeat(4097)))),
        ("reported/much", reported(&json!("y".repeat(1000)))),
        ("reported/list", reported(&json!([null]))),
        ("reported/object", reported(&json!({"$x.y": 1}))),
    ];
    let saying = azure.say(&batch("boiler-1", &parts), &site, now(3));
    let refused: Vec<Item> = saying.unsayable.iter().map(|(item, _)| item.clone()).collect();
    assert_eq!(refused, [item("reported/text"), item("reported/much"), item("reported/list")]);
    assert!(saying.unsayable.iter().all(|(_, why)| why.contains("IoT Hub takes")), "{:?}", saying.unsayable);
    let said = json_of(&saying.publishes[0])["boiler-1"].clone();
    for (name, expected) in [
        ("in_range", json!(4_503_599_627_370_495_i64)),
        ("beyond", json!("4503599627370496")),
        ("lowest", json!(-4_503_599_627_370_496_i64)),
        ("huge", json!("18446744073709551615")),
        ("a%2Eb", json!(1)),
        ("object", json!("{\"$x.y\":1}")),
    ] {
        assert_eq!(said[name], expected, "{name}");
    }
}

#[test]
fn a_bad_reading_keeps_the_last_good_value_and_says_so() {
    let (mut azure, site, _) = ready(&json!({"desired": {"$version": 1}, "reported": {}}));
    let bad = json!({"value": null, "quality": "bad:timeout", "at": AT, "version": 4, "last_good": {"value": 61.5, "at": AT}});
    let said =
        azure.say(&batch("boiler-1", &[("reported/temperature", bad), ("reported/power", Value::Null)]), &site, now(3));
    assert_eq!(
        json_of(&said.publishes[0]),
        json!({"boiler-1": {"temperature": 61.5, "power": null,
        "_quality": {"temperature": "bad:timeout", "power": null}}})
    );
}

/// "Respond to a direct method": status in the topic, the request's id, JSON in the body.
#[test]
fn direct_methods_set_and_get_and_everything_else_is_501() {
    let (mut azure, site, _) = ready(&json!({"desired": {"$version": 1}, "reported": {}}));
    let mut call = |name: &str, body: &Value| {
        azure.hear(&message(&format!("$iothub/methods/POST/{name}/?$rid=7"), body), &site, now(3))
    };
    for (name, body, status) in [
        ("reboot", json!({}), "501"),
        ("set", json!({"device": "stranger", "patch": {}}), "404"),
        ("set", json!({"device": "boiler-1"}), "400"),
    ] {
        assert_eq!(says(&call(name, &body))[0].topic, format!("$iothub/methods/res/{status}/?$rid=7"), "{name}");
    }
    let heard = call("set", &json!({"device": "boiler-1", "patch": {"setpoint": 22, "mode": "eco"}}));
    assert_eq!(wished(&heard), [r#"boiler-1: {"mode":"eco","setpoint":22}"#]);
    let ask = call("get", &json!({"device": "boiler-1"}));
    let Heard::Ask { device, reply } = &ask[0] else { panic!("{ask:?}") };
    assert_eq!(
        azure.document(device, b"{\"device\":\"boiler-1\"}", reply, &site, now(4))[0].topic,
        "$iothub/methods/res/200/?$rid=7"
    );
    let no = azure.answered(&answer("method:7", Err((422, "above maximum 30"))), &site, now(4));
    assert_eq!(no[0].topic, "$iothub/methods/res/422/?$rid=7");
    let yes = azure.answered(&answer("method:7", Ok(9)), &site, now(4));
    assert_eq!(pair(&yes[0]), ("$iothub/methods/res/200/?$rid=7".to_owned(), json!({"version": 9})));
}

/// "Send device-to-cloud messages": content type and encoding in the property bag, URL-encoded.
#[test]
fn readings_are_device_to_cloud_messages() {
    let (mut azure, site, _) = ready(&json!({"desired": {"$version": 1}, "reported": {}}));
    let said = azure.stream(&[streamed("boiler-1", "power", 41, &reported(&json!(4200)))], &site, now(2));
    assert_eq!(
        said[0].topic,
        "devices/MyDevice01/messages/events/$.ct=application%2Fjson&$.ce=utf-8&kind=readings&device=boiler-1"
    );
    assert_eq!(json_of(&said[0])["readings"][0]["seq"], 41);
}

proptest! {
    #[test]
    fn no_message_makes_it_panic_or_invent(messages in prop::collection::vec(any_message(&[
        "$iothub/twin/res/200/?$rid=18bcfe568e8-1", "$iothub/twin/res/204/?$rid=1&$version=6",
        "$iothub/twin/PATCH/properties/desired/?$version=8", "$iothub/twin/PATCH/properties/desired/",
        "$iothub/methods/POST/set/?$rid=1", "$iothub/methods/POST/get/?$rid=1"]), 1..12)) {
        survives(&mut azure(Vec::new()), &messages);
        let mut connected = azure(Vec::new());
        connect(&mut connected, &json!({"desired": {"$version": 7}, "reported": {}}));
        for message in &messages {
            connected.hear(message, &site(), now(9));
        }
    }

    #[test]
    fn what_is_said_was_in_the_reading(payload in any_reported()) {
        let (mut azure, site, _) = ready(&json!({"desired": {"$version": 1}, "reported": {}}));
        let known = leaves(&payload);
        let saying = azure.say(&batch("boiler-1", &[("reported/x", payload.clone())]), &site, now(3));
        for publish in &saying.publishes {
            let said = unpacked(&json_of(publish)["boiler-1"]["x"]);
            for leaf in leaves(&said).iter().filter(|leaf| *leaf != "null") {
                prop_assert!(known.contains(leaf), "{leaf} is not in {payload}");
            }
        }
    }
}
