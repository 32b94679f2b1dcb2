//! Which function a write uses.
//!
//! In: what lies on the wire for a desired value. Out: the request. Must never write more than the value owns.

use thiserror::Error;

use super::WriteWire;
use crate::modbus::Visitor;
use crate::modbus::pdu::Request;

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Other bits share the register, the profile does not let function 22 write them, and the register is not known.
    #[error("the register has to be read before some of its bits can be written")]
    NotRead,
    /// The function of the profile cannot carry the value.
    #[error("function {0} cannot write this value")]
    Function(u8),
}

/// Gives the request that writes a value: function 5 for one coil, 15 for several, 6 for one register, 16 for several, 22
/// for bits of a register — unless the profile's `write_function` says otherwise. Bits that are to be written with 6 or 16
/// need the register's `current` content.
///
/// # Errors
/// [`RequestError`].
pub fn write_request(visitor: &Visitor, wire: &WriteWire, current: Option<u16>) -> Result<Request, RequestError> {
    let address = visitor.write_address.unwrap_or(visitor.address);
    let wrong = |function| Err(RequestError::Function(function));
    Ok(match (wire, visitor.write_function) {
        (WriteWire::Coils(bits), function) => match (bits.as_slice(), function) {
            ([on], None | Some(5)) => Request::WriteCoil { address, on: *on },
            (_, None | Some(15)) => Request::WriteCoils { address, bits: bits.clone() },
            (_, Some(function)) => return wrong(function),
        },
        (WriteWire::Registers(values), function) => match (values.as_slice(), function) {
            ([value], None | Some(6)) => Request::WriteRegister { address, value: *value },
            ([value], Some(22)) => Request::MaskWrite { address, and: 0, or: *value },
            (_, None | Some(16)) => Request::WriteRegisters { address, values: values.clone() },
            (_, Some(function)) => return wrong(function),
        },
        (WriteWire::Field { mask, value }, None | Some(22)) => Request::MaskWrite { address, and: !mask, or: *value },
        (WriteWire::Field { mask, value }, Some(function)) => {
            let value = (current.ok_or(RequestError::NotRead)? & !mask) | (value & mask);
            match function {
                6 => Request::WriteRegister { address, value },
                16 => Request::WriteRegisters { address, values: vec![value] },
                _ => return wrong(function),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{DataType, Layout};
    use crate::modbus::Table;

    #[test]
    fn the_function_follows_the_value_unless_the_profile_decides() {
        let coils = |bits: &[bool]| WriteWire::Coils(bits.to_vec());
        let registers = |values: &[u16]| WriteWire::Registers(values.to_vec());
        let field = WriteWire::Field { mask: 0x000C, value: 0x0008 };
        let address = 7;
        for (wire, function, expected) in [
            (coils(&[true]), None, Ok(Request::WriteCoil { address, on: true })),
            (coils(&[true]), Some(15), Ok(Request::WriteCoils { address, bits: vec![true] })),
            (coils(&[true, false]), None, Ok(Request::WriteCoils { address, bits: vec![true, false] })),
            (coils(&[true]), Some(6), Err(RequestError::Function(6))),
            (registers(&[5]), None, Ok(Request::WriteRegister { address, value: 5 })),
            (registers(&[5]), Some(16), Ok(Request::WriteRegisters { address, values: vec![5] })),
            (registers(&[5, 6]), None, Ok(Request::WriteRegisters { address, values: vec![5, 6] })),
            (registers(&[5, 6]), Some(6), Err(RequestError::Function(6))),
            (field.clone(), None, Ok(Request::MaskWrite { address, and: 0xFFF3, or: 0x0008 })),
            (field.clone(), Some(6), Ok(Request::WriteRegister { address, value: 0x12F8 | 0x0003 })),
        ] {
            let layout = Layout::new(DataType::Uint16);
            let visitor =
                Visitor { table: Table::Holding, address, layout, write_address: None, write_function: function };
            assert_eq!(write_request(&visitor, &wire, Some(0x12F7)), expected, "{wire:?} {function:?}");
            assert!(
                function != Some(6)
                    || wire != field
                    || write_request(&visitor, &wire, None) == Err(RequestError::NotRead)
            );
        }
    }
}
