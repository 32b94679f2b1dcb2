//! The way back from a message to the bytes on a line.
//!
//! In: a message as a [`Framer`](super::frame::Framer) gives it out. Out: the bytes that it would make that message of, with
//! a length and a check that fit. Must never send bytes that the same rules would read otherwise.

use super::checksum::{Algorithm, Check};
use super::compose::Unwritable;
use super::frame::{Framing, Kind};
use super::marks;

/// STX and ETX of IEC 62056-21.
const BLOCK: (u8, u8) = (0x02, 0x03);

impl Framing {
    /// The bytes of a message on the line.
    ///
    /// # Errors
    /// [`Unwritable`] for a way of framing that cannot be turned round.
    pub fn wrap(&self, message: &[u8], check: Option<&Check>) -> Result<Vec<u8>, Unwritable> {
        let mut message = message.to_vec();
        if let Kind::LengthPrefixed { .. } = self.kind {
            self.say_length(&mut message)?;
        }
        if let Some(check) = check {
            let end = self.end_in(&message);
            check.stamp(&mut message, end).ok_or(Unwritable::Construct("this place of the check"))?;
        }
        match self.kind {
            Kind::Line | Kind::Delimited { .. } => self.marked(&message),
            Kind::Fixed(_) | Kind::LengthPrefixed { .. } => Ok(self.with_ends(&message)),
            Kind::Idle => Ok(message),
            Kind::Slip => Ok(slip(&message)),
            Kind::Cobs => {
                let mut stuffed = vec![0; cobs::max_encoding_length(message.len())];
                let length = cobs::encode(&message, &mut stuffed);
                stuffed.truncate(length);
                stuffed.push(0);
                Ok(stuffed)
            }
            Kind::Sml => Ok(transported(message)),
            Kind::Iec62056 => Ok(match message.first() {
                Some(b'/') => [message.as_slice(), b"\r\n"].concat(),
                _ => {
                    let mut block = vec![BLOCK.0];
                    block.extend_from_slice(&message);
                    block.push(BLOCK.1);
                    block.push(block.iter().skip(1).fold(0, |xor, byte| xor ^ byte));
                    block
                }
            }),
        }
    }

    /// Where a message ends with its end mark, before a trailer.
    fn end_in(&self, message: &[u8]) -> usize {
        match self.kind {
            Kind::Delimited { trailer, .. } if trailer > 0 && self.keep.1 => {
                marks::last(message, &self.end).map_or(message.len(), |at| at + self.end.len())
            }
            _ => message.len(),
        }
    }

    /// With the marks that are taken off a message.
    fn with_ends(&self, message: &[u8]) -> Vec<u8> {
        let start = if self.keep.0 { &[] } else { self.start.as_slice() };
        let end = if self.keep.1 { &[] } else { self.end.as_slice() };
        [start, message, end].concat()
    }

    fn marked(&self, message: &[u8]) -> Result<Vec<u8>, Unwritable> {
        let (trailer, escape) = match self.kind {
            Kind::Delimited { trailer, escape, .. } => (trailer, escape),
            _ => (0, None),
        };
        if trailer > 0 && !self.keep.1 {
            return Err(Unwritable::Construct("a trailer behind an end that is taken off"));
        }
        let Some((escape, with)) = escape else {
            // Lines end as most devices end them.
            let before_end: &[u8] = if !self.keep.1 && self.strip.contains(&b'\r') { b"\r" } else { &[] };
            return Ok(self.with_ends(&[message, before_end].concat()));
        };
        let from = if self.keep.0 { self.start.len() } else { 0 };
        let until = if self.keep.1 { self.end_in(message).saturating_sub(self.end.len()) } else { message.len() };
        let inside = message.get(from..until).ok_or(Unwritable::Construct("this message"))?;
        let mut bytes = self.start.clone();
        for byte in inside {
            if *byte == escape || self.start.contains(byte) || self.end.contains(byte) {
                bytes.extend([escape, *byte ^ with]);
            } else {
                bytes.push(*byte);
            }
        }
        bytes.extend_from_slice(&self.end);
        bytes.extend_from_slice(message.get(until + self.end.len()..).filter(|_| self.keep.1).unwrap_or_default());
        Ok(bytes)
    }

    /// Writes how long the message is where it says so.
    fn say_length(&self, message: &mut Vec<u8>) -> Result<(), Unwritable> {
        let Kind::LengthPrefixed { at, bytes, little, total, add } = self.kind else { return Ok(()) };
        let mut whole = self.with_ends(message);
        let own = if total { 0 } else { at + bytes };
        let said = i64::try_from(whole.len()).ok().zip(i64::try_from(own).ok()).map(|(all, own)| all - own - add);
        let said = said.and_then(|said| u64::try_from(said).ok()).ok_or(Unwritable::Room)?;
        let all = said.to_be_bytes();
        let mut field = all.get(all.len().saturating_sub(bytes)..).unwrap_or_default().to_vec();
        if little {
            field.reverse();
        }
        if said >> (8 * bytes.min(7)) != 0 || whole.len() < at + bytes {
            return Err(Unwritable::Room);
        }
        whole.splice(at..at + bytes, field);
        let from = if self.keep.0 { 0 } else { self.start.len() };
        *message = whole.get(from..from + message.len()).ok_or(Unwritable::Room)?.to_vec();
        Ok(())
    }
}

fn slip(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + 2);
    for byte in message {
        match byte {
            0xC0 => bytes.extend([0xDB, 0xDC]),
            0xDB => bytes.extend([0xDB, 0xDD]),
            plain => bytes.push(*plain),
        }
    }
    bytes.push(0xC0);
    bytes
}

/// The transport of the Smart Message Language, version 1.
fn transported(mut message: Vec<u8>) -> Vec<u8> {
    const ESCAPE: [u8; 4] = [0x1B; 4];
    let fill = message.len().wrapping_neg() % 4;
    message.resize(message.len() + fill, 0);
    let mut bytes = [ESCAPE, [1; 4]].concat();
    for word in message.chunks(4) {
        if word == ESCAPE {
            bytes.extend(ESCAPE);
        }
        bytes.extend_from_slice(word);
    }
    bytes.extend(ESCAPE);
    bytes.extend([0x1A, u8::try_from(fill).unwrap_or_default()]);
    let check = Algorithm::named("crc16_x25").map_or(0, |algorithm| algorithm.digest(&bytes));
    bytes.extend(check.to_le_bytes().iter().take(2));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serial::extract::bytes_of;
    use crate::serial::frame::Framer;

    fn framing(kind: Kind, start: &str, end: &str) -> Framing {
        let bytes = |text: &str| if text.is_empty() { Vec::new() } else { bytes_of(text) };
        Framing {
            kind,
            start: bytes(start),
            end: bytes(end),
            strip: Vec::new(),
            keep: (true, true),
            ignore: Vec::new(),
            seven_bits: false,
            max: 64,
            gap: None,
        }
    }

    /// Bytes of RFC 1055 (END and ESC), of Cheshire and Baker's COBS as Wikipedia's table of it has them, of RFC 1662's octet
    /// stuffing (7E and 7D with 5E and 5D), and of lengths that count what the profile says.
    #[test]
    fn a_message_is_put_on_a_line_as_the_standards_draw_it_and_read_back() {
        let escaped = Kind::Delimited { trailer: 0, text: false, escape: Some((0x7D, 0x20)) };
        let sized = |total| Kind::LengthPrefixed { at: 1, bytes: 1, little: false, total, add: 0 };
        for (framing, message, expected) in [
            (framing(Kind::Slip, "", ""), "01 C0 DB 02", "01 DB DC DB DD 02 C0"),
            (framing(Kind::Cobs, "", ""), "11 22 00 33", "03 11 22 02 33 00"),
            (framing(Kind::Cobs, "", ""), "00 00", "01 01 01 00"),
            (framing(escaped, "7E", "7E"), "7E 01 7E 7D 02 7E", "7E 01 7D 5E 7D 5D 02 7E"),
            (framing(sized(true), "AA", ""), "AA 00 01 02", "AA 04 01 02"),
            (framing(sized(false), "AA", ""), "AA 00 01 02", "AA 02 01 02"),
            (framing(Kind::Idle, "", ""), "01 02", "01 02"),
        ] {
            let line = framing.wrap(&bytes_of(message), None);
            assert_eq!(line, Ok(bytes_of(expected)), "{message}");
            let (mut framer, mut frames) = (Framer::new(framing.clone(), None), Vec::new());
            framer.feed(&bytes_of(expected), &mut frames);
            framer.on_quiet(&mut frames);
            assert_eq!(frames.len(), 1, "{expected}");
        }
        let mut hidden = framing(Kind::Delimited { trailer: 2, text: false, escape: None }, "3C", "3E");
        hidden.keep = (false, false);
        assert!(hidden.wrap(&bytes_of("01 02 03"), None).is_err(), "nobody knows where the end was");
    }
}
