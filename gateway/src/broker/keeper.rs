//! Housekeeping: wills that are due, sessions and messages that expire, the broker's own figures under `$SYS`.
//!
//! In: the time. Out: changes of the engine. Must never be what a message waits for.

use std::sync::Arc;
use std::time::Duration;

use super::message::Message;
use super::shared::Shared;

/// How late a will or the end of a session may be.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two looks for expired retained messages.
const SWEEP_TICKS: u64 = 240;
/// Ticks between two rounds of figures: 10 s.
const FIGURES_TICKS: u64 = 40;

/// Runs until the broker stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for tick in 0u64.. {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let sweep = tick % SWEEP_TICKS == SWEEP_TICKS - 1;
        shared.act(|core, fx| core.on_time(sweep, fx));
        if tick % FIGURES_TICKS == 0 {
            figures(&shared);
        }
    }
}

fn figures(shared: &Shared) {
    let stats = shared.stats();
    let version = concat!("tidegate ", env!("CARGO_PKG_VERSION"));
    let list = [
        ("version", version.to_owned()),
        ("uptime", shared.clock.uptime_s().to_string()),
        ("clients/connected", stats.clients.to_string()),
        ("clients/disconnected", stats.sessions.saturating_sub(stats.clients).to_string()),
        ("subscriptions/count", stats.subscriptions.to_string()),
        ("retained messages/count", stats.retained.to_string()),
        ("messages/received", stats.messages_in.to_string()),
        ("messages/sent", stats.messages_out.to_string()),
        ("messages/dropped", stats.dropped.queue_full.to_string()),
        ("bytes/received", stats.bytes_in.to_string()),
        ("bytes/sent", stats.bytes_out.to_string()),
    ];
    shared.act(|core, fx| {
        for (name, value) in list {
            let mut message = Message::new(&format!("$SYS/broker/{name}"), &[], value.as_bytes());
            message.retain = true;
            message.kept = false;
            // the gateway's own words have no bound of retained messages
            let _ = core.publish(message, fx);
        }
    });
}
