//! Bluetooth.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match fuzz::chosen(data) {
        Some((entry, rest)) => match entry % 4 {
            0 => fuzz::air::advertisement(rest),
            1 => fuzz::air::packet(rest),
            2 => fuzz::air::value(rest),
            _ => fuzz::air::host(rest),
        },
        None => {}
    }
});
