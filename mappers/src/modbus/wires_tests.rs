//! The master on ASCII wires and in datagrams, against peers that are noisy, cut off, late and away.

use std::sync::Arc;
use std::time::Duration;

use protocols::config::{Connection, Wire};
use protocols::modbus::frame::{self, Framing};
use protocols::modbus::pdu::{Request, Response};
use protocols::profile::SerialLine;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio_serial::{SerialPort, SerialStream};

use super::master::{CallError, Master, Target};
use super::nasty::{Do, connection, play, read, target, tcp, words};

/// A master with ASCII frames on a pseudo terminal, and the peer at its other end.
fn ascii(script: Vec<Vec<Do>>) -> (Master, JoinHandle<Vec<(u8, Request)>>, SerialStream) {
    let (peer, port) = SerialStream::pair().unwrap();
    let line = SerialLine { baud: 115_200, ..SerialLine::default() };
    let connection = connection(Wire::AsciiSerial { port: port.name().unwrap(), line });
    let peer = tokio::spawn(async move { play(peer, Framing::Ascii, &script).await });
    (Master::new(Arc::new(connection)), peer, port)
}

#[tokio::test]
async fn an_ascii_answer_is_found_whatever_comes_with_it() {
    for (name, steps) in [
        ("plain", vec![Do::Answer]),
        ("byte by byte", vec![Do::Drip]),
        ("noise before", vec![Do::Raw(b"\xFF\0x\r\n"), Do::Answer]),
        ("a lone colon before", vec![Do::Raw(b":"), Do::Answer]),
        ("half a frame before", vec![Do::Cut(7), Do::Answer]),
        ("half a frame, then quiet", vec![Do::Cut(9), Do::Wait(90), Do::Answer]),
        ("a frame with noise inside", vec![Do::Raw(b":0103~04\r\n"), Do::Answer]),
        ("another unit first", vec![Do::AnswerAs(9), Do::Answer]),
        // The sum of 01 84 02 is 87, its two's complement 79 (Serial Line guide V1.02, section 6.2.1).
        ("another function first", vec![Do::Raw(b":01840279\r\n"), Do::Answer]),
        ("a wrong sum first", vec![Do::Raw(b":01030400050006FF\r\n"), Do::Answer]),
        ("a pause inside", vec![Do::Cut(8), Do::Wait(120), Do::Rest(8)]),
    ] {
        let (mut master, _peer, _port) = ascii(vec![steps]);
        assert_eq!(master.call(target(1), &read(5, 4)).await, words(1, 5, 4), "{name}");
        assert_eq!(master.call(target(1), &read(70, 4)).await, words(1, 70, 4), "{name}, again");
    }
}

#[tokio::test]
async fn what_is_no_ascii_answer_is_never_a_value() {
    for (name, steps, expected) in [
        ("silence", vec![], CallError::Timeout),
        ("another unit", vec![Do::AnswerAs(9)], CallError::Timeout),
        ("half a frame", vec![Do::Cut(8)], CallError::Timeout),
        ("all but the end", vec![Do::Cut(18)], CallError::Timeout),
        ("an RTU answer", vec![Do::Raw(&[1, 3, 2, 0, 7, 0xF9, 0x86])], CallError::Timeout),
        ("noise", vec![Do::Raw(&[b'A'; 900])], CallError::Timeout),
        ("a wrong sum", vec![Do::Raw(b":01030400050006FF\r\n")], CallError::Crc),
        ("a refusal", vec![Do::Refuse(2)], CallError::Exception(2)),
    ] {
        let (mut master, _peer, _port) = ascii(vec![steps, vec![Do::Answer]]);
        assert_eq!(master.call(target(1), &read(5, 2)).await, Err(expected), "{name}");
        assert_eq!(master.call(target(1), &read(70, 2)).await, words(1, 70, 2), "after {name}");
    }
}

#[tokio::test]
async fn ascii_writes_are_answered_and_everybody_can_be_written() {
    let (mut master, peer, port) = ascii(vec![vec![Do::Answer], vec![], vec![Do::Answer]]);
    let write = Request::WriteRegister { address: 3, value: 0xBEEF };
    assert_eq!(master.call(target(1), &write).await, Ok(Response::Written));
    assert_eq!(master.call(target(0), &write).await, Ok(Response::Written));
    assert_eq!(master.call(target(0), &read(0, 1)).await, Err(CallError::Broadcast));
    assert_eq!(master.call(target(1), &read(7, 1)).await, words(1, 7, 1));
    drop((master, port));
    let seen = peer.await.unwrap();
    assert_eq!(seen, [(1, write.clone()), (0, write), (1, read(7, 1))]);
}

#[tokio::test]
async fn ascii_over_tcp_is_opened_anew_after_a_time_out() {
    let late = vec![vec![Do::Wait(550), Do::Answer]];
    let (mut master, accepted) = tcp(vec![late, vec![vec![Do::Answer]]], Framing::Ascii, 1).await;
    assert_eq!(master.call(target(1), &read(0, 2)).await, Err(CallError::Timeout));
    assert_eq!(master.call(target(1), &read(100, 2)).await, words(1, 100, 2));
    assert_eq!(accepted.load(std::sync::atomic::Ordering::Relaxed), 2);
}

/// A device on UDP as a test plays it, and a master for it.
struct Datagrams {
    socket: UdpSocket,
    master: Master,
}

impl Datagrams {
    async fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let wire = Wire::Udp(socket.local_addr().unwrap().to_string());
        Self { socket, master: Master::new(Arc::new(Connection { in_flight: 1, ..connection(wire) })) }
    }
}

/// One request, as it arrived: transaction, and who sent it.
async fn hear(socket: &UdpSocket) -> (u16, std::net::SocketAddr) {
    let mut room = [0; 300];
    let (length, from) = socket.recv_from(&mut room).await.unwrap();
    // One transaction in a datagram: what the header counts is all there is.
    assert_eq!(length, 6 + usize::from(u16::from_be_bytes([room[4], room[5]])));
    (u16::from_be_bytes([room[0], room[1]]), from)
}

fn answer(transaction: u16, word: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let [high, low] = word.to_be_bytes();
    frame::encode(Framing::Tcp, transaction, 1, &mut out, |out| out.extend([3, 2, high, low]));
    out
}

fn value(word: u16) -> Result<Response, CallError> {
    Ok(Response::Registers(vec![word]))
}

#[tokio::test]
async fn a_late_datagram_is_never_the_answer_to_the_next_request() {
    let Datagrams { socket, mut master } = Datagrams::new().await;
    let device = async {
        let (lost, from) = hear(&socket).await;
        let (second, _) = hear(&socket).await;
        assert_ne!(lost, second);
        for bytes in [answer(lost, 111), answer(second, 222), answer(second, 333)] {
            socket.send_to(&bytes, from).await.unwrap();
        }
        let (third, _) = hear(&socket).await;
        socket.send_to(&answer(third, 444), from).await.unwrap();
    };
    let gateway = async {
        assert_eq!(master.call(target(1), &read(0, 1)).await, Err(CallError::Timeout));
        assert_eq!(master.call(target(1), &read(0, 1)).await, value(222));
        assert_eq!(master.call(target(1), &read(0, 1)).await, value(444));
    };
    tokio::join!(device, gateway);
    assert_eq!(master.counters().dropped.late, 2);
}

#[tokio::test]
async fn a_datagram_that_is_no_answer_is_passed_over() {
    let whole = |transaction: u16| answer(transaction, 7);
    for (name, bytes) in [
        ("nothing in it", vec![]),
        ("no Modbus", b"HTTP/1.1 400 Bad Request".to_vec()),
        ("half a frame", whole(1)[..8].to_vec()),
        ("a length no frame has", vec![0, 1, 0, 0, 0xFF, 0xFF, 1, 3]),
        ("a long one", vec![0xA5; 1400]),
    ] {
        let Datagrams { socket, mut master } = Datagrams::new().await;
        let device = async {
            let (transaction, from) = hear(&socket).await;
            socket.send_to(&bytes, from).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.send_to(&whole(transaction), from).await.unwrap();
        };
        let request = read(0, 1);
        let (found, ()) = tokio::join!(master.call(target(1), &request), device);
        assert_eq!(found, value(7), "{name}");
    }
}

#[tokio::test]
async fn a_device_on_udp_that_is_away_times_out_and_may_come_back() {
    let Datagrams { socket, mut master } = Datagrams::new().await;
    let address = socket.local_addr().unwrap();
    drop(socket);
    let quick = Target { timeout: Duration::from_millis(60), ..target(1) };
    for _ in 0..6 {
        assert_eq!(master.call(quick, &read(0, 1)).await, Err(CallError::Timeout));
    }
    let socket = UdpSocket::bind(address).await.unwrap();
    let device = async {
        let (transaction, from) = hear(&socket).await;
        socket.send_to(&answer(transaction, 9), from).await.unwrap();
    };
    let request = read(0, 1);
    let (found, ()) = tokio::join!(master.call(target(1), &request), device);
    assert_eq!(found, value(9));
}
