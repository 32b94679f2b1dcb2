//! Calls to bluetoothd with an end: every one has a time limit, and every error is one of ours.
//!
//! In: a method and its arguments. Out: its answer, or a [`BleError`]. Must never wait for bluetoothd without a limit: it
//! is known to leave calls unanswered for ever.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use zbus::fdo;
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant};

use crate::ble::transport::BleError;

/// The well-known name of BlueZ.
pub(super) const NAME: &str = "org.bluez";
/// One adapter.
pub(super) const ADAPTER: &str = "org.bluez.Adapter1";
/// One remote device.
pub(super) const DEVICE: &str = "org.bluez.Device1";
/// One characteristic of a connected device.
pub(super) const CHARACTERISTIC: &str = "org.bluez.GattCharacteristic1";
/// One service of a connected device.
pub(super) const SERVICE: &str = "org.bluez.GattService1";
/// The standard interface for properties.
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long bluetoothd may take for a call that touches no device.
pub(super) const CALL: Duration = Duration::from_secs(5);
/// How long the bus may take to let us in, and to start bluetoothd where it starts it by itself.
const ENTRY: Duration = Duration::from_secs(10);

/// The properties of one interface.
pub(super) type Properties = HashMap<String, OwnedVariant>;
/// Interfaces of one object.
pub(super) type Interfaces = HashMap<String, Properties>;
/// Everything bluetoothd shows.
pub(super) type Objects = HashMap<OwnedObjectPath, Interfaces>;

/// A connection to the bus bluetoothd is on.
#[derive(Clone)]
pub(super) struct Daemon {
    /// The bus.
    pub(super) bus: Connection,
}

impl Daemon {
    /// Joins the bus at an address; the system bus when there is none.
    pub(super) async fn join(address: Option<&str>) -> Result<Self, BleError> {
        let builder = match address {
            Some(address) => zbus::connection::Builder::address(address),
            None => zbus::connection::Builder::system(),
        };
        let joined = tokio::time::timeout(ENTRY, builder.build()).await;
        let bus = joined.map_err(|_| BleError::NoBus("no answer in time".to_owned()))?;
        Ok(Self { bus: bus.map_err(|error| BleError::NoBus(error.to_string()))? })
    }

    /// Calls a method of bluetoothd and reads its answer.
    pub(super) async fn ask<B, R>(&self, path: &str, method: Method, body: &B, limit: Duration) -> Result<R, BleError>
    where
        B: Serialize + DynamicType + Sync,
        R: for<'d> serde::Deserialize<'d> + zbus::Type,
    {
        let Method(interface, name) = method;
        let answer = self.call(path, method, body, limit).await?;
        answer
            .body()
            .deserialize::<R>()
            .map_err(|error| BleError::Failed { doing: name, reason: format!("{interface} answers {error}") })
    }

    /// Calls a method of bluetoothd for what it does.
    pub(super) async fn call<B>(
        &self,
        path: &str,
        method: Method,
        body: &B,
        limit: Duration,
    ) -> Result<Message, BleError>
    where
        B: Serialize + DynamicType + Sync,
    {
        let Method(interface, name) = method;
        let call = self.bus.call_method(Some(NAME), path, Some(interface), name, body);
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(ours(name, &error)),
            Err(_) => Err(BleError::Timeout(name)),
        }
    }

    /// Everything bluetoothd shows. Where the bus can start bluetoothd, this does.
    pub(super) async fn objects(&self) -> Result<Objects, BleError> {
        self.ask("/", Method("org.freedesktop.DBus.ObjectManager", "GetManagedObjects"), &(), ENTRY).await
    }

    /// Sets a property.
    pub(super) async fn set(
        &self,
        path: &str,
        interface: &'static str,
        property: &'static str,
        value: Variant<'_>,
    ) -> Result<(), BleError> {
        self.call(path, Method(PROPERTIES, "Set"), &(interface, property, value), CALL).await.map(drop)
    }

    /// Reads a yes or no.
    pub(super) async fn flag(
        &self,
        path: &str,
        interface: &'static str,
        property: &'static str,
    ) -> Result<bool, BleError> {
        let value: OwnedVariant = self.ask(path, Method(PROPERTIES, "Get"), &(interface, property), CALL).await?;
        Ok(bool::try_from(&value).unwrap_or_default())
    }
}

/// A method and the interface it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method(pub(super) &'static str, pub(super) &'static str);

/// A text property.
pub(super) fn text(properties: &Properties, name: &str) -> Option<String> {
    match &**properties.get(name)? {
        Variant::Str(text) => Some(text.to_string()),
        Variant::ObjectPath(path) => Some(path.to_string()),
        _ => None,
    }
}

/// A yes-or-no property; absent is no.
pub(super) fn flag(properties: &Properties, name: &str) -> bool {
    properties.get(name).is_some_and(|value| matches!(**value, Variant::Bool(true)))
}

/// An error of the bus or of bluetoothd in our words.
fn ours(doing: &'static str, error: &zbus::Error) -> BleError {
    match error {
        zbus::Error::FDO(error) => match &**error {
            fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => BleError::NoDaemon,
            fdo::Error::AccessDenied(_) | fdo::Error::AuthFailed(_) => BleError::Denied,
            fdo::Error::NoReply(_) | fdo::Error::Disconnected(_) => BleError::NoDaemon,
            fdo::Error::Timeout(_) | fdo::Error::TimedOut(_) => BleError::Timeout(doing),
            fdo::Error::UnknownObject(_) | fdo::Error::UnknownMethod(_) | fdo::Error::UnknownInterface(_) => {
                BleError::Failed { doing, reason: GONE.to_owned() }
            }
            // The bus tried to start bluetoothd for us, in vain; there are ten errors for that.
            other if format!("{other:?}").starts_with("Spawn") => BleError::NoDaemon,
            other => BleError::Failed { doing, reason: other.to_string() },
        },
        zbus::Error::MethodError(name, words, _) => refusal(doing, name.as_str(), words.as_deref().unwrap_or_default()),
        zbus::Error::InputOutput(error) => BleError::NoBus(error.to_string()),
        other => BleError::Failed { doing, reason: other.to_string() },
    }
}

/// What a call to an object that is no longer there fails with.
pub(super) const GONE: &str = "bluetoothd does not know it";

/// A refusal of bluetoothd in our words.
fn refusal(doing: &'static str, name: &str, words: &str) -> BleError {
    let short = name.rsplit('.').next().unwrap_or(name);
    if let Some(code) = att_code(words) {
        return if [0x05, 0x08, 0x0C, 0x0F].contains(&code) {
            BleError::AuthRequired(words.to_owned())
        } else {
            BleError::Att(code)
        };
    }
    let said = || if words.is_empty() { short.to_owned() } else { words.to_owned() };
    match short {
        "InProgress" => BleError::Busy(said()),
        "NotConnected" => BleError::Disconnected(said()),
        "NotPermitted" | "NotSupported" | "InvalidValueLength" | "InvalidOffset" => BleError::NotPermitted(said()),
        "NotAuthorized"
        | "AuthenticationFailed"
        | "AuthenticationCanceled"
        | "AuthenticationRejected"
        | "AuthenticationTimeout" => BleError::AuthRequired(format!("{short}: {words}")),
        "DoesNotExist" => BleError::Failed { doing, reason: GONE.to_owned() },
        "Failed" if words.starts_with("le-connection-abort") => BleError::Busy(said()),
        "Failed" if words.contains("Not connected") => BleError::Disconnected(said()),
        "NotReady" => BleError::Busy("the adapter is not ready".to_owned()),
        _ => BleError::Failed {
            doing,
            reason: if words.is_empty() { short.to_owned() } else { format!("{short}: {words}") },
        },
    }
}

/// The code in "Operation failed with ATT error: 0x80".
fn att_code(words: &str) -> Option<u8> {
    let code = words.rsplit_once("ATT error: 0x")?.1;
    u8::from_str_radix(code.get(..2)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and words as bluetoothd 5.66 sends them (src/error.c, src/gatt-client.c, src/device.c).
    #[test]
    fn what_bluetoothd_refuses_with_is_told_in_words_every_stack_shares() {
        let failed = |reason: &str| BleError::Failed { doing: "x", reason: reason.to_owned() };
        for (name, words, expected) in [
            ("org.bluez.Error.Failed", "Operation failed with ATT error: 0x80", BleError::Att(0x80)),
            (
                "org.bluez.Error.Failed",
                "Operation failed with ATT error: 0x0f",
                BleError::AuthRequired("Operation failed with ATT error: 0x0f".to_owned()),
            ),
            ("org.bluez.Error.InProgress", "In Progress", BleError::Busy("In Progress".to_owned())),
            (
                "org.bluez.Error.Failed",
                "le-connection-abort-by-local",
                BleError::Busy("le-connection-abort-by-local".to_owned()),
            ),
            ("org.bluez.Error.Failed", "Not connected", BleError::Disconnected("Not connected".to_owned())),
            (
                "org.bluez.Error.NotPermitted",
                "Write not permitted",
                BleError::NotPermitted("Write not permitted".to_owned()),
            ),
            ("org.bluez.Error.DoesNotExist", "Does Not Exist", failed(GONE)),
            (
                "org.bluez.Error.AuthenticationFailed",
                "Authentication Failed",
                BleError::AuthRequired("AuthenticationFailed: Authentication Failed".to_owned()),
            ),
            (
                "org.bluez.Error.Failed",
                "Software caused connection abort",
                failed("Failed: Software caused connection abort"),
            ),
        ] {
            assert_eq!(refusal("x", name, words), expected, "{name} {words}");
        }
    }
}
