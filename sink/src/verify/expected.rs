//! What the log says: the newest row of each identity.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::Settings;
use common::headers;
use common::settings::Output;
use common::topics::lane_header;
use rdkafka::message::{BorrowedMessage, Message as _};

use super::{Span, VerifyError, log::Log};
use crate::mapping::Mapper;
use crate::point::{Point, Text};

/// Measurement, tags, time.
pub(super) type Identity = (String, BTreeMap<String, String>, i64);

pub(super) struct Expected {
    pub(super) output: String,
    /// The newest row; deletions are rows as well.
    pub(super) points: HashMap<Identity, Point>,
    /// Identities of rows that the sink has not committed.
    pub(super) pending: BTreeSet<Identity>,
    pub(super) measurements: BTreeSet<String>,
}

pub(super) fn identity(point: &Point) -> Identity {
    // As all databases have it: an empty tag is none.
    let tags = point.tags.iter().filter(|(_, value)| !value.is_empty());
    let owned = |(name, value): &(Text, Text)| (name.to_string(), value.to_string());
    (point.measurement.to_string(), tags.map(owned).collect(), point.time_ms)
}

type Place = (String, i32, i64);

impl Expected {
    pub(super) fn read(settings: &Settings, output: &Output, span: Span) -> Result<Self, VerifyError> {
        let log = Log::open(settings, output.name())?;
        let topics = log.topics(&output.topics)?;
        let committed = log.committed(&topics)?;
        let dead = dead_places(&log, &settings.topics.dead)?;
        let mut mapper = Mapper::new(&output.mapping);
        let mut expected =
            Self { output: output.name().to_owned(), points: HashMap::new(), pending: BTreeSet::new(), measurements: BTreeSet::new() };
        log.scan(&topics, |record| {
            let place = (record.topic().to_owned(), record.partition(), record.offset());
            let headers = headers::named(record).filter_map(|(name, value)| Some((name, value?)));
            // What cannot be read is in the dead lane, or will be.
            let Ok(point) = mapper.map(record.topic(), headers, record.payload()) else { return };
            if dead.contains(&place) {
                return;
            }
            let reached = committed.get(&(place.0, place.1)).is_some_and(|offset| place.2 < *offset);
            expected.take(point, span, reached);
        })?;
        Ok(expected)
    }

    fn take(&mut self, point: Point, span: Span, reached: bool) {
        if !self.measurements.contains(point.measurement.as_str()) {
            self.measurements.insert(point.measurement.to_string());
        }
        if !span.has(point.time_ms) {
            return;
        }
        let identity = identity(&point);
        if !reached {
            self.pending.insert(identity);
            return;
        }
        match self.points.get_mut(&identity) {
            Some(held) if !point.replaces(held) => {}
            Some(held) => *held = point,
            None => drop(self.points.insert(identity, point)),
        }
    }
}

/// Where the rows in the dead lane were that a sink has put there.
fn dead_places(log: &Log, lane: &str) -> Result<BTreeSet<Place>, VerifyError> {
    let topics = log.topics(&[lane.to_owned()])?;
    let mut places = BTreeSet::new();
    log.scan(&topics, |record| places.extend(place(record)))?;
    Ok(places)
}

fn place(record: &BorrowedMessage<'_>) -> Option<Place> {
    let header = |name: &str| {
        // The newest of that name: a row may have been through a lane before.
        let (_, value) = headers::named(record).filter(|(known, _)| *known == name).last()?;
        std::str::from_utf8(value?).ok()
    };
    if header(lane_header::STAGE)? != "sink" {
        return None;
    }
    Some((
        header(lane_header::TOPIC)?.to_owned(),
        header(lane_header::PARTITION)?.parse().ok()?,
        header(lane_header::OFFSET)?.parse().ok()?,
    ))
}
