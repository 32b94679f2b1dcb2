//! `tidegate demo`: a gateway with simulated devices and no hardware, live values, and what to try next.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use protocols::message::ReportedOut;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Address, Client};
use super::failure::{Failure, Kind};
use super::screen::{Screen, Tone};
use crate::demo::{self, DemoError};
use crate::run::{Gateway, stop_signal};
use crate::watch::Watch;

/// How many live values are shown before the demo goes quiet.
const SHOWN: usize = 16;

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// The demo's folder; one of its own under the system's folder for temporary files if not given.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The broker's port on 127.0.0.1; 0 takes a free one. 1883, or a free one if that is taken.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

/// Runs until Ctrl-C.
///
/// # Errors
/// When files, ports or terminals cannot be had.
pub(super) async fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let folder = command.data.unwrap_or_else(|| std::env::temp_dir().join("tidegate-demo"));
    let port = match command.port {
        Some(port) => port,
        None => usual_port_or_free().await,
    };
    let plant = demo::build(&folder, port).await.map_err(|error| match error {
        DemoError::Profile(_) => Failure::new(Kind::Internal, error.to_string()),
        _ => Failure::new(Kind::Io, error.to_string()),
    })?;
    let loaded = crate::config::load(&plant.config).map_err(|complaints| super::complain(&complaints))?;
    let devices_stop = CancellationToken::new();
    let mut playing: Vec<_> =
        plant.devices.into_iter().map(|devices| tokio::spawn(devices.run(devices_stop.clone()))).collect();
    playing.push(tokio::spawn(plant.receiver.run(devices_stop.clone())));
    let (count, no_radio) = match plant.sensor {
        Ok(sensor) => {
            playing.push(tokio::spawn(sensor.run(devices_stop.clone())));
            ("Six", None)
        }
        Err(why) => ("Five", Some(why)),
    };
    let mut watch = Watch::new(&loaded.files);
    let gateway = Gateway::start(plant.config.clone(), loaded, true).await.map_err(super::run::told)?;
    super::run::announce(&gateway, screen)?;
    let bound = gateway.bound();
    let port = bound.first().map_or(port, |(_, address)| address.port());
    screen.line(&format!("\n{count} simulated devices, their files in {}.", folder.display()))?;
    if let Some(why) = no_radio {
        screen.line(&format!("No Bluetooth device is among them: {why}."))?;
    }
    screen.line("The first values:\n")?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move { super::run::serve(gateway, &mut watch, stop.cancelled_owned()).await }
    });
    let shown = tokio::select! {
        // Ctrl-C in the middle of the show ends the demo; there is nothing to lose.
        () = stop_signal() => Ok(true),
        shown = show(port, screen) => shown.map(|()| false),
    };
    if !matches!(shown, Ok(true)) {
        shown?;
        screen.line(&advice(port))?;
        stop_signal().await;
    }
    stop.cancel();
    serving.await.map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    devices_stop.cancel();
    for task in playing {
        task.await.map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    }
    Ok(())
}

/// 1883, where clients look first, unless somebody has it.
async fn usual_port_or_free() -> u16 {
    match tokio::net::TcpListener::bind(("127.0.0.1", 1883)).await {
        Ok(_) => 1883,
        Err(_) => 0,
    }
}

/// Prints the first values as any client sees them.
async fn show(port: u16, screen: &mut Screen) -> Result<(), Failure> {
    /// Long enough for every device to have been read once.
    const SHOW: Duration = Duration::from_secs(6);
    let address = Address { host: "127.0.0.1".to_owned(), port, tls: false, login: None };
    let mut client = Client::connect(address, None).await?;
    client.subscribe(&["twin/+/reported/+".to_owned()]).await?;
    let until = Instant::now() + SHOW;
    let mut shown = 0;
    while let Some(message) = client.next(until).await? {
        let topic = String::from_utf8_lossy(&message.topic).into_owned();
        let Ok(reported) = serde_json::from_slice::<ReportedOut>(&message.payload) else { continue };
        if shown < SHOWN {
            let quality = reported.quality.to_string();
            let tone = if quality == "good" { Tone::Good } else { Tone::Bad };
            let quality = screen.paint(&quality, tone);
            screen.line(&format!("  {topic:<44} {:<22} {quality}", reported.value.to_string()))?;
        }
        shown += 1;
    }
    screen.line(&format!("  … {shown} values in {} s", SHOW.as_secs()))?;
    client.close().await;
    Ok(())
}

fn advice(port: u16) -> String {
    let (url, environment) = match port {
        1883 => (String::new(), String::new()),
        port => (format!(" -p {port}"), format!("  export TIDEGATE_BROKER=mqtt://127.0.0.1:{port}\n")),
    };
    let program = match std::env::current_exe() {
        Ok(path) if path.components().any(|part| part.as_os_str() == "target") => path.display().to_string(),
        _ => "tidegate".to_owned(),
    };
    let alias = if program == "tidegate" { String::new() } else { format!("  alias tidegate={program}\n") };
    format!(
        "\nWhat to try in another terminal:\n{alias}{environment}\
         \x20 tidegate status\n\
         \x20 tidegate twin get boiler\n\
         \x20 tidegate twin set boiler setpoint=22.5 mode=eco --wait\n\
         \x20 tidegate twin watch\n\
         \x20 tidegate device show meter-1\n\
         \x20 mosquitto_sub{url} -t 'twin/boiler/#' -v\n\
         \x20 mosquitto_pub{url} -q 1 -t twin/relays/desired/relay_1/set -m true\n\
         \nCtrl-C ends the demo."
    )
}
