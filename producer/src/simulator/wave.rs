//! What sensors measure and how their values move.

use std::f64::consts::TAU;

use rand::{Rng as _, RngCore as _};
use rand_chacha::ChaCha8Rng;

/// A physical quantity with the range that one meets indoors or on a machine.
#[derive(Debug, PartialEq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Resolution: 100 means two decimals.
    pub(super) steps_per_unit: f64,
}

const fn kind(name: &'static str, low: f64, high: f64, steps_per_unit: f64) -> Kind {
    Kind { name, low, high, steps_per_unit }
}

pub(super) const KINDS: [Kind; 6] = [
    kind("temperature", 15.0, 35.0, 100.0), // °C
    kind("humidity", 25.0, 75.0, 10.0),     // % relative
    kind("pressure", 980.0, 1040.0, 10.0),  // hPa
    kind("vibration", 0.0, 12.0, 1000.0),   // mm/s RMS
    kind("power", 0.0, 3000.0, 1.0),        // W
    kind("co2", 400.0, 1600.0, 1.0),        // ppm
];

/// How a value moves from reading to reading. Parameters are in the kind's unit.
#[derive(Debug, Clone)]
pub(super) enum Wave {
    /// Random walk, turned back at the ends of the range.
    Walk { level: f64, step: f64 },
    /// A daily (or process) cycle with measuring noise; the period in milliseconds.
    Sine { middle: f64, height: f64, period: f64, phase: f64, noise: f64 },
    /// A machine that switches between levels, on average after `hold` readings.
    Steps { level: f64, hold: f64, noise: f64 },
    /// Anything in the range, each time.
    Random,
}

impl Wave {
    pub(super) fn draw(kind: &Kind, random: &mut ChaCha8Rng) -> Self {
        let width = kind.high - kind.low;
        match random.random_range(0..4) {
            0 => Self::Walk { level: kind.low + width * random.random_range(0.3..0.7), step: width * 0.01 },
            1 => Self::Sine {
                middle: kind.low + width * random.random_range(0.4..0.6),
                height: width * random.random_range(0.1..0.35),
                // Minutes rather than a day: a chart should move while one looks at it.
                period: random.random_range(60_000.0..600_000.0),
                phase: random.random_range(0.0..TAU),
                noise: width * 0.01,
            },
            2 => Self::Steps {
                level: kind.low + width * random.random_range(0.1..0.9),
                hold: random.random_range(20.0..120.0),
                noise: width * 0.004,
            },
            _ => Self::Random,
        }
    }

    /// The next value `offset_ms` after reading 0; may lie a little outside of the kind's range.
    pub(super) fn next(&mut self, kind: &Kind, offset_ms: i64, random: &mut ChaCha8Rng) -> f64 {
        let width = kind.high - kind.low;
        match self {
            Self::Walk { level, step } => {
                *level = turn_back(*level + *step * bell(random), kind);
                *level
            }
            Self::Sine { middle, height, period, phase, noise } => {
                *middle + *height * (offset_ms as f64 / *period * TAU + *phase).sin() + *noise * bell(random)
            }
            Self::Steps { level, hold, noise } => {
                if random.random::<f64>() * *hold < 1.0 {
                    *level = kind.low + width * random.random_range(0.1..0.9);
                }
                *level + *noise * bell(random)
            }
            Self::Random => kind.low + width * random.random::<f64>(),
        }
    }
}

fn turn_back(level: f64, kind: &Kind) -> f64 {
    if level < kind.low {
        2.0 * kind.low - level
    } else if level > kind.high {
        2.0 * kind.high - level
    } else {
        level
    }
}

/// Nearly a normal distribution with deviation 1, from one draw: the sum of four 16-bit uniforms.
fn bell(random: &mut ChaCha8Rng) -> f64 {
    let bits = random.next_u64();
    let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
    // Mean 2, variance 4/12.
    (sum as f64 / 65_535.0 - 2.0) * 3f64.sqrt()
}
