//! What was acknowledged is on disk: `kill -9` at any moment, a hundred times.

use std::time::Duration;

use tests::gateway::Gateway;
use tests::mqtt::{Script, retained_of};
use tests::peers::Pymodbus;

use crate::installation::{boiler_on_tcp, fill};

/// Sets the two properties as fast as the broker acknowledges, prints every acknowledged value, and ends when the
/// gateway is gone. `target` counts up for ever, so a lost write shows as a smaller number.
const WRITER: &str = r#"
import sys, time
import paho.mqtt.client as mqtt

port, first = int(sys.argv[1]), int(sys.argv[2])
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.connect("127.0.0.1", port, keepalive=10)
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
        print(number, flush=True)
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
    Found { target, reported: number("/reported/version"), desired: number("/desired/version"), epoch }
}

#[test]
fn a_hundred_kills_lose_no_acknowledged_write_and_take_no_version_back() {
    const KILLS: u64 = 100;
    let mut peer = Pymodbus::tcp();
    fill(&mut peer, 1);
    let home = boiler_on_tcp(peer.port());
    let mut before = Found::default();
    let mut acknowledged = 0;
    for round in 0..=KILLS {
        let gateway = home.start();
        let found = look(&gateway, acknowledged > 0);
        assert!(found.target >= acknowledged, "{round}: {acknowledged} was acknowledged, {} is there", found.target);
        assert!(found.target <= acknowledged + 1, "{round}: {} was never sent", found.target);
        assert!(found.reported >= before.reported, "{round}: reported went back from {}", before.reported);
        assert!(found.desired >= before.desired, "{round}: desired went back from {}", before.desired);
        assert!(before.epoch.is_empty() || before.epoch == found.epoch, "{round}: the epoch changed");
        before = found;
        if round == KILLS {
            break;
        }
        let words = [gateway.port().to_string(), (before.target + 1).to_string()];
        let writer = Script::start(WRITER, &[&words[0], &words[1]]);
        tests::eventually("the first acknowledgement", || (!writer.lines().is_empty()).then_some(()));
        // A fixed pattern of pauses, so that kills fall before, in and after commits.
        std::thread::sleep(Duration::from_millis((round * 37) % 200));
        gateway.kill();
        acknowledged = writer.end().iter().filter_map(|line| line.parse().ok()).max().unwrap_or(before.target);
    }
    assert!(acknowledged > KILLS, "only {acknowledged} writes were acknowledged in all");
}
