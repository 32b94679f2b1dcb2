//! The table of local topics: the contract, section 2.
//!
//! In: a topic as text. Out: which of the contract's topics it is — and the other way round. Must never let a client's
//! topic pass for one the gateway alone writes.

use std::fmt;

use crate::name::{DeviceId, PropertyName};

/// Who writes a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The gateway alone; retained unless the topic is an event or a result.
    Gateway,
    /// Anyone who is allowed.
    Anyone,
    /// The mapper of the device.
    Mapper,
}

/// One topic under the twin root. `D` is the device, `P` a property.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TwinTopic {
    /// `twin/D/reported/P`
    Reported(DeviceId, PropertyName),
    /// `twin/D/desired/P`
    Desired(DeviceId, PropertyName),
    /// `twin/D/delta`
    Delta(DeviceId),
    /// `twin/D`
    Document(DeviceId),
    /// `twin/D/status`
    Status(DeviceId),
    /// `twin/D/event`
    Event(DeviceId),
    /// `twin/D/result`
    Outcome(DeviceId),
    /// `twin/D/conflict`
    Conflict(DeviceId),
    /// `twin/D/desired/P/set`
    DesiredPropertySet(DeviceId, PropertyName),
    /// `twin/D/desired/set`
    DesiredSet(DeviceId),
    /// `twin/D/get`
    Get(DeviceId),
    /// `twin/D/reported/set`
    ReportedSet(DeviceId),
    /// `twin/D/desired/ack`
    DesiredAck(DeviceId),
    /// `twin/D/status/set`: the mapper's word on whether the device answers.
    StatusSet(DeviceId),
}

impl TwinTopic {
    /// Reads a topic below `root` (`twin`). `None` where it is none of the table's topics, which a client may not
    /// write: everything below the root belongs to the gateway.
    pub fn parse(root: &str, topic: &str) -> Option<Self> {
        let rest = topic.strip_prefix(root)?.strip_prefix('/')?;
        let mut levels = rest.split('/');
        let device: DeviceId = levels.next()?.parse().ok()?;
        let levels: [Option<&str>; 4] = [levels.next(), levels.next(), levels.next(), levels.next()];
        Some(match levels {
            [None, ..] => Self::Document(device),
            [Some("delta"), None, ..] => Self::Delta(device),
            [Some("status"), None, ..] => Self::Status(device),
            [Some("event"), None, ..] => Self::Event(device),
            [Some("result"), None, ..] => Self::Outcome(device),
            [Some("conflict"), None, ..] => Self::Conflict(device),
            [Some("get"), None, ..] => Self::Get(device),
            [Some("status"), Some("set"), None, _] => Self::StatusSet(device),
            [Some("reported"), Some("set"), None, _] => Self::ReportedSet(device),
            [Some("desired"), Some("set"), None, _] => Self::DesiredSet(device),
            [Some("desired"), Some("ack"), None, _] => Self::DesiredAck(device),
            [Some("reported"), Some(property), None, _] => Self::Reported(device, property.parse().ok()?),
            [Some("desired"), Some(property), None, _] => Self::Desired(device, property.parse().ok()?),
            [Some("desired"), Some(property), Some("set"), None] => {
                Self::DesiredPropertySet(device, property.parse().ok()?)
            }
            _ => return None,
        })
    }

    /// The device it belongs to.
    pub fn device(&self) -> &DeviceId {
        match self {
            Self::Reported(device, _)
            | Self::Desired(device, _)
            | Self::DesiredPropertySet(device, _)
            | Self::Delta(device)
            | Self::Document(device)
            | Self::Status(device)
            | Self::Event(device)
            | Self::Outcome(device)
            | Self::Conflict(device)
            | Self::DesiredSet(device)
            | Self::Get(device)
            | Self::ReportedSet(device)
            | Self::DesiredAck(device)
            | Self::StatusSet(device) => device,
        }
    }

    /// Who may publish to it.
    pub fn writer(&self) -> Writer {
        match self {
            Self::DesiredPropertySet(..) | Self::DesiredSet(_) | Self::Get(_) => Writer::Anyone,
            Self::ReportedSet(_) | Self::DesiredAck(_) | Self::StatusSet(_) => Writer::Mapper,
            _ => Writer::Gateway,
        }
    }

    /// The topic as text, below `root`.
    pub fn under(&self, root: &str) -> String {
        format!("{root}/{self}")
    }
}

/// The topic below the root.
impl fmt::Display for TwinTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported(device, property) => write!(f, "{device}/reported/{property}"),
            Self::Desired(device, property) => write!(f, "{device}/desired/{property}"),
            Self::DesiredPropertySet(device, property) => write!(f, "{device}/desired/{property}/set"),
            Self::Delta(device) => write!(f, "{device}/delta"),
            Self::Document(device) => write!(f, "{device}"),
            Self::Status(device) => write!(f, "{device}/status"),
            Self::Event(device) => write!(f, "{device}/event"),
            Self::Outcome(device) => write!(f, "{device}/result"),
            Self::Conflict(device) => write!(f, "{device}/conflict"),
            Self::DesiredSet(device) => write!(f, "{device}/desired/set"),
            Self::Get(device) => write!(f, "{device}/get"),
            Self::ReportedSet(device) => write!(f, "{device}/reported/set"),
            Self::DesiredAck(device) => write!(f, "{device}/desired/ack"),
            Self::StatusSet(device) => write!(f, "{device}/status/set"),
        }
    }
}

/// The gateway's own state, retained.
pub const GATEWAY_STATUS: &str = "gateway/status";

/// Where the owner of a connection takes requests: raw reads and writes, its plans, a scan.
pub fn connection_request(connection: &str) -> String {
    format!("gateway/connection/{connection}/request")
}

/// Where it answers when the request names no response topic.
pub fn connection_result(connection: &str) -> String {
    format!("gateway/connection/{connection}/result")
}

/// Where it keeps its health: a retained [`crate::message::WireStatus`].
pub fn connection_status(connection: &str) -> String {
    format!("gateway/connection/{connection}/status")
}

/// Where the owner of a connection keeps what has to outlive it, retained: the counters of Bluetooth devices that encrypt.
pub fn connection_memory(connection: &str) -> String {
    format!("gateway/connection/{connection}/memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_of_the_contract_reads_back_as_itself() {
        for (topic, writer) in [
            ("twin/d/reported/p", Writer::Gateway),
            ("twin/d/desired/p", Writer::Gateway),
            ("twin/d/delta", Writer::Gateway),
            ("twin/d", Writer::Gateway),
            ("twin/d/status", Writer::Gateway),
            ("twin/d/event", Writer::Gateway),
            ("twin/d/result", Writer::Gateway),
            ("twin/d/conflict", Writer::Gateway),
            ("twin/d/desired/p/set", Writer::Anyone),
            ("twin/d/desired/set", Writer::Anyone),
            ("twin/d/get", Writer::Anyone),
            ("twin/d/reported/set", Writer::Mapper),
            ("twin/d/desired/ack", Writer::Mapper),
            ("twin/d/status/set", Writer::Mapper),
        ] {
            let parsed = TwinTopic::parse("twin", topic).unwrap();
            assert_eq!(parsed.writer(), writer, "{topic}");
            assert_eq!(parsed.under("twin"), topic);
            assert_eq!(parsed.device().as_str(), "d");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_no_twin_topic() {
        for topic in
            ["twin", "twin/", "twin//get", "twins/d", "twin/d/", "twin/d/get/x", "twin/d/desired/p/set/x", "a/twin/d"]
        {
            assert_eq!(TwinTopic::parse("twin", topic), None, "{topic}");
        }
        assert!(TwinTopic::parse("site/twin", "site/twin/d/get").is_some());
    }
}
