//! Stateless DHCPv6: Information-request and Reply (RFC 8415 §18.2.6, §18.3.6; options RFC 3646).
//!
//! ```text
//!  client 546 → ff02::1:2 port 547   |11|transaction 3| Client-ID, Option-Request, …
//!  client 546 ← gateway 547          | 7|transaction 3| Client-ID, Server-ID, DNS, search list
//! ```

use core::net::Ipv6Addr;

use super::profile::Profile;
use super::{Discard, emit, udp_destination_port};
use crate::ip::checksum;
use crate::ip::packet::{Part, UDP, V6};
use crate::wire::{Reader, TooShort, Writer};

// RFC 8415 §7.1 to §7.3.
const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;
/// `ff02::1:2`, all relay agents and servers.
const ALL_SERVERS: u128 = 0xff02 << 112 | 0x1_0002;
const INFORMATION_REQUEST: u8 = 11;
const REPLY: u8 = 7;
// RFC 8415 §21, RFC 3646 §3, §4.
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const OPTION_REQUEST: u16 = 6;
const DNS: u16 = 23;
const SEARCH: u16 = 24;
const IA_PD: u16 = 25;
const REFRESH_TIME: u16 = 32;
/// RFC 8415 §11.1: type and at most 128 bytes.
const DUID_LEN_MAX: usize = 130;
/// RFC 8415 §11.5.
const DUID_UUID: [u8; 2] = [0, 4];

/// The default of RFC 8415 §7.6, told for the sake of clients that have another.
const REFRESH_S: u32 = 86_400;
const HOP_LIMIT: u8 = 64;

/// What is needed of an Information-request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    transaction: [u8; 3],
    client_id: Option<&'a [u8]>,
    /// `None`: the client has no wishes and is told everything.
    requested: Option<&'a [u8]>,
}

impl Request<'_> {
    fn asks_for(&self, option: u16) -> bool {
        self.requested
            .is_none_or(|list| list.as_chunks().0.contains(&option.to_be_bytes()))
    }
}

/// Whether `packet` is for DHCPv6 servers. Without the Server Unicast option, which is not offered
/// here, clients may write to the group only (RFC 8415 §16).
pub(super) fn is_to_server(packet: &V6<'_>) -> bool {
    udp_destination_port(packet.payload(), Part::Whole) == Some(SERVER_PORT)
        && packet.destination() == Ipv6Addr::from(ALL_SERVERS)
}

/// Parses an Information-request (RFC 8415 §16.12).
pub(super) fn parse<'a>(packet: &V6<'a>, profile: &Profile) -> Result<Request<'a>, Discard> {
    let datagram = packet.payload();
    let len = u32::try_from(datagram.len()).map_err(|_| Discard::Malformed)?;
    let pseudo = checksum::pseudo_v6(packet.source(), packet.destination(), UDP, len);
    let message = emit::udp_payload(datagram, pseudo, false).ok_or(Discard::Malformed)?;
    let mut reader = Reader::new(message);
    let [kind, transaction @ ..] = reader.array::<4>().map_err(|_| Discard::Malformed)?;
    if kind != INFORMATION_REQUEST {
        return Err(Discard::Lease);
    }
    // RFC 8415 §13.1: it comes from the client's link-local address.
    if !packet.source().is_unicast_link_local() {
        return Err(Discard::Malformed);
    }
    parse_options(transaction, reader, profile).map_err(|TooShort { .. }| Discard::Malformed)?
}

fn parse_options<'a>(
    transaction: [u8; 3],
    mut reader: Reader<'a>,
    profile: &Profile,
) -> Result<Result<Request<'a>, Discard>, TooShort> {
    let mut request = Request {
        transaction,
        client_id: None,
        requested: None,
    };
    while !reader.is_empty() {
        let option = reader.u16()?;
        let len = usize::from(reader.u16()?);
        let value = reader.take(len)?;
        match option {
            CLIENT_ID if value.len() > DUID_LEN_MAX => return Ok(Err(Discard::Malformed)),
            CLIENT_ID => request.client_id = Some(value),
            // Meant for another server.
            SERVER_ID if value != server_id(profile) => return Ok(Err(Discard::Unserved)),
            OPTION_REQUEST => request.requested = Some(value),
            IA_NA | IA_TA | IA_PD => return Ok(Err(Discard::Lease)),
            _ => {}
        }
    }
    Ok(Ok(request))
}

/// Writes the Reply to `to` into `room` and returns the packet.
pub(super) fn emit<'a>(
    request: &Request<'_>,
    (from, to): (Ipv6Addr, Ipv6Addr),
    profile: &Profile,
    room: &'a mut [u8],
) -> Result<&'a [u8], TooShort> {
    let mut writer = emit::begin_v6(room, UDP, HOP_LIMIT, from, to)?;
    emit::put_udp_header(&mut writer, SERVER_PORT, CLIENT_PORT)?;
    writer.u8(REPLY)?;
    writer.put(&request.transaction)?;
    if let Some(id) = request.client_id {
        put_option_header(&mut writer, CLIENT_ID, id.len())?;
        writer.put(id)?;
    }
    let server_id = server_id(profile);
    put_option_header(&mut writer, SERVER_ID, server_id.len())?;
    writer.put(&server_id)?;
    if request.asks_for(DNS) && !profile.dns_v6.is_empty() {
        put_option_header(&mut writer, DNS, profile.dns_v6.len() << 4)?;
        for server in &profile.dns_v6 {
            writer.put(&server.octets())?;
        }
    }
    if request.asks_for(SEARCH) && !profile.search.is_empty() {
        put_option_header(&mut writer, SEARCH, profile.search.len())?;
        writer.put(&profile.search)?;
    }
    if request.asks_for(REFRESH_TIME) {
        put_option_header(&mut writer, REFRESH_TIME, 4)?;
        writer.u32(REFRESH_S)?;
    }
    emit::finish_udp_v6(writer, from, to)
}

/// The gateway's DUID.
fn server_id(profile: &Profile) -> [u8; 18] {
    let mut duid = [0; 18];
    let (kind, uuid) = duid.split_at_mut(DUID_UUID.len());
    kind.copy_from_slice(&DUID_UUID);
    uuid.copy_from_slice(&profile.server_id);
    duid
}

fn put_option_header(writer: &mut Writer<'_>, option: u16, len: usize) -> Result<(), TooShort> {
    let len = u16::try_from(len).map_err(|_| TooShort {
        wanted: len,
        left: usize::from(u16::MAX),
    })?;
    writer.u16(option)?;
    writer.u16(len)
}
