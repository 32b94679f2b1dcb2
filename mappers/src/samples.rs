//! Properties, profiles and devices for tests: everything at its default but what a test names.

use std::sync::Arc;
use std::time::Duration;

use protocols::codec::{DataType, Layout};
use protocols::config::Device;
use protocols::modbus::{Table, Visitor};
use protocols::profile::{Access, Group, Kind, Profile, Property, Source};

/// A writable number at holding register 0, changed as the test wants it.
pub(crate) fn property(name: &str, change: impl FnOnce(&mut Property)) -> Property {
    let visitor = Visitor {
        table: Table::Holding,
        address: 0,
        layout: Layout::new(DataType::Uint16),
        write_address: None,
        write_function: None,
    };
    let mut property = Property::new(name.parse().unwrap(), Kind::Number, Source::Modbus(visitor));
    property.access = Access::ReadWrite;
    change(&mut property);
    property
}

/// A device model with one group, read every second, on the second: where a wire's name would put it is no test's business.
pub(crate) fn profile(properties: Vec<Property>, change: impl FnOnce(&mut Profile)) -> Arc<Profile> {
    let mut profile = Profile::new("test.device", properties);
    profile.hash = "0".repeat(16);
    profile.groups = vec![Group { interval: Duration::from_secs(1), phase: Some(Duration::ZERO), ..Group::default() }];
    (profile.modbus.retries, profile.modbus.busy_retries) = (0, 3);
    change(&mut profile);
    Arc::new(profile)
}

/// A device of unit 1 on the wire `bus1`.
pub(crate) fn device(id: &str, profile: &Arc<Profile>) -> Arc<Device> {
    Arc::new(Device {
        id: id.parse().unwrap(),
        profile: Arc::clone(profile),
        connection: "bus1".to_owned(),
        unit: 1,
        ble: None,
    })
}
