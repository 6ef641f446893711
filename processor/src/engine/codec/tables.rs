//! The states of an entry as tables of typed columns, each one Arrow IPC stream of one batch.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Int32Array, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::datatypes::{Field, FieldRef, Int32Type, Int64Type, Schema, UInt32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::super::sessions::Session;
use super::super::{GroupState, LineNumber, LineTime, PartitionTime, SeenKey, SessionState};
use super::CodecError;
use crate::query::{Dedup, GroupKeys, Grouping, Pane, Timeline};

/// Columns with their names; all are nullable, because a state may be.
pub(super) struct Table {
    fields: Vec<FieldRef>,
    columns: Vec<ArrayRef>,
    rows: usize,
    metadata: HashMap<String, String>,
}

impl Table {
    fn new(rows: usize) -> Self {
        Self { fields: Vec::new(), columns: Vec::new(), rows, metadata: HashMap::new() }
    }

    /// A column of our own, which has no nulls.
    fn own(mut self, name: &str, column: impl Array + 'static) -> Self {
        self.fields.push(Arc::new(Field::new(name, column.data_type().clone(), false)));
        self.columns.push(Arc::new(column));
        self
    }

    fn optional(mut self, name: &str, column: impl Array + 'static) -> Self {
        self.fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        self.columns.push(Arc::new(column));
        self
    }

    /// Row bytes as columns.
    fn rows<'a>(mut self, prefix: &str, keys: &GroupKeys, rows: impl Iterator<Item = &'a [u8]>) -> Result<Self, CodecError> {
        let nullable =
            |(place, field): (usize, &FieldRef)| Arc::new(Field::new(format!("{prefix}_{place}"), field.data_type().clone(), true));
        self.fields.extend(keys.fields().iter().enumerate().map(nullable));
        self.columns.extend(keys.columns(rows)?);
        Ok(self)
    }

    pub(super) fn with_metadata(mut self, metadata: HashMap<String, String>) -> Self {
        self.metadata = metadata;
        self
    }

    pub(super) fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Appends the table to `out`.
    pub(super) fn write(self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let schema = Arc::new(Schema::new(self.fields).with_metadata(self.metadata));
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), self.columns, &options)?;
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let mut writer = StreamWriter::try_new_with_options(out, &schema, options)?;
        writer.write(&batch)?;
        writer.finish()?;
        Ok(())
    }

    /// The next table.
    pub(super) fn read(bytes: &mut Cursor<&[u8]>) -> Result<Self, CodecError> {
        let mut reader = StreamReader::try_new(bytes, None)?;
        let schema = reader.schema();
        let batch = reader.next().ok_or_else(|| CodecError::Damaged("one of its tables has no rows block".into()))??;
        // The mark of the stream's end belongs to it.
        if reader.next().is_some() {
            return Err(CodecError::Damaged("one of its tables has two rows blocks".into()));
        }
        Ok(Self {
            fields: schema.fields().iter().cloned().collect(),
            columns: batch.columns().to_vec(),
            rows: batch.num_rows(),
            metadata: schema.metadata().clone(),
        })
    }

    fn check(&self, columns: usize) -> Result<(), CodecError> {
        match self.columns.len() == columns {
            true => Ok(()),
            false => Err(CodecError::Damaged(format!("one of its tables has {} columns instead of {columns}", self.columns.len()))),
        }
    }

    fn numbers<T: ArrowPrimitiveType>(&self, column: usize) -> Result<&PrimitiveArray<T>, CodecError> {
        let numbers = self.columns[column].as_primitive_opt::<T>();
        numbers.ok_or_else(|| CodecError::Damaged(format!("its column '{}' is not of its type", self.fields[column].name())))
    }
}

/// A column that only some tables have.
fn with_lines(table: Table, lines: bool, numbers: impl Iterator<Item = LineNumber>) -> Table {
    if lines { table.optional("line", numbers.collect::<UInt32Array>()) } else { table }
}

fn read_line(column: Option<&UInt32Array>, row: usize) -> LineNumber {
    column.filter(|column| !column.is_null(row)).map(|column| column.value(row))
}

pub(super) fn groups(grouping: Option<&Grouping>, lines: bool, groups: &[GroupState]) -> Result<Table, CodecError> {
    let table = Table::new(groups.len())
        .own("partition", Int32Array::from_iter_values(groups.iter().map(|group| group.partition)))
        .own("pane", Int64Array::from_iter_values(groups.iter().map(|group| group.pane.start)))
        .own("since", Int64Array::from_iter_values(groups.iter().map(|group| group.pane.since)));
    let table = with_lines(table, lines, groups.iter().map(|group| group.line));
    let Some(grouping) = grouping else { return Ok(table) };
    table.rows("key", &grouping.group_keys, groups.iter().map(|group| &*group.key))?.rows(
        "state",
        &grouping.state_rows,
        groups.iter().map(|group| &*group.state),
    )
}

pub(super) fn read_groups(grouping: Option<&Grouping>, lines: bool, table: &Table) -> Result<Vec<GroupState>, CodecError> {
    let own = 3 + usize::from(lines);
    let Some(grouping) = grouping else {
        table.check(own)?;
        return Ok(Vec::new());
    };
    let keys = grouping.group_keys.fields().len();
    table.check(own + keys + grouping.state_rows.fields().len())?;
    let (partitions, panes, since) = (table.numbers::<Int32Type>(0)?, table.numbers::<Int64Type>(1)?, table.numbers::<Int64Type>(2)?);
    let numbers = if lines { Some(table.numbers::<UInt32Type>(3)?) } else { None };
    let (keys, states) = table.columns[own..].split_at(keys);
    let (keys, states) = (grouping.group_keys.rows(keys)?, grouping.state_rows.rows(states)?);
    let group = |row: usize| GroupState {
        partition: partitions.value(row),
        line: read_line(numbers, row),
        pane: Pane { start: panes.value(row), since: since.value(row) },
        key: keys.row(row).into(),
        state: states.row(row).into(),
    };
    Ok((0..table.rows).map(group).collect())
}

pub(super) fn lines(timeline: &Timeline, lines: &[LineTime]) -> Result<Table, CodecError> {
    Table::new(lines.len())
        .own("partition", Int32Array::from_iter_values(lines.iter().map(|line| line.partition)))
        .optional("newest", lines.iter().map(|line| line.time.max_event_time).collect::<Int64Array>())
        .optional("floor", lines.iter().map(|line| line.time.floor).collect::<Int64Array>())
        .rows("device", &timeline.rows, lines.iter().map(|line| &*line.device))
}

pub(super) fn read_lines(timeline: &Timeline, table: &Table) -> Result<Vec<LineTime>, CodecError> {
    table.check(3 + timeline.rows.fields().len())?;
    let partitions = table.numbers::<Int32Type>(0)?;
    let (newest, floors) = (table.numbers::<Int64Type>(1)?, table.numbers::<Int64Type>(2)?);
    let devices = timeline.rows.rows(&table.columns[3..])?;
    let time = |column: &Int64Array, row: usize| (!column.is_null(row)).then(|| column.value(row));
    let line = |row: usize| LineTime {
        partition: partitions.value(row),
        device: devices.row(row).into(),
        time: PartitionTime { max_event_time: time(newest, row), floor: time(floors, row) },
    };
    Ok((0..table.rows).map(line).collect())
}

pub(super) fn sessions(grouping: &Grouping, sessions: &[SessionState]) -> Result<Table, CodecError> {
    let times = |time: fn(&Session) -> i64| Int64Array::from_iter_values(sessions.iter().map(|session| time(&session.session)));
    let table = Table::new(sessions.len())
        .own("partition", Int32Array::from_iter_values(sessions.iter().map(|session| session.partition)))
        .own("start", times(|session| session.start))
        .own("end", times(|session| session.end))
        .own("from", times(|session| session.from));
    with_lines(table, true, sessions.iter().map(|session| session.line))
        .rows("key", &grouping.group_keys, sessions.iter().map(|session| &*session.key))?
        .rows("state", &grouping.state_rows, sessions.iter().map(|session| &*session.state))
}

pub(super) fn read_sessions(grouping: &Grouping, table: &Table) -> Result<Vec<SessionState>, CodecError> {
    let keys = grouping.group_keys.fields().len();
    table.check(5 + keys + grouping.state_rows.fields().len())?;
    let partitions = table.numbers::<Int32Type>(0)?;
    let (starts, ends, from) = (table.numbers::<Int64Type>(1)?, table.numbers::<Int64Type>(2)?, table.numbers::<Int64Type>(3)?);
    let lines = table.numbers::<UInt32Type>(4)?;
    let (keys, states) = table.columns[5..].split_at(keys);
    let (keys, states) = (grouping.group_keys.rows(keys)?, grouping.state_rows.rows(states)?);
    let session = |row: usize| SessionState {
        partition: partitions.value(row),
        line: read_line(Some(lines), row),
        key: keys.row(row).into(),
        session: Session { start: starts.value(row), end: ends.value(row), from: from.value(row) },
        state: states.row(row).into(),
    };
    Ok((0..table.rows).map(session).collect())
}

pub(super) fn seen(dedup: &Dedup, seen: &[SeenKey]) -> Result<Table, CodecError> {
    let table = Table::new(seen.len())
        .own("partition", Int32Array::from_iter_values(seen.iter().map(|seen| seen.partition)))
        .own("expiry", Int64Array::from_iter_values(seen.iter().map(|seen| seen.expiry)));
    with_lines(table, true, seen.iter().map(|seen| seen.line)).rows("key", &dedup.rows, seen.iter().map(|seen| &*seen.key))
}

pub(super) fn read_seen(dedup: &Dedup, table: &Table) -> Result<Vec<SeenKey>, CodecError> {
    table.check(3 + dedup.rows.fields().len())?;
    let (partitions, expiries) = (table.numbers::<Int32Type>(0)?, table.numbers::<Int64Type>(1)?);
    let lines = table.numbers::<UInt32Type>(2)?;
    let keys = dedup.rows.rows(&table.columns[3..])?;
    let seen = |row: usize| SeenKey {
        partition: partitions.value(row),
        line: read_line(Some(lines), row),
        key: keys.row(row).into(),
        expiry: expiries.value(row),
    };
    Ok((0..table.rows).map(seen).collect())
}
