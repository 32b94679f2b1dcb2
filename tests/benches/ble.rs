//! What a busy air costs: 500 devices, 2,000 advertisements a second. First from the transport through the radio and the
//! decoders to the door of the host; then through the host and the broker to the twins, every packet with another temperature
//! that may be told at once. Prints processor time, memory and what was lost.
//!
//! The air is scripted (`mappers::ble::fake`), so the mapper of the second part is this process, on the broker of a gateway that
//! runs without mappers of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mappers::ble::fake::Air;
use mappers::ble::port::BlePort;
use mappers::bus::{MqttOptions, mqtt};
use mappers::clock::Clock;
use mappers::host::{Host, Setup};
use mappers::port::Port;
use protocols::ble::{AddressType, Advertisement, Identity, Mac, Uuid};
use protocols::config::{Connection, Device, Wire};
use protocols::profile::{Library, Wish};
use protocols::yaml::{Complaints, Place, read};
use tests::gateway::{Gateway, Home};
use tests::mqtt::Watch;
use tests::support::table::{Table, figure, mib};
use tests::support::{Run, process};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DEVICES: u16 = 500;
const PER_SECOND: u32 = 2_000;
const SECONDS: u32 = 20;

const PROFILE: &str = r#"schema: 1
id: bench.sensor
version: 1.0.0
meta: {vendor: bench, model: sensor}
params: {address: {type: string}}
ble:
  address: ${address}
  match: {service_data: "fcd2"}
  advertisement: {decode: bthome2}
  presence: {timeout: 5m}
properties:
  temperature: {type: number, from: {ble: {object: temperature}}}
  humidity: {type: number, from: {ble: {object: humidity}}}
  battery: {type: int, from: {ble: {object: battery}}}
  rssi: {type: int, from: {ble: {meta: rssi}}}
"#;

fn address(device: u16) -> Mac {
    let [high, low] = device.to_be_bytes();
    Mac([0xC0, 0, 0, 0, high, low])
}

fn device(library: &mut Library, number: u16) -> Arc<Device> {
    let mut complaints = Complaints::new();
    let params = read("bench", &format!("{{address: \"{}\"}}", address(number)), &mut complaints);
    let place = Place { file: "bench".into(), line: 1, column: 1 };
    let wish = Wish { profile: "bench.sensor", place: &place, params: params.as_ref(), over: None, is_unsafe: false };
    let resolved = library.resolve(&wish, &mut complaints).expect("the profile is in order");
    Arc::new(Device {
        id: format!("sensor-{number}").parse().expect("an id"),
        profile: resolved.profile,
        connection: "radio".to_owned(),
        unit: 1,
        ble: resolved.ble.or(Some(Identity::default())),
    })
}

fn said(device: u16, round: u32) -> Advertisement {
    let number = round.to_le_bytes()[0];
    let temperature = i16::try_from(2_000 + i64::from(round % 500)).expect("fits").to_le_bytes();
    let packet = vec![0x40, 0x00, number, 0x01, 90, 0x02, temperature[0], temperature[1], 0x03, 0x88, 0x13];
    Advertisement {
        address: Some(address(device)),
        address_type: AddressType::Random,
        rssi: Some(-60 - i8::try_from(round % 7).expect("small")),
        service_data: vec![(Uuid::from_u16(0xFCD2), packet)],
        ..Advertisement::default()
    }
}

/// Says so many packets a second for so long.
async fn speak(air: Air, seconds: u32) -> u32 {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut sent = 0u32;
    while sent < PER_SECOND * seconds {
        ticks.tick().await;
        let due = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX).saturating_mul(PER_SECOND) / 1_000;
        while sent < due.min(PER_SECOND * seconds) {
            let device = u16::try_from(sent % u32::from(DEVICES)).expect("fits");
            air.say(said(device, sent / u32::from(DEVICES)));
            sent += 1;
        }
    }
    sent
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let run = Run::new("ble");
    run.head();
    let seconds = u32::try_from(run.watched(SECONDS.into()).as_secs()).unwrap_or(SECONDS).max(2);
    if run.wants("decode") {
        decode(seconds).await;
    }
    if run.wants("twins") {
        twins(seconds).await;
    }
}

fn share(before: Duration, began: Instant, pid: u32) -> String {
    let used = process::cpu(pid).saturating_sub(before).as_secs_f64();
    format!("{:.1} %", used / began.elapsed().as_secs_f64() * 100.0)
}

/// Radio and decoders alone.
async fn decode(seconds: u32) {
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    let tree = read("bench.yaml", PROFILE, &mut complaints).expect("the profile can be read");
    library.add_tree(tree, false, &mut complaints).expect("the profile is in order");
    let connection = Arc::new(Connection {
        name: "radio".to_owned(),
        protocol: protocols::profile::Protocol::Ble,
        wire: Wire::Ble { adapter: "fake".to_owned() },
        timeout: Duration::from_secs(1),
        delay: Duration::ZERO,
        echo: false,
        in_flight: 1,
    });
    let air = Air::new();
    let mut port = BlePort::new(&connection, Clock::new(), air.radio());
    for number in 0..DEVICES {
        port.add(usize::from(number), device(&mut library, number));
    }
    port.open().await.expect("a scripted adapter opens");
    let (own, began) = (std::process::id(), Instant::now());
    let before = process::cpu(own);
    let speaker = tokio::spawn(speak(air, seconds));
    let mut samples = 0usize;
    let end = Duration::from_secs(u64::from(seconds) + 1);
    while began.elapsed() < end {
        match tokio::time::timeout(Duration::from_millis(200), port.pushed()).await {
            Ok(Ok(pushes)) => samples += pushes.iter().map(|push| push.samples.len()).sum::<usize>(),
            Ok(Err(gone)) => panic!("the radio is gone: {gone}"),
            Err(_) => {}
        }
    }
    let sent = speaker.await.expect("the speaker ends");
    let tally = port.tally();
    let columns = ["devices", "sent", "heard", "lost", "values", "CPU of one core, with whoever speaks", "RSS MiB"];
    let mut table = Table::new("2,000 advertisements a second to the door of the host", &columns);
    table.row(&[
        DEVICES.to_string(),
        sent.to_string(),
        tally.heard.to_string(),
        tally.dropped.to_string(),
        samples.to_string(),
        share(before, began, own),
        figure(mib(process::rss(own))),
    ]);
    table.print();
}

/// The installation: 500 sensors on one radio, each change of which may be told at once.
fn home() -> Home {
    let mut devices = String::new();
    for number in 0..DEVICES {
        let address = address(number);
        let _ = writeln!(
            devices,
            "  - {{id: sensor-{number}, profile: bench.sensor, connection: radio, params: {{address: \"{address}\"}}}}"
        );
    }
    let home = Home::with(&format!(
        "schema: 1\ngateway: {{id: bench, data: data}}\nprofiles: [profiles]\n\
         broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}]}}\n\
         connections: {{radio: {{ble: {{adapter: hci0}}}}}}\ndevices:\n{devices}"
    ));
    home.write("profiles/sensor.yaml", PROFILE);
    home
}

/// Through a mapper's host and the broker to the twins, with a subscriber to all temperatures.
async fn twins(seconds: u32) {
    let home = home();
    let gateway = Gateway::start(home.path(), &["run", "-c", "gateway.yaml", "--no-mappers"]);
    let watch = Watch::plain(gateway.port(), &["twin/+/reported/temperature", "gateway/connection/radio/status"]);
    let loaded = gateway::config::load(&home.path().join("gateway.yaml")).expect("the installation checks");
    let connection = Arc::clone(loaded.config.connections.get("radio").expect("it is there"));
    let (air, clock, stop) = (Air::new(), Clock::new(), CancellationToken::new());
    let options = MqttOptions {
        host: "127.0.0.1".to_owned(),
        port: gateway.port(),
        tls: None,
        user: None,
        password: None,
        client_id: "mapper-bench".to_owned(),
        will: None,
    };
    let (list, devices) = watch::channel(loaded.config.devices.clone());
    let host = Host::new(Setup {
        port: BlePort::new(&connection, clock, air.radio()),
        connection,
        bus: mqtt(options).0,
        root: "twin".to_owned(),
        devices,
        probes: Arc::new(Vec::new),
        clock,
        stop: stop.clone(),
    });
    let mapping = tokio::spawn(host.run());
    let status = |pointer: &str| {
        let own = watch.all().into_iter().filter(|message| message.topic == "gateway/connection/radio/status");
        own.map(|message| message.at(pointer)).next_back()
    };
    // Until the mapper has made its subscriptions, one for each device.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (own, there, began) = (std::process::id(), gateway.pid(), Instant::now());
    let before = (process::cpu(own), process::cpu(there));
    let sent = speak(air, seconds).await;
    let (mapper, broker) = (share(before.0, began, own), share(before.1, began, there));
    let elapsed = began.elapsed().as_secs_f64();
    // The status is told every five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut by_device: BTreeMap<String, u64> = BTreeMap::new();
    for message in watch.all().into_iter().filter(|message| message.topic.ends_with("/temperature")) {
        *by_device.entry(message.topic).or_default() += 1;
    }
    let told: u64 = by_device.values().sum();
    let columns =
        ["sent", "lost", "twins", "temperatures/s", "CPU mapper", "CPU gateway", "RSS mapper MiB", "RSS gateway MiB"];
    let mut table = Table::new("2,000 advertisements a second to twins", &columns);
    table.row(&[
        sent.to_string(),
        status("/dropped").unwrap_or_default().to_string(),
        by_device.len().to_string(),
        figure(told as f64 / elapsed),
        mapper,
        broker,
        figure(mib(process::rss(own))),
        figure(mib(process::rss(there))),
    ]);
    table.print();
    stop.cancel();
    mapping.await.expect("the mapper ends");
    drop(list);
    gateway.stop();
}
