//! The files of an installation: found, read, and handed to `protocols::config`, which knows what they mean.
//!
//! In: the path of `gateway.yaml`, or of anything `tidegate check` is given. Out: a [`Loaded`] installation or every
//! complaint at once; which files to watch. Must never decide what a file means, and never start anything.

mod builtin;
mod check;
mod cluster;
mod files;
mod one;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use builtin::PROFILES;
pub use check::{CheckReport, check_paths};
use cluster::Cluster;
use mappers::port::Probes;
pub use one::{profile, recordings};
use protocols::config::users::Users;
use protocols::config::{self, Config, Wire};
use protocols::profile::Library;
use protocols::yaml::{Complaint, Complaints, Node, Place, read};

/// The file that is taken when none is named.
pub const DEFAULT_FILE: &str = "gateway.yaml";

/// An installation that was read and checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// The users; nobody when the file names no users file.
    pub users: Users,
    /// What is allowed and yet may not be what was meant.
    pub warnings: Vec<Complaint>,
    /// The files and folders it was read from, `gateway.yaml` first: what to watch for changes.
    pub files: Vec<PathBuf>,
    /// The folder that paths inside the file are relative to.
    pub folder: PathBuf,
    /// The folders with profiles, or with Kubernetes files that are taken for profiles and devices.
    pub profiles: Vec<PathBuf>,
}

impl Loaded {
    /// A path as written in the file, from where this process stands.
    pub fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written)
    }

    /// The profiles that a scan tries to recognise, read anew whenever it is called.
    pub fn probes(&self) -> Probes {
        let folders = self.profiles.clone();
        Arc::new(move || one::probes(&folders))
    }
}

/// Reads an installation.
///
/// # Errors
/// Every complaint there is, sorted by file and line.
pub fn load(path: &Path) -> Result<Loaded, Vec<Complaint>> {
    let mut complaints = Complaints::new();
    let loaded = load_into(path, &mut complaints).map(|(loaded, _)| loaded);
    match loaded {
        Some(loaded) if complaints.is_empty() => Ok(loaded),
        _ => Err(complaints.into_sorted()),
    }
}

/// As [`load`], with the library, so that `check` can run its tests.
fn load_into(path: &Path, complaints: &mut Complaints) -> Option<(Loaded, Library)> {
    let mut tree = tree(path, complaints)?;
    let mut cluster = Cluster::default();
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut warnings = Complaints::new();
    let mut files = vec![path.to_path_buf()];
    let mut folders = Vec::new();
    let mut library = builtin::library();
    for (written, place) in config::folders(&tree) {
        let profiles = folder.join(written);
        library.searched(profiles.display().to_string());
        if !profiles.is_dir() {
            complaints.add(
                place,
                format!("there is no folder {}", profiles.display()),
                "make it, or take it out of the list",
            );
            continue;
        }
        files.push(profiles.clone());
        for file in files::yaml_files(&profiles, complaints) {
            if let Some(tree) = cluster.sort(&file, complaints) {
                library.add_tree(tree, false, complaints);
            }
            files.push(file);
        }
        folders.push(profiles);
    }
    for profile in cluster.join(Some(&mut tree), &mut warnings, complaints) {
        library.add_tree(profile, false, complaints);
    }
    for id in library.own_ids().map(str::to_owned).collect::<Vec<_>>() {
        library.check(&id, complaints);
        library.doubts(&id, &mut warnings);
    }
    for (written, place) in config::named_files(&tree) {
        if !folder.join(written).is_file() {
            let message = format!("there is no file {}", folder.join(written).display());
            complaints.add(place, message, "paths count from the folder of this file");
        }
    }
    for (written, place) in config::secret_files(&tree) {
        secret(&folder.join(written), place, &mut warnings, complaints);
    }
    let config = config::gateway(&tree, &mut library, &mut warnings, complaints);
    let users = tree.find(&["broker", "users"]).and_then(Node::text).map(|written| folder.join(written));
    let users = match users.filter(|file| file.is_file()) {
        Some(file) => {
            let users = self::tree(&file, complaints).and_then(|tree| config::users::read(&tree, complaints));
            files.push(file);
            users
        }
        None => Some(Users::default()),
    };
    if let Some(entry) = tree.find(&["compat", "kubeedge"]).and_then(|kubeedge| kubeedge.entry("dmi"))
        && !cfg!(feature = "dmi")
    {
        let message = "this program was built without the device mapper interface";
        complaints.add(&entry.key_place, message, "build it with --features dmi, or leave dmi out");
    }
    let mut config = config?;
    settle_ports(&mut config, &folder);
    let warnings = warnings.into_sorted();
    Some((Loaded { config, users: users?, warnings, files, folder, profiles: folders }, library))
}

/// A secret has to be readable for us, and should be for nobody else.
fn secret(path: &Path, place: &Place, warnings: &mut Complaints, complaints: &mut Complaints) {
    // one that is not there was complained about with the other files
    let Ok(metadata) = path.metadata() else { return };
    if let Err(error) = std::fs::File::open(path) {
        let hint = "the user this runs as must be allowed to read it";
        complaints.add(place, format!("{} cannot be read: {error}", path.display()), hint);
    } else if metadata.permissions().mode() & 0o004 != 0 {
        let message = format!("everybody on this machine may read {}", path.display());
        warnings.add(place, message, format!("chmod o-r {}", path.display()));
    }
}

/// Serial ports and files named without a leading `/` lie in the folder of the file, like every other path in it.
fn settle_ports(config: &mut Config, folder: &Path) {
    let settle = |path: &mut String| *path = folder.join(&*path).display().to_string();
    for connection in config.connections.values_mut() {
        match &mut Arc::make_mut(connection).wire {
            Wire::Serial { port, .. } | Wire::AsciiSerial { port, .. } => settle(port),
            Wire::Tls(wire) => {
                settle(&mut wire.ca);
                if let Some((chain, key)) = &mut wire.client {
                    settle(chain);
                    settle(key);
                }
            }
            _ => {}
        }
    }
}

/// Reads one file to a tree.
fn tree(path: &Path, complaints: &mut Complaints) -> Option<Node> {
    let text = files::text(path, complaints)?;
    read(&path.display().to_string(), &text, complaints)
}

#[cfg(test)]
mod tests;
