//! From the sections as written to the device as meant.
//!
//! In: the raw section and its tree. Out: a [`Device`] and the [`Visit`]s of its properties, and complaints about what
//! the schema cannot see. Must never look at the keys that are a device's own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::raw::{
    OneOrMany, RawBle, RawBleVisit, RawCharacteristic, RawConnectMode, RawDedupeBy, RawMatch, RawMeta, RawOp,
    RawPairing,
};
use super::*;
use crate::ble::{FieldKind, ManufacturerPattern, hex};
use crate::codec::Bits;
use crate::profile::build::Builder;
use crate::profile::raw::{RawAccess, RawKind, RawProperty};
use crate::profile::{Access, Kind, Property, Report, Source};
use crate::yaml::{nearest, quoted_list};

/// Away after this silence, where the profile says nothing.
const TIMEOUT: Duration = Duration::from_secs(600);

/// From one connection to the next, where the profile says nothing.
const EVERY: Duration = Duration::from_secs(6 * 3_600);

/// How long connecting may take, where the profile says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The pauses after failures, where the profile says nothing.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(6 * 3_600));

/// The characteristic that takes the time.
const CURRENT_TIME: Uuid = Uuid::from_u16(0x2A2B);

/// The names of the places a property can come from.
const PLACES: &str = "object, event, meta, gatt, service_data, manufacturer_data";

impl Builder<'_> {
    /// The section as it was meant; `None` where the profile has none.
    pub(in crate::profile) fn ble_device(&mut self) -> Option<Device> {
        let raw = self.raw.ble.as_ref()?;
        let advertisement = raw.advertisement.as_ref();
        let pattern = self.advertised(raw.pattern.as_ref());
        let is_known = raw.pattern.is_some()
            || self.tree.find(&["ble", "address"]).is_some()
            || self.tree.find(&["ble", "irk"]).is_some();
        if !is_known {
            let hint = "write match: {service_data: \"fcd2\"}, or address: ${address}";
            self.complain(&["ble"], "nothing says which device is meant", hint);
        }
        let words = advertisement.and_then(|own| own.decode.as_ref()).map(OneOrMany::texts).unwrap_or_default();
        let dedupe = advertisement.and_then(|own| own.dedupe).map_or(Dedupe::default(), |raw| Dedupe {
            by_packet_id: raw.by == RawDedupeBy::PacketId,
            window_ms: match raw.by {
                RawDedupeBy::None => 0,
                _ => raw.window.map_or(Dedupe::default().window_ms, |window| ms(window.0)),
            },
        });
        let presence = raw.presence.as_ref();
        let timeout = presence.and_then(|own| own.timeout).map_or(TIMEOUT, |timeout| timeout.0);
        if timeout.is_zero() {
            self.complain(
                &["ble", "presence", "timeout"],
                "nothing is present for 0 time",
                "write a duration such as 5m",
            );
        }
        Some(Device {
            pattern,
            formats: words.iter().filter_map(|word| word.parse().ok()).collect(),
            dedupe,
            rssi_window: advertisement.and_then(|own| own.rssi).map_or(Duration::ZERO, |rssi| rssi.window.0),
            presence: Presence { timeout, leave_event: presence.and_then(|own| own.leave_event).unwrap_or(true) },
            gatt: self.gatt(raw),
        })
    }

    fn advertised(&mut self, raw: Option<&RawMatch>) -> Pattern {
        let mut pattern = Pattern::default();
        let Some(raw) = raw else { return pattern };
        let uuids = |marks: &Option<OneOrMany>| {
            let texts = marks.as_ref().map(OneOrMany::texts).unwrap_or_default();
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        pattern.service_data = uuids(&raw.service_data);
        pattern.services = uuids(&raw.service);
        let makers = raw.manufacturer_data.as_ref().map(OneOrMany::texts).unwrap_or_default();
        pattern.manufacturer = makers.iter().filter_map(|text| maker(text)).collect();
        if let Some(Err(error)) = raw.name.as_deref().map(|name| pattern.set_name(name)) {
            let message = format!("the pattern cannot be read: {error}");
            self.complain(&["ble", "match", "name"], message, "write a regular expression");
        }
        pattern
    }

    fn gatt(&mut self, raw: &RawBle) -> Option<Gatt> {
        let raw = raw.gatt.as_ref()?;
        let connect = raw.connect.unwrap_or_default();
        let backoff = connect.backoff;
        let first = backoff.and_then(|own| own.min).map_or(BACKOFF.0, |time| time.0);
        let last = backoff.and_then(|own| own.max).map_or(BACKOFF.1.max(first), |time| time.0);
        if first > last {
            self.complain(&["ble", "gatt", "connect", "backoff"], "min is longer than max", "swap them");
        }
        for (key, time) in [("every", connect.every), ("timeout", connect.timeout)] {
            if time.is_some_and(|time| time.0.is_zero()) {
                self.complain(
                    &["ble", "gatt", "connect", key],
                    "0 is no time for a connection",
                    "write a duration such as 20s",
                );
            }
        }
        let characteristics: Vec<Characteristic> =
            raw.characteristics.iter().filter_map(|(name, raw)| self.characteristic(name, raw)).collect();
        let pairing = match raw.pairing {
            RawPairing::None => Pairing::None,
            RawPairing::JustWorks => Pairing::JustWorks,
            RawPairing::Passkey => Pairing::Passkey,
        };
        if pairing == Pairing::Passkey && self.tree.find(&["ble", "gatt", "passkey"]).is_none() {
            let hint = "write passkey: ${passkey}, and params: {passkey: {type: secret}}";
            self.complain(&["ble", "gatt", "pairing"], "pairing with a passkey needs one", hint);
        }
        let connect = Connect {
            mode: match connect.mode {
                RawConnectMode::Interval => ConnectMode::Interval,
                RawConnectMode::Always => ConnectMode::Always,
                RawConnectMode::OnDemand => ConnectMode::OnDemand,
            },
            every: connect.every.map_or(EVERY, |time| time.0),
            timeout: connect.timeout.map_or(CONNECT_TIMEOUT, |time| time.0),
            retries: connect.retries.unwrap_or(2),
            backoff_min: first,
            backoff_max: last,
        };
        Some(Gatt { connect, pairing, characteristics })
    }

    fn characteristic(&mut self, name: &str, raw: &RawCharacteristic) -> Option<Characteristic> {
        let (service, characteristic) = (raw.service.parse().ok()?, raw.characteristic.parse().ok()?);
        let at = |key| ["ble", "gatt", "characteristics", name, key];
        let op = match raw.op {
            RawOp::Read => Op::Read,
            RawOp::Notify => Op::Notify,
            RawOp::Indicate => Op::Indicate,
            RawOp::Write => Op::Write,
            RawOp::WriteWithoutResponse => Op::WriteWithoutResponse,
        };
        let writes = matches!(op, Op::Write | Op::WriteWithoutResponse);
        let payload = match raw.value.as_deref() {
            Some(_) if !writes => {
                self.complain(&at("value"), "only op: write writes a value", "write op: write, or leave value out");
                None
            }
            Some("now") => Some(Payload::CurrentTime),
            Some(digits) => match hex(digits.as_bytes()).filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => Some(Payload::Bytes(bytes)),
                None => {
                    self.complain(
                        &at("value"),
                        "the value is no pairs of hexadecimal digits",
                        "write \"01ff\", or now",
                    );
                    None
                }
            },
            // A clock that is written is set; there is nothing else to write there.
            None if writes && characteristic == CURRENT_TIME => Some(Payload::CurrentTime),
            None => None,
        };
        let is_written = |own: &RawProperty| {
            own.from
                .as_ref()
                .and_then(|from| from.ble.as_ref())
                .is_some_and(|visit| visit.gatt.as_deref() == Some(name))
        };
        if writes && payload.is_none() && raw.value.is_none() && !self.raw.properties.values().any(is_written) {
            let hint = "write value: \"01\", or give a property from: {ble: {gatt: …}} and access: w";
            self.complain(&at("op"), format!("nothing says what is written to \"{name}\""), hint);
        }
        Some(Characteristic {
            name: name.to_owned(),
            service,
            characteristic,
            instance: raw.instance.unwrap_or(0),
            op,
            once: raw.once,
            optional: raw.optional,
            every: raw.every.map(|time| time.0),
            payload,
        })
    }

    /// Makes a visit of what stands at `from.ble` of a property.
    pub(in crate::profile) fn ble_visit(
        &mut self,
        name: &str,
        raw: &RawBleVisit,
        property: &RawProperty,
    ) -> Option<Source> {
        let path = ["properties", name, "from", "ble"];
        if self.ble.is_none() {
            self.complain(&path, "the profile has no section ble", "write ble: {match: …, advertisement: {decode: …}}");
            return None;
        }
        let from = self.origin(raw, property, &path);
        let or = match raw.or.as_deref() {
            None => None,
            Some(other) if other.or.is_some() => {
                self.complain(
                    &["properties", name, "from", "ble", "or", "or"],
                    "one alternative is enough",
                    "leave it out",
                );
                None
            }
            Some(other) => Some(self.origin(other, property, &["properties", name, "from", "ble", "or"])?),
        };
        let visit = Visit { from: from?, or };
        if !matches!(property.access, RawAccess::R) {
            self.writable_ble(name, &visit)?;
        }
        Some(Source::Ble(Box::new(visit)))
    }

    fn writable_ble(&mut self, name: &str, visit: &Visit) -> Option<()> {
        let path = ["properties", name, "access"];
        let Some(place) = visit.gatt() else {
            let message = format!("\"{name}\" cannot be written: it comes out of advertisements");
            self.complain(&path, message, "write access: r, or from: {ble: {gatt: …}}");
            return None;
        };
        if place.field().is_none() {
            let message = format!("\"{name}\" cannot be written: it is only a part of its characteristic");
            self.complain(&path, message, "write access: r, or a type that is all of the characteristic");
            return None;
        }
        Some(())
    }

    fn origin(&mut self, raw: &RawBleVisit, property: &RawProperty, path: &[&str]) -> Option<Origin> {
        let at = |key| [path, &[key]].concat();
        let given = [
            raw.gatt.is_some(),
            raw.gatt.is_none() && raw.object.is_some(),
            raw.event.is_some(),
            raw.meta.is_some(),
            raw.service_data.is_some(),
            raw.manufacturer_data.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            let found = if given.contains(&true) { "two places" } else { "no place" };
            self.complain(path, format!("it names {found}"), format!("write one of: {PLACES}"));
            return None;
        }
        let is_bytes = raw.service_data.is_some() || raw.manufacturer_data.is_some() || raw.gatt.is_some();
        for (key, is_there) in [
            ("at", raw.at.is_some()),
            ("type", raw.data.is_some()),
            ("bits", raw.bits.is_some()),
            ("length", raw.length.is_some()),
        ] {
            if is_there && !is_bytes {
                let hint = "leave it out: the decoder knows the object's form";
                self.complain(&at(key), format!("{key} belongs to gatt, service_data and manufacturer_data"), hint);
                return None;
            }
        }
        if let Some(characteristic) = &raw.gatt {
            return self.gatt_place(characteristic, raw, property, path);
        }
        if let Some(meta) = raw.meta {
            return Some(Origin::Meta(match meta {
                RawMeta::Rssi => Meta::Rssi,
                RawMeta::TxPower => Meta::TxPower,
                RawMeta::Address => Meta::Address,
                RawMeta::Name => Meta::Name,
                RawMeta::Presence => Meta::Presence,
                RawMeta::LastSeen => Meta::LastSeen,
            }));
        }
        if let Some(service) = &raw.service_data {
            return Some(Origin::ServiceData(service.parse().ok()?, self.field(raw, path)?));
        }
        if let Some(company) = &raw.manufacturer_data {
            return Some(Origin::ManufacturerData(company_id(company)?, self.field(raw, path)?));
        }
        self.object(raw, property, path)
    }

    /// Two objects of one name are told apart by the property's type: `bool` is the binary one.
    fn object(&mut self, raw: &RawBleVisit, property: &RawProperty, path: &[&str]) -> Option<Origin> {
        let (key, name, wanted) = match (&raw.event, &raw.object) {
            (Some(event), _) => ("event", event, ObjectClass::Event),
            (None, Some(object)) if property.kind == RawKind::Bool => ("object", object, ObjectClass::Binary),
            (None, object) => ("object", object.as_ref()?, ObjectClass::Sensor),
        };
        let formats = self.ble.as_ref().map(|device| device.formats.clone()).unwrap_or_default();
        if formats.is_empty() {
            let hint =
                "write ble: {advertisement: {decode: bthome2}}, or the place of the bytes: service_data, at, type";
            let at = ["ble", "advertisement", "decode"];
            self.complain(&at, "properties take objects out of a decoder, and there is none", hint);
            return None;
        }
        let others = [ObjectClass::Sensor, ObjectClass::Binary, ObjectClass::Event];
        let classes = std::iter::once(wanted).chain(others.into_iter().filter(|_| wanted != ObjectClass::Event));
        let found = { classes }.find(|class| formats.iter().any(|format| format.gives(name, *class)));
        let Some(class) = found else {
            let known: Vec<&str> = formats
                .iter()
                .flat_map(|format| match wanted {
                    ObjectClass::Event => format.names(ObjectClass::Event),
                    _ => [format.names(ObjectClass::Sensor), format.names(ObjectClass::Binary)].concat(),
                })
                .collect();
            let mut list = known.clone();
            list.sort_unstable();
            list.dedup();
            let list = quoted_list(list);
            let hint = match nearest(name, known) {
                Some(meant) => format!("did you mean \"{meant}\"? {key}s: {list}"),
                None => format!("{key}s: {list}"),
            };
            let formats: Vec<&str> = formats.iter().map(|format| format.word()).collect();
            self.complain(&[path, &[key]].concat(), format!("{} has no {key} \"{name}\"", formats.join(", ")), hint);
            return None;
        };
        Some(Origin::Object { name: name.clone(), class, index: raw.index.unwrap_or(1) })
    }

    fn gatt_place(&mut self, name: &str, raw: &RawBleVisit, property: &RawProperty, path: &[&str]) -> Option<Origin> {
        let known = self.ble.as_ref().and_then(|device| device.gatt.as_ref());
        let own = known.and_then(|gatt| Some((gatt.find(name)?, gatt.characteristics.get(gatt.find(name)?)?.clone())));
        let Some((characteristic, own)) = own else {
            let names: Vec<String> =
                known.iter().flat_map(|gatt| &gatt.characteristics).map(|own| own.name.clone()).collect();
            let names = || names.iter().map(String::as_str);
            let hint = match nearest(name, names()) {
                Some(meant) => format!("did you mean \"{meant}\"? characteristics: {}", quoted_list(names())),
                None if names().next().is_none() => "name it under ble: {gatt: {characteristics: …}}".to_owned(),
                None => format!("characteristics: {}", quoted_list(names())),
            };
            self.complain(&[path, &["gatt"]].concat(), format!("there is no characteristic \"{name}\""), hint);
            return None;
        };
        let standard = Standard::of(own.characteristic).filter(|_| raw.data.is_none());
        let reading = match standard {
            Some(standard) => GattReading::Standard(standard, raw.object.clone()),
            None => {
                if raw.object.is_some() {
                    let message = "an object of a characteristic needs an agreed format";
                    self.complain(&[path, &["object"]].concat(), message, "write type: uint16 and at: where it begins");
                    return None;
                }
                GattReading::Field(self.field(raw, path)?)
            }
        };
        let tells = matches!(own.op, Op::Notify | Op::Indicate);
        Some(Origin::Gatt(GattPlace {
            characteristic,
            reading,
            with_response: own.op != Op::WriteWithoutResponse,
            is_read: !tells && !matches!(property.access, RawAccess::W),
        }))
    }

    fn field(&mut self, raw: &RawBleVisit, path: &[&str]) -> Option<Field> {
        let at = |key| [path, &[key]].concat();
        let Some(kind) = raw.data.as_deref().and_then(|word| word.parse::<FieldKind>().ok()) else {
            self.complain(path, "the type of the value is missing", "write type: uint8, int16, utf8 …");
            return None;
        };
        if raw.length.is_some() && kind.width().is_some() {
            self.complain(
                &at("length"),
                "length belongs to utf8 and bytes",
                format!("leave it out: {kind} has its own"),
            );
            return None;
        }
        let bits = match raw.bits.as_ref().map(|bits| bits.as_str().map_or_else(|| bits.to_string(), str::to_owned)) {
            None => None,
            Some(written) => match written.parse::<Bits>() {
                Ok(bits) => Some(bits),
                Err(error) => {
                    self.complain(&at("bits"), error.to_string(), "");
                    return None;
                }
            },
        };
        let is_whole = matches!(kind, FieldKind::Uint { .. } | FieldKind::Int { .. });
        let width = kind.width().unwrap_or(0) * 8;
        if bits.is_some_and(|bits| !is_whole || bits.first > bits.last || usize::from(bits.last) >= width) {
            let message = format!("there are no such bits in {kind}");
            self.complain(&at("bits"), message, "bits count from 0, the least significant, and belong to int and uint");
            return None;
        }
        Some(Field { at: raw.at.unwrap_or(0), kind, bits, length: raw.length })
    }

    /// The property every device has, unless the profile declares one of that name.
    pub(in crate::profile) fn presence(&mut self) {
        if self.ble.is_none() || self.raw.properties.contains_key(PRESENCE) {
            return;
        }
        let Ok(name) = PRESENCE.parse() else { return };
        let source = Source::Ble(Box::new(Visit { from: Origin::Meta(Meta::Presence), or: None }));
        let labels = BTreeMap::from([(0, AWAY.to_owned()), (1, PRESENT.to_owned())]);
        let property = Property {
            labels,
            title: Some("whether it is heard".to_owned()),
            category: Some("diagnostic".to_owned()),
            access: Access::Read,
            report: Report::default(),
            ..crate::profile::derive::derived(name, Kind::Enum, source)
        };
        self.properties.push(property);
    }
}

impl GattPlace {
    /// How a value is written, and by how much it is multiplied; `None` where it is not all of its characteristic.
    pub(super) fn field(&self) -> Option<(Field, crate::codec::Decimal)> {
        match &self.reading {
            GattReading::Field(field) if field.at == 0 && field.bits.is_none() => {
                Some((*field, crate::codec::Decimal::whole(1)))
            }
            GattReading::Field(_) | GattReading::Standard(_, Some(_)) => None,
            GattReading::Standard(standard, None) => standard.field(),
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn company_id(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// `004c`, or `004c:0215` with the bytes behind it.
fn maker(text: &str) -> Option<ManufacturerPattern> {
    let (id, prefix) = text.split_once(':').unwrap_or((text, ""));
    Some(ManufacturerPattern { id: company_id(id)?, prefix: hex(prefix.as_bytes())? })
}
