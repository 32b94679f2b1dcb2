//! One connection to the other side: from the first byte to the last.
//!
//! In: a [`Dial`]; publishes. Out: [`Event`]s, in the order they came. Must never say anything twice by itself (what was
//! not acknowledged is the engine's to say again), never acknowledge for somebody else, and never wait for ever.
//!
//! rumqttc's packets are used, its event loop is not: it takes a PUBACK nobody waits for as the end of the link
//! (ThingsBoard sends such), stops sending when a packet id comes round that is still in use, keeps publishes of a lost
//! link for the next one, and its two versions are two different clients. This loop has one map of packet ids that
//! lives as long as the socket.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::BytesMut;
use protocols::dialect::{Message, Publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout};

use super::packets::{Heard, Hello, PacketError, Pen, Version, Welcome};
use super::reach::{self, ReachError, Route, Stream};

/// How long the way to the other side, its proxy, TLS and CONNACK may take together.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long a SUBACK may take.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(20);
/// How long a goodbye may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// A link on which nothing came for this long while something waits for its PUBACK is asked whether it lives.
const DOUBT_AFTER: Duration = Duration::from_secs(10);
/// How long the answer to a PINGREQ may take; then the link is half-open and cut.
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// Filters in one SUBSCRIBE; AWS takes no more.
const FILTERS_AT_ONCE: usize = 8;
/// Bytes waiting for the socket from which on no more should be published.
pub(super) const OUT_BYTES: usize = 256 * 1024;
/// Messages that came while a SUBACK was waited for; the rest waits in the socket.
const EARLY_MESSAGES: usize = 4096;

/// Why there is no link, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("no answer within {} s", CONNECT_WITHIN.as_secs())]
    Slow,
    #[error("refused: {0}")]
    Refused(String),
    #[error("the other side does not speak this version of MQTT")]
    Version,
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("the link broke: {0}")]
    Broken(std::io::Error),
    #[error("closed by the other side")]
    Closed,
    #[error("ended by the other side: {0}")]
    Ended(String),
    #[error("half-open: nothing came for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the subscription to {0} was refused")]
    Subscription(String),
}

/// How to get there and what to say first.
pub(super) struct Dial {
    pub(super) route: Route,
    pub(super) hello: Hello,
    pub(super) version: Version,
}

/// What happened on a link.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// A message; to be given to [`Link::ack`] unless the id is 0.
    Message(Message, u16),
    /// A publish of ours was taken, or not: why, and whether it may be taken later.
    Acked(u16, Result<(), (String, bool)>),
}

/// A link that is up.
pub(super) struct Link {
    pen: Pen,
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
    inbox: BytesMut,
    out: BytesMut,
    is_flushed: bool,
    /// Packet ids that wait for their PUBACK or SUBACK.
    waiting: HashSet<u16>,
    next_id: u16,
    early: VecDeque<Event>,
    keep_alive: Duration,
    heard_at: Instant,
    said_at: Instant,
    pinged_at: Option<Instant>,
    pub(super) welcome: Welcome,
    /// PUBACKs nobody waited for.
    pub(super) stray_acks: u64,
    /// Bytes said and heard so far.
    pub(super) bytes: (u64, u64),
}

/// Makes a link.
pub(super) async fn connect(dial: &Dial) -> Result<Link, LinkError> {
    timeout(CONNECT_WITHIN, handshake(dial)).await.map_err(|_| LinkError::Slow)?
}

async fn handshake(dial: &Dial) -> Result<Link, LinkError> {
    let pen = Pen { version: dial.version };
    let mut stream = reach::open(&dial.route).await?;
    let mut out = BytesMut::new();
    pen.hello(&dial.hello, &mut out)?;
    stream.write_all(&out).await.map_err(LinkError::Broken)?;
    stream.flush().await.map_err(LinkError::Broken)?;
    let mut inbox = BytesMut::with_capacity(4096);
    let welcome = loop {
        match pen.read(&mut inbox)? {
            Some(Heard::Welcome(welcome)) => break welcome,
            Some(Heard::Refused { version: true, .. }) => return Err(LinkError::Version),
            Some(Heard::Refused { text, .. }) | Some(Heard::Goodbye(text)) => return Err(LinkError::Refused(text)),
            Some(_) => return Err(PacketError::Malformed("a packet before CONNACK".to_owned()).into()),
            None => {}
        }
        if stream.read_buf(&mut inbox).await.map_err(LinkError::Broken)? == 0 {
            return Err(LinkError::Closed);
        }
    };
    let keep_alive_s = welcome.keep_alive_s.unwrap_or(dial.hello.keep_alive_s).max(1);
    let (read, write) = tokio::io::split(stream);
    let now = Instant::now();
    Ok(Link {
        pen,
        read,
        write,
        bytes: (out.len() as u64, inbox.len() as u64),
        inbox,
        out: BytesMut::new(),
        is_flushed: true,
        waiting: HashSet::new(),
        next_id: 1,
        early: VecDeque::new(),
        keep_alive: Duration::from_secs(keep_alive_s.into()),
        heard_at: now,
        said_at: now,
        pinged_at: None,
        welcome,
        stray_acks: 0,
    })
}

impl Link {
    /// The version that is spoken.
    pub(super) fn version(&self) -> Version {
        self.pen.version
    }

    /// Whether one more publish fits the other side's window.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < usize::from(self.welcome.window) && self.out.len() < OUT_BYTES
    }

    /// Subscribes and waits for every SUBACK; messages that come meanwhile are given out by [`Link::next`] later.
    pub(super) async fn subscribe(&mut self, filters: &[(String, u8)]) -> Result<(), LinkError> {
        for some in filters.chunks(FILTERS_AT_ONCE) {
            let id = self.free_id();
            self.pen.subscribe(id, some, &mut self.out)?;
            let granted = timeout(SUBSCRIBE_WITHIN, self.suback(id)).await.map_err(|_| LinkError::Slow)??;
            self.waiting.remove(&id);
            let refused = some.iter().zip(&granted).find(|(_, granted)| !**granted);
            if let Some(((filter, _), _)) = refused {
                return Err(LinkError::Subscription(filter.clone()));
            }
        }
        Ok(())
    }

    async fn suback(&mut self, wanted: u16) -> Result<Vec<bool>, LinkError> {
        loop {
            match self.hear().await? {
                Heard::Subscribed(id, granted) if id == wanted => return Ok(granted),
                heard => {
                    let event = self.event(heard)?;
                    if self.early.len() < EARLY_MESSAGES {
                        self.early.extend(event);
                    }
                }
            }
        }
    }

    /// Says one message; gives the packet id its PUBACK will carry, 0 with QoS 0.
    ///
    /// # Errors
    /// When it is larger than the other side takes, or than any packet may be; the link is as it was.
    pub(super) fn publish(&mut self, publish: &Publish) -> Result<u16, PacketError> {
        // the fixed header, two lengths and properties, generously
        let about = publish.topic.len() + publish.payload.len() + 64;
        if about > self.welcome.packet_bytes as usize {
            return Err(PacketError::Unsayable(format!(
                "{} bytes, and the other side takes {}",
                publish.payload.len(),
                self.welcome.packet_bytes
            )));
        }
        let id = if publish.qos > 0 { self.free_id() } else { 0 };
        let before = self.out.len();
        if let Err(error) = self.pen.publish(publish, id, &mut self.out) {
            self.out.truncate(before);
            self.waiting.remove(&id);
            return Err(error);
        }
        Ok(id)
    }

    /// Acknowledges a message of the other side.
    pub(super) fn ack(&mut self, id: u16) {
        if id > 0 {
            self.pen.ack(id, &mut self.out);
        }
    }

    /// A packet id that is not in use; there are 65,535 and the window is smaller by far.
    fn free_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if self.waiting.insert(id) {
                return id;
            }
        }
    }

    /// The next thing that happens. Dropping it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Event, LinkError> {
        loop {
            if let Some(event) = self.ready()? {
                return Ok(event);
            }
            self.transport().await?;
        }
    }

    fn event(&mut self, heard: Heard) -> Result<Option<Event>, LinkError> {
        match heard {
            Heard::Message(message, id) => Ok(Some(Event::Message(message, id))),
            Heard::Acked(id, outcome) => {
                if !self.waiting.remove(&id) {
                    self.stray_acks += 1;
                    return Ok(None);
                }
                Ok(Some(Event::Acked(id, outcome)))
            }
            Heard::Goodbye(text) => Err(LinkError::Ended(text)),
            Heard::Pong | Heard::Subscribed(..) => Ok(None),
            Heard::Odd | Heard::Welcome(_) | Heard::Refused { .. } => {
                Err(PacketError::Malformed("a packet that does not belong here".to_owned()).into())
            }
        }
    }

    /// The next thing that happened already; nothing is waited for, and nothing is moved.
    pub(super) fn ready(&mut self) -> Result<Option<Event>, LinkError> {
        loop {
            if let Some(event) = self.early.pop_front() {
                return Ok(Some(event));
            }
            let Some(heard) = self.heard()? else { return Ok(None) };
            if let Some(event) = self.event(heard)? {
                return Ok(Some(event));
            }
        }
    }

    async fn hear(&mut self) -> Result<Heard, LinkError> {
        loop {
            if let Some(heard) = self.heard()? {
                return Ok(heard);
            }
            self.transport().await?;
        }
    }

    /// The next packet of those that are here.
    fn heard(&mut self) -> Result<Option<Heard>, LinkError> {
        let heard = self.pen.read(&mut self.inbox)?;
        if heard == Some(Heard::Pong) {
            self.pinged_at = None;
        }
        Ok(heard)
    }

    /// Moves bytes until some came, or time asks for a look. Dropping it loses nothing: both buffers keep theirs.
    async fn transport(&mut self) -> Result<(), LinkError> {
        let look_at = self.look_at();
        let is_idle = self.out.is_empty() && self.is_flushed;
        tokio::select! {
            biased;
            read = self.read.read_buf(&mut self.inbox) => {
                match read.map_err(LinkError::Broken)? {
                    0 => return Err(LinkError::Closed),
                    count => self.bytes.1 += count as u64,
                }
                self.heard_at = Instant::now();
                // whatever came proves the link as well as a PINGRESP does
                self.pinged_at = None;
            }
            said = push(&mut self.write, &mut self.out), if !is_idle => {
                let (count, flushed) = said.map_err(LinkError::Broken)?;
                self.bytes.0 += count as u64;
                self.is_flushed = flushed;
                self.said_at = Instant::now();
            }
            () = sleep_until(look_at) => self.look()?,
        }
        Ok(())
    }

    /// When the link has to be looked at next, if nothing happens.
    fn look_at(&self) -> Instant {
        if let Some(pinged_at) = self.pinged_at {
            return pinged_at + PONG_WITHIN;
        }
        let quiet = self.said_at.min(self.heard_at) + self.keep_alive;
        if self.waiting.is_empty() { quiet } else { quiet.min(self.heard_at.max(self.said_at) + DOUBT_AFTER) }
    }

    fn look(&mut self) -> Result<(), LinkError> {
        if self.look_at() > Instant::now() {
            return Ok(());
        }
        if self.pinged_at.is_some() {
            return Err(LinkError::Silent(self.heard_at.elapsed()));
        }
        self.pen.ping(&mut self.out);
        self.is_flushed = false;
        self.pinged_at = Some(Instant::now());
        Ok(())
    }

    /// Says what waits and closes without DISCONNECT, so that the other side says the will.
    pub(super) async fn leave(mut self) {
        let last = async {
            self.write.write_all_buf(&mut self.out).await?;
            self.write.flush().await
        };
        // a link that takes nothing more is gone anyway
        let _ = timeout(GOODBYE_WITHIN, last).await;
    }

    /// Says what waits and DISCONNECT, so that the will is not said.
    pub(super) async fn goodbye(mut self) {
        self.pen.goodbye(&mut self.out);
        let last = async {
            self.write.write_all_buf(&mut self.out).await?;
            self.write.flush().await?;
            self.write.shutdown().await
        };
        // a link that does not take a goodbye is gone anyway
        let _ = timeout(GOODBYE_WITHIN, last).await;
    }
}

/// Writes some of what waits, or flushes what was written: how much, and whether all is on its way.
async fn push(write: &mut WriteHalf<Box<dyn Stream>>, out: &mut BytesMut) -> std::io::Result<(usize, bool)> {
    if out.is_empty() {
        write.flush().await?;
        return Ok((0, true));
    }
    let count = write.write_buf(out).await?;
    if count == 0 {
        return Err(std::io::ErrorKind::WriteZero.into());
    }
    Ok((count, false))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const WELCOME: &[u8] = &[0x20, 3, 0, 0, 0];

    /// A peer that answers CONNECT with these bytes, and then says the others after the client's next words.
    async fn linked(answer: &'static [u8], then: &'static [u8]) -> Result<Link, LinkError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut heard = [0; 1024];
            assert!(socket.read(&mut heard).await.unwrap() > 0);
            socket.write_all(answer).await.unwrap();
            while socket.read(&mut heard).await.unwrap() > 0 {
                socket.write_all(then).await.unwrap();
            }
        });
        let route = Route { host: "127.0.0.1".into(), port, tls: None, proxy: None };
        let hello = Hello { client_id: "c".into(), keep_alive_s: 60, ..Hello::default() };
        connect(&Dial { route, hello, version: Version::V5 }).await
    }

    fn publish(topic: &str) -> Publish {
        Publish { topic: topic.into(), payload: b"x".to_vec(), qos: 1, ..Publish::default() }
    }

    #[tokio::test]
    async fn pubacks_may_come_in_any_order_and_one_too_many_is_no_harm() {
        let mut link = linked(WELCOME, &[0x40, 2, 0, 2, 0x40, 2, 0, 9, 0x40, 2, 0, 1, 0x40, 2, 0, 1]).await.unwrap();
        let ids = [link.publish(&publish("a")).unwrap(), link.publish(&publish("b")).unwrap()];
        assert_eq!(ids, [1, 2]);
        assert_eq!(link.next().await.unwrap(), Event::Acked(2, Ok(())));
        assert_eq!(link.next().await.unwrap(), Event::Acked(1, Ok(())));
        assert!(timeout(Duration::from_millis(200), link.next()).await.is_err(), "the rest means nothing");
        assert_eq!(link.stray_acks, 2);
        assert!(link.has_room());
    }

    #[tokio::test]
    async fn a_packet_id_that_is_still_in_use_is_passed_over() {
        let mut link = linked(WELCOME, &[]).await.unwrap();
        let first = link.publish(&publish("a")).unwrap();
        link.next_id = u16::MAX;
        assert_eq!(link.publish(&publish("b")).unwrap(), u16::MAX);
        assert_eq!(link.publish(&publish("c")).unwrap(), first + 1);
    }

    #[tokio::test]
    async fn the_other_side_s_window_and_packet_size_are_kept() {
        let mut link = linked(&[0x20, 11, 0, 0, 8, 0x21, 0, 2, 0x27, 0, 0, 1, 0], &[]).await.unwrap();
        assert!(link.publish(&Publish { payload: vec![0; 300], ..publish("a") }).is_err());
        assert_eq!((link.publish(&publish("a")).unwrap(), link.has_room()), (1, true));
        assert_eq!((link.publish(&publish("a")).unwrap(), link.has_room()), (2, false));
    }

    #[tokio::test]
    async fn refusals_say_why() {
        for (answer, expected) in [
            (&[0x20, 3, 0, 0x87, 0][..], "refused: not authorized"),
            (&[0x20, 3, 0, 0x84, 0], "the other side does not speak this version of MQTT"),
            (&[0xd0, 0], "what the other side says is no MQTT: a packet before CONNACK"),
        ] {
            let error = linked(answer, &[]).await.err().unwrap();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn a_filter_that_is_refused_ends_the_link_before_anything_is_said() {
        let mut link = linked(WELCOME, &[0x90, 5, 0, 1, 0, 1, 0x87]).await.unwrap();
        let filters = [("a".to_owned(), 1), ("b/#".to_owned(), 1)];
        let error = link.subscribe(&filters).await.unwrap_err();
        assert_eq!(error.to_string(), "the subscription to b/# was refused");
    }
}
