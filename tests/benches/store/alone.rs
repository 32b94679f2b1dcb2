//! The store alone, in a process of its own, against plain SQLite rows in the same run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gateway::store::{Options, ReportedWrite, Store, TwinWrite};
use protocols::message::ReportedOut;
use protocols::name::{DeviceId, PropertyName};
use protocols::value::{Quality, Timestamp};
use serde_json::json;
use tempfile::TempDir;
use tests::support::process::{self, Helper};
use tests::support::table::{Rounds, Table, each_us, figure, note, quantile, ratio, say};
use tests::support::{Random, Run, now_us};

use crate::model::{
    DEVICES, GATHERED, Model, PROPERTIES, UPSERT, device_name, everything, gather, model, plain, property_name, value,
};

/// Seconds of the long coalescing.
const LONG_S: usize = 30;

pub(crate) fn rows(run: &Run) {
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

/// `<random|long> <updates|flushes> <folder>`
pub(crate) fn ours(words: &[String]) {
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

/// `<random|gathered|long> <updates|flushes> <batch> <folder>`
pub(crate) fn sqlite(words: &[String]) {
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
