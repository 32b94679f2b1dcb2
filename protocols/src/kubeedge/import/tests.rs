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

const OPCUA: &str = r#"apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {name: press, namespace: default}
spec:
  deviceModelRef: {name: press}
  protocol:
    opcua: {url: "opc.tcp://10.0.0.5:4840/", userName: tester, timeout: 30}
    common: {customizedValues: {remoteCertificate: /ca/server.pem}}
  propertyVisitors:
    - {propertyName: force, collectCycle: 2000, opcua: {nodeID: "ns=2;i=3", browseName: Force}, customizedValues: {slot: 1}}
status:
  twins:
    - {propertyName: force, desired: {value: ""}}
    - {propertyName: mode, desired: {value: "2"}}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {name: press, namespace: default}
spec:
  properties:
    - {name: force, type: {double: {accessMode: ReadOnly, maximum: 500, unit: kN}}}
    - {name: mode, type: {int: {accessMode: ReadWrite, minimum: 0}}}
"#;

const CUSTOM: &str = r#"apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: cam}
spec:
  protocolConfigData: {timeoutMs: 2000, url: none}
  properties:
    - {name: mode, type: STRING, accessMode: ReadWrite, maximum: "9"}
    - {name: live, type: STREAM, accessMode: ReadOnly, visitors: {protocolName: onvif, configData: {format: jpg, frameCount: 3}}}
    - {name: raw, type: BYTES, accessMode: ReadOnly}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: cam-1}
spec:
  deviceModelRef: {name: cam}
  protocol: {protocolName: onvif, configData: {url: "192.168.1.7", deep: {list: [1, true]}}}
  properties:
    - {name: mode, collectCycle: 1000, visitors: {protocolName: onvif2, configData: {method: "a: b"}}}
    - {name: live, collectCycle: 1000, visitors: {protocolName: onvif, configData: {format: png}}}
    - {name: raw, collectCycle: 1000}
"#;

#[test]
fn a_device_of_another_protocol_keeps_its_mappers_words() {
    for (text, expected, connection) in [
        (
            OPCUA,
            [
                "external: {protocol: opcua}",
                "  force: {type: number, unit: kN, group: every_2s, range: {max: 500, else: keep}, from: {external: {\"browseName\":\"Force\",\"customizedValues\":{\"slot\":1},\"nodeID\":\"ns=2;i=3\"}}}",
                "  mode: {type: int, access: rw, group: every_1s, write: {mode: reconcile, min: 0}, from: {external: {}}}",
            ],
            "  opcua-press: {external: {protocol: opcua, config: {\"common\":{\"customizedValues\":{\"remoteCertificate\":\"/ca/server.pem\"}},\"timeout\":30,\"url\":\"opc.tcp://10.0.0.5:4840/\",\"userName\":\"tester\"}}}",
        ),
        (
            CUSTOM,
            [
                "external: {protocol: onvif, config: {\"timeoutMs\":2000,\"url\":\"none\"}}",
                "  mode: {type: string, access: rw, group: every_1s, write: {mode: reconcile}, from: {external: {\"method\":\"a: b\"}}}",
                "  live: {type: object, group: every_1s, from: {external: {\"format\":\"png\",\"frameCount\":3}}}",
            ],
            "  onvif-cam-1: {external: {protocol: onvif, config: {\"deep\":{\"list\":[1,true]},\"url\":\"192.168.1.7\"}}}",
        ),
    ] {
        let imported = imported(text);
        let (id, profile) = &imported.profiles[0];
        assert_eq!(checks(id, profile), [], "{profile}");
        for line in expected {
            assert!(profile.lines().any(|own| own == line), "{line}\n{profile}");
        }
        assert!(imported.gateway.lines().any(|own| own == connection), "{}", imported.gateway);
    }
}

#[test]
fn what_changes_its_meaning_for_another_mapper_is_named() {
    for (text, line, words) in [
        (OPCUA, 14, "tidegate twin set press mode=2"),
        (CUSTOM, 18, "its visitor names onvif2, the device onvif"),
        (CUSTOM, 18, "the model's maximum 9 is no bound of a string"),
        (CUSTOM, 19, "stream is an object here"),
        (CUSTOM, 20, "bytes is a string here"),
    ] {
        let notes: Vec<String> = imported(text).notes.iter().map(ToString::to_string).collect();
        let named = |note: &&String| note.starts_with(&format!("device.yaml:{line}:")) && note.contains(words);
        assert!(notes.iter().any(|note| named(&note)), "{line} {words}: {notes:#?}");
    }
}

#[test]
fn a_device_that_names_neither_protocol_nor_property_has_its_models() {
    let nameless = "apiVersion: devices.kubeedge.io/v1alpha2\nkind: Device\nmetadata: {name: counter}\nspec: {deviceModelRef: {name: sensor}}\n---\n";
    let text = format!("{nameless}{}", ALPHA.split_once("---\n").unwrap().1);
    let imported = imported(&text);
    assert!(
        imported.gateway.contains("customized-counter: {external: {protocol: customized}}"),
        "{}",
        imported.gateway
    );
    assert!(imported.profiles[0].1.contains("  level: {type: int, group: every_1s, "), "{}", imported.profiles[0].1);
    assert!(imported.notes.iter().any(|note| note.text.contains("it names no protocol; customized is written")));
    assert_eq!(checks(&imported.profiles[0].0, &imported.profiles[0].1), []);
}

#[test]
fn devices_of_kubernetes_files_join_a_gateway_file_and_keep_their_places() {
    let imported =
        import(&[("cam.yaml".to_owned(), CUSTOM.to_owned()), ("plc.yaml".to_owned(), BETA.to_owned())]).unwrap();
    let mut complaints = Complaints::new();
    let gateway = "schema: 1\ngateway: {id: g}\nconnections:\n  onvif-cam-1: {modbus: {tcp: \"h:502\"}}\ndevices: []\n";
    let mut tree = crate::yaml::read("gateway.yaml", gateway, &mut complaints).unwrap();
    add_to(&mut tree, &imported, &mut complaints);
    let ids: Vec<String> = tree
        .get("devices")
        .unwrap()
        .items()
        .iter()
        .map(|device| {
            format!("{}:{} {}", device.place.file, device.place.line, device.get("id").unwrap().text().unwrap())
        })
        .collect();
    assert_eq!(ids, ["cam.yaml:11 cam-1", "plc.yaml:11 plc-1"]);
    let complaints = complaints.into_sorted();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert_eq!((complaints[0].line, complaints[0].message.as_str()), (11, "a second connection \"onvif-cam-1\""));
    let places: Vec<String> = imported.profile_trees().iter().map(|tree| tree.place.file.to_string()).collect();
    assert_eq!(places, ["cam.yaml", "plc.yaml"]);
}
