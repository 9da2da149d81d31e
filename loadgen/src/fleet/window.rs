//! Which numbers of a sequence have arrived: the last few thousand exactly, those before by count.

/// Numbers that are remembered, below the highest seen.
const LEN: u64 = 4096;
const WORDS: usize = 64;

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The first of this number, and no higher number came before.
    InOrder,
    /// The first of this number, after a higher one.
    Late,
    Duplicate,
    /// So far below the highest that it cannot be told whether it came before.
    TooOld,
}

/// The arrivals of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// One above the highest number seen.
    next: u64,
    seen: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }
}

impl Window {
    /// Notes the arrival of `number`.
    pub(crate) fn arrive(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            // What lies between is forgotten: those places now stand for numbers not seen yet.
            let skipped = (number - self.next).min(LEN);
            for missed in number - skipped..number {
                self.set(missed, false);
            }
            self.set(number, true);
            self.next = number.saturating_add(1);
            return Arrival::InOrder;
        }
        if self.next - number > LEN {
            return Arrival::TooOld;
        }
        if self.get(number) {
            return Arrival::Duplicate;
        }
        self.set(number, true);
        Arrival::Late
    }

    const fn place(number: u64) -> (usize, u64) {
        // Below WORDS by construction, so the narrowing loses nothing.
        let [low, high, ..] = ((number % LEN) / 64).to_le_bytes();
        (u16::from_le_bytes([low, high]) as usize, 1 << (number % 64))
    }

    fn get(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.seen.get(word).is_some_and(|seen| seen & bit != 0)
    }

    fn set(&mut self, number: u64, value: bool) {
        let (word, bit) = Self::place(number);
        if let Some(seen) = self.seen.get_mut(word) {
            *seen = if value { *seen | bit } else { *seen & !bit };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_arrival_is_told() {
        let mut window = Window::default();
        assert_eq!(window.arrive(0), Arrival::InOrder);
        assert_eq!(window.arrive(0), Arrival::Duplicate);
        assert_eq!(window.arrive(3), Arrival::InOrder);
        assert_eq!(window.arrive(1), Arrival::Late);
        assert_eq!(window.arrive(1), Arrival::Duplicate);
        assert_eq!(window.arrive(10_000), Arrival::InOrder);
        assert_eq!(window.arrive(2), Arrival::TooOld);
        assert_eq!(window.arrive(9_999), Arrival::Late);
        assert_eq!(window.arrive(10_000 - 4_095), Arrival::Late);
        assert_eq!(window.arrive(10_000 - 4_096), Arrival::TooOld);
        assert_eq!(window.arrive(u64::MAX), Arrival::InOrder);
    }

    #[test]
    fn it_agrees_with_a_set() {
        let mut window = Window::default();
        let mut seen = std::collections::HashSet::new();
        let mut highest = None;
        let mut state = 1_u64;
        for step in 0..100_000_u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let number = step + (state >> 33) % 4_000;
            let expected = match (seen.insert(number), highest) {
                (true, Some(high)) if number < high && high - number >= LEN => Arrival::TooOld,
                (true, Some(high)) if number < high => Arrival::Late,
                (true, _) => Arrival::InOrder,
                (false, Some(high)) if high - number >= LEN => Arrival::TooOld,
                (false, _) => Arrival::Duplicate,
            };
            highest = highest.max(Some(number));
            assert_eq!(
                window.arrive(number),
                expected,
                "{number} after {highest:?}"
            );
        }
    }
}
