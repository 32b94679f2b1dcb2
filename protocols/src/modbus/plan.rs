//! The read planner: from the values that are wanted to the fewest reads inside what a device allows, and what refusals
//! teach about it.
//!
//! In: [`Want`]s; the outcome of each [`Read`]. Out: reads. Must never split a value, touch a forbidden address, or go
//! on asking for a combination that was refused.
//!
//! How refusals (exceptions 2 and 3) are answered: a combined read is cut in two — at a hole if it has one, else in the
//! middle — and its halves are handed back to be read at once, until either both halves work (the cut stays: the hole
//! or the size was the trouble) or one value is refused alone. That one is then kept apart for good measure, the cuts
//! made on the way to it are forgotten, and its neighbours come together again. A value refused alone [`PARK_AFTER`]
//! times in a row is parked: [`Planner::plan`] leaves it out, and [`Planner::plan_parked`] asks for it whenever the
//! caller thinks it is time. So a bad register costs about `2 × log2(n)` extra requests one time, all inside the cycle
//! that met it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::{MergeLimits, Table};

#[cfg(test)]
mod tests;

/// Registers one read may carry (specification, sections 6.3 and 6.4).
const MAX_REGISTERS: u16 = 125;
/// Bits one read may carry (sections 6.1 and 6.2).
const MAX_BITS: u16 = 2000;
/// Object ids of function 43/14.
const MAX_OBJECTS: u16 = 256;
/// Refusals in a row after which a value is parked: two may be a device that is still starting.
pub const PARK_AFTER: u32 = 3;
/// Good answers in a row after which a value that was refused may be read together with others again. Doubled each
/// time it turns out to have been too early.
const REJOIN_AFTER: u32 = 10;
/// Where the doubling ends; at one read a second that is about a day.
const REJOIN_MOST: u32 = 80_000;
/// The widest hole any line's speed suggests, in registers. Beyond it the risk of meeting a register that does not
/// exist outweighs what is saved. (50 is what Telegraf fills by default, too.)
pub const MOST_GAP: u16 = 50;

/// One value that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// The caller's number for it.
    pub id: usize,
    /// The table.
    pub table: Table,
    /// The first protocol address.
    pub address: u16,
    /// Registers, or bits in a bit table; 1 in the device identification.
    pub width: u16,
}

impl Want {
    fn span(&self) -> Span {
        Span { table: self.table, address: self.address, width: self.width }
    }
}

/// One request. In the table [`Table::DeviceId`] it is a stream of objects of one category: basic 0..=2, regular
/// 3..=127 or extended 128..=255.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The table.
    pub table: Table,
    /// The first protocol address.
    pub address: u16,
    /// Registers or bits.
    pub count: u16,
    /// The ids of the values in it.
    pub wants: Vec<usize>,
    /// Address and width of each of `wants`, in the same order.
    pub parts: Vec<(u16, u16)>,
}

impl Read {
    /// Where in the answer the `index`-th of `wants` lies.
    pub fn part(&self, index: usize) -> Option<Range<usize>> {
        let (address, width) = *self.parts.get(index)?;
        let start = usize::from(address.checked_sub(self.address)?);
        Some(start..start + usize::from(width))
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = self
            .parts
            .iter()
            .map(|(address, width)| Span { table: self.table, address: *address, width: *width })
            .collect();
        spans.sort_unstable();
        spans.dedup();
        spans
    }

    fn each_want(&self) -> Vec<Want> {
        let parts = self.wants.iter().zip(&self.parts);
        parts
            .map(|(id, (address, width))| Want { id: *id, table: self.table, address: *address, width: *width })
            .collect()
    }
}

/// A value the device refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The table.
    pub table: Table,
    /// The first protocol address.
    pub address: u16,
    /// Registers or bits.
    pub width: u16,
    /// The exception it was refused with.
    pub code: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    table: Table,
    address: u16,
    width: u16,
}

impl Span {
    /// One past its last address; up to 65,536.
    fn end(self) -> u32 {
        u32::from(self.address) + u32::from(self.width)
    }
}

/// What is known of a value that was refused alone.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// It is read alone.
    apart: bool,
    /// Refusals in a row.
    refused: u32,
    /// Good answers in a row.
    answered: u32,
    /// Good answers after which it is no longer kept apart.
    rejoin_after: u32,
    code: u8,
}

/// Plans reads for one device and learns from its refusals.
#[derive(Clone, Debug)]
pub struct Planner {
    limits: MergeLimits,
    gap: u16,
    /// No read may hold a value that begins before this address and one that begins at or after it; with the refused
    /// read (first address, one past the last) that taught it. At most one for each value.
    cuts: BTreeMap<(Table, u16), (u16, u32)>,
    /// At most one for each value.
    troubles: BTreeMap<Span, Trouble>,
    revision: u64,
}

/// The same place wanted by one or more ids.
struct Slot {
    span: Span,
    ids: Vec<usize>,
}

impl Planner {
    /// A planner that knows nothing of its device yet. `default_gap` counts where the limits name no `max_gap`; see
    /// [`gap_for_line`].
    pub fn new(limits: MergeLimits, default_gap: u16) -> Self {
        let gap = limits.max_gap.unwrap_or(default_gap);
        Self { limits, gap, cuts: BTreeMap::new(), troubles: BTreeMap::new(), revision: 0 }
    }

    /// The fewest reads that give the wanted values, and among those the ones that carry least. Left out are parked
    /// values and those that no read can give (see [`Planner::readable`]). The same wants give the same reads.
    pub fn plan(&self, wants: &[Want]) -> Vec<Read> {
        let (apart, together): (Vec<Slot>, Vec<Slot>) =
            self.slots(wants, false).into_iter().partition(|slot| self.limits.one_by_one || self.is_apart(slot.span));
        let mut reads: Vec<Read> = apart.into_iter().map(|slot| combine(&[slot])).collect();
        for table in together.chunk_by(|a, b| a.span.table == b.span.table) {
            let mut rest = table;
            for length in self.partition(table) {
                let (group, after) = rest.split_at(length.min(rest.len()));
                reads.push(combine(group));
                rest = after;
            }
        }
        reads.sort_by_key(|read| (read.table, read.address, read.count));
        reads
    }

    /// Reads, one for each place, for those of the wanted values that are parked.
    pub fn plan_parked(&self, wants: &[Want]) -> Vec<Read> {
        self.slots(wants, true).into_iter().map(|slot| combine(&[slot])).collect()
    }

    /// Whether a read inside the limits can give the value at all.
    pub fn readable(&self, want: &Want) -> bool {
        let span = want.span();
        let last = span.end().saturating_sub(1);
        want.width > 0
            && u32::from(want.width) <= self.most(want.table)
            && last <= u32::from(u16::MAX)
            && !self.is_forbidden(want.table, u32::from(want.address), span.end())
    }

    /// Learns from a refusal and gives the reads to try at once instead: halves of a combined read after exceptions 2
    /// and 3, nothing otherwise. With nothing in return the read's values are bad for now.
    pub fn on_exception(&mut self, read: &Read, code: u8) -> Vec<Read> {
        if !matches!(code, 2 | 3) {
            return Vec::new();
        }
        let spans = read.spans();
        match spans.as_slice() {
            [] => return Vec::new(),
            [alone] => {
                self.refused_alone(*alone, code);
                return Vec::new();
            }
            _ if !self.limits.split_on_exception => return Vec::new(),
            _ => {}
        }
        self.revision += 1;
        match best_cut(&spans) {
            Some(at) => {
                let until = u32::from(read.address) + u32::from(read.count);
                self.cuts.insert((read.table, at), (read.address, until));
            }
            // They all begin at one address, so that only reading each alone can tell them apart.
            None => {
                for span in spans {
                    self.trouble(span, code).apart = true;
                }
            }
        }
        self.plan(&read.each_want())
    }

    /// Takes note of a good answer: a parked value that answers is parked no longer, and one that keeps answering is
    /// read together with its neighbours again.
    pub fn on_success(&mut self, read: &Read) {
        if self.troubles.is_empty() {
            return;
        }
        let [alone] = read.spans()[..] else { return };
        let Some(trouble) = self.troubles.get_mut(&alone).filter(|trouble| trouble.apart) else { return };
        let was_parked = trouble.refused >= PARK_AFTER;
        trouble.refused = 0;
        trouble.answered += 1;
        let rejoins = trouble.answered >= trouble.rejoin_after;
        if rejoins {
            trouble.apart = false;
            trouble.rejoin_after = trouble.rejoin_after.saturating_mul(2).min(REJOIN_MOST);
        }
        self.revision += u64::from(was_parked || rejoins);
    }

    /// The values that are parked.
    pub fn parked(&self) -> Vec<Parked> {
        let parked = self.troubles.iter().filter(|(_, trouble)| trouble.refused >= PARK_AFTER);
        parked
            .map(|(span, trouble)| Parked {
                table: span.table,
                address: span.address,
                width: span.width,
                code: trouble.code,
            })
            .collect()
    }

    /// The exception a value is parked for, if it is.
    pub fn is_parked(&self, want: &Want) -> Option<u8> {
        self.troubles.get(&want.span()).filter(|trouble| trouble.refused >= PARK_AFTER).map(|trouble| trouble.code)
    }

    /// Plans a parked value again, as if it had never been refused. Says whether it was parked.
    pub fn unpark(&mut self, want: &Want) -> bool {
        let was = self.is_parked(want).is_some();
        if was {
            self.troubles.remove(&want.span());
            self.revision += 1;
        }
        was
    }

    /// Grows whenever a plan made earlier may be out of date.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn slots(&self, wants: &[Want], parked: bool) -> Vec<Slot> {
        let mut slots: BTreeMap<Span, Vec<usize>> = BTreeMap::new();
        for want in wants.iter().filter(|want| self.readable(want) && self.is_parked(want).is_some() == parked) {
            slots.entry(want.span()).or_default().push(want.id);
        }
        slots.into_iter().map(|(span, ids)| Slot { span, ids }).collect()
    }

    /// How many neighbours in `slots` (one table, in order) go into each read: the least (reads, addresses carried),
    /// worked out from the back.
    fn partition(&self, slots: &[Slot]) -> Vec<usize> {
        // best[i]: reads, addresses and length of the first group for slots[i..].
        let mut best = vec![(0_u32, 0_u32, 0_usize); slots.len() + 1];
        for first in (0..slots.len()).rev() {
            let mut least = (u32::MAX, u32::MAX, 1);
            for (length, until) in self.groups(slots.get(first..).unwrap_or_default()) {
                let (reads, carried, _) = best.get(first + length).copied().unwrap_or_default();
                let start = slots.get(first).map_or(0, |slot| u32::from(slot.span.address));
                let this = (reads + 1, carried + (until - start), length);
                if (this.0, this.1) <= (least.0, least.1) {
                    least = this;
                }
            }
            if let Some(place) = best.get_mut(first) {
                *place = least;
            }
        }
        let mut lengths = Vec::new();
        let mut first = 0;
        while let Some((.., length)) = best.get(first).filter(|(_, _, length)| *length > 0) {
            lengths.push(*length);
            first += length;
        }
        lengths
    }

    /// All reads that begin with the first slot: their number of slots and the address after their last.
    fn groups<'a>(&'a self, slots: &'a [Slot]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut until = 0;
        let first = slots.first().map(|slot| slot.span);
        slots.iter().enumerate().map_while(move |(index, slot)| {
            let (first, span) = (first?, slot.span);
            if index > 0 {
                let before = slots.get(index - 1)?.span;
                let begin = u32::from(span.address);
                let crossable = begin <= until || self.may_cross(span.table, until, begin);
                let fits = span.end().max(until) - u32::from(first.address) <= self.most(span.table);
                if !crossable || !fits || self.is_cut(before, span) {
                    return None;
                }
            }
            until = until.max(span.end());
            Some((index + 1, until))
        })
    }

    /// Addresses one read may ask for.
    fn most(&self, table: Table) -> u32 {
        u32::from(match table {
            Table::Coil | Table::Discrete => self.limits.max_bits.clamp(1, MAX_BITS),
            Table::Input | Table::Holding => self.limits.max_registers.clamp(1, MAX_REGISTERS),
            Table::DeviceId => MAX_OBJECTS,
        })
    }

    fn may_cross(&self, table: Table, from: u32, until: u32) -> bool {
        let gap = match table {
            // Sixteen bits take the time of a register.
            Table::Coil | Table::Discrete => u32::from(self.gap) * 16,
            Table::Input | Table::Holding => u32::from(self.gap),
            Table::DeviceId => u32::from(MAX_OBJECTS),
        };
        let refused = |span: &Span, trouble: &Trouble| {
            trouble.apart && span.table == table && u32::from(span.address) < until && from < span.end()
        };
        until - from <= gap
            && !self.is_forbidden(table, from, until)
            && !self.troubles.iter().any(|(span, trouble)| refused(span, trouble))
    }

    fn is_forbidden(&self, table: Table, from: u32, until: u32) -> bool {
        let touches = |first: u16, last: u16| u32::from(first) < until && from <= u32::from(last);
        self.limits.forbidden.iter().any(|(there, first, last)| *there == table && touches(*first, *last))
    }

    fn is_cut(&self, before: Span, span: Span) -> bool {
        if span.table == Table::DeviceId && category(before.address) != category(span.address) {
            return true;
        }
        let Some(first) = before.address.checked_add(1).filter(|first| *first <= span.address) else { return false };
        self.cuts.range((span.table, first)..=(span.table, span.address)).next().is_some()
    }

    fn is_apart(&self, span: Span) -> bool {
        self.troubles.get(&span).is_some_and(|trouble| trouble.apart)
    }

    fn trouble(&mut self, span: Span, code: u8) -> &mut Trouble {
        let fresh = Trouble { apart: false, refused: 0, answered: 0, rejoin_after: REJOIN_AFTER, code };
        self.troubles.entry(span).or_insert(fresh)
    }

    fn refused_alone(&mut self, span: Span, code: u8) {
        let trouble = self.trouble(span, code);
        let is_new = !trouble.apart;
        (trouble.apart, trouble.answered, trouble.code) = (true, 0, code);
        trouble.refused = trouble.refused.saturating_add(1);
        let parks = trouble.refused == PARK_AFTER;
        if is_new {
            // The cuts on the way here only looked for this value.
            let begin = u32::from(span.address);
            self.cuts.retain(|(table, _), (from, until)| {
                *table != span.table || begin < u32::from(*from) || span.end() > *until
            });
        }
        self.revision += u64::from(is_new || parks);
    }
}

/// One read over places that are in order.
fn combine(slots: &[Slot]) -> Read {
    let first = slots.first().map(|slot| slot.span);
    let (table, address) = first.map_or((Table::Holding, 0), |span| (span.table, span.address));
    let until = slots.iter().map(|slot| slot.span.end()).max().unwrap_or(0);
    let each = slots.iter().flat_map(|slot| slot.ids.iter().map(|id| (*id, (slot.span.address, slot.span.width))));
    let (wants, parts) = each.unzip();
    // No read is longer than `most`, which fits.
    let count = u16::try_from(until.saturating_sub(u32::from(address))).unwrap_or(u16::MAX);
    Read { table, address, count, wants, parts }
}

/// Where to cut a refused read: at the hole nearest to the middle, else at the value nearest to it.
fn best_cut(spans: &[Span]) -> Option<u16> {
    let mut until = 0;
    let candidates = spans.iter().zip(spans.iter().skip(1)).enumerate().filter_map(|(index, (before, span))| {
        until = before.end().max(until);
        let is_hole = u32::from(span.address) > until;
        let off_middle = (index + 1).abs_diff(spans.len() / 2);
        (span.address > before.address).then_some(((!is_hole, off_middle), span.address))
    });
    candidates.min().map(|(_, address)| address)
}

/// The categories of device identification (specification, section 6.21).
fn category(object: u16) -> u8 {
    match object {
        0..=2 => 1,
        3..=127 => 2,
        _ => 3,
    }
}

/// How many unwanted registers a read should rather carry than leave to a second request, by the time both take.
///
/// On a serial line a request costs 13 characters (8 asked, 5 answered) and two silences of 3.5 characters (1.75 ms
/// each above 19,200 baud; MODBUS over Serial Line V1.02, section 2.5.1.1) plus `turnaround`: the device's time to
/// answer and the quiet time before the next request. A register costs two characters of ten bits. At 9600 baud that
/// is 10 registers without and 19 with 20 ms of turnaround.
///
/// Without a line (`None`: TCP) registers cost next to nothing and every request a round trip, so that only prudence
/// speaks for an end: [`MOST_GAP`], which bounds the lines, too.
pub fn gap_for_line(baud: Option<u32>, turnaround: Duration) -> u16 {
    let Some(baud) = baud else { return MOST_GAP };
    let character_s = 10.0 / f64::from(baud.max(1));
    let silence_s = if baud > 19_200 { 0.001_75 } else { 3.5 * character_s };
    let request_s = 13.0 * character_s + 2.0 * silence_s + turnaround.as_secs_f64();
    // The cast holds at the ends of u16.
    ((request_s / (2.0 * character_s)) as u16).min(MOST_GAP)
}
