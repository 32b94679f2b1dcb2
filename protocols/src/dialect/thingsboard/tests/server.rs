//! A small ThingsBoard as its documentation and source describe it, against the dialect in any history.

use super::*;
use crate::dialect::rehearsal::{self, any_steps, play};

/// One device with its attributes; updates only for the session that has connected it.
#[derive(Default)]
struct Server {
    shared: Map<String, Value>,
    client: Map<String, Value>,
    is_connected: bool,
    out: Vec<Message>,
}

impl rehearsal::Service for Server {
    /// An answer with the newest value may overtake the updates that led to it; they are wishes once more when they come.
    const TAKEN_ONCE: bool = false;

    fn dialect(memory: Vec<(String, String)>) -> Box<dyn Dialect> {
        Box::new(ThingsBoard::new(None, memory))
    }

    fn on(&mut self, publish: &Publish) {
        let said = json_of(publish);
        match publish.topic.as_str() {
            "v1/gateway/connect" => self.is_connected = true,
            "v1/gateway/attributes" => self.client.extend(said["boiler-1"].as_object().cloned().unwrap()),
            "v1/gateway/attributes/request" => {
                let mut answer = json!({"id": said["id"], "device": "boiler-1"});
                if let Some(value) = self.shared.get(said["key"].as_str().unwrap()) {
                    answer["value"] = value.clone();
                }
                self.out.push(message("v1/gateway/attributes/response", &answer));
            }
            topic => panic!("{topic}"),
        }
    }

    fn out(&mut self) -> &mut Vec<Message> {
        &mut self.out
    }

    fn wish(&mut self, name: &str, value: Option<&Value>) {
        let data = match value {
            Some(value) => {
                self.shared.insert(name.to_owned(), value.clone());
                json!({name: value})
            }
            None => {
                self.shared.remove(name);
                json!({"deleted": [name]})
            }
        };
        if self.is_connected {
            self.out.push(message("v1/gateway/attributes", &json!({"device": "boiler-1", "data": data})));
        }
    }

    fn cut(&mut self) {
        self.is_connected = false;
    }

    /// Updates come in their order, and so do answers; one may overtake the other. Without versions nobody could tell more.
    fn is_orderly(_topic: &str) -> bool {
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Both sides in random order, over a link that loses: at rest the client attributes hold what was reported, the last wish
    /// was taken and answered, and what was deleted is cleared.
    #[test]
    fn both_sides_agree_at_rest_and_the_last_wish_was_taken(steps in any_steps()) {
        let (gateway, last) = play::<Server>(&steps);
        let there = &gateway.service.client;
        for (name, value) in &gateway.reported {
            prop_assert_eq!(there.get(name), Some(value), "{}", name);
        }
        for (name, value) in last.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            let said = there.get(&format!("{name}:desired")).cloned().unwrap_or_default();
            prop_assert_eq!((&said["value"], &said["state"]), (value, &json!("applied")), "{}", name);
        }
        for (name, value) in &last {
            prop_assert_eq!(gateway.desired.contains_key(*name), value.is_some(), "{}", name);
        }
    }
}
