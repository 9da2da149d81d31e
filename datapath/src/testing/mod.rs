//! Doubles for tests and simulation: clock, entropy, Io, whole worlds.
