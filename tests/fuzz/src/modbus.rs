//! Modbus: frames of every framing from either side, and what is in them.

use protocols::modbus::frame::{Framing, Side, Step, pdu_bytes, step};
use protocols::modbus::pdu::{Request, Response};
use protocols::modbus::server::Bank;

const FRAMINGS: [Framing; 3] = [Framing::Tcp, Framing::Rtu, Framing::Ascii];

/// One byte chooses framing and side; then comes the stream.
pub fn frames(data: &[u8]) {
    let [which, stream @ ..] = data else { return };
    let framing = FRAMINGS[usize::from(which >> 1) % FRAMINGS.len()];
    let side = if which & 1 == 0 { Side::Requests } else { Side::Answers };
    let mut rest = stream;
    for _ in 0..64 {
        let used = match step(framing, side, rest) {
            Ok(Step::Frame { frame, used }) => {
                pdu(&pdu_bytes(framing, &frame));
                used
            }
            Ok(Step::Skip { used, .. }) => used,
            Ok(_) | Err(_) => return,
        };
        assert!(used > 0 && used <= rest.len(), "{framing:?}: {used} of {}", rest.len());
        rest = &rest[used..];
    }
}

/// A request that can be read is written as it was read, answered by any device, and its answer read.
pub fn pdu(bytes: &[u8]) {
    let Ok(request) = Request::decode(bytes) else { return };
    let encoded = request.encode();
    assert_eq!(Request::decode(&encoded), Ok(request.clone()), "{bytes:02x?}");
    let mut bank = Bank::default();
    if let Ok(answer) = bank.answer(&request) {
        let encoded = answer.encode(&request);
        assert_eq!(Response::decode(&request, &encoded), Ok(answer));
    }
    let _ = Response::decode(&request, bytes);
}
