//! Modbus TCP, inside TLS and in datagrams as well: one request, or a window of them, tied to their answers by transaction id.
//!
//! In and out: as [`super::master`]. Must never match by anything but the transaction id, and never read on behind a
//! header that is not Modbus.

use protocols::config::Wire;
use protocols::modbus::frame::{self, Framing, Step, StreamError};
use protocols::modbus::pdu::{AnswerError, REFUSED, Repeated, Request, Response};
use tokio::time::{Instant, sleep_until};

use super::master::{CallError, Master, Target};
use crate::link::LinkError;

/// Looks at what came unasked before a request; a peer that sends faster is listened to no longer than that.
const LATE_READS: usize = 64;

/// A request that is out.
struct Waiting {
    transaction: u16,
    /// Its place among the calls.
    index: usize,
    deadline: Instant,
}

/// What a frame is to a request.
enum Fit {
    /// Its answer.
    Answer(Result<Response, CallError>),
    /// Somebody else's.
    Foreign,
}

impl Master {
    pub(super) async fn call_tcp(&mut self, target: Target, request: &Request) -> Result<Response, CallError> {
        self.ready_tcp().await?;
        let quiet = self.connection.delay.max(target.delay);
        if !quiet.is_zero() {
            sleep_until(self.active + quiet).await;
        }
        self.outbox.clear();
        let transaction = self.put(target, request);
        self.send(std::time::Duration::ZERO).await?;
        let deadline = Instant::now() + target.timeout;
        let result = loop {
            match self.take(transaction, target.unit, request)? {
                Some(result) => break result,
                // A peer that never pauses must not keep the wait from running out.
                None if Instant::now() < deadline && self.receive(deadline).await? => {}
                None => break Err(CallError::Timeout),
            }
        };
        if !quiet.is_zero() {
            self.active = Instant::now();
        }
        result
    }

    /// Opens the connection if need be, one that the peer has closed meanwhile included, and drops what is late.
    async fn ready_tcp(&mut self) -> Result<(), CallError> {
        self.open().await?;
        for _ in 0..LATE_READS {
            match self.receive_now() {
                Ok(true) => {
                    if self.drop_late().is_err() {
                        self.close();
                        self.open().await?;
                    }
                }
                Ok(false) => return Ok(()),
                // Nothing was asked yet, so a new connection is as good as the old one.
                Err(CallError::Gone(LinkError::Gone { .. })) => {
                    self.close();
                    self.open().await?;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Drops whole frames; half of one stays, its rest is still to come.
    fn drop_late(&mut self) -> Result<(), CallError> {
        while let Step::Frame { used, .. } | Step::Skip { used, .. } = look(&self.connection.wire, self.inbox.bytes())?
        {
            self.inbox.forget(used);
            self.counters.dropped.late += 1;
        }
        Ok(())
    }

    /// Appends a request to the outbox, and gives its transaction id.
    fn put(&mut self, target: Target, request: &Request) -> u16 {
        self.transaction = self.transaction.wrapping_add(1);
        self.counters.requests += 1;
        frame::encode(Framing::Tcp, self.transaction, target.unit, &mut self.outbox, |out| request.encode_into(out));
        self.transaction
    }

    /// Looks for one request's answer in what has come.
    fn take(
        &mut self,
        transaction: u16,
        unit: u8,
        request: &Request,
    ) -> Result<Option<Result<Response, CallError>>, CallError> {
        while let Step::Frame { frame, used } = look(&self.connection.wire, self.inbox.bytes())? {
            let fit = if frame.transaction == transaction {
                fit(&mut self.counters.dropped, frame.unit == unit, request, frame.pdu)
            } else {
                self.counters.dropped.late += 1;
                Fit::Foreign
            };
            self.inbox.forget(used);
            if let Fit::Answer(result) = fit {
                return Ok(Some(result));
            }
        }
        Ok(None)
    }

    /// Keeps up to `in_flight` requests out; one that times out leaves its place to the next.
    pub(super) async fn pipeline(&mut self, calls: &[(Target, Request)]) -> Vec<Result<Response, CallError>> {
        let mut results: Vec<Option<Result<Response, CallError>>> =
            calls.iter().map(|(_, request)| request.check().err().map(|error| Err(error.into()))).collect();
        if std::mem::take(&mut self.sending) {
            self.close();
        }
        let end = match self.ready_tcp().await {
            Ok(()) => self.run_window(calls, &mut results).await,
            Err(error) => Err(error),
        };
        let rest = match end {
            Ok(()) => CallError::Timeout,
            Err(error) => {
                self.close();
                error
            }
        };
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(rest.clone()))).collect()
    }

    async fn run_window(
        &mut self,
        calls: &[(Target, Request)],
        results: &mut [Option<Result<Response, CallError>>],
    ) -> Result<(), CallError> {
        let width = usize::from(self.connection.in_flight);
        let mut waiting: Vec<Waiting> = Vec::with_capacity(width.min(calls.len()));
        let mut next = calls.iter().enumerate();
        loop {
            self.outbox.clear();
            while waiting.len() < width {
                let Some((index, (target, request))) = next.next() else { break };
                if results.get(index).is_some_and(Option::is_some) {
                    continue;
                }
                let transaction = self.put(*target, request);
                waiting.push(Waiting { transaction, index, deadline: Instant::now() + target.timeout });
            }
            if !self.outbox.is_empty() {
                self.send(std::time::Duration::ZERO).await?;
            }
            let Some(deadline) = waiting.iter().map(|waiting| waiting.deadline).min() else { return Ok(()) };
            if Instant::now() < deadline && self.receive(deadline).await? {
                self.take_any(calls, &mut waiting, results)?;
            } else {
                let now = Instant::now();
                waiting.retain(|late| {
                    let keep = late.deadline > now;
                    if !keep && let Some(slot) = results.get_mut(late.index) {
                        *slot = Some(Err(CallError::Timeout));
                        self.counters.timeouts += 1;
                        self.silent += 1;
                    }
                    keep
                });
                if self.silent >= super::master::SILENT_TCP.max(u32::from(self.connection.in_flight)) {
                    self.close();
                    self.open().await?;
                    // What was out on the old connection is not answered on the new one.
                    for late in waiting.drain(..) {
                        if let Some(slot) = results.get_mut(late.index) {
                            *slot = Some(Err(CallError::Timeout));
                            self.counters.timeouts += 1;
                        }
                    }
                }
            }
        }
    }

    /// Gives every whole frame to the request it answers.
    fn take_any(
        &mut self,
        calls: &[(Target, Request)],
        waiting: &mut Vec<Waiting>,
        results: &mut [Option<Result<Response, CallError>>],
    ) -> Result<(), CallError> {
        while let Step::Frame { frame, used } = look(&self.connection.wire, self.inbox.bytes())? {
            let place = waiting.iter().position(|waiting| waiting.transaction == frame.transaction);
            let index = place.and_then(|place| waiting.get(place)).map(|waiting| waiting.index);
            let call = index.and_then(|index| calls.get(index));
            let fit = match call {
                Some((target, request)) => {
                    fit(&mut self.counters.dropped, frame.unit == target.unit, request, frame.pdu)
                }
                None => {
                    self.counters.dropped.late += 1;
                    Fit::Foreign
                }
            };
            self.inbox.forget(used);
            if let (Fit::Answer(result), Some(place), Some(index)) = (fit, place, index) {
                waiting.swap_remove(place);
                self.account(&result);
                if let Some(slot) = results.get_mut(index) {
                    *slot = Some(result);
                }
            }
        }
        Ok(())
    }
}

/// Looks at the first bytes of what came. A datagram that is no Modbus says nothing of the next one: it is left, and
/// forgotten before that.
fn look<'a>(wire: &Wire, bytes: &'a [u8]) -> Result<Step<'a>, StreamError> {
    match frame::tcp(bytes) {
        Err(_) if matches!(wire, Wire::Udp(_)) => Ok(Step::More),
        step => step,
    }
}

/// The transaction id says that it is the answer: whatever else is wrong with it, no better one will come, except from
/// a gateway that mixes its units up.
fn fit(dropped: &mut super::master::Dropped, unit: bool, request: &Request, pdu: &[u8]) -> Fit {
    let function = pdu.first().copied().unwrap_or_default();
    if !unit {
        dropped.unit += 1;
        return Fit::Foreign;
    }
    if function & !REFUSED != request.function() {
        dropped.function += 1;
        return Fit::Foreign;
    }
    Fit::Answer(match Response::decode(request, pdu) {
        // The transaction is ours, so this is no late answer: the device took another value than it was given, and says
        // so. What it holds now is for the read-back to find out.
        Err(AnswerError::OtherRequest(Repeated::Value)) if request.writes() => Ok(Response::Written),
        answer => answer.map_err(CallError::from),
    })
}
