//! A real Home Assistant: it discovers devices over MQTT, shows them with the right units, and its services reach the device.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocols::config::upstream::{Dialect as Kind, Filter, SpoolLimits, Upstream, UpstreamTls};
use protocols::dialect::{self, Dialect, Heard, Publish, Site};
use protocols::outbox::{Batch, Item, Part, Stamp};
use protocols::profile::{Library, Profile, Wish};
use protocols::value::{Now, Timestamp};
use protocols::yaml::{Complaints, Place};
use serde_json::{Value, json};
use tests::gateway::{Gateway, Home};
use tests::mqtt::{Watch, publish_with};
use tests::peers::{HomeAssistant, Mosquitto};
use tests::{root, within};

use crate::running::{Side, port_in};

/// Home Assistant is slow to start on a busy machine, and it looks at new devices one after the other.
const PATIENCE: Duration = Duration::from_secs(60);

const AT: &str = "2026-11-22T12:00:00.000Z";

fn profile(name: &str) -> Arc<Profile> {
    let text = std::fs::read_to_string(root().join("configs/profiles").join(name)).unwrap();
    let (mut library, mut complaints) = (Library::new(), Complaints::new());
    let id = library.add(name, &text, true, &mut complaints).unwrap();
    let place = Place { file: name.into(), line: 1, column: 1 };
    let wish = Wish { profile: &id, place: &place, params: None, over: None, is_unsafe: false };
    library.resolve(&wish, &mut complaints).unwrap().profile
}

fn site(gateway: &str, devices: &[(&str, &str)]) -> Site {
    let devices: HashMap<_, _> = devices.iter().map(|(id, file)| (id.parse().unwrap(), profile(file))).collect();
    Site {
        gateway: gateway.parse().unwrap(),
        epoch: "01J0000000000000000000000A".to_owned(),
        root: "twin".to_owned(),
        devices,
    }
}

/// The dialect as the bridge makes it; without a URL it is that of the embedded broker.
fn home_assistant(url: Option<String>) -> Box<dyn Dialect> {
    let kind = Kind::HomeAssistant { discovery_prefix: "homeassistant".to_owned(), prefix: "plant-7".to_owned() };
    let week = Duration::from_secs(604_800);
    let upstream = Upstream {
        name: "ha".to_owned(),
        dialect: kind,
        url,
        client_id: None,
        username: None,
        password_file: None,
        tls: UpstreamTls::default(),
        proxy: None,
        proxy_password_file: None,
        mqtt: None,
        keep_alive: Duration::from_secs(60),
        devices: Filter::default(),
        properties: Filter::default(),
        spool: SpoolLimits { bytes: 1 << 20, alarms: week, readings: week },
        rate: 0,
        window: 32,
    };
    dialect::build(&upstream, Vec::new())
}

fn now(tick: u64) -> Now {
    Now { tick, wall: Timestamp::from_ms(1_795_348_800_000) }
}

fn send(port: u16, publishes: &[Publish]) {
    for publish in publishes {
        let mut words = vec!["-q", "1"];
        words.extend(publish.retain.then_some("-r"));
        let done = if publish.payload.is_empty() {
            clear(port, &publish.topic)
        } else {
            publish_with(port, &publish.topic, &String::from_utf8_lossy(&publish.payload), &words)
        };
        assert!(done.status.success(), "{}: {}", publish.topic, String::from_utf8_lossy(&done.stderr));
    }
}

/// An empty retained message; mosquitto_pub has a word of its own for it.
fn clear(port: u16, topic: &str) -> std::process::Output {
    let port = port.to_string();
    let words = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-r", "-n", "-t", topic];
    std::process::Command::new("mosquitto_pub").args(words).output().unwrap()
}

/// Says items of a device.
fn say(port: u16, dialect: &mut dyn Dialect, site: &Site, device: &str, parts: &[(Item, Value)]) {
    let part = |(item, content): &(Item, Value)| {
        let content = (!content.is_null()).then(|| Arc::from(content.to_string().into_bytes()));
        Part { item: item.clone(), content, stamp: Stamp(1) }
    };
    let device = Some(device.parse().unwrap());
    let batch = Batch { id: 1, device, parts: parts.iter().map(part).collect(), gateway: None };
    send(port, &dialect.say(&batch, site, now(5)).publishes);
}

fn reported(name: &str, value: Value) -> (Item, Value) {
    let quality = if value.is_null() { "bad:timeout" } else { "good" };
    (Item::Reported(name.parse().unwrap()), json!({"value": value, "quality": quality, "at": AT, "version": 3}))
}

fn status(state: &str) -> (Item, Value) {
    (Item::Status, json!({"state": state, "since": AT, "reason": null}))
}

#[track_caller]
fn shows(home: &mut HomeAssistant, entity: &str, expected: &str) -> Value {
    let mut last = Value::Null;
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(state) = home.state(entity) {
            if state["state"] == expected {
                return state;
            }
            last = state;
        }
        assert!(std::time::Instant::now() < end, "{entity} should be {expected}, it is {last}; {:#?}", home.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Warnings of Home Assistant that are about what we sent.
fn complaints(home: &mut HomeAssistant) -> Vec<String> {
    let about_us = |line: &String| {
        ["mqtt", "sensor", "number", "select", "plant-7", "boiler"].iter().any(|word| line.contains(word))
    };
    home.log().into_iter().filter(about_us).collect()
}

#[test]
fn home_assistant_discovers_a_device_at_another_broker_and_its_services_become_wishes() {
    let broker = Mosquitto::start("");
    let mut births = Watch::new(broker.port(), &["homeassistant/status"]);
    let mut commands = Watch::new(broker.port(), &["plant-7/twin/+/desired/+/set"]);
    let mut home = HomeAssistant::start(broker.port());
    let site = site("plant-7", &[("boiler-1", "tidegate.demo_boiler.yaml"), ("meter.1", "eastron.sdm630.yaml")]);
    let mut dialect = home_assistant(Some("mqtt://127.0.0.1".to_owned()));

    // Its birth message is the one that the dialect waits for.
    let birth = births.next("Home Assistant's birth message", |message| message.topic == "homeassistant/status");
    assert_eq!((birth.payload.clone(), birth.retained), (json!("online"), false));

    send(broker.port(), &dialect.connected(&site, false, now(1)));
    let parts = [
        status("online"),
        reported("temperature", json!(61.5)),
        reported("energy", json!(123_456_789.012)),
        reported("burner", json!(true)),
        reported("faults", json!(["sensor_broken", "overheated"])),
        reported("setpoint", json!(21.5)),
        reported("mode", json!("comfort")),
        reported("pump", json!(false)),
        reported("room", json!("Boiler room")),
        reported("pressure", Value::Null),
        reported("overheated", json!(false)),
    ];
    say(broker.port(), dialect.as_mut(), &site, "boiler-1", &parts);
    say(broker.port(), dialect.as_mut(), &site, "meter.1", &[status("online")]);

    for (entity, state, attributes) in [
        (
            "sensor.boiler_1_water_temperature",
            "61.5",
            json!({"unit_of_measurement": "°C", "device_class": "temperature", "state_class": "measurement"}),
        ),
        (
            "sensor.boiler_1_heat_delivered",
            "123456789.012",
            json!({"unit_of_measurement": "kWh", "device_class": "energy", "state_class": "total_increasing"}),
        ),
        (
            "sensor.boiler_1_water_pressure",
            "unknown",
            json!({"unit_of_measurement": "bar", "device_class": "pressure"}),
        ),
        ("sensor.boiler_1_faults", "sensor_broken, overheated", json!({})),
        ("binary_sensor.boiler_1_burner_lit", "on", json!({"device_class": "heat"})),
        ("binary_sensor.boiler_1_overheated", "off", json!({"device_class": "problem"})),
        (
            "number.boiler_1_wanted_room_temperature",
            "21.5",
            json!({"min": 5.0, "max": 30.0, "step": 0.5, "unit_of_measurement": "°C"}),
        ),
        ("select.boiler_1_operating_mode", "comfort", json!({"options": ["off", "eco", "comfort", "boost"]})),
        ("switch.boiler_1_circulation_pump", "off", json!({"device_class": "switch"})),
        ("text.boiler_1_name_on_the_display", "Boiler room", json!({})),
        ("button.boiler_1_clear_the_faults", "unknown", json!({})),
        ("binary_sensor.plant_7_connection", "on", json!({"device_class": "connectivity"})),
    ] {
        let shown = shows(&mut home, entity, state);
        for (key, expected) in attributes.as_object().unwrap() {
            assert_eq!(&shown["attributes"][key], expected, "{entity} {key}");
        }
    }
    let devices = home.list("config/device_registry/list");
    let find =
        |name: &str| devices.iter().find(|device| device["name"] == name).unwrap_or_else(|| panic!("no device {name}"));
    assert_eq!(find("boiler-1")["via_device_id"], find("plant-7")["id"]);
    assert_eq!(
        (&find("boiler-1")["model"], &find("meter.1")["manufacturer"]),
        (&json!("Demo boiler"), &json!("Eastron"))
    );

    // Every kind of control arrives as one wish of the right value.
    for (service, entity, data, expected) in [
        (
            "number.set_value",
            "number.boiler_1_wanted_room_temperature",
            json!({"value": 22.5}),
            json!({"setpoint": 22.5}),
        ),
        ("select.select_option", "select.boiler_1_operating_mode", json!({"option": "eco"}), json!({"mode": "eco"})),
        ("switch.turn_on", "switch.boiler_1_circulation_pump", json!({}), json!({"pump": true})),
        (
            "text.set_value",
            "text.boiler_1_name_on_the_display",
            json!({"value": "Attic \"B\""}),
            json!({"room": "Attic \"B\""}),
        ),
        ("button.press", "button.boiler_1_clear_the_faults", json!({}), json!({"reset_faults": true})),
    ] {
        let mut data = data;
        data["entity_id"] = json!(entity);
        home.call(service, &data);
        let said = commands.next(service, |_| true);
        // mosquitto_sub's line was read as JSON; this writes the same JSON again.
        let message =
            dialect::Message { topic: said.topic, payload: said.payload.to_string().into(), ..Default::default() };
        let heard = dialect.hear(&message, &site, now(9));
        let [Heard::Wish(wish)] = &heard[..] else { panic!("{service}: {heard:?}") };
        assert_eq!((wish.device.as_str(), json!(wish.patch)), ("boiler-1", expected), "{service}");
    }

    // Away is unavailable, whoever is away; a device that is gone is gone.
    say(broker.port(), dialect.as_mut(), &site, "boiler-1", &[status("stale")]);
    shows(&mut home, "sensor.boiler_1_water_temperature", "unavailable");
    say(broker.port(), dialect.as_mut(), &site, "boiler-1", &[status("online")]);
    shows(&mut home, "sensor.boiler_1_water_temperature", "61.5");
    send(broker.port(), &[dialect.session(&site).will.unwrap()]);
    shows(&mut home, "sensor.boiler_1_water_temperature", "unavailable");
    shows(&mut home, "binary_sensor.plant_7_connection", "off");
    let mut less = site.clone();
    less.devices.retain(|device, _| device.as_str() != "boiler-1");
    send(broker.port(), &dialect.tick(&less, now(10)));
    within(PATIENCE, "the device to be gone", || {
        home.state("sensor.boiler_1_water_temperature").is_none().then_some(())
    });
    assert_eq!(complaints(&mut home), Vec::<String>::new());
}

#[test]
fn a_service_call_ends_at_the_simulated_device_through_the_embedded_broker() {
    let folder = Home::new();
    let demo = Gateway::start(folder.path(), &["demo", "--data", "demo-data", "--port", "0"]);
    let mut watch =
        Watch::new(demo.port(), &["gateway/status", "twin/+/status", "twin/+/reported/+", "twin/+/desired/+"]);
    let said = watch.next("the demo's gateway status", |message| message.topic == "gateway/status");
    let gateway = said.at("/gateway").as_str().unwrap().to_owned();
    watch.value("twin/boiler/status", "/state", &json!("online"));
    let mut home = HomeAssistant::start(demo.port());

    let site = site(&gateway, &[("boiler", "tidegate.demo_boiler.yaml")]);
    let mut dialect = home_assistant(None);
    send(demo.port(), &dialect.connected(&site, false, now(1)));

    home_is_at(&mut home, "number.boiler_wanted_room_temperature");
    let wish = json!({"entity_id": "number.boiler_wanted_room_temperature", "value": 17.5});
    home.call("number.set_value", &wish);
    watch.value("twin/boiler/desired/setpoint", "/state", &json!("applied"));
    watch.value("twin/boiler/reported/setpoint", "/value", &json!(17.5));
    shows(&mut home, "number.boiler_wanted_room_temperature", "17.5");
    home.call("select.select_option", &json!({"entity_id": "select.boiler_operating_mode", "option": "boost"}));
    shows(&mut home, "select.boiler_operating_mode", "boost");
    assert_eq!(complaints(&mut home), Vec::<String>::new());
    demo.stop();
}

#[test]
fn the_gateway_tells_home_assistant_by_itself_and_a_service_call_ends_at_the_simulated_modbus_device() {
    let broker = Mosquitto::start("");
    let home = Home::new();
    let mut device = Side::start(&home, &["simulate", "tidegate.demo_boiler", "--tcp", "127.0.0.1:0"]);
    let upstream = format!(
        "{{name: ha, dialect: homeassistant, url: \"mqtt://127.0.0.1:{}\", client_id: plant-7}}",
        broker.port()
    );
    home.write(
        "gateway.yaml",
        &format!(
            "schema: 1\ngateway: {{id: plant-7, data: data}}\n\
             broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}]}}\n\
             connections: {{plc: {{modbus: {{tcp: \"127.0.0.1:{}\"}}}}}}\n\
             devices: [{{id: boiler, profile: tidegate.demo_boiler, connection: plc}}]\nupstream: [{upstream}]\n",
            port_in(&device.line("listening"))
        ),
    );
    let gateway = home.start();
    let watch = Watch::new(gateway.port(), &["twin/+/reported/+", "twin/+/desired/+"]);
    // it comes later than the gateway: discovery is retained, and said again at its birth
    let mut assistant = HomeAssistant::start(broker.port());
    home_is_at(&mut assistant, "number.boiler_wanted_room_temperature");
    let setpoint = "number.boiler_wanted_room_temperature";
    assistant.call("number.set_value", &json!({"entity_id": setpoint, "value": 17.5}));
    // the mapper writes, reads the register back and says so
    watch.value("twin/boiler/desired/setpoint", "/state", &json!("applied"));
    watch.value("twin/boiler/desired/setpoint", "/by", &json!("ha"));
    watch.value("twin/boiler/reported/setpoint", "/value", &json!(17.5));
    shows(&mut assistant, setpoint, "17.5");
    assistant.call("select.select_option", &json!({"entity_id": "select.boiler_operating_mode", "option": "boost"}));
    watch.value("twin/boiler/reported/mode", "/value", &json!("boost"));
    shows(&mut assistant, "select.boiler_operating_mode", "boost");
    // killed, it is unavailable by its will; back, it goes on where it was
    gateway.kill();
    shows(&mut assistant, setpoint, "unavailable");
    shows(&mut assistant, "binary_sensor.plant_7_connection", "off");
    let gateway = home.start();
    shows(&mut assistant, setpoint, "17.5");
    shows(&mut assistant, "binary_sensor.plant_7_connection", "on");
    // a device that is away is unavailable, the gateway is not
    drop(device);
    shows(&mut assistant, setpoint, "unavailable");
    shows(&mut assistant, "binary_sensor.plant_7_connection", "on");
    assert_eq!(complaints(&mut assistant), Vec::<String>::new());
    gateway.stop();
}

fn home_is_at(home: &mut HomeAssistant, entity: &str) {
    within(PATIENCE, entity, || {
        let state = home.state(entity)?;
        state["state"].as_str()?.parse::<f64>().ok()
    });
}
