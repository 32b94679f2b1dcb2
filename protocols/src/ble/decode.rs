//! One door to all decoders, by the word a profile uses.
//!
//! In: an advertisement, a [`Format`], the sender's key. Out: a [`Packet`] or a [`Refusal`]. Must never guess: a packet
//! that fits no form is unknown, and that is counted.

use std::fmt;
use std::str::FromStr;

use super::address::Mac;
use super::advert::Advertisement;
use super::key::Key;
use super::object::{Object, ObjectClass};
use super::outcome::Outcome;
use super::{atc, beacon, bthome, govee, inkbird, mibeacon, ruuvi, switchbot, thermopro};

/// What one packet holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packet {
    /// What it tells, in its own order.
    pub objects: Vec<Object>,
    /// Something stands behind the objects that this version does not know.
    pub is_partial: bool,
    /// The format's own number of the packet, where it goes round in eight bits.
    pub packet_id: Option<u8>,
    /// The counter of an encrypted packet, proved by its tag.
    pub counter: Option<u64>,
    /// It was encrypted, and its tag fits.
    pub is_encrypted: bool,
    /// The bytes it was read from; two packets are the same if these are.
    pub payload: Vec<u8>,
}

impl Packet {
    pub(super) fn plain(objects: Vec<Object>, payload: &[u8]) -> Self {
        Self { objects, payload: payload.to_vec(), ..Self::default() }
    }

    /// The object of that name and class; `index` counts those of one name from 1.
    pub fn object(&self, name: &str, class: ObjectClass, index: usize) -> Option<&Object> {
        let name = canonical(name);
        self.objects.iter().filter(|object| object.class == class && object.name == name).nth(index.checked_sub(1)?)
    }
}

/// Why there is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nothing of this format is there.
    Unknown,
    /// It begins like this format and is cut short.
    Malformed,
    /// It is encrypted, and there is no key.
    NoKey,
    /// The key does not open it.
    Undecryptable,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::Unknown,
            Refusal::Malformed => Self::Malformed,
            Refusal::NoKey => Self::NoKey,
            Refusal::Undecryptable => Self::Undecryptable,
        }
    }
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident $word:literal,)*) => {
        /// A form of advertisement this version reads; the profile's `decode`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Format { $($(#[$doc])* $name,)* }

        impl Format {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The profile's word.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}
formats! {
    /// BTHome version 2, clear and encrypted.
    Bthome2 "bthome2",
    /// RuuviTag data format 3 (RAWv1).
    Ruuvi3 "ruuvi3",
    /// RuuviTag data format 5 (RAWv2).
    Ruuvi5 "ruuvi5",
    /// The form of atc1441's firmware.
    Atc1441 "atc1441",
    /// The "custom" form of pvvx's firmware, clear and encrypted.
    Pvvx "pvvx",
    /// Xiaomi MiBeacon, clear and encrypted (versions 4 and 5).
    Mibeacon "mibeacon",
    /// SwitchBot meters.
    Switchbot "switchbot",
    /// ThermoPro TP35x.
    Thermopro "thermopro",
    /// Govee thermometers.
    Govee "govee",
    /// Inkbird thermometers.
    Inkbird "inkbird",
    /// Apple iBeacon.
    Ibeacon "ibeacon",
    /// AltBeacon.
    Altbeacon "altbeacon",
    /// Eddystone UID, URL, TLM and EID.
    Eddystone "eddystone",
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|format| format.word() == text).ok_or(())
    }
}

impl Format {
    /// Whether its packets can be encrypted.
    pub fn encrypts(self) -> bool {
        matches!(self, Self::Bthome2 | Self::Mibeacon | Self::Pvvx)
    }

    /// The names of the objects of one class it can give.
    pub fn names(self, class: ObjectClass) -> Vec<&'static str> {
        const NOTHING: &[&str] = &[];
        const AIR: &[&str] = &["temperature", "humidity", "battery"];
        const BEACON: &[&str] = &["uuid", "major", "minor", "measured_power"];
        let rows: &[&str] = match (self, class) {
            (Self::Bthome2, class) => return bthome::names(class),
            (Self::Mibeacon, class) => return mibeacon::names(class),
            (Self::Ruuvi3, ObjectClass::Sensor) => &[
                "temperature",
                "humidity",
                "pressure",
                "acceleration_x",
                "acceleration_y",
                "acceleration_z",
                "voltage",
            ],
            (Self::Ruuvi5, ObjectClass::Sensor) => &[
                "temperature",
                "humidity",
                "pressure",
                "acceleration_x",
                "acceleration_y",
                "acceleration_z",
                "voltage",
                "tx_power",
                "movement_counter",
                "sequence",
                "mac",
            ],
            (Self::Atc1441 | Self::Pvvx, ObjectClass::Sensor) => {
                &["temperature", "humidity", "battery", "voltage", "packet_id"]
            }
            (Self::Pvvx, ObjectClass::Binary) => &["opening", "output"],
            (Self::Switchbot | Self::Thermopro, ObjectClass::Sensor) => AIR,
            (Self::Thermopro, ObjectClass::Binary) => &["battery"],
            (Self::Govee, ObjectClass::Sensor) => &["temperature", "humidity", "battery", "pm25", "sensor_id"],
            (Self::Govee, ObjectClass::Binary) => &["problem"],
            (Self::Inkbird, ObjectClass::Sensor) => &[
                "temperature",
                "humidity",
                "battery",
                "temperature_probe_1",
                "temperature_probe_2",
                "temperature_probe_3",
                "temperature_probe_4",
                "temperature_probe_5",
                "temperature_probe_6",
            ],
            (Self::Ibeacon | Self::Altbeacon, ObjectClass::Sensor) => BEACON,
            (Self::Eddystone, ObjectClass::Sensor) => &[
                "measured_power",
                "namespace",
                "instance",
                "ephemeral_id",
                "url",
                "voltage",
                "temperature",
                "advertisement_count",
                "uptime",
            ],
            _ => NOTHING,
        };
        rows.to_vec()
    }
}

/// The decoders' own word for a name that others use.
pub(super) fn canonical(name: &str) -> &str {
    match name {
        "carbon_dioxide" => "co2",
        "carbon_monoxide" => "co",
        "tvoc" | "voc" => "volatile_organic_compounds",
        "illuminance" => "light",
        "dewpoint" => "dew_point",
        "pm2_5" | "pm2.5" => "pm25",
        "packet" => "packet_id",
        "battery_low" => "battery",
        "gas_detected" => "gas",
        "measurement_sequence" => "sequence",
        "tx_power_dbm" => "tx_power",
        "major_id" => "major",
        "minor_id" => "minor",
        other => other,
    }
}

impl Format {
    /// Whether it can give an object of that name and class; names others use for it count.
    pub fn gives(self, name: &str, class: ObjectClass) -> bool {
        self.names(class).contains(&canonical(name))
    }
}

/// Reads an advertisement as one format.
///
/// # Errors
/// A [`Refusal`].
pub fn decode(format: Format, adv: &Advertisement, sender: Option<Mac>, key: Option<&Key>) -> Result<Packet, Refusal> {
    let service = |uuid| adv.service(uuid).ok_or(Refusal::Unknown);
    let company = |id| adv.company(id).ok_or(Refusal::Unknown);
    match format {
        Format::Bthome2 => bthome::decode(service(bthome::SERVICE)?, sender, key),
        Format::Ruuvi3 => ruuvi::raw_v1(company(ruuvi::COMPANY)?),
        Format::Ruuvi5 => ruuvi::raw_v2(company(ruuvi::COMPANY)?),
        Format::Atc1441 => atc::atc1441(service(atc::SERVICE)?),
        Format::Pvvx => atc::pvvx(service(atc::SERVICE)?, sender, key),
        Format::Mibeacon => mibeacon::decode(service(mibeacon::SERVICE)?, sender, key),
        Format::Switchbot => switchbot::decode(adv),
        Format::Thermopro => thermopro::decode(adv),
        Format::Govee => govee::decode(adv),
        Format::Inkbird => inkbird::decode(adv),
        Format::Ibeacon => beacon::ibeacon(company(beacon::APPLE)?),
        Format::Altbeacon => {
            let found = adv.manufacturer.iter().map(|(_, data)| beacon::altbeacon(data));
            found.reduce(|best, next| best.or(next)).unwrap_or(Err(Refusal::Unknown))
        }
        Format::Eddystone => beacon::eddystone(service(beacon::EDDYSTONE)?),
    }
}

/// What an advertisement can be read as.
#[derive(Clone, Debug, PartialEq)]
pub struct Hint {
    /// The format.
    pub format: Format,
    /// It is encrypted, so that a key is needed to say more.
    pub is_encrypted: bool,
    /// What it tells; nothing where it is encrypted.
    pub objects: Vec<Object>,
}

/// Tries every decoder without a key, for lists of what is in the air.
pub fn identify(adv: &Advertisement) -> Vec<Hint> {
    let hint = |format: &Format| match decode(*format, adv, adv.address, None) {
        Ok(packet) => Some(Hint { format: *format, is_encrypted: false, objects: packet.objects }),
        Err(Refusal::NoKey) => Some(Hint { format: *format, is_encrypted: true, objects: Vec::new() }),
        Err(_) => None,
    };
    Format::ALL.iter().filter_map(hint).collect()
}
