//! An hour's outage of the upstream link: how long and how many bytes until both sides are in step again, and what it
//! costs meanwhile; against mosquitto bridged to mosquitto with the same topics in the same run.
//!
//! Then a stream, where every message counts: flat out through a link that is up, and kept on disk while it is away and the
//! gateway is killed in between (alone: `-- streams`).
//!
//! 1,000 devices × 10 properties. The hour is compressed: what counts for state is that every leaf has changed, and for a
//! queue how many changes there were; both sides get the same `ROUNDS` changes of each leaf.

use std::time::{Duration, Instant};

use mappers::bus::{Bus, Incoming, Message, MqttOptions, Outgoing, mqtt};
use serde_json::{Value, json};
use tests::gateway::{Gateway, Home};
use tests::mqtt::{Watch, retained};
use tests::net::{Relay, Weather};
use tests::peers::Mosquitto;
use tests::within;

const DEVICES: usize = 1_000;
const PROPERTIES: usize = 10;
/// Changes of every leaf while the link is away.
const ROUNDS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(300);
/// Readings of the stream, and the letters in each: about 200 bytes a message at the other side.
const READINGS: usize = 20_000;
const LETTERS: usize = 90;
/// Readings on the way at once; the last of them is waited for.
const LOT: usize = 4_000;

/// The other side's broker. It allows as many messages on their way to it as the bridge of its like sends: a peer of MQTT 5 keeps to what
/// it is told, 20 unless said otherwise, and one of 3.1.1 is told nothing.
const FAR: &str = "max_queued_messages 0\nset_tcp_nodelay true\nmax_inflight_messages 100";

fn profile() -> String {
    let properties: String = (0..PROPERTIES)
        .map(|at| {
            format!(
                "  p{at}: {{type: int, group: all, from: {{modbus: {{table: holding, address: {}, type: uint32}}}}}}\n",
                at * 2
            )
        })
        .collect();
    format!(
        "schema: 1\nid: bench.ten\nversion: 1.0.0\nmeta: {{vendor: Bench, model: Ten}}\nparams:\n  unit: {{type: int, min: 0, max: 255, default: 1}}\n\
         groups:\n  all: {{interval: 1s}}\nmodbus: {{unit: \"${{unit}}\"}}\nproperties:\n{properties}\
         tests:\n  - {{name: zero, input: {{modbus: {{holding: {{\"0\": [0, 0]}}}}}}, expect: {{p0: 0}}}}\n"
    )
}

fn home(port: u16, cloud: u16) -> Home {
    let wires = DEVICES.div_ceil(200);
    let connections: String =
        (0..wires).map(|at| format!("  w{at}: {{modbus: {{tcp: \"127.0.0.1:{}\"}}}}\n", at + 1)).collect();
    let devices: String = (0..DEVICES)
        .map(|at| {
            format!(
                "  - {{id: d{at}, profile: bench.ten, connection: w{}, params: {{unit: {}}}}}\n",
                at / 200,
                at % 200 + 1
            )
        })
        .collect();
    let home = Home::with(&format!(
        "schema: 1\ngateway: {{id: bench, data: data}}\nprofiles: [profiles]\n\
         broker: {{listeners: [{{name: local, bind: \"127.0.0.1:{port}\"}}]}}\nconnections:\n{connections}devices:\n{devices}\
         upstream:\n  - {{name: cloud, dialect: plain, url: \"mqtt://127.0.0.1:{cloud}\", prefix: bench}}\n"
    ));
    home.write("profiles/ten.yaml", &profile());
    home
}

async fn client(port: u16) -> Bus {
    let options = MqttOptions { host: "127.0.0.1".into(), port, client_id: "bench".into(), ..MqttOptions::default() };
    let (mut bus, _driver) = mqtt(options);
    while bus.incoming.recv().await != Some(Incoming::Up) {}
    bus
}

/// One change of every leaf, as a mapper says it; an acknowledged publish at the end proves that all were taken.
async fn change(bus: &Bus, round: usize, is_gateway: bool) {
    for device in 0..DEVICES {
        let value = |at: usize| round * 100_000 + device * 10 + at;
        if is_gateway {
            let readings: serde_json::Map<String, Value> =
                (0..PROPERTIES).map(|at| (format!("p{at}"), json!(value(at)))).collect();
            let payload = json!({"readings": readings}).to_string().into();
            say(bus, format!("twin/d{device}/reported/set"), payload, false, device + 1 == DEVICES).await;
        } else {
            for at in 0..PROPERTIES {
                // as long as what the gateway says of a reading
                let payload =
                    json!({"value": value(at), "quality": "good", "at": "2026-11-22T22:00:00.000Z", "version": round});
                let last = device + 1 == DEVICES && at + 1 == PROPERTIES;
                let topic = format!("bench/twin/d{device}/reported/p{at}");
                say(bus, topic, payload.to_string().into(), true, last).await;
            }
        }
    }
}

async fn say(bus: &Bus, topic: String, payload: bytes::Bytes, retain: bool, is_last: bool) {
    let message = Message { topic, payload, retain, ..Message::default() };
    if is_last {
        let (told, acknowledged) = tokio::sync::oneshot::channel();
        bus.out.send(Outgoing::PublishAcknowledged(message, told)).await.expect("the driver runs");
        assert_eq!(acknowledged.await, Ok(true), "the last change was taken");
    } else {
        bus.out.send(Outgoing::Publish(message)).await.expect("the driver runs");
    }
}

fn rss_mib(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn written(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<f64>().ok());
    bytes.unwrap_or(0.0) / 1_048_576.0
}

/// How many leaves hold their last value over there.
fn right(port: u16, round: usize) -> usize {
    let held = retained(port, &["bench/twin/+/reported/+"]);
    held.iter()
        .filter(|message| message.at("/value").as_u64().is_some_and(|value| value as usize / 100_000 == round))
        .count()
}

#[derive(Default)]
struct Row {
    rss: (f64, f64),
    disk: f64,
    seconds: f64,
    bytes: u64,
    right: usize,
}

async fn tidegate() -> Row {
    // by default it gives a subscriber the first 1,000 retained messages only
    let cloud = Mosquitto::start(FAR);
    let relay = Relay::to(cloud.port());
    let port = tests::free_port();
    let home = home(port, relay.port());
    let gateway = Gateway::start(home.path(), &["run", "-c", "gateway.yaml", "--no-mappers"]);
    let bus = client(port).await;
    change(&bus, 1, true).await;
    in_step(&cloud, 1);
    let before = (rss_mib(gateway.pid()), written(gateway.pid()));
    relay.set(Weather::Cut);
    for round in 2..2 + ROUNDS {
        change(&bus, round, true).await;
    }
    let mut row =
        Row { rss: (before.0, rss_mib(gateway.pid())), disk: written(gateway.pid()) - before.1, ..Row::default() };
    let bytes = relay.bytes().0;
    relay.set(Weather::Fair);
    let begin = linked(&relay, bytes);
    row.right = in_step(&cloud, 1 + ROUNDS);
    row.seconds = begin.elapsed().as_secs_f64();
    row.bytes = relay.bytes().0 - bytes;
    row
}

async fn mosquitto() -> Row {
    // by default it gives a subscriber the first 1,000 retained messages only
    let cloud = Mosquitto::start(FAR);
    let relay = Relay::to(cloud.port());
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let port = tests::free_port();
    let near = Mosquitto::with(port, &near_settings(port, folder.path(), relay.port()));
    let bus = client(port).await;
    change(&bus, 1, false).await;
    in_step(&cloud, 1);
    let before = (rss_mib(near.pid()), written(near.pid()));
    relay.set(Weather::Cut);
    for round in 2..2 + ROUNDS {
        change(&bus, round, false).await;
    }
    let mut row = Row { rss: (before.0, rss_mib(near.pid())), disk: written(near.pid()) - before.1, ..Row::default() };
    let bytes = relay.bytes().0;
    relay.set(Weather::Fair);
    let begin = linked(&relay, bytes);
    row.right = in_step(&cloud, 1 + ROUNDS);
    row.seconds = begin.elapsed().as_secs_f64();
    row.bytes = relay.bytes().0 - bytes;
    row
}

/// When the link is there again; how long a side waits before it tries is its back-off and not measured here.
fn linked(relay: &Relay, before: u64) -> Instant {
    within(PATIENCE, "the link to be made", || (relay.bytes().0 > before).then(Instant::now))
}

fn in_step(cloud: &Mosquitto, round: usize) -> usize {
    within(PATIENCE, "both sides to be in step", || {
        let count = right(cloud.port(), round);
        (count == DEVICES * PROPERTIES).then_some(count)
    })
}

/// A gateway with one device whose every text matters; the queue to its bridge is as generous as mosquitto's,
/// and acknowledgements, which wait for a group commit, wait for 100 ms.
fn stream_home(port: u16, cloud: u16) -> Home {
    let home = Home::with(&format!(
        "schema: 1\ngateway: {{id: bench, data: data}}\nprofiles: [profiles]\n\
         broker: {{limits: {{queue_bytes: 67108864}}, listeners: [{{name: local, bind: \"127.0.0.1:{port}\"}}]}}\nconnections: {{w: {{modbus: {{tcp: \"127.0.0.1:1\"}}}}}}\n\
         twin: {{flush: 100ms}}\ndevices: [{{id: d0, profile: bench.log, connection: w}}]\n\
         upstream:\n  - {{name: cloud, dialect: plain, url: \"mqtt://127.0.0.1:{cloud}\", prefix: bench}}\n"
    ));
    home.write(
        "profiles/log.yaml",
        "schema: 1\nid: bench.log\nversion: 1.0.0\nmeta: {vendor: Bench, model: Log}\ngroups:\n  all: {interval: 1s}\n\
         modbus: {unit: 1}\nproperties:\n  text: {type: string, stream: true, group: all, \
         from: {modbus: {table: holding, address: 0, type: string, length: 100}}}\n",
    );
    home
}

/// A text of its own, as long as all others.
fn text(number: usize) -> String {
    format!("{number:0>LETTERS$}")
}

/// Publishes readings, and waits until all are acknowledged.
async fn flood(bus: &Bus, is_gateway: bool, from: usize) {
    for number in from..from + READINGS {
        let (topic, payload) = if is_gateway {
            ("twin/d0/reported/set", json!({"readings": {"text": text(number)}}))
        } else {
            let said =
                json!({"value": text(number), "quality": "good", "at": "2026-11-22T22:00:00.000Z", "version": number});
            ("bench/twin/d0/stream/text", said)
        };
        // a client that waits is never too fast for the door, which would refuse it
        let is_last = (number + 1 - from).is_multiple_of(LOT);
        say(bus, topic.to_owned(), payload.to_string().into(), false, is_last).await;
    }
}

/// How many of the readings have come, each counted once.
fn arrived(watch: &Watch, from: usize) -> usize {
    let mut seen = vec![false; READINGS];
    for message in watch.all() {
        let number = message.at("/value").as_str().and_then(|text| text.trim_start_matches('0').parse::<usize>().ok());
        if let Some(seen) = number.and_then(|number| seen.get_mut(number.checked_sub(from)?)) {
            *seen = true;
        }
    }
    seen.into_iter().filter(|seen| *seen).count()
}

/// Waits until no more come; gives how many came, and when the last did.
fn all_arrived(watch: &Watch, from: usize) -> (usize, Instant) {
    let (mut messages, mut at) = (0, Instant::now());
    loop {
        let now = watch.count();
        if now > messages {
            (messages, at) = (now, Instant::now());
        }
        // Reading all of them takes longer than the last of them did.
        let count = if messages >= READINGS { arrived(watch, from) } else { 0 };
        if count == READINGS {
            return (count, at);
        }
        if at.elapsed() > Duration::from_secs(20) {
            return (arrived(watch, from), at);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Flow {
    per_second: f64,
    lost: usize,
    told: u64,
    written: f64,
}

/// The numbers that gaps name.
fn told(watch: &Watch) -> u64 {
    let gaps = watch.all().into_iter().filter(|message| message.topic.ends_with("/gap"));
    gaps.filter_map(|gap| Some(gap.at("/to_seq").as_u64()? + 1 - gap.at("/from_seq").as_u64()?)).sum()
}

async fn stream_tidegate(outage: bool) -> Flow {
    let cloud = Mosquitto::start(FAR);
    let relay = Relay::to(cloud.port());
    let port = tests::free_port();
    let home = stream_home(port, relay.port());
    let watch = Watch::plain(cloud.port(), &["bench/twin/d0/stream/text", "bench/gateway/gap"]);
    let gateway = Gateway::start(home.path(), &["run", "-c", "gateway.yaml", "--no-mappers"]);
    let bus = client(port).await;
    say(
        &bus,
        "twin/d0/reported/set".to_owned(),
        json!({"readings": {"text": text(1)}}).to_string().into(),
        false,
        true,
    )
    .await;
    within(PATIENCE, "the stream to flow", || (arrived(&watch, 1) > 0).then_some(()));
    let before = written(gateway.pid());
    let mut begin = Instant::now();
    if !outage {
        flood(&bus, true, 2).await;
        let (count, last) = all_arrived(&watch, 2);
        let seconds = last.duration_since(begin).as_secs_f64();
        let written = (written(gateway.pid()) - before) * 1_048_576.0 / READINGS as f64;
        return Flow { per_second: count as f64 / seconds, lost: READINGS - count, told: told(&watch), written };
    }
    relay.set(Weather::Cut);
    flood(&bus, true, 2).await;
    within(PATIENCE, "the readings to be on disk", || {
        let status = retained(port, &["gateway/status"]);
        let upstream = status.first()?.at("/upstreams/cloud");
        (upstream["spool_memory_bytes"] == 0 && upstream["spool_rows"].as_u64() > Some(0)).then_some(())
    });
    let written = (written(gateway.pid()) - before) * 1_048_576.0 / READINGS as f64;
    gateway.kill();
    relay.set(Weather::Fair);
    let bytes = relay.bytes().0;
    let gateway = Gateway::start(home.path(), &["run", "-c", "gateway.yaml", "--no-mappers"]);
    begin = linked(&relay, bytes).max(begin);
    let (count, last) = all_arrived(&watch, 2);
    let seconds = last.duration_since(begin).as_secs_f64();
    drop(gateway);
    Flow { per_second: count as f64 / seconds, lost: READINGS - count, told: told(&watch), written }
}

/// mosquitto bridged to mosquitto, tuned as above; with an outage it is killed in it, too.
async fn stream_mosquitto(outage: bool) -> Flow {
    let cloud = Mosquitto::start(FAR);
    let relay = Relay::to(cloud.port());
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let port = tests::free_port();
    let mut near = Mosquitto::with(port, &near_settings(port, folder.path(), relay.port()));
    let watch = Watch::plain(cloud.port(), &["bench/twin/d0/stream/text"]);
    let bus = client(port).await;
    let first = json!({"value": text(1)}).to_string();
    say(&bus, "bench/twin/d0/stream/text".to_owned(), first.into(), false, true).await;
    within(PATIENCE, "the stream to flow", || (arrived(&watch, 1) > 0).then_some(()));
    let before = written(near.pid());
    let mut begin = Instant::now();
    if outage {
        relay.set(Weather::Cut);
    }
    flood(&bus, false, 2).await;
    if outage {
        // its settings write once a second
        std::thread::sleep(Duration::from_secs(2));
    }
    let written = (written(near.pid()) - before) * 1_048_576.0 / READINGS as f64;
    if outage {
        near.kill();
        relay.set(Weather::Fair);
        let bytes = relay.bytes().0;
        near.again();
        begin = linked(&relay, bytes).max(begin);
    }
    let (count, last) = all_arrived(&watch, 2);
    let seconds = last.duration_since(begin).as_secs_f64();
    Flow { per_second: count as f64 / seconds, lost: READINGS - count, told: 0, written }
}

/// Tuned so that it drops nothing while nothing is killed; its defaults give up all but 1,000 messages.
fn near_settings(port: u16, folder: &std::path::Path, far: u16) -> String {
    format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\nautosave_interval 1\n\
         max_queued_messages 0\nqueue_qos0_messages true\nmax_inflight_messages 100\nset_tcp_nodelay true\nconnection up\naddress 127.0.0.1:{far}\n\
         topic # out 1\ncleansession false\nrestart_timeout 1 2\n",
        folder.display()
    )
}

#[allow(clippy::print_stdout, reason = "a bench prints its table")]
fn streams(runtime: &tokio::runtime::Runtime) {
    println!("\n{READINGS} readings of a stream of about 200 bytes, QoS 1, each acknowledged to whoever said it");
    println!("| | readings/s | lost | told as a gap | written, bytes a reading |");
    println!("|---|---|---|---|---|");
    let row = |name: &str, flow: &Flow| {
        let Flow { per_second, lost, told, written } = flow;
        println!("| {name} | {per_second:.0} | {lost} | {told} | {written:.0} |");
    };
    row("Tidegate, flat out", &runtime.block_on(stream_tidegate(false)));
    row("mosquitto bridge, flat out", &runtime.block_on(stream_mosquitto(false)));
    row("Tidegate, link away, then killed", &runtime.block_on(stream_tidegate(true)));
    row("mosquitto bridge, link away, then killed", &runtime.block_on(stream_mosquitto(true)));
}

#[allow(clippy::print_stdout, reason = "a bench prints its table")]
fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
    if std::env::args().any(|word| word == "streams") {
        return streams(&runtime);
    }
    println!("{DEVICES} devices x {PROPERTIES} properties, {ROUNDS} changes of each leaf while the link is away");
    println!(
        "| | in step after, s | bytes up | bytes a leaf | RSS before / at the end, MiB | written, MiB | leaves right |"
    );
    println!("|---|---|---|---|---|---|---|");
    print("Tidegate", &runtime.block_on(tidegate()));
    print("mosquitto bridge", &runtime.block_on(mosquitto()));
    streams(&runtime);
}

#[allow(clippy::print_stdout, reason = "a bench prints its table")]
fn print(name: &str, row: &Row) {
    let Row { rss, disk, seconds, bytes, right } = row;
    println!(
        "| {name} | {seconds:.1} | {bytes} | {} | {:.1} / {:.1} | {disk:.1} | {right} |",
        bytes / (DEVICES * PROPERTIES) as u64,
        rss.0,
        rss.1
    );
}
