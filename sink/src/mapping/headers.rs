//! What the headers of a result row say.

use common::topics::result_header as header;

use super::{Unreadable, unreadable};

/// All absent in rows that something else than our processor wrote.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    pub(super) query: Option<&'a str>,
    pub(super) revision: Option<i64>,
    pub(super) is_final: bool,
    pub(super) restated: bool,
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) time: Option<i64>,
    pub(super) rank: Option<i64>,
    pub(super) key_columns: Option<&'a [u8]>,
    /// The key itself, of a row that has left the result.
    pub(super) key: Option<&'a [u8]>,
}

impl<'a> Told<'a> {
    pub(super) fn read(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Self, Unreadable> {
        let mut told = Self::default();
        for (name, bytes) in headers {
            let text = || std::str::from_utf8(bytes).map_err(|_| unreadable("bad_header", format!("header {name} is not text")));
            match name {
                header::QUERY => told.query = Some(text()?),
                header::REVISION => told.revision = Some(number(name, text()?)?),
                header::FINAL => told.is_final = text()? == "true",
                header::RESTATED => told.restated = text()? == "true",
                header::WINDOW_START => told.start = Some(number(name, text()?)?),
                header::WINDOW_END => told.end = Some(number(name, text()?)?),
                header::TIME => told.time = Some(number(name, text()?)?),
                header::RANK => told.rank = Some(number(name, text()?)?),
                header::KEY_COLUMNS => told.key_columns = Some(bytes),
                header::KEY => told.key = Some(bytes),
                _ => {}
            }
        }
        Ok(told)
    }
}

fn number(name: &str, text: &str) -> Result<i64, Unreadable> {
    text.parse().map_err(|_| unreadable("bad_header", format!("header {name} is '{text}', not a whole number")))
}
