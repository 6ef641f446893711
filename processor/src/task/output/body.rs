//! The rows of a batch as one body.

use arrow::array::RecordBatch;
use serde_json::json;

use crate::format::encode::JsonRows;
use crate::query::file::Body;

impl Body {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            // Flume takes ISO-8859-1 unless it is told.
            Self::Flume => "application/json; charset=utf-8",
        }
    }

    /// # Errors
    /// When a column is of a type that has no JSON.
    pub(super) fn encode(self, query: &str, batch: i64, rows: &RecordBatch) -> Result<Vec<u8>, String> {
        let encoded = JsonRows::new(rows)?;
        match self {
            Self::Lines => Ok(lines(&encoded, rows.num_rows())),
            Self::Flume => events(&encoded, rows.num_rows(), query, batch),
        }
    }
}

/// An object a line.
fn lines(encoded: &JsonRows<'_>, rows: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for row in 0..rows {
        encoded.write_row(row, &mut body);
        body.push(b'\n');
    }
    body
}

/// An array of Flume's events: what each belongs to in its headers, the object as the text of its body.
fn events(encoded: &JsonRows<'_>, rows: usize, query: &str, batch: i64) -> Result<Vec<u8>, String> {
    let headers = json!({ "tidemark-query": query, "tidemark-batch-id": batch.to_string() }).to_string();
    let (mut body, mut object) = (vec![b'['], Vec::new());
    for row in 0..rows {
        if row > 0 {
            body.push(b',');
        }
        object.clear();
        encoded.write_row(row, &mut object);
        body.extend_from_slice(format!(r#"{{"headers":{headers},"body":"#).as_bytes());
        serde_json::to_writer(&mut body, &String::from_utf8_lossy(&object)).map_err(|error| error.to_string())?;
        body.push(b'}');
    }
    body.push(b']');
    Ok(body)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_row_is_a_line_or_the_body_of_an_event() {
        let columns: Vec<(&str, ArrayRef)> =
            vec![("s", Arc::new(StringArray::from(vec!["a\"é", "b"]))), ("n", Arc::new(Int64Array::from(vec![1, 2])))];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let objects = ["{\"s\":\"a\\\"é\",\"n\":1}", "{\"s\":\"b\",\"n\":2}"];
        assert_eq!(String::from_utf8(Body::Lines.encode("q", 7, &rows).unwrap()).unwrap(), format!("{}\n{}\n", objects[0], objects[1]));
        let events: Value = serde_json::from_slice(&Body::Flume.encode("q", 7, &rows).unwrap()).unwrap();
        let event = |object: &str| json!({"headers": {"tidemark-query": "q", "tidemark-batch-id": "7"}, "body": object});
        assert_eq!(events, json!([event(objects[0]), event(objects[1])]));
        assert_eq!(Body::Flume.encode("q", 7, &rows.slice(0, 0)).unwrap(), b"[]");
    }
}
