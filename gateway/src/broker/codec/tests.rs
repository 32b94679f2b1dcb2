//! The codec against the specification's bytes, against mutation, and against a referee.

use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};

use super::connect::{Refusal, connect};
use super::read::Reader;
use super::{Fault, V4, V5, decode, frame};

/// Cases of the mutation test; they take a few seconds without optimisation.
const MUTATIONS: u32 = 100_000;

fn reason(first: u8, body: &[u8], version: u8) -> u8 {
    decode(first, body, version).err().map_or(0, |fault| fault.reason)
}

#[test]
fn malformed_packets_are_refused_with_their_reason() {
    for (statement, first, body, v4, v5) in [
        ("MQTT-2.1.3-1 reserved flags", 0xc1u8, &b""[..], 0x81, 0x81),
        ("MQTT-3.3.1-4 QoS 3", 0x36, b"\0\x01a\0\x01\0", 0x81, 0x81),
        ("MQTT-3.3.1-2 DUP with QoS 0", 0x38, b"\0\x01a\0", 0x81, 0x81),
        ("MQTT-2.2.1-3 packet identifier 0", 0x32, b"\0\x01a\0\0\0", 0x81, 0x81),
        ("MQTT-3.3.2-2 wildcard in a topic", 0x30, b"\0\x01#\0", 0x90, 0x90),
        ("MQTT-4.7.3-1 empty topic", 0x30, b"\0\0\0", 0x82, 0x82),
        ("MQTT-1.5.4-2 NUL in a topic", 0x30, b"\0\x03a\0b\0", 0x81, 0x81),
        ("MQTT-1.5.4-1 not UTF-8", 0x30, b"\0\x02\xed\xa0\0", 0x81, 0x81),
        ("MQTT-3.8.1-1 flags of SUBSCRIBE", 0x80, b"\0\x01\0\0\x01a\0", 0x81, 0x81),
        ("MQTT-3.8.3-2 SUBSCRIBE without a filter", 0x82, b"\0\x01", 0x82, 0x81),
        ("MQTT-3.8.3-5 reserved options", 0x82, b"\0\x01\0\x01a\xc0", 0x81, 0x81),
        ("MQTT-3.10.3-2 UNSUBSCRIBE without a filter", 0xa2, b"\0\x01", 0x82, 0x81),
        ("a second CONNECT, MQTT-3.1.0-2", 0x10, b"", 0x82, 0x82),
        ("packets of servers", 0x20, b"\0\0", 0x82, 0x82),
        ("AUTH without a method", 0xf0, b"", 0x82, 0x82),
    ] {
        assert_eq!(reason(first, body, V4), v4, "3.1.1: {statement}");
        assert_eq!(reason(first, body, V5), v5, "5: {statement}");
    }
    for (statement, body, expected) in [
        ("MQTT-3.3.2-8 alias 0", &b"\0\x01a\x03\x23\0\0"[..], 0x94),
        ("MQTT-3.3.4-6 subscription identifier from a client", b"\0\x01a\x02\x0b\x01", 0x82),
        ("MQTT-3.3.2-14 wildcard in a response topic", b"\0\x01a\x04\x08\0\x01#", 0x82),
        ("2.2.2.2 a property twice", b"\0\x01a\x04\x01\0\x01\0", 0x82),
        ("2.2.2.2 a property of another packet", b"\0\x01a\x05\x11\0\0\0\x01", 0x82),
        ("properties longer than the packet", b"\0\x01a\x09\x01\0", 0x81),
        ("MQTT-1.5.5-1 a length in too many bytes", b"\0\x01a\x80\0", 0x81),
        ("no property length", b"\0\x01a", 0x81),
    ] {
        assert_eq!(reason(0x30, body, V5), expected, "{statement}");
    }
}

#[test]
fn a_packet_s_size_is_known_before_it_is_stored() {
    for (bytes, limit, expected) in [
        (&b""[..], 10, Ok(None)),
        (b"\x30", 10, Ok(None)),
        (b"\x30\x80", 1000, Ok(None)),
        (b"\x30\x05", 10, Ok(Some(7))),
        (b"\x30\x05", 7, Ok(Some(7))),
        (b"\x30\x05", 6, Err(0x95)),
        (b"\x30\xff\xff\xff\x7f", 1000, Err(0x95)),
        (b"\x30\xff\xff\xff\xff", u32::MAX, Err(0x81)),
    ] {
        let found = frame(bytes, limit).map(|frame| frame.map(|one| one.end)).map_err(|fault| fault.reason);
        assert_eq!(found, expected, "{bytes:?} {limit}");
    }
}

#[test]
fn connects_of_other_kinds_are_told_apart() {
    let v4 =
        |text: &str| Err::<(), _>(Refusal::Fault(V4, Fault::malformed(Box::leak(text.to_owned().into_boxed_str()))));
    for (body, expected) in [
        (&b"\0\x06MQIsdp\x03\x02\0\0\0\0"[..], Err(Refusal::Version { answer: V4 })),
        (b"\0\x04MQTT\x03\x02\0\0\0\0", Err(Refusal::Version { answer: V4 })),
        (b"\0\x04MQTT\x06\x02\0\0\0\0", Err(Refusal::Version { answer: V5 })),
        (b"\0\x04HTTP\x04\x02\0\0\0\0", Err(Refusal::Silent("another protocol"))),
        (b"\0\x04MQTT\x04\x03\0\0\0\0", v4("the reserved flag of CONNECT is set")),
        (b"\0\x04MQTT\x04\x1a\0\0\0\0", v4("will flags that do not fit together")),
        (b"\0\x04MQTT\x04\x42\0\0\0\0", v4("a password without a user name")),
        (b"\0\x04MQTT\x04\x02\0\0\0\0x", v4("bytes after the end of the packet")),
        (b"\0\x04MQTT\x04\x02\0\0\0\0", Ok(())),
    ] {
        assert_eq!(connect(0x10, body).map(|_| ()), expected, "{body:?}");
    }
}

/// A small generator (xorshift64) so that a failing case can be found again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides.max(1) as u64).unwrap()
    }
}

fn mutate(dice: &mut Dice, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len());
        match dice.roll(4) {
            0 => bytes[at] = dice.roll(256) as u8,
            1 => bytes[at] ^= 1 << dice.roll(8),
            2 => bytes.insert(at, dice.roll(256) as u8),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Whether `mqtt-protocol-core` accepts a packet.
fn referee(first: u8, body: &[u8], version: u8) -> bool {
    match (first >> 4, version) {
        (1, _) if body.get(6) == Some(&V5) => {
            // MQTT 5 allows a password without a user name, 3.1.2.9; the referee does not
            v5_0::Connect::parse(body).is_ok() || body.get(7).is_some_and(|flags| flags & 0xc0 == 0x40)
        }
        (1, _) => v3_1_1::Connect::parse(body).is_ok(),
        (3, V5) => v5_0::Publish::parse(first & 15, body.into()).is_ok(),
        (3, _) => v3_1_1::Publish::parse(first & 15, body.into()).is_ok(),
        (4, V5) => v5_0::Puback::parse(body).is_ok(),
        (4, _) => v3_1_1::Puback::parse(body).is_ok(),
        (6, V5) => v5_0::Pubrel::parse(body).is_ok(),
        (6, _) => v3_1_1::Pubrel::parse(body).is_ok(),
        // a share name that is none is answered in the SUBACK here, not by ending the connection
        (8, V5) => v5_0::Subscribe::parse(body).is_ok() || body.windows(6).any(|part| part == b"$share"),
        (8, _) => v3_1_1::Subscribe::parse(body).is_ok() || body.windows(6).any(|part| part == b"$share"),
        (10, V5) => v5_0::Unsubscribe::parse(body).is_ok(),
        (10, _) => v3_1_1::Unsubscribe::parse(body).is_ok(),
        (14, V5) => v5_0::Disconnect::parse(body).is_ok(),
        _ => true,
    }
}

#[test]
fn what_is_accepted_the_referee_accepts_too_and_nothing_panics() {
    let seeds: [(u8, &[u8]); 8] = [
        (0x10, b"\0\x04MQTT\x05\xee\0\x3c\x0a\x11\0\0\0\x0a\x21\0\x05\x19\x01\0\x01c\x05\x18\0\0\0\x01\0\x01w\0\x02hi\0\x01u\0\x01p"),
        (0x10, b"\0\x04MQTT\x04\xee\0\x3c\0\x01c\0\x01w\0\x02hi\0\x01u\0\x01p"),
        (0x32, b"\0\x03a/b\0\x07\x0c\x23\0\x01\x08\0\x01r\x09\0\x02xypayload"),
        (0x40, b"\0\x07\x10\x08\x1f\0\x05hello"),
        (0x62, b"\0\x07\x92\0"),
        (0x82, b"\0\x07\x02\x0b\x05\0\x03a/#\x2e\0\x09$share/gb\x01"),
        (0xa2, b"\0\x07\0\0\x03a/#"),
        (0xe0, b"\x04\x05\x11\0\0\0\x05"),
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for case in 0..MUTATIONS {
        let (first, seed) = seeds[dice.roll(seeds.len())];
        let body = mutate(&mut dice, seed);
        let version = if dice.roll(2) == 0 { V4 } else { V5 };
        let theirs = referee(first, &body, version);
        let ours = match first {
            0x10 => connect(first, &body).map(|_| ()).map_err(|_| ()),
            _ => decode(first, &body, version).map(|_| ()).map_err(|_| ()),
        };
        if ours.is_ok() {
            accepted += 1;
            assert!(theirs, "case {case}: only we accept {first:#x} {body:?} as version {version}");
        }
    }
    assert!(accepted > MUTATIONS / 50, "the mutations are too wild to show anything: {accepted}");
}

#[test]
fn variable_byte_integers_read_back_at_their_borders() {
    // MQTT 5, table 1-1
    for (value, bytes) in [
        (0usize, &[0u8][..]),
        (127, &[0x7f]),
        (128, &[0x80, 1]),
        (16_383, &[0xff, 0x7f]),
        (16_384, &[0x80, 0x80, 1]),
        (2_097_151, &[0xff, 0xff, 0x7f]),
        (2_097_152, &[0x80, 0x80, 0x80, 1]),
        (268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
    ] {
        let mut out = Vec::new();
        super::write::variable(&mut out, value);
        assert_eq!(out, bytes);
        assert_eq!(super::write::variable_length(value), bytes.len());
        assert_eq!(Reader::new(bytes).variable().unwrap() as usize, value);
    }
}
