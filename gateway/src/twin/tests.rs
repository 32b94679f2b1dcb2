//! The twin service with the real store and a voice that remembers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use protocols::profile::Library;
use protocols::value::Timestamp;
use protocols::yaml::{self, Complaints};
use serde_json::{Value, json};

use super::*;
use crate::broker::desk::{Answer, Author};
use crate::store::{self, Options, VERSION_RESERVE};

const BOILER: &str = "
schema: 1
id: acme.boiler
version: 1.2.0
meta: {vendor: Acme, model: Boiler}
properties:
  temperature: {type: number, unit: Cel, scale: 0.1, from: {modbus: {table: input, address: 0, type: int16}}}
  setpoint: {type: number, access: rw, scale: 0.1, write: {min: 5, max: 30}, from: {modbus: {table: holding, address: 1, type: uint16}}}
  mode: {type: int, access: rw, from: {modbus: {table: holding, address: 2, type: uint16}}}
  button: {type: bool, access: w, write: {mode: pulse, pulse: 1s, confirm: ack}, from: {modbus: {table: coil, address: 3, type: bit}}}
";

/// The same without `mode`.
const SMALLER: &str = "
schema: 1
id: acme.boiler
version: 1.3.0
meta: {vendor: Acme, model: Boiler}
properties:
  setpoint: {type: number, access: rw, scale: 0.1, write: {min: 5, max: 30}, from: {modbus: {table: holding, address: 1, type: uint16}}}
";

fn config(profile: &str, devices: &[&str]) -> Config {
    let mut complaints = Complaints::new();
    let mut library = Library::new();
    library.add("boiler.yaml", profile, false, &mut complaints);
    let mut text = "schema: 1\ngateway: {id: g}\nconnections: {plc: {modbus: {tcp: \"127.0.0.1:502\"}}}\n".to_owned();
    text.push_str(if devices.is_empty() { "devices: []\n" } else { "devices:\n" });
    for (unit, device) in devices.iter().enumerate() {
        text.push_str(&format!(
            "  - {{id: {device}, profile: acme.boiler, connection: plc, override: {{modbus: {{unit: {}}}}}}}\n",
            unit + 1
        ));
    }
    let tree = yaml::read("gateway.yaml", &text, &mut complaints).unwrap();
    let config = protocols::config::gateway(&tree, &mut library, &mut Complaints::new(), &mut complaints);
    config.unwrap_or_else(|| panic!("{complaints:?}"))
}

#[derive(Default)]
struct Ear(Mutex<Vec<Word>>);

impl Voice for Ear {
    fn say(&self, words: Vec<Word>) {
        self.0.lock().unwrap().extend(words);
    }
}

impl Ear {
    fn take(&self) -> Vec<(String, Value)> {
        let words = std::mem::take(&mut *self.0.lock().unwrap());
        words.into_iter().map(|word| (word.topic, parsed(&word.payload))).collect()
    }

    /// What a new subscriber to everything would get.
    fn retained(&self) -> BTreeMap<String, Value> {
        let mut retained = BTreeMap::new();
        for word in self.0.lock().unwrap().iter().filter(|word| word.retain) {
            match word.payload.is_empty() {
                true => retained.remove(&word.topic),
                false => retained.insert(word.topic.clone(), parsed(&word.payload)),
            };
        }
        retained
    }
}

fn parsed(payload: &[u8]) -> Value {
    if payload.is_empty() { Value::Null } else { serde_json::from_slice(payload).unwrap() }
}

struct Rig {
    twins: Twins,
    store: Arc<Store>,
    ear: Arc<Ear>,
    tick: Arc<AtomicU64>,
}

impl Rig {
    fn new(dir: &Path, config: &Config) -> Self {
        let store = Arc::new(Store::open(dir, Options::default()).unwrap());
        let (ear, tick) = (Arc::new(Ear::default()), Arc::new(AtomicU64::new(1_000_000)));
        let clock: Clock = Arc::new({
            let tick = tick.clone();
            move || {
                let tick = tick.load(Ordering::SeqCst);
                Now { tick, wall: Timestamp::from_ms(1_700_000_000_000 + tick as i64) }
            }
        });
        let twins = Twins::start(config, store.clone(), ear.clone(), clock).unwrap();
        Self { twins, store, ear, tick }
    }

    fn boiler(dir: &Path) -> Self {
        Self::new(dir, &config(BOILER, &["b1"]))
    }

    fn send(&self, request: impl FnOnce(&mut Request)) -> mpsc::Receiver<Option<Verdict>> {
        let (tell, told) = mpsc::channel();
        let mut full = Request {
            author: Author { client: "c1".to_owned(), user: None, role: "app".to_owned() },
            topic: String::new(),
            payload: Bytes::new(),
            qos: 1,
            response_topic: None,
            correlation: None,
            answer: Answer::new(move |verdict| drop(tell.send(verdict))),
        };
        request(&mut full);
        self.twins.take(full);
        told
    }

    fn ask(&self, topic: &str, payload: &str, qos: u8) -> Verdict {
        let told = self.send(|request| {
            request.topic = topic.to_owned();
            request.payload = payload.to_owned().into();
            request.qos = qos;
        });
        told.recv_timeout(Duration::from_secs(20)).unwrap().expect("the desk answers")
    }

    fn set(&self, patch: Value) -> Verdict {
        self.ask("twin/b1/desired/set", &json!({ "patch": patch }).to_string(), 1)
    }

    /// Lets time pass, and wakes the service.
    fn pass(&self, ms: u64) {
        self.tick.fetch_add(ms, Ordering::SeqCst);
        // Twice: what the first wake finds due is said before the second is answered.
        for _ in 0..2 {
            self.ask("twin/b1/get", "", 1);
        }
    }

    fn retained(&self, topic: &str) -> Value {
        self.ear.retained().remove(topic).unwrap_or(Value::Null)
    }
}

fn reason(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Accepted => 0,
        Verdict::Refused { reason, .. } => *reason,
    }
}

#[test]
fn topics_are_claimed_as_the_contract_has_it() {
    for (topic, expected) in [
        ("twin/d/desired/p/set", Claim::Taken),
        ("twin/d/desired/set", Claim::Taken),
        ("twin/d/get", Claim::Taken),
        ("twin/d/reported/set", Claim::Mapper),
        ("twin/d/desired/ack", Claim::Mapper),
        ("twin/d/status/set", Claim::Mapper),
        ("twin/d/reported/p", Claim::Reserved),
        ("twin/d", Claim::Reserved),
        ("twin/d/delta", Claim::Reserved),
        ("twin/d/event", Claim::Reserved),
        ("twin/d/nonsense", Claim::Reserved),
        ("twin/d/desired/bad name/set", Claim::Reserved),
        ("twin", Claim::Reserved),
        ("twin/", Claim::Reserved),
        ("gateway/status", Claim::Reserved),
        ("gateway/connection/bus1/request", Claim::Free),
        ("gateway/connection/bus1/status", Claim::Free),
        ("twins/d/delta", Claim::Free),
        ("site/twin/d/delta", Claim::Free),
        ("", Claim::Free),
    ] {
        assert_eq!(claim("twin", topic), expected, "{topic}");
    }
    assert_eq!(claim("a/b", "a/b/d/get"), Claim::Taken);
    assert_eq!(claim("a/b", "twin/d/delta"), Claim::Free);
}

#[test]
fn a_wish_goes_from_set_to_applied() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ear.take();
    let verdict = rig.ask("twin/b1/desired/set", r#"{"id":"r1","patch":{"setpoint":22,"mode":1},"by":"ha"}"#, 1);
    assert_eq!(verdict, Verdict::Accepted);
    let words: Vec<_> = rig.ear.take();
    let of = |topic: &str| words.iter().find(|word| word.0 == topic).map(|word| word.1.clone()).unwrap_or_default();
    let wish = of("twin/b1/desired/setpoint");
    assert_eq!((&wish["value"], &wish["version"], &wish["by"]), (&json!(22), &json!(1), &json!("ha")));
    assert_eq!(wish["state"], "pending");
    let epoch = rig.store.opened().epoch.clone();
    assert_eq!(of("twin/b1/delta"), json!({"epoch": epoch, "version": 1, "desired": {"setpoint": 22, "mode": 1}}));
    let event = of("twin/b1/event");
    assert_eq!((&event["from"], &event["to"], event["desired"].as_object().unwrap().len()), (&json!(0), &json!(1), 2));
    assert_eq!(of("twin/b1/result"), json!({"id": "r1", "ok": true, "version": 1}));
    assert_eq!(of("twin/b1")["delta"], json!({"setpoint": 22, "mode": 1}));

    let ack = r#"{"version":1,"results":{"setpoint":{"state":"applied","actual":22.0,"reason":null},"mode":{"state":"rejected","reason":"exception 3"}}}"#;
    assert_eq!(rig.ask("twin/b1/desired/ack", ack, 1), Verdict::Accepted);
    let words = rig.ear.take();
    let of = |topic: &str| words.iter().find(|word| word.0 == topic).map(|word| word.1.clone()).unwrap_or_default();
    assert_eq!(of("twin/b1/desired/setpoint")["state"], "applied");
    assert_eq!(of("twin/b1/desired/mode")["reason"], "exception 3");
    assert_eq!(of("twin/b1/delta")["desired"], json!({}));
    assert!(!words.iter().any(|word| word.0 == "twin/b1/result"), "a mapper that did not ask hears nothing");

    for clear in ["null", ""] {
        rig.ask("twin/b1/desired/mode/set", "3", 1);
        assert_eq!(rig.ask("twin/b1/desired/mode/set", clear, 1), Verdict::Accepted);
        let words = rig.ear.take();
        let last = words.iter().rfind(|word| word.0 == "twin/b1/desired/mode").unwrap();
        assert_eq!(last.1, Value::Null, "the retained topic is cleared");
    }
}

#[test]
fn a_refusal_carries_code_reason_and_words() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    let long = format!("\"{}\"", "x".repeat(REQUEST_BYTES));
    for (topic, payload, code, mqtt, errors) in [
        ("twin/b1/desired/set", "{", 400, 0x99, None),
        ("twin/b1/desired/set", r#"{"pach":{}}"#, 400, 0x99, None),
        ("twin/b1/desired/setpoint/set", "22 23", 400, 0x99, None),
        ("twin/b1/get", "[]", 400, 0x99, None),
        ("twin/b1/desired/ack", "{}", 400, 0x99, None),
        ("twin/b1/reported/set", r#"{"readings":{"temperature":{"value":1,"quality":"fine"}}}"#, 400, 0x99, None),
        ("twin/b1/status/set", r#"{"state":"asleep"}"#, 400, 0x99, None),
        ("twin/b2/desired/set", r#"{"patch":{}}"#, 404, 0x90, Some(json!({"": "there is no device b2"}))),
        ("twin/b2/reported/set", r#"{"readings":{}}"#, 404, 0x90, None),
        ("twin/b1/desired/setpoint/set", long.as_str(), 413, 0x97, None),
        ("twin/b1/desired/setpoint/set", "31", 422, 0x99, Some(json!({"setpoint": "above maximum 30"}))),
        ("twin/b1/desired/temperature/set", "31", 422, 0x99, Some(json!({"temperature": "is read-only"}))),
        (
            "twin/b1/desired/set",
            r#"{"patch":{"setpoint":20},"if_version":7}"#,
            409,
            0x83,
            Some(json!({"": "the desired section is at version 0, not 7"})),
        ),
        (
            "twin/b1/reported/set",
            r#"{"readings":{"temperature":20.5,"x":1}}"#,
            422,
            0x99,
            Some(json!({"x": "no such property; the other readings were taken"})),
        ),
    ] {
        rig.ear.take();
        let verdict = rig.ask(topic, payload, 1);
        assert_eq!(reason(&verdict), mqtt, "{topic} {payload:.60}: {verdict:?}");
        let words = rig.ear.take();
        let result = &words.iter().find(|word| word.0.ends_with("/result")).unwrap().1;
        assert_eq!((&result["ok"], &result["code"]), (&json!(false), &json!(code)), "{topic} {payload:.60}");
        assert!(errors.is_none_or(|errors| result["errors"] == errors), "{result}");
        assert!(!words.iter().any(|word| word.0.contains("/desired/") || word.0.ends_with("/delta")), "{words:?}");
    }
    let reader = rig.send(|request| {
        request.author.role = "reader".to_owned();
        request.topic = "twin/b1/desired/set".to_owned();
        request.payload = r#"{"patch":{"setpoint":20}}"#.into();
    });
    assert_eq!(reason(&reader.recv().unwrap().unwrap()), 0x87);
    assert_eq!(rig.retained("twin/b1/reported/temperature")["value"], json!(null), "ears were emptied");
}

#[test]
fn the_answer_goes_where_the_request_wants_it_unless_that_topic_is_the_gateways() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    for (wanted, answered) in [
        (None, "twin/b1/result"),
        (Some("clients/c1/answers"), "clients/c1/answers"),
        (Some("twin/b1/result"), "twin/b1/result"),
        (Some("twin/b1/reported/temperature"), "twin/b1/result"),
        (Some("gateway/status"), "twin/b1/result"),
    ] {
        rig.ear.take();
        let told = rig.send(|request| {
            request.topic = "twin/b1/get".to_owned();
            request.payload = r#"{"id":"q"}"#.into();
            request.response_topic = wanted.map(str::to_owned);
            request.correlation = Some(Bytes::from_static(b"\0\x01"));
        });
        assert_eq!(told.recv().unwrap(), Some(Verdict::Accepted));
        let words = std::mem::take(&mut *rig.ear.0.lock().unwrap());
        let [word] = &words[..] else { panic!("{words:?}") };
        assert_eq!((word.topic.as_str(), word.retain), (answered, false));
        assert_eq!(word.correlation.as_deref(), Some(&b"\0\x01"[..]));
        let document: Value = parsed(&word.payload);
        assert_eq!((&document["id"], &document["device"]), (&json!("q"), &json!("b1")));
        assert!(serde_json::from_value::<protocols::message::Document>(document).is_ok());
    }
}

#[test]
fn readings_are_published_at_once_and_the_document_once_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.pass(DOCUMENT_MS);
    rig.ear.take();
    for step in 1..=3 {
        rig.ask("twin/b1/reported/set", &json!({"readings": {"temperature": step}}).to_string(), 0);
        let words = rig.ear.take();
        let count = |topic: &str| words.iter().filter(|word| word.0 == topic).count();
        assert_eq!((count("twin/b1/reported/temperature"), count("twin/b1/event")), (1, 1));
        assert_eq!(count("twin/b1"), usize::from(step == 1), "step {step}");
    }
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":3.0}}"#, 0);
    let words = rig.ear.take();
    assert!(!words.iter().any(|word| word.0 == "twin/b1/event"), "no change, no event");
    assert_eq!(words[0].1["version"], 3);
    rig.pass(DOCUMENT_MS);
    let document = rig.retained("twin/b1");
    assert_eq!(document["reported"]["properties"]["temperature"]["value"], 3, "exact after quiet");
    assert_eq!(document["reported"]["version"], 3);
    rig.ear.take();
    rig.pass(10 * DOCUMENT_MS);
    assert!(rig.ear.retained().is_empty(), "no change means no traffic");
}

#[test]
fn a_reading_at_qos_1_is_acknowledged_when_its_group_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    let send = |value: u32| {
        rig.send(|request| {
            request.topic = "twin/b1/reported/set".to_owned();
            request.payload = json!({"readings": {"temperature": value}}).to_string().into();
        })
    };
    // The first group is as old as the gateway: it goes at once. The second has to wait for the interval.
    assert_eq!(send(1).recv_timeout(Duration::from_secs(20)).unwrap(), Some(Verdict::Accepted));
    let waiting = send(2);
    rig.pass(4_000);
    assert_eq!((rig.store.stats().leaves, waiting.try_recv().ok()), (1, None));
    rig.pass(1_000);
    assert_eq!(waiting.recv_timeout(Duration::from_secs(20)).unwrap(), Some(Verdict::Accepted));
    assert_eq!(rig.store.stats().leaves, 2);
    let waiting = send(3);
    rig.twins.stop();
    assert_eq!(waiting.recv().unwrap(), Some(Verdict::Accepted), "the end is a flush too");
}

#[test]
fn everything_retained_is_there_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ask("twin/b1/status/set", r#"{"state":"online"}"#, 1);
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":61.5,"mode":4}}"#, 0);
    rig.ask("twin/b1/reported/set", r#"{"readings":{"mode":{"value":null,"quality":"bad:timeout"}}}"#, 0);
    rig.set(json!({"setpoint": 21.5, "mode": 5}));
    rig.ask("twin/b1/desired/ack", r#"{"version":1,"results":{"mode":{"state":"failed","reason":"no answer"}}}"#, 1);
    rig.pass(DOCUMENT_MS);
    let mut before = rig.ear.retained();
    assert_eq!(before["twin/b1/reported/mode"]["last_good"]["value"], 4);
    assert_eq!(before.remove("twin/b1/status").unwrap()["state"], "online");
    let mut document = before.remove("twin/b1").unwrap();
    rig.twins.stop();
    rig.store.close();
    drop(rig);

    let rig = Rig::boiler(dir.path());
    let mut after = rig.ear.retained();
    assert_eq!(after.remove("twin/b1/status").unwrap()["state"], "unknown", "nobody has asked the device yet");
    let mut again = after.remove("twin/b1").unwrap();
    assert_eq!(after, before);
    for document in [&mut document, &mut again] {
        document.as_object_mut().unwrap().retain(|key, _| key != "at" && key != "status");
    }
    assert_eq!(again, document);
}

#[test]
fn a_refusal_carries_the_id_of_its_request() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    let large = json!({"id": "r1", "patch": {"setpoint": "x".repeat(REQUEST_BYTES)}}).to_string();
    for (topic, payload, code, id) in [
        ("twin/b1/desired/set", r#"{"id":"r1","patch":{"setpoint":31}}"#, 422, json!("r1")),
        ("twin/b1/desired/set", r#"{"id":"r1","pach":{}}"#, 400, json!("r1")),
        ("twin/b1/desired/set", r#"{"id":"r1"}"#, 400, json!("r1")),
        ("twin/b1/desired/set", r#"{"patch":{},"ttl_s":-1,"id":"r1"}"#, 400, json!("r1")),
        ("twin/b1/desired/set", r#"{"id":7,"patch":{}}"#, 400, json!("7")),
        ("twin/b1/desired/set", r#"{"id":["r1"],"patch":{}}"#, 400, json!(null)),
        ("twin/b1/desired/set", r#"{"id":"r1","patch":{}"#, 400, json!(null)),
        ("twin/b1/desired/set", r#"["r1"]"#, 400, json!(null)),
        ("twin/b1/desired/set", large.as_str(), 413, json!("r1")),
        ("twin/b2/desired/set", r#"{"id":"r1","patch":{}}"#, 404, json!("r1")),
        ("twin/b2/get", r#"{"id":"r1"}"#, 404, json!("r1")),
        ("twin/b1/get", r#"{"id":"r1","what":1}"#, 400, json!("r1")),
    ] {
        rig.ear.take();
        rig.ask(topic, payload, 1);
        let words = rig.ear.take();
        let result = &words.iter().find(|word| word.0.ends_with("/result")).unwrap().1;
        assert_eq!((&result["code"], &result["id"]), (&json!(code), &id), "{topic} {payload:.60}");
    }
}

#[test]
fn an_event_carries_both_sections() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":20.5}}"#, 1);
    rig.set(json!({"setpoint": 20}));
    rig.set(json!({"setpoint": null}));
    let events: Vec<Value> =
        rig.ear.take().into_iter().filter(|word| word.0.ends_with("/event")).map(|w| w.1).collect();
    assert!(events.len() >= 3, "{events:?}");
    for event in events {
        assert!(event["reported"].is_object() && event["desired"].is_object(), "{event}");
    }
}

#[test]
fn a_wish_is_never_pending_without_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    for (status, value, reason) in [
        (None, 20, "no mapper has reported yet"),
        (Some("offline"), 21, "device offline"),
        (Some("online"), 22, "waiting for the device"),
    ] {
        if let Some(state) = status {
            rig.ask("twin/b1/status/set", &json!({ "state": state }).to_string(), 1);
        }
        rig.set(json!({ "setpoint": value }));
        let wish = rig.retained("twin/b1/desired/setpoint");
        assert_eq!((&wish["state"], &wish["reason"]), (&json!("pending"), &json!(reason)));
    }
    rig.ask("twin/b1/desired/ack", r#"{"version":3,"results":{"setpoint":{"state":"pending"}}}"#, 1);
    assert_eq!(rig.retained("twin/b1/desired/setpoint")["reason"], "waiting for the device");
    rig.ask("twin/b1/desired/ack", r#"{"version":3,"results":{"setpoint":{"state":"applied","actual":22}}}"#, 1);
    assert_eq!(rig.retained("twin/b1/desired/setpoint")["reason"], json!(null));
}

#[test]
fn after_a_kill_only_devices_that_were_there_go_on_above_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &config(BOILER, &["b1", "silent"]));
    let copy = tempfile::tempdir().unwrap();
    for end in ["-wal", ""] {
        let name = format!("{}{end}", store::FILE);
        std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    drop(rig);
    let again = Rig::new(copy.path(), &config(BOILER, &["b1", "silent", "new"]));
    // Both old ones may have spoken without a flush; nobody can have heard of the new one.
    for (device, version) in [("b1", VERSION_RESERVE + 1), ("silent", VERSION_RESERVE + 1), ("new", 1)] {
        again.ask(&format!("twin/{device}/reported/set"), r#"{"readings":{"temperature":1}}"#, 0);
        assert_eq!(again.retained(&format!("twin/{device}/reported/temperature"))["version"], version, "{device}");
    }
}

#[test]
fn a_device_that_is_taken_out_is_cleared_once() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &config(BOILER, &["b1", "b2"]));
    rig.ask("twin/b2/reported/set", r#"{"readings":{"temperature":1}}"#, 1);
    rig.ask("twin/b2/desired/mode/set", "1", 1);
    rig.pass(0);
    let mut before: Vec<String> = rig.ear.retained().into_keys().filter(|topic| topic.starts_with("twin/b2")).collect();
    rig.ear.take();
    rig.twins.reload(&config(BOILER, &["b1"]));
    rig.pass(0);
    let mut cleared: Vec<String> = rig
        .ear
        .take()
        .into_iter()
        .filter(|word| word.0.starts_with("twin/b2") && word.1.is_null())
        .map(|w| w.0)
        .collect();
    before.sort();
    cleared.sort();
    assert_eq!(cleared, before);
}

#[test]
fn versions_go_on_after_a_kill_above_what_was_published() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &config(BOILER, &["b1", "quiet"]));
    let mut copies = Vec::new();
    for step in 1..=2 * VERSION_RESERVE + 100 {
        rig.ask("twin/b1/reported/set", &json!({"readings": {"temperature": step}}).to_string(), 0);
        if step % 700 == 5 {
            let copy = tempfile::tempdir().unwrap();
            // The log first: a flush between the two copies may be missing, as after a kill a little earlier.
            for end in ["-wal", ""] {
                let name = format!("{}{end}", store::FILE);
                std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
            }
            copies.push((step, copy));
        }
    }
    assert_eq!(rig.retained("twin/b1/reported/temperature")["version"], 2 * VERSION_RESERVE + 100);
    for (published, copy) in copies {
        let mut last = published;
        for round in 0..3 {
            let again = Rig::new(copy.path(), &config(BOILER, &["b1", "quiet", "new"]));
            again.ask("twin/b1/reported/set", r#"{"readings":{"temperature":-1}}"#, 0);
            again.ask("twin/b1/reported/set", r#"{"readings":{"temperature":-2}}"#, 0);
            let version = again.retained("twin/b1/reported/temperature")["version"].as_u64().unwrap();
            assert!(version > last, "round {round}: {version} after {last}");
            last = version;
        }
    }
}

#[test]
fn a_device_that_is_taken_out_loses_its_topics_and_keeps_its_versions() {
    let dir = tempfile::tempdir().unwrap();
    let both = config(BOILER, &["b1", "b2"]);
    let rig = Rig::new(dir.path(), &both);
    for device in ["b1", "b2"] {
        rig.ask(&format!("twin/{device}/reported/set"), r#"{"readings":{"temperature":1}}"#, 0);
        rig.ask(&format!("twin/{device}/desired/mode/set"), "1", 1);
    }
    rig.twins.reload(&config(BOILER, &["b1"]));
    rig.pass(0);
    assert!(!rig.ear.retained().keys().any(|topic| topic.starts_with("twin/b2")), "{:?}", rig.ear.retained().keys());
    assert!(rig.ear.retained().contains_key("twin/b1/desired/mode"));
    assert_eq!(reason(&rig.ask("twin/b2/get", "", 1)), 0x90);
    rig.twins.reload(&both);
    rig.ask("twin/b2/desired/mode/set", "1", 1);
    assert_eq!(rig.retained("twin/b2/desired/mode")["version"], 3);
    assert_eq!(rig.retained("twin/b2/reported/temperature"), json!(null));
    rig.twins.reload(&config(BOILER, &["b1"]));
    rig.twins.stop();
    rig.store.close();
    drop(rig);
    let rig = Rig::new(dir.path(), &both);
    rig.ask("twin/b2/reported/set", r#"{"readings":{"temperature":1}}"#, 0);
    rig.ask("twin/b2/desired/mode/set", "1", 1);
    let version = |topic: &str| rig.retained(topic)["version"].as_u64().unwrap();
    assert_eq!((version("twin/b2/desired/mode"), version("twin/b2/reported/temperature")), (5, 3));
}

#[test]
fn a_new_profile_takes_over_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ask("twin/b1/reported/set", r#"{"readings":{"temperature":1,"setpoint":20}}"#, 0);
    rig.set(json!({"setpoint": 22, "mode": 1}));
    rig.twins.reload(&config(SMALLER, &["b1"]));
    rig.pass(0);
    let retained = rig.ear.retained();
    let keys: Vec<&str> = retained.keys().map(String::as_str).collect();
    let expected =
        ["twin/b1", "twin/b1/delta", "twin/b1/desired/setpoint", "twin/b1/reported/setpoint", "twin/b1/status"];
    assert_eq!(keys, expected);
    assert_eq!(retained["twin/b1/delta"]["desired"], json!({"setpoint": 22}));
    assert_eq!(retained["twin/b1"]["profile"], "acme.boiler@1.3.0");
    let told =
        rig.ear.0.lock().unwrap().iter().any(|word| {
            word.topic == "twin/b1/event" && parsed(&word.payload)["desired"]["mode"]["state"] == "rejected"
        });
    assert!(told, "the lost wish is told");
}

#[test]
fn a_wish_that_cannot_be_stored_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.set(json!({"setpoint": 20}));
    rig.store.close();
    rig.ear.take();
    let verdict = rig.set(json!({"setpoint": 21}));
    assert_eq!(reason(&verdict), 0x80, "{verdict:?}");
    let words = rig.ear.take();
    assert_eq!(words.len(), 1, "{words:?}");
    assert_eq!((&words[0].0[..], &words[0].1["code"]), ("twin/b1/result", &json!(503)));
    rig.ask("twin/b1/get", "", 1);
    let document = &rig.ear.take()[0].1;
    assert_eq!((&document["delta"], &document["desired"]["version"]), (&json!({"setpoint": 20}), &json!(1)));
    let read = |step: u64| rig.ask("twin/b1/reported/set", &json!({"readings": {"temperature": step}}).to_string(), 0);
    for step in 1..=VERSION_RESERVE {
        assert_eq!(read(step), Verdict::Accepted, "readings go on while their versions are safe");
    }
    assert_eq!(reason(&read(VERSION_RESERVE + 1)), 0x80, "a version that a restart could repeat is not published");
    assert_eq!(rig.retained("twin/b1/reported/temperature")["version"], VERSION_RESERVE);
}

#[test]
fn a_wish_expires_though_nobody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.ask("twin/b1/desired/set", r#"{"patch":{"setpoint":20},"ttl_s":60}"#, 1);
    rig.pass(59_999);
    assert_eq!(rig.retained("twin/b1/desired/setpoint")["state"], "pending");
    rig.pass(1_001);
    for _ in 0..200 {
        if rig.retained("twin/b1/desired/setpoint")["state"] == "expired" {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(rig.retained("twin/b1/desired/setpoint")["state"], "expired");
    assert_eq!(rig.retained("twin/b1/delta")["desired"], json!({}));
    assert_eq!(rig.twins.counts().expired, 1);
}

#[test]
fn a_pulse_is_told_and_then_gone() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::boiler(dir.path());
    rig.set(json!({"button": true}));
    rig.ear.take();
    rig.ask("twin/b1/desired/ack", r#"{"version":1,"results":{"button":{"state":"applied"}}}"#, 1);
    let words = rig.ear.take();
    let of: Vec<_> = words.iter().filter(|word| word.0 == "twin/b1/desired/button").map(|word| &word.1).collect();
    assert_eq!(of.len(), 2);
    assert_eq!((&of[0]["state"], of[1]), (&json!("applied"), &Value::Null));
}

#[test]
fn what_waits_is_bounded_in_number_and_bytes() {
    let load = Arc::new(Load::default());
    let tickets: Vec<_> = (0..QUEUE_REQUESTS).map(|_| Ticket::take(&load, 1).unwrap()).collect();
    assert!(Ticket::take(&load, 1).is_none());
    drop(tickets);
    let big = Ticket::take(&load, QUEUE_BYTES).unwrap();
    assert!(Ticket::take(&load, 1).is_none());
    drop(big);
    assert!(Ticket::take(&load, 1).is_some());
}
