//! A way to a device: a serial port, a TCP connection with or without TLS, datagrams; opened and told apart only here.
//!
//! In: a [`Wire`] of the configuration. Out: bytes both ways, and errors a person can act on. Must never block the
//! thread, and never hold a path that was resolved for an earlier opening: adapters come back under other names.

mod tls;
mod udp;

use std::io;
use std::time::Duration;

use protocols::config::Wire;
use protocols::profile::{Flow, Parity, Rs485, SerialLine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;
use tokio_serial::{ClearBuffer, SerialPort, SerialPortBuilderExt, SerialStream};

/// Entries of `/dev/serial/by-id` shown in a hint; more are left out.
const HINT_PORTS: usize = 8;
/// How long a transmitter may keep bytes beyond their time on the wire, before it is switched off all the same.
const TRANSMITTER_LAG: Duration = Duration::from_millis(100);

/// Why a link cannot be opened or is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No such device file.
    #[error("serial port {port} is not there; {hint}")]
    NoPort {
        /// The path as configured.
        port: String,
        /// What is there instead.
        hint: String,
    },
    /// The device file may not be opened.
    #[error("no permission for serial port {port}; add the user to its group, most often dialout")]
    Denied {
        /// The path as configured.
        port: String,
    },
    /// Somebody else has it open.
    #[error("serial port {port} is in use by another program; ModemManager, a getty or a second gateway may hold it")]
    InUse {
        /// The path as configured.
        port: String,
    },
    /// It cannot be set up as asked.
    #[error("serial port {port} cannot be set up: {text}")]
    Setup {
        /// The path as configured.
        port: String,
        /// What did not work.
        text: String,
    },
    /// The name does not lead to an address.
    #[error("host of {address} is unknown: {text}")]
    UnknownHost {
        /// `host:port` as configured.
        address: String,
        /// What the resolver says.
        text: String,
    },
    /// Nobody listens there.
    #[error("{address} refuses the connection; nothing listens there, or its one connection is taken")]
    Refused {
        /// `host:port` as configured.
        address: String,
    },
    /// No answer to the connection attempt.
    #[error("{address} does not answer within {limit_ms} ms")]
    Unanswered {
        /// `host:port` as configured.
        address: String,
        /// How long was waited, in milliseconds.
        limit_ms: u128,
    },
    /// Another reason of the network.
    #[error("{address} cannot be reached: {text}")]
    Unreachable {
        /// `host:port` as configured.
        address: String,
        /// What the system says.
        text: String,
    },
    /// A file of its TLS cannot be read or used.
    #[error("{path} cannot be used: {text}")]
    File {
        /// The path as opened.
        path: String,
        /// What is wrong with it.
        text: String,
    },
    /// The two sides do not come to terms, or one does not trust the other.
    #[error("TLS with {address}: {text}")]
    Tls {
        /// `host:port` as configured.
        address: String,
        /// What rustls says.
        text: String,
    },
    /// It was open and is gone: unplugged, hung up, closed by the other side.
    #[error("{place} is gone: {text}")]
    Gone {
        /// The port or address.
        place: String,
        /// What was seen.
        text: String,
    },
}

/// An open byte stream.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    place: String,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Udp(UdpSocket),
    Serial { port: SerialStream, rts: bool },
}

impl Link {
    /// Opens a wire. `limit` bounds a TCP connection attempt; a serial port opens at once or not at all.
    ///
    /// # Errors
    /// [`LinkError`] says what a person can do about it.
    pub async fn open(wire: &Wire, limit: Duration) -> Result<Self, LinkError> {
        match wire {
            Wire::Tcp(address) | Wire::RtuOverTcp(address) | Wire::AsciiOverTcp(address) => {
                Self::connect(address, limit).await
            }
            Wire::Serial { port, line } | Wire::AsciiSerial { port, line } => Self::serial(port, line),
            Wire::Udp(address) => {
                let unanswered = |_| LinkError::Unanswered { address: address.clone(), limit_ms: limit.as_millis() };
                let socket = timeout(limit, udp::open(address)).await.map_err(unanswered)??;
                Ok(Self { stream: Stream::Udp(socket), place: address.clone() })
            }
            Wire::Tls(wire) => {
                let address = &wire.address;
                let unanswered = |_| LinkError::Unanswered { address: address.clone(), limit_ms: limit.as_millis() };
                let socket = Self::socket(address, limit).await?;
                let stream = timeout(limit, tls::greet(wire, socket)).await.map_err(unanswered)??;
                Ok(Self { stream: Stream::Tls(Box::new(stream)), place: address.clone() })
            }
            Wire::External(external) => {
                let text = "a mapper of its own leads there".to_owned();
                Err(LinkError::UnknownHost { address: external.protocol.clone(), text })
            }
            Wire::Ble { adapter } => {
                let text = "it is a radio, and no wire leads to it".to_owned();
                Err(LinkError::UnknownHost { address: adapter.clone(), text })
            }
        }
    }

    /// Connects to `host:port`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn connect(address: &str, limit: Duration) -> Result<Self, LinkError> {
        let stream = Self::socket(address, limit).await?;
        Ok(Self { stream: Stream::Tcp(stream), place: address.to_owned() })
    }

    async fn socket(address: &str, limit: Duration) -> Result<TcpStream, LinkError> {
        let unanswered = || LinkError::Unanswered { address: address.to_owned(), limit_ms: limit.as_millis() };
        let unknown = |text: String| LinkError::UnknownHost { address: address.to_owned(), text };
        let attempt = async {
            let mut addresses = lookup_host(address).await.map_err(|error| unknown(error.to_string()))?;
            let mut last = unknown("it has no address".to_owned());
            // A name may stand for an IPv6 and an IPv4 address of which the device serves one.
            for socket in addresses.by_ref() {
                match TcpStream::connect(socket).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = network_error(address, &error),
                }
            }
            Err(last)
        };
        let stream = timeout(limit, attempt).await.map_err(|_| unanswered())??;
        // Requests are small and wait for answers: collecting them would only add delay.
        stream.set_nodelay(true).map_err(|error| network_error(address, &error))?;
        Ok(stream)
    }

    /// Opens a serial port for this process alone. Links such as `/dev/serial/by-id/…` are followed now.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn serial(path: &str, line: &SerialLine) -> Result<Self, LinkError> {
        let setup = |text: String| LinkError::Setup { port: path.to_owned(), text };
        let real = std::fs::canonicalize(path).map_err(|error| file_error(path, &error))?;
        let real = real.to_str().ok_or_else(|| setup("its path is no text".to_owned()))?;
        if line.rs485 == Rs485::Kernel {
            kernel_rs485(real).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => LinkError::Denied { port: path.to_owned() },
                _ => setup(format!("its driver has no RS-485 mode ({error}); use rs485: none or rts")),
            })?;
        }
        let builder = tokio_serial::new(real, line.baud)
            .data_bits(match line.data {
                5 => tokio_serial::DataBits::Five,
                6 => tokio_serial::DataBits::Six,
                7 => tokio_serial::DataBits::Seven,
                _ => tokio_serial::DataBits::Eight,
            })
            .parity(match line.parity {
                Parity::None => tokio_serial::Parity::None,
                Parity::Even => tokio_serial::Parity::Even,
                Parity::Odd => tokio_serial::Parity::Odd,
            })
            .stop_bits(if line.stop == 2 { tokio_serial::StopBits::Two } else { tokio_serial::StopBits::One })
            .flow_control(match line.flow {
                Flow::None => tokio_serial::FlowControl::None,
                Flow::RtsCts => tokio_serial::FlowControl::Hardware,
                Flow::XonXoff => tokio_serial::FlowControl::Software,
            });
        let mut port = builder.open_native_async().map_err(|error| serial_error(path, &error))?;
        let rts = line.rs485 == Rs485::Rts;
        if rts {
            // A pseudo terminal has no such line, and needs none.
            let _ = port.write_request_to_send(false);
        }
        // What was received with the settings of whoever had the port before means nothing.
        let _ = port.clear(ClearBuffer::Input);
        Ok(Self { stream: Stream::Serial { port, rts }, place: path.to_owned() })
    }

    /// The port or address as configured.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Waits for bytes. Losing the future loses none. 0 means that the other side is gone, for a serial port too.
    ///
    /// # Errors
    /// What the system says; the link is of no use afterwards.
    pub async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(room).await,
            Stream::Tls(stream) => tls::read(stream, room).await,
            Stream::Udp(socket) => udp::read(socket, room).await,
            Stream::Serial { port, .. } => port.read(room).await,
        }
    }

    /// Takes the bytes that are there already; `None` when there are none.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn read_now(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        let result = match &mut self.stream {
            Stream::Tcp(stream) => stream.try_read(room),
            Stream::Tls(stream) => tls::read_now(stream, room),
            Stream::Udp(socket) => udp::read_now(socket, room),
            Stream::Serial { port, .. } => port.try_read(room),
        };
        match result {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends all bytes, in one system call where the system takes them. `on_wire` is how long they take there; with
    /// [`Rs485::Rts`] the transmitter is held for that time. A lost future may leave half of them sent.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub async fn send(&mut self, bytes: &[u8], on_wire: Duration) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => tls::send(stream, bytes).await,
            Stream::Udp(socket) => udp::send(socket, bytes).await,
            Stream::Serial { port, rts: false } => port.write_all(bytes).await,
            Stream::Serial { port, rts: true } => {
                let _ = port.write_request_to_send(true);
                let sent = port.write_all(bytes).await;
                if sent.is_ok() {
                    transmitted(port, on_wire).await;
                }
                let _ = port.write_request_to_send(false);
                sent
            }
        }
    }

    /// Changes the speed of a serial port; a network has none.
    ///
    /// # Errors
    /// When the port does not take it.
    pub fn set_speed(&mut self, baud: u32) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(_) | Stream::Tls(_) | Stream::Udp(_) => Ok(()),
            Stream::Serial { port, .. } => port.set_baud_rate(baud).map_err(io::Error::from),
        }
    }

    /// The error of a link that was lost in use; 0 bytes read when there is none.
    pub fn gone(&self, error: Option<&io::Error>) -> LinkError {
        let closed = match &self.stream {
            Stream::Tls(_) => "the other side closed it; one that wants another certificate of ours does so at once",
            _ => "the other side closed it",
        };
        let text = error.map_or_else(|| closed.to_owned(), io::Error::to_string);
        LinkError::Gone { place: self.place.clone(), text }
    }
}

/// Waits until the driver has nothing left to send. `tcdrain` would block the thread.
async fn transmitted(port: &SerialStream, on_wire: Duration) {
    sleep(on_wire).await;
    let mut lag = Duration::ZERO;
    let step = Duration::from_millis(1);
    while lag < TRANSMITTER_LAG && port.bytes_to_write().is_ok_and(|left| left > 0) {
        sleep(step).await;
        lag += step;
    }
}

/// Lets the driver raise and drop the transmitter; it keeps that setting when the port is opened again.
fn kernel_rs485(path: &str) -> io::Result<()> {
    use serial2::rs4xx::{Rs485Config, TransceiverMode};

    let port = serial2::SerialPort::open(path, serial2::KeepSettings)?;
    port.set_rs4xx_mode(Rs485Config::new())?;
    match port.get_rs4xx_mode()? {
        TransceiverMode::Rs485(_) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "it was asked for and not taken")),
    }
}

fn network_error(address: &str, error: &io::Error) -> LinkError {
    let address = address.to_owned();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => LinkError::Refused { address },
        _ => LinkError::Unreachable { address, text: error.to_string() },
    }
}

fn file_error(path: &str, error: &io::Error) -> LinkError {
    let port = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => LinkError::NoPort { port, hint: ports() },
        io::ErrorKind::PermissionDenied => LinkError::Denied { port },
        _ => LinkError::Setup { port, text: error.to_string() },
    }
}

fn serial_error(path: &str, error: &tokio_serial::Error) -> LinkError {
    let port = path.to_owned();
    match error.kind() {
        tokio_serial::ErrorKind::Io(kind) => file_error(path, &io::Error::new(kind, error.to_string())),
        tokio_serial::ErrorKind::NoDevice => LinkError::InUse { port },
        _ => LinkError::Setup { port, text: error.to_string() },
    }
}

/// What a person may have meant.
fn ports() -> String {
    let Ok(entries) = std::fs::read_dir("/dev/serial/by-id") else {
        return "no USB serial adapter is plugged in".to_owned();
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.path().to_str().map(str::to_owned)).take(HINT_PORTS).collect();
    names.sort();
    match names.is_empty() {
        true => "no USB serial adapter is plugged in".to_owned(),
        false => format!("plugged in: {}", names.join(", ")),
    }
}

/// How long one character takes on a line: start bit, data, parity, stop.
pub fn character(line: &SerialLine) -> Duration {
    let bits = 1 + u32::from(line.data) + u32::from(line.parity != Parity::None) + u32::from(line.stop);
    Duration::from_secs(1) * bits / line.baud.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_link_that_cannot_be_opened_says_what_to_do() {
        let line = SerialLine::default();
        let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let missing = Link::serial("/dev/serial/by-id/usb-nothing", &line).unwrap_err().to_string();
        assert!(missing.contains("usb-nothing is not there; "), "{missing}");
        let no_tty = Link::serial("/dev/null", &line).unwrap_err();
        assert!(matches!(no_tty, LinkError::Setup { .. }), "{no_tty}");
        assert_eq!(Link::connect(&refused, LIMIT).await.unwrap_err(), LinkError::Refused { address: refused });
        let unknown = Link::connect("no.such.host.invalid:502", LIMIT).await.unwrap_err();
        assert!(matches!(unknown, LinkError::UnknownHost { .. } | LinkError::Unanswered { .. }), "{unknown}");
    }

    #[tokio::test]
    async fn a_port_is_held_by_one_and_followed_through_a_link_at_each_opening() {
        let folder = std::env::temp_dir().join(format!("tidegate-link-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let name = folder.join("by-id");
        let path = name.to_str().unwrap();
        let line = SerialLine { parity: Parity::Even, ..SerialLine::default() };
        for _ in 0..2 {
            let (mut near, far) = SerialStream::pair().unwrap();
            let _ = std::fs::remove_file(&name);
            std::os::unix::fs::symlink(far.name().unwrap(), &name).unwrap();
            let mut link = Link::serial(path, &line).unwrap();
            assert_eq!(Link::serial(path, &line).unwrap_err(), LinkError::InUse { port: path.to_owned() });
            near.write_all(b"here").await.unwrap();
            let mut room = [0; 8];
            assert_eq!(link.read(&mut room).await.unwrap(), 4);
            drop(near);
            drop(far);
            assert!(matches!(timeout(LIMIT, link.read(&mut room)).await.unwrap(), Ok(0) | Err(_)));
        }
        let kernel = SerialLine { rs485: Rs485::Kernel, ..SerialLine::default() };
        let (_near, far) = SerialStream::pair().unwrap();
        let error = Link::serial(&far.name().unwrap(), &kernel).unwrap_err().to_string();
        assert!(error.contains("no RS-485 mode"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_character_lasts_as_long_as_its_bits() {
        for (line, expected_us) in [
            (SerialLine::default(), 1041),
            (SerialLine { parity: Parity::Even, ..SerialLine::default() }, 1145),
            (SerialLine { baud: 115_200, data: 7, stop: 2, ..SerialLine::default() }, 86),
        ] {
            assert_eq!(character(&line).as_micros(), expected_us);
        }
    }
}
