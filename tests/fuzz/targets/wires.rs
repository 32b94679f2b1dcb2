//! Serial and Modbus.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match fuzz::chosen(data) {
        Some((entry, rest)) => match entry % 4 {
            0 | 1 => fuzz::serial::stream(rest),
            2 => fuzz::modbus::frames(rest),
            _ => {
                fuzz::modbus::pdu(rest);
                fuzz::serial::texts(rest);
            }
        },
        None => {}
    }
});
