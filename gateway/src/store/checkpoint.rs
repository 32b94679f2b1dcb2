//! The checkpoint thread: it copies the write-ahead log back into the file while commits go on.
//!
//! In: a nudge. Out: nothing but a shorter log. It never takes the write lock: a passive checkpoint stops where
//! somebody still reads or writes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::meter::Meter;
use super::open;

/// The thread and how to nudge it.
#[derive(Debug)]
pub(super) struct Checkpointer {
    nudge: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts it. When it cannot start, the store's thread makes the checkpoints at the log's bound.
    pub(super) fn start(path: &Path, written: Arc<AtomicU64>) -> Self {
        let (nudge, nudges) = sync_channel(1);
        let path = path.to_owned();
        let run = move || run(&path, &nudges, written);
        let thread = std::thread::Builder::new().name("store-checkpoint".to_owned()).spawn(run);
        if let Err(error) = &thread {
            tracing::warn!(%error, "no thread for checkpoints");
        }
        Self { nudge: Some(nudge), thread: thread.ok() }
    }

    /// Asks for a checkpoint; one that is asked for already is enough.
    pub(super) fn nudge(&self) {
        if let Some(nudge) = &self.nudge {
            let _ = nudge.try_send(());
        }
    }

    /// Ends the thread.
    pub(super) fn stop(&mut self) {
        self.nudge = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread had ended before it was asked to");
        }
    }
}

fn run(path: &Path, nudges: &Receiver<()>, written: Arc<AtomicU64>) {
    let mut meter = Meter::new(written);
    let connection = match open::connect(path) {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(%error, "the checkpoint thread cannot open the store");
            return;
        }
    };
    while nudges.recv().is_ok() {
        let checkpoint = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            tracing::warn!(%error, "a checkpoint failed; the log stays until the next one");
        }
        meter.step();
    }
}
