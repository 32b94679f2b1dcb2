//! What the model tests of the clouds share: a gateway that applies every wish at once, behind a dialect, and a link that cuts,
//! repeats and reorders between it and a small service of the vendor's.
//!
//! In: steps. Out: both sides at rest. Must never know a vendor's words.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::for_tests::{batch, id, now, site};
use super::{Answer, CloudWish, Dialect, Heard, Message, Publish, Settle, Site};
use crate::outbox::Settled;
use crate::value::{Now, Value};

const AT: &str = "2026-11-22T12:00:00.000Z";
/// The topic of an acknowledgement on its way, which is no message.
const PUBACK: &str = "";
/// No dialect pauses longer after a refusal; each look at the time moves it by a second.
const LONGEST_PAUSE_S: usize = 12;

/// A vendor's service.
pub(super) trait Service: Default {
    /// Whether its messages tell enough that no wish need be taken twice.
    const TAKEN_ONCE: bool = true;

    /// The dialect with what earlier runs remembered.
    fn dialect(memory: Vec<(String, String)>) -> Box<dyn Dialect>;
    /// Takes in what the dialect says.
    fn on(&mut self, publish: &Publish);
    /// What is on its way to the dialect.
    fn out(&mut self) -> &mut Vec<Message>;
    /// An application sets a value, or clears it.
    fn wish(&mut self, name: &str, value: Option<&Value>);
    /// The link is gone: what the service forgets with it.
    fn cut(&mut self) {}
    /// Whether one message may overtake another, or come twice.
    fn is_orderly(_topic: &str) -> bool {
        false
    }
}

/// The gateway.
pub(super) struct Gateway<S> {
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) service: S,
    /// What is desired here, and its version.
    pub(super) desired: BTreeMap<String, (Value, u64)>,
    pub(super) reported: BTreeMap<String, Value>,
    /// Values of the wishes that came, in their order.
    pub(super) heard: Vec<Value>,
    site: Site,
    tick: u64,
    desired_version: u64,
    dirty: BTreeMap<String, Value>,
    underway: Option<(Option<String>, BTreeMap<String, Value>)>,
    memory: BTreeMap<String, String>,
}

impl<S: Service> Gateway<S> {
    pub(super) fn new() -> Self {
        let mut site = site();
        site.devices.remove("meter.1");
        let mut gateway = Self {
            dialect: S::dialect(Vec::new()),
            service: S::default(),
            desired: BTreeMap::new(),
            reported: BTreeMap::new(),
            heard: Vec::new(),
            site,
            tick: 1,
            desired_version: 0,
            dirty: BTreeMap::new(),
            underway: None,
            memory: BTreeMap::new(),
        };
        gateway.connect();
        gateway
    }

    fn now(&mut self) -> Now {
        self.tick += 1;
        now(self.tick)
    }

    fn send(&mut self, publishes: &[Publish]) {
        publishes.iter().for_each(|publish| self.service.on(publish));
    }

    fn keep(&mut self) {
        for (key, text) in self.dialect.memory() {
            match text {
                Some(text) => self.memory.insert(key, text),
                None => self.memory.remove(&key),
            };
        }
    }

    fn connect(&mut self) {
        // What was on its way is lost with the link.
        self.service.out().clear();
        self.service.cut();
        if let Some((_, said)) = self.underway.take() {
            self.again(said);
        }
        let now = self.now();
        let said = self.dialect.connected(&self.site.clone(), false, now);
        self.send(&said);
    }

    /// What was said may not have arrived; what is newer stays.
    fn again(&mut self, said: BTreeMap<String, Value>) {
        for (item, content) in said {
            self.dirty.entry(item).or_insert(content);
        }
    }

    fn cut(&mut self) {
        self.dialect.disconnected();
        self.keep();
        self.connect();
    }

    fn restart(&mut self) {
        self.keep();
        self.dialect = S::dialect(self.memory.clone().into_iter().collect());
        self.connect();
    }

    fn report(&mut self, name: &str, value: Value) {
        self.dirty.insert(format!("reported/{name}"), reported(&value));
        self.reported.insert(name.to_owned(), value);
    }

    fn deliver(&mut self, index: usize, twice: bool) {
        let out = self.service.out();
        if out.is_empty() {
            return;
        }
        let index = index % out.len();
        let orderly = S::is_orderly(&out[index].topic);
        let first = out.iter().position(|message| message.topic == out[index].topic).filter(|_| orderly);
        let index = first.unwrap_or(index);
        let one = if twice && !orderly { out[index].clone() } else { out.remove(index) };
        if one.topic == PUBACK {
            return self.on_settled(None, &Settled::Accepted);
        }
        let now = self.now();
        for heard in self.dialect.hear(&one, &self.site.clone(), now) {
            match heard {
                Heard::Wish(wish) => self.on_wish(&wish),
                Heard::Say(publish) => self.send(&[publish]),
                Heard::Resync(_) => self.dirty_all(),
                Heard::Settled { token, outcome } => self.on_settled(Some(token), &outcome),
                // the word for a service that is throttled, too
                Heard::Ask { .. } | Heard::Senseless(_) => {}
            }
        }
        self.keep();
    }

    fn dirty_all(&mut self) {
        for (name, value) in &self.reported {
            self.dirty.insert(format!("reported/{name}"), reported(value));
        }
        for (name, (value, version)) in &self.desired {
            self.dirty.insert(format!("desired/{name}"), desired(value, *version));
        }
    }

    fn on_wish(&mut self, wish: &CloudWish) {
        for (name, value) in &wish.patch {
            self.desired_version += 1;
            self.heard.push(value.clone());
            let content = if value.is_null() {
                self.desired.remove(name);
                Value::Null
            } else {
                self.desired.insert(name.clone(), (value.clone(), self.desired_version));
                desired(value, self.desired_version)
            };
            self.dirty.insert(format!("desired/{name}"), content);
        }
        let result = Ok(self.desired_version);
        let answered = Answer { device: wish.device.clone(), id: None, result, reply: wish.reply.clone() };
        let now = self.now();
        let said = self.dialect.answered(&answered, &self.site.clone(), now);
        self.send(&said);
    }

    fn on_settled(&mut self, token: Option<String>, outcome: &Settled) {
        let Some((_, said)) = self.underway.take_if(|(known, _)| *known == token) else { return };
        if *outcome != Settled::Accepted {
            self.again(said);
        }
    }

    fn say(&mut self) {
        if self.underway.is_some() || self.dirty.is_empty() || !self.dialect.ready(Some(&id("boiler-1"))) {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let parts: Vec<(&str, Value)> = dirty.iter().map(|(item, content)| (item.as_str(), content.clone())).collect();
        let now = self.now();
        let saying = self.dialect.say(&batch("boiler-1", &parts), &self.site.clone(), now);
        let has_any = !saying.publishes.is_empty();
        self.send(&saying.publishes);
        match saying.settle {
            Settle::Reply(token) => self.underway = Some((Some(token), dirty)),
            Settle::Puback if has_any => {
                self.underway = Some((None, dirty));
                self.service.out().push(Message { topic: PUBACK.to_owned(), ..Message::default() });
            }
            Settle::Puback => {}
        }
    }

    /// Until nothing moves any more, and no pause after a refusal can be running.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..1_000 {
            self.say();
            let now = self.now();
            let said = self.dialect.tick(&self.site.clone(), now);
            self.send(&said);
            self.deliver(0, false);
            let rests = self.service.out().is_empty() && self.dirty.is_empty() && self.underway.is_none();
            quiet = if rests { quiet + 1 } else { 0 };
            if quiet > LONGEST_PAUSE_S {
                return;
            }
        }
        panic!("it does not come to rest: {:?}, dirty {:?}", self.service.out(), self.dirty);
    }
}

fn reported(value: &Value) -> Value {
    json!({"value": value, "quality": "good", "at": AT, "version": 3})
}

fn desired(value: &Value, version: u64) -> Value {
    json!({"value": value, "version": version, "at": AT, "by": "cloud", "state": "applied", "reason": null})
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// An application sets a value that was never set before, or clears it.
    Wish(bool, bool),
    Report(bool, u8),
    Say,
    /// A message arrives, perhaps out of turn, perhaps to come once more.
    Deliver(usize, bool),
    Cut,
    Restart,
}

/// Histories.
pub(super) fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (any::<bool>(), prop::bool::weighted(0.8)).prop_map(|(which, sets)| Step::Wish(which, sets)),
        3 => (any::<bool>(), any::<u8>()).prop_map(|(which, value)| Step::Report(which, value)),
        4 => Just(Step::Say),
        8 => (0..8_usize, prop::bool::weighted(0.15)).prop_map(|(index, twice)| Step::Deliver(index, twice)),
        1 => Just(Step::Cut),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// Plays a history to its rest. Gives the last wish for each name, `None` where it was cleared. The last of each was taken, and none
/// twice where the service tells enough for that.
pub(super) fn play<S: Service>(steps: &[Step]) -> (Gateway<S>, BTreeMap<&'static str, Option<Value>>) {
    let mut gateway = Gateway::<S>::new();
    let mut last: BTreeMap<&str, Option<Value>> = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Wish(which, sets) => {
                let name = if *which { "setpoint" } else { "mode" };
                let value = sets.then(|| json!(1000 + number));
                gateway.service.wish(name, value.as_ref());
                last.insert(name, value);
            }
            Step::Report(which, value) => gateway.report(if *which { "temperature" } else { "power" }, json!(value)),
            Step::Say => gateway.say(),
            Step::Deliver(index, twice) => gateway.deliver(*index, *twice),
            Step::Cut => gateway.cut(),
            Step::Restart => gateway.restart(),
        }
    }
    gateway.cut();
    gateway.settle();
    for (name, value) in last.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        assert_eq!(gateway.desired.get(*name).map(|(value, _)| value), Some(value), "{name}");
    }
    let mut taken: Vec<u64> = gateway.heard.iter().filter_map(Value::as_u64).collect();
    let all = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert!(taken.len() == all || !S::TAKEN_ONCE, "a wish was taken twice: {:?}", gateway.heard);
    (gateway, last)
}
