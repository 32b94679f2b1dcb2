//! What a mapper is told, and what its reports come to. Types and words are those of KubeEdge 1.23's mapper-framework.

use super::*;
use crate::config::gateway;
use crate::profile::Library;
use crate::value::Timestamp;
use crate::yaml::{Complaints, read};

const CAMERA: &str = "schema: 1\nid: acme.camera\nversion: 1.0.0\nmeta: {vendor: Acme, model: C}\nparams: {channel: {type: int, default: 1}}\nexternal: {protocol: onvif, config: {channel: \"${channel}\"}}\ngroups: {slow: {interval: 30s}}\nproperties:\n  motion: {type: bool, group: slow, title: Motion, from: {external: {topic: M}}}\n  zoom: {type: number, unit: x, access: rw, group: slow, write: {min: 1, max: 10, tolerance: 0.1}, from: {external: {}}}\n  preset: {type: int, access: w, group: slow, from: {external: {}}}\n  name: {type: string, access: rw, group: slow, write: {mode: pulse}, from: {external: {}}}\n  live: {type: object, group: slow, from: {external: {}}}\n";

fn served(devices: &str) -> Served {
    let text = format!(
        "schema: 1\ngateway: {{id: g}}\ncompat: {{kubeedge: {{node: n, dmi: {{}}}}}}\nconnections:\n  cam: {{external: {{protocol: ONVIF, config: {{url: h, big: 3000000000, huge: 18446744073709551615, half: 0.5, on: true, none: null, deep: {{a: [1]}}}}}}}}\n  plc: {{modbus: {{tcp: \"h:502\"}}}}\ndevices: [{devices}]\n"
    );
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    library.add("camera.yaml", CAMERA, false, &mut complaints);
    let tree = read("gateway.yaml", &text, &mut complaints).unwrap();
    let config = gateway(&tree, &mut library, &mut Complaints::new(), &mut complaints);
    assert!(complaints.is_empty(), "{:?}", complaints.into_sorted());
    let config = config.unwrap();
    assert_eq!(config.kubeedge.as_ref().unwrap().dmi.as_ref().unwrap().socket, "/etc/kubeedge/dmi.sock");
    Served::of(&config)
}

fn wish(value: Value, state: DesiredState) -> DesiredOut {
    DesiredOut { value, version: 7, at: Timestamp::from_ms(1_700_000_000_004), by: "x".into(), state, reason: None }
}

#[test]
fn a_mapper_is_told_its_own_words_and_kubeedges_types() {
    let served = served(
        "{id: c1, profile: acme.camera, connection: cam}, {id: \"hall:c2\", profile: acme.camera, connection: cam, params: {channel: 2}}",
    );
    let device = served.find("default", "c1").unwrap();
    assert_eq!(
        (device.protocol.as_str(), device.named.as_str(), device.model.as_str()),
        ("onvif", "ONVIF", "acme.camera")
    );
    let words: Vec<(&str, Word)> = device.config.iter().map(|(key, word)| (key.as_str(), word.clone())).collect();
    assert_eq!(
        words,
        [
            ("big", Word::Int64(3_000_000_000)),
            ("channel", Word::Int32(1)),
            ("deep", Word::Text("{\"a\":[1]}".to_owned())),
            ("half", Word::Float(0.5)),
            ("huge", Word::Text("18446744073709551615".to_owned())),
            ("on", Word::Bool(true)),
            ("url", Word::Text("h".to_owned())),
        ]
    );
    assert_eq!(served.find("", "c1").map(|device| device.id.as_str()), Some("c1"));
    assert_eq!(served.find("hall", "c2").unwrap().config["channel"], Word::Int32(2));
    assert!(served.find("hall", "c1").is_none());
    let models: Vec<&Key> = served.models.keys().collect();
    assert_eq!(
        models,
        [&("default".to_owned(), "acme.camera".to_owned()), &("hall".to_owned(), "acme.camera".to_owned())]
    );
    let properties = &served.models[models[0]].properties;
    let told: Vec<_> = properties
        .iter()
        .map(|one| {
            (one.name.as_str(), one.kind, one.writable, one.minimum.as_str(), one.maximum.as_str(), one.unit.as_str())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("motion", "BOOLEAN", false, "", "", ""),
            ("zoom", "DOUBLE", true, "1", "10", "x"),
            ("preset", "INT", true, "", "", ""),
            ("name", "STRING", true, "", "", ""),
            ("live", "STREAM", false, "", "", ""),
        ]
    );
}

#[test]
fn devices_of_one_profile_that_differ_have_models_of_their_own() {
    let served = served(
        "{id: a, profile: acme.camera, connection: cam}, {id: b, profile: acme.camera, connection: cam, override: {properties: {zoom: {write: {max: 5}}}}}, {id: c, profile: acme.camera, connection: cam}",
    );
    let models: Vec<&str> = served.devices.values().map(|device| device.model.as_str()).collect();
    assert_eq!(models, ["acme.camera", "acme.camera-2", "acme.camera"]);
}

#[test]
fn what_is_desired_is_told_until_it_is_taken_back() {
    let served = served("{id: c1, profile: acme.camera, connection: cam}");
    let device = served.find("default", "c1").unwrap();
    for (name, value, state, expected) in [
        ("zoom", Value::from(2.5), DesiredState::Pending, "2.5"),
        ("zoom", Value::from(2.5), DesiredState::Applied, "2.5"),
        ("zoom", Value::from(2.5), DesiredState::Failed, "2.5"),
        ("zoom", Value::from(2.5), DesiredState::Expired, ""),
        ("name", Value::from("x"), DesiredState::Pending, "x"),
        ("name", Value::from("x"), DesiredState::Applied, ""),
    ] {
        let name: PropertyName = name.parse().unwrap();
        let wishes = BTreeMap::from([(name.clone(), wish(value, state))]);
        let properties = device.properties(&wishes);
        let property = properties.iter().find(|property| property.name == name).unwrap();
        assert_eq!((property.desired.as_str(), property.cycle_ms), (expected, 30_000), "{name} {state:?}");
        assert!(properties.iter().filter(|other| other.name != name).all(|other| other.desired.is_empty()));
    }
}

#[test]
fn a_reported_text_is_a_value_or_says_why_it_is_none() {
    let served = served("{id: c1, profile: acme.camera, connection: cam}");
    let device = served.find("default", "c1").unwrap();
    let good = |value: Value| Some((value, "good".to_owned()));
    let bad = |why: &str| Some((Value::Null, format!("bad:{why}")));
    for (name, text, expected) in [
        ("motion", "true", good(true.into())),
        ("motion", "1", bad("decode")),
        ("motion", "", None),
        ("zoom", "2.50", good(2.5.into())),
        ("zoom", "3", good(3.into())),
        ("zoom", "NaN", bad("nan")),
        ("zoom", "x", bad("decode")),
        ("preset", "18446744073709551615", good(u64::MAX.into())),
        ("preset", "1.5", bad("decode")),
        ("name", "", good("".into())),
        ("name", "ä b", good("ä b".into())),
    ] {
        let read = reading(device.property(name).unwrap(), text);
        assert_eq!(read.map(|read| (read.value, read.quality.to_string())), expected, "{name} {text:?}");
    }
    assert!(device.property("other").is_none());
}

#[test]
fn a_wish_is_fulfilled_by_what_the_device_shows_and_by_nothing_else() {
    let served = served("{id: c1, profile: acme.camera, connection: cam}");
    let device = served.find("default", "c1").unwrap();
    let zoom = device.property("zoom").unwrap();
    let pending = wish(2.5.into(), DesiredState::Pending);
    for (wish, shown, observed, expected) in [
        (&pending, Value::from(2.5), Some("2.5"), Verdict::Applied),
        (&pending, Value::from(2.5), None, Verdict::Applied),
        (&pending, Value::from(2.55), Some("2.5"), Verdict::Applied),
        (&pending, Value::from(1), Some("2.5"), Verdict::Missed),
        // The mapper still knows an older wish.
        (&pending, Value::from(1), Some("1"), Verdict::Open),
        (&pending, Value::Null, Some(""), Verdict::Open),
        (&wish(2.5.into(), DesiredState::Applied), Value::from(1), Some("2.5"), Verdict::Open),
    ] {
        assert_eq!(judge(zoom, wish, &shown, observed), expected, "{shown} {observed:?}");
    }
    let trusted: Vec<bool> = device.profile.properties.iter().map(is_taken_on_trust).collect();
    assert_eq!(trusted, [false, false, true, true, false]);
}

#[test]
fn a_protocol_is_one_level_of_a_topic() {
    for (name, fits) in
        [("opcua", true), ("modbus-tcp_2.0", true), ("", false), ("a/b", false), ("+", false), ("ä", false)]
    {
        assert_eq!(is_protocol(name), fits, "{name}");
    }
    assert!(!is_protocol(&"x".repeat(65)));
}
