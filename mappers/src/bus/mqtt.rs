//! A bus to a broker in another process, over MQTT 5.
//!
//! In: the host's end of a [`Bus`]. Out: packets, and what the broker sends. The driver reconnects by itself and
//! subscribes again. Publishes while the link is down are dropped and counted: what a mapper publishes is a level, and
//! [`Incoming::Up`] makes it say everything again. Must never wait for the broker while the host waits for it.
//!
//! rumqttc gives packet ids in a ring as wide as the broker's receive maximum and stops altogether when an id comes up
//! that is still unacknowledged; brokers that acknowledge out of order make that happen. So ordinary publishes go at
//! QoS 0, and of those that want an acknowledgement one is on its way at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, LastWill, Packet, PubAckReason, Publish, PublishProperties, RetainForwardRule,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions as Options};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Bus, Far, Incoming, Message, Outgoing, pair};

/// The largest packet either way, in bytes; the broker's default limit.
const PACKET_BYTES: u32 = 262_144;
/// Requests between the driver and the event loop.
const REQUESTS: usize = 256;
/// Publishes waiting for their turn to be acknowledged; one more is answered "not stored", and is sent again later.
const WAITING: usize = 256;
/// News from one half of the driver to the other; the sender of one more waits.
const NEWS: usize = 16;
/// How long a full event loop is waited for before a publish is dropped.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long an acknowledgement may take before it counts as refused.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);
/// The first pause before a new connection; doubling.
const RECONNECT_MIN: Duration = Duration::from_millis(200);
/// The longest such pause.
const RECONNECT_MAX: Duration = Duration::from_secs(10);
/// MQTT's keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// From a subscription that found the event loop full to the next try.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(1);
/// Filters in one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 64;

/// Where the broker is, and who we are to it.
#[derive(Clone, Default)]
pub struct MqttOptions {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, if it speaks it.
    pub tls: Option<Tls>,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// The client id; each bus needs its own.
    pub client_id: String,
    /// What the broker says for us when we leave without a word (topic, payload and retain are used).
    pub will: Option<Message>,
}

/// TLS towards a broker.
#[derive(Clone, Default)]
pub struct Tls {
    /// PEM authorities; the system's when absent.
    pub ca: Option<Vec<u8>>,
    /// PEM certificate chain and private key of our own.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for MqttOptions {
    /// Leaves the password out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls.is_some())
            .field("user", &self.user)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// What a driver has counted.
#[derive(Debug, Default)]
pub struct MqttCounters {
    /// Publishes given up because the link was down or full.
    pub dropped: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
}

/// Starts a bus to a broker. The task ends when the [`Bus`] is dropped.
pub fn mqtt(options: MqttOptions) -> (Bus, JoinHandle<()>) {
    let (bus, task, _) = mqtt_counted(options);
    (bus, task)
}

/// Like [`mqtt`], with the driver's counters.
pub fn mqtt_counted(options: MqttOptions) -> (Bus, JoinHandle<()>, Arc<MqttCounters>) {
    let (bus, far) = pair();
    let counters = Arc::new(MqttCounters::default());
    let task = tokio::spawn(drive(options, far, Arc::clone(&counters)));
    (bus, task, counters)
}

fn rumqttc_options(options: &MqttOptions) -> Options {
    let mut made = Options::new(&options.client_id, &options.host, options.port);
    made.set_keep_alive(KEEP_ALIVE);
    made.set_clean_start(true);
    made.set_max_packet_size(Some(PACKET_BYTES));
    if let Some(user) = &options.user {
        made.set_credentials(user, options.password.as_deref().unwrap_or_default());
    }
    if let Some(will) = &options.will {
        let Message { topic, payload, retain, .. } = will;
        made.set_last_will(LastWill::new(topic.as_str(), payload.clone(), QoS::AtLeastOnce, *retain, None));
    }
    if let Some(tls) = &options.tls {
        // Someone else may have chosen a provider for the process already; theirs is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        made.set_transport(match &tls.ca {
            Some(ca) => Transport::tls_with_config(TlsConfiguration::Simple {
                ca: ca.clone(),
                alpn: None,
                client_auth: tls.client.clone(),
            }),
            None => Transport::tls_with_default_config(),
        });
    }
    made
}

/// What the two halves of the driver share.
struct Shared {
    up: AtomicBool,
    counters: Arc<MqttCounters>,
}

/// News from the event loop for the sending half.
enum News {
    Up,
    Down,
    Acknowledged(bool),
}

async fn drive(options: MqttOptions, far: Far, counters: Arc<MqttCounters>) {
    let place = format!("{}:{}", options.host, options.port);
    let (client, events) = AsyncClient::new(rumqttc_options(&options), REQUESTS);
    let shared = Arc::new(Shared { up: AtomicBool::new(false), counters });
    let (news, heard) = mpsc::channel(NEWS);
    let Far { out, incoming } = far;
    let listening = tokio::spawn(listen(events, incoming.clone(), news, Arc::clone(&shared), place));
    Sender {
        client,
        shared,
        filters: BTreeSet::new(),
        unmade: BTreeSet::new(),
        waiting: VecDeque::new(),
        under_way: None,
        overdue: 0,
        incoming,
        lost: false,
    }
    .run(out, heard)
    .await;
    listening.abort();
}

/// The receiving half: polls the event loop, hands messages to the host.
async fn listen(
    mut events: EventLoop,
    incoming: super::Sender<Incoming>,
    news: mpsc::Sender<News>,
    shared: Arc<Shared>,
    place: String,
) {
    let mut pause = RECONNECT_MIN;
    let mut told = false;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                pause = RECONNECT_MIN;
                told = false;
                shared.counters.connects.fetch_add(1, Ordering::Relaxed);
                shared.up.store(true, Ordering::Release);
                tracing::info!(upstream = %place, "broker reached");
                // The subscriptions go first, so that the host's answer to Up finds them made.
                if news.send(News::Up).await.is_err() || incoming.send(Incoming::Up).await.is_err() {
                    return;
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                if let Some(message) = message(publish)
                    && incoming.send(Incoming::Message(message)).await.is_err()
                {
                    return;
                }
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                let stored = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                if news.send(News::Acknowledged(stored)).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                if shared.up.swap(false, Ordering::AcqRel)
                    && (news.send(News::Down).await.is_err() || incoming.send(Incoming::Down).await.is_err())
                {
                    return;
                }
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(upstream = %place, %error, "broker not reached");
                }
                // What waits inside was published for a link that is gone; the host says it again.
                events.clean();
                events.pending.clear();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_MAX);
            }
        }
    }
}

fn message(publish: Publish) -> Option<Message> {
    let properties = publish.properties.unwrap_or_default();
    Some(Message {
        topic: String::from_utf8(publish.topic.to_vec()).ok()?,
        payload: publish.payload,
        retain: publish.retain,
        response_topic: properties.response_topic,
        correlation: properties.correlation_data,
    })
}

/// The sending half.
struct Sender {
    client: AsyncClient,
    shared: Arc<Shared>,
    filters: BTreeSet<String>,
    /// Those of the filters that the broker was not asked for yet, because the event loop was full.
    unmade: BTreeSet<String>,
    waiting: VecDeque<(Message, oneshot::Sender<bool>)>,
    under_way: Option<(oneshot::Sender<bool>, tokio::time::Instant)>,
    /// Acknowledgements that were given up waiting for and may still come, before that of what is under way.
    overdue: u32,
    incoming: super::Sender<Incoming>,
    /// Something was dropped while the link was up; the host has to say everything again.
    lost: bool,
}

impl Sender {
    async fn run(mut self, mut out: super::Receiver<Outgoing>, mut news: mpsc::Receiver<News>) {
        loop {
            let deadline = self.under_way.as_ref().map(|(_, deadline)| *deadline);
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            // Dropping a branch loses nothing: both queues keep what was not received.
            tokio::select! {
                biased;
                heard = news.recv() => match heard {
                    Some(heard) => self.on_news(heard).await,
                    None => return,
                },
                () = late => {
                    self.overdue += 1;
                    self.acknowledged(false);
                }
                () = tokio::time::sleep(SUBSCRIBE_AGAIN), if !self.unmade.is_empty() => self.subscribe_again().await,
                outgoing = out.recv() => match outgoing {
                    Some(outgoing) => self.send(outgoing).await,
                    None => return,
                },
            }
            self.next_acknowledged().await;
        }
    }

    async fn on_news(&mut self, news: News) {
        match news {
            News::Acknowledged(_) if self.overdue > 0 => self.overdue -= 1,
            News::Acknowledged(stored) => self.acknowledged(stored),
            News::Down => {
                self.overdue = 0;
                self.acknowledged(false);
                for (_, told) in self.waiting.drain(..) {
                    // Nobody may wait for it any more.
                    let _ = told.send(false);
                }
            }
            News::Up => {
                self.unmade.clone_from(&self.filters);
                self.subscribe_again().await;
            }
        }
    }

    fn acknowledged(&mut self, stored: bool) {
        if let Some((told, _)) = self.under_way.take() {
            // Nobody may wait for it any more.
            let _ = told.send(stored);
        }
    }

    async fn send(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Publish(message) => {
                let sent = self.is_up() && self.publish(message, QoS::AtMostOnce).await;
                if !sent {
                    self.shared.counters.dropped.fetch_add(1, Ordering::Relaxed);
                    self.lost |= self.is_up();
                } else if self.lost {
                    self.lost = self.incoming.try_send(Incoming::Up).is_err();
                }
            }
            Outgoing::PublishAcknowledged(message, told) => {
                if self.is_up() && self.waiting.len() < WAITING {
                    self.waiting.push_back((message, told));
                } else {
                    // Nobody may wait for it any more.
                    let _ = told.send(false);
                }
            }
            Outgoing::Subscribe(filter) => {
                if self.filters.insert(filter.clone()) && self.is_up() {
                    self.unmade.insert(filter);
                    self.subscribe_again().await;
                }
            }
            Outgoing::Unsubscribe(filter) => {
                self.unmade.remove(&filter);
                if self.filters.remove(&filter) && self.is_up() {
                    let asked = self.client.unsubscribe(filter);
                    drop(tokio::time::timeout(PATIENCE, asked).await);
                }
            }
        }
    }

    async fn next_acknowledged(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        let Some((message, told)) = self.waiting.pop_front() else { return };
        if self.publish(message, QoS::AtLeastOnce).await {
            self.under_way = Some((told, tokio::time::Instant::now() + ACKNOWLEDGED_WITHIN));
        } else {
            // Nobody may wait for it any more.
            let _ = told.send(false);
        }
    }

    fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Acquire)
    }

    async fn publish(&self, message: Message, qos: QoS) -> bool {
        let Message { topic, payload, retain, response_topic, correlation } = message;
        let publish =
            self.client.publish_with_properties(topic, qos, retain, payload, properties(response_topic, correlation));
        matches!(tokio::time::timeout(PATIENCE, publish).await, Ok(Ok(())))
    }

    /// Asks for the filters that were not asked for yet. What finds the event loop full is tried again: a subscription
    /// that is never made is a device that never hears of a wish.
    async fn subscribe_again(&mut self) {
        while self.is_up() && !self.unmade.is_empty() {
            let some: Vec<String> = self.unmade.iter().take(FILTERS_AT_ONCE).cloned().collect();
            let asked = self.client.subscribe_many(some.iter().map(|filter| subscription(filter)));
            if !matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(()))) {
                tracing::warn!("a subscription was not made; it is tried again");
                return;
            }
            for filter in &some {
                self.unmade.remove(filter);
            }
        }
    }
}

fn properties(response_topic: Option<String>, correlation_data: Option<Bytes>) -> PublishProperties {
    PublishProperties { response_topic, correlation_data, ..PublishProperties::default() }
}

fn subscription(filter: &str) -> Filter {
    Filter {
        path: filter.to_owned(),
        qos: QoS::AtLeastOnce,
        retain_forward_rule: RetainForwardRule::OnEverySubscribe,
        ..Filter::default()
    }
}

#[cfg(test)]
mod tests;
