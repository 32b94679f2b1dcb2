//! The port against a scripted Modbus TCP slave on a loopback socket: the scenarios of `modbus_scenarios.json` that are
//! the port's to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocols::codec::{Bits, DataType, Layout};
use protocols::config::{Connection, Device, Wire};
use protocols::modbus::{Table, Visitor};
use protocols::poll::Job;
use protocols::profile::{Property, Source};
use protocols::value::{Quality, Value, Why};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::port::{ModbusPort, PARKED_AGAIN_MS};
use crate::port::{CallError, Port, Sample, StepEnd};
use crate::samples;

/// What the slave holds and refuses, and what it was asked.
#[derive(Debug, Default)]
struct Slave {
    /// Holding registers by unit and address.
    registers: BTreeMap<(u8, u16), u16>,
    /// Any read that touches these is refused with exception 2.
    holes: BTreeSet<u16>,
    /// Function 22 is known.
    masks: bool,
    /// Requests as function, address and count or value.
    log: Vec<(u8, u16, u16)>,
}

impl Slave {
    fn answer(&mut self, unit: u8, pdu: &[u8]) -> Vec<u8> {
        let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
        let function = pdu[0];
        let refuse = |code: u8| vec![function | 0x80, code];
        if pdu.len() < 5 {
            return refuse(1);
        }
        let (address, second) = (word(1), word(3));
        self.log.push((function, address, second));
        match function {
            3 if (address..address + second).any(|at| self.holes.contains(&at)) => refuse(2),
            3 => {
                let values = (address..address + second)
                    .flat_map(|at| self.registers.get(&(unit, at)).copied().unwrap_or_default().to_be_bytes());
                let values: Vec<u8> = values.collect();
                [&[3, u8::try_from(values.len()).unwrap()], values.as_slice()].concat()
            }
            6 => {
                self.registers.insert((unit, address), second);
                pdu.to_vec()
            }
            16 => {
                for index in 0..second {
                    self.registers.insert((unit, address + index), word(6 + usize::from(index) * 2));
                }
                pdu[..5].to_vec()
            }
            22 if self.masks => {
                let held = self.registers.get(&(unit, address)).copied().unwrap_or_default();
                let or = word(5);
                self.registers.insert((unit, address), (held & second) | (or & !second));
                pdu.to_vec()
            }
            _ => refuse(1),
        }
    }
}

async fn serve(mut stream: TcpStream, slave: Arc<Mutex<Slave>>) -> std::io::Result<()> {
    loop {
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let mut pdu = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 1];
        stream.read_exact(&mut pdu).await?;
        let answer = slave.lock().unwrap().answer(head[6], &pdu);
        let length = u16::try_from(answer.len() + 1).unwrap().to_be_bytes();
        head[4..6].copy_from_slice(&length);
        stream.write_all(&[&head[..], &answer].concat()).await?;
    }
}

fn property(name: &str, address: u16, data: DataType, change: impl FnOnce(&mut Property, &mut Visitor)) -> Property {
    let mut visitor = Visitor {
        table: Table::Holding,
        address,
        layout: Layout::new(data),
        write_address: None,
        write_function: None,
    };
    samples::property(name, |property| {
        change(property, &mut visitor);
        property.source = Source::Modbus(visitor);
    })
}

fn device(unit: u8, properties: Vec<Property>) -> Arc<Device> {
    let profile = samples::profile(properties, |profile| profile.modbus.retries = 1);
    let device = samples::device(&format!("d{unit}"), &profile);
    Arc::new(Device { unit, ..(*device).clone() })
}

struct Rig {
    port: ModbusPort,
    slave: Arc<Mutex<Slave>>,
}

impl Rig {
    async fn new(slave: Slave, devices: Vec<Arc<Device>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let slave = Arc::new(Mutex::new(slave));
        let shared = Arc::clone(&slave);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        let mut port = ModbusPort::new(Arc::new(Connection {
            name: "plc".to_owned(),
            protocol: protocols::profile::Protocol::Modbus,
            wire: Wire::Tcp(address),
            timeout: Duration::from_secs(2),
            delay: Duration::ZERO,
            echo: false,
            in_flight: 1,
        }));
        for (number, device) in devices.into_iter().enumerate() {
            port.add(number, device);
        }
        port.open().await.unwrap();
        Self { port, slave }
    }

    /// One whole cycle of a device; gives its samples by property.
    async fn cycle(&mut self, device: usize, tick: u64) -> Vec<Sample> {
        let mut samples = Vec::new();
        for _ in 0..100 {
            let step = self.port.read(&[Job { device, group: 0 }], tick).await.remove(0);
            samples.extend(step.samples);
            match step.end {
                StepEnd::Part => {}
                StepEnd::Done => break,
                end => panic!("{end:?}"),
            }
        }
        samples.sort_by_key(|sample| sample.property);
        samples
    }

    fn take_log(&self) -> Vec<(u8, u16, u16)> {
        std::mem::take(&mut self.slave.lock().unwrap().log)
    }
}

fn good(property: usize, value: Value) -> Sample {
    Sample { property, value, quality: Quality::Good }
}

fn bad(property: usize, why: Why) -> Sample {
    Sample { property, value: Value::Null, quality: Quality::Bad(why) }
}

fn ten() -> Vec<Property> {
    (0..10_u16).map(|at| property(&format!("p{at}"), at, DataType::Uint16, |_, _| {})).collect()
}

#[tokio::test]
async fn read_exception_in_block() {
    let registers = (0..10).map(|at| ((1, at), at + 100)).collect();
    let mut rig = Rig::new(Slave { registers, holes: [4].into(), ..Slave::default() }, vec![device(1, ten())]).await;
    for _ in 0..3 {
        let samples = rig.cycle(0, 0).await;
        for (index, sample) in samples.iter().enumerate() {
            let expected = if index == 4 { bad(4, Why::Exception(2)) } else { good(index, json!(index + 100)) };
            assert_eq!(*sample, expected);
        }
        assert_eq!(samples.len(), 10);
    }
    rig.take_log();
    rig.cycle(0, 0).await;
    let asked = rig.take_log();
    assert!(asked.iter().all(|(_, at, count)| *count == 1 || !(*at..at + count).contains(&4)), "{asked:?}");
}

#[tokio::test]
async fn read_unsupported_register_parked() {
    let mut rig = Rig::new(Slave { holes: [4].into(), ..Slave::default() }, vec![device(1, ten())]).await;
    for tick in 0..100 {
        let samples = rig.cycle(0, tick * 1_000).await;
        assert_eq!(samples.len(), 10);
        assert_eq!(samples[4], bad(4, Why::Exception(2)), "visible as unsupported");
        assert_eq!(samples[5], good(5, json!(0)));
    }
    let asked = rig.take_log();
    let alone = asked.iter().filter(|(_, at, count)| *at == 4 && *count == 1).count();
    assert!(alone <= 6, "polled rarely: {alone} of 100");
    assert_eq!(rig.port.plan(0)["parked"][0]["property"], "p4");

    rig.slave.lock().unwrap().holes.clear();
    rig.port.unpark(0);
    assert_eq!(rig.cycle(0, 100_000).await[4], good(4, json!(0)), "a command brings it back");
}

#[tokio::test]
async fn a_parked_register_that_appears_is_found_by_itself() {
    let mut rig = Rig::new(Slave { holes: [4].into(), ..Slave::default() }, vec![device(1, ten())]).await;
    for tick in 0..10 {
        rig.cycle(0, tick * 1_000).await;
    }
    rig.slave.lock().unwrap().holes.clear();
    assert_eq!(rig.cycle(0, 11_000).await[4], bad(4, Why::Exception(2)));
    assert_eq!(rig.cycle(0, 10_000 + PARKED_AGAIN_MS).await[4], good(4, json!(0)));
}

#[tokio::test]
async fn multi_two_units_same_port() {
    let registers = [((1, 0), 11), ((2, 0), 22)].into();
    let one = || vec![property("p", 0, DataType::Uint16, |_, _| {})];
    let mut rig = Rig::new(Slave { registers, ..Slave::default() }, vec![device(1, one()), device(2, one())]).await;
    assert_eq!(rig.cycle(0, 0).await, [good(0, json!(11))]);
    assert_eq!(rig.cycle(1, 0).await, [good(0, json!(22))]);
}

#[tokio::test]
async fn value_sentinel() {
    let registers = [((1, 0), 0xFFFF)].into();
    let with_sentinel = property("p", 0, DataType::Uint16, |p, _| p.invalid = vec![json!(0xFFFF)]);
    let mut rig = Rig::new(Slave { registers, ..Slave::default() }, vec![device(1, vec![with_sentinel])]).await;
    assert_eq!(rig.cycle(0, 0).await, [bad(0, Why::Sentinel)]);
}

#[tokio::test]
async fn write_bitfield() {
    for (masks, declared, functions) in
        [(true, Some(22), vec![22]), (false, Some(22), vec![22, 3, 6]), (true, None, vec![3, 6])]
    {
        let field = property("p", 7, DataType::Uint16, |_, visitor| {
            visitor.layout.bits = Some(Bits { first: 0, last: 3 });
            visitor.write_function = declared;
        });
        let registers = [((1, 7), 0x00F0)].into();
        let mut rig = Rig::new(Slave { registers, masks, ..Slave::default() }, vec![device(1, vec![field])]).await;
        rig.port.write(0, 0, &json!(5)).await.unwrap();
        assert_eq!(rig.slave.lock().unwrap().registers[&(1, 7)], 0x00F5, "other bits unchanged");
        assert_eq!(rig.take_log().iter().map(|(function, ..)| *function).collect::<Vec<_>>(), functions);
        assert_eq!(rig.port.read_back(0, 0).await, Ok(good(0, json!(5))));
    }
}

#[tokio::test]
async fn write_float_multi() {
    let float = property("p", 10, DataType::Float32, |_, _| {});
    let mut rig = Rig::new(Slave::default(), vec![device(1, vec![float])]).await;
    rig.port.write(0, 0, &json!(21.5)).await.unwrap();
    assert_eq!(rig.take_log(), [(16, 10, 2)], "one function 16, never two of function 6");
    // IEEE 754: 21.5 = 0x41AC0000.
    let slave = rig.slave.lock().unwrap();
    assert_eq!((slave.registers[&(1, 10)], slave.registers[&(1, 11)]), (0x41AC, 0x0000));
}

#[tokio::test]
async fn a_refused_write_names_its_exception_and_a_silly_value_never_leaves() {
    let word = property("p", 0, DataType::Uint16, |_, visitor| visitor.write_function = Some(6));
    let mut rig = Rig::new(Slave::default(), vec![device(1, vec![word])]).await;
    assert!(matches!(rig.port.write(0, 0, &json!(70_000)).await, Err(CallError::Invalid(_))));
    assert!(rig.take_log().is_empty());
    let raw = json!({"op": "write", "unit": 1, "table": "coil", "address": 3, "value": true});
    assert_eq!(rig.port.raw(&raw).await, Err(CallError::Refused(1)));
    let raw = json!({"op": "write", "unit": 1, "table": "holding", "address": 3, "values": [1, -1]});
    assert_eq!(rig.port.raw(&raw).await, Ok(json!({})));
    let raw = json!({"op": "read", "unit": 1, "table": "holding", "address": 3, "count": 2});
    assert_eq!(rig.port.raw(&raw).await, Ok(json!({"registers": [1, 65_535]})));
    let raw = json!({"op": "write", "unit": 1, "table": "holding", "address": 8, "type": "float32", "order": "CDAB", "value": 21.5});
    assert_eq!(rig.port.raw(&raw).await, Ok(json!({})));
    let raw = json!({"op": "read", "unit": 1, "table": "holding", "address": 8, "type": "float32", "order": "CDAB"});
    assert_eq!(rig.port.raw(&raw).await, Ok(json!({"registers": [0x0000, 0x41AC], "value": 21.5})));
}

#[tokio::test]
async fn a_scan_finds_who_answers_even_with_a_refusal() {
    let mut rig = Rig::new(Slave::default(), vec![]).await;
    let found = rig.port.look(3, &[]).await.unwrap().unwrap();
    assert_eq!(found["address"], 3);
}

#[tokio::test]
async fn tcp_single_client() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio_util::sync::CancellationToken;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let registers = [((1, 0), 11), ((2, 0), 22), ((3, 0), 33)].into();
    let slave = Arc::new(Mutex::new(Slave { registers, ..Slave::default() }));
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream, Arc::clone(&slave)));
        }
    });
    for in_flight in [1, 8] {
        accepted.store(0, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            name: "plc".to_owned(),
            protocol: protocols::profile::Protocol::Modbus,
            wire: Wire::Tcp(address.clone()),
            timeout: Duration::from_secs(2),
            delay: Duration::ZERO,
            echo: false,
            in_flight,
        });
        let devices = (1..=3).map(|unit| device(unit, vec![property("p", 0, DataType::Uint16, |_, _| {})]));
        let (_list, receiver) = tokio::sync::watch::channel(devices.collect());
        let (bus, mut far) = crate::bus::pair();
        let stop = CancellationToken::new();
        let host = crate::host::Host::new(crate::host::Setup {
            port: ModbusPort::new(Arc::clone(&connection)),
            connection,
            bus,
            root: "twin".to_owned(),
            devices: receiver,
            probes: Arc::new(Vec::new),
            clock: crate::clock::Clock::new(),
            stop: stop.clone(),
        });
        let task = tokio::spawn(host.run());
        let mut read = BTreeMap::new();
        let all = async {
            while read.len() < 3 {
                let Some(crate::bus::Outgoing::Publish(message)) = far.out.recv().await else { continue };
                let payload: Value = serde_json::from_slice(&message.payload).unwrap();
                if message.topic.ends_with("reported/set") {
                    read.insert(message.topic, payload["readings"]["p"].clone());
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), all).await.unwrap();
        assert_eq!(read.into_values().collect::<Vec<_>>(), [json!(11), json!(22), json!(33)]);
        assert_eq!(accepted.load(Ordering::Relaxed), 1, "one connection for three devices");
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    }
}
