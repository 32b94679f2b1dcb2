//! Beacons, fields at places, and characteristics with assigned numbers.

use super::*;
use crate::codec::Raw;
use crate::value::Timestamp;

/// Eddystone: the fields are laid out as the frames of the specification are drawn; URL codes are those of its tables.
#[test]
fn an_eddystone_tells_what_its_frame_holds() {
    let told = |digits: &str| {
        let data = vec![(Uuid::from_u16(0xFEAA), hex(digits.as_bytes()).unwrap())];
        let adv = Advertisement { service_data: data, ..Default::default() };
        decode(Format::Eddystone, &adv, None, None).map(|packet| {
            packet
                .objects
                .iter()
                .map(|object| format!("{}={}", object.name, value(object)))
                .collect::<Vec<_>>()
                .join(" ")
        })
    };
    for (digits, expected) in [
        (
            "00ee8b0ca750095477cb3e770011223344550000",
            "measured_power=-18 namespace=\"8b0ca750095477cb3e77\" instance=\"001122334455\"",
        ),
        // Recorded from a RuuviTag (ble_monitor, ruuvitag_v2).
        ("10ee037275752e76692f23416a7759414d4666", "measured_power=-18 url=\"https://ruu.vi/#AjwYAMFf\""),
        ("10ba00676f6f676c6507", "measured_power=-70 url=\"http://www.google.com\""),
        ("20000bb81780000001000000003c", "voltage=3.0 temperature=23.5 advertisement_count=256 uptime=6.0"),
        ("20000000800000000000000000ff", "voltage=null temperature=null advertisement_count=0 uptime=25.5"),
        ("2000 0bb8 ff80 00000001 0000000a", "voltage=3.0 temperature=-0.5 advertisement_count=1 uptime=1.0"),
        ("30ee0102030405060708", "measured_power=-18 ephemeral_id=\"0102030405060708\""),
    ] {
        assert_eq!(told(&digits.replace(' ', "")), Ok(expected.to_owned()), "{digits}");
    }
    assert_eq!(told("40ee"), Err(Refusal::Unknown));
    for digits in ["00ee8b0c", "10ee", "10ee04", "10ee030e", "20000bb8", "30ee01"] {
        assert_eq!(told(digits), Err(Refusal::Malformed), "{digits}");
    }
}

#[test]
fn a_field_is_read_where_the_profile_says() {
    let data = hex(b"0102fe8041c80000ffff20").unwrap();
    for (kind, at, bits, length, expected) in [
        ("uint8", 0, None, None, Ok(Raw::Int(1))),
        ("int8", 2, None, None, Ok(Raw::Int(-2))),
        ("uint16le", 0, None, None, Ok(Raw::Int(0x0201))),
        ("uint16be", 0, None, None, Ok(Raw::Int(0x0102))),
        ("int16", 2, None, None, Ok(Raw::Int(-0x7F02))),
        ("int24be", 2, None, None, Ok(Raw::Int(-0x1_7FBF))),
        ("uint32be", 0, None, None, Ok(Raw::Int(0x0102_FE80))),
        ("uint64", 0, None, None, Ok(Raw::Int(0x0000_C841_80FE_0201))),
        ("float32be", 4, None, None, Ok(Raw::Float(25.0))),
        ("uint8", 2, Some("1..7"), None, Ok(Raw::Int(0x7F))),
        ("int8", 2, Some("0..1"), None, Ok(Raw::Int(-2))),
        ("bytes", 8, None, None, Ok(Raw::Text("ffff20".into()))),
        ("bytes", 0, None, Some(2), Ok(Raw::Text("0102".into()))),
        ("mac", 0, None, None, Ok(Raw::Text("C8:41:80:FE:02:01".into()))),
        ("uint16", 10, None, None, Err(crate::value::Why::Decode)),
        ("uint8", 11, None, None, Err(crate::value::Why::Decode)),
        ("bytes", 12, None, None, Err(crate::value::Why::Decode)),
        ("utf8", 8, None, None, Err(crate::value::Why::Decode)),
    ] {
        let bits = bits.map(|bits| bits.parse().unwrap());
        let field = Field { at, kind: kind.parse().unwrap(), bits, length };
        assert_eq!(field.decode(&data), expected, "{kind} at {at}");
    }
}

/// The values of medical floats: GATT Specification Supplement 2.2 (special values) and IEEE 11073-20601, F.7.
#[test]
fn a_medical_float_has_a_base_of_ten() {
    let read = |kind: &str, digits: &str| Field::new(kind.parse().unwrap()).decode(&hex(digits.as_bytes()).unwrap());
    for (kind, digits, expected) in [
        // 0xF16C = 364 × 10^-1; 0xFF00016C the same in 32 bits.
        ("sfloat", "6cf1", Ok(Raw::Float(36.4))),
        ("medfloat", "6c0100ff", Ok(Raw::Float(36.4))),
        ("sfloat", "7200", Ok(Raw::Int(114))),
        ("sfloat", "9cef", Ok(Raw::Float(-1.0))),
        ("sfloat", "0520", Ok(Raw::Float(500.0))),
        ("sfloat", "ff07", Err(crate::value::Why::Nan)),
        ("sfloat", "0008", Err(crate::value::Why::Sentinel)),
        ("medfloat", "ffff7f00", Err(crate::value::Why::Nan)),
        ("medfloat", "00008000", Err(crate::value::Why::Sentinel)),
    ] {
        assert_eq!(read(kind, digits), expected, "{kind} {digits}");
    }
}

/// Formats: GATT Specification Supplement; the temperature and humidity words are those of the Teltonika vectors,
/// which carry these characteristics as service data.
#[test]
fn a_characteristic_with_an_assigned_number_is_read_as_everybody_agreed() {
    let told = |uuid: u16, digits: &str| {
        let objects = Standard::of(Uuid::from_u16(uuid)).unwrap().decode(&hex(digits.as_bytes()).unwrap());
        objects.map(|objects| {
            let shown = objects.iter().map(|object| format!("{}={}{}", object.name, value(object), object.unit));
            shown.collect::<Vec<_>>().join(" ")
        })
    };
    for (uuid, digits, expected) in [
        (0x2A19, "64", "battery=100%"),
        (0x2A6E, "860b", "temperature=29.5Cel"),
        (0x2A6E, "0080", "temperature=nullCel"),
        (0x2A6F, "ffff", "humidity=null%"),
        (0x2A6D, "10760f00", "pressure=101326.4Pa"),
        (0x2A29, "41636d6500", "manufacturer_name=\"Acme\""),
        (0x2A37, "0048", "heart_rate=72/min"),
        (
            0x2A37,
            "1e48640000040002",
            "heart_rate=72/min sensor_contact=true energy_expended=100kJ rr_intervals=[1000.0,500.0]ms",
        ),
        (0x2A37, "012c01", "heart_rate=300/min"),
        (0x2A1C, "006c0100ff", "temperature=36.4Cel"),
        (
            0x2A1C,
            "066c0100ffea070b160c1e0f02",
            "temperature=36.4Cel date_time=\"2026-11-22T12:30:15.000Z\" temperature_type=2",
        ),
        (0x2A1C, "01cc0300ff", "temperature=97.2[degF]"),
        (0x2A2B, "ea070b160c1e0f078000", "current_time=\"2026-11-22T12:30:15.000Z\" day_of_week=7 adjust_reason=0"),
        (0x2A0F, "0404", "time_zone=1.0h dst_offset=1.0h"),
        (0x2A35, "00780050005d00", "systolic=120mm[Hg] diastolic=80mm[Hg] mean_arterial_pressure=93mm[Hg]"),
        (0x2A50, "016d01023a0100", "vendor_id=365 product_id=14850 product_version=1 vendor_id_source=1"),
        (0x2A5B, "01100000000004", "wheel_revolutions=16 wheel_event_time=1.0s"),
        (0x2A5E, "0061004800", "spo2=97% pulse_rate=72/min"),
        (0x2A9D, "00803e", "weight=80.0kg"),
        (0x2B18, "8000", "voltage=2.0V"),
    ] {
        assert_eq!(told(uuid, digits), Ok(expected.to_owned()), "{uuid:04x} {digits}");
    }
    for (uuid, digits) in
        [(0x2A19, ""), (0x2A6E, "86"), (0x2A37, "01"), (0x2A1C, "00"), (0x2A2B, "ea07"), (0x2A35, "00")]
    {
        assert_eq!(told(uuid, digits), Err(crate::value::Why::Decode), "{uuid:04x} {digits}");
    }
    assert_eq!(Standard::of(Uuid::from_u16(0xFFFF)), None);
}

/// The day of the week and the fractions are the format's own: Monday is 1, and a second has 256 parts.
#[test]
fn a_clock_is_set_with_the_bytes_it_would_tell() {
    let at: Timestamp = "2026-11-22T12:30:15.500Z".parse().unwrap();
    assert_eq!(current_time(at).to_vec(), hex(b"ea070b160c1e0f078000").unwrap());
    let told = Standard::of(Uuid::from_u16(0x2A2B)).unwrap().decode(&current_time(at)).unwrap();
    assert_eq!(value(&told[0]), Value::from("2026-11-22T12:30:15.000Z"));
}

#[test]
fn a_packet_has_no_more_objects_than_its_bound() {
    let data = [vec![0x40], [0x01, 0x64].repeat(800)].concat();
    let adv = Advertisement { service_data: vec![(Uuid::from_u16(0xFCD2), data)], ..Default::default() };
    let packet = decode(Format::Bthome2, &adv, None, None).unwrap();
    assert!(packet.is_partial && packet.objects.len() <= OBJECTS + 2, "{}", packet.objects.len());
}
