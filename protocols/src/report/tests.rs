//! One property, a list of readings with their ticks, and which of them are sent.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::codec::{DataType, Layout};
use crate::modbus::{Table, Visitor};
use crate::profile::Source;
use crate::profile::{Group, Kind};
use crate::value::{Timestamp, Why};

const SECOND: Duration = Duration::from_secs(1);

fn profile(changes: &[fn(&mut Property)], atomic: bool) -> Arc<Profile> {
    let layout = Layout::new(DataType::Uint16);
    let visitor = Visitor { table: Table::Holding, address: 0, layout, write_address: None, write_function: None };
    let properties = changes.iter().enumerate().map(|(index, change)| {
        let name = format!("p{index}").parse().unwrap();
        let mut property = Property::new(name, Kind::Number, Source::Modbus(visitor));
        change(&mut property);
        property
    });
    let mut profile = Profile::new("test.device", properties.collect());
    profile.groups = vec![Group { interval: SECOND, atomic, ..Group::default() }];
    Arc::new(profile)
}

fn at(tick: u64) -> Now {
    Now { tick, wall: Timestamp::from_ms(i64::try_from(tick).unwrap()) }
}

fn reading(value: Value, now: Now) -> Reading {
    if value.is_null() { Reading::bad(Why::Timeout, now.wall) } else { Reading::good(value, now.wall) }
}

/// Feeds `(tick, value)`, `null` being a bad reading; `None` lets only the clock run. Gives what was sent, as text.
fn sent(change: fn(&mut Property), input: &[(u64, Option<Value>)]) -> Vec<String> {
    let mut report = Report::new(profile(&[change], false));
    let mut log = Vec::new();
    for (tick, value) in input {
        let now = at(*tick);
        let mut out = Vec::new();
        report.on_time(now, &mut out);
        if let Some(value) = value {
            out.extend(report.on_reading(0, reading(value.clone(), now), now).map(|reading| (0, reading)));
        }
        log.extend(out.into_iter().map(|(_, reading)| format!("{tick} {} {}", reading.value, reading.quality)));
    }
    log
}

fn values(list: &[(u64, Value)]) -> Vec<(u64, Option<Value>)> {
    list.iter().map(|(tick, value)| (*tick, Some(value.clone()))).collect()
}

#[test]
fn an_unchanged_value_is_sent_once() {
    let input = values(&[(0, json!(1)), (1, json!(1.0)), (2, json!(2)), (3, json!(2)), (4, json!(1))]);
    assert_eq!(sent(|_| {}, &input), ["0 1 good", "2 2 good", "4 1 good"]);
}

#[test]
fn changes_smaller_than_the_dead_band_are_not_sent() {
    let absolute = values(&[(0, json!(230.1)), (1, json!(230.15)), (2, json!(230.2)), (3, json!(230.19))]);
    fn abs(property: &mut Property) {
        property.deadband = Some(Deadband { abs: Some(0.1), pct: None });
    }
    assert_eq!(sent(abs, &absolute), ["0 230.1 good", "2 230.2 good"]);

    // A slow drift is measured from what was told, not from the last reading.
    let drift = values(&[(0, json!(100)), (1, json!(101)), (2, json!(102)), (3, json!(103)), (4, json!(105))]);
    fn pct(property: &mut Property) {
        property.deadband = Some(Deadband { abs: None, pct: Some(3.0) });
    }
    assert_eq!(sent(pct, &drift), ["0 100 good", "3 103 good"]);
}

#[test]
fn a_change_of_quality_is_always_sent() {
    fn strict(property: &mut Property) {
        property.deadband = Some(Deadband { abs: Some(100.0), pct: None });
        property.report.min_interval = Some(60 * SECOND);
    }
    let input = values(&[(0, json!(1)), (10, Value::Null), (20, Value::Null), (30, json!(1))]);
    assert_eq!(sent(strict, &input), ["0 1 good", "10 null bad:timeout", "30 1 good"]);
}

#[test]
fn the_modes_do_what_their_names_say() {
    let input = values(&[(0, json!(1)), (1_000, json!(1)), (2_000, json!(2)), (3_000, json!(2))]);
    fn mode(property: &mut Property, mode: ReportMode) {
        property.report.mode = mode;
        property.report.max_interval = Some(3 * SECOND);
    }
    let all = ["0 1 good", "1000 1 good", "2000 2 good", "3000 2 good"];
    assert_eq!(sent(|p| mode(p, ReportMode::Always), &input), all);
    assert_eq!(sent(|p| mode(p, ReportMode::Interval), &input), ["0 1 good", "3000 2 good"]);
    assert_eq!(sent(|p| mode(p, ReportMode::OnChange), &input), ["0 1 good", "2000 2 good"]);
    assert!(sent(|p| mode(p, ReportMode::Never), &input).is_empty());
}

#[test]
fn a_heartbeat_comes_at_least_every_max_interval() {
    let input: Vec<(u64, Option<Value>)> = (0..10).map(|n| (n * 999, Some(json!(5)))).collect();
    let log = sent(|p| p.report.max_interval = Some(3 * SECOND), &input);
    assert_eq!(log, ["0 5 good", "2997 5 good", "5994 5 good", "8991 5 good"]);
}

#[test]
fn what_comes_too_soon_is_sent_when_its_time_has_come_and_only_the_newest() {
    fn slow(property: &mut Property) {
        property.report.min_interval = Some(SECOND);
    }
    let two = [(0, Some(json!(1))), (100, Some(json!(2))), (200, Some(json!(3))), (900, None), (1_000, None)];
    assert_eq!(sent(slow, &two), ["0 1 good", "1000 3 good"]);
    let back = [(0, Some(json!(1))), (100, Some(json!(2))), (200, Some(json!(1))), (1_000, None)];
    assert_eq!(sent(slow, &back), ["0 1 good"], "a value that went back is no news");
}

#[test]
fn next_due_names_the_tick_at_which_something_held_back_is_sent() {
    let mut report = Report::new(profile(&[|p| p.report.min_interval = Some(SECOND)], false));
    assert_eq!(report.next_due(), None);
    report.on_reading(0, reading(json!(1), at(50)), at(50));
    report.on_reading(0, reading(json!(2), at(60)), at(60));
    assert_eq!(report.next_due(), Some(1_050));
}

#[test]
fn a_counter_that_goes_back_or_jumps_is_doubted_once() {
    fn counter(property: &mut Property, wrap: Option<f64>, max_step: Option<f64>) {
        property.counter = Some(Counter { wrap, monotonic: true, max_step });
    }
    let back = values(&[(0, json!(100)), (1, json!(5)), (2, json!(6))]);
    assert_eq!(sent(|p| counter(p, None, None), &back), ["0 100 good", "1 5 uncertain", "2 6 good"]);
    let wrap = values(&[(0, json!(65_530)), (1, json!(4)), (2, json!(40_000))]);
    assert_eq!(
        sent(|p| counter(p, Some(65_536.0), Some(1_000.0)), &wrap),
        ["0 65530 good", "1 4 good", "2 40000 uncertain"]
    );
    assert_eq!(
        sent(|p| counter(p, Some(65_536.0), None), &values(&[(0, json!(30_000)), (1, json!(10))])),
        ["0 30000 good", "1 10 uncertain"]
    );
    let bad_between = values(&[(0, json!(7)), (1, Value::Null), (2, json!(8))]);
    assert_eq!(sent(|p| counter(p, None, Some(10.0)), &bad_between), ["0 7 good", "1 null bad:timeout", "2 8 good"]);
}

#[test]
fn a_value_older_than_max_age_is_sent_again_as_uncertain_and_is_stale_until_read() {
    let mut report = Report::new(profile(&[|p| p.max_age = Some(10 * SECOND)], false));
    report.on_reading(0, reading(json!(1), at(0)), at(0));
    report.on_reading(0, reading(json!(1), at(5_000)), at(5_000));
    assert_eq!(report.next_due(), Some(15_000));
    let mut out = Vec::new();
    report.on_time(at(14_999), &mut out);
    assert!(out.is_empty() && !report.is_stale());
    report.on_time(at(15_000), &mut out);
    assert_eq!(out, [(0, Reading { value: json!(1), quality: Quality::Uncertain(None), at: at(0).wall })]);
    assert!(report.is_stale());
    assert_eq!(report.next_due(), None, "told once");
    let again = report.on_reading(0, reading(json!(1), at(20_000)), at(20_000));
    assert_eq!(again, Some(reading(json!(1), at(20_000))));
    assert!(!report.is_stale());
}

#[test]
fn an_atomic_group_is_sent_whole_or_not_at_all() {
    let mut report = Report::new(profile(&[|_| {}, |_| {}], true));
    let mut cycle = |tick: u64, first: Value, second: Value| {
        let now = at(tick);
        let mut out = Vec::new();
        report.on_cycle(0, [(0, reading(first, now)), (1, reading(second, now))], now, &mut out);
        out.into_iter().map(|(index, reading)| (index, reading.value)).collect::<Vec<_>>()
    };
    assert_eq!(cycle(0, json!(1), json!(2)), [(0, json!(1)), (1, json!(2))]);
    assert_eq!(cycle(1, json!(3), Value::Null), [(1, Value::Null)], "the 3 belongs to no whole");
    assert_eq!(cycle(2, json!(3), json!(4)), [(0, json!(3)), (1, json!(4))]);
}

#[test]
fn after_forgetting_everything_is_sent_again() {
    let mut report = Report::new(profile(&[|_| {}], false));
    assert!(report.on_reading(0, reading(json!(1), at(0)), at(0)).is_some());
    assert!(report.on_reading(0, reading(json!(1), at(1)), at(1)).is_none());
    report.forget();
    assert!(report.on_reading(0, reading(json!(1), at(2)), at(2)).is_some());
}
