//! Text to tree: the parser's events become nodes.
//!
//! In: the text of one file. Out: its tree, with every duplicate key complained about. Must never keep more than the
//! bounds of this room allow, and never follow an alias into itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::{Complaints, DEPTH_LEVELS, Data, Entry, FILE_BYTES, NODES, Node, Place, scalar};

/// More digits than this are taken for a key without its quotes.
const KEY_DIGITS: usize = 24;

/// Reads a file. Gives no tree where the text is no YAML or breaks a bound; a tree and complaints where keys stand
/// twice, so that the rest can be checked as well.
pub fn read(file: &str, text: &str, complaints: &mut Complaints) -> Option<Node> {
    documents(file, text, false, complaints)?.pop()
}

/// Reads a file of any number of documents, as Kubernetes writes them; empty ones are passed over. Gives none where
/// the text is no YAML or breaks a bound.
pub fn read_all(file: &str, text: &str, complaints: &mut Complaints) -> Vec<Node> {
    documents(file, text, true, complaints).unwrap_or_default()
}

fn documents(file: &str, text: &str, many: bool, complaints: &mut Complaints) -> Option<Vec<Node>> {
    let file: Arc<str> = file.into();
    let top = Place { file: Arc::clone(&file), line: 1, column: 1 };
    if text.len() > FILE_BYTES {
        let message = format!("the file has {} bytes, more than the {FILE_BYTES} that are read", text.len());
        complaints.add(&top, message, "split it: profiles are files of their own");
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        file,
        complaints,
        many,
        open: Vec::new(),
        anchors: BTreeMap::new(),
        nodes: 0,
        roots: Vec::new(),
        documents: 0,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                builder.refuse(text, &error);
                return None;
            }
        };
        if builder.on_event(event, span.start).is_err() {
            return None;
        }
    }
    let mut roots = builder.roots;
    roots.retain(|root| !root.is_null());
    if roots.is_empty() {
        let hint = if many { "it should hold at least one document" } else { "begin with \"schema: 1\"" };
        complaints.add(&top, "the file is empty", hint);
        return None;
    }
    Some(roots)
}

/// Reading cannot go on; the complaint is made.
struct Stop;

enum Open {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Place>, key: Option<(String, Place)> },
}

struct Frame {
    place: Place,
    anchor: usize,
    open: Open,
}

struct Builder<'a> {
    file: Arc<str>,
    complaints: &'a mut Complaints,
    /// Several documents are allowed.
    many: bool,
    open: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    roots: Vec<Node>,
    documents: usize,
}

impl Builder<'_> {
    fn place(&self, mark: &Marker) -> Place {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { file: Arc::clone(&self.file), line: number(mark.line()), column: number(mark.col().saturating_add(1)) }
    }

    fn on_event(&mut self, event: Event<'_>, start: Marker) -> Result<(), Stop> {
        let place = self.place(&start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 && !self.many {
                    self.complaints.add(&place, "a second document begins here", "write one document in a file");
                    return Err(Stop);
                }
                Ok(())
            }
            Event::SequenceStart(anchor, _) => self.enter(Frame { place, anchor, open: Open::List(Vec::new()) }),
            Event::MappingStart(anchor, _) => {
                let open = Open::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.enter(Frame { place, anchor, open })
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Scalar(text, style, anchor, tag) => {
                let data = self.scalar(&place, &text, style, tag.as_deref());
                self.put(Node { place, data }, anchor)
            }
            Event::Alias(anchor) => self.alias(place, anchor),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn scalar(&mut self, place: &Place, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Data {
        let suffix = tag.map(|tag| if tag.is_yaml_core_schema() { tag.suffix.as_str() } else { "" });
        match (suffix, style) {
            (Some("str"), _) => Data::Text(text.to_owned()),
            (None, ScalarStyle::Plain) | (Some("int" | "float" | "bool" | "null"), _) => scalar::plain(text)
                .unwrap_or_else(|scalar::TooLarge| {
                    let range = format!("whole numbers reach from {} to {}", i64::MIN, u64::MAX);
                    // Thirty-two digits are no number but a key that should have been in quotes: it is not repeated.
                    let (shown, hint) = match text.len() {
                        0..=KEY_DIGITS => (text.to_owned(), range),
                        length => (format!("a number of {length} digits"), "in quotes it would be a text".to_owned()),
                    };
                    self.complaints.add(place, format!("{shown} is too large a number"), hint);
                    Data::Null
                }),
            (None, _) => Data::Text(text.to_owned()),
            (Some(_), _) => {
                self.complaints.add(place, "a tag that means nothing here", "leave the word with the \"!\" out");
                Data::Text(text.to_owned())
            }
        }
    }

    fn alias(&mut self, place: Place, anchor: usize) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.complaints.add(&place, "this alias stands inside what it names", "write the value out");
            return Err(Stop);
        };
        // The copy is counted before it is made: a few aliases of aliases would otherwise fill the memory.
        self.nodes = self.nodes.saturating_add(node.count());
        if self.nodes > NODES || self.open.len() + node.depth() > DEPTH_LEVELS {
            self.too_much(&place);
            return Err(Stop);
        }
        let node = Node { place, data: node.data.clone() };
        self.attach(node)
    }

    fn too_much(&mut self, place: &Place) {
        let message = format!("more than {NODES} values or {DEPTH_LEVELS} levels");
        self.complaints.add(place, message, "split the file, or use fewer aliases");
    }

    fn enter(&mut self, frame: Frame) -> Result<(), Stop> {
        self.nodes += 1;
        if self.open.len() >= DEPTH_LEVELS || self.nodes > NODES {
            self.too_much(&frame.place);
            return Err(Stop);
        }
        if let Some(Frame { open: Open::Map { key: None, .. }, .. }) = self.open.last() {
            self.complaints.add(&frame.place, "a list or map cannot be a key", "write a word");
            return Err(Stop);
        }
        self.open.push(frame);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Stop> {
        let Some(frame) = self.open.pop() else { return Ok(()) };
        let data = match frame.open {
            Open::List(items) => Data::List(items),
            Open::Map { entries, .. } => Data::Map(entries),
        };
        // Counted when it was entered.
        self.nodes = self.nodes.saturating_sub(1);
        self.put(Node { place: frame.place, data }, frame.anchor)
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > NODES {
            self.too_much(&node.place);
            return Err(Stop);
        }
        if anchor > 0 {
            self.nodes = self.nodes.saturating_add(node.count());
            self.anchors.insert(anchor, node.clone());
        }
        self.attach(node)
    }

    fn attach(&mut self, node: Node) -> Result<(), Stop> {
        let Some(frame) = self.open.last_mut() else {
            self.roots.push(node);
            return Ok(());
        };
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, seen, key } => match key.take() {
                None => *key = Some((key_text(&node), node.place)),
                Some((text, place)) => {
                    if let Some(first) = seen.get(&text) {
                        let hint = format!("first in line {}, column {}; keep one of them", first.line, first.column);
                        self.complaints.add(&place, format!("\"{text}\" stands here twice"), hint);
                    } else {
                        seen.insert(text.clone(), place.clone());
                        entries.push(Entry { key: text, key_place: place, value: node });
                    }
                }
            },
        }
        Ok(())
    }

    /// Says a parser's error in our words where they are clearer.
    fn refuse(&mut self, text: &str, error: &ScanError) {
        let mark = error.marker();
        let line = text.lines().nth(mark.line().saturating_sub(1)).unwrap_or_default();
        let leading = line.chars().take_while(|letter| letter.is_whitespace());
        let hint = if leading.clone().any(|letter| letter == '\t') || error.info().contains("tab") {
            "indent with spaces, not with tabs"
        } else if line.contains("${") {
            "inside {…} and […] quote it: \"${name}\""
        } else if error.info().contains("alias") || error.info().contains("anchor") {
            "name it with & before using it with *"
        } else if line.contains(": ") && line.matches(": ").count() > 1 && !line.contains('{') {
            "a text that holds \": \" needs quotes"
        } else {
            "look for a missing quote, bracket, colon or a wrong indent here or just above"
        };
        let place = self.place(mark);
        self.complaints.add(&place, format!("this is no YAML: {}", error.info()), hint);
    }
}

/// A key as text. Integers in decimal, so that `0x10` and `16` are one key.
fn key_text(node: &Node) -> String {
    match &node.data {
        Data::Null => "null".to_owned(),
        Data::Text(text) => text.clone(),
        _ => match node.to_json() {
            serde_json::Value::String(word) => word,
            other => other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        let mut complaints = Complaints::new();
        let node = read("f.yaml", text, &mut complaints);
        assert!(complaints.is_empty(), "{complaints:?}");
        node.map(|node| node.to_json().to_string()).unwrap()
    }

    fn complaints(text: &str) -> Vec<(u32, u32, String, String)> {
        let mut complaints = Complaints::new();
        read("f.yaml", text, &mut complaints);
        complaints.into_sorted().into_iter().map(|c| (c.line, c.column, c.message, c.hint)).collect()
    }

    #[test]
    fn a_file_becomes_the_tree_it_describes() {
        for (text, expected) in [
            ("a: off\nb: [0x10, 0o17, 'x']\n", r#"{"a":"off","b":[16,15,"x"]}"#),
            ("a: &x {k: 1}\nb: *x\n", r#"{"a":{"k":1},"b":{"k":1}}"#),
            ("{0x10: a, 2: b, true: c}", r#"{"16":"a","2":"b","true":"c"}"#),
            ("a: !!str 10\nb: \"10\"\n", r#"{"a":"10","b":"10"}"#),
            ("\u{feff}a: 1\n", r#"{"a":1}"#),
            ("a: |\n  x\n  y\n", r#"{"a":"x\ny\n"}"#),
            ("---\na:\n...\n", r#"{"a":null}"#),
            ("unit: ${unit}\n", r#"{"unit":"${unit}"}"#),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    #[test]
    fn every_node_knows_its_line_and_column() {
        let mut complaints = Complaints::new();
        let node = read("f.yaml", "a: 1\nb:\n  - c: {d: ä, e: 2}\n", &mut complaints).unwrap();
        let at = |place: &Place| (place.line, place.column);
        assert_eq!(at(&node.entry("b").unwrap().key_place), (2, 1));
        let c = &node.get("b").unwrap().items()[0];
        assert_eq!(at(&c.place), (3, 5));
        assert_eq!(at(&c.find(&["c", "e"]).unwrap().place), (3, 18));
        assert_eq!(at(c.place_of(&["c", "missing", "deeper"])), (3, 5));
    }

    #[test]
    fn what_is_no_tree_is_refused_with_its_place() {
        let deep = "[".repeat(70) + &"]".repeat(70);
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..9 {
            let below = level - 1;
            bomb += &format!("a{level}: &a{level} [{}*a{below}]\n", format!("*a{below},").repeat(9));
        }
        for (text, line, column, message) in [
            ("a: 1\nb: 2\na: 3\n", 3, 1, "\"a\" stands here twice"),
            ("a: {x: 1, 0x10: 2, 16: 3}\n", 1, 20, "\"16\" stands here twice"),
            ("", 1, 1, "the file is empty"),
            ("# only words\n", 1, 1, "the file is empty"),
            ("a: 1\n---\nb: 2\n", 2, 1, "a second document begins here"),
            ("a: &x [*x]\n", 1, 8, "this alias stands inside what it names"),
            ("a: 99999999999999999999\n", 1, 4, "99999999999999999999 is too large a number"),
            (deep.as_str(), 1, 65, "more than 200000 values or 64 levels"),
            (bomb.as_str(), 6, 0, "more than 200000 values or 64 levels"),
        ] {
            let found = complaints(text);
            let first = found.first().unwrap();
            assert_eq!((first.0, &*first.2), (line, message), "{found:?}");
            assert!(column == 0 || first.1 == column, "{found:?}");
            assert!(!first.3.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn a_parsers_error_comes_with_a_hint() {
        for (text, line, hint) in [
            ("a:\n\tb: 1\n", 2, "indent with spaces, not with tabs"),
            ("a: {unit: ${unit}}\n", 1, "inside {…} and […] quote it: \"${name}\""),
            ("a: *nobody\n", 1, "name it with & before using it with *"),
            ("a: b: c\n", 1, "a text that holds \": \" needs quotes"),
        ] {
            let found = complaints(text);
            assert_eq!((found[0].0, &*found[0].3), (line, hint), "{found:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-c0:{}\\[\\], \n\t&*!|>'\"#%-]{0,60}") {
            read("f.yaml", &text, &mut Complaints::new());
        }
    }
}
