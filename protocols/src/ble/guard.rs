//! What tells a new packet from a repeated, a replayed and a forged one: a state machine for each sender.
//!
//! In: packets whose tag was proved, and the tick. Out: whether to believe them. Must never move its counter for a
//! packet that was not proved, and never believe clear text from a device that encrypts.

use std::collections::VecDeque;

use super::decode::Packet;
use super::outcome::Outcome;

/// A counter below this may follow a higher one: the device has had its battery changed. Any other counter that does not
/// grow is a replay. What is given up: whoever has recorded a device's first hundred packets can play them to it again.
pub const RESTART_BELOW: u64 = 100;

/// How far ahead a packet's number may be to count as newer, when numbers go round in eight bits.
const AHEAD: u8 = 63;

/// The payloads that are remembered; a device that sends more different ones in turn is heard twice now and then.
const PAYLOADS: usize = 8;

/// How repeated packets are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// By the packet's own number where it has one; else by its bytes.
    pub by_packet_id: bool,
    /// How long a packet is remembered, in milliseconds; 0 remembers nothing.
    pub window_ms: u64,
}

impl Default for Dedupe {
    fn default() -> Self {
        Self { by_packet_id: true, window_ms: 4_000 }
    }
}

/// The memory of one sender.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    counter: Option<u64>,
    proved: Vec<u8>,
    encrypts: bool,
    packet: Option<(u8, u64)>,
    payloads: VecDeque<(Vec<u8>, u64)>,
}

impl Guard {
    /// The counter of the last packet that was proved, for whoever keeps it over a restart.
    pub fn counter(&self) -> Option<u64> {
        self.counter
    }

    /// Takes up a counter that was kept: nothing that was believed before is believed again, nor is clear text.
    pub fn resume(&mut self, counter: u64) {
        self.encrypts = true;
        self.counter = self.counter.max(Some(counter));
    }

    /// Takes note of an encrypted packet that could not be opened for want of a key.
    pub fn on_closed(&mut self) {
        self.encrypts = true;
    }

    /// Judges a packet that was read.
    ///
    /// # Errors
    /// [`Outcome::Downgraded`], [`Outcome::Replayed`] or [`Outcome::Duplicate`]: what it is instead of new.
    pub fn judge(
        &mut self,
        packet: &Packet,
        dedupe: Dedupe,
        requires_encryption: bool,
        tick: u64,
    ) -> Result<(), Outcome> {
        if !packet.is_encrypted && (requires_encryption || self.encrypts) {
            return Err(Outcome::Downgraded);
        }
        self.encrypts |= packet.is_encrypted;
        if let Some(counter) = packet.counter {
            self.count(counter, &packet.payload)?;
        }
        match packet.packet_id.filter(|_| dedupe.by_packet_id) {
            Some(id) => self.number(id, dedupe.window_ms, tick),
            None => self.bytes(&packet.payload, dedupe.window_ms, tick),
        }
    }

    fn count(&mut self, counter: u64, payload: &[u8]) -> Result<(), Outcome> {
        if let Some(last) = self.counter {
            if counter == last {
                // The radio repeats a packet many times; the same bytes are no attack.
                return Err(if self.proved == payload { Outcome::Duplicate } else { Outcome::Replayed });
            }
            if counter < last && (counter >= RESTART_BELOW || last < RESTART_BELOW) {
                return Err(Outcome::Replayed);
            }
        }
        self.counter = Some(counter);
        self.proved = payload.to_vec();
        Ok(())
    }

    fn number(&mut self, id: u8, window_ms: u64, tick: u64) -> Result<(), Outcome> {
        let recent = self.packet.filter(|(_, at)| tick.saturating_sub(*at) < window_ms);
        if recent.is_some_and(|(last, _)| !(1..=AHEAD).contains(&id.wrapping_sub(last))) {
            return Err(Outcome::Duplicate);
        }
        self.packet = Some((id, tick));
        Ok(())
    }

    fn bytes(&mut self, payload: &[u8], window_ms: u64, tick: u64) -> Result<(), Outcome> {
        self.payloads.retain(|(_, at)| tick.saturating_sub(*at) < window_ms);
        if self.payloads.iter().any(|(known, _)| known == payload) {
            return Err(Outcome::Duplicate);
        }
        if window_ms > 0 {
            self.payloads.truncate(PAYLOADS - 1);
            self.payloads.push_front((payload.to_vec(), tick));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(counter: Option<u64>, packet_id: Option<u8>, payload: &str) -> Packet {
        Packet { counter, packet_id, is_encrypted: counter.is_some(), payload: payload.into(), ..Packet::default() }
    }

    fn check(requires: bool, dedupe: Dedupe, steps: &[(u64, Packet, Result<(), Outcome>)]) {
        let mut guard = Guard::default();
        for (tick, packet, expected) in steps {
            assert_eq!(guard.judge(packet, dedupe, requires, *tick), *expected, "at {tick}: {packet:?}");
        }
    }

    /// The rules are those of `bthome-ble`, with one more: inside its first hundred a counter never goes back.
    #[test]
    fn a_counter_that_does_not_grow_is_a_replay() {
        let sealed = |counter, payload| packet(Some(counter), None, payload);
        let steps = [
            (0, sealed(1_000, "a"), Ok(())),
            (1, sealed(1_000, "a"), Err(Outcome::Duplicate)),
            (2, sealed(1_000, "b"), Err(Outcome::Replayed)),
            (3, sealed(999, "c"), Err(Outcome::Replayed)),
            (60_000, sealed(100, "d"), Err(Outcome::Replayed)),
            (60_001, sealed(1_001, "e"), Ok(())),
            // A changed battery.
            (60_002, sealed(3, "f"), Ok(())),
            (60_003, sealed(2, "g"), Err(Outcome::Replayed)),
            (60_004, sealed(4, "h"), Ok(())),
            // The old packets are newer than the new ones now, but the device is heard on.
            (60_005, sealed(u64::from(u32::MAX), "i"), Ok(())),
        ];
        check(false, Dedupe::default(), &steps);
    }

    #[test]
    fn a_counter_that_was_kept_goes_on_where_it_was() {
        let mut guard = Guard::default();
        assert_eq!(guard.counter(), None);
        guard.resume(1_000);
        let sealed = |counter| packet(Some(counter), None, "a");
        let mut judge = |packet: &Packet| guard.judge(packet, Dedupe::default(), false, 0);
        assert_eq!(judge(&sealed(999)), Err(Outcome::Replayed));
        assert_eq!(judge(&sealed(1_000)), Err(Outcome::Replayed), "it was believed before the restart");
        assert_eq!(judge(&packet(None, None, "clear")), Err(Outcome::Downgraded));
        assert_eq!(judge(&sealed(1_001)), Ok(()));
        guard.resume(7);
        assert_eq!(guard.counter(), Some(1_001), "what was kept never takes it back");
    }

    #[test]
    fn clear_text_from_a_device_that_encrypts_is_not_believed() {
        let clear = || packet(None, None, "clear");
        check(true, Dedupe::default(), &[(0, clear(), Err(Outcome::Downgraded))]);
        let steps = [
            (0, clear(), Ok(())),
            (10_000, packet(Some(7), None, "sealed"), Ok(())),
            (20_000, clear(), Err(Outcome::Downgraded)),
            (86_400_000, clear(), Err(Outcome::Downgraded)),
        ];
        check(false, Dedupe::default(), &steps);
        let mut guard = Guard::default();
        guard.on_closed();
        assert_eq!(guard.judge(&clear(), Dedupe::default(), false, 0), Err(Outcome::Downgraded));
    }

    #[test]
    fn a_packet_is_told_once_in_its_window() {
        let id = |id| packet(None, Some(id), "x");
        let steps = [
            (0, id(250), Ok(())),
            (100, id(250), Err(Outcome::Duplicate)),
            (200, id(5), Ok(())),
            // An older packet that a second adapter was late with.
            (300, id(4), Err(Outcome::Duplicate)),
            (400, id(69), Err(Outcome::Duplicate)),
            (500, id(68), Ok(())),
            (4_499, id(68), Err(Outcome::Duplicate)),
            (4_500, id(68), Ok(())),
        ];
        check(false, Dedupe::default(), &steps);
        let bytes = |payload| packet(None, None, payload);
        let steps = [
            (0, bytes("a"), Ok(())),
            (1, bytes("b"), Ok(())),
            (2, bytes("a"), Err(Outcome::Duplicate)),
            (3_999, bytes("b"), Err(Outcome::Duplicate)),
            (4_000, bytes("a"), Ok(())),
        ];
        check(false, Dedupe::default(), &steps);
        let never = Dedupe { by_packet_id: false, window_ms: 0 };
        check(
            false,
            never,
            &[(0, bytes("a"), Ok(())), (0, bytes("a"), Ok(())), (0, id(1), Ok(())), (0, id(1), Ok(()))],
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut guard = Guard::default();
        for number in 0..10_000_u32 {
            let packet = packet(None, None, &number.to_string());
            assert_eq!(guard.judge(&packet, Dedupe::default(), false, 0), Ok(()));
            assert!(guard.payloads.len() <= PAYLOADS);
        }
    }
}
