//! Bluetooth: advertisements, every decoder on them, values of characteristics, and a host's packets.

use protocols::ble::{
    Advertisement, Controller, Dedupe, Field, FieldKind, Format, Guard, Key, LEGACY_BYTES, Mac, OBJECTS, Sender,
    Standard, Uuid, decode, encode, identify,
};

/// The services and companies that decoders look for.
const SERVICES: [u16; 8] = [0xFCD2, 0x181A, 0xFE95, 0xFD3D, 0x0D00, 0xFEAA, 0x2A6E, 0xFFF0];
const COMPANIES: [u16; 8] = [0x0499, 0x004C, 0x0118, 0xEC88, 0x0001, 0x8801, 0x0969, 0x17C2];
const NAMES: [&str; 6] = ["", "TP357 (2A01)", "sps", "tps", "GVH5106_4B99", "GVH5075_CB9B"];

fn key() -> Key {
    Key::from_hex("231d39c1d7cc1ab1aee224cd096db932").expect("it is a key")
}

fn all_decoders(adv: &Advertisement) {
    let own = key();
    for format in Format::ALL {
        for key in [None, Some(&own)] {
            let Ok(packet) = decode(*format, adv, adv.address, key) else { continue };
            assert!(packet.objects.len() <= OBJECTS + 3, "{format}");
            for object in &packet.objects {
                assert!(format.gives(&object.name, object.class), "{format} {}", object.name);
                let _ = object.json();
            }
            let mut guard = Guard::default();
            let first = guard.judge(&packet, Dedupe::default(), false, 0);
            assert!(first.is_ok() || packet.packet_id.is_some(), "{format}: the first packet is believed");
            assert!(
                guard.judge(&packet, Dedupe::default(), false, 1).is_err(),
                "{format}: the second is the first again"
            );
            // What can be told of it again fits the air.
            let sender = Sender { address: Mac([0xC0; 6]), key, number: 1 };
            for said in encode(*format, &packet.objects, sender).unwrap_or_default() {
                if let Some((data, answer)) = said.structures() {
                    assert!(data.len() <= LEGACY_BYTES && answer.len() <= LEGACY_BYTES);
                    assert_eq!(Advertisement::parse(&data).1, None, "{format}");
                }
            }
        }
    }
    assert!(identify(adv).len() <= Format::ALL.len());
}

/// Bytes as broadcast.
pub fn advertisement(data: &[u8]) {
    let (mut adv, _) = Advertisement::parse(data);
    adv.address = Some(Mac([0x54, 0x48, 0xE6, 0x8F, 0x80, 0xA5]));
    all_decoders(&adv);
}

/// One byte chooses the service or the company and the name; then come its bytes.
pub fn packet(data: &[u8]) {
    let [which, rest @ ..] = data else { return };
    let number = usize::from(which & 0x07);
    let mut adv =
        Advertisement { address: Some(Mac([0x54, 0x48, 0xE6, 0x8F, 0x80, 0xA5])), ..Advertisement::default() };
    let name = NAMES[usize::from(which >> 4) % NAMES.len()];
    adv.name = (!name.is_empty()).then(|| name.to_owned());
    if which & 0x08 == 0 {
        adv.service_data.push((Uuid::from_u16(SERVICES[number]), rest.to_vec()));
    } else {
        adv.manufacturer.push((COMPANIES[number], rest.to_vec()));
        adv.services.push(Uuid::from_u16(0xEC88));
    }
    all_decoders(&adv);
}

/// Two bytes choose a characteristic and a field; then comes its value.
pub fn value(data: &[u8]) {
    let [low, kind, rest @ ..] = data else { return };
    for high in [0x2A_u16, 0x2B] {
        if let Some(standard) = Standard::of(Uuid::from_u16(high << 8 | u16::from(*low))) {
            let _ = standard.decode(rest);
        }
    }
    let words: Vec<&str> = FieldKind::words().collect();
    let kind: FieldKind = words[usize::from(*kind) % words.len()].parse().expect("it is a word");
    let field = Field { at: usize::from(low & 3), kind, bits: None, length: None };
    let Ok(raw) = field.decode(rest) else { return };
    let whole = Field::new(kind);
    if let Ok(bytes) = whole.encode(&raw) {
        let again = whole.decode(&bytes);
        let is_number = !matches!(kind, FieldKind::Float { .. } | FieldKind::Utf8 | FieldKind::Bytes);
        assert!(!is_number || again == Ok(raw), "{kind}");
    }
}

/// What a host sends to a controller.
pub fn host(data: &[u8]) {
    let mut controller = Controller::new(Mac::default());
    for piece in data.chunks(7) {
        for answer in controller.on_host(piece) {
            assert_eq!(answer.len(), usize::from(answer[2]) + 3, "an event says how long it is");
        }
    }
}
