//! How long one change takes up, and one `set` down.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::mqtt::retained;
use tests::support::modsim::{Modsim, age_us};
use tests::support::mqtt::{Client, Packet};
use tests::support::process;
use tests::support::table::{Rounds, Table, figure, note, quantile};
use tests::support::{Random, Run, now_us};

use super::{Kind, LAST, Side};

/// Devices of the latency case.
const FEW: usize = 10;
/// Their polling period.
pub(super) const PERIOD_MS: u64 = 100;

/// Changes and sets, one at a time.
pub(super) fn latency(run: &Run) {
    let (mut ours, mut floor) = (Rounds::default(), Rounds::default());
    let (watched, sets) = (run.watched(10), run.count(200));
    for round in 0..run.rounds() {
        for (kind, rounds) in [(Kind::Tidegate, &mut ours), (Kind::Floor, &mut floor)] {
            let figures = latency_round(kind, watched, sets);
            let text: Vec<String> = figures.iter().map(|value| figure(*value)).collect();
            note(&format!("latency round {round} {kind:?} (load {}): {}", process::load(), text.join(" · ")));
            rounds.add(&figures);
        }
    }
    let title = format!("latency in ms, {FEW} devices polled every {PERIOD_MS} ms, {sets} sets");
    let columns = ["side", "change → message p50", "p99", "set → wire p50", "p99", "set → applied p50", "p99"];
    let mut table = Table::new(&title, &columns);
    for (side, rounds) in [("Tidegate", &ours), ("raw loop + mosquitto", &floor)] {
        let mut cells = vec![side.to_owned()];
        cells.extend((0..6).map(|column| figure(rounds.median(column))));
        table.row(&cells);
    }
    table.print();
}

fn latency_round(kind: Kind, watched: Duration, sets: usize) -> [f64; 6] {
    let mut device = Modsim::start(FEW);
    let side = Side::start(kind, "latency", PERIOD_MS, device.ports());
    let ages = changes(&side, watched);
    let (wire, applied) = set_all(&side, &mut device, sets);
    let mut figures = [f64::NAN; 6];
    for (pair, mut values) in [ages, wire, applied].into_iter().enumerate() {
        figures[pair * 2] = quantile(&mut values, 0.5) / 1e3;
        figures[pair * 2 + 1] = quantile(&mut values, 0.99) / 1e3;
    }
    figures
}

/// From a change in a device to the message, in microseconds.
fn changes(side: &Side, watched: Duration) -> Vec<u32> {
    let (mut client, mut ages) = (Client::connect(side.port(), "bench-changes"), Vec::new());
    client.patience(Duration::from_millis(100));
    client.subscribe(side.filter(), 0);
    let began = now_us();
    let end = began + u64::try_from(watched.as_micros()).unwrap_or(u64::MAX);
    // Only news count: the floor repeats what has not changed, and the first word of a device may be of long ago.
    let mut newest = BTreeMap::new();
    while now_us() < end {
        client.receive(|packet| {
            let Packet::Publish { topic, payload, retained: false, .. } = packet else { return };
            if topic.starts_with(b"twin/") && !topic.ends_with(b"/changed") {
                return;
            }
            let text = std::str::from_utf8(payload).unwrap_or_default();
            let number = text.split([':', ',', '}']).nth(1).and_then(|word| word.parse::<f64>().ok());
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a stamp is below 2^24")]
            let stamp = number.expect("a stamp is a number") as u32;
            if newest.insert(topic.to_vec(), stamp).is_some_and(|before| before != stamp) {
                ages.push(age_us(stamp, now_us()));
            }
        });
    }
    ages
}

/// From a `set` to the device and to the word that it is applied, in microseconds.
fn set_all(side: &Side, device: &mut Modsim, sets: usize) -> (Vec<u32>, Vec<u32>) {
    let mut client = Client::connect(side.port(), "bench-sets");
    client.patience(Duration::from_millis(20));
    client.subscribe("twin/+/desired/out", 0);
    device.writes();
    let (mut random, mut sent, mut applied) = (Random::new(7), Vec::new(), Vec::new());
    for number in 1..=sets {
        let port = number % FEW;
        let topic = match side {
            Side::Tidegate { .. } => format!("twin/d{port:03}/desired/out/set"),
            Side::Floor(..) => format!("set/{port}"),
        };
        client.publish(&topic, number.to_string().as_bytes(), 0, 0);
        let at_us = now_us();
        client.send();
        sent.push((port, number, at_us));
        let next = at_us + 60_000 + random.below(60_000);
        let wanted = format!("{{\"value\":{number},");
        while now_us() < next {
            client.receive(|packet| {
                if let Packet::Publish { payload, .. } = packet
                    && payload.starts_with(wanted.as_bytes())
                    && payload.windows(9).any(|window| window == b"\"applied\"")
                {
                    applied.push(u32::try_from(now_us() - at_us).unwrap_or(u32::MAX));
                }
            });
        }
    }
    let mut writes = device.writes();
    let end = Instant::now() + LAST;
    let mut open: Vec<&(usize, usize, u64)> = sent.iter().collect();
    while !open.is_empty() && Instant::now() < end {
        sleep(Duration::from_millis(20));
        writes.extend(device.writes());
        open.retain(|(port, number, _)| {
            !writes.iter().any(|write| write.port == *port && usize::from(write.value) == *number)
        });
    }
    if !open.is_empty() {
        let said = retained(side.port(), &["twin/+/desired/out", "twin/+/delta"]);
        note(&format!("not on the wire: {open:?} of {}; {said:?}", sent.len()));
    }
    assert!(open.is_empty(), "a set has not reached the wire");
    let wire = sent.iter().filter_map(|(port, number, at_us)| {
        let write = writes.iter().find(|write| write.port == *port && usize::from(write.value) == *number)?;
        u32::try_from(write.at_us.saturating_sub(*at_us)).ok()
    });
    (wire.collect(), applied)
}
