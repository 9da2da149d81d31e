//! DHCPINFORM and its answer (RFC 2131 §3.4, §4.3.5; options RFC 2132, 3397, 3442, MS-DHCPE).
//!
//! ```text
//!  |op|htype|hlen|hops|xid 4|secs|flags|ciaddr|yiaddr|siaddr|giaddr|chaddr 16|sname 64|file 128|
//!  |63 82 53 63| options … |255| padded to 300 bytes
//! ```
//!
//! The client has its address from IPCP and asks for the rest. The answer goes to that address and
//! offers no lease. Options the client did not ask for are left out; classless routes go out under
//! both numbers, 121 and Microsoft's 249, when either was asked for. A whole option that does not
//! fit is left out, the least needed first.

use core::net::Ipv4Addr;

use super::profile::{OPTION_LEN_MAX, Profile, significant_len};
use super::{Discard, Ipv4Service, emit, udp_destination_port};
use crate::ip::checksum;
use crate::ip::packet::{UDP, V4};
use crate::wire::{Reader, TooShort, Writer};

// RFC 2131 §2, §4.1.
pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
pub(super) const BOOT_REQUEST: u8 = 1;
pub(super) const BOOT_REPLY: u8 = 2;
pub(super) const MAGIC: [u8; 4] = [99, 130, 83, 99];
pub(super) const INFORM: u8 = 8;
pub(super) const ACK: u8 = 5;
/// Relays and clients of BOOTP's day drop shorter messages (RFC 951 §3).
pub(super) const MESSAGE_LEN_MIN: usize = 300;
/// What every client takes (RFC 2131 §2), and the least that option 57 may say (RFC 2132 §9.10).
const PACKET_LEN_MIN: u16 = 576;
const IP_UDP_LEN: usize = 28;

// RFC 2132, RFC 3397, RFC 3442, MS-DHCPE §2.2.8.
pub(super) const PAD: u8 = 0;
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const DOMAIN: u8 = 15;
const NBNS: u8 = 44;
const NETBIOS_NODE_TYPE: u8 = 46;
pub(super) const MESSAGE_TYPE: u8 = 53;
const SERVER_ID: u8 = 54;
pub(super) const REQUESTED: u8 = 55;
const MESSAGE_LEN: u8 = 57;
const SEARCH: u8 = 119;
const CLASSLESS_ROUTES: u8 = 121;
const MS_CLASSLESS_ROUTES: u8 = 249;
pub(super) const END: u8 = 255;
/// Asks the name server first, then by broadcast (RFC 2132 §8.7).
const HYBRID_NODE: u8 = 8;

/// What is needed of a DHCPINFORM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inform<'a> {
    htype_hlen: [u8; 2],
    xid: [u8; 4],
    flags: [u8; 2],
    ciaddr: [u8; 4],
    giaddr: [u8; 4],
    chaddr: [u8; 16],
    /// `None`: the client has no wishes and is told everything.
    requested: Option<&'a [u8]>,
    packet_len_max: Option<u16>,
}

impl Inform<'_> {
    fn asks_for(&self, option: u8) -> bool {
        self.requested.is_none_or(|list| list.contains(&option))
    }
}

/// Whether `packet` is for a DHCP server.
pub(super) fn is_to_server(packet: &V4<'_>) -> bool {
    packet.protocol() == UDP
        && udp_destination_port(packet.payload(), packet.transport().part) == Some(SERVER_PORT)
}

/// Parses the DHCPINFORM of the client whose address is `client`.
pub(super) fn parse<'a>(packet: &V4<'a>, client: Ipv4Addr) -> Result<Inform<'a>, Discard> {
    let datagram = packet.payload();
    let len = u16::try_from(datagram.len()).map_err(|_| Discard::Malformed)?;
    let pseudo = checksum::pseudo_v4(packet.source(), packet.destination(), UDP, len);
    let message = emit::udp_payload(datagram, pseudo, true).ok_or(Discard::Malformed)?;
    let (inform, kind) = parse_message(message).map_err(|TooShort { .. }| Discard::Malformed)?;
    if kind != Some(INFORM) {
        return Err(Discard::Lease);
    }
    let is_own = inform.ciaddr == client.octets() || inform.ciaddr == [0; 4];
    if message.first() != Some(&BOOT_REQUEST) || !is_own {
        return Err(Discard::Malformed);
    }
    Ok(inform)
}

fn parse_message(message: &[u8]) -> Result<(Inform<'_>, Option<u8>), TooShort> {
    let mut reader = Reader::new(message);
    reader.u8()?;
    let htype_hlen = reader.array()?;
    reader.u8()?;
    let xid = reader.array()?;
    reader.u16()?;
    let flags = reader.array()?;
    let ciaddr = reader.array()?;
    reader.take(8)?;
    let giaddr = reader.array()?;
    let chaddr = reader.array()?;
    reader.take(64 + 128)?;
    let mut inform = Inform {
        htype_hlen,
        xid,
        flags,
        ciaddr,
        giaddr,
        chaddr,
        requested: None,
        packet_len_max: None,
    };
    let mut kind = None;
    if reader.array::<4>()? != MAGIC {
        return Ok((inform, None));
    }
    while let Ok(option) = reader.u8() {
        match option {
            PAD => continue,
            END => break,
            _ => {}
        }
        let len = usize::from(reader.u8()?);
        let mut value = reader.sub(len)?;
        match option {
            MESSAGE_TYPE => kind = Some(value.u8()?),
            REQUESTED => inform.requested = Some(value.rest()),
            MESSAGE_LEN => inform.packet_len_max = Some(value.u16()?),
            _ => {}
        }
    }
    Ok((inform, kind))
}

/// Writes the DHCPACK into `room` and returns the packet.
pub(super) fn emit<'a>(
    inform: &Inform<'_>,
    ipv4: Ipv4Service,
    profile: &Profile,
    mtu: u16,
    room: &'a mut [u8],
) -> Result<&'a [u8], TooShort> {
    // RFC 2131 §2 promises 576 bytes only; a client that says nothing is believed to take what its
    // link carries, because routes that are left out are worse than a message it might not like.
    let packet_len_max = inform
        .packet_len_max
        .map_or(mtu, |len| len.max(PACKET_LEN_MIN).min(mtu));
    let (gateway, client) = (ipv4.gateway, ipv4.client);
    let mut writer = emit::begin_udp_v4(room, (gateway, SERVER_PORT), (client, CLIENT_PORT))?;
    writer.u8(BOOT_REPLY)?;
    writer.put(&inform.htype_hlen)?;
    writer.u8(0)?;
    writer.put(&inform.xid)?;
    writer.u16(0)?;
    writer.put(&inform.flags)?;
    writer.put(&inform.ciaddr)?;
    writer.put(&[0; 4])?;
    writer.put(&gateway.octets())?;
    writer.put(&inform.giaddr)?;
    writer.put(&inform.chaddr)?;
    writer.put(&[0; 64 + 128])?;
    writer.put(&MAGIC)?;
    writer.put(&[MESSAGE_TYPE, 1, ACK])?;
    writer.put(&[SERVER_ID, 4])?;
    writer.put(&gateway.octets())?;
    put_wishes(
        &mut Wishes {
            writer: &mut writer,
            // The end of the list wants a byte.
            len_max: usize::from(packet_len_max).saturating_sub(1),
        },
        inform,
        gateway,
        profile,
    )?;
    writer.u8(END)?;
    let message_len = writer.len().saturating_sub(IP_UDP_LEN);
    for _ in message_len..MESSAGE_LEN_MIN {
        writer.u8(PAD)?;
    }
    emit::finish_udp_v4(writer, gateway, client)
}

/// Options that are left out, each whole, when they would make the packet longer than `len_max`.
struct Wishes<'w, 'a> {
    writer: &'w mut Writer<'a>,
    len_max: usize,
}

impl Wishes<'_, '_> {
    fn put(&mut self, option: u8, value: &[u8]) -> Result<(), TooShort> {
        let end = self
            .writer
            .len()
            .saturating_add(2)
            .saturating_add(value.len());
        let Ok(len @ 1..) = u8::try_from(value.len()) else {
            return Ok(());
        };
        if end > self.len_max {
            return Ok(());
        }
        self.writer.put(&[option, len])?;
        self.writer.put(value)
    }
}

/// Puts what the client asked for, the most needed first.
fn put_wishes(
    wishes: &mut Wishes<'_, '_>,
    inform: &Inform<'_>,
    gateway: Ipv4Addr,
    profile: &Profile,
) -> Result<(), TooShort> {
    let mut value = [0; OPTION_LEN_MAX];
    if inform.asks_for(SUBNET_MASK) {
        wishes.put(SUBNET_MASK, &profile.mask.octets())?;
    }
    if inform.asks_for(DNS) {
        wishes.put(DNS, addresses(&profile.dns_v4, &mut value)?)?;
    }
    if inform.asks_for(DOMAIN)
        && let Some(domain) = &profile.domain
    {
        wishes.put(DOMAIN, domain.as_bytes())?;
    }
    if inform.asks_for(CLASSLESS_ROUTES) || inform.asks_for(MS_CLASSLESS_ROUTES) {
        let routes = classless_routes(&profile.routes_v4, gateway, &mut value)?;
        wishes.put(CLASSLESS_ROUTES, routes)?;
        wishes.put(MS_CLASSLESS_ROUTES, routes)?;
    }
    if inform.asks_for(ROUTER) && profile.default_route_v4 {
        wishes.put(ROUTER, &gateway.octets())?;
    }
    if inform.asks_for(NBNS) {
        wishes.put(NBNS, addresses(&profile.nbns, &mut value)?)?;
    }
    if inform.asks_for(NETBIOS_NODE_TYPE) && !profile.nbns.is_empty() {
        wishes.put(NETBIOS_NODE_TYPE, &[HYBRID_NODE])?;
    }
    if inform.asks_for(SEARCH) {
        wishes.put(SEARCH, &profile.search)?;
    }
    Ok(())
}

fn addresses<'a>(
    list: &[Ipv4Addr],
    value: &'a mut [u8; OPTION_LEN_MAX],
) -> Result<&'a [u8], TooShort> {
    let mut writer = Writer::new(value);
    for address in list {
        writer.put(&address.octets())?;
    }
    Ok(writer.finish())
}

/// RFC 3442: prefix length, the bytes of the destination it covers, router.
fn classless_routes<'a>(
    routes: &[(Ipv4Addr, u8)],
    router: Ipv4Addr,
    value: &'a mut [u8; OPTION_LEN_MAX],
) -> Result<&'a [u8], TooShort> {
    let mut writer = Writer::new(value);
    for &(destination, prefix_len) in routes {
        let host_bits = 32_u32.saturating_sub(u32::from(prefix_len));
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        let network = (u32::from(destination) & mask).to_be_bytes();
        let significant = network.get(..significant_len(prefix_len));
        writer.u8(prefix_len)?;
        writer.put(significant.unwrap_or_default())?;
        writer.put(&router.octets())?;
    }
    Ok(writer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_classless_routes() {
        let mut value = [0; OPTION_LEN_MAX];
        let routes = [
            (Ipv4Addr::new(10, 0, 0, 0), 8),
            (Ipv4Addr::new(192, 168, 20, 77), 24),
        ];
        assert_eq!(
            classless_routes(&routes, Ipv4Addr::new(10, 8, 0, 1), &mut value).unwrap(),
            hex_literal::hex!("08 0a 0a080001  18 c0a814 0a080001")
        );
        let default = [(Ipv4Addr::new(1, 2, 3, 4), 0)];
        assert_eq!(
            classless_routes(&default, Ipv4Addr::new(10, 8, 0, 1), &mut value).unwrap(),
            hex_literal::hex!("00 0a080001")
        );
    }
}
