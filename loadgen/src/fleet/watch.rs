//! What is told of a run while it goes on: a line a second, or the live view on a terminal; and the
//! seconds as they close, kept and logged.

use std::io::IsTerminal as _;
use std::path::Path;

use datapath::sys::clock;
use datapath::time::{Duration, Instant};

use super::conduct::Standing;
use super::interval_log::IntervalLog;
use super::sample::Sample;
use super::screen::{Screen, View};
use super::tally::Tally;
use super::timeline::Timeline;
use crate::flags;
use crate::settings::Stop;

/// How often the live view is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug)]
enum Face {
    Quiet,
    Lines,
    Screen(Box<Screen>),
}

/// Where a run stands, for those who watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) now: Instant,
    pub(super) began: Instant,
    /// In a word, such as "holding".
    pub(super) doing: &'static str,
    pub(super) is_sending: bool,
    /// When that began and will be over; none while sessions are started, which takes as long as it
    /// takes.
    pub(super) span: Option<(Instant, Instant)>,
    pub(super) standing: Standing,
}

/// All that is told while a run goes on.
#[derive(Debug)]
pub(super) struct Watch {
    face: Face,
    told_at: Instant,
    pub(super) timeline: Timeline,
    log: Option<IntervalLog>,
    view: View,
}

impl Watch {
    /// Opens what is asked for, so that nothing is found missing when the run is over.
    pub(super) fn new(flags: &flags::Fleet, is_traffic: bool, shards: usize) -> Result<Self, Stop> {
        let log = flags.output.hdr_out.as_deref().map(|path| {
            IntervalLog::create(path)
                .map_err(|error| Stop::Failed(format!("cannot write {}: {error}", path.display())))
        });
        let is_json = flags.json.as_deref() == Some(Path::new("-"));
        let face = if flags.quiet {
            Face::Quiet
        } else if !is_json && std::io::stdout().is_terminal() {
            // A terminal that cannot be drawn on still takes lines.
            Screen::open().map_or(Face::Lines, |screen| Face::Screen(Box::new(screen)))
        } else {
            Face::Lines
        };
        Ok(Self {
            face,
            told_at: clock::now(),
            timeline: Timeline::new(shards),
            log: log.transpose()?,
            view: View::new(flags, is_traffic),
        })
    }

    /// Takes what a shard handed over.
    pub(super) fn add(&mut self, shard: usize, samples: Vec<Sample>) {
        for sample in samples {
            self.timeline.add(shard, sample);
        }
    }

    /// Tells of it if it is time to.
    pub(super) fn look(&mut self, sight: &Sight) {
        self.close(false);
        let interval = match self.face {
            Face::Quiet => return,
            Face::Lines => Duration::from_secs(1),
            Face::Screen(_) => DRAW_INTERVAL,
        };
        if sight.now.saturating_since(self.told_at) < interval {
            return;
        }
        self.told_at = sight.now;
        self.view.look(sight);
        match &mut self.face {
            Face::Quiet => {}
            Face::Lines => eprintln!("{}", self.view.line()),
            Face::Screen(screen) => screen.draw(&self.view),
        }
    }

    fn close(&mut self, is_over: bool) {
        while let Some(second) = self.timeline.close(is_over) {
            if let Some(log) = &mut self.log
                && let Err(error) = log.add(&second)
            {
                // The run is worth more than its log.
                self.log = None;
                self.view
                    .warn(format!("the log of --hdr-out is cut short: {error}"));
            }
            self.view.take(second, self.timeline.so_far());
        }
    }

    /// The run is over: gives the terminal back, and the tally its distributions.
    pub(super) fn finish(mut self, tally: &mut Tally) -> Timeline {
        self.close(true);
        self.face = Face::Quiet;
        if let Some(warning) = self.view.warning() {
            eprintln!("loadgen: {warning}");
        }
        self.timeline.add_to(tally);
        self.timeline
    }
}
