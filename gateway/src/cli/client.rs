//! The command line's own MQTT client: it speaks to a running gateway through the same topics as everybody else.
//!
//! In: where the broker is. Out: requests with their answers, and messages of subscriptions. Must never wait without
//! an end.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Filter, Packet, PubAck, PubAckReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{TlsConfiguration, Transport};
use tokio::time::{Instant, timeout_at};

use super::failure::{Failure, Kind};

/// How long a connect, a subscription or an answer may take before the command gives up.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest message a command takes, in bytes.
const PACKET_BYTES: u32 = 16 << 20;

/// Where the running gateway is.
#[derive(Args, Clone, Debug)]
pub(super) struct Where {
    /// The gateway's broker, such as mqtt://127.0.0.1:1883 or mqtts://user:password@plant-7.example:8883.
    /// Without it, -c decides, then the environment's TIDEGATE_BROKER, then mqtt://127.0.0.1:1883.
    #[arg(long, value_name = "URL", global = true, conflicts_with = "config")]
    broker: Option<String>,
    /// Take the address from this configuration instead.
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The authority that signed the broker's certificate (PEM), for mqtts.
    #[arg(long, env = "TIDEGATE_CA", value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
}

/// A broker's address taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS.
    pub tls: bool,
    /// User name and password.
    pub login: Option<(String, String)>,
}

impl Address {
    /// Takes `mqtt[s]://[user[:password]@]host[:port]` apart; a bare `host[:port]` is taken as `mqtt://`.
    ///
    /// # Errors
    /// When it has another form.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::new(Kind::Usage, format!("\"{url}\" is no broker address: {why}"))
                .hint("write mqtt://host:1883 or mqtts://user:password@host:8883")
        };
        let (tls, rest) = match url.split_once("://") {
            Some(("mqtt" | "tcp", rest)) => (false, rest),
            Some(("mqtts" | "ssl" | "tls", rest)) => (true, rest),
            Some(_) => return Err(wrong("only mqtt:// and mqtts:// are spoken")),
            None => (false, url),
        };
        let (login, host) = match rest.trim_end_matches('/').rsplit_once('@') {
            Some((login, host)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((user.to_owned(), password.to_owned())), host)
            }
            None => (None, rest.trim_end_matches('/')),
        };
        let port = if tls { 8883 } else { 1883 };
        let (host, port) = match host.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                (name, digits.parse().map_err(|_| wrong("the port is a number from 1 to 65535"))?)
            }
            _ => (host, port),
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port, tls, login })
    }
}

impl Where {
    /// The address the command line, the environment or the configuration names; `mqtt://127.0.0.1:1883` otherwise.
    ///
    /// # Errors
    /// When it has no usable form, or the configuration cannot be read.
    pub(super) fn address(&self) -> Result<Address, Failure> {
        address(self.broker.as_deref(), self.config.as_deref())
    }

    /// Connects.
    ///
    /// # Errors
    /// When the broker is not there, or does not let us in.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        Client::connect(self.address()?, self.ca.as_deref()).await
    }
}

/// The address named by a flag, else by a configuration, else by the environment, else the usual one.
///
/// # Errors
/// When it has no usable form, or the configuration cannot be read.
pub(super) fn address(flag: Option<&str>, config: Option<&Path>) -> Result<Address, Failure> {
    match (flag, config, std::env::var("TIDEGATE_BROKER")) {
        (Some(url), ..) => Address::parse(url),
        (None, Some(path), _) => address_of(path),
        (None, None, Ok(url)) => Address::parse(&url),
        (None, None, Err(_)) => Address::parse("mqtt://127.0.0.1:1883"),
    }
}

fn address_of(path: &Path) -> Result<Address, Failure> {
    let loaded = crate::config::load(path).map_err(|complaints| super::complain(&complaints))?;
    let listeners = &loaded.config.broker.listeners;
    let listener = listeners.iter().find(|listener| !listener.websocket && listener.tls.is_none());
    let listener = listener.ok_or_else(|| {
        Failure::new(Kind::Usage, format!("{} has no plain MQTT listener", path.display()))
            .hint("name the broker with --broker mqtts://user:password@host:8883 --ca FILE")
    })?;
    let ip = listener.bind.ip();
    let host = if ip.is_unspecified() { "127.0.0.1".to_owned() } else { ip.to_string() };
    Ok(Address { host, port: listener.bind.port(), tls: false, login: None })
}

/// A connected client.
pub(super) struct Client {
    client: AsyncClient,
    events: EventLoop,
    reply_topic: String,
    address: Address,
    /// Messages that came before the word on their subscription.
    early: VecDeque<Publish>,
}

impl Client {
    /// Connects and waits for the broker's word.
    ///
    /// # Errors
    /// When the broker is not there in time, or refuses.
    pub(super) async fn connect(address: Address, ca: Option<&Path>) -> Result<Self, Failure> {
        let id = format!("tidegate-cli-{}", ulid::Ulid::generate().to_string().to_lowercase());
        let reply_topic = format!("gateway/reply/{id}");
        let mut options = MqttOptions::new(id, address.host.clone(), address.port);
        options.set_clean_start(true).set_max_packet_size(Some(PACKET_BYTES)).set_keep_alive(Duration::from_secs(30));
        options.set_connection_timeout(ANSWER_TIMEOUT.as_secs());
        if let Some((user, password)) = &address.login {
            options.set_credentials(user, password);
        }
        if address.tls {
            options.set_transport(Transport::Tls(tls(ca)?));
        }
        let (client, events) = AsyncClient::new(options, 64);
        let mut this = Self { client, events, reply_topic, address, early: VecDeque::new() };
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            if let Packet::ConnAck(_) = this.packet(deadline).await? {
                return Ok(this);
            }
        }
    }

    /// The next packet from the broker.
    async fn packet(&mut self, deadline: Instant) -> Result<Packet, Failure> {
        loop {
            let event = timeout_at(deadline, self.events.poll()).await.map_err(|_| {
                Failure::new(Kind::TryAgain, format!("the gateway at {} did not answer in time", self.place()))
            })?;
            match event {
                Ok(Event::Incoming(packet)) => return Ok(packet),
                Ok(Event::Outgoing(_)) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn place(&self) -> String {
        format!("{}:{}", self.address.host, self.address.port)
    }

    fn broken(&self, error: ConnectionError) -> Failure {
        let place = self.place();
        match error {
            ConnectionError::ConnectionRefused(code)
            | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    Failure::new(Kind::NotAllowed, format!("the gateway at {place} does not let us in"))
                        .hint("name a user: --broker mqtt://user:password@host:port")
                }
                code => Failure::new(Kind::Unreachable, format!("the gateway at {place} refuses: {code:?}")),
            },
            error => Failure::new(Kind::Unreachable, format!("cannot reach the gateway at {place}: {error}"))
                .hint("is it running? start it with: tidegate run -c gateway.yaml"),
        }
    }

    /// Subscribes and waits for the broker's word.
    ///
    /// # Errors
    /// When the broker does not allow it, or is away.
    pub(super) async fn subscribe(&mut self, filters: &[String]) -> Result<(), Failure> {
        let wanted = filters.iter().map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce));
        let sent = self.client.subscribe_many(wanted).await;
        sent.map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match self.packet(deadline).await? {
                Packet::SubAck(ack)
                    if ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))) =>
                {
                    return Ok(());
                }
                Packet::SubAck(_) => {
                    return Err(Failure::new(Kind::NotAllowed, format!("may not read {}", filters.join(", "))));
                }
                // A retained message may overtake the word; it is ours all the same.
                Packet::Publish(publish) => self.early.push_back(publish),
                _ => {}
            }
        }
    }

    /// The next message of a subscription, or `None` when the time is over.
    ///
    /// # Errors
    /// When the link breaks.
    pub(super) async fn next(&mut self, until: Instant) -> Result<Option<Publish>, Failure> {
        if let Some(publish) = self.early.pop_front() {
            return Ok(Some(publish));
        }
        loop {
            match self.packet(until).await {
                Ok(Packet::Publish(publish)) => return Ok(Some(publish)),
                Ok(_) => {}
                Err(_) if Instant::now() >= until => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Publishes a request with a response topic.
    ///
    /// # Errors
    /// When the link is gone.
    pub(super) async fn ask(&mut self, topic: &str, payload: impl Into<Bytes>) -> Result<(), Failure> {
        let properties = PublishProperties {
            response_topic: Some(self.reply_topic.clone()),
            correlation_data: Some(Bytes::from_static(b"cli")),
            ..PublishProperties::default()
        };
        let sent =
            self.client.publish_with_properties(topic, QoS::AtLeastOnce, false, payload.into(), properties).await;
        sent.map_err(|error| Failure::new(Kind::Internal, error.to_string()))
    }

    /// Asks and waits for the answer on the response topic.
    ///
    /// # Errors
    /// When no answer comes in time, or the request is refused.
    pub(super) async fn request(&mut self, topic: &str, payload: impl Into<Bytes>) -> Result<Bytes, Failure> {
        self.listen_for_replies().await?;
        self.ask(topic, payload).await?;
        let mut until = Instant::now() + ANSWER_TIMEOUT;
        let mut refusal = None;
        let mut others = VecDeque::new();
        loop {
            match self.packet(until).await {
                Ok(Packet::Publish(message)) if self.is_reply(&message) => {
                    self.early.extend(others);
                    return Ok(message.payload);
                }
                Ok(Packet::Publish(message)) => others.push_back(message),
                Ok(Packet::PubAck(ack)) => {
                    refusal = refused(&ack, topic);
                    if refusal.is_some() {
                        // The words, if there are any, come close by.
                        until = Instant::now() + Duration::from_millis(300);
                    }
                }
                Ok(_) => {}
                Err(failure) if Instant::now() < until => return Err(failure),
                Err(_) => break,
            }
        }
        let text = format!("nobody answered on {topic} within {} s", ANSWER_TIMEOUT.as_secs());
        Err(refusal.unwrap_or_else(|| Failure::new(Kind::TryAgain, text)))
    }

    /// Subscribes to our own response topic.
    ///
    /// # Errors
    /// When the broker does not allow it.
    pub(super) async fn listen_for_replies(&mut self) -> Result<(), Failure> {
        let topic = self.reply_topic.clone();
        self.subscribe(&[topic]).await
    }

    /// Says whether the message is an answer to us.
    pub(super) fn is_reply(&self, message: &Publish) -> bool {
        message.topic == self.reply_topic.as_bytes()
    }

    /// Collects the retained messages of the filters: everything that comes until nothing has come for a moment.
    ///
    /// # Errors
    /// When the link breaks or reading is not allowed.
    pub(super) async fn retained(&mut self, filters: &[String]) -> Result<Vec<(String, Bytes)>, Failure> {
        /// After this long without a message the retained ones are taken to be complete.
        const QUIET: Duration = Duration::from_millis(300);
        self.subscribe(filters).await?;
        let mut all = Vec::new();
        while let Some(message) = self.next(Instant::now() + QUIET).await? {
            all.push((String::from_utf8_lossy(&message.topic).into_owned(), message.payload));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Says good-bye, so that the broker does not take us for lost.
    pub(super) async fn close(mut self) {
        if self.client.disconnect().await.is_ok() {
            let deadline = Instant::now() + Duration::from_millis(500);
            while let Ok(Ok(event)) = timeout_at(deadline, self.events.poll()).await {
                if matches!(event, Event::Outgoing(rumqttc::Outgoing::Disconnect)) {
                    break;
                }
            }
        }
    }
}

/// What a PUBACK refuses, if it does.
fn refused(ack: &PubAck, topic: &str) -> Option<Failure> {
    let why = ack.properties.as_ref().and_then(|properties| properties.reason_string.clone());
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
        PubAckReason::NotAuthorized => Some(Failure::new(Kind::NotAllowed, format!("may not write {topic}{why}"))),
        PubAckReason::QuotaExceeded => Some(Failure::new(Kind::TryAgain, format!("the gateway is too busy{why}"))),
        _ => Some(Failure::new(Kind::Data, format!("the gateway refuses the message{why}"))),
    }
}

fn tls(ca: Option<&Path>) -> Result<TlsConfiguration, Failure> {
    let path = ca.ok_or_else(|| {
        Failure::new(Kind::Usage, "mqtts needs to know whom to trust").hint("name the authority with --ca FILE")
    })?;
    let ca = std::fs::read(path)
        .map_err(|error| Failure::new(Kind::Io, format!("cannot read {}: {error}", path.display())))?;
    Ok(TlsConfiguration::Simple { ca, alpn: None, client_auth: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_addresses_are_taken_apart() {
        let address = |host: &str, port, tls, login: Option<(&str, &str)>| Address {
            host: host.to_owned(),
            port,
            tls,
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
        };
        for (url, expected) in [
            ("mqtt://127.0.0.1:1884", address("127.0.0.1", 1884, false, None)),
            ("mqtts://gw.example", address("gw.example", 8883, true, None)),
            ("mqtt://a:b@c:1/", address("c", 1, false, Some(("a", "b")))),
            ("gw", address("gw", 1883, false, None)),
            ("gw:99", address("gw", 99, false, None)),
            ("mqtt://[::1]:1883", address("::1", 1883, false, None)),
        ] {
            assert_eq!(Address::parse(url).unwrap(), expected, "{url}");
        }
        for url in ["http://a", "mqtt://", "mqtt://a:port"] {
            assert_eq!(Address::parse(url).unwrap_err().code(), 2, "{url}");
        }
    }
}
