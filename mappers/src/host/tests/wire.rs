//! The wire itself: opened, lost, found; devices that come and go; a broker that comes back; requests of people.

use std::time::Duration;

use protocols::expr::Expression;
use protocols::profile::{Access, Alarm, Command, CommandStep, InitStep, Kind, Source};
use serde_json::json;

use super::fake::{Bench, Rig};
use crate::bus::Incoming;
use crate::samples::{device, profile, property};

fn one(bench: &Bench, id: &str) -> std::sync::Arc<protocols::config::Device> {
    bench.device(id, |fake| fake.values = vec![json!(1)]);
    device(id, &profile(vec![property("p", |_| {})], |_| {}))
}

#[tokio::test(start_paused = true)]
async fn serial_usb_replug() {
    let bench = Bench::new();
    let d = one(&bench, "d");
    let mut rig = Rig::start(&bench, vec![d]);
    rig.run(2_500).await;
    bench.inside().unplugged = true;
    rig.run(20_000).await;
    assert_eq!(rig.states("d"), ["online", "offline"]);
    assert_eq!(rig.values("d", "p").last(), Some(&json!({"value": null, "quality": "bad:offline"})));
    let wire = rig.on("gateway/connection/bus1/status");
    assert_eq!(wire.last().unwrap().1["state"], "closed");
    assert_eq!(wire.last().unwrap().1["reason"], "no such port");
    rig.said.clear();
    bench.inside().unplugged = false;
    rig.run(5_000).await;
    assert_eq!(rig.states("d"), ["online"]);
    assert_eq!(rig.values("d", "p"), [json!(1)], "polling resumes within five seconds");
    assert_eq!(rig.on("gateway/connection/bus1/status").last().unwrap().1["state"], "open");
}

#[tokio::test(start_paused = true)]
async fn tcp_idle_close() {
    let bench = Bench::new();
    let d = one(&bench, "d");
    let mut rig = Rig::start(&bench, vec![d]);
    for n in 0..5 {
        rig.run(10_000).await;
        bench.device("d", |fake| fake.values[0] = json!(n + 10));
        bench.inside().hang_up = true;
    }
    rig.run(2_000).await;
    assert_eq!(rig.states("d"), ["online"], "the reconnect is silent");
    assert_eq!(rig.values("d", "p").len(), 6, "and no poll is lost");
    assert_eq!(bench.inside().opens, 6);
}

#[tokio::test(start_paused = true)]
async fn tcp_connection_refused() {
    let bench = Bench::new();
    bench.inside().unplugged = true;
    let d = one(&bench, "d");
    let mut rig = Rig::start(&bench, vec![d]);
    rig.run(300_000).await;
    assert_eq!(rig.states("d"), ["offline"], "told once");
    assert!(bench.log().iter().all(|line| !line.starts_with("read")));
}

#[tokio::test(start_paused = true)]
async fn a_new_list_of_devices_leaves_the_untouched_alone() {
    let bench = Bench::new();
    let (a, b, c) = (one(&bench, "a"), one(&bench, "b"), one(&bench, "c"));
    let mut rig = Rig::start(&bench, vec![a.clone(), b]);
    rig.run(2_500).await;
    assert_eq!(rig.states("a"), ["online"]);
    rig.said.clear();
    bench.inside().log.clear();
    rig.devices.send_replace(vec![a, c]);
    rig.run(2_500).await;
    assert_eq!(bench.log()[..2], ["remove b", "add c"]);
    assert!(!bench.log().contains(&"read b".to_owned()));
    assert!(rig.states("a").is_empty() && rig.values("a", "p").is_empty(), "a never notices");
    assert_eq!(rig.states("c"), ["online"]);
    assert!(rig.filters.contains(&"twin/c/delta".to_owned()) && !rig.filters.contains(&"twin/b/delta".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_comes_back_is_told_everything_again() {
    let bench = Bench::new();
    let d = one(&bench, "d");
    let mut rig = Rig::start(&bench, vec![d]);
    rig.run(2_500).await;
    rig.said.clear();
    rig.far.incoming.send(Incoming::Down).await.unwrap();
    rig.far.incoming.send(Incoming::Up).await.unwrap();
    rig.run(100).await;
    assert_eq!(rig.states("d"), ["online"]);
    assert_eq!(rig.values("d", "p"), [json!(1)]);
    assert_eq!(rig.on("gateway/connection/bus1/status").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_port_has_to_remember_is_said_again_to_a_broker_that_may_have_missed_it() {
    let bench = Bench::new();
    let d = one(&bench, "d");
    let mut rig = Rig::start(&bench, vec![d]);
    bench.inside().memory = Some(json!({"counters": 7}));
    rig.run(12_000).await;
    assert_eq!(rig.on("gateway/connection/bus1/memory").len(), 1);
    rig.said.clear();
    rig.run(25_000).await;
    assert_eq!(rig.on("gateway/connection/bus1/memory").len(), 0, "nothing is new");
    rig.far.incoming.send(Incoming::Up).await.unwrap();
    rig.run(100).await;
    assert_eq!(rig.on("gateway/connection/bus1/memory").len(), 1);

    // Nobody takes anything from the bus, and what has to be remembered comes just then.
    rig.said.clear();
    for n in 0..1_100 {
        bench.device("d", |fake| fake.values[0] = json!(n));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bench.inside().memory = Some(json!({"counters": 8}));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(bench.inside().memory.is_none(), "it was asked for");
    rig.run(15_000).await;
    assert_eq!(rig.on("gateway/connection/bus1/memory").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_full_stops_no_poll_and_is_healed_later() {
    let bench = Bench::new();
    let d = one(&bench, "d");
    let mut rig = Rig::start(&bench, vec![d]);
    // Nobody takes anything from the bus for 1,100 changes.
    for n in 0..1_100 {
        bench.device("d", |fake| fake.values[0] = json!(n));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let polls = bench.log().iter().filter(|line| *line == "read d").count();
    assert!(polls >= 1_095, "{polls}");
    rig.run(3_000).await;
    assert_eq!(rig.values("d", "p").last(), Some(&json!(1_099)));
}

#[tokio::test(start_paused = true)]
async fn computed_values_and_alarms_follow_what_was_read() {
    let bench = Bench::new();
    bench.device("d", |fake| fake.values = vec![json!(10), json!(null), json!(null)]);
    let derived = profile(
        vec![
            property("t", |_| {}),
            property("double", |p| {
                p.access = Access::Read;
                p.source = Source::Computed(Expression::parse("t * 2.0", &["t"]).unwrap().into());
            }),
            property("alarm.hot", |p| {
                p.access = Access::Read;
                p.kind = Kind::Bool;
                p.source = Source::Alarm(
                    Alarm {
                        when: Expression::parse("t > 50", &["t"]).unwrap(),
                        clear: None,
                        hold: Duration::from_secs(3),
                        clear_hold: Duration::ZERO,
                        severity: "major".to_owned(),
                        text: None,
                        latch: false,
                    }
                    .into(),
                );
            }),
        ],
        |_| {},
    );
    let mut rig = Rig::start(&bench, vec![device("d", &derived)]);
    rig.run(1_500).await;
    assert_eq!(rig.values("d", "double"), [json!(20.0)]);
    assert_eq!(rig.values("d", "alarm.hot"), [json!(false)]);
    bench.device("d", |fake| fake.values[0] = json!(60));
    rig.run(2_500).await;
    assert_eq!(rig.values("d", "alarm.hot").len(), 1, "it has to hold for three seconds");
    rig.run(3_000).await;
    assert_eq!(rig.values("d", "alarm.hot"), [json!(false), json!(true)]);
    bench.device("d", |fake| fake.dead = true);
    rig.run(20_000).await;
    assert_eq!(
        rig.values("d", "double").last(),
        Some(&json!({"value": null, "quality": "bad:timeout"})),
        "a computed value is as bad as what it comes from"
    );
    assert_eq!(rig.values("d", "alarm.hot").len(), 2, "an alarm does not change its mind for want of a reading");
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_and_a_scan_stops_no_poll() {
    let bench = Bench::new();
    bench.device("d", |fake| fake.values = vec![json!(1)]);
    let with_command = profile(vec![property("p", |_| {})], |p| {
        let write = CommandStep::Write(InitStep { property: 0, value: json!(4) });
        let steps = vec![write, CommandStep::Delay(Duration::from_secs(1)), CommandStep::Read(0)];
        p.commands.insert("reset".to_owned(), Command { steps });
    });
    let mut rig = Rig::start(&bench, vec![device("d", &with_command)]);
    rig.run(100).await;
    let ask = "gateway/connection/bus1/request";
    let result = "gateway/connection/bus1/result";
    for (request, answer) in [
        (json!({"id": 1, "op": "read", "device": "d", "property": "p"}), json!({"value": 1, "quality": "good"})),
        (
            json!({"id": 2, "op": "write", "device": "d", "property": "p", "value": 3}),
            json!({"value": 3, "quality": "good"}),
        ),
        (json!({"id": 3, "op": "plan", "device": "d"}), json!({"device": "d"})),
        (
            json!({"id": 4, "op": "read", "unit": 9, "table": "holding", "address": 5}),
            json!({"op": "read", "unit": 9, "table": "holding", "address": 5}),
        ),
        (
            json!({"id": 5, "op": "command", "device": "d", "name": "reset"}),
            json!({"results": [{"value": 4, "quality": "good"}]}),
        ),
    ] {
        let id = request["id"].clone();
        rig.tell(ask, request, false).await;
        rig.run(1_500).await;
        assert_eq!(rig.take(result), [json!({"id": id, "ok": true, "result": answer})]);
    }
    for (request, code) in [
        (json!({"op": "read", "device": "x", "property": "p"}), 404),
        (json!({"op": "read", "device": "d", "property": "q"}), 404),
        (json!({"op": "dance"}), 400),
        (json!([]), 400),
    ] {
        rig.tell(ask, request, false).await;
        rig.run(100).await;
        assert_eq!(rig.take(result)[0]["code"], code);
    }
    bench.inside().log.clear();
    rig.tell(ask, json!({"id": "s", "op": "scan", "from": 1, "to": 110}), false).await;
    rig.run(10_000).await;
    let answers = rig.take(result);
    let found = json!([{"address": 7}, {"address": 107}]);
    assert_eq!(answers.last(), Some(&json!({"id": "s", "ok": true, "result": {"found": found}})));
    assert!(answers.iter().any(|answer| answer.get("progress").is_some()));
    assert!(bench.log().iter().filter(|line| *line == "read d").count() >= 9, "polls go on");
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_within_a_transaction() {
    let bench = Bench::new();
    let d = one(&bench, "d");
    let mut rig = Rig::start(&bench, vec![d]);
    rig.run(1_000).await;
    rig.stop.cancel();
    rig.run(30).await;
    assert!(rig.far.incoming.is_closed(), "the host has ended");
}

/// A device that only speaks: its profile is one of a serial line.
fn speaker(id: &str) -> std::sync::Arc<protocols::config::Device> {
    use protocols::profile::{Library, Wish};
    use protocols::yaml::{Complaints, Place};

    let text = "schema: 1\nid: a.b\nversion: 1.0.0\nmeta: {vendor: A, model: B}\nserial:\n  framing: {type: line, end: \"\\n\"}\n  messages: {m: {}}\n  silence: 10s\nproperties:\n  p: {type: number, from: {serial: {message: m}}}\n";
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    library.add("f.yaml", text, false, &mut complaints);
    let place = Place { file: "f.yaml".into(), line: 1, column: 1 };
    let wish = Wish { profile: "a.b", place: &place, params: None, over: None, is_unsafe: false };
    device(id, &library.resolve(&wish, &mut complaints).unwrap().profile)
}

#[tokio::test(start_paused = true)]
async fn what_comes_unasked_is_reported_and_silence_is_told() {
    let bench = Bench::new();
    let mut rig = Rig::start(&bench, vec![speaker("d")]);
    rig.run(5_000).await;
    assert!(rig.states("d").is_empty(), "nothing is known of a device that was never heard");
    bench.push("d", Some(json!(1)));
    rig.run(100).await;
    bench.push("d", Some(json!(2)));
    rig.run(8_000).await;
    assert_eq!((rig.values("d", "p"), rig.states("d")), (vec![json!(1), json!(2)], vec!["online".to_owned()]));
    // A message that says nothing of any property is a sign of life all the same.
    bench.push("d", None);
    rig.run(9_000).await;
    assert_eq!(rig.states("d"), ["online"]);
    rig.run(2_000).await;
    assert_eq!(rig.states("d"), ["online", "offline"]);
    assert_eq!(rig.values("d", "p").last(), Some(&json!({"value": null, "quality": "bad:timeout"})));
    bench.push("d", Some(json!(3)));
    rig.run(100).await;
    assert_eq!(rig.states("d").last().map(String::as_str), Some("online"));
    assert_eq!(rig.values("d", "p").last(), Some(&json!(3)));
    assert!(bench.log().iter().all(|line| line.starts_with("add")), "it is never asked: {:?}", bench.log());
}

#[tokio::test(start_paused = true)]
async fn a_wire_that_goes_while_nobody_asks_is_noticed_and_opened_again() {
    let bench = Bench::new();
    let mut rig = Rig::start(&bench, vec![speaker("d")]);
    rig.run(100).await;
    bench.push("d", Some(json!(1)));
    rig.run(100).await;
    bench.pull_out();
    rig.run(2_000).await;
    assert_eq!(rig.states("d"), ["online", "offline"]);
    bench.inside().unplugged = false;
    rig.run(4_000).await;
    bench.push("d", Some(json!(2)));
    rig.run(100).await;
    assert_eq!(rig.states("d").last().map(String::as_str), Some("online"));
    assert_eq!(rig.values("d", "p").last(), Some(&json!(2)));
}
