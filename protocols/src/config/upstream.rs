//! One upstream as meant: where it is, how it is reached, and what may leave the site.

use std::time::Duration;

/// One other party that twins are kept in step with.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Its name in logs, status and `by`; unique.
    pub name: String,
    /// How it says things, with what only that dialect needs.
    pub dialect: Dialect,
    /// `mqtt://host[:1883]`, `mqtts://host[:8883]`; `None` is the embedded broker (only `homeassistant` may do that).
    pub url: Option<String>,
    /// MQTT client id; a dialect or the gateway's id gives one when absent.
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// File with the password (or token) in its first line, as written.
    pub password_file: Option<String>,
    /// CA, client certificate and key files, as written; with `mqtts` and no CA the system's roots are trusted.
    pub tls: UpstreamTls,
    /// `http://[user@]host:port`; the link goes through its CONNECT method.
    pub proxy: Option<String>,
    /// File with the proxy's password, as written.
    pub proxy_password_file: Option<String>,
    /// Protocol version to speak; `None` tries 5 first, then 3.1.1.
    pub mqtt: Option<u8>,
    /// Keep-alive; 60 s by default.
    pub keep_alive: Duration,
    /// Devices that may leave the site; all of the configuration when both lists are empty.
    pub devices: Filter,
    /// Properties that may leave the site.
    pub properties: Filter,
    /// Bounds of the readings that are kept while the link is away.
    pub spool: SpoolLimits,
    /// Bytes per second of backlog; 0 is as fast as the link takes them.
    pub rate: u64,
    /// Batches in flight; the dialect's own limit is the upper one.
    pub window: usize,
}

/// Names to let through: `*` stands for any run of characters. A name passes if it is included (or `include` is empty) and not excluded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Patterns of names that pass.
    pub include: Vec<String>,
    /// Patterns of names that do not.
    pub exclude: Vec<String>,
}

/// TLS files of an upstream, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Roots to trust.
    pub ca: Option<String>,
    /// Client certificate chain.
    pub cert: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// Protocol names to offer (ALPN); the dialect's when empty.
    pub alpn: Vec<String>,
}

/// Bounds of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes on disk; the oldest of the lowest class are given up beyond it. 64 MiB by default.
    pub bytes: u64,
    /// How long an alarm is kept; 7 days by default.
    pub alarms: Duration,
    /// How long any other reading is kept; 7 days by default.
    pub readings: Duration,
}

/// How an upstream says things.
#[derive(Clone, Debug, PartialEq)]
pub enum Dialect {
    /// Any MQTT broker: the local topics under a prefix.
    Plain {
        /// First levels of its topics; the gateway's id by default.
        prefix: String,
    },
    /// Home Assistant's MQTT discovery.
    HomeAssistant {
        /// Where Home Assistant looks; `homeassistant` by default.
        discovery_prefix: String,
        /// First levels of the state topics at another broker; the gateway's id by default. Unused with the embedded one.
        prefix: String,
    },
    /// AWS IoT Core device shadows.
    Aws {
        /// The thing this gateway is; the client id by default.
        thing: String,
        /// A thing per device (named like the device) instead of one named shadow per device on the gateway's thing.
        thing_per_device: bool,
        /// Topic under which streamed readings are published; `tidegate/{gateway}` by default.
        telemetry: String,
    },
    /// Azure IoT Hub twin of one hub device, every gateway device an object in it.
    Azure {
        /// `name.azure-devices.net`; the URL's host by default.
        hub: String,
        /// The hub's device id; the client id by default.
        device: String,
        /// File with the primary or secondary key (base64), as written; a SAS token is made of it and renewed. Without it, X.509.
        key_file: Option<String>,
        /// How long a token holds; 1 h by default.
        token_ttl: Duration,
    },
    /// ThingsBoard gateway API; the access token is the user name (or in `password_file` alone).
    ThingsBoard {
        /// Device profile ("type") that devices are connected with; the profile id by default.
        device_type: Option<String>,
    },
    /// KubeEdge's device topics at an edge node's broker.
    KubeEdge {
        /// Namespace put before device ids; none gives ids of one level.
        namespace: Option<String>,
        /// The node, for membership topics.
        node: Option<String>,
    },
}
