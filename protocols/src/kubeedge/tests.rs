//! The recordings of edgecore, replayed against a book; and what is better here.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::message::TwinMessage;
use super::topic::{Action, Asked};
use super::*;
use crate::profile::Kind;

/// Recorded with kubeedge at 16cd8548; see the file's fields `in` and `out`.
const RECORDED: &str = include_str!("../../../tests/data/kubeedge.jsonl");

const NOW: i64 = 1_700_000_000_000;

/// Nothing is backed: all keys live in the book.
struct Free;

impl Backing for Free {
    fn kind(&self, _: &str) -> Option<Kind> {
        None
    }
}

struct Boiler;

impl Backing for Boiler {
    fn kind(&self, key: &str) -> Option<Kind> {
        match key {
            "temperature" => Some(Kind::Number),
            "switch" => Some(Kind::Bool),
            "count" => Some(Kind::Int),
            _ => None,
        }
    }
}

/// Steps where edgecore is wrong: what is done here is in the tests below and in `docs/kubeedge.md`.
const BETTER: [(u64, &str); 9] = [
    (19, "the error goes to the device's topic"),
    (20, "the error goes to the device's topic"),
    (21, "the error goes to the device's topic"),
    (22, "a value may have a space"),
    (27, "no document for what never was"),
    (30, "the error goes to the device's topic"),
    (31, "a value without value is refused instead of stopping the twin worker"),
    (36, "no document for what was deleted before"),
    (43, "an id of two levels is found"),
];

fn without_times(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, _)| !matches!(key.as_str(), "timestamp" | "event_id"));
            Value::Object(kept.map(|(key, value)| (key.clone(), without_times(value))).collect())
        }
        other => other.clone(),
    }
}

/// What a book answers, as (end of the topic, payload).
fn answers(book: &mut Book, action: Action, payload: &str) -> Vec<(&'static str, Value)> {
    let parsed: Result<TwinMessage, _> = serde_json::from_str(payload);
    if action == Action::TwinGet {
        return match parsed {
            Ok(_) => vec![("twin/get/result", json!({"twin": book.all()}))],
            Err(_) => vec![("twin/get/result", json!({"code": 400}))],
        };
    }
    let writer = if action == Action::CloudUpdated { Writer::Cloud } else { Writer::Edge };
    let Ok(TwinMessage { twin: Some(twins), .. }) = parsed else {
        return vec![("twin/update/result", json!({"code": 400}))];
    };
    let step = match book.update(&twins, writer, &Free, NOW) {
        Ok(step) => step,
        Err(Refusal { code, reason }) => return vec![("twin/update/result", json!({"code": code, "reason": reason}))],
    };
    book.commit(&step);
    let mut out = Vec::new();
    if writer == Writer::Edge {
        out.push(("twin/update/result", json!({"twin": step.result})));
    }
    if !step.document.is_empty() {
        let document: BTreeMap<_, _> = step.document.iter().collect();
        out.push(("twin/update/document", json!({"twin": document})));
    }
    if let Some(delta) = book.delta(String::new(), NOW) {
        out.push(("twin/update/delta", json!({"twin": delta.twin, "delta": delta.delta})));
    }
    out
}

#[test]
fn every_recorded_twin_exchange_is_answered_as_edgecore_does() {
    let mut books: BTreeMap<String, Book> = BTreeMap::new();
    let mut compared = 0;
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let step: Value = serde_json::from_str(line).unwrap();
        let n = step["n"].as_u64().unwrap();
        let input = &step["in"];
        // What the cloud sent over its own channel comes as the legacy topic here.
        let topic = match input["topic"].as_str() {
            Some(topic) => topic.to_owned(),
            None => format!("$hw/events/{}", input["resource"].as_str().unwrap()),
        };
        let Some(Asked::Device(id, action)) = Asked::parse(&topic) else { continue };
        let known = matches!(id.to_string().as_str(), "default/d1" | "d1");
        if action == Action::StateUpdate || !known {
            continue;
        }
        let better = BETTER.iter().any(|(step, _)| *step == n);
        let panics = step["note"].as_str().is_some_and(|note| note.contains("PANIC"));
        let recorded: Vec<(String, Value)> = step["out"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|out| out["via"] == "mqtt")
            .map(|out| (out["topic"].as_str().unwrap().to_owned(), without_times(&out["payload"])))
            .collect();
        let book = books.entry(id.to_string()).or_default();
        let kept = book.clone();
        let ours: Vec<(String, Value)> = answers(book, action, input["payload"].as_str().unwrap())
            .into_iter()
            .map(|(end, payload)| (topic::device(&id, end), without_times(&payload)))
            .collect();
        if better || panics {
            // The session goes on as the recording does.
            *book = kept;
            assert_ne!(ours, recorded, "step {n} is listed as different, and is not");
            continue;
        }
        let (ours, recorded) = match recorded.first() {
            // Reasons that quote Go's own words are compared by their code.
            Some((_, error)) if error["reason"].as_str().is_some_and(|it| it.contains("json.SyntaxError")) => (
                vec![(ours[0].0.clone(), ours[0].1["code"].clone())],
                vec![(recorded[0].0.clone(), error["code"].clone())],
            ),
            _ => (ours, recorded),
        };
        assert_eq!(ours, recorded, "step {n}: {}", input["payload"]);
        compared += 1;
    }
    assert!(compared >= 25, "{compared} steps were compared");
}

fn update(book: &mut Book, backing: &dyn Backing, twin: Value) -> Result<Step, Refusal> {
    let message: TwinMessage = serde_json::from_value(json!({"twin": twin})).unwrap();
    let step = book.update(&message.twin.unwrap(), Writer::Edge, backing, NOW)?;
    book.commit(&step);
    Ok(step)
}

#[test]
fn an_equal_value_is_no_new_version() {
    let mut book = Book::default();
    for (value, edge) in [("26", 1), ("26", 1), ("27", 2), ("27", 2)] {
        update(&mut book, &Free, json!({"t": {"actual": {"value": value}}})).unwrap();
        assert_eq!(book.field("t").unwrap().actual_version.edge, edge, "{value}");
    }
}

#[test]
fn values_that_edgecore_refuses_are_values() {
    for value in ["a b", "21 °C", "{\"a\":1}", "50%", "YWJj+/=", "?"] {
        let mut book = Book::default();
        let step = update(&mut book, &Free, json!({"k": {"actual": {"value": value}}})).unwrap();
        let told = step.result["k"].as_ref().unwrap().actual.as_ref().unwrap();
        assert_eq!(told.value.as_deref(), Some(value));
    }
}

#[test]
fn a_value_without_value_is_refused_and_the_next_one_is_served() {
    let mut book = Book::default();
    let refused = update(&mut book, &Free, json!({"k": {"actual": {"metadata": {"timestamp": 1}}}})).unwrap_err();
    assert_eq!((refused.code, refused.reason.contains("actual of k")), (400, true), "{refused}");
    assert!(update(&mut book, &Free, json!({"k": {"actual": {"value": "1"}}})).is_ok());
}

#[test]
fn a_backed_key_is_wished_and_reported_at_the_twin_in_its_own_type() {
    let mut book = Book::default();
    let twin = json!({
        "temperature": {"actual": {"value": "25.3"}, "metadata": {"type": "string"}},
        "switch": {"expected": {"value": "true"}},
        "count": {"actual": {"value": "18446744073709551615"}},
        "note": {"actual": {"value": "free"}},
    });
    let refused = update(&mut book, &Boiler, twin.clone()).unwrap_err();
    assert_eq!(refused.reason, "the value is not int or integer");
    let mut twin = twin;
    twin["count"]["actual"]["value"] = json!("9007199254740993");
    let step = update(&mut book, &Boiler, twin).unwrap();
    assert_eq!(json!(step.patch), json!({"switch": true}));
    assert_eq!(json!(step.readings), json!({"temperature": 25.3, "count": 9_007_199_254_740_993_u64}));
    assert_eq!(step.result["temperature"].as_ref().unwrap().metadata.as_ref().unwrap().kind, "float");
    let cleared = update(&mut book, &Boiler, json!({"switch": null})).unwrap();
    assert_eq!(json!(cleared.patch), json!({"switch": null}));
    // Only what no profile has needs remembering.
    assert_eq!(book.own(&Boiler).all().keys().collect::<Vec<_>>(), ["note"]);
}

#[test]
fn what_the_twin_says_is_followed_and_ends_the_delta() {
    let mut book = Book::default();
    let change = book.on_expected("temperature", Kind::Number, Some(&json!(22)), NOW, 7).unwrap();
    assert!(change.last.is_none());
    assert_eq!(book.delta(String::new(), NOW).unwrap().delta, BTreeMap::from([("temperature".into(), "22".into())]));
    book.on_actual("temperature", Kind::Number, Some(&json!(21.5)), NOW, 1).unwrap();
    assert!(!book.reached("temperature"));
    // 22.0 is 22.
    book.on_actual("temperature", Kind::Number, Some(&json!(22.0)), NOW, 2).unwrap();
    assert!(book.reached("temperature"));
    assert_eq!(book.delta(String::new(), NOW), None);
    assert_eq!(book.on_actual("temperature", Kind::Number, Some(&json!(22.0)), NOW, 2), None, "no news");
    assert!(book.on_expected("temperature", Kind::Number, None, NOW, 8).is_some());
    assert!(book.on_actual("temperature", Kind::Number, None, NOW, 3).is_some());
    assert!(book.is_empty());
}

#[test]
fn one_wrong_key_leaves_all_as_they_were() {
    let mut book = Book::default();
    update(&mut book, &Free, json!({"a": {"actual": {"value": "1"}}})).unwrap();
    let before = book.clone();
    let twin = json!({"a": {"actual": {"value": "2"}}, "b~": {"actual": {"value": "3"}}});
    assert_eq!(update(&mut book, &Free, twin).unwrap_err().code, 400);
    assert_eq!(book, before);
}

#[test]
fn keys_are_bounded_and_the_bound_is_told() {
    let mut book = Book::default();
    let many = |from: usize, to: usize| -> Value {
        (from..to)
            .map(|n| (format!("k{n}"), json!({"actual": {"value": "1"}})))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    update(&mut book, &Free, many(0, KEYS)).unwrap();
    let refused = update(&mut book, &Free, many(KEYS, KEYS + 1)).unwrap_err();
    assert!(refused.reason.contains("at most 512 keys"), "{refused}");
    assert!(update(&mut book, &Free, many(0, KEYS)).is_ok(), "known keys still work");
}

#[test]
fn a_mapper_that_says_disconnected_is_believed() {
    for (word, state) in [
        ("online", Some(DeviceState::Online)),
        ("OK", Some(DeviceState::Online)),
        ("DISCONNECTED", Some(DeviceState::Offline)),
        ("unhealthy", Some(DeviceState::Stale)),
        ("Unknown", Some(DeviceState::Unknown)),
        ("ERROR", None),
    ] {
        assert_eq!(device_state(word), state, "{word}");
    }
}
