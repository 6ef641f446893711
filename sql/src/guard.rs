//! What a statement may do, and for how long.
//!
//! Four fences, each of which would do for most of what could go wrong: the *authorizer* lets a SELECT read and nothing else; the
//! connection is *query_only* and the store's file is open for reading; *limits* bound what one step of SQLite can do; and the *progress
//! handler* ends a statement whose time or memory is over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;

use super::ask::Limits;
use super::fault::Fault;
use super::memory;
use super::table::Budget;

/// Instructions of SQLite's machine between two looks at clock and memory.
const LOOK_EVERY: i32 = 100;
/// Largest text, blob or row, bytes. It bounds what a single instruction can cost, which nothing interrupts.
pub(crate) const LARGEST: i32 = 1 << 20;

/// SQLite's tables and functions that tell of, or reach, more than the tables of the question.
const HIDDEN: [&str; 6] = ["dbstat", "sqlite_dbpage", "sqlite_stmt", "sqlite_memstat", "bytecode", "tables_used"];
const REFUSED: [&str; 8] =
    ["load_extension", "fts3_tokenizer", "sqlite_log", "rtreecheck", "readfile", "writefile", "edit", "sqlite_compileoption_get"];

/// A guarded connection's notes.
#[derive(Debug)]
pub(crate) struct Guard {
    limits: Limits,
    until: Instant,
    /// What SQLite held when the question began.
    before: u64,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    /// Schema (empty: not said) and table, as far as the statement names them.
    named: BTreeSet<(String, String)>,
    /// What the statement tried and may not do.
    refused: Option<String>,
    over: Option<Fault>,
}

impl Guard {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, until: Instant::now() + limits.max_time, before: memory::used(), noted: Mutex::default() })
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget { until: self.until, bytes: self.limits.max_memory }
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether time and memory are left.
    ///
    /// # Errors
    /// What is over.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if Instant::now() >= self.until {
            return Err(Fault::Time(self.limits.max_time));
        }
        if memory::used().saturating_sub(self.before) > self.limits.max_memory {
            return Err(Fault::Memory(self.limits.max_memory));
        }
        Ok(())
    }

    /// The tables that the statement names.
    pub(crate) fn named(&self) -> BTreeSet<(String, String)> {
        self.noted().named.clone()
    }

    /// What a failed statement ran into, unless the fault was SQLite's own.
    pub(crate) fn reason(&self) -> Option<Fault> {
        let noted = self.noted();
        let refused = noted
            .refused
            .as_ref()
            .map(|what| Fault::Statement(format!("only questions are answered here, and this statement would {what}; write a SELECT")));
        noted.over.clone().or(refused)
    }

    /// The fences that stand while the connection's own tables are made and filled, too.
    pub(crate) fn limit(self: &Arc<Self>, connection: &mut Connection) -> rusqlite::Result<()> {
        for (limit, value) in [
            (Limit::SQLITE_LIMIT_LENGTH, LARGEST),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, 64 << 10),
            (Limit::SQLITE_LIMIT_EXPR_DEPTH, 100),
            (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 50),
            (Limit::SQLITE_LIMIT_VDBE_OP, 25_000),
            (Limit::SQLITE_LIMIT_FUNCTION_ARG, 100),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
            (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 2_000),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            connection.set_limit(limit, value)?;
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // A misspelt column in double quotes is a fault, and not a text.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        let guard = Arc::clone(self);
        connection.progress_handler(LOOK_EVERY, Some(move || guard.is_over()))
    }

    fn is_over(&self) -> bool {
        let Err(fault) = self.check() else { return false };
        self.noted().over = Some(fault);
        true
    }

    /// From now on nothing but questions.
    pub(crate) fn close(self: &Arc<Self>, connection: &mut Connection) -> rusqlite::Result<()> {
        connection.pragma_update(None, "query_only", true)?;
        let guard = Arc::clone(self);
        connection.authorizer(Some(move |context: AuthContext<'_>| guard.judge(&context)))
    }

    /// For the program's own statements.
    pub(crate) fn open(connection: &mut Connection) -> rusqlite::Result<()> {
        connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
        connection.pragma_update(None, "query_only", false)
    }

    fn judge(&self, context: &AuthContext<'_>) -> Authorization {
        let refused = match context.action {
            AuthAction::Select | AuthAction::Recursive => None,
            AuthAction::Read { table_name, .. } => {
                let table = table_name.to_ascii_lowercase();
                self.noted().named.insert((context.database_name.unwrap_or_default().to_ascii_lowercase(), table.clone()));
                let hidden = HIDDEN.contains(&table.as_str()) || table.starts_with("pragma_");
                hidden.then(|| format!("read SQLite's own table {table_name}"))
            }
            AuthAction::Function { function_name } => {
                let refused = REFUSED.iter().any(|name| name.eq_ignore_ascii_case(function_name));
                refused.then(|| format!("call {function_name}()"))
            }
            AuthAction::Attach { .. } => Some("attach a file".into()),
            AuthAction::Detach { .. } => Some("detach a database".into()),
            AuthAction::Pragma { pragma_name, .. } => Some(format!("use PRAGMA {pragma_name}")),
            AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. } | AuthAction::Delete { table_name } => {
                Some(format!("change the table {table_name}"))
            }
            AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Some("begin or end a transaction".into()),
            _ => Some("change what tables there are".into()),
        };
        let Some(what) = refused else { return Authorization::Allow };
        self.noted().refused.get_or_insert(what);
        Authorization::Deny
    }
}
