//! Where a run of bytes stands in others.
//!
//! In: bytes and a mark. Out: an index. Must never find a mark of no bytes.

/// The first place of `mark`.
pub(super) fn first(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    match mark {
        [] => None,
        [byte] => bytes.iter().position(|other| other == byte),
        _ => bytes.windows(mark.len()).position(|window| window == mark),
    }
}

/// The last place of `mark`.
pub(super) fn last(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    match mark {
        [] => None,
        [byte] => bytes.iter().rposition(|other| other == byte),
        _ => bytes.windows(mark.len()).rposition(|window| window == mark),
    }
}

/// How many of the last bytes may be the beginning of `mark`.
pub(super) fn begun(bytes: &[u8], mark: &[u8]) -> usize {
    let longest = mark.len().saturating_sub(1).min(bytes.len());
    (1..=longest).rev().find(|length| mark.get(..*length).is_some_and(|begin| bytes.ends_with(begin))).unwrap_or(0)
}
