//! Serial profiles as people feed them to the program: the worked snippets against the vectors, and mistakes.

use serde_json::{Value, json};

use crate::profile::{Library, Resolved, Wish};
use crate::yaml::{Complaint, Complaints, Place, read};

const SNIPPETS: &str = include_str!("../../../../tests/data/profiles/serial-snippets.yaml");
const FRAMES: &str = include_str!("../../../../tests/data/serial_frames.json");

const HEAD: &str = "schema: 1\nversion: 1.0.0\nmeta: {vendor: A, model: B}\n";

fn resolve(library: &mut Library, id: &str) -> Resolved {
    let place = Place { file: "test".into(), line: 1, column: 1 };
    let mut complaints = Complaints::new();
    let wish = Wish { profile: id, place: &place, params: None, over: None, is_unsafe: false };
    let resolved = library.resolve(&wish, &mut complaints);
    resolved.unwrap_or_else(|| panic!("{id}: {}", shown(&complaints.into_sorted())))
}

fn shown(complaints: &[Complaint]) -> String {
    complaints.iter().map(|complaint| format!("{complaint}\n")).collect()
}

/// Each snippet of the published examples as a profile of its own; more is added to some.
fn library(more: &[(&str, &str)]) -> Library {
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    let mut snippets: Vec<(String, String)> = Vec::new();
    for line in SNIPPETS.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            Some(name) => snippets.push((name.to_owned(), format!("{HEAD}id: {name}\n"))),
            None => {
                let (_, text) = snippets.last_mut().unwrap();
                text.push_str(line.strip_prefix("  ").unwrap_or(line));
                text.push('\n');
            }
        }
    }
    assert_eq!(snippets.len(), 5);
    for (name, mut text) in snippets {
        text.extend(more.iter().filter(|(own, _)| *own == name).map(|(_, more)| *more));
        library.add(&format!("{name}.yaml"), &text, false, &mut complaints);
        library.check(&name, &mut complaints);
    }
    assert_eq!(shown(&complaints.into_sorted()), "");
    library
}

/// The values a stream leaves behind.
fn values(library: &mut Library, id: &str, input: &Value) -> super::golden::Values {
    super::golden::values(&resolve(library, id).profile, &json!({"serial": input})).unwrap()
}

#[test]
fn the_published_snippets_read_the_vectors_of_esphome_and_dsmr_parser() {
    let mut library = library(&[]);
    let vectors: Value = serde_json::from_str(FRAMES).unwrap();
    let stream = |id: &str| {
        let vector = vectors["vectors"].as_array().unwrap().iter().find(|vector| vector["id"] == id).unwrap();
        match vector["input"].get("stream_hex") {
            Some(hex) => json!({"hex": hex}),
            None => json!({"text": vector["input"]["stream_text"]}),
        }
    };
    for (profile, id, expected) in [
        ("mhz19_co2", "mhz19/response", json!({"co2": 608, "temperature": 31})),
        ("pms5003", "pmsx003/data", json!({"pm25": 5})),
        ("maxbotix", "maxbotix/stray_ff", json!({"distance": 1234})),
        ("dsmr_p1", "dsmr/telegram_v4_2", json!({"energy_t1": 1581.123, "power": 2.027})),
        ("dsmr_p1", "dsmr/telegram_v5", json!({"energy_t1": 4.426, "power": 0.244})),
        ("dsmr_p1", "dsmr/corrupted", json!({})),
    ] {
        let values = values(&mut library, profile, &stream(id));
        let good: serde_json::Map<String, Value> = values.into_iter().map(|(name, (value, _))| (name, value)).collect();
        assert_eq!(Value::Object(good), expected, "{id}");
    }
    // A meter without a check is done when it pauses.
    let old = stream("dsmr/telegram_v2_2");
    assert_eq!(values(&mut library, "dsmr_p1", &json!([old, null]))["power"].0, 1.01);
}

#[test]
fn a_scale_is_read_in_its_unit_and_overload_is_no_weight() {
    let mut library = library(&[]);
    for (line, weight, stable) in [
        ("ST,GS, 12.34kg\r\n", "12.34 good", "true good"),
        ("US,NT,-500.5g\r\n", "-0.5005 good", "false good"),
        ("ST,GS,2lb\r\n", "0.90718474 good", "true good"),
        ("OL,GS,99kg\r\n", "null bad:sentinel", "null bad:sentinel"),
    ] {
        let values = values(&mut library, "weight_scale_ascii", &json!(line));
        let show = |name: &str| format!("{} {}", values[name].0, values[name].1);
        assert_eq!((show("weight").as_str(), show("stable").as_str()), (weight, stable), "{line}");
    }
    let profile = resolve(&mut library, "weight_scale_ascii").profile;
    let device = profile.serial.as_ref().unwrap();
    assert_eq!(device.bytes_of(&device.requests[0]), Ok(b"Q\r\n".to_vec()));
    let polled: Vec<bool> = profile.properties.iter().map(|property| property.source.is_polled()).collect();
    assert_eq!(polled, [true, false], "the state comes with the weight, and by itself");
}

const WRITER: &str = r#"
id: a.b
serial:
  framing: {type: line, end: "\r\n", max: 40}
  messages:
    set: {match: {regex: "^SP=(?P<sp>[\\d.]+) MODE=(?P<mode>\\w+) V=(?P<v>\\S+)$"}}
    no: {match: {regex: "^ERR"}}
  requests:
    read: {tx: "?\r\n", answer: set}
    sp: {tx: "SP={value:.1}\r\n", answer: set, refusal: no}
    mode: {tx: "MODE={value}\r\n"}
properties:
  setpoint: {type: number, access: rw, write: {min: 5, max: 30}, from: {serial: {request: read, capture: sp, write: sp}}}
  mode: {type: enum, enum: {1: heat, 2: cool}, access: rw, from: {serial: {request: read, capture: mode, write: mode, map: {H: heat, C: cool}}}}
  value: {type: number, invalid: ["----"], from: {serial: {message: set, capture: v}}}
tests:
  - {name: read, input: {serial: "SP=21.5 MODE=H V=-1,5\r\n"}, expect: {setpoint: 21.5, mode: heat, value: -1.5}}
  - {name: nothing measured, input: {serial: "SP=21.5 MODE=H V=----\r\n"}, expect: {setpoint: 21.5}, expect_quality: {value: "bad:sentinel"}}
  - {name: in pieces, input: {serial: ["SP=2", {text: "1.5 MODE=C V=0"}, "0D 0A"]}, expect: {mode: cool, value: 0}}
  - {name: bytes one by one, input: {serial: [0x53, 0x50, "=5 MODE=C", " V=0\r\n"]}, expect: {setpoint: 5}}
  - {name: noise, input: {serial: "SP= MODE=H V=1\r\n"}, expect: {}}
  - {name: write, input: {}, write: {setpoint: 22}, expect: {serial: "SP=22.0\r\n"}}
  - {name: write a word, input: {}, write: {mode: cool}, expect: {serial: "MODE=C\r\n"}}
"#;

#[test]
fn goldens_run_over_text_pieces_and_writes() {
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    library.add("w.yaml", &format!("{HEAD}{WRITER}"), false, &mut complaints);
    library.check("a.b", &mut complaints);
    assert_eq!(shown(&complaints.into_sorted()), "");
    let outcome = library.test("a.b");
    assert_eq!((outcome.passed, outcome.failed), (7, Vec::new()));

    let wrong = WRITER.replace("expect: {serial: \"SP=22.0\\r\\n\"}", "expect: {serial: \"SP=22\\r\\n\"}");
    let wrong = wrong.replace("V=1\\r\\n\"}, expect: {}", "V=1\\r\\nSP=1 MODE=H V=1\\r\\n\"}, expect: {}");
    let mut library = Library::new();
    library.add("w.yaml", &format!("{HEAD}{wrong}"), false, &mut Complaints::new());
    let failed: Vec<(String, String)> =
        library.test("a.b").failed.into_iter().map(|failure| (failure.test, failure.property)).collect();
    let expected = [("noise", "mode"), ("noise", "setpoint"), ("noise", "value"), ("write", "setpoint")];
    assert_eq!(failed, expected.map(|(test, property)| (test.to_owned(), property.to_owned())));
}

#[test]
fn a_value_that_cannot_be_sent_is_refused_before_the_line() {
    let mut library = Library::new();
    library.add("w.yaml", &format!("{HEAD}{WRITER}"), false, &mut Complaints::new());
    let profile = resolve(&mut library, "a.b").profile;
    for (name, value, expected) in [
        ("setpoint", json!(31), Err("above maximum 30")),
        ("setpoint", json!("x"), Err("expected a number, got a string")),
        ("setpoint", json!(22), Ok(json!(22))),
        ("mode", json!("dry"), Err("\"dry\" is none of heat, cool")),
        ("mode", json!(2), Ok(json!("cool"))),
        ("value", json!(1), Err("is read-only")),
    ] {
        let property = &profile.properties[profile.find(name).unwrap()];
        assert_eq!(property.accept(&value), expected.map_err(str::to_owned), "{name} = {value}");
    }
    let setpoint = &profile.properties[profile.find("setpoint").unwrap()];
    assert!(setpoint.same_encoded(&json!(21.5), &json!(21.52)), "the device holds one decimal");
    assert!(!setpoint.same_encoded(&json!(21.5), &json!(21.6)));
}

#[test]
fn a_mistake_is_told_with_its_place_and_what_would_be_right() {
    let base = "id: a.b\nserial:\n  framing: {type: line, end: \"\\n\"}\n  messages:\n    m: {split: {separator: \",\"}}\n  requests:\n    r: {tx: \"?\", answer: m}\nproperties:\n  p: {type: number, from: {serial: {message: m, field: 0}}}\n";
    let mut wrong = Vec::new();
    for (from, to, expected) in [
        ("message: m, field", "message: n, field", "there is no message \"n\""),
        ("field: 0", "capture: x", "there is no group \"x\""),
        ("field: 0", "key: \"1.8.0\"", "the message has no keys"),
        ("field: 0", "at: 1", "how do the bytes hold the value?"),
        ("field: 0", "at: 1, type: bcd", "how many bytes has the bcd?"),
        ("field: 0", "at: 1, type: u8, bits: 9", "there are no bits 9 in u8"),
        ("field: 0", "field: 0, at: 1, type: u8", "a value stands at one place"),
        ("field: 0", "field: 0, parse: date", "a date needs its format"),
        ("field: 0", "field: 0, format: hhmm", "\"hhmm\" is no date format"),
        ("field: 0", "field: 0, write: r", "the request \"r\" has no place for a value"),
        ("type: line, end: \"\\n\"", "type: line", "nobody knows where such a message ends"),
        ("type: line, end: \"\\n\"", "type: slip, end: \"\\n\"", "\"end\" means nothing to slip"),
        ("type: line, end: \"\\n\"", "type: fixed", "how long is a message?"),
        ("type: line, end: \"\\n\"", "type: idle", "idle messages end with a pause"),
        ("  messages:", "  check: {type: crc}\n  messages:", "a crc needs its parameters"),
        (
            "  messages:",
            "  check: {type: sum8, value: {at: 1, after: x}}\n  messages:",
            "the check stands at two places",
        ),
        ("tx: \"?\"", "tx: \"{\"", "a \"{\" without its \"}\""),
        ("tx: \"?\"", "tx: \"{check}\"", "there is no check to put in"),
        ("answer: m", "answer: mm", "there is no message \"mm\""),
        ("{separator: \",\"}", "{pattern: \"(\"}", "the pattern cannot be read"),
        ("{separator: \",\"}}", "{separator: \",\"}, accept: \"field[0] = 1\"}", "write == instead of ="),
        ("type: number,", "type: number, access: rw,", "nothing says how \"p\" is written"),
        ("  requests:", "  on_open: [{tx: \"a\", when: \"params.x == 1\"}]\n  requests:", "params.x"),
    ] {
        assert!(base.contains(from), "{from}");
        let text = format!("{HEAD}{}", base.replacen(from, to, 1));
        let mut complaints = Complaints::new();
        let mut library = Library::new();
        library.add("f.yaml", &text, false, &mut complaints);
        library.check("a.b", &mut complaints);
        let found = shown(&complaints.into_sorted());
        let is_placed = found.starts_with("f.yaml:") && !found.starts_with("f.yaml:1:");
        if !found.contains(expected) || !is_placed || found.matches("f.yaml").count() != 1 {
            wrong.push(format!("{to}\nexpected {expected}\nfound    {found}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
    assert!(read("f.yaml", base, &mut Complaints::new()).is_some());
}

#[test]
fn parameters_choose_what_is_sent_when_the_line_opens() {
    let text = format!(
        "{HEAD}id: a.b\nparams: {{rate: {{type: int, default: 5}}, name: {{type: string, default: x}}}}\nserial:\n  framing: {{type: line, end: \"\\n\"}}\n  messages: {{m: {{}}}}\n  on_open:\n    - {{tx: \"A\", when: \"params.rate == 5\"}}\n    - {{tx: \"B\", when: \"params.rate > 5\"}}\n    - {{tx: \"C-${{rate}}\", when: \"params.name == 'x'\", delay: 10ms}}\nproperties:\n  p: {{type: string, from: {{serial: {{message: m}}}}}}\n"
    );
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    library.add("f.yaml", &text, false, &mut complaints);
    assert_eq!(shown(&complaints.into_sorted()), "");
    let profile = resolve(&mut library, "a.b").profile;
    let sent: Vec<&[u8]> = profile.serial.as_ref().unwrap().on_open.iter().map(|greeting| &*greeting.bytes).collect();
    assert_eq!(sent, [b"A".as_slice(), b"C-5"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_damaged_profile_is_never_a_panic(at in 0_usize..1_400, length in 0_usize..40, with in "[a-z0-9:{}\\[\\], $\"'-]{0,6}") {
        let whole = format!("{HEAD}{WRITER}");
        let text: String = whole.chars().take(at).chain(with.chars()).chain(whole.chars().skip(at + length)).collect();
        let mut library = Library::new();
        let mut complaints = Complaints::new();
        if let Some(id) = library.add("f.yaml", &text, false, &mut complaints) {
            library.check(&id, &mut complaints);
            library.test(&id);
        }
    }

    #[test]
    fn no_message_is_a_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut library = library(&[]);
        for id in ["mhz19_co2", "pms5003", "maxbotix", "dsmr_p1", "weight_scale_ascii"] {
            resolve(&mut library, id).profile.hear(&bytes);
        }
    }
}
