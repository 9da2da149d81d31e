//! What may be wrong or odd about a packet of a flow.

use proptest::prelude::*;
use proptest::sample::select;

use crate::flow::{ACK, CWR, ECE, FIN, PSH, URG, at, checksum_at, put, seal, transport_at};

/// What is wrong or odd about a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Oddity {
    None,
    WrongIpChecksum,
    WrongChecksum,
    /// The checksum that is computed as zero, as zero.
    ZeroChecksum,
    /// The same, as 0xFFFF.
    OnesChecksum,
    NoChecksum,
    Identification,
    Sequence,
    Ttl,
    Tos,
    DontFragment,
    Reserved,
    MoreFragments,
    Window,
    Acknowledged,
    Urgent,
    Option,
    ReservedFlags,
    UdpLength,
    TotalLength,
    DataOffset,
    FlowLabel,
    AnyByte(u8, u8),
}

impl Oddity {
    /// Changes the packet; checksums that are not the point are put right again.
    pub(crate) fn apply(self, packet: &mut Vec<u8>) {
        let t = transport_at(packet);
        let is_v4 = t == 20;
        let is_tcp = checksum_at(packet) == t + 16;
        let last = packet.len() - 1;
        match self {
            Self::None => {}
            Self::WrongIpChecksum if is_v4 => packet[10] ^= 1,
            Self::WrongChecksum => packet[last] ^= 0x10,
            Self::ZeroChecksum | Self::OnesChecksum => {
                let payload_at = last & !1;
                put_or_byte(packet, payload_at, 0);
                seal(packet);
                let field = checksum_at(packet);
                let sum = at(packet, field);
                if last.is_multiple_of(2) {
                    return;
                }
                put_or_byte(packet, payload_at, sum);
                seal(packet);
                put(
                    packet,
                    field,
                    if self == Self::ZeroChecksum {
                        0
                    } else {
                        0xffff
                    },
                );
                return;
            }
            Self::NoChecksum if !is_tcp => {
                let field = checksum_at(packet);
                put(packet, field, 0);
                return;
            }
            Self::Identification if is_v4 => packet[5] ^= 4,
            Self::Sequence if is_tcp => packet[t + 7] ^= 4,
            Self::Ttl => packet[if is_v4 { 8 } else { 7 }] ^= 1,
            Self::Tos => packet[1] ^= if is_v4 { 3 } else { 0x30 },
            Self::DontFragment if is_v4 => packet[6] ^= 0x40,
            Self::Reserved if is_v4 => packet[6] ^= 0x80,
            Self::MoreFragments if is_v4 => packet[6] ^= 0x20,
            Self::Window if is_tcp => packet[t + 15] ^= 1,
            Self::Acknowledged if is_tcp => packet[t + 11] ^= 1,
            Self::Urgent if is_tcp => packet[t + 19] ^= 1,
            Self::Option if is_tcp && packet[t + 12] > 0x50 => packet[t + 27] ^= 1,
            Self::ReservedFlags if is_tcp => packet[t + 12] |= 1,
            Self::UdpLength if !is_tcp => packet[t + 5] ^= 1,
            Self::TotalLength => {
                packet.pop();
            }
            Self::DataOffset if is_tcp => packet[t + 12] ^= 0x80,
            Self::FlowLabel if !is_v4 => packet[3] ^= 1,
            Self::AnyByte(place, byte) => {
                let place = usize::from(place) % packet.len();
                packet[place] ^= byte;
                return;
            }
            _ => {}
        }
        if !matches!(self, Self::WrongIpChecksum | Self::WrongChecksum) {
            seal(packet);
        }
    }
}

fn put_or_byte(packet: &mut [u8], place: usize, value: u16) {
    if place + 1 < packet.len() {
        put(packet, place, value);
    }
}

/// A packet to come: of which flow, how long, with which flags, how odd.
pub(crate) type Step = (usize, usize, u8, Oddity);

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let oddities = vec![
        Oddity::WrongIpChecksum,
        Oddity::WrongChecksum,
        Oddity::ZeroChecksum,
        Oddity::OnesChecksum,
        Oddity::NoChecksum,
        Oddity::Identification,
        Oddity::Sequence,
        Oddity::Ttl,
        Oddity::Tos,
        Oddity::DontFragment,
        Oddity::Reserved,
        Oddity::MoreFragments,
        Oddity::Window,
        Oddity::Acknowledged,
        Oddity::Urgent,
        Oddity::Option,
        Oddity::ReservedFlags,
        Oddity::UdpLength,
        Oddity::TotalLength,
        Oddity::DataOffset,
        Oddity::FlowLabel,
    ];
    (
        0..6_usize,
        prop_oneof![8 => Just(1300_usize), 1 => 0..1400_usize, 1 => select(vec![0, 1, 256, 257, 1299, 1301])],
        prop_oneof![
            8 => Just(ACK),
            1 => select(vec![ACK | PSH, ACK | FIN, ACK | ECE, ACK | CWR, ACK | URG, 2, 18, 4, 0]),
        ],
        prop_oneof![
            8 => Just(Oddity::None),
            1 => select(oddities),
            1 => (0..80_u8, any::<u8>()).prop_map(|(place, byte)| Oddity::AnyByte(place, byte)),
        ],
    )
}
