//! Texts to arrays, and arrays to rows: `split` and `explode`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{Result, exec_datafusion_err, exec_err, plan_err};
use datafusion_expr::{Expr, ScalarUDF};
use regex::Regex;

use super::common::{as_text, expect_arguments};
use super::plain::{Plain, as_long};

const EXPLODE: &str = "explode";

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Plain { name: "split", coerce: split_types, returns: |_| DataType::new_list(DataType::Utf8, true), run: split }.function(),
        // A stub for the planner: a projection with it at its top makes the rows.
        Plain { name: EXPLODE, coerce: explode_types, returns: element, run: |_| exec_err!("explode() is evaluated by its projection") }
            .function(),
    ]
}

/// What is made into rows by an expression of a SELECT list: the argument of its `explode()`.
pub(crate) fn exploded(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Alias(alias) => exploded(&alias.expr),
        Expr::ScalarFunction(call) if call.name() == EXPLODE => call.args.first(),
        _ => None,
    }
}

/// Whether an expression makes rows, at its top or below it.
pub(crate) fn is_explode(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.name() == EXPLODE)
}

fn explode_types(name: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(name, types.len(), 1..=1)?;
    match &types[0] {
        DataType::List(_) => Ok(types.to_vec()),
        other => plan_err!("{name} takes an array, such as split(value, ' '), not {other}"),
    }
}

fn element(types: &[DataType]) -> DataType {
    match types {
        [DataType::List(field)] => field.data_type().clone(),
        _ => DataType::Null,
    }
}

fn split_types(name: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(name, types.len(), 2..=3)?;
    let mut wanted = vec![as_text(name, &types[0])?, as_text(name, &types[1])?];
    if let Some(limit) = types.get(2) {
        wanted.push(as_long(name, limit)?);
    }
    Ok(wanted)
}

fn split(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (columns[0].as_string::<i32>(), columns[1].as_string::<i32>());
    let limits = columns.get(2).map(|limits| limits.as_primitive::<Int64Type>());
    // One pattern for all rows, almost always.
    let mut known: Option<(&str, Regex)> = None;
    let mut out = ListBuilder::new(StringBuilder::new());
    for (row, (text, pattern)) in texts.iter().zip(patterns).enumerate() {
        let limit = limits.map_or(Some(-1), |limits| limits.iter().nth(row).flatten());
        let (Some(text), Some(pattern), Some(limit)) = (text, pattern, limit) else {
            out.append_null();
            continue;
        };
        let regex = match &known {
            Some((same, regex)) if *same == pattern => regex,
            _ => &known.insert((pattern, compiled(pattern)?)).1,
        };
        parts(text, regex, limit).into_iter().for_each(|part| out.values().append_value(part));
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn compiled(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| exec_datafusion_err!("split: '{pattern}' is no regular expression: {error}"))
}

/// Java's `split`, which Spark's is: a match of nothing at the beginning cuts nothing off, and empty texts at the end stay.
fn parts<'a>(text: &'a str, regex: &Regex, limit: i64) -> Vec<&'a str> {
    let most = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let (mut parts, mut from) = (Vec::new(), 0);
    for found in regex.find_iter(text) {
        if parts.len() + 1 >= most {
            break;
        }
        if found.end() == 0 || (found.is_empty() && found.start() == text.len() && regex.as_str().is_empty()) {
            continue;
        }
        parts.push(&text[from..found.start()]);
        from = found.end();
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn split_cuts_as_spark_does() {
        let split = |text: &'static str, pattern: &str, limit| parts(text, &Regex::new(pattern).unwrap(), limit);
        assert_eq!(split("oneAtwoBthreeC", "[ABC]", -1), ["one", "two", "three", ""]);
        assert_eq!(split("oneAtwoBthreeC", "[ABC]", 2), ["one", "twoBthreeC"]);
        assert_eq!(split("oneAtwoBthreeC", "[ABC]", 0), ["one", "two", "three", ""]);
        assert_eq!(split(" a  b", " ", -1), ["", "a", "", "b"]);
        assert_eq!(split("hello", "", -1), ["h", "e", "l", "l", "o"]);
        assert_eq!(split("", ",", -1), [""]);
        assert_eq!(split("a,b", ",", 1), ["a,b"]);
    }
}
