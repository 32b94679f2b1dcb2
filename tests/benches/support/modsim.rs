//! A light Modbus TCP device on many ports, in a process of its own, whose values say when and in which order they
//! were given.
//!
//! In: functions 3, 4, 6 and 16, any unit. Out: registers by the map below; on request no answer, or no connection. Must never be the limit of a measurement:
//! one thread, one write for all requests that came together.
//!
//! The map. Every read that begins at register 0 counts the port's counter `n` up by one, so all of its twenty values
//! ("std") differ from those of the read before, and reporting on change has something to say each time:
//!
//! | registers | what |
//! |---|---|
//! | 0..=9 | ten int16: [`int`] of `n` |
//! | 10..=11 | float32: [`stamp`] of the moment of the answer |
//! | 12..=29 | nine float32: [`float`] of `n` |
//! | 30..=999 | uint16: `n` + address |
//! | 1000..=1015 | what was written there last |
//! | 2000..=2001 | float32: [`stamp`] of the last change; it changes 150 to 350 ms after the change before |

use std::cell::RefCell;
use std::io::{BufRead, Write};
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::process::Helper;
use super::table::quantile;
use super::{Random, now_us};

/// Registers of the std workload.
pub const STD_REGISTERS: u16 = 30;
/// Values of the std workload.
pub const STD_VALUES: usize = 20;
/// The writable registers begin here.
pub const WRITABLE: u16 = 1000;
/// The register that changes by itself.
pub const CHANGING: u16 = 2000;
/// Gaps between polls that are kept; later ones are not looked at.
const GAPS: usize = 2_000_000;
/// Stamps begin again after so many steps of 10 µs: the integers a float32 holds exactly.
const STAMPS: u64 = 1 << 24;

/// A moment as a float32 can carry it: steps of 10 µs, beginning again after 168 s.
pub fn stamp(now_us: u64) -> u32 {
    u32::try_from(now_us / 10 % STAMPS).unwrap_or_default()
}

/// How long ago a stamp was, in microseconds.
pub fn age_us(stamp: u32, now_us: u64) -> u32 {
    let steps = (now_us / 10 + STAMPS - u64::from(stamp)) % STAMPS;
    // Rounding of the stamp may put it a step ahead of a clock that has just been read.
    if steps > STAMPS / 2 { 0 } else { u32::try_from(steps * 10).unwrap_or(u32::MAX) }
}

/// What an int16 begins again at.
pub const INTS: u32 = 30_000;

/// The int16 of place 0..=9 for a counter.
pub fn int(n: u32, place: usize) -> i16 {
    let place = u32::try_from(place).unwrap_or_default();
    i16::try_from((n + place * 1000) % INTS).unwrap_or_default()
}

/// The float32 of place 1..=9 for a counter.
pub fn float(n: u32, place: usize) -> f32 {
    #[allow(clippy::cast_precision_loss, reason = "below 2^17, exact")]
    let whole = ((n & 0xFFFF) as usize + place) as f32;
    whole * 0.5
}

/// A write that reached a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The port's index.
    pub port: usize,
    /// What was written.
    pub value: u16,
    /// When, on the clock of [`now_us`].
    pub at_us: u64,
}

/// How a gateway polled since the last reset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Polls {
    /// Reads that begin at register 0.
    pub polls: u64,
    /// All requests.
    pub requests: u64,
    /// Gaps between polls of one port, in microseconds.
    pub gap_p50: f64,
    /// As above.
    pub gap_p99: f64,
}

/// The devices as a measurement holds them.
#[derive(Debug)]
pub struct Modsim {
    helper: Helper,
    ports: Vec<u16>,
}

impl Modsim {
    /// Starts this many devices, each on a port of its own.
    pub fn start(ports: usize) -> Self {
        let mut helper = Helper::start(&["modsim".to_owned(), ports.to_string()]);
        let ports = serde_json::from_str(&helper.hear()).expect("the simulator says its ports");
        Self { helper, ports }
    }

    /// Their ports.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The simulator's process id.
    pub fn pid(&self) -> u32 {
        self.helper.pid()
    }

    /// Begins to count anew.
    pub fn reset(&mut self) {
        assert_eq!(self.helper.ask("reset"), "true");
    }

    /// What was counted.
    pub fn polls(&mut self) -> Polls {
        let said = self.order("polls");
        let number = |key: &str| said[key].as_f64().unwrap_or(f64::NAN);
        let count = |key: &str| said[key].as_u64().unwrap_or_default();
        Polls {
            polls: count("polls"),
            requests: count("requests"),
            gap_p50: number("gap_p50"),
            gap_p99: number("gap_p99"),
        }
    }

    /// Stops all change, and gives each port's counter and stamp: what must be seen everywhere in the end.
    pub fn freeze(&mut self) -> Vec<(u32, u32)> {
        serde_json::from_value(self.order("freeze")).expect("the simulator says where it stopped")
    }

    /// From now on the first `count` devices do not answer (`drop`), hang up and take no connection (`down`), or are
    /// well (`none`).
    pub fn fault(&mut self, fault: &str, count: usize) {
        assert_eq!(self.helper.ask(&format!("fault {fault} {count}")), "true");
    }

    /// The writes since the last call.
    pub fn writes(&mut self) -> Vec<Written> {
        let writes: Vec<(usize, u16, u64)> =
            serde_json::from_value(self.order("writes")).expect("the simulator says what was written");
        writes.into_iter().map(|(port, value, at_us)| Written { port, value, at_us }).collect()
    }

    fn order(&mut self, order: &str) -> Value {
        serde_json::from_str(&self.helper.ask(order)).expect("the simulator answers in JSON")
    }
}

struct Device {
    n: u32,
    stamp: u32,
    polled_us: Option<u64>,
    changed_us: u64,
    next_change_us: u64,
    writable: [u16; 16],
}

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    /// It does not answer.
    Drop,
    /// It hangs up, and takes no connection.
    Down,
}

struct World {
    devices: Vec<Device>,
    faults: Vec<Fault>,
    frozen: bool,
    polls: u64,
    requests: u64,
    gaps: Vec<u32>,
    writes: Vec<(usize, u16, u64)>,
    random: Random,
}

/// The simulator's process: prints its ports, then serves until standard input ends.
pub fn serve(words: &[String]) {
    let count = words.first().and_then(|word| word.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime can be made");
    tokio::task::LocalSet::new().block_on(&runtime, run(count));
}

async fn run(count: usize) {
    let now = now_us();
    let device =
        || Device { n: 0, stamp: stamp(now), polled_us: None, changed_us: now, next_change_us: now, writable: [0; 16] };
    let world = Rc::new(RefCell::new(World {
        devices: (0..count).map(|_| device()).collect(),
        faults: vec![Fault::None; count],
        frozen: false,
        polls: 0,
        requests: 0,
        gaps: Vec::with_capacity(100_000),
        writes: Vec::new(),
        random: Random::new(1),
    }));
    let mut ports = Vec::new();
    for index in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        ports.push(listener.local_addr().expect("a bound socket has an address").port());
        let world = world.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if world.borrow().fault(index) == Fault::Down {
                    continue;
                }
                let _ = stream.set_nodelay(true);
                tokio::task::spawn_local(speak(stream, index, world.clone()));
            }
        });
    }
    let (give, mut orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if give.send(line).is_err() {
                return;
            }
        }
    });
    say(&json!(ports));
    while let Some(order) = orders.recv().await {
        let answer = world.borrow_mut().obey(&order);
        say(&answer);
    }
}

fn say(answer: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{answer}");
    let _ = out.flush();
}

async fn speak(mut stream: TcpStream, index: usize, world: Rc<RefCell<World>>) {
    let mut inbox = vec![0; 16 * 1024];
    let mut filled = 0;
    let mut outbox = Vec::with_capacity(16 * 1024);
    while let Ok(count) = stream.read(&mut inbox[filled..]).await {
        if count == 0 {
            return;
        }
        filled += count;
        match world.borrow().fault(index) {
            Fault::None => {}
            Fault::Drop => {
                filled = 0;
                continue;
            }
            Fault::Down => return,
        }
        let used = world.borrow_mut().answer(index, &inbox[..filled], &mut outbox);
        inbox.copy_within(used..filled, 0);
        filled -= used;
        if stream.write_all(&outbox).await.is_err() {
            return;
        }
        outbox.clear();
    }
}

impl World {
    fn fault(&self, index: usize) -> Fault {
        self.faults.get(index).copied().unwrap_or_default()
    }

    fn set_fault(&mut self, words: &str) -> bool {
        let Some((fault, count)) = words.split_once(' ') else { return false };
        let fault = match fault {
            "drop" => Fault::Drop,
            "down" => Fault::Down,
            _ => Fault::None,
        };
        let count: usize = count.parse().unwrap_or_default();
        self.faults.fill(Fault::None);
        self.faults.iter_mut().take(count).for_each(|place| *place = fault);
        true
    }

    fn obey(&mut self, order: &str) -> Value {
        match order {
            order if order.starts_with("fault ") => json!(self.set_fault(order.trim_start_matches("fault "))),
            "reset" => {
                (self.polls, self.requests) = (0, 0);
                self.gaps.clear();
                self.devices.iter_mut().for_each(|device| device.polled_us = None);
                json!(true)
            }
            "polls" => json!({
                "polls": self.polls, "requests": self.requests,
                "gap_p50": quantile(&mut self.gaps, 0.5), "gap_p99": quantile(&mut self.gaps, 0.99),
            }),
            "freeze" => {
                self.frozen = true;
                json!(self.devices.iter().map(|device| (device.n, device.stamp)).collect::<Vec<_>>())
            }
            "writes" => json!(std::mem::take(&mut self.writes)),
            _ => json!(false),
        }
    }

    /// Answers all whole requests; gives how many bytes they were.
    fn answer(&mut self, index: usize, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let mut used = 0;
        while let Some([t0, t1, _, _, l0, l1, unit, rest @ ..]) = bytes.get(used..) {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            let Some(pdu) = rest.get(..length.saturating_sub(1)) else { break };
            used += 6 + length.max(1);
            let start = out.len();
            out.extend([*t0, *t1, 0, 0, 0, 0, *unit]);
            self.requests += 1;
            self.pdu(index, pdu, out);
            let length = u16::try_from(out.len() - start - 6).unwrap_or_default().to_be_bytes();
            out[start + 4..start + 6].copy_from_slice(&length);
        }
        used
    }

    fn pdu(&mut self, index: usize, pdu: &[u8], out: &mut Vec<u8>) {
        match *pdu {
            [function @ (3 | 4), a0, a1, c0, c1] => {
                let (address, count) = (u16::from_be_bytes([a0, a1]), u16::from_be_bytes([c0, c1]));
                let known = [(0, 1000), (WRITABLE, WRITABLE + 16), (CHANGING, CHANGING + 2)];
                let end = address.saturating_add(count);
                if count == 0 || count > 125 || !known.iter().any(|(from, to)| address >= *from && end <= *to) {
                    return out.extend([function | 0x80, 2]);
                }
                self.before_read(index, address);
                out.push(function);
                out.push(u8::try_from(count * 2).unwrap_or_default());
                let device = &self.devices[index];
                (address..end).for_each(|address| out.extend(device.register(address).to_be_bytes()));
            }
            [6, a0, a1, v0, v1] => {
                out.extend(pdu);
                self.write(index, u16::from_be_bytes([a0, a1]), u16::from_be_bytes([v0, v1]));
            }
            [16, a0, a1, c0, c1, _, ref values @ ..] => {
                out.extend([16, a0, a1, c0, c1]);
                let address = u16::from_be_bytes([a0, a1]);
                for (offset, pair) in (0..).zip(values.chunks_exact(2)) {
                    self.write(index, address + offset, u16::from_be_bytes([pair[0], pair[1]]));
                }
            }
            [function, ..] => out.extend([function | 0x80, 1]),
            [] => {}
        }
    }

    fn before_read(&mut self, index: usize, address: u16) {
        let now = now_us();
        let device = &mut self.devices[index];
        if address == 0 {
            self.polls += 1;
            if let Some(before) = device.polled_us.replace(now)
                && self.gaps.len() < GAPS
            {
                self.gaps.push(u32::try_from(now - before).unwrap_or(u32::MAX));
            }
            if !self.frozen {
                device.n = device.n.wrapping_add(1);
                device.stamp = stamp(now);
            }
        }
        if address == CHANGING && now >= device.next_change_us && !self.frozen {
            device.changed_us = device.next_change_us;
            device.next_change_us = now + 150_000 + self.random.below(200_000);
        }
    }

    fn write(&mut self, index: usize, address: u16, value: u16) {
        let place = usize::from(address.wrapping_sub(WRITABLE));
        if let Some(register) = self.devices[index].writable.get_mut(place) {
            *register = value;
            self.writes.push((index, value, now_us()));
        }
    }
}

impl Device {
    fn register(&self, address: u16) -> u16 {
        let half = |value: f32, low: bool| {
            let bits = value.to_bits();
            u16::try_from(if low { bits & 0xFFFF } else { bits >> 16 }).unwrap_or_default()
        };
        #[allow(clippy::cast_precision_loss, reason = "stamps are integers a float32 holds")]
        let moment = |stamp: u32| stamp as f32;
        let low = address % 2 == 1;
        match address {
            0..=9 => int(self.n, usize::from(address)).cast_unsigned(),
            10..=11 => half(moment(self.stamp), low),
            12..=29 => half(float(self.n, usize::from((address - 10) / 2)), low),
            CHANGING.. => half(moment(stamp(self.changed_us)), low),
            WRITABLE.. => self.writable.get(usize::from(address - WRITABLE)).copied().unwrap_or_default(),
            _ => u16::try_from(self.n & 0xFFFF).unwrap_or_default().wrapping_add(address),
        }
    }
}
