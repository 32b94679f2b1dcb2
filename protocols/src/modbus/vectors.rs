//! The table tests of `tests/data/modbus_frames.json`, and what any split of a stream must not change.

use proptest::prelude::*;
use serde_json::Value;

use super::Table;
use super::frame::{self, Framing, Inbox, Side, Step};
use super::pdu::{self, AnswerError, Exception, Repeated, Request, RequestError, Response};

fn vectors(kind: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../../../tests/data/modbus_frames.json")).unwrap();
    let all = file["vectors"].as_array().unwrap();
    all.iter().filter(|vector| vector["kind"] == kind).cloned().collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let text = hex.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn number(value: &Value) -> u16 {
    u16::try_from(value.as_u64().unwrap()).unwrap()
}

type Found = Vec<(u16, u8, Vec<u8>)>;

/// All frames of a stream that comes in `pieces`; `rest` is what a silent line still gives away.
fn frames<'a>(framing: Framing, side: Side, pieces: impl Iterator<Item = &'a [u8]>) -> Found {
    let mut inbox = Inbox::default();
    let mut found = Vec::new();
    let mut drain = |inbox: &mut Inbox, silent: bool| {
        loop {
            let step = match silent {
                true if framing == Framing::Rtu => frame::rtu_at_silence(side, inbox.bytes(), None),
                _ => frame::step(framing, side, inbox.bytes()).unwrap(),
            };
            let used = match step {
                Step::Frame { frame, used } => {
                    found.push((frame.transaction, frame.unit, frame::pdu_bytes(framing, &frame)));
                    used
                }
                Step::Skip { used, .. } => used,
                Step::More => return,
            };
            inbox.forget(used);
        }
    };
    for piece in pieces {
        let mut piece = piece;
        while !piece.is_empty() {
            let room = inbox.room();
            let count = room.len().min(piece.len());
            room[..count].copy_from_slice(&piece[..count]);
            piece = &piece[count..];
            inbox.filled(count);
            drain(&mut inbox, false);
        }
    }
    drain(&mut inbox, true);
    found
}

#[test]
fn checksums_are_the_vectors() {
    for vector in vectors("lrc") {
        let sum = frame::lrc(&bytes(&vector["input"]["hex"]));
        assert_eq!(u64::from(sum), vector["expected"]["lrc"].as_u64().unwrap(), "{vector}");
    }
    // The check value of CRC-16/MODBUS in the catalogue of parametrised CRC algorithms.
    assert_eq!(frame::crc(b"123456789"), 0x4B37);
}

#[test]
fn every_framing_is_written_and_read_as_the_vectors_have_it() {
    let mut count = 0;
    for (kind, framing) in [("rtu", Framing::Rtu), ("ascii", Framing::Ascii), ("tcp", Framing::Tcp)] {
        for vector in vectors(kind) {
            let input = &vector["input"];
            let unit = u8::try_from(number(&input["unit"])).unwrap();
            let transaction = input.get("transaction").map_or(0, number);
            let pdu = bytes(&input["pdu_hex"]);
            let adu = match vector["expected"]["adu_text"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => bytes(&vector["expected"]["adu_hex"]),
            };
            let mut out = Vec::new();
            frame::encode(framing, transaction, unit, &mut out, |out| out.extend(&pdu));
            assert_eq!(out, adu, "{}", vector["id"]);

            let id = vector["id"].as_str().unwrap();
            let expected = vec![(transaction, unit, pdu)];
            let read = |side| frames(framing, side, adu.chunks(1)) == expected;
            // Some vectors do not say which way they go; one of the two must read them.
            let (request, response) = (read(Side::Requests), read(Side::Answers));
            match () {
                () if id.ends_with("request") => assert!(request, "{id}"),
                () if id.ends_with("response") || id.ends_with("exception") => assert!(response, "{id}"),
                () => assert!(request || response, "{id}"),
            }
            count += 1;
        }
    }
    assert!(count >= 35, "{count}");
}

#[test]
fn streams_give_the_frames_of_the_vectors_however_they_are_cut() {
    for vector in vectors("stream") {
        let input = &vector["input"];
        let (framing, side) = match input["transport"].as_str().unwrap() {
            "ascii" => (Framing::Ascii, Side::Answers),
            "tcp" => (Framing::Tcp, Side::Answers),
            "rtu_request" => (Framing::Rtu, Side::Requests),
            _ => (Framing::Rtu, Side::Answers),
        };
        let stream = input["text"].as_str().map_or_else(|| bytes(&input["hex"]), |text| text.as_bytes().to_vec());
        let expected: Found = vector["expected"]["frames"]
            .as_array()
            .unwrap()
            .iter()
            .map(|frame| {
                let unit = u8::try_from(number(&frame["unit"])).unwrap();
                (frame.get("transaction").map_or(0, number), unit, bytes(&frame["pdu_hex"]))
            })
            .collect();
        for piece in 1..=stream.len() {
            assert_eq!(frames(framing, side, stream.chunks(piece)), expected, "{} by {piece}", vector["id"]);
        }
    }
}

/// A vector's request: `input` names its parts.
fn request(input: &Value) -> Request {
    let function = u8::try_from(number(&input["function"])).unwrap();
    let address = input.get("address").map_or(0, number);
    let words = |key: &str| input[key].as_array().unwrap().iter().map(number).collect::<Vec<_>>();
    let bits = |key: &str| input[key].as_array().unwrap().iter().map(|bit| bit.as_bool().unwrap()).collect::<Vec<_>>();
    let read = |table| Request::Read { table, address, count: number(&input["count"]) };
    match function {
        1 => read(Table::Coil),
        2 => read(Table::Discrete),
        3 => read(Table::Holding),
        4 => read(Table::Input),
        5 => Request::WriteCoil { address, on: bits("bits")[0] },
        6 => Request::WriteRegister { address, value: words("registers")[0] },
        15 => Request::WriteCoils { address, bits: bits("bits") },
        16 => Request::WriteRegisters { address, values: words("registers") },
        22 => Request::MaskWrite { address, and: number(&input["and_mask"]), or: number(&input["or_mask"]) },
        23 => Request::ReadWrite {
            read_address: number(&input["read_address"]),
            read_count: number(&input["read_count"]),
            write_address: number(&input["write_address"]),
            values: words("write_registers"),
        },
        43 => {
            let part = |key: &str| u8::try_from(number(&input[key])).unwrap();
            Request::DeviceId { code: part("read_code"), object: part("object_id") }
        }
        24 => Request::Other { function, data: address.to_be_bytes().to_vec() },
        _ => Request::Other { function, data: vec![] },
    }
}

#[test]
fn protocol_data_units_are_the_vectors() {
    for vector in vectors("pdu") {
        let (id, input) = (vector["id"].as_str().unwrap(), &vector["input"]);
        let expected = bytes(&vector["expected"]["pdu_hex"]);
        if id.ends_with("Request") {
            let request = request(input);
            assert_eq!(request.encode(), expected, "{id}");
            match (&request, request.check()) {
                (Request::Other { .. }, _) => assert_eq!(Request::decode(&expected), Err(Exception(1)), "{id}"),
                (_, Err(error)) => assert_eq!(Request::decode(&expected), Err(error.exception()), "{id}"),
                (_, Ok(())) => assert_eq!(Request::decode(&expected), Ok(request), "{id}"),
            }
            continue;
        }
        let (request, response) = answer(input);
        assert_eq!(response.encode(&request), expected, "{id}");
        assert_eq!(Response::decode(&request, &expected), Ok(response), "{id}");
    }
}

/// A vector's answer, and a request that it answers.
fn answer(input: &Value) -> (Request, Response) {
    let address = input.get("address").map_or(0, number);
    let count = |key: &str| u16::try_from(input[key].as_array().unwrap().len()).unwrap();
    let read = |table, key| Request::Read { table, address, count: count(key) };
    let bits = || input["bits"].as_array().unwrap().iter().map(|bit| bit.as_bool().unwrap()).collect();
    let words = || input["registers"].as_array().unwrap().iter().map(number).collect();
    match number(&input["function"]) {
        1 => (read(Table::Coil, "bits"), Response::Bits(bits())),
        2 => (read(Table::Discrete, "bits"), Response::Bits(bits())),
        3 => (read(Table::Holding, "registers"), Response::Registers(words())),
        4 => (read(Table::Input, "registers"), Response::Registers(words())),
        5 | 6 | 22 => (request(input), Response::Written),
        15 => {
            let bits = vec![false; usize::from(number(&input["count"]))];
            (Request::WriteCoils { address, bits }, Response::Written)
        }
        16 => {
            let values = vec![0; usize::from(number(&input["count"]))];
            (Request::WriteRegisters { address, values }, Response::Written)
        }
        function => {
            let function = u8::try_from(function).unwrap();
            let data = match function {
                // Status 0 (ready) and the event count.
                11 => [&[0, 0], &number(&input["count"]).to_be_bytes()[..]].concat(),
                // Byte count, identifier, run indicator.
                17 => {
                    [&[2], &bytes(&input["identifier"])[..], &[if input["status"] == true { 0xFF } else { 0 }]].concat()
                }
                other => panic!("no reading of function {other}"),
            };
            (Request::Other { function, data: vec![] }, Response::Other(data))
        }
    }
}

#[test]
fn bits_are_unpacked_from_the_lowest() {
    for vector in vectors("bits") {
        let count = usize::from(number(&vector["input"]["count"]));
        let bits = pdu::bits(&bytes(&vector["input"]["hex"]), count).unwrap();
        let on: Vec<usize> = bits.iter().enumerate().filter(|(_, on)| **on).map(|(index, _)| index).collect();
        assert_eq!(serde_json::json!(on), vector["expected"]["true_indexes"], "{vector}");
        assert_eq!(bits.len(), count);
    }
}

#[test]
fn the_specifications_examples_hold_both_ways() {
    for vector in vectors("spec") {
        let (asked, answered) =
            (bytes(&vector["input"]["request_pdu_hex"]), bytes(&vector["expected"]["response_pdu_hex"]));
        let request = Request::decode(&asked)
            .unwrap_or_else(|_| Request::Other { function: asked[0], data: asked[1..].to_vec() });
        assert_eq!(request.encode(), asked, "{vector}");
        let response = Response::decode(&request, &answered).unwrap();
        assert_eq!(response.encode(&request), answered, "{vector}");
        if let (Response::Registers(values), Some(expected)) = (&response, vector["expected"].get("registers")) {
            assert_eq!(&serde_json::json!(values), expected);
        }
        if let Some(expected) = vector["expected"].get("mask_result") {
            let mut bank = super::server::Bank::default();
            bank.set(Table::Holding, 4, number(&expected["current"]));
            assert_eq!(bank.answer(&request), Ok(Response::Written));
            assert_eq!(bank.get(Table::Holding, 4), Some(number(&expected["result"])));
        }
    }
}

#[test]
fn an_answer_that_does_not_fit_is_never_a_value() {
    let coils = Request::Read { table: Table::Coil, address: 0, count: 9 };
    let words = Request::Read { table: Table::Holding, address: 0, count: 2 };
    let write = Request::WriteRegister { address: 1, value: 5 };
    let many = Request::WriteRegisters { address: 1, values: vec![1, 2] };
    let id = Request::DeviceId { code: 1, object: 0 };
    let late = AnswerError::OtherRequest;
    for (request, pdu, expected) in [
        (&coils, &[1, 1, 0xFF][..], None),
        (&coils, &[1, 2, 0xFF], None),
        (&coils, &[1, 3, 0, 0, 0], None),
        (&coils, &[], None),
        (&coils, &[2, 2, 0, 0], Some(AnswerError::WrongFunction { asked: 1, got: 2 })),
        (&words, &[3, 2, 0, 1], None),
        (&words, &[3, 6, 0, 1, 0, 1, 0, 1], None),
        (&words, &[3, 4, 0, 1, 0], None),
        (&words, &[0x83, 2], Some(AnswerError::Exception(Exception(2)))),
        (&words, &[0x83], None),
        (&words, &[0x84, 2], Some(AnswerError::WrongFunction { asked: 3, got: 0x84 })),
        (&write, &[6, 0, 2, 0, 5], Some(late(Repeated::Address))),
        (&write, &[6, 0, 1, 0, 6], Some(late(Repeated::Value))),
        (&write, &[6, 0, 1, 0], None),
        (&many, &[16, 0, 1, 0, 3], Some(late(Repeated::Value))),
        (&id, &[43, 14, 1, 1, 0, 0, 1, 0, 5, b'A'], None),
        (&id, &[43, 13, 1, 1, 0, 0, 0], None),
        (&id, &[43, 14, 1, 1, 0, 0, 0, 9], None),
    ] {
        match (Response::decode(request, pdu), expected) {
            (Err(AnswerError::Malformed(_)), None) => {}
            (Err(error), Some(expected)) => assert_eq!(error, expected, "{pdu:02x?}"),
            (got, _) => panic!("{pdu:02x?} gives {got:?}"),
        }
    }
}

#[test]
fn a_server_refuses_with_the_exception_of_the_flow_charts() {
    for (pdu, exception) in [
        (&[][..], 1),
        (&[99, 0, 0], 1),
        (&[43, 13, 0], 1),
        (&[43, 14, 5, 0], 3),
        (&[1, 0, 0, 0x07, 0xD1], 3),
        (&[3, 0, 0, 0, 0], 3),
        (&[3, 0, 0, 0, 126], 3),
        (&[3, 0xFF, 0xFF, 0, 2], 2),
        (&[3, 0, 0, 0], 3),
        (&[5, 0, 0, 0x12, 0x34], 3),
        (&[15, 0, 0, 0, 9, 1, 0xFF], 3),
        (&[15, 0, 0, 0, 1, 2, 0xFF, 0], 3),
        (&[16, 0, 0, 0, 2, 2, 0, 1], 3),
        (&[16, 0, 0, 0, 1, 3, 0, 1, 0], 3),
        (&[16, 0, 0, 0, 0, 0], 3),
        (&[23, 0, 0, 0, 1, 0, 0, 0, 1, 4, 0, 1], 3),
    ] {
        assert_eq!(Request::decode(pdu), Err(Exception(exception)), "{pdu:02x?}");
    }
}

#[test]
fn a_request_beyond_the_limits_is_told_so() {
    let count = |function, count, most| Err(RequestError::Count { function, count, most });
    for (request, expected) in [
        (Request::Read { table: Table::Holding, address: 0, count: 125 }, Ok(())),
        (Request::Read { table: Table::Holding, address: 0, count: 126 }, count(3, 126, 125)),
        (Request::Read { table: Table::Coil, address: 0, count: 2000 }, Ok(())),
        (Request::Read { table: Table::Discrete, address: 0, count: 2001 }, count(2, 2001, 2000)),
        (Request::Read { table: Table::DeviceId, address: 0, count: 1 }, Err(RequestError::DeviceId)),
        (
            Request::Read { table: Table::Input, address: 65535, count: 2 },
            Err(RequestError::Address { address: 65535, count: 2 }),
        ),
        (Request::WriteCoils { address: 0, bits: vec![true; 1969] }, count(15, 1969, 1968)),
        (Request::WriteRegisters { address: 0, values: vec![0; 124] }, count(16, 124, 123)),
        (Request::WriteRegisters { address: 0, values: vec![] }, count(16, 0, 123)),
    ] {
        assert_eq!(request.check(), expected);
    }
}

#[test]
fn a_stream_that_is_no_modbus_tcp_is_given_up() {
    for (bytes, bad) in [
        (&[0, 1, 0, 1, 0, 3, 1, 3][..], true),
        (&[0, 1, 1], true),
        (&[0, 1, 0, 7], true),
        (&[0, 1, 0, 0, 0, 1, 1], true),
        (&[0, 1, 0, 0, 0, 255, 1], true),
        (&[0, 1, 0, 0, 1, 0, 1], true),
        (&[0, 1, 0, 0, 0, 254, 1], false),
        (&[0, 1, 0, 0, 0], false),
        (&[], false),
    ] {
        assert_eq!(frame::tcp(bytes).is_err(), bad, "{bytes:02x?}");
    }
}

#[test]
fn the_inside_of_an_unfinished_frame_is_no_frame() {
    // Unit 1 answers 125 registers, and their content is itself a frame with a right checksum.
    let mut inner = Vec::new();
    frame::encode(Framing::Rtu, 0, 1, &mut inner, |out| out.extend([0x83, 2]));
    let mut whole = Vec::new();
    frame::encode(Framing::Rtu, 0, 1, &mut whole, |out| {
        out.extend([3, 250, 0]);
        out.extend(&inner);
        out.extend(vec![0; 250 - 1 - inner.len()]);
    });
    let pdu = whole[1..whole.len() - 2].to_vec();
    for piece in 1..40 {
        assert_eq!(frames(Framing::Rtu, Side::Answers, whole.chunks(piece)), vec![(0, 1, pdu.clone())]);
    }
    // When the rest never comes, what is inside is all there is to find.
    assert_eq!(frames(Framing::Rtu, Side::Answers, whole[..20].chunks(20)), vec![(0, 1, vec![0x83, 2])]);
}

fn some_request() -> impl Strategy<Value = Request> {
    let table = prop::sample::select(vec![Table::Coil, Table::Discrete, Table::Input, Table::Holding]);
    let words = |most| prop::collection::vec(any::<u16>(), 1..most);
    let low = 0..60_000u16;
    prop_oneof![
        (table, low.clone(), 1..=125u16).prop_map(|(table, address, count)| Request::Read { table, address, count }),
        (any::<u16>(), any::<bool>()).prop_map(|(address, on)| Request::WriteCoil { address, on }),
        (any::<u16>(), any::<u16>()).prop_map(|(address, value)| Request::WriteRegister { address, value }),
        (low.clone(), prop::collection::vec(any::<bool>(), 1..1968))
            .prop_map(|(address, bits)| Request::WriteCoils { address, bits }),
        (low.clone(), words(123)).prop_map(|(address, values)| Request::WriteRegisters { address, values }),
        (any::<u16>(), any::<u16>(), any::<u16>()).prop_map(|(address, and, or)| Request::MaskWrite {
            address,
            and,
            or
        }),
        (low.clone(), 1..=125u16, low, words(121)).prop_map(|(read_address, read_count, write_address, values)| {
            Request::ReadWrite { read_address, read_count, write_address, values }
        }),
        (1..=4u8, any::<u8>()).prop_map(|(code, object)| Request::DeviceId { code, object }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_survives_its_bytes(request in some_request()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn any_split_gives_the_same_frames(
        requests in prop::collection::vec((any::<u8>(), some_request()), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..20),
        cuts in prop::collection::vec(1..80usize, 1..20),
    ) {
        for framing in [Framing::Tcp, Framing::Rtu, Framing::Ascii] {
            let mut stream = Vec::new();
            for (index, (unit, request)) in requests.iter().enumerate() {
                // Modbus TCP has no noise: a stream that is lost there is closed.
                if framing != Framing::Tcp && index == 1 {
                    stream.extend(&noise);
                }
                frame::encode(framing, index as u16, *unit, &mut stream, |out| request.encode_into(out));
            }
            let whole = frames(framing, Side::Requests, std::iter::once(&stream[..]));
            let mut at = 0;
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if at >= stream.len() { break; }
                let end = (at + cut).min(stream.len());
                pieces.push(&stream[at..end]);
                at = end;
            }
            prop_assert_eq!(&frames(framing, Side::Requests, pieces.into_iter()), &whole);
            if noise.is_empty() || framing == Framing::Tcp {
                prop_assert_eq!(whole.len(), requests.len());
            }
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_stumble(stream in prop::collection::vec(any::<u8>(), 0..600)) {
        for side in [Side::Answers, Side::Requests] {
            frames(Framing::Rtu, side, stream.chunks(7));
            frames(Framing::Ascii, side, stream.chunks(7));
        }
        let _ = frame::tcp(&stream);
        let _ = Request::decode(&stream);
        let _ = Response::decode(&Request::DeviceId { code: 1, object: 0 }, &stream);
    }
}
