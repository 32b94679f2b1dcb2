//! Opening the store: the lock, the schema, and what to do with a file that is damaged.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::rows::{self, Names};
use super::{FILE, OpenError, Opened, Options, StoredTwin, VERSION_RESERVE, fold, shelf};
use crate::broker::shelf::Inventory;

/// The schema, step by step; a store's `user_version` says how many of them it has.
const MIGRATIONS: [&str; 2] = [include_str!("schema/0001.sql"), include_str!("schema/0002.sql")];

/// The lock beside the file; it holds the process id of its owner.
const LOCK: &str = "tidegate.lock";

/// How often the lock is tried, and the pause between: a child of the last owner may hold it until its `exec`.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// How long a connection waits for the other one, in milliseconds.
const BUSY_MS: u32 = 5000;

/// SQLite's page, in bytes.
const PAGE_BYTES: u64 = 4096;

/// What the store's thread works with.
pub(super) struct Files {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) names: Names,
    /// Held until the end; the lock goes with it.
    pub(super) lock: File,
}

/// What an opened store holds.
pub(super) struct Found {
    pub(super) files: Files,
    pub(super) opened: Opened,
    pub(super) twins: Vec<StoredTwin>,
    pub(super) inventory: Inventory,
}

/// Why one try to open failed.
pub(super) enum Fault {
    Damaged(String),
    Final(OpenError),
    Sql(rusqlite::Error),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(why) => f.write_str(why),
            Self::Final(error) => error.fmt(f),
            Self::Sql(error) => error.fmt(f),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            // A row that does not have the type it was written with.
            None if matches!(
                error,
                rusqlite::Error::InvalidColumnType(..)
                    | rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
            ) =>
            {
                Self::Damaged(error.to_string())
            }
            _ => Self::Sql(error),
        }
    }
}

impl From<super::leaves::Unreadable> for Fault {
    fn from(unreadable: super::leaves::Unreadable) -> Self {
        Self::Damaged(unreadable.to_string())
    }
}

/// Opens the store of a folder, setting a damaged one aside.
pub(super) fn open(dir: &Path, options: &Options) -> Result<Found, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    let mut lock = Some(take_lock(dir)?);
    let path = dir.join(FILE);
    let mut set_aside = None;
    loop {
        // SQLite's own words for an unreadable file ("unable to open database file") name no reason.
        let fresh = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(_) => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(io(&path)(error)),
        };
        let fault = match try_open(&path, fresh, options) {
            Ok((connection, names, mut opened, twins, inventory)) => {
                opened.set_aside = set_aside;
                let lock = lock.take().expect("it is taken once, at the end of the loop");
                let files = Files { path, connection, names, lock };
                return Ok(Found { files, opened, twins, inventory });
            }
            Err(fault) => fault,
        };
        match fault {
            Fault::Damaged(why) if set_aside.is_none() => {
                let aside = move_aside(&path).map_err(io(&path))?;
                tracing::error!(
                    error = %why, file = %path.display(), moved_to = %aside.display(),
                    "THE STORE IS DAMAGED: it was set aside, a new one with a new epoch begins; desired values, retained \
                     messages and sessions in it are not taken over"
                );
                set_aside = Some(aside);
            }
            Fault::Damaged(why) => {
                let source = std::io::Error::other(format!("a new store is damaged at once: {why}"));
                return Err(OpenError::Io { path, source });
            }
            Fault::Final(error) => return Err(error),
            Fault::Sql(source) => return Err(OpenError::Sql { path, source }),
        }
    }
}

type Contents = (Connection, Names, Opened, Vec<StoredTwin>, Inventory);

fn try_open(path: &Path, fresh: bool, options: &Options) -> Result<Contents, Fault> {
    let mut connection = connect(path)?;
    if let Some(bytes) = options.max_bytes {
        connection.pragma_update(None, "max_page_count", i64::try_from(bytes / PAGE_BYTES).unwrap_or(i64::MAX))?;
    }
    let health: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if health != "ok" {
        return Err(Fault::Damaged(health));
    }
    migrate(&mut connection, path)?;
    let transaction = connection.transaction()?;
    let meta = |key: &str| {
        transaction.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, String>(0)).optional()
    };
    let (epoch, clean) = (meta("epoch")?, meta("clean")?.as_deref() == Some("1"));
    let new = epoch.is_none();
    let epoch = epoch.unwrap_or_else(|| ulid::Ulid::generate().to_string());
    let mut names = Names::load(&transaction)?;
    let reserve = if clean || new { 0 } else { VERSION_RESERVE };
    let twins = fold::load(&transaction, &names, reserve)?;
    let inventory = shelf::load(&transaction)?;
    names.settle();
    rows::set_meta(&transaction, "epoch", &epoch)?;
    rows::set_meta(&transaction, "clean", "0")?;
    transaction.commit()?;
    let opened = Opened { epoch, fresh, clean: clean || new, set_aside: None };
    Ok((connection, names, opened, twins, inventory))
}

/// Opens the file as both connections do.
pub(super) fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS.into()))?;
    // The mode is asked for with a row as answer; a file that is no database fails here.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(48);
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len() as u32;
    if found > known {
        return Err(Fault::Final(OpenError::TooNew { path: path.to_owned(), found, known }));
    }
    for (number, step) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", (number + 1) as i64)?;
        transaction.commit()?;
    }
    Ok(())
}

fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    let mut tries = LOCK_TRIES;
    let locked = loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            result => break result,
        }
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text).is_ok();
            let holder = Some(text.trim().to_owned()).filter(|pid| read && !pid.is_empty());
            return Err(OpenError::Locked { dir: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    // The id is a help for people; without it the lock still holds (a full disk must not keep the gateway from reading).
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

/// Moves the file and its companions to names of their own.
fn move_aside(path: &Path) -> std::io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let with = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let mut number = since.as_millis();
    let mut aside = with(path, &format!(".damaged-{number}"));
    while aside.exists() {
        number += 1;
        aside = with(path, &format!(".damaged-{number}"));
    }
    fs::rename(path, &aside)?;
    for end in ["-wal", "-shm"] {
        match fs::rename(with(path, end), with(&aside, end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}
