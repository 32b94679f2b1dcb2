//! `tidegate simulate`: plays a device of a profile, with faults on request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mappers::simulate::{Ether, Faults, Simulator, Talker};
use protocols::profile::Resolved;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, Kind};
use super::screen::Screen;

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// A profile's id, such as eastron.sdm630, or its file.
    profile: String,
    /// Serve Modbus TCP here, or the bytes of a serial device; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    tcp: Vec<SocketAddr>,
    /// Serve Modbus RTU over TCP here.
    #[arg(long, value_name = "ADDRESS")]
    rtu_over_tcp: Vec<SocketAddr>,
    /// Serve Modbus ASCII over TCP here.
    #[arg(long, value_name = "ADDRESS")]
    ascii_over_tcp: Vec<SocketAddr>,
    /// Serve Modbus UDP here.
    #[arg(long, value_name = "ADDRESS")]
    udp: Vec<SocketAddr>,
    /// Make a pseudo terminal of this name, and serve Modbus RTU or a serial device on it.
    #[arg(long, value_name = "PATH")]
    pty: Vec<PathBuf>,
    /// Serve Modbus ASCII instead of RTU on the pseudo terminals.
    #[arg(long)]
    ascii: bool,
    /// Make a Bluetooth adapter of this machine's kernel that hears the device; /dev/vhci if no path is given.
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = "/dev/vhci")]
    vhci: Vec<PathBuf>,
    /// Be a Bluetooth controller that hears the device, for a host that speaks HCI over TCP (H4).
    #[arg(long, value_name = "ADDRESS")]
    hci_tcp: Vec<SocketAddr>,
    /// The unit ids to answer at.
    #[arg(long, default_values_t = [1], value_name = "ID")]
    unit: Vec<u8>,
    /// Parameters of the profile, such as invert=-1.
    #[arg(long, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// What goes wrong: silence=0.1, delay=300ms, exception=2@0.05, crc=0.1, disconnect=0.05; unit=3 and limit=5 beside
    /// them. May be given several times.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<String>,
    /// How often a serial or Bluetooth device speaks by itself: 1s, 200ms.
    #[arg(long, default_value = "1s", value_name = "TIME")]
    every: String,
    /// Makes values and faults repeatable.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where each kind of device can be found.
const MODBUS_PLACES: &str = "add --tcp 127.0.0.1:1502, --rtu-over-tcp 127.0.0.1:1503 or --pty ./bus";
const SERIAL_PLACES: &str = "serve its bytes with --tcp 127.0.0.1:2000 or --pty ./line";
const AIR_PLACES: &str =
    "add --vhci for an adapter of this machine's, or --hci-tcp 127.0.0.1:9931 for a host that speaks HCI over TCP";

impl Command {
    /// Whether a place is named that only Modbus devices have.
    fn names_modbus(&self) -> bool {
        !self.rtu_over_tcp.is_empty() || !self.ascii_over_tcp.is_empty() || !self.udp.is_empty() || self.ascii
    }

    /// Whether a place is named that wires have.
    fn names_wire(&self) -> bool {
        self.names_modbus() || !self.tcp.is_empty() || !self.pty.is_empty()
    }

    /// Whether a place is named that radios have.
    fn names_air(&self) -> bool {
        !self.vhci.is_empty() || !self.hci_tcp.is_empty()
    }

    fn every(&self) -> Result<Duration, Failure> {
        protocols::profile::duration(&self.every)
            .ok_or_else(|| Failure::new(Kind::Usage, format!("{} is no time; write 1s or 200ms", self.every)))
    }
}

fn misplaced(is_wrong: bool, message: &str, hint: &str) -> Result<(), Failure> {
    if is_wrong { Err(Failure::new(Kind::Usage, message).hint(hint)) } else { Ok(()) }
}

/// Plays until it is told to stop.
///
/// # Errors
/// When there is no such profile or fault, or an address cannot be had.
pub(super) async fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    misplaced(
        !command.names_wire() && !command.names_air(),
        "a simulated device needs a place to be found",
        MODBUS_PLACES,
    )?;
    let faults: Faults = command
        .fault
        .join(",")
        .parse()
        .map_err(|error: mappers::simulate::FaultError| Failure::new(Kind::Usage, error.to_string()))?;
    let params: Vec<String> = command.param.iter().map(|param| param.replacen('=', ": ", 1)).collect();
    let params = if params.is_empty() { String::new() } else { format!("{{{}}}", params.join(", ")) };
    let resolved = crate::config::profile(&command.profile, &params).map_err(|complaints| {
        let text: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        Failure::new(Kind::Data, format!("cannot play {}:\n{}", command.profile, text.join("\n")))
    })?;
    if resolved.profile.serial.is_some() {
        return talk(&command, &resolved, faults, screen).await;
    }
    if resolved.profile.ble.is_some() {
        return speak(&command, &resolved, screen).await;
    }
    misplaced(command.names_air(), "a Modbus device is not in the air", MODBUS_PLACES)?;
    let mut simulator = Simulator::new(command.seed).faults(faults);
    for unit in &command.unit {
        simulator = simulator.unit(*unit, resolved.profile.clone());
    }
    simulator = command.tcp.iter().fold(simulator, |simulator, address| simulator.tcp(*address));
    simulator = command.rtu_over_tcp.iter().fold(simulator, |simulator, address| simulator.rtu_over_tcp(*address));
    simulator = command.ascii_over_tcp.iter().fold(simulator, |simulator, address| simulator.ascii_over_tcp(*address));
    simulator = command.udp.iter().fold(simulator, |simulator, address| simulator.udp(*address));
    simulator = command.pty.iter().fold(simulator, |simulator, path| match command.ascii {
        true => simulator.ascii_pty(path),
        false => simulator.pty(path),
    });
    let bound = simulator.bind().await.map_err(|error| Failure::new(Kind::Io, error.to_string()))?;
    screen.line(&format!("{} at unit {}", resolved.profile.label(), list(&command.unit)))?;
    for address in bound.addresses() {
        screen.line(&format!("listening tcp {address}"))?;
    }
    for address in bound.udp_addresses() {
        screen.line(&format!("listening udp {address}"))?;
    }
    for path in bound.ptys() {
        screen.line(&format!("listening pty {}", path.display()))?;
    }
    let stop = CancellationToken::new();
    until_stopped(tokio::spawn(bound.run(stop.clone())), stop).await
}

/// Plays a serial device: it says what the profile's golden tests have recorded, with values that live.
async fn talk(command: &Command, resolved: &Resolved, faults: Faults, screen: &mut Screen) -> Result<(), Failure> {
    misplaced(command.names_modbus(), "a serial device does not speak Modbus", SERIAL_PLACES)?;
    misplaced(command.names_air(), "a serial device is not in the air", SERIAL_PLACES)?;
    let every = command.every()?;
    let recordings = crate::config::recordings(&command.profile);
    let talker = Talker::new(resolved.profile.clone(), &recordings, command.seed).every(every).faults(faults);
    if talker.is_mute() {
        return Err(Failure::new(Kind::Data, format!("nothing was recorded of {}", command.profile))
            .hint("a serial device says what the golden tests of its profile hold; write some under tests"));
    }
    let (lives, stiff) = (talker.lives(), talker.stiff());
    let talker = command.tcp.iter().fold(talker, |talker, address| talker.tcp(*address));
    let talker = command.pty.iter().fold(talker, |talker, path| talker.pty(path));
    let bound = talker.bind().await.map_err(|error| Failure::new(Kind::Io, error.to_string()))?;
    screen.line(&resolved.profile.label())?;
    if !lives.is_empty() {
        screen.line(&format!("living: {}", lives.join(", ")))?;
    }
    for (what, why) in stiff {
        screen.line(&format!("as recorded: {what} ({why})"))?;
    }
    for address in bound.addresses() {
        screen.line(&format!("listening tcp {address}"))?;
    }
    for path in bound.ptys() {
        screen.line(&format!("listening pty {}", path.display()))?;
    }
    let stop = CancellationToken::new();
    until_stopped(tokio::spawn(bound.run(stop.clone())), stop).await
}

/// Plays a Bluetooth device around a controller that is this program.
async fn speak(command: &Command, resolved: &Resolved, screen: &mut Screen) -> Result<(), Failure> {
    misplaced(command.names_wire(), "a Bluetooth device is on no wire", AIR_PLACES)?;
    misplaced(!command.fault.is_empty(), "faults are played on wires", "leave --fault out")?;
    let ether = Ether::new(command.seed).every(command.every()?);
    let ether = ether.device(resolved.profile.clone(), resolved.ble.clone().unwrap_or_default()).map_err(|why| {
        Failure::new(Kind::Data, format!("{} cannot be played: {why}", command.profile))
            .hint("its golden tests run with tidegate check")
    })?;
    let devices = ether.devices();
    let ether = command.vhci.iter().fold(ether, |ether, path| ether.vhci(path));
    let ether = command.hci_tcp.iter().fold(ether, |ether, address| ether.tcp(*address));
    let bound = ether.bind().await.map_err(|error| Failure::new(Kind::Io, error.to_string()))?;
    for address in devices {
        screen.line(&format!("{} speaks as {address}", resolved.profile.label()))?;
    }
    for adapter in bound.adapters() {
        screen.line(&format!("heard by adapter {adapter}"))?;
    }
    for address in bound.addresses() {
        screen.line(&format!("listening hci {address}"))?;
    }
    let stop = CancellationToken::new();
    until_stopped(tokio::spawn(bound.run(stop.clone())), stop).await
}

/// Lets a device play until SIGTERM or Ctrl-C.
async fn until_stopped(playing: JoinHandle<()>, stop: CancellationToken) -> Result<(), Failure> {
    crate::run::stop_signal().await;
    stop.cancel();
    playing.await.map_err(|error| Failure::new(Kind::Internal, error.to_string()))
}

fn list(units: &[u8]) -> String {
    let words: Vec<String> = units.iter().map(ToString::to_string).collect();
    words.join(", ")
}
