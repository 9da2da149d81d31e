//! Where packets enter and leave a stack: one that came is looked at where it lies, one that goes is
//! handed on at once.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::ANSWERS_MAX;
use super::sent::Sent;

/// What lasts between two calls.
#[derive(Debug)]
pub(super) struct Port {
    mtu: u16,
    packet: Vec<u8>,
    pub(super) answers: VecDeque<Vec<u8>>,
    pub(super) sent: Sent,
}

impl Port {
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            mtu,
            packet: Vec::new(),
            answers: VecDeque::new(),
            sent: Sent::default(),
        }
    }

    /// A device that has received this packet.
    pub(super) const fn receiving<'a>(&'a mut self, packet: &'a [u8]) -> Receiving<'a> {
        Receiving {
            port: self,
            packet: Some(packet),
        }
    }

    /// A device that takes so many packets.
    pub(super) const fn sending<'a, F>(
        &'a mut self,
        room: usize,
        send: &'a mut F,
    ) -> Sending<'a, F> {
        Sending {
            port: self,
            room,
            send,
        }
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities
    }
}

/// The answer to a packet waits; there is one at most.
#[derive(Debug)]
pub(super) struct Receiving<'a> {
    port: &'a mut Port,
    packet: Option<&'a [u8]>,
}

#[derive(Debug)]
pub(super) struct Received<'a>(&'a [u8]);

#[derive(Debug)]
pub(super) struct Answer<'a>(&'a mut Port);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Answer<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        if self.0.answers.len() < ANSWERS_MAX {
            self.0.answers.push_back(packet);
        }
        result
    }
}

impl Device for Receiving<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Answer<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Answer<'_>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), Answer(self.port)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Answer<'_>> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.port.capabilities()
    }
}

/// Each packet is handed to `send`.
pub(super) struct Sending<'a, F> {
    port: &'a mut Port,
    room: usize,
    send: &'a mut F,
}

/// What never comes.
#[derive(Debug)]
pub(super) enum Nothing {}

impl RxToken for Nothing {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, _: F) -> R {
        match self {}
    }
}

impl<F: FnMut(&[u8])> TxToken for &mut Sending<'_, F> {
    fn consume<R, G: FnOnce(&mut [u8]) -> R>(self, len: usize, f: G) -> R {
        let packet = &mut self.port.packet;
        packet.resize(len, 0);
        let result = f(packet);
        self.port.sent.note(packet);
        self.room = self.room.saturating_sub(1);
        (self.send)(packet);
        result
    }
}

impl<F: FnMut(&[u8])> Device for Sending<'_, F> {
    type RxToken<'b>
        = Nothing
    where
        Self: 'b;
    type TxToken<'b>
        = &'b mut Self
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Nothing, &mut Self)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<&mut Self> {
        (self.room > 0).then_some(self)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.port.capabilities()
    }
}
