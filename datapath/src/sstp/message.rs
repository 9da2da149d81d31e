//! What control packets say: nine messages and their attributes (MS-SSTP §2.2.3 to §2.2.17).
//!
//! ```text
//! packet header (4) │ message type u16 │ attribute count u16 │ attributes …
//! attribute: reserved u8 │ id u8 │ reserved 4 bits, length 12 bits (with these 4 bytes) │ value …
//! ```
//!
//! [`parse`] fails only where the bytes are no message at all. What a known message lacks is part of
//! it, because what is owed for it depends on the state of the call. Nothing is allocated.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use super::attribute::{Attribute, Attributes, parse_status_info, put_status_info};
pub use super::attribute::{AttributeId, STATUS_VALUE_LEN_MAX, Status, StatusInfo};
use super::binding::{CALL_CONNECTED_LEN, CallConnected, HashBitmask, Nonce};
use super::packet::{self, HEADER_LEN, Kind, PACKET_LEN_MAX};
use crate::wire::{Reader, TooShort, Writer};

/// `SSTP_ENCAPSULATED_PROTOCOL_PPP` (MS-SSTP §2.2.5), the only protocol there is.
pub const PROTOCOL_PPP: u16 = 0x0001;

const CRYPTO_BINDING_VALUE_LEN: usize = 100;
const CRYPTO_BINDING_REQUEST_VALUE_LEN: usize = 36;

/// The type of a control message (MS-SSTP §2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum MessageType {
    CallConnectRequest = 0x0001,
    CallConnectAck = 0x0002,
    CallConnectNak = 0x0003,
    CallConnected = 0x0004,
    CallAbort = 0x0005,
    CallDisconnect = 0x0006,
    CallDisconnectAck = 0x0007,
    EchoRequest = 0x0008,
    EchoResponse = 0x0009,
}

impl MessageType {
    /// All of them, by code point.
    pub const ALL: [Self; 9] = [
        Self::CallConnectRequest,
        Self::CallConnectAck,
        Self::CallConnectNak,
        Self::CallConnected,
        Self::CallAbort,
        Self::CallDisconnect,
        Self::CallDisconnectAck,
        Self::EchoRequest,
        Self::EchoResponse,
    ];

    /// The code point.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The type with this code point.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }
}

/// Bytes in good framing that are no control message; the peer is owed an abort with
/// [`Status::INVALID_FRAME_RECEIVED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends before its message type and attribute count do.
    #[error("control packet too short: {0}")]
    Header(TooShort),
    /// The message type is not known.
    #[error("unknown message type {0:#06x}")]
    UnknownType(u16),
    /// An attribute is shorter than its header or longer than the packet.
    #[error("attribute {id} has length {len}", id = id.0)]
    AttributeLength {
        /// The attribute's id.
        id: AttributeId,
        /// The length it says.
        len: usize,
    },
    /// Fewer attributes are there than announced.
    #[error("attribute missing: {0}")]
    AttributeMissing(TooShort),
    /// Bytes are left behind the announced attributes.
    #[error("{0} bytes behind the last attribute")]
    TrailingBytes(usize),
}

/// What a known message lacks or has too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The attribute that the message is for is not there.
    #[error("attribute {id} missing", id = .0.0)]
    Missing(AttributeId),
    /// It has the wrong length.
    #[error("attribute {id} has the wrong length", id = .0.0)]
    Length(AttributeId),
    /// Another attribute is there that does not belong.
    #[error("attribute {id} does not belong here", id = .0.0)]
    Unexpected(AttributeId),
}

/// A control message, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The client asks for a call; what is wrong with its attributes comes from [`Request::problems`].
    CallConnectRequest(Request<'a>),
    /// The server takes the call and asks for the binding.
    CallConnectAck(Result<BindingRequest, AttributeError>),
    /// The server does not take the request; the first thing it says is wrong.
    CallConnectNak(Option<StatusInfo<'a>>),
    /// The client proves the binding.
    CallConnected(Result<CallConnected, AttributeError>),
    /// The peer gives up; some peers do not say why.
    CallAbort(Option<StatusInfo<'a>>),
    /// The peer ends the call; some peers do not say why.
    CallDisconnect(Option<StatusInfo<'a>>),
    /// The peer has taken note of our disconnect.
    CallDisconnectAck,
    /// The peer wants a sign of life.
    EchoRequest,
    /// The peer gives a sign of life.
    EchoResponse,
}

impl Message<'_> {
    /// The message's type.
    #[must_use]
    pub const fn message_type(&self) -> MessageType {
        match self {
            Self::CallConnectRequest(_) => MessageType::CallConnectRequest,
            Self::CallConnectAck(_) => MessageType::CallConnectAck,
            Self::CallConnectNak(_) => MessageType::CallConnectNak,
            Self::CallConnected(_) => MessageType::CallConnected,
            Self::CallAbort(_) => MessageType::CallAbort,
            Self::CallDisconnect(_) => MessageType::CallDisconnect,
            Self::CallDisconnectAck => MessageType::CallDisconnectAck,
            Self::EchoRequest => MessageType::EchoRequest,
            Self::EchoResponse => MessageType::EchoResponse,
        }
    }
}

/// What a CALL_CONNECT_ACK asks for (MS-SSTP §2.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingRequest {
    /// The hash functions on offer.
    pub offered: HashBitmask,
    /// The nonce to give back.
    pub nonce: Nonce,
}

/// Reads a whole control packet, its header included.
pub fn parse(packet: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut reader = Reader::new(packet);
    let (code, count) = parse_header(&mut reader).map_err(Malformed::Header)?;
    let message_type = MessageType::from_code(code).ok_or(Malformed::UnknownType(code))?;
    let (attributes, trailing) = Attributes::new(count, reader)?;
    // Scripted clients pad their request inside the packet's length.
    if trailing > 0 && message_type != MessageType::CallConnectRequest {
        return Err(Malformed::TrailingBytes(trailing));
    }
    Ok(match message_type {
        MessageType::CallConnectRequest => Message::CallConnectRequest(Request { attributes }),
        MessageType::CallConnectAck => Message::CallConnectAck(parse_binding_request(attributes)),
        MessageType::CallConnectNak => Message::CallConnectNak(attributes.status_info()),
        MessageType::CallConnected => {
            Message::CallConnected(parse_call_connected(packet, attributes))
        }
        MessageType::CallAbort => Message::CallAbort(attributes.status_info()),
        MessageType::CallDisconnect => Message::CallDisconnect(attributes.status_info()),
        MessageType::CallDisconnectAck => Message::CallDisconnectAck,
        MessageType::EchoRequest => Message::EchoRequest,
        MessageType::EchoResponse => Message::EchoResponse,
    })
}

fn parse_header(reader: &mut Reader<'_>) -> Result<(u16, u16), TooShort> {
    reader.take(HEADER_LEN)?;
    Ok((reader.u16()?, reader.u16()?))
}

/// MS-SSTP §3.2.5.3.2: exactly one Crypto Binding Request matters; others are passed over.
fn parse_binding_request(mut attributes: Attributes<'_>) -> Result<BindingRequest, AttributeError> {
    const ID: AttributeId = AttributeId::CRYPTO_BINDING_REQ;
    let attribute = attributes
        .find(|attribute| attribute.id == ID)
        .ok_or(AttributeError::Missing(ID))?;
    let value: &[u8; CRYPTO_BINDING_REQUEST_VALUE_LEN] = attribute
        .value
        .try_into()
        .map_err(|_| AttributeError::Length(ID))?;
    let [_, _, _, bitmask, nonce @ ..] = *value;
    Ok(BindingRequest {
        offered: HashBitmask(bitmask),
        nonce: Nonce(nonce),
    })
}

/// MS-SSTP §3.3.5.2.3. One Crypto Binding and nothing else: the MAC covers the whole packet, whose
/// length is therefore fixed.
fn parse_call_connected(
    packet: &[u8],
    attributes: Attributes<'_>,
) -> Result<CallConnected, AttributeError> {
    const ID: AttributeId = AttributeId::CRYPTO_BINDING;
    let mut found = false;
    for Attribute { id, value } in attributes {
        if id != ID || found {
            return Err(AttributeError::Unexpected(id));
        }
        if value.len() != CRYPTO_BINDING_VALUE_LEN {
            return Err(AttributeError::Length(ID));
        }
        found = true;
    }
    if !found {
        return Err(AttributeError::Missing(ID));
    }
    let packet: [u8; CALL_CONNECTED_LEN] =
        packet.try_into().map_err(|_| AttributeError::Length(ID))?;
    Ok(CallConnected(packet))
}

/// A CALL_CONNECT_REQUEST whose attributes have been found but not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    attributes: Attributes<'a>,
}

impl<'a> Request<'a> {
    /// All that is wrong with it, in the order of its attributes (MS-SSTP §3.3.5.2.2); nothing if
    /// it is acceptable.
    #[must_use]
    pub const fn problems(&self) -> Problems<'a> {
        Problems {
            attributes: self.attributes,
            seen: [false; 3],
            ended: false,
        }
    }
}

/// Iterates over what is wrong with a request: a Status Info for each.
#[derive(Clone, Debug)]
pub struct Problems<'a> {
    attributes: Attributes<'a>,
    /// By attribute id, for the two that a request may have.
    seen: [bool; 3],
    ended: bool,
}

impl<'a> Problems<'a> {
    fn judge(&mut self, Attribute { id, value }: Attribute<'a>) -> Option<StatusInfo<'a>> {
        let problem = |status, value| {
            Some(StatusInfo {
                attribute: id,
                status,
                value,
            })
        };
        if !matches!(
            id,
            AttributeId::ENCAPSULATED_PROTOCOL_ID | AttributeId::STATUS_INFO
        ) {
            return problem(Status::UNRECOGNIZED_ATTRIBUTE, &[]);
        }
        if let Some(seen) = self.seen.get_mut(usize::from(id.0))
            && core::mem::replace(seen, true)
        {
            return problem(Status::DUPLICATE_ATTRIBUTE, value);
        }
        if id == AttributeId::STATUS_INFO {
            return match parse_status_info(value) {
                Ok(info) if info.status == Status::NO_ERROR => None,
                Ok(_) => problem(Status::STATUS_INFO_NOT_SUPPORTED_IN_MSG, value),
                Err(_) => problem(Status::INVALID_ATTRIB_VALUE_LENGTH, value),
            };
        }
        match value.split_first_chunk().map(|(id, padding)| {
            let protocol = u16::from_be_bytes(*id);
            (protocol, padding.is_empty())
        }) {
            // Scripted clients pad the attribute itself.
            Some((PROTOCOL_PPP, _)) => None,
            Some((_, true)) => problem(Status::VALUE_NOT_SUPPORTED, value),
            Some((_, false)) | None => problem(Status::INVALID_ATTRIB_VALUE_LENGTH, value),
        }
    }
}

impl<'a> Iterator for Problems<'a> {
    type Item = StatusInfo<'a>;

    fn next(&mut self) -> Option<StatusInfo<'a>> {
        while let Some(attribute) = self.attributes.next() {
            if let Some(problem) = self.judge(attribute) {
                return Some(problem);
            }
        }
        if core::mem::replace(&mut self.ended, true) {
            return None;
        }
        let [_, protocol_seen, _] = self.seen;
        (!protocol_seen).then_some(StatusInfo {
            attribute: AttributeId::ENCAPSULATED_PROTOCOL_ID,
            status: Status::REQUIRED_ATTRIBUTE_MISSING,
            value: &[],
        })
    }
}

/// A message without attributes.
#[must_use]
pub fn bare(message_type: MessageType) -> [u8; 8] {
    let [high, low] = message_type.code().to_be_bytes();
    [0x10, 0x01, 0x00, 0x08, high, low, 0x00, 0x00]
}

/// The CALL_CONNECT_REQUEST of a client, for PPP.
pub const CALL_CONNECT_REQUEST: [u8; 14] = [
    0x10, 0x01, 0x00, 0x0E, 0x00, 0x01, 0x00, 0x01, 0x00, 0x01, 0x00, 0x06, 0x00, 0x01,
];

/// The CALL_CONNECT_ACK of a server.
#[must_use]
pub fn call_connect_ack(request: &BindingRequest) -> [u8; 48] {
    let head = [
        0x10, 0x01, 0x00, 0x30, 0x00, 0x02, 0x00, 0x01, 0x00, 0x04, 0x00, 0x28, 0x00, 0x00, 0x00,
    ];
    let mut packet = [0; 48];
    let bytes = head
        .into_iter()
        .chain([request.offered.0])
        .chain(request.nonce.0);
    for (to, from) in packet.iter_mut().zip(bytes) {
        *to = from;
    }
    packet
}

/// A CALL_ABORT or CALL_DISCONNECT with its Status Info, which sstpc needs to take note of it.
#[must_use]
pub fn with_status(message_type: MessageType, attribute: AttributeId, status: Status) -> [u8; 20] {
    let [high, low] = message_type.code().to_be_bytes();
    let [a, b, c, d] = status.0.to_be_bytes();
    [
        0x10,
        0x01,
        0x00,
        0x14,
        high,
        low,
        0x00,
        0x01,
        0x00,
        AttributeId::STATUS_INFO.0,
        0x00,
        0x0C,
        0x00,
        0x00,
        0x00,
        attribute.0,
        a,
        b,
        c,
        d,
    ]
}

/// Writes the CALL_CONNECT_NAK for `problems` and returns it; problems that no longer fit a packet
/// are left out.
pub fn write_call_connect_nak<'b>(
    problems: Problems<'_>,
    buffer: &'b mut [u8; PACKET_LEN_MAX],
) -> &'b [u8] {
    let mut writer = Writer::new(buffer);
    // A fresh buffer has room for these eight bytes.
    let _ = writer.put(&bare(MessageType::CallConnectNak));
    let mut count = 0_u16;
    for problem in problems {
        if put_status_info(&mut writer, &problem).is_err() {
            break;
        }
        count = count.saturating_add(1);
    }
    let _ = writer.set_u16(6, count);
    let len = writer.len();
    if let Some(header) = packet::header(Kind::Control, len.saturating_sub(HEADER_LEN)) {
        let [_, _, high, low] = header;
        let _ = writer.set_u16(2, u16::from_be_bytes([high, low]));
    }
    writer.finish()
}
