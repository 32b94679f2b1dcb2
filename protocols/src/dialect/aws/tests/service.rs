//! A small shadow service as AWS documents it, and a link that cuts, reorders and repeats between it and the dialect.

use super::super::shadow::section;
use super::*;
use crate::dialect::CloudWish;

/// One shadow: merges, versions, timestamps, deltas, conflicts.
#[derive(Default)]
struct Service {
    desired: BTreeMap<String, (Value, u64)>,
    reported: Map<String, Value>,
    version: u64,
    seconds: u64,
    /// On its way to the dialect.
    out: Vec<Message>,
}

impl Service {
    fn say(&mut self, end: &str, body: &Value) {
        self.out.push(message(&format!("{BOILER}/{end}"), body));
    }

    fn metadata(&self) -> Value {
        self.desired
            .iter()
            .map(|(name, (_, at))| (name.clone(), json!({"timestamp": at})))
            .collect::<Map<_, _>>()
            .into()
    }

    fn on(&mut self, publish: &Publish) {
        let Some(end) = publish.topic.strip_prefix(&format!("{BOILER}/")) else { return };
        let body = json_of(publish);
        let token = body["clientToken"].clone();
        if end == "get" && self.version == 0 {
            self.say("get/rejected", &json!({"code": 404, "message": "no shadow", "clientToken": token}));
        } else if end == "get" {
            let desired: Map<String, Value> =
                self.desired.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
            let body = json!({"state": {"desired": desired, "reported": self.reported}, "version": self.version,
                "metadata": {"desired": self.metadata()}, "clientToken": token});
            self.say("get/accepted", &body);
        } else if body.get("version").is_some_and(|version| *version != self.version) {
            self.say("update/rejected", &json!({"code": 409, "message": "Version conflict", "clientToken": token}));
        } else {
            self.update(&body["state"], &token);
        }
    }

    fn update(&mut self, state: &Value, token: &Value) {
        self.version += 1;
        self.seconds += 1;
        for (name, value) in section(state, "desired") {
            if value.is_null() {
                self.desired.remove(&name);
            } else {
                self.desired.insert(name, (value, self.seconds));
            }
        }
        crate::dialect::base::merge(&mut self.reported, &section(state, "reported"));
        let stamps = self.metadata();
        let accepted =
            json!({"state": state, "metadata": {"desired": stamps}, "version": self.version, "clientToken": token});
        self.say("update/accepted", &accepted);
        let differs = |(name, (value, _)): &(&String, &(Value, u64))| self.reported.get(*name) != Some(value);
        let delta: Map<String, Value> =
            self.desired.iter().filter(differs).map(|(name, (value, _))| (name.clone(), value.clone())).collect();
        if !delta.is_empty() {
            self.say("update/delta", &json!({"state": delta, "metadata": stamps, "version": self.version}));
        }
    }
}

/// The gateway behind the dialect: it applies every wish at once.
struct Gateway {
    aws: Aws,
    site: Site,
    service: Service,
    tick: u64,
    desired_version: u64,
    desired: BTreeMap<String, (Value, u64)>,
    reported: BTreeMap<String, Value>,
    dirty: BTreeMap<String, Value>,
    underway: Option<(String, BTreeMap<String, Value>)>,
    heard: Vec<Value>,
    memory: BTreeMap<String, String>,
}

impl Gateway {
    fn new() -> Self {
        let mut site = site();
        site.devices.remove("meter.1");
        let (desired, reported, dirty, memory) = Default::default();
        Self {
            aws: aws(Vec::new()),
            site,
            service: Service::default(),
            tick: 1,
            desired_version: 0,
            desired,
            reported,
            dirty,
            underway: None,
            heard: Vec::new(),
            memory,
        }
    }

    fn now(&mut self) -> Now {
        self.tick += 1;
        now(self.tick)
    }

    fn send(&mut self, publishes: &[Publish]) {
        publishes.iter().for_each(|publish| self.service.on(publish));
    }

    fn keep(&mut self) {
        for (key, text) in self.aws.memory() {
            match text {
                Some(text) => self.memory.insert(key, text),
                None => self.memory.remove(&key),
            };
        }
    }

    fn connect(&mut self) {
        // What was on its way is lost with the link.
        self.service.out.clear();
        if let Some((_, said)) = self.underway.take() {
            self.again(said);
        }
        let now = self.now();
        let said = self.aws.connected(&self.site.clone(), false, now);
        self.send(&said);
    }

    /// What was said may not have arrived; what is newer stays.
    fn again(&mut self, said: BTreeMap<String, Value>) {
        for (item, content) in said {
            self.dirty.entry(item).or_insert(content);
        }
    }

    fn restart(&mut self) {
        self.keep();
        self.aws = aws(self.memory.clone().into_iter().collect());
        self.connect();
    }

    fn report(&mut self, name: &str, value: Value) {
        self.dirty.insert(format!("reported/{name}"), reported(&value));
        self.reported.insert(name.to_owned(), value);
    }

    fn deliver(&mut self, index: usize, twice: bool) {
        if self.service.out.is_empty() {
            return;
        }
        let index = index % self.service.out.len();
        let one = if twice { self.service.out[index].clone() } else { self.service.out.remove(index) };
        let now = self.now();
        for heard in self.aws.hear(&one, &self.site.clone(), now) {
            match heard {
                Heard::Wish(wish) => self.on_wish(&wish),
                Heard::Say(publish) => self.send(&[publish]),
                Heard::Resync(_) => self.dirty_all(),
                Heard::Settled { token, outcome } => self.on_settled(&token, &outcome),
                Heard::Ask { .. } | Heard::Senseless(_) => {}
            }
        }
        self.keep();
    }

    fn dirty_all(&mut self) {
        for (name, value) in &self.reported {
            self.dirty.insert(format!("reported/{name}"), reported(value));
        }
    }

    fn on_wish(&mut self, wish: &CloudWish) {
        let (name, value) = wish.patch.first_key_value().unwrap();
        self.desired_version += 1;
        self.heard.push(value.clone());
        if value.is_null() {
            self.desired.remove(name);
            self.dirty.insert(format!("desired/{name}"), Value::Null);
        } else {
            self.desired.insert(name.clone(), (value.clone(), self.desired_version));
            self.dirty.insert(format!("desired/{name}"), desired(value, self.desired_version, "applied", "cloud"));
        }
        let answered = Answer { result: Ok(self.desired_version), ..answer(name, Ok(0)) };
        let now = self.now();
        let said = self.aws.answered(&answered, &self.site.clone(), now);
        self.send(&said);
    }

    fn on_settled(&mut self, token: &str, outcome: &Settled) {
        let Some((_, said)) = self.underway.take_if(|(known, _)| known == token) else { return };
        if *outcome != Settled::Accepted {
            self.again(said);
        }
    }

    fn say(&mut self) {
        if self.underway.is_some() || self.dirty.is_empty() || !self.aws.ready(Some(&id("boiler-1"))) {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let parts: Vec<(&str, Value)> = dirty.iter().map(|(item, content)| (item.as_str(), content.clone())).collect();
        let now = self.now();
        let saying = self.aws.say(&batch("boiler-1", &parts), &self.site.clone(), now);
        if let Settle::Reply(token) = saying.settle {
            self.underway = Some((token, dirty));
        }
        self.send(&saying.publishes);
    }

    /// Until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..400 {
            self.say();
            let now = self.now();
            let said = self.aws.tick(&self.site.clone(), now);
            self.send(&said);
            self.deliver(0, false);
            if self.service.out.is_empty() && self.dirty.is_empty() && self.underway.is_none() {
                return;
            }
        }
        panic!("it does not come to rest: {} messages, dirty {:?}", self.service.out.len(), self.dirty);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// An application writes a value that was never written before, or clears it.
    Wish(bool, bool),
    Report(bool, u8),
    Say,
    Deliver(usize, bool),
    Cut,
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), prop::bool::weighted(0.8)).prop_map(|(which, sets)| Step::Wish(which, sets)),
        3 => (any::<bool>(), any::<u8>()).prop_map(|(which, value)| Step::Report(which, value)),
        4 => Just(Step::Say),
        8 => (0..4_usize, prop::bool::weighted(0.15)).prop_map(|(index, twice)| Step::Deliver(index, twice)),
        1 => Just(Step::Cut),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Both sides in random order, over a link that loses, repeats and reorders: at rest the shadow holds what was reported,
    /// the last wish was taken, no wish was taken twice, and `desired` is empty.
    #[test]
    fn both_sides_agree_at_rest_and_no_wish_is_taken_twice(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut gateway = Gateway::new();
        gateway.connect();
        let mut last: BTreeMap<&str, Option<Value>> = BTreeMap::new();
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Wish(which, sets) => {
                    let name = if *which { "setpoint" } else { "mode" };
                    let value = if *sets { json!(1000 + number) } else { Value::Null };
                    gateway.service.update(&json!({"desired": {name: value}}), &json!("app"));
                    last.insert(name, sets.then_some(value));
                }
                Step::Report(which, value) => gateway.report(if *which { "temperature" } else { "power" }, json!(value)),
                Step::Say => gateway.say(),
                Step::Deliver(index, twice) => gateway.deliver(*index, *twice),
                Step::Cut => {
                    gateway.aws.disconnected();
                    gateway.keep();
                    gateway.connect();
                }
                Step::Restart => gateway.restart(),
            }
        }
        gateway.aws.disconnected();
        gateway.connect();
        gateway.settle();
        for (name, value) in &gateway.reported {
            prop_assert_eq!(gateway.service.reported.get(name), Some(value), "{}", name);
        }
        for (name, value) in last.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            prop_assert_eq!(gateway.desired.get(*name).map(|(value, _)| value), Some(value), "{}", name);
        }
        prop_assert_eq!(gateway.service.desired.len(), 0, "{:?}", gateway.service.desired);
        let mut taken: Vec<u64> = gateway.heard.iter().filter_map(Value::as_u64).collect();
        let all = taken.len();
        taken.sort_unstable();
        taken.dedup();
        prop_assert_eq!(taken.len(), all, "{:?}", gateway.heard);
    }
}
