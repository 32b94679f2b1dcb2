//! A wire in virtual time: every transaction takes as long as the table says.

use super::*;

fn table(intervals: &[u64]) -> Timetable {
    Timetable {
        groups: intervals.iter().map(|ms| Some(Rhythm { interval_ms: *ms, phase_ms: None })).collect(),
        after_failures: 3,
        probe_min_ms: 1_000,
        probe_max_ms: 8_000,
        busy_retries: 2,
        init: false,
        passive: false,
        silence_ms: None,
    }
}

/// Runs the wire until `end`; a healthy transaction takes `cost`, a dead device's takes `timeout`. Gives every action
/// with the tick it began at.
fn run(
    poll: &mut Poll,
    from: u64,
    end: u64,
    cost: u64,
    timeout: u64,
    dead: &dyn Fn(usize, u64) -> bool,
) -> Vec<(u64, Action)> {
    let mut now = from;
    let mut log = Vec::new();
    while now < end {
        let action = poll.next(now);
        let ends = |device: usize| if dead(device, now) { now + timeout } else { now + cost };
        match action {
            Action::Wait(until) => {
                now = until.unwrap_or(end).max(now + 1);
                continue;
            }
            Action::Read(job) => {
                let failed = dead(job.device, now);
                log.push((now, action));
                now = ends(job.device);
                poll.on_read(job, if failed { ReadEnd::Failed } else { ReadEnd::Done }, now);
            }
            Action::Write { device } => {
                let answered = !dead(device, now);
                log.push((now, action));
                now = ends(device);
                poll.on_write(device, answered, now);
                poll.set_write(device, None);
            }
            Action::Init { device } => {
                let answered = !dead(device, now);
                log.push((now, action));
                now = ends(device);
                poll.on_init(device, answered, now);
            }
            Action::Probe { device } => {
                let answered = !dead(device, now);
                log.push((now, action));
                now = ends(device);
                poll.on_probe(device, answered, now);
            }
        }
    }
    log
}

fn alive(_: usize, _: u64) -> bool {
    false
}

fn reads(log: &[(u64, Action)], device: usize, group: usize) -> Vec<u64> {
    log.iter().filter(|(_, action)| *action == Action::Read(Job { device, group })).map(|(at, _)| *at).collect()
}

#[test]
fn groups_are_read_at_once_and_then_on_a_shared_grid() {
    let mut poll = Poll::new();
    let a = poll.add(table(&[100]), 30);
    let b = poll.add(table(&[100]), 30);
    let log = run(&mut poll, 30, 500, 2, 0, &alive);
    assert_eq!(reads(&log, a, 0), [30, 100, 200, 300, 400]);
    assert_eq!(reads(&log, b, 0), [32, 102, 202, 302, 402]);
}

#[test]
fn slow_groups_are_spread_over_the_ticks_of_the_fast_ones() {
    let mut poll = Poll::new();
    let devices: Vec<usize> = (0..4).map(|_| poll.add(table(&[100, 1_000]), 0)).collect();
    let log = run(&mut poll, 5, 2_300, 1, 0, &alive);
    let mut ticks = Vec::new();
    for device in devices {
        let slow = reads(&log, device, 1);
        let tick = slow[1] / 100 * 100;
        ticks.push(tick % 1_000);
        assert!(slow[1] % 100 < 10, "a slow read wakes with the fast ones: {slow:?}");
        assert_eq!(slow[2] / 100 * 100, tick + 1_000);
    }
    assert_eq!(ticks, [0, 100, 200, 300], "no two slow groups on one tick");
}

#[test]
fn wires_of_one_interval_are_spread_and_those_of_one_wire_stay_together() {
    for interval in [1, 15, 20, 50, 100, 1_000, 60_000] {
        let mut places = std::collections::BTreeMap::new();
        for wire in 0..100 {
            let mut poll = Poll::on_wire(Place::of(&format!("w{wire:03}")));
            let devices = [poll.add(table(&[interval]), 0), poll.add(table(&[interval]), 0)];
            let log = run(&mut poll, 0, 3 * interval + 2, 0, 0, &alive);
            let [first, second] = devices.map(|device| reads(&log, device, 0));
            assert_eq!(first, second, "one wire, one tick");
            assert!(first.windows(2).skip(1).all(|pair| pair[1] - pair[0] == interval), "{first:?}");
            *places.entry(first[1] % interval).or_insert(0) += 1;
        }
        let wanted = (interval / STEP_MS).clamp(1, PLACES) as usize;
        assert!(places.keys().all(|place| place % STEP_MS == 0), "{places:?}");
        // By chance some places are empty and some are shared; none has most of the wires.
        assert!(places.len() * 2 >= wanted, "{interval} ms: {places:?}");
        assert!(places.values().all(|wires| *wires <= 100 / wanted * 3 + 8), "{interval} ms: {places:?}");
    }
}

#[test]
fn groups_of_one_wire_meet_at_their_ticks_wherever_the_wire_stands() {
    for wire in 0..100 {
        let mut poll = Poll::on_wire(Place::of(&format!("bus{wire}")));
        let a = poll.add(table(&[1_000]), 0);
        let b = poll.add(table(&[100, 500]), 0);
        let log = run(&mut poll, 1, 4_000, 0, 0, &alive);
        let fast = reads(&log, b, 0);
        for slow in [reads(&log, a, 0), reads(&log, b, 1)] {
            assert!(slow.iter().all(|tick| fast.contains(tick)), "bus{wire}: {slow:?} and {fast:?}");
        }
    }
}

#[test]
fn what_is_put_off_waits_and_is_not_made_up_for_and_a_write_does_not_wait() {
    let mut poll = Poll::new();
    let a = poll.add(table(&[10]), 0);
    let Action::Read(job) = poll.next(0) else { panic!("a read is due") };
    poll.on_read(job, ReadEnd::Done, 1);
    poll.put_off(35);
    assert_eq!(poll.next(20), Action::Wait(Some(35)));
    poll.set_write(a, Some(20));
    assert_eq!(poll.next(20), Action::Write { device: a });
    poll.on_write(a, true, 21);
    poll.set_write(a, None);
    let log = run(&mut poll, 21, 65, 0, 0, &alive);
    assert_eq!(reads(&log, a, 0), [35, 40, 50, 60]);
    assert_eq!(poll.missed(a), 2);
}

#[test]
fn an_explicit_phase_is_kept() {
    let mut poll = Poll::on_wire(Place::of("bus1"));
    let mut with_phase = table(&[1_000]);
    with_phase.groups = vec![Some(Rhythm { interval_ms: 1_000, phase_ms: Some(250) })];
    let a = poll.add(with_phase, 0);
    let log = run(&mut poll, 0, 3_000, 1, 0, &alive);
    assert_eq!(reads(&log, a, 0), [0, 250, 1_250, 2_250]);
}

#[test]
fn an_overloaded_wire_serves_everybody_and_counts_what_it_skips() {
    let mut poll = Poll::new();
    let devices: Vec<usize> = (0..10).map(|_| poll.add(table(&[1_000]), 0)).collect();
    let log = run(&mut poll, 0, 30_000, 300, 0, &alive);
    for device in devices {
        let at = reads(&log, device, 0);
        assert_eq!(at.len(), 10, "device {device}: {at:?}");
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] == 3_000), "{at:?}");
        // Thirty ticks passed, ten were served.
        assert!((17..=20).contains(&poll.missed(device)), "{}", poll.missed(device));
    }
}

#[test]
fn a_missed_tick_is_never_made_up_for() {
    let mut poll = Poll::new();
    let a = poll.add(table(&[100]), 0);
    let Action::Read(job) = poll.next(0) else { panic!("a read is due") };
    poll.on_read(job, ReadEnd::Done, 950);
    let log = run(&mut poll, 950, 1_250, 1, 0, &alive);
    assert_eq!(reads(&log, a, 0), [950, 1_000, 1_100, 1_200]);
    assert_eq!(poll.missed(a), 8);
}

#[test]
fn a_write_goes_after_the_transaction_and_not_after_the_cycle() {
    let mut poll = Poll::new();
    let a = poll.add(table(&[1_000]), 0);
    let b = poll.add(table(&[1_000]), 0);
    let Action::Read(job) = poll.next(0) else { panic!("a read is due") };
    poll.set_write(b, Some(50));
    poll.set_write(a, Some(80));
    poll.on_read(job, ReadEnd::Part, 280);
    assert_eq!(poll.next(280), Action::Write { device: b });
    poll.on_write(b, true, 300);
    poll.set_write(b, None);
    assert_eq!(poll.next(300), Action::Write { device: a });
    poll.on_write(a, true, 320);
    poll.set_write(a, None);
    assert_eq!(poll.next(320), Action::Read(job), "then the cycle goes on where it was");
}

#[test]
fn a_dead_device_is_probed_from_min_to_max_and_costs_one_time_out_a_probe() {
    let mut poll = Poll::new();
    let dead = poll.add(table(&[100, 1_000]), 0);
    let live = poll.add(table(&[100]), 0);
    let log = run(&mut poll, 0, 60_000, 2, 500, &|device, _| device == 0);
    let probes: Vec<u64> =
        log.iter().filter(|(_, action)| *action == Action::Probe { device: dead }).map(|(at, _)| *at).collect();
    let pauses: Vec<u64> = probes.windows(2).map(|pair| pair[1] - pair[0] - 500).collect();
    for (pause, expected) in pauses.iter().zip([2_000, 4_000, 8_000, 8_000, 8_000]) {
        assert!((expected..expected + 5).contains(pause), "{pauses:?}");
    }
    let before = log.iter().filter(|(_, action)| matches!(action, Action::Read(job) if job.device == dead)).count();
    assert_eq!(before, 3, "after three failures nothing but probes");
    let gaps = reads(&log, live, 0);
    assert!(gaps.windows(2).all(|pair| pair[1] - pair[0] <= 600), "never more than one time-out behind");
    assert_eq!(poll.health(dead), Health::Offline);
    assert_eq!(poll.health(live), Health::Online);
}

#[test]
fn what_comes_back_gets_its_init_then_its_writes_then_its_polls() {
    let mut poll = Poll::new();
    let mut with_init = table(&[1_000]);
    with_init.init = true;
    let a = poll.add(with_init, 0);
    let log = run(&mut poll, 0, 30_000, 2, 500, &|_, now| now < 20_000);
    let mut poll_again = |from| run(&mut poll, from, from + 20_000, 2, 500, &|_, _| false);
    let found = log.iter().position(|(at, action)| *at >= 20_000 && *action == Action::Probe { device: a }).unwrap();
    let (probed, _) = log[found];
    assert!(probed <= 28_500, "within the longest pause and one time-out: {probed}");
    assert_eq!(log[found + 1].1, Action::Init { device: a });
    assert!(matches!(log[found + 2].1, Action::Read(_)));
    assert!(!poll_again(30_000).iter().any(|(_, action)| matches!(action, Action::Init { .. })), "init is sent once");
}

#[test]
fn health_is_told_once_for_each_change() {
    let mut poll = Poll::new();
    let a = poll.add(table(&[100]), 0);
    let mut told = Vec::new();
    let mut now = 0;
    for answered in [true, true, false, false, false] {
        let Action::Read(job) = (loop {
            match poll.next(now) {
                Action::Wait(until) => now = until.unwrap(),
                action => break action,
            }
        }) else {
            panic!("a read")
        };
        told.push(poll.on_read(job, if answered { ReadEnd::Done } else { ReadEnd::Failed }, now));
    }
    assert_eq!(told, [Some(Health::Online), None, None, None, Some(Health::Offline)]);
    assert_eq!(poll.on_probe(a, false, now), None);
    assert_eq!(poll.on_probe(a, true, now), Some(Health::Online));
}

#[test]
fn a_busy_device_is_asked_again_with_a_pause_and_stays_online() {
    let mut poll = Poll::new();
    let a = poll.add(table(&[1_000]), 0);
    let b = poll.add(table(&[1_000]), 0);
    let Action::Read(job) = poll.next(0) else { panic!("a read is due") };
    assert!(poll.on_busy(a, 10));
    assert_eq!(poll.next(10), Action::Read(Job { device: b, group: 0 }), "the others go on meanwhile");
    poll.on_read(Job { device: b, group: 0 }, ReadEnd::Done, 12);
    assert_eq!(poll.next(12), Action::Wait(Some(110)));
    assert_eq!(poll.next(110), Action::Read(job));
    assert!(poll.on_busy(a, 111));
    assert_eq!(poll.next(311), Action::Read(job));
    assert!(!poll.on_busy(a, 312), "two tries after the first, then it is given up");
    assert_eq!(poll.on_read(job, ReadEnd::Done, 312), Some(Health::Online));
}

#[test]
fn several_devices_can_be_under_way_at_one_time_but_never_one_device_twice() {
    let mut poll = Poll::new();
    for _ in 0..3 {
        poll.add(table(&[100, 200]), 0);
    }
    assert!(matches!(poll.next(0), Action::Read(_)));
    let along: Vec<usize> = std::iter::from_fn(|| poll.next_read(0)).map(|job| job.device).collect();
    assert_eq!(along, [1, 2]);
    assert_eq!(poll.next(0), Action::Wait(None), "everything is under way");
}

#[test]
fn a_wire_that_returns_has_every_device_asked_at_once() {
    let mut poll = Poll::new();
    let a = poll.add(table(&[60_000]), 0);
    let Action::Read(job) = poll.next(0) else { panic!("a read is due") };
    poll.on_read(job, ReadEnd::Done, 1);
    assert_eq!(poll.on_closed(), [a]);
    assert!(poll.on_closed().is_empty(), "told once");
    poll.on_open(5_000);
    assert_eq!(poll.next(5_000), Action::Read(job));
    assert_eq!(poll.on_read(job, ReadEnd::Done, 5_001), Some(Health::Online));
}

#[test]
fn a_device_that_only_speaks_is_found_when_it_is_heard_and_lost_by_its_silence() {
    let mut poll = Poll::new();
    let table = Timetable { groups: vec![None], passive: true, silence_ms: Some(10_000), ..table(&[]) };
    let device = poll.add(table, 0);
    assert_eq!((poll.next(0), poll.silent_at()), (Action::Wait(None), Some(10_000)));
    assert_eq!(poll.on_heard(device, 4_000), Some(Health::Online));
    assert_eq!(poll.on_heard(device, 5_000), None, "news are told once");
    assert_eq!((poll.on_time(14_999), poll.silent_at()), (vec![], Some(15_000)));
    assert_eq!((poll.on_time(15_000), poll.health(device)), (vec![device], Health::Offline));
    assert_eq!((poll.on_time(99_000), poll.silent_at()), (vec![], None), "told once");
    assert_eq!(poll.next(99_000), Action::Wait(None), "there is nothing to probe");
    assert_eq!(poll.on_heard(device, 99_500), Some(Health::Online));
    poll.on_closed();
    poll.on_open(200_000);
    assert_eq!(poll.silent_at(), Some(210_000), "a wire that was closed was no silence of the device");
}

#[test]
fn what_is_written_after_connect_goes_before_a_device_that_was_heard_is_online() {
    let mut poll = Poll::new();
    let table = Timetable { groups: vec![None], passive: true, init: true, silence_ms: Some(1_000), ..table(&[]) };
    let device = poll.add(table, 0);
    assert_eq!(poll.on_time(1_000), [device]);
    assert_eq!(poll.on_heard(device, 2_000), None);
    assert_eq!(poll.next(2_000), Action::Init { device });
    assert_eq!(poll.on_init(device, true, 2_100), Some(Health::Online));
}

#[test]
fn an_answer_breaks_the_silence_like_a_word_of_its_own() {
    let mut poll = Poll::new();
    let device = poll.add(Timetable { silence_ms: Some(3_000), ..table(&[2_000]) }, 0);
    for now in [0, 2_000, 4_000] {
        let Action::Read(job) = poll.next(now) else { panic!("nothing to read at {now}") };
        poll.on_read(job, ReadEnd::Done, now);
        assert!(poll.on_time(now + 1_900).is_empty());
    }
    assert_eq!(poll.on_time(7_000), [device]);
    assert_eq!(poll.next(8_000), Action::Probe { device }, "who can be asked is asked");
}
