//! One simulated device: a profile, its tables, and what moves in them.
//!
//! In: requests and the time. Out: answers. Must never touch what a client has written.

use std::fmt;
use std::sync::Arc;

use protocols::codec::{self, DataType, Layout, Raw};
use protocols::modbus::pdu::{Exception, Request, Response};
use protocols::modbus::server::Bank;
use protocols::modbus::{Table, Visitor};
use protocols::profile::{Kind, Profile, Property, WriteWire};
use protocols::value::{Quality, Value, from_f64};

use super::fault::Dice;
use super::shape::Shape;

/// Values move in steps of this many milliseconds, so that requests of one sweep see one state.
const STEP_MS: u64 = 200;
/// Holes between declared addresses up to this many read as 0, as most devices have it; a longer one is refused.
const HOLE: u16 = 32;
/// 2026-01-01T00:00:00Z, the time on a simulated device's calendar when it starts.
const CALENDAR_S: u64 = 1_767_225_600;

pub(super) struct Unit {
    profile: Arc<Profile>,
    bank: Bank,
    /// One for each property; `None` where nothing moves by itself.
    shapes: Vec<Option<Shape>>,
    seed: u64,
    step: Option<u64>,
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit").field("profile", &self.profile.label()).finish_non_exhaustive()
    }
}

impl Unit {
    pub(super) fn new(profile: Arc<Profile>, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let shapes: Vec<_> = profile
            .properties
            .iter()
            .map(|property| property.source.modbus().map(|_| Shape::of(property, &mut dice)))
            .collect();
        let mut unit = Self { bank: Bank::default(), shapes, seed, step: None, profile: profile.clone() };
        for property in &profile.properties {
            unit.declare(property);
        }
        if let Some(probe) = &profile.probe {
            unit.declare_span(&probe.visitor);
        }
        unit.fill_holes();
        for (index, property) in profile.properties.iter().enumerate() {
            unit.set(index, property, 0);
        }
        // What holds is set for good; a client may write it.
        for shape in &mut unit.shapes {
            *shape = shape.filter(|shape| !matches!(shape, Shape::Hold(_)));
        }
        unit
    }

    pub(super) fn bank(&mut self) -> &mut Bank {
        &mut self.bank
    }

    pub(super) fn answer(&mut self, request: &Request, tick: u64) -> Result<Response, Exception> {
        self.advance(tick);
        self.bank.answer(request)
    }

    /// Gives a property a value that does not move any more.
    pub(super) fn hold(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let profile = self.profile.clone();
        let index = profile.find(name).ok_or_else(|| format!("there is no property {name}"))?;
        let property = profile.properties.get(index).ok_or("there is no such property")?;
        let visitor = property.source.modbus().ok_or("is not read from the device")?;
        let raw = match property.to_write(value) {
            Ok(WriteWire::Registers(words)) => {
                self.bank.set_all(visitor.table, visitor.address, &words);
                None
            }
            Ok(WriteWire::Coils(bits)) => {
                let bits: Vec<u16> = bits.into_iter().map(u16::from).collect();
                self.bank.set_all(visitor.table, visitor.address, &bits);
                None
            }
            // Part of a register, or a table that clients cannot write.
            Ok(WriteWire::Field { .. }) | Err(_) => Some(raw_of(property, value)?),
        };
        if let Some(raw) = raw {
            self.put(visitor, &raw).ok_or_else(|| format!("cannot hold {value}"))?;
        }
        if let Some(shape) = self.shapes.get_mut(index) {
            *shape = None;
        }
        Ok(())
    }

    pub(super) fn value(&mut self, name: &str, tick: u64) -> Option<Value> {
        self.advance(tick);
        let property = self.profile.properties.get(self.profile.find(name)?)?;
        let visitor = property.source.modbus()?;
        Some(self.read(property, visitor)?.0)
    }

    /// Moves what moves to the time `tick`.
    fn advance(&mut self, tick: u64) {
        let step = tick / STEP_MS;
        if self.step == Some(step) {
            return;
        }
        self.step = Some(step);
        let profile = self.profile.clone();
        for (index, property) in profile.properties.iter().enumerate() {
            self.set(index, property, step);
        }
    }

    fn set(&mut self, index: usize, property: &Property, step: u64) {
        let Some(shape) = self.shapes.get(index).copied().flatten() else { return };
        let Some(visitor) = property.source.modbus() else { return };
        // The same step gives the same value, whatever was asked in between.
        let mut dice = Dice::new(self.seed ^ (index as u64) << 32 ^ step);
        let number = shape.at((step * STEP_MS) as f64 / 1000.0, &mut dice);
        // A step of chance upwards where a value happens to be one that means "no value".
        for nudge in [0.0, 1.0, 7.0] {
            if let Some(raw) = raw_number(property, &visitor.layout, number + nudge)
                && self.put(visitor, &raw).is_some()
                && self.read(property, visitor).is_none_or(|(_, quality)| quality == Quality::Good)
            {
                return;
            }
        }
    }

    fn read(&self, property: &Property, visitor: &Visitor) -> Option<(Value, Quality)> {
        if visitor.table == Table::DeviceId {
            return None;
        }
        let words = (visitor.address..=u16::MAX)
            .take(usize::from(visitor.layout.registers()))
            .map(|address| self.bank.get(visitor.table, address))
            .collect::<Option<Vec<u16>>>()?;
        Some(match visitor.table.is_bits() {
            true => property.from_bits(&words.into_iter().map(|word| word != 0).collect::<Vec<_>>()),
            false => property.from_registers(&words),
        })
    }

    /// Puts a raw value into the tables, beside whatever shares its registers.
    fn put(&mut self, visitor: &Visitor, raw: &Raw) -> Option<()> {
        let (table, address) = (visitor.table, visitor.address);
        if table == Table::DeviceId {
            let Raw::Text(text) = raw else { return None };
            self.bank.identify(u8::try_from(address).ok()?, text);
            return Some(());
        }
        if table.is_bits() {
            let bits = match raw {
                Raw::List(raws) => raws.iter().map(|raw| u16::from(is_on(raw))).collect(),
                raw => vec![u16::from(is_on(raw))],
            };
            self.bank.set_all(table, address, &bits);
            return Some(());
        }
        let mut words: Vec<u16> = (address..=u16::MAX)
            .take(usize::from(visitor.layout.registers()))
            .map(|address| self.bank.get(table, address).unwrap_or_default())
            .collect();
        codec::encode_into(&visitor.layout, raw, &mut words).ok()?;
        self.bank.set_all(table, address, &words);
        Some(())
    }

    fn declare(&mut self, property: &Property) {
        let Some(visitor) = property.source.modbus() else { return };
        self.declare_span(visitor);
        let Some(elsewhere) = visitor.write_address else { return };
        let table = if visitor.table.is_bits() { Table::Coil } else { Table::Holding };
        for offset in 0..visitor.layout.registers() {
            let (Some(from), Some(to)) = (elsewhere.checked_add(offset), visitor.address.checked_add(offset)) else {
                return;
            };
            self.bank.declare(table, from, from);
            self.bank.mirror((table, from), (visitor.table, to));
        }
    }

    fn declare_span(&mut self, visitor: &Visitor) {
        let last = visitor.address.saturating_add(visitor.layout.registers().saturating_sub(1));
        self.bank.declare(visitor.table, visitor.address, last);
    }

    fn fill_holes(&mut self) {
        let limits = &self.profile.modbus.merge;
        let hole = limits.max_gap.unwrap_or(HOLE);
        for table in [Table::Coil, Table::Discrete, Table::Input, Table::Holding] {
            let declared: Vec<u16> = self.bank.addresses(table).collect();
            for (last, next) in declared.iter().zip(declared.iter().skip(1)) {
                let forbidden =
                    |at: &u16| limits.forbidden.iter().any(|(of, from, to)| *of == table && (*from..=*to).contains(at));
                if next - last <= hole + 1 {
                    for hole in (last + 1..*next).filter(|at| !forbidden(at)) {
                        self.bank.declare(table, hole, hole);
                    }
                }
            }
        }
    }
}

fn is_on(raw: &Raw) -> bool {
    matches!(raw, Raw::Bool(true)) || matches!(raw, Raw::Int(number) if *number != 0)
}

/// A number of the shape in the form the property's registers have.
fn raw_number(property: &Property, layout: &Layout, number: f64) -> Option<Raw> {
    let one = match property.kind {
        Kind::Bool | Kind::Flags => Raw::Int(0),
        Kind::Enum => Raw::Int(property.labels.keys().next().copied().unwrap_or_default().into()),
        Kind::String => Raw::Text(text_of(property, layout)),
        Kind::Bytes | Kind::Object => return None,
        Kind::Datetime => match layout.data {
            DataType::Epoch32 | DataType::IecDate => Raw::Text("2026-01-01T00:00:00Z".to_owned()),
            _ => property.scaling.invert(&Value::from(CALENDAR_S)).ok()?,
        },
        Kind::Int => clamped(layout, property.scaling.invert(&Value::from(number.round() as i64)).ok()?),
        Kind::Number | Kind::Array => clamped(layout, property.scaling.invert(&from_f64(number)).ok()?),
    };
    let bit = |raw: Raw| if layout.data == DataType::Bit { Raw::Bool(is_on(&raw)) } else { raw };
    Some(if layout.count > 1 { Raw::List(vec![bit(one); usize::from(layout.count)]) } else { bit(one) })
}

/// Holds a raw integer inside its type.
fn clamped(layout: &Layout, raw: Raw) -> Raw {
    let Some(bounds) = layout.bounds() else { return raw };
    match raw {
        Raw::Int(number) => Raw::Int(number.clamp(*bounds.start(), *bounds.end())),
        Raw::Float(number) => Raw::Int((number.round() as i128).clamp(*bounds.start(), *bounds.end())),
        raw => raw,
    }
}

/// A word that fits: what a string property of a device that is not there says.
fn text_of(property: &Property, layout: &Layout) -> String {
    let room = usize::from(layout.length) * if layout.chars == codec::Chars::Both { 2 } else { 1 };
    let text = match property.name.as_str() {
        name if name.contains("serial") => "SIM00001",
        name if name.contains("version") || name.contains("firmware") => "1.0",
        _ => "SIM",
    };
    let bounded = property.source.modbus().is_some_and(|visitor| visitor.table != Table::DeviceId);
    if bounded && layout.data == DataType::String { text.chars().take(room).collect() } else { text.to_owned() }
}

/// A value as raw, for tables that a client could not write.
fn raw_of(property: &Property, value: &Value) -> Result<Raw, String> {
    let wrong = || format!("cannot hold {value}");
    match (property.kind, value) {
        (Kind::Bool, Value::Bool(on)) => Ok(Raw::Bool(*on)),
        (Kind::Enum, Value::String(word)) => {
            let key = property.labels.iter().find(|(_, label)| *label == word).map(|(key, _)| *key);
            Ok(Raw::Int(key.ok_or_else(wrong)?.into()))
        }
        (Kind::Flags, Value::Array(words)) => {
            let on = |label: &String| words.iter().any(|word| word.as_str() == Some(label));
            let bits = property.flags.iter().filter(|(_, label)| on(label));
            Ok(Raw::Int(bits.fold(0, |number, (bit, _)| number | 1_i128 << bit)))
        }
        (Kind::String | Kind::Bytes | Kind::Datetime, Value::String(text)) => Ok(Raw::Text(text.clone())),
        _ => {
            let raw = property.scaling.invert(value).map_err(|error| error.to_string())?;
            match (property.source.modbus().and_then(|visitor| visitor.layout.bounds()), raw) {
                (Some(_), Raw::Float(number)) => Ok(Raw::Int(number.round() as i128)),
                (_, raw) => Ok(raw),
            }
        }
    }
}
