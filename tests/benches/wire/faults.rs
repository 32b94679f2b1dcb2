//! What ill devices cost the others, and whether thousands of sets all arrive among them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::mqtt::retained;
use tests::support::modsim::{Modsim, STD_VALUES};
use tests::support::mqtt::{Client, Packet};
use tests::support::process;
use tests::support::table::{Rounds, Table, each_us, figure, note, quantile, ratio};
use tests::support::{Random, Run};
use tests::within;

use super::latency::PERIOD_MS;
use super::{DEVICES, Kind, SETTLE, Side, Subscriber};

/// Devices that fall ill in the isolation case.
const ILL: usize = 10;
/// From the fall to the measurement: time-outs run out, devices count as away.
const FALLING: Duration = Duration::from_secs(8);

/// Ten of a hundred devices fall silent, or hang up: what that costs the others.
pub(super) fn isolation(run: &Run) {
    let kinds = ["none", "drop", "down"];
    let mut rounds = [Rounds::default(), Rounds::default(), Rounds::default()];
    let watched = run.watched(6);
    for round in 0..run.rounds() {
        for (kind, rounds) in kinds.into_iter().zip(&mut rounds) {
            let figures = isolation_round(kind, watched);
            let text: Vec<String> = figures.iter().map(|value| figure(*value)).collect();
            note(&format!("isolation round {round} {kind} (load {}): {}", process::load(), text.join(" · ")));
            rounds.add(&figures);
        }
    }
    let title = format!("{ILL} of {DEVICES} devices × {STD_VALUES} values ill, 100 ms: the other {}", DEVICES - ILL);
    let columns = ["fault of the ten", "age p50 ms", "age p99 ms", "values/s", "CPU ms per 1,000"];
    let mut table = Table::new(&title, &columns);
    for (kind, rounds) in kinds.iter().zip(&rounds) {
        let mut cells = vec![(*kind).to_owned()];
        cells.extend((0..columns.len() - 1).map(|column| figure(rounds.median(column))));
        table.row(&cells);
    }
    for (kind, ill) in kinds.iter().zip(&rounds).skip(1) {
        let mut cells = vec![format!("{kind} / none")];
        cells.extend((0..columns.len() - 1).map(|column| ratio(ill.median(column), rounds[0].median(column))));
        table.row(&cells);
    }
    table.print();
}

fn isolation_round(fault: &str, watched: Duration) -> [f64; 4] {
    let mut device = Modsim::start(DEVICES);
    let side = Side::start(Kind::Tidegate, "std", 100, device.ports());
    let subscriber = Subscriber::start(&side, DEVICES);
    within(SETTLE, "every value of every device", || {
        let all = subscriber.seen().newest.iter().all(|places| places.iter().all(Option::is_some));
        all.then_some(())
    });
    device.fault(fault, ILL);
    sleep(FALLING);
    let (began, cpu) = (Instant::now(), side.cpu());
    let before = {
        let mut seen = subscriber.seen();
        (seen.watching, seen.ill) = (true, ILL);
        seen.values
    };
    sleep(watched);
    let (values, mut ages) = {
        let mut seen = subscriber.seen();
        seen.watching = false;
        (seen.values - before, std::mem::take(&mut seen.ages))
    };
    let (values, seconds) = (values as f64, began.elapsed().as_secs_f64());
    let cpu = side.cpu().saturating_sub(cpu);
    [quantile(&mut ages, 0.5) / 1e3, quantile(&mut ages, 0.99) / 1e3, values / seconds, each_us(cpu, values)]
}

/// Sets of the case, over all devices.
const SETS: usize = 5_000;
/// Sets on their way to an acknowledgement.
const SETS_AT_ONCE: usize = 20;
/// Devices that fall silent now and then in this case.
const MOODY: usize = 5;

/// Thousands of sets between polls, while some devices have their moods: every device has to hold what was set last, and
/// its twin has to say so.
pub(super) fn sets(run: &Run) {
    let count = run.count(SETS);
    let mut table = Table::new(
        &format!(
            "{count} sets over {DEVICES} devices polled every {PERIOD_MS} ms, {MOODY} of them silent now and then"
        ),
        &["sets/s accepted", "until the last is applied, s", "not on the wire", "not applied"],
    );
    for round in 0..run.rounds() {
        let figures = sets_round(count);
        let cells: Vec<String> = figures.iter().map(|value| figure(*value)).collect();
        note(&format!("sets round {round} (load {}): {}", process::load(), cells.join(" · ")));
        table.row(&cells);
        assert_eq!((figures[2], figures[3]), (0.0, 0.0), "a set is lost");
    }
    table.print();
}

fn sets_round(count: usize) -> [f64; 4] {
    let mut device = Modsim::start(DEVICES);
    let side = Side::start(Kind::Tidegate, "latency", PERIOD_MS, device.ports());
    let mut client = Client::connect(side.port(), "bench-sets");
    let (mut random, mut last) = (Random::new(11), vec![None; DEVICES]);
    let began = Instant::now();
    let mut waiting = 0;
    for number in 1..=count {
        let port = usize::try_from(random.below(DEVICES as u64)).unwrap_or_default();
        last[port] = Some(number);
        let id = u16::try_from(number % 60_000 + 1).unwrap_or(1);
        client.publish(&format!("twin/d{port:03}/desired/out/set"), number.to_string().as_bytes(), 1, id);
        client.send();
        waiting += 1;
        while waiting >= SETS_AT_ONCE {
            client.receive(|packet| waiting -= usize::from(matches!(packet, Packet::Puback(_))));
        }
        match number % 500 {
            0 => device.fault("drop", MOODY),
            250 => device.fault("none", 0),
            _ => {}
        }
    }
    let accepted = count as f64 / began.elapsed().as_secs_f64();
    device.fault("none", 0);
    let (end, mut held) = (Instant::now() + SETTLE, vec![None; DEVICES]);
    let (mut unwritten, mut unapplied) = (count, count);
    while unwritten + unapplied > 0 && Instant::now() < end {
        for write in device.writes() {
            held[write.port] = Some(usize::from(write.value));
        }
        let said = retained(side.port(), &["twin/+/desired/out"]);
        let applied = |port: usize, number: usize| {
            let topic = format!("twin/d{port:03}/desired/out");
            said.iter().any(|message| {
                message.topic == topic && message.at("/value") == number && message.at("/state") == "applied"
            })
        };
        let wished = || last.iter().enumerate().filter_map(|(port, number)| Some((port, (*number)?)));
        unwritten = wished().filter(|(port, number)| held[*port] != Some(*number)).count();
        unapplied = wished().filter(|(port, number)| !applied(*port, *number)).count();
    }
    [accepted, began.elapsed().as_secs_f64(), unwritten as f64, unapplied as f64]
}
