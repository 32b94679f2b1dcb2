//! The master of one wire: the only one that speaks on it, whatever number of units hang there.
//!
//! In: requests with the unit they are for. Out: the response, or why there is none; counters. Must never take a late,
//! foreign or damaged frame for the answer of the request that is out, and never report a write as done that was not
//! answered.
//!
//! What ties an answer to its request: on Modbus TCP the transaction id; on a serial line only unit, function, length
//! and, for writes, the address that is repeated. Therefore a serial line is drained before every request, and after a
//! time-out the same unit is not asked the same function again before its answer can no longer be on its way
//! ([`GRACE`]). What remains undetectable there: an answer that is later than its time-out and that grace together,
//! to a read of the same function and length at another address; and a write (functions 5, 6, 22) on an adapter that
//! echoes, without `echo: true`, before the first read shows the echo.

use std::sync::Arc;
use std::time::Duration;

use protocols::config::{Connection, Wire};
use protocols::modbus::frame::{Framing, Inbox, StreamError};
use protocols::modbus::pdu::{AnswerError, Request, RequestError, Response};
use protocols::value::Why;
use tokio::time::Instant;

use crate::link::{Link, LinkError, character};

/// How long after its time-out an answer is still expected: twice the time-out, but at least the first and at most the
/// second. A device later than that can have its answer mistaken for the next one's; a longer time-out is the remedy.
pub const GRACE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(1));
/// From a broadcast to the next request, so that every unit can work it in (Serial Line guide V1.02, section 2.4.1).
pub const TURNAROUND: Duration = Duration::from_millis(100);
/// After so many requests in a row without any answer a TCP connection is opened anew; it may be dead without a sign.
pub const SILENT_TCP: u32 = 4;
/// The same for a serial port; some adapters stop working until they are opened again.
pub const SILENT_SERIAL: u32 = 16;
/// The longest attempt at a TCP connection; the connection's time-out where that is longer.
const CONNECT: Duration = Duration::from_secs(3);

/// Whom a request is for, and how patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The unit id. On serial lines 0 is everybody; on Modbus TCP it is the device at that address.
    pub unit: u8,
    /// How long the answer may take, its time on a serial line not counted.
    pub timeout: Duration,
    /// Quiet time before the request, if the line's own is shorter.
    pub delay: Duration,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// None came in time.
    #[error("no answer in time")]
    Timeout,
    /// The device refused.
    #[error("{}", protocols::modbus::pdu::Exception(*.0))]
    Exception(u8),
    /// An answer came with a wrong checksum.
    #[error("answer has a wrong checksum")]
    Crc,
    /// An answer came that does not fit the request.
    #[error("answer is malformed: {0}")]
    Malformed(&'static str),
    /// The peer does not speak Modbus TCP; the connection was closed.
    #[error("peer does not speak modbus tcp: {0}")]
    NoModbus(#[from] StreamError),
    /// The adapter sends back what it is sent.
    #[error("adapter echoes every request; set echo: true on this connection")]
    Echo,
    /// Nobody answers a broadcast.
    #[error("unit 0 is everybody on a serial line and can only be written")]
    Broadcast,
    /// The request breaks the protocol's limits.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The wire is away.
    #[error(transparent)]
    Gone(#[from] LinkError),
}

impl CallError {
    /// The word that a reading without a value carries.
    pub fn why(&self) -> Why {
        match self {
            Self::Timeout => Why::Timeout,
            Self::Exception(code) => Why::Exception(*code),
            Self::Crc => Why::Crc,
            Self::Malformed(_) | Self::NoModbus(_) => Why::Decode,
            Self::Echo | Self::Broadcast | Self::Request(_) => Why::Config,
            Self::Gone(_) => Why::Offline,
        }
    }
}

impl From<AnswerError> for CallError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Exception(exception) => Self::Exception(exception.0),
            AnswerError::WrongFunction { .. } => Self::Malformed("it has another function"),
            AnswerError::OtherRequest(_) => Self::Malformed("it repeats another request"),
            AnswerError::Malformed(what) => Self::Malformed(what),
        }
    }
}

/// What happened on a wire since the master was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests sent, broadcasts included.
    pub requests: u64,
    /// Answers taken, exceptions included.
    pub answers: u64,
    /// Requests that nobody answered in time.
    pub timeouts: u64,
    /// Answers that were exceptions.
    pub exceptions: u64,
    /// What was received and not used.
    pub dropped: Dropped,
    /// Times the link was opened after the first.
    pub reopened: u64,
    /// Time spent in requests, waiting included.
    pub busy: Duration,
}

/// What was received and not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Frames with a wrong checksum.
    pub crc: u64,
    /// Frames of another unit than was asked.
    pub unit: u64,
    /// Frames of another function or length than was asked.
    pub function: u64,
    /// Frames that came after their request was given up.
    pub late: u64,
    /// Bytes outside any frame.
    pub noise: u64,
    /// Requests that came back from the adapter without `echo: true`.
    pub echoes: u64,
}

/// The master of one wire.
///
/// Cancellation: a dropped [`Master::call`] may have been carried out by the device. The master itself stays usable;
/// what still comes is treated like an answer that is late, and a link that was left half way through a frame is
/// opened anew.
#[derive(Debug)]
pub struct Master {
    pub(super) connection: Arc<Connection>,
    pub(super) link: Option<Link>,
    pub(super) inbox: Inbox,
    /// The bytes of the request that is out.
    pub(super) outbox: Vec<u8>,
    pub(super) transaction: u16,
    pub(super) counters: Counters,
    /// When the last byte was on the wire, as far as known.
    pub(super) active: Instant,
    /// A frame may be half sent.
    pub(super) sending: bool,
    /// Requests in a row that nobody answered.
    pub(super) silent: u32,
    /// The link answered since it was opened, so that an end of it is most likely a peer tired of waiting.
    pub(super) proven: bool,
    pub(super) line: super::rtu::Line,
    opened: bool,
}

impl Master {
    /// A master for a wire that is not open yet.
    pub fn new(connection: Arc<Connection>) -> Self {
        let character = connection.wire.line().map_or(Duration::ZERO, character);
        let framing = connection.wire.framing();
        Self {
            connection,
            link: None,
            inbox: Inbox::default(),
            outbox: Vec::with_capacity(64),
            transaction: 0,
            counters: Counters::default(),
            active: Instant::now(),
            sending: false,
            silent: 0,
            proven: false,
            line: super::rtu::Line::new(framing, character),
            opened: false,
        }
    }

    /// Opens the wire, if it is not open.
    ///
    /// # Errors
    /// [`LinkError`] says what a person can do about it.
    pub async fn open(&mut self) -> Result<(), LinkError> {
        if self.link.is_some() {
            return Ok(());
        }
        let link = Link::open(&self.connection.wire, self.connection.timeout.max(CONNECT)).await?;
        self.counters.reopened += u64::from(self.opened);
        self.opened = true;
        self.proven = false;
        self.silent = 0;
        self.sending = false;
        self.inbox.clear();
        self.link = Some(link);
        Ok(())
    }

    /// Whether the wire is open, as far as known.
    pub fn is_open(&self) -> bool {
        self.link.is_some()
    }

    /// Closes the wire; the next call opens it.
    pub fn close(&mut self) {
        self.link = None;
        self.line.forget_echo();
    }

    /// The wire.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Until when an answer that a unit did not give in time may still come. Asking it the same function again waits
    /// so long; asking other units first makes use of that time.
    pub fn owing(&self, unit: u8) -> Option<Instant> {
        self.line.owing(unit)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Asks, and waits for the answer. Opens the wire if it is closed. See [`Master`] for what a dropped call leaves.
    ///
    /// A read that finds the link closed by the other side is sent once more on a new one; a write never is.
    ///
    /// # Errors
    /// [`CallError`]. After [`CallError::Gone`] the wire is closed.
    pub async fn call(&mut self, target: Target, request: &Request) -> Result<Response, CallError> {
        request.check()?;
        let began = Instant::now();
        let mut result = self.attempt(target, request).await;
        if matches!(result, Err(CallError::Gone(LinkError::Gone { .. })) if self.proven && !request.writes()) {
            result = self.attempt(target, request).await;
        }
        self.counters.busy += began.elapsed();
        result
    }

    /// Asks many. On Modbus TCP up to the connection's `in_flight` requests are out at one time, elsewhere one. The
    /// results are in the order of the calls.
    pub async fn call_many(&mut self, calls: &[(Target, Request)]) -> Vec<Result<Response, CallError>> {
        let patient = self.connection.delay.is_zero() && calls.iter().all(|(target, _)| target.delay.is_zero());
        if matches!(self.connection.wire, Wire::Tcp(_) | Wire::Tls(_)) && self.connection.in_flight > 1 && patient {
            let began = Instant::now();
            let results = self.pipeline(calls).await;
            self.counters.busy += began.elapsed();
            return results;
        }
        let mut results = Vec::with_capacity(calls.len());
        for (target, request) in calls {
            results.push(self.call(*target, request).await);
        }
        results
    }

    async fn attempt(&mut self, target: Target, request: &Request) -> Result<Response, CallError> {
        if std::mem::take(&mut self.sending) {
            self.close();
        }
        let framing = self.connection.wire.framing();
        let result = match framing {
            Framing::Tcp => self.call_tcp(target, request).await,
            Framing::Rtu | Framing::Ascii => self.call_rtu(target, request).await,
        };
        // A broadcast that went out is no answer.
        if target.unit != 0 || framing == Framing::Tcp || result.is_err() {
            self.account(&result);
        }
        result
    }

    /// Counts how a request ended, and closes a link that seems to be dead.
    pub(super) fn account(&mut self, result: &Result<Response, CallError>) {
        match result {
            Ok(_) => self.counters.answers += 1,
            Err(CallError::Exception(_)) => {
                self.counters.answers += 1;
                self.counters.exceptions += 1;
            }
            Err(CallError::Timeout) => {
                self.counters.timeouts += 1;
                self.silent += 1;
                let close = match self.connection.wire {
                    Wire::Tcp(_) | Wire::Tls(_) | Wire::Udp(_) => self.silent >= SILENT_TCP,
                    // What the converter still holds for the old connection does not reach a new one.
                    Wire::RtuOverTcp(_) | Wire::AsciiOverTcp(_) | Wire::Ble { .. } | Wire::External(_) => true,
                    Wire::Serial { .. } | Wire::AsciiSerial { .. } => self.silent >= SILENT_SERIAL,
                };
                if close {
                    self.close();
                }
                return;
            }
            Err(CallError::Gone(_) | CallError::NoModbus(_)) => {
                self.close();
                return;
            }
            Err(_) => {}
        }
        self.silent = 0;
        self.proven = true;
    }

    /// The open link, or why there is none.
    pub(super) fn link(&mut self) -> Result<&mut Link, CallError> {
        let place = || self.connection.wire.place().to_owned();
        match &mut self.link {
            Some(link) => Ok(link),
            None => Err(LinkError::Gone { place: place(), text: "it is not open".to_owned() }.into()),
        }
    }

    /// Sends [`Master::outbox`].
    pub(super) async fn send(&mut self, on_wire: Duration) -> Result<(), CallError> {
        self.sending = true;
        let Some(link) = &mut self.link else { return self.link().map(drop) };
        let sent = link.send(&self.outbox, on_wire).await;
        self.sending = false;
        sent.map_err(|error| CallError::Gone(link.gone(Some(&error))))
    }

    /// What is left of a datagram is no frame, and the next one does not go on with it.
    fn forget_rest(&mut self) {
        if matches!(self.connection.wire, Wire::Udp(_)) {
            self.counters.dropped.noise += self.inbox.clear() as u64;
        }
    }

    /// Waits for bytes until `deadline`; says whether some came. Dropping the wait loses none.
    pub(super) async fn receive(&mut self, deadline: Instant) -> Result<bool, CallError> {
        self.forget_rest();
        let Some(link) = &mut self.link else { return self.link().map(|_| false) };
        match tokio::time::timeout_at(deadline, link.read(self.inbox.room())).await {
            Err(_) => Ok(false),
            Ok(Ok(0)) => Err(link.gone(None).into()),
            Ok(Ok(count)) => {
                self.inbox.filled(count);
                Ok(true)
            }
            Ok(Err(error)) => Err(link.gone(Some(&error)).into()),
        }
    }

    /// Takes what has come already; says whether some had.
    pub(super) fn receive_now(&mut self) -> Result<bool, CallError> {
        self.forget_rest();
        let Some(link) = &mut self.link else { return Ok(false) };
        match link.read_now(self.inbox.room()) {
            Ok(None) => Ok(false),
            Ok(Some(0)) => Err(link.gone(None).into()),
            Ok(Some(count)) => {
                self.inbox.filled(count);
                Ok(true)
            }
            Err(error) => Err(link.gone(Some(&error)).into()),
        }
    }
}
