//! The spool's books: whatever happens, a reading is delivered, or in a gap, or still there.

mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::Config;
use world::{DAY_MS, NOON_MS, World, ends};

use super::{Class, EXPIRED, FULL, Gap, LOST, MEMORY_BYTES, Pace, Row, SLOW_MS, Sending};
use crate::value::{Now, Timestamp};

#[derive(Clone, Debug)]
enum Step {
    Push(bool, u8),
    Store(bool),
    Load,
    Send,
    Arrive(u8, bool, bool),
    Link(bool),
    Kill(bool),
    Restart,
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<bool>(), 1..12_u8).prop_map(|(alarm, count)| Step::Push(alarm, count)),
        8 => prop_oneof![4 => Just(true), 1 => Just(false)].prop_map(Step::Store),
        5 => Just(Step::Load),
        6 => Just(Step::Send),
        6 => any::<(u8, bool, bool)>().prop_map(|(which, arrives, acked)| Step::Arrive(which, arrives, acked)),
        3 => any::<bool>().prop_map(Step::Link),
        1 => any::<bool>().prop_map(Step::Kill),
        1 => Just(Step::Restart),
        4 => prop_oneof![Just(5_u16), Just(300), Just(2_000), Just(20_000)].prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..100)
}

proptest! {
    #![proptest_config(Config { cases: 2_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_number_is_delivered_or_in_exactly_one_gap(steps in steps(), small in any::<bool>()) {
        let mut world = World::new(if small { 3_000 } else { 1 << 20 }, 500);
        for step in steps {
            world.wait(3);
            match step {
                Step::Push(alarm, count) => {
                    let class = if alarm { Class::Alarm } else { Class::Metric };
                    (0..count).for_each(|_| world.push(class, 10));
                }
                Step::Store(works) => world.store(works),
                Step::Load => world.load(),
                Step::Send => drop(world.send()),
                Step::Arrive(which, arrives, acked) => world.arrive(usize::from(which), arrives, acked),
                Step::Link(up) => world.link(up),
                Step::Kill(committed) => world.kill(committed),
                Step::Restart => world.restart(),
                Step::Wait(seconds) => world.wait(u64::from(seconds) * 1_000),
            }
            let counts = world.spool.counts(world.now);
            prop_assert!(!small || counts.bytes <= 3_000 || !world.flying.is_empty(), "{counts:?}");
        }
        world.settle();
        world.check();
    }
}

#[test]
fn while_the_link_keeps_up_nothing_is_written_but_a_ceiling_now_and_then() {
    let mut world = World::new(1 << 20, 64 << 10);
    world.link(true);
    for _ in 0..5_000 {
        world.push(Class::Metric, 100);
        world.wait(100);
        world.stored();
        while world.send() {}
        world.arrive(0, true, true);
    }
    assert_eq!(world.received.len(), 5_000);
    assert!(world.rows.is_empty() && world.writes <= 10, "{} writes", world.writes);
}

#[test]
fn while_the_link_is_away_rows_go_to_disk_in_groups_and_come_back_in_order() {
    let mut world = World::new(64 << 20, 8 << 10);
    for _ in 0..10_000 {
        world.push(Class::Metric, 100);
        world.wait(20);
        world.stored();
    }
    assert!(world.writes <= 250, "{} writes in 200 s", world.writes);
    assert!(world.spool.counts(world.now).memory_bytes < 64 << 10);
    world.link(true);
    let mut last = 0;
    for _ in 0..2_000 {
        world.load();
        world.load();
        world.send();
        for sending in &world.flying {
            let Sending::Readings { readings, .. } = sending else { panic!("{sending:?}") };
            for reading in readings {
                assert_eq!(reading.seq, last + 1);
                last = reading.seq;
            }
        }
        world.arrive(0, true, true);
        world.stored();
        world.wait(100);
    }
    assert_eq!((last, world.received.len()), (10_000, 10_000));
    assert!(world.rows.is_empty(), "what was acknowledged is deleted");
    let writes = world.writes;
    world.push(Class::Metric, 100);
    world.send();
    world.arrive(0, true, true);
    assert_eq!((world.received.len(), world.writes), (10_001, writes), "and the spool is in memory again");
}

#[test]
fn a_link_that_is_up_and_slow_sends_readings_to_disk_and_stays_within_memory() {
    let mut world = World::new(64 << 20, 8 << 10);
    world.link(true);
    world.push(Class::Metric, 100);
    world.stored();
    assert!(world.send());
    for _ in 0..2_000 {
        world.push(Class::Metric, 10_000);
        world.wait(10);
        world.stored();
        assert!(world.spool.counts(world.now).memory_bytes <= MEMORY_BYTES + (1 << 20));
    }
    assert!(world.now.tick > SLOW_MS && world.rows.len() > 1_000);
    world.settle();
    world.check();
    assert_eq!(world.received.len(), 2_001);
}

#[test]
fn a_store_that_fails_costs_the_oldest_and_says_so() {
    let mut world = World::new(64 << 20, 8 << 10);
    for _ in 0..600 {
        world.push(Class::Metric, 20_000);
        world.wait(1_000);
        world.store(false);
        world.store(false);
    }
    let counts = world.spool.counts(world.now);
    assert!(counts.memory_bytes <= MEMORY_BYTES, "{counts:?}");
    world.settle();
    world.check();
    let gaps: Vec<&Gap> = world.told.values().collect();
    assert!(
        gaps.len() == 1 && gaps[0].reason == FULL && gaps[0].to_seq == 600 - world.received.len() as u64,
        "{gaps:?}"
    );
}

#[test]
fn metrics_are_given_up_before_alarms_and_the_cap_is_kept() {
    let mut world = World::new(100_000, 8 << 10);
    for round in 0..5_000 {
        world.push(Class::Metric, 100);
        if round % 50 == 0 {
            world.push(Class::Alarm, 100);
        }
        world.wait(1_000);
        world.stored();
        let stored: usize = world.rows.values().map(Row::bytes).sum();
        assert!(stored <= 100_000 + 60_000, "a deletion may wait for its company: {stored}");
    }
    world.settle();
    world.check();
    let alarms = world.received.keys().filter(|(class, _)| *class == Class::Alarm).count();
    assert_eq!(alarms, 100);
    assert!(world.told.values().all(|gap| gap.class == Class::Metric && gap.reason == FULL));
    assert_eq!(world.told.len(), 1, "neighbours are one gap: {:?}", world.told);
}

#[test]
fn what_is_too_old_is_given_up_by_the_spools_own_clock() {
    let mut world = World::new(1 << 20, 8 << 10);
    world.push(Class::Metric, 10);
    world.push(Class::Alarm, 10);
    world.wait(1_000);
    world.stored();
    // A wall clock that jumps a year ahead, and one that was never set, expire nothing.
    for wall in [NOON_MS + 365 * 86_400_000, 5_000] {
        world.now.wall = Timestamp::from_ms(wall);
        world.wait(1_000);
        world.store(true);
        assert_eq!(world.spool.counts(world.now).expired, 0);
    }
    world.kill(false);
    assert_eq!(world.spool.counts(world.now).expired, 0);
    world.wait(DAY_MS + 1_000);
    world.settle();
    world.check();
    assert!(world.received.contains_key(&(Class::Alarm, 1)), "alarms are kept for longer");
    assert_eq!(world.told[&(Class::Metric, 1)].reason, EXPIRED);
}

#[test]
fn the_time_switched_off_counts_when_both_clocks_were_set() {
    let mut world = World::new(1 << 20, 8 << 10);
    world.push(Class::Metric, 10);
    world.wait(1_000);
    world.stored();
    world.now = Now { tick: 3, wall: Timestamp::from_ms(NOON_MS + 2 * 86_400_000) };
    world.kill(false);
    world.settle();
    assert_eq!(world.told[&(Class::Metric, 1)].reason, EXPIRED);
}

#[test]
fn what_was_in_memory_when_the_gateway_was_killed_is_a_gap_and_no_number_comes_twice() {
    let mut world = World::new(1 << 20, 64 << 10);
    world.link(true);
    for _ in 0..20 {
        world.push(Class::Metric, 10);
        world.stored();
    }
    world.kill(false);
    world.push(Class::Metric, 10);
    world.settle();
    world.check();
    let lost = &world.told[&(Class::Metric, 1)];
    assert_eq!((lost.reason, lost.to_seq), (LOST, 1_025));
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_clean_stop_loses_nothing_and_skips_no_number() {
    let mut world = World::new(1 << 20, 64 << 10);
    world.link(true);
    for round in 0..50 {
        world.push(Class::Metric, 10);
        if round % 10 == 0 {
            world.restart();
            world.link(round % 20 == 0);
        }
    }
    world.settle();
    world.check();
    assert_eq!(world.received.keys().map(|(_, seq)| *seq).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    assert!(world.told.is_empty());
}

#[test]
fn rows_that_vanish_from_the_store_are_told() {
    let mut world = World::new(1 << 20, 8 << 10);
    for _ in 0..600 {
        world.push(Class::Metric, 10);
    }
    world.wait(1_000);
    world.stored();
    let gone: BTreeSet<u64> = (10..20).chain([255, 256, 257]).chain(590..=600).collect();
    world.rows.retain(|(_, seq), _| !gone.contains(seq));
    world.settle();
    world.check();
    assert_eq!(world.received.len(), 600 - gone.len());
    assert!(world.told.values().all(|gap| gap.reason == LOST));
}

#[test]
fn rows_that_are_being_read_while_the_link_flaps_do_not_overtake_those_in_flight() {
    let mut world = World::new(1 << 20, 1 << 20);
    for _ in 0..600 {
        world.push(Class::Metric, 10);
    }
    world.wait(1_000);
    world.stored();
    world.link(true);
    (0..2).for_each(|_| world.load());
    assert!(world.send());
    world.load();
    world.link(false);
    world.link(true);
    world.load();
    world.settle();
    world.check();
    assert_eq!(world.received.len(), 600);
}

#[test]
fn of_two_sendings_in_flight_neither_is_forgotten_before_the_first_is_accepted() {
    let mut world = World::new(1 << 20, 8 << 10);
    for _ in 0..300 {
        world.push(Class::Metric, 100);
    }
    world.wait(1_000);
    world.stored();
    world.link(true);
    (0..2).for_each(|_| world.load());
    assert!(world.send() && world.send() && !world.send());
    let firsts = |world: &World| world.flying.iter().filter_map(ends).map(|(_, _, first, _)| first).collect::<Vec<_>>();
    let sent = firsts(&world);
    world.arrive(1, true, true);
    assert_eq!(world.spool.counts(world.now).sent, 0);
    world.arrive(0, true, false);
    assert!(world.send() && world.send());
    assert_eq!(firsts(&world), sent, "both again, in order");
    world.arrive(1, true, true);
    world.arrive(0, true, true);
    assert_eq!(world.spool.counts(world.now).sent, sent[1] * 2 - 2);
    world.settle();
    world.check();
    assert_eq!(world.received.len(), 300);
}

#[test]
fn what_was_lost_on_the_way_to_the_spool_is_told_at_its_place() {
    let mut world = World::new(1 << 20, 8 << 10);
    for round in 0..6 {
        world.link(round > 2);
        world.push(Class::Metric, 10);
        world.spool.missed(Class::Metric);
    }
    world.settle();
    world.check();
    let told: Vec<(u64, u64, &str)> = world.told.values().map(|gap| (gap.from_seq, gap.to_seq, gap.reason)).collect();
    assert_eq!(told, [2, 4, 6, 8, 10, 12].map(|seq| (seq, seq, LOST)));
    assert_eq!(world.received.len(), 6);
}

#[test]
fn a_gap_that_was_told_is_not_told_again_with_the_numbers_around_it() {
    let mut world = World::new(1 << 20, 8 << 10);
    world.link(true);
    world.push(Class::Metric, 10);
    world.spool.missed(Class::Metric);
    world.stored();
    assert!(world.send());
    world.arrive(0, true, true);
    assert_eq!(world.told[&(Class::Metric, 2)].to_seq, 2);
    world.kill(false);
    world.settle();
    world.check();
    assert_eq!(world.told[&(Class::Metric, 1)].to_seq, 1);
    world.stored();
    assert!(world.gaps.is_empty(), "what was told leaves the disk: {:?}", world.gaps);
}

#[test]
fn alarms_do_not_wait_behind_metrics_nor_metrics_behind_alarms() {
    let mut world = World::new(1 << 20, 8 << 10);
    for _ in 0..500 {
        world.push(Class::Metric, 100);
        world.push(Class::Alarm, 100);
    }
    world.wait(1_000);
    world.stored();
    world.link(true);
    (0..4).for_each(|_| world.load());
    assert!((0..4).all(|_| world.send()) && !world.send(), "two of each are in flight");
    let rows = |sending: &Sending| match sending {
        Sending::Readings { readings, .. } => readings.len(),
        _ => 0,
    };
    let (alarms, metrics) = (rows(&world.flying[0]), rows(&world.flying[2]));
    assert!(alarms >= 8 * metrics && metrics > 0, "{alarms} and {metrics}");
    // Backlog of metrics keeps to the pace, alarms do not.
    world.flying.clear();
    world.link(false);
    world.link(true);
    world.pace = Pace::new(1, 1);
    world.pace.spend(1_000_000);
    (0..4).for_each(|_| world.load());
    assert!(world.send() && world.send() && !world.send(), "alarms alone");
}
