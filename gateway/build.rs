//! Writes the list of the profiles that are built in: every `configs/profiles/*.yaml`, so that adding one needs no Rust.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let folder = Path::new(&root).join("../configs/profiles");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.file_name().expect("it came from a folder").to_string_lossy();
        writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string()).expect("a String takes all");
    }
    list.push_str("]\n");
    fs::write(Path::new(&out).join("profiles.rs"), list).expect("the build folder can be written");
}
