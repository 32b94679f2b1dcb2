//! The other end of the wire: a device's tables, and what it answers.
//!
//! In: requests, and whoever plays the device setting values. Out: responses or exceptions. Must never answer for an
//! address that was not declared, and never apply half of a write.

use std::collections::BTreeMap;
use std::fmt;

use super::Table;
use super::pdu::{Exception, PDU_BYTES, Request, Response};

/// Looks at a register or coil (0 or 1) that a client writes: gives back what the device makes of it, or refuses.
pub type Rule = Box<dyn Fn(u16) -> Result<u16, Exception> + Send + Sync>;

/// One device's tables. An address exists once it was set.
#[derive(Default)]
pub struct Bank {
    coils: BTreeMap<u16, u16>,
    discretes: BTreeMap<u16, u16>,
    inputs: BTreeMap<u16, u16>,
    holdings: BTreeMap<u16, u16>,
    objects: BTreeMap<u8, Vec<u8>>,
    rules: BTreeMap<(Table, u16), Rule>,
    mirrors: BTreeMap<(Table, u16), (Table, u16)>,
    broken: BTreeMap<(Table, u16), Exception>,
    next: Vec<Exception>,
}

impl fmt::Debug for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bank")
            .field("coils", &self.coils)
            .field("discretes", &self.discretes)
            .field("inputs", &self.inputs)
            .field("holdings", &self.holdings)
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

impl Bank {
    /// Sets a register, or a bit to 0 or 1, and with that declares its address. Rules for writes do not apply.
    pub fn set(&mut self, table: Table, address: u16, value: u16) {
        if let Some(items) = self.table_mut(table) {
            items.insert(address, if table.is_bits() { u16::from(value != 0) } else { value });
        }
    }

    /// Sets items one after the other; what would lie beyond 65535 is left out.
    pub fn set_all(&mut self, table: Table, first: u16, values: &[u16]) {
        for (address, value) in (first..=u16::MAX).zip(values) {
            self.set(table, address, *value);
        }
    }

    /// Declares `first..=last` with 0 where nothing is set yet.
    pub fn declare(&mut self, table: Table, first: u16, last: u16) {
        if let Some(items) = self.table_mut(table) {
            for address in first..=last {
                items.entry(address).or_insert(0);
            }
        }
    }

    /// What is at an address, if it was declared.
    pub fn get(&self, table: Table, address: u16) -> Option<u16> {
        self.table(table)?.get(&address).copied()
    }

    /// The addresses that exist, from the lowest.
    pub fn addresses(&self, table: Table) -> impl Iterator<Item = u16> + '_ {
        self.table(table).into_iter().flat_map(|items| items.keys().copied())
    }

    /// Sets an identification object (function 43/14): 0 vendor, 1 product code, 2 revision and so on.
    pub fn identify(&mut self, object: u8, text: &str) {
        // An object has to fit into one answer beside its header.
        let text: String = text.chars().filter(char::is_ascii).take(OBJECT_BYTES).collect();
        self.objects.insert(object, text.into_bytes());
    }

    /// Sends every write to this address through `rule`.
    pub fn rule(
        &mut self,
        table: Table,
        address: u16,
        rule: impl Fn(u16) -> Result<u16, Exception> + Send + Sync + 'static,
    ) {
        self.rules.insert((table, address), Box::new(rule));
    }

    /// Holds what is written here between `least` and `most`.
    pub fn clamp(&mut self, table: Table, address: u16, least: u16, most: u16) {
        self.rule(table, address, move |value| Ok(value.max(least).min(most)));
    }

    /// Copies what is written `from` here also `to` there, for devices that read and write in different places.
    pub fn mirror(&mut self, from: (Table, u16), to: (Table, u16)) {
        self.mirrors.insert(from, to);
    }

    /// Answers every access that touches this address with an exception.
    pub fn break_at(&mut self, table: Table, address: u16, exception: Exception) {
        self.broken.insert((table, address), exception);
    }

    /// Lets the device work there again.
    pub fn mend(&mut self, table: Table, address: u16) {
        self.broken.remove(&(table, address));
    }

    /// Answers the next `times` requests with an exception, busy (6) for example.
    pub fn refuse_next(&mut self, exception: Exception, times: usize) {
        self.next.extend(std::iter::repeat_n(exception, times));
    }

    /// Answers a request as the device would.
    ///
    /// # Errors
    /// The exception it refuses with: 1 unknown function, 2 undeclared address, 3 bad count, or what a rule says.
    pub fn answer(&mut self, request: &Request) -> Result<Response, Exception> {
        if let Some(exception) = self.next.pop() {
            return Err(exception);
        }
        if let Request::Other { .. } = request {
            return Err(Exception::FUNCTION);
        }
        request.check().map_err(super::pdu::RequestError::exception)?;
        match request {
            Request::Read { table, address, count } => {
                let items = self.read(*table, *address, *count)?;
                Ok(match table.is_bits() {
                    true => Response::Bits(items.into_iter().map(|item| item != 0).collect()),
                    false => Response::Registers(items),
                })
            }
            Request::WriteCoil { address, on } => self.write(Table::Coil, *address, &[u16::from(*on)]),
            Request::WriteRegister { address, value } => self.write(Table::Holding, *address, &[*value]),
            Request::WriteCoils { address, bits } => {
                let items: Vec<u16> = bits.iter().map(|bit| u16::from(*bit)).collect();
                self.write(Table::Coil, *address, &items)
            }
            Request::WriteRegisters { address, values } => self.write(Table::Holding, *address, values),
            Request::MaskWrite { address, and, or } => {
                let current = *self.read(Table::Holding, *address, 1)?.first().ok_or(Exception::ADDRESS)?;
                self.write(Table::Holding, *address, &[(current & and) | (or & !and)])
            }
            Request::ReadWrite { read_address, read_count, write_address, values } => {
                self.read(Table::Holding, *read_address, *read_count)?;
                self.write(Table::Holding, *write_address, values)?;
                self.read(Table::Holding, *read_address, *read_count).map(Response::Registers)
            }
            Request::DeviceId { code, object } => self.identification(*code, *object),
            Request::Other { .. } => Err(Exception::FUNCTION),
        }
    }

    fn table(&self, table: Table) -> Option<&BTreeMap<u16, u16>> {
        match table {
            Table::Coil => Some(&self.coils),
            Table::Discrete => Some(&self.discretes),
            Table::Input => Some(&self.inputs),
            Table::Holding => Some(&self.holdings),
            Table::DeviceId => None,
        }
    }

    fn table_mut(&mut self, table: Table) -> Option<&mut BTreeMap<u16, u16>> {
        match table {
            Table::Coil => Some(&mut self.coils),
            Table::Discrete => Some(&mut self.discretes),
            Table::Input => Some(&mut self.inputs),
            Table::Holding => Some(&mut self.holdings),
            Table::DeviceId => None,
        }
    }

    /// The last address of a span that [`Request::check`] let through.
    fn check(&self, table: Table, first: u16, count: usize) -> Result<u16, Exception> {
        let last = usize::from(first) + count - 1;
        let last = u16::try_from(last).map_err(|_| Exception::ADDRESS)?;
        match self.broken.range((table, first)..=(table, last)).next() {
            Some((_, exception)) => Err(*exception),
            None => Ok(last),
        }
    }

    fn read(&self, table: Table, first: u16, count: u16) -> Result<Vec<u16>, Exception> {
        let last = self.check(table, first, usize::from(count))?;
        let items = self.table(table).ok_or(Exception::FUNCTION)?;
        let items: Vec<u16> = items.range(first..=last).map(|(_, item)| *item).collect();
        if items.len() == usize::from(count) { Ok(items) } else { Err(Exception::ADDRESS) }
    }

    fn write(&mut self, table: Table, first: u16, values: &[u16]) -> Result<Response, Exception> {
        let last = self.check(table, first, values.len())?;
        let declared = self.table(table).ok_or(Exception::FUNCTION)?.range(first..=last).count();
        if declared != values.len() {
            return Err(Exception::ADDRESS);
        }
        let settled = (first..=last)
            .zip(values)
            .map(|(address, value)| match self.rules.get(&(table, address)) {
                Some(rule) => rule(*value),
                None => Ok(*value),
            })
            .collect::<Result<Vec<u16>, Exception>>()?;
        for (address, value) in (first..=last).zip(settled) {
            self.set(table, address, value);
            if let Some((table, address)) = self.mirrors.get(&(table, address)).copied() {
                self.set(table, address, value);
            }
        }
        Ok(Response::Written)
    }

    /// Section 6.21: codes 1 to 3 stream objects from `object` on, code 4 gives that one alone.
    fn identification(&self, code: u8, object: u8) -> Result<Response, Exception> {
        if self.objects.is_empty() {
            return Err(Exception::FUNCTION);
        }
        let highest = self.objects.keys().next_back().copied().unwrap_or(0);
        let conformity = 0x80
            | if highest >= 0x80 {
                3
            } else if highest > 2 {
                2
            } else {
                1
            };
        if code == 4 {
            let bytes = self.objects.get(&object).ok_or(Exception::ADDRESS)?.clone();
            return Ok(Response::DeviceId { conformity, next: None, objects: vec![(object, bytes)] });
        }
        let last = match code {
            1 => 0x02,
            2 => 0x7F,
            _ => 0xFF,
        };
        // An unknown object starts the stream over, as the specification asks for.
        let first = if object <= last && self.objects.contains_key(&object) { object } else { 0 };
        let mut room = OBJECTS_BYTES;
        let mut objects = Vec::new();
        let mut next = None;
        for (id, bytes) in self.objects.range(first..=last) {
            match room.checked_sub(bytes.len() + 2) {
                Some(left) => room = left,
                None => {
                    next = Some(*id);
                    break;
                }
            }
            objects.push((*id, bytes.clone()));
        }
        Ok(Response::DeviceId { conformity, next, objects })
    }
}

/// Bytes left for objects behind the seven of an identification answer's header.
const OBJECTS_BYTES: usize = PDU_BYTES - 7;
/// The longest object.
const OBJECT_BYTES: usize = OBJECTS_BYTES - 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn bank() -> Bank {
        let mut bank = Bank::default();
        bank.set_all(Table::Holding, 0, &[10, 11, 12, 0x12]);
        bank.set_all(Table::Input, 100, &[7, 8]);
        bank.set_all(Table::Coil, 0, &[1, 0, 1]);
        bank.set_all(Table::Discrete, 5, &[1]);
        bank
    }

    #[test]
    fn only_declared_addresses_answer() {
        let read = |table, address, count| Request::Read { table, address, count };
        for (request, expected) in [
            (read(Table::Holding, 0, 4), Ok(Response::Registers(vec![10, 11, 12, 0x12]))),
            (read(Table::Holding, 3, 2), Err(Exception(2))),
            (read(Table::Holding, 0, 0), Err(Exception(3))),
            (read(Table::Holding, 0, 126), Err(Exception(3))),
            (read(Table::Holding, 65535, 2), Err(Exception(2))),
            (read(Table::Input, 100, 2), Ok(Response::Registers(vec![7, 8]))),
            (read(Table::Coil, 0, 3), Ok(Response::Bits(vec![true, false, true]))),
            (read(Table::Discrete, 5, 1), Ok(Response::Bits(vec![true]))),
            (read(Table::Discrete, 4, 2), Err(Exception(2))),
            (Request::WriteRegister { address: 4, value: 1 }, Err(Exception(2))),
            (Request::DeviceId { code: 1, object: 0 }, Err(Exception(1))),
            (Request::Other { function: 7, data: vec![] }, Err(Exception(1))),
        ] {
            assert_eq!(bank().answer(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn a_refused_write_changes_nothing() {
        let mut bank = bank();
        bank.rule(Table::Holding, 2, |_| Err(Exception(4)));
        let request = Request::WriteRegisters { address: 0, values: vec![1, 2, 3] };
        assert_eq!(bank.answer(&request), Err(Exception(4)));
        assert_eq!(bank.get(Table::Holding, 0), Some(10));
        let request = Request::WriteRegisters { address: 3, values: vec![1, 2] };
        assert_eq!(bank.answer(&request), Err(Exception(2)));
        assert_eq!(bank.get(Table::Holding, 3), Some(0x12));
    }

    #[test]
    fn writes_are_clamped_mirrored_and_masked() {
        let mut bank = bank();
        bank.clamp(Table::Holding, 0, 5, 100);
        bank.mirror((Table::Holding, 1), (Table::Input, 100));
        bank.answer(&Request::WriteRegister { address: 0, value: 120 }).unwrap();
        bank.answer(&Request::WriteRegister { address: 1, value: 99 }).unwrap();
        // V1.1b3, section 6.16: 0x12 with AND 0xF2 and OR 0x25 becomes 0x17.
        bank.answer(&Request::MaskWrite { address: 3, and: 0xF2, or: 0x25 }).unwrap();
        let request = Request::ReadWrite { read_address: 0, read_count: 4, write_address: 2, values: vec![77] };
        assert_eq!(bank.answer(&request), Ok(Response::Registers(vec![100, 99, 77, 0x17])));
        assert_eq!(bank.get(Table::Input, 100), Some(99));
    }

    #[test]
    fn a_device_can_be_busy_and_broken_in_one_register() {
        let mut bank = bank();
        bank.refuse_next(Exception(6), 2);
        let read = Request::Read { table: Table::Holding, address: 0, count: 2 };
        assert_eq!(bank.answer(&read), Err(Exception(6)));
        assert_eq!(bank.answer(&read), Err(Exception(6)));
        assert!(bank.answer(&read).is_ok());
        bank.break_at(Table::Holding, 1, Exception(2));
        assert_eq!(bank.answer(&read), Err(Exception(2)));
        assert!(bank.answer(&Request::Read { table: Table::Holding, address: 2, count: 2 }).is_ok());
        bank.mend(Table::Holding, 1);
        assert!(bank.answer(&read).is_ok());
    }

    #[test]
    fn identification_streams_in_pieces_that_fit() {
        let mut bank = bank();
        let long = "x".repeat(200);
        for (id, text) in [(0, "Acme"), (1, "M1"), (2, "1.0"), (3, long.as_str()), (4, long.as_str()), (0x80, "own")] {
            bank.identify(id, text);
        }
        let ids = |bank: &mut Bank, code, object| match bank.answer(&Request::DeviceId { code, object }) {
            Ok(Response::DeviceId { next, objects, conformity: 0x83 }) => {
                (objects.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), next)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(ids(&mut bank, 1, 0), (vec![0, 1, 2], None));
        assert_eq!(ids(&mut bank, 2, 0), (vec![0, 1, 2, 3], Some(4)));
        assert_eq!(ids(&mut bank, 2, 4), (vec![4], None));
        assert_eq!(ids(&mut bank, 3, 4), (vec![4, 0x80], None));
        assert_eq!(ids(&mut bank, 1, 9), (vec![0, 1, 2], None));
        assert_eq!(ids(&mut bank, 4, 3), (vec![3], None));
        assert_eq!(bank.answer(&Request::DeviceId { code: 4, object: 9 }), Err(Exception(2)));
        let request = Request::DeviceId { code: 2, object: 0 };
        let answer = bank.answer(&request).unwrap();
        assert!(answer.encode(&request).len() <= PDU_BYTES);
    }
}
