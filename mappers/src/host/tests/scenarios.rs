//! The scenarios of `modbus_scenarios.json` that are the host's to keep, each named by its id; and the rules of desired
//! values.

use std::time::Duration;

use protocols::profile::{Access, Confirm, Drift, InitStep, Kind, WriteMode};
use serde_json::{Value, json};

use super::fake::{Bench, Rig, TIMEOUT, TRANSACTION};
use crate::samples::{device, profile, property};

fn plain(bench: &Bench, id: &str, value: Value) {
    bench.device(id, |fake| fake.values = vec![value]);
}

#[tokio::test(start_paused = true)]
async fn bus_dead_unit_recovers() {
    let bench = Bench::new();
    let with_init = profile(vec![property("p", |_| {})], |p| p.init = vec![InitStep { property: 0, value: json!(5) }]);
    plain(&bench, "d1", json!(1));
    plain(&bench, "d3", json!(3));
    bench.device("d3", |fake| fake.dead = true);
    let simple = profile(vec![property("p", |_| {})], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d1", &simple), device("d3", &with_init)]);
    rig.run(30_000).await;
    assert_eq!(rig.states("d1"), ["online"]);
    assert_eq!(rig.states("d3"), ["offline"]);
    assert_eq!(rig.values("d3", "p"), [json!({"value": null, "quality": "bad:timeout"})]);
    let polls: Vec<u64> = {
        let inside = bench.inside();
        inside.log.iter().filter(|(_, line)| line == "read d1").map(|(at, _)| *at).collect()
    };
    let late = u64::try_from(TIMEOUT.as_millis()).unwrap() + 1_000 + 50;
    assert!(polls.windows(2).all(|pair| pair[1] - pair[0] <= late), "one time-out at most: {polls:?}");

    bench.inside().log.clear();
    bench.device("d3", |fake| fake.dead = false);
    rig.said.clear();
    rig.run(32_000).await;
    assert_eq!(rig.states("d3"), ["online"], "told once");
    assert_eq!(rig.values("d3", "p")[0], json!(5));
    let log: Vec<String> = bench.log().into_iter().filter(|line| line.contains("d3")).collect();
    assert_eq!(log[..4], ["probe d3", "write d3 p0=5", "read back d3 p0", "read d3"], "init goes before polls");
    assert_eq!(log.iter().filter(|line| line.starts_with("write")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn read_busy_exception_6_is_retried_and_nothing_is_published_meanwhile() {
    let bench = Bench::new();
    plain(&bench, "d", json!(7));
    bench.device("d", |fake| fake.busy = 2);
    let mut rig = Rig::start(&bench, vec![device("d", &profile(vec![property("p", |_| {})], |_| {}))]);
    rig.run(900).await;
    assert_eq!(rig.values("d", "p"), [json!(7)]);
    assert_eq!(rig.states("d"), ["online"]);
    assert_eq!(bench.log().iter().filter(|line| *line == "read d").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn read_busy_for_good_is_bad_and_not_offline() {
    let bench = Bench::new();
    plain(&bench, "d", json!(7));
    bench.device("d", |fake| fake.busy = 1_000);
    let mut rig = Rig::start(&bench, vec![device("d", &profile(vec![property("p", |_| {})], |_| {}))]);
    rig.run(10_000).await;
    assert_eq!(rig.values("d", "p"), [json!({"value": null, "quality": "bad:exception:6"})]);
    assert_eq!(rig.states("d"), ["online"]);
}

#[tokio::test(start_paused = true)]
async fn read_exception_in_block_spoils_only_the_bad_one() {
    let bench = Bench::new();
    let two = profile(vec![property("a", |_| {}), property("b", |_| {})], |_| {});
    bench.device("d", |fake| {
        fake.values = vec![json!(1), json!(2)];
        fake.refuse_read.insert(1, 2);
    });
    let mut rig = Rig::start(&bench, vec![device("d", &two)]);
    rig.run(3_500).await;
    assert_eq!(rig.values("d", "a"), [json!(1)]);
    assert_eq!(rig.values("d", "b"), [json!({"value": null, "quality": "bad:exception:2"})]);
}

#[tokio::test(start_paused = true)]
async fn write_ack_before_success() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    bench.device("d", |fake| fake.refuse_write = [(0, (3, Duration::from_secs(2)))].into());
    let mut rig = Rig::start(&bench, vec![device("d", &profile(vec![property("p", |_| {})], |_| {}))]);
    rig.run(500).await;
    rig.delta("d", 7, json!({"p": 120})).await;
    rig.run(1_900).await;
    assert!(rig.acks("d").is_empty(), "nothing before the device has answered");
    rig.run(5_000).await;
    assert_eq!(rig.acks("d"), ["7 p rejected null exception 3 (illegal data value)"]);
    assert_eq!(bench.log().iter().filter(|line| line.starts_with("write")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn write_read_back() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    bench.device("d", |fake| fake.clamp = Some(100.0));
    let mut rig = Rig::start(&bench, vec![device("d", &profile(vec![property("p", |_| {})], |_| {}))]);
    rig.run(500).await;
    rig.delta("d", 7, json!({"p": 120})).await;
    rig.run(60_000).await;
    assert_eq!(rig.acks("d"), ["7 p failed 100.0 the device holds 100.0 after 120 was written"]);
    assert_eq!(rig.values("d", "p").last(), Some(&json!(100.0)));
    assert_eq!(bench.log().iter().filter(|line| line.starts_with("write")).count(), 3, "two retries, not endless");
}

#[tokio::test(start_paused = true)]
async fn write_priority() {
    let bench = Bench::new();
    let many = profile((0..10).map(|n| property(&format!("p{n}"), |_| {})).collect(), |_| {});
    bench.device("d", |fake| {
        fake.values = vec![json!(0); 10];
        fake.parts = 10;
    });
    let mut rig = Rig::start(&bench, vec![device("d", &many)]);
    // In the third of ten transactions of the first cycle.
    rig.run(50).await;
    rig.delta("d", 1, json!({"p9": 1})).await;
    rig.run(500).await;
    let log = bench.log();
    let write = log.iter().position(|line| line.starts_with("write")).unwrap();
    let reads = log[..write].iter().filter(|line| *line == "read d").count();
    assert_eq!(reads, 3, "after the transaction under way, not after the cycle");
}

#[tokio::test(start_paused = true)]
async fn write_during_read() {
    let bench = Bench::new();
    let two = profile(vec![property("p0", |_| {}), property("p1", |_| {})], |_| {});
    bench.device("d", |fake| {
        fake.values = vec![json!(0), json!(0)];
        fake.parts = 2;
    });
    let mut rig = Rig::start(&bench, vec![device("d", &two)]);
    rig.run(1_010).await;
    // The first half of the second cycle (p0 = 0) is under way; the write comes between the halves.
    bench.device("d", |fake| fake.values[1] = json!(9));
    rig.delta("d", 1, json!({"p0": 1})).await;
    rig.run(500).await;
    assert_eq!(rig.values("d", "p0"), [json!(0), json!(1)], "the stale 0 never comes after the 1");
    assert_eq!(rig.values("d", "p1"), [json!(0), json!(9)], "the rest of the cycle is reported all the same");
    assert_eq!(rig.acks("d"), ["1 p0 applied 1 -"]);
}

#[tokio::test(start_paused = true)]
async fn a_settling_value_is_not_reported_by_a_poll() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    let slow = profile(vec![property("p", |p| p.write.settle = Duration::from_secs(3))], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &slow)]);
    rig.run(500).await;
    rig.delta("d", 1, json!({"p": 1})).await;
    rig.run(100).await;
    // The device takes its time: polls still see the old value.
    bench.device("d", |fake| fake.values[0] = json!(0));
    rig.run(2_000).await;
    bench.device("d", |fake| fake.values[0] = json!(1));
    rig.run(2_000).await;
    assert_eq!(rig.values("d", "p"), [json!(0), json!(1)]);
    assert_eq!(rig.acks("d"), ["1 p applied 1 -"]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_desired_value_supersedes_the_one_being_written() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    let slow = profile(vec![property("p", |p| p.write.settle = Duration::from_millis(500))], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &slow)]);
    rig.run(500).await;
    rig.delta("d", 1, json!({"p": 1})).await;
    rig.run(200).await;
    rig.delta("d", 2, json!({"p": 2})).await;
    rig.run(5_000).await;
    assert_eq!(rig.acks("d"), ["2 p applied 2 -"]);
    rig.delta("d", 1, json!({"p": 1})).await;
    rig.run(5_000).await;
    assert_eq!(rig.acks("d").len(), 1, "an older delta is never applied");
}

#[tokio::test(start_paused = true)]
async fn an_offline_device_keeps_it_pending_with_a_reason_and_gets_it_when_it_returns() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    bench.device("d", |fake| fake.dead = true);
    let mut rig = Rig::start(&bench, vec![device("d", &profile(vec![property("p", |_| {})], |_| {}))]);
    rig.delta("d", 3, json!({"p": 4})).await;
    rig.run(60_000).await;
    assert_eq!(rig.acks("d"), ["3 p pending null device offline"]);
    bench.device("d", |fake| fake.dead = false);
    bench.inside().log.clear();
    rig.run(40_000).await;
    assert_eq!(rig.acks("d")[1..], ["3 p applied 4 -"]);
    assert_eq!(bench.log()[..3], ["probe d", "write d p0=4", "read back d p0"], "writes go before polls");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_rejected_at_once() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    let read_only = profile(vec![property("p", |p| p.access = Access::Read)], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &read_only)]);
    rig.delta("d", 2, json!({"p": 1, "q": 1})).await;
    rig.run(500).await;
    assert_eq!(
        rig.acks("d"),
        ["2 p rejected null the property cannot be written", "2 q rejected null the device has no such property"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_was_not_stored_is_sent_again_and_nothing_is_written_twice() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    let mut rig = Rig::start(&bench, vec![device("d", &profile(vec![property("p", |_| {})], |_| {}))]);
    rig.stores = false;
    rig.run(500).await;
    rig.delta("d", 1, json!({"p": 1})).await;
    rig.run(2_500).await;
    rig.stores = true;
    // The broker says again what it still believes.
    rig.delta("d", 1, json!({"p": 1})).await;
    rig.run(500).await;
    rig.delta("d", 1, json!({})).await;
    rig.run(10_000).await;
    let acks = rig.acks("d");
    assert!(acks.len() >= 2 && acks.iter().all(|ack| ack == "1 p applied 1 -"), "{acks:?}");
    assert_eq!(bench.log().iter().filter(|line| line.starts_with("write")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_value_wished_again_is_written_again() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    let button = profile(
        vec![property("p", |p| {
            p.kind = Kind::Bool;
            p.write.mode = WriteMode::Pulse;
            p.write.pulse = Some(Duration::from_millis(300));
        })],
        |_| {},
    );
    let mut rig = Rig::start(&bench, vec![device("d", &button)]);
    rig.run(500).await;
    rig.delta("d", 1, json!({"p": true})).await;
    rig.run(1_500).await;
    rig.delta("d", 1, json!({})).await;
    rig.run(100).await;
    rig.delta("d", 2, json!({"p": true})).await;
    rig.run(1_500).await;
    let writes: Vec<String> = bench.log().into_iter().filter(|line| line.starts_with("write")).collect();
    assert_eq!(writes, ["write d p0=true", "write d p0=false", "write d p0=true", "write d p0=false"]);
    assert_eq!(rig.acks("d"), ["1 p applied true -", "2 p applied true -"]);
}

#[tokio::test(start_paused = true)]
async fn reconcile_writes_again_after_a_reconnect_and_once_does_not() {
    let bench = Bench::new();
    bench.device("d", |fake| fake.values = vec![json!(0), json!(0)]);
    let both =
        profile(vec![property("again", |p| p.write.mode = WriteMode::Reconcile), property("once", |_| {})], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &both)]);
    rig.run(500).await;
    assert!(rig.filters.contains(&"twin/d/desired/+".to_owned()));
    rig.delta("d", 1, json!({"again": 1, "once": 1})).await;
    rig.run(1_000).await;
    bench.device("d", |fake| fake.dead = true);
    rig.run(20_000).await;
    // The device lost its memory.
    bench.device("d", |fake| {
        fake.dead = false;
        fake.values = vec![json!(0), json!(0)];
    });
    bench.inside().log.clear();
    rig.run(40_000).await;
    let writes: Vec<String> = bench.log().into_iter().filter(|line| line.starts_with("write")).collect();
    assert_eq!(writes, ["write d p0=1"]);
    assert_eq!(rig.acks("d").len(), 2, "what was acknowledged is not acknowledged again");
}

#[tokio::test(start_paused = true)]
async fn reconcile_writes_what_was_applied_before_a_restart() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    let again = profile(vec![property("p", |p| p.write.mode = WriteMode::Reconcile)], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &again)]);
    let desired = json!({"value": 6, "version": 4, "at": "2026-11-22T12:00:00.000Z", "by": "cloud", "state": "applied", "reason": null});
    rig.tell("twin/d/desired/p", desired.clone(), true).await;
    rig.run(3_000).await;
    // A broker that comes back shows it again; it is no news.
    rig.tell("twin/d/desired/p", desired, true).await;
    rig.run(3_000).await;
    let writes: Vec<String> = bench.log().into_iter().filter(|line| line.starts_with("write")).collect();
    assert_eq!(writes, ["write d p0=6"]);
}

#[tokio::test(start_paused = true)]
async fn drift_is_restored_where_the_profile_says_so_and_not_too_often() {
    let bench = Bench::new();
    bench.device("d", |fake| fake.values = vec![json!(0), json!(0)]);
    let both = profile(vec![property("held", |p| p.write.drift = Drift::Restore), property("free", |_| {})], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &both)]);
    rig.run(500).await;
    rig.delta("d", 1, json!({"held": 1, "free": 1})).await;
    rig.run(12_000).await;
    bench.inside().log.clear();
    // Somebody turns the knobs every second.
    for _ in 0..30 {
        bench.device("d", |fake| fake.values = vec![json!(5), json!(5)]);
        rig.run(1_000).await;
    }
    let writes: Vec<String> = bench.log().into_iter().filter(|line| line.starts_with("write")).collect();
    assert!(writes.iter().all(|line| line == "write d p0=1"), "{writes:?}");
    assert!((2..=4).contains(&writes.len()), "every ten seconds: {writes:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_drift_after_a_write_is_restored_with_the_next_poll() {
    let bench = Bench::new();
    bench.device("d", |fake| fake.values = vec![json!(0)]);
    let held = profile(vec![property("held", |p| p.write.drift = Drift::Restore)], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &held)]);
    rig.run(500).await;
    rig.delta("d", 1, json!({"held": 1})).await;
    rig.run(1_000).await;
    assert_eq!(rig.acks("d"), ["1 held applied 1 -"]);
    let writes = || bench.log().iter().filter(|line| line.starts_with("write")).count();
    // (what the device drifts to, how long it is left alone in milliseconds, writes since the beginning)
    for (value, ms, expected) in [(5, 2_000, 2), (6, 2_000, 2), (6, 10_000, 3)] {
        bench.device("d", |fake| fake.values = vec![json!(value)]);
        rig.run(ms).await;
        assert_eq!(writes(), expected, "{value} for {ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn confirm_ack_and_none_do_not_read_back() {
    let bench = Bench::new();
    bench.device("d", |fake| fake.values = vec![json!(0), json!(0)]);
    let both = profile(
        vec![
            property("ack", |p| p.write.confirm = Confirm::Ack),
            property("none", |p| p.write.confirm = Confirm::None),
        ],
        |_| {},
    );
    let mut rig = Rig::start(&bench, vec![device("d", &both)]);
    rig.run(100).await;
    rig.delta("d", 1, json!({"ack": 1, "none": 2})).await;
    rig.run(500).await;
    assert_eq!(rig.acks("d"), ["1 ack applied 1 -", "1 none applied null -"]);
    assert!(!bench.log().iter().any(|line| line.starts_with("read back")));
}

#[tokio::test(start_paused = true)]
async fn writes_keep_their_shortest_interval() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    let slow = profile(vec![property("p", |p| p.write.min_interval = Some(Duration::from_secs(5)))], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &slow)]);
    rig.run(100).await;
    for version in 1..=4_u64 {
        rig.delta("d", version, json!({"p": version})).await;
        rig.run(1_000).await;
    }
    rig.run(10_000).await;
    let inside = bench.inside();
    let writes: Vec<&(u64, String)> = inside.log.iter().filter(|(_, line)| line.starts_with("write")).collect();
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert!(writes[1].0 - writes[0].0 >= 5_000);
    assert_eq!(writes[1].1, "write d p0=4", "only the newest");
}

#[tokio::test(start_paused = true)]
async fn one_message_carries_all_changes_of_a_cycle() {
    let bench = Bench::new();
    let many = profile((0..5).map(|n| property(&format!("p{n}"), |_| {})).collect(), |_| {});
    bench.device("d", |fake| {
        fake.values = vec![json!(1); 5];
        fake.parts = 5;
    });
    let mut rig = Rig::start(&bench, vec![device("d", &many)]);
    rig.run(3_500).await;
    let sets = rig.take("twin/d/reported/set");
    assert_eq!(sets.len(), 1, "unchanged values are not said again");
    assert_eq!(sets[0]["readings"].as_object().unwrap().len(), 5);
    assert!(TRANSACTION < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_button_is_never_pressed_twice() {
    let bench = Bench::new();
    plain(&bench, "d", json!(false));
    let button = profile(vec![property("p", |p| p.write.mode = WriteMode::Pulse)], |_| {});
    let mut rig = Rig::start(&bench, vec![device("d", &button)]);
    rig.run(500).await;
    bench.device("d", |fake| fake.dead = true);
    rig.delta("d", 1, json!({"p": true})).await;
    rig.run(600).await;
    bench.device("d", |fake| fake.dead = false);
    rig.run(60_000).await;
    assert_eq!(rig.acks("d"), ["1 p failed null no answer in time"]);
    assert_eq!(bench.log().iter().filter(|line| line.starts_with("write")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_its_condition_and_says_so() {
    let bench = Bench::new();
    bench.device("d", |fake| fake.values = vec![json!(0), json!(0)]);
    let guarded = profile(
        vec![
            property("p", |p| {
                let condition = protocols::expr::Expression::parse("ready == 1", &["p", "ready"]).unwrap();
                p.write.requires = Some(condition.into());
            }),
            property("ready", |_| {}),
        ],
        |_| {},
    );
    let mut rig = Rig::start(&bench, vec![device("d", &guarded)]);
    rig.run(500).await;
    rig.delta("d", 1, json!({"p": 1})).await;
    rig.run(20_000).await;
    assert_eq!(rig.acks("d"), ["1 p pending null waits for ready == 1"]);
    bench.device("d", |fake| fake.values[1] = json!(1));
    rig.run(10_000).await;
    assert_eq!(rig.acks("d")[1..], ["1 p applied 1 -"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_never_answered_fails_though_the_device_reads_well() {
    let bench = Bench::new();
    plain(&bench, "d", json!(0));
    bench.device("d", |fake| fake.refuse_write = [(0, (4, Duration::from_millis(100)))].into());
    let mut rig = Rig::start(&bench, vec![device("d", &profile(vec![property("p", |_| {})], |_| {}))]);
    rig.run(500).await;
    rig.delta("d", 1, json!({"p": 1})).await;
    rig.run(30_000).await;
    assert_eq!(rig.acks("d"), ["1 p failed null exception 4 (server device failure)"]);
    assert_eq!(rig.states("d"), ["online"]);
}
