//! The bus as a mapper sees it: topics out, topics in.
//!
//! A [`Bus`] is two bounded queues; who drives them decides where the broker is: [`mqtt`] speaks MQTT to a broker in
//! another process, the gateway hands out one that ends in its own broker. A test holds the other end itself.

mod mqtt;

pub use mqtt::{MqttCounters, MqttOptions, Tls, mqtt, mqtt_counted};

use bytes::Bytes;
use tokio::sync::mpsc::error::{SendError, TryRecvError, TrySendError};
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
    pub out: Sender<Outgoing>,
    /// From the broker.
    pub incoming: Receiver<Incoming>,
}

/// The broker's end of the bus.
#[derive(Debug)]
pub struct Far {
    /// From the mapper.
    pub out: Receiver<Outgoing>,
    /// To the mapper.
    pub incoming: Sender<Incoming>,
}

/// The giving end of a queue. Tokio's queue sets places for 32 messages aside from the beginning; here a place is a
/// pointer, for most queues of a hundred wires are empty at any time.
#[derive(Debug)]
pub struct Sender<T>(mpsc::Sender<Box<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Puts one in, and waits for room.
    ///
    /// # Errors
    /// When the other end is gone; what was to be sent comes back.
    pub async fn send(&self, one: T) -> Result<(), SendError<T>> {
        self.0.send(Box::new(one)).await.map_err(|SendError(one)| SendError(*one))
    }

    /// Puts one in if there is room.
    ///
    /// # Errors
    /// When there is none, or the other end is gone; what was to be sent comes back.
    pub fn try_send(&self, one: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(Box::new(one)).map_err(|error| match error {
            TrySendError::Full(one) => TrySendError::Full(*one),
            TrySendError::Closed(one) => TrySendError::Closed(*one),
        })
    }

    /// Whether the other end is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// How many there is room for.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// How many there is room for when it is empty.
    pub fn max_capacity(&self) -> usize {
        self.0.max_capacity()
    }
}

/// The taking end of a queue.
#[derive(Debug)]
pub struct Receiver<T>(mpsc::Receiver<Box<T>>);

impl<T> Receiver<T> {
    /// The next one; `None` when the other end is gone. Nothing is lost when the wait is given up.
    pub async fn recv(&mut self) -> Option<T> {
        self.0.recv().await.map(|one| *one)
    }

    /// The next one, if there is one.
    ///
    /// # Errors
    /// When there is none, or there never will be one again.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.try_recv().map(|one| *one)
    }
}

/// Makes both ends.
pub fn pair() -> (Bus, Far) {
    let (out, far_out) = queue(QUEUE_OUT_MESSAGES);
    let (far_incoming, incoming) = queue(QUEUE_MESSAGES);
    (Bus { out, incoming }, Far { out: far_out, incoming: far_incoming })
}

fn queue<T>(messages: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(messages);
    (Sender(sender), Receiver(receiver))
}
