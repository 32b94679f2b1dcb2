//! The demo: a plant that exists only in the simulator, and the gateway that looks after it.
//!
//! In: a folder of its own. Out: files a person can read and change, simulated devices, a gateway over them. Must never
//! touch hardware, nor any folder but its own.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mappers::simulate::{Bound, BoundTalker, SimulateError, Simulator, Talker};
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
    /// The `gateway.yaml` that was written.
    pub config: PathBuf,
}

/// Builds the plant in a folder: one boiler on Modbus TCP, three devices on a serial line made of a pseudo terminal, a
/// satellite receiver on another.
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
    let config = folder.join("gateway.yaml");
    write(&config, &text(address, port))?;
    Ok(Plant { devices, receiver, config })
}

fn profile(id: &'static str) -> Result<Arc<Profile>, DemoError> {
    let resolved = crate::config::profile(id, "");
    resolved.map(|resolved| resolved.profile).map_err(|_| DemoError::Profile(id))
}

fn text(plc: SocketAddr, port: u16) -> String {
    let (gps, model, line) = RECEIVER;
    let devices: Vec<String> = DEVICES
        .iter()
        .map(|(id, profile, wire, unit)| {
            format!("  - {{id: {id}, profile: {profile}, connection: {wire}, params: {{unit: {unit}}}}}")
        })
        .collect();
    format!(
        "# Written by `tidegate demo` at every start; copy it to begin an installation of your own.\n\
         schema: 1\n\
         gateway: {{id: demo, data: data}}\n\
         broker:\n  listeners:\n    - {{name: local, bind: \"127.0.0.1:{port}\"}}\n\
         connections:\n  \
           plc:  {{modbus: {{tcp: \"{plc}\", timeout: 1s}}}}\n  \
           bus1: {{modbus: {{serial: {{port: ./bus1, baud: 19200, parity: none}}, timeout: 500ms}}}}\n\
         \x20 {line}:  {{serial: {{port: ./{line}}}}}\n\
         devices:\n{}\n  - {{id: {gps}, profile: {model}, connection: {line}}}\n",
        devices.join("\n")
    )
}
