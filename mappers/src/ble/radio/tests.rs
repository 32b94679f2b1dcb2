//! Promises of the radio, shown in a scripted air with a clock that is turned by hand.

use std::collections::VecDeque;

use protocols::ble::{AddressType, Uuid};

use super::*;
use crate::ble::fake::{Air, FakeLink, Peer, Slot};
use crate::ble::transport::{AdPattern, CharRef};

const LIMIT: Duration = Duration::from_secs(20);

fn mac(last: u8) -> Mac {
    Mac([0xF0, 0xF1, 0xF2, 0xF3, 0xF4, last])
}

fn battery() -> CharRef {
    CharRef { service: Uuid::from_u16(0x180F), characteristic: Uuid::from_u16(0x2A19), instance: 0 }
}

fn said(last: u8) -> Advertisement {
    Advertisement {
        address: Some(mac(last)),
        address_type: AddressType::Random,
        rssi: Some(-60),
        service_data: vec![(Uuid::from_u16(0xFCD2), vec![0x40, 0x01, 0x61])],
        ..Advertisement::default()
    }
}

async fn opened() -> (Air, Radio<FakeLink>) {
    let air = Air::new();
    air.bring(mac(5), Peer::default().with(battery(), Slot { value: vec![77], ..Slot::default() }));
    let mut radio = Radio::start(air.radio());
    radio.open(Scan::default()).await.unwrap();
    (air, radio)
}

/// Waits until the radio's task has done what it could.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_scan_is_paused_around_a_connection_and_goes_on_after_it() {
    let (air, mut radio) = opened().await;
    air.say(said(5));
    radio.next().await.unwrap();
    air.journal();
    let mut link = radio.connector().connect(mac(5), Pairing::None, LIMIT).await.unwrap();
    assert_eq!(link.read(battery()).await.unwrap()[..], [77]);
    let expected = ["quiet", "connect F0:F1:F2:F3:F4:05", "scan Active"];
    assert_eq!(air.journal(), expected);
    air.say(said(5));
    assert_eq!(radio.next().await, Ok(said(5)));
    link.disconnect().await;
    assert_eq!(air.journal(), ["disconnect F0:F1:F2:F3:F4:05"]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_radio_is_tried_again_and_a_device_that_is_away_is_waited_for() {
    let busy = || BleError::Busy("le-connection-abort-by-local".to_owned());
    let timeout = BleError::Timeout("Connect");
    type Case = (Vec<BleError>, bool, Result<(), BleError>, u64);
    let cases: [Case; 5] = [
        (vec![busy()], true, Ok(()), 500),
        (vec![busy(), busy()], true, Ok(()), 1_000),
        (vec![busy(), busy(), busy()], true, Err(busy()), 1_000),
        (vec![timeout.clone()], true, Err(timeout), 20_000),
        (vec![], false, Err(BleError::NotFound(mac(5))), 20_000),
    ];
    for (mishaps, is_heard, expected, took_ms) in cases {
        let (air, mut radio) = opened().await;
        if is_heard {
            air.say(said(5));
            radio.next().await.unwrap();
        }
        air.mishaps(|m| m.connect = VecDeque::from(mishaps.clone()));
        let began = Instant::now();
        let made = radio.connector().connect(mac(5), Pairing::None, LIMIT).await.map(drop);
        assert_eq!(made, expected, "{mishaps:?}");
        assert_eq!(began.elapsed(), Duration::from_millis(took_ms), "{mishaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_speaks_while_it_is_waited_for_is_connected_to() {
    let (air, mut radio) = opened().await;
    let speaker = air.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(7)).await;
        speaker.say(said(5));
    });
    let began = Instant::now();
    radio.connector().connect(mac(5), Pairing::None, LIMIT).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(7));
    assert_eq!(radio.take(), Some(said(5)), "the advertisement is not lost for the host");
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_hears_nothing_is_begun_anew_and_then_the_adapter_is_reset() {
    let (air, mut radio) = opened().await;
    air.mishaps(|m| m.deaf = true);
    air.journal();
    tokio::time::sleep(Duration::from_secs(181)).await;
    assert_eq!(air.journal(), ["scan Active", "scan Active", "reset", "scan Active"]);
    air.say(said(5));
    assert_eq!(radio.next().await, Ok(said(5)));
    assert_eq!((radio.tally().rescans, radio.tally().resets), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_with_a_link_is_not_reset() {
    let (air, mut radio) = opened().await;
    air.say(said(5));
    radio.next().await.unwrap();
    let link = radio.connector().connect(mac(5), Pairing::None, LIMIT).await.unwrap();
    air.mishaps(|m| m.deaf = true);
    air.journal();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(!air.journal().contains(&"reset".to_owned()));
    assert!(link.is_up());
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_somebody_ends_is_begun_again() {
    let (air, mut radio) = opened().await;
    air.journal();
    air.end_scan();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(air.journal(), ["scan Active"]);
    air.say(said(5));
    assert_eq!(radio.next().await, Ok(said(5)));
}

#[tokio::test(start_paused = true)]
async fn a_lost_adapter_is_told_after_what_was_heard_before_and_can_be_opened_again() {
    let (air, mut radio) = opened().await;
    air.say(said(5));
    settle().await;
    air.unplug();
    settle().await;
    assert_eq!(radio.next().await, Ok(said(5)));
    assert_eq!(radio.next().await, Err("the adapter was taken away".to_owned()));
    let gone = radio.open(Scan::default()).await.unwrap_err();
    assert_eq!(gone.to_string(), "there is no Bluetooth adapter \"fake\" (there is none at all)");
    air.plug();
    radio.open(Scan::default()).await.unwrap();
    air.say(said(6));
    assert_eq!(radio.next().await, Ok(said(6)));
}

#[tokio::test(start_paused = true)]
async fn a_passive_scan_hears_what_fits_and_goes_active_to_find_whom_to_connect_to() {
    let (air, mut radio) = opened().await;
    let pattern = AdPattern { ad_type: 0x16, start: 0, content: vec![0xD2, 0xFC] };
    let mode = radio.open(Scan { wish: ScanWish::Auto, patterns: vec![pattern] }).await;
    assert_eq!(mode, Ok(ScanMode::Passive));
    let other = Advertisement { service_data: Vec::new(), ..said(5) };
    air.say(other.clone());
    air.say(said(6));
    assert_eq!(radio.next().await, Ok(said(6)), "the one that does not fit is not heard");
    air.journal();
    let speaker = air.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        speaker.say(other);
    });
    let link = radio.connector().connect(mac(5), Pairing::None, LIMIT).await;
    assert!(link.is_ok(), "{:?}", link.map(drop));
    let journal = air.journal();
    assert_eq!(journal.last().map(String::as_str), Some("scan Passive"), "{journal:?}");
    assert!(!journal.iter().any(|line| line.ends_with("while scanning")), "{journal:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_listen_holds_nothing_up_and_loses_what_is_counted() {
    let (air, radio) = opened().await;
    for _ in 0..5_000 {
        air.say(said(5));
    }
    settle().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let tally = radio.tally();
    assert_eq!((tally.heard, tally.dropped), (5_000, 5_000 - HEARD as u64));
}
