//! A small IoT Hub as Microsoft documents it, against the dialect in any history.

use super::*;
use crate::dialect::rehearsal::{self, any_steps, play};

/// The twin of one hub device: sections with a version each; notifications only for who is connected. Every seventh request
/// is throttled.
#[derive(Default)]
struct Hub {
    desired: Map<String, Value>,
    desired_version: u64,
    reported: Map<String, Value>,
    reported_version: u64,
    requests: u64,
    out: Vec<Message>,
}

impl Hub {
    fn section(values: &Map<String, Value>, version: u64) -> Value {
        let mut section = values.clone();
        section.insert("$version".to_owned(), json!(version + 1));
        Value::Object(section)
    }
}

impl rehearsal::Service for Hub {
    fn dialect(memory: Vec<(String, String)>) -> Box<dyn Dialect> {
        Box::new(azure(memory))
    }

    fn on(&mut self, publish: &Publish) {
        let Some((path, rid)) = publish.topic.split_once("/?$rid=") else { return };
        self.requests += 1;
        let (status, more, body) = if self.requests.is_multiple_of(7) {
            (429, String::new(), json!({"message": "throttled"}))
        } else if path == "$iothub/twin/GET" {
            let body = json!({"desired": Self::section(&self.desired, self.desired_version),
                "reported": Self::section(&self.reported, self.reported_version)});
            (200, String::new(), body)
        } else {
            assert_eq!(path, "$iothub/twin/PATCH/properties/reported");
            merge(&mut self.reported, &object(json_of(publish)));
            self.reported_version += 1;
            (204, format!("&$version={}", self.reported_version + 1), Value::Null)
        };
        self.out.push(message(&format!("$iothub/twin/res/{status}/?$rid={rid}{more}"), &body));
    }

    fn out(&mut self) -> &mut Vec<Message> {
        &mut self.out
    }

    fn wish(&mut self, name: &str, value: Option<&Value>) {
        let mut patch = object(json!({"boiler-1": {name: value}}));
        merge(&mut self.desired, &patch);
        self.desired_version += 1;
        let version = self.desired_version + 1;
        patch.insert("$version".to_owned(), json!(version));
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        self.out.push(message(&topic, &Value::Object(patch)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Both sides in random order, over a link that loses, repeats and reorders: at rest the twin holds what was reported, the
    /// last wish was taken and answered, none was taken twice, and what was cleared is cleared.
    #[test]
    fn both_sides_agree_at_rest_and_no_wish_is_taken_twice(steps in any_steps()) {
        let (gateway, last) = play::<Hub>(&steps);
        let none = Map::new();
        let there = gateway.service.reported.get("boiler-1").and_then(Value::as_object).unwrap_or(&none);
        for (name, value) in &gateway.reported {
            prop_assert_eq!(there.get(name), Some(value), "{}", name);
        }
        for (name, value) in &last {
            let code = there.get(*name).map(|said| said["ac"].clone()).unwrap_or_default();
            prop_assert_eq!(code, value.as_ref().map(|_| json!(200)).unwrap_or_default(), "{} {:?}", name, there);
            prop_assert_eq!(gateway.desired.contains_key(*name), value.is_some(), "{}", name);
        }
    }
}
