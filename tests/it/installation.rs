//! The small installation most tests use: one profile with every kind of property, and a gateway that reads it.

use tests::gateway::Home;

/// A profile with a value of every table, one register the peer refuses, and writable settings.
pub(crate) const PROFILE: &str = r#"
schema: 1
id: test.boiler
version: 1.0.0
meta: {vendor: Test, model: Boiler}
params:
  unit: {type: int, min: 1, max: 247, default: 1}
groups:
  fast: {interval: 100ms}
modbus:
  unit: "${unit}"
  timeout: 400ms
  retries: 1
  offline: {after_failures: 2, probe_min: 200ms, probe_max: 1s}
properties:
  level: {type: int, group: fast, from: {modbus: {table: holding, address: 0, type: uint16}}}
  setpoint:
    type: number
    access: rw
    group: fast
    scale: 0.1
    unit: Cel
    write: {min: 5, max: 30, retries: 1}
    from: {modbus: {table: holding, address: 1, type: int16}}
  mode:
    type: enum
    access: rw
    group: fast
    enum: {0: off, 1: eco, 2: heat}
    from: {modbus: {table: holding, address: 2, type: uint16}}
  target: {type: number, access: rw, group: fast, from: {modbus: {table: holding, address: 4, type: float32}}}
  energy: {type: int, group: fast, from: {modbus: {table: holding, address: 6, type: uint64}}}
  pump: {type: bool, access: rw, group: fast, from: {modbus: {table: coil, address: 5}}}
  flame: {type: bool, group: fast, from: {modbus: {table: discrete, address: 0}}}
  flow: {type: number, group: fast, precision: 2, from: {modbus: {table: input, address: 3, type: float32}}}
  refused: {type: int, group: fast, from: {modbus: {table: holding, address: 3, type: uint16}}}
tests:
  - name: a level
    input: {modbus: {holding: {"0": [7]}}}
    expect: {level: 7}
"#;

/// A home with the profile and a gateway of these connections and devices, listening on a free port.
pub(crate) fn home(connections: &str, devices: &str) -> Home {
    let home = Home::with(&gateway(connections, devices));
    home.write("profiles/boiler.yaml", PROFILE);
    home
}

/// The text of `gateway.yaml` with these connections and devices.
pub(crate) fn gateway(connections: &str, devices: &str) -> String {
    format!(
        "schema: 1\n\
         gateway: {{id: test-gw, data: data}}\n\
         profiles: [profiles]\n\
         broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}]}}\n\
         twin: {{flush: 1s}}\n\
         connections:\n{connections}\n\
         devices:\n{devices}\n"
    )
}

/// A home with one boiler on Modbus TCP.
pub(crate) fn boiler_on_tcp(port: u16) -> Home {
    home(
        &format!("  plc: {{modbus: {{tcp: \"127.0.0.1:{port}\", timeout: 400ms}}}}"),
        "  - {id: boiler-1, profile: test.boiler, connection: plc, params: {unit: 1}}",
    )
}

/// Fills a pymodbus unit with what the profile reads; holding register 3 stays away and is refused.
pub(crate) fn fill(peer: &mut tests::peers::Pymodbus, unit: u8) {
    peer.put(unit, "holding", 0, &[17, 205, 1]);
    peer.put(unit, "holding", 4, &[0x41AC, 0x0000]); // 21.5, IEEE 754
    peer.put(unit, "holding", 6, &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE]); // 2^64 - 2
    peer.put(unit, "coil", 5, &[0]);
    peer.put(unit, "discrete", 0, &[1]);
    peer.put(unit, "input", 3, &[0x4148, 0x0000]); // 12.5, IEEE 754
}
