//! What a device holds in a golden test: the tables of its input.
//!
//! In: `input: {modbus: {input: {"0x0000": [0x4366, 0x3333]}}}`. Out: the registers or bits a visitor asks for — if all of
//! them are there. Must never make up a register.

use std::collections::BTreeMap;

use super::{Property, text};
use crate::modbus::{Table, Visitor};
use crate::value::{Quality, Value};

/// Registers and bits by table and protocol address, and identification objects.
#[derive(Debug, Default)]
pub(super) struct Memory {
    words: BTreeMap<(Table, u16), u16>,
    objects: BTreeMap<u16, String>,
}

impl Memory {
    /// Reads a test's input. Addresses are those of the protocol, whatever `modbus.base` says.
    pub(super) fn of_test(input: &Value) -> Result<Self, String> {
        let mut memory = Self::default();
        for (word, blocks) in input.get("modbus").and_then(Value::as_object).into_iter().flatten() {
            let table = match word.as_str() {
                "input" => Table::Input,
                "holding" => Table::Holding,
                "coil" => Table::Coil,
                "discrete" => Table::Discrete,
                "device_id" => Table::DeviceId,
                _ => return Err(format!("there is no table \"{word}\"")),
            };
            let blocks = blocks.as_object().ok_or_else(|| format!("\"{word}\" is no map of addresses"))?;
            for (start, block) in blocks {
                memory.block(table, start, block)?;
            }
        }
        Ok(memory)
    }

    fn block(&mut self, table: Table, start: &str, block: &Value) -> Result<(), String> {
        let address = text::address(&Value::String(start.to_owned())).or_else(|| start.parse().ok());
        let first = address
            .and_then(|address| u16::try_from(address).ok())
            .ok_or_else(|| format!("\"{start}\" is no address"))?;
        if table == Table::DeviceId {
            let text = block.as_str().ok_or_else(|| format!("object {start} is no text"))?;
            self.objects.insert(first, text.to_owned());
            return Ok(());
        }
        let items = block.as_array().ok_or_else(|| format!("\"{start}\" is no list"))?;
        for (offset, item) in items.iter().enumerate() {
            let address = u16::try_from(offset).ok().and_then(|offset| first.checked_add(offset));
            let address = address.ok_or_else(|| format!("the list at \"{start}\" is too long"))?;
            let limit = if matches!(table, Table::Coil | Table::Discrete) { 1 } else { 0xFFFF };
            let word = match item {
                Value::Bool(on) => Some(u64::from(*on)),
                other => text::address(other),
            };
            let word = word.filter(|word| *word <= limit).and_then(|word| u16::try_from(word).ok());
            let word = word.ok_or_else(|| format!("{item} at \"{start}\" is not from 0 to {limit}"))?;
            self.words.insert((table, address), word);
        }
        Ok(())
    }

    /// A holding register, if the input holds it.
    pub(super) fn holding(&self, address: u16) -> Option<u16> {
        self.words.get(&(Table::Holding, address)).copied()
    }

    /// What a property reads; nothing when the input does not hold all of it.
    pub(super) fn reading(&self, property: &Property, visitor: &Visitor) -> Option<(Value, Quality)> {
        if visitor.table == Table::DeviceId {
            return self.objects.get(&visitor.address).map(|text| property.from_text(text));
        }
        let words: Option<Vec<u16>> = (0..visitor.layout.registers())
            .map(|offset| self.words.get(&(visitor.table, visitor.address.checked_add(offset)?)).copied())
            .collect();
        let words = words?;
        Some(match visitor.table {
            Table::Coil | Table::Discrete => {
                let bits: Vec<bool> = words.iter().map(|word| *word != 0).collect();
                property.from_bits(&bits)
            }
            _ => property.from_registers(&words),
        })
    }
}
