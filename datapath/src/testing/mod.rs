//! Doubles for tests and simulation: clock, entropy, Io, whole worlds.
//!
//! Everything here is one thread and one seed: the same seed gives the same run, completion by
//! completion, which [`io::Network::trace_hash`] proves.

pub mod clock;

pub mod io;

pub mod steering;

pub mod rng;

pub mod fixtures;

pub mod pair;

pub mod world;
