//! Every shipped serial profile is played in its own recorded messages, with other values, and reads those.

use std::sync::Arc;

use super::*;
use crate::codec::Raw;
use crate::profile::{Kind, Library, Wish};
use crate::value::from_f64;
use crate::yaml::{Complaints, Place};

macro_rules! shipped {
    ($($name:literal),* $(,)?) => { [$(include_str!(concat!("../../../../configs/profiles/", $name, ".yaml"))),*] };
}

const SHIPPED: [&str; 10] = shipped![
    "dfrobot.a02yyuw",
    "dsmr.p1",
    "generic.ascii_scale",
    "generic.iec62056_21",
    "generic.nmea0183-gps",
    "generic.sml_meter",
    "maxbotix.hrxl",
    "novafitness.sds011",
    "plantower.pms5003",
    "winsen.mhz19",
];

fn shipped() -> Vec<(Arc<Profile>, Vec<Vec<u8>>)> {
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    let ids: Vec<String> = SHIPPED.iter().filter_map(|text| library.add("p", text, true, &mut complaints)).collect();
    let place = Place { file: "test".into(), line: 1, column: 1 };
    let mut resolve = |id: &String| {
        let wish = Wish { profile: id, place: &place, params: None, over: None, is_unsafe: false };
        let profile = library.resolve(&wish, &mut complaints).unwrap().profile;
        (profile, library.recordings(id))
    };
    ids.iter().map(&mut resolve).collect()
}

fn by_name(profile: &Profile, name: &str) -> usize {
    profile.find(name).unwrap_or_else(|| panic!("{} has no {name}", profile.id))
}

/// The values that a line of one message leaves behind.
fn read(profile: &Profile, line: &[u8]) -> Vec<(usize, Value, Quality)> {
    let (mut framer, mut frames) = (profile.serial.as_ref().unwrap().framer(), Vec::new());
    framer.feed(line, &mut frames);
    framer.on_quiet(&mut frames);
    assert_eq!(framer.counts().dropped(), 0, "{}: {:?}", profile.id, framer.counts());
    frames.iter().flat_map(|frame| profile.hear(&frame.bytes).values).collect()
}

#[test]
fn other_values_are_read_where_the_recorded_ones_were_and_nothing_else_moves() {
    let mut seen = 0;
    for (profile, recordings) in shipped() {
        let moulds = profile.moulds(&recordings);
        assert!(!moulds.is_empty(), "{}", profile.id);
        for mould in moulds {
            let recorded = read(&profile, &mould.cast(&profile, &[]).unwrap());
            for (index, value) in &mould.lives {
                let property = &profile.properties[*index];
                let visit = property.source.serial().unwrap();
                let other = match property.kind {
                    Kind::Datetime => Value::from("2026-05-04T03:02:01.000Z"),
                    Kind::Int => Value::from(value.as_i64().unwrap() + 1),
                    _ => from_f64(value.as_f64().unwrap() * 1.25 + 0.25),
                };
                let raw = property.living(visit, &other).unwrap();
                let line = mould.cast(&profile, &[(*index, raw)]).unwrap();
                for ((own, told, quality), (_, before, _)) in read(&profile, &line).into_iter().zip(&recorded) {
                    let name = &profile.properties[own].name;
                    if own != *index {
                        assert_eq!(&told, before, "{} {name} moves with {}", profile.id, property.name);
                        continue;
                    }
                    let near = match (told.as_f64(), other.as_f64()) {
                        (Some(told), Some(other)) => (told - other).abs() <= other.abs() * 0.02 + 0.06,
                        _ => told == other,
                    };
                    assert!(near, "{} {name}: {told} for {other} ({quality})", profile.id);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 60, "only {seen} values");
}

/// What a person is told does not live; everything else of these profiles does.
#[test]
fn what_stays_as_it_was_recorded_is_named() {
    for (id, lives, stiff) in [
        ("generic.nmea0183-gps", &["time", "latitude", "longitude", "speed", "altitude", "hdop"][..], &["fix"][..]),
        ("dsmr.p1", &["time", "energy_t1", "power", "voltage_l1", "gas"], &["meter_id"]),
        ("generic.sml_meter", &["energy"], &[]),
        ("generic.iec62056_21", &["energy"], &[]),
        ("winsen.mhz19", &["co2", "temperature"], &[]),
        ("plantower.pms5003", &["pm25", "n03"], &[]),
        ("novafitness.sds011", &["pm25", "pm10"], &["sensor_id"]),
        ("dfrobot.a02yyuw", &["distance"], &[]),
        ("maxbotix.hrxl", &["distance"], &[]),
        ("generic.ascii_scale", &["weight"], &["stable"]),
    ] {
        let (profile, recordings) = shipped().into_iter().find(|(profile, _)| profile.id == id).unwrap();
        let moulds = profile.moulds(&recordings);
        for name in lives {
            let index = by_name(&profile, name);
            let is_there = moulds.iter().any(|mould| mould.lives.iter().any(|(own, _)| *own == index));
            let why = moulds.iter().flat_map(|mould| &mould.stiff).find(|(own, _)| *own == index);
            assert!(is_there, "{id}: {name} does not live: {why:?}");
        }
        for name in stiff {
            let index = by_name(&profile, name);
            assert!(moulds.iter().any(|mould| mould.stiff.iter().any(|(own, _)| *own == index)), "{id}: {name}");
        }
    }
}

/// The requests are those of the makers' data sheets, as the profiles have them.
#[test]
fn a_request_is_known_by_its_bytes_and_a_written_value_is_taken_out_of_it() {
    let profile = |id: &str| shipped().into_iter().find(|(profile, _)| profile.id == id).unwrap().0;
    let sensor = profile("winsen.mhz19");
    let number = |name: &str| {
        let requests = &sensor.serial.as_ref().unwrap().requests;
        requests.iter().position(|request| request.name == name).unwrap()
    };
    let read = [0xFF, 0x01, 0x86, 0, 0, 0, 0, 0, 0x79];
    assert_eq!(sensor.asked(&read), Some((number("read_co2"), 9, None)));
    assert_eq!(sensor.asked(&read[..8]), None, "not all of it has come");
    let noisy = [&[0xFF, 0x00], read.as_slice()].concat();
    assert_eq!(sensor.asked(&noisy), Some((number("read_co2"), 11, None)));
    let damaged = [0xFF, 0x01, 0x86, 0, 0, 0, 0, 0, 0x78];
    assert_eq!(sensor.asked(&damaged), None);
    let on = [0xFF, 0x01, 0x79, 0xA0, 0, 0, 0, 0, 0xE6];
    assert_eq!(sensor.asked(&on), Some((number("baseline"), 9, Some(Raw::Int(160)))));
    let written: Vec<usize> = sensor.written_by(number("baseline")).collect();
    assert_eq!(written, [by_name(&sensor, "automatic_baseline")]);
    // Of the scale, "{value}\r\n" presses a key, and would take the question for one.
    let scale = profile("generic.ascii_scale");
    let named = |sent: &[u8]| {
        let (number, _, value) = scale.asked(sent).unwrap();
        (scale.serial.as_ref().unwrap().requests[number].name.clone(), value)
    };
    assert_eq!(named(b"Q\r\n"), ("read".to_owned(), None));
    assert_eq!(named(b"T\r\n"), ("key".to_owned(), Some(Raw::Text("T".to_owned()))));
}
