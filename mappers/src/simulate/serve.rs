//! Sockets and terminals of the simulator.
//!
//! In: bytes. Out: bytes, as the plant and its faults have it. Must never hold the plant's lock across a wait.

use std::time::Duration;

use protocols::modbus::frame::{self, Framing, Inbox, Side, Step, TCP_BYTES};
use protocols::modbus::pdu::{Request, refusal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_serial::SerialStream;

use super::{CLIENTS, Handle};

/// A terminal that nobody has open is looked at this often.
const VACANT: Duration = Duration::from_millis(50);

/// Serves every client of a listener.
pub(super) async fn listen(listener: TcpListener, framing: Framing, handle: Handle) {
    let mut clients = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: some clients have to go first.
            sleep(VACANT).await;
            continue;
        };
        while clients.try_join_next().is_some() {}
        if clients.len() >= CLIENTS {
            continue;
        }
        handle.lock().counts.connections += 1;
        let _ = stream.set_nodelay(true);
        let handle = handle.clone();
        clients.spawn(async move { converse(&handle, framing, stream).await });
    }
}

/// Serves a terminal, whoever opens it next.
pub(super) async fn terminal(mut near: SerialStream, framing: Framing, handle: Handle) {
    loop {
        converse(&handle, framing, &mut near).await;
        // Nobody has it open: reads fail until somebody does.
        sleep(VACANT).await;
    }
}

/// Answers datagrams, one after the other. What is no frame is passed over; a cut connection is an answer that is lost.
pub(super) async fn datagrams(socket: UdpSocket, handle: Handle) {
    let mut room = [0; TCP_BYTES];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut room).await else {
            // Somebody's port refused an answer, or the network is away.
            sleep(VACANT).await;
            continue;
        };
        let Ok(Step::Frame { frame, .. }) = frame::tcp(room.get(..length).unwrap_or_default()) else { continue };
        let reply = reply(&handle, Framing::Tcp, frame.transaction, frame.unit, frame.pdu);
        let Some(reply) = reply.filter(|reply| !reply.disconnect) else { continue };
        if let Some(delay) = reply.delay {
            sleep(delay).await;
        }
        let _ = socket.send_to(&reply.bytes, from).await;
    }
}

/// What to send for one request.
struct Reply {
    bytes: Vec<u8>,
    delay: Option<Duration>,
    disconnect: bool,
}

/// Answers requests until the other side is gone, the stream cannot be followed, or a fault ends it.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(handle: &Handle, framing: Framing, mut stream: S) {
    let mut inbox = Inbox::default();
    loop {
        let (used, reply) = match frame::step(framing, Side::Requests, inbox.bytes()) {
            Err(_) => return,
            Ok(Step::Frame { frame, used }) => {
                (used, reply(handle, framing, frame.transaction, frame.unit, &frame::pdu_bytes(framing, &frame)))
            }
            Ok(Step::Skip { used, .. }) => (used, None),
            Ok(Step::More) => match stream.read(inbox.room()).await {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    inbox.filled(count);
                    continue;
                }
            },
        };
        inbox.forget(used);
        let Some(reply) = reply else { continue };
        if let Some(delay) = reply.delay {
            sleep(delay).await;
        }
        if reply.disconnect || stream.write_all(&reply.bytes).await.is_err() {
            return;
        }
    }
}

fn reply(handle: &Handle, framing: Framing, transaction: u16, unit: u8, pdu: &[u8]) -> Option<Reply> {
    let request = Request::decode(pdu);
    let (answer, fate) = handle.lock().answer(framing, unit, request.as_ref().map_err(|exception| *exception));
    let mut bytes = Vec::new();
    let transaction = if fate.crc { transaction.wrapping_add(1) } else { transaction };
    frame::encode(framing, transaction, unit, &mut bytes, |out| match (&answer, &request) {
        (Some(Ok(response)), Ok(request)) => response.encode_into(request, out),
        (Some(Err(exception)), _) => out.extend(refusal(pdu.first().copied().unwrap_or_default(), *exception)),
        _ => {}
    });
    // The last byte of the sum, or its last digit.
    let sum = match framing {
        Framing::Tcp => None,
        Framing::Rtu => bytes.last_mut(),
        Framing::Ascii => bytes.iter_mut().rev().nth(2),
    };
    if let Some(last) = sum.filter(|_| fate.crc) {
        // Another digit is a digit, and another byte a byte.
        *last = if *last == b'0' { b'1' } else { b'0' };
    }
    let silent = answer.is_none() || fate.silence;
    (!silent || fate.disconnect).then_some(Reply { bytes, delay: fate.delay, disconnect: fate.disconnect })
}
