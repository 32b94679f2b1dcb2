//! One suite for every transport: what `mappers::ble::transport` promises, shown on whatever implements it.
//!
//! The stage holds the twin (battery 77; a heart that beats; a value that can be read and written; one that only paired
//! devices may read; one that refuses with 0x80), the lock (a value for those who know the passkey) and a sensor that only
//! speaks.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use mappers::ble::transport::{
    AdPattern, BleError, CharRef, Event, Link, Pairing, Scan, ScanMode, ScanWish, Transport, WriteKind,
};
use protocols::ble::{Advertisement, Mac, Uuid};
use tokio::time::timeout;

use crate::ble::{BTHOME, LOCK, PASSKEY, SENSOR, Stage, TWIN};

/// How long a thing may take that should happen at once, on a busy machine that plays a machine.
const SOON: Duration = Duration::from_secs(60);

/// A characteristic of the twin or the lock in the services `…9cc5` and `…9cd5`.
fn own(service: u8, characteristic: u8) -> CharRef {
    let base = 0x50DB_505C_8AC4_4738_8448_3B1D_9CC0_9C00_u128;
    let uuid = |last: u8| Uuid(base | u128::from(last));
    CharRef { service: uuid(service), characteristic: uuid(characteristic), instance: 0 }
}

fn short(service: u16, characteristic: u16) -> CharRef {
    CharRef { service: Uuid::from_u16(service), characteristic: Uuid::from_u16(characteristic), instance: 0 }
}

/// The twin's battery.
pub fn battery() -> CharRef {
    short(0x180F, 0x2A19)
}

/// The twin's heart.
pub fn heart() -> CharRef {
    short(0x180D, 0x2A37)
}

/// The twin's value.
pub fn value() -> CharRef {
    own(0xC5, 0xC6)
}

/// The twin's secret.
pub fn secret() -> CharRef {
    own(0xC5, 0xC7)
}

/// What refuses.
pub fn refuses() -> CharRef {
    own(0xC5, 0xC8)
}

/// The lock's secret.
pub fn lock() -> CharRef {
    own(0xD5, 0xD6)
}

/// Leaves a trace of how far the suite came; who fails in the rig has nothing else to look at.
fn came_to(step: &str) {
    // A log that cannot be written is no reason to fail.
    let _ = writeln!(std::io::stderr(), "suite: {step}");
}

async fn hear<T: Transport>(transport: &mut T, what: &str, fits: impl Fn(&Advertisement) -> bool) -> Advertisement {
    let heard = timeout(SOON, async {
        loop {
            match transport.event().await {
                Event::Heard(heard) if fits(&heard) => return heard,
                Event::Heard(_) => {}
                other => panic!("instead of {what}: {other:?}"),
            }
        }
    });
    heard.await.unwrap_or_else(|_| panic!("never heard: {what}"))
}

fn says(address: Mac, packet: &'static [u8]) -> impl Fn(&Advertisement) -> bool {
    move |heard| {
        heard.address == Some(address)
            && heard.service_data.iter().any(|(uuid, data)| *uuid == BTHOME && data == packet)
    }
}

async fn connected<T: Transport>(transport: &mut T, address: Mac, pairing: Pairing) -> T::Link {
    came_to(&format!("connect to {address}, {pairing:?}"));
    transport.scan(&Scan::default()).await.expect("a scan");
    hear(transport, &format!("{address}, to connect to"), |heard| heard.address == Some(address)).await;
    transport.quiet().await;
    let made = transport.connect(address, pairing, SOON).await;
    made.unwrap_or_else(|error| panic!("{address} cannot be connected to: {error}"))
}

/// Holds a transport to everything that is promised of it. `passive` says whether it can listen without asking.
///
/// # Panics
/// At the first promise that is not kept.
pub async fn suite<T: Transport>(mut transport: T, stage: &impl Stage, passive: bool) {
    transport.open().await.expect("the adapter is there");
    advertisements(&mut transport, stage, passive).await;
    reads_and_writes(&mut transport, stage).await;
    notifications(&mut transport).await;
    pairing(&mut transport).await;
    the_end(&mut transport, stage).await;
}

async fn advertisements<T: Transport>(transport: &mut T, stage: &impl Stage, passive: bool) {
    stage.say(SENSOR, b"\x40\x01\x61");
    assert_eq!(transport.scan(&Scan::default()).await, Ok(ScanMode::Active));
    let heard = hear(transport, "the sensor", says(SENSOR, b"\x40\x01\x61")).await;
    assert!(heard.manufacturer.is_empty());
    let named = hear(transport, "the twin's name", |heard| heard.name.as_deref() == Some("bumble-twin")).await;
    assert_eq!(named.address, Some(TWIN));
    hear(transport, "a signal strength", |heard| heard.address == Some(SENSOR) && heard.rssi.is_some()).await;
    // The same packet again and again: with duplicates, each is heard.
    for _ in 0..3 {
        hear(transport, "the sensor again", says(SENSOR, b"\x40\x01\x61")).await;
    }
    stage.say(SENSOR, b"\x40\x01\x5d");
    hear(transport, "what the sensor says now", says(SENSOR, b"\x40\x01\x5d")).await;

    came_to("a passive scan");
    let pattern = AdPattern { ad_type: 0x16, start: 0, content: vec![0xD2, 0xFC] };
    let scan = Scan { wish: ScanWish::Auto, patterns: vec![pattern] };
    let mode = transport.scan(&scan).await.expect("a scan");
    assert_eq!(mode, if passive { ScanMode::Passive } else { ScanMode::Active });
    stage.say(SENSOR, b"\x40\x01\x59");
    hear(transport, "the sensor, passively", says(SENSOR, b"\x40\x01\x59")).await;
    stage.say(SENSOR, b"\x40\x01\x55");
    hear(transport, "what the sensor says now, passively", says(SENSOR, b"\x40\x01\x55")).await;
    // Who goes on saying the same is there, even where the stack does not repeat what it says.
    for _ in 0..2 {
        hear(transport, "a sign of life, passively", |heard| heard.address == Some(SENSOR)).await;
    }
    transport.quiet().await;
}

async fn reads_and_writes<T: Transport>(transport: &mut T, stage: &impl Stage) {
    let nobody = Mac([0xF0, 0, 0, 0, 0, 1]);
    came_to("reads and writes");
    let absent = transport.connect(nobody, Pairing::None, SOON).await.map(drop);
    assert_eq!(absent, Err(BleError::NotFound(nobody)), "who was never heard is not waited for");

    let mut link = connected(transport, TWIN, Pairing::None).await;
    assert!(link.is_up());
    assert_eq!(link.read(battery()).await.unwrap_or_default()[..], [77]);
    link.write(value(), b"hello", WriteKind::Request).await.expect("a write");
    assert_eq!(link.read(value()).await, Ok(Bytes::from_static(b"hello")));
    assert_eq!(stage.written(), b"hello");
    let long = [0x5A_u8; 200];
    link.write(value(), &long, WriteKind::Request).await.expect("a long write");
    assert_eq!(link.read(value()).await.unwrap_or_default()[..], long);

    assert_eq!(link.read(refuses()).await, Err(BleError::Att(0x80)));
    let none = short(0x180F, 0x2AFF);
    assert_eq!(link.read(none).await, Err(BleError::NoCharacteristic(none.characteristic, none.service)));
    assert_eq!(link.read(battery()).await.unwrap_or_default()[..], [77], "a refusal does not break the link");
    link.disconnect().await;
}

async fn notifications<T: Transport>(transport: &mut T) {
    let mut link = connected(transport, TWIN, Pairing::None).await;
    came_to("notifications");
    let mut beats = link.subscribe(heart()).await.expect("a subscription");
    let mut seen: Vec<u8> = Vec::new();
    while seen.len() < 3 {
        let beat = timeout(SOON, beats.recv()).await.expect("the heart beats").expect("the link is up");
        assert_eq!((beat.len(), beat.first()), (2, Some(&0)));
        seen.extend(beat.get(1));
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "in order, and none twice: {seen:?}");
    link.disconnect().await;
    let rest = timeout(SOON, async { while beats.recv().await.is_some() {} }).await;
    assert!(rest.is_ok(), "the channel ends with the link");
}

async fn pairing<T: Transport>(transport: &mut T) {
    let mut link = connected(transport, TWIN, Pairing::None).await;
    came_to("a secret");
    let refused = link.read(secret()).await;
    came_to(&format!("is refused: {refused:?}"));
    assert!(
        matches!(refused, Err(BleError::AuthRequired(_) | BleError::Timeout(_) | BleError::Disconnected(_))),
        "a secret for somebody who may not pair: {refused:?}"
    );
    assert!(matches!(link.pair().await, Err(BleError::AuthRequired(_))), "pairing is not allowed");
    link.disconnect().await;

    let mut link = connected(transport, TWIN, Pairing::JustWorks).await;
    came_to("pairing");
    link.pair().await.expect("Just Works");
    assert_eq!(link.read(secret()).await, Ok(Bytes::from_static(b"secret-value")));
    link.pair().await.expect("paired devices are paired");
    link.disconnect().await;
    let mut link = connected(transport, TWIN, Pairing::JustWorks).await;
    assert_eq!(link.read(secret()).await, Ok(Bytes::from_static(b"secret-value")), "a bond lasts");
    link.disconnect().await;

    let mut link = connected(transport, LOCK, Pairing::Passkey(PASSKEY + 1)).await;
    let wrong = link.pair().await;
    assert!(matches!(wrong, Err(BleError::AuthRequired(_) | BleError::Disconnected(_))), "a wrong passkey: {wrong:?}");
    link.disconnect().await;
    let mut link = connected(transport, LOCK, Pairing::Passkey(PASSKEY)).await;
    link.pair().await.expect("the passkey of the label");
    assert_eq!(link.read(lock()).await, Ok(Bytes::from_static(b"unlocked")));
    link.disconnect().await;
}

async fn the_end<T: Transport>(transport: &mut T, stage: &impl Stage) {
    let mut link = connected(transport, TWIN, Pairing::None).await;
    transport.close().await;
    assert!(link.read(battery()).await.is_err(), "nothing is connected when the radio is closed");
    link.disconnect().await;
    transport.open().await.expect("what was closed can be opened");
    transport.scan(&Scan::default()).await.expect("a scan");
    hear(transport, "the sensor after all that", says(SENSOR, b"\x40\x01\x55")).await;
    came_to("a reset");
    transport.reset().await.expect("the adapter can be switched off and on");
    transport.scan(&Scan::default()).await.expect("a scan");
    hear(transport, "the sensor after a reset", says(SENSOR, b"\x40\x01\x55")).await;
    stage.hush(SENSOR);
    transport.close().await;
}
