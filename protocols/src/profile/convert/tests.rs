//! What reading and writing a property promise: the contract's words for qualities and refusals, and the vectors of
//! `tests/data/modbus_decode.json`.

use serde_json::json;

use super::*;
use crate::codec::Bits;
use crate::modbus;
use crate::profile::{Access, Range, Source};

const VECTORS: &str = include_str!("../../../../tests/data/modbus_decode.json");

fn property(kind: Kind, layout: Layout) -> Property {
    let visitor =
        modbus::Visitor { table: Table::Holding, address: 0, layout, write_address: None, write_function: None };
    let property = Property::new("p".parse().unwrap(), kind, Source::Modbus(visitor));
    Property { access: Access::ReadWrite, ..property }
}

fn of(kind: Kind, data: DataType) -> Property {
    property(kind, Layout::new(data))
}

fn scaled(data: DataType, scale: &str) -> Property {
    let mut property = of(Kind::Number, data);
    property.scaling.scale = scale.parse().unwrap();
    property
}

fn in_table(mut property: Property, table: Table, write_address: Option<u16>) -> Property {
    if let Source::Modbus(visitor) = &mut property.source {
        (visitor.table, visitor.write_address) = (table, write_address);
    }
    property
}

fn enumeration(data: DataType) -> Property {
    let mut property = of(Kind::Enum, data);
    property.labels = [(0, "off"), (1, "heat"), (0xFFFF, "fault")].map(|(key, word)| (key, word.to_owned())).into();
    property
}

fn flags(layout: Layout) -> Property {
    let mut property = property(Kind::Flags, layout);
    property.flags = [(0, "door"), (3, "fan"), (15, "fault")].map(|(bit, word)| (bit, word.to_owned())).into();
    property
}

fn check(property: &Property, registers: &[u16], value: Value, quality: &str) {
    let (got, got_quality) = property.from_registers(registers);
    assert_eq!(got_quality.to_string(), quality, "{registers:04x?} gave {got}");
    assert!(value::same(&got, &value), "{registers:04x?} gave {got}, not {value}");
    assert_eq!(got.is_null(), got_quality.is_bad(), "a bad quality and a value do not go together");
}

#[test]
fn every_vector_reads_as_a_property_and_is_written_back() {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    for vector in file["vectors"].as_array().unwrap() {
        let expected = &vector["expected"];
        let kind = match expected {
            Value::Bool(_) => Kind::Bool,
            Value::String(_) => Kind::String,
            _ => Kind::Number,
        };
        let mut property = of(kind, vector["type"].as_str().unwrap().parse().unwrap());
        if let Source::Modbus(visitor) = &mut property.source {
            visitor.layout.order = vector["order_alias"].as_str().unwrap().parse().unwrap();
            visitor.layout.bits = vector["bit"].as_u64().map(|bit| Bits { first: bit as u8, last: bit as u8 });
            visitor.layout.length = vector["length"].as_u64().map_or(visitor.layout.length, |length| length as u16);
            visitor.layout.chars = match vector["string_location"].as_str() {
                Some("lower") => codec::Chars::Low,
                Some("upper") => codec::Chars::High,
                _ => codec::Chars::Both,
            };
        }
        for (key, place) in [("scale", &mut property.scaling.scale), ("offset", &mut property.scaling.offset)] {
            if let Some(number) = vector.get(key) {
                *place = number.to_string().parse().unwrap();
            }
        }
        property.scaling.precision = vector["precision"].as_u64().map(|precision| precision as u8);
        let registers: Vec<u16> =
            vector["registers"].as_array().unwrap().iter().map(|register| register.as_u64().unwrap() as u16).collect();
        let (value, quality) = property.from_registers(&registers);
        if vector["expect_quality"] == "bad" {
            assert_eq!((value, quality), (Value::Null, Quality::Bad(Why::Nan)), "{}", vector["id"]);
            continue;
        }
        assert_eq!(quality, Quality::Good, "{}", vector["id"]);
        let float = |value: &Value| value.as_f64().unwrap();
        if kind == Kind::Number && (value.is_f64() || expected.is_f64()) {
            let relative = if vector["float_width"] == 32 { 1e-6 } else { 1e-12 };
            let tolerance = vector["tolerance"].as_f64().unwrap_or(relative * float(expected).abs());
            assert!((float(&value) - float(expected)).abs() <= tolerance, "{}: {value}", vector["id"]);
        } else {
            assert!(value::same(&value, expected), "{}: {value}", vector["id"]);
        }
        // What was read is accepted as a desired value and stands for itself.
        assert_eq!(property.accept(&value).as_ref(), Ok(&value), "{}", vector["id"]);
        assert!(property.same_encoded(&value, &value), "{}", vector["id"]);
    }
}

#[test]
fn sentinels_are_no_numbers() {
    for (data, invalid, registers, bad) in [
        (DataType::Uint16, json!([0xFFFF]), vec![0xFFFF], true),
        (DataType::Uint16, json!([0xFFFF]), vec![0xFFFE], false),
        (DataType::Int16, json!([-32768]), vec![0x8000], true),
        (DataType::Int16, json!([0x8000]), vec![0x8000], true),
        (DataType::Int32, json!([0x8000_0000_u32]), vec![0x8000, 0], true),
        (DataType::Uint64, json!([u64::MAX]), vec![0xFFFF; 4], true),
        (DataType::Int64, json!([i64::MIN]), vec![0x8000, 0, 0, 0], true),
        (DataType::Float32, json!([-999.9]), vec![0xC479, 0xF99A], true),
        (DataType::Bcd16, json!([0xFFFF]), vec![0xFFFF], true),
    ] {
        let mut property = scaled(data, "0.1");
        property.invalid = invalid.as_array().unwrap().clone();
        let (value, quality) = property.from_registers(&registers);
        assert_eq!(quality == Quality::Bad(Why::Sentinel), bad, "{data} {value}");
        assert_eq!(value.is_null(), bad);
    }
    let mut time = of(Kind::Datetime, DataType::Epoch32);
    time.invalid = vec![json!(0)];
    check(&time, &[0, 0], Value::Null, "bad:sentinel");
    check(&time, &[0, 60], json!("1970-01-01T00:01:00.000Z"), "good");
    let mut nan = of(Kind::Number, DataType::Float32);
    nan.invalid = vec![json!("nan")];
    check(&nan, &[0x7FC0, 0], Value::Null, "bad:nan");
    let mut array = property(Kind::Array, Layout { count: 2, ..Layout::new(DataType::Uint16) });
    array.invalid = vec![json!(0xFFFF)];
    check(&array, &[1, 0xFFFF], Value::Null, "bad:sentinel");
    check(&array, &[1, 2], json!([1, 2]), "good");
}

#[test]
fn words_flags_and_booleans_are_read() {
    let mode = enumeration(DataType::Int16);
    check(&mode, &[1], json!("heat"), "good");
    check(&mode, &[0xFFFF], json!("fault"), "good");
    check(&mode, &[7], json!(7), "uncertain:decode");
    let state = flags(Layout::new(DataType::Uint16));
    check(&state, &[0], json!([]), "good");
    check(&state, &[0x800D], json!(["door", "fan", "fault"]), "good");
    let coils = in_table(flags(Layout { count: 4, ..Layout::new(DataType::Bit) }), Table::Coil, None);
    assert_eq!(coils.from_bits(&[true, false, false, true]), (json!(["door", "fan"]), Quality::Good));
    assert_eq!(coils.to_write(&json!(["fan"])), Ok(WriteWire::Coils(vec![false, false, false, true])));
    check(&of(Kind::Bool, DataType::Uint16), &[2], json!(true), "good");
    let relay = in_table(of(Kind::Bool, DataType::Bit), Table::Coil, None);
    assert_eq!(relay.from_bits(&[true, false]), (json!(true), Quality::Good));
    assert_eq!(relay.from_bits(&[]), (Value::Null, Quality::Bad(Why::Decode)));
    assert_eq!(in_table(of(Kind::Int, DataType::Bit), Table::Coil, None).from_bits(&[true]).0, json!(1));
    assert_eq!(of(Kind::String, DataType::String).from_text("V1.2 \0").0, json!("V1.2"));
    assert_eq!(of(Kind::Number, DataType::String).from_text("1.5").0, json!(1.5));
    assert_eq!(of(Kind::Int, DataType::String).from_text("x").1, Quality::Bad(Why::Decode));
}

#[test]
fn an_int_is_whole_and_a_range_is_kept() {
    let mut whole = scaled(DataType::Int16, "0.1");
    whole.kind = Kind::Int;
    check(&whole, &[215], json!(22), "good");
    check(&whole, &[0xFF29], json!(-22), "good");
    assert!(!whole.from_registers(&[210]).0.is_f64());
    let mut property = scaled(DataType::Int16, "0.1");
    for (otherwise, low, high) in [
        (Otherwise::Bad, (Value::Null, "bad:range"), (Value::Null, "bad:range")),
        (Otherwise::Clamp, (json!(0), "uncertain:range"), (json!(30), "uncertain:range")),
        (Otherwise::Keep, (json!(-0.1), "uncertain:range"), (json!(30.1), "uncertain:range")),
    ] {
        property.range = Some(Range { min: Some(0.0), max: Some(30.0), otherwise });
        check(&property, &[0xFFFF], low.0, low.1);
        check(&property, &[301], high.0, high.1);
        check(&property, &[300], json!(30), "good");
        check(&property, &[0], json!(0), "good");
    }
    check(&of(Kind::Number, DataType::Uint32), &[1], Value::Null, "bad:decode");
    check(&of(Kind::Datetime, DataType::Uint32), &[0x6553, 0xF100], json!("2023-11-14T22:13:20.000Z"), "good");
    let mut ms = scaled(DataType::Int64, "0.001");
    ms.kind = Kind::Datetime;
    check(&ms, &[0, 0x018B, 0xCFE5, 0x687B], json!("2023-11-14T22:13:20.123Z"), "good");
    assert_eq!(
        ms.to_write(&json!("2023-11-14T22:13:20.123Z")),
        Ok(WriteWire::Registers(vec![0, 0x018B, 0xCFE5, 0x687B]))
    );
}

#[test]
fn the_door_for_desired_values_says_why_it_is_shut() {
    let mut setpoint = scaled(DataType::Int16, "0.1");
    (setpoint.write.min, setpoint.write.max, setpoint.write.step) = (Some(5.0), Some(30.0), Some(0.5));
    let mut whole = of(Kind::Int, DataType::Uint16);
    whole.write.step = Some(10.0);
    let mut ranged = scaled(DataType::Uint16, "0.1");
    ranged.range = Some(Range { min: Some(1.5), max: None, otherwise: Otherwise::Bad });
    let mut read_only = of(Kind::Number, DataType::Uint16);
    read_only.access = Access::Read;
    let text = property(Kind::String, Layout { length: 2, ..Layout::new(DataType::String) });
    let mode = enumeration(DataType::Uint16);
    let state = flags(Layout::new(DataType::Uint16));
    let array = property(Kind::Array, Layout { count: 2, ..Layout::new(DataType::Uint16) });
    let (long, signed) = (of(Kind::Int, DataType::Uint64), of(Kind::Int, DataType::Int64));
    for (property, value, expected) in [
        (&setpoint, json!(22), Ok(json!(22))),
        (&setpoint, json!(21.5), Ok(json!(21.5))),
        (&setpoint, json!(5), Ok(json!(5))),
        (&setpoint, json!(4.9), Err("below minimum 5")),
        (&setpoint, json!(30.5), Err("above maximum 30")),
        (&setpoint, json!(1e300), Err("above maximum 30")),
        (&setpoint, json!(21.3), Err("21.3 is not 5 plus a multiple of 0.5")),
        (&setpoint, json!("22"), Err("expected a number, got a string")),
        (&setpoint, json!(null), Err("expected a number, got null")),
        (&setpoint, json!(true), Err("expected a number, got a boolean")),
        (&whole, json!(20.0), Ok(json!(20))),
        (&long, json!(u64::MAX), Ok(json!(u64::MAX))),
        (&long, json!(9_007_199_254_740_993_u64), Ok(json!(9_007_199_254_740_993_u64))),
        (&long, json!(i64::MAX), Ok(json!(i64::MAX))),
        (&long, json!(1e20), Err("1e+20 is beyond 64 bits")),
        (&signed, json!(i64::MIN + 1), Ok(json!(i64::MIN + 1))),
        (&signed, json!(9_223_372_036_854_775_808_u64), Err("above maximum 9223372036854775807")),
        (&whole, json!(20.5), Err("expected a whole number, got 20.5")),
        (&whole, json!(25), Err("25 is no multiple of 10")),
        (&whole, json!(65_540), Err("above maximum 65535")),
        (&whole, json!(-10), Err("below minimum 0")),
        (&ranged, json!(1.4), Err("below minimum 1.5")),
        (&ranged, json!(6553.6), Err("above maximum 6553.5")),
        (&read_only, json!(1), Err("is read-only")),
        (&mode, json!("heat"), Ok(json!("heat"))),
        (&mode, json!(1), Ok(json!("heat"))),
        (&mode, json!(1.5), Err("1.5 is none of off, heat, fault")),
        (&mode, json!("cool"), Err("\"cool\" is none of off, heat, fault")),
        (&mode, json!(true), Err("expected a string, got a boolean")),
        (&state, json!(["fan", "door", "fan"]), Ok(json!(["door", "fan"]))),
        (&state, json!(["lid"]), Err("\"lid\" is none of door, fan, fault")),
        (&text, json!("ABCD"), Ok(json!("ABCD"))),
        (&text, json!("ABCDE"), Err("too long: 5 bytes, and there is room for 4")),
        (&array, json!([1, 2]), Ok(json!([1, 2]))),
        (&array, json!([1]), Err("expected 2 values, got 1")),
        (&array, json!([1, null]), Err("expected numbers, strings or true and false in the array, got null")),
    ] {
        assert_eq!(property.accept(&value), expected.map_err(str::to_owned), "{value}");
    }
    let boolean = of(Kind::Bool, DataType::Uint16);
    assert_eq!(boolean.accept(&json!(1)), Err("expected true or false, got a number".to_owned()));
    assert_eq!(boolean.accept(&json!(true)), Ok(json!(true)));
    let turned = scaled(DataType::Uint16, "-1");
    assert_eq!(turned.accept(&json!(1)), Err("above maximum 0".to_owned()));
    assert_eq!(turned.accept(&json!(-65_536)), Err("below minimum -65535".to_owned()));
    let input = in_table(of(Kind::Number, DataType::Uint16), Table::Input, None);
    assert_eq!(input.accept(&json!(1)), Err("lies in a table that cannot be written".to_owned()));
    let elsewhere = in_table(of(Kind::Number, DataType::Uint16), Table::Input, Some(9));
    assert_eq!(elsewhere.to_write(&json!(1)), Ok(WriteWire::Registers(vec![1])));
    let time = of(Kind::Datetime, DataType::Epoch32);
    assert_eq!(time.accept(&json!("1970-01-01T01:01:00+01:00")), Ok(json!("1970-01-01T00:01:00.000Z")));
    assert!(time.accept(&json!("tomorrow")).is_err());
}

#[test]
fn a_value_goes_out_as_the_device_has_it() {
    let bits = |data, bits: &str| Layout { bits: Some(bits.parse().unwrap()), ..Layout::new(data) };
    let registers = |registers: &[u16]| Ok(WriteWire::Registers(registers.to_vec()));
    for (property, value, expected) in [
        (scaled(DataType::Int16, "0.1"), json!(21.5), registers(&[215])),
        (scaled(DataType::Int16, "0.1"), json!(21.54), registers(&[215])),
        (of(Kind::Number, DataType::Float32), json!(21.5), registers(&[0x41AC, 0])),
        (of(Kind::Number, DataType::Uint64), json!(u64::MAX), registers(&[0xFFFF; 4])),
        (of(Kind::Int, DataType::Uint64), json!(u64::MAX), registers(&[0xFFFF; 4])),
        (of(Kind::Int, DataType::Uint64), json!(9_007_199_254_740_993_u64), registers(&[0x0020, 0, 0, 1])),
        (of(Kind::Int, DataType::Int64), json!(i64::MAX), registers(&[0x7FFF, 0xFFFF, 0xFFFF, 0xFFFF])),
        (of(Kind::Bool, DataType::Uint16), json!(true), registers(&[1])),
        (enumeration(DataType::Int16), json!("fault"), registers(&[0xFFFF])),
        (flags(Layout::new(DataType::Int16)), json!(["fault", "door"]), registers(&[0x8001])),
        (property(Kind::Bool, bits(DataType::Bit, "3")), json!(true), Ok(WriteWire::Field { mask: 8, value: 8 })),
        (
            property(Kind::Int, bits(DataType::Uint16, "4..7")),
            json!(5),
            Ok(WriteWire::Field { mask: 0xF0, value: 0x50 }),
        ),
        (property(Kind::Int, bits(DataType::Uint16, "4..7")), json!(16), Err("above maximum 15".to_owned())),
        (of(Kind::Int, DataType::Uint8Hi), json!(5), Ok(WriteWire::Field { mask: 0xFF00, value: 0x0500 })),
        (
            property(Kind::Int, bits(DataType::Uint32, "0..3")),
            json!(1),
            Err("bits of a value of more than one register cannot be written".to_owned()),
        ),
        (in_table(of(Kind::Bool, DataType::Bit), Table::Coil, None), json!(true), Ok(WriteWire::Coils(vec![true]))),
    ] {
        assert_eq!(property.to_write(&value), expected, "{value}");
    }
}

#[test]
fn a_read_back_is_compared_as_the_device_holds_it() {
    let tenth = scaled(DataType::Int16, "0.1");
    let long = of(Kind::Int, DataType::Uint64);
    let float = of(Kind::Number, DataType::Float32);
    let mut rounded = of(Kind::Number, DataType::Float32);
    rounded.scaling.precision = Some(1);
    let mut tolerant = scaled(DataType::Int16, "0.1");
    tolerant.write.tolerance = Some(0.2);
    for (property, a, b, same) in [
        (&tenth, json!(21.5), json!(21.5), true),
        (&tenth, json!(21.52), json!(21.5), true),
        (&tenth, json!(22), json!(22.0), true),
        (&long, json!(u64::MAX), json!(u64::MAX), true),
        (&long, json!(u64::MAX), json!(u64::MAX - 1), false),
        (&long, json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), false),
        (&tenth, json!(21.5), json!(21.6), false),
        (&tenth, json!(21.5), json!(null), false),
        (&float, json!(21.3), json!(f64::from(21.3_f32)), true),
        (&float, json!(21.3), json!(21.30001), false),
        (&rounded, json!(21.37), json!(21.4), true),
        (&tolerant, json!(21.5), json!(21.7), true),
        (&tolerant, json!(21.5), json!(21.8), false),
        (&enumeration(DataType::Uint16), json!("off"), json!("heat"), false),
    ] {
        assert_eq!(property.same_encoded(&a, &b), same, "{a} and {b}");
    }
}
