//! From a stream of bytes to whole messages.
//!
//! In: bytes in any pieces, and word of quiet times. Out: [`Frame`]s, checked, and what was dropped, counted. Must never
//! decide by how the bytes were split, keep more than [`Framing::max`] and a piece, or stay lost: after damage the next
//! whole message is found.
//!
//! Every decision is made on the shortest beginning of the stream that allows it, which is what makes the pieces not
//! matter.

use std::time::Duration;

use super::checksum::{Algorithm, Check, Verdict};
use super::marks;
use super::stuffing::{end_mark, stated, uncob, unescape, unslip};

/// Bytes taken in at one time, so that a large piece does not make the buffer large.
const PIECE_BYTES: usize = 512;
/// The longest message, in bytes, where the rules say nothing; a longer one is dropped.
pub const MAX_BYTES: usize = 4_096;
/// Places inside a damaged message at which a whole one is looked for; beyond, the rest of it is given up. It bounds
/// the work that noise can make.
const SECOND_LOOKS: u32 = 16;

/// How messages are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing {
    /// The way.
    pub kind: Kind,
    /// How a message begins; nothing where it begins behind the one before.
    pub start: Vec<u8>,
    /// How a message ends.
    pub end: Vec<u8>,
    /// Bytes taken off the end of a line.
    pub strip: Vec<u8>,
    /// Whether the marks belong to the message: start, end.
    pub keep: (bool, bool),
    /// Bytes that are dropped wherever they come.
    pub ignore: Vec<u8>,
    /// The eighth bit is a parity bit that the port does not take off.
    pub seven_bits: bool,
    /// The longest message with its marks, in bytes.
    pub max: usize,
    /// A message that pauses for so long is given up; of [`Kind::Idle`], it is complete.
    pub gap: Option<Duration>,
}

/// The ways messages are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From a start mark, if there is one, to an end mark.
    Line,
    /// From a start mark to an end mark, with an escape inside and bytes behind.
    Delimited {
        /// Bytes behind the end mark; of a text, fewer if the line ends before.
        trailer: usize,
        /// Whether these bytes are text.
        text: bool,
        /// The byte that hides the next one, and what that is combined with (exclusive or).
        escape: Option<(u8, u8)>,
    },
    /// So many bytes.
    Fixed(usize),
    /// As many bytes as the message says.
    LengthPrefixed {
        /// Where the length stands.
        at: usize,
        /// Its bytes, 1 to 4.
        bytes: usize,
        /// The least significant byte first.
        little: bool,
        /// Whether it counts all bytes, or those behind it.
        total: bool,
        /// Bytes it does not count.
        add: i64,
    },
    /// Everything between two quiet times.
    Idle,
    /// RFC 1055.
    Slip,
    /// Consistent overhead byte stuffing, each message ended by a 0.
    Cobs,
    /// The transport of the Smart Message Language, version 1 (BSI TR-03109-1, annex IV).
    Sml,
    /// Mode C of IEC 62056-21: identification lines, and blocks from STX to ETX with their check character.
    Iec62056,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, without what the rules take off.
    pub bytes: Vec<u8>,
    /// Whether a check proved it whole.
    pub checked: bool,
}

/// What a framer has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages given out.
    pub frames: u64,
    /// Messages with a wrong check.
    pub bad_checks: u64,
    /// Messages longer than may be.
    pub too_long: u64,
    /// Messages with a wrong form: length, end, escape.
    pub malformed: u64,
    /// Messages that paused in the middle.
    pub interrupted: u64,
    /// Bytes outside of messages.
    pub noise_bytes: u64,
}

impl Counts {
    /// Messages that were dropped, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.bad_checks + self.too_long + self.malformed + self.interrupted
    }
}

/// Tells messages apart.
#[derive(Clone, Debug)]
pub struct Framer {
    framing: Framing,
    check: Option<Check>,
    inner: Inner,
    bytes: Vec<u8>,
    head: usize,
    /// Bytes behind `head` in which there is no end mark.
    searched: usize,
    /// A message without a start mark is too long; everything up to the next end is dropped.
    overrun: bool,
    /// The end of the damaged message that is looked through, counted from the beginning of the stream.
    damaged_until: u64,
    looks: u32,
    /// Bytes of the stream before `head`.
    passed: u64,
    counts: Counts,
}

/// Checks that belong to a way of framing.
#[derive(Clone, Debug)]
enum Inner {
    None,
    Sml(Algorithm, Algorithm),
}

/// What the bytes at the head are.
enum Found {
    /// Not known yet.
    More,
    /// Not a message: so many bytes are passed over.
    Skip(usize, Reason),
    /// A message: the bytes it takes, what it holds, and where its end mark ends in that.
    Frame { used: usize, bytes: Vec<u8>, end: usize, checked: bool },
}

#[derive(Clone, Copy)]
enum Reason {
    /// Nothing was lost.
    Empty,
    Noise,
    TooLong,
    Malformed,
    BadCheck,
}

impl Framer {
    /// Tells the messages of a stream apart that begins now.
    pub fn new(framing: Framing, check: Option<Check>) -> Self {
        let named = |name| Algorithm::named(name).unwrap_or(Algorithm::Xor8);
        let inner = match framing.kind {
            // Some meters (Holley) take KERMIT where the standard says X.25; libsml accepts both, too.
            Kind::Sml => Inner::Sml(named("crc16_x25"), named("crc16_kermit")),
            _ => Inner::None,
        };
        Self {
            framing,
            check,
            inner,
            bytes: Vec::new(),
            head: 0,
            searched: 0,
            overrun: false,
            damaged_until: 0,
            looks: 0,
            passed: 0,
            counts: Counts::default(),
        }
    }

    /// Takes bytes in and gives out the messages they complete.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Frame>) {
        for piece in bytes.chunks(PIECE_BYTES) {
            for byte in piece {
                let byte = if self.framing.seven_bits { byte & 0x7F } else { *byte };
                if !self.framing.ignore.contains(&byte) {
                    self.bytes.push(byte);
                }
            }
            self.drain(false, out);
        }
    }

    /// The line has been quiet for [`Framing::gap`].
    pub fn on_quiet(&mut self, out: &mut Vec<Frame>) {
        self.drain(true, out);
        let left = self.bytes.len() - self.head;
        if left == 0 && !self.overrun {
            return;
        }
        if self.framing.kind == Kind::Idle && !self.overrun {
            let bytes = self.bytes.get(self.head..).unwrap_or_default().to_vec();
            self.take(left, bytes, left, false, out);
        } else {
            self.counts.interrupted += u64::from(!self.overrun);
        }
        self.advance(self.bytes.len() - self.head);
        self.overrun = false;
    }

    /// Whether the beginning of a message is waiting for the rest.
    pub fn is_inside(&self) -> bool {
        self.overrun || self.head < self.bytes.len()
    }

    /// The quiet time that means something.
    pub fn gap(&self) -> Option<Duration> {
        self.framing.gap
    }

    /// Forgets what has begun: the stream is another one.
    pub fn reset(&mut self) {
        self.advance(self.bytes.len() - self.head);
        self.overrun = false;
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes that are kept at the moment.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() - self.head
    }

    fn drain(&mut self, quiet: bool, out: &mut Vec<Frame>) {
        while self.head < self.bytes.len() {
            match self.look(quiet) {
                Found::More => break,
                Found::Skip(count, reason) => self.skip(count, reason),
                Found::Frame { used, bytes, end, checked } => self.take(used, bytes, end, checked, out),
            }
        }
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        } else if self.head >= PIECE_BYTES {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }

    fn advance(&mut self, count: usize) {
        self.head += count;
        self.passed += count as u64;
        self.searched = 0;
    }

    fn take(&mut self, used: usize, bytes: Vec<u8>, end: usize, checked: bool, out: &mut Vec<Frame>) {
        let verdict = self.check.as_ref().map(|check| check.verify(&bytes, end));
        if verdict == Some(Verdict::Damaged) {
            let sized = matches!(self.framing.kind, Kind::Fixed(_) | Kind::LengthPrefixed { .. });
            let resyncs = sized || !self.framing.start.is_empty();
            return self.skip(if resyncs { 1 } else { used }, Reason::BadCheck);
        }
        self.counts.frames += 1;
        self.damaged_until = 0;
        self.looks = 0;
        out.push(Frame { bytes, checked: checked || verdict == Some(Verdict::Whole) });
        self.advance(used);
    }

    /// Passes over bytes, and counts why, once for one damaged message.
    fn skip(&mut self, count: usize, reason: Reason) {
        let inside = self.passed < self.damaged_until;
        let counter = match reason {
            Reason::Empty => return self.advance(count),
            Reason::Noise => {
                let until = self.passed + count as u64;
                self.counts.noise_bytes += until.saturating_sub(self.damaged_until.max(self.passed));
                return self.advance(count);
            }
            Reason::TooLong => &mut self.counts.too_long,
            Reason::Malformed => &mut self.counts.malformed,
            Reason::BadCheck => &mut self.counts.bad_checks,
        };
        *counter += u64::from(!inside);
        if !inside {
            let seen = (self.bytes.len() - self.head).min(self.framing.max);
            let reach = if matches!(reason, Reason::BadCheck) { self.reach(seen) } else { count };
            self.damaged_until = self.passed + reach as u64;
            self.looks = 0;
        }
        self.looks += 1;
        if self.looks > SECOND_LOOKS {
            let left = usize::try_from(self.damaged_until.saturating_sub(self.passed)).unwrap_or(count);
            self.looks = 0;
            return self.advance(left.clamp(count, self.bytes.len() - self.head));
        }
        self.advance(count);
    }

    /// The bytes a damaged message takes: what its own kind says, whatever else is in the buffer.
    fn reach(&mut self, seen: usize) -> usize {
        match self.look(false) {
            Found::Frame { used, .. } => used.min(seen.max(1)),
            _ => 1,
        }
    }

    fn look(&mut self, quiet: bool) -> Found {
        match self.framing.kind {
            Kind::Line => self.marked(0, false, None, quiet),
            Kind::Delimited { trailer, text, escape } => self.marked(trailer, text, escape, quiet),
            Kind::Fixed(length) => self.sized(|_| Some(length)),
            Kind::LengthPrefixed { at, bytes, little, total, add } => {
                self.sized(|head| stated(head, at, bytes, little, total, add))
            }
            Kind::Idle => self.idle(),
            Kind::Slip => self.stuffed(0xC0, unslip),
            Kind::Cobs => self.stuffed(0, uncob),
            Kind::Sml => self.sml(),
            Kind::Iec62056 => self.iec(),
        }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    /// What is to be done before a start mark: bytes to pass over, or none when the mark is at the head.
    fn before_start(&self) -> Option<Found> {
        let (rest, start) = (self.rest(), &self.framing.start);
        if start.is_empty() || rest.starts_with(start) {
            return None;
        }
        Some(match marks::first(rest, start) {
            Some(at) => Found::Skip(at, Reason::Noise),
            None => match rest.len() - marks::begun(rest, start) {
                0 => Found::More,
                noise => Found::Skip(noise, Reason::Noise),
            },
        })
    }

    /// From a start mark to an end mark.
    fn marked(&mut self, trailer: usize, text: bool, escape: Option<(u8, u8)>, quiet: bool) -> Found {
        if !self.overrun
            && let Some(found) = self.before_start()
        {
            return found;
        }
        let start = self.framing.start.len();
        let shared = start > 0 && self.framing.start == self.framing.end;
        let (begin, mark) = (self.searched.max(start), self.framing.end.len());
        let limit = self.rest().len().min(self.framing.max);
        let window = self.rest().get(..limit).unwrap_or_default();
        let Some(at) = end_mark(window, begin, &self.framing.end, escape) else {
            if limit < self.framing.max {
                // An end mark may have begun; an escape must be seen from its beginning.
                self.searched = if escape.is_some() { 0 } else { limit.saturating_sub(mark.saturating_sub(1)) };
                return Found::More;
            }
            return self.too_long(limit);
        };
        let end = at + mark;
        if self.overrun {
            self.overrun = false;
            return Found::Skip(end, Reason::Empty);
        }
        if shared && at == start {
            return Found::Skip(start, Reason::Empty);
        }
        let after = self.rest().get(end..).unwrap_or_default();
        let tail = match trailer {
            0 => 0,
            _ => {
                match (text.then(|| after.iter().take(trailer).position(|byte| *byte == b'\n')).flatten(), after.len())
                {
                    (Some(newline), _) => newline + 1,
                    (None, length) if length >= trailer => trailer,
                    // Nothing more came: an older meter sends no check.
                    (None, length) if quiet && text => length,
                    _ => return Found::More,
                }
            }
        };
        self.content(at, tail, shared, escape)
    }

    /// A message that has no end where it should.
    fn too_long(&mut self, limit: usize) -> Found {
        if self.overrun {
            let kept = marks::begun(self.rest().get(..limit).unwrap_or_default(), &self.framing.end);
            return Found::Skip((limit - kept).max(1), Reason::Empty);
        }
        if self.framing.start.is_empty() {
            self.overrun = true;
            let kept = marks::begun(self.rest().get(..limit).unwrap_or_default(), &self.framing.end);
            return Found::Skip((limit - kept).max(1), Reason::TooLong);
        }
        Found::Skip(1, Reason::TooLong)
    }

    /// What a message holds that ends with a mark at `at`.
    fn content(&self, at: usize, tail: usize, shared: bool, escape: Option<(u8, u8)>) -> Found {
        let Framing { start, end, strip, keep, .. } = &self.framing;
        let rest = self.rest();
        let inside = rest.get(start.len()..at).unwrap_or_default();
        let mut bytes = if keep.0 { start.clone() } else { Vec::new() };
        match escape {
            None => bytes.extend_from_slice(inside),
            Some((escape, with)) => unescape(inside, escape, with, &mut bytes),
        }
        while bytes.last().is_some_and(|last| strip.contains(last)) {
            bytes.pop();
        }
        if keep.1 {
            bytes.extend_from_slice(end);
        }
        let whole = bytes.len();
        let behind = at + end.len();
        bytes.extend_from_slice(rest.get(behind..behind + tail).unwrap_or_default());
        // A mark that ends one message may begin the next.
        let used = if shared && tail == 0 { at } else { behind + tail };
        if bytes.is_empty() {
            return Found::Skip(used, Reason::Empty);
        }
        Found::Frame { used, bytes, end: whole, checked: false }
    }

    /// A message whose length is known, or said by its first bytes.
    fn sized(&self, length: impl FnOnce(&[u8]) -> Option<usize>) -> Found {
        if let Some(found) = self.before_start() {
            return found;
        }
        let Framing { start, end, keep, max, .. } = &self.framing;
        let Some(length) = length(self.rest()) else { return Found::More };
        if length > *max || length <= start.len() {
            return Found::Skip(1, Reason::Malformed);
        }
        let Some(whole) = self.rest().get(..length) else { return Found::More };
        if !whole.ends_with(end) {
            return Found::Skip(1, Reason::Malformed);
        }
        let from = if keep.0 { 0 } else { start.len() };
        let until = if keep.1 { length } else { length - end.len() };
        let bytes = whole.get(from..until).unwrap_or_default().to_vec();
        let end = bytes.len();
        Found::Frame { used: length, bytes, end, checked: false }
    }

    fn idle(&mut self) -> Found {
        let held = self.rest().len();
        if self.overrun {
            return Found::Skip(held, Reason::Empty);
        }
        if held <= self.framing.max {
            return Found::More;
        }
        self.overrun = true;
        Found::Skip(self.framing.max, Reason::TooLong)
    }

    /// Messages between two bytes that occur nowhere else.
    fn stuffed(&mut self, mark: u8, decode: fn(&[u8]) -> Option<Vec<u8>>) -> Found {
        let limit = self.rest().len().min(self.framing.max);
        let window = self.rest().get(..limit).unwrap_or_default();
        let begin = self.searched.min(limit);
        let Some(at) = window.iter().skip(begin).position(|byte| *byte == mark).map(|at| at + begin) else {
            if self.overrun {
                return Found::Skip(limit, Reason::Empty);
            }
            if limit < self.framing.max {
                self.searched = limit;
                return Found::More;
            }
            self.overrun = true;
            return Found::Skip(limit, Reason::TooLong);
        };
        let decoded = decode(window.get(..at).unwrap_or_default());
        if std::mem::take(&mut self.overrun) || at == 0 {
            return Found::Skip(at + 1, Reason::Empty);
        }
        match decoded {
            Some(bytes) => Found::Frame { used: at + 1, end: bytes.len(), bytes, checked: false },
            None => Found::Skip(at + 1, Reason::Malformed),
        }
    }

    /// `1b1b1b1b 01010101`, words of four bytes, `1b1b1b1b 1a`, fill bytes, CRC; `1b1b1b1b` in the words is doubled.
    fn sml(&mut self) -> Found {
        const ESCAPE: [u8; 4] = [0x1B; 4];
        const BEGIN: [u8; 8] = [0x1B, 0x1B, 0x1B, 0x1B, 1, 1, 1, 1];
        let rest = self.rest();
        if !rest.starts_with(&BEGIN) {
            return match marks::first(rest, &BEGIN) {
                Some(at) => Found::Skip(at, Reason::Noise),
                None => match rest.len() - marks::begun(rest, &BEGIN) {
                    0 => Found::More,
                    noise => Found::Skip(noise, Reason::Noise),
                },
            };
        }
        let mut bytes = Vec::new();
        let mut at = BEGIN.len();
        loop {
            if at + 8 > self.framing.max {
                return Found::Skip(1, Reason::TooLong);
            }
            let Some(word) = rest.get(at..at + 4) else { return Found::More };
            if word != ESCAPE {
                bytes.extend_from_slice(word);
                at += 4;
                continue;
            }
            let Some(word) = rest.get(at + 4..at + 8) else { return Found::More };
            match *word {
                [0x1B, 0x1B, 0x1B, 0x1B] => bytes.extend_from_slice(&ESCAPE),
                [0x1A, fill, low, high] => {
                    let Inner::Sml(standard, other) = &self.inner else { return Found::Skip(1, Reason::Malformed) };
                    let checked = rest.get(..at + 6).unwrap_or_default();
                    let found = u64::from(u16::from_le_bytes([low, high]));
                    if found != standard.digest(checked) && found != other.digest(checked) {
                        return Found::Skip(1, Reason::BadCheck);
                    }
                    if fill > 3 || usize::from(fill) > bytes.len() {
                        return Found::Skip(1, Reason::Malformed);
                    }
                    bytes.truncate(bytes.len() - usize::from(fill));
                    return Found::Frame { used: at + 8, end: bytes.len(), bytes, checked: true };
                }
                // Another message begins: this one was cut off.
                _ => return Found::Skip(1, Reason::Malformed),
            }
            at += 8;
        }
    }

    /// `/…\r\n` or `STX … ETX BCC`; the block is given out without its STX, ETX and check.
    fn iec(&mut self) -> Found {
        const STX: u8 = 0x02;
        const ETX: u8 = 0x03;
        let limit = self.rest().len().min(self.framing.max);
        let rest = self.rest().get(..limit).unwrap_or_default();
        let is_full = limit == self.framing.max;
        match rest.first() {
            Some(b'/') => match rest.iter().position(|byte| *byte == b'\n') {
                Some(newline) => {
                    let line = rest.get(..newline).unwrap_or_default();
                    let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                    Found::Frame { used: newline + 1, end: line.len(), bytes: line, checked: false }
                }
                None if is_full => Found::Skip(1, Reason::TooLong),
                None => Found::More,
            },
            Some(&STX) => match rest.iter().position(|byte| *byte == ETX) {
                None if is_full => Found::Skip(1, Reason::TooLong),
                None => Found::More,
                Some(etx) => match rest.get(etx + 1) {
                    None if is_full => Found::Skip(1, Reason::TooLong),
                    None => Found::More,
                    Some(check) => {
                        let covered = rest.get(1..=etx).unwrap_or_default();
                        if covered.iter().fold(0, |xor, byte| xor ^ byte) != *check {
                            return Found::Skip(1, Reason::BadCheck);
                        }
                        let bytes = rest.get(1..etx).unwrap_or_default().to_vec();
                        Found::Frame { used: etx + 2, end: bytes.len(), bytes, checked: true }
                    }
                },
            },
            _ => {
                let noise = rest.iter().position(|byte| matches!(*byte, b'/' | STX)).unwrap_or(limit);
                Found::Skip(noise, Reason::Noise)
            }
        }
    }
}
