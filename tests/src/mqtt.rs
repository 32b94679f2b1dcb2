//! mosquitto's clients and Paho as the other side of the broker.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::gateway::collect;
use crate::{eventually, peers_folder};

/// Runs `mosquitto_pub` to its end: MQTT 5, QoS 1.
pub fn publish(port: u16, topic: &str, payload: &str) -> Output {
    publish_with(port, topic, payload, &["-V", "5", "-q", "1"])
}

/// Runs `mosquitto_pub` to its end with further words.
pub fn publish_with(port: u16, topic: &str, payload: &str, words: &[&str]) -> Output {
    let mut child = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", topic])
        // It does not send an empty standard input.
        .arg(if payload.is_empty() { "-n" } else { "-s" })
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub can be started: run tests/run once");
    child.stdin.take().expect("standard input is piped").write_all(payload.as_bytes()).expect("mosquitto_pub reads");
    child.wait_with_output().expect("mosquitto_pub ends")
}

/// One message as `mosquitto_sub` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload as JSON; a text where it is none.
    pub payload: Value,
    /// Whether it was retained.
    pub retained: bool,
}

impl Message {
    /// A field of the payload, by JSON pointer; `Null` where there is none.
    pub fn at(&self, pointer: &str) -> Value {
        self.payload.pointer(pointer).cloned().unwrap_or_default()
    }
}

/// Where [`Watch::plain`] sees that it listens.
const READY: &str = "tests/ready";

/// A `mosquitto_sub` in the background.
pub struct Watch {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    seen: usize,
}

impl Watch {
    /// Subscribes to filters, QoS 1, and waits until the broker has said yes: what is published from now on is heard.
    ///
    /// # Panics
    /// When it does not say so in time.
    #[track_caller]
    pub fn new(port: u16, filters: &[&str]) -> Self {
        // It tells of its SUBACK only among everything else it does, and through a pipe only line by line.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "-d"]);
        let watch = Self::start(command, port, filters);
        let lines = Arc::clone(&watch.lines);
        eventually("the subscriptions to be made", || {
            let lines = lines.lock().expect("no reader panics");
            lines.iter().any(|line| line.starts_with("Subscribed (mid: ")).then_some(())
        });
        watch
    }

    /// The same for benches: the other side does nothing but take messages. That it listens is seen by a retained message
    /// of this harness, which stays on the broker.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[track_caller]
    pub fn plain(port: u16, filters: &[&str]) -> Self {
        publish_with(port, READY, "1", &["-q", "1", "-r"]);
        let watch = Self::start(Command::new("mosquitto_sub"), port, &[filters, &[READY]].concat());
        eventually("the subscriptions to be made", || {
            let mut lines = watch.lines.lock().expect("no reader panics");
            let at = lines.iter().position(|line| line.split(' ').nth(1) == Some(READY))?;
            lines.remove(at);
            Some(())
        });
        watch
    }

    fn start(mut command: Command, port: u16, filters: &[&str]) -> Self {
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-V", "5", "-F", "%r %t %p"]);
        for filter in filters {
            command.args(["-t", filter]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("mosquitto_sub can be started: run tests/run once");
        let lines = collect(child.stdout.take().expect("standard output is piped"));
        Self { child, lines, seen: 0 }
    }

    /// How many messages there were so far.
    pub fn count(&self) -> usize {
        self.lines.lock().expect("no reader panics").iter().filter(|line| is_message(line)).count()
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Message> {
        self.lines.lock().expect("no reader panics").iter().filter_map(|line| parse(line)).collect()
    }

    /// The next message, after those already given, that `fits`; those before it are passed over.
    ///
    /// # Panics
    /// When none comes in time.
    #[track_caller]
    pub fn next(&mut self, what: &str, fits: impl Fn(&Message) -> bool) -> Message {
        let lines = self.lines.clone();
        let seen = &mut self.seen;
        eventually(what, move || {
            let lines = lines.lock().expect("no reader panics");
            while let Some(line) = lines.get(*seen) {
                *seen += 1;
                if let Some(message) = parse(line).filter(&fits) {
                    return Some(message);
                }
            }
            None
        })
    }

    /// Waits until the latest message on a topic has this value at the JSON pointer.
    ///
    /// # Panics
    /// When that does not come in time.
    #[track_caller]
    pub fn value(&self, topic: &str, pointer: &str, expected: &Value) -> Message {
        eventually(&format!("{topic} with {pointer} = {expected}"), || {
            let latest = self.all().into_iter().rev().find(|message| message.topic == topic)?;
            protocols::value::same(&latest.at(pointer), expected).then_some(latest)
        })
    }
}

#[allow(clippy::print_stderr, reason = "a test that fails has to show what the other side said")]
impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.lines.lock().map(|lines| lines.clone()).unwrap_or_default();
            let tail = lines.len().saturating_sub(30);
            eprintln!("--- the last of {} messages\n{}\n---", lines.len(), lines[tail..].join("\n"));
        }
    }
}

/// What else mosquitto_sub prints does not begin so.
fn is_message(line: &str) -> bool {
    line.starts_with("0 ") || line.starts_with("1 ")
}

fn parse(line: &str) -> Option<Message> {
    if !is_message(line) {
        return None;
    }
    let (retained, rest) = line.split_once(' ')?;
    let (topic, payload) = rest.split_once(' ').unwrap_or((rest, ""));
    let payload = serde_json::from_str(payload).unwrap_or_else(|_| Value::String(payload.to_owned()));
    Some(Message { topic: topic.to_owned(), payload, retained: retained == "1" })
}

/// What is retained under filters right now.
pub fn retained(port: u16, filters: &[&str]) -> Vec<Message> {
    let mut command = Command::new("mosquitto_sub");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-q",
        "1",
        "-F",
        "%r %t %p",
        "--retained-only",
        "-W",
        "1",
    ]);
    for filter in filters {
        command.args(["-t", filter]);
    }
    let output = command.output().expect("mosquitto_sub can be started: run tests/run once");
    String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect()
}

/// The retained messages of exactly these topics, as soon as all of them are there.
///
/// # Panics
/// When one of them is not there in time.
#[track_caller]
pub fn retained_of(port: u16, topics: &[&str]) -> Vec<Message> {
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-F", "%r %t %p", "--retained-only"]);
    command.args(["-W", "20", "-C", &topics.len().to_string()]);
    for topic in topics {
        command.args(["-t", topic]);
    }
    let output = command.output().expect("mosquitto_sub can be started: run tests/run once");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let find = |topic: &&str| {
        let message = said.lines().filter_map(parse).find(|message| message.topic == **topic);
        message.unwrap_or_else(|| panic!("{topic} is not retained: {said}"))
    };
    topics.iter().map(find).collect()
}

/// Runs a Python script with Paho at hand; it fails the test when the script fails.
///
/// # Panics
/// When the script ends badly; its output says why.
#[track_caller]
pub fn paho(script: &str, words: &[&str]) -> String {
    let output = Command::new(peers_folder().join("venv/bin/python"))
        .args(["-c", script])
        .args(words)
        .output()
        .expect("python can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A Python script with Paho at hand, in the background. It is killed when dropped.
pub struct Script {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// Starts it.
    pub fn start(script: &str, words: &[&str]) -> Self {
        let mut command = Command::new(peers_folder().join("venv/bin/python"));
        command.args(["-c", script]).args(words).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("python can be started");
        let lines = collect(child.stdout.take().expect("standard output is piped"));
        Self { child, lines }
    }

    /// What it printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// Waits for its end, and gives all it printed.
    pub fn end(mut self) -> Vec<String> {
        eventually("the script to end", || self.child.try_wait().expect("a child can be asked"));
        // The reader may be a moment behind the end of the process.
        std::thread::sleep(std::time::Duration::from_millis(20));
        self.lines()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
