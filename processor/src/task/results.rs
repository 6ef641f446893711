//! Result rows as records: their values, keys and headers.

use arrow::array::{ArrayRef, RecordBatch};
use common::topics::result_header as header;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;

use super::deliver::{AHEAD, Deliverer, Waits, text};
use super::error::TaskError;
use super::owner::Owner;
use super::records::Records;
use crate::engine::{Gone, Output, PlainRows};
use crate::format::encode::{JsonRows, key_text, write_value};
use crate::query::StreamQuery;

impl Deliverer {
    /// Sends the result rows of one step; the wait is [`Deliverer::wait`]'s.
    pub(super) fn group_results(&self, query: &StreamQuery, output: &Output, revision: i64, owner: &Owner) -> Result<(), TaskError> {
        let revision = revision.to_string();
        // First what leaves the whole result: a reader never sees more rows than there are.
        self.gone(query, &output.gone, &revision, owner)?;
        let rows = json_rows(&output.rows)?;
        let (count, frame) = (output.rows.num_rows(), self.frame());
        if count == 0 {
            return Ok(());
        }
        let (sender, waits) = self.sender(count, owner)?;
        let (mut value, mut key) = (Vec::new(), Vec::new());
        for row in 0..count {
            value.clear();
            rows.write_row(row, &mut value);
            key.clear();
            key_text(&output.keys, row, &mut key);
            let mut headers = self.headers(&revision, output.finals[row]);
            headers = with_window(headers, output.windows.get(row));
            if output.ranked {
                headers = headers.insert(text(header::RANK, &row.to_string()));
            }
            self.make_room(count, key.len() + value.len() + frame, owner)?;
            self.send_by(sender, BaseRecord::with_opaque_to(&self.output, waits).key(&key).payload(&value).headers(headers), owner)?;
        }
        Ok(())
    }

    /// What a record of a result takes beside its key and its value, about: names and values of its headers, and their lengths.
    fn frame(&self) -> usize {
        let names = [header::QUERY, header::REVISION, header::FINAL, header::KEY_COLUMNS, header::WINDOW_START, header::WINDOW_END];
        names.iter().map(|name| name.len() + 15).sum::<usize>() + self.query.len() + self.key_columns.len()
    }

    /// Sends a record without a value for each row that has left the whole result.
    fn gone(&self, query: &StreamQuery, gone: &Gone, revision: &str, owner: &Owner) -> Result<(), TaskError> {
        if gone.count == 0 {
            return Ok(());
        }
        let (sender, waits) = self.sender(1, owner)?;
        for row in 0..gone.count {
            let mut key = Vec::new();
            key_text(&gone.keys, row, &mut key);
            let object = key_object(&query.key_names, &gone.keys, row);
            let headers = with_window(self.headers(revision, false), gone.windows.get(row)).insert(text(header::KEY, &object));
            let record = BaseRecord::<'_, [u8], [u8], Waits>::with_opaque_to(&self.output, waits).key(&key).headers(headers);
            self.send_by(sender, record, owner)?;
        }
        Ok(())
    }

    /// Sends the results of a query without a grouping. Each stands for one record, whose key it keeps and whose offset is its revision.
    pub(super) fn row_results(&self, records: &Records, plain: &PlainRows, base: i64, owner: &Owner) -> Result<(), TaskError> {
        let rows = json_rows(&plain.rows)?;
        let (mut value, mut nth) = (Vec::new(), 0);
        for (row, (index, time)) in plain.sources.iter().enumerate() {
            value.clear();
            rows.write_row(row, &mut value);
            let record = records.get(*index as usize);
            let mut place = format!("{}-{}@{}", records.topic(), records.partition(), record.offset);
            // The second and later rows that explode() has made of one.
            nth = if row > 0 && plain.sources[row - 1].0 == *index { nth + 1 } else { 0 };
            if nth > 0 {
                place += &format!(".{nth}");
            }
            let headers = self
                .headers(&(base + record.offset + 1).to_string(), true)
                .insert(text(header::TIME, &time.to_string()))
                .insert(text(header::ROW, &place));
            let out = BaseRecord::<'_, [u8], [u8], Waits>::with_opaque_to(&self.output, AHEAD).payload(&value).headers(headers);
            self.send(if let Some(key) = record.key { out.key(key) } else { out }, owner)?;
        }
        Ok(())
    }

    /// What every result row has.
    pub(crate) fn headers(&self, revision: &str, is_final: bool) -> OwnedHeaders {
        OwnedHeaders::new_with_capacity(7)
            .insert(text(header::QUERY, &self.query))
            .insert(text(header::REVISION, revision))
            .insert(text(header::FINAL, if is_final { "true" } else { "false" }))
            .insert(text(header::KEY_COLUMNS, &self.key_columns))
    }
}

pub(crate) fn with_window(headers: OwnedHeaders, window: Option<&(i64, i64)>) -> OwnedHeaders {
    let Some((start, end)) = window else { return headers };
    headers.insert(text(header::WINDOW_START, &start.to_string())).insert(text(header::WINDOW_END, &end.to_string()))
}

/// The key columns of one row as a JSON object.
fn key_object(names: &[String], keys: &[ArrayRef], row: usize) -> String {
    let mut object = Vec::from(*b"{");
    for (place, (name, column)) in names.iter().zip(keys).enumerate() {
        if place > 0 {
            object.push(b',');
        }
        object.extend(serde_json::to_vec(name).unwrap_or_default());
        object.push(b':');
        write_value(column.as_ref(), row, &mut object);
    }
    object.push(b'}');
    String::from_utf8_lossy(&object).into_owned()
}

fn json_rows(rows: &RecordBatch) -> Result<JsonRows<'_>, TaskError> {
    JsonRows::new(rows).map_err(TaskError::Fatal)
}
