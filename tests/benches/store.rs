//! What the twin store costs a flash card, and how fast a desired value is safe.
//!
//! First table: the store alone, in a process of its own, against plain SQLite rows in the same run. 10,000 devices of
//! 10 properties; every update is one property, drawn evenly. Tidegate gathers what changes within a flush, as its
//! twins do: 20,000 updates a flush stand for 20,000/s at `flush: 1s`; in the 30 s case every property changes once a
//! second and reaches the disk every thirtieth time. Flushes follow one another without a pause, so updates/s is what
//! the store takes, not a rate that was set. Bytes are `write_bytes` of `/proc/PID/io`, closing included.
//!
//! Second table: the whole gateway. Readings come over MQTT as a mapper's would, 20,000 a second; desired values are set over
//! MQTT at QoS 1, and their PUBACK means that they are on disk: the gateway is killed at the end and asked again.
//! Beside it the least that is as safe: SQLite rows, one transaction each, `synchronous=FULL`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use gateway::store::{Options, ReportedWrite, Store, TwinWrite};
use protocols::message::ReportedOut;
use protocols::name::{DeviceId, PropertyName};
use protocols::value::{Quality, Timestamp};
use serde_json::json;
use tempfile::TempDir;
use tests::gateway::{Gateway, Home};
use tests::support::mqtt::{Client, Packet};
use tests::support::process::{self, Helper};
use tests::support::table::{Rounds, Table, each_us, figure, mib, note, quantile, ratio, say};
use tests::support::{Random, Run, child, now_us};
use tests::within;

/// Devices.
const DEVICES: usize = 10_000;
/// Properties of each.
const PROPERTIES: usize = 10;
/// Updates that are gathered for one flush.
const GATHERED: usize = 20_000;
/// Seconds of the long coalescing.
const LONG_S: usize = 30;
/// Units behind one wire: ids 1 to 247 are devices.
const UNITS: usize = 200;
/// Longest wait for something to come true.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    match child().as_deref() {
        Some([kind, rest @ ..]) if kind == "ours" => return ours(rest),
        Some([kind, rest @ ..]) if kind == "sqlite" => return sqlite(rest),
        Some(words) => panic!("no such helper: {words:?}"),
        None => {}
    }
    let run = Run::new("store");
    run.head();
    say(&format!("SQLite {} through rusqlite, in both", rusqlite::version()));
    if run.wants("rows") {
        rows(&run);
    }
    if run.wants("readings") {
        readings(&run);
    }
    if run.wants("desired") {
        desired(&run);
    }
}

// ---------------------------------------------------------------------------------------------- the store alone

fn rows(run: &Run) {
    let random = run.count(400_000).to_string();
    let single = run.count(100_000).to_string();
    let flushes = run.count(10).to_string();
    let cases: [(&str, &[&str]); 6] = [
        ("Tidegate, 1 s flush", &["ours", "random", &random]),
        ("SQLite rows, batch 1", &["sqlite", "random", &single, "1"]),
        ("SQLite rows, batch 100", &["sqlite", "random", &single, "100"]),
        ("SQLite rows, gathered 1 s and sorted", &["sqlite", "gathered", &random, "0"]),
        ("Tidegate, 1 Hz each, 30 s coalescing", &["ours", "long", &flushes]),
        ("SQLite rows, 1 Hz each, 30 s coalescing, sorted", &["sqlite", "long", &flushes, "0"]),
    ];
    let mut sides: Vec<Rounds> = cases.iter().map(|_| Rounds::default()).collect();
    for round in 0..run.rounds() {
        for ((name, words), rounds) in cases.iter().zip(&mut sides) {
            let folder = TempDir::new().expect("there is room for a folder");
            let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            words.push(folder.path().to_string_lossy().into_owned());
            let said = Helper::start(&words).hear();
            let figures: Vec<f64> = serde_json::from_str(&said).expect("a helper says its figures");
            note(&format!("{name} round {round} (load {}): {figures:.2?}", process::load()));
            rounds.add(&figures);
        }
    }
    let title = format!("the store alone, {DEVICES} devices × {PROPERTIES} properties");
    let columns = ["store", "updates/s", "CPU µs an update", "bytes a 1,000 updates", "commit p50 ms", "p99 ms"];
    let mut table = Table::new(&title, &columns);
    for ((name, _), rounds) in cases.iter().zip(&sides) {
        let mut cells = vec![(*name).to_owned()];
        cells.extend((0..5).map(|column| figure(rounds.median(column) * if column == 2 { 1000.0 } else { 1.0 })));
        table.row(&cells);
    }
    for (name, ours, theirs) in [("1 s flush / batch 1", 0, 1), ("1 s flush / batch 100", 0, 2), ("30 s / 30 s", 4, 5)]
    {
        let mut cells = vec![format!("Tidegate {name}")];
        let pair = |column| (sides[ours].median(column), sides[theirs].median(column));
        cells.push(ratio(pair(0).0, pair(0).1));
        cells.push(ratio(pair(1).0, pair(1).1));
        cells.push(format!("1/{}", ratio(pair(2).1, pair(2).0)));
        cells.extend([String::new(), String::new()]);
        table.row(&cells);
    }
    table.print();
}

/// What one process measured while it wrote.
struct Meter {
    began: Instant,
    cpu: Duration,
    written: u64,
    commits_us: Vec<u32>,
}

impl Meter {
    fn start() -> Self {
        let own = std::process::id();
        Self { began: Instant::now(), cpu: process::cpu(own), written: process::written(own), commits_us: Vec::new() }
    }

    fn commit(&mut self, commit: impl FnOnce()) {
        let began = Instant::now();
        commit();
        self.commits_us.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }

    /// Prints updates/s, CPU, bytes an update, and the commits' quantiles.
    fn tell(mut self, updates: usize, seconds: Duration) {
        let own = std::process::id();
        let updates = updates as f64;
        let figures = [
            updates / seconds.as_secs_f64(),
            each_us(process::cpu(own) - self.cpu, updates),
            (process::written(own) - self.written) as f64 / updates,
            quantile(&mut self.commits_us, 0.5) / 1e3,
            quantile(&mut self.commits_us, 0.99) / 1e3,
        ];
        say(&json!(figures).to_string());
    }
}

/// `(device, property) → value`, as the twins hold it.
type Model = Vec<[u32; PROPERTIES]>;

fn model() -> Model {
    vec![[0; PROPERTIES]; DEVICES]
}

fn device_name(device: usize) -> String {
    format!("device-{device:05}")
}

fn property_name(property: usize) -> String {
    format!("property_{property}")
}

/// Draws updates for one flush; a property drawn twice is written once.
fn gather(random: &mut Random, model: &mut Model, count: usize) -> BTreeMap<usize, Vec<usize>> {
    let mut changed: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for _ in 0..count {
        let key = usize::try_from(random.below((DEVICES * PROPERTIES) as u64)).unwrap_or_default();
        let (device, property) = (key / PROPERTIES, key % PROPERTIES);
        model[device][property] = u32::try_from(random.below(100_000)).unwrap_or_default();
        let properties = changed.entry(device).or_default();
        if !properties.contains(&property) {
            properties.push(property);
        }
    }
    changed
}

fn everything() -> BTreeMap<usize, Vec<usize>> {
    (0..DEVICES).map(|device| (device, (0..PROPERTIES).collect())).collect()
}

/// A measured value with one decimal, as most readings have.
fn value(number: u32) -> serde_json::Value {
    json!(f64::from(number) / 10.0)
}

/// `<random|long> <updates|flushes> <folder>`
fn ours(words: &[String]) {
    let [mode, count, folder] = words else { panic!("what shall be written?") };
    let count: usize = count.parse().expect("a number");
    let folder = Path::new(folder);
    let devices: Vec<DeviceId> = (0..DEVICES).map(|device| device_name(device).parse().expect("a device id")).collect();
    let properties: Vec<PropertyName> =
        (0..PROPERTIES).map(|property| property_name(property).parse().expect("a property name")).collect();
    let (mut model, mut versions, mut random) = (model(), vec![0_u64; DEVICES], Random::new(3));
    let store = Store::open(folder, Options::default()).expect("a store can be made");
    let mut flush = |store: &Store, model: &Model, changed: &BTreeMap<usize, Vec<usize>>| {
        let at = Timestamp::from_ms(i64::try_from(now_us() / 1000).unwrap_or_default());
        let writes = changed.iter().map(|(device, places)| {
            let version = &mut versions[*device];
            let leaves = places.iter().map(|place| {
                *version += 1;
                let value = value(model[*device][*place]);
                let out = ReportedOut { value, quality: Quality::Good, at, version: *version, last_good: None };
                (properties[*place].clone(), Some(out))
            });
            let leaves = leaves.collect();
            TwinWrite::Reported(ReportedWrite { device: devices[*device].clone(), version: *version, leaves })
        });
        let (tell, told) = mpsc::channel();
        store.write(
            writes.collect(),
            Some(Box::new(move |result| {
                let _ = tell.send(result.is_ok());
            })),
        );
        assert!(told.recv().expect("the store answers"), "the store refuses");
    };
    flush(&store, &model, &everything());
    let mut meter = Meter::start();
    let updates = if mode == "random" {
        for _ in 0..count.div_ceil(GATHERED) {
            let changed = gather(&mut random, &mut model, GATHERED);
            meter.commit(|| flush(&store, &model, &changed));
        }
        count.div_ceil(GATHERED) * GATHERED
    } else {
        for _ in 0..count {
            for device in &mut model {
                device.fill_with(|| u32::try_from(random.below(100_000)).unwrap_or_default());
            }
            meter.commit(|| flush(&store, &model, &everything()));
        }
        count * LONG_S * DEVICES * PROPERTIES
    };
    let seconds = meter.began.elapsed();
    store.close();
    drop(store);
    meter.tell(updates, seconds);

    let again = Store::open(folder, Options::default()).expect("a store can be opened again");
    let found = again.load_twins();
    assert_eq!(found.len(), DEVICES, "every device is there again");
    for twin in found {
        let device: usize = twin.device.as_str()[7..].parse().expect("a number behind the dash");
        assert_eq!(twin.saved.reported_version, versions[device]);
        for (name, out) in &twin.saved.reported {
            let property: usize = name.as_str()[9..].parse().expect("a number behind the line");
            assert_eq!(out.value, value(model[device][property]), "the last value of {} {name}", twin.device);
        }
        assert_eq!(twin.saved.reported.len(), PROPERTIES);
    }
}

const UPSERT: &str = "INSERT INTO twin VALUES (?1, ?2, ?3, ?4, ?5) \
                      ON CONFLICT (device, property) DO UPDATE SET value = ?3, at = ?4, version = ?5";

fn plain(folder: &Path, synchronous: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(folder.join("plain.db")).expect("a database can be made");
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             CREATE TABLE twin (device TEXT, property TEXT, value TEXT, at INTEGER, version INTEGER,
                                PRIMARY KEY (device, property));"
        ))
        .expect("a table can be made");
    connection
}

/// `<random|gathered|long> <updates|flushes> <batch> <folder>`
fn sqlite(words: &[String]) {
    let [mode, count, batch, folder] = words else { panic!("what shall be written?") };
    let (count, batch): (usize, usize) = (count.parse().expect("a number"), batch.parse().expect("a number"));
    let (mut model, mut random, mut version) = (model(), Random::new(3), 0_i64);
    let mut connection = plain(Path::new(folder), "NORMAL");
    let mut write = |keys: &mut dyn Iterator<Item = (usize, usize, u32)>| {
        let at = i64::try_from(now_us() / 1000).unwrap_or_default();
        let transaction = connection.transaction().expect("a transaction begins");
        {
            let mut upsert = transaction.prepare_cached(UPSERT).expect("the statement is right");
            for (device, property, number) in keys {
                version += 1;
                let text = value(number).to_string();
                let row = (device_name(device), property_name(property), text, at, version);
                upsert.execute(row).expect("a row can be written");
            }
        }
        transaction.commit().expect("a transaction ends");
    };
    let all = || (0..DEVICES).flat_map(|device| (0..PROPERTIES).map(move |property| (device, property, 0)));
    write(&mut all());
    let mut meter = Meter::start();
    let updates = match mode.as_str() {
        "random" => {
            for _ in 0..count / batch {
                let mut keys = (0..batch).map(|_| {
                    let key = usize::try_from(random.below((DEVICES * PROPERTIES) as u64)).unwrap_or_default();
                    let number = u32::try_from(random.below(100_000)).unwrap_or_default();
                    (key / PROPERTIES, key % PROPERTIES, number)
                });
                meter.commit(|| write(&mut keys));
            }
            count / batch * batch
        }
        "gathered" => {
            for _ in 0..count.div_ceil(GATHERED) {
                let changed = gather(&mut random, &mut model, GATHERED);
                let keys = changed.iter().flat_map(|(device, places)| places.iter().map(|place| (*device, *place)));
                let mut keys: Vec<(usize, usize, u32)> = keys.map(|(d, p)| (d, p, model[d][p])).collect();
                keys.sort_unstable();
                meter.commit(|| write(&mut keys.into_iter()));
            }
            count.div_ceil(GATHERED) * GATHERED
        }
        _ => {
            for _ in 0..count {
                let mut keys = all().map(|(device, property, _)| {
                    (device, property, u32::try_from(random.below(100_000)).unwrap_or_default())
                });
                meter.commit(|| write(&mut keys));
            }
            count * LONG_S * DEVICES * PROPERTIES
        }
    };
    let seconds = meter.began.elapsed();
    connection.close().expect("a database can be closed");
    meter.tell(updates, seconds);
}

// ---------------------------------------------------------------------------------------------- the whole gateway

/// Starts the gateway without mappers: nobody but us reports and acknowledges.
fn start(home: &Home) -> Gateway {
    Gateway::start(home.path(), &["run", "--no-mappers", "-c", "gateway.yaml"])
}

/// The files of a gateway of so many devices.
fn gateway_of(devices: usize, flush: &str) -> Home {
    let mut text = format!(
        "schema: 1\ngateway: {{id: bench, data: data}}\nprofiles: [profiles]\ntwin: {{flush: {flush}}}\n\
         broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}], limits: {{retained: 500000, \
         retained_bytes: 268435456, queue_bytes: 134217728}}}}\nconnections:\n"
    );
    for wire in 0..devices.div_ceil(UNITS) {
        let _ = writeln!(text, "  w{wire}: {{modbus: {{tcp: \"127.0.0.1:{}\"}}}}", 40_000 + wire);
    }
    text.push_str("devices:\n");
    for device in 0..devices {
        let (wire, unit, name) = (device / UNITS, device % UNITS + 1, device_name(device));
        let _ =
            writeln!(text, "  - {{id: {name}, profile: bench.rows, connection: w{wire}, params: {{unit: {unit}}}}}");
    }
    let mut profile = "schema: 1\nid: bench.rows\nversion: 1.0.0\nmeta: {vendor: Bench, model: Rows}\n\
                       params: {unit: {type: int, min: 1, max: 247, default: 1}}\n\
                       groups: {slow: {interval: 1h}}\n\
                       modbus: {unit: \"${unit}\"}\nproperties:\n"
        .to_owned();
    for property in 0..PROPERTIES {
        let name = property_name(property);
        let from = format!("from: {{modbus: {{table: holding, address: {}, type: float32}}}}", property * 2);
        let _ = writeln!(profile, "  {name}: {{type: number, access: rw, group: slow, {from}}}");
    }
    let home = Home::with(&text);
    home.write("profiles/rows.yaml", &profile);
    home
}

/// Sends requests with a window, and gives how long each waited for its PUBACK in microseconds.
fn send_all(client: &mut Client, window: usize, requests: &mut dyn Iterator<Item = (String, String)>) -> Vec<u32> {
    let mut waits = Vec::new();
    let mut open: BTreeMap<u16, u64> = BTreeMap::new();
    let mut ids = (1..=50_000_u16).cycle();
    let mut more = true;
    while more || !open.is_empty() {
        while more && open.len() < window {
            let Some((topic, payload)) = requests.next() else {
                more = false;
                break;
            };
            let id = ids.next().unwrap_or(1);
            client.publish(&topic, payload.as_bytes(), 1, id);
            open.insert(id, now_us());
        }
        client.send();
        if open.is_empty() {
            break;
        }
        let came = client.receive(|packet| {
            if let Packet::Puback(id) = packet
                && let Some(at_us) = open.remove(&id)
            {
                waits.push(u32::try_from(now_us() - at_us).unwrap_or(u32::MAX));
            }
        });
        assert!(came, "the gateway does not acknowledge");
    }
    waits
}

/// Readings a second that a mapper gives, as many as are gathered for one flush above.
const READINGS_A_SECOND: usize = GATHERED;

fn readings(run: &Run) {
    let mut rounds = Rounds::default();
    for round in 0..run.rounds() {
        let figures = readings_once(run.count(400_000));
        note(&format!("readings round {round} (load {}): {figures:.2?}", process::load()));
        rounds.add(&figures);
    }
    let title = format!("the gateway: single readings over MQTT at QoS 0, {DEVICES} × {PROPERTIES}, flush 1 s");
    let columns = ["updates/s", "CPU µs an update", "bytes a 1,000 updates", "RSS MiB"];
    let mut table = Table::new(&title, &columns);
    table.row(&(0..4).map(|column| figure(rounds.median(column))).collect::<Vec<_>>());
    table.print();
}

fn readings_once(count: usize) -> [f64; 4] {
    let home = gateway_of(DEVICES, "1s");
    let gateway = start(&home);
    let pid = gateway.pid();
    let mut client = Client::connect(gateway.port(), "bench-mapper");
    let (mut random, mut model) = (Random::new(5), model());
    for device in &mut model {
        device.fill_with(|| u32::try_from(random.below(100_000)).unwrap_or_default());
    }
    let first = model.clone();
    pace(&mut client, READINGS_A_SECOND / PROPERTIES, DEVICES, |device| {
        let pairs = first[device].iter().enumerate();
        let pairs = pairs.map(|(place, number)| format!("\"{}\":{}", property_name(place), value(*number)));
        report(device, &pairs.collect::<Vec<_>>().join(","))
    });
    sleep(Duration::from_secs(3));

    let (began, cpu, written) = (Instant::now(), process::cpu(pid), process::written(pid));
    pace(&mut client, READINGS_A_SECOND, count, |_| {
        let key = usize::try_from(random.below((DEVICES * PROPERTIES) as u64)).unwrap_or_default();
        let (device, place) = (key / PROPERTIES, key % PROPERTIES);
        let number = u32::try_from(random.below(100_000)).unwrap_or_default();
        model[device][place] = number;
        report(device, &format!("\"{}\":{}", property_name(place), value(number)))
    });
    let seconds = began.elapsed().as_secs_f64();
    sleep(Duration::from_secs(3));
    let (cpu, written) = (process::cpu(pid) - cpu, process::written(pid) - written);
    let rss = process::rss(pid);
    assert_eq!(mismatches(&gateway, &model), 0, "the twins hold what was reported last");
    let count = count as f64;
    [count / seconds, each_us(cpu, count), written as f64 / count * 1000.0, mib(rss)]
}

/// Sends so many messages a second at QoS 0, in groups of 10 ms.
fn pace(client: &mut Client, rate: usize, count: usize, mut message: impl FnMut(usize) -> (String, String)) {
    let began = Instant::now();
    for number in 0..count {
        let (topic, payload) = message(number);
        client.publish(&topic, payload.as_bytes(), 0, 0);
        if number % (rate / 100).max(1) == 0 {
            client.send();
            let due =
                Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / u32::try_from(rate).unwrap_or(1);
            sleep(due.saturating_sub(began.elapsed()));
        }
    }
    client.send();
}

fn report(device: usize, readings: &str) -> (String, String) {
    (format!("twin/{}/reported/set", device_name(device)), format!("{{\"readings\":{{{readings}}}}}"))
}

/// Properties whose retained value is not the model's.
fn mismatches(gateway: &Gateway, model: &Model) -> usize {
    let mut client = Client::connect(gateway.port(), "bench-reader");
    client.patience(Duration::from_secs(5));
    client.subscribe_unheard("twin/+/reported/+", 0);
    let mut open: Vec<[bool; PROPERTIES]> = vec![[true; PROPERTIES]; DEVICES];
    let (mut left, end) = (DEVICES * PROPERTIES, Instant::now() + PATIENCE);
    while left > 0 && Instant::now() < end {
        let came = client.receive(|packet| {
            let Packet::Publish { topic, payload, .. } = packet else { return };
            let topic = std::str::from_utf8(topic).unwrap_or_default();
            let number = |from: usize, to: usize| topic.get(from..to).and_then(|text| text.parse::<usize>().ok());
            // twin/device-00017/reported/property_3
            let (Some(device), Some(place)) = (number(12, 17), number(topic.len() - 1, topic.len())) else { return };
            let wanted = format!("{{\"value\":{},", value(model[device][place]));
            if payload.starts_with(wanted.as_bytes()) && std::mem::take(&mut open[device][place]) {
                left -= 1;
            }
        });
        if !came {
            break;
        }
    }
    left
}

/// Devices of the desired case.
const WISHES: usize = 1000;

fn desired(run: &Run) {
    let mut sides: [Rounds; 4] = Default::default();
    for round in 0..run.rounds() {
        let ours = desired_once(run.count(5_000), run.count(40_000));
        let plain = [full(run.count(5_000), 1), full(run.count(40_000), 20)];
        note(&format!("desired round {round} (load {}): {ours:.2?} {plain:.2?}", process::load()));
        let all = ours.into_iter().chain(plain);
        sides.iter_mut().zip(all).for_each(|(rounds, figures)| rounds.add(&figures));
    }
    let columns = ["who", "sets/s", "p50 ms", "p99 ms", "CPU µs a set", "bytes a set"];
    let mut table = Table::new("desired set → accepted and on disk", &columns);
    let names = [
        "Tidegate over MQTT, window 1",
        "Tidegate over MQTT, window 20",
        "SQLite rows FULL, no MQTT, batch 1",
        "SQLite rows FULL, no MQTT, batch 20",
    ];
    for (name, rounds) in names.iter().zip(&sides) {
        let mut cells = vec![(*name).to_owned()];
        cells.extend((0..5).map(|column| figure(rounds.median(column))));
        table.row(&cells);
    }
    table.print();
}

fn desired_once(singles: usize, many: usize) -> [[f64; 5]; 2] {
    let home = gateway_of(WISHES, "5s");
    let gateway = start(&home);
    let pid = gateway.pid();
    let mut client = Client::connect(gateway.port(), "bench-app");
    client.patience(PATIENCE);
    sleep(Duration::from_secs(2));
    let mut last = vec![[0_usize; PROPERTIES]; WISHES];
    let mut number = 0;
    let figures = [(1, singles), (20, many)].map(|(window, count)| {
        let (began, cpu, written) = (Instant::now(), process::cpu(pid), process::written(pid));
        let mut sets = (0..count).map(|_| {
            number += 1;
            let (device, place) = (number % WISHES, number / WISHES % PROPERTIES);
            last[device][place] = number;
            let patch = format!("{{\"patch\":{{\"{}\":{number}}}}}", property_name(place));
            (format!("twin/{}/desired/set", device_name(device)), patch)
        });
        let mut waits = send_all(&mut client, window, &mut sets);
        let (seconds, count) = (began.elapsed().as_secs_f64(), count as f64);
        [
            count / seconds,
            quantile(&mut waits, 0.5) / 1e3,
            quantile(&mut waits, 0.99) / 1e3,
            each_us(process::cpu(pid) - cpu, count),
            (process::written(pid) - written) as f64 / count,
        ]
    });
    gateway.kill();
    let again = start(&home);
    let mut reader = Client::connect(again.port(), "bench-reader");
    reader.patience(Duration::from_secs(5));
    reader.subscribe_unheard("twin/+/desired/+", 0);
    let mut found = vec![[0_usize; PROPERTIES]; WISHES];
    within(PATIENCE, "every acknowledged set, after kill -9", || {
        reader.receive(|packet| {
            let Packet::Publish { topic, payload, .. } = packet else { return };
            let topic = std::str::from_utf8(topic).unwrap_or_default();
            let number = |from: usize, to: usize| topic.get(from..to).and_then(|text| text.parse::<usize>().ok());
            let (Some(device), Some(place)) = (number(12, 17), number(topic.len() - 1, topic.len())) else { return };
            let text = std::str::from_utf8(payload).unwrap_or_default();
            let value = text.split([':', ',', '.']).nth(1).and_then(|word| word.parse().ok());
            found[device][place] = value.unwrap_or_default();
        });
        (found == last).then_some(())
    });
    figures
}

/// Rows with `synchronous=FULL`, so many in a transaction.
fn full(count: usize, batch: usize) -> [f64; 5] {
    let folder = TempDir::new().expect("there is room for a folder");
    let mut connection = plain(folder.path(), "FULL");
    let own = std::process::id();
    let (began, cpu, written) = (Instant::now(), process::cpu(own), process::written(own));
    let mut waits = Vec::new();
    for number in (0..count).step_by(batch) {
        let begin = Instant::now();
        let transaction = connection.transaction().expect("a transaction begins");
        for number in number..number + batch {
            let key = (device_name(number % WISHES), property_name(number / WISHES % PROPERTIES));
            let row = (key.0, key.1, number.to_string(), 0, i64::try_from(number).unwrap_or_default());
            transaction.prepare_cached(UPSERT).and_then(|mut upsert| upsert.execute(row)).expect("a row is written");
        }
        transaction.commit().expect("a transaction ends");
        waits.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    let (seconds, count) = (began.elapsed().as_secs_f64(), count as f64);
    [
        count / seconds,
        quantile(&mut waits, 0.5) / 1e3,
        quantile(&mut waits, 0.99) / 1e3,
        each_us(process::cpu(own) - cpu, count),
        (process::written(own) - written) as f64 / count,
    ]
}
