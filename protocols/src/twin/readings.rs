//! Readings on their way in: `reported/set` read straight into the places of the twin.
//!
//! In: a payload, or a [`ReportedSet`]. Out: [`Readings`], by the index of the property. Must never take a property
//! that the profile does not have for another, nor lose that it was there. This is read for every poll of every device:
//! no name is copied, no map is built.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::Shape;
use crate::message::{ReadingIn, ReportedSet};
use crate::name::PropertyName;
use crate::value::Timestamp;

/// A [`ReportedSet`] for the twins of one [`Shape`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// When; the time of arrival when absent.
    pub(super) at: Option<Timestamp>,
    /// Index and reading, each index once.
    pub(super) known: Vec<(usize, ReadingIn)>,
    /// Names the profile does not have.
    pub(super) unknown: Vec<PropertyName>,
}

impl Readings {
    /// How many readings there are, unknown ones too.
    pub fn len(&self) -> usize {
        self.known.len() + self.unknown.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.unknown.is_empty()
    }
}

impl Shape {
    /// Reads the payload of `reported/set`. Of a property that is there twice the last reading counts.
    ///
    /// # Errors
    /// What is wrong with the JSON, as [`ReportedSet`] would have it.
    pub fn readings(&self, payload: &[u8]) -> Result<Readings, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(payload);
        let readings = Outer(self).deserialize(&mut json)?;
        json.end()?;
        Ok(readings)
    }

    /// The same from a [`ReportedSet`].
    pub fn readings_of(&self, set: ReportedSet) -> Readings {
        let mut readings = Readings { at: set.at, ..Readings::default() };
        for (name, reading) in set.readings {
            match self.find(name.as_str()) {
                Some(index) => readings.known.push((index, reading)),
                None => readings.unknown.push(name),
            }
        }
        readings
    }
}

/// The whole payload.
struct Outer<'a>(&'a Shape);

/// What the whole payload may hold.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    At,
    Readings,
}

impl<'de> DeserializeSeed<'de> for Outer<'_> {
    type Value = Readings;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Readings, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Outer<'_> {
    type Value = Readings;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with readings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Readings, A::Error> {
        let (mut at, mut readings) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                Field::At if at.is_some() => return Err(A::Error::duplicate_field("at")),
                Field::At => at = Some(map.next_value::<Option<Timestamp>>()?),
                Field::Readings if readings.is_some() => return Err(A::Error::duplicate_field("readings")),
                Field::Readings => readings = Some(map.next_value_seed(Inner(self.0))?),
            }
        }
        let readings = readings.ok_or_else(|| A::Error::missing_field("readings"))?;
        Ok(Readings { at: at.flatten(), ..readings })
    }
}

/// The object of readings.
struct Inner<'a>(&'a Shape);

impl<'de> DeserializeSeed<'de> for Inner<'_> {
    type Value = Readings;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Readings, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Inner<'_> {
    type Value = Readings;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of readings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Readings, A::Error> {
        let mut readings = Readings::default();
        // where a property's reading is, should it come again
        let mut places: Vec<Option<u32>> = vec![None; self.0.profile().properties.len()];
        // mappers say their readings in the order of the profile
        let mut next = 0;
        while let Some(name) = map.next_key_seed(Name(self.0, next))? {
            let index = match name {
                Ok(index) => index,
                Err(name) => {
                    // it has to be a reading all the same
                    map.next_value::<ReadingIn>()?;
                    readings.unknown.push(name);
                    continue;
                }
            };
            next = index + 1;
            let reading = map.next_value()?;
            let place = places.get_mut(index);
            match place.as_ref().and_then(|place| readings.known.get_mut((**place)? as usize)) {
                Some(old) => *old = (index, reading),
                None => {
                    if let Some(place) = place {
                        *place = u32::try_from(readings.known.len()).ok();
                    }
                    readings.known.push((index, reading));
                }
            }
        }
        readings.unknown.sort_unstable();
        readings.unknown.dedup();
        Ok(readings)
    }
}

/// A property's name: its index, or the name where the profile has no such property. The number is the index to look at
/// first.
struct Name<'a>(&'a Shape, usize);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Result<usize, PropertyName>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Result<usize, PropertyName>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a property name")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let Self(shape, first) = self;
        let is_first = shape.profile.properties.get(first).is_some_and(|property| property.name.as_str() == text);
        match Some(first).filter(|_| is_first).or_else(|| shape.find(text)) {
            Some(index) => Ok(Ok(index)),
            None => text.parse().map(Err).map_err(E::custom),
        }
    }
}
