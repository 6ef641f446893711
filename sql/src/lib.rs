//! Questions in SQL to a running program: one SELECT over its tables, within limits of time, rows and memory. Nothing can be changed.
//!
//! ```text
//! tidemark sql ──▶ /api/sql ──▶ a connection in memory ◀── live, memory: the rows of the tables that the statement names
//!                                        ▲
//!                                        └── store: the sink's SQLite file, attached for reading
//! ```
//! The engine is SQLite, which the sink writes with anyway. Each question has a connection of its own, and is gone with it.
//!
//! | file | what |
//! |---|---|
//! | `table` | what a program gives: tables, their columns, and rows when they are asked for |
//! | `names` | how tables are called in SQL |
//! | `guard` | what a statement may do, and for how long; `memory`: how much SQLite holds |
//! | `database` | the connection with its tables, and the store attached |
//! | `ask` | a statement to an answer |
//! | `fault` | why there is none, in a sentence |
//! | `http` | `/api/sql` |
//! | `command`, `print` | the command `sql`, which asks and prints |

mod ask;
mod command;
mod database;
mod fault;
mod guard;
mod http;
mod memory;
mod names;
mod print;
mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use ask::{Answer, Limits};
pub use command::{SqlArgs, sql};
pub use database::{Program, Store, View};
pub use fault::Fault;
pub use http::router;
pub use rusqlite::types::Value;
pub use table::{Budget, Column, Kind, Schema, Table, Tables};
