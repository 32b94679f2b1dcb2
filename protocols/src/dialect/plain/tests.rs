//! Golden pairs from the contract, sections 2 to 4, and what becomes of a broker that forgets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::json;

use super::Plain;
use crate::dialect::{Answer, CloudWish, Dialect, Heard, Message, Publish, Reply, Settle, Site};
use crate::name::DeviceId;
use crate::outbox::{Batch, Class, EXPIRED, Gap, Item, Part, Stamp, Streamed};
use crate::profile::{Library, Profile, Wish};
use crate::value::{Now, Timestamp, Value};
use crate::yaml::{Complaints, Place};

const BOILER: &str = include_str!("../../../../configs/profiles/tidegate.demo_boiler.yaml");

fn profile() -> Arc<Profile> {
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    let id = library.add("profile.yaml", BOILER, true, &mut complaints).unwrap();
    let place = Place { file: "test.yaml".into(), line: 1, column: 1 };
    let wish = Wish { profile: &id, place: &place, params: None, over: None, is_unsafe: false };
    library.resolve(&wish, &mut complaints).unwrap_or_else(|| panic!("{complaints:?}")).profile
}

fn now(tick: u64) -> Now {
    Now { tick, wall: Timestamp::from_ms(1_795_348_800_000) }
}

fn boiler() -> DeviceId {
    "boiler-1".parse().unwrap()
}

fn site() -> Site {
    Site {
        gateway: "plant-7".parse().unwrap(),
        epoch: "01J".to_owned(),
        root: "local/twins".to_owned(),
        devices: HashMap::from([(boiler(), profile())]),
    }
}

fn plain() -> Plain {
    Plain::new("site/plant-7", Vec::new())
}

fn message(below: &str, payload: &str) -> Message {
    Message { topic: format!("site/plant-7/{below}"), payload: payload.as_bytes().to_vec(), ..Message::default() }
}

fn text(publish: &Publish) -> (&str, &str, bool, u8) {
    (&publish.topic, std::str::from_utf8(&publish.payload).unwrap(), publish.retain, publish.qos)
}

fn part(item: Item, content: Option<&str>) -> Part {
    Part { item, content: content.map(|text| Arc::from(text.as_bytes())), stamp: Stamp(7) }
}

fn reported() -> Item {
    Item::Reported("setpoint".parse().unwrap())
}

#[test]
fn state_is_said_on_the_local_topics_under_the_prefix_and_a_tombstone_clears() {
    let reading = r#"{"value":230.1,"quality":"good","at":"2026-11-22T12:00:00.000Z","version":118}"#;
    let wish =
        r#"{"value":22,"version":7,"at":"2026-11-22T12:00:00.000Z","by":"cloud","state":"applied","reason":null}"#;
    let delta = r#"{"epoch":"01J","version":7,"desired":{"setpoint":22}}"#;
    let status = r#"{"state":"online","since":"2026-11-22T12:00:00.000Z","reason":null}"#;
    let parts = [
        (reported(), Some(reading), "twin/boiler-1/reported/setpoint"),
        (Item::Desired("setpoint".parse().unwrap()), Some(wish), "twin/boiler-1/desired/setpoint"),
        (Item::Delta, Some(delta), "twin/boiler-1/delta"),
        (Item::Status, Some(status), "twin/boiler-1/status"),
        (Item::Conflict, Some("{}"), "twin/boiler-1/conflict"),
        (Item::Document, Some("{}"), "twin/boiler-1"),
        (reported(), None, "twin/boiler-1/reported/setpoint"),
    ];
    for (item, content, topic) in parts {
        let batch = Batch { id: 1, device: Some(boiler()), parts: vec![part(item, content)], gateway: None };
        let saying = plain().say(&batch, &site(), now(0));
        assert_eq!((saying.settle, saying.unsayable), (Settle::Puback, Vec::new()));
        let [publish] = saying.publishes.as_slice() else { panic!() };
        assert_eq!(text(publish), (format!("site/plant-7/{topic}").as_str(), content.unwrap_or(""), true, 1));
    }
    let gateway = Some(Arc::from(b"{}".as_slice()));
    let batch = Batch { id: 1, device: None, parts: Vec::new(), gateway };
    let saying = plain().say(&batch, &site(), now(0));
    assert_eq!(text(&saying.publishes[0]), ("site/plant-7/gateway/status", "{}", true, 1));
}

#[test]
fn the_will_says_offline() {
    let session = plain().session(&site());
    let will = session.will.unwrap();
    let expected = ("site/plant-7/gateway/status", r#"{"gateway":"plant-7","state":"offline"}"#, true, 1);
    assert_eq!(text(&will), expected);
    assert!(session.persistent, "wishes of an hour without link wait at the broker");
}

#[test]
fn events_streams_and_gaps_are_not_retained_and_carry_their_numbers() {
    let event = r#"{"epoch":"01J","from":117,"to":118,"reported":{},"desired":{},"at":"2026-11-22T12:00:00.000Z"}"#;
    let publishes = plain().event(&boiler(), event.as_bytes(), &site(), now(0));
    assert_eq!(text(&publishes[0]), ("site/plant-7/twin/boiler-1/event", event, false, 1));

    let payload = r#"{"value":18446744073709551615,"quality":"good","at":"2026-11-22T12:00:00.000Z","version":118}"#;
    let reading = Streamed {
        class: Class::Alarm,
        seq: 12,
        device: boiler(),
        property: "setpoint".parse().unwrap(),
        payload: Arc::from(payload.as_bytes()),
    };
    let publishes = plain().stream(&[reading], &site(), now(0));
    let expected = r#"{"value":18446744073709551615,"quality":"good","at":"2026-11-22T12:00:00.000Z","version":118,"epoch":"01J","class":"alarm","seq":12}"#;
    assert_eq!(text(&publishes[0]), ("site/plant-7/twin/boiler-1/stream/setpoint", expected, false, 1));
    let properties: Vec<(&str, &str)> =
        publishes[0].user_properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(properties, [("epoch", "01J"), ("class", "alarm"), ("seq", "12")]);

    let gap = Gap { class: Class::Metric, from_seq: 3, to_seq: 9, reason: EXPIRED };
    let publishes = plain().gap(&gap, &site(), now(0));
    let expected = r#"{"epoch":"01J","class":"metric","from_seq":3,"to_seq":9,"reason":"expired"}"#;
    assert_eq!(text(&publishes[0]), ("site/plant-7/gateway/gap", expected, false, 1));
}

#[test]
fn a_wish_means_what_the_contract_says() {
    let wish = |patch: Value| CloudWish {
        device: boiler(),
        patch: serde_json::from_value(patch).unwrap(),
        id: None,
        if_version: None,
        ttl_s: None,
        at: None,
        by: None,
        reply: Reply::default(),
    };
    let full = CloudWish {
        id: Some("r1".to_owned()),
        if_version: Some(7),
        ttl_s: Some(3600),
        by: Some("ha".to_owned()),
        at: Some("2026-11-22T12:00:00Z".parse().unwrap()),
        ..wish(json!({"setpoint": 22, "mode": null}))
    };
    for (topic, payload, expected) in [
        (
            "twin/boiler-1/desired/set",
            r#"{"id":"r1","patch":{"setpoint":22,"mode":null},"if_version":7,"ttl_s":3600,"by":"ha","at":"2026-11-22T12:00:00Z"}"#,
            full,
        ),
        ("twin/boiler-1/desired/set", r#"{"patch":{}}"#, wish(json!({}))),
        ("twin/boiler-1/desired/setpoint/set", "22", wish(json!({"setpoint": 22}))),
        ("twin/boiler-1/desired/setpoint/set", "null", wish(json!({"setpoint": null}))),
        ("twin/boiler-1/desired/setpoint/set", "", wish(json!({"setpoint": null}))),
        ("twin/boiler-1/desired/set/set", "[1]", wish(json!({"set": [1]}))),
    ] {
        let heard = plain().hear(&message(topic, payload), &site(), now(0));
        assert_eq!(heard, [Heard::Wish(expected)], "{topic} {payload}");
    }
}

#[test]
fn what_cannot_be_understood_is_answered() {
    let answer = |id: Value, code: u16, why: &str| json!({"id": id, "ok": false, "code": code, "errors": {"": why}});
    for (topic, payload, expected) in [
        ("twin/boiler-1/desired/set", "[]", answer(json!(null), 400, "not a JSON object")),
        ("twin/boiler-1/get", "7", answer(json!(null), 400, "not a JSON object")),
        (
            "twin/boiler-1/desired/set",
            r#"{"id":"r1"}"#,
            answer(json!("r1"), 400, "missing field `patch` at line 1 column 11"),
        ),
        ("twin/nobody/desired/set", r#"{"id":8,"patch":{}}"#, answer(json!("8"), 404, "there is no device nobody")),
        ("twin/nobody/get", "", answer(json!(null), 404, "there is no device nobody")),
    ] {
        let heard = plain().hear(&message(topic, payload), &site(), now(0));
        let [Heard::Say(publish)] = heard.as_slice() else { panic!("{topic} {payload}: {heard:?}") };
        let device = topic.split('/').nth(1).unwrap();
        assert_eq!(publish.topic, format!("site/plant-7/twin/{device}/result"));
        assert_eq!(serde_json::from_slice::<Value>(&publish.payload).unwrap(), expected);
    }
    for topic in ["twin/boiler-1/reported/set", "twin/boiler-1", "gateway/status"] {
        let heard = plain().hear(&message(topic, "{}"), &site(), now(0));
        assert!(matches!(heard.as_slice(), [Heard::Senseless(_)]), "{topic}");
    }
    let elsewhere = Message { topic: "site/plant-77/twin/boiler-1/get".to_owned(), ..Message::default() };
    assert!(matches!(plain().hear(&elsewhere, &site(), now(0)).as_slice(), [Heard::Senseless(_)]));
}

#[test]
fn answers_go_where_they_were_asked_for() {
    let mut asked = message("twin/boiler-1/desired/setpoint/set", "22");
    asked.response_topic = Some("app7/answers".to_owned());
    asked.correlation = Some(vec![1, 2]);
    let heard = plain().hear(&asked, &site(), now(0));
    let [Heard::Wish(wish)] = heard.as_slice() else { panic!() };
    let answer = |reply: Reply, result| Answer { device: boiler(), id: Some("r1".to_owned()), result, reply };
    let publishes = plain().answered(&answer(wish.reply.clone(), Ok(8)), &site(), now(0));
    assert_eq!(text(&publishes[0]), ("app7/answers", r#"{"id":"r1","ok":true,"version":8}"#, false, 1));
    assert_eq!(publishes[0].correlation, Some(vec![1, 2]));

    let errors = BTreeMap::from([("setpoint".to_owned(), "above maximum 30".to_owned())]);
    let publishes = plain().answered(&answer(Reply::default(), Err((422, errors))), &site(), now(0));
    let expected = r#"{"id":"r1","ok":false,"code":422,"errors":{"setpoint":"above maximum 30"}}"#;
    assert_eq!(text(&publishes[0]), ("site/plant-7/twin/boiler-1/result", expected, false, 1));

    asked.response_topic = Some("a/#".to_owned());
    let heard = plain().hear(&asked, &site(), now(0));
    let [Heard::Wish(wish)] = heard.as_slice() else { panic!() };
    assert_eq!(wish.reply.topic, None, "nothing can be published to a filter");
}

#[test]
fn a_document_is_answered_with_the_requests_id() {
    for (payload, expected) in
        [("", r#"{"device":"boiler-1"}"#), (r#"{"id":"r1"}"#, r#"{"id":"r1","device":"boiler-1"}"#)]
    {
        let mut plain = plain();
        let heard = plain.hear(&message("twin/boiler-1/get", payload), &site(), now(0));
        let [Heard::Ask { device, reply }] = heard.as_slice() else { panic!("{heard:?}") };
        let publishes = plain.document(device, br#"{"device":"boiler-1"}"#, reply, &site(), now(0));
        assert_eq!(text(&publishes[0]), ("site/plant-7/twin/boiler-1/result", expected, false, 1));
    }
}

#[test]
fn a_wish_that_the_broker_keeps_counts_one_time() {
    let kept = |payload: &str| Message { retain: true, ..message("twin/boiler-1/desired/setpoint/set", payload) };
    let mut plain = plain();
    let is_wish = |heard: Vec<Heard>| matches!(heard.as_slice(), [Heard::Wish(_)]);
    assert!(is_wish(plain.hear(&kept("22"), &site(), now(0))));
    assert!(!is_wish(plain.hear(&kept("22"), &site(), now(0))), "at the next connect");
    let live = message("twin/boiler-1/desired/setpoint/set", "23");
    assert!(is_wish(plain.hear(&live, &site(), now(0))));
    assert!(is_wish(plain.hear(&live, &site(), now(0))), "somebody says it again");
    let memory = plain.memory().into_iter().filter_map(|(key, value)| Some((key, value?)));
    let mut plain = Plain::new("site/plant-7", memory.collect::<BTreeMap<_, _>>());
    assert!(!is_wish(plain.hear(&kept("23"), &site(), now(0))), "after a restart");
    assert!(is_wish(plain.hear(&kept("24"), &site(), now(0))));
}

/// A broker that keeps what is retained, as far as the mark is concerned.
#[derive(Default)]
struct Broker {
    retained: BTreeMap<String, Vec<u8>>,
    /// Publishes that never arrived.
    deaf: bool,
}

impl Broker {
    /// A connect with its subscription, and what comes of it.
    fn connect(&mut self, plain: &mut Plain, tick: u64) -> Vec<Heard> {
        let said = plain.connected(&site(), false, now(tick));
        assert_eq!(said.len(), 1, "one request");
        assert!(!plain.ready(Some(&boiler())) && plain.ready(None));
        let mark = "site/plant-7/gateway/mark";
        let mut heard = Vec::new();
        if let Some(payload) = self.retained.get(mark) {
            let kept = Message { topic: mark.to_owned(), payload: payload.clone(), retain: true, ..Message::default() };
            heard.extend(plain.hear(&kept, &site(), now(tick)));
        }
        let stale = message("gateway/mark/echo", "of an earlier connection");
        assert_eq!(plain.hear(&stale, &site(), now(tick)), []);
        heard.extend(self.take(plain, said, tick));
        heard
    }

    /// Takes publishes, and sends back what is subscribed to.
    fn take(&mut self, plain: &mut Plain, said: Vec<Publish>, tick: u64) -> Vec<Heard> {
        let mut heard = Vec::new();
        for publish in said.into_iter().filter(|_| !self.deaf) {
            let Publish { topic, payload, retain, .. } = publish;
            if retain {
                self.retained.insert(topic.clone(), payload.clone());
            }
            heard.extend(plain.hear(&Message { topic, payload, ..Message::default() }, &site(), now(tick)));
        }
        heard
    }

    fn tick(&mut self, plain: &mut Plain, tick: u64) -> usize {
        let said = plain.tick(&site(), now(tick));
        let count = said.len();
        assert_eq!(self.take(plain, said, tick), []);
        count
    }
}

fn say(plain: &mut Plain, device: &str, tick: u64) {
    let device = Some(device.parse().unwrap());
    plain.say(&Batch { id: 1, device, parts: vec![part(Item::Delta, None)], gateway: None }, &site(), now(tick));
}

fn again(device: &str) -> Heard {
    Heard::Resync(Some(device.parse().unwrap()))
}

#[test]
fn a_broker_that_kept_everything_costs_one_request_and_one_reply() {
    let (mut broker, mut plain) = (Broker::default(), plain());
    assert_eq!(broker.connect(&mut plain, 0), [Heard::Resync(None)], "nobody knows it yet");
    assert!(plain.ready(Some(&boiler())));
    say(&mut plain, "a", 0);
    assert_eq!((broker.tick(&mut plain, 1_000), broker.tick(&mut plain, 60_000)), (0, 1));
    assert_eq!(broker.tick(&mut plain, 10_000_000), 0, "no change means no traffic");
    for tick in [1, 2, 3] {
        plain.disconnected();
        assert_eq!(broker.connect(&mut plain, 20_000_000 + tick), []);
        assert!(plain.ready(Some(&boiler())));
    }
    say(&mut plain, "b", 30_000_000);
    plain.disconnected();
    assert_eq!(broker.connect(&mut plain, 30_001_000), [again("b")], "it may not have kept what came after the mark");
}

#[test]
fn a_broker_that_forgot_or_went_back_hears_everything_again() {
    let (mut broker, mut plain) = (Broker::default(), plain());
    broker.connect(&mut plain, 0);
    say(&mut plain, "a", 0);
    broker.tick(&mut plain, 60_000);
    let old = broker.retained.clone();
    say(&mut plain, "a", 70_000);
    broker.tick(&mut plain, 200_000);
    plain.disconnected();
    broker.retained = old;
    assert_eq!(broker.connect(&mut plain, 300_000), [Heard::Resync(None)], "a copy of before");
    // Cut before the new mark: what was not said is dirty still, and what was said is said again.
    say(&mut plain, "a", 300_000);
    plain.disconnected();
    broker.retained.clear();
    assert_eq!(broker.connect(&mut plain, 400_000), [Heard::Resync(None)], "and nothing at all");
    say(&mut plain, "a", 400_000);
    assert_eq!(broker.tick(&mut plain, 402_000), 1, "a new mark soon, so that a link that flaps gets on");
    plain.disconnected();
    assert_eq!(broker.connect(&mut plain, 403_000), []);
}

#[test]
fn a_mark_that_never_arrived_stands_for_nothing() {
    let (mut broker, mut plain) = (Broker::default(), plain());
    broker.connect(&mut plain, 0);
    say(&mut plain, "a", 0);
    broker.tick(&mut plain, 60_000);
    say(&mut plain, "b", 61_000);
    broker.deaf = true;
    assert_eq!(broker.tick(&mut plain, 200_000), 1);
    say(&mut plain, "c", 201_000);
    plain.disconnected();
    broker.deaf = false;
    assert_eq!(broker.connect(&mut plain, 300_000), [again("b"), again("c")]);
}

#[test]
fn a_broker_that_does_not_let_us_read_hears_everything_at_each_connect() {
    let (mut broker, mut plain) = (Broker { deaf: true, ..Broker::default() }, plain());
    assert_eq!(broker.connect(&mut plain, 0), []);
    assert_eq!(plain.noticed(now(9_999)), []);
    assert_eq!(plain.noticed(now(10_000)), [Heard::Resync(None)]);
    assert!(plain.ready(Some(&boiler())));
    assert_eq!(plain.noticed(now(20_000)), []);
}

#[test]
fn the_mark_is_remembered_over_a_restart() {
    let (mut broker, mut plain) = (Broker::default(), plain());
    broker.connect(&mut plain, 0);
    say(&mut plain, "a", 0);
    broker.tick(&mut plain, 60_000);
    say(&mut plain, "b", 61_000);
    say(&mut plain, "c", 61_000);
    plain.disconnected();
    let memory: BTreeMap<String, String> =
        plain.memory().into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let mut plain = Plain::new("/site/plant-7/", memory.clone());
    assert_eq!(broker.connect(&mut plain, 5), [again("b"), again("c")]);
    let mut plain = Plain::new("site/plant-7", memory);
    broker.retained.clear();
    assert_eq!(broker.connect(&mut plain, 5), [Heard::Resync(None)]);
}
