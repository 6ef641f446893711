//! An entry as bytes: one Arrow IPC stream whose schema metadata holds the header and whose one batch holds the groups.
//!
//! Keys and states are written as typed columns, not as row bytes: Arrow may change its row format between releases, and a journal
//! outlives a release.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use serde::{Deserialize, Serialize};

use super::{Entry, GroupState, Ledger, PartitionTime, Progress};
use crate::query::{Pane, StreamQuery};

/// Version of the entry format.
const VERSION: u32 = 1;
const HEADER: &str = "tidemark";
/// Columns of a group before its key: partition, pane, since.
const OWN_COLUMNS: usize = 3;

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    /// Of the query, in hexadecimal: JSON numbers lose the last bits of 64.
    fingerprint: String,
    snapshot: bool,
    progress: Vec<HeaderProgress>,
}

#[derive(Serialize, Deserialize)]
struct HeaderProgress {
    partition: i32,
    from: i64,
    to: i64,
    time: PartitionTime,
    ledger: Ledger,
}

/// An entry that cannot be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error(
        "it has format version {found}, and this program reads version {VERSION}; use the release that wrote it, or start the query under another name"
    )]
    Version { found: u32 },
    #[error(
        "it was written by another SQL, schema, watermark or time zone (fingerprint {found}, now {expected}); put the old query file back, or give \
         the changed query another name to start it from the beginning of its input"
    )]
    Fingerprint { found: String, expected: String },
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl From<ArrowError> for CodecError {
    fn from(error: ArrowError) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn fingerprint(query: &StreamQuery) -> String {
    format!("{:016x}", query.fingerprint)
}

fn fields(query: &StreamQuery) -> Vec<FieldRef> {
    let own = [("partition", DataType::Int32), ("pane", DataType::Int64), ("since", DataType::Int64)];
    let mut fields: Vec<FieldRef> = own.into_iter().map(|(name, data_type)| Arc::new(Field::new(name, data_type, false))).collect();
    fields.extend(query.group_keys.fields().iter().enumerate().map(|(place, field)| nullable(&format!("key_{place}"), field)));
    fields.extend(query.state_rows.fields().iter().enumerate().map(|(place, field)| nullable(&format!("state_{place}"), field)));
    fields
}

fn nullable(name: &str, field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(name, field.data_type().clone(), true))
}

pub(crate) fn encode(query: &StreamQuery, entry: &Entry) -> Result<Vec<u8>, CodecError> {
    let header = Header {
        version: VERSION,
        fingerprint: fingerprint(query),
        snapshot: entry.snapshot,
        progress: entry.progress.iter().map(HeaderProgress::from).collect(),
    };
    let header = serde_json::to_string(&header).map_err(|error| CodecError::Damaged(error.to_string()))?;
    let schema = Arc::new(Schema::new(fields(query)).with_metadata(HashMap::from([(HEADER.to_owned(), header)])));

    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(entry.groups.iter().map(|group| group.partition))),
        Arc::new(Int64Array::from_iter_values(entry.groups.iter().map(|group| group.pane.start))),
        Arc::new(Int64Array::from_iter_values(entry.groups.iter().map(|group| group.pane.since))),
    ];
    columns.extend(query.group_keys.columns(entry.groups.iter().map(|group| &*group.key))?);
    columns.extend(query.state_rows.columns(entry.groups.iter().map(|group| &*group.state))?);
    let options = RecordBatchOptions::new().with_row_count(Some(entry.groups.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;

    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options)?;
    writer.write(&batch)?;
    writer.finish()?;
    Ok(writer.into_inner()?)
}

pub(crate) fn decode(query: &StreamQuery, bytes: &[u8]) -> Result<Entry, CodecError> {
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let header = schema.metadata().get(HEADER).ok_or_else(|| CodecError::Damaged("it has no header".into()))?;
    let header: Header = serde_json::from_str(header).map_err(|error| CodecError::Damaged(error.to_string()))?;
    if header.version != VERSION {
        return Err(CodecError::Version { found: header.version });
    }
    if header.fingerprint != fingerprint(query) {
        return Err(CodecError::Fingerprint { found: header.fingerprint, expected: fingerprint(query) });
    }
    let batch = reader.next().ok_or_else(|| CodecError::Damaged("it has no groups block".into()))??;
    Ok(Entry {
        snapshot: header.snapshot,
        progress: header.progress.into_iter().map(Progress::from).collect(),
        groups: groups(query, &batch)?,
    })
}

fn groups(query: &StreamQuery, batch: &RecordBatch) -> Result<Vec<GroupState>, CodecError> {
    let key_count = query.group_keys.fields().len();
    if batch.num_columns() != OWN_COLUMNS + key_count + query.state_rows.fields().len() {
        return Err(CodecError::Damaged(format!("it has {} columns", batch.num_columns())));
    }
    let (Some(partitions), Some(panes), Some(since)) = (
        batch.column(0).as_primitive_opt::<Int32Type>(),
        batch.column(1).as_primitive_opt::<Int64Type>(),
        batch.column(2).as_primitive_opt::<Int64Type>(),
    ) else {
        return Err(CodecError::Damaged("its first columns are not partition, pane and since".into()));
    };
    let (keys, states) = batch.columns()[OWN_COLUMNS..].split_at(key_count);
    let (keys, states) = (query.group_keys.rows(keys)?, query.state_rows.rows(states)?);
    let group = |row: usize| GroupState {
        partition: partitions.value(row),
        pane: Pane { start: panes.value(row), since: since.value(row) },
        key: keys.row(row).into(),
        state: states.row(row).into(),
    };
    Ok((0..partitions.len()).map(group).collect())
}

impl From<&Progress> for HeaderProgress {
    fn from(progress: &Progress) -> Self {
        let Progress { partition, from, to, time, ledger } = *progress;
        Self { partition, from, to, time, ledger }
    }
}

impl From<HeaderProgress> for Progress {
    fn from(progress: HeaderProgress) -> Self {
        let HeaderProgress { partition, from, to, time, ledger } = progress;
        Self { partition, from, to, time, ledger }
    }
}
