//! Messages as rows: the columns of the payload, then those that the message has itself: its key (the topic of MQTT, the partition key of
//! Kinesis) and the time of receipt.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{Schema, SchemaRef};

use super::super::records::Records;
use crate::format::decode::{Decoded, Decoder};
use crate::format::text;
use crate::query::StreamQuery;
use crate::query::file::{OwnColumn, Payload};

pub(super) struct Columns {
    schema: SchemaRef,
    form: Form,
    own: Vec<OwnColumn>,
}

enum Form {
    /// Its buffers are kept from step to step.
    Json(Box<RefCell<Decoder>>),
    Text(SchemaRef),
}

impl Columns {
    /// `own` are the last columns of the schema.
    pub(super) fn new(query: &StreamQuery, payload: Payload, own: &[OwnColumn]) -> Self {
        let fields = query.schema.fields();
        let of_payload = Arc::new(Schema::new(fields.iter().take(fields.len() - own.len()).cloned().collect::<Vec<_>>()));
        let form = match payload {
            Payload::Json => Form::Json(Box::new(RefCell::new(Decoder::new(of_payload)))),
            Payload::Text => Form::Text(of_payload),
        };
        Self { schema: Arc::clone(&query.schema), form, own: own.to_vec() }
    }

    /// # Errors
    /// When the payloads of one step are more than 2 GiB, or their schema cannot be read.
    pub(super) fn decode(&self, records: &Records) -> Result<Decoded, String> {
        let payloads = (0..records.len()).map(|index| records.get(index).payload.unwrap_or_default());
        let Decoded { batch, rows, dead } = match &self.form {
            // An empty payload is none; the protocols know no other way to send nothing.
            Form::Json(decoder) => {
                let decoded = decoder.borrow_mut().decode(payloads.map(|payload| (!payload.is_empty()).then_some(payload)));
                decoded.map_err(|error| error.to_string())?
            }
            Form::Text(schema) => text::decode(schema, payloads.map(|payload| (payload, 0)))?,
        };
        let own = self.own.iter().map(|column| own_column(*column, records, &rows));
        let columns = batch.columns().iter().cloned().chain(own).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        let batch = batch.map_err(|error| format!("messages do not fit their schema: {error}"))?;
        Ok(Decoded { batch, rows, dead })
    }
}

fn own_column(column: OwnColumn, records: &Records, rows: &[u32]) -> ArrayRef {
    let kept = rows.iter().map(|row| records.get(*row as usize));
    match column {
        OwnColumn::Topic | OwnColumn::PartitionKey => {
            Arc::new(StringArray::from_iter_values(kept.map(|record| String::from_utf8_lossy(record.key.unwrap_or_default()))))
        }
        OwnColumn::Timestamp => {
            Arc::new(TimestampMillisecondArray::from_iter_values(kept.map(|record| record.timestamp)).with_timezone("+00:00"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::encode::JsonRows;
    use crate::query::QueryFile;

    fn columns(source: &str, keys: &str) -> Columns {
        let text = format!(
            "name='q'\n[source]\nformat='mqtt'\nwatermark='1s'\n{source}\n[source.mqtt]\nurl='mqtt://b'\ntopics=['#']\n{keys}\n[query]\n\
             sql='SELECT * FROM mqtt'\noutput_mode='append'\n[sink]\nformat='console'\n"
        );
        let query = StreamQuery::compile(QueryFile::parse(&text, Path::new("q.toml")).unwrap()).unwrap();
        let mqtt = query.file.source.mqtt.as_ref().unwrap();
        Columns::new(&query, mqtt.payload, &mqtt.own)
    }

    fn shown(columns: &Columns, payloads: &[&[u8]]) -> (Vec<String>, Vec<(u32, &'static str)>) {
        let mut records = Records::new(&"mqtt".into(), 0);
        for (offset, payload) in (0..).zip(payloads) {
            records.push(offset, 1000 * (offset + 1), Some(format!("t/{offset}").as_bytes()), Some(payload));
        }
        let decoded = columns.decode(&records).unwrap();
        let encoded = JsonRows::new(&decoded.batch).unwrap();
        let line = |row: usize| {
            let mut line = Vec::new();
            encoded.write_row(row, &mut line);
            String::from_utf8(line).unwrap()
        };
        let lines = (0..decoded.batch.num_rows()).map(line).collect();
        (lines, decoded.dead.iter().map(|row| (row.index, row.reason)).collect())
    }

    #[test]
    fn topic_and_time_stand_beside_the_payload() {
        let json = columns("schema='value DOUBLE'", "");
        let payloads: &[&[u8]] = &[b"{\"value\":1}", b"", b"{", b"{\"value\":2,\"topic\":{}}", b"\xff"];
        let (rows, dead) = shown(&json, payloads);
        assert_eq!(
            rows,
            [
                r#"{"value":1.0,"topic":"t/0","timestamp":"1970-01-01T00:00:01.000Z"}"#,
                r#"{"value":2.0,"topic":"t/3","timestamp":"1970-01-01T00:00:04.000Z"}"#,
            ]
        );
        assert_eq!(dead, [(1, "empty"), (2, "not_json"), (4, "not_json")]);
    }

    #[test]
    fn what_the_payload_has_is_its_own() {
        let json = columns("schema='Topic STRING, timestamp TIMESTAMP'", "");
        let (rows, _) = shown(&json, &[b"{\"Topic\":\"mine\",\"timestamp\":5000}"]);
        assert_eq!(rows, [r#"{"Topic":"mine","timestamp":"1970-01-01T00:00:05.000Z"}"#]);
    }

    #[test]
    fn a_text_is_a_value() {
        let (rows, dead) = shown(&columns("", "payload='text'"), &[b"21.5", b"", b"\xff"]);
        assert_eq!(
            rows,
            [
                r#"{"value":"21.5","topic":"t/0","timestamp":"1970-01-01T00:00:01.000Z"}"#,
                r#"{"value":"","topic":"t/1","timestamp":"1970-01-01T00:00:02.000Z"}"#,
            ]
        );
        assert_eq!(dead, [(2, "not_utf8")]);
    }
}
