//! The installation the Bluetooth tests run: a sensor that speaks BTHome, a twin that is visited, a lock with a passkey.

use crate::gateway::Home;

/// A sensor that only speaks; away after a silence that is longer than a connection takes, for which the scan pauses.
const SENSOR: &str = r#"schema: 1
id: test.sensor
version: 1.0.0
meta: {vendor: test, model: sensor}
params: {address: {type: string}}
groups: {adv: {interval: 1s}}
ble:
  address: ${address}
  match: {service_data: "fcd2"}
  advertisement: {decode: bthome2}
  presence: {timeout: 15s}
properties:
  temperature: {type: number, unit: Cel, group: adv, from: {ble: {object: temperature}}}
  battery: {type: int, unit: "%", group: adv, from: {ble: {object: battery}}}
  rssi: {type: int, unit: dBm, group: adv, report: {mode: always}, from: {ble: {meta: rssi}}}
"#;

/// A device that is connected to for as long as it is there.
const TWIN: &str = r#"schema: 1
id: test.twin
version: 1.0.0
meta: {vendor: test, model: twin}
params: {address: {type: string}}
groups: {slow: {interval: 1h}}
ble:
  address: ${address}
  match: {name: "bumble-twin"}
  presence: {timeout: 60s}
  gatt:
    connect: {mode: always, every: 1h, timeout: 20s, retries: 1, backoff: {min: 1s, max: 5s}}
    pairing: just_works
    characteristics:
      battery: {service: "180f", characteristic: "2a19", op: read}
      heart: {service: "180d", characteristic: "2a37", op: notify}
      label: {service: "50db505c-8ac4-4738-8448-3b1d9cc09cc5", characteristic: "50db505c-8ac4-4738-8448-3b1d9cc09cc6", op: read}
      secret: {service: "50db505c-8ac4-4738-8448-3b1d9cc09cc5", characteristic: "50db505c-8ac4-4738-8448-3b1d9cc09cc7", op: read}
      broken: {service: "50db505c-8ac4-4738-8448-3b1d9cc09cc5", characteristic: "50db505c-8ac4-4738-8448-3b1d9cc09cc8", op: read}
properties:
  battery: {type: int, unit: "%", group: slow, from: {ble: {gatt: battery}}}
  heart_rate: {type: int, group: slow, from: {ble: {gatt: heart}}}
  label: {type: string, group: slow, access: rw, from: {ble: {gatt: label, type: utf8}}}
  secret: {type: string, group: slow, from: {ble: {gatt: secret, type: utf8}}}
  broken: {type: int, group: slow, from: {ble: {gatt: broken, type: uint8}}}
"#;

/// A device that is connected to only when somebody wants something of it, and that wants its passkey.
const LOCK: &str = r#"schema: 1
id: test.lock
version: 1.0.0
meta: {vendor: test, model: lock}
params: {address: {type: string}, passkey: {type: secret}}
groups: {slow: {interval: 1h}}
ble:
  address: ${address}
  match: {name: "bumble-lock"}
  presence: {timeout: 60s}
  gatt:
    connect: {mode: interval, every: 1h, timeout: 20s, retries: 1, backoff: {min: 1s, max: 5s}}
    pairing: passkey
    passkey: "${passkey}"
    characteristics:
      state: {service: "50db505c-8ac4-4738-8448-3b1d9cc09cd5", characteristic: "50db505c-8ac4-4738-8448-3b1d9cc09cd6", op: read}
properties:
  state: {type: string, group: slow, from: {ble: {gatt: state, type: utf8}}}
"#;

/// The installation, with a free port for its broker.
pub fn home() -> Home {
    let home = Home::with(
        r#"schema: 1
gateway: {id: radio-test, data: data}
profiles: [profiles]
broker: {listeners: [{name: local, bind: "127.0.0.1:0"}]}
connections:
  radio: {ble: {adapter: hci0}}
devices:
  - {id: sensor-1, profile: test.sensor, connection: radio, params: {address: "F0:F1:F2:F3:F4:F6"}}
  - {id: twin-1, profile: test.twin, connection: radio, params: {address: "F0:F1:F2:F3:F4:F5"}}
  - {id: lock-1, profile: test.lock, connection: radio, params: {address: "F0:F1:F2:F3:F4:F8", passkey: "123456"}}
"#,
    );
    home.write("profiles/sensor.yaml", SENSOR);
    home.write("profiles/twin.yaml", TWIN);
    home.write("profiles/lock.yaml", LOCK);
    home
}

/// What a sensor says: a packet number, battery and temperature in hundredths (BTHome v2, objects 0x00, 0x01, 0x02).
pub fn packet(number: u8, battery: u8, hundredths: i16) -> Vec<u8> {
    let [low, high] = hundredths.to_le_bytes();
    vec![0x40, 0x00, number, 0x01, battery, 0x02, low, high]
}

/// An installation with one sensor of a shipped profile that reports every change at once.
pub fn simulated_home() -> Home {
    Home::with(
        r#"schema: 1
gateway: {id: radio-test, data: data}
broker: {listeners: [{name: local, bind: "127.0.0.1:0"}]}
connections:
  radio: {ble: {adapter: hci0}}
devices:
  - id: sensor-1
    profile: bthome.environment
    connection: radio
    params: {address: "F0:F1:F2:F3:F4:F6"}
    override: {groups: {adv: {report: {min_interval: 0s}}}, properties: {temperature: {deadband: null}, pressure: {deadband: null}}}
"#,
    )
}
