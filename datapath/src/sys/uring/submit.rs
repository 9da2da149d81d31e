//! Asking the kernel: queueing requests, entering the ring, and what is owed to be armed again.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{opcode, squeue};
use socket2::SockAddr;

use super::op::{Kind, Op};
use super::table::{Connection, Receive};
use super::{Accepting, GROUP, REAP_ROUND, REAP_ROUNDS, STUCK_SUBMITS_MAX, Uring};
use crate::io::{ConnectionId, Io as _};
use crate::sys::lent::Lent;
use crate::sys::{socket, told};
use crate::time::{Duration, Instant};

impl Uring {
    /// Queues a request that will have completions.
    pub(super) fn submit(&mut self, entry: squeue::Entry, op: Op) {
        self.in_flight += 1;
        self.push(entry.user_data(op.encode()));
    }

    pub(super) fn cancel(&mut self, op: Op) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(op.encode())).build();
        let cancel = Op::new(Kind::Cancel, op.slot, op.generation);
        self.push(entry.user_data(cancel.encode()));
    }

    pub(super) fn push(&mut self, entry: squeue::Entry) {
        // In order: a cancellation must not overtake the request it is for.
        if self.backlog.is_empty() {
            // SAFETY: every entry made in this module names memory that is `Lent` until its final
            // completion and descriptors that are open until then (see the module).
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Hands the backlog to the kernel, except for as much as fits in the submission queue.
    pub(super) fn submit_backlog(&mut self) -> io::Result<()> {
        let mut stuck = 0;
        loop {
            let before = self.backlog.len();
            {
                let mut queue = self.ring.submission();
                while let Some(entry) = self.backlog.front() {
                    // SAFETY: as in `push`.
                    if unsafe { queue.push(entry) }.is_err() {
                        break;
                    }
                    self.backlog.pop_front();
                }
            }
            if self.backlog.is_empty() {
                return Ok(());
            }
            stuck = if self.backlog.len() < before {
                0
            } else {
                stuck + 1
            };
            if stuck > STUCK_SUBMITS_MAX {
                return Ok(());
            }
            self.enter(Some(Duration::ZERO))?;
            self.reap()?;
        }
    }

    /// Submits, and waits until something completed, `limit` at most.
    pub(super) fn enter(&self, limit: Option<Duration>) -> io::Result<()> {
        let submitter = self.ring.submitter();
        let result = match limit {
            None => submitter.submit_and_wait(1),
            Some(Duration::ZERO) => submitter.submit(),
            Some(limit) => {
                let limit = Timespec::from(limit);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // EBUSY: the completion queue must be emptied first, which follows.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
                // No memory for requests: asking again at once would spin.
                Some(libc::EAGAIN) => {
                    std::thread::sleep(Duration::from_millis(1));
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Whether there is a reason to enter the kernel without waiting.
    pub(super) fn must_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    pub(super) fn arm_accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get_mut(index) else {
            return;
        };
        let (Some(socket), Ok(slot)) = (&listener.socket, u32::try_from(index)) else {
            return;
        };
        listener.accepting = Accepting::Armed;
        let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.submit(entry, Op::new(Kind::Accept, slot, 0));
    }

    pub(super) fn arm_waker(&mut self) {
        let entry = poll(self.waker.as_raw_fd());
        self.submit(entry, Op::new(Kind::PollWaker, 0, 0));
    }

    pub(super) fn arm_tun(&mut self) {
        if let Some(tun) = &mut self.tun {
            tun.armed = true;
            let entry = poll(tun.file.as_raw_fd());
            let op = Op::new(Kind::PollTun, 0, tun.generation);
            self.submit(entry, op);
        }
    }

    /// Makes the receiving of a connection what is wanted now, and lets go of one that is closed.
    pub(super) fn settle(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.any_mut(id) else {
            return;
        };
        let receive_kind = match self.polled {
            Some(_) => Kind::PollReceive,
            None => Kind::Receive,
        };
        let receive_op = Op::new(receive_kind, id.slot, id.generation);
        let wanted = connection.receive_wanted && !connection.closing && !self.dropping;
        match connection.receive {
            Receive::Armed if !wanted => {
                connection.receive = Receive::Cancelling;
                self.cancel(receive_op);
            }
            Receive::Idle if wanted && connection.connect.is_none() && self.polled.is_some() => {
                connection.receive = Receive::Armed;
                let fd = Fd(connection.socket.as_raw_fd());
                let events = u32::from(libc::POLLIN.cast_unsigned());
                self.submit(opcode::PollAdd::new(fd, events).build(), receive_op);
            }
            Receive::Idle if wanted && connection.connect.is_none() => {
                if self.buffers.available() == 0 {
                    connection.receive = Receive::Parked;
                    self.counters.buffer_waits += 1;
                    self.starved.push_back(id);
                } else {
                    connection.receive = Receive::Armed;
                    connection.received = false;
                    let fd = Fd(connection.socket.as_raw_fd());
                    self.submit(opcode::RecvMulti::new(fd, GROUP).build(), receive_op);
                }
            }
            _ if connection.closing && connection.is_quiet() => {
                self.table.remove(id);
            }
            _ => {}
        }
    }

    /// Queues the rest of a connection's send.
    pub(super) fn send_rest(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.any_mut(id) else {
            return;
        };
        let Some(sending) = &connection.send else {
            return;
        };
        let fd = Fd(connection.socket.as_raw_fd());
        let bytes = sending.memory.as_ptr().cast::<u8>();
        let first = bytes.wrapping_add(sending.position).cast_const();
        let len = u32::try_from(sending.next_len()).unwrap_or(u32::MAX);
        // Kernel TLS refuses flags it does not know, MSG_WAITALL among them.
        let flags = match connection.kernel_seals {
            true => libc::MSG_NOSIGNAL,
            false => self.send_flags | connection.end_of_send,
        };
        let entry = match &sending.control {
            Some(control) => {
                // SAFETY: lent until the send is done, and nobody writes it.
                let header = unsafe { &*control.as_ptr() }.header();
                opcode::SendMsg::new(fd, header)
                    .flags(libc::MSG_NOSIGNAL.cast_unsigned())
                    .build()
            }
            None => opcode::Send::new(fd, first, len).flags(flags).build(),
        };
        self.submit(entry, Op::new(Kind::Send, id.slot, id.generation));
    }

    /// Lets parked connections receive again, as many as there are buffers. Returns whether more
    /// could at once.
    pub(super) fn unpark(&mut self) -> bool {
        let mut room = self.buffers.available();
        while room > 0 {
            let next = self.starved.pop_front();
            let Some(id) = next.or_else(|| self.parked.pop_front()) else {
                return false;
            };
            if let Some(connection) = self.table.any_mut(id)
                && connection.receive == Receive::Parked
            {
                connection.receive = Receive::Idle;
                self.settle(id);
                room -= 1;
            }
        }
        !(self.starved.is_empty() && self.parked.is_empty()) && self.buffers.available() > 0
    }

    /// Ends the pauses that are over; returns when the next one is.
    pub(super) fn unpause(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for index in 0..self.listeners.len() {
            let Some(Accepting::Paused { until }) =
                self.listeners.get(index).map(|listener| listener.accepting)
            else {
                continue;
            };
            if until <= now {
                self.arm_accept(index);
            } else {
                next = Some(next.map_or(until, |next: Instant| next.min(until)));
            }
        }
        next
    }

    /// Takes what is not yet told of a connection out; the bytes received are returned.
    pub(super) fn untell(&mut self, id: ConnectionId) -> Vec<u8> {
        let mut told = std::mem::take(&mut self.told);
        let received = told::take_back(&mut told, id, |buffer| self.release(buffer));
        self.told = told;
        received
    }

    pub(super) fn prepare_connect(
        &mut self,
        to: SocketAddr,
        source: Option<SocketAddr>,
    ) -> io::Result<ConnectionId> {
        if self.table.is_full() {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let socket = socket::outgoing(to, source, &self.options)?;
        let mut connection = Connection::new(socket);
        let address = Lent::lend(Box::new(SockAddr::from(to)));
        let fd = Fd(connection.socket.as_raw_fd());
        // SAFETY: the pointer is to the address just lent, which nothing writes.
        let shared = unsafe { &*address.as_ptr() };
        let entry = opcode::Connect::new(fd, shared.as_ptr().cast(), shared.len()).build();
        connection.connect = Some(address);
        let id = self
            .table
            .insert(connection)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        self.submit(entry, Op::new(Kind::Connect, id.slot, id.generation));
        Ok(id)
    }

    /// Cancels everything and waits for it; returns whether nothing is with the kernel any more.
    pub(super) fn reap_everything(&mut self) -> bool {
        // What was never submitted never happens.
        let unsubmitted = self
            .backlog
            .drain(..)
            .filter_map(|entry| Op::decode(entry.get_user_data()))
            .filter(|op| op.kind != Kind::Cancel)
            .count();
        self.in_flight -= unsubmitted;
        self.dropping = true;
        for _ in 0..REAP_ROUNDS {
            if self.in_flight == 0 {
                return true;
            }
            let cancel = Op::new(Kind::Cancel, 0, 0);
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(entry.user_data(cancel.encode()));
            if self.submit_backlog().is_err()
                || self.enter(Some(REAP_ROUND)).is_err()
                || self.reap().is_err()
            {
                return false;
            }
        }
        self.in_flight == 0
    }
}

fn poll(fd: RawFd) -> squeue::Entry {
    let events = u32::from(libc::POLLIN.cast_unsigned());
    opcode::PollAdd::new(Fd(fd), events).multi(true).build()
}
