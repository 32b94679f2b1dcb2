//! What systemd is told: that the gateway serves, how it stands, and that it is alive.
//!
//! In: how the gateway stands, from whoever runs it; the environment of a unit with `Type=notify`. Out: words on the
//! service manager's socket; nothing where there is none. Must never say "alive" on behalf of a room that stands still:
//! every ping is preceded by an answer of the broker's engine, the store's thread and the twins' thread.

use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::store::Store;
use crate::twin::Twins;

/// Pings in the time the service manager allows between two of them: one may be late and one lost before it acts.
const PINGS: u32 = 3;

/// The least time between two pings; a shorter watchdog is not kept.
const LEAST: Duration = Duration::from_millis(10);

/// The rooms whose answers a ping stands for.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    /// The broker; what answers is its engine, behind whose lock every message goes.
    pub(crate) broker: Arc<Broker>,
    /// The store; what answers is the thread that writes.
    pub(crate) store: Arc<Store>,
    /// The twins; what answers is the thread that holds them, after all requests before.
    pub(crate) twins: Arc<Twins>,
}

impl Rooms {
    /// Asks all of them and waits for as long as it takes; who has not answered after `patience` is named in the log.
    /// `false` when one of them will never answer again.
    async fn answer(&self, patience: Duration) -> bool {
        let (store, store_heard) = oneshot::channel();
        self.store.beat(store);
        let (twins, twins_heard) = oneshot::channel();
        self.twins.beat(twins);
        let (engine, engine_heard) = oneshot::channel();
        let broker = Arc::clone(&self.broker);
        // It may have to wait for a lock, which must not hold up a thread that others need.
        tokio::task::spawn_blocking(move || {
            if broker.beats() {
                // Nobody waits any more when the gateway is being stopped.
                let _ = engine.send(());
            }
        });
        let answers = tokio::join!(
            hear("broker", engine_heard, patience),
            hear("store", store_heard, patience),
            hear("twins", twins_heard, patience),
        );
        answers == (true, true, true)
    }
}

async fn hear(room: &'static str, mut heard: oneshot::Receiver<()>, patience: Duration) -> bool {
    let asked = Instant::now();
    let answer = match timeout(patience, &mut heard).await {
        Ok(answer) => answer,
        Err(_) => {
            tracing::error!(room, "stands still; the service manager hears nothing until it goes on");
            let answer = heard.await;
            let elapsed_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(room, elapsed_ms, answered = answer.is_ok(), "the wait is over");
            answer
        }
    };
    answer.is_ok()
}

/// Pings the service manager for as long as all rooms answer, until `stop`. Returns at once where nobody wants pings.
pub(crate) async fn keep_alive(rooms: Rooms, stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return };
    let period = (limit / PINGS).max(LEAST);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pings = async {
        loop {
            ticks.tick().await;
            if !rooms.answer(period).await {
                tracing::error!("a room has ended; the service manager hears nothing more and starts the gateway anew");
                return;
            }
            tell(&[NotifyState::Watchdog]);
        }
    };
    tokio::select! {
        // A ping that is being made is not needed any more.
        () = stop.cancelled() => {}
        () = pings => {}
    }
}

/// The gateway serves: the store is open, and clients can come in. Also the end of a reload.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The files are being read again.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        // Without its time systemd would take the word for a mistake.
        Err(error) => tracing::debug!(%error, "no monotonic clock"),
    }
}

/// The gateway is being stopped.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// How the gateway stands, in one line, for `systemctl status`.
pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

fn tell(words: &[NotifyState<'_>]) {
    static SAID: Once = Once::new();
    if let Err(error) = sd_notify::notify(words) {
        SAID.call_once(|| tracing::warn!(%error, "the service manager cannot be told how the gateway stands"));
    }
}
