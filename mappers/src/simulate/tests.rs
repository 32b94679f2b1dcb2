//! Simulated devices seen through the master and through another implementation's client.

use std::time::Duration;

use protocols::codec::{DataType, Decimal, Layout};
use protocols::config::{Connection, Wire};
use protocols::modbus::{Table, Visitor};
use protocols::profile::{Access, Kind, Property, SerialLine, Source, Write};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_modbus::prelude::{Reader, Writer};
use tokio_modbus::slave::{Slave, SlaveContext};

use super::*;
use crate::modbus::master::{CallError, Master, Target};

fn property(name: &str, kind: Kind, visitor: Visitor) -> Property {
    Property::new(name.parse().unwrap(), kind, Source::Modbus(visitor))
}

fn at(table: Table, address: u16, data: DataType) -> Visitor {
    Visitor { table, address, layout: Layout::new(data), write_address: None, write_function: None }
}

/// A meter with a setting: what the simulator has to get right, one of each.
fn profile() -> Arc<Profile> {
    let mut voltage = property("voltage", Kind::Number, at(Table::Input, 0, DataType::Float32));
    voltage.class = Some("voltage".to_owned());
    let mut energy = property("energy", Kind::Number, at(Table::Input, 10, DataType::Uint32));
    energy.unit = Some("kWh".to_owned());
    energy.scaling.scale = Decimal { mantissa: 1, places: 3 };
    let mut setpoint = property("setpoint", Kind::Number, at(Table::Holding, 100, DataType::Int16));
    setpoint.scaling.scale = Decimal { mantissa: 1, places: 1 };
    setpoint.access = Access::ReadWrite;
    setpoint.write = Write { min: Some(10.0), max: Some(30.0), ..Write::default() };
    let mut relay = property("relay", Kind::Bool, at(Table::Coil, 0, DataType::Bit));
    relay.access = Access::ReadWrite;
    let mut mode = property("mode", Kind::Enum, at(Table::Holding, 200, DataType::Uint16));
    mode.labels = [(3, "auto".to_owned()), (4, "manual".to_owned())].into();
    let elsewhere = Visitor { write_address: Some(300), ..at(Table::Input, 20, DataType::Uint16) };
    let mut limit = property("limit", Kind::Int, elsewhere);
    limit.access = Access::ReadWrite;
    let model = property("model", Kind::String, at(Table::DeviceId, 1, DataType::String));
    let mut profile = Profile::new("acme.meter", vec![voltage, energy, setpoint, relay, mode, limit, model]);
    profile.modbus.merge.forbidden = vec![(Table::Input, 15, 15)];
    Arc::new(profile)
}

fn master(wire: Wire) -> Master {
    Master::new(Arc::new(Connection {
        name: "w".to_owned(),
        protocol: protocols::profile::Protocol::Modbus,
        wire,
        timeout: Duration::from_millis(300),
        delay: Duration::ZERO,
        echo: false,
        in_flight: 1,
    }))
}

fn target(unit: u8) -> Target {
    Target { unit, timeout: Duration::from_millis(300), delay: Duration::ZERO }
}

fn read(table: Table, address: u16, count: u16) -> Request {
    Request::Read { table, address, count }
}

struct Running {
    handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<()>,
    addresses: Vec<SocketAddr>,
}

async fn run(simulator: Simulator) -> Running {
    let bound = simulator.bind().await.unwrap();
    let (handle, addresses, stop) = (bound.handle(), bound.addresses(), CancellationToken::new());
    Running { handle, addresses, task: tokio::spawn(bound.run(stop.clone())), stop }
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test]
async fn another_implementations_client_reads_live_values_and_writes_that_stick() {
    let running = run(Simulator::from_profile(profile(), 7, 1).tcp(anywhere())).await;
    let mut client = tokio_modbus::client::tcp::connect_slave(running.addresses[0], Slave(7)).await.unwrap();
    let words = client.read_input_registers(0, 2).await.unwrap().unwrap();
    let voltage = f32::from_bits(u32::from(words[0]) << 16 | u32::from(words[1]));
    assert!((220.0..240.0).contains(&voltage), "{voltage}");
    // Half way between 10.0 and 30.0, in tenths.
    assert_eq!(client.read_holding_registers(100, 1).await.unwrap().unwrap(), [200]);
    assert_eq!(client.read_holding_registers(200, 1).await.unwrap().unwrap(), [3]);
    client.write_single_register(100, 215).await.unwrap().unwrap();
    client.write_single_coil(0, true).await.unwrap().unwrap();
    client.write_multiple_registers(300, &[55]).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(client.read_holding_registers(100, 1).await.unwrap().unwrap(), [215]);
    assert_eq!(client.read_coils(0, 1).await.unwrap().unwrap(), [true]);
    assert_eq!(client.read_input_registers(20, 1).await.unwrap().unwrap(), [55]);
    assert_eq!(running.handle.value(7, "setpoint"), Some(json!(21.5)));
    // A hole reads as 0; what the profile forbids and what is far away does not read.
    assert_eq!(client.read_input_registers(2, 8).await.unwrap().unwrap(), [0; 8]);
    let illegal = Err(tokio_modbus::ExceptionCode::IllegalDataAddress);
    assert_eq!(client.read_input_registers(14, 2).await.unwrap(), illegal);
    assert_eq!(client.read_holding_registers(99, 2).await.unwrap(), illegal);
    client.set_slave(Slave(8));
    let target = Err(tokio_modbus::ExceptionCode::GatewayTargetDevice);
    assert_eq!(client.read_holding_registers(100, 1).await.unwrap(), target);

    running.handle.hold(7, "voltage", &json!(231.5)).unwrap();
    running.handle.hold(7, "mode", &json!("manual")).unwrap();
    client.set_slave(Slave(7));
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(client.read_input_registers(0, 2).await.unwrap().unwrap(), [0x4367, 0x8000]);
    assert_eq!(client.read_holding_registers(200, 1).await.unwrap().unwrap(), [4]);
    assert!(running.handle.hold(7, "nothing", &json!(1)).is_err());
    running.stop.cancel();
    running.task.await.unwrap();
}

#[test]
fn the_same_seed_lives_the_same_life() {
    let life = |seed| {
        let mut unit = Unit::new(profile(), seed);
        let at = |unit: &mut Unit, tick| (unit.value("voltage", tick), unit.value("energy", tick));
        // The order of questions does not matter.
        let late = at(&mut unit, 90_000);
        let early = at(&mut unit, 1_000);
        assert_eq!(at(&mut unit, 90_000), late);
        (early, late)
    };
    let (early, late) = life(4);
    assert_eq!(life(4), (early.clone(), late.clone()));
    assert_ne!(life(5).0, early);
    assert_ne!(early.0, late.0);
    let number = |value: Option<Value>| value.unwrap().as_f64().unwrap();
    assert!((number(late.1) - number(early.1) - 0.089).abs() < 0.0015);
}

#[tokio::test]
async fn units_share_a_pseudo_terminal_that_clients_open_again_and_again() {
    let link = std::env::temp_dir().join(format!("tidegate-simulator-{}", std::process::id()));
    let simulator = Simulator::new(1).unit(1, profile()).unit(2, profile());
    let running = run(simulator.pty(&link)).await;
    let wire = || Wire::Serial { port: link.to_str().unwrap().to_owned(), line: SerialLine::default() };
    for round in 0..3 {
        let mut master = master(wire());
        for unit in [1, 2] {
            let write = Request::WriteRegister { address: 100, value: 150 + round + u16::from(unit) };
            assert_eq!(master.call(target(unit), &write).await, Ok(Response::Written));
        }
        let expected = |unit| Ok(Response::Registers(vec![150 + round + unit]));
        assert_eq!(master.call(target(1), &read(Table::Holding, 100, 1)).await, expected(1));
        assert_eq!(master.call(target(2), &read(Table::Holding, 100, 1)).await, expected(2));
        assert_eq!(master.call(target(3), &read(Table::Holding, 100, 1)).await, Err(CallError::Timeout));
        let everybody = Request::WriteRegister { address: 100, value: 99 };
        assert_eq!(master.call(target(0), &everybody).await, Ok(Response::Written));
        for unit in [1, 2] {
            let held = master.call(target(unit), &read(Table::Holding, 100, 1)).await;
            assert_eq!(held, Ok(Response::Registers(vec![99])));
        }
        let identity = master.call(target(1), &Request::DeviceId { code: 4, object: 1 }).await;
        let objects = vec![(1, b"SIM".to_vec())];
        assert_eq!(identity, Ok(Response::DeviceId { conformity: 0x81, next: None, objects }));
    }
    running.stop.cancel();
    running.task.await.unwrap();
    assert!(std::fs::symlink_metadata(&link).is_err());
}

#[tokio::test]
async fn faults_come_when_asked_for_and_go_again() {
    let simulator = Simulator::from_profile(profile(), 1, 1).tcp(anywhere()).rtu_over_tcp(anywhere());
    let running = run(simulator.ascii_over_tcp(anywhere())).await;
    let addresses: Vec<String> = running.addresses.iter().map(SocketAddr::to_string).collect();
    let wires = [
        Wire::Tcp(addresses[0].clone()),
        Wire::RtuOverTcp(addresses[1].clone()),
        Wire::AsciiOverTcp(addresses[2].clone()),
    ];
    let request = read(Table::Holding, 100, 1);
    let good = Ok(Response::Registers(vec![200]));
    for (wire, damaged) in wires.into_iter().zip([CallError::Timeout, CallError::Crc, CallError::Crc]) {
        let mut master = master(wire);
        for (faults, expected) in [
            ("silence,limit=1", Err(CallError::Timeout)),
            ("exception=6,limit=1", Err(CallError::Exception(6))),
            ("crc,limit=1", Err(damaged)),
            ("silence,unit=2,limit=1", good.clone()),
            // The master asks again on a new connection.
            ("disconnect,limit=1", good.clone()),
        ] {
            running.handle.set_faults(faults.parse().unwrap());
            assert_eq!(master.call(target(1), &request).await, expected, "{faults}");
            assert_eq!(master.call(target(1), &request).await, good, "after {faults}");
        }
        let began = Instant::now();
        running.handle.set_faults("delay=120ms,limit=1".parse().unwrap());
        assert_eq!(master.call(target(1), &request).await, good);
        assert!(began.elapsed() >= Duration::from_millis(120));
    }
    assert_eq!(running.handle.counts().faults, 15);
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_profile_is_played_in_datagrams_and_in_ascii_on_a_pseudo_terminal() {
    let link = std::env::temp_dir().join(format!("tidegate-simulator-ascii-{}", std::process::id()));
    let bound = Simulator::from_profile(profile(), 1, 1).udp(anywhere()).ascii_pty(&link).bind().await.unwrap();
    let address = bound.udp_addresses()[0].to_string();
    let (stop, handle) = (CancellationToken::new(), bound.handle());
    let task = tokio::spawn(bound.run(stop.clone()));
    let line = SerialLine::default();
    for wire in [Wire::Udp(address), Wire::AsciiSerial { port: link.to_str().unwrap().to_owned(), line }] {
        let mut master = master(wire);
        let write = Request::WriteRegister { address: 100, value: 151 };
        assert_eq!(master.call(target(1), &write).await, Ok(Response::Written));
        let good = Ok(Response::Registers(vec![151]));
        assert_eq!(master.call(target(1), &read(Table::Holding, 100, 1)).await, good);
        handle.set_faults("silence,limit=1".parse().unwrap());
        assert_eq!(master.call(target(1), &read(Table::Holding, 100, 1)).await, Err(CallError::Timeout));
        assert_eq!(master.call(target(1), &read(Table::Holding, 100, 1)).await, good);
    }
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn several_clients_are_served_at_a_time() {
    let running = run(Simulator::from_profile(profile(), 1, 1).tcp(anywhere())).await;
    let mut masters: Vec<Master> = (0..20).map(|_| master(Wire::Tcp(running.addresses[0].to_string()))).collect();
    for _ in 0..3 {
        for master in &mut masters {
            assert!(master.call(target(1), &read(Table::Input, 0, 2)).await.is_ok());
        }
    }
    let counts = running.handle.counts();
    assert_eq!((counts.requests, counts.connections), (60, 20));
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn what_is_in_the_way_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Simulator::new(1).tcp(address).bind().await.unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on {address}: ")), "{error}");
    let file = std::env::temp_dir().join(format!("tidegate-in-the-way-{}", std::process::id()));
    std::fs::write(&file, "mine").unwrap();
    let error = Simulator::new(1).pty(&file).bind().await.unwrap_err().to_string();
    assert!(error.contains("something else is there"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    std::fs::remove_file(&file).unwrap();
}
