//! The live view on a terminal.
//!
//! It is drawn on the terminal's other screen, and what was on the first comes back when it is left,
//! also if loadgen panics. Keys are not read, so Ctrl-C stays what it is: a signal that ends the run
//! in order.

use std::collections::VecDeque;
use std::io::{self, Stdout, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use datapath::time::Instant;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Row, Sparkline, Table};
use ratatui::{Frame, Terminal};

use super::conduct::Standing;
use super::sample::{Distributions, Metric};
use super::timeline::{Quantiles, Second};
use super::watch::{Act, Sight};
use crate::explain::PHASES;
use crate::flags;
use crate::units::{scaled, time};

/// Seconds that the view remembers for its little charts.
const SECONDS_MAX: usize = 240;

/// From these on a p99 of lateness is warned of: as the report does with its share.
const START_LATE_NANOS: u64 = 10_000_000;
const SEND_LATE_NANOS: u64 = 1_000_000;

/// Whether the terminal shows our screen.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// A terminal that shows the view; dropped, it shows what it did before.
#[derive(Debug)]
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        restore_on_panic();
        IS_OPEN.store(true, Ordering::Release);
        // Not Terminal::clear: it asks the terminal where its cursor is and waits for an answer, which
        // comes as keys, and those are not read.
        execute!(
            io::stdout(),
            EnterAlternateScreen,
            Hide,
            Clear(ClearType::All)
        )
        .inspect_err(|_| close())?;
        Ok(Self(terminal))
    }

    /// Draws it; what cannot be drawn is not worth ending a run for.
    pub(super) fn draw(&mut self, view: &View) {
        if IS_OPEN.load(Ordering::Acquire) {
            let _ = self.0.draw(|frame| draw(frame, view));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        close();
    }
}

/// From now on a panic of any thread gives the terminal back before it is told of.
fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            close();
            told(panic);
        }));
    });
}

/// Gives the terminal back, once.
fn close() {
    if IS_OPEN.swap(false, Ordering::AcqRel) {
        let _ = leave(&mut io::stdout());
    }
}

fn leave(out: &mut impl Write) -> io::Result<()> {
    execute!(out, LeaveAlternateScreen, Show)
}

/// What is shown.
#[derive(Clone, Debug)]
pub(super) struct View {
    title: String,
    is_traffic: bool,
    sessions: u32,
    elapsed: u64,
    act: Act,
    standing: Standing,
    /// Of the present act, from 0 to 1, and what is left of it.
    progress: f64,
    left: String,
    last: Second,
    /// Sessions that came up, and packets received, a second.
    came_up: VecDeque<u64>,
    received: VecDeque<u64>,
    /// The phases of the set-up so far.
    phases: Vec<(&'static str, Quantiles)>,
    warning: Option<String>,
}

impl View {
    pub(super) fn new(flags: &flags::Fleet, command: &str, is_traffic: bool) -> Self {
        let server = &flags.server;
        let title = format!("loadgen {command} → {}:{}", server.host, server.port);
        Self::titled(title, flags.sessions, is_traffic)
    }

    fn titled(title: String, sessions: u32, is_traffic: bool) -> Self {
        Self {
            title,
            is_traffic,
            sessions,
            elapsed: 0,
            act: Act::Setup,
            standing: Standing::default(),
            progress: 0.0,
            left: String::new(),
            last: Second::default(),
            came_up: VecDeque::new(),
            received: VecDeque::new(),
            phases: Vec::new(),
            warning: None,
        }
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warning.get_or_insert(warning);
    }

    pub(super) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// A second is over.
    pub(super) fn take(&mut self, second: Second, so_far: &Distributions) {
        for (seconds, count) in [
            (&mut self.came_up, second.counts.came_up),
            (&mut self.received, second.counts.received),
        ] {
            if seconds.len() >= SECONDS_MAX {
                seconds.pop_front();
            }
            seconds.push_back(count);
        }
        if second.distributions.of(Metric::Setup).is_some() || self.phases.is_empty() {
            let phases = PHASES.iter().enumerate().filter_map(|(phase, (_, name))| {
                let times = so_far.of(Metric::Phase(phase))?;
                Some((*name, Quantiles::of_times(times)))
            });
            self.phases = phases.collect();
        }
        self.last = second;
    }

    /// Takes notice of where the run stands.
    pub(super) fn look(&mut self, sight: &Sight, times: Option<(Instant, Instant)>) {
        self.elapsed = sight.now.saturating_since(sight.began).as_secs();
        self.act = sight.act;
        self.standing = sight.standing;
        let settled = sight.standing.settled;
        (self.progress, self.left) = match (sight.act, times) {
            (Act::Hold | Act::Churn | Act::Traffic, Some((begin, until))) => {
                let all = until.saturating_since(begin).as_secs_f64();
                let left = until.saturating_since(sight.now).as_secs_f64();
                let done = if all > 0.0 { 1.0 - left / all } else { 1.0 };
                (done, format!("{left:.0} s left"))
            }
            _ => {
                let done = settled as f64 / f64::from(self.sessions.max(1));
                (
                    done,
                    format!("{settled} of {} sessions tried", self.sessions),
                )
            }
        };
    }

    /// All of it in one line, where there is no terminal.
    pub(super) fn line(&self) -> String {
        let Standing {
            up,
            failed,
            lost,
            sent,
            received,
            ..
        } = self.standing;
        let packets = if self.act == Act::Traffic {
            format!(", {sent} sent, {received} received")
        } else {
            String::new()
        };
        format!(
            "{:4} s: {up} of {} up, {failed} failed, {lost} lost{packets}",
            self.elapsed, self.sessions
        )
    }

    fn warnings(&self) -> Vec<String> {
        let late = |metric, limit, what: &str| {
            let quantiles = Quantiles::of_times(self.last.distributions.of(metric)?);
            (quantiles.p99 > limit).then(|| {
                format!(
                    "{what} are up to {} late: the figures are loadgen's own, not the server's",
                    nanos(quantiles.p99)
                )
            })
        };
        let late = [
            late(Metric::StartLateness, START_LATE_NANOS, "starts"),
            late(Metric::SendLateness, SEND_LATE_NANOS, "packets"),
        ];
        late.into_iter()
            .flatten()
            .chain(self.warning.clone())
            .collect()
    }
}

fn nanos(nanos: u64) -> String {
    time(nanos as f64 / 1e3)
}

/// Draws the view; on a small terminal the lower parts are cut off.
fn draw(frame: &mut Frame<'_>, view: &View) {
    let times = 2 + view.phases.len() + 3;
    let heights = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(5),
        Constraint::Length(if view.is_traffic { 5 } else { 0 }),
        Constraint::Length(u16::try_from(times).unwrap_or(u16::MAX)),
        Constraint::Min(1),
    ];
    let [title, progress, sessions, packets, times, rest] =
        Layout::vertical(heights).areas(frame.area());
    let act = view.act.word();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(
        Line::from(vec![
            Span::styled(view.title.clone(), bold),
            Span::raw(format!("   {} s, {act}", view.elapsed)),
        ]),
        title,
    );
    let gauge = Gauge::default()
        .ratio(view.progress.clamp(0.0, 1.0))
        .label(view.left.clone())
        .gauge_style(Style::new().fg(Color::Blue));
    frame.render_widget(gauge, progress);
    draw_sessions(frame, sessions, view);
    if view.is_traffic {
        draw_packets(frame, packets, view);
    }
    draw_times(frame, times, view);
    let warnings = view.warnings().into_iter();
    let red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let mut lines: Vec<Line<'_>> = warnings.map(|text| Line::styled(text, red)).collect();
    lines.push(Line::raw(
        "Ctrl-C ends the run; its report is written all the same",
    ));
    frame.render_widget(Paragraph::new(lines), rest);
}

fn draw_sessions(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let block = Block::bordered().title(" Sessions ");
    let [words, chart] =
        Layout::horizontal([Constraint::Length(44), Constraint::Min(1)]).areas(block.inner(area));
    frame.render_widget(block, area);
    let standing = &view.standing;
    let bad = Style::new().fg(Color::Red);
    let count = |count: u64, word: &str| {
        let style = if count > 0 { bad } else { Style::new() };
        Span::styled(format!("{count} {word}   "), style)
    };
    let lines = vec![
        Line::raw(format!("{} of {} up", standing.up, view.sessions)),
        Line::from(vec![
            count(standing.failed, "failed"),
            count(standing.lost, "lost"),
        ]),
        Line::raw(format!(
            "{} started, {} came up a second",
            view.last.counts.started, view.last.counts.came_up
        )),
    ];
    frame.render_widget(Paragraph::new(lines), words);
    spark(frame, chart, &view.came_up);
}

fn draw_packets(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let block = Block::bordered().title(" Packets ");
    let [words, chart] =
        Layout::horizontal([Constraint::Length(44), Constraint::Min(1)]).areas(block.inner(area));
    frame.render_widget(block, area);
    let (standing, counts) = (&view.standing, &view.last.counts);
    let rate = |what: &str, packets: u64, bytes: u64| {
        format!(
            "{what} {:>8}/s {:>10}bit/s",
            scaled(packets as f64),
            scaled(bytes as f64 * 8.0)
        )
    };
    let lines = vec![
        Line::raw(rate("sent     ", counts.sent, counts.sent_bytes)),
        Line::raw(rate("received ", counts.received, counts.received_bytes)),
        Line::raw(format!(
            "{} sent, {} of them not here (yet)",
            standing.sent,
            standing.sent.saturating_sub(standing.received)
        )),
    ];
    frame.render_widget(Paragraph::new(lines), words);
    spark(frame, chart, &view.received);
}

/// The last seconds, as many as there is room for.
fn spark(frame: &mut Frame<'_>, area: Rect, seconds: &VecDeque<u64>) {
    let skipped = seconds.len().saturating_sub(area.width.into());
    let chart = Sparkline::default()
        .data(seconds.iter().skip(skipped).copied())
        .style(Style::new().fg(Color::Blue));
    frame.render_widget(chart, area);
}

fn draw_times(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let of = |name: &str, quantiles: &Quantiles| {
        let cells = [quantiles.p50, quantiles.p90, quantiles.p99, quantiles.max];
        let cells = cells.map(|value| format!("{:>10}", nanos(value)));
        Row::new(std::iter::once(name.to_owned()).chain(cells))
    };
    let last = [
        ("set-up", Metric::Setup),
        ("LCP echo", Metric::Echo),
        ("latency", Metric::Latency),
    ];
    let last = last.into_iter().filter_map(|(name, metric)| {
        let times = view.last.distributions.of(metric)?;
        Some(of(
            &format!("{name}, last second"),
            &Quantiles::of_times(times),
        ))
    });
    let phases = view
        .phases
        .iter()
        .map(|(name, quantiles)| of(name, quantiles));
    let widths = [
        Constraint::Length(23),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    let header = ["", "p50", "p90", "p99", "max"].map(|name| format!("{name:>10}"));
    let table = Table::new(last.chain(phases), widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .block(Block::bordered().title(" Times: by second, and by phase so far "));
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use datapath::time::Duration;
    use ratatui::backend::TestBackend;

    use super::super::sample::Counts;
    use super::super::tally::Times;
    use super::*;

    fn view(is_traffic: bool) -> View {
        let title = "loadgen traffic → vpn.example:443".to_owned();
        let mut view = View::titled(title, 200, is_traffic);
        let mut times = Times::default();
        for millis in 1..=100 {
            times.record(Duration::from_millis(millis));
        }
        for second in 0..30 {
            let seconds = Second {
                second,
                up: 190,
                counts: Counts {
                    started: 10,
                    came_up: u64::from(second % 10),
                    sent: 20_000,
                    sent_bytes: 28_000_000,
                    received: 19_000 + u64::from(second) * 30,
                    received_bytes: 27_000_000,
                    ..Counts::default()
                },
                distributions: Distributions::with(Metric::SendLateness, times.clone()),
            };
            view.take(
                seconds,
                &Distributions::with(Metric::Phase(1), times.clone()),
            );
        }
        view.look(
            &Sight {
                now: Instant::from_nanos(30_000_000_000),
                began: Instant::ZERO,
                act: if is_traffic { Act::Traffic } else { Act::Hold },
                standing: Standing {
                    settled: 200,
                    up: 190,
                    failed: 9,
                    lost: 1,
                    sent: 600_000,
                    received: 599_000,
                    ..Standing::default()
                },
            },
            Some((
                Instant::from_nanos(20_000_000_000),
                Instant::from_nanos(60_000_000_000),
            )),
        );
        view
    }

    fn drawn(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn traffic_on_a_terminal() {
        insta::assert_snapshot!(drawn(&view(true), 90, 22));
    }

    #[test]
    fn a_storm_on_a_small_terminal() {
        insta::assert_snapshot!(drawn(&view(false), 50, 12));
    }

    #[test]
    fn no_terminal_is_too_small() {
        for (width, height) in [(1, 1), (3, 40), (200, 2)] {
            drawn(&view(true), width, height);
        }
    }

    #[test]
    fn a_line_says_it_where_there_is_no_terminal() {
        assert_eq!(
            view(true).line(),
            "  30 s: 190 of 200 up, 9 failed, 1 lost, 600000 sent, 599000 received"
        );
    }

    #[test]
    fn a_panic_gives_the_terminal_back() {
        restore_on_panic();
        IS_OPEN.store(true, Ordering::Release);
        let thread = std::thread::spawn(|| panic!("as the test wants it"));
        assert!(thread.join().is_err());
        assert!(!IS_OPEN.load(Ordering::Acquire));
    }

    #[test]
    fn leaving_shows_the_first_screen_and_the_cursor() {
        let mut out = Vec::new();
        leave(&mut out).unwrap();
        assert_eq!(out, b"\x1b[?1049l\x1b[?25h");
    }
}
