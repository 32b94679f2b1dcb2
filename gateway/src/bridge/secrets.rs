//! Secrets: read from their files each time they are needed, and never kept longer.
//!
//! In: paths. Out: a password, a token. Must never show one in an error or a log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocols::dialect::azure::{KeyError, sas_token};
use protocols::value::Timestamp;

/// The longest secret, in bytes; a token of a vendor has a few hundred.
const SECRET_BYTES: u64 = 16 * 1024;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    #[error("{} is longer than a secret may be", .0.display())]
    Long(PathBuf),
    #[error("{}: {error}", path.display())]
    Key { path: PathBuf, error: KeyError },
}

/// The first line of a file.
pub(super) fn first_line(path: &Path) -> Result<String, SecretError> {
    let wrong = |error| SecretError::Read { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(wrong)?.len() > SECRET_BYTES {
        return Err(SecretError::Long(path.to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(wrong)?;
    let line = text.lines().next().unwrap_or("").trim();
    if line.is_empty() { Err(SecretError::Empty(path.to_owned())) } else { Ok(line.to_owned()) }
}

/// A shared access signature for a device of an Azure IoT Hub that holds for `ttl` from now.
pub(super) fn shared_access_signature(
    key_file: &Path,
    hub: &str,
    device: &str,
    now: Timestamp,
    ttl: Duration,
) -> Result<String, SecretError> {
    let key = first_line(key_file)?;
    let end_s = now.as_ms().div_euclid(1000).saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
    sas_token(hub, device, &key, end_s).map_err(|error| SecretError::Key { path: key_file.to_owned(), error })
}
