//! The Unix socket that mappers dial, and the sockets where mappers serve.
//!
//! In: paths. Out: a listener that only its owner and group can reach; whether a mapper's socket may be trusted. Must
//! never take a socket away from a process that serves on it, and never leave one open to everybody, not for a moment.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// Mode of a folder that is made for the socket.
const FOLDER_MODE: u32 = 0o750;

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process serves there.
    #[error("{0} is in use: a process answers there (edgecore, or another gateway?); stop it, or name another socket")]
    InUse(PathBuf),
    /// There is a file that is no socket.
    #[error("{0} is there already and is no socket; take it away, or name another socket")]
    NotASocket(PathBuf),
    /// Somebody else may replace what lies in the folder.
    #[error(
        "everybody may write in {0}, so anybody could take the socket's place; chmod o-w it, or name another folder"
    )]
    OpenFolder(PathBuf),
    /// A socket of another user, who is not to be trusted.
    #[error("{path} belongs to user {owner}, and only root's, our own or the mapper's own socket is dialled")]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The system refuses.
    #[error("{path}: {error}")]
    System {
        /// What was looked at.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// A listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another gateway may have put its own in this place meanwhile.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn system(path: &Path) -> impl Fn(std::io::Error) -> SocketError {
    let path = path.to_path_buf();
    move |error| SocketError::System { path: path.clone(), error }
}

/// Opens a socket, in the place of one that nobody serves any more.
///
/// # Errors
/// [`SocketError`].
pub(super) async fn open(path: &Path) -> Result<Socket, SocketError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(system(folder))?;
    }
    let mode = fs::metadata(folder).map_err(system(folder))?.permissions().mode();
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        return Err(SocketError::OpenFolder(folder.to_path_buf()));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_path_buf())),
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => return Err(SocketError::InUse(path.to_path_buf())),
            // What a process left behind that is gone.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(system(path)(error)),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(path)(error)),
    }
    // Made under another name and moved when its mode is right; the move also replaces what was left behind.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let making = folder.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&making);
    let listener = UnixListener::bind(&making).map_err(system(path))?;
    let settle = || {
        fs::set_permissions(&making, fs::Permissions::from_mode(MODE))?;
        fs::rename(&making, path)?;
        fs::symlink_metadata(path).map(|made| made.ino())
    };
    match settle() {
        Ok(inode) => Ok(Socket { listener, path: path.to_path_buf(), inode }),
        Err(error) => {
            let _ = fs::remove_file(&making);
            Err(system(path)(error))
        }
    }
}

/// Whether a mapper's socket may be dialled: it is root's, ours, or of the user who registered it.
///
/// # Errors
/// [`SocketError`].
pub(super) fn trust(path: &Path, registrant: Option<u32>) -> Result<(), SocketError> {
    let found = fs::symlink_metadata(path).map_err(system(path))?;
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_path_buf()));
    }
    let own = fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(0);
    let owner = found.uid();
    if owner == 0 || owner == own || Some(owner) == registrant {
        return Ok(());
    }
    Err(SocketError::Stranger { path: path.to_path_buf(), owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_the_groups_alone_and_goes_with_its_gateway() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/dmi.sock");
        let socket = open(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o007, 0);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_somebody_serves_is_left_alone_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dmi.sock");
        let alive = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(open(&path).await, Err(SocketError::InUse(_))));
        drop(alive);
        let socket = open(&path).await.unwrap();
        assert!(UnixStream::connect(socket.path()).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_and_an_open_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dmi.sock");
        fs::write(&path, "x").unwrap();
        assert!(matches!(open(&path).await, Err(SocketError::NotASocket(_))));
        assert!(matches!(trust(&path, None), Err(SocketError::NotASocket(_))));
        fs::remove_file(&path).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(open(&path).await, Err(SocketError::OpenFolder(_))));
        let long = folder.path().join("x".repeat(200));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(open(&long).await, Err(SocketError::System { .. })));
    }
}
