//! Protocol data units: what is asked and what is answered, whatever carries it.
//!
//! In: requests as values or bytes. Out: bytes or values. Must never index by a number off the wire, and never make a
//! value out of an answer that is too short.
//! Source: MODBUS Application Protocol Specification V1.1b3, sections 6 and 7.

use std::fmt;

use super::Table;

/// The longest protocol data unit, in bytes (section 4.1).
pub const PDU_BYTES: usize = 253;

/// Bits one read may ask for (section 6.1).
pub const READ_BITS: u16 = 2000;
/// Registers one read may ask for (section 6.3).
pub const READ_REGISTERS: u16 = 125;
/// Coils one write may carry (section 6.11).
pub const WRITE_BITS: u16 = 1968;
/// Registers one write may carry (section 6.12).
pub const WRITE_REGISTERS: u16 = 123;
/// Registers one write of function 23 may carry (section 6.17).
pub const READ_WRITE_REGISTERS: u16 = 121;

/// The bit that turns a function code into its refusal (section 7).
pub const REFUSED: u8 = 0x80;
/// The MEI type of device identification (section 6.21).
const MEI_DEVICE_ID: u8 = 14;
const FUNCTION_DEVICE_ID: u8 = 43;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Functions 1, 2, 3 and 4 by table; `count` bits or registers. `Table::DeviceId` is not read this way.
    Read {
        /// The table.
        table: Table,
        /// The first address.
        address: u16,
        /// How many.
        count: u16,
    },
    /// Function 5.
    WriteCoil {
        /// The address.
        address: u16,
        /// On or off.
        on: bool,
    },
    /// Function 6.
    WriteRegister {
        /// The address.
        address: u16,
        /// The value.
        value: u16,
    },
    /// Function 15.
    WriteCoils {
        /// The first address.
        address: u16,
        /// The values.
        bits: Vec<bool>,
    },
    /// Function 16.
    WriteRegisters {
        /// The first address.
        address: u16,
        /// The values.
        values: Vec<u16>,
    },
    /// Function 22: `(current & and) | (or & !and)`.
    MaskWrite {
        /// The address.
        address: u16,
        /// Bits that stay.
        and: u16,
        /// Bits that are set where `and` has none.
        or: u16,
    },
    /// Function 23: write first, then read.
    ReadWrite {
        /// The first address read.
        read_address: u16,
        /// How many are read.
        read_count: u16,
        /// The first address written.
        write_address: u16,
        /// The values written.
        values: Vec<u16>,
    },
    /// Function 43 with MEI type 14.
    DeviceId {
        /// 1 basic, 2 regular, 3 extended, 4 one object.
        code: u8,
        /// The first object wanted.
        object: u8,
    },
    /// A function this program has no words for, as bytes. It is sent as it is and never made from received bytes.
    Other {
        /// The function code.
        function: u8,
        /// What follows it.
        data: Vec<u8>,
    },
}

/// What a server answers, when it does not refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Functions 1 and 2: as many bits as were asked for.
    Bits(Vec<bool>),
    /// Functions 3, 4 and 23.
    Registers(Vec<u16>),
    /// Functions 5, 6, 15, 16 and 22: done as asked.
    Written,
    /// Function 43/14.
    DeviceId {
        /// Conformity level.
        conformity: u8,
        /// The object to go on with, if more follow.
        next: Option<u8>,
        /// Object id → bytes.
        objects: Vec<(u8, Vec<u8>)>,
    },
    /// The bytes behind the function code of an answer to [`Request::Other`].
    Other(Vec<u8>),
}

/// A server's refusal (section 7): 1 illegal function, 2 illegal data address, 3 illegal data value, 4 device failure,
/// 5 acknowledge, 6 busy, 8 parity error, 10 gateway path unavailable, 11 gateway target failed to respond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exception(pub u8);

impl Exception {
    /// The server does not know the function.
    pub const FUNCTION: Self = Self(1);
    /// There is nothing at that address.
    pub const ADDRESS: Self = Self(2);
    /// The count or value is outside its limits.
    pub const VALUE: Self = Self(3);
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "server device failure",
            5 => "acknowledge, still working",
            6 => "server device busy",
            8 => "memory parity error",
            10 => "gateway path unavailable",
            11 => "gateway target device failed to respond",
            _ => "unknown exception",
        };
        write!(f, "exception {} ({words})", self.0)
    }
}

/// A request no device could serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Fewer than one or more than the function carries.
    #[error("function {function} carries 1 to {most} values, not {count}")]
    Count {
        /// The function code.
        function: u8,
        /// What was asked for.
        count: usize,
        /// What it carries.
        most: u16,
    },
    /// The last address would lie beyond 65535.
    #[error("address {address} and {count} values reach beyond 65535")]
    Address {
        /// The first address.
        address: u16,
        /// How many.
        count: usize,
    },
    /// Device identification is read with function 43/14, codes 1 to 4.
    #[error("device identification is read with function 43/14, codes 1 to 4")]
    DeviceId,
}

impl RequestError {
    /// What a server answers to such a request.
    pub fn exception(self) -> Exception {
        match self {
            Self::Address { .. } => Exception::ADDRESS,
            Self::Count { .. } | Self::DeviceId => Exception::VALUE,
        }
    }
}

/// Why bytes are no answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The server refused.
    #[error("{0}")]
    Exception(Exception),
    /// It answers another function.
    #[error("answer has function {got}, asked was {asked}")]
    WrongFunction {
        /// The function that was asked for.
        asked: u8,
        /// The function of the answer.
        got: u8,
    },
    /// It is an answer to the same function with another address, count or value: most likely one that comes late.
    #[error("answer repeats another {0} than was asked")]
    OtherRequest(Repeated),
    /// It does not have the form of an answer.
    #[error("answer is malformed: {0}")]
    Malformed(&'static str),
}

/// What an answer to a write repeats of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// The address.
    Address,
    /// The count or the value.
    Value,
}

impl std::fmt::Display for Repeated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Address => "address",
            Self::Value => "count or value",
        })
    }
}

impl Request {
    /// The function code.
    pub fn function(&self) -> u8 {
        match self {
            Self::Read { table: Table::Coil, .. } => 1,
            Self::Read { table: Table::Discrete, .. } => 2,
            Self::Read { table: Table::Holding, .. } => 3,
            Self::Read { table: Table::Input, .. } => 4,
            Self::WriteCoil { .. } => 5,
            Self::WriteRegister { .. } => 6,
            Self::WriteCoils { .. } => 15,
            Self::WriteRegisters { .. } => 16,
            Self::MaskWrite { .. } => 22,
            Self::ReadWrite { .. } => 23,
            Self::DeviceId { .. } | Self::Read { table: Table::DeviceId, .. } => FUNCTION_DEVICE_ID,
            Self::Other { function, .. } => *function,
        }
    }

    /// Whether it changes the device.
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::DeviceId { .. })
    }

    /// Says whether its counts and addresses are inside the protocol's limits.
    ///
    /// # Errors
    /// [`RequestError`] tells which limit it breaks.
    pub fn check(&self) -> Result<(), RequestError> {
        let function = self.function();
        let count = |count: usize, most: u16| match count {
            1.. if count <= usize::from(most) => Ok(()),
            _ => Err(RequestError::Count { function, count, most }),
        };
        let span = |address: u16, count: usize| match usize::from(address) + count {
            0..=0x1_0000 => Ok(()),
            _ => Err(RequestError::Address { address, count }),
        };
        match self {
            Self::Read { table: Table::DeviceId, .. } => Err(RequestError::DeviceId),
            Self::Read { table, address, count: n } => {
                count(usize::from(*n), if table.is_bits() { READ_BITS } else { READ_REGISTERS })?;
                span(*address, usize::from(*n))
            }
            Self::WriteCoil { .. } | Self::WriteRegister { .. } | Self::MaskWrite { .. } => Ok(()),
            Self::WriteCoils { address, bits } => {
                count(bits.len(), WRITE_BITS)?;
                span(*address, bits.len())
            }
            Self::WriteRegisters { address, values } => {
                count(values.len(), WRITE_REGISTERS)?;
                span(*address, values.len())
            }
            Self::ReadWrite { read_address, read_count, write_address, values } => {
                count(usize::from(*read_count), READ_REGISTERS)?;
                count(values.len(), READ_WRITE_REGISTERS)?;
                span(*read_address, usize::from(*read_count))?;
                span(*write_address, values.len())
            }
            Self::DeviceId { code: 1..=4, .. } => Ok(()),
            Self::DeviceId { .. } => Err(RequestError::DeviceId),
            Self::Other { data, .. } => count(data.len() + 1, PDU_BYTES as u16),
        }
    }

    /// The request as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        self.encode_into(&mut out);
        out
    }

    /// Appends the request's bytes. What [`Request::check`] refuses comes out cut at the field's width.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(self.function());
        match self {
            Self::Read { table: Table::DeviceId, address, .. } => out.extend([MEI_DEVICE_ID, 4, *address as u8]),
            Self::Read { address, count, .. } => put(out, &[*address, *count]),
            Self::WriteCoil { address, on } => put(out, &[*address, if *on { 0xFF00 } else { 0 }]),
            Self::WriteRegister { address, value } => put(out, &[*address, *value]),
            Self::WriteCoils { address, bits } => {
                put(out, &[*address, bits.len() as u16]);
                out.push(bits.len().div_ceil(8) as u8);
                put_bits(out, bits);
            }
            Self::WriteRegisters { address, values } => {
                put(out, &[*address, values.len() as u16]);
                out.push((values.len() * 2) as u8);
                put(out, values);
            }
            Self::MaskWrite { address, and, or } => put(out, &[*address, *and, *or]),
            Self::ReadWrite { read_address, read_count, write_address, values } => {
                put(out, &[*read_address, *read_count, *write_address, values.len() as u16]);
                out.push((values.len() * 2) as u8);
                put(out, values);
            }
            Self::DeviceId { code, object } => out.extend([MEI_DEVICE_ID, *code, *object]),
            Self::Other { data, .. } => out.extend(data),
        }
    }

    /// Reads a request as a server does, in the order of the specification's flow charts: function, then count.
    ///
    /// # Errors
    /// The exception a server answers: 1 for a function this program does not serve, 3 for counts and lengths that
    /// do not fit, 2 for addresses beyond 65535.
    pub fn decode(pdu: &[u8]) -> Result<Self, Exception> {
        let (function, body) = pdu.split_first().ok_or(Exception::FUNCTION)?;
        let request = match (*function, body.len()) {
            (1..=4, 4) => {
                let table = match function {
                    1 => Table::Coil,
                    2 => Table::Discrete,
                    3 => Table::Holding,
                    _ => Table::Input,
                };
                Self::Read { table, address: word(body, 0)?, count: word(body, 2)? }
            }
            (5, 4) => match word(body, 2)? {
                0xFF00 => Self::WriteCoil { address: word(body, 0)?, on: true },
                0 => Self::WriteCoil { address: word(body, 0)?, on: false },
                _ => return Err(Exception::VALUE),
            },
            (6, 4) => Self::WriteRegister { address: word(body, 0)?, value: word(body, 2)? },
            (15, 6..) => {
                let (count, data) = counted(body, 2, |count| count.div_ceil(8))?;
                let bits = bits(data, count).ok_or(Exception::VALUE)?;
                Self::WriteCoils { address: word(body, 0)?, bits }
            }
            (16, 6..) => {
                let (count, data) = counted(body, 2, |count| count * 2)?;
                let values = registers(data, count).ok_or(Exception::VALUE)?;
                Self::WriteRegisters { address: word(body, 0)?, values }
            }
            (22, 6) => Self::MaskWrite { address: word(body, 0)?, and: word(body, 2)?, or: word(body, 4)? },
            (23, 10..) => {
                let (count, data) = counted(body, 6, |count| count * 2)?;
                Self::ReadWrite {
                    read_address: word(body, 0)?,
                    read_count: word(body, 2)?,
                    write_address: word(body, 4)?,
                    values: registers(data, count).ok_or(Exception::VALUE)?,
                }
            }
            (FUNCTION_DEVICE_ID, _) => match body {
                [MEI_DEVICE_ID, code, object] => Self::DeviceId { code: *code, object: *object },
                [MEI_DEVICE_ID, ..] => return Err(Exception::VALUE),
                _ => return Err(Exception::FUNCTION),
            },
            (1..=6 | 15 | 16 | 22 | 23, _) => return Err(Exception::VALUE),
            _ => return Err(Exception::FUNCTION),
        };
        request.check().map_err(RequestError::exception)?;
        Ok(request)
    }

    /// How long the answer is when the server does not refuse, in bytes of the protocol data unit; nothing where only
    /// the answer itself can tell.
    pub fn answer_bytes(&self) -> Option<usize> {
        Some(match self {
            Self::Read { table: Table::DeviceId, .. } | Self::DeviceId { .. } | Self::Other { .. } => return None,
            Self::Read { table, count, .. } if table.is_bits() => 2 + usize::from(*count).div_ceil(8),
            Self::Read { count, .. } => 2 + 2 * usize::from(*count),
            Self::ReadWrite { read_count, .. } => 2 + 2 * usize::from(*read_count),
            Self::MaskWrite { .. } => 7,
            _ => 5,
        })
    }
}

impl Response {
    /// The answer to `request` as bytes.
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        self.encode_into(request, &mut out);
        out
    }

    /// Appends the bytes of the answer to `request`.
    pub fn encode_into(&self, request: &Request, out: &mut Vec<u8>) {
        match self {
            Self::Bits(bits) => {
                out.extend([request.function(), bits.len().div_ceil(8) as u8]);
                put_bits(out, bits);
            }
            Self::Registers(values) => {
                out.extend([request.function(), (values.len() * 2) as u8]);
                put(out, values);
            }
            Self::Written => match request {
                Request::WriteCoils { address, bits } => {
                    out.push(15);
                    put(out, &[*address, bits.len() as u16]);
                }
                Request::WriteRegisters { address, values } => {
                    out.push(16);
                    put(out, &[*address, values.len() as u16]);
                }
                _ => request.encode_into(out),
            },
            Self::DeviceId { conformity, next, objects } => {
                let code = if let Request::DeviceId { code, .. } = request { *code } else { 4 };
                let more = if next.is_some() { 0xFF } else { 0 };
                out.extend([FUNCTION_DEVICE_ID, MEI_DEVICE_ID, code, *conformity, more, next.unwrap_or(0)]);
                out.push(objects.len() as u8);
                for (id, bytes) in objects {
                    out.extend([*id, bytes.len() as u8]);
                    out.extend(bytes);
                }
            }
            Self::Other(data) => {
                out.push(request.function());
                out.extend(data);
            }
        }
    }

    /// Reads the answer to `request`.
    ///
    /// # Errors
    /// [`AnswerError`]: the server refused, answered something else, or the bytes have no such form. A short answer is
    /// never filled up.
    pub fn decode(request: &Request, pdu: &[u8]) -> Result<Self, AnswerError> {
        let asked = request.function();
        let (function, body) = pdu.split_first().ok_or(AnswerError::Malformed("it is empty"))?;
        if *function == asked | REFUSED && asked < REFUSED {
            return Err(match body {
                [code] => AnswerError::Exception(Exception(*code)),
                _ => AnswerError::Malformed("an exception has one code"),
            });
        }
        if *function != asked {
            return Err(AnswerError::WrongFunction { asked, got: *function });
        }
        match request {
            Request::Read { table: Table::DeviceId, .. } | Request::DeviceId { .. } => device_id(body),
            Request::Read { table, count, .. } if table.is_bits() => {
                let data = counted_answer(body, usize::from(*count).div_ceil(8))?;
                bits(data, usize::from(*count)).map(Self::Bits).ok_or(SHORT)
            }
            Request::Read { count, .. } | Request::ReadWrite { read_count: count, .. } => {
                let data = counted_answer(body, usize::from(*count) * 2)?;
                registers(data, usize::from(*count)).map(Self::Registers).ok_or(SHORT)
            }
            Request::Other { .. } => Ok(Self::Other(body.to_vec())),
            _ => echoed(request, body),
        }
    }
}

impl Table {
    /// Whether its items are single bits.
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }
}

/// An exception as bytes: the function with its refusal bit, and the code.
pub fn refusal(function: u8, exception: Exception) -> [u8; 2] {
    [function | REFUSED, exception.0]
}

const SHORT: AnswerError = AnswerError::Malformed("it holds fewer values than were asked for");

/// Unpacks the first `count` bits, the lowest of the first byte first; nothing when there are fewer.
pub fn bits(bytes: &[u8], count: usize) -> Option<Vec<bool>> {
    let all = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    (bytes.len() * 8 >= count).then(|| all.take(count).collect())
}

fn registers(bytes: &[u8], count: usize) -> Option<Vec<u16>> {
    let (words, rest) = bytes.as_chunks::<2>();
    (rest.is_empty() && words.len() == count).then(|| words.iter().map(|word| u16::from_be_bytes(*word)).collect())
}

fn put(out: &mut Vec<u8>, words: &[u16]) {
    out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
}

fn put_bits(out: &mut Vec<u8>, bits: &[bool]) {
    out.extend(
        bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0u8, |byte, (bit, on)| byte | u8::from(*on) << bit)),
    );
}

fn word(body: &[u8], at: usize) -> Result<u16, Exception> {
    match body.get(at..at + 2) {
        Some([high, low]) => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(Exception::VALUE),
    }
}

/// The count at `at`, and the data behind the byte count, which must be what `bytes` makes of the count.
fn counted(body: &[u8], at: usize, bytes: fn(usize) -> usize) -> Result<(usize, &[u8]), Exception> {
    let count = usize::from(word(body, at)?);
    match body.get(at + 2..).and_then(|rest| rest.split_first()) {
        Some((said, data)) if usize::from(*said) == data.len() && data.len() == bytes(count) => Ok((count, data)),
        _ => Err(Exception::VALUE),
    }
}

fn counted_answer(body: &[u8], bytes: usize) -> Result<&[u8], AnswerError> {
    match body.split_first() {
        Some((said, data)) if usize::from(*said) == data.len() => match data.len() {
            there if there == bytes => Ok(data),
            there if there < bytes => Err(SHORT),
            _ => Err(AnswerError::Malformed("it holds more values than were asked for")),
        },
        _ => Err(AnswerError::Malformed("its byte count does not fit its length")),
    }
}

/// Functions 5, 6, 15, 16 and 22 repeat what they did.
fn echoed(request: &Request, body: &[u8]) -> Result<Response, AnswerError> {
    let mut expected = Vec::with_capacity(8);
    Response::Written.encode_into(request, &mut expected);
    let expected = expected.get(1..).unwrap_or_default();
    if body.len() != expected.len() {
        return Err(AnswerError::Malformed("an answer to a write has another length"));
    }
    match (body.get(..2) == expected.get(..2), body == expected) {
        (_, true) => Ok(Response::Written),
        (false, _) => Err(AnswerError::OtherRequest(Repeated::Address)),
        (true, _) => Err(AnswerError::OtherRequest(Repeated::Value)),
    }
}

fn device_id(body: &[u8]) -> Result<Response, AnswerError> {
    const SHORT_OBJECT: AnswerError = AnswerError::Malformed("an identification object is cut off");
    let [MEI_DEVICE_ID, _code, conformity, more, next, count, rest @ ..] = body else {
        return Err(AnswerError::Malformed("it is no device identification"));
    };
    let mut rest = rest;
    let mut objects = Vec::new();
    for _ in 0..*count {
        let [id, length, tail @ ..] = rest else { return Err(SHORT_OBJECT) };
        let (bytes, tail) = tail.split_at_checked(usize::from(*length)).ok_or(SHORT_OBJECT)?;
        objects.push((*id, bytes.to_vec()));
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(AnswerError::Malformed("bytes follow the last identification object"));
    }
    Ok(Response::DeviceId { conformity: *conformity, next: (*more == 0xFF).then_some(*next), objects })
}
