//! Mappers inside the gateway: the bus that ends in this broker without a socket.
//!
//! In: what a mapper says on its [`Bus`]. Out: what it subscribed to. Must never be treated better than a mapper that
//! comes over MQTT: the same rules, the same desk, the same queue.

use std::sync::Arc;

use mappers::bus::{Far, Incoming, Message as BusMessage, Outgoing, Receiver};
use tokio::sync::{Notify, oneshot};

use super::access::Access;
use super::codec::V5;
use super::codec::read::{self, Property, properties};
use super::core::{Arrival, Hold, Leave};
use super::desk::{Answer, Request, Verdict};
use super::inbound::Door;
use super::message::{Message, own_properties};
use super::session::{Connected, Sendable};
use super::shared::{Route, Shared, author, stamp};
use super::shelf::Done;

/// From one look at a pressed desk that does not tell to the next.
const PRESSED: std::time::Duration = std::time::Duration::from_millis(1);

/// Bytes taken from the queue at one time.
const TAKE_BYTES: usize = 64 * 1024;

struct Local {
    shared: Arc<Shared>,
    client: String,
    access: Arc<Access>,
    door: Arc<Door>,
    hold: Hold,
    serial: u64,
}

/// Drives the far end of a bus until the mapper or the broker stops.
pub(super) async fn run(shared: Arc<Shared>, client: String, access: Access, far: Far) {
    let (access, door) = (Arc::new(access), Arc::new(Door::default()));
    let arrival = Arrival {
        client: client.clone(),
        access: Arc::clone(&access),
        clean: true,
        expiry_s: 0,
        will: None,
        connected: Connected {
            generation: 0,
            door: Arc::clone(&door),
            version: V5,
            window: u16::MAX,
            packet_bytes: u32::MAX,
            local: true,
        },
    };
    let attached = match shared.act(|core, fx| core.attach(arrival, fx)).value {
        Some(Ok(attached)) => attached,
        Some(Err(_)) | None => {
            tracing::error!(client, "a mapper cannot come in: its client id is taken");
            return;
        }
    };
    let local = Local { shared, client, access, door, hold: attached.hold, serial: attached.serial };
    local.drive(far).await;
    let hold = local.hold;
    local.shared.act(|core, fx| core.detach(hold, Leave { will: false, expiry_s: None }, fx));
}

impl Local {
    async fn drive(&self, far: Far) {
        let Far { mut out, incoming } = far;
        if incoming.send(Incoming::Up).await.is_err() {
            return;
        }
        let mut more = false;
        while self.door.closing().is_none() {
            if more {
                // the mapper's queue may be full; its own words are taken meanwhile
                let sendables = self.take(&mut more);
                for sendable in sendables {
                    let Some(message) = incoming_message(sendable) else { continue };
                    let sending = incoming.send(Incoming::Message(message));
                    tokio::pin!(sending);
                    loop {
                        tokio::select! {
                            biased;
                            sent = &mut sending => match sent {
                                Ok(()) => break,
                                Err(_) => return,
                            },
                            word = self.hear(&mut out) => match word {
                                Some(word) => self.on_word(word),
                                None => return,
                            },
                        }
                    }
                }
                continue;
            }
            tokio::select! {
                word = self.hear(&mut out) => match word {
                    Some(word) => self.on_word(word),
                    None => return,
                },
                () = self.door.notify.notified() => more = true,
            }
        }
        let _ = incoming.try_send(Incoming::Down);
    }

    /// The mapper's next word, once the desk has room for it: its queue fills meanwhile, and that it can see.
    async fn hear(&self, out: &mut Receiver<Outgoing>) -> Option<Outgoing> {
        let desk = &self.shared.desk;
        loop {
            // made before the desk is looked at, so that the word is not missed
            let relief = desk.relief().map(Notify::notified);
            if !desk.is_pressed() {
                break;
            }
            match relief {
                Some(relief) => relief.await,
                None => tokio::time::sleep(PRESSED).await,
            }
        }
        out.recv().await
    }

    fn take(&self, more: &mut bool) -> Vec<Sendable> {
        let mut sendables = Vec::new();
        let acted = self.shared.act(|core, fx| core.take(self.hold, TAKE_BYTES, &mut sendables, fx));
        *more = acted.value.unwrap_or(false);
        self.shared.counters.messages_out.add(sendables.len() as u64);
        sendables
    }

    fn on_word(&self, word: Outgoing) {
        match word {
            Outgoing::Publish(message) => self.publish(message, None),
            Outgoing::PublishAcknowledged(message, answer) => self.publish(message, Some(answer)),
            Outgoing::Subscribe(filter) => {
                let code = self.shared.act(|core, fx| core.subscribe(self.hold, &filter, 1, 0, fx)).value;
                if code.is_none_or(|code| code >= 0x80) {
                    tracing::error!(client = self.client, filter, "a mapper may not subscribe");
                }
            }
            Outgoing::Unsubscribe(filter) => {
                self.shared.act(|core, fx| core.unsubscribe(self.hold, &filter, fx));
            }
        }
    }

    fn publish(&self, message: BusMessage, answer: Option<oneshot::Sender<bool>>) {
        let qos = u8::from(answer.is_some());
        match self.shared.route_of(&message.topic, &self.access) {
            Ok(Route::Desk) => self.ask_desk(message, qos, answer),
            Ok(Route::Engine) => self.route(&message, qos, answer),
            Err(error) => {
                self.shared.counters.refused_publishes.add(1);
                tracing::warn!(client = self.client, topic = message.topic, error, "a mapper's publish is refused");
                tell(answer, false);
            }
        }
    }

    fn ask_desk(&self, message: BusMessage, qos: u8, answer: Option<oneshot::Sender<bool>>) {
        self.shared.counters.messages_in.add(1);
        let shared = Arc::clone(&self.shared);
        self.shared.desk.take(Request {
            author: author(&self.client, &self.access),
            topic: message.topic,
            payload: message.payload,
            qos,
            response_topic: message.response_topic,
            correlation: message.correlation,
            answer: Answer::new(move |verdict| {
                let accepted = verdict == Some(Verdict::Accepted);
                if !accepted {
                    shared.counters.refused_publishes.add(1);
                }
                tell(answer, accepted);
            }),
        });
    }

    fn route(&self, message: &BusMessage, qos: u8, answer: Option<oneshot::Sender<bool>>) {
        let properties = own_properties(message.response_topic.as_deref(), message.correlation.as_deref(), &[]);
        let mut own = Message::new(&message.topic, &properties, &message.payload);
        own.qos = qos;
        own.retain = message.retain;
        own.author = self.serial;
        stamp(&mut own, self.shared.clock.now_ms(), None);
        let mut answer = answer;
        let waiting = &mut answer;
        let acted = self.shared.act_then(
            |core, fx| core.publish(own, fx).is_ok(),
            || -> Done {
                let answer = waiting.take();
                Box::new(move |kept| tell(answer, kept.is_ok()))
            },
        );
        tell(answer, acted.value.unwrap_or(false));
    }
}

fn tell(answer: Option<oneshot::Sender<bool>>, accepted: bool) {
    if let Some(answer) = answer {
        // a mapper that no longer waits needs no answer
        let _ = answer.send(accepted);
    }
}

fn incoming_message(sendable: Sendable) -> Option<BusMessage> {
    let Sendable::Publish { message, retain, .. } = sendable else { return None };
    let mut out = BusMessage {
        topic: message.topic().to_owned(),
        payload: message.payload_bytes(),
        retain,
        response_topic: None,
        correlation: None,
    };
    // they were read once before they came in
    let _ = properties(message.properties(), read::PUBLISH, |property, _| {
        match property {
            Property::ResponseTopic(topic) => out.response_topic = Some(topic.to_owned()),
            Property::Correlation(data) => out.correlation = Some(bytes::Bytes::copy_from_slice(data)),
            _ => {}
        }
        Ok(())
    });
    Some(out)
}
