//! Who is there: device identification, scans, and raw requests of people.
//!
//! In: addresses, requests as JSON. Out: answers as JSON. Must never write anything while it looks around.

use std::sync::Arc;
use std::time::Duration;

use protocols::codec::{self, Layout, Scaling};
use protocols::expr::{Scope, Window};
use protocols::modbus::Table;
use protocols::modbus::pdu::{Request, Response};
use protocols::profile::{Probe, Profile};
use protocols::value::{Quality, Value};
use serde::Deserialize;
use serde_json::json;

use super::master::{CallError as MasterError, Master, Target};
use super::port::{ModbusPort, failure};
use crate::port::CallError;

/// How long a scan waits for each answer: an address where nobody is costs two of these.
const SCAN_TIMEOUT: Duration = Duration::from_millis(300);
/// Profiles a scan tries at one address; more are left out.
const SCAN_PROFILES: usize = 64;
/// Requests one identification may take; a device that goes on for longer is going in circles.
const PIECES: usize = 32;

/// Reads the identification objects of the category of `object`, piece by piece.
pub(super) async fn objects(master: &mut Master, target: Target, object: u16) -> Result<Response, MasterError> {
    let code = match object {
        0..=2 => 1,
        3..=127 => 2,
        _ => 3,
    };
    let mut next = 0;
    let mut all = Vec::new();
    let mut level = 0;
    for _ in 0..PIECES {
        match master.call(target, &Request::DeviceId { code, object: next }).await? {
            Response::DeviceId { conformity, next: more, objects } => {
                level = conformity;
                all.extend(objects);
                match more {
                    Some(more) if more > next => next = more,
                    _ => break,
                }
            }
            _ => return Err(MasterError::Malformed("it is no identification")),
        }
    }
    Ok(Response::DeviceId { conformity: level, next: None, objects: all })
}

/// The table in the profile's words.
pub(super) fn word(table: Table) -> &'static str {
    protocols::modbus::address::word(table)
}

/// A response for people.
pub(super) fn show(response: &Response) -> Value {
    match response {
        Response::Registers(words) => json!({"registers": words}),
        Response::Bits(bits) => json!({"bits": bits}),
        Response::Written => json!({}),
        Response::Other(bytes) => json!({"bytes": bytes}),
        Response::DeviceId { objects, .. } => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let objects = objects.iter().map(|(object, bytes)| (object.to_string(), Value::from(text(bytes))));
            json!({"objects": objects.collect::<serde_json::Map<_, _>>()})
        }
    }
}

/// A raw request as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    op: String,
    #[serde(default)]
    pub(super) device: Option<usize>,
    #[serde(default = "one")]
    pub(super) unit: u8,
    table: String,
    address: u16,
    #[serde(default)]
    count: Option<u16>,
    #[serde(default)]
    value: Option<Value>,
    #[serde(default)]
    values: Option<Vec<Value>>,
    /// How the registers are to be understood, in the profile's words: `float32`, `int16`, …
    #[serde(default, rename = "type")]
    data: Option<String>,
    /// Byte and word order of `type`.
    #[serde(default)]
    order: Option<String>,
    #[serde(default)]
    pub(super) timeout_ms: Option<u64>,
}

fn one() -> u8 {
    1
}

impl Raw {
    pub(super) fn read(request: &Value) -> Result<Self, CallError> {
        Self::deserialize(request).map_err(|error| CallError::Invalid(error.to_string()))
    }

    fn layout(&self) -> Result<Option<Layout>, CallError> {
        let Some(data) = &self.data else { return Ok(None) };
        let mut layout = Layout::new(data.parse().map_err(|error| CallError::Invalid(format!("type: {error}")))?);
        if let Some(order) = &self.order {
            layout.order = order.parse().map_err(|error| CallError::Invalid(format!("order: {error}")))?;
        }
        Ok(Some(layout))
    }

    /// The answer for people, with the value when they said its type.
    pub(super) fn answer(&self, response: &Response) -> Result<Value, CallError> {
        let mut shown = show(response);
        if let (Some(layout), Response::Registers(words)) = (self.layout()?, response) {
            let value = codec::decode(&layout, words).map(|raw| Scaling::default().apply(raw));
            shown["value"] = value.unwrap_or(Value::Null);
        }
        Ok(shown)
    }

    pub(super) fn request(&self) -> Result<Request, CallError> {
        let invalid = |text: &str| CallError::Invalid(text.to_owned());
        let table = match self.table.as_str() {
            "coil" => Table::Coil,
            "discrete" => Table::Discrete,
            "input" => Table::Input,
            "holding" => Table::Holding,
            "device_id" => Table::DeviceId,
            _ => return Err(invalid("table is one of coil, discrete, input, holding, device_id")),
        };
        let address = self.address;
        if self.op == "read" {
            return match table {
                Table::DeviceId => Ok(Request::DeviceId { code: 1, object: 0 }),
                _ => {
                    let width = self.layout()?.map_or(1, |layout| layout.registers());
                    Ok(Request::Read { table, address, count: self.count.unwrap_or(width) })
                }
            };
        }
        let values: Vec<Value> = self.values.clone().or_else(|| Some(vec![self.value.clone()?])).unwrap_or_default();
        match table {
            Table::Coil => {
                let bits: Option<Vec<bool>> = values.iter().map(bit).collect();
                match bits.as_deref() {
                    Some([on]) => Ok(Request::WriteCoil { address, on: *on }),
                    Some([_, ..]) => Ok(Request::WriteCoils { address, bits: bits.unwrap_or_default() }),
                    _ => Err(invalid("values are true or false, one at least")),
                }
            }
            Table::Holding if self.data.is_some() => {
                let layout = self.layout()?.ok_or_else(|| invalid("name a type"))?;
                let value = self.value.as_ref().ok_or_else(|| invalid("a write with a type needs one value"))?;
                let raw = Scaling::default().invert(value).map_err(|error| CallError::Invalid(error.to_string()))?;
                let values = codec::encode(&layout, &raw).map_err(|error| CallError::Invalid(error.to_string()))?;
                Ok(match values.as_slice() {
                    [value] => Request::WriteRegister { address, value: *value },
                    _ => Request::WriteRegisters { address, values },
                })
            }
            Table::Holding => {
                let words: Option<Vec<u16>> = values.iter().map(register).collect();
                match words.as_deref() {
                    Some([value]) => Ok(Request::WriteRegister { address, value: *value }),
                    Some([_, ..]) => Ok(Request::WriteRegisters { address, values: words.unwrap_or_default() }),
                    _ => Err(invalid("values are whole numbers of 16 bits, one at least")),
                }
            }
            _ => Err(invalid("only coils and holding registers can be written")),
        }
    }
}

fn bit(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| value.as_u64().filter(|number| *number < 2).map(|number| number == 1))
}

fn register(value: &Value) -> Option<u16> {
    let number = value.as_i64()?;
    u16::try_from(number).ok().or_else(|| i16::try_from(number).ok().map(i16::cast_unsigned))
}

/// Looks for a device at one address: identification first, then the profiles' probes.
pub(super) async fn look(
    port: &mut ModbusPort,
    address: u8,
    profiles: &[Arc<Profile>],
) -> Result<Option<Value>, CallError> {
    let target = port.target(address, Some(SCAN_TIMEOUT));
    let mut there = false;
    let mut identity = Value::Null;
    match port.master.call(target, &Request::DeviceId { code: 1, object: 0 }).await.map_err(|e| failure(&e)) {
        Ok(response) => {
            there = true;
            identity = show(&response);
        }
        Err(CallError::Gone(reason)) => return Err(CallError::Gone(reason)),
        Err(error) => there |= error.answered(),
    }
    // Many devices do not answer functions they do not know: one plain read decides.
    let plain = Request::Read { table: Table::Holding, address: 0, count: 1 };
    if !there {
        match port.master.call(target, &plain).await.map_err(|error| failure(&error)) {
            Ok(_) => there = true,
            Err(CallError::Gone(reason)) => return Err(CallError::Gone(reason)),
            Err(error) => there = error.answered(),
        }
    }
    let probed: Vec<(&Probe, &Arc<Profile>)> =
        profiles.iter().filter_map(|p| Some((p.probe.as_ref()?, p))).take(SCAN_PROFILES).collect();
    let mut matches = Vec::new();
    for (probe, profile) in probed.into_iter().filter(|_| there) {
        if accepts(&mut port.master, target, probe).await? {
            matches.push(profile.label());
        }
    }
    Ok(there.then(|| json!({"address": address, "identity": identity, "profiles": matches})))
}

/// Whether a probe's value is what the profile expects.
async fn accepts(master: &mut Master, target: Target, probe: &Probe) -> Result<bool, CallError> {
    let visitor = &probe.visitor;
    if matches!(visitor.table, Table::DeviceId) {
        return Ok(false);
    }
    let request = Request::Read { table: visitor.table, address: visitor.address, count: visitor.layout.registers() };
    let value = match master.call(target, &request).await {
        Ok(Response::Registers(words)) => match codec::decode(&visitor.layout, &words) {
            Ok(raw) => probe.scaling.apply(raw),
            Err(_) => return Ok(false),
        },
        Ok(Response::Bits(bits)) => bits.first().copied().map_or(Value::Null, Value::Bool),
        Ok(_) => return Ok(false),
        Err(error) => {
            return match failure(&error) {
                CallError::Gone(reason) => Err(CallError::Gone(reason)),
                _ => Ok(false),
            };
        }
    };
    Ok(probe.accept.as_ref().is_none_or(|accept| accept.holds(&Only(value)).unwrap_or_default()))
}

/// What a probe's condition sees: one value, called `value`.
struct Only(Value);

impl Scope for Only {
    fn value(&self, name: &str) -> Option<Value> {
        (name == "value").then(|| self.0.clone())
    }

    fn quality(&self, _name: &str) -> Option<Quality> {
        Some(Quality::Good)
    }

    fn age_ms(&self, _name: &str) -> Option<u64> {
        Some(0)
    }

    fn window(&self, _name: &str, _window_ms: u64) -> Option<Window> {
        None
    }

    fn previous(&self, _name: &str) -> Option<Value> {
        None
    }
}
