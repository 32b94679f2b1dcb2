//! Reading CONNECT: the one packet that comes before anything is known about the other end.
//!
//! In: its body. Out: a [`Connect`], or how to say no. Must never decide who may come in.

use super::read::{self, Property, Reader, properties};
use super::{Fault, V4, V5};

/// What a client wants at the beginning.
#[derive(Debug)]
pub(crate) struct Connect<'a> {
    pub(crate) version: u8,
    /// Clean Start (5) or Clean Session (3.1.1).
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) client_id: &'a str,
    pub(crate) will: Option<Will<'a>>,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    /// `None` where the packet says nothing.
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) maximum_packet_size: Option<u32>,
    pub(crate) topic_alias_maximum: u16,
    /// Whether reason strings are wanted.
    pub(crate) problem_information: bool,
    pub(crate) authentication_method: bool,
}

/// The will in it.
#[derive(Debug)]
pub(crate) struct Will<'a> {
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) topic: &'a str,
    /// As they stand on the wire, without delay and expiry.
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: &'a [u8],
}

/// Why there is no [`Connect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not MQTT; nothing is answered.
    Silent(&'static str),
    /// Another version of MQTT: answered in the form of `answer`, as unsupported.
    Version {
        /// Whose CONNACK the client is most likely to understand.
        answer: u8,
    },
    /// It claims a version we speak and breaks its rules.
    Fault(u8, Fault),
}

/// Reads a CONNECT.
///
/// # Errors
/// How to refuse it.
pub(crate) fn connect(first: u8, body: &[u8]) -> Result<Connect<'_>, Refusal> {
    if first != 0x10 {
        return Err(Refusal::Silent("the first packet is not a CONNECT"));
    }
    let mut reader = Reader::new(body);
    let name = reader.string().map_err(|_| Refusal::Silent("no protocol name"))?;
    let level = reader.byte().map_err(|_| Refusal::Silent("no protocol level"))?;
    let version = match (name, level) {
        ("MQTT", V4 | V5) => level,
        ("MQTT", 6..) => return Err(Refusal::Version { answer: V5 }),
        // 3.1 called itself MQIsdp
        ("MQTT" | "MQIsdp", _) => return Err(Refusal::Version { answer: V4 }),
        _ => return Err(Refusal::Silent("another protocol")),
    };
    body_of(version, reader).map_err(|fault| Refusal::Fault(version, fault))
}

fn body_of(version: u8, mut reader: Reader<'_>) -> Result<Connect<'_>, Fault> {
    let flags = reader.byte()?;
    if flags & 1 != 0 {
        return Err(Fault::malformed("the reserved flag of CONNECT is set"));
    }
    let (has_user, has_password, has_will) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 4 != 0);
    let will_qos = flags >> 3 & 3;
    if will_qos == 3 || (!has_will && flags & 0x38 != 0) {
        return Err(Fault::malformed("will flags that do not fit together"));
    }
    if version == V4 && has_password && !has_user {
        return Err(Fault::malformed("a password without a user name"));
    }
    let mut connect = Connect {
        version,
        clean: flags & 2 != 0,
        keep_alive_s: reader.u16()?,
        client_id: "",
        will: None,
        user: None,
        password: None,
        session_expiry_s: None,
        receive_maximum: None,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        problem_information: true,
        authentication_method: false,
    };
    if version == V5 {
        connect_properties(&mut connect, reader.block()?)?;
    }
    connect.client_id = reader.string()?;
    if has_will {
        connect.will = Some(will(version, will_qos, flags & 0x20 != 0, &mut reader)?);
    }
    if has_user {
        connect.user = Some(reader.string()?);
    }
    if has_password {
        connect.password = Some(reader.binary()?);
    }
    reader.finish()?;
    Ok(connect)
}

fn connect_properties(connect: &mut Connect<'_>, block: &[u8]) -> Result<(), Fault> {
    let mut data = false;
    properties(block, read::CONNECT, |property, _| {
        match property {
            Property::SessionExpiry(seconds) => connect.session_expiry_s = Some(seconds),
            Property::ReceiveMaximum(messages) => connect.receive_maximum = Some(messages),
            Property::MaximumPacketSize(bytes) => connect.maximum_packet_size = Some(bytes),
            Property::TopicAliasMaximum(aliases) => connect.topic_alias_maximum = aliases,
            Property::ProblemInformation(wanted) => connect.problem_information = wanted,
            Property::AuthenticationMethod(_) => connect.authentication_method = true,
            Property::AuthenticationData(_) => data = true,
            _ => {}
        }
        Ok(())
    })?;
    if data && !connect.authentication_method {
        return Err(Fault::protocol("authentication data without a method"));
    }
    Ok(())
}

fn will<'a>(version: u8, qos: u8, retain: bool, reader: &mut Reader<'a>) -> Result<Will<'a>, Fault> {
    let mut will = Will { qos, retain, delay_s: 0, expiry_s: None, topic: "", properties: Vec::new(), payload: &[] };
    if version == V5 {
        let block = reader.block()?;
        properties(block, read::WILL, |property, raw| {
            match property {
                Property::WillDelay(seconds) => will.delay_s = seconds,
                Property::MessageExpiry(seconds) => will.expiry_s = Some(seconds),
                _ => will.properties.extend_from_slice(block.get(raw).unwrap_or_default()),
            }
            Ok(())
        })?;
    }
    will.topic = reader.string()?;
    will.payload = reader.binary()?;
    if will.topic.is_empty() || will.topic.contains(['+', '#']) {
        return Err(Fault { reason: 0x90, text: "a will topic that is no topic name" });
    }
    Ok(will)
}
