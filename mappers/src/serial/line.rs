//! The line itself: bytes out, messages of every device on it in.
//!
//! In: a [`Connection`], bytes to send. Out: whole messages by device. Must never lose a byte when a wait is dropped, nor
//! wait for a pause by the length of a read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocols::config::{Connection, Wire};
use protocols::serial::frame::{Frame, Framer};
use tokio::time::{Instant, timeout_at};

use crate::link::{Link, LinkError, character};

/// Bytes taken from the line at one time: what a fast line brings while a message is worked on.
const ROOM_BYTES: usize = 16 << 10;

/// An open line, or none.
#[derive(Debug)]
pub(super) struct Line {
    connection: Arc<Connection>,
    link: Option<Link>,
    framers: BTreeMap<usize, Framer>,
    room: Box<[u8]>,
    /// What was sent and is expected back from an adapter that echoes.
    echo: VecDeque<u8>,
    /// When the last byte came.
    last: Instant,
}

/// The line is gone; the text says how.
#[derive(Debug)]
pub(super) struct Lost(pub(super) String);

impl Line {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            link: None,
            framers: BTreeMap::new(),
            room: vec![0; ROOM_BYTES].into(),
            echo: VecDeque::new(),
            last: Instant::now(),
        }
    }

    pub(super) async fn open(&mut self) -> Result<(), LinkError> {
        self.close();
        self.link = Some(Link::open(&self.connection.wire, self.connection.timeout).await?);
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.link = None;
        self.echo.clear();
        for framer in self.framers.values_mut() {
            framer.reset();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn add(&mut self, device: usize, framer: Framer) {
        self.framers.insert(device, framer);
    }

    pub(super) fn remove(&mut self, device: usize) {
        self.framers.remove(&device);
    }

    pub(super) fn framer(&self, device: usize) -> Option<&Framer> {
        self.framers.get(&device)
    }

    /// Messages that were dropped, of all devices.
    pub(super) fn dropped(&self) -> u64 {
        self.framers.values().map(|framer| framer.counts().dropped()).sum()
    }

    /// Messages with a wrong check so far.
    pub(super) fn bad_checks(&self, device: usize) -> u64 {
        self.framers.get(&device).map_or(0, |framer| framer.counts().bad_checks)
    }

    fn lost(&mut self, error: Option<&std::io::Error>) -> Lost {
        let text = self.link.take().map_or_else(|| "it is closed".to_owned(), |link| link.gone(error).to_string());
        self.close();
        Lost(text)
    }

    /// Sends bytes after the connection's quiet time.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        if !self.connection.delay.is_zero() {
            tokio::time::sleep(self.connection.delay).await;
        }
        let on_wire = self.on_wire(bytes.len(), None);
        let Some(link) = &mut self.link else { return Err(self.lost(None)) };
        self.echo.clear();
        if self.connection.echo {
            self.echo.extend(bytes);
        }
        match link.send(bytes, on_wire).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(Some(&error))),
        }
    }

    /// How long so many bytes take on the line; at another speed than the line's own, if one is given.
    pub(super) fn on_wire(&self, bytes: usize, baud: Option<u32>) -> Duration {
        match &self.connection.wire {
            Wire::Serial { line, .. } => {
                let mut line = line.clone();
                line.baud = baud.unwrap_or(line.baud);
                character(&line) * u32::try_from(bytes).unwrap_or(u32::MAX)
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether the line can change its speed.
    pub(super) fn has_speed(&self) -> bool {
        matches!(self.connection.wire, Wire::Serial { .. })
    }

    /// Changes the speed; with `None` back to the line's own. What has begun to come means nothing then.
    pub(super) fn set_speed(&mut self, baud: Option<u32>) -> Result<(), Lost> {
        let Wire::Serial { line, .. } = &self.connection.wire else { return Ok(()) };
        let baud = baud.unwrap_or(line.baud);
        let Some(link) = &mut self.link else { return Ok(()) };
        if let Err(error) = link.set_speed(baud) {
            return Err(self.lost(Some(&error)));
        }
        Ok(())
    }

    /// Waits until `until` for messages; none when nothing came. Dropping the wait loses nothing.
    pub(super) async fn listen(&mut self, until: Option<Instant>) -> Result<Vec<(usize, Frame)>, Lost> {
        loop {
            let pause = self.pause_ends();
            let Some(link) = &mut self.link else { return Err(self.lost(None)) };
            let soonest = [until, pause].into_iter().flatten().min();
            let read = match soonest {
                Some(at) => timeout_at(at, link.read(&mut self.room)).await,
                None => Ok(link.read(&mut self.room).await),
            };
            let frames = match read {
                Ok(Ok(0)) => return Err(self.lost(None)),
                Ok(Ok(count)) => self.take(count),
                Ok(Err(error)) => return Err(self.lost(Some(&error))),
                Err(_) => self.quiet(),
            };
            if !frames.is_empty() || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(frames);
            }
        }
    }

    /// Takes what is there already, without waiting.
    pub(super) fn drain(&mut self) -> Result<Vec<(usize, Frame)>, Lost> {
        let mut frames = Vec::new();
        loop {
            let Some(link) = &mut self.link else { return Err(self.lost(None)) };
            match link.read_now(&mut self.room) {
                Ok(None) => return Ok(frames),
                Ok(Some(0)) => return Err(self.lost(None)),
                Ok(Some(count)) => frames.append(&mut self.take(count)),
                Err(error) => return Err(self.lost(Some(&error))),
            }
        }
    }

    /// When the first pause of a message that has begun is long enough to mean something.
    fn pause_ends(&self) -> Option<Instant> {
        let waiting = self.framers.values().filter(|framer| framer.is_inside());
        waiting.filter_map(Framer::gap).min().map(|gap| self.last + gap)
    }

    fn take(&mut self, count: usize) -> Vec<(usize, Frame)> {
        // Bytes that waited while something else was done are no pause: only a wait in vain is one.
        self.last = Instant::now();
        let mut frames = Vec::new();
        let mut bytes = self.room.get(..count).unwrap_or_default();
        while let (Some(sent), Some((first, rest))) = (self.echo.front(), bytes.split_first()) {
            if sent != first {
                // Not an echo after all, or one that noise has hit.
                self.echo.clear();
                break;
            }
            self.echo.pop_front();
            bytes = rest;
        }
        for (device, framer) in &mut self.framers {
            let mut own = Vec::new();
            framer.feed(bytes, &mut own);
            frames.extend(own.into_iter().map(|frame| (*device, frame)));
        }
        frames
    }

    /// Tells the framers whose pause has come.
    fn quiet(&mut self) -> Vec<(usize, Frame)> {
        let silent = self.last.elapsed();
        let mut frames = Vec::new();
        for (device, framer) in &mut self.framers {
            if framer.is_inside() && framer.gap().is_some_and(|gap| gap <= silent) {
                let mut own = Vec::new();
                framer.on_quiet(&mut own);
                frames.extend(own.into_iter().map(|frame| (*device, frame)));
            }
        }
        frames
    }
}
