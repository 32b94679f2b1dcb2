//! What the tests of all dialects share: a site with the demo boiler and a meter, batches, messages, chance.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;

use super::{CloudWish, Dialect, Heard, Message, Publish, Site};
use crate::name::DeviceId;
use crate::outbox::{Batch, Class, Item, Part, Stamp, Streamed};
use crate::profile::{Library, Profile, Wish};
use crate::value::{Now, Timestamp, Value};
use crate::yaml::{Complaints, Place};

const BOILER: &str = include_str!("../../../configs/profiles/tidegate.demo_boiler.yaml");
const METER: &str = include_str!("../../../configs/profiles/eastron.sdm120.yaml");

/// The profile of a text, its parameters at their defaults.
pub(super) fn profile_of(text: &str) -> Arc<Profile> {
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    let id = library.add("profile.yaml", text, true, &mut complaints).unwrap();
    let place = Place { file: "test.yaml".into(), line: 1, column: 1 };
    let wish = Wish { profile: &id, place: &place, params: None, over: None, is_unsafe: false };
    library.resolve(&wish, &mut complaints).unwrap_or_else(|| panic!("{complaints:?}")).profile
}

/// A device's id.
pub(super) fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

/// The gateway `plant-7` with the devices `boiler-1` and `meter.1`.
pub(super) fn site() -> Site {
    static PROFILES: OnceLock<[Arc<Profile>; 2]> = OnceLock::new();
    let [boiler, meter] = PROFILES.get_or_init(|| [profile_of(BOILER), profile_of(METER)]).clone();
    let devices = HashMap::from([(id("boiler-1"), boiler), (id("meter.1"), meter)]);
    Site { gateway: id("plant-7"), epoch: "01J0000000000000000000000A".to_owned(), root: "twin".to_owned(), devices }
}

/// A moment of the run.
pub(super) fn now(second: u64) -> Now {
    let wall = Timestamp::from_ms(1_700_000_000_000 + i64::try_from(second * 1000).unwrap());
    Now { tick: second * 1000, wall }
}

/// An item as `status`, `reported/P`, `desired/P`, `conflict`.
pub(super) fn item(text: &str) -> Item {
    match text.split_once('/') {
        Some(("reported", name)) => Item::Reported(name.parse().unwrap()),
        Some(("desired", name)) => Item::Desired(name.parse().unwrap()),
        _ if text == "status" => Item::Status,
        _ => Item::Conflict,
    }
}

/// A batch of a device; `null` stands for an item that is gone.
pub(super) fn batch(device: &str, parts: &[(&str, Value)]) -> Batch {
    let part = |(index, (text, content)): (usize, &(&str, Value))| {
        let content = (!content.is_null()).then(|| Arc::from(content.to_string().into_bytes()));
        Part { item: item(text), content, stamp: Stamp(index as u64) }
    };
    Batch { id: 1, device: Some(id(device)), parts: parts.iter().enumerate().map(part).collect(), gateway: None }
}

/// A streamed reading.
pub(super) fn streamed(device: &str, property: &str, seq: u64, payload: &Value) -> Streamed {
    let (device, property) = (id(device), property.parse().unwrap());
    Streamed { class: Class::Metric, seq, device, property, payload: Arc::from(payload.to_string().into_bytes()) }
}

/// A message.
pub(super) fn message(topic: &str, payload: &Value) -> Message {
    Message { topic: topic.to_owned(), payload: payload.to_string().into_bytes(), ..Message::default() }
}

/// A payload as JSON.
pub(super) fn json_of(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap()
}

/// Topic and payload of a publish.
pub(super) fn pair(publish: &Publish) -> (String, Value) {
    (publish.topic.clone(), json_of(publish))
}

/// The wishes among what was heard.
pub(super) fn wishes(heard: &[Heard]) -> Vec<CloudWish> {
    heard.iter().filter_map(|heard| if let Heard::Wish(wish) = heard { Some(wish.clone()) } else { None }).collect()
}

/// Device and patch of each wish, as `device: {property: value}`.
pub(super) fn wished(heard: &[Heard]) -> Vec<String> {
    let text = |wish: CloudWish| format!("{}: {}", wish.device, serde_json::to_string(&wish.patch).unwrap());
    let mut texts: Vec<String> = wishes(heard).into_iter().map(text).collect();
    texts.sort();
    texts
}

/// What was said at once.
pub(super) fn says(heard: &[Heard]) -> Vec<Publish> {
    heard
        .iter()
        .filter_map(|heard| if let Heard::Say(publish) = heard { Some(publish.clone()) } else { None })
        .collect()
}

/// Any JSON, not too large, with what clouds like to get wrong.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(crate::value::from_f64),
        "[a-z$.% ]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("state".to_owned()),
        Just("desired".to_owned()),
        Just("reported".to_owned()),
        Just("metadata".to_owned()),
        Just("version".to_owned()),
        Just("$version".to_owned()),
        Just("timestamp".to_owned()),
        Just("clientToken".to_owned()),
        Just("code".to_owned()),
        Just("device".to_owned()),
        Just("data".to_owned()),
        Just("id".to_owned()),
        Just("method".to_owned()),
        Just("params".to_owned()),
        Just("deleted".to_owned()),
        Just("boiler-1".to_owned()),
        Just("setpoint".to_owned()),
        "[a-z]{1,4}",
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A topic of the list or a random one, and any payload.
pub(super) fn any_message(topics: &'static [&'static str]) -> impl Strategy<Value = Message> {
    let topic = prop_oneof![4 => prop::sample::select(topics).prop_map(str::to_owned), 1 => "[$a-z/?=&]{0,40}"];
    let payload = prop_oneof![
        3 => any_json().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    (topic, payload, any::<bool>()).prop_map(|(topic, payload, retain)| Message {
        topic,
        payload,
        retain,
        ..Message::default()
    })
}

/// A reported payload as the twin writes it.
pub(super) fn any_reported() -> impl Strategy<Value = Value> {
    let value = any_json();
    let quality = prop::sample::select(&["good", "bad:timeout", "uncertain:range", "bad:nan"][..]);
    (value, any_json(), quality).prop_map(|(value, last, quality)| {
        let at = "2026-11-22T12:00:00.000Z";
        if quality.starts_with("bad") {
            serde_json::json!({"value": null, "quality": quality, "at": at, "version": 3,
                "last_good": {"value": last, "at": at}})
        } else {
            serde_json::json!({"value": value, "quality": quality, "at": at, "version": 3})
        }
    })
}

/// Every leaf of a JSON document that is no object and no array, as text.
pub(super) fn leaves(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(leaves).collect(),
        Value::Object(members) => members.values().flat_map(leaves).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

/// No message makes a dialect panic, and no wish holds a value that was not in the message.
pub(super) fn survives(dialect: &mut dyn Dialect, messages: &[Message]) {
    let site = site();
    dialect.connected(&site, false, now(1));
    for (index, message) in messages.iter().enumerate() {
        let heard = dialect.hear(message, &site, now(2 + index as u64));
        let said = serde_json::from_slice::<Value>(&message.payload).map(|value| leaves(&value)).unwrap_or_default();
        for wish in wishes(&heard) {
            for value in wish.patch.values().filter(|value| !value.is_null()) {
                for leaf in leaves(value) {
                    assert!(said.contains(&leaf), "{leaf} was wished, but {message:?} does not say so");
                }
            }
        }
        dialect.tick(&site, now(3 + index as u64));
        dialect.memory();
    }
    dialect.disconnected();
    dialect.memory();
}

/// The value with every text that holds a JSON object taken for that object: so objects travel where they would be merged.
pub(super) fn unpacked(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let object = serde_json::from_str::<Value>(text).ok().filter(Value::is_object);
            object.unwrap_or_else(|| value.clone())
        }
        Value::Array(items) => items.iter().map(unpacked).collect(),
        _ => value.clone(),
    }
}
