//! The local side: what the gateway says on its topics, as slots, readings and events of one upstream.
//!
//! In: messages of the bus. Out: what passes the filter, read once. Must never let pass what the user did not name.

use std::sync::Arc;

use bytes::Bytes;
use mappers::bus::{Incoming, Message as BusMessage, Outgoing};
use protocols::config::upstream::Dialect as Kind;
use protocols::dialect::{Message, Site};
use protocols::name::DeviceId;
use protocols::outbox::{Class, Content, Item, Sieve, Slot, stamp};
use protocols::profile::Source;
use protocols::topic::{GATEWAY_STATUS, TwinTopic};
use protocols::value::Now;
use tracing::warn;

use super::task::{Boot, Task};

/// Messages of one side read before what they said is worked on.
pub(super) const DRAIN: usize = 256;
/// Numbers of markers on the way through the local broker.
const AFTER_ASKING: u64 = 1;
const AFTER_READING: u64 = 2;
pub(super) const BEFORE_STOPPING: u64 = 3;

/// What a local message means to an upstream.
pub(super) enum Local {
    /// A slot holds this now. `urgent` is an alarm; `reading` is the class if it goes to the spool as well.
    Slot { slot: Slot, content: Content, urgent: bool, reading: Option<Class> },
    /// A change, to be told while the link is up.
    Event(DeviceId, Vec<u8>),
    /// Nothing.
    Other,
}

/// Reads a local message.
pub(super) fn read(topic: &str, payload: &[u8], retained: bool, site: &Site, sieve: &Sieve) -> Local {
    if topic == GATEWAY_STATUS {
        let content = sieve.rewrite(None, payload).map(Arc::from);
        return match content {
            None if !payload.is_empty() => Local::Other,
            content => Local::Slot { slot: Slot::Gateway, content, urgent: true, reading: None },
        };
    }
    let Some(topic) = TwinTopic::parse(&site.root, topic) else { return Local::Other };
    let (device, item) = match topic {
        TwinTopic::Event(device) => {
            let passes = sieve.device(&device) && site.devices.contains_key(&device);
            let payload = passes.then(|| sieve.event(payload)).flatten();
            return payload.map_or(Local::Other, |payload| Local::Event(device, payload));
        }
        TwinTopic::Status(device) => (device, Item::Status),
        TwinTopic::Reported(device, property) => (device, Item::Reported(property)),
        TwinTopic::Desired(device, property) => (device, Item::Desired(property)),
        TwinTopic::Delta(device) => (device, Item::Delta),
        TwinTopic::Conflict(device) => (device, Item::Conflict),
        TwinTopic::Document(device) => (device, Item::Document),
        _ => return Local::Other,
    };
    let slot = Slot::Device(device.clone(), item.clone());
    if !sieve.slot(&slot) {
        return Local::Other;
    }
    if payload.is_empty() {
        return Local::Slot { slot, content: None, urgent: false, reading: None };
    }
    // a device that is not configured has nothing to say; what it said before was cleared
    let Some(profile) = site.devices.get(&device) else { return Local::Other };
    let Some(content) = sieve.rewrite(Some(&item), payload) else { return Local::Other };
    let property = match &item {
        Item::Reported(name) => profile.find(name.as_str()).and_then(|index| profile.properties.get(index)),
        _ => None,
    };
    let is_alarm = property.is_some_and(|property| matches!(property.source, Source::Alarm(_)));
    let class = if is_alarm { Class::Alarm } else { Class::Metric };
    let is_streamed = property.is_some_and(|property| property.stream) && !retained;
    Local::Slot { slot, content: Some(content.into()), urgent: is_alarm, reading: is_streamed.then_some(class) }
}

impl Task {
    /// Subscribes to what the gateway says; the retained messages come first.
    pub(super) async fn listen(&mut self) {
        let root = &self.site.root;
        let mut filters = vec![
            format!("{root}/+/reported/+"),
            format!("{root}/+/desired/+"),
            format!("{root}/+/status"),
            format!("{root}/+/conflict"),
            GATEWAY_STATUS.to_owned(),
            format!("{}/+", self.answers),
        ];
        for (item, filter) in [(Item::Delta, format!("{root}/+/delta")), (Item::Document, format!("{root}/+"))] {
            if self.dialect.wants(&item) {
                filters.push(filter);
            }
        }
        if matches!(self.config.dialect, Kind::Plain { .. }) {
            filters.push(format!("{root}/+/event"));
        }
        if self.config.url.is_none() {
            filters.extend(self.dialect.subscriptions(&self.site).into_iter().map(|(filter, _)| filter));
        }
        for filter in filters {
            // without a broker there is nobody to listen to, and the task ends with the next word from it
            let _ = self.bus.out.send(Outgoing::Subscribe(filter)).await;
        }
        let marker = self.marker(AFTER_ASKING);
        let _ = self.bus.out.send(marker).await;
        self.boot = Boot::Asked;
    }

    /// A marker for the way through the local broker: what was said before it is read when it comes back.
    pub(super) fn marker(&self, number: u64) -> Outgoing {
        let topic = format!("{}/mark", self.answers);
        let correlation = Some(Bytes::copy_from_slice(&number.to_be_bytes()));
        Outgoing::Publish(BusMessage { topic, correlation, ..BusMessage::default() })
    }

    pub(super) fn on_local_messages(&mut self, first: Incoming) {
        self.on_local(first);
        for _ in 0..DRAIN {
            let Ok(incoming) = self.bus.incoming.try_recv() else { return };
            self.on_local(incoming);
        }
    }

    fn on_local(&mut self, incoming: Incoming) {
        let Incoming::Message(message) = incoming else { return };
        let now = self.now();
        if let Some(rest) = message.topic.strip_prefix(self.answers.as_str()) {
            let number =
                message.correlation.as_deref().and_then(|data| Some(u64::from_be_bytes(data.try_into().ok()?)));
            return match (rest, number) {
                ("/mark", Some(number)) => self.on_mark(number),
                ("/result", Some(number)) => self.on_answer(number, &message.payload),
                _ => {}
            };
        }
        match read(&message.topic, &message.payload, message.retain, &self.site, &self.sieve) {
            Local::Slot { slot, content, urgent, reading } => {
                if let (Some(class), Some(content), Slot::Device(device, Item::Reported(property))) =
                    (reading, &content, &slot)
                {
                    self.spool.push(class, device.clone(), property.clone(), Arc::clone(content), now);
                }
                self.on_slot(slot, content, urgent, now);
            }
            Local::Event(device, payload) if self.is_up() => {
                let publishes = self.dialect.event(&device, &payload, &self.site, now);
                self.say_free(publishes);
            }
            Local::Event(..) => {}
            Local::Other if self.is_inside => {
                let heard = Message {
                    topic: message.topic,
                    payload: message.payload.to_vec(),
                    retain: message.retain,
                    response_topic: message.response_topic,
                    correlation: message.correlation.map(|data| data.to_vec()),
                };
                self.on_message(&heard, 0);
            }
            Local::Other => {}
        }
    }

    fn on_slot(&mut self, slot: Slot, content: Content, urgent: bool, now: Now) {
        self.note(&slot, content.as_deref().unwrap_or_default());
        let item = match &slot {
            Slot::Gateway => None,
            Slot::Device(_, item) => Some(item.clone()),
        };
        // conflicts are settled on the desired slots, also where the dialect has no words for them
        if item.as_ref().is_some_and(|item| !self.dialect.wants(item)) {
            return;
        }
        let payload = content.as_deref().unwrap_or_default();
        let digest = stamp(item.as_ref(), payload, &self.site.epoch);
        self.engine.local(slot, content, digest, urgent, now);
    }

    fn on_mark(&mut self, number: u64) {
        match number {
            AFTER_ASKING if self.boot == Boot::Asked => {
                self.boot = Boot::Reading;
                if let Some(listens) = self.listens.take() {
                    // nobody waits for one that is started later
                    let _ = listens.send(());
                }
            }
            AFTER_READING if self.boot == Boot::Marked => {
                self.boot = Boot::Done;
                let now = self.now();
                self.engine.booted(now);
            }
            BEFORE_STOPPING => {
                if let Some((_, seen)) = &mut self.stopping {
                    *seen = true;
                }
            }
            _ => {}
        }
    }

    /// Looks whether everything retained was read, and whether anything was lost on the way here.
    pub(super) fn look_at_the_broker(&mut self) {
        let Some(pulse) = self.around.broker.pulse(&self.client) else { return };
        if pulse.lost > self.lost {
            let count = pulse.lost - self.lost;
            self.lost = pulse.lost;
            self.standing.missed += count;
            warn!(upstream = %self.name, count, "local messages were lost; what is retained is read again");
            if self.site.devices.values().any(|profile| profile.properties.iter().any(|property| property.stream)) {
                self.spool.missed(Class::Metric);
            }
            self.read_again();
        }
        if self.boot == Boot::Reading && pulse.is_caught_up {
            // a full queue is emptied soon, and the next look tries again
            if self.bus.out.try_send(self.marker(AFTER_READING)).is_ok() {
                self.boot = Boot::Marked;
            }
        }
    }

    /// The retained messages come again; what is not in them was cleared and was heard.
    pub(super) fn read_again(&self) {
        let root = &self.site.root;
        for end in ["reported/+", "desired/+", "status", "conflict", "delta"] {
            if end == "delta" && !self.dialect.wants(&Item::Delta) {
                continue;
            }
            // a full queue is emptied soon, and the next look tries again
            let _ = self.bus.out.try_send(Outgoing::Subscribe(format!("{root}/+/{end}")));
        }
        if self.dialect.wants(&Item::Document) {
            let _ = self.bus.out.try_send(Outgoing::Subscribe(format!("{root}/+")));
        }
    }
}
