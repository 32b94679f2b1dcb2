//! Clouds as peers: the vendor's service in Python, behind a door with TLS, in front of a real mosquitto.
//!
//! `tests/peers/cloud` says after which documentation each was written.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::driver::{self, Driver};
use crate::peers::Mosquitto;

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
    driver: Driver,
    port: u16,
    _broker: Mosquitto,
}

impl Cloud {
    /// The cloud of a vendor: `aws`, `azure` or `thingsboard`.
    pub fn start(vendor: &str, certificates: &Certificates) -> Self {
        let broker = Mosquitto::start("max_queued_messages 0\nset_tcp_nodelay true");
        let words = [vendor, &broker.port().to_string(), &certificates.path().to_string_lossy()];
        let (driver, ready) = Driver::start("venv", "cloud/main.py", &words);
        Self { driver, port: driver::port(&ready), _broker: broker }
    }

    /// Its TLS port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives an order, and its answer back; `tests/peers/cloud/main.py` and the vendors' files say which there are.
    pub fn order(&mut self, order: &Value) -> Value {
        self.driver.ask(order)
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
