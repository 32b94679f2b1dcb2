//! From the wire to the subscriber and back: Tidegate against the least that could do it.
//!
//! The floor is a raw loop in a process of its own: tokio-modbus reads, twenty values become one JSON object, one QoS 0
//! publish goes to mosquitto. It keeps no twin, no versions, no time stamps, no retained values, and stores nothing;
//! Tidegate publishes each value by itself, retained and versioned, and keeps it. Both poll the same simulator on the
//! same timetable (spread over the period) and have one QoS 0 subscriber.
//!
//! Every read of the simulator finds twenty changed values, so reporting on change reports all of them. Each carries
//! the counter of its read: the subscriber checks that nothing goes back and, once the simulator stands still,
//! a new subscriber must find the last value of every property in the twins. One value is the moment of the device's
//! answer; `age` is from there to the subscriber.

mod faults;
mod floor;
mod latency;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use tests::gateway::{Gateway, Home};
use tests::peers::Mosquitto;
use tests::support::modsim::{self, CHANGING, INTS, Modsim, STD_VALUES, WRITABLE, age_us};
use tests::support::mqtt::{Client, Packet};
use tests::support::process::{self, Helper};
use tests::support::table::{Rounds, Table, each_us, figure, mib, note, quantile, ratio, say};
use tests::support::{Run, child, now_us};
use tests::within;

/// Devices of the std workload.
const DEVICES: usize = 100;
/// Longest wait for what has to come true.
const SETTLE: Duration = Duration::from_secs(60);
/// Longest wait for the last values once the devices stand still.
const LAST: Duration = Duration::from_secs(15);

fn main() {
    match child().as_deref() {
        Some([kind, words @ ..]) if kind == "modsim" => return modsim::serve(words),
        Some([kind, words @ ..]) if kind == "floor" => return floor::floor(words),
        Some(words) => panic!("no such helper: {words:?}"),
        None => {}
    }
    let run = Run::new("wire");
    run.head();
    say(&format!("{}, tokio-modbus 0.17", process::mosquitto_version()));
    if run.wants("latency") {
        latency::latency(&run);
    }
    if run.wants("sets") {
        faults::sets(&run);
    }
    if run.wants("isolation") {
        faults::isolation(&run);
    }
    for (name, period_ms, seconds) in [("1 s", 1000, 12), ("100 ms", 100, 6), ("flat out", 0, 5)] {
        if run.wants(name) {
            std_workload(&run, name, period_ms, run.watched(seconds));
        }
    }
}

// ---------------------------------------------------------------------------------------------- both sides

/// One side of the comparison, running.
enum Side {
    /// The gateway runs in the folder, which goes with it.
    Tidegate {
        gateway: Gateway,
        _home: Home,
    },
    Floor(Helper, Mosquitto),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tidegate,
    Floor,
}

impl Side {
    fn start(kind: Kind, profile: &str, period_ms: u64, ports: &[u16]) -> Self {
        if kind == Kind::Floor {
            // As it comes it would hold small messages back for the sake of fewer packets.
            let broker = Mosquitto::start("set_tcp_nodelay true");
            let mut words = vec!["floor".to_owned(), profile.to_owned()];
            words.extend([broker.port().to_string(), period_ms.to_string()]);
            words.extend(ports.iter().map(u16::to_string));
            let mut helper = Helper::start(&words);
            assert_eq!(helper.hear(), "ready", "the raw loop starts");
            return Self::Floor(helper, broker);
        }
        let home = Home::with(&installation(profile, ports));
        home.write("profiles/bench.yaml", &profile_text(profile, period_ms));
        let gateway = home.start();
        Self::Tidegate { gateway, _home: home }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Tidegate { gateway, .. } => gateway.port(),
            Self::Floor(_, broker) => broker.port(),
        }
    }

    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Tidegate { gateway, .. } => vec![gateway.pid()],
            Self::Floor(helper, broker) => vec![helper.pid(), broker.pid()],
        }
    }

    fn cpu(&self) -> Duration {
        self.pids().into_iter().map(process::cpu).sum()
    }

    fn rss(&self) -> u64 {
        self.pids().into_iter().map(process::rss).sum()
    }

    fn filter(&self) -> &'static str {
        match self {
            Self::Tidegate { .. } => "twin/+/reported/#",
            Self::Floor(..) => "raw/#",
        }
    }
}

fn installation(profile: &str, ports: &[u16]) -> String {
    let mut text = "schema: 1\ngateway: {id: bench, data: data}\nprofiles: [profiles]\n\
                    broker: {listeners: [{name: local, bind: \"127.0.0.1:0\"}]}\nconnections:\n"
        .to_owned();
    for (index, port) in ports.iter().enumerate() {
        let _ = writeln!(text, "  w{index:03}: {{modbus: {{tcp: \"127.0.0.1:{port}\", timeout: 2s}}}}");
    }
    text.push_str("devices:\n");
    for index in 0..ports.len() {
        let _ = writeln!(text, "  - {{id: d{index:03}, profile: bench.{profile}, connection: w{index:03}}}");
    }
    text
}

/// `std` has the twenty values; `latency` has one that changes by itself and one that can be written.
fn profile_text(profile: &str, period_ms: u64) -> String {
    // The shortest period there is stands for "flat out".
    let mut text = format!(
        "schema: 1\nid: bench.{profile}\nversion: 1.0.0\nmeta: {{vendor: Bench, model: Simulator}}\n\
         groups: {{fast: {{interval: {}ms}}}}\nproperties:\n",
        period_ms.max(1)
    );
    let mut property = |name: &str, rest: &str, address: u16, layout: &str| {
        let from = format!("from: {{modbus: {{table: holding, address: {address}, type: {layout}}}}}");
        let _ = writeln!(text, "  {name}: {{{rest}, group: fast, {from}}}");
    };
    if profile == "std" {
        (0..10).for_each(|place| property(&format!("i{place}"), "type: int", place, "int16"));
        (0..10).for_each(|place| property(&format!("f{place}"), "type: number", 10 + 2 * place, "float32"));
    } else {
        property("changed", "type: number", CHANGING, "float32");
        property("out", "type: int, access: rw, write: {min: 0, max: 65535}", WRITABLE, "uint16");
    }
    text
}

// ---------------------------------------------------------------------------------------------- the subscriber

/// What the subscriber has seen.
#[derive(Default)]
struct Seen {
    messages: u64,
    values: u64,
    /// Values that went back, or that no read had.
    wrong: u64,
    /// From the device's answer to here, in microseconds, while `watching`.
    ages: Vec<u32>,
    watching: bool,
    /// Devices before this one are ill, and not looked at.
    ill: usize,
    /// The newest counter of each value of each device, modulo its own range; place 10 is the stamp.
    newest: Vec<[Option<u32>; STD_VALUES]>,
}

const PLACE_OF_STAMP: usize = 10;

/// What a value of a place counts modulo.
fn range(place: usize) -> u32 {
    match place {
        0..=9 => INTS,
        PLACE_OF_STAMP => 1 << 24,
        _ => 1 << 16,
    }
}

/// What must have arrived at a place once a device stands at counter `n`.
fn expected(n: u32, stamp: u32, place: usize) -> u32 {
    if place == PLACE_OF_STAMP { stamp } else { n % range(place) }
}

impl Seen {
    fn value(&mut self, device: usize, place: usize, value: f64, now_us: u64) {
        self.values += 1;
        let shift = f64::from(u32::try_from(place % 10).unwrap_or_default());
        let counter = match place {
            0..=9 => value - shift * 1000.0,
            PLACE_OF_STAMP => value,
            _ => value * 2.0 - shift,
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "brought into range before")]
        let counter = counter.rem_euclid(f64::from(range(place))) as u32;
        if place == PLACE_OF_STAMP && self.watching && device >= self.ill {
            self.ages.push(age_us(counter, now_us));
        }
        let Some(newest) = self.newest.get_mut(device).and_then(|places| places.get_mut(place)) else {
            self.wrong += 1;
            return;
        };
        let ahead = newest.map_or(0, |newest| (counter + range(place) - newest) % range(place));
        self.wrong += u64::from(ahead > range(place) / 2 || value.fract() != 0.0 && place <= PLACE_OF_STAMP);
        *newest = Some(counter);
    }

    /// `twin/d017/reported/i3` with `{"value":12,…`
    fn take_tidegate(&mut self, topic: &[u8], payload: &[u8], now_us: u64) -> Option<()> {
        let topic = std::str::from_utf8(topic).ok()?;
        let device = topic.get(6..9)?.parse().ok()?;
        let property = topic.rsplit('/').next()?;
        let place: usize = property.get(1..)?.parse().ok()?;
        let place = if property.starts_with('f') { place + 10 } else { place };
        let text = std::str::from_utf8(payload).ok()?.strip_prefix("{\"value\":")?;
        let value = text.split([',', '}']).next()?.parse().ok()?;
        self.value(device, place, value, now_us);
        Some(())
    }

    /// `raw/17` with `{"i0":1,…,"f9":2.5}`
    fn take_floor(&mut self, topic: &[u8], payload: &[u8], now_us: u64) -> Option<()> {
        let device = std::str::from_utf8(topic.get(4..)?).ok()?.parse().ok()?;
        let text = std::str::from_utf8(payload).ok()?;
        for (place, pair) in text.trim_matches(['{', '}']).split(',').enumerate() {
            self.value(device, place, pair.split_once(':')?.1.parse().ok()?, now_us);
        }
        Some(())
    }
}

/// A QoS 0 subscriber on a thread of its own.
struct Subscriber {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    fn start(side: &Side, devices: usize) -> Self {
        let seen = Arc::new(Mutex::new(Seen { newest: vec![[None; STD_VALUES]; devices], ..Seen::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = Client::connect(side.port(), "bench-subscriber");
        client.patience(Duration::from_millis(100));
        client.subscribe_unheard(side.filter(), 0);
        let ours = matches!(side, Side::Tidegate { .. });
        let (shared, end) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let mut seen: Option<MutexGuard<'_, Seen>> = None;
                client.receive(|packet| {
                    let Packet::Publish { topic, payload, .. } = packet else { return };
                    let seen = seen.get_or_insert_with(|| shared.lock().expect("no reader panics"));
                    seen.messages += 1;
                    let now = now_us();
                    let taken = match ours {
                        true => seen.take_tidegate(topic, payload, now),
                        false => seen.take_floor(topic, payload, now),
                    };
                    seen.wrong += u64::from(taken.is_none());
                });
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no reader panics")
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// ---------------------------------------------------------------------------------------------- std workload

/// Figures of one round, in this order.
const FIGURES: [&str; 10] = [
    "values/s",
    "of those read",
    "CPU ms per 1,000",
    "age p50 ms",
    "age p99 ms",
    "gap p50 ms",
    "gap p99 ms",
    "RSS MiB",
    "last values missed by the subscriber",
    "not in the twins",
];

fn std_workload(run: &Run, name: &str, period_ms: u64, watched: Duration) {
    let (mut ours, mut floor) = (Rounds::default(), Rounds::default());
    for round in 0..run.rounds() {
        for (kind, rounds) in [(Kind::Tidegate, &mut ours), (Kind::Floor, &mut floor)] {
            let figures = std_round(kind, period_ms, watched);
            let text: Vec<String> = figures.iter().map(|value| figure(*value)).collect();
            note(&format!("{name} round {round} {kind:?} (load {}): {}", process::load(), text.join(" · ")));
            rounds.add(&figures);
        }
    }
    let title = format!("wire → subscriber, {DEVICES} devices × {STD_VALUES} values, {name}");
    let mut table = Table::new(&title, &[&["side"], FIGURES.as_slice()].concat());
    for (side, rounds) in [("Tidegate", &ours), ("raw loop + mosquitto", &floor)] {
        let mut cells = vec![side.to_owned()];
        cells.extend((0..FIGURES.len() - 2).map(|column| figure(rounds.median(column))));
        // A loss is not averaged away.
        cells.extend((FIGURES.len() - 2..FIGURES.len()).map(|column| figure(rounds.most(column))));
        table.row(&cells);
    }
    let mut cells = vec!["Tidegate / floor".to_owned()];
    cells.extend((0..FIGURES.len() - 2).map(|column| ratio(ours.median(column), floor.median(column))));
    cells.extend([String::new(), String::new()]);
    table.row(&cells);
    table.print();
    // A QoS 0 subscriber that is flooded may miss messages; the twins may not.
    let lost = ours.most(FIGURES.len() - 1);
    assert_eq!(lost, 0.0, "{name}: the twins do not hold the last values of devices that stand still");
}

fn std_round(kind: Kind, period_ms: u64, watched: Duration) -> [f64; 10] {
    let mut device = Modsim::start(DEVICES);
    let side = Side::start(kind, "std", period_ms, device.ports());
    let subscriber = Subscriber::start(&side, DEVICES);
    within(SETTLE, "every value of every device", || {
        let all = subscriber.seen().newest.iter().all(|places| places.iter().all(Option::is_some));
        all.then_some(())
    });
    sleep(Duration::from_secs(1).max(Duration::from_millis(period_ms)));
    lull(&subscriber, Duration::from_millis(period_ms));

    device.reset();
    let (began_us, cpu) = (now_us(), side.cpu());
    let values = {
        let mut seen = subscriber.seen();
        seen.watching = true;
        seen.values
    };
    sleep(watched);
    let (values, mut ages) = {
        let mut seen = subscriber.seen();
        seen.watching = false;
        (seen.values - values, std::mem::take(&mut seen.ages))
    };
    let (cpu, seconds) = (side.cpu().saturating_sub(cpu), Duration::from_micros(now_us() - began_us).as_secs_f64());
    let polls = device.polls();
    let rss = side.rss();

    let last = device.freeze();
    let missed = lost(&subscriber, &last);
    // What a new subscriber gets is what the twins hold.
    let lost = match kind {
        Kind::Tidegate => lost(&Subscriber::start(&side, DEVICES), &last) as f64,
        Kind::Floor => f64::NAN,
    };
    assert_eq!(subscriber.seen().wrong, 0, "{kind:?}: values that went back or that no device had");

    let values = values as f64;
    let read = polls.polls as f64 * STD_VALUES as f64;
    [
        values / seconds,
        values / read,
        each_us(cpu, values),
        quantile(&mut ages, 0.5) / 1e3,
        quantile(&mut ages, 0.99) / 1e3,
        polls.gap_p50 / 1e3,
        polls.gap_p99 / 1e3,
        mib(rss),
        missed as f64,
        lost,
    ]
}

/// Last values that have not arrived although the devices stand still.
fn lost(subscriber: &Subscriber, last: &[(u32, u32)]) -> usize {
    let missing = || {
        let seen = subscriber.seen();
        let places = (0..STD_VALUES).flat_map(|place| (0..DEVICES).map(move |device| (device, place)));
        let lacks = |(device, place): &(usize, usize)| {
            let (n, stamp) = last[*device];
            seen.newest[*device][*place] != Some(expected(n, stamp, *place))
        };
        places.filter(lacks).count()
    };
    let end = Instant::now() + LAST;
    while missing() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(20));
    }
    missing()
}

/// Waits for a pause between the polls, so that what is read and what arrives in the time to come belong together.
fn lull(subscriber: &Subscriber, period: Duration) {
    let (quiet, end) = (period / 4, Instant::now() + period * 4);
    let (mut seen, mut since) = (subscriber.seen().messages, Instant::now());
    while since.elapsed() < quiet && Instant::now() < end {
        sleep(Duration::from_millis(1));
        let now = subscriber.seen().messages;
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}
