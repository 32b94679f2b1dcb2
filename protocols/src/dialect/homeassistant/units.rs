//! What Home Assistant calls a unit, and which units and totals go with a class.
//!
//! In: a UCUM code and a class from a profile. Out: Home Assistant's spelling, and whether class, unit and kind of
//! total may stand together — it shows no entity whose unit its class does not allow. Must never change a unit into another.
//!
//! Source: `homeassistant/const.py` and `homeassistant/components/{sensor,binary_sensor}/const.py` of Home Assistant
//! 2024.12; a test holds the tables against what the real package says.

/// UCUM code → Home Assistant's unit. What is not here is shown as the profile has it.
const UNITS: &[(&str, &str)] = &[
    ("1", ""),
    ("Cel", "°C"),
    ("[degF]", "°F"),
    ("K", "K"),
    ("deg", "°"),
    ("kW.h", "kWh"),
    ("W.h", "Wh"),
    ("MW.h", "MWh"),
    ("GW.h", "GWh"),
    ("kWh", "kWh"),
    ("kV.A", "kVA"),
    ("V.A", "VA"),
    ("VA", "VA"),
    ("Ohm", "Ω"),
    ("mbar", "mbar"),
    ("[psi]", "psi"),
    ("mm[Hg]", "mmHg"),
    ("[in_i'Hg]", "inHg"),
    ("l", "L"),
    ("ml", "mL"),
    ("m3", "m³"),
    ("m2", "m²"),
    ("m3/h", "m³/h"),
    ("l/min", "L/min"),
    ("l/h", "L/h"),
    ("[gal_us]", "gal"),
    ("[cft_i]", "ft³"),
    ("[in_i]", "in"),
    ("[ft_i]", "ft"),
    ("[yd_i]", "yd"),
    ("[mi_i]", "mi"),
    ("[mi_i]/h", "mph"),
    ("[ft_i]/s", "ft/s"),
    ("[kn_i]", "kn"),
    ("mm/h", "mm/h"),
    ("mm/d", "mm/d"),
    ("ug/m3", "µg/m³"),
    ("mg/m3", "mg/m³"),
    ("g/m3", "g/m³"),
    ("[ppm]", "ppm"),
    ("[ppb]", "ppb"),
    ("uS/cm", "µS/cm"),
    ("W/m2", "W/m²"),
    ("dB[A]", "dBA"),
    ("us", "µs"),
    ("ug", "µg"),
    ("[lb_av]", "lb"),
    ("[oz_av]", "oz"),
    ("By", "B"),
    ("kBy", "kB"),
    ("MBy", "MB"),
    ("GBy", "GB"),
    ("/min", "rpm"),
    ("{rpm}", "rpm"),
    ("[pH]", ""),
];

/// Which state classes a device class allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Totals {
    /// `measurement` alone.
    Never,
    /// `total` and `total_increasing` alone.
    Only,
    /// All of them.
    Both,
}

use Totals::{Both, Never, Only};

/// A sensor's device class, the units it allows (`""` is none), its state classes.
const SENSOR_CLASSES: &[(&str, &[&str], Totals)] = &[
    ("apparent_power", &["VA"], Never),
    ("aqi", &[""], Never),
    ("atmospheric_pressure", PRESSURES, Never),
    ("battery", &["%"], Never),
    ("carbon_dioxide", &["ppm"], Never),
    ("carbon_monoxide", &["ppm"], Never),
    ("conductivity", &["µS/cm", "mS/cm", "S/cm"], Never),
    ("current", &["A", "mA"], Never),
    ("data_rate", &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "kB/s", "MB/s", "GB/s"], Never),
    ("data_size", &["bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB"], Both),
    ("distance", LENGTHS, Both),
    ("duration", &["d", "h", "min", "s", "ms"], Both),
    ("energy", ENERGIES, Only),
    ("energy_storage", ENERGIES, Never),
    ("frequency", &["Hz", "kHz", "MHz", "GHz"], Never),
    ("gas", &["m³", "ft³"], Only),
    ("humidity", &["%"], Never),
    ("illuminance", &["lx"], Never),
    ("irradiance", &["W/m²"], Never),
    ("moisture", &["%"], Never),
    ("nitrogen_dioxide", &["µg/m³"], Never),
    ("nitrogen_monoxide", &["µg/m³"], Never),
    ("nitrous_oxide", &["µg/m³"], Never),
    ("ozone", &["µg/m³"], Never),
    ("ph", &[""], Never),
    ("pm1", &["µg/m³"], Never),
    ("pm10", &["µg/m³"], Never),
    ("pm25", &["µg/m³"], Never),
    ("power", &["W", "kW", "MW", "GW", "TW"], Never),
    ("power_factor", &["%", ""], Never),
    ("precipitation", &["cm", "mm", "in"], Both),
    ("precipitation_intensity", &["mm/d", "mm/h", "in/d", "in/h"], Never),
    ("pressure", PRESSURES, Never),
    ("reactive_power", &["var"], Never),
    ("signal_strength", &["dB", "dBm"], Never),
    ("sound_pressure", &["dB", "dBA"], Never),
    ("speed", &["m/s", "km/h", "mph", "ft/s", "kn", "mm/d", "mm/h"], Never),
    ("sulphur_dioxide", &["µg/m³"], Never),
    ("temperature", &["°C", "°F", "K"], Never),
    ("volatile_organic_compounds", &["µg/m³"], Never),
    ("volatile_organic_compounds_parts", &["ppb", "ppm"], Never),
    ("voltage", &["V", "mV"], Never),
    ("volume", &["m³", "ft³", "L", "mL", "gal"], Only),
    ("volume_flow_rate", &["m³/h", "L/min"], Never),
    ("volume_storage", &["m³", "ft³", "L", "mL", "gal"], Never),
    ("water", &["m³", "ft³", "L", "gal"], Only),
    ("weight", &["kg", "g", "mg", "µg", "oz", "lb"], Both),
    ("wind_speed", &["m/s", "km/h", "mph", "ft/s", "kn"], Never),
];

const PRESSURES: &[&str] = &["Pa", "hPa", "kPa", "bar", "mbar", "mmHg", "inHg", "psi"];
const LENGTHS: &[&str] = &["mm", "cm", "m", "km", "in", "ft", "yd", "mi"];
const ENERGIES: &[&str] = &["Wh", "kWh", "MWh", "GWh", "J", "kJ", "MJ", "GJ"];

/// Words of our profiles for which Home Assistant has another one.
const SYNONYMS: &[(&str, &str)] = &[("signal", "signal_strength"), ("altitude", "distance"), ("co2", "carbon_dioxide")];

/// A binary sensor's device classes.
const BINARY_CLASSES: &[&str] = &[
    "battery",
    "battery_charging",
    "carbon_monoxide",
    "cold",
    "connectivity",
    "door",
    "garage_door",
    "gas",
    "heat",
    "light",
    "lock",
    "moisture",
    "motion",
    "moving",
    "occupancy",
    "opening",
    "plug",
    "power",
    "presence",
    "problem",
    "running",
    "safety",
    "smoke",
    "sound",
    "tamper",
    "update",
    "vibration",
    "window",
];

/// A switch's device classes.
const SWITCH_CLASSES: &[&str] = &["outlet", "switch"];

/// Home Assistant's spelling of a UCUM unit; `None` where it is the number one.
pub(super) fn unit(ucum: &str) -> Option<String> {
    let known = UNITS.iter().find(|(code, _)| *code == ucum).map(|(_, unit)| *unit);
    let unit = known.unwrap_or(ucum);
    (!unit.is_empty()).then(|| unit.to_owned())
}

fn find(class: &str) -> Option<&'static (&'static str, &'static [&'static str], Totals)> {
    let class = SYNONYMS.iter().find(|(ours, _)| *ours == class).map_or(class, |(_, theirs)| theirs);
    SENSOR_CLASSES.iter().find(|(name, ..)| *name == class)
}

/// The device class of a number with its state classes, if it knows the class and allows the unit there.
pub(super) fn number_class(class: Option<&str>, unit: Option<&str>) -> Option<(&'static str, Totals)> {
    let (name, units, totals) = find(class?)?;
    units.contains(&unit.unwrap_or("")).then_some((*name, *totals))
}

/// The device class of a truth that is only read.
pub(super) fn binary_class(class: Option<&str>) -> Option<&'static str> {
    BINARY_CLASSES.iter().copied().find(|name| Some(*name) == class)
}

/// The device class of a switch.
pub(super) fn switch_class(class: Option<&str>) -> Option<&'static str> {
    SWITCH_CLASSES.iter().copied().find(|name| Some(*name) == class)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    /// What Home Assistant's own package says of its classes (`tests/peers/home_assistant.py classes` wrote it).
    const THEIRS: &str = include_str!("../../../../tests/data/homeassistant_classes.json");

    #[derive(Deserialize)]
    struct Theirs {
        sensor: BTreeMap<String, SensorClass>,
        number: BTreeMap<String, Vec<Option<String>>>,
        binary_sensor: Vec<String>,
        switch: Vec<String>,
    }

    #[derive(Deserialize)]
    struct SensorClass {
        units: Vec<Option<String>>,
        state_classes: Vec<String>,
    }

    #[test]
    fn every_class_takes_the_units_and_totals_that_the_real_package_lists() {
        let theirs: Theirs = serde_json::from_str(THEIRS).unwrap();
        for (class, units, totals) in SENSOR_CLASSES {
            let known = theirs.sensor.get(*class).unwrap_or_else(|| panic!("no class {class}"));
            let number = theirs.number.get(*class).unwrap_or_else(|| panic!("no number of class {class}"));
            for unit in *units {
                let unit = (!unit.is_empty()).then(|| (*unit).to_owned());
                assert!(known.units.contains(&unit) && number.contains(&unit), "{class} in {unit:?}");
            }
            let has = |state: &str| known.state_classes.iter().any(|known| known == state);
            let expected = match totals {
                Never => (true, false),
                Only => (false, true),
                Both => (true, true),
            };
            assert_eq!((has("measurement"), has("total_increasing")), expected, "{class}");
        }
        assert!(BINARY_CLASSES.iter().all(|class| theirs.binary_sensor.iter().any(|known| known == class)));
        assert!(SWITCH_CLASSES.iter().all(|class| theirs.switch.iter().any(|known| known == class)));
    }

    #[test]
    fn a_class_goes_only_with_its_units() {
        for (class, ucum, expected) in [
            ("temperature", "Cel", Some("temperature")),
            ("energy", "kW.h", Some("energy")),
            ("energy", "W", None),
            ("power_factor", "1", Some("power_factor")),
            ("power_factor", "deg", None),
            ("signal", "dBm", Some("signal_strength")),
            ("reactive_power", "kvar", None),
            ("latitude", "deg", None),
        ] {
            let unit = unit(ucum);
            assert_eq!(number_class(Some(class), unit.as_deref()).map(|(name, _)| name), expected, "{class} {ucum}");
        }
        assert_eq!(unit("1"), None);
        assert_eq!(unit("bar").as_deref(), Some("bar"));
        assert_eq!(unit("kvarh").as_deref(), Some("kvarh"));
    }
}
