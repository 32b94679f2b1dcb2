//! Files and words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((entry, rest)) = fuzz::chosen(data) else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match entry % 3 {
        0 => fuzz::files::profile(text),
        1 => fuzz::files::yaml(text),
        _ => fuzz::files::words(text),
    }
});
