//! The packets, and what stands before each on a connection.
//!
//! ```text
//!  10 00 len len │ FF 03 00 21 │ 45 00 …    SSTP data packet │ PPP, IPv4 │ IP, UDP
//! ```
//!
//! Client `i` has the address 10.99.0.(2 + i). The payload of a packet says whose it is and which.

use std::io;
use std::net::Ipv4Addr;

use datapath::ip::checksum;

/// Connections of the pump, a client each.
pub(crate) const CONNECTIONS: usize = 64;
/// SSTP's header (MS-SSTP §2.2.3) and PPP's.
pub(crate) const HEADER_LEN: usize = 8;
/// The address of the TUN device.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Of both ends inside.
pub(crate) const PORT: u16 = 5000;
/// Of an IP and a UDP header.
pub(crate) const IP_UDP_LEN: usize = 28;
/// More than the longest packet.
pub(crate) const PACKET_LEN_MAX: usize = 2048;

const PPP_IPV4: [u8; 4] = [0xff, 0x03, 0x00, 0x21];
const FIRST_HOST: u8 = 2;
const FILL: u8 = 0x5a;

/// The inside address of client `index`.
pub(crate) fn client(index: usize) -> Ipv4Addr {
    let host = u8::try_from(index).unwrap_or(u8::MAX) + FIRST_HOST;
    Ipv4Addr::new(10, 99, 0, host)
}

/// The client that an IPv4 packet is for.
pub(crate) fn owner(packet: &[u8]) -> Option<usize> {
    let host = packet.get(19)?.checked_sub(FIRST_HOST)?;
    Some(usize::from(host)).filter(|&index| index < CONNECTIONS)
}

/// What UDP carries in packet number `sequence` of client `index`.
pub(crate) fn payload(index: usize, sequence: u32, packet_len: usize) -> Vec<u8> {
    let mut payload = vec![FILL; packet_len - IP_UDP_LEN];
    payload[..4].copy_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes());
    payload[4..8].copy_from_slice(&sequence.to_be_bytes());
    payload
}

/// Client and number of the packet, if its payload is one of ours and as long as it should be.
pub(crate) fn read_payload(payload: &[u8], packet_len: usize) -> Option<(usize, u32)> {
    let (index, rest) = payload.split_first_chunk::<4>()?;
    let (sequence, fill) = rest.split_first_chunk::<4>()?;
    let is_whole = payload.len() + IP_UDP_LEN == packet_len && fill.iter().all(|&b| b == FILL);
    let index = usize::try_from(u32::from_be_bytes(*index)).ok()?;
    is_whole.then_some((index, u32::from_be_bytes(*sequence)))
}

/// Packet number `sequence` from client `index` to [`INSIDE`].
pub(crate) fn packet(index: usize, sequence: u32, len: usize) -> Vec<u8> {
    let length = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(len));
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(client(index).octets());
    packet.extend(INSIDE.octets());
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(length(len - 20));
    // No UDP checksum: nobody reads the payload but the check, which compares it.
    packet.extend([0, 0]);
    packet.extend(payload(index, sequence, len));
    packet
}

/// What stands before a packet of `len` bytes.
pub(crate) fn header(len: usize) -> [u8; HEADER_LEN] {
    let [high, low] = u16::try_from(len + HEADER_LEN)
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let [a, b, c, d] = PPP_IPV4;
    [0x10, 0, high, low, a, b, c, d]
}

/// Length of the frame that `bytes` begin with, its header included; `None` if more must come first.
///
/// # Errors
///
/// If that is no frame: the stream is out of step.
pub(crate) fn frame_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(&[version, kind, high, low, ref ppp @ ..]) = bytes.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if [version, kind] != [0x10, 0] || *ppp != PPP_IPV4 || len <= HEADER_LEN {
        let what = format!("no frame: {:02x?}", &bytes[..HEADER_LEN]);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok((bytes.len() >= len).then_some(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_says_whose_it_is() {
        for index in [0, 63] {
            let packet = packet(index, 7, 100);
            assert_eq!(packet.len(), 100);
            assert_eq!(checksum::of(&packet[..20]), 0);
            assert_eq!(read_payload(&packet[28..], 100), Some((index, 7)));
            assert_eq!(read_payload(&packet[28..], 101), None);
            assert_eq!(packet[12..16], client(index).octets());
            assert_eq!(owner(&packet), None, "it is for the gateway");
        }
    }

    #[test]
    fn a_frame_is_whole_or_not_or_none() {
        let mut bytes = header(100).to_vec();
        bytes.extend(packet(1, 1, 100));
        assert_eq!(frame_len(&bytes).unwrap(), Some(108));
        assert_eq!(frame_len(&bytes[..107]).unwrap(), None);
        assert_eq!(frame_len(&bytes[..7]).unwrap(), None);
        frame_len(&bytes[1..]).unwrap_err();
    }
}
