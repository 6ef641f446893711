//! The series budget: how many series an output may make.

use hashbrown::HashSet;

use crate::mapping::Unreadable;
use crate::point::Point;

/// Series by their hash, 8 bytes each. Two series with the same one would count once; among a million that is one chance in 10 million.
#[derive(Debug)]
pub(super) struct Series {
    known: HashSet<u64>,
    max: usize,
    pub(super) alarmed: bool,
}

impl Series {
    pub(super) fn new(max: usize, known: Vec<u64>) -> Self {
        Self { known: known.into_iter().collect(), max, alarmed: false }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Takes in the series of `points`, but for those that are `refused` already, and refuses those beyond the budget. Returns the new ones.
    pub(super) fn admit(&mut self, points: &[Point], refused: &mut Vec<(usize, Unreadable)>) -> Vec<u64> {
        let mut new = Vec::new();
        let mut already = refused.iter().map(|(at, _)| *at).collect::<Vec<_>>().into_iter().peekable();
        for (at, point) in points.iter().enumerate() {
            if already.next_if_eq(&at).is_some() || point.deleted {
                continue;
            }
            let hash = point.series_hash();
            if self.known.contains(&hash) {
                continue;
            }
            if self.known.len() >= self.max {
                let detail = format!(
                    "the series {}{} would be one more than the {} that this output may make; look for a tag with too many values, or raise mapping.max_series",
                    point.measurement,
                    point.tags_json(),
                    self.max
                );
                refused.push((at, Unreadable { reason: "series_budget", detail }));
                continue;
            }
            self.known.insert(hash);
            new.push(hash);
        }
        new
    }

    pub(super) fn forget(&mut self, new: &[u64]) {
        for hash in new {
            self.known.remove(hash);
        }
    }

    /// Whether 80 % of the budget are used, and nobody was told yet.
    pub(super) fn alarm(&mut self) -> bool {
        let high = self.known.len() >= self.max - self.max / 5;
        high && !std::mem::replace(&mut self.alarmed, high)
    }
}
