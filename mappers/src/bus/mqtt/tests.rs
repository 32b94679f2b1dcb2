//! The driver against a scripted MQTT 5 broker on a loopback socket; packets by the standard's chapter 3.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// One packet a client sent: type and flags, and the rest.
type Packet = (u8, Vec<u8>);

struct Broker {
    listener: TcpListener,
    stream: TcpStream,
}

impl Broker {
    /// Takes a connection and answers its CONNECT.
    async fn accept(listener: TcpListener) -> Self {
        let (stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        let mut broker = Self { listener, stream };
        assert_eq!(broker.read().await.0, 0x10, "CONNECT");
        broker.write(&[0x20, 3, 0, 0, 0]).await;
        broker
    }

    async fn read(&mut self) -> Packet {
        timeout(SOON, async {
            let kind = self.stream.read_u8().await.unwrap();
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = self.stream.read_u8().await.unwrap();
                length |= usize::from(byte & 0x7F) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut rest = vec![0; length];
            self.stream.read_exact(&mut rest).await.unwrap();
            (kind, rest)
        })
        .await
        .unwrap()
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads a SUBSCRIBE, grants it, and gives its filters.
    async fn subscribe(&mut self) -> Vec<String> {
        let (kind, rest) = self.read().await;
        assert_eq!(kind, 0x82, "SUBSCRIBE");
        let mut filters = Vec::new();
        let mut at = 3 + usize::from(rest[2]);
        while at < rest.len() {
            let length = usize::from(u16::from_be_bytes([rest[at], rest[at + 1]]));
            filters.push(String::from_utf8(rest[at + 2..at + 2 + length].to_vec()).unwrap());
            at += 3 + length;
        }
        let mut answer = vec![0x90, u8::try_from(3 + filters.len()).unwrap(), rest[0], rest[1], 0];
        answer.extend(filters.iter().map(|_| 1));
        self.write(&answer).await;
        filters
    }

    /// Reads a PUBLISH at QoS 1 and gives its packet id and payload.
    async fn publish(&mut self) -> ([u8; 2], Vec<u8>) {
        let (kind, rest) = self.read().await;
        assert_eq!(kind & 0xF6, 0x32, "PUBLISH at QoS 1");
        let topic = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let properties = usize::from(rest[topic + 4]);
        ([rest[topic + 2], rest[topic + 3]], rest[topic + 5 + properties..].to_vec())
    }
}

fn say(topic: &str, payload: &'static str) -> Message {
    Message { topic: topic.to_owned(), payload: payload.into(), ..Message::default() }
}

async fn hear(bus: &mut Bus) -> Incoming {
    timeout(SOON, bus.incoming.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_link_that_returns_has_its_subscriptions_and_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options =
        MqttOptions { host: "127.0.0.1".to_owned(), port, client_id: "m".to_owned(), ..MqttOptions::default() };
    let (mut bus, task, counters) = mqtt_counted(options);
    bus.out.send(Outgoing::Publish(say("a", "too early"))).await.unwrap();
    bus.out.send(Outgoing::Subscribe("twin/d/delta".to_owned())).await.unwrap();
    let mut broker = Broker::accept(listener).await;
    assert_eq!(hear(&mut bus).await, Incoming::Up);
    assert_eq!(broker.subscribe().await, ["twin/d/delta"]);
    assert_eq!(counters.dropped.load(Ordering::Relaxed), 1, "what is said to a link that is down is dropped");

    bus.out.send(Outgoing::Subscribe("x/+".to_owned())).await.unwrap();
    assert_eq!(broker.subscribe().await, ["x/+"]);
    // PUBLISH, retained, QoS 0, topic "x/y", response topic "r", correlation data "c", payload "1".
    broker.write(&[0x31, 15, 0, 3, b'x', b'/', b'y', 8, 8, 0, 1, b'r', 9, 0, 1, b'c', b'1']).await;
    let expected = Message {
        topic: "x/y".to_owned(),
        payload: "1".into(),
        retain: true,
        response_topic: Some("r".to_owned()),
        correlation: Some("c".into()),
    };
    assert_eq!(hear(&mut bus).await, Incoming::Message(expected));

    let Broker { listener, stream } = broker;
    drop(stream);
    assert_eq!(hear(&mut bus).await, Incoming::Down);
    let mut broker = Broker::accept(listener).await;
    assert_eq!(hear(&mut bus).await, Incoming::Up);
    assert_eq!(broker.subscribe().await, ["twin/d/delta", "x/+"]);
    drop(bus);
    timeout(SOON, task).await.unwrap().unwrap();
    drop(broker.listener);
}

#[tokio::test]
async fn an_acknowledgement_tells_stored_from_refused_and_one_is_under_way_at_a_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options =
        MqttOptions { host: "127.0.0.1".to_owned(), port, client_id: "m".to_owned(), ..MqttOptions::default() };
    let (mut bus, _task) = mqtt(options);
    let mut broker = Broker::accept(listener).await;
    assert_eq!(hear(&mut bus).await, Incoming::Up);
    let mut told = Vec::new();
    for payload in ["one", "two", "three"] {
        let (tell, stored) = oneshot::channel();
        bus.out.send(Outgoing::PublishAcknowledged(say("t", payload), tell)).await.unwrap();
        told.push(stored);
    }
    // 0x00 success, 0x87 not authorized.
    for (payload, reason) in [("one", 0x00), ("two", 0x87)] {
        let (id, said) = broker.publish().await;
        assert_eq!(said, payload.as_bytes());
        let early = timeout(Duration::from_millis(50), broker.stream.read_u8()).await;
        assert!(early.is_err(), "the next waits for this one");
        broker.write(&[0x40, 4, id[0], id[1], reason, 0]).await;
        assert_eq!(timeout(SOON, told.remove(0)).await.unwrap(), Ok(reason == 0));
    }
    broker.publish().await;
    drop(broker.stream);
    assert_eq!(timeout(SOON, told.remove(0)).await.unwrap(), Ok(false), "a lost link stores nothing");
}
