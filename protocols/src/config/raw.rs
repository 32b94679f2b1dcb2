//! `gateway.yaml` and `users.yaml` as they are written: the one source of their schemas and of the reader.
//!
//! In: trees that fit the schemas. Out: raw types, not yet made sense of. Must never give a key a meaning here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use serde_json::Value;

use crate::profile::raw::{RawFlow, RawLine, RawParity, RawRs485};
use crate::profile::text::RawDuration;
use crate::yaml::schema::of;

/// The JSON Schema of `gateway.yaml`, as `tidegate schema gateway` prints it.
pub fn gateway_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(of::<RawFile>);
    &SCHEMA
}

/// The JSON Schema of `users.yaml`, as `tidegate schema users` prints it.
pub fn users_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(of::<RawUsers>);
    &SCHEMA
}

/// Everything about one installation of the gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tidegate gateway")]
pub(super) struct RawFile {
    /// The form of this file; always 1.
    #[serde(rename = "schema")]
    #[schemars(schema_with = "one")]
    _schema: Value,
    /// Who this gateway is.
    pub(super) gateway: RawGateway,
    /// Folders searched for profiles, besides the built-in ones.
    #[serde(default)]
    pub(super) profiles: Vec<String>,
    /// The embedded broker.
    #[serde(default)]
    pub(super) broker: RawBroker,
    /// The twins.
    #[serde(default)]
    pub(super) twin: RawTwin,
    /// The wires and radios, by name.
    #[serde(default, rename = "connections")]
    #[schemars(schema_with = "connections")]
    _connections: BTreeMap<String, RawConnection>,
    /// The devices.
    #[serde(default, rename = "devices")]
    _devices: Vec<RawDevice>,
    /// Where the twins are sent to.
    #[serde(default, rename = "upstream")]
    #[schemars(schema_with = "super::upstream_raw::upstreams")]
    _upstream: Vec<Value>,
    /// The web page.
    pub(super) web: Option<RawWeb>,
    /// Other systems whose devices and applications are served in their own words.
    #[serde(default)]
    pub(super) compat: RawCompat,
}

/// Other systems that are served in their own words.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCompat {
    /// KubeEdge's device topics.
    pub(super) kubeedge: Option<RawKubeEdge>,
}

/// KubeEdge's device topics on the embedded broker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKubeEdge {
    /// The node that this gateway stands for.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"), extend("examples" = ["edge-1"]))]
    pub(super) node: String,
    /// The namespace of devices whose id names none; empty for ids of one level.
    #[schemars(regex(pattern = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"), extend("examples" = ["default"]))]
    pub(super) namespace: Option<String>,
    /// The device mapper interface (DMI), for mappers built with KubeEdge's mapper-framework.
    pub(super) dmi: Option<RawDmi>,
}

/// KubeEdge's device mapper interface.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDmi {
    /// The Unix socket that mappers dial.
    #[schemars(length(min = 1, max = 100), extend("examples" = ["/etc/kubeedge/dmi.sock"]))]
    pub(super) socket: Option<String>,
}

/// Who this gateway is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGateway {
    /// Its id.
    #[schemars(schema_with = "device_id")]
    pub(super) id: String,
    /// The folder of the store.
    pub(super) data: Option<String>,
}

/// The embedded broker.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBroker {
    /// Where it listens; on 127.0.0.1:1883 alone when absent.
    #[serde(rename = "listeners")]
    _listeners: Option<Vec<RawListener>>,
    /// The file with the users.
    pub(super) users: Option<String>,
    /// Who gets in without a name.
    #[serde(default)]
    pub(super) anonymous: RawAnonymous,
    /// Bounds.
    #[serde(default)]
    pub(super) limits: RawLimits,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawAnonymous {
    Never,
    #[default]
    LocalOnly,
    Always,
}

/// One listening socket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    /// Its name in logs and status.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"), extend("examples" = ["local"]))]
    #[serde(rename = "name")]
    _name: String,
    /// Address and port.
    #[schemars(schema_with = "bind")]
    #[serde(rename = "bind")]
    _bind: String,
    /// TLS.
    #[serde(rename = "tls")]
    _tls: Option<RawTls>,
    /// MQTT over WebSocket.
    #[serde(default, rename = "websocket")]
    _websocket: bool,
}

/// TLS of a listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    /// PEM file with the certificate chain.
    #[serde(rename = "cert")]
    _cert: String,
    /// PEM file with the private key.
    #[serde(rename = "key")]
    _key: String,
    /// PEM file with the authorities of client certificates.
    #[serde(rename = "client_ca")]
    _client_ca: Option<String>,
}

/// Bounds of the broker.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    /// Clients at one time.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) clients: Option<usize>,
    /// The largest packet, in bytes.
    #[schemars(range(min = 1_024, max = 268_435_455))]
    pub(super) packet_bytes: Option<u32>,
    /// QoS 1 and 2 messages on their way to one client.
    #[schemars(range(min = 1, max = 65_535))]
    pub(super) inflight: Option<u16>,
    /// Bytes waiting for one client.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub(super) queue_bytes: Option<usize>,
    /// Retained messages.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) retained: Option<usize>,
    /// Bytes of all retained messages.
    #[schemars(range(min = 1_024, max = 4_294_967_295_u64))]
    pub(super) retained_bytes: Option<usize>,
    /// Sessions of absent clients.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(super) sessions: Option<usize>,
    /// Subscriptions of one client.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) subscriptions: Option<usize>,
}

/// The twins.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTwin {
    /// First level of the twins' topics.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,7}$"), extend("examples" = ["twin"]))]
    pub(super) root: Option<String>,
    /// Reported values reach the disk at most once in this time.
    pub(super) flush: Option<RawDuration>,
}

/// One wire or radio: one of modbus, serial, ble.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct RawConnection {
    /// A Modbus wire.
    pub(super) modbus: Option<RawWire>,
    /// A serial line that does not speak Modbus.
    pub(super) serial: Option<RawSerialWire>,
    /// A Bluetooth Low Energy radio.
    pub(super) ble: Option<RawRadio>,
    /// Whatever a mapper that is no part of this program holds.
    pub(super) external: Option<RawExternalWire>,
}

/// Devices whose mapper lives in another process.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExternalWire {
    /// What is spoken there, in the mapper's own word.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"), extend("examples" = ["opcua", "onvif"]))]
    pub(super) protocol: String,
    /// For the mapper, in its own words.
    #[serde(default)]
    #[schemars(schema_with = "map")]
    pub(super) config: Option<Value>,
}

/// A Modbus wire: one of serial, tcp, rtu_over_tcp, ascii_over_tcp, udp, tls.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWire {
    /// Modbus RTU or ASCII on a serial port.
    pub(super) serial: Option<RawPort>,
    /// Modbus TCP, host and port.
    #[serde(default)]
    #[schemars(schema_with = "host_port")]
    pub(super) tcp: Option<String>,
    /// Modbus RTU frames over TCP, host and port.
    #[serde(default)]
    #[schemars(schema_with = "host_port")]
    pub(super) rtu_over_tcp: Option<String>,
    /// Modbus ASCII frames over TCP, host and port.
    #[serde(default)]
    #[schemars(schema_with = "host_port")]
    pub(super) ascii_over_tcp: Option<String>,
    /// Modbus TCP's frames in datagrams, host and port.
    #[serde(default)]
    #[schemars(schema_with = "host_port")]
    pub(super) udp: Option<String>,
    /// Modbus TCP inside TLS (Modbus/TCP Security).
    pub(super) tls: Option<RawTlsWire>,
    /// How long an answer may take; 1s when absent.
    pub(super) timeout: Option<RawDuration>,
    /// Quiet time before every request.
    pub(super) delay: Option<RawDuration>,
    /// The adapter echoes what is sent.
    #[serde(default)]
    pub(super) echo: bool,
    /// Requests on their way at one time, on Modbus TCP.
    #[schemars(range(min = 1, max = 16))]
    pub(super) in_flight: Option<u16>,
}

/// Modbus TCP inside TLS.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTlsWire {
    /// Host and port; the device's certificate has to be for that host.
    #[schemars(schema_with = "tls_host_port")]
    pub(super) address: String,
    /// PEM file with the authorities the device's certificate has to come from.
    pub(super) ca: String,
    /// PEM file with this gateway's certificate chain, for devices that want one.
    pub(super) cert: Option<String>,
    /// PEM file with its private key.
    pub(super) key: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawFraming {
    #[default]
    Rtu,
    Ascii,
}

/// A type with the keys of a serial line behind its own, so that they are written down once. (A flattened part would take
/// unknown keys for its own.)
macro_rules! on_a_line {
    ($(#[$about:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($own)*
            /// Bits a second. Where nothing is said of the line of a device that does not speak Modbus, it is set as the
            /// profile's device is delivered.
            #[schemars(range(min = 50, max = 4_000_000))]
            pub(super) baud: Option<u32>,
            /// Data bits.
            #[serde(default)]
            #[schemars(schema_with = "data_bits")]
            pub(super) data: Option<u8>,
            /// Parity.
            #[serde(default)]
            pub(super) parity: RawParity,
            /// Stop bits.
            #[serde(default)]
            #[schemars(schema_with = "stop_bits")]
            pub(super) stop: Option<u8>,
            /// Flow control.
            #[serde(default)]
            pub(super) flow: RawFlow,
            /// Who drives the RS-485 transmitter.
            #[serde(default)]
            pub(super) rs485: RawRs485,
        }

        impl $name {
            /// The line with these data bits and this parity, else as it stands here.
            pub(super) fn line(&self, data: Option<u8>, parity: Option<RawParity>) -> RawLine {
                let (data, parity) = (data.or(self.data), parity.unwrap_or(self.parity));
                RawLine::new(self.baud, data, parity, self.stop, self.flow, self.rs485)
            }
        }
    };
}

on_a_line! {
    /// A serial port.
    RawPort {
        /// The device path.
        #[schemars(extend("examples" = ["/dev/serial/by-id/usb-FTDI"]))]
        pub(super) port: String,
        /// How Modbus is framed; ascii has 7 data bits and even parity where nothing else is said.
        #[serde(default)]
        pub(super) framing: RawFraming,
    }
}

on_a_line! {
    /// A serial line that does not speak Modbus: one of port, tcp.
    RawSerialWire {
        /// The device path.
        #[schemars(extend("examples" = ["/dev/ttyACM0"]))]
        pub(super) port: Option<String>,
        /// A serial server such as ser2net, host and port; its socket carries the bytes as they are.
        #[serde(default)]
        #[schemars(schema_with = "host_port")]
        pub(super) tcp: Option<String>,
        /// How long an answer may take, unless the profile says; 1s when absent.
        pub(super) timeout: Option<RawDuration>,
        /// Quiet time before every request.
        pub(super) delay: Option<RawDuration>,
        /// The adapter echoes what is sent.
        #[serde(default)]
        pub(super) echo: bool,
    }
}

/// A Bluetooth Low Energy radio.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRadio {
    /// The adapter; hci0 when absent.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,32}$"), extend("examples" = ["hci0"]))]
    pub(super) adapter: Option<String>,
}

/// One device.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDevice {
    /// Its id.
    #[serde(rename = "id")]
    #[schemars(schema_with = "device_id")]
    _id: String,
    /// What it is.
    #[serde(rename = "profile")]
    #[schemars(extend("examples" = ["eastron.sdm630"]))]
    _profile: String,
    /// The wire it hangs on.
    #[serde(rename = "connection")]
    _connection: String,
    /// Values of the profile's parameters.
    #[serde(default, rename = "params")]
    #[schemars(schema_with = "map")]
    _params: Value,
    /// What is different from the profile.
    #[serde(default, rename = "override")]
    #[schemars(schema_with = "map")]
    _over: Value,
    /// Lets the override change the wire layout.
    #[serde(default, rename = "unsafe")]
    _is_unsafe: bool,
}

/// The web page.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWeb {
    /// Address and port.
    #[schemars(schema_with = "bind")]
    pub(super) bind: String,
}

/// Who may do what on the broker.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tidegate users")]
pub(super) struct RawUsers {
    /// The form of this file; always 1.
    #[serde(rename = "schema")]
    #[schemars(schema_with = "one")]
    _schema: Value,
    /// The users.
    #[serde(default)]
    pub(super) users: Vec<RawUser>,
    /// Roles besides mapper, app, reader and admin, by name.
    #[serde(default)]
    #[schemars(schema_with = "roles")]
    pub(super) roles: BTreeMap<String, RawRole>,
}

/// One user; by password, by certificate, or both.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUser {
    /// The MQTT user name.
    #[schemars(length(min = 1, max = 256))]
    pub(super) name: String,
    /// The argon2id hash of the password, as `tidegate user add` writes it.
    #[serde(default)]
    #[schemars(schema_with = "argon2id")]
    pub(super) password: Option<String>,
    /// The subject of the client certificate that stands for the user.
    #[schemars(regex(pattern = r"^CN=.+$"), extend("examples" = ["CN=app-1"]))]
    pub(super) certificate: Option<String>,
    /// The role.
    #[schemars(extend("examples" = ["mapper", "app", "reader", "admin"]))]
    pub(super) role: String,
    /// Topic filters that may be published to, besides the role's.
    #[serde(default)]
    pub(super) publish: Vec<String>,
    /// Topic filters that may be subscribed to, besides the role's.
    #[serde(default)]
    pub(super) subscribe: Vec<String>,
}

/// What the users of a role may do; `%c` is the client id, `%u` the user name, `%r` the root of the twins' topics.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRole {
    /// Topic filters that may be published to.
    #[serde(default)]
    pub(super) publish: Vec<String>,
    /// Topic filters that may be subscribed to.
    #[serde(default)]
    pub(super) subscribe: Vec<String>,
    /// Whether they may report readings and acknowledge desired values.
    #[serde(default)]
    pub(super) mapper: bool,
}

type Generator = schemars::SchemaGenerator;

pub(super) fn one(_: &mut Generator) -> Schema {
    json_schema!({"const": 1})
}

fn map(_: &mut Generator) -> Schema {
    json_schema!({"type": "object"})
}

fn device_id(_: &mut Generator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$",
        "examples": ["meter-1"],
        "description": "up to 64 of A-Z a-z 0-9 _ . : - beginning with a letter or digit"
    })
}

fn bind(_: &mut Generator) -> Schema {
    json_schema!({"type": "string", "pattern": r"^(\d{1,3}(\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\]):\d{1,5}$", "examples": ["127.0.0.1:1883", "[::1]:1883"]})
}

fn host_port(_: &mut Generator) -> Schema {
    json_schema!({"type": "string", "pattern": r"^([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}$", "examples": ["192.168.1.10:502"]})
}

fn tls_host_port(_: &mut Generator) -> Schema {
    json_schema!({"type": "string", "pattern": r"^([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}$", "examples": ["192.168.1.10:802"]})
}

fn data_bits(_: &mut Generator) -> Schema {
    json_schema!({"enum": [5, 6, 7, 8]})
}

fn stop_bits(_: &mut Generator) -> Schema {
    json_schema!({"enum": [1, 2]})
}

fn argon2id(_: &mut Generator) -> Schema {
    json_schema!({"type": "string", "pattern": r"^\$argon2id\$v=\d+\$[^ ]+$", "examples": ["$argon2id$v=19$…"], "writeOnly": true})
}

fn by_name(each: Schema) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", "examples": ["bus1"]},
        "additionalProperties": each
    })
}

fn connections(generator: &mut Generator) -> Schema {
    by_name(generator.subschema_for::<RawConnection>())
}

fn roles(generator: &mut Generator) -> Schema {
    by_name(generator.subschema_for::<RawRole>())
}
