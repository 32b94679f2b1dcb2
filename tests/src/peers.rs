//! Peers that nobody here wrote: pymodbus and libmodbus as devices, socat as a cable, mosquitto as a broker.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::{eventually, free_port, peers_folder, root};

/// Ends its process when dropped.
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Modbus server of pymodbus.
pub struct Pymodbus {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
    _process: Owned,
}

impl Pymodbus {
    /// One on TCP, on a free port.
    pub fn tcp() -> Self {
        Self::start(&["tcp", "0"])
    }

    /// One on TCP, on this port.
    pub fn tcp_on(port: u16) -> Self {
        Self::start(&["tcp", &port.to_string()])
    }

    /// One on a serial port.
    pub fn rtu(port: &Path, baud: u32) -> Self {
        Self::start(&["rtu", &port.to_string_lossy(), &baud.to_string()])
    }

    /// One with ASCII frames on TCP.
    pub fn ascii_over_tcp() -> Self {
        Self::start(&["ascii-tcp", "0"])
    }

    /// One with ASCII frames on a serial port.
    pub fn ascii(port: &Path, baud: u32) -> Self {
        Self::start(&["ascii", &port.to_string_lossy(), &baud.to_string()])
    }

    /// One on UDP, on this port; 0 takes a free one.
    pub fn udp_on(port: u16) -> Self {
        Self::start(&["udp", &port.to_string()])
    }

    /// One inside TLS: `ca.crt`, `server.crt` and `server.key` of a folder; it wants a certificate of the client, too.
    pub fn tls(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name).display().to_string();
        Self::start(&["tls", "0", &file("ca.crt"), &file("server.crt"), &file("server.key")])
    }

    fn start(words: &[&str]) -> Self {
        let mut process = Owned(
            Command::new(peers_folder().join("venv/bin/python"))
                .arg(root().join("tests/peers/pymodbus_server.py"))
                .args(words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("python can be started"),
        );
        let orders = process.0.stdin.take().expect("standard input is piped");
        let mut answers = BufReader::new(process.0.stdout.take().expect("standard output is piped"));
        let port = line(&mut answers)["ready"].as_u64().expect("pymodbus says its port");
        Self { orders, answers, port: port.try_into().expect("a port has 16 bits"), _process: process }
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("pymodbus listens");
        let answer = line(&mut self.answers);
        assert_eq!(answer["ok"], true, "{order}: {answer}");
        answer
    }

    /// Puts values into a table, and makes the unit if it is not there.
    pub fn put(&mut self, unit: u8, table: &str, address: u16, values: &[u16]) {
        self.order(&json!({"unit": unit, "table": table, "address": address, "values": values}));
    }

    /// What a table holds.
    pub fn get(&mut self, unit: u8, table: &str, address: u16, count: u16) -> Vec<u16> {
        let answer = self.order(&json!({"unit": unit, "table": table, "address": address, "count": count}));
        serde_json::from_value(answer["values"].clone()).expect("values are registers")
    }

    /// Cuts what is written to registers of the unit at `limit`, as some devices do.
    pub fn clamp(&mut self, unit: u8, limit: u16) {
        self.order(&json!({"unit": unit, "clamp": limit}));
    }
}

pub(crate) fn line(answers: &mut BufReader<ChildStdout>) -> Value {
    let mut text = String::new();
    answers.read_line(&mut text).expect("the peer answers");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("the peer said {text:?}: {error}"))
}

/// A Modbus TCP server of libmodbus; `tests/peers/libmodbus_server.c` says what its tables hold.
pub struct Libmodbus {
    port: u16,
    _process: Owned,
}

impl Libmodbus {
    /// One on a free port.
    pub fn tcp() -> Self {
        let port = free_port();
        let mut process = Owned(
            Command::new(peers_folder().join("libmodbus_server"))
                .arg(port.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the libmodbus server was built by tests/run"),
        );
        let mut text = String::new();
        let mut output = BufReader::new(process.0.stdout.take().expect("standard output is piped"));
        output.read_line(&mut text).expect("the peer speaks");
        assert_eq!(text, "ready\n");
        Self { port, _process: process }
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A serial device of pyserial; `tests/peers/serial_device.py` says what it can do.
pub struct SerialDevice {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Owned,
}

impl SerialDevice {
    /// One on a serial port.
    pub fn start(port: &Path, baud: u32) -> Self {
        let mut process = Owned(
            Command::new(peers_folder().join("venv/bin/python"))
                .arg(root().join("tests/peers/serial_device.py"))
                .args([port.to_string_lossy().as_ref(), &baud.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("python can be started"),
        );
        let orders = process.0.stdin.take().expect("standard input is piped");
        let mut answers = BufReader::new(process.0.stdout.take().expect("standard output is piped"));
        assert_eq!(line(&mut answers)["ready"], true);
        Self { orders, answers, _process: process }
    }

    /// Gives an order, and its answer back.
    pub fn order(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("the device listens");
        let answer = line(&mut self.answers);
        assert_eq!(answer["ok"], true, "{order}: {answer}");
        answer
    }
}

/// A serial server of socat: a TCP port behind which a serial port is.
pub struct SerialServer {
    port: u16,
    device: PathBuf,
    _process: Owned,
}

impl SerialServer {
    /// One on a free port; the device's end is `served` in a folder.
    pub fn new(folder: &Path) -> Self {
        let (port, device) = (free_port(), folder.join("served"));
        let child = Command::new("socat")
            .arg(format!("tcp-listen:{port},bind=127.0.0.1,reuseaddr"))
            .arg(format!("pty,raw,echo=0,link={}", device.display()))
            .stderr(Stdio::null())
            .spawn()
            .expect("socat can be started: run tests/run once");
        Self { port, device, _process: Owned(child) }
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The end for the device; there once somebody has connected.
    pub fn device(&self) -> PathBuf {
        eventually("the serial server's device", || self.device.exists().then(|| self.device.clone()))
    }
}

/// A serial cable of socat: two pseudo terminals, each end behind a link of a stable name.
pub struct Cable {
    folder: PathBuf,
    process: Option<Owned>,
}

impl Cable {
    /// A cable whose ends are `gateway` and `device` in a folder.
    pub fn new(folder: &Path) -> Self {
        let mut cable = Self { folder: folder.to_owned(), process: None };
        cable.plug();
        cable
    }

    /// The end for the gateway.
    pub fn gateway(&self) -> PathBuf {
        self.folder.join("gateway")
    }

    /// The end for the device.
    pub fn device(&self) -> PathBuf {
        self.folder.join("device")
    }

    /// Pulls it out: both ends vanish.
    pub fn unplug(&mut self) {
        self.process = None;
        for end in [self.gateway(), self.device()] {
            let _ = std::fs::remove_file(end);
        }
    }

    /// Puts it in (again): both ends are there, on other terminals.
    pub fn plug(&mut self) {
        let end = |path: &Path| format!("pty,raw,echo=0,link={}", path.display());
        let child = Command::new("socat")
            .args([end(&self.gateway()), end(&self.device())])
            .stderr(Stdio::null())
            .spawn()
            .expect("socat can be started: run tests/run once");
        self.process = Some(Owned(child));
        eventually("both ends of the cable", || (self.gateway().exists() && self.device().exists()).then_some(()));
    }
}

/// A mosquitto of our own. Its files stay where they are while it is stopped and started again.
pub struct Mosquitto {
    port: u16,
    folder: tempfile::TempDir,
    process: Option<Owned>,
}

impl Mosquitto {
    /// One on a free port, open to everybody on loopback; `settings` are further lines of its configuration.
    pub fn start(settings: &str) -> Self {
        let port = free_port();
        Self::with(port, &format!("listener {port} 127.0.0.1\nallow_anonymous true\n{settings}\n"))
    }

    /// One that keeps sessions and retained messages on disk, and writes them after every change.
    pub fn persistent() -> Self {
        let port = free_port();
        let mut broker = Self::with(port, "");
        broker.stop();
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\n",
            broker.folder.path().display()
        );
        std::fs::write(broker.folder.path().join("mosquitto.conf"), settings).expect("files can be written");
        broker.again();
        broker
    }

    /// One on this port with exactly this configuration.
    pub fn with(port: u16, configuration: &str) -> Self {
        let folder = tempfile::TempDir::new().expect("there is room for a folder");
        let configuration =
            if configuration.is_empty() { format!("listener {port} 127.0.0.1\n") } else { configuration.to_owned() };
        std::fs::write(folder.path().join("mosquitto.conf"), configuration).expect("files can be written");
        let mut broker = Self { port, folder, process: None };
        broker.again();
        broker
    }

    /// Starts it again where it was.
    pub fn again(&mut self) {
        let file = self.folder.path().join("mosquitto.conf");
        let text = std::fs::read_to_string(&file).expect("it was written");
        if !text.contains("\nuser ") {
            // started as root it would become another user, who cannot write here; started by anybody else it ignores this
            std::fs::write(&file, format!("{text}\nuser root\n")).expect("files can be written");
        }
        let child = Command::new("/usr/sbin/mosquitto")
            .args(["-c", &file.to_string_lossy()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto can be started: run tests/run once");
        self.process = Some(Owned(child));
        let port = self.port;
        eventually("mosquitto to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    }

    /// Stops it in order; with persistence its files are written.
    pub fn stop(&mut self) {
        if let Some(mut owned) = self.process.take() {
            let pid = owned.0.id().to_string();
            let told = Command::new("kill").args(["-TERM", &pid]).status();
            assert!(told.expect("kill can be started").success());
            eventually("mosquitto to stop", || owned.0.try_wait().expect("a child can be asked"));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").0.id()
    }
}

/// Home Assistant, onboarded and with the MQTT integration set up; `tests/peers/home_assistant.py` drives it.
pub struct HomeAssistant {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Owned,
}

impl HomeAssistant {
    /// One that uses the broker on this port.
    pub fn start(broker: u16) -> Self {
        let python = peers_folder().join("homeassistant/bin/python");
        assert!(
            python.exists(),
            "Home Assistant is not installed: run tests/run once, with Python 3.12 or 3.13 at hand"
        );
        let mut process = Owned(
            Command::new(python)
                .arg(root().join("tests/peers/home_assistant.py"))
                .args(["run", &broker.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()
                .expect("python can be started"),
        );
        let orders = process.0.stdin.take().expect("standard input is piped");
        let mut answers = BufReader::new(process.0.stdout.take().expect("standard output is piped"));
        let ready = line(&mut answers);
        assert!(ready["ready"].is_u64(), "Home Assistant did not start: {ready}");
        Self { orders, answers, _process: process }
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("the driver of Home Assistant listens");
        let answer = line(&mut self.answers);
        assert_eq!(answer["ok"], true, "{order}: {answer}");
        answer
    }

    /// The state of an entity with its attributes; `None` while there is none.
    pub fn state(&mut self, entity: &str) -> Option<Value> {
        let states = self.order(&json!({"states": true}))["states"].take();
        states.as_array()?.iter().find(|state| state["entity_id"] == entity).cloned()
    }

    /// Calls a service.
    pub fn call(&mut self, service: &str, data: &Value) {
        self.order(&json!({"service": service, "data": data}));
    }

    /// What a command of its websocket lists.
    pub fn list(&mut self, command: &str) -> Vec<Value> {
        serde_json::from_value(self.order(&json!({"list": command}))["list"].take()).expect("a list")
    }

    /// Warnings and errors of its log.
    pub fn log(&mut self) -> Vec<String> {
        serde_json::from_value(self.order(&json!({"log": true}))["log"].take()).expect("lines")
    }
}
