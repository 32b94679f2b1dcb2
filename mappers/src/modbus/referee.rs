//! The master against the server of another implementation, tokio-modbus: every function both have, on Modbus TCP and
//! on a pseudo terminal.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocols::config::{Connection, Wire};
use protocols::modbus::Table;
use protocols::modbus::pdu::{Request, Response};
use protocols::profile::SerialLine;
use tokio::net::TcpListener;
use tokio_modbus as peer;
use tokio_modbus::prelude::{ConformityLevel, DeviceIdObject, ReadDeviceIdentificationResponse};
use tokio_modbus::server::tcp::accept_tcp_connection;
use tokio_serial::{SerialPort, SerialStream};

use super::master::{CallError, Master, Target};

/// The referee's memory: registers and coils below 1000; input registers are 7 more than their address.
#[derive(Clone, Default)]
struct Device {
    words: Arc<Mutex<BTreeMap<u16, u16>>>,
    coils: Arc<Mutex<BTreeMap<u16, bool>>>,
}

impl peer::server::Service for Device {
    type Request = peer::SlaveRequest<'static>;
    type Response = peer::Response;
    type Exception = peer::ExceptionCode;
    type Future = Ready<Result<Self::Response, Self::Exception>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        use peer::{Request as Q, Response as A};

        let mut words = self.words.lock().unwrap();
        let mut coils = self.coils.lock().unwrap();
        let read = |words: &BTreeMap<u16, u16>, first: u16, count: u16| -> Vec<u16> {
            (first..first + count).map(|at| words.get(&at).copied().unwrap_or_default()).collect()
        };
        ready(Ok(match request.request {
            Q::ReadHoldingRegisters(first, _) if first >= 1000 => {
                return ready(Err(peer::ExceptionCode::IllegalDataAddress));
            }
            Q::ReadHoldingRegisters(first, count) => A::ReadHoldingRegisters(read(&words, first, count)),
            Q::ReadInputRegisters(first, count) => A::ReadInputRegisters((first + 7..first + 7 + count).collect()),
            Q::ReadCoils(first, count) => {
                A::ReadCoils((first..first + count).map(|at| coils.get(&at) == Some(&true)).collect())
            }
            Q::ReadDiscreteInputs(first, count) => {
                A::ReadDiscreteInputs((first..first + count).map(|at| at % 3 == 0).collect())
            }
            Q::WriteSingleCoil(at, on) => {
                coils.insert(at, on);
                A::WriteSingleCoil(at, on)
            }
            Q::WriteSingleRegister(at, value) => {
                words.insert(at, value);
                A::WriteSingleRegister(at, value)
            }
            Q::WriteMultipleCoils(first, values) => {
                coils.extend((first..).zip(values.iter().copied()));
                A::WriteMultipleCoils(first, values.len() as u16)
            }
            Q::WriteMultipleRegisters(first, values) => {
                words.extend((first..).zip(values.iter().copied()));
                A::WriteMultipleRegisters(first, values.len() as u16)
            }
            Q::MaskWriteRegister(at, and, or) => {
                let word = words.entry(at).or_default();
                *word = (*word & and) | (or & !and);
                A::MaskWriteRegister(at, and, or)
            }
            Q::ReadWriteMultipleRegisters(first, count, at, values) => {
                words.extend((at..).zip(values.iter().copied()));
                A::ReadWriteMultipleRegisters(read(&words, first, count))
            }
            Q::ReadDeviceIdentification(read_code, first) => {
                let object = |(id, text): (u8, &str)| DeviceIdObject { id, value: text.as_bytes().to_vec().into() };
                let all = [(0, "Acme"), (1, "M-1"), (2, "1.0")];
                A::ReadDeviceIdentification(ReadDeviceIdentificationResponse {
                    read_code,
                    conformity_level: ConformityLevel::BasicIdentification,
                    more_follows: first == 0,
                    next_object_id: if first == 0 { 2 } else { 0 },
                    device_id_objects: all.into_iter().filter(|(id, _)| (first < 2) == (*id < 2)).map(object).collect(),
                })
            }
            _ => return ready(Err(peer::ExceptionCode::IllegalFunction)),
        }))
    }
}

async fn every_function(mut master: Master) {
    let target = Target { unit: 17, timeout: Duration::from_secs(5), delay: Duration::ZERO };
    let read = |table, address, count| Request::Read { table, address, count };
    let bits: Vec<bool> = (0..1968).map(|at| at % 7 < 2).collect();
    let values: Vec<u16> = (0..123).map(|at| at * 521).collect();
    let registers = |values: &[u16]| Ok(Response::Registers(values.to_vec()));
    let all: Vec<u16> = [&values[..], &[0, 0]].concat();
    for (request, expected) in [
        (Request::WriteRegister { address: 3, value: 0x1234 }, Ok(Response::Written)),
        (read(Table::Holding, 2, 3), registers(&[0, 0x1234, 0])),
        (Request::MaskWrite { address: 3, and: 0x00F2, or: 0x5525 }, Ok(Response::Written)),
        (read(Table::Holding, 3, 1), registers(&[0x1234 & 0xF2 | 0x5525 & !0xF2])),
        (Request::WriteRegisters { address: 0, values: values.clone() }, Ok(Response::Written)),
        (read(Table::Holding, 0, 125), registers(&all)),
        (read(Table::Input, 10, 125), registers(&(17..142).collect::<Vec<u16>>())),
        (
            Request::ReadWrite { read_address: 1, read_count: 2, write_address: 2, values: vec![9, 8] },
            registers(&[521, 9]),
        ),
        (Request::WriteCoil { address: 5, on: true }, Ok(Response::Written)),
        (read(Table::Coil, 4, 3), Ok(Response::Bits(vec![false, true, false]))),
        (Request::WriteCoils { address: 0, bits: bits.clone() }, Ok(Response::Written)),
        (read(Table::Coil, 0, 1968), Ok(Response::Bits(bits))),
        (read(Table::Discrete, 0, 9), Ok(Response::Bits((0..9).map(|at| at % 3 == 0).collect()))),
        (
            Request::DeviceId { code: 1, object: 0 },
            Ok(Response::DeviceId {
                conformity: 0x81,
                next: Some(2),
                objects: vec![(0, b"Acme".to_vec()), (1, b"M-1".to_vec())],
            }),
        ),
        (
            Request::DeviceId { code: 1, object: 2 },
            Ok(Response::DeviceId { conformity: 0x81, next: None, objects: vec![(2, b"1.0".to_vec())] }),
        ),
        (read(Table::Holding, 1000, 1), Err(CallError::Exception(2))),
    ] {
        assert_eq!(master.call(target, &request).await, expected, "{request:?}");
    }
    let counters = master.counters();
    assert_eq!((counters.requests, counters.answers, counters.exceptions), (16, 16, 1));
    assert_eq!(counters.dropped, super::master::Dropped::default());
}

fn master(wire: Wire) -> Master {
    Master::new(Arc::new(Connection {
        name: "w".to_owned(),
        protocol: protocols::profile::Protocol::Modbus,
        wire,
        timeout: Duration::from_secs(1),
        delay: Duration::ZERO,
        echo: false,
        in_flight: 1,
    }))
}

#[tokio::test]
async fn another_implementations_server_understands_every_function_on_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let device = Device::default();
    tokio::spawn(async move {
        let connected = |stream, from| {
            let device = device.clone();
            async move { accept_tcp_connection(stream, from, move |_| Ok(Some(device.clone()))) }
        };
        peer::server::tcp::Server::new(listener).serve(&connected, |_| {}).await
    });
    every_function(master(Wire::Tcp(address))).await;
}

#[tokio::test]
async fn another_implementations_server_understands_every_function_on_a_serial_line() {
    let (near, far) = SerialStream::pair().unwrap();
    let server = tokio::spawn(peer::server::rtu::Server::new(near).serve_forever(Device::default()));
    let line = SerialLine { baud: 115_200, ..SerialLine::default() };
    every_function(master(Wire::Serial { port: far.name().unwrap(), line })).await;
    server.abort();
}
