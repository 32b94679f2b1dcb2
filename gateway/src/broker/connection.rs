//! One connection: its task from the first byte to the last.
//!
//! In: a stream of bytes from a peer. Out: packets for it, changes for the engine. Must never hold a buffer while nothing
//! happens, read from a client that does not read its answers, or end without telling the engine.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Client, Ending};
use super::core::Leave;
use super::handshake;
use super::shared::Shared;

/// The first byte of a CONNECT.
const CONNECT: u8 = 0x10;
/// A client that has not said CONNECT by then is cut off.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a parting client may take to read the rest and close.
const PARTING: Duration = Duration::from_secs(2);
/// The same when the whole broker stops.
const PARTING_AT_STOP: Duration = Duration::from_millis(200);
/// Bytes read at one time.
const READ_BYTES: usize = 16 * 1024;
/// Bytes taken from the queues at one time; more is taken when these are written.
const WRITE_BYTES: usize = 64 * 1024;
/// Unwritten bytes from which on nothing is read from a client.
const UNREAD_BYTES: usize = 256 * 1024;
/// Buffers up to this size are kept while a connection is quiet.
const IDLE_BYTES: usize = 256;
/// A publisher is held back for a reader that falls behind for at most so long; the session asks for it only at the
/// beginning of such a time, so a slow reader costs its publishers this once.
const HOLD_BACK: Duration = Duration::from_millis(100);

/// A stream of bytes: TCP, TLS or WebSocket.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Who is at the other end, as far as the transport knows.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: std::net::SocketAddr,
    /// Subject of the client certificate, as `CN=…`.
    pub(super) certificate: Option<String>,
}

enum Io {
    Read,
    Wrote,
    End,
}

struct Line {
    stream: Box<dyn Wire>,
    inbox: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    unflushed: bool,
}

impl Line {
    /// Writes what is to be written and reads what there is; returns after either.
    async fn io(&mut self, read: bool) -> io::Result<Io> {
        poll_fn(|cx| {
            let mut wrote = false;
            while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
                match Pin::new(&mut self.stream).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(bytes)) => self.written += bytes,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
                wrote = self.written == self.out.len();
                self.unflushed = true;
            }
            if self.written == self.out.len() && self.written > 0 {
                self.written = 0;
                self.out.clear();
                if self.out.capacity() > IDLE_BYTES {
                    self.out = Vec::new();
                }
            }
            if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
                self.unflushed = false;
            }
            if wrote {
                return Poll::Ready(Ok(Io::Wrote));
            }
            if !read {
                return Poll::Pending;
            }
            let mut space = [const { MaybeUninit::<u8>::uninit() }; READ_BYTES];
            let mut space = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
            self.inbox.extend_from_slice(space.filled());
            Poll::Ready(Ok(if space.filled().is_empty() { Io::End } else { Io::Read }))
        })
        .await
    }

    fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes the rest to a peer that goes, and waits until it has gone.
    async fn part(&mut self, patience: Duration) {
        let rest = async {
            while self.unwritten() > 0 || self.unflushed {
                if self.io(false).await.is_err() {
                    return;
                }
            }
            let _ = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
            // closing while something unread lies in the socket would reset the connection, and the peer would never
            // read why
            while matches!(self.io(true).await, Ok(Io::Read | Io::Wrote)) {
                self.inbox.clear();
            }
        };
        let _ = timeout(patience, rest).await;
    }
}

/// Serves one connection until it ends. `admitted` is dropped when the client is in.
pub(super) async fn serve<P: Send>(shared: Arc<Shared>, stream: Box<dyn Wire>, peer: Peer, admitted: P) {
    let mut line = Line { stream, inbox: Vec::new(), out: Vec::new(), written: 0, unflushed: false };
    // boxed: what is needed for a moment at the beginning should not weigh on every connection for its life
    let client = Box::pin(enter(&shared, &mut line, &peer)).await;
    drop(admitted);
    let Some(client) = client else {
        line.part(PARTING).await;
        return;
    };
    tracing::info!(client = %client.id, peer = %peer.address, "connected");
    let mut guard = Guard { client, ending: None };
    let ending = run(&mut guard.client, &mut line).await;
    if ending.say {
        guard.client.say_disconnect(&ending, &mut line.out);
    }
    tracing::info!(client = %guard.client.id, peer = %peer.address, reason = ending.reason, "disconnected: {}", ending.text);
    guard.ending = Some(ending);
    drop(guard);
    line.part(if shared.stop.is_cancelled() { PARTING_AT_STOP } else { PARTING }).await;
}

/// Tells the engine when a connection is over, even if its task panics.
struct Guard {
    client: Client,
    ending: Option<Ending>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let leave = match &self.ending {
            Some(ending) => Leave { will: ending.will, expiry_s: ending.expiry_s },
            None => {
                // cancelled with the runtime, or a fault in handling this client's packets
                if std::thread::panicking() {
                    self.client.shared.counters.faults.add(1);
                    tracing::error!(client = %self.client.id, "a fault in handling a client was caught");
                }
                Leave { will: true, expiry_s: None }
            }
        };
        let hold = self.client.hold;
        self.client.shared.act(|core, fx| core.detach(hold, leave, fx));
    }
}

async fn enter(shared: &Arc<Shared>, line: &mut Line, peer: &Peer) -> Option<Client> {
    let limit = shared.limits.packet_bytes;
    let connect = async {
        loop {
            // whoever speaks another protocol is not listened to any longer
            if line.inbox.first().is_some_and(|&first| first != CONNECT) {
                return None;
            }
            match super::codec::frame(&line.inbox, limit) {
                Ok(Some(frame)) if frame.end <= line.inbox.len() => return Some(frame),
                Ok(_) => {}
                Err(_) => return None,
            }
            match line.io(true).await {
                Ok(Io::Read | Io::Wrote) => {}
                Ok(Io::End) | Err(_) => return None,
            }
        }
    };
    let frame = timeout(CONNECT_TIMEOUT, connect).await.ok().flatten()?;
    let body = line.inbox.get(frame.body..frame.end)?;
    let client = handshake::enter(shared, frame.first, body, peer, &mut line.out).await;
    line.inbox.drain(..frame.end);
    if client.is_none() {
        shared.counters.refused_clients.add(1);
    }
    client
}

async fn run(client: &mut Client, line: &mut Line) -> Ending {
    let mut heard = Instant::now();
    // not armed for a client without keep-alive
    let patience = client.patience();
    let alarm = sleep_until(heard + patience.unwrap_or(Duration::from_secs(86_400)));
    tokio::pin!(alarm);
    let mut more = true;
    let door = Arc::clone(&client.door);
    // what came together with CONNECT
    if let Err(ending) = digest(client, line, &mut more).await {
        return ending;
    }
    loop {
        if let Some(reason) = door.closing() {
            return Ending::by_server(reason);
        }
        if let Err(ending) = client.answer(&mut line.out) {
            return ending;
        }
        if line.unwritten() == 0 && (more || door.mail.load(Ordering::Acquire)) {
            more = client.collect(WRITE_BYTES, &mut line.out);
        }
        let reads = line.unwritten() < UNREAD_BYTES && client.may_read();
        tokio::select! {
            // nothing is lost when a branch is dropped: io keeps its state in the line
            biased;
            io = line.io(reads) => match io {
                Ok(Io::Read) => {
                    heard = Instant::now();
                    if let Err(ending) = digest(client, line, &mut more).await {
                        return ending;
                    }
                }
                Ok(Io::Wrote) => {}
                Ok(Io::End) => return Ending::lost("the connection was closed without a DISCONNECT"),
                Err(_) => return Ending::lost("the connection broke"),
            },
            () = door.notify.notified() => {}
            () = alarm.as_mut() => {
                let due = heard + patience.unwrap_or(Duration::from_secs(86_400));
                if patience.is_some() && due <= Instant::now() {
                    return Ending { reason: 0x8d, say: true, ..Ending::lost("keep-alive time-out") };
                }
                let next = if patience.is_some() { due } else { Instant::now() + Duration::from_secs(86_400) };
                alarm.as_mut().reset(next);
            }
        }
    }
}

/// Hands the complete packets in the inbox to the client.
async fn digest(client: &mut Client, line: &mut Line, more: &mut bool) -> Result<(), Ending> {
    let mut done = 0;
    let mut unfinished = !line.inbox.is_empty();
    while unfinished {
        let budget = if line.unwritten() == 0 { WRITE_BYTES } else { 0 };
        let digested = client.digest(line.inbox.get(done..).unwrap_or_default(), budget, &mut line.out);
        done += digested.bytes;
        unfinished = digested.unfinished;
        // an acknowledgement may have made room for what was not taken now
        *more = budget == 0 || digested.more;
        if let Some(ending) = digested.ending {
            return Err(ending);
        }
        if let Some(door) = digested.relief.filter(|door| !Arc::ptr_eq(door, &client.door)) {
            // created before the flag is looked at, so the word is not missed
            let relief = door.relief.notified();
            if door.pressed.load(Ordering::Acquire) {
                let _ = timeout(HOLD_BACK, relief).await;
            }
        }
    }
    line.inbox.drain(..done);
    if line.inbox.is_empty() && line.inbox.capacity() > IDLE_BYTES {
        line.inbox = Vec::new();
    }
    Ok(())
}
