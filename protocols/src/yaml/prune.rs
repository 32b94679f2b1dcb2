//! A tree without what does not fit its schema, so that a mistake in one place does not hide those in another.
//!
//! In: a tree the schema has complained about. Out: the tree without the smallest parts that do not fit, and what was
//! [`Told`]: with it, complaints that only follow from the pruning are left out. Must never be used to run anything: a
//! pruned tree exists for its complaints alone.

use std::collections::BTreeSet;

use serde_json::Value;

use super::walk::{branches, follow, is_fit, is_of_kind, words};
use super::{Complaint, Complaints, Data, Entry, Node, Place, Strictness, nearest};

/// Schemas nested deeper than this get no placeholder; ours are not.
const SCHEMA_LEVELS: usize = 8;

/// What was complained about already.
#[derive(Debug, Default)]
pub struct Told {
    /// Everything that stood in what was taken out.
    places: BTreeSet<Place>,
    /// Keys that are gone from a map, with the place complaints fall back to when they miss it.
    gone: Vec<(Place, String)>,
    /// Sections of a file that are gone.
    sections: Vec<(Place, String)>,
    /// Things with a name that are damaged, with all places inside them.
    names: Vec<(String, BTreeSet<Place>)>,
}

impl Told {
    /// Takes out the complaints that repeat, or only follow from, what was told.
    pub fn filter(&self, complaints: &mut Complaints) {
        complaints.retain(|complaint| !self.covers(complaint));
    }

    /// Whether one of these keys was taken out of the map that stands here.
    pub fn lost_at(&self, place: &Place, keys: &[&str]) -> bool {
        self.gone.iter().any(|(at, key)| at == place && keys.contains(&key.as_str()))
    }

    fn covers(&self, complaint: &Complaint) -> bool {
        let place = Place { file: complaint.file.as_str().into(), line: complaint.line, column: complaint.column };
        let Complaint { message, hint, .. } = complaint;
        let misses = |what: &str| {
            message.starts_with(&format!("there is no {what}")) || message.contains(&format!("has no {what}"))
        };
        let lacks = |name: &str| {
            let quoted = format!("\"{name}\"");
            message.contains(&quoted)
                && ["there is no", "has no", "cannot be"].into_iter().any(|words| message.contains(words))
        };
        self.places.contains(&place)
            || self.gone.iter().any(|(at, key)| *at == place && (message.contains(key) || hint.contains(key)))
            || self.sections.iter().any(|(at, key)| at.file == place.file && misses(stem(key)))
            || self.names.iter().any(|(name, inside)| {
                inside.first().is_some_and(|first| first.file == place.file) && !inside.contains(&place) && lacks(name)
            })
    }

    fn all_of(&mut self, entry: &Entry) {
        self.places.insert(entry.key_place.clone());
        places(&entry.value, &mut self.places);
    }

    fn size(&self) -> usize {
        self.places.len() + self.gone.len()
    }
}

/// One of a section's things, as complaints call it.
fn stem(section: &str) -> &str {
    section.strip_suffix("ies").or_else(|| section.strip_suffix('s')).unwrap_or(section)
}

fn places(node: &Node, into: &mut BTreeSet<Place>) {
    into.insert(node.place.clone());
    node.items().iter().for_each(|item| places(item, into));
    for entry in node.entries() {
        into.insert(entry.key_place.clone());
        places(&entry.value, into);
    }
}

/// A tree that fits the schema, with something harmless where what is required is missing or wrong. With `is_filled`,
/// texts that still hold a `${` count as wrong.
pub fn prune_whole(node: &Node, schema: &Value, is_filled: bool) -> (Node, Told) {
    prune(node, schema, true, is_filled)
}

/// A tree in which nothing is wrong, but required things may be missing.
pub fn prune_gaps(node: &Node, schema: &Value) -> (Node, Told) {
    prune(node, schema, false, false)
}

fn prune(node: &Node, schema: &Value, is_whole: bool, is_filled: bool) -> (Node, Told) {
    let mut pruner = Pruner { root: schema, is_whole, is_filled, told: Told::default() };
    let pruned = pruner.value(node, schema, &node.place, Anchor::Root);
    let empty = || Node { place: node.place.clone(), data: Data::Map(Vec::new()) };
    (pruned.unwrap_or_else(empty), pruner.told)
}

/// A tree without the entries whose keys were complained about.
pub fn without_told(node: &Node, complaints: &Complaints) -> Node {
    let data = match &node.data {
        Data::Map(entries) => Data::Map(
            entries
                .iter()
                .filter(|entry| !complaints.are_about(&entry.key_place))
                .map(|entry| Entry { value: without_told(&entry.value, complaints), ..entry.clone() })
                .collect(),
        ),
        other => other.clone(),
    };
    Node { place: node.place.clone(), data }
}

/// Whether a map may go when it misses something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Anchor {
    /// The whole tree stays.
    Root,
    /// What has a name stays, because others refer to it.
    Named,
    /// All else may go.
    Loose,
}

struct Pruner<'a> {
    root: &'a Value,
    is_whole: bool,
    is_filled: bool,
    told: Told,
}

impl<'a> Pruner<'a> {
    /// What is left of a value; `key` is where complaints about what it misses stand.
    fn value(&mut self, node: &Node, schema: &'a Value, key: &Place, anchor: Anchor) -> Option<Node> {
        let has_hole = self.is_filled && has_hole(node);
        if is_fit(node, schema, self.root, Strictness::Whole) && !has_hole {
            return Some(node.clone());
        }
        let schema = self.branch(node, schema);
        let data = match &node.data {
            _ if !is_of_kind(node, schema, self.root) => None,
            Data::Map(entries) => self.map(node, entries, schema, key, anchor).map(Data::Map),
            Data::List(items) => Some(Data::List(self.list(items, schema))),
            _ => None,
        };
        if data.is_none() {
            places(node, &mut self.told.places);
        }
        Some(Node { place: node.place.clone(), data: data? })
    }

    fn branch(&self, node: &Node, schema: &'a Value) -> &'a Value {
        let schema = follow(self.root, schema);
        let fitting = branches(schema).and_then(|all| all.iter().find(|one| is_of_kind(node, one, self.root)));
        fitting.map_or(schema, |one| follow(self.root, one))
    }

    fn list(&mut self, items: &[Node], schema: &'a Value) -> Vec<Node> {
        let Some(each) = schema.get("items") else { return items.to_vec() };
        items.iter().filter_map(|item| self.value(item, each, &item.place, Anchor::Loose)).collect()
    }

    fn map(
        &mut self,
        node: &Node,
        entries: &[Entry],
        schema: &'a Value,
        key: &Place,
        anchor: Anchor,
    ) -> Option<Vec<Entry>> {
        let known = schema.get("properties").and_then(Value::as_object);
        let mut kept: Vec<Entry> = Vec::new();
        for entry in entries {
            match (known.and_then(|known| known.get(&entry.key)), schema.get("additionalProperties")) {
                (Some(own), _) => match self.value(&entry.value, own, &entry.key_place, Anchor::Loose) {
                    Some(value) => kept.push(Entry { value, ..entry.clone() }),
                    None => {
                        self.told.all_of(entry);
                        self.lost(&entry.key, key, anchor);
                    }
                },
                (None, Some(Value::Bool(false))) => {
                    self.told.all_of(entry);
                    let keys = known.into_iter().flat_map(|known| known.keys().map(String::as_str));
                    if let Some(meant) = nearest(&entry.key, keys) {
                        self.lost(meant, key, anchor);
                    }
                }
                (None, Some(further)) => kept.extend(self.named(entry, further, schema)),
                (None, None) => kept.push(entry.clone()),
            }
        }
        if !self.is_whole {
            return Some(kept);
        }
        for wanted in required(schema) {
            if kept.iter().any(|entry| entry.key == wanted) {
                continue;
            }
            if anchor == Anchor::Loose {
                return None;
            }
            self.lost(wanted, key, anchor);
            self.told.places.insert(node.place.clone());
            let own = known.and_then(|known| known.get(wanted))?;
            let value = Node { place: node.place.clone(), data: self.placeholder(own, &node.place, SCHEMA_LEVELS)? };
            kept.push(Entry { key: wanted.to_owned(), key_place: node.place.clone(), value });
        }
        let limit = |word: &str| schema.get(word).and_then(Value::as_u64);
        let count = kept.len() as u64;
        let is_many = limit("minProperties").is_none_or(|least| count >= least);
        let is_few = limit("maxProperties").is_none_or(|most| count <= most);
        (anchor != Anchor::Loose || (is_many && is_few)).then_some(kept)
    }

    /// Something with a name of its own, to which others may refer.
    fn named(&mut self, entry: &Entry, schema: &'a Value, of: &'a Value) -> Option<Entry> {
        let before = self.told.size();
        let name = Node { place: entry.key_place.clone(), data: Data::Text(entry.key.clone()) };
        if of.get("propertyNames").is_some_and(|names| !is_fit(&name, names, self.root, Strictness::Whole)) {
            self.told.places.insert(entry.key_place.clone());
        }
        let mut value = self.value(&entry.value, schema, &entry.key_place, Anchor::Named);
        if value.is_none() {
            self.told.all_of(entry);
            if self.is_whole {
                let place = &entry.value.place;
                let data = self.placeholder(schema, place, SCHEMA_LEVELS);
                value = data.map(|data| Node { place: place.clone(), data });
            }
        }
        if self.told.size() > before {
            let mut inside = BTreeSet::from([entry.key_place.clone()]);
            places(&entry.value, &mut inside);
            self.told.names.push((entry.key.clone(), inside));
        }
        Some(Entry { value: value?, ..entry.clone() })
    }

    fn lost(&mut self, key: &str, place: &Place, anchor: Anchor) {
        self.told.gone.push((place.clone(), key.to_owned()));
        if anchor == Anchor::Root {
            self.told.sections.push((place.clone(), key.to_owned()));
        }
    }

    /// Something the schema takes.
    fn placeholder(&self, schema: &'a Value, place: &Place, levels: usize) -> Option<Data> {
        let levels = levels.checked_sub(1)?;
        let schema = follow(self.root, schema);
        if let Some(words) = words(schema) {
            return words.first().map(|word| scalar(word));
        }
        if let Some(first) = branches(schema).and_then(<[Value]>::first) {
            return self.placeholder(first, place, levels);
        }
        let examples = schema.get("examples").and_then(Value::as_array);
        match schema.get("type").and_then(Value::as_str)? {
            // The last example of a duration is the longest one, which no other time of the map can exceed.
            "string" => Some(examples.and_then(|all| all.last()).map_or_else(|| Data::Text("x".to_owned()), scalar)),
            "integer" | "number" => Some(schema.get("minimum").map_or_else(|| scalar(&Value::from(1)), scalar)),
            "boolean" => Some(Data::Bool(false)),
            "array" => Some(Data::List(Vec::new())),
            "object" => {
                let entry = |key: &'a str| {
                    let data = self.placeholder(schema.get("properties")?.get(key)?, place, levels)?;
                    let value = Node { place: place.clone(), data };
                    Some(Entry { key: key.to_owned(), key_place: place.clone(), value })
                };
                required(schema).map(entry).collect::<Option<Vec<_>>>().map(Data::Map)
            }
            _ => None,
        }
    }
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn has_hole(node: &Node) -> bool {
    node.text().is_some_and(|text| text.contains("${"))
        || node.items().iter().any(has_hole)
        || node.entries().iter().any(|entry| has_hole(&entry.value))
}

fn scalar(value: &Value) -> Data {
    match value {
        Value::Bool(value) => Data::Bool(*value),
        Value::Number(number) => Data::Number { number: number.clone(), hex: false },
        Value::String(text) => Data::Text(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => Data::Null,
    }
}
