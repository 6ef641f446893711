//! What is decided about points before a database sees them: the type of every field, and whether a new series may begin.

mod series;
mod state;
mod types;

use std::path::{Path, PathBuf};

use common::settings::{Database, Output};

use crate::mapping::Unreadable;
use crate::metrics::Metrics;
use crate::point::Point;
use crate::writer::WriteError;
use series::Series;
use state::State;
use types::Types;
pub(crate) use types::is_word_for_it as is_not_finite;

/// InfluxDB's and VictoriaMetrics' index of series is their scarcest resource; this many they bear on a small machine.
const MAX_SERIES: usize = 1_000_000;

/// Remembers types and series of one output on the disk, so that they survive a restart.
#[derive(Debug)]
pub(crate) struct Guard {
    types: Option<Types>,
    series: Option<Series>,
    state: State,
}

impl Guard {
    /// `None` when the output needs none: its database has no types of fields, and no limit was set.
    ///
    /// # Errors
    /// When the state cannot be read or written.
    pub(crate) fn open(folder: &Path, output: &Output) -> Result<Option<Self>, WriteError> {
        let typed = matches!(output.to, Database::Influxdb | Database::Victoriametrics | Database::Parquet | Database::Delta);
        let indexed = matches!(output.to, Database::Influxdb | Database::Victoriametrics);
        let max_series = output.mapping.max_series.or(indexed.then_some(MAX_SERIES));
        let typed = typed || !output.mapping.types.is_empty();
        if !typed && max_series.is_none() {
            return Ok(None);
        }
        let state = State::open(path(folder, output.name()))?;
        let types = if typed { Some(Types::new(&output.mapping.types, state.types()?)) } else { None };
        let series = match max_series {
            Some(max) => Some(Series::new(max, state.series()?)),
            None => None,
        };
        Ok(Some(Self { types, series, state }))
    }

    /// Gives every field its type and says which of `points` cannot be taken, with their places.
    ///
    /// # Errors
    /// When the state cannot be written; nothing is decided then.
    pub(crate) fn admit(&mut self, points: &mut [Point], metrics: &Metrics) -> Result<Vec<(usize, Unreadable)>, WriteError> {
        if let Some(types) = &mut self.types {
            let learnt = types.learn(points);
            if !learnt.is_empty() {
                // What another sink on the same state has learnt before us counts.
                types.settle(self.state.add_types(&learnt)?);
            }
        }
        let mut refused = Vec::new();
        for (at, point) in points.iter_mut().enumerate() {
            let Some(types) = &self.types else { break };
            match types.apply(point) {
                Ok(0) => {}
                Ok(left_out) => metrics.left_out("not_finite", left_out),
                Err(why) => refused.push((at, why)),
            }
        }
        if let Some(series) = &mut self.series {
            let new = series.admit(points, &mut refused);
            if let Err(error) = self.state.add_series(&new) {
                series.forget(&new);
                return Err(error);
            }
            metrics.series.set(i64::try_from(series.len()).unwrap_or(i64::MAX));
            metrics.max_series.set(i64::try_from(series.max()).unwrap_or(i64::MAX));
            if series.alarm() {
                tracing::warn!(
                    output = metrics.output(),
                    series = series.len(),
                    limit = series.max(),
                    "80 % of the series that this output may make are used; look for a tag with too many values, or raise mapping.max_series"
                );
            }
        }
        Ok(refused)
    }
}

fn path(folder: &Path, output: &str) -> PathBuf {
    folder.join(format!("{output}.state"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
