//! The values of the characteristics that everybody has agreed on.
//!
//! In: the bytes of a characteristic with an assigned number. Out: objects. Must never give a number for "value is not
//! known", which every format writes in its own way.
//!
//! Source: Bluetooth SIG, Assigned Numbers 3.8 (characteristics) and GATT Specification Supplement (formats).

use super::field::{Field, FieldKind, medfloat, sfloat, text};
use super::object::{OBJECTS, Object, ObjectClass, array, scaled, u16_le};
use super::uuid::Uuid;
use crate::codec::{Decimal, Raw};
use crate::value::{Timestamp, Why};

use FieldKind::{Int, Uint, Utf8};

/// One number or text: characteristic, name, unit, type, factor (mantissa, decimals), and the raw value of "not known".
type Simple = (u16, &'static str, &'static str, FieldKind, (i64, u8), Option<i128>);

const U8: FieldKind = Uint { width: 1, big: false };
const U16: FieldKind = Uint { width: 2, big: false };
const U24: FieldKind = Uint { width: 3, big: false };
const U32: FieldKind = Uint { width: 4, big: false };
const I8: FieldKind = Int { width: 1, big: false };
const I16: FieldKind = Int { width: 2, big: false };
const I24: FieldKind = Int { width: 3, big: false };
const ONE: (i64, u8) = (1, 0);

const SIMPLE: [Simple; 50] = [
    (0x2A00, "device_name", "", Utf8, ONE, None),
    (0x2A01, "appearance", "", U16, ONE, None),
    (0x2A06, "alert_level", "", U8, ONE, None),
    (0x2A07, "tx_power", "dBm", I8, ONE, None),
    (0x2A19, "battery", "%", U8, ONE, None),
    (0x2A1D, "temperature_type", "", U8, ONE, None),
    (0x2A21, "measurement_interval", "s", U16, ONE, None),
    (0x2A24, "model_number", "", Utf8, ONE, None),
    (0x2A25, "serial_number", "", Utf8, ONE, None),
    (0x2A26, "firmware_revision", "", Utf8, ONE, None),
    (0x2A27, "hardware_revision", "", Utf8, ONE, None),
    (0x2A28, "software_revision", "", Utf8, ONE, None),
    (0x2A29, "manufacturer_name", "", Utf8, ONE, None),
    (0x2A38, "body_sensor_location", "", U8, ONE, None),
    (0x2A6C, "elevation", "m", I24, (1, 2), None),
    (0x2A6D, "pressure", "Pa", U32, (1, 1), None),
    (0x2A6E, "temperature", "Cel", I16, (1, 2), Some(-0x8000)),
    (0x2A6F, "humidity", "%", U16, (1, 2), Some(0xFFFF)),
    (0x2A70, "true_wind_speed", "m/s", U16, (1, 2), None),
    (0x2A71, "true_wind_direction", "deg", U16, (1, 2), None),
    (0x2A72, "apparent_wind_speed", "m/s", U16, (1, 2), None),
    (0x2A73, "apparent_wind_direction", "deg", U16, (1, 2), None),
    (0x2A74, "gust_factor", "", U8, (1, 1), None),
    (0x2A75, "pollen_concentration", "/m3", U24, ONE, None),
    (0x2A76, "uv_index", "", U8, ONE, None),
    (0x2A77, "irradiance", "W/m2", U16, (1, 1), None),
    (0x2A78, "rainfall", "mm", U16, ONE, None),
    (0x2A79, "wind_chill", "Cel", I8, ONE, None),
    (0x2A7A, "heat_index", "Cel", I8, ONE, None),
    (0x2A7B, "dew_point", "Cel", I8, ONE, None),
    (0x2A80, "age", "a", U8, ONE, None),
    (0x2A98, "weight", "kg", U16, (5, 3), None),
    (0x2AA3, "barometric_pressure_trend", "", U8, ONE, None),
    (0x2AE2, "boolean", "", U8, ONE, None),
    (0x2AEA, "count_16", "", U16, ONE, Some(0xFFFF)),
    (0x2AEB, "count_24", "", U24, ONE, Some(0x00FF_FFFF)),
    (0x2AEE, "current", "A", U16, (1, 2), Some(0xFFFF)),
    (0x2AF2, "energy", "kWh", U24, ONE, Some(0x00FF_FFFF)),
    (0x2AF4, "string", "", Utf8, ONE, None),
    (0x2AF5, "string_24", "", Utf8, ONE, None),
    (0x2AF6, "string_36", "", Utf8, ONE, None),
    (0x2AF7, "string_8", "", Utf8, ONE, None),
    (0x2AFB, "illuminance", "lx", U24, (1, 2), Some(0x00FF_FFFF)),
    (0x2B03, "luminous_flux", "lm", U16, ONE, Some(0xFFFF)),
    (0x2B04, "percentage", "%", U8, (5, 1), Some(0xFF)),
    (0x2B05, "power", "W", U24, (1, 1), Some(0x00FF_FFFF)),
    (0x2B0D, "temperature_8", "Cel", I8, (5, 1), Some(0x7F)),
    // 1/64 V is 0.015625 V.
    (0x2B18, "voltage", "V", U16, (15_625, 6), Some(0xFFFF)),
    (0x2B8C, "co2", "ppm", U16, ONE, None),
    (0x2BD0, "voc", "ppb", U16, ONE, Some(0xFFFF)),
];

/// What reads a value with a form of its own; `None` when it is too short.
type Reader = fn(&[u8]) -> Option<Vec<Object>>;

/// Values with a form of their own, by their characteristic.
const FORMED: [(u16, &str, Reader); 11] = [
    (0x2A08, "date_time", |bytes| Some(vec![time("date_time", bytes)])),
    (0x2A0F, "local_time", local_time),
    (0x2A1C, "temperature", temperature),
    (0x2A23, "system_id", |bytes| Some(vec![Object::text("system_id", text(array::<8>(bytes, 0)?.as_slice()))])),
    (0x2A2B, "current_time", now),
    (0x2A35, "blood_pressure", blood_pressure),
    (0x2A37, "heart_rate", heart_rate),
    (0x2A50, "pnp_id", pnp),
    (0x2A5B, "cycling", cycling),
    (0x2A5E, "pulse_oximeter", oximeter),
    (0x2A9D, "weight", weight),
];

/// A characteristic with an agreed format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard(u16);

impl Standard {
    /// The format of a characteristic, if this version knows one.
    pub fn of(characteristic: Uuid) -> Option<Self> {
        let short = characteristic.short()?;
        let is_known =
            SIMPLE.iter().any(|(known, ..)| *known == short) || FORMED.iter().any(|(known, ..)| *known == short);
        is_known.then_some(Self(short))
    }

    /// The name of its first object.
    pub fn name(self) -> &'static str {
        let simple = SIMPLE.iter().find(|(known, ..)| *known == self.0).map(|(_, name, ..)| *name);
        let formed = || FORMED.iter().find(|(known, ..)| *known == self.0).map(|(_, name, _)| *name);
        simple.or_else(formed).unwrap_or_default()
    }

    /// Where its value lies and by how much it is multiplied, if it is one number or text: such a one can be written.
    pub fn field(self) -> Option<(Field, Decimal)> {
        let (.., kind, (mantissa, places), _) = SIMPLE.iter().find(|(known, ..)| *known == self.0)?;
        Some((Field::new(*kind), Decimal { mantissa: *mantissa, places: *places }))
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Why::Decode`] when the bytes are too few.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<Object>, Why> {
        if let Some((_, name, unit, kind, (mantissa, places), unknown)) =
            SIMPLE.iter().find(|(known, ..)| *known == self.0)
        {
            let raw = Field::new(*kind).decode(bytes)?;
            let value = match raw {
                Raw::Int(raw) if Some(raw) == *unknown => Err(Why::Sentinel),
                Raw::Int(raw) => Ok(scaled(raw, *mantissa, *places)),
                other => Ok(other),
            };
            return Ok(vec![Object::sensor(name, unit, value)]);
        }
        let formed = FORMED.iter().find(|(known, ..)| *known == self.0);
        let mut objects = formed.and_then(|(.., read)| read(bytes)).ok_or(Why::Decode)?;
        objects.truncate(OBJECTS);
        Ok(objects)
    }
}

fn time(name: &'static str, bytes: &[u8]) -> Object {
    Object::sensor(name, "", Field::new(FieldKind::DateTime).decode(bytes))
}

/// Date Time, day of the week, fractions of 1/256 s, why it was adjusted.
fn now(bytes: &[u8]) -> Option<Vec<Object>> {
    let [weekday, _, reason] = array(bytes, 7)?;
    Some(vec![
        time("current_time", bytes),
        Object::whole("day_of_week", "", weekday).only_if(weekday != 0),
        Object::whole("adjust_reason", "", reason),
    ])
}

/// Quarters of an hour from UTC, and those of summer time.
fn local_time(bytes: &[u8]) -> Option<Vec<Object>> {
    let [zone, summer] = array(bytes, 0)?;
    Some(vec![
        Object::number("time_zone", "h", zone.cast_signed(), 25, 2).only_if(zone.cast_signed() != -128),
        Object::number("dst_offset", "h", summer, 25, 2).only_if(summer != 255),
    ])
}

/// Flags (bit 0 Fahrenheit, 1 time, 2 type), medical float, time, type.
fn temperature(bytes: &[u8]) -> Option<Vec<Object>> {
    let flags = *bytes.first()?;
    let unit = if flags & 1 == 0 { "Cel" } else { "[degF]" };
    let mut objects = vec![Object::sensor("temperature", unit, medfloat(u32::from_le_bytes(array(bytes, 1)?)))];
    let mut at = 5;
    if flags & 2 != 0 {
        objects.push(time("date_time", bytes.get(at..at + 7)?));
        at += 7;
    }
    if flags & 4 != 0 {
        objects.push(Object::whole("temperature_type", "", *bytes.get(at)?));
    }
    Some(objects)
}

/// Flags (bit 0 sixteen bits, 1 and 2 contact, 3 energy, 4 intervals), rate, energy, intervals of 1/1024 s.
fn heart_rate(bytes: &[u8]) -> Option<Vec<Object>> {
    let flags = *bytes.first()?;
    let (rate, mut at) = if flags & 1 == 0 { (u16::from(*bytes.get(1)?), 2) } else { (u16_le(bytes, 1)?, 3) };
    let mut objects = vec![Object::whole("heart_rate", "/min", rate)];
    if flags & 4 != 0 {
        objects.push(Object::binary("sensor_contact", flags & 2 != 0));
    }
    if flags & 8 != 0 {
        objects.push(Object::whole("energy_expended", "kJ", u16_le(bytes, at)?));
        at += 2;
    }
    if flags & 16 != 0 {
        let intervals = bytes.get(at..)?.chunks_exact(2).filter_map(|pair| u16_le(pair, 0));
        // 1/1024 s is 0.9765625 ms.
        let intervals = intervals.map(|raw| scaled(i128::from(raw), 9_765_625, 7)).collect();
        objects.push(Object::sensor("rr_intervals", "ms", Ok(Raw::List(intervals))));
    }
    Some(objects)
}

/// Flags (bit 0 kPa, 1 time, 2 pulse), three medical floats, time, pulse.
fn blood_pressure(bytes: &[u8]) -> Option<Vec<Object>> {
    let flags = *bytes.first()?;
    let unit = if flags & 1 == 0 { "mm[Hg]" } else { "kPa" };
    let part = |name, at| Some(Object::sensor(name, unit, sfloat(u16_le(bytes, at)?)));
    let mut objects = vec![part("systolic", 1)?, part("diastolic", 3)?, part("mean_arterial_pressure", 5)?];
    let mut at = 7;
    if flags & 2 != 0 {
        objects.push(time("date_time", bytes.get(at..at + 7)?));
        at += 7;
    }
    if flags & 4 != 0 {
        objects.push(Object::sensor("pulse_rate", "/min", sfloat(u16_le(bytes, at)?)));
    }
    Some(objects)
}

/// Who assigned the vendor, vendor, product, version.
fn pnp(bytes: &[u8]) -> Option<Vec<Object>> {
    Some(vec![
        Object::whole("vendor_id", "", u16_le(bytes, 1)?),
        Object::whole("product_id", "", u16_le(bytes, 3)?),
        Object::whole("product_version", "", u16_le(bytes, 5)?),
        Object::whole("vendor_id_source", "", *bytes.first()?),
    ])
}

/// Flags (bit 0 wheel, 1 crank), turns and the time of the last one in 1/1024 s.
fn cycling(bytes: &[u8]) -> Option<Vec<Object>> {
    let flags = *bytes.first()?;
    let mut objects = Vec::new();
    let mut at = 1;
    // 1/1024 s is 0.0009765625 s.
    let moment = |name, raw: u16| Object::number(name, "s", raw, 9_765_625, 10);
    if flags & 1 != 0 {
        objects.push(Object::whole("wheel_revolutions", "", u32::from_le_bytes(array(bytes, at)?)));
        objects.push(moment("wheel_event_time", u16_le(bytes, at + 4)?));
        at += 6;
    }
    if flags & 2 != 0 {
        objects.push(Object::whole("crank_revolutions", "", u16_le(bytes, at)?));
        objects.push(moment("crank_event_time", u16_le(bytes, at + 2)?));
    }
    Some(objects)
}

/// Flags, saturation and pulse of a spot check; what may follow is not read.
fn oximeter(bytes: &[u8]) -> Option<Vec<Object>> {
    Some(vec![
        Object::sensor("spo2", "%", sfloat(u16_le(bytes, 1)?)),
        Object::sensor("pulse_rate", "/min", sfloat(u16_le(bytes, 3)?)),
    ])
}

/// Flags (bit 0 pounds, 1 time, 2 user), weight in 5 g or 0.01 lb, time, user.
fn weight(bytes: &[u8]) -> Option<Vec<Object>> {
    let flags = *bytes.first()?;
    let raw = u16_le(bytes, 1)?;
    let weight = match flags & 1 {
        0 => Object::number("weight", "kg", raw, 5, 3),
        _ => Object::number("weight", "[lb_av]", raw, 1, 2),
    };
    // 0xFFFF is a measurement that did not succeed.
    let mut objects = vec![weight.only_if(raw != 0xFFFF)];
    let mut at = 3;
    if flags & 2 != 0 {
        objects.push(time("date_time", bytes.get(at..at + 7)?));
        at += 7;
    }
    if flags & 4 != 0 {
        let user = *bytes.get(at)?;
        objects.push(Object::whole("user_id", "", user).only_if(user != 0xFF));
    }
    Some(objects)
}

/// The bytes of Current Time (2A2B) for an instant in UTC: what a device is told to set its clock. An instant that the
/// format cannot hold is written as "not known".
pub fn current_time(now: Timestamp) -> [u8; 10] {
    let utc = jiff::Timestamp::from_millisecond(now.as_ms()).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
    let Some(year) = u16::try_from(utc.year()).ok().filter(|year| *year >= 1582) else { return [0; 10] };
    let [low, high] = year.to_le_bytes();
    let small = |number: i8| number.unsigned_abs();
    // 256ths of a second: at most 255.
    let fractions = u8::try_from(i32::from(utc.millisecond()) * 256 / 1000).unwrap_or(u8::MAX);
    let weekday = small(utc.weekday().to_monday_one_offset());
    let (month, day) = (small(utc.month()), small(utc.day()));
    [low, high, month, day, small(utc.hour()), small(utc.minute()), small(utc.second()), weekday, fractions, 0]
}

/// Says which of a characteristic's objects is meant: by name, else the first.
pub(crate) fn pick<'a>(objects: &'a [Object], name: Option<&str>) -> Option<&'a Object> {
    match name {
        None => objects.first(),
        Some(name) => objects.iter().find(|object| object.name == name && object.class != ObjectClass::Event),
    }
}
