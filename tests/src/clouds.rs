//! Clouds as peers: the vendor's service in Python, behind a door with TLS, in front of a real mosquitto.
//!
//! `tests/peers/cloud` says after which documentation each was written.

use std::io::{BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peers::{Mosquitto, Owned, line};
use crate::{peers_folder, root};

/// An authority of our own in a folder, with a certificate for a server on loopback and one for a client.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// New ones: `ca.crt`, `server.crt`, `client.crt` and their keys; the client's name is that of its owner.
    pub fn new(client: &str) -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let this = Self { folder };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        this.openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=ca -days 2"));
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\n";
        std::fs::write(this.path().join("names"), names).expect("files can be written");
        for (file, name) in [("server", "server"), ("client", client)] {
            this.openssl(&format!("req {key} -keyout {file}.key -out {file}.csr -subj /CN={name}"));
            let signed = "-CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names";
            this.openssl(&format!("x509 -req -in {file}.csr -out {file}.crt {signed}"));
        }
        this
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of one of the files.
    pub fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    fn openssl(&self, words: &str) {
        let done = Command::new("openssl").args(words.split(' ')).current_dir(self.path()).output();
        let done = done.expect("openssl can be started: run tests/run once");
        assert!(done.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A cloud on loopback.
pub struct Cloud {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
    _process: Owned,
    _broker: Mosquitto,
}

impl Cloud {
    /// The cloud of a vendor: `aws`, `azure` or `thingsboard`.
    pub fn start(vendor: &str, certificates: &Certificates) -> Self {
        let broker = Mosquitto::start("max_queued_messages 0\nset_tcp_nodelay true");
        let mut process = Owned(
            Command::new(peers_folder().join("venv/bin/python"))
                .arg(root().join("tests/peers/cloud/main.py"))
                .args([vendor, &broker.port().to_string(), &certificates.path().to_string_lossy()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("python can be started"),
        );
        let orders = process.0.stdin.take().expect("standard input is piped");
        let mut answers = BufReader::new(process.0.stdout.take().expect("standard output is piped"));
        let ready = line(&mut answers);
        let port = ready["ready"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        Self { orders, answers, port, _process: process, _broker: broker }
    }

    /// Its TLS port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives an order, and its answer back; `tests/peers/cloud/main.py` and the vendors' files say which there are.
    pub fn order(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("the cloud listens");
        line(&mut self.answers)
    }

    /// Ends every connection and takes no new one, or takes them again.
    pub fn link(&mut self, is_up: bool) {
        self.order(&json!({"link": if is_up { "up" } else { "down" }}));
    }

    /// Whether no rule of the vendor was broken, and nobody was refused.
    #[track_caller]
    pub fn is_content(&mut self) {
        assert_eq!(self.order(&json!({"broken": true})), json!({"broken": [], "refused": []}));
    }
}
