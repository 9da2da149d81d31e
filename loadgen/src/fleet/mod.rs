//! Many clients in one process: `loadgen storm` and `loadgen traffic`.
//!
//! ```text
//!   flags ─▶ plan ─▶ shards (owner: starts, counts, packets) ─┐
//!                      ▲ acts            counts │             ├─▶ tally, merged ─▶ report
//!                      └──── conductor ◀────────┘             │
//! ```
//!
//! A shard is the data path's own loop in the client role, on a thread of its own with every
//! `K`th session. The conductor, on the main thread, moves all of them from one act to the next
//! and lets the run be watched; it is the only one that waits for anything.
//!
//! Open loop: each start and each packet has a planned time that nothing moves. Times count from
//! there, so what is late by the server's fault is seen in full, and what is late by ours marks the
//! result *generator-bound*.

pub(crate) mod sizes;

pub(crate) mod threshold;

mod conduct;

mod pace;

mod window;

mod tally;

mod sample;

mod timeline;

mod interval_log;

mod screen;

mod watch;

mod traffic;

mod owner;

mod percentiles;

mod report;

mod output;

mod run;

pub(crate) use self::output::page;
pub(crate) use self::pace::Pace;
pub(crate) use self::run::{Signals, storm, traffic};
pub(crate) use self::sizes::Sizes;
pub(crate) use self::traffic::{StreamRequest, StreamTally};
pub(crate) use self::window::{Arrival, Window};
