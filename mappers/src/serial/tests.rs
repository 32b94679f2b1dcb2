//! Serial ports against devices on pseudo terminals and sockets, that talk, stall, and say the wrong thing.

use std::sync::Arc;
use std::time::Duration;

use protocols::config::{Connection, Device, Wire};
use protocols::poll::Job;
use protocols::profile::{Library, Protocol, SerialLine, Wish};
use protocols::value::{Quality, Why};
use protocols::yaml::{Complaints, Place};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_serial::{SerialPort as _, SerialStream};

use super::port::SerialPort;
use crate::port::{CallError, Port, Push, StepEnd};

const LIMIT: Duration = Duration::from_secs(10);

const PROFILE: &str = r#"
schema: 1
id: a.b
version: 1.0.0
meta: {vendor: A, model: B}
serial:
  framing: {type: line, end: "\n", strip: "\r", max: 40, gap: 200ms}
  messages:
    set: {match: {regex: "^SP=(?P<sp>[\\d.]+)$"}}
    no: {match: {regex: "^ERR"}}
    flow: {match: {regex: "^F (?P<f>[\\d.]+)$"}}
  requests:
    read: {tx: "?\n", answer: set, timeout: 300ms, retries: 0}
    sp: {tx: "SP={value:.1}\n", answer: set, refusal: no, timeout: 300ms}
  on_open: [{tx: "HELLO\n"}]
  silence: 5s
properties:
  setpoint: {type: number, access: rw, from: {serial: {request: read, capture: sp, write: sp}}}
  flow: {type: number, from: {serial: {message: flow, capture: f}}}
"#;

fn device(text: &str) -> Arc<Device> {
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    let id = library.add("p.yaml", text, false, &mut complaints).unwrap();
    let place = Place { file: "test".into(), line: 1, column: 1 };
    let wish = Wish { profile: &id, place: &place, params: None, over: None, is_unsafe: false };
    let profile = library.resolve(&wish, &mut complaints).map(|resolved| resolved.profile);
    let profile = profile.unwrap_or_else(|| panic!("{:?}", complaints.into_sorted()));
    Arc::new(Device { id: "d".parse().unwrap(), profile, connection: "w".to_owned(), unit: 1, ble: None })
}

fn port(wire: Wire, echo: bool, text: &str) -> SerialPort {
    let connection = Connection {
        name: "w".to_owned(),
        protocol: Protocol::Serial,
        wire,
        timeout: Duration::from_millis(500),
        delay: Duration::ZERO,
        echo,
        in_flight: 1,
    };
    let mut port = SerialPort::new(Arc::new(connection));
    port.add(0, device(text));
    port
}

/// An open port on a pseudo terminal, the other end of it, and what was sent on opening taken off.
async fn open(echo: bool) -> (SerialPort, SerialStream) {
    let (mut near, far) = SerialStream::pair().unwrap();
    let wire = Wire::Serial { port: far.name().unwrap(), line: SerialLine::default() };
    drop(far);
    let mut port = port(wire, echo, PROFILE);
    port.open().await.unwrap();
    assert_eq!(heard(&mut near, 6).await, b"HELLO\n");
    (port, near)
}

async fn heard(near: &mut SerialStream, bytes: usize) -> Vec<u8> {
    let mut room = vec![0; bytes];
    timeout(LIMIT, near.read_exact(&mut room)).await.unwrap().unwrap();
    room
}

fn values(pushes: &[Push]) -> Vec<(usize, Value)> {
    pushes.iter().flat_map(|push| &push.samples).map(|sample| (sample.property, sample.value.clone())).collect()
}

async fn pushed(port: &mut SerialPort) -> Vec<(usize, Value)> {
    values(&timeout(LIMIT, port.pushed()).await.unwrap().unwrap())
}

const JOB: Job = Job { device: 0, group: 0 };

#[tokio::test]
async fn a_stream_is_heard_in_pieces_and_a_line_that_pauses_is_given_up() {
    let (mut port, mut near) = open(false).await;
    near.write_all(b"F 1.5\r\nF 2").await.unwrap();
    assert_eq!(pushed(&mut port).await, [(1, json!(1.5))]);
    near.write_all(b".25\n").await.unwrap();
    assert_eq!(pushed(&mut port).await, [(1, json!(2.25))]);
    near.write_all(b"F 9").await.unwrap();
    // The rest comes far too late; a dropped wait loses nothing.
    assert!(timeout(Duration::from_millis(400), port.pushed()).await.is_err());
    near.write_all(b"9\nF 3\n").await.unwrap();
    assert_eq!(pushed(&mut port).await, [(1, json!(3))]);
    assert_eq!(port.counters().dropped, 1);
}

#[tokio::test]
async fn an_answer_is_told_from_a_stream_and_from_what_came_before_the_request() {
    let (mut port, mut near) = open(false).await;
    near.write_all(b"SP=1.0\n").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let device = tokio::spawn(async move {
        assert_eq!(heard(&mut near, 2).await, b"?\n");
        near.write_all(b"F 7\nnoise\nSP=21.5\nF 8\n").await.unwrap();
        near
    });
    let steps = port.read(&[JOB], 0).await;
    assert_eq!((steps[0].end.clone(), steps[0].samples[0].value.clone()), (StepEnd::Done, json!(21.5)));
    assert_eq!(values(&port.overheard()), [(0, json!(1.0)), (1, json!(7)), (1, json!(8))]);
    drop(device.await.unwrap());
}

#[tokio::test]
async fn a_device_that_is_silent_has_failed_and_one_that_streams_has_a_bad_value() {
    let (mut port, mut near) = open(false).await;
    let steps = port.read(&[JOB], 0).await;
    assert_eq!(steps[0].end, StepEnd::Failed(Why::Timeout));
    assert_eq!(port.probe(0).await, Err(CallError::Silent(Why::Timeout)));
    near.write_all(b"F 1\n").await.unwrap();
    assert_eq!(pushed(&mut port).await, [(1, json!(1))]);
    let steps = port.read(&[JOB], 0).await;
    assert_eq!((steps[0].end.clone(), steps[0].samples[0].quality), (StepEnd::Done, Quality::Bad(Why::Timeout)));
    assert_eq!(port.counters().timeouts, 3);
}

#[tokio::test]
async fn a_write_is_answered_refused_or_lost_and_never_sent_twice() {
    let (mut port, mut near) = open(false).await;
    let device = tokio::spawn(async move {
        let mut sent = Vec::new();
        for answer in ["SP=22.0\n", "ERR 5\n", ""] {
            sent.push(String::from_utf8(heard(&mut near, 8).await).unwrap());
            near.write_all(answer.as_bytes()).await.unwrap();
        }
        let mut room = [0; 8];
        assert!(timeout(Duration::from_millis(700), near.read(&mut room)).await.is_err(), "it was sent again");
        sent
    });
    assert_eq!(port.write(0, 0, &json!(22)).await, Ok(()));
    assert_eq!(values(&port.overheard()), [(0, json!(22.0))], "the answer tells the new value");
    let refused = CallError::Invalid("the device answers ERR 5".to_owned());
    assert_eq!(port.write(0, 0, &json!(23)).await, Err(refused));
    assert_eq!(port.write(0, 0, &json!(24)).await, Err(CallError::Silent(Why::Timeout)));
    assert_eq!(device.await.unwrap(), ["SP=22.0\n", "SP=23.0\n", "SP=24.0\n"]);
    assert!(matches!(port.write(0, 1, &json!(1)).await, Err(CallError::Invalid(_))));
}

#[tokio::test]
async fn what_an_adapter_echoes_is_no_answer() {
    let (mut near, far) = SerialStream::pair().unwrap();
    let wire = Wire::Serial { port: far.name().unwrap(), line: SerialLine::default() };
    drop(far);
    // A device whose answer looks like the request.
    let text = PROFILE.replace("tx: \"?\\n\"", "tx: \"SP=0.0\\n\"").replace("  on_open: [{tx: \"HELLO\\n\"}]\n", "");
    let mut port = port(wire, true, &text);
    port.open().await.unwrap();
    let device = tokio::spawn(async move {
        assert_eq!(heard(&mut near, 7).await, b"SP=0.0\n");
        near.write_all(b"SP=0").await.unwrap();
        sleep(Duration::from_millis(20)).await;
        near.write_all(b".0\nSP=5.0\n").await.unwrap();
        near
    });
    let steps = port.read(&[JOB], 0).await;
    assert_eq!(steps[0].samples[0].value, json!(5.0));
    drop(device.await.unwrap());
}

#[tokio::test]
async fn an_unplugged_line_is_gone_and_a_new_one_greeted() {
    let (mut port, near) = open(false).await;
    drop(near);
    assert!(timeout(LIMIT, port.pushed()).await.unwrap().is_err());
    assert!(!port.is_open());
    assert!(port.open().await.is_err());
}

#[tokio::test]
async fn a_socket_is_a_line_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut port = port(Wire::Tcp(listener.local_addr().unwrap().to_string()), false, PROFILE);
    let (opened, accepted) = tokio::join!(port.open(), listener.accept());
    opened.unwrap();
    let mut socket = accepted.unwrap().0;
    socket.write_all(b"F 4\n").await.unwrap();
    assert_eq!(pushed(&mut port).await, [(1, json!(4))]);
    drop(socket);
    assert!(timeout(LIMIT, port.pushed()).await.unwrap().is_err());
}

/// The dialogue of IEC 62056-21, 6.3.2, with the speed of the terminal looked at from the other end.
#[tokio::test]
async fn a_meter_is_signed_on_to_and_the_speed_goes_up_and_back() {
    let text = include_str!("../../../configs/profiles/generic.iec62056_21.yaml");
    let (mut near, far) = SerialStream::pair().unwrap();
    let name = far.name().unwrap();
    drop(far);
    let line = SerialLine { baud: 300, ..SerialLine::default() };
    let mut port = port(Wire::Serial { port: name, line }, false, text);
    port.open().await.unwrap();
    let meter = tokio::spawn(async move {
        assert_eq!(heard(&mut near, 5).await, b"/?!\r\n");
        near.write_all(b"/?!\r\n/LGZ4ZMF100AC.M26\r\n").await.unwrap();
        assert_eq!(heard(&mut near, 6).await, b"\x06040\r\n");
        // The line may still be on its way to the new speed; a meter waits 200 ms and more.
        sleep(Duration::from_millis(400)).await;
        let speed = near.baud_rate().unwrap();
        let block = b"1.8.0(061561.289*kWh)\r\n!\r\n\x03";
        let check = block.iter().fold(0, |xor, byte| xor ^ byte);
        near.write_all(&[b"\x02".as_slice(), block, &[check]].concat()).await.unwrap();
        sleep(Duration::from_millis(100)).await;
        (speed, near.baud_rate().unwrap())
    });
    let steps = port.read(&[JOB], 0).await;
    assert_eq!(steps[0].end, StepEnd::Done);
    assert_eq!(steps[0].samples[0].value, json!(61561.289));
    assert_eq!(meter.await.unwrap(), (4_800, 300));
}

#[tokio::test]
async fn people_see_what_is_on_the_line_and_how_it_is_read() {
    let (mut port, mut near) = open(false).await;
    near.write_all(b"F 1\nwhat is this\n").await.unwrap();
    let seen = port.raw(&json!({"op": "read", "timeout_ms": 100})).await.unwrap();
    assert_eq!(seen, json!({"messages": ["F 1", "what is this"]}));
    let plan = port.plan(0);
    assert_eq!(plan["groups"][0]["requests"], json!([{"request": "read", "properties": ["setpoint"]}]));
    assert_eq!((&plan["unasked"], &plan["frames"]["whole"]), (&json!(["flow"]), &json!(2)));
}
