//! What the planner promises, against Telegraf's vectors (`tests/data/modbus_planner.json`) and a device that refuses.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!("../../../../tests/data/modbus_planner.json");

fn table(value: &Value) -> Table {
    match value.as_str() {
        Some("coil") => Table::Coil,
        Some("discrete") => Table::Discrete,
        Some("input") => Table::Input,
        _ => Table::Holding,
    }
}

fn number(value: &Value) -> u16 {
    value.as_u64().unwrap() as u16
}

fn ranges(value: &Value) -> Vec<(u16, u16)> {
    let ranges = value.as_array().map(Vec::as_slice).unwrap_or_default();
    ranges.iter().map(|range| (number(&range[0]), number(&range[1]))).collect()
}

fn wants_of(input: &Value) -> Vec<Want> {
    let mut wants = Vec::new();
    for (first, last) in ranges(&input["points"]) {
        for address in first..=last {
            wants.push((table(&input["table"]), address, 1));
        }
    }
    for field in input["fields"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let place = if field["table"].is_null() { &input["table"] } else { &field["table"] };
        wants.push((table(place), number(&field["address"]), number(&field["width"])));
    }
    let want = |(id, (table, address, width))| Want { id, table, address, width };
    wants.into_iter().enumerate().map(want).collect()
}

fn touched(read: &Read) -> impl Iterator<Item = u16> {
    read.address..read.address + read.count
}

fn assert_covered(wants: &[Want], reads: &[Read], name: &str) {
    for want in wants {
        let holding = reads.iter().filter(|read| read.wants.contains(&want.id)).collect::<Vec<_>>();
        let [read] = holding[..] else { panic!("{name}: {want:?} is in {} reads", holding.len()) };
        let index = read.wants.iter().position(|id| *id == want.id).unwrap();
        let part = read.part(index).unwrap();
        assert_eq!(read.table, want.table, "{name}");
        assert_eq!((read.address + part.start as u16, part.len()), (want.address, usize::from(want.width)), "{name}");
        assert!(part.end <= usize::from(read.count), "{name}");
    }
}

/// The rule of the vectors' `about`: every point covered, no undeclared register beyond the gap touched, no read over
/// the maximum, no more reads than listed. Without a gap, only declared registers may be touched at all.
#[test]
fn every_vector_is_planned_in_no_more_reads_than_listed() {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    for vector in file["vectors"].as_array().unwrap() {
        let (name, input, expected) = (vector["id"].as_str().unwrap(), &vector["input"], &vector["expected"]);
        let wants = wants_of(input);
        let most = number(&input["max_quantity"]);
        let declared: BTreeSet<(Table, u16)> = wants
            .iter()
            .map(|want| (want.table, want.address..want.address + want.width))
            .chain(
                ranges(&input["readable_fillers"])
                    .iter()
                    .map(|(first, last)| (table(&input["table"]), *first..last + 1)),
            )
            .flat_map(|(table, range)| range.map(move |address| (table, address)))
            .collect();
        let mut limits = MergeLimits { max_registers: most, max_bits: most, ..MergeLimits::default() };
        limits.one_by_one = input["one_request_per_point"] == true;
        // In max_insert a hole is crossed when it is smaller than the gap.
        limits.max_gap = match input["max_gap"].as_u64() {
            Some(gap) if input["strategy"] == "max_insert" => Some(gap as u16 - 1),
            Some(gap) => Some(gap as u16),
            None => Some(u16::MAX),
        };
        if limits.max_gap == Some(u16::MAX) && input["fields"].is_null() {
            let place = table(&input["table"]);
            limits.forbidden = (0..3000)
                .filter(|address| !declared.contains(&(place, *address)))
                .map(|address| (place, address, address))
                .collect();
        }
        let reads = Planner::new(limits, 0).plan(&wants);
        assert_covered(&wants, &reads, name);
        assert!(reads.iter().all(|read| read.count <= most), "{name}: {reads:?}");
        let listed = match (&expected["reads"], &expected["max_read_count"]) {
            (Value::Array(reads), _) => reads.len(),
            (_, Value::Number(count)) => count.as_u64().unwrap() as usize,
            _ => 1,
        };
        assert!(reads.len() <= listed, "{name}: {} reads, {listed} listed: {reads:?}", reads.len());
        if let (true, Some(listed)) = (input["strategy"] == "rearrange", expected["reads"].as_array()) {
            let carried: u64 = listed.iter().map(|read| read["quantity"].as_u64().unwrap()).sum();
            assert!(reads.iter().map(|read| u64::from(read.count)).sum::<u64>() <= carried, "{name}: {reads:?}");
        }
    }
}

/// A device with registers that do not exist, and possibly a size it does not like.
struct Device {
    missing: BTreeSet<u16>,
    most: u16,
}

impl Device {
    fn without(missing: &[u16]) -> Self {
        Self { missing: missing.iter().copied().collect(), most: 125 }
    }

    /// One cycle as the host runs it: replacements are read at once. Gives the good values and the refused combined
    /// reads.
    fn poll(&self, planner: &mut Planner, wants: &[Want]) -> (BTreeSet<usize>, usize, usize) {
        let mut queue = planner.plan(wants);
        let (mut good, mut refused, mut asked) = (BTreeSet::new(), 0, 0);
        while let Some(read) = queue.pop() {
            asked += 1;
            assert!(asked < 1000, "it never ends");
            if read.count > self.most || touched(&read).any(|address| self.missing.contains(&address)) {
                refused += usize::from(read.spans().len() > 1);
                queue.extend(planner.on_exception(&read, 2));
            } else {
                planner.on_success(&read);
                good.extend(read.wants.iter());
            }
        }
        (good, refused, asked)
    }
}

fn wanted(addresses: impl IntoIterator<Item = u16>) -> Vec<Want> {
    let want = |(id, address)| Want { id, table: Table::Holding, address, width: 1 };
    addresses.into_iter().enumerate().map(want).collect()
}

fn planner() -> Planner {
    Planner::new(MergeLimits::default(), 20)
}

#[test]
fn a_bad_register_never_spoils_its_block() {
    for (missing, wants, reads_after) in [
        (&[4_u16][..], wanted(0..10), 3),
        (&[4, 7], wanted(0..10), 5),
        (&[0], wanted(0..10), 2),
        (&[9], wanted(0..10), 2),
        (&[60], wanted(0..120), 3),
        (&[4, 5], wanted(0..10), 4),
        // A hole that does not exist costs one cut and no value.
        (&[6], wanted((0..4).chain(10..14)), 2),
        // A bad hole and a bad register.
        (&[6, 12], wanted((0..4).chain(10..14)), 4),
    ] {
        let (device, mut planner) = (Device::without(missing), planner());
        let expected: BTreeSet<usize> =
            wants.iter().filter(|want| !missing.contains(&want.address)).map(|want| want.id).collect();
        let bad = wants.len() - expected.len();
        for cycle in 0..3 {
            let (good, refused, _) = device.poll(&mut planner, &wants);
            assert_eq!(good, expected, "{missing:?} in cycle {cycle}");
            assert!(cycle < 2 || refused == 0, "{missing:?}: a combined read is still refused in cycle {cycle}");
        }
        for _ in 0..100 {
            let (good, refused, asked) = device.poll(&mut planner, &wants);
            assert_eq!((good, refused), (expected.clone(), 0), "{missing:?}");
            assert_eq!(asked, reads_after - bad, "{missing:?}: {:?}", planner.plan(&wants));
        }
        assert_eq!(planner.parked().len(), bad, "{missing:?}");
    }
}

#[test]
fn a_caller_that_only_plans_anew_gets_there_as_well() {
    let (device, mut planner, wants) = (Device::without(&[4]), planner(), wanted(0..10));
    for _ in 0..12 {
        for read in planner.plan(&wants) {
            if touched(&read).any(|address| device.missing.contains(&address)) {
                planner.on_exception(&read, 3);
            } else {
                planner.on_success(&read);
            }
        }
    }
    let reads: Vec<_> = planner.plan(&wants).iter().map(|read| (read.address, read.count)).collect();
    assert_eq!(reads, [(0, 4), (5, 5)]);
    assert_eq!(planner.parked(), [Parked { table: Table::Holding, address: 4, width: 1, code: 3 }]);
}

#[test]
fn a_device_that_wants_smaller_reads_gets_them() {
    let device = Device { missing: BTreeSet::new(), most: 60 };
    let (mut planner, wants) = (planner(), wanted(0..120));
    device.poll(&mut planner, &wants);
    assert_eq!(device.poll(&mut planner, &wants), ((0..120).collect(), 0, 2));
    assert!(planner.parked().is_empty());
}

#[test]
fn a_parked_value_comes_back_by_command_or_by_answering() {
    let (mut device, mut planner, wants) = (Device::without(&[4]), planner(), wanted(0..10));
    for _ in 0..5 {
        device.poll(&mut planner, &wants);
    }
    let bad = wants[4];
    assert_eq!(planner.is_parked(&bad), Some(2));
    let [probe] = &planner.plan_parked(&wants)[..] else { panic!("one is parked") };
    assert_eq!((probe.address, probe.count, &probe.wants[..]), (4, 1, &[4][..]));
    let revision = planner.revision();
    assert!(planner.unpark(&bad) && !planner.unpark(&bad));
    assert!(planner.revision() > revision);
    for _ in 0..5 {
        device.poll(&mut planner, &wants);
    }
    // A firmware update brings the register; its next rare poll finds it.
    device.missing.clear();
    planner.on_success(&planner.plan_parked(&wants)[0].clone());
    assert_eq!(planner.is_parked(&bad), None);
    for _ in 0..REJOIN_AFTER {
        assert_eq!(device.poll(&mut planner, &wants).0.len(), 10);
    }
    assert_eq!(planner.plan(&wants).len(), 1, "it is read with its neighbours again");
}

#[test]
fn a_device_that_refused_everything_while_starting_is_read_in_one_again() {
    let (mut device, mut planner, wants) = (Device::without(&[]), planner(), wanted(0..10));
    device.most = 0;
    device.poll(&mut planner, &wants);
    device.most = 125;
    for _ in 0..=REJOIN_AFTER {
        device.poll(&mut planner, &wants);
    }
    assert_eq!(planner.plan(&wants).len(), 1);
}

#[test]
fn other_exceptions_and_a_device_that_must_not_be_split_teach_nothing() {
    let wants = wanted(0..10);
    let mut planner = planner();
    let read = planner.plan(&wants)[0].clone();
    for code in [1, 4, 5, 6, 10, 11] {
        assert!(planner.on_exception(&read, code).is_empty());
    }
    assert_eq!(planner.revision(), 0);
    let mut planner = Planner::new(MergeLimits { split_on_exception: false, ..MergeLimits::default() }, 20);
    assert!(planner.on_exception(&read, 2).is_empty());
    assert_eq!(planner.plan(&wants), [read]);
}

#[test]
fn values_at_one_place_share_a_read_and_overlapping_ones_stay_whole() {
    let want = |id, address, width| Want { id, table: Table::Input, address, width };
    let wants = [want(0, 0, 2), want(1, 0, 1), want(2, 1, 1), want(3, 1, 4), want(4, 0, 1)];
    let reads = planner().plan(&wants);
    assert_eq!(reads.len(), 1);
    assert_covered(&wants, &reads, "together");
    let single = MergeLimits { one_by_one: true, ..MergeLimits::default() };
    let reads = Planner::new(single, 0).plan(&wants);
    assert_eq!(reads.len(), 4, "the same register twice is one read");
    assert_covered(&wants, &reads, "one by one");
    // Refused together though they begin at one address: each is tried alone.
    let mut planner = planner();
    let reads = planner.plan(&wants[..2]);
    assert_eq!(planner.on_exception(&reads[0], 2).len(), 2);
}

#[test]
fn what_no_read_can_give_is_said_and_left_out() {
    let limits = MergeLimits { max_registers: 2, forbidden: vec![(Table::Holding, 10, 12)], ..MergeLimits::default() };
    let planner = Planner::new(limits, 20);
    for (address, width, readable) in [
        (0, 2, true),
        (0, 3, false),
        (9, 2, false),
        (12, 1, false),
        (13, 1, true),
        (65_535, 1, true),
        (65_535, 2, false),
        (0, 0, false),
    ] {
        let want = Want { id: 0, table: Table::Holding, address, width };
        assert_eq!(planner.readable(&want), readable, "{address}+{width}");
        assert_eq!(planner.plan(&[want]).len(), usize::from(readable));
    }
}

#[test]
fn identification_objects_are_read_by_category() {
    let want = |(id, object)| Want { id, table: Table::DeviceId, address: object, width: 1 };
    let wants: Vec<_> = [0, 2, 4, 0x80, 0xFF].into_iter().enumerate().map(want).collect();
    let reads: Vec<_> = planner().plan(&wants).iter().map(|read| (read.address, read.count)).collect();
    assert_eq!(reads, [(0, 3), (4, 1), (0x80, 0x80)]);
}

/// The numbers are those of the bus arithmetic: 20.8 ms a request and 2.08 ms a register at 9600 baud.
#[test]
fn the_gap_follows_from_the_speed_of_the_line() {
    for (baud, turnaround_ms, expected) in [
        (Some(9600), 0, 10),
        (Some(9600), 20, 19),
        (Some(19_200), 0, 10),
        (Some(115_200), 0, 26),
        (Some(115_200), 20, 50),
        (None, 0, 50),
    ] {
        assert_eq!(gap_for_line(baud, Duration::from_millis(turnaround_ms)), expected, "{baud:?} {turnaround_ms}");
    }
    assert_eq!(gap_for_line(Some(0), Duration::MAX), MOST_GAP);
}

fn limits() -> impl Strategy<Value = MergeLimits> {
    let forbidden = prop::collection::vec((0_u16..60, 0_u16..4), 0..3);
    (1_u16..30, 0_u16..12, forbidden, any::<bool>()).prop_map(|(most, gap, forbidden, one_by_one)| MergeLimits {
        max_registers: most,
        max_gap: Some(gap),
        forbidden: forbidden.into_iter().map(|(first, more)| (Table::Holding, first, first + more)).collect(),
        one_by_one,
        ..MergeLimits::default()
    })
}

fn any_wants(most: usize) -> impl Strategy<Value = Vec<Want>> {
    let places = prop::sample::select(vec![Table::Holding, Table::Holding, Table::Input]);
    prop::collection::vec((places, 0_u16..60, 1_u16..5), 0..most).prop_map(|wants| {
        let want = |(id, (table, address, width))| Want { id, table, address, width };
        wants.into_iter().enumerate().map(want).collect()
    })
}

/// The fewest reads, found by trying every way to put the wants into sets.
fn fewest(limits: &MergeLimits, wants: &[Want]) -> usize {
    fn fits(limits: &MergeLimits, set: &[Want]) -> bool {
        let covered: BTreeSet<u16> = set.iter().flat_map(|want| want.address..want.address + want.width).collect();
        let (first, last) = (*covered.first().unwrap(), *covered.last().unwrap());
        let hole = covered.iter().zip(covered.iter().skip(1)).map(|(a, b)| b - a - 1).max().unwrap_or(0);
        set.iter().all(|want| want.table == set[0].table)
            && last - first < limits.max_registers
            && hole <= limits.max_gap.unwrap()
            && !limits.forbidden.iter().any(|(table, from, to)| *table == set[0].table && *from <= last && first <= *to)
    }
    fn place(limits: &MergeLimits, rest: &[Want], sets: &mut Vec<Vec<Want>>) -> usize {
        let Some((want, rest)) = rest.split_first() else {
            return if sets.iter().all(|set| fits(limits, set)) { sets.len() } else { usize::MAX };
        };
        let mut least = usize::MAX;
        for index in 0..=sets.len() {
            if index == sets.len() {
                sets.push(Vec::new());
            }
            sets[index].push(*want);
            least = least.min(place(limits, rest, sets));
            sets[index].pop();
            sets.retain(|set| !set.is_empty());
        }
        least
    }
    place(limits, wants, &mut Vec::new())
}

proptest! {
    #[test]
    fn every_plan_covers_all_inside_the_limits(limits in limits(), wants in any_wants(40)) {
        let planner = Planner::new(limits.clone(), 0);
        let wants: Vec<Want> = wants.into_iter().filter(|want| planner.readable(want)).collect();
        let reads = planner.plan(&wants);
        assert_covered(&wants, &reads, "any");
        for read in &reads {
            prop_assert!(read.count <= limits.max_registers);
            for address in touched(read) {
                prop_assert!(!limits.forbidden.iter().any(|(table, from, to)| *table == read.table && (*from..=*to).contains(&address)));
            }
            let used: BTreeSet<u16> = read.parts.iter().flat_map(|(address, width)| *address..address + width).collect();
            let hole = used.iter().zip(used.iter().skip(1)).map(|(a, b)| b - a - 1).max().unwrap_or(0);
            prop_assert!(hole <= limits.max_gap.unwrap());
            prop_assert!(!limits.one_by_one || read.spans().len() == 1);
        }
        let mut shuffled = wants.clone();
        shuffled.reverse();
        let places = |reads: &[Read]| reads.iter().map(|read| (read.table, read.address, read.count)).collect::<Vec<_>>();
        prop_assert_eq!(places(&planner.plan(&shuffled)), places(&reads));
    }

    #[test]
    fn no_way_needs_fewer_reads(limits in limits(), wants in any_wants(7)) {
        let limits = MergeLimits { one_by_one: false, ..limits };
        let planner = Planner::new(limits.clone(), 0);
        let wants: Vec<Want> = wants.into_iter().filter(|want| planner.readable(want)).collect();
        prop_assert_eq!(planner.plan(&wants).len(), fewest(&limits, &wants));
    }

    #[test]
    fn whatever_is_missing_the_rest_is_read_and_refusals_end(missing in prop::collection::btree_set(0_u16..60, 0..8), wants in any_wants(30)) {
        let wants: Vec<Want> = wants.into_iter().filter(|want| want.table == Table::Holding).collect();
        let (device, mut planner) = (Device { missing: missing.clone(), most: 125 }, planner());
        let alive = |want: &&Want| (want.address..want.address + want.width).all(|address| !missing.contains(&address));
        let expected: BTreeSet<usize> = wants.iter().filter(alive).map(|want| want.id).collect();
        for cycle in 0..10 {
            let (good, refused, _) = device.poll(&mut planner, &wants);
            prop_assert_eq!(&good, &expected);
            prop_assert!(cycle < 9 || refused == 0);
        }
    }
}
