//! Benchmarks of the data path, per layer and as a whole.
//!
//! [`paths`] is the list of what is measured per layer: by the clock (`cargo bench`, in `layers/`) and by
//! instructions and allocations ([`gate`]). The rest is what everything is judged against, [`floor`], the
//! gateway as a whole beside it, [`e2e`], what a packet costs the gateway by instructions and cache
//! lines, [`cost`], and what they share, [`fixtures`].

pub mod cost;

pub mod fixtures;

pub mod floor;

pub mod gate;

pub mod paths;

pub mod e2e;
