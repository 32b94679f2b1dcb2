//! Every fault a Modbus device can have, one request in twenty: no wrong value is ever said, and every fault is counted.
//!
//! Each value tells whose it is and how old: unit, property and a number that only rises. So an answer taken for the
//! next request's, a unit's taken for another's or one that comes late is seen in the value itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use mappers::simulate::{Faults, Handle, Simulator};
use serde_json::{Value, json};
use tests::gateway::Home;
use tests::mqtt::{Message, Watch, retained};
use tests::within;
use tokio_util::sync::CancellationToken;

/// Faults and how often they come.
const FAULTS: [(&str, &str); 5] = [
    ("silence", "silence=0.05"),
    // much longer than the time-out: these answers come while the next one is waited for
    ("delay", "delay=600ms@0.05"),
    ("exception", "exception=4@0.05"),
    ("crc", "crc=0.05"),
    ("disconnect", "disconnect=0.05"),
];
/// Frames with a number of their own, and frames with a checksum.
const FRAMINGS: [&str; 2] = ["tcp", "rtu_over_tcp"];
/// Devices on each wire.
const UNITS: u8 = 3;
/// Properties of each; further apart than one read reaches, so that requests differ by their address alone.
const PROPERTIES: u32 = 4;
/// How long it goes on; `FAULT_SECONDS=60` makes it the case of the goals.
const SECONDS: u64 = 6;
/// From one value to the next.
const STEP: Duration = Duration::from_millis(100);
/// How long the last values and counts may take to come; the wire's status is told every five seconds.
const SETTLE: Duration = Duration::from_secs(60);

/// Steps before a value would be another property's.
const STEPS: u32 = 1_500;

/// A unit's property at a step; with these units and properties it fits into a register, and is never 0.
fn code(unit: u8, property: u32, step: u32) -> u32 {
    (u32::from(unit) * 10 + property) * STEPS + step
}

fn profile() -> String {
    let mut text = "schema: 1\nid: test.codes\nversion: 1.0.0\nmeta: {vendor: Test, model: Codes}\n\
                    params: {unit: {type: int, min: 1, max: 247, default: 1}}\ngroups: {fast: {interval: 50ms}}\n\
                    modbus: {unit: \"${unit}\", timeout: 250ms, offline: {after_failures: 3, probe_min: 200ms, probe_max: 500ms}}\n\
                    properties:\n"
        .to_owned();
    for property in 0..PROPERTIES {
        let from = format!("{{modbus: {{table: holding, address: {}, type: uint16}}}}", property * 200);
        let _ = writeln!(text, "  p{property}: {{type: int, access: rw, group: fast, from: {from}}}");
    }
    text
}

/// One wire with its simulator.
struct Wire {
    name: String,
    fault: &'static str,
    handle: Handle,
}

fn set(wires: &[Wire], step: u32) {
    for wire in wires {
        for (unit, property) in (1..=UNITS).flat_map(|unit| (0..PROPERTIES).map(move |property| (unit, property))) {
            let value = json!(code(unit, property, step));
            wire.handle.hold(unit, &format!("p{property}"), &value).unwrap();
        }
    }
}

/// The wrong values among what was said, in words.
fn wrong(messages: &[Message], last_step: u32) -> Vec<String> {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for message in messages {
        let Some((device, property)) =
            message.topic.strip_prefix("twin/").and_then(|rest| rest.split_once("/reported/p"))
        else {
            continue;
        };
        let unit: u8 = device.rsplit('-').next().unwrap().parse().unwrap();
        let property: u32 = property.parse().unwrap();
        let (value, bad) =
            (message.at("/value"), message.at("/quality").as_str().is_some_and(|q| q.starts_with("bad:")));
        let Some(value) = value.as_u64() else {
            if !(bad && value.is_null()) {
                wrong.push(format!("{} {}", message.topic, message.payload));
            }
            continue;
        };
        let range = u64::from(code(unit, property, 0))..=u64::from(code(unit, property, last_step));
        let before = newest.insert(message.topic.as_str(), value).unwrap_or_default();
        if bad || !range.contains(&value) || value < before {
            wrong.push(format!("{} {} after {before}", message.topic, message.payload));
        }
    }
    wrong
}

/// What the wire's status has counted of this kind of fault.
fn counted(status: &Value, fault: &str) -> u64 {
    let of = |key: &str| status[key].as_u64().unwrap_or_default();
    match fault {
        "exception" => of("exceptions"),
        "disconnect" => of("reopened"),
        "crc" => of("dropped"),
        _ => of("timeouts"),
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "how many faults were met is what the run is for")]
fn no_fault_of_a_device_becomes_a_value_and_each_is_counted() {
    let seconds = std::env::var("FAULT_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let steps = u32::try_from(Duration::from_secs(seconds).as_millis() / STEP.as_millis()).unwrap();
    assert!(steps < STEPS, "a register has no room for more");
    let home = Home::with("");
    home.write("profiles/codes.yaml", &profile());
    let file = home.path().join("profiles/codes.yaml");
    let shape = gateway::config::profile(&file.display().to_string(), "").unwrap().profile;
    let (runtime, stop) = (tokio::runtime::Runtime::new().unwrap(), CancellationToken::new());
    let (mut wires, mut connections, mut devices) = (Vec::new(), String::new(), String::new());
    for (number, ((fault, text), framing)) in
        (1..).zip(FAULTS.into_iter().flat_map(|fault| FRAMINGS.map(|framing| (fault, framing))))
    {
        let loopback = ([127, 0, 0, 1], 0).into();
        let simulator = (1..=UNITS).fold(Simulator::new(number), |simulator, unit| simulator.unit(unit, shape.clone()));
        let simulator = match framing {
            "tcp" => simulator.tcp(loopback),
            _ => simulator.rtu_over_tcp(loopback),
        };
        let bound = runtime.block_on(simulator.bind()).unwrap();
        let (name, address) = (format!("{fault}-{framing}"), bound.addresses()[0]);
        let _ = writeln!(connections, "  {name}: {{modbus: {{{framing}: \"{address}\"}}}}");
        for unit in 1..=UNITS {
            let _ = writeln!(
                devices,
                "  - {{id: {name}-{unit}, profile: test.codes, connection: {name}, params: {{unit: {unit}}}}}"
            );
        }
        let handle = bound.handle();
        runtime.spawn(bound.run(stop.clone()));
        handle.set_faults(text.parse::<Faults>().unwrap());
        wires.push(Wire { name, fault, handle });
    }
    set(&wires, 0);
    home.write("gateway.yaml", &crate::installation::gateway(&connections, &devices));
    let running = home.start();
    let watch = Watch::new(running.port(), &["twin/+/reported/+"]);
    let began = Instant::now();
    for step in 1..=steps {
        std::thread::sleep((began + STEP * step).saturating_duration_since(Instant::now()));
        set(&wires, step);
    }
    for wire in &wires {
        wire.handle.set_faults(Faults::default());
    }
    let right = |messages: &[Message]| {
        let last = |message: &&Message| {
            let (unit, property) = message.topic.trim_start_matches("twin/").split_once("/reported/p").unwrap();
            let unit = unit.rsplit('-').next().unwrap().parse().unwrap();
            message.at("/value") == code(unit, property.parse().unwrap(), steps)
        };
        messages.iter().filter(last).count()
    };
    let all = wires.len() * usize::from(UNITS) * PROPERTIES as usize;
    within(SETTLE, "the last value of every property", || {
        (right(&retained(running.port(), &["twin/+/reported/+"])) == all).then_some(())
    });
    let messages = watch.all();
    assert_eq!(wrong(&messages, steps), Vec::<String>::new(), "of {} values", messages.len());
    let (mut met, mut table) = (0, String::new());
    for wire in &wires {
        let faults = wire.handle.counts().faults;
        assert!(faults > 0, "{} met no fault", wire.name);
        let topic = format!("gateway/connection/{}/status", wire.name);
        let found = within(SETTLE, &format!("{}: {faults} faults in its status", wire.name), || {
            let status = retained(running.port(), &[&topic]).pop()?.payload;
            (counted(&status, wire.fault) >= faults).then(|| counted(&status, wire.fault))
        });
        met += faults;
        let _ = writeln!(table, "{}: {faults} faults, {found} counted", wire.name);
    }
    println!("{table}{met} faults in {seconds} s, {} values said, none wrong", messages.len());
    running.stop();
    stop.cancel();
}
