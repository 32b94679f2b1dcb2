//! The bus as a mapper sees it: topics out, topics in.
//!
//! A [`Bus`] is two bounded queues; who drives them decides where the broker is: [`mqtt`] speaks MQTT to a broker in
//! another process, the gateway hands out one that ends in its own broker. A test holds the other end itself.

mod mqtt;

pub use mqtt::{MqttCounters, MqttOptions, Tls, mqtt, mqtt_counted};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for a mapper; a full queue makes the broker's end wait.
pub const QUEUE_MESSAGES: usize = 1024;

/// Messages of a mapper that may wait for the broker. When it is full, a mapper keeps what it has to say and says the
/// newest later: a short queue makes it notice soon.
pub const QUEUE_OUT_MESSAGES: usize = 16;

/// A message on its way to the broker.
#[derive(Debug)]
pub enum Outgoing {
    /// Publish, and go on.
    Publish(Message),
    /// Publish at QoS 1, and tell when the broker has acknowledged it (`true`) or refused it (`false`).
    PublishAcknowledged(Message, oneshot::Sender<bool>),
    /// Subscribe to a filter at QoS 1.
    Subscribe(String),
    /// Give a filter up.
    Unsubscribe(String),
}

/// One message, either way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// Kept by the broker (out), or from what it kept (in).
    pub retain: bool,
    /// Where an answer is wanted (MQTT 5).
    pub response_topic: Option<String>,
    /// What the answer has to carry (MQTT 5).
    pub correlation: Option<Bytes>,
}

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message for one of the filters.
    Message(Message),
    /// The link to the broker is there (again); retained messages follow.
    Up,
    /// The link is away; what is published waits or is lost, as the link's driver says.
    Down,
}

/// A mapper's end of the bus.
#[derive(Debug)]
pub struct Bus {
    /// To the broker.
    pub out: mpsc::Sender<Outgoing>,
    /// From the broker.
    pub incoming: mpsc::Receiver<Incoming>,
}

/// The broker's end of the bus.
#[derive(Debug)]
pub struct Far {
    /// From the mapper.
    pub out: mpsc::Receiver<Outgoing>,
    /// To the mapper.
    pub incoming: mpsc::Sender<Incoming>,
}

/// Makes both ends.
pub fn pair() -> (Bus, Far) {
    let (out, far_out) = mpsc::channel(QUEUE_OUT_MESSAGES);
    let (far_incoming, incoming) = mpsc::channel(QUEUE_MESSAGES);
    (Bus { out, incoming }, Far { out: far_out, incoming: far_incoming })
}
