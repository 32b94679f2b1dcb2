//! The promises of the twin, in tables and by chance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::codec::{DataType, Layout};
use crate::message::{AckResult, Delta, DesiredAck, DesiredSet, Document, Event, ReadingIn};
use crate::modbus::{Table, Visitor};
use crate::profile::{Access, Kind, Source, Write, WriteMode};
use crate::value::TimestampText;

fn property(name: &str, kind: Kind, access: Access) -> Property {
    let layout = Layout::new(DataType::Uint16);
    let visitor = Visitor { table: Table::Holding, address: 0, layout, write_address: None, write_function: None };
    Property {
        unit: (name == "temperature").then(|| "Cel".to_owned()),
        access,
        write: Write { min: Some(5.0), max: Some(30.0), ..Write::default() },
        ..Property::new(name.parse().unwrap(), kind, Source::Modbus(visitor))
    }
}

fn profile(properties: Vec<Property>) -> Arc<Shape> {
    let (version, hash) = ("1.2.0".to_owned(), "0123456789abcdef".to_owned());
    Shape::new(Arc::new(Profile { version, hash, ..Profile::new("acme.boiler", properties) }))
}

fn boiler() -> Arc<Shape> {
    let mut beat = property("beat", Kind::Number, Access::Read);
    beat.max_age = Some(Duration::from_secs(10));
    beat.report.max_interval = Some(Duration::from_secs(5));
    let mut button = property("button", Kind::Bool, Access::Write);
    button.write.mode = WriteMode::Pulse;
    profile(vec![
        property("temperature", Kind::Number, Access::Read),
        property("setpoint", Kind::Number, Access::ReadWrite),
        property("mode", Kind::Number, Access::ReadWrite),
        button,
        beat,
    ])
}

fn at(tick: u64) -> Now {
    Now { tick, wall: Timestamp::from_ms(1_700_000_000_000 + tick as i64) }
}

fn twin() -> Twin {
    Twin::new("boiler-1".parse().unwrap(), "01J".into(), boiler(), at(0))
}

fn patch(patch: Value) -> DesiredSet {
    serde_json::from_value(json!({ "patch": patch })).unwrap()
}

fn ack(version: u64, name: &str, state: DesiredState) -> DesiredAck {
    let result = AckResult { state, actual: None, reason: None };
    DesiredAck { version, results: BTreeMap::from([(name.parse().unwrap(), result)]) }
}

fn report(twin: &mut Twin, readings: Value, tick: u64) -> Reported {
    twin.on_report(serde_json::from_value(json!({ "readings": readings })).unwrap(), at(tick))
}

fn written<T: serde::de::DeserializeOwned>(write: impl FnOnce(&mut Vec<u8>)) -> T {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

fn delta(twin: &Twin) -> Value {
    json!(written::<Delta>(|out| twin.write_delta(out)).desired)
}

fn state(twin: &Twin, name: &str) -> Option<DesiredState> {
    Some(twin.leaf(name)?.held()?.out.state)
}

#[test]
fn a_report_moves_the_version_once_however_many_properties_it_changes() {
    let mut twin = twin();
    for (readings, to, changed, touched) in [
        (json!({"temperature": 61.5, "setpoint": 20}), 1, 2, 0),
        (json!({"temperature": 61.5, "setpoint": 20.0}), 1, 0, 2),
        (json!({"temperature": 62, "setpoint": 20}), 2, 1, 1),
        (json!({"temperature": {"value": 62, "quality": "uncertain:range"}}), 3, 1, 0),
        (json!({}), 3, 0, 0),
    ] {
        let outcome = report(&mut twin, readings.clone(), 1);
        assert_eq!((outcome.to, outcome.changed.len(), outcome.touched.len()), (to, changed, touched), "{readings}");
        assert_eq!(twin.reported_version(), to);
    }
    let setpoint = twin.reported(1).unwrap();
    assert_eq!(setpoint.version, 1, "a property keeps the version that brought it");
}

#[test]
fn a_bad_reading_keeps_the_last_good_one_and_shows_no_number() {
    let mut twin = twin();
    let mut show = |reading: Value| -> Value {
        report(&mut twin, json!({ "temperature": reading }), 5);
        let mut shown: Value = written(|out| twin.write_reported(0, &mut TimestampText::default(), out));
        shown.as_object_mut().unwrap().retain(|key, _| key != "at");
        shown
    };
    for (reading, expected) in [
        (
            json!({"value": null, "quality": "bad:timeout"}),
            json!({"value": null, "quality": "bad:timeout", "version": 1}),
        ),
        (
            json!({"value": 61.5, "at": "2026-11-22T12:00:00.000Z"}),
            json!({"value": 61.5, "quality": "good", "version": 2}),
        ),
        (
            json!({"value": 0, "quality": "bad:crc"}),
            json!({"value": null, "quality": "bad:crc", "version": 3,
                "last_good": {"value": 61.5, "at": "2026-11-22T12:00:00.000Z"}}),
        ),
        (
            json!({"value": null, "quality": "bad:offline"}),
            json!({"value": null, "quality": "bad:offline", "version": 4,
                "last_good": {"value": 61.5, "at": "2026-11-22T12:00:00.000Z"}}),
        ),
        (json!(18446744073709551615u64), json!({"value": 18446744073709551615u64, "quality": "good", "version": 5})),
        (
            json!(null),
            json!({"value": null, "quality": "bad:nan", "version": 6,
                "last_good": {"value": 18446744073709551615u64, "at": "2023-11-14T22:13:20.005Z"}}),
        ),
    ] {
        assert_eq!(show(reading.clone()), expected, "{reading}");
    }
}

#[test]
fn a_reading_of_an_unknown_property_does_not_spoil_the_others() {
    let mut twin = twin();
    let outcome = report(&mut twin, json!({"temperature": 1, "pressure": 2}), 1);
    assert_eq!((outcome.to, outcome.unknown.len()), (1, 1));
    assert_eq!(twin.reported(0).unwrap().value, json!(1));
}

#[test]
fn a_patch_is_taken_whole_or_not_at_all() {
    for (patch_of, code, errors) in [
        (json!({"setpoint": 22, "mode": 31}), 422, json!({"mode": "above maximum 30"})),
        (json!({"setpoint": 22, "temperature": 3}), 422, json!({"temperature": "is read-only"})),
        (json!({"setpiont": 22}), 422, json!({"setpiont": "no such property; did you mean \"setpoint\"?"})),
        (json!({"setpoint": 1, "zzz": null}), 422, json!({"setpoint": "below minimum 5", "zzz": "no such property"})),
    ] {
        let mut twin = twin();
        let refusal = twin.on_desired(&patch(patch_of), "ha", at(1)).unwrap_err();
        assert_eq!((refusal.code, json!(refusal.errors)), (code, errors));
        assert_eq!((twin.desired_version(), delta(&twin)), (0, json!({})));
    }
}

#[test]
fn if_version_refuses_a_race() {
    let mut twin = twin();
    let with = |version, value| DesiredSet { if_version: Some(version), ..patch(json!({ "setpoint": value })) };
    assert!(twin.on_desired(&with(0, 20), "a", at(1)).is_ok());
    let refusal = twin.on_desired(&with(0, 21), "b", at(1)).unwrap_err();
    assert_eq!(refusal.code, 409);
    assert_eq!(refusal.errors[""], "the desired section is at version 1, not 0");
    assert!(twin.on_desired(&with(1, 21), "b", at(1)).is_ok());
}

#[test]
fn the_same_wish_again_is_new_only_when_it_could_do_something() {
    use DesiredState::{Applied, Expired, Failed, Pending, Rejected};
    for (before, reported_after, version) in [
        (Pending, None, 1),
        (Applied, None, 1),
        (Applied, Some(json!(22.0)), 1),
        (Applied, Some(json!(25)), 2),
        (Rejected, None, 2),
        (Failed, None, 2),
        (Expired, None, 2),
    ] {
        let mut twin = twin();
        report(&mut twin, json!({"setpoint": 20}), 0);
        let wish = DesiredSet { ttl_s: Some(1), ..patch(json!({"setpoint": 22})) };
        twin.on_desired(&wish, "ha", at(0)).unwrap();
        match before {
            Pending => {}
            Expired => drop(twin.on_time(at(1000))),
            state => drop(twin.on_ack(&ack(1, "setpoint", state), at(1)).unwrap()),
        }
        assert_eq!(state(&twin, "setpoint"), Some(before));
        if let Some(value) = &reported_after {
            report(&mut twin, json!({ "setpoint": value }), 2);
            assert_eq!(delta(&twin), if before == Pending { json!({"setpoint": 22}) } else { json!({}) });
        }
        twin.on_desired(&patch(json!({"setpoint": 22.0})), "ha", at(3)).unwrap();
        assert_eq!(twin.desired_version(), version, "{before:?}, then {reported_after:?}");
    }
}

#[test]
fn an_old_acknowledgement_never_settles_a_newer_wish() {
    let mut twin = twin();
    twin.on_desired(&patch(json!({"setpoint": 20})), "a", at(1)).unwrap();
    twin.on_desired(&patch(json!({"setpoint": 21})), "a", at(2)).unwrap();
    let change = twin.on_ack(&ack(1, "setpoint", DesiredState::Applied), at(3)).unwrap();
    assert!(change.is_empty() && change.stale == 1 && twin.stale_acks() == 1);
    assert_eq!(delta(&twin), json!({"setpoint": 21}));
    let change = twin.on_ack(&ack(2, "setpoint", DesiredState::Applied), at(4)).unwrap();
    assert!(change.delta);
    assert_eq!((delta(&twin), state(&twin, "setpoint")), (json!({}), Some(DesiredState::Applied)));
    let again = twin.on_ack(&ack(2, "setpoint", DesiredState::Failed), at(5)).unwrap();
    assert_eq!((again.stale, state(&twin, "setpoint")), (1, Some(DesiredState::Applied)), "an end is an end");
    assert_eq!(twin.on_ack(&ack(3, "setpoint", DesiredState::Applied), at(6)).unwrap_err().code, 409);
    assert_eq!(twin.on_ack(&ack(2, "setpoint", DesiredState::Expired), at(6)).unwrap_err().code, 422);
}

#[test]
fn a_newer_version_of_the_section_acknowledges_older_wishes_in_it() {
    let mut twin = twin();
    twin.on_desired(&patch(json!({"setpoint": 20})), "a", at(1)).unwrap();
    twin.on_desired(&patch(json!({"mode": 7})), "a", at(2)).unwrap();
    twin.on_ack(&ack(2, "setpoint", DesiredState::Applied), at(3)).unwrap();
    assert_eq!(delta(&twin), json!({"mode": 7}));
}

#[test]
fn a_pending_acknowledgement_tells_a_reason_and_settles_nothing() {
    let mut twin = twin();
    twin.on_desired(&patch(json!({"setpoint": 20})), "a", at(1)).unwrap();
    let mut waiting = ack(1, "setpoint", DesiredState::Pending);
    waiting.results.values_mut().for_each(|result| result.reason = Some("device is offline".to_owned()));
    let change = twin.on_ack(&waiting, at(2)).unwrap();
    assert!(!change.delta);
    assert_eq!((change.events[0].from, change.events[0].to), (1, 1));
    let shown: Value = written(|out| twin.write_desired("setpoint", out));
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("pending"), &json!("device is offline")));
    assert!(twin.on_ack(&waiting, at(3)).unwrap().is_empty(), "the same reason again is no news");
}

#[test]
fn turning_a_knob_by_hand_never_brings_the_delta_back() {
    let mut twin = twin();
    twin.on_desired(&patch(json!({"setpoint": 20})), "a", at(1)).unwrap();
    twin.on_ack(&ack(1, "setpoint", DesiredState::Applied), at(2)).unwrap();
    report(&mut twin, json!({"setpoint": 25}), 3);
    assert_eq!(delta(&twin), json!({}));
    let document: Document = written(|out| twin.write_document(at(3).wall, out));
    assert_eq!(document.reported.properties["setpoint"].value, json!(25));
    assert_eq!(document.desired.properties["setpoint"].value, json!(20));
}

#[test]
fn a_replaced_wish_is_told_to_be_superseded() {
    let mut twin = twin();
    twin.on_desired(&patch(json!({"setpoint": 20})), "a", at(1)).unwrap();
    for (next, to, wish) in [(json!(21), 2, Some(DesiredState::Pending)), (json!(null), 3, None)] {
        let change = twin.on_desired(&patch(json!({ "setpoint": next })), "b", at(2)).unwrap();
        let [old, new] = &change.events[..] else { panic!("{:?}", change.events) };
        assert_eq!((old.from, old.to, new.from, new.to), (to - 1, to - 1, to - 1, to));
        let told = old.desired["setpoint"].as_ref().unwrap();
        assert_eq!((told.state, told.version), (DesiredState::Superseded, to - 1));
        assert_eq!(new.desired["setpoint"].as_ref().map(|wish| wish.state), wish);
    }
    assert_eq!(twin.leaf("setpoint"), Some(&Leaf::Cleared { version: 3, at: at(2).wall, by: "b".to_owned() }));
    assert!(twin.on_desired(&patch(json!({"setpoint": null})), "b", at(3)).unwrap().is_empty());
    assert_eq!((twin.desired_version(), delta(&twin)), (3, json!({})));
}

#[test]
fn a_wish_expires_by_the_tick_and_not_by_the_wall_clock() {
    let mut twin = twin();
    let wish = DesiredSet { ttl_s: Some(60), ..patch(json!({"setpoint": 20})) };
    twin.on_desired(&wish, "a", at(0)).unwrap();
    let jumped = Now { tick: 59_999, wall: Timestamp::from_ms(i64::MAX) };
    assert!(twin.on_time(jumped).is_empty());
    let change = twin.on_time(Now { tick: 60_000, wall: Timestamp::from_ms(0) });
    assert!(change.delta);
    assert_eq!(twin.leaf("setpoint").unwrap().held().unwrap().out.reason.as_deref(), Some("not applied within 60 s"));
    assert_eq!((state(&twin, "setpoint"), delta(&twin)), (Some(DesiredState::Expired), json!({})));
    let zero = DesiredSet { ttl_s: Some(0), ..patch(json!({"mode": 20})) };
    assert_eq!(twin.on_desired(&zero, "a", at(0)).unwrap_err().code, 422);
}

fn saved(twin: &Twin) -> Saved {
    let leaves = twin.shape.profile.properties.iter().filter_map(|property| {
        let json = serde_json::to_string(twin.leaf(property.name.as_str())?).unwrap();
        Some((property.name.clone(), serde_json::from_str(&json).unwrap()))
    });
    let desired = leaves.collect();
    let reported = twin.reported_indexes();
    let reported = reported.map(|index| (twin.name(index).unwrap().clone(), twin.reported(index).unwrap()));
    Saved { reported_version: twin.reported_version, reported: reported.collect(), desired }
}

fn restored(twin: &Twin, now: Now) -> (Twin, Change) {
    Twin::restore(twin.device.clone(), "01J".into(), twin.shape.clone(), saved(twin), now)
}

#[test]
fn what_is_pending_is_pending_after_a_restart() {
    let mut twin = twin();
    report(&mut twin, json!({"temperature": 61.5}), 1);
    let wish = DesiredSet { ttl_s: Some(60), ..patch(json!({"setpoint": 20, "mode": 6})) };
    twin.on_desired(&wish, "a", at(1)).unwrap();
    twin.on_ack(&ack(1, "mode", DesiredState::Applied), at(1)).unwrap();
    let (mut again, change) = restored(&twin, Now { tick: 7, wall: Timestamp::from_ms(0) });
    assert!(change.is_empty());
    assert_eq!((delta(&again), again.desired_version(), again.reported_version()), (json!({"setpoint": 20}), 1, 1));
    assert_eq!(again.status().state, DeviceState::Unknown);
    assert!(again.on_time(at(60_006)).is_empty(), "a clock in 1970 does not make it live longer");
    assert!(again.on_time(at(60_007)).delta);
}

#[test]
fn a_pulse_is_never_kept() {
    let mut pressed = twin();
    pressed.on_desired(&patch(json!({"button": true})), "a", at(1)).unwrap();
    assert_eq!(delta(&pressed), json!({"button": true}));
    let (forgotten, change) = restored(&pressed, at(0));
    assert_eq!(change.last_words[0].1.state, DesiredState::Expired);
    assert_eq!((delta(&forgotten), forgotten.desired_version()), (json!({}), 2));

    let change = pressed.on_ack(&ack(1, "button", DesiredState::Applied), at(2)).unwrap();
    assert_eq!(change.last_words[0].1.state, DesiredState::Applied);
    assert_eq!(change.leaves.len(), 1);
    assert_eq!((change.events[1].from, change.events[1].to), (1, 2));
    assert!(pressed.wishes().next().is_none());
    pressed.on_desired(&patch(json!({"button": true})), "a", at(3)).unwrap();
    assert_eq!(pressed.desired_version(), 3, "pressed again is pressed again");
}

#[test]
fn a_new_profile_ends_what_it_does_not_accept() {
    let mut twin = twin();
    report(&mut twin, json!({"temperature": 61.5, "setpoint": 20}), 1);
    twin.on_desired(&patch(json!({"setpoint": 20, "mode": 29})), "a", at(1)).unwrap();
    let mut narrow = property("mode", Kind::Number, Access::ReadWrite);
    narrow.write.max = Some(10.0);
    let change = twin.on_profile_change(profile(vec![narrow, property("setpoint", Kind::Number, Access::Read)]), at(2));
    assert_eq!(change.reported_gone, ["temperature".parse().unwrap()]);
    assert_eq!((twin.reported_version(), twin.reported(1).unwrap().value.clone()), (2, json!(20)));
    assert_eq!((state(&twin, "mode"), state(&twin, "setpoint")), (Some(DesiredState::Rejected), None));
    assert_eq!((delta(&twin), twin.desired_version()), (json!({}), 2));
    assert_eq!(change.last_words[0].1.reason.as_deref(), Some("read-only by now"));
}

#[test]
fn silence_makes_an_online_device_stale_and_a_reading_brings_it_back() {
    let mut twin = twin();
    assert!(twin.on_status(DeviceStatus { state: DeviceState::Online, since: None, reason: None }, at(0)));
    assert!(!twin.on_status(DeviceStatus { state: DeviceState::Online, since: None, reason: None }, at(1)));
    assert_eq!(twin.status().since, Some(at(0).wall));
    assert!(!twin.on_time(at(15_000)).status);
    assert!(twin.on_time(at(15_001)).status);
    assert_eq!(twin.status().reason.as_deref(), Some("beat: no reading for 15 s"));
    assert!(!report(&mut twin, json!({"temperature": 1}), 15_002).status);
    assert!(report(&mut twin, json!({"beat": 1}), 15_003).status);
    assert_eq!(twin.status().state, DeviceState::Online);
}

#[test]
fn the_document_is_the_contracts() {
    let mut twin = twin();
    twin.on_status(DeviceStatus { state: DeviceState::Online, since: None, reason: None }, at(0));
    report(&mut twin, json!({"temperature": 61.5}), 0);
    twin.on_desired(&patch(json!({"setpoint": 22})), "cloud", at(0)).unwrap();
    let wall = "2023-11-14T22:13:20.000Z";
    let document: Value = written(|out| twin.write_document(at(0).wall, out));
    assert_eq!(
        document,
        json!({"device": "boiler-1", "profile": "acme.boiler@1.2.0", "profile_hash": "0123456789abcdef",
            "epoch": "01J", "at": wall,
            "status": {"state": "online", "since": wall, "reason": null},
            "reported": {"version": 1, "properties": {
                "temperature": {"value": 61.5, "unit": "Cel", "quality": "good", "at": wall, "version": 1}}},
            "desired": {"version": 1, "properties": {
                "setpoint": {"value": 22, "at": wall, "version": 1, "by": "cloud", "state": "pending", "reason": "waiting for the device"}}},
            "delta": {"setpoint": 22}})
    );
    let outcome = report(&mut twin, json!({"temperature": 62, "beat": 1}), 0);
    let mut leaves = Vec::new();
    for index in &outcome.changed {
        let mut leaf = Vec::new();
        twin.write_reported(*index, &mut TimestampText::default(), &mut leaf);
        leaves.push((*index, leaf));
    }
    let leaves = leaves.iter().map(|(index, leaf)| (*index, leaf.as_slice()));
    let event: Event = written(|out| twin.write_reported_event(&outcome, at(0).wall, leaves, out));
    assert_eq!((event.from, event.to, event.reported.len()), (1, 2, 2));
}

#[derive(Clone, Debug)]
enum Input {
    Report(BTreeMap<&'static str, Option<i32>>),
    Patch(BTreeMap<&'static str, Option<i32>>, Option<u64>),
    Ack(u64, BTreeSet<&'static str>, DesiredState),
    Wait(u64),
    Restart,
}

fn input() -> impl Strategy<Value = Input> {
    let name = || prop::sample::select(vec!["setpoint", "mode", "button", "temperature", "nonsense"]);
    let values = || prop::collection::btree_map(name(), prop::option::of(0..35), 0..3);
    let state = prop::sample::select(vec![
        DesiredState::Applied,
        DesiredState::Rejected,
        DesiredState::Failed,
        DesiredState::Pending,
    ]);
    prop_oneof![
        values().prop_map(Input::Report),
        (values(), prop::option::of(1u64..5)).prop_map(|(values, ttl)| Input::Patch(values, ttl)),
        (0..4u64, prop::collection::btree_set(name(), 0..3), state)
            .prop_map(|(age, names, state)| Input::Ack(age, names, state)),
        (1..3000u64).prop_map(Input::Wait),
        Just(Input::Restart),
    ]
}

fn apply(twin: &mut Twin, input: Input, now: &mut Now) -> Option<Change> {
    match input {
        Input::Report(values) => {
            let readings = values.into_iter().map(|(name, value)| {
                (name.parse().unwrap(), ReadingIn { value: json!(value), quality: Quality::Good, at: None })
            });
            twin.on_report(ReportedSet { at: None, readings: readings.collect() }, *now);
            None
        }
        Input::Patch(values, ttl_s) => {
            let before = (twin.desired_version(), twin.undo_point().desired);
            let patch = values.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
            match twin.on_desired(&DesiredSet { patch, ttl_s, ..DesiredSet::default() }, "a", *now) {
                Ok(change) => Some(change),
                Err(_) => {
                    assert_eq!((twin.desired_version(), twin.undo_point().desired), before, "all or nothing");
                    None
                }
            }
        }
        Input::Ack(age, names, state) => {
            let version = twin.desired_version().saturating_sub(age);
            let result = AckResult { state, actual: None, reason: None };
            let results = names.into_iter().map(|name| (name.parse().unwrap(), result.clone())).collect();
            twin.on_ack(&DesiredAck { version, results }, *now).ok()
        }
        Input::Wait(ms) => {
            *now = at(now.tick + ms);
            Some(twin.on_time(*now))
        }
        Input::Restart => {
            let (again, change) = restored(twin, *now);
            *twin = again;
            Some(change)
        }
    }
}

proptest! {
    #[test]
    fn the_twins_invariants_hold_whatever_comes(inputs in prop::collection::vec(input(), 0..40)) {
        let mut twin = twin();
        let mut now = at(0);
        for input in inputs {
            let before = (twin.reported_version(), twin.desired_version());
            let told = delta(&twin);
            let change = apply(&mut twin, input, &mut now);
            let after = (twin.reported_version(), twin.desired_version());
            prop_assert!(after.0 >= before.0 && after.1 >= before.1, "versions never decrease");
            prop_assert!(after.0 <= before.0 + 1, "one message is one step");
            let pending = twin.wishes().filter(|(_, wish)| wish.out.state == DesiredState::Pending).count();
            prop_assert_eq!(delta(&twin).as_object().unwrap().len(), pending, "the delta is what is pending");
            let said = change.as_ref().is_some_and(|change| change.delta);
            prop_assert!(said || delta(&twin) == told, "a delta that changed is told");
            for (_, wish) in twin.wishes() {
                prop_assert!(wish.out.version <= after.1 && wish.out.version >= 1);
            }
            for event in change.iter().flat_map(|change| &change.events) {
                prop_assert!(event.from >= before.1 && event.to <= after.1 && event.to - event.from <= 1);
            }
            for index in twin.reported_indexes() {
                let reading = twin.reported(index).unwrap();
                prop_assert!(!reading.quality.is_bad() || reading.value.is_null());
            }
        }
    }
}

#[test]
fn after_an_unclean_end_no_property_shows_a_version_that_was_shown_before() {
    let mut before = twin();
    report(&mut before, json!({"temperature": 61.5, "setpoint": 20, "mode": 1}), 1);
    before.on_desired(&patch(json!({"setpoint": 21})), "ha", at(2)).unwrap();
    let saved = |twin: &Twin, reported_version| Saved {
        reported_version,
        reported: twin.reported_indexes().map(|i| (twin.name(i).unwrap().clone(), twin.reported(i).unwrap())).collect(),
        desired: ["setpoint"].iter().map(|name| (name.parse().unwrap(), twin.leaf(name).unwrap().clone())).collect(),
    };
    let flushed = saved(&before, 0);
    // Published, and not flushed: the device shows the wish, and that it was applied is on disk.
    report(&mut before, json!({"temperature": 62, "setpoint": 21}), 3);
    before.on_ack(&ack(1, "setpoint", DesiredState::Applied), at(4)).unwrap();
    let kept = Saved { reported_version: 1000, desired: saved(&before, 0).desired, ..flushed };
    let restore =
        |saved: &Saved| Twin::restore("boiler-1".parse().unwrap(), "01J".into(), boiler(), saved.clone(), at(5)).0;

    let mut again = restore(&kept);
    assert_eq!(again.reported(0).unwrap().version, 1, "what was shown last was 2: this is what has to be mended");
    assert!(again.renew_reported());
    let versions: Vec<u64> = again.reported_indexes().map(|index| again.reported(index).unwrap().version).collect();
    assert_eq!((again.reported_version(), versions), (1001, vec![1001; 3]), "one step for all of them");
    assert_eq!(again.reported(0).unwrap().value, json!(61.5), "the value is the one that was kept");
    let same = again.on_desired(&patch(json!({"setpoint": 21})), "ha", at(6)).unwrap();
    assert!(same.is_empty(), "a reading from before the wish is no drift: {same:?}");
    report(&mut again, json!({"temperature": 62}), 7);
    assert_eq!(again.reported(0).unwrap().version, 1002);

    let untouched = restore(&Saved { reported: Vec::new(), ..kept });
    let mut empty = untouched;
    assert!(!empty.renew_reported());
    assert_eq!(empty.reported_version(), 1000, "nothing to tell is no step");
}

#[test]
fn a_message_is_read_as_its_type_would_have_it() {
    let shape = boiler();
    for text in [
        r#"{"at":"2026-11-22T12:00:00.120Z","readings":{"temperature":61.5,"mode":{"value":null,"quality":"bad:timeout"}}}"#,
        r#"{"readings":{"setpoint":{"value":1,"at":"2026-11-22T12:00:00Z"},"zz":1,"aa":{"value":2},"beat":18446744073709551615}}"#,
        r#"{"readings":{},"at":null}"#,
        r#"{"readings":{"temper\u0061ture":"caf\u00e9"}}"#,
        r#"{"readings":{"temperature":1,"mode":2,"temperature":3,"zz":1,"zz":2}}"#,
    ] {
        let set: ReportedSet = serde_json::from_str(text).unwrap();
        let mut expected = shape.readings_of(set);
        let mut found = shape.readings(text.as_bytes()).unwrap();
        expected.known.sort_by_key(|(index, _)| *index);
        found.known.sort_by_key(|(index, _)| *index);
        assert_eq!(found, expected, "{text}");
    }
    for text in [
        "",
        "[]",
        r#"[null,{"temperature":1}]"#,
        "{}",
        r#"{"at":"2026-11-22T12:00:00Z"}"#,
        r#"{"readings":[]}"#,
        r#"{"readings":{},"more":1}"#,
        r#"{"readings":{},"readings":{}}"#,
        r#"{"readings":{}} {}"#,
        r#"{"readings":{"bad name":1}}"#,
        r#"{"readings":{"temperature":{"value":1,"quality":"fine"}}}"#,
        r#"{"readings":{"temperature":{"value":1,"colour":"red"}}}"#,
        r#"{"readings":{"zz":{"value":1,"colour":"red"}}}"#,
        r#"{"readings":{"temperature":1},"at":"yesterday"}"#,
    ] {
        assert!(shape.readings(text.as_bytes()).is_err(), "{text}");
    }
}
