//! Notices that files were saved.
//!
//! In: files and folders. Out: a nudge, once things are quiet again. Must never nudge while an editor is still writing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Editors write, rename and touch; a save is over after this long without any of it.
const QUIET: Duration = Duration::from_millis(300);

/// Watches files.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    saved: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches the folders of these files. Where the system cannot watch, only SIGHUP reloads, and the log says so.
    pub(crate) fn new(files: &[PathBuf]) -> Self {
        let (tell, saved) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let changed = event.is_ok_and(|event| {
                !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(|path| is_yaml(path))
            });
            if changed {
                // A full queue holds a nudge already.
                let _ = tell.try_send(());
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "files cannot be watched; send SIGHUP to reload");
        }
        let mut watch = Self { watcher: watcher.ok(), folders: BTreeSet::new(), saved };
        watch.follow(files);
        watch
    }

    /// Watches the folders of these files besides.
    pub(crate) fn follow(&mut self, files: &[PathBuf]) {
        let folder = |file: &PathBuf| match file.is_dir() {
            true => file.clone(),
            false => {
                file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
            }
        };
        for folder in files.iter().map(folder) {
            if !self.folders.insert(folder.clone()) {
                continue;
            }
            let Some(watcher) = &mut self.watcher else { continue };
            if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "cannot be watched; send SIGHUP to reload");
            }
        }
    }

    /// Waits for a save to be over. May be dropped and called again; a save meanwhile is not lost.
    pub(crate) async fn saved(&mut self) {
        if self.saved.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while tokio::time::timeout(QUIET, self.saved.recv()).await.is_ok_and(|nudge| nudge.is_some()) {}
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
}
