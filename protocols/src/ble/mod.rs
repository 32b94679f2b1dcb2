//! Bluetooth Low Energy as far as it is bytes: advertisements, the decoders on top, the values of characteristics, and
//! the guards that tell a new packet from a repeated, a replayed or a forged one.
//!
//! In: one sighting of a device — fields as BlueZ gives them, or raw advertisement structures — and `now`. Out: objects
//! with their units, or a named [`Outcome`] that says why there are none. Must never trust a length, never believe a
//! packet in clear text from a device that encrypts, and never drop a packet without counting it.

mod address;
mod advert;
mod atc;
mod beacon;
mod bthome;
mod controller;
mod decode;
mod encode;
mod field;
mod gatt;
mod govee;
mod guard;
mod inkbird;
mod key;
mod mibeacon;
mod object;
mod outcome;
mod pattern;
mod presence;
mod roster;
mod ruuvi;
mod signal;
mod switchbot;
mod thermopro;
mod uuid;

pub use address::{AddressType, Mac, MacError};
pub use advert::{Advertisement, Damage, PAYLOAD_BYTES, STRUCTURES};
pub use beacon::URL_BYTES;
pub use controller::{Controller, Said};
pub use decode::{Format, Hint, Packet, Refusal, decode, identify};
pub use encode::{LEGACY_BYTES, Sender, Unsayable, encode};
pub use field::{Field, FieldError, FieldKind, VALUE_BYTES};
pub(crate) use gatt::pick;
pub use gatt::{Standard, current_time};
pub use guard::{Dedupe, Guard, RESTART_BELOW};
pub(crate) use key::hex;
pub use key::{Key, KeyError};
pub use object::{OBJECTS, Object, ObjectClass};
pub use outcome::{Counters, Outcome};
pub use pattern::{ManufacturerPattern, NAME_PATTERN_BYTES, NamePatternError, Pattern};
pub use presence::Presence;
pub use roster::{Identity, RESOLVED, Roster};
pub use signal::{RSSI_SAMPLES, Signal};
pub use uuid::{Uuid, UuidError};

#[cfg(test)]
mod tests;
