//! Where mappers come in: the accepted connections, each put right and counted.
//!
//! In: the socket. Out: connections for the HTTP library, with who is at the other end. Must never hold more of them than
//! [`CONNECTIONS`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::authority::Rewriter;
use super::service::Desk;
use super::socket::Socket;
use super::wire::device_manager_service_server::DeviceManagerServiceServer;
use super::{CALL, CONNECTIONS};

/// Bytes taken from a connection at one time.
const READ_BYTES: usize = 8 * 1024;

/// Pause after the system could not give a connection, so that a lack of files is no busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Streams of one connection at one time; the framework uses one.
const STREAMS: u32 = 16;

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// The user, as the system tells it.
    pub(super) user: Option<u32>,
}

/// Serves until `stop`; then the socket's file is gone.
pub(super) async fn serve(socket: Socket, desk: Desk, stop: CancellationToken) {
    let served = Server::builder().timeout(CALL).max_concurrent_streams(STREAMS).serve_with_incoming_shutdown(
        DeviceManagerServiceServer::new(desk),
        incoming(&socket),
        stop.cancelled(),
    );
    if let Err(error) = served.await {
        tracing::error!(%error, "the device mapper interface cannot be served any more");
    }
}

fn incoming(socket: &Socket) -> impl Stream<Item = io::Result<Caller>> + '_ {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    stream::unfold(room, move |room| async move {
        loop {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            match socket.listener().accept().await {
                Ok((stream, _)) => return Some((Ok(Caller::new(stream, permit)), room)),
                Err(error) => {
                    tracing::warn!(%error, "a mapper's connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// A mapper's connection.
struct Caller {
    stream: UnixStream,
    rewriter: Rewriter,
    ready: Vec<u8>,
    given: usize,
    _permit: OwnedSemaphorePermit,
}

impl Caller {
    fn new(stream: UnixStream, permit: OwnedSemaphorePermit) -> Self {
        Self { stream, rewriter: Rewriter::default(), ready: Vec::new(), given: 0, _permit: permit }
    }
}

impl Connected for Caller {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer { user: self.stream.peer_cred().ok().map(|peer| peer.uid()) }
    }
}

impl AsyncRead for Caller {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(rest) = this.ready.get(this.given..).filter(|rest| !rest.is_empty()) {
                let now = rest.len().min(buf.remaining());
                buf.put_slice(rest.get(..now).unwrap_or_default());
                this.given += now;
                return Poll::Ready(Ok(()));
            }
            (this.given, this.ready) = (0, Vec::new());
            let mut space = [0; READ_BYTES];
            let mut own = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut own))?;
            if own.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let pushed = this.rewriter.push(own.filled(), &mut this.ready);
            pushed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl AsyncWrite for Caller {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
