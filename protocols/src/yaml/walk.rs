//! A tree against a schema: everything that does not fit, with its place and what would be right.
//!
//! In: a [`Node`] and a JSON Schema made by [`super::schema::of`]. Out: complaints. Must never stop at the first one,
//! and never repeat a value that the schema marks `writeOnly`.

use regex_lite::Regex;
use serde_json::Value;

use super::{Complaints, Data, Entry, Node, Place, nearest, quoted_list};

/// How much of a thing has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// All that is required.
    Whole,
    /// A part that will be merged onto another: nothing is required, and `null` deletes.
    Part,
}

/// Checks a tree against a schema.
pub fn walk(node: &Node, schema: &Value, strictness: Strictness, complaints: &mut Complaints) {
    let mut walker = Walker { root: schema, strictness, complaints };
    walker.value(node, schema, None, "");
}

/// Whether a part of a tree fits its part of a schema; `root` holds the definitions.
pub(super) fn is_fit(node: &Node, schema: &Value, root: &Value, strictness: Strictness) -> bool {
    let mut complaints = Complaints::new();
    Walker { root, strictness, complaints: &mut complaints }.value(node, schema, None, "");
    complaints.is_empty()
}

/// Whether a value is of a kind the schema takes, whatever it says.
pub(super) fn is_of_kind(node: &Node, schema: &Value, root: &Value) -> bool {
    Walker { root, strictness: Strictness::Whole, complaints: &mut Complaints::new() }.fits(node, schema)
}

/// The definition a schema refers to, or itself.
pub(super) fn follow<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    Walker { root, strictness: Strictness::Whole, complaints: &mut Complaints::new() }.follow(schema)
}

struct Walker<'a, 'c> {
    root: &'a Value,
    strictness: Strictness,
    complaints: &'c mut Complaints,
}

impl<'a> Walker<'a, '_> {
    /// `key` is where the key of the value stands, `name` what the value is called.
    fn value(&mut self, node: &Node, schema: &'a Value, key: Option<&Place>, name: &str) {
        if self.strictness == Strictness::Part && node.is_null() {
            return;
        }
        let schema = self.follow(schema);
        if schema.as_object().is_none_or(serde_json::Map::is_empty) {
            return;
        }
        if let Some(words) = words(schema) {
            return self.word(node, schema, &words, name);
        }
        if let Some(branches) = branches(schema) {
            return self.one_of(node, schema, branches, key, name);
        }
        if !self.fits(node, schema) {
            return self.wrong_type(node, schema, key, name);
        }
        match &node.data {
            Data::Map(entries) => self.map(node, entries, schema, key, name),
            Data::List(items) => self.list(node, items, schema, key, name),
            Data::Text(text) => self.text(node, text, schema, name),
            Data::Number { number, .. } => self.number(node, number, schema, name),
            Data::Null | Data::Bool(_) | Data::NotFinite(_) => {}
        }
    }

    fn follow(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        // A chain longer than this would be a loop of references.
        for _ in 0..16 {
            let Some(name) = schema.get("$ref").and_then(|name| name.as_str()?.strip_prefix("#/$defs/")) else { break };
            let Some(target) = self.root.get("$defs").and_then(|definitions| definitions.get(name)) else { break };
            schema = target;
        }
        schema
    }

    fn fits(&self, node: &Node, schema: &'a Value) -> bool {
        let schema = self.follow(schema);
        if let Some(words) = words(schema) {
            return words.iter().any(|word| word.is_string() == node.text().is_some());
        }
        if let Some(branches) = branches(schema) {
            return branches.iter().any(|branch| self.fits(node, branch));
        }
        let fits = |kind: &Value| {
            matches!(
                (kind.as_str(), &node.data),
                (Some("string"), Data::Text(_))
                    | (Some("number"), Data::Number { .. })
                    | (Some("boolean"), Data::Bool(_))
                    | (Some("array"), Data::List(_))
                    | (Some("object"), Data::Map(_))
                    | (Some("null"), Data::Null)
            ) || matches!((kind.as_str(), &node.data), (Some("integer"), Data::Number { number, .. }) if !number.is_f64())
        };
        match schema.get("type") {
            None => true,
            Some(Value::Array(kinds)) => kinds.iter().any(fits),
            Some(kind) => fits(kind),
        }
    }

    fn wrong_type(&mut self, node: &Node, schema: &'a Value, key: Option<&Place>, name: &str) {
        let wanted = self.describe(schema);
        let hint = match &node.data {
            Data::Text(_) if self.takes(schema, &["number", "integer", "boolean"]) && unquoted_fits(node) => {
                format!("write {wanted}, without quotes")
            }
            Data::Bool(_) | Data::Number { .. } if self.takes(schema, &["string"]) => {
                format!("write {wanted}; in quotes it would be a text: \"{}\"", node.to_json())
            }
            _ => format!("write {wanted}"),
        };
        let place = if node.is_null() { key.unwrap_or(&node.place) } else { &node.place };
        let message = format!(
            "{} {}",
            called(name),
            if node.is_null() { "is empty".to_owned() } else { format!("is {}", node.what()) }
        );
        self.complaints.add(place, message, hint);
    }

    fn takes(&self, schema: &'a Value, kinds: &[&str]) -> bool {
        let schema = self.follow(schema);
        match branches(schema) {
            Some(branches) => branches.iter().any(|branch| self.takes(branch, kinds)),
            None => schema.get("type").and_then(Value::as_str).is_some_and(|kind| kinds.contains(&kind)),
        }
    }

    fn word(&mut self, node: &Node, schema: &'a Value, words: &[&Value], name: &str) {
        let value = node.to_json();
        if words.iter().any(|word| **word == value) {
            return;
        }
        let list = self.describe(schema);
        let texts = words.iter().filter_map(|word| word.as_str());
        let meant = node.text().and_then(|text| nearest(text, texts));
        let hint = match meant {
            Some(meant) => format!("did you mean \"{meant}\"? write {list}"),
            None => format!("write {list}"),
        };
        let message = match &node.data {
            Data::Text(text) => format!("{} cannot be \"{}\"", called(name), shortened(text)),
            Data::Bool(_) | Data::Number { .. } => format!("{} cannot be {value}", called(name)),
            _ => format!("{} is {}", called(name), node.what()),
        };
        self.complaints.add(&node.place, message, hint);
    }

    /// Reports against the branch that was most likely meant: the only one of the right type, else the one with the
    /// fewest complaints.
    fn one_of(&mut self, node: &Node, schema: &'a Value, branches: &'a [Value], key: Option<&Place>, name: &str) {
        let mut best: Option<Complaints> = None;
        for branch in branches.iter().filter(|branch| self.fits(node, branch)) {
            let mut complaints = Complaints::new();
            let mut walker = Walker { root: self.root, strictness: self.strictness, complaints: &mut complaints };
            walker.value(node, branch, key, name);
            if best.as_ref().is_none_or(|best| complaints.len() < best.len()) {
                best = Some(complaints);
            }
        }
        match best {
            Some(complaints) => self.complaints.extend(complaints),
            None => self.wrong_type(node, schema, key, name),
        }
    }

    fn map(&mut self, node: &Node, entries: &[Entry], schema: &'a Value, key: Option<&Place>, name: &str) {
        let known = schema.get("properties").and_then(Value::as_object);
        let further = schema.get("additionalProperties");
        let names = schema.get("propertyNames").map(|names| self.follow(names));
        for entry in entries {
            let own = known.and_then(|known| known.get(&entry.key));
            match (own, further) {
                (Some(own), _) => self.value(&entry.value, own, Some(&entry.key_place), &entry.key),
                (None, Some(Value::Bool(false))) => {
                    let keys: Vec<&str> =
                        known.into_iter().flat_map(|known| known.keys().map(String::as_str)).collect();
                    let hint = match nearest(&entry.key, keys.iter().copied()) {
                        Some(meant) => format!("did you mean \"{meant}\"? known here: {}", quoted_list(keys)),
                        None => format!("known here: {}", quoted_list(keys)),
                    };
                    self.complaints.add(&entry.key_place, format!("unknown key \"{}\"", shortened(&entry.key)), hint);
                }
                (None, further) => {
                    if let Some(names) = names {
                        let key = Node { place: entry.key_place.clone(), data: Data::Text(entry.key.clone()) };
                        self.text(&key, &entry.key, names, "");
                    }
                    if let Some(further) = further {
                        self.value(&entry.value, further, Some(&entry.key_place), &entry.key);
                    }
                }
            }
        }
        if self.strictness == Strictness::Whole {
            self.required(node, schema, key, name);
            self.size(node, entries.len(), schema, ("minProperties", "maxProperties"), key, name);
        }
    }

    fn required(&mut self, node: &Node, schema: &'a Value, key: Option<&Place>, name: &str) {
        let place = key.unwrap_or(&node.place);
        for wanted in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if node.entry(wanted).is_some() {
                continue;
            }
            let what = schema.get("properties").and_then(|known| known.get(wanted)).map(|own| self.describe(own));
            let inside = if name.is_empty() { String::new() } else { format!(" in {}", called(name)) };
            let hint = what.map(|what| format!("write {wanted}: {what}")).unwrap_or_default();
            self.complaints.add(place, format!("\"{wanted}\" is missing{inside}"), hint);
        }
    }

    fn size(
        &mut self,
        node: &Node,
        size: usize,
        schema: &Value,
        (min, max): (&str, &str),
        key: Option<&Place>,
        name: &str,
    ) {
        let limit = |word: &str| schema.get(word).and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
        let place = key.unwrap_or(&node.place);
        if limit(min).is_some_and(|least| size < least) {
            let hint = format!("at least {} needed", limit(min).unwrap_or(0));
            self.complaints.add(place, format!("{} has too few entries", called(name)), hint);
        }
        if limit(max).is_some_and(|most| size > most) {
            let hint = format!("at most {} allowed", limit(max).unwrap_or(0));
            self.complaints.add(place, format!("{} has too many entries", called(name)), hint);
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &'a Value, key: Option<&Place>, name: &str) {
        self.size(node, items.len(), schema, ("minItems", "maxItems"), key, name);
        let Some(each) = schema.get("items") else { return };
        for item in items {
            self.value(item, each, None, name);
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &'a Value, name: &str) {
        let length = text.chars().count() as u64;
        let limit = |word: &str| schema.get(word).and_then(Value::as_u64);
        let fits = limit("minLength").is_none_or(|least| length >= least)
            && limit("maxLength").is_none_or(|most| length <= most)
            // A pattern of ours that does not compile would be a fault of the schema; its own test finds it.
            && pattern(schema).is_none_or(|pattern| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text)));
        if fits {
            return;
        }
        let hidden = schema.get("writeOnly") == Some(&Value::Bool(true));
        let what = if hidden { "has a wrong form".to_owned() } else { format!("cannot be \"{}\"", shortened(text)) };
        let subject = if name.is_empty() { "a name".to_owned() } else { called(name) };
        let hint = format!("write {}", self.describe(schema));
        self.complaints.add(&node.place, format!("{subject} {what}"), hint);
    }

    fn number(&mut self, node: &Node, number: &serde_json::Number, schema: &'a Value, name: &str) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        let limit = |word: &str| schema.get(word).and_then(Value::as_f64);
        let wrong = if limit("minimum").or_else(|| least_of(schema)).is_some_and(|least| value < least) {
            "too small"
        } else if limit("maximum").or_else(|| most_of(schema)).is_some_and(|most| value > most) {
            "too large"
        } else if limit("exclusiveMinimum").is_some_and(|least| value <= least) {
            "too small"
        } else {
            return;
        };
        let hint = format!("write {}", self.describe(schema));
        self.complaints.add(&node.place, format!("{} cannot be {number}: {wrong}", called(name)), hint);
    }

    /// What the schema wants, in words that read on after "write".
    fn describe(&self, schema: &'a Value) -> String {
        let note = schema.get("description").and_then(Value::as_str).map(first_sentence);
        let schema = self.follow(schema);
        let what = self.describe_form(schema);
        match note.or_else(|| schema.get("description").and_then(Value::as_str).map(first_sentence)) {
            Some(note) if !note.is_empty() => format!("{what} ({note})"),
            _ => what,
        }
    }

    fn describe_form(&self, schema: &'a Value) -> String {
        let schema = self.follow(schema);
        if let Some(words) = words(schema) {
            let words: Vec<String> =
                words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect();
            return match words.as_slice() {
                [only] => only.clone(),
                many => format!("one of: {}", many.join(", ")),
            };
        }
        if let Some(branches) = branches(schema) {
            let forms: Vec<String> = branches.iter().map(|branch| self.describe_form(branch)).collect();
            return forms.join(" or ");
        }
        let examples: Vec<String> = schema
            .get("examples")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|example| example.as_str().map_or_else(|| example.to_string(), str::to_owned))
            .collect();
        let such_as = if examples.is_empty() { String::new() } else { format!(" such as {}", examples.join(", ")) };
        match schema.get("type").and_then(Value::as_str) {
            Some("string") if examples.is_empty() => match pattern(schema) {
                Some(pattern) => format!("a text that matches {pattern}"),
                None => "a text".to_owned(),
            },
            Some("string") => format!("a text{such_as}"),
            Some("integer") => format!("a whole number{}{such_as}", bounds(schema)),
            Some("number") => format!("a number{}{such_as}", bounds(schema)),
            Some("boolean") => "true or false".to_owned(),
            Some("array") => "a list […]".to_owned(),
            Some("object") => {
                let keys = schema
                    .get("properties")
                    .and_then(Value::as_object)
                    .map(|known| quoted_list(known.keys().map(String::as_str)));
                keys.map_or_else(|| "a map {…}".to_owned(), |keys| format!("a map {{…}} of: {keys}"))
            }
            _ => format!("a value{such_as}"),
        }
    }
}

/// The words of an enumeration, however the schema writes it.
pub(super) fn words(schema: &Value) -> Option<Vec<&Value>> {
    if let Some(only) = schema.get("const") {
        return Some(vec![only]);
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().collect());
    }
    let branches = branches(schema)?;
    let lists: Option<Vec<Vec<&Value>>> = branches.iter().map(words).collect();
    lists.map(|lists| lists.into_iter().flatten().collect())
}

pub(super) fn branches(schema: &Value) -> Option<&[Value]> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array).map(Vec::as_slice)
}

fn pattern(schema: &Value) -> Option<&str> {
    schema.get("pattern").and_then(Value::as_str)
}

fn format_of(schema: &Value) -> Option<&str> {
    schema.get("format").and_then(Value::as_str)
}

fn least_of(schema: &Value) -> Option<f64> {
    match format_of(schema)? {
        "int32" => Some(f64::from(i32::MIN)),
        "int64" => Some(i64::MIN as f64),
        _ => None,
    }
}

fn most_of(schema: &Value) -> Option<f64> {
    match format_of(schema)? {
        "uint32" => Some(f64::from(u32::MAX)),
        "int32" => Some(f64::from(i32::MAX)),
        "int64" => Some(i64::MAX as f64),
        _ => None,
    }
}

fn bounds(schema: &Value) -> String {
    let limit = |word: &str| schema.get(word).map(ToString::to_string);
    match (limit("minimum"), limit("maximum"), limit("exclusiveMinimum")) {
        (Some(least), Some(most), _) => format!(" from {least} to {most}"),
        (Some(least), None, _) => format!(" of at least {least}"),
        (None, Some(most), _) => format!(" of at most {most}"),
        (None, None, Some(least)) => format!(" above {least}"),
        (None, None, None) => String::new(),
    }
}

fn called(name: &str) -> String {
    if name.is_empty() { "the file".to_owned() } else { format!("\"{}\"", shortened(name)) }
}

/// Texts longer than this are cut where they are repeated in a complaint.
const REPEATED_CHARACTERS: usize = 60;

pub(super) fn shortened(text: &str) -> String {
    let mut characters = text.chars();
    let head: String = characters.by_ref().take(REPEATED_CHARACTERS).collect();
    if characters.next().is_some() { head + "…" } else { head }
}

fn first_sentence(text: &str) -> String {
    let text = text.split_once(". ").map_or(text, |(first, _)| first);
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

fn unquoted_fits(node: &Node) -> bool {
    node.text().is_some_and(|text| !matches!(super::scalar::plain(text), Ok(Data::Text(_) | Data::Null) | Err(_)))
}
