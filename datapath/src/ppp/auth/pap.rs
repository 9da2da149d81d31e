//! PAP packets (RFC 1334 §2.2).
//!
//! ```text
//! Authenticate-Request   user length u8 | user | password length u8 | password
//! Authenticate-Ack, -Nak message length u8 | message       RouterOS leaves both out
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

// Specification: RFC 1334 §2.2.

pub(in crate::ppp) const REQUEST: u8 = 1;
pub(in crate::ppp) const ACK: u8 = 2;
pub(in crate::ppp) const NAK: u8 = 3;

/// The user name and the password of an Authenticate-Request.
pub(super) fn parse_request(data: &[u8]) -> Result<(&[u8], &[u8]), TooShort> {
    let mut reader = Reader::new(data);
    let user_len = usize::from(reader.u8()?);
    let user = reader.take(user_len)?;
    let password_len = usize::from(reader.u8()?);
    let password = reader.take(password_len)?;
    Ok((user, password))
}

/// Appends the data of an Authenticate-Request; both are cut at 255 bytes, more cannot be said.
pub(super) fn write_request(
    to: &mut Writer<'_>,
    user: &[u8],
    password: &[u8],
) -> Result<(), TooShort> {
    put_counted(to, user)?;
    put_counted(to, password)
}

/// Appends the data of an answer, its text cut at 255 bytes.
pub(super) fn write_message(to: &mut Writer<'_>, message: &[u8]) -> Result<(), TooShort> {
    put_counted(to, message)
}

fn put_counted(to: &mut Writer<'_>, bytes: &[u8]) -> Result<(), TooShort> {
    let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    to.u8(len)?;
    to.put(bytes.get(..usize::from(len)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_parses_back_and_no_length_can_lie() {
        let mut room = [0; 64];
        let mut writer = Writer::new(&mut room);
        write_request(&mut writer, b"User", b"clientPass").unwrap();
        let data = writer.finish();
        assert_eq!(parse_request(data), Ok((&b"User"[..], &b"clientPass"[..])));
        for cut in 0..data.len() {
            assert!(parse_request(&data[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(parse_request(&[0, 0]), Ok((&b""[..], &b""[..])));
    }
}
