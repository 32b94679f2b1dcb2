//! The few packets a bridge says and hears, in either version of MQTT.
//!
//! In: what to say; bytes of the socket. Out: bytes; [`Heard`]. The packets themselves are rumqttc's; what differs
//! between its two codecs ends here. Must never keep a packet that is larger than [`PACKET_BYTES`].

use bytes::{Bytes, BytesMut};
use protocols::dialect::{Message, Publish};
use rumqttc::mqttbytes::{self as v4bytes, v4};
use rumqttc::v5::mqttbytes::{self as v5bytes, v5};

/// The largest packet taken from the other side, in bytes; a larger one ends the link. Wishes are small; this is ten times
/// the largest document.
pub(super) const PACKET_BYTES: u32 = 1 << 20;

/// How long the other side keeps the session of a link that is away, in seconds (MQTT 5); as long as readings are spooled.
const SESSION_S: u32 = 7 * 86_400;

/// Wishes of the other side that may wait for their PUBACK at one time (MQTT 5 Receive Maximum); it holds the rest back.
const WISHES: u16 = 64;

/// MQTT 5 or 3.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V5,
    V4,
}

/// What a CONNECT says.
#[derive(Clone, Default)]
pub(super) struct Hello {
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) keep_alive_s: u16,
    /// The other side is asked to keep the session.
    pub(super) persistent: bool,
    pub(super) will: Option<Publish>,
}

/// What a CONNACK says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    /// The session was kept.
    pub(super) session_present: bool,
    /// Publishes that may wait for their PUBACK at one time.
    pub(super) window: u16,
    /// The largest packet the other side takes, in bytes.
    pub(super) packet_bytes: u32,
    /// The keep-alive it wants instead of ours, in seconds.
    pub(super) keep_alive_s: Option<u16>,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Welcome(Welcome),
    /// CONNACK with a no: whether the version is what it does not like, and its words.
    Refused {
        version: bool,
        text: String,
    },
    /// A message; the packet id is 0 with QoS 0.
    Message(Message, u16),
    /// PUBACK; `Err` holds the other side's reason and whether it may take the same later.
    Acked(u16, Result<(), (String, bool)>),
    /// SUBACK: for each filter whether it was granted.
    Subscribed(u16, Vec<bool>),
    Pong,
    /// DISCONNECT.
    Goodbye(String),
    /// Anything else.
    Odd,
}

/// Why bytes make no packet.
#[derive(Debug, thiserror::Error)]
pub(super) enum PacketError {
    /// They are none, or one that is too large.
    #[error("what the other side says is no MQTT: {0}")]
    Malformed(String),
    /// What is to be said does not fit a packet.
    #[error("a message cannot be packed: {0}")]
    Unsayable(String),
}

fn unsayable(error: impl std::fmt::Display) -> PacketError {
    PacketError::Unsayable(error.to_string())
}

/// Appends packets of one version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pen {
    pub(super) version: Version,
}

impl Pen {
    pub(super) fn hello(self, hello: &Hello, out: &mut BytesMut) -> Result<(), PacketError> {
        // rumqttc's CONNECT finds its flags by counting from the beginning of the buffer
        let mut packet = BytesMut::new();
        match self.version {
            Version::V5 => hello_v5(hello).write(&mut packet, None).map_err(unsayable)?,
            Version::V4 => v4::Packet::Connect(hello_v4(hello)).write(&mut packet, usize::MAX).map_err(unsayable)?,
        };
        out.extend_from_slice(&packet);
        Ok(())
    }

    pub(super) fn publish(self, publish: &Publish, id: u16, out: &mut BytesMut) -> Result<(), PacketError> {
        let Publish { topic, payload, retain, correlation, user_properties, .. } = publish;
        match self.version {
            Version::V5 => {
                let qos = if id > 0 { v5bytes::QoS::AtLeastOnce } else { v5bytes::QoS::AtMostOnce };
                let properties = v5::PublishProperties {
                    correlation_data: correlation.clone().map(Bytes::from),
                    user_properties: user_properties.clone(),
                    ..v5::PublishProperties::default()
                };
                let is_plain = properties == v5::PublishProperties::default();
                let mut packet =
                    v5::Publish::new(topic.clone(), qos, payload.clone(), (!is_plain).then_some(properties));
                packet.retain = *retain;
                packet.pkid = id;
                packet.write(out).map_err(unsayable)?;
            }
            Version::V4 => {
                let qos = if id > 0 { v4bytes::QoS::AtLeastOnce } else { v4bytes::QoS::AtMostOnce };
                let mut packet = v4::Publish::new(topic.clone(), qos, payload.clone());
                packet.retain = *retain;
                packet.pkid = id;
                packet.write(out).map_err(unsayable)?;
            }
        }
        Ok(())
    }

    pub(super) fn subscribe(self, id: u16, filters: &[(String, u8)], out: &mut BytesMut) -> Result<(), PacketError> {
        match self.version {
            Version::V5 => {
                let filters = filters.iter().map(|(path, qos)| v5::Filter {
                    path: path.clone(),
                    qos: if *qos > 0 { v5bytes::QoS::AtLeastOnce } else { v5bytes::QoS::AtMostOnce },
                    // what we say below a filter of ours must not come back; a topic that is named in full is asked for
                    // with what we say ourselves, as `plain` waits for its own echo
                    nolocal: path.contains(['+', '#']),
                    ..v5::Filter::default()
                });
                let packet = v5::Subscribe { pkid: id, filters: filters.collect(), properties: None };
                packet.write(out).map_err(unsayable)?;
            }
            Version::V4 => {
                let filters = filters.iter().map(|(path, qos)| v4::SubscribeFilter {
                    path: path.clone(),
                    qos: if *qos > 0 { v4bytes::QoS::AtLeastOnce } else { v4bytes::QoS::AtMostOnce },
                });
                let packet = v4::Subscribe { pkid: id, filters: filters.collect() };
                packet.write(out).map_err(unsayable)?;
            }
        }
        Ok(())
    }

    /// PUBACK; both versions write success in four bytes.
    pub(super) fn ack(self, id: u16, out: &mut BytesMut) {
        let [high, low] = id.to_be_bytes();
        out.extend_from_slice(&[0x40, 2, high, low]);
    }

    pub(super) fn ping(self, out: &mut BytesMut) {
        out.extend_from_slice(&[0xc0, 0]);
    }

    /// DISCONNECT without the will.
    pub(super) fn goodbye(self, out: &mut BytesMut) {
        out.extend_from_slice(&[0xe0, 0]);
    }

    /// Takes the first packet out of the bytes; `None` while it is not complete.
    pub(super) fn read(self, bytes: &mut BytesMut) -> Result<Option<Heard>, PacketError> {
        match self.version {
            // a peer that knows no version 5 says so in the words of its own
            Version::V5 if bytes.get(..2) == Some(&[0x20, 2]) && bytes.get(3) == Some(&1) => {
                Ok(Some(Heard::Refused { version: true, text: "it does not speak MQTT 5".to_owned() }))
            }
            Version::V5 => match v5::Packet::read(bytes, Some(PACKET_BYTES)) {
                Ok(packet) => Ok(Some(heard_v5(packet))),
                Err(v5bytes::Error::InsufficientBytes(_)) => Ok(None),
                // a DISCONNECT without a body, which this codec does not know
                Err(v5bytes::Error::PayloadRequired) => Ok(Some(Heard::Goodbye("normal".to_owned()))),
                Err(error) => Err(PacketError::Malformed(error.to_string())),
            },
            Version::V4 => match v4::Packet::read(bytes, PACKET_BYTES as usize) {
                Ok(packet) => Ok(Some(heard_v4(packet))),
                Err(v4bytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(PacketError::Malformed(error.to_string())),
            },
        }
    }
}

fn hello_v5(hello: &Hello) -> v5::Packet {
    let will = hello.will.as_ref().map(|will| v5::LastWill {
        topic: Bytes::from(will.topic.clone()),
        message: Bytes::from(will.payload.clone()),
        qos: if will.qos > 0 { v5bytes::QoS::AtLeastOnce } else { v5bytes::QoS::AtMostOnce },
        retain: will.retain,
        properties: None,
    });
    let login = (hello.username.is_some() || hello.password.is_some()).then(|| {
        v5::Login::new(hello.username.clone().unwrap_or_default(), hello.password.clone().unwrap_or_default())
    });
    let properties = v5::ConnectProperties {
        session_expiry_interval: hello.persistent.then_some(SESSION_S),
        receive_maximum: Some(WISHES),
        max_packet_size: Some(PACKET_BYTES),
        ..v5::ConnectProperties::new()
    };
    let connect = v5::Connect {
        keep_alive: hello.keep_alive_s,
        client_id: hello.client_id.clone(),
        clean_start: !hello.persistent,
        properties: Some(properties),
    };
    v5::Packet::Connect(connect, will, login)
}

fn hello_v4(hello: &Hello) -> v4::Connect {
    let mut connect = v4::Connect::new(hello.client_id.clone());
    connect.keep_alive = hello.keep_alive_s;
    connect.clean_session = !hello.persistent;
    connect.last_will = hello.will.as_ref().map(|will| {
        let qos = if will.qos > 0 { v4bytes::QoS::AtLeastOnce } else { v4bytes::QoS::AtMostOnce };
        v4::LastWill::new(will.topic.clone(), will.payload.clone(), qos, will.retain)
    });
    if hello.username.is_some() || hello.password.is_some() {
        connect.set_login(hello.username.clone().unwrap_or_default(), hello.password.clone().unwrap_or_default());
    }
    connect
}

fn heard_v5(packet: v5::Packet) -> Heard {
    match packet {
        v5::Packet::ConnAck(ack) if ack.code == v5::ConnectReturnCode::Success => {
            let properties = ack.properties.as_ref();
            Heard::Welcome(Welcome {
                session_present: ack.session_present,
                window: properties.and_then(|all| all.receive_max).unwrap_or(u16::MAX),
                packet_bytes: properties.and_then(|all| all.max_packet_size).unwrap_or(u32::MAX),
                keep_alive_s: properties.and_then(|all| all.server_keep_alive),
            })
        }
        v5::Packet::ConnAck(ack) => {
            use v5::ConnectReturnCode::{RefusedProtocolVersion, UnsupportedProtocolVersion};
            let said = ack.properties.and_then(|properties| properties.reason_string);
            Heard::Refused {
                version: matches!(ack.code, RefusedProtocolVersion | UnsupportedProtocolVersion),
                text: worded(&format!("{:?}", ack.code), said),
            }
        }
        v5::Packet::Publish(publish) => {
            let properties = publish.properties.unwrap_or_default();
            let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return Heard::Odd };
            let message = Message {
                topic,
                payload: publish.payload.to_vec(),
                retain: publish.retain,
                response_topic: properties.response_topic,
                correlation: properties.correlation_data.map(|data| data.to_vec()),
            };
            Heard::Message(message, publish.pkid)
        }
        v5::Packet::PubAck(ack) => {
            use v5::PubAckReason::{NoMatchingSubscribers, QuotaExceeded, Success};
            let taken = matches!(ack.reason, Success | NoMatchingSubscribers);
            let said = ack.properties.and_then(|properties| properties.reason_string);
            let why = || (worded(&format!("{:?}", ack.reason), said), ack.reason == QuotaExceeded);
            Heard::Acked(ack.pkid, if taken { Ok(()) } else { Err(why()) })
        }
        v5::Packet::SubAck(ack) => {
            let granted = |code: &v5::SubscribeReasonCode| matches!(code, v5::SubscribeReasonCode::Success(_));
            Heard::Subscribed(ack.pkid, ack.return_codes.iter().map(granted).collect())
        }
        v5::Packet::PingResp(_) => Heard::Pong,
        v5::Packet::Disconnect(goodbye) => {
            let said = goodbye.properties.and_then(|properties| properties.reason_string);
            Heard::Goodbye(worded(&format!("{:?}", goodbye.reason_code), said))
        }
        _ => Heard::Odd,
    }
}

fn heard_v4(packet: v4::Packet) -> Heard {
    match packet {
        v4::Packet::ConnAck(ack) if ack.code == v4::ConnectReturnCode::Success => Heard::Welcome(Welcome {
            session_present: ack.session_present,
            window: u16::MAX,
            packet_bytes: u32::MAX,
            keep_alive_s: None,
        }),
        v4::Packet::ConnAck(ack) => Heard::Refused {
            version: ack.code == v4::ConnectReturnCode::RefusedProtocolVersion,
            text: worded(&format!("{:?}", ack.code), None),
        },
        v4::Packet::Publish(publish) => {
            let message = Message {
                topic: publish.topic,
                payload: publish.payload.to_vec(),
                retain: publish.retain,
                ..Message::default()
            };
            Heard::Message(message, publish.pkid)
        }
        v4::Packet::PubAck(ack) => Heard::Acked(ack.pkid, Ok(())),
        v4::Packet::SubAck(ack) => {
            let granted = |code: &v4::SubscribeReasonCode| matches!(code, v4::SubscribeReasonCode::Success(_));
            Heard::Subscribed(ack.pkid, ack.return_codes.iter().map(granted).collect())
        }
        v4::Packet::PingResp => Heard::Pong,
        v4::Packet::Disconnect => Heard::Goodbye("normal".to_owned()),
        _ => Heard::Odd,
    }
}

/// `NotAuthorized` → `not authorized`, and what the other side adds.
fn worded(code: &str, said: Option<String>) -> String {
    let mut text = String::new();
    for letter in code.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    match said {
        Some(said) => format!("{text} ({said})"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: Version, bytes: &[u8]) -> Option<Heard> {
        Pen { version }.read(&mut BytesMut::from(bytes)).unwrap()
    }

    /// The packets of the specifications, chapter 3 of each, by hand.
    #[test]
    fn what_the_other_side_says_is_understood_in_both_versions() {
        let welcome = |session_present, window, packet_bytes| {
            Some(Heard::Welcome(Welcome { session_present, window, packet_bytes, keep_alive_s: None }))
        };
        let refused = |version, text: &str| Some(Heard::Refused { version, text: text.to_owned() });
        for (version, bytes, expected) in [
            (Version::V5, &[0x20, 3, 1, 0, 0][..], welcome(true, u16::MAX, u32::MAX)),
            (Version::V5, &[0x20, 6, 0, 0, 3, 0x21, 0, 20], welcome(false, 20, u32::MAX)),
            (Version::V5, &[0x20, 3, 0, 0x84, 0], refused(true, "unsupported protocol version")),
            (Version::V5, &[0x20, 3, 0, 0x87, 0], refused(false, "not authorized")),
            (Version::V5, &[0x20, 2, 0, 1], refused(true, "it does not speak MQTT 5")),
            (Version::V4, &[0x20, 2, 1, 0], welcome(true, u16::MAX, u32::MAX)),
            (Version::V4, &[0x20, 2, 0, 1], refused(true, "refused protocol version")),
            (Version::V4, &[0x20, 2, 0, 5], refused(false, "not authorized")),
            (Version::V5, &[0x40, 2, 0, 9], Some(Heard::Acked(9, Ok(())))),
            (Version::V5, &[0x40, 3, 0, 9, 0x10], Some(Heard::Acked(9, Ok(())))),
            (Version::V5, &[0x40, 3, 0, 9, 0x97], Some(Heard::Acked(9, Err(("quota exceeded".to_owned(), true))))),
            (Version::V5, &[0x40, 3, 0, 9, 0x87], Some(Heard::Acked(9, Err(("not authorized".to_owned(), false))))),
            (Version::V4, &[0x90, 4, 0, 1, 1, 0x80], Some(Heard::Subscribed(1, vec![true, false]))),
            (Version::V5, &[0xd0, 0], Some(Heard::Pong)),
            (Version::V5, &[0xe0, 0], Some(Heard::Goodbye("normal".to_owned()))),
            (Version::V5, &[0x30, 200], None),
        ] {
            assert_eq!(read(version, bytes), expected, "{version:?} {bytes:x?}");
        }
    }

    #[test]
    fn a_message_comes_as_it_was_sent_in_both_versions() {
        for version in [Version::V5, Version::V4] {
            let publish =
                Publish { topic: "a/b".into(), payload: b"x".to_vec(), qos: 1, retain: true, ..Publish::default() };
            let mut bytes = BytesMut::new();
            Pen { version }.publish(&publish, 7, &mut bytes).unwrap();
            let message = Message { topic: "a/b".into(), payload: b"x".to_vec(), retain: true, ..Message::default() };
            assert_eq!(read(version, &bytes), Some(Heard::Message(message, 7)));
        }
    }
}
