//! One profile by itself, for whoever plays it or looks for it.
//!
//! In: an id or a file, and parameters as text. Out: the profile with its defaults filled in, or every complaint. Must
//! never start from a configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::profile::{Library, Profile, Resolved, Wish};
use protocols::yaml::{Complaint, Complaints, Node, Place, read};

use super::{builtin, files, tree};

/// Finds a profile: a file if there is one of that name, else the built-in profile of that id. `params` are written
/// as in a device (`{unit: 3}`).
///
/// # Errors
/// When there is no such profile, or something is wrong with it.
pub fn profile(what: &str, params: &str) -> Result<Resolved, Vec<Complaint>> {
    let mut complaints = Complaints::new();
    let resolved = find(what, params, &mut complaints);
    match resolved {
        Some(resolved) if complaints.is_empty() => Ok(resolved),
        _ => Err(complaints.into_sorted()),
    }
}

/// What a device of a serial profile was recorded to say, from the profile's golden tests.
pub fn recordings(what: &str) -> Vec<Vec<u8>> {
    let mut complaints = Complaints::new();
    let mut library = builtin::library();
    let path = Path::new(what);
    let own = path.is_file().then(|| library.add_tree(tree(path, &mut complaints)?, false, &mut complaints)).flatten();
    library.recordings(own.as_deref().unwrap_or(what))
}

fn find(what: &str, params: &str, complaints: &mut Complaints) -> Option<Resolved> {
    let mut library = builtin::library();
    let path = Path::new(what);
    let id =
        if path.is_file() { library.add_tree(tree(path, complaints)?, false, complaints)? } else { what.to_owned() };
    let params = if params.is_empty() { None } else { read("command line", params, complaints) };
    resolve(&mut library, &id, params.as_ref(), complaints)
}

fn resolve(library: &mut Library, id: &str, params: Option<&Node>, complaints: &mut Complaints) -> Option<Resolved> {
    let place = Place { file: "command line".into(), line: 1, column: 1 };
    let wish = Wish { profile: id, place: &place, params, over: None, is_unsafe: false };
    library.resolve(&wish, complaints)
}

/// The profiles that say how their device is recognised, the built-in ones and those of these folders.
pub(super) fn probes(folders: &[PathBuf]) -> Vec<Arc<Profile>> {
    let mut library = builtin::library();
    // What is wrong with a file was told when the configuration was read; such a profile is not tried.
    let mut told = Complaints::new();
    for file in folders.iter().flat_map(|folder| files::yaml_files(folder, &mut told)).collect::<Vec<_>>() {
        if let Some(tree) = tree(&file, &mut told) {
            library.add_tree(tree, false, &mut told);
        }
    }
    let ids: Vec<String> = library.ids().map(str::to_owned).collect();
    let mut resolve = |id: &String| resolve(&mut library, id, None, &mut Complaints::new());
    let profiles = ids.iter().filter_map(|id| Some(resolve(id)?.profile));
    let mut probes: Vec<Arc<Profile>> = profiles.filter(|profile| profile.probe.is_some()).collect();
    probes.extend(library.air().profiles().iter().cloned());
    probes
}
