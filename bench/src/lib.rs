//! Benchmarks of the data path, per layer, named `layer/action/size`.
//!
//! `cargo bench -p bench` runs them all; each file of `benches/` is one layer. This crate holds what
//! they share, [`fixtures`], what everything is judged against, [`floor`], and the gateway as a whole
//! beside it, [`e2e`].

pub mod cost;

pub mod fixtures;

pub mod floor;

pub mod e2e;
