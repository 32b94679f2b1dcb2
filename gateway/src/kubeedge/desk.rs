//! The window where the broker hands KubeEdge's requests over.

use protocols::kubeedge::topic::{self, Asked};
use tokio::sync::mpsc;

use super::KEPT;
use crate::broker::desk::{Claim, Request, Verdict};

/// Takes KubeEdge's requests for the service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Window {
    requests: mpsc::Sender<Request>,
}

impl Window {
    pub(super) fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests }
    }

    /// What becomes of a publish on this topic; `None` for topics that are none of KubeEdge's.
    pub fn claim(topic: &str) -> Option<Claim> {
        if topic.starts_with(KEPT) || topic::is_answer(topic) {
            return Some(Claim::Reserved);
        }
        Asked::parse(topic).map(|_| Claim::Taken)
    }

    /// Takes a request. Never blocks.
    pub fn take(&self, request: Request) {
        let (reason, text, request) = match self.requests.try_send(request) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(request)) => (0x97, "too many requests wait", request),
            Err(mpsc::error::TrySendError::Closed(request)) => (0x80, "the gateway is stopping", request),
        };
        request.answer.give(Verdict::Refused { reason, text: text.to_owned() });
    }
}
