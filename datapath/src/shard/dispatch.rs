//! What a shard does with each thing that happens.

use super::Shard;
use super::edge::ShardEdge;
use super::owner::{Command, Owner};
use super::table::Entry;
use crate::io::{Completion, ConnectionId, Detached, Io, Loss};
use crate::output::Entropy;
use crate::session::event::{Addresses, EndReason, Traffic};
use crate::session::{Disposition, Session};
use crate::time::Instant;

/// Exchanges source and destination; checksums stay right, for they are sums.
pub(super) fn swap_addresses(packet: &mut [u8]) {
    let (at, len) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (12, 4),
        Some(6) => (8, 16),
        _ => return,
    };
    if let Some((source, destination)) = packet
        .get_mut(at..at + 2 * len)
        .and_then(|both| both.split_at_mut_checked(len))
    {
        source.swap_with_slice(destination);
    }
}

impl<I: Io, O: Owner, N: Entropy + Clone> Shard<I, O, N> {
    pub(super) fn dispatch(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted {
                listener,
                connection,
                peer,
            } => {
                self.accept(listener, connection, peer);
            }
            Completion::Connected { connection, result } => {
                self.drive(connection, |session, now, edge| match result {
                    Ok(()) => session.connected(now, edge),
                    Err(loss) => session.connect_failed(loss, edge),
                });
            }
            Completion::Received {
                connection,
                mut buffer,
            } => {
                let len = buffer.len;
                if let Some(bytes) = buffer.bytes.get_mut(..len) {
                    self.drive(connection, |session, now, edge| {
                        session.receive(now, bytes, edge)
                    });
                }
                self.io.release(buffer);
            }
            Completion::ReceivedControl {
                connection,
                content_type,
                mut buffer,
            } => {
                let len = buffer.len;
                if let Some(bytes) = buffer.bytes.get_mut(..len) {
                    self.drive(connection, |session, now, edge| {
                        session.receive_control(now, content_type, bytes, edge)
                    });
                }
                self.io.release(buffer);
            }
            Completion::ReceiveEnded { connection, loss } => {
                self.drive(connection, |session, now, edge| {
                    session.receive_lost(now, loss, edge)
                });
            }
            Completion::Sent {
                connection,
                buffer,
                result,
            } => {
                self.core.pool.give(buffer);
                self.drive(connection, |session, now, edge| {
                    session.sent(now, result, edge)
                });
            }
            Completion::TunReadable => self.core.tun_pending = true,
            // What the waker stands for is looked at in every turn.
            Completion::Woken => {}
            Completion::AcceptPaused { .. } => self.core.counters.totals.accept_pauses += 1,
        }
    }

    fn accept(&mut self, listener: usize, connection: ConnectionId, peer: std::net::SocketAddr) {
        let core = &mut self.core;
        let id = core.id(connection);
        core.counters.totals.accepted += 1;
        let full = core.table.is_full()
            || core.handshakes >= core.config.handshakes_max
            || core.drain_deadline.is_some();
        let settings = if full {
            None
        } else {
            self.owner.accept(id, listener, peer)
        };
        let Some(settings) = settings else {
            core.counters.totals.refused += 1;
            self.io.close(connection, true);
            return;
        };
        match Session::accept(self.core.now, settings, peer) {
            Ok(session) => self.enter(connection, session),
            Err(_) => {
                self.core.counters.totals.refused += 1;
                self.io.close(connection, true);
            }
        }
    }

    /// Puts a session into the table; it is looked at by the end of the turn.
    fn enter(&mut self, connection: ConnectionId, session: Session) {
        if session.is_shaking_hands() {
            self.core.handshakes += 1;
        }
        self.core.table.insert(connection, session);
        self.drive(connection, |_, _, _| {});
    }

    /// Lets a session work, and notes that it must be looked at.
    pub(super) fn drive(
        &mut self,
        connection: ConnectionId,
        work: impl FnOnce(&mut Session, Instant, &mut ShardEdge<'_, I, O, N>),
    ) {
        let now = self.core.now;
        let Some((entry, mut edge)) =
            self.core
                .with_edge(&mut self.io, &mut self.owner, connection)
        else {
            return;
        };
        let before = entry.session.traffic();
        work(&mut entry.session, now, &mut edge);
        edge.counters
            .carried(difference(before, entry.session.traffic()));
        let is_new = !entry.is_dirty;
        entry.is_dirty = true;
        while entry.session.has_full_buffer() && send(entry, connection, now, &mut edge) {}
        if is_new {
            self.core.dirty.push(connection);
        }
        self.send_reflected(connection);
    }

    /// What the reflector turned round goes back down the session it came from.
    fn send_reflected(&mut self, connection: ConnectionId) {
        if self.core.reflected.is_empty() {
            return;
        }
        let mut list = std::mem::take(&mut self.core.reflected);
        let bytes = std::mem::take(&mut self.core.reflected_bytes);
        for (start, end) in list.drain(..) {
            if let Some(packet) = bytes.get(start..end) {
                self.drive(connection, |session, now, edge| {
                    session.send_packet(now, packet, edge);
                });
            }
        }
        self.core.reflected = list;
        self.core.reflected_bytes = bytes;
        self.core.reflected_bytes.clear();
    }

    /// Asks the owner what shall be done, and does it.
    pub(super) fn ask_owner(&mut self) {
        let mut commands = std::mem::take(&mut self.commands);
        self.owner.poll(self.core.now, &mut commands);
        let packets = std::mem::take(&mut commands.packets);
        for command in commands.list.drain(..) {
            self.carry_out(command, &packets);
        }
        commands.packets = packets;
        commands.packets.clear();
        self.commands = commands;
    }

    fn carry_out(&mut self, command: Command, packets: &[u8]) {
        match command {
            Command::Answer(id, answer) => {
                self.drive(id.connection, |session, now, edge| {
                    session.handle_answer(now, answer, edge);
                });
            }
            Command::Policy(id, policy) => {
                self.drive(id.connection, |session, now, edge| {
                    session.set_policy(now, policy, edge);
                });
            }
            Command::Terminate(id, reason) => {
                self.drive(id.connection, |session, now, edge| {
                    session.terminate(now, reason, edge);
                });
            }
            Command::Abandon(id, reason) => {
                self.drive(id.connection, |session, _, edge| {
                    session.abandon(reason, edge)
                });
            }
            Command::Leave(id, how, reason) => {
                self.drive(id.connection, |session, _, edge| {
                    session.leave(how, reason, edge)
                });
            }
            Command::Packet(id, range) => {
                if let Some(packet) = packets.get(range) {
                    self.drive(id.connection, |session, now, edge| {
                        session.send_packet(now, packet, edge);
                    });
                }
            }
            Command::Echo(id) => {
                self.drive(id.connection, |session, now, edge| session.echo(now, edge));
            }
            Command::Connect {
                token,
                settings,
                to,
                source,
            } => {
                if self.core.table.is_full() {
                    let full = std::io::Error::other("this shard holds all the sessions it may");
                    self.owner.connecting(token, Err(full));
                    return;
                }
                let session =
                    Session::connect(self.core.now, settings, to).map_err(std::io::Error::other);
                match session.and_then(|session| Ok((session, self.io.connect(to, source)?))) {
                    Ok((session, connection)) => {
                        self.owner.connecting(token, Ok(self.core.id(connection)));
                        self.enter(connection, session);
                    }
                    Err(error) => self.owner.connecting(token, Err(error)),
                }
            }
            Command::ReplaceTun(queue) => {
                let result = self.io.replace_tun(queue);
                self.owner.tun_replaced(result);
            }
            Command::Move(id, shard) => self.move_away(id.connection, shard),
            Command::Drain { reason, within } => {
                self.io.stop_accepting();
                self.core.drain_deadline = Some(self.core.now + within);
                for connection in self.core.table.ids() {
                    self.drive(connection, |session, now, edge| {
                        session.terminate(now, reason, edge);
                    });
                }
            }
            Command::Stop => {
                for connection in self.core.table.ids() {
                    self.drive(connection, |session, _, edge| {
                        session.abandon(EndReason::Shutdown, edge);
                    });
                }
                self.core.stopped = true;
            }
        }
    }

    /// Hands a connection that carries no data yet to another shard.
    fn move_away(&mut self, connection: ConnectionId, shard: u16) {
        let Some(mailbox) = self.core.config.mailboxes.get(usize::from(shard)).cloned() else {
            return;
        };
        let movable = self
            .core
            .table
            .get_mut(connection)
            .is_some_and(|entry| entry.session.is_movable());
        if !movable {
            return;
        }
        let Some(detached) = self.io.detach(connection) else {
            return;
        };
        let Some(entry) = self.core.table.remove(connection) else {
            return;
        };
        self.core.timers.clear(connection.slot);
        if entry.is_shaking_hands {
            self.core.handshakes -= 1;
        }
        match mailbox.post_session(Moved {
            session: entry.session,
            detached,
        }) {
            Ok(()) => self.core.counters.totals.moved += 1,
            // No room there: it stays here.
            Err(moved) => self.adopt(moved),
        }
    }

    pub(super) fn adopt(&mut self, moved: Moved) {
        let Moved {
            session,
            mut detached,
        } = moved;
        let mut received = std::mem::take(&mut detached.received);
        if self.core.table.is_full() {
            // The connection closes with its descriptor.
            self.lose(*session);
            return;
        }
        match self.io.attach(detached) {
            Ok(connection) => {
                self.enter(connection, *session);
                if !received.is_empty() {
                    self.drive(connection, |session, now, edge| {
                        session.receive(now, &mut received, edge);
                    });
                }
            }
            Err(_) => self.lose(*session),
        }
    }

    /// Ends a session that has no connection any more.
    fn lose(&mut self, session: Session) {
        let nowhere = ConnectionId {
            slot: u32::MAX,
            generation: u32::MAX,
        };
        let mut session = session;
        let id = self.core.id(nowhere);
        let mut edge = self.core.edge(&mut self.io, &mut self.owner, id);
        session.abandon(EndReason::Exhausted, &mut edge);
    }

    /// Lets every session whose time has come act.
    pub(super) fn expire(&mut self) {
        while let Some(slot) = self.core.timers.take_due(self.core.now) {
            if let Some(connection) = self.core.table.in_slot(slot) {
                self.drive(connection, |session, now, edge| {
                    session.handle_timeout(now, edge)
                });
            }
        }
        while let Some((connection, reason)) = self.core.table.take_doomed() {
            self.drive(connection, |session, now, edge| {
                session.terminate(now, reason, edge)
            });
        }
    }

    /// Sends what the touched sessions have, and buries the dead.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.core.dirty);
        // Whoever is last to be sealed waits for all others, so each turn begins with another one.
        let turns = usize::try_from(self.core.counters.totals.turns).unwrap_or(0);
        let first = turns.checked_rem(dirty.len()).unwrap_or(0);
        let (last, first) = dirty.split_at(first);
        for &connection in first.iter().chain(last) {
            self.settle(connection);
        }
        dirty.clear();
        // Settling may have touched others (a replaced login); they come with the next turn.
        dirty.append(&mut self.core.dirty);
        self.core.dirty = dirty;
    }

    fn settle(&mut self, connection: ConnectionId) {
        let now = self.core.now;
        let Some((entry, mut edge)) =
            self.core
                .with_edge(&mut self.io, &mut self.owner, connection)
        else {
            return;
        };
        entry.is_dirty = false;
        loop {
            while let Some((direction, keys)) = entry.session.keys_for_kernel() {
                let answer = edge.io.install_tls(connection, direction, &keys);
                let session = &mut entry.session;
                session.kernel_answered(now, direction, answer, &mut edge);
            }
            if !send(entry, connection, now, &mut edge) {
                break;
            }
        }
        if let Some(bytes) = entry.session.take_unsent_limit() {
            edge.io.set_unsent_limit(connection, bytes);
        }
        if entry.session.wants_path(now)
            && let Some(seen) = edge.io.path(connection)
            && let Some(rate) = entry.session.path_seen(now, &seen)
        {
            edge.io.set_rate_limit(connection, rate);
        }
        let disposition = entry.session.disposition();
        let deadline = entry.session.next_timeout();
        let addresses = if entry.session.is_up() {
            entry.session.addresses()
        } else {
            Addresses::default()
        };
        let routed = std::mem::replace(&mut entry.routed, addresses);
        let went_up = entry.session.is_up() != entry.is_up;
        entry.is_up = entry.session.is_up();
        let is_up = entry.is_up;
        let shook_hands = entry.is_shaking_hands && !entry.session.is_shaking_hands();
        if shook_hands {
            entry.is_shaking_hands = false;
        }
        let shut_now = disposition == Disposition::Shutdown && !entry.is_shut;
        entry.is_shut |= shut_now;

        let core = &mut self.core;
        if shook_hands {
            core.handshakes -= 1;
            core.counters.totals.handshakes += 1;
        }
        if went_up {
            let sessions = &mut core.counters.totals.sessions;
            *sessions = if is_up {
                *sessions + 1
            } else {
                sessions.saturating_sub(1)
            };
        }
        if routed != addresses {
            core.route(connection, routed, addresses);
        }
        match disposition {
            Disposition::Keep => core.timers.update(connection.slot, deadline),
            Disposition::Shutdown => {
                core.timers.update(connection.slot, deadline);
                if shut_now {
                    self.io.shutdown(connection);
                }
            }
            Disposition::Close { reset } => {
                core.timers.clear(connection.slot);
                if let Some(mut entry) = core.table.remove(connection) {
                    core.counters.left_behind(entry.session.waiting_count());
                    while let Some(buffer) = entry.session.release_buffer() {
                        core.pool.give(buffer);
                    }
                }
                self.io.close(connection, reset);
            }
        }
    }
}

/// Sends one buffer, if there is one to send; `false`: there is none, or the connection takes no more.
fn send<I: Io, O: Owner, N: Entropy + Clone>(
    entry: &mut Entry,
    connection: ConnectionId,
    now: Instant,
    edge: &mut ShardEdge<'_, I, O, N>,
) -> bool {
    let Some(buffer) = entry.session.poll_send(now, edge) else {
        return false;
    };
    edge.counters.totals.sends += 1;
    let sizes = &mut edge.counters.sizes;
    let len = buffer.end.saturating_sub(buffer.start) as u64;
    sizes.bytes_per_send.record(len);
    let records = entry.session.last_send_records() as u64;
    sizes.records_per_send.record(records);
    if let Some(how) = entry.session.kernel_send() {
        // The end of it is always told: records that the kernel makes have their own boundaries.
        if let Err(buffer) = edge.io.send_by_kernel(connection, buffer, how) {
            edge.pool.give(buffer);
            let refused = Err(Loss::Os(libc::EOPNOTSUPP));
            entry.session.sent(now, refused, edge);
        }
        return false;
    }
    match edge.io.send_now(connection, buffer) {
        Ok(buffer) => {
            edge.pool.give(buffer);
            entry.session.sent(now, Ok(()), edge);
            true
        }
        Err(rest) => {
            edge.io.send(connection, rest);
            false
        }
    }
}

/// A session on its way to another shard.
#[derive(Debug)]
pub struct Moved {
    session: Box<Session>,
    detached: Detached,
}

fn difference(before: Traffic, after: Traffic) -> Traffic {
    Traffic {
        uplink_packets: after.uplink_packets - before.uplink_packets,
        uplink_bytes: after.uplink_bytes - before.uplink_bytes,
        downlink_packets: after.downlink_packets - before.downlink_packets,
        downlink_bytes: after.downlink_bytes - before.downlink_bytes,
    }
}
