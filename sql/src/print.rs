//! Answers for people and for other programs.

use serde_json::Value;

use super::ask::{Answer, TableInfo};

/// A table with a line that counts.
pub(crate) fn text(answer: &Answer) -> String {
    let rows: Vec<Vec<String>> = answer.rows.iter().map(|row| row.iter().map(|value| cell(value, "NULL")).collect()).collect();
    let right: Vec<bool> = answer.types.iter().map(|kind| matches!(kind.as_str(), "BIGINT" | "DOUBLE" | "DECIMAL")).collect();
    let (count, time) = (answer.rows.len(), answer.elapsed_ms);
    let end = match (answer.truncated, count) {
        (true, _) => format!("(the first {count} rows of more, {time} ms)"),
        (false, 1) => format!("(1 row, {time} ms)"),
        (false, _) => format!("({count} rows, {time} ms)"),
    };
    table(&answer.columns, &right, &rows) + &end + "\n"
}

/// RFC 4180; a NULL is an empty field, and an empty text is `""`.
pub(crate) fn csv(answer: &Answer) -> String {
    let line = |fields: Vec<String>| fields.join(",") + "\r\n";
    let field = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => csv_text(text),
        other => other.to_string(),
    };
    let head = line(answer.columns.iter().map(|name| csv_text(name)).collect());
    head + &answer.rows.iter().map(|row| line(row.iter().map(field).collect())).collect::<String>()
}

fn csv_text(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains(['"', ',', '\n', '\r']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

pub(crate) fn tables(tables: &[TableInfo]) -> String {
    if tables.is_empty() {
        return "there are no tables yet: a query has one when it has begun\n".into();
    }
    let head = ["table", "of", "rows", "columns"].map(str::to_owned);
    let row = |info: &TableInfo| {
        let columns: Vec<String> = info.columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
        let rows = info.rows.map_or_else(|| "?".into(), |rows| rows.to_string());
        vec![info.name.clone(), info.schema.clone(), rows, columns.join(", ")]
    };
    let rows: Vec<Vec<String>> = tables.iter().map(row).collect();
    table(&head, &[false, false, true, false], &rows)
}

fn cell(value: &Value, null: &str) -> String {
    match value {
        Value::Null => null.into(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    }
}

/// Names come from devices: what would move the cursor is written out.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Columns as wide as their widest cell; those in `right` stand at the right.
fn table(head: &[String], right: &[bool], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|name| visible(name)).collect();
    let mut widths: Vec<usize> = head.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let cell = |(column, cell): (usize, &String)| {
            let width = widths[column];
            if right.get(column).copied().unwrap_or(false) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        };
        cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("  ") + "\n";
    line(&head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(truncated: bool) -> Answer {
        let rows = vec![
            vec![json!("s-1"), json!(21.5), json!(true), json!(null)],
            vec![json!("a \"b\",\u{1b}[2J"), json!(-3.0), json!(null), json!("")],
        ];
        let columns = ["id", "avg", "ok", "note"].map(str::to_owned).to_vec();
        let types = ["STRING", "DOUBLE", "BOOLEAN", "STRING"].map(str::to_owned).to_vec();
        Answer { columns, types, rows, truncated, elapsed_ms: 3 }
    }

    #[test]
    fn a_table_is_aligned_and_counts() {
        let shown = text(&answer(false));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "id                avg  ok    note");
        assert_eq!(lines[1], "---------------  ----  ----  ----");
        assert_eq!(lines[2], "s-1              21.5  true  NULL");
        assert_eq!(lines[3], "a \"b\",\\u{1b}[2J  -3.0  NULL");
        assert_eq!(lines[4], "(2 rows, 3 ms)");
        assert!(text(&answer(true)).ends_with("(the first 2 rows of more, 3 ms)\n"));
    }

    #[test]
    fn csv_tells_null_from_nothing_written() {
        assert_eq!(csv(&answer(false)), "id,avg,ok,note\r\ns-1,21.5,true,\r\n\"a \"\"b\"\",\u{1b}[2J\",-3.0,,\"\"\r\n");
    }
}
