//! The framing of the stream (MS-SSTP §2.2.1 to §2.2.3).
//!
//! ```text
//!  byte 0        byte 1          byte 2..4
//! +------------+---------------+----+----------------------+
//! | version    | reserved  | C | R  | length, 12 bits      |
//! | 0x10       | 7 bits    | 1 | 4  | with these 4 bytes   |
//! +------------+---------------+----+----------------------+
//! ```
//!
//! Reserved bits are sent as zero and ignored. Packets cross TLS records at will: the caller keeps
//! what is incomplete, 4095 bytes at the most.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use core::ops::Range;

/// Bytes of the header in front of each payload.
pub const HEADER_LEN: usize = 4;
/// Bytes of the longest packet, header included: what 12 bits can say.
pub const PACKET_LEN_MAX: usize = 0x0FFF;
/// Bytes of the longest payload.
pub const PAYLOAD_LEN_MAX: usize = PACKET_LEN_MAX - HEADER_LEN;
/// The version byte: 1.0.
pub const VERSION: u8 = 0x10;

const CONTROL_BIT: u8 = 0x01;
const LENGTH_MASK: u16 = 0x0FFF;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message of the call.
    Control,
    /// A PPP frame.
    Data,
}

/// The stream cannot be cut into packets any more: the connection must be closed, with nothing sent
/// (MS-SSTP §3.1.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The version byte is not 0x10.
    #[error("SSTP version {0:#04x} instead of 0x10")]
    Version(u8),
    /// The length does not even cover the header.
    #[error("SSTP packet length {0} is below 4")]
    Length(usize),
}

/// A payload would not fit the 12 bits of the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {0} bytes is above 4091")]
pub struct PayloadTooLong(pub usize);

/// Where a whole packet lies in the bytes it was found at the head of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it carries.
    pub kind: Kind,
    /// Bytes of the packet, header included, `HEADER_LEN..=PACKET_LEN_MAX`.
    pub len: usize,
}

impl Span {
    /// The place of the payload, for work in place.
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        HEADER_LEN..self.len
    }
}

/// One whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    kind: Kind,
    bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// What it carries.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The whole packet, header included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// Bytes of the packet whose header `bytes` begins with, whether the rest is there or not; `None`
/// until the header is. For a stream whose packets arrive in pieces.
pub fn packet_len(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
    if let Some(&version) = bytes.first()
        && version != VERSION
    {
        return Err(FramingError::Version(version));
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([high, low]) & LENGTH_MASK);
    if len < HEADER_LEN {
        return Err(FramingError::Length(len));
    }
    Ok(Some(len))
}

/// Finds the packet at the head of `bytes`; `None` if more bytes are needed. A bad version is seen
/// in the first byte, a bad length in the fourth.
pub fn locate(bytes: &[u8]) -> Result<Option<Span>, FramingError> {
    let (Some(len), Some(flags)) = (packet_len(bytes)?, bytes.get(1)) else {
        return Ok(None);
    };
    if bytes.len() < len {
        return Ok(None);
    }
    let kind = match flags & CONTROL_BIT {
        0 => Kind::Data,
        _ => Kind::Control,
    };
    Ok(Some(Span { kind, len }))
}

/// Takes the packet at the head of `bytes` and says how many bytes it took; `None` if more are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, FramingError> {
    let Some(Span { kind, len }) = locate(bytes)? else {
        return Ok(None);
    };
    Ok(bytes.get(..len).map(|bytes| (Packet { kind, bytes }, len)))
}

/// Writes the header of a data packet whose payload has `payload_len` bytes.
pub fn write_data_header(
    out: &mut [u8; HEADER_LEN],
    payload_len: usize,
) -> Result<(), PayloadTooLong> {
    *out = header(Kind::Data, payload_len).ok_or(PayloadTooLong(payload_len))?;
    Ok(())
}

/// The header of a packet with `payload_len` bytes behind it, if its length can be said.
pub(super) fn header(kind: Kind, payload_len: usize) -> Option<[u8; HEADER_LEN]> {
    let len = payload_len.checked_add(HEADER_LEN)?;
    if len > PACKET_LEN_MAX {
        return None;
    }
    let [high, low] = u16::try_from(len).ok()?.to_be_bytes();
    let flags = match kind {
        Kind::Control => CONTROL_BIT,
        Kind::Data => 0,
    };
    Some([VERSION, flags, high, low])
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_what_it_says() {
        let bytes = hex!("10010008 00080000 ff");
        let (packet, consumed) = parse(&bytes).unwrap().unwrap();
        assert_eq!((packet.kind(), consumed), (Kind::Control, 8));
        assert_eq!(packet.payload(), hex!("00080000"));
        assert_eq!(parse(&bytes[..7]), Ok(None));
        assert_eq!(parse(&[]), Ok(None));
    }

    #[test]
    fn reserved_bits_are_ignored() {
        let bytes = hex!("10fe8005 aa");
        let span = locate(&bytes).unwrap().unwrap();
        assert_eq!((span.kind, span.len), (Kind::Data, 5));
        assert_eq!(bytes[span.payload()], [0xaa]);
    }

    #[test]
    fn framing_is_lost_as_soon_as_it_shows() {
        assert_eq!(locate(&[0x11]), Err(FramingError::Version(0x11)));
        for len in 0..4 {
            let bytes = [0x10, 0, 0xf0, len];
            assert_eq!(
                locate(&bytes),
                Err(FramingError::Length(usize::from(len))),
                "the reserved nibble is no length"
            );
        }
        assert!(
            locate(&[0x10, 0, 0, 4]).unwrap().is_some(),
            "an empty frame"
        );
    }

    #[test]
    fn no_length_wraps() {
        let mut out = [0; HEADER_LEN];
        write_data_header(&mut out, PAYLOAD_LEN_MAX).unwrap();
        assert_eq!(out, hex!("10000fff"));
        for len in [PAYLOAD_LEN_MAX + 1, usize::MAX] {
            assert_eq!(write_data_header(&mut out, len), Err(PayloadTooLong(len)));
        }
    }

    /// All 65,536 length words in a stream that holds them.
    #[test]
    fn no_progress_is_impossible_for_any_length_word() {
        let mut bytes = vec![0; PACKET_LEN_MAX];
        for word in 0..=u16::MAX {
            let [high, low] = word.to_be_bytes();
            bytes[..4].copy_from_slice(&[0x10, 0x01, high, low]);
            match locate(&bytes) {
                Ok(Some(span)) => assert!((HEADER_LEN..=PACKET_LEN_MAX).contains(&span.len)),
                Ok(None) => panic!("waits for more than a packet can have"),
                Err(error) => {
                    assert_eq!(error, FramingError::Length(usize::from(word & LENGTH_MASK)));
                }
            }
        }
    }

    /// Cuts `stream` into packets until it waits or fails, given all at once or piece by piece.
    fn cut(stream: &[u8], pieces: &[usize]) -> (Vec<Vec<u8>>, Option<FramingError>) {
        let (mut held, mut packets, mut at) = (Vec::new(), Vec::new(), 0);
        let mut sizes = pieces.iter().copied().chain([usize::MAX]);
        while at < stream.len() {
            let size = sizes
                .next()
                .unwrap_or(usize::MAX)
                .clamp(1, stream.len() - at);
            held.extend_from_slice(&stream[at..at + size]);
            at += size;
            loop {
                match parse(&held) {
                    Ok(Some((packet, consumed))) => {
                        assert!(consumed >= HEADER_LEN && consumed <= held.len());
                        packets.push(packet.bytes().to_vec());
                        held.drain(..consumed);
                    }
                    Ok(None) => {
                        assert!(
                            held.len() < PACKET_LEN_MAX,
                            "never waits with a packet in hand"
                        );
                        break;
                    }
                    Err(error) => return (packets, Some(error)),
                }
            }
        }
        (packets, None)
    }

    proptest! {
        #[test]
        fn no_progress_any_bytes_any_cut(
            stream in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    (any::<u8>(), 0_u8..0x30).prop_map(|(flags, len)| vec![0x10, flags, 0, len]),
                ], 0..12).prop_map(|parts| parts.concat()),
            pieces in prop::collection::vec(1_usize..9, 0..200),
        ) {
            prop_assert_eq!(cut(&stream, &pieces), cut(&stream, &[]));
        }
    }
}
