//! The connection of a question: the program's tables, and the store attached.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::fault::Fault;
use super::guard::{Guard, LARGEST};
use super::names::{distinct, plain, quoted};
use super::table::{Kind, Schema, Table, Tables};

/// The schema under which the store is attached.
pub(crate) const STORE: &str = "store";
/// Rows between two looks at clock and memory while a table is filled.
const LOOK_EVERY: usize = 1_000;

/// What a program has to be asked about; clones are the same thing.
#[derive(Clone)]
pub struct Program {
    pub tables: Arc<dyn Tables>,
    pub store: Option<Arc<dyn Store>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program")
    }
}

/// An SQLite file that somebody else writes. It may be missing, and come later.
pub trait Store: Send + Sync {
    fn path(&self) -> PathBuf;

    /// Views over the attached file, whose tables are in `schema`; none while the file is not ready.
    ///
    /// # Errors
    /// Why the file cannot be read.
    fn views(&self, connection: &Connection, schema: &str) -> Result<Vec<View>, String>;
}

/// A view over the store: its name, its columns with their types, and the SELECT behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub name: String,
    pub columns: Vec<(String, &'static str)>,
    pub select: String,
}

/// A table of the program as the connection knows it.
#[derive(Debug)]
struct Made {
    table: Table,
    /// Its names in the schema; rows are in those that a statement names.
    names: Vec<String>,
}

pub(crate) struct Database {
    pub(crate) connection: Connection,
    pub(crate) guard: Arc<Guard>,
    made: Vec<Made>,
    views: Vec<View>,
    /// Why the store is not attached, if it should be.
    store_fault: Option<String>,
}

impl Database {
    /// Makes the tables, without rows, and attaches the store.
    pub(crate) fn open(program: &Program, guard: Arc<Guard>) -> Result<Self, Fault> {
        let fault = |error: rusqlite::Error| Fault::Away(format!("a question cannot be prepared ({error})"));
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_in_memory_with_flags(flags).map_err(fault)?;
        // What a question sorts or keeps aside is memory, which is counted, and never a file. Set later, it would drop the views.
        connection.pragma_update(None, "temp_store", "MEMORY").map_err(fault)?;
        for schema in [Schema::Memory, Schema::Live] {
            connection.execute_batch(&format!("ATTACH ':memory:' AS {}", schema.name())).map_err(fault)?;
        }
        // They declare themselves at their first use, which the guard would take for a change.
        connection.prepare("SELECT 1 FROM json_each('[]'), json_tree('[]')").map(drop).map_err(fault)?;
        let tables = program.tables.tables();
        let made = tables.iter().map(|table| make(&connection, table, &tables)).collect();
        let mut database = Self { connection, guard, made, views: Vec::new(), store_fault: None };
        if let Some(store) = &program.store {
            match database.attach(&**store) {
                Ok(views) => database.views = views,
                Err(cause) => database.store_fault = Some(cause),
            }
        }
        let guard = Arc::clone(&database.guard);
        guard.limit(&mut database.connection).map_err(fault)?;
        Ok(database)
    }

    fn attach(&mut self, store: &dyn Store) -> Result<Vec<View>, String> {
        let path = store.path();
        if !path.exists() {
            return Ok(Vec::new());
        }
        let fault = |error: rusqlite::Error| format!("the database {} cannot be read ({error})", path.display());
        let uri = format!("file:{}?mode=ro", encoded(&path));
        self.connection.busy_timeout(std::time::Duration::from_secs(2)).map_err(fault)?;
        self.connection.execute(&format!("ATTACH ?1 AS {STORE}"), [uri]).map_err(fault)?;
        let views = store.views(&self.connection, STORE).inspect_err(|_| {
            // One file that cannot be read would spoil every statement.
            if let Err(error) = self.connection.execute_batch(&format!("DETACH {STORE}")) {
                tracing::debug!(%error, "the store stays attached");
            }
        })?;
        let taken = |name: &str| self.made.iter().flat_map(|made| &made.names).any(|other| other.eq_ignore_ascii_case(name));
        let views: Vec<View> = views.into_iter().filter(|view| !taken(&view.name)).collect();
        for view in &views {
            // Temporary: a view of another database could not look into this one.
            let sql = format!("CREATE TEMP VIEW IF NOT EXISTS {} AS {}", quoted(&view.name), view.select);
            self.connection.execute_batch(&sql).map_err(fault)?;
        }
        Ok(views)
    }

    /// Puts the rows into those tables that a statement names.
    pub(crate) fn fill(&mut self, program: &Program, named: &BTreeSet<(String, String)>) -> Result<(), Fault> {
        for made in &self.made {
            for name in &made.names {
                let is_named = |(schema, table): &(String, String)| {
                    table.eq_ignore_ascii_case(name) && (schema.is_empty() || schema == made.table.schema.name())
                };
                if named.iter().any(is_named) {
                    fill(&self.connection, &self.guard, &*program.tables, &made.table, name)?;
                }
            }
        }
        Ok(())
    }

    /// What a statement can ask about.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        let made = self.made.iter().filter_map(|made| {
            let name = made.names.last()?;
            let schema = made.table.schema.name();
            // A memory table hides the live one of its name.
            let is_hidden = made.table.schema == Schema::Live && self.made.iter().any(|other| other.hides(name));
            let columns = columns(&made.table).into_iter().map(|(name, kind)| (name, kind.shown().to_owned())).collect();
            Some(Listed { name: self.callable(is_hidden.then_some(schema), name), schema, columns })
        });
        let views = self.views.iter().map(|view| Listed {
            name: self.callable(None, &view.name),
            schema: STORE,
            columns: view.columns.iter().map(|(name, kind)| (name.clone(), (*kind).to_owned())).collect(),
        });
        made.chain(views).chain(self.raw().unwrap_or_default()).collect()
    }

    /// The tables of the store's file; an error while there is none.
    fn raw(&self) -> rusqlite::Result<Vec<Listed>> {
        let sql =
            format!("SELECT name FROM {STORE}.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name");
        let names = self.connection.prepare(&sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        let listed = |name: String| {
            let statement = self.connection.prepare(&format!("SELECT * FROM {STORE}.{}", quoted(&name)))?;
            let columns = statement.columns().map(|column| (column.name().to_owned(), shown(column.decl_type()))).collect();
            Ok(Listed { name: self.callable(Some(STORE), &name), schema: STORE, columns })
        };
        names.into_iter().map(listed).collect()
    }

    /// The name as a statement may write it: in quotes only when it needs them.
    fn callable(&self, schema: Option<&str>, name: &str) -> String {
        // As a name on its own: a keyword of SQL does not fit there.
        let is_plain = plain(name) == name && self.connection.prepare(&format!("SELECT 1 AS {name}")).is_ok();
        let name = if is_plain { name.to_owned() } else { quoted(name) };
        schema.map_or_else(|| name.clone(), |schema| format!("{schema}.{name}"))
    }

    pub(crate) fn store_fault(&self) -> Option<&str> {
        self.store_fault.as_deref()
    }
}

/// A table as a statement can name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// As it is written in a statement.
    pub(crate) name: String,
    pub(crate) schema: &'static str,
    /// With the types as they are shown.
    pub(crate) columns: Vec<(String, String)>,
}

impl Made {
    fn hides(&self, name: &str) -> bool {
        self.table.schema == Schema::Memory && self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// A declared type as answers show it: in Spark's words.
pub(crate) fn shown(declared: Option<&str>) -> String {
    let word = declared.unwrap_or_default().split(' ').next().unwrap_or_default().to_ascii_uppercase();
    match word.as_str() {
        "INTEGER" | "INT" => "BIGINT".into(),
        "TEXT" => "STRING".into(),
        "REAL" => "DOUBLE".into(),
        "BLOB" => "BINARY".into(),
        _ => word,
    }
}

fn columns(table: &Table) -> Vec<(String, Kind)> {
    let names = distinct(table.columns.iter().map(|column| column.name.as_str()));
    names.into_iter().zip(table.columns.iter().map(|column| column.kind)).collect()
}

/// Makes a table under its own name, and under a plain one that no other table has. A name that SQLite keeps for itself is left out.
fn make(connection: &Connection, table: &Table, all: &[Table]) -> Made {
    let mut names = vec![table.name.clone()];
    let alias = plain(&table.name);
    let is_taken = |other: &Table| other.schema == table.schema && other.name.eq_ignore_ascii_case(&alias);
    if alias != table.name && !all.iter().any(is_taken) {
        names.push(alias);
    }
    let columns: Vec<String> = columns(table).iter().map(|(name, kind)| format!("{} {}", quoted(name), kind.declared())).collect();
    let create = |name: &String| {
        let sql = format!("CREATE TABLE {}.{} ({})", table.schema.name(), quoted(name), columns.join(", "));
        connection.execute_batch(&sql).is_ok()
    };
    names.retain(create);
    Made { table: table.clone(), names }
}

fn fill(connection: &Connection, guard: &Guard, tables: &dyn Tables, table: &Table, name: &str) -> Result<(), Fault> {
    let fault = |error: rusqlite::Error| {
        let largest = LARGEST >> 20;
        guard.reason().unwrap_or_else(|| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::TooBig) => Fault::Away(format!("a row of the table {name} is larger than {largest} MiB")),
            _ => Fault::Away(format!("the rows of the table {name} cannot be had ({error})")),
        })
    };
    let places = vec!["?"; table.columns.len()].join(", ");
    let transaction = connection.unchecked_transaction().map_err(fault)?;
    {
        let sql = format!("INSERT INTO {}.{} VALUES ({places})", table.schema.name(), quoted(name));
        let mut insert = transaction.prepare(&sql).map_err(fault)?;
        let mut count = 0;
        tables.rows(table, guard.budget(), &mut |row| {
            count += 1;
            if count % LOOK_EVERY == 0 {
                guard.check()?;
            }
            insert.execute(params_from_iter(row)).map(drop).map_err(fault)
        })?;
    }
    transaction.commit().map_err(fault)
}

/// The path for a URI of SQLite, whatever is in it.
fn encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
