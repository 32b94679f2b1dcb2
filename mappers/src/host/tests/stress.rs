//! Thousands of wishes on a wire that has its bad days: each ends, and each device holds what was wished last.
//!
//! The other side of the bus is the twins' part of the contract, section 4, in a few lines: versions, the retained delta,
//! acknowledgements by version. Delivery is what a broker promises and no more: a delta reaches only who subscribed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fake::{Bench, Rig};
use crate::samples::{device, profile, property};

/// Devices of the wire: more than its way out has places.
const DEVICES: usize = 40;
/// Wishes in all.
const WISHES: u64 = 3_000;

/// One device's desired section.
#[derive(Default)]
struct Twin {
    version: u64,
    value: u64,
    pending: bool,
    heard_of_filter: bool,
}

/// Numbers that look drawn, the same in every run (xorshift, Marsaglia 2003).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

struct World {
    bench: Bench,
    rig: Rig,
    twins: BTreeMap<String, Twin>,
    states: BTreeMap<String, usize>,
}

impl World {
    async fn tell_delta(&self, id: &str) {
        let twin = &self.twins[id];
        if twin.heard_of_filter {
            let desired = if twin.pending { json!({"p": twin.value}) } else { json!({}) };
            self.rig.delta(id, twin.version, desired).await;
        }
    }

    /// Lets time pass, and answers what the host says meanwhile.
    async fn pass(&mut self, ms: u64) {
        self.rig.run(ms).await;
        for id in self.twins.keys().cloned().collect::<Vec<_>>() {
            let subscribed = self.rig.filters.contains(&format!("twin/{id}/delta"));
            let twin = self.twins.get_mut(&id).unwrap();
            if subscribed && !std::mem::replace(&mut twin.heard_of_filter, true) {
                self.tell_delta(&id).await;
            }
        }
        for (_, topic, payload) in std::mem::take(&mut self.rig.said) {
            let Some(id) = topic.strip_prefix("twin/").and_then(|rest| rest.strip_suffix("/desired/ack")) else {
                continue;
            };
            let result = &payload["results"]["p"];
            let state = result["state"].as_str().unwrap().to_owned();
            let twin = self.twins.get_mut(id).unwrap();
            let counts = twin.pending && payload["version"] == twin.version && self.rig.stores;
            *self.states.entry(state.clone()).or_default() += usize::from(counts);
            if counts && state != "pending" {
                assert_eq!(state, "applied", "{id}: {payload}");
                assert_eq!(result["actual"], Value::from(twin.value), "{id}: what was wished last is what was applied");
                twin.pending = false;
                self.tell_delta(id).await;
            }
        }
    }

    async fn wish(&mut self, id: &str, value: u64) {
        let twin = self.twins.get_mut(id).unwrap();
        twin.version += 1;
        (twin.value, twin.pending) = (value, true);
        self.tell_delta(id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_thousands_of_wishes_between_polls_and_faults_none_is_lost() {
    let bench = Bench::new();
    let one = profile(vec![property("p", |p| p.write.retries = 1_000)], |p| {
        p.groups[0].interval = std::time::Duration::from_millis(200);
    });
    let ids: Vec<String> = (0..DEVICES).map(|number| format!("d{number}")).collect();
    for id in &ids {
        bench.device(id, |fake| fake.values = vec![json!(0)]);
    }
    let rig = Rig::start(&bench, ids.iter().map(|id| device(id, &one)).collect());
    let twins = ids.iter().map(|id| (id.clone(), Twin::default())).collect();
    let mut world = World { bench, rig, twins, states: BTreeMap::new() };
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut dead: Option<String> = None;
    world.pass(2_000).await;
    for number in 1..=WISHES {
        let id = ids[draw.below(DEVICES as u64) as usize].clone();
        // Now and then the same value again, and a second wish before the first can be through.
        let value = if draw.below(8) == 0 { world.twins[&id].value.max(1) } else { number };
        world.wish(&id, value).await;
        if draw.below(4) == 0 {
            world.wish(&id, number + WISHES).await;
        }
        match draw.below(60) {
            0 => world.bench.device(&id, |fake| fake.busy = 3),
            1 => world.bench.inside().hang_up = true,
            2 if dead.is_none() => {
                world.bench.device(&id, |fake| fake.dead = true);
                dead = Some(id);
            }
            3 | 4 => {
                if let Some(id) = dead.take() {
                    world.bench.device(&id, |fake| fake.dead = false);
                }
            }
            5 => world.rig.stores = false,
            6..=8 => world.rig.stores = true,
            _ => {}
        }
        world.pass(draw.below(160)).await;
    }
    if let Some(id) = dead.take() {
        world.bench.device(&id, |fake| fake.dead = false);
    }
    world.rig.stores = true;
    world.pass(120_000).await;
    let open: Vec<_> = world.twins.iter().filter(|(_, twin)| twin.pending).map(|(id, _)| id).collect();
    assert!(open.is_empty(), "without an end: {open:?}");
    for (id, twin) in &world.twins {
        let held = world.bench.inside().devices[id].values[0].clone();
        assert_eq!(held, Value::from(twin.value), "{id}");
    }
    assert!(world.states["applied"] > 1_000, "{:?}", world.states);
}

#[tokio::test(start_paused = true)]
async fn every_device_of_a_long_wire_hears_of_its_wishes() {
    let bench = Bench::new();
    let one = profile(vec![property("p", |_| {})], |_| {});
    let ids: Vec<String> = (0..200).map(|number| format!("d{number}")).collect();
    for id in &ids {
        bench.device(id, |fake| fake.values = vec![json!(0)]);
    }
    let mut rig = Rig::start(&bench, ids.iter().map(|id| device(id, &one)).collect());
    rig.run(1_000).await;
    for id in &ids {
        assert!(rig.filters.contains(&format!("twin/{id}/delta")), "{id}: {} filters", rig.filters.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_bus_has_ended_ends_and_can_be_started_again() {
    let bench = Bench::new();
    bench.device("d", |fake| fake.values = vec![json!(0)]);
    let mut rig = Rig::start(&bench, vec![device("d", &profile(vec![property("p", |_| {})], |_| {}))]);
    rig.run(1_000).await;
    let Rig { far, .. } = rig;
    let crate::bus::Far { mut out, incoming } = far;
    drop(incoming);
    while out.recv().await.is_some() {}
    let polls = bench.log().len();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(bench.log().len(), polls, "nobody polls for a bus that is gone");
}
