//! Comings and goings: sessions leave at a rate, each in one of several ways, and come back after a
//! while.

use datapath::session::Leave;
use datapath::time::Duration;

use super::curve::Curve;
use crate::seed::Stream;

/// How a session leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As its user would end it.
    Polite,
    /// Its host crashes and comes back: RST.
    Reset,
    /// Its process is killed: FIN, and no word before it.
    Close,
    /// It loses its network: nothing is sent or answered any more.
    Silent,
}

impl Ending {
    pub(crate) const ALL: [Self; 4] = [Self::Polite, Self::Reset, Self::Close, Self::Silent];

    /// As reports and scenario files call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Polite => "polite",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::Silent => "silent",
        }
    }

    /// What the data path is told; a polite end is not without a word.
    pub(crate) const fn leave(self) -> Option<Leave> {
        match self {
            Self::Polite => None,
            Self::Reset => Some(Leave::Reset),
            Self::Close => Some(Leave::Close),
            Self::Silent => Some(Leave::Silence),
        }
    }
}

/// How often each ending is chosen, in the order of [`Ending::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weights(pub(crate) [u32; 4]);

impl Weights {
    pub(crate) const POLITE: Self = Self([1, 0, 0, 0]);

    pub(crate) fn choose(&self, random: &mut Stream) -> Ending {
        let sum: u64 = self.0.iter().map(|&weight| u64::from(weight)).sum();
        let mut left = random.below(sum);
        for (ending, &weight) in Ending::ALL.into_iter().zip(&self.0) {
            match left.checked_sub(u64::from(weight)) {
                Some(rest) => left = rest,
                None => return ending,
            }
        }
        Ending::Polite
    }
}

/// Sessions that leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Churn {
    pub(crate) time: Duration,
    /// Endings a second, of the whole run.
    pub(crate) rate: f64,
    pub(crate) endings: Weights,
    /// From the end of a session to its next start; `None`: it stays away.
    pub(crate) return_after: Option<Duration>,
}

impl Churn {
    /// Endings that are planned.
    pub(crate) fn count(&self) -> u32 {
        Curve::Even { rate: self.rate }.count_within(self.time)
    }

    /// Connections that are dead and still there, at most: those that fell silent.
    pub(crate) fn silent_max(&self) -> u32 {
        match self.endings.0 {
            [.., 0] => 0,
            _ => self.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn endings_are_chosen_by_weight() {
        let weights = Weights([3, 0, 1, 0]);
        let mut counts = [0; 4];
        for number in 0..4_000 {
            let ending = weights.choose(&mut Seed(3).stream(number));
            counts[Ending::ALL
                .iter()
                .position(|&known| known == ending)
                .unwrap()] += 1;
        }
        let [polite, reset, close, silent] = counts;
        assert_eq!((reset, silent), (0, 0));
        assert!(
            (2_800..3_200).contains(&polite) && close == 4_000 - polite,
            "{counts:?}"
        );
        assert_eq!(
            Weights([0; 4]).choose(&mut Seed(0).stream(0)),
            Ending::Polite
        );
    }
}
