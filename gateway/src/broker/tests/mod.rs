//! The broker from outside: bytes on a socket, written by hand from the specification.
//!
//! In: packets as tables of bytes. Out: what came back. Must never use the broker's own codec.

mod desk;
mod doors;
mod hard;
mod restart;
mod spec;
mod subscriptions;
mod wills;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocols::config::{Anonymous, Limits, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, NoDesk};
use super::shelf::{Memory, Shelf};
use super::{Broker, Settings};

/// How long something may take to come.
const SOON: Duration = Duration::from_secs(5);
/// How long nothing has to come.
const SILENCE: Duration = Duration::from_millis(150);

pub(super) fn listener(name: &str) -> Listener {
    Listener { name: name.to_owned(), bind: SocketAddr::from(([127, 0, 0, 1], 0)), tls: None, websocket: false }
}

pub(super) fn settings() -> Settings {
    Settings {
        listeners: vec![listener("test")],
        anonymous: Anonymous::LocalOnly,
        limits: Limits::default(),
        users: None,
        base: ".".into(),
        root: "twin".to_owned(),
        shelf: Arc::new(Memory::default()),
        desk: Arc::new(NoDesk),
        stop: CancellationToken::new(),
    }
}

/// A broker and where it is.
pub(super) struct Stage {
    pub(super) broker: Broker,
    pub(super) address: SocketAddr,
}

pub(super) async fn stage_with(settings: Settings) -> Stage {
    let broker = Broker::start(settings).await.unwrap();
    let address = broker.bound()[0].1;
    Stage { broker, address }
}

pub(super) async fn stage() -> Stage {
    stage_with(settings()).await
}

pub(super) async fn stage_on(shelf: Arc<dyn Shelf>) -> Stage {
    stage_with(Settings { shelf, ..settings() }).await
}

pub(super) async fn stage_of(desk: Arc<dyn Desk>) -> Stage {
    stage_with(Settings { desk, ..settings() }).await
}

/// A length as a variable byte integer.
pub(super) fn length(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        out.push(if value > 0 { byte | 0x80 } else { byte });
        if value == 0 {
            return out;
        }
    }
}

/// A string with its length before it.
pub(super) fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u16).to_be_bytes()[..], value.as_bytes()].concat()
}

/// A whole packet.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first][..], &length(body.len()), body].concat()
}

/// What a CONNECT says.
#[derive(Clone)]
pub(super) struct Hello<'a> {
    pub(super) version: u8,
    pub(super) id: &'a str,
    pub(super) clean: bool,
    pub(super) keep_alive: u16,
    pub(super) properties: &'a [u8],
    /// Topic, payload, QoS, retain, properties.
    pub(super) will: Option<(&'a str, &'a str, u8, bool, &'a [u8])>,
    pub(super) login: Option<(&'a str, &'a str)>,
}

impl<'a> Hello<'a> {
    pub(super) fn new(version: u8, id: &'a str) -> Self {
        Self { version, id, clean: true, keep_alive: 0, properties: &[], will: None, login: None }
    }

    pub(super) fn keeping(version: u8, id: &'a str) -> Self {
        // session expiry interval: 1 hour
        let properties: &[u8] = if version == 5 { &[0x11, 0, 0, 0x0e, 0x10] } else { &[] };
        Self { clean: false, properties, ..Self::new(version, id) }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut flags = if self.clean { 2 } else { 0 };
        let mut tail = text(self.id);
        if let Some((topic, payload, qos, retain, properties)) = self.will {
            flags |= 4 | qos << 3 | u8::from(retain) << 5;
            if self.version == 5 {
                tail.extend(length(properties.len()));
                tail.extend(properties);
            }
            tail.extend(text(topic));
            tail.extend(text(payload));
        }
        if let Some((user, password)) = self.login {
            flags |= 0xc0;
            tail.extend(text(user));
            tail.extend(text(password));
        }
        let mut body = text("MQTT");
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == 5 {
            body.extend(length(self.properties.len()));
            body.extend(self.properties);
        }
        body.extend(tail);
        packet(0x10, &body)
    }
}

/// A PUBLISH that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) id: u16,
    pub(super) properties: Vec<u8>,
}

/// A client that speaks bytes.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
    pub(super) version: u8,
    buffer: Vec<u8>,
}

impl Raw {
    /// Connects and sends a CONNECT; gives the first packet that comes back, if one does.
    pub(super) async fn try_enter(address: SocketAddr, hello: &Hello<'_>) -> (Self, Option<(u8, Vec<u8>)>) {
        let mut raw = Self::open(address, hello.version).await;
        raw.send(&hello.bytes()).await;
        let answer = raw.next().await;
        (raw, answer)
    }

    pub(super) async fn open(address: SocketAddr, version: u8) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, version, buffer: Vec::new() }
    }

    /// Connects; gives whether there was a session.
    pub(super) async fn enter(address: SocketAddr, hello: &Hello<'_>) -> (Self, bool) {
        let (raw, answer) = Self::try_enter(address, hello).await;
        let (first, body) = answer.expect("a CONNACK");
        assert_eq!((first, body[1]), (0x20, 0), "not let in: {body:?}");
        (raw, body[0] == 1)
    }

    pub(super) async fn new(address: SocketAddr, version: u8, id: &str) -> Self {
        Self::enter(address, &Hello::new(version, id)).await.0
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    fn cut(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut size = 0;
        for at in 0..4 {
            let byte = *self.buffer.get(at + 1)?;
            size |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                let end = at + 2 + size;
                if self.buffer.len() < end {
                    return None;
                }
                let body = self.buffer[at + 2..end].to_vec();
                let first = self.buffer[0];
                self.buffer.drain(..end);
                return Some((first, body));
            }
        }
        panic!("a length of more than four bytes");
    }

    /// The next packet within `patience`; `None` when the connection ends, and when nothing comes (see `silent`).
    async fn next_within(&mut self, patience: Duration) -> Result<Option<(u8, Vec<u8>)>, ()> {
        loop {
            if let Some(packet) = self.cut() {
                return Ok(Some(packet));
            }
            match timeout(patience, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0) | Err(_)) => return Ok(None),
                Ok(Ok(_)) => {}
                Err(_) => return Err(()),
            }
        }
    }

    /// The next packet, or `None` when the connection ended.
    pub(super) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        self.next_within(SOON).await.expect("nothing came and the connection stayed open")
    }

    /// Nothing comes.
    pub(super) async fn silent(&mut self) {
        let got = self.next_within(SILENCE).await;
        assert_eq!(got, Err(()), "something came");
    }

    /// The connection ends; gives the reason of a DISCONNECT before it, or 0.
    pub(super) async fn ends(&mut self) -> u8 {
        let mut reason = 0;
        while let Some((first, body)) = self.next().await {
            if first == 0xe0 {
                reason = body[0];
            }
        }
        reason
    }

    /// The next packet, which has to be this.
    pub(super) async fn expect(&mut self, first: u8, body: &[u8]) {
        let got = self.next().await.expect("the connection ended");
        assert_eq!((got.0, &got.1[..]), (first, body));
    }

    pub(super) fn parse(&self, first: u8, body: &[u8]) -> Got {
        assert_eq!(first >> 4, 3, "not a PUBLISH: {first:#x} {body:?}");
        let size = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let mut at = 2 + size;
        let mut got = Got {
            topic: String::from_utf8(body[2..at].to_vec()).unwrap(),
            qos: first >> 1 & 3,
            retain: first & 1 != 0,
            dup: first & 8 != 0,
            ..Got::default()
        };
        if got.qos > 0 {
            got.id = u16::from_be_bytes([body[at], body[at + 1]]);
            at += 2;
        }
        if self.version == 5 {
            let size = usize::from(body[at]);
            assert!(size < 128, "a longer property list than these tests read");
            got.properties = body[at + 1..at + 1 + size].to_vec();
            at += 1 + size;
        }
        got.payload = body[at..].to_vec();
        got
    }

    /// The next packet, which has to be a PUBLISH.
    pub(super) async fn message(&mut self) -> Got {
        let (first, body) = self.next().await.expect("the connection ended");
        self.parse(first, &body)
    }

    /// The next PUBLISH, acknowledged as its QoS asks for.
    pub(super) async fn take(&mut self) -> Got {
        let got = self.message().await;
        match got.qos {
            1 => self.send(&packet(0x40, &got.id.to_be_bytes())).await,
            2 => {
                self.send(&packet(0x50, &got.id.to_be_bytes())).await;
                self.expect(0x62, &got.id.to_be_bytes()).await;
                self.send(&packet(0x70, &got.id.to_be_bytes())).await;
            }
            _ => {}
        }
        got
    }

    /// Subscribes; gives the code of the SUBACK.
    pub(super) async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(&[], filter, options).await
    }

    pub(super) async fn subscribe_with(&mut self, properties: &[u8], filter: &str, options: u8) -> u8 {
        let mut body = vec![0x12, 0x34];
        if self.version == 5 {
            body.extend(length(properties.len()));
            body.extend(properties);
        }
        body.extend(text(filter));
        body.push(options);
        self.send(&packet(0x82, &body)).await;
        let (first, body) = self.next().await.expect("a SUBACK");
        assert_eq!((first, &body[..2]), (0x90, &[0x12, 0x34][..]));
        *body.last().unwrap()
    }

    pub(super) fn publish_bytes(&self, flags: u8, id: u16, properties: &[u8], topic: &str, payload: &[u8]) -> Vec<u8> {
        let mut body = text(topic);
        if flags & 6 != 0 {
            body.extend(id.to_be_bytes());
        }
        if self.version == 5 {
            body.extend(length(properties.len()));
            body.extend(properties);
        }
        body.extend(payload);
        packet(0x30 | flags, &body)
    }

    /// Publishes; `flags` as in the fixed header. Answers are left to the caller.
    pub(super) async fn publish_with(&mut self, flags: u8, id: u16, properties: &[u8], topic: &str, payload: &str) {
        let bytes = self.publish_bytes(flags, id, properties, topic, payload.as_bytes());
        self.send(&bytes).await;
    }

    /// Publishes with QoS 1; gives the reason code of the PUBACK.
    pub(super) async fn publish1(&mut self, retain: bool, topic: &str, payload: &str) -> u8 {
        self.publish_with(2 | u8::from(retain), 77, &[], topic, payload).await;
        let (first, body) = self.next().await.expect("a PUBACK");
        assert_eq!((first, &body[..2]), (0x40, &[0, 77][..]));
        body.get(2).copied().unwrap_or(0)
    }

    /// Says goodbye and waits until the broker has heard it.
    pub(super) async fn leave(mut self) {
        self.send(&packet(0xe0, &[])).await;
        self.ends().await;
    }
}
