//! The transport for Linux: BlueZ, over D-Bus.
//!
//! In: what [`Transport`] asks. Out: calls to bluetoothd, each with a time limit, and what bluetoothd signals. Must never
//! keep a device's object beyond its connection: bluetoothd forgets devices half a minute after they were last heard.

mod advert;
mod agent;
mod daemon;
mod link;
mod monitor;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocols::ble::{Advertisement, Mac};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use zbus::Variant;
use zbus::fdo::ObjectManager;

use super::transport::{BleError, Event, Pairing, Scan, ScanMode, ScanWish, Transport};
use agent::{Agent, Manners};
use daemon::{ADAPTER, CALL, DEVICE, Daemon, GONE, Method, Objects, flag};
pub use link::BluezLink;
use monitor::{Monitor, Said, There};
use watch::{Board, Ears, LinkState, Watch};

/// Where bluetoothd keeps itself.
const MANAGER: &str = "/org/bluez";
/// The interface agents are registered with.
const AGENTS: &str = "org.bluez.AgentManager1";
/// How long bluetoothd may take to put a monitor in force; then the scan is active.
const MONITOR: Duration = Duration::from_secs(3);
/// How often a device that a passive scan has found, and that bluetoothd has not lost, is said to be there.
const BEAT: Duration = Duration::from_secs(10);
/// How long a controller may take to be switched off or on.
const POWER: Duration = Duration::from_secs(10);

/// BlueZ with one adapter.
pub struct Bluez {
    adapter: String,
    bus: Option<String>,
    open: Option<Open>,
    dropped: u64,
}

/// What there is while the transport is open.
struct Open {
    daemon: Daemon,
    path: String,
    board: Arc<Board>,
    ears: Ears,
    watch: JoinHandle<()>,
    manners: Manners,
    scan: Option<Scanning>,
}

enum Scanning {
    Active,
    Passive { words: mpsc::Receiver<Said>, beat: Beat },
}

/// The task that goes on saying who is there; it ends with the scan.
struct Beat(JoinHandle<()>);

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Beat {
    fn begin(there: There, board: Arc<Board>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                for address in there.all().iter().filter_map(|path| advert::address(path)) {
                    board.on_advert(Advertisement { address: Some(address), ..Advertisement::default() });
                }
            }
        }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Bluez {
    /// The transport on the adapter of that name, such as `hci0`, closed.
    pub fn new(adapter: &str) -> Self {
        Self { adapter: adapter.to_owned(), bus: None, open: None, dropped: 0 }
    }

    /// The same on a bus at another address than the system bus, such as `unix:path=/run/bus`.
    #[must_use]
    pub fn on_bus(mut self, address: &str) -> Self {
        self.bus = Some(address.to_owned());
        self
    }

    fn opened(&mut self) -> Result<&mut Open, BleError> {
        self.open.as_mut().ok_or_else(|| BleError::NoBus("not open".to_owned()))
    }
}

/// The path of an adapter that is there.
fn adapter(objects: &Objects, wanted: &str) -> Result<(String, bool), BleError> {
    let mut there = Vec::new();
    for (path, interfaces) in objects {
        let Some(properties) = interfaces.get(ADAPTER) else { continue };
        let name = path.as_str().rsplit('/').next().unwrap_or_default();
        if name == wanted {
            return Ok((path.to_string(), flag(properties, "Powered")));
        }
        there.push(name.to_owned());
    }
    there.sort_unstable();
    Err(BleError::NoAdapter { wanted: wanted.to_owned(), there })
}

impl Open {
    async fn begin(bus: Option<&str>, wanted: &str) -> Result<Self, BleError> {
        let daemon = Daemon::join(bus).await?;
        let (path, is_powered) = adapter(&daemon.objects().await?, wanted)?;
        if !is_powered {
            power(&daemon, &path, wanted, true).await?;
        }
        let (board, ears) = Board::new();
        let watch = Watch::begin(&daemon, &path, Arc::clone(&board)).await?;
        let manners = Manners::default();
        let open = Self { daemon, path, board, ears, watch: tokio::spawn(watch.run()), manners, scan: None };
        if let Err(error) = open.register_agent().await {
            tracing::warn!(adapter = wanted, %error, "devices cannot be paired with");
        }
        Ok(open)
    }

    async fn register_agent(&self) -> Result<(), BleError> {
        let server = self.daemon.bus.object_server();
        let served = server.at(agent::PATH, Agent(self.manners.clone())).await;
        served.map_err(|error| BleError::Failed { doing: "serve an agent", reason: error.to_string() })?;
        let path = object(agent::PATH);
        self.daemon.call(MANAGER, Method(AGENTS, "RegisterAgent"), &(&path, agent::CAPABILITY), CALL).await?;
        self.daemon.call(MANAGER, Method(AGENTS, "RequestDefaultAgent"), &(&path,), CALL).await.map(drop)
    }

    async fn scan_passively(&self, scan: &Scan) -> Result<Scanning, BleError> {
        let failed = |error: zbus::Error| BleError::Failed { doing: "serve a monitor", reason: error.to_string() };
        let (said, mut words) = mpsc::channel(monitor::WORDS);
        let there = There::default();
        let server = self.daemon.bus.object_server();
        // One that bluetoothd gave back is still there, and is of no use.
        if server.remove::<Monitor, _>(monitor::PATH).await.is_ok() {
            self.end_monitor().await;
        }
        server.at(monitor::ROOT, ObjectManager).await.map_err(failed)?;
        server.at(monitor::PATH, Monitor::new(&scan.patterns, said, there.clone())).await.map_err(failed)?;
        let body = (object(monitor::ROOT),);
        self.daemon.call(&self.path, Method(monitor::MANAGER, "RegisterMonitor"), &body, CALL).await?;
        match tokio::time::timeout(MONITOR, words.recv()).await {
            Ok(Some(Said::Active)) => {
                Ok(Scanning::Passive { words, beat: Beat::begin(there, Arc::clone(&self.board)) })
            }
            Ok(_) => Err(BleError::Failed { doing: "RegisterMonitor", reason: "the monitor was refused".to_owned() }),
            Err(_) => Err(BleError::Timeout("RegisterMonitor")),
        }
    }

    async fn end_monitor(&self) {
        let body = (object(monitor::ROOT),);
        let ended = self.daemon.call(&self.path, Method(monitor::MANAGER, "UnregisterMonitor"), &body, CALL).await;
        let server = self.daemon.bus.object_server();
        // What was never there cannot be taken away, and that is well.
        let gone =
            (server.remove::<Monitor, _>(monitor::PATH).await, server.remove::<ObjectManager, _>(monitor::ROOT).await);
        tracing::debug!(?ended, ?gone, "monitor ended");
    }

    async fn scan_actively(&self) -> Result<(), BleError> {
        // Duplicates: every advertisement is wanted, not only the first of each device.
        let filter: HashMap<&str, Variant<'_>> =
            HashMap::from([("Transport", Variant::from("le")), ("DuplicateData", Variant::from(true))]);
        self.daemon.call(&self.path, Method(ADAPTER, "SetDiscoveryFilter"), &(filter,), CALL).await?;
        let start = || self.daemon.call(&self.path, Method(ADAPTER, "StartDiscovery"), &(), CALL);
        match start().await {
            Err(BleError::Busy(_)) => {
                // A scan of ours that was never ended, or one that is just ending.
                self.stop_discovery().await;
                start().await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn stop_discovery(&self) {
        if let Err(error) = self.daemon.call(&self.path, Method(ADAPTER, "StopDiscovery"), &(), CALL).await {
            tracing::debug!(%error, "no scan to stop");
        }
    }

    async fn quiet(&mut self) {
        match self.scan.take() {
            Some(Scanning::Active) => self.stop_discovery().await,
            Some(Scanning::Passive { beat, .. }) => {
                drop(beat);
                self.end_monitor().await;
            }
            None => {}
        }
        self.ears.scanning.mark_unchanged();
    }

    async fn connect(&mut self, address: Mac, pairing: Pairing, limit: Duration) -> Result<BluezLink, BleError> {
        let end = Instant::now() + limit;
        let device = advert::path(&self.path, address);
        self.manners.set(&device, pairing);
        let mut state = self.board.follow(&device);
        let done = self.connect_until(&device, &mut state, end).await;
        let known = match done {
            Ok(known) => known,
            Err(error) => {
                // An attempt that is still under way would hold the radio, and surprise the next one.
                if !matches!(error, BleError::NotFound(_)) {
                    link::hang_up(&self.daemon, &device).await;
                }
                self.board.forget(&device);
                return Err(match error {
                    BleError::Failed { reason, .. } if reason == GONE => BleError::NotFound(address),
                    other => other,
                });
            }
        };
        let (daemon, board) = (self.daemon.clone(), Arc::clone(&self.board));
        Ok(BluezLink { daemon, board, device, state, known, pairing })
    }

    async fn connect_until(
        &self,
        device: &str,
        state: &mut tokio::sync::watch::Receiver<LinkState>,
        end: Instant,
    ) -> Result<link::Characteristics, BleError> {
        let left = || end.saturating_duration_since(Instant::now());
        self.daemon.call(device, Method(DEVICE, "Connect"), &(), left()).await?;
        let objects = self.daemon.objects().await?;
        // It may have been connected, and known, before we began to follow it.
        let now = link::state(&objects, device).unwrap_or_default();
        if !now.connected {
            return Err(BleError::Disconnected("at once".to_owned()));
        }
        self.board.add(device, now);
        if !now.resolved {
            let resolved = state.wait_for(|link| link.resolved || !link.connected);
            match tokio::time::timeout(left(), resolved).await {
                Ok(Ok(link)) if link.resolved => {}
                Ok(_) => return Err(BleError::Disconnected("while its services were read".to_owned())),
                Err(_) => return Err(BleError::Timeout("service discovery")),
            }
            return Ok(link::characteristics(&self.daemon.objects().await?, device));
        }
        Ok(link::characteristics(&objects, device))
    }
}

fn object(path: &'static str) -> zbus::ObjectPath<'static> {
    zbus::ObjectPath::from_static_str_unchecked(path)
}

async fn power(daemon: &Daemon, path: &str, name: &str, on: bool) -> Result<(), BleError> {
    let set = tokio::time::timeout(POWER, daemon.set(path, ADAPTER, "Powered", Variant::from(on))).await;
    match set {
        Ok(Err(BleError::Failed { reason, .. })) if reason.contains("Blocked") || reason.contains("rfkill") => {
            Err(BleError::Blocked(name.to_owned()))
        }
        Ok(done) => done,
        Err(_) => Err(BleError::Timeout("switching the adapter")),
    }
}

impl Transport for Bluez {
    type Link = BluezLink;

    async fn open(&mut self) -> Result<(), BleError> {
        self.close().await;
        self.open = Some(Open::begin(self.bus.as_deref(), &self.adapter).await?);
        Ok(())
    }

    async fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        self.dropped += open.board.dropped.load(Ordering::Relaxed);
        if open.ears.lost.borrow().is_none() {
            open.quiet().await;
            for device in open.board.connected() {
                link::hang_up(&open.daemon, &device).await;
                open.board.forget(&device);
            }
        }
        // Closing the bus ends everything that bluetoothd does for us: agent, monitors, scans.
        open.watch.abort();
        let bus = open.daemon.bus.clone();
        drop(open);
        let _ = tokio::time::timeout(CALL, bus.close()).await;
    }

    async fn scan(&mut self, scan: &Scan) -> Result<ScanMode, BleError> {
        let open = self.opened()?;
        open.quiet().await;
        if scan.wish == ScanWish::Auto && !scan.patterns.is_empty() {
            match open.scan_passively(scan).await {
                Ok(scanning) => {
                    open.scan = Some(scanning);
                    return Ok(ScanMode::Passive);
                }
                Err(error) => {
                    tracing::debug!(%error, "no passive scan, so it is an active one");
                    open.end_monitor().await;
                }
            }
        }
        open.scan_actively().await?;
        open.ears.scanning.mark_unchanged();
        open.scan = Some(Scanning::Active);
        Ok(ScanMode::Active)
    }

    async fn quiet(&mut self) {
        if let Some(open) = &mut self.open {
            open.quiet().await;
        }
    }

    async fn reset(&mut self) -> Result<(), BleError> {
        let adapter = self.adapter.clone();
        let open = self.opened()?;
        open.quiet().await;
        open.watch.abort();
        power(&open.daemon, &open.path, &adapter, false).await?;
        power(&open.daemon, &open.path, &adapter, true).await?;
        let watch = Watch::begin(&open.daemon, &open.path, Arc::clone(&open.board)).await?;
        open.watch = tokio::spawn(watch.run());
        Ok(())
    }

    async fn event(&mut self) -> Event {
        let Some(open) = &mut self.open else { return std::future::pending().await };
        loop {
            let is_active = matches!(open.scan, Some(Scanning::Active));
            tokio::select! {
                biased;
                Ok(()) = async { open.ears.lost.wait_for(Option::is_some).await.map(drop) } => {
                    let reason = open.ears.lost.borrow().clone();
                    return Event::Lost(reason.unwrap_or_default());
                }
                heard = open.ears.adverts.recv() => match heard {
                    Some(heard) => return Event::Heard(heard),
                    None => return Event::Lost("the watch over the bus has ended".to_owned()),
                },
                Ok(()) = open.ears.scanning.changed(), if is_active => {
                    if !*open.ears.scanning.borrow_and_update() {
                        open.scan = None;
                        return Event::ScanEnded("bluetoothd ended it".to_owned());
                    }
                }
                () = released(&mut open.scan) => {
                    open.scan = None;
                    return Event::ScanEnded("bluetoothd gave the monitor back".to_owned());
                }
            }
        }
    }

    async fn connect(&mut self, address: Mac, pairing: Pairing, limit: Duration) -> Result<BluezLink, BleError> {
        self.opened()?.connect(address, pairing, limit).await
    }

    fn dropped(&self) -> u64 {
        self.dropped + self.open.as_ref().map_or(0, |open| open.board.dropped.load(Ordering::Relaxed))
    }
}

/// Waits until bluetoothd gives a monitor back.
async fn released(scan: &mut Option<Scanning>) {
    let Some(Scanning::Passive { words, .. }) = scan else { return std::future::pending().await };
    loop {
        match words.recv().await {
            Some(Said::Active) => {}
            Some(Said::Released) | None => return,
        }
    }
}
