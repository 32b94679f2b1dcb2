//! What is in the air: everybody who speaks, decoded, with the profiles that would fit.
//!
//! In: advertisements for a while. Out: a list for people. Must never show a key.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use protocols::ble::{AddressType, Advertisement, Mac, Object, Roster, identify};
use protocols::profile::Profile;
use protocols::profile::ble::Air;
use protocols::value::Value;
use serde_json::json;

/// Devices one survey lists; one more is not listed.
const DEVICES: usize = 512;

/// A survey under way.
#[derive(Default)]
pub(super) struct Survey {
    seen: HashMap<Mac, (Advertisement, u64)>,
}

impl Survey {
    /// Takes an advertisement in; what several say is put together.
    pub(super) fn hear(&mut self, heard: &Advertisement) {
        let Some(address) = heard.address else { return };
        if self.seen.len() >= DEVICES && !self.seen.contains_key(&address) {
            return;
        }
        let (all, count) = self.seen.entry(address).or_insert_with(|| (heard.clone(), 0));
        *count += 1;
        all.rssi = heard.rssi.or(all.rssi);
        all.tx_power = heard.tx_power.or(all.tx_power);
        all.name = heard.name.clone().filter(|name| !name.is_empty()).or_else(|| all.name.take());
        for (uuid, data) in &heard.service_data {
            match all.service_data.iter_mut().find(|(own, _)| own == uuid) {
                Some((_, own)) => own.clone_from(data),
                None => all.service_data.push((*uuid, data.clone())),
            }
        }
        for (company, data) in &heard.manufacturer {
            match all.manufacturer.iter_mut().find(|(own, _)| own == company) {
                Some((_, own)) => own.clone_from(data),
                None => all.manufacturer.push((*company, data.clone())),
            }
        }
        for service in heard.services.iter().filter(|service| !all.services.contains(service)).collect::<Vec<_>>() {
            all.services.push(*service);
        }
    }

    /// The list, the strongest first. `ids` are the configured devices by number.
    pub(super) fn found(
        self,
        profiles: &[Arc<Profile>],
        roster: &mut Roster,
        ids: &BTreeMap<usize, String>,
    ) -> Vec<Value> {
        let mut seen: Vec<(Mac, (Advertisement, u64))> = self.seen.into_iter().collect();
        seen.sort_by_key(|(address, (heard, _))| (std::cmp::Reverse(heard.rssi), *address));
        let air = Air::new(profiles.to_vec());
        let mut line = |(address, (heard, count)): &(Mac, (Advertisement, u64))| {
            let devices: Vec<&String> = roster.owners(heard).iter().filter_map(|number| ids.get(number)).collect();
            json!({
                "address": address.to_string(),
                "random": heard.address_type == AddressType::Random,
                "name": heard.name,
                "rssi": heard.rssi,
                "packets": count,
                "services": heard.services.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "says": said(heard),
                "profiles": air.fits(heard),
                "devices": devices,
            })
        };
        seen.iter().map(&mut line).collect()
    }
}

fn said(heard: &Advertisement) -> Vec<Value> {
    let hints = identify(heard).into_iter().map(|hint| {
        let objects: Vec<Value> = hint.objects.iter().map(Object::json).collect();
        json!({"format": hint.format.word(), "encrypted": hint.is_encrypted, "objects": objects})
    });
    hints.collect()
}
