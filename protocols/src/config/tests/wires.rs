//! Wires as people write them: one end, one owner, and what each kind of wire may be told.

use super::*;

#[test]
fn a_wire_has_one_end_and_one_owner() {
    let head = "schema: 1\ngateway: {id: g}\nconnections:\n";
    for (body, expected) in [
        ("  a: {}\n", "4:3: \"a\" has too few entries\n  at least 1 needed\n"),
        (
            "  a: {modbus: {timeout: 1s}}\n",
            "4:7: \"a\" leads nowhere\n  write one of: serial: {port: /dev/…}, tcp: \"host:502\", rtu_over_tcp: \"host:502\", \
             ascii_over_tcp: \"host:502\", udp: \"host:502\", tls: {address: \"host:802\", ca: ca.pem}\n",
        ),
        (
            "  a: {modbus: {tcp: \"h:1\", rtu_over_tcp: \"h:2\"}}\n",
            "4:7: \"a\" leads to two places\n  a connection is one physical wire; make a second one\n",
        ),
        ("  a: {modbus: {tcp: \"h:0\"}}\n", "4:21: the port is not from 1 to 65535\n  Modbus TCP has port 502\n"),
        (
            "  a: {modbus: {tcp: h}}\n",
            "4:21: \"tcp\" cannot be \"h\"\n  write a text such as 192.168.1.10:502 (Modbus TCP, host and port)\n",
        ),
        (
            "  a: {modbus: {rtu_over_tcp: \"h:1\", in_flight: 4}}\n",
            "4:48: an RTU wire carries one request at a time\n  leave in_flight out\n",
        ),
        (
            "  a: {modbus: {ascii_over_tcp: \"h:1\", in_flight: 4}}\n",
            "4:50: an ASCII wire carries one request at a time\n  leave in_flight out\n",
        ),
        (
            "  a: {modbus: {udp: \"h:1\", in_flight: 4}}\n",
            "4:39: a UDP wire carries one request at a time\n  leave in_flight out\n",
        ),
        ("  a: {modbus: {udp: \"h:0\"}}\n", "4:21: the port is not from 1 to 65535\n  Modbus UDP has port 502\n"),
        (
            "  a: {modbus: {tls: {address: \"h:0\", ca: c}}}\n",
            "4:31: the port is not from 1 to 65535\n  Modbus TCP inside TLS has port 802\n",
        ),
        (
            "  a: {modbus: {tls: {address: \"h:1\", ca: c, cert: d}}}\n",
            "4:51: cert without key\n  a certificate is shown with its key: write both, or neither\n",
        ),
        (
            "  a: {modbus: {serial: {port: /dev/x, framing: asci}}}\n",
            "4:48: \"framing\" cannot be \"asci\"\n  did you mean \"ascii\"? write one of: rtu, ascii\n",
        ),
        (
            "  a: {modbus: {serial: {port: /dev/x, framing: ascii}}}\n  b: {modbus: {serial: {port: /dev/x}}}\n",
            "5:3: \"b\" and \"a\" both lead to /dev/x\n  a wire has one owner: put the devices on one connection\n",
        ),
        (
            "  a: {modbus: {serial: {port: /dev/x}}}\n  b: {modbus: {serial: {port: /dev/x}}}\n",
            "5:3: \"b\" and \"a\" both lead to /dev/x\n  a wire has one owner: put the devices on one connection\n",
        ),
        (
            "  a: {modbus: {serial: {port: /dev/x, parity: evn}}}\n",
            "4:47: \"parity\" cannot be \"evn\"\n  did you mean \"even\"? write one of: none, even, odd\n",
        ),
    ] {
        let found = parse(&format!("{head}{body}")).complaints;
        assert_eq!(found, expected, "{body}");
    }
    let read = parse(&format!("{head}  a: {{modbus: {{rtu_over_tcp: \"h:1\", delay: 20ms}}}}\n"));
    let wire = &read.config.unwrap().connections["a"];
    assert_eq!((&wire.wire, wire.delay), (&Wire::RtuOverTcp("h:1".to_owned()), Duration::from_millis(20)));
}

#[test]
fn a_modbus_wire_is_what_its_key_says() {
    let line = |data, parity| SerialLine { data, parity, ..SerialLine::default() };
    let ascii = |data, parity| Wire::AsciiSerial { port: "/dev/x".to_owned(), line: line(data, parity) };
    let tls = |client| TlsWire { address: "h:802".to_owned(), ca: "ca.pem".to_owned(), client };
    let pair = Some(("c.pem".to_owned(), "k.pem".to_owned()));
    for (body, expected) in [
        ("ascii_over_tcp: \"h:1\"", Wire::AsciiOverTcp("h:1".to_owned())),
        ("udp: \"h:502\"", Wire::Udp("h:502".to_owned())),
        ("tls: {address: \"h:802\", ca: ca.pem}", Wire::Tls(tls(None))),
        ("tls: {address: \"h:802\", ca: ca.pem, cert: c.pem, key: k.pem}, in_flight: 4", Wire::Tls(tls(pair))),
        // Serial Line guide V1.02, section 2.5.2: seven data bits, even parity.
        ("serial: {port: /dev/x, framing: ascii}", ascii(7, Parity::Even)),
        ("serial: {port: /dev/x, framing: ascii, data: 8, parity: none}", ascii(8, Parity::None)),
        (
            "serial: {port: /dev/x, framing: rtu}",
            Wire::Serial { port: "/dev/x".to_owned(), line: SerialLine::default() },
        ),
    ] {
        let read = parse(&format!("schema: 1\ngateway: {{id: g}}\nconnections:\n  a: {{modbus: {{{body}}}}}\n"));
        assert_eq!(read.complaints, "", "{body}");
        assert_eq!(read.config.unwrap().connections["a"].wire, expected, "{body}");
    }
}

#[test]
fn a_serial_line_is_a_port_or_a_socket_and_is_set_as_its_device_is_delivered() {
    let head = "schema: 1\ngateway: {id: g}\nconnections:\n";
    for (body, expected) in [
        (
            "  a: {serial: {baud: 9600}}\n",
            "4:7: \"a\" leads nowhere\n  write one of: port: /dev/…, tcp: \"host:2000\"\n",
        ),
        (
            "  a: {serial: {port: /dev/x, tcp: \"h:1\"}}\n",
            "4:7: \"a\" leads to two places\n  a connection is one physical wire; make a second one\n",
        ),
        (
            "  a: {serial: {tcp: \"h:1\", baud: 9600}}\n",
            "4:21: a socket has no line settings\n  leave it out; the serial server sets the line\n",
        ),
        (
            "  a: {modbus: {serial: {port: /dev/x}}}\n  b: {serial: {port: /dev/x}}\n",
            "5:3: \"b\" and \"a\" both lead to /dev/x\n  a wire has one owner: put the devices on one connection\n",
        ),
    ] {
        assert_eq!(parse(&format!("{head}{body}")).complaints, expected, "{body}");
    }
    let devices = "devices: [{id: gps-1, profile: generic.nmea0183-gps, connection: a}]\n";
    for (body, wire) in
        [("  a: {serial: {port: /dev/x}}\n", 9_600), ("  a: {serial: {port: /dev/x, baud: 4800}}\n", 4_800)]
    {
        let config = parse(&format!("{head}{body}{devices}")).config.unwrap();
        let connection = &config.connections["a"];
        let line = crate::profile::SerialLine { baud: wire, ..Default::default() };
        assert_eq!(connection.wire, Wire::Serial { port: "/dev/x".to_owned(), line });
        assert_eq!(connection.protocol, Protocol::Serial);
        assert_eq!(config.devices[0].profile.protocol(), Protocol::Serial);
    }
}

#[test]
fn a_radio_has_an_adapter_of_its_own_and_devices_that_speak_bluetooth() {
    let head = "schema: 1\ngateway: {id: g}\n";
    let adapter = |text: &str| {
        let read = parse(&format!("{head}{text}"));
        let config = read.config.unwrap_or_else(|| panic!("{}", read.complaints));
        config.connections.get("radio").map(|connection| connection.wire.clone())
    };
    let ble = |adapter: &str| Some(Wire::Ble { adapter: adapter.to_owned() });
    assert_eq!(adapter("connections: {radio: {ble: {}}}\n"), ble("hci0"));
    assert_eq!(adapter("connections: {radio: {ble: {adapter: hci1}}}\n"), ble("hci1"));
    for (text, expected) in [
        ("connections: {a: {ble: {}}, b: {ble: {adapter: hci0}}}\n", "\"b\" and \"a\" both lead to hci0"),
        (
            "connections: {radio: {ble: {}}}\ndevices: [{id: m, profile: eastron.sdm630, connection: radio}]\n",
            "\"eastron.sdm630\" is a modbus profile, but \"radio\" is a ble connection",
        ),
    ] {
        let complaints = parse(&format!("{head}{text}")).complaints;
        assert!(complaints.contains(expected), "{complaints}");
    }
}
