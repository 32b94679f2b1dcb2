//! What counts as a change: payloads of the contract, section 2 and 3, against the same with one thing moved.

use crate::outbox::{Item, Stamp, stamp};

const EPOCH: &str = "01J";

fn check(item: Option<&Item>, payload: &str, from: &str, to: &str, changes: bool) {
    let other = payload.replacen(from, to, 1);
    assert_ne!(payload, other, "{from} is in {payload}");
    let stamps = (stamp(item, payload.as_bytes(), EPOCH), stamp(item, other.as_bytes(), EPOCH));
    assert_eq!(stamps.0 != stamps.1, changes, "{from} → {to} in {payload}");
    assert!(![Stamp::MAYBE, Stamp::GONE].contains(&stamps.0));
}

#[test]
fn the_time_of_a_reading_is_no_change_and_everything_else_is() {
    let reported = Item::Reported("temperature".parse().unwrap());
    let payload = r#"{"value":230.1,"quality":"good","at":"2026-11-22T12:00:00.000Z","version":118}"#;
    check(Some(&reported), payload, "12:00", "12:01", false);
    check(Some(&reported), payload, "118", "119", true);
    assert_ne!(stamp(Some(&reported), payload.as_bytes(), "01J"), stamp(Some(&reported), payload.as_bytes(), "01K"));

    let desired = Item::Desired("setpoint".parse().unwrap());
    let payload =
        r#"{"value":22,"version":7,"at":"2026-11-22T12:00:00.000Z","by":"cloud","state":"pending","reason":null}"#;
    for (from, to) in [("\"version\":7", "\"version\":8"), ("pending", "applied"), ("null", "\"busy\""), ("22,", "23,")]
    {
        check(Some(&desired), payload, from, to, true);
    }

    let delta = r#"{"epoch":"01J","version":7,"desired":{"setpoint":22}}"#;
    check(Some(&Item::Delta), delta, "7", "8", true);
    check(Some(&Item::Delta), delta, "\"setpoint\":22", "", true);

    let status = r#"{"state":"online","since":"2026-11-22T12:00:00.000Z","reason":null}"#;
    for (from, to) in [("online", "stale"), ("12:00", "12:01"), ("null", "\"x\"")] {
        check(Some(&Item::Status), status, from, to, true);
    }
}

#[test]
fn a_document_changes_with_what_is_in_it() {
    let document = r#"{"device":"boiler-1","profile":"acme.boiler@1.2.0","epoch":"01J","at":"2026-11-22T12:00:00.000Z",
        "status":{"state":"online","since":"2026-11-22T11:00:00.000Z","reason":null},
        "reported":{"version":118,"properties":{"temperature":{"value":61.5,"unit":"Cel","quality":"good","at":"2026-11-22T11:59:00.000Z","version":117}}},
        "desired":{"version":7,"properties":{"setpoint":{"value":22,"at":"2026-11-22T10:00:00.000Z","version":6,"by":"cloud","state":"pending","reason":null}}},
        "delta":{"setpoint":22}}"#;
    for (from, to, changes) in [
        ("12:00", "12:01", false),
        ("11:59", "11:58", false),
        ("118", "119", false),
        ("117", "118", true),
        ("online", "offline", true),
        ("pending", "applied", true),
        ("\"version\":7", "\"version\":8", true),
        ("boiler@1.2.0", "boiler@1.2.1", true),
    ] {
        check(Some(&Item::Document), document, from, to, changes);
    }
}

#[test]
fn the_gateways_counters_and_upstreams_are_no_change() {
    let status = r#"{"gateway":"plant-7","state":"online","version":"0.1.0","since":"2026-11-22T12:00:00.000Z","devices":12,"upstream":{"cloud":"synced"},"uptime_s":5}"#;
    for (from, to, changes) in
        [("synced", "away", false), (":5}", ":6}", false), ("online", "offline", true), ("12,", "13,", true)]
    {
        check(None, status, from, to, changes);
    }
}

#[test]
fn what_cannot_be_read_is_all_its_bytes() {
    for item in [None, Some(&Item::Document), Some(&Item::Status), Some(&Item::Conflict)] {
        check(item, "no JSON 1", "1", "2", true);
    }
}
