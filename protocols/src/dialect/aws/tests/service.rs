//! A small shadow service as AWS documents it, against the dialect in any history.

use super::super::shadow::section;
use super::*;
use crate::dialect::rehearsal::{self, any_steps, play};

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

    fn take(&mut self, publish: &Publish) {
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

impl rehearsal::Service for Service {
    fn dialect(memory: Vec<(String, String)>) -> Box<dyn Dialect> {
        Box::new(aws(memory))
    }

    fn on(&mut self, publish: &Publish) {
        self.take(publish);
    }

    fn out(&mut self) -> &mut Vec<Message> {
        &mut self.out
    }

    fn wish(&mut self, name: &str, value: Option<&Value>) {
        self.update(&json!({"desired": {name: value}}), &json!("app"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Both sides in random order, over a link that loses, repeats and reorders: at rest the shadow holds what was reported,
    /// the last wish was taken, no wish was taken twice, and `desired` is empty.
    #[test]
    fn both_sides_agree_at_rest_and_no_wish_is_taken_twice(steps in any_steps()) {
        let (gateway, _) = play::<Service>(&steps);
        for (name, value) in &gateway.reported {
            prop_assert_eq!(gateway.service.reported.get(name), Some(value), "{}", name);
        }
        prop_assert_eq!(gateway.service.desired.len(), 0, "{:?}", gateway.service.desired);
    }
}
