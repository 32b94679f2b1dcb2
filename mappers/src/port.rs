//! The seam to hardware: what a wire or a radio has to be able to do so that the host loop can drive it.
//!
//! In: reads, writes and requests by device and property number. Out: values with their quality, and what went wrong
//! in words every protocol shares. A port moves bytes and decodes them; it must never decide when, publish, or know
//! what a twin is.

use std::future::Future;
use std::sync::Arc;

use protocols::config::Device;
use protocols::modbus::pdu::Exception;
use protocols::poll::Job;
use protocols::profile::Profile;
use protocols::value::{Quality, Value, Why};

/// The profiles a scan tries to recognise. Made anew for each scan, so that a gateway does not hold what it uses once
/// in its life.
pub type Probes = Arc<dyn Fn() -> Vec<Arc<Profile>> + Send + Sync>;

/// One value that came off a wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Index into the profile's properties.
    pub property: usize,
    /// The value; `Null` when the quality is bad.
    pub value: Value,
    /// How far it can be trusted.
    pub quality: Quality,
}

/// One part of a read cycle: a transaction, or a few that went out together.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is known now, bad registers with their reason included.
    pub samples: Vec<Sample>,
    /// How the part ended.
    pub end: StepEnd,
}

/// How a part of a read cycle ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// The device answered; the cycle has more parts.
    Part,
    /// The device answered, and the cycle is complete.
    Done,
    /// The device is busy (exception 5 or 6); the same part is asked again later.
    Busy(u8),
    /// No answer worth the name. The cycle is over; the next read begins a new one.
    Failed(Why),
    /// The wire is gone.
    Gone(String),
}

/// Why a single request did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The device refused.
    #[error("{}", Exception(*.0))]
    Refused(u8),
    /// The device is busy (exceptions 5 and 6).
    #[error("{}", Exception(*.0))]
    Busy(u8),
    /// No answer, or none that could be used.
    #[error("{}", silence(*.0))]
    Silent(Why),
    /// The request makes no sense for this device: the value does not fit, there is no such property.
    #[error("{0}")]
    Invalid(String),
    /// The wire is gone.
    #[error("wire closed: {0}")]
    Gone(String),
}

impl CallError {
    /// Whether the device answered, be it with a refusal.
    pub fn answered(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Busy(_) | Self::Invalid(_))
    }
}

/// A silence in words.
pub fn silence(why: Why) -> String {
    match why {
        Why::Timeout => "no answer in time".to_owned(),
        Why::Crc => "answers with wrong checksums".to_owned(),
        Why::Decode => "answers that make no sense".to_owned(),
        other => other.to_string(),
    }
}

/// Why a wire could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(
    /// What happened, with the port or address in it.
    pub String,
);

/// What a wire has counted since the program started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests sent.
    pub requests: u64,
    /// Answered in time and whole.
    pub answers: u64,
    /// Not answered in time.
    pub timeouts: u64,
    /// Exceptions, all codes together.
    pub exceptions: u64,
    /// Frames dropped: wrong checksum, wrong unit, wrong function, late.
    pub dropped: u64,
    /// Sent again.
    pub retries: u64,
    /// Opened again, where a port does so by itself within a request; those the host asked for may be among them.
    pub reopened: u64,
}

/// What a device sent without being asked: a streamed line, an advertisement, a notification.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The device.
    pub device: usize,
    /// What it said. Empty says only that the device is there.
    pub samples: Vec<Sample>,
}

/// The wire is gone while nobody asked anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Gone(
    /// What happened, with the port or address in it.
    pub String,
);

/// A wire or a radio with the devices on it. Devices have the numbers the host gave them in [`Port::add`].
pub trait Port: Send + 'static {
    /// Opens the wire; read cycles that were under way are forgotten.
    ///
    /// # Errors
    /// When it cannot be opened; it may be tried again at any time.
    fn open(&mut self) -> impl Future<Output = Result<(), OpenError>> + Send;

    /// Closes the wire.
    fn close(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether the wire can be used.
    fn is_open(&self) -> bool;

    /// How many reads of different devices may go out together.
    fn width(&self) -> usize {
        1
    }

    /// Takes a device in.
    fn add(&mut self, number: usize, device: Arc<Device>);

    /// Lets a device go.
    fn remove(&mut self, number: usize);

    /// Does the next part of each job's cycle; one [`Step`] for each job, in order. `tick` is in milliseconds.
    fn read(&mut self, jobs: &[Job], tick: u64) -> impl Future<Output = Vec<Step>> + Send;

    /// Gives up the part that was answered with [`StepEnd::Busy`]: its values are bad for `why`, the cycle goes on.
    fn give_up(&mut self, job: Job, why: Why) -> Step;

    /// Writes one property.
    ///
    /// # Errors
    /// When it was not written, or nobody knows whether it was ([`CallError::Silent`]).
    fn write(
        &mut self,
        device: usize,
        property: usize,
        value: &Value,
    ) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Reads one property by itself.
    ///
    /// # Errors
    /// When there is no value; a value that could not be decoded is a [`Sample`] with a bad quality.
    fn read_back(&mut self, device: usize, property: usize) -> impl Future<Output = Result<Sample, CallError>> + Send;

    /// Sees with one cheap read whether the device answers; an exception is an answer.
    ///
    /// # Errors
    /// When it does not.
    fn probe(&mut self, device: usize) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Whether two values are one in the device's encoded form: 21.5 and 21.52 at scale 0.1.
    fn same(&self, device: usize, property: usize, left: &Value, right: &Value) -> bool;

    /// Does a request in the protocol's own terms, as `tidegate device read|write` sends it.
    ///
    /// # Errors
    /// When the request makes no sense or was not answered.
    fn raw(&mut self, request: &Value) -> impl Future<Output = Result<Value, CallError>> + Send;

    /// Looks for a device at an address, 0..=255, and says what it is; `None` when nobody answers.
    ///
    /// # Errors
    /// When the wire is gone.
    fn look(
        &mut self,
        address: u8,
        profiles: &[Arc<Profile>],
    ) -> impl Future<Output = Result<Option<Value>, CallError>> + Send;

    /// How the device is read, for people.
    fn plan(&self, device: usize) -> Value;

    /// Asks again what was given up as unsupported.
    fn unpark(&mut self, device: usize);

    /// What was counted.
    fn counters(&self) -> Counters;

    /// Waits for what comes unasked, and gives all that is there, the oldest first; never nothing. Dropping the wait
    /// loses nothing. While the wire is closed, and on a wire where nobody speaks unasked, it waits for ever.
    ///
    /// # Errors
    /// When the wire is gone; the host closes it and opens it again.
    fn pushed(&mut self) -> impl Future<Output = Result<Vec<Push>, Gone>> + Send {
        std::future::pending()
    }

    /// The host counts the device as away, because it was silent: what there is to say about that.
    fn silent(&mut self, device: usize) -> Vec<Sample> {
        let _ = device;
        Vec::new()
    }

    /// Whether there is something to remember over a restart; the host keeps it on the bus.
    fn keeps_memory(&self) -> bool {
        false
    }

    /// What is to be remembered, if that has changed since it was asked for last.
    fn memory(&mut self) -> Option<Value> {
        None
    }

    /// What was remembered; it comes once, soon after the start.
    fn remember(&mut self, memory: &Value) {
        let _ = memory;
    }

    /// Milliseconds in which nobody could have been heard, counted since the port was made: they are no silence.
    fn deaf_ms(&mut self) -> u64 {
        0
    }

    /// Begins to gather who is in the air, or ends that and gives what was found, with the `profiles` that would fit.
    /// `None` on a wire, which has no air.
    fn survey(&mut self, begins: bool, profiles: &[Arc<Profile>]) -> Option<Vec<Value>> {
        let _ = (begins, profiles);
        None
    }

    /// Takes what came unasked while something else was asked, without waiting; the oldest first.
    fn overheard(&mut self) -> Vec<Push> {
        Vec::new()
    }
}
