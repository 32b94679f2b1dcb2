//! The house keeps its floors: crates import only downwards, and rooms only what stands before them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate may list of the workspace's crates.
const FLOORS: [(&str, &[&str]); 4] = [
    ("protocols", &[]),
    ("mappers", &["protocols"]),
    ("gateway", &["protocols", "mappers"]),
    ("tests", &["protocols", "mappers", "gateway"]),
];

/// Crates that do I/O, keep a clock or run tasks; `protocols` may list none of them.
const NOT_IN_PROTOCOLS: [&str; 9] =
    ["tokio", "rumqttc", "rumqttd", "rusqlite", "tokio-serial", "mio", "socket2", "chrono", "tracing-subscriber"];

/// The rooms of each crate; those on one line never import one another, and each imports only from lines before.
const ROOMS: [(&str, &[&[&str]]); 3] = [
    (
        "protocols",
        &[
            &["value", "name"],
            &["codec"],
            &["modbus", "serial", "ble"],
            &["yaml", "expr"],
            &["profile"],
            &["config"],
            &["message", "topic", "alarm"],
            &["poll", "report", "twin", "outbox", "kubeedge"],
            &["dialect"],
        ],
    ),
    (
        "mappers",
        &[
            &["clock", "link", "bus"],
            &["port"],
            &["modbus", "serial", "ble"],
            &["host", "simulate"],
            &["fleet"],
            &["samples"],
        ],
    ),
    (
        "gateway",
        &[
            &["config", "watch"],
            &["broker"],
            &["store"],
            &["twin", "bridge", "web", "kubeedge", "dmi"],
            &["gone", "supervisor"],
            &["run", "demo"],
            &["cli"],
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// The names under `[dependencies]` of a manifest (what tests use besides does not shape the house).
fn dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or("");
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn check_manifest(name: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for dependency in dependencies(manifest) {
        let ours = FLOORS.iter().any(|(floor, _)| *floor == dependency);
        if ours && !allowed.contains(&dependency.as_str()) {
            wrong.push(format!("{name} lists {dependency}, which stands above it"));
        }
        if name == "protocols" && NOT_IN_PROTOCOLS.contains(&dependency.as_str()) {
            wrong.push(format!("protocols lists {dependency}, which touches the world"));
        }
    }
    wrong
}

#[test]
fn crates_import_only_downwards() {
    for (floor, allowed) in FLOORS {
        let manifest = fs::read_to_string(root().join(floor).join("Cargo.toml")).unwrap();
        assert!(!dependencies(&manifest).is_empty(), "{floor}: no dependencies were found in its manifest");
        assert_eq!(check_manifest(floor, &manifest, allowed), Vec::<String>::new());
    }
}

/// The room a source file belongs to: its first folder or its stem below `src`.
fn room(source: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(source).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.strip_suffix(".rs").map_or(first.clone(), str::to_owned)
}

/// Whether a file holds tests of its room; they may look at other rooms.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "tests" || name.ends_with("tests.rs")
    })
}

/// Rooms that a text names: `crate::room…`, in `use` lines and in paths, outside comments and tests.
fn named_rooms(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]").next().unwrap_or(text);
    let code: Vec<&str> = product.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut rooms = Vec::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split(';').next().unwrap_or("");
            let mut depth = 0;
            let mut word = String::new();
            for letter in list.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(letter),
                    _ => {}
                }
            }
            rooms.push(word);
        } else {
            rooms.push(rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect());
        }
    }
    let first = |room: String| room.trim().split("::").next().unwrap_or("").trim().to_owned();
    rooms.into_iter().map(first).filter(|room| !room.is_empty()).collect()
}

fn check_rooms(order: &[&[&str]], room: &str, text: &str) -> Vec<String> {
    let line = |room: &str| order.iter().position(|rooms| rooms.contains(&room));
    let Some(own) = line(room) else { return vec![format!("room {room} is not in the order of rooms")] };
    let mut wrong = Vec::new();
    for named in named_rooms(text) {
        if named == room {
            continue;
        }
        if let Some(other) = line(&named)
            && other >= own
        {
            wrong.push(format!("{room} names {named}, which does not stand before it"));
        }
    }
    wrong
}

#[test]
fn rooms_import_only_what_stands_before_them() {
    for (floor, order) in ROOMS {
        let source = root().join(floor).join("src");
        let mut wrong = BTreeMap::new();
        for path in sources(&source) {
            let room = room(&source, &path);
            if room == "lib" || room == "main" || is_test(&path) {
                continue;
            }
            let found = check_rooms(order, &room, &fs::read_to_string(&path).unwrap());
            if !found.is_empty() {
                wrong.insert(path.strip_prefix(root()).unwrap().to_owned(), found);
            }
        }
        assert!(wrong.is_empty(), "{floor}: {wrong:#?}");
    }
}

#[test]
fn the_house_test_sees_what_it_is_meant_to_see() {
    let order: &[&[&str]] = &[&["value"], &["codec", "modbus"], &["twin"]];
    assert!(check_rooms(order, "twin", "use crate::codec::Layout;").is_empty());
    assert_eq!(check_rooms(order, "codec", "use crate::twin::Twin;").len(), 1);
    assert_eq!(check_rooms(order, "codec", "fn f() -> crate::modbus::Plan {}").len(), 1);
    assert_eq!(check_rooms(order, "value", "use crate::{codec::{A, B}, twin};").len(), 2);
    assert!(check_rooms(order, "codec", "// see crate::twin").is_empty());
    assert_eq!(check_rooms(order, "cellar", "").len(), 1);
    let manifest = "[package]\n\n[dependencies]\nserde.workspace = true\ntokio = \"1\"\ngateway.workspace = true\n";
    assert_eq!(check_manifest("protocols", manifest, &[]).len(), 2);
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for (floor, _) in FLOORS {
        let folder = if floor == "tests" { root().join("tests") } else { root().join(floor).join("src") };
        for path in sources(&folder) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
        }
    }
}

#[test]
fn nothing_above_the_rules_hides_unsafe_code() {
    for (floor, _) in FLOORS {
        let manifest = fs::read_to_string(root().join(floor).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{floor} does not take the workspace's lints");
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
}
