//! One visit to a device: connect, read, write, subscribe, and let go or stay.
//!
//! In: what is due on which characteristic. Out: what came of each, and the link if it is to be kept. Must never stay
//! longer than its bounds, nor give a device up because of one characteristic that refuses.

use std::time::Duration;

use bytes::Bytes;
use protocols::ble::Mac;
use tokio::sync::mpsc;

use super::radio::{Connector, Held};
use super::transport::{BleError, CharRef, Link, Pairing, WriteKind};

/// How long a visit waits for the first value of a characteristic that only tells by itself.
const FIRST_VALUE: Duration = Duration::from_secs(5);

/// What is done with a characteristic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Its value is read.
    Read,
    /// It is listened to: for one value, or for as long as the link is kept.
    Listen,
    /// These bytes are written.
    Write(Vec<u8>, WriteKind),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// Index of the characteristic in the profile.
    pub(super) index: usize,
    /// Where it is.
    pub(super) at: CharRef,
    /// A device without it is right all the same.
    pub(super) optional: bool,
    /// What is done.
    pub(super) errand: Errand,
}

/// A visit that is to be made.
pub(super) struct Plan {
    /// Whom to connect to.
    pub(super) address: Mac,
    /// How.
    pub(super) pairing: Pairing,
    /// How long connecting may take.
    pub(super) limit: Duration,
    /// Tries to connect after the first.
    pub(super) retries: u32,
    /// What to do there.
    pub(super) tasks: Vec<Task>,
    /// The link is kept.
    pub(super) stays: bool,
}

/// What came of one thing.
pub(super) type Outcome = (usize, Result<Option<Bytes>, BleError>);

/// What came of a visit.
pub(super) struct Visited<L> {
    /// Each thing that was done; missing are those that the device is free not to have, or that were not reached.
    pub(super) outcomes: Vec<Outcome>,
    /// What sends values from now on.
    pub(super) streams: Vec<(usize, mpsc::Receiver<Bytes>)>,
    /// The link, if it was to be kept and holds.
    pub(super) link: Option<Held<L>>,
    /// Why the visit ended before its end.
    pub(super) broken: Option<BleError>,
}

impl<L> Visited<L> {
    fn failed(error: BleError) -> Self {
        Self { outcomes: Vec::new(), streams: Vec::new(), link: None, broken: Some(error) }
    }
}

/// Makes a visit.
pub(super) async fn visit<L: Link>(connector: Connector<L>, plan: Plan) -> Visited<L> {
    let mut tries = 0;
    let link = loop {
        match connector.connect(plan.address, plan.pairing, plan.limit).await {
            Ok(link) => break link,
            Err(error) if tries < plan.retries && !error.is_radio() => {
                tracing::debug!(address = %plan.address, %error, "cannot connect yet");
                tries += 1;
            }
            Err(error) => return Visited::failed(error),
        }
    };
    run(link, plan).await
}

/// Does what is to be done over a link that is there.
pub(super) async fn run<L: Link>(mut link: Held<L>, plan: Plan) -> Visited<L> {
    let mut visited = Visited { outcomes: Vec::new(), streams: Vec::new(), link: None, broken: None };
    if plan.pairing != Pairing::None
        && let Err(error) = link.pair().await
    {
        link.disconnect().await;
        return Visited::failed(error);
    }
    for task in plan.tasks {
        let done = perform(&mut link, &task, plan.stays, &mut visited.streams).await;
        match done {
            Err(BleError::NoCharacteristic(..)) if task.optional => {}
            Err(error) if error.answered() => visited.outcomes.push((task.index, Err(error))),
            Err(error) => {
                visited.broken = Some(error);
                break;
            }
            Ok(value) => visited.outcomes.push((task.index, Ok(value))),
        }
    }
    if plan.stays && visited.broken.is_none() {
        visited.link = Some(link);
    } else {
        visited.streams.clear();
        link.disconnect().await;
    }
    visited
}

async fn perform<L: Link>(
    link: &mut Held<L>,
    task: &Task,
    stays: bool,
    streams: &mut Vec<(usize, mpsc::Receiver<Bytes>)>,
) -> Result<Option<Bytes>, BleError> {
    match &task.errand {
        Errand::Read => link.read(task.at).await.map(Some),
        Errand::Write(bytes, kind) => link.write(task.at, bytes, *kind).await.map(|()| None),
        Errand::Listen => {
            let mut values = link.subscribe(task.at).await?;
            if stays {
                streams.push((task.index, values));
                return Ok(None);
            }
            match tokio::time::timeout(FIRST_VALUE, values.recv()).await {
                Ok(Some(value)) => Ok(Some(value)),
                Ok(None) => Err(BleError::Disconnected("while it was listened to".to_owned())),
                // It tells when it has something to tell, and it had nothing.
                Err(_) => Ok(None),
            }
        }
    }
}
