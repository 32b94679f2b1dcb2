//! The master against peers that are late, noisy, slow, deaf, echoing and unplugged. Names in brackets are the
//! scenarios of `modbus_scenarios.json` that a test stands for, as far as they concern the wire.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocols::config::{Connection, Wire};
use protocols::modbus::Table;
use protocols::modbus::frame::{self, Framing, Inbox, Side, Step};
use protocols::modbus::pdu::{Request, Response};
use protocols::profile::SerialLine;
use protocols::value::Why;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_serial::{SerialPort, SerialStream};

use super::master::{CallError, Master, TURNAROUND, Target};
use crate::link::LinkError;

pub(super) const PATIENCE: Duration = Duration::from_millis(400);

/// What a peer does about one request.
#[derive(Clone, Debug)]
pub(super) enum Do {
    /// Answers as it should: register `n` of unit `u` holds `1000 u + n`, coil `n` is on when `n` is odd.
    Answer,
    /// Answers for another unit.
    AnswerAs(u8),
    /// Answers with a bit of the checksum turned.
    BadCrc,
    /// Answers one byte at a time.
    Drip,
    /// The first bytes of the answer.
    Cut(usize),
    /// The answer without its first bytes.
    Rest(usize),
    /// Refuses.
    Refuse(u8),
    /// These bytes.
    Raw(&'static [u8]),
    /// The request itself.
    Echo,
    /// Answers, but to the transaction so much later (Modbus TCP).
    Transaction(u16),
    Wait(u64),
    /// Sends these bytes for ever.
    Flood(&'static [u8]),
    Close,
}

fn pdu(unit: u8, request: &Request) -> Vec<u8> {
    let word = |address: u16| 1000 * u16::from(unit) + address;
    let response = match request {
        Request::Read { table, address, count } if table.is_bits() => {
            Response::Bits((*address..address + count).map(|address| address % 2 == 1).collect())
        }
        Request::Read { address, count, .. } => Response::Registers((*address..address + count).map(word).collect()),
        _ => Response::Written,
    };
    response.encode(request)
}

/// Plays `script`, one list for each request, the last one again and again; gives the requests back when the other
/// side is gone.
pub(super) async fn play<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    framing: Framing,
    script: &[Vec<Do>],
) -> Vec<(u8, Request)> {
    let mut inbox = Inbox::default();
    let mut seen = Vec::new();
    loop {
        let (transaction, unit, request) = match frame::step(framing, Side::Requests, inbox.bytes()).unwrap() {
            Step::Frame { frame, used } => {
                let found =
                    (frame.transaction, frame.unit, Request::decode(&frame::pdu_bytes(framing, &frame)).unwrap());
                inbox.forget(used);
                found
            }
            Step::Skip { used, .. } => {
                inbox.forget(used);
                continue;
            }
            Step::More => match stream.read(inbox.room()).await {
                Ok(0) | Err(_) => return seen,
                Ok(count) => {
                    inbox.filled(count);
                    continue;
                }
            },
        };
        let steps = script.get(seen.len()).or(script.last()).unwrap();
        seen.push((unit, request.clone()));
        let adu = |transaction: u16, unit: u8, pdu: &[u8]| {
            let mut out = Vec::new();
            frame::encode(framing, transaction, unit, &mut out, |out| out.extend(pdu));
            out
        };
        let good = adu(transaction, unit, &pdu(unit, &request));
        for step in steps {
            let bytes = match step {
                Do::Answer => good.clone(),
                Do::AnswerAs(unit) => adu(transaction, *unit, &pdu(*unit, &request)),
                Do::BadCrc => {
                    let mut bytes = good.clone();
                    *bytes.last_mut().unwrap() ^= 1;
                    bytes
                }
                Do::Drip => {
                    for byte in &good {
                        let _ = stream.write_all(&[*byte]).await;
                        sleep(Duration::from_millis(2)).await;
                    }
                    continue;
                }
                Do::Cut(length) => good[..*length].to_vec(),
                Do::Rest(length) => good[*length..].to_vec(),
                Do::Refuse(code) => adu(transaction, unit, &[request.function() | 0x80, *code]),
                Do::Raw(bytes) => bytes.to_vec(),
                Do::Echo => adu(transaction, unit, &request.encode()),
                Do::Transaction(by) => adu(transaction.wrapping_add(*by), unit, &pdu(unit, &request)),
                Do::Wait(ms) => {
                    sleep(Duration::from_millis(*ms)).await;
                    continue;
                }
                Do::Flood(bytes) => {
                    let bytes = bytes.repeat(200);
                    while stream.write_all(&bytes).await.is_ok() {}
                    return seen;
                }
                Do::Close => return seen,
            };
            let _ = stream.write_all(&bytes).await;
        }
    }
}

pub(super) fn connection(wire: Wire) -> Connection {
    Connection {
        name: "w".to_owned(),
        protocol: protocols::profile::Protocol::Modbus,
        wire,
        timeout: PATIENCE,
        delay: Duration::ZERO,
        echo: false,
        in_flight: 1,
    }
}

pub(super) fn target(unit: u8) -> Target {
    Target { unit, timeout: PATIENCE, delay: Duration::ZERO }
}

pub(super) fn read(address: u16, count: u16) -> Request {
    Request::Read { table: Table::Holding, address, count }
}

pub(super) fn words(unit: u16, address: u16, count: u16) -> Result<Response, CallError> {
    Ok(Response::Registers((address..address + count).map(|address| 1000 * unit + address).collect()))
}

/// A master on a pseudo terminal, and the peer at its other end. The near end stays open with the returned stream, so
/// that closing the master is not the end of the terminal.
fn serial(script: Vec<Vec<Do>>) -> (Master, JoinHandle<Vec<(u8, Request)>>, SerialStream) {
    serial_with(script, |_| {})
}

fn serial_with(
    script: Vec<Vec<Do>>,
    change: impl FnOnce(&mut Connection),
) -> (Master, JoinHandle<Vec<(u8, Request)>>, SerialStream) {
    let (peer, port) = SerialStream::pair().unwrap();
    let line = SerialLine { baud: 115_200, ..SerialLine::default() };
    let mut connection = connection(Wire::Serial { port: port.name().unwrap(), line });
    change(&mut connection);
    let peer = tokio::spawn(async move { play(peer, Framing::Rtu, &script).await });
    (Master::new(Arc::new(connection)), peer, port)
}

/// A master on a TCP connection, and a peer that plays the next script on each connection it accepts.
pub(super) async fn tcp(scripts: Vec<Vec<Vec<Do>>>, framing: Framing, in_flight: u16) -> (Master, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        for script in scripts {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            play(stream, framing, &script).await;
        }
    });
    let wire = match framing {
        Framing::Tcp => Wire::Tcp(address),
        Framing::Rtu => Wire::RtuOverTcp(address),
        Framing::Ascii => Wire::AsciiOverTcp(address),
    };
    (Master::new(Arc::new(Connection { in_flight, ..connection(wire) })), accepted)
}

#[tokio::test]
async fn a_serial_answer_is_found_whatever_comes_with_it() {
    for (name, steps) in [
        ("plain", vec![Do::Answer]),
        ("byte by byte", vec![Do::Drip]),
        ("noise before", vec![Do::Raw(&[0xFF, 0, 0x55]), Do::Answer]),
        ("noise that begins like a long frame", vec![Do::Raw(&[7, 3, 200]), Do::Answer]),
        ("[frame/wrong_unit] another unit first", vec![Do::AnswerAs(9), Do::Answer]),
        ("another function first", vec![Do::Raw(&[1, 0x84, 2, 0xC2, 0xC1]), Do::Answer]),
        ("a damaged one first", vec![Do::BadCrc, Do::Answer]),
        ("a cut one first, then quiet", vec![Do::Cut(6), Do::Wait(90), Do::Answer]),
        ("just in time", vec![Do::Wait(150), Do::Answer]),
        ("two halves", vec![Do::Wait(20), Do::Drip]),
    ] {
        let (mut master, _peer, _port) = serial(vec![steps]);
        assert_eq!(master.call(target(1), &read(5, 4)).await, words(1, 5, 4), "{name}");
        assert_eq!(master.call(target(1), &read(70, 4)).await, words(1, 70, 4), "{name}, again");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_never_a_value() {
    let mut cases = JoinSet::new();
    for (name, steps, expected, why) in [
        ("silence", vec![], CallError::Timeout, Why::Timeout),
        ("[frame/wrong_unit]", vec![Do::AnswerAs(9)], CallError::Timeout, Why::Timeout),
        ("cut off", vec![Do::Cut(8)], CallError::Timeout, Why::Timeout),
        ("a checksum that is wrong", vec![Do::BadCrc], CallError::Crc, Why::Crc),
        ("a refusal", vec![Do::Refuse(2)], CallError::Exception(2), Why::Exception(2)),
        ("noise", vec![Do::Raw(&[0xAA; 300])], CallError::Timeout, Why::Timeout),
        (
            "fewer registers than asked for",
            vec![Do::Raw(&[1, 3, 2, 0, 7, 0xF9, 0x86])],
            CallError::Malformed("it holds fewer values than were asked for"),
            Why::Decode,
        ),
    ] {
        cases.spawn(async move {
            let (mut master, _peer, _port) = serial(vec![steps, vec![Do::Answer]]);
            let result = master.call(target(1), &read(5, 4)).await;
            assert_eq!(result, Err(expected.clone()), "{name}");
            assert_eq!(result.unwrap_err().why(), why, "{name}");
            assert_eq!(master.call(target(1), &read(70, 4)).await, words(1, 70, 4), "after {name}");
        });
    }
    cases.join_all().await;
}

#[tokio::test]
async fn a_damaged_answer_is_told_before_the_time_is_up() {
    let (mut master, _peer, _port) = serial(vec![vec![Do::BadCrc]]);
    let patient = Target { timeout: Duration::from_secs(20), ..target(1) };
    let result = timeout(Duration::from_secs(10), master.call(patient, &read(5, 4))).await.unwrap();
    assert_eq!(result, Err(CallError::Crc));
    assert_eq!(master.counters().dropped.crc, 1);
}

/// [frame/late_response], as `tokio-modbus` fails it: same unit, function and length.
#[tokio::test]
async fn a_late_serial_answer_is_not_taken_for_the_next_one() {
    let mut cases = JoinSet::new();
    for (late_ms, between) in [(450, false), (700, false), (950, false), (450, true), (950, true)] {
        cases.spawn(async move {
            let (mut master, _peer, _port) = serial(vec![vec![Do::Wait(late_ms), Do::Answer], vec![Do::Answer]]);
            assert_eq!(master.call(target(1), &read(0, 2)).await, Err(CallError::Timeout));
            assert!(master.owing(1).is_some());
            if between {
                // Another unit does not have to wait for it, and is not fooled by it.
                assert!(master.owing(2).is_none());
                let patient = Target { timeout: PATIENCE * 4, ..target(2) };
                assert_eq!(master.call(patient, &read(0, 2)).await, words(2, 0, 2));
            }
            assert_eq!(master.call(target(1), &read(100, 2)).await, words(1, 100, 2), "{late_ms} ms late");
            let dropped = master.counters().dropped;
            assert_eq!((dropped.late, dropped.unit), if between { (0, 1) } else { (1, 0) }, "{late_ms} ms late");
        });
    }
    cases.join_all().await;
}

#[tokio::test]
async fn a_late_answer_to_a_write_is_not_taken_for_the_next_one() {
    let (mut master, _peer, _port) = serial(vec![vec![Do::Wait(450), Do::Answer], vec![]]);
    let write = |address| Request::WriteRegister { address, value: 1 };
    assert_eq!(master.call(target(1), &write(1)).await, Err(CallError::Timeout));
    assert_eq!(master.call(target(1), &write(2)).await, Err(CallError::Timeout));
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_that_fools_the_next() {
    let (mut master, _peer, _port) = serial(vec![vec![Do::Wait(150), Do::Answer], vec![Do::Answer]]);
    assert!(timeout(Duration::from_millis(60), master.call(target(1), &read(0, 2))).await.is_err());
    assert_eq!(master.call(target(1), &read(100, 2)).await, words(1, 100, 2));
    assert_eq!(master.counters().dropped.late, 1);

    let (mut master, _) = tcp(vec![vec![vec![Do::Wait(150), Do::Answer], vec![Do::Answer]]], Framing::Tcp, 1).await;
    assert!(timeout(Duration::from_millis(60), master.call(target(1), &read(0, 2))).await.is_err());
    assert_eq!(master.call(target(1), &read(100, 2)).await, words(1, 100, 2));
    assert_eq!(master.counters().dropped.late, 1);
}

/// [frame/local_echo]
#[tokio::test]
async fn an_echo_is_taken_away_when_configured_and_told_otherwise() {
    let write = Request::WriteRegister { address: 3, value: 8 };
    let echoing = vec![vec![Do::Echo, Do::Wait(20), Do::Answer]];
    let (mut master, _peer, _port) = serial_with(echoing.clone(), |connection| connection.echo = true);
    assert_eq!(master.call(target(1), &read(5, 4)).await, words(1, 5, 4));
    assert_eq!(master.call(target(1), &write).await, Ok(Response::Written));
    let noisy = vec![vec![Do::Raw(&[0]), Do::Echo, Do::Raw(&[0xFF]), Do::Answer]];
    let (mut master, _peer, _port) = serial_with(noisy, |connection| connection.echo = true);
    assert_eq!(master.call(target(1), &read(5, 4)).await, words(1, 5, 4));
    // The device is away: its echo is not its answer.
    let (mut master, _peer, _port) = serial_with(vec![vec![Do::Echo]], |connection| connection.echo = true);
    assert_eq!(master.call(target(1), &write).await, Err(CallError::Timeout));

    let (mut master, _peer, _port) = serial(echoing);
    let error = master.call(target(1), &read(5, 4)).await.unwrap_err();
    assert_eq!((error.clone(), error.why()), (CallError::Echo, Why::Config));
    assert!(error.to_string().contains("echo: true"));
    assert_eq!(master.call(target(1), &write).await, Err(CallError::Echo));
}

#[tokio::test]
async fn a_write_that_was_answered_twice_gives_the_echo_away() {
    let (mut master, _peer, _port) = serial(vec![vec![Do::Echo, Do::Answer]]);
    let write = Request::WriteRegister { address: 3, value: 8 };
    assert_eq!(master.call(target(1), &write).await, Ok(Response::Written));
    sleep(Duration::from_millis(30)).await;
    let _ = master.call(target(2), &write).await;
    assert_eq!(master.call(target(1), &write).await, Err(CallError::Echo));
}

/// [write/ack_before_success]
#[tokio::test]
async fn a_write_is_done_when_the_device_says_so() {
    let (mut master, _peer, _port) = serial(vec![vec![Do::Wait(200), Do::Refuse(3)]]);
    let began = Instant::now();
    let write = Request::WriteRegisters { address: 3, values: vec![1, 2] };
    assert_eq!(master.call(target(1), &write).await, Err(CallError::Exception(3)));
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_broadcast_waits_for_nobody_but_gives_time() {
    let (mut master, peer, port) = serial(vec![vec![], vec![Do::Answer]]);
    let began = Instant::now();
    let write = Request::WriteRegister { address: 3, value: 8 };
    let patient = Target { timeout: Duration::from_secs(20), ..target(0) };
    assert_eq!(master.call(patient, &write).await, Ok(Response::Written));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(master.call(patient, &read(0, 1)).await, Err(CallError::Broadcast));
    assert_eq!(master.call(target(1), &read(0, 1)).await, words(1, 0, 1));
    assert!(began.elapsed() >= TURNAROUND);
    let counters = master.counters();
    assert_eq!((counters.requests, counters.answers), (2, 1));
    drop((master, port));
    assert_eq!(peer.await.unwrap(), vec![(0, write), (1, read(0, 1))]);
}

/// [multi/two_units_same_port], and a third unit that is dead.
#[tokio::test]
async fn units_on_one_port_are_not_mixed_and_do_not_hold_one_another_up() {
    let (mut master, _peer, _port) = serial(vec![vec![], vec![Do::Answer]]);
    assert_eq!(master.call(target(3), &read(0, 1)).await, Err(CallError::Timeout));
    let began = Instant::now();
    for _ in 0..3 {
        for unit in [1, 2] {
            assert_eq!(master.call(target(unit), &read(0, 1)).await, words(u16::from(unit), 0, 1));
        }
    }
    assert!(began.elapsed() < PATIENCE);
}

/// [serial/usb_replug]
#[tokio::test]
async fn a_port_that_was_unplugged_is_opened_again_under_its_link() {
    let folder = std::env::temp_dir().join(format!("tidegate-replug-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let name: PathBuf = folder.join("adapter");
    let wire = Wire::Serial { port: name.to_str().unwrap().to_owned(), line: SerialLine::default() };
    let mut master = Master::new(Arc::new(connection(wire)));
    assert!(matches!(master.call(target(1), &read(0, 1)).await, Err(CallError::Gone(LinkError::NoPort { .. }))));
    for _ in 0..2 {
        let (near, far) = SerialStream::pair().unwrap();
        std::os::unix::fs::symlink(far.name().unwrap(), &name).unwrap();
        let peer = tokio::spawn(async move { play(near, Framing::Rtu, &[vec![Do::Answer], vec![Do::Close]]).await });
        assert_eq!(master.call(target(1), &read(0, 1)).await, words(1, 0, 1));
        drop(far);
        // Pulled out while an answer is waited for; the link in /dev goes with it.
        std::fs::remove_file(&name).unwrap();
        let error = master.call(target(1), &read(0, 1)).await.unwrap_err();
        assert_eq!(error.why(), Why::Offline, "{error}");
        assert!(!master.is_open());
        peer.await.unwrap();
    }
    assert_eq!(master.counters().reopened, 1);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// [tcp/transaction_mismatch]
#[tokio::test]
async fn a_tcp_answer_is_known_by_its_transaction() {
    for (name, steps, expected) in [
        ("plain", vec![Do::Answer], words(1, 5, 4)),
        ("byte by byte", vec![Do::Drip], words(1, 5, 4)),
        ("another transaction first", vec![Do::Transaction(7), Do::Answer], words(1, 5, 4)),
        ("another transaction alone", vec![Do::Transaction(7)], Err(CallError::Timeout)),
        ("another unit first", vec![Do::AnswerAs(2), Do::Answer], words(1, 5, 4)),
        ("a refusal", vec![Do::Refuse(4)], Err(CallError::Exception(4))),
        ("cut off", vec![Do::Cut(9)], Err(CallError::Timeout)),
    ] {
        let (mut master, _) = tcp(vec![vec![steps]], Framing::Tcp, 1).await;
        assert_eq!(master.call(target(1), &read(5, 4)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_late_tcp_answer_is_dropped_on_the_same_connection() {
    let script = vec![vec![Do::Wait(450), Do::Answer], vec![Do::Answer]];
    let (mut master, accepted) = tcp(vec![script], Framing::Tcp, 1).await;
    assert_eq!(master.call(target(1), &read(0, 2)).await, Err(CallError::Timeout));
    assert_eq!(master.call(target(1), &read(100, 2)).await, words(1, 100, 2));
    assert_eq!((accepted.load(Ordering::Relaxed), master.counters().dropped.late), (1, 1));
}

/// [tcp/protocol_id]
#[tokio::test]
async fn a_peer_that_is_no_modbus_tcp_has_its_connection_reset() {
    let script = vec![vec![Do::Raw(&[0, 1, 0, 1, 0, 5, 1, 3, 2, 0, 0])]];
    let (mut master, accepted) = tcp(vec![script, vec![vec![Do::Answer]]], Framing::Tcp, 1).await;
    let error = master.call(target(1), &read(0, 1)).await.unwrap_err();
    assert!(matches!(error, CallError::NoModbus(_)), "{error}");
    assert!(!master.is_open());
    assert_eq!(master.call(target(1), &read(0, 1)).await, words(1, 0, 1));
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

/// [tcp/single_client]
#[tokio::test]
async fn three_units_behind_one_address_share_one_connection() {
    let (mut master, accepted) = tcp(vec![vec![vec![Do::Answer]]], Framing::Tcp, 1).await;
    for unit in [1, 2, 3, 1, 2, 3] {
        assert_eq!(master.call(target(unit), &read(0, 1)).await, words(u16::from(unit), 0, 1));
    }
    assert_eq!((accepted.load(Ordering::Relaxed), master.counters().reopened), (1, 0));
}

/// [tcp/idle_close], right before the request and right behind it.
#[tokio::test]
async fn a_connection_closed_while_idle_is_opened_again_without_a_word() {
    for framing in [Framing::Tcp, Framing::Rtu] {
        let closing = vec![vec![Do::Answer, Do::Wait(30), Do::Close]];
        let hasty = vec![vec![Do::Answer], vec![Do::Close]];
        let (mut master, accepted) = tcp(vec![closing, hasty, vec![vec![Do::Answer]]], framing, 1).await;
        assert_eq!(master.call(target(1), &read(0, 1)).await, words(1, 0, 1));
        sleep(Duration::from_millis(100)).await;
        assert_eq!(master.call(target(1), &read(1, 1)).await, words(1, 1, 1));
        assert_eq!(master.call(target(1), &read(2, 1)).await, words(1, 2, 1));
        assert_eq!((accepted.load(Ordering::Relaxed), master.counters().reopened), (3, 2));
        assert_eq!(master.counters().timeouts, 0);
    }
}

#[tokio::test]
async fn a_write_is_never_sent_twice() {
    let (mut master, accepted) =
        tcp(vec![vec![vec![Do::Answer], vec![Do::Close]], vec![vec![Do::Answer]]], Framing::Tcp, 1).await;
    assert_eq!(master.call(target(1), &read(0, 1)).await, words(1, 0, 1));
    let write = Request::WriteRegister { address: 3, value: 8 };
    let error = master.call(target(1), &write).await.unwrap_err();
    assert_eq!(error.why(), Why::Offline);
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

/// [tcp/connection_refused]
#[tokio::test]
async fn a_peer_that_is_down_is_told_at_once_and_found_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut master = Master::new(Arc::new(connection(Wire::Tcp(address.to_string()))));
    for _ in 0..2 {
        let error = master.call(target(1), &read(0, 1)).await.unwrap_err();
        assert_eq!(error, CallError::Gone(LinkError::Refused { address: address.to_string() }));
    }
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { play(listener.accept().await.unwrap().0, Framing::Tcp, &[vec![Do::Answer]]).await });
    assert_eq!(master.call(target(1), &read(0, 1)).await, words(1, 0, 1));
}

#[tokio::test]
async fn rtu_over_tcp_is_opened_anew_after_a_time_out() {
    let late = vec![vec![Do::Wait(550), Do::Answer]];
    let (mut master, accepted) = tcp(vec![late, vec![vec![Do::Answer]]], Framing::Rtu, 1).await;
    assert_eq!(master.call(target(1), &read(0, 2)).await, Err(CallError::Timeout));
    assert_eq!(master.call(target(1), &read(100, 2)).await, words(1, 100, 2));
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_opened_anew() {
    let dead = vec![vec![Do::Answer], vec![]];
    let (mut master, accepted) = tcp(vec![dead, vec![vec![Do::Answer]]], Framing::Tcp, 1).await;
    let quick = Target { timeout: Duration::from_millis(50), ..target(1) };
    assert_eq!(master.call(target(1), &read(0, 1)).await, words(1, 0, 1));
    for _ in 0..super::master::SILENT_TCP {
        assert_eq!(master.call(quick, &read(0, 1)).await, Err(CallError::Timeout));
    }
    assert_eq!(master.call(target(1), &read(0, 1)).await, words(1, 0, 1));
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_window_of_requests_is_answered_in_any_order() {
    // Unit 3 is dead, unit 4 refuses, and answers come behind foreign ones.
    let script: Vec<Vec<Do>> = (0..40u16)
        .map(|index| match index % 5 {
            3 => vec![],
            4 => vec![Do::Refuse(6)],
            1 => vec![Do::Transaction(500), Do::Answer],
            _ => vec![Do::Answer],
        })
        .collect();
    let (mut master, accepted) = tcp(vec![script], Framing::Tcp, 16).await;
    let calls: Vec<_> = (0..40u16).map(|index| (target((index % 5) as u8), read(index, 3))).collect();
    let results = master.call_many(&calls).await;
    for (index, result) in (0u16..).zip(results) {
        let expected = match index % 5 {
            3 => Err(CallError::Timeout),
            4 => Err(CallError::Exception(6)),
            unit => words(unit, index, 3),
        };
        assert_eq!(result, expected, "{index}");
    }
    let counters = master.counters();
    assert_eq!((counters.requests, counters.answers, counters.timeouts, counters.exceptions), (40, 32, 8, 8));
    assert_eq!((counters.dropped.late, accepted.load(Ordering::Relaxed)), (8, 1));
}

#[tokio::test]
async fn a_request_beyond_the_limits_is_not_sent() {
    let (mut master, _peer, _port) = serial(vec![vec![Do::Answer]]);
    let error = master.call(target(1), &read(0, 126)).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.why()), ("function 3 carries 1 to 125 values, not 126", Why::Config));
    assert_eq!(master.counters().requests, 0);
}

#[tokio::test]
async fn a_peer_that_never_stops_talking_does_not_hold_a_call_up() {
    let foreign = Do::Flood(&[0, 0, 0, 0, 0, 5, 1, 3, 2, 0, 0]);
    let (mut on_tcp, _) = tcp(vec![vec![vec![foreign.clone()]]; 9], Framing::Tcp, 1).await;
    let (mut window, _) = tcp(vec![vec![vec![foreign]]; 9], Framing::Tcp, 4).await;
    let (mut over_tcp, _) = tcp(vec![vec![vec![Do::Flood(&[0xA5, 1, 3])]]; 9], Framing::Rtu, 1).await;
    let (mut on_serial, _peer, _port) = serial(vec![vec![Do::Flood(&[1, 3, 0xA5])]]);
    let all = async {
        for _ in 0..2 {
            let request = read(0, 1);
            for master in [&mut on_tcp, &mut over_tcp, &mut on_serial] {
                assert_eq!(master.call(target(1), &request).await, Err(CallError::Timeout));
            }
            let results = window.call_many(&[(target(1), request.clone()), (target(1), request)]).await;
            assert_eq!(results, vec![Err(CallError::Timeout), Err(CallError::Timeout)]);
        }
    };
    timeout(Duration::from_secs(60), all).await.unwrap();
}
