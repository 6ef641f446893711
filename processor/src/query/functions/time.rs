//! Spark's functions of time over the product's timestamps. All of them floor, so times before 1970 come out right.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, StringArray, TimestampMillisecondArray},
    compute::kernels::cast_utils::string_to_datetime,
    datatypes::{DataType, Field, FieldRef, Float64Type, Int32Type, Int64Type, TimestampMillisecondType as Millis},
};
use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use datafusion_common::{DataFusionError, Result, plan_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::{
    common::{as_text, as_time, constant_text, expect_arguments, map_column, over_columns, planned_text, time_type, times},
    pattern::{DEFAULT, Pattern},
};

const DAY: i64 = 86_400_000;

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let parts = Part::ALL.iter().map(|part| ScalarUDF::from(PartOf { part: *part, signature: signature() }));
    let from = FromNumber::ALL.iter().map(|unit| ScalarUDF::from(TimeOf { unit: *unit, signature: signature() }));
    let others = [
        ScalarUDF::from(DateTrunc { signature: signature(), aliases: vec!["datetrunc".to_owned()] }),
        ScalarUDF::from(DateFormat { signature: signature() }),
        ScalarUDF::from(FromUnixtime { signature: signature() }),
        ScalarUDF::from(ToTimestamp { signature: signature(), aliases: vec!["try_to_timestamp".to_owned()] }),
    ];
    parts.chain(from).chain(others).map(Arc::new).collect()
}

/// Milliseconds of a unit of fixed length.
pub(super) fn fixed_unit(name: &str) -> Option<i64> {
    match Unit::new(name) {
        Ok(Unit::Fixed(length)) if !name.eq_ignore_ascii_case("microsecond") => Some(length),
        Ok(Unit::Week) => Some(7 * DAY),
        _ => None,
    }
}

fn signature() -> Signature {
    Signature::user_defined(Volatility::Immutable)
}

pub(super) fn calendar(millis: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis)
}

/// A number read off a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    UnixMillis,
    UnixSeconds,
    UnixMicros,
    UnixDate,
    Year,
    Quarter,
    Month,
    Day,
    DayOfWeek,
    Weekday,
    DayOfYear,
    WeekOfYear,
    Hour,
    Minute,
    Second,
}

impl Part {
    const ALL: [Self; 15] = [
        Self::UnixMillis,
        Self::UnixSeconds,
        Self::UnixMicros,
        Self::UnixDate,
        Self::Year,
        Self::Quarter,
        Self::Month,
        Self::Day,
        Self::DayOfWeek,
        Self::Weekday,
        Self::DayOfYear,
        Self::WeekOfYear,
        Self::Hour,
        Self::Minute,
        Self::Second,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::UnixMillis => "unix_millis",
            Self::UnixSeconds => "unix_seconds",
            Self::UnixMicros => "unix_micros",
            Self::UnixDate => "unix_date",
            Self::Year => "year",
            Self::Quarter => "quarter",
            Self::Month => "month",
            Self::Day => "day",
            Self::DayOfWeek => "dayofweek",
            Self::Weekday => "weekday",
            Self::DayOfYear => "dayofyear",
            Self::WeekOfYear => "weekofyear",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
        }
    }

    fn is_long(self) -> bool {
        matches!(self, Self::UnixMillis | Self::UnixSeconds | Self::UnixMicros)
    }

    fn long(self, millis: i64) -> Option<i64> {
        match self {
            Self::UnixSeconds => Some(millis.div_euclid(1000)),
            Self::UnixMicros => millis.checked_mul(1000),
            _ => Some(millis),
        }
    }

    fn int(self, millis: i64) -> Option<i32> {
        let time = calendar(millis)?;
        let value = match self {
            Self::Year => return Some(time.year()),
            Self::UnixDate => return i32::try_from(millis.div_euclid(DAY)).ok(),
            Self::Quarter => time.month0() / 3 + 1,
            Self::Month => time.month(),
            Self::Day => time.day(),
            Self::DayOfWeek => time.weekday().number_from_sunday(),
            Self::Weekday => time.weekday().num_days_from_monday(),
            Self::DayOfYear => time.ordinal(),
            Self::WeekOfYear => time.iso_week().week(),
            Self::Hour => time.hour(),
            Self::Minute => time.minute(),
            _ => time.second(),
        };
        i32::try_from(value).ok()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PartOf {
    part: Part,
    signature: Signature,
}

impl ScalarUDFImpl for PartOf {
    fn name(&self) -> &str {
        self.part.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 1..=1)?;
        Ok(vec![as_time(self.name(), &types[0])?])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.part.is_long() { DataType::Int64 } else { DataType::Int32 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.part.is_long() {
            map_column::<Millis, Int64Type>(&args, |millis| self.part.long(millis))
        } else {
            map_column::<Millis, Int32Type>(&args, |millis| self.part.int(millis))
        }
    }
}

/// A time made of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum FromNumber {
    Seconds,
    Millis,
    Micros,
}

impl FromNumber {
    const ALL: [Self; 3] = [Self::Seconds, Self::Millis, Self::Micros];
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeOf {
    unit: FromNumber,
    signature: Signature,
}

impl ScalarUDFImpl for TimeOf {
    fn name(&self) -> &str {
        match self.unit {
            FromNumber::Seconds => "timestamp_seconds",
            FromNumber::Millis => "timestamp_millis",
            FromNumber::Micros => "timestamp_micros",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 1..=1)?;
        match &types[0] {
            whole if whole.is_integer() || whole.is_null() => Ok(vec![DataType::Int64]),
            // Seconds alone may carry a fraction.
            number if number.is_numeric() && self.unit == FromNumber::Seconds => Ok(vec![DataType::Float64]),
            other => plan_err!("{} takes a whole number, not {other}", self.name()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(time_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match (self.unit, args.args[0].data_type()) {
            (_, DataType::Float64) => map_column::<Float64Type, Millis>(&args, fractional_seconds),
            (FromNumber::Seconds, _) => map_column::<Int64Type, Millis>(&args, |seconds| seconds.checked_mul(1000)),
            (FromNumber::Millis, _) => map_column::<Int64Type, Millis>(&args, Some),
            (FromNumber::Micros, _) => map_column::<Int64Type, Millis>(&args, |micros| Some(micros.div_euclid(1000))),
        }
    }
}

/// Null for what is not a time at all: NaN, the infinities, and beyond `i64`.
fn fractional_seconds(seconds: f64) -> Option<i64> {
    let millis = (seconds * 1000.0).floor();
    (millis.abs() < i64::MAX as f64).then_some(millis as i64)
}

/// `date_trunc(unit, time)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    signature: Signature,
    aliases: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Of a fixed length in milliseconds.
    Fixed(i64),
    Week,
    /// Of so many months.
    Months(u32),
}

impl Unit {
    fn new(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            // Times have milliseconds: nothing finer is there to cut off.
            "microsecond" | "millisecond" => Ok(Self::Fixed(1)),
            "second" => Ok(Self::Fixed(1000)),
            "minute" => Ok(Self::Fixed(60_000)),
            "hour" => Ok(Self::Fixed(3_600_000)),
            "day" | "dd" => Ok(Self::Fixed(DAY)),
            "week" => Ok(Self::Week),
            "month" | "mon" | "mm" => Ok(Self::Months(1)),
            "quarter" => Ok(Self::Months(3)),
            "year" | "yyyy" | "yy" => Ok(Self::Months(12)),
            _ => plan_err!(
                "date_trunc knows no unit '{name}': write one of year, quarter, month, week, day, hour, minute, second, millisecond"
            ),
        }
    }

    fn truncate(self, millis: i64) -> Option<i64> {
        match self {
            Self::Fixed(length) => millis.checked_sub(millis.rem_euclid(length)),
            Self::Week => {
                // The epoch was a Thursday, three days after a Monday.
                let days = millis.div_euclid(DAY);
                (days - (days + 3).rem_euclid(7)).checked_mul(DAY)
            }
            Self::Months(months) => {
                let time = calendar(millis)?;
                let month = time.month0() / months * months + 1;
                let start = NaiveDate::from_ymd_opt(time.year(), month, 1)?.and_hms_opt(0, 0, 0)?;
                Some(start.and_utc().timestamp_millis())
            }
        }
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        "date_trunc"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 2..=2)?;
        Ok(vec![as_text(self.name(), &types[0])?, as_time(self.name(), &types[1])?])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(time_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(unit) = planned_text(self.name(), &args, 0)? {
            Unit::new(unit)?;
        }
        Ok(Arc::new(Field::new(self.name(), time_type(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let unit = Unit::new(constant_text(self.name(), &args.args, 0)?.unwrap_or_default())?;
        over_columns(&args.args[1..], |columns| {
            let truncated: TimestampMillisecondArray = columns[0].as_primitive::<Millis>().unary_opt(|millis| unit.truncate(millis));
            Ok(Arc::new(truncated.with_data_type(time_type())))
        })
    }
}

fn pattern(text: Option<&str>) -> Result<Pattern> {
    Pattern::new(text.unwrap_or(DEFAULT)).map_err(DataFusionError::Plan)
}

fn format_times(pattern: &Pattern, times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(times.map(|millis| pattern.format(millis?)).collect::<StringArray>())
}

/// `date_format(time, pattern)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateFormat {
    signature: Signature,
}

impl ScalarUDFImpl for DateFormat {
    fn name(&self) -> &str {
        "date_format"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 2..=2)?;
        Ok(vec![as_time(self.name(), &types[0])?, as_text(self.name(), &types[1])?])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        pattern(planned_text(self.name(), &args, 1)?)?;
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let pattern = pattern(constant_text(self.name(), &args.args, 1)?)?;
        over_columns(&args.args[..1], |columns| Ok(format_times(&pattern, times(&columns[0]))))
    }
}

/// `from_unixtime(seconds[, pattern])`: text, as in Spark.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FromUnixtime {
    signature: Signature,
}

impl ScalarUDFImpl for FromUnixtime {
    fn name(&self) -> &str {
        "from_unixtime"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 1..=2)?;
        if !types[0].is_numeric() && !types[0].is_null() {
            return plan_err!("from_unixtime takes a number of seconds, not {}: write date_format(time, pattern) for a time", types[0]);
        }
        let pattern = types.get(1).map(|given| as_text(self.name(), given)).transpose()?;
        Ok(std::iter::once(DataType::Int64).chain(pattern).collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        pattern(planned_text(self.name(), &args, 1)?)?;
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let pattern = pattern(constant_text(self.name(), &args.args, 1)?)?;
        over_columns(&args.args[..1], |columns| {
            let seconds = columns[0].as_primitive::<Int64Type>().iter();
            Ok(format_times(&pattern, seconds.map(|seconds| seconds?.checked_mul(1000))))
        })
    }
}

/// `to_timestamp(text[, pattern])`: null for a text that is no time, so that one bad row does not stop a stream.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToTimestamp {
    signature: Signature,
    aliases: Vec<String>,
}

/// RFC 3339, `yyyy-MM-dd HH:mm:ss`, and a date alone; UTC where no offset is written.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    string_to_datetime(&Utc, text.trim()).ok().map(|time| time.timestamp_millis())
}

pub(super) fn reading_pattern(text: &str) -> Result<Pattern> {
    let pattern = pattern(Some(text))?;
    if pattern.can_parse() {
        return Ok(pattern);
    }
    plan_err!("to_timestamp reads patterns of y, M, d, H, m, s, S and X in digits only, not '{text}'")
}

impl ScalarUDFImpl for ToTimestamp {
    fn name(&self) -> &str {
        "to_timestamp"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 1..=2)?;
        let first = if types[0].is_string() { DataType::Utf8 } else { as_time(self.name(), &types[0])? };
        let pattern = types.get(1).map(|given| as_text(self.name(), given)).transpose()?;
        Ok(std::iter::once(first).chain(pattern).collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(time_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(text) = planned_text(self.name(), &args, 1)? {
            reading_pattern(text)?;
        }
        Ok(Arc::new(Field::new(self.name(), time_type(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args[0].data_type() != DataType::Utf8 {
            return Ok(args.args[0].clone());
        }
        let pattern = constant_text(self.name(), &args.args, 1)?.map(reading_pattern).transpose()?;
        let read = |text: &str| pattern.as_ref().map_or_else(|| parse_time(text), |pattern| pattern.parse(text));
        over_columns(&args.args[..1], |columns| {
            let texts = columns[0].as_string::<i32>().iter();
            let times: TimestampMillisecondArray = texts.map(|text| text.and_then(read)).collect();
            Ok(Arc::new(times.with_data_type(time_type())))
        })
    }
}
