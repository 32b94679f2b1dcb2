//! Connections whose mapper is another program: its words are kept, and ours are refused.

use super::*;

const CAMERA: &str = "schema: 1\nid: acme.camera\nversion: 1.0.0\nmeta: {vendor: Acme, model: C}\nparams: {channel: {type: int, default: 1}}\nexternal: {protocol: onvif, config: {channel: \"${channel}\", timeout: 5}}\nproperties:\n  motion: {type: bool, from: {external: {topic: VideoSource/Motion}}}\n  zoom: {type: number, access: rw, write: {min: 1, max: 10}, from: {external: {}}}\n";

#[test]
fn an_external_connection_is_kept_in_its_mappers_words() {
    let text = "schema: 1\ngateway: {id: g}\nconnections:\n  cam: {external: {protocol: ONVIF, config: {url: \"h\", nested: {a: [1, 0.5]}, timeout: 9}}}\ndevices: [{id: c1, profile: acme.camera, connection: cam, params: {channel: 4}}, {id: c2, profile: acme.camera, connection: cam}]\n";
    let mut library = library();
    let (mut warnings, mut complaints) = (Complaints::new(), Complaints::new());
    library.add("camera.yaml", CAMERA, false, &mut complaints);
    library.check("acme.camera", &mut complaints);
    let tree = read("gateway.yaml", text, &mut complaints).unwrap();
    let config = gateway(&tree, &mut library, &mut warnings, &mut complaints);
    assert_eq!(shown(complaints), "");
    let config = config.unwrap();
    let Wire::External(wire) = &config.connections["cam"].wire else { panic!("{:?}", config.connections) };
    assert_eq!((wire.protocol.as_str(), config.connections["cam"].protocol), ("ONVIF", Protocol::External));
    let own = |index: usize| {
        let external = config.devices[index].profile.external.as_ref().unwrap();
        Value::Object(external.config_over(&wire.config)).to_string()
    };
    // What the connection says comes before what the model says.
    assert_eq!(own(0), r#"{"channel":4,"nested":{"a":[1,0.5]},"timeout":9,"url":"h"}"#);
    assert_eq!(own(1), r#"{"channel":1,"nested":{"a":[1,0.5]},"timeout":9,"url":"h"}"#);
    let zoom = &config.devices[0].profile.properties[1];
    assert_eq!(zoom.accept(&Value::from(2.5)), Ok(Value::from(2.5)));
    assert_eq!(zoom.accept(&Value::from(11)), Err("above maximum 10".to_owned()));
    assert_eq!(
        config.devices[0].profile.properties[0].source.external().unwrap().to_string(),
        r#"{"topic":"VideoSource/Motion"}"#
    );
}

#[test]
fn what_only_a_mapper_of_ours_could_do_is_refused_of_an_external_device() {
    for (old, new, expected) in [
        (
            "protocol: ONVIF",
            "protocol: opcua",
            "gateway.yaml:5:29: \"acme.camera\" is for onvif, but \"cam\" speaks opcua\n  take a connection of its own: {external: {protocol: onvif}}\n",
        ),
        (
            "{external: {protocol: ONVIF}}",
            "{modbus: {tcp: \"h:502\"}}",
            "gateway.yaml:5:29: \"acme.camera\" is an external profile, but \"cam\" is a modbus connection\n  take a connection of its own: {external: …}\n",
        ),
        (
            "access: rw",
            "access: rw, scale: 0.1",
            "camera.yaml:9:43: scale is for raw values, and the mapper of \"zoom\" says the value itself\n  leave scale out\n",
        ),
        (
            "{external: {}}}\n",
            "{external: {}}}\ninit: [{write: {zoom: 1}}]\n",
            "camera.yaml:10:1: init is carried out by mappers of this program, and this device has another\n  leave init out\n",
        ),
        (
            "{external: {}}}\n",
            "{modbus: {table: holding, address: 1}}}\n",
            "camera.yaml:9:62: \"zoom\" is read by this program, other properties by a mapper of their own\n  write from: {external: {…}} for every property, or a profile of its own\n",
        ),
        (
            "{external: {}}}\n",
            "{external: {}}}\ntests: [{name: x, input: {}, expect: {}}]\n",
            "camera.yaml:10:1: what a mapper of its own reads cannot be tested here\n  leave tests out; test the mapper where it lives\n",
        ),
    ] {
        let text = "schema: 1\ngateway: {id: g}\nconnections:\n  cam: {external: {protocol: ONVIF}}\ndevices: [{id: c1, profile: acme.camera, connection: cam}]\n";
        let mut library = library();
        let (mut warnings, mut complaints) = (Complaints::new(), Complaints::new());
        library.add("camera.yaml", &CAMERA.replace(old, new), false, &mut complaints);
        library.check("acme.camera", &mut complaints);
        if complaints.is_empty() {
            let tree = read("gateway.yaml", &text.replace(old, new), &mut complaints).unwrap();
            gateway(&tree, &mut library, &mut warnings, &mut complaints);
        }
        let shown: String = complaints.into_sorted().iter().map(|one| format!("{one}\n")).collect();
        assert_eq!(shown, expected, "{new}");
    }
}
