//! What the codec promises, against vectors from other implementations (`tests/data/modbus_decode.json`, each with its
//! source) and the definitions of IEEE 754, two's complement and packed decimals.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::value::{Why, same};

const VECTORS: &str = include_str!("../../../tests/data/modbus_decode.json");

fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let vectors = file["vectors"].as_array().unwrap().clone();
    assert_eq!(vectors.len() as u64, file["count"].as_u64().unwrap());
    vectors
}

fn layout(vector: &Value, order: &str) -> Layout {
    let mut layout = Layout::new(vector["type"].as_str().unwrap().parse().unwrap());
    layout.order = order.parse().unwrap();
    if let Some(bit) = vector["bit"].as_u64() {
        layout.bits = Some(Bits { first: bit as u8, last: bit as u8 });
    }
    if let Some(length) = vector["length"].as_u64() {
        layout.length = length as u16;
    }
    layout.chars = match vector["string_location"].as_str() {
        Some("lower") => Chars::Low,
        Some("upper") => Chars::High,
        _ => Chars::Both,
    };
    layout.check().unwrap();
    layout
}

fn scaling(vector: &Value) -> Scaling {
    let decimal = |key: &str, default| vector.get(key).map_or(default, |number| number.to_string().parse().unwrap());
    Scaling {
        scale: decimal("scale", Decimal::whole(1)),
        offset: decimal("offset", Decimal::whole(0)),
        precision: vector["precision"].as_u64().map(|precision| precision as u8),
    }
}

fn registers(vector: &Value) -> Vec<u16> {
    vector["registers"].as_array().unwrap().iter().map(|register| register.as_u64().unwrap() as u16).collect()
}

/// The tolerance as the vectors' `about` states it.
fn close(vector: &Value, got: &Value) -> bool {
    let expected = &vector["expected"];
    let (Some(want), Some(have)) = (expected.as_f64(), got.as_f64()) else { return same(expected, got) };
    if let Some(tolerance) = vector["tolerance"].as_f64() {
        return (want - have).abs() <= tolerance;
    }
    if !expected.is_f64() {
        return same(expected, got);
    }
    let relative = if vector["float_width"] == 32 { 1e-6 } else { 1e-12 };
    (want - have).abs() <= relative * want.abs()
}

#[test]
fn every_vector_is_decoded_as_its_source_says() {
    for vector in vectors() {
        for order in ["order", "order_alias"] {
            let layout = layout(&vector, vector[order].as_str().unwrap());
            let got = decode(&layout, &registers(&vector)).map(|raw| scaling(&vector).apply(raw));
            if vector["expect_quality"] == "bad" {
                assert_eq!(got, Err(Why::Nan), "{}", vector["id"]);
                continue;
            }
            let got = got.unwrap();
            assert!(close(&vector, &got), "{} {order}: {got} is not {}", vector["id"], vector["expected"]);
            if let Some(text) = vector["expected_str"].as_str() {
                let shown = got.to_string();
                assert!(got.is_f64() || shown == text, "{}: {got} is not {text}", vector["id"]);
            }
        }
    }
}

#[test]
fn every_vector_is_encoded_to_the_registers_it_came_from() {
    let mut count = 0;
    for vector in vectors().iter().filter(|vector| vector["expect_quality"].is_null()) {
        let layout = layout(vector, vector["order"].as_str().unwrap());
        let registers = registers(vector);
        let mut raw = scaling(vector).invert(&vector["expected"]).unwrap();
        let rounded = vector["precision"].is_u64() || vector["tolerance"].is_f64();
        if layout.data.class() == Class::Float && (rounded || !vector["scale"].is_null()) {
            continue;
        }
        if vector["type"].as_str().unwrap().ends_with("64") && vector["expected"].is_f64() && layout.bounds().is_some()
        {
            // The source's double holds fewer digits than the registers do.
            raw =
                Raw::Int(decode(&layout, &registers).map(|raw| if let Raw::Int(raw) = raw { raw } else { 0 }).unwrap());
        }
        let mut got = registers.clone();
        encode_into(&layout, &raw, &mut got).unwrap();
        assert_eq!(got, registers, "{}", vector["id"]);
        // From nothing, unless other bits of the register belong to somebody else.
        match encode(&layout, &raw) {
            Ok(got) => assert_eq!(got, registers, "{}", vector["id"]),
            Err(error) => {
                assert_eq!(error, EncodeError::Partial, "{}", vector["id"]);
                let field = encode_field(&layout, &raw).unwrap();
                assert_eq!(registers[0] & field.mask, field.value, "{}", vector["id"]);
            }
        }
        count += 1;
    }
    assert!(count > 140, "only {count} vectors were encoded");
}

fn of(data: DataType, order: &str, bits: Option<&str>) -> Layout {
    let mut layout = Layout::new(data);
    layout.order = order.parse().unwrap();
    layout.bits = bits.map(|bits| bits.parse().unwrap());
    layout
}

#[test]
fn integers_bit_fields_and_decimals_go_both_ways() {
    use DataType as T;
    for (layout, registers, expected) in [
        // int24 lies in the low three bytes; what is above is not its own.
        (of(T::Int24, "ABCD", None), vec![0x00FF, 0xFFFE], -2),
        (of(T::Uint24, "ABCD", None), vec![0x00FF, 0xFFFE], 0xFF_FFFE),
        (of(T::Uint24, "CDAB", None), vec![0x3456, 0x0012], 0x12_3456),
        (of(T::Bcd16, "ABCD", None), vec![0x1234], 1234),
        (of(T::Bcd16, "BA", None), vec![0x3412], 1234),
        (of(T::Bcd32, "ABCD", None), vec![0x1234, 0x5678], 12_345_678),
        (of(T::Bcd32, "CDAB", None), vec![0x5678, 0x1234], 12_345_678),
        (of(T::Int32, "BDAC", None), vec![0x0204, 0x0103], 0x0102_0304),
        (of(T::Uint64, "ABCD", None), vec![0xFFFF; 4], i128::from(u64::MAX)),
        (of(T::Int64, "DCBA", None), vec![0, 0, 0, 0x0080], i128::from(i64::MIN)),
    ] {
        assert_eq!(decode(&layout, &registers), Ok(Raw::Int(expected)), "{layout:?}");
        assert_eq!(encode(&layout, &Raw::Int(expected)), Ok(registers), "{layout:?}");
    }
    for (layout, register, expected, mask) in [
        (of(T::Uint16, "ABCD", Some("4..7")), 0x12A4, Raw::Int(10), 0x00F0),
        (of(T::Int16, "ABCD", Some("4..7")), 0x12A4, Raw::Int(-6), 0x00F0),
        (of(T::Uint16, "BADC", Some("0..3")), 0x0512, Raw::Int(5), 0x0F00),
        (of(T::Uint8Hi, "ABCD", None), 0x180D, Raw::Int(0x18), 0xFF00),
        (of(T::Int8Hi, "BA", None), 0x0DF8, Raw::Int(-8), 0x00FF),
        (of(T::Uint8Hi, "ABCD", Some("1..2")), 0x0600, Raw::Int(3), 0x0600),
        (of(T::Bit, "ABCD", Some("15")), 0x8001, Raw::Bool(true), 0x8000),
        (of(T::Bit, "BA", Some("0")), 0x0100, Raw::Bool(true), 0x0100),
    ] {
        layout.check().unwrap();
        assert_eq!(decode(&layout, &[register]), Ok(expected.clone()), "{layout:?}");
        let field = encode_field(&layout, &expected).unwrap();
        assert_eq!(field, Field { mask, value: register & mask }, "{layout:?}");
        assert_eq!(encode(&layout, &expected), Err(EncodeError::Partial), "{layout:?}");
    }
    assert_eq!(decode(&of(T::Uint32, "CDAB", Some("16..31")), &[0x5678, 0x1234]), Ok(Raw::Int(0x1234)));
}

#[test]
fn what_is_no_value_gets_no_number() {
    use DataType as T;
    for (layout, registers, why) in [
        (of(T::Bcd16, "ABCD", None), vec![0x12A4], Why::Decode),
        (of(T::Float32, "ABCD", None), vec![0x7FC0, 0], Why::Nan),
        (of(T::Float64, "ABCD", None), vec![0xFFF0, 0, 0, 0], Why::Nan),
        (of(T::Float16, "ABCD", None), vec![0x7C00], Why::Nan),
        (of(T::Uint32, "ABCD", None), vec![1], Why::Decode),
        (of(T::IecDate, "ABCD", None), vec![0, 0, 0, 0], Why::Decode),
        (of(T::IecDate, "ABCD", None), vec![24, 0x021E, 0, 0], Why::Decode),
    ] {
        assert_eq!(decode(&layout, &registers), Err(why), "{layout:?}");
    }
}

#[test]
fn text_ends_where_people_see_it_end() {
    let text = |registers: &[u16], data, order: &str, chars| {
        let mut layout = of(data, order, None);
        (layout.length, layout.chars) = (registers.len() as u16, chars);
        match decode(&layout, registers) {
            Ok(Raw::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    for (registers, order, chars, expected) in [
        (&[0x4142, 0x2020][..], "ABCD", Chars::Both, "AB"),
        (&[0x4142, 0x0043], "ABCD", Chars::Both, "AB"),
        (&[0x4142, 0xFFFF], "ABCD", Chars::Both, "AB"),
        (&[0x4142, 0x4344], "CDAB", Chars::Both, "ABCD"),
        (&[0x4241, 0x4443], "DCBA", Chars::Both, "ABCD"),
        (&[0x3231, 0xB043], "ABCD", Chars::Both, "21\u{b0}C"),
        (&[0xC2B0, 0x4300], "ABCD", Chars::Both, "\u{b0}C"),
        (&[0x0041, 0x0042], "ABCD", Chars::Low, "AB"),
        (&[0x4100, 0x4200], "ABCD", Chars::High, "AB"),
    ] {
        assert_eq!(text(registers, DataType::String, order, chars), expected);
    }
    assert_eq!(text(&[0x00FF, 0xA010], DataType::Bytes, "ABCD", Chars::Both), "00ffa010");
    let mut bytes = Layout::new(DataType::Bytes);
    bytes.length = 2;
    assert_eq!(encode(&bytes, &Raw::Text("00ffa010".into())), Ok(vec![0x00FF, 0xA010]));
    assert_eq!(encode(&bytes, &Raw::Text("00ff".into())), Err(EncodeError::Hex(8)));
    let mut short = Layout::new(DataType::String);
    short.length = 2;
    assert_eq!(encode(&short, &Raw::Text("AB".into())), Ok(vec![0x4142, 0]));
    assert_eq!(encode(&short, &Raw::Text("ABCDE".into())), Err(EncodeError::Long { bytes: 5, room: 4 }));
}

#[test]
fn times_are_shown_as_rfc_3339_and_written_back() {
    for (data, registers, expected) in [
        (DataType::Epoch32, vec![0x6553, 0xF100], "2023-11-14T22:13:20.000Z"),
        (DataType::Epoch32, vec![0xFFFF, 0xFFFF], "2106-02-07T06:28:15.000Z"),
        // 2024-02-29 was a Thursday (4): 4 << 5 | 29 = 0x9D.
        (DataType::IecDate, vec![24, 0x029D, 0x0D1E, 30_500], "2024-02-29T13:30:30.500Z"),
    ] {
        let layout = Layout::new(data);
        assert_eq!(decode(&layout, &registers), Ok(Raw::Text(expected.into())));
        assert_eq!(encode(&layout, &Raw::Text(expected.into())), Ok(registers));
    }
    let error = encode(&Layout::new(DataType::Epoch32), &Raw::Text("1969-12-31T23:59:59Z".into()));
    assert_eq!(error, Err(EncodeError::Time(DataType::Epoch32)));
}

#[test]
fn arrays_keep_their_order_and_their_number() {
    let mut layout = of(DataType::Int32, "CDAB", None);
    layout.count = 2;
    let raw = Raw::List(vec![Raw::Int(1), Raw::Int(-2)]);
    assert_eq!(decode(&layout, &[1, 0, 0xFFFE, 0xFFFF]), Ok(raw.clone()));
    assert_eq!(encode(&layout, &raw), Ok(vec![1, 0, 0xFFFE, 0xFFFF]));
    let one = Raw::List(vec![Raw::Int(1)]);
    assert_eq!(encode(&layout, &one), Err(EncodeError::Count { expected: 2, got: 1 }));
}

#[test]
fn scaling_is_decimal_and_integers_stay_whole() {
    for (raw, scale, offset, precision, expected) in [
        (Raw::Int(2257), "0.1", "0", None, "225.7"),
        (Raw::Int(0xABCD), "0.1", "0", None, "4398.1"),
        (Raw::Int(-1896), "0.1", "0", None, "-189.6"),
        (Raw::Int(81_985_529_216_486_895), "2", "3", None, "163971058432973793"),
        (Raw::Int(81_985_529_216_486_895), "2.0", "3.0", None, "163971058432973793"),
        (Raw::Int(i128::from(u64::MAX)), "1", "0", None, "18446744073709551615"),
        (Raw::Int(i128::from(u64::MAX)), "10", "0", None, "1.844674407370955e20"),
        (Raw::Int(9_007_199_254_740_993), "1e-3", "0", None, "9007199254740.992"),
        (Raw::Int(2), "1", "-10.3", Some(1), "-8.3"),
        (Raw::Int(25), "0.01", "0", Some(1), "0.3"),
        (Raw::Int(-25), "0.01", "0", Some(1), "-0.3"),
        (Raw::Int(-4), "0.01", "0", Some(1), "0.0"),
        (Raw::Int(1), "0.555555555555555555", "0.000000000000000001", None, "0.5555555555555556"),
        (Raw::Float(f64::from(230.2_f32)), "1", "0", None, "230.1999969482422"),
        (Raw::Float(f64::from(230.2_f32)), "1", "0", Some(1), "230.2"),
        (Raw::Float(230.25), "1", "0", Some(1), "230.3"),
        (Raw::Float(-0.04), "1", "0", Some(1), "0.0"),
        (Raw::Float(1e300), "1", "0", Some(3), "1e300"),
        (Raw::Float(1e300), "1e18", "0", None, "null"),
        (Raw::Bool(true), "0.1", "5", None, "true"),
    ] {
        let scaling = Scaling { scale: scale.parse().unwrap(), offset: offset.parse().unwrap(), precision };
        assert_eq!(scaling.apply(raw.clone()).to_string().replace("e+", "e"), expected, "{raw:?} x {scale} + {offset}");
    }
}

#[test]
fn scaling_is_undone_exactly() {
    for (value, scale, offset, expected) in [
        ("21.5", "0.1", "0", Raw::Int(215)),
        ("21", "0.1", "0", Raw::Int(210)),
        ("-8.3", "1", "-10.3", Raw::Int(2)),
        ("163971058432973793", "2", "3", Raw::Int(81_985_529_216_486_895)),
        ("18446744073709551615", "1", "0", Raw::Int(i128::from(u64::MAX))),
        ("1e3", "0.5", "0", Raw::Int(2000)),
        ("21.57", "0.1", "0", Raw::Float(215.7)),
        ("1e300", "1e-3", "0", Raw::Float(1e303)),
        ("0.1", "1", "0", Raw::Float(0.1)),
    ] {
        let scaling = Scaling { scale: scale.parse().unwrap(), offset: offset.parse().unwrap(), precision: None };
        assert_eq!(scaling.invert(&serde_json::from_str(value).unwrap()), Ok(expected), "{value}");
    }
    let zero = Scaling { scale: Decimal::whole(0), ..Scaling::default() };
    assert_eq!(zero.invert(&Value::from(1)), Err(ScaleError::Zero));
    assert_eq!(zero.invert(&Value::Null), Err(ScaleError::Kind));
}

#[test]
fn decimals_are_read_as_written() {
    for (text, mantissa, places) in [
        ("0.1", 1, 1),
        ("-3", -3, 0),
        (".5", 5, 1),
        ("1e-3", 1, 3),
        ("2.5E+1", 25, 0),
        ("1.0", 1, 0),
        ("0.000", 0, 0),
        ("9223372036854775807", i64::MAX, 0),
        ("1e-18", 1, 18),
    ] {
        assert_eq!(text.parse(), Ok(Decimal { mantissa, places }), "{text}");
    }
    for text in ["", ".", "-", "1e", "1e-19", "0x10", "1_000", "1,5", "1e400", "9223372036854775808", "nan", "--1"] {
        assert!(text.parse::<Decimal>().is_err(), "{text}");
    }
    let shown = |mantissa, places| Decimal { mantissa, places }.to_string();
    assert_eq!([shown(1, 3), shown(-25, 1), shown(7, 0)], ["0.001", "-2.5", "7"]);
}

#[test]
fn a_word_means_one_thing_and_an_error_says_which_would_be_right() {
    assert_eq!(DataType::words().count(), 22);
    for word in DataType::words() {
        assert_eq!(word.parse::<DataType>().unwrap().to_string(), word);
    }
    for word in ["ABCD", "CDAB", "BADC", "DCBA", "AB", "BA", "GHEFCDAB", "CDABGHEF", "HGFEDCBA", "BDAC"] {
        assert_eq!(word.parse::<Order>().unwrap().to_string(), word);
    }
    for word in ["3", "0..15", "16..31", "63"] {
        assert_eq!(word.parse::<Bits>().unwrap().to_string(), word);
    }
    let error = |text: &str| text.parse::<DataType>().unwrap_err().to_string();
    assert_eq!(error("float"), "\"float\" is no type on the wire; write float32");
    assert_eq!(error("unit16"), "\"unit16\" is no type on the wire; write uint16");
    assert!(error("?").contains("one of bit, int8_lo"));
    for order in ["", "ABC", "AA", "ABCE", "abcd", "little", "ABCDEFGHI", "BCDE"] {
        assert!(order.parse::<Order>().unwrap_err().to_string().contains("write "), "{order}");
    }
    for bits in ["", "64", "3..1", "-1", "1..", "a", "0...3"] {
        assert!(bits.parse::<Bits>().is_err(), "{bits}");
    }
}

#[test]
fn a_layout_that_cannot_be_is_refused_in_words() {
    use DataType as T;
    let many = |data, length, count| Layout { length, count, ..Layout::new(data) };
    for (layout, expected) in [
        (of(T::Uint16, "ABCD", Some("12..16")), "bits 12..16 do not lie inside uint16; its bits are 0..15"),
        (of(T::Float32, "ABCD", Some("1")), "a float32 has no bit fields; they belong to bit, intN and uintN"),
        (of(T::Bit, "ABCD", Some("1..2")), "type bit is one bit; write bits: 1 or take an integer type"),
        (many(T::String, 0, 1), "length 0 is not between 1 and 125 registers"),
        (many(T::Bytes, 126, 1), "length 126 is not between 1 and 125 registers"),
        (many(T::Uint16, 1, 0), "count 0 holds no value; the smallest is 1"),
        (many(T::Int32, 2, 63), "63 values of 2 registers are more than the 125 registers one read can carry"),
        (
            of(T::Int32, "GHEFCDAB", None),
            "order GHEFCDAB does not fit int32; write ABCD, CDAB, BADC, DCBA or another order \
                                          of the letters A to D",
        ),
        (
            of(T::Int64, "BA", None),
            "order BA does not fit int64; write ABCD, CDAB, BADC, DCBA or an order of the letters \
                                    A to H",
        ),
        (Layout { chars: Chars::Low, ..Layout::new(T::Int16) }, "chars belongs to type string, not to int16"),
    ] {
        assert_eq!(layout.check().unwrap_err().to_string(), expected);
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let error = encode(&Layout::new(DataType::Uint16), &Raw::Int(65_536)).unwrap_err();
    assert_eq!(error.to_string(), "65536 does not fit uint16, which holds 0 to 65535");
    for (data, raw) in [
        (DataType::Int16, Raw::Int(-32_769)),
        (DataType::Bcd16, Raw::Int(10_000)),
        (DataType::Bcd32, Raw::Int(-1)),
        (DataType::Float32, Raw::Float(1e39)),
        (DataType::Float16, Raw::Int(70_000)),
        (DataType::Int16, Raw::Float(f64::NAN)),
        (DataType::Uint64, Raw::Float(2e19)),
        (DataType::Uint16, Raw::Text("1".into())),
    ] {
        assert!(encode(&Layout::new(data), &raw).is_err(), "{data} {raw:?}");
    }
    assert_eq!(encode(&Layout::new(DataType::Uint16), &Raw::Float(215.5)), Ok(vec![216]));
}

fn any_layout() -> impl Strategy<Value = Layout> {
    let types: Vec<&str> = DataType::words().collect();
    let orders = prop::sample::select(vec!["ABCD", "CDAB", "BADC", "DCBA", "AB", "BA", "BDCA", "CDABGHEF"]);
    let bits = prop::option::of((0_u8..70, 0_u8..70).prop_map(|(first, last)| Bits { first, last }));
    (prop::sample::select(types), orders, bits, 0_u16..6, 0_u16..4).prop_map(|(data, order, bits, length, count)| {
        let data = data.parse().unwrap();
        Layout { order: order.parse().unwrap(), bits, length, count, ..Layout::new(data) }
    })
}

proptest! {
    #[test]
    fn nothing_from_a_wire_or_a_file_panics(layout in any_layout(), registers in prop::collection::vec(any::<u16>(), 0..20)) {
        let _ = layout.check();
        let mut copy = registers.clone();
        if let Ok(raw) = decode(&layout, &registers) {
            let _ = encode(&layout, &raw);
            let _ = encode_field(&layout, &raw);
            let _ = encode_into(&layout, &raw, &mut copy);
        }
    }

    #[test]
    fn what_was_decoded_is_encoded_to_the_same_bits(layout in any_layout(), registers in prop::collection::vec(any::<u16>(), 18)) {
        prop_assume!(layout.check().is_ok() && layout.data.class() != Class::Text && layout.data.class() != Class::Time);
        if let Ok(raw) = decode(&layout, &registers) {
            let mut copy = registers.clone();
            encode_into(&layout, &raw, &mut copy).unwrap();
            prop_assert_eq!(decode(&layout, &copy).unwrap(), raw);
            if layout.is_partial() {
                prop_assert_eq!(copy, registers);
            }
        }
    }

    #[test]
    fn a_scaled_register_comes_back(raw in any::<i32>(), mantissa in 1_i64..100_000, places in 0_u8..7, offset in -9999_i64..9999) {
        let scaling = Scaling { scale: Decimal { mantissa, places }, offset: Decimal { mantissa: offset, places: 2 }, precision: None };
        let value = scaling.apply(Raw::Int(i128::from(raw)));
        let back = encode(&Layout::new(DataType::Int32), &scaling.invert(&value).unwrap()).unwrap();
        prop_assert_eq!(decode(&Layout::new(DataType::Int32), &back).unwrap(), Raw::Int(i128::from(raw)));
    }
}
