//! Whether records are where their key says.
//!
//! A query that groups by the partition key trusts that all rows of one key are in one partition. A record whose Kafka key is not the
//! value of that column may be anywhere, and two partitions would each give a part of its group as the whole.

use arrow::array::AsArray as _;
use arrow::array::{Array, BooleanArray, UInt32Array};
use arrow::compute::filter_record_batch;

use super::error::TaskError;
use super::records::Records;
use crate::engine::Input;
use crate::format::decode::DeadRow;
use crate::format::encode::write_value;
use crate::query::StreamQuery;

const WRONG_KEY: &str = "wrong_key";

/// Moves the rows whose record key is not the value of the query's partition key to the dead ones.
pub(crate) fn refuse_wrong_keys(query: &StreamQuery, records: &Records, input: &mut Input) -> Result<(), TaskError> {
    let Some(place) = query.partition_key else { return Ok(()) };
    let decoded = &mut input.decoded;
    let column = decoded.batch.column(place);
    let keys = decoded.rows.iter().map(|index| records.get(*index as usize).key);
    let right: Vec<bool> = match column.as_string_opt::<i32>() {
        Some(texts) => keys.zip(texts.iter()).map(|(key, text)| key.is_some() && key == text.map(str::as_bytes)).collect(),
        None => keys.enumerate().map(|(row, key)| key.is_some_and(|key| is_value(column.as_ref(), row, key))).collect(),
    };
    if right.iter().all(|right| *right) {
        return Ok(());
    }
    let name = query.schema.field(place).name();
    for (index, _) in decoded.rows.iter().zip(&right).filter(|(_, right)| !**right) {
        let key = records.get(*index as usize).key.map_or("null".into(), |key| format!("'{}'", String::from_utf8_lossy(key)));
        let detail = format!(
            "the record's key is {key} and not its {name}, so its group may be spread over partitions; write records with that key, or \
             set source.partition_key to \"\" and let one processor read all partitions"
        );
        decoded.dead.push(DeadRow { index: *index, reason: WRONG_KEY, detail });
    }
    let right = BooleanArray::from(right);
    let fault = |error: arrow::error::ArrowError| TaskError::Fatal(format!("a batch cannot be filtered: {error}"));
    decoded.batch = filter_record_batch(&decoded.batch, &right).map_err(fault)?;
    let rows = UInt32Array::from(std::mem::take(&mut decoded.rows));
    decoded.rows = arrow::compute::filter(&rows, &right).map_err(fault)?.as_primitive::<arrow::datatypes::UInt32Type>().values().to_vec();
    Ok(())
}

fn is_value(column: &dyn Array, row: usize, key: &[u8]) -> bool {
    let mut text = Vec::new();
    write_value(column, row, &mut text);
    text == key
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::query::QueryFile;

    fn reasons(partition_key: &str, records: &[(Option<&str>, &str)]) -> Vec<(u32, &'static str)> {
        let text = format!(
            "name = 'q'\n[source]\ntopic = 'iot'\nschema = 'id STRING, seq BIGINT, ts TIMESTAMP'\nevent_time = 'ts'\nwatermark = '5s'\n\
             partition_key = '{partition_key}'\n[query]\nsql = \"SELECT count(*) AS n FROM iot GROUP BY window(ts, '1s'), id, seq\"\n"
        );
        let query = StreamQuery::compile(QueryFile::parse(&text, Path::new("q.toml")).unwrap()).unwrap();
        let records = Records::of(records.iter().map(|(key, value)| (key.map(str::as_bytes), Some(value.as_bytes()))));
        let mut input = records.decode(&mut query.decoder()).unwrap();
        refuse_wrong_keys(&query, &records, &mut input).unwrap();
        assert_eq!(input.decoded.batch.num_rows(), input.decoded.rows.len());
        input.decoded.dead.iter().map(|row| (row.index, row.reason)).collect()
    }

    #[test]
    fn a_row_under_another_key_is_set_aside_with_its_neighbours_left() {
        let a = r#"{"id":"a","seq":7,"ts":1}"#;
        let none = r#"{"seq":7,"ts":1}"#;
        let records = [(Some("a"), a), (Some("b"), a), (None, a), (Some("a"), "x"), (None, none), (Some("7"), a)];
        assert_eq!(reasons("id", &records), [(3, "not_json"), (1, WRONG_KEY), (2, WRONG_KEY), (4, WRONG_KEY), (5, WRONG_KEY)]);
        assert_eq!(reasons("seq", &records), [(3, "not_json"), (0, WRONG_KEY), (1, WRONG_KEY), (2, WRONG_KEY), (4, WRONG_KEY)]);
        assert_eq!(reasons("", &records), [(3, "not_json")]);
    }
}
