//! What is fuzzed, and what has to hold whatever the bytes are. The first byte of an input chooses the entry, so that one run
//! reaches all of a room's decoders; `seeds.py` makes the first inputs of the vectors in `tests/data`.
//!
//! In: bytes. Out: nothing, or a panic. Must never promise less than "it does not crash", and promises more where a decoder does.

pub mod air;
pub mod files;
pub mod modbus;
pub mod serial;

/// Takes the first byte off.
pub fn chosen(data: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((usize::from(*first), rest))
}
