//! Why a payload cannot be read, for the person who wrote it.
//!
//! In: what the JSON reader says. Out: the place, what is wrong there, and what would be right. Must never show the names
//! of our own types.

use serde_json::error::Category;

/// What a reader of Rust types expects, and how people write it.
const WANTED: [(&str, &str); 12] = [
    ("u8", "a whole number, 0 or more"),
    ("u16", "a whole number, 0 or more"),
    ("u32", "a whole number, 0 or more"),
    ("u64", "a whole number, 0 or more"),
    ("i64", "a whole number"),
    ("f64", "a number"),
    ("a string", "a text in quotes"),
    ("a boolean", "true or false"),
    ("a map", "an object such as {\"setpoint\": 22}"),
    ("a sequence", "a list such as [1, 2]"),
    ("struct ", "an object such as {\"id\": \"r1\"}"),
    ("an RFC 3339", "a time such as \"2026-11-22T21:00:00.000Z\""),
];

/// Says in plain words why a payload cannot be read.
pub fn in_plain_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // An error that came up without a place has none to show.
    let place = match error.line() {
        0 => String::new(),
        line => format!("line {line}, column {}: ", error.column()),
    };
    let message = text.rsplit_once(" at line ").filter(|_| error.line() > 0).map_or(text.as_str(), |(said, _)| said);
    let said = match error.classify() {
        Category::Eof => "the text ends too early; close every quote, bracket and brace".to_owned(),
        Category::Syntax | Category::Io => format!("this is no JSON: {message}"),
        Category::Data => data(message),
    };
    format!("{place}{said}")
}

/// JSON that is not what is asked for.
fn data(message: &str) -> String {
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("\"{}\" is missing", name.trim_matches('`'));
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return known("there is no key", rest);
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return known("there is no word", rest);
    }
    if let Some(name) = message.strip_prefix("duplicate field ") {
        return format!("\"{}\" stands there twice; write it once", name.trim_matches('`'));
    }
    let invalid = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match invalid.and_then(|rest| rest.split_once(", expected ")) {
        Some((got, wanted)) => format!("{} stands where {} belongs", thing(got), kind(wanted)),
        // Our own words: of a name, a quality, a time.
        None => message.to_owned(),
    }
}

/// `` `x`, expected one of `a`, `b` `` in words.
fn known(what: &str, rest: &str) -> String {
    let (name, expected) = rest.split_once(", expected ").unwrap_or((rest, ""));
    let expected = expected.trim_start_matches("one of ").replace('`', "\"");
    let name = name.trim_matches('`');
    if expected.is_empty() || expected.starts_with("there are no") {
        return format!("{what} \"{name}\" here");
    }
    format!("{what} \"{name}\" here; there is {expected}")
}

fn thing(got: &str) -> String {
    match got.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer" | "boolean", value)) => value.trim_matches('`').to_owned(),
        Some(("floating", value)) => value.trim_start_matches("point ").trim_matches('`').to_owned(),
        _ => match got {
            "map" => "an object".to_owned(),
            "sequence" => "a list".to_owned(),
            "unit" => "null".to_owned(),
            other => other.to_owned(),
        },
    }
}

fn kind(wanted: &str) -> &str {
    WANTED.iter().find(|(ours, _)| wanted.starts_with(ours)).map_or(wanted, |(_, plain)| plain)
}

#[cfg(test)]
mod tests {
    use super::super::{DesiredAck, DesiredSet, ReportedSet};
    use super::*;

    fn told<T: serde::de::DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        in_plain_words(&serde_json::from_str::<T>(text).unwrap_err())
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_told_with_its_place_and_what_is_right() {
        for (text, expected) in [
            ("{}", "line 1, column 2: \"patch\" is missing"),
            ("{\"patch\":", "line 1, column 9: the text ends too early; close every quote, bracket and brace"),
            ("{\"patch\":{},\n}", "line 2, column 1: this is no JSON: trailing comma"),
            (
                "{\"patch\":{},\"ttl_s\":\"1h\"}",
                "line 1, column 24: the text \"1h\" stands where a whole number, 0 or more belongs",
            ),
            ("{\"patch\":{},\"ttl_s\":-1}", "line 1, column 22: -1 stands where a whole number, 0 or more belongs"),
            ("{\"patch\":{},\"ttl_s\":1.5}", "line 1, column 23: 1.5 stands where a whole number, 0 or more belongs"),
            ("{\"patch\":[1]}", "line 1, column 9: a list stands where an object such as {\"setpoint\": 22} belongs"),
            ("{\"patch\":{},\"id\":7}", "line 1, column 18: 7 stands where a text in quotes belongs"),
            (
                "{\"patch\":{},\"by\":null,\"who\":1}",
                "line 1, column 27: there is no key \"who\" here; there is \"id\", \"patch\", \"if_version\", \"ttl_s\", \"by\"",
            ),
            ("{\"patch\":{},\"patch\":{}}", "line 1, column 19: \"patch\" stands there twice; write it once"),
            (
                "{\"patch\":{\"mode\":1,\"setpoint\":22,\"mode\":2}}",
                "line 1, column 42: \"mode\" stands in the patch twice; write one value for it",
            ),
        ] {
            assert_eq!(told::<DesiredSet>(text), expected, "{text}");
        }
        assert_eq!(
            told::<DesiredAck>("{\"version\":1,\"results\":{\"a\":{\"state\":\"done\"}}}"),
            "line 1, column 43: there is no word \"done\" here; there is \"pending\", \"applied\", \"rejected\", \"failed\", \"superseded\", \"expired\""
        );
        let name = told::<ReportedSet>("{\"readings\":{\"7up\":1}}");
        assert!(name.starts_with("line 1, column 18: \"7up\" is no property name; "), "{name}");
    }
}
