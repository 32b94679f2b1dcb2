//! The store on real files: what was acknowledged is there, whatever happened to the process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use proptest::prelude::*;
use protocols::message::{DesiredOut, DesiredState};
use protocols::twin::Wish;
use protocols::value::{Quality, Timestamp, Value};
use serde_json::json;

use super::*;
use crate::broker::shelf::{Kept, KeptSession, KeptSubscription, KeptWill};

fn open(dir: &Path) -> Store {
    Store::open(dir, Options::default()).unwrap()
}

fn wait(store: &Store, writes: Vec<TwinWrite>) -> Result<(), ShelfError> {
    let (tell, told) = mpsc::channel();
    store.write(writes, Some(Box::new(move |result| tell.send(result).unwrap())));
    told.recv_timeout(Duration::from_secs(30)).unwrap()
}

fn leaf(value: Value, version: u64) -> ReportedOut {
    let at = Timestamp::from_ms(1_700_000_000_000 + version as i64);
    ReportedOut { value, quality: Quality::Good, at, version, last_good: None }
}

fn reported(device: &str, version: u64, leaves: &[(&str, Option<ReportedOut>)]) -> TwinWrite {
    let leaves = leaves.iter().map(|(name, leaf)| (name.parse().unwrap(), leaf.clone())).collect();
    TwinWrite::Reported(ReportedWrite { device: device.parse().unwrap(), version, leaves })
}

fn desired(device: &str, property: &str, version: u64) -> TwinWrite {
    let out = DesiredOut {
        value: json!(version),
        version,
        at: Timestamp::from_ms(0),
        by: "test".to_owned(),
        state: DesiredState::Pending,
        reason: None,
    };
    let wish = Wish { out, expires: None, ttl_s: None, actual: None, seen: 0, deadline: None };
    TwinWrite::Desired(device.parse().unwrap(), property.parse().unwrap(), Leaf::Held(wish))
}

fn damaged_files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("damaged") && !name.ends_with("-wal") && !name.ends_with("-shm")).collect()
}

#[test]
fn what_is_written_is_there_after_a_clean_end_with_the_exact_versions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let opened = store.opened().clone();
    assert!(opened.fresh && opened.clean && opened.set_aside.is_none() && opened.epoch.len() == 26);
    wait(&store, vec![reported("d", 2, &[("b", Some(leaf(json!(1.5), 1))), ("a", Some(leaf(json!("x"), 2)))])])
        .unwrap();
    wait(&store, vec![reported("d", 3, &[("b", None)]), desired("d", "p", 7), desired("e", "q", 1)]).unwrap();
    wait(&store, vec![TwinWrite::Settled]).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(*store.opened(), Opened { fresh: false, ..opened });
    let twins = store.load_twins();
    let [d, e] = &twins[..] else { panic!("{twins:?}") };
    assert_eq!((d.device.as_str(), d.saved.reported_version), ("d", 3));
    assert_eq!(d.saved.reported, [("a".parse().unwrap(), leaf(json!("x"), 2))]);
    assert_eq!(d.saved.desired[0].1.version(), 7);
    assert_eq!((e.device.as_str(), e.saved.reported_version, e.saved.desired.len()), ("e", 0, 1));
    assert!(store.load_twins().is_empty());
}

#[test]
fn after_an_end_that_was_not_clean_reported_versions_go_on_above_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.first_version(), 0);
    wait(&store, vec![reported("d", 5, &[("a", Some(leaf(json!(1), 5)))]), TwinWrite::Settled]).unwrap();
    drop(store);
    for (settle, clean, expected) in [
        (true, true, 5),
        (false, true, 5),
        (false, false, 5 + VERSION_RESERVE),
        (true, false, 5 + 2 * VERSION_RESERVE),
        (true, true, 5 + 2 * VERSION_RESERVE),
    ] {
        let store = open(dir.path());
        assert_eq!((store.opened().clean, store.load_twins()[0].saved.reported_version), (clean, expected));
        assert_eq!(store.first_version(), if clean { 0 } else { VERSION_RESERVE });
        wait(&store, if settle { vec![TwinWrite::Settled] } else { vec![desired("d", "p", 1)] }).unwrap();
    }
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = Store::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { holder: Some(pid), .. } if *pid == std::process::id().to_string()));
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    store.close();
    assert!(Store::open(dir.path(), Options::default()).is_ok(), "a closed store is free");
}

#[test]
fn a_damaged_store_is_set_aside_and_a_new_epoch_begins() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 4] = [
        ("not a database", |bytes| bytes.splice(0..100, *b"no header").for_each(drop)),
        ("pages overwritten", |bytes| bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0xa5)),
        ("cut in the middle", |bytes| bytes.truncate(9000)),
        ("one page of the tables", |bytes| bytes.iter_mut().skip(100).take(3000).for_each(|byte| *byte = 0)),
    ];
    for (what, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        wait(&store, vec![desired("d", "p", 1), reported("d", 1, &[("a", Some(leaf(json!(1), 1)))])]).unwrap();
        let epoch = store.opened().epoch.clone();
        drop(store);
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let store = open(dir.path());
        let aside = store.opened().set_aside.clone().unwrap_or_else(|| panic!("{what}: not noticed"));
        assert_eq!(std::fs::read(&aside).unwrap(), bytes, "{what}: kept as it was");
        assert_ne!(store.opened().epoch, epoch, "{what}");
        assert!(store.load_twins().is_empty());
        wait(&store, vec![desired("d", "p", 1)]).unwrap();
        drop(store);
        assert!(open(dir.path()).opened().set_aside.is_none(), "{what}: the new one is sound");
        assert_eq!(damaged_files(dir.path()).len(), 1, "{what}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_nothing_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(FILE)).unwrap();
    let error = Store::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(&error, OpenError::Io { path, .. } if path.ends_with(FILE)), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("store"), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(damaged_files(dir.path()).is_empty());
}

#[test]
fn a_store_of_a_newer_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let connection = rusqlite::Connection::open(dir.path().join(FILE)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::TooNew { found: 99, .. }), "{error}");
}

#[test]
fn a_full_disk_is_told_to_whom_it_concerns_and_loses_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { max_bytes: Some(256 << 10), ..Options::default() }).unwrap();
    let big = |topic: &str, bytes: usize| Change::Retain(kept(topic, &vec![b'x'; bytes]));
    let keep = |changes| {
        let (tell, told) = mpsc::channel();
        store.keep(changes, Some(Box::new(move |result| tell.send(result).unwrap())));
        told.recv_timeout(Duration::from_secs(30)).unwrap()
    };
    keep(vec![big("fits", 1000)]).unwrap();
    wait(&store, vec![desired("d", "p", 1)]).unwrap();
    let error = keep(vec![big("too-big", 1 << 20)]).unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    assert!(store.trouble().is_some() && store.stats().failures == 1);
    wait(&store, vec![desired("d", "p", 2)]).unwrap();
    assert_eq!((store.trouble(), store.stats().dropped), (None, 0));
    // Nobody waits for these: they are tried again until there is room.
    store.keep(vec![big("patient", 400 << 10)], None);
    store.keep(vec![Change::Retain(kept("small", b"1"))], None);
    wait(&store, vec![desired("d", "p", 3)]).unwrap();
    assert!(keep(vec![Change::Unretain("fits".to_owned())]).is_err(), "the shelf keeps its order: nothing overtakes");
    assert!(store.trouble().is_some() && store.stats().dropped == 0);
    store.close();
    assert_eq!(store.stats().dropped, 2, "what was lost is counted");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.load_twins()[0].saved.desired[0].1.version(), 3);
    assert_eq!(store.load().unwrap().retained.len(), 1);
}

fn kept(topic: &str, payload: &[u8]) -> Kept {
    Kept {
        topic: topic.to_owned(),
        payload: payload.to_vec().into(),
        qos: 1,
        retain: true,
        properties: vec![1, 1].into(),
        subscription_ids: vec![3, 268_435_455],
        expires_ms: Some(1_700_000_000_000),
        at_ms: -5,
    }
}

#[test]
fn the_shelf_gives_back_what_was_kept_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.load().unwrap(), Inventory::default());
    let subscription = |filter: &str, id| KeptSubscription { filter: filter.to_owned(), options: 0b10_1101, id };
    let session = |client: &str, absent| KeptSession {
        client: client.to_owned(),
        user: Some("u".to_owned()),
        expiry_s: u32::MAX,
        absent_since_ms: absent,
        ..KeptSession::default()
    };
    let text = str::to_owned;
    let will = |due_ms| KeptWill {
        message: Kept { expires_ms: None, at_ms: 0, ..kept("will", b"last") },
        due_ms,
        expiry_s: Some(u32::MAX),
    };
    let steps = vec![
        Change::Retain(kept("a/b", b"1")),
        Change::Retain(kept("a/b", b"2")),
        Change::Retain(kept("gone", b"3")),
        Change::Unretain(text("gone")),
        Change::Session(session("c1", None)),
        Change::Subscribe(text("c1"), subscription("x/#", Some(7))),
        Change::Subscribe(text("c1"), subscription("x/#", None)),
        Change::Subscribe(text("c1"), subscription("y", None)),
        Change::Unsubscribe(text("c1"), text("y")),
        Change::Enqueue(text("c1"), 1, kept("q", b"old")),
        Change::Enqueue(text("c1"), u64::from(u32::MAX) + 1, kept("q", &[0, 255])),
        Change::Enqueue(text("c1"), 2, kept("q", b"")),
        Change::Dequeue(text("c1"), 1),
        Change::Received(text("c1"), 65535),
        Change::Received(text("c1"), 9),
        Change::Released(text("c1"), 9),
        Change::Session(session("c1", Some(12))),
        Change::Will(text("c1"), Some(will(7))),
        Change::Will(text("c1"), None),
        Change::Will(text("c1"), Some(will(8))),
        Change::Session(session("c2", None)),
        Change::Will(text("c2"), Some(will(9))),
        Change::Subscribe(text("c2"), subscription("z", None)),
        Change::EndSession(text("c2")),
    ];
    let (tell, told) = mpsc::channel();
    let (first, second) = steps.split_at(9);
    store.keep(first.to_vec(), None);
    store.keep(second.to_vec(), Some(Box::new(move |result| tell.send(result).unwrap())));
    told.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
    assert_eq!(store.stats().commits, 1, "what nobody waits for goes with what somebody does");
    drop(store);
    let expected = Inventory {
        retained: vec![kept("a/b", b"2")],
        sessions: vec![KeptSession {
            subscriptions: vec![subscription("x/#", None)],
            queue: vec![(2, kept("q", b"")), (u64::from(u32::MAX) + 1, kept("q", &[0, 255]))],
            received: vec![65535],
            will: Some(will(8)),
            ..session("c1", Some(12))
        }],
    };
    assert_eq!(open(dir.path()).load().unwrap(), expected);
}

#[test]
fn a_closed_store_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.keep(vec![Change::Retain(kept("lazy", b"1"))], None);
    store.close();
    assert_eq!(wait(&store, vec![TwinWrite::Settled]), Err(ShelfError::Store("it is closed".to_owned())));
    assert_eq!(open(dir.path()).load().unwrap().retained.len(), 1, "what waited was written at the end");
}

#[test]
fn the_log_stays_bounded_under_constant_writing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { checkpoint_bytes: 64 << 10, wal_bytes: 256 << 10, ..Options::default() };
    let store = Store::open(dir.path(), options).unwrap();
    for round in 1..=400 {
        let writes = (0..4).map(|device| desired(&format!("d{device}"), "p", round)).collect();
        wait(&store, writes).unwrap();
        let log = std::fs::metadata(dir.path().join(format!("{FILE}-wal"))).unwrap().len();
        assert!(log < 1 << 20, "{log} bytes of log in round {round}");
    }
    let stats = store.stats();
    assert!(stats.written_bytes > 400 * 4096 && stats.commits == 400, "{stats:?}");
}

/// Puts a journal into the state a kill may leave: folded partly, then opened again.
#[test]
fn base_and_journal_together_are_what_was_written_whenever_it_ends() {
    let options = || Options { fold_bytes: 400, ..Options::default() };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 12, ..ProptestConfig::default() });
    let write = (0..5u8, 0..4u8, prop::option::weighted(0.8, any::<i32>()));
    let flush = prop::collection::vec(write, 1..12);
    let rounds = prop::collection::vec(prop::collection::vec(flush, 1..12), 1..4);
    runner
        .run(&rounds, |rounds| {
            let dir = tempfile::tempdir().unwrap();
            let mut expected: BTreeMap<(String, String), Value> = BTreeMap::new();
            let mut version = 0;
            for round in rounds {
                let store = Store::open(dir.path(), options()).unwrap();
                let shown = store.load_twins();
                let shown = shown.iter().flat_map(|twin| {
                    let of = |(name, leaf): &(PropertyName, ReportedOut)| {
                        ((twin.device.to_string(), name.to_string()), leaf.value.clone())
                    };
                    twin.saved.reported.iter().map(of).collect::<Vec<_>>()
                });
                prop_assert_eq!(shown.collect::<BTreeMap<_, _>>(), expected.clone());
                for flush in round {
                    version += 1;
                    let mut leaves: BTreeMap<String, BTreeMap<String, Option<i32>>> = BTreeMap::new();
                    for (device, property, value) in flush {
                        leaves.entry(format!("d{device}")).or_default().insert(format!("p{property}"), value);
                    }
                    let mut writes = Vec::new();
                    for (device, leaves) in leaves {
                        for (name, value) in &leaves {
                            let key = (device.clone(), name.clone());
                            match value {
                                Some(value) => drop(expected.insert(key, json!(value))),
                                None => drop(expected.remove(&key)),
                            }
                        }
                        let leaves: Vec<_> = leaves
                            .iter()
                            .map(|(name, value)| (name.as_str(), value.map(|value| leaf(json!(value), version))))
                            .collect();
                        writes.push(reported(&device, version, &leaves));
                    }
                    wait(&store, writes).unwrap();
                }
                // Half of the rounds end with a store that never gets to its final fold: a copy of the files as they are.
                if version % 2 == 0 {
                    let copy = tempfile::tempdir().unwrap();
                    for end in ["", "-wal"] {
                        let name = format!("{FILE}{end}");
                        std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
                    }
                    drop(store);
                    for end in ["", "-wal"] {
                        let name = format!("{FILE}{end}");
                        std::fs::copy(copy.path().join(&name), dir.path().join(&name)).unwrap();
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_flush_of_random_readings_costs_tens_of_bytes_each() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (devices, properties, rounds, updates) = (2_000u64, 10u64, 30u64, 4_000u64);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for round in 1..=rounds {
        let mut changed: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        for _ in 0..updates {
            changed.entry(random(devices)).or_default().insert(random(properties), random(100_000));
        }
        let writes = changed.into_iter().map(|(device, leaves)| {
            let names: Vec<_> = leaves.keys().map(|property| format!("p{property}")).collect();
            let leaf = |value: &u64| Some(leaf(json!(*value as f64 / 10.0), round * 1000));
            let leaves: Vec<_> = names.iter().map(String::as_str).zip(leaves.values().map(leaf)).collect();
            reported(&format!("device-{device}"), round * 1000 + 7, &leaves)
        });
        wait(&store, writes.collect()).unwrap();
    }
    store.close();
    let stats = store.stats();
    let each = (stats.written_bytes + stats.checkpoint_bytes) as f64 / (rounds * updates) as f64;
    println!("{each:.1} bytes an update: {stats:?}");
    assert!(stats.written_bytes > 0 && each < 120.0, "{each:.1} bytes an update: {stats:?}");
}

/// The child of the next test: sets desired values one after another and says when each is on disk.
#[test]
#[ignore = "run by a_killed_process_loses_no_acknowledged_write"]
fn killed_child() {
    let Some(dir) = std::env::var_os("TIDEGATE_TEST_STORE") else { return };
    let options = Options { fold_bytes: 2_000, checkpoint_bytes: 50_000, ..Options::default() };
    let store = Store::open(Path::new(&dir), options).unwrap();
    let twins = store.load_twins();
    let version = twins.iter().flat_map(|twin| &twin.saved.desired).map(|(_, leaf)| leaf.version()).max().unwrap_or(0);
    let seen = twins.iter().map(|twin| twin.saved.reported_version).max().unwrap_or(0).max(store.first_version());
    wait(&store, vec![reported("d0", seen, &[])]).unwrap();
    println!("start {version} {seen}");
    for step in 1..100_000u64 {
        // Published at once, flushed only now and then.
        println!("reported {}", seen + step);
        let device = format!("d{}", step % 3);
        let mut writes = vec![desired(&device, "p", version + step)];
        if step % 5 == 0 {
            let leaf = |value| Some(leaf(json!(value), seen + step));
            writes.push(reported("d0", seen + step, &[("a", leaf(step)), ("b", leaf(1))]));
        }
        wait(&store, writes).unwrap();
        println!("stored {}", version + step);
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_killed_process_loses_no_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let (mut stored, mut published) = (0u64, 0u64);
    for round in 0..100u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::tests::killed_child", "--exact", "--ignored", "--nocapture"])
            .env("TIDEGATE_TEST_STORE", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let after = Duration::from_micros(1_000 + (round * 7_919) % 20_000);
        // Every fourth is killed while it opens the store, the others while they write.
        let first = if round % 4 == 0 {
            None
        } else {
            lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("start"))
        };
        let killer = std::thread::spawn(move || {
            std::thread::sleep(after);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in first.into_iter().chain(lines.map_while(Result::ok)) {
            let mut words = line.split(' ');
            let (word, numbers) = (words.next(), words.filter_map(|word| word.parse::<u64>().ok()).collect::<Vec<_>>());
            match (word, &numbers[..]) {
                (Some("start"), [version, seen]) => {
                    assert!(*version >= stored, "round {round}: {stored} was acknowledged, {version} is there");
                    assert!(*seen >= published, "round {round}: {published} was published, {seen} is there");
                }
                (Some("stored"), [version]) => stored = *version,
                (Some("reported"), [version]) => published = *version,
                _ => {}
            }
        }
        killer.join().unwrap();
    }
    assert!(stored > 100, "the children got to write: {stored}");
    let store = open(dir.path());
    assert!(store.opened().set_aside.is_none() && !store.opened().clean);
}

fn load_upstream(store: &Store, name: &Arc<str>, target: &str) -> KeptUpstream {
    let (tell, told) = mpsc::channel();
    store.load_upstream(name, target.to_owned(), move |kept| tell.send(kept).unwrap());
    told.recv_timeout(Duration::from_secs(30)).unwrap().unwrap()
}

#[test]
fn what_an_upstream_keeps_is_there_again_and_belongs_to_its_place() {
    use protocols::outbox::{Class, Gap, Item, Load, Meta, Row, Slot, Stamp, StoreOp, Streamed};
    let dir = tempfile::tempdir().unwrap();
    let (cloud, other): (Arc<str>, Arc<str>) = ("cloud".into(), "other".into());
    let slot = |property: &str| Slot::Device("d1".parse().unwrap(), Item::Reported(property.parse().unwrap()));
    let row = |seq: u64| Row {
        reading: Streamed {
            class: Class::Metric,
            seq,
            device: "d1".parse().unwrap(),
            property: "level".parse().unwrap(),
            payload: Arc::from(seq.to_string().into_bytes()),
        },
        born_ms: seq * 10,
        wall: Timestamp::from_ms(1_700_000_000_000),
    };
    let gap = Gap { class: Class::Alarm, from_seq: 3, to_seq: 9, reason: "full" };
    {
        let store = open(dir.path());
        assert_eq!(load_upstream(&store, &cloud, "a"), KeptUpstream::default());
        let (tell, told) = mpsc::channel();
        let writes = vec![
            UpstreamWrite::Mark(slot("level"), Some(Stamp(u64::MAX))),
            UpstreamWrite::Mark(slot("flow"), Some(Stamp(7))),
            UpstreamWrite::Mark(slot("flow"), None),
            UpstreamWrite::Spool(StoreOp::Append((1..=600).map(row).collect())),
            UpstreamWrite::Spool(StoreOp::Delete { class: Class::Metric, from: 1, upto: 100 }),
            UpstreamWrite::Spool(StoreOp::Meta(Meta { class: Class::Metric, floor: 101, ceiling: 5000 })),
            UpstreamWrite::Spool(StoreOp::Gap(gap.clone())),
            UpstreamWrite::Memory("k".to_owned(), Some("v".to_owned())),
        ];
        store.write_upstream(&cloud, writes, Some(Box::new(move |result| tell.send(result).unwrap())));
        told.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
        store.write_upstream(&other, vec![UpstreamWrite::Mark(slot("level"), Some(Stamp(1)))], None);
    }
    let store = open(dir.path());
    let kept = load_upstream(&store, &cloud, "a");
    assert_eq!(kept.marks, [(slot("level"), Stamp(u64::MAX))]);
    assert_eq!(kept.memory, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    assert_eq!(kept.spool.gaps, [gap]);
    assert_eq!(kept.spool.metas, [Meta { class: Class::Metric, floor: 101, ceiling: 5000 }]);
    let bytes: u64 = kept.spool.segments.iter().map(|segment| segment.bytes).sum();
    assert_eq!(bytes, (101..=600).map(|seq| row(seq).bytes() as u64).sum::<u64>());
    let (tell, told) = mpsc::channel();
    let load = Load { class: Class::Metric, from: 50, upto: 200, rows: 3 };
    store.load_readings(&cloud, load, move |rows| tell.send(rows).unwrap());
    assert_eq!(told.recv_timeout(Duration::from_secs(30)).unwrap().unwrap(), [row(101), row(102), row(103)]);
    // the same name that leads to another place: its marks mean nothing there, its readings still wait
    let moved = load_upstream(&store, &cloud, "b");
    assert!(moved.marks.is_empty() && moved.memory.is_empty());
    assert_eq!(moved.spool, kept.spool);
    assert_eq!(load_upstream(&store, &other, "").marks, [(slot("level"), Stamp(1))]);
    // an upstream that is no longer configured leaves nothing behind, and what that was is told
    let forget = |configured: &[&str]| {
        let (tell, told) = mpsc::channel();
        let configured = configured.iter().map(|name| (*name).to_owned()).collect();
        store.forget_upstreams(configured, move |forgotten| tell.send(forgotten).unwrap());
        told.recv_timeout(Duration::from_secs(30)).unwrap().unwrap()
    };
    assert_eq!(forget(&["other", "cloud", "new"]), []);
    let given_up = Forgotten { name: "cloud".to_owned(), marks: 0, readings: 500, gaps: 1 };
    assert_eq!(forget(&["other", "new"]), [given_up]);
    assert_eq!(load_upstream(&store, &cloud, "b"), KeptUpstream::default());
    assert_eq!(load_upstream(&store, &other, "").marks, [(slot("level"), Stamp(1))]);
}
