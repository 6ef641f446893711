//! The sensors: what they measure, how it moves, and how well their clocks run.

use common::reading::Name;
use common::settings;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::timeline::Timeline;
use super::wave::{KINDS, Kind, Wave};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Streams of the one seed: what one part draws does not move another part's numbers, so that a fault added by a setting leaves the
/// values as they were.
pub(super) mod stream {
    pub(crate) const FLEET: u64 = 0;
    pub(crate) const CLOCKS: u64 = 1;
    pub(crate) const TIMING: u64 = 2;
    pub(crate) const DUPLICATES: u64 = 3;
    /// The first sensor's values; each sensor has its own.
    pub(crate) const VALUES: u64 = 1 << 32;
}

pub(super) fn random(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

#[derive(Debug)]
pub(super) struct Sensor {
    pub(super) id: Name,
    pub(super) kind: &'static Kind,
    pub(super) clock: Clock,
    /// Number of the last reading.
    pub(super) seq: i64,
    wave: Wave,
    random: ChaCha8Rng,
}

impl Sensor {
    pub(super) fn value(&mut self, offset_ms: i64) -> f64 {
        let value = self.wave.next(self.kind, offset_ms, &mut self.random);
        (value.clamp(self.kind.low, self.kind.high) * self.kind.steps_per_unit).round() / self.kind.steps_per_unit
    }
}

/// The sensors `s-0001`, `s-0002`, ... Kinds go round; how a sensor's value moves is drawn.
pub(super) fn build(settings: &settings::Simulator) -> Vec<Sensor> {
    let mut draw = random(settings.seed, stream::FLEET);
    let mut fleet: Vec<Sensor> = (0..settings.sensors.max(1))
        .zip(KINDS.iter().cycle())
        .map(|(index, kind)| Sensor {
            id: format!("s-{:04}", u64::from(index) + 1).into(),
            kind,
            clock: Clock::Right,
            seq: 0,
            wave: Wave::draw(kind, &mut draw),
            random: random(settings.seed, stream::VALUES + u64::from(index)),
        })
        .collect();
    spoil_clocks(&mut fleet, settings);
    fleet
}

/// Gives a wrong clock to the wanted share of sensors, the three faults in turn. A share above 0 spoils at least one clock.
fn spoil_clocks(fleet: &mut [Sensor], settings: &settings::Simulator) {
    if settings.bad_clock <= 0.0 {
        return;
    }
    let bad = ((fleet.len() as f64 * settings.bad_clock).round() as usize).clamp(1, fleet.len());
    let mut draw = random(settings.seed, stream::CLOCKS);
    let mut order: Vec<usize> = (0..fleet.len()).collect();
    order.shuffle(&mut draw);
    for (turn, &index) in order[..bad].iter().enumerate() {
        fleet[index].clock = match turn % 3 {
            0 => Clock::DayAhead,
            1 => Clock::SinceBoot,
            // Both signs: 1 to 5 percent too fast or too slow.
            _ => Clock::Drifting(draw.random_range(0.01..0.05) * if draw.random() { 1.0 } else { -1.0 }),
        };
    }
}

/// How a sensor tells the time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Clock {
    Right,
    /// A day ahead of the wall clock.
    DayAhead,
    /// Never set: counts from 1970 at the start.
    SinceBoot,
    /// Gains (or loses) this share of the time that passes.
    Drifting(f64),
}

impl Clock {
    pub(super) fn is_right(self) -> bool {
        self == Self::Right
    }

    /// The event time that the clock gives `offset` milliseconds after reading 0.
    pub(super) fn read(self, timeline: &Timeline, offset: i64) -> i64 {
        match self {
            Self::Right => timeline.origin + offset,
            // Also ahead of the wall clock when the run lies in the past.
            Self::DayAhead => timeline.origin + timeline.span + DAY_MS + offset,
            Self::SinceBoot => offset,
            Self::Drifting(share) => timeline.origin + offset + (offset as f64 * share) as i64,
        }
    }
}
