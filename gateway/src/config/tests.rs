//! Installations on a disk: what is found, what is missing, what is watched.

use std::fs;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Complaints with this folder's path left out.
    fn shown(&self, complaints: &[Complaint]) -> String {
        let here = format!("{}/", self.0.path().display());
        complaints.iter().map(|complaint| format!("{complaint}\n").replace(&here, "")).collect()
    }
}

const GATEWAY: &str = "schema: 1\ngateway: {id: g}\nprofiles: [profiles]\nbroker: {users: users.yaml}\nconnections: {bus: {modbus: {tcp: \"127.0.0.1:1502\"}}}\ndevices: [{id: a, profile: my.relay, connection: bus}]\n";
const USERS: &str = "schema: 1\nusers: [{name: m, certificate: \"CN=m\", role: mapper}]\n";
const RELAY: &str = "schema: 1\nid: my.relay\nversion: 1.0.0\nmeta: {vendor: A, model: B}\nproperties:\n  on: {type: bool, access: rw, from: {modbus: {table: coil, address: 0}}}\ntests:\n  - {name: on, input: {modbus: {coil: {\"0x0000\": [1]}}}, expect: {on: true}}\n";

#[test]
fn an_installation_is_read_from_its_folder_and_knows_what_to_watch() {
    let folder = Folder::new(&[
        ("gateway.yaml", GATEWAY),
        ("users.yaml", USERS),
        ("profiles/deep/relay.yml", RELAY),
        ("profiles/notes.txt", "x"),
    ]);
    let loaded =
        load(&folder.path("gateway.yaml")).unwrap_or_else(|complaints| panic!("{}", folder.shown(&complaints)));
    assert_eq!(loaded.config.devices[0].profile.label(), "my.relay@1.0.0");
    assert!(loaded.users.find("m").is_some());
    assert_eq!(loaded.warnings, []);
    let expected = ["gateway.yaml", "profiles", "profiles/deep/relay.yml", "users.yaml"].map(|name| folder.path(name));
    assert_eq!(loaded.files, expected);
    assert_eq!(loaded.path("data"), folder.path("data"));
}

#[test]
fn what_is_missing_is_told_where_it_is_named() {
    let text = GATEWAY.replace(
        "{users: users.yaml}",
        "{users: users.yaml, listeners: [{name: l, bind: \"127.0.0.1:0\", tls: {cert: a.crt, key: a.key}}]}",
    );
    let folder = Folder::new(&[("gateway.yaml", &text)]);
    let complaints = load(&folder.path("gateway.yaml")).unwrap_err();
    assert_eq!(
        folder.shown(&complaints),
        "gateway.yaml:3:12: there is no folder profiles\n  make it, or take it out of the list\n\
         gateway.yaml:4:17: there is no file users.yaml\n  paths count from the folder of this file\n\
         gateway.yaml:4:84: there is no file a.crt\n  paths count from the folder of this file\n\
         gateway.yaml:4:96: there is no file a.key\n  paths count from the folder of this file\n\
         gateway.yaml:6:28: there is no profile \"my.relay\"\n  searched: the built-in profiles, profiles\n"
    );
    let complaints = load(&folder.path("none.yaml")).unwrap_err();
    assert!(folder.shown(&complaints).starts_with("none.yaml: cannot be read: No such file"), "{complaints:?}");
}

#[test]
fn a_check_tells_files_apart_and_runs_the_profiles_tests() {
    let wrong = RELAY.replace("my.relay", "my.wrong").replace("expect: {on: true}", "expect: {on: false}");
    let child = "schema: 1\nid: my.child\nversion: 1.0.0\nextends: [my.relay]\n";
    let folder = Folder::new(&[
        ("gateway.yaml", GATEWAY),
        ("users.yaml", USERS),
        ("profiles/relay.yaml", RELAY),
        ("more/wrong.yaml", &wrong),
        ("child/relay.yaml", RELAY),
        ("child/child.yaml", child),
        ("odd.yaml", "schema: 1\nthing: 2\n"),
    ]);
    let check = |names: &[&str]| check_paths(&names.iter().map(|name| folder.path(name)).collect::<Vec<_>>());
    let report = check(&["gateway.yaml"]);
    assert_eq!((report.is_ok(), report.files, report.passed), (true, 3, 1), "{}", report.to_text());
    assert_eq!(report.to_json()["tests"]["passed"], 1);
    assert!(report.to_text().ends_with("ok: 3 files looked at, 0 errors, 0 warnings; tests: 1 passed, 0 failed\n"));

    let report = check(&["more"]);
    assert_eq!((report.is_ok(), report.passed, report.failed.len()), (false, 0, 1));
    assert_eq!(
        serde_json::to_string(&report.to_json()["tests"]["failed"]).unwrap(),
        r#"[{"expected":false,"got":true,"profile":"my.wrong","property":"on","test":"on"}]"#
    );
    assert!(report.to_text().starts_with("my.wrong: test \"on\": on\n  expected false, got true\n"));

    // A profile finds the one it extends in its own folder, though only it was named.
    let report = check(&["child/child.yaml"]);
    assert_eq!((report.is_ok(), report.files), (true, 1), "{}", report.to_text());

    let report = check(&["odd.yaml", "none"]);
    assert_eq!(report.errors.len(), 2);
    let error = &report.to_json()["errors"][1];
    assert_eq!((&error["line"], &error["column"]), (&1.into(), &1.into()));
    assert_eq!(error["message"], "this is neither a gateway file, a profile nor a users file");
}

#[test]
fn what_this_version_does_not_serve_is_a_warning_and_no_error() {
    let text = "schema: 1\ngateway: {id: g}\nconnections: {gps: {serial: {port: /dev/b}}, radio: {ble: {}}}\nweb: {bind: \"127.0.0.1:8080\"}\n";
    let folder = Folder::new(&[("gateway.yaml", text)]);
    let report = check_paths(&[folder.path("gateway.yaml")]);
    let json = report.to_json();
    assert_eq!((report.is_ok(), &json["ok"]), (true, &true.into()), "{}", report.to_text());
    let places: Vec<_> =
        report.warnings.iter().map(|warning| (warning.line, warning.column, warning.message.as_str())).collect();
    assert_eq!(places, [(4, 1, "this version does not serve the web page yet"),]);
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1));
    assert!(report.to_text().contains("gateway.yaml:4:1: warning: this version does not serve the web page yet"));
    assert_eq!(load(&folder.path("gateway.yaml")).map(|loaded| loaded.warnings.len()).ok(), Some(1));
}

#[test]
fn our_own_profiles_raise_no_doubts_wherever_they_lie() {
    let files: Vec<(String, &str)> = PROFILES.iter().map(|(name, text)| (format!("profiles/{name}"), *text)).collect();
    let mut files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    files.push(("gateway.yaml", "schema: 1\ngateway: {id: g}\nprofiles: [profiles]\n"));
    let folder = Folder::new(&files);
    let report = check_paths(&[folder.path("gateway.yaml")]);
    assert_eq!((folder.shown(&report.errors), folder.shown(&report.warnings)), (String::new(), String::new()));
}

#[test]
fn a_scan_tries_the_built_in_profiles_and_those_of_the_folders() {
    let relay = format!("{RELAY}probe: {{modbus: {{table: coil, address: 0}}}}\n");
    let folder = Folder::new(&[
        ("gateway.yaml", GATEWAY),
        ("users.yaml", USERS),
        ("profiles/relay.yaml", &relay),
        ("profiles/other.yaml", &RELAY.replace("my.relay", "my.silent")),
    ]);
    let loaded = load(&folder.path("gateway.yaml")).unwrap();
    let ids: Vec<String> = (loaded.probes())().iter().map(|profile| profile.id.clone()).collect();
    assert!(ids.iter().any(|id| id == "my.relay") && ids.iter().any(|id| id == "abb.b23"), "{ids:?}");
    assert!(!ids.iter().any(|id| id == "my.silent"), "it has no probe");
}

#[test]
fn files_that_are_no_text_or_too_large_are_refused() {
    let folder = Folder::new(&[("big.yaml", &"#".repeat(protocols::yaml::FILE_BYTES + 1))]);
    fs::write(folder.path("latin.yaml"), b"schema: 1\nid: \xe4\n").unwrap();
    for (name, expected) in [
        ("big.yaml", "big.yaml: the file has 1048577 bytes, more than the 1048576 that are read\n  split it\n"),
        ("latin.yaml", "latin.yaml: the file is not UTF-8 from line 2 on\n  save it as UTF-8\n"),
    ] {
        assert_eq!(folder.shown(&load(&folder.path(name)).unwrap_err()), expected);
    }
}

#[test]
fn every_built_in_profile_passes_its_own_check_and_has_tests() {
    let library = builtin::library();
    assert_eq!(library.ids().count(), PROFILES.len(), "ids are unique and every file has one");
    for (name, text) in PROFILES {
        let id = name.strip_suffix(".yaml").unwrap();
        assert!(text.contains(&format!("\nid: {id}\n")), "{name} is not called after its id");
    }
    for id in library.ids() {
        let mut complaints = Complaints::new();
        library.check(id, &mut complaints);
        assert_eq!(complaints.into_sorted(), [], "{id}");
        let outcome = library.test(id);
        assert_eq!(outcome.failed, [], "{id}");
        assert!(outcome.passed > 0, "{id} has no golden tests");
    }
}

#[test]
fn a_secret_that_is_not_there_is_an_error_and_one_that_everybody_reads_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let text = "schema: 1\ngateway: {id: g}\nupstream:\n  - {name: c, dialect: plain, url: \"mqtt://h\", password_file: secret}\n";
    let folder = Folder::new(&[("gateway.yaml", text)]);
    let report = check_paths(&[folder.path("gateway.yaml")]);
    assert!(folder.shown(&report.errors).starts_with("gateway.yaml:4:63: there is no file "), "{}", report.to_text());
    let secret = folder.path("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    for (mode, warnings) in [(0o644, 1), (0o640, 0), (0o600, 0)] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        let report = check_paths(&[folder.path("gateway.yaml")]);
        assert!(report.is_ok(), "{}", report.to_text());
        assert_eq!(report.warnings.len(), warnings, "{mode:o}: {}", report.to_text());
        assert!(!report.to_text().contains("hunter2"));
    }
}
