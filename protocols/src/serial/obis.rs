//! OBIS codes: the names of a meter's values (IEC 62056-61).
//!
//! In: `1-0:1.8.0*255` and shorter forms, or six bytes. Out: one form, so that two spellings of a code are one. Must never
//! call two different values the same.

/// The code in its shortest form: the last group is left out where it is 255, which means "now".
pub(super) fn short(code: &str) -> &str {
    let code = code.trim();
    code.strip_suffix("*255").or_else(|| code.strip_suffix("&255")).unwrap_or(code)
}

/// Whether two spellings mean the same value.
pub(super) fn same(left: &str, right: &str) -> bool {
    short(left) == short(right)
}

/// The text form of a code's six bytes.
pub(super) fn of_bytes(bytes: &[u8]) -> Option<String> {
    let [a, b, c, d, e, f] = *<&[u8; 6]>::try_from(bytes).ok()?;
    Some(match f {
        255 => format!("{a}-{b}:{c}.{d}.{e}"),
        _ => format!("{a}-{b}:{c}.{d}.{e}*{f}"),
    })
}
