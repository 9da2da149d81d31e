//! The packet all control protocols share, and the options inside Configure packets.
//!
//! ```text
//! packet  code u8 | identifier u8 | length u16, from the code | data
//! option  type u8 | length u8, from the type | value
//! ```
//!
//! RFC 1661 §5 and §6. The packet's own length counts: bytes behind it are padding and ignored
//! (§5, "octets outside the range of the Length field are treated as padding"), which RouterOS relies
//! on. Options are checked whole before the first is looked at.
//!
//! It does not know what codes and options mean.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use crate::output::Output;
use crate::ppp::frame;
use crate::wire::{Reader, TooShort, Writer};

/// Code, identifier and length.
pub const HEADER_LEN: usize = 4;

/// Codes of RFC 1661 §5; 1–7 for every control protocol, 8–11 for LCP, 12 and 13 of RFC 1570.
pub mod code {
    /// Configure-Request.
    pub const CONFIGURE_REQUEST: u8 = 1;
    /// Configure-Ack.
    pub const CONFIGURE_ACK: u8 = 2;
    /// Configure-Nak.
    pub const CONFIGURE_NAK: u8 = 3;
    /// Configure-Reject.
    pub const CONFIGURE_REJECT: u8 = 4;
    /// Terminate-Request.
    pub const TERMINATE_REQUEST: u8 = 5;
    /// Terminate-Ack.
    pub const TERMINATE_ACK: u8 = 6;
    /// Code-Reject.
    pub const CODE_REJECT: u8 = 7;
    /// Protocol-Reject.
    pub const PROTOCOL_REJECT: u8 = 8;
    /// Echo-Request.
    pub const ECHO_REQUEST: u8 = 9;
    /// Echo-Reply.
    pub const ECHO_REPLY: u8 = 10;
    /// Discard-Request.
    pub const DISCARD_REQUEST: u8 = 11;
    /// Identification.
    pub const IDENTIFICATION: u8 = 12;
    /// Time-Remaining.
    pub const TIME_REMAINING: u8 = 13;
}

/// Why a packet or its options are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Header or announced data are not all there.
    #[error("control packet: {0}")]
    TooShort(#[from] TooShort),
    /// The length field is below that of its own header.
    #[error("control packet or option of length {0}")]
    Length(usize),
}

/// A control packet taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub code: u8,
    /// Matches answers to requests.
    pub identifier: u8,
    /// What follows the header.
    pub data: &'a [u8],
    /// The whole packet without padding, as Code-Reject sends it back.
    pub bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Takes the information of a frame apart.
    ///
    /// # Errors
    /// The length field lies.
    pub fn parse(information: &'a [u8]) -> Result<Self, ControlError> {
        let mut reader = Reader::new(information);
        let code = reader.u8()?;
        let identifier = reader.u8()?;
        let len = usize::from(reader.u16()?);
        let data_len = len
            .checked_sub(HEADER_LEN)
            .ok_or(ControlError::Length(len))?;
        let data = reader.take(data_len)?;
        let bytes = information.get(..len).unwrap_or_default();
        Ok(Self {
            code,
            identifier,
            data,
            bytes,
        })
    }
}

/// One option of a Configure packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Its type.
    pub kind: u8,
    /// What follows type and length.
    pub value: &'a [u8],
    /// All of it, as a Reject repeats it.
    pub bytes: &'a [u8],
}

/// The options of a Configure packet; every length in it has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// The options in `data`.
    ///
    /// # Errors
    /// A length is below 2 or reaches beyond the packet: the packet is to be discarded.
    pub fn parse(data: &'a [u8]) -> Result<Self, ControlError> {
        let mut rest = data;
        while !rest.is_empty() {
            (_, rest) = split(rest)?;
        }
        Ok(Self { rest: data })
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Opt<'a>;

    fn next(&mut self) -> Option<Opt<'a>> {
        let (option, rest) = split(self.rest).ok()?;
        self.rest = rest;
        Some(option)
    }
}

fn split(bytes: &[u8]) -> Result<(Opt<'_>, &[u8]), ControlError> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    let len = usize::from(reader.u8()?);
    let value = reader.take(len.checked_sub(2).ok_or(ControlError::Length(len))?)?;
    let bytes = bytes.get(..len).unwrap_or_default();
    Ok((Opt { kind, value, bytes }, reader.rest()))
}

/// Appends one option.
///
/// # Errors
/// It does not fit, or its value is longer than 253 bytes.
pub fn put_option(to: &mut Writer<'_>, kind: u8, value: &[u8]) -> Result<(), TooShort> {
    let too_long = TooShort {
        wanted: value.len(),
        left: 253,
    };
    let len = value.len().checked_add(2).ok_or(too_long)?;
    to.u8(kind)?;
    to.u8(u8::try_from(len).map_err(|_| too_long)?)?;
    to.put(value)
}

/// Sends one control packet in a frame; `write` appends its data.
///
/// What does not fit the largest frame is not sent at all: nothing that we compose comes near.
pub(super) fn send<E>(
    out: &mut impl Output<E>,
    protocol: u16,
    code: u8,
    identifier: u8,
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), TooShort>,
) {
    let mut room = [0; FRAME_LEN_MAX];
    let mut writer = Writer::new(&mut room);
    let written = writer
        .put(&frame::header(protocol))
        .and_then(|()| writer.put(&[code, identifier, 0, 0]))
        .and_then(|()| write(&mut writer))
        .and_then(|()| {
            let len = writer.len().saturating_sub(frame::HEADER_LEN);
            let len = u16::try_from(len).unwrap_or(u16::MAX);
            writer.set_u16(LENGTH_AT, len)
        });
    if written.is_ok() {
        out.send(writer.written());
    }
}

const FRAME_LEN_MAX: usize = 4091;
const LENGTH_AT: usize = 6;
const _: () = assert!(FRAME_LEN_MAX == frame::HEADER_LEN + frame::INFORMATION_LEN_MAX as usize);
const _: () = assert!(LENGTH_AT == frame::HEADER_LEN + 2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Collected;
    use hex_literal::hex;

    #[test]
    fn the_packets_own_length_counts_and_padding_is_ignored() {
        // RouterOS: a PAP Ack of length 4 with text behind it.
        let packet = Packet::parse(&hex!("02 01 0004 084c6f67696e206f6b")).unwrap();
        assert_eq!(packet.data, b"");
        assert_eq!(packet.bytes, hex!("02010004"));
    }

    #[test]
    fn every_length_word_is_taken_or_refused() {
        for len in 0..=u16::MAX {
            let [high, low] = len.to_be_bytes();
            let bytes = [1, 2, high, low, 5, 6];
            match Packet::parse(&bytes) {
                Ok(packet) => assert_eq!(packet.data.len() + 4, usize::from(len)),
                Err(ControlError::Length(_)) => assert!(len < 4),
                Err(ControlError::TooShort(_)) => assert!(len > 6),
            }
        }
    }

    #[test]
    fn options_are_checked_to_the_last_before_the_first_is_seen() {
        let mut options = Options::parse(&hex!("0104 05dc 0702")).unwrap();
        assert_eq!(options.next().unwrap().value, hex!("05dc"));
        assert_eq!(options.next().unwrap().bytes, hex!("0702"));
        assert_eq!(options.next(), None);
        assert_eq!(Options::parse(&[]).unwrap().count(), 0);
        for bad in [
            &hex!("0702 0100")[..],
            &hex!("0101"),
            &hex!("0104 05"),
            &hex!("01"),
        ] {
            assert!(Options::parse(bad).is_err(), "{bad:02x?}");
        }
    }

    #[test]
    fn what_is_sent_parses_back() {
        let mut out = Collected::<()>::default();
        send(&mut out, frame::LCP, code::CONFIGURE_REQUEST, 7, |to| {
            put_option(to, 1, &[5, 0xdc])
        });
        assert_eq!(out.sent, [hex!("ff03c021 01070008 010405dc")]);
        send(&mut out, frame::LCP, 1, 7, |to| to.put(&[0; 4084]));
        assert_eq!(out.sent.len(), 1, "what does not fit is not sent");
    }
}
