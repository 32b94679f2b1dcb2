//! What a device may change about its profile.
//!
//! In: the profile's tree and a device's `override`. Out: complaints. Must never let the wire layout be changed by
//! accident.

use crate::yaml::{Complaints, Entry, Node, nearest, quoted_list};

/// Keys that say which profile it is; another meaning needs another profile.
const FIXED: [&str; 7] = ["schema", "id", "version", "extends", "meta", "params", "tests"];

/// Keys that hold the wire layout as a whole.
const LAYOUT: [&str; 4] = ["probe", "serial", "init", "commands"];

/// Keys of the section `ble` that do so; the others are about time.
const BLE_LAYOUT: [&[&str]; 3] = [&["match"], &["advertisement", "decode"], &["gatt", "characteristics"]];

/// Checks an override against the profile it is for.
pub(super) fn check(tree: &Node, patch: &Node, is_unsafe: bool, complaints: &mut Complaints) {
    for entry in patch.entries() {
        match entry.key.as_str() {
            fixed if FIXED.contains(&fixed) => {
                let message = format!("a device cannot override \"{fixed}\"");
                complaints.add(&entry.key_place, message, "make a profile of your own that extends this one");
            }
            layout if LAYOUT.contains(&layout) => guard(entry, layout, is_unsafe, complaints),
            "modbus" => {
                for key in ["base", "order"] {
                    if let Some(found) = entry.value.entry(key) {
                        guard(found, &format!("modbus.{key}"), is_unsafe, complaints);
                    }
                }
            }
            "ble" => {
                for path in BLE_LAYOUT {
                    let (last, above) = path.split_last().unwrap_or((&"", &[]));
                    if let Some(found) = entry.value.find(above).and_then(|above| above.entry(last)) {
                        guard(found, &format!("ble.{}", path.join(".")), is_unsafe, complaints);
                    }
                }
            }
            "properties" => properties(tree, &entry.value, is_unsafe, complaints),
            "groups" => groups(tree, patch, &entry.value, complaints),
            _ => {}
        }
    }
}

fn guard(entry: &Entry, what: &str, is_unsafe: bool, complaints: &mut Complaints) {
    if !is_unsafe {
        let message = format!("\"{what}\" is the wire layout, which a device does not change");
        complaints.add(&entry.key_place, message, "write unsafe: true for this device if you mean it");
    }
}

fn properties(tree: &Node, patch: &Node, is_unsafe: bool, complaints: &mut Complaints) {
    let known = || tree.get("properties").map(Node::entries).unwrap_or_default().iter().map(|entry| entry.key.as_str());
    for entry in patch.entries() {
        let is_new = known().all(|name| name != entry.key);
        let may_be_new = is_unsafe && entry.value.get("from").is_some();
        if is_new && !may_be_new {
            unknown("property", &entry.key, entry, known(), complaints);
            continue;
        }
        if let Some(from) = entry.value.entry("from") {
            guard(from, "from", is_unsafe, complaints);
        }
    }
}

/// A group that is new is meant only if a property is moved into it.
fn groups(tree: &Node, patch: &Node, own: &Node, complaints: &mut Complaints) {
    let known = || tree.get("groups").map(Node::entries).unwrap_or_default().iter().map(|entry| entry.key.as_str());
    let properties = |tree: &Node, group: &str| {
        let entries = tree.get("properties").map(Node::entries).unwrap_or_default();
        entries.iter().any(|entry| entry.value.get("group").and_then(Node::text).unwrap_or("default") == group)
    };
    for entry in own.entries() {
        let group = entry.key.as_str();
        let is_used = properties(patch, group) || (group == "default" && properties(tree, group));
        if !known().any(|name| name == group) && !is_used {
            unknown("group", group, entry, known(), complaints);
        }
    }
}

fn unknown<'a>(
    what: &str,
    name: &str,
    entry: &Entry,
    known: impl Iterator<Item = &'a str> + Clone,
    complaints: &mut Complaints,
) {
    let hint = match nearest(name, known.clone()) {
        Some(meant) => format!("did you mean \"{meant}\"? the profile has: {}", quoted_list(known)),
        None => format!("the profile has: {}", quoted_list(known)),
    };
    complaints.add(&entry.key_place, format!("the profile has no {what} \"{name}\""), hint);
}
