//! What `tests/spark.rs` is made of.
//!
//! | file | what |
//! |---|---|
//! | `cases.toml`, `cases` | the queries |
//! | `readings` | the records that they are run over |
//! | `compare` | final rows from the result topics, and their comparison |

pub(crate) mod cases;
pub(crate) mod compare;
pub(crate) mod readings;
