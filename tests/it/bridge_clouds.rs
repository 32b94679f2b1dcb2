//! Three clouds as their vendors describe them, over TLS, with a Modbus device of pymodbus at the other end: first sync, wishes
//! down to the register, what is reported up, outage and catch-up, `kill -9`, and a token that ends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::clouds::{Certificates, Cloud};
use tests::gateway::{Gateway, Home};
use tests::mqtt::{Watch, publish};
use tests::net::HttpProxy;
use tests::peers::Pymodbus;
use tests::{eventually, within};

use crate::bridge::standing;
use crate::installation::{PROFILE, fill};

/// Devices beside the boiler that never answer: there is more to ask and to say than a cloud takes at once.
const SILENT: usize = 13;
/// The registers of the boiler: what is counted, wished and chosen.
const LEVEL: u16 = 0;
const SETPOINT: u16 = 1;
const MODE: u16 = 2;
/// "a key of the device, in 32 bytes", as the portal would show it.
const AZURE_KEY: &str = "YSBrZXkgb2YgdGhlIGRldmljZSwgaW4gMzIgYnl0ZXM=";

/// A boiler of pymodbus, the gateway that reads it, and the cloud.
struct Plant {
    peer: Pymodbus,
    home: Home,
    gateway: Option<Gateway>,
    cloud: Cloud,
}

impl Plant {
    fn new(cloud: Cloud, upstream: &str) -> Self {
        let mut peer = Pymodbus::tcp();
        fill(&mut peer, 1);
        let silent: String = (2..2 + SILENT)
            .map(|unit| {
                format!("  - {{id: silent-{unit}, profile: test.boiler, connection: dead, params: {{unit: {unit}}}}}\n")
            })
            .collect();
        let home = Home::with(&format!(
            "schema: 1\ngateway: {{id: plant-7, data: data}}\nprofiles: [profiles]\ntwin: {{flush: 100ms}}\n\
             broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}]}}\n\
             connections:\n  plc: {{modbus: {{tcp: \"127.0.0.1:{}\"}}}}\n  dead: {{modbus: {{tcp: \"127.0.0.1:1\"}}}}\n\
             devices:\n  - {{id: boiler-1, profile: test.boiler, connection: plc, params: {{unit: 1}}}}\n{silent}\
             upstream:\n  - {{name: cloud, {upstream}}}\n",
            peer.port()
        ));
        let profile = PROFILE.replace("  level: {type: int,", "  level: {stream: true, type: int,");
        assert_ne!(profile, PROFILE);
        home.write("profiles/boiler.yaml", &profile);
        Self { peer, home, gateway: None, cloud }
    }

    fn start(&mut self) {
        self.gateway = Some(self.home.start());
    }

    fn kill(&mut self) {
        self.gateway().kill();
    }

    fn gateway(&mut self) -> Gateway {
        self.gateway.take().expect("it runs")
    }

    fn port(&self) -> u16 {
        self.gateway.as_ref().expect("it runs").port()
    }

    fn standing(&self) -> (String, Value) {
        standing(self.gateway.as_ref().expect("it runs"))
    }

    /// The device counts, and the gateway has read it.
    fn counts(&mut self, values: std::ops::RangeInclusive<u16>) {
        let local = Watch::new(self.port(), &["twin/boiler-1/reported/level"]);
        for value in values {
            self.peer.put(1, "holding", LEVEL, &[value]);
            local.value("twin/boiler-1/reported/level", "/value", &json!(value));
        }
    }

    /// Waits until the device's register holds what was wished.
    #[track_caller]
    fn holds(&mut self, address: u16, expected: u16) {
        let mut held = Vec::new();
        within(Duration::from_secs(40), &format!("register {address} = {expected}"), || {
            held = self.peer.get(1, "holding", address, 1);
            (held == [expected]).then_some(())
        });
    }

    /// Waits until what the cloud answers to an order has these values at its pointers.
    #[track_caller]
    fn shows(&mut self, order: &Value, expected: &[(&str, Value)]) -> Value {
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            let document = self.cloud.order(order);
            let at = |pointer: &str| document.pointer(pointer).cloned().unwrap_or_default();
            let wrong: Vec<_> = expected
                .iter()
                .filter(|(pointer, value)| !protocols::value::same(&at(pointer), value))
                .map(|(pointer, value)| format!("{pointer}: {} instead of {value}", at(pointer)))
                .collect();
            if wrong.is_empty() {
                return document;
            }
            assert!(Instant::now() < end, "{wrong:?} in {document:#}\n{:?}", self.standing());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_away(&self) {
        eventually("the outage to be noticed", || (self.standing().0 == "away").then_some(()));
    }

    #[track_caller]
    fn is_synced(&self) {
        let mut found = (String::new(), Value::Null);
        for _ in 0..40 {
            found = self.standing();
            if found.0 == "synced" {
                return;
            }
        }
        panic!("not synced: {found:?}");
    }
}

/// Whether the readings came in their order, each at least once.
#[track_caller]
fn are_all(readings: &[u64], expected: std::ops::RangeInclusive<u64>) {
    let mut once: Vec<u64> = Vec::new();
    for reading in readings {
        if !once.contains(reading) {
            once.push(*reading);
        }
    }
    assert_eq!(once, expected.collect::<Vec<_>>());
}

/// What the readings of a property in a cloud's messages are: `readings` finds them in one message.
fn levels(messages: &Value, readings: impl Fn(&Value) -> Option<&Vec<Value>>) -> Vec<u64> {
    let all = messages.as_array().into_iter().flatten().filter_map(readings).flatten();
    all.filter(|reading| reading["property"] == "level").filter_map(|reading| reading["value"].as_u64()).collect()
}

#[test]
fn aws_shadows_and_devices_follow_one_another_through_alpn_certificates_and_an_outage() {
    let certificates = Certificates::new("plant-7");
    let mut cloud = Cloud::start("aws", &certificates);
    let fared = cloud.order(&json!({"strangers": true}));
    assert_eq!(fared, json!({"without ALPN": "closed", "without a certificate": "closed", "with both": "waited for"}));
    // port 443 is what the gateway is told, so that it offers the protocol name by itself; the proxy leads elsewhere
    let proxy = HttpProxy::leading("dTpw", "localhost:443", cloud.port());
    let at = |name: &str| certificates.file(name);
    let upstream = format!(
        "dialect: aws, url: \"mqtts://localhost:443\", client_id: plant-7, aws: {{thing: plant-7, telemetry: tidegate/plant-7}}, \
         tls: {{ca: \"{}\", cert: \"{}\", key: \"{}\"}}, proxy: \"http://u@127.0.0.1:{}\", proxy_password_file: proxy.txt",
        at("ca.crt"),
        at("client.crt"),
        at("client.key"),
        proxy.port()
    );
    let mut plant = Plant::new(cloud, &upstream);
    plant.home.write("proxy.txt", "p\n");
    plant.start();
    let boiler = json!({"what": "shadow", "shadow": "boiler-1"});
    let wish = |desired: Value| json!({"shadow": "boiler-1", "update": {"state": {"desired": desired}}});

    plant.shows(
        &boiler,
        &[
            ("/state/reported/level", json!(17)),
            ("/state/reported/setpoint", json!(20.5)),
            ("/state/reported/mode", json!("eco")),
            ("/state/reported/energy", json!(18446744073709551614_u64)),
            ("/state/reported/_status/state", json!("online")),
            ("/state/desired", Value::Null),
        ],
    );
    plant.shows(&json!({"what": "shadow"}), &[("/state/reported/gateway/state", json!("online"))]);
    plant.is_synced();

    plant.cloud.order(&wish(json!({"setpoint": 22, "mode": "heat"})));
    plant.holds(SETPOINT, 220);
    plant.holds(MODE, 2);
    let applied = [
        ("/state/reported/setpoint", json!(22)),
        ("/state/reported/_desired/setpoint/state", json!("applied")),
        ("/state/reported/_desired/mode/state", json!("applied")),
        ("/state/desired", Value::Null),
        ("/state/delta", Value::Null),
    ];
    plant.shows(&boiler, &applied);
    plant.cloud.order(&wish(json!({"setpoint": 99})));
    let refused = [("/state/reported/_desired/setpoint/state", json!("rejected")), ("/state/desired", Value::Null)];
    plant.shows(&boiler, &refused);
    plant.holds(SETPOINT, 220);
    // a knob that is turned stays turned
    plant.peer.put(1, "holding", SETPOINT, &[180]);
    plant.shows(&boiler, &[("/state/reported/setpoint", json!(18)), ("/state/desired", Value::Null)]);
    plant.holds(SETPOINT, 180);

    plant.cloud.link(false);
    plant.is_away();
    plant.counts(18..=30);
    plant.cloud.order(&wish(json!({"setpoint": 25, "mode": "eco", "target": 3.5})));
    plant.cloud.order(&wish(json!({"target": null})));
    plant.cloud.link(true);
    plant.holds(SETPOINT, 250);
    plant.holds(MODE, 1);
    let back = [
        ("/state/reported/level", json!(30)),
        ("/state/reported/setpoint", json!(25)),
        ("/state/desired", Value::Null),
    ];
    plant.shows(&boiler, &back);
    assert_eq!(plant.peer.get(1, "holding", 4, 2), [0x41AC, 0], "what was taken back meanwhile is not done");

    plant.kill();
    plant.cloud.order(&wish(json!({"setpoint": 12.5})));
    plant.peer.put(1, "holding", LEVEL, &[31]);
    plant.start();
    plant.holds(SETPOINT, 125);
    let back = [
        ("/state/reported/level", json!(31)),
        ("/state/reported/setpoint", json!(12.5)),
        ("/state/desired", Value::Null),
    ];
    plant.shows(&boiler, &back);
    plant.is_synced();
    // a shadow that was deleted is made anew
    plant.cloud.order(&json!({"what": "delete", "shadow": "boiler-1"}));
    plant.cloud.link(false);
    plant.is_away();
    plant.cloud.link(true);
    plant.shows(&boiler, &back);

    let told = plant.shows(&json!({}), &[]);
    let found = levels(&told["messages"], |message| {
        (message[0] == "tidegate/plant-7/readings/boiler-1").then(|| message[1]["readings"].as_array())?
    });
    are_all(&found, 17..=31);
    let peak = told["peak"].as_u64().unwrap();
    assert!((2..=10).contains(&peak), "{peak} requests in flight");
    plant.cloud.is_content();
}

#[test]
fn an_azure_twin_and_a_device_follow_one_another_through_throttling_and_an_outage() {
    let certificates = Certificates::new("plant-7");
    let cloud = Cloud::start("azure", &certificates);
    let upstream = azure(&cloud, &certificates, "1h");
    let mut plant = Plant::new(cloud, &upstream);
    plant.home.write("secrets/azure.key", AZURE_KEY);
    plant.start();
    let twin = json!({"what": "twin"});
    let wish = |desired: Value| json!({"desired": {"boiler-1": desired}});
    plant.shows(
        &twin,
        &[
            ("/reported/boiler-1/level", json!(17)),
            ("/reported/boiler-1/setpoint/value", json!(20.5)),
            ("/reported/boiler-1/energy", json!("18446744073709551614")),
            ("/reported/boiler-1/_status/state", json!("online")),
            ("/reported/_gateway/state", json!("online")),
        ],
    );
    plant.is_synced();

    let version = plant.cloud.order(&wish(json!({"setpoint": 22})))["version"].clone();
    plant.holds(SETPOINT, 220);
    let answer = |value: Value, code: u16, version: &Value| {
        [
            ("/reported/boiler-1/setpoint/value", value),
            ("/reported/boiler-1/setpoint/ac", json!(code)),
            ("/reported/boiler-1/setpoint/av", version.clone()),
        ]
    };
    plant.shows(&twin, &answer(json!(22), 200, &version));
    let version = plant.cloud.order(&wish(json!({"setpoint": 99})))["version"].clone();
    plant.shows(&twin, &answer(json!(22), 400, &version));
    plant.holds(SETPOINT, 220);

    let call = |method: &str, payload: Value| json!({"method": method, "payload": payload});
    let set = plant.cloud.order(&call("set", json!({"device": "boiler-1", "patch": {"mode": "heat"}})));
    assert_eq!(set["status"], 200, "{set}");
    plant.holds(MODE, 2);
    let none = plant.cloud.order(&call("reboot", json!({})));
    assert_eq!(none["status"], 501, "{none}");
    let document = plant.cloud.order(&call("get", json!({"device": "boiler-1"})));
    assert_eq!(document["payload"]["reported"]["properties"]["mode"]["value"], "heat", "{document}");

    // two requests are turned away; they are made again, later
    plant.cloud.order(&json!({"throttle": 2}));
    plant.counts(18..=20);
    plant.shows(&twin, &[("/reported/boiler-1/level", json!(20))]);

    plant.cloud.link(false);
    plant.is_away();
    plant.counts(21..=30);
    plant.cloud.order(&wish(json!({"setpoint": 24})));
    let version = plant.cloud.order(&wish(json!({"setpoint": 25})))["version"].clone();
    plant.cloud.link(true);
    plant.holds(SETPOINT, 250);
    plant.shows(&twin, &answer(json!(25), 200, &version));
    plant.shows(&twin, &[("/reported/boiler-1/level", json!(30))]);

    plant.kill();
    let version = plant.cloud.order(&wish(json!({"setpoint": 12.5})))["version"].clone();
    plant.peer.put(1, "holding", LEVEL, &[31]);
    plant.start();
    plant.holds(SETPOINT, 125);
    plant.shows(&twin, &answer(json!(12.5), 200, &version));
    plant.shows(&twin, &[("/reported/boiler-1/level", json!(31))]);
    plant.is_synced();
    let told = plant.shows(&json!({}), &[]);
    are_all(&azure_levels(&told["messages"]), 17..=31);
    plant.cloud.is_content();

    // a key that is not the device's is refused, and not shown
    plant.home.write("secrets/azure.key", "bm90IHRoZSBrZXkgb2YgdGhlIGRldmljZSwgYnV0IGxvbmc=");
    plant.cloud.link(false);
    plant.is_away();
    plant.cloud.link(true);
    let (_, details) = within(Duration::from_secs(40), "the refusal", || {
        Some(plant.standing()).filter(|(_, details)| details["last_error"].as_str().unwrap_or("").contains("refused"))
    });
    let log = plant.gateway().stop();
    for secret in ["SharedAccessSignature", "bm90IHRoZSBr", AZURE_KEY] {
        assert!(!details.to_string().contains(secret) && !log.contains(secret), "{details} {log}");
    }
}

fn azure(cloud: &Cloud, certificates: &Certificates, ttl: &str) -> String {
    format!(
        "dialect: azure, url: \"mqtts://localhost:{}\", client_id: plant-7, tls: {{ca: \"{}\"}}, \
         azure: {{hub: plant.azure-devices.net, device: plant-7, key_file: secrets/azure.key, token_ttl: {ttl}}}",
        cloud.port(),
        certificates.file("ca.crt")
    )
}

fn azure_levels(messages: &Value) -> Vec<u64> {
    let kind = "kind=readings";
    levels(messages, |message| {
        message[0].as_str().is_some_and(|bag| bag.contains(kind)).then(|| message[1]["readings"].as_array())?
    })
}

#[test]
fn a_shared_access_signature_is_renewed_before_it_ends_and_nothing_is_lost_by_it() {
    let certificates = Certificates::new("plant-7");
    let cloud = Cloud::start("azure", &certificates);
    let upstream = azure(&cloud, &certificates, "60s");
    let mut plant = Plant::new(cloud, &upstream);
    plant.home.write("secrets/azure.key", AZURE_KEY);
    plant.start();
    let begin = Instant::now();
    plant.shows(&json!({"what": "twin"}), &[("/reported/boiler-1/level", json!(17))]);
    // until the first token is over for certain, the device counts and wishes come
    let (mut level, mut wished) = (17, 100);
    while begin.elapsed() < Duration::from_secs(64) {
        level += 1;
        plant.counts(level..=level);
        if level.is_multiple_of(8) {
            wished = 100 + level % 100;
            plant.cloud.order(&json!({"desired": {"boiler-1": {"setpoint": f64::from(wished) / 10.0}}}));
        }
    }
    plant.holds(SETPOINT, wished);
    let expected = [
        ("/reported/boiler-1/level", json!(level)),
        ("/reported/boiler-1/setpoint/value", json!(f64::from(wished) / 10.0)),
        ("/reported/boiler-1/setpoint/ac", json!(200)),
    ];
    plant.shows(&json!({"what": "twin"}), &expected);
    plant.is_synced();
    let last = u64::from(level);
    let told = within(Duration::from_secs(20), "the last reading", || {
        let told = plant.cloud.order(&json!({}));
        azure_levels(&told["messages"]).contains(&last).then_some(told)
    });
    are_all(&azure_levels(&told["messages"]), 17..=last);
    let tokens: Vec<u64> = serde_json::from_value(told["tokens"].clone()).unwrap();
    assert!(tokens.len() == 2 && tokens[1] >= tokens[0] + 50, "a second token, made late: {tokens:?}");
    assert_eq!((&told["sessions"], &plant.standing().1["reconnects"]), (&json!(2), &json!(1)));
    // the hub ends a connection whose token is over, and would say so here
    plant.cloud.is_content();
}

#[test]
fn thingsboard_and_a_device_follow_one_another_through_double_acknowledgements_and_an_outage() {
    let certificates = Certificates::new("plant-7");
    let cloud = Cloud::start("thingsboard", &certificates);
    let upstream = format!(
        "dialect: thingsboard, url: \"mqtts://localhost:{}\", username: an-access-token-of-plant-7, tls: {{ca: \"{}\"}}",
        cloud.port(),
        certificates.file("ca.crt")
    );
    let mut plant = Plant::new(cloud, &upstream);
    plant.start();
    let all = json!({});
    plant.shows(
        &all,
        &[
            ("/types/boiler-1", json!("test.boiler")),
            ("/client/boiler-1/level", json!(17)),
            ("/client/boiler-1/level:quality", json!("good")),
            ("/client/boiler-1/setpoint", json!(20.5)),
            ("/client/boiler-1/energy", json!("18446744073709551614")),
            ("/client/boiler-1/device:state", json!("online")),
            ("/own/attributes/gateway:state", json!("online")),
        ],
    );
    plant.is_synced();

    let wish = |shared: Value| json!({"device": "boiler-1", "shared": shared});
    let told = plant.cloud.order(&wish(json!({"setpoint": 22})));
    assert_eq!(told["told"], true);
    plant.holds(SETPOINT, 220);
    let state = |word: &str| [("/client/boiler-1/setpoint:desired/state", json!(word))];
    plant.shows(&all, &state("applied"));
    plant.cloud.order(&wish(json!({"setpoint": 99})));
    plant.shows(&all, &state("rejected"));
    plant.holds(SETPOINT, 220);

    let call = |method: &str, params: Value| json!({"device": "boiler-1", "call": method, "params": params});
    let answer = plant.cloud.order(&call("setpoint", json!(18)));
    assert_eq!(answer["data"]["success"], true, "{answer}");
    plant.holds(SETPOINT, 180);
    plant.cloud.order(&call("set", json!({"setpoint": 19, "mode": "heat"})));
    plant.holds(SETPOINT, 190);
    plant.holds(MODE, 2);
    let answer = plant.cloud.order(&call("reboot", json!({})));
    assert_eq!(answer["data"]["success"], false, "{answer}");
    let document = plant.cloud.order(&call("get", json!({})));
    assert_eq!(document["data"]["reported"]["properties"]["mode"]["value"], "heat", "{document}");

    plant.cloud.link(false);
    plant.is_away();
    plant.counts(18..=30);
    let told = plant.cloud.order(&wish(json!({"setpoint": 25, "mode": "eco"})));
    assert_eq!(told["told"], false, "nobody hears of it");
    plant.cloud.link(true);
    plant.holds(SETPOINT, 250);
    plant.holds(MODE, 1);
    plant.shows(&all, &[("/client/boiler-1/level", json!(30)), ("/client/boiler-1/setpoint", json!(25))]);
    // a wish that is deleted is none
    plant.cloud.order(&json!({"device": "boiler-1", "delete": ["setpoint"]}));
    plant.shows(&all, &state("cleared"));

    plant.kill();
    plant.cloud.order(&wish(json!({"setpoint": 12.5})));
    plant.peer.put(1, "holding", LEVEL, &[31]);
    plant.start();
    plant.holds(SETPOINT, 125);
    plant.shows(&all, &[("/client/boiler-1/level", json!(31)), ("/client/boiler-1/setpoint", json!(12.5))]);
    plant.is_synced();
    publish(plant.port(), "twin/boiler-1/desired/mode/set", "\"heat\"");
    plant.shows(&all, &[("/client/boiler-1/mode:desired/value", json!("heat"))]);

    let (told, points) = eventually("the last reading", || {
        let told = plant.cloud.order(&all);
        let points = told["telemetry"]["boiler-1"].as_array().cloned().unwrap_or_default();
        let is_last = points.last().is_some_and(|point| point["values"]["level"] == 31);
        is_last.then_some((told, points))
    });
    let found: Vec<u64> = points.iter().filter_map(|point| point["values"]["level"].as_u64()).collect();
    are_all(&found, 17..=31);
    // after `kill -9` some are said again; ThingsBoard keeps one point for a time
    let mut times: Vec<u64> = Vec::new();
    for time in points.iter().filter_map(|point| point["ts"].as_u64()) {
        if !times.contains(&time) {
            times.push(time);
        }
    }
    assert!(times.len() == 15 && times.is_sorted(), "in the order of their time: {points:?}");
    assert_eq!(told["connected"].as_array().map(Vec::len), Some(1 + SILENT), "each is connected in this session");
    let details = plant.standing().1;
    assert!(details["stray_acks"].as_u64() > Some(0), "{details}");
    assert_eq!(details["reconnects"], 0, "second acknowledgements end no link: {details}");
    plant.cloud.is_content();
}
