//! Sets of CPUs as the kernel writes them: lists (`0-3,8`) and masks (`ff,ffffffff`).

use std::collections::BTreeSet;

/// More CPUs than any Linux has; a longer range is garbage.
const CPUS_MAX: u32 = 65_536;

/// The CPUs of a list; an empty text is the empty set.
pub(crate) fn list(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.trim().parse().ok()?;
        let last: u32 = last.trim().parse().ok()?;
        if last >= CPUS_MAX || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// How many bits a mask has; `None` if it is none.
pub(crate) fn mask_count(text: &str) -> Option<u32> {
    let mut count = 0_u32;
    for word in text.trim().split(',') {
        count = count.checked_add(u32::from_str_radix(word, 16).ok()?.count_ones())?;
    }
    Some(count)
}

/// The mask of these CPUs: words of 32 bits in hex, highest first.
pub(crate) fn mask(cpus: impl IntoIterator<Item = u32>) -> String {
    let mut words = vec![0_u32];
    for cpu in cpus.into_iter().filter(|&cpu| cpu < CPUS_MAX) {
        let index = (cpu / 32) as usize;
        if index >= words.len() {
            words.resize(index.saturating_add(1), 0);
        }
        if let Some(word) = words.get_mut(index) {
            *word |= 1 << (cpu % 32);
        }
    }
    let mut words = words.iter().rev();
    let first = words
        .next()
        .map_or_else(String::new, |word| format!("{word:x}"));
    words.fold(first, |text, word| format!("{text},{word:08x}"))
}

/// The list of these CPUs, ranges joined.
pub(crate) fn shown(cpus: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let parts: Vec<String> = ranges
        .iter()
        .map(|&(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_are_those_of_the_kernel() {
        let cpus = list("0-2,8\n").unwrap();
        assert_eq!(shown(&cpus), "0-2,8");
        assert_eq!(mask(cpus), "107");
        assert_eq!(mask(0..64), "ffffffff,ffffffff");
        assert_eq!(mask([33]), "2,00000000");
        assert_eq!(mask_count("ffffffff,00000001"), Some(33));
        assert_eq!(list(""), Some(BTreeSet::new()));
        for garbage in ["x", "3-1", "0-4294967295", "1-", "-"] {
            assert_eq!(list(garbage), None, "{garbage}");
        }
        assert_eq!(mask_count("zz"), None);
    }
}
