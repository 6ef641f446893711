//! Spark's arithmetic of the calendar, the casts of times, and what EXTRACT takes off them.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMillisecondArray},
    datatypes::{DataType, Date32Type, Float64Type, Int64Type},
};
use chrono::{Datelike, Days, Months, NaiveDate, Timelike};
use datafusion_common::{DFSchema, Result, config::ConfigOptions, exec_err, plan_err, tree_node::Transformed};
use datafusion_expr::{
    Cast, Expr, ExprSchemable, ScalarUDF,
    expr_rewriter::FunctionRewrite,
    planner::{ExprPlanner, PlannerResult},
};

use super::{
    common::{as_text, as_time, expect_arguments, time_type, times},
    plain::{Plain, as_long},
    time::{calendar, fixed_unit, parse_time, reading_pattern},
};

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        time_text(),
        double_text(),
        fraction_of_minute(),
        seconds_of_time(),
        Plain { name: "date_from_unix_date", coerce: one_long, returns: |_| DataType::Date32, run: date_of_days }.function(),
        Plain { name: "add_months", coerce: date_and_long, returns: |_| DataType::Date32, run: add_months }.function(),
        Plain { name: "timestampadd", coerce: unit_long_time, returns: |_| time_type(), run: timestampadd }.function(),
        Plain { name: "timestampdiff", coerce: unit_two_times, returns: |_| DataType::Int64, run: timestampdiff }.function(),
        Plain { name: "unix_timestamp", coerce: time_or_text, returns: |_| DataType::Int64, run: unix_timestamp }.function(),
    ]
}

fn time_text() -> Arc<ScalarUDF> {
    let run =
        |columns: &[ArrayRef]| Ok(Arc::new(times(&columns[0]).map(|millis| text_of_time(millis?)).collect::<StringArray>()) as ArrayRef);
    Plain { name: "time_text", coerce: one_time, returns: |_| DataType::Utf8, run }.function()
}

fn double_text() -> Arc<ScalarUDF> {
    let run = |columns: &[ArrayRef]| {
        let texts = columns[0].as_primitive::<Float64Type>().iter().map(|value| value.map(text_of_double));
        Ok(Arc::new(texts.collect::<StringArray>()) as ArrayRef)
    };
    Plain { name: "double_text", coerce: |_, _| Ok(vec![DataType::Float64]), returns: |_| DataType::Utf8, run }.function()
}

/// `EXTRACT(SECOND FROM time)`: with its fraction, as DECIMAL(8, 6).
fn fraction_of_minute() -> Arc<ScalarUDF> {
    let run = |columns: &[ArrayRef]| {
        let micros: Decimal128Array = times(&columns[0]).map(|millis| Some(i128::from(millis?.rem_euclid(60_000)) * 1000)).collect();
        Ok(Arc::new(micros.with_precision_and_scale(8, 6)?) as ArrayRef)
    };
    Plain { name: "seconds_with_fraction", coerce: one_time, returns: |_| DataType::Decimal128(8, 6), run }.function()
}

/// `CAST(time AS DOUBLE)`: seconds since 1970 with their fraction.
fn seconds_of_time() -> Arc<ScalarUDF> {
    let run = |columns: &[ArrayRef]| {
        let seconds = times(&columns[0]).map(|millis| Some(millis? as f64 / 1000.0));
        Ok(Arc::new(seconds.collect::<Float64Array>()) as ArrayRef)
    };
    Plain { name: "time_seconds", coerce: one_time, returns: |_| DataType::Float64, run }.function()
}

fn one_time(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 1..=1)?;
    Ok(vec![as_time(function, &types[0])?])
}

fn one_long(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 1..=1)?;
    Ok(vec![as_long(function, &types[0])?])
}

fn date_and_long(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 2..=2)?;
    as_time(function, &types[0])?;
    Ok(vec![DataType::Date32, as_long(function, &types[1])?])
}

fn unit_long_time(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 3..=3)?;
    Ok(vec![as_text(function, &types[0])?, as_long(function, &types[1])?, as_time(function, &types[2])?])
}

fn unit_two_times(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 3..=3)?;
    Ok(vec![as_text(function, &types[0])?, as_time(function, &types[1])?, as_time(function, &types[2])?])
}

fn time_or_text(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 1..=2)?;
    let first = if types[0].is_string() { DataType::Utf8 } else { as_time(function, &types[0])? };
    let pattern = types.get(1).map(|given| as_text(function, given)).transpose()?;
    Ok(std::iter::once(first).chain(pattern).collect())
}

/// `2024-02-29 12:30:00.125`, without the zeros at the end of the fraction.
fn text_of_time(millis: i64) -> Option<String> {
    let time = calendar(millis)?.naive_utc();
    let text = time.format("%Y-%m-%d %H:%M:%S").to_string();
    let fraction = format!(".{:03}", time.nanosecond() / 1_000_000);
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    Some(text + fraction)
}

/// As Java writes a DOUBLE: an exponent below a thousandth and from ten million on.
fn text_of_double(value: f64) -> String {
    if value == 0.0 || value.is_nan() || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

fn epoch() -> NaiveDate {
    NaiveDate::default()
}

fn days_of(date: NaiveDate) -> Option<i32> {
    i32::try_from(date.signed_duration_since(epoch()).num_days()).ok()
}

fn date_of(days: i32) -> Option<NaiveDate> {
    let count = Days::new(u64::from(days.unsigned_abs()));
    if days < 0 { epoch().checked_sub_days(count) } else { epoch().checked_add_days(count) }
}

fn date_of_days(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let days = columns[0].as_primitive::<Int64Type>().iter();
    Ok(Arc::new(days.map(|days| i32::try_from(days?).ok()).collect::<Date32Array>()))
}

/// The same day of another month, or that month's last.
fn months_later(date: NaiveDate, months: i64) -> Option<NaiveDate> {
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { date.checked_sub_months(count) } else { date.checked_add_months(count) }
}

fn add_months(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (dates, months) = (columns[0].as_primitive::<Date32Type>().iter(), columns[1].as_primitive::<Int64Type>().iter());
    let later = |(days, months): (Option<i32>, Option<i64>)| days_of(months_later(date_of(days?)?, months?)?);
    Ok(Arc::new(dates.zip(months).map(later).collect::<Date32Array>()))
}

/// How many months a calendar unit has.
fn months_in(unit: &str) -> Option<i64> {
    match unit.to_ascii_lowercase().as_str() {
        "month" => Some(1),
        "quarter" => Some(3),
        "year" => Some(12),
        _ => None,
    }
}

fn unknown_unit(function: &str, unit: &str) -> Result<ArrayRef> {
    exec_err!("{function} knows no unit '{unit}': write one of YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND, MILLISECOND")
}

/// The unit of a call, which is a word and so the same in every row.
fn unit_of(column: &ArrayRef) -> String {
    let units = column.as_string::<i32>();
    if units.is_empty() || units.is_null(0) { "day".to_owned() } else { units.value(0).to_owned() }
}

fn timestampadd(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let unit = unit_of(&columns[0]);
    let counts = columns[1].as_primitive::<Int64Type>().iter();
    let pairs = counts.zip(times(&columns[2]));
    let result: TimestampMillisecondArray = if let Some(length) = fixed_unit(&unit) {
        pairs.map(|(count, millis)| millis?.checked_add(count?.checked_mul(length)?)).collect()
    } else if let Some(length) = months_in(&unit) {
        pairs.map(|(count, millis)| moved(millis?, count?.checked_mul(length)?)).collect()
    } else {
        return unknown_unit("timestampadd", &unit);
    };
    Ok(Arc::new(result.with_data_type(time_type())))
}

fn moved(millis: i64, months: i64) -> Option<i64> {
    let time = calendar(millis)?.naive_utc();
    Some(months_later(time.date(), months)?.and_time(time.time()).and_utc().timestamp_millis())
}

/// Whole units from the first time to the second, cut towards zero.
fn timestampdiff(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let unit = unit_of(&columns[0]);
    let pairs = times(&columns[1]).zip(times(&columns[2]));
    let result: Int64Array = if let Some(length) = fixed_unit(&unit) {
        pairs.map(|(from, to)| Some(to?.checked_sub(from?)? / length)).collect()
    } else if let Some(length) = months_in(&unit) {
        pairs.map(|(from, to)| Some(months_between(from?, to?)? / length)).collect()
    } else {
        return unknown_unit("timestampdiff", &unit);
    };
    Ok(Arc::new(result))
}

/// Whole months: the last one counts when its day and time are reached.
fn months_between(from: i64, to: i64) -> Option<i64> {
    let (a, b) = (calendar(from)?.naive_utc(), calendar(to)?.naive_utc());
    // A day that is not whole does not count.
    let end = match b.date().cmp(&a.date()) {
        Ordering::Greater if b.time() < a.time() => b.date().checked_sub_days(Days::new(1))?,
        Ordering::Less if b.time() > a.time() => b.date().checked_add_days(Days::new(1))?,
        _ => b.date(),
    };
    // No month has more than 31 days: in units of 1/32 of a month whole ones come out by a division.
    let place = |date: NaiveDate| (i64::from(date.year()) * 12 + i64::from(date.month0())) * 32 + i64::from(date.day());
    Some((place(end) - place(a.date())) / 32)
}

/// Seconds cut towards zero, where `unix_seconds` rounds down: before 1970 they differ, in Spark too.
fn unix_timestamp(columns: &[ArrayRef]) -> Result<ArrayRef> {
    if columns[0].data_type() != &DataType::Utf8 {
        return Ok(Arc::new(times(&columns[0]).map(|millis| Some(millis? / 1000)).collect::<Int64Array>()));
    }
    let texts = columns[0].as_string::<i32>().iter();
    let Some(patterns) = columns.get(1).map(AsArray::as_string::<i32>) else {
        return Ok(Arc::new(texts.map(|text| Some(parse_time(text?)? / 1000)).collect::<Int64Array>()));
    };
    let pattern = (!patterns.is_empty() && patterns.is_valid(0)).then(|| reading_pattern(patterns.value(0))).transpose()?;
    Ok(Arc::new(texts.map(|text| Some(pattern.as_ref()?.parse(text?)? / 1000)).collect::<Int64Array>()))
}

/// Plans `EXTRACT(field FROM time)` and `date_part('field', time)` as Spark means the fields.
#[derive(Debug)]
pub(crate) struct SparkExtract;

impl ExprPlanner for SparkExtract {
    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        match part(&args) {
            Some((function, time)) => Ok(PlannerResult::Planned(function.call(vec![time]))),
            None => Ok(PlannerResult::Original(args)),
        }
    }
}

/// The function that gives a field, and its argument.
fn part(args: &[Expr]) -> Option<(Arc<ScalarUDF>, Expr)> {
    let [Expr::Literal(field, _), time] = args else { return None };
    let name = match field.try_as_str().flatten()?.to_ascii_lowercase().as_str() {
        "second" | "seconds" | "s" | "sec" => return Some((fraction_of_minute(), time.clone())),
        "dow" | "dayofweek" => "dayofweek",
        "doy" => "dayofyear",
        "week" | "weeks" | "w" => "weekofyear",
        "quarter" | "qtr" => "quarter",
        "year" | "years" | "y" => "year",
        "month" | "months" | "mon" => "month",
        "day" | "days" | "d" => "day",
        "hour" | "hours" | "h" => "hour",
        "minute" | "minutes" | "min" | "m" => "minute",
        _ => return None,
    };
    let function = super::time::functions().into_iter().find(|function| function.name() == name)?;
    Some((function, time.clone()))
}

/// Turns casts of times and of DOUBLE into what Spark makes of them: text as Java writes it, seconds since 1970; and `date_part` into EXTRACT.
#[derive(Debug)]
pub(crate) struct SparkCasts;

impl FunctionRewrite for SparkCasts {
    fn name(&self) -> &str {
        "spark_casts"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match &expr {
            Expr::ScalarFunction(call) if matches!(call.func.name(), "date_part" | "datepart") => match part(&call.args) {
                Some((function, time)) => Ok(Transformed::yes(function.call(vec![time]))),
                None => plan_err!(
                    "{} takes one of 'year', 'quarter', 'month', 'week', 'day', 'doy', 'dow', 'hour', 'minute', 'second' and a time",
                    call.func.name()
                ),
            },
            Expr::Cast(cast) => Ok(match meant(cast, schema)? {
                Some(meant) => Transformed::yes(meant),
                None => Transformed::no(expr),
            }),
            _ => Ok(Transformed::no(expr)),
        }
    }
}

fn meant(cast: &Cast, schema: &DFSchema) -> Result<Option<Expr>> {
    let inner = || vec![cast.expr.as_ref().clone()];
    let given = cast.expr.get_type(schema)?;
    Ok(match (&given, cast.field.data_type()) {
        (DataType::Timestamp(..), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) => Some(time_text().call(inner())),
        (DataType::Float64, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) => Some(double_text().call(inner())),
        (DataType::Timestamp(..), DataType::Int64) => {
            let seconds = super::time::functions().into_iter().find(|function| function.name() == "unix_seconds");
            seconds.map(|function| function.call(inner()))
        }
        (DataType::Timestamp(..), DataType::Float64) => Some(seconds_of_time().call(inner())),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_and_doubles_are_written_as_spark_writes_them() {
        assert_eq!(text_of_time(0).unwrap(), "1970-01-01 00:00:00");
        assert_eq!(text_of_time(-500).unwrap(), "1969-12-31 23:59:59.5");
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.001, "0.001"),
            (0.000_12, "1.2E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (-1.234e20, "-1.234E20"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text_of_double(value), text);
        }
    }

    #[test]
    fn months_end_with_their_month() {
        let date = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).unwrap();
        assert_eq!(months_later(date(2024, 1, 31), 1), Some(date(2024, 2, 29)));
        assert_eq!(months_later(date(1969, 3, 31), -1), Some(date(1969, 2, 28)));
        let millis = |date: NaiveDate| date.and_hms_opt(12, 0, 0).unwrap().and_utc().timestamp_millis();
        assert_eq!(months_between(millis(date(2000, 1, 31)), millis(date(2000, 2, 29))), Some(0));
        assert_eq!(months_between(millis(date(2000, 1, 15)), millis(date(2001, 1, 15))), Some(12));
        assert_eq!(months_between(millis(date(2000, 1, 15)), millis(date(1999, 12, 16))), Some(0));
        assert_eq!(months_between(millis(date(2000, 1, 31)), millis(date(1985, 4, 30)) + 1), Some(-176));
        assert_eq!(days_of(date_of(-400).unwrap()), Some(-400));
    }
}
