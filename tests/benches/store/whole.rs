//! The whole gateway: readings and desired values over MQTT, and the least that is as safe beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::gateway::{Gateway, Home};
use tests::support::mqtt::{Client, Packet};
use tests::support::process;
use tests::support::table::{Rounds, Table, each_us, figure, mib, note, quantile};
use tests::support::{Random, Run, now_us};
use tests::within;

use crate::model::{DEVICES, GATHERED, Model, PROPERTIES, UPSERT, device_name, model, plain, property_name, value};

/// Units behind one wire: ids 1 to 247 are devices.
const UNITS: usize = 200;
/// Longest wait for something to come true.
const PATIENCE: Duration = Duration::from_secs(120);

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

pub(crate) fn readings(run: &Run) {
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

pub(crate) fn desired(run: &Run) {
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
