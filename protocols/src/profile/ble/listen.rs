//! One device listened to: from what is heard to readings.
//!
//! In: its advertisements, values of its characteristics, and `now`. Out: readings by property, and what became of each
//! packet. Must never give a reading from a packet that is not believed, and never keep more than its bounds.

use std::sync::Arc;

use super::write::layout;
use super::{AWAY, GattPlace, GattReading, Meta, Origin, PRESENT, Visit};
use crate::ble::{
    self, AddressType, Advertisement, Counters, Dedupe, Guard, Identity, Mac, Object, ObjectClass, Outcome, Packet,
    Refusal, Signal, pick,
};
use crate::codec::{DataType, Layout, Raw};
use crate::profile::{Kind, Profile, Property};
use crate::value::{Now, Quality, Reading, Value, Why};

/// The senders whose counters and packets are remembered for one device; of a device that is known by its pattern alone
/// there may be several. At one more the one heard first is forgotten, so that its next packet is believed as a first one.
pub const SENDERS: usize = 8;

/// What became of one advertisement.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// What it was.
    pub outcome: Outcome,
    /// Index of the property, and what it is now.
    pub readings: Vec<(usize, Reading)>,
}

/// One device listened to.
#[derive(Debug)]
pub struct Listener {
    profile: Arc<Profile>,
    identity: Identity,
    guards: Vec<(Option<Mac>, Guard)>,
    presence: ble::Presence,
    signal: Signal,
    counters: Counters,
    last: Option<(Mac, AddressType)>,
}

impl Listener {
    /// Nothing heard yet. A profile without a section `ble` hears nothing.
    pub fn new(profile: Arc<Profile>, identity: Identity) -> Self {
        let device = profile.ble.as_ref();
        let ms = |time: Option<std::time::Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        let presence = ble::Presence::new(ms(device.map(|device| device.presence.timeout)));
        let signal = Signal::new(ms(device.map(|device| device.rssi_window)));
        Self { profile, identity, guards: Vec::new(), presence, signal, counters: Counters::default(), last: None }
    }

    /// Takes an advertisement of this device in. Whose it is has been decided before, by [`ble::Roster`].
    pub fn hear(&mut self, adv: &Advertisement, now: Now) -> Heard {
        let mut readings = Vec::new();
        let outcome = self.judge(adv, now, &mut readings);
        self.counters.count(outcome);
        // A packet that somebody else may have sent is no sign of life.
        if !outcome.is_suspect() {
            self.last = adv.address.map(|address| (address, adv.address_type)).or(self.last);
            let is_news = self.presence.on_sighting(now.tick);
            let rssi = adv.rssi.map(|rssi| self.signal.on_rssi(rssi, now.tick));
            self.metas(adv, rssi, is_news, now, &mut readings);
        }
        Heard { outcome, readings }
    }

    fn judge(&mut self, adv: &Advertisement, now: Now, readings: &mut Vec<(usize, Reading)>) -> Outcome {
        let profile = Arc::clone(&self.profile);
        let Some(device) = &profile.ble else { return Outcome::Unknown };
        let mut refusal = Refusal::Unknown;
        for format in &device.formats {
            match ble::decode(*format, adv, adv.address.or(self.identity.address), self.identity.key.as_ref()) {
                Ok(packet) => {
                    // Where one format of the profile can be encrypted, none is believed in clear text.
                    let can = device.formats.iter().any(|format| format.encrypts());
                    let requires = self.identity.requires_encryption && can;
                    return match self.guard(adv.address).judge(&packet, device.dedupe, requires, now.tick) {
                        Err(outcome) => outcome,
                        Ok(()) => {
                            self.objects(&packet, now, readings);
                            self.fields(adv, now, readings);
                            if packet.is_partial { Outcome::Partial } else { Outcome::Decoded }
                        }
                    };
                }
                Err(Refusal::NoKey) => {
                    self.guard(adv.address).on_closed();
                    return Outcome::NoKey;
                }
                Err(Refusal::Unknown) => {}
                Err(other) if refusal == Refusal::Unknown => refusal = other,
                Err(_) => {}
            }
        }
        match refusal {
            Refusal::Unknown => self.plain(adv, device.dedupe, now, readings),
            other => other.into(),
        }
    }

    /// Bytes that no decoder reads, by the places the properties name.
    fn plain(
        &mut self,
        adv: &Advertisement,
        dedupe: Dedupe,
        now: Now,
        readings: &mut Vec<(usize, Reading)>,
    ) -> Outcome {
        let payload = self.payload(adv);
        if payload.is_empty() {
            return Outcome::Unknown;
        }
        let packet = Packet { payload, ..Packet::default() };
        let requires = self.identity.requires_encryption;
        if let Err(outcome) = self.guard(adv.address).judge(&packet, dedupe, requires, now.tick) {
            return outcome;
        }
        self.fields(adv, now, readings);
        if readings.iter().any(|(_, reading)| reading.quality == Quality::Bad(Why::Decode)) {
            Outcome::Malformed
        } else {
            Outcome::Decoded
        }
    }

    /// The bytes that properties name, one after the other.
    fn payload(&self, adv: &Advertisement) -> Vec<u8> {
        let mut payload = Vec::new();
        for (_, _, origin) in origins(&self.profile) {
            payload.extend_from_slice(bytes(adv, origin).unwrap_or_default());
        }
        payload
    }

    fn guard(&mut self, sender: Option<Mac>) -> &mut Guard {
        // A device that is known by its address or its key is one sender, whatever its address is today.
        let is_one = self.identity.address.is_some() || self.identity.irk.is_some();
        let sender = sender.filter(|_| !is_one);
        match self.guards.iter().position(|(own, _)| *own == sender) {
            // The one heard last stands last.
            Some(index) => {
                let own = self.guards.remove(index);
                self.guards.push(own);
            }
            None => {
                if self.guards.len() >= SENDERS {
                    self.guards.remove(0);
                }
                self.guards.push((sender, Guard::default()));
            }
        }
        let (_, guard) = self.guards.last_mut().expect("one was pushed on either way");
        guard
    }

    fn objects(&self, packet: &Packet, now: Now, readings: &mut Vec<(usize, Reading)>) {
        for (index, property, origin) in origins(&self.profile) {
            let Origin::Object { name, class, index: nth } = origin else { continue };
            let Some(object) = packet.object(name, *class, *nth) else { continue };
            // An event that did not happen is no news, and no bad one either.
            if object.class == ObjectClass::Event && object.value.is_err() {
                continue;
            }
            readings.push((index, reading(property.of_object(object), now)));
        }
    }

    fn fields(&self, adv: &Advertisement, now: Now, readings: &mut Vec<(usize, Reading)>) {
        for (index, property, origin) in origins(&self.profile) {
            let (Origin::ServiceData(_, field) | Origin::ManufacturerData(_, field)) = origin else { continue };
            let Some(bytes) = bytes(adv, origin) else { continue };
            readings.push((index, reading(property.of_field(field, bytes), now)));
        }
    }

    fn metas(
        &self,
        adv: &Advertisement,
        rssi: Option<i8>,
        is_news: bool,
        now: Now,
        readings: &mut Vec<(usize, Reading)>,
    ) {
        for (index, property, origin) in origins(&self.profile) {
            let Origin::Meta(meta) = origin else { continue };
            let raw = match meta {
                Meta::Rssi => rssi.map(|rssi| Raw::Int(rssi.into())),
                Meta::TxPower => adv.tx_power.map(|power| Raw::Int(power.into())),
                Meta::Address => adv.address.map(|address| Raw::Text(address.to_string())),
                Meta::Name => adv.name.clone().map(Raw::Text),
                Meta::LastSeen => Some(Raw::Text(now.wall.to_string())),
                Meta::Presence => {
                    if is_news {
                        readings.push((index, reading(presence(property, true), now)));
                    }
                    continue;
                }
            };
            if let Some(raw) = raw {
                readings.push((index, reading(property.read(raw, &Layout::new(DataType::Int64)), now)));
            }
        }
    }

    /// Takes the value of a characteristic in; `index` is that of [`super::Gatt::characteristics`].
    pub fn characteristic(&mut self, index: usize, bytes: &[u8], now: Now) -> Vec<(usize, Reading)> {
        let mut readings = Vec::new();
        if self.presence.on_sighting(now.tick) {
            self.metas(&Advertisement::default(), None, true, now, &mut readings);
        }
        for (property_index, property, origin) in origins(&self.profile) {
            let Origin::Gatt(place) = origin else { continue };
            if place.characteristic == index && property.access.reads() {
                readings.push((property_index, reading(property.of_gatt(place, bytes), now)));
            }
        }
        readings
    }

    /// The properties that come out of a characteristic, by their index.
    pub fn properties_of(&self, index: usize) -> Vec<usize> {
        let is_of = |origin: &Origin| matches!(origin, Origin::Gatt(place) if place.characteristic == index);
        origins(&self.profile).filter(|(_, _, origin)| is_of(origin)).map(|(property, ..)| property).collect()
    }

    /// Looks at the clock: says who has gone.
    pub fn check(&mut self, now: Now) -> Vec<(usize, Reading)> {
        let tells = self.profile.ble.as_ref().is_some_and(|device| device.presence.leave_event);
        if !self.presence.check(now.tick) || !tells {
            return Vec::new();
        }
        let is_presence = |origin: &Origin| *origin == Origin::Meta(Meta::Presence);
        origins(&self.profile)
            .filter(|(_, _, origin)| is_presence(origin))
            .map(|(index, property, _)| (index, reading(presence(property, false), now)))
            .collect()
    }

    /// For so many milliseconds it could not have been heard: they are no silence.
    pub fn on_deaf(&mut self, ms: u64, tick: u64) {
        self.presence.on_deaf(ms, tick);
    }

    /// The counters of the senders whose packets were proved: who, where the device may be several, and the counter.
    pub fn counters_to_keep(&self) -> impl Iterator<Item = (Option<Mac>, u64)> + '_ {
        self.guards.iter().filter_map(|(sender, guard)| Some((*sender, guard.counter()?)))
    }

    /// Takes up what was kept over a restart.
    pub fn resume(&mut self, sender: Option<Mac>, counter: u64) {
        self.guard(sender).resume(counter);
    }

    /// When to look at the clock again, as a tick.
    pub fn deadline(&self) -> Option<u64> {
        self.presence.deadline()
    }

    /// Whether it is there.
    pub fn is_present(&self) -> bool {
        self.presence.is_present() == Some(true)
    }

    /// Who was heard last, and is to be connected to; else the address of the configuration.
    pub fn last_address(&self) -> Option<(Mac, AddressType)> {
        self.last.or_else(|| Some((self.identity.address?, AddressType::default())))
    }

    /// What became of the packets so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the device is.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// What it has for itself.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Property {
    fn of_object(&self, object: &Object) -> (Value, Quality) {
        let raw = match (&object.value, object.class) {
            (Err(why), _) => return (Value::Null, Quality::Bad(*why)),
            (Ok(Raw::Int(number)), ObjectClass::Event) if self.kind == Kind::String => {
                Raw::Text(event(&object.name, *number).unwrap_or_else(|| number.to_string()))
            }
            (Ok(raw), _) => raw.clone(),
        };
        let data = if matches!(raw, Raw::Float(_)) { DataType::Float64 } else { DataType::Int64 };
        self.read(raw, &Layout::new(data))
    }

    fn of_field(&self, field: &ble::Field, bytes: &[u8]) -> (Value, Quality) {
        match field.decode(bytes) {
            Ok(raw) => self.read(raw, &layout(field)),
            Err(why) => (Value::Null, Quality::Bad(why)),
        }
    }

    fn of_gatt(&self, place: &GattPlace, bytes: &[u8]) -> (Value, Quality) {
        let decode = || (Value::Null, Quality::Bad(Why::Decode));
        match &place.reading {
            GattReading::Field(field) => self.of_field(field, bytes),
            GattReading::Standard(standard, object) => match standard.decode(bytes) {
                Ok(objects) => pick(&objects, object.as_deref()).map_or_else(decode, |object| self.of_object(object)),
                Err(why) => (Value::Null, Quality::Bad(why)),
            },
        }
    }
}

/// Index, property and place of everything that comes out of a Bluetooth device.
fn origins(profile: &Profile) -> impl Iterator<Item = (usize, &Property, &Origin)> {
    let visits = profile.properties.iter().enumerate().filter_map(|(index, own)| Some((index, own, own.source.ble()?)));
    visits.flat_map(|(index, own, visit): (usize, &Property, &Visit)| {
        visit.origins().map(move |origin| (index, own, origin))
    })
}

fn bytes<'a>(adv: &'a Advertisement, origin: &Origin) -> Option<&'a [u8]> {
    match origin {
        Origin::ServiceData(service, _) => adv.service(*service),
        Origin::ManufacturerData(company, _) => adv.company(*company),
        _ => None,
    }
}

fn reading((value, quality): (Value, Quality), now: Now) -> Reading {
    Reading { value, quality, at: now.wall }
}

/// There or away: as a boolean where the property is one, else in words.
fn presence(property: &Property, is_there: bool) -> (Value, Quality) {
    let value = match property.kind {
        Kind::Bool => Value::Bool(is_there),
        _ => if is_there { PRESENT } else { AWAY }.into(),
    };
    (value, Quality::Good)
}

/// What a button's or a dimmer's number means.
fn event(name: &str, number: i128) -> Option<String> {
    let word = match (name, number) {
        ("dimmer", 1) => "rotate_left",
        ("dimmer", 2) => "rotate_right",
        ("button", 1) => "press",
        ("button", 2) => "double_press",
        ("button", 3) => "triple_press",
        ("button", 4) => "long_press",
        ("button", 5) => "long_double_press",
        ("button", 6) => "long_triple_press",
        ("button", 0x80 | 0xFE) => "hold_press",
        _ => return None,
    };
    Some(word.to_owned())
}
