//! A light MQTT 3.1.1 client: packets made and taken apart by hand, so that the load is never the limit.
//!
//! In and out: the five packets a measurement needs. Must never be taken for a client library: what it does not expect
//! ends the measurement.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes that are read at once; a larger packet makes it grow.
const CHUNK: usize = 256 * 1024;

/// Appends a CONNECT: clean session, no keep-alive.
pub fn connect(out: &mut Vec<u8>, client: &str) {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
    text(&mut body, client);
    packet(out, 0x10, &[&body]);
}

/// Appends a SUBSCRIBE to one filter.
pub fn subscribe(out: &mut Vec<u8>, id: u16, filter: &str, qos: u8) {
    let mut body = id.to_be_bytes().to_vec();
    text(&mut body, filter);
    body.push(qos);
    packet(out, 0x82, &[&body]);
}

/// Appends a PUBLISH; `id` counts for QoS 1.
pub fn publish(out: &mut Vec<u8>, topic: &str, payload: &[u8], qos: u8, id: u16) {
    let length = u16::try_from(topic.len()).unwrap_or(u16::MAX).to_be_bytes();
    let id = id.to_be_bytes();
    let id: &[u8] = if qos > 0 { &id } else { &[] };
    packet(out, 0x30 | qos << 1, &[&length, topic.as_bytes(), id, payload]);
}

/// Appends a PUBACK.
pub fn puback(out: &mut Vec<u8>, id: u16) {
    packet(out, 0x40, &[&id.to_be_bytes()]);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

fn packet(out: &mut Vec<u8>, first: u8, parts: &[&[u8]]) {
    out.push(first);
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let byte = u8::try_from(length & 0x7F).unwrap_or_default();
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// A packet that came.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// A message.
    Publish {
        /// The topic.
        topic: &'a [u8],
        /// The payload.
        payload: &'a [u8],
        /// 0 or 1.
        qos: u8,
        /// For the acknowledgement.
        id: u16,
        /// It was retained.
        retained: bool,
    },
    /// An acknowledgement of a message of ours.
    Puback(u16),
    /// Anything else, by its type; with its last byte, which is the return code of CONNACK and SUBACK.
    Other(u8, u8),
}

/// Bytes that came and what is whole of them.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::with_capacity(CHUNK)
    }
}

impl Inbox {
    /// One for packets that are mostly smaller than this.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], filled: 0 }
    }

    /// Where the next bytes go.
    pub fn room(&mut self) -> &mut [u8] {
        if self.filled == self.bytes.len() {
            self.bytes.resize(self.filled * 2, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// So many bytes came.
    pub fn filled(&mut self, count: usize) {
        self.filled += count;
    }

    /// Hands out all whole packets.
    pub fn drain(&mut self, mut take: impl FnMut(Packet<'_>)) {
        let mut used = 0;
        while let Some((packet, bytes)) = next(&self.bytes[used..self.filled]) {
            take(packet);
            used += bytes;
        }
        self.bytes.copy_within(used..self.filled, 0);
        self.filled -= used;
    }
}

/// The packet at the beginning of the bytes, if it is whole, and its length.
fn next(bytes: &[u8]) -> Option<(Packet<'_>, usize)> {
    let first = *bytes.first()?;
    let mut length = 0_usize;
    let mut header = 1;
    loop {
        let byte = *bytes.get(header)?;
        length |= usize::from(byte & 0x7F) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 || header > 4 {
            break;
        }
    }
    let body = bytes.get(header..header + length)?;
    let packet = match first >> 4 {
        3 => message(first, body)?,
        4 => Packet::Puback(u16::from_be_bytes([*body.first()?, *body.get(1)?])),
        kind => Packet::Other(kind, body.last().copied().unwrap_or_default()),
    };
    Some((packet, header + length))
}

fn message(first: u8, body: &[u8]) -> Option<Packet<'_>> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    let (topic, mut payload) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let qos = first >> 1 & 3;
    let mut id = 0;
    if qos > 0 {
        let (bytes, rest) = payload.split_first_chunk::<2>()?;
        (id, payload) = (u16::from_be_bytes(*bytes), rest);
    }
    Some(Packet::Publish { topic, payload, qos, id, retained: first & 1 == 1 })
}

/// A client that blocks its thread.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    inbox: Inbox,
    outbox: Vec<u8>,
}

impl Client {
    /// Connects to a broker on loopback.
    pub fn connect(port: u16, client: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP socket has that option");
        let mut own = Self { stream, inbox: Inbox::default(), outbox: Vec::new() };
        connect(&mut own.outbox, client);
        own.send();
        own.expect(2);
        own
    }

    /// Subscribes to one filter; the answer comes among the retained messages, to [`Client::receive`].
    pub fn subscribe_unheard(&mut self, filter: &str, qos: u8) {
        subscribe(&mut self.outbox, 1, filter, qos);
        self.send();
    }

    /// Subscribes to one filter and waits for the answer; messages that come with it are passed over.
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        subscribe(&mut self.outbox, 1, filter, qos);
        self.send();
        self.expect(9);
    }

    /// Waits for an answer of this type; messages that come before it are passed over.
    fn expect(&mut self, wanted: u8) {
        let mut answer = None;
        while answer.is_none() {
            let count = self.stream.read(self.inbox.room()).expect("the broker answers");
            assert!(count > 0, "the broker hung up");
            self.inbox.filled(count);
            self.inbox.drain(|packet| {
                if let Packet::Other(kind, code) = packet
                    && kind == wanted
                {
                    answer = Some(code);
                }
            });
        }
        assert!(answer.is_some_and(|code| code < 0x80 && (wanted != 2 || code == 0)), "the broker refuses: {answer:?}");
    }

    /// Queues a message for [`Client::send`].
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16) {
        publish(&mut self.outbox, topic, payload, qos, id);
    }

    /// Sends what is queued.
    pub fn send(&mut self) {
        self.stream.write_all(&self.outbox).expect("the broker reads");
        self.outbox.clear();
    }

    /// How long [`Client::receive`] waits; for ever at first.
    pub fn patience(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a limit above 0 is taken");
    }

    /// Waits for bytes, hands out all packets that are whole then, and acknowledges messages of QoS 1. Says whether
    /// any bytes came in time.
    pub fn receive(&mut self, mut take: impl FnMut(Packet<'_>)) -> bool {
        let count = match self.stream.read(self.inbox.room()) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return false,
            Err(error) => panic!("the broker is gone: {error}"),
        };
        assert!(count > 0, "the broker hung up");
        self.inbox.filled(count);
        let outbox = &mut self.outbox;
        self.inbox.drain(|packet| {
            if let Packet::Publish { qos: 1, id, .. } = packet {
                puback(outbox, id);
            }
            take(packet);
        });
        if !self.outbox.is_empty() {
            self.send();
        }
        true
    }
}
