//! How much of a small board it takes: the binary, the memory, the time to the first service. mosquitto is beside it.
//!
//! Memory is `Rss` of `smaps_rollup` after a quiet time; growth by device is the difference between one device and a
//! hundred. The devices have 100 registers of which every one changes with every read, and one subscriber takes all.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::gateway::{Home, binary};
use tests::peers::Mosquitto;
use tests::support::modsim::{self, Modsim};
use tests::support::mqtt::{self, Client, Packet};
use tests::support::process;
use tests::support::table::{Rounds, Table, figure, mib, note, ratio, say};
use tests::support::{Run, child};
use tests::within;

/// Devices of the large case.
const DEVICES: usize = 100;
/// Registers of each.
const REGISTERS: usize = 100;
/// Clients of the crowd.
const CROWD: usize = 1000;
/// Resident memory of others of the kind, each with mosquitto beside it, in MiB. They are not run here: the figures were
/// measured on 22 November 2026 on a like machine (2 cores, Debian 12, mosquitto 2.0.11), idle unless it says otherwise.
const PEERS: [(&str, f64, Case); 3] = [
    ("thin-edge 2.0.1 (agent and two mappers) + mosquitto", 71.0, Case::Idle),
    ("KubeEdge edgecore 1.23-beta + mosquitto", 76.0, Case::Idle),
    ("Neuron + mosquitto, 100 devices", 39.0, Case::Many),
];
/// Longest wait for the first values of all devices.
const FIRST: Duration = Duration::from_secs(60);

/// What is compared: an idle gateway, or the large case.
enum Case {
    Idle,
    Many,
}

fn main() {
    match child().as_deref() {
        Some([kind, words @ ..]) if kind == "modsim" => return modsim::serve(words),
        Some(words) => panic!("no such helper: {words:?}"),
        None => {}
    }
    let run = Run::new("footprint");
    run.head();
    say(&process::mosquitto_version());
    size();
    if run.wants("start") {
        start(&run);
    }
    if run.wants("memory") {
        memory(&run);
    }
}

// ---------------------------------------------------------------------------------------------- size

fn size() {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
    let mut table = Table::new("binary", &["program", "MB"]);
    for (name, path) in
        [("tidegate, everything in one", binary()), ("mosquitto, the broker alone", Path::new("/usr/sbin/mosquitto"))]
    {
        table.row(&[name.to_owned(), figure(bytes(path) as f64 / 1e6)]);
    }
    table.print();
}

// ---------------------------------------------------------------------------------------------- start

/// Ends its process when dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(run: &Run) {
    let (mut fresh, mut again, mut theirs) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..run.rounds() * 3 {
        let home = Home::with(&installation(&[], 0));
        fresh.add(&[to_ready(&home)]);
        again.add(&[to_ready(&home)]);
        theirs.add(&[mosquitto_to_listening()]);
    }
    let mut table = Table::new("from the start of the process to service", &["program", "ms"]);
    table.row(&["tidegate, first start (makes its store), to `ready`".to_owned(), figure(fresh.median(0))]);
    table.row(&["tidegate, next start, after a kill".to_owned(), figure(again.median(0))]);
    table.row(&["mosquitto, to an accepted connection".to_owned(), figure(theirs.median(0))]);
    table.print();
}

/// Milliseconds until the gateway says that it is ready.
fn to_ready(home: &Home) -> f64 {
    let mut command = Command::new(binary());
    command.args(["run", "-c", "gateway.yaml"]).current_dir(home.path()).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let began = Instant::now();
    let mut owned = Owned(command.spawn().expect("tidegate can be started"));
    let output = BufReader::new(owned.0.stdout.take().expect("standard output is piped"));
    let ready = output.lines().map_while(Result::ok).any(|line| line == "ready");
    assert!(ready, "tidegate ended before it was ready");
    began.elapsed().as_secs_f64() * 1e3
}

fn mosquitto_to_listening() -> f64 {
    let port = tests::free_port();
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.args(["-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let owned = Owned(command.spawn().expect("mosquitto can be started"));
    let end = began + FIRST;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "mosquitto does not listen");
        sleep(Duration::from_micros(200));
    }
    let elapsed = began.elapsed().as_secs_f64() * 1e3;
    drop(owned);
    elapsed
}

// ---------------------------------------------------------------------------------------------- memory

fn memory(run: &Run) {
    let quiet = run.watched(10);
    let names =
        ["idle", "1 device × 100 registers, 100 ms", "100 devices × 100 registers, 100 ms", "1000 MQTT clients"];
    let mut ours = [Rounds::default(), Rounds::default(), Rounds::default(), Rounds::default()];
    let mut theirs = [Rounds::default(), Rounds::default()];
    for round in 0..run.rounds() {
        for (case, rounds) in ours.iter_mut().enumerate() {
            let rss = match case {
                0 => with_devices(0, quiet),
                1 => with_devices(1, quiet),
                2 => with_devices(DEVICES, quiet),
                _ => {
                    let gateway = Home::with(&installation(&[], 0));
                    let running = gateway.start();
                    let _crowd = crowd(running.port());
                    sleep(quiet / 5);
                    process::rss(running.pid())
                }
            };
            rounds.add(&[mib(rss)]);
        }
        let broker = Mosquitto::start("");
        sleep(quiet / 5);
        let idle = process::rss(broker.pid());
        let _crowd = crowd(broker.port());
        sleep(quiet / 5);
        for (rounds, rss) in theirs.iter_mut().zip([idle, process::rss(broker.pid())]) {
            rounds.add(&[mib(rss)]);
        }
        note(&format!("memory round {round} (load {}): {ours:.1?} {theirs:.1?}", process::load()));
    }
    let mut table = Table::new("memory, RSS in MiB", &["case", "Tidegate", "mosquitto", "Tidegate / mosquitto idle"]);
    let beside = [Some(&theirs[0]), None, None, Some(&theirs[1])];
    for ((name, rounds), peer) in names.iter().zip(&ours).zip(beside) {
        let peer = peer.map_or_else(|| "–".to_owned(), |rounds| figure(rounds.median(0)));
        let over = ratio(rounds.median(0), theirs[0].median(0));
        table.row(&[(*name).to_owned(), figure(rounds.median(0)), peer, over]);
    }
    let growth = (ours[2].median(0) - ours[1].median(0)) * 1024.0 / (DEVICES - 1) as f64;
    let each = (ours[3].median(0) - ours[0].median(0)) * 1024.0 / CROWD as f64;
    let peers = (theirs[1].median(0) - theirs[0].median(0)) * 1024.0 / CROWD as f64;
    table.row(&["KiB a device, from 1 to 100".to_owned(), figure(growth), "–".to_owned(), String::new()]);
    table.row(&["KiB a client".to_owned(), figure(each), figure(peers), ratio(each, peers)]);
    table.print();
    beside_others(ours[0].median(0), ours[2].median(0));
}

fn beside_others(idle: f64, many: f64) {
    let mut table =
        Table::new("memory beside others, RSS in MiB", &["product", "MiB", "Tidegate", "Tidegate / product"]);
    for (name, theirs, case) in PEERS {
        let ours = match case {
            Case::Idle => idle,
            Case::Many => many,
        };
        table.row(&[name.to_owned(), figure(theirs), figure(ours), ratio(ours, theirs)]);
    }
    table.print();
}

/// Resident memory with so many devices after a quiet time.
fn with_devices(count: usize, quiet: Duration) -> u64 {
    let device = Modsim::start(count.max(1));
    let home = Home::with(&installation(device.ports(), count));
    home.write("profiles/bench.yaml", &profile());
    let gateway = home.start();
    let mut client = Client::connect(gateway.port(), "footprint");
    client.patience(Duration::from_millis(100));
    client.subscribe("twin/+/reported/#", 0);
    let (stop, values) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (end, seen) = (stop.clone(), values.clone());
    let reader = std::thread::spawn(move || {
        while !end.load(Ordering::Relaxed) {
            client.receive(|packet| {
                seen.fetch_add(u64::from(matches!(packet, Packet::Publish { .. })), Ordering::Relaxed);
            });
        }
    });
    let all = (count * REGISTERS) as u64;
    within(FIRST, "the first values of all devices", || (values.load(Ordering::Relaxed) >= all).then_some(()));
    sleep(if count == 0 { quiet / 5 } else { quiet });
    let rss = process::rss(gateway.pid());
    stop.store(true, Ordering::Relaxed);
    reader.join().expect("the subscriber ends in order");
    rss
}

fn installation(ports: &[u16], devices: usize) -> String {
    let mut text = "schema: 1\ngateway: {id: bench, data: data}\nprofiles: [profiles]\n\
                    broker: {listeners: [{name: local, bind: \"127.0.0.1:0\"}], limits: {clients: 1200}}\n"
        .to_owned();
    if devices == 0 {
        return text.replace("profiles: [profiles]\n", "");
    }
    text.push_str("connections:\n");
    for (index, port) in ports.iter().enumerate() {
        let _ = writeln!(text, "  w{index:03}: {{modbus: {{tcp: \"127.0.0.1:{port}\", timeout: 2s}}}}");
    }
    text.push_str("devices:\n");
    for index in 0..devices {
        let _ = writeln!(text, "  - {{id: d{index:03}, profile: bench.wide, connection: w{index:03}}}");
    }
    text
}

/// 100 registers of 16 bits from register 0 on: the simulator counts such a read, and its values change with it.
fn profile() -> String {
    let mut text = "schema: 1\nid: bench.wide\nversion: 1.0.0\nmeta: {vendor: Bench, model: Simulator}\n\
                    groups: {fast: {interval: 100ms}}\nproperties:\n"
        .to_owned();
    for address in 0..REGISTERS {
        let from = format!("from: {{modbus: {{table: holding, address: {address}, type: uint16}}}}");
        let _ = writeln!(text, "  r{address}: {{type: int, group: fast, {from}}}");
    }
    text
}

/// Connects a crowd of clients with a subscription each.
fn crowd(port: u16) -> Vec<TcpStream> {
    (0..CROWD)
        .map(|index| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
            let mut hello = Vec::new();
            mqtt::connect(&mut hello, &format!("crowd-{index}"));
            mqtt::subscribe(&mut hello, 1, &format!("crowd/{index}/+"), 1);
            stream.write_all(&hello).expect("the broker reads");
            // CONNACK has 4 bytes, SUBACK of one filter 5 (MQTT 3.1.1, sections 3.2 and 3.9).
            let mut answer = [0; 9];
            stream.read_exact(&mut answer).expect("the broker answers");
            assert_eq!([answer[0], answer[3], answer[4], answer[8]], [0x20, 0, 0x90, 1], "the broker refuses");
            stream
        })
        .collect()
}
