//! Wills and their delay: MQTT 5, 3.1.2.5 and 3.1.3.2.2, by numbered statement.

use std::time::Instant;

use super::*;
use crate::broker::shelf::{Inventory, KeptSession};

/// Will Delay Interval: 1 s, an hour.
const ONE_SECOND: &[u8] = &[0x18, 0, 0, 0, 1];
const ONE_HOUR: &[u8] = &[0x18, 0, 0, 0x0e, 0x10];
/// Session Expiry Interval: none, 1 s, a minute.
const NO_SESSION: &[u8] = &[];
const SHORT_SESSION: &[u8] = &[0x11, 0, 0, 0, 1];
const SESSION: &[u8] = &[0x11, 0, 0, 0, 60];
/// From one look of the broker at what is due to the next, with room for a busy machine.
const LATE: Duration = Duration::from_millis(1500);

fn hello<'a>(delay: &'a [u8], session: &'a [u8]) -> Hello<'a> {
    Hello { will: Some(("will", "last", 1, false, delay)), clean: false, properties: session, ..Hello::new(5, "w") }
}

async fn reader(stage: &Stage) -> Raw {
    let mut reader = Raw::new(stage.address, 4, "r").await;
    reader.subscribe("will", 0).await;
    reader
}

/// The will comes, not before `earliest`.
async fn said(reader: &mut Raw, since: Instant, earliest: Duration) {
    assert_eq!(reader.message().await.payload, b"last");
    let took = since.elapsed();
    assert!(took >= earliest && took < earliest + LATE, "{took:?}, not {earliest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_8_a_will_is_published_when_its_delay_has_passed_or_its_session_has_ended() {
    for (case, delay, session, earliest) in [
        ("no delay", &[][..], SESSION, 0),
        ("the delay", ONE_SECOND, SESSION, 950),
        ("the session ends at once", ONE_HOUR, NO_SESSION, 0),
        ("the session ends before the delay", ONE_HOUR, SHORT_SESSION, 950),
    ] {
        let stage = stage().await;
        let mut reader = reader(&stage).await;
        let gone = Raw::enter(stage.address, &hello(delay, session)).await.0;
        reader.silent().await;
        let since = Instant::now();
        drop(gone);
        println!("{case}");
        said(&mut reader, since, Duration::from_millis(earliest)).await;
        reader.silent().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_3_9_a_connection_before_the_delay_has_passed_keeps_the_will_unsaid() {
    let stage = stage().await;
    let mut reader = reader(&stage).await;
    drop(Raw::enter(stage.address, &hello(ONE_SECOND, SESSION)).await);
    reader.silent().await;
    let (mut back, present) = Raw::enter(stage.address, &hello(ONE_SECOND, SESSION)).await;
    assert!(present);
    // A second connection takes it over: that, too, is one before the delay has passed.
    let (taker, _) = Raw::enter(stage.address, &hello(ONE_SECOND, SESSION)).await;
    assert_eq!(back.ends().await, 0x8e);
    tokio::time::sleep(Duration::from_millis(1400)).await;
    reader.silent().await;
    // The will of the connection that is there now is as good as the first one was.
    let since = Instant::now();
    drop(taker);
    said(&mut reader, since, Duration::from_millis(950)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_10_a_will_that_was_said_is_gone() {
    let stage = stage().await;
    let mut reader = reader(&stage).await;
    let since = Instant::now();
    drop(Raw::enter(stage.address, &hello(ONE_SECOND, SESSION)).await);
    said(&mut reader, since, Duration::from_millis(950)).await;
    // Neither the end of the session nor one without a will brings it again.
    let silent = Hello { will: None, ..hello(&[], SESSION) };
    drop(Raw::enter(stage.address, &silent).await);
    drop(Raw::enter(stage.address, &Hello { clean: true, ..silent }).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    reader.silent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_14_4_3_goodbye_discards_a_will_and_reason_4_asks_for_it_after_its_delay() {
    let stage = stage().await;
    let mut reader = reader(&stage).await;
    Raw::enter(stage.address, &hello(ONE_SECOND, SESSION)).await.0.leave().await;
    tokio::time::sleep(Duration::from_millis(1400)).await;
    reader.silent().await;
    let mut asking = Raw::enter(stage.address, &hello(ONE_SECOND, SESSION)).await.0;
    let since = Instant::now();
    asking.send(&packet(0xe0, &[4])).await;
    said(&mut reader, since, Duration::from_millis(950)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_4_4_a_clean_start_ends_the_session_and_its_delayed_will_is_said() {
    let stage = stage().await;
    let mut reader = reader(&stage).await;
    // absent, and still connected
    for connected in [false, true] {
        let (old, _) = Raw::enter(stage.address, &hello(ONE_HOUR, SESSION)).await;
        let kept = connected.then_some(old);
        reader.silent().await;
        let since = Instant::now();
        let clean = Hello { clean: true, will: None, ..hello(&[], SESSION) };
        let (new, present) = Raw::enter(stage.address, &clean).await;
        assert!(!present);
        said(&mut reader, since, Duration::ZERO).await;
        drop(kept);
        new.leave().await;
    }
    reader.silent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_will_outlives_the_broker_and_keeps_its_time() {
    let properties = [&[0x18, 0, 0, 0, 2][..], &[0x02, 0, 0, 0, 9]].concat();
    let shelf = Arc::new(Memory::default());
    let first = stage_on(shelf.clone()).await;
    let since = Instant::now();
    let hello = hello(&properties, SESSION);
    drop(Raw::enter(first.address, &hello).await);
    let kept = |shelf: &Memory| shelf.load().unwrap().sessions.into_iter().find_map(|session| session.will);
    for _ in 0..200 {
        if kept(&shelf).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What the shelf holds now is what `kill -9` leaves behind: the first broker is never asked to stop.
    let mut left = shelf.load().unwrap();
    let copy = Arc::new(Memory::of(left.clone()));
    let again = stage_on(copy.clone()).await;
    let mut reader = reader(&again).await;
    assert_eq!(reader.message().await.payload, b"last");
    assert!(since.elapsed() >= Duration::from_millis(1950), "{:?}", since.elapsed());
    assert_eq!(kept(&copy), None, "said once");

    // A client that is back in time takes it along.
    if let Some(will) = left.sessions.iter_mut().find_map(|session| session.will.as_mut()) {
        will.due_ms += 1_000;
    }
    let shelf = Arc::new(Memory::of(left));
    let third = stage_on(shelf.clone()).await;
    let (back, present) = Raw::enter(third.address, &Hello { will: None, ..hello }).await;
    assert!(present);
    assert_eq!(kept(&shelf), None, "taken back");
    back.leave().await;
    third.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_will_of_one_that_may_no_longer_publish_is_not_said() {
    let session = KeptSession {
        client: "w".to_owned(),
        user: Some("gone".to_owned()),
        expiry_s: 60,
        absent_since_ms: Some(1),
        ..KeptSession::default()
    };
    let message = crate::broker::shelf::Kept {
        topic: "will".to_owned(),
        payload: "last".into(),
        qos: 0,
        retain: false,
        properties: bytes::Bytes::new(),
        subscription_ids: Vec::new(),
        expires_ms: None,
        at_ms: 0,
    };
    let now_ms = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let will = crate::broker::shelf::KeptWill { message, due_ms: 0, expiry_s: None };
    for (users, said) in [(Some(protocols::config::users::Users::default()), false), (None, true)] {
        let will = crate::broker::shelf::KeptWill { due_ms: now_ms() + 500, ..will.clone() };
        let sessions = vec![KeptSession { will: Some(will), expiry_s: u32::MAX, ..session.clone() }];
        let shelf = Arc::new(Memory::of(Inventory { retained: Vec::new(), sessions }));
        let broker = Broker::bind(Settings { shelf, users, anonymous: Anonymous::Always, ..settings() }).await.unwrap();
        let mut bus = broker.attach("ear", "admin");
        bus.out.send(mappers::bus::Outgoing::Subscribe("will".to_owned())).await.unwrap();
        let heard = async {
            loop {
                if let Some(mappers::bus::Incoming::Message(message)) = bus.incoming.recv().await {
                    return message.topic;
                }
            }
        };
        assert_eq!(timeout(Duration::from_millis(1_600), heard).await.is_ok(), said);
    }
}
