//! Twins in step with a real mosquitto: first sync, every kind of restart, wishes both ways, and what must stay at home.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tests::clouds::Certificates;
use tests::gateway::{Gateway, Home};
use tests::mqtt::{Watch, publish, publish_with, retained};
use tests::net::{HttpProxy, Relay, Weather};
use tests::peers::Mosquitto;
use tests::{eventually, within};

use crate::installation::PROFILE;

pub(crate) const PREFIX: &str = "site/plant-7";
const DEVICES: [&str; 2] = ["boiler-1", "boiler-2"];

/// A home with two devices that nobody reads, and these upstreams.
fn home(upstream: &str) -> Home {
    let home = Home::with(&text(upstream));
    home.write("profiles/boiler.yaml", PROFILE);
    home
}

fn text(upstream: &str) -> String {
    let devices: String = DEVICES
        .iter()
        .enumerate()
        .map(|(unit, id)| {
            format!("  - {{id: {id}, profile: test.boiler, connection: plc, params: {{unit: {}}}}}\n", unit + 1)
        })
        .collect();
    format!(
        "schema: 1\ngateway: {{id: plant-7, data: data}}\nprofiles: [profiles]\ntwin: {{flush: 100ms}}\n\
         broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}]}}\n\
         connections: {{plc: {{modbus: {{tcp: \"127.0.0.1:1\"}}}}}}\ndevices:\n{devices}upstream:\n{upstream}"
    )
}

fn plain(port: u16, more: &str) -> String {
    format!(
        "  - {{name: cloud, dialect: plain, url: \"mqtt://127.0.0.1:{port}\", prefix: {PREFIX}, client_id: plant-7{more}}}\n"
    )
}

pub(crate) fn run(home: &Home) -> Gateway {
    home.run(&["run", "-c", "gateway.yaml", "--no-mappers"])
}

/// What a mapper would say.
pub(crate) fn read(gateway: &Gateway, device: &str, readings: &Value) {
    let payload = json!({"readings": readings}).to_string();
    let out = publish(gateway.port(), &format!("twin/{device}/reported/set"), &payload);
    assert!(out.status.success(), "{out:?}");
}

/// The word of the upstream, and its details.
pub(crate) fn standing(gateway: &Gateway) -> (String, Value) {
    let status = retained(gateway.port(), &["gateway/status"]);
    let status = status.first().expect("gateway/status is retained");
    (status.at("/upstream/cloud").as_str().unwrap_or("").to_owned(), status.at("/upstreams/cloud"))
}

/// The leaves of a replica: topic below the prefix → what matters of it. The time of a reading alone is no change.
fn leaves(port: u16, prefix: &str) -> BTreeMap<String, Value> {
    let below = |end: &str| format!("{prefix}twin/+/{end}");
    let filters = [below("reported/+"), below("desired/+"), below("delta"), below("status")];
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    retained(port, &filters)
        .into_iter()
        .map(|message| {
            let mut payload = message.payload.clone();
            if let Some(object) = payload.as_object_mut() {
                object.remove("at");
            }
            (message.topic.strip_prefix(prefix).unwrap_or_default().to_owned(), payload)
        })
        .collect()
}

/// Both replicas, once they are equal.
#[track_caller]
pub(crate) fn equal(gateway: &Gateway, cloud: u16) -> BTreeMap<String, Value> {
    let mut last = String::new();
    for _ in 0..20 {
        let here = leaves(gateway.port(), "");
        let there = leaves(cloud, &format!("{PREFIX}/"));
        if here == there {
            return here;
        }
        let differs: Vec<String> = here
            .keys()
            .chain(there.keys())
            .filter(|topic| here.get(*topic) != there.get(*topic))
            .map(|topic| format!("{topic}: here {:?}, there {:?}", here.get(topic), there.get(topic)))
            .collect();
        last = differs.join("\n");
    }
    panic!("the replicas differ:\n{last}\n{:?}", standing(gateway));
}

#[track_caller]
pub(crate) fn synced(gateway: &Gateway) {
    let mut found = (String::new(), Value::Null);
    for _ in 0..30 {
        found = standing(gateway);
        if found.0 == "synced" {
            return;
        }
    }
    panic!("not synced: {found:?}");
}

#[test]
fn the_other_broker_holds_what_the_gateway_knows_and_nothing_else() {
    let cloud = Mosquitto::start("");
    let all = Watch::new(cloud.port(), &["#"]);
    let home = home(&plain(cloud.port(), ""));
    let gateway = run(&home);
    read(&gateway, "boiler-1", &json!({"level": 7, "setpoint": 21.5, "energy": 18446744073709551615_u64}));
    synced(&gateway);
    let held = equal(&gateway, cloud.port());
    assert_eq!(held["twin/boiler-1/reported/energy"]["value"], json!(18446744073709551615_u64));
    // steady state
    read(&gateway, "boiler-1", &json!({"level": 8}));
    all.value(&format!("{PREFIX}/twin/boiler-1/reported/level"), "/value", &json!(8));
    // free topics and everything of the gateway stay at home
    publish(gateway.port(), "office/secret", "1");
    publish_with(gateway.port(), "office/kept", "1", &["-r"]);
    read(&gateway, "boiler-1", &json!({"level": 9}));
    all.value(&format!("{PREFIX}/twin/boiler-1/reported/level"), "/value", &json!(9));
    for message in all.all() {
        let rest = message.topic.strip_prefix(&format!("{PREFIX}/")).unwrap_or_else(|| panic!("{message:?}"));
        assert!(rest.starts_with("twin/") || rest == "gateway/status" || rest.starts_with("gateway/"), "{message:?}");
    }
    let status = all.value(&format!("{PREFIX}/gateway/status"), "/state", &json!("online"));
    assert_eq!(status.at("/broker"), Value::Null, "counters of the broker are nobody's business");
    gateway.stop();
    all.value(&format!("{PREFIX}/gateway/status"), "/state", &json!("offline"));
}

#[test]
fn an_idle_link_carries_pings_only() {
    let cloud = Mosquitto::start("");
    let relay = Relay::to(cloud.port());
    let home = home(&plain(relay.port(), ", keep_alive: 5s"));
    let gateway = run(&home);
    read(&gateway, "boiler-1", &json!({"level": 7}));
    synced(&gateway);
    equal(&gateway, cloud.port());
    // a document follows its last change by some seconds
    std::thread::sleep(Duration::from_secs(12));
    relay.listen_in();
    let before = relay.bytes();
    std::thread::sleep(Duration::from_secs(12));
    let said = relay.listen_in();
    assert!(!said.is_empty() && said.chunks(2).all(|packet| packet == [0xc0, 0]), "{said:x?}");
    assert!(relay.bytes().1 - before.1 <= 6, "PINGRESPs only");
}

#[test]
fn a_reconnect_with_nothing_changed_costs_one_question_and_one_answer() {
    let cloud = Mosquitto::start("");
    let relay = Relay::to(cloud.port());
    let home = home(&plain(relay.port(), ""));
    let gateway = run(&home);
    for device in DEVICES {
        read(&gateway, device, &json!({"level": 7, "setpoint": 21.5, "energy": 5, "flow": 1.25}));
    }
    synced(&gateway);
    equal(&gateway, cloud.port());
    // documents follow their last change by some seconds, and the mark stands for all of it after half a minute
    std::thread::sleep(Duration::from_secs(45));
    relay.listen_in();
    relay.cut();
    let connects = standing(&gateway).1["reconnects"].as_u64().unwrap();
    within(Duration::from_secs(20), "the link to be made anew", || {
        let (word, details) = standing(&gateway);
        (word == "synced" && details["reconnects"].as_u64() > Some(connects)).then_some(())
    });
    let said = relay.listen_in();
    let text = String::from_utf8_lossy(&said).into_owned();
    assert!(text.contains("gateway/mark/echo"), "{text:?}");
    assert!(!text.contains("/reported/") && !text.contains("/desired/setpoint"), "only what changed is said: {text:?}");
    assert!(said.len() < 2_000, "{} bytes: {text:?}", said.len());
}

#[test]
fn wishes_of_the_cloud_pass_the_same_door_and_are_answered() {
    let cloud = Mosquitto::start("");
    let home = home(&plain(cloud.port(), ""));
    let gateway = run(&home);
    synced(&gateway);
    let mut results = Watch::new(cloud.port(), &[&format!("{PREFIX}/twin/+/result")]);
    let local = Watch::new(gateway.port(), &["twin/+/desired/+"]);
    let wish = |payload: &str| publish(cloud.port(), &format!("{PREFIX}/twin/boiler-1/desired/set"), payload);
    wish(r#"{"id":"r1","patch":{"setpoint":22}}"#);
    let answer = results.next("the answer", |message| message.at("/id") == "r1");
    assert_eq!((answer.at("/ok"), answer.at("/version")), (json!(true), json!(1)));
    assert_eq!(local.value("twin/boiler-1/desired/setpoint", "/value", &json!(22)).at("/by"), "cloud");
    wish(r#"{"id":"r2","patch":{"setpoint":99}}"#);
    let answer = results.next("the refusal", |message| message.at("/id") == "r2");
    assert_eq!((answer.at("/ok"), answer.at("/code")), (json!(false), json!(422)));
    wish(r#"{"id":"r3","patch":{"nonsense":1}}"#);
    assert_eq!(results.next("the refusal", |message| message.at("/id") == "r3").at("/ok"), false);
    publish(cloud.port(), &format!("{PREFIX}/twin/boiler-2/desired/target/set"), "3.5");
    local.value("twin/boiler-2/desired/target", "/value", &json!(3.5));
    // and the other way: what is wished here is seen there, with how it stands
    publish(gateway.port(), "twin/boiler-1/desired/mode/set", "\"eco\"");
    equal(&gateway, cloud.port());
    let acknowledged = r#"{"version":2,"results":{"mode":{"state":"applied","actual":"eco"}}}"#;
    publish(gateway.port(), "twin/boiler-1/desired/ack", acknowledged);
    let there = Watch::new(cloud.port(), &[&format!("{PREFIX}/twin/boiler-1/desired/mode")]);
    there.value(&format!("{PREFIX}/twin/boiler-1/desired/mode"), "/state", &json!("applied"));
    equal(&gateway, cloud.port());
}

#[test]
fn what_was_wished_while_the_gateway_was_away_is_done_when_it_is_back() {
    let cloud = Mosquitto::start("");
    let home = home(&plain(cloud.port(), ""));
    let gateway = run(&home);
    synced(&gateway);
    gateway.stop();
    publish(cloud.port(), &format!("{PREFIX}/twin/boiler-1/desired/set"), r#"{"patch":{"setpoint":25}}"#);
    let gateway = run(&home);
    let local = Watch::new(gateway.port(), &["twin/+/desired/+"]);
    local.value("twin/boiler-1/desired/setpoint", "/value", &json!(25));
    synced(&gateway);
    equal(&gateway, cloud.port());
}

#[test]
fn changes_of_an_outage_arrive_with_or_without_the_session_and_the_broker_s_memory() {
    for keeps in [true, false] {
        let mut cloud = if keeps { Mosquitto::persistent() } else { Mosquitto::start("") };
        let home = home(&plain(cloud.port(), ""));
        let gateway = run(&home);
        read(&gateway, "boiler-1", &json!({"level": 1, "flow": 1.25}));
        publish(gateway.port(), "twin/boiler-1/desired/mode/set", "\"eco\"");
        synced(&gateway);
        equal(&gateway, cloud.port());
        cloud.stop();
        read(&gateway, "boiler-1", &json!({"level": 2}));
        publish(gateway.port(), "twin/boiler-1/desired/mode/set", "null");
        publish(gateway.port(), "twin/boiler-2/desired/target/set", "4");
        let gone = within(Duration::from_secs(30), "the outage to be noticed", || {
            Some(standing(&gateway)).filter(|(word, _)| word == "away")
        });
        assert!(gone.1["last_error"].is_string(), "{gone:?}");
        cloud.again();
        synced(&gateway);
        let held = equal(&gateway, cloud.port());
        assert_eq!(held["twin/boiler-1/reported/level"]["value"], 2);
        assert_eq!(held["twin/boiler-1/reported/flow"]["value"], 1.25, "unchanged, and there all the same");
        assert!(!held.contains_key("twin/boiler-1/desired/mode"), "what was cleared does not return");
        // the gateway killed and started: nothing is said twice that the other side has, nothing is missing
        gateway.kill();
        let gateway = run(&home);
        read(&gateway, "boiler-2", &json!({"level": 5}));
        synced(&gateway);
        equal(&gateway, cloud.port());
    }
}

#[test]
fn a_peer_without_version_5_is_spoken_to_in_3_1_1() {
    let cloud = Mosquitto::start("");
    let relay = Relay::without_v5(cloud.port());
    let home = home(&plain(relay.port(), ""));
    let gateway = run(&home);
    read(&gateway, "boiler-1", &json!({"level": 7}));
    synced(&gateway);
    equal(&gateway, cloud.port());
    assert_eq!(standing(&gateway).1["protocol"], "3.1.1");
    let local = Watch::new(gateway.port(), &["twin/+/desired/+"]);
    publish(cloud.port(), &format!("{PREFIX}/twin/boiler-1/desired/set"), r#"{"patch":{"setpoint":25}}"#);
    local.value("twin/boiler-1/desired/setpoint", "/value", &json!(25));
}

#[test]
fn tls_with_client_certificates_through_a_proxy_with_a_password() {
    let certificates = Certificates::new("client");
    let at = |name: &str| certificates.file(name);
    let (inside, outside) = (tests::free_port(), tests::free_port());
    let cloud = Mosquitto::with(
        outside,
        &format!(
            "per_listener_settings true\nlistener {outside} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n\
             require_certificate true\nuse_identity_as_username true\nlistener {inside} 127.0.0.1\nallow_anonymous true\n",
            at("ca.crt"),
            at("server.crt"),
            at("server.key")
        ),
    );
    let proxy = HttpProxy::start("dTpw"); // u:p
    let upstream = format!(
        "  - {{name: cloud, dialect: plain, url: \"mqtts://127.0.0.1:{}\", prefix: {PREFIX}, \
         tls: {{ca: \"{}\", cert: \"{}\", key: \"{}\"}}, proxy: \"http://u@127.0.0.1:{}\", proxy_password_file: proxy.txt}}\n",
        cloud.port(),
        at("ca.crt"),
        at("client.crt"),
        at("client.key"),
        proxy.port()
    );
    let home = home(&upstream);
    home.write("proxy.txt", "p\n");
    let gateway = run(&home);
    read(&gateway, "boiler-1", &json!({"level": 7}));
    synced(&gateway);
    equal(&gateway, inside);
    assert!(proxy.tunnels.load(Ordering::SeqCst) >= 1);
    // a wrong password is said, without the password
    home.write("proxy.txt", "s3cret\n");
    drop(cloud);
    let (_, details) = within(Duration::from_secs(40), "the refusal", || {
        Some(standing(&gateway)).filter(|(_, details)| details["last_error"].as_str().unwrap_or("").contains("407"))
    });
    assert!(!details.to_string().contains("s3cret") && !gateway.log().contains("s3cret"));
}

#[test]
fn what_the_filter_holds_back_is_not_there_for_the_other_side() {
    let cloud = Mosquitto::start("");
    let all = Watch::new(cloud.port(), &["#"]);
    let mut results = Watch::new(cloud.port(), &[&format!("{PREFIX}/twin/+/result")]);
    let home = home(&plain(cloud.port(), ", devices: [\"*-1\"], properties: {exclude: [setpoint, energy]}"));
    let gateway = run(&home);
    for device in DEVICES {
        read(&gateway, device, &json!({"level": 7, "setpoint": 21.5, "energy": 5}));
        publish(gateway.port(), &format!("twin/{device}/desired/set"), r#"{"patch":{"setpoint":20,"mode":"eco"}}"#);
    }
    synced(&gateway);
    all.value(&format!("{PREFIX}/twin/boiler-1/desired/mode"), "/value", &json!("eco"));
    publish(
        cloud.port(),
        &format!("{PREFIX}/twin/boiler-1/desired/set"),
        r#"{"id":"r1","patch":{"setpoint":22,"mode":"heat"}}"#,
    );
    let answer = results.next("the refusal", |message| message.at("/id") == "r1");
    assert_eq!((answer.at("/ok"), answer.at("/code")), (json!(false), json!(404)));
    publish(cloud.port(), &format!("{PREFIX}/twin/boiler-2/desired/set"), r#"{"id":"r2","patch":{"mode":"heat"}}"#);
    publish(cloud.port(), &format!("{PREFIX}/twin/boiler-1/get"), r#"{"id":"r3"}"#);
    let document = results.next("the document", |message| message.at("/device") == "boiler-1");
    assert_eq!(document.at("/reported/properties/setpoint"), Value::Null);
    std::thread::sleep(Duration::from_secs(2));
    for message in all.all() {
        let mine = message.topic.contains("/desired/set") || message.topic.ends_with("/result");
        assert!(mine || !message.topic.contains("boiler-2"), "{message:?}");
        assert!(mine || !message.topic.contains("setpoint") && !message.topic.contains("energy"), "{message:?}");
        let text = message.payload.to_string();
        assert!(mine || !text.contains("setpoint") && !text.contains("energy"), "{message:?}");
    }
    let here = retained(gateway.port(), &["twin/+/desired/mode"]);
    assert!(here.iter().all(|message| message.at("/value") == "eco"), "{here:?}");
}

#[test]
fn upstreams_come_go_and_change_while_the_others_stay() {
    let (one, two) = (Mosquitto::start(""), Mosquitto::start(""));
    let first = plain(one.port(), "");
    let home = home(&first);
    let gateway = run(&home);
    synced(&gateway);
    let connects = standing(&gateway).1["reconnects"].clone();
    let second = |prefix: &str| {
        format!("  - {{name: other, dialect: plain, url: \"mqtt://127.0.0.1:{}\", prefix: {prefix}}}\n", two.port())
    };
    home.write("gateway.yaml", &text(&format!("{first}{}", second("a"))));
    gateway.signal("HUP");
    let there = Watch::new(two.port(), &["#"]);
    there.value("a/gateway/status", "/state", &json!("online"));
    home.write("gateway.yaml", &text(&format!("{first}{}", second("b"))));
    gateway.signal("HUP");
    there.value("b/gateway/status", "/state", &json!("online"));
    there.value("b/twin/boiler-1/status", "/state", &json!("unknown"));
    home.write("gateway.yaml", &text(&first));
    gateway.signal("HUP");
    eventually("the second to be gone", || {
        let status = retained(gateway.port(), &["gateway/status"]);
        status.first()?.at("/upstream/other").is_null().then_some(())
    });
    assert_eq!(standing(&gateway).1["reconnects"], connects, "the first was not touched");
    // the clean stop of an upstream says so
    there.value("b/gateway/status", "/state", &json!("offline"));
}

#[test]
fn a_half_open_link_is_noticed_and_made_anew() {
    let cloud = Mosquitto::start("");
    let relay = Relay::to(cloud.port());
    let home = home(&plain(relay.port(), ", keep_alive: 5s"));
    let gateway = run(&home);
    synced(&gateway);
    relay.set(Weather::HalfOpen);
    read(&gateway, "boiler-1", &json!({"level": 77}));
    within(Duration::from_secs(60), "the silence to be noticed", || {
        Some(standing(&gateway)).filter(|(word, _)| word == "away")
    });
    relay.set(Weather::Fair);
    relay.cut();
    synced(&gateway);
    equal(&gateway, cloud.port());
}

#[test]
fn two_writers_are_settled_by_the_property_s_rule_and_the_loser_is_told() {
    let cloud = Mosquitto::start("");
    let relay = Relay::to(cloud.port());
    let home = home(&plain(relay.port(), ""));
    let profile = PROFILE.replace("  target: {type: number,", "  target: {conflict: local, type: number,");
    assert_ne!(profile, PROFILE);
    home.write("profiles/boiler.yaml", &profile);
    let gateway = run(&home);
    synced(&gateway);
    let local = Watch::new(gateway.port(), &["twin/+/conflict", "twin/+/event"]);
    let mut results = Watch::new(cloud.port(), &[&format!("{PREFIX}/twin/+/result")]);
    relay.set(Weather::Cut);
    eventually("the outage to be noticed", || (standing(&gateway).0 == "away").then_some(()));
    publish(gateway.port(), "twin/boiler-1/desired/set", r#"{"patch":{"setpoint":10,"target":1},"by":"panel"}"#);
    let wish = r#"{"id":"c1","patch":{"setpoint":20,"target":2}}"#;
    publish(cloud.port(), &format!("{PREFIX}/twin/boiler-1/desired/set"), wish);
    relay.set(Weather::Fair);
    let answer = results.next("the answer", |message| message.at("/id") == "c1");
    assert_eq!((answer.at("/ok"), answer.at("/code")), (json!(false), json!(409)), "{answer:?}");
    assert!(answer.at("/errors/target").is_string(), "{answer:?}");
    let told = local.value("twin/boiler-1/conflict", "/count", &json!(2));
    let record = |property: &str| {
        let records = told.at("/conflicts");
        let found = records.as_array().unwrap().iter().find(|record| record["property"] == property).cloned();
        found.unwrap_or_else(|| panic!("{told:?}"))
    };
    assert_eq!((&record("setpoint")["winner"], &record("setpoint")["local"]["value"]), (&json!("cloud"), &json!(10)));
    assert_eq!((&record("target")["winner"], &record("target")["cloud"]["value"]), (&json!("local"), &json!(2)));
    assert!(local.all().iter().any(|message| message.payload.get("conflict").is_some()), "an event tells of it");
    synced(&gateway);
    let held = equal(&gateway, cloud.port());
    assert_eq!(held["twin/boiler-1/desired/setpoint"]["value"], 20);
    assert_eq!(held["twin/boiler-1/desired/target"]["value"], 1);
    assert_eq!(standing(&gateway).1["conflicts"], 2);
}

#[test]
fn every_reading_of_a_stream_arrives_though_link_and_gateway_were_away() {
    let cloud = Mosquitto::start("");
    let relay = Relay::to(cloud.port());
    let home = home(&plain(relay.port(), ""));
    let profile = PROFILE.replace("  level: {type: int,", "  level: {stream: true, type: int,");
    assert_ne!(profile, PROFILE);
    home.write("profiles/boiler.yaml", &profile);
    let there = Watch::new(cloud.port(), &[&format!("{PREFIX}/#")]);
    let gateway = run(&home);
    synced(&gateway);
    for level in 1..=5 {
        read(&gateway, "boiler-1", &json!({"level": level}));
    }
    there.value(&format!("{PREFIX}/twin/boiler-1/stream/level"), "/value", &json!(5));
    relay.set(Weather::Cut);
    eventually("the outage to be noticed", || (standing(&gateway).0 == "away").then_some(()));
    for level in 6..=60 {
        read(&gateway, "boiler-1", &json!({"level": level}));
    }
    eventually("the readings to be on disk", || {
        let details = standing(&gateway).1;
        (details["spool_rows"] == 55 && details["spool_memory_bytes"] == 0).then_some(())
    });
    gateway.kill();
    relay.set(Weather::Fair);
    let gateway = run(&home);
    synced(&gateway);
    there.value(&format!("{PREFIX}/twin/boiler-1/stream/level"), "/value", &json!(60));
    let mut streamed: Vec<Value> = Vec::new();
    for message in there.all().into_iter().filter(|message| message.topic.ends_with("/stream/level")) {
        if !streamed.contains(&message.at("/value")) {
            streamed.push(message.at("/value"));
        }
    }
    let all: Vec<Value> = (1..=60).map(Value::from).collect();
    assert_eq!(streamed, all, "each once at least, in their order");
    eventually("the spool to be empty", || (standing(&gateway).1["spool_rows"] == 0).then_some(()));
}

#[test]
fn readings_that_the_bridge_could_not_read_in_time_are_told_as_a_gap_and_state_is_right_all_the_same() {
    const READINGS: usize = 4_000;
    let cloud = Mosquitto::start("max_queued_messages 0");
    let home = home(&plain(cloud.port(), ""));
    let small = "broker: {limits: {queue_bytes: 16384}, listeners:";
    home.write("gateway.yaml", &text(&plain(cloud.port(), "")).replace("broker: {listeners:", small));
    let profile = PROFILE.replace("  level: {type: int,", "  level: {stream: true, type: int,");
    assert_ne!(profile, PROFILE);
    home.write("profiles/boiler.yaml", &profile);
    let there = Watch::new(cloud.port(), &[&format!("{PREFIX}/twin/+/stream/#"), &format!("{PREFIX}/gateway/gap")]);
    let gateway = run(&home);
    synced(&gateway);
    // more at once than the queue to the bridge holds
    let lines: String = (1..=READINGS).map(|level| json!({"readings": {"level": level}}).to_string() + "\n").collect();
    home.write("flood", &lines);
    let flood = std::fs::File::open(home.path().join("flood")).unwrap();
    let port = gateway.port().to_string();
    let words = ["-h", "127.0.0.1", "-p", &port, "-t", "twin/boiler-1/reported/set", "-l", "-q", "0"];
    let done = std::process::Command::new("mosquitto_pub").args(words).stdin(flood).status().unwrap();
    assert!(done.success());
    let (_, details) = within(Duration::from_secs(40), "the loss to be noticed", || {
        Some(standing(&gateway)).filter(|(_, details)| details["missed"].as_u64() > Some(0))
    });
    assert!(details["gaps"].as_u64() > Some(0), "{details}");
    let gap = eventually("the gap", || there.all().into_iter().find(|message| message.topic.ends_with("/gap")));
    assert_eq!((gap.at("/class"), gap.at("/reason")), (json!("metric"), json!("lost")), "{gap:?}");
    assert!(gap.at("/from_seq").as_u64() <= gap.at("/to_seq").as_u64() && gap.at("/epoch").is_string(), "{gap:?}");
    read(&gateway, "boiler-1", &json!({"level": 60_000}));
    there.value(&format!("{PREFIX}/twin/boiler-1/stream/level"), "/value", &json!(60_000));
    synced(&gateway);
    let held = equal(&gateway, cloud.port());
    assert_eq!(held["twin/boiler-1/reported/level"]["value"], 60_000);
    // what arrived is in order, and no number is both sent and given up
    let all = there.all();
    let streamed: Vec<u64> = all.iter().filter_map(|message| message.at("/value").as_u64()).collect();
    assert!(streamed.windows(2).all(|two| two[0] <= two[1]), "{streamed:?}");
    assert!(streamed.len() < READINGS, "all came, so nothing was shown");
}

#[test]
fn what_was_kept_for_an_upstream_goes_with_it_and_the_log_says_what_that_was() {
    let (one, two) = (Mosquitto::start(""), Mosquitto::start(""));
    let relay = Relay::to(two.port());
    let first = plain(one.port(), "");
    let second =
        format!("  - {{name: other, dialect: plain, url: \"mqtt://127.0.0.1:{}\", prefix: b}}\n", relay.port());
    let home = home(&format!("{first}{second}"));
    let profile = PROFILE.replace("  level: {type: int,", "  level: {stream: true, type: int,");
    home.write("profiles/boiler.yaml", &profile);
    let gateway = run(&home);
    synced(&gateway);
    relay.set(Weather::Cut);
    for level in 1..=5 {
        read(&gateway, "boiler-1", &json!({"level": level}));
    }
    eventually("the readings to be on disk", || {
        let status = retained(gateway.port(), &["gateway/status"]);
        (status.first()?.at("/upstreams/other/spool_rows") == 5).then_some(())
    });
    home.write("gateway.yaml", &text(&first));
    gateway.signal("HUP");
    let log = eventually("the word of what is given up", || {
        let log = gateway.log();
        log.lines().find(|line| line.contains("given up") && line.contains("other")).map(str::to_owned)
    });
    assert!(log.contains("readings=5"), "{log}");
    assert!(gateway.stop().lines().filter(|line| line.contains("given up")).count() == 1);
    // nothing of it comes back under its name
    relay.set(Weather::Fair);
    let there = Watch::new(two.port(), &["b/twin/+/stream/#", "b/gateway/status"]);
    home.write("gateway.yaml", &text(&format!("{first}{second}")));
    let gateway = run(&home);
    there.value("b/gateway/status", "/state", &json!("online"));
    read(&gateway, "boiler-1", &json!({"level": 6}));
    there.value("b/twin/boiler-1/stream/level", "/value", &json!(6));
    let streamed: Vec<Value> = there.all().iter().map(|message| message.at("/value")).filter(Value::is_u64).collect();
    assert_eq!(streamed, [json!(6)]);
}

#[test]
fn home_assistant_on_the_embedded_broker_is_told_of_the_devices_and_what_changes() {
    let ha = "  - {name: cloud, dialect: homeassistant, devices: [boiler-1]}\n";
    let home = home(ha);
    let gateway = run(&home);
    synced(&gateway);
    let watch = Watch::new(gateway.port(), &["homeassistant/#"]);
    let config = eventually("the discovery document", || {
        watch.all().into_iter().find(|message| message.topic.ends_with("/config") && message.topic.contains("boiler-1"))
    });
    assert!(config.retained && config.payload.to_string().contains("setpoint"), "{config:?}");
    assert!(!watch.all().iter().any(|message| message.topic.contains("boiler-2")), "it was not named");
    home.write("gateway.yaml", &text("  - {name: cloud, dialect: homeassistant}\n"));
    gateway.signal("HUP");
    eventually("the second device", || watch.all().into_iter().find(|message| message.topic.contains("boiler-2")));
}

#[test]
fn nobody_answers_an_upstream_in_the_twins_name() {
    let home = home("");
    home.write("gateway.yaml", &text("").replace("upstream:\n", ""));
    let gateway = run(&home);
    let out = publish(gateway.port(), "gateway/bridge/01ARZ3NDEKTSV4RRFFQ69G5FAV/result", "{}");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() || said.contains("authori") || said.contains("135"), "{out:?}");
}
