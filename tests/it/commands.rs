//! The commands as people type them, against a running gateway.

use serde_json::{Value, json};
use tests::gateway::{Gateway, Home};
use tests::peers::Pymodbus;

use crate::installation::{boiler_on_tcp, fill};

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

struct Site {
    home: Home,
    gateway: Gateway,
    peer: Pymodbus,
}

impl Site {
    fn new() -> Self {
        let mut peer = Pymodbus::tcp();
        fill(&mut peer, 1);
        let home = boiler_on_tcp(peer.port());
        let gateway = home.start();
        let site = Self { home, gateway, peer };
        tests::eventually("the device to be online", || {
            site.say(&["device", "list"]).0.contains("online").then_some(())
        });
        site
    }

    /// Runs a command against the gateway: what it said, and its exit code.
    fn say(&self, words: &[&str]) -> (String, i32) {
        let url = self.gateway.url();
        let words: Vec<&str> = words.iter().copied().chain(["--broker", url.as_str()]).collect();
        let output = self.home.tidegate(&words);
        (text(&output), output.status.code().unwrap_or(-1))
    }

    fn json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let (said, code) = self.say(&words);
        assert_eq!(code, 0, "{words:?}: {said}");
        serde_json::from_str(said.lines().next().unwrap_or(""))
            .unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
    }
}

#[test]
fn a_twin_is_read_set_and_waited_for() {
    let mut site = Site::new();
    let (said, code) = site.say(&["twin", "get", "boiler-1", "level"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("level\t17\t"), "{said}");
    assert_eq!(site.json(&["twin", "get", "boiler-1"])["device"], json!("boiler-1"));

    let (said, code) = site.say(&["twin", "set", "boiler-1", "setpoint=22", "mode=heat", "--wait"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("setpoint = 22: applied") && said.contains("mode = heat: applied"), "{said}");
    assert_eq!(site.peer.get(1, "holding", 1, 2), [220, 2]);

    let (said, code) = site.say(&["twin", "set", "boiler-1", "setpoint=99"]);
    assert_eq!((code, said.contains("setpoint: above maximum 30")), (65, true), "{said}");
    let (said, code) = site.say(&["twin", "set", "nobody", "setpoint=20"]);
    assert_eq!((code, said.contains("nobody")), (65, true), "{said}");
    let (_, code) = site.say(&["twin", "set", "boiler-1", "setpoint=20", "--if-version", "999"]);
    assert_eq!(code, 75);
    site.gateway.stop();
}

#[test]
fn devices_are_listed_shown_read_and_written() {
    let mut site = Site::new();
    let list = site.json(&["device", "list"]);
    assert_eq!(list["devices"][0]["id"], json!("boiler-1"));
    assert_eq!(list["devices"][0]["status"]["state"], json!("online"));

    let (said, code) = site.say(&["device", "show", "boiler-1"]);
    assert_eq!(code, 0, "{said}");
    for word in ["test.boiler@1.0.0", "connection plc, unit 1", "holding", "setpoint"] {
        assert!(said.contains(word), "{word} is missing: {said}");
    }
    let shown = site.json(&["device", "show", "boiler-1"]);
    let reads = shown["plan"]["groups"][0]["reads"].as_array().expect("a plan is a list of reads");
    assert!(reads.iter().any(|read| read["table"] == json!("holding")), "{shown}");

    assert_eq!(site.json(&["device", "read", "boiler-1", "holding", "0x0001", "2"])["registers"], json!([205, 1]));
    let (said, code) = site.say(&["device", "write", "boiler-1", "holding", "1", "199"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(site.peer.get(1, "holding", 1, 1), [199]);
    let (said, code) = site.say(&["device", "read", "boiler-1", "setpoint"]);
    assert_eq!((code, said.trim()), (0, "19.9\tgood"));
    let (said, code) = site.say(&["device", "write", "boiler-1", "setpoint", "21.5"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(site.peer.get(1, "holding", 1, 1), [215]);
    let (said, code) = site.say(&["device", "read", "boiler-1", "holding", "900"]);
    assert_eq!((code, said.contains("exception 2")), (65, true), "{said}");
    site.gateway.stop();
}

#[test]
fn a_scan_finds_the_unit_that_answers() {
    let site = Site::new();
    let (said, code) = site.say(&["device", "scan", "plc", "--from", "1", "--to", "3", "--json"]);
    assert_eq!(code, 0, "{said}");
    let found: Value = serde_json::from_str(said.lines().next().unwrap_or("")).unwrap();
    assert_eq!(found["found"][0]["address"], json!(1), "{found}");
    let (said, code) = site.say(&["device", "scan", "nope"]);
    assert_eq!((code, said.contains("plc")), (65, true), "{said}");
    assert_eq!(site.say(&["device", "scan", "plc", "--from", "9", "--to", "5"]).1, 2);
    assert_eq!(site.say(&["twin", "watch", "nobody"]).1, 65);
    site.gateway.stop();
}

#[test]
fn status_tells_devices_wires_and_queues() {
    let site = Site::new();
    // A wire tells its counters now and then, not with every answer.
    let status = tests::eventually("the wire to tell its answers", || {
        let status = site.json(&["status"]);
        (status["connections"]["plc"]["answers"].as_u64()? > 0).then_some(status)
    });
    assert_eq!(status["gateway"]["gateway"], json!("test-gw"));
    assert_eq!(status["gateway"]["state"], json!("online"));
    assert_eq!(status["gateway"]["devices"], json!(1));
    assert_eq!(status["connections"]["plc"]["state"], json!("open"));
    assert_eq!(status["devices"]["boiler-1"]["state"], json!("online"));
    let (said, code) = site.say(&["status"]);
    assert_eq!(code, 0);
    assert!(said.contains("test-gw") && said.contains("plc") && said.contains("boiler-1"), "{said}");
    site.gateway.stop();
}

#[test]
fn watching_prints_changes_as_they_happen() {
    let mut site = Site::new();
    let url = site.gateway.url();
    let watching = std::process::Command::new(tests::gateway::binary())
        .args(["twin", "watch", "boiler-1", "--count", "1", "--broker", &url])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    site.peer.put(1, "holding", 0, &[42]);
    let said = text(&watching.wait_with_output().unwrap());
    assert!(said.contains("boiler-1 level = 42"), "{said}");
    site.gateway.stop();
}

#[test]
fn schemas_completions_and_man_pages_are_printed() {
    let home = Home::new();
    for of in ["gateway", "profile", "users"] {
        let output = home.tidegate(&["schema", of]);
        let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(schema["type"], json!("object"), "{of}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let said = text(&home.tidegate(&["completions", shell]));
        assert!(said.contains("tidegate") && said.contains("simulate"), "{shell}");
    }
    assert!(home.tidegate(&["man", "pages"]).status.success());
    let page = std::fs::read_to_string(home.path().join("pages/tidegate-twin-set.1")).unwrap();
    assert!(page.contains("\\-\\-wait"), "{page}");
}

#[test]
fn users_are_added_listed_and_removed() {
    let home = Home::new();
    let words = ["user", "add", "hmi", "--role", "reader", "--certificate", "CN=hmi"];
    assert!(home.tidegate(&words).status.success());
    assert!(text(&home.tidegate(&["user", "list"])).contains("hmi\treader\tcertificate"));
    assert!(home.tidegate(&["user", "remove", "hmi"]).status.success());
    assert_eq!(home.tidegate(&["user", "remove", "hmi"]).status.code(), Some(65));
    let king = home.tidegate(&["user", "add", "x", "--role", "king", "--certificate", "CN=x"]);
    let told = String::from_utf8_lossy(&king.stderr).into_owned();
    assert_eq!(king.status.code(), Some(2), "{told}");
    assert!(told.contains("\"king\"") && told.contains("admin, app, mapper, reader"), "{told}");
}

#[test]
fn waiting_tells_of_the_new_wish_and_not_of_the_one_it_replaced() {
    let site = Site::new();
    let Site { home, gateway, peer } = site;
    drop(peer);
    let url = gateway.url();
    let say = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain(["--broker", url.as_str()]).collect();
        let output = home.tidegate(&words);
        (text(&output), output.status.code())
    };
    tests::eventually("the device to be offline", || say(&["device", "list"]).0.contains("offline").then_some(()));
    assert_eq!(say(&["twin", "set", "boiler-1", "setpoint=10"]).1, Some(0));
    let (said, code) = say(&["twin", "set", "boiler-1", "setpoint=12", "--wait", "--timeout", "2s"]);
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("setpoint = 12: pending"), "{said}");
    gateway.stop();
}

#[test]
fn a_flag_beats_the_environment() {
    let home = Home::with(
        "schema: 1\ngateway: {id: g, data: data}\nbroker: {listeners: [{name: a, bind: \"127.0.0.1:9\"}]}\n",
    );
    let ask = |words: &[&str]| {
        let mut command = std::process::Command::new(tests::gateway::binary());
        command.args(words).current_dir(home.path()).env("TIDEGATE_BROKER", "mqtt://127.0.0.1:8");
        text(&command.output().unwrap())
    };
    assert!(ask(&["status"]).contains("127.0.0.1:8"));
    assert!(ask(&["status", "-c", "gateway.yaml"]).contains("127.0.0.1:9"));
    assert!(ask(&["status", "--broker", "mqtt://127.0.0.1:7"]).contains("127.0.0.1:7"));
}
