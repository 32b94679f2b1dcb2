//! A Bluetooth controller that is not there, as far as a host needs one to listen: it scans, and hears what it is given.
//!
//! In: packets of a host (H4: a byte for the kind, then the packet), advertisements in the air. Out: packets for the host. Must
//! never claim to do what it does not: it makes no connections and sends nothing, and a host that asks for that is refused.
//!
//! Source: Core Specification, Vol 4, Part A (H4) and Part E (commands and events, by their sections).

use super::address::{AddressType, Mac};

/// A command, in H4.
const COMMAND: u8 = 0x01;
/// An event, in H4.
const EVENT: u8 = 0x04;
/// Bytes of a command before its parameters: kind, code, length.
const COMMAND_HEAD: usize = 4;
/// The longest packet of a host that is waited for, in bytes; ACL data of a connection there cannot be is passed over.
const PACKET_BYTES: usize = 1_024;

const UNKNOWN_COMMAND: u8 = 0x01;
/// Connection rejected due to limited resources.
const NO_CONNECTIONS: u8 = 0x0D;

/// What is said in the air once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who says it.
    pub address: Mac,
    /// Of which kind that address is.
    pub address_type: AddressType,
    /// The structures of the advertisement, up to 31 bytes.
    pub data: Vec<u8>,
    /// What it answers who asks for more, up to 31 bytes; nobody need ask where there is nothing.
    pub answer: Vec<u8>,
    /// How strong it is received, in dBm.
    pub rssi: i8,
}

/// A controller.
#[derive(Debug)]
pub struct Controller {
    address: Mac,
    inbox: Vec<u8>,
    scans: bool,
    asks: bool,
}

impl Controller {
    /// A controller of this address that does nothing yet.
    pub fn new(address: Mac) -> Self {
        Self { address, inbox: Vec::new(), scans: false, asks: false }
    }

    /// Whether the host listens.
    pub fn is_scanning(&self) -> bool {
        self.scans
    }

    /// Takes bytes of the host in, in any pieces, and gives the packets that answer them.
    pub fn on_host(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.inbox.extend_from_slice(bytes);
        let mut answers = Vec::new();
        while let Some(packet) = self.packet() {
            if let [COMMAND, low, high, _, parameters @ ..] = packet.as_slice() {
                answers.push(self.command(u16::from_le_bytes([*low, *high]), parameters));
            }
        }
        answers
    }

    /// The next whole packet of the host.
    fn packet(&mut self) -> Option<Vec<u8>> {
        let byte = |at: usize| self.inbox.get(at).map(|byte| usize::from(*byte));
        let length = match self.inbox.first()? {
            &COMMAND => COMMAND_HEAD + byte(3)?,
            // ACL and isochronous data count in two bytes, synchronous data in one.
            0x02 | 0x05 => 5 + byte(3)? + (byte(4)? << 8),
            0x03 => 4 + byte(3)?,
            // Nobody knows where the next packet begins.
            _ => self.inbox.len(),
        };
        if length > PACKET_BYTES {
            self.inbox.clear();
        }
        (self.inbox.len() >= length && length > 0).then(|| self.inbox.drain(..length).collect())
    }

    /// The host hears what is said, if it listens: one event, or two where it asked for more.
    pub fn hear(&self, said: &Said) -> Vec<Vec<u8>> {
        if !self.scans {
            return Vec::new();
        }
        // Undirected and not connectable: with more to say on request (2), or without (3); the answer to that (4).
        let kind = if said.answer.is_empty() { 3 } else { 2 };
        let mut events = vec![report(kind, said, &said.data)];
        if self.asks && !said.answer.is_empty() {
            events.push(report(4, said, &said.answer));
        }
        events
    }

    fn command(&mut self, code: u16, parameters: &[u8]) -> Vec<u8> {
        let first = parameters.first().copied().unwrap_or_default();
        match code {
            // Reset (7.3.2): nothing is listened for afterwards.
            0x0C03 => (self.scans, self.asks) = (false, false),
            // LE Set Scan Parameters (7.8.10): 1 asks for more.
            0x200B => self.asks = first == 1,
            // LE Set Scan Enable (7.8.11).
            0x200C => self.scans = first == 1,
            // LE Create Connection (7.8.12): answered by a status.
            0x200D => return event(0x0F, &[&[NO_CONNECTIONS, 1], code.to_le_bytes().as_slice()].concat()),
            _ => {}
        }
        let result = self.result(code).unwrap_or_else(|| vec![UNKNOWN_COMMAND]);
        event(0x0E, &[&[1], code.to_le_bytes().as_slice(), &result].concat())
    }

    /// Status and return parameters of what is done; nothing for what is not.
    fn result(&self, code: u16) -> Option<Vec<u8>> {
        let rest: Vec<u8> = match code {
            // Event masks, reset, names, classes, time limits, and the LE commands that only set something.
            0x0C01
            | 0x0C03
            | 0x0C13
            | 0x0C24
            | 0x0C63
            | 0x0C6D
            | 0x2001
            | 0x2005
            | 0x2006
            | 0x2008..=0x200C
            | 0x2010..=0x2012 => Vec::new(),
            // Read Local Version Information (7.4.1): 5.0, of nobody's make.
            0x1001 => vec![0x09, 0, 0, 0x09, 0xFF, 0xFF, 0, 0],
            0x1002 => supported_commands().to_vec(),
            // Read Local Supported Features (7.4.3): LE, and no classic Bluetooth.
            0x1003 => vec![0, 0, 0, 0, 0x60, 0, 0, 0],
            // Buffer sizes (7.4.5, 7.8.2): of data that is never sent.
            0x1005 => vec![27, 0, 0, 1, 0, 0, 0],
            0x2002 => vec![27, 0, 1],
            0x1009 => self.address.to_le().to_vec(),
            // LE Read Local Supported Features (7.8.3): none.
            0x2003 => vec![0; 8],
            // Transmit power of advertisements (7.8.6), and room in the accept list (7.8.14).
            0x2007 => vec![0],
            0x200F => vec![8],
            // LE Rand (7.8.23) is not random here: nothing is ever encrypted with it.
            0x2018 => vec![0x5A; 8],
            // LE Read Supported States (7.8.27): scanning, passively and actively.
            0x201C => vec![0x30, 0, 0, 0, 0, 0, 0, 0],
            _ => return None,
        };
        Some([vec![0], rest].concat())
    }
}

/// The commands there are, by octet and bit (6.27).
fn supported_commands() -> [u8; 64] {
    let mut octets = [0; 64];
    let bits: [(usize, u8); 10] = [
        (5, 0xC0),  // set event mask, reset
        (7, 0x02),  // write local name
        (14, 0xA8), // version, features, buffer size
        (15, 0x02), // address
        (24, 0x40), // write LE host support
        (25, 0xF7), // LE event mask, buffer size, features, address, advertising parameters, power, data
        (26, 0xCF), // answer, advertising, scan parameters, scan, accept list: size, clear
        (27, 0x83), // accept list: add, remove; random numbers
        (28, 0x08), // supported states
        (22, 0x04), // set event mask page 2
    ];
    for (octet, bit) in bits {
        if let Some(own) = octets.get_mut(octet) {
            *own |= bit;
        }
    }
    octets
}

fn event(code: u8, parameters: &[u8]) -> Vec<u8> {
    let length = u8::try_from(parameters.len()).unwrap_or(u8::MAX);
    [&[EVENT, code, length], parameters].concat()
}

/// LE Advertising Report (7.7.65.2), one at a time.
fn report(kind: u8, said: &Said, data: &[u8]) -> Vec<u8> {
    let random = u8::from(said.address_type == AddressType::Random);
    let length = u8::try_from(data.len()).unwrap_or(u8::MAX);
    let head = [&[0x02, 1, kind, random], said.address.to_le().as_slice(), &[length]].concat();
    event(0x3E, &[head.as_slice(), data, &[said.rssi.cast_unsigned()]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ble::hex;

    fn bytes(digits: &str) -> Vec<u8> {
        hex(digits.replace(' ', "").as_bytes()).unwrap()
    }

    fn said() -> Said {
        Said {
            address: "F0:F1:F2:F3:F4:F6".parse().unwrap(),
            address_type: AddressType::Random,
            data: bytes("020106 0416d2fc40"),
            answer: Vec::new(),
            rssi: -60,
        }
    }

    /// Bytes as the Core Specification draws them, Vol 4, Part E: 7.3.2, 7.4.6, 7.7.14, 7.7.65.2, 7.8.10 to 7.8.12.
    #[test]
    fn a_host_is_answered_as_the_specification_draws_it() {
        let mut controller = Controller::new("C0:00:00:00:00:01".parse().unwrap());
        for (command, expected) in [
            ("01 03 0c 00", vec!["04 0e 04 01 03 0c 00"]),
            ("01 09 10 00", vec!["04 0e 0a 01 09 10 00 01 00 00 00 00 c0"]),
            // Nobody knows this one.
            ("01 ff fc 00", vec!["04 0e 04 01 ff fc 01"]),
            // A connection is refused in the way connections are answered.
            ("01 0d 20 02 00 00", vec!["04 0f 04 0d 01 0d 20"]),
            // In pieces, and two in one.
            ("01 0b 20", vec![]),
            ("07 01 10 00 10 00 00 00 01 0c 20 02 01 00", vec!["04 0e 04 01 0b 20 00", "04 0e 04 01 0c 20 00"]),
            // Data for a connection that is not there.
            ("02 40 00 02 00 aa bb 01 03 0c 00", vec!["04 0e 04 01 03 0c 00"]),
        ] {
            let expected: Vec<Vec<u8>> = expected.into_iter().map(bytes).collect();
            assert_eq!(controller.on_host(&bytes(command)), expected, "{command}");
        }
    }

    #[test]
    fn who_listens_hears_and_who_asks_hears_more() {
        let mut controller = Controller::new(Mac::default());
        assert_eq!(controller.hear(&said()), Vec::<Vec<u8>>::new());
        controller.on_host(&bytes("01 0b 20 07 00 10 00 10 00 00 00 01 0c 20 02 01 00"));
        let report = "04 3e 14 02 01 03 01 f6 f4 f3 f2 f1 f0 08 020106 0416d2fc40 c4";
        assert_eq!(controller.hear(&said()), vec![bytes(report)]);
        let named = Said { answer: bytes("030941 42"), ..said() };
        assert_eq!(controller.hear(&named).len(), 1, "a passive scan asks nothing");
        controller.on_host(&bytes("01 0b 20 07 01 10 00 10 00 00 00"));
        let more = controller.hear(&named);
        assert_eq!(more.get(1), Some(&bytes("04 3e 10 02 01 04 01 f6 f4 f3 f2 f1 f0 04 03094142 c4")));
        controller.on_host(&bytes("01 03 0c 00"));
        assert!(!controller.is_scanning());
    }

    #[test]
    fn what_is_no_packet_does_not_fill_the_memory() {
        let mut controller = Controller::new(Mac::default());
        for _ in 0..1_000 {
            controller.on_host(&[0x02, 0, 0, 0xFF, 0xFF, 1, 2, 3]);
            controller.on_host(&[0xEE; 16]);
            assert!(controller.inbox.len() <= PACKET_BYTES);
        }
    }
}
