//! What was acknowledged is on disk: `kill -9` at any moment, a hundred times.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tests::gateway::Gateway;
use tests::mqtt::{Script, retained_of};
use tests::peers::Pymodbus;

use crate::installation::{boiler_on_tcp, fill};

/// Sets the property as fast as the broker acknowledges, prints every acknowledged value, and ends when the
/// gateway is gone. `target` counts up for ever, so a lost write shows as a smaller number. What it hears of reported
/// properties it prints as well: name and version.
const WRITER: &str = r#"
import json, sys, threading, time
import paho.mqtt.client as mqtt

port, first = int(sys.argv[1]), int(sys.argv[2])
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
one_line = threading.Lock()

def say(*words):
    with one_line:
        print(*words, flush=True)

def heard(client, _, message):
    say(message.topic.rsplit("/", 1)[1], json.loads(message.payload)["version"])

client.on_message = heard
client.connect("127.0.0.1", port, keepalive=10)
client.subscribe("twin/boiler-1/reported/+")
client.loop_start()
number = first
try:
    while client.is_connected() or number == first:
        info = client.publish("twin/boiler-1/desired/target/set", str(number), qos=1)
        end = time.monotonic() + 5
        while not info.is_published():
            if not client.is_connected() and number > first or time.monotonic() > end:
                raise SystemExit
            time.sleep(0.0005)
        say(number)
        number += 1
finally:
    client.loop_stop()
"#;

/// What a gateway shows of the twin.
#[derive(Default)]
struct Found {
    target: u64,
    reported: u64,
    desired: u64,
    epoch: String,
    /// The version of each reported property.
    leaves: BTreeMap<String, u64>,
}

/// Looks right after the start, before anything new is wished.
fn look(gateway: &Gateway, wished: bool) -> Found {
    let topics = ["twin/boiler-1", "twin/boiler-1/desired/target"];
    let shown = retained_of(gateway.port(), if wished { &topics } else { &topics[..1] });
    let document = &shown[0];
    let number = |pointer: &str| document.at(pointer).as_u64().unwrap_or_default();
    let target = number("/desired/properties/target/value");
    if let Some(topic) = shown.get(1) {
        assert_eq!(topic.at("/value").as_u64(), Some(target), "the retained topic and the document agree");
    }
    let epoch = document.at("/epoch").as_str().unwrap_or_default().to_owned();
    let leaf = |(name, leaf): (&String, &Value)| (name.clone(), leaf["version"].as_u64().unwrap_or_default());
    let leaves: BTreeMap<String, u64> =
        document.at("/reported/properties").as_object().into_iter().flatten().map(leaf).collect();
    let reported = number("/reported/version");
    assert!(leaves.values().all(|version| *version <= reported), "{leaves:?} in a section of version {reported}");
    Found { target, reported, desired: number("/desired/version"), epoch, leaves }
}

/// Takes the highest versions that a writer has heard of.
fn hear(lines: &[String], leaves: &mut BTreeMap<String, u64>) {
    let heard = lines.iter().filter_map(|line| line.split_once(' '));
    for (name, version) in heard.filter_map(|(name, version)| Some((name, version.parse::<u64>().ok()?))) {
        let highest = leaves.entry(name.to_owned()).or_default();
        *highest = version.max(*highest);
    }
}

#[test]
fn a_hundred_kills_lose_no_acknowledged_write_and_take_no_version_back() {
    const KILLS: u64 = 100;
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    let mut before = Found::default();
    let mut acknowledged = 0;
    let mut shown = BTreeMap::new();
    for round in 0..=KILLS {
        let gateway = home.start();
        let found = look(&gateway, acknowledged > 0);
        assert!(found.target >= acknowledged, "{round}: {acknowledged} was acknowledged, {} is there", found.target);
        assert!(found.target <= acknowledged + 1, "{round}: {} was never sent", found.target);
        assert!(found.reported >= before.reported, "{round}: reported went back from {}", before.reported);
        assert!(found.desired >= before.desired, "{round}: desired went back from {}", before.desired);
        // Every property is told under a version that nobody has seen of it: who asks for what is newer gets it.
        for (name, version) in &shown {
            // One that was never flushed is away until it is read again; then it comes with a version above the ceiling.
            let now = found.leaves.get(name).copied().unwrap_or(u64::MAX);
            assert!(now > *version, "{round}: {name} was shown with version {version}, and is {now} now");
        }
        assert!(before.epoch.is_empty() || before.epoch == found.epoch, "{round}: the epoch changed");
        shown.extend(found.leaves.clone());
        before = found;
        if round == KILLS {
            break;
        }
        let words = [gateway.port().to_string(), (before.target + 1).to_string()];
        let writer = Script::start(WRITER, &[&words[0], &words[1]]);
        let number = |line: &String| line.parse::<u64>().ok();
        tests::eventually("the first acknowledgement", || writer.lines().iter().find_map(number));
        // A fixed pattern of pauses, so that kills fall before, in and after commits.
        std::thread::sleep(Duration::from_millis((round * 37) % 200));
        gateway.kill();
        let lines = writer.end();
        acknowledged = lines.iter().filter_map(number).max().unwrap_or(before.target);
        hear(&lines, &mut shown);
    }
    assert!(acknowledged > KILLS, "only {acknowledged} writes were acknowledged in all");
}

#[test]
fn a_clean_stop_keeps_every_version_as_it_was() {
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    let gateway = home.start();
    let told = || {
        let found = look(&gateway, false);
        (!found.leaves.is_empty() && found.leaves.values().max() == Some(&found.reported)).then_some(found)
    };
    tests::eventually("the first values", told);
    // The device stands still: once every group was read, nothing moves any more.
    std::thread::sleep(Duration::from_secs(3));
    let before = look(&gateway, false);
    gateway.stop();
    let again = home.start();
    let after = look(&again, false);
    assert_eq!((after.reported, after.leaves, after.epoch), (before.reported, before.leaves, before.epoch));
}
