//! Conflicts, filters, pauses and pace.

use std::collections::BTreeMap;

use serde_json::json;

use crate::config::upstream::Filter;
use crate::message::{Delta, Document, Event};
use crate::outbox::backoff::{LONGEST_MS, QUIET_MS};
use crate::outbox::conflict::{self, Conflicts, Held, RECORDS, Winner, Wished, author, judge};
use crate::outbox::{Backoff, Item, Pace, Sieve, Slot};
use crate::profile::Conflict;
use crate::value::{Now, Timestamp, Value};

/// 2026-11-22T12:00 and so many seconds.
fn time(seconds: i64) -> Timestamp {
    Timestamp::from_ms(1_795_348_800_000 + seconds * 1_000)
}

fn now() -> Now {
    Now { tick: 0, wall: time(0) }
}

#[test]
fn who_wins_a_conflict_is_the_propertys_rule() {
    let never_set = Timestamp::from_ms(5_000);
    let cases = [
        (Conflict::Cloud, Some(time(-99)), time(-1), Winner::Cloud, "the rule is cloud"),
        (Conflict::Local, Some(time(-1)), time(-99), Winner::Local, "the rule is local"),
        (Conflict::Newest, Some(time(-10)), time(-20), Winner::Cloud, "newest: "),
        (Conflict::Newest, Some(time(-20)), time(-10), Winner::Local, "newest: "),
        (Conflict::Newest, Some(time(-10)), time(-10), Winner::Cloud, "newest: "),
        (Conflict::Newest, None, time(-10), Winner::Cloud, "newest, but the cloud's wish has no time"),
        (Conflict::Newest, Some(never_set), time(-10), Winner::Cloud, "newest, but the cloud's wish has no time"),
        (Conflict::Newest, Some(time(-10)), never_set, Winner::Cloud, "newest, but the local wish has no time"),
        // A cloud whose clock is a day ahead is as new as now, and no newer than a wish of now.
        (Conflict::Newest, Some(time(86_400)), time(1), Winner::Local, "newest: "),
    ];
    for (rule, cloud_at, local_at, winner, reason) in cases {
        let patch = BTreeMap::from([("mode".to_owned(), json!("eco")), ("setpoint".to_owned(), json!(22))]);
        let held = Held { value: json!(20), by: "panel".to_owned(), at: local_at, version: 7 };
        let local = |name: &str| (name == "setpoint").then(|| held.clone());
        let wish = Wished { patch: &patch, at: cloud_at, by: "cloud:app7" };
        let judged = judge(&wish, "cloud", local, |_| rule, now());
        assert_eq!(judged.patch.get("mode"), Some(&json!("eco")), "what nobody else wished goes through");
        assert_eq!(judged.patch.contains_key("setpoint"), winner == Winner::Cloud, "{rule:?} {cloud_at:?}");
        assert_eq!(judged.kept.contains_key("setpoint"), winner == Winner::Local, "the loser is told");
        let [record] = judged.records.as_slice() else { panic!("{:?}", judged.records) };
        assert_eq!((record.winner, record.version), (winner, 7));
        assert!(record.reason.starts_with(reason), "{}", record.reason);
        assert_eq!((&record.cloud.value, &record.local.value), (&json!(22), &json!(20)));
        assert_eq!((record.cloud.by.as_str(), record.local.by.as_str()), ("cloud:app7", "panel"));
    }
}

#[test]
fn no_conflict_is_made_of_one_mind() {
    let patch = BTreeMap::from([("setpoint".to_owned(), json!(22))]);
    let held = |value: Value, by: &str| Held { value, by: by.to_owned(), at: time(-1), version: 7 };
    for (local, conflicts) in [
        (None, 0),
        (Some(held(json!(20), "cloud")), 0),
        (Some(held(json!(20), &author("cloud", Some("app7")))), 0),
        (Some(held(json!(22.0), "panel")), 0),
        (Some(held(json!(20), "cloudy")), 1),
        (Some(held(json!(null), "panel")), 1),
    ] {
        let wish = Wished { patch: &patch, at: None, by: "cloud" };
        let judged = judge(&wish, "cloud", |_| local.clone(), |_| Conflict::Local, now());
        assert_eq!(judged.records.len(), conflicts, "{local:?}");
        assert_eq!(judged.patch.len(), 1 - conflicts);
    }
}

#[test]
fn the_last_sixteen_conflicts_are_kept_and_all_are_counted() {
    let mut conflicts = Conflicts::read(b"damaged");
    let patch = BTreeMap::from([("setpoint".to_owned(), json!(22))]);
    for version in 0..40 {
        let held = Held { value: json!(1), by: "panel".to_owned(), at: time(0), version };
        let wish = Wished { patch: &patch, at: None, by: "cloud" };
        conflicts.add(&judge(&wish, "cloud", |_| Some(held.clone()), |_| Conflict::Cloud, now()).records);
    }
    assert_eq!((conflicts.count, conflicts.conflicts.len()), (40, RECORDS));
    assert_eq!(Conflicts::read(&conflicts.write()), conflicts);
    assert_eq!(conflicts.conflicts.last().unwrap().version, 39);
    let told: Value = serde_json::from_slice(&conflict::event("01J", 39, &conflicts.conflicts[15..], time(0))).unwrap();
    assert_eq!((&told["from"], &told["to"], &told["reported"]), (&json!(39), &json!(39), &json!({})));
    assert_eq!(told["conflict"][0]["winner"], json!("cloud"));
    let event: Event = serde_json::from_value(told).unwrap();
    assert!(event.desired.is_empty(), "whoever reads events of the contract can read this one");
}

fn sieve(include: &[&str], exclude: &[&str]) -> Sieve {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let filter = Filter { include: list(include), exclude: list(exclude) };
    Sieve::new(&filter, &filter)
}

#[test]
fn a_star_stands_for_any_run_of_characters() {
    for (include, exclude, name, passes) in [
        (&[][..], &[][..], "a", true),
        (&["a"], &[], "a", true),
        (&["a"], &[], "ab", false),
        (&["a*"], &[], "ab", true),
        (&["a*"], &[], "ba", false),
        (&["*a"], &[], "ba", true),
        (&["*"], &[], "anything", true),
        (&["a*b*c"], &[], "a-b-b-c", true),
        (&["a*b*c"], &[], "a-c-b", false),
        (&["a*a"], &[], "a", false),
        (&["*energy*"], &[], "total_energy_l1", true),
        (&["x", "meter-*"], &[], "meter-1", true),
        (&["*"], &["secret*"], "secret_key", false),
        (&[], &["*"], "a", false),
    ] {
        let sieve = sieve(include, exclude);
        assert_eq!(sieve.property(name), passes, "{include:?} {exclude:?} {name}");
        assert_eq!(sieve.device(&name.parse().unwrap()), passes);
    }
}

/// Nothing that holds the word `secret` may leave, wherever it stands.
#[test]
fn what_does_not_pass_leaves_no_trace_in_documents_deltas_events_and_conflicts() {
    let sieve = sieve(&[], &["secret*"]);
    let at = "2026-11-22T12:00:00.000Z";
    let reported = |version| json!({"value": 1, "quality": "good", "at": at, "version": version});
    let desired = json!({"value": 2, "version": 7, "at": at, "by": "x", "state": "pending", "reason": null});
    let document = json!({"device": "a", "profile": "p@1", "epoch": "01J", "at": at,
        "status": {"state": "online", "since": null, "reason": null},
        "reported": {"version": 118, "properties": {"open": reported(99), "secret": reported(118)}},
        "desired": {"version": 7, "properties": {"open": desired, "secret_too": desired}},
        "delta": {"open": 2, "secret_too": 2}});
    let out = sieve.rewrite(Some(&Item::Document), document.to_string().as_bytes()).unwrap();
    let document: Document = serde_json::from_slice(&out).unwrap();
    assert_eq!((document.reported.version, document.desired.version), (99, 7));
    assert!(document.reported.properties.contains_key("open") && document.delta.contains_key("open"));
    let delta = json!({"epoch": "01J", "version": 7, "desired": {"open": 2, "secret_too": 2}});
    let delta = sieve.rewrite(Some(&Item::Delta), delta.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::from_slice::<Delta>(&delta).unwrap().desired.len(), 1);
    let event = |properties: Value| {
        let event = json!({"epoch": "01J", "from": 1, "to": 2, "reported": properties, "desired": {}, "at": at});
        sieve.event(event.to_string().as_bytes())
    };
    assert_eq!(event(json!({"secret": reported(2)})), None);
    let event = event(json!({"secret": reported(2), "open": reported(2)})).unwrap();
    let patch = BTreeMap::from([("secret".to_owned(), json!(22)), ("open".to_owned(), json!(1))]);
    let held = Held { value: json!(5), by: "panel".to_owned(), at: time(0), version: 1 };
    let wish = Wished { patch: &patch, at: None, by: "cloud" };
    let records = judge(&wish, "cloud", |_| Some(held.clone()), |_| Conflict::Cloud, now()).records;
    let mut conflicts = Conflicts::default();
    conflicts.add(&records);
    let conflicts = sieve.rewrite(Some(&Item::Conflict), &conflicts.write()).unwrap();
    let told = sieve.event(&conflict::event("01J", 7, &records, time(0))).unwrap();
    for payload in [out, delta, event, conflicts, told] {
        let text = String::from_utf8(payload).unwrap();
        assert!(text.contains("open") && !text.contains("secret"), "{text}");
    }
    let slot = |name: &str| Slot::Device("a".parse().unwrap(), Item::Reported(name.parse().unwrap()));
    assert_eq!((sieve.slot(&slot("open")), sieve.slot(&slot("secret"))), (true, false));
    for item in [Item::Document, Item::Delta, Item::Conflict] {
        assert_eq!(sieve.rewrite(Some(&item), b"not what it should be: secret"), None);
    }
}

#[test]
fn of_the_gateways_status_the_contracts_keys_leave_and_no_other_upstream() {
    let status = r#"{"gateway":"plant-7","state":"online","version":"0.1.0","since":"2026-11-22T12:00:00.000Z","devices":12,"upstream":{"rival":"synced"},"store":{"epoch":"01J"}}"#;
    let out: Value = serde_json::from_slice(&sieve(&[], &[]).rewrite(None, status.as_bytes()).unwrap()).unwrap();
    let expected = json!({"gateway": "plant-7", "state": "online", "version": "0.1.0", "since": "2026-11-22T12:00:00.000Z", "devices": 12});
    assert_eq!(out, expected);
}

#[test]
fn pauses_double_from_a_second_to_two_minutes_and_start_anew_after_a_quiet_minute() {
    for (random, first, last) in [(0, 1_000, 60_000), (1_000, 2_000, 61_000), (u64::MAX, 1_000, 60_000)] {
        let mut backoff = Backoff::new();
        let pauses: Vec<u64> = (0..12).map(|_| backoff.failed(random, 0)).collect();
        assert!(pauses[0] >= first && pauses[0] <= 2_000, "{pauses:?}");
        assert!(pauses[11] >= last && pauses.iter().all(|pause| (1_000..=LONGEST_MS).contains(pause)), "{pauses:?}");
    }
    let mut backoff = Backoff::new();
    let low = |backoff: &mut Backoff, at| backoff.failed(0, at);
    assert_eq!([low(&mut backoff, 0), low(&mut backoff, 0), low(&mut backoff, 0)], [1_000, 2_000, 4_000]);
    backoff.connected(10_000);
    assert_eq!(low(&mut backoff, 10_000 + QUIET_MS - 1), 8_000, "a link that flaps");
    backoff.connected(100_000);
    assert_eq!(low(&mut backoff, 100_000 + QUIET_MS), 1_000);
}

#[test]
fn a_backlog_keeps_to_its_bytes_per_second() {
    let mut pace = Pace::new(1_000, 500);
    let mut sent = 0;
    for tick in 0..60_000 {
        if pace.is_open(tick) {
            pace.spend(300);
            sent += 300;
        } else {
            let opens = pace.opens_at(tick);
            assert!(opens > tick && opens <= tick + 301);
        }
    }
    assert!((60_000..=61_000).contains(&sent), "{sent}");
    let mut free = Pace::new(0, 0);
    free.spend(usize::MAX);
    assert!(free.is_open(0) && free.opens_at(0) == 0);
}
