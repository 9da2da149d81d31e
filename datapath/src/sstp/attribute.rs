//! The attributes of control messages (MS-SSTP §2.2.4, §2.2.8).
//!
//! ```text
//! reserved u8 │ id u8 │ reserved 4 bits, length 12 bits (with these 4 bytes) │ value …
//! Status Info: reserved 3 bytes │ attribute at fault u8 │ status u32 │ its value, in a NAK only
//! ```
//!
//! Reserved bits are sent as zero and ignored. What a message needs of them is [`super::message`].
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use core::fmt;

use super::message::Malformed;
use crate::wire::{Reader, TooShort, Writer};

/// Bytes of a rejected value that a Status Info repeats at the most (MS-SSTP §2.2.8).
pub const STATUS_VALUE_LEN_MAX: usize = 64;

const ATTRIBUTE_HEADER_LEN: usize = 4;
const ATTRIBUTE_LENGTH_MASK: u16 = 0x0FFF;

/// The id of an attribute (MS-SSTP §2.2.4); peers may send unknown ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeId(pub u8);

impl AttributeId {
    /// No attribute: what a Status Info names when none is at fault.
    pub const NONE: Self = Self(0);
    /// `SSTP_ATTRIB_ENCAPSULATED_PROTOCOL_ID`
    pub const ENCAPSULATED_PROTOCOL_ID: Self = Self(1);
    /// `SSTP_ATTRIB_STATUS_INFO`
    pub const STATUS_INFO: Self = Self(2);
    /// `SSTP_ATTRIB_CRYPTO_BINDING`
    pub const CRYPTO_BINDING: Self = Self(3);
    /// `SSTP_ATTRIB_CRYPTO_BINDING_REQ`
    pub const CRYPTO_BINDING_REQ: Self = Self(4);
}

/// A status (MS-SSTP §2.2.8); an unknown one is logged, the message's type is what counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0x00);
    /// An attribute came twice.
    pub const DUPLICATE_ATTRIBUTE: Self = Self(0x01);
    /// An attribute is not known.
    pub const UNRECOGNIZED_ATTRIBUTE: Self = Self(0x02);
    /// The value of an attribute has the wrong length.
    pub const INVALID_ATTRIB_VALUE_LENGTH: Self = Self(0x03);
    /// The value of an attribute cannot be taken; in an abort: the crypto binding is wrong.
    pub const VALUE_NOT_SUPPORTED: Self = Self(0x04);
    /// The message may not come in this state.
    pub const UNACCEPTED_FRAME_RECEIVED: Self = Self(0x05);
    /// Too many negative acknowledgements.
    pub const RETRY_COUNT_EXCEEDED: Self = Self(0x06);
    /// The message cannot be understood.
    pub const INVALID_FRAME_RECEIVED: Self = Self(0x07);
    /// The negotiation timer expired.
    pub const NEGOTIATION_TIMEOUT: Self = Self(0x08);
    /// A message misses an attribute it must have, or has one it must not have.
    pub const ATTRIB_NOT_SUPPORTED_IN_MSG: Self = Self(0x09);
    /// A needed attribute is missing.
    pub const REQUIRED_ATTRIBUTE_MISSING: Self = Self(0x0A);
    /// A Status Info with an error came where none may.
    pub const STATUS_INFO_NOT_SUPPORTED_IN_MSG: Self = Self(0x0B);

    /// The name of a known status.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NO_ERROR => "no error",
            Self::DUPLICATE_ATTRIBUTE => "duplicate attribute",
            Self::UNRECOGNIZED_ATTRIBUTE => "unrecognized attribute",
            Self::INVALID_ATTRIB_VALUE_LENGTH => "invalid attribute value length",
            Self::VALUE_NOT_SUPPORTED => "value not supported",
            Self::UNACCEPTED_FRAME_RECEIVED => "unaccepted frame received",
            Self::RETRY_COUNT_EXCEEDED => "retry count exceeded",
            Self::INVALID_FRAME_RECEIVED => "invalid frame received",
            Self::NEGOTIATION_TIMEOUT => "negotiation timeout",
            Self::ATTRIB_NOT_SUPPORTED_IN_MSG => "attribute not supported in message",
            Self::REQUIRED_ATTRIBUTE_MISSING => "required attribute missing",
            Self::STATUS_INFO_NOT_SUPPORTED_IN_MSG => "status info not supported in message",
            Self(_) => return None,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "status {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#x}, {self})", self.0)
    }
}

/// A Status Info attribute (MS-SSTP §2.2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusInfo<'a> {
    /// The attribute at fault.
    pub attribute: AttributeId,
    /// What is wrong with it.
    pub status: Status,
    /// The rejected value, in a CALL_CONNECT_NAK only; at most 64 bytes of it are sent.
    pub value: &'a [u8],
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) id: AttributeId,
    pub(super) value: &'a [u8],
}

/// The attributes of a message that have been checked to be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a> {
    count: u16,
    reader: Reader<'a>,
}

impl<'a> Attributes<'a> {
    /// The `count` attributes at the head of `reader`, each of which is there, and the number of
    /// bytes behind them.
    pub(super) fn new(count: u16, reader: Reader<'a>) -> Result<(Self, usize), Malformed> {
        let attributes = Self { count, reader };
        let mut walk = attributes;
        while let Some(attribute) = walk.step() {
            attribute?;
        }
        Ok((attributes, walk.reader.left()))
    }

    fn step(&mut self) -> Option<Result<Attribute<'a>, Malformed>> {
        self.count = self.count.checked_sub(1)?;
        Some(self.attribute())
    }

    fn attribute(&mut self) -> Result<Attribute<'a>, Malformed> {
        let [_, id, high, low] = self.reader.array().map_err(Malformed::AttributeMissing)?;
        let id = AttributeId(id);
        let len = usize::from(u16::from_be_bytes([high, low]) & ATTRIBUTE_LENGTH_MASK);
        let value = len
            .checked_sub(ATTRIBUTE_HEADER_LEN)
            .and_then(|value_len| self.reader.take(value_len).ok())
            .ok_or(Malformed::AttributeLength { id, len })?;
        Ok(Attribute { id, value })
    }

    /// The first Status Info that can be read.
    pub(super) fn status_info(mut self) -> Option<StatusInfo<'a>> {
        self.find_map(|attribute| {
            (attribute.id == AttributeId::STATUS_INFO)
                .then(|| parse_status_info(attribute.value).ok())
                .flatten()
        })
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        self.step()?.ok()
    }
}

impl PartialEq for Attributes<'_> {
    fn eq(&self, other: &Self) -> bool {
        Iterator::eq(*self, *other)
    }
}

impl Eq for Attributes<'_> {}

pub(super) fn parse_status_info(value: &[u8]) -> Result<StatusInfo<'_>, TooShort> {
    let mut reader = Reader::new(value);
    let [_, _, _, attribute] = reader.array()?;
    Ok(StatusInfo {
        attribute: AttributeId(attribute),
        status: Status(reader.u32()?),
        value: reader.rest(),
    })
}

/// Appends a Status Info, whole or not at all.
pub(super) fn put_status_info(
    writer: &mut Writer<'_>,
    info: &StatusInfo<'_>,
) -> Result<(), TooShort> {
    let value = info.value.get(..STATUS_VALUE_LEN_MAX).unwrap_or(info.value);
    let mut attribute = [0; 12 + STATUS_VALUE_LEN_MAX];
    let mut inner = Writer::new(&mut attribute);
    let len = u16::try_from(value.len()).unwrap_or(0).saturating_add(12);
    inner.u8(0)?;
    inner.u8(AttributeId::STATUS_INFO.0)?;
    inner.u16(len)?;
    inner.put(&[0, 0, 0, info.attribute.0])?;
    inner.u32(info.status.0)?;
    inner.put(value)?;
    writer.put(inner.written())
}
