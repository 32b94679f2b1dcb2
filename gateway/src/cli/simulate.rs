//! `tidegate simulate`: plays a device of a profile, with faults on request.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use mappers::simulate::{Faults, Simulator, Talker};
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
    /// How often a serial device speaks by itself: 1s, 200ms.
    #[arg(long, default_value = "1s", value_name = "TIME")]
    every: String,
    /// Makes values and faults repeatable.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Command {
    /// Whether no place is named that only Modbus devices have.
    fn is_network_of_modbus_empty(&self) -> bool {
        self.rtu_over_tcp.is_empty() && self.ascii_over_tcp.is_empty() && self.udp.is_empty()
    }
}

/// Plays until it is told to stop.
///
/// # Errors
/// When there is no such profile or fault, or an address cannot be had.
pub(super) async fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    if command.tcp.is_empty() && command.is_network_of_modbus_empty() && command.pty.is_empty() {
        return Err(Failure::new(Kind::Usage, "a simulated device needs a place to be found")
            .hint("add --tcp 127.0.0.1:1502, --rtu-over-tcp 127.0.0.1:1503 or --pty ./bus"));
    }
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
        let message = format!("{} is a Bluetooth profile: there is no wire to play it on", command.profile);
        return Err(Failure::new(Kind::Data, message).hint("its golden tests run with tidegate check"));
    }
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

/// Plays a serial device: it says what the profile's golden tests have recorded.
async fn talk(command: &Command, resolved: &Resolved, faults: Faults, screen: &mut Screen) -> Result<(), Failure> {
    if !command.is_network_of_modbus_empty() || command.ascii {
        return Err(Failure::new(Kind::Usage, "a serial device does not speak Modbus")
            .hint("serve its bytes with --tcp 127.0.0.1:2000 or --pty ./line"));
    }
    let every = protocols::profile::duration(&command.every)
        .ok_or_else(|| Failure::new(Kind::Usage, format!("{} is no time; write 1s or 200ms", command.every)))?;
    let recordings = crate::config::recordings(&command.profile);
    let talker = Talker::new(resolved.profile.clone(), &recordings, command.seed).every(every).faults(faults);
    if talker.is_mute() {
        return Err(Failure::new(Kind::Data, format!("nothing was recorded of {}", command.profile))
            .hint("a serial device says what the golden tests of its profile hold; write some under tests"));
    }
    let talker = command.tcp.iter().fold(talker, |talker, address| talker.tcp(*address));
    let talker = command.pty.iter().fold(talker, |talker, path| talker.pty(path));
    let bound = talker.bind().await.map_err(|error| Failure::new(Kind::Io, error.to_string()))?;
    screen.line(&format!("{}, as it was recorded", resolved.profile.label()))?;
    for address in bound.addresses() {
        screen.line(&format!("listening tcp {address}"))?;
    }
    for path in bound.ptys() {
        screen.line(&format!("listening pty {}", path.display()))?;
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
