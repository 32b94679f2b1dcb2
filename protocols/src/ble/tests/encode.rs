//! What is composed, against the bytes that others have recorded and written down.

use std::collections::BTreeMap;

use super::vectors::format;
use super::*;
use crate::codec::Raw;

/// The vectors of formats that can be composed: format, advertisement, key.
fn all() -> Vec<(Format, Advertisement, Option<Key>, String)> {
    let bthome = list(BTHOME, "vectors").into_iter().map(|vector| (Some(Format::Bthome2), vector));
    let other = list(OTHER, "vectors").into_iter().map(|vector| (format(&vector), vector));
    let own = bthome.chain(other).filter_map(|(format, vector)| {
        let id = vector["id"].as_str().unwrap_or_default().to_owned();
        Some((format?, advertisement(&vector["input"]), key(&vector["input"]), id))
    });
    own.collect()
}

/// The data that a format is about, as far as the vectors and the composer need agree.
///
/// Not compared are: the bit of BTHome that says "sent on a trigger" and a packet number that the vector does not have; the head
/// of a MiBeacon, where every product says what it can; the company that an AltBeacon speaks for; what switched the reed contact
/// of a pvvx thermometer; the last byte of an Inkbird, which nobody knows.
fn data(format: Format, adv: &Advertisement, has_number: bool) -> Vec<Vec<u8>> {
    let services = adv.service_data.iter().map(|(_, data)| data.clone());
    let makers = adv.manufacturer.iter().map(|(id, data)| [id.to_be_bytes().as_slice(), data].concat());
    let own = |mut data: Vec<u8>| {
        match (format, data.len()) {
            (Format::Bthome2, 3..) => {
                data[0] &= !0x04;
                if data[0] == 0x40 && data[1] == 0 && !has_number {
                    data.drain(1..3);
                }
            }
            (Format::Mibeacon, length @ 7..) => drop(data.drain(..length - 7)),
            (Format::Altbeacon, 2..) => drop(data.drain(..2)),
            (Format::Pvvx, 15) => data[14] &= 0x03,
            (Format::Inkbird, 9) => data[8] = 0,
            _ => {}
        }
        data
    };
    services.chain(makers).map(own).collect()
}

fn sender<'a>(format: Format, adv: &Advertisement, packet: &Packet, key: Option<&'a Key>) -> Sender<'a> {
    let six = |at: usize| packet.payload.get(at..at + 6).and_then(|bytes| bytes.try_into().ok());
    let address = match format {
        Format::Atc1441 => six(0).map(Mac),
        Format::Pvvx if !packet.is_encrypted => six(0).map(Mac::from_le),
        Format::Ruuvi5 => six(18).map(Mac),
        _ => adv.address,
    };
    let counted = packet.object("packet_id", ObjectClass::Sensor, 1).and_then(|object| value(object).as_u64());
    let number = packet.counter.or(counted).or(packet.packet_id.map(u64::from)).unwrap_or_default();
    let key = key.filter(|_| packet.is_encrypted);
    Sender { address: address.unwrap_or_default(), key, number: u32::try_from(number).unwrap() }
}

/// Of each format, how many vectors there are whose values can be told, and how many of them come out to the byte. The others
/// are other models of one maker, or choose another of several objects for one value.
#[test]
fn what_a_vector_tells_is_composed_into_its_own_bytes() {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut others = Vec::new();
    for (format, adv, key, id) in all() {
        let Ok(packet) = decode(format, &adv, adv.address, key.as_ref()) else { continue };
        if packet.is_partial {
            continue;
        }
        let has_number = packet.packet_id.is_some();
        let told: Vec<Object> = packet.objects.iter().filter(|object| object.value.is_ok()).cloned().collect();
        let Ok(composed) = encode(format, &told, sender(format, &adv, &packet, key.as_ref())) else { continue };
        let expected = data(format, &adv, true);
        let composed: Vec<Vec<u8>> = composed.iter().flat_map(|adv| data(format, adv, has_number)).collect();
        let (count, equal) = counts.entry(format.word()).or_default();
        *count += 1;
        match composed.iter().any(|composed| expected.contains(composed)) {
            true => *equal += 1,
            false => others.push(id),
        }
    }
    let expected = [
        ("altbeacon", (1, 1)),
        ("atc1441", (2, 2)),
        ("bthome2", (97, 87)),
        ("govee", (8, 3)),
        ("ibeacon", (1, 1)),
        ("inkbird", (5, 3)),
        ("mibeacon", (7, 1)),
        ("pvvx", (2, 2)),
        ("ruuvi3", (2, 2)),
        ("ruuvi5", (3, 2)),
        ("switchbot", (2, 1)),
        ("thermopro", (1, 1)),
    ];
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected, "{others:#?}");
}

/// Key, address, counter and packets of bthome.io/encryption and of bthome-ble's tests.
#[test]
fn an_encrypted_packet_is_that_of_the_specification() {
    let key = Key::from_hex("231d39c1d7cc1ab1aee224cd096db932").unwrap();
    let address = "54:48:E6:8F:80:A5".parse().unwrap();
    let sender = Sender { address, key: Some(&key), number: 0x3322_1100 };
    let number = |name: &'static str, number: f64| Object::sensor(name, "", Ok(Raw::Float(number)));
    let told = [number("temperature", 25.06), number("humidity", 50.55)];
    let adv = encode(Format::Bthome2, &told, sender).unwrap();
    let expected = hex(b"41a47266c95f730011223378237214").unwrap();
    assert_eq!(adv.iter().map(|adv| adv.service_data[0].1.clone()).collect::<Vec<_>>(), [expected]);
    let sealed = encode(Format::Ruuvi5, &told, sender);
    assert_eq!(sealed, Err(Unsayable::Sealed(Format::Ruuvi5)));
    assert_eq!(encode(Format::Pvvx, &told[1..], sender), Err(Unsayable::Nothing(Format::Pvvx)));
}

/// Xiaomi_MJWSD06MMC and atc_custom_encrypted of ble_monitor: what their keys open is sealed into the same bytes again.
#[test]
fn what_a_key_opens_it_seals_into_the_same_bytes() {
    let bytes = |digits: &str| hex(digits.as_bytes()).unwrap();
    let key = Key::from_hex("4d8f1373fb4d3bab557d0ebd1c78f8c4").unwrap();
    let nonce: [u8; 12] = bytes("07158038c1a4b555340e0000").try_into().unwrap();
    let (text, tag) = (bytes("bcc73298"), bytes("66960f10"));
    let plain = key.open_12(nonce, &[0x11], &text, &tag).unwrap();
    assert_eq!(key.seal_12(nonce, &[0x11], &plain), (text, tag));
    let key = Key::from_hex("b9ea895fac7eea6d30532432a516f3a3").unwrap();
    let address = "A4:C1:38:8D:18:B2".parse().unwrap();
    let number = |name: &'static str, number: f64| Object::sensor(name, "", Ok(Raw::Float(number)));
    let told = [number("temperature", 23.45), number("humidity", 41.73), number("battery", 61.0)];
    let adv = encode(Format::Pvvx, &told, Sender { address, key: Some(&key), number: 0xD6 }).unwrap();
    assert_eq!(adv[0].service_data[0].1.len(), 11);
    assert_eq!(decode(Format::Pvvx, &adv[0], Some(address), Some(&key)).unwrap().objects[..3].len(), 3);
}

/// Structures as broadcast: bhtome_v2_temperature_and_humidity and Govee_H5075 of ble_monitor.
#[test]
fn structures_are_written_as_they_are_read() {
    for whole in ["0201060a16d2fc4002ca0903bf13", "02010603030918"] {
        let bytes = hex(whole.as_bytes()).unwrap();
        assert_eq!(Advertisement::parse(&bytes).0.structures(), Some((bytes, Vec::new())), "{whole}");
    }
    let mut named = Advertisement { name: Some("A name of some length".to_owned()), ..Default::default() };
    named.manufacturer.push((0x0499, vec![5; 12]));
    let (data, answer) = named.structures().unwrap();
    assert_eq!((data.len(), answer.len()), (16, 23));
    named.manufacturer.push((0x0499, vec![5; 14]));
    assert_eq!(named.structures(), None, "nobody sends so much at once");
}

#[test]
fn what_has_no_room_in_one_packet_goes_into_several() {
    let names =
        ["temperature", "humidity", "pressure", "light", "dew_point", "moisture", "co2", "pm25", "pm10", "voltage"];
    let told: Vec<Object> = names.iter().map(|name| Object::sensor(name, "", Ok(Raw::Int(3)))).collect();
    let key = Key::from_hex("231d39c1d7cc1ab1aee224cd096db932").unwrap();
    for (key, packets) in [(None, 2), (Some(&key), 3)] {
        let sender = Sender { address: Mac([0xC0; 6]), key, number: 7 };
        let all = encode(Format::Bthome2, &told, sender).unwrap();
        assert_eq!(all.len(), packets);
        let mut heard = Vec::new();
        for adv in &all {
            let (data, _) = adv.structures().expect("every packet fits a radio of version 4");
            let (read, damage) = Advertisement::parse(&data);
            assert_eq!(damage, None);
            let packet = decode(Format::Bthome2, &read, Some(sender.address), key).unwrap();
            heard.extend(packet.objects.into_iter().map(|object| object.name.into_owned()));
        }
        for name in names {
            assert!(heard.iter().any(|own| own == name), "{name}");
        }
    }
}
