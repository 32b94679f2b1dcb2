//! Golden tests: what a profile says of bytes, against what a data sheet or a recording says.
//!
//! In: a profile and one of its `tests`. Out: every difference. Must never use another way from bytes to values, or from
//! values to requests, than a running gateway does.

use std::collections::BTreeMap;

use serde::Serialize;
use std::sync::Arc;

use serde_json::json;

use super::ble;
use super::memory::Memory;
use super::raw::RawTest;
use super::{Profile, Property, Protocol, Source, serial, write_request};
use crate::ble::Identity;
use crate::codec::{DataType, Raw};
use crate::expr::{Scope, Window};
use crate::modbus::pdu::Request;
use crate::value::{Quality, Value, same};
use crate::yaml::{Complaints, Node};

/// How far floats may differ where a test says nothing, as a part of the expected value.
const RELATIVE_TOLERANCE: f64 = 1e-9;

/// The same for what travels as a float of 32 bits or less: it has seven digits, and data sheets print no more.
const SINGLE_TOLERANCE: f64 = 1e-6;

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// The profile's id.
    pub profile: String,
    /// The test's name.
    pub test: String,
    /// The property; empty where the test as a whole could not run.
    pub property: String,
    /// What the test expects.
    pub expected: Value,
    /// What came out.
    pub got: Value,
}

impl Failure {
    /// A test that cannot run because the profile has errors with its parameters.
    pub(super) fn unusable(profile: &str, test: &str) -> Self {
        Self {
            profile: profile.to_owned(),
            test: test.to_owned(),
            property: String::new(),
            expected: "a profile without errors".into(),
            got: "errors with the parameters of this test".into(),
        }
    }
}

/// How the tests of a profile went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Tests without a difference.
    pub passed: usize,
    /// All differences of the tests that failed.
    pub failed: Vec<Failure>,
}

impl Outcome {
    pub(super) fn add(&mut self, failures: Vec<Failure>) {
        if failures.is_empty() {
            self.passed += 1;
        }
        self.failed.extend(failures);
    }
}

/// Runs one test.
pub(super) fn run(profile: &Arc<Profile>, identity: &Identity, test: &RawTest) -> Vec<Failure> {
    let failure = |property: &str, expected: Value, got: Value| Failure {
        profile: profile.id.clone(),
        test: test.name.clone(),
        property: property.to_owned(),
        expected,
        got,
    };
    if !test.write.is_empty() {
        return match profile.serial {
            Some(_) => serial::golden::run_write(profile, test, &failure),
            None => run_write(profile, test, &failure),
        };
    }
    let silent = |values| ble::Observed { values, told: Vec::new() };
    let read = match (&profile.serial, &profile.ble) {
        (Some(_), _) => serial::golden::values(profile, &test.input).map(silent),
        (_, Some(_)) => ble::observed(profile, identity, &test.input),
        _ => Memory::of_test(&test.input).map(|memory| silent(read(profile, &memory))),
    };
    let observed = match read {
        Ok(observed) => observed,
        Err(error) => return vec![failure("", "an input that can be read".into(), error.into())],
    };
    let unwanted = serial::golden::unwanted(test, &observed.values);
    let mut failures: Vec<Failure> =
        unwanted.into_iter().map(|(name, got)| failure(&name, "nothing at all".into(), got)).collect();
    // A packet of which nothing is expected has to be refused: what came out of it all the same is a failure.
    if test.expect.as_object().is_some_and(serde_json::Map::is_empty) && test.expect_quality.is_empty() {
        for name in &observed.told {
            let got = observed.values.get(name).map_or(Value::Null, |(value, _)| value.clone());
            failures.push(failure(name, "no value".into(), got));
        }
    }
    let values = derived(profile, observed.values);
    for (name, expected) in test.expect.as_object().into_iter().flatten() {
        match values.get(name) {
            Some((value, _)) if close(expected, value, test.tolerance, relative(profile, name)) => {}
            Some((value, _)) if serial::golden::same_time(profile, name, expected, value) => {}
            Some((value, quality)) if value.is_null() => failures.push(failure(name, expected.clone(), json!(quality))),
            Some((value, _)) => failures.push(failure(name, expected.clone(), value.clone())),
            None => failures.push(failure(name, expected.clone(), absent(profile, name))),
        }
    }
    for (name, expected) in &test.expect_quality {
        let got = values.get(name).map(|(_, quality)| quality.to_string());
        if !got.as_ref().is_some_and(|got| {
            got == expected || got.strip_prefix(expected.as_str()).is_some_and(|rest| rest.starts_with(':'))
        }) {
            let got = got.map_or_else(|| absent(profile, name), Value::String);
            failures.push(failure(name, expected.clone().into(), got));
        }
    }
    failures
}

fn absent(profile: &Profile, name: &str) -> Value {
    if profile.find(name).is_some() {
        match (&profile.serial, &profile.ble) {
            (Some(_), _) => "no value: no whole message in the input speaks of it".into(),
            (_, Some(_)) => "no value: what it comes from is not in the input, or not believed".into(),
            _ => "no value: its registers are not in the input".into(),
        }
    } else {
        "no such property".into()
    }
}

/// The values registers and bits give.
fn read(profile: &Profile, memory: &Memory) -> BTreeMap<String, (Value, Quality)> {
    let mut values = BTreeMap::new();
    for property in profile.properties.iter().filter(|property| property.access.reads()) {
        let result = property.source.modbus().and_then(|visitor| memory.reading(property, visitor));
        if let Some(result) = result {
            values.insert(property.name.to_string(), result);
        }
    }
    values
}

/// The read values with what follows from them: computed ones, then alarms without regard to time.
fn derived(profile: &Profile, mut values: BTreeMap<String, (Value, Quality)>) -> BTreeMap<String, (Value, Quality)> {
    for property in &profile.properties {
        let result = match &property.source {
            Source::Modbus(_) | Source::Serial(_) | Source::Ble(_) | Source::External(_) => continue,
            Source::Computed(expression) => {
                expression.eval(&Known(&values)).ok().map(|value| (rounded(property, value), Quality::Good))
            }
            Source::Alarm(alarm) => {
                alarm.when.holds(&Known(&values)).ok().map(|holds| (Value::Bool(holds), Quality::Good))
            }
        };
        if let Some(result) = result {
            values.insert(property.name.to_string(), result);
        }
    }
    values
}

fn rounded(property: &Property, value: Value) -> Value {
    match value.as_f64() {
        Some(number) if value.is_f64() => property.scaling.apply(Raw::Float(number)),
        _ => value,
    }
}

/// The values of one instant: a window holds the one reading there is.
struct Known<'a>(&'a BTreeMap<String, (Value, Quality)>);

impl Scope for Known<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        self.0.get(name).filter(|(_, quality)| !quality.is_bad()).map(|(value, _)| value.clone())
    }

    fn quality(&self, name: &str) -> Option<Quality> {
        self.0.get(name).map(|(_, quality)| *quality)
    }

    fn age_ms(&self, name: &str) -> Option<u64> {
        self.value(name).map(|_| 0)
    }

    fn window(&self, name: &str, _window_ms: u64) -> Option<Window> {
        let value = self.value(name)?.as_f64()?;
        Some(Window { avg: value, min: value, max: value, rate: None, readings: 1 })
    }

    fn previous(&self, _name: &str) -> Option<Value> {
        None
    }
}

/// How far a float of this property may differ where the test says nothing.
fn relative(profile: &Profile, name: &str) -> f64 {
    let property = profile.find(name).and_then(|index| profile.properties.get(index));
    match property.and_then(|property| property.source.modbus()).map(|visitor| visitor.layout.data) {
        Some(DataType::Float16 | DataType::Float32) => SINGLE_TOLERANCE,
        _ => RELATIVE_TOLERANCE,
    }
}

fn close(expected: &Value, got: &Value, tolerance: Option<f64>, relative: f64) -> bool {
    match (expected, got) {
        (Value::Number(a), Value::Number(b)) => {
            let whole = !a.is_f64() && !b.is_f64();
            let (Some(x), Some(y)) = (a.as_f64(), b.as_f64()) else { return false };
            match tolerance {
                // Sixty-four bits are compared as integers: a double would call neighbours equal.
                None if whole => a == b,
                None => (x - y).abs() <= x.abs() * relative,
                Some(_) if a == b => true,
                Some(tolerance) => (x - y).abs() <= tolerance,
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b, tolerance, relative))
        }
        _ => same(expected, got),
    }
}

fn run_write(profile: &Profile, test: &RawTest, failure: &dyn Fn(&str, Value, Value) -> Failure) -> Vec<Failure> {
    if profile.ble.is_some() {
        let names = test.write.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return match ble::written(profile, &test.write) {
            Ok(got) if ble::same_bytes(&test.expect, &got) => Vec::new(),
            Ok(got) => vec![failure(&names, test.expect.clone(), got)],
            Err((name, why)) => vec![failure(&name, test.expect.clone(), why.into())],
        };
    }
    let expected: Vec<Value> = match test.expect.get("modbus") {
        Some(Value::Array(list)) => list.clone(),
        Some(one) => vec![one.clone()],
        None => return vec![failure("", "expect: {modbus: {function, address, …}}".into(), test.expect.clone())],
    };
    let names = test.write.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let memory = Memory::of_test(&test.input).unwrap_or_default();
    let mut sent = Vec::new();
    for (name, value) in &test.write {
        let property = profile.find(name).and_then(|index| profile.properties.get(index));
        match property
            .ok_or_else(|| "no such property".to_owned())
            .and_then(|property| desired(property, value, &memory))
        {
            Ok(request) => sent.push(request_json(&request)),
            Err(why) => return vec![failure(name, expected.into(), why.into())],
        }
    }
    let mut left = sent.clone();
    for wanted in &expected {
        match left.iter().position(|sent| request_fits(wanted, sent)) {
            Some(index) => drop(left.remove(index)),
            None => return vec![failure(&names, expected.into(), sent.into())],
        }
    }
    if left.is_empty() { Vec::new() } else { vec![failure(&names, expected.into(), sent.into())] }
}

/// The request that writes a value, as the gateway would send it, or why it would not.
fn desired(property: &Property, value: &Value, memory: &Memory) -> Result<Request, String> {
    let value = property.accept(value)?;
    let wire = property.to_write(&value)?;
    let visitor = property.source.modbus().ok_or("is read-only")?;
    let current = memory.holding(visitor.write_address.unwrap_or(visitor.address));
    write_request(visitor, &wire, Some(current.unwrap_or(0))).map_err(|error| error.to_string())
}

fn request_json(request: &Request) -> Value {
    match request {
        Request::WriteCoil { address, on } => json!({"function": 5, "address": address, "value": on, "bits": [on]}),
        Request::WriteRegister { address, value } => {
            json!({"function": 6, "address": address, "value": value, "registers": [value]})
        }
        Request::WriteCoils { address, bits } => json!({"function": 15, "address": address, "bits": bits}),
        Request::WriteRegisters { address, values } => json!({"function": 16, "address": address, "registers": values}),
        Request::MaskWrite { address, and, or } => json!({"function": 22, "address": address, "and": and, "or": or}),
        other => json!({"other": format!("{other:?}")}),
    }
}

/// Whether all that is wanted is so; addresses and words may be written as hexadecimal texts.
fn request_fits(wanted: &Value, sent: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Bool(on) => Some(u64::from(*on)),
        other => super::text::address(other).or_else(|| other.as_str()?.parse().ok()),
    };
    let Some(wanted) = wanted.as_object() else { return false };
    wanted.iter().all(|(key, wanted)| match (wanted, sent.get(key)) {
        (Value::Array(wanted), Some(Value::Array(sent))) => {
            wanted.len() == sent.len()
                && wanted.iter().zip(sent).all(|(a, b)| number(a).is_some() && number(a) == number(b))
        }
        (wanted, Some(sent)) => number(wanted).is_some() && number(wanted) == number(sent),
        (_, None) => false,
    })
}

/// Checks the form of a profile's tests, as far as the schema cannot.
pub(super) fn check(tree: &Node, complaints: &mut Complaints) {
    if let Some(tests) = tree.entry("tests").filter(|_| Protocol::of(tree) == Protocol::External) {
        let message = "what a mapper of its own reads cannot be tested here";
        complaints.add(&tests.key_place, message, "leave tests out; test the mapper where it lives");
        return;
    }
    for test in tree.get("tests").map(Node::items).unwrap_or_default() {
        for wire in test.get("input").map(Node::entries).unwrap_or_default() {
            if !["modbus", "serial", "ble"].contains(&wire.key.as_str()) {
                complaints.add(
                    &wire.key_place,
                    format!("unknown input \"{}\"", wire.key),
                    "write one of: modbus, serial, ble",
                );
            }
            if wire.key == "serial"
                && let Err(error) = serial::stream(&json!({"serial": wire.value.to_json()}), false)
            {
                complaints.add(&wire.key_place, error, "write serial: \"text\", \"FF 01\", or a list of pieces");
            }
            if wire.key == "ble"
                && let Some(error) = ble::input_complaint(&json!({"ble": wire.value.to_json()}))
            {
                complaints.add(
                    &wire.key_place,
                    error,
                    "write {service_data: {\"fcd2\": \"40…\"}}, or {adv: \"0201060a16…\"}",
                );
            }
            if wire.key == "modbus"
                && let Err(error) = Memory::of_test(&json!({"modbus": wire.value.to_json()}))
            {
                complaints.add(
                    &wire.key_place,
                    error,
                    "write {input: {\"0x0000\": [1, 2]}, coil: {\"0x0000\": [1, 0]}}",
                );
            }
        }
        let qualities = test.get("expect_quality").map(Node::entries).unwrap_or_default();
        for (name, quality) in qualities.iter().map(|entry| (&entry.key, &entry.value)) {
            let word = quality.text().unwrap_or_default();
            let head = word.split(':').next().unwrap_or_default();
            if !["good", "uncertain", "bad"].contains(&head) {
                complaints.add(
                    &quality.place,
                    format!("\"{name}\" never has the quality \"{word}\""),
                    "write good, uncertain or bad, or more exactly bad:nan",
                );
            }
        }
    }
}
