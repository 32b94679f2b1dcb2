//! One upstream: the task that stands between the gateway's topics and the other side.
//!
//! In: local messages, the link's events, what the store finished, the time. Out: publishes both ways; marks and spool rows
//! for the store. Everything that is decided is decided by `protocols::outbox` and the dialect; here it is carried out.
//! Must never say a slot whose mark is not on disk, never acknowledge a wish that is not settled, and never wait for one
//! side while the other one waits for it.

use std::sync::Arc;
use std::time::Duration;

use mappers::bus::Incoming;
use protocols::config::upstream::Dialect as Kind;
use protocols::dialect::Site;
use protocols::value::Now;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::dialects;
use super::hearing::{BEFORE_STOPPING, DRAIN};
use super::link::{Event, LinkError};
use super::linking::{dialed, heard};
use super::packets::Version;
use super::status::Word;
use super::task::{Beginning, Boot, Dialed, Kept, Order, Stored, Task};
use crate::store::KeptUpstream;

/// From one look at the clock to the next when nothing happens, in milliseconds.
const TURN_MS: u64 = 1000;
/// From one look at whether everything retained was read to the next, in milliseconds.
const BOOT_MS: u64 = 20;
/// How long a clean stop may go on saying what is left.
const LAST_WORDS_MS: u64 = 3_000;

enum Happened {
    Local(Option<Incoming>),
    Link(Result<Event, LinkError>),
    Dialed(Dialed, Option<Version>),
    Stored(Stored),
    Order(Option<Order>),
    Time,
}

/// Brings back what is kept, and runs until it is told to stop.
pub(super) async fn run(beginning: Beginning, orders: mpsc::Receiver<Order>) {
    let name: Arc<str> = beginning.config.name.as_str().into();
    let (tell, told) = oneshot::channel();
    let target = dialects::target(&beginning.config);
    beginning.around.store.load_upstream(&name, target, move |kept| drop(tell.send(kept)));
    let kept = match told.await {
        Ok(Ok(kept)) => kept,
        Ok(Err(error)) => {
            tracing::error!(upstream = %name, %error, "what was kept for it cannot be read; everything is said again");
            KeptUpstream::default()
        }
        // the store is being closed
        Err(_) => return,
    };
    let dialect = dialects::make(&beginning.config, kept.memory);
    let kept = Kept { marks: kept.marks, spool: kept.spool };
    Task::new(beginning, name, dialect, kept).run(orders).await;
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        self.listen().await;
        loop {
            let wake = self.work();
            if self.is_finished() {
                return self.finish().await;
            }
            let wake = self.around.clock.instant(wake);
            // No branch loses anything when another wins: queues and sockets keep what was not taken.
            let happened = tokio::select! {
                order = orders.recv() => Happened::Order(order),
                Some(stored) = self.from_store.recv() => Happened::Stored(stored),
                (dialed, version) = dialed(&mut self.dialing) => Happened::Dialed(dialed, version),
                event = heard(&mut self.link) => Happened::Link(event),
                incoming = self.bus.incoming.recv() => Happened::Local(incoming),
                () = tokio::time::sleep_until(wake) => Happened::Time,
            };
            match happened {
                Happened::Local(None) => return self.finish().await,
                Happened::Local(Some(incoming)) => self.on_local_messages(incoming),
                Happened::Link(event) => self.on_link_events(event),
                Happened::Dialed(dialed, version) => self.on_dialed(dialed, version),
                Happened::Stored(stored) => self.on_stored(stored),
                Happened::Order(Some(Order::Site(site))) => self.on_site(site).await,
                Happened::Order(Some(Order::Stop) | None) => self.on_stop(),
                Happened::Time => {}
            }
        }
    }

    /// What the link said, and what else came with it: a turn for each of many PUBACKs would cost more than what it settles.
    fn on_link_events(&mut self, first: Result<Event, LinkError>) {
        let (mut event, mut left) = (first, DRAIN);
        loop {
            match event {
                Ok(Event::Message(message, id)) => self.on_message(&message, id),
                Ok(Event::Acked(id, outcome)) => self.on_acked(id, outcome),
                Err(error) => return self.lose(Some(&error.to_string())),
            }
            left -= 1;
            let next = self.link.as_mut().filter(|_| left > 0).and_then(|link| link.ready().transpose());
            match next {
                Some(next) => event = next,
                None => return,
            }
        }
    }

    async fn on_site(&mut self, site: Site) {
        self.site = site;
        self.read_again();
        if self.is_inside {
            self.dialect.disconnected();
            let publishes = self.dialect.connected(&self.site, true, self.now());
            self.say_free(publishes);
        } else if !matches!(self.config.dialect, Kind::Plain { .. }) {
            self.redial("the devices have changed").await;
        }
    }

    fn on_stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let sent = self.bus.out.try_send(self.marker(BEFORE_STOPPING)).is_ok();
        self.stopping = Some((self.now().tick + LAST_WORDS_MS, !sent));
    }

    fn is_finished(&self) -> bool {
        let Some((deadline, seen)) = self.stopping else { return false };
        let is_quiet = seen && self.outbound.is_empty() && self.flights.is_empty() && self.engine.is_synced();
        self.now().tick >= deadline || !self.is_up() || is_quiet
    }

    /// Goodbye, and everything to the disk.
    async fn finish(mut self) {
        if let Some(dialing) = self.dialing.take() {
            dialing.task.abort();
        }
        if let Some(link) = self.link.take() {
            // an upstream that goes while the gateway stays leaves its will, so that nobody over there waits for it
            if self.said_offline() {
                link.goodbye().await
            } else {
                link.leave().await
            }
            self.unlink();
        }
        let (tell, told) = oneshot::channel();
        let writes = self.last_writes();
        self.around.store.write_upstream(&self.name, writes, Some(Box::new(move |result| drop(tell.send(result)))));
        if !matches!(tokio::time::timeout(Duration::from_secs(5), told).await, Ok(Ok(Ok(())))) {
            warn!(upstream = %self.name, "what it had said is not on disk; some of it is said again");
        }
        self.standing.word = Word::Stopped;
        self.tell(self.now());
    }

    /// Whether the other side has the gateway's own word that it is gone.
    fn said_offline(&self) -> bool {
        let slot = protocols::outbox::Slot::Gateway;
        let content = self.engine.content(&slot).filter(|_| !self.engine.is_dirty(&slot));
        let status = content.and_then(|content| serde_json::from_slice::<protocols::value::Value>(content).ok());
        status.is_some_and(|status| status["state"] == "offline")
    }

    /// One turn: store, say, look. Gives the tick of the next turn at the latest.
    fn work(&mut self) -> u64 {
        let now = self.now();
        self.store_marks(now);
        self.store_spool(now);
        self.knock(now);
        if self.boot != Boot::Done || now.tick >= self.ticked_at + TURN_MS {
            self.look_at_the_broker();
        }
        let mut wake = now.tick + if self.boot == Boot::Done { TURN_MS } else { BOOT_MS };
        if self.boot == Boot::Done && self.dialing.is_none() && !self.is_up() && self.stopping.is_none() {
            if self.config.url.is_none() {
                self.enter();
            } else if now.tick >= self.dial_at {
                self.dial();
            }
            wake = wake.min(self.dial_at.max(now.tick + 1));
        }
        if let Some(due) = self.pending.values().map(|pending| pending.due).min() {
            wake = wake.min(due.max(now.tick + 1));
        }
        if let Some(due) = self.say(now) {
            wake = wake.min(due.max(now.tick + 1));
        }
        if self.is_up() && now.tick >= self.ticked_at + TURN_MS {
            self.tick(now);
        }
        if now.tick >= self.ticked_at + TURN_MS {
            self.ticked_at = now.tick;
            self.tell(now);
        } else {
            self.turn_word(now);
        }
        self.remember();
        wake.min(self.ticked_at + TURN_MS).max(now.tick + 1)
    }

    fn tick(&mut self, now: Now) {
        let publishes = self.dialect.tick(&self.site, now);
        self.say_free(publishes);
        let noticed = self.dialect.noticed(now);
        self.on_heard(noticed, 0, now);
        if self.ends_at.is_some_and(|end| now.tick >= end) {
            self.ends_at = None;
            info!(upstream = %self.name, "the token ends; the link is made anew");
            if let Some(link) = self.link.take() {
                tokio::spawn(link.goodbye());
            }
            self.unlink();
            self.dial_at = now.tick;
        }
    }
}
