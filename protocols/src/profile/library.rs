//! All profiles there are, by id: what is built in and what the folders hold.
//!
//! In: the text of profile files, and what devices say of them. Out: profiles as they were meant, shared by the devices
//! that mean the same. Must never give out a profile that anything was complained about.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::raw::{RawProfile, RawTest};
use super::{Profile, ble, build, golden, merge, over, params, raw, serial, visit};
use crate::ble::Identity;
use crate::yaml::{
    Complaints, Data, Node, Place, Strictness, Told, nearest, prune_whole, quoted_list, read, walk, without_told,
};

/// Profiles that extend one another may do so in a chain of this length; a longer one is an error.
const CHAIN_LENGTH: usize = 16;

/// The profiles of an installation.
#[derive(Debug, Default)]
pub struct Library {
    written: BTreeMap<String, Written>,
    searched: Vec<String>,
    shared: HashMap<String, Arc<Profile>>,
}

#[derive(Debug)]
struct Written {
    /// Read when it is first asked for: of the built-in profiles an installation uses a few, and the others' trees
    /// would be most of an idle gateway's memory.
    tree: OnceCell<Node>,
    /// File name and text, where it is not read yet.
    text: Option<(&'static str, &'static str)>,
    built_in: bool,
}

impl Written {
    fn file(&self) -> Option<&str> {
        self.text.map(|(file, _)| file).or_else(|| Some(&*self.tree.get()?.place.file))
    }

    fn tree(&self) -> Option<&Node> {
        if let (None, Some((file, text))) = (self.tree.get(), self.text) {
            // The mistakes of built-in profiles are found by tests, not by the people who use them.
            let tree = read(file, text, &mut Complaints::new())?;
            return Some(self.tree.get_or_init(|| tree));
        }
        self.tree.get()
    }
}

/// What a device says about its profile; trees come from the file it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The profile's id.
    pub profile: &'a str,
    /// Where the id stands.
    pub place: &'a Place,
    /// Its `params`.
    pub params: Option<&'a Node>,
    /// Its `override`.
    pub over: Option<&'a Node>,
    /// Whether the override may change the wire layout.
    pub is_unsafe: bool,
}

/// What became of a [`Wish`].
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The profile, shared by all devices that mean the same and differ only in their unit.
    pub profile: Arc<Profile>,
    /// The unit id on the wire.
    pub unit: u8,
    /// What a Bluetooth device has for itself: its address and its keys.
    pub ble: Option<Identity>,
}

/// What a profile is spoken to with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Modbus, whatever carries it.
    Modbus,
    /// A serial line that does not speak Modbus.
    Serial,
    /// Bluetooth Low Energy.
    Ble,
    /// Whatever a mapper that is no part of this program speaks.
    External,
}

impl Protocol {
    /// The word of the profile.
    pub fn word(self) -> &'static str {
        match self {
            Self::Modbus => "modbus",
            Self::Serial => "serial",
            Self::Ble => "ble",
            Self::External => "external",
        }
    }

    pub(super) fn of(tree: &Node) -> Self {
        let comes_from = |word: &str| {
            tree.get(word).is_some()
                || tree
                    .get("properties")
                    .map(Node::entries)
                    .unwrap_or_default()
                    .iter()
                    .any(|entry| entry.value.find(&["from", word]).is_some())
        };
        match (comes_from("ble"), comes_from("serial"), comes_from("external")) {
            (true, ..) => Self::Ble,
            (_, true, _) => Self::Serial,
            (.., true) => Self::External,
            _ => Self::Modbus,
        }
    }
}

impl Library {
    /// No profiles yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names a place that was searched, for hints.
    pub fn searched(&mut self, place: impl Into<String>) {
        self.searched.push(place.into());
    }

    /// Takes a built-in profile in, which is read when somebody asks for it. Its file is called after its id:
    /// `<id>.yaml`. It gives way to a file of a folder with the same id.
    pub fn add_built_in(&mut self, file: &'static str, text: &'static str) {
        let id = file.strip_suffix(".yaml").unwrap_or(file);
        let written = Written { tree: OnceCell::new(), text: Some((file, text)), built_in: true };
        self.written.entry(id.to_owned()).or_insert(written);
    }

    /// Takes a file in and checks its form; gives its id. A file of a folder takes the place of a built-in profile
    /// with the same id.
    pub fn add(&mut self, file: &str, text: &str, built_in: bool, complaints: &mut Complaints) -> Option<String> {
        let tree = read(file, text, complaints)?;
        self.add_tree(tree, built_in, complaints)
    }

    /// As [`Library::add`], for a file that was read already.
    pub fn add_tree(&mut self, tree: Node, built_in: bool, complaints: &mut Complaints) -> Option<String> {
        let extends = tree.get("extends").is_some_and(|extends| !extends.items().is_empty());
        let strictness = if extends { Strictness::Part } else { Strictness::Whole };
        walk(&tree, raw::schema(), strictness, complaints);
        for own in ["schema", "id", "version"] {
            if extends && tree.get(own).is_none_or(Node::is_null) {
                complaints.add(
                    &tree.place,
                    format!("\"{own}\" is missing"),
                    format!("write {own}: it is never inherited"),
                );
            }
        }
        let id = tree.get("id").and_then(Node::text)?.to_owned();
        let other = self.written.get(&id).filter(|other| !other.built_in && !built_in);
        if let Some(other) = other.and_then(Written::tree) {
            let first = &other.place_of(&["id"]);
            let hint = format!("it is in {}:{} already; give one of them another id", first.file, first.line);
            complaints.add(tree.place_of(&["id"]), format!("a second profile \"{id}\""), hint);
            return Some(id);
        }
        self.written.insert(id.clone(), Written { tree: tree.into(), text: None, built_in });
        Some(id)
    }

    /// The ids of all profiles.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.written.keys().map(String::as_str)
    }

    /// The ids of the profiles that are not built in.
    pub fn own_ids(&self) -> impl Iterator<Item = &str> {
        self.written.iter().filter(|(_, written)| !written.built_in).map(|(id, _)| id.as_str())
    }

    /// What a profile is spoken to with; `None` when there is no such profile.
    pub fn protocol(&self, id: &str) -> Option<Protocol> {
        let tree = self.whole(id, &mut Vec::new(), &mut Complaints::new())?;
        Some(Protocol::of(&tree))
    }

    /// What is allowed and yet may not be what was meant: register numbers of a manual where addresses belong.
    pub fn doubts(&self, id: &str, warnings: &mut Complaints) {
        if let Some(tree) = self.whole(id, &mut Vec::new(), &mut Complaints::new()) {
            let ours = |written: &Written, file: &str| written.built_in && written.file() == Some(file);
            // Our own profiles are checked by our tests; whoever extends one cannot do anything about it.
            let is_ours = |file: &Arc<str>| self.written.values().any(|written| ours(written, file));
            visit::doubtful_addresses(&tree, &is_ours, warnings);
        }
    }

    /// Checks one profile by itself, with the defaults of its parameters. Its form was checked when it was added.
    pub fn check(&self, id: &str, complaints: &mut Complaints) {
        let Some(tree) = self.whole(id, &mut Vec::new(), complaints) else { return };
        let (tree, told) = sound(&tree, false, complaints);
        let mut found = Complaints::new();
        params::check(&tree, &mut found);
        ble::misplaced_secrets(&tree, &params::secrets(&params::declared(&tree)), &mut found);
        Self::look_at(&tree, &params::samples(&params::declared(&tree)), &mut found);
        golden::check(&tree, &mut found);
        told.filter(&mut found);
        complaints.extend(found);
    }

    /// Complains about everything that can be seen, past what is wrong with the form.
    fn look_at(tree: &Node, values: &BTreeMap<String, Value>, complaints: &mut Complaints) {
        let filled = Self::filled(tree, values, complaints);
        let (filled, told) = sound(&filled, true, complaints);
        let Some(raw) = serde_json::from_value::<RawProfile>(filled.to_json()).ok() else {
            // What a pruned tree lacks was told; one that nothing was pruned from says itself why it cannot be read.
            return drop(Self::built(&filled, complaints));
        };
        let mut found = Complaints::new();
        build::build(&filled, &raw, String::new(), &mut found);
        ble::identity(&filled, &mut found);
        told.filter(&mut found);
        complaints.extend(found);
    }

    /// Gives the profile a device means. What is wrong is complained about, and then there is none.
    pub fn resolve(&mut self, wish: &Wish<'_>, complaints: &mut Complaints) -> Option<Resolved> {
        let mut found = Complaints::new();
        let resolved = self.resolve_into(wish, &mut found);
        if found.is_empty() {
            return resolved;
        }
        let mut all = Complaints::new();
        self.complain_of_all(wish, &mut all);
        complaints.extend(if all.is_empty() { found } else { all });
        None
    }

    /// Everything that is wrong with a wish of which something is; slower, because it looks past every mistake.
    fn complain_of_all(&self, wish: &Wish<'_>, complaints: &mut Complaints) {
        if !self.written.contains_key(wish.profile) {
            return self.missing(wish.profile, wish.place, complaints);
        }
        let Some(mut tree) = self.whole(wish.profile, &mut Vec::new(), complaints) else { return };
        if let Some(patch) = wish.over {
            let mut refused = Complaints::new();
            over::check(&tree, patch, wish.is_unsafe, &mut refused);
            let patch = without_told(patch, &refused);
            complaints.extend(refused);
            let Some(merged) = merge::merge(Some(&tree), &patch) else { return };
            tree = merged;
        }
        let (tree, told) = sound(&tree, false, complaints);
        let mut found = Complaints::new();
        let declared = params::declared(&tree);
        let mut values = params::of_device(&declared, wish.params, wish.place, &mut found);
        if !found.is_empty() {
            // A wrong value would be told once more wherever the profile uses it.
            values = params::samples(&declared);
        }
        ble::misplaced_secrets(&tree, &params::secrets(&declared), &mut found);
        // A complaint would repeat what stands in the tree, and a secret is not to be repeated.
        ble::identity(&Self::filled(&tree, &values, &mut Complaints::new()), &mut found);
        params::blank_secrets(&declared, &mut values);
        Self::look_at(&tree, &values, &mut found);
        told.filter(&mut found);
        complaints.extend(found);
    }

    fn resolve_into(&mut self, wish: &Wish<'_>, complaints: &mut Complaints) -> Option<Resolved> {
        if !self.written.contains_key(wish.profile) {
            self.missing(wish.profile, wish.place, complaints);
            return None;
        }
        let mut tree = self.whole(wish.profile, &mut Vec::new(), complaints)?;
        let declared = params::declared(&tree);
        if let Some(patch) = wish.over {
            over::check(&tree, patch, wish.is_unsafe, complaints);
            tree = merge::merge(Some(&tree), patch)?;
        }
        let values = params::of_device(&declared, wish.params, wish.place, complaints);
        let protocol = Protocol::of(&tree);
        ble::misplaced_secrets(&tree, &params::secrets(&declared), complaints);
        if !complaints.is_empty() {
            return None;
        }
        let filled = Self::filled(&tree, &values, complaints);
        let own = (protocol == Protocol::Ble).then(|| ble::identity(&filled, complaints));
        if !complaints.is_empty() {
            return None;
        }
        let unit = filled
            .find(&["modbus", "unit"])
            .map(Node::to_json)
            .unwrap_or(values.get("unit").cloned().unwrap_or(1.into()));
        let meaning = canonical(&filled);
        let profile = match self.shared.get(&meaning) {
            Some(profile) => Arc::clone(profile),
            None => {
                let before = complaints.len();
                let profile = Arc::new(Self::built(&filled, complaints)?);
                if complaints.len() == before {
                    self.shared.insert(meaning, Arc::clone(&profile));
                }
                profile
            }
        };
        let unit = unit.as_u64().and_then(|unit| u8::try_from(unit).ok())?;
        Some(Resolved { profile, unit, ble: own })
    }

    /// The Bluetooth profiles with the defaults of their parameters, for lists of what is in the air.
    pub fn air(&self) -> ble::Air {
        let built = self.written.keys().filter_map(|id| {
            let tree = self.whole(id, &mut Vec::new(), &mut Complaints::new())?;
            let values = params::samples(&params::declared(&tree));
            let is_ble = Protocol::of(&tree) == Protocol::Ble;
            is_ble.then(|| Self::build(&tree, &values, &mut Complaints::new())).flatten().map(Arc::new)
        });
        ble::Air::new(built.collect())
    }

    /// The streams of a serial profile's golden tests that hold values: what such a device was recorded to say.
    pub fn recordings(&self, id: &str) -> Vec<Vec<u8>> {
        let Some(tree) = self.whole(id, &mut Vec::new(), &mut Complaints::new()) else { return Vec::new() };
        let tests = tests(&tree);
        let whole = tests
            .iter()
            .filter(|test| test.write.is_empty() && test.expect.as_object().is_some_and(|expect| !expect.is_empty()));
        let values = params::samples(&params::declared(&tree));
        let is_binary = Self::build(&tree, &values, &mut Complaints::new()).is_some_and(|profile| profile.is_binary());
        let bytes = whole.filter_map(|test| {
            let pieces = serial::stream(&test.input, is_binary).ok()?.into_iter();
            let bytes =
                pieces.filter_map(|piece| if let serial::Piece::Bytes(bytes) = piece { Some(bytes) } else { None });
            Some(bytes.collect::<Vec<_>>().concat())
        });
        bytes.filter(|bytes| !bytes.is_empty()).collect()
    }

    /// Runs the golden tests of a profile.
    pub fn test(&self, id: &str) -> golden::Outcome {
        let mut complaints = Complaints::new();
        let Some(tree) = self.whole(id, &mut Vec::new(), &mut complaints) else { return golden::Outcome::default() };
        let tests = tests(&tree);
        let mut outcome = golden::Outcome::default();
        for test in &tests {
            let declared = params::declared(&tree);
            let mut values = params::samples(&declared);
            values.extend(test.params.iter().map(|(name, value)| (name.clone(), value.clone())));
            let mut complaints = Complaints::new();
            let profile = Self::build(&tree, &values, &mut complaints).map(Arc::new);
            let identity = ble::identity(&Self::filled(&tree, &values, &mut Complaints::new()), &mut complaints);
            match profile {
                Some(profile) if complaints.is_empty() => outcome.add(golden::run(&profile, &identity, test)),
                _ => outcome.add(vec![golden::Failure::unusable(id, &test.name)]),
            }
        }
        outcome
    }

    fn build(tree: &Node, values: &BTreeMap<String, Value>, complaints: &mut Complaints) -> Option<Profile> {
        let before = complaints.len();
        let filled = Self::filled(tree, values, complaints);
        if complaints.len() > before {
            return None;
        }
        Self::built(&filled, complaints)
    }

    fn filled(tree: &Node, values: &BTreeMap<String, Value>, complaints: &mut Complaints) -> Node {
        let kept = merge::without(tree, &["params", "tests", "extends"]);
        serial::conditions(&merge::fill(&kept, values, complaints), values)
    }

    fn built(filled: &Node, complaints: &mut Complaints) -> Option<Profile> {
        let before = complaints.len();
        walk(filled, raw::schema(), Strictness::Whole, complaints);
        if complaints.len() > before {
            return None;
        }
        let raw: RawProfile = match serde_json::from_value(filled.to_json()) {
            Ok(raw) => raw,
            Err(error) => {
                complaints.add(&filled.place, format!("the profile cannot be read: {error}"), "");
                return None;
            }
        };
        build::build(filled, &raw, hash(&canonical(filled)), complaints)
    }

    /// The tree of a profile with all that it extends; `chain` are the profiles that lead here.
    fn whole(&self, id: &str, chain: &mut Vec<String>, complaints: &mut Complaints) -> Option<Node> {
        let own = self.written.get(id)?.tree()?;
        let bases = own.get("extends").map(Node::items).unwrap_or_default();
        if bases.is_empty() {
            return Some(own.clone());
        }
        chain.push(id.to_owned());
        let mut tree: Option<Node> = None;
        for base in bases {
            let Some(name) = base.text() else { continue };
            if let Some(start) = chain.iter().position(|link| link == name) {
                self.complain_of_circle(chain.get(start..).unwrap_or_default(), complaints);
                return None;
            }
            if !self.written.contains_key(name) {
                self.missing(name, &base.place, complaints);
                return None;
            }
            if chain.len() >= CHAIN_LENGTH {
                let message = format!("more than {CHAIN_LENGTH} profiles extend one another");
                complaints.add(&base.place, message, "shorten the chain");
                return None;
            }
            let base = merge::without(&self.whole(name, chain, complaints)?, &["tests", "id", "version"]);
            tree = merge::merge(tree.as_ref(), &base);
        }
        chain.pop();
        let own = merge::without(own, &["extends"]);
        let mut whole = merge::merge(tree.as_ref(), &own)?;
        whole.place = own.place;
        Some(whole)
    }

    /// One complaint for one circle, wherever it was entered: in the file of the profile that comes first by name.
    fn complain_of_circle(&self, circle: &[String], complaints: &mut Complaints) {
        let Some(first) = (0..circle.len()).min_by_key(|index| circle.get(*index)) else { return };
        let mut ring: Vec<&str> = circle.iter().map(String::as_str).collect();
        ring.rotate_left(first);
        let Some((own, next)) = ring.first().map(|own| (*own, ring.get(1).copied().unwrap_or(own))) else { return };
        let Some(tree) = self.written.get(own).and_then(Written::tree) else { return };
        let items = tree.get("extends").map(Node::items).unwrap_or_default();
        let place = items.iter().find(|item| item.text() == Some(next)).map_or(&tree.place, |item| &item.place);
        ring.push(own);
        complaints.add(
            place,
            format!("\"{own}\" extends itself: {}", ring.join(" → ")),
            "take one of them out of extends",
        );
    }

    fn missing(&self, name: &str, place: &Place, complaints: &mut Complaints) {
        let searched = quoted_list(self.searched.iter().map(String::as_str));
        let searched = if searched.is_empty() { "the built-in profiles".to_owned() } else { searched };
        let hint = match nearest(name, self.ids()) {
            Some(meant) => format!("did you mean \"{meant}\"? searched: {searched}"),
            None => format!("searched: {searched}"),
        };
        complaints.add(place, format!("there is no profile \"{name}\""), hint);
    }
}

/// The tree without what does not fit the schema, which is complained about.
fn sound(tree: &Node, is_filled: bool, complaints: &mut Complaints) -> (Node, Told) {
    let before = complaints.len();
    walk(tree, raw::schema(), Strictness::Whole, complaints);
    if complaints.len() == before && !is_filled {
        return (tree.clone(), Told::default());
    }
    prune_whole(tree, raw::schema(), is_filled)
}

fn tests(tree: &Node) -> Vec<RawTest> {
    let items = tree.get("tests").map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| serde_json::from_value(item.to_json()).ok()).collect()
}

/// What a profile means, as text: equal for two devices that differ only in their unit, or in their address and keys.
fn canonical(filled: &Node) -> String {
    let mut whole = merge::without(filled, &["schema"]);
    for path in ble::OWN {
        whole = merge::without_path(&whole, path);
    }
    if let Data::Map(entries) = &mut whole.data {
        for entry in entries.iter_mut().filter(|entry| entry.key == "modbus") {
            entry.value = merge::without(&entry.value, &["unit"]);
        }
    }
    whole.to_json().to_string()
}

/// FNV-1a with 64 bits, as 16 hexadecimal digits: stable for ever, and nobody gains by a collision here, because
/// sharing goes by the text itself.
fn hash(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod hash_tests {
    use super::hash;

    /// The vectors are those of draft-eastlake-fnv, appendix C (64-bit FNV-1a).
    #[test]
    fn the_hash_is_fnv_1a() {
        for (text, expected) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            assert_eq!(hash(text), expected);
        }
    }
}
