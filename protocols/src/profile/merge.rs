//! Trees put together: `extends`, overrides, parameters.
//!
//! In: located trees. Out: one tree in which every leaf still knows the file that said it. Must never leave a `null`
//! or a `${…}` behind where something was to stand.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::yaml::{Complaints, Data, Entry, Node, nearest, quoted_list};

/// `patch` laid over `base`: maps are merged, `null` takes away, all else replaces.
pub(super) fn merge(base: Option<&Node>, patch: &Node) -> Option<Node> {
    let entries = match &patch.data {
        Data::Null => return None,
        Data::Map(entries) => entries,
        _ => return Some(patch.clone()),
    };
    let below = base.filter(|base| matches!(base.data, Data::Map(_)));
    let mut merged: Vec<Entry> = below.map(|base| base.entries().to_vec()).unwrap_or_default();
    for entry in entries {
        let found = merged.iter().position(|old| old.key == entry.key);
        let old = found.and_then(|index| merged.get(index)).map(|old| &old.value);
        match (merge(old, &entry.value), found) {
            (Some(value), Some(index)) => {
                if let Some(old) = merged.get_mut(index) {
                    old.value = value;
                }
            }
            (Some(value), None) => {
                merged.push(Entry { key: entry.key.clone(), key_place: entry.key_place.clone(), value });
            }
            (None, Some(index)) => drop(merged.remove(index)),
            (None, None) => {}
        }
    }
    let place = below.unwrap_or(patch).place.clone();
    Some(Node { place, data: Data::Map(merged) })
}

/// A map without some of its keys.
pub(super) fn without(node: &Node, keys: &[&str]) -> Node {
    let data = match &node.data {
        Data::Map(entries) => {
            Data::Map(entries.iter().filter(|entry| !keys.contains(&entry.key.as_str())).cloned().collect())
        }
        other => other.clone(),
    };
    Node { place: node.place.clone(), data }
}

/// A tree without what stands at the end of a path of keys.
pub(super) fn without_path(node: &Node, path: &[&str]) -> Node {
    let Some((first, rest)) = path.split_first() else { return node.clone() };
    if rest.is_empty() {
        return without(node, &[first]);
    }
    let data = match &node.data {
        Data::Map(entries) => Data::Map(
            entries
                .iter()
                .map(|entry| match entry.key == *first {
                    true => Entry { value: without_path(&entry.value, rest), ..entry.clone() },
                    false => entry.clone(),
                })
                .collect(),
        ),
        other => other.clone(),
    };
    Node { place: node.place.clone(), data }
}

/// Puts the parameters in: a text that is nothing but `${name}` becomes the value with its type, inside a longer text
/// the value is written out.
pub(super) fn fill(node: &Node, values: &BTreeMap<String, Value>, complaints: &mut Complaints) -> Node {
    let data = match &node.data {
        Data::Text(text) if text.contains("${") => filled(node, text, values, complaints),
        Data::List(items) => Data::List(items.iter().map(|item| fill(item, values, complaints)).collect()),
        Data::Map(entries) => Data::Map(
            entries
                .iter()
                .map(|entry| Entry {
                    key: entry.key.clone(),
                    key_place: entry.key_place.clone(),
                    value: fill(&entry.value, values, complaints),
                })
                .collect(),
        ),
        other => other.clone(),
    };
    Node { place: node.place.clone(), data }
}

fn filled(node: &Node, text: &str, values: &BTreeMap<String, Value>, complaints: &mut Complaints) -> Data {
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        written.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            complaints.add(&node.place, "a \"${\" without its \"}\"", "write ${name}");
            return node.data.clone();
        };
        let Some(value) = values.get(name) else {
            let known = || values.keys().map(String::as_str);
            let hint = match (nearest(name, known()), values.is_empty()) {
                (Some(meant), _) => format!("did you mean \"{meant}\"? parameters: {}", quoted_list(known())),
                (None, false) => format!("parameters: {}", quoted_list(known())),
                (None, true) => "the profile has no parameters; name it under params".to_owned(),
            };
            complaints.add(&node.place, format!("there is no parameter \"{name}\""), hint);
            return node.data.clone();
        };
        if before.is_empty() && after.is_empty() && written.is_empty() {
            return data(value);
        }
        match value {
            Value::String(text) => written.push_str(text),
            other => written.push_str(&other.to_string()),
        }
        rest = after;
    }
    written.push_str(rest);
    Data::Text(written)
}

fn data(value: &Value) -> Data {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => Data::Null,
        Value::Bool(value) => Data::Bool(*value),
        Value::Number(number) => Data::Number { number: number.clone(), hex: false },
        Value::String(text) => Data::Text(text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::read;

    fn tree(text: &str) -> Node {
        read("f.yaml", text, &mut Complaints::new()).unwrap()
    }

    #[test]
    fn maps_merge_null_takes_away_and_all_else_replaces() {
        for (base, patch, expected) in [
            ("{a: 1, b: {c: 2, d: 3}}", "{b: {c: 4}}", r#"{"a":1,"b":{"c":4,"d":3}}"#),
            ("{a: 1, b: 2}", "{a: null}", r#"{"b":2}"#),
            ("{a: [1, 2]}", "{a: [3]}", r#"{"a":[3]}"#),
            ("{a: {b: 1}}", "{a: 5}", r#"{"a":5}"#),
            ("{a: 5}", "{a: {b: 1, c: null}}", r#"{"a":{"b":1}}"#),
            ("{a: 1}", "{z: {y: null}}", r#"{"a":1,"z":{}}"#),
        ] {
            let merged = merge(Some(&tree(base)), &tree(patch)).unwrap();
            assert_eq!(merged.to_json().to_string(), expected, "{base} + {patch}");
        }
    }

    #[test]
    fn a_parameter_keeps_its_type_alone_and_is_written_out_inside_a_text() {
        let values = BTreeMap::from([("unit".to_owned(), 3.into()), ("name".to_owned(), "a".into())]);
        let mut complaints = Complaints::new();
        let tree = tree("{a: \"${unit}\", b: \"x > ${unit} - 1\", c: \"${name}${unit}\", d: \"${nmae}\", e: \"${\"}");
        let filled = fill(&tree, &values, &mut complaints);
        assert_eq!(filled.to_json().to_string(), r#"{"a":3,"b":"x > 3 - 1","c":"a3","d":"${nmae}","e":"${"}"#);
        let complaints = complaints.into_sorted();
        assert_eq!(complaints.len(), 2);
        assert_eq!(complaints[0].message, "there is no parameter \"nmae\"");
        assert_eq!(complaints[0].hint, "did you mean \"name\"? parameters: name, unit");
    }
}
