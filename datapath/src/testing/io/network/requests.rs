//! What a shard asks of its simulated driver, and a test of the network.

use std::io;
use std::net::SocketAddr;

use super::{
    Device, EADDRNOTAVAIL, ECONNREFUSED, ENOBUFS, Event, Happening, State, Steer, TUN_QUEUE_LEN,
};
use crate::io::{Completion, ConnectionId, Loss, ReceiveBuffer, TunRead};
use crate::testing::io::FOREIGN_BUFFER;
use crate::time::Duration;

impl State {
    // What a shard asks for.

    pub(in crate::testing::io) fn connect(
        &mut self,
        host: usize,
        to: SocketAddr,
        source: Option<SocketAddr>,
    ) -> io::Result<ConnectionId> {
        let place = &mut self.hosts[host];
        let mut local = source.unwrap_or_else(|| SocketAddr::new(place.config.address, 0));
        if local.port() == 0 {
            local.set_port(place.next_port);
            place.next_port = place.next_port.checked_add(1).unwrap_or(32_768);
        }
        if local.is_ipv4() != to.is_ipv4() {
            return Err(io::Error::from_raw_os_error(EADDRNOTAVAIL));
        }
        let number = self.new_end(local, to, None);
        let Some(id) = self.enter(host, number) else {
            self.ends[number] = None;
            return Err(io::Error::from_raw_os_error(ENOBUFS));
        };
        if let Some(end) = self.end(number) {
            end.connecting = true;
        }
        self.transmit(number, Event::Syn(to));
        Ok(id)
    }

    pub(super) fn syn(&mut self, client: usize, to: SocketAddr) {
        let refuse = self.rng.chance(self.faults.refuse_per_mille);
        // The SO_REUSEPORT group's member is drawn: which processor takes a SYN is chance.
        let draw = self.rng.next_u64();
        let Some(end) = self.end(client) else { return };
        if !end.connecting || end.closed {
            return;
        }
        let group = self.listeners.get(&to).filter(|_| !refuse);
        let member = group.and_then(|group| {
            let index = usize::try_from(draw % group.len().max(1) as u64).ok()?;
            group.get(index).copied()
        });
        match member {
            None => self.transmit(client, Event::Answer(Err(Loss::Os(ECONNREFUSED)))),
            Some((host, listener)) if self.hosts[host].accept_paused => {
                self.hosts[host].waiting.push_back((client, listener));
            }
            Some((host, listener)) => self.accept(host, listener, client),
        }
    }

    pub(super) fn accept(&mut self, host: usize, listener: usize, client: usize) {
        let Some(end) = self.end(client) else { return };
        let (local, peer) = (end.peer, end.local);
        if let Some(errno) = self.hosts[host].starved {
            let place = &mut self.hosts[host];
            place.waiting.push_back((client, listener));
            place.accept_paused = true;
            place
                .told
                .push(Completion::AcceptPaused { listener, errno });
            let pause = place.accept_pause;
            place.accept_pause = (pause * 2).min(Duration::from_millis(800));
            let at = self.clock.now() + pause;
            return self.schedule(at, Happening::Accept(host));
        }
        self.hosts[host].accept_pause = Duration::from_millis(100);
        let server = self.new_end(local, peer, Some(client));
        if let Some(end) = self.end(client) {
            end.other = Some(server);
        }
        self.transmit(client, Event::Answer(Ok(())));
        if self.enter(host, server).is_none() {
            // A full table refuses.
            return self.abandon(server);
        }
        self.tell(server, |connection| Completion::Accepted {
            listener,
            connection,
            peer,
        });
    }

    pub(super) fn retry_accept(&mut self, host: usize) {
        self.hosts[host].accept_paused = false;
        while !self.hosts[host].accept_paused
            && let Some((client, listener)) = self.hosts[host].waiting.pop_front()
        {
            self.accept(host, listener, client);
        }
    }

    pub(in crate::testing::io) fn starve(&mut self, host: usize, errno: Option<i32>) {
        self.hosts[host].starved = errno;
    }

    pub(in crate::testing::io) fn want_receive(
        &mut self,
        host: usize,
        id: ConnectionId,
        wanted: bool,
    ) {
        if let Some(number) = self.find(host, id)
            && let Some(end) = self.end(number)
        {
            end.receive_wanted = wanted;
            self.mark_ready(number);
        }
    }

    pub(in crate::testing::io) fn shutdown(&mut self, host: usize, id: ConnectionId) {
        if let Some(number) = self.find(host, id)
            && let Some(end) = self.end(number)
        {
            end.fin_owed = true;
            if end.sending.is_none() {
                self.send_fin(number);
            }
        }
    }

    pub(in crate::testing::io) fn close(&mut self, host: usize, id: ConnectionId, reset: bool) {
        let Some(&(generation, Some(number))) = self.hosts[host].slots.get(id.slot as usize) else {
            return;
        };
        if generation != id.generation {
            return;
        }
        self.untell(host, id);
        let Some(end) = self.end(number) else { return };
        end.closed = true;
        end.fin_owed = true;
        if end.connecting {
            return self.abandon(number);
        }
        if reset {
            if let Some((buffer, _)) = end.sending.take() {
                self.tell(number, |connection| Completion::Sent {
                    connection,
                    buffer,
                    result: Err(Loss::Reset),
                });
            }
            return self.abandon(number);
        }
        // Bytes that came and were not read: the kernel resets instead of finishing.
        if !end.readable.is_empty() && end.sending.is_none() {
            return self.abandon(number);
        }
        if end.sending.is_none() {
            self.send_fin(number);
        }
        self.forget_if_done(number);
    }

    /// Takes what is not yet told of a connection back, but for a send's end.
    pub(super) fn untell(&mut self, host: usize, id: ConnectionId) -> Vec<u8> {
        let mut received = Vec::new();
        for completion in std::mem::take(&mut self.hosts[host].told) {
            match completion {
                Completion::Received { connection, buffer } if connection == id => {
                    received.extend_from_slice(&buffer.bytes[..buffer.len]);
                    if buffer.id != FOREIGN_BUFFER {
                        self.release(host, buffer);
                    }
                }
                Completion::ReceiveEnded { connection, .. }
                | Completion::Connected { connection, .. }
                | Completion::Accepted { connection, .. }
                    if connection == id => {}
                other => self.hosts[host].told.push(other),
            }
        }
        received
    }

    pub(in crate::testing::io) fn stop_accepting(&mut self, host: usize) {
        for group in self.listeners.values_mut() {
            group.retain(|&(member, _)| member != host);
        }
        self.listeners.retain(|_, group| !group.is_empty());
        for (client, _) in std::mem::take(&mut self.hosts[host].waiting) {
            self.transmit(client, Event::Answer(Err(Loss::Reset)));
        }
    }

    pub(in crate::testing::io) fn detach(
        &mut self,
        host: usize,
        id: ConnectionId,
    ) -> Option<(usize, Vec<u8>)> {
        let number = self.find(host, id)?;
        let end = self.end(number)?;
        if end.sending.is_some() || end.connecting {
            return None;
        }
        let mut received = self.untell(host, id);
        // Some of what has arrived comes with it, some is still in the socket.
        let taken = self.end(number)?.readable.len() + 1;
        let taken = self.rng.index(taken);
        let end = self.end(number)?;
        received.extend(end.readable.drain(..taken));
        end.unread -= taken;
        end.ended = false;
        end.queued = false;
        self.hosts[host].ready.retain(|&ready| ready != number);
        self.leave(number);
        Some((number, received))
    }

    pub(in crate::testing::io) fn attach(
        &mut self,
        host: usize,
        number: usize,
        received: Vec<u8>,
    ) -> io::Result<ConnectionId> {
        if self.end(number).is_none_or(|end| end.place.is_some()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let Some(connection) = self.enter(host, number) else {
            self.abandon(number);
            return Err(io::Error::from_raw_os_error(ENOBUFS));
        };
        if !received.is_empty() {
            self.tell(number, |connection| Completion::Received {
                connection,
                buffer: ReceiveBuffer {
                    len: received.len(),
                    bytes: received.into_boxed_slice(),
                    id: FOREIGN_BUFFER,
                },
            });
        }
        if let Some(end) = self.end(number) {
            end.receive_wanted = true;
            let other = end.other;
            self.mark_ready(number);
            if let Some(other) = other {
                self.pump(other);
            }
        }
        Ok(connection)
    }

    pub(in crate::testing::io) fn break_connection(
        &mut self,
        host: usize,
        id: ConnectionId,
        loss: Loss,
    ) {
        if let Some(number) = self.find(host, id) {
            let other = self.end(number).and_then(|end| end.other);
            self.break_end(number, loss);
            if let Some(other) = other {
                self.transmit(other, Event::Broken(loss));
            }
        }
    }

    pub(in crate::testing::io) fn reset_all(&mut self) {
        for number in 0..self.ends.len() {
            if self.end(number).is_some_and(|end| end.other.is_some()) {
                self.break_end(number, Loss::Reset);
            }
        }
    }

    // The inside.

    pub(in crate::testing::io) fn add_device(&mut self, steer: Steer) -> usize {
        self.devices.push(Device {
            steer,
            queues: Vec::new(),
            written: Vec::new(),
            dropped: 0,
            failed: None,
        });
        self.devices.len() - 1
    }

    pub(in crate::testing::io) fn inject(&mut self, device: usize, packet: &[u8]) {
        let device = &mut self.devices[device];
        let queue = (device.steer)(packet) % device.queues.len().max(1);
        let host = device.queues.get(queue).map(|&host| &mut self.hosts[host]);
        match host.filter(|host| host.alive && host.tun_packets.len() < TUN_QUEUE_LEN) {
            Some(host) if device.failed.is_none() => {
                host.tun_packets.push_back(packet.to_vec());
                host.tun_readable = true;
            }
            _ => device.dropped += 1,
        }
    }

    pub(in crate::testing::io) fn take_written(&mut self, device: usize) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.devices[device].written)
    }

    pub(in crate::testing::io) fn device_drops(&self, device: usize) -> u64 {
        self.devices[device].dropped
    }

    pub(in crate::testing::io) fn fail_device(&mut self, device: usize, errno: i32) {
        self.devices[device].failed = Some(errno);
        for &host in &self.devices[device].queues {
            self.hosts[host].tun_readable = true;
        }
    }

    pub(in crate::testing::io) fn replace_tun(
        &mut self,
        host: usize,
        device: usize,
    ) -> io::Result<()> {
        let queues = self
            .devices
            .get_mut(device)
            .map(|device| &mut device.queues);
        let queues = queues.ok_or(io::ErrorKind::InvalidInput)?;
        queues.push(host);
        let queue = queues.len() - 1;
        let host = &mut self.hosts[host];
        host.tun = Some((device, queue));
        // What waited in the old queue went with it.
        host.tun_packets.clear();
        Ok(())
    }

    pub(in crate::testing::io) fn tun_read(&mut self, host: usize, buffer: &mut [u8]) -> TunRead {
        let host = &mut self.hosts[host];
        let Some((device, _)) = host.tun else {
            return TunRead::Empty;
        };
        if let Some(errno) = self.devices[device].failed {
            return TunRead::Failed(errno);
        }
        match host.tun_packets.pop_front() {
            None => TunRead::Empty,
            Some(packet) => {
                // A packet longer than the buffer is cut, as the kernel does.
                let len = packet.len().min(buffer.len());
                buffer[..len].copy_from_slice(&packet[..len]);
                TunRead::Packet(len)
            }
        }
    }

    pub(in crate::testing::io) fn tun_write(
        &mut self,
        host: usize,
        packet: &[u8],
    ) -> io::Result<()> {
        let Some((device, queue)) = self.hosts[host].tun else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let device = &mut self.devices[device];
        if let Some(errno) = device.failed {
            return Err(io::Error::from_raw_os_error(errno));
        }
        device.written.push((queue, packet.to_vec()));
        Ok(())
    }
}
