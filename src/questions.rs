//! `/api/sql` of the appliance: the processor's tables, and the sink's database.

use std::path::PathBuf;
use std::sync::Arc;

use common::Settings;
use sink::store;
use sql::{Program, Store, View};

/// The database of the sink.
struct Database(PathBuf);

impl Store for Database {
    fn path(&self) -> PathBuf {
        self.0.clone()
    }

    fn views(&self, connection: &rusqlite::Connection, schema: &str) -> Result<Vec<View>, String> {
        let views = store::views(connection, schema, &self.0).map_err(|error| error.to_string())?;
        Ok(views.into_iter().map(|view| View { name: view.name, columns: view.columns, select: view.select }).collect())
    }
}

pub(crate) fn router(settings: &Settings) -> axum::Router {
    let store: Arc<dyn Store> = Arc::new(Database(settings.sink.sqlite.path.clone()));
    sql::router(Program { tables: Arc::new(processor::Questions), store: Some(store) }, &settings.sql)
}
