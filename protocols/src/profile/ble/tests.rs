//! Profiles of Bluetooth devices, from the file to the value and back.

use std::sync::Arc;

use super::*;
use crate::ble::{Advertisement, Counters, Identity, Mac, Outcome, hex};
use crate::profile::{Library, Resolved, Wish};
use crate::value::{Now, Quality, Reading, Timestamp, Value, Why};
use crate::yaml::{Complaint, Complaints, Place, read};

const BTHOME: &str = include_str!("../../../../tests/data/profiles/bthome-env.yaml");

/// Address and key of the worked example of bthome.io/encryption, and its packet with counter 0x33221100.
const MAC: &str = "54:48:E6:8F:80:A5";
const KEY: &str = "231d39c1d7cc1ab1aee224cd096db932";
const SEALED: &str = "41a47266c95f730011223378237214";

const HEAD: &str = "schema: 1\nid: a.b\nversion: 1.0.0\nmeta: {vendor: A, model: B}\n";

fn library(text: &str) -> Library {
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    library.add("p.yaml", text, false, &mut complaints);
    assert_eq!(complaints.into_sorted(), []);
    library
}

fn check(text: &str) -> Vec<Complaint> {
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    library.add("p.yaml", text, false, &mut complaints);
    for id in library.ids() {
        library.check(id, &mut complaints);
    }
    complaints.into_sorted()
}

fn shown(complaints: &[Complaint]) -> String {
    complaints.iter().map(|complaint| format!("{complaint}\n")).collect()
}

fn resolve(library: &mut Library, profile: &str, device: &str) -> Result<Resolved, String> {
    let place = Place { file: "gateway.yaml".into(), line: 9, column: 9 };
    let device = read("gateway.yaml", device, &mut Complaints::new()).unwrap();
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

fn listener(text: &str, id: &str, device: &str) -> Listener {
    let resolved = resolve(&mut library(text), id, device).unwrap();
    Listener::new(resolved.profile, resolved.ble.unwrap())
}

fn now(tick: u64) -> Now {
    Now { tick, wall: Timestamp::from_ms(i64::try_from(tick).unwrap()) }
}

fn bthome(digits: &str) -> Advertisement {
    let data = hex(digits.as_bytes()).unwrap();
    Advertisement {
        address: Some(MAC.parse().unwrap()),
        service_data: vec![(Uuid::from_u16(0xFCD2), data)],
        ..Advertisement::default()
    }
}

/// Name → value of what was heard.
fn values(listener: &Listener, readings: &[(usize, Reading)]) -> Vec<(String, Value)> {
    let name = |index: usize| listener.profile().properties[index].name.to_string();
    readings.iter().map(|(index, reading)| (name(*index), reading.value.clone())).collect()
}

#[test]
fn a_mistake_is_told_with_its_place_and_what_would_be_right() {
    let ble = "ble: {match: {service_data: \"fcd2\"}, advertisement: {decode: bthome2}}\n";
    let gatt = "ble: {match: {name: X}, gatt: {characteristics: {level: {service: \"180f\", characteristic: \"2a19\"}, own: {service: \"aaaa\", characteristic: \"bbbb\"}}}}\n";
    let one = "properties:\n  p: {type: int, from: {ble: {object: battery}}}\n";
    let mut wrong = Vec::new();
    for (body, expected) in [
        (
            format!("{ble}properties:\n  p: {{type: int, from: {{ble: {{object: batery}}}}}}\n"),
            "p.yaml:7:39: bthome2 has no object \"batery\"\n  did you mean \"battery\"? objects: acceleration, ",
        ),
        (
            format!("{ble}properties:\n  p: {{type: int, from: {{ble: {{event: btn}}}}}}\n"),
            "p.yaml:7:38: bthome2 has no event \"btn\"\n  events: button, dimmer\n",
        ),
        (
            format!("{ble}properties:\n  p: {{type: int, from: {{ble: {{}}}}}}\n"),
            "p.yaml:7:25: it names no place\n  write one of: object, event, meta, gatt, service_data, manufacturer_data\n",
        ),
        (
            format!("{ble}properties:\n  p: {{type: int, from: {{ble: {{object: battery, meta: rssi}}}}}}\n"),
            "p.yaml:7:25: it names two places\n  write one of: ",
        ),
        (
            format!("{ble}properties:\n  p: {{type: int, from: {{ble: {{object: battery, type: uint8}}}}}}\n"),
            "p.yaml:7:54: type belongs to gatt, service_data and manufacturer_data\n  leave it out",
        ),
        (
            format!("{ble}properties:\n  p: {{type: int, access: rw, from: {{ble: {{object: battery}}}}}}\n"),
            "p.yaml:7:26: \"p\" cannot be written: it comes out of advertisements\n  write access: r, or ",
        ),
        (
            format!("{ble}properties:\n  p: {{type: int, from: {{ble: {{service_data: 1809, type: uint8}}}}}}\n"),
            "p.yaml:7:45: \"service_data\" is a whole number\n  ",
        ),
        (
            format!("{ble}properties:\n  p: {{type: int, from: {{ble: {{service_data: \"180\", type: uint8}}}}}}\n"),
            "p.yaml:7:45: \"service_data\" cannot be \"180\"\n  ",
        ),
        (
            format!("{ble}properties:\n  p: {{type: int, from: {{ble: {{service_data: \"1809\"}}}}}}\n"),
            "p.yaml:7:25: the type of the value is missing\n  write type: uint8, int16, utf8 …\n",
        ),
        (
            format!(
                "{ble}properties:\n  p: {{type: int, from: {{ble: {{service_data: \"1809\", type: uint8, bits: 9}}}}}}\n"
            ),
            "p.yaml:7:72: there are no such bits in uint8\n  ",
        ),
        (
            format!("{gatt}properties:\n  p: {{type: int, from: {{ble: {{gatt: lvel}}}}}}\n"),
            "p.yaml:7:37: there is no characteristic \"lvel\"\n  did you mean \"level\"? characteristics: level, own\n",
        ),
        (
            format!("{gatt}properties:\n  p: {{type: int, from: {{ble: {{gatt: own}}}}}}\n"),
            "p.yaml:7:25: the type of the value is missing\n  ",
        ),
        (
            format!(
                "{gatt}properties:\n  p: {{type: int, access: w, from: {{ble: {{gatt: own, type: uint8, at: 1}}}}}}\n"
            ),
            "p.yaml:7:26: \"p\" cannot be written: it is only a part of its characteristic\n  ",
        ),
        (
            format!("ble: {{match: {{name: X}}}}\n{one}"),
            "p.yaml:5:1: properties take objects out of a decoder, and there is none\n  write ble: {advertisement: {decode: bthome2}}, ",
        ),
        (
            format!("ble: {{advertisement: {{decode: bthome2}}}}\n{one}"),
            "p.yaml:5:1: nothing says which device is meant\n  write match: ",
        ),
        (
            format!("ble: {{match: {{name: \"(\"}}, advertisement: {{decode: bthome2}}}}\n{one}"),
            "p.yaml:5:21: the pattern cannot be read: ",
        ),
        (
            format!("ble: {{match: {{name: X}}, advertisement: {{decode: bthome}}}}\n{one}"),
            "p.yaml:5:49: \"decode\" cannot be \"bthome\"\n  did you mean \"bthome2\"? ",
        ),
        (
            format!(
                "ble: {{match: {{name: X}}, advertisement: {{decode: bthome2}}, presence: {{timeout: 0s}}}}\n{one}"
            ),
            "p.yaml:5:79: nothing is present for 0 time\n  ",
        ),
        (
            format!("ble: {{match: {{name: X}}, advertisement: {{decode: bthome2, key: \"12\"}}}}\n{one}"),
            "p.yaml:5:63: the key is not 32 hexadecimal digits\n  ",
        ),
        (
            format!(
                "ble: {{match: {{name: X}}, advertisement: {{decode: bthome2, require_encryption: maybe}}}}\n{one}"
            ),
            "p.yaml:5:78: require_encryption is neither true nor false\n  ",
        ),
        (
            format!("ble: {{match: {{name: X}}, address: \"12:34\", advertisement: {{decode: bthome2}}}}\n{one}"),
            "p.yaml:5:34: \"12:34\" is no Bluetooth address",
        ),
        (
            format!(
                "ble: {{match: {{name: X}}, advertisement: {{decode: bthome2}}, gatt: {{pairing: passkey}}}}\n{one}"
            ),
            "p.yaml:5:75: pairing with a passkey needs one\n  ",
        ),
        (
            format!(
                "ble: {{match: {{name: X}}, advertisement: {{decode: bthome2}}, gatt: {{characteristics: {{c: {{service: \"aaaa\", characteristic: \"bbbb\", op: write}}}}}}}}\n{one}"
            ),
            "p.yaml:5:133: nothing says what is written to \"c\"\n  ",
        ),
        (
            format!(
                "ble: {{match: {{name: X}}, advertisement: {{decode: bthome2}}, gatt: {{characteristics: {{c: {{service: \"aaaa\", characteristic: \"bbbb\", value: \"0\", op: write}}}}}}}}\n{one}"
            ),
            "p.yaml:5:136: the value is no pairs of hexadecimal digits\n  ",
        ),
        (
            "properties:\n  p: {type: int, from: {ble: {meta: rssi}}}\n".to_owned(),
            "p.yaml:6:25: the profile has no section ble\n  ",
        ),
        (
            format!(
                "{ble}{one}tests: [{{name: t, input: {{ble: {{service_data: {{fcd2: \"4\"}}}}}}, expect: {{}}}}]\n"
            ),
            "p.yaml:8:27: \"4\" is no pairs of hexadecimal digits; write them in quotes\n  ",
        ),
        (
            format!("{ble}{one}tests: [{{name: t, input: {{ble: {{servicedata: {{}}}}}}, expect: {{}}}}]\n"),
            "p.yaml:8:27: there is no \"servicedata\" in a packet; ",
        ),
        (
            format!(
                "params: {{k: {{type: secret}}}}\n{ble}properties:\n  p: {{type: int, title: \"${{k}}\", from: {{ble: {{object: battery}}}}}}\n"
            ),
            "p.yaml:8:25: the secret \"k\" cannot stand here: it would be shown\n  ",
        ),
    ] {
        let found = shown(&check(&format!("{HEAD}{body}")));
        // One mistake, one complaint.
        if !found.starts_with(expected) || found.lines().count() > 2 {
            wrong.push(format!("\n{body}\nfound:    {found:?}\nexpected: {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn a_secret_is_in_nothing_that_is_shown() {
    let mut library = library(BTHOME);
    let device = format!("{{params: {{address: \"{MAC}\", bindkey: {KEY}}}}}");
    let resolved = resolve(&mut library, "bthome.environment", &device).unwrap();
    let shown = format!("{resolved:?}");
    assert!(!shown.contains(KEY) && !shown.contains("231d"), "{shown}");
    assert!(resolved.ble.as_ref().is_some_and(|own| own.key.is_some() && own.requires_encryption));
    // Devices that differ in their address and key share one profile, and its hash tells nothing of them.
    let other = resolve(&mut library, "bthome.environment", "{params: {address: \"A4:C1:38:8D:18:B2\"}}").unwrap();
    assert!(Arc::ptr_eq(&resolved.profile, &other.profile));
    assert_eq!(other.ble, Some(Identity { address: "A4:C1:38:8D:18:B2".parse().ok(), ..Identity::default() }));
    // Wrong in many ways at once, and never repeated.
    for key in ["0123456789abcdeffedcba987654321", "not-a-key", KEY] {
        for over in
            ["", ", override: {groups: {adv: {interval: 0s}}}", ", override: {ble: {presence: {timeout: soon}}}"]
        {
            let device = format!("{{params: {{address: \"12\", bindkey: \"{key}\"}}{over}}}");
            let found = resolve(&mut library, "bthome.environment", &device).unwrap_err();
            assert!(!found.contains(key), "{found}");
        }
    }
    // A key of decimal digits alone that was left without its quotes.
    let (mut complaints, bare) = (Complaints::new(), "12345678901234567890123456789012");
    read("gateway.yaml", &format!("{{params: {{bindkey: {bare}}}}}"), &mut complaints);
    let found = self::shown(&complaints.into_sorted());
    assert!(found.contains("in quotes") && !found.contains(bare), "{found}");
    // A profile that would show it is refused, before its parameters are filled in.
    let shows = format!(
        "{HEAD}params: {{k: {{type: secret}}}}\nble: {{match: {{name: X}}}}\nproperties:\n  p: {{type: int, unit: \"${{k}}\", scale: \"${{k}}\", from: {{ble: {{meta: rssi}}}}}}\n"
    );
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    library.add("p.yaml", &shows, false, &mut complaints);
    let found = resolve(&mut library, "a.b", &format!("{{params: {{k: {KEY}}}}}")).unwrap_err();
    assert!(found.contains("cannot stand here") && !found.contains(KEY), "{found}");
}

#[test]
fn a_packet_that_is_not_believed_is_counted_under_its_name_and_tells_nothing() {
    let device = format!("{{params: {{address: \"{MAC}\", bindkey: {KEY}}}}}");
    let mut own = listener(BTHOME, "bthome.environment", &device);
    let forged = SEALED.replace("78237214", "78237215");
    for (tick, digits, expected) in [
        (0, "4002ca0903bf13", Outcome::Downgraded),
        (1_000, forged.as_str(), Outcome::Undecryptable),
        (2_000, SEALED, Outcome::Decoded),
        (2_100, SEALED, Outcome::Duplicate),
        (3_000, "41", Outcome::Malformed),
        (4_000, "20", Outcome::Unknown),
        (600_000, SEALED, Outcome::Duplicate),
        // Another packet with the counter that was used already (bthome-ble's encrypted motion example).
        (601_000, "4187b90011223372b0231f", Outcome::Replayed),
        (602_000, "4002ca0903bf13", Outcome::Downgraded),
    ] {
        let heard = own.hear(&bthome(digits), now(tick));
        assert_eq!(heard.outcome, expected, "{tick}: {digits}");
        let told = values(&own, &heard.readings);
        let has_values = told.iter().any(|(name, _)| name == "temperature");
        assert_eq!(has_values, expected.has_values(), "{tick}: {told:?}");
        // Whoever forges a packet does not make the device present either.
        assert!(!expected.is_suspect() || told.is_empty(), "{tick}: {told:?}");
    }
    assert!(!own.hear(&Advertisement::default(), now(603_000)).outcome.has_values());
    let counted: Vec<(&str, u64)> = own.counters().iter().filter(|(_, count)| *count > 0).collect();
    let expected = [
        ("decoded", 1),
        ("unknown", 2),
        ("malformed", 1),
        ("duplicate", 2),
        ("replayed", 1),
        ("undecryptable", 1),
        ("downgraded", 2),
    ];
    assert_eq!(counted, expected);
    assert_eq!(own.counters().total(), 10);
    let mut sum = Counters::default();
    sum += *own.counters();
    assert_eq!(sum, *own.counters());
}

#[test]
fn a_device_without_a_key_says_so_and_is_not_believed_in_clear_text_after() {
    let mut own = listener(BTHOME, "bthome.environment", &format!("{{params: {{address: \"{MAC}\"}}}}"));
    assert_eq!(own.hear(&bthome("4002ca0903bf13"), now(0)).outcome, Outcome::Decoded);
    assert_eq!(own.hear(&bthome(SEALED), now(10_000)).outcome, Outcome::NoKey);
    assert_eq!(own.hear(&bthome("4002ca0903bf13"), now(20_000)).outcome, Outcome::Downgraded);
}

#[test]
fn the_type_of_a_property_tells_two_objects_of_one_name_apart() {
    let text = format!(
        "{HEAD}ble: {{match: {{service_data: \"fcd2\"}}, advertisement: {{decode: bthome2}}}}\nproperties:\n  \
         level: {{type: int, from: {{ble: {{object: battery}}}}}}\n  low: {{type: bool, from: {{ble: {{object: battery}}}}}}\n  \
         lux: {{type: number, from: {{ble: {{object: light}}}}}}\n  is_light: {{type: bool, from: {{ble: {{object: light}}}}}}\n  \
         second: {{type: number, from: {{ble: {{object: temperature, index: 2}}}}}}\n  \
         motion: {{type: int, from: {{ble: {{object: motion}}}}}}\n"
    );
    let mut own = listener(&text, "a.b", "{}");
    // Battery 93, low; 13460.67 lx, light; 25.06 °C, 25.11 °C; motion: objects of bthome_v2_objects.json.
    let heard = own.hear(&bthome("40015d02ca0902cf0905138a1415011e012101"), now(0));
    assert_eq!(heard.outcome, Outcome::Decoded);
    let mut found = values(&own, &heard.readings);
    found.sort_by(|(one, _), (two, _)| one.cmp(two));
    let expected = [
        ("is_light", Value::from(true)),
        ("level", 93.into()),
        ("low", true.into()),
        ("lux", 13460.67.into()),
        ("motion", 1.into()),
        ("presence", PRESENT.into()),
        ("second", 25.11.into()),
    ];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn presence_comes_and_goes_with_what_is_heard() {
    let mut own = listener(BTHOME, "bthome.environment", &format!("{{params: {{address: \"{MAC}\"}}}}"));
    assert_eq!(own.deadline(), Some(0));
    assert_eq!(own.check(now(0)), []);
    let heard = own.hear(&bthome("4002ca0903bf13"), now(1_000));
    assert!(values(&own, &heard.readings).contains(&("presence".into(), PRESENT.into())));
    assert!(own.is_present());
    let again = own.hear(&bthome("4002ca0903bf13"), now(2_000));
    assert_eq!((again.outcome, again.readings), (Outcome::Duplicate, vec![]));
    // Fifteen minutes after the last packet, a repeated one included.
    assert_eq!(own.deadline(), Some(902_000));
    let gone = own.check(now(902_000));
    assert_eq!(values(&own, &gone), [("presence".to_owned(), AWAY.into())]);
    assert_eq!((own.check(now(903_000)), own.deadline(), own.is_present()), (vec![], None, false));
    let back = own.hear(&bthome("4002ca0903bf13"), now(904_000));
    assert!(values(&own, &back.readings).contains(&("presence".into(), PRESENT.into())));
    assert_eq!(own.last_address().map(|(mac, _)| mac), MAC.parse().ok());
}

#[test]
fn a_characteristic_is_read_and_written_as_the_profile_says() {
    let text = format!(
        "{HEAD}ble:\n  match: {{name: X}}\n  gatt:\n    characteristics:\n      \
         level: {{service: \"180f\", characteristic: \"2a19\", op: notify}}\n      \
         hr: {{service: \"180d\", characteristic: \"2a37\", op: notify}}\n      \
         set: {{service: \"aaaa\", characteristic: \"bbbb\"}}\n      \
         name: {{service: \"aaaa\", characteristic: \"bbbc\", op: write_without_response}}\n      \
         volt: {{service: \"aaaa\", characteristic: \"2b18\"}}\n      \
         clock: {{service: \"1805\", characteristic: \"2a2b\", op: write, every: 7d}}\n      \
         wake: {{service: \"aaaa\", characteristic: \"bbbd\", op: write, value: \"01FF\"}}\n\
         properties:\n  \
         level: {{type: int, from: {{ble: {{gatt: level}}}}}}\n  \
         rate: {{type: int, from: {{ble: {{gatt: hr}}}}}}\n  \
         energy: {{type: int, from: {{ble: {{gatt: hr, object: energy_expended}}}}}}\n  \
         setpoint: {{type: number, access: rw, scale: 0.1, write: {{min: 5, max: 30}}, from: {{ble: {{gatt: set, type: int16}}}}}}\n  \
         mode: {{type: enum, enum: {{0: off, 2: heat}}, from: {{ble: {{gatt: set, at: 2, type: uint8, bits: 0..3}}}}}}\n  \
         label: {{type: string, access: w, from: {{ble: {{gatt: name, type: utf8, length: 8}}}}}}\n  \
         volt: {{type: number, access: rw, from: {{ble: {{gatt: volt}}}}}}\n"
    );
    assert_eq!(shown(&check(&text)), "");
    let mut own = listener(&text, "a.b", "{}");
    let gatt = own.profile().ble.as_ref().and_then(|device| device.gatt.clone()).unwrap();
    let mut told = |name: &str, digits: &str| {
        let readings = own.characteristic(gatt.find(name).unwrap(), &hex(digits.as_bytes()).unwrap(), now(0));
        let name = |index: usize| own.profile().properties[index].name.to_string();
        let shown =
            readings.iter().map(|(index, reading)| format!("{}={} {}", name(*index), reading.value, reading.quality));
        shown.filter(|shown| !shown.starts_with("presence")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(told("level", "64"), "level=100 good");
    assert_eq!(told("hr", "0848640000"), "rate=72 good, energy=100 good");
    assert_eq!(told("hr", "0048"), "rate=72 good, energy=null bad:decode");
    assert_eq!(told("set", "d700f2"), "setpoint=21.5 good, mode=\"heat\" good");
    assert_eq!(told("set", "d7"), "setpoint=null bad:decode, mode=null bad:decode");
    assert_eq!(told("name", "41"), "");
    let properties = &own.profile().properties;
    let find = |name: &str| &properties[own.profile().find(name).unwrap()];
    let write = |name: &str, value: Value| find(name).accept(&value).and_then(|value| find(name).to_gatt(&value));
    let bytes = |name: &str, characteristic: &str, digits: &str, with_response| {
        let bytes = hex(digits.as_bytes()).unwrap();
        let written = GattWrite { characteristic: gatt.find(characteristic).unwrap(), bytes, with_response };
        (name.to_owned(), Ok(written))
    };
    for (value, (name, expected)) in [
        (21.5.into(), bytes("setpoint", "set", "d700", true)),
        ("Bad".into(), bytes("label", "name", "426164", false)),
        (2.into(), bytes("volt", "volt", "8000", true)),
        (40.into(), ("setpoint".into(), Err("above maximum 30".into()))),
        ("too long a name".into(), ("label".into(), Err("15 bytes, where 8 have room".into()))),
        (2_000.into(), ("volt".into(), Err("above maximum 1023".into()))),
        (1.into(), ("level".into(), Err("is read-only".into()))),
    ] {
        assert_eq!(write(&name, value), expected, "{name}");
    }
    assert!(find("setpoint").same_encoded(&21.5.into(), &21.52.into()));
    assert!(!find("setpoint").same_encoded(&21.5.into(), &21.6.into()));
    let payload = |name: &str| gatt.characteristics[gatt.find(name).unwrap()].payload.clone();
    assert_eq!(payload("clock"), Some(Payload::CurrentTime));
    assert_eq!(payload("wake"), Some(Payload::Bytes(vec![1, 0xFF])));
    // The port visits the device by itself; the timetable of wires has nothing to do with it.
    let polled = |name: &str| find(name).source.is_polled();
    assert_eq!(["level", "setpoint", "mode", "label"].map(polled), [false; 4]);
}

/// Formats this version has no decoder for, by the places of their values: vectors of ble_monitor (jaalee_jht,
/// bparasite_v2, tilt_red), whose sources round.
#[test]
fn a_device_without_a_decoder_is_read_by_the_places_of_its_values() {
    for (pattern, properties, adv, expected) in [
        (
            "{service_data: \"f525\"}",
            "battery: {type: int, from: {ble: {service_data: \"f525\", at: 0, type: uint8}}}\n  \
             address: {type: string, from: {ble: {service_data: \"f525\", at: 1, type: mac}}}\n  \
             temperature: {type: number, scale: 0.002670328831921874, offset: -45, precision: 2, from: {ble: {service_data: \"f525\", at: 7, type: uint16be}}}\n  \
             humidity: {type: number, scale: 0.001525902189669642, precision: 2, from: {ble: {service_data: \"f525\", at: 9, type: uint16be}}}",
            Advertisement {
                service_data: vec![(Uuid::from_u16(0xF525), hex(b"644b1ecdb4f3d27420591a").unwrap())],
                ..Default::default()
            },
            "address=\"D2:F3:B4:CD:1E:4B\" battery=100 humidity=34.81 temperature=34.38",
        ),
        (
            "{service_data: \"181a\"}",
            "packet: {type: int, from: {ble: {service_data: \"181a\", at: 1, type: uint8, bits: 0..3}}}\n  \
             voltage: {type: number, scale: 0.001, from: {ble: {service_data: \"181a\", at: 2, type: uint16be}}}\n  \
             temperature: {type: number, scale: 0.001, from: {ble: {service_data: \"181a\", at: 4, type: uint16be}}}\n  \
             light: {type: int, from: {ble: {service_data: \"181a\", at: 16, type: uint16be}}}",
            Advertisement {
                service_data: vec![(Uuid::from_u16(0x181A), hex(b"110b0aa1542cbca1fffff0caf0ca02010042").unwrap())],
                ..Default::default()
            },
            "light=66 packet=11 temperature=21.548 voltage=2.721",
        ),
        (
            "{manufacturer_data: \"004c:0215a495bb10c5b14b44b5121370f02d74de\"}",
            "gravity: {type: number, scale: 0.001, from: {ble: {manufacturer_data: \"004c\", at: 20, type: uint16be}}}\n  \
             temperature: {type: number, scale: 0.555555555555555556, offset: -17.777777777777777, precision: 1, from: {ble: {manufacturer_data: \"004c\", at: 18, type: uint16be}}}",
            Advertisement {
                manufacturer: vec![(0x004C, hex(b"0215a495bb10c5b14b44b5121370f02d74de004403f8c5").unwrap())],
                ..Default::default()
            },
            "gravity=1.016 temperature=20.0",
        ),
    ] {
        let text = format!(
            "{HEAD}ble: {{match: {pattern}, advertisement: {{decode: fields}}}}\nproperties:\n  {properties}\n"
        );
        assert_eq!(shown(&check(&text)), "");
        let mut own = listener(&text, "a.b", "{}");
        assert!(own.profile().ble.as_ref().is_some_and(|device| device.pattern.fits(&adv)));
        let heard = own.hear(&adv, now(0));
        assert_eq!(heard.outcome, Outcome::Decoded);
        let mut found: Vec<String> = values(&own, &heard.readings)
            .into_iter()
            .filter(|(name, _)| name != "presence")
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        found.sort();
        assert_eq!(found.join(" "), expected);
        assert_eq!(own.hear(&adv, now(100)).outcome, Outcome::Duplicate);
        assert_eq!(own.hear(&Advertisement::default(), now(200)).outcome, Outcome::Unknown);
    }
}

#[test]
fn a_device_changes_its_times_but_not_its_form() {
    let mut library = library(BTHOME);
    let resolved =
        resolve(&mut library, "bthome.environment", "{override: {ble: {presence: {timeout: 30m}}}}").unwrap();
    assert_eq!(resolved.profile.silence(), Some(Duration::from_secs(1_800)));
    let found = resolve(&mut library, "bthome.environment", "{override: {ble: {advertisement: {decode: ruuvi5}}}}")
        .unwrap_err();
    assert!(found.contains("\"ble.advertisement.decode\" is the wire layout"), "{found}");
}

#[test]
fn a_test_that_expects_nothing_fails_when_something_comes_out() {
    let text = format!(
        "{HEAD}ble: {{match: {{service_data: \"fcd2\"}}, advertisement: {{decode: bthome2}}}}\nproperties:\n  \
         p: {{type: int, from: {{ble: {{object: battery}}}}}}\ntests:\n  \
         - {{name: one, input: {{ble: {{service_data: {{fcd2: \"40015d\"}}}}}}, expect: {{}}}}\n  \
         - {{name: two, input: {{ble: {{service_data: {{fcd2: \"20015d\"}}}}}}, expect: {{}}}}\n  \
         - {{name: three, input: {{ble: {{gatt: {{battery: \"5d\"}}}}}}, expect: {{}}}}\n"
    );
    let outcome = library(&text).test("a.b");
    let failed: Vec<(&str, &str, Value)> = outcome
        .failed
        .iter()
        .map(|failure| (failure.test.as_str(), failure.property.as_str(), failure.got.clone()))
        .collect();
    let expected =
        [("one", "p", Value::from(93)), ("three", "", "the profile has no characteristic \"battery\"".into())];
    assert_eq!((outcome.passed, failed), (1, expected.to_vec()));
}

#[test]
fn the_senders_of_a_device_without_an_address_are_kept_apart_and_bounded() {
    let mut own = listener(BTHOME, "bthome.environment", "{}");
    for number in 0..100_u8 {
        let adv = Advertisement { address: Some(Mac([number; 6])), ..bthome("4002ca0903bf13") };
        assert_eq!(own.hear(&adv, now(0)).outcome, Outcome::Decoded);
        assert_eq!(own.hear(&adv, now(1)).outcome, Outcome::Duplicate);
    }
    // The first one has been forgotten by now; the last ones have not.
    let first = Advertisement { address: Some(Mac([0; 6])), ..bthome("4002ca0903bf13") };
    assert_eq!(own.hear(&first, now(2)).outcome, Outcome::Decoded);
    let last = Advertisement { address: Some(Mac([99; 6])), ..bthome("4002ca0903bf13") };
    assert_eq!(own.hear(&last, now(3)).outcome, Outcome::Duplicate);
}

#[test]
fn the_strength_is_a_mean_and_a_bad_object_has_its_reason() {
    let mut own = listener(BTHOME, "bthome.environment", "{}");
    let seen = |rssi, digits: &str| Advertisement { rssi: Some(rssi), ..bthome(digits) };
    own.hear(&seen(-60, "4002ca09"), now(0));
    let heard = own.hear(&seen(-70, "4002cb09"), now(1_000));
    assert!(values(&own, &heard.readings).contains(&("rssi".into(), (-65).into())));
    // 327.67 °C is beyond the profile's range.
    let heard = own.hear(&seen(-70, "4002ff7f"), now(40_000));
    let index = own.profile().find("temperature").unwrap();
    let found = heard.readings.iter().find(|(own, _)| *own == index).map(|(_, reading)| reading.quality);
    assert_eq!(found, Some(Quality::Bad(Why::Range)));
}

#[test]
fn what_is_in_the_air_is_told_with_the_profiles_that_would_fit() {
    let other = format!(
        "{HEAD}ble: {{match: {{service_data: \"fcd2\"}}, advertisement: {{decode: bthome2}}}}\nproperties:\n  p: {{type: bool, from: {{ble: {{object: window}}}}}}\n"
    );
    let mut library = library(BTHOME);
    library.add("o.yaml", &other, false, &mut Complaints::new());
    let air = library.air();
    assert_eq!(air.fits(&bthome("4002ca0903bf13")), ["bthome.environment", "a.b"]);
    assert_eq!(air.fits(&bthome("402d01")), ["a.b", "bthome.environment"]);
    assert_eq!(air.fits(&bthome(SEALED)).len(), 2);
    assert_eq!(air.fits(&Advertisement::default()), Vec::<&str>::new());
}

proptest::proptest! {
    #[test]
    fn nothing_that_is_heard_makes_a_listener_panic(
        steps in proptest::collection::vec((proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), 0_u64..600_000), 0..40)
    ) {
        let device = format!("{{params: {{address: \"{MAC}\", bindkey: {KEY}}}}}");
        let mut own = listener(BTHOME, "bthome.environment", &device);
        let mut tick = 0;
        let count = steps.len() as u64;
        for (data, after) in steps {
            tick += after;
            let adv = Advertisement { service_data: vec![(Uuid::from_u16(0xFCD2), data.clone())], ..Default::default() };
            let heard = own.hear(&adv, now(tick));
            proptest::prop_assert!(heard.readings.len() <= own.profile().properties.len());
            own.check(now(tick));
            for index in 0..5 {
                own.characteristic(index, &data, now(tick));
            }
        }
        proptest::prop_assert_eq!(own.counters().total(), count);
    }
}
