//! What is there again after a restart, and that no version goes back, however the gateway ended.

use super::*;

#[test]
fn everything_retained_is_there_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ask("twin/b1/status/set", r#"{"state":"online"}"#, 1);
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":61.5,"mode":4}}"#, 0);
    rig.ask("twin/b1/reported/set", r#"{"readings":{"mode":{"value":null,"quality":"bad:timeout"}}}"#, 0);
    rig.set(json!({"setpoint": 21.5, "mode": 5}));
    rig.ask("twin/b1/desired/ack", r#"{"version":1,"results":{"mode":{"state":"failed","reason":"no answer"}}}"#, 1);
    rig.pass(DOCUMENT_MS);
    let mut before = rig.ear.retained();
    assert_eq!(before["twin/b1/reported/mode"]["last_good"]["value"], 4);
    assert_eq!(before.remove("twin/b1/status").unwrap()["state"], "online");
    let mut document = before.remove("twin/b1").unwrap();
    rig.twins.stop();
    rig.store.close();
    drop(rig);

    let rig = Rig::boiler(dir.path());
    let mut after = rig.ear.retained();
    assert_eq!(after.remove("twin/b1/status").unwrap()["state"], "unknown", "nobody has asked the device yet");
    let mut again = after.remove("twin/b1").unwrap();
    assert_eq!(after, before);
    for document in [&mut document, &mut again] {
        document.as_object_mut().unwrap().retain(|key, _| key != "at" && key != "status");
    }
    assert_eq!(again, document);
}

#[test]
fn after_a_kill_only_devices_that_were_there_go_on_above_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &config(BOILER, &["b1", "silent"]));
    let copy = tempfile::tempdir().unwrap();
    for end in ["-wal", ""] {
        let name = format!("{}{end}", store::FILE);
        std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    drop(rig);
    let again = Rig::new(copy.path(), &config(BOILER, &["b1", "silent", "new"]));
    // Both old ones may have spoken without a flush; nobody can have heard of the new one.
    for (device, version) in [("b1", VERSION_RESERVE + 1), ("silent", VERSION_RESERVE + 1), ("new", 1)] {
        again.ask(&format!("twin/{device}/reported/set"), r#"{"readings":{"temperature":1}}"#, 0);
        assert_eq!(again.retained(&format!("twin/{device}/reported/temperature"))["version"], version, "{device}");
    }
}

#[test]
fn versions_go_on_after_a_kill_above_what_was_published() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &config(BOILER, &["b1", "quiet"]));
    let mut copies = Vec::new();
    for step in 1..=2 * VERSION_RESERVE + 100 {
        rig.ask("twin/b1/reported/set", &json!({"readings": {"temperature": step}}).to_string(), 0);
        if step % 700 == 5 {
            let copy = tempfile::tempdir().unwrap();
            // The log first: a flush between the two copies may be missing, as after a kill a little earlier.
            for end in ["-wal", ""] {
                let name = format!("{}{end}", store::FILE);
                std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
            }
            copies.push((step, copy));
        }
    }
    assert_eq!(rig.retained("twin/b1/reported/temperature")["version"], 2 * VERSION_RESERVE + 100);
    for (published, copy) in copies {
        let mut last = published;
        for round in 0..3 {
            let again = Rig::new(copy.path(), &config(BOILER, &["b1", "quiet", "new"]));
            again.ask("twin/b1/reported/set", r#"{"readings":{"temperature":-1}}"#, 0);
            again.ask("twin/b1/reported/set", r#"{"readings":{"temperature":-2}}"#, 0);
            let version = again.retained("twin/b1/reported/temperature")["version"].as_u64().unwrap();
            assert!(version > last, "round {round}: {version} after {last}");
            last = version;
        }
    }
}

#[test]
fn after_a_kill_every_property_is_told_under_a_version_nobody_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    let kill = |dir: &Path| {
        let copy = tempfile::tempdir().unwrap();
        // The log first: a flush between the two copies may be missing, as after a kill a little earlier.
        for end in ["-wal", ""] {
            let name = format!("{}{end}", store::FILE);
            std::fs::copy(dir.join(&name), copy.path().join(&name)).unwrap();
        }
        copy
    };
    // On disk with version 1 …
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":61.5,"mode":4,"setpoint":20}}"#, 1);
    // … and published up to 9 without a flush.
    for step in 0..8 {
        rig.ask("twin/b1/reported/set", &json!({"readings": {"temperature": step}}).to_string(), 0);
    }
    let leaves = |rig: &Rig| -> Vec<(String, u64)> {
        let all = rig.ear.retained().into_iter();
        let leaf = |(topic, leaf): (String, Value)| {
            Some((topic.strip_prefix("twin/b1/reported/")?.to_owned(), leaf["version"].as_u64()?))
        };
        all.filter_map(leaf).collect()
    };
    let mut shown = leaves(&rig);
    assert_eq!(shown.iter().map(|(_, version)| *version).max(), Some(9));
    let mut copy = kill(dir.path());
    for round in 0..3 {
        let again = Rig::boiler(copy.path());
        let now = leaves(&again);
        assert_eq!(now.len(), 3);
        for ((name, before), (_, after)) in shown.iter().zip(&now) {
            assert!(after > before, "round {round}: {name} was shown with {before} and is {after} now");
        }
        assert!(now.iter().all(|(_, version)| *version == now[0].1), "one step for all: {now:?}");
        assert_eq!(again.retained("twin/b1")["reported"]["version"], now[0].1, "and the document says the same");
        // What was told is on disk before anybody is let in: killed at once, the next run goes on above it.
        shown = now;
        copy = kill(copy.path());
    }
    // A clean end changes nothing.
    let again = Rig::boiler(copy.path());
    let before = leaves(&again);
    again.twins.stop();
    again.store.close();
    drop(again);
    assert_eq!(leaves(&Rig::boiler(copy.path())), before);
}
