//! Result values as text, as Spark shows them in a table and writes them into CSV.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;

use crate::format::encode::write_value;

/// The text of a value; `None` for null.
pub(super) fn text(column: &dyn Array, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        _ => {
            let mut json = Vec::new();
            write_value(column, row, &mut json);
            let json = String::from_utf8_lossy(&json).into_owned();
            // Times, dates and numbers that JSON has no form for are written in quotes.
            match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
                Some(_) => serde_json::from_str(&json).unwrap_or(json),
                None => json,
            }
        }
    })
}

/// The same as a table shows it: times without the letters between their parts, structures in braces, arrays in brackets.
pub(super) fn shown(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    match column.data_type() {
        DataType::Timestamp(..) => text(column, row).map(|time| plain_time(&time)).unwrap_or_default(),
        DataType::Struct(_) => {
            let fields = column.as_struct();
            format!("{{{}}}", fields.columns().iter().map(|field| shown(field, row)).collect::<Vec<_>>().join(", "))
        }
        DataType::List(_) => {
            let values = column.as_list::<i32>().value(row);
            format!("[{}]", (0..values.len()).map(|place| shown(&values, place)).collect::<Vec<_>>().join(", "))
        }
        _ => text(column, row).unwrap_or_default(),
    }
}

/// `2026-01-02T03:04:05.600Z` as `2026-01-02 03:04:05.6`.
fn plain_time(time: &str) -> String {
    let plain = time.strip_suffix('Z').unwrap_or(time).replacen('T', " ", 1);
    match plain.split_once('.') {
        Some((whole, fraction)) => match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            rest => format!("{whole}.{rest}"),
        },
        None => plain,
    }
}
