//! Text functions in which Spark and DataFusion differ: `concat` with a null is null, `substring` counts from the end for a negative
//! position, `regexp_replace` replaces every match, `position` takes what it looks for first.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, StringArray, StringBuilder},
    datatypes::{DataType, Field, Int64Type},
};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    planner::{ExprPlanner, PlannerResult},
};
use datafusion_functions::regex::regexp_replace;

use super::common::{as_text, expect_arguments, over_columns};

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::from(Concat { signature: signature() })),
        substring_function(),
        locate_function(),
        Arc::new(ScalarUDF::from(RegexpReplace { signature: signature(), inner: regexp_replace() })),
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

/// `locate(x, text)`: the character at which `x` begins in the text, from 1, or 0.
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
        expect_arguments(self.name(), types.len(), 2..=2)?;
        types.iter().map(|given| as_text(self.name(), given)).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&args.args, |columns| {
            let (wanted, texts) = (columns[0].as_string::<i32>().iter(), columns[1].as_string::<i32>().iter());
            let positions: Int32Array = wanted.zip(texts).map(|(wanted, text)| locate(wanted?, text?)).collect();
            Ok(Arc::new(positions))
        })
    }
}

fn locate(wanted: &str, text: &str) -> Option<i32> {
    let Some(offset) = text.find(wanted) else { return Some(0) };
    i32::try_from(text[..offset].chars().count() + 1).ok()
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

#[cfg(test)]
mod tests {
    use super::{locate, substring};

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
        assert_eq!(locate("b", "äb"), Some(2));
        assert_eq!(locate("", "abc"), Some(1));
        assert_eq!(locate("x", "abc"), Some(0));
    }
}
