//! Hard cases: broken packets, slow readers, floods, many connections.

use mappers::bus::Incoming;

use super::*;

/// A small generator (xorshift64) so that a failing case can be found again.
fn roll(state: &mut u64, sides: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % sides as u64).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_broken_packets_hurt_nobody_else() {
    let stage = stage().await;
    let mut witness = Raw::new(stage.address, 4, "witness").await;
    witness.subscribe("witness", 1).await;
    let mut state = 0x0123_4567_89ab_cdef;
    for case in 0..2000 {
        let version = [4, 5][case % 2];
        let mut raw = Raw::new(stage.address, version, "broken").await;
        let good = match roll(&mut state, 5) {
            0 => raw.publish_bytes(3, 9, &[], "a/b", b"payload"),
            1 => packet(0x82, &[&[0, 1][..], if version == 5 { &[0] } else { &[] }, &text("a/+"), &[1]].concat()),
            2 => packet(0x62, &[0, 9]),
            3 => packet(0x40, &[0, 9]),
            _ => Hello::new(version, "x").bytes(),
        };
        let mut bytes = good.clone();
        for _ in 0..=roll(&mut state, 3) {
            let at = roll(&mut state, bytes.len());
            bytes[at] = roll(&mut state, 256) as u8;
        }
        raw.send(&bytes).await;
        if case % 100 == 0 {
            witness.publish_with(2, 3, &[], "witness", "alive").await;
            let mut open = 2;
            while open > 0 {
                let (first, body) = witness.next().await.expect("the witness is alive");
                if first >> 4 == 3 {
                    let id = witness.parse(first, &body).id;
                    witness.send(&packet(0x40, &id.to_be_bytes())).await;
                }
                open -= 1;
            }
        }
    }
    assert_eq!(stage.broker.stats().faults, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_never_blocks_publishers_and_its_losses_are_counted() {
    const MESSAGES: u64 = 20_000;
    let limits = Limits { queue_bytes: 256 * 1024, ..Limits::default() };
    let stage = stage_with(Settings { limits, ..settings() }).await;
    // it reads nothing at all
    let mut slow = Raw::new(stage.address, 4, "slow").await;
    slow.subscribe("t", 0).await;
    let mut quick = Raw::new(stage.address, 4, "quick").await;
    quick.subscribe("quick", 0).await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    let one = writer.publish_bytes(0, 0, &[], "t", &[b'x'; 1000]);
    let start = std::time::Instant::now();
    for _ in 0..MESSAGES / 100 {
        let many: Vec<u8> = one.iter().copied().cycle().take(one.len() * 100).collect();
        writer.send(&many).await;
    }
    writer.publish_with(0, 0, &[], "quick", "done").await;
    quick.message().await;
    assert!(start.elapsed() < Duration::from_secs(20));
    let stats = stage.broker.stats();
    assert!(stats.dropped.queue_full > 0 && stats.queued_bytes <= 256 * 1024, "{stats:?}");
    // what is left comes, the newest last
    let mut seen = 0;
    while let Ok(Some(_)) = slow.next_within(Duration::from_millis(500)).await {
        seen += 1;
    }
    assert_eq!(seen + stage.broker.stats().dropped.queue_full, MESSAGES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_gives_up_the_oldest_qos_0_first_then_the_oldest() {
    // room for nine messages of about 1 kB
    let limits = Limits { queue_bytes: 10_000, inflight: 1, ..Limits::default() };
    let stage = stage_with(Settings { limits, ..settings() }).await;
    let hello = Hello::keeping(4, "r");
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    reader.subscribe("t", 1).await;
    reader.leave().await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    let body = |at: u32| format!("{at:03}{}", "x".repeat(900));
    for at in 0..30 {
        writer.publish1(false, "t", &body(at)).await;
    }
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    let mut got = Vec::new();
    while let Ok(Some((first, bytes))) = reader.next_within(SILENCE).await {
        let one = reader.parse(first, &bytes);
        reader.send(&packet(0x40, &one.id.to_be_bytes())).await;
        got.push(String::from_utf8(one.payload[..3].to_vec()).unwrap().parse::<u32>().unwrap());
    }
    let kept = got.len() as u32;
    assert!((8..=10).contains(&kept), "{got:?}");
    assert_eq!(got, (30 - kept..30).collect::<Vec<_>>());
    assert_eq!(stage.broker.stats().dropped.queue_full, u64::from(30 - kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_keeps_up_loses_nothing_of_a_flood() {
    const WRITERS: usize = 20;
    const EACH: usize = 1000;
    let stage = stage().await;
    let mut reader = Raw::new(stage.address, 4, "r").await;
    reader.subscribe("flood/#", 0).await;
    let mut writers = Vec::new();
    for at in 0..WRITERS {
        let address = stage.address;
        writers.push(tokio::spawn(async move {
            let mut writer = Raw::new(address, 4, &format!("w{at}")).await;
            let one = writer.publish_bytes(0, 0, &[], &format!("flood/{at}"), &[b'x'; 128]);
            writer.send(&one.repeat(EACH)).await;
            writer.leave().await;
        }));
    }
    for _ in 0..WRITERS * EACH {
        reader.message().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(stage.broker.stats().dropped.queue_full, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_more_than_allowed_is_told_so_and_room_comes_back() {
    let limits = Limits { clients: 3, ..Limits::default() };
    let stage = stage_with(Settings { limits, ..settings() }).await;
    let mut inside = Vec::new();
    for at in 0..3 {
        inside.push(Raw::new(stage.address, 5, &format!("c{at}")).await);
    }
    assert_eq!(Raw::try_enter(stage.address, &Hello::new(5, "more")).await.1.unwrap().1[1], 0x97);
    assert_eq!(Raw::try_enter(stage.address, &Hello::new(4, "more")).await.1, Some((0x20, vec![0, 3])));
    Raw::new(stage.address, 5, "c0").await.leave().await;
    let _more = Raw::new(stage.address, 5, "more").await;
    assert_eq!(stage.broker.stats().refused_clients, 2);
    // The gateway's own mappers are none of those that there may be.
    let mut mapper = stage.broker.attach("mapper-1", "mapper");
    assert_eq!(timeout(SOON, mapper.incoming.recv()).await.unwrap(), Some(Incoming::Up));
    let stats = stage.broker.stats();
    assert_eq!((stats.clients, stats.sessions), (3, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_silent_sockets_keep_nobody_out() {
    let stage = stage().await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(Raw::open(stage.address, 4).await);
    }
    Raw::new(stage.address, 4, "me").await.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_resets_with_one_client_id_leave_nothing_behind() {
    let stage = stage().await;
    for _ in 0..200 {
        let mut raw = Raw::open(stage.address, 4).await;
        raw.send(&Hello::new(4, "same").bytes()).await;
        let _ = raw.stream.set_zero_linger();
    }
    Raw::new(stage.address, 4, "same").await.leave().await;
    for _ in 0..100 {
        if stage.broker.stats().sessions == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stats = stage.broker.stats();
    assert_eq!((stats.clients, stats.sessions, stats.faults), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_says_so_and_cuts_nobody_s_message() {
    let stage = stage().await;
    let mut five = Raw::new(stage.address, 5, "five").await;
    let mut four = Raw::new(stage.address, 4, "four").await;
    five.subscribe("t", 0).await;
    four.publish1(false, "t", "last").await;
    stage.broker.shutdown().await;
    assert_eq!(five.message().await.payload, b"last");
    assert_eq!(five.ends().await, 0x8b);
    assert_eq!(four.ends().await, 0);
    assert!(TcpStream::connect(stage.address).await.is_err());
}
