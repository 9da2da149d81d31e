//! Packets of a flow, right in every respect.

use hex_literal::hex;

use crate::rfc1071::slow_sum;

pub(crate) const FIN: u8 = 1;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;
pub(crate) const URG: u8 = 32;
pub(crate) const ECE: u8 = 64;
pub(crate) const CWR: u8 = 128;

pub(crate) fn transport_at(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

/// The sum of pseudo-header and everything behind a plain IP header.
pub(crate) fn upper_sum(packet: &[u8]) -> u16 {
    let at = transport_at(packet);
    let (addresses, protocol) = match at {
        20 => (&packet[12..20], packet[9]),
        _ => (&packet[8..40], packet[6]),
    };
    let mut bytes = addresses.to_vec();
    bytes.extend([0, protocol]);
    bytes.extend(((packet.len() - at) as u16).to_be_bytes());
    bytes.extend(&packet[at..]);
    slow_sum(&bytes)
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A flow and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) is_v4: bool,
    pub(crate) is_tcp: bool,
    pub(crate) session: u32,
    pub(crate) port: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) sequence: u32,
    pub(crate) identification: u16,
}

impl Flow {
    pub(crate) fn new(is_v4: bool, is_tcp: bool, number: u16) -> Self {
        Self {
            is_v4,
            is_tcp,
            session: u32::from(number % 2),
            port: 1000 + number,
            options: if number.is_multiple_of(2) {
                // NOP, NOP, time stamps.
                hex!("01 01 08 0a 00000001 00000002").to_vec()
            } else {
                Vec::new()
            },
            // Both wrap soon.
            sequence: 0xffff_f000,
            identification: 0xfff8,
        }
    }

    /// The next packet, right in every respect.
    pub(crate) fn packet(&mut self, payload: &[u8], flags: u8) -> Vec<u8> {
        let mut packet = if self.is_v4 {
            hex!("4500 0000 0000 4000 40 06 0000 0a080002 c0000201").to_vec()
        } else {
            hex!("60000000 0000 06 40 20010db8000100020000000000000001 20010db8000000000000000000000001")
                .to_vec()
        };
        let transport_at = packet.len();
        packet.extend(self.port.to_be_bytes());
        packet.extend(hex!("01bb"));
        if self.is_tcp {
            packet.extend(self.sequence.to_be_bytes());
            packet.extend(hex!("00000007"));
            packet.push(((5 + self.options.len() / 4) << 4) as u8);
            packet.push(flags);
            packet.extend(hex!("2000 0000 0000"));
            packet.extend(&self.options);
        } else {
            packet[if self.is_v4 { 9 } else { 6 }] = 17;
            packet.extend(((payload.len() + 8) as u16).to_be_bytes());
            packet.extend([0, 0]);
        }
        packet.extend(payload);
        if self.is_v4 {
            put(&mut packet, 4, self.identification);
        }
        let len = packet.len() - if self.is_v4 { 0 } else { transport_at };
        put(&mut packet, if self.is_v4 { 2 } else { 4 }, len as u16);
        self.sequence = self.sequence.wrapping_add(payload.len() as u32);
        self.identification = self.identification.wrapping_add(1);
        seal(&mut packet);
        packet
    }
}

/// Where the transport checksum is.
pub(crate) fn checksum_at(packet: &[u8]) -> usize {
    let at = transport_at(packet);
    let protocol = packet[if at == 20 { 9 } else { 6 }];
    at + if protocol == 6 { 16 } else { 6 }
}

/// Puts both checksums right.
pub(crate) fn seal(packet: &mut [u8]) {
    if transport_at(packet) == 20 {
        put(packet, 10, 0);
        let sum = !slow_sum(&packet[..20]);
        put(packet, 10, sum);
    }
    let field = checksum_at(packet);
    if field + 2 > packet.len() {
        return;
    }
    put(packet, field, 0);
    let sum = !upper_sum(packet);
    let is_udp = field == transport_at(packet) + 6;
    put(packet, field, if is_udp && sum == 0 { 0xffff } else { sum });
}
