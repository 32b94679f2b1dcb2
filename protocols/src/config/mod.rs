//! One installation as it was meant: what `gateway.yaml` says, checked, with every device's profile resolved.
//!
//! In: the text of the files, handed in by whoever may read files. Out: a [`Config`], or every complaint at once. Must
//! never look for a file itself.

mod check;
mod external;
pub mod network;
pub mod raw;
mod read;
mod serial;
pub mod upstream;
mod upstream_raw;
mod upstream_read;
pub mod users;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use read::{FileKind, folders, gateway, kind_of, named_files, secret_files};

use crate::ble::Identity;
use crate::modbus::frame::Framing;
use crate::name::DeviceId;
use crate::profile::{Profile, Protocol, SerialLine};
use crate::value::Value;

/// A whole installation.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gateway's id.
    pub id: DeviceId,
    /// The folder of the store, as written (relative to the file).
    pub data: String,
    /// Folders searched for profiles, as written.
    pub profiles: Vec<String>,
    /// The embedded broker.
    pub broker: Broker,
    /// Twin settings.
    pub twin: Twin,
    /// The wires, by name.
    pub connections: BTreeMap<String, Arc<Connection>>,
    /// The devices, in the order of the file.
    pub devices: Vec<Arc<Device>>,
    /// The other parties that twins are kept in step with, in the order of the file.
    pub upstream: Vec<upstream::Upstream>,
    /// Where the web page is served, as written.
    pub web: Option<String>,
    /// KubeEdge's device topics, if they are served.
    pub kubeedge: Option<KubeEdge>,
}

/// How KubeEdge's device topics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeEdge {
    /// The node that this gateway stands for.
    pub node: String,
    /// The namespace of devices whose id names none; empty for ids of one level.
    pub namespace: String,
    /// The device mapper interface, if it is served.
    pub dmi: Option<Dmi>,
}

/// KubeEdge's device mapper interface: where mappers find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmi {
    /// The Unix socket, as written (relative to the file).
    pub socket: String,
}

/// Settings of the twin service and its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// First level(s) of the twin topics; `twin` by default.
    pub root: String,
    /// Reported values reach the disk at most once in this time; 5 s by default.
    pub flush: Duration,
}

/// Settings of the embedded broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Broker {
    /// Where it listens; `127.0.0.1:1883` when the file names nothing.
    pub listeners: Vec<Listener>,
    /// The users file, as written.
    pub users: Option<String>,
    /// Who gets in without a name.
    pub anonymous: Anonymous,
    /// Bounds.
    pub limits: Limits,
}

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in logs and status.
    pub name: String,
    /// `address:port`; port 0 takes a free one and says which.
    pub bind: std::net::SocketAddr,
    /// TLS, if it speaks it.
    pub tls: Option<Tls>,
    /// MQTT over WebSocket (subprotocol `mqtt`).
    pub websocket: bool,
}

/// TLS of a listener; paths as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificate chain.
    pub cert: String,
    /// PEM private key.
    pub key: String,
    /// PEM authorities of client certificates; with it, a client must show one.
    pub client_ca: Option<String>,
}

/// Who gets in without a user name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    Never,
    /// Clients on a loopback address.
    #[default]
    LocalOnly,
    /// Everybody.
    Always,
}

/// Bounds of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at one time; one more is refused (MQTT 5 reason 0x97).
    pub clients: usize,
    /// The largest packet, in bytes; a larger one ends the connection (reason 0x95).
    pub packet_bytes: u32,
    /// QoS 1 and 2 messages on their way to one client.
    pub inflight: u16,
    /// Bytes waiting for one client, connected or absent; the oldest QoS 0 message is given up first, then the oldest.
    pub queue_bytes: usize,
    /// Retained messages; one more is refused (reason 0x97).
    pub retained: usize,
    /// Bytes of all retained messages together.
    pub retained_bytes: usize,
    /// Sessions of absent clients; the one that is away longest is given up.
    pub sessions: usize,
    /// Subscriptions of one client; one more is refused (reason 0x97).
    pub subscriptions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 200,
            packet_bytes: 262_144,
            inflight: 32,
            queue_bytes: 1_048_576,
            retained: 100_000,
            retained_bytes: 64 << 20,
            sessions: 1_000,
            subscriptions: 10_000,
        }
    }
}

/// One physical wire. It has one owner, whatever hangs on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// What it is.
    pub wire: Wire,
    /// How long an answer may take, unless a profile says otherwise.
    pub timeout: Duration,
    /// Quiet time before every request.
    pub delay: Duration,
    /// The adapter echoes what is sent.
    pub echo: bool,
    /// Requests on their way at one time; more than 1 only on Modbus TCP.
    pub in_flight: u16,
}

/// The kinds of wire this version can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Wire {
    /// A TCP connection to `host:port`: Modbus TCP, or a serial line behind a serial server.
    Tcp(String),
    /// Modbus RTU frames over a TCP stream to `host:port`.
    RtuOverTcp(String),
    /// A serial port; Modbus on it is RTU.
    Serial {
        /// The device path.
        port: String,
        /// Its settings.
        line: SerialLine,
    },
    /// Modbus ASCII frames over a TCP stream to `host:port`.
    AsciiOverTcp(String),
    /// Modbus ASCII on a serial port.
    AsciiSerial {
        /// The device path.
        port: String,
        /// Its settings.
        line: SerialLine,
    },
    /// Modbus TCP's frames in datagrams to `host:port`, one transaction in each.
    Udp(String),
    /// Modbus TCP inside TLS.
    Tls(TlsWire),
    /// A Bluetooth Low Energy radio.
    Ble {
        /// The adapter, such as `hci0`.
        adapter: String,
    },
    /// Whatever a mapper that is no part of this program holds.
    External(ExternalWire),
}

/// What a mapper that is no part of this program has to know of the way to its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalWire {
    /// What is spoken there, in the mapper's own word, such as `opcua`.
    pub protocol: String,
    /// A JSON object in the mapper's own words.
    pub config: Value,
}

/// Modbus TCP inside TLS (MODBUS/TCP Security Protocol Specification v21); paths as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsWire {
    /// `host:port`; the device's certificate has to be for that host.
    pub address: String,
    /// PEM authorities the device's certificate has to come from.
    pub ca: String,
    /// PEM certificate chain and PEM private key of this gateway.
    pub client: Option<(String, String)>,
}

impl Wire {
    /// How Modbus is framed on it.
    pub fn framing(&self) -> Framing {
        match self {
            Self::Tcp(_) | Self::Udp(_) | Self::Tls(_) => Framing::Tcp,
            Self::RtuOverTcp(_) | Self::Serial { .. } | Self::Ble { .. } | Self::External(_) => Framing::Rtu,
            Self::AsciiOverTcp(_) | Self::AsciiSerial { .. } => Framing::Ascii,
        }
    }

    /// The settings of a serial port; `None` elsewhere.
    pub fn line(&self) -> Option<&SerialLine> {
        match self {
            Self::Serial { line, .. } | Self::AsciiSerial { line, .. } => Some(line),
            _ => None,
        }
    }

    /// Where it leads: a device path, `host:port`, an adapter.
    pub fn place(&self) -> &str {
        match self {
            Self::Tcp(address) | Self::RtuOverTcp(address) | Self::AsciiOverTcp(address) | Self::Udp(address) => {
                address
            }
            Self::Tls(wire) => &wire.address,
            Self::Serial { port, .. } | Self::AsciiSerial { port, .. } => port,
            Self::Ble { adapter } => adapter,
            Self::External(external) => &external.protocol,
        }
    }
}

/// One device of an installation.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// What it is.
    pub profile: Arc<Profile>,
    /// The wire it hangs on.
    pub connection: String,
    /// Its unit id on that wire, 0..=255.
    pub unit: u8,
    /// What a Bluetooth device has for itself: its address and its keys.
    pub ble: Option<Identity>,
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.connection == other.connection
            && self.unit == other.unit
            && self.ble == other.ble
            && self.profile.hash == other.profile.hash
    }
}

#[cfg(test)]
mod tests;
