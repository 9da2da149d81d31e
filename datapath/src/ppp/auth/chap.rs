//! CHAP packets, and the texts MS-CHAPv2 puts into them (RFC 1994 §4, RFC 2759 §4–6).
//!
//! ```text
//! Challenge, Response   value length u8 | value | name, to the end
//! Success, Failure      message, to the end
//! MS-CHAPv2 Response    value = peer challenge 16 | reserved 8 | NT-Response 24 | flags 1
//! MS-CHAPv2 Success     S=<40 upper-case hex>[ M=<text>]
//! MS-CHAPv2 Failure     E=<error> R=<0|1> C=<32 upper-case hex> V=3 M=<text>
//! ```
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use crate::wire::{Reader, TooShort, Writer};

// Specification: RFC 1994 §4, RFC 2759 §4.

pub(in crate::ppp) const CHALLENGE: u8 = 1;
pub(in crate::ppp) const RESPONSE: u8 = 2;
pub(in crate::ppp) const SUCCESS: u8 = 3;
pub(in crate::ppp) const FAILURE: u8 = 4;

/// Bytes of a challenge of ours, and of every challenge of MS-CHAPv2.
pub(in crate::ppp) const CHALLENGE_LEN: usize = 16;
/// Bytes of the value of an MS-CHAPv2 Response.
pub(super) const MSCHAPV2_VALUE_LEN: usize = 49;

/// Value and name of a Challenge or Response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Valued<'a> {
    pub(super) value: &'a [u8],
    pub(super) name: &'a [u8],
}

impl<'a> Valued<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, TooShort> {
        let mut reader = Reader::new(data);
        let len = usize::from(reader.u8()?);
        let value = reader.take(len)?;
        let name = reader.rest();
        Ok(Self { value, name })
    }

    /// Appends it; the value is at most 255 bytes.
    pub(super) fn write(&self, to: &mut Writer<'_>) -> Result<(), TooShort> {
        let too_long = TooShort {
            wanted: self.value.len(),
            left: 255,
        };
        to.u8(u8::try_from(self.value.len()).map_err(|_| too_long)?)?;
        to.put(self.value)?;
        to.put(self.name)
    }
}

/// The value of an MS-CHAPv2 Response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MsChapV2Value {
    pub(super) peer_challenge: [u8; 16],
    pub(super) nt_response: [u8; 24],
}

impl MsChapV2Value {
    /// `None` if it has not exactly 49 bytes. Reserved bytes and flags are not looked at: Windows 98
    /// sets some, and RADIUS servers do not care.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        if value.len() != MSCHAPV2_VALUE_LEN {
            return None;
        }
        let mut reader = Reader::new(value);
        let peer_challenge = reader.array().ok()?;
        reader.take(8).ok()?;
        let nt_response = reader.array().ok()?;
        Some(Self {
            peer_challenge,
            nt_response,
        })
    }

    pub(super) fn bytes(&self) -> [u8; MSCHAPV2_VALUE_LEN] {
        let mut bytes = [0; MSCHAPV2_VALUE_LEN];
        let parts = self
            .peer_challenge
            .iter()
            .chain(&[0; 8])
            .chain(&self.nt_response);
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = *from;
        }
        bytes
    }
}

/// The message of a Failure; a `message` that already has the form is passed on (RADIUS makes them).
pub(super) fn failure_message(error: u16, challenge: &[u8; 16], message: &[u8]) -> Vec<u8> {
    if message.starts_with(b"E=") {
        return message.to_vec();
    }
    let mut text = format!("E={error} R=0 C=").into_bytes();
    for byte in challenge {
        text.extend_from_slice(format!("{byte:02X}").as_bytes());
    }
    text.extend_from_slice(b" V=3 M=");
    text.extend_from_slice(if message.is_empty() {
        b"Authentication failed"
    } else {
        message
    });
    text
}

/// The error of a Failure message. Fields come in any order and may be missing; a text that has no
/// `E=` counts as a plain authentication failure.
pub(super) fn failure_error(message: &[u8]) -> u16 {
    message
        .split(|&byte| byte == b' ')
        .find_map(|field| {
            let digits = field.strip_prefix(b"E=")?;
            core::str::from_utf8(digits).ok()?.parse().ok()
        })
        .unwrap_or(super::ERROR_AUTHENTICATION_FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn a_value_longer_than_the_packet_is_refused() {
        // CVE-2020-8597: the length was compared after it had been cut.
        assert!(Valued::parse(&[17, 1, 2, 3]).is_err());
        assert!(Valued::parse(&[]).is_err());
        let valued = Valued::parse(b"\x02abUser").unwrap();
        assert_eq!((valued.value, valued.name), (&b"ab"[..], &b"User"[..]));
        let mut room = [0; 16];
        let mut writer = Writer::new(&mut room);
        valued.write(&mut writer).unwrap();
        assert_eq!(writer.written(), b"\x02abUser");
    }

    #[test]
    fn only_49_bytes_are_an_mschapv2_response() {
        for len in 0..=255 {
            let value = vec![7; len];
            assert_eq!(MsChapV2Value::parse(&value).is_some(), len == 49);
        }
        let value = MsChapV2Value {
            peer_challenge: [1; 16],
            nt_response: [2; 24],
        };
        assert_eq!(MsChapV2Value::parse(&value.bytes()), Some(value));
        assert_eq!(value.bytes()[16..24], [0; 8]);
        assert_eq!(value.bytes()[48], 0);
    }

    #[test]
    fn failure_texts_are_made_in_order_and_read_in_any() {
        let challenge = hex!("5b5d7c7d7b3f2f3e3c2c602132262628");
        assert_eq!(
            failure_message(691, &challenge, b""),
            b"E=691 R=0 C=5B5D7C7D7B3F2F3E3C2C602132262628 V=3 M=Authentication failed"
        );
        assert_eq!(failure_message(691, &challenge, b"E=648 R=0"), b"E=648 R=0");
        assert_eq!(failure_error(b"E=648 R=0 C=00 V=3 M=x"), 648);
        assert_eq!(failure_error(b"R=0 E=647"), 647);
        assert_eq!(failure_error(b"nope"), 691);
        assert_eq!(failure_error(b"E=99999999999999999999"), 691);
    }
}
