//! Kubernetes files among the profiles: KubeEdge's `Device` and `DeviceModel` objects, taken as they are.
//!
//! In: the files of a folder of profiles. Out: profiles, and devices for the tree of `gateway.yaml`; what has no
//! counterpart as warnings. Must never change a file.

use std::path::Path;

use protocols::kubeedge::import::{add_to, import, is_kubeedge};
use protocols::yaml::{Complaints, Node, read, read_all};

use super::files;

/// The Kubernetes files that were found.
#[derive(Default)]
pub(super) struct Cluster {
    files: Vec<(String, String)>,
}

impl Cluster {
    /// Reads a file to a tree; one of Kubernetes is kept for [`Cluster::join`] instead.
    pub(super) fn sort(&mut self, path: &Path, complaints: &mut Complaints) -> Option<Node> {
        let text = files::text(path, complaints)?;
        let name = path.display().to_string();
        if !is_of_kubernetes(&name, &text) {
            return read(&name, &text, complaints);
        }
        self.files.push((name, text));
        None
    }

    /// Gives the profiles of what was found. Its devices and connections are added to the tree of a gateway file.
    pub(super) fn join(
        self,
        gateway: Option<&mut Node>,
        warnings: &mut Complaints,
        complaints: &mut Complaints,
    ) -> Vec<Node> {
        if self.files.is_empty() {
            return Vec::new();
        }
        let imported = match import(&self.files) {
            Ok(imported) => imported,
            Err(found) => {
                complaints.extend(found);
                return Vec::new();
            }
        };
        for note in &imported.notes {
            warnings.add(&note.place, note.text.clone(), "");
        }
        if let Some(gateway) = gateway {
            add_to(gateway, &imported, complaints);
        }
        imported.profile_trees()
    }
}

/// Whether the first document of a file is an object of Kubernetes. The others are looked at by the import.
fn is_of_kubernetes(name: &str, text: &str) -> bool {
    // A profile is not read twice.
    text.contains("apiVersion:") && read_all(name, text, &mut Complaints::new()).first().is_some_and(is_kubeedge)
}
