//! From a published message to the sessions that get it.
//!
//! In: a message. Out: entries in queues, a change of what is retained. Must never give one client two copies of one
//! message for overlapping subscriptions, nor choose an absent member of a shared subscription while another is there.

use std::sync::Arc;

use super::super::message::Message;
use super::super::session::{Effects, Session, Waiting};
use super::super::shelf::Change;
use super::super::tree::{Group, Leaf, Subscriber};
use super::Core;

/// A client that gets the message, and how.
#[derive(Debug)]
pub(super) struct Pick {
    session: u32,
    qos: u8,
    retain: bool,
    ids: Vec<u32>,
    share: Option<Arc<str>>,
}

impl Pick {
    fn new(subscriber: Subscriber, message: &Message, share: Option<Arc<str>>) -> Self {
        Self {
            session: subscriber.session,
            qos: message.qos.min(subscriber.options & 3),
            retain: message.retain && subscriber.options & 8 != 0,
            ids: if subscriber.id > 0 { vec![subscriber.id] } else { Vec::new() },
            share,
        }
    }

    fn waiting(self, message: &Arc<Message>) -> Waiting {
        let mut waiting = Waiting::new(Arc::clone(message), self.qos, self.retain);
        waiting.ids = (!self.ids.is_empty()).then(|| self.ids.into());
        waiting.share = self.share;
        waiting
    }
}

/// The store of retained messages is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct RetainedFull;

type Sessions = [Option<Box<Session>>];

fn find(sessions: &Sessions, at: u32) -> Option<&Session> {
    sessions.get(at as usize)?.as_deref()
}

fn find_mut(sessions: &mut Sessions, at: u32) -> Option<&mut Session> {
    sessions.get_mut(at as usize)?.as_deref_mut()
}

impl Core {
    /// Publishes a message: keeps it if it is to be retained, and hands it to everybody who subscribed.
    ///
    /// # Errors
    /// When one more retained message has no room; then nobody gets it.
    pub(in super::super) fn publish(&mut self, mut message: Message, fx: &mut Effects) -> Result<(), RetainedFull> {
        self.measure.counters.messages_in.add(1);
        if message.retain {
            message.stamp = self.retained.next_stamp();
        }
        let message = Arc::new(message);
        if message.retain {
            self.retain(&message, fx)?;
        }
        self.route(&message, fx);
        Ok(())
    }

    fn retain(&mut self, message: &Message, fx: &mut Effects) -> Result<(), RetainedFull> {
        if message.payload().is_empty() {
            let old = self.retained.remove(message.topic());
            if old == Some(true) {
                fx.changes.push(Change::Unretain(message.topic().to_owned()));
                fx.durable = true;
            }
            return Ok(());
        }
        // what the gateway says about its devices is bounded by its configuration, not here
        if message.author != super::super::message::GATEWAY {
            let (messages, bytes) = self.retained.with(message);
            let limits = &self.measure.limits;
            if messages > limits.retained || bytes > limits.retained_bytes {
                return Err(RetainedFull);
            }
        }
        let old = self.retained.insert(message);
        if message.kept {
            fx.changes.push(Change::Retain(message.to_kept(message.qos, true, &[])));
            fx.durable = true;
        } else if old == Some(true) {
            fx.changes.push(Change::Unretain(message.topic().to_owned()));
        }
        Ok(())
    }

    fn route(&mut self, message: &Arc<Message>, fx: &mut Effects) {
        self.round += 1;
        let Self { tree, sessions, picks, round, measure, .. } = self;
        picks.clear();
        tree.matches(message.topic(), |leaf| pick(leaf, sessions, picks, *round, message));
        for pick in picks.drain(..) {
            if let Some(session) = find_mut(sessions, pick.session) {
                fx.durable |= session.enqueue(pick.waiting(message), fx, measure);
            }
        }
    }

    /// Hands what came through shared subscriptions to other members that are connected.
    pub(super) fn give_on(&mut self, from: u32, waiting: Vec<Waiting>, fx: &mut Effects) {
        for one in waiting {
            let Some((share, filter)) = one.share.as_deref().and_then(shared) else { continue };
            let Self { tree, sessions, measure, .. } = self;
            let chosen = tree
                .group(share, filter)
                .and_then(|group| choose(group, |member| member.session != from && is_here(sessions, member)));
            if let Some(session) = chosen.and_then(|member| find_mut(sessions, member.session)) {
                session.enqueue(one, fx, measure);
            } else {
                measure.counters.dropped_session_ended.add(1);
            }
        }
    }

    /// Whether somebody else of a shared subscription is connected.
    pub(super) fn others(&mut self, from: u32) -> impl FnMut(&str) -> bool {
        let Self { tree, sessions, .. } = self;
        move |text| {
            shared(text).and_then(|(share, filter)| tree.group(share, filter)).is_some_and(|group| {
                group.members.iter().any(|member| member.session != from && is_here(sessions, *member))
            })
        }
    }
}

fn shared(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("$share/")?.split_once('/')
}

fn is_here(sessions: &Sessions, member: Subscriber) -> bool {
    find(sessions, member.session).is_some_and(|session| session.connected.is_some())
}

/// The next member in turn that fits.
fn choose(group: &mut Group, fits: impl Fn(Subscriber) -> bool) -> Option<Subscriber> {
    let count = group.members.len();
    for step in 0..count {
        let at = (group.next + step) % count;
        if let Some(&member) = group.members.get(at)
            && fits(member)
        {
            group.next = (at + 1) % count;
            return Some(member);
        }
    }
    None
}

fn pick(leaf: &mut Leaf, sessions: &mut Sessions, picks: &mut Vec<Pick>, round: u64, message: &Message) {
    for &subscriber in &leaf.subscribers {
        let Some(session) = find_mut(sessions, subscriber.session) else { continue };
        // No Local [MQTT-3.8.3-3]
        if subscriber.options & 4 != 0 && session.serial == message.author {
            continue;
        }
        if session.round == round
            && let Some(pick) = picks.get_mut(session.place)
        {
            pick.qos = pick.qos.max(message.qos.min(subscriber.options & 3));
            pick.retain |= message.retain && subscriber.options & 8 != 0;
            if subscriber.id > 0 {
                pick.ids.push(subscriber.id);
            }
            continue;
        }
        session.round = round;
        session.place = picks.len();
        picks.push(Pick::new(subscriber, message, None));
    }
    for group in &mut leaf.groups {
        let chosen = choose(group, |member| is_here(sessions, member)).or_else(|| choose(group, |_| true));
        if let Some(member) = chosen {
            picks.push(Pick::new(member, message, Some(Arc::clone(&group.text))));
        }
    }
}
