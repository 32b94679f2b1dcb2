//! The store: one SQLite file, one thread that owns it.
//!
//! In: twin changes and what the broker wants to keep. Out: a word when they are on disk, and everything again after a
//! restart. Must never say "on disk" before it is, never lose silently, and never be silently empty.
//!
//! * **Group commit.** What waits in the queue goes into one transaction (WAL, `synchronous=FULL`); then every `done` of
//!   it is called.
//! * **Desired values** are rows. **Reported values** are a base row for each device and a journal: a flush appends one
//!   journal row with all leaves that changed, sorted and packed. Once the journal outgrows the base it is folded into
//!   it, a few devices at a time between commits. Random upserts cost SQLite kilobytes each; this costs tens of bytes.
//! * A leaf lies beside its version in one transaction, and a cleared one leaves its version behind. What a bridge has
//!   not sent yet is thereby what is newer than the last version it was acknowledged; there is no second mark to lose.
//! * **Checkpoints** are made by a thread of their own, outside commits.
//! * **Versions.** Between two flushes up to [`VERSION_RESERVE`] versions of a device may be published that are not on
//!   disk yet. After an end that was not clean, each device continues above that reserve, so no version goes back.
//! * **Trouble.** A transaction that fails (a full disk) is told to everyone who waits for it; changes that nobody waits for
//!   are kept and tried again. A damaged file is set aside under another name, and a new epoch begins.

mod checkpoint;
mod fold;
mod leaves;
mod meter;
mod open;
mod rows;
mod shelf;
#[cfg(test)]
mod tests;
mod thread;
mod upstreams;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use protocols::message::ReportedOut;
use protocols::name::{DeviceId, PropertyName};
use protocols::outbox::{Load, Row};
use protocols::twin::{Leaf, Saved};
use tokio::sync::oneshot;

use crate::broker::shelf::{Change, Done, Inventory, Shelf, ShelfError};

pub use self::upstreams::{Forgotten, KeptUpstream, UpstreamWrite};

/// The store's file inside its folder.
pub const FILE: &str = "tidegate.db";

/// Versions of a device's reported section that may be published before the next flush is on disk. A device that uses
/// them up waits for the flush.
pub const VERSION_RESERVE: u64 = 1000;

/// Bytes that may wait for the store thread. Beyond it a write is refused (or, when nobody waits for it, dropped and
/// counted).
pub const QUEUE_BYTES: usize = 32 << 20;

/// How the store is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest size of the file in bytes; beyond it every write is refused as on a full disk. `None` is the disk.
    pub max_bytes: Option<u64>,
    /// The journal is folded when it is longer than this and than the base, in bytes.
    pub fold_bytes: u64,
    /// The write-ahead log is copied back into the file after this many bytes …
    pub checkpoint_bytes: u64,
    /// … and is never longer than this for long; a commit waits then.
    pub wal_bytes: u64,
    /// Changes that nobody waits for may stay in memory this long.
    pub lazy: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_bytes: None,
            fold_bytes: 1 << 20,
            checkpoint_bytes: 4 << 20,
            wal_bytes: 16 << 20,
            lazy: Duration::from_secs(1),
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {} is in use by another process{}", dir.display(), holder.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The other process, if it left its id.
        holder: Option<String>,
    },
    /// A file or folder cannot be read or written.
    #[error("the store cannot use {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was written by a newer version of the program.
    #[error("the store {} has schema {found}, this program knows schemas up to {known}; use a newer program or move the file away", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// SQLite refuses for another reason.
    #[error("the store {} cannot be opened: {source}", path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// What was found when the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The epoch; versions compare only inside it.
    pub epoch: String,
    /// There was none before.
    pub fresh: bool,
    /// It had been closed in order.
    pub clean: bool,
    /// A damaged one was moved here.
    pub set_aside: Option<PathBuf>,
}

/// Changes of a device's reported section, for one flush.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedWrite {
    /// The device.
    pub device: DeviceId,
    /// The version of the section.
    pub version: u64,
    /// What changed; `None` where a property is gone.
    pub leaves: Vec<(PropertyName, Option<ReportedOut>)>,
}

/// One change of the twins.
#[derive(Clone, Debug, PartialEq)]
pub enum TwinWrite {
    /// A device's reported section. All of one [`Store::write`] share one journal row.
    Reported(ReportedWrite),
    /// One desired property.
    Desired(DeviceId, PropertyName, Leaf),
    /// The reported versions written are exact: nothing newer was published. For a clean end.
    Settled,
}

/// A twin as it was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTwin {
    /// The device.
    pub device: DeviceId,
    /// Its sections.
    pub saved: Saved,
}

/// What the store has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transactions on disk.
    pub commits: u64,
    /// Transactions that failed.
    pub failures: u64,
    /// Changes that nobody waited for and that were given up.
    pub dropped: u64,
    /// Reported leaves that were flushed.
    pub leaves: u64,
    /// Bytes written by commits and folds …
    pub written_bytes: u64,
    /// … and by checkpoints.
    pub checkpoint_bytes: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Bytes waiting for the store thread.
    pub queue_bytes: usize,
}

#[derive(Debug, Default)]
struct Shared {
    commits: AtomicU64,
    failures: AtomicU64,
    dropped: AtomicU64,
    leaves: AtomicU64,
    written: Arc<AtomicU64>,
    checkpointed: Arc<AtomicU64>,
    journal: AtomicU64,
    queued: AtomicUsize,
    closed: AtomicBool,
    trouble: Mutex<Option<String>>,
}

enum Job {
    Twins(Vec<TwinWrite>, Option<Done>, usize),
    Shelf(Vec<Change>, Option<Done>, usize),
    Upstream(Arc<str>, Vec<UpstreamWrite>, Option<Done>, usize),
    /// Something to look up, once everything sent before is written.
    Ask(upstreams::Ask),
    /// A sign of life; nothing is written for it.
    Beat(oneshot::Sender<()>),
    Close,
}

/// The store. Dropping it closes it.
pub struct Store {
    opened: Opened,
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    twins: Mutex<Vec<StoredTwin>>,
    inventory: Mutex<Option<Inventory>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("opened", &self.opened).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in this folder, makes it where there is none, and starts its thread.
    ///
    /// # Errors
    /// When another process has it, or it cannot be read and written. A damaged store is no error: it is set aside.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let found = open::open(dir, &options)?;
        let shared = Arc::new(Shared::default());
        let (jobs, queue) = mpsc::channel();
        let (opened, twins, inventory) = (found.opened.clone(), found.twins, found.inventory);
        let keeper = thread::Keeper::new(found.files, options, shared.clone());
        let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(move || keeper.run(&queue));
        let thread = spawned.map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        Ok(Self {
            opened,
            jobs,
            shared,
            twins: Mutex::new(twins),
            inventory: Mutex::new(Some(inventory)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What was found when it was opened.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Where the reported versions of a device begin that the store knows without a reported version. Above 0, the device
    /// may have published without a flush in an earlier run: its version must be on disk before it publishes again. A
    /// device that the store does not know at all begins at 0, once it is written down.
    pub fn first_version(&self) -> u64 {
        if self.opened.clean { 0 } else { VERSION_RESERVE }
    }

    /// The twins as they were kept. They are handed over once; a second call gives none.
    pub fn load_twins(&self) -> Vec<StoredTwin> {
        std::mem::take(&mut *self.twins.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes in one transaction, and calls `done` from the store's thread when it is on disk or has failed. A failed
    /// write has changed nothing and is not tried again when somebody waits for it. Never blocks.
    pub fn write(&self, writes: Vec<TwinWrite>, done: Option<Done>) {
        let bytes = writes.iter().map(weight).sum();
        self.send(bytes, writes.len(), done, move |done| Job::Twins(writes, done, bytes));
    }

    /// Writes what is kept for an upstream in one transaction, and calls `done` as [`Store::write`] does. Without a `done` it
    /// waits for the next group. Never blocks.
    pub fn write_upstream(&self, upstream: &Arc<str>, writes: Vec<UpstreamWrite>, done: Option<Done>) {
        let bytes = writes.iter().map(upstreams::weight).sum();
        let upstream = Arc::clone(upstream);
        self.send(bytes, writes.len(), done, move |done| Job::Upstream(upstream, writes, done, bytes));
    }

    /// What is kept for an upstream, given to `take` from the store's thread. `target` says where it leads: when that is
    /// another place than before, its marks and its dialect's memory are forgotten. `Err` says why nothing can be read.
    pub fn load_upstream(
        &self,
        upstream: &Arc<str>,
        target: String,
        take: impl FnOnce(Result<KeptUpstream, String>) + Send + 'static,
    ) {
        let upstream = Arc::clone(upstream);
        self.ask(Box::new(move |connection, names| {
            take(upstreams::load(connection, names, &upstream, &target).map_err(|fault| fault.to_string()));
        }));
    }

    /// Deletes everything that is kept for upstreams other than these, and gives to `take`, on the store's thread, what
    /// that was. `Err` says why nothing was deleted.
    pub fn forget_upstreams(
        &self,
        configured: Vec<String>,
        take: impl FnOnce(Result<Vec<Forgotten>, String>) + Send + 'static,
    ) {
        self.ask(Box::new(move |connection, _| {
            take(upstreams::forget(connection, &configured).map_err(|error| error.to_string()));
        }));
    }

    /// Spooled readings of an upstream in their order, given to `take` from the store's thread.
    pub fn load_readings(
        &self,
        upstream: &Arc<str>,
        load: Load,
        take: impl FnOnce(Result<Vec<Row>, String>) + Send + 'static,
    ) {
        let upstream = Arc::clone(upstream);
        self.ask(Box::new(move |connection, names| {
            take(upstreams::readings(connection, names, &upstream, &load).map_err(|error| error.to_string()));
        }));
    }

    /// Dropping the question unasked tells the one who waits for its answer.
    fn ask(&self, ask: upstreams::Ask) {
        if !self.shared.closed.load(Ordering::SeqCst) {
            drop(self.jobs.send(Job::Ask(ask)));
        }
    }

    /// Asks for a sign of life. The thread gives it between two pieces of work; one that has ended never does, and drops
    /// `heard`.
    pub fn beat(&self, heard: oneshot::Sender<()>) {
        // Not sent is not heard.
        drop(self.jobs.send(Job::Beat(heard)));
    }

    /// Why the last transaction failed, while none has worked since.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            commits: read(&self.shared.commits),
            failures: read(&self.shared.failures),
            dropped: read(&self.shared.dropped),
            leaves: read(&self.shared.leaves),
            written_bytes: read(&self.shared.written),
            checkpoint_bytes: read(&self.shared.checkpointed),
            journal_bytes: read(&self.shared.journal),
            queue_bytes: self.shared.queued.load(Ordering::Relaxed),
        }
    }

    /// Finishes what waits, folds the journal, and closes the file. Later writes are refused.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let asked = self.jobs.send(Job::Close).is_ok();
            let ended = thread.join().is_ok();
            if !(asked && ended) {
                tracing::error!("the store's thread had ended before it was asked to");
            }
        }
    }

    fn send(&self, bytes: usize, changes: usize, done: Option<Done>, job: impl FnOnce(Option<Done>) -> Job) {
        let refuse = |done: Option<Done>, why: &str| match done {
            Some(done) => done(Err(ShelfError::Store(why.to_owned()))),
            None => drop(self.shared.dropped.fetch_add(changes as u64, Ordering::Relaxed)),
        };
        if self.shared.closed.load(Ordering::SeqCst) {
            return refuse(done, "it is closed");
        }
        if self.shared.queued.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES {
            self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
            return refuse(done, "too much is waiting for it");
        }
        let sent = self.jobs.send(job(done));
        if let Err(mpsc::SendError(Job::Twins(_, done, _) | Job::Shelf(_, done, _) | Job::Upstream(_, _, done, _))) =
            sent
        {
            refuse(done, "its thread has ended");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shelf for Store {
    fn load(&self) -> Result<Inventory, ShelfError> {
        let inventory = self.inventory.lock().unwrap_or_else(PoisonError::into_inner).take();
        inventory.ok_or_else(|| ShelfError::Store("what it held was handed out before".to_owned()))
    }

    fn keep(&self, changes: Vec<Change>, done: Option<Done>) {
        let bytes = changes.iter().map(shelf::weight).sum();
        self.send(bytes, changes.len(), done, move |done| Job::Shelf(changes, done, bytes));
    }
}

/// About how much memory a write holds.
fn weight(write: &TwinWrite) -> usize {
    match write {
        TwinWrite::Reported(reported) => 64 + reported.leaves.len() * 128,
        TwinWrite::Desired(_, _, Leaf::Held(wish)) => 256 + value_weight(&wish.out.value),
        TwinWrite::Desired(..) => 128,
        TwinWrite::Settled => 8,
    }
}

fn value_weight(value: &protocols::value::Value) -> usize {
    use protocols::value::Value;
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 32 + value_weight(item)).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| 64 + key.len() + value_weight(value)).sum(),
        _ => 0,
    }
}
