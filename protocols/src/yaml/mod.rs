//! Files as people write them: YAML 1.2 in, a tree that remembers where everything stood, and complaints that say so.
//!
//! In: the text of a file. Out: a [`Node`] tree, checked against the JSON Schema of what the file should be, and every
//! [`Complaint`] at once. Must never give up at the first mistake it can see past, never read YAML 1.1 (`off` is a
//! text), and never grow beyond its bounds, whatever aliases a file holds.

mod complaint;
mod prune;
mod read;
mod scalar;
pub mod schema;
mod walk;

use std::sync::Arc;

pub use complaint::{Complaint, Complaints, nearest, quoted_list};
pub use prune::{Told, prune_gaps, prune_whole, without_told};
pub use read::{read, read_all};
use serde_json::{Number, Value};
pub use walk::{Strictness, walk};

/// The largest file, in bytes; a larger one is refused before it is looked at.
pub const FILE_BYTES: usize = 1 << 20;
/// The deepest nesting; a deeper file is refused.
pub const DEPTH_LEVELS: usize = 64;
/// Values in one file, aliases written out; a larger file is refused.
pub const NODES: usize = 200_000;
/// Complaints about one file that are shown; the rest is given as a number.
pub const COMPLAINTS: usize = 100;

/// Where something stands: file, line and column, both counted from 1; the column in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as it was named to the reader.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub data: Data,
}

/// What a [`Node`] holds, by the core schema of YAML 1.2 (section 10.3).
#[derive(Clone, Debug)]
pub enum Data {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An exact integer from `i64::MIN` to `u64::MAX`, or a finite float.
    Number {
        /// The number.
        number: Number,
        /// It was written in hexadecimal, so its author counts the way protocols do.
        hex: bool,
    },
    /// `nan`, `inf` or `-inf`.
    NotFinite(&'static str),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// One key of a map and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key as text; integers in their decimal form.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// The entry of a map with this key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of a map under this key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value at the end of a path of keys.
    pub fn find(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Where the value at the end of a path stands; of a map or list its key, because that is what people look for. The
    /// nearest key above it, if it is not there: that is where somebody has to add what is missing.
    pub fn place_of(&self, path: &[&str]) -> &Place {
        let mut node = self;
        let mut place = &self.place;
        for key in path {
            let Some(entry) = node.entry(key) else { return place };
            place = &entry.key_place;
            node = &entry.value;
        }
        if matches!(node.data, Data::Map(_) | Data::List(_)) { place } else { &node.place }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// The same as JSON; NaN and infinities, which JSON has not, become the texts `nan`, `inf` and `-inf`.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number { number, .. } => Value::Number(number.clone()),
            Data::NotFinite(word) => Value::String((*word).to_owned()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// This and all nodes below, counted.
    pub(crate) fn count(&self) -> usize {
        1 + self.items().iter().map(Self::count).sum::<usize>()
            + self.entries().iter().map(|entry| entry.value.count()).sum::<usize>()
    }

    /// Levels below and including this one.
    pub(crate) fn depth(&self) -> usize {
        let below = self.items().iter().chain(self.entries().iter().map(|entry| &entry.value));
        1 + below.map(Self::depth).max().unwrap_or(0)
    }

    /// What it is, in a word for people.
    pub(crate) fn what(&self) -> &'static str {
        match &self.data {
            Data::Null => "empty",
            Data::Bool(_) => "true or false",
            Data::Number { number, .. } if number.is_f64() => "a number with decimals",
            Data::Number { .. } => "a whole number",
            Data::NotFinite(_) => "not a finite number",
            Data::Text(_) => "a text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }
}
