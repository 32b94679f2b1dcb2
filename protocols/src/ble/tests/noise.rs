//! Bytes that nobody meant.

use proptest::prelude::*;

use super::*;
use crate::codec::Raw;

/// Data as the decoders meet it: with the beginnings they look for, cut anywhere.
fn noise() -> impl Strategy<Value = Advertisement> {
    let services = [0xFCD2_u16, 0xFE95, 0x181A, 0xFEAA, 0xFD3D, 0x0D00];
    let companies = [0x0499_u16, 0x004C, 0xEC88, 0x0001, 0x8801, 0x0969, 0x17C2, 0x0000, 0x089C];
    let heads =
        ["", "40", "41", "43", "05", "03", "0215", "beac", "0101", "10ee03", "2000", "54", "77", "5859", "5030"];
    let data = (prop::sample::select(heads.to_vec()), prop::collection::vec(any::<u8>(), 0..48))
        .prop_map(|(head, tail)| [hex(head.as_bytes()).unwrap(), tail].concat());
    let service = (prop::sample::select(services.to_vec()), data.clone());
    let company = (prop::sample::select(companies.to_vec()), data);
    let names = prop::sample::select(vec!["TP357 (2A01)", "sps", "tps", "GVH5106_4B99", "GVH5102", ""]);
    let many = |strategy| prop::collection::vec(strategy, 0..3);
    (many(service.boxed()), prop::collection::vec(company, 0..3), names, any::<bool>()).prop_map(
        |(services, companies, name, bbq)| Advertisement {
            address: Some(Mac([1, 2, 3, 4, 5, 6])),
            name: Some(name.to_owned()),
            services: if bbq { vec![Uuid::from_u16(0xFFF0)] } else { vec![Uuid::from_u16(0xEC88)] },
            service_data: services.into_iter().map(|(service, data)| (Uuid::from_u16(service), data)).collect(),
            manufacturer: companies,
            ..Advertisement::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_advertisement_makes_the_parser_panic_or_grow(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let (adv, _) = Advertisement::parse(&bytes);
        let kept = adv.manufacturer.iter().map(|(_, data)| data.len() + 4).sum::<usize>()
            + adv.service_data.iter().map(|(_, data)| data.len() + 4).sum::<usize>()
            + 2 * adv.services.len();
        prop_assert!(kept <= PAYLOAD_BYTES);
        prop_assert!(adv.manufacturer.len() <= STRUCTURES && adv.service_data.len() <= STRUCTURES);
    }

    #[test]
    fn no_packet_makes_a_decoder_panic_or_grow(adv in noise()) {
        let key = Key::from_hex("231d39c1d7cc1ab1aee224cd096db932").unwrap();
        for format in Format::ALL {
            for key in [None, Some(&key)] {
                if let Ok(packet) = decode(*format, &adv, adv.address, key) {
                    prop_assert!(packet.objects.len() <= OBJECTS + 3);
                    for object in &packet.objects {
                        // What a decoder gives is what its format says it can give: a profile may name it.
                        prop_assert!(format.gives(&object.name, object.class), "{format} {}", object.name);
                    }
                }
            }
        }
        prop_assert!(identify(&adv).len() <= Format::ALL.len());
    }

    #[test]
    fn a_packet_that_is_cut_short_gives_no_number_that_is_not_there(cut in 0_usize..40, which in 0_usize..127) {
        let vector = &list(OTHER, "vectors")[which];
        let mut adv = advertisement(&vector["input"]);
        let whole = adv.clone();
        for (_, data) in adv.service_data.iter_mut() {
            data.truncate(cut);
        }
        for (_, data) in adv.manufacturer.iter_mut() {
            data.truncate(cut);
        }
        let key = key(&vector["input"]);
        for format in Format::ALL {
            let Ok(short) = decode(*format, &adv, adv.address, key.as_ref()) else { continue };
            let Ok(long) = decode(*format, &whole, whole.address, key.as_ref()) else { continue };
            // Both forms of one model differ in length alone; of one form, a part of a packet is a part of its values.
            if matches!(format, Format::Eddystone | Format::Govee | Format::Atc1441 | Format::Pvvx) {
                continue;
            }
            for object in &short.objects {
                prop_assert!(long.objects.contains(object), "{format}: {object:?}");
            }
        }
    }

    #[test]
    fn no_value_makes_a_characteristic_panic(uuid in 0x2A00_u16..0x2C00, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Some(standard) = Standard::of(Uuid::from_u16(uuid)) {
            if let Ok(objects) = standard.decode(&bytes) {
                prop_assert!(!objects.is_empty() || bytes.first().is_some_and(|flags| flags & 3 == 0));
                prop_assert!(objects.len() <= OBJECTS);
            }
            prop_assert!(!standard.name().is_empty());
        }
    }

    #[test]
    fn no_bytes_make_a_field_panic_and_what_was_written_is_read_again(
        word in prop::sample::select(FieldKind::words().collect::<Vec<_>>()),
        at in 0_usize..600,
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        number in any::<i64>(),
    ) {
        let kind: FieldKind = word.parse().unwrap();
        let field = Field { at, kind, bits: None, length: None };
        let _ = field.decode(&bytes);
        let whole = Field::new(kind);
        let Some((min, max)) = whole.bounds() else { return Ok(()) };
        match whole.encode(&Raw::Int(number.into())) {
            Ok(written) => prop_assert_eq!(whole.decode(&written), Ok(Raw::Int(number.into()))),
            Err(_) => prop_assert!(i128::from(number) < min || i128::from(number) > max),
        }
    }
}
