//! Socket to TUN.
//!
//! ```text
//!  recv 64 KB   | stash | records … | part of one |
//! ```
//!
//! Records are opened where they were received; the start of one that is not there whole is moved to
//! the front before the next receive. Packets are merged for as long as the socket has more, at most
//! four receives.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use aws_lc_rs::aead::AES_128_GCM;
use datapath::ip::offload::VNET_HEADER_LEN;
use datapath::ip::offload::merge::{Merge, Offloads, Pushed};
use datapath::sys::copy_and_sum;
use datapath::time::Duration;

use super::super::Figure;
use super::super::meter::Sample;
use super::super::record::{
    HEADER_LEN, Half, PLAINTEXT_LEN_MAX, RECORD_LEN_MAX, SUFFIX_LEN, record_len,
};
use super::super::rig::{self, READ_LEN_MAX, Rig};
use super::super::socket;
use super::{PREFIX_LEN, packet_len, prefix};

const RECEIVE_LEN: usize = 64 << 10;
const RECEIVES_MAX: usize = 4;

/// Records to be opened, and packets to be written.
struct Packets {
    half: Half,
    merge: Merge,
    buffer: Vec<u8>,
    /// Received and not yet used, from the start of the buffer.
    len: usize,
}

impl Packets {
    fn new(offloads: Offloads) -> Self {
        Self {
            half: Half::new(&AES_128_GCM),
            merge: Merge::new(offloads).with_copy_and_sum(copy_and_sum::fastest()),
            buffer: vec![0; RECORD_LEN_MAX + RECEIVE_LEN],
            len: 0,
        }
    }

    /// Where to receive to.
    fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..self.len + RECEIVE_LEN]
    }

    /// Takes `len` more bytes; `write` gets what is ready for the TUN. Tells how many packets came.
    #[inline]
    fn push(&mut self, len: usize, write: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        let end = self.len + len;
        let (mut start, mut count) = (0, 0);
        while let Some(len) = record_len(&self.buffer[start..end])
            && start + len <= end
        {
            let record = &mut self.buffer[start..start + len];
            let plaintext_len = self.half.open(record)?;
            let mut at = HEADER_LEN;
            while at < HEADER_LEN + plaintext_len {
                let from = at + PREFIX_LEN;
                at = from + packet_len(&record[at..])?;
                let packet = &record[from..at];
                let mut give = |bytes: &[u8]| write(bytes);
                if self
                    .merge
                    .push(0, packet, &mut |aggregate| give(aggregate.bytes))
                    == Pushed::Direct
                {
                    // What lies before has been used: prefix and record header, or packet.
                    record[from - VNET_HEADER_LEN..from].fill(0);
                    write(&record[from - VNET_HEADER_LEN..at]);
                }
                count += 1;
            }
            start += len;
        }
        self.buffer.copy_within(start..end, 0);
        self.len = end - start;
        Ok(count)
    }

    fn flush(&mut self, write: &mut impl FnMut(&[u8])) {
        self.merge.flush(&mut |aggregate| write(aggregate.bytes));
    }
}

/// The client: plaintexts of records, sealed anew each time.
struct Client {
    half: Half,
    plaintexts: Vec<Vec<u8>>,
    wire: Vec<u8>,
}

impl Client {
    fn new(packets: &[Vec<u8>], is_packed: bool) -> Self {
        let mut plaintexts: Vec<Vec<u8>> = Vec::new();
        for packet in packets {
            let frame = [&prefix(packet.len()), packet.as_slice()].concat();
            match plaintexts.last_mut() {
                Some(last) if is_packed && last.len() + frame.len() <= PLAINTEXT_LEN_MAX => {
                    last.extend_from_slice(&frame);
                }
                _ => plaintexts.push(frame),
            }
        }
        Self {
            half: Half::new(&AES_128_GCM),
            plaintexts,
            wire: Vec::new(),
        }
    }

    /// The burst as it is on the wire.
    fn seal(&mut self) -> io::Result<&[u8]> {
        self.wire.clear();
        for plaintext in &self.plaintexts {
            let start = self.wire.len();
            self.wire.extend_from_slice(&[0; HEADER_LEN]);
            self.wire.extend_from_slice(plaintext);
            self.wire.extend_from_slice(&[0; SUFFIX_LEN]);
            self.half.seal(&mut self.wire[start..])?;
        }
        Ok(&self.wire)
    }
}

/// The whole way.
pub(super) struct Up<'a> {
    name: &'static str,
    rig: &'a Rig,
    client: Client,
    near: TcpStream,
    far: TcpStream,
    packets: Packets,
    count: usize,
    bytes: usize,
    drain: Vec<u8>,
}

impl<'a> Up<'a> {
    pub(super) fn new(
        name: &'static str,
        rig: &'a Rig,
        packets: &[Vec<u8>],
        is_packed: bool,
    ) -> io::Result<Self> {
        let (far, near) = socket::pair()?;
        far.set_nonblocking(true)?;
        near.set_nonblocking(true)?;
        Ok(Self {
            name,
            rig,
            client: Client::new(packets, is_packed),
            near,
            far,
            packets: Packets::new(Offloads {
                tcp: true,
                udp: rig.udp_offload,
            }),
            count: packets.len(),
            bytes: packets.iter().map(Vec::len).sum(),
            drain: vec![0; READ_LEN_MAX],
        })
    }
}

impl Figure for Up<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn measure(&mut self, slice: Duration) -> io::Result<Sample> {
        let mut sample = Sample::default();
        let Self {
            rig,
            client,
            near,
            far,
            packets,
            drain,
            ..
        } = self;
        while sample.wall < slice {
            let mut rest = client.seal()?;
            let mut came = 0;
            let mut writes = 0;
            // As much as the socket holds at a time; once it has grown, that is all.
            while came < self.count {
                while !rest.is_empty() {
                    match far.write(rest) {
                        Ok(len) => rest = &rest[len..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                let mut result = Ok(());
                let before = came;
                sample.time(|| {
                    let mut write = |bytes: &[u8]| {
                        writes += 1;
                        if let Err(error) = rig::write(&rig.gateway, bytes) {
                            result = Err(error);
                        }
                    };
                    let mut receives = 0;
                    loop {
                        match near.read(packets.room()) {
                            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                            Ok(len) => came += packets.push(len, &mut write)?,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                        receives += 1;
                        if receives % RECEIVES_MAX == 0 {
                            packets.flush(&mut write);
                        }
                    }
                    packets.flush(&mut write);
                    let count = came - before;
                    Ok((self.bytes / self.count * count, count))
                })?;
                result?;
            }
            let (_, left) = rig::drain(&rig.network, drain)?;
            if left != writes {
                return Err(io::Error::other(format!(
                    "{}: {writes} writes came out as {left}",
                    self.name
                )));
            }
        }
        Ok(sample)
    }
}

/// Without socket and TUN: what user space does.
pub(super) struct Crypt {
    name: &'static str,
    client: Client,
    packets: Packets,
    bytes: usize,
}

impl Crypt {
    pub(super) fn new(name: &'static str, packets: &[Vec<u8>]) -> Self {
        Self {
            name,
            client: Client::new(packets, true),
            packets: Packets::new(Offloads {
                tcp: true,
                udp: true,
            }),
            bytes: packets.iter().map(Vec::len).sum(),
        }
    }
}

impl Figure for Crypt {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn measure(&mut self, slice: Duration) -> io::Result<Sample> {
        let mut sample = Sample::default();
        let packets = &mut self.packets;
        while sample.wall < slice {
            let wire = self.client.seal()?;
            sample.time(|| {
                let mut count = 0;
                let mut write = |bytes: &[u8]| {
                    std::hint::black_box(bytes);
                };
                for piece in wire.chunks(RECEIVE_LEN) {
                    // Stands for the kernel's copy.
                    packets.room()[..piece.len()].copy_from_slice(piece);
                    count += packets.push(piece.len(), &mut write)?;
                }
                packets.flush(&mut write);
                Ok((self.bytes, count))
            })?;
        }
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::traffic::{self, Direction, Kind};
    use super::*;

    #[test]
    fn what_a_client_seals_is_written_as_it_would_be_merged() {
        let offloads = Offloads {
            tcp: true,
            udp: true,
        };
        for (kind, is_packed, receive_len) in [
            (Kind::Tcp, true, RECEIVE_LEN),
            (Kind::Tcp, false, 1000),
            (Kind::UdpFlow, true, 7),
            (Kind::UdpFlows, true, RECEIVE_LEN),
        ] {
            let bursts = traffic::packets(kind, Direction::Uplink, 1400, 100);
            let mut client = Client::new(&bursts, is_packed);
            let mut packets = Packets::new(offloads);
            let mut written = Vec::new();
            let mut count = 0;
            let mut write = |bytes: &[u8]| written.push(bytes.to_vec());
            for piece in client.seal().unwrap().chunks(receive_len) {
                packets.room()[..piece.len()].copy_from_slice(piece);
                count += packets.push(piece.len(), &mut write).unwrap();
            }
            packets.flush(&mut write);
            assert_eq!((count, packets.len), (100, 0));
            let mut expected = traffic::merged(&bursts);
            // Flows that share no place are sent off in another order.
            written.sort();
            expected.sort();
            assert!(written == expected, "{kind:?}");
        }
    }
}
