//! KubeEdge's payloads as types (edge/pkg/devicetwin/dttype of kubeedge 1.23).
//!
//! In and out: JSON with the field names of the original. Must never need a field that a client may leave out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One value with its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinValue {
    /// Always a text; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ValueMetadata>,
}

/// The time of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueMetadata {
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timestamp: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The type of a twin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeMetadata {
    /// `string`, `int`, `integer`, `float`, `boolean` or `deleted`.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// How often each side wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinVersion {
    /// Writes of the cloud.
    #[serde(default)]
    pub cloud: i64,
    /// Writes of the edge.
    #[serde(default)]
    pub edge: i64,
}

/// One twin in a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsgTwin {
    /// What it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<TwinValue>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<TwinValue>,
    /// Whether it may be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// Its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TypeMetadata>,
    /// Version of `expected`; from the cloud only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<TwinVersion>,
    /// Version of `actual`; from the cloud only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_version: Option<TwinVersion>,
}

/// `twin/update`, and the answer to it and to `twin/get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinMessage {
    /// The client's name for the exchange.
    #[serde(default)]
    pub event_id: String,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub timestamp: i64,
    /// Key → twin; `null` deletes. Absent is an error in an update.
    #[serde(default)]
    pub twin: Option<BTreeMap<String, Option<MsgTwin>>>,
}

/// `twin/update/document`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DocumentMessage {
    /// As in the update.
    pub event_id: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// What changed.
    pub twin: BTreeMap<String, Change>,
}

/// One twin before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Before.
    pub last: Option<MsgTwin>,
    /// After.
    pub current: Option<MsgTwin>,
}

/// `twin/update/delta`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeltaMessage {
    /// Made by the gateway.
    pub event_id: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// All twins of which something is expected.
    pub twin: BTreeMap<String, MsgTwin>,
    /// Those that are not as expected: key → expected value.
    pub delta: BTreeMap<String, String>,
}

/// `twin/get` and `membership/get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseMessage {
    /// The client's name for the exchange.
    #[serde(default)]
    pub event_id: String,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub timestamp: i64,
}

/// An error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorMessage {
    /// As in the request.
    pub event_id: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// 400, 404, 409, 500.
    pub code: u16,
    /// Why.
    pub reason: String,
}

/// `state/update`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMessage {
    /// The client's name for the exchange.
    #[serde(default)]
    pub event_id: String,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub timestamp: i64,
    /// `online`, `offline`, …
    #[serde(default)]
    pub state: String,
}

/// `state/update/result`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateResult {
    /// Made by the gateway.
    pub event_id: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The device.
    pub device: StateDevice,
}

/// The device in a [`StateResult`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateDevice {
    /// Its name without a namespace.
    pub name: String,
    /// As it was said.
    pub state: String,
    /// RFC 3339; with `online` and `ok` only.
    #[serde(rename = "lastOnlineTime", skip_serializing_if = "Option::is_none")]
    pub last_online_time: Option<String>,
}

/// A device in a membership message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Member {
    /// `namespace/name`, or the name alone.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its state.
    pub state: String,
    /// When it was last online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_online: Option<String>,
}

/// `membership/get/result`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MembershipResult {
    /// As in the request.
    pub event_id: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// All devices.
    pub devices: Vec<Member>,
}

/// `membership/updated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MembershipUpdate {
    /// Made by the gateway.
    pub event_id: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// New ones; `null` where there are none.
    pub added_devices: Option<Vec<Member>>,
    /// Those that are gone; `null` where there are none.
    pub removed_devices: Option<Vec<Member>>,
}
