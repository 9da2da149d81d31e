//! Which segments were sent more than once, told by their sequence numbers (RFC 9293 §3.4).

use datapath::ip::packet::Packet;

const TCP: u8 = 6;

/// The highest sequence number sent of each connection, and what came below it.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// By our port.
    highest: Vec<(u16, u32)>,
    again: u64,
}

impl Sent {
    pub(super) const fn again(&self) -> u64 {
        self.again
    }

    /// A new connection begins on `port`.
    pub(super) fn forget(&mut self, port: u16) {
        self.highest.retain(|(known, _)| *known != port);
    }

    /// A packet is sent.
    pub(super) fn note(&mut self, packet: &[u8]) {
        let Some((port, sequence, len)) = segment(packet) else {
            return;
        };
        // A byte alone is a question: whether the peer lives, or has room.
        if len <= 1 {
            return;
        }
        let end = sequence.wrapping_add(len);
        match self.highest.iter_mut().find(|(known, _)| *known == port) {
            None => self.highest.push((port, end)),
            // Ahead by less than half the circle is above.
            Some((_, highest)) if end.wrapping_sub(*highest).wrapping_sub(1) < u32::MAX / 2 => {
                *highest = end;
            }
            Some(_) => self.again += 1,
        }
    }
}

/// Source port, sequence number and bytes of data of a segment.
fn segment(packet: &[u8]) -> Option<(u16, u32, u32)> {
    let packet = Packet::parse(packet).ok()?;
    let transport = packet.transport()?;
    if transport.protocol != TCP {
        return None;
    }
    let segment = packet.bytes().get(transport.offset..)?;
    let header = segment.first_chunk::<13>()?;
    let port = u16::from_be_bytes([header[0], header[1]]);
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let data_offset = usize::from(header[12] >> 4) * 4;
    let len = u32::try_from(segment.len().checked_sub(data_offset)?).ok()?;
    Some((port, sequence, len))
}
