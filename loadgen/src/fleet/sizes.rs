//! The sizes of packets: one, a list, or a mix, always in the same order.

use std::fmt;
use std::str::FromStr;

use crate::payload;

/// Bytes of IP packets, taken in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes(Vec<u16>);

/// Seven small, four middling, one full: spread so that no two full ones are near.
const IMIX: [u16; 12] = [64, 570, 64, 64, 570, 64, 1400, 64, 570, 64, 64, 570];

impl Sizes {
    /// These sizes, if there are any and each is one.
    pub(crate) fn new(sizes: Vec<u16>) -> Option<Self> {
        let range = payload::PACKET_LEN_MIN..=payload::PACKET_LEN_MAX;
        let is_good = !sizes.is_empty() && sizes.iter().all(|size| range.contains(size));
        is_good.then_some(Self(sizes))
    }

    /// The size of the packet with this number.
    pub(crate) fn at(&self, number: u64) -> u16 {
        let count = self.0.len() as u64;
        let index = usize::try_from(number.checked_rem(count).unwrap_or(0)).unwrap_or(0);
        self.0
            .get(index)
            .copied()
            .unwrap_or(payload::PACKET_LEN_MIN)
    }

    /// The mean.
    pub(crate) fn mean(&self) -> f64 {
        let sum: f64 = self.0.iter().copied().map(f64::from).sum();
        sum / (self.0.len().max(1) as f64)
    }

    pub(crate) fn list(&self) -> &[u16] {
        &self.0
    }
}

impl Default for Sizes {
    /// The usual MTU of a tunnel.
    fn default() -> Self {
        Self(vec![1400])
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "imix" {
            return Ok(Self(IMIX.to_vec()));
        }
        let range = payload::PACKET_LEN_MIN..=payload::PACKET_LEN_MAX;
        let size = |text: &str| {
            let size = text.trim().parse().ok();
            size.filter(|size| range.contains(size))
                .ok_or_else(|| format!("{text:?} is not imix and not a number in {range:?}"))
        };
        Ok(Self(text.split(',').map(size).collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == IMIX {
            return f.write_str("imix");
        }
        let list: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&list.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_turn() {
        let sizes: Sizes = "64,1400".parse().unwrap();
        assert_eq!([0, 1, 2].map(|number| sizes.at(number)), [64, 1400, 64]);
        let imix: Sizes = "imix".parse().unwrap();
        assert!((imix.mean() - (7.0 * 64.0 + 4.0 * 570.0 + 1400.0) / 12.0).abs() < 1e-9);
        assert_eq!(imix.to_string(), "imix");
        for bad in ["", "59", "9000", "64,", "imax"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
    }
}
