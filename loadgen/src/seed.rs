//! Choices that look random and are the same in every run with the same seed.

/// What all choices of a run follow from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    /// The choices about subject `number`, whatever was chosen about others.
    pub(crate) const fn stream(self, number: u64) -> Stream {
        // The odd constant is splitmix64's own; the product tells neighbours apart.
        let start = self.0 ^ number.wrapping_mul(0xd134_2543_de82_ef95);
        Stream(start)
    }
}

/// A sequence of choices (splitmix64, by S. Vigna).
#[derive(Clone, Debug)]
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A place in a list of `len`, or 0 if that is 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A number below `end`, or 0 if that is 0. Not quite even, by less than `end` in 2^64.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        match self.next().checked_rem(end) {
            Some(number) => number,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_their_own_and_repeat() {
        let draw = |seed: u64, number: u64| Seed(seed).stream(number).next();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        let mut stream = Seed(1).stream(0);
        assert!((0..1000).all(|_| stream.below(7) < 7) && stream.below(0) == 0);
    }
}
