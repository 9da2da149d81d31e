//! Steering as a simulated device has it: a table that shards write and each packet is looked up in.

use std::net::IpAddr;
use std::sync::Arc;

use crate::io::{Steering, SteeringFull};
use crate::shard::route::{Directory, Range};

/// What the kernel's map is to a real device; for the closure of
/// [`Network::add_device`](super::io::Network::add_device).
#[derive(Debug)]
pub struct SimSteering(Directory);

impl SimSteering {
    /// A table with room for the addresses of these ranges, and no others.
    #[must_use]
    pub fn new(ranges: &[Range]) -> Arc<Self> {
        Arc::new(Self(Directory::new(ranges)))
    }

    /// The queue of an IP packet; 0 if its destination has none.
    #[must_use]
    pub fn queue(&self, packet: &[u8]) -> usize {
        let destination = match packet.first().map(|byte| byte >> 4) {
            Some(4) => packet
                .get(16..)
                .and_then(|rest| rest.first_chunk::<4>())
                .map(|bytes| IpAddr::from(*bytes)),
            Some(6) => packet
                .get(24..)
                .and_then(|rest| rest.first_chunk::<16>())
                .map(|bytes| IpAddr::from(*bytes)),
            _ => None,
        };
        let owner = destination.and_then(|destination| self.0.owner(destination));
        owner.map_or(0, usize::from)
    }
}

impl Steering for SimSteering {
    fn steer(&self, address: IpAddr, queue: u16) -> Result<(), SteeringFull> {
        if self.0.claim(address, queue) {
            Ok(())
        } else {
            Err(SteeringFull)
        }
    }

    fn forget(&self, address: IpAddr) {
        if let Some(queue) = self.0.owner(address) {
            self.0.release(address, queue);
        }
    }
}
