//! Numbered statements of MQTT 5 (and of 3.1.1 where it says the same): connections and the flow of messages.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_0_connect_comes_first_and_once() {
    let stage = stage().await;
    for first in [packet(0xc0, &[]), packet(0x30, b"\0\x01ax"), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 40]] {
        let mut raw = Raw::open(stage.address, 4).await;
        raw.send(&first).await;
        assert_eq!(raw.next().await, None, "{first:?}");
    }
    for version in [4, 5] {
        let mut raw = Raw::new(stage.address, version, "twice").await;
        raw.send(&Hello::new(version, "twice").bytes()).await;
        assert_eq!(raw.ends().await, if version == 5 { 0x82 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_other_versions_are_told_so() {
    let stage = stage().await;
    for (body, answer) in [
        (&b"\0\x06MQIsdp\x03\x02\0\0\0\x01a"[..], &[0, 1][..]),
        (b"\0\x04MQTT\x03\x02\0\0\0\x01a", &[0, 1]),
        (b"\0\x04MQTT\x07\x02\0\0\0\x01a", &[0, 0x84]),
    ] {
        let mut raw = Raw::open(stage.address, 4).await;
        raw.send(&packet(0x10, body)).await;
        let (first, got) = raw.next().await.unwrap();
        assert_eq!((first, &got[..2]), (0x20, answer));
        assert_eq!(raw.next().await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_3_client_ids_may_be_empty_strange_or_assigned() {
    let stage = stage().await;
    let (_, answer) = Raw::try_enter(stage.address, &Hello { clean: false, ..Hello::new(4, "") }).await;
    assert_eq!(answer, Some((0x20, vec![0, 2])), "MQTT-3.1.3-8");
    Raw::new(stage.address, 4, "").await;
    Raw::new(stage.address, 4, "with/slash +# and é").await;
    let (_, answer) = Raw::try_enter(stage.address, &Hello::new(5, "")).await;
    let body = answer.unwrap().1;
    assert!(body.windows(8).any(|part| part[0] == 0x12 && &part[3..] == b"auto-"), "MQTT-3.2.2-16: {body:?}");
    let long = "x".repeat(300);
    let (_, answer) = Raw::try_enter(stage.address, &Hello::new(5, &long)).await;
    assert_eq!(answer.unwrap().1[1], 0x85);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_4_3_a_second_connection_takes_the_session_over() {
    let stage = stage().await;
    for (version, reason) in [(4, 0), (5, 0x8e)] {
        let mut first = Raw::enter(stage.address, &Hello::keeping(version, "me")).await.0;
        first.subscribe("t", 1).await;
        let (mut second, present) = Raw::enter(stage.address, &Hello::keeping(version, "me")).await;
        assert!(present);
        assert_eq!(first.ends().await, reason);
        second.publish_with(0, 0, &[], "t", "hello").await;
        assert_eq!(second.message().await.payload, b"hello");
        assert_eq!(stage.broker.stats().clients, 1);
        second.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_22_silence_ends_at_one_and_a_half_keep_alives() {
    let stage = stage().await;
    let mut dead = Raw::enter(stage.address, &Hello { keep_alive: 1, ..Hello::new(5, "dead") }).await.0;
    let mut alive = Raw::enter(stage.address, &Hello { keep_alive: 1, ..Hello::new(4, "alive") }).await.0;
    let mut free = Raw::enter(stage.address, &Hello::new(4, "free")).await.0;
    let start = std::time::Instant::now();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        alive.send(&packet(0xc0, &[])).await;
        alive.expect(0xd0, &[]).await;
    }
    assert_eq!(dead.ends().await, 0x8d);
    assert!(start.elapsed() >= Duration::from_millis(1500));
    free.send(&packet(0xc0, &[])).await;
    free.expect(0xd0, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_24_a_larger_packet_than_allowed_ends_the_connection_before_it_is_stored() {
    let limits = Limits { packet_bytes: 1000, ..Limits::default() };
    let stage = stage_with(Settings { limits, ..settings() }).await;
    let mut raw = Raw::new(stage.address, 5, "big").await;
    // the head alone: 256 MB are announced
    raw.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(raw.ends().await, 0x95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_25_a_client_gets_no_larger_packet_than_it_takes() {
    let stage = stage().await;
    let hello = Hello { properties: &[0x27, 0, 0, 0, 64], ..Hello::new(5, "small") };
    let mut raw = Raw::enter(stage.address, &hello).await.0;
    raw.subscribe("t", 1).await;
    let mut writer = Raw::new(stage.address, 5, "w").await;
    for size in [10, 100, 20] {
        assert_eq!(writer.publish1(false, "t", &"x".repeat(size)).await, 0);
    }
    assert_eq!(raw.take().await.payload.len(), 10);
    assert_eq!(raw.take().await.payload.len(), 20);
    assert_eq!(stage.broker.stats().dropped.too_large, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_8_wills_are_published_unless_the_client_says_goodbye() {
    let stage = stage().await;
    let mut reader = Raw::new(stage.address, 4, "r").await;
    reader.subscribe("will/#", 1).await;
    for version in [4, 5] {
        let hello = Hello { will: Some(("will/a", "gone", 1, true, &[])), ..Hello::new(version, "w") };
        Raw::enter(stage.address, &hello).await.0.leave().await;
        let (mut broken, _) = Raw::enter(stage.address, &hello).await;
        reader.silent().await;
        broken.send(&packet(0x10, &[])).await;
        let got = reader.take().await;
        assert_eq!((got.topic.as_str(), &got.payload[..], got.qos), ("will/a", &b"gone"[..], 1));
    }
    let hello = Hello { will: Some(("will/b", "asked for", 0, false, &[])), ..Hello::new(5, "w") };
    let mut asking = Raw::enter(stage.address, &hello).await.0;
    asking.send(&packet(0xe0, &[4])).await;
    assert_eq!(reader.message().await.payload, b"asked for", "DISCONNECT with reason 0x04");
    let mut late = Raw::new(stage.address, 4, "late").await;
    late.subscribe("will/a", 0).await;
    assert!(late.message().await.retain, "MQTT-3.1.2-17");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_5_sessions_end_with_their_expiry_and_not_before() {
    let stage = stage().await;
    let hello = Hello { clean: false, properties: &[0x11, 0, 0, 0, 1], ..Hello::new(5, "s") };
    let mut raw = Raw::enter(stage.address, &hello).await.0;
    raw.subscribe("t", 1).await;
    raw.leave().await;
    let (raw, present) = Raw::enter(stage.address, &hello).await;
    assert!(present);
    raw.leave().await;
    tokio::time::sleep(Duration::from_millis(1600)).await;
    let (mut raw, present) = Raw::enter(stage.address, &hello).await;
    assert!(!present, "MQTT-3.1.2-23");
    // at the end a session may be given another life, but none may be given one
    raw.send(&packet(0xe0, &[0, 5, 0x11, 0, 0, 0, 60])).await;
    raw.ends().await;
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert!(Raw::enter(stage.address, &hello).await.1);
    let mut fleeting = Raw::new(stage.address, 5, "f").await;
    fleeting.send(&packet(0xe0, &[0, 5, 0x11, 0, 0, 0, 60])).await;
    assert_eq!(fleeting.ends().await, 0x82, "MQTT-3.14.2-2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_4_3_each_qos_has_its_flow_and_delivery_has_the_smaller_one() {
    let stage = stage().await;
    for version in [4, 5] {
        let mut raw = Raw::new(stage.address, version, "both").await;
        for subscribed in 0..=2 {
            assert_eq!(raw.subscribe("q", subscribed).await, subscribed);
            for published in 0..=2u8 {
                raw.publish_with(published << 1, 9, &[], "q", "x").await;
                let mut got = None;
                let mut open = 1 + [0, 1, 2][usize::from(published)];
                while open > 0 {
                    let (first, body) = raw.next().await.unwrap();
                    match first >> 4 {
                        3 => got = Some(raw.parse(first, &body)),
                        4 | 7 => assert_eq!(body, [0, 9]),
                        5 => {
                            assert_eq!(body, [0, 9]);
                            raw.send(&packet(0x62, &body)).await;
                        }
                        other => panic!("{other}"),
                    }
                    open -= 1;
                }
                let got = got.unwrap();
                assert_eq!(got.qos, published.min(subscribed), "{version}: {published} to {subscribed}");
                match got.qos {
                    1 => raw.send(&packet(0x40, &got.id.to_be_bytes())).await,
                    2 => {
                        raw.send(&packet(0x50, &got.id.to_be_bytes())).await;
                        raw.expect(0x62, &got.id.to_be_bytes()).await;
                        raw.send(&packet(0x70, &got.id.to_be_bytes())).await;
                    }
                    _ => {}
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_4_3_3_10_a_qos_2_publish_is_routed_once_however_often_it_comes() {
    let stage = stage().await;
    let mut reader = Raw::new(stage.address, 4, "r").await;
    reader.subscribe("t", 0).await;
    for version in [4, 5] {
        let hello = Hello::keeping(version, "w");
        let mut writer = Raw::enter(stage.address, &hello).await.0;
        writer.publish_with(4, 5, &[], "t", "once").await;
        writer.expect(0x50, &[0, 5]).await;
        writer.publish_with(0x0c, 5, &[], "t", "once").await;
        writer.expect(0x50, &[0, 5]).await;
        drop(writer);
        let mut writer = Raw::enter(stage.address, &hello).await.0;
        writer.publish_with(0x0c, 5, &[], "t", "once").await;
        writer.expect(0x50, &[0, 5]).await;
        writer.send(&packet(0x62, &[0, 5])).await;
        writer.expect(0x70, &[0, 5]).await;
        // released twice: the second is answered too, or the client would never go on
        writer.send(&packet(0x62, &[0, 5])).await;
        let (first, body) = writer.next().await.unwrap();
        assert_eq!((first, body.get(2).copied()), (0x70, (version == 5).then_some(0x92)));
        writer.publish_with(4, 5, &[], "t", "again").await;
        writer.expect(0x50, &[0, 5]).await;
        assert_eq!(reader.message().await.payload, b"once");
        assert_eq!(reader.message().await.payload, b"again");
        writer.send(&packet(0x62, &[0, 5])).await;
        writer.expect(0x70, &[0, 5]).await;
        reader.silent().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_4_4_0_1_what_was_not_acknowledged_comes_again_in_order_with_its_identifier() {
    let stage = stage().await;
    let hello = Hello::keeping(4, "r");
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    reader.subscribe("t/#", 2).await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    for at in 0..6 {
        writer.publish1(false, "t/1", &at.to_string()).await;
    }
    writer.publish_with(4, 8, &[], "t/2", "two").await;
    writer.expect(0x50, &[0, 8]).await;
    writer.send(&packet(0x62, &[0, 8])).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        let got = reader.message().await;
        assert!(!got.dup);
        ids.push(got.id);
    }
    reader.send(&packet(0x40, &ids[2].to_be_bytes())).await;
    // QoS 2 up to PUBREC: what follows is the PUBREL
    reader.send(&packet(0x50, &ids[6].to_be_bytes())).await;
    reader.expect(0x62, &ids[6].to_be_bytes()).await;
    drop(reader);
    let (mut reader, present) = Raw::enter(stage.address, &hello).await;
    assert!(present);
    for at in [0, 1, 3, 4, 5] {
        let got = reader.message().await;
        assert_eq!((got.dup, got.id, got.payload), (true, ids[at], at.to_string().into_bytes()));
    }
    reader.expect(0x62, &ids[6].to_be_bytes()).await;
    // answers in any order, twice, and to nothing: nobody minds
    for id in [ids[5], ids[0], ids[0], 4242, ids[1], ids[4], ids[3]] {
        reader.send(&packet(0x40, &id.to_be_bytes())).await;
    }
    reader.send(&packet(0x70, &ids[6].to_be_bytes())).await;
    reader.send(&packet(0xc0, &[])).await;
    reader.expect(0xd0, &[]).await;
    drop(reader);
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    reader.silent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_4_9_no_more_are_on_their_way_than_the_client_s_receive_maximum() {
    let stage = stage().await;
    let hello = Hello { properties: &[0x21, 0, 3], ..Hello::new(5, "r") };
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    reader.subscribe("t", 1).await;
    let mut writer = Raw::new(stage.address, 5, "w").await;
    for at in 0..10 {
        writer.publish1(false, "t", &at.to_string()).await;
    }
    writer.publish_with(0, 0, &[], "t", "qos 0").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(reader.message().await.id);
    }
    assert_eq!(reader.message().await.payload, b"qos 0", "QoS 0 is not held back by it");
    reader.silent().await;
    for at in 3..10 {
        reader.send(&packet(0x40, &ids.remove(0).to_be_bytes())).await;
        let got = reader.message().await;
        assert_eq!(got.payload, at.to_string().as_bytes());
        ids.push(got.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_4_7_more_than_our_receive_maximum_ends_the_connection() {
    let stage = stage().await;
    let mut writer = Raw::new(stage.address, 5, "w").await;
    for id in 1..=1025 {
        writer.publish_with(4, id, &[], "t", "x").await;
    }
    assert_eq!(writer.ends().await, 0x93);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_2_3_topic_aliases_work_both_ways() {
    let stage = stage().await;
    let hello = Hello { properties: &[0x22, 0, 1], ..Hello::new(5, "r") };
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    reader.subscribe("#", 0).await;
    let mut writer = Raw::new(stage.address, 5, "w").await;
    writer.publish_with(0, 0, &[0x23, 0, 7], "long/topic", "1").await;
    writer.publish_with(0, 0, &[0x23, 0, 7], "", "2").await;
    writer.publish_with(0, 0, &[], "other", "3").await;
    let first = reader.message().await;
    assert_eq!((first.topic.as_str(), &first.properties[..]), ("long/topic", &[0x23, 0, 1][..]));
    let second = reader.message().await;
    assert_eq!(
        (second.topic.as_str(), &second.payload[..], &second.properties[..]),
        ("", &b"2"[..], &[0x23, 0, 1][..])
    );
    assert_eq!(reader.message().await.properties, [0u8; 0], "there is no second alias");
    for (alias, topic, reason) in [(33, "a", 0x94), (9, "", 0x82), (0, "a", 0x94)] {
        let mut wrong = Raw::new(stage.address, 5, "wrong").await;
        wrong.publish_with(0, 0, &[0x23, 0, alias], topic, "x").await;
        assert_eq!(wrong.ends().await, reason, "alias {alias}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_2_5_messages_expire_and_say_what_is_left() {
    let stage = stage().await;
    let hello = Hello::keeping(5, "r");
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    reader.subscribe("t", 1).await;
    reader.leave().await;
    let mut writer = Raw::new(stage.address, 5, "w").await;
    for (life, payload) in [(1, "short"), (60, "long")] {
        writer.publish_with(3, 1, &[2, 0, 0, 0, life], "t", payload).await;
        writer.expect(0x40, &[0, 1]).await;
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    let got = reader.take().await;
    assert_eq!(got.payload, b"long");
    assert_eq!(got.properties[..4], [2, 0, 0, 0]);
    assert!((57..60).contains(&got.properties[4]), "MQTT-3.3.2-6: {:?}", got.properties);
    writer.publish_with(1, 0, &[2, 0, 0, 0, 1], "kept", "x").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut late = Raw::new(stage.address, 5, "late").await;
    late.subscribe("kept", 0).await;
    late.silent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_reach_version_5_unchanged_and_are_left_out_for_3_1_1() {
    let stage = stage().await;
    let mut five = Raw::new(stage.address, 5, "five").await;
    let mut four = Raw::new(stage.address, 4, "four").await;
    five.subscribe("t", 0).await;
    four.subscribe("t", 0).await;
    let mut properties = vec![1, 1, 3];
    properties.extend(text("json"));
    properties.push(8);
    properties.extend(text("reply/to"));
    properties.push(9);
    properties.extend([0, 2, 0, 255]);
    for (name, value) in [("b", "1"), ("a", "2"), ("b", "3")] {
        properties.push(0x26);
        properties.extend(text(name));
        properties.extend(text(value));
    }
    let mut writer = Raw::new(stage.address, 5, "w").await;
    writer.publish_with(0, 0, &properties, "t", "x").await;
    assert_eq!(five.message().await.properties, properties, "MQTT-3.3.2-15 to -20");
    let got = four.message().await;
    assert_eq!((got.topic.as_str(), &got.payload[..]), ("t", &b"x"[..]));
    let mut writer = Raw::new(stage.address, 4, "w4").await;
    writer.publish_with(0, 0, &[], "t", "y").await;
    assert_eq!(five.message().await.properties, [0u8; 0]);
    assert_eq!(four.message().await.payload, b"y");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_4_6_answers_keep_the_order_of_the_publishes() {
    let stage = stage().await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    let mut bytes = Vec::new();
    for id in 1..=200u16 {
        bytes.extend(writer.publish_bytes(2, id, &[], "t", b"x"));
    }
    writer.send(&bytes).await;
    for id in 1..=200u16 {
        writer.expect(0x40, &id.to_be_bytes()).await;
    }
}
