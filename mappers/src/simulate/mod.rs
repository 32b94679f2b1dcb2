//! Devices that are not there: they play a profile on TCP, on UDP or on a pseudo terminal, with values that live, settings that
//! stick and faults on request.
//!
//! In: profiles with the unit ids they play, where to listen, faults. Out: Modbus answers, messages of serial devices
//! ([`Talker`]), advertisements ([`Ether`]), and a [`Handle`] for whoever wants to change something meanwhile. Must never print, and never share code with the master beyond `protocols`.

mod ether;
mod fault;
mod script;
mod serve;
mod shape;
mod talker;
mod unit;
mod vhci;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::modbus::frame::Framing;
use protocols::modbus::pdu::{Exception, Request, Response};
use protocols::modbus::server::Bank;
use protocols::profile::Profile;
use protocols::value::Value;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_serial::{SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
pub use ether::{BoundEther, Ether};
use fault::{Dice, Fate};
pub use fault::{FaultError, Faults};
pub use talker::{BoundTalker, Talker};
use unit::Unit;

/// Clients one TCP listener serves at a time; one more is turned away.
pub const CLIENTS: usize = 64;

/// Why a simulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// It cannot listen there.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as given.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No pseudo terminal can be made.
    #[error("cannot make a pseudo terminal: {0}")]
    Terminal(String),
    /// No virtual Bluetooth controller can be made.
    #[error("cannot make a Bluetooth controller with {path}: {text}")]
    Controller {
        /// The kernel's door to them.
        path: PathBuf,
        /// What is in the way, and what helps.
        text: String,
    },
    /// The name for the pseudo terminal cannot be used.
    #[error("cannot link {path} to the pseudo terminal: {text}")]
    Link {
        /// The path as given.
        path: PathBuf,
        /// What is in the way.
        text: String,
    },
}

/// Devices to be, and where they will be found.
#[derive(Debug)]
pub struct Simulator {
    seed: u64,
    units: BTreeMap<u8, Unit>,
    tcp: Vec<(SocketAddr, Framing)>,
    udp: Vec<SocketAddr>,
    ptys: Vec<(PathBuf, Framing)>,
    faults: Faults,
}

impl Simulator {
    /// No devices yet. The same seed gives the same values and faults again.
    pub fn new(seed: u64) -> Self {
        let (tcp, udp, ptys) = (Vec::new(), Vec::new(), Vec::new());
        Self { seed, units: BTreeMap::new(), tcp, udp, ptys, faults: Faults::default() }
    }

    /// One device of that profile.
    pub fn from_profile(profile: Arc<Profile>, unit: u8, seed: u64) -> Self {
        Self::new(seed).unit(unit, profile)
    }

    /// One device more; another one at the same unit id is replaced.
    #[must_use]
    pub fn unit(mut self, unit: u8, profile: Arc<Profile>) -> Self {
        self.units.insert(unit, Unit::new(profile, self.seed ^ u64::from(unit)));
        self
    }

    /// Serves Modbus TCP there; port 0 takes a free one.
    #[must_use]
    pub fn tcp(mut self, address: SocketAddr) -> Self {
        self.tcp.push((address, Framing::Tcp));
        self
    }

    /// Serves RTU frames over TCP there; port 0 takes a free one.
    #[must_use]
    pub fn rtu_over_tcp(mut self, address: SocketAddr) -> Self {
        self.tcp.push((address, Framing::Rtu));
        self
    }

    /// Serves ASCII frames over TCP there; port 0 takes a free one.
    #[must_use]
    pub fn ascii_over_tcp(mut self, address: SocketAddr) -> Self {
        self.tcp.push((address, Framing::Ascii));
        self
    }

    /// Serves Modbus TCP's frames in datagrams there; port 0 takes a free one.
    #[must_use]
    pub fn udp(mut self, address: SocketAddr) -> Self {
        self.udp.push(address);
        self
    }

    /// As [`Simulator::pty`], with ASCII frames.
    #[must_use]
    pub fn ascii_pty(mut self, path: impl Into<PathBuf>) -> Self {
        self.ptys.push((path.into(), Framing::Ascii));
        self
    }

    /// Serves RTU on a new pseudo terminal that is found under this path. A link that is there is replaced, anything
    /// else is not.
    #[must_use]
    pub fn pty(mut self, path: impl Into<PathBuf>) -> Self {
        self.ptys.push((path.into(), Framing::Rtu));
        self
    }

    /// Faults from the start.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Takes the addresses and makes the terminals. Nothing is answered before [`Bound::run`].
    ///
    /// # Errors
    /// [`SimulateError`] names what cannot be had.
    pub async fn bind(self) -> Result<Bound, SimulateError> {
        let mut listeners = Vec::new();
        for (address, framing) in self.tcp {
            let failed = |source| SimulateError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            listeners.push((listener.local_addr().map_err(failed)?, listener, framing));
        }
        let mut sockets = Vec::new();
        for address in self.udp {
            let failed = |source| SimulateError::Listen { address, source };
            let socket = UdpSocket::bind(address).await.map_err(failed)?;
            sockets.push((socket.local_addr().map_err(failed)?, socket));
        }
        let terminals = self.ptys.into_iter().map(|(link, framing)| Ok((Terminal::new(link)?, framing)));
        let terminals = terminals.collect::<Result<Vec<_>, SimulateError>>()?;
        let plant = Plant {
            clock: Clock::default(),
            units: self.units,
            faults: self.faults,
            dice: Dice::new(self.seed),
            counts: Counts::default(),
        };
        Ok(Bound { listeners, sockets, terminals, handle: Handle { plant: Arc::new(Mutex::new(plant)) } })
    }
}

/// Devices that can be found, and answer once they [`Bound::run`].
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<(SocketAddr, TcpListener, Framing)>,
    sockets: Vec<(SocketAddr, UdpSocket)>,
    terminals: Vec<(Terminal, Framing)>,
    handle: Handle,
}

impl Bound {
    /// Where TCP is served, in the order asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(address, ..)| *address).collect()
    }

    /// Where UDP is served, in the order asked for.
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, _)| *address).collect()
    }

    /// The paths of the pseudo terminals, in the order asked for.
    pub fn ptys(&self) -> Vec<&Path> {
        self.terminals.iter().map(|(terminal, _)| terminal.link.as_path()).collect()
    }

    /// To change something while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers until `stop`; then all connections are closed and the links to the terminals removed.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for (_, listener, framing) in self.listeners {
            tasks.spawn(serve::listen(listener, framing, self.handle.clone()));
        }
        for (_, socket) in self.sockets {
            tasks.spawn(serve::datagrams(socket, self.handle.clone()));
        }
        let mut links = Vec::new();
        for (terminal, framing) in self.terminals {
            tasks.spawn(serve::terminal(terminal.near, framing, self.handle.clone()));
            links.push(terminal.link);
        }
        stop.cancelled().await;
        tasks.shutdown().await;
        drop(links.into_iter().map(remove_link).collect::<Vec<_>>());
    }
}

/// A pseudo terminal's near end, and the link to its far end.
#[derive(Debug)]
struct Terminal {
    near: SerialStream,
    link: PathBuf,
}

impl Terminal {
    fn new(link: PathBuf) -> Result<Self, SimulateError> {
        let terminal = |error: tokio_serial::Error| SimulateError::Terminal(error.to_string());
        // The far end is not kept open: a client's exclusive hold would outlive the client with it.
        let (near, far) = SerialStream::pair().map_err(terminal)?;
        let name = far.name().ok_or_else(|| SimulateError::Terminal("it has no name".to_owned()))?;
        let failed = |text: String| SimulateError::Link { path: link.clone(), text };
        match std::fs::symlink_metadata(&link) {
            Ok(found) if found.is_symlink() => {
                std::fs::remove_file(&link).map_err(|error| failed(error.to_string()))?;
            }
            Ok(_) => return Err(failed("something else is there".to_owned())),
            Err(_) => {}
        }
        std::os::unix::fs::symlink(name, &link).map_err(|error| failed(error.to_string()))?;
        Ok(Self { near, link })
    }
}

/// Removes a link at the end; one that is gone already is no matter.
fn remove_link(link: PathBuf) -> bool {
    std::fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink()) && std::fs::remove_file(&link).is_ok()
}

/// What the devices have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests understood, broadcasts included.
    pub requests: u64,
    /// Requests that met a fault.
    pub faults: u64,
    /// Connections accepted.
    pub connections: u64,
}

/// A grip on running devices.
#[derive(Clone, Debug)]
pub struct Handle {
    plant: Arc<Mutex<Plant>>,
}

impl Handle {
    /// Changes the faults from now on; a limit counts anew.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Gives a property a value that stays, as if the device had it.
    ///
    /// # Errors
    /// When there is no such unit or property, or the device cannot hold such a value.
    pub fn hold(&self, unit: u8, property: &str, value: &Value) -> Result<(), String> {
        let mut plant = self.lock();
        let unit = plant.units.get_mut(&unit).ok_or_else(|| format!("there is no unit {unit}"))?;
        unit.hold(property, value)
    }

    /// What a property holds now, as its profile reads it.
    pub fn value(&self, unit: u8, property: &str) -> Option<Value> {
        let mut plant = self.lock();
        let tick = plant.clock.now().tick;
        plant.units.get_mut(&unit)?.value(property, tick)
    }

    /// Works on a unit's tables; nothing when there is no such unit.
    pub fn with_bank<R>(&self, unit: u8, work: impl FnOnce(&mut Bank) -> R) -> Option<R> {
        let mut plant = self.lock();
        plant.units.get_mut(&unit).map(|unit| work(unit.bank()))
    }

    fn lock(&self) -> MutexGuard<'_, Plant> {
        // A panic under the lock leaves registers, and those are never half written.
        self.plant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All devices behind the listeners.
#[derive(Debug)]
struct Plant {
    clock: Clock,
    units: BTreeMap<u8, Unit>,
    faults: Faults,
    dice: Dice,
    counts: Counts,
}

impl Plant {
    /// What the addressed device answers, if it does, and what becomes of that on the way.
    fn answer(
        &mut self,
        framing: Framing,
        unit: u8,
        request: Result<&Request, Exception>,
    ) -> (Option<Result<Response, Exception>>, Fate) {
        self.counts.requests += 1;
        let tick = self.clock.now().tick;
        if unit == 0 && framing != Framing::Tcp {
            if let Ok(request) = request.filter_writes() {
                for unit in self.units.values_mut() {
                    let _ = unit.answer(request, tick);
                }
            }
            return (None, Fate::default());
        }
        let fate = self.faults.draw(unit, &mut self.dice);
        self.counts.faults += u64::from(fate != Fate::default());
        let alone = self.units.len() == 1 && framing == Framing::Tcp && matches!(unit, 0 | 255);
        let device = match alone {
            // A device with an address of its own does not look at the unit id.
            true => self.units.values_mut().next(),
            false => self.units.get_mut(&unit),
        };
        let answer = match (device, fate.exception, request) {
            // On a line nobody answers for a device that is not there; a gateway does.
            (None, ..) if framing != Framing::Tcp => None,
            (None, ..) => Some(Err(Exception(11))),
            (_, Some(exception), _) | (_, None, Err(exception)) => Some(Err(exception)),
            (Some(device), None, Ok(request)) => Some(device.answer(request, tick)),
        };
        (answer, fate)
    }
}

trait FilterWrites<'a> {
    /// Broadcasts can only write.
    fn filter_writes(self) -> Result<&'a Request, Exception>;
}

impl<'a> FilterWrites<'a> for Result<&'a Request, Exception> {
    fn filter_writes(self) -> Result<&'a Request, Exception> {
        self.and_then(|request| if request.writes() { Ok(request) } else { Err(Exception::FUNCTION) })
    }
}
