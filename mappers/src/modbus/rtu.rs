//! RTU and ASCII on a serial line or through a converter: nothing ties an answer to its request but its form, so the line is kept
//! quiet and empty between them.
//!
//! In and out: as [`super::master`]. Must never send while something may still be on its way that would look like the
//! answer.

use std::borrow::Cow;
use std::time::Duration;

use protocols::config::Wire;
use protocols::modbus::frame::{self, ASCII_CHARS, Frame, Framing, RTU_BYTES, Side, Step};
use protocols::modbus::pdu::{AnswerError, REFUSED, Request, Response};
use tokio::time::Instant;

use super::master::{CallError, GRACE, Master, TURNAROUND, Target};
use crate::link::LinkError;

/// Bytes of one frame may come this far apart: USB adapters collect for 16 ms, converters for longer. Behind a longer
/// pause a frame may also begin inside what looked like an unfinished one.
const SILENCE: Duration = Duration::from_millis(50);
/// The quiet time between frames above 19,200 baud (Serial Line guide V1.02, section 2.5.1.1).
const QUIET_FAST: Duration = Duration::from_micros(1750);
/// A line that is never quiet is spoken on after this time all the same; the request will then most likely fail.
const BABBLE: Duration = Duration::from_secs(2);
/// Units that may owe an answer at one time; all there are.
const UNITS: usize = 256;

/// What a serial line remembers from one request to the next.
#[derive(Debug)]
pub(super) struct Line {
    framing: Framing,
    character: Duration,
    quiet: Duration,
    /// Not before this time, after a broadcast.
    turnaround: Option<Instant>,
    /// Who has not answered what yet.
    owed: Vec<Owed>,
    /// A request that was out when its call was dropped.
    doubt: Option<Owed>,
    /// The adapter was seen to echo without being configured so.
    echoes: bool,
    /// The request before was one whose answer repeats it.
    repeated: bool,
}

#[derive(Clone, Copy, Debug)]
struct Owed {
    unit: u8,
    function: u8,
    until: Instant,
}

impl Line {
    pub(super) fn new(framing: Framing, character: Duration) -> Self {
        let quiet = if character.is_zero() { Duration::ZERO } else { (character * 7 / 2).max(QUIET_FAST) };
        let owed = Vec::new();
        Self { framing, character, quiet, turnaround: None, owed, doubt: None, echoes: false, repeated: false }
    }

    pub(super) fn forget_echo(&mut self) {
        self.echoes = false;
    }

    /// How long the longest or the expected answer is on the wire.
    fn answer_on_wire(&self, request: &Request) -> Duration {
        self.on_wire(match (self.framing, request.answer_bytes()) {
            (Framing::Ascii, Some(pdu)) => 2 * (pdu + 2) + 3,
            (Framing::Ascii, None) => ASCII_CHARS,
            (_, Some(pdu)) => pdu + 3,
            (_, None) => RTU_BYTES,
        })
    }

    fn on_wire(&self, bytes: usize) -> Duration {
        self.character * u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    fn owe(&mut self, owed: Owed) {
        self.owed.retain(|old| old.unit != owed.unit);
        self.owed.truncate(UNITS);
        self.owed.push(owed);
    }

    /// Says whether the frame is what somebody still owed, and takes it from the books.
    fn settle(&mut self, unit: u8, function: u8) -> bool {
        let before = self.owed.len();
        self.owed.retain(|owed| owed.unit != unit || owed.function != function & !REFUSED);
        before != self.owed.len()
    }

    pub(super) fn owing(&self, unit: u8) -> Option<Instant> {
        let now = Instant::now();
        self.owed.iter().find(|owed| owed.unit == unit && owed.until > now).map(|owed| owed.until)
    }

    /// Until when the same could still come.
    fn owed(&mut self, unit: u8, function: u8, now: Instant) -> Option<Instant> {
        self.owed.retain(|owed| owed.until > now);
        self.owed.iter().find(|owed| owed.unit == unit && owed.function == function).map(|owed| owed.until)
    }
}

impl Master {
    pub(super) async fn call_rtu(&mut self, target: Target, request: &Request) -> Result<Response, CallError> {
        let broadcast = target.unit == 0;
        if broadcast && (!request.writes() || matches!(request, Request::ReadWrite { .. })) {
            return Err(CallError::Broadcast);
        }
        if let Some(doubt) = self.line.doubt.take() {
            self.line.owe(doubt);
        }
        if self.line.echoes && request.writes() && !self.connection.echo {
            // Its echo would look like the device's word that it was done.
            return Err(CallError::Echo);
        }
        self.ready_rtu(target, request.function()).await?;

        self.outbox.clear();
        frame::encode(self.line.framing, 0, target.unit, &mut self.outbox, |out| request.encode_into(out));
        self.counters.requests += 1;
        let on_wire = self.line.on_wire(self.outbox.len());
        let until = Instant::now() + on_wire + target.timeout + grace(target.timeout);
        let owed = Owed { unit: target.unit, function: request.function(), until };
        self.line.doubt = (!broadcast).then_some(owed);
        self.line.repeated = repeats(request);
        let began = Instant::now();
        self.send(on_wire).await?;
        self.active = began + on_wire;
        if broadcast {
            self.line.turnaround = Some(self.active + TURNAROUND);
            return Ok(Response::Written);
        }
        let deadline = self.active + target.timeout + self.line.answer_on_wire(request);
        let result = self.listen(target.unit, request, deadline).await;
        self.line.doubt = None;
        match &result {
            Ok(_) | Err(CallError::Exception(_)) => {}
            Err(_) => {
                let until = Instant::now() + grace(target.timeout);
                self.line.owe(Owed { until, ..owed });
            }
        }
        result
    }

    /// Opens the line if need be, and waits until it is quiet and nothing is on its way that could be mistaken.
    async fn ready_rtu(&mut self, target: Target, function: u8) -> Result<(), CallError> {
        self.open().await?;
        let quiet = self.line.quiet.max(self.connection.delay).max(target.delay);
        let babble = Instant::now() + BABBLE + GRACE.1;
        self.drop_unasked();
        loop {
            match self.receive_now() {
                Ok(true) => {
                    self.active = Instant::now();
                    self.drop_unasked();
                    if self.active < babble {
                        continue;
                    }
                }
                Ok(false) => {}
                // Nothing was asked yet, so a new connection is as good as the old one.
                Err(CallError::Gone(LinkError::Gone { .. }))
                    if matches!(self.connection.wire, Wire::RtuOverTcp(_) | Wire::AsciiOverTcp(_)) =>
                {
                    self.close();
                    self.open().await?;
                }
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            let mut until = self.active + quiet;
            until = until.max(self.line.turnaround.unwrap_or(until));
            until = until.max(self.line.owed(target.unit, function, now).unwrap_or(until));
            if now >= until || now >= babble {
                break;
            }
            if self.receive(until.min(babble)).await? {
                self.active = Instant::now();
                self.drop_unasked();
            }
        }
        self.line.turnaround = None;
        self.counters.dropped.noise += self.inbox.clear() as u64;
        Ok(())
    }

    /// Looks at what came without a request being out.
    fn drop_unasked(&mut self) {
        loop {
            match look(self.line.framing, self.inbox.bytes()) {
                Step::Frame { frame, used } => {
                    let pdu = pdu_of(self.line.framing, &frame);
                    let (unit, function) = (frame.unit, pdu.first().copied().unwrap_or_default());
                    // A second copy of a write's answer: the first was the adapter's echo.
                    let echo = self.line.repeated && self.inbox.bytes().get(..used) == Some(&self.outbox);
                    self.line.settle(unit, function);
                    self.counters.dropped.late += 1;
                    if echo && !self.connection.echo {
                        self.line.echoes = true;
                        self.counters.dropped.echoes += 1;
                    }
                    self.inbox.forget(used);
                }
                Step::Skip { used, .. } => {
                    self.counters.dropped.noise += used as u64;
                    self.inbox.forget(used);
                }
                Step::More => return,
            }
        }
    }

    /// Waits for the answer.
    async fn listen(&mut self, unit: u8, request: &Request, deadline: Instant) -> Result<Response, CallError> {
        let mut echo = if self.connection.echo { Echo::Expected } else { Echo::Unknown };
        let mut verdict = CallError::Timeout;
        let mut silent = false;
        loop {
            match self.sift(unit, request, &mut echo, &mut verdict, silent)? {
                Some(result) => return result,
                None if silent && verdict == CallError::Crc => return Err(verdict),
                None => {}
            }
            // A peer that never pauses would keep the wait below from ever running out.
            if Instant::now() >= deadline {
                let last = self.sift(unit, request, &mut echo, &mut verdict, true)?;
                return last.unwrap_or(Err(verdict));
            }
            let pending = !self.inbox.bytes().is_empty() || verdict == CallError::Crc;
            let pause = self.active.max(Instant::now()) + SILENCE;
            let until = if pending && !silent { deadline.min(pause) } else { deadline };
            if self.receive(until).await? {
                self.active = Instant::now();
                silent = false;
            } else {
                silent = pending;
            }
        }
    }

    /// Goes through what has come. `silent`: nothing came for a while, so what is unfinished may never be finished.
    fn sift(
        &mut self,
        unit: u8,
        request: &Request,
        echo: &mut Echo,
        verdict: &mut CallError,
        silent: bool,
    ) -> Result<Option<Result<Response, CallError>>, CallError> {
        if self.sift_echo(request, echo, silent)? {
            return Ok(None);
        }
        loop {
            let bytes = self.inbox.bytes();
            let framing = self.line.framing;
            let step = match look(framing, bytes) {
                // Characters of an ASCII frame may come a second apart, and its end is marked: there the wait goes on.
                Step::More if silent && framing == Framing::Rtu => {
                    match frame::rtu_at_silence(Side::Answers, bytes, Some((unit, request))) {
                        // Kept: after a pause that long its rest may still come.
                        Step::Skip { .. } => return Ok(None),
                        step => step,
                    }
                }
                step => step,
            };
            let used = match step {
                Step::More => return Ok(None),
                Step::Skip { used, damaged } => {
                    let ours = frame::head(framing, bytes)
                        .is_some_and(|head| (head.0, head.1 & !REFUSED) == (unit, request.function()));
                    if damaged && ours {
                        self.counters.dropped.crc += 1;
                        *verdict = CallError::Crc;
                    } else {
                        self.counters.dropped.noise += used as u64;
                    }
                    used
                }
                Step::Frame { frame, used } => {
                    let pdu = pdu_of(framing, &frame);
                    let function = pdu.first().copied().unwrap_or_default();
                    let answer = if frame.unit != unit {
                        self.counters.dropped.unit += 1;
                        self.line.settle(frame.unit, function);
                        None
                    } else {
                        match Response::decode(request, &pdu) {
                            Ok(response) => Some(Ok(response)),
                            Err(AnswerError::Exception(exception)) => Some(Err(CallError::Exception(exception.0))),
                            Err(AnswerError::WrongFunction { .. }) => {
                                self.counters.dropped.function += 1;
                                None
                            }
                            Err(AnswerError::OtherRequest(_)) => {
                                self.counters.dropped.late += 1;
                                None
                            }
                            Err(AnswerError::Malformed(what)) => {
                                self.counters.dropped.function += 1;
                                *verdict = CallError::Malformed(what);
                                None
                            }
                        }
                    };
                    if let Some(result) = answer {
                        self.inbox.forget(used);
                        if !request.writes() && matches!(echo, Echo::Unknown) {
                            self.line.echoes = false;
                        }
                        return Ok(Some(result));
                    }
                    used
                }
            };
            self.inbox.forget(used);
        }
    }

    /// Takes the echo of the request away. Says whether more bytes are needed for that.
    fn sift_echo(&mut self, request: &Request, echo: &mut Echo, silent: bool) -> Result<bool, CallError> {
        let (bytes, sent) = (self.inbox.bytes(), &self.outbox);
        let starts = bytes.starts_with(sent);
        match echo {
            Echo::Done => Ok(false),
            Echo::Expected => {
                let found = bytes.windows(sent.len()).position(|window| window == sent);
                match found {
                    Some(before) => {
                        self.counters.dropped.noise += before as u64;
                        let used = before + sent.len();
                        self.inbox.forget(used);
                        *echo = Echo::Done;
                    }
                    // Its end may be to come, behind whatever noise.
                    None if !silent
                        && (0..bytes.len()).any(|at| bytes.get(at..).is_some_and(|tail| sent.starts_with(tail))) =>
                    {
                        return Ok(true);
                    }
                    None if bytes.len() >= sent.len() => *echo = Echo::Done,
                    None => return Ok(!silent),
                }
                Ok(false)
            }
            // The answer repeats the request: nothing tells an echo from it.
            Echo::Unknown if repeats(request) => Ok(false),
            Echo::Unknown if starts => {
                self.line.echoes = true;
                self.counters.dropped.echoes += 1;
                Err(CallError::Echo)
            }
            Echo::Unknown => Ok(!silent && !bytes.is_empty() && sent.starts_with(bytes)),
        }
    }
}

/// What is known of an echo while an answer is waited for.
enum Echo {
    /// It has to come first.
    Expected,
    /// It came and was taken away, or will not come.
    Done,
    /// None is configured; one that comes is told.
    Unknown,
}

/// Looks at the first bytes of what came.
fn look(framing: Framing, bytes: &[u8]) -> Step<'_> {
    match framing {
        Framing::Ascii => frame::ascii(bytes),
        Framing::Tcp | Framing::Rtu => frame::rtu(Side::Answers, bytes),
    }
}

/// The bytes of a frame's protocol data unit.
fn pdu_of<'a>(framing: Framing, frame: &Frame<'a>) -> Cow<'a, [u8]> {
    match framing {
        Framing::Ascii => Cow::Owned(frame::pdu_bytes(framing, frame)),
        Framing::Tcp | Framing::Rtu => Cow::Borrowed(frame.pdu),
    }
}

/// How long after its time-out an answer is still expected.
fn grace(timeout: Duration) -> Duration {
    (timeout * 2).clamp(GRACE.0, GRACE.1)
}

/// Whether an answer to it looks just like it.
fn repeats(request: &Request) -> bool {
    matches!(request, Request::WriteCoil { .. } | Request::WriteRegister { .. } | Request::MaskWrite { .. })
}
