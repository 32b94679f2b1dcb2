//! The way to the other side: made, lost, made anew.
//!
//! In: the time, attempts that ended, errors of the link. Out: a link that is up, or a pause before the next attempt. Must never
//! try twice at once, nor leave anything of a lost link in flight.

use std::hash::{BuildHasher, RandomState};

use protocols::config::upstream::Upstream;
use protocols::value::Now;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::dial::Plan;
use super::link::{self, Event, Link, LinkError};
use super::packets::Version;
use super::status::Word;
use super::task::{Dialed, Dialing, Task};

impl Task {
    /// Ends the link in peace and makes it anew at once.
    pub(super) async fn redial(&mut self, why: &str) {
        if let Some(link) = self.link.take() {
            info!(upstream = %self.name, why, "the link is made anew");
            link.goodbye().await;
            self.unlink();
        }
        self.dial_at = self.now().tick;
    }

    /// The embedded broker is the other side.
    pub(super) fn enter(&mut self) {
        self.is_inside = true;
        let now = self.now();
        self.standing.connects += 1;
        self.standing.protocol = Some("inside");
        self.generation += 1;
        self.come_up(true, now);
    }

    pub(super) fn dial(&mut self) {
        let now = self.now();
        let session = self.dialect.session(&self.site);
        let fixed = self.config.mqtt.or(session.version);
        let version = match fixed {
            Some(4) => Version::V4,
            Some(_) => Version::V5,
            None => self.version,
        };
        let plan = Plan {
            upstream: Upstream::clone(&self.config),
            session,
            gateway: self.site.gateway.to_string(),
            base: self.around.base.clone(),
            version,
            wall: now.wall,
        };
        let subscriptions = self.dialect.subscriptions(&self.site);
        let (tell, told) = oneshot::channel();
        let is_fixed = fixed.is_some();
        let task = tokio::spawn(async move {
            let (dialed, next) = try_once(plan, subscriptions, is_fixed).await;
            // nobody waits any more when the upstream is stopped
            drop(tell.send((dialed, next)));
        });
        self.dialing = Some(Dialing { told, task });
    }

    pub(super) fn on_dialed(&mut self, dialed: Dialed, next: Option<Version>) {
        self.dialing = None;
        let now = self.now();
        if let Some(next) = next {
            self.version = next;
        }
        let (link, lasts) = match dialed {
            Ok(linked) => linked,
            Err(error) => return self.lose(Some(&error)),
        };
        let resumed = link.welcome.session_present;
        let protocol = if link.version() == Version::V5 { "5" } else { "3.1.1" };
        info!(upstream = %self.name, protocol, resumed, "connected");
        self.backoff.connected(now.tick);
        self.ends_at = lasts.map(|lasts| now.tick + mappers::clock::millis(lasts));
        self.generation += 1;
        self.standing.connects += 1;
        self.standing.protocol = Some(protocol);
        self.standing.last_contact = Some(now.wall);
        self.standing.last_error = None;
        self.link = Some(link);
        self.come_up(resumed, now);
    }

    pub(super) fn come_up(&mut self, resumed: bool, now: Now) {
        let publishes = self.dialect.connected(&self.site, resumed, now);
        self.say_free(publishes);
        self.engine.link_up(now);
        self.spool.link_up(now);
        self.standing.since = now.wall;
        self.standing.word = Word::Syncing;
        self.tell(now);
    }

    /// The link is gone, or did not come to be.
    pub(super) fn lose(&mut self, error: Option<&str>) {
        let now = self.now();
        let was_up = self.link.take().is_some();
        let error = error.unwrap_or("the link is gone");
        if was_up || self.standing.last_error.as_deref() != Some(error) {
            warn!(upstream = %self.name, error, "not connected");
        }
        self.standing.last_error = Some(error.to_owned());
        self.unlink();
        let wait_ms = self.backoff.failed(RandomState::new().hash_one(now.tick), now.tick);
        self.dial_at = now.tick + wait_ms;
        if was_up || self.standing.word == Word::Connecting {
            self.standing.since = now.wall;
        }
        self.standing.word = Word::Away;
        self.tell(now);
    }

    /// What was on its way is not any more.
    pub(super) fn unlink(&mut self) {
        let now = self.now();
        self.outbound.clear();
        self.flights.clear();
        self.batches.clear();
        self.sendings.clear();
        self.tokens.clear();
        self.dialect.disconnected();
        self.engine.link_down(now);
        self.spool.link_down(now);
        self.ends_at = None;
    }
}

pub(super) async fn dialed(dialing: &mut Option<Dialing>) -> (Dialed, Option<Version>) {
    match dialing {
        Some(dialing) => match (&mut dialing.told).await {
            Ok(told) => told,
            Err(_) => (Err("the attempt to connect was given up".to_owned()), None),
        },
        None => std::future::pending().await,
    }
}

pub(super) async fn heard(link: &mut Option<Link>) -> Result<Event, LinkError> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

/// One attempt; also tells which version to try next, unless it is fixed.
async fn try_once(plan: Plan, subscriptions: Vec<(String, u8)>, is_fixed: bool) -> (Dialed, Option<Version>) {
    let made = tokio::task::spawn_blocking(move || plan.dial()).await;
    let (mut dial, lasts) = match made {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => return (Err(error.to_string()), None),
        Err(error) => return (Err(error.to_string()), None),
    };
    let mut outcome = link::connect(&dial).await;
    let mut next = None;
    if matches!(outcome, Err(LinkError::Version)) && !is_fixed && dial.version == Version::V5 {
        dial.version = Version::V4;
        next = Some(Version::V4);
        outcome = link::connect(&dial).await;
    }
    let mut link = match outcome {
        Ok(link) => link,
        // brokers from before version 5 may just close; the next attempt tries the other one
        Err(error @ (LinkError::Closed | LinkError::Broken(_))) if !is_fixed => {
            let other = if dial.version == Version::V5 { Version::V4 } else { Version::V5 };
            return (Err(error.to_string()), Some(other));
        }
        Err(error) => return (Err(error.to_string()), next),
    };
    match link.subscribe(&subscriptions).await {
        Ok(()) => (Ok((link, lasts)), next),
        Err(error) => (Err(error.to_string()), next),
    }
}
