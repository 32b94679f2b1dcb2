//! Readings: published at once, on disk in groups.

use super::*;

#[test]
fn readings_are_published_at_once_and_the_document_once_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.pass(DOCUMENT_MS);
    rig.ear.take();
    for step in 1..=3 {
        rig.ask("twin/b1/reported/set", &json!({"readings": {"temperature": step}}).to_string(), 0);
        let words = rig.ear.take();
        let count = |topic: &str| words.iter().filter(|word| word.0 == topic).count();
        assert_eq!((count("twin/b1/reported/temperature"), count("twin/b1/event")), (1, 1));
        assert_eq!(count("twin/b1"), usize::from(step == 1), "step {step}");
    }
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":3.0}}"#, 0);
    let words = rig.ear.take();
    assert!(!words.iter().any(|word| word.0 == "twin/b1/event"), "no change, no event");
    assert_eq!(words[0].1["version"], 3);
    rig.pass(DOCUMENT_MS);
    let document = rig.retained("twin/b1");
    assert_eq!(document["reported"]["properties"]["temperature"]["value"], 3, "exact after quiet");
    assert_eq!(document["reported"]["version"], 3);
    rig.ear.take();
    rig.pass(10 * DOCUMENT_MS);
    assert!(rig.ear.retained().is_empty(), "no change means no traffic");
}

#[test]
fn a_reading_at_qos_1_is_acknowledged_when_its_group_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    let send = |value: u32| {
        rig.send(|request| {
            request.topic = "twin/b1/reported/set".to_owned();
            request.payload = json!({"readings": {"temperature": value}}).to_string().into();
        })
    };
    // The first group is as old as the gateway: it goes at once. The second has to wait for the interval.
    assert_eq!(send(1).recv_timeout(Duration::from_secs(20)).unwrap(), Some(Verdict::Accepted));
    let waiting = send(2);
    rig.pass(4_000);
    assert_eq!((rig.store.stats().leaves, waiting.try_recv().ok()), (1, None));
    rig.pass(1_000);
    assert_eq!(waiting.recv_timeout(Duration::from_secs(20)).unwrap(), Some(Verdict::Accepted));
    assert_eq!(rig.store.stats().leaves, 2);
    let waiting = send(3);
    rig.twins.stop();
    assert_eq!(waiting.recv().unwrap(), Some(Verdict::Accepted), "the end is a flush too");
}
