//! Which devices an advertisement belongs to.
//!
//! In: the devices of one radio with their addresses, keys and patterns; advertisements. Out: device numbers. Must never
//! give a sighting of a known address to a device that is only described by a pattern.

use std::collections::HashMap;
use std::fmt;

use super::address::{AddressType, Mac};
use super::advert::Advertisement;
use super::key::Key;
use super::pattern::Pattern;

/// The random addresses whose owner is remembered; at one more all are forgotten and worked out again.
pub const RESOLVED: usize = 4_096;

/// What one device has for itself: the parameters of its profile that name it and open its packets.
#[derive(Clone, Default, PartialEq)]
pub struct Identity {
    /// Its address; a device without one is known by its pattern.
    pub address: Option<Mac>,
    /// What opens its packets.
    pub key: Option<Key>,
    /// What resolves its private addresses.
    pub irk: Option<Key>,
    /// What it wants to be told when it is paired, 0 to 999999.
    pub passkey: Option<u32>,
    /// Packets in clear text are not believed.
    pub requires_encryption: bool,
}

impl fmt::Debug for Identity {
    /// Keys and passkey are there or not; they are never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("address", &self.address)
            .field("has_key", &self.key.is_some())
            .field("has_irk", &self.irk.is_some())
            .field("has_passkey", &self.passkey.is_some())
            .field("requires_encryption", &self.requires_encryption)
            .finish()
    }
}

/// The devices of one radio.
#[derive(Debug, Default)]
pub struct Roster {
    by_address: HashMap<Mac, Vec<usize>>,
    by_key: Vec<(usize, Key)>,
    by_pattern: Vec<(usize, Pattern)>,
    resolved: HashMap<Mac, Vec<usize>>,
}

impl Roster {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a device in.
    pub fn add(&mut self, number: usize, identity: &Identity, pattern: &Pattern) {
        self.remove(number);
        if let Some(address) = identity.address {
            self.by_address.entry(address).or_default().push(number);
        }
        if let Some(irk) = &identity.irk {
            self.by_key.push((number, irk.clone()));
        }
        if identity.address.is_none() && identity.irk.is_none() {
            self.by_pattern.push((number, pattern.clone()));
        }
    }

    /// Lets a device go.
    pub fn remove(&mut self, number: usize) {
        self.by_address.retain(|_, numbers| {
            numbers.retain(|own| *own != number);
            !numbers.is_empty()
        });
        self.by_key.retain(|(own, _)| *own != number);
        self.by_pattern.retain(|(own, _)| *own != number);
        self.resolved.clear();
    }

    /// The devices it belongs to: by address, by resolving key, else by pattern.
    pub fn owners(&mut self, adv: &Advertisement) -> Vec<usize> {
        if let Some(numbers) = adv.address.and_then(|address| self.by_address.get(&address)) {
            return numbers.clone();
        }
        if let Some(address) = adv.address.filter(|_| adv.address_type == AddressType::Random) {
            let numbers = self.resolve(address);
            if !numbers.is_empty() {
                return numbers;
            }
        }
        let fits = self.by_pattern.iter().filter(|(_, pattern)| pattern.fits(adv));
        fits.map(|(number, _)| *number).collect()
    }

    fn resolve(&mut self, address: Mac) -> Vec<usize> {
        if self.by_key.is_empty() || !address.is_resolvable() {
            return Vec::new();
        }
        if let Some(numbers) = self.resolved.get(&address) {
            return numbers.clone();
        }
        let of = self.by_key.iter().filter(|(_, irk)| address.is_of(irk));
        let numbers: Vec<usize> = of.map(|(number, _)| *number).collect();
        if self.resolved.len() >= RESOLVED {
            self.resolved.clear();
        }
        self.resolved.insert(address, numbers.clone());
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ble::Uuid;

    #[test]
    fn an_address_goes_before_a_key_and_a_key_before_a_pattern() {
        let mac: Mac = "A4:C1:38:8D:18:B2".parse().unwrap();
        // Core Specification 5.4, Vol 3, Part H, Appendix D.7.
        let private: Mac = "70:81:94:0D:FB:AA".parse().unwrap();
        let irk = Key::from_hex("ec0234a357c8ad05341010a60a397d9b").unwrap();
        let mut pattern = Pattern::default();
        pattern.service_data.push(Uuid::from_u16(0xFCD2));
        let mut roster = Roster::new();
        roster.add(1, &Identity { address: Some(mac), ..Default::default() }, &pattern);
        roster.add(2, &Identity { irk: Some(irk), ..Default::default() }, &pattern);
        roster.add(3, &Identity::default(), &pattern);
        let data = vec![(Uuid::from_u16(0xFCD2), vec![0x40])];
        let seen = |address, address_type, service_data: &[(Uuid, Vec<u8>)]| Advertisement {
            address,
            address_type,
            service_data: service_data.to_vec(),
            ..Default::default()
        };
        for (adv, expected) in [
            (seen(Some(mac), AddressType::Public, &data), vec![1]),
            (seen(Some(mac), AddressType::Public, &[]), vec![1]),
            (seen(Some(private), AddressType::Random, &data), vec![2]),
            (seen(Some(private), AddressType::Random, &[]), vec![2]),
            (seen(Some(private), AddressType::Public, &data), vec![3]),
            (seen(None, AddressType::Public, &data), vec![3]),
            (seen(Some(Mac([1; 6])), AddressType::Public, &[]), vec![]),
        ] {
            assert_eq!(roster.owners(&adv), expected, "{adv:?}");
        }
        roster.remove(1);
        assert_eq!(roster.owners(&seen(Some(mac), AddressType::Public, &data)), vec![3]);
    }

    #[test]
    fn a_passkey_never_shows_itself() {
        let shown = format!("{:?}", Identity { passkey: Some(123_456), ..Identity::default() });
        assert!(!shown.contains("123456") && shown.contains("has_passkey: true"), "{shown}");
    }

    #[test]
    fn the_memory_of_private_addresses_is_bounded() {
        let irk = Key::from_hex("ec0234a357c8ad05341010a60a397d9b").unwrap();
        let mut roster = Roster::new();
        roster.add(1, &Identity { irk: Some(irk), ..Default::default() }, &Pattern::default());
        for number in 0..10_000_u32 {
            let [a, b, c, d] = number.to_be_bytes();
            let address = Some(Mac([0x40, a, b, c, d, 0]));
            roster.owners(&Advertisement { address, address_type: AddressType::Random, ..Default::default() });
            assert!(roster.resolved.len() <= RESOLVED);
        }
    }
}
