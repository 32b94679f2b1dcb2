//! Every rule of Tidegate, and nothing that touches the world: values and their quality, codecs, framing, device
//! profiles, the bus's topics and messages, polling and reporting, twins.
//!
//! Bytes and `now` come in as arguments, values and decisions go out. There is no socket, file, thread or clock
//! in here; `clippy.toml` and the house test keep it so. Rooms import only what stands before them:
//!
//! `value, name → codec → modbus | serial | ble → yaml, expr → profile → alarm, config → message, topic → poll | report | twin |
//! outbox | kubeedge → dialect`

pub mod alarm;
pub mod ble;
pub mod codec;
pub mod config;
pub mod dialect;
pub mod expr;
pub mod kubeedge;
pub mod message;
pub mod modbus;
pub mod name;
pub mod outbox;
pub mod poll;
pub mod profile;
pub mod report;
pub mod serial;
pub mod topic;
pub mod twin;
pub mod value;
pub mod yaml;
