//! `tidegate run`: runs the gateway until it is told to stop.

use std::path::PathBuf;

use clap::Args;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, Kind};
use super::screen::Screen;
use crate::run::{Gateway, GatewayError, STATUS_INTERVAL, stop_signal};
use crate::supervisor;
use crate::watch::Watch;

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// The configuration.
    #[arg(short = 'c', long = "config", default_value = "gateway.yaml", value_name = "FILE")]
    config: PathBuf,
    /// Leave the wires to `tidegate mapper` in other processes.
    #[arg(long)]
    no_mappers: bool,
}

/// Runs until it is told to stop.
///
/// # Errors
/// When the configuration does not check, or something cannot start.
pub(super) async fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let loaded = crate::config::load(&command.config).map_err(|complaints| super::complain(&complaints))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut watch = Watch::new(&loaded.files);
    let gateway = Gateway::start(command.config, loaded, !command.no_mappers).await.map_err(told)?;
    announce(&gateway, screen)?;
    serve(gateway, &mut watch, stop_signal()).await;
    Ok(())
}

/// What went wrong at the start, with its exit code.
pub(super) fn told(error: GatewayError) -> Failure {
    let kind = match &error {
        GatewayError::Store(_) | GatewayError::Broker(_) => Kind::Io,
        GatewayError::Twins(_) => Kind::Internal,
        #[cfg(feature = "dmi")]
        GatewayError::Dmi(_) => Kind::Io,
    };
    Failure::new(kind, format!("cannot start: {error}"))
}

/// Says where the gateway can be found, for people and scripts.
pub(super) fn announce(gateway: &Gateway, screen: &mut Screen) -> Result<(), Failure> {
    let listeners = &gateway.config().broker.listeners;
    for (name, address) in gateway.bound() {
        let listener = listeners.iter().find(|listener| listener.name == name);
        let scheme = match listener.map(|listener| (listener.websocket, listener.tls.is_some())) {
            Some((true, false)) => "ws",
            Some((true, true)) => "wss",
            Some((false, true)) => "mqtts",
            _ => "mqtt",
        };
        screen.line(&format!("listening {name} {scheme}://{address}"))?;
    }
    Ok(screen.line("ready")?)
}

/// Keeps the status fresh and reloads on SIGHUP and saved files, until `stop`; then stops cleanly.
pub(super) async fn serve(mut gateway: Gateway, watch: &mut Watch, stop: impl Future<Output = ()>) {
    let mut hang_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    let mut tick = interval(STATUS_INTERVAL);
    let upstream = gateway.upstream_changed();
    let mut stop = std::pin::pin!(stop);
    let heart = CancellationToken::new();
    tokio::spawn(supervisor::keep_alive(gateway.rooms(), heart.clone()));
    supervisor::ready(&gateway.summary());
    loop {
        let asked = async {
            match &mut hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // No branch loses anything when another wins: nudges and signals wait.
            () = &mut stop => break,
            _ = tick.tick() => tell(&gateway),
            () = upstream.notified() => tell(&gateway),
            _ = asked => reload(&mut gateway, watch).await,
            () = watch.saved() => reload(&mut gateway, watch).await,
        }
    }
    heart.cancel();
    supervisor::stopping();
    gateway.stop().await;
}

fn tell(gateway: &Gateway) {
    gateway.tell_status("online");
    supervisor::status(&gateway.summary());
}

async fn reload(gateway: &mut Gateway, watch: &mut Watch) {
    supervisor::reloading();
    match gateway.reload().await {
        Ok(files) => watch.follow(&files),
        Err(complaints) => {
            for complaint in &complaints {
                tracing::error!("{complaint}");
            }
            tracing::error!(complaints = complaints.len(), "the files do not check; the running configuration stays");
        }
    }
    supervisor::ready(&gateway.summary());
}
