//! What mappers call: `DeviceManagerService`.
//!
//! In: requests off the socket. Out: the same for the clerk, and its answers. Must never wait longer than a mapper does,
//! and never believe a length it is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::kubeedge::dmi::is_protocol;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use super::clerk::{Call, Registration, Seen};
use super::door::Peer;
use super::wire::device_manager_service_server::DeviceManagerService;
use super::wire::{
    MapperRegisterRequest, MapperRegisterResponse, ReportDeviceStatesRequest, ReportDeviceStatesResponse,
    ReportDeviceStatusRequest, ReportDeviceStatusResponse,
};
use super::{Board, TWINS};

/// The longest text that a mapper says of itself, in bytes; what is longer is cut.
const TEXT_BYTES: usize = 128;

/// The longest path of a Unix socket, in bytes (`sun_path` without its end).
const PATH_BYTES: usize = 107;

/// Takes the calls.
pub(super) struct Desk {
    calls: mpsc::Sender<Call>,
    board: Arc<Board>,
}

impl Desk {
    pub(super) fn new(calls: mpsc::Sender<Call>, board: Arc<Board>) -> Self {
        Self { calls, board }
    }

    /// Hands a call to the clerk and waits for its answer. The server's own deadline ends the wait.
    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> Call) -> Result<T, Status> {
        let (answer, answered) = oneshot::channel();
        let result = match self.calls.try_send(call(answer)) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(Status::unavailable("the gateway is stopping"))),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.board.count(|counts| counts.busy += 1);
                return Err(Status::resource_exhausted("too many calls wait; report again later"));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Status::unavailable("the gateway is stopping")),
        };
        if result.is_err() {
            self.board.count(|counts| counts.refused += 1);
        }
        result
    }

    fn refuse(&self, why: impl Into<String>) -> Status {
        self.board.count(|counts| counts.refused += 1);
        Status::invalid_argument(why)
    }
}

#[tonic::async_trait]
impl DeviceManagerService for Desk {
    async fn mapper_register(
        &self,
        request: Request<MapperRegisterRequest>,
    ) -> Result<Response<MapperRegisterResponse>, Status> {
        let user = request.extensions().get::<Peer>().and_then(|peer| peer.user);
        let MapperRegisterRequest { with_data, mapper } = request.into_inner();
        let Some(mapper) = mapper else { return Err(self.refuse("the request has no mapper")) };
        if !is_protocol(&mapper.protocol) {
            return Err(self.refuse("protocol has to be up to 64 of A-Z a-z 0-9 _ . -"));
        }
        let Some(address) = address(&mapper.address) else {
            return Err(self.refuse("address has to be the absolute path of a Unix socket, up to 107 bytes"));
        };
        let registration = Registration {
            name: cut(mapper.name),
            version: cut(mapper.version),
            protocol: mapper.protocol.to_ascii_lowercase(),
            address,
            user,
            with_data,
        };
        self.ask(|answer| Call::Register(registration, answer)).await.map(Response::new)
    }

    async fn report_device_status(
        &self,
        request: Request<ReportDeviceStatusRequest>,
    ) -> Result<Response<ReportDeviceStatusResponse>, Status> {
        let ReportDeviceStatusRequest { device_name, reported_device, device_namespace } = request.into_inner();
        let twins = reported_device.map(|status| status.twins).unwrap_or_default();
        if twins.is_empty() || twins.len() > TWINS {
            return Err(self.refuse(format!("a report has from 1 to {TWINS} twins")));
        }
        // A twin that reports nothing is no reason to refuse the others.
        let seen = twins.into_iter().filter_map(|twin| {
            let observed = twin.observed_desired.map(|desired| desired.value);
            Some(Seen { property: twin.property_name, observed, reported: twin.reported?.value })
        });
        let seen = seen.collect();
        let device = (device_namespace, device_name);
        self.ask(|answer| Call::Report(device, seen, answer)).await?;
        Ok(Response::new(ReportDeviceStatusResponse {}))
    }

    async fn report_device_states(
        &self,
        request: Request<ReportDeviceStatesRequest>,
    ) -> Result<Response<ReportDeviceStatesResponse>, Status> {
        let ReportDeviceStatesRequest { device_name, device_namespace, state } = request.into_inner();
        let device = (device_namespace, device_name);
        self.ask(|answer| Call::State(device, state, answer)).await?;
        Ok(Response::new(ReportDeviceStatesResponse {}))
    }
}

fn cut(text: String) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(TEXT_BYTES).collect()
}

/// The path of a mapper's socket, with or without `unix:` before it.
fn address(bytes: &[u8]) -> Option<PathBuf> {
    let text = std::str::from_utf8(bytes).ok()?;
    let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")).unwrap_or(text);
    let fits = Path::new(path).is_absolute() && path.len() <= PATH_BYTES && !path.contains('\0');
    fits.then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mappers_address_is_an_absolute_path() {
        for (text, expected) in [
            ("/etc/kubeedge/m.sock", Some("/etc/kubeedge/m.sock")),
            ("unix:///run/m.sock", Some("/run/m.sock")),
            ("unix:/run/m.sock", Some("/run/m.sock")),
            ("m.sock", None),
            ("127.0.0.1:80", None),
            ("/a\0b", None),
            ("", None),
        ] {
            assert_eq!(address(text.as_bytes()), expected.map(PathBuf::from), "{text}");
        }
        assert_eq!(address(&[b'/'; 108]), None);
        assert_eq!(address(&[b'/', 0xff]), None);
    }
}
