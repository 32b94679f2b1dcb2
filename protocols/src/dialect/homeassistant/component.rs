//! What Home Assistant is told of one property: a component of a device's discovery message.
//!
//! In: a property of a profile, and where its topics are. Out: a platform with its options, or nothing where Home
//! Assistant has no entity for it. Must never offer a control for what the device does not let be written.
//!
//! Options as in Home Assistant's documentation of its MQTT platforms (`sensor.mqtt`, `binary_sensor.mqtt`,
//! `switch.mqtt`, `number.mqtt`, `select.mqtt`, `text.mqtt`, `button.mqtt`).

use serde_json::{Map, json};

use super::units::{self, Totals};
use crate::profile::{Kind, Profile, Property, ReportMode, Source, WriteMode};
use crate::value::Value;

/// What a sensor's state may be long, in characters; Home Assistant refuses more, so the text is cut there.
const STATE_CHARS: usize = 255;

/// What a number may be where the profile sets no bounds; Home Assistant would take 1 to 100 otherwise.
const UNBOUNDED: f64 = 1e9;

/// The smallest step Home Assistant takes for a number.
const SMALLEST_STEP_PLACES: u8 = 3;

/// Where the topics of a device's properties are.
pub(super) struct Topics<'a> {
    /// Everything of the device stands below this.
    pub(super) device: &'a str,
    /// Whether the state topics carry every reading, also one of which only the time is new.
    pub(super) live: bool,
}

impl Topics<'_> {
    fn reported(&self, property: &Property) -> String {
        format!("{}/reported/{}", self.device, property.name)
    }

    fn desired(&self, property: &Property) -> String {
        format!("{}/desired/{}", self.device, property.name)
    }
}

/// The platform of a property with its options.
pub(super) fn component(profile: &Profile, property: &Property, topics: &Topics<'_>) -> Option<Map<String, Value>> {
    let reads = property.access.reads() && property.report.mode != ReportMode::Never;
    let writes = property.access.writes();
    let mut options = match property.kind {
        Kind::Bool if writes && property.write.mode == WriteMode::Pulse => button(property),
        Kind::Bool if writes => switch(property),
        Kind::Bool if reads => binary_sensor(property),
        Kind::Int | Kind::Number if writes => number(property),
        Kind::Enum if writes => select(property),
        Kind::String if writes => text(property),
        _ if reads => sensor(property),
        _ => return None,
    };
    let platform = options.get("platform").and_then(Value::as_str).unwrap_or_default().to_owned();
    let controls = !matches!(platform.as_str(), "sensor" | "binary_sensor");
    if platform != "button" {
        // What cannot be read back shows what is wished of it.
        let state = if reads { topics.reported(property) } else { topics.desired(property) };
        options.insert("state_topic".to_owned(), json!(state));
    }
    if controls {
        options.insert("command_topic".to_owned(), json!(format!("{}/set", topics.desired(property))));
        options.insert("qos".to_owned(), json!(1));
    } else if topics.live
        && let Some(seconds) = silence(property)
    {
        options.insert("expire_after".to_owned(), json!(seconds));
    }
    options.insert("name".to_owned(), json!(title(property)));
    if let Some(category) = category(property, controls) {
        options.insert("entity_category".to_owned(), json!(category));
    }
    debug_assert!(profile.find(property.name.as_str()).is_some(), "the property is one of the profile");
    Some(options)
}

/// A property's name for people.
fn title(property: &Property) -> String {
    if let Some(title) = &property.title {
        return title.clone();
    }
    let words = property.name.as_str().replace(['_', '.', '-'], " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Home Assistant's categories: `config` is for controls alone.
fn category(property: &Property, controls: bool) -> Option<&'static str> {
    if matches!(property.source, Source::Alarm(_)) {
        return Some("diagnostic");
    }
    match (property.category.as_deref(), controls) {
        (Some("setting"), true) => Some("config"),
        (Some("setting" | "diagnostic" | "identity"), _) => Some("diagnostic"),
        _ => None,
    }
}

/// Seconds after which a value that was promised again in a stated time is too old; like the twin's own rule.
fn silence(property: &Property) -> Option<u64> {
    let heartbeat = match property.report.mode {
        ReportMode::Always => std::time::Duration::ZERO,
        _ => property.report.max_interval?,
    };
    Some((property.max_age? + heartbeat).as_secs().max(1))
}

fn options(platform: &str, template: Option<String>) -> Map<String, Value> {
    let mut options = Map::new();
    options.insert("platform".to_owned(), json!(platform));
    if let Some(template) = template {
        options.insert("value_template".to_owned(), json!(template));
    }
    options
}

/// `None` is Home Assistant's word for an unknown state; a bad reading, whose value is `null`, becomes that.
fn truth(on: &str, off: &str) -> Option<String> {
    Some(format!("{{{{ value_json.value | iif('{on}', '{off}', 'None') }}}}"))
}

fn plain() -> Option<String> {
    Some("{{ value_json.value }}".to_owned())
}

fn button(property: &Property) -> Map<String, Value> {
    let rest = property.write.rest.as_ref().and_then(Value::as_bool).unwrap_or(false);
    let mut options = options("button", None);
    options.insert("payload_press".to_owned(), json!((!rest).to_string()));
    options
}

fn switch(property: &Property) -> Map<String, Value> {
    let mut options = options("switch", truth("true", "false"));
    for (key, payload) in
        [("payload_on", "true"), ("payload_off", "false"), ("state_on", "true"), ("state_off", "false")]
    {
        options.insert(key.to_owned(), json!(payload));
    }
    if let Some(class) = units::switch_class(property.class.as_deref()) {
        options.insert("device_class".to_owned(), json!(class));
    }
    options
}

fn binary_sensor(property: &Property) -> Map<String, Value> {
    let mut options = options("binary_sensor", truth("ON", "OFF"));
    let alarm = matches!(property.source, Source::Alarm(_)).then_some("problem");
    if let Some(class) = units::binary_class(property.class.as_deref()).or(alarm) {
        options.insert("device_class".to_owned(), json!(class));
    }
    options
}

fn number(property: &Property) -> Map<String, Value> {
    let mut options = options("number", plain());
    let unit = property.unit.as_deref().and_then(units::unit);
    if let Some((class, _)) = units::number_class(property.class.as_deref(), unit.as_deref()) {
        options.insert("device_class".to_owned(), json!(class));
    }
    if let Some(unit) = unit {
        options.insert("unit_of_measurement".to_owned(), json!(unit));
    }
    let (range_min, range_max) = property.range.map_or((None, None), |range| (range.min, range.max));
    let min = property.write.min.or(range_min).unwrap_or(-UNBOUNDED);
    let max = property.write.max.or(range_max).unwrap_or(UNBOUNDED);
    options.insert("min".to_owned(), json!(min));
    options.insert("max".to_owned(), json!(if max > min { max } else { min + 1.0 }));
    let places = property.scaling.precision.unwrap_or(property.scaling.scale.places).min(SMALLEST_STEP_PLACES);
    let finest = 0.1_f64.powi(SMALLEST_STEP_PLACES.into());
    // In thousandths, so that 0.1 is written as 0.1.
    let step = property.write.step.unwrap_or_else(|| 1.0 / 10_f64.powi(places.into())).max(finest);
    options.insert("step".to_owned(), json!(step));
    options
}

fn words(property: &Property) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    for word in property.labels.values() {
        if !words.contains(&word.as_str()) {
            words.push(word);
        }
    }
    words
}

/// A raw value without a word comes as a number, which is none of the options.
fn word() -> Option<String> {
    Some("{{ value_json.value if value_json.value is string else 'None' }}".to_owned())
}

fn select(property: &Property) -> Map<String, Value> {
    let mut options = options("select", word());
    options.insert("options".to_owned(), json!(words(property)));
    options.insert("command_template".to_owned(), json!("{{ value | to_json }}"));
    options
}

fn text(_property: &Property) -> Map<String, Value> {
    let mut options = options("text", cut("value_json.value"));
    options.insert("command_template".to_owned(), json!("{{ value | to_json }}"));
    options
}

fn cut(expression: &str) -> Option<String> {
    Some(format!("{{{{ 'None' if value_json.value is none else ({expression} | string)[:{STATE_CHARS}] }}}}"))
}

fn sensor(property: &Property) -> Map<String, Value> {
    match property.kind {
        Kind::Int | Kind::Number => measurement(property),
        Kind::Enum => {
            let mut options = options("sensor", word());
            options.insert("device_class".to_owned(), json!("enum"));
            options.insert("options".to_owned(), json!(words(property)));
            options
        }
        Kind::Datetime => {
            let mut options = options("sensor", plain());
            options.insert("device_class".to_owned(), json!("timestamp"));
            options
        }
        Kind::Flags => options("sensor", cut("(value_json.value | join(', ') or '-')")),
        Kind::Array | Kind::Object => options("sensor", cut("value_json.value | to_json")),
        Kind::Bool | Kind::String | Kind::Bytes => options("sensor", cut("value_json.value")),
    }
}

fn measurement(property: &Property) -> Map<String, Value> {
    let mut options = options("sensor", plain());
    let unit = property.unit.as_deref().and_then(units::unit);
    let class = units::number_class(property.class.as_deref(), unit.as_deref());
    if let Some((class, _)) = class {
        options.insert("device_class".to_owned(), json!(class));
    }
    let totals = class.map_or(Totals::Both, |(_, totals)| totals);
    let of_its_time = !matches!(property.category.as_deref(), Some("setting" | "identity"));
    let state_class = match totals {
        _ if property.counter.is_some() && totals != Totals::Never => Some("total_increasing"),
        // A number without a unit may be anything, a code too: no statistics are made of it.
        _ if unit.is_none() && class.is_none() => None,
        Totals::Only if of_its_time => Some("total"),
        Totals::Never | Totals::Both if of_its_time => Some("measurement"),
        _ => None,
    };
    if let Some(state_class) = state_class {
        options.insert("state_class".to_owned(), json!(state_class));
    }
    if let Some(unit) = unit {
        options.insert("unit_of_measurement".to_owned(), json!(unit));
    }
    if let Some(precision) = property.scaling.precision {
        options.insert("suggested_display_precision".to_owned(), json!(precision));
    }
    options
}
