//! Peers that nobody here wrote: pymodbus and libmodbus as devices, socat as a cable, mosquitto as a broker.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::driver::{self, Driver, Owned};
use crate::{eventually, free_port, peers_folder};

/// A Modbus server of pymodbus.
pub struct Pymodbus {
    driver: Driver,
    port: u16,
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
        let (driver, ready) = Driver::start("venv", "pymodbus_server.py", words);
        Self { driver, port: driver::port(&ready) }
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts values into a table, and makes the unit if it is not there.
    pub fn put(&mut self, unit: u8, table: &str, address: u16, values: &[u16]) {
        self.driver.order(&json!({"unit": unit, "table": table, "address": address, "values": values}));
    }

    /// What a table holds.
    pub fn get(&mut self, unit: u8, table: &str, address: u16, count: u16) -> Vec<u16> {
        let answer = self.driver.order(&json!({"unit": unit, "table": table, "address": address, "count": count}));
        serde_json::from_value(answer["values"].clone()).expect("values are registers")
    }

    /// Cuts what is written to registers of the unit at `limit`, as some devices do.
    pub fn clamp(&mut self, unit: u8, limit: u16) {
        self.driver.order(&json!({"unit": unit, "clamp": limit}));
    }
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
    driver: Driver,
}

impl SerialDevice {
    /// One on a serial port.
    pub fn start(port: &Path, baud: u32) -> Self {
        let words = [port.to_string_lossy().into_owned(), baud.to_string()];
        let (driver, ready) = Driver::start("venv", "serial_device.py", &words.each_ref().map(String::as_str));
        assert_eq!(ready, true);
        Self { driver }
    }

    /// Gives an order, and its answer back.
    pub fn order(&mut self, order: &Value) -> Value {
        self.driver.order(order)
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
    driver: Driver,
}

impl HomeAssistant {
    /// One that uses the broker on this port.
    pub fn start(broker: u16) -> Self {
        let (driver, ready) = Driver::start("homeassistant", "home_assistant.py", &["run", &broker.to_string()]);
        assert!(ready.is_u64(), "Home Assistant did not start: {ready}");
        Self { driver }
    }

    /// The state of an entity with its attributes; `None` while there is none.
    pub fn state(&mut self, entity: &str) -> Option<Value> {
        let states = self.driver.order(&json!({"states": true}))["states"].take();
        states.as_array()?.iter().find(|state| state["entity_id"] == entity).cloned()
    }

    /// Calls a service.
    pub fn call(&mut self, service: &str, data: &Value) {
        self.driver.order(&json!({"service": service, "data": data}));
    }

    /// What a command of its websocket lists.
    pub fn list(&mut self, command: &str) -> Vec<Value> {
        serde_json::from_value(self.driver.order(&json!({"list": command}))["list"].take()).expect("a list")
    }

    /// Warnings and errors of its log.
    pub fn log(&mut self) -> Vec<String> {
        serde_json::from_value(self.driver.order(&json!({"log": true}))["log"].take()).expect("lines")
    }
}
