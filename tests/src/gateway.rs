//! `tidegate` as a process, in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tempfile::TempDir;

use crate::{eventually, root};

/// The binary: the one `TIDEGATE_BIN` names (`tests/run` builds it first), else built now.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
            return path.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // What cargo tells a test about its own package would look like a change to build scripts that watch it.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_")) {
            if !matches!(name.to_str(), Some("CARGO_HOME" | "CARGO_TARGET_DIR")) {
                build.env_remove(name);
            }
        }
        build.args(["build", "--quiet", "--package", "tidegate"]).current_dir(root());
        let release = !cfg!(debug_assertions);
        if release {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo can be started").success(), "tidegate does not build");
        let test = std::env::current_exe().expect("a running test has a path");
        let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
        profile.join("tidegate")
    })
}

/// A folder with the files of one installation.
pub struct Home {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("there is room for a folder"), environment: Vec::new() }
    }

    /// Whatever runs here finds this in its environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A folder with this `gateway.yaml`.
    pub fn with(yaml: &str) -> Self {
        let home = Self::new();
        home.write("gateway.yaml", yaml);
        home
    }

    /// Writes a file, folders included.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("folders can be made");
        fs::write(path, text).expect("files can be written");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a `tidegate` command here to its end.
    pub fn tidegate(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(words).current_dir(self.path()).env("NO_COLOR", "1").env_remove("TIDEGATE_BROKER");
        command.stdin(Stdio::null()).output().expect("tidegate can be started")
    }

    /// Starts the gateway here and waits until it serves.
    pub fn start(&self) -> Gateway {
        self.run(&["run", "-c", "gateway.yaml"])
    }

    /// Starts the gateway here with these words and waits until it serves.
    pub fn run(&self, words: &[&str]) -> Gateway {
        Gateway::start_in(self.path(), words, &self.environment)
    }
}

/// A running gateway. It is killed when dropped.
pub struct Gateway {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    log: Arc<Mutex<Vec<String>>>,
    listeners: BTreeMap<String, u16>,
}

impl Gateway {
    /// Starts `tidegate` with these words in a folder and waits until it says that it is ready.
    pub fn start(folder: &Path, words: &[&str]) -> Self {
        Self::start_in(folder, words, &[])
    }

    fn start_in(folder: &Path, words: &[&str], environment: &[(String, String)]) -> Self {
        let mut command = Command::new(binary());
        command.args(words).current_dir(folder).env("NO_COLOR", "1");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("tidegate can be started");
        let output = collect(child.stdout.take().expect("standard output is piped"));
        let log = collect(child.stderr.take().expect("standard error is piped"));
        let mut gateway = Self { child, output, log, listeners: BTreeMap::new() };
        eventually("the gateway to be ready", || {
            if let Some(status) = gateway.child.try_wait().expect("a child can be asked") {
                panic!("tidegate ended with {status}: {}", gateway.log());
            }
            gateway.lines().iter().any(|line| line == "ready").then_some(())
        });
        for line in gateway.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["listening", name, url] = words.as_slice()
                && let Some(port) = url.rsplit(':').next().and_then(|port| port.parse().ok())
            {
                gateway.listeners.insert((*name).to_owned(), port);
            }
        }
        gateway
    }

    /// The port of the first listener.
    pub fn port(&self) -> u16 {
        *self.listeners.values().next().expect("a gateway listens somewhere")
    }

    /// The port of that listener.
    pub fn port_of(&self, listener: &str) -> u16 {
        *self.listeners.get(listener).expect("there is a listener of that name")
    }

    /// The broker's address, as the command line takes it.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().expect("no reader panics").clone()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no reader panics").join("\n")
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Sends a signal by its name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(status.expect("kill can be started").success(), "the gateway is gone");
    }

    /// `SIGTERM`, and waits for a clean end.
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        let status = eventually("the gateway to stop", || self.child.try_wait().expect("a child can be asked"));
        assert!(status.success(), "the gateway stopped with {status}: {}", self.log());
        std::thread::sleep(Duration::from_millis(20));
        self.log()
    }

    /// Waits until the process ends by itself.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        eventually("the gateway to end", || self.child.try_wait().expect("a child can be asked"))
    }
}

#[allow(clippy::print_stderr, reason = "a test that fails has to show what the other side said")]
impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- what the gateway logged\n{}\n---", self.log());
        }
    }
}

/// Gathers the lines of a stream in the background.
pub(crate) fn collect(stream: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let gathered = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            gathered.lock().expect("no reader panics").push(line);
        }
    });
    lines
}

/// A `tidegate` beside the gateway, such as a simulator. It is killed when dropped.
pub struct Player {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

impl Player {
    /// Starts `tidegate` with these words in a folder.
    pub fn start(home: &Home, words: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(words).current_dir(home.path()).env("NO_COLOR", "1");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("tidegate can be started");
        let output = collect(child.stdout.take().expect("standard output is piped"));
        Self { child, output }
    }

    /// The first line it printed that begins so.
    pub fn line(&self, begin: &str) -> Option<String> {
        self.output.lock().expect("no reader panics").iter().find(|line| line.starts_with(begin)).cloned()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
