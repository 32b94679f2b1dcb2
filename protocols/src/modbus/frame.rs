//! The framings around a protocol data unit: Modbus TCP, RTU and ASCII.
//!
//! In: bytes as they come, in pieces of any size. Out: frames, and how many bytes to forget. Nothing is kept in here:
//! the caller holds the bytes in an [`Inbox`] and asks [`step`] (or a framing's own) until it says [`Step::More`], so
//! that the same bytes give the same frames however they were split. Must never wait for more bytes than a frame can
//! have, and never take the inside of an unfinished frame for a frame of its own.
//!
//! Sources: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3.1; MODBUS over Serial Line Specification
//! and Implementation Guide V1.02, section 2.5.

use crc::{CRC_16_MODBUS, Crc, Table as CrcTable};

use super::pdu::{PDU_BYTES, REFUSED, Request};

/// The longest RTU frame, in bytes.
pub const RTU_BYTES: usize = PDU_BYTES + 3;
/// The longest Modbus TCP frame, in bytes.
pub const TCP_BYTES: usize = PDU_BYTES + 7;
/// The longest ASCII frame, in characters.
pub const ASCII_CHARS: usize = 2 * (PDU_BYTES + 2) + 3;
/// Bytes an [`Inbox`] holds: more than a window of pipelined answers fills between two looks. A peer that sends more
/// without one frame in it loses the oldest bytes.
pub const INBOX_BYTES: usize = 16 * 1024;

const CRC: Crc<u16, CrcTable<1>> = Crc::<u16, CrcTable<1>>::new(&CRC_16_MODBUS);

/// How a protocol data unit is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A header with transaction, protocol, length and unit.
    Tcp,
    /// Unit, bytes and a checksum; the end is known from the function.
    Rtu,
    /// The same as hexadecimal text between `:` and CR LF.
    Ascii,
}

/// Which way the frames go that are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client looks for answers.
    Answers,
    /// A server looks for requests.
    Requests,
}

/// One frame, borrowed from the bytes it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What ties a Modbus TCP answer to its request; 0 elsewhere.
    pub transaction: u16,
    /// The unit id.
    pub unit: u8,
    /// The protocol data unit, at least one byte; on ASCII its hexadecimal text, which [`pdu_bytes`] reads.
    pub pdu: &'a [u8],
}

/// What the bytes at hand hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A frame; forget `used` bytes after it was looked at.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// What it and anything before it takes.
        used: usize,
    },
    /// Nothing of use in the first `used` bytes.
    Skip {
        /// How many bytes to forget; at least one.
        used: usize,
        /// They have the form of a frame, but the checksum is wrong.
        damaged: bool,
    },
    /// Not decided before more bytes come.
    More,
}

/// A Modbus TCP stream on which no next frame can be found: the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Not Modbus.
    #[error("protocol id {0} instead of 0")]
    Protocol(u16),
    /// A length no frame has.
    #[error("frame length {0}, which is not 2 to 254")]
    Length(u16),
}

/// The checksum of an RTU frame; the low byte goes first.
pub fn crc(bytes: &[u8]) -> u16 {
    CRC.checksum(bytes)
}

/// The checksum of an ASCII frame: the two's complement of the sum.
pub fn lrc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

/// Appends the frame around the bytes that `pdu` appends. `transaction` is for Modbus TCP alone.
pub fn encode(framing: Framing, transaction: u16, unit: u8, out: &mut Vec<u8>, pdu: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    match framing {
        Framing::Tcp => {
            out.extend(transaction.to_be_bytes());
            out.extend([0, 0, 0, 0, unit]);
            pdu(out);
            let length = (out.len() - start - 6) as u16;
            if let Some(field) = out.get_mut(start + 4..start + 6) {
                field.copy_from_slice(&length.to_be_bytes());
            }
        }
        Framing::Rtu => {
            out.push(unit);
            pdu(out);
            let sum = crc(out.get(start..).unwrap_or_default());
            out.extend(sum.to_le_bytes());
        }
        Framing::Ascii => {
            let mut bytes = vec![unit];
            pdu(&mut bytes);
            bytes.push(lrc(&bytes));
            out.push(b':');
            for byte in bytes {
                out.extend([hex_digit(byte >> 4), hex_digit(byte & 15)]);
            }
            out.extend(b"\r\n");
        }
    }
}

/// Looks at the first bytes of a stream of any framing.
///
/// # Errors
/// [`StreamError`] on Modbus TCP alone; the others find the next frame by themselves.
pub fn step(framing: Framing, side: Side, bytes: &[u8]) -> Result<Step<'_>, StreamError> {
    match framing {
        Framing::Tcp => tcp(bytes),
        Framing::Rtu => Ok(rtu(side, bytes)),
        Framing::Ascii => Ok(ascii(bytes)),
    }
}

/// Looks at the first bytes of a Modbus TCP stream.
///
/// # Errors
/// [`StreamError`] where the stream cannot be followed any further.
pub fn tcp(bytes: &[u8]) -> Result<Step<'_>, StreamError> {
    let [t1, t0, p1, p0, l1, l0, unit, body @ ..] = bytes else {
        // The protocol id says early that this is no Modbus, before a peer's silence has to.
        return match bytes {
            [_, _, 0, 0, ..] | [_, _, 0] | [_, _] | [_] | [] => Ok(Step::More),
            [_, _, p1, p0, ..] => Err(StreamError::Protocol(u16::from_be_bytes([*p1, *p0]))),
            [_, _, p1] => Err(StreamError::Protocol(u16::from(*p1) << 8)),
        };
    };
    let protocol = u16::from_be_bytes([*p1, *p0]);
    let length = u16::from_be_bytes([*l1, *l0]);
    if protocol != 0 {
        return Err(StreamError::Protocol(protocol));
    }
    if !(2..=1 + PDU_BYTES as u16).contains(&length) {
        return Err(StreamError::Length(length));
    }
    let Some(function) = body.first() else { return Ok(Step::More) };
    // Devices exist that count an exception one byte too short; a lone function code with that bit is no frame at all.
    let pdu_bytes = match length {
        2 if *function >= REFUSED => 2,
        _ => usize::from(length) - 1,
    };
    let Some(pdu) = body.get(..pdu_bytes) else { return Ok(Step::More) };
    let frame = Frame { transaction: u16::from_be_bytes([*t1, *t0]), unit: *unit, pdu };
    Ok(Step::Frame { frame, used: 7 + pdu_bytes })
}

/// Looks at the first bytes of an RTU stream.
pub fn rtu(side: Side, bytes: &[u8]) -> Step<'_> {
    match rtu_length(side, bytes) {
        Length::Bytes(length) => match bytes.get(..length) {
            Some(adu) => rtu_frame(adu).unwrap_or(Step::Skip { used: 1, damaged: true }),
            None => Step::More,
        },
        Length::Open => Step::More,
        Length::None => Step::Skip { used: 1, damaged: false },
    }
}

/// Looks at an RTU stream after the line fell silent: what is unfinished now never will be, so a frame may also begin
/// behind it. `expected` is the request that is out, for answers whose length nothing else tells.
pub fn rtu_at_silence<'a>(side: Side, bytes: &'a [u8], expected: Option<(u8, &Request)>) -> Step<'a> {
    for start in 0..bytes.len() {
        let rest = bytes.get(start..).unwrap_or_default();
        let found = match rtu(side, rest) {
            Step::Frame { frame, used } => Some((frame, used)),
            _ => expected.and_then(|(unit, request)| rtu_custom(rest, unit, request)),
        };
        if let Some((frame, used)) = found {
            return Step::Frame { frame, used: start + used };
        }
    }
    match bytes.len() {
        0 => Step::More,
        used => Step::Skip { used, damaged: matches!(rtu(side, bytes), Step::Skip { damaged: true, .. }) },
    }
}

/// An answer to a function whose length this program does not know: all there is, if the checksum says so.
fn rtu_custom<'a>(bytes: &'a [u8], unit: u8, request: &Request) -> Option<(Frame<'a>, usize)> {
    let Request::Other { function, .. } = request else { return None };
    (bytes.first() == Some(&unit) && bytes.get(1) == Some(function)).then_some(())?;
    match rtu_frame(bytes)? {
        Step::Frame { frame, used } => Some((frame, used)),
        _ => None,
    }
}

fn rtu_frame(adu: &[u8]) -> Option<Step<'_>> {
    let (body, sum) = adu.split_last_chunk::<2>()?;
    let (unit, pdu) = body.split_first()?;
    (!pdu.is_empty() && pdu.len() <= PDU_BYTES && crc(body) == u16::from_le_bytes(*sum))
        .then_some(Step::Frame { frame: Frame { transaction: 0, unit: *unit, pdu }, used: adu.len() })
}

/// How long the RTU frame is that begins here.
enum Length {
    /// So many bytes, checksum included; never more than [`RTU_BYTES`].
    Bytes(usize),
    /// Not known before more bytes come.
    Open,
    /// No frame begins so.
    None,
}

impl Length {
    fn of(bytes: usize) -> Self {
        if bytes <= RTU_BYTES { Self::Bytes(bytes) } else { Self::None }
    }
}

fn rtu_length(side: Side, bytes: &[u8]) -> Length {
    let Some(function) = bytes.get(1).copied() else { return Length::Open };
    match (side, function) {
        (Side::Answers, 0x81..=0xFF) => Length::Bytes(5),
        (Side::Answers, 1 | 2 | 12 | 17 | 20 | 21) => counted(bytes, 2, 5, |count| count > 0),
        (Side::Answers, 3 | 4 | 23) => counted(bytes, 2, 5, |count| count > 0 && count.is_multiple_of(2)),
        (Side::Answers, 5 | 6 | 8 | 11 | 15 | 16) => Length::Bytes(8),
        (Side::Answers, 7) => Length::Bytes(5),
        (_, 22) => Length::Bytes(10),
        (Side::Answers, 24) => match bytes.get(2..4) {
            Some([high, low]) => Length::of(6 + usize::from(u16::from_be_bytes([*high, *low]))),
            _ => Length::Open,
        },
        (Side::Answers, 43) => identification(bytes),
        (Side::Requests, 1..=6 | 8) => Length::Bytes(8),
        (Side::Requests, 7 | 11 | 12 | 17) => Length::Bytes(4),
        (Side::Requests, 15) => counted(bytes, 6, 9, |count| count > 0),
        (Side::Requests, 16) => counted(bytes, 6, 9, |count| count > 0 && count.is_multiple_of(2)),
        (Side::Requests, 20 | 21) => counted(bytes, 2, 5, |count| count > 0),
        (Side::Requests, 23) => counted(bytes, 10, 13, |count| count > 0 && count.is_multiple_of(2)),
        (Side::Requests, 24) => Length::Bytes(6),
        (Side::Requests, 43) => Length::Bytes(7),
        _ => Length::None,
    }
}

fn counted(bytes: &[u8], at: usize, besides: usize, fits: fn(u8) -> bool) -> Length {
    match bytes.get(at) {
        Some(count) if fits(*count) => Length::of(besides + usize::from(*count)),
        Some(_) => Length::None,
        None => Length::Open,
    }
}

/// The length of an identification answer can only be found by walking its objects.
fn identification(bytes: &[u8]) -> Length {
    if bytes.get(2).is_some_and(|mei| *mei != 14) {
        return Length::None;
    }
    let Some(objects) = bytes.get(7) else { return Length::Open };
    let mut end = 8;
    for _ in 0..*objects {
        let Some(length) = bytes.get(end + 1) else {
            return if end + 2 > RTU_BYTES { Length::None } else { Length::Open };
        };
        end += 2 + usize::from(*length);
    }
    Length::of(end + 2)
}

/// Looks at the first characters of an ASCII stream.
pub fn ascii(bytes: &[u8]) -> Step<'_> {
    let Some(colon) = bytes.iter().position(|byte| *byte == b':') else {
        return match bytes.len() {
            0 => Step::More,
            used => Step::Skip { used, damaged: false },
        };
    };
    if colon > 0 {
        return Step::Skip { used: colon, damaged: false };
    }
    let text = bytes.get(1..).unwrap_or_default();
    let Some(end) = text.iter().position(|byte| !byte.is_ascii_hexdigit()) else {
        return if bytes.len() > ASCII_CHARS { Step::Skip { used: 1, damaged: false } } else { Step::More };
    };
    match text.get(end..) {
        Some([b'\r']) => Step::More,
        Some([b'\r', b'\n', ..]) => {
            let used = end + 3;
            let (digits, _) = text.split_at(end);
            match ascii_frame(digits) {
                Some(unit) => {
                    let pdu = digits.get(2..end - 2).unwrap_or_default();
                    Step::Frame { frame: Frame { transaction: 0, unit, pdu }, used }
                }
                None => Step::Skip { used, damaged: true },
            }
        }
        _ => Step::Skip { used: end + 1, damaged: false },
    }
}

/// The unit of a frame of hexadecimal digits whose checksum is right.
fn ascii_frame(digits: &[u8]) -> Option<u8> {
    if digits.len() > ASCII_CHARS - 3 {
        return None;
    }
    let bytes = unhex(digits)?;
    let (sum, body) = bytes.split_last()?;
    (body.len() >= 2 && lrc(body) == *sum).then(|| body.first().copied()).flatten()
}

/// The bytes of a frame's protocol data unit, whatever the framing: ASCII keeps them as text.
pub fn pdu_bytes(framing: Framing, frame: &Frame<'_>) -> Vec<u8> {
    match framing {
        Framing::Ascii => unhex(frame.pdu).unwrap_or_default(),
        Framing::Tcp | Framing::Rtu => frame.pdu.to_vec(),
    }
}

/// Unit and function of what begins here like a frame of a serial line, whole and right or not.
pub fn head(framing: Framing, bytes: &[u8]) -> Option<(u8, u8)> {
    match framing {
        Framing::Ascii => match unhex(bytes.get(1..5)?)?.as_slice() {
            [unit, function] => Some((*unit, *function)),
            _ => None,
        },
        Framing::Tcp | Framing::Rtu => Some((*bytes.first()?, *bytes.get(1)?)),
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn hex_digit(nibble: u8) -> u8 {
    b"0123456789ABCDEF".get(usize::from(nibble)).copied().unwrap_or(b'0')
}

/// Bytes that came and are not used yet; at most [`INBOX_BYTES`].
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; RTU_BYTES * 4], start: 0, end: 0 }
    }
}

impl Inbox {
    /// The bytes at hand.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Room for the next read; never empty. What was unused longest is given up when nothing else makes room.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.bytes.len() - self.end < RTU_BYTES {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() - self.end < RTU_BYTES {
            if self.bytes.len() < INBOX_BYTES {
                self.bytes.resize((self.bytes.len() * 2).min(INBOX_BYTES), 0);
            } else {
                self.bytes.copy_within(RTU_BYTES..self.end, 0);
                self.end -= RTU_BYTES;
            }
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Notes that `count` bytes were put into [`Inbox::room`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Forgets the first `used` bytes.
    pub fn forget(&mut self, used: usize) {
        self.start = (self.start + used).min(self.end);
    }

    /// Forgets everything, and says how much that was.
    pub fn clear(&mut self) -> usize {
        let left = self.end - self.start;
        (self.start, self.end) = (0, 0);
        left
    }
}
