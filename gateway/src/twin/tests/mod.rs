//! The twin service with the real store and a voice that remembers.

mod devices;
mod readings;
mod requests;
mod restart;
mod wishes;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
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
        words.iter().map(|word| (word.topic().to_owned(), parsed(word.payload()))).collect()
    }

    /// What a new subscriber to everything would get.
    fn retained(&self) -> BTreeMap<String, Value> {
        let mut retained = BTreeMap::new();
        for word in self.0.lock().unwrap().iter().filter(|word| word.retain) {
            match word.payload().is_empty() {
                true => retained.remove(word.topic()),
                false => retained.insert(word.topic().to_owned(), parsed(word.payload())),
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
