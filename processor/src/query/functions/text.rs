//! Text functions in which Spark and DataFusion differ: `concat` with a null is null, `substring` counts from the end for a negative
//! position, `regexp_replace` replaces every match, `position` takes what it looks for first.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, StringArray, StringBuilder},
    datatypes::{DataType, Field, Int64Type},
};
use datafusion_common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    planner::{ExprPlanner, PlannerResult},
};
use datafusion_functions::regex::regexp_replace;
use regex::Regex;

use super::{
    common::{as_text, expect_arguments, over_columns},
    plain::{Plain, as_long},
};

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::from(Concat { signature: signature() })),
        substring_function(),
        locate_function(),
        Arc::new(ScalarUDF::from(RegexpReplace { signature: signature(), inner: regexp_replace() })),
        Plain { name: "regexp_extract", coerce: extract_types, returns: |_| DataType::Utf8, run: regexp_extract }.function(),
        Plain { name: "initcap", coerce: one_text, returns: |_| DataType::Utf8, run: |columns| Ok(Arc::new(mapped(columns, initcap))) }
            .function(),
    ]
}

fn signature() -> Signature {
    Signature::user_defined(Volatility::Immutable)
}

fn substring_function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Substring { signature: signature(), aliases: vec!["substr".to_owned()] }))
}

fn locate_function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Locate { signature: signature(), aliases: vec!["position".to_owned()] }))
}

/// Plans the calls that SQL has syntax of its own for; must come before DataFusion's planner of the same.
#[derive(Debug)]
pub(crate) struct SparkText;

impl ExprPlanner for SparkText {
    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(substring_function().call(args)))
    }

    /// `POSITION(x IN text)` comes with the text first.
    fn plan_position(&self, mut args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        args.reverse();
        Ok(PlannerResult::Planned(locate_function().call(args)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    signature: Signature,
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        "concat"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 1..=usize::MAX)?;
        types.iter().map(|given| if given.is_integer() { Ok(DataType::Utf8) } else { as_text(self.name(), given) }).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&args.args, |columns| {
            let columns: Vec<&StringArray> = columns.iter().map(|column| column.as_string::<i32>()).collect();
            let rows = columns.first().map_or(0, |column| column.len());
            Ok(Arc::new(concat_rows(&columns, rows)))
        })
    }
}

fn concat_rows(columns: &[&StringArray], rows: usize) -> StringArray {
    let mut out = StringBuilder::new();
    let mut line = String::new();
    for row in 0..rows {
        if columns.iter().any(|column| column.is_null(row)) {
            out.append_null();
            continue;
        }
        line.clear();
        columns.iter().for_each(|column| line.push_str(column.value(row)));
        out.append_value(&line);
    }
    out.finish()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Substring {
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Substring {
    fn name(&self) -> &str {
        "substring"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 2..=3)?;
        if let Some(other) = types[1..].iter().find(|given| !given.is_integer() && !given.is_null()) {
            return plan_err!("substring takes whole numbers for position and length, not {other}");
        }
        let numbers = types[1..].iter().map(|_| DataType::Int64);
        Ok(std::iter::once(as_text(self.name(), &types[0])?).chain(numbers).collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&args.args, |columns| Ok(Arc::new(substrings(columns))))
    }
}

fn substrings(columns: &[ArrayRef]) -> StringArray {
    let texts = columns[0].as_string::<i32>();
    let number = |position: usize, row: usize| {
        let Some(column) = columns.get(position) else { return Some(i64::MAX) };
        column.is_valid(row).then(|| column.as_primitive::<Int64Type>().value(row))
    };
    let cut = |row: usize| {
        let (position, length) = (number(1, row)?, number(2, row)?);
        texts.is_valid(row).then(|| substring(texts.value(row), position, length))
    };
    (0..texts.len()).map(cut).collect()
}

/// Positions count characters from 1; 0 is as 1; negative ones count from the end, and what they reach before the text shortens the length.
fn substring(text: &str, position: i64, length: i64) -> &str {
    let start = match position {
        1.. => position - 1,
        0 => 0,
        _ => i64::try_from(text.chars().count()).unwrap_or(i64::MAX).saturating_add(position),
    };
    let end = start.saturating_add(length);
    if end <= start.max(0) {
        return "";
    }
    let from = offset_of(text, start.max(0));
    let to = offset_of(text, end);
    &text[from..to]
}

fn offset_of(text: &str, characters: i64) -> usize {
    let characters = usize::try_from(characters).unwrap_or(usize::MAX);
    text.char_indices().nth(characters).map_or(text.len(), |(offset, _)| offset)
}

/// `locate(x, text[, from])`: the character at which `x` begins in the text at or behind the position `from`, from 1, or 0.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Locate {
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Locate {
    fn name(&self) -> &str {
        "locate"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 2..=3)?;
        let texts = types[..2].iter().map(|given| as_text(self.name(), given));
        texts.chain(types.get(2).map(|given| as_long(self.name(), given))).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&args.args, |columns| {
            let (wanted, texts) = (columns[0].as_string::<i32>().iter(), columns[1].as_string::<i32>().iter());
            let from = |row: usize| match columns.get(2) {
                // Spark's answer to no position is "not found", not null.
                Some(from) if from.is_null(row) => 0,
                Some(from) => from.as_primitive::<Int64Type>().value(row),
                None => 1,
            };
            let positions: Int32Array =
                wanted.zip(texts).enumerate().map(|(row, (wanted, text))| locate(wanted?, text?, from(row))).collect();
            Ok(Arc::new(positions))
        })
    }
}

fn locate(wanted: &str, text: &str, from: i64) -> Option<i32> {
    if from < 1 {
        return Some(0);
    }
    let skipped = offset_of(text, from - 1);
    let Some(offset) = text[skipped..].find(wanted) else { return Some(0) };
    i32::try_from(text[..skipped + offset].chars().count() + 1).ok()
}

/// `regexp_replace(text, pattern, replacement)`: every match, where DataFusion's replaces the first without a flag.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RegexpReplace {
    signature: Signature,
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for RegexpReplace {
    fn name(&self) -> &str {
        "regexp_replace"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 3..=3)?;
        types.iter().map(|given| as_text(self.name(), given)).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.push(ColumnarValue::Scalar(ScalarValue::from("g")));
        args.arg_fields.push(Arc::new(Field::new("flags", DataType::Utf8, false)));
        self.inner.invoke_with_args(args)
    }
}

fn one_text(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 1..=1)?;
    Ok(vec![as_text(function, &types[0])?])
}

fn mapped(columns: &[ArrayRef], map: fn(&str) -> String) -> StringArray {
    columns[0].as_string::<i32>().iter().map(|text| text.map(map)).collect()
}

/// The first letter of each word large, the others small. A word begins behind a blank, where DataFusion's begins behind any sign.
fn initcap(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut first = true;
    for letter in text.chars() {
        if first {
            out.extend(letter.to_uppercase())
        } else {
            out.extend(letter.to_lowercase())
        }
        first = letter == ' ';
    }
    out
}

fn extract_types(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 3..=3)?;
    Ok(vec![as_text(function, &types[0])?, as_text(function, &types[1])?, as_long(function, &types[2])?])
}

/// `regexp_extract(text, pattern, group)`: what the group of the first match holds, or an empty text; group 0 is the match.
fn regexp_extract(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (texts, patterns) = (columns[0].as_string::<i32>(), columns[1].as_string::<i32>());
    let groups = columns[2].as_primitive::<Int64Type>();
    // One pattern for all rows, almost always.
    let mut known: Option<(&str, Regex)> = None;
    let mut out = StringBuilder::new();
    for ((text, pattern), group) in texts.iter().zip(patterns).zip(groups) {
        let (Some(text), Some(pattern), Some(group)) = (text, pattern, group) else {
            out.append_null();
            continue;
        };
        let regex = match &known {
            Some((same, regex)) if *same == pattern => regex,
            _ => &known.insert((pattern, compiled(pattern)?)).1,
        };
        let group = usize::try_from(group)
            .ok()
            .filter(|group| *group < regex.captures_len())
            .ok_or_else(|| exec_datafusion_err!("regexp_extract: '{pattern}' has {} group(s), not {group}", regex.captures_len() - 1))?;
        let found = regex.captures(text).and_then(|found| found.get(group));
        out.append_value(found.map_or("", |found| found.as_str()));
    }
    Ok(Arc::new(out.finish()))
}

fn compiled(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| exec_datafusion_err!("regexp_extract: '{pattern}' is no regular expression: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{initcap, locate, substring};

    #[test]
    fn substring_counts_as_spark_does() {
        assert_eq!(substring("Spark SQL", 5, i64::MAX), "k SQL");
        assert_eq!(substring("Spark SQL", -3, i64::MAX), "SQL");
        assert_eq!(substring("Spark SQL", 5, 1), "k");
        assert_eq!(substring("Spark SQL", 0, 2), "Sp");
        assert_eq!(substring("abc", -5, 3), "a");
        assert_eq!(substring("abc", -5, 2), "");
        assert_eq!(substring("abc", 2, -1), "");
        assert_eq!(substring("abc", 9, 2), "");
        assert_eq!(substring("äöü", 2, 1), "ö");
    }

    #[test]
    fn locate_counts_characters_from_one() {
        assert_eq!(locate("b", "äb", 1), Some(2));
        assert_eq!(locate("", "abc", 1), Some(1));
        assert_eq!(locate("x", "abc", 1), Some(0));
        assert_eq!(locate("a", "abca", 2), Some(4));
        assert_eq!(locate("a", "abca", 0), Some(0));
    }

    #[test]
    fn words_begin_behind_blanks_only() {
        assert_eq!(initcap("aB c%D éÉ"), "Ab C%d Éé");
    }
}
