//! Which devices there are: taken in at boot, and what a new configuration changes.
//!
//! In: a configuration, and what the store kept. Out: twins, writes, and the retained topics that appear or go. Must never
//! let the versions of a device go back, not even when it leaves and returns.

use std::collections::HashSet;
use std::sync::Arc;

use protocols::config::Config;
use protocols::message::ReportedOut;
use protocols::name::{DeviceId, PropertyName};
use protocols::profile::Profile;
use protocols::twin::{Change, Leaf, Saved, Shape, Twin};
use protocols::value::Now;

use super::service::{Held, Mark, Service};
use super::words;
use crate::store::{ReportedWrite, TwinWrite};

impl Service {
    pub(super) fn shape(&mut self, profile: &Arc<Profile>) -> Arc<Shape> {
        let key = format!("{} {}", profile.label(), profile.hash);
        let known = self.shapes.get(&key).filter(|shape| Arc::ptr_eq(shape.profile(), profile));
        if let Some(shape) = known {
            return shape.clone();
        }
        let shape = Shape::new(profile.clone());
        self.shapes.insert(key, shape.clone());
        shape
    }

    /// Takes a device in, as it was kept or new.
    pub(super) fn admit(
        &mut self,
        device: DeviceId,
        profile: &Arc<Profile>,
        saved: Option<Saved>,
        now: Now,
        writes: &mut Vec<TwinWrite>,
    ) {
        let shape = self.shape(profile);
        let known = saved.is_some();
        let mut saved = saved.unwrap_or_default();
        let stored = saved.reported_version;
        if known && stored == 0 {
            saved.reported_version = self.around.store.first_version();
        }
        let (twin, change) = Twin::restore(device.clone(), self.epoch.clone(), shape, saved, now);
        let mut held = Held::new(twin, &self.around.root, stored);
        let renewed = !self.around.store.opened().clean && held.twin.renew_reported();
        // A new device is written down before it says anything: what the store does not know was never published, so
        // it begins at 0 also after an end that was not clean.
        if !known || held.twin.reported_version() != stored {
            let mut leaves: Vec<_> = change.reported_gone.iter().map(|name| (name.clone(), None)).collect();
            if renewed {
                leaves.extend(held.twin.reported_indexes().filter_map(|index| leaf(&held.twin, index)));
            }
            let version = held.twin.reported_version();
            writes.push(TwinWrite::Reported(ReportedWrite { device: device.clone(), version, leaves }));
            held.stored = version;
        }
        self.tell_change(&held, &change, writes);
        self.twins.insert(device, held);
    }

    /// Puts a change into writes and words that are told outside a batch.
    fn tell_change(&mut self, held: &Held, change: &Change, writes: &mut Vec<TwinWrite>) {
        for (name, leaf) in &change.leaves {
            writes.push(TwinWrite::Desired(held.twin.device().clone(), name.clone(), leaf.clone()));
        }
        let last = change.last_words.iter();
        self.words.extend(
            last.map(|(name, out)| {
                words::kept(&words::below(&held.prefix, "desired", name.as_str()), &words::json(out))
            }),
        );
        let gone = change.reported_gone.iter();
        self.words.extend(gone.map(|name| words::cleared(&words::below(&held.prefix, "reported", name.as_str()))));
        self.words.extend(change.leaves.iter().map(|(name, _)| held.desired(name.as_str())));
        let events = change.events.iter();
        self.words.extend(events.map(|event| words::spoken(&[&held.prefix, "/event"], &words::json(event))));
    }

    /// Forgets what the store keeps of a device that is not configured; its versions stay, so that none goes back
    /// should it return.
    pub(super) fn bury(&mut self, device: &DeviceId, saved: &Saved, now: Now, writes: &mut Vec<TwinWrite>) {
        let prefix = format!("{}/{device}", self.around.root);
        let mut grave = Saved { reported_version: saved.reported_version, ..Saved::default() };
        if !saved.reported.is_empty() {
            grave.reported_version += 1;
            let leaves = saved.reported.iter().map(|(name, _)| (name.clone(), None)).collect();
            let version = grave.reported_version;
            writes.push(TwinWrite::Reported(ReportedWrite { device: device.clone(), version, leaves }));
        }
        let version = saved.desired.iter().map(|(_, leaf)| leaf.version()).max().unwrap_or(0) + 1;
        for (name, leaf) in &saved.desired {
            let held = leaf.held().is_some();
            let cleared = Leaf::Cleared { version, at: now.wall, by: "configuration".to_owned() };
            if held {
                writes.push(TwinWrite::Desired(device.clone(), name.clone(), cleared.clone()));
                self.words.push(words::cleared(&words::below(&prefix, "desired", name.as_str())));
            }
            grave.desired.push((name.clone(), if held { cleared } else { leaf.clone() }));
        }
        let reported = saved.reported.iter();
        self.words.extend(reported.map(|(name, _)| words::cleared(&words::below(&prefix, "reported", name.as_str()))));
        self.graves.insert(device.clone(), grave);
    }

    pub(super) fn on_reload(&mut self, config: &Config, now: Now) {
        self.flush.set_interval(config.twin.flush);
        let mut writes = Vec::new();
        let wanted: HashSet<&DeviceId> = config.devices.iter().map(|device| &device.id).collect();
        let gone: Vec<_> = self.twins.keys().filter(|device| !wanted.contains(device)).cloned().collect();
        for device in gone {
            let Some(held) = self.twins.remove(&device) else { continue };
            held.clear(&mut self.words);
            self.bury(&device, &saved(&held.twin), now, &mut writes);
        }
        let mut fresh = Vec::new();
        for device in &config.devices {
            let shape = self.shape(&device.profile);
            let Some(mut held) = self.twins.remove(&device.id) else {
                fresh.push(device.id.clone());
                let saved = self.graves.remove(&device.id);
                self.admit(device.id.clone(), &device.profile, saved, now, &mut writes);
                continue;
            };
            let same = Arc::ptr_eq(held.twin.shape().profile(), &device.profile)
                || held.twin.shape().profile().hash == device.profile.hash;
            if !same {
                let change = held.twin.on_profile_change(shape, now);
                self.refit(&mut held, &change, &mut writes);
                fresh.push(device.id.clone());
            }
            self.twins.insert(device.id.clone(), held);
        }
        self.shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
        if let Err(error) = self.commit_now(writes.clone()) {
            tracing::error!(%error, "a new configuration is not on disk yet; it is tried again");
            self.around.store.write(writes, None);
        }
        for held in fresh.iter().filter_map(|device| self.twins.get(device)) {
            held.all(now, &mut self.words);
        }
    }

    /// What a new profile means for the store: everything of the reported half, since its marks are for the old one.
    fn refit(&mut self, held: &mut Held, change: &Change, writes: &mut Vec<TwinWrite>) {
        let mut leaves: Vec<_> = change.reported_gone.iter().map(|name| (name.clone(), None)).collect();
        leaves.extend(held.twin.reported_indexes().filter_map(|index| leaf(&held.twin, index)));
        let (device, version) = (held.twin.device().clone(), held.twin.reported_version());
        writes.push(TwinWrite::Reported(ReportedWrite { device, version, leaves }));
        held.marks = vec![Mark::Stored; held.twin.shape().profile().properties.len()];
        held.stored = version;
        self.tell_change(held, change, writes);
    }
}

/// A reported property as it is written.
fn leaf(twin: &Twin, index: usize) -> Option<(PropertyName, Option<ReportedOut>)> {
    Some((twin.name(index)?.clone(), Some(twin.reported(index)?)))
}

fn saved(twin: &Twin) -> Saved {
    let leaf = |index: usize| Some((twin.name(index)?.clone(), twin.reported(index)?));
    let properties = twin.shape().profile().properties.iter();
    let desired =
        properties.filter_map(|property| Some((property.name.clone(), twin.leaf(property.name.as_str())?.clone())));
    Saved {
        reported_version: twin.reported_version(),
        reported: twin.reported_indexes().filter_map(leaf).collect(),
        desired: desired.collect(),
    }
}
