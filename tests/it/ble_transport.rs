//! Every transport keeps to one suite: the scripted air, the stand-in for bluetoothd, and bluetoothd itself.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mappers::ble::bluez::Bluez;
use mappers::ble::fake::{Air, Peer, Slot};
use mappers::ble::transport::{BleError, Event, Pairing, Scan, Transport};
use protocols::ble::{AddressType, Advertisement, Mac};
use serde_json::json;
use tests::ble::{BTHOME, FakeBluez, LOCK, PASSKEY, PrivateBus, SENSOR, Stage, TWIN, in_the_rig};
use tests::ble_suite::{battery, heart, lock, refuses, secret, suite, value};

/// What each device says.
type Packets = Vec<(Mac, Vec<u8>)>;

/// The stage in a scripted air: somebody has to say things again and again, as devices do.
struct Script {
    air: Air,
    said: Arc<Mutex<Packets>>,
    ends: Arc<AtomicBool>,
}

impl Script {
    fn new() -> Self {
        let air = Air::new();
        let slot = |value: &[u8]| Slot { value: value.to_vec(), ..Slot::default() };
        let twin = Peer::default()
            .with(battery(), slot(&[77]))
            .with(heart(), slot(&[]))
            .with(value(), slot(b"initial"))
            .with(secret(), Slot { is_secret: true, ..slot(b"secret-value") })
            .with(refuses(), Slot { refuses: Some(0x80), ..Slot::default() });
        let mut locked = Peer::default().with(lock(), Slot { is_secret: true, ..slot(b"unlocked") });
        locked.passkey = Some(PASSKEY);
        air.bring(TWIN, twin);
        air.bring(LOCK, locked);
        let script = Self { air, said: Arc::default(), ends: Arc::default() };
        let (air, said, ends) = (script.air.clone(), Arc::clone(&script.said), Arc::clone(&script.ends));
        std::thread::spawn(move || {
            let mut beat = 60;
            while !ends.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
                let basic = |address| Advertisement {
                    address: Some(address),
                    address_type: AddressType::Random,
                    rssi: Some(-60),
                    ..Advertisement::default()
                };
                air.say(Advertisement { name: Some("bumble-twin".to_owned()), ..basic(TWIN) });
                air.say(Advertisement { name: Some("bumble-lock".to_owned()), ..basic(LOCK) });
                for (address, packet) in said.lock().unwrap().iter() {
                    air.say(Advertisement { service_data: vec![(BTHOME, packet.clone())], ..basic(*address) });
                }
                beat = beat % 200 + 1;
                air.turn(TWIN, heart(), &[0, beat]);
            }
        });
        script
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

impl Stage for Script {
    fn say(&self, address: Mac, packet: &[u8]) {
        self.hush(address);
        self.said.lock().unwrap().push((address, packet.to_vec()));
    }

    fn hush(&self, address: Mac) {
        self.said.lock().unwrap().retain(|(speaker, _)| *speaker != address);
    }

    fn written(&self) -> Vec<u8> {
        self.air.value(TWIN, value()).unwrap()
    }
}

fn block<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

#[test]
fn the_scripted_air_keeps_to_the_suite() {
    let script = Script::new();
    block(suite(script.air.radio(), &script, true));
}

#[test]
fn bluez_over_the_bus_keeps_to_the_suite() {
    let fake = FakeBluez::start();
    block(suite(Bluez::new("hci0").on_bus(fake.address()), fake.stage(), true));
    assert!(!fake.calls().iter().any(|call| call == "Connect while scanning"));
}

#[test]
fn bluez_without_monitors_scans_actively() {
    let fake = FakeBluez::start();
    fake.order(&json!({"op": "no_monitors"}));
    block(suite(Bluez::new("hci0").on_bus(fake.address()), fake.stage(), false));
}

#[test]
fn real_bluetoothd_keeps_to_the_suite() {
    in_the_rig(Path::new(env!("CARGO_BIN_EXE_ble-inside")), "suite");
}

/// What opening fails with.
fn opening(transport: Bluez) -> String {
    let mut transport = transport;
    block(transport.open()).unwrap_err().to_string()
}

#[test]
fn what_is_missing_is_named_with_the_remedy() {
    let nowhere = opening(Bluez::new("hci0").on_bus("unix:path=/nonexistent/bus"));
    assert!(nowhere.starts_with("the system bus cannot be reached"), "{nowhere}");
    assert!(nowhere.ends_with("is dbus installed and running?"), "{nowhere}");
    let bus = PrivateBus::start();
    let nobody = opening(Bluez::new("hci0").on_bus(bus.address()));
    assert_eq!(nobody, "bluetoothd does not run: install bluez and start the service \"bluetooth\"");
    let fake = FakeBluez::start();
    let other = opening(Bluez::new("hci7").on_bus(fake.address()));
    assert_eq!(other, "there is no Bluetooth adapter \"hci7\" (there are: hci0)");
    fake.order(&json!({"op": "unplug"}));
    let none = opening(Bluez::new("hci0").on_bus(fake.address()));
    assert_eq!(none, "there is no Bluetooth adapter \"hci0\" (there is none at all)");
}

#[test]
fn a_lost_adapter_and_a_lost_daemon_are_told_and_can_be_opened_again() {
    let fake = FakeBluez::start();
    fake.stage().say(SENSOR, b"\x40\x01\x61");
    block(async {
        let mut transport = Bluez::new("hci0").on_bus(fake.address());
        for (go, come, reason) in
            [("unplug", "plug", "the adapter was taken away"), ("die", "live", "bluetoothd has stopped")]
        {
            transport.open().await.unwrap();
            transport.scan(&Scan::default()).await.unwrap();
            fake.order(&json!({"op": go}));
            let lost = tokio::time::timeout(Duration::from_secs(10), async {
                loop {
                    match transport.event().await {
                        Event::Heard(_) => {}
                        Event::Lost(reason) => return reason,
                        other => panic!("{other:?}"),
                    }
                }
            });
            assert_eq!(lost.await.unwrap(), reason);
            transport.close().await;
            assert!(transport.open().await.is_err());
            fake.order(&json!({"op": come}));
        }
        transport.open().await.unwrap();
        transport.close().await;
    });
}

#[test]
fn calls_that_hang_and_connections_that_fail_end_in_time() {
    let fake = FakeBluez::start();
    block(async {
        let mut transport = Bluez::new("hci0").on_bus(fake.address());
        transport.open().await.unwrap();
        transport.scan(&Scan::default()).await.unwrap();
        while !matches!(transport.event().await, Event::Heard(heard) if heard.address == Some(TWIN)) {}
        transport.quiet().await;
        let abort = "le-connection-abort-by-local";
        fake.order(&json!({"op": "fault", "method": "Connect", "error": "org.bluez.Error.Failed", "text": abort}));
        let limit = Duration::from_secs(2);
        let failed = transport.connect(TWIN, Pairing::None, limit).await.map(drop);
        assert_eq!(failed, Err(BleError::Busy(abort.to_owned())));
        fake.order(&json!({"op": "hang", "method": "Connect"}));
        let hung = transport.connect(TWIN, Pairing::None, limit).await.map(drop);
        assert_eq!(hung, Err(BleError::Timeout("Connect")));
        assert_eq!(fake.calls().last().map(String::as_str), Some("Disconnect"), "the attempt is called off");
        let mut link = transport.connect(TWIN, Pairing::None, limit).await.unwrap();
        use mappers::ble::transport::Link;
        fake.order(&json!({"op": "hang", "method": "ReadValue"}));
        assert_eq!(link.read(battery()).await, Err(BleError::Timeout("ReadValue")));
        assert_eq!(link.read(battery()).await.unwrap()[..], [77]);
        fake.order(&json!({"op": "hang", "method": "ReadValue"}));
        let reading = link.read(battery());
        fake.order(&json!({"op": "drop"}));
        assert!(matches!(reading.await, Err(BleError::Disconnected(_))), "a broken link is not waited for");
        assert!(!link.is_up());
        fake.order(&json!({"op": "forget"}));
        let gone = transport.connect(TWIN, Pairing::None, limit).await.map(drop);
        assert_eq!(gone, Err(BleError::NotFound(TWIN)), "bluetoothd forgets whom it does not hear");
    });
}
