//! Which session is which client: one persona, or a weighted mix in which every block of sessions has
//! each persona exactly as often as its weight says.

use std::str::FromStr;

use super::{PERSONAS, Persona};
use crate::seed::Seed;

/// All weights of a mix together, at most.
const WEIGHT_MAX: u32 = 1_000;

/// Personas and how many sessions of each block are of that kind; empty is a plain client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mix(Vec<(&'static Persona, u32)>);

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut mix: Vec<(&'static Persona, u32)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, weight) = match part.split_once('=') {
                Some((name, weight)) => (name.trim(), weight.trim()),
                None => (part, "1"),
            };
            let persona = find(name)?;
            let weight: u32 = weight
                .parse()
                .ok()
                .filter(|weight| (1..=WEIGHT_MAX).contains(weight))
                .ok_or_else(|| format!("the weight of {name} is not between 1 and {WEIGHT_MAX}"))?;
            if mix.iter().any(|(known, _)| known.name == persona.name) {
                return Err(format!("{name} is there twice"));
            }
            mix.push((persona, weight));
        }
        if mix.iter().map(|(_, weight)| weight).sum::<u32>() > WEIGHT_MAX {
            return Err(format!("the weights add up to more than {WEIGHT_MAX}"));
        }
        Ok(Self(mix))
    }
}

fn find(name: &str) -> Result<&'static Persona, String> {
    PERSONAS
        .iter()
        .find(|persona| persona.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = PERSONAS.iter().map(|persona| persona.name).collect();
            format!(
                "there is no persona {name:?}; there are {}",
                names.join(", ")
            )
        })
}

impl Mix {
    /// The personas, in the order they were given.
    pub(crate) fn personas(&self) -> impl Iterator<Item = &'static Persona> {
        self.0.iter().map(|&(persona, _)| persona)
    }

    /// Which of [`Mix::personas`] session `number` is; 0 without any.
    pub(crate) fn of(&self, seed: Seed, number: u32) -> usize {
        let block_len: u32 = self.0.iter().map(|(_, weight)| weight).sum();
        if self.0.len() < 2 || block_len == 0 {
            return 0;
        }
        let mut block: Vec<usize> = self
            .0
            .iter()
            .enumerate()
            .flat_map(|(index, &(_, weight))| std::iter::repeat_n(index, weight as usize))
            .collect();
        let mut random = seed.stream(u64::from(number / block_len));
        // Fisher and Yates.
        for end in (1..block.len()).rev() {
            block.swap(end, random.index(end + 1));
        }
        let place = (number % block_len) as usize;
        block.get(place).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_each_persona_as_often_as_its_weight() {
        let mix: Mix = "windows-11=6, routeros,sstpc=3".parse().unwrap();
        let drawn: Vec<usize> = (0..100).map(|n| mix.of(Seed(7), n)).collect();
        for block in drawn.chunks(10) {
            let count = |kind: usize| block.iter().filter(|&&drawn| drawn == kind).count();
            assert_eq!([count(0), count(1), count(2)], [6, 1, 3]);
        }
        let again: Vec<usize> = (0..100).map(|n| mix.of(Seed(7), n)).collect();
        assert_eq!(drawn, again, "the seed decides");
        let other: Vec<usize> = (0..100).map(|n| mix.of(Seed(8), n)).collect();
        assert_ne!(drawn, other, "another seed decides otherwise");
        assert_ne!(drawn[..10], drawn[10..20], "blocks differ");
    }

    #[test]
    fn a_mix_that_is_none_is_refused() {
        for (text, word) in [
            (
                "windows-95",
                "there is no persona \"windows-95\"; there are windows-10",
            ),
            ("sstpc=0", "not between 1 and 1000"),
            ("sstpc=x", "not between"),
            ("sstpc,sstpc=2", "twice"),
            ("sstpc=600,routeros=600", "add up"),
            ("", "there is no persona"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
