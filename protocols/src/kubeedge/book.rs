//! The twin of one device as KubeEdge sees it: keys with an expected and an actual text, types fixed at the first write.
//!
//! In: updates as clients write them, and what the device's own twin says. Out: a [`Step`]: what is answered, what has to
//! be wished and reported at the twin, and the keys as they are afterwards. Must never change anything when one key of
//! an update is wrong, and never write a version for a value that is the same.
//!
//! Keys that the device's profile has are **backed**: their expected value is the twin's desired one, their actual value
//! the reported one, and their type is the profile's. All other keys live here alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::{Change, DeltaMessage, MsgTwin, TwinValue, TwinVersion, TypeMetadata, ValueMetadata};
use crate::profile::Kind;
use crate::value::{self, Value};

/// The longest key, in bytes.
pub const KEY_BYTES: usize = 128;

/// The longest value, in bytes; a longer one is refused.
pub const VALUE_BYTES: usize = 4096;

/// Keys that a device may have besides its profile's, tombstones included; one more is refused with 400.
pub const KEYS: usize = 512;

/// A text with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The value.
    pub value: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// One key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// What it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Held>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Held>,
    /// Whether `null` deletes it.
    pub optional: bool,
    /// Its type; `deleted` for a tombstone.
    pub kind: String,
    /// How often `expected` was written.
    #[serde(default)]
    pub expected_version: TwinVersion,
    /// How often `actual` was written.
    #[serde(default)]
    pub actual_version: TwinVersion,
}

impl Field {
    fn is_deleted(&self) -> bool {
        self.kind == "deleted"
    }

    fn message(&self) -> MsgTwin {
        MsgTwin {
            expected: self.expected.as_ref().map(said),
            actual: self.actual.as_ref().map(said),
            optional: Some(self.optional),
            metadata: Some(TypeMetadata { kind: self.kind.clone() }),
            ..MsgTwin::default()
        }
    }

    /// Whether something is expected that is not so.
    fn differs(&self) -> bool {
        let Some(expected) = &self.expected else { return false };
        let Some(actual) = &self.actual else { return true };
        match self.kind.as_str() {
            "int" | "integer" | "float" => {
                let number = |text: &str| text.parse::<f64>().ok();
                expected.value != actual.value && number(&expected.value) != number(&actual.value)
            }
            _ => expected.value != actual.value,
        }
    }
}

fn said(held: &Held) -> TwinValue {
    TwinValue { value: Some(held.value.clone()), metadata: Some(ValueMetadata { timestamp: held.at }) }
}

/// An update that is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// 400 or 404.
    pub code: u16,
    /// Why, in edgecore's words where it has some.
    pub reason: String,
}

impl Refusal {
    /// A bad request.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self { code: 400, reason: reason.into() }
    }
}

/// What an update comes to, if the twin agrees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// For `twin/update/result`.
    pub result: BTreeMap<String, Option<MsgTwin>>,
    /// For `twin/update/document`; nothing is published when it is empty.
    pub document: BTreeMap<String, Change>,
    /// To be wished at the twin, all or nothing.
    pub patch: BTreeMap<String, Value>,
    /// To be reported at the twin.
    pub readings: BTreeMap<String, Value>,
    fields: BTreeMap<String, Field>,
}

/// The profile's word on a key.
pub trait Backing {
    /// The type of a property that the device's profile has.
    fn kind(&self, key: &str) -> Option<Kind>;
}

/// What decides about every key of an update.
struct Context<'a> {
    writer: Writer,
    backing: &'a dyn Backing,
    now: i64,
}

/// All keys of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Book {
    fields: BTreeMap<String, Field>,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A client on the edge: its versions are not looked at.
    Edge,
    /// The cloud: each expected value carries the version it is based on.
    Cloud,
}

impl Book {
    /// The keys that have to be remembered, because no profile has them.
    pub fn own(&self, backing: &dyn Backing) -> Self {
        let fields = self.fields.iter().filter(|(key, _)| backing.kind(key).is_none());
        Self { fields: fields.map(|(key, field)| (key.clone(), field.clone())).collect() }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// For `twin/get/result`.
    pub fn all(&self) -> BTreeMap<String, Option<MsgTwin>> {
        self.live().map(|(key, field)| (key.clone(), Some(field.message()))).collect()
    }

    /// One key, tombstones included.
    pub fn field(&self, key: &str) -> Option<&Field> {
        self.fields.get(key)
    }

    fn live(&self) -> impl Iterator<Item = (&String, &Field)> {
        self.fields.iter().filter(|(_, field)| !field.is_deleted())
    }

    /// The keys of which something is expected, and those that are not as expected; `None` when all are.
    pub fn delta(&self, event_id: String, now: i64) -> Option<DeltaMessage> {
        let expected = || self.live().filter(|(_, field)| field.expected.is_some());
        let delta: BTreeMap<_, _> = expected()
            .filter(|(_, field)| field.differs())
            .filter_map(|(key, field)| Some((key.clone(), field.expected.as_ref()?.value.clone())))
            .collect();
        let twin = expected().map(|(key, field)| (key.clone(), field.message())).collect();
        (!delta.is_empty()).then_some(DeltaMessage { event_id, timestamp: now, twin, delta })
    }

    /// What the expected value of a backed key is, if the actual one has come to it.
    pub fn reached(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(|field| field.expected.is_some() && !field.differs())
    }

    /// Looks an update through. Nothing is changed until [`Book::commit`].
    ///
    /// # Errors
    /// When a key or a value cannot be taken; then none is.
    pub fn update(
        &self,
        twins: &BTreeMap<String, Option<MsgTwin>>,
        writer: Writer,
        backing: &dyn Backing,
        now: i64,
    ) -> Result<Step, Refusal> {
        let mut step = Step::default();
        for (key, twin) in twins {
            check_key(key)?;
            let live = self.fields.get(key).filter(|field| !field.is_deleted());
            let deletes = twin.as_ref().and_then(|twin| twin.metadata.as_ref()).is_some_and(|it| it.kind == "deleted");
            match twin.as_ref().filter(|_| !deletes) {
                None => delete(key, live, writer, backing, &mut step),
                Some(twin) if writer == Writer::Cloud && is_stale(twin, live) => {}
                Some(twin) => self.write(key, twin, &Context { writer, backing, now }, &mut step)?,
            }
        }
        let new = step.fields.keys().filter(|key| backing.kind(key).is_none() && !self.fields.contains_key(*key));
        if self.fields.len() + new.count() > KEYS + backed(&self.fields, backing) {
            return Err(Refusal::bad(format!("a device has at most {KEYS} keys besides those of its profile")));
        }
        Ok(step)
    }

    /// One key of an update.
    fn write(&self, key: &str, twin: &MsgTwin, context: &Context<'_>, step: &mut Step) -> Result<(), Refusal> {
        let Context { writer, backing, now } = *context;
        let old = self.fields.get(key);
        let live = old.filter(|field| !field.is_deleted());
        let kind = backing.kind(key);
        let mut field = match (live, old) {
            (Some(live), _) => live.clone(),
            // A tombstone's versions go on, so that nobody takes the new key for the old one.
            (None, old) => Field {
                optional: true,
                kind: twin.metadata.as_ref().map(|it| it.kind.clone()).filter(|it| !it.is_empty()).unwrap_or_default(),
                expected_version: old.map(|old| old.expected_version).unwrap_or_default(),
                actual_version: old.map(|old| old.actual_version).unwrap_or_default(),
                ..Field::default()
            },
        };
        if let Some(kind) = kind {
            field.kind = kind_name(kind).to_owned();
        } else if field.kind.is_empty() {
            field.kind = "string".to_owned();
        }
        let expected = given(key, "expected", twin.expected.as_ref(), &field.kind)?;
        let actual = given(key, "actual", twin.actual.as_ref(), &field.kind)?.filter(|_| writer == Writer::Edge);
        let mut told = MsgTwin::default();
        if let Some(text) = expected {
            put(&mut field.expected, &mut field.expected_version, text, now);
            if let Some(wanted) = twin.expected_version.filter(|_| writer == Writer::Cloud) {
                field.expected_version = wanted;
            }
            told.expected = field.expected.as_ref().map(said);
            if let Some(kind) = kind {
                let value = if text.is_empty() { Value::Null } else { to_value(kind, text)? };
                step.patch.insert(key.to_owned(), value);
            }
        }
        if let Some(text) = actual {
            put(&mut field.actual, &mut field.actual_version, text, now);
            told.actual = field.actual.as_ref().map(said);
            if let Some(kind) = kind.filter(|_| !text.is_empty()) {
                step.readings.insert(key.to_owned(), to_value(kind, text)?);
            }
        }
        let required = field.optional && twin.optional == Some(false);
        if required {
            field.optional = false;
        }
        let valued = expected.is_some() || actual.is_some();
        if live.is_some() && !valued && !required {
            return Ok(());
        }
        told.optional = Some(field.optional);
        if valued || live.is_none() {
            told.metadata = Some(TypeMetadata { kind: field.kind.clone() });
        }
        step.result.insert(key.to_owned(), Some(told));
        let change = Change { last: live.map(Field::message), current: Some(field.message()) };
        step.document.insert(key.to_owned(), change);
        step.fields.insert(key.to_owned(), field);
        Ok(())
    }

    /// Makes a step true.
    pub fn commit(&mut self, step: &Step) {
        self.fields.extend(step.fields.iter().map(|(key, field)| (key.clone(), field.clone())));
    }

    /// Takes the twin's word on a backed key: its reported value. Gives what changed for the document.
    pub fn on_actual(&mut self, key: &str, kind: Kind, value: Option<&Value>, at: i64, version: i64) -> Option<Change> {
        self.follow(key, kind, |field| {
            let text = value.map(to_text);
            let changed = field.actual.as_ref().map(|held| &held.value) != text.as_ref();
            field.actual = text.map(|value| Held { value, at });
            field.actual_version.edge = version;
            changed
        })
    }

    /// Takes the twin's word on a backed key: its desired value. Gives what changed for the document.
    pub fn on_expected(
        &mut self,
        key: &str,
        kind: Kind,
        value: Option<&Value>,
        at: i64,
        version: i64,
    ) -> Option<Change> {
        self.follow(key, kind, |field| {
            let text = value.map(to_text);
            let changed = field.expected.as_ref().map(|held| &held.value) != text.as_ref();
            field.expected = text.map(|value| Held { value, at });
            field.expected_version.edge = version;
            changed
        })
    }

    fn follow(&mut self, key: &str, kind: Kind, change: impl FnOnce(&mut Field) -> bool) -> Option<Change> {
        let last = self.fields.get(key).filter(|field| !field.is_deleted()).map(Field::message);
        let field = self.fields.entry(key.to_owned()).or_insert_with(|| Field { optional: true, ..Field::default() });
        field.kind = kind_name(kind).to_owned();
        let changed = change(field);
        let empty = field.expected.is_none() && field.actual.is_none();
        let current = (!empty).then(|| field.message());
        if empty {
            self.fields.remove(key);
        }
        changed.then_some(Change { last, current })
    }
}

fn backed(fields: &BTreeMap<String, Field>, backing: &dyn Backing) -> usize {
    fields.keys().filter(|key| backing.kind(key).is_some()).count()
}

fn delete(key: &str, live: Option<&Field>, writer: Writer, backing: &dyn Backing, step: &mut Step) {
    let Some(field) = live.filter(|field| field.optional || writer == Writer::Cloud) else { return };
    let mut dead = Field { kind: "deleted".to_owned(), optional: field.optional, ..Field::default() };
    dead.expected_version = field.expected_version;
    dead.actual_version = field.actual_version;
    let bump = |version: &mut TwinVersion, there: bool| version.edge += i64::from(there);
    bump(&mut dead.expected_version, field.expected.is_some());
    bump(&mut dead.actual_version, field.actual.is_some());
    if backing.kind(key).is_some() {
        step.patch.insert(key.to_owned(), Value::Null);
    }
    step.result.insert(key.to_owned(), None);
    step.document.insert(key.to_owned(), Change { last: Some(field.message()), current: None });
    step.fields.insert(key.to_owned(), dead);
}

/// The rule of edgecore for what comes from the cloud: a version must be there, and know of all that was written.
fn is_stale(twin: &MsgTwin, live: Option<&Field>) -> bool {
    let Some(wanted) = twin.expected_version else { return true };
    let held = live.map(|field| field.expected_version).unwrap_or_default();
    held.cloud > wanted.cloud || held.edge > wanted.edge
}

/// An empty text is no value; the same text again is no new version.
fn put(slot: &mut Option<Held>, version: &mut TwinVersion, text: &str, now: i64) {
    if slot.as_ref().map_or("", |held| &held.value) != text {
        version.edge += 1;
    } else if slot.is_none() && version.edge == 0 {
        version.edge = 1;
    }
    *slot = (!text.is_empty()).then(|| Held { value: text.to_owned(), at: now });
}

fn check_key(key: &str) -> Result<(), Refusal> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,:/@#".contains(&byte);
    if (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(fits) {
        return Ok(());
    }
    Err(Refusal::bad(
        "The key of twin must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ # and the length of key should be less than 128 bytes",
    ))
}

/// The text of a value in an update, checked against the type.
fn given<'a>(key: &str, which: &str, value: Option<&'a TwinValue>, kind: &str) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let Some(text) = value.value.as_deref() else {
        return Err(Refusal::bad(format!(
            "{which} of {key} has no value; write {{\"value\": \"…\"}} or leave {which} out"
        )));
    };
    if text.len() > VALUE_BYTES {
        return Err(Refusal::bad(format!(
            "the value of {key} has {} bytes; at most {VALUE_BYTES} are taken",
            text.len()
        )));
    }
    let wrong = match kind {
        "string" => None,
        "int" | "integer" => text.parse::<i64>().is_err().then_some("the value is not int or integer"),
        "float" => text.parse::<f64>().is_err().then_some("the value is not float"),
        "boolean" => (!matches!(text, "true" | "false")).then_some("the bool value must be true or false"),
        _ => return Err(Refusal::bad("the value type is not allowed")),
    };
    match wrong.filter(|_| !text.is_empty()) {
        Some(why) => Err(Refusal::bad(why)),
        None => Ok(Some(text)),
    }
}

/// KubeEdge's word for a type.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "boolean",
        Kind::Int => "int",
        Kind::Number => "float",
        _ => "string",
    }
}

/// The text of a value of ours.
pub fn to_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The value of ours that a text means for a property of this type.
///
/// # Errors
/// When the text is none of that type.
pub fn to_value(kind: Kind, text: &str) -> Result<Value, Refusal> {
    match kind {
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(Refusal::bad("the bool value must be true or false")),
        },
        Kind::Int => match text.parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => text.parse::<u64>().map(Value::from).map_err(|_| Refusal::bad("the value is not int or integer")),
        },
        Kind::Number => match text.parse::<f64>() {
            Ok(number) => Ok(text.parse::<i64>().map_or_else(|_| value::from_f64(number), Value::from)),
            Err(_) => Err(Refusal::bad("the value is not float")),
        },
        Kind::Flags | Kind::Array | Kind::Object => {
            Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}
