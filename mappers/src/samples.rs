//! Properties, profiles and devices for tests: everything at its default but what a test names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocols::codec::{DataType, Layout, Scaling};
use protocols::config::Device;
use protocols::modbus::{MergeLimits, Table, Visitor};
use protocols::profile::{
    Access, Conflict, Group, Kind, Meta, ModbusDevice, Offline, Profile, Property, Report, Source, Write,
};

/// A writable number at holding register 0, changed as the test wants it.
pub(crate) fn property(name: &str, change: impl FnOnce(&mut Property)) -> Property {
    let visitor = Visitor {
        table: Table::Holding,
        address: 0,
        layout: Layout::new(DataType::Uint16),
        write_address: None,
        write_function: None,
    };
    let mut property = Property {
        name: name.parse().unwrap(),
        title: None,
        kind: Kind::Number,
        unit: None,
        class: None,
        category: None,
        access: Access::ReadWrite,
        group: 0,
        scaling: Scaling::default(),
        range: None,
        invalid: Vec::new(),
        labels: BTreeMap::new(),
        flags: BTreeMap::new(),
        deadband: None,
        report: Report::default(),
        max_age: None,
        stream: false,
        counter: None,
        conflict: Conflict::default(),
        write: Write::default(),
        source: Source::Modbus(visitor),
    };
    change(&mut property);
    property
}

/// A device model with one group, read every second.
pub(crate) fn profile(properties: Vec<Property>, change: impl FnOnce(&mut Profile)) -> Arc<Profile> {
    let mut profile = Profile {
        id: "test.device".to_owned(),
        version: "1.0.0".to_owned(),
        hash: "0".repeat(16),
        meta: Meta::default(),
        groups: vec![Group {
            name: "default".to_owned(),
            interval: Duration::from_secs(1),
            phase: None,
            atomic: false,
            report: Report::default(),
        }],
        properties,
        init: Vec::new(),
        modbus: ModbusDevice {
            merge: MergeLimits::default(),
            timeout: None,
            retries: 0,
            delay: Duration::ZERO,
            busy_retries: 3,
            offline: Offline::default(),
            serial: None,
        },
        probe: None,
        commands: BTreeMap::new(),
    };
    change(&mut profile);
    Arc::new(profile)
}

/// A device of unit 1 on the wire `bus1`.
pub(crate) fn device(id: &str, profile: &Arc<Profile>) -> Arc<Device> {
    Arc::new(Device { id: id.parse().unwrap(), profile: Arc::clone(profile), connection: "bus1".to_owned(), unit: 1 })
}
