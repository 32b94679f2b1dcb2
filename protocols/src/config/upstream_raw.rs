//! `upstream:` as it is written.
//!
//! In: trees that fit the schema. Out: raw types, not yet made sense of. Must never give a key a meaning here.

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use serde_json::Value;

use crate::profile::text::RawDuration;

/// One other party the twins are kept in step with. What only one dialect needs stands under a key named like it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    /// Its name in logs, status and `by`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"), extend("examples" = ["cloud"]))]
    pub(super) name: String,
    /// How it says things.
    pub(super) dialect: RawDialect,
    /// Where it is.
    #[serde(default)]
    #[schemars(schema_with = "url")]
    pub(super) url: Option<String>,
    /// First levels of its topics; the gateway's id when absent.
    #[serde(default)]
    #[schemars(schema_with = "prefix")]
    pub(super) prefix: Option<String>,
    /// The MQTT client id; the gateway's id when absent.
    #[schemars(length(min = 1, max = 256))]
    pub(super) client_id: Option<String>,
    /// The user name.
    pub(super) username: Option<String>,
    /// The file with the password or token in its first line.
    pub(super) password_file: Option<String>,
    /// TLS files.
    #[serde(default)]
    pub(super) tls: RawUpstreamTls,
    /// The HTTP proxy whose CONNECT method the link goes through.
    #[serde(default)]
    #[schemars(schema_with = "proxy")]
    pub(super) proxy: Option<String>,
    /// The file with the proxy's password in its first line.
    pub(super) proxy_password_file: Option<String>,
    /// The MQTT version; 5 is tried first when absent.
    #[serde(default)]
    #[schemars(schema_with = "version")]
    pub(super) mqtt: Option<Value>,
    /// How often an idle link is proved; 60s when absent.
    pub(super) keep_alive: Option<RawDuration>,
    /// The devices that may leave the site; all of this file when absent.
    #[serde(default)]
    #[schemars(schema_with = "filter")]
    pub(super) devices: RawFilter,
    /// The properties that may leave the site; all when absent.
    #[serde(default)]
    #[schemars(schema_with = "filter")]
    pub(super) properties: RawFilter,
    /// Bounds of the readings that are kept while the link is away.
    #[serde(default)]
    pub(super) spool: RawSpool,
    /// Bytes a second of backlog; as fast as the link takes them when absent.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub(super) rate: Option<u64>,
    /// Batches on their way at one time.
    #[schemars(range(min = 1, max = 1_024))]
    pub(super) window: Option<usize>,
    /// Home Assistant alone.
    pub(super) homeassistant: Option<RawHomeAssistant>,
    /// AWS IoT Core alone.
    pub(super) aws: Option<RawAws>,
    /// Azure IoT Hub alone.
    pub(super) azure: Option<RawAzure>,
    /// ThingsBoard alone.
    pub(super) thingsboard: Option<RawThingsBoard>,
    /// KubeEdge alone.
    pub(super) kubeedge: Option<RawKubeEdge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawDialect {
    Plain,
    HomeAssistant,
    Aws,
    Azure,
    ThingsBoard,
    KubeEdge,
}

/// TLS files of an upstream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstreamTls {
    /// PEM file with the authorities to trust; the system's when absent.
    pub(super) ca: Option<String>,
    /// PEM file with the client certificate chain.
    pub(super) cert: Option<String>,
    /// PEM file with its private key.
    pub(super) key: Option<String>,
    /// Protocol names to offer (ALPN).
    #[serde(default)]
    pub(super) alpn: Vec<String>,
}

/// Names to let through: a list, or what is included and what is excluded; `*` stands for any run of characters.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawFilter {
    List(Vec<String>),
    Lists {
        #[serde(default)]
        include: Vec<String>,
        #[serde(default)]
        exclude: Vec<String>,
    },
}

impl Default for RawFilter {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// Bounds of the readings that are kept while the link is away.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpool {
    /// Bytes on disk; 67108864 when absent.
    #[schemars(range(min = 65_536, max = 17_179_869_184_u64))]
    pub(super) bytes: Option<u64>,
    /// How long an alarm is kept; 7d when absent.
    pub(super) alarms: Option<RawDuration>,
    /// How long any other reading is kept; 7d when absent.
    pub(super) readings: Option<RawDuration>,
}

/// Home Assistant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHomeAssistant {
    /// Where Home Assistant looks; homeassistant when absent.
    #[serde(default)]
    #[schemars(schema_with = "prefix")]
    pub(super) discovery_prefix: Option<String>,
}

/// AWS IoT Core.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAws {
    /// The thing this gateway is; the client id when absent.
    #[serde(default)]
    #[schemars(schema_with = "thing")]
    pub(super) thing: Option<String>,
    /// A thing for each device instead of one named shadow for each on the gateway's thing.
    #[serde(default)]
    pub(super) thing_per_device: bool,
    /// Topic of streamed readings.
    #[serde(default)]
    #[schemars(schema_with = "prefix")]
    pub(super) telemetry: Option<String>,
}

/// Azure IoT Hub.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAzure {
    /// The hub's host name; the URL's when absent.
    #[schemars(extend("examples" = ["plant.azure-devices.net"]))]
    pub(super) hub: Option<String>,
    /// The hub's device id; the client id when absent.
    pub(super) device: Option<String>,
    /// The file with the device's key (base64) in its first line; with a client certificate there is none.
    pub(super) key_file: Option<String>,
    /// How long a token made of the key holds; 1h when absent.
    pub(super) token_ttl: Option<RawDuration>,
}

/// ThingsBoard.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawThingsBoard {
    /// The device profile that devices are connected with; the profile's id when absent.
    pub(super) device_type: Option<String>,
}

/// KubeEdge.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKubeEdge {
    /// Namespace before the device ids.
    pub(super) namespace: Option<String>,
    /// The edge node.
    pub(super) node: Option<String>,
}

type Generator = schemars::SchemaGenerator;

/// The schema of the whole list.
pub(super) fn upstreams(generator: &mut Generator) -> Schema {
    json_schema!({"type": "array", "items": generator.subschema_for::<RawUpstream>()})
}

// Somebody may write a password into an address; a complaint about it must not repeat it.
fn url(_: &mut Generator) -> Schema {
    json_schema!({"type": "string", "pattern": r"^mqtts?://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?$", "examples": ["mqtts://broker.example:8883"], "writeOnly": true})
}

fn proxy(_: &mut Generator) -> Schema {
    json_schema!({"type": "string", "pattern": r"^http://([^ :@/]+@)?([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}/?$", "examples": ["http://proxy.example:3128"], "writeOnly": true})
}

fn prefix(_: &mut Generator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[^ $+#/][^ +#/]*(/[^ +#/]+){0,7}$", "examples": ["site/plant-7"]})
}

fn thing(_: &mut Generator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[A-Za-z0-9:_-]{1,128}$", "examples": ["plant-7"]})
}

fn version(_: &mut Generator) -> Schema {
    json_schema!({"enum": [5, "3.1.1"]})
}

fn filter(_: &mut Generator) -> Schema {
    json_schema!({"anyOf": [
        {"type": "array", "items": {"type": "string", "pattern": "^[A-Za-z0-9_.:*-]{1,64}$", "examples": ["meter-*"]}},
        {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "include": {"type": "array", "description": "Names that pass", "items": {"type": "string", "pattern": "^[A-Za-z0-9_.:*-]{1,64}$", "examples": ["meter-*"]}},
                "exclude": {"type": "array", "description": "Names that do not", "items": {"type": "string", "pattern": "^[A-Za-z0-9_.:*-]{1,64}$", "examples": ["meter-*"]}}
            }
        }
    ]})
}
