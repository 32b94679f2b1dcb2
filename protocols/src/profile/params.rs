//! Parameters: what a profile lets differ from device to device, and what a device says.
//!
//! In: the `params` of a profile and those of a device. Out: a value for each. Must never repeat a secret.

use std::collections::BTreeMap;

use regex_lite::RegexBuilder;
use serde_json::Value;

use super::raw::{ParamKind, RawParam};
use crate::value::same;
use crate::yaml::{Complaints, Node, Place, nearest, quoted_list};

/// The most a compiled pattern may take, in bytes; a larger one is an error of the profile.
const PATTERN_BYTES: usize = 64 << 10;

/// The parameters a tree declares. What the schema has complained about is left out.
pub(super) fn declared(tree: &Node) -> BTreeMap<String, RawParam> {
    let entries = tree.get("params").map(Node::entries).unwrap_or_default();
    let mut declared: BTreeMap<String, RawParam> = entries
        .iter()
        .filter_map(|entry| Some((entry.key.clone(), serde_json::from_value(entry.value.to_json()).ok()?)))
        .collect();
    // Every Modbus device has an address on its wire, so a profile need not say so.
    if tree.find(&["modbus", "unit"]).is_none() && tree.get("ble").is_none() && !declared.contains_key("unit") {
        declared.insert("unit".to_owned(), unit());
    }
    declared
}

/// The names of the secrets.
pub(super) fn secrets(declared: &BTreeMap<String, RawParam>) -> Vec<&str> {
    let secrets = declared.iter().filter(|(_, param)| param.kind == ParamKind::Secret);
    secrets.map(|(name, _)| name.as_str()).collect()
}

/// Puts nothing in the place of every secret.
pub(super) fn blank_secrets(declared: &BTreeMap<String, RawParam>, values: &mut BTreeMap<String, Value>) {
    for name in secrets(declared) {
        values.insert(name.to_owned(), "".into());
    }
}

fn unit() -> RawParam {
    RawParam {
        kind: ParamKind::Int,
        default: Some(1.into()),
        min: Some(0.0),
        max: Some(255.0),
        choices: None,
        pattern: None,
        help: Some("the device's address on its wire".to_owned()),
    }
}

/// Checks the declarations themselves.
pub(super) fn check(tree: &Node, complaints: &mut Complaints) {
    for (name, param) in declared(tree) {
        let place = |key: &str| tree.place_of(&["params", &name, key]);
        if let Some(Err(error)) = param.pattern.as_deref().map(compile) {
            complaints.add(
                place("pattern"),
                format!("the pattern cannot be read: {error}"),
                "write a regular expression",
            );
        }
        if let (Some(min), Some(max)) = (param.min, param.max)
            && min > max
        {
            complaints.add(place("min"), format!("min {min} is above max {max}"), "swap them");
        }
        if param.kind == ParamKind::Enum && param.choices.is_none() {
            complaints.add(place("choices"), format!("\"{name}\" has no choices"), "list them: choices: [a, b]");
        }
        for choice in param.choices.iter().flatten() {
            if let Err(wrong) = fits(&RawParam { choices: None, ..param.clone() }, choice) {
                complaints.add(place("choices"), format!("a choice {}", wrong.message), wrong.hint);
            }
        }
        if let Some(Err(wrong)) = param.default.as_ref().map(|default| fits(&param, default)) {
            complaints.add(place("default"), format!("the default {}", wrong.message), wrong.hint);
        }
    }
}

/// The values of a device: what it says, else the defaults. `device` is where to complain about what is missing.
pub(super) fn of_device(
    declared: &BTreeMap<String, RawParam>,
    said: Option<&Node>,
    device: &Place,
    complaints: &mut Complaints,
) -> BTreeMap<String, Value> {
    for entry in said.map(Node::entries).unwrap_or_default() {
        let Some(param) = declared.get(&entry.key) else {
            let known = || declared.keys().map(String::as_str);
            let hint = match nearest(&entry.key, known()) {
                Some(meant) => format!("did you mean \"{meant}\"? parameters: {}", quoted_list(known())),
                None => format!("parameters: {}", quoted_list(known())),
            };
            complaints.add(&entry.key_place, format!("the profile has no parameter \"{}\"", entry.key), hint);
            continue;
        };
        if let Err(wrong) = fits(param, &entry.value.to_json()) {
            complaints.add(&entry.value.place, format!("\"{}\" {}", entry.key, wrong.message), wrong.hint);
        }
    }
    let value = |name: &str, param: &RawParam| {
        said.and_then(|said| said.get(name)).map(Node::to_json).or_else(|| param.default.clone())
    };
    let mut values = BTreeMap::new();
    for (name, param) in declared {
        let value = value(name, param)
            .or_else(|| matches!(param.kind, ParamKind::String | ParamKind::Secret).then(|| "".into()));
        let value = value.unwrap_or_else(|| {
            let help = param.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            let message = format!("the parameter \"{name}\" has no default and no value");
            complaints.add(device, message, format!("write params: {{{name}: {}}}{help}", expected(param)));
            sample(param)
        });
        values.insert(name.clone(), value);
    }
    values
}

/// Values to check a profile with when there is no device: the defaults, and something that fits for the rest.
pub(super) fn samples(declared: &BTreeMap<String, RawParam>) -> BTreeMap<String, Value> {
    declared
        .iter()
        .map(|(name, param)| (name.clone(), param.default.clone().unwrap_or_else(|| sample(param))))
        .collect()
}

fn sample(param: &RawParam) -> Value {
    if let Some(first) = param.choices.as_ref().and_then(|choices| choices.first()) {
        return first.clone();
    }
    let number = param.min.or(param.max).unwrap_or(1.0);
    match param.kind {
        ParamKind::Int => Value::from(number as i64),
        ParamKind::Number => crate::value::from_f64(number),
        ParamKind::Bool => false.into(),
        ParamKind::String | ParamKind::Secret | ParamKind::Enum => "".into(),
    }
}

struct Wrong {
    message: String,
    hint: String,
}

fn fits(param: &RawParam, value: &Value) -> Result<(), Wrong> {
    let wrong = |what: &str| {
        let shown = if param.kind == ParamKind::Secret { String::new() } else { format!(" {value}") };
        Err(Wrong { message: format!("cannot be{shown}: {what}"), hint: format!("write {}", expected(param)) })
    };
    let kind_fits = match param.kind {
        ParamKind::Int => value.is_i64() || value.is_u64(),
        ParamKind::Number => value.is_number(),
        ParamKind::String | ParamKind::Secret => value.is_string(),
        ParamKind::Bool => value.is_boolean(),
        ParamKind::Enum => !value.is_null(),
    };
    if !kind_fits {
        return wrong("wrong type");
    }
    if param.choices.as_ref().is_some_and(|choices| !choices.iter().any(|choice| same(choice, value))) {
        return wrong("not one of the choices");
    }
    if let Some(number) = value.as_f64() {
        if param.min.is_some_and(|min| number < min) {
            return wrong("too small");
        }
        if param.max.is_some_and(|max| number > max) {
            return wrong("too large");
        }
    }
    if let (Some(text), Some(Ok(pattern))) = (value.as_str(), param.pattern.as_deref().map(compile))
        && !text.is_empty()
        && !pattern.is_match(text)
    {
        return wrong("wrong form");
    }
    Ok(())
}

fn compile(pattern: &str) -> Result<regex_lite::Regex, regex_lite::Error> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build()
}

/// What a parameter takes, in words that read on after "write".
fn expected(param: &RawParam) -> String {
    if let Some(choices) = &param.choices {
        let words: Vec<String> =
            choices.iter().map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned)).collect();
        return format!("one of: {}", words.join(", "));
    }
    let kind = match param.kind {
        ParamKind::Int => "a whole number",
        ParamKind::Number => "a number",
        ParamKind::String | ParamKind::Secret | ParamKind::Enum => "a text",
        ParamKind::Bool => "true or false",
    };
    let bounds = match (param.min, param.max) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    };
    let form = param.pattern.as_ref().map(|pattern| format!(" that matches {pattern}")).unwrap_or_default();
    format!("{kind}{bounds}{form}")
}
