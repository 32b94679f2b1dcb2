//! P1 to P9 of the sync design, as far as they are rules: one scene each.

use std::sync::Arc;

use crate::name::DeviceId;
use crate::outbox::engine::DOCUMENT_MS;
use crate::outbox::engine::marks::QUIET_MS;
use crate::outbox::{Batch, Content, Item, Limits, Next, Outbox, Pace, Settled, Slot, Stamp};
use crate::value::{Now, Timestamp};

fn at(tick: u64) -> Now {
    Now { tick, wall: Timestamp::from_ms(0) }
}

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

fn reported(of: &str, property: &str) -> Slot {
    Slot::Device(device(of), Item::Reported(property.parse().unwrap()))
}

fn text(text: &str) -> Content {
    Some(Arc::from(text.as_bytes()))
}

/// An outbox with a store that always works.
struct Scene {
    outbox: Outbox,
    pace: Pace,
    rows: usize,
    tick: u64,
}

impl Scene {
    fn new(limits: Limits, marks: Vec<(Slot, Stamp)>) -> Self {
        Self { outbox: Outbox::new(limits, marks), pace: Pace::new(0, 0), rows: 0, tick: 0 }
    }

    fn up() -> Self {
        let mut scene = Self::new(Limits::default(), Vec::new());
        scene.outbox.booted(at(0));
        scene.outbox.link_up(at(0));
        scene
    }

    fn set(&mut self, slot: &Slot, content: Content, stamp: u64) {
        self.outbox.local(slot.clone(), content, Stamp(stamp), false, at(self.tick));
    }

    fn store(&mut self) {
        let marks = self.outbox.marks(at(self.tick));
        self.rows += marks.len();
        if !marks.is_empty() {
            self.outbox.marks_stored(at(self.tick));
        }
    }

    fn next(&mut self) -> Option<Batch> {
        self.store();
        match self.outbox.next(&|_| true, &mut self.pace, at(self.tick)) {
            Next::Say(batch) => Some(batch),
            Next::WaitUntil(_) => None,
        }
    }

    fn drain(&mut self) -> Vec<Batch> {
        let mut said = Vec::new();
        while let Some(batch) = self.next() {
            self.outbox.settled(batch.id, Settled::Accepted, at(self.tick));
            said.push(batch);
        }
        said
    }
}

fn contents(batches: &[Batch]) -> Vec<Option<&str>> {
    let parts = batches.iter().flat_map(|batch| &batch.parts);
    parts.map(|part| part.content.as_deref().map(|content| std::str::from_utf8(content).unwrap())).collect()
}

#[test]
fn p1_nothing_is_said_before_its_mark_is_on_disk() {
    let mut scene = Scene::up();
    let slot = reported("a", "t");
    scene.set(&slot, text("1"), 10);
    let say = |scene: &mut Scene| scene.outbox.next(&|_| true, &mut Pace::new(0, 0), at(0));
    assert_eq!(say(&mut scene), Next::WaitUntil(Some(0)), "the mark is due");
    assert_eq!(scene.outbox.marks(at(0)), [(slot.clone(), Some(Stamp::MAYBE))]);
    assert_eq!(say(&mut scene), Next::WaitUntil(None), "the mark is on its way");
    assert_eq!(scene.outbox.marks(at(0)), []);
    scene.outbox.marks_stored(at(0));
    assert!(matches!(say(&mut scene), Next::Say(_)));
}

#[test]
fn p2_a_full_disk_does_not_silence_the_gateway() {
    let mut scene = Scene::up();
    scene.set(&reported("a", "t"), text("1"), 10);
    for second in 0..5 {
        assert_eq!(scene.outbox.marks(at(second * 1_000)).len(), 1, "asked for again after a second");
        scene.outbox.marks_failed(at(second * 1_000));
        assert_eq!(scene.outbox.marks(at(second * 1_000 + 999)), []);
    }
    assert!(matches!(scene.outbox.next(&|_| true, &mut scene.pace, at(5_000)), Next::Say(_)));
}

#[test]
fn p3_the_newest_value_arrives_and_those_between_conflate() {
    let mut scene = Scene::up();
    let slot = reported("a", "t");
    for version in 10..1_000 {
        scene.set(&slot, text(&version.to_string()), version);
    }
    assert_eq!(contents(&scene.drain()), [Some("999")]);
    scene.set(&slot, text("x"), 1_000);
    let batch = scene.next().unwrap();
    scene.set(&slot, text("y"), 1_001);
    assert_eq!(scene.next(), None, "one batch of a device is in flight");
    scene.outbox.settled(batch.id, Settled::Accepted, at(0));
    assert!(scene.outbox.is_dirty(&slot), "compare and clear");
    assert_eq!(contents(&scene.drain()), [Some("y")]);
}

#[test]
fn p4_an_answer_to_an_older_batch_changes_nothing() {
    let mut scene = Scene::up();
    let slot = reported("a", "t");
    scene.set(&slot, text("1"), 10);
    let first = scene.next().unwrap();
    scene.set(&slot, text("2"), 11);
    scene.tick = 30_000;
    let second = scene.next().expect("no answer in time: said again");
    scene.outbox.settled(first.id, Settled::Accepted, at(30_001));
    assert!(scene.outbox.is_dirty(&slot));
    scene.outbox.settled(second.id, Settled::Accepted, at(30_002));
    assert!(!scene.outbox.is_dirty(&slot));
    assert_eq!(scene.outbox.counts().timeouts, 1);
}

#[test]
fn p5_a_deleted_leaf_is_said_as_deleted_however_often_the_gateway_restarts() {
    let slot = reported("a", "t");
    for mark in [Stamp::MAYBE, Stamp(10)] {
        let mut scene = Scene::new(Limits::default(), vec![(slot.clone(), mark)]);
        scene.outbox.link_up(at(0));
        assert_eq!(scene.drain(), [], "before all topics were heard nobody knows");
        scene.outbox.booted(at(0));
        assert_eq!(contents(&scene.drain()), [None], "{mark:?}");
        scene.tick = 10_000;
        scene.store();
        assert_eq!(scene.outbox.marks(at(20_000)), []);
        assert_eq!(scene.rows, 1 + usize::from(mark == Stamp(10)), "the mark is deleted at last");
    }
}

#[test]
fn p6_a_slot_that_never_was_said_leaves_nothing_behind() {
    let mut scene = Scene::new(Limits::default(), Vec::new());
    scene.outbox.booted(at(0));
    for round in 0..1_000 {
        let slot = reported(&format!("d{round}"), "t");
        scene.set(&slot, text("1"), 10);
        scene.set(&slot, None, 0);
    }
    scene.outbox.link_up(at(0));
    assert_eq!(scene.drain(), []);
    assert_eq!(scene.outbox.counts().dirty, 0);
    assert!(format!("{:?}", scene.outbox).len() < 2_000, "and takes no room");
}

#[test]
fn p8_no_change_means_no_traffic_and_busy_slots_mean_no_flash() {
    let mut scene = Scene::up();
    let slot = reported("a", "t");
    for version in 10..1_010 {
        scene.set(&slot, text("1"), version);
        scene.tick += 60_000;
        assert_eq!(scene.drain().len(), 1);
        scene.set(&slot, text("1, a moment later"), version);
        assert_eq!(scene.drain(), [], "the same stamp is no change");
    }
    assert_eq!(scene.rows, 1);
    scene.outbox.link_down(at(scene.tick));
    scene.outbox.link_up(at(scene.tick));
    assert_eq!(scene.drain(), []);
    scene.tick += QUIET_MS;
    scene.store();
    assert_eq!(scene.rows, 2, "a slot that rests gets an exact mark");
    let rows = scene.outbox.last_marks(at(scene.tick));
    assert_eq!(rows, [], "so that there is nothing left for the end");
}

#[test]
fn p8_after_a_clean_stop_nothing_is_said_twice() {
    let mut scene = Scene::up();
    let slot = reported("a", "t");
    scene.set(&slot, text("1"), 10);
    scene.drain();
    let marks = scene.outbox.last_marks(at(0));
    assert_eq!(marks, [(slot.clone(), Some(Stamp(10)))]);
    let mut scene = Scene::new(Limits::default(), vec![(slot.clone(), Stamp(10))]);
    scene.set(&slot, text("1"), 10);
    scene.outbox.booted(at(0));
    scene.outbox.link_up(at(0));
    assert_eq!(scene.drain(), []);
    scene.set(&slot, text("2"), 11);
    assert_eq!(contents(&scene.drain()), [Some("2")]);
    assert_eq!(scene.rows, 1, "the exact mark is taken back first");
}

#[test]
fn p9_what_is_refused_is_told_and_tried_again_when_it_changes() {
    let mut scene = Scene::up();
    let slot = reported("a", "t");
    scene.set(&slot, text("1"), 10);
    let batch = scene.next().unwrap();
    scene.outbox.settled(batch.id, Settled::Refused("too large".to_owned()), at(0));
    assert_eq!(scene.next(), None);
    let counts = scene.outbox.counts();
    assert_eq!((counts.refused, counts.refused_now, counts.dirty), (1, 1, 0));
    assert_eq!(counts.last_error.as_deref(), Some("too large"));
    scene.set(&slot, text("2"), 11);
    let batch = scene.next().unwrap();
    scene.outbox.unsayable(batch.id, &[(Item::Reported("t".parse().unwrap()), "no words".to_owned())], at(0));
    scene.outbox.settled(batch.id, Settled::Accepted, at(0));
    assert_eq!(scene.outbox.counts().refused, 2);
    assert_eq!(scene.next(), None);
    scene.outbox.resync(None, at(0));
    assert_eq!(contents(&scene.drain()), [Some("2")], "who lost everything is asked anew");
}

#[test]
fn a_device_that_asks_for_patience_gets_it_and_holds_up_nobody() {
    let mut scene = Scene::up();
    scene.set(&reported("a", "t"), text("1"), 10);
    scene.set(&reported("b", "t"), text("1"), 10);
    let first = scene.next().unwrap();
    scene.outbox.settled(first.id, Settled::Later(5_000), at(0));
    assert_eq!(scene.drain().len(), 1);
    assert_eq!(scene.outbox.next(&|_| true, &mut scene.pace, at(1)), Next::WaitUntil(Some(5_000)));
    scene.tick = 5_000;
    assert_eq!(scene.drain().len(), 1);
}

#[test]
fn who_asks_again_and_again_waits_longer_and_longer() {
    let mut scene = Scene::up();
    scene.set(&reported("a", "t"), text("1"), 10);
    let mut pauses = Vec::new();
    for _ in 0..14 {
        let batch = scene.next().unwrap();
        scene.outbox.settled(batch.id, Settled::Again, at(scene.tick));
        let Next::WaitUntil(Some(due)) = scene.outbox.next(&|_| false, &mut scene.pace, at(scene.tick)) else {
            pauses.push(0);
            continue;
        };
        pauses.push(due - scene.tick);
        scene.tick = due;
    }
    assert_eq!(pauses, [0, 0, 0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000, 60_000, 60_000]);
}

#[test]
fn the_window_is_kept_and_one_batch_of_a_device_is_in_flight() {
    let mut scene = Scene::up();
    scene.outbox = Outbox::new(Limits { window: 3, ..Limits::default() }, Vec::new());
    scene.outbox.link_up(at(0));
    for name in ["a", "b", "c", "d", "e"] {
        scene.set(&reported(name, "t"), text("1"), 10);
        scene.set(&reported(name, "u"), text("1"), 10);
    }
    let flying: Vec<Batch> = std::iter::from_fn(|| scene.next()).collect();
    let devices: Vec<&str> = flying.iter().map(|batch| batch.device.as_ref().unwrap().as_str()).collect();
    assert_eq!(devices, ["a", "b", "c"]);
    assert!(flying.iter().all(|batch| batch.parts.len() == 2));
    scene.outbox.settled(flying[1].id, Settled::Accepted, at(0));
    assert_eq!(scene.next().unwrap().device, Some(device("d")));
}

#[test]
fn backlog_goes_newest_first_at_its_pace_and_starves_nothing_live() {
    let mut scene = Scene::new(Limits::default(), Vec::new());
    scene.outbox.booted(at(0));
    let large = "x".repeat(936);
    for round in 0..100 {
        scene.set(&reported(&format!("old{round}"), "t"), text(&large), 10);
    }
    scene.store();
    scene.outbox.link_up(at(0));
    // 1000 bytes a batch with its topic, 2000 bytes a second.
    scene.pace = Pace::new(2_000, 1);
    let mut old = Vec::new();
    for tick in (0..10_000).step_by(100) {
        scene.tick = tick;
        let alarm = reported("alarms", "smoke");
        scene.outbox.local(alarm, text("!"), Stamp(100 + tick), true, at(tick));
        let said = scene.drain();
        let of = |batch: &Batch| batch.device.as_ref().unwrap().to_string();
        assert!(said.iter().any(|batch| of(batch) == "alarms"), "live is said at once");
        old.extend(said.iter().map(of).filter(|name| name != "alarms"));
    }
    assert!((18..=21).contains(&old.len()), "{} batches of backlog in ten seconds", old.len());
    assert_eq!(old[..3], ["old99", "old98", "old97"]);
}

#[test]
fn a_flood_of_alarms_does_not_starve_the_rest() {
    let mut scene = Scene::up();
    scene.set(&reported("quiet", "t"), text("1"), 10);
    for round in 0..1_000 {
        for name in ["a", "b", "c"] {
            scene.outbox.local(reported(name, "smoke"), text("!"), Stamp(100 + round), true, at(0));
        }
        scene.store();
        let batch = scene.next().unwrap();
        scene.outbox.settled(batch.id, Settled::Accepted, at(0));
        if batch.device == Some(device("quiet")) {
            assert!(round <= 8);
            return;
        }
    }
    panic!("the quiet device is never heard");
}

#[test]
fn documents_go_last_and_now_and_then() {
    let mut scene = Scene::up();
    let document = Slot::Device(device("a"), Item::Document);
    let mut said = Vec::new();
    for second in 0..60 {
        scene.tick = second * 1_000;
        scene.set(&document, text("{}"), 10 + second);
        scene.set(&reported("a", "t"), text("1"), 10 + second);
        let items: Vec<_> = scene.drain().into_iter().flat_map(|batch| batch.parts).map(|part| part.item).collect();
        assert!(matches!(items[0], Item::Reported(_)), "the leaf first, each time");
        said.extend(items.contains(&Item::Document).then_some(scene.tick));
    }
    assert_eq!(said, [0, DOCUMENT_MS, 2 * DOCUMENT_MS, 3 * DOCUMENT_MS, 4 * DOCUMENT_MS, 5 * DOCUMENT_MS]);
    scene.tick += DOCUMENT_MS;
    assert_eq!(scene.drain().len(), 1, "the newest arrives in the end");
}

#[test]
fn the_gateways_status_is_said_at_each_connect_for_the_will_was_said_in_between() {
    let mut scene = Scene::up();
    scene.set(&Slot::Gateway, text("online"), 10);
    for _ in 0..3 {
        let said = scene.drain();
        assert_eq!(said.len(), 1);
        assert_eq!((said[0].device.as_ref(), said[0].gateway.as_deref()), (None, Some(b"online".as_slice())));
        assert_eq!(scene.drain(), []);
        scene.outbox.link_down(at(0));
        scene.outbox.link_up(at(0));
    }
    assert_eq!(scene.rows, 0);
}

#[test]
fn who_is_not_ready_is_passed_over() {
    let mut scene = Scene::up();
    scene.set(&reported("a", "t"), text("1"), 10);
    scene.set(&reported("b", "t"), text("1"), 10);
    scene.store();
    let ready = |who: Option<&DeviceId>| who.is_some_and(|who| who.as_str() == "b");
    let Next::Say(batch) = scene.outbox.next(&ready, &mut scene.pace, at(0)) else { panic!() };
    assert_eq!(batch.device, Some(device("b")));
    assert!(matches!(scene.outbox.next(&ready, &mut scene.pace, at(0)), Next::WaitUntil(_)));
}
