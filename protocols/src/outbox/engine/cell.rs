//! One slot, and the lane of a device.
//!
//! In: what happened to it. Out: whether it is dirty, whether it may be said, and how urgent that is.

use std::collections::BTreeMap;

use crate::outbox::{Content, Item, Stamp};

/// What the other side holds in a slot, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// Nothing; nothing was ever said.
    Nothing,
    /// Something was said and not acknowledged, or the other side may have lost it.
    Maybe,
    /// This was acknowledged, and nothing was said since.
    Exactly(Stamp),
}

/// What the mark on disk says. It is never bolder than the truth: `Exactly` there means that nothing else was said
/// since, whatever happened to the gateway in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Absent,
    Maybe,
    Exactly(Stamp),
}

/// One slot.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) content: Content,
    pub(super) stamp: Stamp,
    pub(super) there: There,
    pub(super) disk: Disk,
    /// An alarm, or a status.
    pub(super) urgent: bool,
    /// Changed while the link is up; the rest is backlog.
    pub(super) live: bool,
    /// When it changed last and when it became dirty, in changes.
    pub(super) order: u64,
    pub(super) first: u64,
    /// When it became dirty: a tick.
    pub(super) since: u64,
    /// When it was acknowledged: a tick.
    pub(super) settled_at: u64,
    /// The other side will not take what it holds now.
    pub(super) refused: bool,
    /// Whether the local topics told of it in this run.
    pub(super) heard: bool,
}

impl Cell {
    pub(super) fn empty(urgent: bool) -> Self {
        Self {
            content: None,
            stamp: Stamp::GONE,
            there: There::Nothing,
            disk: Disk::Absent,
            urgent,
            live: false,
            order: 0,
            first: 0,
            since: 0,
            settled_at: 0,
            refused: false,
            heard: true,
        }
    }

    /// As its mark tells: something is there, and what we hold ourselves is not known yet.
    pub(super) fn marked(stamp: Stamp, urgent: bool) -> Self {
        let (there, disk) = match stamp {
            Stamp::MAYBE => (There::Maybe, Disk::Maybe),
            stamp => (There::Exactly(stamp), Disk::Exactly(stamp)),
        };
        Self { there, disk, heard: false, ..Self::empty(urgent) }
    }

    /// Whether the other side has to be told.
    pub(super) fn is_dirty(&self) -> bool {
        self.heard
            && !self.refused
            && match self.there {
                There::Nothing => self.content.is_some(),
                There::Maybe => true,
                There::Exactly(stamp) => stamp != self.stamp,
            }
    }

    /// Whether nothing is left of it on either side.
    pub(super) fn is_over(&self) -> bool {
        self.heard && self.content.is_none() && self.there == There::Nothing
    }

    pub(super) fn bytes(&self) -> usize {
        self.content.as_ref().map_or(0, |content| content.len()) + PART_BYTES
    }

    /// How it stands in the queue: class and place, smaller first.
    pub(super) fn key(&self, item: &Item) -> (u8, u64) {
        match (item, self.live, self.urgent) {
            (Item::Document, ..) => (DOCUMENTS, self.first),
            (_, true, true) => (URGENT, self.first),
            // First come, first served: newest first would let a quiet device wait behind busy ones for ever.
            (_, true, false) => (LIVE, self.first),
            // Newest first, as what is old has waited already and what is new is what people look at.
            (_, false, true) => (BACKLOG, (1 << 62) - self.order.min(1 << 61)),
            (_, false, false) => (BACKLOG, (1 << 63) - self.order.min(1 << 61)),
        }
    }
}

/// What a part costs beside its content, in bytes: its topic and framing, roughly.
pub(super) const PART_BYTES: usize = 64;

/// Classes of the queue.
pub(super) const URGENT: u8 = 0;
pub(super) const LIVE: u8 = 1;
pub(super) const BACKLOG: u8 = 2;
pub(super) const DOCUMENTS: u8 = 3;

/// The slots of a device, or of the gateway itself, which has one: [`Item::Status`].
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    pub(super) cells: BTreeMap<Item, Cell>,
    /// The batch in flight.
    pub(super) flying: Option<u64>,
    /// The other side asked to be left alone until then: a tick.
    pub(super) not_before: u64,
    /// Batches in a row that the other side asked to hear again.
    pub(super) again: u32,
    /// From when on the document may be said again: a tick.
    pub(super) document_from: u64,
    /// Its place in the queue.
    pub(super) key: Option<(u8, u64)>,
}
