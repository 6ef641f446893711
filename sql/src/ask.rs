//! A statement to an answer.

use std::time::{Duration, Instant};

use common::settings;
use rusqlite::types::ValueRef;
use rusqlite::{Error, Statement};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value as Json};

use super::database::{Database, Listed, Program, shown};
use super::fault::Fault;
use super::guard::{Guard, LARGEST};
use super::names::quoted;

/// Largest answer, bytes of its values.
const MOST_BYTES: usize = 8 << 20;

/// How much one question may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_time: Duration,
    pub max_rows: usize,
    /// Bytes.
    pub max_memory: u64,
}

impl From<&settings::Sql> for Limits {
    fn from(settings: &settings::Sql) -> Self {
        Self { max_time: settings.max_time.duration(), max_rows: settings.max_rows, max_memory: settings.max_memory.bytes() }
    }
}

/// The rows that a statement gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub columns: Vec<String>,
    pub types: Vec<String>,
    pub rows: Vec<Vec<Json>>,
    /// Whether there are more rows than those.
    pub truncated: bool,
    pub elapsed_ms: u64,
}

/// A table that can be asked about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableInfo {
    /// As a statement names it.
    pub(crate) name: String,
    pub(crate) schema: String,
    pub(crate) columns: Vec<ColumnInfo>,
    /// `None` when they could not be counted.
    pub(crate) rows: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ColumnInfo {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// Answers one statement.
///
/// # Errors
/// Why there is no answer.
pub(crate) fn answer(program: &Program, limits: Limits, statement: &str) -> Result<Answer, Fault> {
    let started = Instant::now();
    let guard = Guard::new(limits);
    let mut database = Database::open(program, guard.clone())?;
    let locked = |error: Error| Fault::Away(format!("a question cannot be prepared ({error})"));
    guard.close(&mut database.connection).map_err(locked)?;
    // A first look tells which tables are named: only their rows are made.
    prepare(&database, statement).map(drop)?;
    let named = guard.named();
    Guard::open(&mut database.connection).map_err(locked)?;
    database.fill(program, &named)?;
    guard.close(&mut database.connection).map_err(locked)?;
    let mut prepared = prepare(&database, statement)?;
    let mut answer = run(&mut prepared, limits).map_err(|error| explain(&database, statement, &error))?;
    answer.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(answer)
}

/// The tables that can be asked about, their rows counted as far as the time goes.
pub(crate) fn tables(program: &Program, limits: Limits) -> Result<Vec<TableInfo>, Fault> {
    let guard = Guard::new(limits);
    let listed = Database::open(program, guard.clone())?.listed();
    let count = |name: &str| {
        let left = Limits { max_time: guard.budget().until.saturating_duration_since(Instant::now()), ..limits };
        answer(program, left, &format!("SELECT count(*) FROM {name}")).ok()?.rows.first()?.first()?.as_u64()
    };
    let info = |table: Listed| TableInfo {
        rows: count(&table.name),
        name: table.name,
        schema: table.schema.to_owned(),
        columns: table.columns.into_iter().map(|(name, kind)| ColumnInfo { name, kind }).collect(),
    };
    Ok(listed.into_iter().map(info).collect())
}

fn prepare<'a>(database: &'a Database, statement: &str) -> Result<Statement<'a>, Fault> {
    // SQLite would take it for the end.
    if statement.contains('\0') {
        return Err(Fault::Statement("the statement has a nul character in it".into()));
    }
    let prepared = database.connection.prepare(statement).map_err(|error| explain(database, statement, &error))?;
    if prepared.column_count() == 0 {
        return Err(Fault::Statement("there is no question in this; write a SELECT".into()));
    }
    if !prepared.readonly() {
        return Err(Fault::Statement("only questions are answered here, and this statement would change something; write a SELECT".into()));
    }
    Ok(prepared)
}

fn run(statement: &mut Statement<'_>, limits: Limits) -> rusqlite::Result<Answer> {
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut types: Vec<String> = statement.columns().map(|column| shown(column.decl_type())).collect();
    let (mut answered, mut truncated, mut bytes) = (Vec::new(), false, 0);
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if answered.len() == limits.max_rows || bytes > MOST_BYTES {
            truncated = true;
            break;
        }
        let mut values = Vec::with_capacity(columns.len());
        for (place, kind) in types.iter_mut().enumerate() {
            let value = row.get_ref(place)?;
            if kind.is_empty() {
                type_of(value).clone_into(kind);
            }
            bytes += size(value);
            values.push(json(value, kind));
        }
        answered.push(values);
    }
    Ok(Answer { columns, types, rows: answered, truncated, elapsed_ms: 0 })
}

const fn size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() + 8,
        _ => 8,
    }
}

/// The type of an expression's column: that of its first value which is not NULL.
const fn type_of(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "",
        ValueRef::Integer(_) => "BIGINT",
        ValueRef::Real(_) => "DOUBLE",
        ValueRef::Text(_) => "STRING",
        ValueRef::Blob(_) => "BINARY",
    }
}

fn json(value: ValueRef<'_>, kind: &str) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(value) if kind == "BOOLEAN" => (value != 0).into(),
        ValueRef::Integer(value) => value.into(),
        // The infinities have no form in JSON.
        ValueRef::Real(value) => Number::from_f64(value).map_or(Json::Null, Json::Number),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}

/// The engine's words, and what to do.
fn explain(database: &Database, statement: &str, error: &Error) -> Fault {
    if let Some(fault) = database.guard.reason() {
        return fault;
    }
    let words = match error {
        Error::MultipleStatement => return Fault::Statement("there is more than one statement here; ask one question at a time".into()),
        Error::SqlInputError { msg, .. } => msg.clone(),
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::TooBig) {
        return Fault::Statement(format!("{words}: a value or a row is larger than {} MiB", LARGEST >> 20));
    }
    Fault::Statement(match hint(database, statement, &words) {
        Some(hint) => format!("{words}; {hint}"),
        None => words,
    })
}

fn hint(database: &Database, statement: &str, words: &str) -> Option<String> {
    if words.starts_with("no such table") {
        let known: Vec<String> = database.listed().into_iter().map(|table| table.name).collect();
        let known = if known.is_empty() { "there are none yet".into() } else { format!("there are: {}", known.join(", ")) };
        return Some(match database.store_fault() {
            Some(fault) => format!("{known}; {fault}"),
            None => known,
        });
    }
    if words.starts_with("no such column") {
        // SQLite has not told the guard about tables whose columns it did not find.
        let said: Vec<String> =
            statement.split(|other: char| !other.is_ascii_alphanumeric() && other != '_').map(str::to_lowercase).collect();
        let listed = database.listed();
        let is_named = |table: &&Listed| {
            let own = table.name.rsplit('.').next().unwrap_or_default().trim_matches('"');
            said.contains(&own.to_lowercase()) || statement.contains(&quoted(own))
        };
        let columns = |table: &Listed| {
            let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
            format!("{} has: {}", table.name, names.join(", "))
        };
        let known: Vec<String> = listed.iter().filter(is_named).map(columns).collect();
        return Some(if known.is_empty() { "`tidemark sql --tables` shows what there is".into() } else { known.join("; ") });
    }
    None
}
