//! Imports of small objects written for these tests, in both versions of the API.

use super::*;
use crate::profile::Library;
use crate::yaml::Complaint;

const BETA: &str = r#"apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: boiler, namespace: default}
spec:
  protocol: modbus
  properties:
    - {name: temperature, description: room temperature, type: FLOAT, accessMode: ReadOnly, minimum: "-40", maximum: "125", unit: Celsius}
    - {name: setpoint, type: INT, accessMode: ReadWrite, minimum: "5", maximum: "30"}
    - {name: switch, type: BOOLEAN, accessMode: ReadWrite}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: plc-1, namespace: default, labels: {description: boiler PLC}}
spec:
  deviceModelRef: {name: boiler}
  nodeName: edge-node
  protocol: {protocolName: modbus, configData: {ip: 172.17.0.3, port: 1502, slaveID: 4}}
  methods:
    - {name: setValue, propertyNames: [switch]}
  properties:
    - name: temperature
      collectCycle: 10000000000
      reportToCloud: true
      visitors: {protocolName: modbus, configData: {register: InputRegister, offset: 2, limit: 2, scale: 0.5, isSwap: true, isRegisterSwap: true, dataType: float}}
      pushMethod: {mqtt: {address: "tcp://127.0.0.1:1883", topic: temp}}
    - name: setpoint
      collectCycle: 500
      visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 7, limit: 1, scale: 1}}
    - name: switch
      desired: {value: "true"}
      visitors: {protocolName: modbus, configData: {register: CoilRegister, offset: 3, limit: 1, scale: 1}}
"#;

const ALPHA: &str = r#"apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {name: sensor-7}
spec:
  deviceModelRef: {name: sensor}
  protocol:
    modbus: {slaveID: 1}
    common:
      com: {serialPort: /dev/ttyS0, baudRate: 9600, dataBits: 8, parity: even, stopBits: 1}
  nodeSelector: {nodeSelectorTerms: []}
  propertyVisitors:
    - propertyName: level
      modbus: {register: HoldingRegister, offset: 0, limit: 1}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {name: sensor}
spec:
  properties:
    - name: level
      type: {int: {accessMode: ReadOnly, defaultValue: 3, maximum: 100}}
"#;

fn imported(text: &str) -> Imported {
    import(&[("device.yaml".to_owned(), text.to_owned())]).unwrap()
}

fn checks(id: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Complaints::new();
    let mut library = Library::new();
    library.add(&format!("{id}.yaml"), text, false, &mut complaints);
    library.check(id, &mut complaints);
    complaints.into_sorted()
}

#[test]
fn a_modbus_device_becomes_a_profile_that_checks_and_a_device() {
    let imported = imported(BETA);
    let (id, text) = &imported.profiles[0];
    assert_eq!(id, "kubeedge.boiler");
    assert_eq!(checks(id, text), [], "{text}");
    assert_eq!(
        text.lines().skip(1).collect::<Vec<_>>(),
        [
            "schema: 1",
            "id: kubeedge.boiler",
            "version: 1.0.0",
            "meta: {vendor: KubeEdge, model: boiler, description: \"boiler PLC\"}",
            "params: {unit: {type: int, min: 0, max: 255, default: 1}}",
            "groups:",
            "  every_500ms: {interval: 500ms}",
            "  every_1s: {interval: 1s}",
            "  every_10s: {interval: 10s}",
            "modbus: {unit: \"${unit}\"}",
            "properties:",
            "  temperature: {type: number, unit: Cel, title: \"room temperature\", group: every_10s, scale: 0.5, range: {min: -40, max: 125, else: keep}, from: {modbus: {table: input, address: 2, type: float32, order: DCBA}}}",
            "  setpoint: {type: int, access: rw, group: every_500ms, write: {min: 5, max: 30}, from: {modbus: {table: holding, address: 7, type: uint16}}}",
            "  switch: {type: bool, access: rw, group: every_1s, from: {modbus: {table: coil, address: 3}}}",
        ]
    );
    assert_eq!(
        imported.gateway.lines().skip(1).collect::<Vec<_>>(),
        [
            "connections:",
            "  tcp-172.17.0.3-1502: {modbus: {tcp: \"172.17.0.3:1502\"}}",
            "devices:",
            "  - {id: plc-1, profile: kubeedge.boiler, connection: tcp-172.17.0.3-1502, params: {unit: 4}}",
        ]
    );
}

#[test]
fn what_has_no_counterpart_is_named_with_its_line() {
    let notes: Vec<String> = imported(BETA).notes.iter().map(ToString::to_string).collect();
    for (line, words) in [
        (18, "methods has no counterpart"),
        (22, "collectCycle 10000000000 is taken for nanoseconds"),
        (25, "pushMethod has no counterpart"),
        (30, "tidegate twin set plc-1 switch=true"),
    ] {
        let named = |note: &&String| note.starts_with(&format!("device.yaml:{line}:")) && note.contains(words);
        assert!(notes.iter().any(|note| named(&note)), "{line} {words}: {notes:#?}");
    }
    let notes: Vec<String> = imported(ALPHA).notes.iter().map(ToString::to_string).collect();
    for (line, words) in [
        (10, "nodeSelector has no counterpart"),
        (13, "scale is missing or 0"),
        (21, "defaultValue 3 has no counterpart"),
    ] {
        let named = |note: &&String| note.starts_with(&format!("device.yaml:{line}:")) && note.contains(words);
        assert!(notes.iter().any(|note| named(&note)), "{line} {words}: {notes:#?}");
    }
}

#[test]
fn the_old_api_with_a_serial_line_is_read_alike() {
    let imported = imported(ALPHA);
    let (id, text) = &imported.profiles[0];
    assert_eq!(checks(id, text), [], "{text}");
    assert!(text.contains("  level: {type: int, group: every_1s, range: {max: 100, else: keep}, from: {modbus: {table: holding, address: 0, type: uint16}}}"), "{text}");
    assert!(
        imported.gateway.contains(
            "  ttyS0: {modbus: {serial: {port: \"/dev/ttyS0\", baud: 9600, data: 8, parity: even, stop: 1}}}"
        ),
        "{}",
        imported.gateway
    );
}

#[test]
fn devices_that_are_read_alike_share_a_profile_and_a_wire() {
    let (model, device) = BETA.split_once("---\n").unwrap();
    let second = device.replace("plc-1", "plc-2").replace("slaveID: 4", "slaveID: 5");
    let third = device.replace("plc-1", "plc-3").replace("offset: 7", "offset: 9").replace("default", "hall");
    let hall = model.replace("default", "hall");
    let imported = imported(&[model, device, &second, &hall, &third].join("---\n"));
    let ids: Vec<&str> = imported.profiles.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["kubeedge.boiler", "kubeedge.boiler.plc-3"]);
    assert_eq!(imported.devices, 3);
    assert_eq!(imported.gateway.matches("tcp:").count(), 1);
    assert!(imported.gateway.contains("{id: \"hall:plc-3\", profile: kubeedge.boiler.plc-3,"), "{}", imported.gateway);
}

#[test]
fn files_that_are_none_of_kubeedges_are_refused_or_named() {
    for (text, words) in [
        (
            "kind: Device\napiVersion: devices.kubeedge.io/v9\nmetadata: {name: d}\n",
            "apiVersion \"devices.kubeedge.io/v9\" is not known",
        ),
        ("kind: Device\napiVersion: devices.kubeedge.io/v1beta1\n", "has no name"),
        ("a: [\n", ""),
        ("", "the file is empty"),
    ] {
        let complaints = import(&[("x.yaml".to_owned(), text.to_owned())]).unwrap_err().into_sorted();
        assert!(complaints.iter().any(|complaint| complaint.message.contains(words)), "{text}: {complaints:?}");
    }
    let other = imported("kind: Pod\napiVersion: v1\nmetadata: {name: p}\n");
    assert!(other.notes[0].text.contains("a Pod is neither Device nor DeviceModel"), "{:?}", other.notes);
    let alone = BETA.split_once("---\n").unwrap();
    assert!(imported(alone.0).notes[0].text.contains("has no device in these files"));
    assert!(imported(alone.1).notes.iter().any(|note| note.text.contains("its model boiler is in none of the files")));
}

#[test]
fn swaps_are_undone_in_kubeedges_order() {
    // The value 0x0A0B0C0D as it lies on the wire when a device needs these flags.
    let wire = |registers: bool, bytes: bool| -> Vec<u8> {
        let mut words = [[0x0A, 0x0B], [0x0C, 0x0D]];
        if bytes {
            words.iter_mut().for_each(|word| word.reverse());
        }
        if registers {
            words.reverse();
        }
        words.concat()
    };
    for (registers, bytes, order) in
        [(false, false, ""), (true, false, "CDAB"), (false, true, "BADC"), (true, true, "DCBA")]
    {
        let text =
            ALPHA.replace("limit: 1}", &format!("limit: 2, scale: 1, isRegisterSwap: {registers}, isSwap: {bytes}}}"));
        let imported = imported(&text);
        let profile = &imported.profiles[0].1;
        assert_eq!(profile.contains("order:"), !order.is_empty(), "{profile}");
        let held = wire(registers, bytes);
        let registers: Vec<String> = held.chunks(2).map(|word| format!("0x{:02X}{:02X}", word[0], word[1])).collect();
        let golden = format!(
            "{}tests:\n  - name: swapped\n    input: {{modbus: {{holding: {{\"0\": [{}]}}}}}}\n    expect: {{level: {}}}\n",
            profile.replace("range: {max: 100, else: keep}, ", ""),
            registers.join(", "),
            0x0A0B_0C0D_u32
        );
        assert_eq!(checks("kubeedge.sensor", &golden), [], "{golden}");
        let mut library = Library::new();
        library.add("x.yaml", &golden, false, &mut Complaints::new());
        let outcome = library.test("kubeedge.sensor");
        assert_eq!((outcome.passed, outcome.failed), (1, Vec::new()), "{golden}");
    }
}
