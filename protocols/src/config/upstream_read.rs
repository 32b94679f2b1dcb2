//! From written upstreams to typed ones.
//!
//! In: located trees, and who the gateway is. Out: [`Upstream`]s, complaints and warnings. Must never look for a file
//! itself, and never let a key stand that does nothing.

use std::collections::HashMap;

use super::read::Reader;
use super::upstream::{Dialect, Filter, SpoolLimits, Upstream, UpstreamTls};
use super::upstream_raw::{RawDialect, RawFilter, RawUpstream};
use super::*;
use crate::yaml::{Node, Place};

/// How often an idle link is proved when the file says nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes of the spool when the file says nothing: a day of ten readings a second.
const SPOOL_BYTES: u64 = 64 << 20;
/// How long what is streamed is kept when the file says nothing.
const SPOOL_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Batches in flight when the file says nothing.
const WINDOW: usize = 32;
/// How long a token holds when the file says nothing.
const TOKEN_TTL: Duration = Duration::from_secs(3_600);
/// The shortest life of a token; it is renewed before it ends, and each time the link is made anew.
const TOKEN_TTL_MIN: Duration = Duration::from_secs(60);

/// The keys that belong to one dialect.
const OWN_KEYS: [(&str, RawDialect); 5] = [
    ("homeassistant", RawDialect::HomeAssistant),
    ("aws", RawDialect::Aws),
    ("azure", RawDialect::Azure),
    ("thingsboard", RawDialect::ThingsBoard),
    ("kubeedge", RawDialect::KubeEdge),
];

impl Reader<'_> {
    /// Every upstream that makes sense.
    pub(super) fn upstreams(&mut self, gateway: &str, devices: &[Arc<Device>]) -> Vec<Upstream> {
        let tree = self.tree;
        let mut upstreams: Vec<Upstream> = Vec::new();
        let mut names: HashMap<String, u32> = HashMap::new();
        for node in tree.get("upstream").map(Node::items).unwrap_or_default() {
            if let Some((name, at)) = node.get("name").and_then(|name| Some((name.text()?, &name.place)))
                && let Some(line) = names.insert(name.to_ascii_lowercase(), at.line)
            {
                let hint = format!("the first is in line {line}; give one of them another name");
                self.complaints.add(at, format!("a second upstream \"{name}\""), hint);
            }
            let Ok(raw) = serde_json::from_value::<RawUpstream>(node.to_json()) else { continue };
            self.own_keys(&raw, node);
            self.link_keys(&raw, node);
            let upstream = typed(raw, gateway);
            self.warn_of_empty_filters(&upstream, node, devices);
            self.warn_of_twins(&upstream, &upstreams, node.place_of(&["url"]), gateway);
            upstreams.push(upstream);
        }
        upstreams
    }

    /// Keys that mean nothing to the dialect.
    fn own_keys(&mut self, raw: &RawUpstream, node: &Node) {
        for (key, dialect) in OWN_KEYS {
            if let Some(entry) = node.entry(key).filter(|_| dialect != raw.dialect) {
                let message = format!("\"{key}\" means nothing with another dialect");
                self.complaints.add(&entry.key_place, message, format!("take it out, or write dialect: {key}"));
            }
        }
        if let Some(entry) = node.entry("prefix")
            && !matches!(raw.dialect, RawDialect::Plain | RawDialect::HomeAssistant)
        {
            self.complaints.add(&entry.key_place, "\"prefix\" means nothing with this dialect", "take it out");
        }
        let is_v5 = raw.mqtt.as_ref().is_some_and(|version| version == 5);
        if is_v5 && matches!(raw.dialect, RawDialect::Azure) {
            let at = node.place_of(&["mqtt"]);
            self.complaints.add(at, "Azure IoT Hub speaks MQTT 3.1.1 alone", "leave mqtt out");
        }
    }

    /// Keys about the way there that do not fit one another.
    fn link_keys(&mut self, raw: &RawUpstream, node: &Node) {
        let mut complain = |keys: &[&str], message: &str, hint: &str| {
            self.complaints.add(node.place_of(keys), message, hint);
        };
        match (&raw.url, raw.dialect) {
            (None, RawDialect::HomeAssistant) => {
                for key in ["client_id", "username", "password_file", "tls", "proxy", "prefix", "mqtt"] {
                    if node.entry(key).is_some() {
                        complain(&[key], &format!("\"{key}\" needs a url"), "without one, it is the broker in here");
                    }
                }
            }
            (None, _) => complain(&[], "\"url\" is missing", "write url: \"mqtts://host:8883\""),
            (Some(url), dialect) => {
                let is_tls = url.starts_with("mqtts://");
                if !is_tls && node.entry("tls").is_some() {
                    complain(&["url"], "tls files and an address without TLS", "write mqtts:// instead of mqtt://");
                }
                if !is_tls && matches!(dialect, RawDialect::Aws | RawDialect::Azure) {
                    complain(&["url"], "this party takes no link without TLS", "write mqtts:// instead of mqtt://");
                }
                if address(url).is_none() {
                    complain(&["url"], "the port is not from 1 to 65535", "MQTT has 1883, with TLS 8883");
                }
            }
        }
        if raw.tls.cert.is_some() != raw.tls.key.is_some() {
            complain(&["tls"], "a client certificate needs its key, and a key its certificate", "name both");
        }
        if raw.proxy_password_file.is_some() && !raw.proxy.as_ref().is_some_and(|proxy| proxy.contains('@')) {
            let hint = "write proxy: \"http://user@host:port\"";
            complain(&["proxy_password_file"], "a proxy's password without a user", hint);
        }
        if raw.keep_alive.is_some_and(|time| !(5..=3_600).contains(&time.0.as_secs())) {
            complain(&["keep_alive"], "a link cannot be proved that often or that rarely", "write 5s to 3600s");
        }
        let Some(azure) = raw.azure.as_ref().filter(|_| raw.dialect == RawDialect::Azure) else { return };
        if azure.key_file.is_some() && raw.password_file.is_some() {
            complain(&["password_file"], "a password and a key it would be made of", "take one of them out");
        }
        if azure.token_ttl.is_some_and(|time| time.0 < TOKEN_TTL_MIN) {
            complain(&["azure", "token_ttl"], "a token cannot end that soon", "write 60s or more");
        }
    }

    fn warn_of_empty_filters(&mut self, upstream: &Upstream, node: &Node, devices: &[Arc<Device>]) {
        for pattern in upstream.devices.include.iter().chain(&upstream.devices.exclude) {
            let is_known = devices.iter().any(|device| matches(pattern, device.id.as_str()));
            if !is_known && !pattern.contains('*') {
                let message = format!("\"{pattern}\" is none of the devices of this file");
                self.warnings.add(node.place_of(&["devices"]), message, "nothing is let through or held back by it");
            }
        }
    }

    /// Two links of one name to one place throw each other out for ever.
    fn warn_of_twins(&mut self, new: &Upstream, others: &[Upstream], place: &Place, gateway: &str) {
        let id = |one: &Upstream| one.client_id.clone().unwrap_or_else(|| gateway.to_owned());
        let Some(url) = &new.url else { return };
        for other in others.iter().filter(|other| other.url.as_ref() == Some(url) && id(other) == id(new)) {
            let message = format!("\"{}\" and \"{}\" go to one place with one client id", new.name, other.name);
            self.complaints.add(place, message, "give one of them another client_id");
        }
    }
}

/// Whether a name fits a pattern, in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| matches(tail, rest.get(at..).unwrap_or("")))
        }),
    }
}

/// Host and port of a URL that the schema has let through; `None` when the port is none.
fn address(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = rest.trim_end_matches('/');
    let end_of_host = rest.rfind(']').unwrap_or(0);
    match rest.get(end_of_host..)?.rfind(':') {
        Some(colon) => {
            let (host, port) = rest.split_at_checked(end_of_host + colon)?;
            let port = port.get(1..)?.parse().ok().filter(|port| *port > 0)?;
            Some((host.to_owned(), port))
        }
        None => Some((rest.to_owned(), if scheme == "mqtts" { 8883 } else { 1883 })),
    }
}

fn typed(raw: RawUpstream, gateway: &str) -> Upstream {
    let client = raw.client_id.clone().unwrap_or_else(|| gateway.to_owned());
    let prefix = raw.prefix.clone().unwrap_or_else(|| gateway.to_owned());
    let host = raw.url.as_deref().and_then(address).map(|(host, _)| host).unwrap_or_default();
    let dialect = match raw.dialect {
        RawDialect::Plain => Dialect::Plain { prefix },
        RawDialect::HomeAssistant => Dialect::HomeAssistant {
            discovery_prefix: raw
                .homeassistant
                .and_then(|own| own.discovery_prefix)
                .unwrap_or_else(|| "homeassistant".to_owned()),
            prefix,
        },
        RawDialect::Aws => {
            let own = raw.aws.unwrap_or_default();
            Dialect::Aws {
                thing: own.thing.unwrap_or(client),
                thing_per_device: own.thing_per_device,
                telemetry: own.telemetry.unwrap_or_else(|| format!("tidegate/{gateway}")),
            }
        }
        RawDialect::Azure => {
            let own = raw.azure.unwrap_or_default();
            Dialect::Azure {
                hub: own.hub.unwrap_or(host),
                device: own.device.unwrap_or(client),
                key_file: own.key_file,
                token_ttl: own.token_ttl.map_or(TOKEN_TTL, |time| time.0),
            }
        }
        RawDialect::ThingsBoard => {
            Dialect::ThingsBoard { device_type: raw.thingsboard.and_then(|own| own.device_type) }
        }
        RawDialect::KubeEdge => {
            let own = raw.kubeedge.unwrap_or_default();
            Dialect::KubeEdge { namespace: own.namespace, node: own.node }
        }
    };
    Upstream {
        name: raw.name,
        dialect,
        url: raw.url,
        client_id: raw.client_id,
        username: raw.username,
        password_file: raw.password_file,
        tls: UpstreamTls { ca: raw.tls.ca, cert: raw.tls.cert, key: raw.tls.key, alpn: raw.tls.alpn },
        proxy: raw.proxy,
        proxy_password_file: raw.proxy_password_file,
        mqtt: raw.mqtt.map(|version| if version == 5 { 5 } else { 4 }),
        keep_alive: raw.keep_alive.map_or(KEEP_ALIVE, |time| time.0),
        devices: filter(raw.devices),
        properties: filter(raw.properties),
        spool: SpoolLimits {
            bytes: raw.spool.bytes.unwrap_or(SPOOL_BYTES),
            alarms: raw.spool.alarms.map_or(SPOOL_AGE, |age| age.0),
            readings: raw.spool.readings.map_or(SPOOL_AGE, |age| age.0),
        },
        rate: raw.rate.unwrap_or(0),
        window: raw.window.unwrap_or(WINDOW),
    }
}

fn filter(raw: RawFilter) -> Filter {
    match raw {
        RawFilter::List(include) => Filter { include, exclude: Vec::new() },
        RawFilter::Lists { include, exclude } => Filter { include, exclude },
    }
}

impl Upstream {
    /// Host and port of the URL; `None` without one.
    pub fn address(&self) -> Option<(String, u16)> {
        let (host, port) = self.url.as_deref().and_then(address)?;
        Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
    }

    /// Whether the link is to be encrypted.
    pub fn is_tls(&self) -> bool {
        self.url.as_ref().is_some_and(|url| url.starts_with("mqtts://"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("meter-1", "meter-1", true),
            ("meter-1", "meter-10", false),
            ("meter-*", "meter-10", true),
            ("meter-*", "meter-", true),
            ("*-1", "meter-1", true),
            ("m*r*1", "meter-1", true),
            ("*", "x", true),
            ("m*x", "meter", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_address_has_a_port_whether_it_is_written_or_not() {
        for (url, expected) in [
            ("mqtt://h", Some(("h", 1883))),
            ("mqtts://h/", Some(("h", 8883))),
            ("mqtts://h:443", Some(("h", 443))),
            ("mqtt://[::1]", Some(("[::1]", 1883))),
            ("mqtt://[::1]:99", Some(("[::1]", 99))),
            ("mqtt://h:0", None),
            ("mqtt://h:65536", None),
        ] {
            let found = address(url);
            assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), expected, "{url}");
        }
    }
}
