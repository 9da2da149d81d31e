//! `tun`: reading and writing, plain packets and superpackets; a write includes the kernel's forwarding.

use std::io;

use datapath::time::Duration;

use super::Figure;
use super::meter::Sample;
use super::rig::{self, READ_LEN_MAX, Rig};
use super::traffic::{self, Direction, Kind};

pub(super) fn figures(rig: &Rig) -> Vec<Box<dyn Figure + '_>> {
    let mut figures: Vec<Box<dyn Figure>> = Vec::new();
    for (name, kind, len, count, is_merged) in [
        ("plain/1400", Kind::UdpFlows, 1400, 256, false),
        ("plain/64", Kind::UdpFlows, 64, 256, false),
        ("tcp 48x1360", Kind::Tcp, 1400, 48 * 8, true),
        ("udp 47x1372", Kind::UdpFlow, 1400, 47 * 8, true),
    ] {
        if kind == Kind::UdpFlow && !rig.udp_offload {
            continue;
        }
        for (verb, direction) in [("read", Direction::Downlink), ("write", Direction::Uplink)] {
            let packets = traffic::packets(kind, direction, len, count);
            let writes = if is_merged {
                traffic::merged(&packets)
            } else {
                traffic::plain(&packets)
            };
            figures.push(Box::new(Tun {
                name: format!("tun/{verb} {name}"),
                rig,
                direction,
                writes,
                buffer: vec![0; READ_LEN_MAX],
            }));
        }
    }
    figures
}

struct Tun<'a> {
    name: String,
    rig: &'a Rig,
    direction: Direction,
    writes: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Figure for Tun<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn measure(&mut self, slice: Duration) -> io::Result<Sample> {
        let Rig {
            gateway, network, ..
        } = self.rig;
        let expected = self.writes.len();
        let bytes = self.writes.iter().map(|write| write.len() - 10).sum();
        let mut sample = Sample::default();
        while sample.wall < slice {
            let came = if self.direction == Direction::Downlink {
                for write in &self.writes {
                    rig::write(network, write)?;
                }
                let mut came = (0, 0);
                sample.time(|| {
                    came = rig::drain(gateway, &mut self.buffer)?;
                    Ok((bytes, expected))
                })?;
                came
            } else {
                sample.time(|| {
                    for write in &self.writes {
                        rig::write(gateway, write)?;
                    }
                    Ok((bytes, expected))
                })?;
                rig::drain(network, &mut self.buffer)?
            };
            if came != (bytes, expected) {
                let name = &self.name;
                return Err(io::Error::other(format!(
                    "{name}: wrote {expected} packets of {bytes} bytes, read {came:?}"
                )));
            }
        }
        Ok(sample)
    }
}
