//! The harness: a gateway in a folder of its own, peers that nobody here wrote, and patience with an end.
//!
//! Everything is a process of its own and is ended by whoever holds it. A peer that is not installed is a failure with
//! the remedy in it, never a skipped test.

pub mod ble;
pub mod ble_home;
pub mod ble_story;
pub mod ble_suite;
pub mod clouds;
mod driver;
pub mod gateway;
pub mod kube_mapper;
pub mod mqtt;
pub mod net;
pub mod peers;
/// What the benches share; here, so that it is compiled and checked once.
#[path = "../benches/support/mod.rs"]
pub mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live one folder below the root")
}

/// Where `tests/run` put the peers.
pub fn peers_folder() -> PathBuf {
    let folder = root().join(".peers");
    assert!(folder.join("venv").exists(), "the peers are not installed: run tests/run once");
    folder
}

/// Asks again until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`]; `what` says what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// Asks again until there is an answer.
///
/// # Panics
/// When there is none within `patience`; `what` says what was waited for.
#[track_caller]
pub fn within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago, for a peer that cannot choose one itself.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
