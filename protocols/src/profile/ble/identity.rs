//! What one device has for itself: address, keys, passkey.
//!
//! In: a profile's tree with the device's parameters filled in. Out: an [`Identity`], or complaints that repeat no
//! secret. Must never let any of it into what devices share.

use crate::ble::{Identity, Key, Mac};
use crate::yaml::{Complaints, Data, Node};

/// The keys of the section that are the device's own; they are taken out of what devices share.
pub(in crate::profile) const OWN: [&[&str]; 5] = [
    &["ble", "address"],
    &["ble", "irk"],
    &["ble", "advertisement", "key"],
    &["ble", "advertisement", "require_encryption"],
    &["ble", "gatt", "passkey"],
];

/// The largest passkey (Core Specification, Vol 3, Part H, 2.3.5.1).
const PASSKEY_MAX: u64 = 999_999;

/// Reads a device's own part.
pub(in crate::profile) fn identity(filled: &Node, complaints: &mut Complaints) -> Identity {
    let text = |path: &[&str]| filled.find(path).and_then(Node::text).filter(|text| !text.is_empty());
    let mut key = |path: &[&str]| match text(path).map(Key::from_hex) {
        None => None,
        Some(Ok(key)) => Some(key),
        Some(Err(error)) => {
            complaints.add(
                filled.place_of(path),
                error.to_string(),
                "write it as the device's maker or its app shows it",
            );
            None
        }
    };
    let own = key(&["ble", "advertisement", "key"]);
    let irk = key(&["ble", "irk"]);
    let address = text(&["ble", "address"]).and_then(|text| match text.parse::<Mac>() {
        Ok(address) => Some(address),
        Err(error) => {
            complaints.add(
                filled.place_of(&["ble", "address"]),
                error.to_string(),
                "leave it empty for any device that fits",
            );
            None
        }
    });
    let requires_encryption = match filled.find(&["ble", "advertisement", "require_encryption"]) {
        None => own.is_some(),
        Some(node) => truth(node).unwrap_or_else(|| {
            let hint = "write true, false, or \"${bindkey} != ''\"";
            complaints.add(&node.place, "require_encryption is neither true nor false", hint);
            true
        }),
    };
    Identity { address, key: own, irk, passkey: passkey(filled, complaints), requires_encryption }
}

/// `true`, `false`, or whether something is not empty: `… != ''`.
fn truth(node: &Node) -> Option<bool> {
    match &node.data {
        Data::Bool(on) => Some(*on),
        Data::Text(text) => {
            let text = text.trim();
            let left = text.strip_suffix("''").or_else(|| text.strip_suffix("\"\""))?.trim_end().strip_suffix("!=")?;
            Some(!left.trim().is_empty())
        }
        _ => None,
    }
}

fn passkey(filled: &Node, complaints: &mut Complaints) -> Option<u32> {
    let node = filled.find(&["ble", "gatt", "passkey"])?;
    let number = match &node.data {
        Data::Number { number, .. } => number.as_u64(),
        Data::Text(text) if text.is_empty() => return None,
        Data::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    let passkey = number.filter(|number| *number <= PASSKEY_MAX).and_then(|number| u32::try_from(number).ok());
    if passkey.is_none() {
        complaints.add(&node.place, "the passkey is not six digits", "write 000000 to 999999, in quotes");
    }
    passkey
}
