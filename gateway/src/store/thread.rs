//! The store's thread: it takes what waits, commits it as one transaction, and tells everyone.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::checkpoint::Checkpointer;
use super::fold::{self, Fold};
use super::meter::Meter;
use super::open::{Fault, Files};
use super::rows::{self, Applied};
use super::{Job, Options, QUEUE_BYTES, Shared, TwinWrite, UpstreamWrite, shelf, upstreams};
use crate::broker::shelf::{Change, Done, ShelfError};

/// Writes of one transaction, in bytes of memory. More wait for the next one, so that nobody waits for a giant.
const BATCH_BYTES: usize = 4 << 20;

/// How long after a failure changes that nobody waits for are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// One thing to write.
enum Work {
    Twins(Vec<TwinWrite>),
    Shelf(Vec<Change>),
    Upstream(Arc<str>, Vec<UpstreamWrite>),
}

struct Item {
    work: Work,
    done: Option<Done>,
    bytes: usize,
}

pub(super) struct Keeper {
    files: Files,
    options: Options,
    shared: Arc<Shared>,
    /// In order; what nobody waits for may lie here until somebody does or [`Options::lazy`] is over.
    waiting: Vec<Item>,
    waiting_bytes: usize,
    due: Option<Instant>,
    fold: Option<Fold>,
    journal_bytes: u64,
    base_bytes: u64,
    since_checkpoint: u64,
}

impl Keeper {
    pub(super) fn new(files: Files, options: Options, shared: Arc<Shared>) -> Self {
        Self {
            files,
            options,
            shared,
            waiting: Vec::new(),
            waiting_bytes: 0,
            due: None,
            fold: None,
            journal_bytes: 0,
            base_bytes: 0,
            since_checkpoint: 0,
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        let mut meter = Meter::new(self.shared.written.clone());
        let mut checkpointer = Checkpointer::start(&self.files.path, self.shared.checkpointed.clone());
        self.measure();
        loop {
            let open = self.collect(queue);
            if self.is_due() {
                self.commit();
            }
            if !open {
                break;
            }
            self.fold_some();
            self.since_checkpoint += meter.step();
            self.look_after_log(&checkpointer);
        }
        self.finish();
        checkpointer.stop();
        meter.step();
        self.shut();
    }

    /// Waits for work and takes what is there. `false` when the store is to be closed.
    fn collect(&mut self, queue: &Receiver<Job>) -> bool {
        let now = Instant::now();
        let wait = match (self.fold.is_some(), self.due) {
            (true, _) => Duration::ZERO,
            (false, Some(due)) => due.saturating_duration_since(now),
            (false, None) => Duration::from_secs(3600),
        };
        let mut job = match queue.recv_timeout(wait) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        loop {
            let item = match job {
                Job::Twins(writes, done, bytes) => Item { work: Work::Twins(writes), done, bytes },
                Job::Shelf(changes, done, bytes) => Item { work: Work::Shelf(changes), done, bytes },
                Job::Upstream(upstream, writes, done, bytes) => {
                    Item { work: Work::Upstream(upstream, writes), done, bytes }
                }
                Job::Ask(ask) => {
                    if !self.waiting.is_empty() {
                        self.commit();
                    }
                    ask(&self.files.connection, &mut self.files.names);
                    return true;
                }
                Job::Beat(heard) => {
                    // Who asked may have gone.
                    let _ = heard.send(());
                    return true;
                }
                Job::Close => return false,
            };
            let due = if item.done.is_some() { now } else { now + self.options.lazy };
            // After a failure the first one who waits is the next try.
            self.due = Some(self.due.map_or(due, |old| old.min(due)));
            self.waiting_bytes += item.bytes;
            self.waiting.push(item);
            if self.waiting_bytes >= BATCH_BYTES {
                self.due = Some(now);
                return true;
            }
            match queue.try_recv() {
                Ok(next) => job = next,
                Err(_) => return true,
            }
        }
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now()) && !self.waiting.is_empty()
    }

    /// One transaction for all that waits. When it fails, the twins and all else get one each: a message that does not
    /// fit any more must not keep a desired value from the disk.
    fn commit(&mut self) {
        self.due = None;
        let items = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let Err(error) = self.transact(&items) else { return self.succeed(items) };
        let (twins, shelf): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| matches!(item.work, Work::Twins(_)));
        if twins.is_empty() || shelf.is_empty() {
            return self.fail(twins.into_iter().chain(shelf).collect(), &error);
        }
        for part in [twins, shelf] {
            match self.transact(&part) {
                Ok(()) => self.succeed(part),
                Err(error) => self.fail(part, &error),
            }
        }
    }

    fn succeed(&mut self, items: Vec<Item>) {
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.tell_trouble(None);
        for item in items {
            self.shared.queued.fetch_sub(item.bytes, Ordering::Relaxed);
            if let Some(done) = item.done {
                done(Ok(()));
            }
        }
    }

    fn transact(&mut self, items: &[Item]) -> Result<(), rusqlite::Error> {
        let Files { connection, names, .. } = &mut self.files;
        let mut applied = Applied::default();
        let result = in_transaction(connection, |connection| {
            for item in items {
                match &item.work {
                    Work::Twins(writes) => {
                        let one = rows::apply(connection, names, writes)?;
                        applied.leaves += one.leaves;
                        applied.journal_bytes += one.journal_bytes;
                    }
                    Work::Shelf(changes) => {
                        changes.iter().try_for_each(|change| shelf::apply(connection, change))?;
                    }
                    Work::Upstream(upstream, writes) => upstreams::apply(connection, names, upstream, writes)?,
                }
            }
            Ok(())
        });
        if result.is_err() {
            names.forget();
            return result;
        }
        names.settle();
        self.shared.leaves.fetch_add(applied.leaves, Ordering::Relaxed);
        self.journal_bytes += applied.journal_bytes;
        self.shared.journal.store(self.journal_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Tells those who wait; keeps the rest for another try, as far as there is room.
    fn fail(&mut self, items: Vec<Item>, error: &rusqlite::Error) {
        let text = error.to_string();
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        self.tell_trouble(Some(&text));
        for item in items {
            if let Some(done) = item.done {
                self.shared.queued.fetch_sub(item.bytes, Ordering::Relaxed);
                done(Err(ShelfError::Store(text.clone())));
            } else if self.waiting_bytes + item.bytes <= QUEUE_BYTES / 2 {
                self.waiting_bytes += item.bytes;
                self.waiting.push(item);
            } else {
                self.shared.queued.fetch_sub(item.bytes, Ordering::Relaxed);
                let count = match &item.work {
                    Work::Twins(writes) => writes.len(),
                    Work::Shelf(changes) => changes.len(),
                    Work::Upstream(_, writes) => writes.len(),
                };
                self.shared.dropped.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
        if !self.waiting.is_empty() {
            self.due = Some(Instant::now() + RETRY);
        }
    }

    /// Remembers how it stands, and says so once for each change.
    fn tell_trouble(&self, trouble: Option<&str>) {
        let mut held = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (held.as_deref(), trouble) {
            (None, Some(error)) => {
                tracing::error!(error, "the store cannot be written; writes are refused until it can");
            }
            (Some(_), None) => tracing::warn!("the store can be written again"),
            _ => {}
        }
        *held = trouble.map(str::to_owned);
    }

    /// Begins a fold when the journal has grown, or does one step of it.
    fn fold_some(&mut self) {
        if self.fold.is_none() && self.journal_bytes > self.options.fold_bytes.max(self.base_bytes) {
            match Fold::begin(&self.files.connection) {
                Ok(fold) => self.fold = fold,
                Err(Fault::Damaged(error)) => {
                    self.tell_trouble(Some(&error));
                    // The rows stay as they are; the next start sets the file aside.
                    self.journal_bytes = 0;
                }
                Err(Fault::Sql(error)) => self.tell_trouble(Some(&error.to_string())),
                Err(Fault::Final(_)) => {}
            }
        }
        let Some(mut fold) = self.fold.take() else { return };
        match in_transaction(&self.files.connection, |connection| fold.step(connection)) {
            Ok(false) => self.fold = Some(fold),
            Ok(true) => self.measure(),
            Err(error) => {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                self.tell_trouble(Some(&error.to_string()));
                // Begun anew when the journal has grown by as much again.
                self.journal_bytes = 0;
            }
        }
    }

    fn measure(&mut self) {
        if let Ok((journal, base)) = fold::sizes(&self.files.connection) {
            self.journal_bytes = journal;
            self.base_bytes = base;
            self.shared.journal.store(journal, Ordering::Relaxed);
        }
    }

    fn look_after_log(&mut self, checkpointer: &Checkpointer) {
        if self.since_checkpoint < self.options.checkpoint_bytes {
            return;
        }
        self.since_checkpoint = 0;
        let log = std::fs::metadata(companion(&self.files.path, "-wal")).map_or(0, |file| file.len());
        if log > self.options.wal_bytes {
            // The other thread could not keep up: writers wait this once, so that the log stays bounded.
            self.truncate_log();
        } else {
            checkpointer.nudge();
        }
    }

    fn truncate_log(&self) {
        let connection = &self.files.connection;
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "a checkpoint failed; the log stays until the next one");
        }
    }

    /// The last commit, and the fold of everything.
    fn finish(&mut self) {
        if !self.waiting.is_empty() {
            self.commit();
        }
        let lost = std::mem::take(&mut self.waiting);
        if !lost.is_empty() {
            self.shared.dropped.fetch_add(lost.len() as u64, Ordering::Relaxed);
            tracing::error!(changes = lost.len(), "the store is closed with changes it could not write");
        }
        if self.journal_bytes > 0 {
            self.fold = None;
            if let Ok(fold) = Fold::begin(&self.files.connection) {
                self.fold = fold;
            }
            while self.fold.is_some() {
                self.fold_some();
            }
        }
        self.truncate_log();
    }

    fn shut(self) {
        let Files { connection, lock, .. } = self.files;
        if let Err((_, error)) = connection.close() {
            tracing::warn!(%error, "the store was not closed in order");
        }
        drop(lock);
    }
}

/// Runs `act` in a transaction; a failure inside rolls it back.
fn in_transaction<T>(
    connection: &Connection,
    act: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
) -> Result<T, rusqlite::Error> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let result = act(connection).and_then(|value| {
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(value)
    });
    if result.is_err() && !connection.is_autocommit() {
        // SQLite rolls back by itself after some errors and not after others.
        connection.execute_batch("ROLLBACK")?;
    }
    result
}

fn companion(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}
