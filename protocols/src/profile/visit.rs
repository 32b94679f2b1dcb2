//! Where a property lies in a Modbus device, from the profile's words.
//!
//! In: a `from: {modbus: …}`. Out: a [`Visitor`], or complaints that show both ways of counting. Must never let a read
//! or a write through that no device could answer.

use std::sync::Arc;

use super::build::Builder;
use super::raw::{RawChars, RawTable, RawVisit};
use super::text;
use crate::codec::{Bits, Chars, DataType, Layout, LayoutError, Order};
use crate::modbus::address::{At, explain, explain_number};
use crate::modbus::{Table, Visitor};
use crate::value::Value;
use crate::yaml::{Complaints, Data, Node};

/// The last object of the device identification.
const OBJECT_MAX: u16 = 255;

pub(super) fn table(raw: RawTable) -> Table {
    match raw {
        RawTable::Coil => Table::Coil,
        RawTable::Discrete => Table::Discrete,
        RawTable::Input => Table::Input,
        RawTable::Holding => Table::Holding,
        RawTable::DeviceId => Table::DeviceId,
    }
}

impl Builder<'_> {
    /// Makes a visitor of what stands at `path`.
    pub(super) fn visitor(&mut self, raw: &RawVisit, path: &[&str]) -> Option<Visitor> {
        let table = table(raw.table);
        let at = |key| [path, &[key]].concat();
        let address = self.based(&raw.address, table, &at("address"));
        let write_address = raw.write_address.as_ref().map(|address| self.based(address, table, &at("write_address")));
        let layout = self.layout(raw, table, path)?;
        let address = address?;
        let write_address = match write_address {
            Some(address) => Some(address?),
            None => None,
        };
        for first in [Some(address), write_address].into_iter().flatten() {
            let width = layout.registers().max(1);
            if table != Table::DeviceId && first.checked_add(width - 1).is_none() {
                let message = format!("{width} from address {first} reach beyond the last address, 65535");
                self.complain(&at("address"), message, "look for a digit too many");
            }
            if table == Table::DeviceId && first > OBJECT_MAX {
                let message = format!("there is no identification object {first}");
                self.complain(&at("address"), message, "objects count from 0 to 255");
            }
        }
        self.fits_a_read(&layout, table, path);
        let visitor = Visitor { table, address, layout, write_address, write_function: raw.write_function };
        Some(Visitor { write_function: self.write_function(&visitor), ..visitor })
    }

    /// An address as the protocol counts it, whatever the file counts from.
    fn based(&mut self, raw: &Value, table: Table, path: &[&str]) -> Option<u16> {
        let address = self.address(raw, path)?;
        let base = match table {
            Table::DeviceId => 0,
            _ => self.raw.modbus.as_ref().and_then(|modbus| modbus.base).unwrap_or(0),
        };
        let counted = address.checked_sub(base);
        if counted.is_none() {
            self.complain(
                path,
                "there is no address 0 in a file that counts from 1",
                "write base: 0, or addresses from 1",
            );
        }
        counted
    }

    /// An address as the file counts it.
    pub(super) fn address(&mut self, raw: &Value, path: &[&str]) -> Option<u16> {
        let number = text::address(raw);
        if let Some(address) = number.and_then(|number| u16::try_from(number).ok()) {
            return Some(address);
        }
        let written = raw.as_str().map_or_else(|| raw.to_string(), str::to_owned);
        let hint = match explain(&written) {
            Some(explained) => explained.sentence,
            None => "write a protocol address from 0 to 65535, such as 30 or 0x001E".to_owned(),
        };
        self.complain(path, format!("{written} is no protocol address"), hint);
        None
    }

    fn layout(&mut self, raw: &RawVisit, table: Table, path: &[&str]) -> Option<Layout> {
        let at = |key| [path, &[key]].concat();
        let usual = match table {
            Table::Coil | Table::Discrete => DataType::Bit,
            Table::Input | Table::Holding => DataType::Uint16,
            Table::DeviceId => DataType::String,
        };
        let data = raw.data.as_ref().and_then(|word| word.parse().ok()).unwrap_or(usual);
        if matches!(table, Table::Coil | Table::Discrete) && data != DataType::Bit {
            let hint = "leave type out; registers are in the tables holding and input";
            self.complain(&at("type"), format!("the table holds bits, not {data}"), hint);
            return None;
        }
        if table == Table::DeviceId && data != DataType::String {
            self.complain(&at("type"), format!("identification objects are texts, not {data}"), "leave type out");
            return None;
        }
        let mut layout = Layout::new(data);
        layout.order = self.order(raw, &at("order"))?;
        layout.bits = match &raw.bits {
            None => None,
            Some(bits) => Some(self.bits(bits, &at("bits"))?),
        };
        layout.chars = match raw.chars {
            None | Some(RawChars::Both) => Chars::Both,
            Some(RawChars::Low) => Chars::Low,
            Some(RawChars::High) => Chars::High,
        };
        layout.count = raw.count.unwrap_or(1);
        match (raw.length, data.registers()) {
            (Some(length), None) => layout.length = length,
            (None, None) if table != Table::DeviceId => {
                self.complain(
                    &at("length"),
                    format!("a {data} needs its length"),
                    "write length: how many registers it takes",
                );
                return None;
            }
            (Some(_), Some(own)) => {
                let hint = format!("leave it out: a {data} always takes {own}");
                self.complain(&at("length"), "length belongs to string and bytes", hint);
            }
            _ => {}
        }
        // A bit of a register needs to be named; without it nobody knows which of sixteen is meant.
        if data == DataType::Bit && matches!(table, Table::Input | Table::Holding) && layout.bits.is_none() {
            self.complain(&at("type"), "which bit of the register?", "write bits: 0 for the least significant one");
            return None;
        }
        if let Err(error) = layout.check() {
            let key = match error {
                LayoutError::Bits { .. } | LayoutError::NoBits(_) | LayoutError::OneBit(_) => "bits",
                LayoutError::Length(_) => "length",
                LayoutError::Count | LayoutError::TooLong { .. } => "count",
                LayoutError::Order { .. } => "order",
                LayoutError::Chars(_) => "chars",
            };
            self.complain(&at(key), error.to_string(), "");
            return None;
        }
        Some(layout)
    }

    fn order(&mut self, raw: &RawVisit, path: &[&str]) -> Option<Order> {
        let modbus = self.raw.modbus.as_ref();
        let (word, path) = match (&raw.order, modbus.and_then(|modbus| modbus.order.as_ref())) {
            (Some(own), _) => (own, path),
            (None, Some(all)) => (all, ["modbus", "order"].as_slice()),
            (None, None) => return Some(Order::ABCD),
        };
        match word.parse() {
            Ok(order) => Some(order),
            Err(error) => {
                self.complain(path, error.to_string(), "");
                None
            }
        }
    }

    fn bits(&mut self, raw: &Value, path: &[&str]) -> Option<Bits> {
        let written = raw.as_str().map_or_else(|| raw.to_string(), str::to_owned);
        match written.parse() {
            Ok(bits) => Some(bits),
            Err(error) => {
                self.complain(path, error.to_string(), "");
                None
            }
        }
    }

    fn fits_a_read(&mut self, layout: &Layout, table: Table, path: &[&str]) {
        let merge = self.raw.modbus.as_ref().and_then(|modbus| modbus.merge.as_ref());
        let (limit, what) = match table {
            Table::Coil | Table::Discrete => (merge.and_then(|merge| merge.max_bits), "max_bits"),
            Table::Input | Table::Holding => (merge.and_then(|merge| merge.max_registers), "max_registers"),
            Table::DeviceId => return,
        };
        let width = layout.registers();
        if let Some(limit) = limit.filter(|limit| *limit < width) {
            let message = format!("the value takes {width}, but merge.{what} is {limit}");
            self.complain(path, message, format!("write merge: {{{what}: {width}}} or more; a value is never split"));
        }
    }

    /// The function of a write, where the profile decides it.
    fn write_function(&self, visitor: &Visitor) -> Option<u8> {
        let single = self.raw.modbus.as_ref().and_then(|modbus| modbus.write_single).unwrap_or(true);
        match (visitor.write_function, visitor.table) {
            (Some(function), _) => Some(function),
            (None, _) if single => None,
            (None, Table::Coil | Table::Discrete) => Some(15),
            (None, _) if visitor.layout.is_partial() => None,
            (None, _) => Some(16),
        }
    }

    /// Complains where a property that can be written lies where nothing can be.
    pub(super) fn writable(&mut self, name: &str, visitor: &Visitor) {
        let path = ["properties", name, "access"];
        match visitor.table {
            Table::DeviceId => {
                self.complain(&path, "identification objects cannot be written", "write access: r");
            }
            Table::Input | Table::Discrete if visitor.write_address.is_none() => {
                let (own, other) = match visitor.table {
                    Table::Input => ("input", "holding"),
                    _ => ("discrete", "coil"),
                };
                let message = format!("\"{name}\" cannot be written: the table {own} is read only");
                self.complain(&path, message, format!("write table: {other}, or write_address for a place in {other}"));
            }
            _ => {}
        }
        let Some(function) = visitor.write_function else { return };
        let registers = visitor.layout.registers();
        let is_bit_table = matches!(visitor.table, Table::Coil | Table::Discrete);
        let hint = match function {
            5 | 15 if !is_bit_table => "functions 5 and 15 write coils; for registers write 6, 16 or 22",
            6 | 16 | 22 if is_bit_table => "functions 6, 16 and 22 write registers; for coils write 5 or 15",
            5 if visitor.layout.count > 1 => "function 5 writes one coil; write 15",
            6 if registers > 1 => "function 6 writes one register; write 16",
            22 if registers > 1 => "function 22 writes bits of one register; write 16",
            6 | 16 if visitor.layout.is_partial() => return,
            _ => return,
        };
        let at = ["properties", name, "from", "modbus", "write_function"];
        self.complain(&at, format!("function {function} cannot write this value"), hint);
    }
}

/// Looks for decimal addresses that look like register numbers of a manual (`40001`): they are taken as protocol
/// addresses, and that may not be what was meant. Files that are ours are passed over. Written in hexadecimal they are beyond doubt.
pub(super) fn doubtful_addresses(tree: &Node, is_ours: &dyn Fn(&Arc<str>) -> bool, warnings: &mut Complaints) {
    for entry in tree.get("properties").map(Node::entries).unwrap_or_default() {
        let Some(visit) = entry.value.find(&["from", "modbus"]) else { continue };
        let Some((address, word)) = visit.get("address").zip(visit.get("table").and_then(Node::text)) else { continue };
        if is_ours(&address.place.file) {
            continue;
        }
        let Data::Number { number, hex: false } = &address.data else { continue };
        let number = number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= 65_535);
        let Some(explained) = number.and_then(explain_number) else { continue };
        let Some(table) = explained.table.filter(|table| crate::modbus::address::word(*table) == word) else {
            continue;
        };
        let number = number.unwrap_or_default();
        let message = format!("{number} is taken as protocol address {number} (0x{number:04X})");
        let meant = At(table, explained.address);
        warnings.add(
            &address.place,
            message,
            format!(
                "as a register number of a manual it would be {meant}; write 0x{number:04X} if it is meant as it stands"
            ),
        );
    }
}
