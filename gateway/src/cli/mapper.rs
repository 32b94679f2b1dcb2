//! `tidegate mapper`: the mappers of a configuration as a process of their own, on the broker of a running gateway.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use mappers::bus::{self, Message, MqttOptions, Tls};
use mappers::fleet::Mappers;
use protocols::message::WireStatus;
use tokio_util::sync::CancellationToken;

use super::client;
use super::failure::{Failure, Kind};
use super::screen::Screen;

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// The configuration whose connections and devices are served.
    #[arg(short = 'c', long = "config", default_value = "gateway.yaml", value_name = "FILE")]
    config: PathBuf,
    /// The gateway's broker; user and password may stand in it. Without it, the configuration's own plain listener.
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// The authority that signed the broker's certificate (PEM), for mqtts.
    #[arg(long, env = "TIDEGATE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Serve only these connections of the configuration.
    #[arg(long, value_name = "NAME")]
    connection: Vec<String>,
}

/// Runs until it is told to stop.
///
/// # Errors
/// When the configuration does not check or the address makes no sense.
pub(super) async fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let mut loaded = crate::config::load(&command.config).map_err(|complaints| super::complain(&complaints))?;
    for name in &command.connection {
        if !loaded.config.connections.contains_key(name) {
            let known: Vec<&str> = loaded.config.connections.keys().map(String::as_str).collect();
            return Err(Failure::new(Kind::Usage, format!("there is no connection {name}"))
                .hint(format!("the configuration has: {}", known.join(", "))));
        }
    }
    if !command.connection.is_empty() {
        loaded.config.connections.retain(|name, _| command.connection.contains(name));
    }
    let address = client::address(command.broker.as_deref(), Some(&command.config))?;
    let tls = if address.tls { Some(trust(command.ca.as_deref())?) } else { None };
    let gateway = loaded.config.id.clone();
    let buses = Arc::new(move |connection: &str| {
        let (user, password) = address.login.clone().unzip();
        let client_id = format!("mapper-{gateway}-{connection}");
        let gone = serde_json::to_vec(&WireStatus::gone()).expect("a status holds nothing that JSON cannot say");
        let topic = protocols::topic::connection_status(connection);
        let will = Some(Message { topic, payload: gone.into(), retain: true, ..Message::default() });
        let (host, tls) = (address.host.clone(), tls.clone());
        let options = MqttOptions { host, port: address.port, tls, user, password, client_id, will };
        bus::mqtt(options).0
    });
    let stop = CancellationToken::new();
    let mappers = Mappers::start(&loaded.config, buses, loaded.probes(), stop.clone());
    screen.line(&format!("mapping {} connections", loaded.config.connections.len()))?;
    screen.line("ready")?;
    crate::run::stop_signal().await;
    mappers.stop().await;
    Ok(())
}

fn trust(ca: Option<&Path>) -> Result<Tls, Failure> {
    let Some(path) = ca else { return Ok(Tls::default()) };
    let ca = std::fs::read(path)
        .map_err(|error| Failure::new(Kind::Io, format!("cannot read {}: {error}", path.display())))?;
    Ok(Tls { ca: Some(ca), client: None })
}
