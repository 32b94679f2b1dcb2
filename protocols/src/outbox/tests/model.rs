//! Both replicas against a reference that knows nothing but what each side holds: whatever happens to the link, the
//! gateway and the other side, in any order, they are equal once it is quiet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::name::DeviceId;
use crate::outbox::{Batch, Item, Limits, Next, Outbox, Pace, Settled, Slot, Stamp, stamp};
use crate::value::{Now, Timestamp};

const EPOCH: &str = "01JD2M5ZQ6W1V7R8T9XAYBZC0D";
const DEVICES: u8 = 4;

/// What may happen. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A reading, or a wish of somebody here: a new version.
    Set(u8, u8, u8),
    /// The topic is cleared.
    Clear(u8, u8),
    /// A status, whose contents come back again and again.
    Status(u8, u8),
    /// The gateway stores marks; the store may fail.
    Store(bool),
    /// The gateway says up to so many batches.
    Say(u8),
    /// So many batches arrive.
    Arrive(u8),
    /// An acknowledgement comes, any of them, once or twice.
    Ack(u8, bool),
    /// An acknowledgement gets lost.
    LoseAck(u8),
    /// The other side answers something else.
    Answer(u8, u8),
    /// The link breaks after so many more batches arrived.
    Cut(u8),
    Connect,
    /// The gateway's readings reach its own disk.
    Flush,
    /// `kill -9`; a transaction under way may have made it.
    Kill(bool),
    /// A clean stop and start.
    Restart,
    /// The other side loses everything, and it is noticed at the next connect.
    Wipe,
    /// The other side loses a device while the link is up, and says so.
    Forget(u8),
    /// Minutes pass.
    Wait(u8),
    /// All becomes quiet, and stays so for hours.
    Rest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..DEVICES, 0..3_u8, 0..4_u8).prop_map(|(device, property, value)| Step::Set(device, property, value)),
        2 => (0..DEVICES, 0..4_u8).prop_map(|(device, property)| Step::Clear(device, property)),
        4 => (0..DEVICES, 0..3_u8).prop_map(|(device, state)| Step::Status(device, state)),
        6 => any::<bool>().prop_map(Step::Store),
        8 => (1..6_u8).prop_map(Step::Say),
        8 => (1..6_u8).prop_map(Step::Arrive),
        8 => any::<(u8, bool)>().prop_map(|(which, twice)| Step::Ack(which, twice)),
        1 => any::<u8>().prop_map(Step::LoseAck),
        1 => any::<(u8, u8)>().prop_map(|(which, answer)| Step::Answer(which, answer)),
        3 => (0..6_u8).prop_map(Step::Cut),
        5 => Just(Step::Connect),
        2 => Just(Step::Flush),
        1 => any::<bool>().prop_map(Step::Kill),
        1 => Just(Step::Restart),
        1 => Just(Step::Wipe),
        1 => any::<u8>().prop_map(Step::Forget),
        2 => (0..100_u8).prop_map(Step::Wait),
        1 => Just(Step::Rest),
    ];
    proptest::collection::vec(step, 1..120)
}

fn slot(device: u8, item: u8) -> Slot {
    let device: DeviceId = format!("d{}", device % DEVICES).parse().unwrap();
    let item = match item % 4 {
        0 => Item::Reported("temperature".parse().unwrap()),
        1 => Item::Desired("setpoint".parse().unwrap()),
        2 => Item::Delta,
        _ => Item::Status,
    };
    Slot::Device(device, item)
}

type Replica = BTreeMap<Slot, String>;

struct World {
    now: Now,
    version: u64,
    /// What the gateway holds, and what of it is on its own disk.
    here: Replica,
    flushed: Replica,
    there: Replica,
    wiped: bool,
    marks: BTreeMap<Slot, Stamp>,
    storing: Vec<(Slot, Option<Stamp>)>,
    outbox: Outbox,
    pace: Pace,
    up: bool,
    on_the_way: VecDeque<Batch>,
    acks: Vec<u64>,
    killed: bool,
    failures: u32,
}

impl World {
    fn new() -> Self {
        Self {
            now: Now { tick: 1_000, wall: Timestamp::from_ms(1_795_000_000_000) },
            version: 0,
            here: Replica::new(),
            flushed: Replica::new(),
            there: Replica::new(),
            wiped: false,
            marks: BTreeMap::new(),
            storing: Vec::new(),
            outbox: Outbox::new(limits(), Vec::new()),
            pace: Pace::new(5_000, 1_000),
            up: false,
            on_the_way: VecDeque::new(),
            acks: Vec::new(),
            killed: false,
            failures: 0,
        }
    }

    fn hold(&mut self, slot: Slot, payload: Option<String>) {
        let content: Option<Arc<[u8]>> = payload.as_ref().map(|text| Arc::from(text.as_bytes()));
        match payload {
            Some(text) => drop(self.here.insert(slot.clone(), text)),
            None => drop(self.here.remove(&slot)),
        }
        self.tell(slot, content);
    }

    fn tell(&mut self, slot: Slot, content: Option<Arc<[u8]>>) {
        let Slot::Device(_, item) = &slot else { return };
        let stamp = content.as_ref().map_or(Stamp::GONE, |content| stamp(Some(item), content, EPOCH));
        self.outbox.local(slot, content, stamp, false, self.now);
    }

    fn step(&mut self, step: &Step) {
        self.now.tick += 7;
        match step {
            Step::Set(device, property, value) => {
                self.version += 1;
                let (version, at) = (self.version, self.now.wall);
                let text = match property {
                    0 => format!(r#"{{"value":{value},"quality":"good","at":"{at}","version":{version}}}"#),
                    1 => format!(
                        r#"{{"value":{value},"version":{version},"at":"{at}","by":"x","state":"pending","reason":null}}"#
                    ),
                    _ => format!(r#"{{"epoch":"{EPOCH}","version":{version},"desired":{{"a":{value}}}}}"#),
                };
                self.hold(slot(*device, *property), Some(text));
            }
            Step::Clear(device, item) => self.hold(slot(*device, *item), None),
            Step::Status(device, state) => {
                let state = ["online", "offline", "stale"][usize::from(*state)];
                self.hold(slot(*device, 3), Some(format!(r#"{{"state":"{state}","since":null,"reason":null}}"#)));
            }
            Step::Store(works) => self.store(*works),
            Step::Say(batches) => drop(self.say(*batches)),
            Step::Arrive(batches) => self.arrive(*batches),
            Step::Ack(which, twice) => {
                if let Some(id) = self.take_ack(*which) {
                    self.outbox.settled(id, Settled::Accepted, self.now);
                    if *twice {
                        self.outbox.settled(id, Settled::Accepted, self.now);
                    }
                }
            }
            Step::LoseAck(which) => drop(self.take_ack(*which)),
            Step::Answer(which, answer) => {
                if let Some(id) = self.take_ack(*which) {
                    let outcome =
                        if answer % 2 == 0 { Settled::Again } else { Settled::Later(u64::from(*answer) * 10) };
                    self.outbox.settled(id, outcome, self.now);
                }
            }
            Step::Cut(batches) => {
                self.arrive(*batches);
                self.cut();
            }
            Step::Connect => self.connect(),
            Step::Flush => self.flushed = self.here.clone(),
            Step::Kill(stored) => self.kill(*stored),
            Step::Restart => {
                let marks = self.outbox.last_marks(self.now);
                self.keep(marks);
                self.storing.clear();
                self.flushed = self.here.clone();
                self.start();
            }
            Step::Wipe => {
                self.there.clear();
                self.wiped = true;
                self.cut();
            }
            Step::Forget(device) if self.up => {
                let Slot::Device(device, _) = slot(*device, 0) else { return };
                self.there.retain(|slot, _| !matches!(slot, Slot::Device(of, _) if *of == device));
                self.outbox.resync(Some(&device), self.now);
                // What is said about it is on disk before anything else can happen.
                self.now.tick += 2_000;
                (0..3).for_each(|_| self.store(true));
            }
            Step::Forget(_) => {}
            Step::Rest => {
                self.settle();
                self.flushed = self.here.clone();
                self.now.tick += 2 * 3_600_000;
                self.store(true);
                self.store(true);
            }
            Step::Wait(minutes) => self.now.tick += u64::from(*minutes) * 60_000,
        }
    }

    fn store(&mut self, works: bool) {
        if self.storing.is_empty() {
            self.storing = self.outbox.marks(self.now);
            // The dialect shows the other side a new sign of life once the disk knows; a loss is noticed until then.
            self.wiped &= !(self.up && self.storing.is_empty() && self.failures == 0);
            return;
        }
        // After five failures in a row the gateway goes on without marks, and promises less.
        if works || self.failures >= 4 {
            self.failures = 0;
            let rows = std::mem::take(&mut self.storing);
            self.keep(rows);
            self.outbox.marks_stored(self.now);
        } else {
            self.failures += 1;
            self.storing.clear();
            self.outbox.marks_failed(self.now);
        }
    }

    fn keep(&mut self, rows: Vec<(Slot, Option<Stamp>)>) {
        for (slot, stamp) in rows {
            match stamp {
                Some(stamp) => drop(self.marks.insert(slot, stamp)),
                None => drop(self.marks.remove(&slot)),
            }
        }
    }

    fn say(&mut self, batches: u8) -> bool {
        let mut said = false;
        for _ in 0..batches {
            let Next::Say(batch) = self.outbox.next(&|_| true, &mut self.pace, self.now) else { break };
            assert!(self.up, "nothing is said while the link is away");
            self.on_the_way.push_back(batch);
            said = true;
        }
        said
    }

    fn arrive(&mut self, batches: u8) {
        for _ in 0..batches {
            let Some(batch) = self.on_the_way.pop_front() else { return };
            for part in batch.parts {
                let slot = Slot::Device(batch.device.clone().unwrap(), part.item);
                match part.content {
                    Some(content) => {
                        let before = self.there.insert(slot.clone(), String::from_utf8(content.to_vec()).unwrap());
                        let older = before.and_then(|before| version(before.as_bytes()));
                        let sunk = version(&content).zip(older).is_some_and(|(new, old)| new < old);
                        assert!(!sunk || self.killed, "{slot:?} went back");
                    }
                    None => drop(self.there.remove(&slot)),
                }
            }
            self.acks.push(batch.id);
        }
    }

    fn take_ack(&mut self, which: u8) -> Option<u64> {
        (!self.acks.is_empty()).then(|| self.acks.remove(usize::from(which) % self.acks.len()))
    }

    fn cut(&mut self) {
        self.on_the_way.clear();
        self.acks.clear();
        if std::mem::take(&mut self.up) {
            self.outbox.link_down(self.now);
        }
    }

    fn connect(&mut self) {
        if !std::mem::replace(&mut self.up, true) {
            self.outbox.link_up(self.now);
            if self.wiped {
                self.outbox.resync(None, self.now);
            }
        }
    }

    fn kill(&mut self, stored: bool) {
        self.killed = true;
        if stored {
            let rows = std::mem::take(&mut self.storing);
            self.keep(rows);
        }
        self.storing.clear();
        // Readings that were not on disk are gone; versions are never used again.
        self.here = self.flushed.clone();
        self.start();
    }

    fn start(&mut self) {
        self.on_the_way.clear();
        self.acks.clear();
        self.up = false;
        self.outbox = Outbox::new(limits(), self.marks.clone().into_iter().collect());
        for (slot, payload) in self.here.clone() {
            self.tell(slot, Some(Arc::from(payload.as_bytes())));
        }
        self.outbox.booted(self.now);
    }

    /// Lets everything settle, with a store and a link that work.
    fn settle(&mut self) {
        self.connect();
        for _ in 0..2_000 {
            self.now.tick += 500;
            self.store(true);
            self.store(true);
            self.say(u8::MAX);
            self.arrive(u8::MAX);
            for id in std::mem::take(&mut self.acks) {
                self.outbox.settled(id, Settled::Accepted, self.now);
            }
            if self.outbox.is_synced() && self.storing.is_empty() {
                return;
            }
        }
        panic!("it never becomes quiet: {:?}", self.outbox.counts());
    }
}

fn limits() -> Limits {
    Limits { window: 3, answer_ms: 30_000, batch_bytes: 300 }
}

fn version(payload: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(payload).ok()?.get("version")?.as_u64()
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    world.outbox.booted(world.now);
    steps.iter().for_each(|step| world.step(step));
    world.settle();
    assert_eq!(world.there, world.here);
    // P8: an hour of nothing is an hour of silence.
    for _ in 0..60 {
        world.now.tick += 60_000;
        assert!(!world.say(1), "an idle link is silent");
    }
    // What is on disk by now is not bolder than the truth.
    world.step(&Step::Flush);
    world.kill(false);
    world.settle();
    assert_eq!(world.there, world.here);
}

proptest! {
    #![proptest_config(Config { cases: 2_500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn both_replicas_are_equal_once_it_is_quiet(steps in steps()) {
        run(&steps);
    }
}

/// A link that is up, a value said and on its way; the value goes away and comes back before the answer.
#[test]
fn a_value_that_comes_back_before_the_answer_is_said_again() {
    run(&[
        Step::Status(0, 0),
        Step::Connect,
        Step::Store(true),
        Step::Store(true),
        Step::Say(1),
        Step::Arrive(1),
        Step::Ack(0, false),
        Step::Status(0, 1),
        Step::Say(1),
        Step::Cut(1),
        Step::Status(0, 0),
        Step::Connect,
    ]);
}
