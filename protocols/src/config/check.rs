//! What two entries of a gateway file may not have in common, and what is not safe.
//!
//! In: located trees and what was made of them. Out: complaints and warnings. Must never let two owners share a wire.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::raw::RawBroker;
use super::read::{Connections, Reader, Spot, anonymous, default_listener};
use super::*;
use crate::yaml::{Data, Node, Place};

impl Reader<'_> {
    /// Two devices of one id, or of ids that a person would confuse.
    pub(super) fn unique_ids(&mut self, nodes: &[Node]) {
        let mut seen: HashMap<String, (&str, &Place)> = HashMap::new();
        for node in nodes {
            let Some((id, place)) = node.get("id").and_then(|id| Some((id.text()?, &id.place))) else { continue };
            match seen.get(&id.to_ascii_lowercase()) {
                Some((first, at)) if *first == id => {
                    let hint = format!("the first is in line {}; ids name topics and are unique", at.line);
                    self.complaints.add(place, format!("a second device \"{id}\""), hint);
                }
                Some((first, at)) => {
                    let hint = format!("\"{first}\" is in line {}; give one of them a clearly different id", at.line);
                    self.complaints.add(place, format!("\"{id}\" and \"{first}\" differ in case only"), hint);
                }
                None => drop(seen.insert(id.to_ascii_lowercase(), (id, place))),
            }
        }
    }

    /// Two devices that would answer the same request.
    pub(super) fn unique_units(&mut self, nodes: &[Node], spots: &[Option<Spot>], connections: &Connections) {
        let mut seen: HashMap<(&str, u8), &str> = HashMap::new();
        for (node, spot) in nodes.iter().zip(spots) {
            let Some(spot) = spot else { continue };
            let connection = connections.get(&spot.connection).and_then(Option::as_ref);
            // Only Modbus tells its devices apart by a unit id.
            let Some(connection) = connection.filter(|other| other.protocol == Protocol::Modbus) else { continue };
            let place = match node.find(&["params", "unit"]) {
                Some(unit) => &unit.place,
                None => node.place_of(&["id"]),
            };
            let (unit, wire) = (spot.unit, spot.connection.as_str());
            if let Some(other) = seen.get(&(wire, unit)) {
                let message = format!("unit {unit} on \"{wire}\" is taken by \"{other}\"");
                self.complaints.add(place, message, "give every device on a wire a unit of its own: params: {unit: …}");
            } else {
                let id = spot.device.as_ref().map_or("a device without a usable id", |device| device.id.as_str());
                seen.insert((wire, unit), id);
            }
            if unit == 0 && connection.wire.framing() != Framing::Tcp {
                let message = "unit 0 means all devices of a serial wire, and none answers";
                self.complaints.add(place, message, "write the device's own unit, from 1 to 247");
            }
        }
    }

    /// Two devices on one serial line that nothing tells apart: both would hear every message, and answer for each other.
    pub(super) fn unique_talkers(&mut self, nodes: &[Node], spots: &[Option<Spot>], connections: &Connections) {
        let mut seen: HashMap<(&str, String), &str> = HashMap::new();
        for (node, spot) in nodes.iter().zip(spots) {
            let Some((spot, device)) = spot.as_ref().and_then(|spot| Some((spot, spot.device.as_ref()?))) else {
                continue;
            };
            let connection = connections.get(&spot.connection).and_then(Option::as_ref);
            if connection.is_none_or(|connection| connection.protocol != Protocol::Serial) {
                continue;
            }
            // What is said and where values stand in it, with the parameters filled in; how often it is reported is no matter.
            let sources: Vec<_> = device.profile.properties.iter().map(|property| &property.source).collect();
            let own = format!("{:?} {sources:?}", device.profile.serial);
            match seen.get(&(spot.connection.as_str(), own.clone())) {
                Some(other) => {
                    let message = format!(
                        "\"{}\" and \"{other}\" would hear and say the same on \"{}\"",
                        device.id, spot.connection
                    );
                    let hint = "put it on a line of its own, or give it the parameter that tells it apart (an address, a channel)";
                    self.complaints.add(node.place_of(&["connection"]), message, hint);
                }
                None => drop(seen.insert((&spot.connection, own), device.id.as_str())),
            }
        }
    }

    /// Two connections on one wire: for a serial port an error, for a TCP server doubtful.
    pub(super) fn owners(&mut self, connections: &Connections) {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for connection in connections.values().flatten() {
            let end = connection.wire.place();
            let is_serial = connection.wire.line().is_some() || matches!(connection.wire, Wire::Ble { .. });
            // Many devices may be reached by one protocol, and what is one place is known to its mapper alone.
            if matches!(connection.wire, Wire::External(_)) {
                continue;
            }
            let Some(other) = seen.insert(end, &connection.name) else { continue };
            let place = self.tree.place_of(&["connections", &connection.name]);
            let message = format!("\"{}\" and \"{other}\" both lead to {end}", connection.name);
            let hint = "a wire has one owner: put the devices on one connection";
            if is_serial { self.complaints.add(place, message, hint) } else { self.warnings.add(place, message, hint) }
        }
    }

    /// The listeners, with complaints about those that cannot be opened together.
    pub(super) fn listeners(&mut self) -> Vec<Listener> {
        let broker = self.tree.get("broker");
        let Some(list) = broker.and_then(|broker| broker.get("listeners")) else { return vec![default_listener()] };
        let without = |node: &Node| match &node.data {
            Data::Map(entries) => entries.iter().filter(|entry| entry.key != "listeners").cloned().collect(),
            _ => Vec::new(),
        };
        let data = Data::Map(broker.map(without).unwrap_or_default());
        let rest = Node { place: list.place.clone(), data };
        let raw: RawBroker = serde_json::from_value(rest.to_json()).unwrap_or_default();
        let mut listeners: Vec<Listener> = Vec::new();
        let mut names: HashSet<&str> = HashSet::new();
        for node in list.items() {
            // A listener whose address cannot be used has a name all the same, and the other way round.
            let name = node.get("name").and_then(Node::text);
            if let Some(name) = name
                && !names.insert(name)
            {
                let message = format!("a second listener \"{name}\"");
                self.complaints.add(node.place_of(&["name"]), message, "give it another name");
            }
            let Some(listener) = self.listener(node) else { continue };
            for other in listeners.iter().filter(|other| clash(other.bind, listener.bind)) {
                let message = format!("{} is taken by the listener \"{}\"", listener.bind, other.name);
                self.complaints.add(node.place_of(&["bind"]), message, "take another port");
            }
            self.warn_of_open_doors(&listener, &raw, node.place_of(&["bind"]));
            listeners.push(listener);
        }
        if let Some(web) = self.tree.find(&["web", "bind"])
            && let Some(bind) = web.text().and_then(|bind| self.address(bind, &web.place))
            && let Some(other) = listeners.iter().find(|other| clash(other.bind, bind))
        {
            self.complaints.add(
                &web.place,
                format!("{bind} is taken by the listener \"{}\"", other.name),
                "take another port",
            );
        }
        listeners
    }

    fn listener(&mut self, node: &Node) -> Option<Listener> {
        let bind = node.get("bind")?;
        let bind = self.address(bind.text()?, &bind.place)?;
        let text = |path: &[&str]| node.find(path).and_then(Node::text).map(str::to_owned);
        let tls = node.get("tls").map(|_| Tls {
            cert: text(&["tls", "cert"]).unwrap_or_default(),
            key: text(&["tls", "key"]).unwrap_or_default(),
            client_ca: text(&["tls", "client_ca"]),
        });
        let websocket = matches!(node.get("websocket").map(|node| &node.data), Some(Data::Bool(true)));
        Some(Listener { name: text(&["name"]).unwrap_or_default(), bind, tls, websocket })
    }

    /// What may stand in the file and does nothing yet; nobody shall wait for it.
    pub(super) fn warn_of_what_is_not_served(&mut self) {
        let tree = self.tree;
        if let Some(web) = tree.entry("web") {
            let message = "this version does not serve the web page yet";
            self.warnings.add(&web.key_place, message, "it is checked and left alone; nothing listens there");
        }
    }

    /// An address the schema has let through and that may be none all the same, such as `999.0.0.1:1`.
    fn address(&mut self, text: &str, place: &Place) -> Option<SocketAddr> {
        let address = text.parse();
        if address.is_err() && text.contains(':') && !text.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
            let message = format!("\"{text}\" is no address");
            self.complaints.add(place, message, "write four numbers up to 255 and a port up to 65535: 127.0.0.1:1883");
        }
        address.ok()
    }

    fn warn_of_open_doors(&mut self, listener: &Listener, broker: &RawBroker, place: &Place) {
        if listener.bind.ip().is_loopback() {
            return;
        }
        let Listener { name, bind, tls, .. } = listener;
        let has_users = broker.users.is_some();
        let (message, hint) = match (anonymous(broker.anonymous), has_users, tls) {
            (Anonymous::Always, ..) => (
                format!("anybody who reaches {bind} may read and set everything"),
                "write anonymous: local-only and name a users file",
            ),
            (_, false, _) => (
                format!("\"{name}\" serves nobody but this machine: there are no users"),
                "name a users file (broker: {users: users.yaml}) and add one with tidegate user add",
            ),
            (_, true, None) => {
                (format!("passwords for {bind} travel in the clear"), "write tls: {cert: …, key: …} for this listener")
            }
            (_, true, Some(_)) => return,
        };
        self.warnings.add(place, message, hint);
    }
}

/// Whether two sockets cannot be opened both. Port 0 takes a free one.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same_host = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_host
}
