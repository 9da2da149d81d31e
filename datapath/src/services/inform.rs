//! The client's side of DHCPINFORM (RFC 2131 §3.4, §4.4.3): the question, and whether a packet is its
//! answer.
//!
//! The question is Windows' over PPP, as far as it is known: a broadcast with the WAN adapter's
//! hardware address, `MSFT 5.0` and the user class of remote access (MS-DHCPE §2.2). What the answer
//! says is not read: whoever asks it here wants to know whether, and how fast, one comes.

use core::net::Ipv4Addr;

use super::dhcp::{ACK, BOOT_REPLY, BOOT_REQUEST, CLIENT_PORT, END, INFORM, MAGIC, SERVER_PORT};
use super::dhcp::{MESSAGE_LEN_MIN, MESSAGE_TYPE, PAD, REQUESTED};
use super::emit;
use crate::ip::checksum;
use crate::ip::packet::{Packet, UDP};
use crate::wire::{Reader, TooShort, Writer};

/// Bytes of the question, all headers included.
pub const INFORM_LEN: usize = 328;

/// The hardware type and address length of Ethernet, which Windows' WAN adapter pretends to be, and
/// the address that all of them have.
const ETHERNET: [u8; 2] = [1, 6];
const WAN_ADAPTER: [u8; 6] = [0x00, 0x53, 0x45, 0x00, 0x00, 0x00];
// MS-DHCPE §2.2.2, §2.2.3.
const VENDOR_CLASS: u8 = 60;
const USER_CLASS: u8 = 77;
/// Mask, domain, router, DNS, NBNS, node type, static and classless routes under both numbers.
const WISHES: [u8; 12] = [1, 15, 3, 6, 44, 46, 47, 31, 33, 121, 249, 43];

/// Writes the DHCPINFORM of the client whose address is `client`.
///
/// # Errors
/// `room` is shorter than [`INFORM_LEN`].
pub fn emit_inform(client: Ipv4Addr, xid: [u8; 4], room: &mut [u8]) -> Result<&[u8], TooShort> {
    let source = (client, CLIENT_PORT);
    let mut writer = emit::begin_udp_v4(room, source, (Ipv4Addr::BROADCAST, SERVER_PORT))?;
    let head = writer.len();
    writer.u8(BOOT_REQUEST)?;
    writer.put(&ETHERNET)?;
    writer.u8(0)?;
    writer.put(&xid)?;
    writer.put(&[0; 4])?;
    writer.put(&client.octets())?;
    writer.put(&[0; 12])?;
    writer.put(&WAN_ADAPTER)?;
    writer.put(&[0; 10 + 64 + 128])?;
    writer.put(&MAGIC)?;
    writer.put(&[MESSAGE_TYPE, 1, INFORM])?;
    put_option(&mut writer, VENDOR_CLASS, b"MSFT 5.0")?;
    put_option(&mut writer, USER_CLASS, b"RRAS.Microsoft")?;
    put_option(&mut writer, REQUESTED, &WISHES)?;
    writer.u8(END)?;
    for _ in writer.len().saturating_sub(head)..MESSAGE_LEN_MIN {
        writer.u8(PAD)?;
    }
    emit::finish_udp_v4(writer, client, Ipv4Addr::BROADCAST)
}

fn put_option(writer: &mut Writer<'_>, option: u8, value: &[u8]) -> Result<(), TooShort> {
    writer.u8(option)?;
    writer.u8(u8::try_from(value.len()).unwrap_or(u8::MAX))?;
    writer.put(value)
}

/// Whether `packet` is the DHCPACK for the question with this `xid` from `client`.
#[must_use]
pub fn is_answer(packet: &[u8], client: Ipv4Addr, xid: [u8; 4]) -> bool {
    let Ok(Packet::V4(packet)) = Packet::parse(packet) else {
        return false;
    };
    if packet.protocol() != UDP || packet.destination() != client {
        return false;
    }
    let datagram = packet.payload();
    let Ok(len) = u16::try_from(datagram.len()) else {
        return false;
    };
    let ports = [SERVER_PORT, CLIENT_PORT].map(u16::to_be_bytes);
    let pseudo = checksum::pseudo_v4(packet.source(), packet.destination(), UDP, len);
    datagram.starts_with(ports.as_flattened())
        && emit::udp_payload(datagram, pseudo, true)
            .is_some_and(|message| is_ack(message, xid).unwrap_or(false))
}

fn is_ack(message: &[u8], xid: [u8; 4]) -> Result<bool, TooShort> {
    let mut reader = Reader::new(message);
    let is_reply = reader.u8()? == BOOT_REPLY;
    reader.take(3)?;
    let is_ours = reader.array::<4>()? == xid;
    reader.take(228)?;
    if !is_reply || !is_ours || reader.array::<4>()? != MAGIC {
        return Ok(false);
    }
    loop {
        match reader.u8()? {
            PAD => {}
            END => return Ok(false),
            option => {
                let len = usize::from(reader.u8()?);
                let mut value = reader.sub(len)?;
                if option == MESSAGE_TYPE {
                    return Ok(value.u8()? == ACK);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ipv4Service, dhcp, profile};
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 5);
    const XID: [u8; 4] = [1, 2, 3, 4];

    #[test]
    fn our_server_understands_the_question_and_we_its_answer() {
        let mut room = [0; INFORM_LEN];
        let question = emit_inform(CLIENT, XID, &mut room).unwrap();
        assert_eq!(question.len(), INFORM_LEN);
        let Ok(Packet::V4(packet)) = Packet::parse(question) else {
            panic!("no IPv4 packet")
        };
        let inform = dhcp::parse(&packet, CLIENT).unwrap();
        let ipv4 = Ipv4Service {
            client: CLIENT,
            gateway: Ipv4Addr::new(10, 8, 0, 1),
        };
        let profile = profile::Profile::new(&profile::ProfileConfig::default()).unwrap();
        let mut room = [0; 1500];
        let answer = dhcp::emit(&inform, ipv4, &profile, 1400, &mut room).unwrap();
        assert!(is_answer(answer, CLIENT, XID));
        assert!(!is_answer(answer, CLIENT, [0; 4]), "another question's");
        assert!(!is_answer(answer, ipv4.gateway, XID), "another client's");
        assert!(!is_answer(question, CLIENT, XID), "a question is no answer");
        for len in 0..answer.len() {
            assert!(!is_answer(answer.get(..len).unwrap(), CLIENT, XID), "{len}");
        }
    }
}
