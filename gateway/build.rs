//! Writes the list of the profiles that are built in: every `configs/profiles/*.yaml`, so that adding one needs no Rust.
//! And asks for packed relocations where they can be had: pages of the binary are most of what an idle gateway holds.
//! With the feature `dmi`, also the code for `proto/dmi.proto`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
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
    if takes_packed_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    #[cfg(feature = "dmi")]
    interface(Path::new(&root));
}

/// The first glibc whose loader reads packed relocations (DT_RELR).
const PACKED_SINCE: (u32, u32) = (2, 36);

/// Whether the program is built for the very system it is built on, and that one's loader reads them. A program for
/// another system goes without: it is a few hundred KiB larger in memory, and starts everywhere.
fn takes_packed_relocations() -> bool {
    let var = |name: &str| env::var(name).unwrap_or_default();
    if var("HOST") != var("TARGET") || var("CARGO_CFG_TARGET_ENV") != "gnu" || var("CARGO_CFG_TARGET_OS") != "linux" {
        return false;
    }
    // says "glibc 2.36"
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let mut numbers = said.trim().trim_start_matches("glibc ").split('.').map_while(|number| number.parse().ok());
    let (major, minor) = (numbers.next(), numbers.next());
    major.zip(minor).is_some_and(|version| version >= PACKED_SINCE)
}

/// Makes the messages and services of KubeEdge's device mapper interface. Nothing has to be installed for it.
#[cfg(feature = "dmi")]
fn interface(root: &Path) {
    let folder = root.join("proto");
    let file = folder.join("dmi.proto");
    println!("cargo::rerun-if-changed={}", file.display());
    let described = protox::compile([&file], [&folder]).expect("proto/dmi.proto is sound");
    // Maps in order: what is said of a device is compared as bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds(described).expect("the build folder can be written");
}
