//! Serial: every framer with every check and every way of taking a message apart, and the way back.

use std::sync::{Arc, OnceLock};

use protocols::profile::{Library, Profile, Wish};
use protocols::serial::frame::Framer;
use protocols::serial::template::Template;
use protocols::serial::{DateFormat, acknowledgement, identification};
use protocols::yaml::{Complaints, Place};

macro_rules! shipped {
    ($($name:literal),* $(,)?) => { &[$(include_str!(concat!("../../../configs/profiles/", $name, ".yaml"))),*] };
}

const SHIPPED: &[&str] = shipped![
    "generic.nmea0183-gps",
    "dsmr.p1",
    "generic.ascii_scale",
    "generic.iec62056_21",
    "generic.sml_meter",
    "maxbotix.hrxl",
    "novafitness.sds011",
    "plantower.pms5003",
    "winsen.mhz19",
    "dfrobot.a02yyuw",
];

/// The ways of framing and of taking apart that no shipped profile uses.
const OTHERS: [(&str, &str); 8] = [
    ("{type: delimited, start: \"7E\", end: \"7E\", escape: \"7D\", escape_xor: 0x20, max: 64}", "{data: {}}"),
    (
        "{type: delimited, start: \"<\", end: \">\", trailer: 2, include_ends: false}",
        "{data: {split: {separator: \";\"}}}",
    ),
    ("{type: slip, max: 64}", "{data: {match: {length: 4}}}"),
    ("{type: cobs, max: 64}", "{data: {match: {bytes: {0: 1, -1: 2}}}}"),
    ("{type: idle, gap: 20ms, max: 64}", "{data: {split: {pattern: \"[,;]+\"}}}"),
    (
        "{type: length_prefixed, start: \"AA\", length: {at: 1, size: 2, endian: little, counts: total, add: -1}}",
        "{data: {}}",
    ),
    ("{type: line, end: \"\\r\\n\", encoding: ascii7, max: 40}", "{data: {split: {separator: \" \", assign: \"=\"}}}"),
    (
        "{type: line, end: \"\\n\", start: \"\\n\", encoding: latin1}",
        "{data: {lines: {key: \"^\\\\w+\", value: \"-?[0-9.,]+\"}}}",
    ),
];

fn profiles() -> &'static [Arc<Profile>] {
    static PROFILES: OnceLock<Vec<Arc<Profile>>> = OnceLock::new();
    PROFILES.get_or_init(|| {
        let mut library = Library::new();
        let mut complaints = Complaints::new();
        let mut ids = Vec::new();
        for text in SHIPPED {
            ids.extend(library.add("shipped", text, true, &mut complaints));
        }
        for (number, (framing, messages)) in OTHERS.iter().enumerate() {
            let pick = match number {
                0 | 3 | 5 => "at: 1, type: i16be",
                2 => "at: -4, type: f32le",
                1 | 4 => "field: 1",
                _ => "key: a",
            };
            let text = format!(
                "schema: 1\nid: fuzz.f{number}\nversion: 1.0.0\nmeta: {{vendor: A, model: B}}\nserial:\n  framing: {framing}\n  \
                 messages: {messages}\n  requests: {{set: {{tx: \"S{{value:.1}}\\n\", answer: data}}}}\nproperties:\n  v: {{type: number, access: rw, \
                 from: {{serial: {{message: data, {pick}, write: set}}}}}}\n"
            );
            ids.extend(library.add("own", &text, false, &mut complaints));
        }
        let place = Place { file: "fuzz".into(), line: 1, column: 1 };
        let resolve = |id: &String| {
            let wish = Wish { profile: id, place: &place, params: None, over: None, is_unsafe: false };
            library.resolve(&wish, &mut complaints).map(|resolved| resolved.profile)
        };
        let all: Vec<_> = ids.iter().filter_map(resolve).collect();
        let told: Vec<String> = complaints.into_sorted().iter().map(ToString::to_string).collect();
        assert_eq!(all.len(), SHIPPED.len() + OTHERS.len(), "{told:#?}");
        all
    })
}

/// One byte chooses the profile, one where the stream is cut; then comes the stream.
pub fn stream(data: &[u8]) {
    let [which, cut, stream @ ..] = data else { return };
    let profiles = profiles();
    let profile = &profiles[usize::from(*which) % profiles.len()];
    let device = profile.serial.as_ref().expect("they are serial profiles");
    let (mut whole, mut pieces) = (device.framer(), device.framer());
    let (mut at_once, mut in_pieces) = (Vec::new(), Vec::new());
    let bound = |framer: &Framer| framer.held_bytes() <= device.framing.max + 1_024;
    whole.feed(stream, &mut at_once);
    assert!(bound(&whole), "{}: {} bytes are kept", profile.id, whole.held_bytes());
    for piece in stream.chunks(usize::from(*cut).max(1)) {
        pieces.feed(piece, &mut in_pieces);
        assert!(bound(&pieces));
    }
    assert_eq!(at_once, in_pieces, "{}: the pieces matter", profile.id);
    assert_eq!(whole.counts(), pieces.counts(), "{}", profile.id);
    whole.on_quiet(&mut at_once);
    for frame in &at_once {
        assert!(frame.bytes.len() <= device.framing.max + 64, "{}", profile.id);
        let _ = profile.hear(&frame.bytes);
    }
    let _ = profile.asked(stream);
    // What a simulator makes of a recording is one message that reads as the recorded one.
    for mould in profile.moulds(&[stream.to_vec()]) {
        let Ok(line) = mould.cast(profile, &[]) else { continue };
        let (mut framer, mut frames) = (device.framer(), Vec::new());
        framer.feed(&line, &mut frames);
        framer.on_quiet(&mut frames);
        if !mould.lives.is_empty() {
            let heard = frames.iter().map(|frame| profile.hear(&frame.bytes));
            assert!(heard.into_iter().any(|heard| heard.messages.contains(&mould.message)), "{}", profile.id);
        }
    }
}

/// Texts of profiles: requests, date formats; and what a meter says of itself.
pub fn texts(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (text, rest) = data.split_at(at);
    if let Ok(text) = std::str::from_utf8(text) {
        if let Ok(template) = Template::parse(text)
            && let Some((length, _)) = template.read(rest, None)
        {
            assert!(length <= rest.len());
        }
        if let Some(format) = DateFormat::parse(text, 60) {
            let _ = format.read(&String::from_utf8_lossy(rest));
        }
    }
    if let Some(meter) = identification(data) {
        let (_, baud) = acknowledgement(&meter, Some(9_600));
        assert!((300..=9_600).contains(&baud));
    }
}
