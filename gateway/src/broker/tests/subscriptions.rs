//! Subscriptions, retained messages, shared subscriptions.

use mappers::bus::Incoming;

use super::*;
use crate::broker::Own;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_8_4_filters_are_answered_one_by_one() {
    let stage = stage().await;
    for version in [4, 5] {
        let mut raw = Raw::new(stage.address, version, "r").await;
        let mut body = vec![0, 9];
        if version == 5 {
            body.push(0);
        }
        for (filter, options) in [("a/+/#", 2), ("a/#/b", 1), ("a+", 1), ("", 0), ("b", 1), ("$share/g/", 1)] {
            body.extend(text(filter));
            body.push(options);
        }
        raw.send(&packet(0x82, &body)).await;
        let wrong = if version == 5 { 0x8f } else { 0x80 };
        let (first, body) = raw.next().await.unwrap();
        assert_eq!((first, &body[body.len() - 6..]), (0x90, &[2, wrong, wrong, wrong, 1, wrong][..]));
        let mut body = vec![0, 9];
        if version == 5 {
            body.push(0);
        }
        body.extend(text("b"));
        body.extend(text("never/there"));
        raw.send(&packet(0xa2, &body)).await;
        let expected: &[u8] = if version == 5 { &[0, 9, 0, 0, 0x11] } else { &[0, 9] };
        raw.expect(0xb0, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_5_1_overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() {
    let stage = stage().await;
    let mut raw = Raw::new(stage.address, 5, "r").await;
    raw.subscribe_with(&[0x0b, 1], "a/#", 0).await;
    raw.subscribe_with(&[0x0b, 0x80, 1], "a/+", 2).await;
    raw.subscribe_with(&[0x0b, 3], "a/b", 1).await;
    raw.subscribe("+/b", 0).await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    writer.publish1(false, "a/b", "x").await;
    let got = raw.take().await;
    assert_eq!(got.qos, 1);
    let mut ids: Vec<&[u8]> = got.properties.split(|&byte| byte == 0x0b).filter(|id| !id.is_empty()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [&[1][..], &[3], &[0x80, 1]]);
    raw.silent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_4_7_2_1_wildcards_at_the_first_level_do_not_match_dollar_topics() {
    let stage = stage().await;
    let mut raw = Raw::new(stage.address, 4, "r").await;
    raw.subscribe("#", 2).await;
    raw.subscribe("+/events/#", 0).await;
    let mut hw = Raw::new(stage.address, 4, "hw").await;
    hw.subscribe("$hw/events/#", 1).await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    writer.publish1(true, "$hw/events/device/x", "dollar").await;
    assert_eq!(hw.take().await.payload, b"dollar");
    raw.silent().await;
    let mut figures = Raw::new(stage.address, 4, "figures").await;
    figures.subscribe("$SYS/broker/version", 0).await;
    let got = figures.message().await;
    assert!(got.retain && got.payload.starts_with(b"tidegate "));
    assert_eq!(Raw::new(stage.address, 5, "w5").await.publish1(true, "$SYS/broker/version", "mine").await, 0x87);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_may_be_of_any_script_and_any_length() {
    let stage = stage().await;
    let longest = "é/".repeat(21_845);
    assert_eq!(longest.len(), 65_535);
    for version in [4, 5] {
        let mut raw = Raw::new(stage.address, version, "r").await;
        raw.subscribe("#", 1).await;
        for topic in ["Ünï/日本/🦀", "é", "/", "//", " ", &longest] {
            let mut writer = Raw::new(stage.address, version, "w").await;
            assert_eq!(writer.publish1(false, topic, "x").await, 0);
            assert_eq!(raw.take().await.topic, topic);
        }
        assert_eq!(raw.subscribe(&longest, 0).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_1_retained_messages_are_kept_replaced_and_cleared() {
    let stage = stage().await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    for (topic, payload) in [("r/0", "old"), ("r/0", "new"), ("r/1", "one"), ("r/2", "two"), ("r/2", "")] {
        writer.publish1(true, topic, payload).await;
    }
    // without the retain flag an empty payload clears nothing
    writer.publish1(false, "r/1", "").await;
    for version in [4, 5] {
        let mut raw = Raw::new(stage.address, version, "r").await;
        for round in 0..2 {
            raw.subscribe("r/#", 2).await;
            let got: Vec<Got> = vec![raw.take().await, raw.take().await];
            let seen: Vec<_> =
                got.iter().map(|one| (one.topic.as_str(), &one.payload[..], one.qos, one.retain)).collect();
            assert_eq!(seen, [("r/0", &b"new"[..], 1, true), ("r/1", b"one", 1, true)], "round {round}");
            raw.silent().await;
        }
        writer.publish1(true, "r/0", "new").await;
        assert!(!raw.take().await.retain, "MQTT-3.3.1-12: an established subscription");
    }
    assert_eq!(stage.broker.stats().retained, 2 + 11, "the figures under $SYS are retained too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_1_9_to_13_retain_handling_retain_as_published_and_no_local() {
    let stage = stage().await;
    let mut writer = Raw::new(stage.address, 5, "w").await;
    writer.publish1(true, "k", "kept").await;
    for (handling, first, second) in [(0u8, true, true), (1, true, false), (2, false, false)] {
        let mut raw = Raw::new(stage.address, 5, "r").await;
        for expected in [first, second] {
            raw.subscribe("k", handling << 4).await;
            if expected {
                assert!(raw.message().await.retain);
            }
            raw.silent().await;
        }
    }
    let mut raw = Raw::new(stage.address, 5, "rap").await;
    raw.subscribe("p", 8).await;
    raw.publish_with(1, 0, &[], "p", "x").await;
    assert!(raw.message().await.retain, "MQTT-3.3.1-13");
    raw.subscribe("own", 4).await;
    raw.publish_with(0, 0, &[], "own", "mine").await;
    raw.silent().await;
    writer.publish_with(0, 0, &[], "own", "another's").await;
    assert_eq!(raw.message().await.payload, b"another's", "MQTT-3.8.3-3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_subscriber_gets_ten_thousand_retained_messages_however_slowly_it_reads() {
    const TOPICS: usize = 10_000;
    let limits = Limits { queue_bytes: 64 * 1024, ..Limits::default() };
    let stage = stage_with(Settings { limits, ..settings() }).await;
    for at in 0..TOPICS {
        stage.broker.publish(super::super::Own {
            topic: format!("t/{at:05}/v"),
            payload: vec![b'x'; 100].into(),
            qos: 1,
            retain: true,
            ..Default::default()
        });
    }
    for (version, qos) in [(4, 0), (5, 1)] {
        let mut raw = Raw::new(stage.address, version, "slow").await;
        raw.subscribe("#", qos).await;
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < TOPICS {
            if seen.len() % 1000 == 500 {
                // while it dawdles, others publish: one topic it may have had, one it may not
                tokio::time::sleep(Duration::from_millis(20)).await;
                for at in [0, TOPICS - 1] {
                    let topic = format!("t/{at:05}/v");
                    stage.broker.publish(super::super::Own {
                        topic,
                        payload: "y".into(),
                        retain: true,
                        ..Default::default()
                    });
                }
            }
            seen.insert(raw.take().await.topic);
        }
    }
    assert_eq!(stage.broker.stats().dropped.queue_full, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_4_8_2_shared_subscriptions_deal_out_to_those_who_are_there() {
    let stage = stage().await;
    let mut one = Raw::enter(stage.address, &Hello::keeping(5, "one")).await.0;
    let mut two = Raw::enter(stage.address, &Hello::keeping(4, "two")).await.0;
    let mut all = Raw::new(stage.address, 5, "all").await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    writer.publish1(true, "s/0", "retained").await;
    assert_eq!(one.subscribe("$share/g/s/#", 1).await, 1);
    assert_eq!(two.subscribe("$share/g/s/#", 1).await, 1);
    assert_eq!(all.subscribe("$share/other/s/#", 0).await, 0);
    one.silent().await;
    for at in 0..10 {
        writer.publish1(false, "s/1", &at.to_string()).await;
    }
    for _ in 0..5 {
        one.take().await;
        two.take().await;
    }
    for _ in 0..10 {
        all.message().await;
    }
    one.silent().await;
    // one reads but does not acknowledge, then goes: the other gets them
    for _ in 0..4 {
        writer.publish1(false, "s/1", "moved").await;
    }
    one.message().await;
    two.take().await;
    drop(one);
    for _ in 0..3 {
        assert_eq!(two.take().await.payload, b"moved");
    }
    writer.publish1(false, "s/1", "absent members are left out").await;
    two.take().await;
    two.silent().await;
    let mut one = Raw::enter(stage.address, &Hello::keeping(5, "one")).await.0;
    one.silent().await;
    // no local on a shared subscription is a protocol error
    one.send(&packet(0x82, &[&[0, 1, 0][..], &text("$share/g/x"), &[4]].concat())).await;
    assert_eq!(one.ends().await, 0x82, "MQTT-3.8.3-4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_10_4_after_unsubscribe_nothing_new_comes() {
    let stage = stage().await;
    let mut raw = Raw::new(stage.address, 4, "r").await;
    raw.subscribe("a/#", 0).await;
    raw.subscribe("a/b", 0).await;
    raw.send(&packet(0xa2, &[&[0, 1][..], &text("a/#")].concat())).await;
    raw.expect(0xb0, &[0, 1]).await;
    raw.publish_with(0, 0, &[], "a/c", "x").await;
    raw.silent().await;
    raw.publish_with(0, 0, &[], "a/b", "x").await;
    raw.message().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_the_gateway_hears_all_that_is_retained_before_it_begins() {
    let stage = stage().await;
    let say = |topic: String| {
        let payload = vec![b'x'; 200].into();
        stage.broker.publish(Own { topic, payload, qos: 1, retain: true, ..Own::default() });
    };
    // More than is taken at once, and so little that a marker would overtake it only now and then.
    for count in [3_000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] {
        (0..count).for_each(|at| say(format!("all/{at}")));
        let mut bus = stage.broker.attach("part", "admin");
        let filters = ["all/+".to_owned()];
        let heard = stage.broker.hear_all("part", &mut bus, "gateway/reply/part", &filters);
        let heard = timeout(SOON, heard).await.unwrap().unwrap();
        assert!(heard.len() >= count && heard.iter().all(|message| message.topic.starts_with("all/")));
        let said = "all/live".to_owned();
        stage.broker.publish(Own { topic: said.clone(), payload: "1".into(), ..Own::default() });
        assert!(
            matches!(timeout(SOON, bus.incoming.recv()).await, Ok(Some(Incoming::Message(live))) if live.topic == said)
        );
        drop(bus);
        tokio::time::sleep(Duration::from_millis(20)).await;
        (0..count).for_each(|at| {
            stage.broker.publish(Own { topic: format!("all/{at}"), qos: 1, retain: true, ..Own::default() })
        });
    }
}
