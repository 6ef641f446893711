//! A reader of results, as strict as a database: by identity the largest revision stays, and what is final stays as it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::query::{Mode, Query};
use crate::engine::{Engine, EngineError, Entry, Output, PlainRows, Refused};
use crate::format::encode::{JsonRows, key_text};

/// Start of the window (event time of a row that stands for a record) and key.
pub(super) type Identity = (i64, String);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) end: i64,
    pub(super) value: String,
    pub(super) is_final: bool,
}

/// One message of the result topic.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    identity: Identity,
    revision: i64,
    /// `None`: the row has left the whole result.
    row: Option<Row>,
}

/// What all readers of a shard's topics have at the end.
#[derive(Debug, Default)]
pub(super) struct Sink {
    rows: BTreeMap<Identity, (i64, Row)>,
    /// The revisions of rows that have left: what a former owner sends later does not bring them back.
    gone: BTreeMap<Identity, i64>,
    pub(super) late: BTreeSet<(i32, i64)>,
    pub(super) dead: BTreeSet<(i32, i64)>,
}

impl Sink {
    pub(super) fn rows(&self) -> BTreeMap<&Identity, &Row> {
        self.rows.iter().map(|(identity, (_, row))| (identity, row)).collect()
    }

    pub(super) fn take(&mut self, query: &Query, sent: &Sent) {
        let known = self.rows.get(&sent.identity);
        if self.gone.get(&sent.identity).is_some_and(|revision| *revision > sent.revision) {
            return;
        }
        if known.is_some_and(|(revision, _)| *revision > sent.revision) {
            return;
        }
        let Some(row) = &sent.row else {
            self.rows.remove(&sent.identity);
            self.gone.insert(sent.identity.clone(), sent.revision);
            return;
        };
        if let Some((revision, known)) = known
            && known.is_final
            && query.mode != Mode::Complete
        {
            assert_eq!(row.value, known.value, "a final row changed: {:?}, revision {revision} to {}", sent.identity, sent.revision);
            // A former owner may send what it had computed before the wall clock closed the window: the same row, not final yet.
            if *revision == sent.revision {
                return;
            }
            assert!(row.is_final, "a final row is open again: {:?}", sent.identity);
        }
        self.rows.insert(sent.identity.clone(), (sent.revision, row.clone()));
    }

    pub(super) fn take_lanes(&mut self, (partition, from): (i32, i64), late: &[Refused], dead: &[Refused]) {
        self.late.extend(late.iter().map(|row| (partition, from + i64::from(row.index))));
        self.dead.extend(dead.iter().map(|row| (partition, from + i64::from(row.index))));
    }
}

/// The messages of one step, in their order.
pub(super) fn sent(engine: &Engine, output: &Output) -> Vec<Sent> {
    sent_with(output, engine.revision())
}

/// The messages that a new owner sends again.
pub(super) fn given_again(engine: &mut Engine, newest: VecDeque<Entry>) -> Vec<Sent> {
    let mut messages = Vec::new();
    let given = engine.give_again(newest, |output, revision| {
        messages.extend(sent_with(output, revision));
        Ok::<_, EngineError>(())
    });
    given.unwrap();
    messages
}

fn sent_with(output: &Output, revision: i64) -> Vec<Sent> {
    assert!(output.failed.is_empty(), "results that could not be computed: {:?}", output.failed);
    let window = |windows: &[(i64, i64)], row: usize| windows.get(row).copied().unwrap_or_default();
    let gone = (0..output.gone.count).map(|row| {
        let identity = (window(&output.gone.windows, row).0, key(&output.gone.keys, row));
        Sent { identity, revision, row: None }
    });
    let rows = JsonRows::new(&output.rows).unwrap();
    let shown = (0..output.rows.num_rows()).map(|row| {
        let (start, end) = window(&output.windows, row);
        let mut value = Vec::new();
        rows.write_row(row, &mut value);
        let mut value = String::from_utf8(value).unwrap();
        if output.ranked {
            value += &format!(" #{row}");
        }
        let row_of = Row { end, value, is_final: output.finals[row] };
        Sent { identity: (start, key(&output.keys, row)), revision, row: Some(row_of) }
    });
    gone.chain(shown).collect()
}

/// The rows of a query without a grouping; `from` is the first offset.
pub(super) fn sent_plain((partition, from): (i32, i64), plain: &PlainRows) -> Vec<Sent> {
    let rows = JsonRows::new(&plain.rows).unwrap();
    let message = |(row, (index, time)): (usize, &(u32, i64))| {
        let mut value = Vec::new();
        rows.write_row(row, &mut value);
        let offset = from + i64::from(*index);
        let row = Row { end: *time, value: String::from_utf8(value).unwrap(), is_final: true };
        Sent { identity: (*time, format!("{partition}@{offset}")), revision: offset + 1, row: Some(row) }
    };
    plain.sources.iter().enumerate().map(message).collect()
}

pub(super) fn key(columns: &[arrow::array::ArrayRef], row: usize) -> String {
    let mut key = Vec::new();
    key_text(columns, row, &mut key);
    String::from_utf8(key).unwrap()
}
