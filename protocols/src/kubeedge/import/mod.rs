//! KubeEdge's `Device` and `DeviceModel` (v1alpha2, v1beta1) as profiles and a list of devices.
//!
//! In: Kubernetes YAML as it is applied to a cluster. Out: profiles and the part of `gateway.yaml` that names connections and
//! devices, as text; and a [`Note`] with its line for everything that has no counterpart here. Must never drop anything
//! without a note.
//!
//! * One profile for each device model and each way its devices are read; devices that are read alike share it.
//! * Modbus devices become Modbus profiles. Devices of all other protocols become external ones: what their mapper has to
//!   know is kept in its own words.
//! * Modbus as KubeEdge's mapper reads it: registers swapped first (`isRegisterSwap`), then the bytes of each
//!   (`isSwap`), then big-endian; whole numbers without a sign.

mod external;
mod folder;
mod modbus;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use folder::{add_to, is_kubeedge};

use crate::yaml::{Complaints, Place};

/// Something that was read and has no counterpart, or means something else here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where it stands.
    pub place: Place,
    /// What it is and what became of it.
    pub text: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Place { file, line, column } = &self.place;
        write!(f, "{file}:{line}:{column}: {}", self.text)
    }
}

/// What an import made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Profile id and the text of its file.
    pub profiles: Vec<(String, String)>,
    /// `connections:` and `devices:` for `gateway.yaml`.
    pub gateway: String,
    /// Devices in it.
    pub devices: usize,
    /// What has no counterpart, in the order of the files.
    pub notes: Vec<Note>,
    /// For each of the profiles the device it was first made for.
    pub profile_places: Vec<Place>,
    /// Where each device of the list stands, in the order of the list.
    pub device_places: Vec<Place>,
}

/// Imports files (name, text).
///
/// # Errors
/// Every complaint about files that are no YAML, or none of KubeEdge's.
pub fn import(files: &[(String, String)]) -> Result<Imported, Complaints> {
    let mut complaints = Complaints::new();
    let mut notes = Vec::new();
    let objects = read::objects(files, &mut notes, &mut complaints);
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let mut imported = write::write(&objects, &mut notes);
    notes.sort_by(|left, right| left.place.cmp(&right.place));
    notes.dedup();
    imported.notes = notes;
    Ok(imported)
}
