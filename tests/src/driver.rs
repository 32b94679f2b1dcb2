//! Peers behind a driver: a script of `tests/peers` around a program nobody here wrote.
//!
//! It takes orders, a JSON value a line, and answers each with one; its first line says that it is ready.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::{peers_folder, root};

/// Ends its process when dropped.
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A script that runs.
pub(crate) struct Driver {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Owned,
}

impl Driver {
    /// Starts `tests/peers/SCRIPT` with the Python of an environment in the peers' folder; also gives what it says of itself.
    #[track_caller]
    pub(crate) fn start(environment: &str, script: &str, words: &[&str]) -> (Self, Value) {
        let python = peers_folder().join(environment).join("bin/python");
        assert!(python.exists(), "{environment} is not installed: run tests/run once");
        let child = Command::new(python)
            .arg(root().join("tests/peers").join(script))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python can be started");
        let mut process = Owned(child);
        let orders = process.0.stdin.take().expect("standard input is piped");
        let answers = BufReader::new(process.0.stdout.take().expect("standard output is piped"));
        let mut this = Self { orders, answers, _process: process };
        let ready = this.hear();
        (this, ready["ready"].clone())
    }

    fn hear(&mut self) -> Value {
        let mut text = String::new();
        self.answers.read_line(&mut text).expect("the peer answers");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("the peer said {text:?}: {error}"))
    }

    /// Gives an order, and its answer back.
    pub(crate) fn ask(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("the peer listens");
        self.hear()
    }

    /// Gives an order that has to work, and its answer back.
    pub(crate) fn order(&mut self, order: &Value) -> Value {
        let answer = self.ask(order);
        assert_eq!(answer["ok"], true, "{order}: {answer}");
        answer
    }
}

/// A port in an answer.
pub(crate) fn port(said: &Value) -> u16 {
    said.as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_else(|| panic!("{said} is no port"))
}
