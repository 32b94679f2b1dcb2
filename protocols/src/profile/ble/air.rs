//! Which profile would fit what is in the air.
//!
//! In: the profiles there are, and advertisements of devices that nobody has configured. Out: ids of profiles, best
//! first. Must never remember a device: this is for people who look for one.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Listener, Origin};
use crate::ble::{Advertisement, Identity, Outcome};
use crate::profile::Profile;
use crate::value::Now;

/// The Bluetooth profiles there are.
#[derive(Debug, Default)]
pub struct Air(Vec<Arc<Profile>>);

impl Air {
    /// Of these, those that are about Bluetooth.
    pub fn new(profiles: Vec<Arc<Profile>>) -> Self {
        Self(profiles.into_iter().filter(|profile| profile.ble.is_some()).collect())
    }

    /// The profiles.
    pub fn profiles(&self) -> &[Arc<Profile>] {
        &self.0
    }

    /// The ids of the profiles whose `match` fits and that make something of an advertisement without a key: the one that
    /// makes most of it first, those that need a key last.
    pub fn fits(&self, adv: &Advertisement) -> Vec<&str> {
        let fitting = self.0.iter().filter_map(|profile| Some((told(profile, adv)?, profile.id.as_str())));
        let mut found: Vec<(usize, &str)> = fitting.collect();
        found.sort_by_key(|(told, id)| (Reverse(*told), *id));
        found.into_iter().map(|(_, id)| id).collect()
    }
}

/// How many values a profile makes of an advertisement; `None` where it is not meant for it.
fn told(profile: &Arc<Profile>, adv: &Advertisement) -> Option<usize> {
    if !profile.ble.as_ref()?.pattern.fits(adv) {
        return None;
    }
    let heard = Listener::new(Arc::clone(profile), Identity::default()).hear(adv, Now::default());
    let is_told = |index: usize| {
        let visit = profile.properties.get(index).and_then(|property| property.source.ble());
        visit.is_some_and(|visit| !matches!(visit.from, Origin::Meta(_)))
    };
    match heard.outcome {
        Outcome::Decoded | Outcome::Partial => Some(heard.readings.iter().filter(|(index, _)| is_told(*index)).count()),
        Outcome::NoKey => Some(0),
        _ => None,
    }
}
