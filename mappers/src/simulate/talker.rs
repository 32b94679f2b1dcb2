//! Serial devices that are not there: they speak by themselves or when asked, with values that live.
//!
//! In: a serial profile and recorded streams, where to be found, faults. Out: bytes ([`Script`] says which). Must never share
//! code with the port beyond `protocols`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocols::profile::Profile;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::script::Script;
use super::{CLIENTS, Faults, SimulateError, Terminal, remove_link};
use crate::clock::Clock;

/// A terminal that nobody has open is looked at this often.
const VACANT: Duration = Duration::from_millis(50);
/// Bytes kept of what was sent to the device; the oldest are forgotten.
const INBOX_BYTES: usize = 4_096;

/// A serial device to be, and where it will be found.
#[derive(Debug)]
pub struct Talker {
    script: Script,
    every: Duration,
    tcp: Vec<SocketAddr>,
    ptys: Vec<PathBuf>,
}

impl Talker {
    /// A device of that profile that says what was recorded, with values that live; the same seed gives the same values and
    /// faults again.
    pub fn new(profile: Arc<Profile>, recordings: &[Vec<u8>], seed: u64) -> Self {
        let script = Script::new(profile, recordings, seed);
        Self { script, every: Duration::from_secs(1), tcp: Vec::new(), ptys: Vec::new() }
    }

    /// How often it speaks by itself.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(1));
        self
    }

    /// Serves its bytes on a socket there, as a serial server does; port 0 takes a free one.
    #[must_use]
    pub fn tcp(mut self, address: SocketAddr) -> Self {
        self.tcp.push(address);
        self
    }

    /// Speaks on a new pseudo terminal that is found under this path.
    #[must_use]
    pub fn pty(mut self, path: impl Into<PathBuf>) -> Self {
        self.ptys.push(path.into());
        self
    }

    /// Faults from the start.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.script.faults = faults;
        self
    }

    /// Whether there is nothing it can say.
    pub fn is_mute(&self) -> bool {
        self.script.is_mute()
    }

    /// The names of the properties whose values live.
    pub fn lives(&self) -> Vec<String> {
        self.script.lives()
    }

    /// What stays as it was recorded, or is not said at all, and why.
    pub fn stiff(&self) -> Vec<(String, String)> {
        self.script.stiff()
    }

    /// Takes the addresses and makes the terminals.
    ///
    /// # Errors
    /// [`SimulateError`] names what cannot be had.
    pub async fn bind(self) -> Result<BoundTalker, SimulateError> {
        let mut listeners = Vec::new();
        for address in self.tcp {
            let failed = |source| SimulateError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            listeners.push((listener.local_addr().map_err(failed)?, listener));
        }
        let terminals = self.ptys.into_iter().map(Terminal::new).collect::<Result<Vec<_>, _>>()?;
        Ok(BoundTalker {
            listeners,
            terminals,
            every: self.every,
            clock: Clock::new(),
            script: Arc::new(Mutex::new(self.script)),
        })
    }
}

/// A device that can be found, and speaks once it runs.
#[derive(Debug)]
pub struct BoundTalker {
    listeners: Vec<(SocketAddr, TcpListener)>,
    terminals: Vec<Terminal>,
    every: Duration,
    clock: Clock,
    script: Arc<Mutex<Script>>,
}

impl BoundTalker {
    /// Where TCP is served, in the order asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(address, _)| *address).collect()
    }

    /// The paths of the pseudo terminals, in the order asked for.
    pub fn ptys(&self) -> Vec<&Path> {
        self.terminals.iter().map(|terminal| terminal.link.as_path()).collect()
    }

    /// Speaks until `stop`; then connections are closed and the links to the terminals removed.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for (_, listener) in self.listeners {
            tasks.spawn(listen(listener, Arc::clone(&self.script), self.clock, self.every));
        }
        let mut links = Vec::new();
        for mut terminal in self.terminals {
            links.push(std::mem::take(&mut terminal.link));
            let (script, clock, every) = (Arc::clone(&self.script), self.clock, self.every);
            tasks.spawn(async move {
                loop {
                    converse(&script, clock, every, &mut terminal.near).await;
                    sleep(VACANT).await;
                }
            });
        }
        stop.cancelled().await;
        tasks.shutdown().await;
        drop(links.into_iter().map(remove_link).collect::<Vec<_>>());
    }
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    // A panic under the lock leaves a script, and that is never half written.
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, script: Arc<Mutex<Script>>, clock: Clock, every: Duration) {
    let mut clients = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(VACANT).await;
            continue;
        };
        while clients.try_join_next().is_some() {}
        if clients.len() < CLIENTS {
            let script = Arc::clone(&script);
            clients.spawn(async move { converse(&script, clock, every, &mut stream).await });
        }
    }
}

/// Speaks and answers until the other side is gone, or a fault ends it.
async fn converse<S>(script: &Mutex<Script>, clock: Clock, every: Duration, stream: &mut S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ticks = interval_at(Instant::now() + every.min(Duration::from_millis(100)), every);
    let (mut inbox, mut rest) = (Vec::new(), None);
    let mut room = [0; 512];
    loop {
        let bytes = tokio::select! {
            // Neither branch loses anything: a tick is asked for again, and a read that is dropped took nothing.
            _ = ticks.tick() => lock(script).say(clock.now()),
            read = stream.read(&mut room) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    inbox.extend_from_slice(room.get(..count).unwrap_or_default());
                    let excess = inbox.len().saturating_sub(INBOX_BYTES);
                    inbox.drain(..excess);
                    lock(script).answer(&mut inbox, &mut rest, clock.now())
                }
            },
        };
        let Some(mut bytes) = bytes else { continue };
        let fate = lock(script).fate();
        if let Some(delay) = fate.delay {
            sleep(delay).await;
        }
        if fate.disconnect {
            return;
        }
        if fate.crc {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x04;
            }
        }
        if !fate.silence && stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
