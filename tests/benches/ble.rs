//! What a busy air costs: 500 devices, 2,000 advertisements a second, from the transport through the radio and the decoders
//! to the door of the host. Prints processor time, memory and what was lost. Reporting, broker and twins are measured
//! elsewhere (`wire`, `store`); they see what changes, at the rhythm of the profile.
//!
//! The air is scripted (`mappers::ble::fake`).

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mappers::ble::fake::Air;
use mappers::ble::port::BlePort;
use mappers::clock::Clock;
use mappers::port::Port;
use protocols::ble::{AddressType, Advertisement, Identity, Mac, Uuid};
use protocols::config::{Connection, Device, Wire};
use protocols::profile::{Library, Wish};
use protocols::yaml::{Complaints, Place, read};

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

/// Processor time of this process in milliseconds, and its resident memory in KiB.
fn usage() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    (ticks * 10, rss.unwrap_or_default())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
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
    let (before, _) = usage();
    let began = Instant::now();
    let speaker = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let mut sent = 0u32;
        while sent < PER_SECOND * SECONDS {
            ticks.tick().await;
            let due = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX).saturating_mul(PER_SECOND) / 1_000;
            while sent < due.min(PER_SECOND * SECONDS) {
                let device = u16::try_from(sent % u32::from(DEVICES)).expect("fits");
                air.say(said(device, sent / u32::from(DEVICES)));
                sent += 1;
            }
        }
        sent
    });
    let mut samples = 0usize;
    let end = Duration::from_secs(u64::from(SECONDS) + 1);
    while began.elapsed() < end {
        match tokio::time::timeout(Duration::from_millis(200), port.pushed()).await {
            Ok(Ok(pushes)) => samples += pushes.iter().map(|push| push.samples.len()).sum::<usize>(),
            Ok(Err(gone)) => panic!("the radio is gone: {gone}"),
            Err(_) => {}
        }
    }
    let sent = speaker.await.expect("the speaker ends");
    let (after, rss) = usage();
    let tally = port.tally();
    let share = (after - before) as f64 / began.elapsed().as_millis() as f64 * 100.0;
    let lines = [
        ("devices", DEVICES.to_string()),
        ("advertisements sent", sent.to_string()),
        ("heard", tally.heard.to_string()),
        ("lost", tally.dropped.to_string()),
        ("values decoded", samples.to_string()),
        ("processor, % of one core, with whoever speaks", format!("{share:.1}")),
        ("resident, KiB", rss.to_string()),
    ];
    for (name, value) in lines {
        writeln!(std::io::stdout(), "{name:<48}{value:>12}").expect("somebody reads");
    }
}
