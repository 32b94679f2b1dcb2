//! Every profile that ships is right by itself, passes its goldens, and keeps the project's own habits.

use std::collections::BTreeSet;
use std::path::Path;

use protocols::profile::Library;
use protocols::yaml::Complaints;

/// A file of the repository, by its path from the root.
fn text_of(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Name and text of every shipped profile.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/profiles");
    let entries = std::fs::read_dir(folder).expect("the repository has configs/profiles");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut files: Vec<_> = names
        .filter(|name| name.ends_with(".yaml"))
        .map(|name| {
            let text = text_of(&format!("configs/profiles/{name}"));
            (name, text)
        })
        .collect();
    files.sort();
    files
}

fn library() -> Library {
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    for (name, text) in files() {
        let id = library.add(&name, &text, true, &mut complaints);
        assert_eq!(id.map(|id| format!("{id}.yaml")), Some(name), "a file is called like its profile");
    }
    for id in library.ids() {
        library.check(id, &mut complaints);
    }
    let complaints: String = complaints.into_sorted().iter().map(|complaint| format!("{complaint}\n")).collect();
    assert_eq!(complaints, "");
    library
}

#[test]
fn every_shipped_profile_checks_and_passes_its_goldens() {
    let library = library();
    let mut passed = 0;
    for id in library.ids() {
        let outcome = library.test(id);
        assert_eq!(outcome.failed, Vec::new(), "{id}");
        assert!(outcome.passed >= 2, "{id} has {} goldens that run", outcome.passed);
        passed += outcome.passed;
    }
    assert!(passed >= 120, "only {passed} goldens ran");
}

#[test]
fn the_devices_people_were_promised_are_there() {
    let library = library();
    let ids: BTreeSet<&str> = library.ids().collect();
    for id in [
        "abb.b23",
        "bthome.button",
        "bthome.contact",
        "bthome.energy",
        "bthome.environment",
        "bthome.motion",
        "chint.dtsu666",
        "dfrobot.a02yyuw",
        "dsmr.p1",
        "dzg.dvh4013",
        "eastron.sdm120",
        "eastron.sdm230",
        "eastron.sdm630",
        "eastron.sdm72",
        "ela.blue_puck",
        "generic.ascii_scale",
        "generic.eddystone",
        "generic.gatt_thermometer",
        "generic.ibeacon",
        "generic.iec62056_21",
        "generic.nmea0183-gps",
        "generic.sml_meter",
        "govee.thermometer",
        "inkbird.thermometer",
        "janitza.b23",
        "maxbotix.hrxl",
        "novafitness.sds011",
        "orno.we_514",
        "orno.we_516",
        "peacefair.pzem_016",
        "peacefair.pzem_017",
        "plantower.pms5003",
        "pvvx.thermometer",
        "ruuvi.tag",
        "schneider.iem3000",
        "senseair.s8",
        "sensirion.sht4x_gadget",
        "siemens.pac2200",
        "sunspec.inverter",
        "switchbot.meter",
        "thermopro.tp357",
        "tidegate.demo_boiler",
        "waveshare.relay_8",
        "winsen.mhz19",
        "xiaomi.thermometer",
        "xy.md02",
    ] {
        assert!(ids.contains(id), "{id}");
    }
}

#[test]
fn every_shipped_profile_names_its_sources_and_its_numbers_units() {
    for (name, text) in files() {
        assert!(text.starts_with("# "), "{name} begins with a comment that names where its facts come from");
        for line in text.lines().filter(|line| line.contains("class: ") && line.contains("type: number")) {
            assert!(line.contains("unit: ") || line.contains("class: power_factor"), "{name}: {line}");
        }
        for line in text.lines().filter(|line| line.contains("class: energy") && line.contains("from: ")) {
            assert!(line.contains("counter: "), "{name}: an energy only counts up: {line}");
        }
    }
}

#[test]
fn the_sample_configuration_is_right() {
    let read = |name: &str, complaints: &mut Complaints| {
        protocols::yaml::read(name, &text_of(&format!("configs/{name}")), complaints).unwrap()
    };
    let (mut complaints, mut warnings) = (Complaints::new(), Complaints::new());
    let gateway = read("gateway.yaml", &mut complaints);
    let config = protocols::config::gateway(&gateway, &mut library(), &mut warnings, &mut complaints);
    let users = protocols::config::users::read(&read("users.yaml", &mut complaints), &mut complaints);
    complaints.extend(warnings);
    let complaints: String = complaints.into_sorted().iter().map(|complaint| format!("{complaint}\n")).collect();
    assert_eq!(complaints, "");
    assert_eq!(config.map(|config| config.devices.len()), Some(5));
    assert_eq!(users.map(|users| users.users.len()), Some(4));
}

#[test]
fn the_sample_of_every_cloud_is_right() {
    for name in ["aws", "azure", "homeassistant", "kubeedge", "plain", "thingsboard"] {
        let (mut complaints, mut warnings) = (Complaints::new(), Complaints::new());
        let file = format!("upstream-{name}.yaml");
        let tree = protocols::yaml::read(&file, &text_of(&format!("configs/{file}")), &mut complaints).unwrap();
        protocols::config::gateway(&tree, &mut library(), &mut warnings, &mut complaints);
        let complaints: String = complaints.into_sorted().iter().map(|complaint| format!("{complaint}\n")).collect();
        assert_eq!(complaints, "", "{file}");
    }
}

#[test]
fn the_worked_meter_of_the_reference_is_right() {
    let text = text_of("docs/profile.md");
    let meter = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    library.add("acme.em100.yaml", meter, false, &mut complaints);
    library.check("acme.em100", &mut complaints);
    assert_eq!(complaints.into_sorted(), []);
    let outcome = library.test("acme.em100");
    assert_eq!((outcome.passed, outcome.failed), (2, Vec::new()));
}
