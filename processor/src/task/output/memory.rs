//! A table in memory under the query's name, as `/tables` shows it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};

use super::super::error::TaskError;
use super::super::owner::Owner;
use super::{Batch, Sink};
use crate::format::encode::JsonRows;
use crate::query::file;

/// So many rows are kept unless the query file says otherwise.
const MOST: usize = 10_000;

/// The tables of this process, by query.
#[derive(Debug, Default)]
pub(crate) struct Tables(Mutex<BTreeMap<String, Table>>);

#[derive(Debug)]
struct Table {
    schema: SchemaRef,
    batches: VecDeque<RecordBatch>,
    rows: usize,
    /// The newest batch.
    batch: i64,
    /// Rows that had to make room for newer ones.
    dropped: u64,
}

impl Tables {
    /// Those of all queries of this process: sinks write, the listener reads.
    pub(crate) fn shared() -> &'static Self {
        static TABLES: Tables = Tables(Mutex::new(BTreeMap::new()));
        &TABLES
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Table>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the tables.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tables().keys().cloned().collect()
    }

    /// The tables with their columns.
    pub(crate) fn schemas(&self) -> Vec<(String, SchemaRef)> {
        self.tables().iter().map(|(name, table)| (name.clone(), Arc::clone(&table.schema))).collect()
    }

    /// The rows of a table, in order; `None` when there is no such table.
    pub(crate) fn batches(&self, name: &str) -> Option<Vec<RecordBatch>> {
        self.tables().get(name).map(|table| table.batches.iter().cloned().collect())
    }

    /// The newest `limit` rows of a table, in order; `None` when there is no such table.
    pub(crate) fn rows(&self, name: &str, limit: usize) -> Option<Value> {
        // Batches are cheap to copy, and the sink must not wait for a slow reader.
        let (schema, batches, rows, batch, dropped) = {
            let tables = self.tables();
            let table = tables.get(name)?;
            (Arc::clone(&table.schema), table.batches.clone(), table.rows, table.batch, table.dropped)
        };
        let mut skip = rows.saturating_sub(limit);
        let mut shown: Vec<Value> = Vec::new();
        for rows in &batches {
            let from = skip.min(rows.num_rows());
            skip -= from;
            let Ok(encoded) = JsonRows::new(rows) else { continue };
            for row in from..rows.num_rows() {
                let mut text = Vec::new();
                encoded.write_row(row, &mut text);
                shown.push(serde_json::from_slice(&text).unwrap_or_default());
            }
        }
        let columns: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        Some(json!({ "name": name, "columns": columns, "batchId": batch, "totalRows": rows, "droppedRows": dropped, "rows": shown }))
    }

    fn put(&self, name: &str, batch: &Batch, most: usize) {
        let mut tables = self.tables();
        let Some(table) = tables.get_mut(name) else { return };
        if batch.is_whole {
            table.batches.clear();
            table.rows = 0;
        }
        table.batch = batch.id;
        table.rows += batch.rows.num_rows();
        table.batches.push_back(batch.rows.clone());
        while table.rows > most {
            let Some(oldest) = table.batches.pop_front() else { break };
            let surplus = (table.rows - most).min(oldest.num_rows());
            if surplus < oldest.num_rows() {
                table.batches.push_front(oldest.slice(surplus, oldest.num_rows() - surplus));
            }
            table.rows -= surplus;
            table.dropped += surplus as u64;
        }
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    name: String,
    most: usize,
}

impl Memory {
    pub(super) fn open(name: &str, sink: &file::Sink, schema: &SchemaRef) -> Self {
        let table = Table { schema: Arc::clone(schema), batches: VecDeque::new(), rows: 0, batch: -1, dropped: 0 };
        Tables::shared().tables().insert(name.to_owned(), table);
        Self { name: name.to_owned(), most: sink.max_rows.unwrap_or(MOST) }
    }
}

impl Sink for Memory {
    fn write(&mut self, batch: &Batch, _owner: &Owner) -> Result<(), TaskError> {
        Tables::shared().put(&self.name, batch, self.most);
        Ok(())
    }

    fn remembers(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn batch(id: i64, values: std::ops::Range<i64>, is_whole: bool) -> Batch {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        Batch { id, rows: RecordBatch::try_from_iter([("n", values)]).unwrap(), is_whole }
    }

    #[test]
    fn a_table_keeps_the_newest_rows_and_a_whole_result_replaces_it() {
        let tables = Tables::default();
        let schema = batch(0, 0..1, false).rows.schema();
        let empty = Table { schema, batches: VecDeque::new(), rows: 0, batch: -1, dropped: 0 };
        tables.tables().insert("t".into(), empty);
        let shown = |limit| {
            let table = tables.rows("t", limit).unwrap();
            (
                table["rows"].as_array().unwrap().iter().map(|row| row["n"].as_i64().unwrap()).collect::<Vec<_>>(),
                table["droppedRows"].as_u64(),
            )
        };
        tables.put("t", &batch(0, 0..4, false), 5);
        tables.put("t", &batch(1, 4..7, false), 5);
        assert_eq!(shown(100), (vec![2, 3, 4, 5, 6], Some(2)));
        assert_eq!(shown(2).0, [5, 6]);
        tables.put("t", &batch(2, 10..12, true), 5);
        assert_eq!(shown(100).0, [10, 11]);
        assert!(tables.rows("u", 1).is_none());
    }
}
