//! What a person or a desired value wants of a device now: writes, reads back, requests in GATT's own terms.
//!
//! In: a property and a value, or UUIDs. Out: what the device said. Must never open a second connection beside a visit
//! that is under way.

use protocols::ble::Uuid;
use protocols::profile::ble::Visit;
use protocols::value::{Reading, Value, Why};
use serde_json::json;

use super::device::place;
use super::port::BlePort;
use super::radio::Held;
use super::transport::{BleError, CharRef, Link, Pairing, Transport, WriteKind};
use crate::port::{CallError, Sample};

/// The longest value that is written, in bytes: ATT allows no more.
const VALUE_BYTES: usize = 512;

impl<T: Transport> BlePort<T> {
    /// The link to a device: the one there is, or a new one.
    async fn link_to(&mut self, device: usize) -> Result<Held<T::Link>, BleError> {
        while self.entries.get(&device).is_some_and(|entry| entry.is_visited) {
            match self.visits.join_next().await {
                Some(Ok((visited_device, visited))) => self.on_visit(visited_device, visited),
                Some(Err(_)) => {}
                None => break,
            }
        }
        let lost = || BleError::NoBus("the radio is closed".to_owned());
        let connector = self.radio.as_ref().map(super::radio::Radio::connector).ok_or_else(lost)?;
        let entry = self.entries.get_mut(&device).ok_or_else(lost)?;
        if let Some(link) = entry.link.take() {
            if link.is_up() {
                return Ok(link);
            }
            super::port::let_go(Some(link));
        }
        let unheard = || BleError::Timeout("a device that was never heard");
        let (address, _) = entry.listener.last_address().ok_or_else(unheard)?;
        let limit = entry.gatt().map_or(super::port::LINGER, |gatt| gatt.connect.timeout);
        let pairing = entry.pairing();
        let mut link = connector.connect(address, pairing, limit).await?;
        if pairing != Pairing::None
            && let Err(error) = link.pair().await
        {
            link.disconnect().await;
            return Err(error);
        }
        Ok(link)
    }

    fn keep(&mut self, device: usize, link: Held<T::Link>, tick: u64) {
        match self.entries.get_mut(&device) {
            Some(entry) => entry.keep(link, tick),
            None => super::port::let_go(Some(link)),
        }
    }

    /// Where a property is among the device's characteristics.
    fn gatt_place(&self, device: usize, property: usize) -> Option<(usize, CharRef)> {
        let entry = self.entries.get(&device)?;
        let index = entry.device.profile.properties.get(property)?.source.ble().and_then(Visit::gatt)?.characteristic;
        Some((index, place(entry.gatt()?.characteristics.get(index)?)))
    }

    pub(super) async fn write_property(
        &mut self,
        device: usize,
        property: usize,
        value: &Value,
    ) -> Result<(), CallError> {
        let invalid = |reason: &str| CallError::Invalid(reason.to_owned());
        let Some(definition) = self.entries.get(&device).and_then(|own| own.device.profile.properties.get(property))
        else {
            return Err(invalid("there is no such property"));
        };
        let write = definition.to_gatt(value).map_err(CallError::Invalid)?;
        let (_, at) = self.gatt_place(device, property).ok_or_else(|| invalid("is no characteristic"))?;
        let kind = if write.with_response { WriteKind::Request } else { WriteKind::Command };
        let mut link = self.link_to(device).await.map_err(|error| self.call_error(error))?;
        let written = link.write(at, &write.bytes, kind).await;
        let now = self.clock.now();
        self.keep(device, link, now.tick);
        written.map_err(|error| self.call_error(error))
    }

    pub(super) async fn read_property(&mut self, device: usize, property: usize) -> Result<Sample, CallError> {
        let known = |port: &Self| port.entries.get(&device).and_then(|entry| entry.last.get(&property)).cloned();
        let Some((index, at)) = self.gatt_place(device, property) else {
            // It cannot be asked for: what was heard last is all there is.
            return known(self).ok_or(CallError::Silent(Why::Timeout));
        };
        let mut link = self.link_to(device).await.map_err(|error| self.call_error(error))?;
        let read = link.read(at).await;
        let now = self.clock.now();
        self.keep(device, link, now.tick);
        let bytes = match read {
            Ok(bytes) => bytes,
            // One that only tells by itself: what it told last is all there is.
            Err(BleError::NotPermitted(_)) if known(self).is_some() => {
                return known(self).ok_or(CallError::Silent(Why::Timeout));
            }
            Err(error) => return Err(self.call_error(error)),
        };
        let Some(entry) = self.entries.get_mut(&device) else { return Err(CallError::Silent(Why::Offline)) };
        let mut readings = entry.listener.characteristic(index, &bytes, now);
        let own = readings.iter().position(|(own, _)| *own == property).map(|own| readings.remove(own));
        self.tell(device, readings, true, now.tick);
        let sample = own.map(|(property, Reading { value, quality, .. })| Sample { property, value, quality });
        sample.ok_or_else(|| CallError::Invalid("the property cannot be read".to_owned()))
    }

    /// `{"op": "read", "device": 0, "service": "180f", "characteristic": "2a19"}`, and `write` with the bytes in hexadecimal
    /// digits as `value`.
    pub(super) async fn raw_request(&mut self, request: &Value) -> Result<Value, CallError> {
        let invalid = |reason: &str| CallError::Invalid(reason.to_owned());
        let uuid = |key: &str| request.get(key).and_then(Value::as_str).and_then(|text| text.parse::<Uuid>().ok());
        let (Some(service), Some(characteristic)) = (uuid("service"), uuid("characteristic")) else {
            return Err(invalid("name a service and a characteristic, such as 180f and 2a19"));
        };
        let device = request.get("device").and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        let device = device.ok_or_else(|| invalid("name the device"))?;
        let instance = request.get("instance").and_then(Value::as_u64).and_then(|number| u8::try_from(number).ok());
        let at = CharRef { service, characteristic, instance: instance.unwrap_or_default() };
        let bytes = match request.get("op").and_then(Value::as_str) {
            Some("write") => {
                let text = request.get("value").and_then(Value::as_str).and_then(unhex);
                Some(text.ok_or_else(|| invalid("write needs a value in hexadecimal digits"))?)
            }
            _ => None,
        };
        let mut link = self.link_to(device).await.map_err(|error| self.call_error(error))?;
        let done = match bytes {
            Some(bytes) => link.write(at, &bytes, WriteKind::Request).await.map(|()| json!({})),
            None => link.read(at).await.map(|value| {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                json!({"value": hex})
            }),
        };
        let now = self.clock.now();
        self.keep(device, link, now.tick);
        done.map_err(|error| self.call_error(error))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 2 * VALUE_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}
