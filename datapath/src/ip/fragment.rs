//! Splits an IPv4 packet that may be split (RFC 791 §3.2, RFC 1812 §4.2.2.7).
//!
//! Each piece is told as a header of its own and a part of the packet's payload, so nothing is
//! copied but the header. A packet that is a fragment itself is split further. Lengths are bytes;
//! offsets on the wire are units of 8, so every piece but the last carries a multiple of 8.

use super::checksum;
use super::packet::{Packet, V4, V4_HEADER_LEN};

// RFC 791 §3.2: every host and gateway forwards 68 bytes whole.
const MTU_MIN: u16 = 68;
/// The longest IPv4 header.
const HEADER_LEN_MAX: usize = 60;

// RFC 791 §3.1.
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_COPIED: u8 = 0x80;

/// Why a packet is not split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsplit {
    /// It is no IPv4 packet: IPv6 routers never fragment.
    #[error("not an IPv4 packet")]
    NotV4,
    /// Its sender forbids it; answer with `icmp::too_big`.
    #[error("the packet must not be fragmented")]
    DontFragment,
    /// The MTU is below 68 or leaves no room for 8 bytes behind the header.
    #[error("the MTU is too small to fragment for")]
    Mtu,
    /// A piece would lie beyond the 65,535 bytes of a datagram.
    #[error("the fragment lies beyond the end of any datagram")]
    Offset,
}

/// Gives `piece` one header and payload part for each fragment of at most `mtu` bytes, in order,
/// and returns how many there were. A packet that fits is one piece.
///
/// Nothing was given to `piece` if this fails.
pub fn split(
    packet: &[u8],
    mtu: u16,
    mut piece: impl FnMut(&[u8], &[u8]),
) -> Result<usize, Unsplit> {
    let Ok(Packet::V4(packet)) = Packet::parse(packet) else {
        return Err(Unsplit::NotV4);
    };
    if packet.bytes().len() <= usize::from(mtu) {
        piece(packet.header(), packet.payload());
        return Ok(1);
    }
    if packet.dont_fragment() {
        return Err(Unsplit::DontFragment);
    }
    let room = usize::from(mtu).saturating_sub(packet.header_len()) & !7;
    if mtu < MTU_MIN || room == 0 {
        return Err(Unsplit::Mtu);
    }
    // Checked for the whole before the first piece goes out.
    let end = (usize::from(packet.fragment_offset()) << 3).saturating_add(packet.payload().len());
    if end > usize::from(u16::MAX) {
        return Err(Unsplit::Offset);
    }
    let mut later = [0; HEADER_LEN_MAX];
    let later_len = header_of_later(&packet, &mut later);
    let mut offset = packet.fragment_offset();
    let mut rest = packet.payload();
    let mut count = 0_usize;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at_checked(room).unwrap_or((rest, &[]));
        let more = !behind.is_empty() || packet.more_fragments();
        let mut first = [0; HEADER_LEN_MAX];
        let header = if count == 0 {
            let header = first.get_mut(..packet.header_len()).ok_or(Unsplit::Mtu)?;
            header.copy_from_slice(packet.header());
            header
        } else {
            later.get_mut(..later_len).ok_or(Unsplit::Mtu)?
        };
        finish_header(header, part.len(), offset, more).ok_or(Unsplit::Mtu)?;
        piece(header, part);
        // At most 65,535 / 8 by the check above.
        offset = offset.saturating_add(u16::try_from(part.len() >> 3).unwrap_or(u16::MAX));
        rest = behind;
        count = count.saturating_add(1);
    }
    Ok(count)
}

/// Writes the header for all pieces but the first: with the options that say "copied" only, padded
/// to a word with end-of-list (RFC 791 §3.1). Returns its length.
fn header_of_later(packet: &V4<'_>, header: &mut [u8; HEADER_LEN_MAX]) -> usize {
    let mut len = V4_HEADER_LEN;
    if let (Some(to), Some(from)) = (
        header.get_mut(..V4_HEADER_LEN),
        packet.header().get(..V4_HEADER_LEN),
    ) {
        to.copy_from_slice(from);
    }
    let mut options = packet.options();
    while let [kind, behind @ ..] = options {
        match *kind {
            OPTION_END => break,
            OPTION_NOP => options = behind,
            kind => {
                let option_len = usize::from(behind.first().copied().unwrap_or(0)).max(2);
                let Some((option, behind)) = options.split_at_checked(option_len) else {
                    break;
                };
                let end = len.saturating_add(option_len);
                if kind & OPTION_COPIED != 0
                    && let Some(to) = header.get_mut(len..end)
                {
                    to.copy_from_slice(option);
                    len = end;
                }
                options = behind;
            }
        }
    }
    let padded = len.next_multiple_of(4);
    header[0] = 0x40 | u8::try_from(padded >> 2).unwrap_or(15);
    padded
}

/// Sets total length, flags, offset and checksum of a piece's header.
fn finish_header(header: &mut [u8], payload_len: usize, offset: u16, more: bool) -> Option<()> {
    let len = u16::try_from(header.len().saturating_add(payload_len)).ok()?;
    let flags = if more { 0x2000 } else { 0 };
    let fixed = header.first_chunk_mut::<V4_HEADER_LEN>()?;
    // The reserved bit ("evil", RFC 3514) is not carried on.
    let [offset_high, offset_low] = (flags | (offset & 0x1fff)).to_be_bytes();
    [fixed[2], fixed[3]] = len.to_be_bytes();
    [fixed[6], fixed[7]] = [offset_high, offset_low];
    [fixed[10], fixed[11]] = [0, 0];
    let [high, low] = checksum::of(header).to_be_bytes();
    let fixed = header.first_chunk_mut::<V4_HEADER_LEN>()?;
    [fixed[10], fixed[11]] = [high, low];
    Some(())
}
