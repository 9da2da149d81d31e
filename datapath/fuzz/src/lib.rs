//! What libFuzzer drives; see `targets`.
pub mod targets;
