//! A PPP frame as SSTP carries it: header and information, nothing around it.
//!
//! ```text
//! sent        FF 03 | protocol u16 | information
//! understood  [FF 03] | protocol u16 or u8 (first octet odd) | information
//! ```
//!
//! RFC 1661 §2 and §6.5–6.6, RFC 1662 §3.1. MS-SSTP says only that the payload is the frame; flags,
//! escapes and checksum do not occur. Some servers ignore and some clients end the session on a
//! frame without `FF 03`, so it is always sent, compression negotiated or not.
//!
//! It does not judge the protocol number beyond its form.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

// Specification.

/// Bytes before the information of every frame we send.
pub const HEADER_LEN: usize = 4;
/// The MRU of a peer that did not name one (RFC 1661 §6.1).
pub const MRU_DEFAULT: u16 = 1500;
/// Bytes of information that fit an SSTP packet: 4095 less its header and ours (MS-SSTP §2.2.1).
pub const INFORMATION_LEN_MAX: u16 = 4087;

/// Internet Protocol (RFC 1332).
pub const IPV4: u16 = 0x0021;
/// Internet Protocol version 6 (RFC 5072).
pub const IPV6: u16 = 0x0057;
/// IP Control Protocol (RFC 1332).
pub const IPCP: u16 = 0x8021;
/// IPv6 Control Protocol (RFC 5072).
pub const IPV6CP: u16 = 0x8057;
/// Compression Control Protocol (RFC 1962); always rejected here.
pub const CCP: u16 = 0x80fd;
/// Link Control Protocol (RFC 1661).
pub const LCP: u16 = 0xc021;
/// Password Authentication Protocol (RFC 1334).
pub const PAP: u16 = 0xc023;
/// Challenge Handshake Authentication Protocol (RFC 1994).
pub const CHAP: u16 = 0xc223;
/// Extensible Authentication Protocol (RFC 3748).
pub const EAP: u16 = 0xc227;

const ADDRESS: u8 = 0xff;
const CONTROL: u8 = 0x03;

/// Why a payload is no frame; it is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It ends before the information starts, or has none.
    #[error("frame of {len} bytes has no information")]
    TooShort {
        /// Bytes of the payload.
        len: usize,
    },
    /// The second octet of the protocol field is even, or the field is the reserved 0xFF (RFC 1661 §2).
    #[error("protocol field {0:#06x} is not one")]
    Protocol(u16),
}

/// A frame taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The protocol number, uncompressed.
    pub protocol: u16,
    /// The bytes behind the protocol field; at least one.
    pub information: &'a [u8],
}

/// Takes the payload of an SSTP data packet apart.
///
/// # Errors
/// The payload is too short, or its protocol field is malformed.
pub fn parse(payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let too_short = FrameError::TooShort { len: payload.len() };
    let rest = match payload {
        [ADDRESS, CONTROL, rest @ ..] => rest,
        _ => payload,
    };
    let (protocol, information) = match *rest {
        [0xff, ..] => return Err(FrameError::Protocol(0x00ff)),
        [octet, ref information @ ..] if octet & 1 == 1 => (u16::from(octet), information),
        [high, low, ref information @ ..] => {
            let protocol = u16::from_be_bytes([high, low]);
            if low & 1 == 0 {
                return Err(FrameError::Protocol(protocol));
            }
            (protocol, information)
        }
        _ => return Err(too_short),
    };
    if information.is_empty() {
        return Err(too_short);
    }
    Ok(Frame {
        protocol,
        information,
    })
}

/// As [`parse`], for callers that go on with the payload itself: the protocol number and the offset
/// of the information.
///
/// # Errors
/// As [`parse`].
pub fn parse_offset(payload: &[u8]) -> Result<(u16, usize), FrameError> {
    let frame = parse(payload)?;
    let offset = payload.len().saturating_sub(frame.information.len());
    Ok((frame.protocol, offset))
}

/// The header of a frame we send.
#[must_use]
pub const fn header(protocol: u16) -> [u8; HEADER_LEN] {
    let [high, low] = protocol.to_be_bytes();
    [ADDRESS, CONTROL, high, low]
}

/// The largest information field that may be sent to a peer with this MRU.
#[must_use]
pub const fn send_mru(peer_mru: u16) -> u16 {
    if peer_mru < INFORMATION_LEN_MAX {
        peer_mru
    } else {
        INFORMATION_LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn all_four_forms_of_the_header_are_understood() {
        let forms: [(&[u8], usize); 4] = [
            (&hex!("ff03 0021 45"), 4),
            (&hex!("0021 45"), 2),
            (&hex!("ff03 21 45"), 3),
            (&hex!("21 45"), 1),
        ];
        for (payload, offset) in forms {
            assert_eq!(
                parse(payload),
                Ok(Frame {
                    protocol: IPV4,
                    information: &[0x45]
                })
            );
            assert_eq!(parse_offset(payload), Ok((IPV4, offset)));
        }
        assert_eq!(parse(&hex!("c021 01")).unwrap().protocol, LCP);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (payload, error) in [
            (&hex!("")[..], FrameError::TooShort { len: 0 }),
            (&hex!("ff03"), FrameError::TooShort { len: 2 }),
            (&hex!("ff03c0"), FrameError::TooShort { len: 3 }),
            (&hex!("ff03c021"), FrameError::TooShort { len: 4 }),
            (&hex!("21"), FrameError::TooShort { len: 1 }),
            (&hex!("c02001"), FrameError::Protocol(0xc020)),
            (&hex!("ff04c02101"), FrameError::Protocol(0xff)),
        ] {
            assert_eq!(parse(payload), Err(error), "{payload:02x?}");
        }
    }

    #[test]
    fn the_header_we_send_parses_back() {
        assert_eq!(header(LCP), hex!("ff03c021"));
        let mut payload = header(CHAP).to_vec();
        payload.push(1);
        assert_eq!(parse_offset(&payload), Ok((CHAP, HEADER_LEN)));
    }

    #[test]
    fn windows_mru_is_capped_to_what_a_packet_holds() {
        assert_eq!(send_mru(4091), 4087);
        assert_eq!(send_mru(1400), 1400);
    }
}
