//! All the mappers of a configuration: one task for each wire, started, watched, given new devices, stopped.
//!
//! In: a configuration, and a way to make a bus for each wire. Out: running hosts. Must never disturb a wire that a new
//! configuration leaves alone, nor let a task end unnoticed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocols::config::{Config, Connection, Device, Wire as ProtocolWire};
use protocols::profile::{Profile, Protocol};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[cfg(all(feature = "ble", target_os = "linux"))]
use crate::ble::bluez::Bluez;
use crate::ble::port::BlePort;
use crate::ble::transport::{BleError, Transport};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::host::{Host, Setup};
use crate::modbus::port::ModbusPort;
use crate::port::{Port, Probes};
use crate::serial::port::SerialPort;

/// From the end of a task that should not have ended to its next start.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Makes the bus of a wire, by the connection's name; called again when its task has to be started again.
pub type BusFactory = Arc<dyn Fn(&str) -> Bus + Send + Sync>;

/// The running mappers of a configuration.
pub struct Mappers {
    wires: BTreeMap<String, Running>,
    buses: BusFactory,
    probes: Probes,
    clock: Clock,
    root: String,
    stop: CancellationToken,
}

struct Running {
    connection: Arc<Connection>,
    devices: watch::Sender<Vec<Arc<Device>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    restarts: watch::Receiver<u64>,
}

impl Mappers {
    /// Starts a task for every wire of the configuration. `probes` gives the profiles a scan tries to recognise, the
    /// configured devices' own are added. Cancelling `stop` ends all; [`Mappers::stop`] waits for it.
    pub fn start(config: &Config, buses: BusFactory, probes: Probes, stop: CancellationToken) -> Self {
        let mut own: Vec<Arc<Profile>> = Vec::new();
        add_unknown(&mut own, config.devices.iter().map(|device| &device.profile));
        let all = move || {
            let mut all = probes();
            add_unknown(&mut all, own.iter());
            all
        };
        let mut mappers = Self {
            wires: BTreeMap::new(),
            buses,
            probes: Arc::new(all),
            clock: Clock::new(),
            root: config.twin.root.clone(),
            stop,
        };
        for connection in served(config) {
            mappers.begin(config, connection);
        }
        mappers
    }

    /// Makes a new configuration true: wires that are new begin, wires that are gone or defined differently end (and
    /// begin again), the others get their new list of devices and leave untouched devices alone.
    pub async fn reload(&mut self, config: &Config) {
        let changed: Vec<String> = self
            .wires
            .iter()
            .filter(|(name, running)| config.connections.get(*name).is_none_or(|new| *new != running.connection))
            .map(|(name, _)| name.clone())
            .collect();
        for name in changed {
            if let Some(running) = self.wires.remove(&name) {
                end(running).await;
            }
        }
        for connection in served(config) {
            match self.wires.get(&connection.name) {
                Some(running) => drop(running.devices.send_replace(devices_of(config, &connection.name))),
                None => self.begin(config, connection),
            }
        }
    }

    /// Stops all wires and waits until they have ended; a transaction under way is finished first.
    pub async fn stop(mut self) {
        for running in self.wires.values() {
            running.stop.cancel();
        }
        while let Some((_, running)) = self.wires.pop_first() {
            end(running).await;
        }
    }

    /// How often the task of each wire had to be started again after a fault of ours.
    pub fn restarts(&self) -> BTreeMap<String, u64> {
        self.wires.iter().map(|(name, running)| (name.clone(), *running.restarts.borrow())).collect()
    }

    fn begin(&mut self, config: &Config, connection: &Arc<Connection>) {
        let (devices, _) = watch::channel(devices_of(config, &connection.name));
        let stop = self.stop.child_token();
        let (count, restarts) = watch::channel(0);
        let wire = Wire {
            connection: Arc::clone(connection),
            buses: Arc::clone(&self.buses),
            probes: Arc::clone(&self.probes),
            clock: self.clock,
            root: self.root.clone(),
            devices: devices.clone(),
            stop: stop.clone(),
        };
        let task = tokio::spawn(wire.watch_over(count));
        let running = Running { connection: Arc::clone(connection), devices, stop, task, restarts };
        self.wires.insert(connection.name.clone(), running);
    }
}

/// What it takes to start a wire's host, again if need be.
struct Wire {
    connection: Arc<Connection>,
    buses: BusFactory,
    probes: Probes,
    clock: Clock,
    root: String,
    devices: watch::Sender<Vec<Arc<Device>>>,
    stop: CancellationToken,
}

impl Wire {
    /// Sets a host going with a port of the connection's protocol.
    fn host<P: Port>(&self, port: P) -> JoinHandle<()> {
        let host = Host::new(Setup {
            connection: Arc::clone(&self.connection),
            port,
            bus: (self.buses)(&self.connection.name),
            root: self.root.clone(),
            devices: self.devices.subscribe(),
            probes: Arc::clone(&self.probes),
            clock: self.clock,
            stop: self.stop.clone(),
        });
        tokio::spawn(host.run())
    }

    /// Runs the host; one that ends by itself has a fault, is told and counted, and begins anew.
    async fn watch_over(self, restarts: watch::Sender<u64>) {
        loop {
            let connection = Arc::clone(&self.connection);
            let host = match (&self.connection.wire, self.connection.protocol) {
                (ProtocolWire::Ble { adapter }, _) => {
                    self.host(BlePort::new(&self.connection, self.clock, radio(adapter)))
                }
                (_, Protocol::Serial) => self.host(SerialPort::new(connection)),
                _ => self.host(ModbusPort::new(connection)),
            };
            let ended = host.await;
            if self.stop.is_cancelled() {
                return;
            }
            restarts.send_modify(|count| *count += 1);
            let error = ended.err().map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string());
            tracing::error!(connection = %self.connection.name, error, "a mapper ended and is started again");
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
    }
}

/// The connections whose devices are mapped here, and not in another program.
fn served(config: &Config) -> impl Iterator<Item = &Arc<Connection>> {
    config.connections.values().filter(|connection| connection.protocol != Protocol::External)
}

fn add_unknown<'a>(all: &mut Vec<Arc<Profile>>, more: impl Iterator<Item = &'a Arc<Profile>>) {
    for profile in more {
        if !all.iter().any(|known| known.hash == profile.hash) {
            all.push(Arc::clone(profile));
        }
    }
}

/// The transport this program was built with.
/// Whether somebody looks after Bluetooth adapters here.
///
/// # Errors
/// Why not, in words for the person who could mend it.
pub async fn radio_daemon() -> Result<(), String> {
    let mut radio = radio("");
    match radio.open().await {
        // It was asked for an adapter that nobody has, and knew.
        Ok(()) | Err(BleError::NoAdapter { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(all(feature = "ble", target_os = "linux"))]
fn radio(adapter: &str) -> Bluez {
    Bluez::new(adapter)
}

/// A program without a transport says so when the radio is opened, and again and again.
#[cfg(not(all(feature = "ble", target_os = "linux")))]
fn radio(_adapter: &str) -> crate::ble::fake::FakeRadio {
    let air = crate::ble::fake::Air::new();
    air.mishaps(|mishaps| mishaps.open = Some(BleError::NotBuilt));
    air.radio()
}

fn devices_of(config: &Config, connection: &str) -> Vec<Arc<Device>> {
    config.devices.iter().filter(|device| device.connection == connection).map(Arc::clone).collect()
}

async fn end(running: Running) {
    running.stop.cancel();
    if let Err(error) = running.task.await {
        tracing::error!(connection = %running.connection.name, %error, "a mapper's watch ended badly");
    }
}

#[cfg(test)]
mod tests;
