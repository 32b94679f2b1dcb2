//! What `tidegate check` does: look at files of any kind, and run the profiles' own tests.
//!
//! In: files and folders. Out: a [`CheckReport`], as text or JSON. Must never change a file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use protocols::config::{self, FileKind};
use protocols::profile::Library;
use protocols::profile::golden::Failure;
use protocols::yaml::{Complaint, Complaints, Node};
use serde_json::{Value, json};

use super::{Cluster, DEFAULT_FILE, builtin, files, load_into, tree};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// What is wrong, by file and line.
    pub errors: Vec<Complaint>,
    /// What is allowed and yet may not be what was meant.
    pub warnings: Vec<Complaint>,
    /// Golden tests without a difference.
    pub passed: usize,
    /// The differences of golden tests.
    pub failed: Vec<Failure>,
    /// Files that were looked at.
    pub files: usize,
}

impl CheckReport {
    /// Whether nothing is wrong and no test failed.
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty() && self.failed.is_empty()
    }

    /// The report as the contract, section 6, has it, with `warnings` besides.
    pub fn to_json(&self) -> Value {
        json!({
            "ok": self.is_ok(),
            "errors": self.errors,
            "warnings": self.warnings,
            "tests": {"passed": self.passed, "failed": self.failed},
        })
    }

    /// The report for people: one paragraph for each finding, and a line that sums up.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for error in &self.errors {
            push(&mut text, error.to_string());
        }
        for warning in &self.warnings {
            let message = format!("warning: {}", warning.message);
            push(&mut text, Complaint { message, ..warning.clone() }.to_string());
        }
        for Failure { profile, test, property, expected, got } in &self.failed {
            let what = if property.is_empty() { String::new() } else { format!(": {property}") };
            push(&mut text, format!("{profile}: test \"{test}\"{what}\n  expected {expected}, got {got}"));
        }
        let failed: BTreeSet<_> = self.failed.iter().map(|failure| (&failure.profile, &failure.test)).collect();
        let verdict = if self.is_ok() { "ok" } else { "not ok" };
        push(
            &mut text,
            format!(
                "{verdict}: {} looked at, {}, {}; tests: {} passed, {} failed",
                count(self.files, "file"),
                count(self.errors.len(), "error"),
                count(self.warnings.len(), "warning"),
                self.passed,
                failed.len(),
            ),
        );
        text
    }

    fn test(&mut self, library: &Library, id: &str) {
        let outcome = library.test(id);
        self.passed += outcome.passed;
        self.failed.extend(outcome.failed);
    }
}

fn push(text: &mut String, paragraph: String) {
    writeln!(text, "{paragraph}").expect("a String takes all");
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Checks files and folders; with none, `gateway.yaml` here if there is one, else the built-in profiles.
pub fn check_paths(paths: &[PathBuf]) -> CheckReport {
    let mut check = Check::default();
    match (paths, Path::new(DEFAULT_FILE).is_file()) {
        ([], true) => check.file(Path::new(DEFAULT_FILE)),
        ([], false) => check.built_in(),
        (paths, _) => {
            for path in paths {
                check.path(path);
            }
            check.profiles();
        }
    }
    let Check { mut report, complaints, mut warnings, .. } = check;
    report.errors = complaints.into_sorted();
    for warning in std::mem::take(&mut report.warnings) {
        warnings.push(warning);
    }
    report.warnings = warnings.into_sorted();
    report
}

#[derive(Default)]
struct Check {
    report: CheckReport,
    complaints: Complaints,
    warnings: Complaints,
    /// Profiles are checked together at the end, because they may extend one another.
    profiles: Vec<(PathBuf, Node)>,
    cluster: Cluster,
    tested: BTreeSet<String>,
}

impl Check {
    fn path(&mut self, path: &Path) {
        if !path.is_dir() {
            return self.file(path);
        }
        let found = files::yaml_files(path, &mut self.complaints);
        if found.is_empty() {
            let name = path.display().to_string();
            self.complaints.push(Complaint::about_file(
                &name,
                "there is no YAML file in this folder",
                "name another one",
            ));
        }
        for file in found {
            self.file(&file);
        }
    }

    fn file(&mut self, path: &Path) {
        self.report.files += 1;
        let Some(tree) = self.cluster.sort(path, &mut self.complaints) else { return };
        match config::kind_of(&tree) {
            Some(FileKind::Gateway) => self.gateway(path),
            Some(FileKind::Users) => drop(config::users::read(&tree, &mut self.complaints)),
            Some(FileKind::Network) => drop(config::network::read(&tree, &mut self.complaints)),
            Some(FileKind::Profile) => self.profiles.push((path.to_path_buf(), tree)),
            None => {
                let hint = "a gateway file has the key gateway, a profile properties, a users file users";
                self.complaints.add(&tree.place, "this is neither a gateway file, a profile nor a users file", hint);
            }
        }
    }

    fn gateway(&mut self, path: &Path) {
        // What is wrong with the file itself was complained about when it was read the first time.
        let Some((loaded, library)) = load_into(path, &mut self.complaints) else { return };
        self.report.files += loaded.files.iter().skip(1).filter(|file| file.is_file()).count();
        for warning in loaded.warnings {
            self.warnings.push(warning);
        }
        for id in library.own_ids() {
            if self.tested.insert(id.to_owned()) {
                self.report.test(&library, id);
            }
        }
    }

    fn profiles(&mut self) {
        let cluster = std::mem::take(&mut self.cluster);
        for tree in cluster.join(None, &mut self.warnings, &mut self.complaints) {
            self.profiles.push((PathBuf::from(tree.place.file.as_ref()), tree));
        }
        if self.profiles.is_empty() {
            return;
        }
        let mut library = builtin::library();
        let mut ids = Vec::new();
        let named: BTreeSet<PathBuf> = self.profiles.iter().filter_map(|(path, _)| path.canonicalize().ok()).collect();
        for (_, tree) in &self.profiles {
            ids.extend(library.add_tree(tree.clone(), false, &mut self.complaints));
        }
        self.neighbours(&mut library, &named);
        for id in &ids {
            library.check(id, &mut self.complaints);
            library.doubts(id, &mut self.warnings);
            if self.tested.insert(id.clone()) {
                self.report.test(&library, id);
            }
        }
    }

    /// A profile may extend another of its folder that was not named; that one is known, but not checked.
    fn neighbours(&self, library: &mut Library, named: &BTreeSet<PathBuf>) {
        let folders: BTreeSet<PathBuf> =
            self.profiles.iter().filter_map(|(path, _)| Some(path.parent()?.to_path_buf())).collect();
        for folder in folders {
            let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
            library.searched(folder.display().to_string());
            let mut ignored = Complaints::new();
            for file in files::yaml_files(&folder, &mut ignored) {
                if file.canonicalize().is_ok_and(|file| named.contains(&file)) {
                    continue;
                }
                let Some(tree) = tree(&file, &mut ignored) else { continue };
                let id = tree.get("id").and_then(Node::text).unwrap_or_default();
                let is_known = library.own_ids().any(|own| own == id);
                if config::kind_of(&tree) == Some(FileKind::Profile) && !is_known {
                    library.add_tree(tree, false, &mut ignored);
                }
            }
        }
    }

    fn built_in(&mut self) {
        let library = builtin::library();
        self.report.files = builtin::PROFILES.len();
        for id in library.ids() {
            library.check(id, &mut self.complaints);
            self.report.test(&library, id);
        }
    }
}
