//! One mapper's task: what it was told and what it should be told are made the same.
//!
//! In: the goal, as it changes. Out: calls at the mapper's own socket, and word to the clerk of how they went. Must never
//! tell the same thing twice without need: the framework starts a device anew at every change.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use protocols::kubeedge::dmi::Key;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::wire::device_mapper_service_client::DeviceMapperServiceClient;
use super::{Board, socket, wire};

/// From a change to the first call about it: several wishes are one call then.
const SETTLE: Duration = Duration::from_millis(50);

/// What a call may take; the framework itself waits up to three seconds for a model.
const CALL: Duration = Duration::from_secs(10);

/// From one look whether the mapper is there to the next.
const PROBE: Duration = Duration::from_secs(5);

/// Without an answer for this time a mapper is away. A new one opens its socket some time after it has registered.
const AWAY: Duration = Duration::from_secs(12);

/// The first pause after a call that failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Tries of what a mapper refuses. Then it is left until it changes, or the mapper registers again.
const TRIES: u32 = 3;

/// What a mapper should know.
#[derive(Debug, Default)]
pub(super) struct Goal {
    pub(super) models: BTreeMap<Key, Arc<wire::DeviceModel>>,
    pub(super) devices: BTreeMap<Key, Arc<wire::Device>>,
}

/// What a mapper was told: hashes of the messages, by `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    #[serde(default)]
    models: BTreeMap<String, u64>,
    #[serde(default)]
    devices: BTreeMap<String, u64>,
}

impl Told {
    /// All of a goal, as the answer to a registration tells it.
    pub(super) fn all(goal: &Goal) -> Self {
        Self {
            models: goal.models.iter().map(|(key, model)| (text(key), hash(model.as_ref()))).collect(),
            devices: goal.devices.iter().map(|(key, device)| (text(key), hash(device.as_ref()))).collect(),
        }
    }
}

/// What a line says to the clerk.
#[derive(Debug)]
pub(super) enum LineWord {
    /// A call went well; this is what the mapper knows now. The device, if it was about one.
    Told(Told, Option<Arc<wire::Device>>),
    /// The mapper does not take the device as it is.
    Refused(Arc<wire::Device>, String),
    /// The mapper is there, or is not; and why.
    There(bool, Option<String>),
}

/// A mapper's task.
pub(super) struct Line {
    pub(super) protocol: String,
    pub(super) serial: u64,
    pub(super) path: PathBuf,
    /// The user who registered it.
    pub(super) user: Option<u32>,
    pub(super) goal: watch::Receiver<Arc<Goal>>,
    pub(super) told: Told,
    pub(super) words: mpsc::Sender<(String, u64, LineWord)>,
    pub(super) board: Arc<Board>,
    pub(super) stop: CancellationToken,
}

/// One call.
#[derive(Clone, Debug)]
enum Step {
    CreateModel(Arc<wire::DeviceModel>),
    UpdateModel(Arc<wire::DeviceModel>),
    RegisterDevice(Arc<wire::Device>),
    UpdateDevice(Arc<wire::Device>),
    RemoveDevice(Key),
    RemoveModel(Key),
}

impl Step {
    /// What it is about, so that another try is known for one.
    fn about(&self) -> (String, u64) {
        match self {
            Self::CreateModel(model) | Self::UpdateModel(model) => {
                (format!("model {}/{}", model.namespace, model.name), hash(model.as_ref()))
            }
            Self::RegisterDevice(device) | Self::UpdateDevice(device) => {
                (format!("device {}/{}", device.namespace, device.name), hash(device.as_ref()))
            }
            Self::RemoveDevice(key) => (format!("device {}", text(key)), 0),
            Self::RemoveModel(key) => (format!("model {}", text(key)), 0),
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
enum Trouble {
    Away(String),
    Refused(String),
}

/// What goes on inside a line besides what it was given.
struct Course {
    client: Option<DeviceMapperServiceClient<Channel>>,
    pause: Option<Instant>,
    failures: u32,
    answered: Instant,
    there: bool,
    refused: BTreeMap<String, (u64, u32)>,
}

impl Line {
    /// Runs until `stop`, or until the clerk is gone.
    pub(super) async fn run(mut self) {
        let mut course = Course {
            client: None,
            pause: None,
            failures: 0,
            answered: Instant::now(),
            there: true,
            refused: BTreeMap::new(),
        };
        let mut probe = interval(PROBE);
        probe.reset();
        let stop = self.stop.clone();
        loop {
            let goal = Arc::clone(&self.goal.borrow_and_update());
            let step = if course.pause.is_none() { self.next(&goal, &course) } else { None };
            let Some(step) = step else {
                course.client = None;
                let pause = course.pause.unwrap_or_else(|| Instant::now() + PROBE);
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = self.goal.changed() => match changed {
                        Ok(()) => sleep(SETTLE).await,
                        Err(_) => return,
                    },
                    _ = probe.tick() => self.probe(&mut course).await,
                    () = sleep_until(pause) => course.pause = None,
                }
                continue;
            };
            let result = tokio::select! {
                // What is under way may or may not reach the mapper; it is told again after the next start.
                () = stop.cancelled() => return,
                result = self.call(&step, &mut course) => result,
            };
            self.board.count(|counts| {
                counts.calls += 1;
                counts.failed_calls += u64::from(result.is_err());
            });
            self.after(step, result, &mut course).await;
        }
    }

    /// The next call on the way to the goal: models before the devices that refer to them, and after them when they go.
    fn next(&self, goal: &Goal, course: &Course) -> Option<Step> {
        let models = goal.models.iter().filter_map(|(key, model)| match self.told.models.get(&text(key)) {
            None => Some(Step::CreateModel(Arc::clone(model))),
            Some(told) if *told != hash(model.as_ref()) => Some(Step::UpdateModel(Arc::clone(model))),
            Some(_) => None,
        });
        let devices = goal.devices.iter().filter_map(|(key, device)| match self.told.devices.get(&text(key)) {
            None => Some(Step::RegisterDevice(Arc::clone(device))),
            Some(told) if *told != hash(device.as_ref()) => Some(Step::UpdateDevice(Arc::clone(device))),
            Some(_) => None,
        });
        let gone_devices = self.told.devices.keys().filter_map(|name| key_of(name));
        let gone_devices = gone_devices.filter(|key| !goal.devices.contains_key(key)).map(Step::RemoveDevice);
        let gone_models = self.told.models.keys().filter_map(|name| key_of(name));
        let gone_models = gone_models.filter(|key| !goal.models.contains_key(key)).map(Step::RemoveModel);
        let open = |step: &Step| {
            let (about, hash) = step.about();
            course.refused.get(&about).is_none_or(|(refused, tries)| *refused != hash || *tries < TRIES)
        };
        models.chain(devices).chain(gone_devices).chain(gone_models).find(open)
    }

    async fn call(&self, step: &Step, course: &mut Course) -> Result<(), Trouble> {
        let client = match &mut course.client {
            Some(client) => client,
            none => none.insert(self.dial().await?),
        };
        let outcome = match step.clone() {
            Step::CreateModel(model) => {
                let request = wire::CreateDeviceModelRequest { model: Some(model.as_ref().clone()) };
                client.create_device_model(request).await.map(drop)
            }
            Step::UpdateModel(model) => {
                let request = wire::UpdateDeviceModelRequest { model: Some(model.as_ref().clone()) };
                client.update_device_model(request).await.map(drop)
            }
            Step::RegisterDevice(device) => {
                let request = wire::RegisterDeviceRequest { device: Some(device.as_ref().clone()) };
                client.register_device(request).await.map(drop)
            }
            Step::UpdateDevice(device) => {
                let request = wire::UpdateDeviceRequest { device: Some(device.as_ref().clone()) };
                client.update_device(request).await.map(drop)
            }
            Step::RemoveDevice((device_namespace, device_name)) => {
                client.remove_device(wire::RemoveDeviceRequest { device_name, device_namespace }).await.map(drop)
            }
            Step::RemoveModel((model_namespace, model_name)) => {
                let request = wire::RemoveDeviceModelRequest { model_name, model_namespace };
                client.remove_device_model(request).await.map(drop)
            }
        };
        outcome.map_err(|status| trouble(&status))
    }

    async fn dial(&self) -> Result<DeviceMapperServiceClient<Channel>, Trouble> {
        socket::trust(&self.path, self.user).map_err(|error| Trouble::Away(error.to_string()))?;
        let away = |error: tonic::transport::Error| Trouble::Away(sources(&error));
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.path.display())).map_err(away)?;
        let channel = endpoint.connect_timeout(CALL).timeout(CALL).connect().await.map_err(away)?;
        Ok(DeviceMapperServiceClient::new(channel))
    }

    async fn after(&mut self, step: Step, result: Result<(), Trouble>, course: &mut Course) {
        let (about, hash) = step.about();
        let trouble = match result {
            Ok(()) => {
                course.refused.remove(&about);
                course.failures = 0;
                self.seen(course).await;
                return self.took(step).await;
            }
            Err(trouble) => trouble,
        };
        course.client = None;
        let doubled = PAUSES.0.saturating_mul(1 << course.failures.min(8));
        course.failures += 1;
        course.pause = Some(Instant::now() + doubled.min(PAUSES.1));
        match trouble {
            Trouble::Away(why) => self.missed(why, course).await,
            Trouble::Refused(why) => {
                self.seen(course).await;
                let tries = course.refused.get(&about).filter(|(old, _)| *old == hash).map_or(0, |(_, tries)| *tries);
                course.refused.insert(about.clone(), (hash, tries + 1));
                if tries + 1 < TRIES {
                    return;
                }
                tracing::warn!(protocol = self.protocol, about, error = why, "the mapper refuses it");
                match step {
                    Step::RegisterDevice(device) | Step::UpdateDevice(device) => {
                        self.say(LineWord::Refused(device, why)).await;
                    }
                    // Nothing of it is left here, and nothing more can be done.
                    Step::RemoveDevice(_) | Step::RemoveModel(_) => self.took(step).await,
                    Step::CreateModel(_) | Step::UpdateModel(_) => {}
                }
            }
        }
    }

    /// Remembers what the mapper knows now.
    async fn took(&mut self, step: Step) {
        let device = match step {
            Step::CreateModel(model) | Step::UpdateModel(model) => {
                let key = format!("{}/{}", model.namespace, model.name);
                self.told.models.insert(key, hash(model.as_ref()));
                None
            }
            Step::RegisterDevice(device) | Step::UpdateDevice(device) => {
                let key = format!("{}/{}", device.namespace, device.name);
                self.told.devices.insert(key, hash(device.as_ref()));
                Some(device)
            }
            Step::RemoveDevice(key) => {
                self.told.devices.remove(&text(&key));
                None
            }
            Step::RemoveModel(key) => {
                self.told.models.remove(&text(&key));
                None
            }
        };
        self.say(LineWord::Told(self.told.clone(), device)).await;
    }

    async fn probe(&self, course: &mut Course) {
        match timeout(PROBE, UnixStream::connect(&self.path)).await {
            Ok(Ok(_)) => {
                let returned = !course.there;
                self.seen(course).await;
                if returned {
                    course.pause = None;
                }
            }
            Ok(Err(error)) => self.missed(error.to_string(), course).await,
            Err(_) => self.missed("it takes no connection".to_owned(), course).await,
        }
    }

    async fn seen(&self, course: &mut Course) {
        course.answered = Instant::now();
        if !course.there {
            course.there = true;
            self.say(LineWord::There(true, None)).await;
        }
    }

    async fn missed(&self, why: String, course: &mut Course) {
        if course.there && course.answered.elapsed() >= AWAY {
            course.there = false;
            self.say(LineWord::There(false, Some(why))).await;
        }
    }

    async fn say(&self, word: LineWord) {
        // The clerk's end is the gateway's.
        let _ = self.words.send((self.protocol.clone(), self.serial, word)).await;
    }
}

/// Whether a mapper said no, or was not there to say anything.
fn trouble(status: &Status) -> Trouble {
    let is_own = std::error::Error::source(status).is_none();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Trouble::Away(status.message().to_owned()),
        _ if is_own => Trouble::Refused(status.message().to_owned()),
        _ => Trouble::Away(sources(status)),
    }
}

/// An error with what led to it: the outermost one often says nothing.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn text((namespace, name): &Key) -> String {
    format!("{namespace}/{name}")
}

fn key_of(text: &str) -> Option<Key> {
    text.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
}

/// A hash of a message's bytes. One that another version of this program makes differently costs one update more.
fn hash(message: &impl Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}
