//! Bad networks: a relay that cuts, stalls, swallows and delays, and proxies that stand between.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a relay does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Weather {
    /// Passes them on.
    Fair,
    /// Closes every connection and takes no new one.
    Cut,
    /// Takes bytes of neither side; sockets stay open.
    Stall,
    /// Takes all bytes and passes none on, both ways: nobody notices.
    HalfOpen,
    /// Passes on what the client says, and swallows what the server answers.
    Deaf,
    /// Passes everything on, late.
    Slow,
}

const ALL: [Weather; 6] =
    [Weather::Fair, Weather::Cut, Weather::Stall, Weather::HalfOpen, Weather::Deaf, Weather::Slow];

/// How late bytes are under [`Weather::Slow`], one read at a time.
const LATE: Duration = Duration::from_millis(120);
/// How often a pump looks at the weather.
const LOOK: Duration = Duration::from_millis(10);

struct Sky {
    weather: AtomicU8,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    up: AtomicU64,
    down: AtomicU64,
    heard: Mutex<Vec<u8>>,
    is_listening: AtomicBool,
    refuses_v5: bool,
}

impl Sky {
    fn weather(&self) -> Weather {
        let number = usize::from(self.weather.load(Ordering::SeqCst));
        ALL.get(number).copied().unwrap_or(Weather::Fair)
    }
}

/// A relay on loopback.
pub struct Relay {
    port: u16,
    sky: Arc<Sky>,
}

impl Relay {
    /// One to a port on loopback.
    pub fn to(target: u16) -> Self {
        Self::start(target, false)
    }

    /// One whose far side knows no MQTT 5, and says so as such brokers do.
    pub fn without_v5(target: u16) -> Self {
        Self::start(target, true)
    }

    fn start(target: u16, refuses_v5: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let sky = Arc::new(Sky {
            weather: AtomicU8::new(0),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            heard: Mutex::default(),
            is_listening: AtomicBool::new(false),
            refuses_v5,
        });
        let shared = sky.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                thread::spawn(move || serve(client, target, &shared));
            }
        });
        Self { port, sky }
    }

    /// Where clients go.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        let number = ALL.iter().position(|one| *one == weather).unwrap_or(0);
        self.sky.weather.store(number as u8, Ordering::SeqCst);
        if weather == Weather::Cut {
            self.cut();
        }
    }

    /// Closes what is open, once.
    pub fn cut(&self) {
        for socket in self.sky.open.lock().expect("no pump panics").drain(..) {
            // closed by the other side already
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Bytes from clients to the server, and back, so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.sky.up.load(Ordering::SeqCst), self.sky.down.load(Ordering::SeqCst))
    }

    /// Keeps what clients say from now on, and gives what was kept so far.
    pub fn listen_in(&self) -> Vec<u8> {
        self.sky.is_listening.store(true, Ordering::SeqCst);
        std::mem::take(&mut *self.sky.heard.lock().expect("no pump panics"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.sky.ended.store(true, Ordering::SeqCst);
        self.cut();
        // wakes the listener so that it sees the end
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn serve(mut client: TcpStream, target: u16, sky: &Arc<Sky>) {
    if sky.weather() == Weather::Cut {
        return;
    }
    let mut head = [0; 16];
    let mut first = 0;
    if sky.refuses_v5 {
        // fixed header, "MQTT", level: a CONNECT of version 5 has a 5 there
        first = client.read(&mut head).unwrap_or(0);
        let said = head.get(..first).unwrap_or_default();
        let level = said.windows(5).find_map(|some| some.strip_prefix(b"MQTT").and_then(|rest| rest.first()));
        if level == Some(&5) {
            let _ = client.write_all(&[0x20, 2, 0, 1]);
            return;
        }
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)) else { return };
    if server.write_all(head.get(..first).unwrap_or_default()).is_err() {
        return;
    }
    let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else { return };
    for socket in [&client, &server] {
        // a relay that gathers small packets would be weather of its own: 40 ms for each window of acknowledgements
        let _ = socket.set_nodelay(true);
        if let Ok(socket) = socket.try_clone() {
            sky.open.lock().expect("no pump panics").push(socket);
        }
    }
    let other = sky.clone();
    let down = thread::spawn(move || pump(server_again, client_again, &other, false));
    pump(client, server, sky, true);
    let _ = down.join();
}

fn pump(mut from: TcpStream, mut to: TcpStream, sky: &Sky, is_up: bool) {
    let _ = from.set_read_timeout(Some(LOOK));
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let weather = sky.weather();
        if weather == Weather::Cut || sky.ended.load(Ordering::SeqCst) {
            break;
        }
        if weather == Weather::Stall {
            thread::sleep(LOOK);
            continue;
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => break,
        };
        let weather = sky.weather();
        if weather == Weather::HalfOpen || (weather == Weather::Deaf && !is_up) {
            continue;
        }
        if weather == Weather::Slow {
            thread::sleep(LATE);
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        let counter = if is_up { &sky.up } else { &sky.down };
        counter.fetch_add(count as u64, Ordering::SeqCst);
        if is_up && sky.is_listening.load(Ordering::SeqCst) {
            sky.heard.lock().expect("no pump panics").extend_from_slice(bytes);
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// An HTTP proxy that knows CONNECT to loopback, and wants these credentials (base64 of `user:password`).
pub struct HttpProxy {
    port: u16,
    /// Tunnels that were opened.
    pub tunnels: Arc<AtomicU64>,
}

impl HttpProxy {
    /// One on a free port.
    pub fn start(credentials: &str) -> Self {
        Self::leading(credentials, "", 0)
    }

    /// One for which a name (`host:port`) stands for a port on loopback: so a test reaches what is port 443 elsewhere.
    pub fn leading(credentials: &str, name: &str, to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let tunnels = Arc::new(AtomicU64::new(0));
        let (counted, wanted) = (tunnels.clone(), format!("Proxy-Authorization: Basic {credentials}"));
        let known = (name.to_owned(), format!("127.0.0.1:{to}"));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (counted, wanted, known) = (counted.clone(), wanted.clone(), known.clone());
                thread::spawn(move || tunnel(client, &wanted, &known, &counted));
            }
        });
        Self { port, tunnels }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn tunnel(mut client: TcpStream, wanted: &str, (name, place): &(String, String), counted: &AtomicU64) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 && client.read_exact(&mut byte).is_ok() {
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or("");
    if !head.lines().any(|line| line == wanted) {
        let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
        return;
    }
    let target = if target == name { place } else { target };
    let Ok(server) = TcpStream::connect(target) else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
        return;
    };
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_err() {
        return;
    }
    counted.fetch_add(1, Ordering::SeqCst);
    let (Ok(mut client_again), Ok(mut server_again)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || {
        let _ = std::io::copy(&mut server_again, &mut client_again);
        let _ = client_again.shutdown(Shutdown::Both);
    });
    let mut server = server;
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
}
