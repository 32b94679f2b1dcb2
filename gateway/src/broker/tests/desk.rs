//! The desk: requests to the gateway, topics that are its own, its voice, mappers inside.

use std::sync::Mutex;

use mappers::bus::{Incoming, Message, Outgoing};
use tokio::sync::oneshot;

use super::*;
use crate::broker::desk::{Claim, Request, Verdict};
use crate::broker::{Own, Word};

/// A desk that keeps requests until the test answers.
#[derive(Default)]
struct Tray(Mutex<Vec<Request>>);

impl Desk for Tray {
    fn claim(&self, topic: &str) -> Claim {
        match topic {
            "panic" => panic!("a fault for the test"),
            _ if topic.ends_with("/reported/set") => Claim::Mapper,
            _ if topic.ends_with("/set") => Claim::Taken,
            _ if topic.starts_with("twin/") => Claim::Reserved,
            _ => Claim::Free,
        }
    }

    fn take(&self, request: Request) {
        self.0.lock().unwrap().push(request);
    }
}

impl Tray {
    async fn next(&self) -> Request {
        for _ in 0..500 {
            if let Some(request) = self.0.lock().unwrap().pop() {
                return request;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no request came");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_acknowledged_when_the_desk_has_answered() {
    let desk = Arc::new(Tray::default());
    let stage = stage_of(desk.clone()).await;
    let mut reader = Raw::new(stage.address, 4, "r").await;
    reader.subscribe("#", 0).await;
    for version in [4, 5] {
        let mut raw = Raw::new(stage.address, version, "app").await;
        let mut properties = vec![8];
        properties.extend(text("answer/here"));
        properties.extend([9, 0, 1, 7]);
        raw.publish_with(2, 1, &properties, "twin/d/desired/set", "{}").await;
        raw.silent().await;
        let request = desk.next().await;
        assert_eq!((request.author.client.as_str(), &request.payload[..], request.qos), ("app", &b"{}"[..], 1));
        if version == 5 {
            assert_eq!(request.response_topic.as_deref(), Some("answer/here"));
            assert_eq!(request.correlation.as_deref(), Some(&[7][..]));
        }
        request.answer.give(Verdict::Accepted);
        raw.expect(0x40, &[0, 1]).await;

        raw.publish_with(4, 2, &[], "twin/d/desired/set", "{}").await;
        raw.silent().await;
        // the same again while the desk is at it: still one request
        raw.publish_with(0x0c, 2, &[], "twin/d/desired/set", "{}").await;
        raw.send(&packet(0xc0, &[])).await;
        raw.expect(0xd0, &[]).await;
        let request = desk.next().await;
        request.answer.give(Verdict::Refused { reason: 0x99, text: "not so".to_owned() });
        let (first, body) = raw.next().await.unwrap();
        if version == 5 {
            assert_eq!((first, &body[..3], &body[7..]), (0x50, &[0, 2, 0x99][..], &b"not so"[..]));
        } else {
            assert_eq!((first, &body[..]), (0x50, &[0, 2][..]));
        }
        assert!(desk.0.lock().unwrap().is_empty());
        // a desk that drops a request has a fault: never an acknowledgement for nothing
        raw.publish_with(2, 3, &[], "twin/d/desired/set", "{}").await;
        drop(desk.next().await);
        if version == 5 {
            let (first, body) = raw.next().await.unwrap();
            assert_eq!((first, &body[..3]), (0x40, &[0, 3, 0x80][..]));
        } else {
            assert_eq!(raw.ends().await, 0);
        }
    }
    assert_eq!(stage.broker.stats().faults, 2);
    reader.silent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_the_gateway_are_refused_to_everybody_else() {
    let stage = stage_of(Arc::new(Tray::default())).await;
    let mut reader = Raw::new(stage.address, 4, "r").await;
    reader.subscribe("#", 0).await;
    let mut five = Raw::new(stage.address, 5, "five").await;
    five.publish_with(3, 1, &[], "twin/d/reported/p", "x").await;
    let (first, body) = five.next().await.unwrap();
    assert_eq!((first, &body[..3], body[4]), (0x40, &[0, 1, 0x87][..], 0x1f));
    five.publish_with(4, 2, &[], "twin/d", "x").await;
    let (first, body) = five.next().await.unwrap();
    assert_eq!((first, &body[..3]), (0x50, &[0, 2, 0x87][..]));
    five.publish_with(0, 0, &[], "twin/d", "x").await;
    let mut four = Raw::new(stage.address, 4, "four").await;
    assert_eq!(four.publish1(true, "twin/d", "x").await, 0);
    four.publish_with(4, 2, &[], "twin/d", "x").await;
    four.expect(0x50, &[0, 2]).await;
    four.send(&packet(0x62, &[0, 2])).await;
    four.expect(0x70, &[0, 2]).await;
    assert_eq!(stage.broker.stats().refused_publishes, 5);
    reader.silent().await;
    let hello = Hello { will: Some(("twin/d/status", "x", 0, false, &[])), ..Hello::new(5, "w") };
    assert_eq!(Raw::try_enter(stage.address, &hello).await.1.unwrap().1[1], 0x87);
    stage.broker.publish(Own {
        topic: "twin/d".to_owned(),
        payload: "own".into(),
        correlation: Some("c".into()),
        user_properties: vec![("k".to_owned(), "v".to_owned())],
        ..Own::default()
    });
    assert_eq!(reader.message().await.payload, b"own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_in_handling_one_client_is_counted_and_touches_no_other() {
    let stage = stage_of(Arc::new(Tray::default())).await;
    let mut other = Raw::new(stage.address, 4, "other").await;
    other.subscribe("t", 1).await;
    for _ in 0..3 {
        let hello = Hello { will: Some(("t", "fallen", 0, false, &[])), ..Hello::new(5, "fallen") };
        let mut raw = Raw::enter(stage.address, &hello).await.0;
        raw.publish_with(2, 1, &[], "panic", "x").await;
        raw.ends().await;
        assert_eq!(other.message().await.payload, b"fallen");
    }
    assert_eq!(stage.broker.stats().faults, 3);
    assert_eq!(stage.broker.stats().clients, 1);
    // a fault inside the engine itself: its tables are made anew, and go on working
    stage.broker.shared.act(|_, _| panic!("a fault for the test"));
    other.publish_with(0, 0, &[], "t", "still").await;
    assert_eq!(other.message().await.payload, b"still");
    other.subscribe("u", 0).await;
    other.publish_with(0, 0, &[], "u", "going").await;
    assert_eq!(other.message().await.payload, b"going");
    assert_eq!(stage.broker.stats().faults, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapper_inside_the_gateway_speaks_and_hears_like_any_other() {
    async fn message(bus: &mut mappers::bus::Bus) -> Message {
        match timeout(SOON, bus.incoming.recv()).await.unwrap().unwrap() {
            Incoming::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }
    let desk = Arc::new(Tray::default());
    let stage = stage_of(desk.clone()).await;
    for at in 0..3000 {
        stage.broker.publish(Own {
            topic: format!("twin/{at}"),
            payload: "doc".into(),
            retain: true,
            ..Own::default()
        });
    }
    let mut bus = stage.broker.attach("mapper-1", "mapper");
    assert_eq!(timeout(SOON, bus.incoming.recv()).await.unwrap(), Some(Incoming::Up));
    bus.out.send(Outgoing::Subscribe("twin/#".to_owned())).await.unwrap();
    for _ in 0..3000 {
        assert!(message(&mut bus).await.retain);
    }
    let mut app = Raw::new(stage.address, 5, "app").await;
    app.subscribe("twin/+/reported/set", 0).await;
    let reading = |topic: &str| Message { topic: topic.to_owned(), payload: "{}".into(), ..Message::default() };
    let (answer, answered) = oneshot::channel();
    bus.out.send(Outgoing::PublishAcknowledged(reading("twin/d/reported/set"), answer)).await.unwrap();
    let request = desk.next().await;
    assert_eq!((request.author.client.as_str(), request.author.role.as_str()), ("mapper-1", "mapper"));
    request.answer.give(Verdict::Accepted);
    assert!(answered.await.unwrap());
    for (topic, expected) in [("twin/d/reported/p", false), ("elsewhere", false), ("gateway/x", true)] {
        let (answer, answered) = oneshot::channel();
        bus.out.send(Outgoing::PublishAcknowledged(reading(topic), answer)).await.unwrap();
        assert_eq!(answered.await.unwrap(), expected, "{topic}");
    }
    stage.broker.publish(Own {
        topic: "twin/d/delta".to_owned(),
        payload: "now".into(),
        response_topic: Some("back".to_owned()),
        correlation: Some("7".into()),
        qos: 1,
        ..Own::default()
    });
    let got = message(&mut bus).await;
    assert_eq!((got.response_topic.as_deref(), got.correlation.as_deref()), (Some("back"), Some(&b"7"[..])));
    bus.out.send(Outgoing::Unsubscribe("twin/#".to_owned())).await.unwrap();
    drop(app);
    stage.broker.shutdown().await;
    assert_eq!(timeout(SOON, bus.incoming.recv()).await.unwrap(), Some(Incoming::Down));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapper_inside_the_gateway_is_not_taken_over_from_outside() {
    let stage = stage().await;
    let mut bus = stage.broker.attach("mapper-1", "admin");
    assert_eq!(timeout(SOON, bus.incoming.recv()).await.unwrap(), Some(Incoming::Up));
    for (version, clean) in [(4, true), (5, true), (5, false)] {
        let hello = Hello { clean, ..Hello::new(version, "mapper-1") };
        let answer = Raw::try_enter(stage.address, &hello).await.1.unwrap();
        assert_ne!(answer.1[1], 0, "let in: {answer:?}");
    }
    bus.out.send(Outgoing::Subscribe("t".to_owned())).await.unwrap();
    let mut other = Raw::new(stage.address, 4, "other").await;
    other.publish_with(0, 0, &[], "t", "still here").await;
    let Some(Incoming::Message(message)) = timeout(SOON, bus.incoming.recv()).await.unwrap() else { panic!() };
    assert_eq!(&message.payload[..], b"still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_said_together_arrive_in_their_order_and_stay_where_they_are_retained() {
    let stage = stage().await;
    let mut reader = Raw::new(stage.address, 5, "r").await;
    reader.subscribe("twin/#", 0).await;
    let count = 700;
    let mut words: Vec<Word> = (0..count)
        .map(|at| Word::new(&["twin/d", &(at / 20).to_string(), "/reported/p", &at.to_string()], b"one", true))
        .collect();
    words.push(Word::new(&["twin/d0/event"], b"gone", false));
    words.push(Word::new(&["twin/d0/reported/p0"], b"two", true));
    words.push(Word::new(&["twin/d0/reported/p1"], b"", true));
    let mut answer = Word::new(&["twin/d0/result"], b"answer", false);
    answer.correlation = Some("c".into());
    words.push(answer);
    stage.broker.publish_all(words);
    for at in 0..count {
        let got = reader.message().await;
        assert_eq!((got.topic, &got.payload[..]), (format!("twin/d{}/reported/p{at}", at / 20), &b"one"[..]));
    }
    let mut last = Vec::new();
    for _ in 0..4 {
        last.push(reader.message().await);
    }
    let said: Vec<(&str, &[u8])> = last.iter().map(|got| (got.topic.as_str(), &got.payload[..])).collect();
    let expected: [(&str, &[u8]); 4] = [
        ("twin/d0/event", b"gone"),
        ("twin/d0/reported/p0", b"two"),
        ("twin/d0/reported/p1", b""),
        ("twin/d0/result", b"answer"),
    ];
    assert_eq!(said, expected);
    assert_eq!(last[3].properties, [&[0x09][..], &text("c")].concat());
    // A fault in the engine forgets nothing that is retained.
    stage.broker.shared.act(|_, _| panic!("a fault for the test"));
    let mut late = Raw::new(stage.address, 4, "late").await;
    late.subscribe("twin/+/reported/#", 0).await;
    let mut found = std::collections::BTreeMap::new();
    for _ in 0..count - 1 {
        let got = late.message().await;
        assert!(got.retain);
        found.insert(got.topic, got.payload);
    }
    late.silent().await;
    assert_eq!((found.len(), &found["twin/d0/reported/p0"][..]), (count - 1, &b"two"[..]));
    assert!(!found.contains_key("twin/d0/reported/p1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapper_that_did_not_hear_for_long_finds_the_last_word_on_every_topic() {
    let limits = Limits { queue_bytes: 16 * 1024, ..Limits::default() };
    let stage = stage_with(Settings { limits, ..settings() }).await;
    let mut bus = stage.broker.attach("mapper-1", "admin");
    for topic in 0..60 {
        bus.out.send(Outgoing::Subscribe(format!("d/{topic}/delta"))).await.unwrap();
        if topic % 10 == 9 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for _ in 0..400 {
        if stage.broker.stats().subscriptions == 60 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stage.broker.stats().subscriptions, 60);
    // One word on each of the first forty, then a flood on the others: the first are the ones that are given up.
    let say = |topic: usize, number: usize| {
        let payload = number.to_string();
        stage.broker.publish_all(vec![Word::new(&["d/", &topic.to_string(), "/delta"], payload.as_bytes(), true)]);
    };
    (40..60).cycle().take(mappers::bus::QUEUE_MESSAGES + 50).enumerate().for_each(|(number, topic)| say(topic, number));
    tokio::time::sleep(Duration::from_millis(50)).await;
    (0..40).for_each(|topic| say(topic, 1));
    (40..60).cycle().take(2_000).enumerate().for_each(|(number, topic)| say(topic, 5_000 + number));
    assert!(stage.broker.stats().dropped.queue_full > 500, "{:?}", stage.broker.stats().dropped);
    let mut last = std::collections::BTreeMap::new();
    while let Ok(Some(incoming)) = timeout(SILENCE, bus.incoming.recv()).await {
        if let Incoming::Message(message) = incoming {
            last.insert(message.topic, String::from_utf8(message.payload.to_vec()).unwrap());
        }
    }
    for topic in 0..60 {
        let expected = if topic < 40 { 1 } else { 5_000 + 2_000 - 20 + (topic - 40) };
        assert_eq!(last.get(&format!("d/{topic}/delta")), Some(&expected.to_string()), "{topic}");
    }
}
