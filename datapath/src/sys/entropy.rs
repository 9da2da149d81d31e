//! The system's random generator.

use crate::output::Entropy;

/// Unpredictable bytes, by the generator of aws-lc, which the kernel seeds and reseeds; it works in
/// user space, so a draw costs no system call.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    ///
    /// If the system has no randomness to give: nothing secure can be done without.
    fn fill(&mut self, bytes: &mut [u8]) {
        #[expect(
            clippy::expect_used,
            reason = "going on with predictable bytes is worse"
        )]
        aws_lc_rs::rand::fill(bytes).expect("the system's random generator works");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        let first: [u8; 32] = SystemEntropy.array();
        let second: [u8; 32] = SystemEntropy.array();
        assert_ne!(first, second);
        assert_ne!(first, [0; 32]);
    }
}
