//! Kubernetes files in a folder of profiles: their devices join those of `gateway.yaml`.
//!
//! In: the tree of `gateway.yaml`, and what an import made. Out: one tree, in which everything that came from Kubernetes
//! stands where its device stands. Must never replace what `gateway.yaml` says itself.

use super::Imported;
use crate::yaml::{Complaints, Data, Entry, Node, Place, read};

/// Whether a document is an object of Kubernetes, for an import to look at.
pub fn is_kubeedge(tree: &Node) -> bool {
    tree.entry("apiVersion").is_some() && tree.entry("kind").is_some()
}

/// Adds the connections and devices of an import to the tree of a gateway file.
pub fn add_to(tree: &mut Node, imported: &Imported, complaints: &mut Complaints) {
    let Some(first) = imported.device_places.first() else { return };
    // What an import writes can be read, or one of our tests fails.
    let Some(own) = read(&first.file, &imported.gateway, &mut Complaints::new()) else { return };
    let items = own.get("devices").map(Node::items).unwrap_or_default();
    let devices: Vec<Node> = items.iter().zip(&imported.device_places).map(|(item, place)| at(item, place)).collect();
    let mut connections = Vec::new();
    for entry in own.get("connections").map(Node::entries).unwrap_or_default() {
        let user = devices.iter().find(|device| device.get("connection").and_then(Node::text) == Some(&entry.key));
        let place = user.map_or(first, |device| &device.place);
        if let Some(there) = tree.find(&["connections"]).and_then(|own| own.entry(&entry.key)) {
            let line = there.key_place.line;
            let message = format!("a second connection \"{}\"", entry.key);
            let hint = format!("the gateway file has one in line {line}; give that another name");
            complaints.add(place, message, hint);
            continue;
        }
        connections.push(Entry { key: entry.key.clone(), key_place: place.clone(), value: at(&entry.value, place) });
    }
    let Data::Map(entries) = &mut tree.data else { return };
    extend(entries, "connections", Data::Map(connections), first);
    extend(entries, "devices", Data::List(devices), first);
}

/// Adds to the list or map under a key. What has another form there is complained about by whoever reads it.
fn extend(entries: &mut Vec<Entry>, key: &str, more: Data, place: &Place) {
    let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) else {
        let value = Node { place: place.clone(), data: more };
        return entries.push(Entry { key: key.to_owned(), key_place: place.clone(), value });
    };
    match (&mut entry.value.data, more) {
        (Data::Map(own), Data::Map(more)) => own.extend(more),
        (Data::List(own), Data::List(more)) => own.extend(more),
        (own @ Data::Null, more) => *own = more,
        _ => {}
    }
}

/// A tree with everything in it at one place.
pub(super) fn at(node: &Node, place: &Place) -> Node {
    let data = match &node.data {
        Data::List(items) => Data::List(items.iter().map(|item| at(item, place)).collect()),
        Data::Map(entries) => Data::Map(
            entries
                .iter()
                .map(|entry| Entry { key: entry.key.clone(), key_place: place.clone(), value: at(&entry.value, place) })
                .collect(),
        ),
        other => other.clone(),
    };
    Node { place: place.clone(), data }
}

impl Imported {
    /// The trees of the profiles, everything in each at the device it was first made for.
    pub fn profile_trees(&self) -> Vec<Node> {
        let read = |((_, text), place): (&(String, String), &Place)| {
            Some(at(&read(&place.file, text, &mut Complaints::new())?, place))
        };
        self.profiles.iter().zip(&self.profile_places).filter_map(read).collect()
    }
}
