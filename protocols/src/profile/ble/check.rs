//! Secrets stand only where nobody is shown them.
//!
//! In: a profile's tree before its parameters are filled in. Out: complaints. Must never let a secret into a unit, a
//! title or an expression, where documents, lists and complaints would repeat it.

use super::identity::OWN;
use crate::yaml::{Complaints, Data, Node};

/// Sections of serial devices may send a password.
const OPEN: [&str; 2] = ["serial", "params"];

/// Complains of secrets in the wrong place; `secrets` are the names of the parameters.
pub(in crate::profile) fn misplaced_secrets(tree: &Node, secrets: &[&str], complaints: &mut Complaints) {
    if !secrets.is_empty() {
        look(tree, &mut Vec::new(), secrets, complaints);
    }
}

fn look<'a>(node: &'a Node, path: &mut Vec<&'a str>, secrets: &[&str], complaints: &mut Complaints) {
    if OWN.contains(&path.as_slice()) || path.first().is_some_and(|first| OPEN.contains(first)) {
        return;
    }
    if let Data::Text(text) = &node.data {
        for secret in secrets.iter().filter(|secret| text.contains(&format!("${{{secret}}}"))) {
            let message = format!("the secret \"{secret}\" cannot stand here: it would be shown");
            complaints.add(
                &node.place,
                message,
                "secrets belong to ble.advertisement.key, ble.irk and ble.gatt.passkey",
            );
        }
    }
    node.items().iter().for_each(|item| look(item, path, secrets, complaints));
    for entry in node.entries() {
        path.push(&entry.key);
        look(&entry.value, path, secrets, complaints);
        path.pop();
    }
}
