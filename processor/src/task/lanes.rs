//! The lanes: rows that came too late, and rows that nobody could read.

use std::collections::{BTreeMap, HashSet, VecDeque};

use clap::ValueEnum;
use common::Settings;
use common::headers::{self, Native};
use common::topics::lane_header as header;
use rdkafka::Message;
use serde::Serialize;

use super::error::ProcessorError;
use super::owner::Owner;
use super::scan::scan;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lane {
    Late,
    Dead,
}

impl Lane {
    pub(crate) fn topic(self, settings: &Settings) -> &str {
        match self {
            Self::Late => &settings.topics.late,
            Self::Dead => &settings.topics.dead,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Dead => "dead",
        }
    }
}

/// A row as it stands in a lane.
#[derive(Debug, Clone)]
pub(crate) struct LaneRow {
    pub(crate) lane: Lane,
    /// When it came into the lane, epoch milliseconds.
    pub(crate) time: i64,
    /// Where it was; absent for what never was in a topic.
    pub(crate) topic: Option<String>,
    pub(crate) partition: Option<i32>,
    pub(crate) offset: Option<i64>,
    /// Its time of receipt; -1 when it had none.
    pub(crate) received: i64,
    pub(crate) reason: String,
    pub(crate) detail: String,
    /// Who put it there.
    pub(crate) stage: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
}

impl LaneRow {
    fn of(lane: Lane, message: &impl Message<Headers: Native>) -> Self {
        // A row that was in a lane before has the older headers first: the last one counts.
        let mut told: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in headers::named(message) {
            told.insert(name, String::from_utf8_lossy(value.unwrap_or_default()).into_owned());
        }
        let mut take = |name: &str| told.remove(name);
        Self {
            lane,
            time: message.timestamp().to_millis().unwrap_or(-1),
            topic: take(header::TOPIC),
            partition: take(header::PARTITION).and_then(|text| text.parse().ok()),
            offset: take(header::OFFSET).and_then(|text| text.parse().ok()),
            received: take(header::TIMESTAMP).and_then(|text| text.parse().ok()).unwrap_or(-1),
            reason: take(header::REASON).unwrap_or_else(|| "unknown".into()),
            detail: take(header::DETAIL).unwrap_or_default(),
            stage: take(header::STAGE).unwrap_or_else(|| "unknown".into()),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
        }
    }

    /// Where it was, as `topic-partition@offset`.
    pub(crate) fn place(&self) -> Option<String> {
        Some(format!("{}-{}@{}", self.topic.as_ref()?, self.partition?, self.offset?))
    }
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// `None`: both lanes.
    pub(crate) lane: Option<Lane>,
    pub(crate) stage: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Wanted {
    fn takes(&self, row: &LaneRow) -> bool {
        self.stage.as_ref().is_none_or(|stage| *stage == row.stage) && self.reason.as_ref().is_none_or(|reason| *reason == row.reason)
    }
}

/// Hands each wanted row to `visit`, once, however often a crash has written it.
///
/// # Errors
/// When the log does not answer.
pub(crate) fn each(settings: &Settings, wanted: &Wanted, owner: &Owner, mut visit: impl FnMut(LaneRow)) -> Result<(), ProcessorError> {
    for lane in [Lane::Late, Lane::Dead].into_iter().filter(|lane| wanted.lane.is_none_or(|wanted| wanted == *lane)) {
        let mut seen: HashSet<(String, String)> = HashSet::new();
        scan(settings, lane.topic(settings), owner, |message| {
            let row = LaneRow::of(lane, message);
            let is_new = row.place().is_none_or(|place| seen.insert((row.stage.clone(), place)));
            if is_new && wanted.takes(&row) {
                visit(row);
            }
        })?;
    }
    Ok(())
}

/// How many rows a lane holds of one query and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LaneCount {
    pub(crate) lane: Lane,
    /// Who put them there: a query's name, `producer` or `sink`.
    pub(crate) query: String,
    pub(crate) reason: String,
    pub(crate) count: u64,
    /// When the first and the last came into the lane, epoch milliseconds.
    pub(crate) first: i64,
    pub(crate) last: i64,
}

pub(crate) fn count(settings: &Settings, owner: &Owner) -> Result<Vec<LaneCount>, ProcessorError> {
    let mut counts: BTreeMap<(Lane, String, String), (u64, i64, i64)> = BTreeMap::new();
    each(settings, &Wanted::default(), owner, |row| {
        let (count, first, last) = counts.entry((row.lane, row.stage, row.reason)).or_insert((0, row.time, row.time));
        *count += 1;
        *first = (*first).min(row.time);
        *last = (*last).max(row.time);
    })?;
    let count = |((lane, query, reason), (count, first, last))| LaneCount { lane, query, reason, count, first, last };
    Ok(counts.into_iter().map(count).collect())
}

/// The newest `limit` wanted rows, in the order of the lanes; 0 takes all.
pub(crate) fn newest(settings: &Settings, wanted: &Wanted, limit: usize, owner: &Owner) -> Result<Vec<LaneRow>, ProcessorError> {
    let mut rows = VecDeque::new();
    each(settings, wanted, owner, |row| {
        rows.push_back(row);
        if limit > 0 && rows.len() > limit {
            let oldest = rows.iter().enumerate().min_by_key(|(_, row)| row.time).map_or(0, |(place, _)| place);
            rows.remove(oldest);
        }
    })?;
    rows.make_contiguous().sort_by_key(|row| row.time);
    Ok(rows.into())
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

    use super::*;

    #[test]
    fn a_row_with_a_header_whose_name_is_no_text_is_read_like_any_other() {
        let headers = OwnedHeaders::new().insert(Header { key: header::TOPIC, value: Some("iot") });
        let headers = headers::insert(headers, b"\xff", Some(b"odd")).insert(Header { key: header::REASON, value: Some("not_json") });
        let message = OwnedMessage::new(None, None, "iot.dead".into(), Timestamp::CreateTime(7), 0, 0, Some(headers));
        let row = LaneRow::of(Lane::Dead, &message);
        assert_eq!((row.topic.as_deref(), row.reason.as_str(), row.time), (Some("iot"), "not_json", 7));
    }
}
