//! Files and folders, with bounds.
//!
//! In: paths. Out: text and lists. Must never read a file of any size, and never run in circles of links.

use std::fs;
use std::path::{Path, PathBuf};

use protocols::yaml::{Complaint, Complaints, FILE_BYTES};

/// Folders inside a folder of profiles are searched to this depth; deeper ones are left out.
const DEPTH_LEVELS: usize = 4;

/// Files taken from one folder of profiles; more is an error.
const FILES: usize = 5_000;

/// The text of a file.
pub(super) fn text(path: &Path, complaints: &mut Complaints) -> Option<String> {
    let name = path.display().to_string();
    let mut complain = |message: String, hint: &str| complaints.push(Complaint::about_file(&name, message, hint));
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES as u64 => {
            complain(
                format!("the file has {} bytes, more than the {FILE_BYTES} that are read", metadata.len()),
                "split it",
            );
            return None;
        }
        Ok(metadata) if !metadata.is_file() => {
            complain("this is no file".to_owned(), "name a file");
            return None;
        }
        Ok(_) => {}
        Err(error) => {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "look at the spelling, and at the folder you are in",
                std::io::ErrorKind::PermissionDenied => "the user this runs as must be allowed to read it",
                _ => "",
            };
            complain(format!("cannot be read: {error}"), hint);
            return None;
        }
    }
    match fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => Some(text),
        Ok(Err(error)) => {
            let bytes = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            complain(format!("the file is not UTF-8 from line {line} on"), "save it as UTF-8");
            None
        }
        Err(error) => {
            complain(format!("cannot be read: {error}"), "");
            None
        }
    }
}

/// The YAML files of a folder and the folders inside, by name. Hidden ones are left out.
pub(super) fn yaml_files(folder: &Path, complaints: &mut Complaints) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, DEPTH_LEVELS, &mut files, complaints);
    files.sort();
    if files.len() > FILES {
        let name = folder.display().to_string();
        complaints.push(Complaint::about_file(&name, format!("more than {FILES} files"), "name a smaller folder"));
        files.truncate(FILES);
    }
    files
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, complaints: &mut Complaints) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let name = folder.display().to_string();
            complaints.push(Complaint::about_file(&name, format!("cannot be read: {error}"), ""));
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if is_hidden || files.len() > FILES {
            continue;
        }
        if path.is_dir() {
            if depth > 1 {
                collect(&path, depth - 1, files, complaints);
            }
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
}
