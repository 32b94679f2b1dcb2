//! Gateway and users files as people write them: the contract's example, and mistakes with the place and the remedy.

mod external;
mod wires;

use super::*;
use crate::profile::{Library, Parity};
use crate::yaml::{Complaint, Complaints, read};

const SDM630: &str = include_str!("../../../../tests/data/profiles/eastron-sdm630.yaml");
const NMEA: &str = include_str!("../../../../tests/data/profiles/nmea-gps.yaml");

/// The example of the contract, section 5, without its empty lines.
const CONTRACT: &str = r#"schema: 1
gateway: {id: plant-7, data: /var/lib/tidegate}
profiles: [profiles]
broker:
  listeners:
    - {name: local, bind: "127.0.0.1:1883"}
    - {name: lan, bind: "0.0.0.0:8883", tls: {cert: tls/gw.crt, key: tls/gw.key, client_ca: tls/ca.crt}}
    - {name: browser, bind: "127.0.0.1:9001", websocket: true}
  users: users.yaml
  anonymous: local-only
  limits: {clients: 200, packet_bytes: 262144, inflight: 32, queue_bytes: 1048576}
connections:
  bus1:  {modbus: {serial: {port: /dev/serial/by-id/usb-FTDI, baud: 9600, parity: none}, timeout: 500ms}}
  plc:   {modbus: {tcp: "192.168.1.10:502", timeout: 1s}}
  gps:   {serial: {port: /dev/ttyACM0, baud: 9600}}
  radio: {ble: {adapter: hci0}}
devices:
  - {id: meter-1, profile: eastron.sdm630, connection: bus1, params: {unit: 1}}
  - {id: meter-2, profile: eastron.sdm630, connection: bus1, params: {unit: 2}, override: {groups: {fast: {interval: 5s}}}}
upstream:
  - {name: cloud, dialect: plain, url: "mqtts://broker.example:8883", prefix: "site/plant-7", client_id: plant-7, password_file: secrets/cloud}
web: {bind: "127.0.0.1:8080"}
"#;

fn library() -> Library {
    let mut library = Library::new();
    let mut complaints = Complaints::new();
    library.searched("the built-in profiles");
    library.add("sdm630.yaml", SDM630, true, &mut complaints);
    library.add("nmea.yaml", NMEA, true, &mut complaints);
    assert!(complaints.is_empty());
    library
}

struct Read {
    config: Option<Config>,
    warnings: String,
    complaints: String,
}

fn shown(complaints: Complaints) -> String {
    complaints
        .into_sorted()
        .iter()
        .map(|complaint: &Complaint| format!("{complaint}\n").replace("gateway.yaml:", ""))
        .collect()
}

fn parse(text: &str) -> Read {
    let (mut warnings, mut complaints) = (Complaints::new(), Complaints::new());
    let tree = read("gateway.yaml", text, &mut complaints);
    let config = tree.and_then(|tree| gateway(&tree, &mut library(), &mut warnings, &mut complaints));
    Read { config, warnings: shown(warnings), complaints: shown(complaints) }
}

#[test]
fn the_contracts_example_is_read_as_it_stands() {
    let Read { config, warnings, complaints } = parse(CONTRACT);
    assert_eq!(complaints, "");
    assert_eq!(
        warnings,
        "22:1: this version does not serve the web page yet\n  it is checked and left alone; nothing listens there\n"
    );
    let config = config.unwrap();
    assert_eq!((config.id.as_str(), config.data.as_str()), ("plant-7", "/var/lib/tidegate"));
    assert_eq!(config.broker.listeners.len(), 3);
    assert_eq!(config.broker.listeners[1].bind, "0.0.0.0:8883".parse().unwrap());
    assert!(config.broker.listeners[2].websocket);
    assert_eq!(config.broker.limits, Limits::default());
    assert_eq!((config.twin.root.as_str(), config.twin.flush), ("twin", Duration::from_secs(5)));
    // The connections this version cannot hold are checked and left out.
    assert_eq!(config.connections.keys().collect::<Vec<_>>(), ["bus1", "gps", "plc", "radio"]);
    assert_eq!(config.connections["bus1"].timeout, Duration::from_millis(500));
    assert_eq!(config.connections["plc"].wire, Wire::Tcp("192.168.1.10:502".to_owned()));
    let [one, two] = config.devices.as_slice() else { panic!("two devices") };
    assert_eq!((one.id.as_str(), one.unit, two.unit), ("meter-1", 1, 2));
    assert_eq!(two.profile.groups[0].interval, Duration::from_secs(5));
    let [upstream] = config.upstream.as_slice() else { panic!("one upstream") };
    assert_eq!(upstream.client_id.as_deref(), Some("plant-7"));
    assert_eq!(upstream.dialect, upstream::Dialect::Plain { prefix: "site/plant-7".to_owned() });
    assert_eq!(upstream.address(), Some(("broker.example".to_owned(), 8883)));
    assert_eq!(upstream.password_file.as_deref(), Some("secrets/cloud"));
    assert_eq!(upstream.devices, upstream::Filter::default());
    assert_eq!(config.web.as_deref(), Some("127.0.0.1:8080"));
}

#[test]
fn a_file_that_says_little_gets_safe_defaults() {
    let config = parse("schema: 1\ngateway: {id: g}\n").config.unwrap();
    assert_eq!(config.broker.listeners.len(), 1);
    assert!(config.broker.listeners[0].bind.ip().is_loopback());
    assert_eq!(config.broker.anonymous, Anonymous::LocalOnly);
    assert_eq!((config.data.as_str(), config.devices.len()), ("data", 0));
}

#[test]
fn a_mistake_is_told_with_its_place_and_what_would_be_right() {
    let head = "schema: 1\ngateway: {id: g}\nconnections: {bus: {modbus: {serial: {port: /dev/a}}}, gps: {serial: {port: /dev/b}}}\n";
    let mut wrong = Vec::new();
    for (body, expected) in [
        (
            "devcies: []\n",
            "4:1: unknown key \"devcies\"\n  did you mean \"devices\"? known here: broker, compat, connections, devices, gateway, profiles, schema, twin, upstream, web\n",
        ),
        ("devices: {}\n", "4:10: \"devices\" is a map\n  write a list […] (The devices)\n"),
        (
            "devices: [{id: a, profile: eastron.sdm630, connection: bus}, {id: a, profile: eastron.sdm630, connection: bus, params: {unit: 2}}]\n",
            "4:67: a second device \"a\"\n  the first is in line 4; ids name topics and are unique\n",
        ),
        (
            "devices: [{id: a, profile: eastron.sdm630, connection: bus}, {id: A, profile: eastron.sdm630, connection: bus, params: {unit: 2}}]\n",
            "4:67: \"A\" and \"a\" differ in case only\n  \"a\" is in line 4; give one of them a clearly different id\n",
        ),
        (
            "devices: [{id: a, profile: eastron.sdm630, connection: bus}, {id: b, profile: eastron.sdm630, connection: bus, params: {unit: 1}}]\n",
            "4:127: unit 1 on \"bus\" is taken by \"a\"\n  give every device on a wire a unit of its own: params: {unit: …}\n",
        ),
        (
            "devices: [{id: a, profile: generic.nmea0183-gps, connection: gps}, {id: b, profile: generic.nmea0183-gps, connection: gps}]\n",
            "4:119: \"b\" and \"a\" would hear and say the same on \"gps\"\n  put it on a line of its own, or give it the parameter that tells it apart (an address, a channel)\n",
        ),
        (
            "devices: [{id: a/b, profile: eastron.sdm630, connection: bus}]\n",
            "4:16: \"id\" cannot be \"a/b\"\n  write a text such as meter-1 (",
        ),
        (
            "devices: [{id: a, profile: eastron.sdm63, connection: bus}]\n",
            "4:28: there is no profile \"eastron.sdm63\"\n  did you mean \"eastron.sdm630\"? searched: the built-in profiles\n",
        ),
        (
            "devices: [{id: a, profile: eastron.sdm630, connection: bsu}]\n",
            "4:56: there is no connection \"bsu\"\n  did you mean \"bus\"? connections: bus, gps\n",
        ),
        (
            "devices: [{id: a, profile: generic.nmea0183-gps, connection: bus}]\n",
            "4:28: \"generic.nmea0183-gps\" is a serial profile, but \"bus\" is a modbus connection\n  take a connection of its own: {serial: …}\n",
        ),
        (
            "devices: [{id: a, profile: eastron.sdm630, connection: bus, override: {groups: {fast: {intervall: 1s}}}}]\n",
            "4:88: unknown key \"intervall\"\n  did you mean \"interval\"? known here: atomic, interval, phase, report\n",
        ),
        (
            "devices: [{profile: eastron.sdm630, connection: bus}]\n",
            "4:11: \"id\" is missing in \"devices\"\n  write id: a text such as meter-1 (",
        ),
        (
            "broker: {listeners: [{name: a, bind: \"localhost:1883\"}]}\n",
            "4:38: \"bind\" cannot be \"localhost:1883\"\n  write a text such as 127.0.0.1:1883, [::1]:1883",
        ),
        (
            "broker: {listeners: [{name: a, bind: \"127.0.0.1:70000\"}]}\n",
            "4:38: \"127.0.0.1:70000\" is no address\n  write four numbers up to 255 and a port up to 65535: 127.0.0.1:1883\n",
        ),
        (
            "broker: {listeners: [{name: a, bind: \"127.0.0.1:1883\"}, {name: a, bind: \"127.0.0.1:1884\"}]}\n",
            "4:64: a second listener \"a\"\n  give it another name\n",
        ),
        (
            "broker: {listeners: [{name: a, bind: \"127.0.0.1:1883\"}, {name: b, bind: \"0.0.0.0:1883\"}]}\n",
            "4:73: 0.0.0.0:1883 is taken by the listener \"a\"\n  take another port\n",
        ),
        (
            "broker: {anonymous: local_only}\n",
            "4:21: \"anonymous\" cannot be \"local_only\"\n  did you mean \"local-only\"? write one of: never, local-only, always",
        ),
        (
            "broker: {limits: {clients: 0}}\n",
            "4:28: \"clients\" cannot be 0: too small\n  write a whole number from 1 to 100000",
        ),
        ("twin: {root: \"twin/#\"}\n", "4:14: \"root\" cannot be \"twin/#\"\n  write a text such as twin"),
        ("upstream: [{name: c}]\n", "4:12: \"dialect\" is missing in \"upstream\"\n  "),
        ("upstream: [{name: c, dialect: plain}]\n", "4:12: \"url\" is missing\n  write url: \"mqtts://host:8883\"\n"),
        (
            "upstream: [{name: c, dialect: plian, url: \"mqtt://h\"}]\n",
            "4:31: \"dialect\" cannot be \"plian\"\n  did you mean \"plain\"?",
        ),
        (
            "upstream: [{name: c, dialect: plain, url: \"http://h\"}]\n",
            "4:43: \"url\" has a wrong form\n  write a text such as mqtts://",
        ),
        (
            "upstream: [{name: c, dialect: plain, url: \"mqtt://u:secret@h\"}]\n",
            "4:43: \"url\" has a wrong form\n  write a text such as mqtts://",
        ),
        (
            "upstream: [{name: c, dialect: plain, url: \"mqtt://h:0\"}]\n",
            "4:43: the port is not from 1 to 65535\n  MQTT has 1883, with TLS 8883\n",
        ),
        (
            "upstream: [{name: c, dialect: plain, url: \"mqtt://h\", aws: {thing: t}}]\n",
            "4:55: \"aws\" means nothing with another dialect\n  take it out, or write dialect: aws\n",
        ),
        (
            "upstream: [{name: c, dialect: plain, url: \"mqtt://h\", tls: {cert: a}}]\n",
            "4:43: tls files and an address without TLS\n  write mqtts:// instead of mqtt://\n4:55: a client certificate needs its key, and a key its certificate\n  name both\n",
        ),
        (
            "upstream: [{name: c, dialect: aws, url: \"mqtts://h\", prefix: x, aws: {thnig: t}}]\n",
            "4:54: \"prefix\" means nothing with this dialect\n  take it out\n4:71: unknown key \"thnig\"\n  did you mean \"thing\"?",
        ),
        (
            "upstream: [{name: c, dialect: plain, url: \"mqtt://h\"}, {name: C, dialect: plain, url: \"mqtt://h\", client_id: x}]\n",
            "4:63: a second upstream \"C\"\n  the first is in line 4; give one of them another name\n",
        ),
        (
            "upstream: [{name: c, dialect: plain, url: \"mqtt://h\"}, {name: d, dialect: plain, url: \"mqtt://h\"}]\n",
            "4:87: \"d\" and \"c\" go to one place with one client id\n  give one of them another client_id\n",
        ),
        (
            "upstream: [{name: c, dialect: plain, url: \"mqtt://h\", prefix: \"a/#\"}]\n",
            "4:63: \"prefix\" cannot be \"a/#\"\n  write",
        ),
        (
            "upstream: [{name: c, dialect: homeassistant, prefix: a}]\n",
            "4:54: \"prefix\" needs a url\n  without one, it is the broker in here\n",
        ),
    ] {
        let found = parse(&format!("{head}{body}")).complaints;
        let fits = if expected.ends_with('\n') { found == expected } else { found.starts_with(expected) };
        if !fits {
            wrong.push(format!("\n{body}found:    {found:?}\nexpected: {expected:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn what_is_open_to_the_world_is_said() {
    let head = "schema: 1\ngateway: {id: g}\nbroker:\n  listeners: [{name: lan, bind: \"0.0.0.0:1883\"}]\n";
    for (body, expected) in [
        (
            "",
            "4:33: \"lan\" serves nobody but this machine: there are no users\n  name a users file (broker: {users: users.yaml}) and add one with tidegate user add\n",
        ),
        (
            "  users: users.yaml\n",
            "4:33: passwords for 0.0.0.0:1883 travel in the clear\n  write tls: {cert: …, key: …} for this listener\n",
        ),
        (
            "  anonymous: always\n",
            "4:33: anybody who reaches 0.0.0.0:1883 may read and set everything\n  write anonymous: local-only and name a users file\n",
        ),
    ] {
        let read = parse(&format!("{head}{body}"));
        assert_eq!((read.complaints.as_str(), read.warnings.as_str()), ("", expected), "{body}");
        assert!(read.config.is_some());
    }
}

#[test]
fn mistakes_in_different_sections_are_told_at_once() {
    let text = "schema: 1\ngateway: {id: g, dat: x}\nbroker: {listeners: [{name: a}]}\nconnections: {b: {modbus: {tcp: 5}}}\ndevices: [{id: x, profile: no.such, connection: c}]\n";
    let found = parse(text).complaints;
    let places: Vec<&str> =
        found.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["2:18", "3:22", "4:33", "5:28", "5:49"], "{found}");
}

#[test]
fn a_mistake_in_the_form_hides_no_mistake_in_the_meaning_and_causes_none() {
    let wire = "connections: {bus: {modbus: {tcp: \"h:502\"}}}\n";
    let head = "schema: 1\ngateway: {id: \"a b\"}\n";
    let mut wrong = Vec::new();
    for (body, expected) in [
        ("broker: {anonymous: nope, listeners: [{name: a, bind: \"x:1\"}, {name: a, bind: \"127.0.0.1:1\"}, {name: b, bind: \"127.0.0.1:1\"}]}\n".to_owned(), vec!["3:21", "3:55", "3:70", "3:111"]),
        (format!("broker: {{anonymus: never}}\n{wire}devices: [{{id: a, profile: no.such, connection: bus}}]\n"), vec!["3:10", "5:28"]),
        (format!("{wire}devices: [{{id: a/b, profile: eastron.sdm630, connection: bus}}, {{id: b, profile: eastron.sdm630, connection: bus, params: {{unit: 1}}}}]\n"), vec!["4:16", "4:129"]),
        (format!("{wire}devices: [{{id: a, profile: eastron.sdm630, connection: bus, override: {{groups: {{fast: {{intervall: 1s}}}}, properties: {{power: {{group: no}}}}}}}}]\n"), vec!["4:88", "4:133"]),
        ("conections: {bus: {modbus: {tcp: \"h:502\"}}}\ndevices: [{id: a, profile: eastron.sdm630, connection: bus}]\n".to_owned(), vec!["3:1"]),
        ("connections: {bus: {modbus: {tpc: \"h:502\"}}}\ndevices: [{id: a, profile: eastron.sdm630, connection: bus}]\n".to_owned(), vec!["3:30"]),
        ("connections: {bus: 5}\ndevices: [{id: a, profile: eastron.sdm630, connection: bus}]\n".to_owned(), vec!["3:20"]),
        ("connections: {bus: {modbus: {tcp: \"h:502\", timeout: 5}}}\ndevices: [{id: a, profile: eastron.sdm630, connection: bsu}]\n".to_owned(), vec!["3:53", "4:56"]),
    ] {
        let found = parse(&format!("{head}{body}"));
        let places: Vec<&str> = found
            .complaints
            .lines()
            .filter(|line| !line.starts_with(' '))
            .filter_map(|line| line.split(": ").next())
            .collect();
        if places.split_first() != Some((&"2:15", expected.as_slice())) || found.config.is_some() {
            wrong.push(format!("\n{body}found {}\nexpected {expected:?}\n", found.complaints));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

proptest::proptest! {
    #[test]
    fn a_damaged_gateway_file_is_never_a_panic_and_never_read_as_whole(at in 0_usize..1_500, length in 0_usize..40, with in "[a-z0-9:{}\\[\\], $\"'-]{0,6}") {
        let text: String = CONTRACT.chars().take(at).chain(with.chars()).chain(CONTRACT.chars().skip(at + length)).collect();
        let mut form = Complaints::new();
        drop(read("gateway.yaml", &text, &mut form));
        let read = parse(&text);
        // A key that stands twice is a complaint about the text; whoever loads it refuses it for that.
        proptest::prop_assert!(read.config.is_none() || read.complaints.is_empty() || !form.is_empty());
        proptest::prop_assert!(read.config.is_some() || !read.complaints.is_empty());
    }
}

#[test]
fn a_users_file_is_read_and_checked() {
    let hash = "\"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo\"";
    let parse = |text: &str| {
        let mut complaints = Complaints::new();
        let tree = read("gateway.yaml", text, &mut complaints).unwrap();
        let users = users::read(&tree, &mut complaints);
        (users, shown(complaints))
    };
    let good = format!(
        "schema: 1\nusers:\n  - {{name: ha, password: {hash}, role: app}}\n  - {{name: m, certificate: \"CN=mapper-1\", role: mapper, publish: [\"x/%c/#\"]}}\n  - {{name: v, password: {hash}, role: viewer}}\nroles: {{viewer: {{subscribe: [\"%r/+/reported/#\"]}}}}\n"
    );
    let (users, complaints) = parse(&good);
    assert_eq!(complaints, "");
    let users = users.unwrap();
    assert_eq!(users.by_certificate("CN=mapper-1").map(|user| user.name.as_str()), Some("m"));
    assert!(users.role_of(users.find("m").unwrap()).unwrap().mapper);
    assert_eq!(users.role_of(users.find("v").unwrap()).unwrap().subscribe, ["%r/+/reported/#"]);
    assert!(!format!("{users:?}").contains("argon2id"), "a hash is never printed");
    for (body, expected) in [
        (
            "{name: a, password: geheim, role: app}",
            "3:25: \"password\" has a wrong form\n  write a text such as $argon2id$v=19$… (The argon2id hash of the password, as `tidegate user add` writes it)\n",
        ),
        (
            "{name: a, role: app}",
            "3:12: \"a\" has no way to prove who it is\n  run tidegate user add, or write certificate: \"CN=…\"\n",
        ),
        (
            "{name: a, certificate: \"CN=a\", role: readr}",
            "3:42: there is no role \"readr\"\n  did you mean \"reader\"? roles: admin, app, mapper, reader\n",
        ),
        (
            "{name: a, certificate: \"CN=a\", role: app, publish: [\"a/#/b\"]}",
            "3:57: \"a/#/b\" is no topic filter\n  \"+\" and \"#\" stand alone between slashes, \"#\" at the end\n",
        ),
        (
            "{name: a, certificate: \"CN=a\", role: app}\n  - {name: a, certificate: \"CN=b\", role: app}",
            "4:12: a second user \"a\"\n  names are unique\n",
        ),
        (
            "{name: a, certificat: \"CN=a\", role: app}\n  - {name: b, certificate: \"CN=b\", role: readr}",
            "3:15: unknown key \"certificat\"\n  did you mean \"certificate\"? known here: certificate, name, password, publish, role, subscribe\n4:42: there is no role \"readr\"\n  did you mean \"reader\"? roles: admin, app, mapper, reader\n",
        ),
    ] {
        let (users, complaints) = parse(&format!("schema: 1\nusers:\n  - {body}\n"));
        assert_eq!(complaints, expected, "{body}");
        assert!(users.is_none());
    }
}

#[test]
fn an_upstream_says_what_may_leave_the_site_in_either_form() {
    let head = "schema: 1\ngateway: {id: g}\nupstream: [{name: c, dialect: plain, url: \"mqtt://h\", ";
    for (body, include, exclude) in [
        ("devices: [a, \"m*\"]", &["a", "m*"][..], &[][..]),
        ("devices: {exclude: [a]}", &[], &["a"]),
        ("devices: {include: [\"m*\"], exclude: [m1]}", &["m*"], &["m1"]),
    ] {
        let found = parse(&format!("{head}{body}}}]\n"));
        assert_eq!(found.complaints, "", "{body}");
        let config = found.config.unwrap();
        let filter = &config.upstream[0].devices;
        assert_eq!(
            (
                filter.include.iter().map(String::as_str).collect::<Vec<_>>(),
                filter.exclude.iter().map(String::as_str).collect::<Vec<_>>()
            ),
            (include.to_vec(), exclude.to_vec()),
            "{body}"
        );
    }
}
