//! The figures that stand beside the floor: one client, its packets and the floor's alike.

use std::io;

use datapath::time::Duration;

use super::Options;
use super::inside::Inside;
use super::load::{Field, Flow, Pace, Sample};
use super::place::Place;
use super::report::{Bar, Row, Sense};
use crate::floor::traffic::{Direction, Kind};
use crate::floor::{Beside, Reading};

/// By what a figure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    Gigabyte,
    Packet,
}

impl Per {
    pub(super) fn of_gateway(self) -> (&'static str, fn(&Sample) -> f64) {
        match self {
            Self::Gigabyte => ("ms/GB", Sample::cpu_ms_per_gb),
            Self::Packet => ("ns/packet", Sample::cpu_ns_per_packet),
        }
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    floor: &'static str,
    pub(super) per: Per,
    bar: Bar,
    pub(super) flow: Flow,
    samples: Vec<Sample>,
    /// Of the same packets as they come, without bursts.
    streamed: Vec<Sample>,
    floors: Vec<Reading>,
}

const fn at_most(bar: f64, stretch: f64) -> Bar {
    Bar {
        sense: Sense::AtMost,
        bar,
        stretch,
    }
}

/// The names of all of them.
pub(super) const NAMES: [&str; 8] = [
    "bulk/down",
    "bulk/up packed records",
    "bulk/up record a packet",
    "udp/down 1400",
    "udp/down 64",
    "udp/up 1400",
    "udp/up 64",
    "udp/up 1400 one flow (USO)",
];

/// Every case, for the one client of `field`.
pub(super) fn all(field: &Field) -> Vec<Case> {
    let clients = &field.clients;
    let case = |name, floor, per, bar, flow| Case {
        name,
        floor,
        per,
        bar,
        flow,
        samples: Vec::new(),
        streamed: Vec::new(),
        floors: Vec::new(),
    };
    let flow = |kind, direction, len, count| Flow::new(clients, kind, direction, len, count);
    let (up, down) = (Direction::Uplink, Direction::Downlink);
    let bulk = at_most(1.6, 1.3);
    let (single_down, single_up) = (at_most(1.4, 1.25), at_most(1.25, 1.15));
    vec![
        case(
            "bulk/down",
            "pump/down tcp",
            Per::Gigabyte,
            bulk,
            flow(Kind::Tcp, down, 1400, 48 * 8).with_burst(768),
        ),
        case(
            "bulk/up packed records",
            "pump/up tcp, packed records",
            Per::Gigabyte,
            bulk,
            flow(Kind::Tcp, up, 1400, 48 * 8),
        ),
        case(
            "bulk/up record a packet",
            "pump/up tcp, record a packet",
            Per::Gigabyte,
            bulk,
            flow(Kind::Tcp, up, 1400, 48 * 8).with_record_per_packet(),
        ),
        case(
            "udp/down 1400",
            "pump/down udp/1400",
            Per::Packet,
            single_down,
            flow(Kind::UdpFlows, down, 1400, 256)
                .with_window(384)
                .with_burst(384),
        ),
        case(
            "udp/down 64",
            "pump/down udp/64",
            Per::Packet,
            single_down,
            flow(Kind::UdpFlows, down, 64, 256)
                .with_window(384)
                .with_burst(384),
        ),
        case(
            "udp/up 1400",
            "pump/up udp/1400",
            Per::Packet,
            single_up,
            flow(Kind::UdpFlows, up, 1400, 256).with_burst(1_536),
        ),
        case(
            "udp/up 64",
            "pump/up udp/64",
            Per::Packet,
            single_up,
            flow(Kind::UdpFlows, up, 64, 256)
                .with_window(1024)
                .with_burst(1_536),
        ),
        case(
            "udp/up 1400 one flow (USO)",
            "pump/up udp one flow/1400",
            Per::Gigabyte,
            bulk,
            flow(Kind::UdpFlow, up, 1400, 47 * 8),
        ),
    ]
}

impl Case {
    /// One round: the floor, then the gateway.
    pub(super) fn measure(
        &mut self,
        options: &Options,
        floor: &Beside,
        field: &mut Field,
        inside: &mut Inside,
        place: Place,
    ) -> io::Result<()> {
        self.floors
            .push(floor.measure(self.floor, options.floor_slice())?);
        let warm = options.slice / 8;
        place.before_the_gateway()?;
        field.run(&self.flow, inside, warm, Pace::Bursts, false)?;
        self.samples
            .push(field.run(&self.flow, inside, options.slice, Pace::Bursts, false)?);
        place.beside_the_gateway()?;
        let half = options.slice / 2;
        field.run(&self.flow, inside, warm, Pace::Full, false)?;
        self.streamed
            .push(field.run(&self.flow, inside, half, Pace::Full, false)?);
        Ok(())
    }

    /// The round just measured, for who watches.
    pub(super) fn last(&self) -> String {
        let gigabytes = |samples: &[Sample]| {
            samples
                .last()
                .map_or(f64::NAN, |sample| sample.cpu_ms_per_gb())
        };
        let floor = self.floors.last().map_or(f64::NAN, Reading::cpu_ms_per_gb);
        format!(
            "{} {:.0} ms/GB, floor {floor:.0}, as it comes {:.0}",
            self.name,
            gigabytes(&self.samples),
            gigabytes(&self.streamed)
        )
    }

    pub(super) fn row(&self) -> Row {
        let (unit, value) = self.per.of_gateway();
        let floor = match self.per {
            Per::Gigabyte => Reading::cpu_ms_per_gb,
            Per::Packet => Reading::cpu_ns_per_packet,
        };
        let values: Vec<f64> = self.samples.iter().map(value).collect();
        let floors: Vec<f64> = self.floors.iter().map(floor).collect();
        Row::beside(self.name, unit, &values, ("floor", &floors), Some(self.bar))
            .with_note(note(&self.samples))
    }

    /// The same packets one after the other, as fast as one processor makes them: batches are as small
    /// as the gateway is fast. Not judged, as the floor is not measured so.
    pub(super) fn streamed(&self) -> Row {
        let (unit, value) = self.per.of_gateway();
        let values: Vec<f64> = self.streamed.iter().map(value).collect();
        let name = format!("{}, as it comes", self.name);
        Row::alone(&name, unit, &values, None).with_note(note(&self.streamed))
    }
}

/// The rates of the median round, and the cost in the other unit.
pub(super) fn note(samples: &[Sample]) -> String {
    let median = |value| median(samples, value);
    let loss = median(Sample::loss);
    let mut note = format!(
        "{:.1} Gbit/s, {:.3} M packets/s, {:.0} ms/GB, {:.2} s/M packets, gateway busy {:.0} %",
        median(Sample::gbit_per_s),
        median(Sample::packets_per_s) / 1e6,
        median(Sample::cpu_ms_per_gb),
        // Nanoseconds a packet are milliseconds a million.
        median(Sample::cpu_ns_per_packet) / 1e3,
        median(Sample::busy) * 100.0,
    );
    if loss > 0.0 {
        note.push_str(&format!(", {:.2} % LOST", loss * 100.0));
    }
    note
}

pub(super) fn median(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    crate::floor::Spread::of(samples.iter().map(value)).median
}

/// A slice of the floor is enough to be steady, and less than the gateway's.
impl Options {
    fn floor_slice(&self) -> Duration {
        (self.slice / 4).max(Duration::from_millis(60))
    }
}
