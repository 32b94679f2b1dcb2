//! What the advertisements of a device model look like.
//!
//! In: an advertisement. Out: whether it fits. Must never fit everything: a pattern without a mark fits nothing.

use regex_lite::{Regex, RegexBuilder};

use super::advert::Advertisement;
use super::uuid::Uuid;

/// The most a compiled pattern of names may take, in bytes; a larger one is an error of the profile.
pub const NAME_PATTERN_BYTES: usize = 64 << 10;

/// Marks of a device model. All kinds that are given have to fit; of one kind, one mark has to.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    /// Service data of one of these services.
    pub service_data: Vec<Uuid>,
    /// One of these services.
    pub services: Vec<Uuid>,
    /// Manufacturer data of one of these.
    pub manufacturer: Vec<ManufacturerPattern>,
    /// A regular expression that finds something in the name.
    name: Option<Regex>,
}

/// Marks in manufacturer data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManufacturerPattern {
    /// The company identifier.
    pub id: u16,
    /// How the bytes behind it begin.
    pub prefix: Vec<u8>,
}

/// A name pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NamePatternError(String);

impl Pattern {
    /// Sets the pattern of names.
    ///
    /// # Errors
    /// What is wrong with the regular expression.
    pub fn set_name(&mut self, pattern: &str) -> Result<(), NamePatternError> {
        let built = RegexBuilder::new(pattern).size_limit(NAME_PATTERN_BYTES).build();
        self.name = Some(built.map_err(|error| NamePatternError(error.to_string()))?);
        Ok(())
    }

    /// Whether it has no mark at all.
    pub fn is_empty(&self) -> bool {
        self.service_data.is_empty() && self.services.is_empty() && self.manufacturer.is_empty() && self.name.is_none()
    }

    /// Whether an advertisement has all the marks.
    pub fn fits(&self, adv: &Advertisement) -> bool {
        let has_data = |uuid: &Uuid| adv.service(*uuid).is_some();
        let has_maker = |maker: &ManufacturerPattern| {
            adv.manufacturer.iter().any(|(id, data)| *id == maker.id && data.starts_with(&maker.prefix))
        };
        !self.is_empty()
            && (self.service_data.is_empty() || self.service_data.iter().any(has_data))
            && (self.services.is_empty() || self.services.iter().any(|uuid| adv.services.contains(uuid)))
            && (self.manufacturer.is_empty() || self.manufacturer.iter().any(has_maker))
            && self.name.as_ref().is_none_or(|name| adv.name.as_deref().is_some_and(|own| name.is_match(own)))
    }

    /// The same as patterns of an advertisement monitor — type of structure, first byte, bytes —, one of which has to be
    /// there; nothing where a monitor cannot see the marks.
    pub fn monitor(&self) -> Vec<(u8, u8, Vec<u8>)> {
        let data = |uuid: &Uuid| match uuid.short() {
            Some(short) => (0x16, 0, short.to_le_bytes().to_vec()),
            None => (0x21, 0, uuid.0.to_le_bytes().to_vec()),
        };
        let maker = |maker: &ManufacturerPattern| {
            (0xFF, 0, [maker.id.to_le_bytes().as_slice(), maker.prefix.as_slice()].concat())
        };
        if !self.service_data.is_empty() {
            return self.service_data.iter().map(data).collect();
        }
        self.manufacturer.iter().map(maker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_marks_have_to_fit() {
        let service = Uuid::from_u16(0xFCD2);
        let adv = Advertisement {
            name: Some("SBHT-003C".into()),
            service_data: vec![(service, vec![0x40])],
            manufacturer: vec![(0x004C, vec![2, 21, 7])],
            services: vec![Uuid::from_u16(0x180F)],
            ..Default::default()
        };
        let maker = |prefix: &[u8]| vec![ManufacturerPattern { id: 0x004C, prefix: prefix.to_vec() }];
        let named = |name: &str| {
            let mut pattern = Pattern::default();
            pattern.set_name(name).unwrap();
            pattern
        };
        for (pattern, expected) in [
            (Pattern::default(), false),
            (Pattern { service_data: vec![service], ..Default::default() }, true),
            (Pattern { service_data: vec![Uuid::from_u16(1), service], ..Default::default() }, true),
            (Pattern { service_data: vec![Uuid::from_u16(1)], ..Default::default() }, false),
            (Pattern { services: vec![service], ..Default::default() }, false),
            (Pattern { manufacturer: maker(&[2, 21]), ..Default::default() }, true),
            (Pattern { manufacturer: maker(&[2, 22]), ..Default::default() }, false),
            (named("^SBHT"), true),
            (Pattern { service_data: vec![service], ..named("^TP") }, false),
        ] {
            assert_eq!(pattern.fits(&adv), expected, "{pattern:?}");
        }
        assert!(!named("").fits(&Advertisement::default()));
        assert!(Pattern::default().set_name("(").is_err());
    }

    #[test]
    fn a_monitor_sees_what_it_can() {
        let pattern = Pattern { service_data: vec![Uuid::from_u16(0xFCD2)], ..Default::default() };
        assert_eq!(pattern.monitor(), vec![(0x16, 0, vec![0xD2, 0xFC])]);
        let maker = ManufacturerPattern { id: 0x0499, prefix: vec![5] };
        let pattern = Pattern { manufacturer: vec![maker], ..Default::default() };
        assert_eq!(pattern.monitor(), vec![(0xFF, 0, vec![0x99, 0x04, 5])]);
        assert_eq!(Pattern::default().monitor(), vec![]);
    }
}
