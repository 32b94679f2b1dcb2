//! A KubeEdge mapper on grpcio, in a process of its own (`tests/peers/kubeedge_mapper.py`).

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::driver::Driver;
use crate::{eventually, root};

/// What older and newer versions of gRPC's Go client make of `/etc/kubeedge/dmi.sock` when a dialer of one's own is given,
/// as KubeEdge's mapper-framework does.
pub const AUTHORITIES: [&str; 2] = ["/etc/kubeedge/dmi.sock", "%2Fetc%2Fkubeedge%2Fdmi.sock"];

/// The mapper.
pub struct KubeMapper {
    driver: Driver,
    gateway: PathBuf,
    own: PathBuf,
    authority: &'static str,
}

impl KubeMapper {
    /// A mapper that calls the gateway at a socket and serves at another.
    pub fn start(gateway: &Path, own: &Path) -> Self {
        let proto = root().join("gateway/proto");
        let (driver, ready) = Driver::start("venv", "kubeedge_mapper.py", &[&proto.to_string_lossy()]);
        assert_eq!(ready, true);
        Self { driver, gateway: gateway.to_path_buf(), own: own.to_path_buf(), authority: AUTHORITIES[1] }
    }

    /// Calls with this authority from now on.
    pub fn calling(mut self, authority: &'static str) -> Self {
        self.authority = authority;
        self
    }

    fn order(&mut self, mut order: Value) -> Value {
        order["at"] = json!(self.gateway);
        order["authority"] = json!(self.authority);
        self.driver.ask(&order)
    }

    /// Serves, or ends it.
    pub fn serve(&mut self, on: bool) {
        let own = on.then(|| self.own.clone());
        self.order(json!({"serve": own}));
    }

    /// Registers for a protocol; gives the answer.
    pub fn register(&mut self, protocol: &str, with_data: bool) -> Value {
        // Protobuf's JSON has bytes in base 64.
        let mapper = json!({
            "name": "py-mapper", "version": "v1.0", "api_version": "v1.0.0", "protocol": protocol,
            "address": BASE64_STANDARD.encode(self.own.to_string_lossy().as_bytes()), "state": "ok",
        });
        self.order(json!({"register": {"withData": with_data, "mapper": mapper}}))
    }

    /// Reports a property, and what the mapper takes for desired of it.
    pub fn report(&mut self, device: &str, property: &str, observed: &str, reported: &str) -> Value {
        let order = json!({"report": report(device, property, observed, reported)});
        self.order(order)
    }

    /// Reports so many times, each on a connection of its own: how many were taken, and in how many seconds.
    pub fn reports(&mut self, count: u32, device: &str, property: &str, reported: &str) -> (u64, f64) {
        let answer = self.order(json!({"reports": count, "report": report(device, property, "", reported)}));
        (answer["taken"].as_u64().unwrap_or(0), answer["seconds"].as_f64().unwrap_or(0.0))
    }

    /// Any report.
    pub fn raw_report(&mut self, request: &Value) -> Value {
        self.order(json!({"report": request}))
    }

    /// Says how a device is.
    pub fn state(&mut self, device: &str, state: &str) -> Value {
        self.order(json!({"states": {"deviceName": device, "deviceNamespace": "default", "state": state}}))
    }

    /// From now on calls at the mapper end with this text.
    pub fn refuse(&mut self, text: Option<&str>) {
        self.order(json!({"refuse": text}));
    }

    /// The calls since the last time.
    pub fn calls(&mut self) -> Vec<(String, Value)> {
        let answer = self.order(json!({"calls": true}));
        let calls = answer["calls"].as_array().cloned().unwrap_or_default();
        calls.into_iter().map(|call| (call[0].as_str().unwrap_or("").to_owned(), call[1].clone())).collect()
    }

    /// Waits for so many calls; gives all there were.
    #[track_caller]
    pub fn wait_for_calls(&mut self, count: usize) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        eventually("the mapper to be called", || {
            all.extend(self.calls());
            (all.len() >= count).then(|| std::mem::take(&mut all))
        })
    }
}

fn report(device: &str, property: &str, observed: &str, reported: &str) -> Value {
    let twin = json!({
        "propertyName": property,
        "observedDesired": {"value": observed, "metadata": {"type": "string"}},
        "reported": {"value": reported, "metadata": {"timestamp": "1700000000004", "type": "string"}},
    });
    json!({"deviceName": device, "deviceNamespace": "default", "reportedDevice": {"twins": [twin]}})
}
