//! Puts the rows of the lanes where they belong: the windows that they missed are computed once more from the log, with all of their rows,
//! and their results are written again as a whole.
//!
//! A correction is a full value and not a difference, so twice is the same as once, and a replay that dies half-way is run again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use common::headers::{self, Native};
use common::topics::result_header as header;
use common::{Settings, topics};
use rdkafka::producer::BaseRecord;
use rdkafka::{Message, message::OwnedHeaders};
use serde::Serialize;

use super::change::{Journals, journals};
use super::deliver::{AHEAD, Deliverer, Waits, text};
use super::error::{ProcessorError, TaskError};
use super::history::History;
use super::keys::refuse_wrong_keys;
use super::lanes::{self, Lane, LaneRow, Wanted};
use super::owner::Owner;
use super::records::Records;
use super::results::with_window;
use super::revisions::RESTATED;
use super::scan::{fault, scan};
use crate::engine::recount::{NewDead, Placed, Recount, Target, first_time, place};
use crate::engine::{Input, PartitionTime};
use crate::format::decode::Decoder;
use crate::format::encode::{JsonRows, key_text};
use crate::query::{Change, GROUP_BY, KEY_COLUMNS, Scope, StreamQuery, TOPIC};

/// What a replay did, or with `dry_run` would do.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) query: String,
    pub(crate) dry_run: bool,
    pub(crate) rows: Rows,
    pub(crate) windows: Windows,
    /// What of the query is not as it was when the rows were set aside.
    pub(crate) changes: Vec<Change>,
    /// The windows whose rows were written.
    pub(crate) restated: Vec<Restated>,
}

/// The rows of the lanes, each once.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Rows {
    pub(crate) late: u64,
    pub(crate) dead: u64,
    /// They are in windows that have been computed with them.
    pub(crate) replayed: u64,
    /// They do not match WHERE, or are there twice.
    pub(crate) filtered: u64,
    /// They cannot be read with the query as it is now, by reason.
    pub(crate) still_dead: BTreeMap<String, u64>,
    /// They belong to a window that is still open, or have not been committed yet.
    pub(crate) open: u64,
    /// They belong to a window whose other rows the log may have deleted.
    pub(crate) lost: u64,
    /// They came from elsewhere than the query's input.
    pub(crate) elsewhere: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Windows {
    pub(crate) restated: u64,
    /// The result topic holds just this row.
    pub(crate) unchanged: u64,
    pub(crate) open: u64,
    pub(crate) lost: u64,
    /// HAVING leaves them out.
    pub(crate) without_row: u64,
    pub(crate) failed: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Restated {
    /// Epoch milliseconds; absent without a window.
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    pub(crate) key: String,
    pub(crate) revision: i64,
    pub(crate) value: String,
}

impl Report {
    /// Whether a row of the lanes has not found its place.
    pub(crate) fn is_partial(&self) -> bool {
        let rows = &self.rows;
        rows.open + rows.lost + rows.elsewhere + rows.still_dead.values().sum::<u64>() + self.windows.failed > 0
    }
}

/// What tells a result row from the others of its query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    Window((i64, i64), Vec<u8>),
    Record(String),
}

impl Identity {
    /// That of a record in the result topic.
    pub(crate) fn of(message: &impl Message<Headers: Native>) -> Option<Self> {
        let told = |name: &str| headers::text(message, name);
        if let Some(place) = told(header::ROW) {
            return Some(Self::Record(place.to_owned()));
        }
        let bound = |name: &str| told(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
        Some(Self::Window((bound(header::WINDOW_START), bound(header::WINDOW_END)), message.key().unwrap_or_default().to_vec()))
    }
}

/// A row as the result topic holds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    pub(crate) revision: i64,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) is_final: bool,
    pub(crate) is_restated: bool,
}

/// The newest row of each wanted identity in the result topic.
pub(crate) fn newest_rows(
    settings: &Settings,
    query: &StreamQuery,
    owner: &Owner,
    wanted: impl Fn(&Identity) -> bool,
) -> Result<HashMap<Identity, Held>, ProcessorError> {
    let mut found: HashMap<Identity, Held> = HashMap::new();
    scan(settings, &query.file.output_topic(), owner, |message| {
        let told = |name: &str| headers::text(message, name);
        if told(header::QUERY) != Some(query.file.name.as_str()) {
            return;
        }
        let Some(identity) = Identity::of(message).filter(&wanted) else { return };
        let revision = told(header::REVISION).and_then(|text| text.parse().ok()).unwrap_or_default();
        if found.get(&identity).is_none_or(|held| held.revision <= revision) {
            let held = Held {
                revision,
                value: message.payload().map(<[u8]>::to_vec),
                is_final: told(header::FINAL) == Some("true"),
                is_restated: told(header::RESTATED) == Some("true"),
            };
            found.insert(identity, held);
        }
    })?;
    Ok(found)
}

/// Says why the closed windows of a query cannot be computed once more one by one.
fn refusal(query: &StreamQuery) -> Option<&'static str> {
    let Some(grouping) = &query.groups else { return None };
    if query.second.is_some() {
        return Some("it is an aggregate over an aggregate, whose outer windows would have to be taken back");
    }
    if grouping.session_gap().is_some() {
        return Some("it has sessions, and a late row can make one of several that were given as final");
    }
    if query.is_complete() {
        return Some("its output mode is complete: nothing is late, and no row is final");
    }
    if grouping.window.is_none() && !grouping.distinct {
        return Some("its groups have no windows: nothing is late, and no row is final");
    }
    None
}

/// A row of the lanes with its windows.
struct LaneTargets {
    lane_offset: i64,
    /// It came late: all of its windows had closed.
    is_late: bool,
    targets: Vec<Target>,
}

/// What a partition says about windows: up to where they are final, and from where on the log has all of their rows.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    /// The next offset that the query reads.
    position: i64,
    /// `None` before the first commit.
    horizon: Option<i64>,
    /// `None`: the log has everything.
    whole_from: Option<i64>,
}

pub(crate) struct Replay<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) query: Arc<StreamQuery>,
    pub(crate) lane: Option<Lane>,
    pub(crate) dry_run: bool,
    pub(crate) owner: &'a Owner,
}

impl Replay<'_> {
    pub(crate) fn run(&self) -> Result<Report, ProcessorError> {
        let name = &self.query.file.name;
        let refuse = |why: &str| {
            ProcessorError::Task(format!(
                "the lanes of query '{name}' cannot be replayed: {why}; put the old query file back, or lengthen source.watermark and begin \
                 anew from the log with --rebuild"
            ))
        };
        if let Some(why) = refusal(&self.query) {
            return Err(refuse(why));
        }
        let journals = journals(self.settings, &self.query, self.owner)?;
        let Some(first) = journals.by_partition.values().find_map(Option::as_ref) else {
            return Err(ProcessorError::Task(format!(
                "query '{name}' has not committed anything yet (topic {} is empty): nothing of it is in the lanes",
                topics::journal(name)
            )));
        };
        let mut report = Report { query: name.clone(), dry_run: self.dry_run, ..Report::default() };
        if let Some(before) = &first.description {
            let (state, output) = before.changes(&self.query.description);
            let identity = [GROUP_BY, KEY_COLUMNS, TOPIC];
            if let Some(change) = state.iter().chain(&output).find(|change| identity.contains(&change.what.as_str())) {
                return Err(refuse(&format!("its rows are other rows now ({change})")));
            }
            report.changes = state.into_iter().chain(output.into_iter().filter(|change| change.what == "query.sql")).collect();
        }
        let placed = self.place(&mut report)?;
        let bounds = self.bounds(&journals)?;
        let chosen = self.choose(&placed, &bounds, &mut report);
        self.restate(&chosen, &bounds, &journals, &mut report)?;
        Ok(report)
    }

    /// Reads the lanes and finds the windows of each row.
    fn place(&self, report: &mut Report) -> Result<BTreeMap<i32, Vec<LaneTargets>>, ProcessorError> {
        let file = &self.query.file;
        let mut rows: BTreeMap<i32, BTreeMap<i64, LaneRow>> = BTreeMap::new();
        let wanted = Wanted { lane: self.lane, stage: Some(file.name.clone()), reason: None };
        lanes::each(self.settings, &wanted, self.owner, |row| {
            match row.lane {
                Lane::Late => report.rows.late += 1,
                Lane::Dead => report.rows.dead += 1,
            }
            match (row.partition, row.offset) {
                (Some(partition), Some(offset)) if row.topic.as_deref() == Some(file.source.topic.as_str()) => {
                    rows.entry(partition).or_default().insert(offset, row);
                }
                _ => report.rows.elsewhere += 1,
            }
        })?;
        let mut all = BTreeMap::new();
        for (partition, rows) in rows {
            all.insert(partition, self.place_partition(partition, &rows, report).map_err(fault)?);
        }
        Ok(all)
    }

    fn place_partition(&self, partition: i32, rows: &BTreeMap<i64, LaneRow>, report: &mut Report) -> Result<Vec<LaneTargets>, TaskError> {
        let mut records = Records::new(&self.query.file.source.topic.as_str().into(), partition);
        for (offset, row) in rows {
            records.push(*offset, row.received, row.key.as_deref(), row.payload.as_deref());
        }
        let is_late = |offset: i64| rows.get(&offset).is_some_and(|row| row.lane == Lane::Late);
        let mut decoder = self.query.decoder();
        let input = decode(&self.query, &records, &mut decoder)?;
        let Placed { rows: placed, dead, filtered } = place(&self.query, &input).map_err(|cause| self.broken(&cause))?;
        report.rows.filtered += filtered;
        for row in dead {
            *report.rows.still_dead.entry(row.reason.to_owned()).or_default() += 1;
        }
        let targets = |(index, targets): (u32, Vec<Target>)| {
            let lane_offset = records.get(index as usize).offset;
            LaneTargets { lane_offset, is_late: is_late(lane_offset), targets }
        };
        Ok(placed.into_iter().map(targets).collect())
    }

    fn broken(&self, cause: &datafusion_common::DataFusionError) -> TaskError {
        TaskError::Fatal(format!("query '{}' cannot be computed: {}", self.query.file.name, cause.strip_backtrace()))
    }

    /// What the journal and the log say of each input partition.
    fn bounds(&self, journals: &Journals) -> Result<BTreeMap<i32, Bounds>, ProcessorError> {
        let delay = self.query.file.source.watermark.millis();
        let mut all = BTreeMap::new();
        for progress in journals.progress() {
            let mut history = self.history(progress.partition, progress.to).map_err(fault)?;
            // Where devices have their own time: up to where all of them are given up.
            let time = match &self.query.timeline {
                Some(timeline) => timeline.time(PartitionTime::default(), progress.time),
                None => progress.time,
            };
            let mut bounds = Bounds { position: progress.to, horizon: time.watermark(journals.delay(delay)), whole_from: None };
            if history.first() > 0 {
                bounds.whole_from = Some(self.whole_from(&mut history, delay).map_err(fault)?);
            }
            all.insert(progress.partition, bounds);
        }
        Ok(all)
    }

    /// From where on windows have lost no row: those that were deleted are older than the first that is left, but for the disorder that
    /// the delay allows.
    fn whole_from(&self, history: &mut History, delay: i64) -> Result<i64, TaskError> {
        let mut decoder = self.query.decoder();
        while let Some(records) = history.next(i64::MAX, self.owner)? {
            let input = decode(&self.query, records, &mut decoder)?;
            if let Some(time) = first_time(&self.query, &input).map_err(|cause| self.broken(&cause))? {
                return Ok(time.saturating_add(delay));
            }
        }
        Ok(i64::MAX)
    }

    fn history(&self, partition: i32, end: i64) -> Result<History, TaskError> {
        History::open(self.settings, &self.query, partition, end, self.owner)
    }

    /// The windows that can be computed once more; counts the rest.
    fn choose(&self, placed: &BTreeMap<i32, Vec<LaneTargets>>, bounds: &BTreeMap<i32, Bounds>, report: &mut Report) -> Chosen {
        let mut chosen = Chosen::default();
        let (mut open, mut lost): (HashSet<&Target>, HashSet<&Target>) = (HashSet::new(), HashSet::new());
        for (partition, rows) in placed {
            for row in rows {
                let (mut is_open, mut is_lost) = (false, false);
                let Some(own) = bounds.get(partition).filter(|own| row.lane_offset < own.position) else {
                    report.rows.open += 1;
                    continue;
                };
                if self.query.groups.is_none() {
                    chosen.records.insert((*partition, row.lane_offset));
                }
                for target in &row.targets {
                    let bounds = self.of_window(*own, bounds);
                    match self.standing(target, bounds, row.is_late) {
                        Standing::Open => (is_open, _) = (true, open.insert(target)),
                        Standing::Lost => (is_lost, _) = (true, lost.insert(target)),
                        Standing::Closed => drop(chosen.targets.insert(target.clone())),
                    }
                }
                report.rows.open += u64::from(is_open);
                report.rows.lost += u64::from(is_lost && !is_open);
                report.rows.replayed += u64::from(!is_open && !is_lost);
            }
        }
        (report.windows.open, report.windows.lost) = (open.len() as u64, lost.len() as u64);
        chosen
    }

    /// A window that takes rows of all partitions is final when all are beyond it, and whole when none has lost a row.
    fn of_window(&self, own: Bounds, all: &BTreeMap<i32, Bounds>) -> Bounds {
        match self.query.scope {
            Scope::Partition => own,
            Scope::Topic => Bounds {
                horizon: all.values().map(|bounds| bounds.horizon).min().flatten(),
                whole_from: all.values().filter_map(|bounds| bounds.whole_from).max(),
                ..own
            },
        }
    }

    fn standing(&self, (start, _): &Target, bounds: Bounds, is_late: bool) -> Standing {
        // A DISTINCT without a window: its rows are final at once, and one row is as good as all.
        let Some(window) = self.query.groups.as_ref().and_then(|grouping| grouping.panes()) else { return Standing::Closed };
        // A device's own time, by which its windows close, is not known here; a late row is the proof that its windows have closed.
        let has_closed = is_late && self.query.timeline.is_some();
        if !has_closed && bounds.horizon.is_none_or(|horizon| horizon < window.end(*start)) {
            return Standing::Open;
        }
        if bounds.whole_from.is_some_and(|whole| *start < whole) { Standing::Lost } else { Standing::Closed }
    }

    /// Computes the chosen windows from the log and writes those whose row is another than the result topic holds.
    fn restate(
        &self,
        chosen: &Chosen,
        bounds: &BTreeMap<i32, Bounds>,
        journals: &Journals,
        report: &mut Report,
    ) -> Result<(), ProcessorError> {
        if chosen.targets.is_empty() && chosen.records.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<NewRow> = Vec::new();
        let mut recount = Recount::new(Arc::clone(&self.query), chosen.targets.iter().cloned(), chosen.records.clone());
        if !report.changes.is_empty() {
            recount.watch_dead(self.known_dead()?);
        }
        let mut decoder = self.query.decoder();
        for (partition, bounds) in bounds {
            let mut history = self.history(*partition, bounds.position).map_err(fault)?;
            while let Some(records) = history.next(i64::MAX, self.owner).map_err(fault)? {
                let input = decode(&self.query, records, &mut decoder).map_err(fault)?;
                let plain = recount.feed(&input, |index| records.get(index as usize).offset).map_err(|cause| fault(self.broken(&cause)))?;
                if let Some(plain) = plain {
                    rows.extend(plain_rows(records, &plain).map_err(fault)?);
                }
            }
        }
        if let Some(new) = recount.new_dead() {
            return Err(self.refuse_new_dead(new));
        }
        let recounted = recount.finish().map_err(|cause| fault(self.broken(&cause)))?;
        (report.windows.without_row, report.windows.failed) = (recounted.without as u64, recounted.failed.len() as u64);
        rows.extend(window_rows(&recounted).map_err(fault)?);
        let wanted: HashSet<&Identity> = rows.iter().map(|row| &row.identity).collect();
        let held = newest_rows(self.settings, &self.query, self.owner, |identity| wanted.contains(identity))?;
        self.send(&rows, &held, journals, report)
    }

    /// The rows of the query's input that are in its dead lane, by partition and offset.
    fn known_dead(&self) -> Result<HashSet<(i32, i64)>, ProcessorError> {
        let file = &self.query.file;
        let mut known = HashSet::new();
        let wanted = Wanted { lane: Some(Lane::Dead), stage: Some(file.name.clone()), reason: None };
        lanes::each(self.settings, &wanted, self.owner, |row| {
            if row.topic.as_deref() == Some(file.source.topic.as_str()) {
                known.extend(row.partition.zip(row.offset));
            }
        })?;
        Ok(known)
    }

    /// A changed query that no longer reads rows which it has used would take them out of results that are right.
    fn refuse_new_dead(&self, new: &NewDead) -> ProcessorError {
        let NewDead { count, partition, offset, detail } = new;
        let file = &self.query.file;
        ProcessorError::Task(format!(
            "the lanes of query '{}' cannot be replayed with the query as it is now: {count} rows that it could read before are dead under it, the \
             first in {}-{partition} at offset {offset} ({detail}), and the windows would lose them; write a schema that reads both",
            file.name, file.source.topic
        ))
    }

    fn send(
        &self,
        rows: &[NewRow],
        held: &HashMap<Identity, Held>,
        journals: &Journals,
        report: &mut Report,
    ) -> Result<(), ProcessorError> {
        let deliverer = Deliverer::new(self.settings, &self.query).map_err(fault)?;
        let lowest = journals.revision() + RESTATED;
        for row in rows {
            let before = held.get(&row.identity);
            // A row that is there and not final may be replaced by the running query any time: it is written as final.
            if before.is_some_and(|held| held.is_final && held.value.as_deref() == Some(row.value.as_slice())) {
                report.windows.unchanged += 1;
                continue;
            }
            let revision = before.map_or(lowest, |held| lowest.max(held.revision + 1));
            report.windows.restated += 1;
            report.restated.push(row.restated(revision));
            if !self.dry_run {
                let headers = row.headers(deliverer.headers(&revision.to_string(), true)).insert(text(header::RESTATED, "true"));
                let mut record = BaseRecord::<'_, [u8], [u8], Waits>::with_opaque_to(&deliverer.output, AHEAD);
                record = record.payload(row.value.as_slice()).headers(headers);
                if let Some(key) = &row.key {
                    record = record.key(key.as_slice());
                }
                deliverer.send(record, self.owner).map_err(fault)?;
            }
        }
        deliverer.wait(self.owner).map_err(fault)
    }
}

enum Standing {
    Closed,
    Open,
    Lost,
}

#[derive(Debug, Default)]
struct Chosen {
    targets: BTreeSet<Target>,
    /// Of a query without a grouping.
    records: HashSet<(i32, i64)>,
}

/// A row that was computed once more.
pub(crate) struct NewRow {
    pub(crate) identity: Identity,
    pub(crate) key: Option<Vec<u8>>,
    /// Of a query without a grouping.
    time: Option<i64>,
    pub(crate) value: Vec<u8>,
}

impl NewRow {
    fn headers(&self, headers: OwnedHeaders) -> OwnedHeaders {
        match (&self.identity, self.time) {
            (Identity::Record(place), time) => {
                headers.insert(text(header::TIME, &time.unwrap_or_default().to_string())).insert(text(header::ROW, place))
            }
            (Identity::Window((0, 0), _), _) => headers,
            (Identity::Window(window, _), _) => with_window(headers, Some(window)),
        }
    }

    fn restated(&self, revision: i64) -> Restated {
        let window = match &self.identity {
            Identity::Window(window, _) if *window != (0, 0) => Some(*window),
            _ => None,
        };
        let key = match &self.identity {
            Identity::Record(place) => place.clone(),
            Identity::Window(_, key) => String::from_utf8_lossy(key).into_owned(),
        };
        Restated {
            start: window.map(|window| window.0),
            end: window.map(|window| window.1),
            key,
            revision,
            value: String::from_utf8_lossy(&self.value).into_owned(),
        }
    }
}

/// The rows of windows that were computed once more.
pub(crate) fn window_rows(recounted: &crate::engine::recount::Recounted) -> Result<Vec<NewRow>, TaskError> {
    let rows = JsonRows::new(&recounted.rows).map_err(TaskError::Fatal)?;
    let row = |row: usize| {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        key_text(&recounted.keys, row, &mut key);
        rows.write_row(row, &mut value);
        let window = recounted.windows.get(row).copied().unwrap_or_default();
        NewRow { identity: Identity::Window(window, key.clone()), key: Some(key), time: None, value }
    };
    Ok((0..recounted.rows.num_rows()).map(row).collect())
}

fn plain_rows(records: &Records, plain: &crate::engine::PlainRows) -> Result<Vec<NewRow>, TaskError> {
    let rows = JsonRows::new(&plain.rows).map_err(TaskError::Fatal)?;
    let row = |(row, (index, time)): (usize, &(u32, i64))| {
        let record = records.get(*index as usize);
        let mut value = Vec::new();
        rows.write_row(row, &mut value);
        let place = format!("{}-{}@{}", records.topic(), records.partition(), record.offset);
        NewRow { identity: Identity::Record(place), key: record.key.map(<[u8]>::to_vec), time: Some(*time), value }
    };
    Ok(plain.sources.iter().enumerate().map(row).collect())
}

/// Decodes records as a worker does.
pub(crate) fn decode(query: &StreamQuery, records: &Records, decoder: &mut Decoder) -> Result<Input, TaskError> {
    let mut input = records.decode(decoder)?;
    refuse_wrong_keys(query, records, &mut input)?;
    Ok(input)
}
