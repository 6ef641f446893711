//! Lines as rows: a column with the line and one with its time.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMillisecondBuilder};
use arrow::datatypes::{DataType, SchemaRef};

use super::decode::{DeadRow, Decoded};

/// The line is no text.
pub const NOT_UTF8: &str = "not_utf8";

/// Decodes lines, each with its time in milliseconds, into a schema of a text and a time.
///
/// # Errors
/// When the schema has other columns, or the lines are more than 2 GiB.
pub fn decode<'a>(schema: &SchemaRef, lines: impl Iterator<Item = (&'a [u8], i64)>) -> Result<Decoded, String> {
    let (mut texts, mut times) = (StringBuilder::new(), TimestampMillisecondBuilder::new());
    let (mut rows, mut dead, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
    for (index, (line, time)) in (0_u32..).zip(lines) {
        bytes += line.len();
        if i32::try_from(bytes).is_err() {
            return Err("the lines of one step are more than 2 GiB".into());
        }
        match std::str::from_utf8(line) {
            Ok(text) => {
                texts.append_value(text);
                times.append_value(time);
                rows.push(index);
            }
            Err(error) => {
                let detail = format!("invalid UTF-8 at byte {}", error.valid_up_to());
                dead.push(DeadRow { index, reason: NOT_UTF8, detail });
            }
        }
    }
    let texts: ArrayRef = Arc::new(texts.finish());
    let times: ArrayRef = Arc::new(times.finish().with_timezone("+00:00"));
    let column = |data_type: &DataType| if *data_type == DataType::Utf8 { Arc::clone(&texts) } else { Arc::clone(&times) };
    let columns = schema.fields().iter().map(|field| column(field.data_type())).collect();
    let batch = RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| format!("lines do not fit their schema: {error}"))?;
    Ok(Decoded { batch, rows, dead })
}
