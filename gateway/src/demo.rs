//! The demo: a plant that exists only in the simulator, and the gateway that looks after it.
//!
//! In: a folder of its own. Out: files a person can read and change, simulated devices, a gateway over them. Must never
//! touch hardware, nor any folder but its own.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mappers::simulate::{Bound, BoundEther, BoundTalker, Ether, SimulateError, Simulator, Talker};
use protocols::ble::Identity;
use protocols::profile::Profile;

/// The devices of the plant: id, profile, wire and unit.
pub const DEVICES: [(&str, &str, &str, u8); 4] = [
    ("boiler", "tidegate.demo_boiler", "plc", 1),
    ("meter-1", "eastron.sdm630", "bus1", 1),
    ("climate-1", "xy.md02", "bus1", 2),
    ("relays", "waveshare.relay_8", "bus1", 3),
];

/// The serial device of the plant: id, profile and line.
pub const RECEIVER: (&str, &str, &str) = ("gps-1", "generic.nmea0183-gps", "gps");

/// The Bluetooth device of the plant: id, profile and radio.
pub const SENSOR: (&str, &str, &str) = ("room-1", "bthome.environment", "radio");

/// The kernel's door to Bluetooth controllers that are programs.
const VHCI: &str = "/dev/vhci";

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file of the demo cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The simulated devices cannot be reached.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// A built-in profile is not there: our bug.
    #[error("the built-in profile {0} does not resolve")]
    Profile(&'static str),
}

/// A plant whose devices can be reached, and the configuration that reaches them.
#[derive(Debug)]
pub struct Plant {
    /// The simulated devices; they answer once they run.
    pub devices: Vec<Bound>,
    /// The simulated receiver, on a serial line of its own.
    pub receiver: BoundTalker,
    /// The simulated sensor with the adapter that hears it, or why this machine has none.
    pub sensor: Result<BoundEther, String>,
    /// The `gateway.yaml` that was written.
    pub config: PathBuf,
}

/// Builds the plant in a folder: one boiler on Modbus TCP, three devices on a serial line made of a pseudo terminal, a
/// satellite receiver on another, a Bluetooth sensor where the machine can.
///
/// # Errors
/// When files, ports or terminals cannot be had.
pub async fn build(folder: &Path, port: u16) -> Result<Plant, DemoError> {
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|source| DemoError::Write { path: path.to_owned(), source })
    };
    fs::create_dir_all(folder).map_err(|source| DemoError::Write { path: folder.to_owned(), source })?;
    let mut plc = Simulator::new(1).tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let mut bus = Simulator::new(2).pty(folder.join("bus1"));
    for (_, id, wire, unit) in DEVICES {
        let profile = profile(id)?;
        if wire == "plc" {
            plc = plc.unit(unit, profile);
        } else {
            bus = bus.unit(unit, profile);
        }
    }
    let devices = vec![plc.bind().await?, bus.bind().await?];
    let address = devices.iter().flat_map(Bound::addresses).next();
    let address = address.ok_or(DemoError::Profile("tidegate.demo_boiler"))?;
    let (_, id, line) = RECEIVER;
    let recordings = crate::config::recordings(id);
    let receiver = Talker::new(profile(id)?, &recordings, 3).pty(folder.join(line)).bind().await?;
    let sensor = sensor().await?;
    let config = folder.join("gateway.yaml");
    write(&config, &text(address, port, sensor.as_ref().ok()))?;
    let sensor = sensor.map(|(ether, ..)| ether);
    Ok(Plant { devices, receiver, sensor, config })
}

/// A sensor in the air, the name of the adapter that hears it, and its own address.
type Heard = (BoundEther, String, String);

/// The sensor with its adapter, or why there is none: the kernel has no virtual controllers, this user may not make one, or
/// nobody looks after adapters.
async fn sensor() -> Result<Result<Heard, String>, DemoError> {
    let (_, id, _) = SENSOR;
    let ether = Ether::new(4).device(profile(id)?, Identity::default()).map_err(|_| DemoError::Profile(id))?;
    let address = ether.devices().first().map(ToString::to_string).unwrap_or_default();
    let bound = match ether.vhci(VHCI).bind().await {
        Ok(bound) => bound,
        Err(why) => return Ok(Err(why.to_string())),
    };
    let adapter = bound.adapters().first().map(|adapter| (*adapter).to_owned()).unwrap_or_default();
    match mappers::fleet::radio_daemon().await {
        Ok(()) => Ok(Ok((bound, adapter, address))),
        Err(why) => Ok(Err(why)),
    }
}

fn profile(id: &'static str) -> Result<Arc<Profile>, DemoError> {
    let resolved = crate::config::profile(id, "");
    resolved.map(|resolved| resolved.profile).map_err(|_| DemoError::Profile(id))
}

fn text(plc: SocketAddr, port: u16, sensor: Option<&Heard>) -> String {
    let (gps, model, line) = RECEIVER;
    let devices: Vec<String> = DEVICES
        .iter()
        .map(|(id, profile, wire, unit)| {
            format!("  - {{id: {id}, profile: {profile}, connection: {wire}, params: {{unit: {unit}}}}}")
        })
        .collect();
    let (radio, room) = match (sensor, SENSOR) {
        (Some((_, adapter, address)), (id, profile, radio)) => (
            format!("  {radio}: {{ble: {{adapter: {adapter}}}}}\n"),
            format!("  - {{id: {id}, profile: {profile}, connection: {radio}, params: {{address: \"{address}\"}}}}\n"),
        ),
        (None, _) => (String::new(), String::new()),
    };
    format!(
        "# Written by `tidegate demo` at every start; copy it to begin an installation of your own.\n\
         schema: 1\n\
         gateway: {{id: demo, data: data}}\n\
         broker:\n  listeners:\n    - {{name: local, bind: \"127.0.0.1:{port}\"}}\n\
         connections:\n  \
           plc:  {{modbus: {{tcp: \"{plc}\", timeout: 1s}}}}\n  \
           bus1: {{modbus: {{serial: {{port: ./bus1, baud: 19200, parity: none}}, timeout: 500ms}}}}\n\
         \x20 {line}:  {{serial: {{port: ./{line}}}}}\n{radio}\
         devices:\n{}\n  - {{id: {gps}, profile: {model}, connection: {line}}}\n{room}",
        devices.join("\n")
    )
}
