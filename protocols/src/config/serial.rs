//! Connections of serial devices: a port of this machine, or one behind a socket.
//!
//! In: `{serial: {port: /dev/ttyACM0, baud: 9600}}` or `{serial: {tcp: "host:2000"}}`. Out: a [`Connection`], or
//! complaints. Must never let two things own one line.

use super::raw::RawSerialWire;
use super::read::{Connections, DEFAULT_TIMEOUT, Reader};
use super::*;
use crate::profile::{Protocol, SerialLine};
use crate::yaml::Node;

impl Reader<'_> {
    /// Makes a connection of what stands under `serial`.
    pub(super) fn serial_connection(&mut self, name: &str, raw: &RawSerialWire, node: &Node) -> Option<Connection> {
        let at = |key| node.place_of(&["serial", key]);
        let wire = match (&raw.port, &raw.tcp) {
            (Some(port), None) => {
                Wire::Serial { port: port.clone(), line: SerialLine::from_raw(&raw.line(None, None)) }
            }
            (None, Some(address)) => Wire::Tcp(address.clone()),
            (None, None) => {
                let hint = "write one of: port: /dev/…, tcp: \"host:2000\"";
                self.complaints.add(at(""), format!("\"{name}\" leads nowhere"), hint);
                return None;
            }
            (Some(_), Some(_)) => {
                let hint = "a connection is one physical wire; make a second one";
                self.complaints.add(at(""), format!("\"{name}\" leads to two places"), hint);
                return None;
            }
        };
        let port = raw.tcp.as_ref().and_then(|address| address.rsplit_once(':')).map(|(_, port)| port.parse::<u16>());
        if port.is_some_and(|port| !port.is_ok_and(|port| port > 0)) {
            self.complaints.add(at("tcp"), "the port is not from 1 to 65535", "write the port of the serial server");
        }
        if raw.tcp.is_some() && !says_nothing_of_the_line(raw) {
            let hint = "leave it out; the serial server sets the line";
            self.complaints.add(at("tcp"), "a socket has no line settings", hint);
        }
        if raw.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            self.complaints.add(at("timeout"), "no device answers in 0 time", "write a duration such as 500ms");
        }
        Some(Connection {
            name: name.to_owned(),
            protocol: Protocol::Serial,
            wire,
            timeout: raw.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0),
            delay: raw.delay.map_or(Duration::ZERO, |delay| delay.0),
            echo: raw.echo,
            in_flight: 1,
        })
    }

    /// A line of which the file says nothing is set as the first device on it is delivered.
    pub(super) fn settle_lines(&self, connections: &mut Connections, devices: &[Arc<Device>]) {
        for (name, connection) in connections.iter_mut() {
            let silent = self.tree.find(&["connections", name, "serial"]).is_some_and(|node| {
                ["baud", "data", "parity", "stop", "flow"].iter().all(|key| node.get(key).is_none())
            });
            let Some(connection) = connection.as_mut().filter(|_| silent) else { continue };
            let first = devices.iter().find(|device| device.connection == *name);
            let own = first.and_then(|device| device.profile.serial.as_ref()).map(|serial| serial.line.clone());
            if let (Some(own), Wire::Serial { line, .. }) = (own, &mut Arc::make_mut(connection).wire) {
                *line = SerialLine { rs485: line.rs485, ..own };
            }
        }
    }
}

fn says_nothing_of_the_line(raw: &RawSerialWire) -> bool {
    raw.baud.is_none() && raw.data.is_none() && raw.stop.is_none()
}
