//! Profiles as people feed them to the program: worked examples, mistakes, merging. The examples are the project's
//! published ones; expected values of their goldens come from data sheets and recordings named in the files.

use super::*;
use crate::yaml::{Complaint, Complaints, Node, Place, read};

const SDM630: &str = include_str!("../../../tests/data/profiles/eastron-sdm630.yaml");
const BTHOME: &str = include_str!("../../../tests/data/profiles/bthome-env.yaml");
const NMEA: &str = include_str!("../../../tests/data/profiles/nmea-gps.yaml");

/// The first four lines of a small profile; what a test adds begins in line 5.
const HEAD: &str = "schema: 1\nid: a.b\nversion: 1.0.0\nmeta: {vendor: A, model: B}\n";

fn library(files: &[&str]) -> (Library, Complaints) {
    let mut library = Library::new();
    library.searched("the built-in profiles");
    library.searched("profiles");
    let mut complaints = Complaints::new();
    for (index, text) in files.iter().enumerate() {
        library.add(&format!("{index}.yaml"), text, false, &mut complaints);
    }
    (library, complaints)
}

fn check(files: &[&str]) -> Vec<Complaint> {
    let (library, mut complaints) = library(files);
    for id in library.ids() {
        library.check(id, &mut complaints);
    }
    complaints.into_sorted()
}

fn shown(complaints: &[Complaint]) -> String {
    complaints.iter().map(|complaint| format!("{complaint}\n")).collect()
}

fn tree(text: &str) -> Node {
    read("gateway.yaml", text, &mut Complaints::new()).unwrap()
}

/// Resolves for a device with these `params` and this `override`.
fn resolve(library: &mut Library, profile: &str, device: &str) -> Result<Resolved, String> {
    let place = Place { file: "gateway.yaml".into(), line: 9, column: 9 };
    let device = tree(device);
    let wish = Wish {
        profile,
        place: &place,
        params: device.get("params"),
        over: device.get("override"),
        is_unsafe: device.get("unsafe").is_some(),
    };
    let mut complaints = Complaints::new();
    library.resolve(&wish, &mut complaints).ok_or_else(|| shown(&complaints.into_sorted()))
}

#[test]
fn the_worked_examples_pass() {
    let files = [SDM630, BTHOME, NMEA];
    assert_eq!(shown(&check(&files)), "");
    let (library, _) = library(&files);
    for (id, passed) in [("eastron.sdm630", 3), ("bthome.environment", 5), ("generic.nmea0183-gps", 5)] {
        let outcome = library.test(id);
        assert_eq!((outcome.passed, outcome.failed), (passed, Vec::new()), "{id}");
    }
}

#[test]
fn a_mistake_is_told_with_its_place_and_what_would_be_right() {
    let mut wrong = Vec::new();
    let one = "properties:\n  p: {type: int, from: {modbus: {table: holding, address: 1}}}\n";
    let from = "from: {modbus: {table: holding, address: 1}}";
    for (body, expected) in [
        (format!("{one}grops: {{}}\n"), "0.yaml:7:1: unknown key \"grops\"\n  did you mean \"groups\"? known here: alarms, ble, commands, computed, extends, external, groups, id, init, meta, modbus, params, probe, properties, schema, serial, tests, version\n"),
        (format!("properties:\n  p: {{type: int, unit: 5, {from}}}\n"), "0.yaml:6:24: \"unit\" is a whole number\n  write a text (Unit, as a UCUM code); in quotes it would be a text: \"5\"\n"),
        (format!("properties:\n  p: {{type: integer, {from}}}\n"), "0.yaml:6:13: \"type\" cannot be \"integer\"\n  did you mean \"int\"? write one of: bool, int, number, string, enum, flags, bytes, datetime, array, object (The type of a property's values)\n"),
        (format!("properties:\n  p: {{{from}}}\n"), "0.yaml:6:3: \"type\" is missing in \"p\"\n  write type: one of: bool, int, number, string, enum, flags, bytes, datetime, array, object (The type of its values)\n"),
        ("properties:\n  p: {type: int}\n".into(), "0.yaml:6:3: \"p\" has no \"from\"\n  write from: {modbus: {table: …, address: …}}\n"),
        ("properties: {}\n".into(), "0.yaml:5:1: \"properties\" has too few entries\n  at least 1 needed\n"),
        (format!("{one}groups: {{g: {{interval: 5 s}}}}\n"), "0.yaml:7:24: \"interval\" cannot be \"5 s\"\n  write a text such as 500ms, 1s, 5m, 1h, 1d\n"),
        (format!("{one}groups: {{g: {{interval: 0s}}}}\n"), "0.yaml:7:24: an interval of 0 would never end\n  write a duration such as 1s\n"),
        (format!("groups: {{fast: {{interval: 1s}}}}\nproperties:\n  p: {{type: int, group: fats, {from}}}\n"), "0.yaml:7:25: there is no group \"fats\"\n  did you mean \"fast\"? groups: fast\n"),
        (format!("properties:\n  p: {{type: enum, {from}}}\n"), "0.yaml:6:3: \"p\" is an enum without words\n  write enum: {0: first, 1: second}\n"),
        (format!("properties:\n  p: {{type: enum, enum: {{0: off, 1: off}}, {from}}}\n"), "0.yaml:6:37: the word \"off\" stands twice\n  give every value a word of its own\n"),
        (format!("properties:\n  p: {{type: int, scale: 0, {from}}}\n"), "0.yaml:6:25: a scale of 0 makes every value 0\n  write 1, 0.1, 0.01 …\n"),
        (format!("properties:\n  p: {{type: int, range: {{min: 5, max: 1}}, {from}}}\n"), "0.yaml:6:31: min 5 is above max 1\n  swap them\n"),
        (format!("properties:\n  p: {{type: int, access: rw, write: {{min: 5, max: 1}}, {from}}}\n"), "0.yaml:6:43: min 5 is above max 1\n  swap them\n"),
        (format!("properties:\n  p: {{type: int, deadband: {{abs: 0}}, {from}}}\n"), "0.yaml:6:34: \"abs\" cannot be 0: too small\n  write a number above 0\n"),
        ("properties:\n  p: {type: int, from: {modbus: {table: holding, address: 65535, type: uint32}}}\n".into(), "0.yaml:6:59: 2 from address 65535 reach beyond the last address, 65535\n  look for a digit too many\n"),
        ("properties:\n  p: {type: int, from: {modbus: {table: holding, address: 400001}}}\n".into(), "0.yaml:6:59: 400001 is no protocol address\n  "),
        ("properties:\n  p: {type: int, from: {modbus: {table: input, address: IR1}}}\n".into(), "0.yaml:6:57: IR1 is no protocol address\n  "),
        ("properties:\n  p: {type: int, from: {modbus: {table: holding, address: \"40001\"}}}\n".into(), "0.yaml:6:59: 40001 is no protocol address\n  "),
        ("properties:\n  p: {type: int, from: {modbus: {table: input, address: 3x0001}}}\n".into(), "0.yaml:6:57: 3x0001 is no protocol address\n  "),
        ("modbus: {base: 1}\nproperties:\n  p: {type: int, from: {modbus: {table: holding, address: 0}}}\n".into(), "0.yaml:7:59: there is no address 0 in a file that counts from 1\n  write base: 0, or addresses from 1\n"),
        ("properties:\n  p: {type: int, access: rw, from: {modbus: {table: input, address: 0}}}\n".into(), "0.yaml:6:26: \"p\" cannot be written: the table input is read only\n  write table: holding, or write_address for a place in holding\n"),
        ("properties:\n  p: {type: int, access: rw, from: {modbus: {table: holding, address: 0, write_function: 5}}}\n".into(), "0.yaml:6:90: function 5 cannot write this value\n  functions 5 and 15 write coils; for registers write 6, 16 or 22\n"),
        ("properties:\n  p: {type: int, from: {modbus: {table: holding, address: 0, bits: 20}}}\n".into(), "0.yaml:6:68: bits 20 do not lie inside uint16; its bits are 0..15\n"),
        ("modbus: {merge: {max_registers: 1}}\nproperties:\n  p: {type: int, from: {modbus: {table: holding, address: 0, type: uint32}}}\n".into(), "0.yaml:7:25: the value takes 2, but merge.max_registers is 1\n  write merge: {max_registers: 2} or more; a value is never split\n"),
        (format!("properties:\n  set: {{type: int, {from}}}\n"), "0.yaml:6:3: a property cannot be called \"set\": its topic would be the request's\n  take another name\n"),
        (format!("properties:\n  1p: {{type: int, {from}}}\n"), "0.yaml:6:3: a name cannot be \"1p\"\n  write a text such as voltage_l1\n"),
        (format!("{one}computed: {{p: {{expr: \"1 + 1\"}}}}\n"), "0.yaml:7:12: \"p\" is the name of another property already\n  take another name\n"),
        (format!("{one}computed: {{q: {{expr: \"pp + 1\"}}}}\n"), "0.yaml:7:22: there is no property \"pp\" (character 1 of the expression)\n  did you mean \"p\"?\n"),
        (format!("{one}computed: {{q: {{expr: r}}, r: {{expr: q}}}}\n"), "0.yaml:7:22: computed properties need one another in a circle: q, r\n  work one of them out from read properties alone\n"),
        (format!("{one}alarms: {{a: {{when: \"p + 1\", severity: minor}}}}\n"), "0.yaml:7:20: this is no condition\n  compare something: power > 100\n"),
        (format!("{one}init: [{{write: {{p: 1}}}}]\n"), "0.yaml:7:20: \"p\" cannot be written\n  write access: rw at the property\n"),
        (format!("properties:\n  p: {{type: int, scale: \"${{invert}}\", {from}}}\n"), "0.yaml:6:25: there is no parameter \"invert\"\n  parameters: unit\n"),
        (format!("params: {{k: {{type: int, min: 2, default: 1}}}}\n{one}"), "0.yaml:5:42: the default cannot be 1: too small\n  write a whole number of at least 2\n"),
        (format!("params: {{k: {{type: string, pattern: \"(\"}}}}\n{one}"), "0.yaml:5:37: the pattern cannot be read: "),
        (format!("{one}tests: [{{name: t, input: {{modbus: {{holdng: {{\"0x0\": [1]}}}}}}, expect: {{}}}}]\n"), "0.yaml:7:27: there is no table \"holdng\"\n  write "),
        (format!("extends: [a.b]\n{one}"), "0.yaml:5:11: \"a.b\" extends itself: a.b → a.b\n  take one of them out of extends\n"),
        (format!("extends: [a.c]\n{one}"), "0.yaml:5:11: there is no profile \"a.c\"\n  did you mean \"a.b\"? searched: the built-in profiles, profiles\n"),
    ] {
        let found = shown(&check(&[&format!("{HEAD}{body}")]));
        let fits = if expected.ends_with(": ") || expected.ends_with(' ') { found.starts_with(expected) } else { found == expected };
        if !fits {
            wrong.push(format!("\n{body}\nfound:    {found:?}\nexpected: {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = "schema: 2\nid: A b\nversion: one\nmeta: {vendor: A}\nproperties:\n  p: {type: nmber, form: {}}\n  q: {type: int, scale: x}\n";
    let found = check(&[text]);
    let lines: Vec<(u32, u32)> = found.iter().map(|complaint| (complaint.line, complaint.column)).collect();
    assert_eq!(lines, [(1, 9), (2, 5), (3, 10), (4, 1), (6, 13), (6, 20), (7, 3), (7, 25)], "{}", shown(&found));
}

#[test]
fn a_mistake_in_the_form_hides_no_mistake_in_the_meaning_and_causes_none() {
    let from = "from: {modbus: {table: holding, address: 1}}";
    let mut wrong = Vec::new();
    for (body, expected) in [
        (
            format!(
                "properties:\n  p: {{type: int, scle: 1, {from}}}\n  q: {{type: int, from: {{modbus: {{table: holding, address: \"40001\"}}}}}}\n  r: {{type: int, group: no, {from}}}\n  s: {{type: int, from: {{modbus: {{table: holding, address: 65535, type: uint32}}}}}}\n  t: {{type: enum, {from}}}\n  u: {{type: int, from: {{modbus: {{table: holding, address: 1, order: ABAB}}}}}}\n"
            ),
            vec![(6, 18), (7, 59), (8, 25), (9, 59), (10, 3), (11, 69)],
        ),
        (format!("properties:\n  p: {{type: enum, scle: 1, {from}}}\n"), vec![(6, 3), (6, 19)]),
        (format!("properties:\n  p: {{type: enum, enm: {{0: a}}, {from}}}\n"), vec![(6, 19)]),
        (format!("properties:\n  p: {{type: enum, enum: 5, {from}}}\n"), vec![(6, 25)]),
        (
            format!(
                "properties:\n  p: 5\n  q: {{type: int, group: no, {from}}}\ncomputed: {{c: {{expr: p + 1}}, d: {{expr: x}}}}\n"
            ),
            vec![(6, 6), (7, 25), (8, 40)],
        ),
        (
            format!(
                "properties:\n  p: {{type: int, form: {{}}}}\n  q: {{type: int, {from}}}\ncomputed: {{c: {{expr: p + q}}}}\nalarms: {{a: {{when: c, severity: minor}}}}\n"
            ),
            vec![(6, 18), (9, 20)],
        ),
        (
            format!(
                "groups: {{g: {{interval: x}}, h: {{interval: 0s}}}}\nproperties:\n  p: {{type: int, group: g, {from}}}\n"
            ),
            vec![(5, 24), (5, 42)],
        ),
        (format!("grops: {{g: {{interval: 1s}}}}\nproperties:\n  p: {{type: int, group: g, {from}}}\n"), vec![(5, 1)]),
        (
            format!(
                "params: {{k: {{type: no}}}}\nproperties:\n  p: {{type: int, scale: \"${{k}}\", {from}}}\n  q: {{type: int, scale: \"${{l}}\", group: no, {from}}}\n"
            ),
            vec![(5, 20), (8, 25), (8, 40)],
        ),
        (
            format!(
                "properties:\n  p: {{type: int, access: wr, {from}}}\ninit: [{{write: {{p: 1}}}}, {{write: {{x: 1}}}}]\n"
            ),
            vec![(6, 26), (7, 37)],
        ),
    ] {
        let text = format!("{HEAD}{body}");
        let found = check(&[&text]);
        let places: Vec<(u32, u32)> = found.iter().map(|complaint| (complaint.line, complaint.column)).collect();
        if places != expected {
            wrong.push(format!("\n{body}found {}\nexpected {expected:?}\n", shown(&found)));
        }
        let (mut library, _) = library(&[&text]);
        assert!(resolve(&mut library, "a.b", "{}").is_err(), "{body}");
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn profiles_that_extend_one_another_in_a_circle_are_told_once() {
    let make = |id: &str, base: &str| format!("schema: 1\nid: {id}\nversion: 1.0.0\nextends: [{base}]\n");
    let found = check(&[&make("x.b", "x.a"), &make("x.a", "x.b")]);
    assert_eq!(
        shown(&found),
        "1.yaml:4:11: \"x.a\" extends itself: x.a → x.b → x.a\n  take one of them out of extends\n"
    );
}

#[test]
fn a_profile_that_extends_another_keeps_what_it_does_not_change() {
    let child = "schema: 1\nid: my.meter\nversion: 2.0.0\nextends: [eastron.sdm630]\nmeta: {model: Mine}\ngroups: {fast: {interval: 5s}}\nproperties:\n  power_l1: null\n  voltage_l1: {precision: 2}\ncomputed: {power_sum: null, power_mismatch: null}\n";
    let (mut library, complaints) = library(&[SDM630, child]);
    assert_eq!(shown(&complaints.into_sorted()), "");
    let profile = resolve(&mut library, "my.meter", "{params: {unit: 7}}").unwrap();
    assert_eq!(profile.unit, 7);
    let profile = profile.profile;
    assert_eq!(
        (profile.label().as_str(), profile.meta.vendor.as_str(), profile.meta.model.as_str()),
        ("my.meter@2.0.0", "Eastron", "Mine")
    );
    assert_eq!(profile.groups[0].interval, Duration::from_secs(5));
    assert!(profile.groups[0].atomic);
    assert_eq!(profile.find("power_l1"), None);
    let voltage = &profile.properties[profile.find("voltage_l1").unwrap()];
    assert_eq!((voltage.scaling.precision, voltage.unit.as_deref()), (Some(2), Some("V")));
    // A mistake in the merged whole is told in the file that made it.
    let child = child.replace("computed: {power_sum: null, power_mismatch: null}\n", "");
    let found = check(&[SDM630, &child]);
    assert_eq!(
        found.first().map(ToString::to_string).as_deref(),
        Some(
            "0.yaml:64:44: there is no property \"power_l1\" (character 1 of the expression)\n  did you mean \"power_l2\"?"
        )
    );
}

#[test]
fn parameters_are_checked_where_the_device_gives_them() {
    let (mut library, _) = library(&[SDM630]);
    for (device, expected) in [
        (
            "{params: {unit: 248}}",
            "gateway.yaml:1:17: \"unit\" cannot be 248: too large\n  write a whole number from 1 to 247\n",
        ),
        (
            "{params: {unit: 1.5}}",
            "gateway.yaml:1:17: \"unit\" cannot be 1.5: wrong type\n  write a whole number from 1 to 247\n",
        ),
        (
            "{params: {invert: 2}}",
            "gateway.yaml:1:19: \"invert\" cannot be 2: not one of the choices\n  write one of: 1, -1\n",
        ),
        (
            "{params: {untt: 2}}",
            "gateway.yaml:1:11: the profile has no parameter \"untt\"\n  did you mean \"unit\"? parameters: invert, unit, vmax\n",
        ),
    ] {
        assert_eq!(resolve(&mut library, "eastron.sdm630", device).unwrap_err(), expected);
    }
    let inverted = resolve(&mut library, "eastron.sdm630", "{params: {invert: -1, vmax: 240}}").unwrap().profile;
    let power = &inverted.properties[inverted.find("power").unwrap()];
    assert_eq!(power.from_registers(&[0x443A, 0x0000]).0, Value::from(-744.0));
    let Source::Alarm(alarm) = &inverted.properties[inverted.find("overvoltage").unwrap()].source else {
        panic!("no alarm")
    };
    assert_eq!(alarm.when.text(), "max(voltage_l1, voltage_l2, voltage_l3) > 240");
}

#[test]
fn a_device_overrides_leaves_but_not_the_wire_layout() {
    let (mut library, _) = library(&[SDM630]);
    let fast = resolve(&mut library, "eastron.sdm630", "{override: {groups: {fast: {interval: 5s}}}}").unwrap();
    assert_eq!(fast.profile.groups[0].interval, Duration::from_secs(5));
    let layout = "override: {modbus: {order: CDAB}, properties: {power: {from: {modbus: {address: 2}}}}}";
    let moved = resolve(&mut library, "eastron.sdm630", &format!("{{unsafe: true, {layout}}}")).unwrap().profile;
    assert_eq!(moved.properties[moved.find("power").unwrap()].source.modbus().unwrap().address, 2);
    for (device, expected) in [
        (format!("{{{layout}}}"), "gateway.yaml:1:22: \"modbus.order\" is the wire layout, which a device does not change\n  write unsafe: true for this device if you mean it\ngateway.yaml:1:57: \"from\" is the wire layout, which a device does not change\n  write unsafe: true for this device if you mean it\n".to_owned()),
        ("{override: {id: x}}".into(), "gateway.yaml:1:13: a device cannot override \"id\"\n  make a profile of your own that extends this one\n".into()),
        ("{override: {groups: {fats: {interval: 1s}}}}".into(), "gateway.yaml:1:22: the profile has no group \"fats\"\n  did you mean \"fast\"? the profile has: fast, energy, settings\n".into()),
        ("{override: {properties: {pwer: {precision: 1}}}}".into(), "gateway.yaml:1:26: the profile has no property \"pwer\"\n  did you mean \"power\"? the profile has: ".into()),
    ] {
        let found = resolve(&mut library, "eastron.sdm630", &device).unwrap_err();
        assert!(found.starts_with(&expected), "{device}\n{found}");
    }
}

#[test]
fn devices_that_differ_only_in_their_unit_share_one_profile() {
    let (mut library, _) = library(&[SDM630]);
    let mut make = |device: &str| resolve(&mut library, "eastron.sdm630", device).unwrap();
    let (one, two, other) = (make("{params: {unit: 1}}"), make("{params: {unit: 2}}"), make("{params: {vmax: 250}}"));
    assert_eq!((one.unit, two.unit), (1, 2));
    assert!(Arc::ptr_eq(&one.profile, &two.profile));
    assert!(!Arc::ptr_eq(&one.profile, &other.profile));
    assert_ne!(one.profile.hash, other.profile.hash);
    assert_eq!(one.profile.hash.len(), 16);
}

#[test]
fn a_golden_that_fails_is_reported_with_what_came_out() {
    let (library, complaints) = library(&[&SDM630
        .replace("voltage_l1: 230.2, ", "voltage_l1: 230.3, nothing: 1, ")
        .replace("{voltage_l1: bad}", "{voltage_l1: good, power: bad}")
        .replace("0x3F80, 0x0000]}}\n", "0x3F81, 0x0000]}}\n")]);
    assert_eq!(shown(&complaints.into_sorted()), "");
    let outcome = library.test("eastron.sdm630");
    let found: Vec<(&str, String, String)> = outcome
        .failed
        .iter()
        .map(|failure| (failure.property.as_str(), failure.expected.to_string(), failure.got.to_string()))
        .collect();
    assert_eq!(outcome.passed, 0);
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!(found[0], ("nothing", "1".to_owned(), "\"no such property\"".to_owned()));
    assert_eq!(found[1], ("voltage_l1", "230.3".to_owned(), "230.2".to_owned()));
    assert_eq!(
        found[2],
        ("power", "\"bad\"".to_owned(), "\"no value: its registers are not in the input\"".to_owned())
    );
    assert_eq!(found[3], ("voltage_l1", "\"good\"".to_owned(), "\"bad:nan\"".to_owned()));
    assert_eq!(found[4].0, "energy_prefix");
}

#[test]
fn a_golden_without_a_tolerance_is_as_exact_as_the_wire() {
    // 0x43661F9B is 230.12346 as a float of 32 bits; 0x406CC3F34D6A161E is 230.12345 as one of 64.
    let (single, double) = ("0x0: [0x4366, 0x1F9B]", "0x0: [0x406C, 0xC3F3, 0x4D6A, 0x161E]");
    for (data, registers, expected, passes) in [
        ("float32", single, "230.12346", true),
        ("float32", single, "230.1234", true),
        ("float32", single, "230.123", false),
        ("float64", double, "230.12345", true),
        ("float64", double, "230.1234", false),
    ] {
        let text = format!(
            "{HEAD}properties:\n  v: {{type: number, from: {{modbus: {{table: input, address: 0, type: {data}}}}}}}\ntests:\n  - {{name: t, input: {{modbus: {{input: {{{registers}}}}}}}, expect: {{v: {expected}}}}}\n"
        );
        let (library, complaints) = library(&[&text]);
        assert_eq!(shown(&complaints.into_sorted()), "");
        let outcome = library.test("a.b");
        assert_eq!(outcome.failed.is_empty(), passes, "{data} {expected}: {:?}", outcome.failed);
    }
}

#[test]
fn a_golden_of_a_write_shows_the_function_that_is_used() {
    let property = |access: &str| format!("access: rw, from: {{modbus: {{{access}}}}}");
    let text = format!(
        "{HEAD}properties:\n  coil: {{type: bool, {}}}\n  temp: {{type: number, scale: 0.1, {}}}\n  bits: {{type: int, {}}}\n  long: {{type: int, {}}}\ntests:\n  - {{name: a, input: {{}}, write: {{coil: true}}, expect: {{modbus: {{function: 5, address: 3, value: true}}}}}}\n  - {{name: b, input: {{}}, write: {{temp: 21.5}}, expect: {{modbus: {{function: 6, address: \"0x0004\", registers: [215]}}}}}}\n  - {{name: c, input: {{}}, write: {{bits: 2}}, expect: {{modbus: {{function: 22, address: 5, and: 0xFFF3, or: 8}}}}}}\n  - {{name: d, input: {{}}, write: {{long: 65537, coil: false}}, expect: {{modbus: [{{function: 16, address: 6, registers: [1, 1]}}, {{function: 5, value: 0}}]}}}}\n  - {{name: e, input: {{}}, write: {{temp: 21.5}}, expect: {{modbus: {{function: 16}}}}}}\n",
        property("table: coil, address: 3"),
        property("table: holding, address: 4, type: int16"),
        property("table: holding, address: 5, bits: 2..3"),
        property("table: holding, address: 6, type: uint32"),
    );
    assert_eq!(shown(&check(&[&text])), "");
    let (library, _) = library(&[&text]);
    let outcome = library.test("a.b");
    assert_eq!(outcome.passed, 4, "{:?}", outcome.failed);
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(outcome.failed[0].test, "e");
}

#[test]
fn a_number_that_looks_like_a_manuals_is_taken_as_it_stands_but_said() {
    let text = |address: &str| {
        format!("{HEAD}properties:\n  p: {{type: int, from: {{modbus: {{table: holding, address: {address}}}}}}}\n")
    };
    for (address, expected) in [
        (
            "40031",
            "0.yaml:6:59: 40031 is taken as protocol address 40031 (0x9C5F)\n  as a register number of a manual it would be holding 0x001E (40031); write 0x9C5F if it is meant as it stands\n",
        ),
        ("0x9C5F", ""),
        ("40000", ""),
        ("30001", ""),
        ("30", ""),
    ] {
        let (library, _) = library(&[&text(address)]);
        let mut warnings = Complaints::new();
        library.doubts("a.b", &mut warnings);
        assert_eq!(shown(&warnings.into_sorted()), expected, "{address}");
        assert_eq!(shown(&check(&[&text(address)])), "", "{address}");
    }
    // Who extends a built-in profile is told nothing about that one.
    let mut library = Library::new();
    library.add("ours.yaml", &text("40031"), true, &mut Complaints::new());
    library.add("own.yaml", "schema: 1\nid: a.c\nversion: 1.0.0\nextends: [a.b]\n", false, &mut Complaints::new());
    for id in ["a.b", "a.c"] {
        let mut warnings = Complaints::new();
        library.doubts(id, &mut warnings);
        assert_eq!(shown(&warnings.into_sorted()), "", "{id}");
    }
}

#[test]
fn two_files_with_one_id_are_a_mistake_but_a_file_takes_the_place_of_a_built_in_one() {
    let found = check(&[SDM630, SDM630]);
    assert_eq!(
        shown(&found),
        "1.yaml:2:5: a second profile \"eastron.sdm630\"\n  it is in 0.yaml:2 already; give one of them another id\n"
    );
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    library.add("built-in", SDM630, true, &mut complaints);
    library.add("own.yaml", &SDM630.replace("1.0.0", "1.0.1"), false, &mut complaints);
    assert!(complaints.is_empty());
    assert_eq!(library.own_ids().collect::<Vec<_>>(), ["eastron.sdm630"]);
    assert_eq!(resolve(&mut library, "eastron.sdm630", "{}").unwrap().profile.version, "1.0.1");
}

#[test]
fn the_schema_is_a_schema_whose_patterns_compile() {
    fn walk(schema: &Value) {
        match schema {
            Value::Object(map) => {
                if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
                    regex_lite::Regex::new(pattern).unwrap();
                }
                map.values().for_each(walk);
            }
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    let schemas = [schema(), crate::config::raw::gateway_schema(), crate::config::raw::users_schema()];
    for schema in schemas {
        walk(schema);
        assert!(schema.get("$schema").is_some() && schema.get("properties").is_some());
        assert!(!schema.to_string().contains("\"null\""));
    }
}

proptest::proptest! {
    #[test]
    fn a_damaged_profile_is_never_a_panic(at in 0_usize..6_000, length in 0_usize..40, with in "[a-z0-9:{}\\[\\], $\"'-]{0,6}") {
        let text: String = SDM630.chars().take(at).chain(with.chars()).chain(SDM630.chars().skip(at + length)).collect();
        let (library, mut complaints) = library(&[&text]);
        for id in library.ids() {
            library.check(id, &mut complaints);
            library.test(id);
        }
    }
}
