//! The aggregate over an aggregate: each row of a closed window is folded once, in the order in which windows close.
//!
//! Its state follows from the entries and the first aggregate's state, so the journal does not hold it: whoever applies the entries has it.
//! A snapshot does.

use arrow::array::{RecordBatch, UInt32Array};
use datafusion_common::Result;

use super::cells::{self, Book};
use super::fold_rows::fold_rows;
use super::halves::in_halves;
use super::judge::Used;
use super::line::Line;
use super::output::evaluate;
use crate::query::{Grouping, Second, event_times};

/// Folds the rows of the windows that `books` close. Gives why rows could not be used.
pub(crate) fn fold_closed(first: &Grouping, second: &Second, books: &[Book<'_>], line: &mut Line) -> Result<Vec<String>> {
    let cells = cells::closing(first, books);
    if cells.is_empty() {
        return Ok(Vec::new());
    }
    let evaluated = evaluate(first, books, &cells, &second.before)?;
    let mut failed = evaluated.failed;
    let (parts, broken) = in_halves(evaluated.rows.num_rows(), |start, length| used(second, &evaluated.rows.slice(start, length)));
    failed.extend(broken.into_iter().map(|(_, fault)| fault));
    for part in parts {
        let folded = fold_rows(&second.grouping, &part, |_, pane, key| line.panes.get_pair(pane, key))?;
        for group in folded {
            line.panes.put(group.pane, group.key, group.state);
        }
    }
    Ok(failed)
}

fn used(second: &Second, batch: &RecordBatch) -> Result<Used> {
    let times = event_times(&second.time.evaluate(batch)?.into_array(batch.num_rows())?)?;
    let window = second.grouping.panes();
    // The windows that closed just now end in windows that have not: none of these rows is late.
    let panes = times.values().iter().filter_map(|time| window.and_then(|window| window.pane(*time, i64::MIN))).collect();
    let arguments = second.grouping.aggregates.arguments(batch)?;
    Ok(Used {
        rows: UInt32Array::from_iter_values(0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX)),
        panes,
        keys: second.grouping.key_columns(batch)?,
        arguments,
        results: batch.slice(0, 0),
    })
}
