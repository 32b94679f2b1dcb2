//! The embedded broker as a plain broker, against mosquitto.
//!
//! Both get the same load from the same light client, on loopback, with 128-byte payloads. Every message carries a
//! number: what is lost, doubled or out of order is counted, and loss of ours inside the window is a failure of the bench. The
//! window (messages on their way at one time) is small enough for both brokers' default queues; the flood has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::gateway::{Gateway, Home};
use tests::peers::Mosquitto;
use tests::support::mqtt::{self, Client, Inbox, Packet};
use tests::support::process;
use tests::support::table::{Rounds, Table, each_us, figure, mib, note, quantile, ratio, say};
use tests::support::{Run, now_us};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;

/// Bytes of a payload.
const PAYLOAD: usize = 128;
/// Clients on the wide side of fan-in and fan-out.
const WIDE: usize = 50;
/// Messages a publisher sends at once.
const BATCH: usize = 10;
/// Deliveries on their way at one time: 10 for each of 50 publishers, or 10 messages to each of 50 subscribers.
const WINDOW: usize = WIDE * BATCH;
/// Without a delivery for so long, the rest is lost.
const SILENCE: Duration = Duration::from_secs(5);
/// Clients of the memory case.
const CROWD: usize = 1000;

fn main() {
    let run = Run::new("broker");
    run.head();
    say(&process::mosquitto_version());
    for case in CASES {
        if run.wants(case.name) {
            flood(&run, case);
        }
    }
    for qos in [0, 1] {
        if run.wants("latency") {
            latency(&run, qos);
        }
    }
    if run.wants("memory") {
        memory(&run);
    }
}

// ---------------------------------------------------------------------------------------------- both brokers

/// As it comes it leaves Nagle's algorithm on, and our small windows would wait for delayed acknowledgements of TCP; and it
/// drops QoS 1 messages out of its queue of 1,000 although fewer than that are on their way.
const MOSQUITTO: &str = "set_tcp_nodelay true\nmax_queued_messages 0";

enum Broker {
    /// The gateway runs in the folder, which goes with it.
    Tidegate {
        gateway: Gateway,
        _home: Home,
    },
    Mosquitto(Mosquitto),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tidegate,
    Mosquitto,
}

const KINDS: [Kind; 2] = [Kind::Tidegate, Kind::Mosquitto];

impl Broker {
    fn start(kind: Kind) -> Self {
        match kind {
            Kind::Mosquitto => Self::Mosquitto(Mosquitto::start(MOSQUITTO)),
            Kind::Tidegate => {
                let home = Home::with(
                    "schema: 1\ngateway: {id: bench, data: data}\n\
                     broker: {listeners: [{name: local, bind: \"127.0.0.1:0\"}], limits: {clients: 1200}}\n",
                );
                let gateway = home.start();
                Self::Tidegate { gateway, _home: home }
            }
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Tidegate { gateway, .. } => gateway.port(),
            Self::Mosquitto(mosquitto) => mosquitto.port(),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Tidegate { gateway, .. } => gateway.pid(),
            Self::Mosquitto(mosquitto) => mosquitto.pid(),
        }
    }
}

/// Prints both sides' medians and their ratio.
fn compare(title: &str, columns: &[&str], sides: &[Rounds; 2]) {
    let mut table = Table::new(title, &[&["broker"], columns].concat());
    for (name, rounds) in ["Tidegate", "mosquitto"].iter().zip(sides) {
        let mut cells = vec![(*name).to_owned()];
        cells.extend((0..columns.len()).map(|column| figure(rounds.median(column))));
        table.row(&cells);
    }
    let [ours, theirs] = sides;
    let mut cells = vec!["Tidegate / mosquitto".to_owned()];
    cells.extend((0..columns.len()).map(|column| ratio(ours.median(column), theirs.median(column))));
    table.row(&cells);
    table.print();
}

// ---------------------------------------------------------------------------------------------- throughput

/// A flood through the broker.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    publishers: usize,
    subscribers: usize,
    qos: u8,
    /// Messages of all publishers together.
    messages: usize,
    window: bool,
}

const CASES: &[Case] = &[
    Case { name: "fan-in QoS 0", publishers: WIDE, subscribers: 1, qos: 0, messages: 300_000, window: true },
    Case { name: "fan-in QoS 1", publishers: WIDE, subscribers: 1, qos: 1, messages: 150_000, window: true },
    Case { name: "fan-out QoS 0", publishers: 1, subscribers: WIDE, qos: 0, messages: 20_000, window: true },
    Case { name: "fan-out QoS 1", publishers: 1, subscribers: WIDE, qos: 1, messages: 10_000, window: true },
    Case {
        name: "flood QoS 0 without window",
        publishers: WIDE,
        subscribers: 1,
        qos: 0,
        messages: 300_000,
        window: false,
    },
];

fn flood(run: &Run, case: &Case) {
    let mut sides = [Rounds::default(), Rounds::default()];
    for round in 0..run.rounds() {
        for (kind, rounds) in KINDS.into_iter().zip(&mut sides) {
            let broker = Broker::start(kind);
            let figures = flood_once(&broker, case, run.count(case.messages));
            let text: Vec<String> = figures.iter().map(|value| figure(*value)).collect();
            note(&format!("{} round {round} {kind:?} (load {}): {}", case.name, process::load(), text.join(" · ")));
            // The peer's losses stand in the table; ours are a failure.
            let fine = kind == Kind::Mosquitto || (!case.window || figures[2] == 0.0) && figures[3] == 0.0;
            assert!(fine, "messages were lost inside the window, out of order, or not as they were sent: {figures:?}");
            rounds.add(&figures);
        }
    }
    let title = format!("{}, {} → {}, {PAYLOAD} bytes", case.name, case.publishers, case.subscribers);
    compare(&title, &["deliveries/s", "CPU µs a delivery", "lost", "wrong", "RSS peak MiB"], &sides);
}

/// What the subscribers count.
#[derive(Default)]
struct Tally {
    delivered: AtomicU64,
    /// When the last delivery was, on the clock of [`now_us`].
    last_us: AtomicU64,
    wrong: AtomicU64,
    done: AtomicBool,
}

fn flood_once(broker: &Broker, case: &Case, messages: usize) -> [f64; 5] {
    let expected = (messages * case.subscribers) as u64;
    let tally = Arc::new(Tally::default());
    let window = Arc::new(Semaphore::new(if case.window { WINDOW } else { messages * case.subscribers }));
    let subscribed = Arc::new(Semaphore::new(0));
    let port = broker.port();
    let (case, ours) = (*case, (tally.clone(), window.clone(), subscribed.clone()));
    let subscribers = std::thread::spawn(move || {
        let (tally, window, subscribed) = ours;
        runtime().block_on(async {
            let each = (0..case.subscribers).map(|index| {
                tokio::spawn(subscriber(port, index, case, tally.clone(), window.clone(), subscribed.clone()))
            });
            for task in each.collect::<Vec<_>>() {
                task.await.expect("a subscriber ends in order");
            }
        });
    });
    let all = u32::try_from(case.subscribers).unwrap_or_default();
    let cpu = process::cpu(broker.pid());
    let mut began_us = 0;
    runtime().block_on(async {
        let _all = subscribed.acquire_many(all).await.expect("the semaphore stays open");
        began_us = now_us();
        let each = (0..case.publishers)
            .map(|index| tokio::spawn(publisher(port, index, case, messages / case.publishers, window.clone())));
        for task in each.collect::<Vec<_>>() {
            task.await.expect("a publisher ends in order");
        }
    });
    let (mut seen, mut last) = (0, Instant::now());
    while seen < expected && last.elapsed() < SILENCE {
        sleep(Duration::from_millis(1));
        let now = tally.delivered.load(Ordering::Relaxed);
        if now > seen {
            (seen, last) = (now, Instant::now());
        }
    }
    let cpu = process::cpu(broker.pid()) - cpu;
    let seconds = (tally.last_us.load(Ordering::Relaxed).saturating_sub(began_us)) as f64 / 1e6;
    tally.done.store(true, Ordering::Relaxed);
    subscribers.join().expect("the subscribers end in order");
    let lost = expected.saturating_sub(seen);
    [
        seen as f64 / seconds,
        each_us(cpu, seen as f64),
        lost as f64,
        tally.wrong.load(Ordering::Relaxed) as f64,
        mib(process::peak(broker.pid())),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

async fn dial(port: u16, name: &str) -> (OwnedReadHalf, OwnedWriteHalf, Inbox) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the broker listens");
    stream.set_nodelay(true).expect("a TCP socket has that option");
    let (reader, mut writer) = stream.into_split();
    let mut hello = Vec::new();
    mqtt::connect(&mut hello, name);
    writer.write_all(&hello).await.expect("the broker reads");
    let mut own = (reader, writer, Inbox::with_capacity(32 * 1024));
    wait_for(&mut own.0, &mut own.2, 2).await;
    own
}

async fn wait_for(reader: &mut OwnedReadHalf, inbox: &mut Inbox, wanted: u8) {
    let mut found = false;
    while !found {
        let count = reader.read(inbox.room()).await.expect("the broker answers");
        assert!(count > 0, "the broker hung up");
        inbox.filled(count);
        inbox.drain(|packet| {
            if let Packet::Other(kind, code) = packet {
                assert!(code < 0x80 && (kind != 2 || code == 0), "the broker refuses with {code:#x}");
                found |= kind == wanted;
            }
        });
    }
}

async fn publisher(port: u16, index: usize, case: Case, messages: usize, window: Arc<Semaphore>) {
    let (mut reader, mut writer, mut inbox) = dial(port, &format!("pub-{index}")).await;
    let topic = format!("bench/{index}");
    let mut payload = [b'.'; PAYLOAD];
    let mut out = Vec::new();
    let mut sent = 0_u32;
    let messages = u32::try_from(messages).unwrap_or(u32::MAX);
    while sent < messages {
        let batch = (messages - sent).min(u32::try_from(BATCH).unwrap_or(1));
        let deliveries = batch * u32::try_from(case.subscribers).unwrap_or(1);
        if case.window {
            // A lost delivery never gives its place back; the flood goes on without, and the loss is counted.
            if let Ok(Ok(room)) = tokio::time::timeout(SILENCE, window.acquire_many(deliveries)).await {
                room.forget();
            }
        }
        out.clear();
        for number in sent..sent + batch {
            payload[..8]
                .copy_from_slice(&[u32::try_from(index).unwrap_or_default(), number].map(u32::to_be_bytes).concat());
            // Packet ids begin again after 50,000; a batch is acknowledged before the next is sent.
            let id = u16::try_from(number % 50_000 + 1).unwrap_or(1);
            mqtt::publish(&mut out, &topic, &payload, case.qos, id);
        }
        writer.write_all(&out).await.expect("the broker reads");
        sent += batch;
        let mut open = if case.qos > 0 { batch } else { 0 };
        while open > 0 {
            let count = reader.read(inbox.room()).await.expect("the broker acknowledges");
            assert!(count > 0, "the broker hung up");
            inbox.filled(count);
            inbox.drain(|packet| open -= u32::from(matches!(packet, Packet::Puback(_))));
        }
    }
    // Closing at once could cost what the broker has not read yet.
    sleep_until_idle(&window, case).await;
}

/// Keeps a publisher connected until its messages have been delivered.
async fn sleep_until_idle(window: &Semaphore, case: Case) {
    let end = Instant::now() + SILENCE;
    while case.window && window.available_permits() < WINDOW && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    if !case.window {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn subscriber(
    port: u16,
    index: usize,
    case: Case,
    tally: Arc<Tally>,
    window: Arc<Semaphore>,
    subscribed: Arc<Semaphore>,
) {
    let (mut reader, mut writer, mut inbox) = dial(port, &format!("sub-{index}")).await;
    let mut out = Vec::new();
    mqtt::subscribe(&mut out, 1, "bench/#", case.qos);
    writer.write_all(&out).await.expect("the broker reads");
    wait_for(&mut reader, &mut inbox, 9).await;
    subscribed.add_permits(1);
    let mut next = vec![0_u32; case.publishers];
    while !tally.done.load(Ordering::Relaxed) {
        let read = tokio::time::timeout(Duration::from_millis(100), reader.read(inbox.room())).await;
        let Ok(count) = read else { continue };
        let count = count.expect("the broker sends");
        assert!(count > 0, "the broker hung up");
        inbox.filled(count);
        out.clear();
        let (mut delivered, mut wrong) = (0, 0);
        inbox.drain(|packet| {
            let Packet::Publish { payload, qos, id, .. } = packet else { return };
            delivered += 1;
            if qos == 1 {
                mqtt::puback(&mut out, id);
            }
            wrong += u64::from(!in_order(payload, &mut next));
        });
        if !out.is_empty() {
            writer.write_all(&out).await.expect("the broker reads");
        }
        if case.window {
            window.add_permits(delivered);
        }
        tally.last_us.fetch_max(now_us(), Ordering::Relaxed);
        tally.delivered.fetch_add(delivered as u64, Ordering::Relaxed);
        tally.wrong.fetch_add(wrong, Ordering::Relaxed);
    }
}

/// Whether a payload is as it was sent and newer than all before it from its publisher.
fn in_order(payload: &[u8], next: &mut [u32]) -> bool {
    let Some((head, rest)) = payload.split_first_chunk::<8>() else { return false };
    let [p0, p1, p2, p3, n0, n1, n2, n3] = *head;
    let publisher = usize::try_from(u32::from_be_bytes([p0, p1, p2, p3])).unwrap_or(usize::MAX);
    let number = u32::from_be_bytes([n0, n1, n2, n3]);
    let Some(next) = next.get_mut(publisher) else { return false };
    let fits = number >= *next && rest.len() == PAYLOAD - 8 && rest.last() == Some(&b'.');
    *next = number + 1;
    fits
}

// ---------------------------------------------------------------------------------------------- latency

/// Messages a second of the latency case.
const RATE: u64 = 1000;

fn latency(run: &Run, qos: u8) {
    let mut sides = [Rounds::default(), Rounds::default()];
    let messages = run.count(10_000);
    for round in 0..run.rounds() {
        for (kind, rounds) in KINDS.into_iter().zip(&mut sides) {
            let broker = Broker::start(kind);
            let (cpu, mut ages) = (process::cpu(broker.pid()), latency_once(&broker, qos, messages));
            let cpu = each_us(process::cpu(broker.pid()) - cpu, messages as f64);
            assert_eq!(
                ages.len(),
                messages,
                "{kind:?} lost messages at {RATE} a second; the latencies mean nothing then"
            );
            let figures = [quantile(&mut ages, 0.5), quantile(&mut ages, 0.99), quantile(&mut ages, 0.999), cpu];
            let text: Vec<String> = figures.iter().map(|value| figure(*value)).collect();
            note(&format!("latency QoS {qos} round {round} {kind:?} (load {}): {}", process::load(), text.join(" · ")));
            rounds.add(&figures);
        }
    }
    let title = format!("latency at {RATE} messages/s, QoS {qos}, {PAYLOAD} bytes, 1 → 1");
    compare(&title, &["p50 µs", "p99 µs", "p99.9 µs", "CPU µs a message"], &sides);
}

fn latency_once(broker: &Broker, qos: u8, messages: usize) -> Vec<u32> {
    let mut subscriber = Client::connect(broker.port(), "latency-sub");
    subscriber.subscribe("latency", qos);
    subscriber.patience(SILENCE);
    let reader = std::thread::spawn(move || {
        let mut ages = Vec::with_capacity(messages);
        while ages.len() < messages {
            let more = subscriber.receive(|packet| {
                if let Packet::Publish { payload, .. } = packet
                    && let Some(bytes) = payload.first_chunk::<8>()
                {
                    let age = now_us().saturating_sub(u64::from_be_bytes(*bytes));
                    ages.push(u32::try_from(age).unwrap_or(u32::MAX));
                }
            });
            if !more {
                break;
            }
        }
        ages
    });
    let mut publisher = Client::connect(broker.port(), "latency-pub");
    publisher.patience(Duration::from_micros(1));
    let began = Instant::now();
    let mut payload = [b'.'; PAYLOAD];
    for (number, id) in (0..messages as u64).zip((1..=50_000_u16).cycle()) {
        let due = Duration::from_micros(number * 1_000_000 / RATE);
        sleep(due.saturating_sub(began.elapsed()));
        payload[..8].copy_from_slice(&now_us().to_be_bytes());
        publisher.publish("latency", &payload, qos, id);
        publisher.send();
        if qos > 0 && number % 100 == 99 {
            // Acknowledgements are taken now and then, so that the socket never fills.
            publisher.receive(|_| {});
        }
    }
    reader.join().expect("the subscriber ends in order")
}

// ---------------------------------------------------------------------------------------------- memory

fn memory(run: &Run) {
    let mut sides = [Rounds::default(), Rounds::default()];
    for round in 0..run.rounds() {
        for (kind, rounds) in KINDS.into_iter().zip(&mut sides) {
            let broker = Broker::start(kind);
            sleep(Duration::from_secs(1));
            let idle = process::rss(broker.pid());
            let runtime = runtime();
            let clients = runtime.block_on(async {
                let mut clients = Vec::with_capacity(CROWD);
                for index in 0..CROWD {
                    let (mut reader, mut writer, mut inbox) = dial(broker.port(), &format!("crowd-{index}")).await;
                    let mut out = Vec::new();
                    mqtt::subscribe(&mut out, 1, &format!("crowd/{index}/+"), 1);
                    writer.write_all(&out).await.expect("the broker reads");
                    wait_for(&mut reader, &mut inbox, 9).await;
                    clients.push((reader, writer));
                }
                clients
            });
            sleep(Duration::from_secs(1));
            let full = process::rss(broker.pid());
            drop(clients);
            let each = full.saturating_sub(idle) as f64 / 1024.0 / CROWD as f64;
            let figures = [mib(idle), mib(full), each];
            note(&format!("memory round {round} {kind:?}: {figures:.2?}"));
            rounds.add(&figures);
        }
    }
    let title = format!("memory, {CROWD} clients with a subscription each");
    compare(&title, &["RSS idle MiB", "RSS with clients MiB", "KiB a client"], &sides);
}
