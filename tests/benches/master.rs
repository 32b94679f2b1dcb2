//! The Modbus TCP master alone, reading 125 registers as fast as answers come: ours, tokio-modbus, and raw frames on
//! tokio, which is the least there can be. One thread; the simulator is another process.
//!
//! Every answer's first and last register are checked. The second table has one connection on which requests may
//! overtake the answers: 16 in flight for ours and for raw frames; tokio-modbus has no such thing.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mappers::modbus::master::{Master, Target};
use protocols::config::{Connection, Wire};
use protocols::modbus::Table as Registers;
use protocols::modbus::pdu::{Request, Response};
use tests::support::modsim::{self, Modsim};
use tests::support::process;
use tests::support::table::{Rounds, Table, each_us, figure, note, ratio};
use tests::support::{Run, child};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_modbus::client::Reader as _;

/// Where the reads begin: registers there hold their own address.
const ADDRESS: u16 = 100;
/// The most one read may ask for.
const COUNT: u16 = 125;
/// Requests on their way in the second table.
const IN_FLIGHT: u16 = 16;
/// Requests handed to the master at once in the second table; they go to this many units.
const BATCH: u8 = 64;

fn main() {
    match child().as_deref() {
        Some([kind, words @ ..]) if kind == "modsim" => return modsim::serve(words),
        Some(words) => panic!("no such helper: {words:?}"),
        None => {}
    }
    let run = Run::new("master");
    run.head();
    let watched = run.watched(3);
    for connections in [1, 100] {
        let name = format!("{connections} connections");
        if run.wants(&name) {
            compare(&run, &name, &[Client::Ours, Client::TokioModbus, Client::Raw], connections, watched);
        }
    }
    if run.wants("in flight") {
        let clients = [Client::OursInFlight, Client::TokioModbus, Client::RawInFlight];
        compare(&run, "1 connection, 16 in flight where the client can", &clients, 1, watched);
    }
}

#[derive(Clone, Copy, Debug)]
enum Client {
    Ours,
    OursInFlight,
    TokioModbus,
    Raw,
    RawInFlight,
}

fn compare(run: &Run, name: &str, clients: &[Client; 3], connections: usize, watched: Duration) {
    let device = Modsim::start(connections);
    let mut sides = [Rounds::default(), Rounds::default(), Rounds::default()];
    for round in 0..run.rounds() {
        for (client, rounds) in clients.iter().zip(&mut sides) {
            let figures = measure(*client, device.ports(), device.pid(), watched);
            note(&format!("{name} round {round} {client:?} (load {}): {figures:.2?}", process::load()));
            rounds.add(&figures);
        }
    }
    let title = format!("reads of {COUNT} registers, {name}");
    let mut table = Table::new(&title, &["client", "requests/s", "CPU µs a request", "CPU µs of the simulator"]);
    for (client, rounds) in ["Tidegate's master", "tokio-modbus 0.17", "raw frames on tokio"].iter().zip(&sides) {
        let mut cells = vec![(*client).to_owned()];
        cells.extend((0..3).map(|column| figure(rounds.median(column))));
        table.row(&cells);
    }
    let [ours, peer, raw] = &sides;
    for (name, side) in [("Tidegate / tokio-modbus", peer), ("Tidegate / raw", raw)] {
        let ratios = (0..2).map(|column| ratio(ours.median(column), side.median(column)));
        table.row(&[vec![name.to_owned()], ratios.collect(), vec![String::new()]].concat());
    }
    table.print();
}

fn measure(client: Client, ports: &[u16], simulator: u32, watched: Duration) -> [f64; 3] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let local = tokio::task::LocalSet::new();
    let (count, stop) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
    for port in ports {
        let (count, stop) = (count.clone(), stop.clone());
        let port = *port;
        match client {
            Client::Ours => drop(local.spawn_local(ours(port, 1, count, stop))),
            Client::OursInFlight => drop(local.spawn_local(ours(port, IN_FLIGHT, count, stop))),
            Client::TokioModbus => drop(local.spawn_local(tokio_modbus(port, count, stop))),
            Client::Raw => drop(local.spawn_local(raw(port, 1, count, stop))),
            Client::RawInFlight => drop(local.spawn_local(raw(port, IN_FLIGHT, count, stop))),
        }
    }
    let own = std::process::id();
    local.block_on(&runtime, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (before, cpu, theirs) = (count.get(), process::cpu(own), process::cpu(simulator));
        let began = Instant::now();
        tokio::time::sleep(watched).await;
        let (requests, seconds) = ((count.get() - before) as f64, began.elapsed().as_secs_f64());
        let (cpu, theirs) = (process::cpu(own) - cpu, process::cpu(simulator) - theirs);
        stop.set(true);
        assert!(requests > 0.0, "{client:?} reads nothing");
        [requests / seconds, each_us(cpu, requests), each_us(theirs, requests)]
    })
}

fn check(registers: &[u16]) {
    assert_eq!(registers.len(), usize::from(COUNT));
    assert_eq!((registers.first(), registers.last()), (Some(&ADDRESS), Some(&(ADDRESS + COUNT - 1))));
}

async fn ours(port: u16, in_flight: u16, count: Rc<Cell<u64>>, stop: Rc<Cell<bool>>) {
    let timeout = Duration::from_secs(2);
    let mut master = Master::new(Arc::new(Connection {
        name: "bench".to_owned(),
        protocol: protocols::profile::Protocol::Modbus,
        wire: Wire::Tcp(format!("127.0.0.1:{port}")),
        timeout,
        delay: Duration::ZERO,
        echo: false,
        in_flight,
    }));
    let request = Request::Read { table: Registers::Holding, address: ADDRESS, count: COUNT };
    let target = |unit| Target { unit, timeout, delay: Duration::ZERO };
    let calls: Vec<(Target, Request)> = (1..=BATCH).map(|unit| (target(unit), request.clone())).collect();
    while !stop.get() {
        if in_flight == 1 {
            let Response::Registers(registers) = master.call(target(1), &request).await.expect("an answer") else {
                panic!("an answer to another question")
            };
            check(&registers);
            count.set(count.get() + 1);
            continue;
        }
        for result in master.call_many(&calls).await {
            let Response::Registers(registers) = result.expect("an answer") else {
                panic!("an answer to another question")
            };
            check(&registers);
            count.set(count.get() + 1);
        }
    }
}

async fn tokio_modbus(port: u16, count: Rc<Cell<u64>>, stop: Rc<Cell<bool>>) {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut context = tokio_modbus::client::tcp::connect(address).await.expect("the simulator listens");
    while !stop.get() {
        check(&context.read_holding_registers(ADDRESS, COUNT).await.expect("an answer").expect("registers"));
        count.set(count.get() + 1);
    }
}

/// A fixed request with a running transaction id, and answers of a known length: nothing is framed or checked beyond
/// what a right answer needs.
async fn raw(port: u16, in_flight: u16, count: Rc<Cell<u64>>, stop: Rc<Cell<bool>>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the simulator listens");
    stream.set_nodelay(true).expect("a TCP socket has that option");
    let length = 9 + 2 * usize::from(COUNT);
    let mut inbox = vec![0; length * usize::from(in_flight)];
    let (mut filled, mut outbox, mut open) = (0, Vec::new(), 0);
    let (mut next, mut answered) = (0_u16, 0_u16);
    while !stop.get() {
        outbox.clear();
        while open < in_flight {
            outbox.extend(next.to_be_bytes());
            outbox.extend([0, 0, 0, 6, 1, 3]);
            outbox.extend([ADDRESS, COUNT].map(u16::to_be_bytes).concat());
            next = next.wrapping_add(1);
            open += 1;
        }
        stream.write_all(&outbox).await.expect("the simulator reads");
        let more = stream.read(&mut inbox[filled..]).await.expect("the simulator answers");
        assert!(more > 0, "the simulator hung up");
        filled += more;
        let whole = filled / length;
        for answer in inbox[..whole * length].chunks_exact(length) {
            let registers: Vec<u16> =
                answer[9..].chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            assert_eq!(answer[..2], answered.to_be_bytes());
            answered = answered.wrapping_add(1);
            check(&registers);
            open -= 1;
            count.set(count.get() + 1);
        }
        inbox.copy_within(whole * length..filled, 0);
        filled -= whole * length;
    }
}
