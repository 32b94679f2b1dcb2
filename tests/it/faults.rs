//! Ten thousand changes through every fault there is: at the end both replicas are the same, leaf by leaf.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mappers::bus::{Incoming, Message, MqttOptions, Outgoing, mqtt};
use serde_json::json;
use tests::gateway::{Gateway, Home};
use tests::mqtt::{publish, retained};
use tests::net::{Relay, Weather};
use tests::peers::Mosquitto;

use crate::bridge::{PREFIX, equal, read, run, synced};
use crate::installation::PROFILE;

/// Changes that must have been taken by the gateway before the end.
const CHANGES: u64 = 10_000;
/// Faults that must have been survived by then.
const FAULTS: u64 = 40;
/// The longest a run may take; what is not done by then is a failure.
const LONGEST: Duration = Duration::from_secs(150);
const DEVICES: usize = 6;
/// Where the wall clock of the gateway may jump to, as faketime writes it: an hour and a year forward, a minute and a month
/// back, right again, and 1970, where a Pi without a battery wakes.
const CLOCKS: [&str; 6] = ["+1h", "+400d", "-60", "-30d", "+0", LONG_AGO];
const LONG_AGO: &str = "@1970-02-01 00:00:00";

/// Numbers that look random and are the same in every run of one seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn home(port: u16, cloud: u16) -> Home {
    let devices: String = (1..=DEVICES)
        .map(|unit| format!("  - {{id: d{unit}, profile: test.boiler, connection: plc, params: {{unit: {unit}}}}}\n"))
        .collect();
    let mut home = Home::with(&format!(
        "schema: 1\ngateway: {{id: plant-7, data: data}}\nprofiles: [profiles]\ntwin: {{flush: 500ms}}\n\
         broker: {{listeners: [{{name: local, bind: \"127.0.0.1:{port}\"}}]}}\n\
         connections: {{plc: {{modbus: {{tcp: \"127.0.0.1:1\"}}}}}}\ndevices:\n{devices}upstream:\n  \
           - {{name: cloud, dialect: plain, url: \"mqtt://127.0.0.1:{cloud}\", prefix: {PREFIX}, keep_alive: 5s}}\n"
    ));
    home.write("profiles/boiler.yaml", PROFILE);
    for (name, value) in [
        ("LD_PRELOAD", faketime().display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", home.path().join("clock").display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // only the wall clock jumps; the other one never does
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ] {
        home.set(name, &value);
    }
    jump(&home, "+0");
    home
}

/// The library that shifts the wall clock of a process.
fn faketime() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").expect("there are libraries").flatten();
    places
        .map(|place| place.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .expect("faketime is installed: run tests/run once")
}

/// Sets the gateway's wall clock; it is read at every look, so it is never half written.
fn jump(home: &Home, to: &str) {
    let path: &Path = home.path();
    home.write("clock.new", &format!("{to}\n"));
    std::fs::rename(path.join("clock.new"), path.join("clock")).expect("files can be renamed");
}

/// Changes values as fast as the gateway takes them, and counts those it has taken for certain: a publish that is
/// acknowledged stands behind each lot of them.
async fn feed(port: u16, stop: Arc<AtomicBool>, taken: Arc<AtomicU64>) {
    let options = MqttOptions { host: "127.0.0.1".into(), port, client_id: "feeder".into(), ..MqttOptions::default() };
    let (mut bus, _driver) = mqtt(options);
    let up = Arc::new(AtomicBool::new(false));
    let seen = up.clone();
    let out = bus.out.clone();
    tokio::spawn(async move {
        while let Some(incoming) = bus.incoming.recv().await {
            seen.store(incoming == Incoming::Up, Ordering::SeqCst);
        }
    });
    let mut number = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        if !up.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let mut changes = 0;
        for _ in 0..10 {
            number += 1;
            let device = number as usize % DEVICES + 1;
            let readings = json!({"readings": {
                "level": number % 60_000, "setpoint": (number % 250) as f64 / 10.0, "energy": number,
                "flow": number as f64 / 4.0, "target": number, "flame": number.is_multiple_of(2),
            }});
            let message = Message {
                topic: format!("twin/d{device}/reported/set"),
                payload: readings.to_string().into(),
                ..Message::default()
            };
            changes += 5;
            if out.send(Outgoing::Publish(message)).await.is_err() {
                return;
            }
        }
        let device = number as usize % DEVICES + 1;
        // now and then a wish is taken back: what is cleared must not return
        let wish = if number.is_multiple_of(70) { "null".to_owned() } else { number.to_string() };
        let message =
            Message { topic: format!("twin/d{device}/desired/target/set"), payload: wish.into(), ..Message::default() };
        let (told, acknowledged) = tokio::sync::oneshot::channel();
        if out.send(Outgoing::PublishAcknowledged(message, told)).await.is_err() {
            return;
        }
        if acknowledged.await == Ok(true) {
            taken.fetch_add(changes + 1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the other side says something within this time.
fn passes(relay: &Relay, patience: Duration) -> bool {
    let (begin, before) = (Instant::now(), relay.bytes().1);
    while begin.elapsed() < patience {
        if relay.bytes().1 > before {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// The faults, and how often each was survived.
struct Chaos {
    dice: Dice,
    faults: BTreeMap<&'static str, u64>,
}

impl Chaos {
    fn pause(&mut self, least_ms: u64, more_ms: u64) {
        let ms = least_ms + self.dice.roll(more_ms);
        std::thread::sleep(Duration::from_millis(ms));
    }

    /// A fault of the link is none while there is no link: then the gateway is killed, which also ends its back-off.
    fn one(&mut self, is_live: bool, gateway: &mut Option<Gateway>, home: &Home, cloud: &mut Mosquitto, relay: &Relay) {
        let fault = match if is_live { self.dice.roll(12) } else { 6 } {
            0 => {
                relay.cut();
                "link cut"
            }
            1 => {
                relay.set(Weather::Cut);
                self.pause(100, 900);
                "link away"
            }
            2 => {
                relay.set(Weather::Stall);
                self.pause(300, 2_000);
                "link stalled"
            }
            3 => {
                relay.set(Weather::HalfOpen);
                self.pause(500, 1_000);
                relay.cut();
                "half-open"
            }
            4 => {
                // what was said arrived, its acknowledgement did not: all of it comes twice
                relay.set(Weather::Deaf);
                self.pause(100, 400);
                relay.cut();
                "duplicates"
            }
            5 => {
                relay.set(Weather::Slow);
                self.pause(500, 2_500);
                "link slow"
            }
            6 | 7 => {
                if let Some(gateway) = gateway.take() {
                    gateway.kill();
                }
                self.pause(0, 300);
                *gateway = Some(run(home));
                "gateway killed"
            }
            8 | 9 => {
                let to = self.dice.roll(CLOCKS.len() as u64) as usize;
                jump(home, CLOCKS[to]);
                self.pause(300, 900);
                "clock jumps"
            }
            10 => {
                cloud.kill();
                self.pause(0, 500);
                cloud.again();
                "broker killed"
            }
            _ => {
                cloud.stop();
                self.pause(0, 500);
                cloud.again();
                "broker stopped"
            }
        };
        relay.set(Weather::Fair);
        *self.faults.entry(fault).or_default() += 1;
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "how many faults were survived is what the run is for")]
fn ten_thousand_changes_through_every_fault_leave_both_replicas_equal() {
    let seed = std::env::var("FAULT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    let port = tests::free_port();
    let mut cloud = Mosquitto::persistent();
    let relay = Relay::to(cloud.port());
    let home = home(port, relay.port());
    let mut gateway = Some(run(&home));
    let (stop, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Runtime::new().expect("threads can be had");
    let feeding = runtime.spawn(feed(port, stop.clone(), taken.clone()));
    let wished = Arc::new(Mutex::new(0_u64));
    let (ended, counted, there) = (stop.clone(), wished.clone(), cloud.port());
    let wishing = std::thread::spawn(move || {
        let mut number = 0_u64;
        while !ended.load(Ordering::SeqCst) {
            number += 1;
            let device = number as usize % DEVICES + 1;
            let wish = json!({"id": number.to_string(), "patch": {"setpoint": 5 + number % 25, "mode": if number.is_multiple_of(9) { json!(null) } else { json!("eco") }}});
            let sent = publish(there, &format!("{PREFIX}/twin/d{device}/desired/set"), &wish.to_string());
            *counted.lock().unwrap() += u64::from(sent.status.success());
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    let mut chaos = Chaos { dice: Dice(seed), faults: BTreeMap::new() };
    let begin = Instant::now();
    let enough =
        |chaos: &Chaos| chaos.faults.values().sum::<u64>() >= FAULTS && taken.load(Ordering::SeqCst) >= CHANGES;
    while !enough(&chaos) && begin.elapsed() < LONGEST {
        chaos.pause(100, 700);
        let is_live = passes(&relay, Duration::from_secs(3));
        chaos.one(is_live, &mut gateway, &home, &mut cloud, &relay);
    }
    stop.store(true, Ordering::SeqCst);
    runtime.block_on(feeding).unwrap();
    wishing.join().unwrap();
    let taken = taken.load(Ordering::SeqCst);
    // killed once more, so that what the last fault left is found by a gateway that remembers only what is on disk
    gateway.take().unwrap().kill();
    jump(&home, LONG_AGO);
    let gateway = run(&home);
    synced(&gateway);
    // both sides still hear one another
    for unit in 1..=DEVICES {
        read(&gateway, &format!("d{unit}"), &json!({"level": 60_000 + unit}));
        let wish = json!({"patch": {"setpoint": 20 + unit}}).to_string();
        publish(cloud.port(), &format!("{PREFIX}/twin/d{unit}/desired/set"), &wish);
    }
    std::thread::sleep(Duration::from_secs(2));
    let held = equal(&gateway, cloud.port());
    let read_at = retained(gateway.port(), &["twin/d1/reported/level"]);
    let read_at = read_at.first().expect("it is retained").at("/at").to_string();
    assert!(read_at.starts_with("\"1970-"), "the clock did not jump: {read_at}");
    for unit in 1..=DEVICES {
        assert_eq!(held[&format!("twin/d{unit}/reported/level")]["value"], 60_000 + unit);
        assert_eq!(held[&format!("twin/d{unit}/desired/setpoint")]["value"], 20 + unit);
    }
    let faults: u64 = chaos.faults.values().sum();
    println!(
        "{taken} changes and {} wishes of the cloud in {:.0} s, {faults} faults survived ({:?}), {} leaves equal",
        wished.lock().unwrap(),
        begin.elapsed().as_secs_f64(),
        chaos.faults,
        held.len()
    );
    assert!(taken >= CHANGES, "only {taken} changes were made in {LONGEST:?}");
    assert!(faults >= FAULTS / 2, "only {faults} faults in {LONGEST:?}");
}
