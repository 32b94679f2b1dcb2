//! Discovery as Home Assistant's documentation has it, and the rules of this dialect. What Home Assistant itself makes of it
//! is shown in `tests/it/home_assistant.rs`.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::super::for_tests::*;
use super::*;

fn elsewhere() -> HomeAssistant {
    HomeAssistant::new("homeassistant", Some("plant-7"), Vec::new())
}

fn embedded() -> HomeAssistant {
    HomeAssistant::new("homeassistant", None, Vec::new())
}

fn discovery(publishes: &[Publish], object: &str) -> Value {
    let topic = format!("homeassistant/device/{object}/config");
    let found = publishes.iter().rev().find(|publish| publish.topic == topic);
    json_of(found.unwrap_or_else(|| panic!("no {topic}")))
}

/// Keys and their places after "Device discovery payload" of Home Assistant's MQTT documentation, written out in full
/// instead of `dev`, `o`, `cmps`, `p`; unit, class and state class of the shipped boiler by `sensor.mqtt` and its kin.
#[test]
fn every_property_becomes_the_component_that_home_assistant_has_for_it() {
    let said = elsewhere().connected(&site(), false, now(1));
    let boiler = discovery(&said, "tidegate_plant-7_boiler-1");
    let state = |name: &str| format!("plant-7/twin/boiler-1/reported/{name}");
    let command = |name: &str| format!("plant-7/twin/boiler-1/desired/{name}/set");
    for (name, expected) in [
        (
            "temperature",
            json!({"platform": "sensor", "name": "Water temperature", "device_class": "temperature",
            "state_class": "measurement", "unit_of_measurement": "°C", "suggested_display_precision": 1,
            "state_topic": state("temperature"), "value_template": "{{ value_json.value }}",
            "unique_id": "tidegate_plant-7_boiler-1_temperature"}),
        ),
        (
            "energy",
            json!({"platform": "sensor", "name": "Heat delivered", "device_class": "energy",
            "state_class": "total_increasing", "unit_of_measurement": "kWh", "suggested_display_precision": 3,
            "state_topic": state("energy"), "value_template": "{{ value_json.value }}",
            "unique_id": "tidegate_plant-7_boiler-1_energy"}),
        ),
        (
            "burner",
            json!({"platform": "binary_sensor", "name": "Burner lit", "device_class": "heat",
            "state_topic": state("burner"), "value_template": "{{ value_json.value | iif('ON', 'OFF', 'None') }}",
            "unique_id": "tidegate_plant-7_boiler-1_burner"}),
        ),
        (
            "setpoint",
            json!({"platform": "number", "name": "Wanted room temperature", "device_class": "temperature",
            "unit_of_measurement": "°C", "min": 5.0, "max": 30.0, "step": 0.5, "entity_category": "config", "qos": 1,
            "state_topic": state("setpoint"), "command_topic": command("setpoint"),
            "value_template": "{{ value_json.value }}", "unique_id": "tidegate_plant-7_boiler-1_setpoint"}),
        ),
        (
            "mode",
            json!({"platform": "select", "name": "Operating mode", "options": ["off", "eco", "comfort", "boost"],
            "entity_category": "config", "qos": 1, "state_topic": state("mode"), "command_topic": command("mode"),
            "command_template": "{{ value | to_json }}",
            "value_template": "{{ value_json.value if value_json.value is string else 'None' }}",
            "unique_id": "tidegate_plant-7_boiler-1_mode"}),
        ),
        (
            "pump",
            json!({"platform": "switch", "name": "Circulation pump", "device_class": "switch",
            "payload_on": "true", "payload_off": "false", "state_on": "true", "state_off": "false",
            "entity_category": "config", "qos": 1, "state_topic": state("pump"), "command_topic": command("pump"),
            "value_template": "{{ value_json.value | iif('true', 'false', 'None') }}",
            "unique_id": "tidegate_plant-7_boiler-1_pump"}),
        ),
        (
            "reset_faults",
            json!({"platform": "button", "name": "Clear the faults", "payload_press": "true",
            "entity_category": "config", "qos": 1, "command_topic": command("reset_faults"),
            "unique_id": "tidegate_plant-7_boiler-1_reset_faults"}),
        ),
        (
            "overheated",
            json!({"platform": "binary_sensor", "name": "Overheated", "device_class": "problem",
            "entity_category": "diagnostic", "state_topic": state("overheated"),
            "value_template": "{{ value_json.value | iif('ON', 'OFF', 'None') }}",
            "unique_id": "tidegate_plant-7_boiler-1_overheated"}),
        ),
        ("headroom", Value::Null),
    ] {
        assert_eq!(boiler["components"][name], expected, "{name}");
    }
    assert_eq!(boiler["components"]["room"]["platform"], "text");
    assert_eq!(boiler["components"]["faults"]["platform"], "sensor");
    assert_eq!(
        boiler["device"],
        json!({"identifiers": ["tidegate_plant-7_boiler-1"], "name": "boiler-1",
        "manufacturer": "Tidegate", "model": "Demo boiler", "model_id": "tidegate.demo_boiler", "via_device": "tidegate_plant-7"})
    );
    let online = "{{ 'online' if value_json.state == 'online' else 'offline' }}";
    assert_eq!(
        boiler["availability"],
        json!([{"topic": "plant-7/gateway/status", "value_template": online},
        {"topic": "plant-7/twin/boiler-1/status", "value_template": online}])
    );
    assert_eq!((&boiler["availability_mode"], &boiler["origin"]["name"]), (&json!("all"), &json!("Tidegate")));
    assert!(said.iter().filter(|publish| publish.topic.ends_with("/config")).all(|publish| publish.retain));
}

#[test]
fn an_id_with_a_dot_gets_an_object_id_of_its_own() {
    // FNV-1a of "a.b", 32 bits: computed by an independent implementation (Python).
    for (name, expected) in [("a_b", "a_b"), ("a.b", "a_b-108bf50c"), ("energy-1", "energy-1")] {
        assert_eq!(object_id(name), expected);
    }
    let said = elsewhere().connected(&site(), false, now(1));
    let topics: Vec<&str> =
        said.iter().map(|publish| publish.topic.as_str()).filter(|topic| topic.contains("meter")).collect();
    assert_eq!(topics.len(), 1);
    assert!(topics[0].starts_with("homeassistant/device/tidegate_plant-7_meter_1-"), "{topics:?}");
}

#[test]
fn with_the_embedded_broker_only_discovery_is_said_and_the_topics_are_the_local_ones() {
    let (mut dialect, site) = (embedded(), site());
    let said = dialect.connected(&site, false, now(1));
    assert!(said.iter().all(|publish| publish.topic.starts_with("homeassistant/device/")), "{said:?}");
    let boiler = discovery(&said, "tidegate_plant-7_boiler-1");
    assert_eq!(boiler["components"]["setpoint"]["command_topic"], "twin/boiler-1/desired/setpoint/set");
    assert_eq!(boiler["availability"][0]["topic"], "gateway/status");
    assert_eq!(dialect.subscriptions(&site), [("homeassistant/status".to_owned(), 1)]);
    assert!(!["status", "reported/a", "desired/a"].iter().any(|text| dialect.wants(&item(text))));
    assert_eq!(dialect.session(&site), Session::default());
}

#[test]
fn the_plain_topics_are_said_at_another_broker() {
    let (mut dialect, site) = (elsewhere(), site());
    let reported = json!({"value": 61.5, "quality": "good", "at": "2026-11-22T12:00:00.000Z", "version": 118});
    let saying = dialect.say(
        &batch("boiler-1", &[("reported/temperature", reported.clone()), ("desired/mode", Value::Null)]),
        &site,
        now(1),
    );
    assert_eq!(pair(&saying.publishes[0]), ("plant-7/twin/boiler-1/reported/temperature".to_owned(), reported));
    assert_eq!(
        (saying.publishes[1].topic.as_str(), saying.publishes[1].payload.len()),
        ("plant-7/twin/boiler-1/desired/mode", 0)
    );
    assert!(saying.publishes.iter().all(|publish| publish.retain && publish.qos == 1));
    let will = dialect.session(&site).will.unwrap();
    assert_eq!(pair(&will), ("plant-7/gateway/status".to_owned(), json!({"gateway": "plant-7", "state": "offline"})));
}

#[test]
fn commands_are_wishes_unless_they_are_old_or_nonsense() {
    let (mut dialect, site) = (elsewhere(), site());
    for (topic, payload, retain, expected) in [
        ("plant-7/twin/boiler-1/desired/setpoint/set", "22.5", false, Some(r#"boiler-1: {"setpoint":22.5}"#)),
        ("plant-7/twin/boiler-1/desired/mode/set", "\"eco\"", false, Some(r#"boiler-1: {"mode":"eco"}"#)),
        ("plant-7/twin/boiler-1/desired/mode/set", "", false, Some(r#"boiler-1: {"mode":null}"#)),
        ("plant-7/twin/boiler-1/desired/mode/set", "eco", false, None),
        ("plant-7/twin/boiler-1/desired/mode/set", "\"eco\"", true, None),
        ("plant-7/twin/stranger/desired/mode/set", "\"eco\"", false, None),
        ("plant-7/twin/boiler-1/reported/mode", "\"eco\"", false, None),
        (
            "plant-7/twin/boiler-1/desired/set",
            r#"{"patch":{"mode":"eco"}}"#,
            false,
            Some(r#"boiler-1: {"mode":"eco"}"#),
        ),
    ] {
        let said = Message { topic: topic.to_owned(), payload: payload.into(), retain, ..Message::default() };
        let heard = dialect.hear(&said, &site, now(1));
        assert_eq!(wished(&heard), expected.into_iter().collect::<Vec<_>>(), "{topic} {payload}");
        assert!(expected.is_some() || matches!(heard[..], [Heard::Senseless(_)]), "{topic} {payload}");
    }
}

#[test]
fn everything_is_announced_again_when_home_assistant_comes_back() {
    let (mut dialect, site) = (elsewhere(), site());
    let first = dialect.connected(&site, false, now(1));
    assert!(dialect.tick(&site, now(2)).is_empty(), "no change is no traffic");
    let birth = Message { topic: "homeassistant/status".to_owned(), payload: b"online".to_vec(), ..Message::default() };
    let again = says(&dialect.hear(&birth, &site, now(3)));
    let configs = |said: &[Publish]| said.iter().filter(|publish| publish.topic.ends_with("/config")).count();
    assert_eq!((configs(&again), configs(&first)), (3, 3));
    let gone = Message { payload: b"offline".to_vec(), ..birth.clone() };
    assert!(dialect.hear(&gone, &site, now(4)).is_empty());
    let kept = Message { retain: true, ..birth };
    assert!(dialect.hear(&kept, &site, now(5)).is_empty());
    assert_eq!(configs(&dialect.connected(&site, true, now(6))), 1, "a session that was kept needs no devices again");
}

#[test]
fn what_is_gone_is_taken_back_also_after_a_restart() {
    let mut dialect = elsewhere();
    let both = site();
    dialect.connected(&both, false, now(1));
    let memory: Vec<(String, String)> =
        dialect.memory().into_iter().filter_map(|(key, text)| Some((key, text?))).collect();
    let mut one = site();
    one.devices.remove("meter.1");
    let mut dialect = HomeAssistant::new("homeassistant", Some("plant-7"), memory);
    let said = dialect.connected(&one, false, now(1));
    let cleared: Vec<&str> =
        said.iter().filter(|publish| publish.payload.is_empty()).map(|publish| publish.topic.as_str()).collect();
    assert!(matches!(cleared[..], [topic] if topic.contains("meter_1")), "{cleared:?}");
    assert_eq!(dialect.memory(), [("device/meter.1".to_owned(), None)]);

    // A profile that lost a property: first the component with its platform alone, then without it.
    let short = "schema: 1\nid: tidegate.demo_boiler\nversion: 2.0.0\nmeta: {vendor: Tidegate, model: Demo boiler}\nproperties:\n  level: {type: int, from: {modbus: {table: holding, address: 0, type: uint16}}}\n";
    one.devices.insert(id("boiler-1"), profile_of(short));
    let said = dialect.tick(&one, now(2));
    let bodies: Vec<Value> = said.iter().map(json_of).collect();
    assert_eq!(bodies[0]["components"]["temperature"], json!({"platform": "sensor"}));
    assert_eq!(bodies[1]["components"].as_object().unwrap().keys().collect::<Vec<_>>(), ["level"]);
}

#[test]
fn a_thousand_devices_are_announced_a_few_at_a_time() {
    let mut many = site();
    let profile = many.devices["boiler-1"].clone();
    many.devices = (0..1000).map(|number| (id(&format!("d{number}")), Arc::clone(&profile))).collect();
    let mut dialect = elsewhere();
    let mut counts = vec![dialect.connected(&many, false, now(1)).len() - 2];
    while counts.last() != Some(&0) {
        counts.push(dialect.tick(&many, now(1 + counts.len() as u64)).len());
    }
    assert_eq!((counts.len(), counts.iter().max(), counts.iter().sum::<usize>()), (21, Some(&50), 1000));
}

proptest! {
    #[test]
    fn no_message_makes_it_panic_or_invent(messages in prop::collection::vec(any_message(&[
        "homeassistant/status", "plant-7/twin/boiler-1/desired/setpoint/set", "plant-7/twin/boiler-1/desired/set",
        "plant-7/twin/boiler-1/get", "plant-7/twin/boiler-1/reported/setpoint"]), 1..12)) {
        survives(&mut elsewhere(), &messages);
        survives(&mut embedded(), &messages);
    }
}
