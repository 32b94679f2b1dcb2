//! The gateway as a service of systemd, whose side is played here: a datagram socket and a time between pings.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::gateway::{Gateway, Home};
use tests::{PATIENCE, root};

/// What the gateway is told a ping may take at most; it pings three times as often.
const WATCHDOG: Duration = Duration::from_millis(900);

/// How long nothing has to be heard for a gateway to count as silent.
const SILENCE: Duration = Duration::from_secs(2);

/// The service manager.
struct Manager {
    socket: UnixDatagram,
    home: Home,
}

impl Manager {
    fn new() -> Self {
        let mut home = Home::with(
            "schema: 1\ngateway: {id: plant-7, data: data}\nbroker: {listeners: [{name: local, bind: \"127.0.0.1:0\"}]}\n\
             connections: {}\ndevices: []\n",
        );
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        home.set("NOTIFY_SOCKET", path.to_str().unwrap());
        home.set("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string());
        Self { socket, home }
    }

    /// The next message, if one comes in this time: `KEY=value` lines.
    fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    /// Waits for a message with this line, and gives all of it.
    #[track_caller]
    fn hears(&self, line: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while let Some(message) = self.next(until.saturating_duration_since(Instant::now())) {
            if message.lines().any(|one| one == line) {
                return message;
            }
            heard.push(message);
        }
        panic!("{line} was not said, but {heard:?}");
    }

    /// Whether pings stop; those on their way do not count.
    fn is_silent(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let begun = Instant::now();
            let mut pinged = false;
            while begun.elapsed() < SILENCE {
                let message = self.next(SILENCE.saturating_sub(begun.elapsed()));
                pinged |= message.is_some_and(|message| message.contains("WATCHDOG=1"));
            }
            if !pinged {
                return true;
            }
        }
        false
    }
}

fn status(message: &str) -> &str {
    message.lines().find_map(|line| line.strip_prefix("STATUS=")).unwrap_or_default()
}

#[test]
fn systemd_hears_when_the_gateway_serves_how_it_stands_and_when_it_stops() {
    let manager = Manager::new();
    let mut gateway = manager.home.start();
    let ready = manager.hears("READY=1");
    assert_eq!(status(&ready), "plant-7: 0 devices, 0 clients; store good");
    manager.home.write("gateway.yaml", "schema: 1\ngateway: {id: plant-7, data: data}\nnonsense: true\n");
    gateway.signal("HUP");
    let reloading = manager.hears("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "systemd 253 and later wants its time: {reloading}");
    let over = manager.hears("READY=1");
    assert!(status(&over).ends_with("the saved files do not check and are not in force"), "{over}");
    gateway.signal("TERM");
    manager.hears("STOPPING=1");
    assert!(gateway.ended().success());
}

#[test]
fn a_gateway_that_stands_still_is_not_pinged_for() {
    let manager = Manager::new();
    let gateway = manager.home.start();
    manager.hears("WATCHDOG=1");
    gateway.signal("STOP");
    assert!(manager.is_silent());
    gateway.signal("CONT");
    manager.hears("WATCHDOG=1");
    gateway.stop();
}

/// Holds one thread still until it is dropped.
struct Frozen(Child);

impl Frozen {
    fn thread(gateway: &Gateway, name: &str) -> Self {
        let mut command = Command::new("python3");
        command.arg(root().join("tests/peers/freeze.py")).args([&gateway.pid().to_string(), name]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "frozen", "the thread {name} cannot be held");
        Self(child)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn one_room_that_stands_still_ends_the_pings_of_all() {
    let manager = Manager::new();
    let gateway = manager.home.start();
    for room in ["store", "twins"] {
        manager.hears("WATCHDOG=1");
        let frozen = Frozen::thread(&gateway, room);
        assert!(manager.is_silent(), "{room} stands still, and the gateway says it is alive");
        drop(frozen);
        manager.hears("WATCHDOG=1");
        let log = gateway.log();
        assert!(log.contains("stands still") && log.contains(&format!("room=\"{room}\"")), "{log}");
    }
    gateway.stop();
}
