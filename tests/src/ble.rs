//! Bluetooth without hardware: the stand-in for bluetoothd on a bus of its own, and what runs inside the rig with the real
//! one.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use protocols::ble::{Mac, Uuid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::driver::Owned;
use crate::{eventually, peers_folder, root};

/// The device that can be connected to.
pub const TWIN: Mac = Mac([0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5]);
/// A device that only speaks.
pub const SENSOR: Mac = Mac([0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF6]);
/// The device with a passkey on its label.
pub const LOCK: Mac = Mac([0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF8]);
/// That passkey.
pub const PASSKEY: u32 = 123_456;
/// BTHome's UUID.
pub const BTHOME: Uuid = Uuid(0x0000_FCD2_0000_1000_8000_0080_5F9B_34FB);

/// Somebody who brings devices into the air.
pub trait Stage: Send + Sync {
    /// A device says this BTHome packet from now on, five times a second.
    fn say(&self, address: Mac, packet: &[u8]);
    /// It is silent.
    fn hush(&self, address: Mac);
    /// What was written to the twin.
    fn written(&self) -> Vec<u8>;
}

/// A peer in Python that takes orders: `air.py` or `fake_bluez.py`.
pub struct Orders {
    stream: Mutex<(TcpStream, BufReader<TcpStream>)>,
    _process: Owned,
    _folder: TempDir,
}

impl Orders {
    fn start(script: &str, bus: Option<&str>, log: Option<&Path>) -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let ready = folder.path().join("port");
        let mut command = Command::new(peers_folder().join("venv/bin/python"));
        command.arg(root().join("tests/peers/ble").join(script)).arg(&ready).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(bus) = bus {
            command.env("DBUS_SYSTEM_BUS_ADDRESS", bus);
        }
        match log.map(std::fs::File::create) {
            Some(file) => command.stderr(file.expect("a log can be written")),
            None => command.stderr(Stdio::inherit()),
        };
        let mut process = Owned(command.spawn().expect("python can be started"));
        let port: u16 = eventually(&format!("{script} to be ready"), || {
            if let Some(status) = process.0.try_wait().expect("a child can be asked") {
                panic!("{script} ended with {status}");
            }
            std::fs::read_to_string(&ready).ok()?.parse().ok()
        });
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        Self { stream: Mutex::new((stream, reader)), _process: process, _folder: folder }
    }

    /// Virtual devices of bumble around a virtual controller; only inside the rig.
    pub fn bumble(log: &Path) -> Self {
        Self::start("air.py", None, Some(log))
    }

    /// Gives an order and takes the answer.
    pub fn order(&self, order: &Value) -> Value {
        let mut guard = self.stream.lock().expect("no order panics");
        let (stream, reader) = &mut *guard;
        writeln!(stream, "{order}").expect("the peer listens");
        let mut line = String::new();
        reader.read_line(&mut line).expect("the peer answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{order}: {line:?}: {error}"));
        assert_eq!(answer["ok"], true, "{order}: {answer}");
        answer
    }
}

impl Stage for Orders {
    fn say(&self, address: Mac, packet: &[u8]) {
        // Length, AD type "service data, 16 bit", UUID, and what BTHome says.
        let mut data = vec![u8::try_from(packet.len() + 3).expect("an advertisement is short"), 0x16, 0xD2, 0xFC];
        data.extend_from_slice(packet);
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        self.order(&json!({"op": "advertise", "address": address.to_string(), "data": hex}));
    }

    fn hush(&self, address: Mac) {
        self.order(&json!({"op": "hush", "address": address.to_string()}));
    }

    fn written(&self) -> Vec<u8> {
        let answer = self.order(&json!({"op": "value"}));
        let hex = answer["value"].as_str().expect("a value is hexadecimal").as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        hex.chunks(2).map(|pair| byte(pair).expect("a value is hexadecimal")).collect()
    }
}

/// A bus of its own.
pub struct PrivateBus {
    address: String,
    _process: Owned,
    _folder: TempDir,
}

impl PrivateBus {
    /// Starts a dbus-daemon.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let socket = folder.path().join("bus");
        let shape = std::fs::read_to_string(root().join("tests/peers/ble/bus.conf")).expect("the shape is there");
        let config = folder.path().join("bus.conf");
        std::fs::write(&config, shape.replace("@SOCKET@", &socket.to_string_lossy())).expect("files can be written");
        let process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile"])
            .stdin(Stdio::null())
            .spawn()
            .expect("dbus-daemon can be started: run tests/run once");
        let process = Owned(process);
        eventually("the bus", || socket.exists().then_some(()));
        Self { address: format!("unix:path={}", socket.display()), _process: process, _folder: folder }
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// The stand-in for bluetoothd, on a bus of its own.
pub struct FakeBluez {
    bus: PrivateBus,
    orders: Orders,
}

impl Default for FakeBluez {
    fn default() -> Self {
        Self::start()
    }
}

impl FakeBluez {
    /// Starts both.
    pub fn start() -> Self {
        let bus = PrivateBus::start();
        let orders = Orders::start("fake_bluez.py", Some(bus.address()), None);
        Self { bus, orders }
    }

    /// The bus it is on.
    pub fn address(&self) -> &str {
        self.bus.address()
    }

    /// Gives an order of `fake_bluez.py`.
    pub fn order(&self, order: &Value) -> Value {
        self.orders.order(order)
    }

    /// What was called since the last time.
    pub fn calls(&self) -> Vec<String> {
        serde_json::from_value(self.order(&json!({"op": "calls"}))["calls"].clone()).expect("calls are names")
    }

    /// The stage.
    pub fn stage(&self) -> &Orders {
        &self.orders
    }
}

/// A real bluetoothd on the system bus; only inside the rig.
pub struct Bluetoothd {
    _process: Owned,
}

impl Bluetoothd {
    /// Starts it.
    pub fn start(log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).expect("a log can be written");
        let again = file.try_clone().expect("a file can be shared");
        let process = Command::new(bluetoothd())
            // Advertisement monitors are experimental in this version. Plugins are for audio and the like.
            .args(["-n", "--experimental", "-P", "*"])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .spawn()
            .expect("bluetoothd can be started: run tests/run once");
        Self { _process: Owned(process) }
    }
}

fn bluetoothd() -> PathBuf {
    let places = ["/usr/libexec/bluetooth/bluetoothd", "/usr/lib/bluetooth/bluetoothd", "/usr/sbin/bluetoothd"];
    let there = places.iter().map(Path::new).find(|place| place.exists());
    there.expect("bluetoothd is installed: run tests/run once").to_owned()
}

/// The system bus, for a machine that has none; only inside the rig.
pub struct SystemBus {
    _process: Owned,
}

impl SystemBus {
    /// Starts it.
    pub fn start(log: &Path) -> Self {
        let file = std::fs::File::create(log).expect("a log can be written");
        let mut command = Command::new("dbus-daemon");
        command.args(["--system", "--nofork", "--nopidfile"]).stdin(Stdio::null()).stderr(file);
        let process = Owned(command.spawn().expect("dbus-daemon can be started"));
        eventually("the system bus", || Path::new("/run/dbus/system_bus_socket").exists().then_some(()));
        Self { _process: process }
    }
}

/// Runs a scenario of `ble-inside` in the rig: a kernel of its own with real bluetoothd.
///
/// # Panics
/// When the scenario fails; all that was logged is shown.
pub fn in_the_rig(program: &Path, scenario: &str) {
    let kernel = peers_folder().join("ble/linux");
    assert!(kernel.exists(), "the rig's kernel is not built: run tests/run once");
    let out = TempDir::new().expect("there is room for a folder");
    let status = Command::new(root().join("tests/peers/ble/uml/run.sh"))
        .arg(kernel)
        .arg(out.path())
        .arg(program)
        .arg(scenario)
        .arg(format!("TIDEGATE_BIN={}", crate::gateway::binary().display()))
        .stdin(Stdio::null())
        .status()
        .expect("the rig can be started");
    if !status.success() {
        let mut all = String::new();
        for name in ["program.log", "bluetoothd.log", "air.log", "dbus.log", "console.log"] {
            let text = std::fs::read_to_string(out.path().join(name)).unwrap_or_default();
            let tail = text.lines().count().saturating_sub(60);
            let text: Vec<&str> = text.lines().skip(tail).collect();
            all.push_str(&format!("--- {name}\n{}\n", text.join("\n")));
        }
        panic!("\"{scenario}\" ends with {status}\n{all}");
    }
}
