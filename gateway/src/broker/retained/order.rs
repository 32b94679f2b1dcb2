//! Places of records in the order of their topics, at four bytes each.
//!
//! In: places that come and go, and who knows their topics. Out: places from a topic on. Must never cost a walk over
//! everything when a topic comes.

use std::ops::Bound;

/// Places in one run; a run that has more is split in two.
const RUN_PLACES: usize = 512;

/// Sorted runs of places, one behind the other; none is empty.
#[derive(Debug, Default)]
pub(super) struct Order {
    runs: Vec<Vec<u32>>,
}

impl Order {
    /// Where the first place stands whose topic is not before this one: run, and place in it, which may be its end.
    fn find<'a>(&self, topic: &[u8], of: impl Fn(u32) -> &'a [u8]) -> (usize, usize) {
        // the last run that begins before the topic
        let run = self.runs.partition_point(|run| run.first().is_some_and(|place| of(*place) < topic));
        let run = run.saturating_sub(1);
        let at = self.runs.get(run).map_or(0, |run| run.partition_point(|place| of(*place) < topic));
        (run, at)
    }

    /// Puts in a place whose topic is new.
    pub(super) fn insert<'a>(&mut self, place: u32, of: impl Fn(u32) -> &'a [u8]) {
        let (at, inside) = self.find(of(place), &of);
        let Some(run) = self.runs.get_mut(at) else { return self.runs.push(vec![place]) };
        run.insert(inside, place);
        if run.len() > RUN_PLACES {
            let rest = run.split_off(RUN_PLACES / 2);
            run.shrink_to_fit();
            self.runs.insert(at + 1, rest);
        }
    }

    /// Takes out the place of a topic, if it is there.
    pub(super) fn remove<'a>(&mut self, topic: &[u8], of: impl Fn(u32) -> &'a [u8]) {
        let (at, inside) = self.find(topic, &of);
        // a run's end is the beginning of the next one
        let is_end = self.runs.get(at).is_some_and(|run| inside == run.len());
        let (at, inside) = if is_end { (at + 1, 0) } else { (at, inside) };
        let Some(run) = self.runs.get_mut(at) else { return };
        if run.get(inside).is_some_and(|place| of(*place) == topic) {
            run.remove(inside);
            if run.is_empty() {
                self.runs.remove(at);
            }
        }
    }

    /// The places from a topic on.
    pub(super) fn from<'a>(
        &self,
        from: Bound<&[u8]>,
        of: impl Fn(u32) -> &'a [u8] + Copy,
    ) -> impl Iterator<Item = u32> {
        let (topic, skipped) = match from {
            Bound::Included(topic) => (topic, None),
            Bound::Excluded(topic) => (topic, Some(topic)),
            Bound::Unbounded => (&[][..], None),
        };
        let (at, inside) = self.find(topic, of);
        let first = self.runs.get(at).and_then(|run| run.get(inside..)).unwrap_or_default();
        let rest = self.runs.get(at + 1..).unwrap_or_default().iter().flatten();
        let mut places = first.iter().chain(rest).copied().peekable();
        if skipped.is_some() {
            places.next_if(|place| Some(of(*place)) == skipped);
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_keeps_many_thousands_in_order() {
        let topics: Vec<String> = (0..20_000_u32).map(|n| format!("t/{}", n.wrapping_mul(2_654_435_761))).collect();
        let of = |place: u32| topics[place as usize].as_bytes();
        let mut order = Order::default();
        (0..20_000).for_each(|place| order.insert(place, of));
        (0..20_000).filter(|place| place % 3 > 0).for_each(|place| order.remove(of(place), of));
        let mut expected: Vec<u32> = (0..20_000).filter(|place| place % 3 == 0).collect();
        expected.sort_by_key(|place| of(*place));
        assert_eq!(order.from(Bound::Unbounded, of).collect::<Vec<_>>(), expected);
        assert!(order.runs.iter().all(|run| (1..=RUN_PLACES).contains(&run.len())));
    }

    proptest! {
        /// The referee is the library's sorted set.
        #[test]
        fn it_goes_on_from_any_topic_as_a_sorted_set_does(
            steps in proptest::collection::vec((any::<bool>(), 0..2_000_u32), 0..3_000),
            from in 0..2_000_u32,
        ) {
            let topics: Vec<String> = (0..2_000).map(|n| format!("{n}")).collect();
            let of = |place: u32| topics[place as usize].as_bytes();
            let (mut order, mut set) = (Order::default(), BTreeSet::new());
            for (comes, place) in steps {
                if !comes {
                    set.remove(of(place));
                    order.remove(of(place), of);
                } else if set.insert(of(place)) {
                    order.insert(place, of);
                }
            }
            for bound in [Bound::Included(of(from)), Bound::Excluded(of(from)), Bound::Unbounded] {
                let ours: Vec<&[u8]> = order.from(bound, of).map(of).collect();
                let theirs: Vec<&[u8]> = set.range::<[u8], _>((bound, Bound::Unbounded)).copied().collect();
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
