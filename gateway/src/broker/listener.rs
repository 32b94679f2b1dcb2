//! Listening sockets: they accept, shake hands, and hand connections over.
//!
//! In: a [`Listener`] of the configuration. Out: tasks that serve connections. Must never let peers that say nothing use
//! up what clients need.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocols::config::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::StartError;
use super::connection::{Peer, Wire, serve};
use super::shared::Shared;
use super::{holder, tls, websocket};

/// Connections of one listener whose client is not in yet. One more waits in the system's queue until another is in or
/// has run out of its ten seconds.
const ENTERING_MAX: usize = 1024;
/// TLS and WebSocket handshakes must be over by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system refused to accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that is bound.
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    websocket: bool,
}

/// Binds a listener; relative paths of its files start at `base`.
///
/// # Errors
/// When the address cannot be had or TLS not be set up.
pub(super) async fn bind(listener: &Listener, base: &Path) -> Result<Bound, StartError> {
    let tls = match &listener.tls {
        Some(tls) => {
            Some(tls::acceptor(tls, base).map_err(|error| StartError::Tls { listener: listener.name.clone(), error })?)
        }
        None => None,
    };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::InUse {
            listener: listener.name.clone(),
            address: listener.bind,
            holder: holder::of_port(listener.bind.port()),
        },
        _ => StartError::Bind { listener: listener.name.clone(), address: listener.bind, error },
    };
    let socket = TcpListener::bind(listener.bind).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(Bound { name: listener.name.clone(), address, socket, tls, websocket: listener.websocket })
}

/// Accepts until the broker stops.
pub(super) async fn run(shared: Arc<Shared>, bound: Bound) {
    let entering = Arc::new(Semaphore::new(ENTERING_MAX));
    let mut failing = false;
    loop {
        let accepted = async {
            let permit = Arc::clone(&entering).acquire_owned().await;
            (permit, bound.socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            // a connection that was not accepted stays in the system's queue
            () = shared.stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                failing = false;
                let (tls, websocket) = (bound.tls.clone(), bound.websocket);
                let served = Arc::clone(&shared);
                shared.tasks.spawn(async move {
                    if let Some((wire, peer)) = Box::pin(open(stream, address, tls, websocket, &served)).await {
                        serve(served, wire, peer, permit).await;
                    }
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(listener = bound.name, %error, "cannot accept connections");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn open(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    is_websocket: bool,
    shared: &Shared,
) -> Option<(Box<dyn Wire>, Peer)> {
    // what is written is already put together; waiting for more only costs time
    let _ = stream.set_nodelay(true);
    let mut peer = Peer { address, certificate: None };
    let frame_bytes = shared.limits.packet_bytes as usize;
    let opening = async {
        let wire: Box<dyn Wire> = match tls {
            None => Box::new(stream),
            Some(acceptor) => {
                let stream = acceptor.accept(stream).await?;
                let certificates = stream.get_ref().1.peer_certificates();
                peer.certificate = certificates.and_then(<[_]>::first).and_then(|one| tls::subject(one));
                Box::new(stream)
            }
        };
        let wire: Box<dyn Wire> =
            if is_websocket { Box::new(websocket::accept(wire, frame_bytes).await?) } else { wire };
        Ok::<_, std::io::Error>(wire)
    };
    match timeout(HANDSHAKE_TIMEOUT, opening).await {
        Ok(Ok(wire)) => Some((wire, peer)),
        Ok(Err(error)) => {
            shared.counters.refused_clients.add(1);
            let hint = tls::hint(&error.to_string());
            tracing::info!(peer = %address, %error, hint, "the handshake failed");
            None
        }
        Err(_) => {
            shared.counters.refused_clients.add(1);
            None
        }
    }
}
