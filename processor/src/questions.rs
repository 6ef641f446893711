//! What can be asked in SQL: the tables of `memory` sinks, and the current results of the queries that run.

use arrow::array::RecordBatch;
use sql::{Budget, Fault, Schema, Table, Value};

use crate::format::cells::{SqlRows, columns};
use crate::task::{NoRows, RunningQueries, Tables};

/// The tables of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Questions;

impl Questions {
    /// The routes of a processor that runs alone. Another program puts them together with tables of its own.
    pub fn router(settings: &common::settings::Sql) -> axum::Router {
        sql::router(sql::Program { tables: std::sync::Arc::new(Self), store: None }, settings)
    }
}

impl sql::Tables for Questions {
    fn tables(&self) -> Vec<Table> {
        let memory = Tables::shared().schemas().into_iter().map(|(name, schema)| (Schema::Memory, name, schema));
        let live =
            RunningQueries::shared().grouped().into_iter().map(|query| (Schema::Live, query.file.name.clone(), query.output.clone()));
        memory.chain(live).map(|(schema, name, of)| Table { schema, name, columns: columns(&of) }).collect()
    }

    fn rows(&self, table: &Table, budget: Budget, put: &mut dyn FnMut(Vec<Value>) -> Result<(), Fault>) -> Result<(), Fault> {
        let batches = match table.schema {
            // One that has gone meanwhile has no rows.
            Schema::Memory => Tables::shared().batches(&table.name).unwrap_or_default(),
            Schema::Live => {
                let rows = RunningQueries::shared().rows(&table.name, budget.until, budget.bytes);
                rows.map_err(|error: NoRows| Fault::Away(error.to_string()))?
            }
        };
        batches.iter().try_for_each(|batch| give(batch, put))
    }
}

fn give(batch: &RecordBatch, put: &mut dyn FnMut(Vec<Value>) -> Result<(), Fault>) -> Result<(), Fault> {
    let rows = SqlRows::new(batch).map_err(|error| Fault::Away(format!("the rows cannot be read: {error}")))?;
    (0..batch.num_rows()).try_for_each(|row| put(rows.row(row)))
}
