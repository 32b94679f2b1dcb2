//! A radio as a port, in a scripted air with a clock that is turned by hand: what is heard, who is visited, what is written, and
//! what a survey lists.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use protocols::ble::{AddressType, Advertisement, Mac, Uuid};
use protocols::config::{Connection, Device, Wire};
use protocols::profile::{Library, Protocol, Wish};
use protocols::value::{Quality, Why};
use protocols::yaml::{Complaints, Place, read};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::fake::{Air, FakeRadio, Peer, Slot};
use super::port::BlePort;
use super::transport::{BleError, CharRef};
use crate::clock::Clock;
use crate::port::{CallError, Port, Push};

const SENSOR: &str = r#"schema: 1
id: a.sensor
version: 1.0.0
meta: {vendor: A, model: B}
params: {address: {type: string, default: ""}}
ble:
  address: ${address}
  match: {service_data: "fcd2"}
  advertisement: {decode: bthome2}
  presence: {timeout: 90s}
properties:
  temperature: {type: number, from: {ble: {object: temperature}}}
  rssi: {type: int, from: {ble: {meta: rssi}}}
"#;

const BUTTON: &str = r#"schema: 1
id: a.button
version: 1.0.0
meta: {vendor: A, model: B}
ble:
  match: {service_data: "fcd2"}
  advertisement: {decode: bthome2}
  presence: {timeout: 90s}
properties:
  button: {type: string, from: {ble: {event: button}}}
"#;

const TWIN: &str = r#"schema: 1
id: a.twin
version: 1.0.0
meta: {vendor: A, model: B}
params: {address: {type: string}}
groups: {slow: {interval: 1h}}
ble:
  address: ${address}
  match: {name: "^twin"}
  presence: {timeout: 1h}
  gatt:
    connect: {mode: interval, every: 10m, timeout: 20s, retries: 1, backoff: {min: 1m, max: 4m}}
    characteristics:
      battery: {service: "180f", characteristic: "2a19"}
      level: {service: "181a", characteristic: "2a6e"}
      broken: {service: "181a", characteristic: "2a6f"}
      extra: {service: "181a", characteristic: "2a6d", optional: true}
      model: {service: "180a", characteristic: "2a24", once: true}
properties:
  battery: {type: int, group: slow, from: {ble: {gatt: battery}}}
  level: {type: int, access: rw, group: slow, write: {min: 0, max: 100}, from: {ble: {gatt: level, type: uint16}}}
  broken: {type: int, group: slow, from: {ble: {gatt: broken, type: uint8}}}
  extra: {type: int, group: slow, from: {ble: {gatt: extra, type: uint32}}}
  model: {type: string, group: slow, from: {ble: {gatt: model}}}
"#;

fn mac(last: u8) -> Mac {
    Mac([0xF0, 0xF1, 0xF2, 0xF3, 0xF4, last])
}

fn device(text: &str, params: &str) -> Arc<Device> {
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    let id = library.add("p.yaml", text, false, &mut complaints).unwrap();
    let params = (!params.is_empty()).then(|| read("p", params, &mut complaints).unwrap());
    let place = Place { file: "test".into(), line: 1, column: 1 };
    let wish = Wish { profile: &id, place: &place, params: params.as_ref(), over: None, is_unsafe: false };
    let resolved = library.resolve(&wish, &mut complaints);
    let resolved = resolved.unwrap_or_else(|| panic!("{:?}", complaints.into_sorted()));
    let name = id.replace('.', "-");
    Arc::new(Device {
        id: name.parse().unwrap(),
        profile: resolved.profile,
        connection: "r".into(),
        unit: 1,
        ble: resolved.ble,
    })
}

async fn opened(devices: &[Arc<Device>]) -> (Air, BlePort<FakeRadio>) {
    let connection = Arc::new(Connection {
        name: "r".to_owned(),
        protocol: Protocol::Ble,
        wire: Wire::Ble { adapter: "fake".to_owned() },
        timeout: Duration::from_secs(1),
        delay: Duration::ZERO,
        echo: false,
        in_flight: 1,
    });
    let air = Air::new();
    let mut port = BlePort::new(&connection, Clock::new(), air.radio());
    for (number, device) in devices.iter().enumerate() {
        port.add(number, Arc::clone(device));
    }
    port.open().await.unwrap();
    (air, port)
}

/// A BTHome packet with a temperature in hundredths.
fn said(last: u8, hundredths: i16) -> Advertisement {
    let [low, high] = hundredths.to_le_bytes();
    packet(last, vec![0x40, 0x02, low, high])
}

fn packet(last: u8, data: Vec<u8>) -> Advertisement {
    Advertisement {
        address: Some(mac(last)),
        address_type: AddressType::Random,
        rssi: Some(-60),
        service_data: vec![(Uuid::from_u16(0xFCD2), data)],
        ..Advertisement::default()
    }
}

fn named(last: u8) -> Advertisement {
    let basic =
        Advertisement { address: Some(mac(last)), address_type: AddressType::Random, ..Advertisement::default() };
    Advertisement { name: Some("twin".to_owned()), rssi: Some(-50), ..basic }
}

/// Everything that comes in that time: device, property by name, value, quality.
async fn pushes(
    port: &mut BlePort<FakeRadio>,
    devices: &[Arc<Device>],
    time: Duration,
) -> Vec<(usize, String, Value, Quality)> {
    let mut all = Vec::new();
    let end = tokio::time::Instant::now() + time;
    while let Ok(pushed) = timeout(end - tokio::time::Instant::now(), port.pushed()).await {
        for Push { device, samples } in pushed.unwrap() {
            for sample in samples {
                let name = devices[device].profile.properties[sample.property].name.to_string();
                all.push((device, name, sample.value, sample.quality));
            }
        }
    }
    all
}

fn at(service: u16, characteristic: u16) -> CharRef {
    CharRef { service: Uuid::from_u16(service), characteristic: Uuid::from_u16(characteristic), instance: 0 }
}

fn twin() -> Peer {
    let slot = |value: &[u8]| Slot { value: value.to_vec(), ..Slot::default() };
    Peer::default()
        .with(at(0x180F, 0x2A19), slot(&[77]))
        .with(at(0x181A, 0x2A6E), slot(&[21, 0]))
        .with(at(0x181A, 0x2A6F), Slot { refuses: Some(0x80), ..Slot::default() })
        .with(at(0x180A, 0x2A24), slot(b"T-1"))
}

fn find(all: &[(usize, String, Value, Quality)], name: &str) -> Vec<(Value, Quality)> {
    let own = all.iter().filter(|(_, own, ..)| own == name);
    own.map(|(_, _, value, quality)| (value.clone(), *quality)).collect()
}

const TWIN_AT: &str = "{address: \"F0:F1:F2:F3:F4:05\"}";

#[tokio::test(start_paused = true)]
async fn what_is_heard_goes_to_the_device_it_is_of_and_to_nobody_else() {
    let devices =
        [device(SENSOR, "{address: \"F0:F1:F2:F3:F4:06\"}"), device(SENSOR, "{address: \"F0:F1:F2:F3:F4:07\"}")];
    let (air, mut port) = opened(&devices).await;
    air.say(said(6, 2_150));
    air.say(said(9, 999));
    air.say(said(7, -50));
    let all = pushes(&mut port, &devices, Duration::from_secs(1)).await;
    let temperatures: Vec<_> = all
        .iter()
        .filter(|(_, name, ..)| name == "temperature")
        .map(|(device, _, value, _)| (*device, value.clone()))
        .collect();
    assert_eq!(temperatures, [(0, json!(21.5)), (1, json!(-0.5))]);
    assert_eq!(find(&all, "presence"), vec![(json!("present"), Quality::Good); 2]);
    assert_eq!(find(&all, "rssi"), vec![(json!(-60), Quality::Good); 2]);
    let temperature = devices[0].profile.find("temperature").unwrap();
    let back = port.read_back(0, temperature).await.unwrap();
    assert_eq!(back.value, json!(21.5), "what was heard last is all there is to read back");
    assert_eq!(port.tally().heard, 3);
}

#[tokio::test(start_paused = true)]
async fn a_button_is_heard_each_time_and_makes_everybody_be_listened_to_actively() {
    let sensors = [device(SENSOR, "")];
    let (air, port) = opened(&sensors).await;
    assert_eq!(air.journal().last().map(String::as_str), Some("scan Passive"));
    drop(port);
    let devices = [device(SENSOR, ""), device(BUTTON, "")];
    let (air, mut port) = opened(&devices).await;
    assert_eq!(air.journal().last().map(String::as_str), Some("scan Active"));
    for number in 1..=2 {
        air.say(packet(6, vec![0x40, 0x00, number, 0x3A, 0x01]));
        let all = pushes(&mut port, &devices, Duration::from_secs(5)).await;
        assert_eq!(find(&all, "button"), [(json!("press"), Quality::Good)], "press {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_visit_brings_what_there_is_and_says_why_of_what_there_is_not() {
    let devices = [device(TWIN, TWIN_AT)];
    let (air, mut port) = opened(&devices).await;
    air.bring(mac(5), twin());
    air.say(named(5));
    let all = pushes(&mut port, &devices, Duration::from_secs(30)).await;
    assert_eq!(find(&all, "battery"), [(json!(77), Quality::Good)]);
    assert_eq!(find(&all, "level"), [(json!(21), Quality::Good)]);
    assert_eq!(find(&all, "broken"), [(Value::Null, Quality::Bad(Why::Exception(0x80)))]);
    assert_eq!(find(&all, "extra"), [], "a device is free not to have it");
    assert_eq!(find(&all, "model"), [(json!("T-1"), Quality::Good)]);
    let journal = air.journal();
    assert!(journal.contains(&"disconnect F0:F1:F2:F3:F4:05".to_owned()), "a battery is small: {journal:?}");
    // The next visit is not before its time, and does not ask again what is asked once.
    let all = pushes(&mut port, &devices, Duration::from_secs(540)).await;
    assert_eq!(find(&all, "battery"), []);
    air.say(named(5));
    let all = pushes(&mut port, &devices, Duration::from_secs(120)).await;
    assert_eq!((find(&all, "battery").len(), find(&all, "model").len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_fails_is_made_again_later_and_later() {
    let devices = [device(TWIN, TWIN_AT)];
    let (air, mut port) = opened(&devices).await;
    air.bring(mac(5), twin());
    let gone = || BleError::Failed { doing: "Connect", reason: "no".to_owned() };
    air.mishaps(|mishaps| mishaps.connect = VecDeque::from(vec![gone(); 6]));
    air.say(named(5));
    let mut tries = Vec::new();
    for second in 0..600 {
        let all = pushes(&mut port, &devices, Duration::from_secs(1)).await;
        if air.journal().iter().any(|line| line.starts_with("connect")) {
            tries.push(second);
            let expected = if tries.len() <= 3 { Quality::Bad(Why::Timeout) } else { Quality::Good };
            assert_eq!(find(&all, "battery").last().map(|(_, quality)| *quality), Some(expected), "{tries:?}");
        }
    }
    // Two tries a visit; a minute, two and four minutes between them.
    let pauses: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(matches!(pauses[..], [59..=62, 119..=122, 239..=242]), "{tries:?}");
    assert_eq!(port.counters().timeouts, 3);
}

#[tokio::test(start_paused = true)]
async fn a_value_is_written_read_back_and_refused_in_the_devices_words() {
    let devices = [device(TWIN, TWIN_AT)];
    let (air, mut port) = opened(&devices).await;
    let level = devices[0].profile.find("level").unwrap();
    let broken = devices[0].profile.find("broken").unwrap();
    assert!(matches!(port.write(0, level, &json!(5)).await, Err(CallError::Silent(_))), "it was never heard");
    air.bring(mac(5), twin());
    air.say(named(5));
    pushes(&mut port, &devices, Duration::from_secs(30)).await;
    assert!(port.write(0, level, &json!(300)).await.is_ok(), "the profile's limits are the host's to keep");
    assert_eq!(air.value(mac(5), at(0x181A, 0x2A6E)), Some(vec![0x2C, 0x01]));
    assert_eq!(port.read_back(0, level).await.unwrap().value, json!(300));
    assert!(port.read_back(0, broken).await.is_err());
    let raw = port.raw(&json!({"op": "read", "device": 0, "service": "180f", "characteristic": "2a19"})).await;
    assert_eq!(raw, Ok(json!({"value": "4d"})));
    for (request, expected) in [
        (json!({"op": "read", "device": 0}), "name a service and a characteristic"),
        (json!({"service": "180f", "characteristic": "2a19"}), "name the device"),
        (json!({"op": "write", "device": 0, "service": "180f", "characteristic": "2a19", "value": "4"}), "hexadecimal"),
    ] {
        let refused = port.raw(&request).await;
        assert!(matches!(&refused, Err(CallError::Invalid(why)) if why.contains(expected)), "{refused:?}");
    }
    // The link lingers for the next request, and is let go.
    air.journal();
    pushes(&mut port, &devices, Duration::from_secs(10)).await;
    assert!(air.journal().contains(&"disconnect F0:F1:F2:F3:F4:05".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn time_in_which_the_scan_is_paused_is_no_silence() {
    let devices = [device(SENSOR, "{address: \"F0:F1:F2:F3:F4:06\"}"), device(TWIN, TWIN_AT)];
    let (air, mut port) = opened(&devices).await;
    air.bring(mac(5), twin());
    air.say(said(6, 2_000));
    pushes(&mut port, &devices, Duration::from_secs(60)).await;
    assert_eq!(port.deaf_ms(), 0);
    // Every try to connect takes its twenty seconds, and nobody is heard meanwhile.
    air.mishaps(|mishaps| mishaps.connect = VecDeque::from(vec![BleError::Timeout("Connect"); 2]));
    air.say(named(5));
    pushes(&mut port, &devices, Duration::from_secs(45)).await;
    assert_eq!(port.deaf_ms(), 40_000);
    // 105 seconds after it spoke, 65 of them heard: it may be silent for 90.
    assert_eq!(port.silent(0), Vec::new(), "it is not away yet");
    pushes(&mut port, &devices, Duration::from_secs(26)).await;
    let presence = devices[0].profile.find("presence").unwrap();
    port.deaf_ms();
    let told = port.silent(0);
    assert_eq!(
        told.iter().map(|sample| (sample.property, sample.value.clone())).collect::<Vec<_>>(),
        [(presence, json!("away"))]
    );
}

/// The two packets of bthome.io/encryption and of bthome-ble's tests: one key, one counter (0x33221100), so one of them is a
/// replay after the other.
#[tokio::test(start_paused = true)]
async fn a_packet_that_was_believed_is_not_believed_again_after_a_restart() {
    let sealed =
        SENSOR.replace("advertisement: {decode: bthome2}", "advertisement: {decode: bthome2, key: \"${bindkey}\"}");
    let sealed = sealed.replace("default: \"\"}}", "default: \"\"}, bindkey: {type: secret}}");
    let params = "{address: \"54:48:E6:8F:80:A5\", bindkey: \"231d39c1d7cc1ab1aee224cd096db932\"}";
    let devices = [device(&sealed, params)];
    let bytes = vec![0x41, 0xA4, 0x72, 0x66, 0xC9, 0x5F, 0x73, 0x00, 0x11, 0x22, 0x33, 0x78, 0x23, 0x72, 0x14];
    let heard = Advertisement { address: Some("54:48:E6:8F:80:A5".parse().unwrap()), ..packet(6, bytes) };
    let (air, mut port) = opened(&devices).await;
    assert_eq!(port.memory(), None, "nothing was proved yet");
    air.say(heard.clone());
    let all = pushes(&mut port, &devices, Duration::from_secs(1)).await;
    assert_eq!(find(&all, "temperature"), [(json!(25.06), Quality::Good)]);
    let memory = port.memory().unwrap();
    assert_eq!(memory, json!({"counters": {"a-sensor": {"": 0x3322_1100}}}));
    assert_eq!(port.memory(), None, "it has not changed");
    drop(port);
    for (memory, expected) in [(json!({}), 1), (json!({"counters": "x"}), 1), (memory, 0)] {
        let (air, mut port) = opened(&devices).await;
        port.remember(&memory);
        air.say(heard.clone());
        let all = pushes(&mut port, &devices, Duration::from_secs(1)).await;
        assert_eq!(find(&all, "temperature").len(), expected, "{memory}");
        assert_eq!(find(&all, "presence").len(), expected, "a replay is no sign of life");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_radio_ends_the_wait_with_its_reason_and_its_links_with_it() {
    let devices = [device(TWIN, TWIN_AT)];
    let (air, mut port) = opened(&devices).await;
    air.bring(mac(5), twin());
    air.say(named(5));
    pushes(&mut port, &devices, Duration::from_secs(30)).await;
    air.unplug();
    let gone = timeout(Duration::from_secs(5), port.pushed()).await.unwrap();
    assert_eq!(gone.unwrap_err().0, "the adapter was taken away");
    port.close().await;
    assert!(!port.is_open());
    let why = port.open().await.unwrap_err().0;
    assert_eq!(why, "there is no Bluetooth adapter \"fake\" (there is none at all)");
    air.plug();
    port.open().await.unwrap();
    air.say(named(5));
    let all = pushes(&mut port, &devices, Duration::from_secs(30)).await;
    assert_eq!(find(&all, "battery"), [(json!(77), Quality::Good)], "it is visited again at once");
}

#[tokio::test(start_paused = true)]
async fn a_survey_lists_who_is_in_the_air_with_what_they_say_and_what_would_fit() {
    let devices = [device(SENSOR, "{address: \"F0:F1:F2:F3:F4:06\"}")];
    let (air, mut port) = opened(&devices).await;
    let profiles = [Arc::clone(&devices[0].profile), device(TWIN, TWIN_AT).profile.clone()];
    assert_eq!(port.survey(true, &profiles), Some(Vec::new()));
    air.say(said(6, 2_150));
    air.say(Advertisement { rssi: Some(-90), ..said(8, 100) });
    air.say(Advertisement { rssi: Some(-88), name: Some("late".to_owned()), ..said(8, 200) });
    // Encrypted: what it is shows, what it says does not.
    air.say(Advertisement { rssi: Some(-95), ..packet(9, vec![0x41, 1, 2, 3, 4, 5, 6, 7, 8, 9]) });
    sleep(Duration::from_millis(10)).await;
    pushes(&mut port, &devices, Duration::from_secs(1)).await;
    let found = port.survey(false, &profiles).unwrap();
    let of = |last: u8| found.iter().find(|line| line["address"] == mac(last).to_string()).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["address"], mac(6).to_string(), "the strongest first");
    assert_eq!(of(6)["devices"], json!(["a-sensor"]));
    assert_eq!(of(6)["profiles"], json!(["a.sensor"]));
    assert_eq!(
        of(6)["says"][0]["objects"][0],
        json!({"name": "temperature", "class": "sensor", "unit": "Cel", "value": 21.5})
    );
    assert_eq!((&of(8)["packets"], &of(8)["rssi"], &of(8)["name"]), (&json!(2), &json!(-88), &json!("late")));
    assert_eq!(of(8)["says"][0]["objects"][0]["value"], json!(2.0));
    assert_eq!((&of(9)["says"][0]["encrypted"], &of(9)["says"][0]["objects"]), (&json!(true), &json!([])));
    assert_eq!(port.survey(false, &profiles), Some(Vec::new()), "it is over");
}
