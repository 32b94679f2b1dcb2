//! Bytes hidden in others: escapes, stuffing, lengths inside a message.
//!
//! In: bytes between two marks. Out: what they mean. Must never read beyond them.

use super::marks;

/// Where the end mark is that is not escaped, from byte `begin` on.
pub(super) fn end_mark(window: &[u8], begin: usize, mark: &[u8], escape: Option<(u8, u8)>) -> Option<usize> {
    let Some((escape, _)) = escape else {
        return marks::first(window.get(begin..)?, mark).map(|at| at + begin);
    };
    let mut at = begin;
    while let Some(rest) = window.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(mark) {
            return Some(at);
        }
        at += if rest.first() == Some(&escape) { 2 } else { 1 };
    }
    None
}

/// Takes escapes off: the byte behind one, combined with `with` (exclusive or).
pub(super) fn unescape(inside: &[u8], escape: u8, with: u8, out: &mut Vec<u8>) {
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        if *byte == escape {
            out.extend(bytes.next().map(|hidden| hidden ^ with));
        } else {
            out.push(*byte);
        }
    }
}

/// The length a message says it has; `None` while that has not come.
pub(super) fn stated(head: &[u8], at: usize, bytes: usize, little: bool, total: bool, add: i64) -> Option<usize> {
    let field = head.get(at..at + bytes)?;
    let push = |number: i64, byte: &u8| number << 8 | i64::from(*byte);
    let said = if little { field.iter().rev().fold(0, push) } else { field.iter().fold(0, push) };
    let own = if total { 0 } else { i64::try_from(at + bytes).ok()? };
    // A length below 0 is as wrong as one of 0.
    Some(usize::try_from(said + own + add).unwrap_or(0))
}

/// RFC 1055 undone; `None` where an escape hides nothing it may.
pub(super) fn unslip(stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(stuffed.len());
    let mut stream = stuffed.iter();
    while let Some(byte) = stream.next() {
        bytes.push(match byte {
            0xDB => match stream.next()? {
                0xDC => 0xC0,
                0xDD => 0xDB,
                _ => return None,
            },
            plain => *plain,
        });
    }
    Some(bytes)
}

/// Consistent overhead byte stuffing undone.
pub(super) fn uncob(stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; stuffed.len()];
    let report = cobs::decode(stuffed, &mut bytes).ok()?;
    bytes.truncate(report.frame_size());
    Some(bytes)
}
