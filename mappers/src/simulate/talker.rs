//! Serial devices that are not there: they say what a real one was recorded to say, by themselves or when asked.
//!
//! In: a serial profile and recorded streams, where to be found, faults. Out: bytes. Must never answer what the profile
//! does not ask, nor share code with the port beyond `protocols`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocols::profile::Profile;
use protocols::serial::extract::begins;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::fault::{Dice, Fate};
use super::{CLIENTS, Faults, SimulateError, Terminal, remove_link};

/// A terminal that nobody has open is looked at this often.
const VACANT: Duration = Duration::from_millis(50);
/// Bytes kept of what was sent to the device; the oldest are forgotten.
const INBOX_BYTES: usize = 4_096;
/// STX: what comes before it is said at the first request of a meter, the rest after the agreement on a speed.
const STX: u8 = 0x02;
/// ACK: how that agreement begins.
const ACK: u8 = 0x06;

/// A serial device to be, and where it will be found.
#[derive(Debug)]
pub struct Talker {
    script: Script,
    every: Duration,
    tcp: Vec<SocketAddr>,
    ptys: Vec<PathBuf>,
}

impl Talker {
    /// A device of that profile that says what was recorded; the same seed gives the same faults again.
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

    /// Whether there is anything it can say.
    pub fn is_mute(&self) -> bool {
        self.script.stream.is_empty() && self.script.answers.is_empty()
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
        Ok(BoundTalker { listeners, terminals, every: self.every, script: Arc::new(Mutex::new(self.script)) })
    }
}

/// A device that can be found, and speaks once it runs.
#[derive(Debug)]
pub struct BoundTalker {
    listeners: Vec<(SocketAddr, TcpListener)>,
    terminals: Vec<Terminal>,
    every: Duration,
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
            tasks.spawn(listen(listener, Arc::clone(&self.script), self.every));
        }
        let mut links = Vec::new();
        for mut terminal in self.terminals {
            links.push(std::mem::take(&mut terminal.link));
            let (script, every) = (Arc::clone(&self.script), self.every);
            tasks.spawn(async move {
                loop {
                    converse(&script, every, &mut terminal.near).await;
                    sleep(VACANT).await;
                }
            });
        }
        stop.cancelled().await;
        tasks.shutdown().await;
        drop(links.into_iter().map(remove_link).collect::<Vec<_>>());
    }
}

/// What a device says, and when.
#[derive(Debug)]
struct Script {
    profile: Arc<Profile>,
    /// Said by itself, one after the other.
    stream: Vec<Vec<u8>>,
    /// Said when asked, by request, one after the other.
    answers: BTreeMap<usize, Vec<Vec<u8>>>,
    next: usize,
    faults: Faults,
    dice: Dice,
}

impl Script {
    fn new(profile: Arc<Profile>, recordings: &[Vec<u8>], seed: u64) -> Self {
        let mut script = Self {
            profile,
            stream: Vec::new(),
            answers: BTreeMap::new(),
            next: 0,
            faults: Faults::default(),
            dice: Dice::new(seed),
        };
        for recording in recordings {
            script.sort(recording);
        }
        script
    }

    /// Finds out what a recording is: something the device says by itself, or the answer to a request.
    fn sort(&mut self, recording: &[u8]) {
        let Some(device) = &self.profile.serial else { return };
        let (mut framer, mut frames) = (device.framer(), Vec::new());
        framer.feed(recording, &mut frames);
        framer.on_quiet(&mut frames);
        let heard: Vec<_> = frames.iter().map(|frame| self.profile.hear(&frame.bytes)).collect();
        let values = || heard.iter().flat_map(|heard| &heard.values).filter(|(_, _, quality)| !quality.is_bad());
        let property = |index: usize| self.profile.properties.get(index);
        let is_pushed = |index: &usize| property(*index).is_some_and(|property| property.source.is_pushed());
        if values().any(|(index, ..)| is_pushed(index)) {
            self.stream.push(recording.to_vec());
        }
        for (number, request) in device.requests.iter().enumerate() {
            let is_answer = heard.iter().any(|heard| heard.messages.iter().any(|own| Some(*own) == request.answer));
            if is_answer && values().next().is_some() {
                self.answers.entry(number).or_default().push(recording.to_vec());
            }
        }
    }

    fn turn(&mut self) -> usize {
        self.next = self.next.wrapping_add(1);
        self.next - 1
    }

    fn fate(&mut self) -> Fate {
        let Self { faults, dice, .. } = self;
        faults.draw(1, dice)
    }

    /// What it says by itself now.
    fn say(&mut self) -> Option<Vec<u8>> {
        let turn = self.turn();
        self.stream.get(turn % self.stream.len().max(1)).cloned()
    }

    /// What it answers to what was sent; `rest` is what a meter says once a speed is agreed on.
    fn answer(&mut self, inbox: &mut Vec<u8>, rest: &mut Option<Vec<u8>>) -> Option<Vec<u8>> {
        if rest.is_some()
            && let Some(at) = inbox.iter().position(|byte| *byte == ACK)
            && let Some(end) = inbox.iter().skip(at).position(|byte| *byte == b'\n')
        {
            inbox.drain(..=at + end);
            return rest.take();
        }
        let turn = self.turn();
        let profile = Arc::clone(&self.profile);
        let device = profile.serial.as_ref()?;
        for (number, answers) in &self.answers {
            let Some(request) = device.requests.get(*number) else { continue };
            let Ok(bytes) = device.bytes_of(request) else { continue };
            let Some(at) = (0..inbox.len()).find(|at| begins(inbox.get(*at..).unwrap_or_default(), &bytes)) else {
                continue;
            };
            inbox.drain(..at + bytes.len());
            let answer = answers.get(turn % answers.len().max(1))?;
            let stx = answer.iter().position(|byte| *byte == STX).filter(|_| request.sign_on.is_some());
            let Some(stx) = stx else { return Some(answer.clone()) };
            let (first, second) = answer.split_at(stx);
            *rest = Some(second.to_vec());
            // A recording may begin with the block itself.
            return Some(if first.is_empty() { b"/TDG5SIM\r\n".to_vec() } else { first.to_vec() });
        }
        None
    }
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    // A panic under the lock leaves a script, and that is never half written.
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, script: Arc<Mutex<Script>>, every: Duration) {
    let mut clients = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(VACANT).await;
            continue;
        };
        while clients.try_join_next().is_some() {}
        if clients.len() < CLIENTS {
            let script = Arc::clone(&script);
            clients.spawn(async move { converse(&script, every, &mut stream).await });
        }
    }
}

/// Speaks and answers until the other side is gone, or a fault ends it.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(script: &Mutex<Script>, every: Duration, stream: &mut S) {
    let mut ticks = interval_at(Instant::now() + every.min(Duration::from_millis(100)), every);
    let (mut inbox, mut rest) = (Vec::new(), None);
    let mut room = [0; 512];
    loop {
        let bytes = tokio::select! {
            // Neither branch loses anything: a tick is asked for again, and a read that is dropped took nothing.
            _ = ticks.tick() => lock(script).say(),
            read = stream.read(&mut room) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    inbox.extend_from_slice(room.get(..count).unwrap_or_default());
                    let excess = inbox.len().saturating_sub(INBOX_BYTES);
                    inbox.drain(..excess);
                    lock(script).answer(&mut inbox, &mut rest)
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
