//! The raw loop: the least that could carry values from the wire to a broker.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use tests::support::modsim::{CHANGING, STD_REGISTERS, WRITABLE};
use tests::support::mqtt::{self, Packet};
use tests::support::table::say;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_modbus::client::{Reader as _, Writer as _};

/// Bytes that may wait for the broker.
const BACKLOG_BYTES: usize = 1 << 20;

/// What waits for the floor's broker.
#[derive(Default)]
struct Outbox {
    bytes: RefCell<Vec<u8>>,
    more: Notify,
    less: Notify,
}

/// The raw loop's process: `<std|latency> <mqtt port> <period in ms, 0 is flat out> <modbus port>…`
pub(super) fn floor(words: &[String]) {
    let [profile, numbers @ ..] = words else { panic!("what shall be read?") };
    let numbers: Vec<u64> = numbers.iter().map(|word| word.parse().expect("a number")).collect();
    let port = |number: u64| u16::try_from(number).expect("a port has 16 bits");
    let [broker, period_ms, devices @ ..] = numbers.as_slice() else { panic!("where is the broker?") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let outbox = Rc::new(Outbox::default());
        let mut sets = Vec::new();
        let count = u64::try_from(devices.len()).unwrap_or(1);
        for (index, device) in (0..).zip(devices) {
            let (give, take) = mpsc::channel(16);
            sets.push(give);
            let phase = Duration::from_micros(period_ms * 1000 * index / count);
            let period = Duration::from_millis(*period_ms);
            let (outbox, std) = (outbox.clone(), profile == "std");
            tokio::task::spawn_local(poll(index, port(*device), std, phase, period, take, outbox));
        }
        serve_broker(port(*broker), &outbox, &sets).await;
    });
}

async fn poll(
    index: u64,
    port: u16,
    std: bool,
    phase: Duration,
    period: Duration,
    mut sets: mpsc::Receiver<u16>,
    outbox: Rc<Outbox>,
) {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut context = tokio_modbus::client::tcp::connect(address).await.expect("the simulator listens");
    let begin = tokio::time::Instant::now() + phase;
    let mut ticks = (!period.is_zero()).then(|| tokio::time::interval_at(begin, period));
    let topic = format!("raw/{index}");
    let mut payload = String::new();
    loop {
        if let Some(ticks) = &mut ticks {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(value) = sets.recv() => {
                    context.write_single_register(WRITABLE, value).await.expect("an answer").expect("a written value");
                    continue;
                }
            }
        }
        let (address, count) = if std { (0, STD_REGISTERS) } else { (CHANGING, 2) };
        let registers = context.read_holding_registers(address, count).await.expect("an answer").expect("registers");
        payload.clear();
        payload.push('{');
        let (ints, floats) = registers.split_at(if std { 10 } else { 0 });
        for (place, register) in ints.iter().enumerate() {
            let _ = write!(payload, "\"i{place}\":{},", register.cast_signed());
        }
        for (place, pair) in floats.chunks_exact(2).enumerate() {
            let value = f32::from_bits(u32::from(pair[0]) << 16 | u32::from(pair[1]));
            let _ = write!(payload, "\"f{place}\":{value},");
        }
        payload.pop();
        payload.push('}');
        mqtt::publish(&mut outbox.bytes.borrow_mut(), &topic, payload.as_bytes(), 0, 0);
        outbox.more.notify_one();
        while outbox.bytes.borrow().len() > BACKLOG_BYTES {
            outbox.less.notified().await;
        }
    }
}

/// Sends what the loops have, and hands sets to them.
async fn serve_broker(port: u16, outbox: &Outbox, sets: &[mpsc::Sender<u16>]) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the broker listens");
    stream.set_nodelay(true).expect("a TCP socket has that option");
    let (mut reader, mut writer) = stream.into_split();
    let mut hello = Vec::new();
    mqtt::connect(&mut hello, "raw-loop");
    mqtt::subscribe(&mut hello, 1, "set/+", 0);
    writer.write_all(&hello).await.expect("the broker reads");
    say("ready");
    let send = async {
        let mut bytes = Vec::new();
        loop {
            outbox.more.notified().await;
            std::mem::swap(&mut bytes, &mut outbox.bytes.borrow_mut());
            outbox.less.notify_waiters();
            writer.write_all(&bytes).await.expect("the broker reads");
            bytes.clear();
        }
    };
    let take = async {
        let mut inbox = mqtt::Inbox::default();
        while let Ok(count) = reader.read(inbox.room()).await {
            assert!(count > 0, "the broker hung up");
            inbox.filled(count);
            inbox.drain(|packet| {
                let Packet::Publish { topic, payload, .. } = packet else { return };
                let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u16>().ok();
                let device = topic.get(4..).and_then(number).and_then(|index| sets.get(usize::from(index)));
                if let (Some(device), Some(value)) = (device, number(payload)) {
                    let _ = device.try_send(value);
                }
            });
        }
    };
    tokio::select! {
        () = send => {}
        () = take => {}
    }
}
