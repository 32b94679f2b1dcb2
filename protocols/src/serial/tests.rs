//! Framing, checks and extraction against vectors of other implementations, and against every split of a stream.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::checksum::{Algorithm, Check, Crc, Edge, Notation, Spot, Verdict, referee};
use super::frame::{Counts, Frame, Framer, Framing, Kind};
use super::{acknowledgement, identification};

const CRC: &str = include_str!("../../../tests/data/crc.json");
const FRAMES: &str = include_str!("../../../tests/data/serial_frames.json");
const NMEA: &str = include_str!("../../../tests/data/nmea.json");

fn vectors(text: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(text).unwrap();
    all["vectors"].as_array().unwrap().clone()
}

/// The `crc` crate's own digest.
pub(super) trait Judge {
    fn judge(&'static self, message: &[u8]) -> u64;
}

macro_rules! judges {
    ($($width:ty),*) => {$(
        impl Judge for crc::Algorithm<$width> {
            fn judge(&'static self, message: &[u8]) -> u64 {
                u64::from(crc::Crc::<$width>::new(self).checksum(message))
            }
        }
    )*};
}
judges!(u8, u16, u32, u64);

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_check_of_the_catalogue_gives_its_published_value() {
    for vector in vectors(CRC) {
        let name = vector["name"].as_str().unwrap();
        let input = vector["check_input"].as_str().unwrap().as_bytes();
        let algorithm = match vector.get("width") {
            Some(width) => Algorithm::Crc(Box::new(Crc::new(
                width.as_u64().unwrap() as u8,
                number(&vector["poly"]),
                number(&vector["init"]),
                (vector["refin"].as_bool().unwrap(), vector["refout"].as_bool().unwrap()),
                number(&vector["xorout"]),
            ))),
            None => match name.split([' ', '(']).next().unwrap() {
                "sum8" if name.contains("complement") => Algorithm::Sum8Negated,
                word => Algorithm::named(word).unwrap(),
            },
        };
        assert_eq!(algorithm.digest(input), number(&vector["check"]), "{name}");
        let plain =
            name.split(" (").next().unwrap().to_ascii_lowercase().replace("crc-", "crc").replace(['/', '-'], "_");
        if vector.get("width").is_some() {
            let by_name = Algorithm::named(&plain).unwrap_or_else(|| panic!("{plain} has no name"));
            assert_eq!(by_name.digest(input), number(&vector["check"]), "{plain}");
        }
    }
}

#[test]
fn our_engine_and_the_crc_crate_agree_on_every_algorithm() {
    for message in [b"".as_slice(), b"\0", b"123456789", &[0xFF; 40], &[0xA5, 0x00, 0x5A, 0x80, 0x01]] {
        for (name, expected) in referee(message) {
            assert_eq!(Algorithm::named(&name).unwrap().digest(message), expected, "{name} {message:?}");
        }
    }
    assert_eq!(Algorithm::named("fletcher16").unwrap().digest(b"abcdefgh"), 0x0627, "as Wikipedia has it");
    assert_eq!(Algorithm::named("crc17"), None);
}

fn framing(kind: Kind, start: &[u8], end: &[u8]) -> Framing {
    Framing {
        kind,
        start: start.to_vec(),
        end: end.to_vec(),
        strip: Vec::new(),
        keep: if kind == Kind::Line { (true, false) } else { (true, true) },
        ignore: Vec::new(),
        seven_bits: false,
        max: 64,
        gap: None,
    }
}

fn nmea() -> Framer {
    let check = Check {
        algorithm: Algorithm::Xor8,
        from: Edge::At(1),
        until: Edge::Mark(b"*".to_vec()),
        spot: Spot::After(b"*".to_vec()),
        notation: Notation::Hex(2),
        optional: false,
    };
    let rules = Framing { strip: b"\r".to_vec(), max: 96, ..framing(Kind::Line, b"$", b"\n") };
    Framer::new(rules, Some(check))
}

fn last(algorithm: Algorithm, from: i64) -> Option<Check> {
    let bytes = algorithm.bytes();
    let at = -(bytes as i64);
    let notation = Notation::Binary { bytes, little: false };
    Some(Check { algorithm, from: Edge::At(from), until: Edge::At(at), spot: Spot::At(at), notation, optional: false })
}

/// Every way of framing, with something that checks it.
fn all() -> Vec<(&'static str, Framer)> {
    let prefixed = Kind::LengthPrefixed { at: 2, bytes: 2, little: false, total: false, add: 0 };
    let escaped = Kind::Delimited { trailer: 0, text: false, escape: Some((0x7D, 0x20)) };
    let dsmr = Check {
        algorithm: Algorithm::named("crc16_arc").unwrap(),
        from: Edge::Whole,
        until: Edge::Whole,
        spot: Spot::After(b"!".to_vec()),
        notation: Notation::Hex(4),
        optional: true,
    };
    let telegram =
        Framing { max: 4096, ..framing(Kind::Delimited { trailer: 6, text: true, escape: None }, b"/", b"!") };
    vec![
        ("nmea", nmea()),
        ("line", Framer::new(framing(Kind::Line, b"", b"\r\n"), None)),
        ("start", Framer::new(framing(Kind::Line, b"R", b"\r"), None)),
        ("fixed", Framer::new(framing(Kind::Fixed(9), &[0xFF], b""), last(Algorithm::Sum8Negated, 1))),
        ("fixed without start", Framer::new(framing(Kind::Fixed(4), b"", b""), last(Algorithm::Sum8, 0))),
        ("prefixed", Framer::new(framing(prefixed, &[0x42, 0x4D], b""), last(Algorithm::Sum16, 0))),
        ("hdlc", Framer::new(framing(escaped, &[0x7E], &[0x7E]), None)),
        ("dsmr", Framer::new(telegram, Some(dsmr))),
        ("slip", Framer::new(framing(Kind::Slip, b"", b""), None)),
        ("cobs", Framer::new(framing(Kind::Cobs, b"", b""), None)),
        ("sml", Framer::new(Framing { max: 1024, ..framing(Kind::Sml, b"", b"") }, None)),
        ("iec", Framer::new(framing(Kind::Iec62056, b"", b""), None)),
        ("idle", Framer::new(Framing { gap: Some(Duration::from_millis(5)), ..framing(Kind::Idle, b"", b"") }, None)),
    ]
}

fn one(mut framer: Framer, stream: &[u8]) -> (Vec<Frame>, Counts) {
    let mut frames = Vec::new();
    framer.feed(stream, &mut frames);
    (frames, framer.counts())
}

fn texts(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(|frame| String::from_utf8_lossy(&frame.bytes).into_owned()).collect()
}

fn by_name(name: &str) -> Framer {
    all().into_iter().find(|(own, _)| *own == name).unwrap().1
}

#[test]
fn messages_are_found_between_noise_and_damage() {
    let gga = "$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47";
    for (name, stream, expected) in [
        ("nmea", format!("6.45,N,123{gga}\r\n"), vec![gga.to_owned()]),
        ("nmea", format!("$GPRMC,225446,A{gga}\r\n{gga}\r\n"), vec![gga.to_owned(), gga.to_owned()]),
        ("nmea", format!("{}\r\n{gga}\r\n", gga.replace("545", "645")), vec![gga.to_owned()]),
        ("nmea", format!("${}\n{gga}\n", "x".repeat(300)), vec![gga.to_owned()]),
        ("line", "one\r\n\r\ntwo\rx\r\nthree".to_owned(), vec!["one".to_owned(), "two\rx".to_owned()]),
        ("line", format!("{}\r\nnext\r\n", "x".repeat(200)), vec!["next".to_owned()]),
        ("start", "34\rR1234\rR12".to_owned(), vec!["R1234".to_owned()]),
    ] {
        assert_eq!(texts(&one(by_name(name), stream.as_bytes()).0), expected, "{name} {stream:?}");
    }
    for (name, stream, expected) in [
        // MH-Z19: ESPHome's example, with half a message before and a start byte of noise.
        (
            "fixed",
            "ff8602604700ff ff86026047000000d1 ff86026047000000d2 ff86026047000000d1",
            vec!["ff86026047000000d1"; 2],
        ),
        ("fixed without start", "00 ff1194a4 07 ff1194a4", vec!["ff1194a4"; 2]),
        ("prefixed", "42 424d0005010203 0099 424dffff 424d 0003 01 0093", vec!["424d0003010093"]),
        // RFC 1662: flags may be shared, and an escaped flag is no end.
        ("hdlc", "017e 7e 01027d5e7d5d 7e 03 7e", vec!["7e01027e7d7e", "7e037e"]),
        ("slip", "01c0c002dbdcdbdd03c0db04c005c0", vec!["01", "02c0db03", "05"]),
        // The examples of the COBS paper (Cheshire and Baker) and of Wikipedia.
        ("cobs", "0101 00 0311220233 00 05112200 0101010100 020100", vec!["00", "11220033", "000000", "01"]),
    ] {
        let stream = bytes(&stream.replace(' ', ""));
        let frames: Vec<String> = one(by_name(name), &stream).0.iter().map(|frame| hex(&frame.bytes)).collect();
        assert_eq!(frames, expected, "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_dropped_is_counted() {
    let gga = "$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n";
    let (_, counts) = one(nmea(), format!("noise{}{gga}", gga.replace("545", "$45")).as_bytes());
    assert_eq!((counts.frames, counts.bad_checks, counts.noise_bytes), (1, 1, 5), "{counts:?}");
    let (_, counts) = one(by_name("line"), format!("{}\r\nok\r\n", "x".repeat(500)).as_bytes());
    assert_eq!((counts.frames, counts.too_long, counts.dropped()), (1, 1, 1), "{counts:?}");
    let (_, counts) = one(by_name("slip"), &bytes("dbc0"));
    assert_eq!(counts.malformed, 1);
    let mut framer = nmea();
    let mut frames = Vec::new();
    framer.feed(b"$GPGGA,1235", &mut frames);
    assert!(framer.is_inside());
    framer.on_quiet(&mut frames);
    framer.feed(gga.as_bytes(), &mut frames);
    assert_eq!((frames.len(), framer.counts().interrupted, framer.is_inside()), (1, 1, false));
}

#[test]
fn a_pause_ends_a_message_where_nothing_else_does() {
    let mut framer = by_name("idle");
    let mut frames = Vec::new();
    framer.feed(b"one", &mut frames);
    framer.on_quiet(&mut frames);
    framer.on_quiet(&mut frames);
    framer.feed(&[b'x'; 200], &mut frames);
    framer.on_quiet(&mut frames);
    framer.feed(b"two", &mut frames);
    framer.on_quiet(&mut frames);
    assert_eq!(texts(&frames), ["one", "two"]);
    assert_eq!(framer.counts().too_long, 1);
}

#[test]
fn a_parity_bit_that_the_port_leaves_in_is_taken_off() {
    let rules = Framing { seven_bits: true, ..framing(Kind::Line, b"", b"\r\n") };
    // "1.8.0" with even parity in the eighth bit, as a 7E1 line looks to a port set to 8N1.
    let sent = [0xB1, 0x2E, 0xB8, 0x2E, 0x30, 0x8D, 0x0A];
    assert_eq!(texts(&one(Framer::new(rules, None), &sent).0), ["1.8.0"]);
}

#[test]
fn noise_can_make_neither_memory_nor_work_without_bound() {
    for (name, mut framer) in all() {
        let mut frames = Vec::new();
        for _ in 0..50 {
            framer.feed(&[b'$'; 4096], &mut frames);
            framer.feed(&[0x1B; 4096], &mut frames);
            framer.feed(&b"/\x02\xFF\x42\x4D\x7D".repeat(700), &mut frames);
            assert!(framer.held_bytes() <= 4096 + 512, "{name} holds {}", framer.held_bytes());
        }
    }
}

#[test]
fn nmea_sentences_are_judged_as_minmea_judges_them() {
    let mut judged = 0;
    for vector in vectors(NMEA) {
        let sentence = vector["sentence"].as_str().unwrap();
        let expected = match vector["kind"].as_str().unwrap() {
            "validity" => vector["expected"].get("valid_when_checksum_required").or(vector["expected"].get("valid")),
            _ => Some(&Value::Bool(true)),
        };
        // A stream knows no sentence by itself: what follows a second `$` is a whole one.
        let expected = expected == Some(&Value::Bool(true)) || sentence.starts_with("$$");
        let (frames, _) = one(nmea(), format!("{sentence}\r\n").as_bytes());
        assert_eq!(!frames.is_empty(), expected, "{} {sentence}", vector["id"]);
        judged += 1;
    }
    assert_eq!(judged, 58);
}

#[test]
fn telegrams_of_real_meters_pass_their_checks() {
    for vector in vectors(FRAMES) {
        let id = vector["id"].as_str().unwrap();
        let (expected, frames) = match id.split('/').next().unwrap() {
            "dsmr" => {
                let (frames, _) = one(by_name("dsmr"), vector["input"]["stream_text"].as_str().unwrap().as_bytes());
                (vector["expected"]["crc_ok"].clone(), frames)
            }
            "sml" => {
                let (frames, _) = one(by_name("sml"), &bytes(vector["input"]["stream_hex"].as_str().unwrap()));
                (vector["expected"]["crc_x25_ok"].clone(), frames)
            }
            _ => continue,
        };
        match expected {
            Value::Bool(true) => assert!(matches!(frames.as_slice(), [frame] if frame.checked), "{id}"),
            Value::Bool(_) => assert_eq!(frames, [], "{id}"),
            // A meter of version 2.2 has no check; its telegram ends when nothing more comes.
            _ => assert!(matches!(frames.as_slice(), [frame] if !frame.checked), "{id}"),
        }
    }
    let unpadded = b"/KMP5 KA6U001511209910\r\n\r\n1-3:0.2.8(40)\r\n!";
    let sum = Algorithm::named("crc16_arc").unwrap().digest(unpadded);
    let (frames, _) = one(by_name("dsmr"), &[unpadded.as_slice(), format!("{sum:X}\r\n").as_bytes()].concat());
    assert_eq!(frames.len(), 1, "zeros in front may be missing");
}

#[test]
fn a_sign_on_takes_the_fastest_speed_both_have() {
    // IEC 62056-21, 6.3.2 and 6.3.14; the line of an EMH meter.
    let meter = identification(b"/EMH5\\@01LZQJL0013").unwrap();
    assert_eq!((meter.maker.as_str(), meter.speed, meter.model.as_str()), ("EMH", b'5', "\\@01LZQJL0013"));
    for (fastest, letter, baud) in [(Some(19_200), b'5', 9_600), (Some(5_000), b'4', 4_800), (None, b'0', 300)] {
        assert_eq!(acknowledgement(&meter, fastest), (vec![6, b'0', letter, b'0', 13, 10], baud));
    }
    assert_eq!(identification(b"/12"), None);
    let block = [b"\x021.8.0(0012.3*kWh)\r\n!\r\n\x03".as_slice(), &[0]].concat();
    let check = block[1..block.len() - 1].iter().fold(0, |xor, byte| xor ^ byte);
    let stream = [b"/EMH5x\r\n".as_slice(), &block[..block.len() - 1], &[check]].concat();
    assert_eq!(texts(&one(by_name("iec"), &stream).0), ["/EMH5x", "1.8.0(0012.3*kWh)\r\n!\r\n"]);
    let (frames, counts) = one(by_name("iec"), &[&block[..block.len() - 1], &[check ^ 1]].concat());
    assert_eq!((frames.len(), counts.bad_checks), (0, 1));
}

#[test]
fn a_check_that_is_not_there_is_missed_only_where_it_must_be() {
    let check = |optional| Check { optional, ..nmea_check() };
    for (sentence, optional, expected) in [
        ("$GPTXT,hello", true, Verdict::Unchecked),
        ("$GPTXT,hello", false, Verdict::Damaged),
        ("$GPRMC,,V,,,,,,,,,,N*53", true, Verdict::Whole),
        ("$GPRMC,,V,,,,,,,,,,N*5", true, Verdict::Damaged),
        ("$GPRMC,,V,,,,,,,,,,N*532", true, Verdict::Damaged),
        ("$", false, Verdict::Damaged),
    ] {
        assert_eq!(check(optional).verify(sentence.as_bytes(), sentence.len()), expected, "{sentence}");
    }
}

fn nmea_check() -> Check {
    Check {
        algorithm: Algorithm::Xor8,
        from: Edge::At(1),
        until: Edge::Mark(b"*".to_vec()),
        spot: Spot::After(b"*".to_vec()),
        notation: Notation::Hex(2),
        optional: false,
    }
}

/// Streams in which messages, pieces of messages and noise follow one another.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let real: Vec<Vec<u8>> = vec![
        b"$GPRMC,225446,A,4916.45,N,12311.12,W,000.5,054.7,191194,020.3,E*68\r\n".to_vec(),
        b"$GPRMC,,V,,,,,,,,,,N*53\r\n".to_vec(),
        b"R1234\r".to_vec(),
        bytes("ff86026047000000d1"),
        bytes("ff1194a4"),
        bytes("424d0003010093"),
        bytes("7e01027d5e7d5d7e"),
        bytes("c001dbdcc0"),
        bytes("031122023300"),
        bytes("1b1b1b1b010101011b1b1b1b1a01443a"),
        bytes("1b1b1b1b01010101760512345678620062001b1b1b1b1a011234"),
        b"/ISk5\\2MT382-1000\r\n\r\n1-0:1.8.1(000004.426*kWh)\r\n!6EEE\r\n".to_vec(),
        b"/EMH5x\r\n\x021.8.0(1)\x03A".to_vec(),
    ];
    let piece = prop_oneof![
        4 => proptest::sample::select(real.clone()),
        2 => (proptest::sample::select(real), 0.0..1.0_f64).prop_map(|(whole, part)| {
            whole[..(whole.len() as f64 * part) as usize].to_vec()
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..80),
        1 => proptest::collection::vec(proptest::sample::select(vec![b'$', b'/', 0x1B, 0x01, 0xFF, 0x7E, 0x7D, 0, 0xC0]), 0..150),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a framer says may not depend on how the bytes were split, and it may not panic, grow or count wrongly.
    #[test]
    fn any_split_gives_the_same_messages(stream in stream(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        for (name, framer) in all() {
            let (whole, counts) = one(framer.clone(), &stream);
            let mut split = framer.clone();
            let (mut frames, mut from) = (Vec::new(), 0);
            for cut in cuts.iter().copied().chain([stream.len()]) {
                split.feed(&stream[from..cut], &mut frames);
                from = cut;
            }
            prop_assert_eq!(&frames, &whole, "{}", name);
            prop_assert_eq!(split.counts(), counts, "{}", name);
            let mut bytewise = framer;
            let mut frames = Vec::new();
            for byte in &stream {
                bytewise.feed(&[*byte], &mut frames);
            }
            prop_assert_eq!(&frames, &whole, "{} byte by byte", name);
            prop_assert_eq!(bytewise.counts(), counts, "{} byte by byte", name);
            prop_assert!(bytewise.held_bytes() <= 4096 + 512);
        }
    }

    /// A whole message after any noise is found, at the latest the second time.
    #[test]
    fn after_any_noise_messages_are_found_again(noise in stream()) {
        for (name, message) in [
            ("nmea", b"$GPRMC,,V,,,,,,,,,,N*53\r\n".to_vec()),
            ("fixed", bytes("ff86026047000000d1")),
            ("prefixed", bytes("424d0003010093")),
            ("slip", bytes("c001dbdcc0")),
            ("cobs", bytes("00031122023300")),
            ("sml", {
                let stream = bytes("1b1b1b1b0101010112345600");
                let tail = [stream.clone(), bytes("1b1b1b1b1a01")].concat();
                let sum = Algorithm::named("crc16_x25").unwrap().digest(&tail) as u16;
                [tail, sum.to_le_bytes().to_vec()].concat()
            }),
        ] {
            // Long enough to bring every message that had begun to its end.
            let stream = [noise.clone(), message.repeat(80)].concat();
            let (alone, _) = one(by_name(name), &message);
            let (frames, _) = one(by_name(name), &stream);
            prop_assert_eq!(frames.last(), alone.last(), "{}", name);
        }
    }
}

#[test]
fn bytes_are_read_by_their_layout() {
    use super::extract::{ByteLayout, Got, Matcher, Message, Parse, Pick, Shape, Visit, text_of};
    use super::layout::Bytes;
    use crate::codec::Raw;

    let message = bytes("8001fffe41ac00001234569900ff");
    let kind = Message { name: "m".to_owned(), matcher: Matcher::default(), shape: Shape::Plain };
    for (at, layout, bits, expected) in [
        (0, "u8", None, Got::Raw(Raw::Int(0x80))),
        (0, "int8", None, Got::Raw(Raw::Int(-128))),
        (0, "u16le", None, Got::Raw(Raw::Int(0x0180))),
        (2, "i16be", None, Got::Raw(Raw::Int(-2))),
        (2, "i16le", None, Got::Raw(Raw::Int(-257))),
        (0, "u24be", None, Got::Raw(Raw::Int(0x80_01FF))),
        (0, "i24be", None, Got::Raw(Raw::Int(0x80_01FF - 0x100_0000))),
        // 21.5, IEEE 754.
        (4, "f32be", None, Got::Raw(Raw::Float(21.5))),
        (0, "u64be", None, Got::Raw(Raw::Int(0x8001_FFFE_41AC_0000))),
        (0, "u16be", Some("15"), Got::Raw(Raw::Int(1))),
        (0, "u16be", Some("0..3"), Got::Raw(Raw::Int(1))),
        (-2, "u16be", None, Got::Raw(Raw::Int(0x00FF))),
        (-1, "u16be", None, Got::Wrong),
        (99, "u8", None, Got::Wrong),
    ] {
        let layout = ByteLayout::named(layout).unwrap();
        let bits = bits.map(|bits: &str| bits.parse().unwrap());
        let visit = Visit {
            message: 0,
            request: None,
            pick: Pick::Bytes(Bytes { at, layout, bits }),
            parse: Parse::Decimal,
            sign: None,
            map: Vec::new(),
            unit: None,
            empty: None,
            write: None,
        };
        let text = text_of(&message);
        let parsed = kind.parse(&message, &text).unwrap();
        assert_eq!(visit.read(&parsed, &|_| false), expected, "{at} {layout:?}");
        for (at, bytes, little, expected) in [
            (8, 3, false, Got::Raw(Raw::Int(123_456))),
            (8, 4, true, Got::Raw(Raw::Int(99_563_412))),
            (12, 2, false, Got::Wrong),
        ] {
            let layout = ByteLayout::Bcd { bytes, little };
            let visit = Visit { pick: Pick::Bytes(Bytes { at, layout, bits: None }), ..visit.clone() };
            assert_eq!(visit.read(&parsed, &|_| false), expected, "bcd at {at}");
        }
    }
    assert_eq!(ByteLayout::named("u16"), None, "which byte comes first?");
}
