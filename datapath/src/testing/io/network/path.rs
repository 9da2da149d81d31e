//! What happens to one end of a connection, and how its bytes get to the other.

use super::{Event, Happening, State, WINDOW};
use crate::io::{Completion, ConnectionId, Loss, PathSeen, SendBuffer};
use crate::time::{Duration, Instant};

/// Bytes that a path with a rate takes at a time.
const SEGMENT_LEN: usize = 1_448;

/// What lies between a sender and the other end, in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Bytes a second that it takes; what comes faster stands in it.
    pub rate: u64,
    /// Bytes that the sender's congestion control lets be under way, and acknowledged by nobody; what
    /// is beyond is unsent. `None`: as many as the path takes at once, so that nothing stands in it.
    pub flight_len_max: Option<usize>,
}

/// Bytes on their way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unacked {
    /// When the other end's acknowledgement comes.
    at: Instant,
    len: usize,
    /// How long it took by then.
    rtt: Duration,
}

/// How long a path of `rate` bytes a second is busy with `len` bytes.
fn time_for(len: usize, rate: u64) -> Duration {
    Duration::from_nanos(len as u64 * 1_000_000_000 / rate)
}

/// What it takes in that time.
fn bytes_in(time: Duration, rate: u64) -> usize {
    usize::try_from(time.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(usize::MAX)
}

impl State {
    // What happens to one end.

    pub(super) fn happen(&mut self, number: usize, event: Event) {
        match event {
            Event::Syn(to) => return self.syn(number, to),
            Event::Continue => {
                if let Some(end) = self.end(number) {
                    end.held_up = false;
                }
                return self.pump(number);
            }
            _ => {}
        }
        let Some(end) = self.end(number) else { return };
        match event {
            Event::Bytes(bytes) => {
                if end.closed {
                    // As the kernel answers bytes for a socket that nobody has.
                    if let Some(other) = end.other {
                        self.transmit(other, Event::Broken(Loss::Reset));
                    }
                    return;
                }
                end.readable.extend(bytes);
            }
            Event::Fin => {
                end.ending.get_or_insert(Loss::Finished);
            }
            Event::Broken(loss) => self.break_end(number, loss),
            Event::Answer(result) => {
                end.connecting = false;
                self.tell(number, |connection| Completion::Connected {
                    connection,
                    result,
                });
                if result.is_err() {
                    self.leave(number);
                    self.ends[number] = None;
                }
            }
            Event::Syn(_) | Event::Continue => {}
        }
        self.mark_ready(number);
        self.forget_if_done(number);
    }

    pub(super) fn break_end(&mut self, number: usize, loss: Loss) {
        let Some(end) = self.end(number) else { return };
        end.broken = Some(loss);
        end.other = None;
        if !end.ended && end.ending != Some(Loss::Finished) {
            end.ending = Some(loss);
        }
        if let Some((buffer, _)) = end.sending.take() {
            self.tell(number, |connection| Completion::Sent {
                connection,
                buffer,
                result: Err(loss),
            });
        }
        self.mark_ready(number);
        self.forget_if_done(number);
    }

    /// Drops an end that was closed and has nothing left to do.
    pub(super) fn forget_if_done(&mut self, number: usize) {
        let Some(end) = self.end(number) else { return };
        if !end.closed || end.sending.is_some() {
            return;
        }
        let (other, gone) = (end.other, end.broken.is_some());
        self.leave(number);
        // An orderly end stays until the other goes too: late bytes must find it.
        let other_stays = other.is_some_and(|other| {
            self.end(other)
                .is_some_and(|end| !(end.closed && end.sending.is_none()))
        });
        if gone || !other_stays {
            self.ends[number] = None;
            if let Some(other) = other {
                self.forget_if_done(other);
            }
        }
    }

    /// Ends an end at once with a reset to the other.
    pub(super) fn abandon(&mut self, number: usize) {
        let Some(end) = self.end(number) else { return };
        let other = end.other;
        self.leave(number);
        self.ends[number] = None;
        if let Some(other) = other {
            self.transmit(other, Event::Broken(Loss::Reset));
        }
    }

    // Sending.

    pub(in crate::testing::io) fn send(
        &mut self,
        host: usize,
        connection: ConnectionId,
        buffer: SendBuffer,
    ) {
        let refuse = |state: &mut Self, buffer, result| {
            state.hosts[host].told.push(Completion::Sent {
                connection,
                buffer,
                result,
            });
        };
        let Some(number) = self.find(host, connection) else {
            return refuse(self, buffer, Err(Loss::Reset));
        };
        let reset = self.rng.chance(self.faults.reset_per_mille);
        let half_close = self.rng.chance(self.faults.half_close_per_mille);
        let Some(end) = self.end(number) else { return };
        assert!(end.sending.is_none(), "one send a connection");
        assert!(
            !end.connecting,
            "a send on a connection that does not stand"
        );
        assert!(
            buffer.start <= buffer.end && buffer.end <= buffer.bytes.len(),
            "a send within its buffer"
        );
        if let Some(loss) = end.broken {
            return refuse(self, buffer, Err(loss));
        }
        if end.fin_sent {
            return refuse(self, buffer, Err(Loss::Reset));
        }
        let start = buffer.start;
        end.sending = Some((buffer, start));
        let other = end.other;
        if reset {
            self.break_end(number, Loss::Reset);
            if let Some(other) = other {
                self.transmit(other, Event::Broken(Loss::Reset));
            }
            return;
        }
        self.pump(number);
        if half_close && let Some(other) = other {
            self.transmit(other, Event::Fin);
            if let Some(end) = self.end(number) {
                end.swallowed = true;
            }
        }
    }

    /// Moves what fits of an end's send on its way.
    pub(super) fn pump(&mut self, number: usize) {
        loop {
            let short = self.rng.chance(self.faults.short_write_per_mille);
            let Some(end) = self.end(number) else { return };
            let (other, swallowed, held_up) = (end.other, end.swallowed, end.held_up);
            let Some((buffer, position)) = end.sending.take() else {
                return;
            };
            if position == buffer.end {
                return self.finish_send(number, buffer);
            }
            let unread = other
                .and_then(|other| self.end(other))
                .map_or(0, |other| other.unread);
            let end = self.end(number);
            let path = end.and_then(|end| end.path);
            // What is on its way is not yet in the receiver's buffer.
            let window = WINDOW + path.and_then(|path| path.flight_len_max).unwrap_or(0);
            let mut len = (buffer.end - position).min(window.saturating_sub(unread));
            if path.is_some() {
                len = len.min(SEGMENT_LEN);
            }
            // Linux asks when a send begins, and makes one skb of all of it (MSG_EOR keeps the next out).
            let wait = (position == buffer.start).then(|| self.wait_for_path(number));
            if let Some(wait) = wait.flatten().filter(|_| !held_up) {
                if let Some(end) = self.end(number) {
                    end.sending = Some((buffer, position));
                    end.held_up = true;
                }
                let at = self.clock.now() + wait;
                self.schedule(at, Happening::End(number, Event::Continue));
                return;
            }
            let wait =
                (path.is_some() && len > 0 && !held_up).then(|| self.wait_for_limit(number, len));
            if let Some(wait) = wait.flatten() {
                if let Some(end) = self.end(number) {
                    end.sending = Some((buffer, position));
                    end.held_up = true;
                }
                let at = self.clock.now() + wait;
                self.schedule(at, Happening::End(number, Event::Continue));
                return;
            }
            let short = short && len > 1;
            if short {
                len = 1 + self.rng.index(len - 1);
            }
            if len == 0 || held_up {
                if let Some(end) = self.end(number) {
                    end.sending = Some((buffer, position));
                }
                return;
            }
            if let Some(other) = other.filter(|_| !swallowed) {
                let bytes = buffer.bytes[position..position + len].to_vec();
                if let Some(end) = self.end(other) {
                    end.unread += len;
                }
                self.load_path(number, len);
                self.transmit(other, Event::Bytes(bytes));
                self.await_ack(number, other, len);
            }
            if let Some(end) = self.end(number) {
                end.sending = Some((buffer, position + len));
                end.held_up = short;
            }
            if short {
                let at = self.clock.now() + self.rng.duration(&self.faults.delay);
                self.schedule(at, Happening::End(number, Event::Continue));
                return;
            }
        }
    }

    /// How long until the end's kernel takes the next send, if it does not now.
    fn wait_for_path(&mut self, number: usize) -> Option<Duration> {
        let now = self.clock.now();
        self.take_acks(number);
        let end = self.end(number)?;
        let path = end.path?;
        let Some(flight_len_max) = path.flight_len_max else {
            let unsent = bytes_in(end.free_at.saturating_since(now), path.rate);
            let is_full = unsent >= end.unsent_limit;
            return is_full.then(|| time_for(unsent - end.unsent_limit / 2, path.rate));
        };
        let held: usize = end.unacked.iter().map(|unacked| unacked.len).sum();
        if held.saturating_sub(flight_len_max) < end.unsent_limit {
            return None;
        }
        let mut excess = held - flight_len_max - end.unsent_limit / 2;
        let freeing = end.unacked.iter().find(|unacked| {
            excess = excess.saturating_sub(unacked.len);
            excess == 0
        });
        freeing.map(|unacked| unacked.at.saturating_since(now))
    }

    /// Takes note of the acknowledgements that have come.
    fn take_acks(&mut self, number: usize) {
        let now = self.clock.now();
        let Some(end) = self.end(number) else { return };
        while let Some(acked) = end.unacked.pop_front_if(|unacked| unacked.at <= now) {
            let before = end
                .seen
                .map_or((acked.rtt, 0), |seen| (seen.rtt_min, seen.acked));
            end.seen = Some(PathSeen {
                rtt: acked.rtt,
                rtt_min: acked.rtt.min(before.0),
                acked: before.1 + acked.len as u64,
                is_filled: false,
                retransmitted: 0,
                is_recovering: false,
            });
        }
    }

    /// How long until the limit of the end lets it send again; none: now. Then `len` bytes go out.
    fn wait_for_limit(&mut self, number: usize, len: usize) -> Option<Duration> {
        let now = self.clock.now();
        let end = self.end(number)?;
        if end.next_at > now {
            return Some(end.next_at.saturating_since(now));
        }
        if end.rate_limit != u64::MAX {
            end.next_at = now + time_for(len, end.rate_limit);
        }
        None
    }

    pub(in crate::testing::io) fn path_seen(
        &mut self,
        host: usize,
        id: ConnectionId,
    ) -> Option<PathSeen> {
        let number = self.find(host, id)?;
        self.take_acks(number);
        let end = self.end(number)?;
        let unacked: usize = end.unacked.iter().map(|unacked| unacked.len).sum();
        let flight_len_max = end.path?.flight_len_max?;
        end.seen.map(|seen| PathSeen {
            is_filled: unacked * 2 > flight_len_max,
            ..seen
        })
    }

    pub(in crate::testing::io) fn set_rate_limit(
        &mut self,
        host: usize,
        id: ConnectionId,
        rate: u64,
    ) {
        if let Some(number) = self.find(host, id)
            && let Some(end) = self.end(number)
        {
            end.rate_limit = rate.max(1);
        }
    }

    fn load_path(&mut self, number: usize, len: usize) {
        let now = self.clock.now();
        if let Some(end) = self.end(number)
            && let Some(path) = end.path
        {
            end.free_at = end.free_at.max(now) + time_for(len, path.rate);
        }
    }

    /// `len` bytes went to `other` last, which will say so.
    fn await_ack(&mut self, number: usize, other: usize, len: usize) {
        let (now, delay) = (self.clock.now(), *self.faults.delay.start());
        let arrival = self.end(other).map(|other| other.last_arrival);
        if let Some(end) = self.end(number)
            && let Some(arrival) = arrival
            && end.path.is_some_and(|path| path.flight_len_max.is_some())
        {
            let at = arrival + delay;
            let rtt = at.saturating_since(now);
            end.unacked.push_back(Unacked { at, len, rtt });
        }
    }

    pub(in crate::testing::io) fn set_path(
        &mut self,
        host: usize,
        id: ConnectionId,
        path: Option<Path>,
    ) {
        if let Some(number) = self.find(host, id)
            && let Some(end) = self.end(number)
        {
            end.path = path;
            end.unacked.clear();
            end.seen = None;
        }
    }

    pub(in crate::testing::io) fn set_unsent_limit(
        &mut self,
        host: usize,
        id: ConnectionId,
        bytes: usize,
    ) {
        if let Some(number) = self.find(host, id)
            && let Some(end) = self.end(number)
        {
            end.unsent_limit = bytes;
        }
    }

    pub(super) fn finish_send(&mut self, number: usize, buffer: SendBuffer) {
        self.tell(number, |connection| Completion::Sent {
            connection,
            buffer,
            result: Ok(()),
        });
        if self.end(number).is_some_and(|end| end.fin_owed) {
            self.send_fin(number);
        }
        self.forget_if_done(number);
    }

    pub(super) fn send_fin(&mut self, number: usize) {
        let Some(end) = self.end(number) else { return };
        if std::mem::replace(&mut end.fin_sent, true) {
            return;
        }
        if let Some(other) = end.other {
            self.transmit(other, Event::Fin);
        }
    }
}
