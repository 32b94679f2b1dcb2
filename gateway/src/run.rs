//! A running gateway: the rooms put together, told what changed, and taken apart again.
//!
//! In: a loaded configuration. Out: a broker with twins behind it and mappers on its wires; `gateway/status` and
//! `gateway/devices` for whoever wants to know. Must never leave a queue unflushed when it stops.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use mappers::fleet::Mappers;
use protocols::config::{Config, Device, Wire};
use protocols::kubeedge::dmi::KEPT;
use protocols::topic;
use protocols::value::{Timestamp, Value};
use protocols::yaml::Complaint;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::bridge::{self, Bridge};
use crate::broker::desk::Desk;
use crate::broker::{self, Broker, Own, Settings};
use crate::config::{self, Loaded};
use crate::gone;
use crate::kubeedge::{self, Window};
use crate::store::{self, Store};
use crate::supervisor::Rooms;
use crate::twin::{self, Twins, Voice, Word};

/// The retained list of devices: id, profile, connection, unit and the root of its topics.
pub const DEVICES_TOPIC: &str = "gateway/devices";

/// Complaints about a refused configuration that `gateway/status` repeats; the log has them all.
pub const STATUS_COMPLAINTS: usize = 20;

/// How often `gateway/status` is told when nothing happens.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The broker cannot listen, or cannot read its keys.
    #[error(transparent)]
    Broker(#[from] broker::StartError),
    /// The twins cannot be brought back.
    #[error(transparent)]
    Twins(#[from] twin::StartError),
    /// The socket of the device mapper interface cannot be had.
    #[cfg(feature = "dmi")]
    #[error("the device mapper interface: {0}")]
    Dmi(#[from] crate::dmi::SocketError),
}

/// A running gateway.
pub struct Gateway {
    path: PathBuf,
    config: Config,
    since: Timestamp,
    broker: Arc<Broker>,
    store: Arc<Store>,
    twins: Arc<Twins>,
    mappers: Option<Mappers>,
    /// How the files were taken the last time, as `gateway/status` says it.
    reloaded: Value,
    bridge: Bridge,
    #[cfg(feature = "dmi")]
    dmi: Option<crate::dmi::Dmi>,
    /// For those who have to know the devices of the configuration in force.
    devices: watch::Sender<Vec<Arc<Device>>>,
    clock: mappers::clock::Clock,
    stop: CancellationToken,
}

/// The twins' voice: the broker, once it is there.
#[derive(Default)]
struct Mouth(OnceLock<Arc<Broker>>);

impl Voice for Mouth {
    fn say(&self, words: Vec<Word>) {
        if let Some(broker) = self.0.get() {
            broker.publish_all(words);
        }
    }
}

impl Gateway {
    /// Starts everything. `with_mappers` leaves the wires to mappers in other processes when it is false.
    ///
    /// # Errors
    /// When the store, the broker or the twins cannot start; nothing is left running then.
    pub async fn start(path: PathBuf, loaded: Loaded, with_mappers: bool) -> Result<Self, GatewayError> {
        let stop = CancellationToken::new();
        let clock = mappers::clock::Clock::new();
        let data = loaded.path(&loaded.config.data);
        let store = Arc::new(Store::open(&data, store::Options::default())?);
        warn_of_the_unclean(&store);
        let mouth = Arc::new(Mouth::default());
        let desk = Arc::new(Reception::default());
        let broker = Broker::bind(Settings {
            listeners: loaded.config.broker.listeners.clone(),
            anonymous: loaded.config.broker.anonymous,
            limits: loaded.config.broker.limits,
            users: loaded.config.broker.users.is_some().then(|| loaded.users.clone()),
            base: loaded.folder.clone(),
            root: loaded.config.twin.root.clone(),
            shelf: store.clone(),
            desk: desk.clone(),
            stop: stop.clone(),
        })
        .await?;
        let broker = Arc::new(broker);
        // Ignoring is right: both are set here for the first time.
        let _ = mouth.0.set(broker.clone());
        let now = Arc::new(move || clock.now());
        let twins = Arc::new(Twins::start(&loaded.config, store.clone(), mouth, now)?);
        let _ = desk.0.set(twins.clone());
        let (devices, watched) = watch::channel(loaded.config.devices.clone());
        if let Some(settings) = loaded.config.kubeedge.clone() {
            let devices = devices.subscribe();
            let window = kubeedge::start(settings, &loaded.config, &broker, devices, clock, stop.child_token());
            // Set here for the first time, like those above.
            let _ = desk.1.set(window);
        }
        #[cfg(feature = "dmi")]
        let dmi = crate::dmi::Dmi::start(crate::dmi::Surroundings {
            config: &loaded.config,
            broker: &broker,
            base: &loaded.folder,
            clock,
            stop: stop.child_token(),
        })
        .await?;
        // The bridge listens before anybody speaks, and everything retained is in place before the first client comes in.
        let base = loaded.folder.clone();
        let around = bridge::Surroundings { store: store.clone(), broker: broker.clone(), clock, base };
        let bridge = Bridge::start(&loaded.config, around).await;
        broker.serve();
        let mappers = with_mappers.then(|| {
            let bus_broker = broker.clone();
            // `admin`, because a request may name any response topic; what is reserved stays so for mappers too.
            let buses = Arc::new(move |connection: &str| bus_broker.attach(&format!("mapper-{connection}"), "admin"));
            Mappers::start(&loaded.config, buses, loaded.probes(), stop.child_token())
        });
        let bus = broker.attach("gateway-watch", "admin");
        tokio::spawn(gone::watch(bus, loaded.config.twin.root.clone(), watched, stop.child_token()));
        let since = clock.now().wall;
        let reloaded = outcome(since, &[]);
        let config = loaded.config;
        let gateway = Self {
            path,
            config,
            since,
            broker,
            store,
            twins,
            mappers,
            reloaded,
            bridge,
            #[cfg(feature = "dmi")]
            dmi,
            devices,
            clock,
            stop,
        };
        gateway.tell_devices();
        gateway.tell_status("online");
        info!(gateway = %gateway.config.id, devices = gateway.config.devices.len(), "started");
        Ok(gateway)
    }

    /// Where the broker listens.
    pub fn bound(&self) -> Vec<(String, SocketAddr)> {
        self.broker.bound()
    }

    /// The configuration that is in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the files again and makes them true: devices, profiles, connections and users. A file that does not check is
    /// refused, and everything stays as it is; `gateway/status` says so. Returns the files to watch from now on.
    ///
    /// # Errors
    /// Every complaint about the files.
    pub async fn reload(&mut self) -> Result<Vec<PathBuf>, Vec<Complaint>> {
        let result = match config::load(&self.path) {
            Ok(loaded) => Ok(self.take(loaded).await),
            Err(complaints) => Err(complaints),
        };
        let complaints = result.as_ref().err().map_or(&[][..], Vec::as_slice);
        self.reloaded = outcome(self.clock.now().wall, complaints);
        self.tell_status("online");
        result
    }

    async fn take(&mut self, loaded: Loaded) -> Vec<PathBuf> {
        self.warn_of_the_unchangeable(&loaded.config);
        let config = Config {
            id: self.config.id.clone(),
            data: self.config.data.clone(),
            broker: self.config.broker.clone(),
            twin: self.config.twin.clone(),
            kubeedge: self.config.kubeedge.clone(),
            ..loaded.config
        };
        self.broker.set_users(config.broker.users.is_some().then_some(loaded.users));
        // The twins first, so that they know a device before its mapper speaks of it.
        let (twins, for_twins) = (self.twins.clone(), config.clone());
        if tokio::task::spawn_blocking(move || twins.reload(&for_twins)).await.is_err() {
            warn!("the twins did not take the new configuration");
        }
        if let Some(mappers) = &mut self.mappers {
            mappers.reload(&config).await;
        }
        self.devices.send_replace(config.devices.clone());
        #[cfg(feature = "dmi")]
        if let Some(dmi) = &self.dmi {
            dmi.reload(&config);
        }
        self.bridge.reload(&config, &self.config.devices).await;
        self.config = config;
        self.tell_devices();
        info!(devices = self.config.devices.len(), "reloaded");
        loaded.files
    }

    fn warn_of_the_unchangeable(&self, new: &Config) {
        let changed = [
            ("gateway.id", new.id != self.config.id),
            ("gateway.data", new.data != self.config.data),
            ("broker", new.broker != self.config.broker),
            ("twin", new.twin != self.config.twin),
            ("compat", new.kubeedge != self.config.kubeedge),
        ];
        for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
            warn!(key, "changed in the file, and taken over at the next start only");
        }
    }

    /// Rings when how an upstream stands has changed, so that `gateway/status` can say so at once.
    pub fn upstream_changed(&self) -> Arc<Notify> {
        self.bridge.changed()
    }

    /// The rooms that have to answer for the gateway to be alive.
    pub(crate) fn rooms(&self) -> Rooms {
        Rooms { broker: self.broker.clone(), store: self.store.clone(), twins: self.twins.clone() }
    }

    /// How it stands, in one line for the service manager; the whole is [`Gateway::status`].
    pub fn summary(&self) -> String {
        let store = self.store.trouble().unwrap_or_else(|| "good".to_owned());
        let (devices, clients) = (self.config.devices.len(), self.broker.stats().clients);
        let mut text = format!("{}: {devices} devices, {clients} clients; store {store}", self.config.id);
        for (name, state) in self.bridge.status().0 {
            text.push_str(&format!("; {name} {}", state.as_str().unwrap_or_default()));
        }
        if self.reloaded.pointer("/state").and_then(Value::as_str) == Some("refused") {
            text.push_str("; the saved files do not check and are not in force");
        }
        // One line is what the service manager takes.
        text.replace(|letter: char| letter.is_control(), " ")
    }

    /// Publishes `gateway/status`.
    pub fn tell_status(&self, state: &str) {
        self.say(topic::GATEWAY_STATUS, &self.status(state));
    }

    fn tell_devices(&self) {
        let devices: Vec<Value> = self
            .config
            .devices
            .iter()
            .map(|device| {
                json!({
                    "id": device.id,
                    "profile": device.profile.label(),
                    "connection": device.connection,
                    "unit": device.unit,
                    "radio": device.ble.is_some(),
                    "external": self.external_protocol(device),
                    "root": self.config.twin.root,
                })
            })
            .collect();
        self.say(DEVICES_TOPIC, &json!({"devices": devices}));
    }

    /// What is spoken to a device whose mapper is no part of this program.
    fn external_protocol(&self, device: &Device) -> Option<&str> {
        match &self.config.connections.get(&device.connection)?.wire {
            Wire::External(external) => Some(&external.protocol),
            _ => None,
        }
    }

    fn say(&self, topic: &str, document: &Value) {
        let payload = Bytes::from(document.to_string());
        self.broker.publish(Own { topic: topic.to_owned(), payload, qos: 1, retain: true, ..Own::default() });
    }

    /// What `gateway/status` says: the contract's keys, and the health of broker, store, twins and mappers.
    pub fn status(&self, state: &str) -> Value {
        let broker = self.broker.stats();
        let store = self.store.stats();
        let twins = self.twins.counts();
        let dropped = broker.dropped;
        let (upstream, upstreams) = self.bridge.status();
        json!({
            "gateway": self.config.id,
            "state": state,
            "version": env!("CARGO_PKG_VERSION"),
            "since": self.since,
            "devices": self.config.devices.len(),
            "reload": self.reloaded,
            "upstream": upstream,
            "upstreams": upstreams,
            "broker": {
                "clients": broker.clients,
                "sessions": broker.sessions,
                "subscriptions": broker.subscriptions,
                "retained": broker.retained,
                "retained_bytes": broker.retained_bytes,
                "queued_bytes": broker.queued_bytes,
                "messages_in": broker.messages_in,
                "messages_out": broker.messages_out,
                "dropped": dropped.queue_full + dropped.expired + dropped.too_large + dropped.session_ended,
                "dropped_queue_full": dropped.queue_full,
                "dropped_expired": dropped.expired,
                "dropped_too_large": dropped.too_large,
                "dropped_session_ended": dropped.session_ended,
                "refused_publishes": broker.refused_publishes,
                "refused_clients": broker.refused_clients,
                "faults": broker.faults,
            },
            "store": {
                "state": self.store.trouble().unwrap_or_else(|| "good".to_owned()),
                "epoch": self.store.opened().epoch,
                "commits": store.commits,
                "failures": store.failures,
                "dropped": store.dropped,
                "bytes_written": store.written_bytes + store.checkpoint_bytes,
                "journal_bytes": store.journal_bytes,
                "waiting_bytes": store.queue_bytes,
            },
            "twins": {
                "requests": twins.requests,
                "refused": twins.refused,
                "readings": twins.readings,
                "unknown_readings": twins.unknown_readings,
                "stale_acks": twins.stale_acks,
                "expired": twins.expired,
                "overflows": twins.overflows,
            },
            "mappers": {"restarts": self.mappers.as_ref().map(Mappers::restarts).unwrap_or_default()},
            "dmi": self.dmi_status(),
            "uptime_s": self.clock.tick() / 1000,
        })
    }

    #[cfg(feature = "dmi")]
    fn dmi_status(&self) -> Value {
        self.dmi.as_ref().map_or(Value::Null, crate::dmi::Dmi::status)
    }

    #[cfg(not(feature = "dmi"))]
    fn dmi_status(&self) -> Value {
        Value::Null
    }

    /// Stops cleanly: the wires are left in peace, queues flushed, clients told, the store closed.
    pub async fn stop(mut self) {
        if let Some(mappers) = self.mappers.take() {
            mappers.stop().await;
        }
        let twins = self.twins.clone();
        if tokio::task::spawn_blocking(move || twins.stop()).await.is_err() {
            warn!("the twins did not stop in order");
        }
        self.tell_status("offline");
        // After the last word of twins and gateway, so that the other side hears it too.
        self.bridge.stop().await;
        self.broker.shutdown().await;
        self.stop.cancel();
        #[cfg(feature = "dmi")]
        if let Some(dmi) = self.dmi.take() {
            dmi.ended().await;
        }
        let store = self.store.clone();
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            warn!("the store did not close in order");
        }
        info!(gateway = %self.config.id, "stopped");
    }
}

/// Hands requests on to the twins, which start after the broker has read what it kept, and to KubeEdge's window.
#[derive(Default)]
struct Reception(OnceLock<Arc<Twins>>, OnceLock<Window>);

impl Desk for Reception {
    fn claim(&self, topic: &str) -> broker::desk::Claim {
        match self.0.get() {
            // What the gateway itself says of its devices is nobody else's to say.
            Some(_) if topic == DEVICES_TOPIC || topic.starts_with(KEPT) || bridge::is_answer(topic) => {
                broker::desk::Claim::Reserved
            }
            Some(twins) => match self.1.get().and_then(|_| Window::claim(topic)) {
                Some(claim) => claim,
                None => twins.claim(topic),
            },
            None => broker::desk::Claim::Reserved,
        }
    }

    fn is_pressed(&self) -> bool {
        self.0.get().is_some_and(|twins| twins.is_pressed())
    }

    fn relief(&self) -> Option<&tokio::sync::Notify> {
        self.0.get()?.relief()
    }

    fn take(&self, request: broker::desk::Request) {
        if let Some(window) = self.1.get().filter(|_| Window::claim(&request.topic).is_some()) {
            return window.take(request);
        }
        match self.0.get() {
            Some(twins) => twins.take(request),
            None => drop(request),
        }
    }
}

/// How the files were taken: `applied`, or `refused` with what is wrong with them.
fn outcome(at: Timestamp, complaints: &[Complaint]) -> Value {
    let state = if complaints.is_empty() { "applied" } else { "refused" };
    let errors: Vec<&Complaint> = complaints.iter().take(STATUS_COMPLAINTS).collect();
    json!({"at": at, "state": state, "errors": errors})
}

fn warn_of_the_unclean(store: &Store) {
    let opened = store.opened();
    if let Some(place) = &opened.set_aside {
        tracing::error!(
            file = %place.display(), epoch = %opened.epoch,
            "the store was damaged: it was set aside, and a new one is built from the devices"
        );
    } else if !opened.clean && !opened.fresh {
        warn!("the gateway was not stopped in order the last time; what was acknowledged is all there");
    }
}

/// Waits for SIGTERM or Ctrl-C.
pub async fn stop_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            // Without a handler the process ends by the signal itself.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        // Either ends the process; nothing is lost in the other branch.
        _ = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
