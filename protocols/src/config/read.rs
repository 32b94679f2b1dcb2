//! From trees to a [`Config`].
//!
//! In: located trees of `gateway.yaml`, and the profiles there are. Out: the installation, or every complaint at once.
//! Must never look for a file itself.

use super::raw::{
    RawAnonymous, RawConnection, RawFile, RawFraming, RawKubeEdge, RawLimits, RawPort, RawTlsWire, RawWire,
};
use super::*;
use crate::profile::{Library, Wish, raw::RawParity};
use crate::value::Value;
use crate::yaml::{Complaints, Node, Place, Strictness, nearest, prune_gaps, quoted_list, walk};

/// Where the broker listens when the file says nothing.
const DEFAULT_BIND: ([u8; 4], u16) = ([127, 0, 0, 1], 1883);

/// How long an answer may take when neither connection nor profile says.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// How rarely reported values reach the disk when the file says nothing; flash cards wear out.
const DEFAULT_FLUSH: Duration = Duration::from_secs(5);

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `gateway.yaml`.
    Gateway,
    /// A device profile.
    Profile,
    /// `users.yaml`.
    Users,
    /// `network.yaml`.
    Network,
}

/// Tells by its keys what a file is for; `None` when it has none of the keys that tell.
pub fn kind_of(tree: &Node) -> Option<FileKind> {
    let has = |keys: &[&str]| keys.iter().any(|key| tree.entry(key).is_some());
    if has(&["gateway", "connections", "devices", "broker"]) {
        return Some(FileKind::Gateway);
    }
    if has(&["properties", "extends", "meta", "params"]) {
        return Some(FileKind::Profile);
    }
    if has(&["users", "roles"]) {
        return Some(FileKind::Users);
    }
    has(&["hostname", "ethernet", "wifi", "login"]).then_some(FileKind::Network)
}

/// The folders of profiles that a gateway file names, and where.
pub fn folders(tree: &Node) -> Vec<(&str, &Place)> {
    let items = tree.get("profiles").map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| Some((item.text()?, &item.place))).collect()
}

/// The files a gateway file cannot do without, and where it names them.
pub fn named_files(tree: &Node) -> Vec<(&str, &Place)> {
    let users = tree.find(&["broker", "users"]);
    let listeners = tree.find(&["broker", "listeners"]).map(Node::items).unwrap_or_default();
    let tls = listeners.iter().filter_map(|listener| listener.get("tls"));
    let of_tls = tls.flat_map(|tls| ["cert", "key", "client_ca"].into_iter().filter_map(|key| tls.get(key)));
    let of_upstreams = upstream_files(tree, &[&["tls", "ca"], &["tls", "cert"]]);
    let of_wires = wire_files(tree, &["ca", "cert"]);
    users
        .into_iter()
        .chain(of_tls)
        .filter_map(|node| Some((node.text()?, &node.place)))
        .chain(of_upstreams)
        .chain(of_wires)
        .chain(secret_files(tree))
        .collect()
}

/// Of the files of [`named_files`], those that nobody but the gateway's user should read: passwords, tokens, keys of
/// upstreams and of Modbus wires inside TLS.
pub fn secret_files(tree: &Node) -> Vec<(&str, &Place)> {
    let keys: [&[&str]; 4] = [&["password_file"], &["proxy_password_file"], &["tls", "key"], &["azure", "key_file"]];
    upstream_files(tree, &keys).into_iter().chain(wire_files(tree, &["key"])).collect()
}

/// The files that the TLS of Modbus wires names under these keys.
fn wire_files<'a>(tree: &'a Node, keys: &[&str]) -> Vec<(&'a str, &'a Place)> {
    let connections = tree.get("connections").map(Node::entries).unwrap_or_default();
    let wires = connections.iter().filter_map(|entry| entry.value.find(&["modbus", "tls"]));
    let nodes = wires.flat_map(|tls| keys.iter().filter_map(|key| tls.get(key)));
    nodes.filter_map(|node| Some((node.text()?, &node.place))).collect()
}

fn upstream_files<'a>(tree: &'a Node, keys: &[&[&str]]) -> Vec<(&'a str, &'a Place)> {
    let upstreams = tree.get("upstream").map(Node::items).unwrap_or_default();
    let nodes = upstreams.iter().flat_map(|upstream| keys.iter().filter_map(|path| upstream.find(path)));
    nodes.filter_map(|node| Some((node.text()?, &node.place))).collect()
}

/// Reads a gateway file. `warnings` are about what is allowed and yet may not be what was meant.
pub fn gateway(
    tree: &Node,
    library: &mut Library,
    warnings: &mut Complaints,
    complaints: &mut Complaints,
) -> Option<Config> {
    let mut found = Complaints::new();
    walk(tree, raw::gateway_schema(), Strictness::Whole, &mut found);
    let raw: Option<RawFile> = serde_json::from_value(tree.to_json()).ok();
    // Everything is looked at one by one and without what does not fit, so that no mistake hides another.
    let (pruned, told) = prune_gaps(tree, raw::gateway_schema());
    let mut later = Complaints::new();
    let mut reader = Reader { tree: &pruned, library, warnings, complaints: &mut later };
    let mut connections = reader.connections();
    let devices = reader.devices(&connections);
    reader.settle_lines(&mut connections, &devices);
    let listeners = reader.listeners();
    let gateway = pruned.find(&["gateway", "id"]).and_then(Node::text).unwrap_or("gateway");
    let upstream = reader.upstreams(gateway, &devices);
    reader.warn_of_what_is_not_served();
    told.filter(&mut later);
    found.extend(later);
    let is_clean = found.is_empty();
    complaints.extend(found);
    let raw = raw.filter(|_| is_clean)?;
    Some(Config {
        id: raw.gateway.id.parse().ok()?,
        data: raw.gateway.data.unwrap_or_else(|| "data".to_owned()),
        profiles: raw.profiles,
        broker: Broker {
            listeners,
            users: raw.broker.users,
            anonymous: anonymous(raw.broker.anonymous),
            limits: limits(&raw.broker.limits),
        },
        twin: Twin {
            root: raw.twin.root.unwrap_or_else(|| "twin".to_owned()),
            flush: raw.twin.flush.map_or(DEFAULT_FLUSH, |flush| flush.0),
        },
        connections: connections.into_iter().filter_map(|(name, wire)| Some((name, wire?))).collect(),
        devices,
        upstream,
        web: raw.web.map(|web| web.bind),
        kubeedge: raw.compat.kubeedge.map(kubeedge),
    })
}

/// Where KubeEdge's mappers look for the device mapper interface.
const DMI_SOCKET: &str = "/etc/kubeedge/dmi.sock";

fn kubeedge(raw: RawKubeEdge) -> KubeEdge {
    let dmi = raw.dmi.map(|dmi| Dmi { socket: dmi.socket.unwrap_or_else(|| DMI_SOCKET.to_owned()) });
    KubeEdge { node: raw.node, namespace: raw.namespace.unwrap_or_else(|| "default".to_owned()), dmi }
}

/// The connections by name; `None` for those this version cannot hold.
pub(super) type Connections = BTreeMap<String, Option<Arc<Connection>>>;

/// Where a device hangs; without the device, if its id cannot be used.
pub(super) struct Spot {
    pub(super) device: Option<Arc<Device>>,
    pub(super) connection: String,
    pub(super) unit: u8,
}

pub(super) struct Reader<'a> {
    pub(super) tree: &'a Node,
    pub(super) library: &'a mut Library,
    pub(super) warnings: &'a mut Complaints,
    pub(super) complaints: &'a mut Complaints,
}

impl Reader<'_> {
    fn connections(&mut self) -> Connections {
        let tree = self.tree;
        let mut connections = Connections::new();
        for entry in tree.get("connections").map(Node::entries).unwrap_or_default() {
            let raw: Option<RawConnection> = serde_json::from_value(entry.value.to_json()).ok();
            let wire = raw.and_then(|raw| match (raw.modbus, raw.serial, raw.ble, raw.external) {
                (Some(raw), ..) => self.connection(&entry.key, &raw, &entry.value),
                (None, Some(raw), ..) => self.serial_connection(&entry.key, &raw, &entry.value),
                (None, None, Some(radio), _) => Some(radio_of(&entry.key, radio.adapter)),
                (None, None, None, Some(raw)) => Some(external::connection(&entry.key, raw)),
                (None, None, None, None) => None,
            });
            connections.insert(entry.key.clone(), wire.map(Arc::new));
        }
        self.owners(&connections);
        connections
    }

    fn connection(&mut self, name: &str, raw: &RawWire, node: &Node) -> Option<Connection> {
        let at = |key| node.place_of(&["modbus", key]);
        let is_serial = raw.serial.is_some();
        let has_parity = node.find(&["modbus", "serial", "parity"]).is_some();
        let mut wires = [
            raw.serial.as_ref().map(|port| port_wire(port, has_parity)),
            raw.tcp.clone().map(Wire::Tcp),
            raw.rtu_over_tcp.clone().map(Wire::RtuOverTcp),
            raw.ascii_over_tcp.clone().map(Wire::AsciiOverTcp),
            raw.udp.clone().map(Wire::Udp),
            raw.tls.as_ref().map(|tls| self.tls_wire(tls, node)),
        ]
        .into_iter()
        .flatten();
        let wire = match (wires.next(), wires.next()) {
            (Some(wire), None) => wire,
            (None, _) => {
                let hint = "write one of: serial: {port: /dev/…}, tcp: \"host:502\", rtu_over_tcp: \"host:502\", \
                            ascii_over_tcp: \"host:502\", udp: \"host:502\", tls: {address: \"host:802\", ca: ca.pem}";
                self.complaints.add(at(""), format!("\"{name}\" leads nowhere"), hint);
                return None;
            }
            _ => {
                let hint = "a connection is one physical wire; make a second one";
                self.complaints.add(at(""), format!("\"{name}\" leads to two places"), hint);
                return None;
            }
        };
        if !is_serial {
            let port = wire.place().rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if port.is_some_and(|port| !port.is_ok_and(|port| port > 0)) {
                let (path, hint): (&[&str], _) = match &wire {
                    Wire::Tls(_) => (&["modbus", "tls", "address"], "Modbus TCP inside TLS has port 802"),
                    Wire::RtuOverTcp(_) => (&["modbus", "rtu_over_tcp"], "Modbus TCP has port 502"),
                    Wire::AsciiOverTcp(_) => (&["modbus", "ascii_over_tcp"], "Modbus TCP has port 502"),
                    Wire::Udp(_) => (&["modbus", "udp"], "Modbus UDP has port 502"),
                    _ => (&["modbus", "tcp"], "Modbus TCP has port 502"),
                };
                self.complaints.add(node.place_of(path), "the port is not from 1 to 65535", hint);
            }
        }
        if raw.echo && !is_serial {
            self.complaints.add(at("echo"), "only serial adapters echo", "leave echo out");
        }
        if raw.in_flight.is_some_and(|count| count > 1) && !matches!(wire, Wire::Tcp(_) | Wire::Tls(_)) {
            let word = match wire.framing() {
                Framing::Tcp => "a UDP",
                Framing::Rtu => "an RTU",
                Framing::Ascii => "an ASCII",
            };
            let message = format!("{word} wire carries one request at a time");
            self.complaints.add(at("in_flight"), message, "leave in_flight out");
        }
        if raw.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            self.complaints.add(at("timeout"), "no device answers in 0 time", "write a duration such as 500ms");
        }
        Some(Connection {
            name: name.to_owned(),
            protocol: Protocol::Modbus,
            wire,
            timeout: raw.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0),
            delay: raw.delay.map_or(Duration::ZERO, |delay| delay.0),
            echo: raw.echo,
            in_flight: raw.in_flight.unwrap_or(1),
        })
    }

    fn tls_wire(&mut self, raw: &RawTlsWire, node: &Node) -> Wire {
        let lonely = match (&raw.cert, &raw.key) {
            (Some(_), None) => Some(("cert", "key")),
            (None, Some(_)) => Some(("key", "cert")),
            _ => None,
        };
        if let Some((there, missing)) = lonely {
            let message = format!("{there} without {missing}");
            let hint = "a certificate is shown with its key: write both, or neither";
            self.complaints.add(node.place_of(&["modbus", "tls", there]), message, hint);
        }
        let client = raw.cert.clone().zip(raw.key.clone());
        Wire::Tls(TlsWire { address: raw.address.clone(), ca: raw.ca.clone(), client })
    }

    fn devices(&mut self, connections: &Connections) -> Vec<Arc<Device>> {
        let tree = self.tree;
        let nodes = tree.get("devices").map(Node::items).unwrap_or_default();
        self.unique_ids(nodes);
        let spots: Vec<Option<Spot>> = nodes.iter().map(|node| self.device(node, connections)).collect();
        self.unique_units(nodes, &spots, connections);
        self.unique_talkers(nodes, &spots, connections);
        spots.into_iter().flatten().filter_map(|spot| spot.device).collect()
    }

    fn device(&mut self, node: &Node, connections: &Connections) -> Option<Spot> {
        let text = |key| node.get(key).and_then(Node::text);
        let wire = text("connection").map(|name| self.wire(name, node.place_of(&["connection"]), connections));
        let over = node.get("override");
        if let Some(over) = over {
            walk(over, crate::profile::schema(), Strictness::Part, self.complaints);
        }
        let wish = Wish {
            profile: text("profile")?,
            place: node.place_of(&["profile"]),
            params: node.get("params"),
            over,
            is_unsafe: matches!(node.get("unsafe").map(Node::to_json), Some(Value::Bool(true))),
        };
        let resolved = self.library.resolve(&wish, self.complaints)?;
        let connection = wire??;
        if let Some(Some(wire)) = connections.get(&connection)
            && wire.protocol != resolved.profile.protocol()
        {
            let (own, other) = (resolved.profile.protocol().word(), wire.protocol.word());
            let a = |word: &str| if word == "external" { format!("an {word}") } else { format!("a {word}") };
            let (one, two) = (a(own), a(other));
            let message = format!("\"{}\" is {one} profile, but \"{connection}\" is {two} connection", wish.profile);
            self.complaints.add(wish.place, message, format!("take a connection of its own: {{{own}: …}}"));
            return None;
        }
        if let Some(Some(wire)) = connections.get(&connection) {
            self.same_external_protocol(&resolved.profile, wire, wish.place)?;
        }
        let spot = Spot { device: None, connection: connection.clone(), unit: resolved.unit };
        let Some(id) = text("id").and_then(|id| id.parse().ok()) else { return Some(spot) };
        let device = Device { id, profile: resolved.profile, connection, unit: resolved.unit, ble: resolved.ble };
        Some(Spot { device: Some(Arc::new(device)), ..spot })
    }

    /// The name of a connection that can be used, or a complaint.
    fn wire(&mut self, name: &str, place: &Place, connections: &Connections) -> Option<String> {
        match connections.get(name) {
            Some(Some(_)) => return Some(name.to_owned()),
            // What is wrong with it was told where it stands.
            Some(None) => {}
            None => {
                let known = || connections.keys().map(String::as_str);
                let hint = match (nearest(name, known()), connections.is_empty()) {
                    (Some(meant), _) => format!("did you mean \"{meant}\"? connections: {}", quoted_list(known())),
                    (None, true) => format!("write connections: {{{name}: {{modbus: {{tcp: \"host:502\"}}}}}}"),
                    (None, false) => format!("connections: {}", quoted_list(known())),
                };
                self.complaints.add(place, format!("there is no connection \"{name}\""), hint);
            }
        }
        None
    }
}

/// The adapter of a connection that names none.
const DEFAULT_ADAPTER: &str = "hci0";

fn radio_of(name: &str, adapter: Option<String>) -> Connection {
    Connection {
        name: name.to_owned(),
        wire: Wire::Ble { adapter: adapter.unwrap_or_else(|| DEFAULT_ADAPTER.to_owned()) },
        protocol: Protocol::Ble,
        timeout: DEFAULT_TIMEOUT,
        delay: Duration::ZERO,
        echo: false,
        in_flight: 1,
    }
}

/// RTU needs eight data bits; ASCII has seven and even parity by default (Serial Line guide V1.02, section 2.5.2).
fn port_wire(raw: &RawPort, has_parity: bool) -> Wire {
    let port = raw.port.clone();
    let is_ascii = raw.framing == RawFraming::Ascii;
    let parity = (is_ascii && !has_parity).then_some(RawParity::Even);
    let line = SerialLine::from_raw(&raw.line(raw.data.or(is_ascii.then_some(7)), parity));
    if is_ascii { Wire::AsciiSerial { port, line } } else { Wire::Serial { port, line } }
}

pub(super) fn anonymous(raw: RawAnonymous) -> Anonymous {
    match raw {
        RawAnonymous::Never => Anonymous::Never,
        RawAnonymous::LocalOnly => Anonymous::LocalOnly,
        RawAnonymous::Always => Anonymous::Always,
    }
}

fn limits(raw: &RawLimits) -> Limits {
    let usual = Limits::default();
    Limits {
        clients: raw.clients.unwrap_or(usual.clients),
        packet_bytes: raw.packet_bytes.unwrap_or(usual.packet_bytes),
        inflight: raw.inflight.unwrap_or(usual.inflight),
        queue_bytes: raw.queue_bytes.unwrap_or(usual.queue_bytes),
        retained: raw.retained.unwrap_or(usual.retained),
        retained_bytes: raw.retained_bytes.unwrap_or(usual.retained_bytes),
        sessions: raw.sessions.unwrap_or(usual.sessions),
        subscriptions: raw.subscriptions.unwrap_or(usual.subscriptions),
    }
}

/// The listener of a file that names none.
pub(super) fn default_listener() -> Listener {
    Listener { name: "local".to_owned(), bind: DEFAULT_BIND.into(), tls: None, websocket: false }
}
