//! The only `unsafe`, the only system calls, the only clock.
