//! What a process costs, as the kernel counts it, and helpers: this same binary, started again for one purpose.
//!
//! Sources: proc(5) for `stat`, `status`, `io` and `smaps_rollup`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// `utime` and `stime` of `/proc/PID/stat` count in hundredths of a second on every Linux we run on (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Processor time a process has used, user and system, all threads.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks; fields are counted behind it, from the third.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    TICK * (ticks(14) + ticks(15))
}

/// Resident memory of a process in bytes (`Rss` of `smaps_rollup`).
pub fn rss(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
}

/// The most resident memory a process ever had, in bytes (`VmHWM` of `status`).
pub fn peak(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/status"), "VmHWM:")
}

fn kilobytes(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default()
        * 1024
}

/// Bytes a process has caused to be written to storage (`write_bytes` of `io`).
pub fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or_default()
}

/// Cores, processor, load average and date, in one line.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let said = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    format!(
        "{cores} cores ({}), {}; load average {}; {}",
        name.map_or("unknown", str::trim),
        said("uname", &["-srm"]),
        load(),
        said("date", &["-u", "+%F %R UTC"]),
    )
}

/// The load average of the last minute.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// What `mosquitto` calls itself.
pub fn mosquitto_version() -> String {
    // It has no switch for that: the first line of its help says it, and its exit code is 3.
    let output = Command::new("/usr/sbin/mosquitto").arg("-h").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("mosquitto of an unknown version").to_owned()
}

/// This binary in a process of its own. It takes orders line by line and answers line by line; it is ended when
/// dropped, and ends by itself when nobody is left to give orders.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts it; the words come back from [`super::child`].
    pub fn start(words: &[String]) -> Self {
        let own = std::env::current_exe().expect("a running program has a path");
        let mut child = Command::new(own)
            .arg("--child")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary can be started again");
        let orders = child.stdin.take().expect("standard input is piped");
        let answers = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Self { child, orders, answers }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it says; empty when it has ended.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a pipe can be read");
        line.trim_end().to_owned()
    }

    /// Gives an order and waits for the answer.
    pub fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("the helper listens");
        self.hear()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
