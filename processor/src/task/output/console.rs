//! A table a batch on standard output, as Spark prints it.

use std::io::Write as _;

use arrow::array::RecordBatch;

use super::super::error::TaskError;
use super::super::owner::Owner;
use super::rows::shown;
use super::{Batch, Sink};
use crate::query::file;

/// So many characters of a value are shown, the last three of them dots.
const WIDTH: usize = 20;
/// A column is at least so wide.
const NARROWEST: usize = 3;

#[derive(Debug)]
pub(super) struct Console {
    num_rows: usize,
    truncate: bool,
}

impl Console {
    pub(super) fn new(sink: &file::Sink) -> Self {
        Self { num_rows: sink.num_rows.unwrap_or(20), truncate: sink.truncate.unwrap_or(true) }
    }

    fn text(&self, batch: &Batch) -> String {
        let rule = "-------------------------------------------";
        format!("{rule}\nBatch: {}\n{rule}\n{}\n", batch.id, table(&batch.rows, self.num_rows, self.truncate))
    }
}

impl Sink for Console {
    fn write(&mut self, batch: &Batch, _owner: &Owner) -> Result<(), TaskError> {
        let mut out = std::io::stdout().lock();
        out.write_all(self.text(batch).as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| TaskError::Fatal(format!("standard output cannot be written to: {error}")))
    }
}

/// The first rows as a table. Cut values stand to the right, whole ones to the left.
fn table(rows: &RecordBatch, most: usize, truncate: bool) -> String {
    let shown_rows = rows.num_rows().min(most);
    let cut = |text: String| match truncate && text.chars().count() > WIDTH {
        true => text.chars().take(WIDTH - 3).chain("...".chars()).collect(),
        false => text,
    };
    let columns: Vec<Vec<String>> = (rows.schema().fields().iter().zip(rows.columns()))
        .map(|(field, column)| {
            let cells = (0..shown_rows).map(|row| cut(escaped(&shown(column, row))));
            std::iter::once(cut(field.name().clone())).chain(cells).collect()
        })
        .collect();
    let widths: Vec<usize> =
        columns.iter().map(|cells| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0).max(NARROWEST)).collect();
    let rule = widths.iter().fold("+".to_owned(), |rule, width| rule + &"-".repeat(*width) + "+");
    let mut out = format!("{rule}\n");
    for line in 0..=shown_rows {
        out.push('|');
        for (cells, width) in columns.iter().zip(&widths) {
            let cell = &cells[line];
            let padding = " ".repeat(width - cell.chars().count());
            out += &if truncate { format!("{padding}{cell}|") } else { format!("{cell}{padding}|") };
        }
        out.push('\n');
        if line == 0 {
            out += &format!("{rule}\n");
        }
    }
    out += &format!("{rule}\n");
    if rows.num_rows() > shown_rows {
        out += &format!("only showing top {shown_rows} rows\n");
    }
    out
}

/// A value on one line.
fn escaped(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn rows() -> RecordBatch {
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("a word of more than twenty")]));
        let times = TimestampMillisecondArray::from(vec![1_700_000_000_000, 1_700_000_000_120, 0]).with_timezone("+00:00");
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![1, 20, 300]));
        RecordBatch::try_from_iter([("word", words), ("t", Arc::new(times) as ArrayRef), ("n", counts)]).unwrap()
    }

    #[test]
    fn a_batch_is_printed_as_spark_does() {
        let console = Console { num_rows: 2, truncate: true };
        let expected = "\
-------------------------------------------
Batch: 7
-------------------------------------------
+----+--------------------+---+
|word|                   t|  n|
+----+--------------------+---+
|   a| 2023-11-14 22:13:20|  1|
|NULL|2023-11-14 22:13:...| 20|
+----+--------------------+---+
only showing top 2 rows

";
        assert_eq!(console.text(&Batch { id: 7, rows: rows(), is_whole: false }), expected);
    }

    #[test]
    fn whole_values_stand_to_the_left() {
        let expected = "\
+--------------------------+----------------------+---+
|word                      |t                     |n  |
+--------------------------+----------------------+---+
|a                         |2023-11-14 22:13:20   |1  |
|NULL                      |2023-11-14 22:13:20.12|20 |
|a word of more than twenty|1970-01-01 00:00:00   |300|
+--------------------------+----------------------+---+
";
        assert_eq!(table(&rows(), 20, false), expected);
        assert_eq!(table(&rows().slice(0, 0), 20, true), "+----+---+---+\n|word|  t|  n|\n+----+---+---+\n+----+---+---+\n");
    }
}
