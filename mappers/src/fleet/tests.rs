//! Mappers that are started, given a new configuration, and stopped.

use std::sync::Mutex;

use protocols::config::{Broker, Limits, Twin, Wire as Wired};

use super::*;
use crate::bus::{Far, pair};

fn config(wires: &[(&str, u64)]) -> Config {
    let connection = |name: &str, timeout_ms| Connection {
        name: name.to_owned(),
        protocol: protocols::profile::Protocol::Modbus,
        // Nothing listens on port 1 of the loopback.
        wire: Wired::Tcp("127.0.0.1:1".to_owned()),
        timeout: Duration::from_millis(timeout_ms),
        delay: Duration::ZERO,
        echo: false,
        in_flight: 1,
    };
    Config {
        id: "g".parse().unwrap(),
        data: String::new(),
        profiles: Vec::new(),
        broker: Broker {
            listeners: Vec::new(),
            users: None,
            anonymous: protocols::config::Anonymous::default(),
            limits: Limits::default(),
        },
        twin: Twin { root: "twin".to_owned(), flush: Duration::from_secs(5) },
        connections: wires.iter().map(|(name, ms)| ((*name).to_owned(), Arc::new(connection(name, *ms)))).collect(),
        devices: Vec::new(),
        upstream: Vec::new(),
        web: None,
        kubeedge: None,
    }
}

#[tokio::test]
async fn a_new_configuration_restarts_only_the_wires_it_changes() {
    let fars: Arc<Mutex<Vec<(String, Far)>>> = Arc::default();
    let made = Arc::clone(&fars);
    let buses: BusFactory = Arc::new(move |name: &str| {
        let (bus, far) = pair();
        made.lock().unwrap().push((name.to_owned(), far));
        bus
    });
    let names = |fars: &Mutex<Vec<(String, Far)>>| -> Vec<String> {
        fars.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    };
    let begun = async |count: usize| {
        for _ in 0..500 {
            if fars.lock().unwrap().len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", names(&fars));
    };
    let mut mappers =
        Mappers::start(&config(&[("a", 500), ("b", 500)]), buses, Arc::new(Vec::new), CancellationToken::new());
    begun(2).await;
    mappers.reload(&config(&[("a", 500), ("b", 900), ("c", 500)])).await;
    begun(4).await;
    let mut after = names(&fars)[2..].to_vec();
    after.sort();
    assert_eq!(after, ["b", "c"], "a goes on as it is");
    mappers.reload(&config(&[("a", 500)])).await;
    assert_eq!(mappers.restarts().into_iter().collect::<Vec<_>>(), [("a".to_owned(), 0)]);
    tokio::time::timeout(Duration::from_secs(5), mappers.stop()).await.unwrap();
    assert!(fars.lock().unwrap().iter().all(|(_, far)| far.incoming.is_closed()), "every host has ended");
}
