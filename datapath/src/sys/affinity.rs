//! Which processors there are, and staying on one.

use std::fmt;

use core_affinity::CoreId;

/// Numbers of the processors this process may run on, ascending; never empty.
#[must_use]
pub fn cpus() -> Vec<usize> {
    let mut cpus: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    cpus.sort_unstable();
    if cpus.is_empty() {
        cpus.push(0);
    }
    cpus
}

/// Pinning failed: the processor is not ours, or the system call is forbidden (a service under
/// `SystemCallFilter=~@resources`). A warning, not an end: the thread runs where it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPinned {
    /// The processor asked for.
    pub cpu: usize,
}

impl fmt::Display for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot stay on processor {}", self.cpu)
    }
}

impl std::error::Error for NotPinned {}

/// Keeps the calling thread on processor `cpu`.
pub fn pin(cpu: usize) -> Result<(), NotPinned> {
    if core_affinity::set_for_current(CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(NotPinned { cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_is_there_can_be_pinned_and_another_cannot() {
        let first = cpus()[0];
        std::thread::spawn(move || {
            assert_eq!(pin(first), Ok(()));
            assert_eq!(cpus(), [first]);
            assert_eq!(pin(1023), Err(NotPinned { cpu: 1023 }));
        })
        .join()
        .unwrap();
    }
}
